/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/upstream/twophase_recover.o proxy/upstream/twophase.o proxy/base/mem.o proxy/base/log.o proxy/base/names.o */
/* What workers hand over to the monitor is finished. On real servers: tests/live/test_recovery.py gives them in
 * PGSPAN_TEST_SHARDS, two connection strings with a | between; without, all is skipped. They have a table leftover (who, n). */
#include "pgspan/twophase.h"

#include <libpq-fe.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#define DB "shop"
#define INSTANCE "unit_1"

static struct twophase *t;
static struct twophase_shard shards[2];
static PGconn *clients[2];
static uint64_t next;

static PGconn *
connect_to(const char *conninfo)
{
	PGconn *c = PQconnectdb(conninfo);
	assert_int_equal(PQstatus(c), CONNECTION_OK);
	return c;
}

static void
run(PGconn *c, const char *sql)
{
	PGresult *r = PQexec(c, sql);
	if (PQresultStatus(r) != PGRES_COMMAND_OK)
		fail_msg("%s: %s", sql, PQerrorMessage(c));
	PQclear(r);
}

/* The first value, "" if there is no row. */
static const char *
value(PGconn *c, const char *sql)
{
	static char text[64];
	PGresult *r = PQexec(c, sql);
	assert_int_equal(PQresultStatus(r), PGRES_TUPLES_OK);
	snprintf(text, sizeof text, "%s", PQntuples(r) ? PQgetvalue(r, 0, 0) : "");
	PQclear(r);
	return text;
}

static void
tend(void)
{
	twophase_tend(t, DB, INSTANCE, shards, 2);
	assert_false(shards[0].lost);
	assert_false(shards[1].lost);
}

/* A new transaction of this run, prepared on both shards. */
static struct gid
prepared(void)
{
	char sql[TWOPHASE_SQL_MAX];
	struct gid g = gid_make(INSTANCE, twophase_run(), 0, next++, 0);
	for (int i = 0; i < 2; i++) {
		run(clients[i], "BEGIN");
		snprintf(sql, sizeof sql, "INSERT INTO leftover VALUES ('%s', 1)", g.text);
		run(clients[i], sql);
		twophase_sql(sql, TWOPHASE_PREPARE, &g);
		run(clients[i], sql);
	}
	return g;
}

static void
step(int shard, enum twophase_step s, const struct gid *g)
{
	char sql[TWOPHASE_SQL_MAX];
	twophase_sql(sql, s, g);
	run(clients[shard], sql);
}

static int
n_prepared(const struct gid *g)
{
	char sql[TWOPHASE_SQL_MAX];
	int n = 0;
	snprintf(sql, sizeof sql, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = '%s'", g->text);
	for (int i = 0; i < 2; i++)
		n += (int)strtol(value(clients[i], sql), NULL, 10);
	return n;
}

static int
n_rows(const struct gid *g)
{
	char sql[TWOPHASE_SQL_MAX];
	int n = 0;
	snprintf(sql, sizeof sql, "SELECT count(*) FROM leftover WHERE who = '%s'", g->text);
	for (int i = 0; i < 2; i++)
		n += (int)strtol(value(clients[i], sql), NULL, 10);
	return n;
}

/* "t", "f", or "": none. */
static const char *
decision(const struct gid *g)
{
	char sql[TWOPHASE_SQL_MAX];
	snprintf(sql, sizeof sql, "SELECT commit FROM pgspan.decision WHERE gid = '%s'", g->text);
	return value(clients[0], sql);
}

static int
set_up(void **state)
{
	(void)state;
	const char *env = getenv("PGSPAN_TEST_SHARDS"), *bar = env ? strchr(env, '|') : NULL;
	if (!bar)
		return 0;
	char *first = xstrndup(env, (size_t)(bar - env));
	const char *conninfo[2] = {first, bar + 1};
	for (int i = 0; i < 2; i++) {
		clients[i] = connect_to(conninfo[i]);
		shards[i] = (struct twophase_shard){.number = i, .label = i ? "second" : "first", .conn = connect_to(conninfo[i])};
	}
	free(first);
	t = twophase_new();
	tend();
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	for (int i = 0; t && i < 2; i++) {
		PQfinish(clients[i]);
		PQfinish(shards[i].conn);
	}
	if (t)
		twophase_free(t);
	return 0;
}

#define NEEDS_SERVERS() do { (void)state; if (!t) skip(); } while (0)

static void
twophase_tend__session_at_work__left_alone(void **state)
{
	NEEDS_SERVERS();
	struct gid mine = prepared(), other = prepared();
	twophase_in_doubt(t, DB, &other, TWOPHASE_ABORTED);
	tend();
	assert_int_equal(n_prepared(&other), 0);
	assert_int_equal(n_prepared(&mine), 2);
	assert_string_equal(decision(&mine), "");
	for (int i = 0; i < 2; i++)
		step(i, TWOPHASE_ROLLBACK_PREPARED, &mine);
}

static void
twophase_tend__committed__committed_and_row_deleted(void **state)
{
	NEEDS_SERVERS();
	struct gid g = prepared();
	step(0, TWOPHASE_DECIDE, &g);
	step(0, TWOPHASE_COMMIT_PREPARED, &g);
	twophase_in_doubt(t, DB, &g, TWOPHASE_COMMITTED);
	tend();
	assert_int_equal(n_prepared(&g), 0);
	assert_int_equal(n_rows(&g), 2);
	assert_string_equal(decision(&g), "t"); /* until a later look has seen that nobody needs it */
	sleep(4);
	tend();
	assert_string_equal(decision(&g), "");
}

static void
twophase_tend__aborted__rolled_back(void **state)
{
	NEEDS_SERVERS();
	struct gid g = prepared();
	twophase_in_doubt(t, DB, &g, TWOPHASE_ABORTED);
	tend();
	assert_int_equal(n_prepared(&g), 0);
	assert_int_equal(n_rows(&g), 0);
	assert_string_equal(decision(&g), "");
}

static void
twophase_tend__unknown_and_not_there__buried(void **state)
{
	NEEDS_SERVERS();
	struct gid g = prepared();
	twophase_in_doubt(t, DB, &g, TWOPHASE_UNKNOWN);
	tend();
	assert_int_equal(n_prepared(&g), 0);
	assert_int_equal(n_rows(&g), 0);
	assert_string_equal(decision(&g), "f");
	sleep(4);
	tend();
	assert_string_equal(decision(&g), "f"); /* an INSERT may be on its way still */
}

static void
twophase_tend__unknown_and_there__committed(void **state)
{
	NEEDS_SERVERS();
	struct gid g = prepared();
	step(0, TWOPHASE_DECIDE, &g);
	twophase_in_doubt(t, DB, &g, TWOPHASE_UNKNOWN);
	tend();
	assert_int_equal(n_prepared(&g), 0);
	assert_int_equal(n_rows(&g), 2);
}

static void
twophase_tend__another_database__not_touched(void **state)
{
	NEEDS_SERVERS();
	struct gid g = prepared();
	twophase_in_doubt(t, "elsewhere", &g, TWOPHASE_ABORTED);
	tend();
	assert_int_equal(n_prepared(&g), 2);
	twophase_in_doubt(t, DB, &g, TWOPHASE_ABORTED);
	tend();
	assert_int_equal(n_prepared(&g), 0);
}

static void
twophase_tend__finished__rows_deleted_at_once(void **state)
{
	NEEDS_SERVERS();
	enum { N = 1100 }; /* more than two batches */
	char sql[TWOPHASE_SQL_MAX];
	snprintf(sql, sizeof sql, "INSERT INTO pgspan.decision SELECT format('pgspan_" INSTANCE "_%llx_7_%%s_0', g), true FROM generate_series(0, %d) g",
	         (unsigned long long)twophase_run(), N);
	run(clients[0], sql);
	for (int i = 0; i < N; i++) {
		struct gid g = gid_make(INSTANCE, twophase_run(), 7, (uint64_t)i, 0);
		twophase_finished(t, DB, &g);
	}
	tend();
	snprintf(sql, sizeof sql, "SELECT string_agg(gid, ',') FROM pgspan.decision WHERE gid LIKE '%%\\_7\\_%%\\_0' AND commit");
	struct gid last = gid_make(INSTANCE, twophase_run(), 7, N, 0);
	assert_string_equal(value(clients[0], sql), last.text);
}

static void
twophase_capacity__server__its_setting(void **state)
{
	NEEDS_SERVERS();
	assert_int_equal(twophase_capacity(clients[0]), 200);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(twophase_tend__session_at_work__left_alone),
	    cmocka_unit_test(twophase_tend__committed__committed_and_row_deleted),
	    cmocka_unit_test(twophase_tend__aborted__rolled_back),
	    cmocka_unit_test(twophase_tend__unknown_and_not_there__buried),
	    cmocka_unit_test(twophase_tend__unknown_and_there__committed),
	    cmocka_unit_test(twophase_tend__another_database__not_touched),
	    cmocka_unit_test(twophase_tend__finished__rows_deleted_at_once),
	    cmocka_unit_test(twophase_capacity__server__its_setting),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
