/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/ident.o proxy/base/arena.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
/* fuzz_ident - the first line is a certificate's name, the rest a file of user-name maps: nothing overruns, and a map that is
 * not there allows nobody. */
#include "pgspan/ident.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const char *p = (const char *)data, *nl = n ? memchr(p, '\n', n) : NULL;
	struct diag d = {0};
	/* Long lines make regexec slow, which is the administrator's own doing. */
	if (!nl || nl - p > 64 || n > 512)
		return 0;
	size_t rest = n - (size_t)(nl - p) - 1;
	char *name = xstrndup(p, (size_t)(nl - p)), *text = xmalloc(rest ? rest : 1);
	memcpy(text, nl + 1, rest);
	struct ident_maps *m = ident_parse(span_of(text, rest), &d);
	if (!m && !diag_is_set(&d))
		abort();
	if (m) {
		(void)ident_allows(m, "m", name, "u");
		(void)ident_allows(m, "m", name, name);
		if (!ident_has(m, "absent") && ident_allows(m, "absent", name, name))
			abort();
	}
	ident_free(m);
	free(name);
	free(text);
	return 0;
}
