/* SPDX-License-Identifier: BSD-2-Clause */
/* login - from the first packet to the first ReadyForQuery (PostgreSQL docs 55.2.1).
 *
 *   packet: GSSENCRequest ──► 'N', next packet;  SSLRequest ──► 'N', or 'S' and a handshake, next packet;
 *   a TLS record instead of a packet ──► handshake;  CancelRequest ──► passed on, closed;  StartupMessage ──►
 *   authentication ──► AuthenticationOk ──► a server tells its parameters (once per tenant, or when the client brought
 *   settings of its own: a bad one is refused in the server's words) ──► ParameterStatus, BackendKeyData, ReadyForQuery
 *
 * Authentication is login_auth.c's. An unknown database is told only after the password was right. */
#include "session_int.h"

#include "pgspan/log.h"
#include "pgspan/sqlstate.h"
#include "pgspan/tls.h"

#include <ctype.h>
#include <unistd.h>

#define TLS_RECORD_HANDSHAKE 0x16 /* no packet begins so: it would be too long */

void
login_fatal(struct session *s, const char *sqlstate, const char *message, const char *hint)
{
	struct diag d;
	diag_clear(&d);
	diag_set(&d, sqlstate, "%s", message);
	if (hint)
		diag_hint(&d, "%s", hint);
	session_fatal(s, &d);
}

void
login_fini(struct session *s)
{
	login_auth_fini(s);
	if (s->login_arena) {
		arena_fini(s->login_arena);
		free(s->login_arena);
		s->login_arena = NULL;
		s->startup = NULL;
	}
}

/* --- after authentication --- */

static void
add_settings(struct session *s)
{
	for (size_t i = 0; i < s->startup->n_settings; i++) {
		const struct startup_setting *p = &s->startup->settings[i];
		struct wbuf w = {0};
		char name[128];
		size_t n = 0;
		for (; p->name[n] && n + 1 < sizeof name; n++)
			name[n] = (char)tolower((unsigned char)p->name[n]);
		name[n] = '\0';
		/* set_config() takes the value as a start-up packet means it: SET would read a list as one name. */
		static const char head[] = "SELECT pg_catalog.set_config('", mid[] = "', '", tail[] = "', false)";
		wbuf_bytes(&w, head, sizeof head - 1);
		for (const char *c = name; *c; c++)
			wbuf_bytes(&w, *c == '\'' ? "''" : c, *c == '\'' ? 2 : 1);
		wbuf_bytes(&w, mid, sizeof mid - 1);
		bool escape = strchr(p->value, '\\') != NULL;
		(void)escape; /* standard_conforming_strings is on when these run: they come right behind RESET ALL */
		for (const char *c = p->value; *c; c++)
			wbuf_bytes(&w, *c == '\'' ? "''" : c, *c == '\'' ? 2 : 1);
		wbuf_bytes(&w, tail, sizeof tail);
		settings_add_initial(s, name, span_of(w.p, w.n - 1));
		wbuf_fini(&w);
	}
}

bool
login_authenticated(struct session *s)
{
	struct wbuf w = {0};
	const struct startup *st = s->startup;
	/* The configuration may have been read again while the client logged in. */
	if (s->cfg != s->env->cfg) {
		config_unref(s->cfg);
		s->cfg = config_ref(s->env->cfg);
	}
	const struct database_config *db = config_database(s->cfg, st->database);
	/* pg_receivewal and its like name no database: libpq says "replication". */
	if (!db && st->replication == REPLICATION_PHYSICAL && s->cfg->n_databases == 1)
		db = &s->cfg->databases[0];
	if (!db) {
		char text[256];
		snprintf(text, sizeof text, "database \"%.180s\" does not exist", st->database);
		login_fatal(s, SQLSTATE_INVALID_DATABASE, text,
		    st->replication == REPLICATION_PHYSICAL
		        ? "A section [database:replication] tells which primary pg_basebackup and pg_receivewal, which name no database, are to have."
		        : "pgspan serves the databases that have a [database:NAME] section in its configuration.");
		return false;
	}
	if (s->env->draining) {
		login_fatal(s, SQLSTATE_ADMIN_SHUTDOWN, "pgspan is shutting down", NULL);
		return false;
	}
	struct server_keys keys;
	const char *password = login_secrets(s, &keys);
	s->tenant = tenants_get(&s->env->tenants, s->cfg, db, s->user, password, &keys);
	explicit_bzero(&keys, sizeof keys);
	login_auth_fini(s);
	struct diag d;
	diag_clear(&d);
	s->admitted = tenant_admit(s->tenant, &d);
	if (!s->admitted) {
		session_fatal(s, &d);
		return false;
	}
	msg_put_auth_ok(&w);
	session_put(s, &w);
	if (st->replication == REPLICATION_NONE) {
		add_settings(s);
	} else {
		if (replication_begin(s, &d) != RC_OK) {
			session_fatal(s, &d);
			return false;
		}
	}
	ev_timer_stop(s->env->loop->ev, &s->timer);
	s->state = SESSION_WELCOME;
	login_welcome(s);
	return s->state == SESSION_READY;
}

/* Settings that a server need not be asked about: their report is the value itself. */
static bool
must_ask(const struct session *s)
{
	if (s->replication || (!s->tenant->parameters[0] && !s->tenant->parameters[1]))
		return true;
	for (const struct dlist *i = s->settings.next; i != &s->settings; i = i->next) {
		const struct setting *g = container_of(i, struct setting, link);
		if (strcmp(g->name, "application_name") != 0)
			return true;
	}
	return false;
}

static const char *
startup_value(const struct session *s, const char *name)
{
	for (size_t i = s->startup->n_settings; i-- > 0;)
		if (strcasecmp(s->startup->settings[i].name, name) == 0)
			return s->startup->settings[i].value;
	return NULL;
}

void
login_welcome(struct session *s)
{
	struct diag d;
	struct leg *l = s->leg;
	diag_clear(&d);
	if (!l->server && must_ask(s)) {
		enum rc rc = leg_attach(s, 0, 0, &d);
		if (rc == RC_AGAIN)
			return;
		if (rc == RC_FAIL) {
			session_fatal(s, &d);
			return;
		}
	}
	if (l->linking)
		return;
	struct wbuf w = {0};
	if (l->server && !s->tenant->parameters[0] && !s->tenant->parameters[1])
		tenant_learn(s->tenant, l->server);
	/* What the server of this session says now, its settings made; nothing is asked that only changes application_name. */
	char *const *values = l->server ? l->server->parameters : s->tenant->parameters;
	for (int i = 0; i < SERVER_PARAMETERS; i++) {
		const char *name = server_parameter_names[i], *value = values[i];
		if (!l->server && strcmp(name, "application_name") == 0 && startup_value(s, name))
			value = startup_value(s, name);
		if (value)
			msg_put_parameter_status(&w, name, value);
	}
	msg_put_backend_key_data(&w, session_pid(s), span_of((const char *)s->key, sizeof s->key));
	msg_put_ready_for_query(&w, 'I');
	session_put(s, &w);
	log_debug("client %s logged in to %s", s->user, s->tenant->db->name);
	login_fini(s);
	s->state = SESSION_READY;
	leg_settle(s);
}

/* --- packets --- */

static bool
start_up(struct session *s)
{
	const struct startup *st = s->startup;
	s->user = xstrdup(st->user);
	if (s->cfg->client_tls.mode >= TLS_REQUIRE && !s->conn.tls && !s->is_unix) {
		login_fatal(s, SQLSTATE_INVALID_AUTHORIZATION, "SSL connection is required", "Connect with sslmode=require or better.");
		return false;
	}
	if (atomic_load(s->env->n_clients) > s->cfg->max_client_conn) {
		login_fatal(s, SQLSTATE_TOO_MANY_CONNECTIONS, "sorry, too many clients already", "max_client_conn is the limit of this pgspan.");
		return false;
	}
	if (startup_needs_negotiation(st)) {
		struct wbuf w = {0};
		msg_put_negotiate_protocol_version(&w, 0x00030000, st->pq_options, st->n_pq_options);
		session_put(s, &w);
	}
	return login_begin_auth(s);
}

/* True: the client may go on in clear, after 'N'. */
static bool
encryption_request(struct session *s, const struct startup *req, size_t n)
{
	struct diag d;
	bool tls = req->kind == STARTUP_SSL_REQUEST;
	diag_clear(&d);
	conn_rx_consume(&s->conn, n);
	if (s->conn.tls)
		diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "unsupported frontend protocol 1234.%d: server supports 3.0 to 3.0", tls ? 5679 : 5680);
	else if (buf_len(&s->conn.rx) > 0) {
		/* What was sent before the answer was not encrypted: a man in the middle may have put it there (CVE-2021-23214). */
		diag_set(&d, SQLSTATE_PROTOCOL_VIOLATION, "received unencrypted data after %s request", tls ? "SSL" : "GSSAPI encryption");
		diag_detail(&d, "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.");
	}
	if (diag_is_set(&d)) {
		session_fatal(s, &d);
		return false;
	}
	bool yes = tls && s->cfg->tls && !s->is_unix;
	conn_send_copy(&s->conn, yes ? "S" : "N", 1);
	enum rc rc = conn_flush(&s->conn);
	if (!yes)
		return true;
	if (rc == RC_OK)
		conn_start_tls(&s->conn, s->cfg->tls);
	else
		session_close(s, "one byte can't be sent");
	return false;
}

/* PostgreSQL 17's sslnegotiation=direct: the connection begins with a TLS record. */
static bool
direct_tls(struct session *s)
{
	if (!s->cfg->tls || s->is_unix || conn_tx_pending(&s->conn) > 0) {
		session_close(s, "direct TLS where none is configured");
		return false;
	}
	s->direct_tls = true;
	conn_start_tls(&s->conn, s->cfg->tls);
	return false;
}

bool
login_startup(struct session *s)
{
	struct span rx = conn_rx(&s->conn);
	if (s->conn.shaking)
		return false;
	if (rx.n > 0 && rx.p[0] == TLS_RECORD_HANDSHAKE && !s->conn.tls)
		return direct_tls(s);
	if (s->direct_tls && !tls_has_alpn(s->conn.tls)) {
		login_fatal(s, SQLSTATE_PROTOCOL_VIOLATION, "received direct SSL connection request without ALPN protocol negotiation extension", NULL);
		return false;
	}
	ssize_t n = startup_peek(rx.p, rx.n);
	if (n == STARTUP_BAD_LENGTH) {
		session_close(s, "bad startup packet");
		return false;
	}
	if (n == 0 || (size_t)n > rx.n) {
		conn_rx_expect(&s->conn, n > 0 ? (size_t)n : 8);
		return false;
	}
	struct diag d;
	struct startup out;
	if (!s->login_arena) {
		s->login_arena = xmalloc(sizeof *s->login_arena);
		arena_init(s->login_arena);
	}
	diag_clear(&d);
	if (startup_decode(rx.p, (size_t)n, s->login_arena, &out, &d) != RC_OK) {
		session_fatal(s, &d);
		return false;
	}
	if (out.kind == STARTUP_CANCEL_REQUEST) {
		unsigned char key[4] = {0};
		uint32_t pid = out.cancel_pid;
		bool ok = out.cancel_key.n == 4;
		if (ok)
			memcpy(key, out.cancel_key.p, 4);
		struct session_env *env = s->env;
		bool elsewhere = ok && pid >> 24 != (uint32_t)(env->worker + 1) && env->cancel_elsewhere;
		int held = elsewhere ? dup(s->conn.fd) : -1;
		session_close(s, "cancel request");
		if (ok && pid >> 24 == (uint32_t)(env->worker + 1))
			session_cancel(env, pid, key);
		else if (elsewhere)
			env->cancel_elsewhere(env, pid, key, held);
		return false;
	}
	if (out.kind != STARTUP_MESSAGE)
		return encryption_request(s, &out, (size_t)n);
	s->startup = arena_alloc(s->login_arena, sizeof out);
	*s->startup = out;
	conn_rx_consume(&s->conn, (size_t)n);
	return start_up(s);
}
