/* SPDX-License-Identifier: BSD-2-Clause */
/* shardmap - which shard a row lives on, from the value of its key.
 *
 *     value --key_from_*()--> canonical bytes --shardmap_bucket()--> bucket --shardmap_shard_of_bucket()--> shard
 *
 * A library of its own: it knows nothing of the proxy, so that a loader or an application can link it and reach the
 * same shard. docs/sharding-keys.md is the contract. Once a database is sharded none of it may change.
 * Thread: every function is pure or works on its arguments only; a struct shardmap may be shared between threads. */
#ifndef SHARDMAP_H
#define SHARDMAP_H

#include "pgspan/span.h"

/* ---- key types ---- */

enum key_type {
	KEY_INT2,
	KEY_INT4,
	KEY_INT8,
	KEY_TEXT,
	KEY_VARCHAR, /* hashes as text does; apart, because varchar = bpchar compares otherwise and varchar(n) may cut blanks */
	KEY_BPCHAR,
	KEY_UUID,
	KEY_BYTEA,
	KEY_BOOL,
	KEY_DATE,
};

/* The key type of a column whose type is *oid* (a domain: of its base type). False: the type can be no key, and
 * key_type_refusal() says why, in words that follow "type X cannot be a shard key: "; it returns NULL for a type that can. */
bool key_type_from_oid(uint32_t oid, enum key_type *out) WARN_UNUSED;
const char *key_type_refusal(uint32_t oid);

/* By the SQL name, of any spelling that has no length: "bigint", "int8", "character varying", "serial". */
bool key_type_from_name(const char *name, enum key_type *out) WARN_UNUSED;
const char *key_type_name(enum key_type type);

/* Whether equal values of the two types always have one bucket, so that a join on them stays within a shard. */
bool key_types_colocated(enum key_type a, enum key_type b);

/* ---- a value to its canonical bytes ---- */

/* What the value is for. */
enum key_mode {
	KEY_COMPARE, /* WHERE key = value: 42.5 equals no integer */
	KEY_ASSIGN,  /* INSERT, COPY: the value is coerced to the column first: 42.5 is stored as 43 */
};

enum key_result {
	KEY_OK,             /* *out* holds the canonical bytes */
	KEY_NO_ROW,         /* KEY_COMPARE only: the value is valid and equals no row, whatever the table holds */
	KEY_SERVER_DECIDES, /* out of range or malformed: PostgreSQL raises its error for it, on whichever server it is asked */
	KEY_UNKNOWN,        /* cannot be brought to canonical bytes with certainty: ask all shards, or refuse */
};                            /* any result but KEY_OK leaves *out* empty */

/* Room for one converted value; small values need no heap. A result lives in the scratch or in the input, until the
 * scratch is given to another conversion, is finished, or moves, or the input goes. Owner: the caller. */
struct key_scratch {
	unsigned char *heap; /* NULL until a value was larger than *fixed* */
	size_t heap_cap;
	unsigned char fixed[40];
};
void key_scratch_init(struct key_scratch *s);
void key_scratch_fini(struct key_scratch *s);

/* An unquoted SQL number ("42", "42.0", ".5", "4.2e1"), under an odd number of minus signs if *negate*, and perhaps
 * under one explicit cast to *cast_oid* (0: none) that has no length or precision. */
enum key_result key_from_numeric_literal(enum key_type type, enum key_mode mode, struct span number, bool negate,
                                         uint32_t cast_oid, struct key_scratch *s, struct span *out) WARN_UNUSED;

/* Text that PostgreSQL reads by the input function of the column's own type: an untyped string literal (escapes already
 * resolved), a text parameter whose type is left to the server, a field of COPY in text or CSV. In the database's encoding.
 *
 * In an IN list or ARRAY[] that mixes such literals with typed values or numbers PostgreSQL reads them as the common type
 * of all, not as the column's (smallint_key IN (1, '70000') is no error): there the caller must take KEY_SERVER_DECIDES
 * for KEY_UNKNOWN. */
enum key_result key_from_text(enum key_type type, enum key_mode mode, struct span text, struct key_scratch *s,
                              struct span *out) WARN_UNUSED;

/* Text of a value of type *oid*, which has no length or precision: '42'::int4, a text parameter that Parse declared.
 * oid 0 and 705 (unknown) are the column's own type. A cast under another cast is the caller's to fold. */
enum key_result key_from_text_as(enum key_type type, enum key_mode mode, uint32_t oid, struct span text,
                                 struct key_scratch *s, struct span *out) WARN_UNUSED;

/* The binary send form of a value of type *oid* (0, 705: the column's own): a binary parameter, a field of binary COPY. */
enum key_result key_from_binary(enum key_type type, enum key_mode mode, uint32_t oid, struct span bytes,
                                struct key_scratch *s, struct span *out) WARN_UNUSED;

/* The canonical bytes of a key of several columns: each column's length in 4 bytes, big-endian, then its bytes.
 * Returns the length of the whole; *out* is filled only if *cap* is at least that. */
size_t key_join(const struct span *columns, int n_columns, unsigned char *out, size_t cap);

/* ---- the map ---- */

enum shardmap_strategy {
	SHARDMAP_XXH64,    /* XXH64, seed 0, of the canonical bytes */
	SHARDMAP_POSTGRES, /* the row hash of PostgreSQL's PARTITION BY HASH: a bucket is its REMAINDER */
};

#define SHARDMAP_MIN_BUCKETS 256
#define SHARDMAP_MAX_BUCKETS 65536
#define SHARDMAP_DEFAULT_BUCKETS 16384

bool shardmap_strategy_from_name(const char *name, enum shardmap_strategy *out) WARN_UNUSED; /* "xxh64", "postgres" */
const char *shardmap_strategy_name(enum shardmap_strategy strategy);

/* The hash of a key of *n* columns, each its canonical bytes; its low bits are the bucket. n == 1: the bytes as they
 * stand, more: as key_join() would put them (XXH64). *types* is read by SHARDMAP_POSTGRES. */
uint64_t shardmap_key_hash(enum shardmap_strategy strategy, const enum key_type *types, const struct span *columns, int n);

/* Immutable.  Owner: whoever holds a reference.  Thread: any; the count is atomic. */
struct shardmap;

struct shardmap *shardmap_ref(struct shardmap *map);
void shardmap_unref(struct shardmap *map); /* NULL is let pass */

uint32_t shardmap_buckets(const struct shardmap *map);
enum shardmap_strategy shardmap_strategy(const struct shardmap *map);
int shardmap_n_shards(const struct shardmap *map); /* the highest shard that was added, plus one */

uint32_t shardmap_bucket(const struct shardmap *map, const enum key_type *types, const struct span *columns, int n);
int shardmap_shard_of_bucket(const struct shardmap *map, uint32_t bucket);
int shardmap_shard(const struct shardmap *map, const enum key_type *types, const struct span *columns, int n);

/* Collects which shard owns what. Owner: the caller, who frees it whether it was built or not. */
struct shardmap_builder;

/* NULL, with the reason in *err*, if *buckets* is not a power of two within the limits. */
struct shardmap_builder *shardmap_builder_new(uint32_t buckets, enum shardmap_strategy strategy, char *err, size_t err_size);

/* Gives *shard* the buckets of *ranges*: "0-4095", "0-99, 200-299", "7"; "" for a shard that owns none yet.
 * RC_FAIL, with the reason in *err*, for bad syntax, a bucket past the last one, a bucket owned already (and by whom): then
 * nothing of *ranges* was added. */
enum rc shardmap_builder_add(struct shardmap_builder *b, int shard, const char *ranges, char *err, size_t err_size) WARN_UNUSED;

/* The map, with one reference, which is the caller's. NULL, with the first missing range in *err*, if a bucket has no owner. */
struct shardmap *shardmap_builder_build(const struct shardmap_builder *b, char *err, size_t err_size) WARN_UNUSED;
void shardmap_builder_free(struct shardmap_builder *b); /* NULL is let pass */

#endif
