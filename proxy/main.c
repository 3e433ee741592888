/* SPDX-License-Identifier: BSD-2-Clause */
/* main - the command line, signals, and the threads' beginning and end.
 *
 *   SIGHUP   read the configuration again: all of it, or none and every mistake is logged
 *   SIGTERM  drain: no new clients, idle ones are sent away, transactions finish, then the process ends; once more: at once
 *   SIGINT   the same */
#include "pgspan/auth.h"
#include "pgspan/fault.h"
#include "pgspan/listener.h"
#include "pgspan/log.h"
#include "pgspan/monitor.h"
#include "pgspan/offload.h"
#include "pgspan/warm.h"
#include "pgspan/worker.h"

#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static struct {
	const char *path;
	struct config *cfg;
	struct process process;
	struct loop loop;
	struct listener unix_listener;
	int turn; /* of the workers, for clients of the Unix socket */
	bool draining;
} self;

static void
usage(FILE *out)
{
	fputs("usage: pgspan [--check] proxy.ini\n"
	      "  --check    print the effective configuration (passwords hidden), or every mistake in it, and end\n"
	      "  --version  print the version\n"
	      "  --help     print this\n",
	    out);
}

static void
report(void *arg, bool is_error, const char *line)
{
	fprintf(arg, "%s%s\n", is_error ? "" : "warning: ", line);
}

static void
report_log(void *arg, bool is_error, const char *line)
{
	(void)arg;
	if (is_error)
		log_error("%s", line);
	else
		log_warning("%s", line);
}

static void
warm_up(void)
{
	if (self.cfg->users && (self.cfg->auth_type == AUTH_TYPE_SCRAM || self.cfg->auth_type == AUTH_TYPE_HBA))
		warm_start(&self.loop, self.cfg->users, self.process.process_key);
}

static int
check(const char *path)
{
	struct config *c = config_load(path, report, stderr);
	if (!c)
		return 1;
	config_print(c, stdout);
	fflush(stdout);
	monitor_check_shards(c, report, stderr);
	config_unref(c);
	return 0;
}

/* --- signals --- */

static void
on_hup(struct ev_loop *ev, ev_signal *w, int revents)
{
	(void)ev;
	(void)w;
	(void)revents;
	struct config *c = config_load(self.path, report_log, NULL);
	if (!c) {
		log_error("the configuration is not taken: the one before stays in force");
		return;
	}
	log_set_level((enum log_level)c->log_level);
	for (int i = 0; i < self.process.n_workers; i++)
		worker_reload(self.process.workers[i], c);
	monitor_reload(self.process.monitor, c);
	config_unref(self.cfg);
	self.cfg = c;
	warm_up();
	log_info("the configuration was read again");
}

static void
on_term(struct ev_loop *ev, ev_signal *w, int revents)
{
	(void)w;
	(void)revents;
	if (self.draining) {
		log_info("stopping at once");
		for (int i = 0; i < self.process.n_workers; i++)
			worker_stop(self.process.workers[i]);
		ev_break(ev, EVBREAK_ALL);
		return;
	}
	self.draining = true;
	log_info("draining: no new clients; transactions finish");
	listener_close(&self.unix_listener);
	for (int i = 0; i < self.process.n_workers; i++)
		worker_drain(self.process.workers[i]);
}

static void
on_unix_client(void *arg, int fd)
{
	(void)arg;
	worker_give_client(self.process.workers[self.turn++ % self.process.n_workers], fd);
}

/* Workers end by themselves when they have drained: seen by their clients' number. */
static void
on_look(struct ev_loop *ev, ev_timer *t, int revents)
{
	(void)t;
	(void)revents;
	if (self.draining && atomic_load(&self.process.n_clients) == 0)
		ev_break(ev, EVBREAK_ALL);
}

static void
raise_descriptor_limit(int clients)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) == -1)
		return;
	r.rlim_cur = r.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &r);
	if (r.rlim_cur < (rlim_t)clients + 100)
		log_warning("only %llu descriptors may be open: too few for max_client_conn = %d", (unsigned long long)r.rlim_cur, clients);
}

/* Memory holds passwords and keys: no core dump, no /proc/PID/mem for others. Who must debug sets PGSPAN_COREDUMP=1. */
static void
keep_secrets_in(void)
{
	if (!getenv("PGSPAN_COREDUMP"))
		(void)prctl(PR_SET_DUMPABLE, 0);
}

static int
serve(const char *path)
{
	char err[256];
	struct process *p = &self.process;
	self.path = path;
	self.cfg = config_load(path, report_log, NULL);
	if (!self.cfg)
		return 1;
	log_set_level((enum log_level)self.cfg->log_level);
	signal(SIGPIPE, SIG_IGN);
	keep_secrets_in();
	fault_init();
	raise_descriptor_limit(self.cfg->max_client_conn);
	if (auth_random(p->process_key, sizeof p->process_key) != RC_OK)
		log_fatal("no random bytes can be had");
	fleet_init(&p->fleet);
	penalties_init(&p->penalties);
	loop_init(&self.loop);
	listener_init(&self.unix_listener, &self.loop, on_unix_client, NULL);
	if (self.cfg->unix_socket_dir[0] &&
	    listener_add_unix(&self.unix_listener, self.cfg->unix_socket_dir, self.cfg->listen_port, err, sizeof err) != RC_OK)
		log_fatal("%s", err);
	p->monitor = monitor_start(self.cfg, &p->fleet);
	p->n_workers = self.cfg->workers;
	p->workers = xcalloc((size_t)p->n_workers, sizeof(struct worker *));
	for (int i = 0; i < p->n_workers; i++) {
		p->workers[i] = worker_new(p, i, self.cfg);
		if (!p->workers[i])
			return 1;
	}
	ev_signal hup, term, intr;
	ev_timer look;
	ev_signal_init(&hup, on_hup, SIGHUP);
	ev_signal_init(&term, on_term, SIGTERM);
	ev_signal_init(&intr, on_term, SIGINT);
	ev_signal_start(self.loop.ev, &hup);
	ev_signal_start(self.loop.ev, &term);
	ev_signal_start(self.loop.ev, &intr);
	ev_timer_init(&look, on_look, 0.2, 0.2);
	ev_timer_start(self.loop.ev, &look);
	for (int i = 0; i < p->n_workers; i++)
		worker_run(p->workers[i]);
	listener_start(&self.unix_listener);
	warm_up();
	log_info("pgspan serves %d databases with %d workers on %s port %d", self.cfg->n_databases, p->n_workers,
	    self.cfg->listen_addr[0] ? self.cfg->listen_addr : "(no TCP)", self.cfg->listen_port);

	loop_run(&self.loop);

	for (int i = 0; i < p->n_workers; i++)
		worker_stop(p->workers[i]);
	for (int i = 0; i < p->n_workers; i++)
		worker_join(p->workers[i]);
	warm_stop();
	offload_stop();
	for (int i = 0; i < p->n_workers; i++)
		worker_free(p->workers[i]);
	free(p->workers);
	monitor_stop(p->monitor);
	fleet_fini(&p->fleet);
	penalties_fini(&p->penalties);
	listener_close(&self.unix_listener);
	loop_fini(&self.loop);
	config_unref(self.cfg);
	log_info("ended");
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"check", no_argument, NULL, 'c'},
	    {"help", no_argument, NULL, 'h'},
	    {"version", no_argument, NULL, 'v'},
	    {NULL, 0, NULL, 0},
	};
	bool only_check = false;
	for (int o; (o = getopt_long(argc, argv, "hv", options, NULL)) != -1;) {
		switch (o) {
		case 'c':
			only_check = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'v':
			puts("pgspan 0.1");
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		return 2;
	}
	return only_check ? check(argv[optind]) : serve(argv[optind]);
}
