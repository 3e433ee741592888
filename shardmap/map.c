/* SPDX-License-Identifier: BSD-2-Clause */
/* map - the table from bucket to shard, how it is built from ranges, and how a key's hash finds its place in it.
 *
 * A map never changes once it is built: a reload builds a new one beside it, and the old one goes with its last
 * reference. Its builder owns a table of the same form, in which NOBODY marks what was not given away yet. */
#define XXH_STATIC_LINKING_ONLY /* XXH64_state_t on the stack */
#include "shardmap.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <xxhash.h>

#include "rowhash.h"
#include "text.h"

#define NOBODY UINT16_MAX

struct shardmap {
	atomic_int refs;
	uint32_t buckets; /* a power of two */
	enum shardmap_strategy strategy;
	int n_shards;
	uint16_t shard[]; /* of each bucket */
};

struct shardmap_builder {
	uint32_t buckets;
	enum shardmap_strategy strategy;
	int n_shards;
	uint16_t shard[]; /* NOBODY: not owned yet */
};

/* ---- strategies ---- */

bool
shardmap_strategy_from_name(const char *name, enum shardmap_strategy *out)
{
	if (strcmp(name, "xxh64") == 0)
		*out = SHARDMAP_XXH64;
	else if (strcmp(name, "postgres") == 0)
		*out = SHARDMAP_POSTGRES;
	else
		return false;
	return true;
}

const char *
shardmap_strategy_name(enum shardmap_strategy strategy)
{
	return strategy == SHARDMAP_POSTGRES ? "postgres" : "xxh64";
}

/* XXH64 of what key_join() would write, without writing it. */
static uint64_t
xxh64_joined(const struct span *columns, int n)
{
	XXH64_state_t state;
	XXH64_reset(&state, 0);
	for (int i = 0; i < n; i++) {
		uint32_t length = (uint32_t)columns[i].n;
		unsigned char be[4] = {(unsigned char)(length >> 24), (unsigned char)(length >> 16), (unsigned char)(length >> 8),
		                       (unsigned char)length};
		XXH64_update(&state, be, sizeof be);
		if (length)
			XXH64_update(&state, columns[i].p, length);
	}
	return XXH64_digest(&state);
}

uint64_t
shardmap_key_hash(enum shardmap_strategy strategy, const enum key_type *types, const struct span *columns, int n)
{
	if (strategy == SHARDMAP_POSTGRES)
		return rowhash(types, columns, n);
	if (n == 1)
		return XXH64(columns[0].n ? columns[0].p : "", columns[0].n, 0);
	return xxh64_joined(columns, n);
}

/* ---- the map ---- */

struct shardmap *
shardmap_ref(struct shardmap *map)
{
	atomic_fetch_add_explicit(&map->refs, 1, memory_order_relaxed);
	return map;
}

void
shardmap_unref(struct shardmap *map)
{
	/* Acquire: what other threads read of the map before they let go happens before free(). */
	if (map && atomic_fetch_sub_explicit(&map->refs, 1, memory_order_acq_rel) == 1)
		free(map);
}

uint32_t
shardmap_buckets(const struct shardmap *map)
{
	return map->buckets;
}

enum shardmap_strategy
shardmap_strategy(const struct shardmap *map)
{
	return map->strategy;
}

int
shardmap_n_shards(const struct shardmap *map)
{
	return map->n_shards;
}

uint32_t
shardmap_bucket(const struct shardmap *map, const enum key_type *types, const struct span *columns, int n)
{
	return (uint32_t)shardmap_key_hash(map->strategy, types, columns, n) & (map->buckets - 1);
}

int
shardmap_shard_of_bucket(const struct shardmap *map, uint32_t bucket)
{
	assert(bucket < map->buckets);
	return map->shard[bucket];
}

int
shardmap_shard(const struct shardmap *map, const enum key_type *types, const struct span *columns, int n)
{
	return map->shard[shardmap_bucket(map, types, columns, n)];
}

/* ---- the builder ---- */

static void PRINTF_LIKE(3, 4)
report(char *buf, size_t size, const char *fmt, ...)
{
	if (size == 0)
		return;
	va_list args;
	va_start(args, fmt);
	vsnprintf(buf, size, fmt, args);
	va_end(args);
}

static void *
allocate(size_t n)
{
	void *p = malloc(n);
	if (!p) {
		fprintf(stderr, "shardmap: no memory for %zu bytes\n", n);
		abort();
	}
	return p;
}

struct shardmap_builder *
shardmap_builder_new(uint32_t buckets, enum shardmap_strategy strategy, char *err, size_t err_size)
{
	if (buckets < SHARDMAP_MIN_BUCKETS || buckets > SHARDMAP_MAX_BUCKETS || (buckets & (buckets - 1)) != 0) {
		report(err, err_size, "the number of buckets must be a power of two from %d to %d, not %u", SHARDMAP_MIN_BUCKETS,
		       SHARDMAP_MAX_BUCKETS, buckets);
		return NULL;
	}
	struct shardmap_builder *b = allocate(sizeof *b + buckets * sizeof b->shard[0]);
	b->buckets = buckets;
	b->strategy = strategy;
	b->n_shards = 0;
	for (uint32_t i = 0; i < buckets; i++)
		b->shard[i] = NOBODY;
	return b;
}

void
shardmap_builder_free(struct shardmap_builder *b)
{
	free(b);
}

static const char *
skip_blanks(const char *s)
{
	while (text_is_space(*s))
		s++;
	return s;
}

/* A number at *s, moving *s behind it and the blanks that follow. Too large a number stays too large for any map. */
static bool
read_number(const char **s, uint32_t *out)
{
	const char *p = *s;
	uint32_t v = 0;
	if (!text_is_digit(*p))
		return false;
	for (; text_is_digit(*p); p++)
		v = v > SHARDMAP_MAX_BUCKETS ? v : v * 10 + (uint32_t)(*p - '0');
	*s = skip_blanks(p);
	*out = v;
	return true;
}

/* One range at *s, "7" or "0-99", moving *s behind it. */
static enum rc
read_range(const struct shardmap_builder *b, const char **s, uint32_t *first, uint32_t *last, char *err, size_t err_size)
{
	const char *start = *s = skip_blanks(*s);
	bool good = read_number(s, first);
	*last = *first;
	if (good && **s == '-') {
		*s = skip_blanks(*s + 1);
		good = read_number(s, last);
	}
	if (!good || (**s != ',' && **s != '\0')) {
		report(err, err_size, "expected bucket ranges such as 0-4095,5000 at \"%.20s\"", start);
		return RC_FAIL;
	}
	int length = (int)(*s - start);
	if (*first >= b->buckets || *last >= b->buckets) {
		report(err, err_size, "\"%.*s\" is out of range: the buckets are 0-%u", length < 40 ? length : 40, start, b->buckets - 1);
		return RC_FAIL;
	}
	if (*first > *last) {
		report(err, err_size, "range \"%.*s\" ends before it begins", length < 40 ? length : 40, start);
		return RC_FAIL;
	}
	return RC_OK;
}

/* The end of the run of buckets from *first* to at most *last* that have the owner of *first*. */
static uint32_t
run_end(const struct shardmap_builder *b, uint32_t first, uint32_t last)
{
	uint32_t i = first;
	while (i < last && b->shard[i + 1] == b->shard[first])
		i++;
	return i;
}

static enum rc
claim(struct shardmap_builder *b, uint16_t shard, uint32_t first, uint32_t last, char *err, size_t err_size)
{
	for (uint32_t i = first; i <= last; i++) {
		if (b->shard[i] == NOBODY)
			continue;
		uint32_t end = run_end(b, i, last);
		const char *plural = i == end ? "" : "s";
		char range[32];
		snprintf(range, sizeof range, i == end ? "%u" : "%u-%u", i, end);
		if (b->shard[i] == shard)
			report(err, err_size, "bucket%s %s named twice for shard %d", plural, range, shard);
		else
			report(err, err_size, "bucket%s %s cannot be given to shard %d: owned by shard %d", plural, range, shard, b->shard[i]);
		return RC_FAIL;
	}
	for (uint32_t i = first; i <= last; i++)
		b->shard[i] = shard;
	return RC_OK;
}

static enum rc
add_ranges(struct shardmap_builder *b, uint16_t shard, const char *ranges, char *err, size_t err_size)
{
	const char *s = skip_blanks(ranges);
	if (*s == '\0')
		return RC_OK;
	for (;;) {
		uint32_t first, last;
		if (read_range(b, &s, &first, &last, err, err_size) != RC_OK || claim(b, shard, first, last, err, err_size) != RC_OK)
			return RC_FAIL;
		if (*s == '\0')
			return RC_OK;
		s++; /* the comma */
	}
}

enum rc
shardmap_builder_add(struct shardmap_builder *b, int shard, const char *ranges, char *err, size_t err_size)
{
	if (shard < 0 || shard >= MAX_SHARDS) {
		report(err, err_size, "shard %d is out of range: shards are numbered 0-%d", shard, MAX_SHARDS - 1);
		return RC_FAIL;
	}
	size_t table_bytes = b->buckets * sizeof b->shard[0];
	uint16_t *before = allocate(table_bytes);
	memcpy(before, b->shard, table_bytes);
	enum rc rc = add_ranges(b, (uint16_t)shard, ranges, err, err_size);
	if (rc != RC_OK)
		memcpy(b->shard, before, table_bytes);
	else if (shard >= b->n_shards)
		b->n_shards = shard + 1;
	free(before);
	return rc;
}

/* Says which buckets nobody owns: the first range, and how many there are besides. */
static void
report_unowned(const struct shardmap_builder *b, uint32_t first, char *err, size_t err_size)
{
	uint32_t end = run_end(b, first, b->buckets - 1), others = 0;
	for (uint32_t i = end + 1; i < b->buckets; i++)
		others += b->shard[i] == NOBODY;
	char range[32], rest[64] = "";
	snprintf(range, sizeof range, first == end ? " %u is" : "s %u-%u are", first, end);
	if (others)
		snprintf(rest, sizeof rest, ", nor %s %u further one%s", others == 1 ? "is" : "are", others, others == 1 ? "" : "s");
	report(err, err_size, "bucket%s owned by no shard%s", range, rest);
}

struct shardmap *
shardmap_builder_build(const struct shardmap_builder *b, char *err, size_t err_size)
{
	for (uint32_t i = 0; i < b->buckets; i++)
		if (b->shard[i] == NOBODY) {
			report_unowned(b, i, err, err_size);
			return NULL;
		}
	size_t table_bytes = b->buckets * sizeof b->shard[0];
	struct shardmap *map = allocate(sizeof *map + table_bytes);
	atomic_init(&map->refs, 1);
	map->buckets = b->buckets;
	map->strategy = b->strategy;
	map->n_shards = b->n_shards;
	memcpy(map->shard, b->shard, table_bytes);
	return map;
}
