/* SPDX-License-Identifier: BSD-2-Clause */
/* config_ini - proxy.ini's lines, through inih, with nothing cut and every line known.
 *
 * inih splits "key = value"; the rest stands before it, in a reader of our own (ini_parse_stream), because inih
 *
 * - cuts section names at 49 bytes without a word, and never tells of a section without entries: the reader keeps the
 *   sections itself and shows inih only entries;
 * - gives no line numbers and stops counting mistakes after the first: the reader counts, and hands inih no line that it
 *   would refuse;
 * - takes an indented line for a value's continuation, and cuts a value at " ;" even inside quotes: both are switched
 *   off, and the comment is found here, knowing quotes;
 * - has a line buffer of a fixed size, which would split longer lines: those are refused here.
 *
 * inih's switches are variables of the process (Debian's libinih), so one lock is around setting them and the parse.
 *
 * Quotes: ' and " open at the value's start and after white space, '=', ',' or '.', where libpq and SQL look for them;
 * elsewhere they are ordinary characters (password=it's). In '…' a backslash escapes, as in libpq; in "…" a doubled " is
 * one, as in SQL. A quote that never closes is a mistake: what was meant to be comment can't be told from value then. */
#include "config_int.h"

#include <ini.h>
#include <pthread.h>

static pthread_mutex_t inih_lock = PTHREAD_MUTEX_INITIALIZER;

enum section_state { NO_SECTION, BAD_SECTION, IN_SECTION };

struct reader {
	FILE *in;
	struct ini_doc *doc;
	struct mistakes *m;
	size_t total_bytes;
	int line;
	enum section_state section; /* of the lines that follow */
	bool blank_before; /* white space stands between this line's '=' and its value */
	bool told_orphan;  /* a key before the first section was reported */
	char text[INI_LINE_MAX_BYTES + 1];
};

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Reads one line into r->text, without its end. False at the end of the file. A line that is too long or holds control
 * characters is a mistake and becomes an empty one. */
static bool
take_line(struct reader *r)
{
	size_t n = 0;
	int c, bad = -1;
	bool cr = false; /* a CR was read: it must be the line's end */
	while ((c = getc_unlocked(r->in)) != EOF && r->total_bytes < INI_FILE_MAX_BYTES) {
		r->total_bytes++;
		n++;
		if (c == '\n')
			break;
		if (cr)
			bad = '\r';
		cr = c == '\r';
		if (!cr && bad < 0 && ((c < ' ' && c != '\t') || c == 0x7f))
			bad = c;
		if (n <= INI_LINE_MAX_BYTES)
			r->text[n - 1] = (char)c;
	}
	if (n == 0 && c == EOF)
		return false;
	r->line++;
	if (c != EOF && c != '\n') {
		mistake_add(r->m, r->line, NULL, "the file is too long; expected at most %d bytes", INI_FILE_MAX_BYTES);
		return false;
	}
	size_t len = n - (c == '\n') - cr;
	if (bad >= 0 || len > INI_LINE_MAX_BYTES) {
		if (bad == 0)
			mistake_add(r->m, r->line, NULL, "a NUL byte; expected text");
		else if (bad > 0)
			mistake_add(r->m, r->line, NULL, "control character 0x%02x; expected text", (unsigned)bad);
		else
			mistake_add(r->m, r->line, NULL, "the line is too long (%zu bytes); expected at most %d", len,
			            INI_LINE_MAX_BYTES);
		len = 0;
	}
	r->text[len] = '\0';
	return true;
}

/* "[name]", perhaps with a comment behind it. */
static void
section_line(struct reader *r, char *p)
{
	r->section = BAD_SECTION;
	char *end = strchr(p, ']');
	if (!end) {
		mistake_add(r->m, r->line, NULL, "the section's name does not end; expected \"]\"");
		return;
	}
	char *rest = end + 1;
	while (is_blank(*rest))
		rest++;
	if (*rest && *rest != ';' && *rest != '#') {
		mistake_add(r->m, r->line, NULL, "text after \"]\"; expected the end of the line or a comment");
		return;
	}
	p++;
	while (is_blank(*p))
		p++;
	while (end > p && is_blank(end[-1]))
		end--;
	struct ini_doc *d = r->doc;
	if (d->n_sections == d->cap_sections) {
		d->cap_sections = d->cap_sections ? d->cap_sections * 2 : 16;
		d->sections = xrealloc(d->sections, (size_t)d->cap_sections * sizeof *d->sections);
	}
	r->section = IN_SECTION;
	d->sections[d->n_sections++] = (struct ini_section){arena_strndup(&d->mem, p, (size_t)(end - p)), r->line, d->n_entries, false};
}

/* Whether the line is an entry, and thus for inih to split. */
static bool
is_entry(struct reader *r)
{
	char *p = r->text;
	if (r->line == 1 && strncmp(p, "\xef\xbb\xbf", 3) == 0)
		memset(p, ' ', 3); /* a byte order mark */
	while (is_blank(*p))
		p++;
	if (*p == '\0' || *p == ';' || *p == '#')
		return false;
	if (*p == '[') {
		section_line(r, p);
		return false;
	}
	if (r->section == BAD_SECTION)
		return false; /* its header was reported */
	if (r->section == NO_SECTION) {
		if (!r->told_orphan)
			mistake_add(r->m, r->line, NULL, "a line before the first section; expected [proxy] above it");
		r->told_orphan = true;
		return false;
	}
	char *sep = strpbrk(p, "=:"); /* inih's separators */
	if (!sep) {
		/* The line isn't quoted: it may be a part of a password. */
		mistake_add(r->m, r->line, NULL, "neither a section nor an entry; expected \"[section]\" or \"key = value\"");
		return false;
	}
	char *end = p + strcspn(p, " \t=:");
	char *next = end + strspn(end, " \t");
	if (next != sep || end == p) {
		if (end == p)
			mistake_add(r->m, r->line, NULL, "no key before \"%c\"; expected \"key = value\"", *sep);
		else
			mistake_add(r->m, r->line, arena_strndup(&r->doc->mem, p, (size_t)(end - p)),
			            "more than one word before \"%c\"; expected \"key = value\"", *sep);
		return false;
	}
	r->blank_before = is_blank(sep[1]);
	return true;
}

/* Marks the section as one that lost a line, if a mistake came since there were *told*. */
static void
note_loss(struct reader *r, int told)
{
	if (r->m->n_errors > told && r->section == IN_SECTION)
		r->doc->sections[r->doc->n_sections - 1].lost = true;
}

/* inih's reader: the next entry's line. What isn't an entry inih never sees. */
static char *
on_read(char *buf, int cap, void *arg)
{
	struct reader *r = arg;
	for (;;) {
		int told = r->m->n_errors;
		if (!take_line(r))
			return NULL;
		bool found = is_entry(r);
		note_loss(r, told);
		if (!found)
			continue;
		size_t n = strlen(r->text);
		assert(n + 2 <= (size_t)cap);
		memcpy(buf, r->text, n + 1);
		return buf;
	}
}

/* Cuts the comment off *v*. Returns what is wrong with it, or NULL. */
static const char *
cut_comment(char *v, bool blank_before)
{
	char quote = '\0';
	char prev = blank_before ? ' ' : '=';
	char *p = v;
	for (; *p; p++) {
		if (*p == '\\' && quote != '"') {
			if (!*++p)
				return quote ? "a quote is not closed; expected the same quote at its end"
				             : "a backslash ends the value; expected the character that it escapes";
			prev = '\\'; /* what was escaped opens nothing */
		} else if (quote) {
			if (*p != quote)
				continue;
			if (quote == '"' && p[1] == '"') {
				p++;
				continue;
			}
			prev = quote;
			quote = '\0';
		} else {
			if ((*p == ';' || *p == '#') && is_blank(prev))
				break;
			if ((*p == '\'' || *p == '"') && (is_blank(prev) || strchr("=,.", prev)))
				quote = *p;
			prev = *p;
		}
	}
	if (quote)
		return "a quote is not closed; expected the same quote at its end";
	while (p > v && is_blank(p[-1]) && !(p - 1 > v && p[-2] == '\\'))
		p--;
	*p = '\0';
	return NULL;
}

/* inih's handler: one entry of the line that on_read() gave last. */
static int
on_entry(void *arg, const char *section, const char *name, const char *value)
{
	(void)section; /* inih saw none */
	struct reader *r = arg;
	struct ini_doc *d = r->doc;
	char *v = arena_strdup(&d->mem, value);
	const char *key = arena_strdup(&d->mem, name);
	const char *wrong = cut_comment(v, r->blank_before);
	if (wrong) {
		mistake_add(r->m, r->line, key, "%s", wrong);
		d->sections[d->n_sections - 1].lost = true;
		return 1;
	}
	if (d->n_entries == d->cap_entries) {
		d->cap_entries = d->cap_entries ? d->cap_entries * 2 : 64;
		d->entries = xrealloc(d->entries, (size_t)d->cap_entries * sizeof *d->entries);
	}
	d->entries[d->n_entries++] = (struct ini_entry){key, v, r->line};
	return 1;
}

void
ini_doc_read(struct ini_doc *doc, FILE *in, struct mistakes *m)
{
	*doc = (struct ini_doc){0};
	arena_init(&doc->mem);
	struct reader *r = xcalloc(1, sizeof *r);
	r->in = in;
	r->doc = doc;
	r->m = m;
	r->section = NO_SECTION;

	pthread_mutex_lock(&inih_lock);
	ini_allow_multiline = false;
	ini_allow_bom = false;
	ini_allow_inline_comments = false;
	ini_allow_no_value = false;
	ini_stop_on_first_error = false;
	ini_use_stack = false; /* 64 KiB would be much for a thread's stack */
	ini_allow_realloc = false;
	ini_max_line = ini_initial_alloc = INI_LINE_MAX_BYTES + 3;
	int rc = ini_parse_stream(on_read, r, on_entry, r);
	pthread_mutex_unlock(&inih_lock);

	if (rc != 0)
		mistake_add(m, 0, NULL, "libinih gave up (%d); expected it to take every line that reached it", rc);
	if (ferror(in))
		mistake_add(m, 0, NULL, "the file could not be read to its end");
	free(r);
}

void
ini_doc_fini(struct ini_doc *doc)
{
	free(doc->sections);
	free(doc->entries);
	arena_fini(&doc->mem);
}
