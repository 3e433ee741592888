/* SPDX-License-Identifier: BSD-2-Clause */
/* pool - one worker's server connections to one server for one user, and the sessions that wait for one.
 *
 *   pool_acquire ──► an idle server at once
 *        └─► waiters, first come first served ◄── pool_release, a log-in that is done, a server handed over
 *
 * All workers' pools of the same (server, user) share a limit and are its members. Holds: waiters non-empty implies no
 * idle server here. A pool grows while more wait than log in and the limits allow it, several log-ins at a time. At a limit
 * a pool with waiters is *hungry*: it says so in the limit, and another that returns a server hands it over. While nobody is
 * hungry no shared line is written.
 *
 * Who came first is served first: in one pool exactly; between workers nobody is overtaken by one that came more than
 * POOL_PATIENCE_MS later, plus the time that a mail between two loops takes.
 *
 * Two more limits are shared by more pools, which cannot use each other's servers: of a database on a server, and of a user.
 * There a hungry pool makes another close a server that is unused, or whose waiters came much later.
 * Owner: the worker.  Lives until: pool_free(), after all workers' loops have ended, for mail may be on its way to it.
 * Thread: its worker's; struct pool_limit is shared, see there. */
#ifndef PGSPAN_POOL_H
#define PGSPAN_POOL_H

#include "pgspan/dlist.h"
#include "pgspan/server.h"

#include "pgspan/tcp.h"

#include <stdatomic.h>

struct pool;

#define POOL_PATIENCE_MS 10

/* Which limits a server counts in. Only in the first do members hand servers to each other. */
enum pool_limit_kind { POOL_OWN, POOL_DATABASE, POOL_USER, POOL_LIMITS };

/* What pools share.
 * Owner: whoever made it.  Lives until: its last pool is freed.  Thread: any. */
struct pool_limit {
	_Atomic int max;      /* servers of all members together; 0: no limit, but for POOL_OWN */
	_Atomic int n_open;   /* connecting, idle or busy; written when a server opens or closes */
	_Atomic int n_hungry; /* members that have waiters and may not grow for this limit */
	pthread_mutex_t lock; /* of members */
	struct pool **members;
	int n_members;
};

void pool_limit_init(struct pool_limit *l, int max);
void pool_limit_fini(struct pool_limit *l);

/* The limits of a pool that shares none with others. */
struct pool_own_limits {
	struct pool_limit each[POOL_LIMITS];
	struct pool_limit *by_kind[POOL_LIMITS]; /* what pool_new() takes */
};

void pool_own_limits_init(struct pool_own_limits *o, int max);
void pool_own_limits_fini(struct pool_own_limits *o); /* when the pool has been freed */

struct pool_waiter {
	struct dlist link; /* in pool->waiters; dlist_init() it once */
	struct pool *pool; /* the pool it waits in; NULL: it does not */
	ev_tstamp since;
	/* RC_OK with a server that is the waiter's now, or RC_FAIL with the reason. Never from inside pool_acquire(). */
	void (*on_ready)(struct pool_waiter *w, enum rc rc, struct server *s, const struct diag *d);
};

/* What a reload may change. */
struct pool_settings {
	int max, reserve, min; /* default_pool_size, reserve_pool_size, min_pool_size */
	int64_t connect_timeout_ms, idle_timeout_ms, lifetime_ms, reserve_timeout_ms;
	struct tcp_settings tcp;
};

struct pool_config {
	const char *conninfo;         /* copied */
	const char *user, *password;  /* NULL: what conninfo says; copied */
	const char *replication, *application_name, *options; /* libpq's; NULL: none; copied */
	struct pool_settings set;
};

/* *limits*: by enum pool_limit_kind. */
struct pool *pool_new(struct loop *l, const struct pool_config *c, struct pool_limit *const *limits);
/* Closes all servers, for good: no session has one any more. Before pool_free(), while the loop still exists. */
void pool_close(struct pool *p);
void pool_free(struct pool *p);

/* RC_OK: *out is the caller's, who sets its ops and user. RC_AGAIN: *w* is queued. */
enum rc pool_acquire(struct pool *p, struct pool_waiter *w, struct server **out) WARN_UNUSED;
/* Takes a waiter off, if it waits. */
void pool_cancel(struct pool_waiter *w);
/* Gives a server back that owes nothing and is in no transaction. It may be another's when this returns. */
void pool_release(struct server *s);
/* Ends one that cannot be used again. */
void pool_discard(struct server *s);
/* Closes what is idle for too long or too old, and opens what those who have waited long, and min_pool_size, need: call it
 * every second. *in_use*: there are clients that may want a server. */
void pool_tidy(struct pool *p, bool in_use);
/* Closes idle servers now, and busy ones when they come back (RECONNECT, a server's role has changed). */
void pool_retire(struct pool *p);

/* What to log in with where no password is known; copied, and wiped at the end. SERVER_KEYS_NONE changes nothing. */
void pool_set_keys(struct pool *p, const struct server_keys *keys);
/* More may be opened at once; those beyond a smaller size are closed as they come back. */
void pool_configure(struct pool *p, const struct pool_settings *set);

struct pool_counts {
	int idle, busy, connecting, waiting;
	uint64_t logins, failed_logins;
};
struct pool_counts pool_get_counts(const struct pool *p);

/* ParameterStatus values of the server that logged in last (server_version, …): NULL before the first. Valid until the
 * next loop iteration. */
struct server *pool_any_server(struct pool *p);

#endif
