/* SPDX-License-Identifier: BSD-2-Clause */
/* router - a plan and the values of one run of it → the shards that must run it.
 *
 * Pure: reads only what it is given, allocates nothing for ordinary keys, sends nothing. It never guesses: a value
 * that it cannot bring to canonical bytes means every shard (a condition) or a refusal (a row to be stored).
 * Thread: any. */
#ifndef PGSPAN_ROUTER_H
#define PGSPAN_ROUTER_H

#include "pgspan/plan.h"

/* --- sets of shards, by their numbers --- */

struct target_set {
	uint64_t bits[MAX_SHARDS / 64];
	int count;
};

static inline bool
target_has(const struct target_set *t, int shard)
{
	return t->bits[shard / 64] >> (shard % 64) & 1;
}

static inline void
target_add(struct target_set *t, int shard)
{
	t->count += !target_has(t, shard);
	t->bits[shard / 64] |= UINT64_C(1) << (shard % 64);
}

/* The lowest shard in it above *after* (-1: of all); -1: none. */
int target_next(const struct target_set *t, int after);

static inline int
target_first(const struct target_set *t)
{
	return target_next(t, -1);
}

void target_clear(struct target_set *t);
void target_all(struct target_set *t, const struct database_config *db);

/* --- the values of one run --- */

/* A parameter of Bind. */
struct route_param {
	const char *data;  /* in the message */
	int32_t len;       /* -1: NULL */
	int16_t format;    /* 0: text, 1: binary */
	uint32_t type_oid; /* as Parse declared it; 0: left to the server */
};

/* What a plan's key_sources point into. All of it is the caller's and is read only during a call.
 *
 * EXECUTE name(args): the values of the prepared statement. *sql and *scan* are those of the text behind AS, and
 * its $n are *exec_args*[n - 1], which stand in the EXECUTE: *outer* holds that one's text, scan and parameters. */
struct route_values {
	const char *sql;
	const struct scan *scan; /* of *sql* */
	unsigned scan_flags;     /* enum scan_flag that it was scanned with */
	const struct route_param *params;
	int n_params;
	const struct key_source *exec_args; /* NULL: $n is params[n - 1] */
	int n_exec_args;
	const uint32_t *exec_types; /* plan.inner_types of the PREPARE */
	int n_exec_types;
	const struct route_values *outer;
	bool utf8; /* client_encoding is UTF8 (or SQL_ASCII's bytes are); else text keys beyond ASCII are refused */
};

enum route_status {
	ROUTED,
	ROUTED_REFUSED, /* *d says why: 0A000, 23502 */
};

/* The shards for one run of *p*. At least one when ROUTED. *preferred_shard* is what ROUTE_ANY, and a statement whose
 * conditions meet no row, would like best; -1: none, the first. ROUTE_INSERT gives the shards of its rows (see
 * route_insert()), ROUTE_COPY all, for the rows are not known yet. *d* is only written when refused.
 * More than one shard for a plan with MULTI_REFUSE is refused. */
enum route_status route_resolve(const struct plan *p, const struct route_values *v, const struct database_config *db,
    int preferred_shard, struct target_set *out, struct diag *d) WARN_UNUSED;

/* Each row of plan.insert: its shard in *shard_of_row* (n_rows of them; NULL: not wanted), and all of them in *out*.
 * A row whose key PostgreSQL will not take goes to the first shard, which then raises the error. */
enum route_status route_insert(const struct plan *p, const struct route_values *v, const struct database_config *db,
    int *shard_of_row, struct target_set *out, struct diag *d) WARN_UNUSED;

/* A COPY row. *key_fields*: for each key column its field's value, already unescaped (text and CSV; p NULL: NULL), or
 * its bytes (binary; p NULL: NULL). The same words about errors as for route_insert(). */
enum route_status route_copy_row(const struct copy_plan *copy, const struct span *key_fields, bool utf8,
    const struct database_config *db, int *shard, struct diag *d) WARN_UNUSED;

/* A LIMIT or OFFSET as PostgreSQL would read it, into *n*. RC_AGAIN: NULL, that is none. RC_FAIL: not known here. */
enum rc route_int8(const struct route_values *v, const struct key_source *s, int64_t *n) WARN_UNUSED;

#endif
