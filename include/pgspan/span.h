/* SPDX-License-Identifier: BSD-2-Clause */
/* span - bytes that belong to somebody else. A span is valid until the function that was given
 * it returns, unless its receiver's header says otherwise. */
#ifndef PGSPAN_SPAN_H
#define PGSPAN_SPAN_H

#include "pgspan/defs.h"

struct span {
	const char *p;
	size_t n;
};

#define SPAN_NONE ((struct span){NULL, 0})
#define SPAN_LIT(s) ((struct span){(s), sizeof(s) - 1})

static inline struct span
span_of(const char *p, size_t n)
{
	return (struct span){p, n};
}

static inline struct span
span_str(const char *s)
{
	return (struct span){s, strlen(s)};
}

static inline bool
span_eq(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool
span_eq_str(struct span a, const char *s)
{
	return span_eq(a, span_str(s));
}

#endif
