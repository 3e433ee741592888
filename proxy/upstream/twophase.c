/* SPDX-License-Identifier: BSD-2-Clause */
/* twophase - see pgspan/twophase.h: identifiers and statements; pure. */
#include "pgspan/twophase.h"

#include <inttypes.h>
#include <pthread.h>
#include <time.h>

#define PREFIX "pgspan_"
#define INSTANCE_CHARS "abcdefghijklmnopqrstuvwxyz0123456789_"

struct gid
gid_make(const char *instance, uint64_t run, int worker, uint64_t sequence, int shard)
{
	struct gid g;
	int n = snprintf(g.text, sizeof g.text, PREFIX "%s_%" PRIx64 "_%d_%" PRIu64 "_%d", instance, run, worker, sequence, shard);
	assert(n > 0 && (size_t)n < sizeof g.text); /* config bounds the instance's name */
	(void)n;
	return g;
}

/* The number behind the last underscore of text[0..*len), which is cut off with it. What strtoull lets through beyond plain
 * digits is found by gid_parse()'s comparison. */
static bool
take_last(const char *text, size_t *len, int base, uint64_t max, uint64_t *out)
{
	size_t i = *len;
	while (i > 0 && text[i - 1] != '_')
		i--;
	if (i == 0 || i == *len)
		return false;
	char *end;
	unsigned long long v = strtoull(text + i, &end, base);
	if (end != text + *len || v > max)
		return false;
	*out = v;
	*len = i - 1;
	return true;
}

bool
gid_parse(const char *text, struct gid_parts *out)
{
	/* From the right: an instance's name may hold underscores. */
	const char *name = text + sizeof PREFIX - 1;
	size_t len = strnlen(text, sizeof(struct gid));
	uint64_t worker, shard;
	if (len >= sizeof(struct gid) || strncmp(text, PREFIX, sizeof PREFIX - 1) != 0)
		return false;
	len -= sizeof PREFIX - 1;
	if (!take_last(name, &len, 10, MAX_SHARDS - 1, &shard) || !take_last(name, &len, 10, UINT64_MAX, &out->sequence) ||
	    !take_last(name, &len, 10, INT32_MAX, &worker) || !take_last(name, &len, 16, UINT64_MAX, &out->run))
		return false;
	if (len == 0 || len >= sizeof out->instance || strspn(name, INSTANCE_CHARS) < len)
		return false;
	memcpy(out->instance, name, len);
	out->instance[len] = '\0';
	out->worker = (int)worker;
	out->shard = (int)shard;
	struct gid again = gid_make(out->instance, out->run, out->worker, out->sequence, out->shard);
	return strcmp(again.text, text) == 0;
}

static uint64_t the_run;

static void
set_run(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	the_run = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t
twophase_run(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, set_run);
	return the_run;
}

size_t
twophase_sql(char buf[TWOPHASE_SQL_MAX], enum twophase_step step, const struct gid *g)
{
	static const char *const forms[] = {
	    [TWOPHASE_PREPARE] = "PREPARE TRANSACTION '%s'",
	    /* One implicit block. The row must be on disk before the first COMMIT PREPARED, whatever synchronous_commit the user
	     * has set; and default_transaction_read_only must not refuse it. */
	    [TWOPHASE_DECIDE] = ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; SET LOCAL synchronous_commit TO on; "
	                         "INSERT INTO pgspan.decision (gid, commit) VALUES ('%s', true)"),
	    [TWOPHASE_COMMIT_PREPARED] = "COMMIT PREPARED '%s'",
	    [TWOPHASE_ROLLBACK_PREPARED] = "ROLLBACK PREPARED '%s'",
	};
	int n = snprintf(buf, TWOPHASE_SQL_MAX, forms[step], g->text);
	assert(n > 0 && n < TWOPHASE_SQL_MAX);
	return (size_t)n;
}
