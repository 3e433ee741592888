/* SPDX-License-Identifier: BSD-2-Clause */
/* replies - which of a server's messages answers which message that was sent to it.
 *
 * A FIFO per server connection: an entry is pushed for each message sent that is owed an answer, and each message that
 * comes back is matched with the head (PostgreSQL docs 55.2.2, 55.2.3). With it pipelines stay pipelines, answers to
 * pgspan's own messages never reach a client, and a server is never given away while it owes something.
 * Pure: no I/O. Owner: the server connection.  Thread: its worker's. */
#ifndef PGSPAN_REPLIES_H
#define PGSPAN_REPLIES_H

#include "pgspan/defs.h"

enum reply_kind {
	REPLY_PARSE,       /* ParseComplete */
	REPLY_BIND,        /* BindComplete */
	REPLY_CLOSE,       /* CloseComplete */
	REPLY_DESCRIBE_STATEMENT, /* ParameterDescription, then RowDescription or NoData */
	REPLY_DESCRIBE_PORTAL,    /* RowDescription or NoData */
	REPLY_EXECUTE,     /* rows or copy, then CommandComplete, EmptyQueryResponse or PortalSuspended */
	REPLY_SYNC,        /* ReadyForQuery */
	REPLY_QUERY,       /* anything, then ReadyForQuery */
	REPLY_FUNCTION,    /* FunctionCallResponse, then ReadyForQuery */
};

enum reply_action {
	REPLY_FORWARD, /* for the client */
	REPLY_SKIP,    /* to a message of pgspan's own: dropped */
	REPLY_FAKE,    /* nothing was sent, nothing comes: the caller makes the answer up when its turn is there */
};

struct reply {
	enum reply_kind kind;
	enum reply_action action;
	void *ref; /* the caller's: a statement, a plan; handed back when the entry ends */
};

struct replies {
	struct reply *ring; /* NULL until the first push */
	uint32_t cap, head, n;
	bool skipping; /* after an ErrorResponse in the extended protocol: the server ignores all up to Sync */
};

void replies_init(struct replies *r);
/* Entries that are left are dropped without a word. */
void replies_fini(struct replies *r);

void replies_push(struct replies *r, enum reply_kind kind, enum reply_action action, void *ref);

/* True if nothing is owed. */
static inline bool
replies_empty(const struct replies *r)
{
	return r->n == 0;
}

/* The head, or NULL. A REPLY_FAKE head has to be answered and popped by the caller before the next message is matched. */
const struct reply *replies_head(const struct replies *r);
void replies_pop(struct replies *r);

/* CopyInResponse came for the head, in the extended protocol: the server ignores the Syncs that it has been sent already, so
 * those directly behind the head are owed nothing. */
void replies_copy_in(struct replies *r);

enum reply_verdict {
	VERDICT_FORWARD, /* to the client */
	VERDICT_SKIP,    /* drop it */
	VERDICT_ASYNC,   /* NoticeResponse, ParameterStatus, NotificationResponse: nobody's answer (a notice raised by a
	                    skipped statement is VERDICT_SKIP) */
	VERDICT_BROKEN,  /* no message of that type can come now: the connection cannot be trusted any more */
};

enum reply_end {
	REPLY_DONE,
	REPLY_FAILED,  /* the ErrorResponse is its answer */
	REPLY_IGNORED, /* the server ignores it because of an error before it, or the connection is lost */
};

/* Matches one message of the server. *ended* is told each entry that ends by it: the one that is done; or, for an
 * ErrorResponse in the extended protocol, all that the server will now ignore, the last first (a FAKE one too: its answer
 * must not be given), and then the one that failed. Sync, or the Query that failed, is ended by its ReadyForQuery. */
typedef void (*reply_ended_fn)(void *arg, const struct reply *r, enum reply_end end);
enum reply_verdict replies_match(struct replies *r, char type, reply_ended_fn ended, void *arg);
/* Nothing more will come: ends what is left as ignored, the last first. */
void replies_end_all(struct replies *r, reply_ended_fn ended, void *arg);

#endif
