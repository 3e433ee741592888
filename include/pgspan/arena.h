/* SPDX-License-Identifier: BSD-2-Clause */
/* arena - memory that is given back all at once.
 * Owner: whoever called arena_init().  Thread: its owner's only. */
#ifndef PGSPAN_ARENA_H
#define PGSPAN_ARENA_H

#include "pgspan/span.h"

struct arena_block;

struct arena {
	struct arena_block *head; /* newest block; older ones behind it; NULL while nothing was asked for */
	size_t total_bytes;       /* of all blocks, to be held against a limit by the owner */
};

void arena_init(struct arena *a);

/* Gives all memory back; the arena is empty and usable again. */
void arena_fini(struct arena *a);

/* Zeroed (arena_zalloc) or not; aligned for any type. Never NULL. */
void *arena_alloc(struct arena *a, size_t n) __attribute__((malloc, returns_nonnull));
void *arena_zalloc(struct arena *a, size_t n) __attribute__((malloc, returns_nonnull));
char *arena_strndup(struct arena *a, const char *s, size_t n) __attribute__((returns_nonnull));
char *arena_strdup(struct arena *a, const char *s) __attribute__((returns_nonnull));
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
