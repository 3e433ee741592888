/* SPDX-License-Identifier: BSD-2-Clause */
/* fan_int - what fan.c, fan_end.c and copy_fan.c share.
 *
 * A fan is a series of exchanges. In an exchange each of some legs is sent something, and all of them are read until each has said
 * ReadyForQuery; then fan->then() begins the next exchange or ends the fan. The client's message has been taken off its
 * buffer by then: what is needed of it was copied.
 *
 *   statement:  attach legs ──► run it ──┬─ a block is open, or it only reads ──► answer
 *                                        └─ it wrote outside a block ──► end of block ──► answer
 *   end of block (fan_end.c): COMMIT on all  |  PREPARE, decision, COMMIT PREPARED  |  ROLLBACK on all */
#ifndef PGSPAN_FAN_INT_H
#define PGSPAN_FAN_INT_H

#include "session_int.h"

#include "pgspan/arena.h"
#include "pgspan/merge.h"
#include "pgspan/split.h"
#include "pgspan/twophase.h"

enum leg_outcome {
	LEG_WAITS,  /* has not said ReadyForQuery yet */
	LEG_OK,
	LEG_ERROR,  /* ErrorResponse, then ReadyForQuery */
	LEG_LOST,   /* the server is gone */
	LEG_IDLE,   /* not in this exchange */
};

struct fan_leg {
	struct leg *leg;
	int shard;
	struct span sql;         /* its statement; lives in fan->mem */
	const struct split_part *part; /* of a split INSERT; NULL: none */
	enum leg_outcome outcome;
	bool copying;            /* CopyInResponse came */
	bool erred;              /* ErrorResponse came, and ReadyForQuery has not */
};

struct copy_split;

struct fan {
	struct session *s;
	struct arena mem;
	struct plan_entry *plan;
	struct fan_leg *legs;
	int n;
	int n_attached;
	int n_waiting;
	bool extended;
	bool more;          /* extended: no Sync stands behind it, so no ReadyForQuery follows */
	bool parsed, bound; /* extended: some leg has said ParseComplete, BindComplete */
	struct config *cfg; /* keeps what the plan points into */
	bool implicit;    /* it opened a block of its own on each leg */
	bool failed;
	bool cancelled;   /* the other legs have been told to stop */
	bool finishing;   /* guards against entering twice */
	struct wbuf error; /* the ErrorResponse for the client */
	struct wbuf before; /* what stands before the answer: ParseComplete, BindComplete */
	struct wbuf tail;  /* the end of the answer, held until the commit is done */
	struct merge *merge; /* NULL: answers are only judged */
	void (*then)(struct fan *f); /* when all legs of the exchange are ready */

	/* a Bind, for all legs */
	struct msg_bind bind;
	struct msg_parse parse;
	struct stmt *stmt;
	bool describe;
	int32_t max_rows, n_rows; /* the Execute's limit; 0: none; and what has been delivered */
	int32_t leg_rows; /* the limit that legs are given */

	/* two-phase commit */
	struct gid gid;    /* empty: none is under way */
	enum twophase_outcome outcome; /* what is known of it, should the session end now */
	const char *tag; /* the CommandComplete of a control statement */
	struct effect *effect;

	/* COPY FROM */
	struct copy_split *copy;
	bool copy_open;  /* CopyInResponse was sent to the client, CopyDone has not come */
	bool copy_same;  /* a reference table: every shard gets every row */
	int copy_columns; /* as CopyInResponse says */
	bool copy_binary;
};

struct fan *fan_new(struct session *s, struct plan_entry *e); /* NULL: it ends a block */
void fan_free(struct fan *f);
/* All legs are attached, one after the other; then f->then(). */
void fan_attach(struct fan *f);
/* Sends each leg the Query that *sql_for* gives (NULL: none for this leg), and waits for them; then *then*. Errors of before stay. */
void fan_exchange(struct fan *f, const char *(*sql_for)(const struct fan *f, const struct fan_leg *k), void (*then)(struct fan *f));
void fan_send_query(struct fan *f, int i, struct span sql);
/* Reads all legs as far as it goes. */
void fan_pump(struct fan *f);
/* The answer is complete: sends it, frees the fan, goes on with the session. */
void fan_answer(struct fan *f);
void fan_fail(struct fan *f, const struct diag *d);
/* fan_end.c: ends the block on all legs, then fan_answer(). */
void fan_commit(struct fan *f);
void fan_rollback(struct fan *f);
/* The session ends in the middle of a two-phase commit: the monitor finishes it. */
void fan_end_abandoned(struct fan *f);
/* copy_fan.c */
enum rc copy_fan_open(struct fan *f, struct diag *d);
void copy_fan_begin(struct fan *f);
void copy_fan_ready(struct fan *f); /* every leg waits for data */

#endif
