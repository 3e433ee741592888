/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_query - the levels of a query: what FROM holds, and what ON and WHERE say of the shard keys.
 *
 * Each SELECT is a level with its range entries. A condition or equality is used within a *domain*, a range of keyed
 * relations whose needed rows must all meet it:
 *
 *     WHERE, ON of an inner join that no outer join makes optional     the level with its subqueries
 *     ON of an inner join on the null-extended side of an outer join   that inner join
 *     ON of a LEFT (RIGHT) join                                        its right (left) arm
 *     ON of a FULL join                                                no domain: it ties its arms and binds nothing
 *
 * Two classes may become one only if at most one of them reaches out of the domain: "x LEFT JOIN a ON x.k = a.k AND
 * y.k = a.k" must not make x.k equal y.k. A name that is not understood resolves to nothing, and then binds nothing. */
#include "parse_int.h"

struct sources {
	struct key_source *at;
	int n, cap;
};

/* An arm of a join: its entries and its keyed relations. */
struct arm {
	int entry_lo, entry_hi;
	struct keyed_range keyed;
};

/* Two nodes that USING of an inner join makes equal. */
struct pair {
	int a, b;
};

static struct pair *
pair_of(int a, int b)
{
	struct pair *p = palloc(sizeof(*p));

	*p = (struct pair){a, b};
	return p;
}

static struct arm analyze_item(struct analysis *an, struct level *l, Node *item, bool optional);
static void analyze_nested(struct analysis *an, struct level *l, Node *expr);

void
level_init(struct analysis *an, struct level *l, struct level *up, const struct cte_name *ctes, int depth)
{
	*l = (struct level){.up = up, .ctes = ctes, .depth = depth, .keyed_lo = an->graph->n_keyed};
}

static struct range_entry *
level_add(struct level *l, const char *alias)
{
	if (l->n_entries == l->cap_entries) {
		int cap = l->cap_entries == 0 ? 4 : l->cap_entries * 2;
		struct range_entry *more = palloc(sizeof(*more) * (size_t)cap);

		if (l->n_entries > 0)
			memcpy(more, l->entries, sizeof(*more) * (size_t)l->n_entries);
		l->entries = more;
		l->cap_entries = cap;
	}
	struct range_entry *e = &l->entries[l->n_entries++];

	*e = (struct range_entry){.alias = alias, .keyed = -1};
	return e;
}

static void
add_relation(struct analysis *an, struct level *l, const RangeVar *rv, const struct cte_name *ctes)
{
	struct relation_ref ref = resolve_relation(an, rv, ctes);
	struct range_entry *e = level_add(l, rv->alias != NULL ? rv->alias->aliasname : rv->relname);
	struct key_info info;

	if (ref.rel == NULL)
		return;
	if (rv->alias == NULL)
		e->schema = ref.rel->schema;
	if (rv->alias == NULL || rv->alias->colnames == NIL)
		e->rel = ref.rel;
	if (ref.class == REL_SHARDED && resolve_key(an, &ref, &info))
		e->keyed = graph_add(an, &info, l->depth, false);
}

/* --- columns --- */

static struct column
entry_column(struct range_entry *e, const char *name)
{
	struct column c = {0};

	if (e->rel == NULL)
		return c;
	c.column = catalog_find_column(e->rel, name, &c.index);
	if (c.column != NULL)
		c.entry = e;
	return c;
}

/* An unqualified name among some entries. *unsure*: it may be a column of something whose columns are not known. */
static struct column
find_unqualified(const struct level *l, const char *name, int lo, int hi, bool *unsure)
{
	struct column found = {0};

	for (const struct merged_column *m = l->merged; m != NULL; m = m->next)
		if (m->entry_lo >= lo && m->entry_hi <= hi && strcmp(m->name, name) == 0) {
			*unsure |= m->column.entry == NULL;
			return m->column;
		}
	for (int i = lo; i < hi; i++) {
		struct range_entry *e = &l->entries[i];

		if (e->hidden)
			continue;
		struct column c = entry_column(e, name);

		*unsure |= e->rel == NULL || (c.entry != NULL && found.entry != NULL);
		if (c.entry != NULL)
			found = c;
	}
	return *unsure ? (struct column){0} : found;
}

static struct column
find_qualified(const struct level *l, const char *schema, const char *table, const char *name, bool *seen)
{
	struct column found = {0};
	int matches = 0;

	for (int i = 0; i < l->n_entries; i++) {
		struct range_entry *e = &l->entries[i];

		if (e->hidden || e->alias == NULL || strcmp(e->alias, table) != 0)
			continue;
		if (schema != NULL && (e->schema == NULL || strcmp(e->schema, schema) != 0))
			continue;
		matches++;
		found = entry_column(e, name);
	}
	*seen = matches > 0;
	return matches == 1 ? found : (struct column){0};
}

struct column
resolve_column(const struct level *l, const ColumnRef *ref)
{
	int n = list_length(ref->fields);
	struct column none = {0};

	if (n > 3 || !IsA(llast(ref->fields), String))
		return none;
	const char *name = name_at(ref->fields, n - 1);

	for (; l != NULL; l = l->up) {
		bool stop = false;
		struct column c;

		if (n == 1) {
			stop = l->opaque;
			c = stop ? none : find_unqualified(l, name, 0, l->n_entries, &stop);
		} else {
			c = find_qualified(l, n == 3 ? name_at(ref->fields, 0) : NULL, name_at(ref->fields, n - 2), name, &stop);
		}
		if (c.entry != NULL || stop)
			return c;
	}
	return none;
}

/* The key node that a column is; -1: none. */
int
column_node(const struct analysis *an, const struct column *c)
{
	if (c->entry == NULL || c->entry->keyed < 0)
		return -1;
	const struct key_info *info = &an->graph->keyed[c->entry->keyed].info;

	for (int i = 0; i < info->table->n_key; i++)
		if (info->columns[i] == c->index)
			return node_of(c->entry->keyed, i);
	return -1;
}

static int
node_of_expr(const struct analysis *an, const struct level *l, Node *expr)
{
	if (expr == NULL || !IsA(expr, ColumnRef))
		return -1;
	struct column c = resolve_column(l, (ColumnRef *)expr);

	return column_node(an, &c);
}

/* --- conditions: does an expression bind a node to values? --- */

static bool
push_source(struct analysis *an, struct sources *s, struct key_source one)
{
	if (one.kind == KEY_SRC_UNKNOWN || one.kind == KEY_SRC_DEFAULT)
		return false;
	if (s->n == s->cap) {
		int cap = s->cap == 0 ? 2 : s->cap * 4;
		struct key_source *more = arena_alloc(&an->plan->arena, sizeof(*more) * (size_t)cap);

		if (s->n > 0)
			memcpy(more, s->at, sizeof(*more) * (size_t)s->n);
		s->at = more;
		s->cap = cap;
	}
	s->at[s->n++] = one;
	return true;
}

bool
is_equals(const A_Expr *e)
{
	int n = list_length(e->name);

	return strcmp(name_at(e->name, n - 1), "=") == 0 && (n == 1 || (n == 2 && strcmp(name_at(e->name, 0), "pg_catalog") == 0));
}

/* left = right, or (l1, l2) = (r1, r2): the value that stands against *node*. */
static bool
bind_equals(struct analysis *an, const struct level *l, Node *left, Node *right, int node, struct sources *out)
{
	if (node_of_expr(an, l, left) == node)
		return push_source(an, out, source_of(an, right));
	if (left == NULL || right == NULL || !IsA(left, RowExpr) || !IsA(right, RowExpr))
		return false;
	List *ls = ((RowExpr *)left)->args, *rs = ((RowExpr *)right)->args;

	if (list_length(ls) != list_length(rs))
		return false;
	for (int i = 0; i < list_length(ls); i++)
		if (node_of_expr(an, l, list_nth(ls, i)) == node)
			return push_source(an, out, source_of(an, list_nth(rs, i)));
	return false;
}

static bool
bind_elements(struct analysis *an, List *elements, uint32_t cast, struct sources *out)
{
	ListCell *cell;

	foreach (cell, elements) {
		struct key_source s = source_of(an, lfirst(cell));

		if (cast != 0 && s.kind != KEY_SRC_NULL) {
			if (s.inner_oid != 0)
				return false;
			s.inner_oid = s.cast_oid;
			s.cast_oid = cast;
		}
		if (!push_source(an, out, s))
			return false;
	}
	return true;
}

/* node = ANY (array) */
static bool
bind_any(struct analysis *an, Node *array, struct sources *out)
{
	uint32_t cast = 0;

	if (IsA(array, TypeCast) && IsA(((TypeCast *)array)->arg, A_ArrayExpr) && ((TypeCast *)array)->typeName->arrayBounds != NIL) {
		TypeName element = *((TypeCast *)array)->typeName;

		element.arrayBounds = NIL;
		cast = resolve_type(an, &element);
		if (cast == 0)
			return false;
		array = ((TypeCast *)array)->arg;
	}
	if (IsA(array, A_ArrayExpr))
		return bind_elements(an, ((A_ArrayExpr *)array)->elements, cast, out);
	return push_source(an, out, array_source_of(an, array));
}

static bool
bind_in(struct analysis *an, const struct level *l, const A_Expr *e, int node, struct sources *out)
{
	ListCell *cell;

	if (e->rexpr == NULL || !IsA(e->rexpr, List))
		return false;
	foreach (cell, (List *)e->rexpr)
		if (!bind_equals(an, l, e->lexpr, lfirst(cell), node, out))
			return false;
	return true;
}

/* True if *expr* can only be true for rows whose *node* equals one of the values added to *out*. */
static bool
bind(struct analysis *an, const struct level *l, Node *expr, int node, struct sources *out)
{
	ListCell *cell;

	if (IsA(expr, BoolExpr)) {
		BoolExpr *b = (BoolExpr *)expr;

		if (b->boolop == NOT_EXPR)
			return false;
		foreach (cell, b->args) {
			int mark = out->n;
			bool bound = bind(an, l, lfirst(cell), node, out);

			if (!bound)
				out->n = mark;
			if (bound != (b->boolop == OR_EXPR))
				return bound;
		}
		return b->boolop == OR_EXPR;
	}
	if (!IsA(expr, A_Expr) || !is_equals((A_Expr *)expr))
		return false;
	A_Expr *e = (A_Expr *)expr;

	switch (e->kind) {
	case AEXPR_OP:
		return bind_equals(an, l, e->lexpr, e->rexpr, node, out) || bind_equals(an, l, e->rexpr, e->lexpr, node, out);
	case AEXPR_IN:
		return bind_in(an, l, e, node, out);
	case AEXPR_OP_ANY:
		return node_of_expr(an, l, e->lexpr) == node && bind_any(an, e->rexpr, out);
	default:
		return false;
	}
}

/* The key nodes that an expression could bind: at most *cap*, each once. */
static int
candidates(struct analysis *an, const struct level *l, Node *expr, int *nodes, int n, int cap)
{
	ListCell *cell;
	List *parts = NIL;

	if (expr == NULL)
		return n;
	if (IsA(expr, BoolExpr) && ((BoolExpr *)expr)->boolop != NOT_EXPR)
		parts = ((BoolExpr *)expr)->args;
	else if (IsA(expr, RowExpr))
		parts = ((RowExpr *)expr)->args;
	foreach (cell, parts) {
		n = candidates(an, l, lfirst(cell), nodes, n, cap);
		if (IsA(expr, BoolExpr) && ((BoolExpr *)expr)->boolop == OR_EXPR)
			return n; /* what the first arm does not bind the whole does not */
	}
	if (IsA(expr, A_Expr) && is_equals((A_Expr *)expr)) {
		n = candidates(an, l, ((A_Expr *)expr)->lexpr, nodes, n, cap);
		return ((A_Expr *)expr)->kind == AEXPR_OP ? candidates(an, l, ((A_Expr *)expr)->rexpr, nodes, n, cap) : n;
	}
	int node = node_of_expr(an, l, expr);

	for (int i = 0; i < n; i++)
		if (nodes[i] == node)
			return n;
	if (node >= 0 && n < cap)
		nodes[n++] = node;
	return n;
}

/* --- equalities --- */

static bool
in_range(int node, struct keyed_range r)
{
	return node / MAX_KEY_COLUMNS >= r.lo && node / MAX_KEY_COLUMNS < r.hi;
}

static void
tie(struct analysis *an, int a, int b, struct keyed_range domain)
{
	struct graph *g = an->graph;

	if (a < 0 || b < 0 || (!in_range(a, domain) && !in_range(b, domain)) || !graph_columns_alike(g, a, b))
		return;
	if (graph_class_within(g, a, domain) || graph_class_within(g, b, domain))
		graph_unite(g, a, b);
}

/* FULL JOIN keeps the rows of both arms: neither arm may be tied within itself by it. */
static void
tie_full(struct analysis *an, int a, int b, const struct arm *left, const struct arm *right)
{
	struct graph *g = an->graph;

	if (a < 0 || b < 0 || !graph_columns_alike(g, a, b))
		return;
	if ((graph_class_within(g, a, left->keyed) && graph_class_within(g, b, right->keyed)) ||
	    (graph_class_within(g, b, left->keyed) && graph_class_within(g, a, right->keyed)))
		graph_unite(g, a, b);
}

static void
tie_rows(struct analysis *an, const struct level *l, Node *left, Node *right, struct keyed_range domain)
{
	if (left == NULL || right == NULL)
		return;
	if (IsA(left, RowExpr) && IsA(right, RowExpr)) {
		List *ls = ((RowExpr *)left)->args, *rs = ((RowExpr *)right)->args;

		for (int i = 0; list_length(ls) == list_length(rs) && i < list_length(ls); i++)
			tie(an, node_of_expr(an, l, list_nth(ls, i)), node_of_expr(an, l, list_nth(rs, i)), domain);
		return;
	}
	tie(an, node_of_expr(an, l, left), node_of_expr(an, l, right), domain);
}

/* A conjunct, for the rows of *domain*: what it equates, what it binds. */
static void
use_conjunct(struct analysis *an, const struct level *l, Node *expr, struct keyed_range domain)
{
	int nodes[8];

	if (IsA(expr, A_Expr) && ((A_Expr *)expr)->kind == AEXPR_OP && is_equals((A_Expr *)expr))
		tie_rows(an, l, ((A_Expr *)expr)->lexpr, ((A_Expr *)expr)->rexpr, domain);
	int n = candidates(an, l, expr, nodes, 0, ARRAY_LEN(nodes));

	for (int i = 0; i < n; i++) {
		struct sources s = {0};

		if (in_range(nodes[i], domain) && bind(an, l, expr, nodes[i], &s))
			graph_condition(an, nodes[i], domain, s.at, s.n);
	}
}

static List *
flatten_and(List *out, Node *expr)
{
	ListCell *cell;

	if (expr == NULL)
		return out;
	if (!IsA(expr, BoolExpr) || ((BoolExpr *)expr)->boolop != AND_EXPR)
		return lappend(out, expr);
	foreach (cell, ((BoolExpr *)expr)->args)
		out = flatten_and(out, lfirst(cell));
	return out;
}

/* --- joins --- */

static void
use_on(struct analysis *an, struct level *l, const JoinExpr *j, const struct arm *left, const struct arm *right, bool optional)
{
	List *conjuncts = flatten_and(NIL, j->quals);
	ListCell *cell;

	if (j->jointype == JOIN_INNER && !optional) {
		l->strong = list_concat(l->strong, conjuncts);
		return;
	}
	struct keyed_range domain = j->jointype == JOIN_LEFT ? right->keyed
	    : j->jointype == JOIN_RIGHT                      ? left->keyed
	                                                     : (struct keyed_range){left->keyed.lo, right->keyed.hi};

	foreach (cell, conjuncts) {
		Node *expr = lfirst(cell);

		if (j->jointype != JOIN_FULL)
			use_conjunct(an, l, expr, domain);
		else if (IsA(expr, A_Expr) && ((A_Expr *)expr)->kind == AEXPR_OP && is_equals((A_Expr *)expr))
			tie_full(an, node_of_expr(an, l, ((A_Expr *)expr)->lexpr), node_of_expr(an, l, ((A_Expr *)expr)->rexpr), left, right);
	}
}

static void
use_column_pair(struct analysis *an, struct level *l, const JoinExpr *j, const struct arm *left, const struct arm *right,
    const char *name, bool optional)
{
	bool unsure = false;
	struct column a = find_unqualified(l, name, left->entry_lo, left->entry_hi, &unsure);
	struct column b = find_unqualified(l, name, right->entry_lo, right->entry_hi, &unsure);
	struct merged_column *m = palloc(sizeof(*m));

	*m = (struct merged_column){.name = name, .entry_lo = left->entry_lo, .entry_hi = right->entry_hi, .next = l->merged};
	if (!unsure && a.entry != NULL && b.entry != NULL) {
		int x = column_node(an, &a), y = column_node(an, &b);

		if (j->jointype == JOIN_INNER && !optional)
			l->strong_pairs = lappend(l->strong_pairs, pair_of(x, y));
		else if (j->jointype == JOIN_FULL)
			tie_full(an, x, y, left, right);
		else
			tie(an, x, y, j->jointype == JOIN_LEFT ? right->keyed : j->jointype == JOIN_RIGHT ? left->keyed
			              : (struct keyed_range){left->keyed.lo, right->keyed.hi});
		if (j->jointype != JOIN_FULL)
			m->column = j->jointype == JOIN_RIGHT ? b : a;
	}
	l->merged = m;
}

/* NATURAL: followed between two plain relations only. */
static void
use_natural(struct analysis *an, struct level *l, const JoinExpr *j, const struct arm *left, const struct arm *right, bool optional)
{
	bool plain = left->entry_hi - left->entry_lo == 1 && right->entry_hi - right->entry_lo == 1 &&
	    l->entries[left->entry_lo].rel != NULL && l->entries[right->entry_lo].rel != NULL;

	if (!plain) {
		l->opaque = true;
		return;
	}
	const struct catalog_relation *a = l->entries[left->entry_lo].rel, *b = l->entries[right->entry_lo].rel;

	for (int i = 0; i < a->n_columns; i++)
		if (catalog_find_column(b, a->columns[i].name, NULL) != NULL)
			use_column_pair(an, l, j, left, right, a->columns[i].name, optional);
}

static void
set_nullable(struct analysis *an, struct level *l, const struct arm *arm)
{
	for (int i = arm->entry_lo; i < arm->entry_hi; i++)
		l->entries[i].nullable = true;
	for (int k = arm->keyed.lo; k < arm->keyed.hi; k++)
		an->graph->keyed[k].nullable = true;
}

static struct arm
analyze_join(struct analysis *an, struct level *l, JoinExpr *j, bool optional)
{
	/* What an alias hides must be used at once: at the level's end its names are gone. */
	optional |= j->alias != NULL;
	bool left_optional = optional || j->jointype == JOIN_RIGHT || j->jointype == JOIN_FULL;
	bool right_optional = optional || j->jointype == JOIN_LEFT || j->jointype == JOIN_FULL;
	struct arm left = analyze_item(an, l, j->larg, left_optional), right = analyze_item(an, l, j->rarg, right_optional);
	bool left_keyed = left.keyed.hi > left.keyed.lo, right_keyed = right.keyed.hi > right.keyed.lo;
	ListCell *cell;

	if ((j->jointype == JOIN_LEFT && right_keyed && !left_keyed) || (j->jointype == JOIN_RIGHT && left_keyed && !right_keyed) ||
	    (j->jointype == JOIN_FULL && left_keyed != right_keyed))
		an->no_multi = "an outer join that keeps the rows of a table which is not sharded";
	if (j->jointype == JOIN_LEFT || j->jointype == JOIN_FULL)
		set_nullable(an, l, &right);
	if (j->jointype == JOIN_RIGHT || j->jointype == JOIN_FULL)
		set_nullable(an, l, &left);
	if (j->isNatural)
		use_natural(an, l, j, &left, &right, optional);
	foreach (cell, j->usingClause)
		use_column_pair(an, l, j, &left, &right, strVal(lfirst(cell)), optional);
	l->no_star |= j->isNatural || j->usingClause != NIL;
	analyze_nested(an, l, j->quals);
	use_on(an, l, j, &left, &right, optional);
	if (j->join_using_alias != NULL)
		level_add(l, j->join_using_alias->aliasname);
	if (j->alias != NULL) {
		for (int i = left.entry_lo; i < l->n_entries; i++)
			l->entries[i].hidden = true;
		l->no_star = true;
		level_add(l, j->alias->aliasname);
	}
	return (struct arm){left.entry_lo, l->n_entries, {left.keyed.lo, an->graph->n_keyed}};
}

static struct arm
analyze_item(struct analysis *an, struct level *l, Node *item, bool optional)
{
	struct arm arm = {l->n_entries, 0, {an->graph->n_keyed, 0}};
	const Alias *alias = NULL;

	if (++an->tree_depth > MAX_TREE_DEPTH) {
		an->facts.deep = true;
	} else if (IsA(item, JoinExpr)) {
		arm = analyze_join(an, l, (JoinExpr *)item, optional);
	} else if (IsA(item, RangeVar)) {
		add_relation(an, l, (RangeVar *)item, l->ctes);
	} else if (IsA(item, RangeTableSample)) {
		arm = analyze_item(an, l, ((RangeTableSample *)item)->relation, optional);
		analyze_nested(an, l, (Node *)((RangeTableSample *)item)->args);
	} else {
		if (IsA(item, RangeSubselect)) {
			RangeSubselect *s = (RangeSubselect *)item;

			analyze_query(an, s->subquery, s->lateral ? l : l->up, l->ctes, l->depth + 1, NULL);
			alias = s->alias;
		} else { /* functions see what stands before them */
			analyze_nested(an, l, item);
			alias = IsA(item, RangeFunction) ? ((RangeFunction *)item)->alias
			    : IsA(item, RangeTableFunc) ? ((RangeTableFunc *)item)->alias
			                                : NULL;
		}
		level_add(l, alias != NULL ? alias->aliasname : NULL);
		l->no_star = true;
	}
	an->tree_depth--;
	arm.entry_hi = l->n_entries;
	arm.keyed.hi = an->graph->n_keyed;
	return arm;
}

/* --- queries --- */

struct nested {
	struct analysis *an;
	struct level *level;
};

static bool
visit_nested(Node *node, void *arg)
{
	struct nested *n = arg;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink)) {
		visit_nested(((SubLink *)node)->testexpr, arg);
		analyze_query(n->an, ((SubLink *)node)->subselect, n->level, n->level->ctes, n->level->depth + 1, NULL);
		return false;
	}
	if (IsA(node, SelectStmt)) {
		analyze_query(n->an, node, n->level, n->level->ctes, n->level->depth + 1, NULL);
		return false;
	}
	return walk_children(n->an, node, visit_nested, arg);
}

/* The subqueries of an expression (or a list of such). */
static void
analyze_nested(struct analysis *an, struct level *l, Node *expr)
{
	struct nested n = {an, l};

	visit_nested(expr, &n);
}

/* WITH: its queries see what is outside the statement. Returns the names with those of *with*. */
static const struct cte_name *
analyze_with(struct analysis *an, const WithClause *with, struct level *up, const struct cte_name *ctes, int depth)
{
	ListCell *cell;

	if (with == NULL)
		return ctes;
	if (with->recursive)
		ctes = push_ctes(with, ctes);
	foreach (cell, with->ctes) {
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

		analyze_query(an, cte->ctequery, up, ctes, depth + 1, NULL);
		if (!with->recursive) {
			struct cte_name *more = palloc(sizeof(*more));

			*more = (struct cte_name){cte->ctename, ctes};
			ctes = more;
		}
	}
	return ctes;
}

/* What WHERE and the inner joins say, once all the level's relations are known. */
static void
finish_level(struct analysis *an, struct level *l, Node *where)
{
	ListCell *cell;
	List *conjuncts = list_concat(l->strong, flatten_and(NIL, where));
	struct keyed_range domain = {l->keyed_lo, an->graph->n_keyed};

	foreach (cell, l->strong_pairs) {
		const struct pair *p = lfirst(cell);

		tie(an, p->a, p->b, domain);
	}
	foreach (cell, conjuncts)
		use_conjunct(an, l, lfirst(cell), domain);
}

static void
analyze_from(struct analysis *an, struct level *l, List *from)
{
	ListCell *cell;

	foreach (cell, from)
		analyze_item(an, l, lfirst(cell), false);
}

static void
analyze_select(struct analysis *an, SelectStmt *s, struct level *up, const struct cte_name *ctes, int depth, struct level *l)
{
	ctes = analyze_with(an, s->withClause, up, ctes, depth);
	level_init(an, l, up, ctes, depth);
	if (s->op != SETOP_NONE) {
		analyze_query(an, (Node *)s->larg, up, ctes, depth, NULL);
		analyze_query(an, (Node *)s->rarg, up, ctes, depth, NULL);
	}
	analyze_from(an, l, s->fromClause);
	analyze_nested(an, l, (Node *)s->distinctClause);
	analyze_nested(an, l, (Node *)s->targetList);
	analyze_nested(an, l, s->whereClause);
	analyze_nested(an, l, (Node *)s->groupClause);
	analyze_nested(an, l, s->havingClause);
	analyze_nested(an, l, (Node *)s->windowClause);
	analyze_nested(an, l, (Node *)s->valuesLists);
	analyze_nested(an, l, (Node *)s->sortClause);
	analyze_nested(an, l, s->limitOffset);
	analyze_nested(an, l, s->limitCount);
	finish_level(an, l, s->whereClause);
}

static void
analyze_update(struct analysis *an, UpdateStmt *s, struct level *up, const struct cte_name *ctes, int depth, struct level *l)
{
	ctes = analyze_with(an, s->withClause, up, ctes, depth);
	level_init(an, l, up, ctes, depth);
	add_relation(an, l, s->relation, NULL);
	analyze_from(an, l, s->fromClause);
	analyze_nested(an, l, (Node *)s->targetList);
	analyze_nested(an, l, s->whereClause);
	analyze_nested(an, l, (Node *)s->returningList);
	finish_level(an, l, s->whereClause);
}

static void
analyze_delete(struct analysis *an, DeleteStmt *s, struct level *up, const struct cte_name *ctes, int depth, struct level *l)
{
	ctes = analyze_with(an, s->withClause, up, ctes, depth);
	level_init(an, l, up, ctes, depth);
	add_relation(an, l, s->relation, NULL);
	analyze_from(an, l, s->usingClause);
	analyze_nested(an, l, s->whereClause);
	analyze_nested(an, l, (Node *)s->returningList);
	finish_level(an, l, s->whereClause);
}

static void
analyze_insert(struct analysis *an, InsertStmt *s, struct level *up, const struct cte_name *ctes, int depth, struct level *l)
{
	ctes = analyze_with(an, s->withClause, up, ctes, depth);
	level_init(an, l, up, ctes, depth);
	if (s->selectStmt != NULL)
		analyze_query(an, s->selectStmt, up, ctes, depth + 1, NULL);
	add_relation(an, l, s->relation, NULL);
	analyze_nested(an, l, (Node *)s->onConflictClause);
	analyze_nested(an, l, (Node *)s->returningList);
}

void
analyze_query(struct analysis *an, Node *query, struct level *up, const struct cte_name *ctes, int depth, struct level *top)
{
	struct level own, *l = top != NULL ? top : &own;

	if (query == NULL)
		return;
	if (++an->tree_depth > MAX_TREE_DEPTH)
		an->facts.deep = true;
	else if (IsA(query, SelectStmt))
		analyze_select(an, (SelectStmt *)query, up, ctes, depth, l);
	else if (IsA(query, UpdateStmt))
		analyze_update(an, (UpdateStmt *)query, up, ctes, depth, l);
	else if (IsA(query, DeleteStmt))
		analyze_delete(an, (DeleteStmt *)query, up, ctes, depth, l);
	else if (IsA(query, InsertStmt))
		analyze_insert(an, (InsertStmt *)query, up, ctes, depth, l);
	an->tree_depth--;
}
