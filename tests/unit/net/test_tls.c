/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/net/buf.o proxy/net/loop.o proxy/net/offload.o proxy/net/conn.o proxy/net/tls.o proxy/net/tls_context.o proxy/net/tls_handshake.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
/* test_tls - a conn as the TLS server of an OpenSSL client, which is a thread that blocks: handshakes, bytes both ways with
 * more than the socket takes, key updates and renegotiation in between, ends. */
#include "pgspan/conn.h"
#include "pgspan/offload.h"
#include "pgspan/tls.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define BULK (3 << 20)

static char key_file[] = "/tmp/test-tls-key-XXXXXX", cert_file[] = "/tmp/test-tls-cert-XXXXXX";
static struct tls_context *ctx;

/* A key and a certificate that it signed itself, in files. */
static int
make_files(void **state)
{
	(void)state;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	FILE *k = fdopen(mkstemp(key_file), "w"), *c = fdopen(mkstemp(cert_file), "w");
	X509_set_version(cert, 2);
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
	X509_set_issuer_name(cert, X509_get_subject_name(cert));
	X509_sign(cert, key, EVP_sha384());
	PEM_write_PrivateKey(k, key, NULL, NULL, 0, NULL, NULL);
	PEM_write_X509(c, cert);
	fclose(k);
	fclose(c);
	EVP_PKEY_free(key);
	X509_free(cert);
	char none[] = "", words[] = "secure";
	struct tls_settings s = {TLS_REQUIRE, key_file, cert_file, none, words, none, none, none};
	struct diag d = {0};
	char at = 0;
	ctx = tls_context_new(&s, &at, &d);
	return ctx ? 0 : -1;
}

static int
remove_files(void **state)
{
	(void)state;
	tls_context_unref(ctx);
	offload_stop();
	return unlink(key_file) | unlink(cert_file);
}

struct client {
	pthread_t thread;
	int fd;
	void (*act)(struct client *c);
	int version;      /* 0: any */
	SSL *ssl;
	size_t got;
	bool clean;       /* all it got was as expected */
	bool goodbye;     /* close_notify came */
};

struct server {
	struct loop loop;
	struct conn conn;
	size_t got, wanted;
	bool echo;
	bool stop_at_first; /* reading pauses for a moment after the first bytes */
	bool ended;
	int calls;
	ev_timer again;
};

static void *
run_client(void *arg)
{
	struct client *c = arg;
	SSL_CTX *cx = SSL_CTX_new(TLS_client_method());
	if (c->version)
		SSL_CTX_set_max_proto_version(cx, c->version);
	c->ssl = SSL_new(cx);
	SSL_set_fd(c->ssl, c->fd);
	if (SSL_connect(c->ssl) == 1)
		c->act(c);
	SSL_free(c->ssl);
	SSL_CTX_free(cx);
	close(c->fd);
	return NULL;
}

static void
on_input(struct conn *c)
{
	struct server *s = container_of(c, struct server, conn);
	struct span rx = conn_rx(c);
	s->calls++;
	for (size_t i = 0; i < rx.n; i++)
		if ((unsigned char)rx.p[i] != (unsigned char)((s->got + i) % 251))
			abort();
	s->got += rx.n;
	if (s->echo && rx.n > 0) {
		conn_send_ref(c, rx);
		(void)conn_flush(c);
	}
	conn_rx_consume(c, rx.n);
	if (c->eof || c->broken) {
		s->ended = true;
		loop_stop(&s->loop);
	} else if (s->stop_at_first && rx.n > 0) {
		s->stop_at_first = false;
		conn_read_stop(c);
		ev_timer_start(s->loop.ev, &s->again);
	} else if (s->echo && conn_tx_pending(c) > CONN_TX_HIGH) {
		conn_read_stop(c);
	}
}

static void
on_drained(struct conn *c)
{
	conn_read_start(c);
}

static void
on_again(struct ev_loop *ev, ev_timer *t, int revents)
{
	struct server *s = container_of(t, struct server, again);
	(void)ev;
	(void)revents;
	conn_read_start(&s->conn);
}

static const struct conn_ops ops = {on_input, on_drained};

static void
talk(struct server *s, struct client *c)
{
	int fds[2], small = 8192;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	c->fd = fds[1];
	c->clean = true;
	loop_init(&s->loop);
	conn_init(&s->conn, &s->loop, fds[0], &ops);
	ev_timer_init(&s->again, on_again, 0.1, 0.);
	conn_start_tls(&s->conn, ctx);
	conn_read_start(&s->conn);
	assert_int_equal(pthread_create(&c->thread, NULL, run_client, c), 0);
	loop_run(&s->loop);
	conn_detach(&s->conn);
	close(fds[0]);
	pthread_join(c->thread, NULL);
	offload_stop(); /* a thread may still be telling the loop */
	loop_fini(&s->loop);
}

static void
send_all(struct client *c, size_t from, size_t n)
{
	unsigned char part[10007];
	for (size_t at = 0; at < n;) {
		size_t now = n - at < sizeof part ? n - at : sizeof part;
		for (size_t i = 0; i < now; i++)
			part[i] = (unsigned char)((from + at + i) % 251);
		if (SSL_write(c->ssl, part, (int)now) <= 0)
			c->clean = false;
		at += now;
	}
}

static void
read_all(struct client *c, size_t n)
{
	unsigned char part[5000];
	for (size_t end = c->got + n; c->got < end;) {
		size_t want = end - c->got < sizeof part ? end - c->got : sizeof part;
		int got = SSL_read(c->ssl, part, (int)want);
		if (got <= 0) {
			c->clean = false;
			return;
		}
		for (int i = 0; i < got; i++)
			c->clean &= part[i] == (unsigned char)((c->got + (size_t)i) % 251);
		c->got += (size_t)got;
	}
}

static void
send_some_and_leave(struct client *c)
{
	send_all(c, 0, 100000);
	(void)SSL_shutdown(c->ssl);
}

static void
leave_at_once(struct client *c)
{
	send_all(c, 0, 10);
}

/* In pieces that the sockets and the server's queue hold: sending all before reading would stop both. */
static void
echo_bulk(struct client *c)
{
	for (size_t at = 0; at < BULK; at += 65536) {
		send_all(c, at, 65536);
		read_all(c, 65536);
	}
	(void)SSL_shutdown(c->ssl);
}

static void
update_keys(struct client *c)
{
	for (int i = 0; i < 20; i++) {
		if (SSL_version(c->ssl) == TLS1_3_VERSION)
			c->clean &= SSL_key_update(c->ssl, SSL_KEY_UPDATE_REQUESTED) == 1;
		send_all(c, (size_t)i * 5000, 5000);
		read_all(c, 5000);
	}
	(void)SSL_shutdown(c->ssl);
}

static void
renegotiate(struct client *c)
{
	send_all(c, 0, 10);
	read_all(c, 10);
	/* Refused with a warning: the connection lives on. */
	(void)SSL_renegotiate(c->ssl);
	c->clean &= SSL_do_handshake(c->ssl) != 1;
}

static void
wait_for_goodbye(struct client *c)
{
	char byte;
	send_all(c, 0, 1000);
	c->goodbye = SSL_read(c->ssl, &byte, 1) == 0 && SSL_get_error(c->ssl, 0) == SSL_ERROR_ZERO_RETURN;
}

static void
conn_start_tls__bytes_and_close_notify__all_arrive_then_eof(void **state)
{
	(void)state;
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		struct server s = {0};
		struct client c = {.act = send_some_and_leave, .version = versions[i]};
		talk(&s, &c);
		assert_int_equal(s.got, 100000);
		assert_true(s.conn.eof);
		assert_false(s.conn.broken);
		assert_true(c.clean);
	}
}

static void
conn_start_tls__end_without_close_notify__is_eof(void **state)
{
	(void)state;
	struct server s = {0};
	struct client c = {.act = leave_at_once};
	talk(&s, &c);
	assert_int_equal(s.got, 10);
	assert_true(s.conn.eof);
	assert_false(s.conn.broken);
}

static void
conn_flush__more_than_the_socket_takes__in_order(void **state)
{
	(void)state;
	struct server s = {.echo = true};
	struct client c = {.act = echo_bulk};
	talk(&s, &c);
	assert_int_equal(s.got, BULK);
	assert_int_equal(c.got, BULK);
	assert_true(c.clean);
}

static void
conn_read__key_updates_and_old_version__bytes_unharmed(void **state)
{
	(void)state;
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		struct server s = {.echo = true};
		struct client c = {.act = update_keys, .version = versions[i]};
		talk(&s, &c);
		assert_int_equal(s.got, 100000);
		assert_int_equal(c.got, 100000);
		assert_true(c.clean);
	}
}

static void
conn_read__renegotiation__refused(void **state)
{
	(void)state;
	struct server s = {.echo = true};
	struct client c = {.act = renegotiate, .version = TLS1_2_VERSION};
	talk(&s, &c);
	assert_int_equal(c.got, 10);
	assert_true(c.clean);
	assert_true(s.ended);
}

/* Records that OpenSSL has already taken from the socket are not forgotten while reading is stopped. */
static void
conn_read_start__records_buffered__read_without_the_socket(void **state)
{
	(void)state;
	struct server s = {.stop_at_first = true};
	struct client c = {.act = send_some_and_leave};
	talk(&s, &c);
	assert_int_equal(s.got, 100000);
	assert_true(s.conn.eof);
}

static void
on_first_input_leave(struct conn *c)
{
	struct server *s = container_of(c, struct server, conn);
	s->got += buf_len(&c->rx);
	conn_rx_consume(c, buf_len(&c->rx));
	if (s->got >= 1000 || c->eof || c->broken)
		loop_stop(&s->loop);
}

static void
conn_detach__established__says_goodbye(void **state)
{
	(void)state;
	static const struct conn_ops leave = {on_first_input_leave, on_drained};
	struct server s = {0};
	struct client c = {.act = wait_for_goodbye};
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	c.fd = fds[1];
	c.clean = true;
	loop_init(&s.loop);
	conn_init(&s.conn, &s.loop, fds[0], &leave);
	conn_start_tls(&s.conn, ctx);
	conn_read_start(&s.conn);
	assert_int_equal(pthread_create(&c.thread, NULL, run_client, &c), 0);
	loop_run(&s.loop);
	assert_int_equal(tls_binding(s.conn.tls).n, 48); /* the certificate's signature is by SHA-384 */
	assert_string_equal(tls_version(s.conn.tls), "TLSv1.3");
	assert_false(tls_has_alpn(s.conn.tls));
	char name[64];
	assert_false(tls_peer_name(s.conn.tls, name, sizeof name));
	conn_detach(&s.conn);
	pthread_join(c.thread, NULL);
	assert_true(c.goodbye);
	close(fds[0]);
	offload_stop();
	loop_fini(&s.loop);
}

/* The owner goes while a thread computes: nothing is called back, nothing leaks. */
static void
conn_detach__while_shaking__no_callback(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		struct server s = {0};
		int fds[2];
		SSL_CTX *cx = SSL_CTX_new(TLS_client_method());
		SSL *ssl = SSL_new(cx);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		fcntl(fds[0], F_SETFL, O_NONBLOCK);
		fcntl(fds[1], F_SETFL, O_NONBLOCK);
		SSL_set_fd(ssl, fds[1]);
		assert_int_equal(SSL_connect(ssl), -1);
		loop_init(&s.loop);
		conn_init(&s.conn, &s.loop, fds[0], &ops);
		conn_start_tls(&s.conn, ctx);
		ev_run(s.loop.ev, EVRUN_ONCE); /* receives the hello, gives it to a thread */
		if (i % 2)
			usleep(2000);
		conn_detach(&s.conn);
		offload_stop();
		loop_fini(&s.loop);
		assert_int_equal(s.calls, 0);
		SSL_free(ssl);
		SSL_CTX_free(cx);
		close(fds[0]);
		close(fds[1]);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conn_start_tls__bytes_and_close_notify__all_arrive_then_eof),
		cmocka_unit_test(conn_start_tls__end_without_close_notify__is_eof),
		cmocka_unit_test(conn_flush__more_than_the_socket_takes__in_order),
		cmocka_unit_test(conn_read__key_updates_and_old_version__bytes_unharmed),
		cmocka_unit_test(conn_read__renegotiation__refused),
		cmocka_unit_test(conn_read_start__records_buffered__read_without_the_socket),
		cmocka_unit_test(conn_detach__established__says_goodbye),
		cmocka_unit_test(conn_detach__while_shaking__no_callback),
	};
	alarm(60);
	return cmocka_run_group_tests(tests, make_files, remove_files);
}
