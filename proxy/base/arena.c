/* SPDX-License-Identifier: BSD-2-Clause */
/* arena - bump allocation in blocks. Blocks start small (an arena that holds one plan takes one of
 * 1 KiB) and double to 64 KiB; a larger request gets a block of its own size. */
#include "pgspan/arena.h"

#include <stdarg.h>

#define ARENA_FIRST 1024
#define ARENA_LARGEST 65536
#define ARENA_ALIGN 16

struct arena_block {
	struct arena_block *next;
	size_t cap, used; /* of data[] */
	_Alignas(ARENA_ALIGN) char data[];
};

void
arena_init(struct arena *a)
{
	a->head = NULL;
	a->total_bytes = 0;
}

void
arena_fini(struct arena *a)
{
	struct arena_block *b = a->head;
	while (b) {
		struct arena_block *next = b->next;
		free(b);
		b = next;
	}
	arena_init(a);
}

void *
arena_alloc(struct arena *a, size_t n)
{
	n = (n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
	struct arena_block *b = a->head;
	if (!b || b->cap - b->used < n) {
		size_t cap = b ? b->cap * 2 : ARENA_FIRST;
		if (cap > ARENA_LARGEST)
			cap = ARENA_LARGEST;
		if (cap < n)
			cap = n;
		b = xmalloc(sizeof *b + cap);
		b->cap = cap;
		b->used = 0;
		b->next = a->head;
		a->head = b;
		a->total_bytes += sizeof *b + cap;
	}
	void *p = b->data + b->used;
	b->used += n;
	return p;
}

void *
arena_zalloc(struct arena *a, size_t n)
{
	void *p = arena_alloc(a, n);
	memset(p, 0, n);
	return p;
}

char *
arena_strndup(struct arena *a, const char *s, size_t n)
{
	char *p = arena_alloc(a, n + 1);
	if (n)
		memcpy(p, s, n);
	p[n] = '\0';
	return p;
}

char *
arena_strdup(struct arena *a, const char *s)
{
	return arena_strndup(a, s, strlen(s));
}

char *
arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	assert(n >= 0);
	char *p = arena_alloc(a, (size_t)n + 1);
	vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	return p;
}
