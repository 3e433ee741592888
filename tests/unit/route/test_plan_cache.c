/* link: proxy/base/mem.o proxy/base/log.o proxy/base/arena.o proxy/route/plan_cache.o */
/* SPDX-License-Identifier: BSD-2-Clause */
/* The plan cache with plans made by hand; plan_free() is this file's, to count what is freed. */
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

#include "pgspan/plan_cache.h"

static int n_freed;

void
plan_free(struct plan *p)
{
	n_freed++;
	arena_fini(&p->arena);
	free(p);
}

static struct plan *
plan_of(size_t bytes, unsigned flags, uint64_t version)
{
	struct plan *p = xcalloc(1, sizeof(*p));

	arena_init(&p->arena);
	p->arena.total_bytes = bytes; /* only counted */
	p->flags = flags;
	p->catalog_version = version;
	return p;
}

static struct plan_key
key_of(uint64_t n)
{
	return (struct plan_key){{n * 0x9E3779B97F4A7C15u, n}, 7};
}

static void
put(struct plan_cache *pc, uint64_t n, size_t bytes)
{
	struct plan_key k = key_of(n);

	plan_entry_unref(plan_cache_put(pc, &k, plan_of(bytes, PLAN_CACHEABLE, 1)));
}

static bool
has(struct plan_cache *pc, uint64_t n)
{
	struct plan_key k = key_of(n);
	struct plan_entry *e = plan_cache_find(pc, &k, 1);

	plan_entry_unref(e);
	return e != NULL;
}

static struct plan_cache_stats
stats(const struct plan_cache *pc)
{
	struct plan_cache_stats s;

	plan_cache_get_stats(pc, &s);
	return s;
}

static void
find__all_bits_of_the_key__must_be_equal(void **state)
{
	struct plan_cache *pc = plan_cache_new(1 << 20);
	struct plan_key k = {{5, 6}, 7}, other;

	(void)state;
	plan_entry_unref(plan_cache_put(pc, &k, plan_of(10, PLAN_CACHEABLE, 1)));
	struct plan_entry *e = plan_cache_find(pc, &k, 1);

	assert_non_null(e);
	plan_entry_unref(e);
	other = (struct plan_key){{5, 8}, 7};
	assert_null(plan_cache_find(pc, &other, 1));
	other = (struct plan_key){{4, 6}, 7};
	assert_null(plan_cache_find(pc, &other, 1));
	other = (struct plan_key){{5, 6}, 8};
	assert_null(plan_cache_find(pc, &other, 1));
	assert_int_equal(stats(pc).hits, 1);
	assert_int_equal(stats(pc).misses, 3);
	plan_cache_free(pc);
}

static void
put__not_cacheable_or_too_big__lives_with_its_caller_only(void **state)
{
	struct plan_cache *pc = plan_cache_new(10000);
	struct plan_key k = key_of(1);

	(void)state;
	n_freed = 0;
	struct plan_entry *a = plan_cache_put(pc, &k, plan_of(10, 0, 1));
	struct plan_entry *b = plan_cache_put(pc, &k, plan_of(10001, PLAN_CACHEABLE, 1));

	assert_false(has(pc, 1));
	assert_int_equal(n_freed, 0);
	plan_entry_unref(a);
	plan_entry_unref(b);
	assert_int_equal(n_freed, 2);
	assert_int_equal(stats(pc).bytes, 0);
	plan_cache_free(pc);
}

static void
find__other_catalog__dropped(void **state)
{
	struct plan_cache *pc = plan_cache_new(1 << 20);
	struct plan_key k = key_of(1);

	(void)state;
	n_freed = 0;
	put(pc, 1, 10);
	assert_null(plan_cache_find(pc, &k, 2));
	assert_int_equal(n_freed, 1);
	assert_int_equal(stats(pc).invalidations, 1);
	assert_int_equal(stats(pc).entries, 0);
	plan_cache_free(pc);
}

static void
find__slot_neighbour_dropped__still_found(void **state)
{
	struct plan_cache *pc = plan_cache_new(1 << 20);
	struct plan_key a = {{4, 1}, 0}, b = {{4, 2}, 0}, c = {{5, 3}, 0};

	(void)state;
	plan_entry_unref(plan_cache_put(pc, &a, plan_of(0, PLAN_CACHEABLE, 1)));
	plan_entry_unref(plan_cache_put(pc, &b, plan_of(0, PLAN_CACHEABLE, 2)));
	plan_entry_unref(plan_cache_put(pc, &c, plan_of(0, PLAN_CACHEABLE, 2)));
	assert_null(plan_cache_find(pc, &a, 2));
	struct plan_entry *eb = plan_cache_find(pc, &b, 2), *ec = plan_cache_find(pc, &c, 2);

	assert_non_null(eb);
	assert_non_null(ec);
	plan_entry_unref(eb);
	plan_entry_unref(ec);
	plan_cache_free(pc);
}

static void
put__over_the_limit__unused_go_first_and_those_in_use_survive(void **state)
{
	size_t one = sizeof(struct plan_entry) + sizeof(struct plan) + 1000;
	struct plan_cache *pc = plan_cache_new(3 * one);
	struct plan_key k = key_of(2);

	(void)state;
	n_freed = 0;
	put(pc, 1, 1000);
	put(pc, 2, 1000);
	put(pc, 3, 1000);
	assert_true(has(pc, 1)); /* used: 2 goes */
	struct plan_entry *e = plan_cache_put(pc, &(struct plan_key){{9, 9}, 9}, plan_of(1000, PLAN_CACHEABLE, 1));

	assert_true(has(pc, 1));
	assert_false(has(pc, 2));
	assert_true(has(pc, 3));
	assert_int_equal(n_freed, 1);
	assert_int_equal(stats(pc).evictions, 1);
	assert_int_equal(stats(pc).bytes, 3 * one);
	plan_cache_clear(pc);
	assert_int_equal(n_freed, 3);
	assert_false(e->cached);
	assert_int_equal(e->plan->catalog_version, 1);
	plan_entry_unref(e);
	assert_int_equal(n_freed, 4);
	assert_null(plan_cache_find(pc, &k, 1));
	plan_cache_free(pc);
}

static void
put__same_key__replaces(void **state)
{
	struct plan_cache *pc = plan_cache_new(1 << 20);

	(void)state;
	put(pc, 1, 10);
	put(pc, 1, 20);
	assert_int_equal(stats(pc).entries, 1);
	assert_int_equal(stats(pc).bytes, sizeof(struct plan_entry) + sizeof(struct plan) + 20);
	plan_cache_free(pc);
}

static void
cache__many_puts_and_evictions__stays_consistent(void **state)
{
	size_t one = sizeof(struct plan_entry) + sizeof(struct plan);
	struct plan_cache *pc = plan_cache_new(1000 * one);
	uint64_t seed = 1, found = 0;

	(void)state;
	n_freed = 0;
	for (int i = 0; i < 200000; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		/* Few distinct slots: long probe runs. */
		struct plan_key k = {{(seed >> 33) % 1500 / 8 * 3, (seed >> 33) % 1500}, 0};
		struct plan_entry *e = plan_cache_find(pc, &k, 1);

		if (e == NULL)
			e = plan_cache_put(pc, &k, plan_of(0, PLAN_CACHEABLE, 1));
		else
			found++;
		assert_true(e->key.shape[1] == k.shape[1]);
		plan_entry_unref(e);
	}
	assert_int_equal(stats(pc).entries, 1000);
	assert_int_equal(stats(pc).hits, found);
	assert_int_equal((uint64_t)n_freed, stats(pc).evictions);
	int reachable = 0;

	for (uint64_t i = 0; i < 1500; i++) {
		struct plan_key k = {{i / 8 * 3, i}, 0};
		struct plan_entry *e = plan_cache_find(pc, &k, 1);

		reachable += e != NULL;
		plan_entry_unref(e);
	}
	assert_int_equal(reachable, 1000);
	plan_cache_free(pc);
	assert_int_equal((uint64_t)n_freed, 200000 - found);
}

static void
env_hash__what_changes_meaning__changes_it(void **state)
{
	const char *const ab[] = {"ab"}, *const a_b[] = {"a", "b"};
	struct plan_env one = {.search_path = ab, .n_search_path = 1}, two = {.search_path = a_b, .n_search_path = 2};
	struct plan_env scs = one, temp = one;

	(void)state;
	scs.standard_conforming_strings = true;
	temp.has_temp_tables = true;
	assert_true(plan_env_hash(&one, 1) == plan_env_hash(&one, 1));
	assert_true(plan_env_hash(&one, 1) != plan_env_hash(&two, 1));
	assert_true(plan_env_hash(&one, 1) != plan_env_hash(&one, 2));
	assert_true(plan_env_hash(&one, 1) != plan_env_hash(&scs, 1));
	assert_true(plan_env_hash(&temp, 1) != plan_env_hash(&scs, 1));
}

static void
find__speed__printed(void **state)
{
	struct plan_cache *pc = plan_cache_new(1 << 24);
	struct timespec a, b;
	int n = 2000000;

	(void)state;
	for (uint64_t i = 0; i < 500; i++)
		put(pc, i, 100);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < n; i++)
		has(pc, (uint64_t)i % 500);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("plan_cache_find + unref: %.1f ns\n",
	    ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / n);
	assert_int_equal(stats(pc).misses, 0);
	plan_cache_free(pc);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(find__all_bits_of_the_key__must_be_equal),
	    cmocka_unit_test(put__not_cacheable_or_too_big__lives_with_its_caller_only),
	    cmocka_unit_test(find__other_catalog__dropped),
	    cmocka_unit_test(find__slot_neighbour_dropped__still_found),
	    cmocka_unit_test(put__over_the_limit__unused_go_first_and_those_in_use_survive),
	    cmocka_unit_test(put__same_key__replaces),
	    cmocka_unit_test(cache__many_puts_and_evictions__stays_consistent),
	    cmocka_unit_test(env_hash__what_changes_meaning__changes_it),
	    cmocka_unit_test(find__speed__printed),
	};

	return cmocka_run_group_tests_name("plan_cache", tests, NULL, NULL);
}
