/* SPDX-License-Identifier: BSD-2-Clause */
/* sql_prepare - PREPARE, EXECUTE and DEALLOCATE as SQL, on a sharded database.
 *
 * PREPARE runs on one shard, which judges it, and pins its server. EXECUTE is routed by its arguments through the plan of the
 * statement behind AS; a leg that does not have the statement yet is sent the PREPARE right ahead of the EXECUTE, without a Sync
 * between them, so that a failure of the one keeps the other from running. */
#include "session_int.h"

#include "pgspan/sqlstate.h"

enum route_status
sql_execute_route(struct session *s, const struct plan *p, struct span sql, struct target_set *t, bool *writes, struct diag *d)
{
	struct session_env *env = s->env;
	const char *prepare = p->name ? names_get(&s->sql_prepared, span_str(p->name)) : NULL;
	target_clear(t);
	*writes = false;
	if (!prepare) {
		/* 26000: any server says it. */
		target_add(t, leg_any_shard(s) >= 0 ? leg_any_shard(s) : 0);
		return ROUTED;
	}
	/* session_plan() uses env->scan: the EXECUTE's own literals are wanted there afterwards. */
	struct plan_entry *made = session_plan(s, span_str(prepare));
	const struct plan *pp = made->plan;
	enum route_status r = ROUTED_REFUSED;
	if (pp->kind != STMT_PREPARE || !pp->inner_text) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "pgspan cannot route this prepared statement");
		plan_entry_unref(made);
		return r;
	}
	struct plan_entry *inner = session_plan(s, span_str(pp->inner_text));
	unsigned flags = meaning_scan_flags(s);
	bool ok = scan_sql(pp->inner_text, strlen(pp->inner_text), flags, &env->inner_scan) == 0 && scan_sql(sql.p, sql.n, flags, &env->scan) == 0;
	struct route_values outer = {.sql = sql.p, .scan = &env->scan, .scan_flags = flags, .utf8 = meaning_is_utf8(s)};
	struct route_values v = {
	    .sql = pp->inner_text,
	    .scan = &env->inner_scan,
	    .scan_flags = flags,
	    .exec_args = p->exec_args,
	    .n_exec_args = p->n_exec_args,
	    .exec_types = pp->inner_types,
	    .n_exec_types = pp->n_inner_types,
	    .outer = &outer,
	    .utf8 = meaning_is_utf8(s),
	};
	*writes = (inner->plan->flags & PLAN_WRITES) != 0;
	if (ok)
		r = route_resolve(inner->plan, &v, s->tenant->db, leg_any_shard(s), t, d);
	if (r == ROUTED && t->count > 1) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "pgspan runs EXECUTE on one shard only, and this one needs %d", t->count);
		diag_hint(d, "Use the driver's own prepared statements, or give one value of the shard key.");
		r = ROUTED_REFUSED;
	}
	plan_entry_unref(inner);
	plan_entry_unref(made);
	return r;
}

static char there[1]; /* the value of names in leg->prepared */

void
sql_prepare_done(struct session *s, const char *name, struct span sql)
{
	free(names_put(&s->sql_prepared, span_str(name), xstrndup(sql.p, sql.n)));
	names_put(&s->leg->prepared, span_str(name), there);
}

struct elsewhere {
	struct leg *here;
	const char *name; /* NULL: all */
};

/* The statement goes from the other legs that have it, too: the name may mean another one soon. */
static void
drop_elsewhere(struct leg *l, void *arg)
{
	struct elsewhere *e = arg;
	struct wbuf w = {0};
	if (l == e->here || l->prepared.n == 0 || (e->name && !names_take(&l->prepared, span_str(e->name))))
		return;
	struct wbuf sql = {0};
	wbuf_bytes(&sql, "DEALLOCATE ", 11);
	if (e->name) {
		wbuf_bytes(&sql, "\"", 1);
		for (const char *c = e->name; *c; c++)
			wbuf_bytes(&sql, *c == '"' ? "\"\"" : c, *c == '"' ? 2 : 1);
		wbuf_bytes(&sql, "\"", 1);
	} else {
		wbuf_bytes(&sql, "ALL", 3);
		names_clear(&l->prepared, NULL);
		stmt_set_clear(&l->server->has.stmts);
	}
	msg_put_query(&w, span_of(sql.p, sql.n));
	conn_send_copy(&l->server->conn, w.p, w.n);
	replies_push(&l->server->replies, REPLY_QUERY, REPLY_SKIP, NULL);
	l->server->has.unnamed = (struct stmt_id){0, 0};
	(void)conn_flush(&l->server->conn); /* if it broke, input tells */
	wbuf_fini(&sql);
	wbuf_fini(&w);
}

void
sql_prepare_ready(struct session *s, struct leg *l, const struct plan *p, struct span sql)
{
	struct span name = p->name ? span_str(p->name) : SPAN_NONE;
	char *prepare = p->name ? names_get(&s->sql_prepared, name) : NULL;
	bool missing = prepare && !names_get(&l->prepared, name);
	struct elsewhere e = {l, p->name};
	(void)sql;
	switch (p->kind) {
	case STMT_PREPARE:   /* a name that is taken: this server must know that it is */
	case STMT_EXECUTE:
	case STMT_DEALLOCATE:
		if (missing) {
			leg_tell(l, span_str(prepare));
			names_put(&l->prepared, name, there);
			l->server->has.unclean = true;
		}
		break;
	default:
		return;
	}
	if (p->kind != STMT_DEALLOCATE)
		return;
	leg_each(s, drop_elsewhere, &e);
	if (p->name) {
		free(names_take(&s->sql_prepared, name));
		(void)names_take(&l->prepared, name);
	} else {
		names_clear(&s->sql_prepared, free);
		names_clear(&l->prepared, NULL);
	}
}
