/* SPDX-License-Identifier: BSD-2-Clause */
/* ident - see pgspan/ident.h. Lines are asked one after the other: maps are short, and asked once a login. */
#include "pgspan/ident.h"

#include "pgspan/arena.h"
#include "pgspan/sqlstate.h"

#include <regex.h>

struct line {
	const char *map, *name, *user;
	bool any_user;
	regex_t *regex; /* NULL: the name itself */
};

struct ident_maps {
	struct arena arena;
	struct line *lines;
	size_t n, cap;
};

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static bool
is_end(struct span rest)
{
	size_t i = 0;
	while (i < rest.n && is_blank(rest.p[i]))
		i++;
	return i == rest.n || rest.p[i] == '#';
}

/* Takes the next field off *rest*: a word, or text in double quotes, with a double quote written twice. False: there is
 * none, or its quotes don't close. */
static bool
take_field(struct span *rest, struct arena *a, const char **out, bool *quoted)
{
	size_t i = 0;
	if (is_end(*rest))
		return false;
	while (is_blank(rest->p[i]))
		i++;
	char *to = arena_alloc(a, rest->n + 1);
	*out = to;
	*quoted = rest->p[i] == '"';
	if (*quoted) {
		for (i++;; i++) {
			if (i == rest->n)
				return false;
			if (rest->p[i] == '"' && (i + 1 == rest->n || rest->p[++i] != '"'))
				break;
			*to++ = rest->p[i];
		}
		if (i < rest->n && rest->p[i] == '"')
			i++;
		if (i < rest->n && !is_blank(rest->p[i]))
			return false;
	} else {
		while (i < rest->n && !is_blank(rest->p[i]))
			*to++ = rest->p[i++];
	}
	*to = '\0';
	*rest = span_of(rest->p + i, rest->n - i);
	return true;
}

static enum rc
compile(struct line *l, unsigned number, struct diag *d)
{
	char why[128];
	regex_t *regex = xmalloc(sizeof *regex);
	int rc = regcomp(regex, l->name + 1, REG_EXTENDED);
	if (rc == 0) {
		l->regex = regex;
		return RC_OK;
	}
	regerror(rc, regex, why, sizeof why);
	free(regex);
	diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "line %u: %s in the regular expression", number, why);
	return RC_FAIL;
}

static enum rc
parse_line(struct ident_maps *m, struct span text, unsigned number, struct diag *d)
{
	struct line l = {0};
	bool quoted, user_quoted;
	if (is_end(text))
		return RC_OK;
	if (memchr(text.p, 0, text.n) || !take_field(&text, &m->arena, &l.map, &quoted) ||
	    !take_field(&text, &m->arena, &l.name, &quoted) || !take_field(&text, &m->arena, &l.user, &user_quoted) || !is_end(text)) {
		diag_set(d, SQLSTATE_CONFIG_FILE_ERROR, "line %u: expected a map's name, a certificate's name and a user", number);
		return RC_FAIL;
	}
	l.any_user = !user_quoted && strcmp(l.user, "all") == 0;
	if (l.name[0] == '/' && compile(&l, number, d) != RC_OK)
		return RC_FAIL;
	if (m->n == m->cap) {
		m->cap = m->cap ? 2 * m->cap : 16;
		m->lines = xrealloc(m->lines, m->cap * sizeof *m->lines);
	}
	m->lines[m->n++] = l;
	return RC_OK;
}

struct ident_maps *
ident_parse(struct span text, struct diag *d)
{
	struct ident_maps *m = xcalloc(1, sizeof *m);
	unsigned number = 0;
	arena_init(&m->arena);
	while (text.n) {
		const char *nl = memchr(text.p, '\n', text.n);
		size_t n = nl ? (size_t)(nl - text.p) : text.n;
		if (parse_line(m, span_of(text.p, n), ++number, d) != RC_OK) {
			ident_free(m);
			return NULL;
		}
		text = nl ? span_of(nl + 1, text.n - n - 1) : SPAN_NONE;
	}
	return m;
}

void
ident_free(struct ident_maps *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n; i++)
		if (m->lines[i].regex) {
			regfree(m->lines[i].regex);
			free(m->lines[i].regex);
		}
	free(m->lines);
	arena_fini(&m->arena);
	free(m);
}

bool
ident_has(const struct ident_maps *m, const char *map)
{
	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->lines[i].map, map) == 0)
			return true;
	return false;
}

/* Whether *user* is the line's user with \1 replaced by what the first parentheses matched. */
static bool
is_replaced(const struct line *l, const char *name, const regmatch_t *group, const char *user)
{
	const char *hole = strstr(l->user, "\\1");
	if (!hole)
		return strcmp(l->user, user) == 0;
	if (group->rm_so < 0)
		return false;
	size_t before = (size_t)(hole - l->user), n = (size_t)(group->rm_eo - group->rm_so), all = strlen(user);
	const char *after = hole + 2;
	return all == before + n + strlen(after) && memcmp(user, l->user, before) == 0 &&
	       memcmp(user + before, name + group->rm_so, n) == 0 && strcmp(user + before + n, after) == 0;
}

bool
ident_allows(const struct ident_maps *m, const char *map, const char *name, const char *user)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct line *l = &m->lines[i];
		regmatch_t groups[2];
		if (strcmp(l->map, map) != 0)
			continue;
		if (l->regex) {
			groups[1].rm_so = -1;
			if (regexec(l->regex, name, 2, groups, 0) == 0 && (l->any_user || is_replaced(l, name, &groups[1], user)))
				return true;
		} else if (strcmp(l->name, name) == 0 && (l->any_user || strcmp(l->user, user) == 0)) {
			return true;
		}
	}
	return false;
}
