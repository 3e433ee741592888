/* SPDX-License-Identifier: BSD-2-Clause */
/* config_value - values of proxy.ini that have a grammar of their own: quoted text, connection strings, table lines.
 *
 * A connection string is libpq's to understand (PQconninfoParse); what it understood is written out again as a
 * keyword/value string in one fixed form. So a URI and a keyword string for one server are equal after a reload, dbname is
 * never left to a default of libpq's, and hiding a password is leaving out an option, not editing text.
 *
 * No message may show a password: libpq quotes the place where it stumbled, which may be the middle of one. */
#include "config_int.h"

#include <libpq-fe.h>

/* ---- text ---- */

void
text_init(struct text *t, struct arena *mem)
{
	t->mem = mem;
	t->cap = 64;
	t->n = 0;
	t->p = arena_alloc(mem, t->cap);
	t->p[0] = '\0';
}

void
text_add(struct text *t, const char *s, size_t n)
{
	if (t->cap - t->n <= n) {
		t->cap = (t->n + n + 1) * 2;
		char *p = arena_alloc(t->mem, t->cap);
		memcpy(p, t->p, t->n);
		t->p = p;
	}
	memcpy(t->p + t->n, s, n);
	t->n += n;
	t->p[t->n] = '\0';
}

void
text_puts(struct text *t, const char *s)
{
	text_add(t, s, strlen(s));
}

void
text_putc(struct text *t, char c)
{
	text_add(t, &c, 1);
}

/* *s* between *quote*s, each character of *special* with *escape* before it. */
static void
text_quoted(struct text *t, const char *s, char quote, const char *special, char escape)
{
	text_putc(t, quote);
	for (; *s; s++) {
		if (strchr(special, *s))
			text_putc(t, escape);
		text_putc(t, *s);
	}
	text_putc(t, quote);
}

static const char *
skip_blanks(const char *s)
{
	return s + strspn(s, " \t");
}

char *
config_unquote(const char *value, struct arena *mem)
{
	char quote = *value;
	if (quote != '"' && quote != '\'')
		return arena_strdup(mem, value);
	struct text t;
	text_init(&t, mem);
	const char *p = value + 1;
	for (; *p; p++) {
		if (*p == quote && !(quote == '"' && p[1] == '"'))
			break;
		if ((quote == '\'' && *p == '\\' && p[1]) || *p == quote)
			p++;
		text_putc(&t, *p);
	}
	return *p == quote && p[1] == '\0' ? t.p : NULL;
}

const char *
config_quote(const char *text, struct arena *mem)
{
	size_t n = strlen(text);
	if (n == 0 || (!strpbrk(text, ";#\\'\"") && !strchr(" \t", text[0]) && !strchr(" \t", text[n - 1])))
		return text;
	struct text t;
	text_init(&t, mem);
	text_quoted(&t, text, '"', "\"", '"');
	return t.p;
}

/* ---- primary, replica ---- */

static const PQconninfoOption *
option(const PQconninfoOption *all, const char *keyword)
{
	for (; all->keyword; all++)
		if (strcmp(all->keyword, keyword) == 0)
			return all;
	return NULL;
}

/* The option's value; NULL when it isn't given. */
static const char *
option_value(const PQconninfoOption *all, const char *keyword)
{
	const PQconninfoOption *o = option(all, keyword);
	return o && o->val && *o->val ? o->val : NULL;
}

static bool
is_secret(const PQconninfoOption *o)
{
	return strchr(o->dispchar, '*') != NULL;
}

static void
put_option(struct text *t, const PQconninfoOption *o, bool masked)
{
	if (t->n)
		text_putc(t, ' ');
	text_puts(t, o->keyword);
	text_putc(t, '=');
	if (masked && is_secret(o))
		text_puts(t, "***");
	else if (*o->val && o->val[strspn(o->val, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:@%,")] == '\0')
		text_puts(t, o->val);
	else
		text_quoted(t, o->val, '\'', "'\\", '\\');
}

/* All options that are set, with *dbname* for theirs; those that name the server first. */
static char *
conninfo_text(const PQconninfoOption *all, char *dbname, bool masked, struct arena *mem)
{
	static const char *const first[] = {"host", "hostaddr", "port", "dbname", "user", "password", NULL};
	struct text t;
	text_init(&t, mem);
	for (int i = 0; first[i]; i++) {
		PQconninfoOption o = *option(all, first[i]);
		if (strcmp(first[i], "dbname") == 0)
			o.val = dbname;
		if (o.val && *o.val)
			put_option(&t, &o, masked);
	}
	for (const PQconninfoOption *o = all; o->keyword; o++) {
		bool done = false;
		for (int i = 0; first[i]; i++)
			done |= strcmp(first[i], o->keyword) == 0;
		if (!done && o->val && *o->val)
			put_option(&t, o, masked);
	}
	return t.p;
}

/* The libpq option that *name* was probably meant to be. Owner of the result: *mem*. */
static const char *
nearest_option(const char *name, struct arena *mem)
{
	const char *found = NULL;
	PQconninfoOption *all = PQconninfoParse("", NULL);
	if (!all)
		return NULL;
	int n = 0;
	while (all[n].keyword)
		n++;
	const char **words = arena_alloc(mem, (size_t)(n + 1) * sizeof *words);
	for (int i = 0; i <= n; i++)
		words[i] = all[i].keyword;
	found = config_word_nearest(name, words);
	if (found)
		found = arena_strdup(mem, found);
	PQconninfoFree(all);
	return found;
}

/* Adds the mistake that libpq's *err* tells of. What it quotes is shown only where it can't be a part of a password. */
static void
conninfo_mistake(const char *value, const char *err, struct arena *mem, struct mistakes *m, int line, const char *key)
{
	static const char unknown_option[] = "invalid connection option \"";
	const char *what = err ? arena_strndup(mem, err, strcspn(err, "\n")) : "out of memory";
	const char *last = strrchr(what, '"');
	const char *name = strncmp(what, unknown_option, sizeof unknown_option - 1) == 0 ? what + sizeof unknown_option - 1 : NULL;
	const char *near = name ? nearest_option(arena_strndup(mem, name, (size_t)(last - name)), mem) : NULL;
	/* An option's name may be shown when it looks like one: a stray word or a URI without its scheme holds passwords too. */
	bool is_name = name && last > name && name + strspn(name, "abcdefghijklmnopqrstuvwxyz_") == last;
	bool may_leak = !is_name || strcasestr(value, "pass") || strstr(value, "://");
	const char *open = may_leak && !near ? strchr(what, '"') : NULL;
	while (open && open[1] && strchr("=:/]", open[1]) && open[2] == '"')
		open = strchr(open + 3, '"'); /* libpq's own words, such as "=" */
	if (open)
		what = arena_printf(mem, "%.*s\"***%s", (int)(open - what), what, last);
	if (near)
		mistake_add(m, line, key, "%s; expected libpq's options, perhaps \"%s\"", what, near);
	else
		mistake_add(m, line, key, "%s; expected a libpq connection string, such as host=10.0.0.1 port=5432 dbname=app", what);
}

/* What libpq would take, but pgspan can't. False: a mistake was added. */
static bool
check_options(const PQconninfoOption *all, bool is_uri, struct mistakes *m, int line, const char *key)
{
	static const char *const single[] = {"host", "hostaddr", "port"};
	for (size_t i = 0; i < ARRAY_LEN(single); i++) {
		const char *v = option_value(all, single[i]);
		if (v && strchr(v, ',')) {
			mistake_add(m, line, key, "several servers in one connection string; expected one, and a line for each server");
			return false;
		}
	}
	const char *port = option_value(all, "port");
	if (port) {
		char *end;
		long n = strtol(port, &end, 10);
		if (*end || n < 1 || n > 65535) {
			/* In a URI whose password has a bare slash, "port" is the password's beginning. */
			mistake_add(m, line, key, "\"%s\" is not a port; expected 1 to 65535", is_uri ? "***" : port);
			return false;
		}
	}
	for (const PQconninfoOption *o = all; o->keyword; o++)
		for (const char *p = is_secret(o) ? NULL : o->val; p && *p; p++)
			if ((unsigned char)*p < ' ' || *p == 0x7f) {
				mistake_add(m, line, key, "a control character in %s; expected text", o->keyword);
				return false;
			}
	return true;
}

static char *
server_label(const PQconninfoOption *all, const char *dbname, struct arena *mem)
{
	const char *host = option_value(all, "host");
	const char *port = option_value(all, "port");
	if (!host)
		host = option_value(all, "hostaddr");
	if (!host)
		host = "local";
	const char *form = strchr(host, ':') && *host != '/' ? "[%s]:%s/%s" : "%s:%s/%s";
	return arena_printf(mem, form, host, port ? port : "5432", dbname);
}

static char *
copy_option(const PQconninfoOption *all, const char *keyword, struct arena *mem)
{
	const char *v = option_value(all, keyword);
	return v ? arena_strdup(mem, v) : NULL;
}

enum rc
config_server_parse(struct server_config *s, const char *value, const char *dbname, struct arena *mem, struct mistakes *m,
                    int line, const char *key)
{
	if (*value == '"') {
		value = config_unquote(value, mem);
		if (!value) {
			mistake_add(m, line, key, "text after the closing quote; expected nothing there");
			return RC_FAIL;
		}
	}
	if (*value == '\0') {
		mistake_add(m, line, key, "no value; expected a libpq connection string, such as host=10.0.0.1 port=5432 dbname=app");
		return RC_FAIL;
	}
	char *err = NULL;
	PQconninfoOption *all = PQconninfoParse(value, &err);
	if (!all) {
		conninfo_mistake(value, err, mem, m, line, key);
		PQfreemem(err);
		return RC_FAIL;
	}
	bool good = check_options(all, strstr(value, "://") != NULL, m, line, key);
	if (good) {
		const char *written = option_value(all, "dbname");
		s->dbname = arena_strdup(mem, written ? written : dbname);
		s->conninfo = conninfo_text(all, s->dbname, false, mem);
		s->label = server_label(all, s->dbname, mem);
		s->host = copy_option(all, option_value(all, "host") ? "host" : "hostaddr", mem);
		s->user = copy_option(all, "user", mem);
		s->has_password = option_value(all, "password") || option_value(all, "sslpassword");
	}
	PQconninfoFree(all);
	return good ? RC_OK : RC_FAIL;
}

const char *
config_server_masked(const struct server_config *s, struct arena *mem)
{
	PQconninfoOption *all = PQconninfoParse(s->conninfo, NULL);
	if (!all)
		return "***"; /* out of memory: it was understood once */
	const char *text = conninfo_text(all, s->dbname, true, mem);
	PQconninfoFree(all);
	return text;
}

/* ---- table ---- */

#define TABLE_FORMS "expected \"name key=column[,column]\" or \"name reference\""
enum { NAME_MAX_BYTES = 63 }; /* PostgreSQL's NAMEDATALEN - 1 */

static bool
starts_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool
goes_on_name(char c)
{
	return starts_name(c) || (c >= '0' && c <= '9') || c == '$';
}

/* Takes an SQL name at *p, moving *p behind it and the blanks that follow. As PostgreSQL does in UTF-8, only ASCII is
 * folded. NULL: a mistake was added. */
static char *
take_name(const char **p, const char *what, struct arena *mem, struct mistakes *m, int line)
{
	struct text t;
	text_init(&t, mem);
	const char *s = *p;
	if (*s == '"') {
		for (s++; *s && (*s != '"' || s[1] == '"'); s++) {
			s += *s == '"';
			text_putc(&t, *s);
		}
		s += *s == '"'; /* config_ini let no open quote pass */
	} else {
		for (; s == *p ? starts_name(*s) : goes_on_name(*s); s++)
			text_putc(&t, *s >= 'A' && *s <= 'Z' ? (char)(*s - 'A' + 'a') : *s);
	}
	if (t.n == 0 && **p && **p != '"') {
		mistake_add(m, line, "table", "no %s name at \"%.20s\"; " TABLE_FORMS, what, *p);
		return NULL;
	}
	if (t.n == 0) {
		mistake_add(m, line, "table", "the %s name is empty; " TABLE_FORMS, what);
		return NULL;
	}
	if (t.n > NAME_MAX_BYTES) {
		mistake_add(m, line, "table", "the %s name is %zu bytes long; expected at most %d, as PostgreSQL keeps", what, t.n,
		            NAME_MAX_BYTES);
		return NULL;
	}
	*p = skip_blanks(s);
	return t.p;
}

static enum rc
take_key(struct table_config *t, const char **p, struct arena *mem, struct mistakes *m, int line)
{
	int most = 1;
	for (const char *q = *p; *q; q++)
		most += *q == ',';
	t->key = arena_alloc(mem, (size_t)most * sizeof *t->key);
	for (;;) {
		char *column = take_name(p, "column", mem, m, line);
		if (!column)
			return RC_FAIL;
		for (int i = 0; i < t->n_key; i++)
			if (strcmp(t->key[i], column) == 0) {
				mistake_add(m, line, "table", "column \"%s\" stands twice in the key; expected each once", column);
				return RC_FAIL;
			}
		t->key[t->n_key++] = column;
		if (**p != ',')
			return RC_OK;
		*p = skip_blanks(*p + 1);
	}
}

enum rc
config_table_parse(struct table_config *t, const char *value, struct arena *mem, struct mistakes *m, int line)
{
	const char *p = skip_blanks(value);
	*t = (struct table_config){.schema = arena_strdup(mem, "public")};
	if (!(t->name = take_name(&p, "table", mem, m, line)))
		return RC_FAIL;
	if (*p == '.') {
		p = skip_blanks(p + 1);
		t->schema = t->name;
		if (!(t->name = take_name(&p, "table", mem, m, line)))
			return RC_FAIL;
	}
	static const char reference[] = "reference";
	if (strncasecmp(p, reference, sizeof reference - 1) == 0 && !goes_on_name(p[sizeof reference - 1])) {
		t->kind = TABLE_REFERENCE;
		p = skip_blanks(p + sizeof reference - 1);
	} else {
		const char *eq = strncasecmp(p, "key", 3) == 0 ? skip_blanks(p + 3) : NULL;
		if (!eq || *eq != '=') {
			if (*p)
				mistake_add(m, line, "table", "neither key= nor reference at \"%.20s\"; " TABLE_FORMS, p);
			else
				mistake_add(m, line, "table", "nothing after the table's name; " TABLE_FORMS);
			return RC_FAIL;
		}
		t->kind = TABLE_SHARDED;
		p = skip_blanks(eq + 1);
		if (take_key(t, &p, mem, m, line) != RC_OK)
			return RC_FAIL;
	}
	if (*p) {
		mistake_add(m, line, "table", "text left over at \"%.20s\"; " TABLE_FORMS, p);
		return RC_FAIL;
	}
	return RC_OK;
}

static void
put_name(struct text *t, const char *name)
{
	const char *p = name;
	while ((*p >= 'a' && *p <= 'z') || *p == '_' || (p > name && *p >= '0' && *p <= '9'))
		p++;
	if (*p)
		text_quoted(t, name, '"', "\"", '"');
	else
		text_puts(t, name);
}

const char *
config_table_text(const struct table_config *t, struct arena *mem)
{
	struct text out;
	text_init(&out, mem);
	put_name(&out, t->schema);
	text_putc(&out, '.');
	put_name(&out, t->name);
	text_puts(&out, t->kind == TABLE_REFERENCE ? " reference" : " key=");
	for (int i = 0; i < t->n_key; i++) {
		text_puts(&out, i ? "," : "");
		put_name(&out, t->key[i]);
	}
	return out.p;
}
