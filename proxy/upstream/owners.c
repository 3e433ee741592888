/* SPDX-License-Identifier: BSD-2-Clause */
/* owners - see pgspan/owners.h. Each slot is one word, so it is read and written whole: half of the hash of (server, process),
 * and the client. */
#include "pgspan/owners.h"

#include <stdatomic.h>
#include <xxhash.h>

#define SLOTS 8192

static _Atomic uint64_t slots[SLOTS]; /* the one thing of the process that workers look up in each other's business */

static uint64_t
hash_of(const char *server, uint32_t pid)
{
	return XXH3_64bits_withSeed(server, strlen(server), pid);
}

void
owners_set(const char *server, uint32_t pid, uint32_t client)
{
	uint64_t h = hash_of(server, pid);
	atomic_store_explicit(&slots[h % SLOTS], (h & 0xffffffff00000000u) | client, memory_order_relaxed);
}

uint32_t
owners_get(const char *server, uint32_t pid)
{
	uint64_t h = hash_of(server, pid), slot = atomic_load_explicit(&slots[h % SLOTS], memory_order_relaxed);
	return slot >> 32 == h >> 32 ? (uint32_t)slot : 0;
}
