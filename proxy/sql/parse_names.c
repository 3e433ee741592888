/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_names - what relations, functions and types the names of a statement mean.
 *
 * The catalog answers, by the session's search path. Where it has no answer the name is unknown, which is never
 * a read and never a key; a configured table that the catalog does not have is told apart (REL_UNSEEN), as it
 * was probably created a moment ago. */
#include "parse_int.h"

const char *
name_at(const List *names, int i)
{
	Node *n = list_nth(names, i);

	return IsA(n, String) ? strVal(n) : "";
}

/* a, s.a, db.s.a; false for anything longer. */
bool
split_name(const List *names, const char **schema, const char **name)
{
	int n = list_length(names);

	*schema = n > 1 ? name_at(names, n - 2) : NULL;
	*name = n > 0 ? name_at(names, n - 1) : "";
	return n >= 1 && n <= 3;
}

static bool
on_path(const struct plan_env *env, const char *schema)
{
	for (int i = 0; i < env->n_search_path; i++)
		if (strcmp(env->search_path[i], schema) == 0)
			return true;
	return env->n_search_path == 0 && strcmp(schema, "public") == 0;
}

const struct table_config *
configured_table(const struct analysis *an, const char *schema, const char *name)
{
	const struct database_config *db = an->env->db;

	for (int i = 0; db != NULL && i < db->n_tables; i++) {
		const struct table_config *t = &db->tables[i];

		if (strcmp(t->name, name) == 0 && (schema != NULL ? strcmp(t->schema, schema) == 0 : on_path(an->env, t->schema)))
			return t;
	}
	return NULL;
}

/* On a sharded database: where the rows of a relation that the catalog knows are. */
static enum relation_class
class_of(const struct catalog_relation *rel)
{
	bool plain = rel->relkind != 'v' && rel->relkind != 'm';

	if (rel->table != NULL && plain)
		return rel->table->kind == TABLE_SHARDED ? REL_SHARDED : REL_REFERENCE;
	if (rel->reach & REACH_SHARDED)
		return REL_SHARDED_VIEW;
	if (rel->relkind == 'v' && (rel->reach & REACH_REFERENCE))
		return rel->reach & (REACH_LOCAL | REACH_FOREIGN | REACH_VOLATILE) ? REL_LOCAL : REL_REFERENCE;
	return REL_LOCAL;
}

struct relation_ref
resolve_name(const struct analysis *an, const char *schema, const char *name)
{
	struct relation_ref ref = {.class = REL_UNKNOWN};
	const struct plan_env *env = an->env;

	if (env->catalog != NULL)
		ref.rel = catalog_find_relation(env->catalog, schema, name, env->search_path, env->n_search_path);
	if (ref.rel != NULL) {
		ref.class = an->sharded ? class_of(ref.rel) : REL_LOCAL;
		ref.table = ref.rel->table;
		return ref;
	}
	if (an->sharded && (ref.table = configured_table(an, schema, name)) != NULL)
		ref.class = REL_UNSEEN;
	return ref;
}

struct relation_ref
resolve_relation(const struct analysis *an, const RangeVar *rv, const struct cte_name *ctes)
{
	if (rv->schemaname == NULL)
		for (; ctes != NULL; ctes = ctes->up)
			if (strcmp(ctes->name, rv->relname) == 0)
				return (struct relation_ref){.class = REL_CTE};
	return resolve_name(an, rv->schemaname, rv->relname);
}

bool
resolve_key(struct analysis *an, const struct relation_ref *ref, struct key_info *out)
{
	const struct table_config *t = ref->table;

	out->table = t;
	if (t->n_key < 1 || t->n_key > MAX_KEY_COLUMNS) {
		refuse(an, "pgspan cannot route by a key of %d columns", t->n_key);
		return false;
	}
	for (int i = 0; i < t->n_key; i++) {
		const struct catalog_column *c = catalog_find_column(ref->rel, t->key[i], &out->columns[i]);

		if (c == NULL) {
			refuse(an, "table \"%s\" has no column \"%s\", which is configured as its shard key", t->name, t->key[i]);
			refuse_hint(an, "Correct the key of this table in proxy.ini.");
			return false;
		}
		if (!key_type_from_oid(c->type_oid, &out->types[i])) {
			refuse(an, "column \"%s\" of table \"%s\" cannot be a shard key", t->key[i], t->name);
			diag_detail(&an->plan->refusal, "%s", key_type_refusal(c->type_oid));
			return false;
		}
		bool text = out->types[i] == KEY_TEXT || out->types[i] == KEY_VARCHAR || out->types[i] == KEY_BPCHAR;

		if (text && !c->deterministic) {
			refuse(an, "column \"%s\" of table \"%s\" cannot be a shard key", t->key[i], t->name);
			diag_detail(&an->plan->refusal, "Its collation is nondeterministic: values that are equal may differ in their bytes.");
			return false;
		}
	}
	return true;
}

/* An element type's array type, for those that a key is compared with. */
static uint32_t
array_of(uint32_t element)
{
	static const uint32_t pairs[][2] = {
	    {16, 1000}, {17, 1001}, {21, 1005}, {23, 1007}, {25, 1009}, {1042, 1014}, {1043, 1015}, {20, 1016}, {1082, 1182},
	    {1700, 1231}, {2950, 2951},
	};

	for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
		if (pairs[i][0] == element)
			return pairs[i][1];
	return 0;
}

/* 0: not known, or with a modifier that may change the value (varchar(3), numeric(4,1)). */
uint32_t
resolve_type(const struct analysis *an, const TypeName *type)
{
	const char *schema, *name;

	if (an->env->catalog == NULL || type == NULL || type->setof || type->pct_type || type->typmods != NIL ||
	    !split_name(type->names, &schema, &name))
		return 0;
	uint32_t oid = catalog_find_type(an->env->catalog, schema, name, an->env->search_path, an->env->n_search_path);

	return type->arrayBounds != NIL ? array_of(oid) : oid;
}

struct catalog_function
resolve_function(const struct analysis *an, const List *funcname, const char **name)
{
	const char *schema;

	if (!split_name(funcname, &schema, name) || an->env->catalog == NULL)
		return (struct catalog_function){.volatility = FUNCTION_UNKNOWN};
	return catalog_find_function(an->env->catalog, schema, *name, an->env->search_path, an->env->n_search_path);
}
