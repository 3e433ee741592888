/* SPDX-License-Identifier: BSD-2-Clause */
/* conn - see pgspan/conn.h.
 *
 * Writing: what is queued by reference stands in `burst`, behind what is left of earlier flushes in `tx`.
 *
 *     tx (owned bytes)  ──►  burst v[0] … v[n-1] (borrowed)  ──►  sendmsg, one call
 *
 * flush writes both; what the kernel did not take is appended to tx, and EV_WRITE is armed. While tx holds anything the
 * burst is not sent ahead of it, so order is kept. The write watcher is armed only on EAGAIN.
 *
 * Reading: one recv an event. Level-triggered epoll brings us back if there was more, after others had their turn. */
#include "tls_int.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define SMALL_BURST 1024

void
conn_arm(struct conn *c, ev_io *w, bool on)
{
	if (on && !ev_is_active(w))
		ev_io_start(c->loop->ev, w);
	else if (!on && ev_is_active(w))
		ev_io_stop(c->loop->ev, w);
}

static struct conn_burst *
need_burst(struct conn *c)
{
	if (!c->burst) {
		c->burst = c->loop->spare_burst ? c->loop->spare_burst : xmalloc(sizeof *c->burst);
		c->loop->spare_burst = NULL;
		c->burst->n = 0;
	}
	return c->burst;
}

static void
drop_burst(struct conn *c)
{
	if (!c->burst)
		return;
	free(c->loop->spare_burst);
	c->loop->spare_burst = c->burst;
	c->burst = NULL;
}

static void
break_off(struct conn *c)
{
	c->broken = true;
	conn_arm(c, &c->wio, false);
	buf_release(&c->loop->bufs, &c->tx);
	if (c->burst)
		c->burst->n = 0;
}

/* Results of one read or write: bytes, 0 with eof set, IO_AGAIN, IO_BROKEN. */

static ssize_t
io_read(struct conn *c, void *p, size_t n)
{
	if (c->tls)
		return tls_read(c->tls, p, n);
	ssize_t rc;
	do
		rc = recv(c->fd, p, n, 0);
	while (rc == -1 && errno == EINTR);
	if (rc == 0)
		c->eof = true;
	if (rc == -1)
		return errno == EAGAIN || errno == EWOULDBLOCK ? IO_AGAIN : IO_BROKEN;
	return rc;
}

static ssize_t
io_write(struct conn *c, struct iovec *v, int n)
{
	if (c->tls)
		return tls_write(c->tls, v, n);
	struct msghdr m = {.msg_iov = v, .msg_iovlen = (size_t)n};
	ssize_t rc;
	do
		rc = n == 1 ? send(c->fd, v[0].iov_base, v[0].iov_len, MSG_NOSIGNAL) : sendmsg(c->fd, &m, MSG_NOSIGNAL);
	while (rc == -1 && errno == EINTR);
	if (rc == -1)
		return errno == EAGAIN || errno == EWOULDBLOCK ? IO_AGAIN : IO_BROKEN;
	return rc;
}

/* TLS may hold records that epoll knows nothing of: they are read in an event of their own, which lets others go first. */
static void
feed(struct conn *c)
{
	if (tls_has_input(c->tls))
		ev_feed_event(c->loop->ev, &c->rio, EV_CUSTOM);
}

/* What TLS does before a read. False: there is nothing to read now. */
static bool
before_tls_read(struct conn *c, int revents)
{
	struct tls *t = c->tls;
	if (c->shaking) {
		tls_handshake_readable(c);
		return false;
	}
	if (revents & EV_READ)
		t->recvs = TLS_RECVS_PER_EVENT;
	if (t->write_wants_read) {
		t->write_wants_read = false;
		(void)conn_flush(c);
		if (!c->want_read && !t->write_wants_read)
			conn_arm(c, &c->rio, false);
	}
	return c->want_read;
}

static void
on_readable(struct ev_loop *ev, ev_io *w, int revents)
{
	struct conn *c = container_of(w, struct conn, rio);
	(void)ev;
	if (c->tls && !before_tls_read(c, revents))
		return;
	size_t room = c->rx.base ? c->rx.cap - c->rx.w : 0;
	if (room == 0) {
		room = c->rx_large || buf_len(&c->rx) >= BUF_SMALL ? BUF_LARGE : BUF_SMALL;
		buf_reserve(&c->loop->bufs, &c->rx, c->rx.base ? room - 1 : room);
		room = c->rx.cap - c->rx.w;
	}
	ssize_t n = io_read(c, c->rx.base + c->rx.w, room);
	if (n > 0) {
		c->rx.w += (uint32_t)n;
		c->rx_large = (size_t)n == room;
	} else if (buf_len(&c->rx) == 0) {
		buf_release(&c->loop->bufs, &c->rx);
	}
	if (c->tls) {
		if (c->tls->read_wants_write)
			conn_arm(c, &c->wio, true);
		if (c->tls->failed)
			n = IO_BROKEN;
		else if (n > 0)
			feed(c);
	}
	if (n == IO_AGAIN && !c->broken)
		return;
	if (n == IO_BROKEN)
		break_off(c);
	if (c->eof || c->broken)
		conn_read_stop(c);
	c->ops->on_input(c);
}

static void
on_writable(struct ev_loop *ev, ev_io *w, int revents)
{
	struct conn *c = container_of(w, struct conn, wio);
	(void)revents;
	if (c->shaking) {
		tls_handshake_writable(c);
		return;
	}
	if (c->tls && c->tls->read_wants_write) {
		c->tls->read_wants_write = false;
		if (c->want_read)
			ev_feed_event(ev, &c->rio, EV_CUSTOM);
	}
	if (conn_flush(c) == RC_OK)
		conn_arm(c, &c->wio, false);
	if (c->broken) {
		conn_read_stop(c);
		c->ops->on_input(c);
	} else if (c->was_high && conn_tx_pending(c) <= CONN_TX_LOW) {
		c->was_high = false;
		c->ops->on_drained(c);
	}
}

void
conn_init(struct conn *c, struct loop *l, int fd, const struct conn_ops *ops)
{
	memset(c, 0, sizeof *c);
	c->loop = l;
	c->fd = fd;
	c->ops = ops;
	ev_io_init(&c->rio, on_readable, fd, EV_READ);
	ev_io_init(&c->wio, on_writable, fd, EV_WRITE);
}

void
conn_detach(struct conn *c)
{
	if (c->fd == -1)
		return;
	conn_read_stop(c);
	conn_arm(c, &c->wio, false);
	conn_arm(c, &c->rio, false);
	if (c->tls)
		tls_detach(c->tls, !c->broken && conn_tx_pending(c) == 0);
	c->tls = NULL;
	buf_release(&c->loop->bufs, &c->rx);
	buf_release(&c->loop->bufs, &c->tx);
	drop_burst(c);
	c->fd = -1;
}

void
conn_start_tls(struct conn *c, struct tls_context *ctx)
{
	assert(!c->tls && conn_tx_pending(c) == 0);
	c->shaking = true;
	tls_handshake_begin(c, ctx);
}

void
conn_tls_done(struct conn *c, bool ok)
{
	c->shaking = false;
	conn_arm(c, &c->rio, false);
	if (!ok)
		break_off(c);
	else if (c->want_read) {
		c->want_read = false;
		conn_read_start(c);
	}
	c->ops->on_input(c);
}

void
conn_adopt_ssl(struct conn *c, SSL *ssl)
{
	SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_set_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_set_read_ahead(ssl, 1);
	c->tls = tls_new(ssl, NULL, c);
}

void
conn_read_start(struct conn *c)
{
	bool again = c->want_read;
	if (c->eof || c->broken)
		return;
	c->want_read = true;
	if (c->shaking)
		return;
	conn_arm(c, &c->rio, true);
	if (c->tls && !again)
		feed(c);
}

void
conn_read_stop(struct conn *c)
{
	c->want_read = false;
	if (!c->tls || (!c->shaking && !c->tls->write_wants_read))
		conn_arm(c, &c->rio, false);
}

void
conn_rx_expect(struct conn *c, size_t total)
{
	size_t have = buf_len(&c->rx);
	if (total > have)
		buf_reserve(&c->loop->bufs, &c->rx, total - have);
}

void
conn_rx_consume(struct conn *c, size_t n)
{
	buf_consume(&c->loop->bufs, &c->rx, n);
}

void
conn_send_ref(struct conn *c, struct span bytes)
{
	if (c->broken || c->shaking || bytes.n == 0)
		return;
	if (buf_len(&c->tx) > 0 && ev_is_active(&c->wio)) {
		/* The socket is full: this would be copied by the flush anyway. */
		conn_send_copy(c, bytes.p, bytes.n);
		return;
	}
	struct conn_burst *b = need_burst(c);
	if (b->n > 0 && b->v[b->n - 1].p + b->v[b->n - 1].n == bytes.p) {
		b->v[b->n - 1].n += bytes.n;
		return;
	}
	if (b->n == CONN_TX_IOV) {
		(void)conn_flush(c);
		if (c->broken)
			return;
		if (ev_is_active(&c->wio)) {
			conn_send_copy(c, bytes.p, bytes.n);
			return;
		}
		b = need_burst(c);
	}
	b->v[b->n++] = bytes;
}

void
conn_send_copy(struct conn *c, const void *p, size_t n)
{
	if (c->broken || c->shaking)
		return;
	/* Borrowed bytes that stand before these become owned ones first. */
	for (int i = 0; c->burst && i < c->burst->n; i++)
		buf_append(&c->loop->bufs, &c->tx, c->burst->v[i].p, c->burst->v[i].n);
	if (c->burst)
		c->burst->n = 0;
	buf_append(&c->loop->bufs, &c->tx, p, n);
}

/* Takes *n* written bytes off the front of tx and then of the burst. */
static void
written(struct conn *c, size_t n)
{
	size_t own = buf_len(&c->tx) < n ? buf_len(&c->tx) : n;
	if (own > 0)
		buf_consume(&c->loop->bufs, &c->tx, own);
	n -= own;
	struct conn_burst *b = c->burst;
	int gone = 0;
	while (n > 0) {
		struct span *s = &b->v[gone];
		if (s->n > n) {
			s->p += n;
			s->n -= n;
			break;
		}
		n -= s->n;
		gone++;
	}
	if (gone > 0) {
		memmove(b->v, b->v + gone, (size_t)(b->n - gone) * sizeof b->v[0]);
		b->n -= gone;
	}
}

enum rc
conn_flush(struct conn *c)
{
	while (!c->broken) {
		struct iovec v[CONN_TX_IOV + 1];
		int n = 0;
		size_t total = 0;
		if (buf_len(&c->tx) > 0)
			v[n++] = (struct iovec){c->tx.base + c->tx.r, buf_len(&c->tx)};
		for (int i = 0; c->burst && i < c->burst->n; i++) {
			union {
				const char *in;
				void *out; /* iovec has no const; sendmsg does not write */
			} u = {c->burst->v[i].p};
			v[n++] = (struct iovec){u.out, c->burst->v[i].n};
		}
		for (int i = 0; i < n; i++)
			total += v[i].iov_len;
		if (total == 0) {
			drop_burst(c);
			return RC_OK;
		}
		/* A few small pieces: copying them is cheaper than what sendmsg costs more than send (0.15 us). */
		char small[SMALL_BURST];
		if (n > 1 && total <= sizeof small) {
			size_t at = 0;
			for (int i = 0; i < n; at += v[i++].iov_len)
				memcpy(small + at, v[i].iov_base, v[i].iov_len);
			v[0] = (struct iovec){small, total};
			n = 1;
		}
		ssize_t sent = io_write(c, v, n);
		if (sent == IO_BROKEN) {
			break_off(c);
			if (c->tls && ev_is_active(&c->rio)) /* a failure of TLS's own makes no event of the socket */
				ev_feed_event(c->loop->ev, &c->rio, EV_CUSTOM);
			break;
		}
		if (sent > 0)
			written(c, (size_t)sent);
		if (sent == IO_AGAIN || (!c->tls && (size_t)sent < total)) {
			conn_send_copy(c, "", 0);
			conn_arm(c, c->tls && c->tls->write_wants_read ? &c->rio : &c->wio, true);
			c->was_high |= conn_tx_pending(c) > CONN_TX_LOW;
			return RC_AGAIN;
		}
	}
	drop_burst(c);
	return RC_FAIL;
}

size_t
conn_tx_pending(const struct conn *c)
{
	size_t n = buf_len(&c->tx);
	for (int i = 0; c->burst && i < c->burst->n; i++)
		n += c->burst->v[i].n;
	return n;
}
