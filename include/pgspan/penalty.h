/* SPDX-License-Identifier: BSD-2-Clause */
/* penalty - how long the answer to a wrong password is held back, by the address that it came from.
 *
 * The fourth failure waits 0.1 s, each further one twice as long, up to a limit; two seconds of peace take one failure back.
 * An IPv6 client counts by its /64, for it has 2^64 addresses. The table is of a fixed size: a newcomer takes the place of
 * whom among a few was quiet for longest, so that many addresses cost accuracy, never memory.
 * Owner: the process.  Thread: any. */
#ifndef PGSPAN_PENALTY_H
#define PGSPAN_PENALTY_H

#include "pgspan/defs.h"

#include <pthread.h>
#include <sys/socket.h>

#define PENALTY_SETS 1024
#define PENALTY_WAYS 4

struct penalties {
	pthread_mutex_t lock;
	struct penalty {
		uint64_t who; /* 0: free */
		int64_t at_ms;
		int failures;
	} slots[PENALTY_SETS][PENALTY_WAYS];
};

void penalties_init(struct penalties *p);
void penalties_fini(struct penalties *p);
/* One more failure; for how long its answer is to wait, at most *max_ms*. Other families than IP have no penalty. */
int64_t penalties_add(struct penalties *p, const struct sockaddr *from, int64_t now_ms, int64_t max_ms);

#endif
