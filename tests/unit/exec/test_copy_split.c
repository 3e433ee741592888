/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/exec/copy_split.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
/* test_copy_split - each stream is fed whole, byte by byte, and in threes: the bytes each shard gets must be the same. A
 * row goes to the shard that its (first) key's first digit names; "!" as a key is an error. */
#include "pgspan/copy_split.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SHARDS 3

struct sink {
	char bytes[SHARDS][512];
	size_t n[SHARDS];
	char keys[256];
};

static int
route(void *arg, const struct copy_key *keys, int n, struct diag *d)
{
	struct sink *s = arg;
	size_t at = strlen(s->keys);
	assert_int_equal(n, 1);
	if (keys[0].is_missing || keys[0].is_null) {
		snprintf(s->keys + at, sizeof s->keys - at, keys[0].is_null ? "NULL|" : "-|");
		return 0;
	}
	snprintf(s->keys + at, sizeof s->keys - at, "%.*s|", (int)keys[0].value.n, keys[0].value.p);
	if (keys[0].value.n && keys[0].value.p[0] == '!') {
		diag_set(d, "22P02", "no key");
		return -1;
	}
	return keys[0].value.n ? keys[0].value.p[0] % SHARDS : 0;
}

static void
emit(void *arg, int shard, struct span b)
{
	struct sink *s = arg;
	assert_in_range(shard, 0, SHARDS - 1);
	assert_true(s->n[shard] + b.n <= sizeof s->bytes[shard]);
	memcpy(s->bytes[shard] + s->n[shard], b.p, b.n);
	s->n[shard] += b.n;
}

static enum rc
feed(const struct copy_plan *plan, struct span in, size_t piece, struct sink *s, struct diag *d)
{
	struct copy_split_spec spec = {.plan = plan, .n_key = 1, .n_shards = SHARDS, .route = route, .emit = emit, .arg = s};
	memset(s, 0, sizeof *s);
	diag_clear(d);
	struct copy_split *cs = copy_split_new(&spec, d);
	assert_non_null(cs);
	enum rc rc = RC_OK;
	for (size_t i = 0; rc == RC_OK && i < in.n; i += piece) {
		/* In memory of its own, so that a read beyond the piece is seen. */
		size_t n = in.n - i < piece ? in.n - i : piece;
		char *p = xmalloc(n);
		memcpy(p, in.p + i, n);
		rc = copy_split_feed(cs, span_of(p, n), d);
		free(p);
	}
	if (rc == RC_OK)
		rc = copy_split_finish(cs, d);
	copy_split_free(cs);
	return rc;
}

static void
check(const struct copy_plan *plan, struct span in, const char *keys, struct span s0, struct span s1, struct span s2)
{
	static const size_t pieces[] = {100000, 1, 3};
	const struct span want[SHARDS] = {s0, s1, s2};
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		struct sink s;
		struct diag d;
		assert_int_equal(feed(plan, in, pieces[i], &s, &d), RC_OK);
		assert_string_equal(s.keys, keys);
		for (int k = 0; k < SHARDS; k++) {
			assert_int_equal(s.n[k], want[k].n);
			assert_memory_equal(s.bytes[k], want[k].p, want[k].n);
		}
	}
}

static const int first[] = {0}, second[] = {1};

static struct copy_plan
text_plan(void)
{
	return (struct copy_plan){.key_field = first, .n_fields = 2, .format = COPY_FORMAT_TEXT, .delimiter = '\t', .null_string = "\\N"};
}

static struct copy_plan
csv_plan(void)
{
	return (struct copy_plan){.key_field = second, .n_fields = 2, .format = COPY_FORMAT_CSV, .delimiter = ',', .quote = '"', .escape = '"',
	    .null_string = ""};
}

static void
feed__text__rows_go_as_they_came(void **state)
{
	(void)state;
	struct copy_plan p = text_plan();
	/* '0' % 3 == 0, '1' % 3 == 1, '2' % 3 == 2 */
	check(&p, SPAN_LIT("1\ta\n2\tb\\nc\n\\060\td\n\\N\te\n1\tf\n"), "1|2|0|NULL|1|", SPAN_LIT("\\060\td\n\\N\te\n"), SPAN_LIT("1\ta\n1\tf\n"),
	    SPAN_LIT("2\tb\\nc\n"));
	/* No newline at the end. */
	check(&p, SPAN_LIT("1\ta\n2\tb"), "1|2|", SPAN_LIT(""), SPAN_LIT("1\ta\n"), SPAN_LIT("2\tb"));
}

static void
feed__csv__quotes_and_newlines_inside(void **state)
{
	(void)state;
	struct copy_plan p = csv_plan();
	check(&p, SPAN_LIT("a,1\n\"x\ny\"\"z,\",\"2\"\nb,\n"), "1|2|NULL|", SPAN_LIT("b,\n"), SPAN_LIT("a,1\n"),
	    SPAN_LIT("\"x\ny\"\"z,\",\"2\"\n"));
	p.header = true;
	check(&p, SPAN_LIT("n,k\na,1\n"), "1|", SPAN_LIT("n,k\n"), SPAN_LIT("n,k\na,1\n"), SPAN_LIT("n,k\n"));
}

#define SIGNATURE "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0"

static void
feed__binary__header_and_trailer_everywhere(void **state)
{
	(void)state;
	struct copy_plan p = text_plan();
	p.format = COPY_FORMAT_BINARY;
	check(&p, SPAN_LIT(SIGNATURE "\0\2\0\0\0\1" "1\0\0\0\1a" "\0\2\0\0\0\1" "2\377\377\377\377" "\377\377"), "1|2|", SPAN_LIT(SIGNATURE "\377\377"),
	    SPAN_LIT(SIGNATURE "\0\2\0\0\0\1" "1\0\0\0\1a" "\377\377"), SPAN_LIT(SIGNATURE "\0\2\0\0\0\1" "2\377\377\377\377" "\377\377"));
}

static void
feed__route_refuses__fails_with_its_reason(void **state)
{
	(void)state;
	struct copy_plan p = text_plan();
	for (size_t piece = 1; piece < 20; piece += 18) {
		struct sink s;
		struct diag d;
		assert_int_equal(feed(&p, SPAN_LIT("1\ta\n!\tb\n2\tc\n"), piece, &s, &d), RC_FAIL);
		assert_string_equal(d.sqlstate, "22P02");
		assert_int_equal(s.n[2], 0);
	}
}

static void
new__unsafe_encoding__is_refused(void **state)
{
	(void)state;
	struct copy_plan p = text_plan();
	p.encoding = "SJIS";
	struct copy_split_spec spec = {.plan = &p, .n_key = 1, .n_shards = SHARDS, .route = route, .emit = emit};
	struct diag d;
	diag_clear(&d);
	assert_null(copy_split_new(&spec, &d));
	assert_string_equal(d.sqlstate, "0A000");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(feed__text__rows_go_as_they_came),
	    cmocka_unit_test(feed__csv__quotes_and_newlines_inside),
	    cmocka_unit_test(feed__binary__header_and_trailer_everywhere),
	    cmocka_unit_test(feed__route_refuses__fails_with_its_reason),
	    cmocka_unit_test(new__unsafe_encoding__is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
