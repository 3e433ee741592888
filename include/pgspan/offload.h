/* SPDX-License-Identifier: BSD-2-Clause */
/* offload - a few threads for what must not run on a loop: what blocks (cancel requests, name resolution), and, apart
 * from those, what computes for long (TLS handshakes). */
#ifndef PGSPAN_OFFLOAD_H
#define PGSPAN_OFFLOAD_H

#include "pgspan/loop.h"

/* Part of a struct of the caller's, which must live until *done* has run. */
struct offload_job {
	struct offload_job *next;
	struct mail mail;
	struct loop *loop;
	void *arg; /* the caller's */
	void (*run)(struct offload_job *j); /* on one of the threads; touches only the job's own struct */
};

/* run(j) on a thread, then done on the loop, as a mail: container_of(m, struct offload_job, mail). The loop must outlive
 * it: call offload_stop() before loops end. Thread: the loop's. */
void offload_run(struct loop *l, struct offload_job *j, void (*run)(struct offload_job *), void (*done)(struct loop *, struct mail *));

/* The same for what never blocks: on threads of its own, one a core, which give way to the loops. */
void offload_compute(struct loop *l, struct offload_job *j, void (*run)(struct offload_job *), void (*done)(struct loop *, struct mail *));

/* Waits for all jobs and ends the threads. Thread: main, once. */
void offload_stop(void);

#endif
