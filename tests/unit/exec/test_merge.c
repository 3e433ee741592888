/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/exec/merge.o proxy/exec/merge_aggregate.o proxy/exec/merge_value.o proxy/proto/msg.o proxy/proto/msg_put.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
/* test_merge - answers of legs in, the client's bytes out. Rows are written as "1|a" (text, "~" is NULL), and the whole
 * output is compared in a readable form: T(oids) D(row) C(tag) …, in which a format other than text is marked "b". */
#include "pgspan/merge.h"

#include "pgspan/msg.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct merge *m;
static struct wbuf out;
static struct diag d;

static void
start(const struct merge_spec *spec)
{
	m = merge_new(spec);
	wbuf_clear(&out);
	diag_clear(&d);
}

static void
finish(void)
{
	merge_free(m);
	wbuf_fini(&out);
}

/* The body is handed over in memory of its very size, and freed at once: nothing may be borrowed. */
static enum rc
give(int leg, char type, const struct wbuf *w)
{
	char *body = xmalloc(w->n);
	enum rc rc;

	if (w->n)
		memcpy(body, w->p, w->n);
	rc = merge_message(m, leg, type, span_of(body, w->n), &out, &d);
	free(body);
	return rc;
}

/* Columns by their types' OIDs, ended by 0; all in *format*. */
static enum rc
describe(int leg, int format, const uint32_t *types)
{
	struct wbuf w = {0};
	uint16_t n = 0;
	enum rc rc;

	while (types[n])
		n++;
	wbuf_u16(&w, n);
	for (int i = 0; i < n; i++) {
		wbuf_cstr(&w, "c");
		wbuf_u32(&w, 1000 + (uint32_t)leg); /* the table's OID */
		wbuf_u16(&w, 1);
		wbuf_u32(&w, types[i]);
		wbuf_u16(&w, 8);
		wbuf_u32(&w, UINT32_MAX);
		wbuf_u16(&w, (uint16_t)format);
	}
	rc = give(leg, 'T', &w);
	wbuf_fini(&w);
	return rc;
}
#define TYPES(...) ((const uint32_t[]){__VA_ARGS__, 0})

static enum rc
row(int leg, const char *fields)
{
	struct wbuf w = {0};
	uint16_t n = 1;
	enum rc rc;

	for (const char *p = fields; *p; p++)
		n += *p == '|';
	wbuf_u16(&w, n);
	for (const char *p = fields;; p++) {
		size_t len = strcspn(p, "|");

		if (len == 1 && *p == '~')
			wbuf_u32(&w, UINT32_MAX);
		else {
			wbuf_u32(&w, (uint32_t)len);
			wbuf_bytes(&w, p, len);
		}
		p += len;
		if (!*p)
			break;
	}
	rc = give(leg, 'D', &w);
	wbuf_fini(&w);
	return rc;
}

static enum rc
row_bytes(int leg, struct span field)
{
	struct wbuf w = {0};
	enum rc rc;

	wbuf_u16(&w, 1);
	wbuf_u32(&w, (uint32_t)field.n);
	wbuf_span(&w, field);
	rc = give(leg, 'D', &w);
	wbuf_fini(&w);
	return rc;
}

static enum rc
complete(int leg, const char *tag)
{
	struct wbuf w = {0};
	enum rc rc;

	wbuf_cstr(&w, tag);
	rc = give(leg, 'C', &w);
	wbuf_fini(&w);
	return rc;
}

static enum rc
bare(int leg, char type, const char *body)
{
	struct wbuf w = {0};
	enum rc rc;

	wbuf_span(&w, span_str(body));
	rc = give(leg, type, &w);
	wbuf_fini(&w);
	return rc;
}

#define OK(call) assert_int_equal((call), RC_OK)

static void
show_row(const struct wire_msg *msg, struct wbuf *text)
{
	struct rd r = rd_msg(msg);
	int n = rd_u16(&r);

	for (int i = 0; i < n; i++) {
		int32_t len = rd_i32(&r);

		if (i)
			wbuf_u8(text, '|');
		if (len < 0)
			wbuf_u8(text, '~');
		else
			wbuf_span(text, rd_bytes(&r, (size_t)len));
	}
	assert_true(rd_done(&r));
}

static void
show_description(const struct wire_msg *msg, struct wbuf *text)
{
	struct rd r = rd_msg(msg);
	int n = rd_u16(&r);
	char word[32];

	for (int i = 0; i < n; i++) {
		uint32_t type;
		int format;

		rd_cstr(&r);
		rd_bytes(&r, 6);
		type = rd_u32(&r);
		rd_bytes(&r, 6);
		format = rd_u16(&r);
		wbuf_bytes(text, word, (size_t)snprintf(word, sizeof word, "%s%u%s", i ? "," : "", type, format ? "b" : ""));
	}
	assert_true(rd_done(&r));
}

/* The output since the last call must read so. */
static void
expect(const char *want)
{
	struct wbuf text = {0};
	size_t at = 0;

	while (at < out.n) {
		struct wire_msg msg;

		assert_int_equal(wire_take(out.p + at, out.n - at, 1 << 20, &msg), WIRE_OK);
		at += msg.len + WIRE_HEAD_BYTES;
		if (text.n)
			wbuf_u8(&text, ' ');
		wbuf_u8(&text, (uint8_t)msg.type);
		wbuf_u8(&text, '(');
		if (msg.type == 'T')
			show_description(&msg, &text);
		else if (msg.type == 'D')
			show_row(&msg, &text);
		else
			wbuf_bytes(&text, msg.body, msg.type == 'C' ? msg.len - 1 : msg.len);
		wbuf_u8(&text, ')');
	}
	wbuf_u8(&text, 0);
	assert_string_equal(text.p, want);
	wbuf_fini(&text);
	wbuf_clear(&out);
}

static void
expect_failure(enum rc rc, const char *sqlstate, const char *message)
{
	assert_int_equal(rc, RC_FAIL);
	assert_string_equal(d.sqlstate, sqlstate);
	assert_string_equal(d.message, message);
}

/* ---- CONCAT, WRITE, SAME ---- */

static struct merge_spec
spec_of(enum multi_kind kind, int n_legs)
{
	return (struct merge_spec){.kind = kind, .n_legs = n_legs, .limit = -1};
}

static void
concat__rows_of_two_legs__one_answer(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_CONCAT, 2);

	start(&s);
	OK(describe(1, 0, TYPES(23, 25)));
	OK(row(1, "1|a"));
	expect("T(23,25) D(1|a)");
	OK(describe(0, 0, TYPES(23, 25)));
	OK(bare(0, 'N', "note"));
	OK(row(0, "~|"));
	OK(complete(1, "SELECT 1"));
	expect("N(note) D(~|)");
	assert_false(merge_done(m));
	OK(row(0, "3|c"));
	OK(complete(0, "SELECT 2"));
	expect("D(3|c) C(SELECT 3)");
	assert_true(merge_done(m));
	finish();
}

static void
concat__hidden_description__is_checked_not_sent(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_CONCAT, 2);

	s.hide_row_description = true;
	start(&s);
	OK(describe(0, 1, TYPES(23)));
	OK(row(0, "xxxx"));
	expect("D(xxxx)");
	expect_failure(describe(1, 1, TYPES(20)), "XX000", "shards' schemas differ");
	finish();
}

static void
concat__descriptions_differ__fails(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_CONCAT, 3);

	start(&s);
	OK(describe(0, 0, TYPES(23, 20000)));
	OK(describe(1, 0, TYPES(23, 20001))); /* a user's type: its OID is each server's own */
	expect_failure(describe(2, 0, TYPES(23)), "XX000", "shards' schemas differ");
	finish();
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	expect_failure(describe(1, 0, TYPES(20000)), "XX000", "shards' schemas differ");
	finish();
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	expect_failure(bare(1, 'n', ""), "XX000", "shards' schemas differ");
	finish();
}

static void
concat__limit_and_offset__rows_cut_and_counted(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_CONCAT, 2);

	s.limit = 2;
	s.offset = 1;
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	OK(describe(1, 0, TYPES(23)));
	OK(row(0, "1"));
	OK(row(1, "2"));
	assert_false(merge_done_early(m));
	OK(row(0, "3"));
	assert_true(merge_done_early(m));
	OK(row(0, "4"));
	OK(row(1, "5"));
	OK(complete(0, "SELECT 3"));
	OK(complete(1, "SELECT 2"));
	expect("T(23) D(2) D(3) C(SELECT 2)");
	finish();
}

static void
concat__limit_zero__done_at_once(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_CONCAT, 2);

	s.limit = 0;
	start(&s);
	assert_false(merge_done_early(m)); /* the description is still to come */
	OK(describe(0, 0, TYPES(23)));
	assert_true(merge_done_early(m));
	OK(merge_finish_early(m, &out, &d));
	assert_true(merge_done(m));
	expect("T(23) C(SELECT 0)");
	finish();
}

static void
concat__offset_beyond_all_rows__none(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_CONCAT, 1);

	s.offset = 5;
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	OK(row(0, "1"));
	OK(complete(0, "SELECT 1"));
	expect("T(23) C(SELECT 0)");
	finish();
}

static void
concat__copy_to__streams_strung_together(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_CONCAT, 2);
	struct wbuf w = {0};

	start(&s);
	wbuf_bytes(&w, "\0\0\0", 3);
	OK(give(0, 'H', &w));
	OK(give(1, 'H', &w));
	wbuf_clear(&out);
	OK(bare(1, 'd', "1\n"));
	OK(bare(1, 'c', ""));
	OK(bare(0, 'd', "2\n"));
	OK(complete(1, "COPY 1"));
	expect("d(1\n) d(2\n)");
	OK(bare(0, 'c', ""));
	OK(complete(0, "COPY 1"));
	expect("c() C(COPY 2)");
	finish();
	start(&s);
	w.p[0] = 1;
	expect_failure(give(0, 'H', &w), "0A000", "binary COPY TO cannot be read from several shards");
	wbuf_fini(&w);
	finish();
}

static void
concat__unexpected_messages__fail(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_CONCAT, 2);

	start(&s);
	expect_failure(bare(0, 's', ""), "XX000", "unexpected answer of a shard: PortalSuspended");
	finish();
	start(&s);
	expect_failure(bare(0, 'Z', "I"), "XX000", "unexpected answer of a shard: ReadyForQuery");
	finish();
	start(&s);
	OK(complete(0, "SELECT 1"));
	expect_failure(complete(1, "UPDATE 1"), "XX000", "unexpected answer of a shard: command tags differ");
	finish();
	start(&s);
	OK(complete(0, "SELECT 1"));
	expect_failure(row(0, "1"), "XX000", "unexpected answer of a shard: a message behind CommandComplete");
	finish();
}

static void
write__counts__are_added(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_WRITE, 3);

	start(&s);
	OK(complete(0, "UPDATE 2"));
	OK(complete(2, "UPDATE 0"));
	OK(complete(1, "UPDATE 40"));
	expect("C(UPDATE 42)");
	finish();
	start(&s);
	for (int i = 0; i < 3; i++)
		OK(complete(i, "INSERT 0 2"));
	expect("C(INSERT 0 6)");
	finish();
}

static void
write__row_order__rows_in_the_order_of_values(void **state)
{
	(void)state;
	static const uint32_t order[] = {1, 0, 0, 1};
	struct merge_spec s = spec_of(MULTI_WRITE, 2);

	s.row_order = order;
	s.n_row_order = ARRAY_LEN(order);
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	OK(row(0, "2"));
	OK(row(0, "3"));
	OK(complete(0, "INSERT 0 2"));
	expect("T(23)");
	OK(describe(1, 0, TYPES(23)));
	OK(row(1, "1"));
	expect("D(1) D(2) D(3)");
	OK(row(1, "4"));
	OK(complete(1, "INSERT 0 2"));
	expect("D(4) C(INSERT 0 4)");
	finish();
}

static void
write__row_order_with_fewer_and_more_rows__none_is_lost(void **state)
{
	(void)state;
	static const uint32_t order[] = {0, 1};
	struct merge_spec s = spec_of(MULTI_WRITE, 2);

	s.row_order = order;
	s.n_row_order = ARRAY_LEN(order);
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	OK(describe(1, 0, TYPES(23)));
	OK(row(1, "1"));
	OK(row(1, "2"));
	OK(complete(1, "INSERT 0 2"));
	OK(complete(0, "INSERT 0 0"));
	expect("T(23) D(1) D(2) C(INSERT 0 2)");
	finish();
}

static void
same__legs_agree__first_legs_answer(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_SAME, 2);

	start(&s);
	OK(describe(1, 0, TYPES(25)));
	OK(row(1, "x"));
	OK(bare(1, 'N', "n1"));
	OK(complete(1, "UPDATE 1"));
	OK(describe(0, 0, TYPES(25)));
	OK(row(0, "x"));
	OK(bare(0, 'N', "n0"));
	OK(complete(0, "UPDATE 1"));
	expect("T(25) D(x) N(n0) C(UPDATE 1)");
	finish();
	start(&s);
	OK(complete(0, "CREATE TABLE"));
	OK(complete(1, "CREATE TABLE"));
	expect("C(CREATE TABLE)");
	finish();
	start(&s);
	OK(bare(0, 'I', ""));
	OK(bare(1, 'I', ""));
	expect("I()");
	finish();
}

static void
same__counts_differ__fails(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_SAME, 2);

	start(&s);
	OK(complete(1, "UPDATE 1"));
	expect_failure(complete(0, "UPDATE 2"), "XX000", "copies of a reference table differ");
	finish();
}

/* ---- SORT ---- */

static void
sort__ints__merged_with_ties_to_the_lowest_leg(void **state)
{
	(void)state;
	static const struct sort_column by[] = {{.output_column = 0, .compare = SORT_INT}};
	struct merge_spec s = spec_of(MULTI_SORT, 3);

	s.sort = by;
	s.n_sort = 1;
	start(&s);
	for (int i = 0; i < 3; i++)
		OK(describe(i, 0, TYPES(23, 25)));
	OK(row(2, "9|c"));
	OK(row(2, "100|c"));
	OK(row(1, "-3|b"));
	OK(row(1, "9|b"));
	expect("T(23,25)");
	OK(row(0, "9|a"));
	expect("D(-3|b) D(9|a)"); /* leg 0's next may be a 9 as well */
	OK(complete(0, "SELECT 1"));
	expect("D(9|b)");
	OK(complete(1, "SELECT 2"));
	expect("D(9|c) D(100|c)");
	OK(row(2, "~|c"));
	OK(complete(2, "SELECT 3"));
	expect("D(~|c) C(SELECT 6)");
	finish();
}

static void
sort__nulls_and_descending_bytes__as_asked(void **state)
{
	(void)state;
	static const struct sort_column by[] = {
		{.output_column = 1, .compare = SORT_BYTES, .descending = true, .nulls_first = true},
		{.output_column = 0, .compare = SORT_INT, .nulls_first = false},
	};
	struct merge_spec s = spec_of(MULTI_SORT, 2);

	s.sort = by;
	s.n_sort = 2;
	start(&s);
	OK(describe(0, 0, TYPES(20, 25)));
	OK(describe(1, 0, TYPES(20, 25)));
	OK(row(0, "5|~"));
	OK(row(0, "~|~"));
	OK(row(0, "1|ab"));
	OK(row(0, "1|"));
	OK(complete(0, "SELECT 4"));
	OK(row(1, "7|~"));
	OK(row(1, "1|b"));
	OK(row(1, "0|ab"));
	OK(row(1, "2|a"));
	OK(complete(1, "SELECT 4"));
	expect("T(20,25) D(5|~) D(7|~) D(~|~) D(1|b) D(0|ab) D(1|ab) D(2|a) D(1|) C(SELECT 8)");
	finish();
}

static void
sort__binary_ints__compared_as_numbers(void **state)
{
	(void)state;
	static const struct sort_column by[] = {{.output_column = 0, .compare = SORT_INT, .descending = true}};
	struct merge_spec s = spec_of(MULTI_SORT, 2);

	s.sort = by;
	s.n_sort = 1;
	start(&s);
	OK(describe(0, 1, TYPES(21)));
	OK(describe(1, 1, TYPES(21)));
	OK(row_bytes(0, SPAN_LIT("AA")));
	OK(row_bytes(0, SPAN_LIT("\xff\xfe")));
	OK(row_bytes(1, SPAN_LIT("BB")));
	OK(row_bytes(1, SPAN_LIT("\xff\xff")));
	OK(complete(0, "SELECT 2"));
	OK(complete(1, "SELECT 2"));
	expect("T(21b) D(BB) D(AA) D(\xff\xff) D(\xff\xfe) C(SELECT 4)");
	finish();
}

static void
sort__limit__done_before_the_legs(void **state)
{
	(void)state;
	static const struct sort_column by[] = {{.output_column = 0, .compare = SORT_INT}};
	struct merge_spec s = spec_of(MULTI_SORT, 2);

	s.sort = by;
	s.n_sort = 1;
	s.limit = 1;
	s.offset = 1;
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	OK(describe(1, 0, TYPES(23)));
	OK(row(0, "1"));
	OK(row(1, "2"));
	expect("T(23)");
	OK(row(0, "3"));
	assert_true(merge_done_early(m));
	OK(row(1, "4"));
	OK(complete(0, "SELECT 2"));
	OK(complete(1, "SELECT 2"));
	expect("D(2) C(SELECT 1)");
	finish();
}

static void
sort__one_leg_ahead__is_held_back(void **state)
{
	(void)state;
	static const struct sort_column by[] = {{.output_column = 0, .compare = SORT_INT}};
	struct merge_spec s = spec_of(MULTI_SORT, 2);
	char number[16];

	s.sort = by;
	s.n_sort = 1;
	s.max_leg_bytes = 100;
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	OK(describe(1, 0, TYPES(23)));
	for (int i = 0; merge_wants(m, 0); i++) {
		assert_in_range(i, 0, 10);
		snprintf(number, sizeof number, "%d", i);
		OK(row(0, number));
	}
	assert_true(merge_wants(m, 1));
	OK(complete(1, "SELECT 0"));
	assert_true(merge_wants(m, 0));
	OK(complete(0, "SELECT 10"));
	expect("T(23) D(0) D(1) D(2) D(3) D(4) D(5) D(6) D(7) D(8) D(9) C(SELECT 10)");
	finish();
}

/* Many rows in random portions: the order must be total and no row be lost. */
static void
sort__random_arrival__every_row_in_order(void **state)
{
	(void)state;
	static const struct sort_column by[] = {{.output_column = 0, .compare = SORT_BYTES}};
	struct merge_spec s = spec_of(MULTI_SORT, 4);
	struct wbuf want = {0};
	int next[4] = {0, 1, 2, 3}, left = 4;
	char number[16];

	s.sort = by;
	s.n_sort = 1;
	start(&s);
	srand(1);
	for (int i = 0; i < 4; i++)
		OK(describe(i, 0, TYPES(25)));
	while (left) {
		int leg = rand() % 4;

		for (int n = rand() % 20; n > 0 && next[leg] < 2000; n--, next[leg] += 4) {
			snprintf(number, sizeof number, "%05d", next[leg]);
			OK(row(leg, number));
		}
		if (next[leg] >= 2000 && next[leg] < 9000) {
			next[leg] = 9000;
			left--;
			OK(complete(leg, "SELECT 500"));
		}
	}
	wbuf_span(&want, SPAN_LIT("T(25)"));
	for (int i = 0; i < 2000; i++) {
		snprintf(number, sizeof number, " D(%05d)", i);
		wbuf_span(&want, span_str(number));
	}
	wbuf_cstr(&want, " C(SELECT 2000)");
	expect(want.p);
	wbuf_fini(&want);
	finish();
}

static void
sort__what_cannot_be_compared__fails(void **state)
{
	(void)state;
	static const struct sort_column by[] = {{.output_column = 0, .compare = SORT_INT}};
	struct merge_spec s = spec_of(MULTI_SORT, 2);

	s.sort = by;
	s.n_sort = 1;
	start(&s);
	expect_failure(describe(0, 0, TYPES(25)), "XX000", "unexpected answer of a shard: a column to sort by as integer is none");
	finish();
	start(&s);
	expect_failure(row(0, "1"), "XX000", "unexpected answer of a shard: rows without a RowDescription");
	finish();
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	expect_failure(row(0, "1.5"), "XX000", "unexpected answer of a shard: a value to sort by is no integer");
	finish();
	start(&s);
	OK(describe(0, 0, TYPES(23)));
	expect_failure(row(0, "1|2"), "XX000", "unexpected answer of a shard: malformed DataRow");
	finish();
}

/* ---- AGGREGATE ---- */

static const struct aggregate_column all_ops[] = {
	{AGG_COUNT, SORT_INT}, {AGG_SUM, SORT_INT}, {AGG_SUM, SORT_INT}, {AGG_MIN, SORT_INT}, {AGG_MAX, SORT_INT}, {AGG_MIN, SORT_BYTES}, {AGG_MAX, SORT_INT},
};

static void
aggregate__every_operation__one_row(void **state)
{
	(void)state;
	struct merge_spec s = spec_of(MULTI_AGGREGATE, 3);

	s.aggregates = all_ops;
	s.n_aggregates = ARRAY_LEN(all_ops);
	start(&s);
	for (int i = 0; i < 3; i++)
		OK(describe(i, 0, TYPES(20, 20, 1700, 23, 21, 25, 1700)));
	OK(row(1, "2|-5|1.50|7|~|b|1.5"));
	OK(row(0, "3|~|2.25|-7|4|ab|1.50"));
	OK(complete(0, "SELECT 1"));
	OK(complete(1, "SELECT 1"));
	OK(row(2, "0|~|~|~|~|~|~"));
	OK(complete(2, "SELECT 1"));
	expect("T(20,20,1700,23,21,25,1700) D(5|-5|3.75|-7|4|ab|1.50) C(SELECT 1)");
	finish();
}

static void
aggregate__binary_wanted__text_partials_are_converted(void **state)
{
	(void)state;
	static const uint16_t formats[] = {1};
	static const struct aggregate_column count[] = {{AGG_COUNT, SORT_INT}};
	static const struct aggregate_column sum[] = {{AGG_SUM, SORT_INT}};
	struct merge_spec s = spec_of(MULTI_AGGREGATE, 2);
	static const char answer[] = "T\0\0\0\x1a\0\1c\0\0\0\3\xe8\0\1\0\0\0\x14\0\x08\xff\xff\xff\xff\0\1"
	                             "D\0\0\0\x12\0\1\0\0\0\x08\0\0\0\0\0\0\1\1"
	                             "C\0\0\0\x0dSELECT 1";

	s.aggregates = count;
	s.n_aggregates = 1;
	s.result_formats = formats;
	s.n_result_formats = 1;
	start(&s);
	OK(describe(0, 0, TYPES(20)));
	OK(describe(1, 0, TYPES(20)));
	OK(row(0, "255"));
	OK(row(1, "2"));
	OK(complete(0, "SELECT 1"));
	OK(complete(1, "SELECT 1"));
	assert_int_equal(out.n, sizeof answer);
	assert_memory_equal(out.p, answer, sizeof answer);
	finish();

	s.aggregates = sum;
	s.hide_row_description = true;
	start(&s);
	OK(describe(0, 1, TYPES(1700)));
	OK(describe(1, 1, TYPES(1700)));
	OK(row_bytes(0, SPAN_LIT("\0\1\0\0\0\0\0\1\0\1")));         /* 1.0 */
	OK(row_bytes(1, SPAN_LIT("\0\2\0\0\0\0\0\2\0\1\x13\x88"))); /* 1.50 */
	OK(complete(0, "SELECT 1"));
	OK(complete(1, "SELECT 1"));
	struct span want = SPAN_LIT("D\0\0\0\x16\0\1\0\0\0\x0c\0\2\0\0\0\0\0\2\0\2\x13\x88");
	assert_true(out.n > want.n);
	assert_memory_equal(out.p, want.p, want.n);
	finish();
}

static void
aggregate__sum_beyond_bigint__22003_only_at_the_end(void **state)
{
	(void)state;
	static const struct aggregate_column sum[] = {{AGG_SUM, SORT_INT}};
	struct merge_spec s = spec_of(MULTI_AGGREGATE, 3);

	s.aggregates = sum;
	s.n_aggregates = 1;
	for (int overflow = 0; overflow < 2; overflow++) {
		start(&s);
		for (int i = 0; i < 3; i++)
			OK(describe(i, 0, TYPES(20)));
		OK(row(0, "9223372036854775807"));
		OK(row(1, "9223372036854775807"));
		OK(row(2, overflow ? "0" : "-9223372036854775808"));
		OK(complete(0, "SELECT 1"));
		OK(complete(1, "SELECT 1"));
		if (overflow)
			expect_failure(complete(2, "SELECT 1"), "22003", "bigint out of range");
		else {
			OK(complete(2, "SELECT 1"));
			expect("T(20) D(9223372036854775806) C(SELECT 1)");
		}
		finish();
	}
}

static void
aggregate__wrong_number_of_rows_or_type__fails(void **state)
{
	(void)state;
	static const struct aggregate_column sum[] = {{AGG_SUM, SORT_INT}};
	struct merge_spec s = spec_of(MULTI_AGGREGATE, 1);

	s.aggregates = sum;
	s.n_aggregates = 1;
	start(&s);
	OK(describe(0, 0, TYPES(20)));
	OK(row(0, "1"));
	expect_failure(row(0, "1"), "XX000", "unexpected answer of a shard: more than one row of an aggregate");
	finish();
	start(&s);
	OK(describe(0, 0, TYPES(20)));
	expect_failure(complete(0, "SELECT 0"), "XX000", "unexpected answer of a shard: an aggregate without a row");
	finish();
	start(&s);
	expect_failure(describe(0, 0, TYPES(701)), "0A000", "aggregate of column 1 (type 701) cannot be computed over several shards");
	finish();
}

static void
aggregate__offset_one__no_row(void **state)
{
	(void)state;
	static const struct aggregate_column count[] = {{AGG_COUNT, SORT_INT}};
	struct merge_spec s = spec_of(MULTI_AGGREGATE, 1);

	s.aggregates = count;
	s.n_aggregates = 1;
	s.offset = 1;
	start(&s);
	OK(describe(0, 0, TYPES(20)));
	OK(row(0, "1"));
	OK(complete(0, "SELECT 1"));
	expect("T(20) C(SELECT 0)");
	finish();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(concat__rows_of_two_legs__one_answer),
		cmocka_unit_test(concat__hidden_description__is_checked_not_sent),
		cmocka_unit_test(concat__descriptions_differ__fails),
		cmocka_unit_test(concat__limit_and_offset__rows_cut_and_counted),
		cmocka_unit_test(concat__limit_zero__done_at_once),
		cmocka_unit_test(concat__offset_beyond_all_rows__none),
		cmocka_unit_test(concat__copy_to__streams_strung_together),
		cmocka_unit_test(concat__unexpected_messages__fail),
		cmocka_unit_test(write__counts__are_added),
		cmocka_unit_test(write__row_order__rows_in_the_order_of_values),
		cmocka_unit_test(write__row_order_with_fewer_and_more_rows__none_is_lost),
		cmocka_unit_test(same__legs_agree__first_legs_answer),
		cmocka_unit_test(same__counts_differ__fails),
		cmocka_unit_test(sort__ints__merged_with_ties_to_the_lowest_leg),
		cmocka_unit_test(sort__nulls_and_descending_bytes__as_asked),
		cmocka_unit_test(sort__binary_ints__compared_as_numbers),
		cmocka_unit_test(sort__limit__done_before_the_legs),
		cmocka_unit_test(sort__one_leg_ahead__is_held_back),
		cmocka_unit_test(sort__random_arrival__every_row_in_order),
		cmocka_unit_test(sort__what_cannot_be_compared__fails),
		cmocka_unit_test(aggregate__every_operation__one_row),
		cmocka_unit_test(aggregate__binary_wanted__text_partials_are_converted),
		cmocka_unit_test(aggregate__sum_beyond_bigint__22003_only_at_the_end),
		cmocka_unit_test(aggregate__wrong_number_of_rows_or_type__fails),
		cmocka_unit_test(aggregate__offset_one__no_row),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
