/* SPDX-License-Identifier: BSD-2-Clause */
/* scram - the server's side of SCRAM-SHA-256 and, over TLS, SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; PostgreSQL docs 55.3).
 *
 *   client                                            server
 *     | n,,n=,r=<nonce>                scram_client_first |
 *     | r=<nonce+ours>,s=<salt>,i=<iterations>            |
 *     | c=biws,r=<nonce+ours>,p=<proof> scram_client_final|
 *     | v=<signature>                                     |
 *
 * With channel binding (tls-server-end-point, RFC 5929) the first message begins with "p=tls-server-end-point,," and c= holds
 * that header and the digest of the certificate that the client sees. A client that knows binding and was told of none by
 * the server ("y,,") is refused where it was offered: somebody between has cut the offer out.
 *
 * Digests are OpenSSL's, SASLprep is libidn's. Pure but for RAND_bytes in scram_begin().  Thread: any. */
#ifndef PGSPAN_SCRAM_H
#define PGSPAN_SCRAM_H

#include "pgspan/diag.h"
#include "pgspan/wire.h"

#define SCRAM_MECHANISM "SCRAM-SHA-256"
#define SCRAM_MECHANISM_PLUS "SCRAM-SHA-256-PLUS"
#define SCRAM_BINDING_MAX_BYTES 64 /* the largest digest */
#define SCRAM_KEY_BYTES 32
#define SCRAM_SALT_BYTES 16        /* of salts that are made here, as PostgreSQL's */
#define SCRAM_SALT_MAX_BYTES 128   /* of salts in verifiers */
#define SCRAM_ITERATIONS 4096      /* PostgreSQL's default */
#define SCRAM_NONCE_MAX_BYTES 512  /* of the client's part */
#define SCRAM_MESSAGE_MAX_BYTES 2048
#define SCRAM_VERIFIER_MAX_BYTES 320 /* text of a verifier, NUL included */

/* What a server keeps instead of a password. */
struct scram_secret {
	uint32_t iterations;
	uint8_t salt_bytes;
	unsigned char salt[SCRAM_SALT_MAX_BYTES];
	unsigned char stored_key[SCRAM_KEY_BYTES];
	unsigned char server_key[SCRAM_KEY_BYTES];
};

/* Derives a secret: SASLprep (or the raw bytes where it does not apply, as in PostgreSQL), then *iterations* rounds:
 * milliseconds, so keep the result. *salt_bytes* is 1 to SCRAM_SALT_MAX_BYTES. RC_FAIL only if OpenSSL refuses. */
enum rc scram_secret_from_password(struct span password, const unsigned char *salt, size_t salt_bytes, uint32_t iterations,
				   struct scram_secret *out) WARN_UNUSED;
/* Whether *text* is a verifier, SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, and its parts. */
bool scram_secret_parse(struct span text, struct scram_secret *out) WARN_UNUSED;
/* The verifier's text, NUL included. */
void scram_secret_format(const struct scram_secret *s, char out[SCRAM_VERIFIER_MAX_BYTES]);
/* Whether *password* is the one behind *s*; takes the time of a derivation. */
bool scram_secret_matches(const struct scram_secret *s, struct span password) WARN_UNUSED;

/* ClientKey: what only the password, or a client's proof, tells. Takes the time of a derivation. */
enum rc scram_client_key(const struct scram_secret *s, struct span password, unsigned char key[SCRAM_KEY_BYTES]) WARN_UNUSED;

/* The salt of *user* under a secret of this process: looks random, is always the same. Derived secrets and mock ones
 * both use it, so that a reload or a wrong name cannot be told from outside. */
void scram_salt_for(struct span user, const unsigned char process_key[SCRAM_KEY_BYTES], unsigned char salt[SCRAM_SALT_BYTES]);

enum scram_state { SCRAM_WANT_FIRST, SCRAM_WANT_FINAL, SCRAM_DONE, SCRAM_FAILED };

/* One login. Owner: the session being authenticated. About 5 KiB: put it where it goes away after the login. */
struct scram {
	enum scram_state state;
	bool doomed;                   /* mock: no proof is right */
	char gs2_flag;                 /* 'n', 'y' or 'p', as the client began */
	bool plus;                     /* the client has chosen SCRAM-SHA-256-PLUS */
	size_t binding_bytes;          /* 0: no channel binding is offered */
	unsigned char binding[SCRAM_BINDING_MAX_BYTES];
	struct scram_secret secret;
	unsigned char client_key[SCRAM_KEY_BYTES]; /* SCRAM_DONE: what a login elsewhere with the same verifier can be proved by */
	char server_nonce[32];         /* text; tests may overwrite it after scram_begin() */
	size_t nonce_bytes;            /* the client's nonce and ours, within server_first */
	size_t client_first_bytes, server_first_bytes;
	char client_first[SCRAM_MESSAGE_MAX_BYTES]; /* client-first-message-bare */
	char server_first[SCRAM_NONCE_MAX_BYTES + 256];
};

/* Starts a login against *secret* (copied). NULL: nobody of that name, or no secret SCRAM can use; the dialogue then looks
 * the same and fails at its end. RC_FAIL only if there is no randomness. */
enum rc scram_begin(struct scram *s, const struct scram_secret *secret, struct span user,
		    const unsigned char process_key[SCRAM_KEY_BYTES]) WARN_UNUSED;
/* Channel binding will be offered: *data* is tls_binding()'s, copied. */
void scram_offer_binding(struct scram *s, struct span data);
/* What the client chose of what was offered. False: it was not. */
bool scram_choose(struct scram *s, struct span mechanism) WARN_UNUSED;
/* Each takes the client's message and appends the bare server message to *out* (to be wrapped by msg_put_auth_sasl_*).
 * RC_FAIL: *d* says why, as a FATAL error; *d* unset means that the proof was wrong: answer 28P01 with the user's name. */
enum rc scram_client_first(struct scram *s, struct span message, struct wbuf *out, struct diag *d) WARN_UNUSED;
enum rc scram_client_final(struct scram *s, struct span message, struct wbuf *out, struct diag *d) WARN_UNUSED;
/* Wipes what is secret. */
void scram_fini(struct scram *s);

#endif
