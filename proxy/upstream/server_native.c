/* SPDX-License-Identifier: BSD-2-Clause */
/* server_native - logging in to a server without libpq (PostgreSQL docs 55.2.1).
 *
 *   RESOLVE ──► CONNECT ──► (TLS_ASK ──► TLS_SHAKE) ──► LOGIN ──► done
 *
 * libpq logs in by a password, and sometimes none is known: only the verifier that the user list or auth_query gave, and the ClientKey
 * that a client's proof told (SCRAM), or the hash that md5 goes by. This is for that case alone; everything else stays libpq's.
 * It takes the connection string's host, hostaddr, port, dbname, options, application_name, client_encoding, sslmode and sslrootcert.
 * sslmode=allow is taken as disable, and prefer does not try again in clear after a handshake that failed.
 *
 * Messages are read to the byte, never ahead: what follows the first ReadyForQuery is the connection's. */
#include "server_int.h"

#include "pgspan/msg.h"
#include "pgspan/offload.h"
#include "pgspan/scram_client.h"
#include "pgspan/sqlstate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libpq-fe.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/un.h>
#include <unistd.h>

enum { MESSAGE_MAX_BYTES = 65536, CANCEL_TIMEOUT_MS = 5000 };
enum step { STEP_RESOLVE, STEP_CONNECT, STEP_TLS_ASK, STEP_TLS_SHAKE, STEP_LOGIN, STEP_DONE };
enum scram_step { SCRAM_STEP_NONE, SCRAM_STEP_FIRST, SCRAM_STEP_FINAL, SCRAM_STEP_VERIFIED };

/* getaddrinfo() blocks. Owner: itself. */
struct resolve_job {
	struct offload_job job;
	struct server *server; /* NULL: it has ended */
	char *host, *port;
	struct addrinfo *found;
	int rc;
};

struct native {
	enum step step;
	int fd;
	SSL_CTX *ctx;
	SSL *ssl;
	PQconninfoOption *options;
	char *user;
	struct resolve_job *job;
	struct addrinfo *addrs, *at; /* at: being tried */
	struct native_target target;

	struct wbuf out;
	size_t sent;
	unsigned char *in;
	size_t n_in, cap_in;

	struct server_keys keys;
	struct scram_client scram;
	enum scram_step scram_step;
	bool admitted; /* AuthenticationOk has come */
};

static void step(struct server *s);

static const char *
option(const struct native *n, const char *name)
{
	for (const PQconninfoOption *o = n->options; o && o->keyword; o++)
		if (strcmp(o->keyword, name) == 0)
			return o->val && *o->val ? o->val : NULL;
	return NULL;
}

static const char *
port_of(const struct native *n)
{
	const char *port = option(n, "port");
	return port ? port : "5432";
}

static void PRINTF_LIKE(3, 4)
fail(struct server *s, const char *sqlstate, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	s->native->step = STEP_DONE;
	OPENSSL_cleanse(&s->native->keys, sizeof s->native->keys);
	server_login_failed(s, sqlstate, text);
}

/* ---- bytes ---- */

static void
on_io(struct ev_loop *ev, ev_io *w, int revents)
{
	struct server *s = container_of(w, struct server, login_io);
	(void)ev;
	(void)revents;
	ev_io_stop(s->loop->ev, &s->login_io);
	step(s);
}

static void
wait_for(struct server *s, int events)
{
	ev_io_stop(s->loop->ev, &s->login_io);
	ev_io_init(&s->login_io, on_io, s->native->fd, events);
	ev_io_start(s->loop->ev, &s->login_io);
}

/* What to wait for after an SSL_* call gave *rc*; 0: broken. */
static int
tls_wants(struct native *n, int rc)
{
	int e = SSL_get_error(n->ssl, rc);
	return e == SSL_ERROR_WANT_READ ? EV_READ : e == SSL_ERROR_WANT_WRITE ? EV_WRITE : 0;
}

/* Reads or writes some. >0: bytes; 0: wait, a watcher is set; -1: failed, and that was told. */
static ssize_t
move(struct server *s, void *p, size_t len, bool writing)
{
	struct native *n = s->native;
	if (n->ssl && n->step == STEP_LOGIN) {
		ERR_clear_error();
		int rc = writing ? SSL_write(n->ssl, p, (int)len) : SSL_read(n->ssl, p, (int)len);
		int events = rc > 0 ? 0 : tls_wants(n, rc);
		if (rc > 0)
			return rc;
		if (events) {
			wait_for(s, events);
			return 0;
		}
	} else {
		ssize_t rc;
		do
			rc = writing ? send(n->fd, p, len, MSG_NOSIGNAL) : recv(n->fd, p, len, 0);
		while (rc == -1 && errno == EINTR);
		if (rc > 0)
			return rc;
		if (rc == -1 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			wait_for(s, writing ? EV_WRITE : EV_READ);
			return 0;
		}
	}
	fail(s, SQLSTATE_CONNECTION_FAILURE, "the server closed the connection during the log-in");
	return -1;
}

static bool
flush(struct server *s)
{
	struct native *n = s->native;
	while (n->sent < n->out.n) {
		ssize_t rc = move(s, n->out.p + n->sent, n->out.n - n->sent, true);
		if (rc <= 0)
			return false;
		n->sent += (size_t)rc;
	}
	if (n->out.n > 0)
		OPENSSL_cleanse(n->out.p, n->out.n);
	n->out.n = n->sent = 0;
	return true;
}

/* True when *want* bytes are there. */
static bool
fill(struct server *s, size_t want)
{
	struct native *n = s->native;
	if (n->cap_in < want) {
		n->cap_in = want < 1024 ? 1024 : want;
		n->in = xrealloc(n->in, n->cap_in);
	}
	while (n->n_in < want) {
		ssize_t rc = move(s, n->in + n->n_in, want - n->n_in, false);
		if (rc <= 0)
			return false;
		n->n_in += (size_t)rc;
	}
	return true;
}

/* ---- connecting ---- */

/* Tries the address at n->at, or the next ones. */
static void
try_connect(struct server *s, int why)
{
	struct native *n = s->native;
	int one = 1;
	for (; n->at; n->at = n->at->ai_next) {
		if (n->fd != -1)
			close(n->fd);
		n->fd = socket(n->at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (n->fd == -1) {
			why = errno;
			continue;
		}
		if (n->at->ai_family != AF_UNIX) {
			(void)setsockopt(n->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
			(void)setsockopt(n->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
		}
		memcpy(&n->target.addr, n->at->ai_addr, n->at->ai_addrlen);
		n->target.addr_bytes = n->at->ai_addrlen;
		n->step = STEP_CONNECT;
		if (connect(n->fd, n->at->ai_addr, n->at->ai_addrlen) == 0 || errno == EINPROGRESS) {
			wait_for(s, EV_WRITE);
			return;
		}
		why = errno;
	}
	const char *host = option(n, "host");
	fail(s, SQLSTATE_CONNECTION_FAILURE, "connection to server at \"%s\", port %s failed: %s", host ? host : "(local)", port_of(n), strerror(why));
}

/* The address of a Unix socket as getaddrinfo() would give it; in one piece, for free(). */
static struct addrinfo *
unix_address(const char *folder, const char *port)
{
	struct addrinfo *a = xcalloc(1, sizeof *a + sizeof(struct sockaddr_un));
	struct sockaddr_un *un = (void *)(a + 1);
	un->sun_family = AF_UNIX;
	int n = snprintf(un->sun_path, sizeof un->sun_path, "%s/.s.PGSQL.%s", folder, port);
	if (n < 0 || (size_t)n >= sizeof un->sun_path) {
		free(a);
		return NULL;
	}
	a->ai_family = AF_UNIX;
	a->ai_addr = (struct sockaddr *)un;
	a->ai_addrlen = sizeof *un;
	return a;
}

static void
free_addresses(struct addrinfo *a)
{
	if (a && a->ai_family == AF_UNIX)
		free(a);
	else if (a)
		freeaddrinfo(a);
}

static void
run_resolve(struct offload_job *o)
{
	struct resolve_job *j = container_of(o, struct resolve_job, job);
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
	if (*j->host != '/')
		j->rc = getaddrinfo(j->host, j->port, &hints, &j->found);
	else if (!(j->found = unix_address(j->host, j->port)))
		j->rc = EAI_OVERFLOW;
}

static void
on_resolved(struct loop *l, struct mail *m)
{
	struct resolve_job *j = container_of(container_of(m, struct offload_job, mail), struct resolve_job, job);
	struct server *s = j->server;
	(void)l;
	if (s) {
		struct native *n = s->native;
		n->job = NULL;
		if (j->rc == 0) {
			n->addrs = n->at = j->found;
			j->found = NULL;
			try_connect(s, 0);
		} else {
			fail(s, SQLSTATE_CONNECTION_FAILURE, "could not translate host name \"%s\" to address: %s", j->host, gai_strerror(j->rc));
		}
	}
	free_addresses(j->found);
	free(j->host);
	free(j->port);
	free(j);
}

/* Told by the timer, lest on_open is called from inside server_open_native(). */
static void
fail_later(struct server *s, const char *message)
{
	diag_set(&s->failure, SQLSTATE_CONNECTION_FAILURE, "%s", message);
	ev_timer_stop(s->loop->ev, &s->login_timer);
	ev_timer_set(&s->login_timer, 0., 0.);
	ev_timer_start(s->loop->ev, &s->login_timer);
}

void
native_start(struct server *s, const char *conninfo, const char *user, const struct server_keys *keys)
{
	struct native *n = s->native = xcalloc(1, sizeof *n);
	n->fd = -1;
	n->user = xstrdup(user);
	n->keys = *keys;
	n->options = PQconninfoParse(conninfo, NULL);
	if (!n->options) {
		fail_later(s, "the connection string is malformed");
		return;
	}
	const char *host = option(n, "hostaddr") ? option(n, "hostaddr") : option(n, "host");
	struct resolve_job *j = n->job = xcalloc(1, sizeof *j);
	j->server = s;
	j->host = xstrdup(host ? host : "/var/run/postgresql");
	j->port = xstrdup(port_of(n));
	offload_run(s->loop, &j->job, run_resolve, on_resolved);
}

/* ---- TLS ---- */

static bool
mode_is(const struct native *n, const char *mode)
{
	const char *is = option(n, "sslmode");
	return strcmp(is ? is : "prefer", mode) == 0;
}

static bool
wants_tls(const struct native *n)
{
	return n->target.addr.ss_family != AF_UNIX && !mode_is(n, "disable") && !mode_is(n, "allow");
}

/* The name or address that the certificate must be for. */
static bool
set_expected_host(struct native *n)
{
	const char *host = option(n, "host");
	unsigned char ip[16];
	if (!host)
		host = option(n, "hostaddr");
	if (!host)
		return false;
	if (inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(n->ssl), host) == 1;
	SSL_set_hostflags(n->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	/* SSL_set_tlsext_host_name(), whose cast -Wcast-qual does not like. */
	return SSL_set1_host(n->ssl, host) == 1 &&
	       SSL_ctrl(n->ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, (void *)(uintptr_t)host) == 1;
}

static bool
begin_tls(struct server *s)
{
	struct native *n = s->native;
	const char *ca = option(n, "sslrootcert"), *cert = option(n, "sslcert"), *key = option(n, "sslkey");
	bool full = mode_is(n, "verify-full"), verifies = full || mode_is(n, "verify-ca");
	n->ctx = SSL_CTX_new(TLS_client_method());
	if (!n->ctx || SSL_CTX_set_min_proto_version(n->ctx, TLS1_2_VERSION) != 1) {
		fail(s, SQLSTATE_CONNECTION_FAILURE, "no TLS can be made");
		return false;
	}
	if (verifies && !ca) {
		fail(s, SQLSTATE_CONNECTION_FAILURE, "sslmode=verify-ca and verify-full need sslrootcert where pgspan logs in with a client's keys");
		return false;
	}
	if (ca && SSL_CTX_load_verify_locations(n->ctx, ca, NULL) != 1) {
		fail(s, SQLSTATE_CONNECTION_FAILURE, "sslrootcert \"%s\" cannot be read", ca);
		return false;
	}
	if (cert && (SSL_CTX_use_certificate_chain_file(n->ctx, cert) != 1 ||
	             (key && SSL_CTX_use_PrivateKey_file(n->ctx, key, SSL_FILETYPE_PEM) != 1))) {
		fail(s, SQLSTATE_CONNECTION_FAILURE, "sslcert \"%s\" or its key cannot be used", cert);
		return false;
	}
	if (ca) /* as libpq: who has a root certificate wants it to count */
		SSL_CTX_set_verify(n->ctx, SSL_VERIFY_PEER, NULL);
	n->ssl = SSL_new(n->ctx);
	if (!n->ssl || SSL_set_fd(n->ssl, n->fd) != 1 || (full && !set_expected_host(n))) {
		fail(s, SQLSTATE_CONNECTION_FAILURE, "no TLS can be made");
		return false;
	}
	n->step = STEP_TLS_SHAKE;
	return true;
}

static bool
shake(struct server *s)
{
	struct native *n = s->native;
	ERR_clear_error();
	int rc = SSL_connect(n->ssl);
	if (rc == 1)
		return true;
	int events = tls_wants(n, rc);
	if (events) {
		wait_for(s, events);
		return false;
	}
	long verified = SSL_get_verify_result(n->ssl);
	unsigned long e = ERR_peek_last_error();
	fail(s, SQLSTATE_CONNECTION_FAILURE, "SSL error: %s",
	     verified != X509_V_OK ? X509_verify_cert_error_string(verified) : e ? ERR_reason_error_string(e) : "the connection was closed");
	return false;
}

/* The answer to an SSLRequest: one byte, and nothing that might have been put behind it in clear (CVE-2021-23222): no more is read. */
static bool
take_tls_answer(struct server *s)
{
	struct native *n = s->native;
	if (!flush(s) || !fill(s, 1))
		return false;
	n->n_in = 0;
	if (n->in[0] == 'S')
		return begin_tls(s);
	if (n->in[0] == 'N' && mode_is(n, "prefer"))
		return true;
	fail(s, SQLSTATE_CONNECTION_FAILURE, n->in[0] == 'N' ? "server does not support SSL, but SSL was required" : "invalid response to SSL negotiation");
	return false;
}

/* ---- messages ---- */

static void
put_pair(struct wbuf *w, const char *name, const char *value)
{
	if (!value)
		return;
	wbuf_cstr(w, name);
	wbuf_cstr(w, value);
}

static void
put_startup(struct native *n)
{
	struct wbuf body = {0};
	put_pair(&body, "user", n->user);
	put_pair(&body, "database", option(n, "dbname"));
	put_pair(&body, "application_name", option(n, "application_name") ? option(n, "application_name") : option(n, "fallback_application_name"));
	put_pair(&body, "client_encoding", option(n, "client_encoding"));
	put_pair(&body, "options", option(n, "options"));
	wbuf_u8(&body, 0);
	wbuf_u32(&n->out, (uint32_t)body.n + 8);
	wbuf_u32(&n->out, 0x00030000);
	wbuf_bytes(&n->out, body.p, body.n);
	wbuf_fini(&body);
	n->step = STEP_LOGIN;
}

static bool
put_sasl(struct server *s, struct span mechanisms)
{
	struct native *n = s->native;
	bool offered = false;
	while (mechanisms.n > 0 && *mechanisms.p) {
		const char *end = memchr(mechanisms.p, 0, mechanisms.n);
		if (!end)
			break;
		offered |= strcmp(mechanisms.p, SCRAM_MECHANISM) == 0;
		mechanisms = span_of(end + 1, mechanisms.n - (size_t)(end + 1 - mechanisms.p));
	}
	if (!offered || n->keys.kind != SERVER_KEYS_SCRAM) {
		fail(s, SQLSTATE_INVALID_PASSWORD, offered ? "the server wants SCRAM, but pgspan knows only the user's md5 hash"
		                                          : "none of the server's SASL authentication mechanisms are supported");
		return false;
	}
	if (scram_client_begin(&n->scram, &n->keys.scram, n->keys.client_key) != RC_OK) {
		fail(s, SQLSTATE_INTERNAL_ERROR, "no random bytes can be had");
		return false;
	}
	struct wbuf first = {0};
	scram_client_put_first(&n->scram, &first);
	wbuf_begin(&n->out, 'p');
	wbuf_cstr(&n->out, SCRAM_MECHANISM);
	wbuf_u32(&n->out, (uint32_t)first.n);
	wbuf_bytes(&n->out, first.p, first.n);
	wbuf_end(&n->out);
	wbuf_fini(&first);
	n->scram_step = SCRAM_STEP_FIRST;
	return true;
}

static bool
authentication(struct server *s, uint32_t code, struct span rest)
{
	struct native *n = s->native;
	struct diag d = {0};
	char md5[AUTH_MD5_BYTES];
	switch (code) {
	case 0:
		if (n->scram_step == SCRAM_STEP_FIRST || n->scram_step == SCRAM_STEP_FINAL)
			break; /* it has not proved that it knows the verifier */
		n->admitted = true;
		return true;
	case 5:
		if (n->keys.kind != SERVER_KEYS_MD5) {
			fail(s, SQLSTATE_INVALID_PASSWORD, "the server wants md5, but pgspan knows only the user's SCRAM verifier");
			return false;
		}
		if (rest.n != 4 || auth_md5_response(n->keys.md5, (const unsigned char *)rest.p, md5) != RC_OK)
			break;
		wbuf_begin(&n->out, 'p');
		wbuf_cstr(&n->out, md5);
		wbuf_end(&n->out);
		return true;
	case 10:
		if (n->scram_step != SCRAM_STEP_NONE)
			break;
		return put_sasl(s, rest);
	case 11:
		if (n->scram_step != SCRAM_STEP_FIRST)
			break;
		wbuf_begin(&n->out, 'p');
		if (scram_client_put_final(&n->scram, rest, &n->out, &d) != RC_OK) {
			fail(s, d.sqlstate, "%s", d.message);
			return false;
		}
		wbuf_end(&n->out);
		n->scram_step = SCRAM_STEP_FINAL;
		return true;
	case 12:
		if (n->scram_step != SCRAM_STEP_FINAL || !scram_client_verify(&n->scram, rest))
			break;
		n->scram_step = SCRAM_STEP_VERIFIED;
		return true;
	default:
		fail(s, SQLSTATE_INVALID_PASSWORD, "the server asks for the password itself (authentication request %u), which pgspan does not know", code);
		return false;
	}
	fail(s, SQLSTATE_PROTOCOL_VIOLATION, "the server's authentication messages are not right");
	return false;
}

static bool
refused(struct server *s, const struct wire_msg *m)
{
	struct span code = SPAN_NONE, text = SPAN_NONE;
	char sqlstate[6] = SQLSTATE_CONNECTION_FAILURE;
	if (msg_error_field(m, 'C', &code) && code.n == 5)
		memcpy(sqlstate, code.p, 5);
	(void)!msg_error_field(m, 'M', &text);
	fail(s, sqlstate, "FATAL:  %.*s", (int)text.n, text.n ? text.p : "");
	return false;
}

static void
done(struct server *s)
{
	struct native *n = s->native;
	n->step = STEP_DONE;
	OPENSSL_cleanse(&n->keys, sizeof n->keys);
	free(n->in);
	n->in = NULL;
	wbuf_fini(&n->out);
	free_addresses(n->addrs);
	n->addrs = n->at = NULL;
	server_login_done(s, n->fd, n->ssl);
}

/* One message; false: wait, or it is over. */
static bool
take_message(struct server *s)
{
	struct native *n = s->native;
	struct wire_msg m;
	struct span key;
	char status;
	if (!flush(s) || !fill(s, WIRE_HEAD_BYTES))
		return false;
	uint32_t len = wire_load_u32(n->in + 1);
	if (len < 4 || len > MESSAGE_MAX_BYTES) {
		fail(s, SQLSTATE_PROTOCOL_VIOLATION, "the server sent a message of %u bytes during the log-in", len);
		return false;
	}
	if (!fill(s, (size_t)len + 1))
		return false;
	if (wire_take((const char *)n->in, n->n_in, MESSAGE_MAX_BYTES + 1, &m) != WIRE_OK) {
		fail(s, SQLSTATE_PROTOCOL_VIOLATION, "the server sent a malformed message");
		return false;
	}
	n->n_in = 0;
	switch (m.type) {
	case 'R':
		if (m.len < 4 || n->admitted)
			break;
		return authentication(s, wire_load_u32(m.body), span_of((const char *)m.body + 4, m.len - 4));
	case 'E':
		return refused(s, &m);
	case 'N':
	case 'v':
		return true;
	case 'S':
		server_note_parameter(s, &m);
		return true;
	case 'K':
		if (!n->admitted || !msg_get_backend_key_data(&m, &s->pid, &key) || key.n != sizeof n->target.key)
			break;
		n->target.pid = s->pid;
		memcpy(n->target.key, key.p, key.n);
		return true;
	case 'Z':
		if (!n->admitted || !msg_get_ready_for_query(&m, &status))
			break;
		done(s);
		return false;
	default:
		break;
	}
	fail(s, SQLSTATE_PROTOCOL_VIOLATION, "the server broke the protocol during the log-in");
	return false;
}

static void
step(struct server *s)
{
	struct native *n = s->native;
	if (n->step == STEP_CONNECT) {
		int why = 0;
		socklen_t len = sizeof why;
		if (getsockopt(n->fd, SOL_SOCKET, SO_ERROR, &why, &len) == -1)
			why = errno;
		if (why) {
			n->at = n->at->ai_next;
			try_connect(s, why);
			return;
		}
		if (wants_tls(n)) {
			wbuf_u32(&n->out, 8);
			wbuf_u32(&n->out, 80877103); /* SSLRequest */
			n->step = STEP_TLS_ASK;
		} else {
			put_startup(n);
		}
	}
	if (n->step == STEP_TLS_ASK) {
		if (!take_tls_answer(s))
			return;
		if (n->step == STEP_TLS_ASK)
			put_startup(n);
	}
	if (n->step == STEP_TLS_SHAKE) {
		if (!shake(s))
			return;
		put_startup(n);
	}
	while (n->step == STEP_LOGIN && take_message(s))
		;
}

/* ---- afterwards ---- */

void
native_end(struct server *s)
{
	static const char terminate[] = {'X', 0, 0, 0, 4};
	if (s->state != SERVER_READY || s->conn.broken || s->conn.eof || conn_tx_pending(&s->conn) > 0)
		return;
	conn_send_copy(&s->conn, terminate, sizeof terminate);
	(void)conn_flush(&s->conn);
}

void
native_free(struct server *s)
{
	struct native *n = s->native;
	if (!n)
		return;
	if (n->job)
		n->job->server = NULL;
	if (n->ssl) {
		SSL_set_quiet_shutdown(n->ssl, 1);
		(void)SSL_shutdown(n->ssl); /* keeps the session from counting as broken; Terminate has said goodbye */
		SSL_free(n->ssl);
	}
	SSL_CTX_free(n->ctx);
	if (n->fd != -1)
		close(n->fd);
	free_addresses(n->addrs);
	PQconninfoFree(n->options);
	wbuf_fini(&n->out);
	free(n->in);
	free(n->user);
	OPENSSL_cleanse(n, sizeof *n);
	free(n);
	s->native = NULL;
}

void
native_get_target(const struct server *s, struct native_target *t)
{
	*t = s->native->target;
}

static bool
wait_fd(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	return poll(&p, 1, CANCEL_TIMEOUT_MS) == 1;
}

/* Like PQcancel(): in clear, and done when the server has closed the connection, which is after it has sent the signal. */
void
native_cancel(const struct native_target *t)
{
	unsigned char packet[16];
	char byte;
	int fd = socket(t->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return;
	wire_store_u32(packet, sizeof packet);
	wire_store_u32(packet + 4, 80877102);
	wire_store_u32(packet + 8, t->pid);
	memcpy(packet + 12, t->key, sizeof t->key);
	int rc = connect(fd, (const struct sockaddr *)&t->addr, t->addr_bytes);
	if ((rc == 0 || (errno == EINPROGRESS && wait_fd(fd, POLLOUT))) && send(fd, packet, sizeof packet, MSG_NOSIGNAL) == sizeof packet && wait_fd(fd, POLLIN))
		(void)!recv(fd, &byte, 1, 0);
	close(fd);
}
