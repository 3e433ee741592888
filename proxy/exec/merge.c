/* SPDX-License-Identifier: BSD-2-Clause */
/* merge - see pgspan/merge.h.
 *
 *   leg 0  T D D C ─┐                       CONCAT, WRITE   rows pass through as they come
 *   leg 1  T D C   ─┼─► T D D D D … C       SORT            the least of the legs' first rows is next
 *   leg 2  T D D C ─┘                       AGGREGATE       one row from one row of each leg
 *                                           SAME            leg 0's answer; the others must agree
 *
 * Rows wait in a queue per leg only under SORT and under a given row order. With SORT, nothing can go out until every leg
 * that has not completed has a row to compare: *n_waited* counts those that have none. The least row is found by a walk
 * over the legs' first rows, whose keys were decoded once: with the few legs that databases have, a heap gains nothing.
 *
 * What it refuses to do: guess. Legs whose columns differ, tags that differ in their verb, an aggregate row too few or
 * too many, an answer it does not know: the statement fails. */
#include "merge_int.h"

#include <inttypes.h>

#include "pgspan/sqlstate.h"

#define DEFAULT_LEG_BYTES ((size_t)64 << 10)
#define QUEUE_KEEP_BYTES ((size_t)1 << 20) /* a larger queue gives its memory back when it is empty */
#define FIRST_USER_OID 16384               /* types from here on have other OIDs on every server */

/* A sort column's value in a leg's first row. */
struct sort_key {
	bool is_null;
	int64_t number; /* SORT_INT */
	size_t at, n;   /* SORT_BYTES: place in the row, because the queue moves */
};

struct leg {
	bool described; /* T or n was seen */
	bool complete;  /* C or I was seen */
	bool copy_done;
	uint64_t n_rows;

	struct wbuf queue; /* bodies of DataRows, each behind its length (u32) */
	size_t head;       /* where the first one stands */
	bool has_head;     /* SORT: the keys are those of the first one */
	struct sort_key *keys;
};

struct merge {
	struct merge_spec spec;
	struct leg *legs;
	struct sort_key *keys; /* of all legs: n_legs × n_sort */

	struct merge_column *columns; /* of the first RowDescription; NULL before it */
	int n_columns;
	bool described; /* T or n went out (or was hidden) */
	struct msg_value *fields;
	struct aggregate *aggregate;

	int n_complete;
	int n_waited; /* SORT: legs that are not complete and have no row */
	int n_copy_done;
	bool copying;     /* H was seen */
	bool saw_rows;    /* the tag of a SELECT counts what was given */
	size_t order_at;  /* in spec.row_order */
	int64_t to_skip;  /* of OFFSET */
	int64_t to_give;  /* of LIMIT; -1: no limit */
	uint64_t n_given;
	bool done;

	struct wbuf tag; /* of the first leg to complete, with its NUL */
	size_t verb_bytes; /* of it, without the count; all of it when there is none */
	bool has_count;
	bool is_empty;   /* EmptyQueryResponse instead of a tag */
	uint64_t total;  /* counts of the tags added */
};

enum rc
merge_fail_answer(struct diag *d, const char *what)
{
	diag_set(d, SQLSTATE_INTERNAL_ERROR, "unexpected answer of a shard: %s", what);
	return RC_FAIL;
}

static enum rc
fail_schemas(struct diag *d, const char *what)
{
	diag_set(d, SQLSTATE_INTERNAL_ERROR, "shards' schemas differ");
	diag_detail(d, "The shards' answers to one statement have different %s.", what);
	diag_hint(d, "Bring the table to the same definition on every shard.");
	return RC_FAIL;
}

/* ---- setting up ---- */

struct merge *
merge_new(const struct merge_spec *spec)
{
	struct merge *m = xcalloc(1, sizeof *m);

	assert(spec->n_legs > 0 && spec->kind != MULTI_REFUSE);
	m->spec = *spec;
	if (m->spec.max_leg_bytes == 0)
		m->spec.max_leg_bytes = DEFAULT_LEG_BYTES;
	m->legs = xcalloc((size_t)spec->n_legs, sizeof *m->legs);
	m->n_waited = spec->n_legs;
	m->to_skip = spec->offset > 0 ? spec->offset : 0;
	m->to_give = spec->limit >= 0 ? spec->limit : -1;
	if (spec->kind == MULTI_SORT) {
		m->keys = xcalloc((size_t)spec->n_legs * (size_t)spec->n_sort, sizeof *m->keys);
		for (int i = 0; i < spec->n_legs; i++)
			m->legs[i].keys = m->keys + (size_t)i * (size_t)spec->n_sort;
	}
	return m;
}

void
merge_free(struct merge *m)
{
	if (!m)
		return;
	for (int i = 0; i < m->spec.n_legs; i++)
		wbuf_fini(&m->legs[i].queue);
	aggregate_free(m->aggregate);
	wbuf_fini(&m->tag);
	free(m->legs);
	free(m->keys);
	free(m->columns);
	free(m->fields);
	free(m);
}

static void
put_message(struct wbuf *out, char type, struct span body)
{
	wbuf_begin(out, type);
	wbuf_span(out, body);
	wbuf_end(out);
}

/* ---- RowDescription ---- */

/* The columns of *body* into *columns*; as many as the caller has counted. */
static bool
read_columns(struct span body, struct merge_column *columns)
{
	struct rd r = rd_of(body.p, body.n);
	int n = rd_u16(&r);

	for (int i = 0; i < n && !r.bad; i++) {
		rd_cstr(&r);
		rd_bytes(&r, 4 + 2); /* table and attribute: they differ between servers */
		columns[i].type = rd_u32(&r);
		rd_bytes(&r, 2 + 4);
		columns[i].format_at = (size_t)((const char *)r.p - body.p);
		columns[i].format = rd_u16(&r) ? FORMAT_BINARY : FORMAT_TEXT;
	}
	return rd_done(&r);
}

/* Whether every column that is compared has a type that can be. */
static enum rc
check_sort(const struct merge *m, struct diag *d)
{
	for (int i = 0; i < m->spec.n_sort; i++) {
		const struct sort_column *c = &m->spec.sort[i];

		if (c->output_column < 0 || c->output_column >= m->n_columns)
			return merge_fail_answer(d, "a column to sort by is not there");
		if (c->compare == SORT_INT && !type_is_int(m->columns[c->output_column].type))
			return merge_fail_answer(d, "a column to sort by as integer is none");
	}
	return RC_OK;
}

static enum rc
first_description(struct merge *m, struct span body, struct wbuf *out, struct diag *d)
{
	size_t n = body.n >= 2 ? wire_load_u16((const unsigned char *)body.p) : 0;
	size_t at = out->n + WIRE_HEAD_BYTES;

	m->columns = xcalloc(n, sizeof *m->columns);
	m->fields = xcalloc(n, sizeof *m->fields);
	m->n_columns = (int)n;
	if (!read_columns(body, m->columns))
		return merge_fail_answer(d, "malformed RowDescription");
	if (m->spec.kind == MULTI_SORT && check_sort(m, d) != RC_OK)
		return RC_FAIL;
	if (m->spec.kind == MULTI_AGGREGATE && aggregate_new(&m->spec, m->columns, m->n_columns, &m->aggregate, d) != RC_OK)
		return RC_FAIL;
	if (m->spec.hide_row_description)
		return RC_OK;
	put_message(out, SMSG_ROW_DESCRIPTION, body);
	for (int i = 0; m->spec.kind == MULTI_AGGREGATE && i < m->n_columns; i++) {
		out->p[at + m->columns[i].format_at] = 0;
		out->p[at + m->columns[i].format_at + 1] = (char)aggregate_format(&m->spec, i);
	}
	return RC_OK;
}

/* A further leg's description against the first one's. A user's type has an OID of its own on every server. */
static enum rc
compare_description(const struct merge *m, struct span body, struct diag *d)
{
	struct merge_column *columns;
	enum rc rc = RC_OK;

	if (body.n < 2 || wire_load_u16((const unsigned char *)body.p) != m->n_columns)
		return fail_schemas(d, "numbers of columns");
	columns = xcalloc((size_t)m->n_columns, sizeof *columns);
	if (!read_columns(body, columns))
		rc = merge_fail_answer(d, "malformed RowDescription");
	for (int i = 0; rc == RC_OK && i < m->n_columns; i++) {
		uint32_t a = m->columns[i].type, b = columns[i].type;

		if (a != b && (a < FIRST_USER_OID || b < FIRST_USER_OID))
			rc = fail_schemas(d, "column types");
		else if (m->columns[i].format != columns[i].format)
			rc = merge_fail_answer(d, "formats of a column differ");
	}
	free(columns);
	return rc;
}

static enum rc
take_description(struct merge *m, int i, char type, struct span body, struct wbuf *out, struct diag *d)
{
	struct leg *leg = &m->legs[i];

	if (leg->described || leg->n_rows)
		return merge_fail_answer(d, "a second RowDescription");
	leg->described = true;
	if (m->spec.kind == MULTI_SAME && i > 0)
		return RC_OK; /* the rows are leg 0's, so their description is as well */
	if (m->described) {
		if ((type == SMSG_NO_DATA) != (m->columns == NULL))
			return fail_schemas(d, "numbers of columns");
		return m->columns ? compare_description(m, body, d) : RC_OK;
	}
	m->described = true;
	if (type == SMSG_ROW_DESCRIPTION)
		return first_description(m, body, out, d);
	if (!m->spec.hide_row_description)
		wbuf_span(out, MSG_NO_DATA);
	return RC_OK;
}

/* ---- rows going out ---- */

/* One row in the order of the answer: OFFSET and LIMIT decide whether it is given. */
static void
give_row(struct merge *m, struct span row, struct wbuf *out)
{
	if (m->to_skip > 0) {
		m->to_skip--;
		return;
	}
	if (m->to_give == 0)
		return;
	if (m->to_give > 0)
		m->to_give--;
	m->n_given++;
	put_message(out, SMSG_DATA_ROW, row);
}

/* ---- a leg's queue ---- */

static bool
queue_is_empty(const struct leg *leg)
{
	return leg->head == leg->queue.n;
}

static void
queue_put(struct leg *leg, struct span row)
{
	/* Move the rest to the front when most of the buffer has been read: each byte moves at most once on average. */
	if (leg->head > leg->queue.n / 2) {
		memmove(leg->queue.p, leg->queue.p + leg->head, leg->queue.n - leg->head);
		leg->queue.n -= leg->head;
		leg->head = 0;
	}
	wbuf_u32(&leg->queue, (uint32_t)row.n);
	wbuf_span(&leg->queue, row);
}

static struct span
queue_first(const struct leg *leg)
{
	const char *p = leg->queue.p + leg->head;

	return span_of(p + 4, wire_load_u32((const unsigned char *)p));
}

static void
queue_drop(struct leg *leg)
{
	leg->head += 4 + queue_first(leg).n;
	if (!queue_is_empty(leg))
		return;
	leg->head = leg->queue.n = 0;
	if (leg->queue.cap > QUEUE_KEEP_BYTES)
		wbuf_fini(&leg->queue);
}

/* ---- SORT ---- */

bool
merge_row_fields(struct span body, int n, struct msg_value *fields)
{
	struct msg_values it = {.r = rd_of(body.p, body.n)};
	int i = 0;

	it.n = rd_u16(&it.r);
	if (it.n != n)
		return false;
	while (i < n && msg_value_next(&it, &fields[i]))
		i++;
	return i == n && rd_done(&it.r);
}

/* Decodes the sort keys of a leg's first row. */
static enum rc
set_head(struct merge *m, struct leg *leg, struct diag *d)
{
	struct span row = queue_first(leg);

	if (!merge_row_fields(row, m->n_columns, m->fields))
		return merge_fail_answer(d, "malformed DataRow");
	for (int i = 0; i < m->spec.n_sort; i++) {
		const struct sort_column *c = &m->spec.sort[i];
		const struct merge_column *column = &m->columns[c->output_column];
		const struct msg_value *v = &m->fields[c->output_column];
		struct sort_key *key = &leg->keys[i];

		key->is_null = v->is_null;
		if (v->is_null)
			continue;
		key->at = (size_t)(v->bytes.p - row.p);
		key->n = v->bytes.n;
		if (c->compare == SORT_INT && !int_read(v->bytes, column->format, column->type == OID_OID, &key->number))
			return merge_fail_answer(d, "a value to sort by is no integer");
	}
	leg->has_head = true;
	m->n_waited--;
	return RC_OK;
}

static int
compare_heads(const struct merge *m, const struct leg *x, const struct leg *y)
{
	const char *x_row = queue_first(x).p, *y_row = queue_first(y).p;

	for (int i = 0; i < m->spec.n_sort; i++) {
		const struct sort_column *c = &m->spec.sort[i];
		const struct sort_key *a = &x->keys[i], *b = &y->keys[i];
		int order;

		if (a->is_null || b->is_null) {
			order = a->is_null - b->is_null;
			if (order)
				return c->nulls_first ? -order : order;
			continue;
		}
		if (c->compare == SORT_INT)
			order = (a->number > b->number) - (a->number < b->number);
		else
			order = bytes_compare(span_of(x_row + a->at, a->n), span_of(y_row + b->at, b->n));
		if (order)
			return c->descending ? (order < 0 ? 1 : -1) : order;
	}
	return 0;
}

/* Of equal rows the lowest leg's is first, so that an answer does not hang on timing. */
static struct leg *
least_leg(const struct merge *m)
{
	struct leg *least = NULL;

	for (int i = 0; i < m->spec.n_legs; i++) {
		struct leg *leg = &m->legs[i];

		if (leg->has_head && (!least || compare_heads(m, leg, least) < 0))
			least = leg;
	}
	return least;
}

static enum rc
give_sorted(struct merge *m, struct wbuf *out, struct diag *d)
{
	struct leg *leg;

	while (m->n_waited == 0 && (leg = least_leg(m))) {
		give_row(m, queue_first(leg), out);
		queue_drop(leg);
		leg->has_head = false;
		if (!leg->complete)
			m->n_waited++;
		if (queue_is_empty(leg))
			continue;
		if (leg->complete)
			m->n_waited++; /* set_head() takes it back */
		if (set_head(m, leg, d) != RC_OK)
			return RC_FAIL;
	}
	return RC_OK;
}

/* ---- a given row order ---- */

/* Gives what the order allows. A leg that has completed without the row that the order expects of it (a trigger has
 * swallowed it) is passed over; rows beyond the order follow leg by leg. */
static void
give_ordered(struct merge *m, struct wbuf *out)
{
	for (; m->order_at < m->spec.n_row_order; m->order_at++) {
		struct leg *leg = &m->legs[m->spec.row_order[m->order_at]];

		if (queue_is_empty(leg)) {
			if (!leg->complete)
				return;
			continue;
		}
		give_row(m, queue_first(leg), out);
		queue_drop(leg);
	}
	for (int i = 0; m->n_complete == m->spec.n_legs && i < m->spec.n_legs; i++)
		while (!queue_is_empty(&m->legs[i])) {
			give_row(m, queue_first(&m->legs[i]), out);
			queue_drop(&m->legs[i]);
		}
}

/* ---- DataRow ---- */

static enum rc
sort_row(struct merge *m, struct leg *leg, struct span row, struct wbuf *out, struct diag *d)
{
	if (!leg->described || !m->columns)
		return merge_fail_answer(d, "rows without a RowDescription");
	queue_put(leg, row);
	if (leg->has_head)
		return RC_OK;
	return set_head(m, leg, d) == RC_OK ? give_sorted(m, out, d) : RC_FAIL;
}

static enum rc
aggregate_row(struct merge *m, struct leg *leg, struct span row, struct diag *d)
{
	if (!leg->described || !m->aggregate)
		return merge_fail_answer(d, "rows without a RowDescription");
	if (leg->n_rows != 1)
		return merge_fail_answer(d, "more than one row of an aggregate");
	return aggregate_add(m->aggregate, m->columns, row, d);
}

static enum rc
take_row(struct merge *m, int i, struct span row, struct wbuf *out, struct diag *d)
{
	struct leg *leg = &m->legs[i];

	leg->n_rows++;
	m->saw_rows = true;
	if (merge_done_early(m))
		return RC_OK;
	switch (m->spec.kind) {
	case MULTI_SORT:
		return sort_row(m, leg, row, out, d);
	case MULTI_AGGREGATE:
		return aggregate_row(m, leg, row, d);
	case MULTI_SAME:
		if (i == 0)
			give_row(m, row, out);
		return RC_OK;
	case MULTI_CONCAT:
	case MULTI_WRITE:
		if (m->spec.row_order) {
			queue_put(leg, row);
			give_ordered(m, out);
		} else
			give_row(m, row, out);
		return RC_OK;
	case MULTI_REFUSE:
		break;
	}
	return merge_fail_answer(d, "a row");
}

/* ---- CommandComplete ---- */

/* The row count that ends a tag; false when there is none ("CREATE TABLE"). */
static bool
tag_count(struct span tag, size_t *verb_bytes, uint64_t *count)
{
	size_t at = tag.n;
	int64_t v;

	while (at > 0 && tag.p[at - 1] >= '0' && tag.p[at - 1] <= '9')
		at--;
	*verb_bytes = tag.n;
	*count = 0;
	if (at < 2 || tag.p[at - 1] != ' ' || !int_read(span_of(tag.p + at, tag.n - at), FORMAT_TEXT, false, &v))
		return false;
	*verb_bytes = at - 1;
	*count = (uint64_t)v;
	return true;
}

static enum rc
fail_copies(struct diag *d, struct span a, struct span b)
{
	diag_set(d, SQLSTATE_INTERNAL_ERROR, "copies of a reference table differ");
	diag_detail(d, "One shard answered \"%.*s\", another \"%.*s\".", (int)a.n, a.p, (int)b.n, b.p);
	return RC_FAIL;
}

static enum rc
note_tag(struct merge *m, int i, struct span tag, bool is_empty, struct diag *d)
{
	size_t verb_bytes;
	uint64_t count;
	bool has_count = tag_count(tag, &verb_bytes, &count);
	struct span first = m->n_complete ? span_str(m->tag.p) : SPAN_NONE;

	if (m->n_complete > 0) {
		if (m->spec.kind == MULTI_SAME && !span_eq(first, tag))
			return i == 0 ? fail_copies(d, tag, first) : fail_copies(d, first, tag);
		if (is_empty != m->is_empty || has_count != m->has_count ||
		    !span_eq(span_of(first.p, m->verb_bytes), span_of(tag.p, verb_bytes)))
			return merge_fail_answer(d, "command tags differ");
	} else {
		wbuf_cspan(&m->tag, tag);
		m->verb_bytes = verb_bytes;
		m->has_count = has_count;
		m->is_empty = is_empty;
	}
	m->total += count;
	return RC_OK;
}

static void
put_tag(struct merge *m, struct wbuf *out)
{
	struct span verb = span_of(m->tag.p, m->verb_bytes);

	m->done = true;
	if (m->is_empty)
		wbuf_span(out, MSG_EMPTY_QUERY_RESPONSE);
	else if (!m->has_count || m->spec.kind == MULTI_SAME)
		msg_put_command_complete(out, m->tag.p);
	else
		/* What OFFSET and LIMIT took away is not counted. CREATE TABLE AS says SELECT too, but gives no row. */
		msg_put_command_complete_rows(out, verb, m->saw_rows && span_eq_str(verb, "SELECT") ? m->n_given : m->total);
}

static enum rc
give_aggregate(struct merge *m, struct wbuf *out, struct diag *d)
{
	struct wbuf row = {0};
	enum rc rc;

	if (!m->aggregate)
		return merge_fail_answer(d, "an aggregate without a RowDescription");
	for (int i = 0; i < m->spec.n_legs; i++)
		if (m->legs[i].n_rows != 1)
			return merge_fail_answer(d, "an aggregate without a row");
	rc = aggregate_write(m->aggregate, &row, d);
	if (rc == RC_OK)
		give_row(m, span_of(row.p, row.n), out);
	wbuf_fini(&row);
	return rc;
}

static enum rc
take_complete(struct merge *m, int i, char type, struct span body, struct wbuf *out, struct diag *d)
{
	struct leg *leg = &m->legs[i];
	struct span tag = SPAN_NONE;

	if (type == SMSG_COMMAND_COMPLETE) {
		struct rd r = rd_of(body.p, body.n);

		tag = rd_cstr(&r);
		if (!rd_done(&r))
			return merge_fail_answer(d, "malformed CommandComplete");
	}
	if (note_tag(m, i, tag, type == SMSG_EMPTY_QUERY_RESPONSE, d) != RC_OK)
		return RC_FAIL;
	leg->complete = true;
	m->n_complete++;
	if (m->spec.kind == MULTI_SORT && !merge_done_early(m)) {
		if (!leg->has_head)
			m->n_waited--;
		if (give_sorted(m, out, d) != RC_OK)
			return RC_FAIL;
	}
	if (m->spec.row_order)
		give_ordered(m, out);
	if (m->n_complete < m->spec.n_legs)
		return RC_OK;
	if (m->spec.kind == MULTI_AGGREGATE && !m->is_empty && !merge_done_early(m) && give_aggregate(m, out, d) != RC_OK)
		return RC_FAIL;
	put_tag(m, out);
	return RC_OK;
}

/* ---- COPY TO ---- */

/* The streams are strung together. A binary one has a header and a trailer, which cannot. */
static enum rc
take_copy(struct merge *m, struct leg *leg, int i, char type, struct span body, struct wbuf *out, struct diag *d)
{
	bool mine = m->spec.kind != MULTI_SAME || i == 0;

	if (m->spec.kind != MULTI_CONCAT && m->spec.kind != MULTI_SAME)
		return merge_fail_answer(d, "COPY");
	switch (type) {
	case SMSG_COPY_OUT_RESPONSE:
		if (body.n < 1 || (body.p[0] != 0 && m->spec.kind == MULTI_CONCAT)) {
			diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "binary COPY TO cannot be read from several shards");
			return RC_FAIL;
		}
		if (!m->copying)
			put_message(out, type, body);
		m->copying = true;
		return RC_OK;
	case SMSG_COPY_DATA:
		if (mine)
			put_message(out, type, body);
		return RC_OK;
	default:
		if (!m->copying || leg->copy_done)
			return merge_fail_answer(d, "CopyDone");
		leg->copy_done = true;
		if (++m->n_copy_done == m->spec.n_legs)
			wbuf_span(out, MSG_COPY_DONE);
		return RC_OK;
	}
}

/* ---- the front ---- */

enum rc
merge_message(struct merge *m, int i, char type, struct span body, struct wbuf *out, struct diag *d)
{
	struct leg *leg = &m->legs[i];

	assert(i >= 0 && i < m->spec.n_legs && !m->done);
	if (type == SMSG_NOTICE_RESPONSE || type == SMSG_NOTIFICATION_RESPONSE) {
		if (m->spec.kind != MULTI_SAME || i == 0)
			put_message(out, type, body);
		return RC_OK;
	}
	if (leg->complete)
		return merge_fail_answer(d, "a message behind CommandComplete");
	switch (type) {
	case SMSG_ROW_DESCRIPTION:
	case SMSG_NO_DATA:
		return take_description(m, i, type, body, out, d);
	case SMSG_DATA_ROW:
		return take_row(m, i, body, out, d);
	case SMSG_COMMAND_COMPLETE:
	case SMSG_EMPTY_QUERY_RESPONSE:
		return take_complete(m, i, type, body, out, d);
	case SMSG_COPY_OUT_RESPONSE:
	case SMSG_COPY_DATA:
	case SMSG_COPY_DONE:
		return take_copy(m, leg, i, type, body, out, d);
	case SMSG_PORTAL_SUSPENDED:
		return merge_fail_answer(d, "PortalSuspended");
	default:
		return merge_fail_answer(d, msg_server_name(type));
	}
}

bool
merge_wants(const struct merge *m, int i)
{
	const struct leg *leg = &m->legs[i];

	return leg->complete || merge_done_early(m) || leg->queue.n - leg->head < m->spec.max_leg_bytes;
}

bool
merge_done_early(const struct merge *m)
{
	return m->to_give == 0 && (m->described || m->spec.hide_row_description);
}

enum rc
merge_finish_early(struct merge *m, struct wbuf *out, struct diag *d)
{
	if (!merge_done_early(m) || m->done)
		return merge_fail_answer(d, "its end");
	msg_put_command_complete_rows(out, SPAN_LIT("SELECT"), m->n_given);
	m->done = true;
	return RC_OK;
}

bool
merge_done(const struct merge *m)
{
	return m->done;
}
