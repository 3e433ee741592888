/* SPDX-License-Identifier: BSD-2-Clause */
/* twophase - what a session and the monitor agree on about a COMMIT that several shards must make together.
 *
 *   session:  PREPARE TRANSACTION gid    on every writing leg
 *             TWOPHASE_DECIDE            on the coordinator, the first of them: the row (gid, true) is the commit
 *             COMMIT PREPARED gid        on every writing leg, then twophase_finished()
 *
 * Whoever finds a prepared transaction without its session asks the coordinator's table. Where it has no row, the finder
 * first inserts a tombstone (gid, false) under the same primary key: of the session's row and the tombstone only one can
 * be, however late the session's INSERT arrives; that one decides.
 * proxy/upstream/twophase.c is pure; twophase_recover.c runs in the monitor's thread. */
#ifndef PGSPAN_TWOPHASE_H
#define PGSPAN_TWOPHASE_H

#include "pgspan/defs.h"

struct pg_conn; /* libpq's PGconn */

/* --- identifiers and statements. Thread: any. --- */

/* "pgspan_<instance>_<run, hex>_<worker>_<sequence>_<coordinator shard>", at most 199 bytes (PostgreSQL's GIDSIZE). Only
 * [a-z0-9_]: it needs no quoting inside '...'. */
struct gid {
	char text[200];
};

struct gid_parts {
	char instance[25]; /* [a-z0-9_]{1,24} */
	uint64_t run;      /* the process: twophase_run() */
	int worker;
	uint64_t sequence; /* unique within the worker */
	int shard;         /* number of the coordinator */
};

struct gid gid_make(const char *instance, uint64_t run, int worker, uint64_t sequence, int shard);
/* False: not exactly what gid_make() writes. */
bool gid_parse(const char *text, struct gid_parts *out) WARN_UNUSED;

/* When this process asked first, in microseconds: what tells its transactions from those of processes before it. */
uint64_t twophase_run(void);

enum twophase_step {
	TWOPHASE_PREPARE,
	/* For the simple protocol only: several statements, one ReadyForQuery. It puts right what the user's settings could do to
	 * the row (read-only, not flushed). Outside a transaction block. Once its CommandComplete of INSERT *and* ReadyForQuery
	 * are there the transaction is committed; after an ErrorResponse and ReadyForQuery it is not and never will be (23505:
	 * somebody gave it up before); a connection lost in between is TWOPHASE_UNKNOWN. */
	TWOPHASE_DECIDE,
	TWOPHASE_COMMIT_PREPARED, /* 42704: somebody did it before; not an error once the row is there */
	TWOPHASE_ROLLBACK_PREPARED,
};

#define TWOPHASE_SQL_MAX 512
/* Returns its length. */
size_t twophase_sql(char buf[TWOPHASE_SQL_MAX], enum twophase_step step, const struct gid *g);

/* --- what workers hand over to the monitor --- */

struct twophase;

enum twophase_outcome {
	TWOPHASE_COMMITTED, /* the decision's row is known to be there */
	TWOPHASE_ABORTED,   /* TWOPHASE_DECIDE was never sent, or was answered with an error */
	TWOPHASE_UNKNOWN,   /* it was sent, and no answer came */
};

/* The transaction may be prepared still on some shard, and no session minds it any more. Thread: any. */
void twophase_in_doubt(struct twophase *t, const char *database, const struct gid *g, enum twophase_outcome outcome);
/* Every participant has answered COMMIT PREPARED: the row may go. Thread: any. */
void twophase_finished(struct twophase *t, const char *database, const struct gid *g);

/* --- the monitor's side. Thread: its only, or before it runs. Blocks, but a few seconds at most for each shard. --- */

struct twophase_shard {
	int number;
	const char *label;
	struct pg_conn *conn; /* to the primary; NULL: it can't be reached */
	bool lost;            /* out: the connection is of no use any more, close it */
};

struct twophase *twophase_new(void);
void twophase_free(struct twophase *t);
/* To be called every second or so with *all* shards of a sharded database. Makes the decision's table where there is none,
 * finishes what other runs of this instance have left and what workers handed over, deletes rows that nobody needs. When
 * there is nothing to do it looks every 60 s, else every few seconds. */
void twophase_tend(struct twophase *t, const char *database, const char *instance, struct twophase_shard *shards, int n);

/* max_prepared_transactions of a server; 0: it cannot take part; -1: it did not tell. Blocks. */
int twophase_capacity(struct pg_conn *conn);

#endif
