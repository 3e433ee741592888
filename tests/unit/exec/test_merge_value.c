/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/exec/merge_value.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
/* test_merge_value - integers and decimals; the expected binary forms are those of PostgreSQL 15's numeric_send(). */
#include "exec/merge_value.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void
assert_written(const struct decimal *d, const char *text, struct span binary)
{
	struct wbuf w = {0};

	decimal_write(&w, d, FORMAT_TEXT);
	wbuf_u8(&w, 0);
	assert_string_equal(w.p, text);
	wbuf_clear(&w);
	decimal_write(&w, d, FORMAT_BINARY);
	assert_int_equal(w.n, binary.n);
	assert_memory_equal(w.p, binary.p, binary.n);
	wbuf_fini(&w);
}

/* Text to both forms, and binary to both forms. */
static void
check_round(const char *text, struct span binary)
{
	struct decimal d = {0};

	assert_true(decimal_read(&d, span_str(text), FORMAT_TEXT));
	assert_written(&d, text, binary);
	assert_true(decimal_read(&d, binary, FORMAT_BINARY));
	assert_written(&d, text, binary);
	decimal_fini(&d);
}

static void
decimal_read__every_kind__written_as_postgres_does(void **state)
{
	(void)state;
	check_round("0", SPAN_LIT("\0\0\0\0\0\0\0\0"));
	check_round("0.00", SPAN_LIT("\0\0\0\0\0\0\0\2"));
	check_round("-12345.678", SPAN_LIT("\0\3\0\1\x40\0\0\3\0\1\x09\x29\x1a\x7c"));
	check_round("10000", SPAN_LIT("\0\1\0\1\0\0\0\0\0\1"));
	check_round("0.0001", SPAN_LIT("\0\1\xff\xff\0\0\0\4\0\1"));
	check_round("100000000.000000010", SPAN_LIT("\0\5\0\2\0\0\0\x09\0\1\0\0\0\0\0\0\0\1"));
	check_round("NaN", SPAN_LIT("\0\0\0\0\xc0\0\0\0"));
	check_round("Infinity", SPAN_LIT("\0\0\0\0\xd0\0\0\x20"));
	check_round("-Infinity", SPAN_LIT("\0\0\0\0\xf0\0\0\x20"));
}

static void
decimal_read__no_numeric__is_refused(void **state)
{
	(void)state;
	static const char *const bad[] = {"", "-", "+1", ".5", "1.", "1e5", "1.2.3", "nan", "--1", "1 ", "-NaN"};
	struct decimal d = {0};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(decimal_read(&d, span_str(bad[i]), FORMAT_TEXT));
	assert_false(decimal_read(&d, SPAN_LIT("\0\1\0\0\0\0\0\0"), FORMAT_BINARY));         /* a digit is missing */
	assert_false(decimal_read(&d, SPAN_LIT("\0\1\0\0\0\0\0\0\x27\x10"), FORMAT_BINARY)); /* 10000 */
	assert_false(decimal_read(&d, SPAN_LIT("\0\0\0\0\x12\0\0\0"), FORMAT_BINARY));       /* sign */
	assert_false(decimal_read(&d, SPAN_LIT("\0\1\xff\xff\0\0\0\0\0\1"), FORMAT_BINARY)); /* behind its scale */
	assert_false(decimal_read(&d, SPAN_LIT("\0"), FORMAT_BINARY));
	decimal_fini(&d);
}

static void
check_sum(const char *a, const char *b, const char *sum)
{
	for (int turn = 0; turn < 2; turn++) {
		struct decimal x = {0}, y = {0};
		struct wbuf w = {0};

		assert_true(decimal_read(&x, span_str(turn ? b : a), FORMAT_TEXT));
		assert_true(decimal_read(&y, span_str(turn ? a : b), FORMAT_TEXT));
		assert_true(decimal_add(&x, &y));
		decimal_write(&w, &x, FORMAT_TEXT);
		wbuf_u8(&w, 0);
		assert_string_equal(w.p, sum);
		wbuf_fini(&w);
		decimal_fini(&x);
		decimal_fini(&y);
	}
}

static void
decimal_add__finite__exact_with_the_larger_scale(void **state)
{
	(void)state;
	check_sum("1.0", "2.00", "3.00");
	check_sum("9999", "1", "10000");
	check_sum("99999999", "0.0001", "99999999.0001");
	check_sum("0.9999", "0.0001", "1.0000");
	check_sum("1.50", "-1.5", "0.00");
	check_sum("-1.50", "0.25", "-1.25");
	check_sum("10000", "-0.0001", "9999.9999");
	check_sum("100000000", "-99999999", "1");
	check_sum("0", "-0.000", "0.000");
	check_sum("9223372036854775807", "9223372036854775807", "18446744073709551614");
	check_sum("123456789012345678901234567890.123456789", "-123456789012345678901234567890.1234567890", "0.0000000000");
}

static void
decimal_add__not_finite__as_numeric_add(void **state)
{
	(void)state;
	check_sum("NaN", "1", "NaN");
	check_sum("NaN", "Infinity", "NaN");
	check_sum("Infinity", "1.5", "Infinity");
	check_sum("-Infinity", "-Infinity", "-Infinity");
	check_sum("Infinity", "-Infinity", "NaN");
}

static void
decimal_add__beyond_the_type__is_refused(void **state)
{
	(void)state;
	size_t n = 131072; /* digits before the point: the most that there can be */
	char *nines = xmalloc(n);
	struct decimal a = {0}, b = {0};

	memset(nines, '9', n);
	assert_true(decimal_read(&a, span_of(nines, n), FORMAT_TEXT));
	assert_true(decimal_read(&b, SPAN_LIT("1"), FORMAT_TEXT));
	assert_false(decimal_add(&a, &b));
	decimal_fini(&a);
	decimal_fini(&b);
	free(nines);
}

static void
decimal_compare__all_pairs__in_postgres_order(void **state)
{
	(void)state;
	static const char *const ascending[] = {"-Infinity", "-10000", "-1.5", "-0.0001", "0", "0.0001", "0.01", "1",
	                                        "1.00000001", "9999", "10000", "Infinity", "NaN"};
	struct decimal a = {0}, b = {0};

	for (size_t i = 0; i < ARRAY_LEN(ascending); i++)
		for (size_t j = 0; j < ARRAY_LEN(ascending); j++) {
			int order;

			assert_true(decimal_read(&a, span_str(ascending[i]), FORMAT_TEXT));
			assert_true(decimal_read(&b, span_str(ascending[j]), FORMAT_TEXT));
			order = decimal_compare(&a, &b);
			assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
		}
	assert_true(decimal_read(&a, SPAN_LIT("1.50"), FORMAT_TEXT));
	assert_true(decimal_read(&b, SPAN_LIT("1.5"), FORMAT_TEXT));
	assert_int_equal(decimal_compare(&a, &b), 0);
	decimal_fini(&a);
	decimal_fini(&b);
}

static void
int_read__limits__exact(void **state)
{
	(void)state;
	int64_t v;

	assert_true(int_read(SPAN_LIT("-9223372036854775808"), FORMAT_TEXT, false, &v) && v == INT64_MIN);
	assert_true(int_read(SPAN_LIT("9223372036854775807"), FORMAT_TEXT, false, &v) && v == INT64_MAX);
	assert_false(int_read(SPAN_LIT("9223372036854775808"), FORMAT_TEXT, false, &v));
	assert_false(int_read(SPAN_LIT("-9223372036854775809"), FORMAT_TEXT, false, &v));
	assert_false(int_read(SPAN_LIT(""), FORMAT_TEXT, false, &v));
	assert_false(int_read(SPAN_LIT("-"), FORMAT_TEXT, false, &v));
	assert_false(int_read(SPAN_LIT("1x"), FORMAT_TEXT, false, &v));
	assert_true(int_read(SPAN_LIT("\xff\xfe"), FORMAT_BINARY, false, &v) && v == -2);
	assert_true(int_read(SPAN_LIT("\xff\xff\xff\xff"), FORMAT_BINARY, false, &v) && v == -1);
	assert_true(int_read(SPAN_LIT("\xff\xff\xff\xff"), FORMAT_BINARY, true, &v) && v == 4294967295);
	assert_true(int_read(SPAN_LIT("\x80\0\0\0\0\0\0\0"), FORMAT_BINARY, false, &v) && v == INT64_MIN);
	assert_false(int_read(SPAN_LIT("abc"), FORMAT_BINARY, false, &v));
}

static void
int_write__each_width__big_endian(void **state)
{
	(void)state;
	struct wbuf w = {0};

	int_write(&w, -2, FORMAT_BINARY, 2);
	int_write(&w, -2, FORMAT_BINARY, 4);
	int_write(&w, 258, FORMAT_BINARY, 8);
	int_write(&w, INT64_MIN, FORMAT_TEXT, 8);
	struct span want = SPAN_LIT("\xff\xfe\xff\xff\xff\xfe\0\0\0\0\0\0\1\2-9223372036854775808");
	assert_int_equal(w.n, want.n);
	assert_memory_equal(w.p, want.p, want.n);
	wbuf_fini(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decimal_read__every_kind__written_as_postgres_does),
		cmocka_unit_test(decimal_read__no_numeric__is_refused),
		cmocka_unit_test(decimal_add__finite__exact_with_the_larger_scale),
		cmocka_unit_test(decimal_add__not_finite__as_numeric_add),
		cmocka_unit_test(decimal_add__beyond_the_type__is_refused),
		cmocka_unit_test(decimal_compare__all_pairs__in_postgres_order),
		cmocka_unit_test(int_read__limits__exact),
		cmocka_unit_test(int_write__each_width__big_endian),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
