/* SPDX-License-Identifier: BSD-2-Clause */
/* worker - a thread with a loop that owns its clients and its server connections.
 *
 * Owner: main.  Lives until: worker_join().  Thread: its own runs the loop; the functions below are main's. */
#ifndef PGSPAN_WORKER_H
#define PGSPAN_WORKER_H

#include "pgspan/config.h"
#include "pgspan/penalty.h"
#include "pgspan/tenant.h"

struct worker;
struct monitor;

/* What all workers share. */
struct process {
	struct fleet fleet;
	_Atomic int n_clients;
	unsigned char process_key[32];
	struct penalties penalties;
	struct worker **workers;
	int n_workers;
	struct monitor *monitor;
};

/* NULL, with the reason logged, when an address cannot be listened on. Not running yet. */
struct worker *worker_new(struct process *p, int number, struct config *cfg);
void worker_run(struct worker *w);
/* New clients get this configuration from now on. Takes a reference of its own. */
void worker_reload(struct worker *w, struct config *cfg);
/* No new clients; idle ones leave, transactions finish. */
void worker_drain(struct worker *w);
/* Ends at once. */
void worker_stop(struct worker *w);
/* A connection that came by the Unix socket: *fd* is the worker's. */
void worker_give_client(struct worker *w, int fd);
void worker_join(struct worker *w);
/* After all have been joined. */
void worker_free(struct worker *w);

#endif
