/* SPDX-License-Identifier: BSD-2-Clause */
/* plan - what pgspan has learned of a statement's shape: what it is, which server role may run it,
 * where its shard keys stand, and how answers of several shards become one.
 *
 * A plan belongs to a shape (the scanner's hash), not to a text: values are named by their place
 * (literal k, parameter n) and are read when the plan runs. Immutable after plan_make().
 * Owner: the plan cache of one worker, or the caller when it is not cacheable.  Thread: its worker. */
#ifndef PGSPAN_PLAN_H
#define PGSPAN_PLAN_H

#include "pgspan/arena.h"
#include "pgspan/diag.h"
#include "pgspan/span.h"
#include "shardmap.h"

struct catalog;
struct catalog_relation;
struct database_config;
struct scan;

enum stmt_kind {
	STMT_EMPTY,
	STMT_SELECT, /* also VALUES, TABLE, WITH … SELECT */
	STMT_INSERT, STMT_UPDATE, STMT_DELETE, STMT_MERGE,
	STMT_COPY_FROM, STMT_COPY_TO,
	STMT_BEGIN, STMT_COMMIT, STMT_ROLLBACK, /* COMMIT also END; ROLLBACK also ABORT; the AND CHAIN forms set PLAN_CHAIN */
	STMT_SAVEPOINT, STMT_RELEASE, STMT_ROLLBACK_TO,
	STMT_PREPARE_TRANSACTION, STMT_COMMIT_PREPARED, STMT_ROLLBACK_PREPARED,
	STMT_SET,   /* SET, SET LOCAL, RESET, SET TRANSACTION, SET ROLE, … : see plan.set */
	STMT_SHOW,
	STMT_PREPARE, STMT_EXECUTE, STMT_DEALLOCATE, STMT_DISCARD,
	STMT_LISTEN, STMT_UNLISTEN, STMT_NOTIFY,
	STMT_DECLARE, STMT_FETCH, STMT_CLOSE_CURSOR,
	STMT_LOCK, STMT_EXPLAIN, STMT_TRUNCATE,
	STMT_VACUUM, /* also ANALYZE */
	STMT_DDL,
	STMT_DO, STMT_CALL, STMT_LOAD,
	STMT_OTHER,    /* CHECKPOINT, … : one server, not read-only */
	STMT_UNPARSED, /* libpg_query could not parse it */
	STMT_MULTI,    /* several statements in one simple Query: see plan.parts */
};

enum plan_flag {
	PLAN_READ_ONLY = 1 << 0,  /* may run on a replica: everything of design.md section 6 that can be told from the shape */
	PLAN_WRITES = 1 << 1,     /* a participant that ran this takes part in two-phase commit (not provably without effect) */
	PLAN_DDL = 1 << 2,        /* the catalog must be loaded again once it has committed */
	PLAN_NO_BLOCK = 1 << 3,   /* cannot run inside a transaction block (VACUUM, CREATE INDEX CONCURRENTLY, CREATE DATABASE, …) */
	PLAN_CHAIN = 1 << 4,      /* COMMIT/ROLLBACK AND CHAIN */
	PLAN_BEGIN_READ_ONLY = 1 << 5, /* BEGIN READ ONLY, SET TRANSACTION READ ONLY */
	PLAN_CACHEABLE = 1 << 6,  /* meaning depends on the shape alone (and the names' resolution) */
	PLAN_RETURNS_ROWS = 1 << 7, /* SELECT, RETURNING, SHOW, … */
	PLAN_LOCKING = 1 << 8,    /* SELECT … FOR UPDATE/SHARE */
	PLAN_USES_SESSION_SEQ = 1 << 9, /* currval(), lastval() */
	PLAN_TX_CONTROL = 1 << 10, /* STMT_MULTI: some part begins or ends a transaction block */
	PLAN_BEGIN_READ_WRITE = 1 << 11, /* BEGIN READ WRITE, SET TRANSACTION READ WRITE */
	PLAN_ADVANCES_SEQ = 1 << 14, /* nextval(), setval() in the text */
	PLAN_UNLOCKS = 1 << 13, /* pg_advisory_unlock…() */
	PLAN_NEEDS_CATALOG = 1 << 12, /* sharded: a name that the catalog does not know. Load it again and plan again; see plan.refusal */
};

/* Why a server session must stay with its client (design.md section 8). */
enum pin_reason {
	PIN_TEMP = 1 << 0,     /* temporary objects */
	PIN_LISTEN = 1 << 1,
	PIN_ADVISORY = 1 << 2, /* session-level advisory locks */
	PIN_CURSOR = 1 << 3,   /* DECLARE … WITH HOLD */
	PIN_PREPARE = 1 << 4,  /* SQL-level PREPARE */
	PIN_LOAD = 1 << 5,
	PIN_SETTING = 1 << 6,  /* set_config() and other settings that cannot be replayed from the text */
	PIN_OTHER = 1 << 7,
};

/* Where one value of a shard key column stands. */
enum key_source_kind {
	KEY_SRC_LITERAL, /* scan literal *index* */
	KEY_SRC_PARAM,   /* $index (1-based) */
	KEY_SRC_NULL,    /* the constant NULL: meets no row; an error (23502) when inserted */
	KEY_SRC_TRUE, KEY_SRC_FALSE, /* boolean keys */
	KEY_SRC_ARRAY_LITERAL, /* = ANY ('{1,2,3}'): scan literal *index* */
	KEY_SRC_ARRAY_PARAM,   /* = ANY ($index) */
	KEY_SRC_UNKNOWN, /* an expression that pgspan does not fold */
	KEY_SRC_DEFAULT, /* DEFAULT in a VALUES row, or the column was not named */
};

struct key_source {
	enum key_source_kind kind;
	uint32_t index;
	bool negate;         /* numeric literal under an odd number of minus signs */
	uint32_t cast_oid;   /* outermost explicit cast on the value: 42::int8 → 20; 0: none */
	uint32_t inner_oid;  /* a cast under it, '42'::text::int → 25; 0: none (two casts deep at most, else UNKNOWN) */
};

/* "The row's key column *column* equals one of these": one IN list, one = , one = ANY. */
struct key_condition {
	int column; /* which column of a several-column key */
	const struct key_source *sources;
	int n_sources;
};

/* All sharded relations of the statement whose keys are equal by the statement's own conditions
 * (one relation, or several joined on their keys), with every condition that binds that key.
 * The rows needed live where all conditions hold: the intersection. No conditions: every shard. */
struct key_group {
	const struct table_config *table; /* one of them */
	const enum key_type *types;       /* of its key columns, table->n_key of them */
	const struct key_condition *conditions;
	int n_conditions;
};

enum route_kind {
	ROUTE_ANY,    /* no sharded table: any shard gives the right answer (constants, reference tables); prefer a server already in use, else the first shard */
	ROUTE_FIRST,  /* tables that live whole on the first shard, catalogs */
	ROUTE_KEYED,  /* where the key groups say */
	ROUTE_ALL,    /* every shard, one answer: DDL, TRUNCATE, VACUUM, writes of reference tables, SET for all */
	ROUTE_INSERT, /* each VALUES row to its shard: plan.insert */
	ROUTE_COPY,   /* each COPY row to its shard: plan.copy */
	ROUTE_REFUSE, /* plan.refusal */
};

/* How the answers of several shards become one. Meaningful for ROUTE_KEYED with more than one target, and ROUTE_ALL. */
enum multi_kind {
	MULTI_REFUSE,    /* exact on one shard only; plan.refusal says why several are refused */
	MULTI_CONCAT,    /* rows strung together (in any order); LIMIT/OFFSET as plan.limit says */
	MULTI_SORT,      /* k-way merge by plan.sort; LIMIT/OFFSET as plan.limit says */
	MULTI_AGGREGATE, /* one row, column by column by plan.aggregates */
	MULTI_WRITE,     /* UPDATE/DELETE: row counts added, RETURNING rows strung together */
	MULTI_SAME,      /* the same effect on each (DDL, reference tables, SET): the first shard's answer is the answer */
};

enum sort_compare { SORT_INT, SORT_BYTES /* text under a byte-ordered collation */ };

struct sort_column {
	int output_column; /* 0-based */
	enum sort_compare compare;
	bool descending, nulls_first;
};

enum aggregate_op { AGG_COUNT, AGG_SUM, AGG_MIN, AGG_MAX };

struct aggregate_column {
	enum aggregate_op op;
	enum sort_compare compare; /* MIN, MAX */
};

/* LIMIT and OFFSET values. kind: LITERAL, PARAM, NULL (none, ALL or NULL). Anything else is refused when planned. */
struct limit_clause {
	struct key_source limit, offset;
};

/* INSERT … VALUES: n_rows × n_key sources, row-major. */
struct insert_rows {
	const struct table_config *table;
	const enum key_type *types;
	const struct key_source *sources;
	int n_rows;
};

enum copy_format { COPY_FORMAT_TEXT, COPY_FORMAT_CSV, COPY_FORMAT_BINARY };

/* COPY table FROM STDIN of a sharded table. */
struct copy_plan {
	const struct table_config *table;
	const enum key_type *types;
	const int *key_field; /* for each key column: its place among the fields of a line, 0-based; -1: not given */
	int n_fields;
	enum copy_format format;
	char delimiter, quote, escape;
	const char *null_string;
	bool header;                /* the first line is a heading: goes to every shard */
	const bool *force_null;     /* per field (CSV), NULL: none */
	const bool *force_not_null;
	const char *encoding;       /* ENCODING option, NULL: the client's */
};

enum set_kind {
	SET_NONE,
	SET_VALUE,     /* SET [SESSION] name = …, SET TIME ZONE, SET NAMES, SET ROLE ("role"), SESSION AUTHORIZATION ("session_authorization") */
	SET_LOCAL,     /* the same with LOCAL: over at the end of the transaction */
	SET_RESET,     /* RESET name, SET name TO DEFAULT */
	SET_RESET_ALL,
	SET_TRANSACTION,             /* SET TRANSACTION …: this transaction only */
	SET_SESSION_CHARACTERISTICS, /* default_transaction_* : name is "session characteristics" */
};

struct set_plan {
	enum set_kind kind;
	const char *name; /* folded, as PostgreSQL stores it ("timezone", "search_path", "role", …); NULL for RESET ALL, TRANSACTION */
};

struct plan {
	struct arena arena; /* holds all that follows */
	enum stmt_kind kind;
	unsigned flags;     /* enum plan_flag */
	unsigned pins;      /* enum pin_reason this statement brings about */
	uint64_t catalog_version;

	enum route_kind route;
	enum multi_kind multi;
	/* Why: of ROUTE_REFUSE, or of MULTI_REFUSE when there is more than one target. With ROUTE_FIRST and
	 * PLAN_NEEDS_CATALOG: a configured table is not in the catalog. If a fresh catalog has not got it either, the statement
	 * goes to the first shard, whose 42P01 is the answer; but in a transaction that has run DDL (and may have made the
	 * table) it must be refused with this. */
	struct diag refusal;

	const struct key_group *groups;
	int n_groups;

	const struct sort_column *sort;
	int n_sort;
	struct limit_clause limit;
	const struct aggregate_column *aggregates;
	int n_aggregates;
	struct insert_rows insert;
	struct copy_plan copy;
	struct set_plan set;

	const char *name;  /* savepoint, SQL-prepared statement, cursor, channel or transaction id the statement names, the part of DISCARD; NULL: none (or ALL) */
	struct plan **parts; /* STMT_MULTI: each statement's own plan, with its place in the text */
	const uint32_t *part_off, *part_len;
	int n_parts;
	const char *inner_text;     /* PREPARE: the statement behind AS; EXPLAIN: none */
	const uint32_t *inner_types; /* PREPARE: declared parameter types, 0: unknown */
	int n_inner_types;
	const struct key_source *exec_args; /* EXECUTE: its arguments, in order */
	int n_exec_args;
	bool max_param_known;
	int max_param;     /* highest $n in the text */
};

/* What names mean where the statement runs. */
struct plan_env {
	const struct database_config *db;
	const struct catalog *catalog;  /* NULL: not loaded (then nothing is read-only but statements without any function, and no key type is known) */
	const char *const *search_path; /* "$user" already replaced */
	int n_search_path;
	bool standard_conforming_strings;
	bool has_temp_tables; /* the session may have temporary tables: unqualified names may mean them, so no statement is PLAN_READ_ONLY */
};

/* Never NULL. What cannot be parsed gives STMT_UNPARSED: the primary of an unsharded database, a refusal on a sharded one.
 * Parse errors are not reported: PostgreSQL words them best. plan_free() gives it back. */
struct plan *plan_make(struct span sql, const struct scan *scan, const struct plan_env *env);
void plan_free(struct plan *p);

#endif
