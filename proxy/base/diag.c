/* SPDX-License-Identifier: BSD-2-Clause */
/* diag - see pgspan/diag.h. */
#include "pgspan/diag.h"

#include <stdarg.h>

void
diag_clear(struct diag *d)
{
	d->sqlstate[0] = d->message[0] = d->detail[0] = d->hint[0] = '\0';
}

bool
diag_is_set(const struct diag *d)
{
	return d->sqlstate[0] != '\0';
}

void
diag_set(struct diag *d, const char *sqlstate, const char *fmt, ...)
{
	if (!d || diag_is_set(d))
		return;
	assert(strlen(sqlstate) == 5);
	memcpy(d->sqlstate, sqlstate, 6);
	d->detail[0] = d->hint[0] = '\0';
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(d->message, sizeof d->message, fmt, ap);
	va_end(ap);
}

void
diag_detail(struct diag *d, const char *fmt, ...)
{
	if (!d || d->detail[0])
		return;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(d->detail, sizeof d->detail, fmt, ap);
	va_end(ap);
}

void
diag_hint(struct diag *d, const char *fmt, ...)
{
	if (!d || d->hint[0])
		return;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(d->hint, sizeof d->hint, fmt, ap);
	va_end(ap);
}
