/* SPDX-License-Identifier: BSD-2-Clause */
/* link: shardmap/map.o shardmap/rowhash.o shardmap/text.o shardmap/key.o shardmap/key_input.o shardmap/key_type.o shardmap/decimal.o */
/* test_key - one key, one bucket: every golden vector of docs/sharding-keys.md in every spelling, and the values that
 * have no bucket. What PostgreSQL makes of each was asked of a server of version 15. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shardmap.h"

#define LIT(s) SPAN_LIT(s)
#define N_OID 1700

static struct key_scratch scratch;
static struct span out;

static int
setup(void **state)
{
	(void)state;
	key_scratch_init(&scratch);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	key_scratch_fini(&scratch);
	return 0;
}

static void
assert_buckets(enum key_type type, unsigned xxh64, unsigned postgres)
{
	assert_int_equal(shardmap_key_hash(SHARDMAP_XXH64, &type, &out, 1) & 16383, xxh64);
	assert_int_equal(shardmap_key_hash(SHARDMAP_POSTGRES, &type, &out, 1) & 16383, postgres);
}

#define NUM(type, mode, text, negate, cast) \
	key_from_numeric_literal(KEY_##type, KEY_##mode, LIT(text), negate, cast, &scratch, &out)
#define TEXT(type, mode, text) key_from_text(KEY_##type, KEY_##mode, LIT(text), &scratch, &out)
#define TEXT_AS(type, mode, oid, text) key_from_text_as(KEY_##type, KEY_##mode, oid, LIT(text), &scratch, &out)
#define BINARY(type, mode, oid, bytes) key_from_binary(KEY_##type, KEY_##mode, oid, LIT(bytes), &scratch, &out)
#define ASSERT_BYTES(call, bytes)                                    \
	do {                                                         \
		assert_int_equal(call, KEY_OK);                      \
		assert_int_equal(out.n, sizeof(bytes) - 1);          \
		assert_memory_equal(out.p, bytes, sizeof(bytes) - 1); \
	} while (0)

#define INT_42 "\0\0\0\0\0\0\0\x2a"
#define UUID_1 "\x01\x8f\x4b\x8e\x37\xf0\x7c\xc4\xb5\xf2\x0f\x62\xd0\x9c\xa6\x62"

static void
every_spelling__int_golden_vectors__one_bucket(void **state)
{
	(void)state;
	static const struct {
		int64_t v;
		unsigned xxh64, postgres;
	} golden[] = {
		{0, 7099, 6576}, {1, 2010, 4024}, {42, 7135, 6754}, {-1, 1737, 12197}, {INT64_MAX, 6548, 14966},
	};
	static const enum key_type types[] = {KEY_INT2, KEY_INT4, KEY_INT8};
	static const uint32_t oids[] = {21, 23, 20, 1700, 0, 705};
	static const char *const text_forms[] = {"%s%lld", " %s000%lld ", "\t%s%lld\n"};
	for (size_t g = 0; g < ARRAY_LEN(golden); g++) {
		int64_t v = golden[g].v;
		bool negative = v < 0;
		long long magnitude = negative ? -v : v;
		for (size_t t = 0; t < ARRAY_LEN(types); t++) {
			if (v == INT64_MAX && types[t] != KEY_INT8)
				continue;
			for (int mode = KEY_COMPARE; mode <= KEY_ASSIGN; mode++) {
				char buf[64];
				static const char *const number_forms[] = {"%lld", "%lld.0", "%lld.", "00%lld", "%llde0", "%lld00.0e-2"};
				for (size_t f = 0; f < ARRAY_LEN(number_forms); f++) {
					snprintf(buf, sizeof buf, number_forms[f], magnitude);
					uint32_t cast = f % 2 ? 1700 : f ? 20 : 0;
					assert_int_equal(key_from_numeric_literal(types[t], mode, span_str(buf), negative, cast, &scratch, &out), KEY_OK);
					assert_buckets(types[t], golden[g].xxh64, golden[g].postgres);
				}
				for (size_t f = 0; f < ARRAY_LEN(text_forms); f++)
					for (size_t o = 0; o < ARRAY_LEN(oids); o++) {
						if (v == INT64_MAX && o < 2)
							continue;
						snprintf(buf, sizeof buf, text_forms[f], negative ? "-" : f ? "+" : "", magnitude);
						assert_int_equal(key_from_text_as(types[t], mode, oids[o], span_str(buf), &scratch, &out), KEY_OK);
						assert_buckets(types[t], golden[g].xxh64, golden[g].postgres);
					}
				char be[8];
				for (int i = 0; i < 8; i++)
					be[i] = (char)((uint64_t)v >> (56 - 8 * i));
				static const struct {
					uint32_t oid;
					size_t width;
				} widths[] = {{20, 8}, {23, 4}, {21, 2}};
				for (size_t w = 0; w < (v == INT64_MAX ? 1 : ARRAY_LEN(widths)); w++) {
					struct span bytes = span_of(be + 8 - widths[w].width, widths[w].width);
					assert_int_equal(key_from_binary(types[t], mode, widths[w].oid, bytes, &scratch, &out), KEY_OK);
					assert_buckets(types[t], golden[g].xxh64, golden[g].postgres);
				}
				size_t own = types[t] == KEY_INT2 ? 2 : types[t] == KEY_INT4 ? 4 : 8;
				assert_int_equal(key_from_binary(types[t], mode, 0, span_of(be + 8 - own, own), &scratch, &out), KEY_OK);
				assert_buckets(types[t], golden[g].xxh64, golden[g].postgres);
			}
		}
	}
}

static void
every_spelling__text_golden_vector__one_bucket(void **state)
{
	(void)state;
	static const enum key_type types[] = {KEY_TEXT, KEY_VARCHAR, KEY_BPCHAR};
	static const uint32_t oids[] = {0, 705, 25, 1043, 19};
	struct span v = LIT("customer-1");
	for (size_t t = 0; t < ARRAY_LEN(types); t++)
		for (size_t o = 0; o < ARRAY_LEN(oids); o++)
			for (int mode = KEY_COMPARE; mode <= KEY_ASSIGN; mode++) {
				assert_int_equal(key_from_text_as(types[t], mode, oids[o], v, &scratch, &out), KEY_OK);
				assert_buckets(types[t], 12184, 13850);
				assert_int_equal(key_from_binary(types[t], mode, oids[o], v, &scratch, &out), KEY_OK);
				assert_buckets(types[t], 12184, 13850);
			}
	assert_int_equal(TEXT(BPCHAR, COMPARE, "customer-1   "), KEY_OK);
	assert_buckets(KEY_BPCHAR, 12184, 13850);
}

static void
every_spelling__uuid_golden_vector__one_bucket(void **state)
{
	(void)state;
	static const char *const forms[] = {
		"018f4b8e-37f0-7cc4-b5f2-0f62d09ca662", "018F4B8E-37F0-7CC4-B5F2-0F62D09CA662", "018f4b8e37f07cc4b5f20f62d09ca662",
		"{018f4b8e-37f0-7cc4-b5f2-0f62d09ca662}", "{018f4b8e37f07cc4b5f20f62d09ca662}", "018f-4b8e-37f0-7cc4-b5f2-0f62-d09c-a662",
		"018f4b8e-37f07cc4-b5f20f62-d09ca662",
	};
	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		assert_int_equal(key_from_text(KEY_UUID, KEY_COMPARE, span_str(forms[i]), &scratch, &out), KEY_OK);
		assert_buckets(KEY_UUID, 8345, 4131);
		assert_int_equal(key_from_text_as(KEY_UUID, KEY_ASSIGN, 2950, span_str(forms[i]), &scratch, &out), KEY_OK);
		assert_buckets(KEY_UUID, 8345, 4131);
	}
	assert_int_equal(BINARY(UUID, COMPARE, 0, UUID_1), KEY_OK);
	assert_buckets(KEY_UUID, 8345, 4131);
	assert_int_equal(BINARY(UUID, ASSIGN, 2950, UUID_1), KEY_OK);
	assert_buckets(KEY_UUID, 8345, 4131);
}

static void
from_text__bad_uuid__server_decides(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"", "{", "{}", "018f4b8e-37f0-7cc4-b5f2-0f62d09ca66", "018f4b8e-37f0-7cc4-b5f2-0f62d09ca6620",
		" 018f4b8e-37f0-7cc4-b5f2-0f62d09ca662", "018f4b8e-37f0-7cc4-b5f2-0f62d09ca662 ", "{018f4b8e-37f0-7cc4-b5f2-0f62d09ca662",
		"018f4b8e-37f0-7cc4-b5f2-0f62d09ca662}", "018f4b8e--37f0-7cc4-b5f2-0f62d09ca662", "01-8f4b8e-37f0-7cc4-b5f2-0f62d09ca662",
		"018f4b8e-37f0-7cc4-b5f2-0f62d09ca662-", "018f4b8e-37f0-7cc4-b5f2-0f62d09ca66g",
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(key_from_text(KEY_UUID, KEY_COMPARE, span_str(bad[i]), &scratch, &out), KEY_SERVER_DECIDES);
	assert_int_equal(BINARY(UUID, COMPARE, 0, "123456789012345"), KEY_SERVER_DECIDES);
}

static void
from_numeric_literal__compared__equals_or_meets_no_row(void **state)
{
	(void)state;
	ASSERT_BYTES(NUM(INT8, COMPARE, "42", false, 0), INT_42);
	ASSERT_BYTES(NUM(INT8, COMPARE, "4.2e1", false, 0), INT_42);
	ASSERT_BYTES(NUM(INT8, COMPARE, ".42E+2", false, 0), INT_42);
	ASSERT_BYTES(NUM(INT8, COMPARE, "4200e-2", false, 0), INT_42);
	ASSERT_BYTES(NUM(INT8, COMPARE, "0e999", false, 0), "\0\0\0\0\0\0\0\0");
	ASSERT_BYTES(NUM(INT8, COMPARE, "0", true, 0), "\0\0\0\0\0\0\0\0");
	ASSERT_BYTES(NUM(INT8, COMPARE, "9223372036854775808", true, 0), "\x80\0\0\0\0\0\0\0");
	assert_int_equal(NUM(INT8, COMPARE, "42.5", false, 0), KEY_NO_ROW);
	assert_int_equal(NUM(INT8, COMPARE, "42e-1", false, 0), KEY_NO_ROW);
	assert_int_equal(NUM(INT8, COMPARE, "1e-900", false, 0), KEY_NO_ROW);
	assert_int_equal(NUM(INT8, COMPARE, "9223372036854775808", false, 0), KEY_NO_ROW);
	assert_int_equal(NUM(INT8, COMPARE, "9223372036854775809", true, 0), KEY_NO_ROW);
	assert_int_equal(NUM(INT8, COMPARE, "18446744073709551616", false, 0), KEY_NO_ROW);
	assert_int_equal(NUM(INT8, COMPARE, "1e900", false, 0), KEY_NO_ROW);
	assert_int_equal(NUM(INT4, COMPARE, "2147483648", false, 0), KEY_NO_ROW);
	ASSERT_BYTES(NUM(INT4, COMPARE, "2147483648", true, 0), "\xff\xff\xff\xff\x80\0\0\0");
	assert_int_equal(NUM(INT2, COMPARE, "32768", false, 0), KEY_NO_ROW);
}

static void
from_numeric_literal__assigned__rounds_half_away_from_zero(void **state)
{
	(void)state;
	ASSERT_BYTES(NUM(INT8, ASSIGN, "42.5", false, 0), "\0\0\0\0\0\0\0\x2b");
	ASSERT_BYTES(NUM(INT8, ASSIGN, "42.49999", false, 0), INT_42);
	ASSERT_BYTES(NUM(INT8, ASSIGN, "41.5", false, 0), INT_42);
	ASSERT_BYTES(NUM(INT8, ASSIGN, "0.5", true, 0), "\xff\xff\xff\xff\xff\xff\xff\xff");
	ASSERT_BYTES(NUM(INT8, ASSIGN, "5e-1", false, 0), "\0\0\0\0\0\0\0\1");
	ASSERT_BYTES(NUM(INT8, ASSIGN, "5e-2", false, 0), "\0\0\0\0\0\0\0\0");
	ASSERT_BYTES(NUM(INT2, ASSIGN, "32767.4", false, 0), "\0\0\0\0\0\0\x7f\xff");
	assert_int_equal(NUM(INT2, ASSIGN, "32767.5", false, 0), KEY_SERVER_DECIDES);
	ASSERT_BYTES(NUM(INT2, ASSIGN, "32768.4", true, 0), "\xff\xff\xff\xff\xff\xff\x80\0");
	assert_int_equal(NUM(INT4, ASSIGN, "2147483648", false, 0), KEY_SERVER_DECIDES);
	assert_int_equal(NUM(INT8, ASSIGN, "9223372036854775807.5", false, 0), KEY_SERVER_DECIDES);
	assert_int_equal(NUM(INT8, ASSIGN, "18446744073709551615.5", false, 0), KEY_SERVER_DECIDES);
	ASSERT_BYTES(NUM(TEXT, ASSIGN, "007", true, 0), "-7");
	ASSERT_BYTES(NUM(BPCHAR, ASSIGN, "42", false, 0), "42");
	assert_int_equal(NUM(TEXT, ASSIGN, "42.0", false, 0), KEY_UNKNOWN);
}

static void
from_numeric_literal__under_a_cast__takes_its_type_first(void **state)
{
	(void)state;
	ASSERT_BYTES(NUM(INT8, COMPARE, "41.5", false, 23), INT_42);
	ASSERT_BYTES(NUM(INT2, COMPARE, "42", false, 20), INT_42);
	assert_int_equal(NUM(INT8, COMPARE, "32768", false, 21), KEY_SERVER_DECIDES);
	ASSERT_BYTES(NUM(INT8, COMPARE, "32768", true, 21), "\xff\xff\xff\xff\xff\xff\x80\0");
	assert_int_equal(NUM(INT2, COMPARE, "32768", false, 23), KEY_NO_ROW);
	assert_int_equal(NUM(INT2, ASSIGN, "32768", false, 23), KEY_SERVER_DECIDES);
	assert_int_equal(NUM(INT8, COMPARE, "42.5", false, 1700), KEY_NO_ROW);
	assert_int_equal(NUM(INT8, COMPARE, "42", false, 701), KEY_UNKNOWN);
	assert_int_equal(NUM(INT8, COMPARE, "42", false, 25), KEY_UNKNOWN);
	ASSERT_BYTES(NUM(TEXT, COMPARE, "42", true, 25), "-42");
	assert_int_equal(NUM(TEXT, COMPARE, "42", false, 0), KEY_UNKNOWN);
	assert_int_equal(NUM(BOOL, COMPARE, "1", false, 0), KEY_UNKNOWN);
}

static void
from_numeric_literal__not_plain_decimal__unknown(void **state)
{
	(void)state;
	static const char *const odd[] = {"", ".", "0x2A", "1_000", "1e", "1e+", "1.2.3", "e5", "1e1001", "+1", "-1", " 1", "1 ", "1e99999999999999999999"};
	for (size_t i = 0; i < ARRAY_LEN(odd); i++)
		assert_int_equal(key_from_numeric_literal(KEY_INT8, KEY_COMPARE, span_str(odd[i]), false, 0, &scratch, &out), KEY_UNKNOWN);
}

static void
from_text__integer_column__reads_as_its_input_function(void **state)
{
	(void)state;
	ASSERT_BYTES(TEXT(INT8, COMPARE, " +042 "), INT_42);
	ASSERT_BYTES(TEXT(INT8, COMPARE, "\t\n\v\f\r42\t\n\v\f\r"), INT_42);
	ASSERT_BYTES(TEXT(INT8, COMPARE, "0x2A"), INT_42); /* since 16; an error before */
	ASSERT_BYTES(TEXT(INT8, COMPARE, "0o5_2"), INT_42);
	ASSERT_BYTES(TEXT(INT8, COMPARE, "0b_101010"), INT_42);
	ASSERT_BYTES(TEXT(INT8, COMPARE, "-9223372036854775808"), "\x80\0\0\0\0\0\0\0");
	ASSERT_BYTES(TEXT(INT2, COMPARE, "-32768"), "\xff\xff\xff\xff\xff\xff\x80\0");
	static const char *const bad[] = {"", " ", "+", "-", "--1", "4 2", "42.0", "4e1", "_1", "1_", "1__0", "0x", "0x_", "1a", "9223372036854775808", "99999999999999999999999", "+ 1"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(key_from_text(KEY_INT8, KEY_COMPARE, span_str(bad[i]), &scratch, &out), KEY_SERVER_DECIDES);
	assert_int_equal(TEXT(INT2, COMPARE, "32768"), KEY_SERVER_DECIDES);
	assert_int_equal(TEXT(INT4, ASSIGN, "2147483648"), KEY_SERVER_DECIDES);
	assert_int_equal(TEXT(INT8, COMPARE, "42\0"), KEY_SERVER_DECIDES);
}

static void
from_text_as__other_type_against_integer_column__follows_the_operator(void **state)
{
	(void)state;
	ASSERT_BYTES(TEXT_AS(INT8, COMPARE, N_OID, " +42.00 "), INT_42);
	assert_int_equal(TEXT_AS(INT8, COMPARE, N_OID, "42.5"), KEY_NO_ROW);
	ASSERT_BYTES(TEXT_AS(INT8, ASSIGN, N_OID, "-42.5"), "\xff\xff\xff\xff\xff\xff\xff\xd5");
	assert_int_equal(TEXT_AS(INT8, COMPARE, N_OID, "NaN"), KEY_NO_ROW);
	assert_int_equal(TEXT_AS(INT8, ASSIGN, N_OID, "nan"), KEY_SERVER_DECIDES);
	assert_int_equal(TEXT_AS(INT8, COMPARE, N_OID, "-nan"), KEY_SERVER_DECIDES);
	assert_int_equal(TEXT_AS(INT8, COMPARE, N_OID, "x"), KEY_SERVER_DECIDES);
	assert_int_equal(TEXT_AS(INT8, COMPARE, N_OID, "1e 5"), KEY_UNKNOWN);
	assert_int_equal(TEXT_AS(INT8, COMPARE, 21, "32768"), KEY_SERVER_DECIDES);
	assert_int_equal(TEXT_AS(INT2, COMPARE, 20, "32768"), KEY_NO_ROW);
	assert_int_equal(TEXT_AS(INT2, ASSIGN, 20, "32768"), KEY_SERVER_DECIDES);
	assert_int_equal(TEXT_AS(INT8, COMPARE, 25, "42"), KEY_UNKNOWN);
	assert_int_equal(TEXT_AS(INT8, COMPARE, 701, "42"), KEY_UNKNOWN);
	assert_int_equal(TEXT_AS(INT8, COMPARE, 26, "42"), KEY_UNKNOWN);
}

static void
from_text_as__strings_with_trailing_blanks__follow_the_operator(void **state)
{
	(void)state;
	ASSERT_BYTES(TEXT(TEXT, COMPARE, "x "), "x ");
	ASSERT_BYTES(TEXT(TEXT, ASSIGN, "x "), "x ");
	ASSERT_BYTES(TEXT(VARCHAR, COMPARE, "x "), "x ");
	assert_int_equal(TEXT(VARCHAR, ASSIGN, "x "), KEY_UNKNOWN); /* varchar(1) stores 'x' */
	ASSERT_BYTES(TEXT(BPCHAR, COMPARE, "x  "), "x");
	ASSERT_BYTES(TEXT(BPCHAR, ASSIGN, "   "), "");
	ASSERT_BYTES(TEXT(BPCHAR, COMPARE, "x\t"), "x\t");
	ASSERT_BYTES(TEXT_AS(TEXT, COMPARE, 1042, "x "), "x");
	ASSERT_BYTES(TEXT_AS(VARCHAR, ASSIGN, 1042, "x "), "x");
	assert_int_equal(TEXT_AS(VARCHAR, COMPARE, 1042, "x"), KEY_UNKNOWN); /* compares as char: 'x' and 'x ' both */
	assert_int_equal(TEXT_AS(BPCHAR, COMPARE, 25, "x "), KEY_UNKNOWN);   /* = text meets no row, IN (…) meets 'x' */
	assert_int_equal(TEXT_AS(BPCHAR, COMPARE, 1043, "x "), KEY_UNKNOWN);
	ASSERT_BYTES(TEXT_AS(BPCHAR, ASSIGN, 25, "x "), "x");
	assert_int_equal(TEXT(TEXT, COMPARE, "a\0b"), KEY_SERVER_DECIDES);
	assert_int_equal(TEXT_AS(TEXT, COMPARE, 19, "0123456789012345678901234567890123456789012345678901234567890123"), KEY_UNKNOWN);
	ASSERT_BYTES(TEXT_AS(TEXT, ASSIGN, 23, " 007 "), "7");
	assert_int_equal(TEXT_AS(TEXT, COMPARE, 23, "7"), KEY_UNKNOWN);
	assert_int_equal(TEXT_AS(TEXT, ASSIGN, 16, "t"), KEY_UNKNOWN);
}

static void
from_text__boolean__every_prefix(void **state)
{
	(void)state;
	static const char *const yes[] = {"t", "tr", "tru", "true", "TRUE", "y", "ye", "yes", "on", "1", " t ", "\ton\n"};
	static const char *const no[] = {"f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "OFF", "0", " 0 "};
	static const char *const bad[] = {"", " ", "o", "tt", "truee", "yess", "2", "01", "10", "offf", "t f"};
	for (size_t i = 0; i < ARRAY_LEN(yes); i++)
		ASSERT_BYTES(key_from_text(KEY_BOOL, KEY_COMPARE, span_str(yes[i]), &scratch, &out), "\1");
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		ASSERT_BYTES(key_from_text(KEY_BOOL, KEY_COMPARE, span_str(no[i]), &scratch, &out), "\0");
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(key_from_text(KEY_BOOL, KEY_COMPARE, span_str(bad[i]), &scratch, &out), KEY_SERVER_DECIDES);
	ASSERT_BYTES(BINARY(BOOL, COMPARE, 0, "\x07"), "\1");
	ASSERT_BYTES(BINARY(BOOL, COMPARE, 16, "\0"), "\0");
	assert_int_equal(BINARY(BOOL, COMPARE, 0, ""), KEY_SERVER_DECIDES);
	assert_int_equal(BINARY(BOOL, COMPARE, 0, "\1\1"), KEY_SERVER_DECIDES);
}

static void
from_text__bytea__hex_and_escape(void **state)
{
	(void)state;
	ASSERT_BYTES(TEXT(BYTEA, COMPARE, "\\x00Ff10"), "\0\xff\x10");
	ASSERT_BYTES(TEXT(BYTEA, COMPARE, "\\x 00 ff\n10 "), "\0\xff\x10");
	ASSERT_BYTES(TEXT(BYTEA, COMPARE, "\\x"), "");
	ASSERT_BYTES(TEXT(BYTEA, COMPARE, ""), "");
	ASSERT_BYTES(TEXT(BYTEA, COMPARE, "abc "), "abc ");
	ASSERT_BYTES(TEXT(BYTEA, COMPARE, "\\000\\377\\020"), "\0\xff\x10");
	ASSERT_BYTES(TEXT(BYTEA, COMPARE, "a\\\\b"), "a\\b");
	ASSERT_BYTES(BINARY(BYTEA, COMPARE, 17, "\0\xff\x10"), "\0\xff\x10");
	static const char *const bad[] = {"\\x0", "\\x0 0", "\\xg0", "\\", "\\400", "\\08", "\\12", "\\X00", "a\\b", "\\x00\v"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(key_from_text(KEY_BYTEA, KEY_COMPARE, span_str(bad[i]), &scratch, &out), KEY_SERVER_DECIDES);
	char long_hex[2 + 200] = "\\x"; /* past the fixed room */
	memset(long_hex + 2, 'a', 200);
	assert_int_equal(key_from_text(KEY_BYTEA, KEY_COMPARE, span_of(long_hex, sizeof long_hex), &scratch, &out), KEY_OK);
	assert_int_equal(out.n, 100);
	assert_int_equal((unsigned char)out.p[99], 0xaa);
}

static void
from_text__date__iso_only(void **state)
{
	(void)state;
	ASSERT_BYTES(TEXT(DATE, COMPARE, "2000-01-01"), "\0\0\0\0");
	ASSERT_BYTES(TEXT(DATE, COMPARE, "1999-12-31"), "\xff\xff\xff\xff");
	ASSERT_BYTES(TEXT(DATE, COMPARE, "2024-02-29"), "\0\0\x22\x79");
	ASSERT_BYTES(TEXT(DATE, COMPARE, "0001-01-01"), "\xff\xf4\xdb\xf9");
	static const char *const bad[] = {"2023-02-29", "1900-02-29", "2024-13-01", "2024-00-01", "2024-01-00", "2024-04-31", "0000-01-01"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(key_from_text(KEY_DATE, KEY_COMPARE, span_str(bad[i]), &scratch, &out), KEY_SERVER_DECIDES);
	static const char *const odd[] = {"", "infinity", "2024-1-1", "01/02/2024", "20240229", "today", " 2024-02-29", "2024-02-29 BC", "J2451187"};
	for (size_t i = 0; i < ARRAY_LEN(odd); i++)
		assert_int_equal(key_from_text(KEY_DATE, KEY_COMPARE, span_str(odd[i]), &scratch, &out), KEY_UNKNOWN);
	ASSERT_BYTES(BINARY(DATE, COMPARE, 1082, "\0\0\x22\x79"), "\0\0\x22\x79");
	assert_int_equal(BINARY(DATE, COMPARE, 0, "\0\0\x22"), KEY_SERVER_DECIDES);
	assert_int_equal(BINARY(DATE, COMPARE, 1114, "\0\0\0\0\0\0\0\0"), KEY_UNKNOWN);
}

static void
from_binary__integer_of_wrong_length__server_decides(void **state)
{
	(void)state;
	assert_int_equal(BINARY(INT8, COMPARE, 0, "\0\0\0\x2a"), KEY_SERVER_DECIDES);
	assert_int_equal(BINARY(INT4, COMPARE, 0, INT_42), KEY_SERVER_DECIDES);
	assert_int_equal(BINARY(INT8, COMPARE, 23, ""), KEY_SERVER_DECIDES);
	ASSERT_BYTES(BINARY(INT4, COMPARE, 20, INT_42), INT_42);
	assert_int_equal(BINARY(INT4, COMPARE, 20, "\0\0\0\1\0\0\0\0"), KEY_NO_ROW);
	assert_int_equal(BINARY(INT4, ASSIGN, 20, "\0\0\0\1\0\0\0\0"), KEY_SERVER_DECIDES);
	assert_int_equal(BINARY(INT8, COMPARE, 701, INT_42), KEY_UNKNOWN);
	assert_int_equal(BINARY(INT8, COMPARE, 25, "42"), KEY_UNKNOWN);
}

static void
from_binary__numeric__is_read_exactly(void **state)
{
	(void)state;
	ASSERT_BYTES(BINARY(INT8, COMPARE, N_OID, "\0\1\0\0\0\0\0\0\0\x2a"), INT_42);
	ASSERT_BYTES(BINARY(INT8, COMPARE, N_OID, "\0\1\0\0\x40\0\0\2\0\x2a"), "\xff\xff\xff\xff\xff\xff\xff\xd6");
	ASSERT_BYTES(BINARY(INT8, COMPARE, N_OID, "\0\0\0\0\0\0\0\0"), "\0\0\0\0\0\0\0\0");
	ASSERT_BYTES(BINARY(INT8, COMPARE, N_OID, "\0\1\0\1\0\0\0\0\0\x2a"), "\0\0\0\0\0\6\x68\xa0"); /* 420000 */
	assert_int_equal(BINARY(INT8, COMPARE, N_OID, "\0\2\0\0\0\0\0\1\0\x2a\x13\x88"), KEY_NO_ROW); /* 42.5 */
	ASSERT_BYTES(BINARY(INT8, ASSIGN, N_OID, "\0\2\0\0\0\0\0\1\0\x2a\x13\x88"), "\0\0\0\0\0\0\0\x2b");
	ASSERT_BYTES(BINARY(INT8, ASSIGN, N_OID, "\0\2\0\0\0\0\0\4\0\x2a\x13\x87"), INT_42); /* 42.4999 */
	assert_int_equal(BINARY(INT8, COMPARE, N_OID, "\0\2\0\0\0\0\0\0\0\x2a\x13\x88"), KEY_UNKNOWN); /* digits past dscale */
	assert_int_equal(BINARY(INT8, COMPARE, N_OID, "\0\0\0\0\xC0\0\0\0"), KEY_NO_ROW);
	assert_int_equal(BINARY(INT8, COMPARE, N_OID, "\0\1\0\x05\0\0\0\0\0\1"), KEY_NO_ROW); /* 1e20 */
	assert_int_equal(BINARY(INT8, ASSIGN, N_OID, "\0\1\0\x05\0\0\0\0\0\1"), KEY_SERVER_DECIDES);
	assert_int_equal(BINARY(INT8, COMPARE, N_OID, "\0\1\0\0\0\0\0\0\x27\x10"), KEY_SERVER_DECIDES); /* a digit of 10000 */
	assert_int_equal(BINARY(INT8, COMPARE, N_OID, "\0\2\0\0\0\0\0\0\0\x2a"), KEY_SERVER_DECIDES);
	assert_int_equal(BINARY(INT8, COMPARE, N_OID, "\0\1"), KEY_SERVER_DECIDES);
	assert_int_equal(BINARY(TEXT, COMPARE, N_OID, "\0\1\0\0\0\0\0\0\0\x2a"), KEY_UNKNOWN);
}

static void
key_type__by_oid_and_name__agree(void **state)
{
	(void)state;
	static const struct {
		uint32_t oid;
		const char *name;
		enum key_type type;
	} rows[] = {
		{16, "boolean", KEY_BOOL}, {17, "bytea", KEY_BYTEA}, {20, "BigInt", KEY_INT8}, {21, "smallint", KEY_INT2},
		{23, "int", KEY_INT4}, {25, "text", KEY_TEXT}, {1042, "char", KEY_BPCHAR}, {1043, "character varying", KEY_VARCHAR},
		{1082, "date", KEY_DATE}, {2950, "uuid", KEY_UUID},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum key_type by_oid, by_name;
		assert_true(key_type_from_oid(rows[i].oid, &by_oid));
		assert_true(key_type_from_name(rows[i].name, &by_name));
		assert_int_equal(by_oid, rows[i].type);
		assert_int_equal(by_name, rows[i].type);
		assert_null(key_type_refusal(rows[i].oid));
	}
	enum key_type ignored;
	assert_false(key_type_from_oid(1700, &ignored));
	assert_false(key_type_from_name("numeric", &ignored));
	assert_string_equal(key_type_refusal(1016), "arrays are not supported as keys");
	assert_non_null(strstr(key_type_refusal(1700), "equal numeric values have many forms"));
	assert_non_null(strstr(key_type_refusal(99999), "only smallint, integer"));
	assert_string_equal(key_type_name(KEY_VARCHAR), "character varying");
}

static void
key_types_colocated__pairs__only_where_equal_values_share_a_bucket(void **state)
{
	(void)state;
	assert_true(key_types_colocated(KEY_INT2, KEY_INT8));
	assert_true(key_types_colocated(KEY_TEXT, KEY_VARCHAR));
	assert_true(key_types_colocated(KEY_BPCHAR, KEY_TEXT));
	assert_true(key_types_colocated(KEY_UUID, KEY_UUID));
	assert_false(key_types_colocated(KEY_VARCHAR, KEY_BPCHAR));
	assert_false(key_types_colocated(KEY_INT8, KEY_TEXT));
	assert_false(key_types_colocated(KEY_TEXT, KEY_UUID));
	assert_false(key_types_colocated(KEY_BYTEA, KEY_TEXT));
	assert_false(key_types_colocated(KEY_DATE, KEY_INT4));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(every_spelling__int_golden_vectors__one_bucket),
		CASE(every_spelling__text_golden_vector__one_bucket),
		CASE(every_spelling__uuid_golden_vector__one_bucket),
		CASE(from_text__bad_uuid__server_decides),
		CASE(from_numeric_literal__compared__equals_or_meets_no_row),
		CASE(from_numeric_literal__assigned__rounds_half_away_from_zero),
		CASE(from_numeric_literal__under_a_cast__takes_its_type_first),
		CASE(from_numeric_literal__not_plain_decimal__unknown),
		CASE(from_text__integer_column__reads_as_its_input_function),
		CASE(from_text_as__other_type_against_integer_column__follows_the_operator),
		CASE(from_text_as__strings_with_trailing_blanks__follow_the_operator),
		CASE(from_text__boolean__every_prefix),
		CASE(from_text__bytea__hex_and_escape),
		CASE(from_text__date__iso_only),
		CASE(from_binary__integer_of_wrong_length__server_decides),
		CASE(from_binary__numeric__is_read_exactly),
		CASE(key_type__by_oid_and_name__agree),
		CASE(key_types_colocated__pairs__only_where_equal_values_share_a_bucket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
