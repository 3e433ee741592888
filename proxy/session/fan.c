/* SPDX-License-Identifier: BSD-2-Clause */
/* fan - several servers for one statement; see fan_int.h for its course.
 *
 * Legs are attached in the order of their shards, so that two sessions cannot wait for each other's pools crosswise. A
 * leg's bytes are looked at message by message and given to the merge, which makes one answer of them. When one leg fails
 * the others are cancelled and read to their end, for a server in the middle of an answer is of no use to anybody. */
#include "fan_int.h"

#include "pgspan/copy_split.h"
#include "pgspan/log.h"
#include "pgspan/sqlstate.h"

#define MESSAGE_MAX ((1u << 30) - 1)

struct fan *
fan_new(struct session *s, struct plan_entry *e)
{
	struct fan *f = xcalloc(1, sizeof *f);
	arena_init(&f->mem);
	f->s = s;
	f->plan = e;
	f->cfg = config_ref(s->tenant->cfg);
	if (e)
		plan_entry_ref(e);
	return f;
}

void
fan_free(struct fan *f)
{
	for (int i = 0; i < f->n; i++)
		if (f->legs[i].leg)
			f->legs[i].leg->fan = NULL;
	merge_free(f->merge);
	copy_split_free(f->copy);
	if (f->plan)
		plan_entry_unref(f->plan);
	config_unref(f->cfg);
	stmt_unref(f->stmt);
	effect_free(f->effect);
	wbuf_fini(&f->error);
	wbuf_fini(&f->before);
	wbuf_fini(&f->tail);
	arena_fini(&f->mem);
	free(f);
}

/* --- failures --- */

void
fan_fail(struct fan *f, const struct diag *d)
{
	if (f->failed)
		return;
	f->failed = true;
	msg_put_error(&f->error, "ERROR", d);
}

/* Nothing new goes to the server before the cancel is through: it would be hit by it. */
static void
on_cancelled(struct server *sv)
{
	struct leg *l = sv->user;
	struct session *s = session_checked(l->session);
	if (l->fan)
		fan_pump(l->fan);
	else
		session_process(s);
}

static bool
cancels_under_way(const struct fan *f)
{
	for (int i = 0; i < f->n; i++)
		if (f->legs[i].leg && f->legs[i].leg->server && f->legs[i].leg->server->cancels > 0)
			return true;
	return false;
}

static void
cancel_others(struct fan *f)
{
	if (f->cancelled)
		return;
	f->cancelled = true;
	for (int i = 0; i < f->n; i++) {
		struct fan_leg *k = &f->legs[i];
		if (k->outcome != LEG_WAITS || !k->leg->server)
			continue;
		if (k->copying) {
			struct wbuf w = {0};
			msg_put_copy_fail(&w, "another shard has refused the data");
			conn_send_copy(&k->leg->server->conn, w.p, w.n);
			wbuf_fini(&w);
			k->copying = false;
			(void)conn_flush(&k->leg->server->conn);
		} else {
			server_cancel(k->leg->server, on_cancelled);
		}
	}
}

/* --- reading --- */

static void
on_ended(void *arg, const struct reply *e, enum reply_end end)
{
	struct fan_leg *k = arg;
	if (end != REPLY_DONE && e->kind == REPLY_QUERY)
		k->leg->need_sync = true; /* ignored with an injected BEGIN that had failed */
}

static void
leg_done(struct fan *f, struct fan_leg *k, enum leg_outcome outcome)
{
	if (k->outcome != LEG_WAITS)
		return;
	k->outcome = outcome;
	f->n_waiting--;
}

static void
leg_lost(struct fan *f, struct fan_leg *k)
{
	struct diag d;
	diag_clear(&d);
	diag_set(&d, SQLSTATE_CONNECTION_FAILURE, "the server of shard %d closed the connection while it was in use", k->shard);
	fan_fail(f, &d);
	struct replies *q = &k->leg->server->replies;
	while (!replies_empty(q))
		replies_pop(q);
	pool_discard(k->leg->server);
	leg_forget_server(k->leg);
	k->leg->fan = NULL;
	leg_done(f, k, LEG_LOST);
	cancel_others(f);
}

/* Rows that the client has not asked for yet are dropped, and when there may be some it is told that the portal is suspended. */
static void
limit_rows(struct fan *f, struct wbuf *out)
{
	struct wbuf all = *out;
	struct wire_msg m;
	*out = (struct wbuf){0};
	for (size_t at = 0; at < all.n && wire_take(all.p + at, all.n - at, MESSAGE_MAX, &m) == WIRE_OK; at += m.len + WIRE_HEAD_BYTES) {
		if (m.type == 'D' && f->n_rows == f->max_rows)
			continue;
		f->n_rows += m.type == 'D';
		if (m.type == 'C' && f->n_rows == f->max_rows)
			wbuf_bytes(out, "s\0\0\0\4", 5);
		else
			wbuf_bytes(out, all.p + at, m.len + WIRE_HEAD_BYTES);
	}
	wbuf_fini(&all);
}

/* What a leg says that has given as many rows as the client can get: to the merge it is done. The numbers are not shown. */
static struct span
tag_of_suspended(const struct fan *f)
{
	switch (f->plan->plan->kind) {
	case STMT_INSERT:
		return SPAN_LIT("INSERT 0 0\0");
	case STMT_UPDATE:
		return SPAN_LIT("UPDATE 0\0");
	case STMT_DELETE:
		return SPAN_LIT("DELETE 0\0");
	default:
		return SPAN_LIT("SELECT 0\0");
	}
}

static void
take(struct fan *f, int i, const struct wire_msg *m, bool mine, bool counts)
{
	struct fan_leg *k = &f->legs[i];
	struct diag d;
	diag_clear(&d);
	switch (m->type) {
	case 'E':
		if (!counts)
			return;
		if (k->outcome == LEG_WAITS && !f->failed) {
			f->failed = true;
			wbuf_bytes(&f->error, (const char *)m->body - WIRE_HEAD_BYTES, m->len + WIRE_HEAD_BYTES);
		}
		k->copying = false;
		k->erred = true;
		cancel_others(f);
		return;
	case 'Z':
		k->leg->server->tx_status = m->len == 1 ? (char)m->body[0] : 'I';
		if (replies_empty(&k->leg->server->replies)) {
			leg_done(f, k, k->erred ? LEG_ERROR : LEG_OK);
			k->erred = false;
		}
		return;
	case 'G':
		k->copying = true;
		f->copy_columns = m->len >= 3 ? wire_load_u16(m->body + 1) : 0;
		f->copy_binary = m->len >= 1 && m->body[0] == 1;
		return;
	case '1':
		f->parsed |= mine;
		return;
	case '2':
		f->bound |= mine;
		return;
	case 'S':
		server_note_parameter(k->leg->server, m);
		return;
	case '3':
	case 't':
		return;
	default:
		break;
	}
	if (!mine || f->failed || !f->merge || f->copy_open)
		return;
	struct wbuf out = {0};
	bool suspended = m->type == 's';
	struct span body = suspended ? tag_of_suspended(f) : span_of((const char *)m->body, m->len);
	enum rc rc = merge_message(f->merge, i, suspended ? 'C' : m->type, body, &out, &d);
	if (rc == RC_OK && f->max_rows > 0)
		limit_rows(f, &out);
	if (rc != RC_OK) {
		fan_fail(f, &d);
		cancel_others(f);
	} else if (f->implicit && merge_done(f->merge)) {
		wbuf_bytes(&f->tail, out.p, out.n);
	} else if (out.n > 0) {
		if (f->before.n > 0) {
			conn_send_copy(&f->s->conn, f->before.p, f->before.n);
			wbuf_clear(&f->before);
		}
		conn_send_copy(&f->s->conn, out.p, out.n);
	}
	wbuf_fini(&out);
}

/* One message of a leg. RC_AGAIN: none is there, or none is wanted now. */
static enum rc
step(struct fan *f, int i)
{
	struct fan_leg *k = &f->legs[i];
	struct leg *l = k->leg;
	struct server *sv = l ? l->server : NULL;
	if (k->outcome != LEG_WAITS || !sv)
		return RC_AGAIN;
	if (!f->failed && f->merge && !merge_wants(f->merge, i))
		return RC_AGAIN;
	struct span rx = conn_rx(&sv->conn);
	struct wire_head h;
	struct wire_msg m;
	enum wire_result r = wire_peek(rx.p, rx.n, MESSAGE_MAX, &h);
	if (r == WIRE_OK && h.total > rx.n) {
		conn_rx_expect(&sv->conn, (size_t)h.total);
		r = WIRE_NEED_MORE;
	}
	if (r == WIRE_OK)
		r = wire_take(rx.p, rx.n, MESSAGE_MAX, &m);
	if (r == WIRE_NEED_MORE && !sv->conn.eof && !sv->conn.broken)
		return RC_AGAIN;
	if (r != WIRE_OK) {
		leg_lost(f, k);
		return RC_OK;
	}
	const struct reply *head = replies_head(&sv->replies);
	bool mine = head && head->ref == f;
	/* What pgspan told the leg ahead of the fan (a block made to fail, a DEALLOCATE) may fail: that is nobody's error. */
	bool counts = !head || mine || leg_is_begin(head->ref);
	if (replies_match(&sv->replies, m.type, on_ended, k) == VERDICT_BROKEN) {
		leg_lost(f, k);
		return RC_OK;
	}
	take(f, i, &m, mine, counts);
	if (l->server)
		conn_rx_consume(&sv->conn, m.len + WIRE_HEAD_BYTES);
	if (l->need_sync && l->server) {
		l->need_sync = false;
		conn_send_copy(&sv->conn, MSG_SYNC.p, MSG_SYNC.n);
		replies_push(&sv->replies, REPLY_SYNC, REPLY_SKIP, f);
		(void)conn_flush(&sv->conn);
	}
	return RC_OK;
}

static bool
all_copying(const struct fan *f)
{
	for (int i = 0; i < f->n; i++)
		if (!f->legs[i].copying)
			return false;
	return true;
}

void
fan_pump(struct fan *f)
{
	struct session *s = f->s;
	bool more = true;
	if (f->finishing)
		return;
	f->finishing = true;
	while (more && conn_tx_pending(&s->conn) <= CONN_TX_HIGH) {
		more = false;
		for (int i = 0; i < f->n; i++) {
			int budget = 256; /* messages of one leg, before the others have their turn */
			while (budget-- > 0 && step(f, i) == RC_OK)
				more = true;
		}
		(void)conn_flush(&s->conn);
	}
	bool high = conn_tx_pending(&s->conn) > CONN_TX_HIGH;
	if (high)
		s->conn.was_high = true;
	for (int i = 0; i < f->n; i++) {
		struct fan_leg *k = &f->legs[i];
		if (!k->leg || !k->leg->server || k->outcome != LEG_WAITS)
			continue;
		bool wants = !f->merge || f->failed || merge_wants(f->merge, i);
		if (high || !wants)
			conn_read_stop(&k->leg->server->conn);
		else
			conn_read_start(&k->leg->server->conn);
	}
	f->finishing = false;
	if (f->copy && !f->copy_open && !f->failed && f->n_waiting == f->n && all_copying(f)) {
		copy_fan_ready(f);
		return;
	}
	if (f->n_waiting == 0 && f->n_attached == f->n && f->then && !cancels_under_way(f)) {
		void (*then)(struct fan *) = f->then;
		f->then = NULL;
		for (int i = 0; i < f->n; i++)
			if (f->legs[i].leg && f->legs[i].leg->server)
				conn_read_start(&f->legs[i].leg->server->conn);
		then(f);
	}
}

void
fan_input(struct leg *l)
{
	fan_pump(l->fan);
}

void
fan_drained(struct session *s)
{
	fan_pump(s->fan);
}

/* --- sending --- */

void
fan_send_query(struct fan *f, int i, struct span sql)
{
	struct fan_leg *k = &f->legs[i];
	struct server *sv = k->leg->server;
	struct wbuf w = {0};
	msg_put_query(&w, sql);
	conn_send_copy(&sv->conn, w.p, w.n);
	wbuf_fini(&w);
	replies_push(&sv->replies, REPLY_QUERY, REPLY_SKIP, f);
	sv->has.unnamed = (struct stmt_id){0, 0};
	k->leg->unsynced = false;
	k->leg->fan = f;
	k->leg->fan_place = i;
	k->outcome = LEG_WAITS;
	f->n_waiting++;
	(void)conn_flush(&sv->conn); /* if it broke, input tells */
}

void
fan_exchange(struct fan *f, const char *(*sql_for)(const struct fan *f, const struct fan_leg *k), void (*then)(struct fan *f))
{
	f->then = then;
	f->cancelled = true; /* a step of the end of a block is never stopped half way */
	f->n_waiting = 0;
	for (int i = 0; i < f->n; i++) {
		struct fan_leg *k = &f->legs[i];
		const char *sql = k->leg->server ? sql_for(f, k) : NULL;
		if (sql)
			fan_send_query(f, i, span_str(sql));
		else if (k->outcome != LEG_LOST)
			k->outcome = LEG_IDLE;
	}
	merge_free(f->merge);
	f->merge = NULL;
	fan_pump(f);
}

static void
send_bind(struct fan *f, int i)
{
	struct fan_leg *k = &f->legs[i];
	struct server *sv = k->leg->server;
	struct stmt *st = f->stmt;
	struct wbuf w = {0};
	const struct split_part *p = k->part;
	if (p)
		msg_put_parse(&w, SPAN_NONE, k->sql, split_types(&f->mem, p, st->types, st->n_types), p->n_params);
	else
		msg_put_parse(&w, SPAN_NONE, k->sql, st->types, st->n_types);
	if (p) {
		if (!split_put_bind(&w, p, &f->bind, SPAN_NONE, SPAN_NONE)) {
			/* PostgreSQL words it: the Bind as it is does not fit the part either. */
			msg_put_bind_head(&w, &f->bind, SPAN_NONE, SPAN_NONE);
			wbuf_bytes(&w, f->bind.rest.p, f->bind.rest.n);
		}
	} else {
		msg_put_bind_head(&w, &f->bind, SPAN_NONE, SPAN_NONE);
		wbuf_bytes(&w, f->bind.rest.p, f->bind.rest.n);
	}
	msg_put_describe(&w, 'P', SPAN_NONE);
	msg_put_execute(&w, SPAN_NONE, f->leg_rows);
	wbuf_bytes(&w, MSG_SYNC.p, MSG_SYNC.n);
	conn_send_copy(&sv->conn, w.p, w.n);
	wbuf_fini(&w);
	static const enum reply_kind kinds[] = {REPLY_PARSE, REPLY_BIND, REPLY_DESCRIBE_PORTAL, REPLY_EXECUTE, REPLY_SYNC};
	for (size_t j = 0; j < ARRAY_LEN(kinds); j++)
		replies_push(&sv->replies, kinds[j], REPLY_SKIP, f);
	sv->has.unnamed = (struct stmt_id){0, 0};
	k->leg->unsynced = false;
	k->leg->fan = f;
	k->leg->fan_place = i;
	k->outcome = LEG_WAITS;
	f->n_waiting++;
	(void)conn_flush(&sv->conn);
}

static void
statement_done(struct fan *f)
{
	if (f->implicit) {
		if (f->failed)
			fan_rollback(f);
		else
			fan_commit(f);
		return;
	}
	fan_answer(f);
}

/* All legs are there: the statement goes out. */
static void
run(struct fan *f)
{
	struct session *s = f->s;
	const struct plan *p = f->plan->plan;
	bool writes = (p->flags & PLAN_WRITES) != 0;
	f->n_waiting = 0;
	for (int i = 0; i < f->n; i++) {
		struct leg *l = f->legs[i].leg;
		if (f->implicit)
			leg_begin_implicit(l);
		else
			leg_begin(s, l);
		l->wrote |= writes;
	}
	f->then = statement_done;
	for (int i = 0; i < f->n; i++) {
		if (f->extended)
			send_bind(f, i);
		else
			fan_send_query(f, i, f->legs[i].sql);
	}
	fan_pump(f);
}

/* --- attaching --- */

void
fan_attach(struct fan *f)
{
	struct session *s = f->s;
	struct diag d;
	diag_clear(&d);
	while (f->n_attached < f->n) {
		struct fan_leg *k = &f->legs[f->n_attached];
		k->leg = leg_use(s, k->shard);
		if (k->leg->linking || k->leg->waiter.pool)
			return;
		if (!k->leg->server) {
			bool read = (f->plan->plan->flags & PLAN_READ_ONLY) && s->tx == TX_IDLE;
			enum rc rc = leg_attach(s, k->shard, leg_choose(s, read), &d);
			if (rc == RC_AGAIN)
				return;
			if (rc == RC_FAIL) {
				fan_fail(f, &d);
				f->n = f->n_attached; /* the others have not begun */
				fan_answer(f);
				return;
			}
		} else if (k->leg->failed) {
			d = *k->leg->failure;
			k->leg->failed = false;
			fan_fail(f, &d);
			f->n = f->n_attached;
			fan_answer(f);
			return;
		}
		k->leg->fan = f; /* from here on its input, and its end, are the fan's */
		f->n_attached++;
	}
	if (f->copy)
		copy_fan_begin(f);
	else
		run(f);
}

/* --- the end --- */

void
fan_answer(struct fan *f)
{
	struct session *s = f->s;
	struct wbuf w = {0};
	bool failed = f->failed, more = f->more;
	s->fan = NULL;
	if (f->before.n > 0 && !(failed && f->extended && f->stmt))
		wbuf_bytes(&w, f->before.p, f->before.n);
	/* An error tells how far the statement came: what was not done is not said to be. */
	for (size_t i = 0; failed && f->extended && f->stmt && i + 5 <= f->before.n; i += 5) {
		char type = f->before.p[i];
		if ((type == '1' && f->parsed) || (type == '2' && f->bound) || type == '3' || (type == 'n' && f->copy))
			wbuf_bytes(&w, f->before.p + i, 5);
	}
	if (failed)
		wbuf_bytes(&w, f->error.p, f->error.n);
	else if (f->tail.n > 0)
		wbuf_bytes(&w, f->tail.p, f->tail.n);
	else if (f->tag)
		msg_put_command_complete(&w, f->tag);
	if (failed) {
		s->failed_now = true;
		if (s->tx == TX_HELD)
			s->tx = TX_HELD_FAILED;
	} else if (f->effect) {
		txn_command(s, f->effect, f->tag ? span_str(f->tag) : SPAN_NONE);
	}
	bool lost_one = false;
	for (int i = 0; i < f->n; i++)
		lost_one |= f->legs[i].outcome == LEG_LOST;
	bool in_block = s->tx == TX_OPEN;
	/* Whatever the legs say now: a block is over when none is in it. */
	int open = 0;
	for (int i = 0; s->by_shard && i < s->tenant->db->n_shards; i++)
		open += s->by_shard[i] && s->by_shard[i]->server && s->by_shard[i]->server->tx_status != 'I';
	if (s->tx == TX_OPEN && open == 0)
		txn_ready(s, 'I');
	else if (s->tx == TX_IDLE)
		txn_ready(s, 'I');
	/* An error of pgspan's own leaves the servers' block sound: it must fail with it. */
	if (failed && s->tx == TX_OPEN && session_status(s) != 'E')
		leg_fail_block(s, false);
	if (more)
		s->skip_to_sync |= failed;
	else
		msg_put_ready_for_query(&w, session_status(s));
	session_put(s, &w);
	fan_free(f);
	(void)leg_restore(s, !failed);
	if (lost_one && in_block) {
		/* Part of the block is gone with its server: nothing of it can be committed any more. */
		session_close(s, "a shard's server was lost in a transaction");
		return;
	}
	leg_settle(s);
	session_process(s);
}

void
fan_abandon(struct session *s)
{
	struct fan *f = s->fan;
	if (!f)
		return;
	s->fan = NULL;
	if (f->gid.text[0])
		fan_end_abandoned(f);
	for (int i = 0; i < f->n; i++) {
		struct leg *l = f->legs[i].leg;
		if (!l || !l->server || replies_empty(&l->server->replies))
			continue;
		server_cancel(l->server, NULL);
		while (!replies_empty(&l->server->replies))
			replies_pop(&l->server->replies);
		l->lost = true;
	}
	fan_free(f);
}

/* --- statements --- */

static void
add_targets(struct fan *f, const struct target_set *t)
{
	f->legs = arena_zalloc(&f->mem, (size_t)t->count * sizeof *f->legs);
	for (int i = target_first(t); i >= 0; i = target_next(t, i)) {
		f->legs[f->n].shard = i;
		f->legs[f->n].outcome = LEG_IDLE;
		f->n++;
	}
}

/* One edit of the text: the token at *off* becomes *with*. */
struct edit {
	uint32_t off, len;
	char with[96];
};

static void
literal_edit(struct edit *e, const struct scan *scan, const struct key_source *src, bool is_limit, int64_t value)
{
	const struct scan_literal *lit = &scan->literals[src->index];
	e->off = lit->off;
	e->len = lit->len;
	if (is_limit && value < 0)
		snprintf(e->with, sizeof e->with, "NULL");
	else
		snprintf(e->with, sizeof e->with, "%lld", is_limit ? (long long)value : 0LL);
}

/* The place of $n in the text that stands last: LIMIT and OFFSET come last in a statement. */
static const struct scan_literal *
param_place(const struct scan *scan, const char *sql, uint32_t n)
{
	for (uint32_t i = scan->n_literals; i-- > 0;) {
		const struct scan_literal *l = &scan->literals[i];
		if (l->kind == SCAN_PARAM && strtoul(sql + l->off + 1, NULL, 10) == n)
			return l;
	}
	return NULL;
}

/* The statement as shards get it: each gives the first offset + limit rows. False: its values are not known here. */
static bool
push_limit(struct fan *f, struct span *sql, const struct plan *p, const struct route_values *v, struct merge_spec *spec)
{
	const struct key_source *src[2] = {&p->limit.limit, &p->limit.offset};
	int64_t value[2] = {-1, 0};
	struct edit edits[2];
	int n = 0;
	spec->limit = -1;
	spec->offset = 0;
	for (int i = 0; i < 2; i++) {
		if (src[i]->kind == KEY_SRC_NULL)
			continue;
		enum rc rc = route_int8(v, src[i], &value[i]);
		if (rc == RC_FAIL || (rc == RC_OK && value[i] < 0))
			return false; /* PostgreSQL has an error for it: any one shard words it */
		if (rc == RC_AGAIN)
			value[i] = i == 0 ? -1 : 0;
	}
	spec->limit = value[0];
	spec->offset = value[1];
	if (spec->limit < 0 && spec->offset == 0)
		return true;
	int64_t wanted = spec->limit < 0 || spec->limit > INT64_MAX - spec->offset ? -1 : spec->limit + spec->offset;
	for (int i = 0; i < 2; i++) {
		struct edit *e = &edits[n];
		if (src[i]->kind == KEY_SRC_LITERAL) {
			literal_edit(e, v->scan, src[i], i == 0, wanted);
		} else if (src[i]->kind == KEY_SRC_PARAM) {
			const struct scan_literal *lit = param_place(v->scan, v->sql, src[i]->index);
			if (!lit)
				return false;
			e->off = lit->off;
			e->len = lit->len;
			if (i == 0 && wanted >= 0)
				snprintf(e->with, sizeof e->with, "(%lld + 0 * coalesce($%u::int8, 0))", (long long)wanted, src[i]->index);
			else if (i == 0)
				snprintf(e->with, sizeof e->with, "(NULL::int8 + $%u::int8)", src[i]->index);
			else
				snprintf(e->with, sizeof e->with, "(0 * coalesce($%u::int8, 0))", src[i]->index);
		} else {
			continue;
		}
		n++;
	}
	if (n == 2 && edits[0].off > edits[1].off) {
		struct edit t = edits[0];
		edits[0] = edits[1];
		edits[1] = t;
	}
	struct wbuf w = {0};
	size_t at = 0;
	for (int i = 0; i < n; i++) {
		wbuf_bytes(&w, sql->p + at, edits[i].off - at);
		wbuf_bytes(&w, edits[i].with, strlen(edits[i].with));
		at = edits[i].off + edits[i].len;
	}
	wbuf_bytes(&w, sql->p + at, sql->n - at);
	*sql = span_of(arena_strndup(&f->mem, w.p, w.n), w.n);
	wbuf_fini(&w);
	return true;
}

/* Texts for the legs, and the merge. */
static enum rc
prepare(struct fan *f, struct span sql, const struct target_set *t, const struct route_values *v, struct diag *d)
{
	struct session *s = f->s;
	const struct plan *p = f->plan->plan;
	struct merge_spec spec = {.limit = -1};
	add_targets(f, t);
	spec.n_legs = f->n;
	if (p->route == ROUTE_INSERT) {
		struct split *sp = arena_zalloc(&f->mem, sizeof *sp);
		int *shards = arena_alloc(&f->mem, (size_t)p->insert.n_rows * sizeof *shards);
		struct target_set again;
		target_clear(&again);
		if (route_insert(p, v, s->tenant->db, shards, &again, d) != ROUTED)
			return RC_FAIL;
		if (split_insert(&f->mem, sql, meaning_scan_flags(s), shards, (uint32_t)p->insert.n_rows, sp, d) != RC_OK)
			return RC_FAIL;
		if (sp->n_parts != f->n) {
			diag_set(d, SQLSTATE_INTERNAL_ERROR, "a split INSERT has %d parts for %d shards", sp->n_parts, f->n);
			return RC_FAIL;
		}
		for (int i = 0; i < f->n; i++) {
			f->legs[i].part = &sp->parts[i];
			f->legs[i].sql = sp->parts[i].sql;
		}
		spec.kind = MULTI_WRITE;
	} else {
		spec.kind = p->multi;
		if (spec.kind == MULTI_CONCAT || spec.kind == MULTI_SORT)
			if (!push_limit(f, &sql, p, v, &spec)) {
				diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "pgspan cannot tell the value of LIMIT or OFFSET over several shards");
				diag_hint(d, "Write them as numbers of zero or more.");
				return RC_FAIL;
			}
		char *copy = arena_strndup(&f->mem, sql.p, sql.n);
		for (int i = 0; i < f->n; i++)
			f->legs[i].sql = span_of(copy, sql.n);
	}
	spec.sort = p->sort;
	spec.n_sort = p->n_sort;
	spec.aggregates = p->aggregates;
	spec.n_aggregates = p->n_aggregates;
	spec.hide_row_description = f->extended && !f->describe;
	if (f->extended && f->bind.n_result_formats > 0) {
		uint16_t *formats = arena_alloc(&f->mem, f->bind.n_result_formats * sizeof *formats);
		for (unsigned i = 0; i < f->bind.n_result_formats; i++)
			formats[i] = wire_load_u16(f->bind.result_formats + 2 * (size_t)i);
		spec.result_formats = formats;
		spec.n_result_formats = f->bind.n_result_formats;
	}
	/* Each leg gives as many rows as might all be its own. */
	if (f->max_rows > 0 && spec.offset <= INT32_MAX - f->max_rows)
		f->leg_rows = f->max_rows + (int32_t)spec.offset;
	f->merge = merge_new(&spec);
	/* Outside a block a write makes one of its own, unless it cannot run in one. */
	f->implicit = s->tx == TX_IDLE && (p->flags & PLAN_WRITES) && !(p->flags & PLAN_NO_BLOCK);
	return RC_OK;
}

/* COPY has no parameters: by the extended protocol, too, the legs get it as a Query. */
static enum rc
prepare_copy(struct fan *f, struct span sql, const struct target_set *t, struct diag *d)
{
	add_targets(f, t);
	char *copy = arena_strndup(&f->mem, sql.p, sql.n);
	for (int i = 0; i < f->n; i++)
		f->legs[i].sql = span_of(copy, sql.n);
	f->implicit = f->s->tx == TX_IDLE;
	f->parsed = f->bound = f->extended;
	return copy_fan_open(f, d);
}

enum rc
fan_query(struct session *s, struct plan_entry *e, struct span sql, const struct target_set *t, struct diag *d)
{
	struct fan *f = fan_new(s, e);
	struct route_values v = {.sql = sql.p, .scan = &s->env->scan, .scan_flags = meaning_scan_flags(s), .utf8 = meaning_is_utf8(s)};
	if (e->plan->route == ROUTE_COPY || e->plan->kind == STMT_COPY_FROM) {
		if (prepare_copy(f, sql, t, d) != RC_OK) {
			fan_free(f);
			return RC_FAIL;
		}
	} else if (prepare(f, sql, t, &v, d) != RC_OK) {
		fan_free(f);
		return RC_FAIL;
	}
	f->effect = effect_new(e, sql);
	s->fan = f;
	return RC_OK;
}

enum rc
fan_bind(struct session *s, struct stmt *st, const struct msg_bind *b, const struct route_values *v, const struct target_set *t,
    const struct fan_how *how, struct diag *d)
{
	struct fan *f = fan_new(s, st->plan);
	f->extended = true;
	f->describe = how->describe;
	f->more = how->more;
	f->max_rows = how->max_rows;
	f->stmt = stmt_ref(st);
	/* The Bind's bytes are copied: its spans point into the client's buffer. */
	f->bind = *b;
	const char *from = b->rest.p;
	char *copy = arena_strndup(&f->mem, from, b->rest.n);
	f->bind.rest.p = copy;
	f->bind.formats = (const unsigned char *)copy + (b->formats - (const unsigned char *)from);
	f->bind.result_formats = (const unsigned char *)copy + (b->result_formats - (const unsigned char *)from);
	f->bind.params.p = copy + (b->params.p - from);
	f->bind.portal = f->bind.statement = SPAN_NONE;
	wbuf_bytes(&f->before, how->before->p, how->before->n);
	bool copies = st->plan->plan->kind == STMT_COPY_FROM;
	if (copies ? prepare_copy(f, st->text, t, d) != RC_OK : prepare(f, st->text, t, v, d) != RC_OK) {
		fan_free(f);
		return RC_FAIL;
	}
	f->effect = effect_new(st->plan, st->text);
	s->fan = f;
	return RC_OK;
}

void
fan_continue(struct session *s)
{
	if (s->fan && s->fan->n_attached < s->fan->n)
		fan_attach(s->fan);
}
