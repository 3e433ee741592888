/* SPDX-License-Identifier: BSD-2-Clause */
/* limits - clients that stay too long in one state: client_idle_timeout, idle_transaction_timeout, query_timeout,
 * transaction_timeout.
 *
 * No timer is started or stopped per statement. A session keeps two moments, which cost it two stores: `since`, when it last
 * became quiet or ceased to be, and `tx_since`, when its transaction began. Once a second the worker looks at all sessions, and
 * only where a limit is set.
 *
 * All four end the connection, as PgBouncer's do: what the client would be told in the middle of a transaction it may not read
 * for hours, and a query_timeout is for servers that do not answer any more, a cancel request included. */
#include "session_int.h"

#include "pgspan/log.h"
#include "pgspan/sqlstate.h"

struct verdict {
	const char *key, *sqlstate, *message, *hint;
	int64_t limit_ms;
};

static bool
is_past(const struct session *s, ev_tstamp since, int64_t limit_ms)
{
	return limit_ms > 0 && (ev_now(s->env->loop->ev) - since) * 1000. >= (double)limit_ms;
}

void
limits_note(struct session *s)
{
	if (s->fan || s->leg->waiter.pool || !leg_owes_nothing(s))
		return;
	s->since = ev_now(s->env->loop->ev);
	if (s->tx == TX_IDLE && !s->leg->unsynced)
		s->tx_since = s->since;
}

void
limits_note_ready(struct session *s)
{
	s->since = ev_now(s->env->loop->ev);
	if (s->tx == TX_IDLE)
		s->tx_since = s->since;
}

/* The limit that the session has passed; key NULL: none. */
static struct verdict
judge(struct session *s)
{
	const struct database_settings *set = &s->tenant->db->set;
	bool waits = s->leg->waiter.pool || s->waits_catalog; /* for a server: query_wait_timeout's */
	bool works = s->fan || s->leg->linking || !leg_owes_nothing(s);
	bool in_tx = s->tx != TX_IDLE || s->leg->unsynced;
	if (works && !waits && is_past(s, s->since, set->query_timeout_ms))
		return (struct verdict){"query_timeout", SQLSTATE_QUERY_CANCELED, "terminating connection due to query timeout",
		    "A shorter statement_timeout on the server ends the statement and keeps the connection.", set->query_timeout_ms};
	if (!works && !waits && in_tx && is_past(s, s->since, set->idle_transaction_timeout_ms))
		return (struct verdict){"idle_transaction_timeout", "25P03", "terminating connection due to idle-in-transaction timeout",
		    "Look for a COMMIT or ROLLBACK that the application leaves out.", set->idle_transaction_timeout_ms};
	if ((in_tx || works) && is_past(s, s->tx_since, set->transaction_timeout_ms))
		return (struct verdict){"transaction_timeout", "25P04", "terminating connection due to transaction timeout",
		    "Do the work in shorter transactions.", set->transaction_timeout_ms};
	if (!works && !waits && !in_tx && leg_count(s) == 0 && is_past(s, s->since, set->client_idle_timeout_ms))
		return (struct verdict){"client_idle_timeout", "57P05", "terminating connection due to idle-session timeout",
		    "Let the application's pool close its connections before that.", set->client_idle_timeout_ms};
	return (struct verdict){NULL, NULL, NULL, NULL, 0};
}

static void
note_within(struct leg *l, void *arg)
{
	*(bool *)arg |= !relay_is_between(&l->relay);
}

static void
end(struct session *s, const struct verdict *v)
{
	struct diag d;
	bool within = false;
	log_info("client %s of database %s: %s", s->user, s->tenant->db->name, v->key);
	leg_each(s, note_within, &within);
	if (within) { /* the client has the first part of a message: an error behind it would be read as the rest */
		session_close(s, v->key);
		return;
	}
	diag_clear(&d);
	diag_set(&d, v->sqlstate, "%s", v->message);
	diag_detail(&d, "pgspan's %s is %lld ms.", v->key, (long long)v->limit_ms);
	diag_hint(&d, "%s", v->hint);
	session_fatal(s, &d);
}

static bool
any_limit(const struct config *cfg)
{
	for (int i = 0; i < cfg->n_databases; i++) {
		const struct database_settings *set = &cfg->databases[i].set;
		if (set->query_timeout_ms | set->idle_transaction_timeout_ms | set->transaction_timeout_ms | set->client_idle_timeout_ms)
			return true;
	}
	return false;
}

void
session_enforce_limits(struct session_env *env)
{
	if (!any_limit(env->cfg))
		return;
	for (struct dlist *n = env->sessions.next, *next; n != &env->sessions; n = session_after(env, next)) {
		struct session *s = container_of(n, struct session, link);
		next = n->next;
		if (s->state != SESSION_READY || s->replication) /* a stream of changes has no end */
			continue;
		struct verdict v = judge(s);
		if (v.key)
			end(s, &v);
	}
}
