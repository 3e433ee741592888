/* SPDX-License-Identifier: BSD-2-Clause */
/* group - the extended protocol (PostgreSQL docs 55.2.3).
 *
 * The messages up to a Sync or Flush are looked at together before any is sent, so that the server they go to is right for all
 * of them (one write among them: the primary). Then each is sent as it came, but for names: a named statement lives on
 * servers under a name made of its text's hash, and is prepared there when it is first needed.
 *
 *   client: Parse s1, Bind s1, Execute, Sync
 *   server, new to it:  Parse pgspan_<h>, Bind pgspan_<h>, Execute, Sync        answers 1 2 … C Z
 *   server, has it:                       Bind pgspan_<h>, Execute, Sync        answers (1) 2 … C Z      ( ) made up here
 *
 * A group that only prepares what some server has prepared a moment ago is answered at once, without a server: a client
 * that waits for a Parse while it keeps others of its own from ending their transactions (pgbench -M prepared with fewer
 * servers than clients) would wait for ever.
 *
 * PostgreSQL itself complains of names that are taken (42P05) or unknown (26000), in its own words. */
#include "group_int.h"

#include "pgspan/log.h"
#include "pgspan/router.h"
#include "pgspan/sqlstate.h"

#include <xxhash.h>

/* --- answering here --- */

/* A group that only begins, or only ends a block that no server knows: answered as PostgreSQL would. */
static void
answer_here(struct session *s, struct group *g)
{
	struct wire_msg m;
	struct wbuf w = {0};
	size_t at = 0;
	bool executed = false, failed = s->tx == TX_HELD_FAILED;
	struct plan_entry *plan = g->stmt->plan;
	struct stmt *st = g->stmt;
	while (group_next(s, &at, g, &m)) {
		struct msg_parse p;
		struct msg_target t;
		switch (m.type) {
		case 'P':
			if (!msg_get_parse(&m, &p))
				break;
			if (p.name.n == 0) {
				stmt_unref(s->unnamed);
				s->unnamed = stmt_new(s, p.query, &p);
			} else {
				stmt_unref(names_put(&s->stmts, p.name, stmt_new(s, p.query, &p)));
			}
			wbuf_bytes(&w, "1\0\0\0\4", 5);
			break;
		case 'B':
			wbuf_bytes(&w, "2\0\0\0\4", 5);
			break;
		case 'C':
			if (msg_get_target(&m, &t) && t.kind == 'S' && t.name.n > 0)
				stmt_unref(names_take(&s->stmts, t.name));
			wbuf_bytes(&w, "3\0\0\0\4", 5);
			break;
		case 'D':
			if (msg_get_target(&m, &t) && t.kind == 'S')
				wbuf_bytes(&w, "t\0\0\0\6\0\0", 7);
			wbuf_bytes(&w, "n\0\0\0\4", 5);
			break;
		case 'E': {
			const char *tag;
			if (g->only_begin) {
				if (!executed && !s->implicit)
					txn_begin_held(s, plan->plan, st->text);
				s->implicit = false; /* the client's from now on */
				/* The tag repeats the statement's first word, and a text's shape begins with it. */
				const char *c = st->text.p;
				size_t n = st->text.n;
				while (n > 0 && (*c == ' ' || *c == '\n' || *c == '\t' || *c == ';'))
					c++, n--;
				tag = n >= 5 && strncasecmp(c, "start", 5) == 0 ? "START TRANSACTION" : "BEGIN";
			} else {
				tag = plan->plan->kind == STMT_COMMIT && !failed ? "COMMIT" : "ROLLBACK";
				txn_forget_held(s);
				s->tx = TX_IDLE;
			}
			executed = true;
			msg_put_command_complete(&w, tag);
			break;
		}
		case 'S':
			s->cut = false;
			msg_put_ready_for_query(&w, session_status(s));
			break;
		default:
			break;
		}
	}
	session_put(s, &w);
	conn_rx_consume(&s->conn, g->bytes);
}

/* Whether answer_here() can: no name that exists already is parsed again, each Execute runs once. */
static bool
can_answer_here(struct session *s, const struct group *g, const struct look *k)
{
	bool idle_begin = g->only_begin && (txn_holds_begin(s) || s->implicit);
	bool held_end = g->only_end && (s->tx == TX_HELD || s->tx == TX_HELD_FAILED);
	bool known = g->only_parse && k->n > 0 && !g->malformed && s->tx != TX_HELD_FAILED && s->pins == 0 && !s->replication;
	for (int i = 0; i < k->n && known; i++)
		known = stmt_set_has(&s->tenant->known, stmt_known_id(s, k->made[i]->id));
	bool free_legs = leg_count(s) == 0 || (s->tenant->db->sharded && legs_are_quiet(s) && !s->leg->unsynced && !known);
	if (s->tenant->db->sharded && !known && g->n_binds > 0 && (!g->special || g->odd))
		return false;
	if (!free_legs || g->malformed || !(idle_begin || held_end || known))
		return false;
	int executes = 0;
	size_t at = 0;
	struct wire_msg m;
	struct span rx = conn_rx(&s->conn);
	(void)rx;
	while (group_next(s, &at, g, &m))
		executes += m.type == 'E';
	for (int i = 0; i < k->n; i++)
		if (k->names[i].n > 0 && names_get(&s->stmts, k->names[i]))
			return false;
	return executes <= 1;
}

/* --- the way in --- */

/* A Sync with nothing before it, or behind an error of pgspan's own. */
static enum rc
lone_sync(struct session *s)
{
	struct leg *l = s->leg;
	struct wbuf w = {0};
	if (s->cut || s->implicit)
		return piece_sync(s, true);
	if (s->skip_to_sync && !leg_is_quiet(s) && !l->unsynced)
		return RC_AGAIN;
	s->skip_to_sync = false;
	if (l->server && (l->unsynced || (s->tx == TX_OPEN && !s->tenant->db->sharded) || !leg_is_quiet(s))) {
		conn_send_copy(&l->server->conn, MSG_SYNC.p, MSG_SYNC.n);
		replies_push(&l->server->replies, REPLY_SYNC, REPLY_FORWARD, NULL);
		l->unsynced = l->ran = false;
		if (conn_flush(&l->server->conn) == RC_FAIL)
			l->lost = true;
	} else {
		s->failed_now &= s->tx != TX_OPEN;
		msg_put_ready_for_query(&w, session_status(s));
		session_put(s, &w);
	}
	conn_rx_consume(&s->conn, WIRE_HEAD_BYTES);
	return RC_OK;
}

static enum rc
refuse(struct session *s, const struct diag *d)
{
	/* Answers to what was sent before come first. */
	if (!leg_is_quiet(s)) {
		conn_send_copy(&s->leg->server->conn, MSG_FLUSH.p, MSG_FLUSH.n);
		if (conn_flush(&s->leg->server->conn) == RC_FAIL)
			s->leg->lost = true;
		return RC_AGAIN;
	}
	session_error(s, d, true);
	return RC_OK;
}

static void
note_spread(struct session *s, struct span portal)
{
	if (portal.n == 0) {
		stmt_unref(s->portal);
		s->portal = NULL;
		s->portal_shard = PORTAL_SPREAD;
	} else {
		struct portal *p = xmalloc(sizeof *p);
		*p = (struct portal){NULL, PORTAL_SPREAD};
		portal_free(names_put(&s->portals, portal, p));
	}
}

/* The group's one statement runs on several shards. */
static enum rc
with_fan(struct session *s, struct group *g, struct look *k, struct diag *d)
{
	struct wbuf before = {0};
	struct stmt *st = g->stmt;
	enum rc rc = RC_FAIL;
	bool copies = g->plan->kind == STMT_COPY_FROM;
	if (g->n_binds != 1 || g->n_executes != 1 || g->odd || (!g->cut && g->end != 'S')) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED,
		    "pgspan runs a statement of several shards only as Bind, Describe and Execute in this order");
		diag_hint(d, "Send Parse, Bind, Describe, Execute and Sync for it alone.");
		return RC_FAIL;
	}
	if (copies)
		piece_begin(s); /* what the client sends behind its data belongs to the same transaction */
	s->cut = g->cut;
	note_spread(s, g->bind.portal);
	struct wire_msg m;
	size_t at = 0;
	while (group_next(s, &at, g, &m)) {
		struct msg_target t;
		if (m.type == 'P')
			wbuf_bytes(&before, "1\0\0\0\4", 5);
		else if (m.type == 'B')
			wbuf_bytes(&before, "2\0\0\0\4", 5);
		else if (m.type == 'C')
			wbuf_bytes(&before, "3\0\0\0\4", 5);
		else if (m.type == 'D' && (g->for_all || copies) && msg_get_target(&m, &t)) {
			if (t.kind == 'S')
				wbuf_bytes(&before, "t\0\0\0\6\0\0", 7);
			wbuf_bytes(&before, "n\0\0\0\4", 5);
		}
	}
	(void)stmt_plan(s, st); /* the scanner holds its literals from here on */
	if (g->for_all)
		rc = fan_control(s, st->plan, st->text, &before, g->cut, d);
	else
		rc = fan_bind(s, st, &g->bind, &g->values, &g->targets, &(struct fan_how){&before, g->describe_portal, g->cut, g->max_rows}, d);
	wbuf_fini(&before);
	if (rc != RC_OK)
		return rc;
	if (s->state == SESSION_CLOSED)
		return RC_AGAIN;
	/* The names are the client's now. */
	at = 0;
	int i = 0;
	while (group_next(s, &at, g, &m)) {
		struct msg_parse p;
		struct msg_target t;
		if (m.type == 'P' && msg_get_parse(&m, &p) && i < k->n) {
			struct stmt *made = k->made[i++];
			if (p.name.n == 0) {
				stmt_unref(s->unnamed);
				s->unnamed = stmt_ref(made);
			} else {
				stmt_unref(names_put(&s->stmts, p.name, stmt_ref(made)));
			}
		} else if (m.type == 'C' && msg_get_target(&m, &t) && t.kind == 'S') {
			stmt_unref(names_take(&s->stmts, t.name));
		}
	}
	conn_rx_consume(&s->conn, g->bytes);
	fan_continue(s);
	return RC_OK;
}

static enum rc
with_group(struct session *s, struct group *g, struct look *k)
{
	struct leg *l = s->leg;
	struct diag d;
	bool sharded = s->tenant->db->sharded;
	diag_clear(&d);
	if (s->cut) {
		/* All of the piece before is answered before the next is looked at: it may have ended the block, or failed. */
		if (legs_are_quiet(s))
			piece_settle(s);
		if (!legs_are_quiet(s)) {
			leg_flush_answers(s);
			return RC_AGAIN;
		}
	}
	enum route_status looked = group_look(s, g, k, &d);
	if (g->unsure && !leg_is_quiet(s)) {
		leg_flush_answers(s);
		return RC_AGAIN;
	}
	if (looked != ROUTED)
		return refuse(s, &d);
	if (g->n == 1 && g->end == 'H' && (!l->server || (sharded && !l->unsynced && leg_is_quiet(s)))) {
		conn_rx_consume(&s->conn, WIRE_HEAD_BYTES);
		return RC_OK;
	}
	if (can_answer_here(s, g, k)) {
		answer_here(s, g);
		return RC_OK;
	}
	if (s->tx == TX_HELD_FAILED) {
		diag_set(&d, SQLSTATE_IN_FAILED_TRANSACTION, "current transaction is aborted, commands ignored until end of transaction block");
		return refuse(s, &d);
	}
	if (sharded) {
		int shard = g->shard;
		if (shard < 0)
			shard = l->server ? l->shard : leg_any_shard(s) >= 0 ? leg_any_shard(s) : 0;
		/* Another server than the one that works now, or several: its answers come first. */
		if (g->special || g->cut || (l->server && l->shard != shard)) {
			if (!leg_is_quiet(s)) {
				leg_flush_answers(s);
				return RC_AGAIN;
			}
			leg_settle(s);
		}
		if (l->server && l->unsynced && (g->special || l->shard != shard)) {
			if (l->ran)
				piece_begin(s);
			piece_leave(s);
			return RC_AGAIN;
		}
		if (g->cut && g->copies && !g->special) {
			diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "statements of other shards stand behind COPY and before the same Sync");
			diag_hint(&d, "Send a Sync behind it.");
			return refuse(s, &d);
		}
		bool several = g->for_all || g->targets.count > 1;
		if (g->cut && g->placed_to > 0 && (several || !g->special))
			piece_begin(s);
		if (g->special && several)
			return with_fan(s, g, k, &d) == RC_OK ? RC_OK : refuse(s, &d);
		l = leg_use(s, shard);
	}
	/* What runs on a replica goes on there; a write must wait for the primary. */
	if (l->server && l->number > 0 && !g->read_only && s->tx != TX_OPEN) {
		if (!leg_is_quiet(s) || l->unsynced) {
			if (l->unsynced && leg_is_quiet(s)) {
				diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "a write follows a read that runs on a replica before the Sync");
				diag_hint(&d, "Send a Sync between them, or use a transaction block.");
				return refuse(s, &d);
			}
			return RC_AGAIN;
		}
		leg_settle(s);
	}
	if (!l->server) {
		/* What is left open by a Flush may be followed by a write: only groups that end with Sync go to a replica. */
		bool read = g->read_only && g->end == 'S' && (g->plan != NULL);
		enum rc rc = leg_attach(s, l->shard, leg_choose(s, read && !g->pins), &d);
		if (rc == RC_FAIL)
			return refuse(s, &d);
		if (rc != RC_OK)
			return rc;
	}
	if (g->pins && l->number > 0) {
		diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "this would tie the session to a replica");
		diag_hint(&d, "Use it outside a READ ONLY transaction.");
		return refuse(s, &d);
	}
	leg_begin(s, l);
	if (g->stale) {
		enum rc rc = group_check_stale(s, l, g, &d);
		if (rc != RC_OK)
			return rc == RC_FAIL ? refuse(s, &d) : rc;
	}
	l->wrote |= sharded ? g->writes : !g->read_only;
	if (!group_send(s, g))
		return RC_AGAIN;
	if (g->cut && !s->holds)
		piece_leave(s);
	return RC_OK;
}

enum rc
group_process(struct session *s)
{
	struct leg *l = s->leg;
	struct group g = {0};
	struct look k = {0};
	struct span rx = conn_rx(&s->conn);
	if (l->copy_in && (rx.p[0] == 'S' || rx.p[0] == 'H')) {
		conn_rx_consume(&s->conn, WIRE_HEAD_BYTES); /* the server ignores them while it copies in */
		return RC_OK;
	}
	if (rx.p[0] == 'S')
		return lone_sync(s);
	if (group_measure(s, &g) != RC_OK || query_must_wait_for_catalog(s))
		return RC_AGAIN;
	struct diag d;
	diag_clear(&d);
	arena_init(&g.mem);
	enum rc rc = query_wait_was_cancelled(s, &d) ? refuse(s, &d) : with_group(s, &g, &k);
	look_fini(&k);
	arena_fini(&g.mem);
	return rc;
}
