/* SPDX-License-Identifier: BSD-2-Clause */
/* auth - the user list and the password checks.
 *
 * The list is a sorted array, found by bisection: it is read once and asked once a login. Strings stand in an arena of the
 * list. The one thing that changes after parsing is the SCRAM secret of a user whose password is plain: deriving it
 * costs milliseconds, so it is done on first use and published with a compare-and-swap; workers that race derive the
 * same bytes (the salt depends on the process and the user only), and the loser frees its copy. */
#include "pgspan/auth.h"
#include "pgspan/arena.h"
#include "pgspan/sqlstate.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdatomic.h>

struct auth_user {
	struct span name, secret; /* NUL-terminated, in the list's arena */
	enum auth_secret_kind kind;
	unsigned line;
	/* The verifier's parts, or what a plain password was derived to; NULL: none, or not yet. malloc'd. */
	_Atomic(struct scram_secret *) *scram;
};

struct userlist {
	atomic_uint refs;
	struct arena arena;
	struct auth_user *users; /* sorted by name */
	size_t n, cap;
	bool has_scram;
};

/* ---- parsing ---- */

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static void
skip_blanks(struct span *line)
{
	while (line->n && is_blank(*line->p))
		*line = span_of(line->p + 1, line->n - 1);
}

/* Takes a quoted field off the front of *line*; what follows must be white space or the end, so that a quote that was
 * not doubled is found rather than cutting a password short. */
static bool
take_quoted(struct span *line, struct arena *a, struct span *out)
{
	char *to, *start;
	size_t i = 1;

	if (line->n == 0 || line->p[0] != '"')
		return false;
	start = to = arena_alloc(a, line->n);
	for (;; i++) {
		if (i == line->n)
			return false;
		if (line->p[i] == '"') {
			if (i + 1 == line->n || line->p[i + 1] != '"')
				break;
			i++;
		}
		*to++ = line->p[i];
	}
	*to = '\0';
	i++;
	if (i < line->n && !is_blank(line->p[i]))
		return false;
	*out = span_of(start, (size_t)(to - start));
	*line = span_of(line->p + i, line->n - i);
	return true;
}

static bool
is_md5(struct span s)
{
	if (s.n != AUTH_MD5_BYTES - 1 || memcmp(s.p, "md5", 3) != 0)
		return false;
	for (size_t i = 3; i < s.n; i++)
		if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
			return false;
	return true;
}

static enum rc
classify(struct auth_user *u, struct diag *d)
{
	struct scram_secret scram;

	if (u->secret.n > AUTH_PASSWORD_MAX_BYTES) {
		diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "line %u: the password is longer than %d bytes", u->line, AUTH_PASSWORD_MAX_BYTES);
		return RC_FAIL;
	}
	if (is_md5(u->secret)) {
		u->kind = AUTH_SECRET_MD5;
	} else if (u->secret.n >= 14 && memcmp(u->secret.p, SCRAM_MECHANISM "$", 14) == 0) {
		if (!scram_secret_parse(u->secret, &scram)) {
			diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "line %u: malformed SCRAM-SHA-256 verifier", u->line);
			diag_hint(d, "Expected SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>.");
			return RC_FAIL;
		}
		u->kind = AUTH_SECRET_SCRAM;
		struct scram_secret *kept = xmalloc(sizeof *kept);
		*kept = scram;
		atomic_store(u->scram, kept);
	}
	return RC_OK;
}

static struct auth_user *
add_user(struct userlist *ul, unsigned line)
{
	struct auth_user *u;

	if (ul->n == ul->cap) {
		ul->cap = ul->cap ? 2 * ul->cap : 16;
		ul->users = xrealloc(ul->users, ul->cap * sizeof *ul->users);
	}
	u = &ul->users[ul->n++];
	*u = (struct auth_user){.kind = AUTH_SECRET_PLAIN, .line = line};
	u->scram = xmalloc(sizeof *u->scram);
	atomic_init(u->scram, NULL);
	return u;
}

static enum rc
parse_line(struct userlist *ul, struct span line, unsigned number, struct diag *d)
{
	struct auth_user *u;
	struct span name, secret;

	skip_blanks(&line);
	if (line.n == 0 || line.p[0] == ';')
		return RC_OK;
	if (memchr(line.p, 0, line.n)) {
		diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "line %u: a zero byte", number);
		return RC_FAIL;
	}
	if (!take_quoted(&line, &ul->arena, &name) || (skip_blanks(&line), !take_quoted(&line, &ul->arena, &secret))) {
		diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "line %u: expected \"user\" \"password\"", number);
		diag_hint(d, "Both are in double quotes on one line; a double quote within is written twice.");
		return RC_FAIL;
	}
	if (name.n == 0) {
		diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "line %u: the user name is empty", number);
		return RC_FAIL;
	}
	u = add_user(ul, number);
	u->name = name;
	u->secret = secret;
	if (classify(u, d) != RC_OK)
		return RC_FAIL;
	ul->has_scram |= u->kind == AUTH_SECRET_SCRAM;
	return RC_OK;
}

static int
compare_names(struct span a, struct span b)
{
	int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int
compare_users(const void *a, const void *b)
{
	const struct auth_user *x = a, *y = b;
	int c = compare_names(x->name, y->name);

	return c ? c : (x->line > y->line) - (x->line < y->line);
}

static enum rc
sort_users(struct userlist *ul, struct diag *d)
{
	if (ul->n)
		qsort(ul->users, ul->n, sizeof *ul->users, compare_users);
	for (size_t i = 1; i < ul->n; i++)
		if (span_eq(ul->users[i - 1].name, ul->users[i].name)) {
			diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "line %u: user \"%s\" is already in line %u", ul->users[i].line,
				 ul->users[i].name.p, ul->users[i - 1].line);
			return RC_FAIL;
		}
	return RC_OK;
}

struct userlist *
userlist_parse(struct span text, struct diag *d)
{
	struct userlist *ul = xcalloc(1, sizeof *ul);
	unsigned number = 0;

	atomic_init(&ul->refs, 1);
	arena_init(&ul->arena);
	while (text.n) {
		const char *nl = memchr(text.p, '\n', text.n);
		size_t n = nl ? (size_t)(nl - text.p) : text.n;

		if (parse_line(ul, span_of(text.p, n), ++number, d) != RC_OK)
			goto fail;
		text = nl ? span_of(nl + 1, text.n - n - 1) : SPAN_NONE;
	}
	if (sort_users(ul, d) != RC_OK)
		goto fail;
	return ul;
fail:
	userlist_unref(ul);
	return NULL;
}

struct userlist *
userlist_of(struct span name, struct span secret, struct diag *d)
{
	struct userlist *ul = xcalloc(1, sizeof *ul);
	atomic_init(&ul->refs, 1);
	arena_init(&ul->arena);
	struct auth_user *u = add_user(ul, 1);
	u->name = span_of(arena_strndup(&ul->arena, name.p, name.n), name.n);
	u->secret = span_of(arena_strndup(&ul->arena, secret.p, secret.n), secret.n);
	if (classify(u, d) == RC_OK)
		return ul;
	userlist_unref(ul);
	return NULL;
}

bool
userlist_has_scram(const struct userlist *ul)
{
	return ul->has_scram;
}

const struct auth_user *
userlist_at(const struct userlist *ul, size_t i)
{
	return i < ul->n ? &ul->users[i] : NULL;
}

struct userlist *
userlist_ref(struct userlist *ul)
{
	atomic_fetch_add(&ul->refs, 1);
	return ul;
}

void
userlist_unref(struct userlist *ul)
{
	if (!ul || atomic_fetch_sub(&ul->refs, 1) != 1)
		return;
	for (size_t i = 0; i < ul->n; i++) {
		struct auth_user *u = &ul->users[i];
		struct scram_secret *scram = atomic_load(u->scram);

		if (scram)
			OPENSSL_cleanse(scram, sizeof *scram);
		free(scram);
		free(u->scram);
	}
	free(ul->users);
	arena_fini(&ul->arena);
	free(ul);
}

size_t
userlist_count(const struct userlist *ul)
{
	return ul->n;
}

const struct auth_user *
userlist_find(const struct userlist *ul, struct span name)
{
	size_t low = 0, high = ul->n;

	if (name.n == 0)
		return NULL;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = compare_names(name, ul->users[mid].name);

		if (c == 0)
			return &ul->users[mid];
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

enum auth_secret_kind
auth_user_kind(const struct auth_user *u)
{
	return u->kind;
}

const char *
auth_user_name(const struct auth_user *u)
{
	return u->name.p;
}

const char *
auth_user_secret(const struct auth_user *u)
{
	return u->secret.p;
}

bool
auth_user_must_derive(const struct auth_user *u)
{
	return u->kind == AUTH_SECRET_PLAIN && u->secret.n > 0 && !atomic_load(u->scram);
}

const struct scram_secret *
auth_user_scram(const struct auth_user *u, const unsigned char process_key[SCRAM_KEY_BYTES])
{
	struct scram_secret *have = atomic_load(u->scram), *mine;
	unsigned char salt[SCRAM_SALT_BYTES];

	/* An empty password logs nobody in, by no method. */
	if (have || u->kind != AUTH_SECRET_PLAIN || u->secret.n == 0)
		return have;
	mine = xcalloc(1, sizeof *mine);
	scram_salt_for(u->name, process_key, salt);
	if (scram_secret_from_password(u->secret, salt, sizeof salt, SCRAM_ITERATIONS, mine) != RC_OK) {
		free(mine);
		return NULL;
	}
	if (atomic_compare_exchange_strong(u->scram, &have, mine))
		return mine;
	free(mine);
	return have;
}

/* ---- checks ---- */

/* Equality of texts of any lengths, in a time that tells nothing of where they differ. */
static bool
same_text(struct span a, struct span b)
{
	unsigned char x[SHA256_DIGEST_LENGTH], y[SHA256_DIGEST_LENGTH];

	SHA256((const unsigned char *)a.p, a.n, x);
	SHA256((const unsigned char *)b.p, b.n, y);
	return CRYPTO_memcmp(x, y, sizeof x) == 0;
}

/* "md5" and the digits of md5(a + b). */
static enum rc
md5_text(struct span a, struct span b, char out[AUTH_MD5_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	unsigned char sum[16];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ok = ctx && EVP_DigestInit_ex(ctx, EVP_md5(), NULL) && EVP_DigestUpdate(ctx, a.p, a.n) &&
		 EVP_DigestUpdate(ctx, b.p, b.n) && EVP_DigestFinal_ex(ctx, sum, NULL);

	EVP_MD_CTX_free(ctx);
	if (!ok)
		return RC_FAIL;
	memcpy(out, "md5", 3);
	for (size_t i = 0; i < sizeof sum; i++) {
		out[3 + 2 * i] = digits[sum[i] >> 4];
		out[4 + 2 * i] = digits[sum[i] & 15];
	}
	out[AUTH_MD5_BYTES - 1] = '\0';
	return RC_OK;
}

enum rc
auth_md5_secret(struct span password, struct span user, char out[AUTH_MD5_BYTES])
{
	return md5_text(password, user, out);
}

enum rc
auth_md5_response(const char secret[AUTH_MD5_BYTES], const unsigned char salt[4], char out[AUTH_MD5_BYTES])
{
	return md5_text(span_of(secret + 3, 32), span_of((const char *)salt, 4), out);
}

bool
auth_check_cleartext(const struct auth_user *u, struct span password)
{
	char md5[AUTH_MD5_BYTES];

	if (password.n == 0 || password.n > AUTH_PASSWORD_MAX_BYTES)
		return false;
	if (!u) {
		(void)!same_text(password, SPAN_LIT("nobody"));
		return false;
	}
	switch (u->kind) {
	case AUTH_SECRET_PLAIN:
		return same_text(u->secret, password);
	case AUTH_SECRET_MD5:
		return auth_md5_secret(password, u->name, md5) == RC_OK && same_text(u->secret, span_str(md5));
	case AUTH_SECRET_SCRAM:
		return scram_secret_matches(atomic_load(u->scram), password);
	}
	return false;
}

bool
auth_check_md5(const struct auth_user *u, const unsigned char salt[4], struct span response)
{
	char secret[AUTH_MD5_BYTES], want[AUTH_MD5_BYTES];

	if (!u || u->kind == AUTH_SECRET_SCRAM || u->secret.n == 0) {
		if (auth_md5_secret(SPAN_LIT("nobody"), SPAN_LIT("nobody"), secret) == RC_OK && auth_md5_response(secret, salt, want) == RC_OK)
			(void)!same_text(span_str(want), response);
		return false;
	}
	if (u->kind == AUTH_SECRET_MD5)
		memcpy(secret, u->secret.p, AUTH_MD5_BYTES);
	else if (auth_md5_secret(u->secret, u->name, secret) != RC_OK)
		return false;
	return auth_md5_response(secret, salt, want) == RC_OK && same_text(span_str(want), response);
}

enum rc
auth_random(void *buf, size_t n)
{
	assert(n <= INT32_MAX);
	return RAND_bytes(buf, (int)n) == 1 ? RC_OK : RC_FAIL;
}
