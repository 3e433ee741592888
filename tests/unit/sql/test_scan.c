/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/sql/scan.o proxy/sql/scan_literal.o proxy/base/mem.o proxy/base/log.o */
/* test_scan - exact tokens, shapes and literal values. That the boundaries are PostgreSQL's own is fuzz_scan's affair. */
#include "pgspan/scan.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* The tokens of *sql*, each in < >. */
static void
check_tokens(const char *sql, unsigned flags, const char *want)
{
	struct scan_iter it;
	struct scan_token t;
	char got[1024];
	size_t n = 0;
	scan_iter_init(&it, sql, strlen(sql), flags);
	while (scan_next(&it, &t))
		n += (size_t)snprintf(got + n, sizeof got - n, "<%.*s>", (int)t.len, sql + t.off);
	got[n] = '\0';
	assert_string_equal(got, want);
}

static void
scan_next__every_kind__has_postgresqls_boundaries(void **state)
{
	(void)state;
	check_tokens("SELECT a.b, $1::int8", 0, "<SELECT><a><.><b><,><$1><::><int8>");
	check_tokens("'it''s' E'a\\'b' U&'\\0041' b'01' X'ff' $$a'b$$ $t$x$$y$t$", 0,
	    "<'it''s'><E'a\\'b'><U&'\\0041'><b'01'><X'ff'><$$a'b$$><$t$x$$y$t$>");
	check_tokens("1 1.5 .5 1. 1e10 1..10 2147483648", 0, "<1><1.5><.5><1.><1e10><1><..><10><2147483648>");
	check_tokens("a>=b<>c!=d:=e=>f", 0, "<a><>=><b><<>><c><!=><d><:=><e><=>><f>");
	/* Trailing + and - are cut unless the operator has one of ~ ! @ # ^ & | ` ? % */
	check_tokens("a=-1 b@-1 c*+d", 0, "<a><=><-><1><b><@-><1><c><*><+><d>");
	check_tokens("a --x\n b /* c /* d */ e */ f", 0, "<a><b><f>");
	check_tokens("a+--x\nb */* y */c", 0, "<a><+><b><*><c>");
	check_tokens("'a'\n 'b' 'c'", 0, "<'a'\n 'b'><'c'>");
	check_tokens("\"Ab\"\"c\" x$1 \xc3\xa4", 0, "<\"Ab\"\"c\"><x$1><\xc3\xa4>");
	check_tokens("", 0, "");
}

static void
scan_next__standard_conforming_strings__says_what_a_backslash_is(void **state)
{
	(void)state;
	check_tokens("'a\\' b", 0, "<'a\\'><b>");
	check_tokens("'a\\' b'", SCAN_SCS_OFF, "<'a\\' b'>");
}

struct shape {
	uint64_t h[2];
};

static struct shape
shape_of(const char *sql)
{
	struct scan s;
	scan_init(&s);
	assert_int_equal(scan_sql(sql, strlen(sql), 0, &s), 0);
	struct shape h = {{s.shape[0], s.shape[1]}};
	scan_fini(&s);
	return h;
}

static bool
same_shape(const char *a, const char *b)
{
	struct shape x = shape_of(a), y = shape_of(b);
	return memcmp(&x, &y, sizeof x) == 0;
}

static void
scan_sql__shape__forgets_values_space_and_case_only(void **state)
{
	(void)state;
	assert_true(same_shape("SELECT 1", "select /* x */ 42 -- y"));
	assert_true(same_shape("select 'a'", "SELECT\n'much longer''s'"));
	assert_false(same_shape("select 1", "select '1'"));
	assert_false(same_shape("select 1", "select $1"));
	assert_false(same_shape("select $1", "select $2"));
	assert_false(same_shape("select 1", "select -1"));
	assert_false(same_shape("select 1", "select 1, 1"));
	assert_false(same_shape("select a", "select \"A\""));
	assert_false(same_shape("select ab", "select a b"));
	assert_false(same_shape("select null", "select true"));
	assert_false(same_shape("select 1", "select 1.0"));
	assert_false(same_shape("select a from t", "select a from u"));
	assert_false(same_shape("select 'a'", "select E'a'"));
}

static void
scan_sql__counts__statements_hints_and_first_word(void **state)
{
	(void)state;
	struct scan s;
	scan_init(&s);
	const char *sql = ";; (select 1); /* pgspan: shard=2 */ update t set a = 'x;y';";
	assert_int_equal(scan_sql(sql, strlen(sql), 0, &s), 0);
	assert_int_equal(s.n_statements, 2);
	assert_int_equal(s.n_hints, 1);
	assert_memory_equal(sql + s.first_word.off, "select", 6);
	assert_int_equal(s.n_literals, 2);
	assert_int_equal(s.literals[1].off, 54);
	assert_int_equal(s.literals[1].len, 5);
	assert_int_equal(scan_literal_at(&s, 40), 1);
	sql = "/* nothing */ ;";
	assert_int_equal(scan_sql(sql, strlen(sql), 0, &s), 0);
	assert_int_equal(s.n_statements, 0);
	scan_fini(&s);
}

static void
scan_sql__unterminated__is_told(void **state)
{
	(void)state;
	static const char *const texts[] = {"select 'a", "select \"a", "select $$a", "select $x$a$y$", "select 1 /* /* */", "select E'a\\'"};
	struct scan s;
	scan_init(&s);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		assert_int_equal(scan_sql(texts[i], strlen(texts[i]), 0, &s), -1);
		assert_true(s.found & SCAN_UNTERMINATED);
	}
	scan_fini(&s);
}

static void
scan_sql__half_a_million_literals__all_noted(void **state)
{
	(void)state;
	enum { N = 500000 };
	char *sql = xmalloc(N * 8 + 64);
	size_t n = (size_t)snprintf(sql, 64, "select * from t where a in (0");
	for (int i = 1; i < N; i++)
		n += (size_t)snprintf(sql + n, 16, ",%d", i);
	sql[n++] = ')';
	struct scan s;
	scan_init(&s);
	assert_int_equal(scan_sql(sql, n, 0, &s), 0);
	assert_int_equal(s.n_literals, N);
	assert_memory_equal(sql + s.literals[N - 1].off, "499999)", 7);
	/* And the next, small text is as before. */
	assert_int_equal(scan_sql("select 1", 8, 0, &s), 0);
	assert_int_equal(s.n_literals, 1);
	scan_fini(&s);
	free(sql);
}

static void
check_value(const char *literal, unsigned flags, const char *want)
{
	struct scan s;
	char out[256];
	scan_init(&s);
	assert_int_equal(scan_sql(literal, strlen(literal), flags, &s), 0);
	assert_int_equal(s.n_literals, 1);
	ssize_t n = scan_literal_text(literal, &s.literals[0], flags, out, sizeof out);
	if (want) {
		assert_int_equal(n, strlen(want));
		assert_memory_equal(out, want, (size_t)n);
	} else {
		assert_int_equal(n, -1);
	}
	scan_fini(&s);
}

static void
scan_literal_text__every_spelling__is_one_value(void **state)
{
	(void)state;
	check_value("'x'", 0, "x");
	check_value("E'\\x78'", 0, "x");
	check_value("E'\\170'", 0, "x");
	check_value("E'\\u0078'", 0, "x");
	check_value("U&'\\0078'", 0, "x");
	check_value("$$x$$", 0, "x");
	check_value("$q$x$q$", 0, "x");
	check_value("'it''s'", 0, "it's");
	check_value("'a\\n'", 0, "a\\n");
	check_value("'a\\n'", SCAN_SCS_OFF, "a\n");
	check_value("E'\\U0001F418'", 0, "\xf0\x9f\x90\x98");
	check_value("U&'\\D83D\\DC18'", 0, "\xf0\x9f\x90\x98");
	check_value("'a'\n'b'", 0, "ab");
	check_value("''", 0, "");
	check_value("042", 0, "042");
	check_value("E'\\u00'", 0, NULL);
	check_value("U&'\\zz'", 0, NULL);
	check_value("X'41'", 0, NULL);
	check_value("$1", 0, NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(scan_next__every_kind__has_postgresqls_boundaries),
	    cmocka_unit_test(scan_next__standard_conforming_strings__says_what_a_backslash_is),
	    cmocka_unit_test(scan_sql__shape__forgets_values_space_and_case_only),
	    cmocka_unit_test(scan_sql__counts__statements_hints_and_first_word),
	    cmocka_unit_test(scan_sql__unterminated__is_told),
	    cmocka_unit_test(scan_sql__half_a_million_literals__all_noted),
	    cmocka_unit_test(scan_literal_text__every_spelling__is_one_value),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
