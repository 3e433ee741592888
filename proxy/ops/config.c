/* SPDX-License-Identifier: BSD-2-Clause */
/* config - from the sections and entries of a proxy.ini to a checked snapshot.
 *
 *   config_ini.c -> name_sections() -> read_proxy() -> read_database()s -> read_shard()s -> finish_database()s -> finish_proxy()
 *
 * Order in the file means nothing: [proxy] is read first, because it gives the databases' defaults, and shards are read
 * when every database is known. A mistake never ends the reading: all are collected, and a snapshot is only handed out
 * when there were none. What follows from a mistake that was reported is not reported again: a section whose header is
 * wrong is passed over, a map is only checked for gaps when every shard's ranges were understood.
 *
 * Until then a database is a draft: it keeps the lines that its parts came from. Drafts and all else that the snapshot
 * does not need are in loader.tmp. */
#include "config_int.h"

#include "pgspan/auth.h"
#include "pgspan/hba.h"
#include "pgspan/ident.h"

#include <limits.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	DATABASE_NAME_MAX_BYTES = 63, /* PostgreSQL's NAMEDATALEN - 1 */
	INSTANCE_NAME_MAX_BYTES = 24, /* leaves room in a prepared transaction's name (200 bytes) */
	AUTH_FILE_MAX_BYTES = 64 * 1024 * 1024,
	MAX_KEYS = 64,
};

#define SERVERS_EXPECTED "expected one \"primary = ...\" line"

/* The servers of one shard, or of a database without shards. servers[0] is kept for the primary. */
struct shard_draft {
	int number;
	int line;         /* its section's */
	int primary_line; /* 0: none */
	int servers_line; /* the first primary or replica line; 0: none */
	int buckets_line; /* 0: none */
	const char *ranges;
	bool lost; /* its section lost a line: don't complain of what is missing */
	struct server_config *servers;
	int n_servers; /* 1 while there are no replicas */
};

struct database_draft {
	const char *name;
	int line;
	struct database_settings set;
	struct shard_draft own; /* what stands in [database:x] itself */
	struct shard_draft *shards;
	int n_shards, cap_shards;
	bool broken_shard; /* a [shard:x:…] header was refused: don't complain of gaps */
	struct table_config *tables;
	int *table_lines;
	int n_tables;
	int sharding_line; /* the first buckets, hash or table line; 0: none */
	const char *sharding_key;
};

/* What a section's header says. */
struct section {
	unsigned place; /* enum key_place; 0: pass it over */
	int index;      /* of the database's draft */
	int shard;      /* index in that draft's shards */
};

struct loader {
	struct config *c;
	const char *path;
	struct mistakes m;
	struct ini_doc doc;
	struct arena tmp;
	struct section *sections; /* one for each of doc.sections */
	struct database_draft *dbs;
	int n_dbs;
	int proxy_section_line; /* 0: none yet */
	bool proxy_is_clean;    /* no mistake in [proxy]: what isn't set was not meant to be */
	int proxy_lines[MAX_KEYS]; /* where [proxy] sets config_keys[i]; 0: nowhere */
	bool has_passwords;
};

/* ---- sections ---- */

static struct database_draft *
find_draft(struct loader *l, const char *name)
{
	for (int i = 0; i < l->n_dbs; i++)
		if (strcmp(l->dbs[i].name, name) == 0)
			return &l->dbs[i];
	return NULL;
}

static const char *
skip_blanks(const char *s)
{
	return s + strspn(s, " \t");
}

static const char *
header_text(struct loader *l, const struct ini_section *s)
{
	return arena_printf(&l->tmp, "[%s]", s->name);
}

static void
told_twice(struct loader *l, const struct ini_section *s, int first)
{
	mistake_add(&l->m, s->line, header_text(l, s), "the section stands twice, first in line %d; expected each section once", first);
}

static void
name_database(struct loader *l, const struct ini_section *s, struct section *out, const char *name)
{
	const char *head = header_text(l, s);
	const struct database_draft *first = find_draft(l, name);
	if (*name == '\0') {
		mistake_add(&l->m, s->line, head, "no name; expected [database:NAME]");
	} else if (strlen(name) > DATABASE_NAME_MAX_BYTES) {
		mistake_add(&l->m, s->line, head, "the name is %zu bytes long; expected at most %d, as PostgreSQL keeps", strlen(name),
		            DATABASE_NAME_MAX_BYTES);
	} else if (strcmp(name, "pgspan") == 0 || strcmp(name, "pgbouncer") == 0) {
		mistake_add(&l->m, s->line, head, "the name is the console's; expected another one");
	} else if (first) {
		told_twice(l, s, first->line);
	} else {
		out->place = IN_DATABASE;
		out->index = l->n_dbs;
		l->dbs[l->n_dbs++] = (struct database_draft){.name = name, .line = s->line, .own.line = s->line};
	}
}

/* 0 to MAX_SHARDS - 1 in digits without leading zeros; -1: it isn't one. */
static int
shard_number(const char *s)
{
	size_t n = strspn(s, "0123456789");
	if (n == 0 || n > 4 || s[n] || (*s == '0' && n > 1))
		return -1;
	int v = (int)strtol(s, NULL, 10);
	return v < MAX_SHARDS ? v : -1;
}

static void
name_shard(struct loader *l, const struct ini_section *s, struct section *out, const char *rest)
{
	const char *head = header_text(l, s);
	const char *colon = strrchr(rest, ':');
	if (!colon || colon == rest) {
		mistake_add(&l->m, s->line, head, "the header is not complete; expected [shard:NAME:N]");
		return;
	}
	char *name = arena_strndup(&l->tmp, rest, (size_t)(colon - rest));
	for (char *end = name + strlen(name); end > name && strchr(" \t", end[-1]); end--)
		end[-1] = '\0';
	const char *digits = skip_blanks(colon + 1);
	struct database_draft *db = find_draft(l, name);
	int number = shard_number(digits);
	if (number < 0)
		mistake_add(&l->m, s->line, head, "\"%s\" is not a shard's number; expected 0 to %d", digits, MAX_SHARDS - 1);
	if (!db) {
		const char **names = arena_alloc(&l->tmp, (size_t)(l->n_dbs + 1) * sizeof *names);
		for (int i = 0; i < l->n_dbs; i++)
			names[i] = l->dbs[i].name;
		names[l->n_dbs] = NULL;
		const char *near = config_word_nearest(name, names);
		mistake_add(&l->m, s->line, head, "there is no database \"%s\"; expected the name of a [database:NAME] section%s%s%s",
		            name, near ? ", perhaps \"" : "", near ? near : "", near ? "\"" : "");
		return;
	}
	if (number < 0) {
		db->broken_shard = true;
		return;
	}
	for (int i = 0; i < db->n_shards; i++)
		if (db->shards[i].number == number) {
			told_twice(l, s, db->shards[i].line);
			return;
		}
	if (db->n_shards == db->cap_shards) {
		db->cap_shards = db->cap_shards ? db->cap_shards * 2 : 8;
		struct shard_draft *wider = arena_zalloc(&l->tmp, (size_t)db->cap_shards * sizeof *wider);
		if (db->n_shards)
			memcpy(wider, db->shards, (size_t)db->n_shards * sizeof *wider);
		db->shards = wider;
	}
	out->place = IN_SHARD;
	out->index = (int)(db - l->dbs);
	out->shard = db->n_shards;
	db->shards[db->n_shards++] = (struct shard_draft){.number = number, .line = s->line};
}

/* What follows *prefix* and blanks in *name*; NULL: it begins otherwise. */
static const char *
after(const char *name, const char *prefix)
{
	size_t n = strlen(prefix);
	return strncmp(name, prefix, n) == 0 ? skip_blanks(name + n) : NULL;
}

static void
name_sections(struct loader *l)
{
	struct ini_doc *doc = &l->doc;
	size_t n = (size_t)doc->n_sections + 1; /* one more: neither is ever empty */
	l->sections = arena_zalloc(&l->tmp, n * sizeof *l->sections);
	l->dbs = arena_zalloc(&l->tmp, n * sizeof *l->dbs);
	for (int i = 0; i < doc->n_sections; i++) {
		const struct ini_section *s = &doc->sections[i];
		const char *name;
		if (strcmp(s->name, "proxy") == 0) {
			if (l->proxy_section_line)
				told_twice(l, s, l->proxy_section_line);
			else {
				l->sections[i].place = IN_PROXY;
				l->proxy_section_line = s->line;
			}
		} else if ((name = after(s->name, "database:"))) {
			name_database(l, s, &l->sections[i], name);
		} else if (!after(s->name, "shard:")) {
			static const char *const words[] = {"proxy", "database", "shard", NULL};
			const char *word = arena_strndup(&l->tmp, s->name, strcspn(s->name, ": \t"));
			const char *near = config_word_nearest(word, words);
			mistake_add(&l->m, s->line, header_text(l, s), "unknown section; expected [proxy], [database:NAME] or [shard:NAME:N]%s%s%s",
			            near ? ", perhaps \"" : "", near ? near : "", near ? "\"" : "");
		}
	}
	for (int i = 0; i < doc->n_sections; i++) {
		const char *rest = after(doc->sections[i].name, "shard:");
		if (rest)
			name_shard(l, &doc->sections[i], &l->sections[i], rest);
	}
}

/* ---- entries ---- */

static const char *
places_text(unsigned places)
{
	static const char *const texts[] = {
		[IN_PROXY] = "[proxy]",
		[IN_DATABASE] = "[database:NAME]",
		[IN_SHARD] = "[shard:NAME:N]",
		[IN_PROXY | IN_DATABASE] = "[proxy] or [database:NAME]",
		[IN_DATABASE | IN_SHARD] = "[database:NAME] or [shard:NAME:N]",
		[IN_PROXY | IN_DATABASE | IN_SHARD] = "any section",
	};
	return texts[places];
}

/* The row of the entry's key. NULL: it may not stand here, or not again, and that was reported. *lost* is set when it
 * can't be told what was meant. */
static const struct config_key *
take_key(struct loader *l, const struct ini_entry *e, unsigned place, int *lines, bool *lost)
{
	const struct config_key *key = config_key_find(e->key);
	if (!key) {
		const char *near = config_key_nearest(e->key, place);
		*lost = true;
		mistake_add(&l->m, e->line, e->key, "unknown key; expected a key of %s%s%s%s", places_text(place),
		            near ? ", perhaps \"" : "", near ? near : "", near ? "\"" : "");
		return NULL;
	}
	if (!(key->places & place)) {
		mistake_add(&l->m, e->line, e->key, "not a key of %s; expected in %s", places_text(place), places_text(key->places));
		return NULL;
	}
	int *line = &lines[key - config_keys];
	if (*line && key->type != VAL_SERVER && key->type != VAL_TABLE) {
		mistake_add(&l->m, e->line, e->key, "given twice, first in line %d; expected one line", *line);
		return NULL;
	}
	if (!*line)
		*line = e->line;
	return key;
}

/* The section's entries; NULL when the file has none at all. */
static const struct ini_entry *
section_entries(const struct loader *l, int section, int *n)
{
	const struct ini_doc *doc = &l->doc;
	int first = doc->sections[section].first;
	*n = (section + 1 < doc->n_sections ? doc->sections[section + 1].first : doc->n_entries) - first;
	return doc->entries ? doc->entries + first : NULL;
}

static void
read_proxy(struct loader *l)
{
	struct config *c = l->c;
	int told = l->m.n_errors;
	bool lost = false;
	for (int i = 0; i < n_config_keys; i++) {
		const struct config_key *key = &config_keys[i];
		if (key->def && key->places & IN_PROXY)
			config_key_set(key, key->for_database ? (void *)&c->defaults : c, key->def, &c->mem, &l->m, 0);
	}
	for (int s = 0; s < l->doc.n_sections; s++) {
		int n;
		const struct ini_entry *e = section_entries(l, s, &n);
		if (l->sections[s].place != IN_PROXY)
			continue;
		lost |= l->doc.sections[s].lost;
		for (; n > 0; n--, e++) {
			const struct config_key *key = take_key(l, e, IN_PROXY, l->proxy_lines, &lost);
			if (key)
				config_key_set(key, key->for_database ? (void *)&c->defaults : c, e->value, &c->mem, &l->m, e->line);
		}
	}
	l->proxy_is_clean = !lost && l->m.n_errors == told;
}

static void
read_server(struct loader *l, struct shard_draft *sh, const struct ini_entry *e, const char *dbname)
{
	bool is_primary = strcmp(e->key, "primary") == 0;
	struct server_config server = {.role = is_primary ? SERVER_PRIMARY : SERVER_REPLICA};
	if (!sh->servers_line)
		sh->servers_line = e->line;
	if (is_primary && sh->primary_line) {
		mistake_add(&l->m, e->line, e->key, "given twice, first in line %d; expected one primary, and replicas in replica lines",
		            sh->primary_line);
		return;
	}
	if (is_primary)
		sh->primary_line = e->line;
	if (config_server_parse(&server, e->value, dbname, &l->c->mem, &l->m, e->line, e->key) != RC_OK)
		return;
	l->has_passwords |= server.has_password;
	sh->servers[is_primary ? 0 : sh->n_servers++] = server;
}

static void
read_table(struct loader *l, struct database_draft *db, const struct ini_entry *e)
{
	struct table_config t;
	if (config_table_parse(&t, e->value, &l->c->mem, &l->m, e->line) != RC_OK)
		return;
	for (int i = 0; i < db->n_tables; i++)
		if (strcmp(db->tables[i].name, t.name) == 0 && strcmp(db->tables[i].schema, t.schema) == 0) {
			mistake_add(&l->m, e->line, e->key, "table %s.%s is named twice, first in line %d; expected one line for a table",
			            t.schema, t.name, db->table_lines[i]);
			return;
		}
	db->table_lines[db->n_tables] = e->line;
	db->tables[db->n_tables++] = t;
}

/* Room for as many servers as the section has lines, and the primary's. */
static void
make_room(struct loader *l, struct shard_draft *sh, int n_entries)
{
	sh->servers = arena_zalloc(&l->c->mem, (size_t)(n_entries + 1) * sizeof *sh->servers);
	sh->n_servers = 1;
}

static void
read_database(struct loader *l, struct database_draft *db, const struct ini_entry *e, int n)
{
	int lines[MAX_KEYS] = {0};
	db->set = l->c->defaults;
	make_room(l, &db->own, n);
	db->tables = arena_zalloc(&l->c->mem, (size_t)(n + 1) * sizeof *db->tables);
	db->table_lines = arena_zalloc(&l->tmp, (size_t)(n + 1) * sizeof *db->table_lines);
	for (; n > 0; n--, e++) {
		const struct config_key *key = take_key(l, e, IN_DATABASE, lines, &db->own.lost);
		if (!key)
			continue;
		bool is_sharding = key->type == VAL_TABLE || key->type == VAL_BUCKETS || strcmp(key->name, "hash") == 0;
		if (is_sharding && !db->sharding_line) {
			db->sharding_line = e->line;
			db->sharding_key = key->name;
		}
		if (key->type == VAL_SERVER)
			read_server(l, &db->own, e, db->name);
		else if (key->type == VAL_TABLE)
			read_table(l, db, e);
		else
			config_key_set(key, &db->set, e->value, &l->c->mem, &l->m, e->line);
	}
}

static void
read_shard(struct loader *l, struct database_draft *db, struct shard_draft *sh, const struct ini_entry *e, int n)
{
	int lines[MAX_KEYS] = {0};
	make_room(l, sh, n);
	for (; n > 0; n--, e++) {
		const struct config_key *key = take_key(l, e, IN_SHARD, lines, &sh->lost);
		if (!key)
			continue;
		if (key->type == VAL_SERVER) {
			read_server(l, sh, e, db->name);
		} else {
			sh->ranges = config_unquote(e->value, &l->tmp);
			sh->buckets_line = e->line;
		}
	}
}

/* ---- checks of the whole, and the snapshot's form ---- */

static void
finish_servers(struct loader *l, const struct shard_draft *sh, struct shard_config *out, const char *head)
{
	*out = (struct shard_config){.number = sh->number, .servers = sh->servers, .n_servers = sh->n_servers};
	if (!sh->primary_line && !sh->lost)
		mistake_add(&l->m, sh->line, head, "no primary; " SERVERS_EXPECTED);
}

static int
by_number(const void *a, const void *b)
{
	return ((const struct shard_draft *)a)->number - ((const struct shard_draft *)b)->number;
}

/* Builds the map. Its gaps are only looked at when everything that could fill them was understood. */
static void
finish_map(struct loader *l, struct database_draft *db, struct database_config *out, bool complete)
{
	char err[256];
	struct shardmap_builder *b = shardmap_builder_new((uint32_t)db->set.buckets, db->set.hash, err, sizeof err);
	if (!b) {
		mistake_add(&l->m, db->line, "buckets", "%s", err);
		return;
	}
	for (int i = 0; i < db->n_shards; i++) {
		const struct shard_draft *sh = &db->shards[i];
		if (!sh->buckets_line) {
			if (!sh->lost)
				mistake_add(&l->m, sh->line, arena_printf(&l->tmp, "[shard:%s:%d]", db->name, sh->number),
				            "no buckets; expected \"buckets = FIRST-LAST\"");
			complete = false;
		} else if (!sh->ranges) {
			mistake_add(&l->m, sh->buckets_line, "buckets", "text after the closing quote; expected nothing there");
			complete = false;
		} else if (shardmap_builder_add(b, sh->number, sh->ranges, err, sizeof err) != RC_OK) {
			mistake_add(&l->m, sh->buckets_line, "buckets", "%s; expected ranges of 0-%d, each bucket in one shard", err,
			            db->set.buckets - 1);
			complete = false;
		}
	}
	if (complete && !(out->map = shardmap_builder_build(b, err, sizeof err)))
		mistake_add(&l->m, db->line, arena_printf(&l->tmp, "[database:%s]", db->name),
		            "%s; expected every bucket of 0-%d in one shard", err, db->set.buckets - 1);
	shardmap_builder_free(b);
}

static void
finish_sharded(struct loader *l, struct database_draft *db, struct database_config *out, const char *head)
{
	out->sharded = true;
	if (db->own.servers_line)
		mistake_add(&l->m, db->own.servers_line, head,
		            "the database has shards and servers of its own; expected primary and replica lines in [shard:%s:N] only",
		            db->name);
	qsort(db->shards, (size_t)db->n_shards, sizeof *db->shards, by_number);
	out->n_shards = db->n_shards;
	out->shards = arena_zalloc(&l->c->mem, (size_t)db->n_shards * sizeof *out->shards);
	for (int i = 0; i < db->n_shards; i++) {
		const struct shard_draft *sh = &db->shards[i];
		finish_servers(l, sh, &out->shards[i], arena_printf(&l->tmp, "[shard:%s:%d]", db->name, sh->number));
	}
	int highest = db->shards[db->n_shards - 1].number;
	bool gap = highest != db->n_shards - 1;
	if (gap && !db->broken_shard) {
		int missing = 0;
		while (db->shards[missing].number == missing)
			missing++;
		mistake_add(&l->m, db->line, head, "there is a shard %d, but no shard %d; expected shards 0 to %d without gaps", highest,
		            missing, highest);
	}
	finish_map(l, db, out, !gap && !db->broken_shard);
}

static void
finish_database(struct loader *l, struct database_draft *db, struct database_config *out)
{
	const char *head = arena_printf(&l->tmp, "[database:%s]", db->name);
	out->name = arena_strdup(&l->c->mem, db->name);
	out->set = db->set;
	out->tables = db->tables;
	out->n_tables = db->n_tables;
	if (db->n_shards) {
		finish_sharded(l, db, out, head);
		return;
	}
	out->n_shards = 1;
	out->shards = arena_zalloc(&l->c->mem, sizeof *out->shards);
	if (db->broken_shard)
		return;
	if (db->sharding_line)
		mistake_add(&l->m, db->sharding_line, db->sharding_key,
		            "database \"%s\" has no shards; expected [shard:%s:0] and so on, or no buckets, hash and table lines", db->name,
		            db->name);
	else if (!db->own.servers_line && !db->own.lost)
		mistake_add(&l->m, db->line, head, "no servers; " SERVERS_EXPECTED ", or [shard:%s:N] sections", db->name);
	else
		finish_servers(l, &db->own, out->shards, head);
}

/* Where [proxy] sets the key; 0: nowhere. */
static int
line_of(const struct loader *l, const char *key)
{
	return l->proxy_lines[config_key_find(key) - config_keys];
}

/* A relative *file* is in proxy.ini's folder. */
static char *
resolve(struct loader *l, const char *file)
{
	const char *slash = strrchr(l->path, '/');
	char folder[PATH_MAX];
	const char *dir = slash ? arena_strndup(&l->tmp, l->path, (size_t)(slash - l->path) + 1) : ".";
	if (*file == '/' || !realpath(dir, folder))
		return arena_strdup(&l->c->mem, file);
	return arena_printf(&l->c->mem, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, file);
}

static bool
others_may_read(FILE *f)
{
	struct stat st;
	int fd = fileno(f); /* -1: memory */
	return fd != -1 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & (S_IRGRP | S_IROTH)) != 0;
}

static bool
asks_for_users(const struct loader *l)
{
	for (int i = 0; i < l->c->n_databases; i++)
		if (*l->c->databases[i].set.auth_user)
			return true;
	return *l->c->defaults.auth_user != '\0';
}

/* All of a file that *key* names, in malloc's memory; NULL: a mistake was added. */
static char *
read_file(struct loader *l, const char *key, const char *path, bool is_secret, size_t *n)
{
	int line = line_of(l, key);
	FILE *f = fopen(path, "re");
	if (!f) {
		mistake_add(&l->m, line, key, "%s: %m; expected a file that pgspan can read", path);
		return NULL;
	}
	if (is_secret && others_may_read(f))
		mistake_warn(&l->m, line, key, "%s can be read by others than its owner; expected mode 0600", path);
	size_t cap = 64 * 1024, got;
	char *text = xmalloc(cap);
	*n = 0;
	while ((got = fread(text + *n, 1, cap - *n, f)) > 0) {
		*n += got;
		if (*n == cap && cap < AUTH_FILE_MAX_BYTES)
			text = xrealloc(text, cap *= 2);
	}
	bool bad = ferror(f), whole = feof(f);
	if (bad)
		mistake_add(&l->m, line, key, "%s: %m; expected a file that pgspan can read", path);
	else if (!whole)
		mistake_add(&l->m, line, key, "%s is too long; expected at most %d bytes", path, AUTH_FILE_MAX_BYTES);
	fclose(f);
	if (!bad && whole)
		return text;
	explicit_bzero(text, *n);
	free(text);
	return NULL;
}

static void
read_users(struct loader *l)
{
	struct config *c = l->c;
	struct diag d = {0};
	size_t n;
	char *text = read_file(l, "auth_file", c->auth_file, true, &n);
	if (!text)
		return;
	if (!(c->users = userlist_parse(span_of(text, n), &d)))
		mistake_add(&l->m, line_of(l, "auth_file"), "auth_file", "%s: %s; expected lines of \"name\" \"password or verifier\"",
		            c->auth_file, d.message);
	explicit_bzero(text, n);
	free(text);
}

static void
read_ident(struct loader *l)
{
	struct config *c = l->c;
	struct diag d = {0};
	size_t n;
	if (*c->auth_ident_file) {
		c->auth_ident_file = resolve(l, c->auth_ident_file);
		char *text = read_file(l, "auth_ident_file", c->auth_ident_file, false, &n);
		if (!text)
			return;
		if (!(c->ident = ident_parse(span_of(text, n), &d)))
			mistake_add(&l->m, line_of(l, "auth_ident_file"), "auth_ident_file", "%s: %s", c->auth_ident_file, d.message);
		free(text);
		if (!c->ident)
			return;
	}
	if (*c->auth_cert_map && !(c->ident && ident_has(c->ident, c->auth_cert_map)))
		mistake_add(&l->m, line_of(l, "auth_cert_map"), "auth_cert_map", "there is no map \"%s\"; expected one of auth_ident_file",
		            c->auth_cert_map);
}

/* A file that a rule names behind '@'. */
static char *
read_hba_names(void *arg, const char *from, const char *name, char **path, size_t *n, char *why, size_t why_size)
{
	struct loader *l = arg;
	const char *base = from ? from : l->c->auth_hba_file, *slash = strrchr(base, '/');
	*path = *name == '/' || !slash ? xstrdup(name) : xstrdup(arena_printf(&l->tmp, "%.*s%s", (int)(slash - base) + 1, base, name));
	char *text = read_file(l, "auth_hba_file", *path, false, n);
	if (!text) {
		snprintf(why, why_size, "@%s cannot be read", name);
		free(*path);
	}
	return text;
}

static void
hba_mistake(void *arg, unsigned line, const char *text)
{
	struct loader *l = arg;
	mistake_add(&l->m, line_of(l, "auth_hba_file"), "auth_hba_file", "%s:%u: %s", l->c->auth_hba_file, line, text);
}

/* Rules that can never let anybody in, or could not check what they ask for. */
static void
check_hba_rules(struct loader *l)
{
	struct config *c = l->c;
	const struct hba_rule *r;
	for (size_t i = 0; (r = hba_rule_at(c->hba, i)); i++) {
		bool secrets = r->method == HBA_PASSWORD || r->method == HBA_MD5 || r->method == HBA_SCRAM;
		bool certs = r->method == HBA_CERT || r->clientcert != HBA_CERT_NOT_ASKED;
		if (r->map && !(c->ident && ident_has(c->ident, r->map)))
			hba_mistake(l, r->line, arena_printf(&l->tmp, "there is no map \"%s\"; expected one of auth_ident_file", r->map));
		if (certs && (c->client_tls.mode == TLS_DISABLE || !*c->client_tls.ca_file))
			hba_mistake(l, r->line, "clients' certificates need client_tls_sslmode and client_tls_ca_file");
		if (secrets && !*c->auth_file && !asks_for_users(l))
			hba_mistake(l, r->line, "passwords need auth_file or auth_user");
	}
}

static void
read_hba(struct loader *l)
{
	struct config *c = l->c;
	struct hba_reader reader = {read_hba_names, l};
	size_t n;
	if (c->auth_type == AUTH_TYPE_HBA && !*c->auth_hba_file && l->proxy_is_clean)
		mistake_add(&l->m, line_of(l, "auth_type"), "auth_hba_file", "not set, but auth_type = hba needs it; expected a file");
	if (!*c->auth_hba_file)
		return;
	c->auth_hba_file = resolve(l, c->auth_hba_file);
	char *text = read_file(l, "auth_hba_file", c->auth_hba_file, false, &n);
	if (!text)
		return;
	c->hba = hba_parse(span_of(text, n), &reader, hba_mistake, l);
	free(text);
	if (c->hba && c->auth_type == AUTH_TYPE_HBA && l->proxy_is_clean)
		check_hba_rules(l);
}

static void
check_auth_databases(struct loader *l)
{
	struct config *c = l->c;
	for (int i = -1; i < c->n_databases; i++) {
		const struct database_settings *set = i < 0 ? &c->defaults : &c->databases[i].set;
		if (!*set->auth_dbname || (i >= 0 && strcmp(set->auth_dbname, c->defaults.auth_dbname) == 0))
			continue;
		if (!find_draft(l, set->auth_dbname))
			mistake_add(&l->m, i < 0 ? line_of(l, "auth_dbname") : 0, "auth_dbname",
			            "there is no database \"%s\"; expected the name of a [database:NAME] section", set->auth_dbname);
	}
}

/* Adds the mistake that tls_context_new() told of. */
static void
tls_mistake(struct loader *l, char at, const struct diag *d)
{
	static const struct {
		char at;
		const char *key, *expected;
	} settings[] = {
		{'k', "client_tls_key_file", "the private key of client_tls_cert_file, PEM, without a pass phrase"},
		{'c', "client_tls_cert_file", "a certificate, PEM"},
		{'a', "client_tls_ca_file", "certificates, PEM"},
		{'p', "client_tls_protocols", "tlsv1.2, tlsv1.3, or secure for both"},
		{'i', "client_tls_ciphers", "OpenSSL's cipher list, or default"},
		{'s', "client_tls13_ciphers", "OpenSSL's cipher suites, or default"},
		{'u', "client_tls_ecdhcurve", "OpenSSL's groups, or auto"},
	};
	for (size_t i = 0; i < ARRAY_LEN(settings); i++)
		if (settings[i].at == at)
			mistake_add(&l->m, line_of(l, settings[i].key), settings[i].key, "%s; expected %s", d->message, settings[i].expected);
}

static char *
resolve_set(struct loader *l, char *file)
{
	return *file ? resolve(l, file) : file;
}

static void
read_tls(struct loader *l)
{
	struct config *c = l->c;
	struct tls_settings *t = &c->client_tls;
	t->key_file = resolve_set(l, t->key_file);
	t->cert_file = resolve_set(l, t->cert_file);
	t->ca_file = resolve_set(l, t->ca_file);
	if (c->auth_type == AUTH_TYPE_CERT && t->mode < TLS_VERIFY_CA && l->proxy_is_clean)
		mistake_add(&l->m, line_of(l, "auth_type"), "auth_type", "cert needs clients' certificates; expected client_tls_sslmode = verify-full");
	if (t->mode == TLS_DISABLE || !l->proxy_is_clean)
		return;
	int line = line_of(l, "client_tls_sslmode");
	bool whole = true;
	if (!*t->key_file || !*t->cert_file) {
		const char *key = *t->key_file ? "client_tls_cert_file" : "client_tls_key_file";
		mistake_add(&l->m, line, key, "not set, but client_tls_sslmode needs it; expected a file, or client_tls_sslmode = disable");
		whole = false;
	}
	if (t->mode >= TLS_VERIFY_CA && !*t->ca_file) {
		mistake_add(&l->m, line, "client_tls_ca_file", "not set, but clients' certificates must be verified; expected a file");
		whole = false;
	}
	if (!whole)
		return;
	struct diag d = {0};
	char at = 0;
	FILE *f = fopen(t->key_file, "re");
	if (f && others_may_read(f))
		mistake_warn(&l->m, line_of(l, "client_tls_key_file"), "client_tls_key_file",
		             "%s can be read by others than its owner; expected mode 0600", t->key_file);
	if (f)
		fclose(f);
	c->tls = tls_context_new(t, &at, &d);
	if (!c->tls)
		tls_mistake(l, at, &d);
}

/* "host_6432" from the host's name and the port: the port whole, the name cut. */
static char *
derive_instance_name(struct config *c)
{
	char host[256] = "pgspan", port[8];
	if (gethostname(host, sizeof host - 1) == -1 || host[0] == '\0')
		snprintf(host, sizeof host, "pgspan");
	int n_port = snprintf(port, sizeof port, "_%d", c->listen_port);
	for (char *p = host; *p; p++) {
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p - 'A' + 'a');
		else if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9')))
			*p = '_';
	}
	return arena_printf(&c->mem, "%.*s%s", INSTANCE_NAME_MAX_BYTES - n_port, host, port);
}

static void
finish_names(struct loader *l)
{
	struct config *c = l->c;
	if (!c->instance_name || !*c->instance_name) {
		c->instance_name = derive_instance_name(c);
	} else {
		size_t n = strlen(c->instance_name);
		if (n > INSTANCE_NAME_MAX_BYTES || c->instance_name[strspn(c->instance_name, "abcdefghijklmnopqrstuvwxyz0123456789_")])
			mistake_add(&l->m, line_of(l, "instance_name"), "instance_name", "\"%s\" can't be used; expected 1 to %d of a-z, 0-9, _",
			            c->instance_name, INSTANCE_NAME_MAX_BYTES);
	}
	if (!c->monitor_user || !*c->monitor_user)
		c->monitor_user = arena_strdup(&c->mem, c->n_admin_users ? c->admin_users[0] : "postgres");
}

static void
check_listening(struct loader *l)
{
	struct config *c = l->c;
	int line = line_of(l, "listen_addr");
	bool comma = true; /* an address must follow */
	const char *p = c->listen_addr;
	while (*p) {
		size_t n = strcspn(p, ", \t");
		if (n) {
			bool named = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_%:") >= n;
			const char *colon = memchr(p, ':', n);
			bool host_port = colon && !memchr(colon + 1, ':', n - (size_t)(colon + 1 - p));
			if (!comma || host_port || (!named && !(n == 1 && *p == '*')))
				mistake_add(&l->m, line, "listen_addr",
				            "\"%.*s\" is not an address; expected addresses or host names with commas between, or *", (int)n, p);
			comma = false;
		}
		p += n;
		if (*p == ',') {
			if (comma)
				mistake_add(&l->m, line, "listen_addr", "an empty address; expected addresses with commas between");
			comma = true;
		}
		p += *p != '\0';
	}
	if (comma && *c->listen_addr)
		mistake_add(&l->m, line, "listen_addr", "an empty address; expected addresses with commas between");
	struct sockaddr_un un;
	char port[8];
	size_t path = strlen(c->unix_socket_dir) + strlen("/.s.PGSQL.") + (size_t)snprintf(port, sizeof port, "%d", c->listen_port);
	if (path >= sizeof un.sun_path)
		mistake_add(&l->m, line_of(l, "unix_socket_dir"), "unix_socket_dir",
		            "the socket's path would be %zu bytes long; expected at most %zu", path, sizeof un.sun_path - 1);
	if (!*c->listen_addr && !*c->unix_socket_dir)
		mistake_add(&l->m, line, "listen_addr", "empty, and so is unix_socket_dir; expected one of them, or nobody can connect");
}

static void
finish_proxy(struct loader *l, FILE *in)
{
	struct config *c = l->c;
	if (c->workers == 0) {
		long cores = sysconf(_SC_NPROCESSORS_ONLN);
		c->workers = cores < 1 ? 1 : cores > 256 ? 256 : (int)cores;
	}
	finish_names(l);
	check_listening(l);
	if (*c->auth_file) {
		c->auth_file = resolve(l, c->auth_file);
		read_users(l);
	} else if (c->auth_type >= AUTH_TYPE_PASSWORD && c->auth_type <= AUTH_TYPE_SCRAM && l->proxy_is_clean && !asks_for_users(l)) {
		mistake_add(&l->m, line_of(l, "auth_type"), "auth_file", "not set, but auth_type needs it; expected a file, or auth_type = trust");
	}
	read_ident(l);
	read_hba(l);
	check_auth_databases(l);
	read_tls(l);
	if (!l->n_dbs && !l->m.n_errors)
		mistake_add(&l->m, 0, NULL, "no database; expected a [database:NAME] section");
	if (l->has_passwords && others_may_read(in))
		mistake_warn(&l->m, 0, NULL, "holds passwords and can be read by others than its owner; expected mode 0600");
}

/* ---- the public face ---- */

static void
build(struct loader *l, FILE *in)
{
	struct config *c = l->c;
	assert(n_config_keys <= MAX_KEYS);
	ini_doc_read(&l->doc, in, &l->m);
	name_sections(l);
	read_proxy(l);
	for (int s = 0; s < l->doc.n_sections; s++) {
		int n;
		const struct section *what = &l->sections[s];
		const struct ini_entry *e = section_entries(l, s, &n);
		struct database_draft *db = &l->dbs[what->index];
		if (what->place == IN_DATABASE) {
			db->own.lost = l->doc.sections[s].lost;
			read_database(l, db, e, n);
		} else if (what->place == IN_SHARD) {
			db->shards[what->shard].lost = l->doc.sections[s].lost;
			read_shard(l, db, &db->shards[what->shard], e, n);
		}
	}
	c->databases = arena_zalloc(&c->mem, (size_t)(l->n_dbs + 1) * sizeof *c->databases);
	c->n_databases = l->n_dbs;
	for (int i = 0; i < l->n_dbs; i++)
		finish_database(l, &l->dbs[i], &c->databases[i]);
	finish_proxy(l, in);
}

struct config *
config_load_stream(FILE *in, const char *path, config_report_fn report, void *arg)
{
	struct config *c = xcalloc(1, sizeof *c);
	struct loader *l = xcalloc(1, sizeof *l);
	arena_init(&c->mem);
	c->refs = 1;
	c->path = arena_strdup(&c->mem, path);
	l->c = c;
	l->path = path;
	arena_init(&l->tmp);
	mistakes_init(&l->m, path);

	build(l, in);
	mistakes_report(&l->m, report, arg);
	if (l->m.n_errors) {
		config_unref(c);
		c = NULL;
	}
	ini_doc_fini(&l->doc);
	mistakes_fini(&l->m);
	arena_fini(&l->tmp);
	free(l);
	return c;
}

struct config *
config_load(const char *path, config_report_fn report, void *arg)
{
	FILE *in = fopen(path, "re");
	if (!in) {
		struct mistakes m;
		mistakes_init(&m, path);
		mistake_add(&m, 0, NULL, "%m; expected a file that pgspan can read");
		mistakes_report(&m, report, arg);
		mistakes_fini(&m);
		return NULL;
	}
	struct config *c = config_load_stream(in, path, report, arg);
	fclose(in);
	return c;
}

struct config *
config_ref(struct config *c)
{
	c->refs++;
	return c;
}

void
config_unref(struct config *c)
{
	if (!c || --c->refs > 0)
		return;
	for (int i = 0; i < c->n_databases; i++)
		shardmap_unref(c->databases[i].map);
	userlist_unref(c->users);
	ident_free(c->ident);
	hba_free(c->hba);
	tls_context_unref(c->tls);
	arena_fini(&c->mem);
	free(c);
}

const struct database_config *
config_database(const struct config *c, const char *name)
{
	for (int i = 0; i < c->n_databases; i++)
		if (strcmp(c->databases[i].name, name) == 0)
			return &c->databases[i];
	return NULL;
}

bool
config_is_admin(const struct config *c, const char *user)
{
	for (int i = 0; i < c->n_admin_users; i++)
		if (strcmp(c->admin_users[i], user) == 0)
			return true;
	return false;
}
