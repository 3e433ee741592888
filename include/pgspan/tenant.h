/* SPDX-License-Identifier: BSD-2-Clause */
/* tenant - one (database, user) on one worker: its pools, one for each server, and what is known of the servers.
 *
 * struct fleet is the process's side: for each (server, user) the limit that all workers' pools share, and for each server
 * whether it answers. Owner of tenants: the worker; of the fleet: the process.  Thread: tenants their worker's, fleet any. */
#ifndef PGSPAN_TENANT_H
#define PGSPAN_TENANT_H

#include "pgspan/config.h"
#include "pgspan/names.h"
#include "pgspan/pool.h"

/* What is known of a server, by all workers and the monitor. */
struct server_health {
	_Atomic int64_t down_until_ms; /* loop_now_ms() before which reads avoid it; 0: it is up */
	_Atomic bool lagging;          /* a replica too far behind */
};

/* Clients that are logged in, of all workers. */
struct client_count {
	_Atomic int n;
};

struct fleet {
	pthread_mutex_t lock;
	struct names limits;  /* "o" server and user, "d" database and server, "u" user → struct pool_limit: enum pool_limit_kind */
	struct names healths; /* "label" → struct server_health */
	struct names clients; /* "d" database, "u" user → struct client_count */
	_Atomic uint64_t ddl_epoch; /* grows with each DDL that was seen */
};

/* Statements that servers have prepared before the last DDL are not to be trusted. */
static inline uint64_t
fleet_ddl_epoch(const struct fleet *f)
{
	return atomic_load_explicit(&f->ddl_epoch, memory_order_relaxed);
}

static inline void
fleet_ddl_seen(struct fleet *f)
{
	atomic_fetch_add(&f->ddl_epoch, 1);
}

void fleet_init(struct fleet *f);
/* After all tenants are gone. */
void fleet_fini(struct fleet *f);
struct server_health *fleet_health(struct fleet *f, const char *label);


struct tenant {
	struct config *cfg; /* keeps db alive */
	const struct database_config *db;
	uint64_t db_serial; /* for plan_env_hash() */
	char *user;
	char *password; /* for the servers; NULL: none is known */
	struct pool **pools; /* by shard, then server: tenant_pool() */
	struct server_health **healths;
	struct client_count *of_db, *of_user;
	int n_clients; /* this worker's */
	int *first; /* of shard i in pools */
	int n_pools;
	unsigned turn;      /* round robin over replicas */
	struct stmt_set known; /* statements that some server has prepared lately, under some settings: see group.c */
	char *parameters[SERVER_PARAMETERS]; /* as the server reported at log-in; all NULL before the first */
};

struct tenants {
	struct loop *loop;
	struct fleet *fleet;
	struct names by_name; /* "database\nuser" */
	struct tenant **retired; /* of configurations before: sessions may still use them */
	int n_retired;
};

void tenants_init(struct tenants *t, struct loop *l, struct fleet *f);
/* Closes idle servers (the loop still exists); then, when all loops have ended, frees all. */
void tenants_close(struct tenants *t);
void tenants_fini(struct tenants *t);
void tenants_tidy(struct tenants *t);
/* New sessions get tenants of this configuration; those of the one before live on until the end, with the servers that
 * their sessions hold, unless nothing of their database has changed. */
void tenants_reload(struct tenants *t, struct config *cfg);

/* The tenant of this name; made when there is none, or another password is known now. *password* may be NULL: *keys* are then
 * what new server connections log in with (copied; SERVER_KEYS_NONE: as before). */
struct tenant *tenants_get(struct tenants *t, struct config *cfg, const struct database_config *db, const char *user, const char *password,
    const struct server_keys *keys);

static inline struct pool *
tenant_pool(const struct tenant *t, int shard, int server)
{
	return t->pools[t->first[shard] + server];
}

/* One more client: false with the reason in *d* when there are too many of its database or its user. tenant_leave() undoes it. */
bool tenant_admit(struct tenant *t, struct diag *d);
void tenant_leave(struct tenant *t);

/* The server of the shard that a read should go to, 0: the primary. */
int tenant_pick_read(struct tenant *t, int shard, int64_t now_ms);
void tenant_server_failed(struct tenant *t, int shard, int server, int64_t now_ms);
void tenant_server_ok(struct tenant *t, int shard, int server);

/* Takes the parameters that a server has reported at its log-in. */
void tenant_learn(struct tenant *t, struct server *s);

#endif
