/* SPDX-License-Identifier: BSD-2-Clause */
/* mem - allocation that never returns NULL. Sizes that come from the network are checked against a
 * configured limit before they get here, so running out means the machine is out of memory: the
 * process says so and aborts rather than going on with half a state. */
#include "pgspan/log.h"

static void *
checked(void *p, size_t n)
{
	if (UNLIKELY(p == NULL))
		log_fatal("out of memory (%zu bytes wanted)", n);
	return p;
}

void *
xmalloc(size_t n)
{
	return checked(malloc(n ? n : 1), n);
}

void *
xcalloc(size_t n, size_t size)
{
	return checked(calloc(n ? n : 1, size ? size : 1), n * size);
}

void *
xrealloc(void *p, size_t n)
{
	return checked(realloc(p, n ? n : 1), n);
}

char *
xstrdup(const char *s)
{
	return xstrndup(s, strlen(s));
}

char *
xstrndup(const char *s, size_t n)
{
	char *p = xmalloc(n + 1);
	memcpy(p, s, n);
	p[n] = '\0';
	return p;
}
