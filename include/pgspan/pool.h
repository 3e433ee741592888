/* SPDX-License-Identifier: BSD-2-Clause */
/* pool - one worker's server connections to one server for one user, and the sessions that wait for one.
 *
 *   pool_acquire ──► an idle server at once
 *        └─► waiters, first come first served ◄── pool_release, a log-in that is done, a server handed over
 *
 * All workers' pools of the same (server, user) share a limit and are its members. Holds: waiters non-empty implies no
 * idle server here. A pool grows while more wait than log in and the limit allows it, several log-ins at a time. At the limit
 * a pool with waiters is *hungry*: it says so in the limit, and another that returns a server hands it over. While nobody is
 * hungry no shared line is written.
 * Owner: the worker.  Lives until: pool_free(), after all workers' loops have ended, for mail may be on its way to it.
 * Thread: its worker's; struct pool_limit is shared, see there. */
#ifndef PGSPAN_POOL_H
#define PGSPAN_POOL_H

#include "pgspan/dlist.h"
#include "pgspan/server.h"

#include <stdatomic.h>

struct pool;

#define POOL_MAX_MEMBERS 256

/* What the workers' pools of one (server, user) share.
 * Owner: whoever made it.  Lives until: its last pool is freed.  Thread: any. */
struct pool_limit {
	_Atomic int max;      /* servers of all members together: default_pool_size */
	_Atomic int n_open;   /* connecting, idle or busy; written when a server opens or closes */
	_Atomic int n_hungry; /* members that have waiters and may not grow */
	pthread_mutex_t lock; /* of members */
	struct pool *members[POOL_MAX_MEMBERS];
	int n_members;
};

void pool_limit_init(struct pool_limit *l, int max);
void pool_limit_fini(struct pool_limit *l);

struct pool_waiter {
	struct dlist link; /* in pool->waiters; dlist_init() it once */
	struct pool *pool; /* the pool it waits in; NULL: it does not */
	/* RC_OK with a server that is the waiter's now, or RC_FAIL with the reason. Never from inside pool_acquire(). */
	void (*on_ready)(struct pool_waiter *w, enum rc rc, struct server *s, const struct diag *d);
};

struct pool_config {
	const char *conninfo;         /* copied */
	const char *user, *password;  /* NULL: what conninfo says; copied */
	int64_t connect_timeout_ms, idle_timeout_ms, lifetime_ms;
	const char *replication, *application_name, *options; /* libpq's; NULL: none; copied */
};

struct pool *pool_new(struct loop *l, const struct pool_config *c, struct pool_limit *limit);
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
/* Closes what is idle for too long or too old: call it every few seconds. */
void pool_tidy(struct pool *p);
/* Closes idle servers now, and busy ones when they come back (RECONNECT, a server's role has changed). */
void pool_retire(struct pool *p);

/* What to log in with where no password is known; copied, and wiped at the end. SERVER_KEYS_NONE changes nothing. */
void pool_set_keys(struct pool *p, const struct server_keys *keys);
void pool_set_timeouts(struct pool *p, int64_t connect_ms, int64_t idle_ms, int64_t lifetime_ms);
/* Another limit: more may be opened at once; those beyond a smaller one are closed as they come back. */
void pool_set_max(struct pool *p, int max);

struct pool_counts {
	int idle, busy, connecting, waiting;
	uint64_t logins, failed_logins;
};
struct pool_counts pool_get_counts(const struct pool *p);

/* ParameterStatus values of the server that logged in last (server_version, …): NULL before the first. Valid until the
 * next loop iteration. */
struct server *pool_any_server(struct pool *p);

#endif
