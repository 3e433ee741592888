/* SPDX-License-Identifier: BSD-2-Clause */
/* dlist - a doubly linked list through a member of its elements. An unlinked node points to itself,
 * so dlist_del() may be called twice. */
#ifndef PGSPAN_DLIST_H
#define PGSPAN_DLIST_H

#include "pgspan/defs.h"

struct dlist {
	struct dlist *prev, *next;
};

static inline void
dlist_init(struct dlist *n)
{
	n->prev = n->next = n;
}

static inline bool
dlist_empty(const struct dlist *h)
{
	return h->next == h;
}

static inline void
dlist_add_tail(struct dlist *h, struct dlist *n)
{
	n->prev = h->prev;
	n->next = h;
	h->prev->next = n;
	h->prev = n;
}

static inline void
dlist_add_head(struct dlist *h, struct dlist *n)
{
	dlist_add_tail(h->next, n);
}

static inline void
dlist_del(struct dlist *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	dlist_init(n);
}

#define dlist_first(h, type, member) container_of((h)->next, type, member)
#define dlist_last(h, type, member) container_of((h)->prev, type, member)
/* The element may be unlinked (and freed) inside the loop; no other may. */
#define dlist_each(it, tmp, h)                                                                     \
	for (struct dlist *it = (h)->next, *tmp = it->next; it != (h); it = tmp, tmp = it->next)

#endif
