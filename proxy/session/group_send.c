/* SPDX-License-Identifier: BSD-2-Clause */
/* group_send - the messages of a group on their way to the server: each as it came, but for the names of statements.
 *
 * A statement that the server has not got is made there first, by a Parse of pgspan's own whose answer nobody sees; if it fails,
 * the error is the client's. */
#include "group_int.h"

#include "pgspan/log.h"
#include "pgspan/router.h"
#include "pgspan/sqlstate.h"

#include <xxhash.h>

#define STATEMENTS_PER_SERVER 200

static void
group_send_copy(struct leg *l, struct wbuf *w)
{
	conn_send_copy(&l->server->conn, w->p, w->n);
	wbuf_fini(w);
}

static void
send_whole(struct leg *l, const struct wire_msg *m)
{
	conn_send_ref(&l->server->conn, span_of((const char *)m->body - WIRE_HEAD_BYTES, m->len + WIRE_HEAD_BYTES));
}

/* The server is about to hold the statement under our name. */
static void
will_have(struct leg *l, struct stmt *st)
{
	struct stmt_id gone;
	if (!stmt_set_add(&l->server->has.stmts, st->id, STATEMENTS_PER_SERVER, &gone))
		return;
	struct wbuf w = {0};
	char name[STMT_NAME_BYTES];
	msg_put_close(&w, 'S', span_of(name, stmt_id_name(gone, name)));
	group_send_copy(l, &w);
	replies_push(&l->server->replies, REPLY_CLOSE, REPLY_SKIP, NULL);
}

/* Makes sure that the server has the statement (the unnamed one: as its unnamed one). */
static void
ensure(struct leg *l, struct stmt *st, bool unnamed)
{
	struct server *sv = l->server;
	struct wbuf w = {0};
	char name[STMT_NAME_BYTES];
	struct span n = SPAN_NONE;
	if (unnamed ? stmt_id_eq(sv->has.unnamed, st->id) : stmt_set_has(&sv->has.stmts, st->id))
		return;
	if (unnamed) {
		sv->has.unnamed = st->id;
	} else {
		will_have(l, st);
		n = span_of(name, stmt_id_name(st->id, name));
	}
	msg_put_parse(&w, n, st->text, st->types, st->n_types);
	group_send_copy(l, &w);
	replies_push(&sv->replies, REPLY_PARSE, REPLY_SKIP, naming_new(l->session, st, n));
}

/* Puts the name of a statement that every server can be made to have, also in a block that has failed: whoever is sent there under it
 * gets PostgreSQL's 42P05, unless its text has an error of its own. In the message the client's *name* takes its place. */
static struct span
take_a_name(struct leg *l, struct span name, char out[STMT_NAME_BYTES])
{
	struct replies *q = &l->server->replies;
	struct wbuf w = {0};
	struct span t = span_of(out, stmt_id_name(stmt_taken_id(name), out));
	msg_put_close(&w, 'S', t);
	msg_put_parse(&w, t, SPAN_LIT(""), NULL, 0);
	group_send_copy(l, &w);
	replies_push(q, REPLY_CLOSE, REPLY_SKIP, NULL);
	replies_push(q, REPLY_PARSE, REPLY_SKIP, NULL);
	return t;
}

/* The name that an identifier spells. False: it is none, or longer than names are. */
static bool
spelled_name(const char *sql, const struct scan_token *t, char *out, size_t size)
{
	size_t n = 0;
	bool quoted = t->kind == SCAN_QIDENT;
	if (t->kind != SCAN_IDENT && !quoted)
		return false;
	for (size_t i = quoted; i < t->len - quoted; i++) {
		char c = sql[t->off + i];
		if (n + 1 >= size)
			return false;
		out[n++] = !quoted && c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
		if (quoted && c == '"')
			i++; /* doubled */
	}
	out[n] = '\0';
	return n > 0;
}

bool
group_execute_by_sql(struct leg *l, const struct plan *p, struct span sql, struct wbuf *w)
{
	struct session *s = l->session;
	struct scan_iter it;
	struct scan_token t;
	bool execute = false, prepare = p->kind == STMT_PREPARE;
	if (s->stmts.n == 0 || s->tenant->db->sharded || p->kind == STMT_SELECT || p->kind == STMT_INSERT || p->kind == STMT_UPDATE || p->kind == STMT_DELETE)
		return false;
	scan_iter_init(&it, sql.p, sql.n, meaning_scan_flags(s));
	for (int i = 0; scan_next(&it, &t); i++) {
		if (i == 0 && !prepare && !scan_is_word(sql.p, &t, "execute") && !scan_is_word(sql.p, &t, "explain") && !scan_is_word(sql.p, &t, "create"))
			return false;
		if (!execute) {
			execute = prepare || scan_is_word(sql.p, &t, "execute");
			continue;
		}
		char name[STMT_NAME_BYTES], wanted[128];
		if (!spelled_name(sql.p, &t, wanted, sizeof wanted))
			return false;
		struct stmt *st = names_get(&s->stmts, span_str(wanted));
		if (!st)
			return false;
		struct span internal;
		if (prepare) {
			internal = take_a_name(l, span_str(wanted), name);
		} else {
			ensure(l, st, false);
			internal = span_of(name, stmt_id_name(st->id, name));
		}
		wbuf_bytes(w, sql.p, t.off);
		wbuf_span(w, internal);
		wbuf_bytes(w, sql.p + t.off + t.len, sql.n - t.off - t.len);
		return true;
	}
	return false;
}

static bool
has_id(struct span client, const void *value, const void *id)
{
	(void)client;
	return stmt_id_eq(((const struct stmt *)value)->id, *(const struct stmt_id *)id);
}

static void
send_parse(struct session *s, const struct wire_msg *m, const struct msg_parse *p)
{
	struct leg *l = s->leg;
	struct replies *q = &l->server->replies;
	struct stmt *st = stmt_new(s, p->query, p);
	struct wbuf w = {0};
	char name[STMT_NAME_BYTES];
	struct span other;
	/* One text under two names: each has a statement of its own on servers, so that an error tells which. */
	if (p->name.n > 0 && names_find(&s->stmts, has_id, &st->id, &other))
		st->id.hi ^= XXH3_64bits(p->name.p, p->name.n);
	if (p->name.n == 0) {
		l->server->has.unnamed = st->id;
		replies_push(q, REPLY_PARSE, REPLY_FORWARD, stmt_rename(s, p->name, st));
		send_whole(l, m);
	} else if (names_get(&s->sql_prepared, p->name)) {
		send_whole(l, m); /* PREPARE made it on this server: 42P05 */
		replies_push(q, REPLY_PARSE, REPLY_FORWARD, NULL);
	} else if (names_get(&s->stmts, p->name)) {
		msg_put_parse_head(&w, p, take_a_name(l, p->name, name));
		group_send_copy(l, &w);
		conn_send_ref(&l->server->conn, p->rest);
		replies_push(q, REPLY_PARSE, REPLY_FORWARD, NULL);
	} else if (stmt_set_has(&l->server->has.stmts, st->id)) {
		struct naming *n = stmt_rename(s, p->name, st);
		/* In a block that has failed, or may have by now, it must fail. */
		n->only_judged = s->tx == TX_OPEN && (l->server->tx_status == 'E' || !replies_empty(q));
		if (n->only_judged) {
			msg_put_parse_head(&w, p, SPAN_NONE);
			group_send_copy(l, &w);
			conn_send_ref(&l->server->conn, p->rest);
			l->server->has.unnamed = st->id;
		}
		replies_push(q, REPLY_PARSE, n->only_judged ? REPLY_FORWARD : REPLY_FAKE, n);
	} else {
		will_have(l, st);
		msg_put_parse_head(&w, p, span_of(name, stmt_id_name(st->id, name)));
		group_send_copy(l, &w);
		conn_send_ref(&l->server->conn, p->rest);
		replies_push(q, REPLY_PARSE, REPLY_FORWARD, stmt_rename(s, p->name, st));
	}
	stmt_unref(st);
}

static void
send_bind(struct session *s, const struct wire_msg *m, const struct msg_bind *b)
{
	struct leg *l = s->leg;
	struct stmt *st = stmt_find(s, b->statement);
	struct wbuf w = {0};
	char name[STMT_NAME_BYTES];
	portal_bind(s, b->portal, st);
	if (!st) {
		if (b->statement.n == 0) {
			/* The server's unnamed statement may be another's: it must not run. */
			msg_put_close(&w, 'S', SPAN_NONE);
			group_send_copy(l, &w);
			replies_push(&l->server->replies, REPLY_CLOSE, REPLY_SKIP, NULL);
			l->server->has.unnamed = (struct stmt_id){0, 0};
		}
		send_whole(l, m);
	} else {
		ensure(l, st, b->statement.n == 0);
		if (b->statement.n == 0) {
			send_whole(l, m);
		} else {
			msg_put_bind_head(&w, b, b->portal, span_of(name, stmt_id_name(st->id, name)));
			group_send_copy(l, &w);
			conn_send_ref(&l->server->conn, b->rest);
		}
	}
	replies_push(&l->server->replies, REPLY_BIND, REPLY_FORWARD, NULL);
}

static void
send_describe(struct session *s, const struct wire_msg *m, const struct msg_target *t)
{
	struct leg *l = s->leg;
	if (t->kind != 'S') {
		struct stmt *of = portal_stmt(s, t->name);
		send_whole(l, m);
		replies_push(&l->server->replies, REPLY_DESCRIBE_PORTAL, REPLY_FORWARD, of && of->named && of->shape == 0 ? stmt_ref(of) : NULL);
		return;
	}
	struct stmt *st = stmt_find(s, t->name);
	if (st)
		ensure(l, st, t->name.n == 0);
	if (st && t->name.n > 0) {
		struct wbuf w = {0};
		char name[STMT_NAME_BYTES];
		msg_put_describe(&w, 'S', span_of(name, stmt_id_name(st->id, name)));
		group_send_copy(l, &w);
	} else {
		send_whole(l, m);
	}
	replies_push(&l->server->replies, REPLY_DESCRIBE_STATEMENT, REPLY_FORWARD, st && t->name.n > 0 ? stmt_ref(st) : NULL);
}

static void
send_execute(struct session *s, const struct wire_msg *m, struct span portal)
{
	struct leg *l = s->leg;
	struct stmt *st = portal_stmt(s, portal);
	struct effect *e = NULL;
	if (st) {
		const struct plan *p = stmt_plan(s, st);
		if (p->kind == STMT_DEALLOCATE && p->name && names_get(&s->stmts, span_str(p->name))) {
			replies_push(&l->server->replies, REPLY_EXECUTE, REPLY_FAKE, stmt_rename(s, span_str(p->name), NULL));
			return;
		}
		e = effect_new(st->plan, st->text);
		s->holds |= txn_holds(s, p);
		char name[128];
		if (p->pins & ~(unsigned)PIN_SETTING || (p->pins && !query_is_set_config(st->text, name, sizeof name)))
			l->server->has.unclean = true;
	}
	send_whole(l, m);
	replies_push(&l->server->replies, REPLY_EXECUTE, REPLY_FORWARD, e);
}

static void
send_close(struct session *s, const struct wire_msg *m, const struct msg_target *t)
{
	struct leg *l = s->leg;
	struct replies *q = &l->server->replies;
	if (t->kind == 'S' && t->name.n > 0 && names_get(&s->stmts, t->name)) {
		if (!replies_empty(q)) /* an error that is still to come may name it */
			stmt_note_lost(s, ((const struct stmt *)names_get(&s->stmts, t->name))->id, t->name);
		replies_push(q, REPLY_CLOSE, REPLY_FAKE, stmt_rename(s, t->name, NULL));
		return;
	}
	if (t->kind == 'P' && t->name.n > 0)
		portal_free(names_take(&s->portals, t->name));
	struct naming *unnamed = NULL;
	if (t->kind == 'S' && t->name.n == 0) {
		unnamed = stmt_rename(s, t->name, NULL);
		l->server->has.unnamed = (struct stmt_id){0, 0};
	}
	send_whole(l, m);
	replies_push(q, REPLY_CLOSE, REPLY_FORWARD, unnamed);
}

/* Sends the group. False: a message is malformed, the connection is over. */
bool
group_send(struct session *s, const struct group *g)
{
	struct leg *l = s->leg;
	struct wire_msg m;
	size_t at = 0;
	char last = 0;
	/* What stands behind a statement that changes what all others mean is looked at when its answer is there. */
	while (!s->holds && group_next(s, &at, g, &m)) {
		struct msg_parse p;
		struct msg_bind b;
		struct msg_target t;
		struct msg_execute e;
		bool ok = true;
		last = m.type;
		if (m.type != 'S')
			l->unsynced = true;
		l->ran |= m.type == 'B' || m.type == 'E';
		switch (m.type) {
		case 'P':
			ok = msg_get_parse(&m, &p);
			if (ok)
				send_parse(s, &m, &p);
			break;
		case 'B':
			ok = msg_get_bind(&m, &b);
			if (ok)
				send_bind(s, &m, &b);
			break;
		case 'D':
			ok = msg_get_target(&m, &t);
			if (ok)
				send_describe(s, &m, &t);
			break;
		case 'E':
			ok = msg_get_execute(&m, &e);
			if (ok)
				send_execute(s, &m, e.portal);
			break;
		case 'C':
			ok = msg_get_target(&m, &t);
			if (ok)
				send_close(s, &m, &t);
			break;
		case 'S':
			l->unsynced = l->ran = s->cut = false;
			send_whole(l, &m);
			replies_push(&l->server->replies, REPLY_SYNC, REPLY_FORWARD, NULL);
			break;
		case 'H':
			send_whole(l, &m);
			break;
		default:
			break;
		}
		if (!ok) {
			struct diag d;
			diag_clear(&d);
			diag_set(&d, SQLSTATE_PROTOCOL_VIOLATION, "invalid message format");
			session_fatal(s, &d);
			return false;
		}
	}
	if (conn_flush(&l->server->conn) == RC_FAIL)
		l->lost = true;
	l->flushed = last == 'H';
	leg_save(l, span_of(conn_rx(&s->conn).p, at));
	conn_rx_consume(&s->conn, at);
	/* An answer that is made up here waits for no server when nothing stands before it. */
	const struct reply *head = replies_head(&l->server->replies);
	if (head && head->action == REPLY_FAKE && relay_run(&l->relay) == RC_FAIL)
		l->lost = true;
	return true;
}

void
stmt_described(void *ref, const struct wire_msg *m, bool check)
{
	struct stmt *st = ref;
	struct msg_columns it;
	struct msg_column c;
	uint64_t h = 1;
	if (m->type == 'T' && msg_get_row_description(m, &it)) {
		while (msg_column_next(&it, &c)) {
			uint32_t of[2] = {c.type_oid, (uint32_t)c.typmod};
			h = XXH3_64bits_withSeed(c.name.p, c.name.n, h);
			h = XXH3_64bits_withSeed(of, sizeof of, h);
		}
	}
	if (!check)
		st->shape = h | 1;
	else if (st->shape != (h | 1))
		st->changed = true;
}

/* A statement that is made anew on a server behind DDL may give other rows than the client was told when it had it described:
 * PostgreSQL refuses to run it then (0A000), so its description is looked at before anything that uses it is sent. */
enum rc
group_check_stale(struct session *s, struct leg *l, const struct group *g, struct diag *d)
{
	struct wire_msg m;
	size_t at = 0;
	bool asked = false;
	while (group_next(s, &at, g, &m)) {
		struct msg_bind b;
		struct msg_target t;
		struct stmt *st = NULL;
		if (m.type == 'B' && msg_get_bind(&m, &b))
			st = b.statement.n > 0 ? stmt_find(s, b.statement) : NULL;
		else if (m.type == 'D' && msg_get_target(&m, &t) && t.kind == 'S')
			st = t.name.n > 0 ? stmt_find(s, t.name) : NULL;
		if (!st || st->shape == 0)
			continue;
		if (st->changed) {
			diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "cached plan must not change result type");
			return RC_FAIL;
		}
		if (st->epoch == fleet_ddl_epoch(s->env->tenants.fleet) || stmt_set_has(&l->server->has.stmts, st->id))
			continue;
		char name[STMT_NAME_BYTES];
		struct wbuf w = {0};
		ensure(l, st, false);
		msg_put_describe(&w, 'S', span_of(name, stmt_id_name(st->id, name)));
		group_send_copy(l, &w);
		replies_push(&l->server->replies, REPLY_DESCRIBE_STATEMENT, REPLY_SKIP, stmt_ref(st));
		asked = true;
	}
	if (!asked)
		return RC_OK;
	l->unsynced = true;
	l->flushed = false;
	leg_flush_answers(s);
	return RC_AGAIN;
}
