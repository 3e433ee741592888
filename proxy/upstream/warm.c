/* SPDX-License-Identifier: BSD-2-Clause */
/* warm - see pgspan/warm.h. A few users a job, so that handshakes and logins come in between. */
#include "pgspan/warm.h"

#include "pgspan/offload.h"

#include <stdatomic.h>

enum { USERS_PER_JOB = 4 };

struct warm {
	struct offload_job job;
	struct userlist *users;
	size_t next;
	const unsigned char *process_key;
};

static atomic_bool stopped;

static void
run(struct offload_job *o)
{
	struct warm *w = container_of(o, struct warm, job);
	const struct auth_user *u;
	for (int left = USERS_PER_JOB; left > 0 && !atomic_load(&stopped) && (u = userlist_at(w->users, w->next)); w->next++) {
		if (!auth_user_must_derive(u))
			continue;
		(void)auth_user_scram(u, w->process_key);
		left--;
	}
}

static void
on_done(struct loop *l, struct mail *m)
{
	struct warm *w = container_of(container_of(m, struct offload_job, mail), struct warm, job);
	if (!atomic_load(&stopped) && userlist_at(w->users, w->next)) {
		offload_compute(l, &w->job, run, on_done);
		return;
	}
	userlist_unref(w->users);
	free(w);
}

void
warm_start(struct loop *l, struct userlist *users, const unsigned char *process_key)
{
	struct warm *w = xcalloc(1, sizeof *w);
	w->users = userlist_ref(users);
	w->process_key = process_key;
	offload_compute(l, &w->job, run, on_done);
}

void
warm_stop(void)
{
	atomic_store(&stopped, true);
}
