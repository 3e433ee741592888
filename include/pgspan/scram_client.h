/* SPDX-License-Identifier: BSD-2-Clause */
/* scram_client - the client's side of SCRAM-SHA-256, with ClientKey in the place of a password (RFC 5802).
 *
 * Whoever has checked a client's proof knows ClientKey, and can log in to any server whose verifier has the same salt and
 * iterations. No channel binding: the mechanism is SCRAM-SHA-256.  Pure but for RAND_bytes.  Thread: any. */
#ifndef PGSPAN_SCRAM_CLIENT_H
#define PGSPAN_SCRAM_CLIENT_H

#include "pgspan/scram.h"

struct scram_client {
	const struct scram_secret *secret; /* borrowed, as is the next */
	const unsigned char *client_key;
	char nonce[32];                    /* text; tests may overwrite it */
	char auth_message[1024];
};

enum rc scram_client_begin(struct scram_client *c, const struct scram_secret *secret, const unsigned char client_key[SCRAM_KEY_BYTES]) WARN_UNUSED;
/* client-first-message, for a SASLInitialResponse. */
void scram_client_put_first(const struct scram_client *c, struct wbuf *w);
/* Takes server-first-message, appends client-final-message. RC_FAIL: *d*. */
enum rc scram_client_put_final(struct scram_client *c, struct span server_first, struct wbuf *w, struct diag *d) WARN_UNUSED;
/* Whether server-final-message proves that the server knows the verifier. */
bool scram_client_verify(const struct scram_client *c, struct span server_final) WARN_UNUSED;

#endif
