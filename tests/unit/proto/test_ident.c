/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/ident.o proxy/base/arena.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
#include "unit.h"

#include "pgspan/ident.h"

static struct ident_maps *
maps(const char *text)
{
	struct diag d = {0};
	struct ident_maps *m = ident_parse(span_str(text), &d);
	if (!m)
		fail_msg("%s", d.message);
	return m;
}

static void
ident_allows__lines__as_written(void **state)
{
	(void)state;
	struct ident_maps *m = maps("# comment\n\n  staff  \"Jane \"\"J\"\" Doe\" jane # her\nstaff jane jane\nstaff boss all\nstaff odd \"all\"\n"
	                            "other joe joe");
	static const struct {
		const char *map, *name, *user;
		bool allowed;
	} cases[] = {
		{"staff", "Jane \"J\" Doe", "jane", true}, {"staff", "jane", "jane", true},  {"staff", "jane", "joe", false},
		{"staff", "Jane", "jane", false},          {"staff", "boss", "anyone", true}, {"staff", "odd", "anyone", false},
		{"staff", "odd", "all", true},             {"staff", "joe", "joe", false},   {"other", "joe", "joe", true},
		{"none", "joe", "joe", false},             {"staff", "", "", false},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (ident_allows(m, cases[i].map, cases[i].name, cases[i].user) != cases[i].allowed)
			fail_msg("%s %s %s", cases[i].map, cases[i].name, cases[i].user);
	assert_true(ident_has(m, "other"));
	assert_false(ident_has(m, "oth"));
	ident_free(m);
}

static void
ident_allows__regular_expression__first_group_replaces(void **state)
{
	(void)state;
	struct ident_maps *m = maps("m /^([a-z]+)\\.corp$ u_\\1_x\nm /^any$ all\nm \"/^fixed( one)?$\" fixed\nm \"/^no(pe)?$\" \\1\n");
	assert_true(ident_allows(m, "m", "jane.corp", "u_jane_x"));
	assert_false(ident_allows(m, "m", "jane.corp", "u_jane_xx"));
	assert_false(ident_allows(m, "m", "jane.corp", "u_jan_x"));
	assert_false(ident_allows(m, "m", "jane.corps", "u_jane_x"));
	assert_false(ident_allows(m, "m", "jane.corp", "jane"));
	assert_true(ident_allows(m, "m", "any", "x"));
	assert_true(ident_allows(m, "m", "fixed one", "fixed"));
	assert_true(ident_allows(m, "m", "nope", "pe"));
	assert_false(ident_allows(m, "m", "no", ""));
	ident_free(m);
}

static void
ident_parse__mistakes__told_with_their_line(void **state)
{
	(void)state;
	static const struct {
		const char *text, *message;
	} cases[] = {
		{"a b c\na b\n", "line 2: expected a map's name, a certificate's name and a user"},
		{"a b c d\n", "line 1: expected a map's name, a certificate's name and a user"},
		{"a \"b c\n", "line 1: expected a map's name, a certificate's name and a user"},
		{"a \"b\"c d\n", "line 1: expected a map's name, a certificate's name and a user"},
		{"a b c \"d\n", "line 1: expected a map's name, a certificate's name and a user"},
		{"a /( c\n", "line 1: Unmatched ( or \\( in the regular expression"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct diag d = {0};
		assert_null(ident_parse(span_str(cases[i].text), &d));
		assert_string_equal(d.message, cases[i].message);
	}
	struct diag d = {0};
	assert_null(ident_parse(SPAN_LIT("a b\0 c"), &d));
	ident_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ident_allows__lines__as_written),
		cmocka_unit_test(ident_allows__regular_expression__first_group_replaces),
		cmocka_unit_test(ident_parse__mistakes__told_with_their_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
