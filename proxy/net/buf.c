/* SPDX-License-Identifier: BSD-2-Clause */
/* buf - see pgspan/buf.h. Free buffers are linked through their own first bytes; the lists are bounded so that one
 * burst of thousands of busy clients does not keep its memory for ever. */
#include "pgspan/buf.h"

/* A buffer that was given back must not be read by whoever still points into it: under AddressSanitizer that is an error. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

/* What a worker keeps ready: enough for the connections that are busy at one moment, far below the number of clients. */
#define KEEP_SMALL 256
#define KEEP_LARGE 32

struct buf_free {
	struct buf_free *next;
};

void
buf_pool_init(struct buf_pool *p)
{
	memset(p, 0, sizeof *p);
	p->max_small = KEEP_SMALL;
	p->max_large = KEEP_LARGE;
}

static void
free_all(struct buf_free *f, size_t size)
{
	while (f) {
		ASAN_UNPOISON_MEMORY_REGION(f, size);
		struct buf_free *next = f->next;
		free(f);
		f = next;
	}
}

void
buf_pool_fini(struct buf_pool *p)
{
	free_all(p->small, BUF_SMALL);
	free_all(p->large, BUF_LARGE);
	buf_pool_init(p);
}

/* The size class for *n* bytes; above the large one, exactly *n*. */
static uint32_t
size_for(size_t n)
{
	assert(n <= UINT32_MAX);
	return n <= BUF_SMALL ? BUF_SMALL : n <= BUF_LARGE ? BUF_LARGE : (uint32_t)n;
}

static char *
take(struct buf_pool *p, uint32_t size)
{
	struct buf_free **list = size == BUF_SMALL ? &p->small : size == BUF_LARGE ? &p->large : NULL;
	if (!list || !*list)
		return xmalloc(size);
	struct buf_free *f = *list;
	ASAN_UNPOISON_MEMORY_REGION(f, size);
	*list = f->next;
	if (size == BUF_SMALL)
		p->n_small--;
	else
		p->n_large--;
	return (char *)f;
}

static void
give(struct buf_pool *p, char *base, uint32_t size)
{
	struct buf_free *f = (struct buf_free *)(void *)base;
	if (size == BUF_SMALL && p->n_small < p->max_small) {
		f->next = p->small;
		p->small = f;
		p->n_small++;
	} else if (size == BUF_LARGE && p->n_large < p->max_large) {
		f->next = p->large;
		p->large = f;
		p->n_large++;
	} else {
		free(base);
		return;
	}
	ASAN_POISON_MEMORY_REGION(base, size);
}

void
buf_reserve(struct buf_pool *p, struct buf *b, size_t room)
{
	size_t len = buf_len(b);
	if (!b->base) {
		b->cap = size_for(room);
		b->base = take(p, b->cap);
		b->r = b->w = 0;
		return;
	}
	if (b->cap - b->w >= room)
		return;
	if (b->cap - len >= room) {
		memmove(b->base, b->base + b->r, len);
	} else {
		uint32_t cap = size_for(len + room);
		char *base = take(p, cap);
		memcpy(base, b->base + b->r, len);
		give(p, b->base, b->cap);
		b->base = base;
		b->cap = cap;
	}
	b->r = 0;
	b->w = (uint32_t)len;
}

void
buf_consume(struct buf_pool *p, struct buf *b, size_t n)
{
	assert(n <= buf_len(b));
	b->r += (uint32_t)n;
	if (b->r == b->w)
		buf_release(p, b);
}

void
buf_append(struct buf_pool *p, struct buf *b, const void *data, size_t n)
{
	if (n == 0)
		return;
	buf_reserve(p, b, n);
	memcpy(b->base + b->w, data, n);
	b->w += (uint32_t)n;
}

void
buf_prepend(struct buf_pool *p, struct buf *b, const void *data, size_t n)
{
	if (n == 0)
		return;
	size_t len = buf_len(b);
	buf_reserve(p, b, n);
	memmove(b->base + b->r + n, b->base + b->r, len);
	memcpy(b->base + b->r, data, n);
	b->w += (uint32_t)n;
}

void
buf_release(struct buf_pool *p, struct buf *b)
{
	if (b->base)
		give(p, b->base, b->cap);
	*b = (struct buf){NULL, 0, 0, 0};
}
