/* SPDX-License-Identifier: BSD-2-Clause */
/* tcp - see pgspan/tcp.h. A peer that vanishes without a word holds its session, its transaction, and a server: probes are all
 * that tells of it. */
#include "pgspan/tcp.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static void
set(int fd, int level, int option, int value)
{
	if (value > 0)
		(void)setsockopt(fd, level, option, &value, sizeof value);
}

void
tcp_tune(int fd, const struct tcp_settings *t)
{
	int domain = AF_UNSPEC;
	socklen_t n = sizeof domain;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == -1 || (domain != AF_INET && domain != AF_INET6))
		return;
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, t->user_timeout_ms);
	if (!t->keepalive)
		return;
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, t->keepidle_s);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, t->keepintvl_s);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, t->keepcnt);
}
