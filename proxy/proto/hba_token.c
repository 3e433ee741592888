/* SPDX-License-Identifier: BSD-2-Clause */
/* hba_token - the lines of a pg_hba.conf, and their fields.
 *
 * The grammar is PostgreSQL's (hba.c, next_token() and next_field_expand()): blanks end a field, commas go between the words of
 * one, a double quote anywhere in a word begins or ends a stretch where neither holds and is written twice to mean itself, # begins a
 * comment, a backslash right before a line's end joins the next one, in a comment, too. "@name" is the words of that file.
 * Stricter in one thing: a quote that does not close is refused. */
#include "hba_int.h"

#include "pgspan/wire.h"

enum { FILES_MAX = 64, LINE_MAX_BYTES = 64 * 1024 };

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* One physical line off *rest*, without its end. */
static struct span
take_line(struct span *rest)
{
	const char *nl = memchr(rest->p, '\n', rest->n);
	size_t n = nl ? (size_t)(nl - rest->p) : rest->n;
	struct span line = span_of(rest->p, n);
	*rest = nl ? span_of(nl + 1, rest->n - n - 1) : SPAN_NONE;
	if (line.n > 0 && line.p[line.n - 1] == '\r')
		line.n--;
	return line;
}

static enum rc
take_logical_line(struct hba_tokens *t, struct wbuf *w, char *why, size_t why_size)
{
	bool more = true;
	w->n = 0;
	while (more && t->rest.n > 0) {
		struct span line = take_line(&t->rest);
		t->number++;
		more = line.n > 0 && line.p[line.n - 1] == '\\';
		wbuf_bytes(w, line.p, line.n - more);
		if (w->n > LINE_MAX_BYTES) {
			snprintf(why, why_size, "a line of more than %d bytes", LINE_MAX_BYTES);
			return RC_FAIL;
		}
	}
	if (w->n > 0 && memchr(w->p, 0, w->n)) {
		snprintf(why, why_size, "a zero byte");
		return RC_FAIL;
	}
	return RC_OK;
}

/* The next word; NULL: the text is at its end, or *why* is set. *comma*: another word of the field follows. */
static struct hba_token *
take_token(struct hba_tokens *t, struct span *s, bool *comma, char *why, size_t why_size)
{
	size_t i = 0;
	bool in_quote = false, was_quote = false;
	*comma = false;
	while (i < s->n && (is_blank(s->p[i]) || s->p[i] == ','))
		i++;
	if (i == s->n || s->p[i] == '#') {
		*s = SPAN_NONE;
		return NULL;
	}
	char *to = arena_alloc(t->mem, s->n - i + 1);
	struct hba_token *token = arena_zalloc(t->mem, sizeof *token);
	token->text = to;
	token->quoted = s->p[i] == '"';
	for (; i < s->n && (in_quote || !is_blank(s->p[i])); i++) {
		char c = s->p[i];
		if (c == '#' && !in_quote) {
			i = s->n;
			break;
		}
		if (c == ',' && !in_quote) {
			*comma = true;
			i++;
			break;
		}
		if (c != '"' || was_quote)
			*to++ = c;
		was_quote = in_quote && c == '"' && !was_quote;
		if (c == '"')
			in_quote = !in_quote;
	}
	*to = '\0';
	*s = i < s->n ? span_of(s->p + i, s->n - i) : SPAN_NONE;
	if (!in_quote)
		return token;
	snprintf(why, why_size, "a quote that does not close");
	return NULL;
}

static void
add_token(struct hba_field *f, struct hba_token *token)
{
	struct hba_token **last = &f->first;
	while (*last)
		last = &(*last)->next;
	*last = token;
	f->n++;
}

static enum rc expand(struct hba_tokens *t, struct hba_field *f, const char *from, const char *name, char *why, size_t why_size);

/* Adds a word to the field, or what is in the file that it names. */
static enum rc
add_expanded(struct hba_tokens *t, struct hba_field *f, struct hba_token *token, const char *from, char *why, size_t why_size)
{
	if (token->quoted || token->text[0] != '@' || !token->text[1]) {
		add_token(f, token);
		return RC_OK;
	}
	return expand(t, f, from, token->text + 1, why, why_size);
}

static enum rc
expand(struct hba_tokens *t, struct hba_field *f, const char *from, const char *name, char *why, size_t why_size)
{
	char *path = NULL;
	size_t n = 0;
	struct wbuf w = {0};
	if (++t->files > FILES_MAX) {
		snprintf(why, why_size, "more than %d files behind @", FILES_MAX);
		return RC_FAIL;
	}
	char *text = t->reader ? t->reader->read(t->reader->arg, from, name, &path, &n, why, why_size) : NULL;
	if (!text) {
		if (!*why)
			snprintf(why, why_size, "@%s cannot be read", name);
		return RC_FAIL;
	}
	struct hba_tokens inner = {.mem = t->mem, .reader = t->reader, .rest = span_of(text, n), .files = t->files};
	enum rc rc = RC_OK;
	while (rc == RC_OK && inner.rest.n > 0) {
		rc = take_logical_line(&inner, &w, why, why_size);
		struct span s = span_of(w.p, w.n);
		while (rc == RC_OK && s.n > 0) {
			bool comma;
			struct hba_token *token = take_token(&inner, &s, &comma, why, why_size);
			if (token)
				rc = add_expanded(&inner, f, token, path, why, why_size);
			else if (*why)
				rc = RC_FAIL;
		}
	}
	if (rc == RC_FAIL && !strstr(why, " of @")) {
		size_t at = strlen(why);
		snprintf(why + at, why_size - at, " in line %u of @%s", inner.number, name);
	}
	t->files = inner.files;
	wbuf_fini(&w);
	free(text);
	free(path);
	return rc;
}

static enum rc
take_fields(struct hba_tokens *t, struct span s, struct hba_line *out, char *why, size_t why_size)
{
	struct hba_field f = {0};
	bool begun = false;
	while (s.n > 0) {
		bool comma;
		struct hba_token *token = take_token(t, &s, &comma, why, why_size);
		if (!token && *why)
			return RC_FAIL;
		if (token && add_expanded(t, &f, token, NULL, why, why_size) != RC_OK)
			return RC_FAIL;
		begun |= token != NULL;
		if (!begun || (token && comma && s.n > 0))
			continue;
		if (out->n == HBA_FIELDS_MAX) {
			snprintf(why, why_size, "more than %d fields", HBA_FIELDS_MAX);
			return RC_FAIL;
		}
		out->fields[out->n++] = f;
		f = (struct hba_field){0};
		begun = false;
	}
	return RC_OK;
}

enum rc
hba_next_line(struct hba_tokens *t, struct hba_line *out, char *why, size_t why_size)
{
	struct wbuf w = {0};
	enum rc rc = RC_AGAIN;
	*why = '\0';
	while (rc == RC_AGAIN && t->rest.n > 0) {
		*out = (struct hba_line){.number = t->number + 1};
		rc = take_logical_line(t, &w, why, why_size);
		if (rc == RC_OK)
			rc = take_fields(t, span_of(w.p, w.n), out, why, why_size);
		if (rc == RC_OK && out->n == 0)
			rc = RC_AGAIN;
	}
	wbuf_fini(&w);
	return rc;
}
