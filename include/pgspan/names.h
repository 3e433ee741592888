/* SPDX-License-Identifier: BSD-2-Clause */
/* names - a map from names (any bytes) to pointers: a client's prepared statements, portals, settings.
 * Empty maps hold no memory. Owner: the struct it is part of; the pointers are the caller's.  Thread: its owner's. */
#ifndef PGSPAN_NAMES_H
#define PGSPAN_NAMES_H

#include "pgspan/span.h"

struct name_slot {
	uint64_t hash;
	char *name; /* owned; NULL: free slot */
	uint32_t len;
	void *value;
};

struct names {
	struct name_slot *slots; /* power of two, at most half full */
	uint32_t cap, n;
};

void *names_get(const struct names *m, struct span name); /* NULL: not there */
/* Puts *value* (not NULL) under *name*; what was there before is returned, NULL: nothing. */
void *names_put(struct names *m, struct span name, void *value);
/* Takes the name off and returns its value, NULL: it was not there. */
void *names_take(struct names *m, struct span name);
/* A name that *fn* accepts; false: there is none. Looks at all of them. */
bool names_find(const struct names *m, bool (*fn)(struct span name, const void *value, const void *arg), const void *arg, struct span *name);
/* Takes all off; fn (may be NULL) is given each value. */
void names_clear(struct names *m, void (*fn)(void *value));

#endif
