/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_int - what the files of the analysis share: PostgreSQL's raw parse tree on one side, the plan on the other.
 *
 *     parse_plan.c     text → tree → one plan a statement
 *     parse_utility.c  kind, names, settings of everything that is no query
 *     parse_facts.c    one walk over a whole statement: functions, operators, relations → may it be a read? pins
 *     parse_names.c    what relations, columns and types names mean
 *     parse_keys.c     values of keys; which sharded relations are tied together by their keys
 *     parse_query.c    FROM, ON and WHERE, level by level → conditions on keys
 *     parse_merge.c    may answers of several shards be made one, and how
 *     parse_write.c    INSERT, UPDATE, DELETE, COPY on a sharded database
 *     parse_ddl.c      DDL and the like on a sharded database
 *
 * The tree lives in libpg_query's memory context, which is gone when plan_make() returns: whatever a plan keeps is
 * copied to its arena. PostgreSQL's headers come first, as defs.h poisons names that they use. */
#ifndef PGSPAN_PARSE_INT_H
#define PGSPAN_PARSE_INT_H

#include "postgres.h"

#include "catalog/pg_class.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"

#include "pg_query.h"

#include "pg_query/pg_query_internal.h"

/* port.h turns these into functions of PostgreSQL's own. */
#undef snprintf
#undef vsnprintf
#undef sprintf
#undef vsprintf
#undef fprintf
#undef vfprintf
#undef printf
#undef vprintf
#undef strerror
#undef strerror_r

#include "pgspan/catalog.h"
#include "pgspan/config.h"
#include "pgspan/plan.h"
#include "pgspan/scan.h"

enum {
	MAX_KEY_COLUMNS = 8,
	MAX_KEYED = 64,        /* sharded relations in one statement */
	MAX_TREE_DEPTH = 1500, /* the walks recurse; a deeper tree is not understood */
};

/* --- names (parse_names.c) --- */

/* Names of WITH that hide relations of the same name. */
struct cte_name {
	const char *name;
	const struct cte_name *up;
};

enum relation_class {
	REL_CTE,
	REL_LOCAL,     /* a table of the first shard, a catalog, a view over such; on an unsharded database: all */
	REL_REFERENCE, /* a reference table, or a view over reference tables only */
	REL_SHARDED,
	REL_SHARDED_VIEW, /* a view over sharded tables, or over reference and local ones: cannot run anywhere yet */
	REL_UNKNOWN,      /* no such relation that the catalog knows */
	REL_UNSEEN,       /* configured, but the catalog does not know it */
};

struct relation_ref {
	enum relation_class class;
	const struct catalog_relation *rel; /* NULL: CTE, UNKNOWN, UNSEEN */
	const struct table_config *table;   /* SHARDED, REFERENCE tables, UNSEEN */
};

/* A sharded table's key columns in one of its relations (a partition may have them elsewhere). */
struct key_info {
	const struct table_config *table;
	enum key_type types[MAX_KEY_COLUMNS];
	int columns[MAX_KEY_COLUMNS]; /* index in rel->columns */
};

/* --- one statement's facts (parse_facts.c) --- */

struct facts {
	/* what makes it no read */
	bool locking, into, writes; /* row locks; SELECT INTO; INSERT, UPDATE, DELETE, MERGE anywhere */
	bool unsafe;                /* a function, operator, relation or node that is not known to be read-only */
	bool deep;                  /* the tree is deeper than MAX_TREE_DEPTH: the rest of the facts is not complete */

	/* functions */
	bool any_function;
	bool volatile_fn;    /* volatile or unknown, anywhere */
	bool volatile_once;  /* one in a subquery or FROM: one value for many rows, which each shard would choose anew */
	bool user_fn;        /* not a built-in and not immutable */
	bool time_fn;        /* now() and its kind: one value per transaction and server */
	bool server_fn;      /* built-in and stable, but of the server's own: its port, its process, its OIDs */
	bool setting_fn;     /* current_setting() */
	bool sequence_fn;    /* nextval, setval, currval, lastval */
	bool advisory_fn;
	bool effects_fn;     /* any other function with effects */
	bool current_of;     /* WHERE CURRENT OF */
	bool system_column;  /* ctid, xmin, tableoid, …: mean something on one server only */
	bool sample;         /* TABLESAMPLE */
	bool reads_view;     /* a view over reference tables: what it calls is not looked at */
	bool window;         /* a window function */
	bool unknown_fn;     /* a function that the catalog does not have */
	int n_limits;        /* SELECTs with LIMIT, OFFSET or DISTINCT ON: which rows is open unless ORDER BY is unique */
	const char *touches_sharded; /* a function whose body reads sharded or reference tables */

	/* relations */
	int n_sharded, n_reference, n_local, n_unknown, n_sharded_view, n_unseen;
	const char *local_name, *sharded_name, *view_name, *unseen_name; /* one of each */
	int n_write_sharded, n_write_reference, n_write_local; /* targets, among the above */
	bool insert_sharded; /* an INSERT into a sharded table, at any level */
	bool reference_triggers; /* a written reference table has triggers */
	bool merge;
	const char *key_assigned; /* a key column that UPDATE or ON CONFLICT sets */

	/* defaults that writes of sharded and reference tables take: a column of each kind */
	const char *default_sequence, *default_stable, *default_volatile;
};

/* --- sharded relations and what ties them (parse_keys.c) --- */

/* One sharded relation of the statement. Numbered in the order of the walk, so that a subquery's, or a join arm's,
 * relations are a range of numbers. */
struct keyed {
	struct key_info info;
	bool nullable; /* under the null-extended side of an outer join */
	int depth;     /* query level: 0 is the outermost */
};

/* A range of keyed relations for whose rows a condition holds. */
struct keyed_range {
	int lo, hi;
};

struct raw_condition {
	int node; /* keyed * MAX_KEY_COLUMNS + key column */
	struct keyed_range domain;
	const struct key_source *sources;
	int n_sources;
	struct raw_condition *next;
};

struct graph {
	struct keyed keyed[MAX_KEYED];
	int n_keyed;
	bool overflow;
	short class_of[MAX_KEYED * MAX_KEY_COLUMNS];
	struct raw_condition *conditions;
};

/* --- a query level (parse_query.c) --- */

struct range_entry {
	const char *alias, *schema; /* schema: of a relation without alias */
	const struct catalog_relation *rel; /* NULL: its columns are not known */
	int keyed;                          /* -1: no sharded relation */
	bool nullable;
	bool hidden; /* inside a join that has an alias of its own */
};

struct column {
	struct range_entry *entry; /* NULL: not resolved */
	const struct catalog_column *column;
	int index;
};

struct merged_column {
	const char *name;
	int entry_lo, entry_hi; /* the join's entries */
	struct column column;   /* entry NULL: none stands for it (FULL JOIN) */
	struct merged_column *next;
};

struct level {
	struct level *up; /* where names not found here are looked for */
	const struct cte_name *ctes;
	struct range_entry *entries;
	int n_entries, cap_entries;
	struct merged_column *merged; /* of USING and NATURAL joins */
	bool opaque;  /* unqualified names cannot be resolved */
	bool no_star; /* joins merge or rename columns: what * means is not followed */
	int depth;
	int keyed_lo;       /* its first sharded relation's number; those of its subqueries come behind */
	List *strong;       /* conjuncts that every row combination must meet: WHERE, ON of inner joins */
	List *strong_pairs; /* struct pair: nodes that USING of inner joins makes equal */
};

/* --- the analysis of one statement --- */

struct analysis {
	struct plan *plan;
	const struct plan_env *env;
	const struct scan *scan;
	const char *sql; /* the whole text, with a NUL */
	struct facts facts;
	struct graph *graph;
	int tree_depth;
	bool sharded;
	int select_depth;  /* of the walk for facts */
	bool no_cache;     /* something in the text beside the shape matters */
	/* why several shards cannot run it, found on the way by parse_query.c: NULL: nothing */
	const char *no_multi;
};

/* parse_plan.c */
void analyze_statement(struct analysis *an, const RawStmt *raw);
void refuse(struct analysis *an, const char *fmt, ...) PRINTF_LIKE(2, 3);
void refuse_hint(struct analysis *an, const char *hint);
void refuse_many(struct analysis *an, const char *what, const char *hint);

/* parse_names.c */
const char *name_at(const List *names, int i);
bool split_name(const List *names, const char **schema, const char **name);
struct relation_ref resolve_name(const struct analysis *an, const char *schema, const char *name);
struct relation_ref resolve_relation(const struct analysis *an, const RangeVar *rv, const struct cte_name *ctes);
/* False, with the plan refused, when the table cannot be routed by its key. */
bool resolve_key(struct analysis *an, const struct relation_ref *ref, struct key_info *out);
uint32_t resolve_type(const struct analysis *an, const TypeName *type);
const struct table_config *configured_table(const struct analysis *an, const char *schema, const char *name);
struct catalog_function resolve_function(const struct analysis *an, const List *funcname, const char **name);

/* parse_facts.c */
void facts_relation(struct analysis *an, const RangeVar *rv, bool written);
bool walk_children(struct analysis *an, Node *node, bool (*fn)(Node *, void *), void *arg);
void collect_facts(struct analysis *an, Node *stmt);
bool facts_read_only(const struct analysis *an);
/* *ctes* with the names of *with* added to it. */
const struct cte_name *push_ctes(const WithClause *with, const struct cte_name *ctes);

/* parse_keys.c */
struct key_source source_of(struct analysis *an, Node *expr);
struct key_source array_source_of(struct analysis *an, Node *expr);
int graph_add(struct analysis *an, const struct key_info *info, int depth, bool nullable);
void graph_condition(struct analysis *an, int node, struct keyed_range domain, const struct key_source *sources, int n);
bool graph_class_within(const struct graph *g, int node, struct keyed_range range);
bool graph_same_class(const struct graph *g, int a, int b);
void graph_unite(struct graph *g, int a, int b);
bool graph_columns_alike(const struct graph *g, int a, int b);
void graph_to_groups(struct analysis *an);

static inline int
node_of(int keyed, int key_column)
{
	return keyed * MAX_KEY_COLUMNS + key_column;
}

/* parse_query.c */
void level_init(struct analysis *an, struct level *l, struct level *up, const struct cte_name *ctes, int depth);
struct column resolve_column(const struct level *l, const ColumnRef *ref);
int column_node(const struct analysis *an, const struct column *c);
bool is_equals(const A_Expr *e);
/* The whole of a query. *top*, if not NULL, is filled with the level of its FROM. */
void analyze_query(struct analysis *an, Node *query, struct level *up, const struct cte_name *ctes, int depth, struct level *top);

/* parse_merge.c */
void decide_select_multi(struct analysis *an, const SelectStmt *stmt, struct level *l);
bool facts_exact_on_many(struct analysis *an);

/* parse_write.c */
/* For collect_facts(): key columns that a write sets, defaults that it takes. */
void note_write(struct analysis *an, Node *stmt, const struct relation_ref *ref);
void note_omitted_columns(struct analysis *an, const struct relation_ref *ref, List *names);
void route_query(struct analysis *an, Node *query);
void route_copy(struct analysis *an, const CopyStmt *stmt);

/* parse_utility.c: true when *node* is a utility statement and was dealt with. */
bool analyze_utility(struct analysis *an, Node *node, const RawStmt *raw);

/* parse_ddl.c: kind and flags are set; decides the route on a sharded database. */
void route_ddl(struct analysis *an, Node *node);
bool ddl_makes_temp(const Node *node);
bool ddl_needs_no_block(const Node *node);

#endif
