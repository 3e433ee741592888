/* SPDX-License-Identifier: BSD-2-Clause */
/* monitor - a thread of its own that looks after the servers: which answer, how far replicas are behind, what the schema is.
 * It uses libpq's blocking calls on connections of its own, as monitor_user.
 * Owner: main.  Thread: the functions are any thread's. */
#ifndef PGSPAN_MONITOR_H
#define PGSPAN_MONITOR_H

#include "pgspan/catalog.h"
#include "pgspan/tenant.h"

struct monitor;
struct twophase;

/* Looks at every server once (a few seconds at most), then goes on in its own thread. */
struct monitor *monitor_start(struct config *cfg, struct fleet *fleet);
/* The servers of another configuration from now on. Takes a reference of its own. */
void monitor_reload(struct monitor *m, struct config *cfg);
void monitor_stop(struct monitor *m);

/* For --check: asks each shard's primary whether it can take part in two-phase commit, and reports (as warnings) those that
 * cannot or do not answer. Blocks; no monitor is needed. */
void monitor_check_shards(struct config *cfg, config_report_fn report, void *arg);

/* Changes whenever any catalog has. Relaxed: look again soon enough. */
uint64_t monitor_generation(const struct monitor *m);
/* A reference, or NULL while none could be loaded. */
struct catalog *monitor_catalog(struct monitor *m, const char *database);
/* The schema may have changed: look soon. */
void monitor_poke(struct monitor *m);
/* Where workers hand over transactions over several shards; lives as long as the monitor. */
struct twophase *monitor_twophase(const struct monitor *m);

#endif
