/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_plan - from a text to a plan, through libpg_query's raw parse tree.
 *
 * libpg_query keeps its state per thread, so that workers may plan at the same time. Its trees live in a memory
 * context that is entered and left here; a plan keeps nothing of it. What its grammar (PostgreSQL 15) does not know goes
 * unparsed: to the primary, or, on a sharded database, to the first shard if the server's grammar is the same one and
 * will raise its own syntax error; a newer server could understand and do it, so there it is refused. */
#include "parse_int.h"

#include <stdarg.h>

enum { PARSER_MAJOR = 15 };

void
refuse(struct analysis *an, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	an->plan->route = ROUTE_REFUSE;
	an->plan->multi = MULTI_REFUSE;
	diag_set(&an->plan->refusal, "0A000", "%s", text);
}

void
refuse_hint(struct analysis *an, const char *hint)
{
	diag_hint(&an->plan->refusal, "%s", hint);
}

void
refuse_many(struct analysis *an, const char *what, const char *hint)
{
	struct plan *p = an->plan;
	const struct table_config *t = p->n_groups > 0 ? p->groups[0].table : p->insert.table;

	p->multi = MULTI_REFUSE;
	if (diag_is_set(&p->refusal))
		return;
	diag_set(&p->refusal, "0A000", "pgspan cannot run %s over several shards yet", what);
	if (t != NULL)
		diag_detail(&p->refusal, "Table \"%s\" is sharded by \"%s\", and the statement's conditions do not leave one shard.", t->name,
		    t->n_key > 0 ? t->key[0] : "");
	diag_hint(&p->refusal, "%s", hint);
}

/* --- one statement --- */

static enum stmt_kind
kind_of_query(const Node *node)
{
	switch (nodeTag(node)) {
	case T_SelectStmt:
		return STMT_SELECT;
	case T_InsertStmt:
		return STMT_INSERT;
	case T_UpdateStmt:
		return STMT_UPDATE;
	case T_DeleteStmt:
		return STMT_DELETE;
	default:
		return STMT_MERGE;
	}
}

static bool
has_returning(const Node *node)
{
	switch (nodeTag(node)) {
	case T_InsertStmt:
		return ((const InsertStmt *)node)->returningList != NIL;
	case T_UpdateStmt:
		return ((const UpdateStmt *)node)->returningList != NIL;
	case T_DeleteStmt:
		return ((const DeleteStmt *)node)->returningList != NIL;
	default:
		return false;
	}
}

/* SELECT … INTO: it stands in the leftmost SELECT of a set operation. */
static void
analyze_into(struct analysis *an, const SelectStmt *s)
{
	while (s->op != SETOP_NONE && s->larg != NULL)
		s = s->larg;
	if (s->intoClause == NULL)
		return;
	an->plan->flags |= PLAN_DDL;
	an->plan->flags &= ~(unsigned)PLAN_RETURNS_ROWS;
	const RangeVar *rv = s->intoClause->rel;

	if (rv->relpersistence == RELPERSISTENCE_TEMP)
		an->plan->pins |= PIN_TEMP;
	if (an->sharded && configured_table(an, rv->schemaname, rv->relname) != NULL) {
		refuse(an, "pgspan cannot make configured table \"%s\" by SELECT INTO", rv->relname);
		refuse_hint(an, "CREATE TABLE it, then copy the rows.");
	}
}

static void
analyze_plain_query(struct analysis *an, Node *node)
{
	struct plan *p = an->plan;

	p->kind = kind_of_query(node);
	collect_facts(an, node);
	if (facts_read_only(an))
		p->flags |= PLAN_READ_ONLY;
	struct facts *f = &an->facts;

	if (f->unsafe || f->writes || f->into || f->locking)
		p->flags |= PLAN_WRITES;
	if (f->locking)
		p->flags |= PLAN_LOCKING;
	if (IsA(node, SelectStmt) || has_returning(node))
		p->flags |= PLAN_RETURNS_ROWS;
	if (IsA(node, SelectStmt) && f->into)
		analyze_into(an, (SelectStmt *)node);
	if (!diag_is_set(&p->refusal))
		route_query(an, node);
}

void
analyze_statement(struct analysis *an, const RawStmt *raw)
{
	struct plan *p = an->plan;
	struct graph graph = {.n_keyed = 0};

	an->graph = &graph;
	if (!analyze_utility(an, raw->stmt, raw))
		analyze_plain_query(an, raw->stmt);
	if (!an->no_cache && !(p->flags & (PLAN_DDL | PLAN_NEEDS_CATALOG)))
		p->flags |= PLAN_CACHEABLE;
	p->max_param_known = !an->facts.deep;
	an->graph = NULL;
}

/* --- several statements --- */

static struct plan *
plan_new(const struct plan_env *env)
{
	struct plan *p = xcalloc(1, sizeof(*p));

	arena_init(&p->arena);
	p->catalog_version = env->catalog != NULL ? catalog_version(env->catalog) : 0;
	p->route = ROUTE_FIRST;
	return p;
}

static void
plan_statement(struct plan *p, const RawStmt *raw, const char *sql, const struct scan *scan, const struct plan_env *env)
{
	struct analysis an = {.plan = p, .env = env, .scan = scan, .sql = sql, .sharded = env->db != NULL && env->db->sharded};

	analyze_statement(&an, raw);
}

static bool
is_transaction_control(enum stmt_kind k)
{
	return k == STMT_BEGIN || k == STMT_COMMIT || k == STMT_ROLLBACK || k == STMT_PREPARE_TRANSACTION;
}

/* The whole of several statements: what all of them may, what any of them does. */
static void
sum_up_parts(struct plan *p)
{
	unsigned any = 0, all = PLAN_READ_ONLY;
	bool everywhere = true, first = true;

	for (int i = 0; i < p->n_parts; i++) {
		const struct plan *part = p->parts[i];

		any |= part->flags;
		all &= part->flags;
		p->pins |= part->pins;
		if (is_transaction_control(part->kind))
			p->flags |= PLAN_TX_CONTROL;
		everywhere &= part->route == ROUTE_ANY;
		first &= part->route == ROUTE_ANY || part->route == ROUTE_FIRST;
		if (part->max_param > p->max_param)
			p->max_param = part->max_param;
	}
	p->max_param_known = true;
	p->flags |= all | (any & (PLAN_WRITES | PLAN_DDL | PLAN_RETURNS_ROWS | PLAN_LOCKING | PLAN_USES_SESSION_SEQ | PLAN_ADVANCES_SEQ | PLAN_NEEDS_CATALOG));
	p->route = everywhere ? ROUTE_ANY : first ? ROUTE_FIRST : ROUTE_REFUSE;
	if (p->route == ROUTE_REFUSE) {
		diag_set(&p->refusal, "0A000", "pgspan cannot run several statements of one Query over shards as one");
		diag_hint(&p->refusal, "Send them one by one.");
	}
}

static void
plan_parts(struct plan *p, List *tree, const char *sql, const struct scan *scan, const struct plan_env *env)
{
	int n = list_length(tree);
	uint32_t *off = arena_alloc(&p->arena, sizeof(*off) * (size_t)n), *len = arena_alloc(&p->arena, sizeof(*len) * (size_t)n);

	p->kind = STMT_MULTI;
	p->parts = arena_alloc(&p->arena, sizeof(*p->parts) * (size_t)n);
	p->part_off = off;
	p->part_len = len;
	for (int i = 0; i < n; i++) {
		const RawStmt *raw = list_nth_node(RawStmt, tree, i);

		off[i] = raw->stmt_location > 0 ? (uint32_t)raw->stmt_location : 0;
		len[i] = raw->stmt_len > 0 ? (uint32_t)raw->stmt_len : (uint32_t)strlen(sql + off[i]);
		p->parts[i] = plan_new(env);
		p->n_parts = i + 1;
		plan_statement(p->parts[i], raw, sql, scan, env);
		p->parts[i]->flags &= ~(unsigned)PLAN_CACHEABLE;
	}
	sum_up_parts(p);
}

/* Will a server of the parser's version find the same? Not the parser's other errors (encodings, limits), nor what may
 * come of comments, at which libpg_query ends a string that PostgreSQL continues: 'a' -- x, newline, 'b'. */
static bool
is_plain_syntax_error(const char *message, const char *text)
{
	return strncmp(message, "syntax error", 12) == 0 && strstr(text, "--") == NULL && strstr(text, "/*") == NULL;
}

static void
plan_unparsed(struct plan *p, const struct plan_env *env, bool syntax_error, const char *why)
{
	p->kind = STMT_UNPARSED;
	p->flags = PLAN_WRITES;
	if (env->db == NULL || !env->db->sharded)
		return;
	if (syntax_error && env->catalog != NULL && catalog_server_version(env->catalog) / 10000 == PARSER_MAJOR)
		return; /* it will raise the syntax error itself */
	p->route = ROUTE_REFUSE;
	diag_set(&p->refusal, "0A000", "pgspan cannot parse the statement: %s", why);
	diag_detail(&p->refusal, "pgspan's parser knows PostgreSQL %d's grammar.", PARSER_MAJOR);
	diag_hint(&p->refusal, "On a sharded database a statement must be understood to be routed. Write it in PostgreSQL %d's syntax.", PARSER_MAJOR);
}

struct plan *
plan_make(struct span sql, const struct scan *scan, const struct plan_env *env)
{
	struct plan *p = plan_new(env);
	char stack[1024], *text = sql.n < sizeof(stack) ? stack : xmalloc(sql.n + 1);

	memcpy(text, sql.p, sql.n);
	text[sql.n] = '\0';
	if (memchr(text, '\0', sql.n) != NULL) {
		plan_unparsed(p, env, false, "it has a NUL byte in it");
	} else if (!env->standard_conforming_strings && strchr(text, '\\') != NULL) {
		/* libpg_query reads every '…' by the standard: it would see other strings than the server does. */
		plan_unparsed(p, env, false, "it has a backslash in it while standard_conforming_strings is off");
	} else {
		MemoryContext ctx = pg_query_enter_memory_context();
		PgQueryInternalParsetreeAndError r = pg_query_raw_parse(text);

		if (r.error != NULL) {
			plan_unparsed(p, env, is_plain_syntax_error(r.error->message, text), r.error->message);
			pg_query_free_error(r.error);
		} else if (r.tree == NIL) {
			p->kind = STMT_EMPTY;
			p->flags = PLAN_READ_ONLY;
			p->route = ROUTE_ANY;
		} else if (list_length(r.tree) == 1) {
			plan_statement(p, linitial_node(RawStmt, r.tree), text, scan, env);
		} else {
			plan_parts(p, r.tree, text, scan, env);
		}
		free(r.stderr_buffer);
		pg_query_exit_memory_context(ctx);
	}
	if (text != stack)
		free(text);
	return p;
}

void
plan_free(struct plan *p)
{
	if (p == NULL)
		return;
	for (int i = 0; i < p->n_parts; i++)
		plan_free(p->parts[i]);
	arena_fini(&p->arena);
	free(p);
}
