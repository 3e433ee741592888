/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_keys - values of shard keys, and which sharded relations are tied together by their keys.
 *
 * A value is named by its place, never copied: literal k of the scan, parameter n. Two casts and signs may stand
 * around it; anything else is KEY_SRC_UNKNOWN.
 *
 * The graph has one node for each key column of each sharded relation. Nodes in one class are equal in every row
 * combination that the statement needs. A condition on a node holds for its whole class only if all relations of the
 * class lie in the condition's domain: an ON condition of an outer join says nothing of the preserved side, a subquery's
 * WHERE nothing of the outer query. */
#include "parse_int.h"

static struct key_source
unknown_source(void)
{
	return (struct key_source){.kind = KEY_SRC_UNKNOWN};
}

/* The literal whose node says it stands at *location* (of a negated number: its sign). */
static struct key_source
literal_source(struct analysis *an, const A_Const *c, bool *is_number)
{
	struct key_source s = {.kind = KEY_SRC_LITERAL};

	*is_number = false;
	if (c->isnull)
		return (struct key_source){.kind = KEY_SRC_NULL};
	if (IsA(&c->val, Boolean)) {
		s.kind = c->val.boolval.boolval ? KEY_SRC_TRUE : KEY_SRC_FALSE;
		return s;
	}
	if (c->location < 0)
		return unknown_source();
	s.index = scan_literal_at(an->scan, (uint32_t)c->location);
	if (s.index >= an->scan->n_literals)
		return unknown_source();
	const struct scan_literal *lit = &an->scan->literals[s.index];
	bool is_string = lit->kind >= SCAN_LIT_STRING && lit->kind <= SCAN_LIT_DOLLAR;

	*is_number = lit->kind == SCAN_LIT_INT || lit->kind == SCAN_LIT_BIGINT || lit->kind == SCAN_LIT_FLOAT;
	if (IsA(&c->val, String))
		return is_string ? s : unknown_source();
	if (!*is_number)
		return unknown_source();
	if (IsA(&c->val, Integer))
		s.negate = c->val.ival.ival < 0;
	else if (IsA(&c->val, Float))
		s.negate = c->val.fval.fval[0] == '-';
	else
		return unknown_source();
	/* -0 does not show its sign; another text of this shape will. */
	if (IsA(&c->val, Integer) && c->val.ival.ival == 0 && lit->off != (uint32_t)c->location)
		an->no_cache = true;
	return s;
}

static bool
is_sign(const A_Expr *e, const char *sign)
{
	return e->kind == AEXPR_OP && e->lexpr == NULL && list_length(e->name) == 1 && strcmp(name_at(e->name, 0), sign) == 0;
}

/* *depth* bounds the recursion: nothing deeper is a value that anybody writes. */
static struct key_source
fold(struct analysis *an, Node *expr, int depth, bool *is_number)
{
	*is_number = false;
	if (expr == NULL || depth > 6)
		return unknown_source();
	switch (nodeTag(expr)) {
	case T_A_Const:
		return literal_source(an, (A_Const *)expr, is_number);
	case T_ParamRef: {
		int n = ((ParamRef *)expr)->number;

		return n > 0 ? (struct key_source){.kind = KEY_SRC_PARAM, .index = (uint32_t)n} : unknown_source();
	}
	case T_SetToDefault:
		return (struct key_source){.kind = KEY_SRC_DEFAULT};
	case T_TypeCast: {
		struct key_source s = fold(an, ((TypeCast *)expr)->arg, depth + 1, is_number);
		uint32_t oid = resolve_type(an, ((TypeCast *)expr)->typeName);

		if (s.kind == KEY_SRC_UNKNOWN || s.kind == KEY_SRC_DEFAULT || oid == 0 || s.inner_oid != 0)
			return unknown_source();
		if (s.kind == KEY_SRC_NULL)
			return s;
		s.inner_oid = s.cast_oid;
		s.cast_oid = oid;
		return s;
	}
	case T_A_Expr: {
		A_Expr *e = (A_Expr *)expr;
		bool minus = is_sign(e, "-");

		if (!minus && !is_sign(e, "+"))
			return unknown_source();
		struct key_source s = fold(an, e->rexpr, depth + 1, is_number);

		/* A sign before a string or a parameter makes its type another; before a number's cast it commutes. */
		if (s.kind != KEY_SRC_LITERAL || !*is_number)
			return unknown_source();
		s.negate ^= minus;
		return s;
	}
	default:
		return unknown_source();
	}
}

struct key_source
source_of(struct analysis *an, Node *expr)
{
	bool is_number;

	return fold(an, expr, 0, &is_number);
}

/* What stands behind = ANY, when it is one value that is an array. */
struct key_source
array_source_of(struct analysis *an, Node *expr)
{
	struct key_source s = source_of(an, expr);

	switch (s.kind) {
	case KEY_SRC_LITERAL: {
		uint8_t kind = an->scan->literals[s.index].kind;

		if (kind < SCAN_LIT_STRING || kind > SCAN_LIT_DOLLAR)
			return unknown_source();
		s.kind = KEY_SRC_ARRAY_LITERAL;
		return s;
	}
	case KEY_SRC_PARAM:
		s.kind = KEY_SRC_ARRAY_PARAM;
		return s;
	case KEY_SRC_NULL:
		return s;
	default:
		return unknown_source();
	}
}

/* --- the graph --- */

/* Its number, or -1 when there are too many: the statement is then refused. */
int
graph_add(struct analysis *an, const struct key_info *info, int depth, bool nullable)
{
	struct graph *g = an->graph;

	if (g->n_keyed == MAX_KEYED) {
		g->overflow = true;
		return -1;
	}
	int k = g->n_keyed++;

	g->keyed[k] = (struct keyed){.info = *info, .nullable = nullable, .depth = depth};
	for (int c = 0; c < MAX_KEY_COLUMNS; c++)
		g->class_of[node_of(k, c)] = (short)node_of(k, c);
	return k;
}

void
graph_condition(struct analysis *an, int node, struct keyed_range domain, const struct key_source *sources, int n)
{
	struct raw_condition *c = palloc(sizeof(*c));

	*c = (struct raw_condition){node, domain, sources, n, an->graph->conditions};
	an->graph->conditions = c;
}

bool
graph_same_class(const struct graph *g, int a, int b)
{
	return g->class_of[a] == g->class_of[b];
}

bool
graph_class_within(const struct graph *g, int node, struct keyed_range range)
{
	for (int k = 0; k < g->n_keyed; k++)
		for (int c = 0; c < g->keyed[k].info.table->n_key; c++)
			if (graph_same_class(g, node, node_of(k, c)) && (k < range.lo || k >= range.hi))
				return false;
	return true;
}

static bool
is_int_key(enum key_type t)
{
	return t == KEY_INT2 || t == KEY_INT4 || t == KEY_INT8;
}

/* May equality of the two be used: the same place in keys that hash alike. */
bool
graph_columns_alike(const struct graph *g, int a, int b)
{
	const struct key_info *x = &g->keyed[a / MAX_KEY_COLUMNS].info, *y = &g->keyed[b / MAX_KEY_COLUMNS].info;
	int c = a % MAX_KEY_COLUMNS;

	if (c != b % MAX_KEY_COLUMNS || x->table->n_key != y->table->n_key)
		return false;
	return key_types_colocated(x->types[c], y->types[c]) &&
	    (x->types[c] == y->types[c] || (is_int_key(x->types[c]) && is_int_key(y->types[c])));
}

void
graph_unite(struct graph *g, int a, int b)
{
	short from = g->class_of[b], to = g->class_of[a];

	for (int i = 0; i < g->n_keyed * MAX_KEY_COLUMNS; i++)
		if (g->class_of[i] == from)
			g->class_of[i] = to;
}

static bool
same_group(const struct graph *g, int a, int b)
{
	int n = g->keyed[a].info.table->n_key;

	if (n != g->keyed[b].info.table->n_key)
		return false;
	for (int c = 0; c < n; c++)
		if (!graph_same_class(g, node_of(a, c), node_of(b, c)))
			return false;
	return true;
}

static bool
condition_counts(const struct graph *g, const struct raw_condition *c, int first)
{
	return graph_same_class(g, c->node, node_of(first, c->node % MAX_KEY_COLUMNS)) && graph_class_within(g, c->node, c->domain);
}

static void
fill_group(struct analysis *an, int first, struct key_group *out)
{
	struct graph *g = an->graph;
	const struct table_config *t = g->keyed[first].info.table;
	enum key_type *types = arena_alloc(&an->plan->arena, sizeof(*types) * (size_t)t->n_key);
	int n = 0;

	memcpy(types, g->keyed[first].info.types, sizeof(*types) * (size_t)t->n_key);
	/* Of integers the widest: a value out of a narrow one's range meets no row there, but may elsewhere in the group. */
	for (int k = first + 1; k < g->n_keyed; k++)
		for (int c = 0; same_group(g, first, k) && c < t->n_key; c++)
			if (is_int_key(types[c]) && g->keyed[k].info.types[c] > types[c])
				types[c] = g->keyed[k].info.types[c];
	for (const struct raw_condition *c = g->conditions; c != NULL; c = c->next)
		n += condition_counts(g, c, first);
	struct key_condition *conditions = arena_alloc(&an->plan->arena, sizeof(*conditions) * (size_t)(n + 1));

	n = 0;
	for (const struct raw_condition *c = g->conditions; c != NULL; c = c->next)
		if (condition_counts(g, c, first))
			conditions[n++] = (struct key_condition){c->node % MAX_KEY_COLUMNS, c->sources, c->n_sources};
	*out = (struct key_group){t, types, conditions, n};
}

void
graph_to_groups(struct analysis *an)
{
	struct graph *g = an->graph;
	struct key_group *groups = arena_alloc(&an->plan->arena, sizeof(*groups) * (size_t)(g->n_keyed + 1));
	int n = 0;

	for (int k = 0; k < g->n_keyed; k++) {
		bool seen = false;

		for (int before = 0; before < k && !seen; before++)
			seen = same_group(g, before, k);
		if (!seen)
			fill_group(an, k, &groups[n++]);
	}
	an->plan->groups = groups;
	an->plan->n_groups = n;
}
