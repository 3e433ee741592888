/* SPDX-License-Identifier: BSD-2-Clause */
/* tls_context - certificate files and settings as one immutable SSL_CTX.
 *
 * No session is kept or resumed, by ticket or cache: PostgreSQL's clients don't ask for it, and memory that a stranger
 * fills is memory lost. No renegotiation. TLS 1.2 is the least. */
#include "tls_int.h"

#include "pgspan/sqlstate.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

/* What OpenSSL complains of, in a few words. */
static const char *
reason(void)
{
	unsigned long e = ERR_peek_last_error();
	const char *text = ERR_reason_error_string(e);
	if (ERR_GET_LIB(e) == ERR_LIB_SYS)
		return strerror(ERR_GET_REASON(e));
	return text ? text : "unknown error";
}

/* Fails with OpenSSL's reason. */
static enum rc
fail(struct diag *d, char *at, char setting, const char *what)
{
	*at = setting;
	diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "%s: %s", what, reason());
	ERR_clear_error();
	return RC_FAIL;
}

/* OpenSSL would ask on the terminal. */
static int
no_pass_phrase(char *buf, int size, int for_writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)for_writing;
	(void)arg;
	return -1;
}

static int
choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *arg)
{
	static const unsigned char ours[] = "\012postgresql";
	unsigned char *chosen;
	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours - 1, in, in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

/* A comma list of PgBouncer's words. */
static enum rc
set_protocols(SSL_CTX *ctx, const char *list, char *at, struct diag *d)
{
	bool v12 = false, v13 = false;
	for (const char *p = list; *p;) {
		p += strspn(p, ", \t");
		size_t n = strcspn(p, ", \t");
		struct span word = span_of(p, n);
		if (span_eq_str(word, "secure"))
			v12 = v13 = true;
		else if (span_eq_str(word, "tlsv1.2"))
			v12 = true;
		else if (span_eq_str(word, "tlsv1.3"))
			v13 = true;
		else if (n > 0) {
			*at = 'p';
			diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "\"%.*s\" is not offered", (int)n, p);
			return RC_FAIL;
		}
		p += n;
	}
	if (!v12 && !v13)
		v12 = v13 = true;
	SSL_CTX_set_min_proto_version(ctx, v12 ? TLS1_2_VERSION : TLS1_3_VERSION);
	SSL_CTX_set_max_proto_version(ctx, v13 ? TLS1_3_VERSION : TLS1_2_VERSION);
	return RC_OK;
}

static bool
is_default(const char *s, const char *word)
{
	return !s || !*s || strcmp(s, "default") == 0 || strcmp(s, word) == 0;
}

static enum rc
set_ciphers(SSL_CTX *ctx, const struct tls_settings *s, char *at, struct diag *d)
{
	const char *list = is_default(s->ciphers, "secure") ? "HIGH:!aNULL:!eNULL" : s->ciphers;
	if (SSL_CTX_set_cipher_list(ctx, list) != 1)
		return fail(d, at, 'i', list);
	if (!is_default(s->ciphersuites, "default") && SSL_CTX_set_ciphersuites(ctx, s->ciphersuites) != 1)
		return fail(d, at, 's', s->ciphersuites);
	if (!is_default(s->curves, "auto") && SSL_CTX_set1_groups_list(ctx, s->curves) != 1)
		return fail(d, at, 'u', s->curves);
	return RC_OK;
}

/* fopen's error is clearer than OpenSSL's stack of three. */
static enum rc
check_readable(const char *file, char setting, char *at, struct diag *d)
{
	FILE *f = fopen(file, "re");
	if (f) {
		fclose(f);
		return RC_OK;
	}
	*at = setting;
	diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "%s: %s", file, strerror(errno));
	return RC_FAIL;
}

static enum rc
load_files(SSL_CTX *ctx, const struct tls_settings *s, char *at, struct diag *d)
{
	if (check_readable(s->cert_file, 'c', at, d) != RC_OK || check_readable(s->key_file, 'k', at, d) != RC_OK ||
	    (*s->ca_file && check_readable(s->ca_file, 'a', at, d) != RC_OK))
		return RC_FAIL;
	if (SSL_CTX_use_certificate_chain_file(ctx, s->cert_file) != 1)
		return fail(d, at, 'c', s->cert_file);
	if (SSL_CTX_use_PrivateKey_file(ctx, s->key_file, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ctx) != 1)
		return fail(d, at, 'k', s->key_file);
	if (!*s->ca_file)
		return RC_OK;
	STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(s->ca_file);
	if (!names || SSL_CTX_load_verify_locations(ctx, s->ca_file, NULL) != 1) {
		sk_X509_NAME_pop_free(names, X509_NAME_free);
		return fail(d, at, 'a', s->ca_file);
	}
	SSL_CTX_set_client_CA_list(ctx, names);
	return RC_OK;
}

/* RFC 5929, 4.1: the digest of the certificate by its signature's own, but SHA-256 instead of MD5 and SHA-1. */
static void
make_binding(struct tls_context *c)
{
	X509 *cert = SSL_CTX_get0_certificate(c->ssl);
	int digest = NID_undef;
	if (!cert || !X509_get_signature_info(cert, &digest, NULL, NULL, NULL))
		return;
	if (digest == NID_md5 || digest == NID_sha1)
		digest = NID_sha256;
	const EVP_MD *md = digest == NID_undef ? NULL : EVP_get_digestbynid(digest);
	if (!md || X509_digest(cert, md, c->binding, &c->binding_bytes) != 1)
		c->binding_bytes = 0;
}

struct tls_context *
tls_context_new(const struct tls_settings *s, char *at, struct diag *d)
{
	struct tls_context *c = xcalloc(1, sizeof *c);
	static const unsigned char session_id_context[] = "pgspan";
	_Static_assert(sizeof c->binding >= EVP_MAX_MD_SIZE, "a digest fits");
	ERR_clear_error();
	c->refs = 1;
	c->ssl = SSL_CTX_new(TLS_server_method());
	if (!c->ssl)
		abort();
	SSL_CTX_set_default_passwd_cb(c->ssl, no_pass_phrase);
	SSL_CTX_set_mode(c->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(c->ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
	    SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_num_tickets(c->ssl, 0);
	SSL_CTX_set_session_cache_mode(c->ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_session_id_context(c->ssl, session_id_context, sizeof session_id_context - 1);
	SSL_CTX_set_read_ahead(c->ssl, 1);
	SSL_CTX_set_dh_auto(c->ssl, 1);
	SSL_CTX_set_alpn_select_cb(c->ssl, choose_protocol, NULL);
	if (set_protocols(c->ssl, s->protocols, at, d) != RC_OK || set_ciphers(c->ssl, s, at, d) != RC_OK ||
	    load_files(c->ssl, s, at, d) != RC_OK) {
		tls_context_unref(c);
		return NULL;
	}
	/* With a CA, a client may always show a certificate, and one that is shown must be good. */
	int verify = *s->ca_file ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
	if (s->mode >= TLS_VERIFY_CA)
		verify |= SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(c->ssl, verify, NULL);
	make_binding(c);
	ERR_clear_error();
	return c;
}

struct tls_context *
tls_context_ref(struct tls_context *c)
{
	c->refs++;
	return c;
}

void
tls_context_unref(struct tls_context *c)
{
	if (!c || --c->refs > 0)
		return;
	SSL_CTX_free(c->ssl);
	free(c);
}
