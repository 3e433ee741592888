/* SPDX-License-Identifier: BSD-2-Clause */
/* janitor - see pgspan/janitor.h. */
#include "pgspan/janitor.h"

#include "pgspan/msg.h"

#define ANSWER_MAX (1u << 20)

static void
note_ended(void *arg, const struct reply *e, enum reply_end end)
{
	(void)arg;
	(void)e;
	(void)end;
}

/* RC_OK: all is answered; RC_AGAIN: more to come; RC_FAIL: it cannot be trusted. */
static enum rc
read_answers(struct server *s)
{
	for (;;) {
		struct wire_msg m;
		struct span rx = conn_rx(&s->conn);
		enum wire_result r = wire_take(rx.p, rx.n, ANSWER_MAX, &m);
		if (r == WIRE_NEED_MORE)
			return s->conn.eof || s->conn.broken ? RC_FAIL : RC_AGAIN;
		if (r != WIRE_OK || m.type == 'E' || replies_match(&s->replies, m.type, note_ended, NULL) == VERDICT_BROKEN)
			return RC_FAIL;
		if (m.type == 'S')
			server_note_parameter(s, &m);
		if (m.type == 'Z')
			s->tx_status = m.len == 1 ? (char)m.body[0] : 'I';
		conn_rx_consume(&s->conn, m.len + WIRE_HEAD_BYTES);
		if (replies_empty(&s->replies))
			return s->tx_status == 'I' ? RC_OK : RC_FAIL;
	}
}

static void
on_open(struct server *s, enum rc rc, const struct diag *d)
{
	(void)s;
	(void)rc;
	(void)d;
}

static void
on_input(struct server *s)
{
	enum rc rc = read_answers(s);
	if (rc == RC_OK)
		pool_release(s);
	else if (rc == RC_FAIL)
		pool_discard(s);
}

static void
on_drained(struct server *s)
{
	(void)s;
}

static const struct server_ops ops = {on_open, on_input, on_drained};

static void
send_query(struct server *s, struct span sql)
{
	struct wbuf w = {0};
	msg_put_query(&w, sql);
	conn_send_copy(&s->conn, w.p, w.n);
	wbuf_fini(&w);
	replies_push(&s->replies, REPLY_QUERY, REPLY_SKIP, NULL);
}

void
janitor_take(struct server *s, bool discard)
{
	assert(replies_empty(&s->replies));
	s->ops = &ops;
	s->user = NULL;
	if (s->tx_status != 'I')
		send_query(s, SPAN_LIT("ROLLBACK"));
	if (discard || s->has.unclean) {
		send_query(s, SPAN_LIT("DISCARD ALL"));
		stmt_set_clear(&s->has.stmts);
		s->has.unnamed = (struct stmt_id){0, 0};
		s->has.settings = 0;
		s->has.unclean = s->has.role = false;
	}
	if (replies_empty(&s->replies))
		pool_release(s);
	else if (conn_flush(&s->conn) == RC_FAIL)
		pool_discard(s);
}
