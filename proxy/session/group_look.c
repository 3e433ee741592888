/* SPDX-License-Identifier: BSD-2-Clause */
/* group_look - a group of messages looked at before any is sent: what it does, where it must run, and, on a sharded database,
 * where it must be cut. */
#include "group_int.h"

#include "pgspan/log.h"
#include "pgspan/router.h"
#include "pgspan/sqlstate.h"

#include <xxhash.h>

#define GROUP_MAX_BYTES (256u << 10) /* looked at together, unless one message is larger */

/* The group's extent. RC_AGAIN: it is not whole yet. */
enum rc
group_measure(struct session *s, struct group *g)
{
	struct span rx = conn_rx(&s->conn);
	struct wire_head h;
	/* A statement of several shards must be seen to its Execute. */
	int over = s->tenant->db->sharded ? 8 : 0;
	char last = 0;
	while (wire_peek(rx.p + g->bytes, rx.n - g->bytes, INT32_MAX - 8, &h) == WIRE_OK && strchr("PBDECSH", h.type)) {
		if (h.total > rx.n - g->bytes) {
			if (h.total > s->cfg->max_packet_size)
				return g->n > 0 ? RC_OK : RC_AGAIN; /* refused when its turn comes */
			if (g->bytes > GROUP_MAX_BYTES && (over == 0 || last == 'E'))
				return RC_OK;
			conn_rx_expect(&s->conn, g->bytes + (size_t)h.total);
			return RC_AGAIN;
		}
		g->bytes += (size_t)h.total;
		g->n++;
		if (h.type == 'S' || h.type == 'H') {
			g->end = h.type;
			return RC_OK;
		}
		last = h.type;
		if (g->bytes > GROUP_MAX_BYTES && (last == 'E' || over-- <= 0))
			return RC_OK;
	}
	/* Something else stands behind it (a Query before the Sync, a Terminate): what there is goes. */
	if (rx.n - g->bytes >= WIRE_HEAD_BYTES)
		return g->n > 0 ? RC_OK : RC_AGAIN;
	return RC_AGAIN;
}

bool
group_next(struct session *s, size_t *at, const struct group *g, struct wire_msg *m)
{
	struct span rx = conn_rx(&s->conn);
	if (*at >= g->bytes || wire_take(rx.p + *at, rx.n - *at, INT32_MAX - 8, m) != WIRE_OK)
		return false;
	*at += m->len + WIRE_HEAD_BYTES;
	return true;
}

/* A Parse of this group by that name, looked for from the group's beginning to *before*. */
static struct stmt *
parsed_here(struct stmt **made, const struct span *names, int n, struct span name)
{
	for (int i = n; i-- > 0;)
		if (span_eq(names[i], name))
			return made[i];
	return NULL;
}

static void
look_add(struct look *k, struct span name, struct stmt *st)
{
	if (k->n == k->cap) {
		k->cap = k->cap ? k->cap * 2 : 8;
		k->made = xrealloc(k->made, (size_t)k->cap * sizeof(struct stmt *));
		k->names = xrealloc(k->names, (size_t)k->cap * sizeof *k->names);
	}
	k->names[k->n] = name;
	k->made[k->n++] = st;
}

void
look_fini(struct look *k)
{
	for (int i = 0; i < k->n; i++)
		stmt_unref(k->made[i]);
	free(k->made);
	free(k->names);
}

/* --- pieces, on a sharded database --- */

/* What stands at *at* and behind it is the next piece. */
static void
cut_at(struct group *g, size_t at)
{
	g->bytes = at;
	g->end = 0;
	g->cut = true;
	g->only_parse = false;
}

/* The statement is known to run on *shard*. False: what stands before it runs elsewhere. */
static bool
place(struct group *g, int shard)
{
	if (g->special || (g->placed_to > 0 && g->shard >= 0 && g->shard != shard))
		return false;
	g->shard = shard;
	return true;
}

/* BEGIN without modes: PostgreSQL takes what the implicit transaction has done into the block. */
static bool
is_plain_begin(struct session *s, struct span sql)
{
	static const char *const words[] = {"begin", "start", "transaction", "work"};
	struct scan_iter it;
	struct scan_token t;
	scan_iter_init(&it, sql.p, sql.n, meaning_scan_flags(s));
	while (scan_next(&it, &t)) {
		bool known = t.len == 1 && sql.p[t.off] == ';';
		for (size_t i = 0; i < ARRAY_LEN(words); i++)
			known |= scan_is_word(sql.p, &t, words[i]);
		if (!known)
			return false;
	}
	return true;
}

/* In a block of pgspan's own the client has none. */
static bool
may_be_implicit(struct session *s, const struct plan *p, struct span sql, struct diag *d)
{
	if (!s->implicit || !query_is_control(p) || p->kind == STMT_SET || (p->kind == STMT_BEGIN && is_plain_begin(s, sql)))
		return true;
	if (p->kind == STMT_SAVEPOINT || p->kind == STMT_RELEASE || p->kind == STMT_ROLLBACK_TO) {
		diag_set(d, "25P01", "%s can only be used in transaction blocks",
		    p->kind == STMT_SAVEPOINT ? "SAVEPOINT" : p->kind == STMT_RELEASE ? "RELEASE SAVEPOINT" : "ROLLBACK TO SAVEPOINT");
		return false;
	}
	diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "a transaction is begun or ended behind statements of several shards that stand before the same Sync");
	diag_hint(d, "Send a Sync before it.");
	return false;
}

/* Where a Bind's statement must run. False, without *d* (its message empty): it belongs to the next piece; with it: refused. */
static bool
route_bind(struct session *s, struct group *g, struct stmt *st, const struct plan *p, const struct msg_bind *b, struct diag *d)
{
	struct msg_values it = msg_bind_params(b);
	struct msg_value v;
	int n = 0;
	struct route_param *params = arena_alloc(&g->mem, ((size_t)b->n_params + 1) * sizeof *params);
	while (n < b->n_params && msg_value_next(&it, &v)) {
		params[n] = (struct route_param){
		    .data = v.bytes.p,
		    .len = v.is_null ? -1 : (int32_t)v.bytes.n,
		    .format = (int16_t)msg_format(b->formats, b->n_formats, (unsigned)n),
		    .type_oid = (unsigned)n < st->n_types ? st->types[n] : 0,
		};
		n++;
	}
	struct target_set t;
	struct route_values values = {.sql = st->text.p, .scan = &s->env->scan, .scan_flags = meaning_scan_flags(s), .params = params, .n_params = n, .utf8 = meaning_is_utf8(s)};
	if (query_is_ignored(s, p, d) || !may_be_implicit(s, p, st->text, d) || (p->route != ROUTE_ANY && meaning_is_unknown(s, d)) ||
	    query_route(s, p, &values, &t, d) != ROUTED)
		return false;
	bool for_all = query_is_for_all_legs(s, p, g->shard);
	bool ends = p->kind == STMT_COMMIT || p->kind == STMT_ROLLBACK;
	bool here = (p->kind == STMT_BEGIN && (txn_holds_begin(s) || s->implicit)) || (ends && (s->tx == TX_HELD || s->tx == TX_HELD_FAILED));
	bool anywhere = p->route == ROUTE_ANY && p->kind != STMT_FETCH && p->kind != STMT_CLOSE_CURSOR && !(query_is_control(p) && leg_count(s) > 0);
	bool copies = p->kind == STMT_COPY_FROM;
	if (t.count > 1 || for_all || here) {
		if (g->placed_to > 0)
			return false;
		g->special = true;
		g->targets = t;
		g->for_all = for_all;
	} else if (g->special || (copies && g->placed_to > 0) || (!anywhere && !place(g, target_first(&t)))) {
		return false;
	}
	if (copies && !g->special && s->cut) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "COPY stands behind statements of other shards and before the same Sync");
		diag_hint(d, "Send a Sync before it.");
		return false;
	}
	g->copies |= copies;
	g->writes |= (p->flags & PLAN_WRITES) != 0;
	g->has_unnamed |= b->portal.n == 0;
	g->n_binds++;
	g->bind = *b;
	g->values = values;
	return true;
}

/* A message that names a portal: it goes where that was bound. False: it belongs to the next piece, or *d* refuses it. */
static bool
place_portal(struct session *s, struct group *g, char type, struct span portal, struct diag *d)
{
	if (g->special && g->n_binds > 0) {
		g->odd |= !span_eq(portal, g->bind.portal) || type == 'C';
		return true;
	}
	int shard = portal.n == 0 && g->has_unnamed ? PORTAL_NOWHERE : portal_shard(s, portal);
	if (shard == PORTAL_SPREAD && type != 'C') {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "pgspan cannot go on with a portal that several shards have filled");
		diag_hint(d, "Fetch all rows by one Execute, or use LIMIT.");
		return false;
	}
	return shard < 0 || place(g, shard);
}

/* The Execute of a special statement ends its piece, unless all that follows is the Sync. */
static void
end_special(const struct session *s, struct group *g, size_t at)
{
	struct span rx = conn_rx(&s->conn);
	bool last = g->end == 'S' && at + WIRE_HEAD_BYTES == g->bytes && rx.p[at] == 'S';
	if (!last || s->implicit || g->copies)
		cut_at(g, at);
}

/* What a group's statements are, besides where they run. */
struct kinds {
	bool begin, end, other;
};

static void
note_kind(struct group *g, struct kinds *k, const struct plan *p)
{
	bool chain = (p->flags & PLAN_CHAIN) != 0, ends = p->kind == STMT_COMMIT || p->kind == STMT_ROLLBACK;
	g->plan = p;
	g->pins |= p->pins != 0;
	if (!(p->flags & PLAN_READ_ONLY))
		g->read_only = false;
	k->begin |= p->kind == STMT_BEGIN;
	k->end |= ends && !chain;
	k->other |= p->kind != STMT_BEGIN && (!ends || chain);
}

/* Execute, and Describe and Close of a portal. False: the group was cut, or is refused (*d*). */
static bool
look_at_portal(struct session *s, struct group *g, const struct wire_msg *m, size_t from, size_t at, struct diag *d)
{
	struct msg_execute e = {0};
	struct msg_target t = {0};
	bool executes = m->type == 'E' && msg_get_execute(m, &e);
	if (m->type != 'E' && !msg_get_target(m, &t))
		return true; /* malformed: group_send() says so */
	bool sharded = s->tenant->db->sharded;
	if (sharded && !place_portal(s, g, m->type, executes ? e.portal : t.name, d)) {
		if (!d->message[0] || g->placed_to > 0)
			cut_at(g, from);
		return false;
	}
	g->placed_to = at;
	g->n_executes += m->type == 'E';
	if (executes)
		g->max_rows = e.max_rows > 0 ? e.max_rows : 0;
	g->describe_portal |= m->type == 'D';
	if (g->special && executes)
		end_special(s, g, at);
	return !g->cut;
}

/* Whether a Bind may run, as far as can be told from its statement. */
static bool
may_bind(const struct session *s, const struct plan *p, bool *advanced, struct diag *d)
{
	if (p->kind == STMT_BEGIN && s->tenant->db->set.pool_mode == POOL_MODE_STATEMENT) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "transaction blocks are not allowed in statement pooling mode");
		return false;
	}
	return sequence_is_known(s, p, advanced, d);
}

enum route_status
group_look(struct session *s, struct group *g, struct look *k, struct diag *d)
{
	struct wire_msg m;
	struct kinds kinds = {0};
	bool sharded = s->tenant->db->sharded, advanced = s->leg->server && s->leg->wrote;
	size_t at = 0, from;
	g->read_only = true;
	g->only_parse = g->end == 'S';
	g->shard = -1;
	while (from = at, group_next(s, &at, g, &m)) {
		struct msg_parse p;
		struct msg_bind b;
		g->only_parse &= m.type == 'P' || m.type == 'S';
		struct msg_target t = {0};
		struct span name = SPAN_NONE;
		struct stmt *st = NULL;
		bool bound = false;
		if (m.type == 'P' && msg_get_parse(&m, &p)) {
			st = stmt_new(s, p.query, &p);
			look_add(k, p.name, st);
			name = p.name;
			g->unsure |= name.n > 0 && stmt_is_unsure(s, name);
		} else if (m.type == 'B' && msg_get_bind(&m, &b)) {
			name = b.statement;
			bound = true;
		} else if (m.type == 'D' && msg_get_target(&m, &t) && t.kind == 'S') {
			name = t.name;
			g->describe_statement = true;
		} else if (m.type == 'E' || ((m.type == 'C' || m.type == 'D') && msg_get_target(&m, &t) && t.kind == 'P')) {
			if (look_at_portal(s, g, &m, from, at, d))
				continue;
			if (!g->cut)
				return ROUTED_REFUSED;
			diag_clear(d);
			break;
		} else if (m.type == 'C' || m.type == 'S' || m.type == 'H' || m.type == 'D') {
			g->odd |= g->special && m.type == 'C';
			continue;
		} else {
			g->read_only = false; /* malformed: PostgreSQL says so */
			g->malformed = true;
			kinds.other = true;
			continue;
		}
		g->odd |= g->special && !bound;
		if (!st)
			st = parsed_here(k->made, k->names, k->n, name);
		if (!st) {
			st = stmt_find(s, name);
			g->unsure |= stmt_is_unsure(s, name);
			g->stale |= st && st->shape != 0 && (st->changed || st->epoch != fleet_ddl_epoch(s->env->tenants.fleet));
		}
		if (!st && sharded && bound && names_get(&s->sql_prepared, name)) {
			diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "pgspan runs what PREPARE has made on a sharded database by EXECUTE only");
			diag_hint(d, "Use the driver's own prepared statements.");
			return ROUTED_REFUSED;
		}
		if (!st) {
			g->read_only = false;
			g->writes = true;
			kinds.other = true;
			continue;
		}
		const struct plan *plan = stmt_plan(s, st);
		if (bound && (!may_bind(s, plan, &advanced, d) || (sharded && !route_bind(s, g, st, plan, &b, d)))) {
			/* What stands before it runs first, as it would without pgspan; a refusal waits for its turn. */
			if (!sharded || (d->message[0] && g->placed_to == 0))
				return ROUTED_REFUSED;
			assert(g->placed_to > 0);
			diag_clear(d);
			cut_at(g, g->placed_to);
			break;
		}
		if (bound && g->special && !g->for_all && g->targets.count > 1 && g->describe_statement) {
			cut_at(g, from); /* any one server describes it */
			g->special = g->copies = g->writes = false;
			g->n_binds = 0;
			break;
		}
		note_kind(g, &kinds, plan);
		g->stmt = st;
		if (bound)
			g->placed_to = at;
	}
	if (g->special && g->n_executes == 0 && g->targets.count == 1 && !g->for_all)
		g->special = false;
	if (s->implicit && g->end == 'S') {
		g->bytes -= WIRE_HEAD_BYTES; /* the block must be ended first */
		g->end = 0;
	}
	bool whole = g->end == 'S' || g->cut;
	g->only_begin = kinds.begin && !kinds.end && !kinds.other && whole;
	g->only_end = kinds.end && !kinds.begin && !kinds.other && whole;
	return ROUTED;
}
