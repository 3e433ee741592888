/* SPDX-License-Identifier: BSD-2-Clause */
/* shardmap-tool - which bucket, and which shard, a key lives in: the library at a shell's hand.
 *
 * Values are read as PostgreSQL reads a quoted literal of the key's type. Exit status: 0; 2 for a value that has no
 * bucket or a wrong command line, after all other values were answered. */
#include "shardmap.h"

struct options {
	enum key_type type;
	bool has_type;
	enum shardmap_strategy strategy;
	uint32_t buckets;
	const char *map;   /* NULL: not given */
	const char **values;
	int n_values;
};

static int
usage(FILE *to)
{
	fprintf(to, "usage: shardmap bucket --type TYPE [--hash xxh64|postgres] [--buckets N] [--] VALUE...\n"
	            "       shardmap shard --map \"0-4095;4096-8191;...\" --type TYPE [...] [--] VALUE...\n"
	            "\n"
	            "bucket prints a line \"VALUE BUCKET\" for each value, shard \"VALUE BUCKET SHARD\".\n"
	            "TYPE is the key column's: smallint, integer, bigint, text, varchar, char, uuid, bytea, boolean, date.\n"
	            "--map lists the buckets of shard 0, 1, ... between semicolons. The default is 16384 buckets and xxh64.\n");
	return to == stdout ? 0 : 2;
}

static int
complain(const char *what, const char *about)
{
	fprintf(stderr, "shardmap: %s%s\n", what, about);
	return 2;
}

static int
set_option(struct options *o, const char *name, const char *value)
{
	if (strcmp(name, "--type") == 0) {
		o->has_type = key_type_from_name(value, &o->type);
		return o->has_type ? 0 : complain("no key type: ", value);
	}
	if (strcmp(name, "--hash") == 0)
		return shardmap_strategy_from_name(value, &o->strategy) ? 0 : complain("no hash strategy: ", value);
	if (strcmp(name, "--buckets") == 0) {
		char *end;
		unsigned long n = strtoul(value, &end, 10);
		if (end == value || *end || n > SHARDMAP_MAX_BUCKETS)
			return complain("not a number of buckets: ", value);
		o->buckets = (uint32_t)n;
		return 0;
	}
	if (strcmp(name, "--map") == 0) {
		o->map = value;
		return 0;
	}
	return complain("no such option: ", name);
}

/* Options may stand among the values until "--"; "-1" is a value. */
static int
read_options(struct options *o, int argc, char **argv)
{
	bool only_values = false;
	for (int i = 2; i < argc; i++) {
		if (only_values || strncmp(argv[i], "--", 2) != 0) {
			o->values[o->n_values++] = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--") == 0) {
			only_values = true;
			continue;
		}
		if (i + 1 == argc)
			return complain("a value is missing after ", argv[i]);
		int rc = set_option(o, argv[i], argv[i + 1]);
		if (rc)
			return rc;
		i++;
	}
	if (!o->has_type)
		return complain("--type is missing", "");
	return o->n_values ? 0 : complain("no value was given", "");
}

/* The map that --map describes; without it, one that gives all buckets to shard 0. */
static struct shardmap *
build_map(const struct options *o, char *err, size_t err_size)
{
	struct shardmap *map = NULL;
	struct shardmap_builder *b = shardmap_builder_new(o->buckets, o->strategy, err, err_size);
	if (!b)
		return NULL;
	char all[32];
	snprintf(all, sizeof all, "0-%u", o->buckets - 1);
	const char *rest = o->map ? o->map : all;
	for (int shard = 0; rest; shard++) {
		size_t n = strcspn(rest, ";");
		char *ranges = strndup(rest, n);
		if (!ranges)
			abort();
		enum rc rc = shardmap_builder_add(b, shard, ranges, err, err_size);
		free(ranges);
		if (rc != RC_OK)
			goto done;
		rest = rest[n] ? rest + n + 1 : NULL;
	}
	map = shardmap_builder_build(b, err, err_size);
done:
	shardmap_builder_free(b);
	return map;
}

static int
answer(const struct options *o, const struct shardmap *map, const char *value, bool with_shard)
{
	struct key_scratch scratch;
	struct span key;
	int rc = 2;
	key_scratch_init(&scratch);
	switch (key_from_text(o->type, KEY_COMPARE, span_str(value), &scratch, &key)) {
	case KEY_OK: {
		uint32_t bucket = shardmap_bucket(map, &o->type, &key, 1);
		if (with_shard)
			printf("%s %u %d\n", value, bucket, shardmap_shard_of_bucket(map, bucket));
		else
			printf("%s %u\n", value, bucket);
		rc = 0;
		break;
	}
	case KEY_NO_ROW:
		fprintf(stderr, "shardmap: no row has the %s key \"%s\"\n", key_type_name(o->type), value);
		break;
	case KEY_SERVER_DECIDES:
		fprintf(stderr, "shardmap: \"%s\" is out of range or bad syntax for type %s\n", value, key_type_name(o->type));
		break;
	case KEY_UNKNOWN:
		fprintf(stderr, "shardmap: this spelling of a %s is not read here: \"%s\"%s\n", key_type_name(o->type), value,
		        o->type == KEY_DATE ? " (YYYY-MM-DD is)" : "");
		break;
	}
	key_scratch_fini(&scratch);
	return rc;
}

int
main(int argc, char **argv)
{
	struct options o = {.buckets = SHARDMAP_DEFAULT_BUCKETS, .strategy = SHARDMAP_XXH64};
	if (argc >= 2 && strcmp(argv[1], "--help") == 0)
		return usage(stdout);
	if (argc < 2 || (strcmp(argv[1], "bucket") != 0 && strcmp(argv[1], "shard") != 0))
		return usage(stderr);
	bool with_shard = strcmp(argv[1], "shard") == 0;
	o.values = calloc((size_t)argc, sizeof *o.values);
	if (!o.values)
		abort();
	struct shardmap *map = NULL;
	char err[256];
	int rc = read_options(&o, argc, argv);
	if (rc == 0 && with_shard && !o.map)
		rc = complain("--map is missing", "");
	if (rc == 0 && !(map = build_map(&o, err, sizeof err)))
		rc = complain(err, "");
	for (int i = 0; map && i < o.n_values; i++)
		rc |= answer(&o, map, o.values[i], with_shard);
	shardmap_unref(map);
	free(o.values);
	return rc;
}
