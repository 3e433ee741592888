/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/scram_client.o proxy/proto/scram.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
#include "unit.h"

#include "pgspan/scram_client.h"

static const unsigned char process_key[SCRAM_KEY_BYTES] = "a key of this test";

/* A secret, and the key that goes with it. */
static void
make(const char *password, struct scram_secret *secret, unsigned char key[SCRAM_KEY_BYTES])
{
	assert_int_equal(scram_secret_from_password(span_str(password), (const unsigned char *)"0123456789abcdef", 16, 4096, secret), RC_OK);
	assert_int_equal(scram_client_key(secret, span_str(password), key), RC_OK);
}

/* The whole dialogue with our own server's side; the server's verdict, and in *verified the client's. */
static enum rc
log_in(const struct scram_secret *ours, const unsigned char *key, const struct scram_secret *theirs, bool *verified, struct diag *d)
{
	struct scram_client c;
	struct scram s;
	struct wbuf to_server = {0}, to_client = {0};
	assert_int_equal(scram_client_begin(&c, ours, key), RC_OK);
	assert_int_equal(scram_begin(&s, theirs, SPAN_LIT("u"), process_key), RC_OK);
	scram_client_put_first(&c, &to_server);
	assert_int_equal(scram_client_first(&s, span_of(to_server.p, to_server.n), &to_client, d), RC_OK);
	to_server.n = 0;
	enum rc rc = scram_client_put_final(&c, span_of(to_client.p, to_client.n), &to_server, d);
	to_client.n = 0;
	if (rc == RC_OK)
		rc = scram_client_final(&s, span_of(to_server.p, to_server.n), &to_client, d);
	*verified = rc == RC_OK && scram_client_verify(&c, span_of(to_client.p, to_client.n));
	if (*verified) {
		((char *)to_client.p)[5] ^= 1;
		assert_false(scram_client_verify(&c, span_of(to_client.p, to_client.n)));
		/* The server's side has learned the key that the proof was made with. */
		assert_memory_equal(s.client_key, key, SCRAM_KEY_BYTES);
	}
	wbuf_fini(&to_server);
	wbuf_fini(&to_client);
	return rc;
}

static void
scram_client__right_key__admitted_and_verified(void **state)
{
	struct scram_secret secret;
	unsigned char key[SCRAM_KEY_BYTES];
	struct diag d = {0};
	bool verified;
	(void)state;
	make("p\303\244ss, word", &secret, key);
	assert_int_equal(log_in(&secret, key, &secret, &verified, &d), RC_OK);
	assert_true(verified);
}

static void
scram_client__wrong_key__refused(void **state)
{
	struct scram_secret secret;
	unsigned char key[SCRAM_KEY_BYTES];
	struct diag d = {0};
	bool verified;
	(void)state;
	make("pencil", &secret, key);
	key[31] ^= 1;
	assert_int_equal(log_in(&secret, key, &secret, &verified, &d), RC_FAIL);
	assert_false(diag_is_set(&d));
}

static void
scram_client_put_final__another_salt__told(void **state)
{
	struct scram_secret ours, theirs;
	unsigned char key[SCRAM_KEY_BYTES];
	struct diag d = {0};
	bool verified;
	(void)state;
	make("pencil", &ours, key);
	assert_int_equal(scram_secret_from_password(SPAN_LIT("pencil"), (const unsigned char *)"0123456789abcdeX", 16, 4096, &theirs), RC_OK);
	assert_int_equal(log_in(&ours, key, &theirs, &verified, &d), RC_FAIL);
	assert_string_equal(d.sqlstate, "28P01");
	assert_string_equal(d.message, "the server's SCRAM verifier for the user is another than pgspan's");
}

static void
scram_client_put_final__malformed__refused(void **state)
{
	static const char *const bad[] = {"", "r=", "r=x,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096", "e=unknown-user", "r=%s,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096",
	                                  "r=%sx,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096,m=x", "m=x,r=%sx,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096"};
	struct scram_secret secret;
	unsigned char key[SCRAM_KEY_BYTES];
	(void)state;
	make("pencil", &secret, key);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct scram_client c;
		struct wbuf w = {0};
		struct diag d = {0};
		char text[256] = "";
		const char *hole = strstr(bad[i], "%s");
		assert_int_equal(scram_client_begin(&c, &secret, key), RC_OK);
		if (hole)
			snprintf(text, sizeof text, "%.*s%s%s", (int)(hole - bad[i]), bad[i], c.nonce, hole + 2);
		else
			snprintf(text, sizeof text, "%s", bad[i]);
		assert_int_equal(scram_client_put_final(&c, span_str(text), &w, &d), RC_FAIL);
		assert_true(diag_is_set(&d));
		assert_int_equal(w.n, 0);
		wbuf_fini(&w);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scram_client__right_key__admitted_and_verified),
		cmocka_unit_test(scram_client__wrong_key__refused),
		cmocka_unit_test(scram_client_put_final__another_salt__told),
		cmocka_unit_test(scram_client_put_final__malformed__refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
