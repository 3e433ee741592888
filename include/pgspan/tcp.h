/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp - how dead peers are found out. Thread: any. */
#ifndef PGSPAN_TCP_H
#define PGSPAN_TCP_H

#include "pgspan/defs.h"

/* PgBouncer's tcp_* keys. 0: what the system, or libpq, has set. */
struct tcp_settings {
	int keepalive; /* 0 or 1 */
	int keepidle_s, keepintvl_s, keepcnt;
	int user_timeout_ms;
};

/* Sockets that are not TCP are left as they are. */
void tcp_tune(int fd, const struct tcp_settings *t);

#endif
