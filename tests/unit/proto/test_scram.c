/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/scram.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
#include "unit.h"

#include "pgspan/scram.h"

/* The exchange of RFC 7677, section 3. */
#define RFC_FIRST "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define RFC_NONCE "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define RFC_SERVER_FIRST "r=" RFC_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define RFC_FINAL "c=biws,r=" RFC_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define RFC_SERVER_FINAL "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static const unsigned char rfc_salt[16] = {0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e,
					   0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81};
static const unsigned char process_key[SCRAM_KEY_BYTES] = {1, 2, 3};

static struct scram_secret secret; /* of "pencil" */
static struct scram s;
static struct wbuf out;
static struct diag d;

static int
derive(void **state)
{
	(void)state;
	return scram_secret_from_password(SPAN_LIT("pencil"), rfc_salt, sizeof rfc_salt, 4096, &secret) == RC_OK ? 0 : -1;
}

static int
setup(void **state)
{
	(void)state;
	d = (struct diag){0};
	assert_int_equal(scram_begin(&s, &secret, SPAN_LIT("user"), process_key), RC_OK);
	memcpy(s.server_nonce, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", 31);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	scram_fini(&s);
	wbuf_fini(&out);
	return 0;
}

static enum rc
first(const char *message)
{
	return scram_client_first(&s, span_str(message), &out, &d);
}

static enum rc
final(const char *message)
{
	return scram_client_final(&s, span_str(message), &out, &d);
}

static void
scram__rfc_7677__exact_bytes(void **state)
{
	(void)state;
	assert_int_equal(first(RFC_FIRST), RC_OK);
	assert_wbuf(&out, RFC_SERVER_FIRST);
	assert_int_equal(final(RFC_FINAL), RC_OK);
	assert_wbuf(&out, RFC_SERVER_FINAL);
	assert_int_equal(s.state, SCRAM_DONE);
}

static void
scram_client_final__wrong_proof__fails_without_diag(void **state)
{
	(void)state;
	assert_int_equal(first(RFC_FIRST), RC_OK);
	wbuf_clear(&out);
	assert_int_equal(final("c=biws,r=" RFC_NONCE ",p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), RC_FAIL);
	assert_false(diag_is_set(&d));
	assert_int_equal(out.n, 0);
	/* No second try. */
	assert_int_equal(final(RFC_FINAL), RC_FAIL);
	assert_int_equal(s.state, SCRAM_FAILED);
}

static void
scram_client_first__headers__as_specified(void **state)
{
	static const struct {
		const char *message, *sqlstate; /* NULL: accepted */
	} cases[] = {
		{"y,,n=,r=x", NULL},
		{"n,,n=u,r=x,e=1", NULL},
		{"p=tls-server-end-point,,n=,r=x", "28000"},
		{"n,a=u,n=,r=x", "0A000"},
		{"n,,m=1,n=,r=x", "0A000"},
		{"", "08P01"},
		{"n", "08P01"},
		{"n,", "08P01"},
		{"n,,", "08P01"},
		{"x,,n=,r=x", "08P01"},
		{"n,,n=", "08P01"},
		{"n,,n=,r=", "08P01"},
		{"n,,n=,r=x,", "08P01"},
		{"n,,n=,r=x y", "08P01"},
		{"n,,n=,r=\x7f", "08P01"},
		{"n,,r=x,n=", "08P01"},
		{"n,,n=,r=x,1=2", "08P01"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		setup(state);
		assert_int_equal(first(cases[i].message), cases[i].sqlstate ? RC_FAIL : RC_OK);
		assert_string_equal(d.sqlstate, cases[i].sqlstate ? cases[i].sqlstate : "");
	}
	setup(state);
	assert_int_equal(scram_client_first(&s, SPAN_LIT("n,,n=,r=x,e=\0"), &out, &d), RC_FAIL);
}

/* What is offered and chosen against the flag that the client begins with. */
static void
scram_client_first__binding_offered__flags_as_in_postgresql(void **state)
{
	static const struct {
		const char *mechanism, *message, *sqlstate; /* NULL: accepted */
	} cases[] = {
		{SCRAM_MECHANISM_PLUS, "p=tls-server-end-point,,n=,r=x", NULL},
		{SCRAM_MECHANISM, "n,,n=,r=x", NULL},
		{SCRAM_MECHANISM, "y,,n=,r=x", "28000"},
		{SCRAM_MECHANISM, "p=tls-server-end-point,,n=,r=x", "08P01"},
		{SCRAM_MECHANISM_PLUS, "n,,n=,r=x", "08P01"},
		{SCRAM_MECHANISM_PLUS, "y,,n=,r=x", "08P01"},
		{SCRAM_MECHANISM_PLUS, "p=tls-unique,,n=,r=x", "08P01"},
		{SCRAM_MECHANISM_PLUS, "p=tls-server-end-point", "08P01"},
		{SCRAM_MECHANISM_PLUS, "p=tls-server-end-point,a=u,n=,r=x", "0A000"},
		{SCRAM_MECHANISM_PLUS, "p=tls-server-end-pointx,,n=,r=x", "08P01"},
		{SCRAM_MECHANISM_PLUS, "p", "08P01"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		setup(state);
		scram_offer_binding(&s, SPAN_LIT("digest"));
		assert_true(scram_choose(&s, span_str(cases[i].mechanism)));
		assert_int_equal(first(cases[i].message), cases[i].sqlstate ? RC_FAIL : RC_OK);
		assert_string_equal(d.sqlstate, cases[i].sqlstate ? cases[i].sqlstate : "");
	}
	setup(state);
	assert_false(scram_choose(&s, SPAN_LIT(SCRAM_MECHANISM_PLUS)));
	assert_false(scram_choose(&s, SPAN_LIT("SCRAM-SHA-1")));
}

static void
scram_client_final__binding__must_be_the_certificates(void **state)
{
	/* base64 of "p=tls-server-end-point,,digest", and of the same with another digest */
	static const struct {
		const char *binding, *sqlstate;
	} cases[] = {
		{"cD10bHMtc2VydmVyLWVuZC1wb2ludCwsZGlnZXN0", ""}, /* the proof is wrong, no more */
		{"cD10bHMtc2VydmVyLWVuZC1wb2ludCwsZGlnZXNU", "28000"},
		{"cD10bHMtc2VydmVyLWVuZC1wb2ludCws", "28000"},
		{"biws", "28000"},
	};
	char message[256];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		setup(state);
		scram_offer_binding(&s, SPAN_LIT("digest"));
		assert_true(scram_choose(&s, SPAN_LIT(SCRAM_MECHANISM_PLUS)));
		assert_int_equal(first("p=tls-server-end-point,,n=,r=rOprNGfwEbeRWgbNEkqO"), RC_OK);
		snprintf(message, sizeof message, "c=%s,r=%s,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", cases[i].binding,
			 RFC_NONCE);
		assert_int_equal(final(message), RC_FAIL);
		assert_string_equal(d.sqlstate, cases[i].sqlstate);
	}
}

static void
scram_client_first__sizes__bounded(void **state)
{
	char text[3000];

	for (size_t n = 510; n < 516; n++) {
		setup(state);
		memcpy(text, "n,,n=,r=", 8);
		memset(text + 8, 'x', n);
		assert_int_equal(scram_client_first(&s, span_of(text, 8 + n), &out, &d), n <= 512 ? RC_OK : RC_FAIL);
	}
	for (size_t n = 2047; n < 2051; n++) {
		setup(state);
		memcpy(text, "n,,n=,r=x,e=", 12);
		memset(text + 12, 'x', n - 12);
		assert_int_equal(scram_client_first(&s, span_of(text, n), &out, &d), n <= 2048 ? RC_OK : RC_FAIL);
	}
}

static void
scram_client_final__every_prefix_and_fault__refused(void **state)
{
	static const char *const bad[] = {
		"c=eSws,r=" RFC_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"c=biws,r=x" RFC_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		RFC_FINAL ",e=1",
		RFC_FINAL ",",
		"c=biws,r=" RFC_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVR=", /* not canonical */
		"c=biws,r=" RFC_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		setup(state);
		assert_int_equal(first(RFC_FIRST), RC_OK);
		assert_int_equal(final(bad[i]), RC_FAIL);
		assert_string_equal(d.sqlstate, "08P01");
	}
	/* The header that c= repeats is the one that the client began with. */
	setup(state);
	assert_int_equal(first("y,,n=user,r=rOprNGfwEbeRWgbNEkqO"), RC_OK);
	assert_int_equal(final(RFC_FINAL), RC_FAIL);
	assert_string_equal(d.message, "unexpected SCRAM channel-binding attribute in client-final-message");
	for (size_t n = 0; n < sizeof RFC_FINAL - 1; n++) {
		char *cut = malloc(n ? n : 1);

		setup(state);
		memcpy(cut, RFC_FINAL, n);
		assert_int_equal(first(RFC_FIRST), RC_OK);
		assert_int_equal(scram_client_final(&s, span_of(cut, n), &out, &d), RC_FAIL);
		assert_string_equal(d.sqlstate, "08P01");
		free(cut);
	}
}

static void
scram_begin__nobody__same_dialogue_never_in(void **state)
{
	struct scram_secret salted;

	(void)state;
	assert_int_equal(scram_begin(&s, NULL, SPAN_LIT("nobody"), process_key), RC_OK);
	salted = s.secret;
	assert_int_equal(s.secret.salt_bytes, 16);
	assert_int_equal(s.secret.iterations, 4096);
	assert_int_equal(scram_begin(&s, NULL, SPAN_LIT("nobody"), process_key), RC_OK);
	assert_memory_equal(s.secret.salt, salted.salt, 16);
	assert_int_equal(scram_begin(&s, NULL, SPAN_LIT("other"), process_key), RC_OK);
	assert_memory_not_equal(s.secret.salt, salted.salt, 16);
	/* Not even with a secret that would be right. */
	s.secret = secret;
	memcpy(s.server_nonce, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", 31);
	assert_int_equal(first(RFC_FIRST), RC_OK);
	assert_int_equal(final(RFC_FINAL), RC_FAIL);
	assert_false(diag_is_set(&d));
}

/* The verifier that PostgreSQL 15 makes has this shape; here it is of the RFC's salt and password. */
static void
scram_secret__format_and_parse__round_trip(void **state)
{
	char text[SCRAM_VERIFIER_MAX_BYTES];
	struct scram_secret got = {0};

	(void)state;
	scram_secret_format(&secret, text);
	assert_string_equal(text, "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
				  "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
	assert_true(scram_secret_parse(span_str(text), &got));
	assert_int_equal(got.iterations, 4096);
	assert_memory_equal(got.salt, rfc_salt, 16);
	assert_memory_equal(got.stored_key, secret.stored_key, 32);
	assert_true(scram_secret_matches(&got, SPAN_LIT("pencil")));
	assert_false(scram_secret_matches(&got, SPAN_LIT("pencil ")));
	for (size_t n = 0; n < strlen(text); n++)
		assert_false(scram_secret_parse(span_of(text, n), &got));
}

static void
scram_secret_from_password__saslprep__as_postgresql(void **state)
{
	static const struct {
		struct span a, b;
		bool same;
	} cases[] = {
		{SPAN_LIT("I\xc2\xadX"), SPAN_LIT("IX"), true},          /* a soft hyphen goes away */
		{SPAN_LIT("\xe2\x85\xa8"), SPAN_LIT("IX"), true},        /* ROMAN NUMERAL NINE, by NFKC */
		{SPAN_LIT("a\xc2\xa0z"), SPAN_LIT("a z"), true},         /* a no-break space */
		{SPAN_LIT("\xff" "a"), SPAN_LIT("a"), false},            /* not UTF-8: raw bytes */
		{SPAN_LIT("\xc2\xad"), SPAN_LIT(""), false},             /* nothing left: raw bytes */
		{SPAN_LIT("a\x7f"), SPAN_LIT("a"), false},               /* ASCII is left alone */
	};
	struct scram_secret x, y;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(scram_secret_from_password(cases[i].a, rfc_salt, 16, 1, &x), RC_OK);
		assert_int_equal(scram_secret_from_password(cases[i].b, rfc_salt, 16, 1, &y), RC_OK);
		assert_int_equal(memcmp(x.stored_key, y.stored_key, 32) == 0, cases[i].same);
	}
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(scram__rfc_7677__exact_bytes),
		TEST(scram_client_final__wrong_proof__fails_without_diag),
		TEST(scram_client_first__headers__as_specified),
		TEST(scram_client_first__binding_offered__flags_as_in_postgresql),
		TEST(scram_client_final__binding__must_be_the_certificates),
		TEST(scram_client_first__sizes__bounded),
		TEST(scram_client_final__every_prefix_and_fault__refused),
		TEST(scram_begin__nobody__same_dialogue_never_in),
		TEST(scram_secret__format_and_parse__round_trip),
		TEST(scram_secret_from_password__saslprep__as_postgresql),
	};

	return cmocka_run_group_tests(tests, derive, NULL);
}
