/* SPDX-License-Identifier: BSD-2-Clause */
/* monitor - see pgspan/monitor.h.
 *
 * Once a second, for each server: a short query (role, lag) on a connection that is kept. A server that does not answer
 * is marked down for reads until it does. Catalogs are loaded again every CATALOG_MS, and soon after monitor_poke().
 * On the same connections, transactions over several shards that lost their session are finished: see twophase.h. */
#include "pgspan/monitor.h"

#include "pgspan/auth.h"
#include "pgspan/log.h"
#include "pgspan/twophase.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <time.h>

#define PERIOD_MS 1000
#define CATALOG_MS 10000
#define CONNECT_TIMEOUT "3"
#define ANSWER_MS 3000
#define DOWN_MS 5000

/* Where the primary's WAL stood when: how long ago it passed a replica's position is the replica's lag. Unlike the time of the
 * last replayed transaction this is right on an idle primary too. */
#define SAMPLES 128
struct history {
	struct {
		int64_t at_ms;
		uint64_t lsn;
	} sample[SAMPLES];
	int n; /* taken so far; the last SAMPLES are kept */
};

struct watched {
	struct server_health *health;
	const struct server_config *server; /* of cfg */
	const struct database_config *db;
	int64_t max_lag_ms;
	PGconn *conn;
	bool was_up, known;
	struct history *history; /* of a primary; NULL for replicas */
	struct watched *primary; /* of its shard; itself for a primary */
};

struct kept {
	char *database;
	struct catalog *catalog;
};

struct monitor {
	struct fleet *fleet;
	pthread_t thread;
	struct watched *watched; /* the thread's own */
	int n_watched;
	struct config *cfg;
	int64_t catalogs_at_ms;
	struct twophase *twophase;

	_Atomic uint64_t generation;
	struct {
		pthread_mutex_t lock;
		pthread_cond_t wake;
		struct kept *kept;
		int n_kept;
		struct config *next; /* to be taken over */
		bool poked, stop;
	} shared;
};

static int64_t
now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void
forget_watched(struct monitor *m)
{
	for (int i = 0; i < m->n_watched; i++) {
		PQfinish(m->watched[i].conn);
		free(m->watched[i].history);
	}
	free(m->watched);
	m->watched = NULL;
	m->n_watched = 0;
}

static void
watch(struct monitor *m, struct config *cfg)
{
	forget_watched(m);
	config_unref(m->cfg);
	m->cfg = cfg;
	for (int d = 0; d < cfg->n_databases; d++) {
		const struct database_config *db = &cfg->databases[d];
		for (int i = 0; i < db->n_shards; i++) {
			for (int k = 0; k < db->shards[i].n_servers; k++) {
				m->watched = xrealloc(m->watched, (size_t)(m->n_watched + 1) * sizeof *m->watched);
				m->watched[m->n_watched++] = (struct watched){
				    .health = fleet_health(m->fleet, db->shards[i].servers[k].label),
				    .server = &db->shards[i].servers[k],
				    .db = db,
				    .max_lag_ms = db->set.max_replica_lag_ms,
				    .history = k == 0 ? xcalloc(1, sizeof(struct history)) : NULL,
				};
			}
		}
	}
	struct watched *primary = NULL;
	for (int i = 0; i < m->n_watched; i++) {
		if (m->watched[i].history)
			primary = &m->watched[i];
		m->watched[i].primary = primary;
	}
	m->catalogs_at_ms = 0;
}

static PGconn *
open_server(const struct config *cfg, const struct server_config *s)
{
	const char *keys[6] = {"dbname", "connect_timeout", "application_name"}, *values[6] = {s->conninfo, CONNECT_TIMEOUT, "pgspan monitor"};
	int n = 3;
	if (!s->user) {
		const struct auth_user *u = cfg->users ? userlist_find(cfg->users, span_str(cfg->monitor_user)) : NULL;
		keys[n] = "user";
		values[n++] = cfg->monitor_user;
		if (u && !s->has_password && auth_user_kind(u) == AUTH_SECRET_PLAIN) {
			keys[n] = "password";
			values[n++] = auth_user_secret(u);
		}
	}
	PGconn *c = PQconnectdbParams(keys, values, 1);
	if (PQstatus(c) == CONNECTION_OK)
		return c;
	log_debug("monitor: %s: %.*s", s->label, (int)strcspn(PQerrorMessage(c), "\n"), PQerrorMessage(c));
	PQfinish(c);
	return NULL;
}

/* The result of one query, bounded in time; NULL: the connection is no good. */
static PGresult *
ask(PGconn *c, const char *sql)
{
	int64_t until = now_ms() + ANSWER_MS;
	if (!PQsendQuery(c, sql))
		return NULL;
	while (PQisBusy(c)) {
		struct pollfd p = {.fd = PQsocket(c), .events = POLLIN};
		int64_t left = until - now_ms();
		if (left <= 0 || (poll(&p, 1, (int)left) == -1 && errno != EINTR) || !PQconsumeInput(c))
			return NULL;
	}
	PGresult *r = PQgetResult(c), *more;
	while ((more = PQgetResult(c)))
		PQclear(more);
	if (PQresultStatus(r) == PGRES_TUPLES_OK)
		return r;
	PQclear(r);
	return NULL;
}

static void
note_position(struct history *h, int64_t at_ms, uint64_t lsn)
{
	h->sample[h->n % SAMPLES].at_ms = at_ms;
	h->sample[h->n % SAMPLES].lsn = lsn;
	h->n++;
}

/* How long ago the primary went past *lsn*; 0 if it has not, as far as is known. */
static int64_t
lag_of(const struct history *h, int64_t now, uint64_t lsn)
{
	for (int i = h->n > SAMPLES ? h->n - SAMPLES : 0; i < h->n; i++)
		if (h->sample[i % SAMPLES].lsn > lsn)
			return now - h->sample[i % SAMPLES].at_ms;
	return 0;
}

static void
note_lag(struct watched *w, int64_t lag)
{
	bool lagging = w->max_lag_ms > 0 && lag > w->max_lag_ms;
	if (lagging != atomic_load(&w->health->lagging))
		log_warning("server %s is %s", w->server->label, lagging ? "too far behind: it gets no reads" : "near enough again");
	atomic_store(&w->health->lagging, lagging);
}

static void
look_at(struct monitor *m, struct watched *w)
{
	static const char sql[] = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
	                          " ELSE pg_current_wal_lsn() END - '0/0'::pg_lsn";
	if (!w->conn)
		w->conn = open_server(m->cfg, w->server);
	PGresult *r = w->conn ? ask(w->conn, sql) : NULL;
	bool up = r != NULL;
	if (up) {
		uint64_t lsn = strtoull(PQgetvalue(r, 0, 1), NULL, 10);
		if (w->history)
			note_position(w->history, now_ms(), lsn);
		else
			note_lag(w, lag_of(w->primary->history, now_ms(), lsn));
		atomic_store(&w->health->down_until_ms, 0);
		PQclear(r);
	} else {
		PQfinish(w->conn);
		w->conn = NULL;
		atomic_store(&w->health->down_until_ms, now_ms() + DOWN_MS);
	}
	if (!w->known || up != w->was_up) {
		if (up)
			log_info("server %s answers", w->server->label);
		else
			log_warning("server %s does not answer", w->server->label);
	}
	w->known = true;
	w->was_up = up;
}

static bool
needs_catalog(const struct database_config *db)
{
	if (db->sharded)
		return true;
	for (int i = 0; i < db->n_shards; i++)
		if (db->shards[i].n_servers > 1)
			return true;
	return false;
}

static void
keep(struct monitor *m, const char *database, struct catalog *c)
{
	int i = 0;
	pthread_mutex_lock(&m->shared.lock);
	while (i < m->shared.n_kept && strcmp(m->shared.kept[i].database, database) != 0)
		i++;
	if (i == m->shared.n_kept) {
		m->shared.kept = xrealloc(m->shared.kept, (size_t)(i + 1) * sizeof *m->shared.kept);
		m->shared.kept[m->shared.n_kept++] = (struct kept){xstrdup(database), NULL};
	}
	struct catalog *old = m->shared.kept[i].catalog;
	m->shared.kept[i].catalog = c;
	pthread_mutex_unlock(&m->shared.lock);
	if (old)
		catalog_unref(old);
	atomic_fetch_add(&m->generation, 1);
}

static void
release_config(void *cfg)
{
	config_unref(cfg);
}

static void
load_catalogs(struct monitor *m)
{
	uint64_t epoch = fleet_ddl_epoch(m->fleet);
	m->catalogs_at_ms = now_ms();
	for (int i = 0; i < m->n_watched; i++) {
		struct watched *w = &m->watched[i];
		struct diag d;
		diag_clear(&d);
		/* The first shard's primary speaks for the database. */
		if (w->server != &w->db->shards[0].servers[0] || !w->conn || !needs_catalog(w->db))
			continue;
		struct catalog *c = catalog_load(w->conn, w->db, &d);
		if (c) {
			catalog_keep(c, config_ref(m->cfg), release_config, epoch);
			keep(m, w->db->name, c);
		} else {
			log_warning("cannot read the catalog of database %s: %s", w->db->name, d.message);
		}
	}
}

/* Lends the connections to the primaries of a sharded database to twophase_tend(). */
static void
tend_database(struct monitor *m, const struct database_config *db)
{
	struct twophase_shard shards[MAX_SHARDS];
	struct watched *of[MAX_SHARDS];
	int n = 0;
	for (int i = 0; i < m->n_watched && n < db->n_shards; i++) {
		struct watched *w = &m->watched[i];
		if (w->server != &db->shards[n].servers[0])
			continue;
		of[n] = w;
		shards[n] = (struct twophase_shard){.number = db->shards[n].number, .label = w->server->label, .conn = w->conn};
		n++;
	}
	twophase_tend(m->twophase, db->name, m->cfg->instance_name, shards, n);
	for (int i = 0; i < n; i++) {
		if (!shards[i].lost)
			continue;
		PQfinish(of[i]->conn);
		of[i]->conn = NULL;
	}
}

static void
round_of_looks(struct monitor *m, bool catalogs)
{
	for (int i = 0; i < m->n_watched; i++)
		look_at(m, &m->watched[i]);
	for (int d = 0; d < m->cfg->n_databases; d++)
		if (m->cfg->databases[d].sharded)
			tend_database(m, &m->cfg->databases[d]);
	if (catalogs || now_ms() - m->catalogs_at_ms >= CATALOG_MS)
		load_catalogs(m);
}

static void *
run(void *arg)
{
	struct monitor *m = arg;
	log_thread_name("monitor");
	for (;;) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec += PERIOD_MS / 1000;
		pthread_mutex_lock(&m->shared.lock);
		while (!m->shared.stop && !m->shared.poked && !m->shared.next)
			if (pthread_cond_timedwait(&m->shared.wake, &m->shared.lock, &t) == ETIMEDOUT)
				break;
		bool poked = m->shared.poked, stop = m->shared.stop;
		struct config *next = m->shared.next;
		m->shared.poked = false;
		m->shared.next = NULL;
		pthread_mutex_unlock(&m->shared.lock);
		if (next)
			watch(m, next);
		if (stop)
			return NULL;
		round_of_looks(m, poked || next);
	}
}

struct monitor *
monitor_start(struct config *cfg, struct fleet *fleet)
{
	struct monitor *m = xcalloc(1, sizeof *m);
	m->fleet = fleet;
	m->twophase = twophase_new();
	pthread_mutex_init(&m->shared.lock, NULL);
	pthread_cond_init(&m->shared.wake, NULL);
	watch(m, config_ref(cfg));
	round_of_looks(m, true);
	if (pthread_create(&m->thread, NULL, run, m) != 0)
		log_fatal("cannot start a thread");
	return m;
}

static void
signal_monitor(struct monitor *m, struct config *next, bool stop)
{
	pthread_mutex_lock(&m->shared.lock);
	if (next) {
		config_unref(m->shared.next);
		m->shared.next = next;
	}
	m->shared.stop |= stop;
	m->shared.poked |= !next && !stop;
	pthread_cond_signal(&m->shared.wake);
	pthread_mutex_unlock(&m->shared.lock);
}

void
monitor_reload(struct monitor *m, struct config *cfg)
{
	signal_monitor(m, config_ref(cfg), false);
}

void
monitor_poke(struct monitor *m)
{
	signal_monitor(m, NULL, false);
}

void
monitor_stop(struct monitor *m)
{
	signal_monitor(m, NULL, true);
	pthread_join(m->thread, NULL);
	forget_watched(m);
	for (int i = 0; i < m->shared.n_kept; i++) {
		free(m->shared.kept[i].database);
		catalog_unref(m->shared.kept[i].catalog);
	}
	free(m->shared.kept);
	twophase_free(m->twophase);
	config_unref(m->shared.next);
	config_unref(m->cfg);
	pthread_mutex_destroy(&m->shared.lock);
	pthread_cond_destroy(&m->shared.wake);
	free(m);
}

struct twophase *
monitor_twophase(const struct monitor *m)
{
	return m->twophase;
}

uint64_t
monitor_generation(const struct monitor *m)
{
	return atomic_load_explicit(&m->generation, memory_order_relaxed);
}

struct catalog *
monitor_catalog(struct monitor *m, const char *database)
{
	struct catalog *c = NULL;
	pthread_mutex_lock(&m->shared.lock);
	for (int i = 0; i < m->shared.n_kept; i++)
		if (strcmp(m->shared.kept[i].database, database) == 0)
			c = m->shared.kept[i].catalog ? catalog_ref(m->shared.kept[i].catalog) : NULL;
	pthread_mutex_unlock(&m->shared.lock);
	return c;
}

void
monitor_check_shards(struct config *cfg, config_report_fn report, void *arg)
{
	for (int i = 0; i < cfg->n_databases; i++) {
		const struct database_config *db = &cfg->databases[i];
		for (int k = 0; db->sharded && k < db->n_shards; k++) {
			const struct server_config *s = &db->shards[k].servers[0];
			char line[512];
			PGconn *c = open_server(cfg, s);
			int n = c ? twophase_capacity(c) : -1;
			if (n == 0)
				snprintf(line, sizeof line,
				    "[shard:%s:%d]: max_prepared_transactions is 0 on %s: transactions over several shards cannot be committed; expected at least the number of "
				    "server connections",
				    db->name, db->shards[k].number, s->label);
			else if (n < 0)
				snprintf(line, sizeof line, "[shard:%s:%d]: %s does not answer: its max_prepared_transactions was not checked", db->name,
				    db->shards[k].number, s->label);
			if (n <= 0)
				report(arg, false, line);
			PQfinish(c);
		}
	}
}
