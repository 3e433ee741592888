/* SPDX-License-Identifier: BSD-2-Clause */
/* auth_query - a worker's look-ups of users' secrets in a database, for users whom auth_file does not name.
 *
 * The statement is the configuration's, the name goes as its parameter, and the connections are auth_user's, of pools of their
 * own: no client's session has ever touched them, so none of its settings (search_path, …) bears on the answer (CVE-2025-12819).
 * Answers are kept for a while, "nobody" too; who asks for what is being asked already waits for the same answer.
 * Owner: the worker.  Thread: its worker's. */
#ifndef PGSPAN_AUTH_QUERY_H
#define PGSPAN_AUTH_QUERY_H

#include "pgspan/config.h"
#include "pgspan/names.h"
#include "pgspan/pool.h"

struct userlist;

struct auth_queries {
	struct loop *loop;
	struct names sources; /* who asks where → struct source */
	struct names answers; /* database, user → struct answer */
	struct dlist by_age;  /* answers, oldest first */
};

void auth_queries_init(struct auth_queries *q, struct loop *l);
/* Ends the connections (the loop still exists, nobody waits any more); then frees all. */
void auth_queries_close(struct auth_queries *q);
void auth_queries_fini(struct auth_queries *q);
void auth_queries_tidy(struct auth_queries *q); /* every second or so */
void auth_queries_forget(struct auth_queries *q); /* the configuration has changed */

/* Somebody who asks. */
struct auth_ask {
	struct dlist link;
	bool waits;
	void *arg; /* the asker's */
	/* RC_OK: *found*, a list of one, is the callee's reference; NULL: nobody of that name, or without a password. RC_FAIL: it could
	 * not be found out; why is *d*'s, for the log. Never from inside auth_query_ask(). */
	void (*on_answer)(struct auth_ask *a, enum rc rc, struct userlist *found, const struct diag *d);
};

/* Whether the users of a database are asked for. */
bool auth_query_is_on(const struct config *cfg, const char *database);
/* RC_OK: *found* is known from *age_ms* ago (as on_answer's); RC_AGAIN: on_answer will be called; RC_FAIL: auth_dbname or the
 * database does not exist: nobody is known. *fresh*: an answer that is older than a second is not good enough. */
enum rc auth_query_ask(struct auth_queries *q, const struct config *cfg, const char *database, const char *user, bool fresh,
    struct auth_ask *a, struct userlist **found) WARN_UNUSED;
void auth_query_cancel(struct auth_ask *a); /* if it waits */
/* A login has failed by an answer: if that was old, the next one asks anew. */
void auth_query_doubt(struct auth_queries *q, const struct config *cfg, const char *database, const char *user);

#endif
