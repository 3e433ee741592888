/* SPDX-License-Identifier: BSD-2-Clause */
/* server - one connection to a PostgreSQL server: opened by libpq, then driven with protocol bytes.
 *
 *   CONNECTING ── PQconnectPoll on the loop ──► READY ──► CLOSED
 *        └────────────── failed ─────────────────────────►┘
 *
 * libpq does name, TLS, SCRAM and all other ways to log in. Once it is done its buffers are empty, and the socket (and
 * the SSL object, under TLS) belong to `conn`; PGconn stays for parameters, cancel and the end.
 * Owner: whoever server_open() gave it to (a pool).  Lives until: server_close(), freed between two events.
 * Thread: its loop's. */
#ifndef PGSPAN_SERVER_H
#define PGSPAN_SERVER_H

#include "pgspan/conn.h"
#include "pgspan/diag.h"
#include "pgspan/dlist.h"
#include "pgspan/auth.h"
#include "pgspan/replies.h"
#include "pgspan/stmt_set.h"

struct pg_conn;
struct server;

/* What stands in the place of a password that is not known: enough to log in by, see server_native.c. */
enum server_keys_kind { SERVER_KEYS_NONE, SERVER_KEYS_SCRAM, SERVER_KEYS_MD5 };
struct server_keys {
	enum server_keys_kind kind;
	struct scram_secret scram; /* the verifier, and what a client's proof told */
	unsigned char client_key[SCRAM_KEY_BYTES];
	char md5[AUTH_MD5_BYTES];
};

enum server_state { SERVER_CONNECTING, SERVER_READY, SERVER_CLOSED };

struct server_ops {
	/* The log-in is over: RC_OK, or RC_FAIL with the reason (08006, 28P01, 53300, 57P03, … as the server said). After
	 * RC_FAIL the server is CLOSED. Called once, from the loop, never from inside server_open(). */
	void (*on_open)(struct server *s, enum rc rc, const struct diag *d);
	/* Bytes came, or the connection ended (s->conn.eof, s->conn.broken). Only while READY. */
	void (*on_input)(struct server *s);
	/* The transmit queue is low again. */
	void (*on_drained)(struct server *s);
};

#define SERVER_PARAMETERS 14
extern const char *const server_parameter_names[SERVER_PARAMETERS]; /* what a server reports (docs 55.2.7) */

struct server {
	uint32_t magic;
	enum server_state state;
	struct conn conn; /* of use once READY */
	struct replies replies;
	struct pg_conn *pg;     /* NULL: logged in natively */
	struct native *native;  /* NULL: libpq logged in */
	uint32_t pid;           /* of the server's process; 0 before the login */
	struct loop *loop;
	const struct server_ops *ops; /* may be set anew while READY: who holds the server hears of it */
	void *user;                   /* the holder's */
	char tx_status;               /* of the last ReadyForQuery: I, T or E */

	struct { /* what the server session holds; kept by whoever holds the server */
		struct stmt_set stmts;   /* named statements of ours */
		struct stmt_id unnamed;  /* the unnamed one; all zero: none, or not known */
		uint64_t settings;       /* hash of the settings that were made; 0: none */
		bool role;               /* the role or the authorization may be another than the login's */
		uint64_t role_epoch;     /* fleet_ddl_epoch() when the server was last handed out */
		bool used_up;            /* what DISCARD ALL does not undo: a temporary schema, a library that LOAD has brought */
		bool unclean;            /* more than these: DISCARD ALL before anybody else gets it */
	} has;

	char *parameters[SERVER_PARAMETERS]; /* as it has reported them last; NULL: it never has */

	int cancels;  /* cancel requests on their way to it: it must not change hands before they are through */
	bool ended;   /* server_close() waits for them */

	struct { /* upstream/pool.c's own */
		struct dlist link; /* in the pool's idle, busy or connecting list */
		struct pool *pool;
		ev_tstamp opened_at, idle_since;
		bool is_idle;
		bool used; /* by a client */
	} pooled;

	ev_io login_io;
	ev_timer login_timer;
	struct doomed doomed;
	struct diag failure; /* why the log-in failed */
};

/* Keeps what a ParameterStatus says: to be called by whoever reads the server's messages. */
struct wire_msg;
uint32_t server_pid(const struct server *s); /* of the server process */
void server_note_parameter(struct server *s, const struct wire_msg *m);

/* Begins to log in with a libpq connection string (its host should be numeric or a path: a name is resolved by libpq
 * with a blocking call) and the settings in keys/values (NULL-terminated, they win over the string's). timeout_ms bounds the
 * whole log-in. Never NULL: what fails at once is told through on_open, too. */
struct server *server_open(struct loop *l, const char *conninfo, const char *const *keys, const char *const *values, int64_t timeout_ms,
    const struct server_ops *ops, void *user);

/* The same without libpq, which cannot log in without a password: with keys, copied and wiped once logged in. host and port, user, and
 * TLS are the connection string's, but for *user*. */
struct server *server_open_native(struct loop *l, const char *conninfo, const char *user, const struct server_keys *keys, int64_t timeout_ms,
    const struct server_ops *ops, void *holder);

/* Takes a READY server that owes nothing off its loop, and puts it on another, whose thread must make the second call. */
void server_park(struct server *s);
void server_unpark(struct server *s, struct loop *l);

/* Sends a cancel request for what runs on it, from another thread (PQcancel blocks). *done* is called on the loop, unless the
 * server was closed meanwhile. */
void server_cancel(struct server *s, void (*done)(struct server *s));

/* Ends the connection (with Terminate if nothing is half sent) and frees *s between two events. No callback follows. */
void server_close(struct server *s);

#endif
