/* SPDX-License-Identifier: BSD-2-Clause */
/* stmts - the client's prepared statements and portals.
 *
 * Names change when a message is sent, before its answer is there, so that pipelines stay pipelines. What the server ignores
 * behind an error is undone, the last change first; until then whoever names the same statement waits (stmt_is_unsure()).
 * Servers know statements by a hash: in the text of an error the client's name takes its place. */
#include "group_int.h"

#include "pgspan/log.h"
#include "pgspan/router.h"
#include "pgspan/sqlstate.h"

#include <xxhash.h>

#define KNOWN_STATEMENTS 1000

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

struct naming *
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
struct naming *
stmt_rename(struct session *s, struct span name, struct stmt *st)
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
struct stmt_id
stmt_known_id(const struct session *s, struct stmt_id id)
{
	id.hi ^= s->settings_hash * 0x9e3779b97f4a7c15u;
	return id;
}

struct failed_name {
	struct stmt_id id;
	size_t len;
	char name[];
};

void
stmt_note_lost(struct session *s, struct stmt_id id, struct span name)
{
	free(s->failed_name);
	s->failed_name = xmalloc(sizeof *s->failed_name + name.n);
	s->failed_name->id = id;
	s->failed_name->len = name.n;
	memcpy(s->failed_name->name, name.p, name.n);
}

/* The name on servers under which a statement stands for *name*, which is taken: see take_a_name(). */
struct stmt_id
stmt_taken_id(struct span name)
{
	return (struct stmt_id){UINT64_MAX, XXH3_64bits(name.p, name.n)};
}

static bool
has_name(struct span client, const void *value, const void *internal)
{
	const struct stmt *st = value;
	char name[STMT_NAME_BYTES];
	return memcmp(internal, name, stmt_id_name(st->id, name)) == 0 || memcmp(internal, name, stmt_id_name(stmt_taken_id(client), name)) == 0;
}

bool
stmt_client_name(struct session *s, const char *internal, struct span *name)
{
	char text[STMT_NAME_BYTES];
	const struct failed_name *f = s->failed_name;
	if (names_find(&s->stmts, has_name, internal, name))
		return true;
	if (!f || (memcmp(internal, text, stmt_id_name(f->id, text)) != 0 &&
	              memcmp(internal, text, stmt_id_name(stmt_taken_id(span_of(f->name, f->len)), text)) != 0))
		return false;
	*name = span_of(f->name, f->len);
	return true;
}

void
stmt_name_ended(struct leg *l, void *ref, enum reply_end end, bool sent)
{
	struct naming *p = ref;
	struct session *s = l->session;
	if (!p)
		return;
	if (p->stmt && sent) {
		struct stmt_id known = stmt_known_id(s, p->stmt->id), gone;
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
				stmt_note_lost(s, p->stmt->id, span_of(p->name, p->len));
			undo(s, p, end);
		}
	}
	dlist_del(&p->link);
	stmt_unref(p->stmt);
	stmt_unref(p->before);
	free(p);
}

struct stmt *
stmt_find(const struct session *s, struct span name)
{
	return name.n == 0 ? s->unnamed : names_get(&s->stmts, name);
}

void
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

void
portal_bind(struct session *s, struct span portal, struct stmt *st)
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

struct stmt *
portal_stmt(const struct session *s, struct span portal)
{
	if (portal.n == 0)
		return s->portal;
	const struct portal *p = names_get(&s->portals, portal);
	return p ? p->stmt : NULL;
}

/* The shard that a portal was made on, or PORTAL_*. */
int
portal_shard(const struct session *s, struct span portal)
{
	if (portal.n == 0)
		return s->portal_shard;
	const struct portal *p = names_get(&s->portals, portal);
	return p ? p->shard : PORTAL_NOWHERE;
}

/* Whether the answer to a message that was sent decides what the name means, or whether the server has its statement. */
bool
stmt_is_unsure(const struct session *s, struct span name)
{
	const struct stmt *st = stmt_find(s, name);
	for (struct dlist *i = s->namings.next; i != &s->namings; i = i->next) {
		const struct naming *n = container_of(i, struct naming, link);
		if (st ? n->stmt && stmt_id_eq(n->stmt->id, st->id) : !n->stmt && n->len == name.n && memcmp(n->name, name.p, name.n) == 0)
			return true;
	}
	return false;
}
