/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o */
#include "unit.h"

static void
wire_peek__short_input__need_more(void **state)
{
	struct wire_head h;

	(void)state;
	for (size_t n = 0; n < 5; n++)
		assert_int_equal(wire_peek("Q\0\0\0\4", n, 100, &h), WIRE_NEED_MORE);
}

static void
wire_peek__header__type_and_total(void **state)
{
	struct wire_head h;

	(void)state;
	assert_int_equal(wire_peek("S\0\0\0\4", 5, 0, &h), WIRE_OK);
	assert_int_equal(h.type, 'S');
	assert_int_equal(h.total, 5);
	assert_int_equal(wire_peek("D\xff\xff\xff\xff", 5, UINT32_MAX, &h), WIRE_OK);
	assert_true(h.total == 4294967296u);
}

static void
wire_peek__bad_length__refused(void **state)
{
	struct wire_head h;

	(void)state;
	assert_int_equal(wire_peek("Q\0\0\0\3", 5, 100, &h), WIRE_BAD_LENGTH);
	assert_int_equal(wire_peek("Q\0\0\0\0", 5, 100, &h), WIRE_BAD_LENGTH);
	assert_int_equal(wire_peek("Q\0\0\0\3", 5, UINT32_MAX, &h), WIRE_BAD_LENGTH);
	assert_int_equal(wire_peek("Q\0\0\0\x68", 5, 100, &h), WIRE_OK);
	assert_int_equal(wire_peek("Q\0\0\0\x69", 5, 100, &h), WIRE_BAD_LENGTH);
	assert_int_equal(wire_peek("Q\x7f\xff\xff\xff", 5, 100, &h), WIRE_BAD_LENGTH);
}

static void
wire_take__whole_message__borrowed(void **state)
{
	static const char bytes[] = "Q\0\0\0\7ab\0Z";
	struct wire_msg m;

	(void)state;
	for (size_t n = 0; n < 8; n++)
		assert_int_equal(wire_take(bytes, n, 100, &m), WIRE_NEED_MORE);
	assert_int_equal(wire_take(bytes, 9, 100, &m), WIRE_OK);
	assert_int_equal(m.type, 'Q');
	assert_int_equal(m.len, 3);
	assert_ptr_equal(m.body, bytes + 5);
}

static void
rd__in_order__values(void **state)
{
	struct rd r = rd_of("\x01\x80\x02\xff\xff\xff\xfe\x01\x02\x03\x04" "ab\0cd", 16);

	(void)state;
	assert_int_equal(rd_u8(&r), 1);
	assert_int_equal(rd_u16(&r), 0x8002);
	assert_int_equal(rd_i32(&r), -2);
	assert_int_equal(rd_u32(&r), 0x01020304);
	assert_span(rd_cstr(&r), "ab");
	assert_false(rd_done(&r));
	assert_span(rd_bytes(&r, 2), "cd");
	assert_true(rd_done(&r));
}

static void
rd__past_the_end__bad_for_good(void **state)
{
	struct rd r = rd_of("\x01\x02\x03", 3);

	(void)state;
	assert_int_equal(rd_u32(&r), 0);
	assert_true(r.bad);
	assert_int_equal(rd_u8(&r), 0);
	assert_false(rd_done(&r));
	r = rd_of("abc", 3);
	assert_null(rd_cstr(&r).p);
	assert_true(r.bad);
	r = rd_of("abc", 3);
	assert_null(rd_bytes(&r, SIZE_MAX).p);
	assert_true(r.bad);
	r = rd_of(NULL, 0);
	assert_int_equal(rd_rest(&r).n, 0);
	assert_true(rd_done(&r));
}

static void
wbuf__message__length_patched(void **state)
{
	struct wbuf w = {0};

	(void)state;
	wbuf_begin(&w, 'Q');
	wbuf_cstr(&w, "hi");
	wbuf_end(&w);
	wbuf_begin(&w, 0);
	wbuf_u16(&w, 0x0102);
	wbuf_u8(&w, 3);
	wbuf_end(&w);
	assert_wbuf(&w, "Q\0\0\0\7hi\0\0\0\0\7\1\2\3");
	wbuf_begin(&w, 'd');
	wbuf_end_before(&w, 1000);
	assert_wbuf(&w, "d\0\0\x03\xec");
	wbuf_fini(&w);
	assert_null(w.p);
}

static void
wbuf__many_bytes__grows(void **state)
{
	struct wbuf w = {0};

	(void)state;
	for (unsigned i = 0; i < 5000; i++)
		wbuf_u32(&w, i);
	assert_int_equal(w.n, 20000);
	assert_true(w.cap >= w.n);
	for (unsigned i = 0; i < 5000; i++)
		assert_int_equal(wire_load_u32((unsigned char *)w.p + 4 * (size_t)i), i);
	wbuf_fini(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wire_peek__short_input__need_more),
		cmocka_unit_test(wire_peek__header__type_and_total),
		cmocka_unit_test(wire_peek__bad_length__refused),
		cmocka_unit_test(wire_take__whole_message__borrowed),
		cmocka_unit_test(rd__in_order__values),
		cmocka_unit_test(rd__past_the_end__bad_for_good),
		cmocka_unit_test(wbuf__message__length_patched),
		cmocka_unit_test(wbuf__many_bytes__grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
