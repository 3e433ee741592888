/* SPDX-License-Identifier: BSD-2-Clause */
/* owners - which client a server process works for, known to all workers.
 *
 * A notification names its sender by the id of its server process, which only means something to a client that knows which
 * process is whose. This tells it, for clients that keep their server (session pooling, a pin).
 *
 * Thread: any. A table of fixed size that forgets rather than grows: what it does not know is shown as the server said it. */
#ifndef PGSPAN_OWNERS_H
#define PGSPAN_OWNERS_H

#include "pgspan/defs.h"

/* *server*: the name of the server that the process is of. *client*: the process id that the client was told at login. */
void owners_set(const char *server, uint32_t pid, uint32_t client);
/* 0: not known. */
uint32_t owners_get(const char *server, uint32_t pid);

#endif
