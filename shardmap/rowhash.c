/* SPDX-License-Identifier: BSD-2-Clause */
/* rowhash - PostgreSQL's extended hash functions, computed as a little-endian server does.
 *
 * Beneath all of them is lookup3 by Bob Jenkins (public domain), which keeps three 32-bit words and stirs in twelve
 * bytes at a time. PostgreSQL changed its first values, puts a 64-bit seed in front, and reserves the lowest byte of the
 * last word in the tail. The seed and the way columns are combined are those of satisfies_hash_partition(); they are on
 * disk in every hash-partitioned table, and do not change. */
#include "rowhash.h"

#define PARTITION_SEED UINT64_C(0x7A5B22367996DCFD)

struct lookup3 {
	uint32_t a, b, c;
};

static inline uint32_t
rotate(uint32_t x, unsigned k)
{
	return x << k | x >> (32 - k);
}

static inline void
stir(struct lookup3 *s)
{
	uint32_t a = s->a, b = s->b, c = s->c;
	a = (a - c) ^ rotate(c, 4);
	c += b;
	b = (b - a) ^ rotate(a, 6);
	a += c;
	c = (c - b) ^ rotate(b, 8);
	b += a;
	a = (a - c) ^ rotate(c, 16);
	c += b;
	b = (b - a) ^ rotate(a, 19);
	a += c;
	c = (c - b) ^ rotate(b, 4);
	b += a;
	*s = (struct lookup3){a, b, c};
}

static inline uint64_t
finish(const struct lookup3 *s)
{
	uint32_t a = s->a, b = s->b, c = s->c;
	c = (c ^ b) - rotate(b, 14);
	a = (a ^ c) - rotate(c, 11);
	b = (b ^ a) - rotate(a, 25);
	c = (c ^ b) - rotate(b, 16);
	a = (a ^ c) - rotate(c, 4);
	b = (b ^ a) - rotate(a, 14);
	c = (c ^ b) - rotate(b, 24);
	return (uint64_t)b << 32 | c;
}

static struct lookup3
start(uint32_t length, uint64_t seed)
{
	uint32_t first = 0x9e3779b9u + length + 3923095u;
	struct lookup3 s = {first, first, first};
	if (seed) {
		s.a += (uint32_t)(seed >> 32);
		s.b += (uint32_t)seed;
		stir(&s);
	}
	return s;
}

/* Up to four bytes, the first one lowest. */
static inline uint32_t
word(const char *p, size_t n)
{
	uint32_t w = 0;
	for (size_t i = 0; i < n && i < 4; i++)
		w |= (uint32_t)(unsigned char)p[i] << (8 * i);
	return w;
}

uint64_t
rowhash_bytes(struct span k, uint64_t seed)
{
	struct lookup3 s = start((uint32_t)k.n, seed);
	for (; k.n >= 12; k = span_of(k.p + 12, k.n - 12)) {
		s.a += word(k.p, 4);
		s.b += word(k.p + 4, 4);
		s.c += word(k.p + 8, 4);
		stir(&s);
	}
	if (k.n > 8)
		s.c += word(k.p + 8, k.n - 8) << 8; /* its lowest byte is the length's */
	if (k.n > 4)
		s.b += word(k.p + 4, k.n - 4);
	if (k.n > 0)
		s.a += word(k.p, k.n);
	return finish(&s);
}

uint64_t
rowhash_uint32(uint32_t v, uint64_t seed)
{
	struct lookup3 s = start(sizeof v, seed);
	s.a += v;
	return finish(&s);
}

uint64_t
rowhash_int8(int64_t v, uint64_t seed)
{
	/* Folded so that a value hashes the same as int2, int4 and int8. */
	uint32_t low = (uint32_t)(uint64_t)v, high = (uint32_t)((uint64_t)v >> 32);
	return rowhash_uint32(low ^ (v >= 0 ? high : ~high), seed);
}

static uint64_t
be(struct span s)
{
	uint64_t v = 0;
	for (size_t i = 0; i < s.n; i++)
		v = v << 8 | (unsigned char)s.p[i];
	return v;
}

static uint64_t
column_hash(enum key_type type, struct span bytes)
{
	switch (type) {
	case KEY_INT2:
	case KEY_INT4:
	case KEY_INT8:
		return rowhash_int8((int64_t)be(bytes), PARTITION_SEED);
	case KEY_BOOL: /* hashcharextended */
	case KEY_DATE: /* hashint4extended */
		return rowhash_uint32((uint32_t)be(bytes), PARTITION_SEED);
	default: /* hashtextextended, hashbpcharextended, uuid_hash_extended, hashvarlenaextended */
		return rowhash_bytes(bytes, PARTITION_SEED);
	}
}

uint64_t
rowhash(const enum key_type *types, const struct span *columns, int n)
{
	uint64_t h = 0;
	for (int i = 0; i < n; i++) /* hash_combine64() */
		h ^= column_hash(types[i], columns[i]) + UINT64_C(0x49a0f4dd15e5a8e3) + (h << 54) + (h >> 7);
	return h;
}
