/* SPDX-License-Identifier: BSD-2-Clause */
/* parse_ddl - DDL and maintenance on a sharded database: on every shard, or on the first alone.
 *
 * What belongs to a sharded or reference table, and what belongs to no table (types, functions, roles, schemas), runs on
 * every shard; what belongs to any other table runs on the first, where that table lives. A statement over tables of
 * both kinds is refused. So is what would break sharding itself: a unique constraint without the shard key, a foreign key
 * that leaves the shard, renaming a configured table, another type for its key.
 *
 * Indexes are not in the catalog: DROP INDEX runs on every shard and fails there, whole, if one has no such index. */
#include "parse_int.h"

/* What the tables of a statement ask for. */
struct reach {
	int all, first;
	const char *all_name, *first_name;
};

static bool
is_everywhere(const struct relation_ref *ref)
{
	return ref->class == REL_SHARDED || ref->class == REL_REFERENCE || ref->class == REL_SHARDED_VIEW || ref->class == REL_UNSEEN;
}

static void
reach_name(struct analysis *an, struct reach *r, const char *schema, const char *name)
{
	struct relation_ref ref = resolve_name(an, schema, name);

	if (is_everywhere(&ref)) {
		r->all++;
		r->all_name = name;
	} else {
		r->first++;
		r->first_name = name;
	}
}

static void
reach_relation(struct analysis *an, struct reach *r, const RangeVar *rv)
{
	if (rv != NULL)
		reach_name(an, r, rv->schemaname, rv->relname);
}

static void
reach_relations(struct analysis *an, struct reach *r, List *relations)
{
	ListCell *cell;

	foreach (cell, relations) {
		Node *n = lfirst(cell);

		if (IsA(n, RangeVar))
			reach_relation(an, r, (RangeVar *)n);
		else if (IsA(n, VacuumRelation))
			reach_relation(an, r, ((VacuumRelation *)n)->relation);
	}
}

static void
route_all(struct analysis *an)
{
	if (diag_is_set(&an->plan->refusal))
		return;
	an->plan->route = ROUTE_ALL;
	an->plan->multi = MULTI_SAME;
}

static void
route_by_reach(struct analysis *an, const struct reach *r)
{
	if (diag_is_set(&an->plan->refusal))
		return;
	if (r->all > 0 && r->first > 0) {
		refuse(an, "pgspan cannot run one statement on table \"%s\", which every shard has, and \"%s\", which only the first has", r->all_name,
		    r->first_name);
		refuse_hint(an, "Send one statement for each.");
	} else if (r->all > 0) {
		route_all(an);
	} else {
		an->plan->route = ROUTE_FIRST;
	}
}

/* --- constraints of sharded tables --- */

/* The table that a constraint is put on. */
struct subject {
	enum relation_class class; /* SHARDED, REFERENCE, or LOCAL for all else */
	const struct table_config *table;
	const char *name;
};

static struct subject
subject_of(struct analysis *an, const RangeVar *rv)
{
	struct relation_ref ref = resolve_name(an, rv->schemaname, rv->relname);
	struct subject s = {REL_LOCAL, ref.table, rv->relname};

	if (ref.table != NULL)
		s.class = ref.table->kind == TABLE_SHARDED ? REL_SHARDED : REL_REFERENCE;
	return s;
}

static bool
names_have(List *names, const char *name)
{
	ListCell *cell;

	foreach (cell, names) {
		Node *n = lfirst(cell);
		const char *have = IsA(n, String) ? strVal(n) : IsA(n, IndexElem) ? ((IndexElem *)n)->name : NULL;

		if (have != NULL && strcmp(have, name) == 0)
			return true;
	}
	return false;
}

/* A unique constraint or index over *columns*; *column*: the one it is written at, NULL: none. */
static void
check_unique(struct analysis *an, const struct subject *s, List *columns, const char *column)
{
	if (s->class != REL_SHARDED)
		return;
	for (int i = 0; i < s->table->n_key; i++) {
		const char *key = s->table->key[i];

		if (names_have(columns, key) || (column != NULL && strcmp(column, key) == 0))
			continue;
		refuse(an, "a unique constraint on sharded table \"%s\" must include its shard key \"%s\"", s->name, key);
		diag_detail(&an->plan->refusal, "Each shard could only keep its own rows apart.");
		refuse_hint(an, "Add the shard key to the constraint's columns.");
		return;
	}
}

/* Does the foreign key tie each key column to the referenced table's? */
static bool
foreign_key_stays(const struct subject *from, const struct subject *to, const Constraint *c, const char *column)
{
	int n = from->table->n_key;

	if (to->class != REL_SHARDED || to->table->n_key != n)
		return false;
	if (column != NULL) /* written at a column: it refers to one column */
		return n == 1 && strcmp(column, from->table->key[0]) == 0 && (c->pk_attrs == NIL || names_have(c->pk_attrs, to->table->key[0]));
	if (list_length(c->fk_attrs) != list_length(c->pk_attrs))
		return false;
	for (int k = 0; k < n; k++) {
		bool tied = false;

		for (int i = 0; i < list_length(c->fk_attrs); i++)
			tied |= strcmp(name_at(c->fk_attrs, i), from->table->key[k]) == 0 && strcmp(name_at(c->pk_attrs, i), to->table->key[k]) == 0;
		if (!tied)
			return false;
	}
	return true;
}

static void
check_foreign_key(struct analysis *an, const struct subject *s, const Constraint *c, const char *column)
{
	struct subject to = subject_of(an, c->pktable);

	if (s->class == REL_LOCAL) {
		if (to.class == REL_SHARDED) {
			refuse(an, "a foreign key cannot refer to sharded table \"%s\" from a table of the first shard", to.name);
			refuse_hint(an, "The first shard has only its part of that table's rows.");
		}
		return;
	}
	if (to.class == REL_REFERENCE)
		return;
	if (s->class == REL_SHARDED && to.class == REL_SHARDED && foreign_key_stays(s, &to, c, column))
		return;
	refuse(an, "a foreign key from table \"%s\" to table \"%s\" would leave the shard", s->name, to.name);
	refuse_hint(an, "It may refer to a reference table, or to a sharded table if the shard keys of both are among its columns, named in both lists.");
}

static void
check_constraint(struct analysis *an, const struct subject *s, const Constraint *c, const char *column)
{
	switch (c->contype) {
	case CONSTR_PRIMARY: case CONSTR_UNIQUE:
		if (c->indexname == NULL) /* USING INDEX: checked when that was made */
			check_unique(an, s, c->keys, column);
		break;
	case CONSTR_EXCLUSION:
		if (s->class == REL_SHARDED) {
			refuse(an, "pgspan cannot keep an exclusion constraint over the shards of table \"%s\"", s->name);
			refuse_hint(an, "Each shard could only keep its own rows apart.");
		}
		break;
	case CONSTR_FOREIGN:
		check_foreign_key(an, s, c, column);
		break;
	default:
		break;
	}
}

static void
check_column(struct analysis *an, const struct subject *s, const ColumnDef *def)
{
	ListCell *cell;

	foreach (cell, def->constraints)
		if (IsA(lfirst(cell), Constraint))
			check_constraint(an, s, lfirst(cell), def->colname);
}

static void
check_elements(struct analysis *an, const struct subject *s, List *elements)
{
	ListCell *cell;

	foreach (cell, elements) {
		if (IsA(lfirst(cell), Constraint))
			check_constraint(an, s, lfirst(cell), NULL);
		else if (IsA(lfirst(cell), ColumnDef))
			check_column(an, s, lfirst(cell));
	}
}

/* --- CREATE, ALTER --- */

static void
refuse_temp_name(struct analysis *an, const char *name)
{
	refuse(an, "a temporary object cannot have the name of configured table \"%s\"", name);
	refuse_hint(an, "It would hide the table from the session. Choose another name.");
}

static bool
is_temp(const RangeVar *rv)
{
	return rv->relpersistence == RELPERSISTENCE_TEMP || (rv->schemaname != NULL && strncmp(rv->schemaname, "pg_temp", 7) == 0);
}

static void
route_create_table(struct analysis *an, const CreateStmt *s)
{
	struct subject subject = subject_of(an, s->relation);
	struct reach r = {0};

	subject.table = configured_table(an, s->relation->schemaname, s->relation->relname);
	subject.class = subject.table == NULL ? REL_LOCAL : subject.table->kind == TABLE_SHARDED ? REL_SHARDED : REL_REFERENCE;
	if (is_temp(s->relation)) {
		if (configured_table(an, NULL, s->relation->relname) != NULL)
			refuse_temp_name(an, s->relation->relname);
		return;
	}
	reach_relations(an, &r, s->inhRelations);
	if (subject.table == NULL && r.all > 0) /* a partition is sharded as its parent is */
		subject = subject_of(an, linitial_node(RangeVar, s->inhRelations));
	else if (subject.table != NULL && r.first > 0)
		refuse(an, "configured table \"%s\" cannot inherit from a table of the first shard", s->relation->relname);
	check_elements(an, &subject, s->tableElts);
	check_elements(an, &subject, s->constraints);
	if (subject.table != NULL || r.all > 0)
		route_all(an);
}

static void
check_alter_command(struct analysis *an, const struct subject *s, const AlterTableCmd *c)
{
	bool on_key = false;

	for (int i = 0; c->name != NULL && s->class == REL_SHARDED && i < s->table->n_key; i++)
		on_key |= strcmp(s->table->key[i], c->name) == 0;
	switch (c->subtype) {
	case AT_AddColumn:
		if (c->def != NULL && IsA(c->def, ColumnDef))
			check_column(an, s, (ColumnDef *)c->def);
		break;
	case AT_AddConstraint:
		if (c->def != NULL && IsA(c->def, Constraint))
			check_constraint(an, s, (Constraint *)c->def, NULL);
		break;
	case AT_DropColumn: case AT_AlterColumnType:
		if (on_key) {
			refuse(an, "pgspan cannot drop or change the type of shard key \"%s\" of table \"%s\"", c->name, s->name);
			refuse_hint(an, "The rows' places hang on it. Load the rows into a new table.");
		}
		break;
	default:
		break;
	}
}

static void
route_alter_table(struct analysis *an, const AlterTableStmt *s)
{
	struct subject subject = subject_of(an, s->relation);
	struct reach r = {0};
	ListCell *cell;

	if (s->objtype == OBJECT_INDEX) {
		route_all(an);
		return;
	}
	if (s->objtype == OBJECT_TYPE) {
		route_all(an);
		return;
	}
	reach_relation(an, &r, s->relation);
	foreach (cell, s->cmds)
		check_alter_command(an, &subject, lfirst_node(AlterTableCmd, cell));
	route_by_reach(an, &r);
}

static void
route_rename(struct analysis *an, const RenameStmt *s)
{
	struct reach r = {0};

	if (s->relation == NULL || s->renameType == OBJECT_INDEX) {
		route_all(an);
		return;
	}
	struct subject subject = subject_of(an, s->relation);
	bool key = false;

	reach_relation(an, &r, s->relation);
	for (int i = 0; s->renameType == OBJECT_COLUMN && subject.table != NULL && i < subject.table->n_key; i++)
		key |= s->subname != NULL && strcmp(subject.table->key[i], s->subname) == 0;
	bool whole = s->renameType == OBJECT_TABLE || s->renameType == OBJECT_VIEW || s->renameType == OBJECT_MATVIEW ||
	    s->renameType == OBJECT_FOREIGN_TABLE || s->renameType == OBJECT_SEQUENCE;

	if (key || (whole && (configured_table(an, s->relation->schemaname, s->relation->relname) != NULL ||
	                         configured_table(an, s->relation->schemaname, s->newname) != NULL))) {
		refuse(an, "pgspan cannot rename a configured table or its shard key, or give a table a configured table's name");
		refuse_hint(an, "Rename it on each shard and in proxy.ini while no client is connected.");
	} else {
		route_by_reach(an, &r);
	}
}

static void
route_index(struct analysis *an, const IndexStmt *s)
{
	struct subject subject = subject_of(an, s->relation);
	struct reach r = {0};

	reach_relation(an, &r, s->relation);
	if (s->unique)
		check_unique(an, &subject, s->indexParams, NULL);
	route_by_reach(an, &r);
}

/* A view lives where all that it reads lives. */
static void
route_view(struct analysis *an, const ViewStmt *s)
{
	struct facts *f = &an->facts;

	collect_facts(an, s->query);
	if (is_temp(s->view)) {
		if (configured_table(an, NULL, s->view->relname) != NULL)
			refuse_temp_name(an, s->view->relname);
		return;
	}
	if (f->n_sharded + f->n_reference + f->n_sharded_view + f->n_unseen == 0)
		return;
	if (f->n_local + f->n_unknown > 0) {
		refuse(an, "pgspan cannot make a view over tables that every shard has and table \"%s\", which only the first has", f->local_name);
		refuse_hint(an, "Query the tables themselves.");
		return;
	}
	route_all(an);
}

static void
route_create_as(struct analysis *an, const CreateTableAsStmt *s)
{
	const RangeVar *into = s->into->rel;

	if (configured_table(an, is_temp(into) ? NULL : into->schemaname, into->relname) != NULL) {
		refuse(an, "pgspan cannot make configured table \"%s\" of a query", into->relname);
		refuse_hint(an, "CREATE TABLE it, then copy the rows.");
		return;
	}
	if (!IsA(s->query, SelectStmt)) { /* EXECUTE */
		refuse(an, "pgspan cannot make a table of EXECUTE on a sharded database");
		return;
	}
	collect_facts(an, s->query);
	if (an->facts.n_sharded > 0) {
		refuse(an, "pgspan cannot make a table of a query over sharded table \"%s\"", an->facts.sharded_name);
		refuse_hint(an, "Create the table first, then copy the rows.");
		return;
	}
	route_query(an, s->query);
	if (an->plan->route == ROUTE_ANY)
		an->plan->route = ROUTE_FIRST;
}

/* --- DROP, COMMENT, GRANT --- */

static void
reach_qualified(struct analysis *an, struct reach *r, List *names)
{
	const char *schema, *name;

	if (split_name(names, &schema, &name))
		reach_name(an, r, schema, name);
}

/* The table of "name ON table" objects, of columns and constraints: all but the last name. */
static void
reach_owner(struct analysis *an, struct reach *r, Node *object)
{
	if (IsA(object, List) && list_length((List *)object) > 1)
		reach_qualified(an, r, list_truncate(list_copy((List *)object), list_length((List *)object) - 1));
}

/* False: the kind of object belongs to no table. */
static bool
reach_object(struct analysis *an, struct reach *r, ObjectType type, Node *object)
{
	switch (type) {
	case OBJECT_TABLE: case OBJECT_VIEW: case OBJECT_MATVIEW: case OBJECT_FOREIGN_TABLE:
		if (IsA(object, List))
			reach_qualified(an, r, (List *)object);
		else if (IsA(object, RangeVar))
			reach_relation(an, r, (RangeVar *)object);
		return true;
	case OBJECT_SEQUENCE:
		r->first++;
		r->first_name = "a sequence";
		return true;
	case OBJECT_COLUMN: case OBJECT_TABCONSTRAINT: case OBJECT_TRIGGER: case OBJECT_RULE: case OBJECT_POLICY:
		reach_owner(an, r, object);
		return true;
	default:
		return false;
	}
}

static void
route_drop(struct analysis *an, const DropStmt *s)
{
	struct reach r = {0};
	ListCell *cell;

	foreach (cell, s->objects)
		if (!reach_object(an, &r, s->removeType, lfirst(cell))) {
			route_all(an);
			return;
		}
	if (r.all > 0 && r.first > 0 && s->missing_ok)
		route_all(an);
	else
		route_by_reach(an, &r);
}

static void
route_object(struct analysis *an, ObjectType type, Node *object)
{
	struct reach r = {0};

	if (object != NULL && reach_object(an, &r, type, object))
		route_by_reach(an, &r);
	else
		route_all(an);
}

static void
route_grant(struct analysis *an, const GrantStmt *s)
{
	struct reach r = {0};
	ListCell *cell;

	if (s->targtype != ACL_TARGET_OBJECT || (s->objtype != OBJECT_TABLE && s->objtype != OBJECT_SEQUENCE)) {
		route_all(an);
		return;
	}
	foreach (cell, s->objects)
		reach_object(an, &r, s->objtype, lfirst(cell));
	route_by_reach(an, &r);
}

/* --- all --- */

static void
route_relation(struct analysis *an, const RangeVar *rv)
{
	struct reach r = {0};

	if (rv == NULL) {
		route_all(an);
		return;
	}
	reach_relation(an, &r, rv);
	route_by_reach(an, &r);
}

static void
route_relations(struct analysis *an, List *relations)
{
	struct reach r = {0};

	if (relations == NIL) {
		route_all(an);
		return;
	}
	reach_relations(an, &r, relations);
	route_by_reach(an, &r);
}

static void
refuse_kind(struct analysis *an, const char *what, const char *hint)
{
	refuse(an, "pgspan cannot run %s on a sharded database", what);
	refuse_hint(an, hint);
}

static void
route_schema_change(struct analysis *an, const AlterObjectSchemaStmt *s)
{
	if (s->relation != NULL && configured_table(an, s->relation->schemaname, s->relation->relname) != NULL)
		refuse_kind(an, "ALTER … SET SCHEMA of a configured table", "Move it on each shard and in proxy.ini while no client is connected.");
	else if (s->relation != NULL)
		route_relation(an, s->relation);
	else
		route_all(an);
}

void
route_ddl(struct analysis *an, Node *node)
{
	switch (nodeTag(node)) {
	case T_CreateStmt:
		route_create_table(an, (CreateStmt *)node);
		break;
	case T_CreateTableAsStmt:
		route_create_as(an, (CreateTableAsStmt *)node);
		break;
	case T_AlterTableStmt:
		route_alter_table(an, (AlterTableStmt *)node);
		break;
	case T_RenameStmt:
		route_rename(an, (RenameStmt *)node);
		break;
	case T_AlterObjectSchemaStmt:
		route_schema_change(an, (AlterObjectSchemaStmt *)node);
		break;
	case T_IndexStmt:
		route_index(an, (IndexStmt *)node);
		break;
	case T_ViewStmt:
		route_view(an, (ViewStmt *)node);
		break;
	case T_DropStmt:
		route_drop(an, (DropStmt *)node);
		break;
	case T_CommentStmt:
		route_object(an, ((CommentStmt *)node)->objtype, ((CommentStmt *)node)->object);
		break;
	case T_SecLabelStmt:
		route_object(an, ((SecLabelStmt *)node)->objtype, ((SecLabelStmt *)node)->object);
		break;
	case T_GrantStmt:
		route_grant(an, (GrantStmt *)node);
		break;
	case T_CreateTrigStmt:
		route_relation(an, ((CreateTrigStmt *)node)->relation);
		break;
	case T_RuleStmt:
		route_relation(an, ((RuleStmt *)node)->relation);
		break;
	case T_CreatePolicyStmt:
		route_relation(an, ((CreatePolicyStmt *)node)->table);
		break;
	case T_AlterPolicyStmt:
		route_relation(an, ((AlterPolicyStmt *)node)->table);
		break;
	case T_CreateStatsStmt:
		route_relations(an, ((CreateStatsStmt *)node)->relations);
		break;
	case T_TruncateStmt:
		route_relations(an, ((TruncateStmt *)node)->relations);
		break;
	case T_LockStmt:
		route_relations(an, ((LockStmt *)node)->relations);
		break;
	case T_VacuumStmt:
		route_relations(an, ((VacuumStmt *)node)->rels);
		break;
	case T_ClusterStmt:
		route_relation(an, ((ClusterStmt *)node)->relation);
		break;
	case T_ReindexStmt:
		route_relation(an, ((ReindexStmt *)node)->kind == REINDEX_OBJECT_TABLE ? ((ReindexStmt *)node)->relation : NULL);
		break;
	case T_RefreshMatViewStmt:
		route_relation(an, ((RefreshMatViewStmt *)node)->relation);
		if (an->plan->route == ROUTE_ALL)
			refuse_kind(an, "REFRESH of a materialized view over sharded tables", "Query the tables themselves.");
		break;
	case T_CreateSeqStmt: case T_AlterSeqStmt: case T_CreateForeignTableStmt:
		an->plan->route = ROUTE_FIRST;
		break;
	case T_CreateSchemaStmt:
		if (((CreateSchemaStmt *)node)->schemaElts != NIL)
			refuse_kind(an, "CREATE SCHEMA with objects in it", "Create the schema first, then each object.");
		else
			route_all(an);
		break;
	case T_CreatedbStmt: case T_DropdbStmt: case T_CreateTableSpaceStmt: case T_DropTableSpaceStmt:
		refuse_kind(an, "CREATE or DROP of databases and tablespaces", "Run it on each server.");
		break;
	case T_AlterSystemStmt: case T_AlterDatabaseStmt: case T_AlterDatabaseSetStmt: case T_AlterDatabaseRefreshCollStmt:
		refuse_kind(an, "ALTER SYSTEM or ALTER DATABASE", "Run it on each server.");
		break;
	case T_CreatePublicationStmt: case T_AlterPublicationStmt: case T_CreateSubscriptionStmt: case T_AlterSubscriptionStmt:
	case T_DropSubscriptionStmt: case T_ImportForeignSchemaStmt:
		refuse_kind(an, "publications, subscriptions and IMPORT FOREIGN SCHEMA", "Run it on each server.");
		break;
	default: /* types, functions, roles, extensions, …: every shard has them */
		route_all(an);
		break;
	}
}

bool
ddl_makes_temp(const Node *node)
{
	switch (nodeTag(node)) {
	case T_CreateStmt:
		return is_temp(((const CreateStmt *)node)->relation);
	case T_CreateTableAsStmt:
		return is_temp(((const CreateTableAsStmt *)node)->into->rel);
	case T_ViewStmt:
		return is_temp(((const ViewStmt *)node)->view);
	case T_CreateSeqStmt:
		return is_temp(((const CreateSeqStmt *)node)->sequence);
	default:
		return false;
	}
}

static bool
has_option(List *options, const char *name)
{
	ListCell *cell;

	foreach (cell, options)
		if (strcmp(lfirst_node(DefElem, cell)->defname, name) == 0)
			return true;
	return false;
}

/* PreventInTransactionBlock() of PostgreSQL 15, as far as the statement tells. */
bool
ddl_needs_no_block(const Node *node)
{
	switch (nodeTag(node)) {
	case T_VacuumStmt:
		return ((const VacuumStmt *)node)->is_vacuumcmd;
	case T_IndexStmt:
		return ((const IndexStmt *)node)->concurrent;
	case T_ReindexStmt:
		return ((const ReindexStmt *)node)->kind == REINDEX_OBJECT_SCHEMA || ((const ReindexStmt *)node)->kind == REINDEX_OBJECT_SYSTEM ||
		    ((const ReindexStmt *)node)->kind == REINDEX_OBJECT_DATABASE || has_option(((const ReindexStmt *)node)->params, "concurrently");
	case T_DropStmt:
		return ((const DropStmt *)node)->concurrent;
	case T_ClusterStmt:
		return ((const ClusterStmt *)node)->relation == NULL;
	case T_RefreshMatViewStmt:
		return false;
	case T_AlterTableStmt: {
		ListCell *cell;

		foreach (cell, ((const AlterTableStmt *)node)->cmds) {
			const AlterTableCmd *c = lfirst_node(AlterTableCmd, cell);

			if (c->subtype == AT_DetachPartition && c->def != NULL && IsA(c->def, PartitionCmd) && ((const PartitionCmd *)c->def)->concurrent)
				return true;
		}
		return false;
	}
	case T_CreatedbStmt: case T_DropdbStmt: case T_CreateTableSpaceStmt: case T_DropTableSpaceStmt: case T_AlterSystemStmt:
	case T_CreateSubscriptionStmt: case T_DropSubscriptionStmt:
		return true;
	default:
		return false;
	}
}
