/* SPDX-License-Identifier: BSD-2-Clause */
/* plan_cache - see plan_cache.h. Called for every statement, so a hit is one probe of an open-addressing table
 * of entry pointers and one of the entry itself.
 *
 * The shape's hash is already uniform: its first half, mixed with the environment, is the slot; all 192 bits are
 * compared. The clock is an array of the same entries in the order they came; an evicted one's place is filled by the
 * last, so the array has no holes. Deletion shifts later entries of a probe run back: no tombstones. */
#include <xxhash.h>

#include "pgspan/plan_cache.h"

struct plan_cache {
	struct plan_entry **slots; /* mask + 1 of them, at most half used */
	size_t mask;
	struct plan_entry **clock_ring; /* n entries, room for (mask + 1) / 2 */
	size_t n, hand;
	struct plan_cache_stats stats;
};

enum { INITIAL_SLOTS = 256 };

static size_t
slot_of(const struct plan_cache *pc, const struct plan_key *k)
{
	return (k->shape[0] ^ k->env) & pc->mask;
}

static bool
key_eq(const struct plan_key *a, const struct plan_key *b)
{
	return a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1] && a->env == b->env;
}

struct plan_cache *
plan_cache_new(size_t limit_bytes)
{
	struct plan_cache *pc = xcalloc(1, sizeof(*pc));

	pc->mask = INITIAL_SLOTS - 1;
	pc->slots = xcalloc(INITIAL_SLOTS, sizeof(struct plan_entry *));
	pc->clock_ring = xcalloc(INITIAL_SLOTS / 2, sizeof(struct plan_entry *));
	pc->stats.limit_bytes = limit_bytes;
	return pc;
}

void
plan_cache_free(struct plan_cache *pc)
{
	if (pc == NULL)
		return;
	plan_cache_clear(pc);
	free(pc->slots);
	free(pc->clock_ring);
	free(pc);
}

uint64_t
plan_env_hash(const struct plan_env *env, uint64_t db_serial)
{
	uint64_t h = XXH3_64bits_withSeed(&db_serial, sizeof(db_serial),
	    (uint64_t)env->standard_conforming_strings | (uint64_t)env->has_temp_tables << 1);

	for (int i = 0; i < env->n_search_path; i++) /* with the NUL: {"ab"} is not {"a","b"} */
		h = XXH3_64bits_withSeed(env->search_path[i], strlen(env->search_path[i]) + 1, h);
	return h;
}

void
plan_entry_ref(struct plan_entry *e)
{
	e->refs++;
}

void
plan_entry_unref(struct plan_entry *e)
{
	if (e == NULL || --e->refs > 0)
		return;
	plan_free(e->plan);
	free(e);
}

static void
slot_insert(struct plan_cache *pc, struct plan_entry *e)
{
	size_t i = slot_of(pc, &e->key);

	while (pc->slots[i] != NULL)
		i = (i + 1) & pc->mask;
	pc->slots[i] = e;
}

/* Closes the gap at *i*: an entry further on moves into it unless its own slot lies behind the gap. */
static void
slot_delete(struct plan_cache *pc, size_t i)
{
	size_t gap = i;

	for (size_t j = (i + 1) & pc->mask; pc->slots[j] != NULL; j = (j + 1) & pc->mask) {
		size_t home = slot_of(pc, &pc->slots[j]->key);

		if (((j - home) & pc->mask) < ((j - gap) & pc->mask))
			continue;
		pc->slots[gap] = pc->slots[j];
		gap = j;
	}
	pc->slots[gap] = NULL;
}

static void
drop(struct plan_cache *pc, struct plan_entry *e)
{
	size_t i = slot_of(pc, &e->key);

	while (pc->slots[i] != e)
		i = (i + 1) & pc->mask;
	slot_delete(pc, i);
	pc->clock_ring[e->place] = pc->clock_ring[--pc->n];
	pc->clock_ring[e->place]->place = e->place;
	e->cached = false;
	pc->stats.bytes -= e->bytes;
	plan_entry_unref(e);
}

static struct plan_entry *
lookup(const struct plan_cache *pc, const struct plan_key *key)
{
	for (size_t i = slot_of(pc, key); pc->slots[i] != NULL; i = (i + 1) & pc->mask)
		if (key_eq(&pc->slots[i]->key, key))
			return pc->slots[i];
	return NULL;
}

struct plan_entry *
plan_cache_find(struct plan_cache *pc, const struct plan_key *key, uint64_t catalog_version)
{
	struct plan_entry *e = lookup(pc, key);

	if (UNLIKELY(e != NULL && e->plan->catalog_version != catalog_version)) {
		pc->stats.invalidations++;
		drop(pc, e);
		e = NULL;
	}
	if (e == NULL) {
		pc->stats.misses++;
		return NULL;
	}
	pc->stats.hits++;
	e->used = true;
	e->refs++;
	return e;
}

static void
evict_until(struct plan_cache *pc, size_t limit)
{
	while (pc->n > 0 && pc->stats.bytes > limit) {
		if (pc->hand >= pc->n)
			pc->hand = 0;
		struct plan_entry *e = pc->clock_ring[pc->hand];

		if (e->used) {
			e->used = false;
			pc->hand++;
			continue;
		}
		pc->stats.evictions++;
		drop(pc, e); /* the last entry comes to this place and is looked at next */
	}
}

static void
grow(struct plan_cache *pc)
{
	size_t slots = (pc->mask + 1) * 2;

	free(pc->slots);
	pc->slots = xcalloc(slots, sizeof(struct plan_entry *));
	pc->clock_ring = xrealloc(pc->clock_ring, slots / 2 * sizeof(struct plan_entry *));
	pc->mask = slots - 1;
	for (size_t i = 0; i < pc->n; i++)
		slot_insert(pc, pc->clock_ring[i]);
}

struct plan_entry *
plan_cache_put(struct plan_cache *pc, const struct plan_key *key, struct plan *plan)
{
	struct plan_entry *e = xcalloc(1, sizeof(*e));

	e->key = *key;
	e->plan = plan;
	e->bytes = sizeof(*e) + sizeof(*plan) + plan->arena.total_bytes;
	for (int i = 0; i < plan->n_parts; i++)
		e->bytes += sizeof(*plan) + plan->parts[i]->arena.total_bytes;
	e->refs = 1;
	if (!(plan->flags & PLAN_CACHEABLE) || e->bytes > pc->stats.limit_bytes)
		return e;

	struct plan_entry *old = lookup(pc, key);

	if (old != NULL)
		drop(pc, old);
	evict_until(pc, pc->stats.limit_bytes - e->bytes);
	if (pc->n == (pc->mask + 1) / 2)
		grow(pc);
	slot_insert(pc, e);
	e->place = (uint32_t)pc->n;
	pc->clock_ring[pc->n++] = e;
	e->refs++;
	e->cached = true;
	pc->stats.bytes += e->bytes;
	return e;
}

void
plan_cache_clear(struct plan_cache *pc)
{
	while (pc->n > 0)
		drop(pc, pc->clock_ring[pc->n - 1]);
}

void
plan_cache_get_stats(const struct plan_cache *pc, struct plan_cache_stats *out)
{
	*out = pc->stats;
	out->entries = pc->n;
}
