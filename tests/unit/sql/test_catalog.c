/* link: proxy/base/mem.o proxy/base/log.o proxy/base/arena.o proxy/base/diag.o proxy/sql/catalog.o proxy/sql/catalog_load.o proxy/sql/catalog_effects.o */
/* SPDX-License-Identifier: BSD-2-Clause */
/* The catalog against a real PostgreSQL: a superuser's connection string in PGSPAN_TEST_CONNINFO, to a database in
 * which the schemas cat_a and cat_b may be dropped and made. Without it all but the name lists is skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>
#include <libpq-fe.h>

#include "../proxy/sql/catalog_int.h"
#include "pgspan/catalog.h"
#include "pgspan/config.h"

static const char schema_sql[] =
    "DROP SCHEMA IF EXISTS cat_a CASCADE; DROP SCHEMA IF EXISTS cat_b CASCADE; CREATE SCHEMA cat_a; CREATE SCHEMA cat_b;"
    "SET search_path = cat_a;"
    "CREATE COLLATION en_x (provider = icu, locale = 'en');"
    "CREATE COLLATION nondet (provider = icu, locale = 'und', deterministic = false);"
    "CREATE DOMAIN dom AS bigint DEFAULT 7; CREATE DOMAIN dom2 AS dom NOT NULL;"
    "CREATE FUNCTION vol() RETURNS int LANGUAGE sql VOLATILE AS 'select 1';"
    "CREATE FUNCTION stab() RETURNS int LANGUAGE sql STABLE AS 'select 1';"
    "CREATE TABLE acc (id dom2, gone int, c text COLLATE \"C\", p text COLLATE \"POSIX\", e text COLLATE \"en_x\","
    " n text COLLATE nondet, d text, ser serial, idd int GENERATED ALWAYS AS IDENTITY, gen int GENERATED ALWAYS AS (1) STORED,"
    " k int DEFAULT 1 + 2, st timestamptz DEFAULT now(), cd date DEFAULT current_date, v int DEFAULT vol(), s2 int DEFAULT stab(),"
    " r float DEFAULT random(), viatext date DEFAULT ('now'::text)::date, none int);"
    "ALTER TABLE acc DROP COLUMN gone;"
    "CREATE TABLE ref (id int); CREATE TABLE loc (id int);"
    "CREATE TABLE part (k int, w text) PARTITION BY RANGE (k);"
    "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10) PARTITION BY LIST (k);"
    "CREATE TABLE part_1_1 PARTITION OF part_1 DEFAULT;"
    "CREATE TABLE \"Odd Name\" (id int);"
    "CREATE VIEW v_acc AS SELECT id FROM acc; CREATE VIEW v_v AS SELECT id FROM v_acc JOIN loc USING (id);"
    "CREATE VIEW v_ref AS SELECT * FROM ref; CREATE VIEW v_const AS SELECT 1 AS one;"
    "CREATE VIEW v_vol AS SELECT vol() FROM loc; CREATE VIEW v_seq AS SELECT nextval('acc_ser_seq');"
    "CREATE VIEW v_pg AS SELECT relname FROM pg_class; CREATE MATERIALIZED VIEW mv AS SELECT 1 AS x;"
    "CREATE FUNCTION reads_acc() RETURNS bigint LANGUAGE plpgsql STABLE AS 'begin return (select count(*) from Cat_A.ACC); end';"
    "CREATE FUNCTION calls_it() RETURNS bigint LANGUAGE sql STABLE AS 'select cat_a.reads_acc()';"
    "CREATE FUNCTION by_view() RETURNS bigint LANGUAGE sql STABLE AS 'select count(*) from cat_a.v_v';"
    "CREATE FUNCTION atomic_body() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM cat_a.part_1_1; END;"
    "CREATE FUNCTION odd_body() RETURNS bigint LANGUAGE sql STABLE AS 'select count(*) from cat_a.\"Odd Name\"';"
    "CREATE FUNCTION steps() RETURNS bigint LANGUAGE sql STABLE AS 'select nextval(''cat_a.acc_ser_seq'')';"
    "CREATE FUNCTION innocent() RETURNS int LANGUAGE sql STABLE AS 'select 1 as account';"
    "CREATE FUNCTION abs(text) RETURNS int LANGUAGE sql VOLATILE AS 'select 1';"
    "CREATE VIEW v_calls AS SELECT calls_it();"
    "CREATE FUNCTION oneq(int, text) RETURNS bool LANGUAGE sql VOLATILE AS 'select true';"
    "CREATE FUNCTION pureq(int, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'select true';"
    "CREATE OPERATOR ### (leftarg = int, rightarg = text, function = oneq);"
    "CREATE OPERATOR ##@ (leftarg = int, rightarg = text, function = pureq);"
    "CREATE VIEW v_op AS SELECT 1 ### 'x'::text AS y;"
    "CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'begin return new; end';"
    "CREATE TRIGGER t AFTER INSERT ON part_1_1 FOR EACH ROW EXECUTE FUNCTION trg();"
    "CREATE RULE rr AS ON INSERT TO loc DO ALSO NOTIFY x;"
    "CREATE TABLE pg_am (mine int);"
    "CREATE TYPE color AS ENUM ('r'); CREATE TABLE cat_b.loc (other int); CREATE TABLE cat_b.par (id int);"
    "CREATE TABLE cat_b.kid () INHERITS (cat_b.par); RESET search_path";

static char *names[] = {"acc", "ref", "part", "Odd Name", "missing"};
static char *keys[] = {"id"};
static struct table_config tables[] = {
	{TABLE_SHARDED, (char[]){"cat_a"}, NULL, keys, 1}, {TABLE_REFERENCE, (char[]){"cat_a"}, NULL, NULL, 0},
	{TABLE_SHARDED, (char[]){"cat_a"}, NULL, keys, 1}, {TABLE_SHARDED, (char[]){"cat_a"}, NULL, keys, 1},
	{TABLE_SHARDED, (char[]){"cat_a"}, NULL, keys, 1}, {TABLE_SHARDED, (char[]){"cat_b"}, (char[]){"kid"}, keys, 1},
};
static struct database_config db = {.tables = tables, .n_tables = ARRAY_LEN(tables)};
static struct catalog *cat;
static const char *const path[] = {"cat_a", "public"};

static double
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static int
load(void **state)
{
	const char *conninfo = getenv("PGSPAN_TEST_CONNINFO");
	struct diag d = {0};

	(void)state;
	if (conninfo == NULL)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		tables[i].name = names[i];
	PGconn *conn = PQconnectdb(conninfo);
	PGresult *r = PQexec(conn, schema_sql);

	if (PQresultStatus(r) != PGRES_COMMAND_OK)
		fail_msg("set-up: %s", PQerrorMessage(conn));
	PQclear(r);
	double t0 = now_ms();

	cat = catalog_load(conn, &db, &d);
	printf("catalog_load: %.1f ms\n", now_ms() - t0);
	if (cat == NULL)
		fail_msg("%s", d.message);
	PQfinish(conn);
	return 0;
}

static int
unload(void **state)
{
	(void)state;
	catalog_unref(cat);
	return 0;
}

#define NEED_SERVER()                                                                                                  \
	do {                                                                                                           \
		if (cat == NULL)                                                                                       \
			skip();                                                                                        \
	} while (0)

static const struct catalog_relation *
rel(const char *name)
{
	const struct catalog_relation *r = catalog_find_relation(cat, NULL, name, path, 2);

	assert_non_null(r);
	return r;
}

static const struct catalog_column *
col(const char *name)
{
	const struct catalog_column *c = catalog_find_column(rel("acc"), name, NULL);

	assert_non_null(c);
	return c;
}

static struct catalog_function
fn(const char *name)
{
	return catalog_find_function(cat, NULL, name, path, 2);
}

static void
find_relation__search_path__pg_catalog_first_then_in_order(void **state)
{
	const char *const b_first[] = {"cat_b", "cat_a"}, *const own[] = {"cat_a", "pg_catalog"}, *const only[] = {"cat_a"};

	(void)state;
	NEED_SERVER();
	assert_string_equal(rel("loc")->schema, "cat_a");
	assert_string_equal(catalog_find_relation(cat, NULL, "loc", b_first, 2)->schema, "cat_b");
	assert_string_equal(catalog_find_relation(cat, "cat_b", "loc", path, 2)->schema, "cat_b");
	assert_string_equal(catalog_find_relation(cat, NULL, "pg_class", NULL, 0)->schema, "pg_catalog");
	assert_string_equal(catalog_find_relation(cat, NULL, "acc", own, 2)->schema, "cat_a");
	assert_string_equal(catalog_find_relation(cat, NULL, "pg_am", own, 2)->schema, "cat_a");
	assert_string_equal(catalog_find_relation(cat, NULL, "pg_am", only, 1)->schema, "pg_catalog");
	assert_null(catalog_find_relation(cat, NULL, "missing", path, 2));
	assert_null(catalog_find_relation(cat, "cat_b", "acc", path, 2));
	assert_true(catalog_server_version(cat) >= 120000);
}

static void
find_column__live_columns__index_skips_dropped(void **state)
{
	int index = -1;

	(void)state;
	NEED_SERVER();
	assert_null(catalog_find_column(rel("acc"), "gone", &index));
	assert_non_null(catalog_find_column(rel("acc"), "c", &index));
	assert_int_equal(index, 1);
	assert_int_equal(rel("acc")->n_columns, 17);
}

static void
column__domain_over_domain__base_type_and_default(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_int_equal(col("id")->type_oid, 20);
	assert_int_equal(col("id")->declared_oid, catalog_find_type(cat, "cat_a", "dom2", NULL, 0));
	assert_int_equal(col("id")->default_kind, DEFAULT_CONST);
}

static void
column__collations__byte_order_and_determinism(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_true(col("c")->byte_ordered);
	assert_true(col("p")->byte_ordered);
	assert_false(col("e")->byte_ordered);
	assert_true(col("e")->deterministic);
	assert_false(col("n")->byte_ordered);
	assert_false(col("n")->deterministic);
	assert_int_equal(col("d")->byte_ordered, catalog_default_byte_ordered(cat));
	assert_false(col("k")->byte_ordered);
	assert_true(col("k")->deterministic);
}

static void
column__defaults__each_kind(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_int_equal(col("none")->default_kind, DEFAULT_NONE);
	assert_int_equal(col("ser")->default_kind, DEFAULT_SEQUENCE);
	assert_int_equal(col("idd")->default_kind, DEFAULT_SEQUENCE);
	assert_true(col("idd")->is_identity_always);
	assert_int_equal(col("gen")->default_kind, DEFAULT_GENERATED);
	assert_int_equal(col("k")->default_kind, DEFAULT_CONST);
	assert_int_equal(col("st")->default_kind, DEFAULT_STABLE);
	assert_int_equal(col("cd")->default_kind, DEFAULT_STABLE);
	assert_int_equal(col("s2")->default_kind, DEFAULT_STABLE);
	assert_int_equal(col("viatext")->default_kind, DEFAULT_STABLE);
	assert_int_equal(col("v")->default_kind, DEFAULT_VOLATILE);
	assert_int_equal(col("r")->default_kind, DEFAULT_VOLATILE);
}

static void
relation__reach__through_views(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_int_equal(rel("acc")->reach, REACH_SHARDED);
	assert_int_equal(rel("ref")->reach, REACH_REFERENCE);
	assert_int_equal(rel("loc")->reach, REACH_LOCAL);
	assert_int_equal(rel("v_acc")->reach, REACH_SHARDED);
	assert_int_equal(rel("v_v")->reach, REACH_SHARDED | REACH_LOCAL);
	assert_int_equal(rel("v_ref")->reach, REACH_REFERENCE);
	assert_int_equal(rel("v_const")->reach, 0);
	assert_int_equal(rel("v_vol")->reach, REACH_LOCAL | REACH_VOLATILE);
	assert_int_equal(rel("v_seq")->reach, REACH_VOLATILE);
	assert_int_equal(rel("v_pg")->reach, REACH_LOCAL);
	assert_int_equal(rel("v_op")->reach, REACH_VOLATILE);
	assert_int_equal(rel("v_calls")->reach, REACH_VOLATILE);
	assert_int_equal(rel("mv")->reach, REACH_LOCAL);
	assert_int_equal(rel("pg_tables")->reach, REACH_LOCAL);
	assert_int_equal(rel("pg_locks")->reach & REACH_VOLATILE, REACH_VOLATILE);
	assert_null(rel("v_acc")->table);
}

static void
relation__partitions__are_their_configured_table(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_ptr_equal(rel("part")->table, &tables[2]);
	assert_false(rel("part")->is_partition);
	assert_ptr_equal(rel("part_1_1")->table, &tables[2]);
	assert_true(rel("part_1_1")->is_partition);
	assert_int_equal(rel("part_1_1")->reach, REACH_SHARDED);
	const struct catalog_relation *par = catalog_find_relation(cat, "cat_b", "par", NULL, 0);

	assert_null(par->table);
	assert_int_equal(par->reach, REACH_LOCAL | REACH_SHARDED);
}

static void
relation__triggers_and_rules__seen_from_the_parent_too(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_true(rel("part_1_1")->has_triggers);
	assert_true(rel("part")->has_triggers);
	assert_true(rel("loc")->has_triggers);
	assert_false(rel("acc")->has_triggers);
	assert_false(rel("v_acc")->has_triggers);
}

static void
find_function__builtins__their_own_words(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_int_equal(fn("lower").volatility, FUNCTION_IMMUTABLE);
	assert_true(fn("lower").builtin);
	assert_int_equal(fn("now").volatility, FUNCTION_STABLE);
	assert_int_equal(fn("random").volatility, FUNCTION_VOLATILE);
	assert_false(fn("random").has_effects);
	assert_true(fn("count").is_aggregate);
	assert_true(fn("row_number").is_window);
	assert_true(fn("generate_series").returns_set);
	assert_true(fn("nextval").has_effects);
	assert_true(fn("pg_try_advisory_lock").has_effects);
	assert_int_equal(fn("no_such").volatility, FUNCTION_UNKNOWN);
	assert_true(fn("table_to_xml").touches_sharded);
}

static void
find_function__overload_on_path__the_worst(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_int_equal(fn("abs").volatility, FUNCTION_VOLATILE);
	assert_false(fn("abs").builtin);
	assert_int_equal(catalog_find_function(cat, NULL, "abs", NULL, 0).volatility, FUNCTION_IMMUTABLE);
	assert_int_equal(catalog_find_function(cat, "pg_catalog", "abs", path, 2).volatility, FUNCTION_IMMUTABLE);
}

static void
find_function__bodies__touch_and_have_effects_by_their_words(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_true(fn("reads_acc").touches_sharded);
	assert_true(fn("calls_it").touches_sharded);
	assert_true(fn("by_view").touches_sharded);
	assert_true(fn("atomic_body").touches_sharded);
	assert_true(fn("odd_body").touches_sharded);
	assert_true(fn("steps").has_effects);
	assert_false(fn("stab").has_effects);
	assert_false(fn("innocent").touches_sharded);
	assert_false(fn("innocent").has_effects);
}

static void
operator_is_safe__builtin_pure_and_volatile(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_true(catalog_operator_is_safe(cat, "="));
	assert_true(catalog_operator_is_safe(cat, "##@"));
	assert_false(catalog_operator_is_safe(cat, "###"));
	assert_false(catalog_operator_is_safe(cat, "~~~~~"));
}

static void
find_type__names__oids(void **state)
{
	(void)state;
	NEED_SERVER();
	assert_int_equal(catalog_find_type(cat, "pg_catalog", "int4", NULL, 0), 23);
	assert_int_equal(catalog_find_type(cat, NULL, "bool", NULL, 0), 16);
	assert_int_equal(catalog_find_type(cat, NULL, "_int8", NULL, 0), 1016);
	assert_int_not_equal(catalog_find_type(cat, NULL, "color", path, 2), 0);
	assert_int_equal(catalog_find_type(cat, NULL, "color", NULL, 0), 0);
}

static void
name_has_effects__lists__exact_and_patterns(void **state)
{
	(void)state;
	assert_true(function_name_has_effects("nextval"));
	assert_true(function_name_has_effects("pg_advisory_xact_lock_shared"));
	assert_true(function_name_has_effects("lo_unlink"));
	assert_false(function_name_has_effects("lo_get"));
	assert_true(function_name_has_effects("dblink_exec"));
	assert_false(function_name_has_effects("currval"));
	assert_false(function_name_has_effects("pg_sleep"));
	assert_false(function_name_has_effects("lower"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(find_relation__search_path__pg_catalog_first_then_in_order),
	    cmocka_unit_test(find_column__live_columns__index_skips_dropped),
	    cmocka_unit_test(column__domain_over_domain__base_type_and_default),
	    cmocka_unit_test(column__collations__byte_order_and_determinism),
	    cmocka_unit_test(column__defaults__each_kind),
	    cmocka_unit_test(relation__reach__through_views),
	    cmocka_unit_test(relation__partitions__are_their_configured_table),
	    cmocka_unit_test(relation__triggers_and_rules__seen_from_the_parent_too),
	    cmocka_unit_test(find_function__builtins__their_own_words),
	    cmocka_unit_test(find_function__overload_on_path__the_worst),
	    cmocka_unit_test(find_function__bodies__touch_and_have_effects_by_their_words),
	    cmocka_unit_test(operator_is_safe__builtin_pure_and_volatile),
	    cmocka_unit_test(find_type__names__oids),
	    cmocka_unit_test(name_has_effects__lists__exact_and_patterns),
	};

	return cmocka_run_group_tests_name("catalog", tests, load, unload);
}
