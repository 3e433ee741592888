/* SPDX-License-Identifier: BSD-2-Clause */
/* link: shardmap/map.o shardmap/rowhash.o shardmap/text.o shardmap/key.o shardmap/key_input.o shardmap/key_type.o shardmap/decimal.o */
/* test_map - buckets by both strategies (those of "postgres" were asked of PostgreSQL 15 with satisfies_hash_partition), and
 * what the builder says of a map that is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shardmap.h"

#include "../../../shardmap/rowhash.h"

static char err[256];

static struct shardmap_builder *
builder(void)
{
	struct shardmap_builder *b = shardmap_builder_new(16384, SHARDMAP_XXH64, err, sizeof err);
	assert_non_null(b);
	return b;
}

static void
assert_refused(const char *ranges, const char *message)
{
	struct shardmap_builder *b = builder();
	assert_int_equal(shardmap_builder_add(b, 0, "100-199,300", err, sizeof err), RC_OK);
	assert_int_equal(shardmap_builder_add(b, 1, ranges, err, sizeof err), RC_FAIL);
	assert_string_equal(err, message);
	/* nothing of it was added */
	assert_int_equal(shardmap_builder_add(b, 2, "0-99,200-299,301-16383", err, sizeof err), RC_OK);
	struct shardmap *map = shardmap_builder_build(b, err, sizeof err);
	assert_non_null(map);
	shardmap_builder_free(b);
	shardmap_unref(map);
}

static void
builder_add__bad_ranges__says_what_is_wrong(void **state)
{
	(void)state;
	assert_refused("x", "expected bucket ranges such as 0-4095,5000 at \"x\"");
	assert_refused("0-99,", "expected bucket ranges such as 0-4095,5000 at \"\"");
	assert_refused("0-99 200", "expected bucket ranges such as 0-4095,5000 at \"0-99 200\"");
	assert_refused("-5", "expected bucket ranges such as 0-4095,5000 at \"-5\"");
	assert_refused("0-", "expected bucket ranges such as 0-4095,5000 at \"0-\"");
	assert_refused("0,16384", "\"16384\" is out of range: the buckets are 0-16383");
	assert_refused("0,9-99999999999999999999", "\"9-99999999999999999999\" is out of range: the buckets are 0-16383");
	assert_refused("4294967296", "\"4294967296\" is out of range: the buckets are 0-16383");
	assert_refused("9-7", "range \"9-7\" ends before it begins");
	assert_refused("0-120", "buckets 100-120 cannot be given to shard 1: owned by shard 0");
	assert_refused("0,300", "bucket 300 cannot be given to shard 1: owned by shard 0");
	assert_refused("0-9,5-6", "buckets 5-6 named twice for shard 1");
	assert_refused("7,7", "bucket 7 named twice for shard 1");
}

static void
builder_add__shard_out_of_range__fails(void **state)
{
	(void)state;
	struct shardmap_builder *b = builder();
	assert_int_equal(shardmap_builder_add(b, 256, "0", err, sizeof err), RC_FAIL);
	assert_string_equal(err, "shard 256 is out of range: shards are numbered 0-255");
	assert_int_equal(shardmap_builder_add(b, -1, "0", err, sizeof err), RC_FAIL);
	shardmap_builder_free(b);
}

static void
builder_build__bucket_without_owner__names_the_first_range(void **state)
{
	(void)state;
	struct shardmap_builder *b = builder();
	assert_null(shardmap_builder_build(b, err, sizeof err));
	assert_string_equal(err, "buckets 0-16383 are owned by no shard");
	assert_int_equal(shardmap_builder_add(b, 0, "0-99,101-199,202-16382", err, sizeof err), RC_OK);
	assert_null(shardmap_builder_build(b, err, sizeof err));
	assert_string_equal(err, "bucket 100 is owned by no shard, nor are 3 further ones");
	assert_int_equal(shardmap_builder_add(b, 0, "100", err, sizeof err), RC_OK);
	assert_null(shardmap_builder_build(b, err, sizeof err));
	assert_string_equal(err, "buckets 200-201 are owned by no shard, nor is 1 further one");
	shardmap_builder_free(b);
}

static void
builder_new__not_a_power_of_two_in_limits__fails(void **state)
{
	(void)state;
	assert_null(shardmap_builder_new(1000, SHARDMAP_XXH64, err, sizeof err));
	assert_string_equal(err, "the number of buckets must be a power of two from 256 to 65536, not 1000");
	assert_null(shardmap_builder_new(0, SHARDMAP_XXH64, err, sizeof err));
	assert_null(shardmap_builder_new(128, SHARDMAP_XXH64, err, sizeof err));
	assert_null(shardmap_builder_new(131072, SHARDMAP_XXH64, err, sizeof err));
	struct shardmap_builder *b = shardmap_builder_new(65536, SHARDMAP_POSTGRES, err, sizeof err);
	assert_int_equal(shardmap_builder_add(b, 3, " 0 - 65535 ", err, sizeof err), RC_OK);
	struct shardmap *map = shardmap_builder_build(b, err, sizeof err);
	assert_int_equal(shardmap_buckets(map), 65536);
	assert_int_equal(shardmap_strategy(map), SHARDMAP_POSTGRES);
	assert_int_equal(shardmap_shard_of_bucket(map, 65535), 3);
	shardmap_builder_free(b);
	shardmap_unref(map);
}

static void
map__ranges_of_several_shards__each_bucket_has_its_owner(void **state)
{
	(void)state;
	struct shardmap_builder *b = builder();
	assert_int_equal(shardmap_builder_add(b, 0, "0-99,200-299", err, sizeof err), RC_OK);
	assert_int_equal(shardmap_builder_add(b, 1, "100-199", err, sizeof err), RC_OK);
	assert_int_equal(shardmap_builder_add(b, 255, "300-16383", err, sizeof err), RC_OK);
	assert_int_equal(shardmap_builder_add(b, 7, "", err, sizeof err), RC_OK);
	struct shardmap *map = shardmap_builder_build(b, err, sizeof err);
	shardmap_builder_free(b);
	struct shardmap *again = shardmap_ref(map);
	shardmap_unref(map);
	assert_int_equal(shardmap_n_shards(again), 256);
	assert_int_equal(shardmap_shard_of_bucket(again, 0), 0);
	assert_int_equal(shardmap_shard_of_bucket(again, 99), 0);
	assert_int_equal(shardmap_shard_of_bucket(again, 100), 1);
	assert_int_equal(shardmap_shard_of_bucket(again, 199), 1);
	assert_int_equal(shardmap_shard_of_bucket(again, 200), 0);
	assert_int_equal(shardmap_shard_of_bucket(again, 300), 255);
	assert_int_equal(shardmap_shard_of_bucket(again, 16383), 255);
	enum key_type type = KEY_INT8;
	struct span key = span_of("\0\0\0\0\0\0\0\x2a", 8);
	assert_int_equal(shardmap_bucket(again, &type, &key, 1), 7135);
	assert_int_equal(shardmap_shard(again, &type, &key, 1), 255);
	shardmap_unref(again);
	shardmap_unref(NULL);
}

static unsigned
bucket(enum shardmap_strategy strategy, enum key_type type, struct span bytes)
{
	return (unsigned)shardmap_key_hash(strategy, &type, &bytes, 1) & 16383;
}

static void
key_hash__xxh64_of_other_types__has_the_stored_bucket(void **state)
{
	(void)state;
	assert_int_equal(bucket(SHARDMAP_XXH64, KEY_BOOL, SPAN_LIT("\1")), 10032);
	assert_int_equal(bucket(SHARDMAP_XXH64, KEY_BOOL, SPAN_LIT("\0")), 10088);
	assert_int_equal(bucket(SHARDMAP_XXH64, KEY_DATE, SPAN_LIT("\0\0\x22\x79")), 16345); /* 2024-02-29 */
	assert_int_equal(bucket(SHARDMAP_XXH64, KEY_BYTEA, SPAN_LIT("\0\xff\x10")), 12036);
	assert_int_equal(bucket(SHARDMAP_XXH64, KEY_TEXT, SPAN_NONE), bucket(SHARDMAP_XXH64, KEY_TEXT, SPAN_LIT("")));
	/* XXH64 of nothing is the published EF46DB3751D8E999 */
	struct span nothing = SPAN_NONE;
	assert_true(shardmap_key_hash(SHARDMAP_XXH64, NULL, &nothing, 1) == UINT64_C(0xEF46DB3751D8E999));
}

static void
key_hash__postgres__is_the_partition_of_a_real_server(void **state)
{
	(void)state;
	static const unsigned text_buckets[] = {10406, 3934, 7200, 2725, 6481, 188, 4185, 1169, 15253, 13443, 16260, 2907, 12393, 12182};
	for (size_t n = 0; n < ARRAY_LEN(text_buckets); n++)
		assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_TEXT, span_of("abcdefghijklmnopqrstuvwxyz", n)), text_buckets[n]);
	assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_TEXT, SPAN_LIT("é€𝄞")), 4999);
	assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_BPCHAR, SPAN_LIT("x")), 8303);
	assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_BOOL, SPAN_LIT("\1")), 4024);
	assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_BOOL, SPAN_LIT("\0")), 6576);
	assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_DATE, SPAN_LIT("\0\0\x22\x79")), 15591);
	assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_DATE, SPAN_LIT("\xff\xff\xff\xff")), 12197);
	assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_BYTEA, SPAN_LIT("\0\xff\x10")), 1025);
	assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_INT4, SPAN_LIT("\xff\xff\xff\xff\x80\0\0\0")), 14966);
	assert_int_equal(bucket(SHARDMAP_POSTGRES, KEY_INT8, SPAN_LIT("\x7f\xff\xff\xff\xff\xff\xff\xff")), 14966);
}

static void
key_hash__postgres_several_columns__is_the_partition_of_a_real_server(void **state)
{
	(void)state;
	enum key_type two[] = {KEY_INT8, KEY_TEXT};
	struct span a[] = {SPAN_LIT("\0\0\0\0\0\0\0\x2a"), SPAN_LIT("customer-1")};
	assert_int_equal(shardmap_key_hash(SHARDMAP_POSTGRES, two, a, 2) & 16383, 4268);
	enum key_type three[] = {KEY_DATE, KEY_UUID, KEY_BOOL};
	struct span b[] = {SPAN_LIT("\0\0\x22\x79"), SPAN_LIT("\x01\x8f\x4b\x8e\x37\xf0\x7c\xc4\xb5\xf2\x0f\x62\xd0\x9c\xa6\x62"),
	                   SPAN_LIT("\1")};
	assert_int_equal(shardmap_key_hash(SHARDMAP_POSTGRES, three, b, 3) & 16383, 2937);
}

static void
key_hash__several_columns__is_that_of_the_joined_bytes(void **state)
{
	(void)state;
	unsigned char joined[64];
	struct span columns[] = {SPAN_LIT("ab"), SPAN_NONE, SPAN_LIT("cde")};
	assert_int_equal(key_join(columns, 3, joined, 16), 17); /* too small: left alone */
	assert_int_equal(key_join(columns, 3, joined, sizeof joined), 17);
	assert_memory_equal(joined, "\0\0\0\2ab\0\0\0\0\0\0\0\3cde", 17);
	struct span whole = span_of((const char *)joined, 17);
	assert_true(shardmap_key_hash(SHARDMAP_XXH64, NULL, columns, 3) == shardmap_key_hash(SHARDMAP_XXH64, NULL, &whole, 1));
	assert_false(shardmap_key_hash(SHARDMAP_XXH64, NULL, columns, 2) == shardmap_key_hash(SHARDMAP_XXH64, NULL, columns, 1));
}

static void
rowhash__values_of_a_real_server__are_met(void **state)
{
	(void)state;
	const uint64_t seed = UINT64_C(8816678312871386365);
	assert_true((int64_t)rowhash_int8(0, seed) == INT64_C(-4403592609991167795));
	assert_true((int64_t)rowhash_int8(42, seed) == INT64_C(7363975540656877951));
	assert_true((int64_t)rowhash_int8(INT64_MIN, seed) == INT64_C(-6050265599104649060));
	assert_true((int64_t)rowhash_uint32(1, seed) == INT64_C(5968994663651403477));
	assert_true((int64_t)rowhash_bytes(SPAN_LIT("abcdefghijklmnopqrstuvwxyz"), seed) == INT64_C(-7171292135076916904));
	assert_true((int64_t)rowhash_bytes(SPAN_LIT("abc"), 0) == INT64_C(-6747756470228489321));
}

static void
strategy_from_name__known_and_unknown__told_apart(void **state)
{
	(void)state;
	enum shardmap_strategy s;
	assert_true(shardmap_strategy_from_name("xxh64", &s) && s == SHARDMAP_XXH64);
	assert_true(shardmap_strategy_from_name("postgres", &s) && s == SHARDMAP_POSTGRES);
	assert_false(shardmap_strategy_from_name("xxh3", &s));
	assert_string_equal(shardmap_strategy_name(SHARDMAP_POSTGRES), "postgres");
	assert_string_equal(shardmap_strategy_name(SHARDMAP_XXH64), "xxh64");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(builder_add__bad_ranges__says_what_is_wrong),
		cmocka_unit_test(builder_add__shard_out_of_range__fails),
		cmocka_unit_test(builder_build__bucket_without_owner__names_the_first_range),
		cmocka_unit_test(builder_new__not_a_power_of_two_in_limits__fails),
		cmocka_unit_test(map__ranges_of_several_shards__each_bucket_has_its_owner),
		cmocka_unit_test(key_hash__xxh64_of_other_types__has_the_stored_bucket),
		cmocka_unit_test(key_hash__postgres__is_the_partition_of_a_real_server),
		cmocka_unit_test(key_hash__postgres_several_columns__is_the_partition_of_a_real_server),
		cmocka_unit_test(key_hash__several_columns__is_that_of_the_joined_bytes),
		cmocka_unit_test(rowhash__values_of_a_real_server__are_met),
		cmocka_unit_test(strategy_from_name__known_and_unknown__told_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
