/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/hba.o proxy/proto/hba_token.o proxy/proto/wire.o proxy/base/arena.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
/* fuzz_hba - a file of rules, which is its own @file, too: nothing overruns, a refusal says why, and a rule that fits is one of the
 * file's. */
#include "pgspan/hba.h"

#include <netinet/in.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct span whole;

static char *
read_whole(void *arg, const char *from, const char *name, char **path, size_t *n, char *why, size_t why_size)
{
	(void)arg;
	(void)from;
	if (strcmp(name, "gone") == 0) {
		snprintf(why, why_size, "gone");
		return NULL;
	}
	*path = xstrdup(name);
	*n = whole.n;
	char *text = xmalloc(whole.n + 1);
	memcpy(text, whole.p, whole.n);
	return text;
}

static void
count(void *arg, unsigned line, const char *text)
{
	(void)text;
	if (line == 0)
		abort();
	++*(int *)arg;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct hba_reader reader = {read_whole, NULL};
	int mistakes = 0;
	if (n == 0 || n > 2048)
		return 0;
	char *text = xmalloc(n);
	memcpy(text, data, n);
	whole = span_of(text, n);
	struct hba *h = hba_parse(whole, &reader, count, &mistakes);
	if (!h != (mistakes > 0))
		abort();
	if (h) {
		struct sockaddr_in6 sa = {.sin6_family = AF_INET6};
		struct hba_client c = {.addr = (struct sockaddr *)&sa, .tls = n & 1, .physical_replication = n & 2, .database = "db", .user = "user"};
		memcpy(&sa.sin6_addr, data, n < 16 ? n : 16);
		const struct hba_rule *r = hba_match(h, &c);
		size_t i = 0;
		while (hba_rule_at(h, i) && hba_rule_at(h, i) != r)
			i++;
		if (r && !hba_rule_at(h, i))
			abort();
	}
	hba_free(h);
	free(text);
	return 0;
}
