/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_facts - one walk over a statement: what it calls, reads and writes.
 *
 * The walk visits every node of a query, whatever its place, so that nothing hides from it: a function in FROM, a
 * relation in a CTE of a subquery. Names of CTEs are followed by PostgreSQL's scoping (parse_cte.c: without RECURSIVE
 * a CTE sees those before it only). A kind of node that is not listed in is_known_node() makes the statement "not a
 * read"; that also keeps raw_expression_tree_walker() from raising an error, which nobody here would catch. */
#include "parse_int.h"

struct walk {
	struct analysis *an;
	const struct cte_name *ctes;
	const Node *skip[2]; /* dealt with by hand: the target, the WITH clause */
};

static bool
is_known_node(NodeTag tag)
{
	switch (tag) {
	case T_SetToDefault: case T_CurrentOfExpr: case T_SQLValueFunction: case T_Integer: case T_Float: case T_Boolean:
	case T_String: case T_BitString: case T_ParamRef: case T_A_Const: case T_A_Star: case T_Alias: case T_RangeVar:
	case T_GroupingFunc: case T_SubLink: case T_CaseExpr: case T_RowExpr: case T_CoalesceExpr:
	case T_MinMaxExpr: case T_XmlExpr: case T_NullTest: case T_BooleanTest: case T_JoinExpr: case T_IntoClause:
	case T_List: case T_InsertStmt: case T_DeleteStmt: case T_UpdateStmt: case T_MergeStmt: case T_MergeWhenClause:
	case T_SelectStmt: case T_A_Expr: case T_BoolExpr: case T_ColumnRef: case T_FuncCall: case T_NamedArgExpr:
	case T_A_Indices: case T_A_Indirection: case T_A_ArrayExpr: case T_ResTarget: case T_MultiAssignRef:
	case T_TypeCast: case T_CollateClause: case T_SortBy: case T_WindowDef: case T_RangeSubselect:
	case T_RangeFunction: case T_RangeTableSample: case T_RangeTableFunc: case T_RangeTableFuncCol: case T_TypeName:
	case T_ColumnDef: case T_IndexElem: case T_GroupingSet: case T_LockingClause: case T_XmlSerialize:
	case T_WithClause: case T_InferClause: case T_OnConflictClause: case T_CommonTableExpr:
		return true;
	default:
		return false;
	}
}

bool
walk_children(struct analysis *an, Node *node, bool (*fn)(Node *, void *), void *arg)
{
	if (node == NULL)
		return false;
	if (!is_known_node(nodeTag(node))) {
		an->facts.unsafe = true;
		an->facts.volatile_fn = true;
		an->facts.user_fn = true;
		return false;
	}
	if (an->tree_depth >= MAX_TREE_DEPTH) {
		an->facts.deep = true;
		return true;
	}
	an->tree_depth++;
	bool stop = raw_expression_tree_walker(node, fn, arg);
	an->tree_depth--;
	return stop;
}

static const struct cte_name *
push_cte(const char *name, const struct cte_name *up)
{
	struct cte_name *c = palloc(sizeof(*c));

	c->name = name;
	c->up = up;
	return c;
}

const struct cte_name *
push_ctes(const WithClause *with, const struct cte_name *ctes)
{
	ListCell *cell;

	if (with != NULL)
		foreach (cell, with->ctes)
			ctes = push_cte(lfirst_node(CommonTableExpr, cell)->ctename, ctes);
	return ctes;
}

static bool visit(Node *node, void *arg);

/* The queries of WITH; the names they add are in w->ctes afterwards. */
static bool
visit_with(struct walk *w, WithClause *with)
{
	ListCell *cell;

	if (with == NULL)
		return false;
	if (with->recursive)
		w->ctes = push_ctes(with, w->ctes);
	foreach (cell, with->ctes) {
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

		if (visit(cte->ctequery, w))
			return true;
		if (!with->recursive)
			w->ctes = push_cte(cte->ctename, w->ctes);
	}
	return false;
}

static void
note_relation(struct walk *w, const RangeVar *rv, bool written)
{
	struct facts *f = &w->an->facts;
	struct relation_ref ref = resolve_relation(w->an, rv, written ? NULL : w->ctes);

	switch (ref.class) {
	case REL_CTE:
		return;
	case REL_LOCAL:
		f->n_local++;
		f->n_write_local += written;
		f->local_name = rv->relname;
		if (ref.rel->reach & (REACH_VOLATILE | REACH_FOREIGN))
			f->unsafe = true;
		break;
	case REL_REFERENCE:
		f->n_reference++;
		f->reads_view |= ref.rel->relkind == 'v';
		f->n_write_reference += written;
		f->reference_triggers |= written && ref.rel->has_triggers;
		break;
	case REL_SHARDED:
		f->n_sharded++;
		f->n_write_sharded += written;
		f->sharded_name = rv->relname;
		break;
	case REL_SHARDED_VIEW:
		f->n_sharded_view++;
		f->view_name = rv->relname;
		break;
	case REL_UNKNOWN:
		f->n_unknown++;
		f->n_write_local += written;
		f->local_name = rv->relname;
		f->unsafe = true;
		break;
	case REL_UNSEEN:
		f->n_unseen++;
		f->unseen_name = rv->relname;
		f->unsafe = true;
		break;
	}
	if (rv->schemaname != NULL && strncmp(rv->schemaname, "pg_temp", 7) == 0)
		w->an->plan->pins |= PIN_TEMP;
}

void
facts_relation(struct analysis *an, const RangeVar *rv, bool written)
{
	struct walk w = {.an = an};

	note_relation(&w, rv, written);
}

/* One value per transaction, which is another on another server. */
static bool
is_transaction_clock(const char *name)
{
	static const char *const names[] = {"now", "transaction_timestamp", "statement_timestamp", "age"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

/* Volatile built-ins that change nothing and work on a replica. */
static bool
is_harmless_volatile(const char *name)
{
	static const char *const names[] = {"random", "clock_timestamp", "timeofday", "gen_random_uuid", "pg_sleep", "pg_sleep_for",
	    "pg_sleep_until"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static bool
starts_with(const char *s, const char *head)
{
	return strncmp(s, head, strlen(head)) == 0;
}

/* What a call leaves behind in the server's session. */
static void
note_session_effects(struct walk *w, const FuncCall *call, const char *name)
{
	struct plan *p = w->an->plan;
	struct facts *f = &w->an->facts;

	if (strcmp(name, "currval") == 0 || strcmp(name, "lastval") == 0) {
		p->flags |= PLAN_USES_SESSION_SEQ;
		f->sequence_fn = true;
	} else if (strcmp(name, "nextval") == 0 || strcmp(name, "setval") == 0) {
		p->flags |= PLAN_ADVANCES_SEQ;
		f->sequence_fn = true;
	} else if (starts_with(name, "pg_advisory_") || starts_with(name, "pg_try_advisory_")) {
		f->advisory_fn = true;
		if (starts_with(name, "pg_advisory_unlock"))
			p->flags |= PLAN_UNLOCKS;
		if (strstr(name, "_xact_") == NULL && !starts_with(name, "pg_advisory_unlock"))
			p->pins |= PIN_ADVISORY;
	} else if (strcmp(name, "set_config") == 0) {
		const Node *local = list_length(call->args) == 3 ? lthird(call->args) : NULL;
		bool is_local = local != NULL && IsA(local, A_Const) && !((const A_Const *)local)->isnull &&
		    IsA(&((const A_Const *)local)->val, Boolean) && ((const A_Const *)local)->val.boolval.boolval;

		if (!is_local)
			p->pins |= PIN_SETTING;
	} else if (strcmp(name, "setseed") == 0) {
		p->pins |= PIN_SETTING;
		f->effects_fn = true;
	} else if (starts_with(name, "dblink_connect") || starts_with(name, "dblink_open")) {
		p->pins |= PIN_OTHER;
	}
}

/* What two servers with the same data tell differently. */
static bool
is_of_the_server(const char *name)
{
	static const char *const names[] = {
	    "pg_backend_pid", "pg_postmaster_start_time", "pg_conf_load_time", "current_database", "current_catalog", "version", "pg_is_in_recovery",
	    "pg_my_temp_schema", "pg_blocking_pids", "pg_safe_snapshot_blocking_pids", "pg_trigger_depth", "pg_export_snapshot",
	    "pg_current_wal_lsn", "pg_current_wal_insert_lsn", "pg_current_snapshot", "txid_current_snapshot", "pg_relation_filenode",
	    "pg_relation_filepath", "format_type", "obj_description", "col_description", "shobj_description"};
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return starts_with(name, "inet_server_") || starts_with(name, "inet_client_") || starts_with(name, "to_reg") || starts_with(name, "pg_stat_get_") ||
	    strstr(name, "_size") != NULL;
}

static void
note_function(struct walk *w, const FuncCall *call)
{
	struct facts *f = &w->an->facts;
	const char *name;
	struct catalog_function fn = resolve_function(w->an, call->funcname, &name);
	bool syntax = call->funcformat == COERCE_SQL_SYNTAX; /* EXTRACT, SUBSTRING … FROM: pg_catalog's, by the grammar */

	f->any_function = true;
	f->window |= call->over != NULL;
	note_session_effects(w, call, name);
	if (fn.volatility == FUNCTION_UNKNOWN && syntax)
		fn = (struct catalog_function){.volatility = FUNCTION_STABLE, .builtin = true};
	bool harmless = fn.builtin && !fn.has_effects && is_harmless_volatile(name);

	if (is_transaction_clock(name))
		f->time_fn = true;
	f->server_fn |= is_of_the_server(name);
	f->setting_fn |= strcmp(name, "current_setting") == 0;
	f->unknown_fn |= fn.volatility == FUNCTION_UNKNOWN;
	if (fn.volatility == FUNCTION_UNKNOWN || fn.volatility == FUNCTION_VOLATILE) {
		f->volatile_fn = true;
		f->unsafe |= !harmless;
	}
	if (fn.has_effects) {
		f->unsafe = true;
		f->effects_fn = true;
	}
	if (!fn.builtin && fn.volatility != FUNCTION_IMMUTABLE)
		f->user_fn = true;
	/* Built-ins that write or signal are volatile and not listed as harmless. */
	if (fn.builtin && fn.volatility == FUNCTION_VOLATILE && !harmless)
		f->effects_fn = true;
	if (fn.touches_sharded)
		f->touches_sharded = name;
}

static void
note_operator(struct walk *w, const A_Expr *e)
{
	const char *schema, *name;

	switch (e->kind) {
	case AEXPR_BETWEEN: case AEXPR_NOT_BETWEEN: case AEXPR_BETWEEN_SYM: case AEXPR_NOT_BETWEEN_SYM:
		return; /* < and > by the types' own order */
	default:
		break;
	}
	if (!split_name(e->name, &schema, &name) || w->an->env->catalog == NULL ||
	    !catalog_operator_is_safe(w->an->env->catalog, name)) {
		w->an->facts.unsafe = true;
		if (w->an->env->catalog != NULL)
			w->an->facts.user_fn = true;
	}
}

static void
note_value_function(struct walk *w, const SQLValueFunction *v)
{
	switch (v->op) {
	case SVFOP_CURRENT_DATE: case SVFOP_CURRENT_TIME: case SVFOP_CURRENT_TIME_N: case SVFOP_CURRENT_TIMESTAMP:
	case SVFOP_CURRENT_TIMESTAMP_N: case SVFOP_LOCALTIME: case SVFOP_LOCALTIME_N: case SVFOP_LOCALTIMESTAMP:
	case SVFOP_LOCALTIMESTAMP_N:
		w->an->facts.time_fn = true;
		break;
	default:
		break;
	}
}

/* t.f and (expression).f may be the call f(t), if f is no column: a user's function of that name counts as called. */
static void
note_attribute(struct walk *w, const char *name)
{
	struct catalog_function fn = {.volatility = FUNCTION_UNKNOWN};
	const struct plan_env *env = w->an->env;
	struct facts *f = &w->an->facts;

	if (env->catalog != NULL)
		fn = catalog_find_function(env->catalog, NULL, name, env->search_path, env->n_search_path);
	if (fn.volatility == FUNCTION_UNKNOWN || fn.builtin)
		return;
	f->user_fn |= fn.volatility != FUNCTION_IMMUTABLE;
	if (fn.volatility == FUNCTION_VOLATILE || fn.has_effects)
		f->unsafe = f->volatile_fn = true;
	if (fn.touches_sharded)
		f->touches_sharded = name;
}

static void
note_indirection(struct walk *w, List *indirection)
{
	ListCell *cell;

	foreach (cell, indirection)
		if (IsA(lfirst(cell), String))
			note_attribute(w, strVal(lfirst(cell)));
}

static void
note_column(struct walk *w, const ColumnRef *ref)
{
	static const char *const names[] = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"};
	Node *last = llast(ref->fields);

	if (IsA(last, String) && list_length(ref->fields) > 1)
		note_attribute(w, strVal(last));
	if (IsA(last, String))
		for (size_t i = 0; i < ARRAY_LEN(names); i++)
			if (strcmp(strVal(last), names[i]) == 0)
				w->an->facts.system_column = true;
}

/* 'now', 'today' and the like become the time when cast to a date or time: any string that begins with a letter is
 * taken for one. The string is no part of the shape, so the plan is good for this text only. */
static void
note_cast(struct walk *w, const TypeCast *cast)
{
	static const char *const times[] = {"date", "timestamp", "timestamptz", "time", "timetz"};
	const char *schema, *name;

	if (w->an->sharded && split_name(cast->typeName->names, &schema, &name) && starts_with(name, "reg") && strcmp(name, "regexp") != 0)
		w->an->facts.server_fn = true; /* OIDs */
	if (!w->an->sharded || !IsA(cast->arg, A_Const) || !split_name(cast->typeName->names, &schema, &name))
		return;
	const A_Const *c = (const A_Const *)cast->arg;

	if (c->isnull || !IsA(&c->val, String))
		return;
	for (size_t i = 0; i < ARRAY_LEN(times); i++)
		if (strcmp(name, times[i]) == 0) {
			const char *s = c->val.sval.sval + strspn(c->val.sval.sval, " \t\n");

			w->an->no_cache = true;
			w->an->facts.time_fn |= *s >= 'A';
		}
}

static bool
visit_dml(struct walk *outer, Node *stmt, RangeVar *target, WithClause *with)
{
	struct walk w = {.an = outer->an, .ctes = outer->ctes};
	struct facts *f = &w.an->facts;

	f->writes = true;
	if (visit_with(&w, with))
		return true;
	int sharded = f->n_write_sharded;

	note_relation(&w, target, true);
	if (IsA(stmt, InsertStmt))
		f->insert_sharded |= f->n_write_sharded > sharded;
	struct relation_ref ref = resolve_relation(w.an, target, NULL);

	if (ref.class == REL_SHARDED || ref.class == REL_REFERENCE)
		note_write(w.an, stmt, &ref);
	w.skip[0] = (Node *)target;
	w.skip[1] = (Node *)with;
	/* The SELECT of an INSERT is its outermost; one in UPDATE or DELETE is a subquery. */
	int depth = IsA(stmt, InsertStmt) ? 0 : 1;

	w.an->select_depth += depth;
	bool stop = walk_children(w.an, stmt, visit, &w);

	w.an->select_depth -= depth;
	return stop;
}

/* The children of a node whose volatile functions give one value for many rows. */
static bool
visit_once(struct walk *w, Node *node)
{
	struct facts *f = &w->an->facts;
	bool before = f->volatile_fn;

	f->volatile_fn = false;
	bool stop = walk_children(w->an, node, visit, w);

	f->volatile_once |= f->volatile_fn;
	f->volatile_fn |= before;
	return stop;
}

static bool
visit_select(struct walk *outer, SelectStmt *s)
{
	struct walk w = {.an = outer->an, .ctes = outer->ctes};

	if (visit_with(&w, s->withClause))
		return true;
	w.skip[0] = (Node *)s->withClause;
	if (s->intoClause != NULL) {
		w.an->facts.into = true;
		w.skip[1] = (Node *)s->intoClause;
	}
	w.an->facts.locking |= s->lockingClause != NIL;
	w.an->facts.n_limits += s->limitCount != NULL || s->limitOffset != NULL || (s->distinctClause != NIL && linitial(s->distinctClause) != NULL);
	/* The grammar hangs FOR UPDATE's relation names there: they are aliases of FROM, not relations. */
	List *locks = s->lockingClause;

	s->lockingClause = NIL;
	bool stop = w.an->select_depth++ > 0 ? visit_once(&w, (Node *)s) : walk_children(w.an, (Node *)s, visit, &w);

	w.an->select_depth--;
	s->lockingClause = locks;
	return stop;
}

static bool
visit(Node *node, void *arg)
{
	struct walk *w = arg;

	if (node == NULL || node == w->skip[0] || node == w->skip[1])
		return false;
	switch (nodeTag(node)) {
	case T_RangeVar:
		note_relation(w, (RangeVar *)node, false);
		return false;
	case T_SelectStmt:
		return visit_select(w, (SelectStmt *)node);
	case T_InsertStmt:
		return visit_dml(w, node, ((InsertStmt *)node)->relation, ((InsertStmt *)node)->withClause);
	case T_UpdateStmt:
		return visit_dml(w, node, ((UpdateStmt *)node)->relation, ((UpdateStmt *)node)->withClause);
	case T_DeleteStmt:
		return visit_dml(w, node, ((DeleteStmt *)node)->relation, ((DeleteStmt *)node)->withClause);
	case T_MergeStmt:
		w->an->facts.merge = true;
		return visit_dml(w, node, ((MergeStmt *)node)->relation, ((MergeStmt *)node)->withClause);
	case T_FuncCall:
		note_function(w, (FuncCall *)node);
		break;
	case T_A_Expr:
		note_operator(w, (A_Expr *)node);
		break;
	case T_SubLink:
		if (((SubLink *)node)->operName != NIL) { /* x op ANY (SELECT …) */
			A_Expr e = {.type = T_A_Expr, .kind = AEXPR_OP, .name = ((SubLink *)node)->operName};

			note_operator(w, &e);
		}
		break;
	case T_SQLValueFunction:
		note_value_function(w, (SQLValueFunction *)node);
		return false;
	case T_ParamRef: {
		int n = ((ParamRef *)node)->number;

		if (n > w->an->plan->max_param)
			w->an->plan->max_param = n;
		return false;
	}
	case T_TypeCast:
		note_cast(w, (TypeCast *)node);
		break;
	case T_ColumnRef:
		note_column(w, (ColumnRef *)node);
		return false;
	case T_A_Const:
		return false;
	case T_A_Indirection:
		note_indirection(w, ((A_Indirection *)node)->indirection);
		break;
	case T_RangeFunction:
		return visit_once(w, node);
	case T_CurrentOfExpr:
		w->an->facts.current_of = true;
		return false;
	case T_RangeTableSample:
		w->an->facts.sample = true;
		break;
	default:
		break;
	}
	return walk_children(w->an, node, visit, w);
}

void
collect_facts(struct analysis *an, Node *stmt)
{
	struct walk w = {.an = an};

	visit(stmt, &w);
	if (an->facts.deep)
		an->facts.unsafe = true;
}

bool
facts_read_only(const struct analysis *an)
{
	const struct facts *f = &an->facts;

	return !f->unsafe && !f->into && !f->locking && !f->writes && !an->env->has_temp_tables;
}
