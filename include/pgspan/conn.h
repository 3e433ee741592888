/* SPDX-License-Identifier: BSD-2-Clause */
/* conn - one socket on a loop, plain or TLS: bytes in, bytes out, back-pressure. Knows nothing of the protocol.
 *
 * Embedded in what uses it (a client's session, a server). Owner: that struct.  Thread: its loop's.
 * conn never frees or closes itself: it tells by callback, and the owner decides. */
#ifndef PGSPAN_CONN_H
#define PGSPAN_CONN_H

#include "pgspan/loop.h"

#include <openssl/types.h>

#define CONN_TX_HIGH 65536u /* more than this unsent: the peer's reading should stop … */
#define CONN_TX_LOW 16384u  /* … until no more than this is left */
#define CONN_TX_IOV 16

struct conn;
struct tls;
struct tls_context;

struct conn_ops {
	/* Bytes came (conn_rx), or the other side will send no more (c->eof), or the connection broke (c->broken), or its TLS is
	 * there now. */
	void (*on_input)(struct conn *c);
	/* The transmit queue has fallen to CONN_TX_LOW after it had been above it. */
	void (*on_drained)(struct conn *c);
};

/* Spans queued by reference, and how much of each is still to go. Only there between queueing and flush. */
struct conn_burst {
	int n;
	struct span v[CONN_TX_IOV];
};

struct conn {
	int fd; /* -1: closed */
	bool eof;     /* orderly end of input */
	bool broken;  /* reset, or TLS failed: nothing more will be read or written */
	bool want_read;
	bool was_high; /* on_drained is owed */
	bool rx_large; /* the last recv filled its buffer: read the next bytes into a large one */
	bool shaking;  /* hands: what is queued meanwhile is swallowed */
	struct loop *loop;
	const struct conn_ops *ops;
	struct tls *tls; /* NULL: plain */
	struct buf rx, tx;
	struct conn_burst *burst;
	ev_io rio, wio;
};

/* *fd* must be non-blocking; it belongs to the owner, conn_detach() gives it back. Reading begins with conn_read_start(). */
void conn_init(struct conn *c, struct loop *l, int fd, const struct conn_ops *ops);
/* Stops watching and gives the buffers back; TLS says goodbye. The descriptor stays open. */
void conn_detach(struct conn *c);

/* A handshake as the server; its first bytes may have been received. on_input is called when it is over, with c->broken if it
 * failed, never from inside this call. Takes a reference to *ctx*. */
void conn_start_tls(struct conn *c, struct tls_context *ctx);
/* An established SSL becomes the connection's: its owner (libpq) stays responsible for the end, after conn_detach(). */
void conn_adopt_ssl(struct conn *c, SSL *ssl);

void conn_read_start(struct conn *c);
void conn_read_stop(struct conn *c);

/* What has been received and not been consumed. */
static inline struct span
conn_rx(const struct conn *c)
{
	return span_of(c->rx.base ? c->rx.base + c->rx.r : NULL, buf_len(&c->rx));
}

/* Makes the receive buffer large enough for a message of *total* bytes that must be read whole. */
void conn_rx_expect(struct conn *c, size_t total);
void conn_rx_consume(struct conn *c, size_t n);

/* Queue bytes. _ref borrows them until conn_flush(), which must come before they change: usually at the end of the same
 * callback. _copy takes a copy. A broken connection swallows everything. */
void conn_send_ref(struct conn *c, struct span bytes);
void conn_send_copy(struct conn *c, const void *p, size_t n);
/* Writes as much as the socket takes, in one system call where it can; copies what is left. RC_OK: all gone; RC_AGAIN: the
 * rest goes by itself; RC_FAIL: broken. May not call back. */
enum rc conn_flush(struct conn *c);

/* Bytes that wait to be written. */
size_t conn_tx_pending(const struct conn *c);

#endif
