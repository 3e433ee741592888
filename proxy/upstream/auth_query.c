/* SPDX-License-Identifier: BSD-2-Clause */
/* auth_query - see pgspan/auth_query.h.
 *
 *   ask ──► answer there, young ──► RC_OK
 *    └────► being asked ──► waiters
 *    └────► pool_acquire ──► Parse Bind Execute Sync ──► rows … ReadyForQuery ──► kept, told to the waiters
 *
 * A statement that fails, more than one row, or a row that is not (name, secret) is told in the log, and its asker fails. */
#include "pgspan/auth_query.h"

#include "pgspan/auth.h"
#include "pgspan/log.h"
#include "pgspan/msg.h"
#include "pgspan/sqlstate.h"

#include <xxhash.h>

enum {
	CONNECTIONS = 4,          /* of one source on one worker */
	ANSWERS_MAX = 10000,      /* more are forgotten, oldest first */
	NAME_MAX_BYTES = 63,      /* roles' names are not longer */
	MESSAGE_MAX_BYTES = 65536,
};
#define ANSWER_TIMEOUT_S 15.
#define YOUNG_S 1.

struct source {
	struct pool_own_limits limits;
	struct pool *pool;
};

struct answer {
	struct auth_queries *all;
	struct dlist link; /* by_age */
	struct dlist waiters;
	char *key;
	char *user, *query;
	struct userlist *found; /* NULL: nobody */
	ev_tstamp at;           /* when it came; 0: never */
	bool asking;
	bool unwanted;          /* forget it when it comes */

	/* while asking */
	struct pool_waiter waiter;
	struct server *server;
	ev_timer timer;
	int n_rows;
	struct diag failure;
};

/* ---- sources ---- */

static struct source *
source_for(struct auth_queries *q, const struct config *cfg, const struct database_config *db, const char *auth_user)
{
	const struct server_config *sc = &db->shards[0].servers[0];
	const struct auth_user *u = cfg->users ? userlist_find(cfg->users, span_str(auth_user)) : NULL;
	const char *password = u && auth_user_kind(u) == AUTH_SECRET_PLAIN ? auth_user_secret(u) : NULL;
	char key[128];
	XXH64_hash_t h = XXH3_64bits(sc->conninfo, strlen(sc->conninfo));
	h = XXH3_64bits_withSeed(auth_user, strlen(auth_user), h);
	if (password)
		h = XXH3_64bits_withSeed(password, strlen(password), h);
	int n = snprintf(key, sizeof key, "%016llx %.63s", (unsigned long long)h, auth_user);
	struct source *s = names_get(&q->sources, span_of(key, (size_t)n));
	if (s)
		return s;
	s = xcalloc(1, sizeof *s);
	pool_own_limits_init(&s->limits, CONNECTIONS);
	struct pool_config pc = {
	    .conninfo = sc->conninfo,
	    .user = auth_user,
	    .password = password,
	    .set.max = CONNECTIONS,
	    .set.connect_timeout_ms = db->set.server_connect_timeout_ms,
	    .set.idle_timeout_ms = db->set.server_idle_timeout_ms,
	    .set.lifetime_ms = db->set.server_lifetime_ms,
	    .set.tcp = cfg->tcp,
	};
	s->pool = pool_new(q->loop, &pc, s->limits.by_kind);
	names_put(&q->sources, span_of(key, (size_t)n), s);
	return s;
}

static void
close_source(void *p)
{
	pool_close(((struct source *)p)->pool);
}

static void
free_source(void *p)
{
	struct source *s = p;
	pool_free(s->pool);
	pool_own_limits_fini(&s->limits);
	free(s);
}

/* ---- answers ---- */

static void
free_answer(struct answer *a)
{
	assert(!a->asking && dlist_empty(&a->waiters));
	(void)names_take(&a->all->answers, span_str(a->key));
	dlist_del(&a->link);
	userlist_unref(a->found);
	free(a->key);
	free(a->user);
	free(a->query);
	free(a);
}

/* The answer may be gone when this returns: whom it is told may ask for others, and old ones make place for them. */
static void
finish(struct answer *a, bool clean)
{
	struct server *s = a->server;
	struct dlist all;
	bool failed = diag_is_set(&a->failure);
	struct diag why = a->failure;
	ev_timer_stop(a->all->loop->ev, &a->timer);
	a->server = NULL;
	a->asking = false;
	a->at = failed ? 0 : ev_now(a->all->loop->ev);
	if (s && clean)
		pool_release(s);
	else if (s)
		pool_discard(s);
	if (failed)
		log_warning("auth_query: \"%s\" could not be looked up: %s", a->user, why.message);
	struct userlist *found = a->found && !failed ? userlist_ref(a->found) : NULL;
	dlist_init(&all);
	dlist_each(n, tmp, &a->waiters) {
		dlist_del(n);
		dlist_add_tail(&all, n);
	}
	if (failed || a->unwanted)
		free_answer(a);
	while (!dlist_empty(&all)) {
		struct auth_ask *ask = dlist_first(&all, struct auth_ask, link);
		dlist_del(&ask->link);
		ask->waits = false;
		ask->on_answer(ask, failed ? RC_FAIL : RC_OK, found ? userlist_ref(found) : NULL, &why);
	}
	userlist_unref(found);
}

/* One row: the name that was asked for, and its secret. */
static void
take_row(struct answer *a, const struct wire_msg *m)
{
	struct msg_values it;
	struct msg_value name, secret;
	struct diag d = {0};
	if (++a->n_rows > 1) {
		diag_set(&a->failure, SQLSTATE_INVALID_AUTHORIZATION, "more than one row");
		return;
	}
	if (!msg_get_data_row(m, &it) || !msg_value_next(&it, &name) || !msg_value_next(&it, &secret)) {
		diag_set(&a->failure, SQLSTATE_INVALID_AUTHORIZATION, "the row has fewer than two columns");
		return;
	}
	if (name.is_null)
		return; /* a function that found nobody has a row, of NULLs */
	if (!span_eq_str(name.bytes, a->user)) {
		diag_set(&a->failure, SQLSTATE_INVALID_AUTHORIZATION, "the row is another user's");
		return;
	}
	if (secret.is_null || secret.bytes.n == 0)
		return;
	a->found = userlist_of(name.bytes, secret.bytes, &d);
	if (!a->found)
		diag_set(&a->failure, SQLSTATE_INVALID_AUTHORIZATION, "the secret is of no known form");
}

static void
on_server_input(struct server *s)
{
	struct answer *a = s->user;
	for (;;) {
		struct wire_msg m;
		struct span rx = conn_rx(&s->conn), text;
		enum wire_result r = wire_take(rx.p, rx.n, MESSAGE_MAX_BYTES, &m);
		if (r == WIRE_NEED_MORE && !s->conn.eof && !s->conn.broken)
			return;
		if (r != WIRE_OK) {
			diag_set(&a->failure, SQLSTATE_CONNECTION_FAILURE, r == WIRE_NEED_MORE ? "the server closed the connection" : "the server broke the protocol");
			finish(a, false);
			return;
		}
		switch (m.type) {
		case 'D':
			take_row(a, &m);
			break;
		case 'E':
			if (msg_error_field(&m, 'M', &text))
				diag_set(&a->failure, SQLSTATE_INVALID_AUTHORIZATION, "%.*s", (int)text.n, text.p);
			break;
		case 'S':
			server_note_parameter(s, &m);
			break;
		case 'Z':
			s->tx_status = m.len == 1 ? (char)m.body[0] : 'E';
			conn_rx_consume(&s->conn, m.len + WIRE_HEAD_BYTES);
			finish(a, s->tx_status == 'I' && buf_len(&s->conn.rx) == 0);
			return;
		default:
			break;
		}
		explicit_bzero((void *)(uintptr_t)m.body, m.type == 'D' ? m.len : 0); /* the buffer is used again */
		conn_rx_consume(&s->conn, m.len + WIRE_HEAD_BYTES);
	}
}

static void
on_server_drained(struct server *s)
{
	(void)s;
}

static void
send_query(struct answer *a, struct server *s)
{
	static const struct server_ops ops = {NULL, on_server_input, on_server_drained};
	struct msg_value name = {.bytes = span_str(a->user)};
	struct wbuf w = {0};
	a->server = s;
	s->ops = &ops;
	s->user = a;
	msg_put_parse(&w, SPAN_NONE, span_str(a->query), NULL, 0);
	msg_put_bind_text(&w, SPAN_NONE, SPAN_NONE, &name, 1);
	msg_put_execute(&w, SPAN_NONE, 0);
	wbuf_begin(&w, 'S');
	wbuf_end(&w);
	conn_send_copy(&s->conn, w.p, w.n);
	wbuf_fini(&w);
	(void)conn_flush(&s->conn); /* a failure is told by on_server_input */
}

static void
on_server(struct pool_waiter *w, enum rc rc, struct server *s, const struct diag *d)
{
	struct answer *a = container_of(w, struct answer, waiter);
	if (rc == RC_OK) {
		send_query(a, s);
		return;
	}
	diag_set(&a->failure, d->sqlstate, "%s", d->message);
	finish(a, false);
}

static void
on_timer(struct ev_loop *ev, ev_timer *t, int revents)
{
	struct answer *a = container_of(t, struct answer, timer);
	(void)ev;
	(void)revents;
	pool_cancel(&a->waiter);
	diag_set(&a->failure, SQLSTATE_CONNECTION_FAILURE, "no answer in time");
	finish(a, false);
}

static void
begin(struct auth_queries *q, struct answer *a, struct source *src, const char *query)
{
	struct server *s;
	free(a->query);
	a->query = xstrdup(query);
	userlist_unref(a->found);
	a->found = NULL;
	a->asking = true;
	a->unwanted = false;
	a->n_rows = 0;
	diag_clear(&a->failure);
	dlist_del(&a->link);
	dlist_add_tail(&q->by_age, &a->link);
	ev_timer_init(&a->timer, on_timer, ANSWER_TIMEOUT_S, 0.);
	ev_timer_start(q->loop->ev, &a->timer);
	if (pool_acquire(src->pool, &a->waiter, &s) == RC_OK)
		send_query(a, s);
}

static struct answer *
new_answer(struct auth_queries *q, const char *key, const char *user)
{
	/* The oldest go, but those that somebody waits for. */
	struct dlist *i = q->by_age.next;
	while (q->answers.n >= ANSWERS_MAX && i != &q->by_age) {
		struct answer *old = container_of(i, struct answer, link);
		i = i->next;
		if (!old->asking)
			free_answer(old);
	}
	struct answer *a = xcalloc(1, sizeof *a);
	a->all = q;
	a->key = xstrdup(key);
	a->user = xstrdup(user);
	a->waiter.on_ready = on_server;
	dlist_init(&a->waiter.link);
	dlist_init(&a->waiters);
	dlist_add_tail(&q->by_age, &a->link);
	names_put(&q->answers, span_str(a->key), a);
	return a;
}

/* Where the users of *database* are looked up, and how; NULL: nowhere. */
static const struct database_config *
target_of(const struct config *cfg, const char *database, const struct database_settings **set)
{
	const struct database_config *db = config_database(cfg, database);
	*set = db ? &db->set : &cfg->defaults;
	if (!*(*set)->auth_user)
		return NULL;
	return *(*set)->auth_dbname ? config_database(cfg, (*set)->auth_dbname) : db;
}

static void
key_of(char key[256], const struct database_config *db, const char *user)
{
	snprintf(key, 256, "%s\n%s", db->name, user);
}

/* ---- what the header promises ---- */

void
auth_queries_init(struct auth_queries *q, struct loop *l)
{
	memset(q, 0, sizeof *q);
	q->loop = l;
	dlist_init(&q->by_age);
}

void
auth_queries_close(struct auth_queries *q)
{
	dlist_each(n, tmp, &q->by_age) {
		struct answer *a = container_of(n, struct answer, link);
		if (a->asking) {
			pool_cancel(&a->waiter);
			if (a->server)
				pool_discard(a->server);
			a->server = NULL;
			a->asking = false;
			ev_timer_stop(q->loop->ev, &a->timer);
		}
		free_answer(a);
	}
	for (uint32_t i = 0; i < q->sources.cap; i++)
		if (q->sources.slots[i].name)
			close_source(q->sources.slots[i].value);
}

void
auth_queries_fini(struct auth_queries *q)
{
	names_clear(&q->sources, free_source);
	names_clear(&q->answers, NULL);
}

void
auth_queries_tidy(struct auth_queries *q)
{
	for (uint32_t i = 0; i < q->sources.cap; i++)
		if (q->sources.slots[i].name)
			pool_tidy(((struct source *)q->sources.slots[i].value)->pool, false);
}

void
auth_queries_forget(struct auth_queries *q)
{
	dlist_each(n, tmp, &q->by_age) {
		struct answer *a = container_of(n, struct answer, link);
		if (a->asking)
			a->unwanted = true;
		else
			free_answer(a);
	}
}

bool
auth_query_is_on(const struct config *cfg, const char *database)
{
	const struct database_settings *set;
	return target_of(cfg, database, &set) != NULL;
}

enum rc
auth_query_ask(struct auth_queries *q, const struct config *cfg, const char *database, const char *user, bool fresh,
    struct auth_ask *ask, struct userlist **found)
{
	const struct database_settings *set;
	const struct database_config *db = target_of(cfg, database, &set);
	char key[256];
	*found = NULL;
	if (!db || strlen(user) > NAME_MAX_BYTES)
		return RC_FAIL;
	key_of(key, db, user);
	struct answer *a = names_get(&q->answers, span_str(key));
	if (!a)
		a = new_answer(q, key, user);
	double age = ev_now(q->loop->ev) - a->at, most = (double)set->auth_query_cache_ms / 1000.;
	if (!a->asking && a->at > 0 && age < (fresh && most > YOUNG_S ? YOUNG_S : most)) {
		*found = a->found ? userlist_ref(a->found) : NULL;
		return RC_OK;
	}
	ask->waits = true;
	dlist_add_tail(&a->waiters, &ask->link);
	if (!a->asking)
		begin(q, a, source_for(q, cfg, db, set->auth_user), set->auth_query);
	return RC_AGAIN;
}

void
auth_query_cancel(struct auth_ask *a)
{
	if (!a->waits)
		return;
	dlist_del(&a->link);
	a->waits = false;
}

void
auth_query_doubt(struct auth_queries *q, const struct config *cfg, const char *database, const char *user)
{
	const struct database_settings *set;
	const struct database_config *db = target_of(cfg, database, &set);
	char key[256];
	if (!db || strlen(user) > NAME_MAX_BYTES)
		return;
	key_of(key, db, user);
	struct answer *a = names_get(&q->answers, span_str(key));
	if (a && !a->asking && ev_now(q->loop->ev) - a->at > YOUNG_S)
		free_answer(a);
}
