/* SPDX-License-Identifier: BSD-2-Clause */
/* session - see pgspan/session.h and session_int.h.
 *
 *   STARTUP ──► AUTH ──► WELCOME ──► READY ──► CLOSED
 *      └──────────┴─────────┴──────────┴────────► (error, timeout, EOF)
 *
 * Input is processed by session_process(), which looks at the front of the receive buffer again and again until it has to
 * wait: for more bytes, for a server, or for answers. Nothing is taken off the buffer before it has been dealt with, so
 * whatever wakes the session simply calls session_process(), and the same message is looked at anew. */
#include "session_int.h"

#include "pgspan/log.h"
#include "pgspan/sqlstate.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <sys/socket.h>
#include <unistd.h>

#define RX_PAUSE (256u << 10) /* more than this unprocessed, and not one message: reading pauses */

struct session *
session_checked(struct session *s)
{
	if (s->magic != SESSION_MAGIC)
		abort();
	return s;
}

int64_t
session_now_ms(const struct session *s)
{
	return (int64_t)(ev_now(s->env->loop->ev) * 1000.);
}

void
session_put(struct session *s, struct wbuf *w)
{
	conn_send_copy(&s->conn, w->p, w->n);
	wbuf_fini(w);
}

uint32_t
session_pid(const struct session *s)
{
	return (uint32_t)(s->env->worker + 1) << 24 | s->key_slot;
}

/* A block has failed if it has failed anywhere. */
static void
note_failed(struct leg *l, void *arg)
{
	if (l->server->tx_status == 'E')
		*(char *)arg = 'E';
}

char
session_status(struct session *s)
{
	switch (s->tx) {
	case TX_HELD:
		return 'T';
	case TX_HELD_FAILED:
		return 'E';
	case TX_OPEN: {
		char status = 'T';
		leg_each(s, note_failed, &status);
		return status;
	}
	case TX_IDLE:
		break;
	}
	return 'I';
}

/* --- environment: cancel keys --- */

void
session_env_init(struct session_env *env)
{
	dlist_init(&env->sessions);
	scan_init(&env->scan);
	scan_init(&env->inner_scan);
	env->free_key = UINT32_MAX;
}

void
session_env_fini(struct session_env *env)
{
	scan_fini(&env->scan);
	scan_fini(&env->inner_scan);
	free(env->by_key);
	free(env->next_free);
}

static void
take_key(struct session *s)
{
	struct session_env *env = s->env;
	if (env->free_key == UINT32_MAX) {
		uint32_t n = env->n_keys ? env->n_keys * 2 : 64;
		env->by_key = xrealloc(env->by_key, n * sizeof(struct session *));
		env->next_free = xrealloc(env->next_free, n * sizeof *env->next_free);
		for (uint32_t i = n; i-- > env->n_keys;) {
			env->by_key[i] = NULL;
			env->next_free[i] = env->free_key;
			env->free_key = i;
		}
		env->n_keys = n;
	}
	s->key_slot = env->free_key;
	env->free_key = env->next_free[s->key_slot];
	env->by_key[s->key_slot] = s;
}

static void
give_key(struct session *s)
{
	if (s->key_slot == UINT32_MAX)
		return;
	s->env->by_key[s->key_slot] = NULL;
	s->env->next_free[s->key_slot] = s->env->free_key;
	s->env->free_key = s->key_slot;
	s->key_slot = UINT32_MAX;
}

void
session_cancel(struct session_env *env, uint32_t pid, const unsigned char key[4])
{
	uint32_t slot = pid & 0xffffff;
	struct session *s = slot < env->n_keys ? env->by_key[slot] : NULL;
	if (!s || s->state != SESSION_READY || CRYPTO_memcmp(s->key, key, 4) != 0)
		return;
	leg_request_cancel(s);
}

/* --- the end --- */

static void
free_session(struct doomed *d)
{
	struct session *s = container_of(d, struct session, doomed);
	s->magic = 0;
	free(s);
}

void
session_close(struct session *s, const char *why)
{
	session_checked(s);
	if (s->state == SESSION_CLOSED)
		return;
	log_debug("client %s: closing because: %s", s->user ? s->user : "(not logged in)", why);
	s->state = SESSION_CLOSED;
	leg_abandon(s);
	replication_end(s);
	(void)conn_flush(&s->conn);
	int fd = s->conn.fd;
	conn_detach(&s->conn);
	close(fd);
	ev_timer_stop(s->env->loop->ev, &s->timer);
	give_key(s);
	dlist_del(&s->link);
	if (s->counted)
		atomic_fetch_sub(s->env->n_clients, 1);
	if (s->admitted)
		tenant_leave(s->tenant);
	login_fini(s);
	txn_fini(s);
	free(s->failed_name);
	names_clear(&s->stmts, (void (*)(void *))stmt_unref);
	portals_clear(s);
	names_clear(&s->sql_prepared, free);
	names_clear(&s->cursors, free);
	stmt_unref(s->unnamed);
	stmt_unref(s->portal);
	free(s->user);
	config_unref(s->cfg);
	loop_doom(s->env->loop, &s->doomed);
}

void
session_fatal(struct session *s, const struct diag *d)
{
	struct wbuf w = {0};
	msg_put_error(&w, "FATAL", d);
	session_put(s, &w);
	session_close(s, d->message);
}

void
session_error(struct session *s, const struct diag *d, bool in_group)
{
	struct wbuf w = {0};
	msg_put_error(&w, "ERROR", d);
	session_put(s, &w);
	leg_fail_block(s, in_group);
	if (in_group)
		s->skip_to_sync = true;
}

/* --- input --- */

static enum rc
too_large(struct session *s, const struct wire_head *h)
{
	struct diag d;
	diag_clear(&d);
	diag_set(&d, "54000", "a message of %llu bytes is larger than max_packet_size allows (%u)", (unsigned long long)h->total,
	    s->cfg->max_packet_size);
	session_fatal(s, &d);
	return RC_AGAIN;
}

static enum rc
broken_protocol(struct session *s, const char *what)
{
	struct diag d;
	diag_clear(&d);
	diag_set(&d, SQLSTATE_PROTOCOL_VIOLATION, "%s", what);
	session_fatal(s, &d);
	return RC_AGAIN;
}

/* Messages that may be of any size and pass through in pieces. RC_OK: some bytes were dealt with. */
static enum rc
stream(struct session *s)
{
	struct span rx = conn_rx(&s->conn);
	size_t n = s->stream_left < rx.n ? (size_t)s->stream_left : rx.n;
	if (n == 0)
		return RC_AGAIN;
	if (s->stream_forward && s->leg->server)
		conn_send_ref(&s->leg->server->conn, span_of(rx.p, n));
	s->stream_left -= n;
	if (s->stream_forward && s->leg->server && conn_flush(&s->leg->server->conn) == RC_FAIL)
		s->leg->lost = true;
	conn_rx_consume(&s->conn, n);
	return RC_OK;
}

static enum rc
copy_message(struct session *s, const struct wire_head *h)
{
	struct leg *l = s->leg;
	if (!l->copy_in && !leg_is_quiet(s))
		return RC_AGAIN; /* sent ahead of the CopyInResponse, perhaps */
	s->stream_left = h->total;
	s->stream_forward = l->copy_in;
	if (h->type != 'd')
		l->copy_in = false;
	return stream(s);
}

/* One message of a COPY that goes to several shards: rows are looked at, so it is taken whole. */
static enum rc
copy_to_fan(struct session *s)
{
	struct span rx = conn_rx(&s->conn);
	struct wire_head h;
	struct wire_msg m;
	enum wire_result r = wire_peek(rx.p, rx.n, s->cfg->max_packet_size, &h);
	if (r == WIRE_OK && h.total > rx.n) {
		conn_rx_expect(&s->conn, (size_t)h.total);
		return RC_AGAIN;
	}
	r = r == WIRE_OK ? wire_take(rx.p, rx.n, s->cfg->max_packet_size, &m) : r;
	if (r == WIRE_NEED_MORE)
		return RC_AGAIN;
	if (r != WIRE_OK)
		return broken_protocol(s, "invalid message length");
	if (m.type == 'd' || m.type == 'c' || m.type == 'f')
		fan_copy(s, m.type, span_of((const char *)m.body, m.len));
	else if (m.type != 'S' && m.type != 'H')
		return broken_protocol(s, "unexpected message type during COPY from stdin");
	if (s->state == SESSION_CLOSED)
		return RC_AGAIN;
	conn_rx_consume(&s->conn, m.len + WIRE_HEAD_BYTES);
	return RC_OK;
}

/* The functions on large objects, which libpq calls this way, leave nothing behind in the server session (pg_proc.dat). */
static bool
is_large_object_function(uint32_t oid)
{
	static const uint32_t known[] = {715, 764, 765, 767, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172, 3457, 3458, 3459, 3460};
	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (known[i] == oid)
			return true;
	return false;
}

static enum rc
function_call(struct session *s, const struct wire_head *h)
{
	struct diag d;
	diag_clear(&d);
	struct leg *l = s->leg;
	struct span rx = conn_rx(&s->conn);
	if (rx.n < WIRE_HEAD_BYTES + 4 && h->total >= WIRE_HEAD_BYTES + 4)
		return RC_AGAIN;
	/* Any other may lock, set, listen: the server is cleaned before anybody else gets it. */
	if (h->total < WIRE_HEAD_BYTES + 4 || !is_large_object_function(wire_load_u32((const unsigned char *)rx.p + WIRE_HEAD_BYTES)))
		s->pins |= PIN_OTHER;
	if (!l->server) {
		enum rc rc = leg_attach(s, 0, 0, &d);
		if (rc != RC_OK)
			return rc;
	}
	leg_begin(s, l);
	l->unsynced = false;
	l->server->has.unclean |= (s->pins & PIN_OTHER) != 0;
	replies_push(&l->server->replies, REPLY_FUNCTION, REPLY_FORWARD, NULL);
	s->stream_left = h->total;
	s->stream_forward = true;
	return stream(s);
}

/* One thing at the front of the input. RC_AGAIN: nothing more can be done now. */
static enum rc
ready_step(struct session *s)
{
	struct leg *l = s->leg;
	if (leg_awaits_cancel(s))
		return RC_AGAIN;
	if (l->waiter.pool || l->linking || l->lost || (s->fan && !fan_takes_copy(s)))
		return RC_AGAIN;
	if (l->server && conn_tx_pending(&l->server->conn) > CONN_TX_HIGH) {
		l->server->conn.was_high = true;
		return RC_AGAIN;
	}
	if (s->holds) {
		if (!leg_owes_nothing(s)) {
			leg_flush_answers(s);
			return RC_AGAIN;
		}
		s->holds = false;
		leg_restore_in_batch(l);
	}
	if (s->stream_left > 0)
		return stream(s);
	if (s->fan)
		return copy_to_fan(s);
	struct span rx = conn_rx(&s->conn);
	struct wire_head h;
	enum wire_result w = wire_peek(rx.p, rx.n, INT32_MAX - 8, &h);
	if (w == WIRE_NEED_MORE)
		return RC_AGAIN;
	if (w != WIRE_OK)
		return broken_protocol(s, "invalid message length");
	/* After an error in a group a server ignores all up to the Sync, a Query included: what it would ignore it is not sent. */
	if ((s->skip_to_sync || leg_ignores_input(s)) && h.type != 'S' && h.type != 'X') {
		s->stream_left = h.total;
		s->stream_forward = false;
		return stream(s);
	}
	/* While it copies in, a server takes nothing else: it says so, and ends the connection. */
	if (l->copy_in && !strchr("dcfSHX", h.type)) {
		s->stream_left = h.total;
		s->stream_forward = true;
		return stream(s);
	}
	switch (h.type) {
	case 'd':
	case 'c':
	case 'f':
		return copy_message(s, &h);
	case 'P':
	case 'B':
	case 'D':
	case 'E':
	case 'C':
	case 'S':
	case 'H':
		if (h.total > s->cfg->max_packet_size)
			return too_large(s, &h);
		return group_process(s);
	case 'Q': {
		struct wire_msg m;
		if (h.total > s->cfg->max_packet_size)
			return too_large(s, &h);
		if (h.total > rx.n) {
			conn_rx_expect(&s->conn, (size_t)h.total);
			return RC_AGAIN;
		}
		if (!leg_is_quiet(s)) {
			leg_flush_answers(s);
			return RC_AGAIN;
		}
		if (s->tenant->db->sharded && (s->implicit || s->cut || l->unsynced))
			return piece_sync(s, false); /* its legs would never get the Sync that they wait for */
		if (wire_take(rx.p, rx.n, INT32_MAX - 8, &m) != WIRE_OK)
			return RC_AGAIN;
		return query_process(s, &m);
	}
	case 'F':
		if (!leg_is_quiet(s)) {
			leg_flush_answers(s);
			return RC_AGAIN;
		}
		if (s->tenant->db->sharded && (s->implicit || s->cut || l->unsynced))
			return piece_sync(s, false);
		return function_call(s, &h);
	case 'X':
		/* What was sent before runs to its end, unless it has no end: without a Sync it is rolled back. */
		if (!leg_is_quiet(s) && !l->unsynced)
			return RC_AGAIN;
		session_close(s, "client close request");
		return RC_AGAIN;
	default: {
		char what[64];
		snprintf(what, sizeof what, "invalid frontend message type %d", (unsigned char)h.type);
		return broken_protocol(s, what);
	}
	}
}

/* Reading goes on while what was read can be dealt with soon. */
static void
set_reading(struct session *s)
{
	struct leg *l = s->leg;
	if (s->state == SESSION_REFUSING) {
		conn_read_stop(&s->conn);
		return;
	}
	bool blocked = l->server && conn_tx_pending(&l->server->conn) > CONN_TX_HIGH;
	size_t held = buf_len(&s->conn.rx);
	if (blocked || (held > RX_PAUSE && (l->waiter.pool || l->linking || (l->server && !replies_empty(&l->server->replies)))))
		conn_read_stop(&s->conn);
	else
		conn_read_start(&s->conn);
}

void
session_process(struct session *s)
{
	session_checked(s);
	if (s->busy || s->state == SESSION_CLOSED)
		return;
	s->busy = true;
	limits_note(s);
	bool more = true;
	while (more && s->state != SESSION_CLOSED) {
		switch (s->state) {
		case SESSION_STARTUP:
			more = login_startup(s);
			break;
		case SESSION_AUTH:
			more = login_auth(s);
			break;
		case SESSION_READY:
			more = ready_step(s) == RC_OK;
			leg_settle(s);
			break;
		case SESSION_ASKING:
		case SESSION_REFUSING:
		case SESSION_WELCOME:
		case SESSION_CLOSED:
			more = false;
			break;
		}
	}
	s->busy = false;
	if (s->state == SESSION_CLOSED)
		return;
	(void)conn_flush(&s->conn);
	bool gone = s->conn.broken || (s->conn.eof && (buf_len(&s->conn.rx) == 0 || (leg_owes_nothing(s) && !s->fan)));
	if (gone) {
		session_close(s, "client unexpected eof");
		return;
	}
	if (s->leaving && s->state == SESSION_READY && s->tx == TX_IDLE && legs_are_quiet(s) && !s->leg->unsynced && !s->leg->linking && !s->leg->waiter.pool && !s->fan) {
		struct diag d;
		diag_clear(&d);
		diag_set(&d, SQLSTATE_ADMIN_SHUTDOWN, "pgspan is shutting down");
		session_fatal(s, &d);
		return;
	}
	set_reading(s);
}

static void
on_input(struct conn *c)
{
	session_process(session_checked(container_of(c, struct session, conn)));
}

/* The client has taken what it was sent: its server may send on. */
static void
on_drained(struct conn *c)
{
	struct session *s = session_checked(container_of(c, struct session, conn));
	if (s->leg->server || s->fan)
		leg_resume(s);
}

static const struct conn_ops conn_ops = {on_input, on_drained};

static void
on_timer(struct ev_loop *ev, ev_timer *t, int revents)
{
	struct session *s = session_checked(container_of(t, struct session, timer));
	(void)ev;
	(void)revents;
	if (s->state == SESSION_STARTUP || s->state == SESSION_AUTH || s->state == SESSION_ASKING) {
		session_close(s, "client_login_timeout");
		return;
	}
	if (s->state == SESSION_REFUSING) {
		login_refuse(s);
		return;
	}
	if (s->waits_catalog)
		session_process(s);
	else
		leg_wait_timeout(s);
}

void
session_start(struct session_env *env, int fd, bool is_unix)
{
	/* One more than max_client_conn is told so, once it has said what it wants (it may be a cancel request). Those that say nothing
	 * must not fill the process. */
	if (atomic_load(env->n_clients) >= 2 * env->cfg->max_client_conn) {
		close(fd);
		return;
	}
	struct session *s = xcalloc(1, sizeof *s);
	int one = 1;
	if (!is_unix) {
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		tcp_tune(fd, &env->cfg->tcp);
	}
	s->magic = SESSION_MAGIC;
	s->env = env;
	s->cfg = config_ref(env->cfg);
	s->is_unix = is_unix;
	s->portal_shard = -1;
	s->key_slot = UINT32_MAX;
	s->doomed.fn = free_session;
	dlist_init(&s->settings);
	dlist_init(&s->initial);
	dlist_init(&s->namings);
	dlist_init(&s->pending);
	dlist_init(&s->savepoints);
	s->leg = &s->first_leg;
	leg_init(s, s->leg);
	dlist_init(&s->preamble);
	conn_init(&s->conn, env->loop, fd, &conn_ops);
	dlist_add_tail(&env->sessions, &s->link);
	s->counted = true;
	atomic_fetch_add(env->n_clients, 1);
	take_key(s);
	if (auth_random(s->key, sizeof s->key) != RC_OK)
		log_fatal("no random bytes can be had");
	ev_timer_init(&s->timer, on_timer, (double)s->cfg->client_login_timeout_ms / 1000., 0.);
	if (s->cfg->client_login_timeout_ms > 0)
		ev_timer_start(env->loop->ev, &s->timer);
	conn_read_start(&s->conn);
}

/* To go through all sessions while they end: what ends gives its server to another, which may find that its client is gone. */
struct dlist *
session_after(struct session_env *env, struct dlist *next)
{
	bool gone = next != &env->sessions && container_of(next, struct session, link)->state == SESSION_CLOSED;
	return gone ? env->sessions.next : next;
}

int
session_count(const struct session_env *env)
{
	int n = 0;
	for (const struct dlist *i = env->sessions.next; i != &env->sessions; i = i->next)
		n++;
	return n;
}

void
session_drain_all(struct session_env *env)
{
	env->draining = true;
	for (struct dlist *n = env->sessions.next, *next; n != &env->sessions; n = session_after(env, next)) {
		struct session *s = container_of(n, struct session, link);
		next = n->next;
		struct diag d;
		diag_clear(&d);
		s->leaving = true;
		if (s->state == SESSION_STARTUP) {
			session_close(s, "shutting down");
		} else if (s->state == SESSION_READY && !s->replication) {
			session_process(s);
		} else { /* replication has no end of its own */
			diag_set(&d, SQLSTATE_ADMIN_SHUTDOWN, "pgspan is shutting down");
			session_fatal(s, &d);
		}
	}
}

void
session_kill_all(struct session_env *env)
{
	while (!dlist_empty(&env->sessions)) {
		struct diag d;
		diag_clear(&d);
		diag_set(&d, SQLSTATE_ADMIN_SHUTDOWN, "pgspan is shutting down");
		session_fatal(container_of(env->sessions.next, struct session, link), &d);
	}
}
