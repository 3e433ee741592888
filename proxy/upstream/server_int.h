/* SPDX-License-Identifier: BSD-2-Clause */
/* server_int - what server.c (life, libpq's log-in) and server_native.c (pgspan's own) share. */
#ifndef PGSPAN_SERVER_INT_H
#define PGSPAN_SERVER_INT_H

#include "pgspan/server.h"

#include <sys/socket.h>

/* Where a cancel request goes, and what it says. */
struct native_target {
	struct sockaddr_storage addr;
	socklen_t addr_bytes;
	uint32_t pid;
	unsigned char key[4];
};

/* server.c: the log-in is over; each calls on_open. With *ssl* the connection is TLS. */
void server_login_done(struct server *s, int fd, SSL *ssl);
void server_login_failed(struct server *s, const char *sqlstate, const char *message);

/* server_native.c. Never calls back from inside native_start(). */
void native_start(struct server *s, const char *conninfo, const char *user, const struct server_keys *keys);
void native_end(struct server *s);  /* says Terminate if it can; before conn_detach() */
void native_free(struct server *s); /* nothing if libpq logged in */
void native_get_target(const struct server *s, struct native_target *t);
void native_cancel(const struct native_target *t); /* blocks: a few seconds at most */

#endif
