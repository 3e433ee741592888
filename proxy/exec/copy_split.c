/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_split - see pgspan/copy_split.h.
 *
 * The way of the bytes: copy_split_feed() works on the chunk where it lies. A row that is not complete when the chunk
 * ends is kept in *pending* with the place up to which it was looked at, so that a row which comes in a thousand pieces
 * is read once, not five hundred times. Complete rows are not copied: consecutive rows of one shard form a *run*, which is emitted
 * when another shard's row follows, or at the end of the chunk.
 *
 * Finding the end of a row means finding the next newline that is not escaped or quoted. Each special byte
 * has a cached place of its next occurrence (struct next_byte), so a chunk without a single backslash costs one
 * memchr() for all its rows, not one for each.
 *
 * The rules mirror PostgreSQL's CopyReadLineText, CopyReadAttributesText and CopyReadAttributesCSV
 * (copyfromparse.c, versions 14 to 17). Two of them matter for what may be left to a shard:
 *  - The first line fixes the newline style (LF, CR or CRLF), and other styles are errors behind it. Every shard would learn the
 *    style from the first row that *it* sees, so this is judged here for the whole stream.
 *  - \. ends the data. It is not forwarded: the end of the stream says the same. */
#include "pgspan/copy_split.h"

#include <strings.h>

#include "pgspan/sqlstate.h"
#include "pgspan/wire.h"

#define DEFAULT_MAX_ROW_BYTES ((size_t)1 << 30)
#define PENDING_KEEP_BYTES ((size_t)256 << 10) /* a larger buffer is given back once it is empty */

#define BINARY_SIGNATURE "PGCOPY\n\377\r\n\0"
#define BINARY_SIGNATURE_BYTES 11
#define BINARY_HEAD_BYTES (BINARY_SIGNATURE_BYTES + 8) /* and flags, and the length of the extension */

enum newline_style { NEWLINE_UNKNOWN, NEWLINE_LF, NEWLINE_CR, NEWLINE_CRLF };

enum stage {
	STAGE_HEAD,  /* before the heading or the binary header */
	STAGE_ROWS,
	STAGE_ENDED, /* behind \. : the rest is ignored, as PostgreSQL does */
	STAGE_ALL_TO_FIRST, /* malformed: the rest goes to shard 0, which reports it */
};

/* What a look for the end of a row has found. */
enum found {
	FOUND_ROW,
	FOUND_PART,     /* the row goes on beyond the bytes at hand */
	FOUND_END_MARK, /* \. with struct row's data in front of it */
	FOUND_ERROR,    /* diag is set */
	FOUND_BROKEN,   /* binary only: the stream cannot be followed from here */
	FOUND_TRAILER,  /* binary only: the count of -1 */
};

struct row {
	size_t data_bytes;  /* without the newline */
	size_t total_bytes; /* with it */
};

/* The next occurrence of a byte: *at* is the first one at or behind every place asked for so far, *end* if none. */
struct next_byte {
	const char *at; /* NULL: not looked for yet */
	char byte;
};

struct field_bytes {
	const char *p;
	size_t n;
};

struct copy_split {
	struct copy_split_spec spec;
	enum stage stage;
	enum newline_style newline;
	char escape; /* CSV: of a quote in quotes; '\0' when it is the quote itself */
	const char *null_string;
	size_t null_bytes;

	/* The row being looked at. */
	size_t looked; /* bytes of it that need no second look */
	bool in_quote; /* CSV, at *looked* */
	bool special;  /* it has a backslash (text) or a quote (CSV), so its fields do not stand for themselves */

	/* A view of the bytes at hand, valid during one call. */
	const char *end;
	bool at_eof; /* nothing comes behind *end* */
	struct next_byte lf, cr, backslash, quote, esc;

	/* The run of rows not emitted yet, within the view. */
	const char *run;
	size_t run_bytes;
	int run_shard;

	struct wbuf pending; /* an incomplete row from earlier chunks */
	struct wbuf scratch; /* unescaped key fields of one row */
	int *key_of_field;   /* for fields 0 … last_field: which key column it is, or -1 */
	int last_field;      /* the last that is a key column; -1: none */
	struct field_bytes *fields; /* per key column, as it stands in the row */
	struct copy_key *keys;

	uint64_t n_rows, n_lines;
};

/* ---- setting up ---- */

static bool
encoding_embeds_ascii(const char *name)
{
	static const char *const unsafe[] = {"sjis", "shiftjis", "mskanji", "win932", "windows932", "shiftjis2004", "big5",
	                                     "win950", "windows950", "gbk", "win936", "windows936", "uhc", "win949",
	                                     "windows949", "gb18030", "johab"};
	char clean[32];
	size_t n = 0;

	/* PostgreSQL compares encoding names by their letters and digits only. */
	for (; *name; name++) {
		char c = *name;

		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')))
			continue;
		if (n == sizeof clean - 1)
			return false;
		clean[n++] = c;
	}
	clean[n] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(unsafe); i++)
		if (strcmp(clean, unsafe[i]) == 0)
			return true;
	return false;
}

static void
map_fields(struct copy_split *cs)
{
	const int *field = cs->spec.plan->key_field;

	cs->last_field = -1;
	for (int k = 0; k < cs->spec.n_key; k++)
		if (field[k] > cs->last_field)
			cs->last_field = field[k];
	cs->key_of_field = xmalloc((size_t)(cs->last_field + 1) * sizeof(int));
	for (int f = 0; f <= cs->last_field; f++)
		cs->key_of_field[f] = -1;
	for (int k = 0; k < cs->spec.n_key; k++)
		if (field[k] >= 0)
			cs->key_of_field[field[k]] = k;
}

struct copy_split *
copy_split_new(const struct copy_split_spec *spec, struct diag *d)
{
	const struct copy_plan *plan = spec->plan;
	const char *encoding = plan->encoding ? plan->encoding : spec->client_encoding;
	struct copy_split *cs;

	if (plan->format != COPY_FORMAT_BINARY && encoding && encoding_embeds_ascii(encoding)) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "COPY into a sharded table cannot read encoding \"%s\"", encoding);
		diag_hint(d, "Use UTF8 or another encoding in which ASCII bytes are never part of a longer character.");
		return NULL;
	}
	cs = xcalloc(1, sizeof *cs);
	cs->spec = *spec;
	if (cs->spec.max_row_bytes == 0)
		cs->spec.max_row_bytes = DEFAULT_MAX_ROW_BYTES;
	cs->stage = plan->header || plan->format == COPY_FORMAT_BINARY ? STAGE_HEAD : STAGE_ROWS;
	cs->escape = plan->escape == plan->quote ? '\0' : plan->escape;
	cs->null_string = plan->null_string ? plan->null_string : plan->format == COPY_FORMAT_CSV ? "" : "\\N";
	cs->null_bytes = strlen(cs->null_string);
	cs->keys = xcalloc((size_t)spec->n_key, sizeof *cs->keys);
	cs->fields = xcalloc((size_t)spec->n_key, sizeof *cs->fields);
	cs->lf.byte = '\n';
	cs->cr.byte = '\r';
	cs->backslash.byte = '\\';
	cs->quote.byte = plan->quote;
	cs->esc.byte = cs->escape;
	map_fields(cs);
	return cs;
}

void
copy_split_free(struct copy_split *cs)
{
	if (!cs)
		return;
	wbuf_fini(&cs->pending);
	wbuf_fini(&cs->scratch);
	free(cs->key_of_field);
	free(cs->fields);
	free(cs->keys);
	free(cs);
}

uint64_t
copy_split_rows(const struct copy_split *cs)
{
	return cs->n_rows;
}

uint64_t
copy_split_line(const struct copy_split *cs)
{
	return cs->n_lines;
}

/* ---- output ---- */

static void
flush_run(struct copy_split *cs)
{
	if (cs->run_bytes)
		cs->spec.emit(cs->spec.arg, cs->run_shard, span_of(cs->run, cs->run_bytes));
	cs->run_bytes = 0;
}

static void
add_to_run(struct copy_split *cs, int shard, const char *p, size_t n)
{
	if (cs->run_bytes && cs->run_shard == shard && cs->run + cs->run_bytes == p) {
		cs->run_bytes += n;
		return;
	}
	flush_run(cs);
	cs->run = p;
	cs->run_bytes = n;
	cs->run_shard = shard;
}

static void
emit_to_all(struct copy_split *cs, const char *p, size_t n)
{
	flush_run(cs);
	for (int shard = 0; shard < cs->spec.n_shards; shard++)
		cs->spec.emit(cs->spec.arg, shard, span_of(p, n));
}

/* ---- where a text or CSV row ends ---- */

static void
set_view(struct copy_split *cs, const char *end, bool at_eof)
{
	cs->end = end;
	cs->at_eof = at_eof;
	cs->lf.at = cs->cr.at = cs->backslash.at = cs->quote.at = cs->esc.at = NULL;
}

static inline const char *
next_at(struct next_byte *b, const char *from, const char *end)
{
	if (!b->at || b->at < from) {
		const char *at = from < end ? memchr(from, b->byte, (size_t)(end - from)) : NULL;

		b->at = at ? at : end;
	}
	return b->at;
}

static inline const char *
nearer(const char *a, const char *b)
{
	return a < b ? a : b;
}

static enum found
fail_format(struct diag *d, const char *message, const char *hint)
{
	diag_set(d, SQLSTATE_BAD_COPY_FILE_FORMAT, "%s", message);
	if (hint)
		diag_hint(d, "%s", hint);
	return FOUND_ERROR;
}

static enum found
fail_newline(const struct copy_split *cs, char c, struct diag *d)
{
	bool csv = cs->spec.plan->format == COPY_FORMAT_CSV;

	if (csv)
		return fail_format(d, c == '\r' ? "unquoted carriage return found in data" : "unquoted newline found in data",
		                   c == '\r' ? "Use quoted CSV field to represent carriage return."
		                             : "Use quoted CSV field to represent newline.");
	return fail_format(d, c == '\r' ? "literal carriage return found in data" : "literal newline found in data",
	                   c == '\r' ? "Use \"\\r\" to represent carriage return." : "Use \"\\n\" to represent newline.");
}

static enum found
part(struct copy_split *cs, const char *row, const char *looked)
{
	cs->looked = (size_t)(looked - row);
	return FOUND_PART;
}

static enum found
row_ends(struct row *r, const char *row, const char *newline, size_t newline_bytes)
{
	r->data_bytes = (size_t)(newline - row);
	r->total_bytes = r->data_bytes + newline_bytes;
	return FOUND_ROW;
}

/* At an unescaped, unquoted CR or LF. The first one decides the newline style of the whole stream. */
static enum found
at_newline(struct copy_split *cs, const char *row, const char *at, struct row *r, struct diag *d)
{
	if (*at == '\n') {
		if (cs->newline == NEWLINE_UNKNOWN)
			cs->newline = NEWLINE_LF;
		return cs->newline == NEWLINE_LF ? row_ends(r, row, at, 1) : fail_newline(cs, '\n', d);
	}
	if (cs->newline == NEWLINE_LF)
		return fail_newline(cs, '\r', d);
	if (cs->newline == NEWLINE_CR)
		return row_ends(r, row, at, 1);
	if (at + 1 == cs->end && !cs->at_eof)
		return part(cs, row, at);
	if (at + 1 < cs->end && at[1] == '\n') {
		cs->newline = NEWLINE_CRLF;
		return row_ends(r, row, at, 2);
	}
	if (cs->newline == NEWLINE_CRLF)
		return fail_newline(cs, '\r', d);
	cs->newline = NEWLINE_CR;
	return row_ends(r, row, at, 1);
}

/* At \. where it may be the end mark. FOUND_ROW means here that it is none, which only CSV allows.
 * In PostgreSQL's reading a CR is enough behind it while no style is known; with CRLF it must be CRLF. */
static enum found
at_end_mark(struct copy_split *cs, const char *row, const char *at, struct row *r, struct diag *d)
{
	bool csv = cs->spec.plan->format == COPY_FORMAT_CSV;
	const char *p = at + 2;

	if (cs->newline == NEWLINE_CRLF) {
		if (p == cs->end && !cs->at_eof)
			return part(cs, row, at);
		if (p == cs->end || *p != '\r') {
			if (csv)
				return FOUND_ROW;
			return p < cs->end && *p == '\n'
			           ? fail_format(d, "end-of-copy marker does not match previous newline style", NULL)
			           : fail_format(d, "end-of-copy marker corrupt", NULL);
		}
		p++;
	}
	if (p == cs->end && !cs->at_eof)
		return part(cs, row, at);
	if (p == cs->end || (*p != '\r' && *p != '\n'))
		return csv ? FOUND_ROW : fail_format(d, "end-of-copy marker corrupt", NULL);
	if (cs->newline != NEWLINE_UNKNOWN && *p != (cs->newline == NEWLINE_CR ? '\r' : '\n'))
		return fail_format(d, "end-of-copy marker does not match previous newline style", NULL);
	r->data_bytes = r->total_bytes = (size_t)(at - row);
	return FOUND_END_MARK;
}

static enum found
find_text_row(struct copy_split *cs, const char *row, struct row *r, struct diag *d)
{
	const char *pos = row + cs->looked;

	for (;;) {
		const char *bs = next_at(&cs->backslash, pos, cs->end);
		const char *stop = nearer(next_at(&cs->lf, pos, cs->end), next_at(&cs->cr, pos, cs->end));

		if (LIKELY(stop < bs))
			return at_newline(cs, row, stop, r, d);
		if (bs == cs->end || bs + 1 == cs->end)
			return part(cs, row, bs);
		cs->special = true;
		if (bs[1] == '.')
			return at_end_mark(cs, row, bs, r, d);
		pos = bs + 2; /* whatever follows a backslash is data, a newline too */
	}
}

static enum found
find_csv_row(struct copy_split *cs, const char *row, struct row *r, struct diag *d)
{
	const char *pos = row + cs->looked;

	if (cs->looked == 0 && !cs->spec.csv_no_end_mark && row < cs->end && row[0] == '\\') {
		if (row + 1 == cs->end && !cs->at_eof)
			return part(cs, row, row);
		if (row + 1 < cs->end && row[1] == '.') {
			enum found f = at_end_mark(cs, row, row, r, d);

			if (f != FOUND_ROW)
				return f;
		}
	}
	for (;;) {
		const char *quote = next_at(&cs->quote, pos, cs->end);

		if (cs->in_quote) {
			const char *esc = cs->escape ? next_at(&cs->esc, pos, cs->end) : cs->end;

			if (esc < quote) {
				if (esc + 1 == cs->end)
					return part(cs, row, esc);
				pos = esc + 2; /* only a quote or an escape there has a meaning, and loses it */
				continue;
			}
			if (quote == cs->end)
				return part(cs, row, quote);
			cs->in_quote = false;
		} else {
			const char *stop = nearer(next_at(&cs->lf, pos, cs->end), next_at(&cs->cr, pos, cs->end));

			if (LIKELY(stop < quote))
				return at_newline(cs, row, stop, r, d);
			if (quote == cs->end)
				return part(cs, row, quote);
			cs->in_quote = cs->special = true;
		}
		pos = quote + 1;
	}
}

/* ---- key fields ---- */

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Reads \ooo or \xhh whose first character (behind the backslash) is at *p. Returns what lies behind it. */
static const char *
unescape_number(const char *p, const char *end, char *out)
{
	int value = 0;

	if (*p == 'x') {
		int digits = 0;

		for (p++; p < end && digits < 2 && hex_value(*p) >= 0; p++, digits++)
			value = value * 16 + hex_value(*p);
		*out = digits ? (char)value : 'x';
		return p;
	}
	for (int digits = 0; p < end && digits < 3 && *p >= '0' && *p <= '7'; p++, digits++)
		value = value * 8 + (*p - '0');
	*out = (char)(value & 0377);
	return p;
}

/* Room for *n* bytes was made in the scratch; the result is never longer than the field. */
static struct span
unescape_text(struct copy_split *cs, struct field_bytes f)
{
	static const char from[] = "bfnrtv", to[] = "\b\f\n\r\t\v";
	const char *p = f.p, *end = f.p + f.n;
	char *start = cs->scratch.p + cs->scratch.n, *out = start;

	while (p < end) {
		const char *known;

		if (*p != '\\') {
			*out++ = *p++;
			continue;
		}
		if (++p == end)
			break; /* a lone backslash at the end is dropped */
		if (*p == 'x' || (*p >= '0' && *p <= '7')) {
			p = unescape_number(p, end, out++);
			continue;
		}
		known = *p ? strchr(from, *p) : NULL;
		*out++ = known ? to[known - from] : *p;
		p++;
	}
	cs->scratch.n += (size_t)(out - start);
	return span_of(start, (size_t)(out - start));
}

static struct span
unescape_csv(struct copy_split *cs, struct field_bytes f, bool *quoted)
{
	char quote = cs->spec.plan->quote, escape = cs->spec.plan->escape;
	const char *p = f.p, *end = f.p + f.n;
	char *start = cs->scratch.p + cs->scratch.n, *out = start;
	bool in_quote = false;

	*quoted = false;
	for (; p < end; p++) {
		if (in_quote && *p == escape && p + 1 < end && (p[1] == escape || p[1] == quote))
			*out++ = *++p;
		else if (*p == quote) {
			in_quote = !in_quote;
			*quoted = true;
		} else
			*out++ = *p;
	}
	cs->scratch.n += (size_t)(out - start);
	return span_of(start, (size_t)(out - start));
}

/* Where a CSV field that begins at *p* ends: at its delimiter or at *end*. */
static const char *
csv_field_end(const struct copy_split *cs, const char *p, const char *end)
{
	char delimiter = cs->spec.plan->delimiter, quote = cs->spec.plan->quote, escape = cs->spec.plan->escape;
	bool in_quote = false;

	for (; p < end; p++) {
		if (!in_quote && *p == delimiter)
			return p;
		if (in_quote && *p == escape && p + 1 < end && (p[1] == escape || p[1] == quote))
			p++;
		else if (*p == quote)
			in_quote = !in_quote;
	}
	return end;
}

static const char *
text_field_end(const struct copy_split *cs, const char *p, const char *end, bool has_backslash)
{
	char delimiter = cs->spec.plan->delimiter;

	if (!has_backslash) {
		const char *at = p < end ? memchr(p, delimiter, (size_t)(end - p)) : NULL;

		return at ? at : end;
	}
	for (; p < end && *p != delimiter; p++)
		if (*p == '\\' && p + 1 < end)
			p++;
	return p;
}

static void
decode_key(struct copy_split *cs, int k, struct field_bytes f)
{
	const struct copy_plan *plan = cs->spec.plan;
	int field = plan->key_field[k];
	bool is_null = f.n == cs->null_bytes && memcmp(f.p, cs->null_string, f.n) == 0;
	bool quoted = false;
	struct copy_key *key = &cs->keys[k];

	key->value = span_of(f.p, f.n);
	key->is_missing = false;
	if (plan->format == COPY_FORMAT_TEXT) {
		key->is_null = is_null;
		if (cs->special && !is_null)
			key->value = unescape_text(cs, f);
		return;
	}
	if (cs->special)
		key->value = unescape_csv(cs, f, &quoted);
	key->is_null = is_null && !quoted;
	if (key->is_null)
		key->is_null = !(plan->force_not_null && plan->force_not_null[field]);
	else if (plan->force_null && plan->force_null[field])
		key->is_null = key->value.n == cs->null_bytes &&
		               (key->value.n == 0 || memcmp(key->value.p, cs->null_string, key->value.n) == 0);
}

/* Fills cs->keys from a text or CSV row. False when the row has too few fields. */
static bool
read_keys(struct copy_split *cs, const char *row, size_t n)
{
	bool csv = cs->spec.plan->format == COPY_FORMAT_CSV;
	const char *p = row, *end = row + n;

	for (int f = 0; f <= cs->last_field; f++) {
		const char *stop = csv && cs->special ? csv_field_end(cs, p, end)
		                                      : text_field_end(cs, p, end, cs->special);

		if (cs->key_of_field[f] >= 0)
			cs->fields[cs->key_of_field[f]] = (struct field_bytes){p, (size_t)(stop - p)};
		if (stop == end && f < cs->last_field)
			return false;
		p = stop + 1;
	}
	wbuf_clear(&cs->scratch);
	if (cs->special)
		(void)wbuf_room(&cs->scratch, n);
	for (int k = 0; k < cs->spec.n_key; k++) {
		if (cs->spec.plan->key_field[k] < 0)
			cs->keys[k] = (struct copy_key){.is_missing = true};
		else
			decode_key(cs, k, cs->fields[k]);
	}
	return true;
}

/* ---- rows ---- */

static int
ask_route(struct copy_split *cs, struct diag *d)
{
	int shard = cs->spec.route(cs->spec.arg, cs->keys, cs->spec.n_key, d);

	assert(shard < cs->spec.n_shards);
	return shard;
}

/* PostgreSQL counts a newline within quotes as a line too, if it is the last byte of the newline style. */
static void
count_lines(struct copy_split *cs, const char *row, size_t n)
{
	cs->n_lines++;
	if (cs->spec.plan->format == COPY_FORMAT_CSV) {
		char c = cs->newline == NEWLINE_LF ? '\n' : '\r';
		const char *p = row, *end = row + n;

		while (p < end && (p = memchr(p, c, (size_t)(end - p)))) {
			cs->n_lines++;
			p++;
		}
	}
}

static enum rc
take_line(struct copy_split *cs, const char *row, size_t data_bytes, size_t total_bytes, struct diag *d)
{
	int shard = 0; /* for a row without its keys: PostgreSQL says "missing data for column" */

	count_lines(cs, row, data_bytes);
	if (cs->stage == STAGE_HEAD) {
		cs->stage = STAGE_ROWS;
		emit_to_all(cs, row, total_bytes);
		return RC_OK;
	}
	if (read_keys(cs, row, data_bytes)) {
		shard = ask_route(cs, d);
		if (shard < 0)
			return RC_FAIL;
	}
	cs->n_rows++;
	add_to_run(cs, shard, row, total_bytes);
	return RC_OK;
}

/* The end mark: what stands in front of it on its line is a last row, which needs a newline of its own. */
static enum rc
take_last_line(struct copy_split *cs, const char *row, size_t n, struct diag *d)
{
	static const char *const newline[] = {"\n", "\n", "\r", "\r\n"};
	bool heading = cs->stage == STAGE_HEAD;

	cs->n_lines += n == 0;
	if (n && take_line(cs, row, n, n, d) != RC_OK)
		return RC_FAIL;
	if (n && heading)
		emit_to_all(cs, newline[cs->newline], strlen(newline[cs->newline]));
	else if (n) {
		flush_run(cs);
		cs->spec.emit(cs->spec.arg, cs->run_shard, span_str(newline[cs->newline]));
	}
	cs->stage = STAGE_ENDED;
	return RC_OK;
}

/* Routes the text or CSV rows from *p* on; *used* is what was taken. */
static enum rc
take_lines(struct copy_split *cs, const char *p, size_t *used, struct diag *d)
{
	const char *start = p;
	bool csv = cs->spec.plan->format == COPY_FORMAT_CSV;

	while (p < cs->end && cs->stage != STAGE_ENDED) {
		struct row r;
		enum found f = csv ? find_csv_row(cs, p, &r, d) : find_text_row(cs, p, &r, d);

		if (f == FOUND_PART)
			break;
		if (f == FOUND_ERROR)
			return RC_FAIL;
		if (f == FOUND_END_MARK) {
			if (take_last_line(cs, p, r.data_bytes, d) != RC_OK)
				return RC_FAIL;
			p = cs->end;
		} else {
			if (take_line(cs, p, r.data_bytes, r.total_bytes, d) != RC_OK)
				return RC_FAIL;
			p += r.total_bytes;
		}
		cs->looked = 0;
		cs->in_quote = cs->special = false;
	}
	*used = (size_t)(p - start);
	return RC_OK;
}

/* ---- binary ---- */

/* Signature, flags, extension. */
static enum found
find_binary_head(const struct copy_split *cs, const char *p, struct row *r)
{
	size_t have = (size_t)(cs->end - p);
	size_t check = have < BINARY_SIGNATURE_BYTES ? have : BINARY_SIGNATURE_BYTES;
	int32_t extension;

	if (memcmp(p, BINARY_SIGNATURE, check) != 0)
		return FOUND_BROKEN;
	if (have < BINARY_HEAD_BYTES)
		return FOUND_PART;
	extension = (int32_t)wire_load_u32((const unsigned char *)p + BINARY_HEAD_BYTES - 4);
	if (extension < 0)
		return FOUND_BROKEN;
	r->total_bytes = BINARY_HEAD_BYTES + (size_t)extension;
	return have < r->total_bytes ? FOUND_PART : FOUND_ROW;
}

/* One tuple. One in many pieces is walked anew with each, but by its fields, not its bytes. */
static enum found
find_tuple(struct copy_split *cs, const char *p, int *n_fields, struct row *r)
{
	size_t have = (size_t)(cs->end - p), at = 2;

	if (have < 2)
		return FOUND_PART;
	*n_fields = (int16_t)wire_load_u16((const unsigned char *)p);
	if (*n_fields == -1) {
		r->total_bytes = 2;
		return FOUND_TRAILER;
	}
	if (*n_fields < 0)
		return FOUND_BROKEN;
	for (int f = 0; f < *n_fields; f++) {
		int32_t n;

		if (have - at < 4)
			return FOUND_PART;
		n = (int32_t)wire_load_u32((const unsigned char *)p + at);
		if (n < -1)
			return FOUND_BROKEN;
		at += 4;
		if (n > 0) {
			if (have - at < (size_t)n)
				return FOUND_PART;
			at += (size_t)n;
		}
	}
	r->total_bytes = at;
	return FOUND_ROW;
}

/* The keys of a complete tuple, values borrowed from it. */
static void
read_binary_keys(struct copy_split *cs, const char *p)
{
	size_t at = 2;

	for (int k = 0; k < cs->spec.n_key; k++)
		cs->keys[k] = (struct copy_key){.is_missing = cs->spec.plan->key_field[k] < 0};
	for (int f = 0; f <= cs->last_field; f++) {
		int32_t n = (int32_t)wire_load_u32((const unsigned char *)p + at);
		int k = cs->key_of_field[f];

		at += 4;
		if (k >= 0) {
			cs->keys[k].is_null = n < 0;
			cs->keys[k].value = n < 0 ? SPAN_NONE : span_of(p + at, (size_t)n);
		}
		if (n > 0)
			at += (size_t)n;
	}
}

static enum rc
take_tuples(struct copy_split *cs, const char *p, size_t *used, struct diag *d)
{
	const char *start = p;

	while (p < cs->end) {
		struct row r;
		int n_fields = 0;
		enum found f = cs->stage == STAGE_HEAD ? find_binary_head(cs, p, &r) : find_tuple(cs, p, &n_fields, &r);

		if (f == FOUND_PART)
			break;
		if (f == FOUND_BROKEN) {
			cs->stage = STAGE_ALL_TO_FIRST;
			break;
		}
		if (cs->stage == STAGE_HEAD || f == FOUND_TRAILER) {
			/* Behind the trailer there must be nothing; if there is, shard 0 gets it and says so. */
			cs->stage = f == FOUND_TRAILER ? STAGE_ALL_TO_FIRST : STAGE_ROWS;
			emit_to_all(cs, p, r.total_bytes);
			p += r.total_bytes;
			if (f == FOUND_TRAILER)
				break;
			continue;
		}
		cs->n_rows++;
		cs->n_lines++;
		if (n_fields > cs->last_field) {
			int shard;

			read_binary_keys(cs, p);
			shard = ask_route(cs, d);
			if (shard < 0)
				return RC_FAIL;
			add_to_run(cs, shard, p, r.total_bytes);
		} else
			add_to_run(cs, 0, p, r.total_bytes); /* PostgreSQL says "row field count is …" */
		p += r.total_bytes;
	}
	*used = (size_t)(p - start);
	return RC_OK;
}

/* ---- the stream ---- */

/* Takes what can be taken of the *n* bytes at *p*. */
static enum rc
take(struct copy_split *cs, const char *p, size_t n, bool at_eof, size_t *used, struct diag *d)
{
	enum rc rc = RC_OK;

	*used = 0;
	set_view(cs, p + n, at_eof);
	if (cs->stage == STAGE_HEAD || cs->stage == STAGE_ROWS)
		rc = cs->spec.plan->format == COPY_FORMAT_BINARY ? take_tuples(cs, p, used, d) : take_lines(cs, p, used, d);
	if (rc == RC_OK && cs->stage == STAGE_ALL_TO_FIRST && *used < n) {
		add_to_run(cs, 0, p + *used, n - *used);
		*used = n;
	}
	if (cs->stage == STAGE_ENDED)
		*used = n;
	flush_run(cs);
	return rc;
}

static void
drop_pending(struct copy_split *cs, size_t used)
{
	struct wbuf *w = &cs->pending;

	if (used == 0)
		return;
	memmove(w->p, w->p + used, w->n - used);
	w->n -= used;
	if (w->n == 0 && w->cap > PENDING_KEEP_BYTES)
		wbuf_fini(w);
}

enum rc
copy_split_feed(struct copy_split *cs, struct span bytes, struct diag *d)
{
	size_t used;

	if (bytes.n == 0)
		return RC_OK;
	if (cs->pending.n) {
		wbuf_span(&cs->pending, bytes);
		if (take(cs, cs->pending.p, cs->pending.n, false, &used, d) != RC_OK)
			return RC_FAIL;
		drop_pending(cs, used);
	} else {
		if (take(cs, bytes.p, bytes.n, false, &used, d) != RC_OK)
			return RC_FAIL;
		wbuf_bytes(&cs->pending, bytes.p + used, bytes.n - used);
	}
	if (cs->pending.n > cs->spec.max_row_bytes) {
		diag_set(d, SQLSTATE_PROGRAM_LIMIT_EXCEEDED, "COPY row is longer than %zu bytes", cs->spec.max_row_bytes);
		return RC_FAIL;
	}
	return RC_OK;
}

enum rc
copy_split_finish(struct copy_split *cs, struct diag *d)
{
	const char *p = cs->pending.p;
	size_t n = cs->pending.n, used = 0;
	enum rc rc;

	if (n == 0)
		return RC_OK;
	rc = take(cs, p, n, true, &used, d);
	if (rc != RC_OK || used == n) {
		wbuf_clear(&cs->pending);
		return rc;
	}
	p += used;
	n -= used;
	if (cs->spec.plan->format == COPY_FORMAT_BINARY || cs->in_quote)
		add_to_run(cs, 0, p, n); /* cut short: PostgreSQL reports it */
	else
		rc = take_line(cs, p, n, n, d);
	flush_run(cs);
	wbuf_clear(&cs->pending);
	return rc;
}
