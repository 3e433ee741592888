/* SPDX-License-Identifier: BSD-2-Clause */
/* ident - user-name maps: who may log in as whom (PostgreSQL docs 21.2; pg_ident.conf's format, PgBouncer's auth_ident_file).
 *
 *   # map      certificate's name     user
 *   staff      "Jane Doe"             jane
 *   staff      /^(.*)\.example\.com$  \1
 *   robots     robot                  all
 *
 * A certificate's name that begins with a slash is an extended regular expression (POSIX, as regcomp() has it); \1 in the user is what its first
 * parentheses matched. "all" without quotes is any user.  Immutable after parsing.  Thread: any. */
#ifndef PGSPAN_IDENT_H
#define PGSPAN_IDENT_H

#include "pgspan/diag.h"
#include "pgspan/span.h"

struct ident_maps;

/* NULL: *d* says what is wrong in which line. */
struct ident_maps *ident_parse(struct span text, struct diag *d) WARN_UNUSED;
void ident_free(struct ident_maps *m); /* NULL is allowed */
bool ident_has(const struct ident_maps *m, const char *map);
/* Whether *map* lets *name* be *user*. */
bool ident_allows(const struct ident_maps *m, const char *map, const char *name, const char *user);

#endif
