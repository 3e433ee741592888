/* SPDX-License-Identifier: BSD-2-Clause */
/* defs - what every file needs: attributes, container_of, poisoned functions, result codes. */
#ifndef PGSPAN_DEFS_H
#define PGSPAN_DEFS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define WARN_UNUSED __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define NORETURN __attribute__((noreturn))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#define container_of(ptr, type, member) ((type *)(void *)((uintptr_t)(ptr)-offsetof(type, member)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The result of an I/O call or of one step of a state machine. */
enum rc {
	RC_OK = 0,
	RC_AGAIN = 1, /* not finished; something will call back */
	RC_FAIL = -1, /* failed for good; the reason is with the object or in a diag */
};

/* No shard of a database may have a number of this or above. */
#define MAX_SHARDS 256

/* Memory is never handed out half: these abort with a log line when there is none. */
void *xmalloc(size_t n) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t n) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));

#pragma GCC poison strcpy strcat sprintf vsprintf strtok gets

#endif
