/* SPDX-License-Identifier: BSD-2-Clause */
/* twophase_recover - see pgspan/twophase.h: what the monitor does about transactions that were left prepared.
 *
 * One round over a database, in an order that matters:
 *
 *   1. read the decisions of other runs, on every shard
 *   2. list what is prepared, on every shard
 *   3. for each of it that has no session: find or make its decision, then COMMIT PREPARED or ROLLBACK PREPARED
 *   4. delete the decisions of 1 to commit which nothing of 2 needs, if every shard could be listed
 *
 * A decision to commit is only written when every participant has answered PREPARE TRANSACTION. So what 1 saw decided was
 * prepared everywhere before 2, and if 2 finds it nowhere, all is done: 4 can't take the row from somebody who needs it.
 *
 * Rolling back is where a mistake would be made: that no decision is there does not mean that none will come, for a backend
 * of a dead process may still be about to insert it. So a tombstone goes under the same primary key first. The INSERT waits
 * for one in flight; what is there afterwards is the answer, for us and for all others, and it is flushed. A PREPARE that
 * comes later than the list is found by a later round, and its tombstone is there still: they are kept for a day.
 *
 * All of this holds when the "dead" process lives on, or when two recover at once: each step either does the same as the
 * other's or fails with 42704, 23505 or 55000. That is why what this very process has left prepared for STALE is looked
 * after too: a session that waits that long can stand it. */
#include "pgspan/twophase.h"

#include "pgspan/log.h"
#include "pgspan/names.h"

#include <errno.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>

#define ANSWER_MS 3000
#define SOON_MS 3000
#define IDLE_MS 60000
#define STALE "60 s"
#define TOMBSTONE_KEPT "1 day"
#define DELETE_BATCH 500

/* Whatever the monitor's role has set as defaults. The time limit is less than ANSWER_MS: an INSERT that waits for a
 * dead session's must not be left behind, waiting. */
#define WRITE_BLOCK                                                                                                                \
	"SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; SET LOCAL synchronous_commit TO on;"                           \
	" SET LOCAL statement_timeout = 2500; "

#define MAKE_TABLE                                                                                                                 \
	WRITE_BLOCK "SELECT pg_advisory_xact_lock(123589620687214);" /* "pgspan": others may be creating it too */                  \
	            " SET LOCAL client_min_messages = warning; CREATE SCHEMA IF NOT EXISTS pgspan;"                                                                          \
	            " CREATE TABLE IF NOT EXISTS pgspan.decision"                                                                   \
	            " (gid text PRIMARY KEY, commit boolean NOT NULL, at timestamptz NOT NULL DEFAULT now());"                      \
	            " GRANT USAGE ON SCHEMA pgspan TO PUBLIC; GRANT INSERT ON pgspan.decision TO PUBLIC"

/* Handed over by a worker. */
struct item {
	char *database;
	struct gid gid;
	enum twophase_outcome outcome;
	bool finished; /* only the row is to go */
	bool fresh;    /* no round has seen it */
};

struct items {
	struct item *v;
	size_t n, cap;
};

struct schedule {
	int64_t due_ms;
	int left; /* as last logged */
};

struct twophase {
	struct items items;     /* the monitor's own */
	struct names schedules; /* database → struct schedule */
	struct names warned;    /* what needs no second warning */
	struct {
		pthread_mutex_t lock;
		struct items items;
	} shared;
};

/* Prepared on a shard. */
struct found {
	struct gid gid;
	struct gid_parts parts;
	int at; /* index in shards */
	bool stale;
	bool resolved;
	char *owner; /* quoted */
};

struct decision {
	struct gid gid;
	int at; /* index in shards of the table */
	bool commit;
};

struct round {
	struct twophase *t;
	const char *database, *instance;
	struct twophase_shard *shards;
	int n;
	bool primary[MAX_SHARDS], table[MAX_SHARDS]; /* it answers as one; it has the table */
	bool all;                                    /* every shard was listed */
	struct found *found;
	size_t n_found;
	struct decision *decisions;
	size_t n_decisions;
	char why[256]; /* something was left for later */
};

static int64_t
now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- queries --- */

/* The first bad result of the statements, else the last one. NULL: no answer in time, and the connection is lost. */
static PGresult *
ask(struct twophase_shard *s, const char *sql)
{
	if (!s->conn || s->lost)
		return NULL;
	int64_t until = now_ms() + ANSWER_MS;
	PGresult *r = NULL, *next;
	if (!PQsendQuery(s->conn, sql))
		goto lost;
	for (;;) {
		while (PQisBusy(s->conn)) {
			struct pollfd p = {.fd = PQsocket(s->conn), .events = POLLIN};
			int64_t left = until - now_ms();
			if (left <= 0 || (poll(&p, 1, (int)left) == -1 && errno != EINTR) || !PQconsumeInput(s->conn))
				goto lost;
		}
		if (!(next = PQgetResult(s->conn)))
			break;
		if (r && PQresultStatus(r) == PGRES_FATAL_ERROR) {
			PQclear(next);
		} else {
			PQclear(r);
			r = next;
		}
	}
	if (PQstatus(s->conn) != CONNECTION_BAD)
		return r;
lost:
	s->lost = true;
	PQclear(r);
	return NULL;
}

static bool
is_good(const PGresult *r)
{
	return r && (PQresultStatus(r) == PGRES_TUPLES_OK || PQresultStatus(r) == PGRES_COMMAND_OK);
}

static const char *
sqlstate_of(const PGresult *r)
{
	const char *code = r ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : NULL;
	return code ? code : "";
}

/* For logs: why *r* is not good. */
static const char *
reason_of(const PGresult *r)
{
	const char *text = r ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	return text ? text : "no answer";
}

static bool
is_true(const PGresult *r, int row, int column)
{
	return PQgetvalue(r, row, column)[0] == 't';
}

/* As ask(), but only good results come through. */
static PGresult *
ask_rows(struct twophase_shard *s, const char *sql)
{
	PGresult *r = ask(s, sql);
	if (is_good(r))
		return r;
	log_warning("two-phase commit: %s: %s", s->label, reason_of(r));
	PQclear(r);
	return NULL;
}

int
twophase_capacity(struct pg_conn *conn)
{
	struct twophase_shard s = {.conn = conn};
	PGresult *r = ask(&s, "SHOW max_prepared_transactions");
	int n = is_good(r) && PQntuples(r) == 1 ? (int)strtol(PQgetvalue(r, 0, 0), NULL, 10) : -1;
	PQclear(r);
	return n;
}

/* --- what workers hand over --- */

static void
items_add(struct items *i, struct item item)
{
	if (i->n == i->cap) {
		i->cap = i->cap ? i->cap * 2 : 16;
		i->v = xrealloc(i->v, i->cap * sizeof *i->v);
	}
	i->v[i->n++] = item;
}

static void
hand_over(struct twophase *t, struct item item)
{
	pthread_mutex_lock(&t->shared.lock);
	items_add(&t->shared.items, item);
	pthread_mutex_unlock(&t->shared.lock);
}

void
twophase_in_doubt(struct twophase *t, const char *database, const struct gid *g, enum twophase_outcome outcome)
{
	hand_over(t, (struct item){.database = xstrdup(database), .gid = *g, .outcome = outcome, .fresh = true});
}

void
twophase_finished(struct twophase *t, const char *database, const struct gid *g)
{
	hand_over(t, (struct item){.database = xstrdup(database), .gid = *g, .outcome = TWOPHASE_COMMITTED, .finished = true});
}

static void
take_items(struct twophase *t)
{
	pthread_mutex_lock(&t->shared.lock);
	for (size_t i = 0; i < t->shared.items.n; i++)
		items_add(&t->items, t->shared.items.v[i]);
	t->shared.items.n = 0;
	pthread_mutex_unlock(&t->shared.lock);
}

/* The in-doubt item of this transaction, or NULL. */
static struct item *
item_of(const struct round *r, const struct gid *g)
{
	for (size_t i = 0; i < r->t->items.n; i++) {
		struct item *it = &r->t->items.v[i];
		if (!it->finished && strcmp(it->gid.text, g->text) == 0 && strcmp(it->database, r->database) == 0)
			return it;
	}
	return NULL;
}

struct twophase *
twophase_new(void)
{
	struct twophase *t = xcalloc(1, sizeof *t);
	pthread_mutex_init(&t->shared.lock, NULL);
	twophase_run();
	return t;
}

static void
items_free(struct items *i)
{
	for (size_t k = 0; k < i->n; k++)
		free(i->v[k].database);
	free(i->v);
}

void
twophase_free(struct twophase *t)
{
	items_free(&t->items);
	items_free(&t->shared.items);
	names_clear(&t->schedules, free);
	names_clear(&t->warned, NULL);
	pthread_mutex_destroy(&t->shared.lock);
	free(t);
}

/* --- deleting rows --- */

/* Deletes the decisions to commit of gids[0..n) on one shard. */
static bool
delete_decisions(struct twophase_shard *s, const struct gid *const *gids, size_t n)
{
	for (size_t i = 0; i < n; i += DELETE_BATCH) {
		char *sql;
		size_t len;
		FILE *f = open_memstream(&sql, &len);
		if (!f)
			log_fatal("out of memory");
		fputs(WRITE_BLOCK "DELETE FROM pgspan.decision WHERE commit AND gid = ANY ('{", f);
		for (size_t k = i; k < n && k < i + DELETE_BATCH; k++)
			fprintf(f, "%s%s", k > i ? "," : "", gids[k]->text);
		fputs("}')", f);
		fclose(f);
		PGresult *r = ask_rows(s, sql);
		free(sql);
		if (!r)
			return false;
		PQclear(r);
	}
	return true;
}

static bool
is_coordinator(const struct twophase_shard *s, const struct gid *g)
{
	struct gid_parts p;
	return gid_parse(g->text, &p) && p.shard == s->number;
}

/* The rows of transactions that are over everywhere. */
static void
sweep_finished(struct twophase *t, const char *database, struct twophase_shard *shards, int n)
{
	struct items *items = &t->items;
	const struct gid **gids = xmalloc((items->n + 1) * sizeof *gids);
	for (int i = 0; i < n; i++) {
		struct item *last = items->v;
		size_t n_gids = 0;
		for (size_t k = 0; k < items->n; k++) {
			struct item *it = &items->v[k];
			if (it->finished && strcmp(it->database, database) == 0 && is_coordinator(&shards[i], &it->gid))
				gids[n_gids++] = &it->gid;
		}
		if (n_gids == 0 || !delete_decisions(&shards[i], gids, n_gids))
			continue; /* what could not be deleted stays for the next time */
		for (size_t k = 0; k < items->n; k++) {
			struct item *it = &items->v[k];
			if (it->finished && strcmp(it->database, database) == 0 && is_coordinator(&shards[i], &it->gid))
				free(it->database);
			else
				*last++ = *it;
		}
		items->n = (size_t)(last - items->v);
	}
	free(gids);
}

/* --- a round --- */

static void
left_for_later(struct round *r, const char *why, const char *label)
{
	if (!r->why[0])
		snprintf(r->why, sizeof r->why, "%s: %s", label, why);
}

/* True once for each text. */
static bool
is_news(struct twophase *t, const char *what, const char *label)
{
	char key[256];
	snprintf(key, sizeof key, "%s\n%s", what, label);
	if (names_get(&t->warned, span_str(key)))
		return false;
	names_put(&t->warned, span_str(key), t);
	return true;
}

/* Is it a primary that can keep decisions? Makes the table if there is none. */
static void
look_at_shard(struct round *r, int i)
{
	struct twophase_shard *s = &r->shards[i];
	PGresult *q = ask(s, "SELECT NOT pg_is_in_recovery(), to_regclass('pgspan.decision') IS NOT NULL,"
	                     " current_setting('max_prepared_transactions')");
	if (is_good(q)) {
		r->primary[i] = is_true(q, 0, 0);
		r->table[i] = is_true(q, 0, 1);
		if (r->primary[i] && strcmp(PQgetvalue(q, 0, 2), "0") == 0 && is_news(r->t, "capacity", s->label))
			log_warning("database %s: shard %d (%s) has max_prepared_transactions = 0: transactions that write on it and on another shard will fail",
			            r->database, s->number, s->label);
	}
	PQclear(q);
	if (!r->primary[i] || r->table[i])
		return;
	q = ask(s, MAKE_TABLE);
	r->table[i] = is_good(q);
	if (r->table[i])
		log_info("database %s: made table pgspan.decision on shard %d (%s)", r->database, s->number, s->label);
	else if (is_news(r->t, "table", s->label))
		log_warning("database %s: cannot make table pgspan.decision on shard %d (%s): %s: transactions over several shards may fail", r->database,
		            s->number, s->label, reason_of(q));
	PQclear(q);
}

static void
keep_decision(struct round *r, const struct gid *g, int at, bool commit)
{
	r->decisions = xrealloc(r->decisions, (r->n_decisions + 1) * sizeof *r->decisions);
	r->decisions[r->n_decisions++] = (struct decision){*g, at, commit};
}

/* False: not a name of ours. */
static bool
take_gid(const char *text, struct gid *g, struct gid_parts *parts)
{
	if (!gid_parse(text, parts))
		return false;
	snprintf(g->text, sizeof g->text, "%s", text);
	return true;
}

/* Step 1. Decisions of this run are left out: there may be many, and sessions and the queue look after them. */
static void
read_decisions(struct round *r, int i)
{
	char sql[1024];
	snprintf(sql, sizeof sql, "SELECT gid, commit FROM pgspan.decision WHERE starts_with(gid, 'pgspan_%s_') AND NOT starts_with(gid, 'pgspan_%s_%" PRIx64 "_')",
	         r->instance, r->instance, twophase_run());
	PGresult *q = ask_rows(&r->shards[i], sql);
	for (int k = 0; q && k < PQntuples(q); k++) {
		struct gid g;
		struct gid_parts parts;
		if (take_gid(PQgetvalue(q, k, 0), &g, &parts) && strcmp(parts.instance, r->instance) == 0)
			keep_decision(r, &g, i, is_true(q, k, 1));
	}
	PQclear(q);
}

/* Step 2. */
static void
list_prepared(struct round *r, int i)
{
	PGresult *q = ask_rows(&r->shards[i], "SELECT gid, prepared < now() - interval '" STALE "', quote_ident(owner) FROM pg_prepared_xacts"
	                                      " WHERE database = current_database() AND starts_with(gid, 'pgspan_')");
	if (!q)
		r->all = false;
	for (int k = 0; q && k < PQntuples(q); k++) {
		struct found f = {.at = i, .stale = is_true(q, k, 1)};
		if (!take_gid(PQgetvalue(q, k, 0), &f.gid, &f.parts))
			continue;
		if (strcmp(f.parts.instance, r->instance) != 0 && !item_of(r, &f.gid))
			continue;
		f.owner = xstrdup(PQgetvalue(q, k, 2));
		r->found = xrealloc(r->found, (r->n_found + 1) * sizeof *r->found);
		r->found[r->n_found++] = f;
	}
	PQclear(q);
}

/* Makes it impossible that *g* is decided to commit, unless it is already: what is there then is kept. */
static bool
bury(struct round *r, const struct found *f)
{
	char sql[TWOPHASE_SQL_MAX];
	int i = 0;
	while (i < r->n && r->shards[i].number != f->parts.shard)
		i++;
	if (i == r->n) {
		left_for_later(r, "its coordinator is a shard that is not configured", f->gid.text);
		return false;
	}
	struct twophase_shard *s = &r->shards[i];
	if (!r->table[i]) {
		left_for_later(r, s->conn && !s->lost ? "it has no usable table pgspan.decision" : "the coordinator does not answer", s->label);
		return false;
	}
	snprintf(sql, sizeof sql, WRITE_BLOCK "INSERT INTO pgspan.decision (gid, commit) VALUES ('%s', false) ON CONFLICT (gid) DO NOTHING", f->gid.text);
	PGresult *q = ask(s, sql);
	if (is_good(q)) {
		PQclear(q);
		snprintf(sql, sizeof sql, "SELECT commit FROM pgspan.decision WHERE gid = '%s'", f->gid.text);
		q = ask(s, sql);
	}
	bool known = is_good(q) && PQntuples(q) == 1; /* no row: another pgspan has just finished it */
	if (known)
		keep_decision(r, &f->gid, i, is_true(q, 0, 0));
	else
		left_for_later(r, is_good(q) ? "its decision is being deleted" : reason_of(q), s->label);
	PQclear(q);
	return known;
}

/* False: it can't be known now. */
static bool
outcome_of(struct round *r, const struct found *f, bool *commit)
{
	const struct item *it = item_of(r, &f->gid);
	if (it && it->outcome != TWOPHASE_UNKNOWN) {
		*commit = it->outcome == TWOPHASE_COMMITTED;
		return true;
	}
	for (int pass = 0; pass < 2; pass++) {
		bool any = false;
		*commit = false;
		/* On whichever shard it stands: shards may have been renumbered since. */
		for (size_t i = 0; i < r->n_decisions; i++) {
			if (strcmp(r->decisions[i].gid.text, f->gid.text) != 0)
				continue;
			any = true;
			*commit |= r->decisions[i].commit;
		}
		if (any)
			return true;
		if (pass == 0 && !bury(r, f))
			return false;
	}
	return false;
}

/* COMMIT or ROLLBACK PREPARED; as the transaction's owner if the monitor's role is no superuser but a member of it. */
static PGresult *
finish_prepared(struct twophase_shard *s, const struct found *f, enum twophase_step step)
{
	char sql[TWOPHASE_SQL_MAX];
	twophase_sql(sql, step, &f->gid);
	PGresult *q = ask(s, sql);
	if (strcmp(sqlstate_of(q), "42501") != 0)
		return q;
	char role[TWOPHASE_SQL_MAX];
	snprintf(role, sizeof role, "SET ROLE %s", f->owner);
	PGresult *set = ask(s, role);
	if (is_good(set)) {
		PQclear(q);
		q = ask(s, sql);
		PGresult *reset = ask(s, "RESET ROLE");
		s->lost |= !is_good(reset);
		PQclear(reset);
	}
	PQclear(set);
	return q;
}

/* Step 3. */
static void
resolve(struct round *r, struct found *f)
{
	struct twophase_shard *s = &r->shards[f->at];
	bool commit, other_run = f->parts.run != twophase_run();
	if (!outcome_of(r, f, &commit))
		return;
	PGresult *q = finish_prepared(s, f, commit ? TWOPHASE_COMMIT_PREPARED : TWOPHASE_ROLLBACK_PREPARED);
	if (is_good(q)) {
		f->resolved = true;
		log_info("database %s: %s %s on shard %d (%s), prepared by %s", r->database, commit ? "committed" : "rolled back", f->gid.text, s->number,
		         s->label, other_run ? "an earlier run" : "a session that lost its server");
	} else if (strcmp(sqlstate_of(q), "42704") == 0) {
		f->resolved = true;
	} else {
		left_for_later(r, reason_of(q), s->label);
	}
	PQclear(q);
}

/* A session of this process may be at it still. */
static bool
is_orphan(const struct round *r, const struct found *f)
{
	return f->parts.run != twophase_run() || f->stale || item_of(r, &f->gid);
}

static bool
is_prepared(const struct round *r, const struct gid *g)
{
	for (size_t i = 0; i < r->n_found; i++)
		if (strcmp(r->found[i].gid.text, g->text) == 0)
			return true;
	return false;
}

/* Step 4; *n_read* decisions came from step 1. */
static void
delete_done(struct round *r, size_t n_read)
{
	const struct gid **gids = xmalloc((n_read + 1) * sizeof *gids);
	for (int i = 0; i < r->n; i++) {
		size_t n = 0;
		for (size_t k = 0; k < n_read; k++)
			if (r->decisions[k].at == i && r->decisions[k].commit && !is_prepared(r, &r->decisions[k].gid))
				gids[n++] = &r->decisions[k].gid;
		if (n > 0 && delete_decisions(&r->shards[i], gids, n))
			log_debug("database %s: deleted %zu decisions on %s", r->database, n, r->shards[i].label);
	}
	free(gids);
	/* What was handed over and is prepared nowhere is over; a tombstone stays against an INSERT that is on its way. */
	for (size_t k = 0; k < r->t->items.n; k++) {
		struct item *it = &r->t->items.v[k];
		if (!it->finished && !it->fresh && strcmp(it->database, r->database) == 0 && !is_prepared(r, &it->gid))
			it->finished = true;
	}
}

static void
delete_tombstones(struct round *r, int i)
{
	char sql[TWOPHASE_SQL_MAX];
	snprintf(sql, sizeof sql, WRITE_BLOCK "DELETE FROM pgspan.decision WHERE NOT commit AND at < now() - interval '" TOMBSTONE_KEPT "'"
	                                      " AND starts_with(gid, 'pgspan_%s_')", r->instance);
	PQclear(ask_rows(&r->shards[i], sql));
}

static bool
has_doubts(const struct twophase *t, const char *database, bool only_fresh)
{
	for (size_t i = 0; i < t->items.n; i++)
		if (!t->items.v[i].finished && (t->items.v[i].fresh || !only_fresh) && strcmp(t->items.v[i].database, database) == 0)
			return true;
	return false;
}

/* Returns how many prepared transactions are left. */
static int
run_round(struct round *r)
{
	int left = 0;
	r->all = true;
	for (size_t k = 0; k < r->t->items.n; k++)
		if (strcmp(r->t->items.v[k].database, r->database) == 0)
			r->t->items.v[k].fresh = false;
	for (int i = 0; i < r->n; i++)
		look_at_shard(r, i);
	for (int i = 0; i < r->n; i++)
		if (r->table[i] && r->primary[i])
			read_decisions(r, i);
	size_t n_read = r->n_decisions;
	for (int i = 0; i < r->n; i++) {
		if (r->primary[i])
			list_prepared(r, i);
		else
			r->all = false;
	}
	for (size_t i = 0; i < r->n_found; i++) {
		if (!is_orphan(r, &r->found[i]))
			continue;
		resolve(r, &r->found[i]);
		left += !r->found[i].resolved;
	}
	if (r->all)
		delete_done(r, n_read);
	for (int i = 0; i < r->n; i++)
		if (r->table[i] && r->primary[i])
			delete_tombstones(r, i);
	return left;
}

static struct schedule *
schedule_of(struct twophase *t, const char *database)
{
	struct schedule *s = names_get(&t->schedules, span_str(database));
	if (!s) {
		s = xcalloc(1, sizeof *s);
		names_put(&t->schedules, span_str(database), s);
	}
	return s;
}

void
twophase_tend(struct twophase *t, const char *database, const char *instance, struct twophase_shard *shards, int n)
{
	struct schedule *when = schedule_of(t, database);
	take_items(t);
	if (now_ms() >= when->due_ms || has_doubts(t, database, true)) {
		struct round r = {.t = t, .database = database, .instance = instance, .shards = shards, .n = n};
		int left = run_round(&r);
		if (left != when->left && left > 0)
			log_warning("database %s: %d prepared transactions can't be finished yet: %s", database, left, r.why);
		when->left = left;
		/* Again soon while something goes on: a PREPARE may come late, a server may come back. */
		bool quiet = r.all && r.n_found == 0 && !has_doubts(t, database, false);
		when->due_ms = now_ms() + (quiet ? IDLE_MS : SOON_MS);
		for (size_t i = 0; i < r.n_found; i++)
			free(r.found[i].owner);
		free(r.found);
		free(r.decisions);
	}
	sweep_finished(t, database, shards, n);
}
