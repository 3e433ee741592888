/* SPDX-License-Identifier: BSD-2-Clause */
/* janitor - brings a server that its client has left behind into a state in which others may have it. */
#ifndef PGSPAN_JANITOR_H
#define PGSPAN_JANITOR_H

#include "pgspan/pool.h"

/* Takes a busy server that owes nothing: ROLLBACK when it is in a block, DISCARD ALL when *discard* (or has.unclean), then
 * pool_release(). Whatever goes wrong on the way ends the server. Thread: its loop's. */
void janitor_take(struct server *s, bool discard);

#endif
