/* SPDX-License-Identifier: BSD-2-Clause */
/* tls - encrypted connections: what the certificate files say (contexts), and what a connection can tell of its TLS.
 * Reading and writing are conn's: see conn_start_tls() and conn_adopt_ssl() in conn.h.
 *
 * A context is immutable and reference-counted: a reload makes a new one for new connections, those that are there keep
 * theirs.  Thread: contexts any; connections their loop's. */
#ifndef PGSPAN_TLS_H
#define PGSPAN_TLS_H

#include "pgspan/diag.h"
#include "pgspan/span.h"

/* PgBouncer's client_tls_sslmode. */
enum tls_mode {
	TLS_DISABLE,   /* an SSLRequest is answered N */
	TLS_ALLOW,     /* as PREFER */
	TLS_PREFER,    /* the client chooses */
	TLS_REQUIRE,   /* a client without TLS is refused */
	TLS_VERIFY_CA, /* and so is one without a valid certificate */
	TLS_VERIFY_FULL, /* as VERIFY_CA */
};

/* As they stand in the configuration; file names are absolute. Empty ones are not set. */
struct tls_settings {
	enum tls_mode mode;
	char *key_file, *cert_file, *ca_file;
	char *protocols, *ciphers, *ciphersuites, *curves;
};

struct tls_context;

/* Reads the files and checks that key and certificate belong together. NULL: *d* says what is wrong, and *at* which
 * setting is to blame: one of 'k'ey, 'c'ert, c'a', 'p'rotocols, c'i'phers, cipher's'uites, c'u'rves. Starts with one
 * reference. Never asks for a pass phrase: an encrypted key is a mistake. */
struct tls_context *tls_context_new(const struct tls_settings *s, char *at, struct diag *d) WARN_UNUSED;
struct tls_context *tls_context_ref(struct tls_context *c);
void tls_context_unref(struct tls_context *c); /* NULL is allowed */

/* --- one connection --- */

struct tls;

/* What SCRAM's channel binding tls-server-end-point binds to (RFC 5929): our certificate's digest. Empty: the certificate's
 * signature names no digest (Ed25519), and no binding can be offered. Borrowed from the connection. */
struct span tls_binding(const struct tls *t);
/* Whether the application protocol "postgresql" was agreed on (ALPN). */
bool tls_has_alpn(const struct tls *t);
/* The common name of the client's certificate, which was verified. False: no certificate, no name, or one that does not fit
 * or holds a zero byte. */
bool tls_peer_name(const struct tls *t, char *out, size_t size);
/* "TLSv1.3". */
const char *tls_version(const struct tls *t);

#endif
