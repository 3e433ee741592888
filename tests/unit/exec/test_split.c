/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/exec/split.o proxy/sql/scan.o proxy/sql/scan_literal.o proxy/proto/msg.o proxy/proto/msg_put.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o proxy/base/arena.o */
/* test_split - one INSERT in, the statements of its shards out, byte for byte. */
#include "pgspan/split.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct arena arena;
static struct split split;
static struct diag d;

static int
setup(void **state)
{
	(void)state;
	arena_init(&arena);
	diag_clear(&d);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	arena_fini(&arena);
	return 0;
}

/* *shards* has a digit for each row. */
static enum rc
run(const char *sql, const char *shards)
{
	size_t n = strlen(sql);
	char *copy = xmalloc(n); /* of its very size, so that a read beyond it is seen */
	int shard_of_row[32];
	uint32_t n_rows = 0;
	enum rc rc;

	memcpy(copy, sql, n);
	for (; shards[n_rows]; n_rows++)
		shard_of_row[n_rows] = shards[n_rows] - '0';
	rc = split_insert(&arena, span_of(copy, n), 0, shard_of_row, n_rows, &split, &d);
	free(copy);
	return rc;
}

static void
expect_part(int i, int shard, const char *sql)
{
	char *got;

	assert_true(i < split.n_parts);
	got = arena_strndup(&arena, split.parts[i].sql.p, split.parts[i].sql.n);
	assert_int_equal(split.parts[i].shard, shard);
	assert_string_equal(got, sql);
}

static void
split_insert__literals__rows_in_order_for_each_shard(void **state)
{
	(void)state;
	assert_int_equal(run("INSERT INTO t (id, v) VALUES (1, 'a)'), (2, f((3), 4)) , (3, $$),($$)", "515"), RC_OK);
	assert_int_equal(split.n_parts, 2);
	expect_part(0, 1, "INSERT INTO t (id, v) VALUES (2, f((3), 4))");
	expect_part(1, 5, "INSERT INTO t (id, v) VALUES (1, 'a)'), (3, $$),($$)");
	assert_int_equal(split.parts[1].n_rows, 2);
	assert_int_equal(split.parts[1].rows[0], 0);
	assert_int_equal(split.parts[1].rows[1], 2);
	assert_int_equal(split.part_of_row[0], 1);
	assert_int_equal(split.part_of_row[1], 0);
	assert_int_equal(split.part_of_row[2], 1);
	assert_int_equal(split.parts[0].n_params, 0);
}

static void
split_insert__every_clause__prefix_and_suffix_kept(void **state)
{
	(void)state;
	assert_int_equal(run("/* c */ with x as (insert into y values (1),(2)) INSERT INTO \"S\".t AS a (id) OVERRIDING SYSTEM VALUE VALUES"
	                     "(1)/*,*/,--x\n(2) ON CONFLICT (id) DO UPDATE SET v = (SELECT 1) RETURNING id ; -- end",
	                     "01"),
	                 RC_OK);
	expect_part(0, 0, "/* c */ with x as (insert into y values (1),(2)) INSERT INTO \"S\".t AS a (id) OVERRIDING SYSTEM VALUE VALUES"
	                  "(1) ON CONFLICT (id) DO UPDATE SET v = (SELECT 1) RETURNING id ; -- end");
	expect_part(1, 1, "/* c */ with x as (insert into y values (1),(2)) INSERT INTO \"S\".t AS a (id) OVERRIDING SYSTEM VALUE VALUES"
	                  "(2) ON CONFLICT (id) DO UPDATE SET v = (SELECT 1) RETURNING id ; -- end");
}

static void
split_insert__a_table_named_values__is_no_keyword(void **state)
{
	(void)state;
	assert_int_equal(run("INSERT INTO values VALUES (1), (2)", "12"), RC_OK);
	expect_part(0, 1, "INSERT INTO values VALUES (1)");
	expect_part(1, 2, "INSERT INTO values VALUES (2)");
}

static void
split_insert__parameters__numbered_anew(void **state)
{
	(void)state;
	assert_int_equal(run("INSERT INTO t VALUES ($3, $10), ($1,'$9'), ($3,$2) RETURNING $4, $10", "121"), RC_OK);
	expect_part(0, 1, "INSERT INTO t VALUES ($1, $2), ($1,$3) RETURNING $4, $2");
	expect_part(1, 2, "INSERT INTO t VALUES ($1,'$9') RETURNING $2, $3");
	static const uint16_t first[] = {3, 10, 2, 4}, second[] = {1, 4, 10};
	assert_int_equal(split.parts[0].n_params, 4);
	assert_memory_equal(split.parts[0].params, first, sizeof first);
	assert_int_equal(split.parts[1].n_params, 3);
	assert_memory_equal(split.parts[1].params, second, sizeof second);

	static const uint32_t types[] = {20, 23, 25, 1700};
	const uint32_t *part_types = split_types(&arena, &split.parts[0], types, 4);
	assert_int_equal(part_types[0], 25);
	assert_int_equal(part_types[1], 0);
	assert_int_equal(part_types[2], 23);
	assert_int_equal(part_types[3], 1700);
}

static void
split_insert__what_is_not_understood__is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *sql, *shards;
	} bad[] = {
		{"INSERT INTO t VALUES (1), (2)", "1"},     /* fewer rows counted */
		{"INSERT INTO t VALUES (1), (2)", "121"},   /* more */
		{"INSERT INTO t SELECT 1", "1"},
		{"INSERT INTO t DEFAULT VALUES", "1"},
		{"INSERT INTO t (VALUES (1), (2))", "12"},
		{"INSERT INTO t VALUES (1), (2) ORDER BY 1", "12"},
		{"INSERT INTO t VALUES (1), (2) UNION VALUES (3)", "12"},
		{"INSERT INTO t VALUES (1), (2); DELETE FROM t", "12"},
		{"INSERT INTO t VALUES (1), (2) RETURNING 1; DELETE FROM t", "12"},
		{"INSERT INTO t VALUES (1), (2", "12"},
		{"INSERT INTO t VALUES (1), ('2)", "12"},
		{"INSERT INTO t VALUES ($0), (2)", "12"},
		{"INSERT INTO t VALUES ($65536), (2)", "12"},
		{"INSERT INTO U&\"t!0041\" UESCAPE '!' VALUES (1), (2)", "12"},
		{"WITH insert AS (SELECT 1) INSERT INTO t VALUES (1), (2)", "12"},
		{"UPDATE t SET v = 1", "1"},
		{"", "1"},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		diag_clear(&d);
		assert_int_equal(run(bad[i].sql, bad[i].shards), RC_FAIL);
		assert_string_equal(d.sqlstate, "0A000");
	}
}

/* Bind of three parameters, portal p, statement s. */
#define BIND(formats, results) "p\0s\0" formats "\0\3\0\0\0\1A\377\377\377\377\0\0\0\2CC" results

static bool
rebind(struct span body, struct wbuf *w)
{
	struct wire_msg msg = {.type = 'B', .len = (uint32_t)body.n, .body = (const unsigned char *)body.p};
	struct msg_bind b;

	assert_true(msg_get_bind(&msg, &b));
	return split_put_bind(w, &split.parts[0], &b, SPAN_LIT(""), SPAN_LIT("x"));
}

static void
check_bind(struct span body, struct span want)
{
	struct wbuf w = {0};

	assert_true(rebind(body, &w));
	assert_int_equal(w.n, want.n);
	assert_memory_equal(w.p, want.p, want.n);
	wbuf_fini(&w);
}

static void
split_put_bind__formats__kept_for_each_parameter(void **state)
{
	(void)state;
	assert_int_equal(run("INSERT INTO t VALUES ($3), ($1), ($2)", "121"), RC_OK);
	/* none, one for all, one each; the result formats stay */
	check_bind(SPAN_LIT(BIND("\0\0", "\0\0")), SPAN_LIT("B\0\0\0\x17\0x\0\0\0\0\2\0\0\0\2CC\377\377\377\377\0\0"));
	check_bind(SPAN_LIT(BIND("\0\1\0\1", "\0\1\0\1")),
	           SPAN_LIT("B\0\0\0\x1b\0x\0\0\1\0\1\0\2\0\0\0\2CC\377\377\377\377\0\1\0\1"));
	check_bind(SPAN_LIT(BIND("\0\3\0\0\0\0\0\1", "\0\2\0\0\0\1")),
	           SPAN_LIT("B\0\0\0\x1f\0x\0\0\2\0\1\0\0\0\2\0\0\0\2CC\377\377\377\377\0\2\0\0\0\1"));
}

static void
split_put_bind__bad_counts__nothing_appended(void **state)
{
	(void)state;
	struct wbuf w = {0};

	assert_int_equal(run("INSERT INTO t VALUES ($3), ($1), ($2)", "121"), RC_OK);
	assert_false(rebind(SPAN_LIT(BIND("\0\2\0\0\0\1", "\0\0")), &w));
	assert_int_equal(run("INSERT INTO t VALUES ($4), ($1), ($2)", "121"), RC_OK);
	assert_false(rebind(SPAN_LIT(BIND("\0\0", "\0\0")), &w));
	assert_int_equal(w.n, 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(split_insert__literals__rows_in_order_for_each_shard),
		CASE(split_insert__every_clause__prefix_and_suffix_kept),
		CASE(split_insert__a_table_named_values__is_no_keyword),
		CASE(split_insert__parameters__numbered_anew),
		CASE(split_insert__what_is_not_understood__is_refused),
		CASE(split_put_bind__formats__kept_for_each_parameter),
		CASE(split_put_bind__bad_counts__nothing_appended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
