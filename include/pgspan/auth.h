/* SPDX-License-Identifier: BSD-2-Clause */
/* auth - who may log in: the user list (PgBouncer's auth_file) and the checks of clear-text and md5 passwords.
 * SCRAM is in scram.h. Comparisons of secrets take the same time whatever differs. */
#ifndef PGSPAN_AUTH_H
#define PGSPAN_AUTH_H

#include "pgspan/diag.h"
#include "pgspan/scram.h"

#define AUTH_PASSWORD_MAX_BYTES 2048 /* longer ones are wrong without being looked at */
#define AUTH_MD5_BYTES 36            /* "md5", 32 digits, NUL */

enum auth_secret_kind {
	AUTH_SECRET_PLAIN,
	AUTH_SECRET_MD5,   /* "md5" and 32 digits: md5(password + user) */
	AUTH_SECRET_SCRAM, /* SCRAM-SHA-256$… */
};

struct auth_user; /* one line of the file */

/* The file's users. Owner: its references.  Lives until: the last unref.  Thread: any; nothing in it changes but a
 * cache inside, which is atomic. */
struct userlist;

/* Parses the text of an auth_file. Each line: "user" "password", with " doubled inside; what follows is left aside, as
 * are empty lines and those that begin with ';'. NULL when something is wrong: *d* says in which line. Start
 * with one reference. */
struct userlist *userlist_parse(struct span text, struct diag *d) WARN_UNUSED;
struct userlist *userlist_ref(struct userlist *ul);
void userlist_unref(struct userlist *ul); /* NULL is allowed */
/* A list of one. NULL: *d* says what is wrong with the secret. */
struct userlist *userlist_of(struct span name, struct span secret, struct diag *d) WARN_UNUSED;
/* Whether a SCRAM verifier is among the secrets: a password in clear then takes a derivation to check, so all should. */
bool userlist_has_scram(const struct userlist *ul);
/* NULL behind the last. */
const struct auth_user *userlist_at(const struct userlist *ul, size_t i);
size_t userlist_count(const struct userlist *ul);
/* NULL if there is none of that name. Borrowed from *ul*. */
const struct auth_user *userlist_find(const struct userlist *ul, struct span name);

enum auth_secret_kind auth_user_kind(const struct auth_user *u);
const char *auth_user_name(const struct auth_user *u);
/* The password or verifier as it stands in the file. For logging in to servers; never for logs. */
const char *auth_user_secret(const struct auth_user *u);

/* What scram_begin() needs. A plain password is derived on first use, which takes milliseconds, and kept. NULL for an md5
 * user, who can't use SCRAM: begin a mock login then, as for an unknown user. */
const struct scram_secret *auth_user_scram(const struct auth_user *u, const unsigned char process_key[SCRAM_KEY_BYTES]);

/* Whether that will take milliseconds now. */
bool auth_user_must_derive(const struct auth_user *u);

/* The checks cost the same, and say no, with *u* NULL: nobody of that name.
 * Whether the password that came in clear is right. An empty one never is. */
bool auth_check_cleartext(const struct auth_user *u, struct span password) WARN_UNUSED;
/* Whether *response* is "md5" + md5(md5(password + user) + salt). Never for a SCRAM verifier. */
bool auth_check_md5(const struct auth_user *u, const unsigned char salt[4], struct span response) WARN_UNUSED;
/* "md5" and the 32 digits of md5(password + user), as in pg_authid. RC_FAIL: OpenSSL has no MD5 (FIPS). */
enum rc auth_md5_secret(struct span password, struct span user, char out[AUTH_MD5_BYTES]) WARN_UNUSED;
/* The response to a salt, from the secret above: what a client sends. */
enum rc auth_md5_response(const char secret[AUTH_MD5_BYTES], const unsigned char salt[4], char out[AUTH_MD5_BYTES]) WARN_UNUSED;

/* Random bytes that nobody can guess: salts, cancel keys, the process key. */
enum rc auth_random(void *buf, size_t n) WARN_UNUSED;

#endif
