/* SPDX-License-Identifier: BSD-2-Clause */
/* pool - see pgspan/pool.h.
 *
 * Idle servers are a stack: the one used last is the warmest, those at the bottom can time out. One that says anything but a
 * parameter or a notice while it is idle, or goes away, is closed there and then, so that no session is handed a dead one.
 *
 * Between workers, all by mail (struct handover):
 *   hungry pool ── "wanted" ──► every other member: an idle server is sent at once
 *   pool_release, somebody hungry, and no waiter here or more servers here than a fair share ── the server ──► a hungry one
 *   a server closes, somebody hungry ── "wanted" ──► every other member: it may grow now */
#include "pgspan/pool.h"

#include "pgspan/fault.h"
#include "pgspan/log.h"
#include "pgspan/wire.h"

#define POOL_MAGIC 0x504f4f4cu
#define MAX_LOGINS 4           /* at a time */
#define IDLE_MESSAGE_MAX 65536 /* of a message that comes while nobody asked for any */

struct pool {
	uint32_t magic;
	struct loop *loop;
	struct pool_limit *limit;
	char *conninfo, *user, *password;
	char *replication, *application_name, *options; /* NULL: none */
	struct server_keys *keys; /* in the password's place; NULL: none */
	int64_t connect_timeout_ms, idle_timeout_ms, lifetime_ms;
	struct dlist idle, busy, connecting, waiters;
	int n_idle, n_busy, n_connecting, n_waiters;
	bool serving;         /* serve() is up the stack */
	bool rotates;         /* for tests: the server used longest ago is next, so that a client meets another each time */
	_Atomic bool hungry;  /* counted in limit->n_hungry; written by its own thread */
	ev_tstamp retired_at; /* servers opened before are not used again */
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
	pthread_mutex_destroy(&l->lock);
}

static bool
take_slot(struct pool_limit *l)
{
	int n = atomic_load(&l->n_open);
	while (n < atomic_load(&l->max))
		if (atomic_compare_exchange_weak(&l->n_open, &n, n + 1))
			return true;
	return false;
}

static bool
others_hungry(const struct pool *p)
{
	return atomic_load_explicit(&p->limit->n_hungry, memory_order_relaxed) > (int)atomic_load_explicit(&p->hungry, memory_order_relaxed);
}

/* --- handing over --- */

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
	} else {
		if (!dlist_empty(&p->idle) && others_hungry(p)) {
			s = container_of(p->idle.next, struct server, pooled.link);
			dlist_del(&s->pooled.link);
			p->n_idle--;
			pool_release(s);
		}
		grow(p);
	}
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
tell_others(struct pool *p)
{
	struct pool_limit *l = p->limit;
	pthread_mutex_lock(&l->lock);
	for (int i = 0; i < l->n_members; i++)
		if (l->members[i] != p)
			send_to(l->members[i], NULL);
	pthread_mutex_unlock(&l->lock);
}

static void
set_hungry(struct pool *p, bool hungry)
{
	if (atomic_load_explicit(&p->hungry, memory_order_relaxed) == hungry)
		return;
	atomic_store(&p->hungry, hungry);
	atomic_fetch_add(&p->limit->n_hungry, hungry ? 1 : -1);
	if (hungry)
		tell_others(p);
}

/* True if *s* is on its way to a hungry pool. */
static bool
hand_over(struct pool *p, struct server *s)
{
	struct pool_limit *l = p->limit;
	pthread_mutex_lock(&l->lock);
	int fair = atomic_load(&l->max) / (l->n_members ? l->n_members : 1);
	pthread_mutex_unlock(&l->lock);
	if (!dlist_empty(&p->waiters) && p->n_idle + p->n_busy + p->n_connecting < fair + (fair > 0))
		return false;
	struct pool *to = NULL;
	pthread_mutex_lock(&l->lock);
	for (int i = 0; i < l->n_members && !to; i++)
		if (l->members[i] != p && atomic_load(&l->members[i]->hungry))
			to = l->members[i];
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
	atomic_fetch_sub(&p->limit->n_open, 1);
	if (others_hungry(p))
		tell_others(p);
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
	if (dlist_empty(&p->waiters) && others_hungry(p) && hand_over(p, s))
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
	set_hungry(p, false);
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

static void
grow(struct pool *p)
{
	while (p->n_waiters > p->n_connecting && p->n_connecting < MAX_LOGINS) {
		if (!take_slot(p->limit)) {
			set_hungry(p, true);
			if (!take_slot(p->limit))
				return;
		}
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
		                       ? server_open_native(p->loop, p->conninfo, p->user, p->keys, p->connect_timeout_ms, &idle_ops, p)
		                       : server_open(p->loop, p->conninfo, keys, values, p->connect_timeout_ms, &idle_ops, p);
		s->pooled.pool = p;
		s->pooled.is_idle = false;
		dlist_add_tail(&p->connecting, &s->pooled.link);
		p->n_connecting++;
	}
}

/* --- what the header promises --- */

struct pool *
pool_new(struct loop *l, const struct pool_config *c, struct pool_limit *limit)
{
	struct pool *p = xcalloc(1, sizeof *p);
	p->magic = POOL_MAGIC;
	p->loop = l;
	p->limit = limit;
	p->rotates = fault_is_set("pool-rotate");
	p->conninfo = xstrdup(c->conninfo);
	p->user = c->user ? xstrdup(c->user) : NULL;
	p->password = c->password ? xstrdup(c->password) : NULL;
	p->replication = c->replication ? xstrdup(c->replication) : NULL;
	p->application_name = c->application_name ? xstrdup(c->application_name) : NULL;
	p->options = c->options ? xstrdup(c->options) : NULL;
	p->connect_timeout_ms = c->connect_timeout_ms;
	p->idle_timeout_ms = c->idle_timeout_ms;
	p->lifetime_ms = c->lifetime_ms;
	dlist_init(&p->idle);
	dlist_init(&p->busy);
	dlist_init(&p->connecting);
	dlist_init(&p->waiters);
	pthread_mutex_lock(&limit->lock);
	if (limit->n_members == POOL_MAX_MEMBERS)
		abort();
	limit->members[limit->n_members++] = p;
	pthread_mutex_unlock(&limit->lock);
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
	struct pool_limit *l = p->limit;
	assert(p->n_idle + p->n_busy + p->n_connecting + p->n_waiters == 0);
	pthread_mutex_lock(&l->lock);
	for (int i = 0; i < l->n_members; i++)
		if (l->members[i] == p)
			l->members[i--] = l->members[--l->n_members];
	pthread_mutex_unlock(&l->lock);
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
	dlist_add_tail(&p->waiters, &w->link);
	p->n_waiters++;
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
	if (--p->n_waiters == 0)
		set_hungry(p, false);
}

static bool
is_worn(const struct pool *p, const struct server *s)
{
	ev_tstamp now = ev_now(p->loop->ev);
	return s->conn.eof || s->conn.broken || s->pooled.opened_at < p->retired_at ||
	    atomic_load_explicit(&p->limit->n_open, memory_order_relaxed) > atomic_load_explicit(&p->limit->max, memory_order_relaxed) ||
	    (p->lifetime_ms > 0 && now - s->pooled.opened_at > (double)p->lifetime_ms / 1000.);
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
	if (is_worn(p, s)) {
		end_server(p, s);
		grow(p);
		return;
	}
	if (UNLIKELY(others_hungry(p)) && hand_over(p, s))
		return;
	put_idle(p, s);
}

void
pool_discard(struct server *s)
{
	struct pool *p = s->pooled.pool;
	p->n_busy--;
	end_server(p, s);
	grow(p);
}

void
pool_tidy(struct pool *p)
{
	ev_tstamp now = ev_now(p->loop->ev);
	dlist_each(n, tmp, &p->idle) {
		struct server *s = container_of(n, struct server, pooled.link);
		if (is_worn(p, s) || (p->idle_timeout_ms > 0 && now - s->pooled.idle_since > (double)p->idle_timeout_ms / 1000.)) {
			p->n_idle--;
			end_server(p, s);
		}
	}
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
pool_set_timeouts(struct pool *p, int64_t connect_ms, int64_t idle_ms, int64_t lifetime_ms)
{
	p->connect_timeout_ms = connect_ms;
	p->idle_timeout_ms = idle_ms;
	p->lifetime_ms = lifetime_ms;
}

void
pool_retire(struct pool *p)
{
	p->retired_at = ev_now(p->loop->ev) + 1e-6;
	pool_tidy(p);
}

void
pool_set_max(struct pool *p, int max)
{
	atomic_store(&p->limit->max, max);
	pool_tidy(p);
	grow(p);
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
