/* SPDX-License-Identifier: BSD-2-Clause */
/* tls_int - what conn and the files behind tls.h share.
 *
 *   tls_context.c    certificate files and settings -> SSL_CTX
 *   tls.c            reading and writing of an established connection
 *   tls_handshake.c  getting there, with the computing off the loop
 */
#ifndef PGSPAN_TLS_INT_H
#define PGSPAN_TLS_INT_H

#include "pgspan/conn.h"
#include "pgspan/offload.h"
#include "pgspan/tls.h"

#include <openssl/ssl.h>

struct iovec;

struct tls_context {
	_Atomic int refs;
	SSL_CTX *ssl;
	unsigned char binding[64]; /* EVP_MAX_MD_SIZE */
	unsigned binding_bytes;
};

/* Results of one read or write of conn's, beside a number of bytes; 0 is end of input. */
enum { IO_AGAIN = -1, IO_BROKEN = -2 };

/* Needed until the handshake is over and what came behind it has been read. While *working*, all but *cancelled* belongs to
 * a thread of offload's. */
struct tls_handshake {
	struct offload_job job;
	bool working;
	_Atomic bool cancelled; /* the connection is gone: don't bother */
	enum rc result;
	struct { /* p[r] … p[w - 1] */
		char *p;
		size_t r, w, cap;
	} in, out;              /* from and to the socket */
	char failure[160];
};

/* Owner: the BIO of its SSL, which is conn's own (accepted) or libpq's (adopted): it is freed with the SSL.
 * The socket is asked at most *recvs* times an event, however much the other side sends: records that have been received are
 * all processed, then the loop turns. So nobody can keep the loop to himself, and SSL_has_pending() is only true while
 * somebody has stopped reading. */
struct tls {
	SSL *ssl;
	struct tls_context *ctx; /* accepted ones; NULL: adopted */
	struct conn *conn;       /* NULL: detached */
	int fd;
	int recvs;
	bool shaking;
	bool saw_eof;
	bool failed;             /* SSL_read has, behind bytes that were good */
	bool read_wants_write;   /* SSL_read waits for room in the socket (an answer to KeyUpdate) */
	bool write_wants_read;   /* SSL_write waits for input (TLS 1.2 renegotiation) */
	struct tls_handshake *handshake;
};

#define TLS_RECVS_PER_EVENT 4

/* tls.c. Owner of *ssl*: as before. */
struct tls *tls_new(SSL *ssl, struct tls_context *ctx, struct conn *c);
ssize_t tls_read(struct tls *t, void *p, size_t n);
ssize_t tls_write(struct tls *t, const struct iovec *v, int n);
bool tls_has_input(const struct tls *t);
/* conn lets go of it: says goodbye if *orderly*, frees what is its own. */
void tls_detach(struct tls *t, bool orderly);
void tls_handshake_free(struct tls *t);

/* tls_handshake.c: events of a connection that is shaking hands. */
void tls_handshake_begin(struct conn *c, struct tls_context *ctx);
void tls_handshake_readable(struct conn *c);
void tls_handshake_writable(struct conn *c);

/* conn.c */
void conn_arm(struct conn *c, ev_io *w, bool on);
/* The handshake is over; tells the owner. */
void conn_tls_done(struct conn *c, bool ok);

#endif
