/* SPDX-License-Identifier: BSD-2-Clause */
/* server - see pgspan/server.h. */
#include "server_int.h"

#include "pgspan/log.h"
#include "pgspan/msg.h"
#include "pgspan/offload.h"

#include <libpq-fe.h>
#include <sys/socket.h>

#define SERVER_MAGIC 0x53525652u
#define MAX_SETTINGS 16

static void login_step(struct server *s);

static struct server *
checked(struct server *s)
{
	if (s->magic != SERVER_MAGIC)
		abort();
	return s;
}

static void
stop_login(struct server *s)
{
	ev_io_stop(s->loop->ev, &s->login_io);
	ev_timer_stop(s->loop->ev, &s->login_timer);
}

static void
free_server(struct doomed *d)
{
	struct server *s = container_of(d, struct server, doomed);
	replies_fini(&s->replies);
	stmt_set_clear(&s->has.stmts);
	for (int i = 0; i < SERVER_PARAMETERS; i++)
		free(s->parameters[i]);
	PQfinish(s->pg);
	native_free(s);
	s->magic = 0;
	free(s);
}

/* libpq keeps the SQLSTATE of a failed log-in to itself: the words of its message are all there is to tell one from another.
 * Servers answer in their own language, so what is not known is 08006, never a guess. */
static const char *
sqlstate_of(const char *message)
{
	static const struct {
		const char *words, *code;
	} known[] = {
	    {"password authentication failed", "28P01"},
	    {"no password supplied", "28P01"},
	    {"no pg_hba.conf entry", "28000"},
	    {"too many clients", "53300"},
	    {"remaining connection slots", "53300"},
	    {"too many connections for", "53300"},
	    {"the database system is starting up", "57P03"},
	    {"the database system is shutting down", "57P03"},
	    {"the database system is in recovery mode", "57P03"},
	    {"the database system is not yet accepting", "57P03"},
	};
	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (strstr(message, known[i].words))
			return known[i].code;
	return "08006";
}

void
server_login_failed(struct server *s, const char *sqlstate, const char *message)
{
	stop_login(s);
	s->state = SERVER_CLOSED;
	size_t n = strlen(message);
	while (n > 0 && message[n - 1] == '\n')
		n--;
	diag_set(&s->failure, sqlstate ? sqlstate : sqlstate_of(message), "%.*s", (int)n, message);
	s->ops->on_open(s, RC_FAIL, &s->failure);
}

static void
on_conn_input(struct conn *c)
{
	struct server *s = checked(container_of(c, struct server, conn));
	s->ops->on_input(s);
}

static void
on_conn_drained(struct conn *c)
{
	struct server *s = checked(container_of(c, struct server, conn));
	s->ops->on_drained(s);
}

static const struct conn_ops conn_ops = {on_conn_input, on_conn_drained};

const char *const server_parameter_names[SERVER_PARAMETERS] = {
    "application_name", "client_encoding", "DateStyle", "default_transaction_read_only", "in_hot_standby", "integer_datetimes",
    "IntervalStyle", "is_superuser", "server_encoding", "server_version", "session_authorization", "standard_conforming_strings",
    "TimeZone", "search_path"};

static void
set_parameter(struct server *s, int i, struct span value)
{
	if (s->parameters[i] && strlen(s->parameters[i]) == value.n && memcmp(s->parameters[i], value.p, value.n) == 0)
		return;
	free(s->parameters[i]);
	s->parameters[i] = xstrndup(value.p, value.n);
}

void
server_note_parameter(struct server *s, const struct wire_msg *m)
{
	struct span name, value;
	if (!msg_get_parameter_status(m, &name, &value))
		return;
	for (int i = 0; i < SERVER_PARAMETERS; i++)
		if (span_eq_str(name, server_parameter_names[i]))
			set_parameter(s, i, value);
}

uint32_t
server_pid(const struct server *s)
{
	return s->pid;
}

void
server_login_done(struct server *s, int fd, SSL *ssl)
{
	stop_login(s);
	conn_init(&s->conn, s->loop, fd, &conn_ops);
	if (ssl)
		conn_adopt_ssl(&s->conn, ssl);
	s->state = SERVER_READY;
	conn_read_start(&s->conn);
	s->ops->on_open(s, RC_OK, NULL);
}

static void
login_done(struct server *s)
{
	for (int i = 0; i < SERVER_PARAMETERS; i++) {
		const char *v = PQparameterStatus(s->pg, server_parameter_names[i]);
		if (v)
			set_parameter(s, i, span_str(v));
	}
	s->pid = (uint32_t)PQbackendPID(s->pg);
	server_login_done(s, PQsocket(s->pg), PQsslInUse(s->pg) ? PQsslStruct(s->pg, "OpenSSL") : NULL);
}

/* libpq may change its socket between two steps (several addresses), so the watcher is set anew each time. */
static void
login_wait(struct server *s, int events)
{
	ev_io_stop(s->loop->ev, &s->login_io);
	ev_io_set(&s->login_io, PQsocket(s->pg), events);
	ev_io_start(s->loop->ev, &s->login_io);
}

static void
login_step(struct server *s)
{
	ev_io_stop(s->loop->ev, &s->login_io);
	switch (PQconnectPoll(s->pg)) {
	case PGRES_POLLING_READING:
		login_wait(s, EV_READ);
		break;
	case PGRES_POLLING_WRITING:
		login_wait(s, EV_WRITE);
		break;
	case PGRES_POLLING_OK:
		login_done(s);
		break;
	default:
		server_login_failed(s, NULL, PQerrorMessage(s->pg));
		break;
	}
}

static void
on_login_io(struct ev_loop *ev, ev_io *w, int revents)
{
	(void)ev;
	(void)revents;
	login_step(checked(container_of(w, struct server, login_io)));
}

static void
on_login_timer(struct ev_loop *ev, ev_timer *w, int revents)
{
	struct server *s = checked(container_of(w, struct server, login_timer));
	(void)ev;
	(void)revents;
	if (s->pg && PQstatus(s->pg) == CONNECTION_BAD)
		server_login_failed(s, NULL, PQerrorMessage(s->pg));
	else
		server_login_failed(s, "08001", "the server did not finish the log-in in time");
}

static struct server *
new_server(struct loop *l, const struct server_ops *ops, void *user)
{
	struct server *s = xcalloc(1, sizeof *s);
	s->magic = SERVER_MAGIC;
	s->loop = l;
	s->ops = ops;
	s->user = user;
	s->conn.fd = -1;
	s->doomed.fn = free_server;
	s->tx_status = 'I';
	dlist_init(&s->pooled.link);
	replies_init(&s->replies);
	return s;
}

struct server *
server_open_native(struct loop *l, const char *conninfo, const char *user, const struct server_keys *keys, int64_t timeout_ms,
    const struct server_ops *ops, void *holder)
{
	struct server *s = new_server(l, ops, holder);
	ev_timer_init(&s->login_timer, on_login_timer, (double)timeout_ms / 1000., 0.);
	ev_timer_start(l->ev, &s->login_timer);
	native_start(s, conninfo, user, keys);
	return s;
}

struct server *
server_open(struct loop *l, const char *conninfo, const char *const *keys, const char *const *values, int64_t timeout_ms,
    const struct server_ops *ops, void *user)
{
	struct server *s = new_server(l, ops, user);

	const char *k[MAX_SETTINGS + 3], *v[MAX_SETTINGS + 3];
	int n = 0;
	k[n] = "dbname"; /* with expand_dbname this is where a whole connection string goes */
	v[n++] = conninfo;
	for (; keys && *keys; keys++, values++) {
		assert(n <= MAX_SETTINGS);
		k[n] = *keys;
		v[n++] = *values;
	}
	k[n] = "gssencmode"; /* only libpq could read what GSSAPI encrypts */
	v[n++] = "disable";
	k[n] = v[n] = NULL;
	s->pg = PQconnectStartParams(k, v, 1);
	if (!s->pg)
		abort();
	ev_io_init(&s->login_io, on_login_io, 0, 0);
	/* A failure that is known now is told from the loop, so that the caller holds *s* by then. */
	bool bad = PQstatus(s->pg) == CONNECTION_BAD;
	ev_timer_init(&s->login_timer, on_login_timer, bad ? 0. : (double)timeout_ms / 1000., 0.);
	ev_timer_start(l->ev, &s->login_timer);
	if (!bad)
		login_wait(s, EV_WRITE); /* PQconnectPoll's rule: the first wait is as if it had said WRITING */
	return s;
}

void
server_park(struct server *s)
{
	assert(s->state == SERVER_READY && replies_empty(&s->replies));
	conn_read_stop(&s->conn);
	ev_io_stop(s->loop->ev, &s->conn.wio); /* TLS may want to write by itself: it is asked again when reading starts */
	s->loop = NULL;
}

void
server_unpark(struct server *s, struct loop *l)
{
	s->loop = s->conn.loop = l;
	conn_read_start(&s->conn);
}

void
server_close(struct server *s)
{
	checked(s);
	stop_login(s);
	/* PQfinish sends Terminate; that must not land inside a message that is only half sent. */
	if (s->state == SERVER_READY && (s->conn.broken || conn_tx_pending(&s->conn) > 0))
		shutdown(s->conn.fd, SHUT_RDWR);
	if (s->native)
		native_end(s);
	conn_detach(&s->conn);
	s->state = SERVER_CLOSED;
	s->ended = true;
	if (s->cancels == 0)
		loop_doom(s->loop, &s->doomed);
}

struct cancel_job {
	struct offload_job job;
	PGcancel *cancel; /* NULL: natively */
	struct native_target target;
	struct server *server;
	void (*done)(struct server *s);
};

static void
run_cancel(struct offload_job *j)
{
	struct cancel_job *c = container_of(j, struct cancel_job, job);
	char err[256];
	if (!c->cancel)
		native_cancel(&c->target);
	else if (!PQcancel(c->cancel, err, sizeof err))
		log_info("a cancel request could not be delivered: %.*s", (int)strcspn(err, "\n"), err);
}

static void
on_cancelled(struct loop *l, struct mail *m)
{
	struct offload_job *j = container_of(m, struct offload_job, mail);
	struct cancel_job *c = container_of(j, struct cancel_job, job);
	struct server *s = c->server;
	s->cancels--;
	if (s->ended && s->cancels == 0)
		loop_doom(l, &s->doomed);
	else if (!s->ended && c->done)
		c->done(s);
	PQfreeCancel(c->cancel);
	free(c);
}

void
server_cancel(struct server *s, void (*done)(struct server *s))
{
	PGcancel *cancel = s->native ? NULL : PQgetCancel(s->pg);
	if (!cancel && !s->native)
		return;
	struct cancel_job *c = xcalloc(1, sizeof *c);
	c->cancel = cancel;
	if (s->native)
		native_get_target(s, &c->target);
	c->server = s;
	c->done = done;
	s->cancels++;
	offload_run(s->loop, &c->job, run_cancel, on_cancelled);
}
