/* SPDX-License-Identifier: BSD-2-Clause */
/* leg - a session's hold on a server.
 *
 *   none ── leg_attach ──► waiting ──► linking (settings differ: one round trip) ──► linked ── leg_settle ──► none
 *                             └──────────────────────────────────────────────────────►┘
 *
 * A held BEGIN goes just ahead of the first statement, as Parse, Bind, Execute without Sync: should it fail, PostgreSQL ignores all
 * up to the next Sync, a simple Query included, so nothing can run outside the block that the client asked for.
 *
 * The leg stays while anything is owed, a block or an implicit transaction is open, or the session is pinned. Giving
 * it back is decided in leg_settle(), never inside the relay: its bytes are still being looked at there. */
#include "session_int.h"

#include "pgspan/janitor.h"
#include "pgspan/log.h"
#include "pgspan/owners.h"
#include "pgspan/sqlstate.h"

#define SAVED_MAX 65536 /* bytes of a read that are kept to be run elsewhere */

static const struct relay_ops relay_ops;
static const struct server_ops server_ops;
static char begin_mark[1]; /* ref of the injected BEGIN's entries */
static char audit_mark[1]; /* and of the query of pins_audit() */
static char restore_mark[1]; /* and of the Query that restores settings behind a RESET */

static void
on_waiter_ready(struct pool_waiter *w, enum rc rc, struct server *sv, const struct diag *d);

void
leg_init(struct session *s, struct leg *l)
{
	l->session = s;
	dlist_init(&l->waiter.link);
	l->waiter.on_ready = on_waiter_ready;
}

void
leg_forget_server(struct leg *l)
{
	l->server = NULL;
	l->copy_in = l->unsynced = l->ran = l->lost = l->need_sync = l->linking = l->in_block = l->withheld = false;
}

struct diag *
leg_failed(struct leg *l)
{
	if (!l->failure)
		l->failure = xmalloc(sizeof *l->failure);
	diag_clear(l->failure);
	l->failed = true;
	return l->failure;
}

struct leg *
leg_use(struct session *s, int shard)
{
	const struct database_config *db = s->tenant->db;
	if (!db->sharded)
		return s->leg;
	if (!s->by_shard)
		s->by_shard = xcalloc((size_t)db->n_shards, sizeof(struct leg *));
	if (!s->by_shard[shard]) {
		struct leg *l = s->leg == &s->first_leg && !s->leg->server && !s->leg->waiter.pool ? &s->first_leg : xcalloc(1, sizeof *l);
		for (int i = 0; i < db->n_shards; i++)
			if (s->by_shard[i] == &s->first_leg && l == &s->first_leg)
				l = xcalloc(1, sizeof *l);
		leg_init(s, l);
		l->shard = shard;
		s->by_shard[shard] = l;
	}
	s->leg = s->by_shard[shard];
	return s->leg;
}

void
leg_each(struct session *s, void (*fn)(struct leg *l, void *arg), void *arg)
{
	if (s->first_leg.server)
		fn(&s->first_leg, arg);
	for (int i = 0; s->by_shard && i < s->tenant->db->n_shards; i++)
		if (s->by_shard[i] && s->by_shard[i] != &s->first_leg && s->by_shard[i]->server)
			fn(s->by_shard[i], arg);
}

static void
count_one(struct leg *l, void *arg)
{
	(void)l;
	++*(int *)arg;
}

int
leg_count(struct session *s)
{
	int n = 0;
	leg_each(s, count_one, &n);
	return n;
}

int
leg_any_shard(struct session *s)
{
	for (int i = 0; s->by_shard && i < s->tenant->db->n_shards; i++)
		if (s->by_shard[i] && s->by_shard[i]->server)
			return i;
	return s->leg->server ? s->leg->shard : -1;
}

static bool
is_quiet(const struct leg *l)
{
	/* After an error in a group the server waits for the Sync, although it owes no answer. */
	return !l->server || (replies_empty(&l->server->replies) && !l->server->replies.skipping && relay_is_between(&l->relay));
}

static void
note_busy(struct leg *l, void *arg)
{
	if (!is_quiet(l) || l->linking)
		*(bool *)arg = false;
}

bool
legs_are_quiet(struct session *s)
{
	bool quiet = true;
	leg_each(s, note_busy, &quiet);
	return quiet;
}

static void
note_cancel(struct leg *l, void *arg)
{
	if (l->server->cancels > 0 && is_quiet(l))
		*(bool *)arg = true;
}

bool
leg_awaits_cancel(struct session *s)
{
	bool waits = false;
	leg_each(s, note_cancel, &waits);
	return waits;
}

void
leg_flush_answers(struct session *s)
{
	struct leg *l = s->leg;
	if (!l->server || !l->unsynced || l->flushed)
		return;
	l->flushed = true;
	conn_send_copy(&l->server->conn, MSG_FLUSH.p, MSG_FLUSH.n);
	if (conn_flush(&l->server->conn) == RC_FAIL)
		l->lost = true;
}

bool
leg_is_quiet(const struct session *s)
{
	return is_quiet(s->leg);
}

bool
leg_owes_nothing(const struct session *s)
{
	const struct leg *l = s->leg;
	return !l->server || (replies_empty(&l->server->replies) && relay_is_between(&l->relay));
}

bool
leg_ignores_input(const struct session *s)
{
	return s->leg->server && s->leg->server->replies.skipping && leg_owes_nothing(s);
}

int
leg_choose(struct session *s, bool read_only)
{
	const struct database_config *db = s->tenant->db;
	if (!read_only || s->replication || db->shards[s->leg->shard].n_servers == 1 || db->set.pool_mode == POOL_MODE_SESSION || s->pins != 0)
		return 0;
	if ((s->tx == TX_HELD && !s->begin_read_only) || meaning_is_serializable(s))
		return 0;
	return tenant_pick_read(s->tenant, s->leg->shard, session_now_ms(s));
}

/* --- linking --- */

static void
inject(struct leg *l, struct span sql, struct span portal, void *ref)
{
	struct wbuf w = {0};
	struct server *sv = l->server;
	msg_put_parse(&w, SPAN_NONE, sql, NULL, 0);
	msg_put_bind_text(&w, portal, SPAN_NONE, NULL, 0);
	msg_put_execute(&w, portal, 0);
	if (portal.n > 0)
		msg_put_close(&w, 'P', portal);
	conn_send_copy(&sv->conn, w.p, w.n);
	wbuf_fini(&w);
	replies_push(&sv->replies, REPLY_PARSE, REPLY_SKIP, ref);
	replies_push(&sv->replies, REPLY_BIND, REPLY_SKIP, ref);
	replies_push(&sv->replies, REPLY_EXECUTE, REPLY_SKIP, ref);
	if (portal.n > 0)
		replies_push(&sv->replies, REPLY_CLOSE, REPLY_SKIP, ref);
	sv->has.unnamed = (struct stmt_id){0, 0};
	l->unsynced = true;
}

void
leg_begin(struct session *s, struct leg *l)
{
	if ((s->tx != TX_HELD && s->tx != TX_OPEN) || !s->begin_sql || l->in_block)
		return;
	inject(l, span_str(s->begin_sql), SPAN_NONE, begin_mark);
	for (struct dlist *i = s->preamble.next; i != &s->preamble; i = i->next)
		inject(l, span_str(container_of(i, struct setting, link)->sql), SPAN_NONE, begin_mark);
	l->in_block = true;
	s->tx = TX_OPEN;
}

void
leg_tell(struct leg *l, struct span sql)
{
	inject(l, sql, SPAN_NONE, begin_mark);
}

bool
leg_is_begin(const void *ref)
{
	return ref == begin_mark;
}

void
leg_begin_implicit(struct leg *l)
{
	inject(l, SPAN_LIT("BEGIN"), SPAN_NONE, begin_mark);
	l->in_block = true;
}

/* What the server lacks, in one Query whose end is waited for: if a part of it fails, the client's statement must not run. */
static void
send_link(struct leg *l)
{
	struct session *s = l->session;
	struct wbuf sql = {0}, w = {0};
	/* The last client's default may be SERIALIZABLE, which a replica cannot run; this transaction takes it before RESET ALL. */
	if (l->server->has.settings != 0)
		wbuf_bytes(&sql, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;", 47);
	/* RESET ALL leaves the role alone. */
	if (l->server->has.role)
		wbuf_bytes(&sql, "SET SESSION AUTHORIZATION DEFAULT;", 34);
	if (l->server->has.settings != 0)
		wbuf_bytes(&sql, "RESET ALL;", 10);
	l->server->has.role = settings_put_all(s, &sql);
	if (sql.n == 0)
		wbuf_bytes(&sql, ";", 1);
	msg_put_query(&w, span_of(sql.p, sql.n));
	conn_send_copy(&l->server->conn, w.p, w.n);
	wbuf_fini(&sql);
	wbuf_fini(&w);
	replies_push(&l->server->replies, REPLY_QUERY, REPLY_SKIP, NULL);
	l->server->has.settings = UINT64_MAX; /* until it has succeeded */
	l->server->has.unnamed = (struct stmt_id){0, 0};
	l->linking = true;
	(void)conn_flush(&l->server->conn); /* if it broke, input tells */
}

static const char *
label_of(const struct leg *l)
{
	return l->session->tenant->db->shards[l->shard].servers[l->number].label;
}

static enum rc
take_server(struct leg *l, struct server *sv)
{
	struct session *s = l->session;
	ev_timer_stop(s->env->loop->ev, &s->timer);
	l->server = sv;
	if (s->tenant->db->set.pool_mode == POOL_MODE_SESSION)
		owners_set(label_of(l), server_pid(sv), session_pid(s));
	sv->ops = &server_ops;
	sv->user = l;
	relay_init(&l->relay, sv, &s->conn, &relay_ops);
	l->copy_in = l->unsynced = l->ran = l->lost = l->need_sync = l->said_fatal = l->answers_begin = l->own_failed = l->query_ignored = l->in_block = l->wrote = false;
	wbuf_clear(&l->saved);
	l->flushed = false;
	names_clear(&l->prepared, NULL); /* it is another server than before */
	/* A role's name may be another role's since. */
	uint64_t epoch = fleet_ddl_epoch(s->env->tenants.fleet);
	if (sv->has.role && sv->has.role_epoch != epoch)
		sv->has.settings = UINT64_MAX;
	sv->has.role_epoch = epoch;
	if (sv->has.settings != s->settings_hash) {
		send_link(l);
		return RC_AGAIN;
	}
	return RC_OK;
}

enum rc
leg_attach(struct session *s, int shard, int number, struct diag *d)
{
	struct leg *l = s->leg;
	struct server *sv;
	assert(!l->server && !l->waiter.pool);
	if (l->failed) {
		l->failed = false;
		*d = *l->failure;
		return RC_FAIL;
	}
	l->shard = shard;
	l->number = number;
	if (pool_acquire(s->replication ? replication_pool(s) : tenant_pool(s->tenant, shard, number), &l->waiter, &sv) == RC_OK)
		return take_server(l, sv);
	int64_t ms = s->tenant->db->set.query_wait_timeout_ms;
	if (ms > 0) {
		ev_timer_set(&s->timer, (double)ms / 1000., 0.);
		ev_timer_start(s->env->loop->ev, &s->timer);
	}
	return RC_AGAIN;
}

static void
go_on(struct session *s)
{
	if (s->state == SESSION_WELCOME)
		login_welcome(s);
	if (s->fan)
		fan_continue(s);
	session_process(s);
}

static void
on_waiter_ready(struct pool_waiter *w, enum rc rc, struct server *sv, const struct diag *d)
{
	struct leg *l = container_of(w, struct leg, waiter);
	struct session *s = session_checked(l->session);
	if (rc == RC_OK) {
		tenant_server_ok(s->tenant, l->shard, l->number);
		if (take_server(l, sv) == RC_OK)
			go_on(s);
		return;
	}
	ev_timer_stop(s->env->loop->ev, &s->timer);
	if (!s->replication) /* its user may not replicate: that says nothing of the server */
		tenant_server_failed(s->tenant, l->shard, l->number, session_now_ms(s));
	if (l->number == 0) {
		*leg_failed(l) = *d;
		diag_hint(l->failure, "Is the server %s up, and may this user log in there?",
		    s->tenant->db->shards[l->shard].servers[l->number].label);
	}
	go_on(s); /* a read chooses another server */
}

void
leg_wait_timeout(struct session *s)
{
	struct leg *l = s->leg;
	if (!l->waiter.pool)
		return;
	pool_cancel(&l->waiter);
	diag_set(leg_failed(l), SQLSTATE_TOO_MANY_CONNECTIONS, "no server connection was free within query_wait_timeout");
	diag_hint(l->failure, "Raise default_pool_size, or look for clients that keep transactions open.");
	go_on(s);
}

void
leg_cancel_wait(struct session *s)
{
	pool_cancel(&s->leg->waiter);
	ev_timer_stop(s->env->loop->ev, &s->timer);
}

/* --- the relay's side --- */

static struct session *
session_of(struct relay *r)
{
	return container_of(r, struct leg, relay)->session;
}

static void
on_ended(struct relay *r, const struct reply *e, enum reply_end end)
{
	struct leg *l = container_of(r, struct leg, relay);
	if (e->ref == restore_mark || e->ref == audit_mark)
		return;
	if (end == REPLY_FAILED && e->action == REPLY_SKIP && e->kind != REPLY_QUERY && e->kind != REPLY_SYNC)
		l->own_failed = true;
	if (e->ref == begin_mark) {
		if (end == REPLY_FAILED)
			l->answers_begin = true;
		return;
	}
	switch (e->kind) {
	case REPLY_PARSE:
		stmt_name_ended(l, e->ref, end, e->action != REPLY_FAKE);
		break;
	case REPLY_CLOSE:
		if (e->ref)
			stmt_name_ended(l, e->ref, end, true);
		else if (end != REPLY_DONE && e->action == REPLY_SKIP && l->server)
			l->server->has.unclean = true; /* it still holds what it should have closed */
		break;
	case REPLY_DESCRIBE_STATEMENT:
	case REPLY_DESCRIBE_PORTAL:
		stmt_unref(e->ref);
		break;
	case REPLY_EXECUTE:
		if (e->action == REPLY_FAKE)
			stmt_name_ended(l, e->ref, end, true);
		else
			effect_free(e->ref);
		break;
	case REPLY_QUERY:
		effect_free(e->ref);
		l->query_ignored |= end == REPLY_IGNORED;
		break;
	default:
		break;
	}
}

static void
on_fake(struct relay *r, const struct reply *e, struct wbuf *out)
{
	struct leg *l = container_of(r, struct leg, relay);
	switch (e->kind) {
	case REPLY_CLOSE:
		wbuf_bytes(out, MSG_CLOSE_COMPLETE.p, MSG_CLOSE_COMPLETE.n);
		break;
	case REPLY_EXECUTE:
		msg_put_command_complete(out, "DEALLOCATE");
		break;
	default:
		wbuf_bytes(out, MSG_PARSE_COMPLETE.p, MSG_PARSE_COMPLETE.n);
		break;
	}
	stmt_name_ended(l, e->ref, REPLY_DONE, false);
}

static void
on_command(struct relay *r, struct span tag)
{
	struct session *s = session_of(r);
	const struct reply *head = replies_head(&r->server->replies);
	if (head && head->ref && (head->kind == REPLY_QUERY || head->kind == REPLY_EXECUTE))
		txn_command(s, head->ref, tag);
}

/* An error may name a statement: the client knows it under a name of its own. */
static bool
rename_statement(struct session *s, const struct wire_msg *m, struct wbuf *w)
{
	struct span message, name = SPAN_NONE;
	const char *at = msg_error_field(m, 'M', &message) ? memmem(message.p, message.n, STMT_NAME_PREFIX, sizeof STMT_NAME_PREFIX - 1) : NULL;
	if (!at || (size_t)(message.p + message.n - at) < STMT_NAME_BYTES - 1 || !stmt_client_name(s, at, &name))
		return false;
	const char *body = (const char *)m->body, *rest = at + STMT_NAME_BYTES - 1;
	wbuf_begin(w, 'E');
	wbuf_bytes(w, body, (size_t)(at - body));
	wbuf_span(w, name);
	wbuf_bytes(w, rest, (size_t)(body + m->len - rest));
	wbuf_end(w);
	return true;
}

/* Whether the client is told of an ErrorResponse to *e*. */
static bool
is_for_client(const struct reply *e)
{
	/* A statement of the client's that is made on this server at its first use: it has become bad since. */
	if (!e || e->action != REPLY_SKIP || e->kind == REPLY_SYNC) /* a commit may fail at pgspan's Sync as at the client's */
		return true;
	return e->kind == REPLY_PARSE && e->ref && !leg_is_begin(e->ref);
}

static bool
on_error(struct relay *r, const struct wire_msg *m, const struct reply *e, struct wbuf *instead)
{
	struct leg *l = container_of(r, struct leg, relay);
	struct session *s = l->session;
	struct span severity;
	bool fatal = msg_error_field(m, 'V', &severity) && !span_eq_str(severity, "ERROR");
	s->failed_now = true;
	/* The client's Query was ignored with what pgspan had put before it: the client sends no Sync. */
	if (l->own_failed && l->query_ignored)
		l->need_sync = true;
	l->copy_in = l->own_failed = l->query_ignored = false;
	if (l->linking) {
		/* In the session's state WELCOME a setting of the start-up packet is bad; later, one that was good has become bad. */
		struct span code, message, hint;
		struct diag *why = leg_failed(l);
		char state[6] = "XX000";
		if (msg_error_field(m, 'C', &code) && code.n == 5)
			memcpy(state, code.p, 5);
		if (msg_error_field(m, 'M', &message))
			diag_set(why, state, "%.*s", (int)message.n, message.p);
		if (msg_error_field(m, 'H', &hint))
			diag_hint(why, "%.*s", (int)hint.n, hint.p);
		return false;
	}
	if (fatal) {
		if (!e && s->tx == TX_IDLE && s->pins == 0 && !l->unsynced && !r->server->replies.skipping)
			return false; /* it ends while it does nothing for us: that costs nobody anything */
		if (l->saved.n > 0 && !r->forwarded)
			return false; /* the read will run elsewhere */
		l->said_fatal = true;
		return true;
	}
	if (s->cut)
		s->skip_to_sync = true; /* the Sync behind it was pgspan's own */
	if (l->answers_begin) {
		l->answers_begin = false;
		l->in_block = false;
		if (leg_count(s) == 1) {
			s->tx = TX_IDLE;
			txn_forget_held(s);
		}
		return true;
	}
	struct span code, message;
	if (msg_error_field(m, 'C', &code) && span_eq_str(code, SQLSTATE_FEATURE_NOT_SUPPORTED) && msg_error_field(m, 'M', &message) &&
	    span_eq_str(message, "cached plan must not change result type"))
		fleet_ddl_seen(s->env->tenants.fleet); /* somebody has changed a table behind our back */
	return is_for_client(e) && !rename_statement(s, m, instead);
}

static bool
on_parameter(struct relay *r, const struct wire_msg *m, bool mine)
{
	struct leg *l = container_of(r, struct leg, relay);
	const struct reply *head = replies_head(&r->server->replies);
	server_note_parameter(r->server, m);
	if (l->session->state == SESSION_WELCOME)
		return false; /* told at its end */
	return !mine || (head && head->ref == restore_mark); /* what linking brings about the client knows already */
}

/* Clients tell their own notifications by the process ID, which they know from BackendKeyData; others' where it is known. */
static bool
on_notification(struct relay *r, const struct wire_msg *m, struct wbuf *instead)
{
	struct leg *l = container_of(r, struct leg, relay);
	uint32_t pid = m->len < 4 ? 0 : wire_load_u32(m->body);
	uint32_t client = pid == server_pid(r->server) ? session_pid(l->session) : owners_get(label_of(l), pid);
	if (client == 0)
		return true;
	wbuf_begin(instead, 'A');
	wbuf_u32(instead, client);
	wbuf_bytes(instead, m->body + 4, m->len - 4);
	wbuf_end(instead);
	return false;
}

static void
on_own_row(struct relay *r, const struct wire_msg *m)
{
	struct leg *l = container_of(r, struct leg, relay);
	const struct reply *head = replies_head(&r->server->replies);
	if (head && head->ref == audit_mark)
		pins_audited(l->session, m);
}

static void
on_description(struct relay *r, const struct wire_msg *m, const struct reply *e)
{
	(void)r;
	stmt_described(e->ref, m, e->action == REPLY_SKIP);
}

static void
on_copy_in(struct relay *r)
{
	struct leg *l = container_of(r, struct leg, relay);
	l->copy_in = true;
	replies_copy_in(&r->server->replies);
}

static void
send_own(struct leg *l, const char *sql, void *mark)
{
	struct wbuf w = {0};
	msg_put_query(&w, span_str(sql));
	conn_send_copy(&l->server->conn, w.p, w.n);
	wbuf_fini(&w);
	replies_push(&l->server->replies, REPLY_QUERY, REPLY_SKIP, mark);
	l->server->has.unnamed = (struct stmt_id){0, 0};
	(void)conn_flush(&l->server->conn); /* if it broke, input tells */
}

static void
send_restore(struct leg *l, void *sql)
{
	send_own(l, sql, restore_mark);
}

/* A RESET that was rolled back, or a DISCARD that was not: what the server has is made sure of when it is linked next. */
static void
note_unknown_settings(struct leg *l, void *arg)
{
	(void)arg;
	l->server->has.settings = UINT64_MAX;
}

void
leg_restore_in_batch(struct leg *l)
{
	struct session *s = l->session;
	if (!s->restore || s->restored || !l->unsynced || !l->server || l->server->replies.skipping)
		return;
	/* A portal of its own: the client's unnamed one may be in use. */
	inject(l, span_str(s->restore), SPAN_LIT("pgspan"), restore_mark);
	s->restored = true;
	if (!s->discards) {
		free(s->restore);
		s->restore = NULL;
	}
}

bool
leg_restore(struct session *s, bool ok)
{
	char *sql = s->restore;
	bool due = sql && (ok ? !s->restored : s->discards);
	if (due)
		leg_each(s, send_restore, sql);
	else if (sql && !ok)
		leg_each(s, note_unknown_settings, NULL);
	s->restore = NULL;
	s->restored = s->discards = false;
	free(sql);
	return due;
}

static bool
on_ready(struct relay *r, char status, bool mine)
{
	struct leg *l = container_of(r, struct leg, relay);
	struct session *s = l->session;
	l->copy_in = false;
	if (l->linking && replies_empty(&r->server->replies)) {
		l->linking = false;
		s->failed_now = false;
		if (!l->failed)
			r->server->has.settings = s->settings_hash;
		return false;
	}
	if (mine) {
		bool shown = l->withheld;
		l->withheld = false;
		return shown;
	}
	bool ok = status != 'E' && !s->failed_now;
	txn_ready(s, status);
	/* The client hears of the end of its RESET when what it goes back to has been made, the parameters' report included. */
	bool last = replies_empty(&r->server->replies);
	l->withheld = leg_restore(s, ok) && last;
	const char *audit = status == 'I' && last ? pins_audit(s) : NULL;
	if (audit)
		send_own(l, audit, audit_mark);
	return !l->withheld;
}

static const struct relay_ops relay_ops = {on_ended, on_fake, on_command, on_error, on_parameter, on_notification, on_own_row, on_description, on_copy_in, on_ready};

/* --- giving back --- */

static void
note_dropped(void *relay, const struct reply *e, enum reply_end end)
{
	on_ended(relay, e, end);
}

/* The entries that will never be answered. */
static void
drop_replies(struct leg *l)
{
	replies_end_all(&l->server->replies, note_dropped, &l->relay);
}

static void
lost(struct leg *l)
{
	struct session *s = l->session;
	bool was_linking = l->linking, again = l->saved.n > 0 && !l->relay.forwarded && s->tx == TX_IDLE;
	bool idle = replies_empty(&l->server->replies) && s->tx == TX_IDLE && !l->in_block && s->pins == 0 && !l->unsynced && !l->server->replies.skipping;
	bool said = l->said_fatal;
	int number = l->number;
	drop_replies(l);
	pool_discard(l->server);
	leg_forget_server(l);
	if (again) {
		log_info("a replica was lost before it answered: its statement runs elsewhere");
		tenant_server_failed(s->tenant, l->shard, number, session_now_ms(s));
		buf_prepend(&s->env->loop->bufs, &s->conn.rx, l->saved.p, l->saved.n);
		wbuf_clear(&l->saved);
		return;
	}
	wbuf_clear(&l->saved);
	if (idle || was_linking)
		return;
	if (said) {
		session_close(s, "the server ended the connection");
		return;
	}
	struct diag d;
	diag_clear(&d);
	diag_set(&d, SQLSTATE_CONNECTION_FAILURE, "the server closed the connection while it was in use");
	diag_detail(&d, "Server %s. Whether the last statement took effect is not known.", s->tenant->db->shards[l->shard].servers[number].label);
	session_fatal(s, &d);
}

static bool
may_release(const struct leg *l)
{
	const struct session *s = l->session;
	return is_quiet(l) && l->server->tx_status == 'I' && s->tx == TX_IDLE && !l->linking && !l->copy_in && !l->unsynced &&
	    l->server->cancels == 0 && s->stream_left == 0 && s->pins == 0 && s->tenant->db->set.pool_mode != POOL_MODE_SESSION &&
	    s->state == SESSION_READY && !s->replication;
}

static void
settle(struct leg *l, void *arg)
{
	struct session *s = l->session;
	(void)arg;
	if (s->state == SESSION_CLOSED || l->fan)
		return;
	if (l->lost) {
		lost(l);
		return;
	}
	if (l->need_sync) {
		l->need_sync = false;
		l->unsynced = false;
		conn_send_copy(&l->server->conn, MSG_SYNC.p, MSG_SYNC.n);
		replies_push(&l->server->replies, REPLY_SYNC, REPLY_FORWARD, NULL);
		if (conn_flush(&l->server->conn) == RC_FAIL)
			l->lost = true;
	}
	if (l->failed && !l->linking && is_quiet(l)) {
		/* The settings could not be made. */
		struct server *sv = l->server;
		leg_forget_server(l);
		sv->has.settings = UINT64_MAX;
		janitor_take(sv, true);
		return;
	}
	if (may_release(l)) {
		struct server *sv = l->server;
		leg_forget_server(l);
		wbuf_clear(&l->saved);
		if (sv->has.unclean)
			janitor_take(sv, true);
		else
			pool_release(sv);
	}
}

void
leg_settle(struct session *s)
{
	if (s->state == SESSION_CLOSED)
		return;
	if (!s->by_shard) {
		if (s->leg->server)
			settle(s->leg, NULL);
		return;
	}
	leg_each(s, settle, NULL);
}

/* The relay has run. A statement that has waited for its server to be linked is sent before the server may be given back: whoever
 * waits next would have to link it anew, give it back in turn, and nobody's statement would ever run. */
static void
after_relay(struct leg *l, bool was_linking, bool always)
{
	struct session *s = l->session;
	bool linked = was_linking && !l->linking && !l->failed && !l->lost;
	if (!linked)
		leg_settle(s);
	if (s->state == SESSION_CLOSED)
		return;
	/* A lost read's messages are in the input again by now. */
	if (always || s->state == SESSION_WELCOME || s->fan || buf_len(&s->conn.rx) > 0 || s->conn.eof || s->leaving)
		go_on(s);
	else if (linked)
		leg_settle(s);
}

void
leg_resume(struct session *s)
{
	struct leg *l = s->leg;
	struct server *sv = l->server;
	if (s->fan) {
		fan_drained(s);
		return;
	}
	if (!sv)
		return;
	bool linking = l->linking;
	enum rc rc = relay_run(&l->relay);
	if (rc == RC_AGAIN)
		return;
	if (rc == RC_FAIL || ((sv->conn.eof || sv->conn.broken)))
		l->lost = true;
	else
		conn_read_start(&sv->conn);
	after_relay(l, linking, !ev_is_active(&s->conn.rio));
}

static void
on_input(struct server *sv)
{
	struct leg *l = sv->user;
	(void)session_checked(l->session);
	if (l->fan) {
		fan_input(l);
		return;
	}
	bool linking = l->linking;
	enum rc rc = relay_run(&l->relay);
	if (rc == RC_AGAIN) {
		conn_read_stop(&sv->conn); /* until the client has taken what there is */
		return;
	}
	if (rc == RC_FAIL || sv->conn.eof || sv->conn.broken)
		l->lost = true;
	after_relay(l, linking, false);
}

static void
on_drained(struct server *sv)
{
	struct leg *l = sv->user;
	session_process(session_checked(l->session));
}

static void
on_open(struct server *sv, enum rc rc, const struct diag *d)
{
	(void)sv;
	(void)rc;
	(void)d;
	abort(); /* a leg only ever gets servers that are open */
}

static const struct server_ops server_ops = {on_open, on_input, on_drained};

static void
abandon(struct leg *l, void *arg)
{
	struct session *s = l->session;
	struct server *sv = l->server;
	(void)arg;
	bool certain = is_quiet(l) && !l->linking && !l->copy_in && !l->unsynced && s->stream_left == 0 && sv->cancels == 0 &&
	    conn_tx_pending(&sv->conn) == 0 && !l->lost && !l->fan;
	bool session_mode = s->tenant->db->set.pool_mode == POOL_MODE_SESSION;
	bool discard = s->pins != 0 || session_mode;
	if (!certain && !l->lost && !replies_empty(&sv->replies))
		server_cancel(sv, NULL);
	drop_replies(l);
	if (session_mode)
		owners_set(label_of(l), server_pid(sv), 0);
	leg_forget_server(l);
	/* A session of its own is like a new one, what DISCARD ALL leaves behind included. */
	if (certain && !s->replication && !(session_mode && sv->has.used_up))
		janitor_take(sv, discard);
	else
		pool_discard(sv);
}

void
leg_abandon(struct session *s)
{
	leg_cancel_wait(s);
	fan_abandon(s);
	leg_each(s, abandon, NULL);
	for (int i = 0; s->by_shard && i < s->tenant->db->n_shards; i++) {
		if (s->by_shard[i] && s->by_shard[i] != &s->first_leg) {
			wbuf_fini(&s->by_shard[i]->saved);
			names_clear(&s->by_shard[i]->prepared, NULL);
			free(s->by_shard[i]->failure);
			free(s->by_shard[i]);
		}
	}
	free(s->by_shard);
	s->by_shard = NULL;
	s->leg = &s->first_leg;
	wbuf_fini(&s->first_leg.saved);
	names_clear(&s->first_leg.prepared, NULL);
	free(s->first_leg.failure);
	s->first_leg.failure = NULL;
}

/* The server's block, or implicit transaction, fails as the client is told that it has. */
static void
fail_one(struct leg *l, bool until_sync)
{
	struct wbuf w = {0};
	static const char text[] = "pgspan: refused";
	if (until_sync) {
		msg_put_parse(&w, SPAN_NONE, span_of(text, sizeof text - 1), NULL, 0);
		replies_push(&l->server->replies, REPLY_PARSE, REPLY_SKIP, NULL);
		l->unsynced = true;
	} else {
		msg_put_query(&w, span_of(text, sizeof text - 1));
		replies_push(&l->server->replies, REPLY_QUERY, REPLY_SKIP, NULL);
	}
	l->server->has.unnamed = (struct stmt_id){0, 0};
	conn_send_copy(&l->server->conn, w.p, w.n);
	wbuf_fini(&w);
	if (conn_flush(&l->server->conn) == RC_FAIL)
		l->lost = true;
	if (l->server->tx_status == 'T')
		l->server->tx_status = 'E';
}

static void
fail_block(struct leg *l, void *arg)
{
	struct session *s = l->session;
	bool in_group = *(bool *)arg;
	if (l->lost || l->linking)
		return;
	if (l == s->leg && in_group && l->unsynced)
		fail_one(l, true); /* the client's Sync is to come, and must not commit what was sent before */
	else if (s->tx == TX_OPEN && l->server->tx_status == 'T')
		fail_one(l, false);
}

void
leg_fail_block(struct session *s, bool in_group)
{
	if (s->tx == TX_HELD)
		s->tx = TX_HELD_FAILED;
	leg_each(s, fail_block, &in_group);
}

/* --- cancel --- */

static void
on_cancel_done(struct server *sv)
{
	struct leg *l = sv->user;
	struct session *s = session_checked(l->session);
	if (l->fan) {
		fan_input(l); /* it may have had all its answers, and have waited for this */
		return;
	}
	leg_settle(s);
	if (s->state != SESSION_CLOSED)
		session_process(s);
}

static void
cancel_one(struct leg *l, void *arg)
{
	(void)arg;
	if (!l->linking && !replies_empty(&l->server->replies))
		server_cancel(l->server, on_cancel_done);
}

void
leg_request_cancel(struct session *s)
{
	struct leg *l = s->leg;
	if (l->waiter.pool) {
		leg_cancel_wait(s);
		diag_set(leg_failed(l), SQLSTATE_QUERY_CANCELED, "canceling statement due to user request");
		go_on(s);
		return;
	}
	if (s->waits_catalog) {
		s->wait_cancelled = true;
		session_process(s);
		return;
	}
	leg_each(s, cancel_one, NULL);
}

/* A read's bytes are kept until its replica has begun to answer. */
void
leg_save(struct leg *l, struct span bytes)
{
	if (l->number == 0 || l->session->tx != TX_IDLE || l->relay.forwarded)
		return;
	if (l->saved.n + bytes.n > SAVED_MAX) {
		wbuf_clear(&l->saved);
		l->relay.forwarded = true; /* too long to be kept: as if it had been answered */
		return;
	}
	wbuf_bytes(&l->saved, bytes.p, bytes.n);
}
