/* SPDX-License-Identifier: BSD-2-Clause */
/* plan_cache - plans by the shape of their statement and by what names mean where it runs.
 *
 * One for each worker. Bounded by the bytes of the plans' arenas; over the bound, the plans that were not asked
 * for lately go (CLOCK: second chance). A plan in use survives its eviction: the cache hands out entries, and an
 * entry lives until the cache and all users have let go of it.
 * Owner: worker.  Lives until: plan_cache_free().  Thread: its worker only. */
#ifndef PGSPAN_PLAN_CACHE_H
#define PGSPAN_PLAN_CACHE_H

#include "pgspan/plan.h"

/* What a plan is found by. Two equal keys must mean the same plan. */
struct plan_key {
	uint64_t shape[2]; /* struct scan */
	uint64_t env;      /* plan_env_hash() */
};

struct plan_entry {
	struct plan_key key;
	struct plan *plan;    /* owned; freed with the entry */
	size_t bytes;         /* counted against the cache's limit */
	int refs;             /* the cache's one included */
	bool cached;          /* still reachable by plan_cache_find() */
	bool used;            /* asked for since the clock's hand passed */
	uint32_t place;       /* in the clock */
};

struct plan_cache_stats {
	uint64_t hits, misses, evictions, invalidations;
	size_t bytes, limit_bytes;
	size_t entries;
};

struct plan_cache;

struct plan_cache *plan_cache_new(size_t limit_bytes);
/* Lets go of every entry; those in use live until their last plan_entry_unref(). */
void plan_cache_free(struct plan_cache *pc);

/* All that plan_make() read beside the text. *db_serial* differs between any two database_configs of this process
 * (after a reload too: a pointer may come again). */
uint64_t plan_env_hash(const struct plan_env *env, uint64_t db_serial);

/* The entry with a reference for the caller (plan_entry_unref()), or NULL. An entry whose plan was made with
 * another catalog than *catalog_version* is dropped and not found. */
struct plan_entry *plan_cache_find(struct plan_cache *pc, const struct plan_key *key, uint64_t catalog_version);

/* Takes *plan* and gives an entry with a reference for the caller, never NULL. It is kept for others only if
 * the plan has PLAN_CACHEABLE and fits; an older entry of that key is replaced. */
struct plan_entry *plan_cache_put(struct plan_cache *pc, const struct plan_key *key, struct plan *plan);

void plan_entry_ref(struct plan_entry *e);
void plan_entry_unref(struct plan_entry *e);

/* Forgets every plan (RELOAD, RECONNECT). */
void plan_cache_clear(struct plan_cache *pc);
void plan_cache_get_stats(const struct plan_cache *pc, struct plan_cache_stats *out);

#endif
