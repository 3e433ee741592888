/* SPDX-License-Identifier: BSD-2-Clause */
/* group - the extended protocol (PostgreSQL docs 55.2.3).
 *
 * The messages up to a Sync or Flush are looked at together before any is sent, so that the server they go to is right for all
 * of them (one write among them: the primary). Then each is sent as it came, but for names: a named statement lives on
 * servers under a name made of its text's hash, and is prepared there when it is first needed.
 *
 *   client: Parse s1, Bind s1, Execute, Sync
 *   server, new to it:  Parse pgspan_<h>, Bind pgspan_<h>, Execute, Sync        answers 1 2 … C Z
 *   server, has it:                       Bind pgspan_<h>, Execute, Sync        answers (1) 2 … C Z      ( ) made up here
 *
 * A group that only prepares what some server has prepared a moment ago is answered at once, without a server: a client
 * that waits for a Parse while it keeps others of its own from ending their transactions (pgbench -M prepared with fewer
 * servers than clients) would wait for ever.
 *
 * PostgreSQL itself complains of names that are taken (42P05) or unknown (26000), in its own words. */
#include "session_int.h"

#include "pgspan/log.h"
#include "pgspan/router.h"
#include "pgspan/sqlstate.h"

#include <xxhash.h>

#define GROUP_MAX_BYTES (256u << 10) /* looked at together, unless one message is larger */
#define STATEMENTS_PER_SERVER 200
#define KNOWN_STATEMENTS 1000

/* What the entry of a Parse or Close in the FIFO refers to. A name changes when the message is sent, and is as before again if
 * the server has ignored it. */
struct naming {
	struct dlist link;   /* in session->namings, oldest first */
	struct stmt *stmt;   /* what the name means now; NULL: it was closed */
	struct stmt *before; /* what it meant; NULL: nothing */
	bool of_client;      /* the client's own message: the name is one of its names */
	bool only_judged;    /* the server has it already: it was parsed once more, without a name, to see whether it may be now */
	size_t len;
	char name[];         /* of a Parse of pgspan's own: the server's */
};

/* --- statements --- */

struct stmt *
stmt_new(struct session *s, struct span text, const struct msg_parse *p)
{
	struct stmt *st = xcalloc(1, sizeof *st + text.n + 1);
	st->refs = 1;
	memcpy(st->data, text.p, text.n);
	st->text = span_of(st->data, text.n);
	st->n_types = p->n_types;
	if (p->n_types) {
		st->types = xmalloc(p->n_types * sizeof *st->types);
		for (unsigned i = 0; i < p->n_types; i++)
			st->types[i] = msg_parse_type(p, i);
	}
	st->epoch = fleet_ddl_epoch(s->env->tenants.fleet);
	uint64_t seed = XXH3_64bits_withSeed(p->types, p->n_types * (size_t)4, meaning_salt(s) ^ st->epoch * 0x9e3779b97f4a7c15u);
	XXH128_hash_t h = XXH3_128bits_withSeed(text.p, text.n, seed);
	st->id = (struct stmt_id){h.high64, h.low64 | 1};
	return st;
}

struct stmt *
stmt_ref(struct stmt *st)
{
	st->refs++;
	return st;
}

void
stmt_unref(struct stmt *st)
{
	if (!st || --st->refs > 0)
		return;
	if (st->plan)
		plan_entry_unref(st->plan);
	free(st->types);
	free(st);
}

static struct naming *
naming_new(struct session *s, struct stmt *st, struct span name)
{
	struct naming *p = xmalloc(sizeof *p + name.n + 1);
	dlist_init(&p->link);
	dlist_add_tail(&s->namings, &p->link);
	p->stmt = st ? stmt_ref(st) : NULL;
	p->before = NULL;
	p->of_client = p->only_judged = false;
	p->len = name.n;
	if (name.n)
		memcpy(p->name, name.p, name.n);
	return p;
}

/* The client's name means *st* from now on (NULL: nothing). */
static struct naming *
rename_to(struct session *s, struct span name, struct stmt *st)
{
	struct naming *p = naming_new(s, st, name);
	p->of_client = true;
	if (st)
		st->named |= name.n > 0;
	if (name.n == 0) {
		p->before = s->unnamed;
		s->unnamed = st ? stmt_ref(st) : NULL;
	} else {
		p->before = st ? names_put(&s->stmts, name, stmt_ref(st)) : names_take(&s->stmts, name);
	}
	return p;
}

/* The next change of the same name that has no answer yet; NULL: there is none. */
static struct naming *
next_naming(const struct session *s, const struct naming *p)
{
	for (struct dlist *i = p->link.next; i != &s->namings; i = i->next) {
		struct naming *n = container_of(i, struct naming, link);
		if (n->of_client && n->len == p->len && memcmp(n->name, p->name, p->len) == 0)
			return n;
	}
	return NULL;
}

static void
undo(struct session *s, struct naming *p, enum reply_end end)
{
	struct span name = span_of(p->name, p->len);
	struct naming *later = next_naming(s, p);
	/* PostgreSQL drops the unnamed statement before it looks at the text of the next. */
	struct stmt *before = p->len == 0 && end == REPLY_FAILED ? NULL : p->before;
	if (before)
		(void)stmt_ref(before);
	if (later) {
		stmt_unref(later->before);
		later->before = before;
	} else if (p->len == 0) {
		stmt_unref(s->unnamed);
		s->unnamed = before;
	} else if (before) {
		stmt_unref(names_put(&s->stmts, name, before));
	} else {
		stmt_unref(names_take(&s->stmts, name));
	}
}

/* A statement means the same only under the same settings. */
static struct stmt_id
known_id(const struct session *s, struct stmt_id id)
{
	id.hi ^= s->settings_hash * 0x9e3779b97f4a7c15u;
	return id;
}

struct failed_name {
	struct stmt_id id;
	size_t len;
	char name[];
};

static void
note_name(struct session *s, struct stmt_id id, struct span name)
{
	free(s->failed_name);
	s->failed_name = xmalloc(sizeof *s->failed_name + name.n);
	s->failed_name->id = id;
	s->failed_name->len = name.n;
	memcpy(s->failed_name->name, name.p, name.n);
}

/* The name on servers under which a statement stands for *name*, which is taken: see take_a_name(). */
static struct stmt_id
taken_id(struct span name)
{
	return (struct stmt_id){UINT64_MAX, XXH3_64bits(name.p, name.n)};
}

static bool
has_name(struct span client, const void *value, const void *internal)
{
	const struct stmt *st = value;
	char name[STMT_NAME_BYTES];
	return memcmp(internal, name, stmt_id_name(st->id, name)) == 0 || memcmp(internal, name, stmt_id_name(taken_id(client), name)) == 0;
}

bool
group_statement_name(struct session *s, const char *internal, struct span *name)
{
	char text[STMT_NAME_BYTES];
	const struct failed_name *f = s->failed_name;
	if (names_find(&s->stmts, has_name, internal, name))
		return true;
	if (!f || (memcmp(internal, text, stmt_id_name(f->id, text)) != 0 &&
	              memcmp(internal, text, stmt_id_name(taken_id(span_of(f->name, f->len)), text)) != 0))
		return false;
	*name = span_of(f->name, f->len);
	return true;
}

void
group_name_ended(struct leg *l, void *ref, enum reply_end end, bool sent)
{
	struct naming *p = ref;
	struct session *s = l->session;
	if (!p)
		return;
	if (p->stmt && sent) {
		struct stmt_id known = known_id(s, p->stmt->id), gone;
		if (end == REPLY_DONE && dlist_empty(&s->pending) && s->pins == 0)
			(void)stmt_set_add(&s->tenant->known, known, KNOWN_STATEMENTS, &gone);
		else if (end == REPLY_FAILED)
			stmt_set_remove(&s->tenant->known, known);
	}
	if (p->stmt && end != REPLY_DONE && sent && l->server) {
		if ((p->len == 0 || p->only_judged) && stmt_id_eq(l->server->has.unnamed, p->stmt->id))
			l->server->has.unnamed = (struct stmt_id){0, 0};
		else if (p->len > 0 && !p->only_judged)
			stmt_set_remove(&l->server->has.stmts, p->stmt->id);
	}
	if (p->of_client) {
		if (end != REPLY_DONE) {
			if (p->stmt && p->len > 0)
				note_name(s, p->stmt->id, span_of(p->name, p->len));
			undo(s, p, end);
		}
	}
	dlist_del(&p->link);
	stmt_unref(p->stmt);
	stmt_unref(p->before);
	free(p);
}

static struct stmt *
find_stmt(const struct session *s, struct span name)
{
	return name.n == 0 ? s->unnamed : names_get(&s->stmts, name);
}

static void
portal_free(void *value)
{
	struct portal *p = value;
	if (!p)
		return;
	stmt_unref(p->stmt);
	free(p);
}

void
portals_clear(struct session *s)
{
	names_clear(&s->portals, portal_free);
	s->portal_shard = PORTAL_NOWHERE;
}

static void
bind_portal(struct session *s, struct span portal, struct stmt *st)
{
	if (portal.n == 0) {
		stmt_unref(s->portal);
		s->portal = st ? stmt_ref(st) : NULL;
		s->portal_shard = s->leg->shard;
	} else if (st) {
		struct portal *p = xmalloc(sizeof *p);
		*p = (struct portal){stmt_ref(st), s->leg->shard};
		portal_free(names_put(&s->portals, portal, p));
	}
}

static struct stmt *
portal_stmt(const struct session *s, struct span portal)
{
	if (portal.n == 0)
		return s->portal;
	const struct portal *p = names_get(&s->portals, portal);
	return p ? p->stmt : NULL;
}

/* The shard that a portal was made on, or PORTAL_*. */
static int
portal_shard(const struct session *s, struct span portal)
{
	if (portal.n == 0)
		return s->portal_shard;
	const struct portal *p = names_get(&s->portals, portal);
	return p ? p->shard : PORTAL_NOWHERE;
}

/* --- looking at a group --- */

struct group {
	size_t bytes;   /* of whole messages */
	int n;
	char end;       /* S, H, or 0: more is to come */
	bool read_only; /* all its statements are */
	bool only_begin, only_end; /* all it executes is BEGIN, or COMMIT or ROLLBACK */
	bool only_parse;           /* nothing but Parse and Sync */
	const struct plan *plan;   /* of the last statement named */
	struct stmt *stmt;
	/* sharded databases */
	struct arena mem;          /* the values below */
	int n_binds, n_executes;
	bool describe_portal, describe_statement;
	int32_t max_rows;          /* of the last Execute */
	int shard;                 /* which its messages belong to; -1: any, so far */
	bool malformed, pins;
	bool stale;                /* it names a statement that is older than some DDL */
	bool unsure;               /* it names a statement whose making or closing has no answer yet */
	bool for_all;              /* a statement that ends or marks a block of several legs */
	struct msg_bind bind;      /* the last one */
	struct route_values values;
	struct target_set targets; /* of a special one */
	/* What belongs elsewhere is cut off: it is the next piece (piece.c). */
	bool cut;
	size_t placed_to;  /* where the last message ends that belongs to some shard; 0: there is none */
	bool special;      /* its statement is for several shards, or a BEGIN or end of a block that no leg has seen */
	bool odd;          /* special, but not Bind, Describe, Execute of one portal */
	bool has_unnamed;  /* it binds the unnamed portal */
	bool writes, copies;
};

/* The group's extent. RC_AGAIN: it is not whole yet. */
static enum rc
measure(struct session *s, struct group *g)
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

static bool
next(struct session *s, size_t *at, const struct group *g, struct wire_msg *m)
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

struct look {
	struct stmt **made; /* of the group's Parse messages, in order */
	struct span *names;
	int n, cap;
};

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

static void
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

/* Whether the answer to a message that was sent decides what the name means, or whether the server has its statement. */
static bool
is_unsure(const struct session *s, struct span name)
{
	const struct stmt *st = find_stmt(s, name);
	for (struct dlist *i = s->namings.next; i != &s->namings; i = i->next) {
		const struct naming *n = container_of(i, struct naming, link);
		if (st ? n->stmt && stmt_id_eq(n->stmt->id, st->id) : !n->stmt && n->len == name.n && memcmp(n->name, name.p, name.n) == 0)
			return true;
	}
	return false;
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
		return true; /* malformed: send_group() says so */
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

static enum route_status
look_at(struct session *s, struct group *g, struct look *k, struct diag *d)
{
	struct wire_msg m;
	struct kinds kinds = {0};
	bool sharded = s->tenant->db->sharded, advanced = s->leg->server && s->leg->wrote;
	size_t at = 0, from;
	g->read_only = true;
	g->only_parse = g->end == 'S';
	g->shard = -1;
	while (from = at, next(s, &at, g, &m)) {
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
			g->unsure |= name.n > 0 && is_unsure(s, name);
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
			st = find_stmt(s, name);
			g->unsure |= is_unsure(s, name);
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

/* --- answering here --- */

/* A group that only begins, or only ends a block that no server knows: answered as PostgreSQL would. */
static void
answer_here(struct session *s, struct group *g)
{
	struct wire_msg m;
	struct wbuf w = {0};
	size_t at = 0;
	bool executed = false, failed = s->tx == TX_HELD_FAILED;
	struct plan_entry *plan = g->stmt->plan;
	struct stmt *st = g->stmt;
	while (next(s, &at, g, &m)) {
		struct msg_parse p;
		struct msg_target t;
		switch (m.type) {
		case 'P':
			if (!msg_get_parse(&m, &p))
				break;
			if (p.name.n == 0) {
				stmt_unref(s->unnamed);
				s->unnamed = stmt_new(s, p.query, &p);
			} else {
				stmt_unref(names_put(&s->stmts, p.name, stmt_new(s, p.query, &p)));
			}
			wbuf_bytes(&w, "1\0\0\0\4", 5);
			break;
		case 'B':
			wbuf_bytes(&w, "2\0\0\0\4", 5);
			break;
		case 'C':
			if (msg_get_target(&m, &t) && t.kind == 'S' && t.name.n > 0)
				stmt_unref(names_take(&s->stmts, t.name));
			wbuf_bytes(&w, "3\0\0\0\4", 5);
			break;
		case 'D':
			if (msg_get_target(&m, &t) && t.kind == 'S')
				wbuf_bytes(&w, "t\0\0\0\6\0\0", 7);
			wbuf_bytes(&w, "n\0\0\0\4", 5);
			break;
		case 'E': {
			const char *tag;
			if (g->only_begin) {
				if (!executed && !s->implicit)
					txn_begin_held(s, plan->plan, st->text);
				s->implicit = false; /* the client's from now on */
				/* The tag repeats the statement's first word, and a text's shape begins with it. */
				const char *c = st->text.p;
				size_t n = st->text.n;
				while (n > 0 && (*c == ' ' || *c == '\n' || *c == '\t' || *c == ';'))
					c++, n--;
				tag = n >= 5 && strncasecmp(c, "start", 5) == 0 ? "START TRANSACTION" : "BEGIN";
			} else {
				tag = plan->plan->kind == STMT_COMMIT && !failed ? "COMMIT" : "ROLLBACK";
				txn_forget_held(s);
				s->tx = TX_IDLE;
			}
			executed = true;
			msg_put_command_complete(&w, tag);
			break;
		}
		case 'S':
			s->cut = false;
			msg_put_ready_for_query(&w, session_status(s));
			break;
		default:
			break;
		}
	}
	session_put(s, &w);
	conn_rx_consume(&s->conn, g->bytes);
}

/* Whether answer_here() can: no name that exists already is parsed again, each Execute runs once. */
static bool
can_answer_here(struct session *s, const struct group *g, const struct look *k)
{
	bool idle_begin = g->only_begin && (txn_holds_begin(s) || s->implicit);
	bool held_end = g->only_end && (s->tx == TX_HELD || s->tx == TX_HELD_FAILED);
	bool known = g->only_parse && k->n > 0 && !g->malformed && s->tx != TX_HELD_FAILED && s->pins == 0;
	for (int i = 0; i < k->n && known; i++)
		known = stmt_set_has(&s->tenant->known, known_id(s, k->made[i]->id));
	bool free_legs = leg_count(s) == 0 || (s->tenant->db->sharded && legs_are_quiet(s) && !s->leg->unsynced && !known);
	if (s->tenant->db->sharded && !known && g->n_binds > 0 && (!g->special || g->odd))
		return false;
	if (!free_legs || g->malformed || !(idle_begin || held_end || known))
		return false;
	int executes = 0;
	size_t at = 0;
	struct wire_msg m;
	struct span rx = conn_rx(&s->conn);
	(void)rx;
	while (next(s, &at, g, &m))
		executes += m.type == 'E';
	for (int i = 0; i < k->n; i++)
		if (k->names[i].n > 0 && names_get(&s->stmts, k->names[i]))
			return false;
	return executes <= 1;
}

/* --- sending --- */

static void
send_copy(struct leg *l, struct wbuf *w)
{
	conn_send_copy(&l->server->conn, w->p, w->n);
	wbuf_fini(w);
}

static void
send_whole(struct leg *l, const struct wire_msg *m)
{
	conn_send_ref(&l->server->conn, span_of((const char *)m->body - WIRE_HEAD_BYTES, m->len + WIRE_HEAD_BYTES));
}

/* The server is about to hold the statement under our name. */
static void
will_have(struct leg *l, struct stmt *st)
{
	struct stmt_id gone;
	if (!stmt_set_add(&l->server->has.stmts, st->id, STATEMENTS_PER_SERVER, &gone))
		return;
	struct wbuf w = {0};
	char name[STMT_NAME_BYTES];
	msg_put_close(&w, 'S', span_of(name, stmt_id_name(gone, name)));
	send_copy(l, &w);
	replies_push(&l->server->replies, REPLY_CLOSE, REPLY_SKIP, NULL);
}

/* Makes sure that the server has the statement (the unnamed one: as its unnamed one). */
static void
ensure(struct leg *l, struct stmt *st, bool unnamed)
{
	struct server *sv = l->server;
	struct wbuf w = {0};
	char name[STMT_NAME_BYTES];
	struct span n = SPAN_NONE;
	if (unnamed ? stmt_id_eq(sv->has.unnamed, st->id) : stmt_set_has(&sv->has.stmts, st->id))
		return;
	if (unnamed) {
		sv->has.unnamed = st->id;
	} else {
		will_have(l, st);
		n = span_of(name, stmt_id_name(st->id, name));
	}
	msg_put_parse(&w, n, st->text, st->types, st->n_types);
	send_copy(l, &w);
	replies_push(&sv->replies, REPLY_PARSE, REPLY_SKIP, naming_new(l->session, st, n));
}

/* Puts the name of a statement that every server can be made to have, also in a block that has failed: whoever is sent there under it
 * gets PostgreSQL's 42P05, unless its text has an error of its own. In the message the client's *name* takes its place. */
static struct span
take_a_name(struct leg *l, struct span name, char out[STMT_NAME_BYTES])
{
	struct replies *q = &l->server->replies;
	struct wbuf w = {0};
	struct span t = span_of(out, stmt_id_name(taken_id(name), out));
	msg_put_close(&w, 'S', t);
	msg_put_parse(&w, t, SPAN_LIT(""), NULL, 0);
	send_copy(l, &w);
	replies_push(q, REPLY_CLOSE, REPLY_SKIP, NULL);
	replies_push(q, REPLY_PARSE, REPLY_SKIP, NULL);
	return t;
}

/* The name that an identifier spells. False: it is none, or longer than names are. */
static bool
spelled_name(const char *sql, const struct scan_token *t, char *out, size_t size)
{
	size_t n = 0;
	bool quoted = t->kind == SCAN_QIDENT;
	if (t->kind != SCAN_IDENT && !quoted)
		return false;
	for (size_t i = quoted; i < t->len - quoted; i++) {
		char c = sql[t->off + i];
		if (n + 1 >= size)
			return false;
		out[n++] = !quoted && c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
		if (quoted && c == '"')
			i++; /* doubled */
	}
	out[n] = '\0';
	return n > 0;
}

bool
group_execute_by_sql(struct leg *l, const struct plan *p, struct span sql, struct wbuf *w)
{
	struct session *s = l->session;
	struct scan_iter it;
	struct scan_token t;
	bool execute = false, prepare = p->kind == STMT_PREPARE;
	if (s->stmts.n == 0 || s->tenant->db->sharded || p->kind == STMT_SELECT || p->kind == STMT_INSERT || p->kind == STMT_UPDATE || p->kind == STMT_DELETE)
		return false;
	scan_iter_init(&it, sql.p, sql.n, meaning_scan_flags(s));
	for (int i = 0; scan_next(&it, &t); i++) {
		if (i == 0 && !prepare && !scan_is_word(sql.p, &t, "execute") && !scan_is_word(sql.p, &t, "explain") && !scan_is_word(sql.p, &t, "create"))
			return false;
		if (!execute) {
			execute = prepare || scan_is_word(sql.p, &t, "execute");
			continue;
		}
		char name[STMT_NAME_BYTES], wanted[128];
		if (!spelled_name(sql.p, &t, wanted, sizeof wanted))
			return false;
		struct stmt *st = names_get(&s->stmts, span_str(wanted));
		if (!st)
			return false;
		struct span internal;
		if (prepare) {
			internal = take_a_name(l, span_str(wanted), name);
		} else {
			ensure(l, st, false);
			internal = span_of(name, stmt_id_name(st->id, name));
		}
		wbuf_bytes(w, sql.p, t.off);
		wbuf_span(w, internal);
		wbuf_bytes(w, sql.p + t.off + t.len, sql.n - t.off - t.len);
		return true;
	}
	return false;
}

static bool
has_id(struct span client, const void *value, const void *id)
{
	(void)client;
	return stmt_id_eq(((const struct stmt *)value)->id, *(const struct stmt_id *)id);
}

static void
send_parse(struct session *s, const struct wire_msg *m, const struct msg_parse *p)
{
	struct leg *l = s->leg;
	struct replies *q = &l->server->replies;
	struct stmt *st = stmt_new(s, p->query, p);
	struct wbuf w = {0};
	char name[STMT_NAME_BYTES];
	struct span other;
	/* One text under two names: each has a statement of its own on servers, so that an error tells which. */
	if (p->name.n > 0 && names_find(&s->stmts, has_id, &st->id, &other))
		st->id.hi ^= XXH3_64bits(p->name.p, p->name.n);
	if (p->name.n == 0) {
		l->server->has.unnamed = st->id;
		replies_push(q, REPLY_PARSE, REPLY_FORWARD, rename_to(s, p->name, st));
		send_whole(l, m);
	} else if (names_get(&s->sql_prepared, p->name)) {
		send_whole(l, m); /* PREPARE made it on this server: 42P05 */
		replies_push(q, REPLY_PARSE, REPLY_FORWARD, NULL);
	} else if (names_get(&s->stmts, p->name)) {
		msg_put_parse_head(&w, p, take_a_name(l, p->name, name));
		send_copy(l, &w);
		conn_send_ref(&l->server->conn, p->rest);
		replies_push(q, REPLY_PARSE, REPLY_FORWARD, NULL);
	} else if (stmt_set_has(&l->server->has.stmts, st->id)) {
		struct naming *n = rename_to(s, p->name, st);
		/* In a block that has failed, or may have by now, it must fail. */
		n->only_judged = s->tx == TX_OPEN && (l->server->tx_status == 'E' || !replies_empty(q));
		if (n->only_judged) {
			msg_put_parse_head(&w, p, SPAN_NONE);
			send_copy(l, &w);
			conn_send_ref(&l->server->conn, p->rest);
			l->server->has.unnamed = st->id;
		}
		replies_push(q, REPLY_PARSE, n->only_judged ? REPLY_FORWARD : REPLY_FAKE, n);
	} else {
		will_have(l, st);
		msg_put_parse_head(&w, p, span_of(name, stmt_id_name(st->id, name)));
		send_copy(l, &w);
		conn_send_ref(&l->server->conn, p->rest);
		replies_push(q, REPLY_PARSE, REPLY_FORWARD, rename_to(s, p->name, st));
	}
	stmt_unref(st);
}

static void
send_bind(struct session *s, const struct wire_msg *m, const struct msg_bind *b)
{
	struct leg *l = s->leg;
	struct stmt *st = find_stmt(s, b->statement);
	struct wbuf w = {0};
	char name[STMT_NAME_BYTES];
	bind_portal(s, b->portal, st);
	if (!st) {
		if (b->statement.n == 0) {
			/* The server's unnamed statement may be another's: it must not run. */
			msg_put_close(&w, 'S', SPAN_NONE);
			send_copy(l, &w);
			replies_push(&l->server->replies, REPLY_CLOSE, REPLY_SKIP, NULL);
			l->server->has.unnamed = (struct stmt_id){0, 0};
		}
		send_whole(l, m);
	} else {
		ensure(l, st, b->statement.n == 0);
		if (b->statement.n == 0) {
			send_whole(l, m);
		} else {
			msg_put_bind_head(&w, b, b->portal, span_of(name, stmt_id_name(st->id, name)));
			send_copy(l, &w);
			conn_send_ref(&l->server->conn, b->rest);
		}
	}
	replies_push(&l->server->replies, REPLY_BIND, REPLY_FORWARD, NULL);
}

static void
send_describe(struct session *s, const struct wire_msg *m, const struct msg_target *t)
{
	struct leg *l = s->leg;
	if (t->kind != 'S') {
		struct stmt *of = portal_stmt(s, t->name);
		send_whole(l, m);
		replies_push(&l->server->replies, REPLY_DESCRIBE_PORTAL, REPLY_FORWARD, of && of->named && of->shape == 0 ? stmt_ref(of) : NULL);
		return;
	}
	struct stmt *st = find_stmt(s, t->name);
	if (st)
		ensure(l, st, t->name.n == 0);
	if (st && t->name.n > 0) {
		struct wbuf w = {0};
		char name[STMT_NAME_BYTES];
		msg_put_describe(&w, 'S', span_of(name, stmt_id_name(st->id, name)));
		send_copy(l, &w);
	} else {
		send_whole(l, m);
	}
	replies_push(&l->server->replies, REPLY_DESCRIBE_STATEMENT, REPLY_FORWARD, st && t->name.n > 0 ? stmt_ref(st) : NULL);
}

static void
send_execute(struct session *s, const struct wire_msg *m, struct span portal)
{
	struct leg *l = s->leg;
	struct stmt *st = portal_stmt(s, portal);
	struct effect *e = NULL;
	if (st) {
		const struct plan *p = stmt_plan(s, st);
		if (p->kind == STMT_DEALLOCATE && p->name && names_get(&s->stmts, span_str(p->name))) {
			replies_push(&l->server->replies, REPLY_EXECUTE, REPLY_FAKE, rename_to(s, span_str(p->name), NULL));
			return;
		}
		e = effect_new(st->plan, st->text);
		s->holds |= txn_holds(s, p);
		char name[128];
		if (p->pins & ~(unsigned)PIN_SETTING || (p->pins && !query_is_set_config(st->text, name, sizeof name)))
			l->server->has.unclean = true;
	}
	send_whole(l, m);
	replies_push(&l->server->replies, REPLY_EXECUTE, REPLY_FORWARD, e);
}

static void
send_close(struct session *s, const struct wire_msg *m, const struct msg_target *t)
{
	struct leg *l = s->leg;
	struct replies *q = &l->server->replies;
	if (t->kind == 'S' && t->name.n > 0 && names_get(&s->stmts, t->name)) {
		if (!replies_empty(q)) /* an error that is still to come may name it */
			note_name(s, ((const struct stmt *)names_get(&s->stmts, t->name))->id, t->name);
		replies_push(q, REPLY_CLOSE, REPLY_FAKE, rename_to(s, t->name, NULL));
		return;
	}
	if (t->kind == 'P' && t->name.n > 0)
		portal_free(names_take(&s->portals, t->name));
	struct naming *unnamed = NULL;
	if (t->kind == 'S' && t->name.n == 0) {
		unnamed = rename_to(s, t->name, NULL);
		l->server->has.unnamed = (struct stmt_id){0, 0};
	}
	send_whole(l, m);
	replies_push(q, REPLY_CLOSE, REPLY_FORWARD, unnamed);
}

/* Sends the group. False: a message is malformed, the connection is over. */
static bool
send_group(struct session *s, const struct group *g)
{
	struct leg *l = s->leg;
	struct wire_msg m;
	size_t at = 0;
	char last = 0;
	/* What stands behind a statement that changes what all others mean is looked at when its answer is there. */
	while (!s->holds && next(s, &at, g, &m)) {
		struct msg_parse p;
		struct msg_bind b;
		struct msg_target t;
		struct msg_execute e;
		bool ok = true;
		last = m.type;
		if (m.type != 'S')
			l->unsynced = true;
		l->ran |= m.type == 'B' || m.type == 'E';
		switch (m.type) {
		case 'P':
			ok = msg_get_parse(&m, &p);
			if (ok)
				send_parse(s, &m, &p);
			break;
		case 'B':
			ok = msg_get_bind(&m, &b);
			if (ok)
				send_bind(s, &m, &b);
			break;
		case 'D':
			ok = msg_get_target(&m, &t);
			if (ok)
				send_describe(s, &m, &t);
			break;
		case 'E':
			ok = msg_get_execute(&m, &e);
			if (ok)
				send_execute(s, &m, e.portal);
			break;
		case 'C':
			ok = msg_get_target(&m, &t);
			if (ok)
				send_close(s, &m, &t);
			break;
		case 'S':
			l->unsynced = l->ran = s->cut = false;
			send_whole(l, &m);
			replies_push(&l->server->replies, REPLY_SYNC, REPLY_FORWARD, NULL);
			break;
		case 'H':
			send_whole(l, &m);
			break;
		default:
			break;
		}
		if (!ok) {
			struct diag d;
			diag_clear(&d);
			diag_set(&d, SQLSTATE_PROTOCOL_VIOLATION, "invalid message format");
			session_fatal(s, &d);
			return false;
		}
	}
	if (conn_flush(&l->server->conn) == RC_FAIL)
		l->lost = true;
	l->flushed = last == 'H';
	leg_save(l, span_of(conn_rx(&s->conn).p, at));
	conn_rx_consume(&s->conn, at);
	/* An answer that is made up here waits for no server when nothing stands before it. */
	const struct reply *head = replies_head(&l->server->replies);
	if (head && head->action == REPLY_FAKE && relay_run(&l->relay) == RC_FAIL)
		l->lost = true;
	return true;
}

/* --- the way in --- */

/* A Sync with nothing before it, or behind an error of pgspan's own. */
static enum rc
lone_sync(struct session *s)
{
	struct leg *l = s->leg;
	struct wbuf w = {0};
	if (s->cut || s->implicit)
		return piece_sync(s, true);
	if (s->skip_to_sync && !leg_is_quiet(s) && !l->unsynced)
		return RC_AGAIN;
	s->skip_to_sync = false;
	if (l->server && (l->unsynced || (s->tx == TX_OPEN && !s->tenant->db->sharded) || !leg_is_quiet(s))) {
		conn_send_copy(&l->server->conn, MSG_SYNC.p, MSG_SYNC.n);
		replies_push(&l->server->replies, REPLY_SYNC, REPLY_FORWARD, NULL);
		l->unsynced = l->ran = false;
		if (conn_flush(&l->server->conn) == RC_FAIL)
			l->lost = true;
	} else {
		s->failed_now &= s->tx != TX_OPEN;
		msg_put_ready_for_query(&w, session_status(s));
		session_put(s, &w);
	}
	conn_rx_consume(&s->conn, WIRE_HEAD_BYTES);
	return RC_OK;
}

static enum rc
refuse(struct session *s, const struct diag *d)
{
	/* Answers to what was sent before come first. */
	if (!leg_is_quiet(s)) {
		conn_send_copy(&s->leg->server->conn, MSG_FLUSH.p, MSG_FLUSH.n);
		if (conn_flush(&s->leg->server->conn) == RC_FAIL)
			s->leg->lost = true;
		return RC_AGAIN;
	}
	session_error(s, d, true);
	return RC_OK;
}

static void
note_spread(struct session *s, struct span portal)
{
	if (portal.n == 0) {
		stmt_unref(s->portal);
		s->portal = NULL;
		s->portal_shard = PORTAL_SPREAD;
	} else {
		struct portal *p = xmalloc(sizeof *p);
		*p = (struct portal){NULL, PORTAL_SPREAD};
		portal_free(names_put(&s->portals, portal, p));
	}
}

/* The group's one statement runs on several shards. */
static enum rc
with_fan(struct session *s, struct group *g, struct look *k, struct diag *d)
{
	struct wbuf before = {0};
	struct stmt *st = g->stmt;
	enum rc rc = RC_FAIL;
	bool copies = g->plan->kind == STMT_COPY_FROM;
	if (g->n_binds != 1 || g->n_executes != 1 || g->odd || (!g->cut && g->end != 'S')) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED,
		    "pgspan runs a statement of several shards only as Bind, Describe and Execute in this order");
		diag_hint(d, "Send Parse, Bind, Describe, Execute and Sync for it alone.");
		return RC_FAIL;
	}
	if (copies)
		piece_begin(s); /* what the client sends behind its data belongs to the same transaction */
	s->cut = g->cut;
	note_spread(s, g->bind.portal);
	struct wire_msg m;
	size_t at = 0;
	while (next(s, &at, g, &m)) {
		struct msg_target t;
		if (m.type == 'P')
			wbuf_bytes(&before, "1\0\0\0\4", 5);
		else if (m.type == 'B')
			wbuf_bytes(&before, "2\0\0\0\4", 5);
		else if (m.type == 'C')
			wbuf_bytes(&before, "3\0\0\0\4", 5);
		else if (m.type == 'D' && (g->for_all || copies) && msg_get_target(&m, &t)) {
			if (t.kind == 'S')
				wbuf_bytes(&before, "t\0\0\0\6\0\0", 7);
			wbuf_bytes(&before, "n\0\0\0\4", 5);
		}
	}
	(void)stmt_plan(s, st); /* the scanner holds its literals from here on */
	if (g->for_all)
		rc = fan_control(s, st->plan, st->text, &before, g->cut, d);
	else
		rc = fan_bind(s, st, &g->bind, &g->values, &g->targets, &(struct fan_how){&before, g->describe_portal, g->cut, g->max_rows}, d);
	wbuf_fini(&before);
	if (rc != RC_OK)
		return rc;
	if (s->state == SESSION_CLOSED)
		return RC_AGAIN;
	/* The names are the client's now. */
	at = 0;
	int i = 0;
	while (next(s, &at, g, &m)) {
		struct msg_parse p;
		struct msg_target t;
		if (m.type == 'P' && msg_get_parse(&m, &p) && i < k->n) {
			struct stmt *made = k->made[i++];
			if (p.name.n == 0) {
				stmt_unref(s->unnamed);
				s->unnamed = stmt_ref(made);
			} else {
				stmt_unref(names_put(&s->stmts, p.name, stmt_ref(made)));
			}
		} else if (m.type == 'C' && msg_get_target(&m, &t) && t.kind == 'S') {
			stmt_unref(names_take(&s->stmts, t.name));
		}
	}
	conn_rx_consume(&s->conn, g->bytes);
	fan_continue(s);
	return RC_OK;
}

void
group_described(void *ref, const struct wire_msg *m, bool check)
{
	struct stmt *st = ref;
	struct msg_columns it;
	struct msg_column c;
	uint64_t h = 1;
	if (m->type == 'T' && msg_get_row_description(m, &it)) {
		while (msg_column_next(&it, &c)) {
			uint32_t of[2] = {c.type_oid, (uint32_t)c.typmod};
			h = XXH3_64bits_withSeed(c.name.p, c.name.n, h);
			h = XXH3_64bits_withSeed(of, sizeof of, h);
		}
	}
	if (!check)
		st->shape = h | 1;
	else if (st->shape != (h | 1))
		st->changed = true;
}

/* A statement that is made anew on a server behind DDL may give other rows than the client was told when it had it described:
 * PostgreSQL refuses to run it then (0A000), so its description is looked at before anything that uses it is sent. */
static enum rc
check_stale(struct session *s, struct leg *l, const struct group *g, struct diag *d)
{
	struct wire_msg m;
	size_t at = 0;
	bool asked = false;
	while (next(s, &at, g, &m)) {
		struct msg_bind b;
		struct msg_target t;
		struct stmt *st = NULL;
		if (m.type == 'B' && msg_get_bind(&m, &b))
			st = b.statement.n > 0 ? find_stmt(s, b.statement) : NULL;
		else if (m.type == 'D' && msg_get_target(&m, &t) && t.kind == 'S')
			st = t.name.n > 0 ? find_stmt(s, t.name) : NULL;
		if (!st || st->shape == 0)
			continue;
		if (st->changed) {
			diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "cached plan must not change result type");
			return RC_FAIL;
		}
		if (st->epoch == fleet_ddl_epoch(s->env->tenants.fleet) || stmt_set_has(&l->server->has.stmts, st->id))
			continue;
		char name[STMT_NAME_BYTES];
		struct wbuf w = {0};
		ensure(l, st, false);
		msg_put_describe(&w, 'S', span_of(name, stmt_id_name(st->id, name)));
		send_copy(l, &w);
		replies_push(&l->server->replies, REPLY_DESCRIBE_STATEMENT, REPLY_SKIP, stmt_ref(st));
		asked = true;
	}
	if (!asked)
		return RC_OK;
	l->unsynced = true;
	l->flushed = false;
	leg_flush_answers(s);
	return RC_AGAIN;
}

static enum rc
with_group(struct session *s, struct group *g, struct look *k)
{
	struct leg *l = s->leg;
	struct diag d;
	bool sharded = s->tenant->db->sharded;
	diag_clear(&d);
	if (s->cut) {
		/* All of the piece before is answered before the next is looked at: it may have ended the block, or failed. */
		if (legs_are_quiet(s))
			piece_settle(s);
		if (!legs_are_quiet(s)) {
			leg_flush_answers(s);
			return RC_AGAIN;
		}
	}
	enum route_status looked = look_at(s, g, k, &d);
	if (g->unsure && !leg_is_quiet(s)) {
		leg_flush_answers(s);
		return RC_AGAIN;
	}
	if (looked != ROUTED)
		return refuse(s, &d);
	if (g->n == 1 && g->end == 'H' && (!l->server || (sharded && !l->unsynced && leg_is_quiet(s)))) {
		conn_rx_consume(&s->conn, WIRE_HEAD_BYTES);
		return RC_OK;
	}
	if (can_answer_here(s, g, k)) {
		answer_here(s, g);
		return RC_OK;
	}
	if (s->tx == TX_HELD_FAILED) {
		diag_set(&d, SQLSTATE_IN_FAILED_TRANSACTION, "current transaction is aborted, commands ignored until end of transaction block");
		return refuse(s, &d);
	}
	if (sharded) {
		int shard = g->shard;
		if (shard < 0)
			shard = l->server ? l->shard : leg_any_shard(s) >= 0 ? leg_any_shard(s) : 0;
		/* Another server than the one that works now, or several: its answers come first. */
		if (g->special || g->cut || (l->server && l->shard != shard)) {
			if (!leg_is_quiet(s)) {
				leg_flush_answers(s);
				return RC_AGAIN;
			}
			leg_settle(s);
		}
		if (l->server && l->unsynced && (g->special || l->shard != shard)) {
			if (l->ran)
				piece_begin(s);
			piece_leave(s);
			return RC_AGAIN;
		}
		if (g->cut && g->copies && !g->special) {
			diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "statements of other shards stand behind COPY and before the same Sync");
			diag_hint(&d, "Send a Sync behind it.");
			return refuse(s, &d);
		}
		bool several = g->for_all || g->targets.count > 1;
		if (g->cut && g->placed_to > 0 && (several || !g->special))
			piece_begin(s);
		if (g->special && several)
			return with_fan(s, g, k, &d) == RC_OK ? RC_OK : refuse(s, &d);
		l = leg_use(s, shard);
	}
	/* What runs on a replica goes on there; a write must wait for the primary. */
	if (l->server && l->number > 0 && !g->read_only && s->tx != TX_OPEN) {
		if (!leg_is_quiet(s) || l->unsynced) {
			if (l->unsynced && leg_is_quiet(s)) {
				diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "a write follows a read that runs on a replica before the Sync");
				diag_hint(&d, "Send a Sync between them, or use a transaction block.");
				return refuse(s, &d);
			}
			return RC_AGAIN;
		}
		leg_settle(s);
	}
	if (!l->server) {
		/* What is left open by a Flush may be followed by a write: only groups that end with Sync go to a replica. */
		bool read = g->read_only && g->end == 'S' && (g->plan != NULL);
		enum rc rc = leg_attach(s, l->shard, leg_choose(s, read && !g->pins), &d);
		if (rc == RC_FAIL)
			return refuse(s, &d);
		if (rc != RC_OK)
			return rc;
	}
	if (g->pins && l->number > 0) {
		diag_set(&d, SQLSTATE_FEATURE_NOT_SUPPORTED, "this would tie the session to a replica");
		diag_hint(&d, "Use it outside a READ ONLY transaction.");
		return refuse(s, &d);
	}
	leg_begin(s, l);
	if (g->stale) {
		enum rc rc = check_stale(s, l, g, &d);
		if (rc != RC_OK)
			return rc == RC_FAIL ? refuse(s, &d) : rc;
	}
	l->wrote |= sharded ? g->writes : !g->read_only;
	if (!send_group(s, g))
		return RC_AGAIN;
	if (g->cut && !s->holds)
		piece_leave(s);
	return RC_OK;
}

enum rc
group_process(struct session *s)
{
	struct leg *l = s->leg;
	struct group g = {0};
	struct look k = {0};
	struct span rx = conn_rx(&s->conn);
	if (l->copy_in && (rx.p[0] == 'S' || rx.p[0] == 'H')) {
		conn_rx_consume(&s->conn, WIRE_HEAD_BYTES); /* the server ignores them while it copies in */
		return RC_OK;
	}
	if (rx.p[0] == 'S')
		return lone_sync(s);
	if (measure(s, &g) != RC_OK || query_must_wait_for_catalog(s))
		return RC_AGAIN;
	struct diag d;
	diag_clear(&d);
	arena_init(&g.mem);
	enum rc rc = query_wait_was_cancelled(s, &d) ? refuse(s, &d) : with_group(s, &g, &k);
	look_fini(&k);
	arena_fini(&g.mem);
	return rc;
}
