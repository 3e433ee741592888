/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_merge - may the answers of several shards be made one, and how.
 *
 * A SELECT over one key group of its outermost level gives, shard by shard, disjoint parts of the answer: each row
 * comes of rows that live together. What is computed over rows (GROUP BY, DISTINCT, aggregates) is right per shard if it
 * stays within a key's value; else only the few aggregates whose merge is exact pass. Everything else is refused for
 * several shards and is still right on one. */
#include "parse_int.h"

enum { OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_TEXT = 25, OID_VARCHAR = 1043, OID_NUMERIC = 1700, OID_UUID = 2950 };

/* libpg_query has this enum in another order than PostgreSQL's headers. It is the only one of a raw tree that differs;
 * a test would fail if that changed. */
enum { LIBRARY_LIMIT_WITH_TIES = 2 };

static const char hint_key[] = "Name the shard key of one shard in WHERE.";

/* Facts that make a statement's parts differ between shards in a way that one server's answer would not. */
bool
facts_exact_on_many(struct analysis *an)
{
	const struct facts *f = &an->facts;

	if (f->time_fn)
		refuse_many(an, "now() and the like, which differ between shards,", "Pass the time as a parameter, or name the shard key of one shard.");
	else if (f->user_fn)
		refuse_many(an, "a function or operator that is not known to be immutable", hint_key);
	else if (f->server_fn && f->writes) /* in a read, that each shard tells its own is what is asked for */
		refuse_many(an, "a function whose value is the server's own", hint_key);
	else if (f->effects_fn)
		refuse_many(an, "a function with effects", hint_key);
	else if (f->volatile_once)
		refuse_many(an, "a volatile function in a subquery or FROM", hint_key);
	else if (f->reads_view)
		refuse_many(an, "a view", "Query the tables themselves.");
	else if (f->system_column)
		refuse_many(an, "system columns such as ctid, which mean something on one server only,", hint_key);
	else if (f->sample)
		refuse_many(an, "TABLESAMPLE", hint_key);
	else if (f->current_of)
		refuse_many(an, "WHERE CURRENT OF", hint_key);
	else if (an->no_multi != NULL)
		refuse_many(an, an->no_multi, hint_key);
	else
		return true;
	return false;
}

/* --- expressions over a level --- */

struct finding {
	struct analysis *an;
	bool aggregate, window, unknown;
};

static bool
visit_aggregates(Node *node, void *arg)
{
	struct finding *f = arg;

	if (node == NULL)
		return false;
	if (IsA(node, FuncCall)) {
		FuncCall *c = (FuncCall *)node;
		const char *name;
		struct catalog_function fn = resolve_function(f->an, c->funcname, &name);

		if (c->over != NULL)
			f->window = true;
		else if (fn.is_aggregate || c->agg_star || c->agg_distinct || c->agg_within_group || c->agg_filter != NULL || c->agg_order != NIL)
			f->aggregate = true;
		else if (fn.volatility == FUNCTION_UNKNOWN && c->funcformat != COERCE_SQL_SYNTAX)
			f->unknown = true;
	}
	if (IsA(node, GroupingFunc))
		f->unknown = true;
	return walk_children(f->an, node, visit_aggregates, arg);
}

static struct finding
find_aggregates(struct analysis *an, const SelectStmt *s)
{
	struct finding f = {.an = an};

	visit_aggregates((Node *)s->targetList, &f);
	visit_aggregates(s->havingClause, &f);
	visit_aggregates((Node *)s->sortClause, &f);
	visit_aggregates((Node *)s->distinctClause, &f);
	return f;
}

/* --- output columns --- */

struct output {
	const char *name; /* NULL: not known */
	Node *expr;       /* NULL: from a star */
	struct column column; /* of a plain column */
};

struct outputs {
	struct output *at;
	int n;
	bool known; /* every star was expanded */
};

static void
output_add(struct outputs *o, struct output one, int *cap)
{
	if (o->n == *cap) {
		*cap = *cap * 2 + 8;
		struct output *more = palloc(sizeof(*more) * (size_t)*cap);

		if (o->n > 0)
			memcpy(more, o->at, sizeof(*more) * (size_t)o->n);
		o->at = more;
	}
	o->at[o->n++] = one;
}

/* * or t.* */
static void
output_star(struct outputs *o, struct level *l, const ColumnRef *ref, int *cap)
{
	int n = list_length(ref->fields);
	const char *table = n == 2 ? name_at(ref->fields, 0) : NULL;
	bool found = false;

	if (n > 2 || l->no_star) {
		o->known = false;
		return;
	}
	for (int i = 0; i < l->n_entries; i++) {
		struct range_entry *e = &l->entries[i];

		if (table != NULL && strcmp(e->alias, table) != 0)
			continue;
		if (e->rel == NULL) {
			o->known = false;
			return;
		}
		found = true;
		for (int c = 0; c < e->rel->n_columns; c++)
			output_add(o, (struct output){e->rel->columns[c].name, NULL, {e, &e->rel->columns[c], c}}, cap);
	}
	if (!found)
		o->known = false;
}

/* The name that PostgreSQL gives an output column without AS (its FigureColname); NULL: not followed. */
static const char *
implied_name(Node *e)
{
	switch (nodeTag(e)) {
	case T_ColumnRef:
		return strVal(llast(((ColumnRef *)e)->fields));
	case T_FuncCall:
		return strVal(llast(((FuncCall *)e)->funcname));
	case T_TypeCast:
		if (IsA(((TypeCast *)e)->arg, A_Const))
			return strVal(llast(((TypeCast *)e)->typeName->names));
		return IsA(((TypeCast *)e)->arg, ColumnRef) || IsA(((TypeCast *)e)->arg, FuncCall) ? implied_name(((TypeCast *)e)->arg) : NULL;
	case T_CollateClause:
		return implied_name(((CollateClause *)e)->arg);
	case T_A_Expr:
		return ((A_Expr *)e)->kind == AEXPR_NULLIF ? "nullif" : "?column?";
	case T_A_Const: case T_BoolExpr: case T_NullTest: case T_ParamRef: case T_BooleanTest:
		return "?column?";
	default:
		return NULL;
	}
}

static struct outputs
outputs_of(struct level *l, const SelectStmt *s)
{
	struct outputs o = {.known = true};
	ListCell *cell;
	int cap = 0;

	foreach (cell, s->targetList) {
		ResTarget *t = lfirst_node(ResTarget, cell);

		if (IsA(t->val, ColumnRef)) {
			ColumnRef *ref = (ColumnRef *)t->val;

			if (IsA(llast(ref->fields), A_Star)) {
				output_star(&o, l, ref, &cap);
				continue;
			}
			output_add(&o, (struct output){t->name != NULL ? t->name : implied_name(t->val), t->val, resolve_column(l, ref)}, &cap);
			continue;
		}
		output_add(&o, (struct output){t->name != NULL ? t->name : implied_name(t->val), t->val, {0}}, &cap);
	}
	return o;
}

static bool
is_key_of_group(struct analysis *an, const struct column *c, int *key_column)
{
	int node = column_node(an, c);

	if (node < 0 || an->graph->keyed[node / MAX_KEY_COLUMNS].nullable)
		return false;
	*key_column = node % MAX_KEY_COLUMNS;
	return true;
}

static bool
is_int_const(Node *n, int *value)
{
	if (n == NULL || !IsA(n, A_Const) || ((A_Const *)n)->isnull || !IsA(&((A_Const *)n)->val, Integer))
		return false;
	*value = ((A_Const *)n)->val.ival.ival;
	return true;
}

/* Do the expressions of GROUP BY have all key columns among them? Then no group spans two shards. */
static bool
covers_key(struct analysis *an, struct level *l, const struct outputs *o, List *exprs)
{
	unsigned seen = 0;
	int n_key = an->plan->groups[0].table->n_key;
	ListCell *cell;

	foreach (cell, exprs) {
		Node *e = lfirst(cell);
		struct column c = {0};
		int k;

		if (is_int_const(e, &k)) {
			an->no_cache = true;
			if (o->known && k >= 1 && k <= o->n)
				c = o->at[k - 1].column;
		} else if (IsA(e, ColumnRef)) {
			c = resolve_column(l, (ColumnRef *)e);
		}
		if (is_key_of_group(an, &c, &k))
			seen |= 1u << k;
	}
	return seen == (1u << n_key) - 1;
}

static bool
output_covers_key(struct analysis *an, const struct outputs *o)
{
	unsigned seen = 0;
	int n_key = an->plan->groups[0].table->n_key, k;

	for (int i = 0; i < o->n; i++)
		if (is_key_of_group(an, &o->at[i].column, &k))
			seen |= 1u << k;
	return seen == (1u << n_key) - 1;
}

static int sort_output(struct analysis *an, struct level *l, const struct outputs *o, Node *key);

/* DISTINCT ON reads names as ORDER BY does: those of the output first. */
static bool
distinct_on_covers_key(struct analysis *an, struct level *l, const struct outputs *o, List *exprs)
{
	unsigned seen = 0;
	int n_key = an->plan->groups[0].table->n_key;
	ListCell *cell;

	foreach (cell, exprs) {
		int i = sort_output(an, l, o, lfirst(cell)), k;

		if (i >= 0 && is_key_of_group(an, &o->at[i].column, &k))
			seen |= 1u << k;
	}
	return seen == (1u << n_key) - 1;
}

static bool
has_grouping_sets(List *group)
{
	ListCell *cell;

	foreach (cell, group)
		if (IsA(lfirst(cell), GroupingSet))
			return true;
	return false;
}

/* --- types whose order pgspan knows --- */

static bool
compare_of_type(uint32_t oid, bool byte_ordered, enum sort_compare *out)
{
	switch (oid) {
	case OID_INT2: case OID_INT4: case OID_INT8:
		*out = SORT_INT;
		return true;
	case OID_TEXT: case OID_VARCHAR:
		*out = SORT_BYTES;
		return byte_ordered;
	case OID_UUID:
		*out = SORT_BYTES; /* its text sorts as its bytes do */
		return true;
	default:
		return false;
	}
}

/* The type of an expression, where it can be proved: a column, or a cast. 0: unknown. */
static uint32_t
type_of(struct analysis *an, struct level *l, Node *e)
{
	if (IsA(e, ColumnRef)) {
		struct column c = resolve_column(l, (ColumnRef *)e);

		return c.entry != NULL ? c.column->type_oid : 0;
	}
	return IsA(e, TypeCast) ? resolve_type(an, ((TypeCast *)e)->typeName) : 0;
}

static bool
compare_of_expr(struct analysis *an, struct level *l, Node *e, enum sort_compare *out)
{
	if (IsA(e, ColumnRef)) {
		struct column c = resolve_column(l, (ColumnRef *)e);

		return c.entry != NULL && compare_of_type(c.column->type_oid, c.column->byte_ordered, out);
	}
	return compare_of_type(type_of(an, l, e), false, out);
}

static bool
is_count(struct analysis *an, Node *e)
{
	const char *name;

	if (!IsA(e, FuncCall) || ((FuncCall *)e)->over != NULL)
		return false;
	return resolve_function(an, ((FuncCall *)e)->funcname, &name).builtin && strcmp(name, "count") == 0;
}

static bool
compare_of_output(struct analysis *an, struct level *l, const struct output *o, enum sort_compare *out)
{
	if (o->column.entry != NULL)
		return compare_of_type(o->column.column->type_oid, o->column.column->byte_ordered, out);
	if (o->expr == NULL)
		return false;
	if (is_count(an, o->expr)) {
		*out = SORT_INT;
		return true;
	}
	return compare_of_expr(an, l, o->expr, out);
}

/* --- ORDER BY, LIMIT --- */

/* The output column that a sort key is; -1: none, or more than one. */
static int
sort_output(struct analysis *an, struct level *l, const struct outputs *o, Node *key)
{
	int found = -1, k;

	if (!o->known)
		return -1;
	if (is_int_const(key, &k)) {
		an->no_cache = true;
		return k >= 1 && k <= o->n ? k - 1 : -1;
	}
	if (!IsA(key, ColumnRef))
		return -1;
	ColumnRef *ref = (ColumnRef *)key;

	/* A bare name is an output column's, if any has it (SQL-92); only else an input column's. */
	if (list_length(ref->fields) == 1) {
		const char *name = name_at(ref->fields, 0);

		for (int i = 0; i < o->n; i++) {
			if (o->at[i].name == NULL || (strcmp(o->at[i].name, name) == 0 && found >= 0))
				return -1;
			if (strcmp(o->at[i].name, name) == 0)
				found = i;
		}
		if (found >= 0)
			return found;
	}
	struct column c = resolve_column(l, ref);

	for (int i = 0; c.entry != NULL && i < o->n; i++)
		if (o->at[i].column.entry == c.entry && o->at[i].column.index == c.index)
			return i;
	return -1;
}

static bool
is_c_collation(Node *key)
{
	List *names = ((CollateClause *)key)->collname;
	const char *name = name_at(names, list_length(names) - 1);

	return strcmp(name, "C") == 0 || strcmp(name, "POSIX") == 0;
}

static bool
sort_column_of(struct analysis *an, struct level *l, const struct outputs *o, SortBy *by, struct sort_column *out)
{
	Node *key = by->node;
	bool c_collation = false;

	if (by->sortby_dir == SORTBY_USING)
		return false;
	if (IsA(key, CollateClause)) {
		if (!is_c_collation(key))
			return false;
		/* Inside an expression a name is an input column's; that must be what stands in the output, too. */
		key = ((CollateClause *)key)->arg;
		c_collation = true;
		if (!IsA(key, ColumnRef))
			return false;
	}
	int i = sort_output(an, l, o, key);

	if (i < 0)
		return false;
	if (c_collation) {
		struct column c = resolve_column(l, (ColumnRef *)key);

		if (c.entry == NULL || c.entry != o->at[i].column.entry || c.index != o->at[i].column.index ||
		    !compare_of_type(c.column->type_oid, true, &out->compare))
			return false;
	} else if (!compare_of_output(an, l, &o->at[i], &out->compare)) {
		return false;
	}
	out->output_column = i;
	out->descending = by->sortby_dir == SORTBY_DESC;
	out->nulls_first = by->sortby_nulls == SORTBY_NULLS_FIRST || (by->sortby_nulls == SORTBY_NULLS_DEFAULT && out->descending);
	return true;
}

static bool
plan_sort(struct analysis *an, struct level *l, const struct outputs *o, List *sort)
{
	struct sort_column *columns = arena_zalloc(&an->plan->arena, sizeof(*columns) * (size_t)(list_length(sort) + 1));
	ListCell *cell;
	int n = 0;

	foreach (cell, sort)
		if (!sort_column_of(an, l, o, lfirst_node(SortBy, cell), &columns[n++])) {
			refuse_many(an, "ORDER BY anything but output columns of integer, uuid or C-collated text type",
			    "Order by such a column of the select list, or name the shard key of one shard in WHERE.");
			return false;
		}
	an->plan->sort = columns;
	an->plan->n_sort = n;
	return true;
}

static bool
plan_limit_value(struct analysis *an, Node *value, struct key_source *out)
{
	*out = (struct key_source){.kind = KEY_SRC_NULL};
	if (value == NULL)
		return true;
	*out = source_of(an, value);
	return (out->kind == KEY_SRC_LITERAL || out->kind == KEY_SRC_PARAM || out->kind == KEY_SRC_NULL) && out->cast_oid == 0;
}

static bool
plan_limit(struct analysis *an, const SelectStmt *s)
{
	struct limit_clause *l = &an->plan->limit;

	if ((int)s->limitOption == LIBRARY_LIMIT_WITH_TIES) {
		refuse_many(an, "FETCH FIRST … WITH TIES", hint_key);
		return false;
	}
	if (!plan_limit_value(an, s->limitCount, &l->limit) || !plan_limit_value(an, s->limitOffset, &l->offset)) {
		refuse_many(an, "LIMIT or OFFSET by an expression", "Write a number or a parameter.");
		return false;
	}
	return true;
}

/* --- aggregates without GROUP BY --- */

static bool
plan_aggregate(struct analysis *an, struct level *l, Node *e, struct aggregate_column *out)
{
	const char *name;

	if (!IsA(e, FuncCall))
		return false;
	FuncCall *c = (FuncCall *)e;
	struct catalog_function fn = resolve_function(an, c->funcname, &name);

	if (!fn.builtin || !fn.is_aggregate || c->over != NULL || c->agg_distinct || c->agg_within_group || c->agg_order != NIL || c->func_variadic)
		return false;
	if (strcmp(name, "count") == 0) {
		out->op = AGG_COUNT;
		return true;
	}
	if (list_length(c->args) != 1)
		return false;
	if (strcmp(name, "sum") == 0) {
		uint32_t type = type_of(an, l, linitial(c->args));

		out->op = AGG_SUM;
		return type == OID_INT2 || type == OID_INT4 || type == OID_INT8 || type == OID_NUMERIC;
	}
	out->op = strcmp(name, "min") == 0 ? AGG_MIN : AGG_MAX;
	if (out->op == AGG_MAX && strcmp(name, "max") != 0)
		return false;
	/* PostgreSQL 15 has no min(uuid). */
	return type_of(an, l, linitial(c->args)) != OID_UUID && compare_of_expr(an, l, linitial(c->args), &out->compare);
}

static void
plan_aggregates(struct analysis *an, struct level *l, const SelectStmt *s)
{
	int n = list_length(s->targetList);
	struct aggregate_column *columns = arena_zalloc(&an->plan->arena, sizeof(*columns) * (size_t)(n + 1));

	if (s->sortClause != NIL || s->limitCount != NULL || s->limitOffset != NULL || s->havingClause != NULL || s->distinctClause != NIL) {
		refuse_many(an, "HAVING, DISTINCT, ORDER BY or LIMIT over aggregates without GROUP BY", hint_key);
		return;
	}
	for (int i = 0; i < n; i++) {
		ResTarget *t = list_nth_node(ResTarget, s->targetList, i);

		if (!plan_aggregate(an, l, t->val, &columns[i])) {
			refuse_many(an, "aggregates other than plain count, sum of integers or numeric, min and max of integers or C-collated text",
			    "Select such aggregates alone and compute on them in the application, or name the shard key of one shard in WHERE.");
			return;
		}
	}
	an->plan->aggregates = columns;
	an->plan->n_aggregates = n;
	an->plan->multi = MULTI_AGGREGATE;
}

/* --- SELECT --- */

static bool
has_nested_keyed(const struct graph *g)
{
	for (int k = 0; k < g->n_keyed; k++)
		if (g->keyed[k].depth > 0)
			return true;
	return false;
}

/* Is the statement's shape one whose per-shard answers are disjoint parts of the whole? */
static bool
is_plain_shape(struct analysis *an, const SelectStmt *s)
{
	if (s->op != SETOP_NONE)
		refuse_many(an, "UNION, INTERSECT or EXCEPT", hint_key);
	else if (has_nested_keyed(an->graph))
		refuse_many(an, "a subquery or WITH query over a sharded table", "Name the shard key of one shard in each part of the statement.");
	else if (an->plan->n_groups != 1)
		refuse_many(an, "a join of sharded tables that is not on their shard keys", "Join the tables on their shard keys, or name the shard key of one shard for each.");
	else if (an->facts.writes)
		refuse_many(an, "a WITH query that writes", hint_key);
	else if (an->facts.n_limits > (s->limitCount != NULL || s->limitOffset != NULL || (s->distinctClause != NIL && linitial(s->distinctClause) != NULL)))
		refuse_many(an, "LIMIT or DISTINCT ON in a subquery", hint_key);
	else if (an->facts.locking && (s->limitCount != NULL || s->limitOffset != NULL))
		refuse_many(an, "LIMIT with row locks", hint_key);
	else
		return facts_exact_on_many(an);
	return false;
}

void
decide_select_multi(struct analysis *an, const SelectStmt *s, struct level *l)
{
	if (!is_plain_shape(an, s))
		return;
	struct finding found = find_aggregates(an, s);
	struct outputs o = outputs_of(l, s);
	bool distinct = s->distinctClause != NIL, distinct_on = distinct && linitial(s->distinctClause) != NULL;

	if (found.unknown || found.window) {
		refuse_many(an, found.window ? "window functions" : "a function that is not known", hint_key);
		return;
	}
	if (found.aggregate && s->groupClause == NIL) {
		plan_aggregates(an, l, s);
		return;
	}
	if (s->havingClause != NULL && s->groupClause == NIL) {
		refuse_many(an, "HAVING without GROUP BY", hint_key);
		return;
	}
	if (s->groupClause != NIL && (has_grouping_sets(s->groupClause) || !covers_key(an, l, &o, s->groupClause))) {
		refuse_many(an, "GROUP BY without the shard key", "Group by the shard key too, or name the shard key of one shard in WHERE.");
		return;
	}
	if (distinct && !(distinct_on ? distinct_on_covers_key(an, l, &o, s->distinctClause) : output_covers_key(an, &o))) {
		refuse_many(an, "DISTINCT without the shard key", "Select the shard key too, or name the shard key of one shard in WHERE.");
		return;
	}
	if (!plan_limit(an, s) || (s->sortClause != NIL && !plan_sort(an, l, &o, s->sortClause)))
		return;
	an->plan->multi = s->sortClause != NIL ? MULTI_SORT : MULTI_CONCAT;
}
