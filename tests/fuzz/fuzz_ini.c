/* link: proxy/ops/config.o proxy/ops/config_ini.o proxy/ops/config_key.o proxy/ops/config_mistake.o proxy/ops/config_print.o proxy/ops/config_value.o proxy/base/arena.o proxy/base/diag.o proxy/base/log.o proxy/base/mem.o proxy/proto/auth.o proxy/proto/ident.o proxy/proto/hba.o proxy/proto/hba_token.o proxy/net/tls_context.o proxy/proto/scram.o proxy/proto/wire.o proxy/proto/msg.o proxy/proto/msg_put.o shardmap/map.o shardmap/rowhash.o shardmap/key.o shardmap/key_input.o shardmap/key_type.o shardmap/decimal.o shardmap/text.o */
/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz_ini - any bytes as a proxy.ini. Checked: a refusal tells why, each report is one line, a mistake and a snapshot
 * exclude each other, and what config_print() writes loads as the same configuration without a word (unless it hid a
 * password, which may then read otherwise). */
#include "pgspan/config.h"

#define CHECK(x)                                                                  \
	do {                                                                      \
		if (!(x)) {                                                       \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);   \
			abort();                                                  \
		}                                                                 \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
on_report(void *arg, bool is_error, const char *line)
{
	int *n_errors = arg;
	*n_errors += is_error;
	CHECK(strncmp(line, "/nowhere/p.ini", 14) == 0);
	CHECK(!strpbrk(line, "\r\n"));
}

static struct config *
load(const char *bytes, size_t n)
{
	int n_errors = 0;
	FILE *in = n ? fmemopen((void *)(uintptr_t)bytes, n, "r") : fopen("/dev/null", "r");
	CHECK(in);
	struct config *c = config_load_stream(in, "/nowhere/p.ini", on_report, &n_errors);
	fclose(in);
	CHECK((c == NULL) == (n_errors > 0));
	return c;
}

static char *
print(const struct config *c, size_t *n)
{
	char *text;
	FILE *out = open_memstream(&text, n);
	config_print(c, out);
	fclose(out);
	return text;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *c = load((const char *)data, size);
	if (!c)
		return 0;
	size_t n, n_again;
	char *text = print(c, &n);
	bool hidden = false;
	for (int i = 0; i < c->n_databases; i++)
		for (int s = 0; s < c->databases[i].n_shards; s++)
			for (int k = 0; k < c->databases[i].shards[s].n_servers; k++)
				hidden |= c->databases[i].shards[s].servers[k].has_password;
	config_unref(c);
	if (!hidden) {
		c = load(text, n);
		CHECK(c);
		char *again = print(c, &n_again);
		CHECK(n == n_again && memcmp(text, again, n) == 0);
		free(again);
		config_unref(c);
	}
	free(text);
	return 0;
}
