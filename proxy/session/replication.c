/* SPDX-License-Identifier: BSD-2-Clause */
/* replication - connections that speak the replication protocol (PostgreSQL docs 55.4): pg_basebackup, pg_receivewal,
 * pg_recvlogical, subscribers. Such a client has a server connection of its own on the primary, opened in the same mode and with
 * the client's own start-up settings, which ends with the client; its messages pass through as everybody's do. */
#include "session_int.h"

#include "pgspan/sqlstate.h"

struct replication {
	struct pool *pool; /* of this one connection */
	struct pool_own_limits limits;
};

/* The settings as a value of libpq's "options". */
static void
put_options(struct wbuf *w, const struct startup *st)
{
	for (size_t i = 0; i < st->n_settings; i++) {
		const struct startup_setting *p = &st->settings[i];
		if (strcasecmp(p->name, "application_name") == 0)
			continue;
		wbuf_bytes(w, w->n ? " -c " : "-c ", w->n ? 4 : 3);
		wbuf_bytes(w, p->name, strlen(p->name));
		wbuf_bytes(w, "=", 1);
		for (const char *c = p->value; *c; c++) {
			if (*c == ' ' || *c == '\\')
				wbuf_bytes(w, "\\", 1);
			wbuf_bytes(w, c, 1);
		}
	}
	wbuf_u8(w, 0);
}

enum rc
replication_begin(struct session *s, struct diag *d)
{
	const struct database_config *db = s->tenant->db;
	const struct startup *st = s->startup;
	if (db->sharded) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "a sharded database has no single stream of changes");
		diag_hint(d, "Connect to each shard's primary directly.");
		return RC_FAIL;
	}
	const struct server_config *primary = &db->shards[0].servers[0];
	struct wbuf options = {0};
	const char *name = NULL;
	put_options(&options, st);
	for (size_t i = 0; i < st->n_settings; i++)
		if (strcasecmp(st->settings[i].name, "application_name") == 0)
			name = st->settings[i].value;
	struct pool_config pc = {
	    .conninfo = primary->conninfo,
	    .user = primary->user ? NULL : s->user,
	    .password = primary->has_password || primary->user ? NULL : s->tenant->password,
	    .set = {.max = 1, .connect_timeout_ms = db->set.server_connect_timeout_ms, .tcp = s->cfg->tcp},
	    .replication = st->replication == REPLICATION_DATABASE ? "database" : "true",
	    .application_name = name,
	    .options = options.p[0] ? options.p : NULL,
	};
	s->replication = xcalloc(1, sizeof *s->replication);
	pool_own_limits_init(&s->replication->limits, 1);
	s->replication->pool = pool_new(s->env->loop, &pc, s->replication->limits.by_kind);
	wbuf_fini(&options);
	return RC_OK;
}

struct pool *
replication_pool(const struct session *s)
{
	return s->replication->pool;
}

void
replication_end(struct session *s)
{
	if (!s->replication)
		return;
	pool_close(s->replication->pool);
	pool_free(s->replication->pool);
	pool_own_limits_fini(&s->replication->limits);
	free(s->replication);
	s->replication = NULL;
}
