/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/base/names.o proxy/base/mem.o proxy/base/log.o proxy/upstream/stmt_set.o */
/* test_names - the maps of names and of prepared statements, held against plain arrays over many random steps. */
#include "pgspan/names.h"
#include "pgspan/stmt_set.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void
names__random_steps__as_an_array(void **state)
{
	(void)state;
	enum { N = 40 };
	void *want[N] = {NULL};
	struct names m = {NULL, 0, 0};
	unsigned seed = 7, n = 0;
	for (int step = 0; step < 20000; step++) {
		seed = seed * 1103515245u + 12345u;
		unsigned i = seed >> 16 & 0xff;
		i %= N;
		char name[16];
		size_t len = (size_t)snprintf(name, sizeof name, "s%u", i) - (i == 0) * 2; /* one of them is the empty name */
		struct span key = span_of(name, len);
		assert_ptr_equal(names_get(&m, key), want[i]);
		if (seed >> 28 & 1) {
			assert_ptr_equal(names_put(&m, key, &want[(i + (unsigned)step) % N]), want[i]);
			n += !want[i];
			want[i] = &want[(i + (unsigned)step) % N];
		} else {
			assert_ptr_equal(names_take(&m, key), want[i]);
			n -= want[i] != NULL;
			want[i] = NULL;
		}
		assert_int_equal(m.n, n);
	}
	names_clear(&m, NULL);
	assert_null(m.slots);
}

static void
stmt_id_name__is_hexadecimal(void **state)
{
	(void)state;
	char name[STMT_NAME_BYTES];
	assert_int_equal(stmt_id_name((struct stmt_id){0x1234, 0xabcdef}, name), 39);
	assert_string_equal(name, "pgspan_00000000000012340000000000abcdef");
}

static void
stmt_set_add__over_the_limit__the_one_used_longest_ago_goes(void **state)
{
	(void)state;
	struct stmt_set s = {NULL, 0, 0, 0};
	struct stmt_id gone;
	/* All in one run of the table. */
	for (uint64_t i = 0; i < 5; i++)
		assert_false(stmt_set_add(&s, (struct stmt_id){i, 3}, 5, &gone));
	assert_true(stmt_set_has(&s, (struct stmt_id){0, 3}));
	assert_true(stmt_set_add(&s, (struct stmt_id){9, 4}, 5, &gone));
	assert_int_equal(gone.hi, 1);
	assert_false(stmt_set_has(&s, (struct stmt_id){1, 3}));
	for (uint64_t i = 2; i < 5; i++)
		assert_true(stmt_set_has(&s, (struct stmt_id){i, 3}));
	assert_true(stmt_set_has(&s, (struct stmt_id){9, 4}));
	stmt_set_remove(&s, (struct stmt_id){0, 3});
	assert_false(stmt_set_has(&s, (struct stmt_id){0, 3}));
	assert_true(stmt_set_has(&s, (struct stmt_id){4, 3}));
	assert_int_equal(s.n, 4);
	stmt_set_clear(&s);
	assert_false(stmt_set_has(&s, (struct stmt_id){4, 3}));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names__random_steps__as_an_array),
	    cmocka_unit_test(stmt_id_name__is_hexadecimal),
	    cmocka_unit_test(stmt_set_add__over_the_limit__the_one_used_longest_ago_goes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
