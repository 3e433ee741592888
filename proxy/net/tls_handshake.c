/* SPDX-License-Identifier: BSD-2-Clause */
/* tls_handshake - the server's side of a handshake, computed off the loop.
 *
 *   loop: recv ─► in ─► a whole record? ──► thread: SSL_do_handshake(in, out) ──► loop: send out ─► more, done, or failed
 *
 * A signature of RSA takes a millisecond and more, and a storm of new clients would hold up those that are there. So the
 * loop only moves bytes, and threads that the kernel lets behind the loops (offload_compute) do the rest, on memory alone:
 * they never touch the socket, and while one works the loop leaves the connection alone but to let it go. */
#include "tls_int.h"

#include "pgspan/log.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define IN_STEP 4096
#define IN_MAX 32768 /* a record and what may come with it; no honest client sends more before it is answered */

static void
run(struct offload_job *j)
{
	struct tls_handshake *h = container_of(j, struct tls_handshake, job);
	struct tls *t = j->arg;
	h->result = RC_FAIL;
	if (atomic_load(&h->cancelled))
		return;
	ERR_clear_error();
	int rc = SSL_do_handshake(t->ssl);
	if (rc == 1) {
		h->result = RC_OK;
	} else if (SSL_get_error(t->ssl, rc) == SSL_ERROR_WANT_READ) {
		h->result = RC_AGAIN;
	} else {
		unsigned long e = ERR_peek_error();
		const char *text = ERR_reason_error_string(e), *cert = NULL;
		long verified = SSL_get_verify_result(t->ssl);
		if (verified != X509_V_OK)
			cert = X509_verify_cert_error_string(verified);
		snprintf(h->failure, sizeof h->failure, "%s%s%s", text ? text : "the client broke it off", cert ? ": " : "", cert ? cert : "");
	}
	ERR_clear_error();
}

static void
failed(struct conn *c, const char *why)
{
	log_info("a client's TLS handshake failed: %s", why);
	conn_tls_done(c, false);
}

/* What the thread wrote goes out; when all has gone, the result counts. */
static void
go_on(struct conn *c)
{
	struct tls_handshake *h = c->tls->handshake;
	while (h->out.r < h->out.w) {
		ssize_t n = send(c->fd, h->out.p + h->out.r, h->out.w - h->out.r, MSG_NOSIGNAL);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			conn_arm(c, &c->wio, true);
			return;
		}
		if (n == -1) {
			failed(c, strerror(errno));
			return;
		}
		h->out.r += (size_t)n;
	}
	h->out.r = h->out.w = 0;
	conn_arm(c, &c->wio, false);
	switch (h->result) {
	case RC_OK:
		c->tls->shaking = false;
		if (h->in.r == h->in.w)
			tls_handshake_free(c->tls);
		conn_tls_done(c, true);
		break;
	case RC_AGAIN:
		conn_arm(c, &c->rio, true);
		break;
	case RC_FAIL:
		failed(c, h->failure);
		break;
	}
}

static void
on_run(struct loop *l, struct mail *m)
{
	struct offload_job *j = container_of(m, struct offload_job, mail);
	struct tls *t = j->arg;
	(void)l;
	t->handshake->working = false;
	if (t->conn)
		go_on(t->conn);
	else
		SSL_free(t->ssl);
}

/* Whether it is worth a thread's while: a record is there whole, or something that is none. */
static bool
has_record(const struct tls_handshake *h)
{
	const unsigned char *p = (const unsigned char *)h->in.p + h->in.r;
	size_t n = h->in.w - h->in.r;
	if (n < 5)
		return n > 0 && (p[0] < 0x14 || p[0] > 0x17);
	return p[0] < 0x14 || p[0] > 0x17 || n >= 5 + ((size_t)p[3] << 8 | p[4]);
}

static void
work_or_wait(struct conn *c)
{
	struct tls_handshake *h = c->tls->handshake;
	bool ready = has_record(h);
	conn_arm(c, &c->rio, !ready);
	if (!ready)
		return;
	h->working = true;
	h->job.arg = c->tls;
	offload_compute(c->loop, &h->job, run, on_run);
}

static void
put_in(struct tls_handshake *h, size_t room)
{
	if (h->in.cap - h->in.w >= room)
		return;
	h->in.cap = h->in.w + room;
	h->in.p = xrealloc(h->in.p, h->in.cap);
}

void
tls_handshake_readable(struct conn *c)
{
	struct tls_handshake *h = c->tls->handshake;
	put_in(h, IN_STEP);
	ssize_t n = recv(c->fd, h->in.p + h->in.w, IN_STEP, 0);
	if (n == -1 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n > 0)
		h->in.w += (size_t)n;
	if (n <= 0 || h->in.w - h->in.r > IN_MAX)
		failed(c, n == 0 ? "the client left" : n == -1 ? strerror(errno) : "too many bytes at once");
	else
		work_or_wait(c);
}

void
tls_handshake_writable(struct conn *c)
{
	go_on(c);
}

void
tls_handshake_begin(struct conn *c, struct tls_context *ctx)
{
	SSL *ssl = SSL_new(ctx->ssl);
	if (!ssl)
		abort();
	struct tls *t = tls_new(ssl, ctx, c);
	struct span first = conn_rx(c);
	SSL_set_accept_state(ssl);
	t->shaking = true;
	t->handshake = xcalloc(1, sizeof *t->handshake);
	c->tls = t;
	if (first.n > 0) {
		put_in(t->handshake, first.n);
		memcpy(t->handshake->in.p, first.p, first.n);
		t->handshake->in.w = first.n;
		conn_rx_consume(c, first.n);
	}
	work_or_wait(c);
}
