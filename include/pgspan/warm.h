/* SPDX-License-Identifier: BSD-2-Clause */
/* warm - derives the SCRAM keys of plain passwords before anybody asks for them, on threads that give way.
 *
 * A first login would have to wait for that, and by the wait it could be told from an unknown user's.
 * Thread: main's; its loop must turn. */
#ifndef PGSPAN_WARM_H
#define PGSPAN_WARM_H

#include "pgspan/auth.h"
#include "pgspan/loop.h"

/* Takes a reference. *process_key* must live until warm_stop(). */
void warm_start(struct loop *l, struct userlist *users, const unsigned char *process_key);
/* Before offload_stop(): what is under way ends soon. */
void warm_stop(void);

#endif
