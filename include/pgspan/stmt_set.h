/* SPDX-License-Identifier: BSD-2-Clause */
/* stmt_set - which prepared statements a server connection holds, by the 128-bit hash of text and parameter types.
 *
 * On the server a statement's name is made of its hash, so that any worker and any client finds it. Bounded: over the limit,
 * the one used longest ago goes. Owner: the server connection.  Thread: its worker's. */
#ifndef PGSPAN_STMT_SET_H
#define PGSPAN_STMT_SET_H

#include "pgspan/defs.h"

#define STMT_NAME_PREFIX "pgspan_"
#define STMT_NAME_BYTES 40 /* "pgspan_", 32 digits, NUL */

struct stmt_id {
	uint64_t hi, lo;
};

static inline bool
stmt_id_eq(struct stmt_id a, struct stmt_id b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

/* "pgspan_" and 32 hexadecimal digits. Returns its length. */
size_t stmt_id_name(struct stmt_id id, char out[STMT_NAME_BYTES]);

struct stmt_slot {
	struct stmt_id id;
	uint64_t used; /* tick of the last use; 0: free slot */
};

struct stmt_set {
	struct stmt_slot *slots; /* NULL while empty */
	uint32_t cap, n;
	uint64_t tick;
};

/* True if the server has it; counts as a use. */
bool stmt_set_has(struct stmt_set *s, struct stmt_id id);
/* True if one had to go for it: *evicted* is to be closed on the server. limit at least 1. */
bool stmt_set_add(struct stmt_set *s, struct stmt_id id, uint32_t limit, struct stmt_id *evicted);
void stmt_set_remove(struct stmt_set *s, struct stmt_id id);
void stmt_set_clear(struct stmt_set *s);

#endif
