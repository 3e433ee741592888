/* SPDX-License-Identifier: BSD-2-Clause */
/* login_auth - how a client proves who it is (PostgreSQL docs 21).
 *
 *   auth_type, or the first rule of auth_hba_file that fits
 *    ├─ trust, cert, peer ──► in, or refused
 *    └─ password, md5, scram-sha-256 ── a user who is not in auth_file is looked up by auth_query ──► the dialogue ──► in, or refused
 *
 * An unknown user goes through the same dialogue as a known one, does the same work, and gets the same answer as a wrong password.
 * What takes milliseconds (deriving keys from passwords) or may block (a user's name by its number) runs on other threads, while
 * the session is ASKING. A refusal is held back when its address has had several: the session is REFUSING, which is a
 * descriptor and a text. */
#include "session_int.h"

#include "pgspan/hba.h"
#include "pgspan/ident.h"
#include "pgspan/log.h"
#include "pgspan/offload.h"
#include "pgspan/sqlstate.h"
#include "pgspan/tls.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>

enum job_kind { JOB_DERIVE, JOB_CHECK_PASSWORD, JOB_PEER };

/* What a thread does for a login. Owner: itself; it outlives a session that ends meanwhile. */
struct login_job {
	struct offload_job job;
	enum job_kind kind;
	struct session *session;      /* NULL: it has ended */
	struct userlist *users;       /* a reference; NULL: nobody */
	const struct auth_user *user; /* in users; NULL: unknown */
	const unsigned char *process_key;
	char *password;
	size_t password_bytes;
	uid_t uid;
	char name[256];               /* JOB_PEER: whose process it is */
	bool right;
	bool has_client_key;
	unsigned char client_key[SCRAM_KEY_BYTES];
};

enum verdict { VERDICT_NONE, VERDICT_RIGHT, VERDICT_WRONG };

/* Owner: the session.  Lives until: it is logged in, refused, or ends. */
struct login_auth {
	enum auth_type method;
	const char *map;            /* of user names, for cert and peer; NULL: names are the same. The configuration's */
	struct userlist *looked_up; /* auth_query's answer; NULL: none, or nobody */
	bool from_cache;            /* it was there before this login */
	bool asked_again;
	bool begun;                 /* the client has been asked for its password */
	struct auth_ask ask;
	struct login_job *job;      /* NULL: none is under way */
	enum verdict verdict;       /* of JOB_CHECK_PASSWORD */
	unsigned char md5_salt[4];
	bool in_scram;
	bool has_client_key;
	unsigned char client_key[SCRAM_KEY_BYTES];
	struct scram scram;
	struct diag refusal;        /* SESSION_REFUSING's */
};

static bool ask_password(struct session *s);

void
login_auth_fini(struct session *s)
{
	struct login_auth *a = s->auth;
	if (!a)
		return;
	auth_query_cancel(&a->ask);
	if (a->job)
		a->job->session = NULL;
	userlist_unref(a->looked_up);
	explicit_bzero(a, sizeof *a);
	free(a);
	s->auth = NULL;
}

static const struct auth_user *
known_user(const struct session *s)
{
	const struct auth_user *u = s->cfg->users ? userlist_find(s->cfg->users, span_str(s->user)) : NULL;
	return u || !s->auth || !s->auth->looked_up ? u : userlist_find(s->auth->looked_up, span_str(s->user));
}

/* ---- refusals ---- */

void
login_refuse(struct session *s)
{
	struct diag d = s->auth->refusal;
	session_fatal(s, &d);
}

/* Where the client comes from. */
static const struct sockaddr *
address_of(const struct session *s, struct sockaddr_storage *ss)
{
	socklen_t n = sizeof *ss;
	memset(ss, 0, sizeof *ss);
	if (s->is_unix || getpeername(s->conn.fd, (struct sockaddr *)ss, &n) == -1)
		ss->ss_family = AF_UNIX;
	return (const struct sockaddr *)ss;
}

/* Refuses now, or in a while. */
static bool
refuse(struct session *s, const struct diag *d)
{
	struct sockaddr_storage ss;
	int64_t wait_ms = 0;
	if (s->cfg->auth_failure_delay_ms > 0)
		wait_ms = penalties_add(s->env->penalties, address_of(s, &ss), session_now_ms(s), s->cfg->auth_failure_delay_ms);
	if (wait_ms == 0) {
		session_fatal(s, d);
		return false;
	}
	login_auth_fini(s);
	s->auth = xcalloc(1, sizeof *s->auth);
	s->auth->refusal = *d;
	s->state = SESSION_REFUSING;
	conn_read_stop(&s->conn);
	ev_timer_stop(s->env->loop->ev, &s->timer);
	ev_timer_set(&s->timer, (double)wait_ms / 1000., 0.);
	ev_timer_start(s->env->loop->ev, &s->timer);
	return false;
}

static bool
wrong_password(struct session *s)
{
	struct diag d = {0};
	diag_set(&d, SQLSTATE_INVALID_PASSWORD, "password authentication failed for user \"%.180s\"", s->user);
	log_info("login of \"%s\" to \"%s\" refused: wrong password or unknown user", s->user, s->startup->database);
	if (s->auth->from_cache)
		auth_query_doubt(&s->env->auth_queries, s->cfg, s->startup->database, s->user);
	return refuse(s, &d);
}

static bool
not_allowed(struct session *s, const char *method, const char *name)
{
	struct diag d = {0};
	log_info("login of \"%s\" to \"%s\" refused: the %s is \"%s\"", s->user, s->startup->database,
	         strcmp(method, "Peer") == 0 ? "process is of" : "certificate's name", name);
	diag_set(&d, SQLSTATE_INVALID_AUTHORIZATION, "%s authentication failed for user \"%.180s\"", method, s->user);
	return refuse(s, &d);
}

/* ---- rules ---- */

static bool
refused_by_rule(struct session *s, const struct hba_rule *r, const struct sockaddr *from)
{
	const struct startup *st = s->startup;
	struct diag d = {0};
	char host[INET6_ADDRSTRLEN] = "[local]";
	const char *how = s->conn.tls ? "SSL encryption" : "no encryption", *what = r ? "pg_hba.conf rejects" : "no pg_hba.conf entry for";
	if (from->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)from)->sin_addr, host, sizeof host);
	else if (from->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr, host, sizeof host);
	if (st->replication == REPLICATION_PHYSICAL)
		diag_set(&d, SQLSTATE_INVALID_AUTHORIZATION, "%s replication connection %s host \"%s\", user \"%.100s\", %s", what, r ? "for" : "from", host,
		         s->user, how);
	else
		diag_set(&d, SQLSTATE_INVALID_AUTHORIZATION, "%s %shost \"%s\", user \"%.100s\", database \"%.100s\", %s", what,
		         r ? "connection for " : "", host, s->user, st->database, how);
	log_info("login refused: %s", d.message);
	session_fatal(s, &d);
	return false;
}

static bool
has_certificate_of(struct session *s, const char *map)
{
	char name[256];
	if (!s->conn.tls || !tls_peer_name(s->conn.tls, name, sizeof name)) {
		login_fatal(s, SQLSTATE_INVALID_AUTHORIZATION, "connection requires a valid client certificate", NULL);
		return false;
	}
	if (map ? ident_allows(s->cfg->ident, map, name, s->user) : strcmp(name, s->user) == 0)
		return true;
	return not_allowed(s, "certificate", name);
}

/* The rule that fits makes the method. False: refused. */
static bool
choose_by_rule(struct session *s)
{
	static const enum auth_type methods[] = {
	    [HBA_TRUST] = AUTH_TYPE_TRUST, [HBA_PASSWORD] = AUTH_TYPE_PASSWORD, [HBA_MD5] = AUTH_TYPE_MD5,
	    [HBA_SCRAM] = AUTH_TYPE_SCRAM, [HBA_CERT] = AUTH_TYPE_CERT,         [HBA_PEER] = AUTH_TYPE_PEER,
	};
	struct sockaddr_storage ss;
	struct hba_client c = {
	    .addr = address_of(s, &ss),
	    .tls = s->conn.tls != NULL,
	    .physical_replication = s->startup->replication == REPLICATION_PHYSICAL,
	    .database = s->startup->database,
	    .user = s->user,
	};
	const struct hba_rule *r = hba_match(s->cfg->hba, &c);
	if (!r || r->method == HBA_REJECT)
		return refused_by_rule(s, r, c.addr);
	s->auth->method = methods[r->method];
	s->auth->map = r->map;
	if (r->clientcert == HBA_CERT_OF_USER && r->method != HBA_CERT)
		return has_certificate_of(s, r->map);
	char name[256];
	if (r->clientcert == HBA_CERT_VALID && (!s->conn.tls || !tls_peer_name(s->conn.tls, name, sizeof name))) {
		login_fatal(s, SQLSTATE_INVALID_AUTHORIZATION, "connection requires a valid client certificate", NULL);
		return false;
	}
	return true;
}

/* ---- on other threads ---- */

static void
run_job(struct offload_job *o)
{
	struct login_job *j = container_of(o, struct login_job, job);
	switch (j->kind) {
	case JOB_DERIVE:
		(void)auth_user_scram(j->user, j->process_key);
		break;
	case JOB_CHECK_PASSWORD: {
		struct span password = span_of(j->password, j->password_bytes);
		const struct scram_secret *secret = j->user && auth_user_kind(j->user) == AUTH_SECRET_SCRAM ? auth_user_scram(j->user, j->process_key) : NULL;
		unsigned char salt[SCRAM_SALT_BYTES] = {0};
		struct scram_secret idle = {.iterations = SCRAM_ITERATIONS, .salt_bytes = sizeof salt};
		j->right = auth_check_cleartext(j->user, password);
		/* Who has a verifier costs two derivations, and so does everybody else. */
		j->has_client_key = scram_client_key(secret ? secret : &idle, password, j->client_key) == RC_OK && secret && j->right;
		if (!secret)
			(void)!scram_secret_matches(&idle, password);
		break;
	}
	case JOB_PEER: {
		struct passwd pw, *found;
		char buf[4096];
		if (getpwuid_r(j->uid, &pw, buf, sizeof buf, &found) == 0 && found && strlen(found->pw_name) < sizeof j->name) {
			strncpy(j->name, found->pw_name, sizeof j->name - 1);
			j->right = true;
		}
		break;
	}
	}
}

static void
free_job(struct login_job *j)
{
	if (j->password)
		explicit_bzero(j->password, j->password_bytes);
	free(j->password);
	userlist_unref(j->users);
	explicit_bzero(j, sizeof *j);
	free(j);
}

static void
on_peer_name(struct session *s, const struct login_job *j)
{
	const char *map = s->auth->map;
	if (!j->right) {
		login_fatal(s, SQLSTATE_INVALID_AUTHORIZATION, "could not look up the local user that the client runs as", NULL);
		return;
	}
	if (map ? ident_allows(s->cfg->ident, map, j->name, s->user) : strcmp(j->name, s->user) == 0)
		(void)login_authenticated(s);
	else
		(void)not_allowed(s, "Peer", j->name);
}

static void
on_job(struct loop *l, struct mail *m)
{
	struct login_job *j = container_of(container_of(m, struct offload_job, mail), struct login_job, job);
	struct session *s = j->session;
	(void)l;
	if (s) {
		struct login_auth *a = s->auth;
		a->job = NULL;
		s->state = SESSION_AUTH;
		switch (j->kind) {
		case JOB_DERIVE:
			(void)ask_password(s);
			break;
		case JOB_CHECK_PASSWORD:
			a->verdict = j->right ? VERDICT_RIGHT : VERDICT_WRONG;
			a->has_client_key = j->has_client_key;
			memcpy(a->client_key, j->client_key, sizeof a->client_key);
			break;
		case JOB_PEER:
			on_peer_name(s, j);
			break;
		}
		session_process(s);
	}
	free_job(j);
}

static bool
start_job(struct session *s, enum job_kind kind, struct span password, uid_t uid)
{
	struct login_job *j = xcalloc(1, sizeof *j);
	j->kind = kind;
	j->session = s;
	j->uid = uid;
	j->process_key = s->env->process_key;
	j->user = known_user(s);
	if (j->user)
		j->users = userlist_ref(s->auth->looked_up ? s->auth->looked_up : s->cfg->users);
	if (password.n > 0) {
		j->password = xstrndup(password.p, password.n);
		j->password_bytes = password.n;
	}
	s->auth->job = j;
	s->state = SESSION_ASKING;
	if (kind == JOB_PEER)
		offload_run(s->env->loop, &j->job, run_job, on_job);
	else
		offload_compute(s->env->loop, &j->job, run_job, on_job);
	return false;
}

/* ---- looking users up ---- */

static void
on_secret(struct auth_ask *ask, enum rc rc, struct userlist *found, const struct diag *d)
{
	struct login_auth *a = container_of(ask, struct login_auth, ask);
	struct session *s = ask->arg;
	(void)d; /* in the log already; the client is not told what the database says */
	userlist_unref(a->looked_up);
	a->looked_up = found;
	a->from_cache = false;
	if (rc == RC_FAIL) {
		login_fatal(s, SQLSTATE_CONNECTION_FAILURE, "the user could not be looked up", "The log of pgspan says why.");
		return;
	}
	s->state = SESSION_AUTH;
	if (!a->begun)
		(void)ask_password(s);
	session_process(s);
}

/* False: the answer comes later. */
static bool
look_up(struct session *s, bool fresh)
{
	struct login_auth *a = s->auth;
	struct userlist *found;
	a->ask.on_answer = on_secret;
	a->ask.arg = s;
	enum rc rc = auth_query_ask(&s->env->auth_queries, s->cfg, s->startup->database, s->user, fresh, &a->ask, &found);
	if (rc == RC_AGAIN) {
		s->state = SESSION_ASKING;
		return false;
	}
	userlist_unref(a->looked_up);
	a->looked_up = found;
	a->from_cache = rc == RC_OK;
	return true;
}

/* ---- the dialogue ---- */

static bool
begin_scram(struct session *s, const struct auth_user *u, struct wbuf *w)
{
	struct login_auth *a = s->auth;
	const struct scram_secret *secret = u ? auth_user_scram(u, s->env->process_key) : NULL;
	if (scram_begin(&a->scram, secret, span_str(s->user), s->env->process_key) != RC_OK) {
		login_fatal(s, SQLSTATE_INTERNAL_ERROR, "cannot begin a SCRAM login", NULL);
		return false;
	}
	a->in_scram = true;
	struct span binding = s->conn.tls ? tls_binding(s->conn.tls) : SPAN_NONE;
	if (binding.n > 0)
		scram_offer_binding(&a->scram, binding);
	msg_put_auth_sasl(w, binding.n > 0 ? SCRAM_MECHANISM_PLUS : NULL, SCRAM_MECHANISM);
	return true;
}

static bool
ask_password(struct session *s)
{
	struct login_auth *a = s->auth;
	struct wbuf w = {0};
	const struct auth_user *u = known_user(s);
	/* As in PostgreSQL, a user known by a SCRAM verifier is asked for SCRAM. */
	bool scram = a->method == AUTH_TYPE_SCRAM || (a->method == AUTH_TYPE_MD5 && u && auth_user_kind(u) == AUTH_SECRET_SCRAM);
	if (scram && u && auth_user_must_derive(u))
		return start_job(s, JOB_DERIVE, SPAN_NONE, 0);
	if (scram) {
		if (!begin_scram(s, u, &w))
			return false;
	} else if (a->method == AUTH_TYPE_MD5) {
		if (auth_random(a->md5_salt, sizeof a->md5_salt) != RC_OK)
			log_fatal("no random bytes can be had");
		msg_put_auth_md5(&w, a->md5_salt);
	} else {
		msg_put_auth_cleartext(&w);
	}
	a->begun = true;
	session_put(s, &w);
	s->state = SESSION_AUTH;
	return true;
}

/* True: *m* has been dealt with. */
static bool
scram_step(struct session *s, const struct wire_msg *m, bool *done)
{
	struct login_auth *a = s->auth;
	struct wbuf w = {0}, text = {0};
	struct diag d = {0};
	enum rc rc = RC_FAIL;
	if (a->scram.state == SCRAM_WANT_FIRST) {
		struct msg_sasl_initial in;
		if (msg_get_sasl_initial(m, &in) && scram_choose(&a->scram, in.mechanism))
			rc = scram_client_first(&a->scram, in.response, &text, &d);
		else
			diag_set(&d, SQLSTATE_PROTOCOL_VIOLATION, "client selected an invalid SASL authentication mechanism");
		if (rc == RC_OK)
			msg_put_auth_sasl_continue(&w, span_of(text.p, text.n));
	} else {
		rc = scram_client_final(&a->scram, span_of((const char *)m->body, m->len), &text, &d);
		if (rc == RC_OK)
			msg_put_auth_sasl_final(&w, span_of(text.p, text.n));
		*done = rc == RC_OK;
	}
	wbuf_fini(&text);
	if (rc == RC_OK) {
		session_put(s, &w);
		return true;
	}
	wbuf_fini(&w);
	if (diag_is_set(&d))
		session_fatal(s, &d);
	else
		(void)wrong_password(s);
	return false;
}

/* Checking a password in clear against a verifier takes milliseconds; so must every check where verifiers may be. */
static bool
checks_slowly(const struct session *s)
{
	return (s->cfg->users && userlist_has_scram(s->cfg->users)) || auth_query_is_on(s->cfg, s->startup->database);
}

/* True: the password is right, and *m* has been dealt with. */
static bool
password_step(struct session *s, const struct wire_msg *m)
{
	struct login_auth *a = s->auth;
	const struct auth_user *u = known_user(s);
	enum verdict v = a->verdict;
	struct span password;
	a->verdict = VERDICT_NONE;
	if (!msg_get_password(m, &password)) {
		login_fatal(s, SQLSTATE_PROTOCOL_VIOLATION, "invalid password packet", NULL);
		return false;
	}
	if (a->method == AUTH_TYPE_MD5)
		v = auth_check_md5(u, a->md5_salt, password) ? VERDICT_RIGHT : VERDICT_WRONG;
	else if (v == VERDICT_NONE && checks_slowly(s) && password.n <= AUTH_PASSWORD_MAX_BYTES)
		return start_job(s, JOB_CHECK_PASSWORD, password, 0);
	else if (v == VERDICT_NONE)
		v = auth_check_cleartext(u, password) ? VERDICT_RIGHT : VERDICT_WRONG;
	if (v == VERDICT_RIGHT)
		return true;
	/* The answer was an old one: the password may have been changed since. The same message is then looked at again. */
	if (a->from_cache && !a->asked_again) {
		a->asked_again = true;
		if (!look_up(s, true))
			return false;
		if (a->looked_up)
			return password_step(s, m);
	}
	(void)wrong_password(s);
	return false;
}

bool
login_auth(struct session *s)
{
	struct span rx = conn_rx(&s->conn);
	struct wire_msg m;
	enum wire_result r = wire_take(rx.p, rx.n, 65536, &m);
	bool done = true;
	if (r == WIRE_NEED_MORE)
		return false;
	if (r != WIRE_OK || m.type != 'p') {
		login_fatal(s, SQLSTATE_PROTOCOL_VIOLATION, "expected a password message", NULL);
		return false;
	}
	done = false;
	if (s->auth->in_scram ? !scram_step(s, &m, &done) : !(done = password_step(s, &m)))
		return false;
	conn_rx_consume(&s->conn, m.len + WIRE_HEAD_BYTES);
	return done ? login_authenticated(s) : true;
}

static bool
ask_peer(struct session *s)
{
	struct ucred cred;
	socklen_t n = sizeof cred;
	if (getsockopt(s->conn.fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == -1) {
		login_fatal(s, SQLSTATE_INVALID_AUTHORIZATION, "peer authentication is not supported on this connection", NULL);
		return false;
	}
	return start_job(s, JOB_PEER, SPAN_NONE, cred.uid);
}

bool
login_begin_auth(struct session *s)
{
	s->auth = xcalloc(1, sizeof *s->auth);
	s->auth->method = s->cfg->auth_type;
	s->auth->map = *s->cfg->auth_cert_map ? s->cfg->auth_cert_map : NULL;
	if (s->auth->method == AUTH_TYPE_HBA && !choose_by_rule(s))
		return false;
	switch (s->auth->method) {
	case AUTH_TYPE_TRUST:
		return login_authenticated(s);
	case AUTH_TYPE_CERT:
		return has_certificate_of(s, s->auth->map) && login_authenticated(s);
	case AUTH_TYPE_PEER:
		return ask_peer(s);
	case AUTH_TYPE_PASSWORD:
	case AUTH_TYPE_MD5:
	case AUTH_TYPE_SCRAM:
	case AUTH_TYPE_HBA:
		break;
	}
	if (!known_user(s) && !look_up(s, false))
		return false;
	return ask_password(s);
}

/* ---- afterwards ---- */

const char *
login_secrets(const struct session *s, struct server_keys *keys)
{
	const struct login_auth *a = s->auth;
	const struct auth_user *u = known_user(s);
	memset(keys, 0, sizeof *keys);
	if (!u)
		return NULL;
	switch (auth_user_kind(u)) {
	case AUTH_SECRET_PLAIN:
		return auth_user_secret(u);
	case AUTH_SECRET_MD5:
		keys->kind = SERVER_KEYS_MD5;
		memcpy(keys->md5, auth_user_secret(u), AUTH_MD5_BYTES);
		break;
	case AUTH_SECRET_SCRAM:
		if (a->in_scram && a->scram.state == SCRAM_DONE) {
			keys->kind = SERVER_KEYS_SCRAM;
			keys->scram = a->scram.secret;
			memcpy(keys->client_key, a->scram.client_key, SCRAM_KEY_BYTES);
		} else if (a->has_client_key) {
			keys->kind = SERVER_KEYS_SCRAM;
			keys->scram = *auth_user_scram(u, s->env->process_key);
			memcpy(keys->client_key, a->client_key, SCRAM_KEY_BYTES);
		}
		break;
	}
	return NULL;
}
