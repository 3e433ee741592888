/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/msg.o proxy/upstream/server.o proxy/upstream/server_native.o proxy/proto/wire.o proxy/proto/scram_client.o proxy/proto/scram.o proxy/proto/auth.o proxy/upstream/replies.o proxy/upstream/stmt_set.o proxy/net/buf.o proxy/net/loop.o proxy/net/offload.o proxy/net/conn.o proxy/net/tls.o proxy/net/tls_context.o proxy/net/tls_handshake.o proxy/base/arena.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
/* test_server - logging in through libpq on a loop and then driving the socket raw. The cases with a real server need
 * PGSPAN_TEST_CONNINFO (tests/live/test_units.py gives it) and are skipped without. */
#include "pgspan/server.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct seen {
	int opened;
	enum rc rc;
	char sqlstate[6], message[512];
	char bytes[4096];
	size_t n;
	bool stop_at_open;
};

static void
on_open(struct server *s, enum rc rc, const struct diag *d)
{
	struct seen *seen = s->user;
	seen->opened++;
	seen->rc = rc;
	if (d) {
		memcpy(seen->sqlstate, d->sqlstate, 6);
		memcpy(seen->message, d->message, sizeof seen->message);
	}
	if (rc == RC_FAIL || seen->stop_at_open) {
		ev_break(s->loop->ev, EVBREAK_ALL);
		return;
	}
	static const char query[] = "Q\0\0\0\x0dSELECT 7";
	conn_send_ref(&s->conn, span_of(query, sizeof query));
	assert_int_equal(conn_flush(&s->conn), RC_OK);
}

static void
on_input(struct server *s)
{
	struct seen *seen = s->user;
	struct span rx = conn_rx(&s->conn);
	assert_true(seen->n + rx.n <= sizeof seen->bytes);
	memcpy(seen->bytes + seen->n, rx.p, rx.n);
	seen->n += rx.n;
	conn_rx_consume(&s->conn, rx.n);
	if (seen->n >= 6 && seen->bytes[seen->n - 6] == 'Z')
		ev_break(s->loop->ev, EVBREAK_ALL);
}

static void
on_drained(struct server *s)
{
	(void)s;
}

static const struct server_ops ops = {on_open, on_input, on_drained};

/* Runs one log-in to its end and gives what was seen. */
static struct seen
run(const char *conninfo, const char *const *keys, const char *const *values, int64_t timeout_ms)
{
	struct loop l;
	struct seen seen = {.rc = RC_AGAIN};
	loop_init(&l);
	struct server *s = server_open(&l, conninfo, keys, values, timeout_ms, &ops, &seen);
	assert_int_equal(seen.opened, 0);
	loop_run(&l);
	server_close(s);
	loop_fini(&l);
	assert_int_equal(seen.opened, 1);
	return seen;
}

/* A loopback socket that listens and never answers, or a port nobody listens on any more. */
static int
listener(char *conninfo, size_t n, bool keep)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	if (keep)
		assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	snprintf(conninfo, n, "host=127.0.0.1 port=%d dbname=x user=x", ntohs(a.sin_port));
	return fd;
}

static void
server_open__nobody_listens__is_08006_from_the_loop(void **state)
{
	(void)state;
	char conninfo[128];
	int fd = listener(conninfo, sizeof conninfo, false);
	struct seen seen = run(conninfo, NULL, NULL, 5000);
	close(fd);
	assert_int_equal(seen.rc, RC_FAIL);
	assert_string_equal(seen.sqlstate, "08006");
	assert_non_null(strstr(seen.message, "Connection refused"));
}

static void
server_open__server_is_silent__is_08001_after_the_timeout(void **state)
{
	(void)state;
	char conninfo[128];
	int fd = listener(conninfo, sizeof conninfo, true);
	struct seen seen = run(conninfo, NULL, NULL, 100);
	close(fd);
	assert_int_equal(seen.rc, RC_FAIL);
	assert_string_equal(seen.sqlstate, "08001");
}

static void
server_open__bad_connection_string__is_told_from_the_loop(void **state)
{
	(void)state;
	struct seen seen = run("host=127.0.0.1 nonsense=1", NULL, NULL, 100);
	assert_int_equal(seen.rc, RC_FAIL);
	assert_string_equal(seen.sqlstate, "08006");
	assert_non_null(strstr(seen.message, "nonsense"));
}

static void
server_open__real_server__answers_raw_bytes(void **state)
{
	(void)state;
	const char *conninfo = getenv("PGSPAN_TEST_CONNINFO");
	if (!conninfo)
		skip();
	struct seen seen = run(conninfo, NULL, NULL, 10000);
	assert_int_equal(seen.rc, RC_OK);
	static const char row[] = "D\0\0\0\x0b\0\x01\0\0\0\x01" "7C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
	assert_true(seen.n > sizeof row - 1);
	assert_int_equal(seen.bytes[0], 'T');
	assert_memory_equal(seen.bytes + seen.n - (sizeof row - 1), row, sizeof row - 1);
}

static void
server_open__real_server_unknown_database__fails(void **state)
{
	(void)state;
	const char *conninfo = getenv("PGSPAN_TEST_CONNINFO");
	if (!conninfo)
		skip();
	const char *keys[] = {"dbname", NULL}, *values[] = {"no_such_database", NULL};
	struct seen seen = run(conninfo, keys, values, 10000);
	assert_int_equal(seen.rc, RC_FAIL);
	assert_non_null(strstr(seen.message, "no_such_database"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(server_open__nobody_listens__is_08006_from_the_loop),
	    cmocka_unit_test(server_open__server_is_silent__is_08001_after_the_timeout),
	    cmocka_unit_test(server_open__bad_connection_string__is_told_from_the_loop),
	    cmocka_unit_test(server_open__real_server__answers_raw_bytes),
	    cmocka_unit_test(server_open__real_server_unknown_database__fails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
