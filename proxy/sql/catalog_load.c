/* SPDX-License-Identifier: BSD-2-Clause */
/* catalog_load - reads a database's schema over libpq into a struct catalog.
 *
 * A dozen queries in one read-only snapshot, none of them per relation. What a view, a default or a generated
 * column calls is read from PostgreSQL's own expression trees (pg_rewrite.ev_action, pg_attrdef.adbin, where a
 * call is ":funcid 1574"), not from their text: casts and operators are calls too, and pg_depend leaves out the
 * built-in ones. The server takes the numbers out by a regular expression, for the trees are megabytes.
 *
 * What a function does inside cannot be known; its body is searched for words: the names of configured tables, of
 * whatever stands over them, and of functions with effects. A word that only looks like one costs speed,
 * never an answer. Names put together at run time (EXECUTE 'select … from ' || t) escape this.
 *
 *   types, functions, operators ── what exists, by OID
 *   relations, columns          ── with defaults, that need the functions
 *   inheritance                 ── partition → its configured table; parent ← reach of its children
 *   bodies ⇄ views              ── repeated until nothing changes
 */
#include <ctype.h>

#include <libpq-fe.h>

#include "catalog_int.h"
#include "pgspan/config.h"

enum {
	FIRST_USER_OID = 16384, /* access/transam.h: FirstNormalObjectId */
	MIN_SERVER_VERSION = 120000, /* pg_collation.collisdeterministic, pg_attribute.attgenerated */
};

/* While loading only: the rows with their OIDs, each array in the order of them. */
struct type_row {
	uint32_t oid, base; /* base: of a domain, else 0 */
	enum default_kind default_kind;
};

struct function_row {
	uint32_t oid;
	struct function_group *group;
	struct catalog_function fn;
	const char *name, *body; /* body: NULL for built-in and C functions */
};

struct operator_row {
	uint32_t oid, function_oid;
};

struct relation_row {
	uint32_t oid;
	struct catalog_relation *rel;
};

/* What a stored query or expression uses: an edge from relation *owner* to a function, operator or relation. */
struct use {
	uint32_t owner; /* relation's OID */
	char what;      /* 'f', 'o' or 'r' */
	uint32_t oid;
};

struct inheritance {
	struct relation_row *parent, *child;
};

struct loader {
	PGconn *conn;
	const struct database_config *db;
	struct catalog *c;
	struct diag *d;
	int version;
	struct arena tmp; /* the rows below */
	struct type_row *types;
	size_t n_types;
	struct function_row *functions;
	size_t n_functions;
	struct operator_row *operators;
	size_t n_operators;
	struct relation_row *relations;
	size_t n_relations;
	struct use *uses;
	size_t n_uses;
	struct inheritance *links;
	size_t n_links;
};

/* --- queries --- */

static PGresult *
query(struct loader *l, const char *sql)
{
	PGresult *r = PQexec(l->conn, sql);
	ExecStatusType st = PQresultStatus(r);

	if (st == PGRES_TUPLES_OK || st == PGRES_COMMAND_OK)
		return r;
	const char *state = r != NULL ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : NULL;
	const char *text = r != NULL ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY) : NULL;

	diag_set(l->d, state != NULL ? state : "08006", "cannot read the catalog: %s",
	    text != NULL ? text : PQerrorMessage(l->conn));
	PQclear(r);
	return NULL;
}

static bool
run(struct loader *l, const char *sql)
{
	PGresult *r = query(l, sql);

	PQclear(r);
	return r != NULL;
}

static uint32_t
get_oid(const PGresult *r, int row, int col)
{
	return (uint32_t)strtoul(PQgetvalue(r, row, col), NULL, 10);
}

static bool
get_bool(const PGresult *r, int row, int col)
{
	return PQgetvalue(r, row, col)[0] == 't';
}

static char *
get_str(struct loader *l, const PGresult *r, int row, int col)
{
	return arena_strndup(&l->c->arena, PQgetvalue(r, row, col), (size_t)PQgetlength(r, row, col));
}

/* The element with that OID in an array whose elements begin with one, in the order of them. */
static void *
find_oid(const void *rows, size_t n, size_t size, uint32_t oid)
{
	const char *base = rows;
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		uint32_t at;

		memcpy(&at, base + mid * size, sizeof(at));
		if (at == oid)
			return (void *)(uintptr_t)(base + mid * size);
		if (at < oid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static struct function_row *
function_by_oid(const struct loader *l, uint32_t oid)
{
	return find_oid(l->functions, l->n_functions, sizeof(*l->functions), oid);
}

static struct function_row *
function_of_operator(const struct loader *l, uint32_t oid)
{
	const struct operator_row *o = find_oid(l->operators, l->n_operators, sizeof(*l->operators), oid);

	return o != NULL ? function_by_oid(l, o->function_oid) : NULL;
}

static struct relation_row *
relation_by_oid(const struct loader *l, uint32_t oid)
{
	return find_oid(l->relations, l->n_relations, sizeof(*l->relations), oid);
}

/* --- functions and operators --- */

static void
fill_function(struct loader *l, const PGresult *r, int i)
{
	struct function_row *f = &l->functions[i];
	const char *schema = PQgetvalue(r, i, 1), *volatility = PQgetvalue(r, i, 3);

	f->oid = get_oid(r, i, 0);
	f->name = PQgetvalue(r, i, 2);
	f->fn.volatility = *volatility == 'i' ? FUNCTION_IMMUTABLE : *volatility == 's' ? FUNCTION_STABLE : FUNCTION_VOLATILE;
	f->fn.is_aggregate = *PQgetvalue(r, i, 4) == 'a';
	f->fn.is_window = *PQgetvalue(r, i, 4) == 'w';
	f->fn.returns_set = get_bool(r, i, 5);
	f->fn.builtin = f->oid < FIRST_USER_OID && strcmp(schema, "pg_catalog") == 0;
	f->fn.has_effects = function_name_has_effects(f->name);
	f->fn.touches_sharded = function_name_runs_queries(f->name);
	if (!PQgetisnull(r, i, 6))
		f->body = arena_strdup(&l->tmp, PQgetvalue(r, i, 6));

	struct function_group *g =
	    (struct function_group *)(uintptr_t)name_table_get(&l->c->functions, schema, f->name);

	if (g == NULL) {
		g = arena_zalloc(&l->c->arena, sizeof(*g));
		g->id = (struct named){get_str(l, r, i, 1), get_str(l, r, i, 2)};
		name_table_put(&l->c->functions, &g->id);
	}
	f->name = g->id.name;
	f->group = g;
}

static bool
load_functions(struct loader *l)
{
	/* A function of SQL's own body (BEGIN ATOMIC) has it as a tree: 14 and later. */
	PGresult *r = query(l, l->version >= 140000
		? "SELECT p.oid, n.nspname, p.proname, p.provolatile, p.prokind, p.proretset,"
		  " CASE WHEN p.oid >= 16384 AND g.lanname NOT IN ('c', 'internal')"
		  "  THEN p.prosrc || coalesce(pg_get_function_sqlbody(p.oid), '') END"
		  " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language g ON g.oid = p.prolang"
		  " ORDER BY p.oid"
		: "SELECT p.oid, n.nspname, p.proname, p.provolatile, p.prokind, p.proretset,"
		  " CASE WHEN p.oid >= 16384 AND g.lanname NOT IN ('c', 'internal') THEN p.prosrc END"
		  " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language g ON g.oid = p.prolang"
		  " ORDER BY p.oid");

	if (r == NULL)
		return false;
	l->n_functions = (size_t)PQntuples(r);
	l->functions = arena_zalloc(&l->tmp, l->n_functions * sizeof(*l->functions));
	name_table_init(&l->c->functions, &l->c->arena, l->n_functions);
	for (int i = 0; i < PQntuples(r); i++)
		fill_function(l, r, i);
	PQclear(r);
	return true;
}

static bool
function_is_read_only(const struct function_row *f)
{
	return f != NULL && f->fn.volatility != FUNCTION_VOLATILE && !f->fn.has_effects && !f->fn.touches_sharded;
}

/* The operators' safety is settled last (publish_operators): it hangs on their functions' bodies. */
static bool
load_operators(struct loader *l)
{
	PGresult *r = query(l, "SELECT oid, oprname, oprcode::oid FROM pg_operator ORDER BY oid");

	if (r == NULL)
		return false;
	l->n_operators = (size_t)PQntuples(r);
	l->operators = arena_zalloc(&l->tmp, l->n_operators * sizeof(*l->operators));
	name_table_init(&l->c->operators, &l->c->arena, l->n_operators);
	for (int i = 0; i < PQntuples(r); i++) {
		l->operators[i] = (struct operator_row){get_oid(r, i, 0), get_oid(r, i, 2)};
		if (name_table_get(&l->c->operators, "", PQgetvalue(r, i, 1)) == NULL) {
			struct operator_entry *o = arena_zalloc(&l->c->arena, sizeof(*o));

			o->id = (struct named){"", get_str(l, r, i, 1)};
			o->safe = true;
			name_table_put(&l->c->operators, &o->id);
		}
	}
	PQclear(r);
	return true;
}

static bool
publish_operators(struct loader *l)
{
	PGresult *r = query(l, "SELECT oprname, oprcode::oid FROM pg_operator WHERE oid >= 16384");

	if (r == NULL)
		return false;
	for (int i = 0; i < PQntuples(r); i++) {
		struct operator_entry *o =
		    (struct operator_entry *)(uintptr_t)name_table_get(&l->c->operators, "", PQgetvalue(r, i, 0));

		if (o != NULL && !function_is_read_only(function_by_oid(l, get_oid(r, i, 1))))
			o->safe = false;
	}
	PQclear(r);
	return true;
}

/* --- defaults --- */

/* Of an expression by the numbers in its tree: "f1574 o551 s ", s standing for a node that is STABLE in
 * itself (CURRENT_DATE, a cast by way of text). */
#define TREE_NUMBERS(tree)                                                                                             \
	"(SELECT string_agg(coalesce(substr(m[1], 1, 1) || m[2], 's'), ' ')"                                           \
	" FROM regexp_matches(" tree "::text, ':(funcid|opno) (\\d+)|\\{(?:SQLVALUEFUNCTION|COERCEVIAIO|ARRAYCOERCEEXPR) ', 'g') m)"

static enum default_kind
default_kind_of_function(const struct function_row *f)
{
	if (f == NULL)
		return DEFAULT_VOLATILE;
	if (f->fn.builtin && strcmp(f->name, "nextval") == 0)
		return DEFAULT_SEQUENCE;
	if (f->fn.volatility == FUNCTION_VOLATILE || f->fn.has_effects)
		return DEFAULT_VOLATILE;
	return f->fn.volatility == FUNCTION_STABLE ? DEFAULT_STABLE : DEFAULT_CONST;
}

static enum default_kind
default_kind_of_tree(const struct loader *l, const char *numbers)
{
	enum default_kind worst = DEFAULT_CONST;

	for (const char *p = numbers; *p != '\0';) {
		char *end = NULL;
		uint32_t oid = (uint32_t)strtoul(p + 1, &end, 10);
		enum default_kind k = *p == 's' ? DEFAULT_STABLE
		    : *p == 'f' ? default_kind_of_function(function_by_oid(l, oid))
				: default_kind_of_function(function_of_operator(l, oid));

		if (k > worst)
			worst = k;
		p = end > p + 1 ? end : p + 1;
		while (*p == ' ')
			p++;
	}
	return worst;
}

/* --- types --- */

static bool
load_types(struct loader *l)
{
	PGresult *r = query(l,
	    "SELECT t.oid, n.nspname, t.typname, CASE WHEN t.typtype = 'd' THEN t.typbasetype END,"
	    " t.typdefault IS NOT NULL AND t.typtype = 'd', " TREE_NUMBERS("t.typdefaultbin")
	    " FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace ORDER BY t.oid");

	if (r == NULL)
		return false;
	l->n_types = (size_t)PQntuples(r);
	l->types = arena_zalloc(&l->tmp, l->n_types * sizeof(*l->types));
	name_table_init(&l->c->types, &l->c->arena, l->n_types);
	for (int i = 0; i < PQntuples(r); i++) {
		struct type_entry *t = arena_zalloc(&l->c->arena, sizeof(*t));

		t->id = (struct named){get_str(l, r, i, 1), get_str(l, r, i, 2)};
		t->oid = get_oid(r, i, 0);
		name_table_put(&l->c->types, &t->id);
		l->types[i] = (struct type_row){
		    .oid = t->oid,
		    .base = get_oid(r, i, 3),
		    .default_kind = get_bool(r, i, 4) ? default_kind_of_tree(l, PQgetvalue(r, i, 5)) : DEFAULT_NONE,
		};
	}
	PQclear(r);
	return true;
}

/* The type that a column of *declared* stores, and the default that its domains give it. */
static uint32_t
resolve_domain(const struct loader *l, uint32_t declared, enum default_kind *kind)
{
	uint32_t oid = declared;

	*kind = DEFAULT_NONE;
	for (;;) {
		const struct type_row *t = find_oid(l->types, l->n_types, sizeof(*l->types), oid);

		if (t == NULL || t->base == 0)
			return oid;
		if (*kind == DEFAULT_NONE) /* the outermost domain that has one */
			*kind = t->default_kind;
		oid = t->base;
	}
}

/* --- relations and columns --- */

static const struct table_config *
configured_table(const struct database_config *db, const char *schema, const char *name)
{
	for (int i = 0; i < db->n_tables; i++)
		if (strcmp(db->tables[i].name, name) == 0 && strcmp(db->tables[i].schema, schema) == 0)
			return &db->tables[i];
	return NULL;
}

static unsigned
own_reach(const struct catalog_relation *rel)
{
	switch (rel->relkind) {
	case 'v':
	case 'c':
		return 0; /* a view's is found from its query */
	case 'f':
		return REACH_FOREIGN;
	default:
		if (rel->table == NULL)
			return REACH_LOCAL;
		return rel->table->kind == TABLE_SHARDED ? REACH_SHARDED : REACH_REFERENCE;
	}
}

static bool
load_relations(struct loader *l)
{
	PGresult *r = query(l,
	    "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispartition,"
	    " c.relkind <> 'v' AND c.relkind <> 'm' AND c.relhasrules"
	    " OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)"
	    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
	    " WHERE c.relkind IN ('r','p','v','m','f','S','c') AND n.nspname !~ '^pg_(temp|toast)' ORDER BY c.oid");

	if (r == NULL)
		return false;
	l->n_relations = (size_t)PQntuples(r);
	l->relations = arena_zalloc(&l->tmp, l->n_relations * sizeof(*l->relations));
	name_table_init(&l->c->relations, &l->c->arena, l->n_relations);
	for (int i = 0; i < PQntuples(r); i++) {
		struct catalog_relation *rel = arena_zalloc(&l->c->arena, sizeof(*rel));

		rel->schema = get_str(l, r, i, 1);
		rel->name = get_str(l, r, i, 2);
		rel->relkind = *PQgetvalue(r, i, 3);
		rel->is_partition = get_bool(r, i, 4);
		rel->has_triggers = get_bool(r, i, 5);
		/* A view of a configured table's name is no table: what it reads decides. */
		if (rel->relkind == 'r' || rel->relkind == 'p' || rel->relkind == 'f')
			rel->table = configured_table(l->db, rel->schema, rel->name);
		rel->reach = own_reach(rel);
		l->relations[i] = (struct relation_row){get_oid(r, i, 0), rel};
		_Static_assert(offsetof(struct catalog_relation, schema) == 0, "a catalog_relation begins as struct named");
		name_table_put(&l->c->relations, (const struct named *)(const void *)rel);
	}
	PQclear(r);
	return true;
}

static enum default_kind
column_default(const struct loader *l, const PGresult *r, int i, enum default_kind of_domain)
{
	if (*PQgetvalue(r, i, 4) != '\0') /* attidentity */
		return DEFAULT_SEQUENCE;
	if (*PQgetvalue(r, i, 5) != '\0') /* attgenerated */
		return DEFAULT_GENERATED;
	return get_bool(r, i, 6) ? default_kind_of_tree(l, PQgetvalue(r, i, 7)) : of_domain;
}

static void
fill_column(struct loader *l, const PGresult *r, int i, struct catalog_column *col)
{
	enum default_kind of_domain;

	col->name = get_str(l, r, i, 1);
	col->declared_oid = get_oid(r, i, 2);
	col->type_oid = resolve_domain(l, col->declared_oid, &of_domain);
	col->not_null = get_bool(r, i, 3);
	col->is_identity_always = *PQgetvalue(r, i, 4) == 'a';
	col->default_kind = column_default(l, r, i, of_domain);
	col->byte_ordered = *PQgetvalue(r, i, 8) == 'd' ? l->c->default_byte_ordered : *PQgetvalue(r, i, 8) == 't';
	col->deterministic = get_bool(r, i, 9);
}

/* In SQL: a libc collation of that name compares bytes. */
#define IS_C_NAME(x) "lower(replace(" x ", '-', '')) IN ('c', 'posix', 'c.utf8')"

static bool
load_columns(struct loader *l)
{
	/* 17 has a provider of its own ('b'), and its locales' names in another column. All of them compare code points. */
	PGresult *r = query(l, l->version >= 170000
		? "SELECT a.attrelid, a.attname, a.atttypid, a.attnotnull, a.attidentity, a.attgenerated, a.atthasdef,"
		  TREE_NUMBERS("f.adbin") ", CASE WHEN o.collprovider = 'd' THEN 'd' WHEN o.collprovider = 'b'"
		  " OR o.collprovider = 'c' AND " IS_C_NAME("o.collcollate") " THEN 't' ELSE 'f' END,"
		  " coalesce(o.collisdeterministic, true)"
		  " FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum"
		  " LEFT JOIN pg_collation o ON o.oid = a.attcollation"
		  " WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum"
		: "SELECT a.attrelid, a.attname, a.atttypid, a.attnotnull, a.attidentity, a.attgenerated, a.atthasdef,"
		  TREE_NUMBERS("f.adbin") ", CASE WHEN o.collprovider = 'd' THEN 'd'"
		  " WHEN o.collprovider = 'c' AND " IS_C_NAME("o.collcollate") " THEN 't' ELSE 'f' END,"
		  " coalesce(o.collisdeterministic, true)"
		  " FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum"
		  " LEFT JOIN pg_collation o ON o.oid = a.attcollation"
		  " WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum");

	if (r == NULL)
		return false;
	int n = PQntuples(r);

	for (int i = 0, end; i < n; i = end) {
		uint32_t owner = get_oid(r, i, 0);
		struct relation_row *row = relation_by_oid(l, owner);

		for (end = i + 1; end < n && get_oid(r, end, 0) == owner;)
			end++;
		if (row == NULL)
			continue; /* of an index or a TOAST table */
		struct catalog_column *cols = arena_zalloc(&l->c->arena, (size_t)(end - i) * sizeof(*cols));

		for (int k = i; k < end; k++)
			fill_column(l, r, k, &cols[k - i]);
		row->rel->columns = cols;
		row->rel->n_columns = end - i;
	}
	PQclear(r);
	return true;
}

static bool
load_default_collation(struct loader *l)
{
	/* Byte order on the server is byte order in UTF-8 only if the encodings sort alike: not EUC_JP and its like. */
	const char *encodings = "pg_encoding_to_char(encoding) IN ('UTF8', 'SQL_ASCII', 'LATIN1')";
	const char *libc = l->version >= 170000
	    ? "(datlocprovider = 'b' OR datlocprovider = 'c' AND " IS_C_NAME("datcollate") ")"
	    : l->version >= 150000 ? "(datlocprovider = 'c' AND " IS_C_NAME("datcollate") ")"
				   : "(" IS_C_NAME("datcollate") ")";
	char sql[512];

	snprintf(sql, sizeof(sql), "SELECT %s AND %s FROM pg_database WHERE datname = current_database()", encodings, libc);
	PGresult *r = query(l, sql);

	if (r == NULL)
		return false;
	l->c->default_byte_ordered = PQntuples(r) == 1 && get_bool(r, 0, 0);
	PQclear(r);
	return true;
}

/* --- inheritance --- */

/* A child of a configured table is that table. A parent's rows are its children's too, and a write through it
 * fires their triggers. Repeated until nothing changes: trees are a few levels deep. */
static bool
load_inheritance(struct loader *l)
{
	PGresult *r = query(l, "SELECT inhparent, inhrelid FROM pg_inherits ORDER BY inhrelid, inhseqno");

	if (r == NULL)
		return false;
	l->links = arena_zalloc(&l->tmp, (size_t)PQntuples(r) * sizeof(*l->links));
	for (int i = 0; i < PQntuples(r); i++) {
		struct inheritance link = {relation_by_oid(l, get_oid(r, i, 0)), relation_by_oid(l, get_oid(r, i, 1))};

		if (link.parent != NULL && link.child != NULL) /* else indexes */
			l->links[l->n_links++] = link;
	}
	PQclear(r);
	return true;
}

static bool
inherit_down(struct catalog_relation *parent, struct catalog_relation *child)
{
	if (parent->table == NULL || child->table != NULL)
		return false;
	child->table = parent->table;
	child->is_partition = true;
	child->reach = (child->relkind == 'f' ? REACH_FOREIGN : 0) |
	    (parent->table->kind == TABLE_SHARDED ? REACH_SHARDED : REACH_REFERENCE);
	return true;
}

static bool
inherit_up(struct catalog_relation *parent, const struct catalog_relation *child)
{
	unsigned reach = parent->reach | child->reach;
	bool triggers = parent->has_triggers || child->has_triggers;

	if (reach == parent->reach && triggers == parent->has_triggers)
		return false;
	parent->reach = reach;
	parent->has_triggers = triggers;
	return true;
}

static void
spread_inheritance(struct loader *l)
{
	bool changed;

	do {
		changed = false;
		for (size_t i = 0; i < l->n_links; i++)
			changed |= inherit_down(l->links[i].parent->rel, l->links[i].child->rel);
	} while (changed);
	do {
		changed = false;
		for (size_t i = 0; i < l->n_links; i++)
			changed |= inherit_up(l->links[i].parent->rel, l->links[i].child->rel);
	} while (changed);
}

/* --- views --- */

static bool
load_uses(struct loader *l)
{
	PGresult *r = query(l,
	    "SELECT DISTINCT w.ev_class, m[1], m[2] FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class AND c.relkind = 'v',"
	    " regexp_matches(w.ev_action::text, ':(funcid|opno|aggfnoid|winfnoid|relid|tsmhandler) (\\d+)', 'g') m"
	    " WHERE w.ev_type = '1' AND m[2] <> '0'");

	if (r == NULL)
		return false;
	l->n_uses = (size_t)PQntuples(r);
	l->uses = arena_zalloc(&l->tmp, l->n_uses * sizeof(*l->uses));
	for (int i = 0; i < PQntuples(r); i++) {
		char what = *PQgetvalue(r, i, 1);

		l->uses[i] = (struct use){get_oid(r, i, 0), what == 'o' || what == 'r' ? what : 'f', get_oid(r, i, 2)};
	}
	PQclear(r);
	return true;
}

static unsigned
reach_of_use(const struct loader *l, const struct use *u)
{
	if (u->what == 'r') {
		const struct relation_row *row = relation_by_oid(l, u->oid);

		return row != NULL ? row->rel->reach : REACH_LOCAL; /* TOAST tables, indexes */
	}
	return function_is_read_only(u->what == 'o' ? function_of_operator(l, u->oid) : function_by_oid(l, u->oid))
	    ? 0 : REACH_VOLATILE;
}

static bool
spread_views(struct loader *l)
{
	bool any = false, changed;

	do {
		changed = false;
		for (size_t i = 0; i < l->n_uses; i++) {
			struct relation_row *view = relation_by_oid(l, l->uses[i].owner);
			unsigned reach = reach_of_use(l, &l->uses[i]);

			/* A view's own OID stands in its tree too (the range table's OLD and NEW up to 15). */
			if (view == NULL || (view->rel->reach | reach) == view->rel->reach)
				continue;
			view->rel->reach |= reach;
			any = changed = true;
		}
	} while (changed);
	return any;
}

/* --- function bodies --- */

/* Words to be looked for in bodies, folded to lower case: names of relations over configured tables, and of the
 * functions that do what the bodies' own are suspected of. */
struct word {
	struct named id; /* schema ""; must stay first */
	bool touches, effects;
};

struct words {
	struct arena arena;
	struct name_table table;
	const struct word **odd; /* those that are no word (blanks, punctuation): found by search */
	size_t n_odd;
};

static bool
is_word_byte(unsigned char ch)
{
	return isalnum(ch) || ch == '_' || ch == '$' || ch >= 0x80;
}

static void
fold(char *s)
{
	for (; *s != '\0'; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s - 'A' + 'a');
}

static void
words_add(struct words *w, const char *name, bool touches, bool effects)
{
	char *folded = arena_strdup(&w->arena, name);

	fold(folded);
	struct word *old = (struct word *)(uintptr_t)name_table_get(&w->table, "", folded);

	if (old != NULL) {
		old->touches |= touches;
		old->effects |= effects;
		return;
	}
	struct word *word = arena_zalloc(&w->arena, sizeof(*word));

	*word = (struct word){{"", folded}, touches, effects};
	name_table_put(&w->table, &word->id);
	for (const char *p = folded; *p != '\0'; p++)
		if (!is_word_byte((unsigned char)*p)) {
			w->odd[w->n_odd++] = word;
			break;
		}
}

static void
words_collect(struct words *w, const struct loader *l)
{
	size_t cap = l->n_relations + l->n_functions + (size_t)l->db->n_tables;

	arena_init(&w->arena);
	name_table_init(&w->table, &w->arena, cap);
	w->odd = arena_alloc(&w->arena, (cap + 1) * sizeof(const struct word *));
	w->n_odd = 0;
	for (int i = 0; i < l->db->n_tables; i++)
		words_add(w, l->db->tables[i].name, true, false);
	for (size_t i = 0; i < l->n_relations; i++)
		if (l->relations[i].rel->reach & (REACH_SHARDED | REACH_REFERENCE))
			words_add(w, l->relations[i].rel->name, true, false);
	for (size_t i = 0; i < l->n_functions; i++) {
		const struct function_row *f = &l->functions[i];

		if (f->fn.touches_sharded || f->fn.has_effects)
			words_add(w, f->name, f->fn.touches_sharded, f->fn.has_effects);
	}
}

static void
mark_function(struct function_row *f, const struct word *word)
{
	f->fn.touches_sharded |= word->touches;
	f->fn.has_effects |= word->effects;
}

/* *body* is folded already. */
static void
search_body(struct function_row *f, const struct words *w)
{
	char buf[256]; /* names are shorter (NAMEDATALEN), but for folded ones in another build's size */

	for (const char *p = f->body; *p != '\0';) {
		size_t n = 0;

		while (is_word_byte((unsigned char)p[n]))
			n++;
		if (n > 0 && n < sizeof(buf)) {
			memcpy(buf, p, n);
			buf[n] = '\0';
			const struct word *word = (const struct word *)name_table_get(&w->table, "", buf);

			if (word != NULL)
				mark_function(f, word);
		}
		p += n > 0 ? n : 1;
	}
	for (size_t i = 0; i < w->n_odd; i++)
		if (strstr(f->body, w->odd[i]->id.name) != NULL)
			mark_function(f, w->odd[i]);
}

static bool
spread_bodies(struct loader *l)
{
	struct words w;
	bool changed = false;

	words_collect(&w, l);
	for (size_t i = 0; i < l->n_functions; i++) {
		struct function_row *f = &l->functions[i];
		struct catalog_function before = f->fn;

		if (f->body == NULL || (before.touches_sharded && before.has_effects))
			continue;
		search_body(f, &w);
		changed |= f->fn.touches_sharded != before.touches_sharded || f->fn.has_effects != before.has_effects;
	}
	arena_fini(&w.arena);
	return changed;
}

static void
spread_all(struct loader *l)
{
	bool changed;

	for (size_t i = 0; i < l->n_functions; i++)
		if (l->functions[i].body != NULL)
			fold((char *)(uintptr_t)l->functions[i].body);
	spread_inheritance(l);
	spread_views(l);
	do {
		changed = spread_bodies(l);
		changed |= spread_views(l);
	} while (changed);
	for (size_t i = 0; i < l->n_functions; i++)
		function_merge(&l->functions[i].group->fn, &l->functions[i].fn);
}

/* --- the whole --- */

static bool
load_all(struct loader *l)
{
	/* One snapshot; names as UTF-8; no name in these queries may mean another than pg_catalog's. */
	if (!run(l, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
		    "SET LOCAL search_path = pg_catalog; SET LOCAL client_encoding = 'UTF8';"
		    "SET LOCAL standard_conforming_strings = on"))
		return false;
	if (!load_functions(l) || !load_operators(l) || !load_types(l) || !load_default_collation(l))
		return false;
	if (!load_relations(l) || !load_columns(l) || !load_inheritance(l) || !load_uses(l))
		return false;
	spread_all(l);
	return publish_operators(l);
}

struct catalog *
catalog_load(struct pg_conn *conn, const struct database_config *db, struct diag *d)
{
	static _Atomic uint64_t versions;
	struct loader l = {.conn = conn, .db = db, .d = d, .version = PQserverVersion(conn)};

	if (l.version == 0 || l.version < MIN_SERVER_VERSION) {
		diag_set(d, l.version == 0 ? "08003" : "0A000", l.version == 0 ? "cannot read the catalog: no connection"
		    : "PostgreSQL %d is not supported: 12 or later is needed", l.version / 10000);
		return NULL;
	}
	l.c = xcalloc(1, sizeof(*l.c));
	l.c->refs = 1;
	l.c->version = ++versions;
	l.c->server_version = l.version;
	arena_init(&l.c->arena);
	arena_init(&l.tmp);
	bool ok = load_all(&l);

	ok = run(&l, ok ? "COMMIT" : "ROLLBACK") && ok;
	arena_fini(&l.tmp);
	if (!ok) {
		catalog_unref(l.c);
		return NULL;
	}
	return l.c;
}
