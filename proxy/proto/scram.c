/* SPDX-License-Identifier: BSD-2-Clause */
/* scram - see pgspan/scram.h for the dialogue.
 *
 * Parsing is stricter than the RFC's grammar asks and never looser: every attribute is one letter, '=', and a value
 * without commas; no message ends in a comma; base64 must be canonical (decoding and encoding again gives the same text).
 * A client's extensions are read over, as in PostgreSQL, but the mandatory one ("m=") is refused.
 *
 * Channel binding is not offered (the mechanism is SCRAM-SHA-256, never -PLUS), so a gs2 header of "n" or "y" is right:
 * "y" says that the client could bind but saw no offer, which is true. "p" is a client that binds without having been
 * asked to; letting it in would defeat its purpose.
 *
 * What a wrong name costs equals what a wrong password costs: the same digests run on a mock secret, and its stored key is
 * as unknown as a real one. */
#include "pgspan/scram.h"
#include "pgspan/sqlstate.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stringprep.h>

/* ---- base64 and digests ---- */

/* Decodes canonical base64 of at most *max* bytes; -1 if it is anything else. */
static int
base64_decode(struct span text, unsigned char *out, size_t max)
{
	unsigned char raw[SCRAM_SALT_MAX_BYTES + 3], again[(SCRAM_SALT_MAX_BYTES + 2) / 3 * 4 + 1];
	size_t pad = 0;
	int n;

	assert(max <= SCRAM_SALT_MAX_BYTES);
	if (text.n == 0 || text.n % 4 != 0 || text.n > (max + 2) / 3 * 4)
		return -1;
	while (pad < 2 && text.p[text.n - 1 - pad] == '=')
		pad++;
	n = EVP_DecodeBlock(raw, (const unsigned char *)text.p, (int)text.n);
	if (n < (int)pad)
		return -1;
	n -= (int)pad;
	if ((size_t)n > max || EVP_EncodeBlock(again, raw, n) != (int)text.n || memcmp(again, text.p, text.n) != 0)
		return -1;
	memcpy(out, raw, (size_t)n);
	return n;
}

static bool
base64_decode_key(struct span text, unsigned char out[SCRAM_KEY_BYTES])
{
	return base64_decode(text, out, SCRAM_KEY_BYTES) == SCRAM_KEY_BYTES;
}

/* HMAC-SHA-256. With these arguments it fails only when memory is out. */
static void
hmac(const unsigned char key[SCRAM_KEY_BYTES], const void *data, size_t n, unsigned char out[SCRAM_KEY_BYTES])
{
	unsigned int len;

	if (!HMAC(EVP_sha256(), key, SCRAM_KEY_BYTES, data, n, out, &len) || len != SCRAM_KEY_BYTES)
		abort();
}

static void
sha256(const void *data, size_t n, unsigned char out[SCRAM_KEY_BYTES])
{
	SHA256(data, n, out);
}

/* ---- secrets ---- */

static bool
is_ascii(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] >= 0x80)
			return false;
	return true;
}

/* The password as SASLprep has it, in malloc's memory, or NULL where the raw bytes are to be used. PostgreSQL leaves plain
 * ASCII alone and falls back to the raw bytes when the text is not valid UTF-8, holds characters that are prohibited
 * or not assigned, or is empty afterwards. */
static char *
saslprep(struct span password)
{
	char *text, *prepared = NULL;
	int rc;

	if (is_ascii(password) || memchr(password.p, 0, password.n))
		return NULL;
	text = xstrndup(password.p, password.n);
	rc = stringprep_profile(text, &prepared, "SASLprep", STRINGPREP_NO_UNASSIGNED);
	OPENSSL_cleanse(text, password.n);
	free(text);
	if (rc == STRINGPREP_OK && prepared[0])
		return prepared;
	free(prepared);
	return NULL;
}

/* SaltedPassword. */
static enum rc
derive(struct span password, const unsigned char *salt, size_t salt_bytes, uint32_t iterations, unsigned char salted[SCRAM_KEY_BYTES])
{
	char *prepared = saslprep(password);
	int ok;

	assert(salt_bytes > 0 && salt_bytes <= SCRAM_SALT_MAX_BYTES && iterations > 0 && iterations <= INT32_MAX);
	if (prepared)
		password = span_str(prepared);
	ok = PKCS5_PBKDF2_HMAC(password.n ? password.p : "", (int)password.n, salt, (int)salt_bytes, (int)iterations, EVP_sha256(),
			       SCRAM_KEY_BYTES, salted);
	if (prepared) {
		OPENSSL_cleanse(prepared, password.n);
		free(prepared);
	}
	return ok ? RC_OK : RC_FAIL;
}

enum rc
scram_secret_from_password(struct span password, const unsigned char *salt, size_t salt_bytes, uint32_t iterations,
			   struct scram_secret *out)
{
	unsigned char salted[SCRAM_KEY_BYTES], client_key[SCRAM_KEY_BYTES];

	if (derive(password, salt, salt_bytes, iterations, salted) != RC_OK)
		return RC_FAIL;
	out->iterations = iterations;
	out->salt_bytes = (uint8_t)salt_bytes;
	memcpy(out->salt, salt, salt_bytes);
	hmac(salted, "Client Key", 10, client_key);
	sha256(client_key, sizeof client_key, out->stored_key);
	hmac(salted, "Server Key", 10, out->server_key);
	OPENSSL_cleanse(salted, sizeof salted);
	OPENSSL_cleanse(client_key, sizeof client_key);
	return RC_OK;
}

enum rc
scram_client_key(const struct scram_secret *s, struct span password, unsigned char key[SCRAM_KEY_BYTES])
{
	unsigned char salted[SCRAM_KEY_BYTES];

	if (derive(password, s->salt, s->salt_bytes, s->iterations, salted) != RC_OK)
		return RC_FAIL;
	hmac(salted, "Client Key", 10, key);
	OPENSSL_cleanse(salted, sizeof salted);
	return RC_OK;
}

/* Takes what stands before *stop* off the front of *s*, and *stop* with it. */
static bool
take_until(struct span *s, char stop, struct span *out)
{
	const char *at = s->n ? memchr(s->p, stop, s->n) : NULL;

	if (!at)
		return false;
	*out = span_of(s->p, (size_t)(at - s->p));
	*s = span_of(at + 1, s->n - out->n - 1);
	return true;
}

static bool
parse_iterations(struct span text, uint32_t *out)
{
	uint64_t v = 0;

	if (text.n == 0 || text.n > 10)
		return false;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(text.p[i] - '0');
	}
	*out = (uint32_t)v;
	return v > 0 && v <= INT32_MAX;
}

bool
scram_secret_parse(struct span text, struct scram_secret *out)
{
	struct span scheme, iterations, salt, stored;
	int salt_bytes;

	if (!take_until(&text, '$', &scheme) || !take_until(&text, ':', &iterations) || !take_until(&text, '$', &salt) ||
	    !take_until(&text, ':', &stored))
		return false;
	if (!span_eq_str(scheme, SCRAM_MECHANISM) || !parse_iterations(iterations, &out->iterations))
		return false;
	salt_bytes = base64_decode(salt, out->salt, sizeof out->salt);
	if (salt_bytes < 1)
		return false;
	out->salt_bytes = (uint8_t)salt_bytes;
	return base64_decode_key(stored, out->stored_key) && base64_decode_key(text, out->server_key);
}

void
scram_secret_format(const struct scram_secret *s, char out[SCRAM_VERIFIER_MAX_BYTES])
{
	char salt[(SCRAM_SALT_MAX_BYTES + 2) / 3 * 4 + 1], stored[45], server[45];

	EVP_EncodeBlock((unsigned char *)salt, s->salt, s->salt_bytes);
	EVP_EncodeBlock((unsigned char *)stored, s->stored_key, SCRAM_KEY_BYTES);
	EVP_EncodeBlock((unsigned char *)server, s->server_key, SCRAM_KEY_BYTES);
	snprintf(out, SCRAM_VERIFIER_MAX_BYTES, SCRAM_MECHANISM "$%u:%s$%s:%s", s->iterations, salt, stored, server);
}

bool
scram_secret_matches(const struct scram_secret *s, struct span password)
{
	struct scram_secret got;
	bool same;

	if (scram_secret_from_password(password, s->salt, s->salt_bytes, s->iterations, &got) != RC_OK)
		return false;
	same = CRYPTO_memcmp(got.stored_key, s->stored_key, SCRAM_KEY_BYTES) == 0;
	OPENSSL_cleanse(&got, sizeof got);
	return same;
}

void
scram_salt_for(struct span user, const unsigned char process_key[SCRAM_KEY_BYTES], unsigned char salt[SCRAM_SALT_BYTES])
{
	unsigned char mac[SCRAM_KEY_BYTES];

	hmac(process_key, user.p, user.n, mac);
	memcpy(salt, mac, SCRAM_SALT_BYTES);
}

/* A secret that nobody knows the password of, the same each time for a user. */
static void
mock_secret(struct span user, const unsigned char process_key[SCRAM_KEY_BYTES], struct scram_secret *out)
{
	out->iterations = SCRAM_ITERATIONS;
	out->salt_bytes = SCRAM_SALT_BYTES;
	scram_salt_for(user, process_key, out->salt);
	hmac(process_key, out->salt, SCRAM_SALT_BYTES, out->stored_key);
	hmac(process_key, out->stored_key, SCRAM_KEY_BYTES, out->server_key);
}

/* ---- messages ---- */

#define BINDING_HEADER "p=tls-server-end-point,,"

static enum rc
fail_malformed(struct diag *d, const char *detail)
{
	diag_set(d, SQLSTATE_PROTOCOL_VIOLATION, "malformed SCRAM message");
	diag_detail(d, "%s", detail);
	return RC_FAIL;
}

static enum rc
check_message(struct span m, struct diag *d)
{
	if (m.n == 0)
		return fail_malformed(d, "The message is empty.");
	if (m.n > SCRAM_MESSAGE_MAX_BYTES)
		return fail_malformed(d, "The message is too long.");
	if (memchr(m.p, 0, m.n))
		return fail_malformed(d, "Message length does not match input length.");
	return RC_OK;
}

/* Takes the next "x=value" off *rest*, and the comma behind it, which must be followed by another attribute. */
static bool
take_attribute(struct span *rest, char *name, struct span *value)
{
	const char *comma = rest->n ? memchr(rest->p, ',', rest->n) : NULL;
	size_t n = comma ? (size_t)(comma - rest->p) : rest->n;
	char c = n >= 2 && rest->p[1] == '=' ? rest->p[0] : 0;

	if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')))
		return false;
	if (comma && n + 1 == rest->n)
		return false;
	*name = c;
	*value = span_of(rest->p + 2, n - 2);
	*rest = comma ? span_of(comma + 1, rest->n - n - 1) : SPAN_NONE;
	return true;
}

/* take_attribute for one that must be *name*. */
static bool
take_named(struct span *rest, char name, struct span *value)
{
	char got;

	return take_attribute(rest, &got, value) && got == name;
}

static bool
is_nonce(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x21 || s.p[i] > 0x7e || s.p[i] == ',')
			return false;
	return s.n > 0 && s.n <= SCRAM_NONCE_MAX_BYTES;
}

/* Whether the channel-binding flag fits what was offered and chosen, as PostgreSQL judges it. */
static enum rc
check_binding_flag(const struct scram *s, char flag, struct diag *d)
{
	if (flag == 'p') {
		if (s->plus)
			return RC_OK;
		if (s->binding_bytes > 0)
			return fail_malformed(d, "The client selected SCRAM-SHA-256 without channel binding, but the message includes it.");
		diag_set(d, SQLSTATE_INVALID_AUTHORIZATION, "client requires SCRAM channel binding, but it is not supported");
		diag_hint(d, "Connect over TLS, or with channel_binding=prefer or channel_binding=disable.");
		return RC_FAIL;
	}
	if (flag != 'n' && flag != 'y')
		return fail_malformed(d, "Unexpected channel-binding flag.");
	if (s->plus)
		return fail_malformed(d, "The client selected SCRAM-SHA-256-PLUS, but the message does not include channel binding data.");
	if (flag == 'y' && s->binding_bytes > 0) {
		diag_set(d, SQLSTATE_INVALID_AUTHORIZATION, "SCRAM channel binding negotiation error");
		diag_detail(d, "The client supports SCRAM channel binding but thinks the server does not. However, this server does "
			       "support channel binding.");
		return RC_FAIL;
	}
	return RC_OK;
}

/* Checks the gs2 header and cuts it off, which leaves client-first-message-bare. */
static enum rc
take_gs2_header(struct scram *s, struct span *m, struct diag *d)
{
	char flag = m->p[0];
	size_t n = flag == 'p' ? sizeof BINDING_HEADER - 3 : 1; /* all but the two commas */

	if (check_binding_flag(s, flag, d) != RC_OK)
		return RC_FAIL;
	if (flag == 'p' && (m->n < n || memcmp(m->p, BINDING_HEADER, n) != 0)) {
		diag_set(d, SQLSTATE_PROTOCOL_VIOLATION, "unsupported SCRAM channel-binding type");
		diag_hint(d, "tls-server-end-point is supported.");
		return RC_FAIL;
	}
	if (m->n >= n + 2 && m->p[n] == ',' && m->p[n + 1] == 'a') {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "client uses authorization identity, but it is not supported");
		return RC_FAIL;
	}
	if (m->n < n + 2 || m->p[n] != ',' || m->p[n + 1] != ',')
		return fail_malformed(d, "Comma expected after the channel-binding flag.");
	s->gs2_flag = flag;
	*m = span_of(m->p + n + 2, m->n - n - 2);
	return RC_OK;
}

/* client-first-message-bare: n=<name>,r=<nonce>[,extensions]. The name is not looked at: the startup packet's counts. */
static enum rc
parse_first(struct span bare, struct span *nonce, struct diag *d)
{
	struct span value;
	char name;

	if (bare.n && bare.p[0] == 'm') {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "client requires an unsupported SCRAM extension");
		return RC_FAIL;
	}
	if (!take_named(&bare, 'n', &value) || !take_named(&bare, 'r', nonce))
		return fail_malformed(d, "A user name and a nonce were expected.");
	if (!is_nonce(*nonce))
		return fail_malformed(d, "The nonce is empty, too long, or not printable.");
	while (bare.n)
		if (!take_attribute(&bare, &name, &value))
			return fail_malformed(d, "An attribute was expected.");
	return RC_OK;
}

/* r=<client's nonce><ours>,s=<salt>,i=<iterations> */
static void
make_server_first(struct scram *s, struct span client_nonce)
{
	char salt[(SCRAM_SALT_MAX_BYTES + 2) / 3 * 4 + 1];
	int n;

	EVP_EncodeBlock((unsigned char *)salt, s->secret.salt, s->secret.salt_bytes);
	n = snprintf(s->server_first, sizeof s->server_first, "r=%.*s%s,s=%s,i=%u", (int)client_nonce.n, client_nonce.p,
		     s->server_nonce, salt, s->secret.iterations);
	assert(n > 0 && (size_t)n < sizeof s->server_first);
	s->server_first_bytes = (size_t)n;
	s->nonce_bytes = client_nonce.n + strlen(s->server_nonce);
}

static enum rc
first(struct scram *s, struct span message, struct diag *d)
{
	struct span nonce;

	if (s->state != SCRAM_WANT_FIRST)
		return fail_malformed(d, "The message is out of order.");
	if (check_message(message, d) != RC_OK || take_gs2_header(s, &message, d) != RC_OK ||
	    parse_first(message, &nonce, d) != RC_OK)
		return RC_FAIL;
	memcpy(s->client_first, message.p, message.n);
	s->client_first_bytes = message.n;
	make_server_first(s, nonce);
	return RC_OK;
}

enum rc
scram_client_first(struct scram *s, struct span message, struct wbuf *out, struct diag *d)
{
	if (first(s, message, d) != RC_OK) {
		s->state = SCRAM_FAILED;
		return RC_FAIL;
	}
	s->state = SCRAM_WANT_FINAL;
	wbuf_bytes(out, s->server_first, s->server_first_bytes);
	return RC_OK;
}

/* Whether *value* is what c= must hold: the gs2 header as the client sent it, and the certificate's digest if it binds. */
static enum rc
check_binding(const struct scram *s, struct span value, struct diag *d)
{
	unsigned char raw[sizeof BINDING_HEADER + SCRAM_BINDING_MAX_BYTES];
	char text[sizeof raw * 2];
	size_t n = sizeof BINDING_HEADER - 1;

	if (s->gs2_flag != 'p') {
		if (span_eq_str(value, s->gs2_flag == 'n' ? "biws" : "eSws")) /* "n,," and "y,," */
			return RC_OK;
		diag_set(d, SQLSTATE_PROTOCOL_VIOLATION, "unexpected SCRAM channel-binding attribute in client-final-message");
		return RC_FAIL;
	}
	memcpy(raw, BINDING_HEADER, n);
	memcpy(raw + n, s->binding, s->binding_bytes);
	EVP_EncodeBlock((unsigned char *)text, raw, (int)(n + s->binding_bytes));
	if (span_eq_str(value, text))
		return RC_OK;
	diag_set(d, SQLSTATE_INVALID_AUTHORIZATION, "SCRAM channel binding check failed");
	return RC_FAIL;
}

/* c=<gs2 header>,r=<nonce>[,extensions],p=<proof>; *without_proof* is all before ",p=". */
static enum rc
parse_final(const struct scram *s, struct span m, struct span *without_proof, unsigned char proof[SCRAM_KEY_BYTES], struct diag *d)
{
	const char *start = m.p;
	struct span value;
	char name = 0;

	if (!take_named(&m, 'c', &value))
		return fail_malformed(d, "A channel-binding attribute was expected.");
	if (check_binding(s, value, d) != RC_OK)
		return RC_FAIL;
	if (!take_named(&m, 'r', &value))
		return fail_malformed(d, "A nonce was expected.");
	if (!span_eq(value, span_of(s->server_first + 2, s->nonce_bytes))) {
		diag_set(d, SQLSTATE_PROTOCOL_VIOLATION, "invalid SCRAM response");
		diag_detail(d, "Nonce does not match.");
		return RC_FAIL;
	}
	while (m.n && name != 'p') {
		*without_proof = span_of(start, (size_t)(m.p - start) - 1);
		if (!take_attribute(&m, &name, &value))
			return fail_malformed(d, "An attribute was expected.");
	}
	if (name != 'p' || m.n)
		return fail_malformed(d, "The message does not end in a proof.");
	if (!base64_decode_key(value, proof))
		return fail_malformed(d, "Malformed proof in client-final-message.");
	return RC_OK;
}

/* AuthMessage: client-first-bare "," server-first "," client-final-without-proof, in *w*. */
static void
make_auth_message(const struct scram *s, struct span without_proof, struct wbuf *w)
{
	wbuf_bytes(w, s->client_first, s->client_first_bytes);
	wbuf_u8(w, ',');
	wbuf_bytes(w, s->server_first, s->server_first_bytes);
	wbuf_u8(w, ',');
	wbuf_span(w, without_proof);
}

/* ClientKey = proof XOR HMAC(StoredKey, AuthMessage); it is right if its digest is StoredKey. */
static bool
verify_proof(struct scram *s, const struct wbuf *auth, const unsigned char proof[SCRAM_KEY_BYTES])
{
	unsigned char key[SCRAM_KEY_BYTES], digest[SCRAM_KEY_BYTES];
	bool same;

	hmac(s->secret.stored_key, auth->p, auth->n, key);
	for (int i = 0; i < SCRAM_KEY_BYTES; i++)
		key[i] ^= proof[i];
	sha256(key, sizeof key, digest);
	same = CRYPTO_memcmp(digest, s->secret.stored_key, SCRAM_KEY_BYTES) == 0;
	if (same && !s->doomed)
		memcpy(s->client_key, key, sizeof key);
	OPENSSL_cleanse(key, sizeof key);
	return same && !s->doomed;
}

static enum rc
final(struct scram *s, struct span message, struct wbuf *out, struct diag *d)
{
	unsigned char proof[SCRAM_KEY_BYTES], signature[SCRAM_KEY_BYTES];
	char text[48];
	struct span without_proof = SPAN_NONE;
	struct wbuf auth = {0};
	bool right;

	if (s->state != SCRAM_WANT_FINAL)
		return fail_malformed(d, "The message is out of order.");
	if (check_message(message, d) != RC_OK || parse_final(s, message, &without_proof, proof, d) != RC_OK)
		return RC_FAIL;
	make_auth_message(s, without_proof, &auth);
	right = verify_proof(s, &auth, proof);
	if (right) {
		hmac(s->secret.server_key, auth.p, auth.n, signature);
		EVP_EncodeBlock((unsigned char *)text, signature, sizeof signature);
		wbuf_bytes(out, "v=", 2);
		wbuf_span(out, span_str(text));
	}
	wbuf_fini(&auth);
	return right ? RC_OK : RC_FAIL;
}

enum rc
scram_client_final(struct scram *s, struct span message, struct wbuf *out, struct diag *d)
{
	enum rc r = final(s, message, out, d);

	s->state = r == RC_OK ? SCRAM_DONE : SCRAM_FAILED;
	return r;
}

enum rc
scram_begin(struct scram *s, const struct scram_secret *secret, struct span user, const unsigned char process_key[SCRAM_KEY_BYTES])
{
	unsigned char raw[18]; /* as PostgreSQL's SCRAM_RAW_NONCE_LEN: 24 characters of base64 */

	s->state = SCRAM_WANT_FIRST;
	s->doomed = secret == NULL;
	s->plus = false;
	s->binding_bytes = 0;
	if (secret)
		s->secret = *secret;
	else
		mock_secret(user, process_key, &s->secret);
	if (RAND_bytes(raw, sizeof raw) != 1)
		return RC_FAIL;
	EVP_EncodeBlock((unsigned char *)s->server_nonce, raw, sizeof raw);
	return RC_OK;
}

void
scram_offer_binding(struct scram *s, struct span data)
{
	assert(data.n <= sizeof s->binding);
	memcpy(s->binding, data.p, data.n);
	s->binding_bytes = data.n;
}

bool
scram_choose(struct scram *s, struct span mechanism)
{
	s->plus = s->binding_bytes > 0 && span_eq_str(mechanism, SCRAM_MECHANISM_PLUS);
	return s->plus || span_eq_str(mechanism, SCRAM_MECHANISM);
}

void
scram_fini(struct scram *s)
{
	OPENSSL_cleanse(s, sizeof *s);
}
