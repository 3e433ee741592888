/* SPDX-License-Identifier: BSD-2-Clause */
/* merge - the answers that several shards (legs) give to one statement, made into the one answer that PostgreSQL would
 * give: one RowDescription, the rows, one CommandComplete.
 *
 * Whole messages go in, leg by leg in the order each leg sent them; whole messages for the client come out. What else
 * belongs to a statement (ParseComplete, BindComplete, ErrorResponse, ReadyForQuery, ParameterStatus) is the caller's;
 * on a leg's error it frees the merge. Rows are never held as more than bytes, and only while their order or the
 * aggregate needs another leg: see merge_wants().
 *
 * Values are compared and added as the server sent them, so all legs must run under one client_encoding, and one in
 * which SORT_BYTES is the collation's order (UTF8).
 * Owner: the session's statement.  Lives until: merge_free().  Thread: its worker. */
#ifndef PGSPAN_MERGE_H
#define PGSPAN_MERGE_H

#include "pgspan/diag.h"
#include "pgspan/plan.h"
#include "pgspan/span.h"
#include "pgspan/wire.h"

struct merge_spec {
	enum multi_kind kind; /* CONCAT, SORT, AGGREGATE, WRITE or SAME */
	int n_legs;

	/* These arrays are borrowed and must outlive the merge. */
	const struct sort_column *sort; /* SORT */
	int n_sort;
	const struct aggregate_column *aggregates; /* AGGREGATE: one for each output column */
	int n_aggregates;
	const uint16_t *result_formats; /* AGGREGATE: what the client asked for, by the rule of Bind (0, 1 or n codes) */
	int n_result_formats;
	const uint32_t *row_order; /* WRITE and CONCAT: which leg has the next row (split.h); NULL: as they come */
	size_t n_row_order;

	/* The statement's LIMIT and OFFSET. A leg must have been asked for offset + limit rows at least, without an OFFSET. */
	int64_t limit;  /* -1: none */
	int64_t offset; /* 0: none */

	bool hide_row_description; /* the client has it already (extended protocol): 'T' and 'n' are read, not sent */
	size_t max_leg_bytes;      /* rows of one leg held back before merge_wants() says no; 0: 64 KB */
};

struct merge;

struct merge *merge_new(const struct merge_spec *spec) WARN_UNUSED;
void merge_free(struct merge *m);

/* Takes one message of *leg*: T, n, D, C, I, N, A, and H, d, c of COPY TO. What the client is to get is appended to *out*.
 * SORT and AGGREGATE must see a leg's RowDescription before its rows, with the format codes the rows have, also when it
 * is hidden. RC_FAIL with *d* set: the legs' answers cannot be made one (the statement fails; nothing more may go in). */
enum rc merge_message(struct merge *m, int leg, char type, struct span body, struct wbuf *out, struct diag *d) WARN_UNUSED;

/* Whether the leg should be read on. False while it is ahead of others whose rows come first; a message that is given nevertheless is
 * taken. Ask again after each message of any leg. */
bool merge_wants(const struct merge *m, int leg);

/* All rows that LIMIT allows are out: what legs still send is of no use. The caller may go on to merge_done(), or stop
 * the legs (cancel, or close their portals) and call merge_finish_early() instead. */
bool merge_done_early(const struct merge *m);
enum rc merge_finish_early(struct merge *m, struct wbuf *out, struct diag *d) WARN_UNUSED;

/* The CommandComplete (or EmptyQueryResponse) is out. */
bool merge_done(const struct merge *m);

#endif
