/* SPDX-License-Identifier: BSD-2-Clause */
/* test_plan_fake - a catalog without a server for the plan tests: catalog.h's functions over small tables, and a
 * description of plans as one line of text.
 *
 *     sharded     case_ord(tenant_id) case_item(tenant_id) small(tenant_id int4) tenants(id) case_usr(uid) case_txt(skey)
 *                 pair(a, b) ser(tenant_id; defaults of every kind) part_1 (a partition of case_ord) bad_coll bad_type
 *                 fresh (configured, not in the catalog)
 *     reference   case_ref refdef(default now()) reftrig(triggers)
 *     first       plain other
 *     views       v_sharded v_ref v_plain v_volatile;  foreign: ft;  sequence: seq */
#ifndef TEST_PLAN_FAKE_H
#define TEST_PLAN_FAKE_H

#include <stdarg.h>

#include "pgspan/catalog.h"
#include "pgspan/config.h"
#include "pgspan/plan.h"
#include "pgspan/scan.h"

enum { T_BOOL = 16, T_INT8 = 20, T_INT4 = 23, T_TEXT = 25, T_TIMESTAMP = 1114, T_NUMERIC = 1700, T_UUID = 2950 };

struct catalog {
	int server_version;
};

#define COL(n, oid) {.name = (n), .type_oid = (oid), .declared_oid = (oid), .deterministic = true}
#define COL_C(n) {.name = (n), .type_oid = T_TEXT, .declared_oid = T_TEXT, .deterministic = true, .byte_ordered = true}
#define COL_D(n, oid, d) {.name = (n), .type_oid = (oid), .declared_oid = (oid), .deterministic = true, .default_kind = (d)}

static char *key_tenant[] = {(char[]){"tenant_id"}}, *key_id[] = {(char[]){"id"}}, *key_uid[] = {(char[]){"uid"}},
            *key_skey[] = {(char[]){"skey"}}, *key_pair[] = {(char[]){"a"}, (char[]){"b"}};
static char name_public[] = "public";

#define SHARDED(n, k) {TABLE_SHARDED, name_public, (char[]){n}, (k), ARRAY_LEN(k)}
#define REFERENCE(n) {TABLE_REFERENCE, name_public, (char[]){n}, NULL, 0}

static struct table_config fake_tables[] = {
    SHARDED("case_ord", key_tenant), SHARDED("case_item", key_tenant), SHARDED("small", key_tenant), SHARDED("tenants", key_id),
    SHARDED("case_usr", key_uid), SHARDED("case_txt", key_skey), SHARDED("pair", key_pair), SHARDED("ser", key_tenant),
    SHARDED("bad_coll", key_skey), SHARDED("bad_type", key_id), SHARDED("fresh", key_id), REFERENCE("case_ref"),
    REFERENCE("refdef"), REFERENCE("reftrig"),
};

static const struct catalog_column
    c_ord[] = {COL("tenant_id", T_INT8), COL("id", T_INT8), COL_D("qty", T_INT4, DEFAULT_CONST), COL("price", T_NUMERIC), COL("note", T_TEXT), COL("at", T_TIMESTAMP)},
    c_item[] = {COL("tenant_id", T_INT8), COL("ord_id", T_INT8), COL_C("name")},
    c_small[] = {COL("tenant_id", T_INT4), COL("x", T_INT4)},
    c_tenants[] = {COL("id", T_INT8), COL("label", T_TEXT)},
    c_usr[] = {COL("uid", T_UUID), COL("mail", T_TEXT)},
    c_txt[] = {COL_C("skey"), COL("v", T_INT4)},
    c_pair[] = {COL("a", T_INT4), COL_C("b"), COL("v", T_INT4)},
    c_ser[] = {COL("tenant_id", T_INT8), COL_D("id", T_INT8, DEFAULT_SEQUENCE), COL_D("at", T_TIMESTAMP, DEFAULT_STABLE), COL_D("u", T_UUID, DEFAULT_VOLATILE)},
    c_bad_coll[] = {{.name = "skey", .type_oid = T_TEXT, .declared_oid = T_TEXT}},
    c_bad_type[] = {COL("id", T_NUMERIC)},
    c_ref[] = {COL("id", T_INT4), COL("label", T_TEXT)},
    c_refdef[] = {COL("id", T_INT4), COL_D("at", T_TIMESTAMP, DEFAULT_STABLE)},
    c_plain[] = {COL("id", T_INT4), COL("k", T_INT8), COL("tenant_id", T_INT8)},
    c_one[] = {COL("x", T_INT4)};

#define REL(n, kind, cols, r, ...) {.schema = "public", .name = (n), .relkind = (kind), .columns = (cols), .n_columns = ARRAY_LEN(cols), .reach = (r), __VA_ARGS__}

static const struct catalog_relation fake_relations[] = {
    REL("case_ord", 'r', c_ord, REACH_SHARDED, .table = &fake_tables[0]), REL("case_item", 'r', c_item, REACH_SHARDED, .table = &fake_tables[1]),
    REL("small", 'r', c_small, REACH_SHARDED, .table = &fake_tables[2]), REL("tenants", 'r', c_tenants, REACH_SHARDED, .table = &fake_tables[3]),
    REL("case_usr", 'r', c_usr, REACH_SHARDED, .table = &fake_tables[4]), REL("case_txt", 'r', c_txt, REACH_SHARDED, .table = &fake_tables[5]),
    REL("pair", 'r', c_pair, REACH_SHARDED, .table = &fake_tables[6]), REL("ser", 'r', c_ser, REACH_SHARDED, .table = &fake_tables[7]),
    REL("bad_coll", 'r', c_bad_coll, REACH_SHARDED, .table = &fake_tables[8]), REL("bad_type", 'r', c_bad_type, REACH_SHARDED, .table = &fake_tables[9]),
    REL("part_1", 'r', c_ord, REACH_SHARDED, .table = &fake_tables[0], .is_partition = true),
    REL("case_ref", 'r', c_ref, REACH_REFERENCE, .table = &fake_tables[11]), REL("refdef", 'r', c_refdef, REACH_REFERENCE, .table = &fake_tables[12]),
    REL("reftrig", 'r', c_ref, REACH_REFERENCE, .table = &fake_tables[13], .has_triggers = true),
    REL("plain", 'r', c_plain, REACH_LOCAL), REL("other", 'r', c_one, REACH_LOCAL), REL("v_sharded", 'v', c_one, REACH_SHARDED),
    REL("v_ref", 'v', c_ref, REACH_REFERENCE), REL("v_plain", 'v', c_one, REACH_LOCAL), REL("v_volatile", 'v', c_one, REACH_LOCAL | REACH_VOLATILE),
    REL("ft", 'f', c_one, REACH_FOREIGN), REL("seq", 'S', c_one, REACH_LOCAL),
    {.schema = "pg_catalog", .name = "pg_class", .relkind = 'r', .columns = c_one, .n_columns = 1, .reach = REACH_LOCAL},
};

/* Unsharded, the same names are plain tables. */
#define BUILTIN(n, v, ...) {n, {.volatility = FUNCTION_##v, .builtin = true, __VA_ARGS__}}
#define USERS(n, v, ...) {n, {.volatility = FUNCTION_##v, __VA_ARGS__}}

static const struct {
	const char *name;
	struct catalog_function fn;
} fake_functions[] = {
    BUILTIN("count", IMMUTABLE, .is_aggregate = true), BUILTIN("sum", IMMUTABLE, .is_aggregate = true), BUILTIN("min", IMMUTABLE, .is_aggregate = true),
    BUILTIN("max", IMMUTABLE, .is_aggregate = true), BUILTIN("avg", IMMUTABLE, .is_aggregate = true), BUILTIN("array_agg", IMMUTABLE, .is_aggregate = true),
    BUILTIN("string_agg", IMMUTABLE, .is_aggregate = true), BUILTIN("row_number", IMMUTABLE, .is_window = true), BUILTIN("lower", IMMUTABLE),
    BUILTIN("upper", IMMUTABLE), BUILTIN("length", IMMUTABLE), BUILTIN("abs", IMMUTABLE), BUILTIN("now", STABLE), BUILTIN("generate_series", IMMUTABLE, .returns_set = true),
    BUILTIN("unnest", IMMUTABLE, .returns_set = true), BUILTIN("current_setting", STABLE), BUILTIN("pg_is_in_recovery", VOLATILE), BUILTIN("random", VOLATILE),
    BUILTIN("clock_timestamp", VOLATILE), BUILTIN("gen_random_uuid", VOLATILE), BUILTIN("nextval", VOLATILE, .has_effects = true),
    BUILTIN("setval", VOLATILE, .has_effects = true), BUILTIN("currval", VOLATILE), BUILTIN("lastval", VOLATILE), BUILTIN("pg_sleep", VOLATILE),
    BUILTIN("pg_advisory_lock", VOLATILE, .has_effects = true), BUILTIN("pg_advisory_xact_lock", VOLATILE, .has_effects = true),
    BUILTIN("pg_try_advisory_lock", VOLATILE, .has_effects = true), BUILTIN("pg_advisory_unlock", VOLATILE, .has_effects = true),
    BUILTIN("set_config", VOLATILE, .has_effects = true), BUILTIN("pg_notify", VOLATILE, .has_effects = true), BUILTIN("txid_current", STABLE, .has_effects = true),
    BUILTIN("lo_create", VOLATILE, .has_effects = true), BUILTIN("date_trunc", IMMUTABLE), BUILTIN("coalesce", IMMUTABLE), BUILTIN("version", STABLE),
    BUILTIN("query_to_xml", VOLATILE, .has_effects = true, .touches_sharded = true), USERS("my_imm", IMMUTABLE), USERS("my_stable", STABLE),
    USERS("my_vol", VOLATILE), USERS("my_reader", STABLE, .touches_sharded = true), USERS("dblink_connect", VOLATILE, .has_effects = true),
    USERS("my_proc", VOLATILE), BUILTIN("timezone", IMMUTABLE), BUILTIN("extract", IMMUTABLE), BUILTIN("setseed", VOLATILE),
};

static const struct {
	const char *name;
	uint32_t oid;
} fake_types[] = {
    {"int2", 21}, {"int4", 23}, {"int8", 20}, {"text", 25}, {"varchar", 1043}, {"bpchar", 1042}, {"numeric", 1700}, {"uuid", 2950}, {"bool", 16},
    {"date", 1082}, {"timestamp", 1114}, {"timestamptz", 1184}, {"regclass", 2205}, {"float8", 701},
};

const struct catalog_relation *
catalog_find_relation(const struct catalog *c, const char *schema, const char *name, const char *const *path, int n_path)
{
	(void)c, (void)path, (void)n_path;
	for (size_t i = 0; i < ARRAY_LEN(fake_relations); i++)
		if (strcmp(fake_relations[i].name, name) == 0 && (schema == NULL || strcmp(fake_relations[i].schema, schema) == 0))
			return &fake_relations[i];
	return NULL;
}

const struct catalog_column *
catalog_find_column(const struct catalog_relation *r, const char *name, int *index)
{
	for (int i = 0; i < r->n_columns; i++)
		if (strcmp(r->columns[i].name, name) == 0) {
			if (index != NULL)
				*index = i;
			return &r->columns[i];
		}
	return NULL;
}

struct catalog_function
catalog_find_function(const struct catalog *c, const char *schema, const char *name, const char *const *path, int n_path)
{
	(void)c, (void)schema, (void)path, (void)n_path;
	for (size_t i = 0; i < ARRAY_LEN(fake_functions); i++)
		if (strcmp(fake_functions[i].name, name) == 0)
			return fake_functions[i].fn;
	return (struct catalog_function){.volatility = FUNCTION_UNKNOWN};
}

bool
catalog_operator_is_safe(const struct catalog *c, const char *name)
{
	(void)c;
	return strcmp(name, "<=!") != 0;
}

uint32_t
catalog_find_type(const struct catalog *c, const char *schema, const char *name, const char *const *path, int n_path)
{
	(void)c, (void)schema, (void)path, (void)n_path;
	for (size_t i = 0; i < ARRAY_LEN(fake_types); i++)
		if (strcmp(fake_types[i].name, name) == 0)
			return fake_types[i].oid;
	return 0;
}

uint64_t
catalog_version(const struct catalog *c)
{
	(void)c;
	return 7;
}

int
catalog_server_version(const struct catalog *c)
{
	return c->server_version;
}

bool
catalog_default_byte_ordered(const struct catalog *c)
{
	(void)c;
	return false;
}

/* --- plans as text --- */

static struct catalog fake_catalog = {150020};
static char name_db[] = "shop";
__attribute__((unused)) static struct database_config fake_db = {.name = name_db, .tables = fake_tables, .n_tables = ARRAY_LEN(fake_tables)};
static const char *const fake_path[] = {"public"};

static inline struct plan *
plan_of(const char *sql, const struct plan_env *env)
{
	struct scan scan;

	scan_init(&scan);
	if (scan_sql(sql, strlen(sql), 0, &scan) != 0)
		scan.n_literals = 0;
	struct plan *p = plan_make(span_str(sql), &scan, env);

	scan_fini(&scan);
	return p;
}

struct text {
	char s[600];
	size_t n;
};

static void PRINTF_LIKE(2, 3) put(struct text *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(t->s + t->n, sizeof(t->s) - t->n, fmt, ap);
	va_end(ap);
	t->n += n > 0 ? (size_t)n : 0;
	if (t->n >= sizeof(t->s))
		abort();
}

static inline void
put_source(struct text *t, const struct key_source *s)
{
	static const char *const names[] = {"L", "P", "NULL", "TRUE", "FALSE", "AL", "AP", "?", "DEF"};

	put(t, "%s%s", s->negate ? "-" : "", names[s->kind]);
	if (s->kind == KEY_SRC_LITERAL || s->kind == KEY_SRC_PARAM || s->kind == KEY_SRC_ARRAY_LITERAL || s->kind == KEY_SRC_ARRAY_PARAM)
		put(t, "%u", s->index);
	if (s->inner_oid != 0)
		put(t, ":%u", s->inner_oid);
	if (s->cast_oid != 0)
		put(t, ":%u", s->cast_oid);
}

static inline void
put_conditions(struct text *t, const struct key_group *g)
{
	put(t, " %s(", g->table->name);
	for (int i = 0; i < g->n_conditions; i++) {
		const struct key_condition *c = &g->conditions[i];

		put(t, "%s%s=", i > 0 ? " & " : "", g->table->key[c->column]);
		for (int k = 0; k < c->n_sources; k++) {
			put(t, "%s", k > 0 ? "," : "");
			put_source(t, &c->sources[k]);
		}
	}
	put(t, ")");
}

static inline void
put_multi(struct text *t, const struct plan *p)
{
	static const char *const multis[] = {"ONE", "CONCAT", "SORT", "AGG", "WRITE", "SAME"};
	static const char *const ops[] = {"count", "sum", "min", "max"};

	put(t, "/%s", multis[p->multi]);
	for (int i = 0; p->multi == MULTI_SORT && i < p->n_sort; i++)
		put(t, "%s%d%s%s%s", i == 0 ? ":" : ",", p->sort[i].output_column, p->sort[i].compare == SORT_BYTES ? "b" : "", p->sort[i].descending ? "d" : "",
		    p->sort[i].nulls_first ? "f" : "");
	for (int i = 0; p->multi == MULTI_AGGREGATE && i < p->n_aggregates; i++)
		put(t, "%s%s", i == 0 ? ":" : ",", ops[p->aggregates[i].op]);
	if ((p->multi == MULTI_SORT || p->multi == MULTI_CONCAT) && (p->limit.limit.kind != KEY_SRC_NULL || p->limit.offset.kind != KEY_SRC_NULL)) {
		put(t, "<");
		put_source(t, &p->limit.limit);
		put(t, "+");
		put_source(t, &p->limit.offset);
		put(t, ">");
	}
}

/* "KEYED/CONCAT case_ord(tenant_id=L0)", "INSERT/WRITE L0;L2", "REFUSE", "FIRST" … */
static inline struct text
describe(const struct plan *p)
{
	static const char *const routes[] = {"ANY", "FIRST", "KEYED", "ALL", "INSERT", "COPY", "REFUSE"};
	struct text t = {{0}, 0};

	put(&t, "%s", routes[p->route]);
	if (p->route == ROUTE_KEYED || p->route == ROUTE_INSERT)
		put_multi(&t, p);
	for (int i = 0; p->route == ROUTE_KEYED && i < p->n_groups; i++)
		put_conditions(&t, &p->groups[i]);
	for (int r = 0; p->route == ROUTE_INSERT && r < p->insert.n_rows; r++)
		for (int c = 0; c < p->insert.table->n_key; c++) {
			put(&t, "%s", c > 0 ? "," : r > 0 ? ";" : " ");
			put_source(&t, &p->insert.sources[r * p->insert.table->n_key + c]);
		}
	for (int k = 0; p->route == ROUTE_COPY && k < p->copy.table->n_key; k++)
		put(&t, " %d/%d", p->copy.key_field[k], p->copy.n_fields);
	if (p->flags & PLAN_NEEDS_CATALOG)
		put(&t, " needs-catalog");
	return t;
}

#endif
