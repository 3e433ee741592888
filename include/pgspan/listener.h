/* SPDX-License-Identifier: BSD-2-Clause */
/* listener - sockets that clients connect to. Owner: the caller.  Thread: its loop's. */
#ifndef PGSPAN_LISTENER_H
#define PGSPAN_LISTENER_H

#include "pgspan/loop.h"

#define LISTENER_MAX 16

typedef void (*listener_fn)(void *arg, int fd); /* a new connection, non-blocking; the callee's */

struct listener {
	struct loop *loop;
	listener_fn fn;
	void *arg;
	ev_timer retry; /* after EMFILE: accepting pauses, lest it spins */
	int n;
	struct listener_socket {
		struct listener *owner;
		int fd;
		ev_io io;
	} sockets[LISTENER_MAX];
};

void listener_init(struct listener *l, struct loop *loop, listener_fn fn, void *arg);
/* Each address of the comma list (*: all), SO_REUSEPORT: every worker listens for itself. *first*: nobody of this process does
 * yet, so whoever listens there is another one. RC_FAIL with the reason in err. */
enum rc listener_add_tcp(struct listener *l, const char *addrs, int port, bool first, char *err, size_t err_size) WARN_UNUSED;
/* dir/.s.PGSQL.port; one that nobody listens on any more is replaced. */
enum rc listener_add_unix(struct listener *l, const char *dir, int port, char *err, size_t err_size) WARN_UNUSED;
void listener_start(struct listener *l);
void listener_close(struct listener *l);

#endif
