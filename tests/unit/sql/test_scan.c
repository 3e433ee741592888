/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/sql/scan.o proxy/sql/scan_literal.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o proxy/base/arena.o */
/* test_scan - tokens, shapes and values of the scanner. fuzz_scan holds it against PostgreSQL's scanner on any text;
 * here stands what is promised on top, and one example of each rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pgspan/scan.h"

static struct scan scan;

/* The text's tokens as "kind:text" strung together by spaces, on a heap block without slack for ASan to guard. */
static const char *
tokens_of(const char *text, unsigned flags)
{
	static const char *const names[] = {"end", "str", "estr", "ustr", "dollar", "bit", "hex", "int", "big", "float", "param",
		"id", "qid", "uid", "nchar", "op", "self", "cast", "dots", "assign", "arrow", "le", "ge", "ne", "junk", "other"};
	static char out[2048];
	size_t len = strlen(text), n = 0;
	char *sql = xmalloc(len);
	struct scan_iter it;
	struct scan_token tok;

	memcpy(sql, text, len);
	out[0] = '\0';
	scan_iter_init(&it, sql, len, flags);
	while (scan_next(&it, &tok))
		n += (size_t)snprintf(out + n, sizeof(out) - n, "%s%s<%.*s>", n ? " " : "", names[tok.kind], (int)tok.len,
			sql + tok.off);
	free(sql);
	return out;
}

#define assert_tokens(text, expected) assert_string_equal(tokens_of(text, 0), expected)

static void
scan_next__identifiers__whole(void **state)
{
	(void)state;
	assert_tokens("Sel_1$x \xc3\xa9t \"a\"\"B\" U&\"d\\0061\" u&b",
		"id<Sel_1$x> id<\xc3\xa9t> qid<\"a\"\"B\"> uid<U&\"d\\0061\"> id<u> op<&> id<b>");
	assert_tokens("a$1$b", "id<a$1$b>");
	assert_tokens("", "");
}

static void
scan_next__strings__by_prefix(void **state)
{
	(void)state;
	assert_tokens("'a''b' E'\\'' e'' B'01' X'f' N'n' n 'm' U&'u' u&'v'",
		"str<'a''b'> estr<E'\\''> estr<e''> bit<B'01'> hex<X'f'> nchar<N> str<'n'> id<n> str<'m'> ustr<U&'u'> ustr<u&'v'>");
	assert_tokens("B'0''1'", "bit<B'0'> str<'1'>"); /* quotes do not double in bit strings */
	assert_tokens("'\\' 'y'", "str<'\\'> str<'y'>");
	assert_string_equal(tokens_of("'\\' 'y'", SCAN_SCS_OFF), "str<'\\' '> id<y> str<'>");
}

static void
scan_next__newline_between_strings__one_literal(void **state)
{
	(void)state;
	assert_tokens("'a'\n'b'", "str<'a'\n'b'>");
	assert_tokens("'a' \r\t'b' 'c'", "str<'a' \r\t'b'> str<'c'>");
	assert_tokens("'a' -- c\n --d\n 'b'", "str<'a' -- c\n --d\n 'b'>");
	assert_tokens("'a'--'b'", "str<'a'>");
	assert_tokens("'a'\n/**/'b'", "str<'a'> str<'b'>"); /* a block comment parts them */
	assert_tokens("'a'\n-1", "str<'a'> self<-> int<1>");
	assert_tokens("E'a'\n'\\''", "estr<E'a'\n'\\''>");
	assert_tokens("X'a'\n'b'", "hex<X'a'\n'b'>");
	assert_tokens("$$a$$\n'b'", "dollar<$$a$$> str<'b'>");
}

static void
scan_next__dollar_quotes__by_tag(void **state)
{
	(void)state;
	assert_tokens("$$a$b$$ $t$ $x$ $T$ $t$", "dollar<$$a$b$$> dollar<$t$ $x$ $T$ $t$>");
	assert_tokens("$a$$a$b$a$", "dollar<$a$$a$> id<b$a$>");
	assert_tokens("$1 $12,$ab c", "param<$1> param<$12> self<,> other<$> id<ab> id<c>");
	assert_tokens("$", "other<$>");
	assert_tokens("$1$$1$", "param<$1> dollar<$$1$>"); /* unterminated: to the end */
}

static void
scan_next__numbers__by_type(void **state)
{
	(void)state;
	assert_tokens("1 2147483647 0000000002147483648 9223372036854775807 9223372036854775808",
		"int<1> int<2147483647> big<0000000002147483648> big<9223372036854775807> float<9223372036854775808>");
	assert_tokens("1. .5 1.5 1e10 1.e-5 .5E+3", "float<1.> float<.5> float<1.5> float<1e10> float<1.e-5> float<.5E+3>");
	assert_tokens("1..10 1.5..2 1...2", "int<1> dots<..> int<10> float<1.5> dots<..> int<2> int<1> dots<..> float<.2>");
	assert_tokens("123abc 0x2A 1_000 1e 1.x $1a 1$2", "junk<123abc> junk<0x2A> junk<1_000> junk<1e> junk<1.x> junk<$1a> int<1> param<$2>");
	assert_tokens("99999999999999999999999999", "float<99999999999999999999999999>");
}

static void
scan_next__operators__longest_without_sign_or_comment(void **state)
{
	(void)state;
	assert_tokens("a=-1", "id<a> self<=> self<-> int<1>");
	assert_tokens("a@-1", "id<a> op<@-> int<1>");
	assert_tokens("*-+-1", "self<*> self<-> self<+> self<-> int<1>");
	assert_tokens("^- %+", "op<^-> op<%+>");
	assert_tokens("+/*x*/- 3*--c\n4", "self<+> self<-> int<3> self<*> int<4>");
	assert_tokens("<=- <=--\n>=/**/<>+ !=", "le<<=> self<-> le<<=> ge<>=> ne<<>> self<+> ne<!=>");
	assert_tokens("=> := :: : .. . ->> #> ?", "arrow<=>> assign<:=> cast<::> self<:> dots<..> self<.> op<->>> op<#>> op<?>");
	assert_tokens(":::= ~ (),[];", "cast<::> assign<:=> op<~> self<(> self<)> self<,> self<[> self<]> self<;>");
}

static void
scan_next__comments__nested_and_skipped(void **state)
{
	(void)state;
	assert_tokens("/* a /* b */ c */x/***//*/**/*/--", "id<x>");
	assert_tokens("a--b\rc", "id<a> id<c>");
	assert_tokens("*/ x", "op<*/> id<x>");
}

static unsigned
found_in(const char *text)
{
	int rc = scan_sql(text, strlen(text), 0, &scan);

	assert_int_equal(rc, scan.found & SCAN_UNTERMINATED ? -1 : 0);
	return scan.found;
}

static void
scan_sql__unterminated__said(void **state)
{
	static const char *const texts[] = {"'a", "E'a\\'", "E'\\", "\"a", "/* /* */", "/*/", "$$a$", "$a$ $A$", "B'0", "U&'x",
		"U&\"x", "'a'\n'", "'"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		assert_int_equal(found_in(texts[i]), SCAN_UNTERMINATED);
	assert_int_equal(found_in("select 1 --"), 0);
	assert_int_equal(found_in("\"\"\"\""), 0);
	assert_int_equal(found_in("\"\""), SCAN_INVALID);
	assert_int_equal(found_in("1a"), SCAN_INVALID);
	assert_int_equal(found_in("\\"), SCAN_INVALID);
}

static bool
same_shape(const char *a, const char *b)
{
	uint64_t shape[2];

	assert_int_equal(scan_sql(a, strlen(a), 0, &scan), 0);
	memcpy(shape, scan.shape, sizeof(shape));
	assert_int_equal(scan_sql(b, strlen(b), 0, &scan), 0);
	return memcmp(shape, scan.shape, sizeof(shape)) == 0;
}

static void
scan_sql__values_blanks_case__same_shape(void **state)
{
	(void)state;
	assert_true(same_shape("SELECT a FROM t WHERE b = 1", "select  A /* x */ from T\nwhere B=4711--x"));
	assert_true(same_shape("select 'a', $1, 1.5", "select 'it''s'\n'b', $1, 1e3"));
	assert_true(same_shape("select Abcdefghijklmnop_Z[\\]", "select aBCDEFGHIJKLMNOP_z[\\]"));
	assert_true(same_shape("select 1", "select 2147483647"));
}

static void
scan_sql__anything_else__other_shape(void **state)
{
	static const char *const texts[] = {"select 1", "select '1'", "select 1.0", "select 2147483648", "select $1", "select $2",
		"select x", "select \"x\"", "select \"X\"", "select 1;", "select 1, 1", "select -1", "select - -1", "select @-1", "select @ -1",
		"select n'x'", "select n 'x'", "select a.b", "select a . . b", "select a .. b", "select a:: b", "select a : : b",
		"select a : = b", "select a := b", "select a< =b", "select a<=b", "select null", "select true", "select 0x2A", "select 0 x2A",
		"select E'1'", "select $$1$$", "select B'1'", "select X'1'", "select U&'1'", "select U&'1' uescape '!'",
		"select U&'1' uescape '?'", "select U&\"x\" uescape '!'", "select U&\"x\" uescape '?'", "select \xc3\xa9",
		"select \xc3\x89", "select a[1]", "select @", "select `", "select {", "select a$b", "select a $b $", "s elect 1"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		for (size_t k = 0; k < i; k++)
			if (same_shape(texts[i], texts[k]))
				fail_msg("%s = %s", texts[i], texts[k]);
}

static void
scan_sql__longer_than_buffer__every_byte_counts(void **state)
{
	enum { LEN = 3 * SCAN_BUF_BYTES };
	static char a[LEN + 1], b[LEN + 1];

	(void)state;
	for (size_t i = 0; i < LEN; i++)
		a[i] = i % 7 == 6 ? '+' : 'a';
	memcpy(b, a, LEN);
	for (size_t i = 0; i < LEN; i += 61) {
		char was = b[i];

		b[i] = was == 'a' ? 'A' : was;
		assert_true(same_shape(a, b));
		b[i] = was == 'a' ? 'b' : 'c';
		assert_false(same_shape(a, b));
		b[i] = was;
	}
	memset(a, 'Q', LEN); /* one name longer than the buffer */
	memset(b, 'q', LEN);
	assert_true(same_shape(a, b));
	b[LEN - 1] = 'r';
	assert_false(same_shape(a, b));
}

static void
scan_sql__literals__in_place(void **state)
{
	const char *sql = "select 'a', $2 from t where x = -42 and y = U&'z' uescape '!' and z = $tag$q$tag$";
	const struct scan_literal *l;

	(void)state;
	assert_int_equal(scan_sql(sql, strlen(sql), 0, &scan), 0);
	assert_int_equal(scan.n_literals, 5);
	l = scan.literals;
	assert_true(l[0].kind == SCAN_LIT_STRING && l[0].off == 7 && l[0].len == 3);
	assert_true(l[1].kind == SCAN_PARAM && l[1].off == 12 && l[1].len == 2);
	assert_true(l[2].kind == SCAN_LIT_INT && l[2].off == 33 && l[2].len == 2);
	assert_true(l[3].kind == SCAN_LIT_USTRING && l[3].off == 44 && l[3].len == 5 && l[3].flags == SCAN_LIT_UESCAPE);
	assert_true(l[4].kind == SCAN_LIT_DOLLAR && l[4].off == 70 && l[4].len == 11 && l[4].flags == 0);
	assert_int_equal(scan_literal_at(&scan, 0), 0);
	assert_int_equal(scan_literal_at(&scan, 7), 0);
	assert_int_equal(scan_literal_at(&scan, 32), 2); /* where the parser puts -42 */
	assert_int_equal(scan_literal_at(&scan, 71), 5);
	assert_int_equal(sizeof(struct scan_literal), 12);
}

static void
scan_sql__many_literals__all_kept_and_array_reused(void **state)
{
	enum { N = 100 };
	char sql[8 * N];
	size_t n = 0;

	(void)state;
	for (int i = 0; i < N; i++)
		n += (size_t)snprintf(sql + n, sizeof(sql) - n, "%d,", i);
	assert_int_equal(scan_sql(sql, n, 0, &scan), 0);
	assert_int_equal(scan.n_literals, N);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(strtol(sql + scan.literals[i].off, NULL, 10), i);
	const struct scan_literal *grown = scan.literals;

	assert_int_equal(scan_sql("1", 1, 0, &scan), 0);
	assert_int_equal(scan.n_literals, 1);
	assert_ptr_equal(scan.literals, grown);
}

static uint32_t
statements_in(const char *text)
{
	assert_int_equal(scan_sql(text, strlen(text), 0, &scan), 0);
	return scan.n_statements;
}

static void
scan_sql__statements__counted_where_they_end(void **state)
{
	(void)state;
	assert_int_equal(statements_in(" -- nothing\n"), 0);
	assert_int_equal(statements_in(";; ;"), 0);
	assert_int_equal(statements_in("select 1"), 1);
	assert_int_equal(statements_in(";begin;; select ';' ; commit;"), 3);
	assert_int_equal(statements_in("create rule r as on insert to t do (select 1; select 2); select 3"), 2);
	assert_int_equal(statements_in("create function f() returns int begin atomic select case 1 when 1 then 2 end; "
	                               "select 2; end; select 3"), 2);
	assert_int_equal(statements_in("create table atomic(); begin; atomic; end"), 4);
}

static void
scan_sql__first_word_and_hint__placed(void **state)
{
	const char *sql = "/* no */ ((Select a)) /* pgspan: shard=2 */ -- pgdog_shard: 1\n /*pgdog_shard: 3*/";

	(void)state;
	assert_int_equal(scan_sql(sql, strlen(sql), 0, &scan), 0);
	assert_int_equal(scan.first_word.off, 11);
	assert_int_equal(scan.first_word.len, 6);
	assert_int_equal(scan.n_hints, 2);
	assert_int_equal(scan.hint.off, 24);
	assert_int_equal(scan.hint.len, 17);
	assert_memory_equal(sql + scan.hint.off, " pgspan: shard=2 ", 17);
	assert_int_equal(scan_sql("1", 1, 0, &scan), 0);
	assert_int_equal(scan.n_hints + scan.hint.len + scan.first_word.len, 0);
}

/* The value of the text's one literal; NULL for none. */
static const char *
value_of(const char *text, unsigned flags)
{
	static char out[256];
	ssize_t n;

	assert_int_equal(scan_sql(text, strlen(text), flags, &scan), 0);
	assert_int_equal(scan.n_literals, 1);
	n = scan_literal_text(text, &scan.literals[0], flags, out, scan.literals[0].len);
	if (n < 0)
		return NULL;
	out[n] = '\0';
	return out;
}

static void
scan_literal_text__well_formed__value(void **state)
{
	static const char *const pairs[][2] = {
		{"'it''s'", "it's"}, {"''", ""}, {"''''", "'"}, {"'a\\n'", "a\\n"}, {"'a' --'x'\n'b'\n\n''", "ab"},
		{"E'\\b\\f\\n\\r\\t\\\\\\'\\\"\\9''\\q'", "\b\f\n\r\t\\'\"9'q"}, {"E'\\101\\x41\\x4g\\xZ\\7'", "AA\x04gxZ\a"},
		{"E'\\u00e9\\U0001F600\\uD83D\\uDE00'", "\xc3\xa9\xf0\x9f\x98\x80\xf0\x9f\x98\x80"}, {"E'\\xc3\\251'", "\xc3\xa9"},
		{"E'\\\xc3\xa9'", "\xc3\xa9"}, {"E'a'\n'\\t'", "a\t"},
		{"U&'d\\0061t\\+000061\\\\'''", "data\\'"}, {"U&'\\D83D\\DE00'", "\xf0\x9f\x98\x80"}, {"U&'\\D83D'\n'\\DE00'", "\xf0\x9f\x98\x80"},
		{"$$a''\\b$$", "a''\\b"}, {"$t$$$$t$", "$$"}, {"$$$$", ""}, {"N'x'", "x"},
		{"0042", "0042"}, {"1.50", "1.50"}, {"9999999999", "9999999999"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		const char *value = value_of(pairs[i][0], 0);

		if (!value || strcmp(value, pairs[i][1]) != 0)
			fail_msg("%s: %s", pairs[i][0], value ? value : "(none)");
	}
	assert_string_equal(value_of("'a\\'b\\n'", SCAN_SCS_OFF), "a'b\n");
}

static void
scan_literal_text__doubtful__left_to_postgresql(void **state)
{
	static const char *const texts[] = {"E'\\u00'", "E'\\u0000'", "E'\\0'", "E'\\x00'", "E'\\uD83D'", "E'\\uDE00'", "E'\\uD83Dx'",
		"E'\\uD83D\\n'", "E'\\uD83D\\u0041'", "E'\\uD83D\\uD83D\\uDE00'", "U&'\\D83D\\0041'", "E'\\uD83D'\n'\\uDE00'", "E'\\U00110000'", "E'\\UFFFFFFFF'", "E'\\xff'", "E'\\377'", "E'\\xc3'", "E'\\xed\\xa0\\x80'",
		"E'\\xc0\\x80'", "E'\\xf4\\x90\\x80\\x80'", "E'\\\xff'", "E'\\v'", "U&'\\1'", "U&'\\D83D'", "U&'\\D83D\\\\'", "U&'\\0000'",
		"U&'\\+110000'", "U&'!0061' uescape '!'", "B'01'", "X'ff'", "$1"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (value_of(texts[i], 0))
			fail_msg("%s: %s", texts[i], value_of(texts[i], 0));
	assert_null(value_of("U&'x'", SCAN_SCS_OFF));
}

static void
scan_literal_text__no_room__refused(void **state)
{
	char out[3];

	(void)state;
	assert_int_equal(scan_sql("'abcd'", 6, 0, &scan), 0);
	assert_int_equal(scan_literal_text("'abcd'", &scan.literals[0], 0, out, 3), -1);
	assert_int_equal(scan_sql("1234", 4, 0, &scan), 0);
	assert_int_equal(scan_literal_text("1234", &scan.literals[0], 0, out, 3), -1);
	assert_int_equal(scan_sql("$a$", 3, 0, &scan), -1);
	assert_int_equal(scan_literal_text("$a$", &scan.literals[0], 0, out, 3), -1);
	assert_int_equal(scan_sql("'abc'", 5, 0, &scan), 0);
	assert_int_equal(scan_literal_text("'abc'", &scan.literals[0], 0, out, 3), 3);
}

static void
scan_sql__depth__bounded_stack(void **state)
{
	enum { LEN = 4 << 20 };
	char *sql = xmalloc(LEN);

	(void)state;
	for (size_t i = 0; i < LEN; i++)
		sql[i] = "/*"[i & 1];
	assert_int_equal(scan_sql(sql, LEN, 0, &scan), -1);
	memset(sql, '(', LEN);
	assert_int_equal(scan_sql(sql, LEN, 0, &scan), 0);
	assert_int_equal(scan.n_statements, 1);
	free(sql);
}

static void
scan_is_word__case_and_length__exact(void **state)
{
	struct scan_iter it;
	struct scan_token tok;

	(void)state;
	scan_iter_init(&it, "BeGin \"begin\"", 13, 0);
	assert_true(scan_next(&it, &tok));
	assert_true(scan_is_word("BeGin", &tok, "begin"));
	assert_false(scan_is_word("BeGin", &tok, "beg"));
	assert_false(scan_is_word("BeGin", &tok, "begins"));
	assert_true(scan_next(&it, &tok));
	assert_false(scan_is_word("BeGin \"begin\"", &tok, "begin"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scan_next__identifiers__whole),
		cmocka_unit_test(scan_next__strings__by_prefix),
		cmocka_unit_test(scan_next__newline_between_strings__one_literal),
		cmocka_unit_test(scan_next__dollar_quotes__by_tag),
		cmocka_unit_test(scan_next__numbers__by_type),
		cmocka_unit_test(scan_next__operators__longest_without_sign_or_comment),
		cmocka_unit_test(scan_next__comments__nested_and_skipped),
		cmocka_unit_test(scan_sql__unterminated__said),
		cmocka_unit_test(scan_sql__values_blanks_case__same_shape),
		cmocka_unit_test(scan_sql__anything_else__other_shape),
		cmocka_unit_test(scan_sql__longer_than_buffer__every_byte_counts),
		cmocka_unit_test(scan_sql__literals__in_place),
		cmocka_unit_test(scan_sql__many_literals__all_kept_and_array_reused),
		cmocka_unit_test(scan_sql__statements__counted_where_they_end),
		cmocka_unit_test(scan_sql__first_word_and_hint__placed),
		cmocka_unit_test(scan_literal_text__well_formed__value),
		cmocka_unit_test(scan_literal_text__doubtful__left_to_postgresql),
		cmocka_unit_test(scan_literal_text__no_room__refused),
		cmocka_unit_test(scan_sql__depth__bounded_stack),
		cmocka_unit_test(scan_is_word__case_and_length__exact),
	};
	scan_init(&scan);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	scan_fini(&scan);
	return failed;
}
