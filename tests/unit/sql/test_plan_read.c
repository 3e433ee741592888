/* link: proxy/sql/parse_plan.o proxy/sql/parse_names.o proxy/sql/parse_facts.o proxy/sql/parse_keys.o proxy/sql/parse_query.o proxy/sql/parse_merge.o proxy/sql/parse_write.o proxy/sql/parse_utility.o proxy/sql/parse_ddl.o proxy/sql/scan.o proxy/sql/scan_literal.o proxy/base/arena.o proxy/base/diag.o proxy/base/log.o proxy/base/mem.o shardmap/key_type.o shardmap/text.o */
/* SPDX-License-Identifier: BSD-2-Clause */
/* plan_make() on an unsharded database: may a statement go to a replica, what kind is it, what pins its session. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "test_plan_fake.h"

static const char *const reads[] = {
    "SELECT 1", "select 1;", "SELECT 1 + 1", "SELECT * FROM plain", "SELECT * FROM public.plain WHERE id = 5", "SELECT p.id FROM plain AS p WHERE p.id = $1",
    "TABLE plain", "VALUES (1), (2)", "SELECT count(*) FROM plain", "SELECT max(id) FROM plain GROUP BY k HAVING count(*) > 1 ORDER BY 1 LIMIT 5",
    "WITH w AS (SELECT * FROM plain) SELECT * FROM w", "WITH RECURSIVE w(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM w WHERE n < 5) SELECT * FROM w",
    "WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b, plain", "SELECT (SELECT count(*) FROM other) FROM plain",
    "SELECT * FROM plain WHERE id IN (SELECT x FROM other)", "SELECT * FROM plain WHERE EXISTS (SELECT 1 FROM other WHERE x = id)",
    "SELECT * FROM (SELECT * FROM plain) s", "SELECT * FROM plain p JOIN other o ON o.x = p.id LEFT JOIN case_ref r USING (id)",
    "SELECT lower('A')", "SELECT now()", "SELECT current_timestamp, current_date, current_user", "SELECT random()", "SELECT clock_timestamp()", "SELECT gen_random_uuid()",
    "SELECT * FROM generate_series(1, 10)", "SELECT unnest(ARRAY[1,2])", "SELECT version()", "SELECT my_imm(1)", "SELECT my_stable(1)", "SELECT pg_sleep(1)",
    "SELECT extract(year FROM now())", "SELECT '2020-01-01'::date", "SELECT CAST('1' AS int)", "SELECT CASE WHEN id = 1 THEN 'a' ELSE 'b' END FROM plain",
    "SELECT coalesce(id, 0), nullif(id, 1), greatest(id, 2) FROM plain", "SELECT * FROM v_plain", "SELECT * FROM v_ref", "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM pg_class", "SELECT * FROM seq", "SHOW work_mem", "EXPLAIN SELECT * FROM plain", "EXPLAIN (COSTS off) SELECT 1", "EXPLAIN ANALYZE SELECT * FROM plain",
    "EXPLAIN INSERT INTO plain VALUES (1)", "EXPLAIN (ANALYZE false) DELETE FROM plain", "COPY plain TO STDOUT", "COPY (SELECT * FROM plain) TO STDOUT", "COPY plain (id) TO STDOUT WITH CSV",
    "SELECT 1 UNION SELECT 2", "SELECT id FROM plain EXCEPT SELECT x FROM other", "(SELECT 1)", "((SELECT * FROM plain))", "/* UPDATE */ SELECT 1", "-- x\nSELECT 1",
    "SELECT 'INSERT INTO plain'", "SELECT \"id\" FROM \"plain\"", "SELECT row_number() OVER (ORDER BY id) FROM plain", "SELECT sum(id) FILTER (WHERE id > 1) FROM plain",
    "SELECT * FROM plain TABLESAMPLE SYSTEM (10)", "SELECT DISTINCT ON (id) * FROM plain ORDER BY id, k DESC NULLS LAST", "SELECT ARRAY[1,2] || 3",
    "SELECT * FROM plain WHERE id BETWEEN 1 AND 2 AND k IS NOT NULL AND NOT (id = 3) OR id IN (1,2)", "SELECT id FROM plain WHERE k::text LIKE 'a%'",
    "SELECT a.* FROM plain a, LATERAL (SELECT * FROM other WHERE x = a.id) b", "SELECT * FROM plain ORDER BY id OFFSET 3 FETCH FIRST 2 ROWS ONLY",
    "SELECT lastval FROM (SELECT 1 AS lastval) s", "SELECT ROW(1, 2) = ROW(id, 2) FROM plain", "SELECT * FROM plain WHERE id = ANY ($1)", "SELECT 1; SELECT 2",
    "SELECT * FROM plain GROUP BY GROUPING SETS ((id), ())", "SELECT xmlelement(name a, 'x')", "", ";", "SELECT", "SELECT 'x' COLLATE \"C\"",
};

static const char *const not_reads[] = {
    "INSERT INTO plain VALUES (1)", "UPDATE plain SET id = 1", "DELETE FROM plain", "MERGE INTO plain p USING other o ON o.x = p.id WHEN MATCHED THEN DELETE",
    "SELECT * FROM plain FOR UPDATE", "SELECT * FROM plain FOR NO KEY UPDATE", "SELECT * FROM plain p FOR SHARE OF p NOWAIT", "SELECT * FROM plain FOR KEY SHARE SKIP LOCKED",
    "SELECT * FROM (SELECT * FROM plain FOR UPDATE) s", "WITH w AS (SELECT * FROM plain FOR UPDATE) SELECT count(*) FROM w", "select *\nfrom plain\nfor\nupdate",
    "SELECT id FROM plain WHERE id IN (SELECT x FROM other FOR SHARE)", "SELECT 1 UNION (SELECT id FROM plain FOR UPDATE)",
    "SELECT * INTO newt FROM plain", "SELECT * INTO TEMP newt FROM plain", "WITH x AS (UPDATE plain SET id = 2 RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM plain RETURNING *) SELECT count(*) FROM x", "WITH a AS (SELECT 1), x AS (INSERT INTO plain VALUES (1) RETURNING *) SELECT * FROM a, x",
    "WITH r AS (SELECT 1) INSERT INTO plain SELECT * FROM r", "SELECT nextval('seq')", "SELECT setval('seq', 1)", "SELECT currval('seq')", "SELECT lastval()",
    "SELECT * FROM plain WHERE id = nextval('seq')", "SELECT pg_catalog.nextval('seq')", "SELECT * FROM nextval('seq')", "SELECT (SELECT nextval('seq'))",
    "SELECT count(*) FILTER (WHERE nextval('seq') > 0) FROM plain", "SELECT CASE WHEN true THEN nextval('seq') END", "SELECT coalesce(nextval('seq'), 1)",
    "SELECT ARRAY[nextval('seq')]", "SELECT * FROM plain ORDER BY nextval('seq')", "SELECT * FROM plain LIMIT nextval('seq')", "SELECT * FROM plain, LATERAL nextval('seq') n",
    "VALUES (nextval('seq'))", "SELECT sum(id) OVER (ORDER BY nextval('seq')) FROM plain", "SELECT count(*) FROM plain GROUP BY nextval('seq')",
    "SELECT count(*) FROM plain HAVING nextval('seq') > 1", "SELECT DISTINCT ON (nextval('seq')) id FROM plain", "SELECT * FROM plain JOIN other ON nextval('seq') = x",
    "SELECT pg_advisory_lock(1)", "SELECT pg_try_advisory_lock(1)", "SELECT pg_advisory_xact_lock(1)", "SELECT pg_advisory_unlock(1)", "SELECT set_config('work_mem', '1MB', false)",
    "SELECT pg_notify('c', 'x')", "SELECT txid_current()", "SELECT lo_create(0)", "SELECT my_vol(1)", "SELECT unknown_fn(1)", "SELECT public.my_vol(1)", "SELECT 1 <=! 2",
    "SELECT * FROM no_such_table", "SELECT * FROM plain, no_such", "SELECT * FROM v_volatile", "SELECT * FROM ft", "SELECT * FROM nosch.plain", "SELECT setseed(0.5)",
    "EXPLAIN ANALYZE INSERT INTO plain VALUES (1)", "EXPLAIN (ANALYZE) SELECT my_vol(1)", "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM plain FOR UPDATE", "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
    "COPY plain FROM STDIN", "COPY plain TO '/tmp/x'", "COPY plain TO PROGRAM 'cat'", "COPY (DELETE FROM plain RETURNING *) TO STDOUT", "COPY (SELECT nextval('seq')) TO STDOUT",
    "DECLARE c CURSOR FOR SELECT 1", "FETCH c", "CREATE TABLE t (a int)", "DROP TABLE plain", "TRUNCATE plain", "VACUUM", "ANALYZE plain", "LOCK TABLE plain", "CALL my_proc()",
    "DO $$ BEGIN END $$", "LISTEN c", "NOTIFY c", "PREPARE p AS SELECT 1", "EXECUTE p", "SELECT 1; INSERT INTO plain VALUES (1)", "INSERT INTO plain VALUES (1); SELECT 1",
    "/* app */ INSERT INTO plain VALUES (1)", "/* a /* nested */ */ -- x\n INSERT INTO plain VALUES (1)", "; INSERT INTO plain VALUES (1)", "SELEC 1", "SELECT 0x2A",
    "CREATE TABLE n AS SELECT * FROM plain", "REFRESH MATERIALIZED VIEW v_plain", "CHECKPOINT", "SELECT 1 WHERE EXISTS (SELECT my_vol(1))", "SELECT p.my_vol FROM plain p", "SELECT (p).my_vol FROM plain p", "SELECT (SELECT p).my_vol FROM plain p",
    "WITH w AS (SELECT my_vol(1)) SELECT * FROM w", "SELECT * FROM plain WHERE id = ANY (ARRAY[my_vol(1)])", "GRANT SELECT ON plain TO u", "SET work_mem = '1MB'",
    "WITH plain2 AS (SELECT 1) SELECT * FROM plain2, no_such", "WITH w AS (SELECT * FROM w) SELECT * FROM w",
};

static struct database_config unsharded = {.name = name_db};
static const struct plan_env env = {&unsharded, &fake_catalog, fake_path, 1, true, false};

static void
plan_make__reads__are_read_only(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(reads); i++) {
		struct plan *p = plan_of(reads[i], &env);

		if (!(p->flags & PLAN_READ_ONLY) || (p->flags & PLAN_WRITES))
			fail_msg("not a read: %s", reads[i]);
		plan_free(p);
	}
}

static void
plan_make__anything_else__is_not_read_only(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(not_reads); i++) {
		struct plan *p = plan_of(not_reads[i], &env);

		if (p->flags & PLAN_READ_ONLY)
			fail_msg("a read: %s", not_reads[i]);
		plan_free(p);
	}
}

static void
plan_make__temp_tables__nothing_is_read_only(void **state)
{
	struct plan_env temp = env;

	(void)state;
	temp.has_temp_tables = true;
	for (size_t i = 0; i < ARRAY_LEN(reads); i++) {
		struct plan *p = plan_of(reads[i], &temp);

		if ((p->flags & PLAN_READ_ONLY) && p->kind != STMT_EMPTY)
			fail_msg("a read: %s", reads[i]);
		plan_free(p);
	}
}

static void
plan_make__no_catalog__only_what_calls_nothing(void **state)
{
	static const struct {
		const char *sql;
		bool read;
	} t[] = {{"SELECT 1", true}, {"SELECT 'x', $1, current_timestamp", true}, {"SHOW work_mem", true}, {"SELECT extract(year FROM current_date)", true},
	    {"SELECT now()", false}, {"SELECT * FROM plain", false}, {"SELECT lower('A')", false}};
	struct plan_env none = env;

	(void)state;
	none.catalog = NULL;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct plan *p = plan_of(t[i].sql, &none);

		if (t[i].read != !!(p->flags & PLAN_READ_ONLY))
			fail_msg("%s", t[i].sql);
		plan_free(p);
	}
}

struct expect {
	const char *sql;
	enum stmt_kind kind;
	unsigned flags, pins; /* flags: those among MASK */
	const char *name;
};

enum {
	MASK = PLAN_WRITES | PLAN_DDL | PLAN_NO_BLOCK | PLAN_CHAIN | PLAN_BEGIN_READ_ONLY | PLAN_BEGIN_READ_WRITE | PLAN_RETURNS_ROWS | PLAN_LOCKING |
	    PLAN_USES_SESSION_SEQ | PLAN_TX_CONTROL,
	W = PLAN_WRITES, R = PLAN_RETURNS_ROWS, D = PLAN_DDL,
};

static const struct expect kinds[] = {
    {"", STMT_EMPTY, 0, 0, NULL}, {" ; ", STMT_EMPTY, 0, 0, NULL}, {"/* x */", STMT_EMPTY, 0, 0, NULL}, {"SELECT 1", STMT_SELECT, R, 0, NULL}, {"VALUES (1)", STMT_SELECT, R, 0, NULL},
    {"INSERT INTO plain VALUES (1)", STMT_INSERT, W, 0, NULL}, {"INSERT INTO plain VALUES (1) RETURNING id", STMT_INSERT, W | R, 0, NULL},
    {"UPDATE plain SET id = 1", STMT_UPDATE, W, 0, NULL}, {"DELETE FROM plain RETURNING *", STMT_DELETE, W | R, 0, NULL},
    {"MERGE INTO plain p USING other o ON o.x = p.id WHEN MATCHED THEN DELETE", STMT_MERGE, W, 0, NULL},
    {"SELECT * FROM plain FOR UPDATE", STMT_SELECT, W | R | PLAN_LOCKING, 0, NULL}, {"BEGIN", STMT_BEGIN, 0, 0, NULL}, {"BEGIN WORK", STMT_BEGIN, 0, 0, NULL},
    {"START TRANSACTION READ ONLY", STMT_BEGIN, PLAN_BEGIN_READ_ONLY, 0, NULL}, {"BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE", STMT_BEGIN, PLAN_BEGIN_READ_WRITE, 0, NULL},
    {"BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", STMT_BEGIN, PLAN_BEGIN_READ_ONLY, 0, NULL}, {"COMMIT", STMT_COMMIT, 0, 0, NULL}, {"END", STMT_COMMIT, 0, 0, NULL},
    {"COMMIT AND CHAIN", STMT_COMMIT, PLAN_CHAIN, 0, NULL}, {"COMMIT AND NO CHAIN", STMT_COMMIT, 0, 0, NULL}, {"ROLLBACK", STMT_ROLLBACK, 0, 0, NULL}, {"ABORT", STMT_ROLLBACK, 0, 0, NULL},
    {"ROLLBACK AND CHAIN", STMT_ROLLBACK, PLAN_CHAIN, 0, NULL}, {"SAVEPOINT s1", STMT_SAVEPOINT, 0, 0, "s1"}, {"RELEASE SAVEPOINT S1", STMT_RELEASE, 0, 0, "s1"},
    {"RELEASE \"S1\"", STMT_RELEASE, 0, 0, "S1"}, {"ROLLBACK TO s1", STMT_ROLLBACK_TO, 0, 0, "s1"}, {"PREPARE TRANSACTION 'x'", STMT_PREPARE_TRANSACTION, W, 0, "x"},
    {"COMMIT PREPARED 'x'", STMT_COMMIT_PREPARED, W | PLAN_NO_BLOCK, 0, "x"}, {"ROLLBACK PREPARED 'x'", STMT_ROLLBACK_PREPARED, W | PLAN_NO_BLOCK, 0, "x"},
    {"SHOW ALL", STMT_SHOW, R, 0, NULL}, {"PREPARE p AS SELECT 1", STMT_PREPARE, 0, PIN_PREPARE, "p"}, {"EXECUTE p", STMT_EXECUTE, W | R, 0, "p"},
    {"DEALLOCATE p", STMT_DEALLOCATE, 0, 0, "p"}, {"DEALLOCATE ALL", STMT_DEALLOCATE, 0, 0, NULL}, {"DISCARD ALL", STMT_DISCARD, PLAN_NO_BLOCK, 0, NULL}, {"DISCARD TEMP", STMT_DISCARD, 0, 0, "temp"}, {"DISCARD PLANS", STMT_DISCARD, 0, 0, "plans"},
    {"DISCARD SEQUENCES", STMT_DISCARD, 0, 0, "sequences"},
    {"LISTEN c", STMT_LISTEN, 0, PIN_LISTEN, "c"}, {"UNLISTEN *", STMT_UNLISTEN, 0, 0, NULL}, {"UNLISTEN c", STMT_UNLISTEN, 0, 0, "c"}, {"NOTIFY c, 'x'", STMT_NOTIFY, W, 0, "c"},
    {"DECLARE c CURSOR FOR SELECT * FROM plain", STMT_DECLARE, 0, 0, "c"}, {"DECLARE c CURSOR WITH HOLD FOR SELECT * FROM plain", STMT_DECLARE, 0, PIN_CURSOR, "c"},
    {"DECLARE c CURSOR FOR SELECT * FROM plain FOR UPDATE", STMT_DECLARE, W, 0, "c"}, {"FETCH 5 FROM c", STMT_FETCH, R, 0, "c"}, {"MOVE c", STMT_FETCH, 0, 0, "c"},
    {"CLOSE c", STMT_CLOSE_CURSOR, 0, 0, "c"}, {"CLOSE ALL", STMT_CLOSE_CURSOR, 0, 0, NULL}, {"LOCK plain", STMT_LOCK, W, 0, NULL}, {"EXPLAIN SELECT 1", STMT_EXPLAIN, R, 0, NULL},
    {"EXPLAIN ANALYZE DELETE FROM plain", STMT_EXPLAIN, R | W, 0, NULL}, {"TRUNCATE plain", STMT_TRUNCATE, W, 0, NULL}, {"VACUUM plain", STMT_VACUUM, W | PLAN_NO_BLOCK, 0, NULL},
    {"ANALYZE", STMT_VACUUM, W, 0, NULL}, {"CREATE TABLE t (a int)", STMT_DDL, W | D, 0, NULL}, {"CREATE TEMP TABLE t (a int)", STMT_DDL, W | D, PIN_TEMP, NULL},
    {"CREATE TABLE pg_temp.t (a int)", STMT_DDL, W | D, PIN_TEMP, NULL}, {"CREATE TEMPORARY TABLE t AS SELECT 1", STMT_DDL, W | D, PIN_TEMP, NULL},
    {"CREATE TEMP VIEW v AS SELECT 1", STMT_DDL, W | D, PIN_TEMP, NULL}, {"CREATE TEMP SEQUENCE s", STMT_DDL, W | D, PIN_TEMP, NULL},
    {"SELECT 1 INTO TEMP t", STMT_SELECT, W | D, PIN_TEMP, NULL}, {"SELECT 1 INTO t", STMT_SELECT, W | D, 0, NULL}, {"CREATE INDEX CONCURRENTLY i ON plain (id)", STMT_DDL, W | D | PLAN_NO_BLOCK, 0, NULL},
    {"DROP INDEX CONCURRENTLY i", STMT_DDL, W | D | PLAN_NO_BLOCK, 0, NULL}, {"REINDEX TABLE CONCURRENTLY plain", STMT_DDL, W | PLAN_NO_BLOCK, 0, NULL}, {"CREATE DATABASE d", STMT_DDL, W | D | PLAN_NO_BLOCK, 0, NULL},
    {"ALTER SYSTEM SET work_mem = '1MB'", STMT_DDL, W | D | PLAN_NO_BLOCK, 0, NULL}, {"CLUSTER", STMT_DDL, W | PLAN_NO_BLOCK, 0, NULL}, {"CLUSTER plain", STMT_DDL, W, 0, NULL},
    {"DO $$ BEGIN PERFORM 1; END $$", STMT_DO, W, 0, NULL}, {"DO $$ BEGIN CREATE TEMP TABLE x (a int); END $$", STMT_DO, W, PIN_OTHER, NULL},
    {"DO $$ BEGIN PERFORM set_config('a.b', 'c', false); END $$", STMT_DO, W, PIN_OTHER, NULL}, {"CALL my_proc()", STMT_CALL, W | R, 0, NULL}, {"LOAD 'auto_explain'", STMT_LOAD, 0, PIN_LOAD, NULL},
    {"CHECKPOINT", STMT_OTHER, W, 0, NULL}, {"SELEC", STMT_UNPARSED, W, 0, NULL}, {"COPY plain FROM STDIN", STMT_COPY_FROM, W, 0, NULL}, {"COPY plain TO STDOUT", STMT_COPY_TO, 0, 0, NULL},
    {"SELECT pg_advisory_lock(1)", STMT_SELECT, W | R, PIN_ADVISORY, NULL}, {"SELECT pg_try_advisory_lock(1)", STMT_SELECT, W | R, PIN_ADVISORY, NULL},
    {"SELECT pg_advisory_xact_lock(1)", STMT_SELECT, W | R, 0, NULL}, {"SELECT pg_advisory_unlock(1)", STMT_SELECT, W | R, 0, NULL},
    {"SELECT set_config('work_mem', '1MB', false)", STMT_SELECT, W | R, PIN_SETTING, NULL}, {"SELECT set_config('work_mem', '1MB', true)", STMT_SELECT, W | R, 0, NULL},
    {"SELECT set_config('work_mem', '1MB', $1)", STMT_SELECT, W | R, PIN_SETTING, NULL}, {"SELECT dblink_connect('x')", STMT_SELECT, W | R, PIN_OTHER, NULL},
    {"SELECT currval('seq')", STMT_SELECT, W | R | PLAN_USES_SESSION_SEQ, 0, NULL}, {"INSERT INTO plain VALUES (lastval())", STMT_INSERT, W | PLAN_USES_SESSION_SEQ, 0, NULL},
    {"SELECT 1; SELECT 2", STMT_MULTI, R, 0, NULL}, {"BEGIN; SELECT 1; COMMIT", STMT_MULTI, R | PLAN_TX_CONTROL, 0, NULL}, {"INSERT INTO plain VALUES (1); LISTEN c", STMT_MULTI, W, PIN_LISTEN, NULL},
    {"CREATE ROLE r", STMT_DDL, W | D, 0, NULL}, {"COMMENT ON TABLE plain IS 'x'", STMT_DDL, W, 0, NULL},
};

static void
plan_make__each_statement__has_kind_flags_pins_and_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		const struct expect *e = &kinds[i];
		struct plan *p = plan_of(e->sql, &env);

		if (p->kind != e->kind || (p->flags & MASK) != e->flags || p->pins != e->pins || (p->name == NULL) != (e->name == NULL) ||
		    (e->name != NULL && strcmp(p->name, e->name) != 0))
			fail_msg("%s: kind %d flags %#x (want %#x) pins %#x name %s", e->sql, p->kind, p->flags & MASK, e->flags, p->pins, p->name != NULL ? p->name : "-");
		plan_free(p);
	}
}

static void
plan_make__set__tells_the_setting(void **state)
{
	static const struct {
		const char *sql;
		enum set_kind kind;
		const char *name;
		unsigned flags;
	} t[] = {{"SET work_mem = '1MB'", SET_VALUE, "work_mem", 0}, {"SET SESSION DateStyle TO ISO", SET_VALUE, "datestyle", 0}, {"SET LOCAL work_mem TO '1MB'", SET_LOCAL, "work_mem", 0},
	    {"SET TIME ZONE 'UTC'", SET_VALUE, "timezone", 0}, {"SET LOCAL TIME ZONE LOCAL", SET_LOCAL, "timezone", 0}, {"SET NAMES 'utf8'", SET_VALUE, "client_encoding", 0}, {"SET ROLE x", SET_VALUE, "role", 0},
	    {"SET ROLE NONE", SET_VALUE, "role", 0}, {"RESET ROLE", SET_RESET, "role", 0}, {"SET SESSION AUTHORIZATION x", SET_VALUE, "session_authorization", 0},
	    {"RESET SESSION AUTHORIZATION", SET_RESET, "session_authorization", 0}, {"SET work_mem TO DEFAULT", SET_RESET, "work_mem", 0}, {"RESET work_mem", SET_RESET, "work_mem", 0},
	    {"RESET ALL", SET_RESET_ALL, NULL, 0}, {"SET TRANSACTION READ ONLY", SET_TRANSACTION, NULL, PLAN_BEGIN_READ_ONLY}, {"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", SET_TRANSACTION, NULL, 0},
	    {"SET TRANSACTION READ WRITE", SET_TRANSACTION, NULL, PLAN_BEGIN_READ_WRITE}, {"SET SCHEMA 'x'", SET_VALUE, "search_path", 0}, {"SET my.var = 'x'", SET_VALUE, "my.var", 0},
	    {"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", SET_SESSION_CHARACTERISTICS, "session characteristics", 0}, {"SET \"Search_Path\" = x", SET_VALUE, "search_path", 0}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct plan *p = plan_of(t[i].sql, &env);

		if (p->kind != STMT_SET || p->set.kind != t[i].kind || (p->set.name == NULL) != (t[i].name == NULL) || (t[i].name != NULL && strcmp(p->set.name, t[i].name) != 0) ||
		    (p->flags & (PLAN_BEGIN_READ_ONLY | PLAN_BEGIN_READ_WRITE)) != t[i].flags)
			fail_msg("%s: %d %d %s", t[i].sql, p->kind, p->set.kind, p->set.name != NULL ? p->set.name : "-");
		plan_free(p);
	}
}

static void
plan_make__prepare__gives_the_inner_text_and_types(void **state)
{
	struct plan *p = plan_of("SELECT 1; /* as */ PREPARE as1 (bigint, no_such, varchar(3)) AS  SELECT $1 AS x; SELECT 2", &env);

	(void)state;
	assert_int_equal(p->n_parts, 3);
	assert_string_equal(p->parts[1]->inner_text, "  SELECT $1 AS x");
	assert_int_equal(p->parts[1]->n_inner_types, 3);
	assert_int_equal(p->parts[1]->inner_types[0], 20);
	assert_int_equal(p->parts[1]->inner_types[1], 0);
	plan_free(p);
}

static void
plan_make__execute__gives_its_arguments(void **state)
{
	struct plan *p = plan_of("EXECUTE p(5, '5', -5::bigint, CAST('5' AS int8), ((5::int)::bigint), NULL, true, $1, 1 + 1)", &env);
	struct text t = {{0}, 0};

	(void)state;
	for (int i = 0; i < p->n_exec_args; i++) {
		put(&t, " ");
		put_source(&t, &p->exec_args[i]);
	}
	assert_string_equal(t.s, " L0 L1 -L2:20 L3:20 L4:23:20 NULL TRUE P1 ?");
	plan_free(p);
}

static void
plan_make__several_statements__gives_their_places(void **state)
{
	const char *sql = " BEGIN ; INSERT INTO plain VALUES (1);;COMMIT ";
	struct plan *p = plan_of(sql, &env);
	static const char *const want[] = {" BEGIN ", " INSERT INTO plain VALUES (1)", "COMMIT "};

	(void)state;
	assert_int_equal(p->n_parts, 3);
	for (int i = 0; i < 3; i++)
		if (strncmp(sql + p->part_off[i], want[i], p->part_len[i]) != 0 || p->part_len[i] != strlen(want[i]))
			fail_msg("part %d: %.*s", i, (int)p->part_len[i], sql + p->part_off[i]);
	assert_int_equal(p->parts[0]->kind, STMT_BEGIN);
	assert_false(p->flags & PLAN_CACHEABLE);
	plan_free(p);
}

static void
plan_make__deep_trees__do_not_overflow(void **state)
{
	enum { N = 60000 };
	char *sql = xmalloc(N * 3 + 100);
	size_t n = 0;

	(void)state;
	memcpy(sql, "SELECT 1", 8);
	for (n = 8; n < N * 3; n += 2)
		memcpy(sql + n, "+1", 2);
	sql[n] = '\0';
	struct plan *p = plan_of(sql, &env);

	assert_int_equal(p->kind, STMT_SELECT);
	assert_false(p->flags & PLAN_READ_ONLY);
	plan_free(p);
	free(sql);
}

static void
plan_make__max_param__is_the_highest(void **state)
{
	struct plan *p = plan_of("SELECT $3 FROM plain WHERE id = $1 AND EXISTS (SELECT $7)", &env);

	(void)state;
	assert_true(p->max_param_known);
	assert_int_equal(p->max_param, 7);
	plan_free(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(plan_make__reads__are_read_only), cmocka_unit_test(plan_make__anything_else__is_not_read_only),
	    cmocka_unit_test(plan_make__temp_tables__nothing_is_read_only), cmocka_unit_test(plan_make__no_catalog__only_what_calls_nothing),
	    cmocka_unit_test(plan_make__each_statement__has_kind_flags_pins_and_name), cmocka_unit_test(plan_make__set__tells_the_setting),
	    cmocka_unit_test(plan_make__prepare__gives_the_inner_text_and_types), cmocka_unit_test(plan_make__execute__gives_its_arguments),
	    cmocka_unit_test(plan_make__several_statements__gives_their_places), cmocka_unit_test(plan_make__deep_trees__do_not_overflow),
	    cmocka_unit_test(plan_make__max_param__is_the_highest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
