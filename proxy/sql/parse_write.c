/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_write - queries, INSERT and COPY on a sharded database: what they reach, and by which route.
 *
 * The order of questions: does it reach something that cannot be told (a function over sharded tables, a view over
 * them, an unknown name)? Sharded tables: alone or with reference tables. Reference tables written: on every shard,
 * and only by what gives the same rows on each. Everything else: the first shard. */
#include "parse_int.h"

/* --- what a write does beside its expressions: keys it sets, defaults it takes --- */

static bool
is_key_column(const struct table_config *t, const char *name)
{
	for (int i = 0; i < t->n_key; i++)
		if (strcmp(t->key[i], name) == 0)
			return true;
	return false;
}

static void
note_default(struct analysis *an, const struct catalog_column *c)
{
	struct facts *f = &an->facts;

	switch (c->default_kind) {
	case DEFAULT_SEQUENCE:
		f->default_sequence = c->name;
		break;
	case DEFAULT_STABLE:
		f->default_stable = c->name;
		break;
	case DEFAULT_VOLATILE:
		f->default_volatile = c->name;
		break;
	case DEFAULT_NONE: case DEFAULT_CONST: case DEFAULT_GENERATED:
		break;
	}
}

/* SET a = …: of UPDATE and of ON CONFLICT DO UPDATE. */
static void
note_assignments(struct analysis *an, List *targets, const struct relation_ref *ref)
{
	ListCell *cell;

	foreach (cell, targets) {
		ResTarget *t = lfirst_node(ResTarget, cell);
		const struct catalog_column *c = t->name != NULL ? catalog_find_column(ref->rel, t->name, NULL) : NULL;

		if (c != NULL && is_key_column(ref->table, c->name))
			an->facts.key_assigned = c->name;
		/* (a, b) = ROW(DEFAULT, …) may hide one: then every column's default counts. */
		if (c != NULL && t->val != NULL && (IsA(t->val, SetToDefault) || IsA(t->val, MultiAssignRef)))
			note_default(an, c);
	}
}

static bool
is_named(List *names, const char *name)
{
	ListCell *cell;

	foreach (cell, names)
		if (strcmp(IsA(lfirst(cell), ResTarget) ? ((ResTarget *)lfirst(cell))->name : strVal(lfirst(cell)), name) == 0)
			return true;
	return false;
}

/* *names*: ResTarget or String; NIL: all columns are given. */
void
note_omitted_columns(struct analysis *an, const struct relation_ref *ref, List *names)
{
	for (int i = 0; names != NIL && i < ref->rel->n_columns; i++)
		if (!is_named(names, ref->rel->columns[i].name))
			note_default(an, &ref->rel->columns[i]);
}

static void
note_insert_defaults(struct analysis *an, InsertStmt *s, const struct relation_ref *ref)
{
	SelectStmt *select = (SelectStmt *)s->selectStmt;
	int n_columns = ref->rel->n_columns;
	ListCell *row, *cell;

	note_omitted_columns(an, ref, s->cols);
	/* Without a column list, rows may be shorter than the table; what SELECT gives is not counted. */
	if (select == NULL || (s->cols == NIL && select->valuesLists == NIL)) {
		for (int i = 0; i < n_columns; i++)
			if (select == NULL || i >= list_length(select->targetList))
				note_default(an, &ref->rel->columns[i]);
		return;
	}
	foreach (row, select->valuesLists) {
		int i = 0;

		foreach (cell, (List *)lfirst(row)) {
			const char *name = s->cols != NIL ? (i < list_length(s->cols) ? list_nth_node(ResTarget, s->cols, i)->name : "") : NULL;
			const struct catalog_column *c = name != NULL ? catalog_find_column(ref->rel, name, NULL)
			    : i < n_columns                           ? &ref->rel->columns[i]
			                                              : NULL;

			if (c != NULL && IsA(lfirst(cell), SetToDefault))
				note_default(an, c);
			i++;
		}
		for (; s->cols == NIL && i < n_columns; i++)
			note_default(an, &ref->rel->columns[i]);
	}
}

void
note_write(struct analysis *an, Node *stmt, const struct relation_ref *ref)
{
	if (IsA(stmt, UpdateStmt)) {
		note_assignments(an, ((UpdateStmt *)stmt)->targetList, ref);
	} else if (IsA(stmt, InsertStmt)) {
		InsertStmt *s = (InsertStmt *)stmt;

		note_insert_defaults(an, s, ref);
		if (s->onConflictClause != NULL)
			note_assignments(an, s->onConflictClause->targetList, ref);
	}
}

/* --- reference tables --- */

/* Every shard must come to the same rows. */
static void
route_reference_write(struct analysis *an)
{
	const struct facts *f = &an->facts;
	static const char hint[] = "Compute the value in the application and pass it.";

	if (f->n_local + f->n_unknown > 0) {
		refuse(an, "pgspan cannot write a reference table with data of table \"%s\", which is on the first shard only", f->local_name);
		refuse_hint(an, "Read the rows first and write them with INSERT … VALUES or COPY, or make that table a reference table.");
	} else if (f->volatile_fn || f->time_fn || f->user_fn || f->server_fn || f->setting_fn || f->effects_fn || f->sequence_fn || f->advisory_fn || f->reads_view) {
		refuse(an, "pgspan cannot write a reference table with a function or view whose value may differ between shards");
		refuse_hint(an, hint);
	} else if (f->default_sequence != NULL || f->default_stable != NULL || f->default_volatile != NULL) {
		refuse(an, "the default of column \"%s\" may differ between the shards of a reference table",
		    f->default_sequence != NULL ? f->default_sequence : f->default_stable != NULL ? f->default_stable : f->default_volatile);
		refuse_hint(an, "Give the column's value in the statement.");
	} else if (f->n_limits > 0 || f->window || f->sample || f->system_column || f->current_of) {
		refuse(an, "pgspan cannot write a reference table by rows whose choice may differ between shards");
		refuse_hint(an, "Choose the rows by a condition instead of LIMIT, DISTINCT ON, window functions, ctid or a cursor.");
	} else if (f->reference_triggers) {
		refuse(an, "pgspan cannot write a reference table that has triggers or rules");
		refuse_hint(an, "What a trigger writes may differ between shards. Drop it, or do its work in the statement.");
	} else {
		an->plan->route = ROUTE_ALL;
		an->plan->multi = MULTI_SAME;
	}
}

/* --- INSERT into a sharded table --- */

/* The rows of VALUES, or of a SELECT of expressions alone, as one row. NIL: neither. */
static List *
insert_rows_of(struct analysis *an, InsertStmt *s)
{
	SelectStmt *v = (SelectStmt *)s->selectStmt;
	ListCell *cell;
	List *row = NIL;

	if (v->op != SETOP_NONE || v->sortClause != NIL || v->limitCount != NULL || v->limitOffset != NULL || v->withClause != NULL)
		return NIL;
	if (v->valuesLists != NIL)
		return v->valuesLists;
	if (v->fromClause != NIL || v->whereClause != NULL || v->groupClause != NIL || v->havingClause != NULL || v->distinctClause != NIL ||
	    v->lockingClause != NIL || an->facts.any_function)
		return NIL; /* a function may return a set */
	foreach (cell, v->targetList)
		row = lappend(row, lfirst_node(ResTarget, cell)->val);
	return list_make1(row);
}

/* Where column *name* stands in a row; -1: it is not given. */
static int
place_of(List *cols, const char *name, int index)
{
	if (cols == NIL)
		return index;
	for (int i = 0; i < list_length(cols); i++)
		if (strcmp(list_nth_node(ResTarget, cols, i)->name, name) == 0)
			return list_nth_node(ResTarget, cols, i)->indirection == NIL ? i : -1;
	return -1;
}

static struct key_source
row_source(struct analysis *an, const struct catalog_column *c, List *row, int place)
{
	struct key_source s = {.kind = KEY_SRC_DEFAULT};

	if (place >= 0 && place < list_length(row))
		s = source_of(an, list_nth(row, place));
	if (s.kind == KEY_SRC_DEFAULT && c->default_kind == DEFAULT_NONE)
		s.kind = KEY_SRC_NULL;
	return s;
}

static bool
conflict_covers_key(const InsertStmt *s, const struct table_config *t)
{
	const InferClause *infer = s->onConflictClause->infer;
	ListCell *cell;
	int found = 0;

	if (infer == NULL)
		return s->onConflictClause->action == ONCONFLICT_NOTHING;
	foreach (cell, infer->indexElems) {
		const IndexElem *e = lfirst_node(IndexElem, cell);

		found += e->name != NULL && is_key_column(t, e->name);
	}
	return found >= t->n_key;
}

static void
route_insert_values(struct analysis *an, InsertStmt *s, const struct relation_ref *ref, const struct key_info *key)
{
	const struct table_config *t = key->table;
	List *rows = s->selectStmt != NULL ? insert_rows_of(an, s) : list_make1(NIL);
	struct plan *p = an->plan;
	bool defaults = s->selectStmt == NULL;

	if (rows == NIL) {
		refuse(an, "pgspan cannot run INSERT … SELECT into a sharded table");
		diag_detail(&p->refusal, "Table \"%s\" is sharded by \"%s\": each row would have to be sent to its shard.", t->name, t->key[0]);
		refuse_hint(an, "Read the rows first and write them with INSERT … VALUES or COPY … FROM STDIN.");
		return;
	}
	if (s->onConflictClause != NULL && !conflict_covers_key(s, t)) {
		refuse(an, "ON CONFLICT on a sharded table needs the shard key \"%s\" among its columns", t->key[0]);
		refuse_hint(an, "A unique constraint without the shard key holds on each shard by itself only.");
		return;
	}
	int n_rows = list_length(rows);
	struct key_source *sources = arena_alloc(&p->arena, sizeof(*sources) * (size_t)n_rows * (size_t)t->n_key);
	enum key_type *types = arena_alloc(&p->arena, sizeof(*types) * (size_t)t->n_key);

	for (int c = 0; c < t->n_key; c++) {
		const struct catalog_column *column = &ref->rel->columns[key->columns[c]];
		int place = defaults ? -1 : place_of(s->cols, t->key[c], key->columns[c]);

		types[c] = key->types[c];
		for (int r = 0; r < n_rows; r++)
			sources[r * t->n_key + c] = row_source(an, column, list_nth(rows, r), place);
	}
	p->insert = (struct insert_rows){t, types, sources, n_rows};
	p->route = ROUTE_INSERT;
	p->multi = MULTI_WRITE;
	if (an->facts.default_stable != NULL)
		refuse_many(an, "the default of a column that takes now() or the like", "Give the column's value in the statement, or insert the rows one by one.");
	else
		facts_exact_on_many(an);
	if (diag_is_set(&p->refusal))
		p->multi = MULTI_REFUSE;
}

static void
route_insert(struct analysis *an, InsertStmt *s)
{
	struct facts *f = &an->facts;
	struct relation_ref ref = resolve_relation(an, s->relation, NULL);
	struct key_info key;

	if (f->n_sharded > 1 || f->n_write_sharded + f->n_write_reference > 1) {
		refuse(an, "pgspan cannot run INSERT into a sharded table with a query over sharded tables in it");
		refuse_hint(an, "Read the rows first and write them with INSERT … VALUES or COPY … FROM STDIN.");
	} else if (f->default_sequence != NULL) {
		refuse(an, "column \"%s\" of a sharded table takes its default from a sequence", f->default_sequence);
		diag_detail(&an->plan->refusal, "Each shard has a sequence of its own: their values would repeat.");
		refuse_hint(an, "Give the column's value in the statement.");
	} else if (resolve_key(an, &ref, &key)) {
		route_insert_values(an, s, &ref, &key);
	}
}

/* --- queries --- */

static void
decide_write_multi(struct analysis *an)
{
	const struct graph *g = an->graph;

	for (int k = 0; k < g->n_keyed; k++)
		if (g->keyed[k].depth > 0) {
			refuse_many(an, "a subquery over a sharded table in UPDATE or DELETE", "Name the shard key of one shard in each part of the statement.");
			return;
		}
	if (an->plan->n_groups != 1)
		refuse_many(an, "UPDATE or DELETE that joins sharded tables other than on their shard keys", "Join the tables on their shard keys.");
	else if (an->facts.n_limits > 0)
		refuse_many(an, "LIMIT in a subquery", "Choose the rows by a condition.");
	else if (an->facts.default_stable != NULL)
		refuse_many(an, "SET column = DEFAULT that takes now() or the like", "Give the column's value.");
	else if (facts_exact_on_many(an))
		an->plan->multi = MULTI_WRITE;
}

static void
route_keyed(struct analysis *an, Node *query)
{
	struct level top;
	struct graph *g = an->graph;

	analyze_query(an, query, NULL, NULL, 0, &top);
	if (diag_is_set(&an->plan->refusal))
		return;
	if (an->facts.deep || g->overflow || g->n_keyed != an->facts.n_sharded) {
		refuse(an, "the statement is too complex for pgspan to find its shards");
		refuse_hint(an, "Split it into simpler statements.");
		return;
	}
	graph_to_groups(an);
	an->plan->route = ROUTE_KEYED;
	if (IsA(query, SelectStmt))
		decide_select_multi(an, (SelectStmt *)query, &top);
	else
		decide_write_multi(an);
}

/* What sharded tables cannot be together with. */
static void
route_sharded(struct analysis *an, Node *query)
{
	const struct facts *f = &an->facts;

	if (f->n_local + f->n_unknown > 0) {
		refuse(an, "pgspan cannot run one statement over sharded table \"%s\" and table \"%s\", which is on the first shard only", f->sharded_name,
		    f->local_name);
		refuse_hint(an, "Make the small table a reference table in proxy.ini, or read the two apart.");
	} else if (f->sequence_fn) {
		refuse(an, "pgspan cannot use a sequence in a statement over a sharded table");
		refuse_hint(an, "SELECT nextval(…) alone first (sequences live on the first shard), then pass the value.");
	} else if (f->advisory_fn) {
		refuse(an, "pgspan cannot take advisory locks in a statement over a sharded table");
		refuse_hint(an, "Take the lock by a SELECT of its own: such locks live on the first shard.");
	} else if (f->into) {
		refuse(an, "pgspan cannot make a table of a query over a sharded table");
		refuse_hint(an, "Create the table first, then copy the rows.");
	} else if (f->merge) {
		refuse(an, "pgspan cannot run MERGE with a sharded table");
		refuse_hint(an, "Use INSERT … ON CONFLICT, or UPDATE and INSERT.");
	} else if (f->key_assigned != NULL) {
		refuse(an, "pgspan cannot change the shard key \"%s\" of a row", f->key_assigned);
		diag_detail(&an->plan->refusal, "Another key may live on another shard.");
		refuse_hint(an, "Delete the row and insert it anew, in one transaction.");
	} else if (f->default_sequence != NULL && !IsA(query, InsertStmt)) {
		refuse(an, "column \"%s\" of a sharded table takes its default from a sequence", f->default_sequence);
		refuse_hint(an, "Give the column's value in the statement.");
	} else if (f->n_write_reference > 0) {
		refuse(an, "pgspan cannot write a reference table in a statement over sharded table \"%s\"", f->sharded_name);
		refuse_hint(an, "Read the rows first and write them with INSERT … VALUES or COPY.");
	} else if (IsA(query, InsertStmt)) {
		if (resolve_relation(an, ((InsertStmt *)query)->relation, NULL).class == REL_SHARDED)
			route_insert(an, (InsertStmt *)query);
		else
			refuse(an, "pgspan cannot run INSERT … SELECT from a sharded table");
	} else if (f->insert_sharded) {
		refuse(an, "pgspan cannot run INSERT into a sharded table inside WITH");
		refuse_hint(an, "Send the INSERT as a statement of its own.");
	} else {
		route_keyed(an, query);
	}
}

static void
route_unsharded(struct analysis *an)
{
	const struct facts *f = &an->facts;
	struct plan *p = an->plan;

	if (f->n_write_reference > 0) {
		route_reference_write(an);
		return;
	}
	bool anywhere = f->n_local + f->n_unknown == 0 && !f->volatile_fn && !f->user_fn && !f->effects_fn && !f->sequence_fn && !f->advisory_fn &&
	    !f->locking && !f->into && !f->writes && (p->pins & ~PIN_CURSOR) == 0;

	p->route = anywhere ? ROUTE_ANY : ROUTE_FIRST;
}

/* A configured table that the catalog does not know, or no catalog at all. */
static bool
route_unseen(struct analysis *an)
{
	const struct facts *f = &an->facts;
	struct plan *p = an->plan;

	/* An unknown name of a session with temporary tables is most likely one of those. */
	if (f->n_unseen > 0 || (f->n_unknown > 0 && !an->env->has_temp_tables) || f->unknown_fn || an->env->catalog == NULL)
		p->flags |= PLAN_NEEDS_CATALOG;
	if (an->env->catalog == NULL && (f->n_unseen + f->n_unknown > 0 || f->any_function)) {
		refuse(an, "the schema of database \"%s\" is not known yet", an->env->db->name);
		refuse_hint(an, "pgspan reads it from the first shard's primary: see its log. Try again.");
		return true;
	}
	if (f->n_unseen == 0)
		return false;
	refuse(an, "table \"%s\" is configured, but pgspan does not know it on this database yet", f->unseen_name);
	diag_detail(&p->refusal, "A table that the transaction itself creates can be used once it has committed.");
	p->route = ROUTE_FIRST;
	return true;
}

void
route_query(struct analysis *an, Node *query)
{
	const struct facts *f = &an->facts;

	if (!an->sharded) {
		an->plan->route = ROUTE_FIRST;
		return;
	}
	if (f->deep) {
		refuse(an, "the statement is nested too deeply for pgspan to find its shards");
		refuse_hint(an, "Split it into simpler statements.");
	} else if (f->touches_sharded != NULL) {
		refuse(an, "function \"%s\" may read or write sharded or reference tables", f->touches_sharded);
		refuse_hint(an, "A function runs on one shard and sees that shard's rows only. Send its statements one by one.");
	} else if (f->n_sharded_view > 0) {
		refuse(an, "\"%s\" is a view over sharded tables, which pgspan cannot route yet", f->view_name);
		refuse_hint(an, "Query the tables themselves.");
	} else if (!route_unseen(an)) {
		if (f->n_sharded > 0)
			route_sharded(an, query);
		else
			route_unsharded(an);
	}
}

/* --- COPY --- */

static bool
option_bool(const DefElem *d)
{
	if (d->arg == NULL)
		return true;
	if (IsA(d->arg, Integer))
		return intVal(d->arg) != 0;
	if (IsA(d->arg, Boolean))
		return boolVal(d->arg);
	/* HEADER match is a header line, too. */
	const char *s = IsA(d->arg, String) ? strVal(d->arg) : "";

	return strcasecmp(s, "true") == 0 || strcasecmp(s, "on") == 0 || strcasecmp(s, "match") == 0;
}

/* FORCE_NULL (a, b), FORCE_NULL *: *flags* has one for each field. */
static void
option_columns(struct analysis *an, const DefElem *d, const char *const *fields, int n, const bool **flags)
{
	bool *f = arena_zalloc(&an->plan->arena, sizeof(*f) * (size_t)(n + 1));

	for (int i = 0; i < n; i++)
		f[i] = d->arg != NULL && (IsA(d->arg, List) ? is_named((List *)d->arg, fields[i]) : IsA(d->arg, A_Star));
	*flags = f;
}

static const char *
option_text(struct analysis *an, const DefElem *d)
{
	return d->arg != NULL && IsA(d->arg, String) ? arena_strdup(&an->plan->arena, strVal(d->arg)) : "";
}

static void
read_copy_option(struct analysis *an, const DefElem *d, struct copy_plan *c, const char *const *fields)
{
	const char *name = d->defname;

	if (strcmp(name, "format") == 0) {
		const char *f = option_text(an, d);

		c->format = strcmp(f, "csv") == 0 ? COPY_FORMAT_CSV : strcmp(f, "binary") == 0 ? COPY_FORMAT_BINARY : COPY_FORMAT_TEXT;
	} else if (strcmp(name, "delimiter") == 0) {
		c->delimiter = option_text(an, d)[0];
	} else if (strcmp(name, "null") == 0) {
		c->null_string = option_text(an, d);
	} else if (strcmp(name, "header") == 0) {
		c->header = option_bool(d);
	} else if (strcmp(name, "quote") == 0) {
		c->quote = option_text(an, d)[0];
	} else if (strcmp(name, "escape") == 0) {
		c->escape = option_text(an, d)[0];
	} else if (strcmp(name, "force_null") == 0) {
		option_columns(an, d, fields, c->n_fields, &c->force_null);
	} else if (strcmp(name, "force_not_null") == 0) {
		option_columns(an, d, fields, c->n_fields, &c->force_not_null);
	} else if (strcmp(name, "encoding") == 0) {
		c->encoding = option_text(an, d);
	} else if (strcmp(name, "freeze") != 0 && strcmp(name, "force_quote") != 0) {
		refuse(an, "pgspan does not know the COPY option \"%s\"", name);
	}
}

/* The fields of a line: the column list, or all columns but generated ones. */
static const char **
copy_fields(const CopyStmt *s, const struct catalog_relation *rel, int *n)
{
	const char **fields = palloc(sizeof(*fields) * (size_t)(rel->n_columns + list_length(s->attlist) + 1));
	ListCell *cell;

	*n = 0;
	foreach (cell, s->attlist)
		fields[(*n)++] = strVal(lfirst(cell));
	for (int i = 0; s->attlist == NIL && i < rel->n_columns; i++)
		if (rel->columns[i].default_kind != DEFAULT_GENERATED)
			fields[(*n)++] = rel->columns[i].name;
	return fields;
}

static void
plan_copy_from(struct analysis *an, const CopyStmt *s, const struct relation_ref *ref, const struct key_info *key)
{
	struct copy_plan *c = &an->plan->copy;
	const struct table_config *t = key->table;
	const char **fields = copy_fields(s, ref->rel, &c->n_fields);
	int *places = arena_alloc(&an->plan->arena, sizeof(*places) * (size_t)t->n_key);
	enum key_type *types = arena_alloc(&an->plan->arena, sizeof(*types) * (size_t)t->n_key);
	ListCell *cell;

	for (int k = 0; k < t->n_key; k++) {
		types[k] = key->types[k];
		places[k] = -1;
		for (int i = 0; i < c->n_fields; i++)
			if (strcmp(fields[i], t->key[k]) == 0)
				places[k] = i;
		if (places[k] < 0) {
			refuse(an, "COPY into sharded table \"%s\" needs its shard key \"%s\" among the columns", t->name, t->key[k]);
			return;
		}
	}
	c->table = t;
	c->types = types;
	c->key_field = places;
	foreach (cell, s->options)
		read_copy_option(an, lfirst_node(DefElem, cell), c, fields);
	bool csv = c->format == COPY_FORMAT_CSV;

	if (c->delimiter == '\0')
		c->delimiter = csv ? ',' : '\t';
	if (c->quote == '\0')
		c->quote = '"';
	if (c->escape == '\0')
		c->escape = c->quote;
	if (c->null_string == NULL)
		c->null_string = csv ? "" : "\\N";
	if (diag_is_set(&an->plan->refusal))
		return;
	an->plan->route = ROUTE_COPY;
	an->plan->multi = MULTI_WRITE;
}

static void
route_copy_from(struct analysis *an, const CopyStmt *s, const struct relation_ref *ref)
{
	struct facts *f = &an->facts;
	struct key_info key;

	if (s->filename != NULL || s->is_program) {
		refuse(an, "pgspan cannot run COPY FROM a server's file or program into a sharded or reference table");
		refuse_hint(an, "Use COPY … FROM STDIN (psql: \\copy).");
	} else if (ref->class == REL_REFERENCE) {
		route_reference_write(an);
	} else if (f->default_sequence != NULL || f->default_stable != NULL) {
		refuse(an, "the default of column \"%s\" may repeat or differ between shards",
		    f->default_sequence != NULL ? f->default_sequence : f->default_stable);
		refuse_hint(an, "Give the column in the data and in the column list.");
	} else if (f->time_fn || f->user_fn || f->server_fn || f->effects_fn || f->sequence_fn || f->advisory_fn) {
		refuse(an, "pgspan cannot run COPY … WHERE with a function that may differ between shards");
	} else if (resolve_key(an, ref, &key)) {
		plan_copy_from(an, s, ref, &key);
	}
}

static void
route_copy_to(struct analysis *an, const CopyStmt *s, const struct relation_ref *ref)
{
	struct key_info info;

	if (ref->class != REL_SHARDED) {
		an->plan->route = s->filename == NULL ? ROUTE_ANY : ROUTE_FIRST;
		return;
	}
	if (!resolve_key(an, ref, &info))
		return;
	graph_add(an, &info, 0, false);
	graph_to_groups(an);
	an->plan->route = ROUTE_KEYED;
	refuse_many(an, "COPY TO of a sharded table", "COPY (SELECT … WHERE key = …) TO one shard's rows, or SELECT them.");
}

/* The facts are collected. */
void
route_copy(struct analysis *an, const CopyStmt *s)
{
	struct plan *p = an->plan;

	if (!an->sharded) {
		p->route = ROUTE_FIRST;
		return;
	}
	if (s->query != NULL) {
		route_query(an, s->query);
		if (p->route == ROUTE_ALL || (p->route == ROUTE_KEYED && s->filename != NULL)) {
			refuse(an, "pgspan cannot run this COPY on more than the first shard");
			p->route = ROUTE_REFUSE;
		} else if (p->route == ROUTE_KEYED || p->route == ROUTE_INSERT) {
			refuse_many(an, "COPY (query) TO", "Run the query itself, or name the shard key of one shard in it.");
		}
		return;
	}
	if (route_unseen(an))
		return;
	struct relation_ref ref = resolve_relation(an, s->relation, NULL);

	if (ref.class == REL_SHARDED_VIEW) {
		refuse(an, "\"%s\" is a view over sharded tables, which pgspan cannot route yet", s->relation->relname);
	} else if (ref.class != REL_SHARDED && ref.class != REL_REFERENCE) {
		p->route = ROUTE_FIRST;
	} else if (s->is_from) {
		if (ref.class == REL_REFERENCE || an->facts.n_sharded == 1)
			route_copy_from(an, s, &ref);
	} else {
		route_copy_to(an, s, &ref);
	}
}
