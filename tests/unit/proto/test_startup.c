/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/startup.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o proxy/base/arena.o */
#include "unit.h"

#include "pgspan/startup.h"

static struct arena arena;
static struct startup s;
static struct diag d;

static int
setup(void **state)
{
	(void)state;
	arena_init(&arena);
	d = (struct diag){0};
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	arena_fini(&arena);
	return 0;
}

/* Decodes a packet of *code* and *body* from memory of its exact size. */
static enum rc
decode(uint32_t code, const char *body, size_t n)
{
	unsigned char *p = malloc(n + 8);
	enum rc r;

	wire_store_u32(p, (uint32_t)n + 8);
	wire_store_u32(p + 4, code);
	memcpy(p + 8, body, n);
	assert_int_equal(startup_peek(p, n + 7), 0);
	assert_int_equal(startup_peek(p, n + 8), n + 8);
	r = startup_decode(p, n + 8, &arena, &s, &d);
	s.cancel_key.p = NULL; /* borrowed from what is freed now */
	free(p);
	return r;
}
#define DECODE(code, lit) decode((code), (lit), sizeof(lit) - 1)

static void
startup_peek__lengths__bounded(void **state)
{
	(void)state;
	assert_int_equal(startup_peek("\0\0\0", 3), 0);
	assert_int_equal(startup_peek("\0\0\0\x07", 4), STARTUP_BAD_LENGTH);
	assert_int_equal(startup_peek("\0\0\x27\x14", 4), 0);
	assert_int_equal(startup_peek("\0\0\x27\x15", 4), STARTUP_BAD_LENGTH);
	assert_int_equal(startup_peek("GET ", 4), STARTUP_BAD_LENGTH);
}

static void
startup_decode__parameters__settings_in_order(void **state)
{
	(void)state;
	assert_int_equal(DECODE(0x30000, "user\0u\0DateStyle\0ISO\0options\0-c a=1 --b-c=x\\ y -cd=\0TimeZone\0UTC\0\0"), RC_OK);
	assert_int_equal(s.kind, STARTUP_MESSAGE);
	assert_string_equal(s.user, "u");
	assert_string_equal(s.database, "u");
	assert_int_equal(s.replication, REPLICATION_NONE);
	assert_int_equal(s.n_settings, 5);
	assert_string_equal(s.settings[0].name, "a");
	assert_string_equal(s.settings[0].value, "1");
	assert_string_equal(s.settings[1].name, "b_c");
	assert_string_equal(s.settings[1].value, "x y");
	assert_string_equal(s.settings[2].name, "d");
	assert_string_equal(s.settings[2].value, "");
	assert_string_equal(s.settings[3].name, "DateStyle");
	assert_string_equal(s.settings[4].name, "TimeZone");
	assert_false(startup_needs_negotiation(&s));
}

static void
startup_decode__newer_minor_and_pq_options__negotiated(void **state)
{
	(void)state;
	assert_int_equal(DECODE(0x30002, "user\0u\0database\0d\0_pq_.x\0001\0replication\0database\0\0"), RC_OK);
	assert_string_equal(s.database, "d");
	assert_int_equal(s.replication, REPLICATION_DATABASE);
	assert_int_equal(s.n_pq_options, 1);
	assert_string_equal(s.pq_options[0], "_pq_.x");
	assert_true(startup_needs_negotiation(&s));
	assert_int_equal(DECODE(0x30002, "user\0u\0\0"), RC_OK);
	assert_true(startup_needs_negotiation(&s));
	assert_int_equal(DECODE(0x30000, "user\0u\0replication\0off\0\0"), RC_OK);
	assert_int_equal(s.replication, REPLICATION_NONE);
	assert_false(startup_needs_negotiation(&s));
	assert_int_equal(DECODE(0x30000, "user\0u\0replication\0T\0\0"), RC_OK);
	assert_int_equal(s.replication, REPLICATION_PHYSICAL);
}

static void
expect_failure(enum rc r, const char *sqlstate, const char *message)
{
	assert_int_equal(r, RC_FAIL);
	assert_string_equal(d.sqlstate, sqlstate);
	assert_string_equal(d.message, message);
	diag_clear(&d);
}

static void
startup_decode__faults__postgresql_words(void **state)
{
	static const char layout[] = "invalid startup packet layout: expected terminator as last byte";
	static const char no_user[] = "no PostgreSQL user name specified in startup packet";

	(void)state;
	expect_failure(DECODE(0x30000, "\0"), "28000", no_user);
	expect_failure(DECODE(0x30000, "user\0\0\0"), "28000", no_user);
	expect_failure(DECODE(0x30000, ""), "08P01", layout);
	expect_failure(DECODE(0x30000, "user\0u\0"), "08P01", layout);
	expect_failure(DECODE(0x30000, "user\0u"), "08P01", layout);
	expect_failure(DECODE(0x30000, "user\0u\0\0x"), "08P01", layout);
	expect_failure(DECODE(0x30000, "user\0u\0x\0\0"), "08P01", layout);
	expect_failure(DECODE(0x30000, "user\0u\0\0x\0\0"), "08P01", layout); /* an empty name ends the list */
	expect_failure(DECODE(0x20000, "\0"), "0A000", "unsupported frontend protocol 2.0: server supports 3.0 to 3.0");
	expect_failure(DECODE(0x30000, "user\0u\0replication\0o\0\0"), "22023", "invalid value for parameter \"replication\": \"o\"");
	expect_failure(DECODE(0x30000, "user\0u\0options\0-c a\0\0"), "42601", "-c a requires a value");
	expect_failure(DECODE(0x30000, "user\0u\0options\0--a\0\0"), "42601", "--a requires a value");
	expect_failure(DECODE(0x30000, "user\0u\0options\0-c\0\0"), "42601", "-c requires a value");
	expect_failure(DECODE(0x30000, "user\0u\0options\0-W 3\0\0"), "0A000",
		       "command-line option \"-W\" in \"options\" is not supported");
	expect_failure(DECODE(80877103, "x"), "08P01", "invalid length of encryption request packet");
	expect_failure(DECODE(80877102, "\0\0\0\1abc"), "08P01", "invalid length of cancel request packet");
}

static void
startup_decode__every_prefix__refused(void **state)
{
	static const char body[] = "user\0u\0database\0d\0options\0-c a=1\0\0";

	(void)state;
	for (size_t n = 0; n < sizeof body - 1; n++) {
		assert_int_equal(decode(0x30000, body, n), RC_FAIL);
		diag_clear(&d);
	}
	assert_int_equal(decode(0x30000, body, sizeof body - 1), RC_OK);
}

static void
startup_decode__many_short_options__all_there(void **state)
{
	(void)state;
	assert_int_equal(DECODE(0x30000, "user\0u\0options\0--= --= --= --= --=\0\0"), RC_OK);
	assert_int_equal(s.n_settings, 5);
	assert_int_equal(DECODE(0x30000, "user\0u\0options\0 \\\0\0"), RC_FAIL);
}

static void
startup_decode__requests__kinds(void **state)
{
	(void)state;
	assert_int_equal(DECODE(80877103, ""), RC_OK);
	assert_int_equal(s.kind, STARTUP_SSL_REQUEST);
	assert_int_equal(DECODE(80877104, ""), RC_OK);
	assert_int_equal(s.kind, STARTUP_GSSENC_REQUEST);
	assert_int_equal(DECODE(80877102, "\0\0\1\2abcd"), RC_OK);
	assert_int_equal(s.kind, STARTUP_CANCEL_REQUEST);
	assert_int_equal(s.cancel_pid, 258);
	assert_int_equal(s.cancel_key.n, 4);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(startup_peek__lengths__bounded),
		TEST(startup_decode__parameters__settings_in_order),
		TEST(startup_decode__newer_minor_and_pq_options__negotiated),
		TEST(startup_decode__faults__postgresql_words),
		TEST(startup_decode__every_prefix__refused),
		TEST(startup_decode__many_short_options__all_there),
		TEST(startup_decode__requests__kinds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
