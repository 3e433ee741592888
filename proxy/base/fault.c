/* SPDX-License-Identifier: BSD-2-Clause */
/* fault - see pgspan/fault.h. */
#include "pgspan/fault.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static const char *wanted; /* NULL: none */
static size_t wanted_len;
static _Atomic long left;
static const char *choice; /* NULL: none */

void
fault_init(void)
{
	const char *e = getenv("PGSPAN_FAULT"), *colon = e ? strrchr(e, ':') : NULL;
	if (!colon) {
		choice = e;
		return;
	}
	wanted = e;
	wanted_len = (size_t)(colon - e);
	atomic_store(&left, strtol(colon + 1, NULL, 10));
}

void
fault_point(const char *name)
{
	if (!wanted || strlen(name) != wanted_len || memcmp(name, wanted, wanted_len) != 0)
		return;
	if (atomic_fetch_sub(&left, 1) == 1)
		kill(getpid(), SIGKILL);
}

bool
fault_is_set(const char *name)
{
	return choice && strcmp(choice, name) == 0;
}
