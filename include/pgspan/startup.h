/* SPDX-License-Identifier: BSD-2-Clause */
/* startup - the packets that open a connection, before messages have types: StartupMessage, SSLRequest,
 * GSSENCRequest, CancelRequest (PostgreSQL docs 55.2.1, 55.7).
 *
 *   +----------------+----------------------+------------------------+
 *   | length (u32)   | code or version (u32)| body                   |   length counts itself
 *   +----------------+----------------------+------------------------+
 *
 * Judged as PostgreSQL's ProcessStartupPacket judges, with its words and SQLSTATEs.  Thread: any. */
#ifndef PGSPAN_STARTUP_H
#define PGSPAN_STARTUP_H

#include "pgspan/arena.h"
#include "pgspan/diag.h"

/* PostgreSQL's MAX_STARTUP_PACKET_LENGTH, which leaves out the length word itself. */
#define STARTUP_MAX_BODY 10000

enum startup_kind { STARTUP_MESSAGE, STARTUP_SSL_REQUEST, STARTUP_GSSENC_REQUEST, STARTUP_CANCEL_REQUEST };

enum startup_replication { REPLICATION_NONE, REPLICATION_PHYSICAL, REPLICATION_DATABASE };

enum { STARTUP_BAD_LENGTH = -1 };

struct startup_setting {
	const char *name, *value;
};

/* Owner: the caller; all strings are in its arena, but for cancel_key. */
struct startup {
	enum startup_kind kind;

	/* STARTUP_MESSAGE */
	uint32_t protocol;   /* as asked for: major << 16 | minor; major is 3 */
	const char *user;    /* never empty */
	const char *database; /* never empty: the user's name if none was given */
	enum startup_replication replication;
	struct startup_setting *settings; /* in the order to be applied: those of "options" first, then the parameters */
	size_t n_settings;
	const char **pq_options; /* the _pq_.* names, none of which is known, for NegotiateProtocolVersion */
	size_t n_pq_options;

	/* STARTUP_CANCEL_REQUEST */
	uint32_t cancel_pid;
	struct span cancel_key; /* 4 to 256 bytes, borrowed from the packet */
};

/* How long the packet at *buf* is: >0 its bytes, 0 need more, STARTUP_BAD_LENGTH (answer: close). */
ssize_t startup_peek(const void *buf, size_t n);

/* Decodes the whole packet of *n* bytes (as startup_peek gave). On RC_FAIL *d* holds a FATAL error for the client. */
enum rc startup_decode(const void *packet, size_t n, struct arena *a, struct startup *out, struct diag *d) WARN_UNUSED;

/* Whether a NegotiateProtocolVersion must come before authentication: a newer minor version than 3.0 was asked for, or
 * options that are unknown here. */
bool startup_needs_negotiation(const struct startup *s);

#endif
