/* SPDX-License-Identifier: BSD-2-Clause */
/* session_int - what the files of session/ share.
 *
 *   session.c     begin and end, states, dispatch of input, timers, cancel
 *   login.c       startup packets, the welcome
 *   login_auth.c  how a client proves who it is
 *   query.c       the simple Query
 *   group*.c      the extended protocol: Parse … Sync looked at together, then sent (see group_int.h)
 *   stmts.c       the client's statements and portals
 *   leg.c         servers: getting, linking, giving back; the relay's side of things
 *   piece.c       a group that belongs to several shards, run piece by piece
 *   fan.c         several servers for one statement, and the end of a block that several have met
 *   copy_fan.c    COPY FROM, each row to its shard
 *   sql_prepare.c PREPARE and EXECUTE as SQL, on a sharded database
 *   meaning.c     what names and strings mean in the session; plans
 *   txn.c         what statements do to the session: transactions, pins
 *   settings.c    what the client has SET
 *   pins.c        why it keeps its server
 *   sequence.c    currval() and lastval()
 *   replication.c clients that speak the replication protocol
 *   limits.c      clients that stay too long in one state
 */
#ifndef PGSPAN_SESSION_INT_H
#define PGSPAN_SESSION_INT_H

#include "pgspan/auth.h"
#include "pgspan/msg.h"
#include "pgspan/relay.h"
#include "pgspan/router.h"
#include "pgspan/session.h"
#include "pgspan/startup.h"

#define SESSION_MAGIC 0x53455353u

enum session_state {
	SESSION_STARTUP, /* no server; only startup packets; client_login_timeout */
	SESSION_AUTH,    /* no server; only password messages; client_login_timeout */
	SESSION_ASKING,  /* the same, but a thread or a server is asked about the user: input waits */
	SESSION_REFUSING, /* its error is held back: input is not read any more */
	SESSION_WELCOME, /* logged in; a server is asked for its parameters */
	SESSION_READY,   /* statements */
	SESSION_CLOSED,  /* on the loop's list of doomed; nothing points to it */
};

enum session_tx {
	TX_IDLE,
	TX_HELD,        /* BEGIN was answered, no server has seen it */
	TX_HELD_FAILED, /* and something has failed since */
	TX_OPEN,        /* the leg's server is in the block; it knows whether it has failed */
};

/* A prepared statement as the client knows it. */
struct stmt {
	int refs;
	struct stmt_id id;  /* of text and types, and of what the text meant when it was made */
	uint64_t epoch;     /* fleet_ddl_epoch() when it was made */
	uint64_t shape;     /* hash of the RowDescription that the client was told; 0: it was not */
	bool named;
	bool changed;       /* its result would have another shape now: it cannot be run any more */
	struct plan_entry *plan; /* NULL until planned, or planned under another environment */
	uint64_t plan_env;
	uint16_t n_types;
	uint32_t *types;
	struct span text;   /* owned, behind the struct */
	char data[];
};

#define PORTAL_NOWHERE (-1)
#define PORTAL_SPREAD (-2) /* several shards have filled it: it cannot be gone on with */

struct portal {
	struct stmt *stmt; /* NULL: it is spread */
	int shard;
};

/* What a statement does to the session once it has succeeded. Referenced by the FIFO entry that it was sent with. */
struct effect {
	struct plan_entry *plan;
	int part;      /* STMT_MULTI: the next part whose CommandComplete is awaited */
	size_t len;
	char text[];   /* the statement's, for settings to be replayed */
};

/* What a FIFO entry's ref points to: one of these, told apart by the entry's kind. */
/*   REPLY_PARSE, REPLY_CLOSE, a faked REPLY_EXECUTE: struct naming (group.c); REPLY_EXECUTE, REPLY_QUERY: struct effect; or NULL */

struct setting {
	struct dlist link;
	bool local;      /* SET LOCAL: over with the transaction; kept only where it changes what texts mean */
	bool initial;    /* of the startup packet: what RESET goes back to */
	char *name;      /* folded */
	char *sql;       /* replayed by this text */
};

struct savepoint {
	struct dlist link;
	char *name;
	int n_pending;   /* settings pending when it was made */
};

struct leg {
	struct session *session;
	struct server *server; /* NULL: none */
	struct relay relay;
	struct pool_waiter waiter;
	int shard, number;   /* which server of the database; number 0: the primary */
	bool copy_in;        /* the server waits for copy data */
	bool unsynced;       /* messages were sent since the last Sync: an implicit transaction may be open */
	bool ran;            /* a Bind or Execute is among them: what else there is has no effect on data */
	bool failed;         /* no server could be had: *failure says why; leg_attach() tells it once */
	struct diag *failure; /* owned; NULL: there has been none */
	bool answers_begin;  /* an injected BEGIN has failed: its error is the client's */
	bool own_failed;     /* the same of any message that pgspan has put ahead of the client's */
	bool query_ignored;  /* and the client's Query behind it was ignored */
	bool linking;        /* the session's settings are being made on the server */
	struct names prepared; /* sharded: SQL-level statements it has; values are not used */
	bool in_block;       /* the block has been opened on it */
	bool wrote;          /* it takes part in two-phase commit */
	struct fan *fan;     /* whose exchange it takes part in; NULL: the relay's */
	int fan_place;
	bool lost;           /* the server is gone or broke the protocol: see leg_settle() */
	bool flushed;        /* leg_flush_answers() was called since the last message */
	bool need_sync;      /* a Query was swallowed after an injected BEGIN had failed */
	bool withheld;       /* the client waits for a ReadyForQuery until what a RESET goes back to has been made */
	bool said_fatal;     /* the server's own FATAL has been forwarded */
	int copy_syncs;      /* Syncs sent while copying in, which the server ignores unless the copy has failed by then */
	struct wbuf saved;   /* a read's messages, to be run elsewhere if the replica is lost before it answered */
};

struct session {
	uint32_t magic;
	enum session_state state;
	struct session_env *env;
	struct dlist link; /* env->sessions */
	struct doomed doomed;
	struct conn conn;
	ev_timer timer;    /* login, or waiting for a server */
	ev_tstamp since;   /* see limits.c */
	ev_tstamp tx_since;
	bool is_unix;
	bool counted;      /* in env->n_clients */
	bool admitted;     /* among the tenant's clients */
	bool busy;         /* input is being processed up the stack: do not enter again */

	/* login */
	struct config *cfg;
	struct arena *login_arena;
	struct startup *startup;
	struct login_auth *auth; /* NULL before and after */
	bool direct_tls;   /* TLS began without an SSLRequest */

	struct tenant *tenant;
	struct replication *replication; /* NULL: an ordinary client */
	char *user;
	uint32_t key_slot;
	unsigned char key[4];

	/* statements */
	struct names sql_prepared; /* sharded: SQL-level statements, name → the PREPARE's text (char *) */
	struct names stmts;    /* named */
	struct dlist namings;  /* Parses and Closes of named and unnamed statements that have no answer yet, pgspan's own too: struct naming */
	struct failed_name *failed_name; /* the last name that was lost: errors may speak of it still; NULL: none */
	struct stmt *unnamed;
	struct stmt *portal;   /* what the unnamed portal is bound to */
	int portal_shard;      /* and where it is; or PORTAL_* */
	struct names portals;  /* named ones, struct portal */
	struct names cursors;  /* sharded: cursors of DECLARE, and the shard of each (int) */
	bool cut;              /* sharded: a group runs piece by piece, see piece.c; an error skips what is left of it */
	bool implicit;         /* and the block that it runs in is pgspan's own: it ends with the client's Sync */
	uint64_t stream_left;  /* of a copy message that is passing through */
	bool stream_forward;
	bool skip_to_sync;     /* an error of pgspan's own in a group: all up to Sync is dropped */
	bool wait_cancelled;   /* a cancel came while waiting for a server */
	bool leaving;          /* Terminate came, or draining: closes when the leg is back */

	/* transaction and settings */
	enum session_tx tx;
	char *begin_sql;       /* the held BEGIN's text */
	bool begin_read_only;
	unsigned pins;         /* enum pin_reason */
	bool discards;         /* DISCARD ALL has run since the last ReadyForQuery */
	bool restored;         /* session->restore has been put into the batch */
	bool pins_doubtful;    /* a reason may be gone at the end of this transaction */
	struct dlist settings; /* committed; this and the next two: see settings.c */
	struct dlist initial;
	struct dlist pending;  /* made in this transaction */
	struct dlist savepoints;
	uint64_t settings_hash; /* of the committed ones; 0: none */
	char *restore;         /* a RESET has passed: what must be made again before anything else runs; owned, NULL: nothing */
	bool holds;            /* a statement is under way that changes what others mean: nothing is sent behind it before its answer */
	struct meaning *meaning; /* meaning.c; NULL: the defaults */
	uint64_t meaning_salt;
	bool meaning_stale;
	bool serializable;     /* the default isolation level may be */
	bool waits_catalog;    /* see query_must_wait_for_catalog() */
	int catalog_tries;
	bool ddl_pending;      /* DDL has run in this transaction */
	bool failed_now;       /* an ErrorResponse came since the last ReadyForQuery */

	/* Servers. *leg* is the one that the next statement goes to; on a sharded database each shard has one of its own, and
	 * those that a block has met stay until it ends. */
	struct leg *leg;
	struct leg first_leg;  /* the only one of an unsharded database */
	struct leg **by_shard; /* sharded: a leg for each shard, made when it is first met; else NULL */
	struct dlist preamble; /* struct setting without names: what a leg that joins the block later is told first */
	struct fan *fan;       /* several legs work for one statement: see fan.c; NULL: none do */
	uint64_t sequence_2pc; /* names this session's prepared transactions */
};

/* session.c */
struct session *session_checked(struct session *s);
/* Ends the session: flushes what can be flushed, gives the leg back or breaks it off. *s* is freed later. */
void session_close(struct session *s, const char *why);
/* Sends FATAL and ends. */
void session_fatal(struct session *s, const struct diag *d);
struct dlist *session_after(struct session_env *env, struct dlist *next); /* *next*, or the first again if it has been closed */
void session_process(struct session *s); /* looks at input again */
/* What BackendKeyData gives as the process ID. */
uint32_t session_pid(const struct session *s);
/* ReadyForQuery's status as the client is to see it now. */
char session_status(struct session *s);
/* Sends ERROR; in a group the rest up to Sync will be skipped; a block fails. ReadyForQuery is the caller's. */
void session_error(struct session *s, const struct diag *d, bool in_group);
void session_put(struct session *s, struct wbuf *w); /* sends and frees */
int64_t session_now_ms(const struct session *s);

/* login.c: each returns false when more input is needed or the session is over. */
bool login_startup(struct session *s);
void login_fatal(struct session *s, const char *sqlstate, const char *message, const char *hint);
bool login_authenticated(struct session *s); /* the client is who it says */
/* login_auth.c: the same. */
bool login_begin_auth(struct session *s);
bool login_auth(struct session *s);
void login_refuse(struct session *s); /* the time of SESSION_REFUSING is over */
/* What to log in to servers with: a password (NULL: none is known), or keys in its place. */
const char *login_secrets(const struct session *s, struct server_keys *keys);
void login_auth_fini(struct session *s);
void login_welcome(struct session *s); /* a server is there, or the parameters are known already */
void login_fini(struct session *s);

/* query.c, group.c: process what is at the front of the input. RC_OK: something was consumed; RC_AGAIN: wait (for input, a
 * server, or answers). */
enum rc query_process(struct session *s, const struct wire_msg *m);
enum rc group_process(struct session *s);
/* Sharded databases: DDL was seen and the catalog has not been loaded since; session_process() will be called. */
bool query_must_wait_for_catalog(struct session *s);
/* To be called when there is nothing to wait for any more: true, *d*: the wait was cancelled. */
bool query_wait_was_cancelled(struct session *s, struct diag *d);
enum route_status query_route(struct session *s, const struct plan *p, const struct route_values *v, struct target_set *t, struct diag *d);
/* sql_prepare.c: PREPARE, EXECUTE and DEALLOCATE on a sharded database. EXECUTE: where its statement must run, for these arguments. */
enum route_status sql_execute_route(struct session *s, const struct plan *p, struct span sql, struct target_set *t, bool *writes, struct diag *d);
/* Right before the statement is sent to the leg. */
void sql_prepare_done(struct session *s, const char *name, struct span sql); /* a PREPARE has succeeded */
void sql_prepare_ready(struct session *s, struct leg *l, const struct plan *p, struct span sql);
/* Whether a statement speaks of a block that legs are in, or will be, besides that of *shard* (-1: of any single one). */
bool query_is_for_all_legs(struct session *s, const struct plan *p, int shard);
bool query_is_control(const struct plan *p); /* it speaks of the block itself, or of the session */
bool query_is_ignored(struct session *s, const struct plan *p, struct diag *d);
/* True if the text only makes one setting, whose name is written to *name* (folded). */
bool query_is_set_config(struct span sql, char *name, size_t size);

/* piece.c */
/* A block of pgspan's own for what is sent until the client's Sync, unless the client has one. What s->leg has been sent since
 * its last Sync is in it, too. */
void piece_begin(struct session *s);
/* A Sync of pgspan's own behind what s->leg was sent: the next piece belongs to another. */
void piece_leave(struct session *s);
/* A piece is over and all has been answered: notes whether it has ended the block. */
void piece_settle(struct session *s);
/* The client's Sync (*told*: it is answered; false: a Query stands in for it) behind pieces. RC_AGAIN: wait. */
enum rc piece_sync(struct session *s, bool told);

void portals_clear(struct session *s);
/* A RowDescription or NoData of a statement (its ref); *check*: the client does not see it. */
void stmt_described(void *ref, const struct wire_msg *m, bool check);
/* A Parse or Close (its ref) has ended; *sent*: the server has seen it, or would have. */
void stmt_name_ended(struct leg *l, void *ref, enum reply_end end, bool sent);
/* The client's name for the statement that servers know under the name at *internal*. */
bool stmt_client_name(struct session *s, const char *internal, struct span *name);
/* EXECUTE, as SQL, of a statement that Parse made (in EXPLAIN, in CREATE TABLE AS, too), or PREPARE under its name: puts the text with the servers' name
 * for it, and makes sure that the leg's has it. False: it is no such text. */
bool group_execute_by_sql(struct leg *l, const struct plan *p, struct span sql, struct wbuf *w);

/* meaning.c */
bool meaning_is_serializable(struct session *s); /* transactions may be by default */
bool meaning_is_utf8(struct session *s); /* texts and parameters are UTF-8 */
uint64_t meaning_salt(struct session *s); /* differs between sessions in which the same bytes mean another text */
unsigned meaning_scan_flags(struct session *s); /* enum scan_flag, for texts of this session */
bool meaning_is_unknown(struct session *s, struct diag *d); /* names cannot be resolved: *d* refuses */
void meaning_free(struct session *s);

/* The plan of a text in the session's environment, with a reference. */
struct plan_entry *session_plan(struct session *s, struct span sql);
struct stmt *stmt_new(struct session *s, struct span text, const struct msg_parse *p);
struct stmt *stmt_ref(struct stmt *st);
void stmt_unref(struct stmt *st);
const struct plan *stmt_plan(struct session *s, struct stmt *st);

/* leg.c */
/* The server that a statement of this kind should go to: its number. Only while there is no leg. */
int leg_choose(struct session *s, bool read_only);
/* Gets a server. RC_OK: linked; RC_AGAIN: session_process() will be called; RC_FAIL: an error was sent (state as before). */
enum rc leg_attach(struct session *s, int shard, int number, struct diag *d);
/* Opens the block on the leg's server, if it is not open there: to be called right before its first statement is sent. */
void leg_begin(struct session *s, struct leg *l);
/* Sends a statement of pgspan's own, whose answer nobody wants, ahead of what comes next. */
void leg_tell(struct leg *l, struct span sql);
/* Whether a FIFO entry's ref marks a statement of leg_begin(), leg_begin_implicit() or leg_tell(). */
bool leg_is_begin(const void *ref);
/* Opens a block of pgspan's own, for a statement that several shards must do together or not at all. */
void leg_begin_implicit(struct leg *l);
/* The same in the middle of a batch of the extended protocol. */
void leg_restore_in_batch(struct leg *l);
/* Makes session->restore again on every leg, if there is any; *ok* false: it is forgotten, for the RESET was rolled back. */
bool leg_restore(struct session *s, bool ok);
void leg_init(struct session *s, struct leg *l);
/* The leg has no server any more; the caller has given it away. What the leg wrote in the block stays known. */
void leg_forget_server(struct leg *l);
/* Why no server could be had: the caller fills it in. */
struct diag *leg_failed(struct leg *l);
/* The leg of a shard becomes s->leg. The one before must be quiet. */
struct leg *leg_use(struct session *s, int shard);
/* Calls fn for each leg that has a server. */
void leg_each(struct session *s, void (*fn)(struct leg *l, void *arg), void *arg);
int leg_count(struct session *s);
/* The shard of a leg that has a server; -1: there is none. */
int leg_any_shard(struct session *s);
/* Sends a Query whose answers are the relay's or a fan's. */

void leg_cancel_wait(struct session *s);
void leg_wait_timeout(struct session *s);
void leg_request_cancel(struct session *s);
void leg_resume(struct session *s); /* the client can take more */
bool leg_is_quiet(const struct session *s); /* s->leg owes nothing */
bool leg_owes_nothing(const struct session *s);  /* all has been answered, though the server may wait for a Sync */
bool leg_ignores_input(const struct session *s); /* s->leg's server waits for a Sync after an error, and owes nothing */
bool legs_are_quiet(struct session *s);
/* A cancel is on its way to a server that does nothing any more: what comes next must not be hit by it. */
bool leg_awaits_cancel(struct session *s);
/* Asks the server for the answers to what was sent without a Sync. */
void leg_flush_answers(struct session *s);
/* After relaying: gives the server back, or deals with its loss. */
void leg_settle(struct session *s);
/* Breaks off whatever runs. */
void leg_abandon(struct session *s);
void leg_fail_block(struct session *s, bool in_group);
void leg_save(struct leg *l, struct span bytes);

/* fan.c. Each: RC_OK: begun, what is needed of the message was copied, it is to be consumed and then fan_continue() called;
 * RC_FAIL: refused, *d*. */
enum rc fan_query(struct session *s, struct plan_entry *e, struct span sql, const struct target_set *t, struct diag *d);
struct fan_how {
	const struct wbuf *before; /* answers that come ahead (ParseComplete, BindComplete) */
	bool describe;    /* the client wants the RowDescription */
	bool more;        /* its Sync does not stand behind it */
	int32_t max_rows; /* 0: all */
};
enum rc fan_bind(struct session *s, struct stmt *st, const struct msg_bind *b, const struct route_values *v, const struct target_set *t,
    const struct fan_how *how, struct diag *d);
void fan_continue(struct session *s);
void fan_input(struct leg *l);
void fan_drained(struct session *s);
void fan_abandon(struct session *s);
/* fan_end.c: a statement that ends or marks a block that several legs are in. */
enum rc fan_control(struct session *s, struct plan_entry *e, struct span sql, const struct wbuf *before, bool more, struct diag *d);
/* Ends the block that pgspan has opened for pieces (s->implicit), all legs being quiet; *told*: with a ReadyForQuery. */
void fan_end_pieces(struct session *s, bool failed, bool told);
/* copy_fan.c: whether CopyData is taken from the client now; taking one message, of which *n* bytes are there. */
bool fan_takes_copy(const struct session *s);
void fan_copy(struct session *s, char type, struct span body);

/* txn.c */
struct effect *effect_new(struct plan_entry *plan, struct span text); /* NULL: it has none */
void effect_free(struct effect *e);
/* Whether what stands behind the statement must wait for its answer: it resets what the startup packet has set, drops all
 * prepared statements, or makes one by SQL. */
bool txn_holds(const struct session *s, const struct plan *p);
/* One statement has succeeded; its tag. */
void txn_command(struct session *s, struct effect *e, struct span tag);
/* A ReadyForQuery came: the block or implicit transaction may be over. */
void txn_ready(struct session *s, char status);
/* Whether a BEGIN is held now: there is more than one server that its first statement may belong to. */
bool txn_holds_begin(const struct session *s);
void txn_begin_held(struct session *s, const struct plan *p, struct span sql);
void txn_forget_held(struct session *s);
/* replication.c: a server connection of its own. RC_FAIL: refused, *d*. */
enum rc replication_begin(struct session *s, struct diag *d);
struct pool *replication_pool(const struct session *s);
void replication_end(struct session *s); /* when no leg has the server any more */
/* sequence.c */
/* Whether what currval() and lastval() tell is this session's own. *advanced*: a sequence may have been advanced in the
 * transaction, on the server that the statement goes to; it becomes true when the statement does. False: *d* says why. */
bool sequence_is_known(const struct session *s, const struct plan *p, bool *advanced, struct diag *d);
/* limits.c */
void limits_note(struct session *s);       /* input came, or something has ended */
void limits_note_ready(struct session *s); /* a ReadyForQuery came */
/* pins.c */
void pins_note(struct session *s, const struct plan *p); /* a statement has succeeded */
/* At the end of a transaction: the query that tells which reasons are left; NULL: it need not be asked. */
const char *pins_audit(struct session *s);
void pins_audited(struct session *s, const struct wire_msg *row); /* its answer */
/* settings.c */
struct setting *setting_new(const char *name, struct span sql);
bool setting_is_role(const char *name); /* not undone by RESET ALL */
void settings_add_initial(struct session *s, const char *name, struct span sql);
void settings_commit(struct session *s);
void settings_drop_pending(struct session *s, int keep); /* all but the first *keep* */
void settings_discard(struct session *s); /* DISCARD ALL, pending: what the startup packet said holds again, the role included */
void settings_clear(struct dlist *list);
/* The text that makes the startup packet's setting of that name; NULL: it had none. */
const char *settings_initial(const struct session *s, const char *name);
/* Adds what makes all settings that hold. True: a role is among them. */
bool settings_put_all(const struct session *s, struct wbuf *w);
/* What makes the startup packet's setting of that name; NULL: all, but the role. */
void settings_put_initial(const struct session *s, const char *name, struct wbuf *w); /* one SELECT */
void txn_fini(struct session *s);

#endif
