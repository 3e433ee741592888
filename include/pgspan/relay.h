/* SPDX-License-Identifier: BSD-2-Clause */
/* relay - a server's bytes to one client: whole runs of messages pass through as they came, header by header.
 *
 * Looks at a message only where something hangs on it (see struct relay_ops). A message that matters is waited for until
 * it is whole; rows and copy data stream through in pieces. The bytes stay in the server's receive buffer until the client's
 * socket has taken them or they were copied to its transmit queue.
 * Owner: the session's leg.  Thread: its worker's. */
#ifndef PGSPAN_RELAY_H
#define PGSPAN_RELAY_H

#include "pgspan/server.h"
#include "pgspan/wire.h"

struct relay;

struct relay_ops {
	/* An entry of the server's FIFO has ended (see replies.h). */
	void (*on_ended)(struct relay *r, const struct reply *e, enum reply_end end);
	/* The head is REPLY_FAKE: put its answer. It is popped afterwards. */
	void (*on_fake)(struct relay *r, const struct reply *e, struct wbuf *out);
	/* CommandComplete of the client's own statement. */
	void (*on_command)(struct relay *r, struct span tag);
	/* ErrorResponse to *e* (NULL: to nothing), which has ended by it. True: forward it; else what was put in *instead*. */
	bool (*on_error)(struct relay *r, const struct wire_msg *m, const struct reply *e, struct wbuf *instead);
	/* ParameterStatus. True: forward it. */
	bool (*on_parameter)(struct relay *r, const struct wire_msg *m, bool mine);
	/* NotificationResponse. True: forward it; else what was put in *instead*. */
	bool (*on_notification)(struct relay *r, const struct wire_msg *m, struct wbuf *instead);
	/* DataRow of a statement of pgspan's own. */
	void (*on_own_row)(struct relay *r, const struct wire_msg *m);
	/* RowDescription or NoData, to a Describe whose entry *e* has a ref. */
	void (*on_description)(struct relay *r, const struct wire_msg *m, const struct reply *e);
	/* CopyInResponse, CopyBothResponse. */
	void (*on_copy_in)(struct relay *r);
	/* ReadyForQuery, with its status. True: the client is to see it. */
	bool (*on_ready)(struct relay *r, char status, bool mine);
};

struct relay {
	struct server *server;
	struct conn *client;
	const struct relay_ops *ops;
	uint64_t left;     /* bytes of a half-seen message still to come */
	bool left_forward; /* they go to the client; else they are dropped */
	bool forwarded;    /* the client has been sent something; the owner may clear it */
};

void relay_init(struct relay *r, struct server *s, struct conn *client, const struct relay_ops *ops);

/* Deals with all that the server's receive buffer holds and flushes the client. RC_FAIL: the server broke the protocol,
 * the connection cannot be used again. Stops early, RC_AGAIN, when the client's transmit queue is above its mark: call again
 * when it has drained. */
enum rc relay_run(struct relay *r) WARN_UNUSED;

/* True between two messages. */
static inline bool
relay_is_between(const struct relay *r)
{
	return r->left == 0;
}

#endif
