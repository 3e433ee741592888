/* link: proxy/base/mem.o proxy/base/log.o proxy/base/arena.o proxy/base/diag.o proxy/sql/scan.o proxy/sql/scan_literal.o proxy/route/router.o proxy/route/router_value.o shardmap/decimal.o shardmap/key.o shardmap/key_input.o shardmap/key_type.o shardmap/map.o shardmap/rowhash.o shardmap/text.o */
/* SPDX-License-Identifier: BSD-2-Clause */
/* The router with plans made by hand. The map has 256 shards of 64 buckets each, so a golden vector's shard
 * is its bucket (shardmap.md) divided by 64. */
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

#include "pgspan/config.h"
#include "pgspan/router.h"
#include "pgspan/scan.h"

enum {
	SHARD_OF_0 = 7099 / 64,
	SHARD_OF_1 = 2010 / 64,
	SHARD_OF_42 = 7135 / 64,
	SHARD_OF_MINUS_1 = 1737 / 64,
	SHARD_OF_MAX = 6548 / 64,
	SHARD_OF_CUSTOMER_1 = 12184 / 64,
	SHARD_OF_UUID = 8345 / 64,
	ALL = 256,
};

#define UUID "018f4b8e-37f0-7cc4-b5f2-0f62d09ca662"

static struct database_config db;
static char *key_names[] = {"k", "l"};
static struct table_config one_key = {TABLE_SHARDED, NULL, NULL, key_names, 1};
static struct table_config two_keys = {TABLE_SHARDED, NULL, NULL, key_names, 2};

static int
setup(void **state)
{
	static struct shard_config shards[256];
	static char name[] = "accounts";
	char err[256] = "";

	(void)state;
	struct shardmap_builder *b = shardmap_builder_new(16384, SHARDMAP_XXH64, err, sizeof(err));

	assert_non_null(b);
	for (int i = 0; i < 256; i++) {
		char ranges[32];

		snprintf(ranges, sizeof(ranges), "%d-%d", i * 64, i * 64 + 63);
		assert_int_equal(shardmap_builder_add(b, i, ranges, err, sizeof(err)), RC_OK);
		shards[i].number = i;
	}
	db.map = shardmap_builder_build(b, err, sizeof(err));
	assert_non_null(db.map);
	shardmap_builder_free(b);
	db.sharded = true;
	db.shards = shards;
	db.n_shards = 256;
	one_key.name = two_keys.name = name;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	shardmap_unref(db.map);
	return 0;
}

/* --- one run: a statement's text, and the sources that point into it --- */

static struct scan scan;
static struct diag diag;
static struct target_set targets;

static struct route_values
values_of(const char *sql)
{
	scan_fini(&scan);
	scan_init(&scan);
	assert_int_equal(scan_sql(sql, strlen(sql), 0, &scan), 0);
	return (struct route_values){.sql = sql, .scan = &scan, .utf8 = true};
}

/* -1: refused; ALL: all shards; 1000 + n: n shards, else the one shard. */
static int
outcome(enum route_status st)
{
	if (st == ROUTED_REFUSED)
		return -1;
	if (targets.count == 256)
		return ALL;
	return targets.count == 1 ? target_first(&targets) : 1000 + targets.count;
}

static int
route(const struct route_values *v, enum key_type type, const struct key_source *sources, int n)
{
	struct key_condition c = {0, sources, n};
	struct key_group g = {&one_key, &type, &c, 1};
	struct plan p = {.route = ROUTE_KEYED, .multi = MULTI_CONCAT, .groups = &g, .n_groups = 1};

	diag_clear(&diag);
	return outcome(route_resolve(&p, v, &db, 200, &targets, &diag));
}

/* The statement's first literal with those casts. */
static int
literal(enum key_type type, const char *text, bool negate, uint32_t cast, uint32_t inner)
{
	struct route_values v = values_of(text);
	struct key_source s = {KEY_SRC_LITERAL, 0, negate, cast, inner};

	return route(&v, type, &s, 1);
}

static int
param(enum key_type type, const char *data, int len, int format, uint32_t oid, uint32_t cast)
{
	struct route_param p = {data, len, (int16_t)format, oid};
	struct route_values v = {.params = &p, .n_params = 1, .utf8 = true};
	struct key_source s = {KEY_SRC_PARAM, 1, false, cast, 0};

	return route(&v, type, &s, 1);
}

#define TEXT_PARAM(type, s, oid, cast) param(type, s, (int)strlen(s), 0, oid, cast)
#define BINARY_PARAM(type, s, oid, cast) param(type, s, (int)sizeof(s) - 1, 1, oid, cast)

static int
array(enum key_type type, const char *text, uint32_t oid)
{
	struct route_param p = {text, (int32_t)strlen(text), 0, oid};
	struct route_values v = {.params = &p, .n_params = 1, .utf8 = true};
	struct key_source s = {.kind = KEY_SRC_ARRAY_PARAM, .index = 1};

	return route(&v, type, &s, 1);
}

static void
resolve__golden_integers__literals_in_every_spelling(void **state)
{
	(void)state;
	for (enum key_type t = KEY_INT2; t <= KEY_INT8; t++) {
		assert_int_equal(literal(t, "0", false, 0, 0), SHARD_OF_0);
		assert_int_equal(literal(t, "1", false, 0, 0), SHARD_OF_1);
		assert_int_equal(literal(t, "42", false, 0, 0), SHARD_OF_42);
		assert_int_equal(literal(t, "42.0", false, 0, 0), SHARD_OF_42);
		assert_int_equal(literal(t, "4.2e1", false, 0, 0), SHARD_OF_42);
		assert_int_equal(literal(t, "'42'", false, 0, 0), SHARD_OF_42);
		assert_int_equal(literal(t, "' +042 '", false, 0, 0), SHARD_OF_42);
		assert_int_equal(literal(t, "E'\\x34\\x32'", false, 0, 0), SHARD_OF_42);
		assert_int_equal(literal(t, "$$42$$", false, 0, 0), SHARD_OF_42);
		assert_int_equal(literal(t, "42", false, 20, 0), SHARD_OF_42);
		assert_int_equal(literal(t, "'42'", false, 23, 0), SHARD_OF_42);
		assert_int_equal(literal(t, "'42'", false, 23, 25), SHARD_OF_42);
		assert_int_equal(literal(t, "'42'", false, 20, 23), SHARD_OF_42);
		assert_int_equal(literal(t, "42", false, 20, 21), SHARD_OF_42);
		assert_int_equal(literal(t, "42.5", false, 20, 1700), ALL); /* two steps that may round */
		assert_int_equal(literal(t, "1", true, 0, 0), SHARD_OF_MINUS_1);
		assert_int_equal(literal(t, "'-1'", false, 0, 0), SHARD_OF_MINUS_1);
	}
	assert_int_equal(literal(KEY_INT8, "9223372036854775807", false, 0, 0), SHARD_OF_MAX);
	assert_int_equal(literal(KEY_INT8, "'9223372036854775807'", false, 0, 0), SHARD_OF_MAX);
}

static void
resolve__golden_integers__parameters_of_each_width(void **state)
{
	(void)state;
	assert_int_equal(TEXT_PARAM(KEY_INT8, "42", 0, 0), SHARD_OF_42);
	assert_int_equal(TEXT_PARAM(KEY_INT4, "42", 20, 0), SHARD_OF_42);
	assert_int_equal(TEXT_PARAM(KEY_INT8, "42", 0, 20), SHARD_OF_42);
	assert_int_equal(TEXT_PARAM(KEY_INT8, "42", 25, 20), SHARD_OF_42);
	assert_int_equal(BINARY_PARAM(KEY_INT8, "\0\52", 21, 0), SHARD_OF_42);
	assert_int_equal(BINARY_PARAM(KEY_INT8, "\0\0\0\52", 23, 0), SHARD_OF_42);
	assert_int_equal(BINARY_PARAM(KEY_INT8, "\0\0\0\0\0\0\0\52", 20, 0), SHARD_OF_42);
	assert_int_equal(BINARY_PARAM(KEY_INT4, "\0\0\0\0\0\0\0\52", 20, 0), SHARD_OF_42);
	assert_int_equal(BINARY_PARAM(KEY_INT8, "\0\0\0\0\0\0\0\52", 0, 0), SHARD_OF_42);
	assert_int_equal(BINARY_PARAM(KEY_INT8, "\0\0\0\52", 0, 23), SHARD_OF_42);
	assert_int_equal(BINARY_PARAM(KEY_INT8, "\0\0\0\52", 23, 20), SHARD_OF_42);
	assert_int_equal(BINARY_PARAM(KEY_INT8, "\377\377", 21, 0), SHARD_OF_MINUS_1);
	assert_int_equal(BINARY_PARAM(KEY_INT8, "42", 25, 23), ALL);
}

static void
resolve__golden_text_and_uuid__every_spelling(void **state)
{
	static const char uuid[] = "\x01\x8f\x4b\x8e\x37\xf0\x7c\xc4\xb5\xf2\x0f\x62\xd0\x9c\xa6\x62";

	(void)state;
	assert_int_equal(literal(KEY_TEXT, "'customer-1'", false, 0, 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(literal(KEY_TEXT, "E'customer\\x2d1'", false, 0, 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(literal(KEY_TEXT, "U&'customer\\002d1'", false, 0, 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(literal(KEY_TEXT, "$x$customer-1$x$", false, 0, 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(literal(KEY_TEXT, "'customer-1'", false, 25, 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(literal(KEY_VARCHAR, "'customer-1'", false, 0, 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(literal(KEY_BPCHAR, "'customer-1   '", false, 0, 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(TEXT_PARAM(KEY_TEXT, "customer-1", 0, 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(BINARY_PARAM(KEY_TEXT, "customer-1", 25, 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(literal(KEY_UUID, "'" UUID "'", false, 0, 0), SHARD_OF_UUID);
	assert_int_equal(literal(KEY_UUID, "'{018F4B8E37F07CC4B5F20F62D09CA662}'", false, 2950, 0), SHARD_OF_UUID);
	assert_int_equal(TEXT_PARAM(KEY_UUID, UUID, 0, 0), SHARD_OF_UUID);
	assert_int_equal(BINARY_PARAM(KEY_UUID, uuid, 2950, 0), SHARD_OF_UUID);
}

static void
resolve__values_that_meet_no_row__preferred_shard(void **state)
{
	struct route_values v = values_of("");
	struct key_source null = {.kind = KEY_SRC_NULL}, unknown = {.kind = KEY_SRC_UNKNOWN}, bad = {KEY_SRC_LITERAL, 7, 0, 0, 0};

	(void)state;
	assert_int_equal(route(&v, KEY_INT8, &null, 1), 200);
	assert_int_equal(literal(KEY_INT8, "42.5", false, 0, 0), 200);
	assert_int_equal(param(KEY_INT8, NULL, -1, 0, 0, 0), 200);
	assert_int_equal(literal(KEY_INT8, "'x'", false, 0, 0), 0); /* PostgreSQL's error */
	assert_int_equal(route(&v, KEY_INT8, &unknown, 1), ALL);
	v = values_of("1");
	assert_int_equal(route(&v, KEY_INT8, &bad, 1), ALL);
}

static void
resolve__in_list__union(void **state)
{
	struct route_values v = values_of("1, 42, 42.5, '1'");
	struct key_source s[] = {{KEY_SRC_LITERAL, 0, 0, 0, 0}, {KEY_SRC_LITERAL, 1, 0, 0, 0}, {KEY_SRC_LITERAL, 2, 0, 0, 0},
	    {KEY_SRC_LITERAL, 3, 0, 0, 0}, {.kind = KEY_SRC_NULL}};

	(void)state;
	assert_int_equal(route(&v, KEY_INT8, s, 5), 1002);
	assert_true(target_has(&targets, SHARD_OF_1));
	assert_true(target_has(&targets, SHARD_OF_42));
	/* '70000' beside 1 is an int4, which is no error for a smallint key. */
	v = values_of("1, '70000'");
	assert_int_equal(route(&v, KEY_INT2, s, 2), ALL);
	v = values_of("'1', '70000'");
	assert_int_equal(route(&v, KEY_INT2, s, 2), 0);
}

static void
resolve__array_text__elements_unescaped(void **state)
{
	(void)state;
	assert_int_equal(array(KEY_INT8, "{42}", 0), SHARD_OF_42);
	assert_int_equal(array(KEY_INT8, " { 1 , \"42\" , NULL } ", 1016), 1002);
	assert_int_equal(array(KEY_INT8, "{}", 0), 200);
	assert_int_equal(array(KEY_INT8, "{null}", 0), 200);
	assert_int_equal(array(KEY_TEXT, "{\"customer\\-1\"}", 1009), SHARD_OF_CUSTOMER_1);
	assert_int_equal(array(KEY_TEXT, "{ customer-1 }", 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(array(KEY_TEXT, "{customer\\-1,NULL}", 0), SHARD_OF_CUSTOMER_1);
	assert_int_equal(array(KEY_TEXT, "{nul\\l}", 0), literal(KEY_TEXT, "'null'", false, 0, 0));
	assert_int_equal(array(KEY_TEXT, "{\"NULL\"}", 0), literal(KEY_TEXT, "'NULL'", false, 0, 0));
	assert_int_equal(array(KEY_TEXT, "{\"a,}\"}", 0), literal(KEY_TEXT, "'a,}'", false, 0, 0));
	assert_int_equal(array(KEY_INT8, "{42", 0), ALL);
	assert_int_equal(array(KEY_INT8, "{42}x", 0), ALL);
	assert_int_equal(array(KEY_INT8, "{42,}", 0), ALL);
	assert_int_equal(array(KEY_INT8, "{{42}}", 0), ALL);
	assert_int_equal(array(KEY_INT8, "[1:1]={42}", 0), ALL);
	assert_int_equal(array(KEY_INT8, "{\"42", 0), ALL);
	assert_int_equal(array(KEY_INT8, "{42\\", 0), ALL);
	assert_int_equal(array(KEY_INT8, "", 0), ALL);
	assert_int_equal(array(KEY_INT8, "{42}", 9999), ALL);
}

static void
resolve__array_literal__read_from_the_text(void **state)
{
	struct route_values v = values_of("'{1,42}'");
	struct key_source s = {.kind = KEY_SRC_ARRAY_LITERAL};

	(void)state;
	assert_int_equal(route(&v, KEY_INT4, &s, 1), 1002);
	s.cast_oid = 1007;
	assert_int_equal(route(&v, KEY_INT4, &s, 1), 1002);
}

static void
resolve__array_binary__checked_lengths(void **state)
{
	static const char good[] = "\0\0\0\1\0\0\0\1\0\0\0\27\0\0\0\2\0\0\0\1\0\0\0\4\0\0\0\52\377\377\377\377";
	static const char none[] = "\0\0\0\0\0\0\0\0\0\0\0\27";
	struct route_param p = {good, sizeof(good) - 1, 1, 1007};
	struct route_values v = {.params = &p, .n_params = 1, .utf8 = true};
	struct key_source s = {.kind = KEY_SRC_ARRAY_PARAM, .index = 1};

	(void)state;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), SHARD_OF_42);
	p.type_oid = 0;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), SHARD_OF_42);
	p.type_oid = 1016; /* declared int8[], but int4 inside: an error there */
	assert_int_equal(route(&v, KEY_INT8, &s, 1), ALL);
	p.type_oid = 1007;
	for (p.len = 0; p.len < (int)sizeof(good) - 1; p.len++) {
		char *exact = xmalloc((size_t)p.len + 1);

		memcpy(exact, good, (size_t)p.len);
		p.data = exact;
		assert_int_equal(route(&v, KEY_INT8, &s, 1), ALL);
		free(exact);
	}
	static const char longer[] = "\0\0\0\1\0\0\0\0\0\0\0\27\0\0\0\1\0\0\0\1\0\0\0\4\0\0\0\52x";

	p = (struct route_param){longer, sizeof(longer) - 2, 1, 1007};
	assert_int_equal(route(&v, KEY_INT8, &s, 1), SHARD_OF_42);
	p.len++;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), ALL);
	p = (struct route_param){none, sizeof(none) - 1, 1, 1007};
	assert_int_equal(route(&v, KEY_INT8, &s, 1), 200);
}

static void
resolve__other_client_encoding__text_beyond_ascii_refused(void **state)
{
	struct route_values v = values_of("'caf\303\251'");
	struct key_source s = {.kind = KEY_SRC_LITERAL};

	(void)state;
	assert_int_not_equal(route(&v, KEY_TEXT, &s, 1), -1);
	v.utf8 = false;
	assert_int_equal(route(&v, KEY_TEXT, &s, 1), -1);
	assert_string_equal(diag.sqlstate, "0A000");
	v = values_of("'customer-1'");
	v.utf8 = false;
	assert_int_equal(route(&v, KEY_TEXT, &s, 1), SHARD_OF_CUSTOMER_1);
}

static void
resolve__execute__arguments_of_the_outer_statement(void **state)
{
	static struct scan inner_scan;
	struct route_param bound = {"42", 2, 0, 0};
	struct route_values outer = values_of("'42', 42, 41.6, 42.4");
	struct key_source args[] = {{KEY_SRC_LITERAL, 0, 0, 0, 0}, {KEY_SRC_LITERAL, 1, 0, 0, 0}, {KEY_SRC_LITERAL, 2, 0, 0, 0},
	    {KEY_SRC_PARAM, 1, 0, 0, 0}, {.kind = KEY_SRC_NULL}, {.kind = KEY_SRC_UNKNOWN}};
	uint32_t types[] = {0, 20, 23};
	struct route_values v = {.sql = "", .scan = &inner_scan, .exec_args = args, .n_exec_args = 6, .exec_types = types,
	    .n_exec_types = 3, .outer = &outer, .utf8 = true};
	struct key_source s = {.kind = KEY_SRC_PARAM, .index = 1};

	(void)state;
	outer.params = &bound;
	outer.n_params = 1;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), SHARD_OF_42);
	s.index = 2;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), SHARD_OF_42);
	s.index = 3; /* coerced to int4 when it is passed */
	assert_int_equal(route(&v, KEY_INT8, &s, 1), SHARD_OF_42);
	types[2] = 0;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), SHARD_OF_42);
	types[2] = 1700;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), 200);
	s.index = 4;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), SHARD_OF_42);
	s.index = 5;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), 200);
	s.index = 6;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), ALL);
	s.index = 7;
	assert_int_equal(route(&v, KEY_INT8, &s, 1), ALL);
}

/* --- groups and plans --- */

static struct key_source lit[] = {{KEY_SRC_LITERAL, 0, 0, 0, 0}, {KEY_SRC_LITERAL, 1, 0, 0, 0}};
static const enum key_type types[] = {KEY_INT8, KEY_TEXT};

static int
resolve_groups(const char *sql, const struct key_group *g, int n, enum multi_kind multi)
{
	struct route_values v = values_of(sql);
	struct plan p = {.route = ROUTE_KEYED, .multi = multi, .groups = g, .n_groups = n};

	diag_clear(&diag);
	diag_set(&p.refusal, "0A000", "not over several shards");
	return outcome(route_resolve(&p, &v, &db, -1, &targets, &diag));
}

static void
resolve__conditions_of_a_group__intersect(void **state)
{
	struct key_condition c[] = {{0, lit, 2}, {0, &lit[1], 1}};
	struct key_group g = {&one_key, types, c, 2};

	(void)state;
	assert_int_equal(resolve_groups("1, 42", &g, 1, MULTI_REFUSE), SHARD_OF_42);
	c[0].n_sources = 1;
	assert_int_equal(resolve_groups("1, 42", &g, 1, MULTI_REFUSE), 0); /* no row: the first */
	g.n_conditions = 0;
	assert_int_equal(resolve_groups("1, 42", &g, 1, MULTI_CONCAT), ALL);
	assert_int_equal(resolve_groups("1, 42", &g, 1, MULTI_REFUSE), -1);
	assert_string_equal(diag.message, "not over several shards");
}

static void
resolve__several_groups__one_shard_or_refused(void **state)
{
	struct key_condition a = {0, &lit[0], 1}, b = {0, &lit[1], 1};
	struct key_group g[] = {{&one_key, types, &a, 1}, {&one_key, types, &b, 1}};

	(void)state;
	assert_int_equal(resolve_groups("42, '42'", g, 2, MULTI_REFUSE), SHARD_OF_42);
	assert_int_equal(resolve_groups("42, 1", g, 2, MULTI_CONCAT), -1);
	assert_string_equal(diag.sqlstate, "0A000");
	assert_string_equal(diag.message, "statement joins rows of several shards");
	assert_int_equal(resolve_groups("42.5, 1", g, 2, MULTI_REFUSE), SHARD_OF_1);
	assert_int_equal(resolve_groups("1, 42.5", g, 2, MULTI_REFUSE), SHARD_OF_1);
	g[0].n_conditions = 0;
	assert_int_equal(resolve_groups("1, 1", g, 2, MULTI_CONCAT), -1);
	g[1].n_conditions = 0;
	assert_int_equal(resolve_groups("1, 1", g, 2, MULTI_CONCAT), -1);
}

static void
resolve__key_of_two_columns__combinations(void **state)
{
	struct key_source in[] = {{KEY_SRC_LITERAL, 0, 0, 0, 0}, {KEY_SRC_LITERAL, 2, 0, 0, 0}, {.kind = KEY_SRC_UNKNOWN}};
	struct key_condition c[] = {{0, in, 1}, {1, &lit[1], 1}, {0, &in[2], 1}};
	struct key_group g = {&two_keys, types, c, 2};
	struct span key[] = {SPAN_LIT("\0\0\0\0\0\0\0\52"), SPAN_LIT("a")};
	int shard = shardmap_shard(db.map, types, key, 2);

	(void)state;
	assert_int_equal(resolve_groups("42, 'a', 1", &g, 1, MULTI_REFUSE), shard);
	g.n_conditions = 3; /* a third that is not known takes nothing away */
	assert_int_equal(resolve_groups("42, 'a', 1", &g, 1, MULTI_REFUSE), shard);
	g.n_conditions = 2;
	c[0].n_sources = 2;
	assert_int_equal(resolve_groups("42, 'a', 1", &g, 1, MULTI_CONCAT), 1002);
	assert_true(target_has(&targets, shard));
	c[0].n_sources = 1;
	g.n_conditions = 1;
	assert_int_equal(resolve_groups("42, 'a', 1", &g, 1, MULTI_CONCAT), ALL);
	g.n_conditions = 2;
	c[0].sources = &in[2];
	assert_int_equal(resolve_groups("42, 'a', 1", &g, 1, MULTI_CONCAT), ALL);
	assert_int_equal(resolve_groups("42.5, 'a', 1", &(struct key_group){&two_keys, types, &(struct key_condition){0, in, 1}, 1}, 1,
	    MULTI_REFUSE), 0);
}

static void
resolve__two_columns_too_many_combinations__all(void **state)
{
	struct key_source in[40];
	struct key_condition c[] = {{0, in, 40}, {1, in, 40}};
	struct key_group g = {&two_keys, (enum key_type[]){KEY_INT8, KEY_INT8}, c, 2};
	char sql[400] = "0";
	size_t n = 1;

	(void)state;
	for (int i = 0; i < 40; i++) {
		in[i] = (struct key_source){KEY_SRC_LITERAL, (uint32_t)i, 0, 0, 0};
		n += (size_t)snprintf(sql + n, sizeof(sql) - n, ",%d", i);
	}
	assert_int_equal(resolve_groups(sql, &g, 1, MULTI_CONCAT), ALL);
	c[1].n_sources = 1;
	assert_int_not_equal(resolve_groups(sql, &g, 1, MULTI_CONCAT), ALL);
	assert_true(targets.count <= 40);
}

static void
resolve__other_routes__as_the_plan_says(void **state)
{
	struct route_values v = values_of("");
	struct plan p = {.route = ROUTE_ANY};

	(void)state;
	diag_clear(&diag);
	assert_int_equal(outcome(route_resolve(&p, &v, &db, 7, &targets, &diag)), 7);
	assert_int_equal(outcome(route_resolve(&p, &v, &db, -1, &targets, &diag)), 0);
	p.route = ROUTE_FIRST;
	assert_int_equal(outcome(route_resolve(&p, &v, &db, 7, &targets, &diag)), 0);
	p.route = ROUTE_ALL;
	p.multi = MULTI_SAME;
	assert_int_equal(outcome(route_resolve(&p, &v, &db, 7, &targets, &diag)), ALL);
	p.route = ROUTE_REFUSE;
	diag_set(&p.refusal, "0A000", "no");
	assert_int_equal(outcome(route_resolve(&p, &v, &db, 7, &targets, &diag)), -1);
	assert_string_equal(diag.message, "no");
}

/* --- rows --- */

static void
insert__rows__each_to_its_shard(void **state)
{
	struct route_values v = values_of("42, '1', 41.6, 'x'");
	struct key_source s[] = {{KEY_SRC_LITERAL, 0, 0, 0, 0}, {KEY_SRC_LITERAL, 1, 0, 0, 0}, {KEY_SRC_LITERAL, 2, 0, 0, 0},
	    {KEY_SRC_LITERAL, 3, 0, 0, 0}};
	struct plan p = {.route = ROUTE_INSERT, .insert = {&one_key, types, s, 4}};
	int rows[4];

	(void)state;
	assert_int_equal(route_insert(&p, &v, &db, rows, &targets, &diag), ROUTED);
	assert_int_equal(rows[0], SHARD_OF_42);
	assert_int_equal(rows[1], SHARD_OF_1);
	assert_int_equal(rows[2], SHARD_OF_42);
	assert_int_equal(rows[3], 0); /* PostgreSQL raises its error */
	assert_int_equal(targets.count, 3);
}

static void
insert__no_value__refused_with_the_reason(void **state)
{
	struct route_values v = values_of("");
	struct key_source s = {.kind = KEY_SRC_NULL};
	struct plan p = {.route = ROUTE_INSERT, .insert = {&one_key, types, &s, 1}};

	(void)state;
	diag_clear(&diag);
	assert_int_equal(route_insert(&p, &v, &db, NULL, &targets, &diag), ROUTED_REFUSED);
	assert_string_equal(diag.sqlstate, "23502");
	assert_string_equal(diag.message, "null value in column \"k\" of relation \"accounts\" violates not-null constraint");
	s.kind = KEY_SRC_DEFAULT;
	diag_clear(&diag);
	assert_int_equal(route_insert(&p, &v, &db, NULL, &targets, &diag), ROUTED_REFUSED);
	assert_string_equal(diag.sqlstate, "0A000");
	assert_string_equal(diag.hint, "Name the shard key column \"k\" and give it a value.");
	s.kind = KEY_SRC_UNKNOWN;
	diag_clear(&diag);
	assert_int_equal(route_insert(&p, &v, &db, NULL, &targets, &diag), ROUTED_REFUSED);
	assert_string_equal(diag.hint, "Give the shard key column \"k\" a constant or a parameter.");
}

static void
copy_row__text_and_binary__its_shard(void **state)
{
	struct copy_plan c = {.table = &one_key, .types = types, .format = COPY_FORMAT_TEXT};
	struct span f = SPAN_LIT("42");
	int shard = -1;

	(void)state;
	assert_int_equal(route_copy_row(&c, &f, true, &db, &shard, &diag), ROUTED);
	assert_int_equal(shard, SHARD_OF_42);
	f = SPAN_LIT("nonsense");
	assert_int_equal(route_copy_row(&c, &f, true, &db, &shard, &diag), ROUTED);
	assert_int_equal(shard, 0);
	c.format = COPY_FORMAT_BINARY;
	f = SPAN_LIT("\0\0\0\0\0\0\0\52");
	assert_int_equal(route_copy_row(&c, &f, true, &db, &shard, &diag), ROUTED);
	assert_int_equal(shard, SHARD_OF_42);
	f = SPAN_NONE;
	diag_clear(&diag);
	assert_int_equal(route_copy_row(&c, &f, true, &db, &shard, &diag), ROUTED_REFUSED);
	assert_string_equal(diag.sqlstate, "23502");
}

static void
copy_row__two_columns__as_a_condition_on_both(void **state)
{
	struct copy_plan c = {.table = &two_keys, .types = types, .format = COPY_FORMAT_CSV};
	struct span f[] = {SPAN_LIT("42"), SPAN_LIT("a")}, key[] = {SPAN_LIT("\0\0\0\0\0\0\0\52"), SPAN_LIT("a")};
	int shard = -1;

	(void)state;
	assert_int_equal(route_copy_row(&c, f, true, &db, &shard, &diag), ROUTED);
	assert_int_equal(shard, shardmap_shard(db.map, types, key, 2));
}

static void
int8__limits__values_null_and_unknown(void **state)
{
	struct route_values v = values_of("10, 2.5, '7', 'x'");
	struct key_source s = {KEY_SRC_LITERAL, 0, 0, 0, 0};
	int64_t n = 0;

	(void)state;
	assert_int_equal(route_int8(&v, &s, &n), RC_OK);
	assert_int_equal(n, 10);
	s.negate = true;
	assert_int_equal(route_int8(&v, &s, &n), RC_OK);
	assert_int_equal(n, -10);
	s = (struct key_source){KEY_SRC_LITERAL, 1, 0, 0, 0};
	assert_int_equal(route_int8(&v, &s, &n), RC_OK);
	assert_int_equal(n, 3);
	s.index = 2;
	assert_int_equal(route_int8(&v, &s, &n), RC_OK);
	assert_int_equal(n, 7);
	s.index = 3;
	assert_int_equal(route_int8(&v, &s, &n), RC_FAIL);
	s.kind = KEY_SRC_NULL;
	assert_int_equal(route_int8(&v, &s, &n), RC_AGAIN);
}

static void
target_set__walk__in_order(void **state)
{
	struct target_set t;

	(void)state;
	target_clear(&t);
	assert_int_equal(target_first(&t), -1);
	target_add(&t, 255);
	target_add(&t, 0);
	target_add(&t, 64);
	target_add(&t, 64);
	assert_int_equal(t.count, 3);
	assert_int_equal(target_first(&t), 0);
	assert_int_equal(target_next(&t, 0), 64);
	assert_int_equal(target_next(&t, 64), 255);
	assert_int_equal(target_next(&t, 255), -1);
	assert_true(target_has(&t, 255));
	assert_false(target_has(&t, 63));
}

static void
resolve__speed__printed(void **state)
{
	struct route_values v = values_of("42");
	struct key_source s = {.kind = KEY_SRC_LITERAL};
	struct key_condition c = {0, &s, 1};
	struct key_group g = {&one_key, types, &c, 1};
	struct plan p = {.route = ROUTE_KEYED, .groups = &g, .n_groups = 1};
	struct timespec a, b;
	int n = 2000000, shard = 0;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < n; i++) {
		assert_true(route_resolve(&p, &v, &db, -1, &targets, &diag) == ROUTED);
		shard += target_first(&targets);
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("route_resolve, one literal: %.1f ns\n",
	    ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / n);
	assert_int_equal(shard, n * SHARD_OF_42);
	scan_fini(&scan);
}

int
main(void)
{
	scan_init(&scan);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(resolve__golden_integers__literals_in_every_spelling),
	    cmocka_unit_test(resolve__golden_integers__parameters_of_each_width),
	    cmocka_unit_test(resolve__golden_text_and_uuid__every_spelling),
	    cmocka_unit_test(resolve__values_that_meet_no_row__preferred_shard),
	    cmocka_unit_test(resolve__in_list__union),
	    cmocka_unit_test(resolve__array_text__elements_unescaped),
	    cmocka_unit_test(resolve__array_literal__read_from_the_text),
	    cmocka_unit_test(resolve__array_binary__checked_lengths),
	    cmocka_unit_test(resolve__other_client_encoding__text_beyond_ascii_refused),
	    cmocka_unit_test(resolve__execute__arguments_of_the_outer_statement),
	    cmocka_unit_test(resolve__conditions_of_a_group__intersect),
	    cmocka_unit_test(resolve__several_groups__one_shard_or_refused),
	    cmocka_unit_test(resolve__key_of_two_columns__combinations),
	    cmocka_unit_test(resolve__two_columns_too_many_combinations__all),
	    cmocka_unit_test(resolve__other_routes__as_the_plan_says),
	    cmocka_unit_test(insert__rows__each_to_its_shard),
	    cmocka_unit_test(insert__no_value__refused_with_the_reason),
	    cmocka_unit_test(copy_row__text_and_binary__its_shard),
	    cmocka_unit_test(copy_row__two_columns__as_a_condition_on_both),
	    cmocka_unit_test(int8__limits__values_null_and_unknown),
	    cmocka_unit_test(target_set__walk__in_order),
	    cmocka_unit_test(resolve__speed__printed),
	};

	return cmocka_run_group_tests_name("router", tests, setup, teardown);
}
