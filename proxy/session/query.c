/* SPDX-License-Identifier: BSD-2-Clause */
/* query - the simple Query (PostgreSQL docs 55.2.2). */
#include "session_int.h"

#include "pgspan/catalog.h"
#include "pgspan/router.h"
#include "pgspan/sqlstate.h"

#define CATALOG_POLL_S 0.005
#define CATALOG_TRIES 1000

/* SELECT set_config('name', 'value', false) and nothing else: a setting like one of SET, replayed by its own text. The name, or
 * SPAN_NONE. */
static struct span
set_config_name(struct span sql)
{
	static const char *const shape[] = {"select", "set_config", "(", NULL, ",", NULL, ",", "false", ")"};
	struct scan_iter it;
	struct scan_token t;
	struct span name = SPAN_NONE;
	size_t i = 0;
	scan_iter_init(&it, sql.p, sql.n, 0);
	while (scan_next(&it, &t)) {
		struct span text = span_of(sql.p + t.off, t.len);
		if (i == 1 && (scan_is_word(sql.p, &t, "pg_catalog") || span_eq_str(text, ".")))
			continue;
		if (i == ARRAY_LEN(shape)) {
			if (span_eq_str(text, ";"))
				continue;
			return SPAN_NONE;
		}
		if (!shape[i]) {
			if (t.kind != SCAN_LIT_STRING || (i == 3 && (t.len < 3 || memchr(text.p + 1, '\'', t.len - 2))))
				return SPAN_NONE;
			if (i == 3)
				name = span_of(text.p + 1, t.len - 2);
		} else if (!(t.kind == SCAN_IDENT ? scan_is_word(sql.p, &t, shape[i]) : span_eq_str(text, shape[i]))) {
			return SPAN_NONE;
		}
		i++;
	}
	return i == ARRAY_LEN(shape) ? name : SPAN_NONE;
}

bool
query_is_set_config(struct span sql, char *name, size_t size)
{
	struct span n = set_config_name(sql);
	if (n.n == 0 || n.n >= size)
		return false;
	for (size_t i = 0; i < n.n; i++)
		name[i] = n.p[i] >= 'A' && n.p[i] <= 'Z' ? (char)(n.p[i] + 32) : n.p[i];
	name[n.n] = '\0';
	return true;
}

/* --- answers of pgspan's own --- */

static void
answer(struct session *s, const char *tag)
{
	struct wbuf w = {0};
	if (tag)
		msg_put_command_complete(&w, tag);
	else
		wbuf_bytes(&w, "I\0\0\0\4", 5);
	msg_put_ready_for_query(&w, session_status(s));
	session_put(s, &w);
}

static enum rc
refuse(struct session *s, const struct wire_msg *m, const struct diag *d)
{
	struct wbuf w = {0};
	session_error(s, d, false);
	msg_put_ready_for_query(&w, session_status(s));
	session_put(s, &w);
	conn_rx_consume(&s->conn, m->len + WIRE_HEAD_BYTES);
	return RC_OK;
}

/* Statements that need no server. True: answered. */
static bool
answer_here(struct session *s, const struct plan *p, struct span sql)
{
	/* On shards a block is always pgspan's own: legs that are kept (pinned, session pooling) are told of it when they join. */
	if (leg_count(s) > 0 && !(s->tenant->db->sharded && legs_are_quiet(s)))
		return false;
	if (p->kind == STMT_EMPTY && leg_count(s) == 0) {
		answer(s, NULL);
		return true;
	}
	if (p->kind == STMT_BEGIN && txn_holds_begin(s)) {
		txn_begin_held(s, p, sql);
		answer(s, strncasecmp(sql.p + s->env->scan.first_word.off, "start", 5) == 0 ? "START TRANSACTION" : "BEGIN");
		return true;
	}
	bool ends = (p->kind == STMT_COMMIT || p->kind == STMT_ROLLBACK) && !(p->flags & PLAN_CHAIN);
	if (ends && (s->tx == TX_HELD || s->tx == TX_HELD_FAILED)) {
		bool failed = s->tx == TX_HELD_FAILED;
		txn_forget_held(s);
		s->tx = TX_IDLE;
		answer(s, p->kind == STMT_COMMIT && !failed ? "COMMIT" : "ROLLBACK");
		return true;
	}
	return false;
}

/* --- sharded databases --- */

/* Statements that speak of the block itself, or of the session: they go wherever the block is. */
bool
query_is_control(const struct plan *p)
{
	switch (p->kind) {
	case STMT_BEGIN:
	case STMT_COMMIT:
	case STMT_ROLLBACK:
	case STMT_SAVEPOINT:
	case STMT_RELEASE:
	case STMT_ROLLBACK_TO:
	case STMT_PREPARE_TRANSACTION:
	case STMT_SET:
		return true;
	default:
		return false;
	}
}

bool
query_must_wait_for_catalog(struct session *s)
{
	struct session_env *env = s->env;
	const struct tenant *t = s->tenant;
	uint64_t wanted = fleet_ddl_epoch(env->tenants.fleet);
	const struct catalog *c = t->db->sharded ? env->catalog(env, t->db) : NULL;
	if (s->wait_cancelled || !t->db->sharded || (c ? catalog_epoch(c) >= wanted : wanted == 0))
		return false;
	/* A first shard that does not answer has no newer catalog to give: what can be planned with the old one goes on. */
	if (++s->catalog_tries > CATALOG_TRIES || atomic_load(&t->healths[0]->down_until_ms) > session_now_ms(s))
		return false;
	s->waits_catalog = true;
	env->poke_catalog(env);
	ev_timer_stop(env->loop->ev, &s->timer);
	ev_timer_set(&s->timer, CATALOG_POLL_S, 0.);
	ev_timer_start(env->loop->ev, &s->timer);
	return true;
}

bool
query_wait_was_cancelled(struct session *s, struct diag *d)
{
	bool cancelled = s->wait_cancelled;
	s->waits_catalog = s->wait_cancelled = false;
	s->catalog_tries = 0;
	if (cancelled)
		diag_set(d, SQLSTATE_QUERY_CANCELED, "canceling statement due to user request");
	return cancelled;
}

/* The shards of a text with several statements: all of them must run on one. */
static enum route_status
route_parts(struct session *s, const struct plan *p, const struct route_values *v, struct target_set *t, struct diag *d)
{
	for (int i = 0; i < p->n_parts; i++) {
		struct target_set one;
		target_clear(&one);
		const struct plan *part = p->parts[i];
		if (query_is_control(part) || part->route == ROUTE_ANY)
			continue;
		if (route_resolve(part, v, s->tenant->db, t->count ? target_first(t) : -1, &one, d) != ROUTED)
			return ROUTED_REFUSED;
		for (int k = target_first(&one); k >= 0; k = target_next(&one, k))
			target_add(t, k);
	}
	if (t->count == 0)
		target_add(t, leg_any_shard(s) >= 0 ? leg_any_shard(s) : 0);
	if (t->count > 1 || (leg_count(s) > 0 && (leg_count(s) > 1 || target_first(t) != leg_any_shard(s)) && s->tx == TX_OPEN)) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "the statements of this string belong to several shards");
		diag_hint(d, "Send them one by one.");
		return ROUTED_REFUSED;
	}
	return ROUTED;
}

/* Where the statement must run. */
enum route_status
query_route(struct session *s, const struct plan *p, const struct route_values *v, struct target_set *t, struct diag *d)
{
	target_clear(t);
	if (p->kind == STMT_PREPARE || p->kind == STMT_EXECUTE) {
		/* Through Parse and Bind only: query.c deals with them in a simple Query. */
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "pgspan runs PREPARE and EXECUTE on a sharded database by the simple protocol only");
		diag_hint(d, "Use the driver's own prepared statements.");
		return ROUTED_REFUSED;
	}
	if (p->kind == STMT_MULTI)
		return route_parts(s, p, v, t, d);
	int any = leg_any_shard(s);
	if ((p->kind == STMT_FETCH || p->kind == STMT_CLOSE_CURSOR) && p->name) {
		int *at = names_get(&s->cursors, span_str(p->name));
		if (at && s->by_shard && s->by_shard[*at] && s->by_shard[*at]->server) {
			target_add(t, *at);
			return ROUTED;
		}
	}
	if (query_is_control(p) && any >= 0) {
		target_add(t, any);
		return ROUTED;
	}
	if ((p->flags & PLAN_NEEDS_CATALOG) && s->ddl_pending) {
		*d = p->refusal;
		return ROUTED_REFUSED;
	}
	if (route_resolve(p, v, s->tenant->db, any, t, d) != ROUTED)
		return ROUTED_REFUSED;
	return ROUTED;
}

bool
query_is_for_all_legs(struct session *s, const struct plan *p, int shard)
{
	if (!s->tenant->db->sharded || !query_is_control(p))
		return false;
	int n = leg_count(s);
	return n > 1 || (n == 1 && shard >= 0 && leg_any_shard(s) != shard);
}

/* A block that has failed on one shard has failed on all. */
bool
query_is_ignored(struct session *s, const struct plan *p, struct diag *d)
{
	bool ends = p->kind == STMT_COMMIT || p->kind == STMT_ROLLBACK || p->kind == STMT_ROLLBACK_TO || p->kind == STMT_EMPTY;
	if (s->tx != TX_OPEN || ends || session_status(s) != 'E')
		return false;
	diag_set(d, SQLSTATE_IN_FAILED_TRANSACTION, "current transaction is aborted, commands ignored until end of transaction block");
	return true;
}

static bool
resets_in_the_middle(const struct session *s, const struct plan *p)
{
	for (int i = 0; i + 1 < p->n_parts; i++) {
		const struct plan *part = p->parts[i];
		if (part->kind == STMT_SET && part->set.kind == SET_RESET ? settings_initial(s, part->set.name) != NULL : (part->kind == STMT_SET || part->kind == STMT_DISCARD) && txn_holds(s, part))
			return true;
	}
	return false;
}

static enum rc
process(struct session *s, const struct wire_msg *m, struct span sql, struct plan_entry *e)
{
	struct diag d;
	struct leg *l = s->leg;
	const struct plan *p = e->plan;
	diag_clear(&d);
	if (answer_here(s, p, sql)) {
		conn_rx_consume(&s->conn, m->len + WIRE_HEAD_BYTES);
		return RC_OK;
	}
	if (s->tx == TX_HELD_FAILED) {
		diag_set(&d, SQLSTATE_IN_FAILED_TRANSACTION, "current transaction is aborted, commands ignored until end of transaction block");
		return refuse(s, m, &d);
	}
	if (p->kind == STMT_BEGIN && s->tenant->db->set.pool_mode == POOL_MODE_STATEMENT) {
		diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "transaction blocks are not allowed in statement pooling mode");
		return refuse(s, m, &d);
	}
	if (p->kind == STMT_MULTI && resets_in_the_middle(s, p)) {
		diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "pgspan cannot reset what the connection was opened with in the middle of a string of statements");
		diag_hint(&d, "Send RESET, SET ... TO DEFAULT or DISCARD ALL by itself.");
		return refuse(s, m, &d);
	}
	/* DEALLOCATE of a statement that Parse made: only the client's name goes (C22). */
	if (query_must_wait_for_catalog(s))
		return RC_AGAIN;
	if (query_wait_was_cancelled(s, &d))
		return refuse(s, m, &d);
	if (p->kind == STMT_DEALLOCATE && p->name && names_get(&s->stmts, span_str(p->name))) {
		if (session_status(s) != 'E') {
			stmt_unref(names_take(&s->stmts, span_str(p->name)));
			answer(s, "DEALLOCATE");
			conn_rx_consume(&s->conn, m->len + WIRE_HEAD_BYTES);
			return RC_OK;
		}
	}
	int shard = 0;
	bool execute_writes = false;
	if (s->tenant->db->sharded) {
		struct target_set t;
		struct route_values v = {.sql = sql.p, .scan = &s->env->scan, .scan_flags = meaning_scan_flags(s), .utf8 = meaning_is_utf8(s)};
		if (query_is_ignored(s, p, &d) || (p->route != ROUTE_ANY && meaning_is_unknown(s, &d)))
			return refuse(s, m, &d);
		if (p->kind == STMT_EXECUTE) {
			if (sql_execute_route(s, p, sql, &t, &execute_writes, &d) != ROUTED)
				return refuse(s, m, &d);
		} else if (p->kind == STMT_PREPARE) {
			target_clear(&t);
			target_add(&t, leg_any_shard(s) >= 0 ? leg_any_shard(s) : 0);
		} else if (query_route(s, p, &v, &t, &d) != ROUTED) {
			return refuse(s, m, &d);
		}
		bool all = query_is_for_all_legs(s, p, -1);
		if (all || t.count > 1) {
			enum rc rc = all ? fan_control(s, e, sql, NULL, false, &d) : fan_query(s, e, sql, &t, &d);
			if (rc == RC_FAIL)
				return refuse(s, m, &d);
			if (s->state == SESSION_CLOSED)
				return RC_AGAIN;
			conn_rx_consume(&s->conn, m->len + WIRE_HEAD_BYTES);
			fan_continue(s);
			return RC_OK;
		}
		shard = target_first(&t);
		l = leg_use(s, shard);
	}
	bool advanced = l->server && l->wrote;
	if (!sequence_is_known(s, p, &advanced, &d))
		return refuse(s, m, &d);
	if (!l->server) {
		enum rc rc = leg_attach(s, shard, leg_choose(s, (p->flags & PLAN_READ_ONLY) && p->pins == 0), &d);
		if (rc == RC_FAIL)
			return refuse(s, m, &d);
		if (rc != RC_OK)
			return rc;
	}
	leg_begin(s, l);
	l->wrote |= p->kind == STMT_EXECUTE ? execute_writes : (p->flags & PLAN_WRITES) != 0;
	if (s->tenant->db->sharded)
		sql_prepare_ready(s, l, p, sql);
	if (p->pins && l->number > 0) {
		diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "this would tie the session to a replica");
		diag_hint(&d, "Use it outside a READ ONLY transaction.");
		return refuse(s, m, &d);
	}
	char name[128];
	if (p->pins & ~(unsigned)PIN_SETTING || (p->pins && !query_is_set_config(sql, name, sizeof name)))
		l->server->has.unclean = true;
	s->holds |= txn_holds(s, p);
	l->server->has.unnamed = (struct stmt_id){0, 0};
	stmt_unref(s->unnamed); /* a simple Query destroys the unnamed statement */
	s->unnamed = NULL;
	struct span whole = span_of((const char *)m->body - WIRE_HEAD_BYTES, m->len + WIRE_HEAD_BYTES);
	struct wbuf text = {0};
	if (group_execute_by_sql(l, p, sql, &text)) {
		struct wbuf w = {0};
		msg_put_query(&w, span_of(text.p, text.n));
		conn_send_copy(&l->server->conn, w.p, w.n);
		wbuf_fini(&w);
	} else {
		conn_send_ref(&l->server->conn, whole);
	}
	wbuf_fini(&text);
	replies_push(&l->server->replies, REPLY_QUERY, REPLY_FORWARD, effect_new(e, sql));
	l->unsynced = false; /* its ReadyForQuery ends what an injected BEGIN has begun */
	if (conn_flush(&l->server->conn) == RC_FAIL)
		l->lost = true;
	leg_save(l, whole);
	conn_rx_consume(&s->conn, m->len + WIRE_HEAD_BYTES);
	return RC_OK;
}

enum rc
query_process(struct session *s, const struct wire_msg *m)
{
	struct span sql;
	if (!msg_get_query(m, &sql)) {
		struct diag d;
		diag_clear(&d);
		diag_set(&d, SQLSTATE_PROTOCOL_VIOLATION, "invalid string in message");
		return refuse(s, m, &d);
	}
	struct plan_entry *e = session_plan(s, sql);
	enum rc rc = process(s, m, sql, e);
	plan_entry_unref(e);
	return rc;
}
