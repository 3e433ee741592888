/* SPDX-License-Identifier: BSD-2-Clause */
/* rowhash - the hash by which PostgreSQL's PARTITION BY HASH places a row. */
#ifndef SHARDMAP_ROWHASH_H
#define SHARDMAP_ROWHASH_H

#include "shardmap.h"

/* The row hash of one or several columns; a row belongs to the partition whose REMAINDER is rowhash % MODULUS. */
uint64_t rowhash(const enum key_type *types, const struct span *columns, int n);

/* hashint8extended(), hash_bytes_extended() and hash_bytes_uint32_extended() of a little-endian server. */
uint64_t rowhash_int8(int64_t v, uint64_t seed);
uint64_t rowhash_bytes(struct span s, uint64_t seed);
uint64_t rowhash_uint32(uint32_t v, uint64_t seed);

#endif
