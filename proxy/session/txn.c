/* SPDX-License-Identifier: BSD-2-Clause */
/* txn - what statements do to the session: transaction blocks, settings (kept in settings.c), pins.
 *
 * A statement takes effect when its CommandComplete comes; a block is over when ReadyForQuery says so. */
#include "session_int.h"


/* --- effects --- */

static bool
has_effect(const struct plan *p)
{
	if (p->pins || (p->flags & (PLAN_DDL | PLAN_UNLOCKS)))
		return true;
	switch (p->kind) {
	case STMT_BEGIN:
	case STMT_DECLARE:
	case STMT_COMMIT:
	case STMT_ROLLBACK:
	case STMT_SAVEPOINT:
	case STMT_RELEASE:
	case STMT_ROLLBACK_TO:
	case STMT_PREPARE_TRANSACTION:
	case STMT_SET:
	case STMT_DISCARD:
	case STMT_DEALLOCATE:
	case STMT_UNLISTEN:
	case STMT_CLOSE_CURSOR:
		return true;
	case STMT_MULTI:
		for (int i = 0; i < p->n_parts; i++)
			if (has_effect(p->parts[i]))
				return true;
		return false;
	default:
		return false;
	}
}

struct effect *
effect_new(struct plan_entry *plan, struct span text)
{
	if (!has_effect(plan->plan))
		return NULL;
	struct effect *e = xmalloc(sizeof *e + text.n + 1);
	plan_entry_ref(plan);
	e->plan = plan;
	e->part = 0;
	e->len = text.n;
	memcpy(e->text, text.p, text.n);
	e->text[text.n] = '\0';
	return e;
}

void
effect_free(struct effect *e)
{
	if (!e)
		return;
	plan_entry_unref(e->plan);
	free(e);
}

bool
txn_holds(const struct session *s, const struct plan *p)
{
	bool settings = !dlist_empty(&s->settings) || !dlist_empty(&s->initial);
	switch (p->kind) {
	case STMT_MULTI:
		for (int i = 0; i < p->n_parts; i++)
			if (txn_holds(s, p->parts[i]))
				return true;
		return false;
	case STMT_SET:
		return settings && (p->set.kind == SET_RESET || p->set.kind == SET_RESET_ALL);
	case STMT_DISCARD:
	case STMT_DEALLOCATE:
		return !p->name;
	case STMT_PREPARE:
		return true; /* its name is one of those that Parse makes */
	default:
		return false;
	}
}

/* --- settings --- */

static int
count(const struct dlist *list)
{
	int n = 0;
	for (const struct dlist *i = list->next; i != list; i = i->next)
		n++;
	return n;
}

static void
note_role(struct leg *l, void *arg)
{
	(void)arg;
	l->server->has.role = true;
}

/* What the startup packet has set is the session's default, which no server knows: it is made again behind a RESET. */
static void
restore(struct session *s, const char *name)
{
	struct wbuf w = {0};
	if (name && !settings_initial(s, name))
		return;
	if (s->restore)
		wbuf_bytes(&w, s->restore, strlen(s->restore));
	settings_put_initial(s, name, &w);
	free(s->restore);
	s->restore = w.n ? xstrndup(w.p, w.n) : NULL;
	wbuf_fini(&w);
}

static void
apply_set(struct session *s, const struct plan *p, struct span text)
{
	if ((p->set.kind == SET_VALUE || p->set.kind == SET_LOCAL) && setting_is_role(p->set.name))
		leg_each(s, note_role, NULL);
	switch (p->set.kind) {
	case SET_VALUE:
		dlist_add_tail(&s->pending, &setting_new(p->set.name, text)->link);
		break;
	case SET_SESSION_CHARACTERISTICS:
		dlist_add_tail(&s->pending, &setting_new("session characteristics", text)->link);
		break;
	case SET_RESET:
		restore(s, p->set.name);
		dlist_add_tail(&s->pending, &setting_new(p->set.name, SPAN_LIT(""))->link);
		break;
	case SET_RESET_ALL:
		restore(s, NULL);
		dlist_add_tail(&s->pending, &setting_new("", SPAN_LIT(""))->link);
		break;
	case SET_LOCAL:
	{
		struct setting *g = setting_new(p->set.name, text);
		g->local = true;
		dlist_add_tail(&s->pending, &g->link);
		break;
	}
	case SET_NONE:
	case SET_TRANSACTION:
		break;
	}
	s->meaning_stale = true;
}

/* --- savepoints --- */

static void
free_savepoint(struct savepoint *v)
{
	dlist_del(&v->link);
	free(v->name);
	free(v);
}

static void
clear_savepoints(struct session *s)
{
	while (!dlist_empty(&s->savepoints))
		free_savepoint(dlist_first(&s->savepoints, struct savepoint, link));
}

/* The newest savepoint of that name; those made after it are dropped. */
static struct savepoint *
back_to(struct session *s, const char *name)
{
	for (struct dlist *i = s->savepoints.prev; i != &s->savepoints; i = i->prev) {
		if (strcmp(container_of(i, struct savepoint, link)->name, name) != 0)
			continue;
		while (i->next != &s->savepoints)
			free_savepoint(container_of(i->next, struct savepoint, link));
		return container_of(i, struct savepoint, link);
	}
	return NULL;
}

/* --- commands --- */

/* The other legs of the block make the setting, too. */
static void
tell_other(struct leg *l, void *arg)
{
	const struct span *text = arg;
	struct wbuf w = {0};
	if (l == l->session->leg || !l->in_block)
		return;
	msg_put_query(&w, *text);
	conn_send_copy(&l->server->conn, w.p, w.n);
	wbuf_fini(&w);
	replies_push(&l->server->replies, REPLY_QUERY, REPLY_SKIP, NULL);
	l->server->has.unnamed = (struct stmt_id){0, 0};
	(void)conn_flush(&l->server->conn); /* if it broke, input tells */
}

static void
note_discarded(struct leg *l, void *arg)
{
	(void)arg;
	l->server->has.unclean = l->server->has.role = false;
}

/* DISCARD ALL commits at once, whatever follows it in its batch; what is restored behind it does not. */
static void
discard_all(struct session *s)
{
	struct wbuf w = {0};
	names_clear(&s->cursors, free);
	settings_discard(s);
	settings_commit(s);
	leg_each(s, note_discarded, NULL);
	s->pins = 0;
	s->discards = true;
	free(s->restore);
	s->restore = NULL;
	settings_put_initial(s, NULL, &w);
	settings_put_initial(s, "session_authorization", &w);
	settings_put_initial(s, "role", &w);
	if (w.n)
		s->restore = xstrndup(w.p, w.n);
	wbuf_fini(&w);
}

/* DEALLOCATE ALL: those of the leg's server that pgspan shares are gone, too. */
static void
forget_statements(struct session *s)
{
	names_clear(&s->stmts, (void (*)(void *))stmt_unref);
	names_clear(&s->sql_prepared, free);
	if (s->leg->server)
		stmt_set_clear(&s->leg->server->has.stmts);
}

static void
apply(struct session *s, const struct plan *p, struct span text, struct span tag)
{
	struct savepoint *v;
	char name[128];
	bool marks = p->kind == STMT_SET || p->kind == STMT_SAVEPOINT || p->kind == STMT_RELEASE || p->kind == STMT_ROLLBACK_TO;
	if (marks && s->tx == TX_OPEN && s->begin_sql)
		dlist_add_tail(&s->preamble, &setting_new("", text)->link);
	if (p->pins == PIN_SETTING && query_is_set_config(text, name, sizeof name)) {
		s->meaning_stale = true;
		dlist_add_tail(&s->pending, &setting_new(name, text)->link);
		if (setting_is_role(name))
			leg_each(s, note_role, NULL);
		if (s->tx == TX_OPEN && s->begin_sql) {
			dlist_add_tail(&s->preamble, &setting_new("", text)->link);
			leg_each(s, tell_other, &text);
		}
		return;
	}
	pins_note(s, p);
	if ((p->flags & PLAN_DDL) && !(p->pins & PIN_TEMP)) {
		s->ddl_pending = true;
		fleet_ddl_seen(s->env->tenants.fleet);
		stmt_set_clear(&s->tenant->known);
	}
	switch (p->kind) {
	case STMT_BEGIN:
		/* One that reached a shard as it came: the other shards must be told when they join. */
		if (s->tenant->db->sharded && !s->begin_sql) {
			s->begin_sql = xstrndup(text.p, text.n);
			s->begin_read_only = (p->flags & PLAN_BEGIN_READ_ONLY) != 0;
			s->leg->in_block = true;
		}
		break;
	case STMT_DECLARE:
		if (s->tenant->db->sharded && p->name) {
			int *at = xmalloc(sizeof *at);
			*at = s->leg->shard;
			free(names_put(&s->cursors, span_str(p->name), at));
		}
		break;
	case STMT_COMMIT:
	case STMT_PREPARE_TRANSACTION:
		if (span_eq_str(tag, "ROLLBACK")) /* the block had failed */
			settings_drop_pending(s, 0);
		settings_commit(s);
		clear_savepoints(s);
		break;
	case STMT_ROLLBACK:
		settings_drop_pending(s, 0);
		clear_savepoints(s);
		break;
	case STMT_SAVEPOINT:
		v = xcalloc(1, sizeof *v);
		v->name = xstrdup(p->name ? p->name : "");
		v->n_pending = count(&s->pending);
		dlist_add_tail(&s->savepoints, &v->link);
		break;
	case STMT_RELEASE:
		v = back_to(s, p->name ? p->name : "");
		if (v)
			free_savepoint(v);
		break;
	case STMT_ROLLBACK_TO:
		v = back_to(s, p->name ? p->name : "");
		if (v)
			settings_drop_pending(s, v->n_pending);
		break;
	case STMT_SET:
		apply_set(s, p, text);
		break;
	case STMT_DISCARD:
		if (p->name) /* DISCARD PLANS, TEMP, SEQUENCES: p->name says which */
			break;
		forget_statements(s);
		discard_all(s);
		break;
	case STMT_PREPARE:
		if (p->name)
			sql_prepare_done(s, p->name, text);
		break;
	case STMT_DEALLOCATE:
		if (p->name)
			free(names_take(&s->sql_prepared, span_str(p->name)));
		else
			forget_statements(s);
		break;
	default:
		break;
	}
}

void
txn_command(struct session *s, struct effect *e, struct span tag)
{
	const struct plan *p = e->plan->plan;
	if (p->kind != STMT_MULTI) {
		apply(s, p, span_of(e->text, e->len), tag);
		return;
	}
	if (e->part >= p->n_parts)
		return;
	int i = e->part++;
	size_t off = p->part_off[i], len = p->part_len[i] ? p->part_len[i] : e->len - off;
	apply(s, p->parts[i], off + len <= e->len ? span_of(e->text + off, len) : SPAN_NONE, tag);
}

static void
leave_block(struct leg *l, void *arg)
{
	(void)arg;
	l->in_block = l->wrote = false;
}

void
txn_ready(struct session *s, char status)
{
	if (status == 'I') {
		if (s->failed_now)
			settings_drop_pending(s, 0);
		settings_commit(s);
		clear_savepoints(s);
		s->tx = TX_IDLE;
		settings_clear(&s->preamble);
		txn_forget_held(s);
		leg_each(s, leave_block, NULL);
		if (s->ddl_pending) {
			s->ddl_pending = false;
			fleet_ddl_seen(s->env->tenants.fleet);
			s->env->poke_catalog(s->env); /* a new table is not known, so not read on replicas, before it has been loaded */
		}
		portals_clear(s);
		if (!(s->pins & PIN_CURSOR))
			names_clear(&s->cursors, free);
	} else {
		s->tx = TX_OPEN;
	}
	limits_note_ready(s);
	s->failed_now = false;
}

/* --- a held BEGIN --- */

bool
txn_holds_begin(const struct session *s)
{
	const struct database_config *db = s->tenant->db;
	if (s->replication)
		return false;
	if (db->sharded)
		return s->tx == TX_IDLE && db->set.pool_mode != POOL_MODE_STATEMENT;
	return s->tx == TX_IDLE && db->set.pool_mode == POOL_MODE_TRANSACTION && db->shards[0].n_servers > 1;
}

void
txn_begin_held(struct session *s, const struct plan *p, struct span sql)
{
	free(s->begin_sql);
	s->begin_sql = xstrndup(sql.p, sql.n);
	/* A replica cannot run SERIALIZABLE transactions. */
	s->begin_read_only = (p->flags & PLAN_BEGIN_READ_ONLY) && !strcasestr(s->begin_sql, "serializable");
	s->tx = TX_HELD;
}

void
txn_forget_held(struct session *s)
{
	free(s->begin_sql);
	s->begin_sql = NULL;
	s->begin_read_only = false;
}


void
txn_fini(struct session *s)
{
	meaning_free(s);
	settings_clear(&s->pending);
	settings_clear(&s->settings);
	settings_clear(&s->initial);
	settings_clear(&s->preamble);
	free(s->restore);
	clear_savepoints(s);
	txn_forget_held(s);
}
