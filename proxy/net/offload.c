/* SPDX-License-Identifier: BSD-2-Clause */
/* offload - see pgspan/offload.h. Two queues with threads of their own, which start with the first job: one that hangs on a
 * dead server does not hold up the others, and that all of them hang is bounded by the callers' timeouts. What computes has
 * the other queue, so that a storm of handshakes delays no cancel request. */
#include "pgspan/offload.h"

#include "pgspan/log.h"

#include <sys/resource.h>
#include <unistd.h>

#define THREADS 4
#define COMPUTE_NICE 5 /* a third of a loop's share of a core, when both want it */

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct offload_job *first, **last;
	pthread_t threads[THREADS];
	int n_threads;
	int most; /* threads; 0: not worked out yet */
	bool stop;
};

static struct queue blocking = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .most = THREADS};
static struct queue computing = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void *
work(void *arg)
{
	struct queue *q = arg;
	log_thread_name(q == &computing ? "compute" : "offload");
	if (q == &computing)
		(void)setpriority(PRIO_PROCESS, 0, COMPUTE_NICE); /* on Linux: of this thread alone */
	pthread_mutex_lock(&q->lock);
	for (;;) {
		while (!q->first && !q->stop)
			pthread_cond_wait(&q->wake, &q->lock);
		struct offload_job *j = q->first;
		if (!j)
			break;
		q->first = j->next;
		if (!q->first)
			q->last = NULL;
		pthread_mutex_unlock(&q->lock);
		j->run(j);
		loop_post(j->loop, &j->mail);
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

/* One thread a core. */
static int
cores(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n < 1 ? 1 : n > THREADS ? THREADS : (int)n;
}

static void
put(struct queue *q, struct loop *l, struct offload_job *j, void (*run)(struct offload_job *),
    void (*done)(struct loop *, struct mail *))
{
	j->next = NULL;
	j->loop = l;
	j->run = run;
	j->mail.fn = done;
	pthread_mutex_lock(&q->lock);
	if (q->most == 0)
		q->most = cores();
	while (q->n_threads < q->most && pthread_create(&q->threads[q->n_threads], NULL, work, q) == 0)
		q->n_threads++;
	if (q->n_threads == 0)
		log_fatal("cannot start a thread");
	if (q->last)
		q->last[0] = j;
	else
		q->first = j;
	q->last = &j->next;
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
}

void
offload_run(struct loop *l, struct offload_job *j, void (*run)(struct offload_job *), void (*done)(struct loop *, struct mail *))
{
	put(&blocking, l, j, run, done);
}

void
offload_compute(struct loop *l, struct offload_job *j, void (*run)(struct offload_job *), void (*done)(struct loop *, struct mail *))
{
	put(&computing, l, j, run, done);
}

static void
stop(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_broadcast(&q->wake);
	pthread_mutex_unlock(&q->lock);
	for (int i = 0; i < q->n_threads; i++)
		pthread_join(q->threads[i], NULL);
	q->n_threads = 0;
	q->stop = false;
}

void
offload_stop(void)
{
	stop(&blocking);
	stop(&computing);
}
