/* SPDX-License-Identifier: BSD-2-Clause */
/* config_print - a snapshot as a proxy.ini, and the manual of its keys. Both go by the table in config_key.c. */
#include "config_int.h"

static void
print_keys(const struct config *c, const struct database_config *db, FILE *out, struct arena *tmp)
{
	for (int i = 0; i < n_config_keys; i++) {
		const struct config_key *key = &config_keys[i];
		const char *text;
		if (db) {
			if (!key->for_database)
				continue;
			text = config_key_text(key, &db->set, tmp);
			/* What decides where rows live is always shown. */
			bool is_sharding = key->type == VAL_BUCKETS || strcmp(key->name, "hash") == 0;
			if (!(db->sharded && is_sharding) && strcmp(text, config_key_text(key, &c->defaults, tmp)) == 0)
				continue;
		} else {
			if (!(key->places & IN_PROXY) || key->type == VAL_UNUSED)
				continue;
			text = config_key_text(key, key->for_database ? (const void *)&c->defaults : c, tmp);
		}
		fprintf(out, "%s =%s%s\n", key->name, *text ? " " : "", text);
	}
}

static void
print_servers(const struct shard_config *sh, FILE *out, struct arena *tmp)
{
	for (int i = 0; i < sh->n_servers; i++)
		fprintf(out, "%s = %s\n", sh->servers[i].role == SERVER_PRIMARY ? "primary" : "replica",
		        config_server_masked(&sh->servers[i], tmp));
}

/* The buckets of *shard* as ranges. */
static void
print_ranges(const struct shardmap *map, int shard, FILE *out)
{
	uint32_t n = shardmap_buckets(map);
	const char *before = " ";
	fputs("buckets =", out);
	for (uint32_t i = 0; i < n; i++) {
		if (shardmap_shard_of_bucket(map, i) != shard)
			continue;
		uint32_t first = i;
		while (i + 1 < n && shardmap_shard_of_bucket(map, i + 1) == shard)
			i++;
		fprintf(out, first == i ? "%s%u" : "%s%u-%u", before, first, i);
		before = ", ";
	}
	putc('\n', out);
}

void
config_print(const struct config *c, FILE *out)
{
	struct arena tmp;
	arena_init(&tmp);
	fputs("[proxy]\n", out);
	print_keys(c, NULL, out, &tmp);
	for (int i = 0; i < c->n_databases; i++) {
		const struct database_config *db = &c->databases[i];
		fprintf(out, "\n[database:%s]\n", db->name);
		print_keys(c, db, out, &tmp);
		for (int t = 0; t < db->n_tables; t++)
			fprintf(out, "table = %s\n", config_table_text(&db->tables[t], &tmp));
		if (!db->sharded)
			print_servers(&db->shards[0], out, &tmp);
		for (int s = 0; db->sharded && s < db->n_shards; s++) {
			fprintf(out, "\n[shard:%s:%d]\n", db->name, db->shards[s].number);
			print_ranges(db->map, s, out);
			print_servers(&db->shards[s], out, &tmp);
		}
	}
	arena_fini(&tmp);
}

/* ---- docs/configuration.md ---- */

static const char *
type_text(const struct config_key *key, struct arena *tmp)
{
	struct text t;
	switch (key->type) {
	case VAL_TEXT:
	case VAL_UNUSED:
		return "text";
	case VAL_WORDS:
		return "list";
	case VAL_INT:
		return arena_printf(tmp, "%lld to %lld", (long long)key->min, (long long)key->max);
	case VAL_BUCKETS:
		return arena_printf(tmp, "a power of two, %lld to %lld", (long long)key->min, (long long)key->max);
	case VAL_TIME:
		return key->min == 0 ? "time" : "time, not 0";
	case VAL_SIZE:
		return arena_printf(tmp, "size, %lld to %lld", (long long)key->min, (long long)key->max);
	case VAL_SERVER:
		return "connection string";
	case VAL_TABLE:
		return "table";
	case VAL_ENUM:
		break;
	}
	text_init(&t, tmp);
	for (int i = 0; key->words[i]; i++) {
		text_puts(&t, i ? ", `" : "`");
		text_puts(&t, key->words[i]);
		text_putc(&t, '`');
	}
	return t.p;
}

/* The keys that may stand in just these *places*; what shards may have is in their text. */
static void
print_key_table(FILE *out, unsigned places, struct arena *tmp)
{
	fputs("| key | value | default | |\n|---|---|---|---|\n", out);
	for (int i = 0; i < n_config_keys; i++) {
		const struct config_key *key = &config_keys[i];
		if ((key->places & (IN_PROXY | IN_DATABASE)) != places)
			continue;
		const char *quote = key->def && *key->def ? "`" : "";
		fprintf(out, "| `%s` | %s | %s%s%s | %s |\n", key->name, type_text(key, tmp), quote, key->def ? key->def : "", quote, key->doc);
	}
}

void
config_print_reference(FILE *out)
{
	struct arena tmp;
	arena_init(&tmp);
	fputs("# proxy.ini\n"
	      "\n"
	      "<!-- Made from the table in proxy/ops/config_key.c (config_print_reference); tests/unit/ops/test_config.c compares\n"
	      "     the two, and writes this file with WRITE_DOCS=1. -->\n"
	      "\n"
	      "`pgspan --check proxy.ini` prints the effective configuration, passwords hidden, or every mistake with its file, line,\n"
	      "key and what was expected. SIGHUP reads the file again: all of it is taken, or none.\n"
	      "\n"
	      "## Form\n"
	      "\n"
	      "- Lines are `[section]` or `key = value`. White space before and after each is left aside; a line never continues the one\n"
	      "  before it.\n"
	      "- `;` and `#` begin a comment at a line's start, or after white space outside quotes: `password=a;b` is whole.\n"
	      "- A value that has to be quoted stands in `\"...\"`, with `\"\"` for a `\"` in it. In connection strings quotes are libpq's:\n"
	      "  `password='a;b #c'`, with a backslash before `'` and `\\`.\n"
	      "- A line has at most 65536 bytes. Nothing is ever cut: what is too long is an error.\n"
	      "- A key stands once in a section, but `primary`, `replica` and `table` as the sections below say. The order of sections\n"
	      "  and keys means nothing.\n"
	      "- A *time* is a whole number of seconds, or has a unit: `500ms`, `90s`, `15min`, `2h`. A *size* is in bytes, or has a unit:\n"
	      "  `64kB`, `16MB`, `1GB`. A *list* has commas between its names.\n"
	      "\n"
	      "## [proxy]\n"
	      "\n",
	      out);
	print_key_table(out, IN_PROXY, &tmp);
	fputs("\n"
	      "## [database:NAME], with defaults for all databases in [proxy]\n"
	      "\n"
	      "NAME is what clients give as dbname. `pgspan` and `pgbouncer` are the console's.\n"
	      "\n",
	      out);
	print_key_table(out, IN_PROXY | IN_DATABASE, &tmp);
	fputs("\n"
	      "## [database:NAME] and [shard:NAME:N]\n"
	      "\n"
	      "A database has servers of its own, or shards: sections `[shard:NAME:0]`, `[shard:NAME:1]` and so on without gaps, each with\n"
	      "`primary`, any number of `replica` lines, and the `buckets` that it owns. `table`, `buckets` and `hash` are for databases with\n"
	      "shards.\n"
	      "\n",
	      out);
	print_key_table(out, IN_DATABASE, &tmp);
	arena_fini(&tmp);
}
