/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/upstream/twophase.o */
/* Identifiers of prepared transactions: what is written is read back, and nothing else is taken for ours. */
#include "pgspan/twophase.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void
gid_make__parts__text(void **state)
{
	(void)state;
	struct gid g = gid_make("host_6432", 0x64a1b2c3d4e5fULL, 3, 17, 2);
	assert_string_equal(g.text, "pgspan_host_6432_64a1b2c3d4e5f_3_17_2");
}

static void
gid_make__largest_parts__fit(void **state)
{
	(void)state;
	struct gid_parts p;
	struct gid g = gid_make("aaaaaaaaaaaaaaaaaaaaaaaa", UINT64_MAX, INT32_MAX, UINT64_MAX, MAX_SHARDS - 1);
	assert_string_equal(g.text, "pgspan_aaaaaaaaaaaaaaaaaaaaaaaa_ffffffffffffffff_2147483647_18446744073709551615_255");
	assert_true(gid_parse(g.text, &p));
	assert_string_equal(p.instance, "aaaaaaaaaaaaaaaaaaaaaaaa");
	assert_true(p.run == UINT64_MAX);
	assert_int_equal(p.worker, INT32_MAX);
	assert_true(p.sequence == UINT64_MAX);
	assert_int_equal(p.shard, 255);
}

static void
gid_parse__underscores_in_instance__are_its(void **state)
{
	(void)state;
	static const char *const names[] = {"a", "a_b", "_", "_a", "a_", "a__1_2_3_4_5", "1_2_3_4"};
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct gid_parts p;
		struct gid g = gid_make(names[i], 0x1f, 0, 0, 0);
		assert_true(gid_parse(g.text, &p));
		assert_string_equal(p.instance, names[i]);
		assert_true(p.run == 0x1f);
		assert_int_equal(p.worker, 0);
		assert_true(p.sequence == 0);
		assert_int_equal(p.shard, 0);
	}
}

static void
gid_parse__not_ours__refused(void **state)
{
	(void)state;
	static const char *const texts[] = {
	    "", "pgspan", "pgspan_", "pgspan_a", "pgspan_a_1_2_3", "pgspan__1_2_3_4", "pgspan_1_2_3_4",
	    "pgspan_a_1_2_3_", "pgspan_a_1_2_3_4_", "pgspan_a_1__3_4", "pgspan_a__2_3_4",
	    "pgspan_a_1_2_3_256", "pgspan_a_1_2_3_-1", "pgspan_a_1_2_3_+1", "pgspan_a_1_2_3_ 1", "pgspan_a_1_2_3_01",
	    "pgspan_a_1_2_03_4", "pgspan_a_1_02_3_4", "pgspan_a_01_2_3_4", "pgspan_a_0x1_2_3_4", "pgspan_a_1F_2_3_4",
	    "pgspan_a_1g_2_3_4", "pgspan_a_1_2147483648_3_4", "pgspan_a_1_2_18446744073709551616_4",
	    "pgspan_a_10000000000000000_2_3_4", "pgspan_a_1_2_3_4 ", " pgspan_a_1_2_3_4", "Pgspan_a_1_2_3_4", "pgspanx_a_1_2_3_4",
	    "pgspan_A_1_2_3_4", "pgspan_a-b_1_2_3_4", "pgspan_a'b_1_2_3_4", "pgspan_a b_1_2_3_4", "pgspan_a_1_2_3_4'",
	    "pgspan_aaaaaaaaaaaaaaaaaaaaaaaaa_1_2_3_4", "pgspan_a_1_2_3_a", "pgspan_a_1_2_a_4", "pgspan_a_1_a_3_4",
	};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct gid_parts p;
		if (gid_parse(texts[i], &p))
			fail_msg("taken: %s", texts[i]);
	}
}

static void
gid_parse__longer_than_a_gid__refused(void **state)
{
	(void)state;
	char text[512];
	struct gid_parts p;
	memset(text, '1', sizeof text);
	memcpy(text, "pgspan_a_1_2_3_", 15);
	text[sizeof text - 1] = '\0';
	assert_false(gid_parse(text, &p));
}

static void
twophase_sql__each_step__text(void **state)
{
	(void)state;
	char sql[TWOPHASE_SQL_MAX];
	struct gid g = gid_make("a", 1, 2, 3, 4);
	assert_int_equal(twophase_sql(sql, TWOPHASE_PREPARE, &g), strlen("PREPARE TRANSACTION 'pgspan_a_1_2_3_4'"));
	assert_string_equal(sql, "PREPARE TRANSACTION 'pgspan_a_1_2_3_4'");
	twophase_sql(sql, TWOPHASE_COMMIT_PREPARED, &g);
	assert_string_equal(sql, "COMMIT PREPARED 'pgspan_a_1_2_3_4'");
	twophase_sql(sql, TWOPHASE_ROLLBACK_PREPARED, &g);
	assert_string_equal(sql, "ROLLBACK PREPARED 'pgspan_a_1_2_3_4'");
	twophase_sql(sql, TWOPHASE_DECIDE, &g);
	assert_string_equal(sql, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; SET LOCAL synchronous_commit TO on; "
	                         "INSERT INTO pgspan.decision (gid, commit) VALUES ('pgspan_a_1_2_3_4', true)");
}

static void
twophase_run__asked_twice__the_same(void **state)
{
	(void)state;
	assert_true(twophase_run() > 1600000000000000ULL);
	assert_true(twophase_run() == twophase_run());
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(gid_make__parts__text),
	    cmocka_unit_test(gid_make__largest_parts__fit),
	    cmocka_unit_test(gid_parse__underscores_in_instance__are_its),
	    cmocka_unit_test(gid_parse__not_ours__refused),
	    cmocka_unit_test(gid_parse__longer_than_a_gid__refused),
	    cmocka_unit_test(twophase_sql__each_step__text),
	    cmocka_unit_test(twophase_run__asked_twice__the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
