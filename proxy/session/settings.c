/* SPDX-License-Identifier: BSD-2-Clause */
/* settings - what a client has SET, kept by the texts that made it, and made again on each server that it gets.
 *
 *   initial    what the startup packet asked for and a SET has replaced since: RESET brings it back
 *   settings   what holds, in the order in which it was made
 *   pending    what this transaction has made: COMMIT moves it to settings, ROLLBACK drops it, ROLLBACK TO drops what
 *              came behind the savepoint
 *
 * The hash of *settings* says whether a server has them. In *pending* a RESET is an empty text, RESET ALL an empty
 * name; DISCARD ALL has the empty name and a text.
 * Order matters where a role is involved: what a superuser's role could set, the one before could not. So an entry for the
 * role is replaced only if nothing was set since. */
#include "session_int.h"

#include <ctype.h>
#include <xxhash.h>

#define CHARACTERISTICS "session characteristics"

struct setting *
setting_new(const char *name, struct span sql)
{
	struct setting *g = xcalloc(1, sizeof *g);
	dlist_init(&g->link);
	g->name = xstrdup(name);
	for (char *c = g->name; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	g->sql = xstrndup(sql.p, sql.n);
	return g;
}

static void
setting_free(struct setting *g)
{
	dlist_del(&g->link);
	free(g->name);
	free(g->sql);
	free(g);
}

void
settings_clear(struct dlist *list)
{
	while (!dlist_empty(list))
		setting_free(dlist_first(list, struct setting, link));
}

bool
setting_is_role(const char *name)
{
	return strcmp(name, "role") == 0 || strcmp(name, "session_authorization") == 0;
}

static bool
is_reset(const struct setting *g)
{
	return g->sql[0] == '\0';
}

static bool
is_reset_all(const struct setting *g)
{
	return g->name[0] == '\0';
}

static struct setting *
find(const struct dlist *list, const char *name)
{
	for (struct dlist *i = list->next; i != list; i = i->next)
		if (strcmp(container_of(i, struct setting, link)->name, name) == 0)
			return container_of(i, struct setting, link);
	return NULL;
}

static void
rehash(struct session *s)
{
	s->settings_hash = 0;
	if (dlist_empty(&s->settings))
		return;
	XXH64_hash_t h = 1;
	for (struct dlist *i = s->settings.next; i != &s->settings; i = i->next) {
		const char *sql = container_of(i, struct setting, link)->sql;
		h = XXH3_64bits_withSeed(sql, strlen(sql), h);
	}
	s->settings_hash = h == 0 || h == UINT64_MAX ? 1 : h;
}

static bool
is_authorization(const struct setting *g)
{
	return strcmp(g->name, "session_authorization") == 0;
}

static bool
undoes(const struct setting *g)
{
	return strncmp(g->sql, "RESET", 5) == 0;
}

/* Drops the role's changes that nothing depends on: those that another of the same kind follows at once (a session
 * authorization takes the role with it), and an undoing where there is nothing to undo. A role of long ago may be gone. */
static void
forget_roles(struct session *s)
{
	bool has_role = false, has_authorization = false;
	dlist_each(i, tmp, &s->settings) {
		struct setting *g = container_of(i, struct setting, link);
		if (!setting_is_role(g->name) || g->initial)
			continue;
		struct setting *next = tmp == &s->settings ? NULL : container_of(tmp, struct setting, link);
		if (next && (is_authorization(next) || strcmp(next->name, g->name) == 0) && setting_is_role(next->name)) {
			setting_free(g);
			continue;
		}
		bool *has = is_authorization(g) ? &has_authorization : &has_role;
		bool needed = !undoes(g) || has_role || (is_authorization(g) && has_authorization);
		*has = !undoes(g);
		if (is_authorization(g))
			has_role = false;
		if (!needed)
			setting_free(g);
	}
}

/* Out of what holds: initial ones are kept for a RESET. */
static void
retire(struct session *s, struct setting *g)
{
	if (!g->initial) {
		setting_free(g);
		return;
	}
	dlist_del(&g->link);
	dlist_add_tail(&s->initial, &g->link);
}

static bool
replaces(const struct setting *old, const struct setting *g)
{
	if (strcmp(old->name, g->name) != 0)
		return false;
	/* Each sets some of several (SET datestyle TO dmy leaves the style alone): the same again is all that surely replaces one. */
	bool is_part = strcmp(g->name, CHARACTERISTICS) == 0 || strcmp(g->name, "datestyle") == 0;
	return !is_part || is_reset(g) || strcmp(old->sql, g->sql) == 0;
}

/* Removes what *g* replaces. */
static void
replace(struct session *s, const struct setting *g)
{
	if (setting_is_role(g->name)) {
		struct setting *last = dlist_empty(&s->settings) ? NULL : dlist_last(&s->settings, struct setting, link);
		if (last && strcmp(last->name, g->name) == 0)
			retire(s, last);
		return;
	}
	dlist_each(i, tmp, &s->settings) {
		struct setting *old = container_of(i, struct setting, link);
		if (replaces(old, g))
			retire(s, old);
	}
}

static void
reset_all(struct session *s)
{
	dlist_each(i, tmp, &s->settings) {
		struct setting *g = container_of(i, struct setting, link);
		if (!g->initial && !setting_is_role(g->name)) /* RESET ALL leaves the role alone */
			setting_free(g);
	}
	dlist_each(j, tmp2, &s->initial) {
		struct setting *g = container_of(j, struct setting, link);
		if (setting_is_role(g->name))
			continue;
		dlist_del(&g->link);
		dlist_add_tail(&s->settings, &g->link);
	}
}

/* RESET of one: the initial one is back, if there was one. */
static void
reset_one(struct session *s, struct setting *g)
{
	replace(s, g);
	struct setting *before = find(&s->initial, g->name);
	if (setting_is_role(g->name)) {
		/* What was set in between may have needed the role: it is undone behind that. */
		free(g->sql);
		g->sql = xstrdup(before ? before->sql : is_authorization(g) ? "RESET SESSION AUTHORIZATION" : "RESET ROLE");
		dlist_add_tail(&s->settings, &g->link);
		return;
	}
	if (before) {
		dlist_del(&before->link);
		dlist_add_tail(&s->settings, &before->link);
	}
	setting_free(g);
}

static void
discard(struct session *s)
{
	dlist_each(i, tmp, &s->settings)
		retire(s, container_of(i, struct setting, link));
	dlist_each(j, tmp2, &s->initial) {
		struct setting *g = container_of(j, struct setting, link);
		dlist_del(&g->link);
		dlist_add_tail(&s->settings, &g->link);
	}
}

static void
note_settings(struct leg *l, void *arg)
{
	(void)arg;
	if (!l->linking)
		l->server->has.settings = l->session->settings_hash;
}

void
settings_commit(struct session *s)
{
	if (dlist_empty(&s->pending))
		return;
	while (!dlist_empty(&s->pending)) {
		struct setting *g = dlist_first(&s->pending, struct setting, link);
		dlist_del(&g->link);
		if (g->local) {
			setting_free(g);
		} else if (is_reset_all(g)) {
			(is_reset(g) ? reset_all : discard)(s);
			setting_free(g);
		} else if (is_reset(g)) {
			reset_one(s, g);
		} else {
			replace(s, g);
			dlist_add_tail(&s->settings, &g->link);
		}
	}
	forget_roles(s);
	rehash(s);
	s->meaning_stale = true;
	/* The servers have them, for they were made there. */
	leg_each(s, note_settings, NULL);
}

void
settings_add_initial(struct session *s, const char *name, struct span sql)
{
	struct setting *g = setting_new(name, sql);
	g->initial = true;
	struct setting *twice = find(&s->settings, g->name);
	if (twice)
		setting_free(twice);
	dlist_add_tail(&s->settings, &g->link);
	rehash(s);
	s->meaning_stale = true;
}

const char *
settings_initial(const struct session *s, const char *name)
{
	struct setting *g = find(&s->initial, name);
	if (!g) {
		g = find(&s->settings, name);
		if (g && !g->initial)
			g = NULL;
	}
	return g ? g->sql : NULL;
}

void
settings_drop_pending(struct session *s, int keep)
{
	int n = 0;
	s->meaning_stale = true;
	dlist_each(i, tmp, &s->pending)
		if (n++ >= keep)
			setting_free(container_of(i, struct setting, link));
}

void
settings_discard(struct session *s)
{
	dlist_add_tail(&s->pending, &setting_new("", SPAN_LIT("DISCARD ALL"))->link);
	s->meaning_stale = true;
}

static void
put(struct wbuf *w, const struct setting *g)
{
	wbuf_bytes(w, g->sql, strlen(g->sql));
	wbuf_bytes(w, "\n;", 2);
}

bool
settings_put_all(const struct session *s, struct wbuf *w)
{
	bool role = false;
	for (struct dlist *i = s->settings.next; i != &s->settings; i = i->next) {
		const struct setting *g = container_of(i, struct setting, link);
		put(w, g);
		role |= setting_is_role(g->name);
	}
	return role;
}

void
settings_put_initial(const struct session *s, const char *name, struct wbuf *w)
{
	const struct dlist *lists[] = {&s->initial, &s->settings};
	static const char select[] = "SELECT ";
	for (size_t k = 0; k < ARRAY_LEN(lists); k++) {
		for (struct dlist *i = lists[k]->next; i != lists[k]; i = i->next) {
			const struct setting *g = container_of(i, struct setting, link);
			if (!g->initial || (name ? strcmp(g->name, name) != 0 : setting_is_role(g->name)))
				continue;
			/* Each is "SELECT set_config(…)": together they are one statement, which a Parse can hold. */
			const char *call = g->sql + sizeof select - 1;
			wbuf_bytes(w, w->n == 0 ? select : ", ", w->n == 0 ? sizeof select - 1 : 2);
			wbuf_bytes(w, call, strlen(call));
		}
	}
}
