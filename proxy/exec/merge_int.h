/* SPDX-License-Identifier: BSD-2-Clause */
/* merge_int - what merge.c and merge_aggregate.c share: the columns of an answer, the fields of a row.
 * Owner and thread: those of the struct merge they belong to. */
#ifndef PGSPAN_MERGE_INT_H
#define PGSPAN_MERGE_INT_H

#include "merge_value.h"
#include "pgspan/merge.h"
#include "pgspan/msg.h"

/* Built-in types with an arithmetic or an order of their own here (pg_type.dat). */
enum type_oid {
	OID_INT8 = 20,
	OID_INT2 = 21,
	OID_INT4 = 23,
	OID_OID = 26,
	OID_NUMERIC = 1700,
};

struct merge_column {
	uint32_t type;
	enum wire_format format;
	size_t format_at; /* place of the format code in the RowDescription's body */
};

static inline bool
type_is_int(uint32_t type)
{
	return type == OID_INT2 || type == OID_INT4 || type == OID_INT8 || type == OID_OID;
}

/* A server that breaks the protocol or answers what was not asked: XX000. */
enum rc merge_fail_answer(struct diag *d, const char *what);

/* Finds the values of a DataRow: as many as *n* tells. False when it has another number of fields or is malformed. */
bool merge_row_fields(struct span body, int n, struct msg_value *fields) WARN_UNUSED;

/* ---- merge_aggregate.c: one row out of one row of each leg ---- */

struct aggregate;

/* RC_FAIL when a column's type is not one that the operation is exact for. */
enum rc aggregate_new(const struct merge_spec *spec, const struct merge_column *columns, int n_columns,
                      struct aggregate **out, struct diag *d) WARN_UNUSED;
void aggregate_free(struct aggregate *a);
/* Adds one leg's row of partial results. */
enum rc aggregate_add(struct aggregate *a, const struct merge_column *columns, struct span row, struct diag *d) WARN_UNUSED;
/* Appends the body of the resulting DataRow. */
enum rc aggregate_write(const struct aggregate *a, struct wbuf *w, struct diag *d) WARN_UNUSED;
/* The format that the client asked for column *i* in. */
enum wire_format aggregate_format(const struct merge_spec *spec, int i);

#endif
