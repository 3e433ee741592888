/* SPDX-License-Identifier: BSD-2-Clause */
/* loop - one thread's event loop with what hangs on it: buffer pool, mailbox, objects to free.
 *
 * Owner: the thread that runs it.  Lives until: loop_fini(), by the same thread.
 * Thread: its own; loop_post() and loop_stop() may be called by any. */
#ifndef PGSPAN_LOOP_H
#define PGSPAN_LOOP_H

#include "pgspan/buf.h"

#include <ev.h>
#include <pthread.h>

struct loop;
struct conn_burst;

/* A message from another thread. The sender allocates it (as part of a struct of its own); from loop_post() on it
 * belongs to the loop, whose thread calls fn once; fn owns it then. */
struct mail {
	struct mail *next;
	void (*fn)(struct loop *l, struct mail *m);
};

/* An object whose memory must outlive the callback it was given up in. fn runs before the loop waits again. */
struct doomed {
	struct doomed *next;
	void (*fn)(struct doomed *d);
};

struct loop {
	struct ev_loop *ev;
	struct buf_pool bufs;
	struct conn_burst *spare_burst; /* conn.c: a burst lives for one callback, so one is enough for almost all */
	struct doomed *doomed; /* newest first */
	ev_prepare before_wait;
	ev_async wake;
	void *owner; /* what callbacks of mails find their worker by; set by the owner */

	struct { /* the only fields that other threads touch */
		pthread_mutex_t lock;
		struct mail *first, **last;
		bool stop;
	} shared;
};

void loop_init(struct loop *l);
/* Runs until loop_stop(). */
void loop_run(struct loop *l);
/* Mails still in the box are delivered, doomed objects freed. */
void loop_fini(struct loop *l);

/* Frees what was given up, now: for the end, when the loop does not turn any more. */
void loop_run_doomed(struct loop *l);

void loop_post(struct loop *l, struct mail *m);
void loop_stop(struct loop *l);

/* Only from the loop's thread. An object may be given up once. */
void loop_doom(struct loop *l, struct doomed *d);

#endif
