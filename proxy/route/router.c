/* SPDX-License-Identifier: BSD-2-Clause */
/* router - see router.h. From a plan's key groups to a set of shards:
 *
 *   condition  "column k is one of these values"   the union of the values' shards
 *   group      all conditions on one key           the intersection of its conditions
 *   statement  all its groups                      one group: its set. More: all the same single shard, or refused
 *
 * Every step may only widen the set: a value that is not known gives all shards, and a condition that is left out
 * narrows nothing. The one exception is a value that PostgreSQL will raise an error for: any one shard will do then.
 *
 * A key of several columns has a shard only as a whole: one condition is picked for each column, and every
 * combination of their values is looked up. */
#include "pgspan/config.h"
#include "router_int.h"

enum {
	MAX_COMBINATIONS = 1024, /* of a several-column key's values; beyond: all shards */
	MAX_KEY_COLUMNS = 32,    /* PostgreSQL's INDEX_MAX_KEYS: a longer key could not be a primary key */
};

/* --- sets --- */

void
target_clear(struct target_set *t)
{
	memset(t, 0, sizeof(*t));
}

int
target_next(const struct target_set *t, int after)
{
	int from = after + 1;

	for (int w = from / 64; w < MAX_SHARDS / 64; w++) {
		uint64_t bits = t->bits[w];

		if (w == from / 64)
			bits &= ~UINT64_C(0) << (from % 64);
		if (bits != 0)
			return w * 64 + __builtin_ctzll(bits);
	}
	return -1;
}

void
target_all(struct target_set *t, const struct database_config *db)
{
	target_clear(t);
	for (int i = 0; i < db->n_shards; i++)
		target_add(t, db->shards[i].number);
}

static void
target_intersect(struct target_set *t, const struct target_set *with)
{
	t->count = 0;
	for (int w = 0; w < MAX_SHARDS / 64; w++) {
		t->bits[w] &= with->bits[w];
		t->count += __builtin_popcountll(t->bits[w]);
	}
}

static int
first_shard(const struct database_config *db)
{
	return db->shards[0].number;
}

static void
target_only(struct target_set *t, int shard)
{
	target_clear(t);
	target_add(t, shard);
}

/* --- conditions --- */

/* What is being found out about one group. */
struct gather {
	struct folder f;
	const struct database_config *db;
	const struct key_group *group;
	struct target_set *set; /* of the condition at hand */
	bool unknown;           /* of the condition at hand: some value could not be folded */
	bool decides;           /* of the condition at hand: PostgreSQL will raise an error */
	bool refused;           /* a text key that cannot be read in the client's encoding */
};

static void
on_value(void *arg, enum fold_result r, struct span bytes)
{
	struct gather *g = arg;

	switch (r) {
	case FOLD_OK:
		target_add(g->set, shardmap_shard(g->db->map, g->group->types, &bytes, 1));
		break;
	case FOLD_NULL:
	case FOLD_NO_ROW:
		break;
	case FOLD_SERVER_DECIDES:
		g->decides = true;
		break;
	case FOLD_UNKNOWN:
		g->unknown = true;
		break;
	case FOLD_REFUSED:
		g->refused = true;
		break;
	}
}

static bool
is_array(const struct key_source *s)
{
	return s->kind == KEY_SRC_ARRAY_LITERAL || s->kind == KEY_SRC_ARRAY_PARAM;
}

/* Gives every value of a condition to *each*. */
static void
walk_condition(struct gather *g, const struct key_condition *c, fold_each_fn each, void *arg)
{
	enum key_type type = g->group->types[c->column];

	for (int i = 0; i < c->n_sources; i++) {
		const struct key_source *s = &c->sources[i];
		struct span bytes = SPAN_NONE;
		enum fold_result r;

		if (is_array(s)) {
			r = fold_array(&g->f, s, type, each, arg);
			if (r == FOLD_OK)
				continue;
		} else {
			r = fold_source(&g->f, s, type, KEY_COMPARE, &bytes);
		}
		each(arg, r, bytes);
	}
}

/* One-column keys. The set of shards where the condition may hold. */
static void
condition_set(struct gather *g, const struct key_condition *c)
{
	target_clear(g->set);
	g->unknown = g->decides = g->f.saw_typed = false;
	walk_condition(g, c, on_value, g);
	/* In a list with typed values the untyped ones are read as the common type: whether they raise is not known. */
	if (g->decides && c->n_sources > 1 && g->f.saw_typed) {
		g->decides = false;
		g->unknown = true;
	}
	if (g->unknown)
		target_all(g->set, g->db);
}

/* --- keys of several columns --- */

struct value_list {
	struct arena *arena;
	struct span *values;
	int n, cap;
	bool known, decides, refused;
};

static void
on_listed(void *arg, enum fold_result r, struct span bytes)
{
	struct value_list *l = arg;

	if (r == FOLD_NULL || r == FOLD_NO_ROW)
		return;
	l->refused |= r == FOLD_REFUSED;
	l->decides |= r == FOLD_SERVER_DECIDES;
	if (r != FOLD_OK || l->n == l->cap) {
		l->known = false;
		return;
	}
	l->values[l->n++] = span_of(arena_strndup(l->arena, bytes.p, bytes.n), bytes.n);
}

/* How many values a condition may have at most: more than MAX_COMBINATIONS are of no use. */
static int
room_for(const struct key_condition *c)
{
	if (c->n_sources > MAX_COMBINATIONS)
		return MAX_COMBINATIONS;
	for (int i = 0; i < c->n_sources; i++)
		if (is_array(&c->sources[i]))
			return MAX_COMBINATIONS;
	return c->n_sources;
}

/* The shortest list of known values among the conditions on *column*; l->known false: there is none. */
static void
column_values(struct gather *g, int column, struct arena *a, struct value_list *l)
{
	*l = (struct value_list){.arena = a};
	for (int i = 0; i < g->group->n_conditions; i++) {
		const struct key_condition *c = &g->group->conditions[i];
		struct value_list one = {.arena = a, .known = true};

		if (c->column != column)
			continue;
		one.cap = room_for(c);
		one.values = arena_alloc(a, (size_t)one.cap * sizeof(*one.values));
		g->f.saw_typed = false;
		walk_condition(g, c, on_listed, &one);
		g->refused |= one.refused;
		if (one.decides && !(c->n_sources > 1 && g->f.saw_typed))
			g->decides = true;
		if (one.known && (!l->known || one.n < l->n))
			*l = one;
	}
}

static void
add_combinations(struct gather *g, const struct value_list *lists, int n_key, struct target_set *set)
{
	int at[MAX_KEY_COLUMNS] = {0};
	struct span key[MAX_KEY_COLUMNS];

	for (;;) {
		int c;

		for (c = 0; c < n_key; c++)
			key[c] = lists[c].values[at[c]];
		target_add(set, shardmap_shard(g->db->map, g->group->types, key, n_key));
		for (c = 0; c < n_key && ++at[c] == lists[c].n; c++)
			at[c] = 0;
		if (c == n_key)
			return;
	}
}

static void
combined_set(struct gather *g, struct target_set *set)
{
	struct value_list lists[MAX_KEY_COLUMNS];
	int n_key = g->group->table->n_key;
	bool known = true, empty = false;
	long combinations = 1;
	struct arena a;

	arena_init(&a);
	for (int c = 0; c < n_key; c++) {
		column_values(g, c, &a, &lists[c]);
		known &= lists[c].known;
		empty |= lists[c].known && lists[c].n == 0;
		if (known && combinations <= MAX_COMBINATIONS)
			combinations *= lists[c].n;
	}
	target_clear(set);
	if (!empty && known && combinations <= MAX_COMBINATIONS)
		add_combinations(g, lists, n_key, set);
	else if (!empty)
		target_all(set, g->db);
	arena_fini(&a);
}

/* --- groups --- */

static bool
is_simple(const struct key_group *k)
{
	return k->table->n_key == 1;
}

static void
group_set(struct gather *g, struct target_set *out)
{
	struct target_set one;
	bool decides = false;

	if (!is_simple(g->group)) {
		if (g->group->table->n_key > MAX_KEY_COLUMNS)
			target_all(out, g->db);
		else
			combined_set(g, out);
		return;
	}
	if (g->group->n_conditions == 0) {
		target_all(out, g->db);
		return;
	}
	g->set = out;
	condition_set(g, &g->group->conditions[0]);
	decides = g->decides;
	for (int i = 1; i < g->group->n_conditions; i++) {
		g->set = &one;
		condition_set(g, &g->group->conditions[i]);
		decides |= g->decides;
		target_intersect(out, &one);
	}
	g->decides = decides;
}

static void
refuse_encoding(struct diag *d)
{
	diag_set(d, "0A000", "cannot route a text key with characters beyond ASCII when client_encoding is not UTF8");
	diag_hint(d, "Keys are hashed as UTF-8: SET client_encoding TO 'UTF8'.");
}

static void
refuse_groups(const struct plan *p, struct diag *d)
{
	const struct table_config *a = p->groups[0].table, *b = p->groups[p->n_groups - 1].table;

	diag_set(d, "0A000", "statement joins rows of several shards");
	diag_detail(d, "Rows of \"%s\" and \"%s\" are needed together, and nothing says that they are on one shard.", a->name, b->name);
	diag_hint(d, "Join the tables on their shard keys, or compare the key of each with a constant of the same shard.");
}

static enum route_status
refuse_plan(const struct plan *p, struct diag *d)
{
	if (d == NULL)
		return ROUTED_REFUSED;
	*d = p->refusal;
	if (!diag_is_set(d))
		diag_set(d, "0A000", "statement cannot be answered from several shards");
	return ROUTED_REFUSED;
}

/* *out* takes in the set of one more group; false: they cannot be answered together. */
static bool
combine(struct target_set *out, const struct target_set *more)
{
	if (more->count == 0)
		return true;
	if (out->count == 0) {
		*out = *more;
		return true;
	}
	return out->count == 1 && more->count == 1 && target_first(out) == target_first(more);
}

static enum route_status
resolve_keyed(const struct plan *p, const struct route_values *v, const struct database_config *db,
    struct target_set *out, struct diag *d)
{
	struct target_set one;
	bool compatible = true, decides = false;
	struct gather g; /* not zeroed: the folder's room is most of it */

	folder_init(&g.f, v);
	g.db = db;
	g.refused = false;
	if (p->n_groups == 0)
		target_clear(out);
	for (int i = 0; i < p->n_groups; i++) {
		g.group = &p->groups[i];
		g.decides = false;
		group_set(&g, i == 0 ? out : &one);
		decides |= g.decides;
		compatible &= i == 0 || combine(out, &one);
	}
	folder_fini(&g.f);
	if (g.refused) {
		refuse_encoding(d);
		return ROUTED_REFUSED;
	}
	if (decides) {
		target_only(out, first_shard(db));
		return ROUTED;
	}
	if (!compatible) {
		refuse_groups(p, d);
		return ROUTED_REFUSED;
	}
	return ROUTED;
}

enum route_status
route_resolve(const struct plan *p, const struct route_values *v, const struct database_config *db, int preferred_shard,
    struct target_set *out, struct diag *d)
{
	int home = preferred_shard >= 0 ? preferred_shard : first_shard(db);

	switch (p->route) {
	case ROUTE_REFUSE:
		return refuse_plan(p, d);
	case ROUTE_ANY:
		target_only(out, home);
		return ROUTED;
	case ROUTE_FIRST:
		target_only(out, first_shard(db));
		return ROUTED;
	case ROUTE_COPY:
		target_all(out, db);
		return ROUTED;
	case ROUTE_INSERT:
		return route_insert(p, v, db, NULL, out, d);
	case ROUTE_ALL:
		target_all(out, db);
		break;
	case ROUTE_KEYED:
		if (db->map == NULL)
			target_only(out, first_shard(db));
		else if (resolve_keyed(p, v, db, out, d) != ROUTED)
			return ROUTED_REFUSED;
		if (out->count == 0)
			target_only(out, home);
		break;
	}
	if (out->count > 1 && p->multi == MULTI_REFUSE)
		return refuse_plan(p, d);
	return ROUTED;
}

/* --- rows to be stored --- */

static void
refuse_row(const struct table_config *t, int column, enum fold_result r, bool is_default, struct diag *d)
{
	if (r == FOLD_REFUSED) {
		refuse_encoding(d);
	} else if (r == FOLD_NULL) {
		/* PostgreSQL's words. */
		diag_set(d, "23502", "null value in column \"%s\" of relation \"%s\" violates not-null constraint", t->key[column], t->name);
		diag_detail(d, "The column is the table's shard key: without it a row has no shard.");
	} else {
		diag_set(d, "0A000", "cannot tell which shard a row of \"%s\" belongs to", t->name);
		if (is_default)
			diag_hint(d, "Name the shard key column \"%s\" and give it a value.", t->key[column]);
		else
			diag_hint(d, "Give the shard key column \"%s\" a constant or a parameter.", t->key[column]);
	}
}

/* Several columns' bytes must live together: they are moved out of the folder. */
static void
keep_bytes(struct arena *a, struct span *key, int n_key)
{
	if (n_key > 1)
		key->p = arena_strndup(a, key->p, key->n);
}

static enum route_status
insert_row(struct folder *f, const struct insert_rows *ins, int row, const struct database_config *db, struct arena *a,
    int *shard, struct diag *d)
{
	int n_key = ins->table->n_key;
	struct span key[MAX_KEY_COLUMNS];
	bool decides = false;

	for (int c = 0; c < n_key; c++) {
		const struct key_source *s = &ins->sources[row * n_key + c];
		enum fold_result r = is_array(s) ? FOLD_UNKNOWN : fold_source(f, s, ins->types[c], KEY_ASSIGN, &key[c]);

		if (r == FOLD_SERVER_DECIDES) {
			decides = true;
		} else if (r != FOLD_OK) {
			refuse_row(ins->table, c, r, s->kind == KEY_SRC_DEFAULT, d);
			return ROUTED_REFUSED;
		} else {
			keep_bytes(a, &key[c], n_key);
		}
	}
	*shard = decides || db->map == NULL ? first_shard(db) : shardmap_shard(db->map, ins->types, key, n_key);
	return ROUTED;
}

enum route_status
route_insert(const struct plan *p, const struct route_values *v, const struct database_config *db, int *shard_of_row,
    struct target_set *out, struct diag *d)
{
	enum route_status st = ROUTED;
	struct folder f;
	struct arena a;

	if (p->insert.table->n_key > MAX_KEY_COLUMNS) {
		diag_set(d, "0A000", "a shard key has at most %d columns", MAX_KEY_COLUMNS);
		return ROUTED_REFUSED;
	}
	arena_init(&a);
	folder_init(&f, v);
	target_clear(out);
	for (int i = 0; i < p->insert.n_rows && st == ROUTED; i++) {
		int shard = -1;

		st = insert_row(&f, &p->insert, i, db, &a, &shard, d);
		if (st != ROUTED)
			break;
		target_add(out, shard);
		if (shard_of_row != NULL)
			shard_of_row[i] = shard;
	}
	folder_fini(&f);
	arena_fini(&a);
	return st;
}

enum route_status
route_copy_row(const struct copy_plan *copy, const struct span *key_fields, bool utf8, const struct database_config *db,
    int *shard, struct diag *d)
{
	const struct table_config *t = copy->table;
	struct span key[MAX_KEY_COLUMNS];
	enum fold_result r = FOLD_OK;
	bool decides = false;
	struct folder f;
	struct arena a;
	int c;

	if (t->n_key > MAX_KEY_COLUMNS) {
		diag_set(d, "0A000", "a shard key has at most %d columns", MAX_KEY_COLUMNS);
		return ROUTED_REFUSED;
	}
	arena_init(&a);
	folder_init(&f, NULL);
	for (c = 0; c < t->n_key; c++) {
		r = fold_field(&f, key_fields[c], copy->format == COPY_FORMAT_BINARY, utf8, copy->types[c], &key[c]);
		if (r == FOLD_SERVER_DECIDES)
			decides = true;
		else if (r == FOLD_OK)
			keep_bytes(&a, &key[c], t->n_key);
		else
			break;
	}
	if (c < t->n_key)
		refuse_row(t, c, r, false, d);
	else
		*shard = decides ? first_shard(db) : shardmap_shard(db->map, copy->types, key, t->n_key);
	folder_fini(&f);
	arena_fini(&a);
	return c < t->n_key ? ROUTED_REFUSED : ROUTED;
}

/* --- LIMIT, OFFSET --- */

enum rc
route_int8(const struct route_values *v, const struct key_source *s, int64_t *n)
{
	struct folder f;
	struct span b;

	if (is_array(s))
		return RC_FAIL;
	folder_init(&f, v);
	enum fold_result r = fold_source(&f, s, KEY_INT8, KEY_ASSIGN, &b);
	uint64_t u = 0;

	for (size_t i = 0; r == FOLD_OK && i < b.n; i++)
		u = u << 8 | (unsigned char)b.p[i];
	folder_fini(&f);
	*n = (int64_t)u;
	return r == FOLD_OK ? RC_OK : r == FOLD_NULL ? RC_AGAIN : RC_FAIL;
}
