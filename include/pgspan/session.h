/* SPDX-License-Identifier: BSD-2-Clause */
/* session - a client, from its first byte to its last.
 *
 * Owner: the worker.  Lives until: it closed itself, freed between two events.  Thread: its worker's. */
#ifndef PGSPAN_SESSION_H
#define PGSPAN_SESSION_H

#include "pgspan/auth_query.h"
#include "pgspan/penalty.h"
#include "pgspan/plan_cache.h"
#include "pgspan/scan.h"
#include "pgspan/tenant.h"

struct catalog;
struct session;
struct session_env;

/* What a worker gives to its sessions. */
struct session_env {
	struct loop *loop;
	struct config *cfg; /* new sessions'; a session keeps the one it began with */
	struct tenants tenants;
	struct auth_queries auth_queries;
	struct penalties *penalties; /* of all workers */
	struct plan_cache *plans;
	struct scan scan;
	struct scan inner_scan; /* of the statement behind an EXECUTE, while *scan* is the EXECUTE's */
	const unsigned char *process_key; /* 32 bytes, SCRAM's */
	int worker;
	struct dlist sessions;
	struct session **by_key; /* cancel keys: slot → session */
	uint32_t n_keys;
	uint32_t free_key;       /* head of the free slots' list, as an index; UINT32_MAX: none */
	uint32_t *next_free;
	_Atomic int *n_clients;  /* of all workers */
	bool draining;           /* no new clients; those that are idle leave */
	/* A cancel key of another worker. *held_fd* (-1: none) is to be closed once the request has been taken there. */
	void (*cancel_elsewhere)(struct session_env *env, uint32_t pid, const unsigned char key[4], int held_fd);
	/* The catalog of a database, NULL while none is loaded. Borrowed until the next loop iteration. */
	struct catalog *(*catalog)(struct session_env *env, const struct database_config *db);
	struct twophase *twophase; /* the monitor's queue of transactions that lost their session */
	/* Asks for the catalogs to be loaded anew. */
	void (*poke_catalog)(struct session_env *env);
	void *owner;
};

void session_env_init(struct session_env *env);
void session_env_fini(struct session_env *env);

/* Takes a connected, non-blocking socket. */
void session_start(struct session_env *env, int fd, bool is_unix);

/* A cancel request for a session of this worker. A wrong key, or one that runs nothing, is ignored. */
void session_cancel(struct session_env *env, uint32_t pid, const unsigned char key[4]);

/* Ends the sessions that have passed one of their time limits: to be called every second. */
void session_enforce_limits(struct session_env *env);
/* Ends idle sessions and those that have not logged in yet, and marks the others to end when their transaction does (57P01). */
void session_drain_all(struct session_env *env);
int session_count(const struct session_env *env);
/* Ends all at once. */
void session_kill_all(struct session_env *env);

#endif
