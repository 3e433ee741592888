/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/auth.o proxy/proto/msg.o proxy/proto/msg_put.o proxy/proto/scram.o proxy/proto/startup.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o proxy/base/arena.o */
/* fuzz_scram - the input, cut at its newlines: client-first, client-final (with and without TLS), a verifier, and an auth_file in the rest. Nothing may
 * overrun, nobody gets in without the password, and what parses as a verifier prints as it was. */
#include "pgspan/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct span
take_line(struct span *s)
{
	const char *nl = s->n ? memchr(s->p, '\n', s->n) : NULL;
	struct span line = span_of(s->p, nl ? (size_t)(nl - s->p) : s->n);

	*s = nl ? span_of(nl + 1, s->n - line.n - 1) : SPAN_NONE;
	return line;
}

/* A copy of its own size, so that a read past its end is seen. NULL's span stays one. */
static struct span
tight(struct span s)
{
	char *p = malloc(s.n ? s.n : 1);

	if (s.n)
		memcpy(p, s.p, s.n);
	return span_of(p, s.n);
}

static void
release(struct span s)
{
	union {
		const char *borrowed;
		void *owned;
	} p = {s.p};

	free(p.owned);
}

/* *mechanism* NULL: without TLS. */
static void
dialogue(const char *mechanism, struct span first, struct span final)
{
	static const unsigned char key[SCRAM_KEY_BYTES] = {1};
	struct scram s;
	struct wbuf out = {0};
	struct diag d = {0};

	if (scram_begin(&s, NULL, SPAN_LIT("u"), key) != RC_OK)
		abort();
	memcpy(s.server_nonce, "NONCE", 6);
	if (mechanism) {
		scram_offer_binding(&s, SPAN_LIT("digest"));
		if (!scram_choose(&s, span_str(mechanism)))
			abort();
	}
	if (scram_client_first(&s, first, &out, &d) == RC_OK && scram_client_final(&s, final, &out, &d) == RC_OK)
		abort();
	wbuf_fini(&out);
	scram_fini(&s);
}

static void
verifier(struct span text)
{
	struct scram_secret secret;
	char again[SCRAM_VERIFIER_MAX_BYTES];

	if (!scram_secret_parse(text, &secret))
		return;
	scram_secret_format(&secret, again);
	/* Iterations may have leading zeroes: compare what stands behind them. */
	if (strlen(again) > text.n || memcmp(strchr(again, ':'), memchr(text.p, ':', text.n), strlen(strchr(again, ':'))) != 0)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span rest = span_of((const char *)data, n), first = tight(take_line(&rest)), final = tight(take_line(&rest));
	struct span text = tight(take_line(&rest)), file = tight(rest);
	struct diag d = {0};
	struct userlist *ul;

	dialogue(NULL, first, final);
	dialogue(SCRAM_MECHANISM, first, final);
	dialogue(SCRAM_MECHANISM_PLUS, first, final);
	verifier(text);
	ul = userlist_parse(file, &d);
	if (!ul && !diag_is_set(&d))
		abort();
	if (ul && userlist_find(ul, first) && auth_user_name(userlist_find(ul, first))[0] == '\0')
		abort();
	userlist_unref(ul);
	release(first);
	release(final);
	release(text);
	release(file);
	return 0;
}
