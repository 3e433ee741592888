/* SPDX-License-Identifier: BSD-2-Clause */
/* diag - why something was refused, in the shape of a PostgreSQL error: SQLSTATE, message, detail,
 * hint (PostgreSQL docs 55.8 "Error and Notice Message Fields", Appendix A for the codes). */
#ifndef PGSPAN_DIAG_H
#define PGSPAN_DIAG_H

#include "pgspan/defs.h"

struct diag {
	char sqlstate[6];  /* five characters and a NUL; empty: nothing was reported */
	char message[512]; /* cut if longer, never overrun */
	char detail[512];  /* empty: none */
	char hint[512];    /* empty: none */
};

void diag_clear(struct diag *d);
bool diag_is_set(const struct diag *d);
/* The first report wins: a later one for the same diag is dropped. d may be NULL. */
void diag_set(struct diag *d, const char *sqlstate, const char *fmt, ...) PRINTF_LIKE(3, 4);
void diag_detail(struct diag *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
void diag_hint(struct diag *d, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
