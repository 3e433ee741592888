/* SPDX-License-Identifier: BSD-2-Clause */
/* catalog - what pgspan knows of a database's schema: relations, columns, functions, operators.
 *
 * Loaded over a libpq connection by the monitor thread; immutable and reference-counted after that.
 * Answers are conservative: what is not in it is unknown, and unknown is never a read and never a key.
 * Owner: whoever holds a reference.  Thread: any may read. */
#ifndef PGSPAN_CATALOG_H
#define PGSPAN_CATALOG_H

#include "pgspan/diag.h"
#include "pgspan/span.h"

struct pg_conn; /* libpq's PGconn */
struct database_config;

enum default_kind {
	DEFAULT_NONE,      /* no default: NULL */
	DEFAULT_CONST,     /* immutable: the same on every server at any time */
	DEFAULT_STABLE,    /* now() and the like: one value per transaction */
	DEFAULT_VOLATILE,  /* any other function */
	DEFAULT_SEQUENCE,  /* nextval(): serial and identity columns; a shard's own sequence would repeat values */
	DEFAULT_GENERATED, /* GENERATED ALWAYS AS (expression) STORED */
};

struct catalog_column {
	const char *name;
	uint32_t type_oid;      /* of the column; a domain's base type */
	uint32_t declared_oid;  /* of the column as declared: the domain itself */
	bool not_null;
	bool is_identity_always;
	bool byte_ordered; /* text types: the column's collation sorts as memcmp does (C, POSIX, C.UTF-8) */
	bool deterministic; /* text types: equal means byte-equal (nondeterministic ICU collations are not) */
	enum default_kind default_kind;
};

/* What a relation's rows come from, for views and partitions all the way down. */
enum relation_reach {
	REACH_SHARDED = 1,   /* a sharded table */
	REACH_REFERENCE = 2, /* a reference table */
	REACH_LOCAL = 4,     /* an ordinary table of the first shard */
	REACH_VOLATILE = 8,  /* a view whose query calls a function not known to be read-only */
	REACH_FOREIGN = 16,  /* a foreign table: may be anything */
};

struct catalog_relation {
	const char *schema, *name;
	char relkind; /* pg_class.relkind: r p v m f S c */
	const struct catalog_column *columns; /* live columns in order */
	int n_columns;
	unsigned reach;            /* of a view or partition; of a table its own kind */
	const struct table_config *table; /* the configured table it is, or is a partition of; NULL: none */
	bool has_triggers;         /* user triggers or rules: a write may do more than it says */
	bool is_partition;
};

enum function_class {
	FUNCTION_UNKNOWN,   /* no such function */
	FUNCTION_IMMUTABLE,
	FUNCTION_STABLE,
	FUNCTION_VOLATILE,  /* the worst of all overloads that the name and path may mean */
};

struct catalog_function {
	enum function_class volatility; /* the worst of the overloads */
	bool builtin;         /* all candidates are in pg_catalog */
	bool is_aggregate;
	bool is_window;
	bool returns_set;
	bool has_effects;     /* writes or takes locks whatever its volatility says: nextval, setval, advisory locks, lo_*, set_config, pg_notify, … */
	bool touches_sharded; /* a user's function whose body names a sharded or reference table */
};

struct catalog;

/* Loads the catalog over *conn* (blocking) from one server of a database: the first shard's primary.
 * NULL with *d* set when a query failed. Tables of *db* that do not exist are simply not in it. */
struct catalog *catalog_load(struct pg_conn *conn, const struct database_config *db, struct diag *d) WARN_UNUSED;
struct catalog *catalog_ref(struct catalog *c);
void catalog_unref(struct catalog *c);

/* What the catalog points into (the configuration its tables are from): *release* is called with *what* when the catalog goes.
 * *epoch* is the loader's, for catalog_epoch(). Once, before the catalog is given to others. */
void catalog_keep(struct catalog *c, void *what, void (*release)(void *what), uint64_t epoch);
uint64_t catalog_epoch(const struct catalog *c);

/* A number that differs between any two catalogs of this process. */
uint64_t catalog_version(const struct catalog *c);

/* server_version_num of the server it was loaded from: 150020. */
int catalog_server_version(const struct catalog *c);

/* The first relation of that name on the search path (a list of schema names, as stored; pg_catalog is
 * implicitly first). *schema* NULL: unqualified. NULL: not known. */
const struct catalog_relation *catalog_find_relation(const struct catalog *c, const char *schema, const char *name,
    const char *const *path, int n_path);
const struct catalog_column *catalog_find_column(const struct catalog_relation *r, const char *name, int *index);

/* Everything that a call of that name may mean. */
struct catalog_function catalog_find_function(const struct catalog *c, const char *schema, const char *name,
    const char *const *path, int n_path);

/* True if every operator that this name may mean is a built-in one, or a user's one over a non-volatile function. */
bool catalog_operator_is_safe(const struct catalog *c, const char *name);

/* The name of a type (as the parser gives it: pg_catalog.int4 or "bigint"'s internal name, a user's) → its OID; 0: unknown. */
uint32_t catalog_find_type(const struct catalog *c, const char *schema, const char *name, const char *const *path, int n_path);

/* True if the database's own default collation sorts as memcmp does. */
bool catalog_default_byte_ordered(const struct catalog *c);

#endif
