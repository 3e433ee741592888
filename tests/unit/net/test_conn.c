/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/net/buf.o proxy/net/loop.o proxy/net/offload.o proxy/net/conn.o proxy/net/tls.o proxy/net/tls_context.o proxy/net/tls_handshake.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
/* test_conn - buffers that go back when drained; bytes over a socket pair in order, whatever the kernel takes at once;
 * mail between threads; objects freed after the callback. */
#include "pgspan/conn.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void
buf_consume__all_of_it__gives_memory_back(void **state)
{
	(void)state;
	struct buf_pool p;
	buf_pool_init(&p);
	struct buf b = {0};
	buf_append(&p, &b, "hello", 5);
	assert_int_equal(b.cap, BUF_SMALL);
	buf_consume(&p, &b, 2);
	assert_memory_equal(buf_data(&b), "llo", 3);
	assert_int_equal(buf_len(&b), 3);
	assert_int_equal(p.n_small, 0);
	buf_consume(&p, &b, 3);
	assert_null(b.base);
	assert_int_equal(p.n_small, 1);
	buf_pool_fini(&p);
}

static void
buf_reserve__message_larger_than_a_chunk__keeps_bytes(void **state)
{
	(void)state;
	struct buf_pool p;
	buf_pool_init(&p);
	struct buf b = {0};
	buf_append(&p, &b, "abcdef", 6);
	buf_consume(&p, &b, 4);
	buf_reserve(&p, &b, 1000000);
	assert_int_equal(b.cap, 1000002);
	assert_int_equal(b.r, 0);
	assert_memory_equal(buf_data(&b), "ef", 2);
	buf_release(&p, &b);
	/* The exact size is no class: it went back to malloc, the small one is on its list. */
	assert_int_equal(p.n_small, 1);
	assert_int_equal(p.n_large, 0);
	buf_pool_fini(&p);
}

static void
buf_reserve__room_after_moving__does_not_grow(void **state)
{
	(void)state;
	struct buf_pool p;
	buf_pool_init(&p);
	struct buf b = {0};
	buf_reserve(&p, &b, BUF_SMALL);
	memset(b.base, 'x', BUF_SMALL);
	b.base[BUF_SMALL - 1] = 'y';
	b.w = BUF_SMALL;
	buf_consume(&p, &b, BUF_SMALL - 1);
	buf_reserve(&p, &b, 100);
	assert_int_equal(b.cap, BUF_SMALL);
	assert_int_equal(buf_len(&b), 1);
	assert_int_equal(*buf_data(&b), 'y');
	buf_release(&p, &b);
	buf_pool_fini(&p);
}

/* One end echoes nothing and just counts; the other sends. */
struct end {
	struct conn conn;
	size_t got, expect;
	unsigned char next; /* the byte that must come now */
	bool in_order;
	int drained;
};

static void
count_input(struct conn *c)
{
	struct end *e = container_of(c, struct end, conn);
	struct span s = conn_rx(c);
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] != e->next++)
			e->in_order = false;
	e->got += s.n;
	if (s.n > 0)
		conn_rx_consume(c, s.n);
	if (e->got >= e->expect || c->eof || c->broken)
		ev_break(c->loop->ev, EVBREAK_ALL);
}

static void
count_drained(struct conn *c)
{
	container_of(c, struct end, conn)->drained++;
}

static const struct conn_ops ops = {count_input, count_drained};

struct pair {
	struct loop loop;
	struct end a, b;
	int fd[2];
};

static void
pair_open(struct pair *p)
{
	memset(p, 0, sizeof *p);
	loop_init(&p->loop);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p->fd), 0);
	conn_init(&p->a.conn, &p->loop, p->fd[0], &ops);
	conn_init(&p->b.conn, &p->loop, p->fd[1], &ops);
	p->b.in_order = true;
	conn_read_start(&p->b.conn);
}

static void
pair_close(struct pair *p)
{
	conn_detach(&p->a.conn);
	conn_detach(&p->b.conn);
	close(p->fd[0]);
	close(p->fd[1]);
	loop_fini(&p->loop);
}

static void
conn_flush__more_than_the_socket_takes__arrives_in_order(void **state)
{
	(void)state;
	struct pair p;
	pair_open(&p);
	enum { N = 5000000, PIECES = 300 };
	char *piece[PIECES];
	int n_pieces = 0;
	p.b.expect = N;
	/* Borrowed and copied pieces of odd sizes, more of them than one burst holds, each in memory of its own. */
	size_t at = 0;
	for (size_t k = 0; at < N; k++) {
		size_t n = 1 + k * 977 % 60000;
		if (n > N - at)
			n = N - at;
		assert_true(n_pieces < PIECES);
		char *data = piece[n_pieces++] = xmalloc(n);
		for (size_t i = 0; i < n; i++)
			data[i] = (char)(unsigned char)(at + i);
		if (k % 41 == 40)
			conn_send_copy(&p.a.conn, data, n);
		else
			conn_send_ref(&p.a.conn, span_of(data, n));
		at += n;
		if (k % 29 == 28)
			assert_int_not_equal(conn_flush(&p.a.conn), RC_FAIL);
	}
	assert_int_equal(conn_flush(&p.a.conn), RC_AGAIN);
	assert_true(conn_tx_pending(&p.a.conn) > CONN_TX_HIGH);
	/* What was borrowed may go now. */
	while (n_pieces > 0)
		free(piece[--n_pieces]);
	loop_run(&p.loop);
	assert_int_equal(p.b.got, N);
	assert_true(p.b.in_order);
	assert_int_equal(p.a.drained, 1);
	assert_int_equal(conn_tx_pending(&p.a.conn), 0);
	assert_null(p.a.conn.tx.base);
	assert_null(p.b.conn.rx.base);
	pair_close(&p);
}

static void
conn_input__peer_closes__tells_eof_once(void **state)
{
	(void)state;
	struct pair p;
	pair_open(&p);
	p.b.expect = 100;
	conn_send_ref(&p.a.conn, span_of("\0\1\2", 3));
	assert_int_equal(conn_flush(&p.a.conn), RC_OK);
	shutdown(p.fd[0], SHUT_WR);
	loop_run(&p.loop);
	assert_int_equal(p.b.got, 3);
	assert_true(p.b.conn.eof);
	assert_false(p.b.conn.broken);
	assert_false(ev_is_active(&p.b.conn.rio));
	pair_close(&p);
}

static void
conn_flush__peer_gone__is_broken_and_swallows(void **state)
{
	(void)state;
	struct pair p;
	pair_open(&p);
	conn_detach(&p.b.conn);
	close(p.fd[1]);
	p.fd[1] = dup(p.fd[0]);
	conn_send_ref(&p.a.conn, SPAN_LIT("lost"));
	assert_int_equal(conn_flush(&p.a.conn), RC_FAIL);
	assert_true(p.a.conn.broken);
	conn_send_copy(&p.a.conn, "more", 4);
	assert_int_equal(conn_tx_pending(&p.a.conn), 0);
	pair_close(&p);
}

struct note {
	struct mail mail;
	struct doomed doomed;
	int *order, *n;
	int number;
};

static void
note_free(struct doomed *d)
{
	struct note *n = container_of(d, struct note, doomed);
	n->order[(*n->n)++] = -n->number;
	free(n);
}

static void
note_read(struct loop *l, struct mail *m)
{
	struct note *n = container_of(m, struct note, mail);
	n->order[(*n->n)++] = n->number;
	loop_doom(l, &n->doomed);
	if (n->number == 3)
		loop_stop(l);
}

struct sender {
	struct loop *loop;
	int *order, *n;
};

static void *
send_three(void *arg)
{
	struct sender *s = arg;
	for (int i = 1; i <= 3; i++) {
		struct note *n = xcalloc(1, sizeof *n);
		n->mail.fn = note_read;
		n->doomed.fn = note_free;
		n->order = s->order;
		n->n = s->n;
		n->number = i;
		loop_post(s->loop, &n->mail);
	}
	return NULL;
}

static void
loop_post__from_another_thread__in_order_and_freed(void **state)
{
	(void)state;
	struct loop l;
	loop_init(&l);
	int order[6] = {0}, n = 0, last = 0;
	pthread_t t;
	struct sender s = {&l, order, &n};
	assert_int_equal(pthread_create(&t, NULL, send_three, &s), 0);
	loop_run(&l);
	pthread_join(t, NULL);
	loop_fini(&l);
	assert_int_equal(n, 6);
	/* Each is freed after it was read, and they are read in the order sent. */
	bool read[4] = {false};
	for (int i = 0; i < 6; i++) {
		if (order[i] > 0) {
			assert_int_equal(order[i], last + 1);
			last = order[i];
			read[last] = true;
		} else {
			assert_true(read[-order[i]]);
		}
	}
	assert_int_equal(last, 3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(buf_consume__all_of_it__gives_memory_back),
	    cmocka_unit_test(buf_reserve__message_larger_than_a_chunk__keeps_bytes),
	    cmocka_unit_test(buf_reserve__room_after_moving__does_not_grow),
	    cmocka_unit_test(conn_flush__more_than_the_socket_takes__arrives_in_order),
	    cmocka_unit_test(conn_input__peer_closes__tells_eof_once),
	    cmocka_unit_test(conn_flush__peer_gone__is_broken_and_swallows),
	    cmocka_unit_test(loop_post__from_another_thread__in_order_and_freed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
