/* SPDX-License-Identifier: BSD-2-Clause */
/* penalty - see pgspan/penalty.h. */
#include "pgspan/penalty.h"

#include <netinet/in.h>
#include <xxhash.h>

enum { FREE_FAILURES = 3, FIRST_MS = 100, FORGIVEN_MS = 2000, MOST_FAILURES = 30 };

void
penalties_init(struct penalties *p)
{
	memset(p, 0, sizeof *p);
	pthread_mutex_init(&p->lock, NULL);
}

void
penalties_fini(struct penalties *p)
{
	pthread_mutex_destroy(&p->lock);
}

/* A hash of the address, never 0; 0: it has none. */
static uint64_t
who_of(const struct sockaddr *sa)
{
	const void *p;
	size_t n;
	if (sa->sa_family == AF_INET) {
		p = &((const struct sockaddr_in *)(const void *)sa)->sin_addr;
		n = 4;
	} else if (sa->sa_family == AF_INET6) {
		const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
		bool is_v4 = IN6_IS_ADDR_V4MAPPED(a);
		p = is_v4 ? a->s6_addr + 12 : a->s6_addr;
		n = is_v4 ? 4 : 8;
	} else {
		return 0;
	}
	return XXH3_64bits(p, n) | 1;
}

/* The address's place, or the one that was quiet for longest. */
static struct penalty *
place_of(struct penalties *p, uint64_t who)
{
	struct penalty *set = p->slots[(who >> 1) % PENALTY_SETS], *oldest = &set[0];
	for (int i = 0; i < PENALTY_WAYS; i++) {
		if (set[i].who == who)
			return &set[i];
		if (set[i].who == 0 || (oldest->who != 0 && set[i].at_ms < oldest->at_ms))
			oldest = &set[i];
	}
	*oldest = (struct penalty){.who = who};
	return oldest;
}

int64_t
penalties_add(struct penalties *p, const struct sockaddr *from, int64_t now_ms, int64_t max_ms)
{
	uint64_t who = who_of(from);
	if (who == 0)
		return 0;
	pthread_mutex_lock(&p->lock);
	struct penalty *s = place_of(p, who);
	int64_t quiet = s->failures ? now_ms - s->at_ms : 0, forgiven = quiet > 0 ? quiet / FORGIVEN_MS : 0;
	s->failures = forgiven >= s->failures ? 1 : s->failures - (int)forgiven + 1;
	if (s->failures > MOST_FAILURES)
		s->failures = MOST_FAILURES;
	s->at_ms = now_ms;
	int64_t ms = s->failures <= FREE_FAILURES ? 0 : (int64_t)FIRST_MS << (s->failures - FREE_FAILURES - 1);
	pthread_mutex_unlock(&p->lock);
	return ms < max_ms ? ms : max_ms;
}
