/* SPDX-License-Identifier: BSD-2-Clause */
/* group_int - what the files of the extended protocol share.
 *
 *   group.c       the way in: which server, what is answered here, what several shards must do together
 *   group_look.c  a group's messages looked at before any is sent; where it must be cut into pieces
 *   group_send.c  its messages sent, each statement under the server's name for it
 *   stmts.c       the client's statements and portals, and what its names mean while answers are awaited */
#ifndef PGSPAN_GROUP_INT_H
#define PGSPAN_GROUP_INT_H

#include "session_int.h"

#include "pgspan/arena.h"

/* What the entry of a Parse or Close in the FIFO refers to. A name changes when the message is sent, and is as before again if
 * the server has ignored it. */
struct naming {
	struct dlist link;   /* in session->namings, oldest first */
	struct stmt *stmt;   /* what the name means now; NULL: it was closed */
	struct stmt *before; /* what it meant; NULL: nothing */
	bool of_client;      /* the client's own message: the name is one of its names */
	bool only_judged;    /* the server has it already: it was parsed once more, without a name, to see whether it may be now */
	size_t len;
	char name[];         /* of a Parse of pgspan's own: the server's */
};

/* Entries for the FIFO: to be handed to stmt_name_ended() by it. The second changes what the client's name means. */
struct naming *naming_new(struct session *s, struct stmt *st, struct span name);
struct naming *stmt_rename(struct session *s, struct span name, struct stmt *st);
/* The client's name for a statement is lost, but an error that is still to come may speak of it. */
void stmt_note_lost(struct session *s, struct stmt_id id, struct span name);
/* The name on servers under which a statement stands for *name*, which is taken: see take_a_name(). */
struct stmt_id stmt_taken_id(struct span name);
/* In tenant->known: a statement means the same only under the same settings. */
struct stmt_id stmt_known_id(const struct session *s, struct stmt_id id);
/* NULL: there is none of that name. */
struct stmt *stmt_find(const struct session *s, struct span name);
/* Whether the answer to a message that was sent decides what the name means, or whether the server has its statement. */
bool stmt_is_unsure(const struct session *s, struct span name);
void portal_bind(struct session *s, struct span portal, struct stmt *st);
struct stmt *portal_stmt(const struct session *s, struct span portal);
void portal_free(void *value);
/* The shard that a portal was made on; -1: there is none of that name. */
int portal_shard(const struct session *s, struct span portal);

struct group {
	size_t bytes;   /* of whole messages */
	int n;
	char end;       /* S, H, or 0: more is to come */
	bool read_only; /* all its statements are */
	bool only_begin, only_end; /* all it executes is BEGIN, or COMMIT or ROLLBACK */
	bool only_parse;           /* nothing but Parse and Sync */
	const struct plan *plan;   /* of the last statement named */
	struct stmt *stmt;
	/* sharded databases */
	struct arena mem;          /* the values below */
	int n_binds, n_executes;
	bool describe_portal, describe_statement;
	int32_t max_rows;          /* of the last Execute */
	int shard;                 /* which its messages belong to; -1: any, so far */
	bool malformed, pins;
	bool stale;                /* it names a statement that is older than some DDL */
	bool unsure;               /* it names a statement whose making or closing has no answer yet */
	bool for_all;              /* a statement that ends or marks a block of several legs */
	struct msg_bind bind;      /* the last one */
	struct route_values values;
	struct target_set targets; /* of a special one */
	/* What belongs elsewhere is cut off: it is the next piece (piece.c). */
	bool cut;
	size_t placed_to;  /* where the last message ends that belongs to some shard; 0: there is none */
	bool special;      /* its statement is for several shards, or a BEGIN or end of a block that no leg has seen */
	bool odd;          /* special, but not Bind, Describe, Execute of one portal */
	bool has_unnamed;  /* it binds the unnamed portal */
	bool writes, copies;
};

/* The statements that the group's Parse messages make. */
struct look {
	struct stmt **made; /* of the group's Parse messages, in order */
	struct span *names;
	int n, cap;
};
void look_fini(struct look *k);

/* The group's extent. RC_AGAIN: it is not whole yet. */
enum rc group_measure(struct session *s, struct group *g);
/* Walks its messages; *at starts at 0. */
bool group_next(struct session *s, size_t *at, const struct group *g, struct wire_msg *m);
/* Looks at all of it; see struct group. */
enum route_status group_look(struct session *s, struct group *g, struct look *k, struct diag *d);

/* Sends the group. False: a message is malformed, the connection is over. */
bool group_send(struct session *s, const struct group *g);
/* A statement that is made anew on a server behind DDL may give other rows than the client was told when it had it described:
 * PostgreSQL refuses to run it then (0A000), so its description is looked at before anything that uses it is sent. RC_AGAIN: asked. */
enum rc group_check_stale(struct session *s, struct leg *l, const struct group *g, struct diag *d);

#endif
