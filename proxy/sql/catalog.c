/* SPDX-License-Identifier: BSD-2-Clause */
/* catalog - look-ups by name in a loaded catalog (catalog_load.c fills it).
 *
 * Callers: analyze, on a plan-cache miss only. Names resolve as PostgreSQL resolves them: pg_catalog comes
 * first unless the search path places it, and a session's temporary schema is not known here (struct
 * plan_env.has_temp_tables tells of those). For functions the answer joins all candidates of all schemas on the
 * path, because which overload is meant hangs on types that nobody has computed. */
#include <xxhash.h>

#include "catalog_int.h"

/* --- tables by name --- */

static uint64_t
name_key(const char *schema, const char *name)
{
	return XXH3_64bits_withSeed(name, strlen(name), XXH3_64bits(schema, strlen(schema)));
}

void
name_table_init(struct name_table *t, struct arena *a, size_t n_expected)
{
	size_t n = 16;

	while (n < n_expected * 2)
		n *= 2;
	t->slots = arena_zalloc(a, n * sizeof(*t->slots));
	t->mask = n - 1;
	t->used = 0;
}

void
name_table_put(struct name_table *t, const struct named *value)
{
	uint64_t key = name_key(value->schema, value->name);
	size_t i = key & t->mask;

	assert(t->used * 2 <= t->mask);
	while (t->slots[i].value != NULL)
		i = (i + 1) & t->mask;
	t->slots[i] = (struct name_slot){key, value};
	t->used++;
}

const struct named *
name_table_get(const struct name_table *t, const char *schema, const char *name)
{
	uint64_t key = name_key(schema, name);

	for (size_t i = key & t->mask; t->slots[i].value != NULL; i = (i + 1) & t->mask) {
		const struct named *v = t->slots[i].value;

		if (t->slots[i].key == key && strcmp(v->name, name) == 0 && strcmp(v->schema, schema) == 0)
			return v;
	}
	return NULL;
}

/* --- the search path --- */

/* The schemas that a name may be found in, in order. */
struct path_walk {
	const char *schema; /* the only one, when the name was qualified */
	const char *const *path;
	int n_path, at; /* at -1: the implicit pg_catalog */
};

static struct path_walk
path_walk_start(const char *schema, const char *const *path, int n_path)
{
	struct path_walk w = {schema, path, n_path, -1};

	for (int i = 0; i < n_path; i++)
		if (strcmp(path[i], "pg_catalog") == 0)
			w.at = 0;
	return w;
}

static const char *
path_walk_next(struct path_walk *w)
{
	const char *schema = w->schema;

	if (schema != NULL) {
		w->schema = NULL;
		w->at = w->n_path; /* nothing follows */
		return schema;
	}
	if (w->at == -1) {
		w->at = 0;
		return "pg_catalog";
	}
	return w->at < w->n_path ? w->path[w->at++] : NULL;
}

static const struct named *
find_first(const struct name_table *t, const char *schema, const char *name, const char *const *path, int n_path)
{
	struct path_walk w = path_walk_start(schema, path, n_path);

	for (const char *s; (s = path_walk_next(&w)) != NULL;) {
		const struct named *v = name_table_get(t, s, name);

		if (v != NULL)
			return v;
	}
	return NULL;
}

/* --- the public face --- */

struct catalog *
catalog_ref(struct catalog *c)
{
	c->refs++;
	return c;
}

void
catalog_unref(struct catalog *c)
{
	if (c == NULL || --c->refs > 0)
		return;
	if (c->release)
		c->release(c->keeps);
	arena_fini(&c->arena);
	free(c);
}

void
catalog_keep(struct catalog *c, void *what, void (*release)(void *what), uint64_t epoch)
{
	c->keeps = what;
	c->release = release;
	c->epoch = epoch;
}

uint64_t
catalog_epoch(const struct catalog *c)
{
	return c->epoch;
}

uint64_t
catalog_version(const struct catalog *c)
{
	return c->version;
}

int
catalog_server_version(const struct catalog *c)
{
	return c->server_version;
}

bool
catalog_default_byte_ordered(const struct catalog *c)
{
	return c->default_byte_ordered;
}

const struct catalog_relation *
catalog_find_relation(const struct catalog *c, const char *schema, const char *name, const char *const *path, int n_path)
{
	return (const struct catalog_relation *)find_first(&c->relations, schema, name, path, n_path);
}

const struct catalog_column *
catalog_find_column(const struct catalog_relation *r, const char *name, int *index)
{
	for (int i = 0; i < r->n_columns; i++)
		if (strcmp(r->columns[i].name, name) == 0) {
			if (index != NULL)
				*index = i;
			return &r->columns[i];
		}
	return NULL;
}

void
function_merge(struct catalog_function *into, const struct catalog_function *add)
{
	if (into->volatility == FUNCTION_UNKNOWN) {
		*into = *add;
		return;
	}
	if (add->volatility > into->volatility)
		into->volatility = add->volatility;
	into->builtin &= add->builtin;
	into->is_aggregate |= add->is_aggregate;
	into->is_window |= add->is_window;
	into->returns_set |= add->returns_set;
	into->has_effects |= add->has_effects;
	into->touches_sharded |= add->touches_sharded;
}

struct catalog_function
catalog_find_function(const struct catalog *c, const char *schema, const char *name, const char *const *path, int n_path)
{
	struct catalog_function fn = {.volatility = FUNCTION_UNKNOWN};
	struct path_walk w = path_walk_start(schema, path, n_path);

	for (const char *s; (s = path_walk_next(&w)) != NULL;) {
		const struct function_group *g = (const struct function_group *)name_table_get(&c->functions, s, name);

		if (g != NULL)
			function_merge(&fn, &g->fn);
	}
	return fn;
}

bool
catalog_operator_is_safe(const struct catalog *c, const char *name)
{
	const struct operator_entry *o = (const struct operator_entry *)name_table_get(&c->operators, "", name);

	return o != NULL && o->safe;
}

uint32_t
catalog_find_type(const struct catalog *c, const char *schema, const char *name, const char *const *path, int n_path)
{
	const struct type_entry *t = (const struct type_entry *)find_first(&c->types, schema, name, path, n_path);

	return t != NULL ? t->oid : 0;
}
