/* SPDX-License-Identifier: BSD-2-Clause */
/* piece - a group (what stands between two Syncs) that belongs to several shards: it runs piece by piece.
 *
 *   client:   B E (shard 0)  B E (shard 2)  B E (all)  B E (shard 2)  Sync
 *   leg 0:    [BEGIN] B E Sync'             Query or B E Sync'        COMMIT or PREPARE …
 *   leg 2:                   [BEGIN] B E Sync'  …     B E Sync'       COMMIT or PREPARE …
 *                                                                        └─ and then ReadyForQuery
 *
 * group.c cuts the group where the shard changes. A piece is sent with a Sync of pgspan's own behind it (Sync', whose
 * ReadyForQuery nobody sees) and is answered in whole before the next one begins, so answers keep their order and
 * nothing runs behind an error: that skips what is left up to the client's Sync.
 *
 * All of it is one transaction. In a block of the client's a Sync changes nothing. Outside of one pgspan opens a block
 * (s->implicit) on each leg, and ends it at the client's Sync by two-phase commit if several legs wrote. A leg that has run
 * something before it was known that others would join is sent its BEGIN late: PostgreSQL takes what the implicit
 * transaction has done so far into the block (docs 55.2.2.1). */
#include "session_int.h"

void
piece_begin(struct session *s)
{
	struct leg *l = s->leg;
	if (s->tx != TX_IDLE)
		return;
	if (s->begin_sql) {
		s->tx = TX_OPEN; /* the client's own, which a leg has run already; its ReadyForQuery is to come */
		return;
	}
	s->begin_sql = xstrdup("BEGIN");
	s->begin_read_only = false;
	s->tx = TX_HELD;
	s->implicit = true;
	if (l->server && l->unsynced)
		leg_begin(s, l);
}

void
piece_leave(struct session *s)
{
	struct leg *l = s->leg;
	conn_send_copy(&l->server->conn, MSG_SYNC.p, MSG_SYNC.n);
	replies_push(&l->server->replies, REPLY_SYNC, REPLY_SKIP, NULL);
	l->unsynced = l->ran = l->flushed = false;
	s->cut = true;
	if (conn_flush(&l->server->conn) == RC_FAIL)
		l->lost = true;
}

static void
note_block(struct leg *l, void *arg)
{
	if (l->server->tx_status != 'I')
		*(bool *)arg = true;
}

void
piece_settle(struct session *s)
{
	bool open = false;
	leg_each(s, note_block, &open);
	/* A COMMIT or ROLLBACK was in the piece. */
	if (s->tx == TX_OPEN && !open && !s->implicit)
		txn_ready(s, 'I');
	(void)leg_restore(s, session_status(s) != 'E'); /* a RESET was */
}

/* Behind the last piece. */
static void
answer_sync(struct session *s, bool told)
{
	struct wbuf w = {0};
	if (s->tx == TX_HELD || s->tx == TX_OPEN || s->tx == TX_HELD_FAILED)
		s->failed_now = false;
	else
		txn_ready(s, 'I');
	if (told)
		msg_put_ready_for_query(&w, session_status(s));
	session_put(s, &w);
}

enum rc
piece_sync(struct session *s, bool told)
{
	struct leg *l = s->leg;
	if (l->server && l->unsynced)
		piece_leave(s);
	if (!legs_are_quiet(s))
		return RC_AGAIN;
	bool failed = s->skip_to_sync || session_status(s) == 'E', implicit = s->implicit;
	piece_settle(s);
	if (!legs_are_quiet(s))
		return RC_AGAIN;
	s->cut = s->skip_to_sync = s->implicit = false;
	if (told)
		conn_rx_consume(&s->conn, WIRE_HEAD_BYTES);
	if (implicit && s->tx == TX_OPEN) {
		fan_end_pieces(s, failed, told);
		return s->state == SESSION_CLOSED ? RC_AGAIN : RC_OK;
	}
	if (implicit) {
		txn_forget_held(s); /* no leg has seen its BEGIN */
		s->failed_now |= failed;
		s->tx = TX_IDLE;
	}
	answer_sync(s, told);
	return RC_OK;
}
