/* SPDX-License-Identifier: BSD-2-Clause */
/* split - see pgspan/split.h.
 *
 * The text is walked once by its tokens. The grammar up to the rows is followed strictly, so that a word VALUES that is a
 * table's name, stands in a CTE or in a subquery is never taken for the one that matters:
 *
 *     [WITH …] INSERT INTO name [. name …] [* | AS alias] [( columns )] [OVERRIDING {USER | SYSTEM} VALUE] VALUES (…), (…) … rest
 *
 * What does not fit is refused, and so is a text whose number of rows is not what the planner counted: then one of
 * the two has misread it. */
#include "pgspan/split.h"

#include "pgspan/scan.h"
#include "pgspan/sqlstate.h"

/* A $n of the text. */
struct param_ref {
	uint32_t off, len;
	uint16_t number;
};

struct splitter {
	struct scan_iter it;
	struct scan_token tok; /* the token looked at */
	const char *sql;
	struct arena *arena;

	struct scan_place *rows; /* with their parentheses */
	uint32_t n_rows, cap_rows;
	uint32_t suffix; /* where the text behind the last row begins */

	struct param_ref *refs; /* in the order of the text */
	uint32_t n_refs, cap_refs;
	bool bad; /* a parameter's number is beyond what Bind can carry */
};

/* ---- tokens ---- */

static bool
note_param(struct splitter *s)
{
	uint32_t number = 0;

	for (uint32_t i = 1; i < s->tok.len; i++) {
		number = number * 10 + (uint32_t)(s->sql[s->tok.off + i] - '0');
		if (number > UINT16_MAX)
			return false;
	}
	if (number == 0)
		return false;
	if (s->n_refs == s->cap_refs) {
		s->cap_refs = s->cap_refs ? s->cap_refs * 2 : 64;
		s->refs = xrealloc(s->refs, s->cap_refs * sizeof *s->refs);
	}
	s->refs[s->n_refs++] = (struct param_ref){s->tok.off, s->tok.len, (uint16_t)number};
	return true;
}

/* Goes to the next token; every parameter passed is noted. */
static void
advance(struct splitter *s)
{
	(void)scan_next(&s->it, &s->tok);
	if (s->tok.kind == SCAN_PARAM && !note_param(s))
		s->bad = true;
}

static bool
at_self(const struct splitter *s, char c)
{
	return s->tok.kind == SCAN_SELF && s->sql[s->tok.off] == c;
}

static bool
at_word(const struct splitter *s, const char *word)
{
	return s->tok.kind == SCAN_IDENT && scan_is_word(s->sql, &s->tok, word);
}

static bool
skip_word(struct splitter *s, const char *word)
{
	if (!at_word(s, word))
		return false;
	advance(s);
	return true;
}

static bool
skip_name(struct splitter *s)
{
	if (s->tok.kind != SCAN_IDENT && s->tok.kind != SCAN_QIDENT && s->tok.kind != SCAN_UIDENT)
		return false;
	advance(s);
	return !at_word(s, "uescape");
}

/* At an opening parenthesis: goes behind the closing one and tells where that ends. */
static bool
skip_parentheses(struct splitter *s, uint32_t *end)
{
	uint32_t depth = 0;

	do {
		if (s->tok.kind == SCAN_END)
			return false;
		if (at_self(s, '('))
			depth++;
		if (at_self(s, ')')) {
			depth--;
			*end = s->tok.off + s->tok.len;
		}
		advance(s);
	} while (depth > 0);
	return true;
}

/* ---- the grammar ---- */

static bool
skip_to_insert(struct splitter *s)
{
	uint32_t end;

	advance(s);
	if (at_word(s, "with")) {
		while (s->tok.kind != SCAN_END && !at_word(s, "insert")) {
			if (at_self(s, '(')) {
				if (!skip_parentheses(s, &end))
					return false;
			} else
				advance(s);
		}
	}
	return skip_word(s, "insert") && skip_word(s, "into");
}

/* From the table's name to the first row. */
static bool
skip_to_rows(struct splitter *s)
{
	uint32_t end;

	if (!skip_name(s))
		return false;
	while (at_self(s, '.')) {
		advance(s);
		if (!skip_name(s))
			return false;
	}
	if (skip_word(s, "as") && !skip_name(s))
		return false;
	if (at_self(s, '(') && !skip_parentheses(s, &end))
		return false;
	if (skip_word(s, "overriding")) {
		if (!skip_word(s, "user") && !skip_word(s, "system"))
			return false;
		if (!skip_word(s, "value"))
			return false;
	}
	return skip_word(s, "values");
}

static bool
read_rows(struct splitter *s)
{
	for (;;) {
		struct scan_place row = {.off = s->tok.off};

		if (!at_self(s, '(') || !skip_parentheses(s, &s->suffix))
			return false;
		row.len = s->suffix - row.off;
		if (s->n_rows == s->cap_rows)
			return false; /* more than were counted */
		s->rows[s->n_rows++] = row;
		if (!at_self(s, ','))
			return true;
		advance(s);
	}
}

static bool
read_text(struct splitter *s)
{
	if (!skip_to_insert(s) || !skip_to_rows(s) || !read_rows(s) || s->n_rows != s->cap_rows)
		return false;
	/* An operator behind the rows would make them part of something larger (UNION, for one, ORDER BY, LIMIT). */
	if (s->tok.kind != SCAN_END && !at_self(s, ';') && !at_word(s, "on") && !at_word(s, "returning"))
		return false;
	while (s->tok.kind != SCAN_END && !at_self(s, ';'))
		advance(s);
	while (at_self(s, ';'))
		advance(s);
	return s->tok.kind == SCAN_END && s->it.found == 0 && !s->bad;
}

/* ---- the parts ---- */

/* Writes one part: copies pieces of the text and numbers the parameters in them anew. */
struct part_writer {
	const struct splitter *s;
	struct wbuf text;
	uint16_t *number_of; /* old number → new one, 0: not used yet */
	uint16_t *params;    /* new number - 1 → old one */
	uint16_t n_params;
};

/* The first reference at or behind *off*. */
static uint32_t
ref_at(const struct splitter *s, uint32_t off)
{
	uint32_t low = 0, high = s->n_refs;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (s->refs[mid].off < off)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void
copy_piece(struct part_writer *w, uint32_t off, uint32_t end)
{
	const struct splitter *s = w->s;

	for (uint32_t i = ref_at(s, off); i < s->n_refs && s->refs[i].off < end; i++) {
		const struct param_ref *ref = &s->refs[i];
		char text[8];

		if (w->number_of[ref->number] == 0) {
			w->params[w->n_params++] = ref->number;
			w->number_of[ref->number] = w->n_params;
		}
		wbuf_bytes(&w->text, s->sql + off, ref->off - off);
		wbuf_bytes(&w->text, text, (size_t)snprintf(text, sizeof text, "$%u", w->number_of[ref->number]));
		off = ref->off + ref->len;
	}
	wbuf_bytes(&w->text, s->sql + off, end - off);
}

static void *
keep(struct arena *a, const void *p, size_t n)
{
	void *to = arena_alloc(a, n);

	if (n)
		memcpy(to, p, n);
	return to;
}

/* part->rows and n_rows are set; the rest comes here. */
static void
write_part(struct part_writer *w, struct split_part *part)
{
	const struct splitter *s = w->s;

	wbuf_clear(&w->text);
	w->n_params = 0;
	copy_piece(w, 0, s->rows[0].off);
	for (uint32_t i = 0; i < part->n_rows; i++) {
		const struct scan_place *row = &s->rows[part->rows[i]];

		if (i)
			wbuf_span(&w->text, SPAN_LIT(", "));
		copy_piece(w, row->off, row->off + row->len);
	}
	copy_piece(w, s->suffix, (uint32_t)s->it.len);
	part->sql = span_of(keep(s->arena, w->text.p, w->text.n), w->text.n);
	part->params = keep(s->arena, w->params, w->n_params * sizeof *w->params);
	part->n_params = w->n_params;
	for (uint16_t k = 0; k < w->n_params; k++)
		w->number_of[w->params[k]] = 0;
}

static void
write_parts(const struct splitter *s, struct split *out)
{
	struct part_writer w = {.s = s};
	uint16_t max = 0;

	for (uint32_t i = 0; i < s->n_refs; i++)
		if (s->refs[i].number > max)
			max = s->refs[i].number;
	w.number_of = xcalloc((size_t)max + 1, sizeof *w.number_of);
	w.params = xcalloc((size_t)max + 1, sizeof *w.params);
	for (int i = 0; i < out->n_parts; i++)
		write_part(&w, &out->parts[i]);
	wbuf_fini(&w.text);
	free(w.number_of);
	free(w.params);
}

/* Which rows go to which part: a part for each shard that has rows. */
static void
deal_rows(struct arena *a, const int *shard_of_row, uint32_t n_rows, struct split *out)
{
	uint32_t count[MAX_SHARDS] = {0}, part_of_shard[MAX_SHARDS] = {0};
	uint32_t *rows = arena_alloc(a, n_rows * sizeof *rows), *part_of_row = arena_alloc(a, n_rows * sizeof *part_of_row);
	uint32_t *next[MAX_SHARDS];

	for (uint32_t r = 0; r < n_rows; r++) {
		assert(shard_of_row[r] >= 0 && shard_of_row[r] < MAX_SHARDS);
		count[shard_of_row[r]]++;
	}
	out->n_parts = 0;
	for (int shard = 0; shard < MAX_SHARDS; shard++)
		out->n_parts += count[shard] > 0;
	out->parts = arena_zalloc(a, (size_t)out->n_parts * sizeof *out->parts);
	for (int shard = 0, i = 0; shard < MAX_SHARDS; shard++) {
		if (count[shard] == 0)
			continue;
		out->parts[i] = (struct split_part){.shard = shard, .rows = rows, .n_rows = count[shard]};
		next[shard] = rows;
		rows += count[shard];
		part_of_shard[shard] = (uint32_t)i++;
	}
	for (uint32_t r = 0; r < n_rows; r++) {
		*next[shard_of_row[r]]++ = r;
		part_of_row[r] = part_of_shard[shard_of_row[r]];
	}
	out->part_of_row = part_of_row;
}

enum rc
split_insert(struct arena *a, struct span sql, unsigned scan_flags, const int *shard_of_row, uint32_t n_rows,
             struct split *out, struct diag *d)
{
	struct splitter s = {.sql = sql.p, .arena = a, .cap_rows = n_rows};
	enum rc rc = RC_FAIL;

	assert(n_rows > 0);
	s.rows = xcalloc(n_rows, sizeof *s.rows);
	scan_iter_init(&s.it, sql.p, sql.n, scan_flags);
	if (sql.n > INT32_MAX || !read_text(&s)) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "this INSERT cannot be split by shard");
		diag_hint(d, "Insert the rows one by one, or write INSERT INTO table (columns) VALUES (…), (…).");
		goto done;
	}
	deal_rows(a, shard_of_row, n_rows, out);
	write_parts(&s, out);
	rc = RC_OK;
done:
	free(s.rows);
	free(s.refs);
	return rc;
}

/* ---- the extended protocol ---- */

const uint32_t *
split_types(struct arena *a, const struct split_part *part, const uint32_t *types, uint16_t n_types)
{
	uint32_t *out = arena_alloc(a, part->n_params * sizeof *out);

	for (uint16_t k = 0; k < part->n_params; k++)
		out[k] = part->params[k] <= n_types ? types[part->params[k] - 1] : 0;
	return out;
}

static void
put_values(struct wbuf *w, const struct split_part *part, const struct msg_value *values)
{
	wbuf_u16(w, part->n_params);
	for (uint16_t k = 0; k < part->n_params; k++) {
		const struct msg_value *v = &values[part->params[k] - 1];

		wbuf_u32(w, v->is_null ? UINT32_MAX : (uint32_t)v->bytes.n);
		wbuf_span(w, v->bytes);
	}
}

bool
split_put_bind(struct wbuf *w, const struct split_part *part, const struct msg_bind *b, struct span portal,
               struct span statement)
{
	struct msg_values it = msg_bind_params(b);
	struct msg_value *values;
	bool each = b->n_formats > 1; /* a code for each parameter */

	if (each && b->n_formats != b->n_params)
		return false;
	for (uint16_t k = 0; k < part->n_params; k++)
		if (part->params[k] > b->n_params)
			return false;
	values = xcalloc(b->n_params, sizeof *values);
	for (uint16_t i = 0; i < b->n_params && msg_value_next(&it, &values[i]); i++)
		;
	wbuf_begin(w, CMSG_BIND);
	wbuf_cspan(w, portal);
	wbuf_cspan(w, statement);
	wbuf_u16(w, each ? part->n_params : b->n_formats);
	for (uint16_t k = 0; k < (each ? part->n_params : b->n_formats); k++)
		wbuf_u16(w, msg_format(b->formats, b->n_formats, each ? (unsigned)part->params[k] - 1 : 0));
	put_values(w, part, values);
	wbuf_u16(w, b->n_result_formats);
	wbuf_bytes(w, b->result_formats, 2 * (size_t)b->n_result_formats);
	wbuf_end(w);
	free(values);
	return true;
}
