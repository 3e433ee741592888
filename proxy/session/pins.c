/* SPDX-License-Identifier: BSD-2-Clause */
/* pins - why a session keeps its server between transactions, and when it need not any more.
 *
 * A statement says what it may leave behind (plan->pins). Whether it is there still is not followed statement by statement:
 * ON COMMIT DROP, ROLLBACK, DROP … CASCADE and functions all take part in it. Instead the server itself is asked, by a query of
 * pgspan's own behind the end of a transaction that may have taken something away. */
#include "session_int.h"

#define AUDITABLE (PIN_TEMP | PIN_LISTEN | PIN_ADVISORY | PIN_CURSOR | PIN_PREPARE)

/* One column for each of these, t or f. Names and operators are qualified: the client's search_path is in force. */
static const unsigned columns[] = {PIN_TEMP, PIN_LISTEN, PIN_ADVISORY, PIN_CURSOR, PIN_PREPARE};
static const char audit_sql[] =
    "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_statistic_ext WHERE stxnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_operator WHERE oprnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_collation WHERE collnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_conversion WHERE connamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_opclass WHERE opcnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_opfamily WHERE opfnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_ts_config WHERE cfgnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR EXISTS (SELECT 1 FROM pg_catalog.pg_ts_dict WHERE dictnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()),"
    " EXISTS (SELECT 1 FROM pg_catalog.pg_listening_channels()),"
    " EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'"
    " AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()),"
    " EXISTS (SELECT 1 FROM pg_catalog.pg_cursors WHERE is_holdable),"
    " EXISTS (SELECT 1 FROM pg_catalog.pg_prepared_statements WHERE from_sql)";

static bool
may_unpin(const struct plan *p)
{
	switch (p->kind) {
	case STMT_UNLISTEN:
	case STMT_CLOSE_CURSOR:
	case STMT_DEALLOCATE:
	case STMT_DISCARD:
		return true;
	default:
		return (p->flags & (PLAN_DDL | PLAN_UNLOCKS)) != 0;
	}
}

void
pins_note(struct session *s, const struct plan *p)
{
	/* What a block makes may be gone with its end. */
	if ((p->pins & AUDITABLE) && s->tx == TX_OPEN)
		s->pins_doubtful = true;
	if (may_unpin(p) && (s->pins & AUDITABLE))
		s->pins_doubtful = true;
	s->pins |= p->pins;
	if ((p->pins & (PIN_TEMP | PIN_LOAD)) && s->leg->server)
		s->leg->server->has.used_up = true;
}

const char *
pins_audit(struct session *s)
{
	bool due = s->pins_doubtful && (s->pins & AUDITABLE) && leg_count(s) == 1;
	s->pins_doubtful = false;
	return due ? audit_sql : NULL;
}

void
pins_audited(struct session *s, const struct wire_msg *row)
{
	struct msg_values it;
	struct msg_value v;
	unsigned left = 0;
	size_t n = 0;
	if (!msg_get_data_row(row, &it))
		return;
	for (; n < ARRAY_LEN(columns) && msg_value_next(&it, &v); n++)
		if (v.is_null || !span_eq_str(v.bytes, "f"))
			left |= columns[n];
	if (n == ARRAY_LEN(columns))
		s->pins &= left | ~(unsigned)AUDITABLE;
}
