/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_split - the byte stream of COPY … FROM STDIN cut into rows, each given to the shard its key belongs to.
 *
 * Rows are found by PostgreSQL's own rules (text, CSV and binary; PostgreSQL docs, "COPY", File Formats) and handed on
 * as the bytes they came in; only the key fields are decoded. What is malformed goes to shard 0, whose PostgreSQL words
 * the error, wherever that is certain to raise one; where it is not, copy_split_feed() fails with PostgreSQL's message.
 *
 * The stream is that of the payloads of CopyData, cut anywhere. Pure: no I/O.
 * Owner: the session's COPY.  Lives until: copy_split_free().  Thread: its worker. */
#ifndef PGSPAN_COPY_SPLIT_H
#define PGSPAN_COPY_SPLIT_H

#include "pgspan/diag.h"
#include "pgspan/plan.h"
#include "pgspan/span.h"

/* One key field of a row: unescaped text in the COPY's encoding, or the binary send form. Valid during the call. */
struct copy_key {
	struct span value;
	bool is_null;    /* NULL by the format's rules, FORCE_NULL and FORCE_NOT_NULL included */
	bool is_missing; /* the column is not among those that are copied: its default */
};

/* Which shard a row belongs to, 0 … n_shards-1; -1 with *d* set: the COPY fails. *n* is the key's number of columns. */
typedef int (*copy_route_fn)(void *arg, const struct copy_key *keys, int n, struct diag *d);

/* Bytes for *shard*: one row or a run of rows, valid during the call. */
typedef void (*copy_emit_fn)(void *arg, int shard, struct span bytes);

struct copy_split_spec {
	const struct copy_plan *plan; /* outlives the splitter */
	int n_key;                    /* columns of the key: length of plan->key_field */
	int n_shards;
	const char *client_encoding;  /* what plan->encoding NULL means; NULL: one that is safe to cut */
	bool csv_no_end_mark;         /* PostgreSQL 18 and later: a line \. is data in CSV */
	size_t max_row_bytes;         /* of an incomplete row; 0: 1 GB, PostgreSQL's own limit */
	copy_route_fn route;
	copy_emit_fn emit;
	void *arg; /* of both */
};

struct copy_split;

/* NULL with *d* set (0A000) when the encoding has characters whose second byte may look like ASCII (SJIS, BIG5, GBK,
 * UHC, GB18030, JOHAB, SHIFT_JIS_2004): rows cannot be told apart without converting them. */
struct copy_split *copy_split_new(const struct copy_split_spec *spec, struct diag *d) WARN_UNUSED;
void copy_split_free(struct copy_split *cs);

/* The next bytes of the stream. RC_OK, or RC_FAIL with *d* set: nothing more may be fed. */
enum rc copy_split_feed(struct copy_split *cs, struct span bytes, struct diag *d) WARN_UNUSED;

/* The stream has ended (CopyDone): a last row without its newline is routed, an incomplete one goes to shard 0. */
enum rc copy_split_finish(struct copy_split *cs, struct diag *d) WARN_UNUSED;

/* Rows routed, the heading not counted. */
uint64_t copy_split_rows(const struct copy_split *cs);
/* The number, from 1, of the line last read, counted as PostgreSQL counts for its CONTEXT ("COPY t, line 3"); tuples in binary. */
uint64_t copy_split_line(const struct copy_split *cs);

#endif
