/* SPDX-License-Identifier: BSD-2-Clause */
/* worker - see pgspan/worker.h. All that main or another worker wants of it comes as mail. */
#include "pgspan/worker.h"

#include "pgspan/listener.h"
#include "pgspan/log.h"
#include "pgspan/monitor.h"
#include "pgspan/session.h"

#include <unistd.h>

#define PLAN_CACHE_BYTES (16u << 20)
#define TIDY_S 1. /* also bounds how long a Parse may be answered from memory */

struct worker {
	struct process *process;
	int number;
	char name[16];
	struct loop loop;
	struct listener listener;
	struct session_env env;
	pthread_t thread;
	ev_timer tidy;
	bool draining;

	/* catalogs as this worker sees them */
	uint64_t generation;
	struct names catalogs; /* database name → struct catalog */
	const struct database_config *last_db; /* what find_catalog() was asked for last, and its answer: it is asked for every statement */
	struct catalog *last_catalog;
};

static struct worker *
worker_of(struct loop *l)
{
	return l->owner;
}

/* --- catalogs --- */

static void
drop_catalog(void *c)
{
	catalog_unref(c);
}

static struct catalog *
find_catalog(struct session_env *env, const struct database_config *db)
{
	struct worker *w = env->owner;
	uint64_t g = monitor_generation(w->process->monitor);
	if (UNLIKELY(g != w->generation)) {
		names_clear(&w->catalogs, drop_catalog);
		w->generation = g;
		w->last_db = NULL;
	}
	if (LIKELY(db == w->last_db))
		return w->last_catalog;
	struct catalog *c = names_get(&w->catalogs, span_str(db->name));
	if (!c) {
		c = monitor_catalog(w->process->monitor, db->name);
		if (c)
			names_put(&w->catalogs, span_str(db->name), c);
	}
	w->last_db = db; /* a catalog that comes later comes with a new generation */
	w->last_catalog = c;
	return c;
}

static void
poke_catalog(struct session_env *env)
{
	struct worker *w = env->owner;
	monitor_poke(w->process->monitor);
}

/* --- cancel requests for another worker's session --- */

struct cancel_mail {
	struct mail mail;
	uint32_t pid;
	unsigned char key[4];
	int held_fd; /* the requester's connection: its end tells the client that the request was dealt with */
};

static void
on_cancel_mail(struct loop *l, struct mail *m)
{
	struct cancel_mail *c = container_of(m, struct cancel_mail, mail);
	session_cancel(&worker_of(l)->env, c->pid, c->key);
	if (c->held_fd != -1)
		close(c->held_fd);
	free(c);
}

static void
cancel_elsewhere(struct session_env *env, uint32_t pid, const unsigned char key[4], int held_fd)
{
	struct worker *w = env->owner;
	uint32_t n = pid >> 24;
	if (n < 1 || n > (uint32_t)w->process->n_workers) {
		if (held_fd != -1)
			close(held_fd);
		return;
	}
	struct cancel_mail *c = xcalloc(1, sizeof *c);
	c->mail.fn = on_cancel_mail;
	c->pid = pid;
	memcpy(c->key, key, 4);
	c->held_fd = held_fd;
	loop_post(&w->process->workers[n - 1]->loop, &c->mail);
}

/* --- life --- */

static void
on_client(void *arg, int fd)
{
	struct worker *w = arg;
	session_start(&w->env, fd, false);
}

static void
end_if_drained(struct worker *w)
{
	if (w->draining && session_count(&w->env) == 0)
		loop_stop(&w->loop);
}

static void
on_tidy(struct ev_loop *ev, ev_timer *t, int revents)
{
	struct worker *w = t->data;
	(void)ev;
	(void)revents;
	session_enforce_limits(&w->env);
	tenants_tidy(&w->env.tenants);
	auth_queries_tidy(&w->env.auth_queries);
	end_if_drained(w);
}

struct worker *
worker_new(struct process *p, int number, struct config *cfg)
{
	struct worker *w = xcalloc(1, sizeof *w);
	char err[256];
	w->process = p;
	w->number = number;
	snprintf(w->name, sizeof w->name, "w%d", number);
	loop_init(&w->loop);
	w->loop.owner = w;
	listener_init(&w->listener, &w->loop, on_client, w);
	w->env.loop = &w->loop;
	w->env.cfg = config_ref(cfg);
	w->env.process_key = p->process_key;
	w->env.worker = number;
	w->env.penalties = &p->penalties;
	w->env.n_clients = &p->n_clients;
	w->env.cancel_elsewhere = cancel_elsewhere;
	w->env.catalog = find_catalog;
	w->env.poke_catalog = poke_catalog;
	w->env.twophase = monitor_twophase(p->monitor);
	w->env.owner = w;
	w->env.plans = plan_cache_new(PLAN_CACHE_BYTES);
	tenants_init(&w->env.tenants, &w->loop, &p->fleet);
	auth_queries_init(&w->env.auth_queries, &w->loop);
	session_env_init(&w->env);
	ev_timer_init(&w->tidy, on_tidy, TIDY_S, TIDY_S);
	w->tidy.data = w;
	if (cfg->listen_addr[0] && listener_add_tcp(&w->listener, cfg->listen_addr, cfg->listen_port, w->number == 0, err, sizeof err) != RC_OK) {
		log_error("%s", err);
		worker_free(w);
		return NULL;
	}
	return w;
}

static void *
run(void *arg)
{
	struct worker *w = arg;
	log_thread_name(w->name);
	listener_start(&w->listener);
	ev_timer_start(w->loop.ev, &w->tidy);
	loop_run(&w->loop);
	listener_close(&w->listener);
	session_kill_all(&w->env);
	auth_queries_close(&w->env.auth_queries);
	tenants_close(&w->env.tenants);
	loop_run_doomed(&w->loop);
	ev_timer_stop(w->loop.ev, &w->tidy);
	return NULL;
}

void
worker_run(struct worker *w)
{
	if (pthread_create(&w->thread, NULL, run, w) != 0)
		log_fatal("cannot start a thread");
}

struct config_mail {
	struct mail mail;
	struct config *cfg;
};

static void
on_config(struct loop *l, struct mail *m)
{
	struct config_mail *c = container_of(m, struct config_mail, mail);
	struct worker *w = worker_of(l);
	struct config *old = w->env.cfg;
	w->env.cfg = c->cfg;
	w->last_db = NULL; /* its address may come again */
	tenants_reload(&w->env.tenants, c->cfg);
	auth_queries_forget(&w->env.auth_queries);
	config_unref(old);
	free(c);
}

void
worker_reload(struct worker *w, struct config *cfg)
{
	struct config_mail *c = xcalloc(1, sizeof *c);
	c->mail.fn = on_config;
	c->cfg = config_ref(cfg);
	loop_post(&w->loop, &c->mail);
}

static void
on_drain(struct loop *l, struct mail *m)
{
	struct worker *w = worker_of(l);
	free(m);
	w->draining = true;
	listener_close(&w->listener);
	session_drain_all(&w->env);
	end_if_drained(w);
}

void
worker_drain(struct worker *w)
{
	struct mail *m = xcalloc(1, sizeof *m);
	m->fn = on_drain;
	loop_post(&w->loop, m);
}

void
worker_stop(struct worker *w)
{
	loop_stop(&w->loop);
}

struct client_mail {
	struct mail mail;
	int fd;
};

static void
on_given_client(struct loop *l, struct mail *m)
{
	struct client_mail *c = container_of(m, struct client_mail, mail);
	struct worker *w = worker_of(l);
	if (w->draining)
		close(c->fd);
	else
		session_start(&w->env, c->fd, true);
	free(c);
}

void
worker_give_client(struct worker *w, int fd)
{
	struct client_mail *c = xcalloc(1, sizeof *c);
	c->mail.fn = on_given_client;
	c->fd = fd;
	loop_post(&w->loop, &c->mail);
}

void
worker_join(struct worker *w)
{
	pthread_join(w->thread, NULL);
}

void
worker_free(struct worker *w)
{
	listener_close(&w->listener);
	session_kill_all(&w->env);
	loop_fini(&w->loop);
	auth_queries_fini(&w->env.auth_queries);
	tenants_fini(&w->env.tenants);
	names_clear(&w->catalogs, drop_catalog);
	plan_cache_free(w->env.plans);
	session_env_fini(&w->env);
	config_unref(w->env.cfg);
	free(w);
}
