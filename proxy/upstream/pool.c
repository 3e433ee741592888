/* SPDX-License-Identifier: BSD-2-Clause */
/* pool - see pgspan/pool.h.
 *
 * Idle servers are a stack: the one used last is the warmest, those at the bottom can time out. One that says anything but a
 * parameter or a notice while it is idle, or goes away, is closed there and then, so that no session is handed a dead one.
 *
 * Between workers, all by mail (struct handover):
 *   hungry pool ── "wanted" ──► every other member: an idle server is sent at once
 *   a server is free, and who waits in a hungry pool has come before those here ── the server ──► that pool
 *   a server closes, somebody hungry ── "wanted" ──► every other member: it may grow now
 *
 * In the wider limits (a database's, a user's) "wanted" makes a member close a server instead of sending it. */
#include "pgspan/pool.h"

#include "pgspan/fault.h"
#include "pgspan/log.h"
#include "pgspan/wire.h"

#include <limits.h>

#define POOL_MAGIC 0x504f4f4cu
#define MAX_LOGINS 4           /* at a time */
#define EVICT_PATIENCE_MS 250  /* a server is closed for another pool's waiter only if that has come so much before ours */
#define NOBODY INT64_MAX       /* head_us of a pool without waiters */
#define IDLE_MESSAGE_MAX 65536 /* of a message that comes while nobody asked for any */

struct pool {
	uint32_t magic;
	struct loop *loop;
	struct pool_limit *limits[POOL_LIMITS];
	char *conninfo, *user, *password;
	char *replication, *application_name, *options; /* NULL: none */
	struct server_keys *keys; /* in the password's place; NULL: none */
	struct pool_settings set;
	struct dlist idle, busy, connecting, waiters;
	int n_idle, n_busy, n_connecting, n_waiters;
	bool serving;         /* serve() is up the stack */
	bool rotates;         /* for tests: the server used longest ago is next, so that a client meets another each time */
	_Atomic bool hungry[POOL_LIMITS]; /* counted in n_hungry; this and the next are written by its own thread */
	_Atomic int64_t head_us;          /* when the first of the waiters came */
	bool evicts;          /* somebody is hungry in a wider limit: see evict() */
	ev_tstamp retired_at; /* servers opened before are not used again */
	ev_tstamp aged_at;    /* when one was closed for its age */
	uint64_t logins, failed_logins;
};

struct handover {
	struct mail mail;
	struct pool *to;
	struct server *server; /* NULL: one is wanted, or there is room */
};

static void grow(struct pool *p);
static void put_idle(struct pool *p, struct server *s);

/* --- the shared limit --- */

void
pool_limit_init(struct pool_limit *l, int max)
{
	memset(l, 0, sizeof *l);
	atomic_store(&l->max, max);
	pthread_mutex_init(&l->lock, NULL);
}

void
pool_limit_fini(struct pool_limit *l)
{
	assert(l->n_members == 0);
	free(l->members);
	pthread_mutex_destroy(&l->lock);
}

void
pool_own_limits_init(struct pool_own_limits *o, int max)
{
	for (int i = 0; i < POOL_LIMITS; i++) {
		pool_limit_init(&o->each[i], i == POOL_OWN ? max : 0);
		o->by_kind[i] = &o->each[i];
	}
}

void
pool_own_limits_fini(struct pool_own_limits *o)
{
	for (int i = 0; i < POOL_LIMITS; i++)
		pool_limit_fini(&o->each[i]);
}

static bool
take_slot(struct pool_limit *l, int max)
{
	int n = atomic_load(&l->n_open);
	while (n < max)
		if (atomic_compare_exchange_weak(&l->n_open, &n, n + 1))
			return true;
	return false;
}

static bool others_hungry(const struct pool *p, int i);
static bool is_behind(struct pool *p, int i);

static void
give_slots(struct pool *p, int n)
{
	while (n-- > 0)
		atomic_fetch_sub(&p->limits[n]->n_open, 1);
}

/* A place in all limits, *own_max* in its own: POOL_LIMITS, or the one that is full, or has a place that is another's. */
static int
take_slots(struct pool *p, int own_max)
{
	for (int i = 0; i < POOL_LIMITS; i++) {
		int max = i == POOL_OWN ? own_max : atomic_load(&p->limits[i]->max);
		bool limited = i == POOL_OWN || max > 0;
		bool yields = i != POOL_OWN && limited && others_hungry(p, i) && is_behind(p, i);
		if (yields || !take_slot(p->limits[i], limited ? max : INT_MAX)) {
			give_slots(p, i);
			return i;
		}
	}
	return POOL_LIMITS;
}

static bool
others_hungry(const struct pool *p, int i)
{
	return atomic_load_explicit(&p->limits[i]->n_hungry, memory_order_relaxed) >
	    (int)atomic_load_explicit(&p->hungry[i], memory_order_relaxed);
}

/* To be called whenever the first waiter may be another. */
static void
note_head(struct pool *p)
{
	int64_t us = dlist_empty(&p->waiters) ? NOBODY : (int64_t)(dlist_first(&p->waiters, struct pool_waiter, link)->since * 1e6);
	atomic_store_explicit(&p->head_us, us, memory_order_relaxed);
}

/* --- handing over --- */

static void evict(struct pool *p);
static void release_idle(struct pool *p);

static void
on_handover(struct loop *l, struct mail *m)
{
	struct handover *h = container_of(m, struct handover, mail);
	struct pool *p = h->to;
	struct server *s = h->server;
	free(h);
	if (s) {
		server_unpark(s, l);
		s->pooled.pool = p;
		put_idle(p, s);
		return;
	}
	if (!dlist_empty(&p->idle) && others_hungry(p, POOL_OWN))
		release_idle(p);
	p->evicts = true;
	evict(p);
	grow(p);
}

static void
send_to(struct pool *to, struct server *s)
{
	struct handover *h = xcalloc(1, sizeof *h);
	h->mail.fn = on_handover;
	h->to = to;
	h->server = s;
	loop_post(to->loop, &h->mail);
}

static void
tell_others(struct pool *p, int i, bool hungry_ones)
{
	struct pool_limit *l = p->limits[i];
	pthread_mutex_lock(&l->lock);
	for (int k = 0; k < l->n_members; k++)
		if (l->members[k] != p && (!hungry_ones || atomic_load(&l->members[k]->hungry[i])))
			send_to(l->members[k], NULL);
	pthread_mutex_unlock(&l->lock);
}

static void
set_hungry(struct pool *p, int i, bool hungry)
{
	if (atomic_load_explicit(&p->hungry[i], memory_order_relaxed) == hungry)
		return;
	atomic_store(&p->hungry[i], hungry);
	atomic_fetch_add(&p->limits[i]->n_hungry, hungry ? 1 : -1);
	if (hungry)
		tell_others(p, i, false);
}

static void
set_sated(struct pool *p)
{
	for (int i = 0; i < POOL_LIMITS; i++)
		set_hungry(p, i, false);
}

/* The hungry member whose first waiter came first, if that was more than *patience_us* before ours did; to be called with the
 * limit's lock. */
static struct pool *
who_came_before(struct pool *p, int i, int64_t patience_us)
{
	struct pool_limit *l = p->limits[i];
	struct pool *first = NULL;
	int64_t first_us = atomic_load_explicit(&p->head_us, memory_order_relaxed) - patience_us;
	for (int k = 0; k < l->n_members; k++) {
		struct pool *q = l->members[k];
		int64_t us = atomic_load_explicit(&q->head_us, memory_order_relaxed);
		if (q != p && us < first_us && atomic_load_explicit(&q->hungry[i], memory_order_relaxed)) {
			first = q;
			first_us = us;
		}
	}
	return first;
}

/* Whether in a wider limit somebody has waited for so much longer that we stand back. */
static bool
is_behind(struct pool *p, int i)
{
	struct pool_limit *l = p->limits[i];
	pthread_mutex_lock(&l->lock);
	bool behind = who_came_before(p, i, EVICT_PATIENCE_MS * 1000) != NULL;
	pthread_mutex_unlock(&l->lock);
	return behind;
}

/* True if *s* is on its way to a hungry pool. */
static bool
hand_over(struct pool *p, struct server *s)
{
	struct pool_limit *l = p->limits[POOL_OWN];
	pthread_mutex_lock(&l->lock);
	struct pool *to = who_came_before(p, POOL_OWN, POOL_PATIENCE_MS * 1000);
	if (to) {
		server_park(s);
		send_to(to, s);
	}
	pthread_mutex_unlock(&l->lock);
	if (to)
		grow(p); /* there may be nobody left here who keeps the waiters going */
	return to != NULL;
}

/* --- servers --- */

/* The server leaves the pool and the process. */
static void
end_server(struct pool *p, struct server *s)
{
	dlist_del(&s->pooled.link);
	server_close(s);
	give_slots(p, POOL_LIMITS);
	for (int i = 0; i < POOL_LIMITS; i++)
		if (others_hungry(p, i))
			tell_others(p, i, true);
}

/* Whether a server of ours must go, for a pool of another user or database. */
static bool
is_owed(struct pool *p)
{
	bool hungry = false;
	for (int i = POOL_OWN + 1; i < POOL_LIMITS; i++) {
		struct pool_limit *l = p->limits[i];
		int max = atomic_load(&l->max);
		if (!others_hungry(p, i))
			continue;
		hungry = true;
		if (max == 0 || atomic_load(&l->n_open) < max)
			continue; /* there is room by now */
		if (is_behind(p, i))
			return true;
	}
	p->evicts = hungry;
	return false;
}

/* Closes the idle servers that others need more: those used longest ago first. */
static void
evict(struct pool *p)
{
	while (p->evicts && !dlist_empty(&p->idle) && is_owed(p)) {
		p->n_idle--;
		end_server(p, container_of(p->idle.prev, struct server, pooled.link));
	}
}

static void
on_idle_input(struct server *s)
{
	struct pool *p = s->pooled.pool;
	assert(s->pooled.is_idle);
	bool ok = !s->conn.eof && !s->conn.broken;
	while (ok) {
		struct wire_msg m;
		struct span rx = conn_rx(&s->conn);
		enum wire_result r = wire_take(rx.p, rx.n, IDLE_MESSAGE_MAX, &m);
		if (r == WIRE_NEED_MORE)
			return;
		ok = r == WIRE_OK && (m.type == 'S' || m.type == 'N');
		if (ok)
			conn_rx_consume(&s->conn, m.len + WIRE_HEAD_BYTES);
	}
	log_info("an idle server connection has ended");
	p->n_idle--;
	end_server(p, s);
	grow(p);
}

static void
on_idle_drained(struct server *s)
{
	(void)s;
}

static void on_open(struct server *s, enum rc rc, const struct diag *d);

static const struct server_ops idle_ops = {on_open, on_idle_input, on_idle_drained};

static struct server *
next_idle(struct pool *p)
{
	return container_of(p->rotates ? p->idle.prev : p->idle.next, struct server, pooled.link);
}

/* Idle servers to those who wait, first come first served. A waiter may give its server back at once, which comes here again:
 * the outermost call goes on with it, lest thousands of them in a row nest on the stack. */
static void
serve(struct pool *p)
{
	if (p->serving)
		return;
	p->serving = true;
	while (!dlist_empty(&p->idle) && !dlist_empty(&p->waiters)) {
		struct server *s = next_idle(p);
		struct pool_waiter *w = dlist_first(&p->waiters, struct pool_waiter, link);
		dlist_del(&s->pooled.link);
		p->n_idle--;
		pool_cancel(w);
		s->pooled.is_idle = false;
		dlist_add_head(&p->busy, &s->pooled.link);
		p->n_busy++;
		w->on_ready(w, RC_OK, s, NULL);
	}
	p->serving = false;
}

static void
put_idle(struct pool *p, struct server *s)
{
	s->ops = &idle_ops;
	s->user = p;
	if (UNLIKELY(others_hungry(p, POOL_OWN)) && hand_over(p, s))
		return;
	s->pooled.is_idle = true;
	s->pooled.idle_since = ev_now(p->loop->ev);
	dlist_add_head(&p->idle, &s->pooled.link);
	p->n_idle++;
	serve(p);
}

/* Nobody is left to serve those who wait: they are told why. */
static void
fail_waiters(struct pool *p, const struct diag *d)
{
	struct dlist all;
	dlist_init(&all);
	while (!dlist_empty(&p->waiters)) {
		struct dlist *n = p->waiters.next;
		dlist_del(n);
		dlist_add_tail(&all, n);
	}
	p->n_waiters = 0;
	note_head(p);
	set_sated(p);
	while (!dlist_empty(&all)) {
		struct pool_waiter *w = dlist_first(&all, struct pool_waiter, link);
		dlist_del(&w->link);
		w->pool = NULL;
		w->on_ready(w, RC_FAIL, NULL, d);
	}
}

static void
on_open(struct server *s, enum rc rc, const struct diag *d)
{
	struct pool *p = s->pooled.pool;
	dlist_del(&s->pooled.link);
	p->n_connecting--;
	if (rc == RC_OK) {
		p->logins++;
		s->pooled.opened_at = ev_now(p->loop->ev);
		tcp_tune(s->conn.fd, &p->set.tcp);
		put_idle(p, s);
		return;
	}
	p->failed_logins++;
	struct diag why = *d;
	end_server(p, s);
	log_warning("cannot log in to a server as %s: %s", p->user ? p->user : "(its own user)", why.message);
	/* A server that is full (53300) is no reason to give up while connections of ours to it live. */
	if (p->n_connecting == 0 && p->n_busy == 0 && p->n_idle == 0)
		fail_waiters(p, &why);
}

/* For a place that has been taken. */
static void
open_server(struct pool *p)
{
	const char *keys[6] = {NULL}, *values[6] = {NULL};
	int n = 0;
	if (p->user) {
		keys[n] = "user";
		values[n++] = p->user;
	}
	if (p->password) {
		keys[n] = "password";
		values[n++] = p->password;
	}
	const char *const more[][2] = {{"replication", p->replication}, {"application_name", p->application_name}, {"options", p->options}};
	for (size_t i = 0; i < ARRAY_LEN(more); i++) {
		if (!more[i][1])
			continue;
		keys[n] = more[i][0];
		values[n++] = more[i][1];
	}
	struct server *s = p->keys && p->user && !p->password
	                       ? server_open_native(p->loop, p->conninfo, p->user, p->keys, p->set.connect_timeout_ms, &idle_ops, p)
	                       : server_open(p->loop, p->conninfo, keys, values, p->set.connect_timeout_ms, &idle_ops, p);
	s->pooled.pool = p;
	s->pooled.is_idle = false;
	dlist_add_tail(&p->connecting, &s->pooled.link);
	p->n_connecting++;
}

/* How many servers there may be now: the reserve is for those who have waited long. */
static int
size_now(const struct pool *p)
{
	int max = atomic_load(&p->limits[POOL_OWN]->max);
	if (p->set.reserve == 0 || dlist_empty(&p->waiters))
		return max;
	ev_tstamp since = dlist_first(&p->waiters, struct pool_waiter, link)->since;
	return (ev_now(p->loop->ev) - since) * 1000. >= (double)p->set.reserve_timeout_ms ? max + p->set.reserve : max;
}

/* The pool is hungry because of that limit; one more server of its own kind would do, too. True: it was not until now. */
static bool
note_full(struct pool *p, int full)
{
	bool news = !atomic_load(&p->hungry[full]);
	for (int i = 0; i < POOL_LIMITS; i++)
		set_hungry(p, i, i == full || i == POOL_OWN);
	return news;
}

static void
grow(struct pool *p)
{
	while (p->n_waiters > p->n_connecting && p->n_connecting < MAX_LOGINS) {
		int full = take_slots(p, size_now(p));
		if (full == POOL_LIMITS)
			open_server(p);
		else if (!note_full(p, full))
			return; /* else once more: a place may have become free before we said that we want one */
	}
}

/* --- what the header promises --- */

struct pool *
pool_new(struct loop *l, const struct pool_config *c, struct pool_limit *const *limits)
{
	struct pool *p = xcalloc(1, sizeof *p);
	p->magic = POOL_MAGIC;
	p->loop = l;
	p->rotates = fault_is_set("pool-rotate");
	p->conninfo = xstrdup(c->conninfo);
	p->user = c->user ? xstrdup(c->user) : NULL;
	p->password = c->password ? xstrdup(c->password) : NULL;
	p->replication = c->replication ? xstrdup(c->replication) : NULL;
	p->application_name = c->application_name ? xstrdup(c->application_name) : NULL;
	p->options = c->options ? xstrdup(c->options) : NULL;
	p->set = c->set;
	dlist_init(&p->idle);
	dlist_init(&p->busy);
	dlist_init(&p->connecting);
	dlist_init(&p->waiters);
	note_head(p);
	for (int i = 0; i < POOL_LIMITS; i++) {
		struct pool_limit *shared = p->limits[i] = limits[i];
		pthread_mutex_lock(&shared->lock);
		shared->members = xrealloc(shared->members, (size_t)(shared->n_members + 1) * sizeof(struct pool *));
		shared->members[shared->n_members++] = p;
		pthread_mutex_unlock(&shared->lock);
	}
	return p;
}

void
pool_close(struct pool *p)
{
	assert(dlist_empty(&p->waiters));
	/* Busy ones are the janitor's: their clients are gone. */
	dlist_each(n, tmp, &p->busy)
		end_server(p, container_of(n, struct server, pooled.link));
	p->n_busy = 0;
	dlist_each(n, tmp, &p->idle)
		end_server(p, container_of(n, struct server, pooled.link));
	dlist_each(n, tmp, &p->connecting)
		end_server(p, container_of(n, struct server, pooled.link));
	p->n_idle = p->n_connecting = 0;
}

void
pool_free(struct pool *p)
{
	assert(p->n_idle + p->n_busy + p->n_connecting + p->n_waiters == 0);
	for (int k = 0; k < POOL_LIMITS; k++) {
		struct pool_limit *l = p->limits[k];
		pthread_mutex_lock(&l->lock);
		for (int i = 0; i < l->n_members; i++)
			if (l->members[i] == p)
				l->members[i--] = l->members[--l->n_members];
		pthread_mutex_unlock(&l->lock);
	}
	free(p->conninfo);
	free(p->user);
	free(p->replication);
	free(p->application_name);
	free(p->options);
	if (p->password)
		explicit_bzero(p->password, strlen(p->password));
	free(p->password);
	if (p->keys)
		explicit_bzero(p->keys, sizeof *p->keys);
	free(p->keys);
	p->magic = 0;
	free(p);
}

enum rc
pool_acquire(struct pool *p, struct pool_waiter *w, struct server **out)
{
	assert(!w->pool);
	if (!dlist_empty(&p->idle) && dlist_empty(&p->waiters)) {
		struct server *s = next_idle(p);
		dlist_del(&s->pooled.link);
		p->n_idle--;
		s->pooled.is_idle = false;
		dlist_add_head(&p->busy, &s->pooled.link);
		p->n_busy++;
		*out = s;
		return RC_OK;
	}
	w->pool = p;
	w->since = ev_now(p->loop->ev);
	dlist_add_tail(&p->waiters, &w->link);
	if (p->n_waiters++ == 0)
		note_head(p);
	grow(p);
	return RC_AGAIN;
}

void
pool_cancel(struct pool_waiter *w)
{
	struct pool *p = w->pool;
	if (!p)
		return;
	dlist_del(&w->link);
	w->pool = NULL;
	note_head(p);
	if (--p->n_waiters == 0)
		set_sated(p);
}

/* Servers that grow old together do not go together: their closing is spread over a lifetime. */
static bool
is_old(struct pool *p, const struct server *s)
{
	ev_tstamp now = ev_now(p->loop->ev);
	double lifetime = (double)p->set.lifetime_ms / 1000.;
	if (lifetime == 0.)
		return s->pooled.used;
	if (now - s->pooled.opened_at < lifetime || now - p->aged_at < lifetime / (p->set.max > 0 ? p->set.max : 1))
		return false;
	p->aged_at = now;
	return true;
}

static bool
is_worn(struct pool *p, const struct server *s)
{
	const struct pool_limit *l = p->limits[POOL_OWN];
	return s->conn.eof || s->conn.broken || s->pooled.opened_at < p->retired_at ||
	    atomic_load_explicit(&l->n_open, memory_order_relaxed) > atomic_load_explicit(&l->max, memory_order_relaxed) + p->set.reserve ||
	    is_old(p, s);
}

void
pool_release(struct server *s)
{
	struct pool *p = s->pooled.pool;
	assert(replies_empty(&s->replies) && s->tx_status == 'I');
	if (s->pooled.link.next != &s->pooled.link) {
		dlist_del(&s->pooled.link);
		p->n_busy--;
	}
	s->pooled.used = true;
	if (is_worn(p, s) || (UNLIKELY(p->evicts) && is_owed(p))) {
		end_server(p, s);
		grow(p);
		return;
	}
	put_idle(p, s);
}

/* The server used last, as if it came back. */
static void
release_idle(struct pool *p)
{
	struct server *s = container_of(p->idle.next, struct server, pooled.link);
	dlist_del(&s->pooled.link);
	p->n_idle--;
	pool_release(s);
}

void
pool_discard(struct server *s)
{
	struct pool *p = s->pooled.pool;
	p->n_busy--;
	end_server(p, s);
	grow(p);
}

/* Whether an idle server is one too many. */
static bool
is_spare(const struct pool *p, const struct server *s)
{
	const struct pool_limit *l = p->limits[POOL_OWN];
	int n = atomic_load(&l->n_open);
	if (n > atomic_load(&l->max)) /* of the reserve */
		return true;
	return p->set.idle_timeout_ms > 0 && n > p->set.min &&
	    (ev_now(p->loop->ev) - s->pooled.idle_since) * 1000. > (double)p->set.idle_timeout_ms;
}

void
pool_tidy(struct pool *p, bool in_use)
{
	for (struct dlist *n = p->idle.prev, *prev; n != &p->idle; n = prev) {
		struct server *s = container_of(n, struct server, pooled.link);
		prev = n->prev;
		if (is_worn(p, s) || is_spare(p, s)) {
			p->n_idle--;
			end_server(p, s);
		}
	}
	evict(p);
	grow(p);
	int min = p->set.min < p->set.max ? p->set.min : p->set.max;
	while (in_use && p->retired_at == 0 && p->n_connecting < MAX_LOGINS && take_slots(p, min) == POOL_LIMITS)
		open_server(p);
}

void
pool_set_keys(struct pool *p, const struct server_keys *keys)
{
	if (keys->kind == SERVER_KEYS_NONE)
		return;
	if (!p->keys)
		p->keys = xmalloc(sizeof *p->keys);
	*p->keys = *keys;
}

void
pool_configure(struct pool *p, const struct pool_settings *set)
{
	p->set = *set;
	atomic_store(&p->limits[POOL_OWN]->max, set->max);
	pool_tidy(p, false);
}

void
pool_retire(struct pool *p)
{
	p->retired_at = ev_now(p->loop->ev) + 1e-6;
	pool_tidy(p, false);
}

struct pool_counts
pool_get_counts(const struct pool *p)
{
	return (struct pool_counts){p->n_idle, p->n_busy, p->n_connecting, p->n_waiters, p->logins, p->failed_logins};
}

struct server *
pool_any_server(struct pool *p)
{
	if (!dlist_empty(&p->idle))
		return container_of(p->idle.next, struct server, pooled.link);
	if (!dlist_empty(&p->busy))
		return container_of(p->busy.next, struct server, pooled.link);
	return NULL;
}
