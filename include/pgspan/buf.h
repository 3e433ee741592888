/* SPDX-License-Identifier: BSD-2-Clause */
/* buf - receive and transmit buffers, borrowed from a per-thread pool only while they hold bytes.
 *
 *   base          r               w            cap
 *    |  consumed  |  to be read   |  free room  |
 *
 * Sizes: 4 KiB (a request or a short answer), 64 KiB (a stream), or exactly what one message needs, when it must be
 * read whole. The first two are kept on free lists; an empty buffer has no memory at all, so an idle client costs none.
 * Owner of a buf: the connection it is part of.  Thread: the pool's only. */
#ifndef PGSPAN_BUF_H
#define PGSPAN_BUF_H

#include "pgspan/span.h"

#define BUF_SMALL 4096u
#define BUF_LARGE 65536u

struct buf {
	char *base; /* NULL: holds nothing */
	uint32_t cap, r, w;
};

struct buf_free; /* a link inside a free buffer's own memory */

struct buf_pool {
	struct buf_free *small, *large;
	uint32_t n_small, n_large;     /* on the lists */
	uint32_t max_small, max_large; /* more than these go back to malloc */
};

void buf_pool_init(struct buf_pool *p);
void buf_pool_fini(struct buf_pool *p);

static inline size_t
buf_len(const struct buf *b)
{
	return b->w - b->r;
}

static inline const char *
buf_data(const struct buf *b)
{
	return b->base + b->r;
}

/* Makes room for at least *room* more bytes behind w: borrows, moves what is there to the front, or changes to a larger
 * size, as is cheapest. r + room must stay below 4 GiB. Spans into the buffer are invalid afterwards. */
void buf_reserve(struct buf_pool *p, struct buf *b, size_t room);

/* *n* bytes from r on have been dealt with. A buffer that is empty then goes back to the pool. */
void buf_consume(struct buf_pool *p, struct buf *b, size_t n);

void buf_append(struct buf_pool *p, struct buf *b, const void *data, size_t n);

/* Puts *n* bytes in front of what is there. */
void buf_prepend(struct buf_pool *p, struct buf *b, const void *data, size_t n);

/* Gives the memory back whatever it holds. */
void buf_release(struct buf_pool *p, struct buf *b);

#endif
