/* SPDX-License-Identifier: BSD-2-Clause */
/* merge_aggregate - count, sum, min and max of whole tables from one row of partial results of each leg.
 *
 *   operation   partial and result type      how
 *   count       int8                         added; beyond int8 is 22003, as in PostgreSQL
 *   sum         int8 (of int2, int4)         added in 128 bits, judged at the end: the order of the legs must not matter
 *   sum         numeric (of int8, numeric)   exact decimals
 *   min, max    int2, int4, int8, oid        compared
 *               numeric                      compared; of equal values the one with more places shown is kept, so
 *                                            that the answer does not hang on which leg is faster
 *               planned as SORT_BYTES        compared as bytes
 *
 * A NULL partial stands for a shard without values and is passed over; all NULL gives NULL. No other type is taken: sums of floats
 * depend on the order of addition. */
#include "merge_int.h"

#include "pgspan/sqlstate.h"

enum total_kind { TOTAL_INT, TOTAL_DECIMAL, TOTAL_BYTES };

struct total {
	enum aggregate_op op;
	enum total_kind kind;
	enum wire_format format; /* of the result */
	uint32_t type;
	bool is_set; /* a partial that is not NULL was seen */
	__extension__ __int128 number;
	struct decimal decimal;
	struct wbuf bytes;
};

struct aggregate {
	int n;
	struct total *totals;
	struct msg_value *fields; /* of the row being added */
	struct decimal partial;
};

enum wire_format
aggregate_format(const struct merge_spec *spec, int i)
{
	if (spec->n_result_formats == 1)
		i = 0;
	return i < spec->n_result_formats && spec->result_formats[i] ? FORMAT_BINARY : FORMAT_TEXT;
}

static bool
total_kind_of(const struct aggregate_column *c, uint32_t type, enum total_kind *kind)
{
	switch (c->op) {
	case AGG_COUNT:
		*kind = TOTAL_INT;
		return type == OID_INT8;
	case AGG_SUM:
		*kind = type == OID_INT8 ? TOTAL_INT : TOTAL_DECIMAL;
		return type == OID_INT8 || type == OID_NUMERIC;
	case AGG_MIN:
	case AGG_MAX:
		*kind = c->compare == SORT_BYTES ? TOTAL_BYTES : type == OID_NUMERIC ? TOTAL_DECIMAL : TOTAL_INT;
		return c->compare == SORT_BYTES || type == OID_NUMERIC || type_is_int(type);
	}
	return false;
}

enum rc
aggregate_new(const struct merge_spec *spec, const struct merge_column *columns, int n_columns, struct aggregate **out,
              struct diag *d)
{
	struct aggregate *a;

	if (n_columns != spec->n_aggregates)
		return merge_fail_answer(d, "the number of columns is not that of the aggregates");
	a = xcalloc(1, sizeof *a);
	a->n = n_columns;
	a->totals = xcalloc((size_t)n_columns, sizeof *a->totals);
	a->fields = xcalloc((size_t)n_columns, sizeof *a->fields);
	*out = a;
	for (int i = 0; i < n_columns; i++) {
		struct total *t = &a->totals[i];

		t->op = spec->aggregates[i].op;
		t->type = columns[i].type;
		t->format = aggregate_format(spec, i);
		if (!total_kind_of(&spec->aggregates[i], t->type, &t->kind) ||
		    (t->kind == TOTAL_BYTES && t->format != columns[i].format)) {
			diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "aggregate of column %d (type %u) cannot be computed over several shards",
			         i + 1, t->type);
			return RC_FAIL;
		}
	}
	return RC_OK;
}

void
aggregate_free(struct aggregate *a)
{
	if (!a)
		return;
	for (int i = 0; i < a->n; i++) {
		decimal_fini(&a->totals[i].decimal);
		wbuf_fini(&a->totals[i].bytes);
	}
	decimal_fini(&a->partial);
	free(a->totals);
	free(a->fields);
	free(a);
}

/* Whether a value that compares so to the one held takes its place. */
static bool
replaces(enum aggregate_op op, int comparison)
{
	return op == AGG_MIN ? comparison < 0 : comparison > 0;
}

static enum rc
add_int(struct total *t, const struct merge_column *c, struct span bytes, struct diag *d)
{
	int64_t v;

	if (!int_read(bytes, c->format, c->type == OID_OID, &v))
		return merge_fail_answer(d, "a partial result is no integer");
	if (!t->is_set)
		t->number = v;
	else if (t->op == AGG_COUNT || t->op == AGG_SUM)
		t->number += v;
	else if (replaces(t->op, (v > t->number) - (v < t->number)))
		t->number = v;
	return RC_OK;
}

static void
swap_decimals(struct decimal *a, struct decimal *b)
{
	struct decimal was = *a;

	*a = *b;
	*b = was;
}

static enum rc
add_decimal(struct aggregate *a, struct total *t, const struct merge_column *c, struct span bytes, struct diag *d)
{
	int comparison;

	if (!decimal_read(&a->partial, bytes, c->format))
		return merge_fail_answer(d, "a partial result is no numeric");
	if (!t->is_set) {
		swap_decimals(&t->decimal, &a->partial);
		return RC_OK;
	}
	if (t->op == AGG_SUM) {
		if (decimal_add(&t->decimal, &a->partial))
			return RC_OK;
		diag_set(d, SQLSTATE_NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format");
		return RC_FAIL;
	}
	comparison = decimal_compare(&a->partial, &t->decimal);
	if (replaces(t->op, comparison) || (comparison == 0 && a->partial.scale > t->decimal.scale))
		swap_decimals(&t->decimal, &a->partial);
	return RC_OK;
}

static void
add_bytes(struct total *t, struct span bytes)
{
	if (t->is_set && !replaces(t->op, bytes_compare(bytes, span_of(t->bytes.p, t->bytes.n))))
		return;
	wbuf_clear(&t->bytes);
	wbuf_span(&t->bytes, bytes);
}

enum rc
aggregate_add(struct aggregate *a, const struct merge_column *columns, struct span row, struct diag *d)
{
	if (!merge_row_fields(row, a->n, a->fields))
		return merge_fail_answer(d, "malformed DataRow");
	for (int i = 0; i < a->n; i++) {
		struct total *t = &a->totals[i];
		enum rc rc = RC_OK;

		if (a->fields[i].is_null)
			continue;
		switch (t->kind) {
		case TOTAL_INT:
			rc = add_int(t, &columns[i], a->fields[i].bytes, d);
			break;
		case TOTAL_DECIMAL:
			rc = add_decimal(a, t, &columns[i], a->fields[i].bytes, d);
			break;
		case TOTAL_BYTES:
			add_bytes(t, a->fields[i].bytes);
			break;
		}
		if (rc != RC_OK)
			return rc;
		t->is_set = true;
	}
	return RC_OK;
}

static void
write_total(const struct total *t, struct wbuf *w)
{
	switch (t->kind) {
	case TOTAL_INT:
		int_write(w, (int64_t)t->number, t->format, t->type == OID_INT2 ? 2 : t->type == OID_INT8 ? 8 : 4);
		break;
	case TOTAL_DECIMAL:
		decimal_write(w, &t->decimal, t->format);
		break;
	case TOTAL_BYTES:
		wbuf_bytes(w, t->bytes.p, t->bytes.n);
		break;
	}
}

enum rc
aggregate_write(const struct aggregate *a, struct wbuf *w, struct diag *d)
{
	wbuf_u16(w, (uint16_t)a->n);
	for (int i = 0; i < a->n; i++) {
		const struct total *t = &a->totals[i];
		size_t length_at = w->n;

		if (t->kind == TOTAL_INT && (t->number > INT64_MAX || t->number < INT64_MIN)) {
			diag_set(d, SQLSTATE_NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range");
			return RC_FAIL;
		}
		wbuf_u32(w, UINT32_MAX); /* -1: NULL */
		if (!t->is_set)
			continue;
		write_total(t, w);
		wire_store_u32(w->p + length_at, (uint32_t)(w->n - length_at - 4));
	}
	return RC_OK;
}
