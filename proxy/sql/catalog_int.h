/* SPDX-License-Identifier: BSD-2-Clause */
/* catalog_int - the layout of a catalog, shared by its two halves: catalog.c (look-ups) and
 * catalog_load.c (filling it). Nobody else may include this. */
#ifndef PGSPAN_CATALOG_INT_H
#define PGSPAN_CATALOG_INT_H

#include "pgspan/arena.h"
#include "pgspan/catalog.h"

/* The head of everything that is found by (schema, name). */
struct named {
	const char *schema, *name;
};

struct name_slot {
	uint64_t key;
	const struct named *value; /* NULL: empty */
};

/* Open addressing, linear probing, at most half full. */
struct name_table {
	struct name_slot *slots;
	size_t mask, used;
};

/* All overloads of one (schema, name). */
struct function_group {
	struct named id; /* must stay first */
	struct catalog_function fn;
};

struct type_entry {
	struct named id; /* must stay first */
	uint32_t oid;
};

/* All operators of one name, whatever their schema; id.schema is "". */
struct operator_entry {
	struct named id; /* must stay first */
	bool safe;
};

/* Owner: its references.  Lives until: the last catalog_unref().  Thread: any may read. */
struct catalog {
	_Atomic int refs;
	struct arena arena; /* everything below */
	void *keeps; /* see catalog_keep() */
	void (*release)(void *what);
	uint64_t epoch;
	uint64_t version;
	int server_version; /* server_version_num */
	bool default_byte_ordered;
	struct name_table relations; /* struct catalog_relation */
	struct name_table functions; /* struct function_group */
	struct name_table types;     /* struct type_entry */
	struct name_table operators; /* struct operator_entry */
};

void name_table_init(struct name_table *t, struct arena *a, size_t n_expected);
/* *value* must not be in the table yet. The table never grows: at most n_expected entries. */
void name_table_put(struct name_table *t, const struct named *value);
const struct named *name_table_get(const struct name_table *t, const char *schema, const char *name);

/* *add* joins the functions that one name may mean: the worst of both. */
void function_merge(struct catalog_function *into, const struct catalog_function *add);

/* catalog_effects.c: what cannot be read from pg_proc. */
/* A function of that name writes, locks or signals, whatever its volatility says. */
bool function_name_has_effects(const char *name);
/* A function of that name runs a query, or reads a table, that is given to it as a text. */
bool function_name_runs_queries(const char *name);

#endif
