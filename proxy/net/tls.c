/* SPDX-License-Identifier: BSD-2-Clause */
/* tls - see pgspan/tls.h and tls_int.h: bytes in and out of an SSL, over a BIO of our own.
 *
 *   conn ──SSL_read──► SSL ──BIO──► what the handshake left, then recv(), while the event's allowance lasts
 *
 * OpenSSL reads ahead (one recv for header and body, and for several small records); with the allowance that is no more
 * than a plain connection takes per event. The same BIO replaces libpq's on connections to servers. */
#include "tls_int.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define RECORD_BYTES 16384 /* the most that a TLS record holds */

/* ---- BIO ---- */

static BIO_METHOD *method;

/* From what the socket gave during the handshake. */
static int
read_handshake(struct tls *t, char *p, int n)
{
	struct tls_handshake *h = t->handshake;
	size_t there = h->in.w - h->in.r, take = there < (size_t)n ? there : (size_t)n;
	memcpy(p, h->in.p + h->in.r, take);
	h->in.r += take;
	if (h->in.r == h->in.w)
		h->in.r = h->in.w = 0;
	return (int)take;
}

static int
bio_read(BIO *b, char *p, int n)
{
	struct tls *t = BIO_get_data(b);
	BIO_clear_retry_flags(b);
	if (t->handshake) {
		int got = read_handshake(t, p, n);
		if (got > 0)
			return got;
		if (!t->shaking)
			tls_handshake_free(t);
	}
	if (t->shaking || t->recvs == 0) {
		BIO_set_retry_read(b);
		return -1;
	}
	t->recvs--;
	ssize_t rc;
	do
		rc = recv(t->fd, p, (size_t)n, 0);
	while (rc == -1 && errno == EINTR);
	if (rc == 0)
		t->saw_eof = true;
	if (rc == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		BIO_set_retry_read(b);
	return (int)rc;
}

/* Into the handshake's buffer: its owner sends it. */
static int
write_handshake(struct tls_handshake *h, const char *p, int n)
{
	if (h->out.w + (size_t)n > h->out.cap) {
		h->out.cap = h->out.w + (size_t)n + 1024;
		h->out.p = xrealloc(h->out.p, h->out.cap);
	}
	memcpy(h->out.p + h->out.w, p, (size_t)n);
	h->out.w += (size_t)n;
	return n;
}

static int
bio_write(BIO *b, const char *p, int n)
{
	struct tls *t = BIO_get_data(b);
	BIO_clear_retry_flags(b);
	if (t->shaking)
		return write_handshake(t->handshake, p, n);
	ssize_t rc;
	do
		rc = send(t->fd, p, (size_t)n, MSG_NOSIGNAL);
	while (rc == -1 && errno == EINTR);
	if (rc == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		BIO_set_retry_write(b);
	return (int)rc;
}

static long
bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	(void)num;
	(void)ptr;
	if (cmd == BIO_CTRL_FLUSH)
		return 1;
	if (cmd == BIO_CTRL_EOF)
		return ((struct tls *)BIO_get_data(b))->saw_eof;
	return 0;
}

static int
bio_destroy(BIO *b)
{
	struct tls *t = BIO_get_data(b);
	tls_handshake_free(t);
	tls_context_unref(t->ctx);
	free(t);
	return 1;
}

static void
make_method(void)
{
	method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pgspan conn");
	if (!method)
		abort();
	BIO_meth_set_read(method, bio_read);
	BIO_meth_set_write(method, bio_write);
	BIO_meth_set_ctrl(method, bio_ctrl);
	BIO_meth_set_destroy(method, bio_destroy);
}

struct tls *
tls_new(SSL *ssl, struct tls_context *ctx, struct conn *c)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, make_method);
	struct tls *t = xcalloc(1, sizeof *t);
	BIO *b = BIO_new(method);
	if (!b)
		abort();
	t->ssl = ssl;
	t->ctx = ctx ? tls_context_ref(ctx) : NULL;
	t->conn = c;
	t->fd = c->fd;
	BIO_set_data(b, t);
	BIO_set_init(b, 1);
	SSL_set_bio(ssl, b, b);
	return t;
}

/* ---- bytes ---- */

static ssize_t
result(struct tls *t, int rc, bool reading)
{
	switch (SSL_get_error(t->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		t->write_wants_read |= !reading;
		return IO_AGAIN;
	case SSL_ERROR_WANT_WRITE:
		t->read_wants_write |= reading;
		return IO_AGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return reading ? 0 : IO_BROKEN;
	default:
		return IO_BROKEN;
	}
}

ssize_t
tls_read(struct tls *t, void *p, size_t n)
{
	size_t got = 0;
	while (got < n) {
		size_t want = n - got;
		ERR_clear_error();
		int rc = SSL_read(t->ssl, (char *)p + got, want > INT32_MAX ? INT32_MAX : (int)want);
		if (rc > 0) {
			got += (size_t)rc;
			continue;
		}
		ssize_t r = result(t, rc, true);
		t->conn->eof |= r == 0;
		t->failed |= r == IO_BROKEN;
		return got > 0 ? (ssize_t)got : r;
	}
	return (ssize_t)got;
}

ssize_t
tls_write(struct tls *t, const struct iovec *v, int n)
{
	const char *p = v[0].iov_base;
	size_t len = v[0].iov_len;
	char record[RECORD_BYTES];
	if (n > 1 && len < sizeof record) {
		/* Pieces become one record. After IO_AGAIN they are all in v[0], so the same bytes are offered again, and no fewer. */
		size_t at = 0;
		for (int i = 0; i < n && at < sizeof record; i++) {
			size_t room = sizeof record - at, take = v[i].iov_len < room ? v[i].iov_len : room;
			memcpy(record + at, v[i].iov_base, take);
			at += take;
		}
		p = record;
		len = at;
	}
	ERR_clear_error();
	int rc = SSL_write(t->ssl, p, len > INT32_MAX ? INT32_MAX : (int)len);
	return rc > 0 ? rc : result(t, rc, false);
}

bool
tls_has_input(const struct tls *t)
{
	return SSL_has_pending(t->ssl) || (t->handshake && !t->shaking);
}

void
tls_handshake_free(struct tls *t)
{
	if (!t->handshake)
		return;
	free(t->handshake->in.p);
	free(t->handshake->out.p);
	free(t->handshake);
	t->handshake = NULL;
}

void
tls_detach(struct tls *t, bool orderly)
{
	t->conn = NULL;
	if (!t->ctx)
		return; /* libpq's: PQfinish says goodbye and frees */
	if (t->handshake && t->handshake->working) {
		atomic_store(&t->handshake->cancelled, true); /* freed when the thread is done with it */
		return;
	}
	if (orderly && !t->shaking) {
		ERR_clear_error();
		(void)SSL_shutdown(t->ssl);
	}
	SSL_free(t->ssl);
}

/* ---- facts ---- */

struct span
tls_binding(const struct tls *t)
{
	return t->ctx ? span_of((const char *)t->ctx->binding, t->ctx->binding_bytes) : SPAN_NONE;
}

bool
tls_has_alpn(const struct tls *t)
{
	const unsigned char *name;
	unsigned n;
	SSL_get0_alpn_selected(t->ssl, &name, &n);
	return n > 0;
}

bool
tls_peer_name(const struct tls *t, char *out, size_t size)
{
	X509 *cert = SSL_get0_peer_certificate(t->ssl);
	if (!cert || SSL_get_verify_result(t->ssl) != X509_V_OK)
		return false;
	X509_NAME *subject = X509_get_subject_name(cert);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (at < 0)
		return false;
	unsigned char *utf8;
	int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	if (n < 0)
		return false;
	bool good = n > 0 && (size_t)n < size && !memchr(utf8, 0, (size_t)n);
	if (good) {
		memcpy(out, utf8, (size_t)n);
		out[n] = '\0';
	}
	OPENSSL_free(utf8);
	return good;
}

const char *
tls_version(const struct tls *t)
{
	return SSL_get_version(t->ssl);
}
