/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/auth.o proxy/proto/scram.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o proxy/base/arena.o */
#include "unit.h"

#include "pgspan/auth.h"

#define VERIFIER                                                                                           \
	"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"          \
	"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

static const char file_text[] = "; users\n"
				"\n"
				"\"plain\" \"pw\"\r\n"
				"  \"q\"\"q\"\t\"a\"\"b\" ignored\n"
				"\"hashed\" \"md51a1e6ee20b1a4d4a0a10f9a2bbec3cc8\"\n"
				"\"scram\" \"" VERIFIER "\"\n"
				"\"empty\" \"\"";

static const unsigned char process_key[SCRAM_KEY_BYTES] = {9};
static struct userlist *users;

static int
setup(void **state)
{
	struct diag d = {0};

	(void)state;
	users = userlist_parse(SPAN_LIT(file_text), &d);
	return users ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	userlist_unref(users);
	return 0;
}

static const struct auth_user *
find(const char *name)
{
	return userlist_find(users, span_str(name));
}

static void
userlist_parse__all_kinds__found(void **state)
{
	(void)state;
	assert_int_equal(userlist_count(users), 5);
	assert_string_equal(auth_user_secret(find("plain")), "pw");
	assert_string_equal(auth_user_secret(find("q\"q")), "a\"b");
	assert_int_equal(auth_user_kind(find("plain")), AUTH_SECRET_PLAIN);
	assert_int_equal(auth_user_kind(find("hashed")), AUTH_SECRET_MD5);
	assert_int_equal(auth_user_kind(find("scram")), AUTH_SECRET_SCRAM);
	assert_null(find("nobody"));
	assert_null(find(""));
	assert_null(find("plai"));
}

static void
userlist_parse__faults__named_with_their_line(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{"\n\"u\"", "line 2: expected \"user\" \"password\""},
		{"u p", "line 1: expected \"user\" \"password\""},
		{"\"u\" \"p", "line 1: expected \"user\" \"password\""},
		{"\"u\" \"p\"w\"", "line 1: expected \"user\" \"password\""},
		{"\"u\"\n\"p\"", "line 1: expected \"user\" \"password\""},
		{"\"\" \"p\"", "line 1: the user name is empty"},
		{"\"u\" \"p\"\n\n\"u\" \"q\"\n", "line 3: user \"u\" is already in line 1"},
		{"\"u\" \"SCRAM-SHA-256$4096:x\"", "line 1: malformed SCRAM-SHA-256 verifier"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct diag d = {0};

		assert_null(userlist_parse(span_str(cases[i].text), &d));
		assert_string_equal(d.sqlstate, "F0000");
		assert_string_equal(d.message, cases[i].message);
	}
}

static void
auth_check_cleartext__by_kind__right_and_wrong(void **state)
{
	char md5[AUTH_MD5_BYTES];
	char text[64];
	struct diag d = {0};
	struct userlist *ul;

	(void)state;
	assert_true(auth_check_cleartext(find("plain"), SPAN_LIT("pw")));
	assert_false(auth_check_cleartext(find("plain"), SPAN_LIT("pW")));
	assert_false(auth_check_cleartext(find("plain"), SPAN_LIT("pw\0")));
	assert_true(auth_check_cleartext(find("scram"), SPAN_LIT("pencil")));
	assert_false(auth_check_cleartext(find("scram"), SPAN_LIT("pencils")));
	assert_false(auth_check_cleartext(find("empty"), SPAN_NONE));
	assert_int_equal(auth_md5_secret(SPAN_LIT("pencil"), SPAN_LIT("u"), md5), RC_OK);
	snprintf(text, sizeof text, "\"u\" \"%s\"", md5);
	ul = userlist_parse(span_str(text), &d);
	assert_true(auth_check_cleartext(userlist_find(ul, SPAN_LIT("u")), SPAN_LIT("pencil")));
	/* The verifier is not the password. */
	assert_false(auth_check_cleartext(userlist_find(ul, SPAN_LIT("u")), span_str(md5)));
	userlist_unref(ul);
}

/* Digests from md5sum(1). */
static void
auth_check_md5__responses__exact(void **state)
{
	static const unsigned char salt[4] = {'s', 'a', 'l', 't'};
	char secret[AUTH_MD5_BYTES], response[AUTH_MD5_BYTES];

	(void)state;
	assert_int_equal(auth_md5_secret(SPAN_LIT("pw"), SPAN_LIT("plain"), secret), RC_OK);
	assert_string_equal(secret, "md52764588a79def565d4fa23b2a89c87cd");
	assert_int_equal(auth_md5_response(secret, salt, response), RC_OK);
	assert_string_equal(response, "md52e9ff96ab56eeca7e599f46837bb7a08");
	assert_true(auth_check_md5(find("plain"), salt, span_str(response)));
	assert_false(auth_check_md5(find("plain"), (const unsigned char *)"tlas", span_str(response)));
	assert_false(auth_check_md5(find("plain"), salt, SPAN_NONE));
	assert_false(auth_check_md5(find("scram"), salt, span_str(response)));
	memcpy(secret, auth_user_secret(find("hashed")), AUTH_MD5_BYTES);
	assert_int_equal(auth_md5_response(secret, salt, response), RC_OK);
	assert_true(auth_check_md5(find("hashed"), salt, span_str(response)));
	assert_int_equal(auth_md5_secret(SPAN_NONE, SPAN_LIT("empty"), secret), RC_OK);
	assert_int_equal(auth_md5_response(secret, salt, response), RC_OK);
	assert_false(auth_check_md5(find("empty"), salt, span_str(response)));
}

static void
auth_user_scram__kinds__derived_once_or_none(void **state)
{
	const struct scram_secret *s = auth_user_scram(find("plain"), process_key);

	(void)state;
	assert_non_null(s);
	assert_ptr_equal(auth_user_scram(find("plain"), process_key), s);
	assert_true(scram_secret_matches(s, SPAN_LIT("pw")));
	assert_non_null(auth_user_scram(find("scram"), process_key));
	assert_null(auth_user_scram(find("hashed"), process_key));
	assert_null(auth_user_scram(find("empty"), process_key));
}

static void
userlist_ref__two_owners__last_frees(void **state)
{
	struct userlist *second = userlist_ref(users);

	(void)state;
	userlist_unref(second);
	assert_non_null(find("plain"));
	userlist_unref(NULL);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(userlist_parse__all_kinds__found),
		TEST(userlist_parse__faults__named_with_their_line),
		TEST(auth_check_cleartext__by_kind__right_and_wrong),
		TEST(auth_check_md5__responses__exact),
		TEST(auth_user_scram__kinds__derived_once_or_none),
		TEST(userlist_ref__two_owners__last_frees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
