/* SPDX-License-Identifier: BSD-2-Clause */
/* offload - see pgspan/offload.h. The threads start with the first job. One that hangs on a dead server does not hold up
 * the others; that all of them hang is bounded by the callers' timeouts. */
#include "pgspan/offload.h"

#include "pgspan/log.h"

#define THREADS 4

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct offload_job *first, **last;
	pthread_t threads[THREADS];
	int n_threads;
	bool stop;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void *
work(void *arg)
{
	(void)arg;
	log_thread_name("offload");
	pthread_mutex_lock(&pool.lock);
	for (;;) {
		while (!pool.first && !pool.stop)
			pthread_cond_wait(&pool.wake, &pool.lock);
		struct offload_job *j = pool.first;
		if (!j)
			break;
		pool.first = j->next;
		if (!pool.first)
			pool.last = NULL;
		pthread_mutex_unlock(&pool.lock);
		j->run(j);
		loop_post(j->loop, &j->mail);
		pthread_mutex_lock(&pool.lock);
	}
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

void
offload_run(struct loop *l, struct offload_job *j, void (*run)(struct offload_job *), void (*done)(struct loop *, struct mail *))
{
	j->next = NULL;
	j->loop = l;
	j->run = run;
	j->mail.fn = done;
	pthread_mutex_lock(&pool.lock);
	while (pool.n_threads < THREADS && pthread_create(&pool.threads[pool.n_threads], NULL, work, NULL) == 0)
		pool.n_threads++;
	if (pool.n_threads == 0)
		log_fatal("cannot start a thread");
	if (pool.last)
		pool.last[0] = j;
	else
		pool.first = j;
	pool.last = &j->next;
	pthread_cond_signal(&pool.wake);
	pthread_mutex_unlock(&pool.lock);
}

void
offload_stop(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.stop = true;
	pthread_cond_broadcast(&pool.wake);
	pthread_mutex_unlock(&pool.lock);
	for (int i = 0; i < pool.n_threads; i++)
		pthread_join(pool.threads[i], NULL);
	pool.n_threads = 0;
	pool.stop = false;
}
