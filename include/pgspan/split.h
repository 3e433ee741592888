/* SPDX-License-Identifier: BSD-2-Clause */
/* split - a multi-row INSERT … VALUES made into one statement for each shard that gets some of the rows.
 *
 *     INSERT INTO t (id, v) VALUES (1, $1), (2, $2), (3, $2) RETURNING id      rows 0 and 2 belong to shard 4, row 1 to shard 7
 *     └────── prefix ────────────┘ └─row─┘  └─row─┘  └─row─┘ └─ suffix ─┘
 *
 *     shard 4: INSERT INTO t (id, v) VALUES (1, $1), (3, $2) RETURNING id      params 1, 2
 *     shard 7: INSERT INTO t (id, v) VALUES (2, $1) RETURNING id               params 2
 *
 * Prefix, rows and suffix stay as they were written, comments included; only parameters get new numbers, because a
 * statement that uses $2 alone would have to have a $1 of unknown type.
 *
 * Parameters that the client left without a type take it from where they stand, so a part may infer for itself
 * only what the whole would have inferred if no row has been taken away that spoke of the type. Prepare parts with
 * the types that a server gave for the whole statement, or with those of Parse when all are set.
 * Thread: any. */
#ifndef PGSPAN_SPLIT_H
#define PGSPAN_SPLIT_H

#include "pgspan/arena.h"
#include "pgspan/diag.h"
#include "pgspan/msg.h"
#include "pgspan/span.h"

/* The statement for one shard. */
struct split_part {
	int shard;
	struct span sql;
	const uint32_t *rows; /* the rows it has, by their number in the whole statement, ascending */
	uint32_t n_rows;
	const uint16_t *params; /* its $k is the whole statement's $params[k - 1] */
	uint16_t n_params;
};

struct split {
	struct split_part *parts; /* by shard, ascending; at least one */
	int n_parts;
	/* For each row its part: what merge takes as row_order when part i is leg i. RETURNING gives rows in this order as
	 * long as each row gives one: not with ON CONFLICT, where fewer may come and merge's answer has another order. */
	const uint32_t *part_of_row;
};

/* *scan_flags* are those of scan.h. *shard_of_row* has *n_rows* (1 or more) shards below MAX_SHARDS. The result, but for
 * the pieces it borrows from *sql*, lives in *a*.
 * RC_FAIL with *d* set (0A000): the text has not exactly *n_rows* rows where INSERT … VALUES has them; it must not be split. */
enum rc split_insert(struct arena *a, struct span sql, unsigned scan_flags, const int *shard_of_row, uint32_t n_rows,
                     struct split *out, struct diag *d) WARN_UNUSED;

/* The types of *part*'s parameters out of those of the whole statement, for msg_put_parse(): as many as part->n_params,
 * 0 for those beyond *n_types*. */
const uint32_t *split_types(struct arena *a, const struct split_part *part, const uint32_t *types, uint16_t n_types);

/* Appends the whole Bind message for *part*, made from the client's Bind of the whole statement: the part's parameters with their
 * formats, and all result formats. False when *b* does not have a parameter that the part needs, or has a number of
 * format codes that PostgreSQL would refuse (08P01); nothing is appended then. */
bool split_put_bind(struct wbuf *w, const struct split_part *part, const struct msg_bind *b, struct span portal,
                    struct span statement) WARN_UNUSED;

#endif
