/* SPDX-License-Identifier: BSD-2-Clause */
/* bench/logins - how many SCRAM logins a second, and how a client that is at work meanwhile fares.
 *
 * logins PORT USER PASSWORD DATABASE SECONDS CONNECTIONS RATE
 *
 * CONNECTIONS sockets log in up to ReadyForQuery, leave, and come again, RATE times a second together (0: as often as it goes). The password's keys are derived once, as a driver with a
 * cache would: what is measured is the other side. A second thread runs SELECT 1 every millisecond on a connection that stays, first
 * alone and then beside the logins, and tells its latency. bench/logins starts all that is needed. */
#include "pgspan/scram_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libpq-fe.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES_MAX = 1000000 };

struct login {
	int fd;
	struct scram_client scram;
	unsigned char in[8192];
	size_t n;
	int64_t began_us;
};

static struct {
	const char *user, *password, *database;
	int port, seconds, connections, rate, epoll;
	struct scram_secret secret;
	unsigned char key[SCRAM_KEY_BYTES];
	bool has_secret;
	long done;
	int64_t *login_us;
	atomic_bool over;
} self;

static int64_t
now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

static void
die(const char *what)
{
	fprintf(stderr, "logins: %s\n", what);
	exit(1);
}

static void
put(const struct login *l, const struct wbuf *w)
{
	if (send(l->fd, w->p, w->n, MSG_NOSIGNAL) != (ssize_t)w->n)
		die("a short write");
}

static void
begin(struct login *l)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)self.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct linger hard = {1, 0}; /* no TIME_WAIT: ports would run out */
	struct wbuf w = {0}, body = {0};
	int one = 1;
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = l};
	l->n = 0;
	l->began_us = now_us();
	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd == -1 || connect(l->fd, (struct sockaddr *)&a, sizeof a) == -1)
		die(strerror(errno));
	(void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	(void)setsockopt(l->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
	epoll_ctl(self.epoll, EPOLL_CTL_ADD, l->fd, &e);
	wbuf_cstr(&body, "user");
	wbuf_cstr(&body, self.user);
	wbuf_cstr(&body, "database");
	wbuf_cstr(&body, self.database);
	wbuf_u8(&body, 0);
	wbuf_u32(&w, (uint32_t)body.n + 8);
	wbuf_u32(&w, 196608);
	wbuf_bytes(&w, body.p, body.n);
	put(l, &w);
	wbuf_fini(&w);
	wbuf_fini(&body);
}

/* The keys to the salt that the server names, once. */
static void
learn(const char *first)
{
	const char *s = strstr(first, ",s="), *i = strstr(first, ",i=");
	unsigned char salt[128];
	if (!s || !i || i - s - 3 > 128)
		die("no salt");
	int n = EVP_DecodeBlock(salt, (const unsigned char *)s + 3, (int)(i - s - 3));
	for (const char *p = i; p[-1] == '='; p--)
		n--;
	uint32_t iterations = (uint32_t)strtoul(i + 3, NULL, 10);
	if (scram_secret_from_password(span_str(self.password), salt, (size_t)n, iterations, &self.secret) != RC_OK ||
	    scram_client_key(&self.secret, span_str(self.password), self.key) != RC_OK)
		die("no keys");
	self.has_secret = true;
}

static void
authenticate(struct login *l, uint32_t code, struct span rest)
{
	struct wbuf w = {0};
	struct diag d = {0};
	if (code == 10) {
		struct wbuf first = {0};
		if (scram_client_begin(&l->scram, &self.secret, self.key) != RC_OK)
			die("no randomness");
		scram_client_put_first(&l->scram, &first);
		wbuf_begin(&w, 'p');
		wbuf_cstr(&w, SCRAM_MECHANISM);
		wbuf_u32(&w, (uint32_t)first.n);
		wbuf_bytes(&w, first.p, first.n);
		wbuf_end(&w);
		wbuf_fini(&first);
	} else if (code == 11) {
		char text[512];
		snprintf(text, sizeof text, "%.*s", (int)rest.n, rest.p);
		if (!self.has_secret)
			learn(text);
		wbuf_begin(&w, 'p');
		if (scram_client_put_final(&l->scram, rest, &w, &d) != RC_OK)
			die(d.message);
		wbuf_end(&w);
	} else if (code == 12 && !scram_client_verify(&l->scram, rest)) {
		die("the server does not know the verifier");
	} else if (code != 0 && code != 12) {
		die("the server asks for something other than SCRAM");
	}
	if (w.n > 0)
		put(l, &w);
	wbuf_fini(&w);
}

/* True: logged in. */
static bool
take(struct login *l)
{
	ssize_t got = recv(l->fd, l->in + l->n, sizeof l->in - l->n, 0);
	if (got <= 0)
		die("the connection was closed");
	l->n += (size_t)got;
	struct wire_msg m;
	size_t used = 0;
	while (wire_take(l->in + used, l->n - used, sizeof l->in, &m) == WIRE_OK) {
		used += m.len + WIRE_HEAD_BYTES;
		if (m.type == 'E')
			die("a login was refused");
		if (m.type == 'R')
			authenticate(l, wire_load_u32(m.body), span_of((const char *)m.body + 4, m.len - 4));
		if (m.type == 'Z')
			return true;
	}
	memmove(l->in, l->in + used, l->n - used);
	l->n -= used;
	return false;
}

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void
print_percentiles(const char *what, int64_t *v, long n)
{
	qsort(v, (size_t)n, sizeof *v, compare);
	if (n > 0)
		printf("%-34s p50 %lld us, p95 %lld us, p99 %lld us, worst %lld us (%ld)\n", what, (long long)v[n / 2], (long long)v[n * 95 / 100],
		       (long long)v[n * 99 / 100], (long long)v[n - 1], n);
}

static void
run_statements(PGconn *pg, const char *what, int64_t until_us)
{
	int64_t *v = malloc(SAMPLES_MAX * sizeof *v);
	long n = 0;
	while (!atomic_load(&self.over) && now_us() < until_us && n < SAMPLES_MAX) {
		int64_t at = now_us();
		PGresult *r = PQexec(pg, "SELECT 1");
		if (PQresultStatus(r) != PGRES_TUPLES_OK)
			die(PQerrorMessage(pg));
		PQclear(r);
		v[n++] = now_us() - at;
		usleep(1000);
	}
	print_percentiles(what, v, n);
	free(v);
}

static void *
work(void *arg)
{
	run_statements(arg, "SELECT 1 beside the logins:", INT64_MAX);
	return NULL;
}

int
main(int argc, char **argv)
{
	if (argc != 8)
		die("usage: logins PORT USER PASSWORD DATABASE SECONDS CONNECTIONS RATE");
	self.port = (int)strtol(argv[1], NULL, 10);
	self.user = argv[2];
	self.password = argv[3];
	self.database = argv[4];
	self.seconds = (int)strtol(argv[5], NULL, 10);
	self.connections = (int)strtol(argv[6], NULL, 10);
	self.rate = (int)strtol(argv[7], NULL, 10);
	self.epoll = epoll_create1(EPOLL_CLOEXEC);
	self.login_us = malloc(SAMPLES_MAX * sizeof *self.login_us);
	const char *keys[] = {"host", "port", "user", "password", "dbname", NULL}, *values[] = {"127.0.0.1", argv[1], self.user, self.password, self.database, NULL};
	PGconn *pg = PQconnectdbParams(keys, values, 0);
	if (PQstatus(pg) != CONNECTION_OK)
		die(PQerrorMessage(pg));
	run_statements(pg, "SELECT 1 alone:", now_us() + 2000000);
	struct login *all = calloc((size_t)self.connections, sizeof *all);
	pthread_t thread;
	pthread_create(&thread, NULL, work, pg);
	int64_t start = now_us(), end = start + self.seconds * INT64_C(1000000);
	struct login **idle = calloc((size_t)self.connections, sizeof(struct login *));
	int n_idle = 0;
	long begun = 0;
	for (int i = 0; i < self.connections; i++)
		idle[n_idle++] = &all[i];
	for (int64_t now; (now = now_us()) < end;) {
		struct epoll_event e[64];
		for (; n_idle > 0 && (self.rate == 0 || begun < (now - start) * self.rate / 1000000); begun++)
			begin(idle[--n_idle]);
		int n = epoll_wait(self.epoll, e, 64, 1);
		for (int i = 0; i < n; i++) {
			struct login *l = e[i].data.ptr;
			if (!take(l))
				continue;
			if (self.done < SAMPLES_MAX)
				self.login_us[self.done] = now_us() - l->began_us;
			self.done++;
			close(l->fd);
			idle[n_idle++] = l;
		}
	}
	double seconds = (double)(now_us() - start) / 1e6;
	atomic_store(&self.over, true);
	pthread_join(thread, NULL);
	print_percentiles("a login:", self.login_us, self.done < SAMPLES_MAX ? self.done : SAMPLES_MAX);
	printf("%.0f logins a second\n", (double)self.done / seconds);
	PQfinish(pg);
	free(all);
	free(idle);
	free(self.login_us);
	return 0;
}
