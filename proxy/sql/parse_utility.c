/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_utility - statements that are no queries: what they are, what they name, what they leave in a session.
 *
 * Their route on a sharded database is decided here when it hangs on the kind alone (transactions and settings: any;
 * LISTEN: the first shard); parse_ddl.c decides for what works on tables. */
#include "parse_int.h"

static const char *
keep(struct analysis *an, const char *s)
{
	return s != NULL ? arena_strdup(&an->plan->arena, s) : NULL;
}

/* --- transactions --- */

/* READ ONLY and READ WRITE among the options of BEGIN and SET TRANSACTION. */
static void
read_transaction_modes(struct analysis *an, List *options)
{
	ListCell *cell;

	foreach (cell, options) {
		DefElem *d = lfirst_node(DefElem, cell);

		if (strcmp(d->defname, "transaction_read_only") != 0 || d->arg == NULL || !IsA(d->arg, A_Const))
			continue;
		bool only = ((A_Const *)d->arg)->val.ival.ival != 0;

		an->plan->flags &= ~(unsigned)(PLAN_BEGIN_READ_ONLY | PLAN_BEGIN_READ_WRITE);
		an->plan->flags |= only ? PLAN_BEGIN_READ_ONLY : PLAN_BEGIN_READ_WRITE;
	}
}

static void
analyze_transaction(struct analysis *an, const TransactionStmt *s)
{
	static const enum stmt_kind kinds[] = {
	    [TRANS_STMT_BEGIN] = STMT_BEGIN, [TRANS_STMT_START] = STMT_BEGIN, [TRANS_STMT_COMMIT] = STMT_COMMIT,
	    [TRANS_STMT_ROLLBACK] = STMT_ROLLBACK, [TRANS_STMT_SAVEPOINT] = STMT_SAVEPOINT, [TRANS_STMT_RELEASE] = STMT_RELEASE,
	    [TRANS_STMT_ROLLBACK_TO] = STMT_ROLLBACK_TO, [TRANS_STMT_PREPARE] = STMT_PREPARE_TRANSACTION,
	    [TRANS_STMT_COMMIT_PREPARED] = STMT_COMMIT_PREPARED, [TRANS_STMT_ROLLBACK_PREPARED] = STMT_ROLLBACK_PREPARED,
	};
	struct plan *p = an->plan;

	p->kind = kinds[s->kind];
	p->name = keep(an, s->savepoint_name != NULL ? s->savepoint_name : s->gid);
	p->route = ROUTE_ANY;
	if (s->chain)
		p->flags |= PLAN_CHAIN;
	if (s->kind == TRANS_STMT_BEGIN || s->kind == TRANS_STMT_START)
		read_transaction_modes(an, s->options);
	if (s->gid == NULL)
		return;
	an->no_cache = true; /* the name is a literal */
	p->flags |= PLAN_WRITES;
	if (s->kind != TRANS_STMT_PREPARE)
		p->flags |= PLAN_NO_BLOCK;
	p->route = ROUTE_FIRST;
	if (an->sharded) {
		refuse(an, "pgspan cannot run PREPARE TRANSACTION and its kind on a sharded database");
		refuse_hint(an, "pgspan itself commits in two phases over the shards.");
	}
}

/* --- settings --- */

static void
analyze_set(struct analysis *an, const VariableSetStmt *s)
{
	struct plan *p = an->plan;
	struct set_plan *set = &p->set;

	p->kind = STMT_SET;
	p->route = ROUTE_ANY;
	p->multi = MULTI_SAME;
	switch (s->kind) {
	case VAR_SET_VALUE: case VAR_SET_CURRENT:
		set->kind = s->is_local ? SET_LOCAL : SET_VALUE;
		break;
	case VAR_SET_DEFAULT:
		set->kind = s->is_local ? SET_LOCAL : SET_RESET;
		break;
	case VAR_RESET:
		set->kind = SET_RESET;
		break;
	case VAR_RESET_ALL:
		set->kind = SET_RESET_ALL;
		return;
	case VAR_SET_MULTI:
		set->kind = SET_TRANSACTION;
		if (strcmp(s->name, "SESSION CHARACTERISTICS") == 0) {
			set->kind = SET_SESSION_CHARACTERISTICS;
			set->name = "session characteristics";
		} else if (strcmp(s->name, "TRANSACTION SNAPSHOT") == 0) {
			p->route = ROUTE_FIRST;
			if (an->sharded)
				refuse(an, "pgspan cannot take over a snapshot on a sharded database");
		} else {
			read_transaction_modes(an, s->args);
		}
		return;
	}
	char *name = arena_strdup(&p->arena, s->name);

	for (char *c = name; *c != '\0'; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	set->name = name;
}

/* --- SQL-level prepared statements --- */

/* The text behind AS: the first AS outside parentheses. */
static const char *
text_behind_as(struct analysis *an, const RawStmt *raw)
{
	size_t off = raw->stmt_location > 0 ? (size_t)raw->stmt_location : 0;
	size_t len = raw->stmt_len > 0 ? (size_t)raw->stmt_len : strlen(an->sql + off);
	const char *text = an->sql + off;
	struct scan_iter it;
	struct scan_token tok;
	int depth = 0;

	scan_iter_init(&it, text, len, an->env->standard_conforming_strings ? 0 : SCAN_SCS_OFF);
	while (scan_next(&it, &tok)) {
		if (tok.kind == SCAN_SELF && text[tok.off] == '(')
			depth++;
		else if (tok.kind == SCAN_SELF && text[tok.off] == ')')
			depth--;
		else if (depth == 0 && scan_is_word(text, &tok, "as"))
			return arena_strndup(&an->plan->arena, text + tok.off + tok.len, len - tok.off - tok.len);
	}
	return NULL;
}

static void
analyze_prepare(struct analysis *an, const PrepareStmt *s, const RawStmt *raw)
{
	struct plan *p = an->plan;
	uint32_t *types = arena_alloc(&p->arena, sizeof(*types) * (size_t)(list_length(s->argtypes) + 1));
	ListCell *cell;
	int n = 0;

	p->kind = STMT_PREPARE;
	p->route = ROUTE_ANY;
	p->multi = MULTI_SAME;
	p->pins |= PIN_PREPARE;
	p->name = keep(an, s->name);
	foreach (cell, s->argtypes)
		types[n++] = resolve_type(an, lfirst_node(TypeName, cell));
	p->inner_types = types;
	p->n_inner_types = n;
	p->inner_text = text_behind_as(an, raw);
	an->no_cache = true;
}

static void
analyze_execute(struct analysis *an, const ExecuteStmt *s)
{
	struct plan *p = an->plan;
	struct key_source *args = arena_alloc(&p->arena, sizeof(*args) * (size_t)(list_length(s->params) + 1));
	ListCell *cell;
	int n = 0;

	p->kind = STMT_EXECUTE;
	p->flags |= PLAN_WRITES | PLAN_RETURNS_ROWS;
	p->route = ROUTE_ANY;
	p->name = keep(an, s->name);
	collect_facts(an, (Node *)s->params);
	foreach (cell, s->params)
		args[n++] = source_of(an, lfirst(cell));
	p->exec_args = args;
	p->n_exec_args = n;
}

/* --- EXPLAIN, cursors --- */

static bool
explain_runs_it(const ExplainStmt *s)
{
	ListCell *cell;

	foreach (cell, s->options) {
		DefElem *d = lfirst_node(DefElem, cell);
		const char *v = d->arg != NULL && IsA(d->arg, String) ? strVal(d->arg) : "";

		if (strcmp(d->defname, "analyze") == 0)
			return !(strcasecmp(v, "off") == 0 || strcasecmp(v, "false") == 0 || (d->arg != NULL && IsA(d->arg, Integer) && intVal(d->arg) == 0));
	}
	return false;
}

static bool
is_query(const Node *n)
{
	return IsA(n, SelectStmt) || IsA(n, InsertStmt) || IsA(n, UpdateStmt) || IsA(n, DeleteStmt) || IsA(n, MergeStmt);
}

static void
analyze_explain(struct analysis *an, const ExplainStmt *s)
{
	struct plan *p = an->plan;
	Node *query = s->query;
	bool runs = explain_runs_it(s);

	if (IsA(query, CreateTableAsStmt))
		query = ((CreateTableAsStmt *)query)->query;
	else if (IsA(query, DeclareCursorStmt))
		query = ((DeclareCursorStmt *)query)->query;
	p->kind = STMT_EXPLAIN;
	p->flags |= PLAN_RETURNS_ROWS;
	an->no_cache |= s->options != NIL;
	if (!is_query(query)) { /* EXECUTE, REFRESH */
		p->flags |= PLAN_WRITES;
		p->route = ROUTE_FIRST;
		if (an->sharded) {
			refuse(an, "pgspan cannot EXPLAIN this on a sharded database");
			refuse_hint(an, "EXPLAIN the query itself.");
		}
		return;
	}
	collect_facts(an, query);
	if (runs ? facts_read_only(an) && query == s->query : !an->facts.unsafe && !an->env->has_temp_tables)
		p->flags |= PLAN_READ_ONLY;
	if (runs && !(p->flags & PLAN_READ_ONLY))
		p->flags |= PLAN_WRITES;
	if (!runs) /* nothing is called, but what the planner folds */
		p->pins = 0;
	route_query(an, query);
	if (p->route == ROUTE_ALL && !runs)
		p->route = ROUTE_FIRST;
	else if (p->route == ROUTE_KEYED || p->route == ROUTE_INSERT)
		refuse_many(an, "EXPLAIN", "Name the shard key of one shard.");
}

static void
analyze_declare(struct analysis *an, const DeclareCursorStmt *s)
{
	struct plan *p = an->plan;

	p->kind = STMT_DECLARE;
	p->name = keep(an, s->portalname);
	if (s->options & CURSOR_OPT_HOLD)
		p->pins |= PIN_CURSOR;
	collect_facts(an, s->query);
	if (!facts_read_only(an))
		p->flags |= PLAN_WRITES;
	route_query(an, s->query);
	if (p->route == ROUTE_KEYED)
		refuse_many(an, "a cursor", "Name the shard key of one shard in its query.");
}

static void
analyze_fetch(struct analysis *an, const FetchStmt *s)
{
	an->plan->kind = STMT_FETCH;
	an->plan->name = keep(an, s->portalname);
	an->plan->route = ROUTE_FIRST; /* the caller knows the cursor's shard */
	if (!s->ismove)
		an->plan->flags |= PLAN_RETURNS_ROWS;
}

/* --- DO, CALL, COPY --- */

/* Words of a DO body that mean that it leaves something in its session. */
static bool
body_leaves_traces(const char *body)
{
	static const char *const words[] = {"temp", "advisory", "listen", "set_config", "set ", "set\t", "set\n", "load ", "prepare ", "dblink", "hold",
	    "execute"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcasestr(body, words[i]) != NULL)
			return true;
	return false;
}

static void
analyze_do(struct analysis *an, const DoStmt *s)
{
	struct plan *p = an->plan;
	ListCell *cell;

	p->kind = STMT_DO;
	p->flags |= PLAN_WRITES;
	p->route = ROUTE_FIRST;
	an->no_cache = true;
	foreach (cell, s->args) {
		DefElem *d = lfirst_node(DefElem, cell);

		if (strcmp(d->defname, "as") != 0 || d->arg == NULL || !IsA(d->arg, String))
			continue;
		const char *body = strVal(d->arg);

		if (body_leaves_traces(body))
			p->pins |= PIN_OTHER;
		for (int i = 0; an->sharded && i < an->env->db->n_tables; i++)
			if (strcasestr(body, an->env->db->tables[i].name) != NULL) {
				refuse(an, "pgspan cannot run a DO block that names table \"%s\"", an->env->db->tables[i].name);
				refuse_hint(an, "A DO block runs on one shard and sees that shard's rows only. Send its statements one by one.");
			}
	}
}

static void
analyze_call(struct analysis *an, const CallStmt *s)
{
	struct plan *p = an->plan;

	p->kind = STMT_CALL;
	p->flags |= PLAN_WRITES | PLAN_RETURNS_ROWS;
	p->route = ROUTE_FIRST;
	collect_facts(an, (Node *)s->funccall);
	if (!an->sharded)
		return;
	if (an->facts.n_sharded + an->facts.n_reference + an->facts.n_sharded_view > 0)
		refuse(an, "pgspan cannot run CALL with a subquery over sharded or reference tables");
	else
		route_query(an, (Node *)s->funccall);
	if (p->route == ROUTE_ANY)
		p->route = ROUTE_FIRST;
}

static void
analyze_copy(struct analysis *an, const CopyStmt *s)
{
	struct plan *p = an->plan;

	p->kind = s->is_from ? STMT_COPY_FROM : STMT_COPY_TO;
	an->no_cache = true; /* options are literals */
	if (s->query != NULL)
		collect_facts(an, s->query);
	if (s->whereClause != NULL)
		collect_facts(an, s->whereClause);
	if (s->relation != NULL) {
		facts_relation(an, s->relation, s->is_from);
		struct relation_ref ref = resolve_relation(an, s->relation, NULL);

		if (s->is_from && (ref.class == REL_SHARDED || ref.class == REL_REFERENCE))
			note_omitted_columns(an, &ref, s->attlist);
	}
	an->facts.writes |= s->is_from || s->filename != NULL || s->is_program;
	if (facts_read_only(an))
		p->flags |= PLAN_READ_ONLY;
	else
		p->flags |= PLAN_WRITES;
	route_copy(an, s);
}

/* --- all --- */

static void
set_simple(struct analysis *an, enum stmt_kind kind, unsigned flags, enum route_kind route, const char *name)
{
	an->plan->kind = kind;
	an->plan->flags |= flags;
	an->plan->route = route;
	an->plan->multi = MULTI_SAME;
	an->plan->name = keep(an, name);
}

static void
analyze_on_tables(struct analysis *an, Node *node, enum stmt_kind kind, unsigned flags)
{
	set_simple(an, kind, flags, ROUTE_FIRST, NULL);
	an->no_cache = true;
	if (ddl_needs_no_block(node))
		an->plan->flags |= PLAN_NO_BLOCK;
	/* Anything may be made in the temporary schema: functions, types, statistics, … */
	if (ddl_makes_temp(node) || strcasestr(an->sql, "pg_temp"))
		an->plan->pins |= PIN_TEMP;
	if (an->sharded)
		route_ddl(an, node);
}

bool
analyze_utility(struct analysis *an, Node *node, const RawStmt *raw)
{
	switch (nodeTag(node)) {
	case T_SelectStmt: case T_InsertStmt: case T_UpdateStmt: case T_DeleteStmt: case T_MergeStmt:
		return false;
	case T_TransactionStmt:
		analyze_transaction(an, (TransactionStmt *)node);
		break;
	case T_VariableSetStmt:
		analyze_set(an, (VariableSetStmt *)node);
		break;
	case T_VariableShowStmt:
		set_simple(an, STMT_SHOW, PLAN_RETURNS_ROWS | (an->env->has_temp_tables ? 0 : PLAN_READ_ONLY), ROUTE_ANY, NULL);
		break;
	case T_PrepareStmt:
		analyze_prepare(an, (PrepareStmt *)node, raw);
		break;
	case T_ExecuteStmt:
		analyze_execute(an, (ExecuteStmt *)node);
		break;
	case T_DeallocateStmt:
		set_simple(an, STMT_DEALLOCATE, 0, ROUTE_ANY, ((DeallocateStmt *)node)->name);
		break;
	case T_DiscardStmt: {
		/* Without a name it is DISCARD ALL. */
		static const char *const parts[] = {[DISCARD_PLANS] = "plans", [DISCARD_SEQUENCES] = "sequences", [DISCARD_TEMP] = "temp"};
		DiscardMode target = ((DiscardStmt *)node)->target;
		set_simple(an, STMT_DISCARD, target == DISCARD_ALL ? PLAN_NO_BLOCK : 0, ROUTE_ANY, target == DISCARD_ALL ? NULL : parts[target]);
		break;
	}
	case T_ListenStmt:
		set_simple(an, STMT_LISTEN, 0, ROUTE_FIRST, ((ListenStmt *)node)->conditionname);
		an->plan->pins |= PIN_LISTEN;
		break;
	case T_UnlistenStmt:
		set_simple(an, STMT_UNLISTEN, 0, ROUTE_FIRST, ((UnlistenStmt *)node)->conditionname);
		break;
	case T_NotifyStmt:
		set_simple(an, STMT_NOTIFY, PLAN_WRITES, ROUTE_FIRST, ((NotifyStmt *)node)->conditionname);
		break;
	case T_DeclareCursorStmt:
		analyze_declare(an, (DeclareCursorStmt *)node);
		break;
	case T_FetchStmt:
		analyze_fetch(an, (FetchStmt *)node);
		break;
	case T_ClosePortalStmt:
		set_simple(an, STMT_CLOSE_CURSOR, 0, ROUTE_FIRST, ((ClosePortalStmt *)node)->portalname);
		break;
	case T_ExplainStmt:
		analyze_explain(an, (ExplainStmt *)node);
		break;
	case T_DoStmt:
		analyze_do(an, (DoStmt *)node);
		break;
	case T_CallStmt:
		analyze_call(an, (CallStmt *)node);
		break;
	case T_CopyStmt:
		analyze_copy(an, (CopyStmt *)node);
		break;
	case T_LoadStmt:
		set_simple(an, STMT_LOAD, 0, ROUTE_FIRST, NULL);
		an->plan->pins |= PIN_LOAD;
		break;
	case T_CheckPointStmt:
		set_simple(an, STMT_OTHER, PLAN_WRITES, ROUTE_FIRST, NULL);
		break;
	case T_LockStmt:
		analyze_on_tables(an, node, STMT_LOCK, PLAN_WRITES);
		break;
	case T_TruncateStmt:
		analyze_on_tables(an, node, STMT_TRUNCATE, PLAN_WRITES);
		break;
	case T_VacuumStmt:
		analyze_on_tables(an, node, STMT_VACUUM, PLAN_WRITES);
		break;
	case T_ReindexStmt: case T_ClusterStmt: case T_CommentStmt: case T_RefreshMatViewStmt: case T_SecLabelStmt: case T_GrantStmt:
	case T_GrantRoleStmt:
		analyze_on_tables(an, node, STMT_DDL, PLAN_WRITES); /* nothing that the catalog holds */
		break;
	default:
		analyze_on_tables(an, node, STMT_DDL, PLAN_WRITES | PLAN_DDL);
		break;
	}
	return true;
}
