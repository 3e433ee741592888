/* SPDX-License-Identifier: BSD-2-Clause */
/* scram_client - see pgspan/scram_client.h. */
#include "pgspan/scram_client.h"

#include "pgspan/sqlstate.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

enum { SERVER_FIRST_MAX_BYTES = 700 };

static void
hmac(const unsigned char key[SCRAM_KEY_BYTES], const char *data, unsigned char out[SCRAM_KEY_BYTES])
{
	unsigned len;
	if (!HMAC(EVP_sha256(), key, SCRAM_KEY_BYTES, (const unsigned char *)data, strlen(data), out, &len))
		abort();
}

enum rc
scram_client_begin(struct scram_client *c, const struct scram_secret *secret, const unsigned char client_key[SCRAM_KEY_BYTES])
{
	unsigned char raw[18];
	memset(c, 0, sizeof *c);
	c->secret = secret;
	c->client_key = client_key;
	if (RAND_bytes(raw, sizeof raw) != 1)
		return RC_FAIL;
	EVP_EncodeBlock((unsigned char *)c->nonce, raw, sizeof raw);
	return RC_OK;
}

/* The name is empty: servers go by the startup packet's. */
void
scram_client_put_first(const struct scram_client *c, struct wbuf *w)
{
	char text[64];
	int n = snprintf(text, sizeof text, "n,,n=,r=%s", c->nonce);
	wbuf_bytes(w, text, (size_t)n);
}

static enum rc
malformed(struct diag *d)
{
	diag_set(d, SQLSTATE_PROTOCOL_VIOLATION, "the server's SCRAM message is malformed");
	return RC_FAIL;
}

enum rc
scram_client_put_final(struct scram_client *c, struct span server_first, struct wbuf *w, struct diag *d)
{
	char first[SERVER_FIRST_MAX_BYTES + 1], want[256], salt[(SCRAM_SALT_MAX_BYTES + 2) / 3 * 4 + 1], proof_text[48];
	unsigned char proof[SCRAM_KEY_BYTES];
	if (server_first.n > SERVER_FIRST_MAX_BYTES || memchr(server_first.p, 0, server_first.n))
		return malformed(d);
	memcpy(first, server_first.p, server_first.n);
	first[server_first.n] = '\0';
	/* r=<ours><theirs>,s=<salt>,i=<iterations> */
	const char *rest = strchr(first, ',');
	if (strncmp(first, "r=", 2) != 0 || strncmp(first + 2, c->nonce, strlen(c->nonce)) != 0 || !rest || rest - first - 2 <= (ptrdiff_t)strlen(c->nonce))
		return malformed(d);
	EVP_EncodeBlock((unsigned char *)salt, c->secret->salt, c->secret->salt_bytes);
	snprintf(want, sizeof want, ",s=%s,i=%u", salt, c->secret->iterations);
	if (strcmp(rest, want) != 0) {
		diag_set(d, SQLSTATE_INVALID_PASSWORD, "the server's SCRAM verifier for the user is another than pgspan's");
		diag_hint(d, "Only with the same verifier on both sides can pgspan log in in the client's name; or give its password in auth_file.");
		return RC_FAIL;
	}
	int nonce = (int)(rest - first - 2);
	int n = snprintf(c->auth_message, sizeof c->auth_message, "n=,r=%s,%s,c=biws,r=%.*s", c->nonce, first, nonce, first + 2);
	if (n < 0 || (size_t)n >= sizeof c->auth_message)
		return malformed(d);
	hmac(c->secret->stored_key, c->auth_message, proof);
	for (int i = 0; i < SCRAM_KEY_BYTES; i++)
		proof[i] ^= c->client_key[i];
	EVP_EncodeBlock((unsigned char *)proof_text, proof, sizeof proof);
	wbuf_bytes(w, "c=biws,r=", 9);
	wbuf_bytes(w, first + 2, (size_t)nonce);
	wbuf_bytes(w, ",p=", 3);
	wbuf_span(w, span_str(proof_text));
	OPENSSL_cleanse(proof, sizeof proof);
	return RC_OK;
}

bool
scram_client_verify(const struct scram_client *c, struct span server_final)
{
	unsigned char signature[SCRAM_KEY_BYTES];
	char want[64] = "v=";
	hmac(c->secret->server_key, c->auth_message, signature);
	EVP_EncodeBlock((unsigned char *)want + 2, signature, sizeof signature);
	return server_final.n == strlen(want) && CRYPTO_memcmp(server_final.p, want, server_final.n) == 0;
}
