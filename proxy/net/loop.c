/* SPDX-License-Identifier: BSD-2-Clause */
/* loop - see pgspan/loop.h. The mailbox is a list under a mutex: it is locked for a few instructions, and only for
 * things that are rare (a cancel, a server handed over, a reload), never for a transaction. */
#include "pgspan/loop.h"

static void
free_doomed(struct loop *l)
{
	/* What a destructor gives up in turn is freed in the same go. */
	while (l->doomed) {
		struct doomed *d = l->doomed;
		l->doomed = d->next;
		d->fn(d);
	}
}

static void
on_before_wait(struct ev_loop *ev, ev_prepare *w, int revents)
{
	(void)ev;
	(void)revents;
	free_doomed(w->data);
}

/* Delivers what is in the box now; what these deliveries post comes with a wake-up of its own. */
static void
deliver(struct loop *l)
{
	pthread_mutex_lock(&l->shared.lock);
	struct mail *m = l->shared.first;
	l->shared.first = NULL;
	l->shared.last = &l->shared.first;
	bool stop = l->shared.stop;
	pthread_mutex_unlock(&l->shared.lock);
	while (m) {
		struct mail *next = m->next;
		m->fn(l, m);
		m = next;
	}
	if (stop)
		ev_break(l->ev, EVBREAK_ALL);
}

static void
on_wake(struct ev_loop *ev, ev_async *w, int revents)
{
	(void)ev;
	(void)revents;
	deliver(w->data);
}

void
loop_init(struct loop *l)
{
	memset(l, 0, sizeof *l);
	l->ev = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (!l->ev)
		abort();
	buf_pool_init(&l->bufs);
	pthread_mutex_init(&l->shared.lock, NULL);
	l->shared.last = &l->shared.first;
	ev_prepare_init(&l->before_wait, on_before_wait);
	l->before_wait.data = l;
	ev_prepare_start(l->ev, &l->before_wait);
	ev_async_init(&l->wake, on_wake);
	l->wake.data = l;
	ev_async_start(l->ev, &l->wake);
}

void
loop_run(struct loop *l)
{
	ev_run(l->ev, 0);
	free_doomed(l);
}

void
loop_run_doomed(struct loop *l)
{
	free_doomed(l);
}

void
loop_fini(struct loop *l)
{
	deliver(l);
	free_doomed(l);
	ev_prepare_stop(l->ev, &l->before_wait);
	ev_async_stop(l->ev, &l->wake);
	ev_loop_destroy(l->ev);
	free(l->spare_burst);
	buf_pool_fini(&l->bufs);
	pthread_mutex_destroy(&l->shared.lock);
}

void
loop_post(struct loop *l, struct mail *m)
{
	m->next = NULL;
	pthread_mutex_lock(&l->shared.lock);
	*l->shared.last = m;
	l->shared.last = &m->next;
	pthread_mutex_unlock(&l->shared.lock);
	ev_async_send(l->ev, &l->wake);
}

void
loop_stop(struct loop *l)
{
	pthread_mutex_lock(&l->shared.lock);
	l->shared.stop = true;
	pthread_mutex_unlock(&l->shared.lock);
	ev_async_send(l->ev, &l->wake);
}

void
loop_doom(struct loop *l, struct doomed *d)
{
	d->next = l->doomed;
	l->doomed = d;
}
