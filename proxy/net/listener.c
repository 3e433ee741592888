/* SPDX-License-Identifier: BSD-2-Clause */
/* listener - see pgspan/listener.h. */
#include "pgspan/listener.h"

#include "pgspan/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024
#define ACCEPTS_PER_EVENT 32
#define RETRY_S 0.1

static void
on_accept(struct ev_loop *ev, ev_io *w, int revents)
{
	struct listener_socket *k = container_of(w, struct listener_socket, io);
	struct listener *l = k->owner;
	(void)revents;
	for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
		int fd = accept4(k->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			l->fn(l->arg, fd);
			continue;
		}
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			log_warning("cannot accept a client: %s", strerror(errno));
			for (int n = 0; n < l->n; n++)
				ev_io_stop(ev, &l->sockets[n].io);
			ev_timer_set(&l->retry, RETRY_S, 0.);
			ev_timer_start(ev, &l->retry);
			return;
		}
		/* The client has gone already, or a passing fault: the next one. */
	}
}

static void
on_retry(struct ev_loop *ev, ev_timer *t, int revents)
{
	struct listener *l = t->data;
	(void)ev;
	(void)revents;
	listener_start(l);
}

void
listener_init(struct listener *l, struct loop *loop, listener_fn fn, void *arg)
{
	memset(l, 0, sizeof *l);
	l->loop = loop;
	l->fn = fn;
	l->arg = arg;
	ev_timer_init(&l->retry, on_retry, 0., 0.);
	l->retry.data = l;
}

static enum rc
add(struct listener *l, int fd, char *err, size_t err_size)
{
	if (l->n == LISTENER_MAX || listen(fd, BACKLOG) == -1) {
		snprintf(err, err_size, "%s", l->n == LISTENER_MAX ? "too many addresses" : strerror(errno));
		close(fd);
		return RC_FAIL;
	}
	struct listener_socket *k = &l->sockets[l->n++];
	k->owner = l;
	k->fd = fd;
	ev_io_init(&k->io, on_accept, fd, EV_READ);
	return RC_OK;
}

/* Workers share a port by SO_REUSEPORT, and so would another pgspan, without a word: its clients and ours would mix. A socket
 * without it finds out. */
static bool
is_taken(const struct addrinfo *a)
{
	int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return false;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (a->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	bool taken = bind(fd, a->ai_addr, a->ai_addrlen) == -1 && errno == EADDRINUSE;
	close(fd);
	return taken;
}

static enum rc
add_address(struct listener *l, const struct addrinfo *a, const char *name, int port, bool first, char *err, size_t err_size)
{
	if (first && port != 0 && is_taken(a)) {
		snprintf(err, err_size, "cannot listen on %s port %d: %s (does another pgspan run?)", name, port, strerror(EADDRINUSE));
		return RC_FAIL;
	}
	int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1) {
		snprintf(err, err_size, "%s: %s", name, strerror(errno));
		return RC_FAIL;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	if (a->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (bind(fd, a->ai_addr, a->ai_addrlen) == -1) {
		snprintf(err, err_size, "cannot listen on %s port %d: %s", name, port, strerror(errno));
		close(fd);
		return RC_FAIL;
	}
	return add(l, fd, err, err_size);
}

enum rc
listener_add_tcp(struct listener *l, const char *addrs, int port, bool first, char *err, size_t err_size)
{
	char name[256], service[16];
	snprintf(service, sizeof service, "%d", port);
	for (const char *p = addrs; *p;) {
		size_t n = strcspn(p, ",");
		while (n > 0 && *p == ' ')
			p++, n--;
		snprintf(name, sizeof name, "%.*s", (int)n, p);
		for (size_t k = strlen(name); k > 0 && name[k - 1] == ' ';)
			name[--k] = '\0';
		p += n + (p[n] == ',');
		if (!name[0])
			continue;
		struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
		bool all = strcmp(name, "*") == 0;
		int rc = getaddrinfo(all ? NULL : name, service, &hints, &list);
		if (rc != 0) {
			snprintf(err, err_size, "%s: %s", name, gai_strerror(rc));
			return RC_FAIL;
		}
		int added = 0;
		for (struct addrinfo *a = list; a; a = a->ai_next)
			added += add_address(l, a, name, port, first, err, err_size) == RC_OK;
		freeaddrinfo(list);
		if (added == 0)
			return RC_FAIL;
	}
	return RC_OK;
}

enum rc
listener_add_unix(struct listener *l, const char *dir, int port, char *err, size_t err_size)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int n = snprintf(a.sun_path, sizeof a.sun_path, "%s/.s.PGSQL.%d", dir, port);
	if (n < 0 || (size_t)n >= sizeof a.sun_path) {
		snprintf(err, err_size, "unix_socket_dir is too long");
		return RC_FAIL;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1) {
		snprintf(err, err_size, "%s", strerror(errno));
		return RC_FAIL;
	}
	if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) {
		snprintf(err, err_size, "somebody listens on %s already", a.sun_path);
		close(fd);
		return RC_FAIL;
	}
	if (errno == ECONNREFUSED)
		(void)unlink(a.sun_path);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) == -1) {
		snprintf(err, err_size, "cannot listen on %s: %s", a.sun_path, strerror(errno));
		close(fd);
		return RC_FAIL;
	}
	(void)chmod(a.sun_path, 0777);
	return add(l, fd, err, err_size);
}

void
listener_start(struct listener *l)
{
	for (int i = 0; i < l->n; i++)
		ev_io_start(l->loop->ev, &l->sockets[i].io);
}

void
listener_close(struct listener *l)
{
	ev_timer_stop(l->loop->ev, &l->retry);
	for (int i = 0; i < l->n; i++) {
		struct sockaddr_un a;
		socklen_t n = sizeof a;
		ev_io_stop(l->loop->ev, &l->sockets[i].io);
		if (getsockname(l->sockets[i].fd, (struct sockaddr *)&a, &n) == 0 && a.sun_family == AF_UNIX)
			(void)unlink(a.sun_path);
		close(l->sockets[i].fd);
	}
	l->n = 0;
}
