/* SPDX-License-Identifier: BSD-2-Clause */
/* scan.c - the hand-written scanner of the hot path: tokens, shape, places of literals.
 *
 * PostgreSQL's own scanner (scan.l of version 15) is the reference; tests/fuzz/fuzz_scan.c holds the two against each
 * other through libpg_query. Where ours has to be told from a plain reading of the rules, a comment says so.
 *
 * lex() finds one token. It looks at a token's first byte by its class and leaves the rarer forms to functions
 * of their own; scan_next() and scan_sql() each have a copy of it inlined.
 *
 * The shape is the hash of a byte stream made from the tokens, collected in scan.buf and hashed at once, or, when
 * it outgrows buf, in pieces (XXH3 gives the same either way):
 *
 *     ( ) [ ] , ; .            the byte itself
 *     other marks, operators   text, space          a + -b     "a + - b "
 *     identifiers              folded text, space
 *     "…"  U&"…"  $n           text, space
 *     literals, N of N''       their kind in one byte (below 0x20)
 *     junk, stray bytes        kind, text, space
 *     the string of UESCAPE    kind, text, space: U&"…" is another identifier under another escape character
 *
 * No token's bytes begin with a space, and only those of the first line and the one-byte kinds go without one behind
 * them, so that the stream can be cut into tokens in one way only: different token streams never meet but by
 * accident of the hash. */
#include "pgspan/scan.h"

#include "pgspan/log.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

typedef unsigned char uchar;

enum byte_class {
	C_OTHER,
	C_SPACE,
	C_LETTER,
	C_PREFIX, /* a letter that may stand before a quote */
	C_DIGIT,
	C_QUOTE,
	C_DQUOTE,
	C_DOLLAR,
	C_DOT,
	C_COLON,
	C_PUNCT,   /* single-byte tokens that are in no operator */
	C_SELF_OP, /* operator bytes that are tokens of their own when alone */
	C_OP,      /* operator bytes that are not in SQL's own operators */

	CLASS_MASK = 0x0f,
	IN_IDENT = 0x80,    /* may stand in an identifier behind its first byte */
	BEGINS_IDENT = 0x40,
	IN_OP = 0x20,
};

#define LETTER (C_LETTER | IN_IDENT | BEGINS_IDENT)
#define PREFIX (C_PREFIX | IN_IDENT | BEGINS_IDENT)

static const uint8_t bytes[256] = {
	[' '] = C_SPACE, ['\t'] = C_SPACE, ['\n'] = C_SPACE, ['\r'] = C_SPACE, ['\f'] = C_SPACE,
	['A'] = LETTER, ['B'] = PREFIX, ['C' ... 'D'] = LETTER, ['E'] = PREFIX, ['F' ... 'M'] = LETTER, ['N'] = PREFIX,
	['O' ... 'T'] = LETTER, ['U'] = PREFIX, ['V' ... 'W'] = LETTER, ['X'] = PREFIX, ['Y' ... 'Z'] = LETTER,
	['a'] = LETTER, ['b'] = PREFIX, ['c' ... 'd'] = LETTER, ['e'] = PREFIX, ['f' ... 'm'] = LETTER, ['n'] = PREFIX,
	['o' ... 't'] = LETTER, ['u'] = PREFIX, ['v' ... 'w'] = LETTER, ['x'] = PREFIX, ['y' ... 'z'] = LETTER,
	['_'] = LETTER, [0x80 ... 0xff] = LETTER,
	['0' ... '9'] = C_DIGIT | IN_IDENT,
	['\''] = C_QUOTE, ['"'] = C_DQUOTE, ['$'] = C_DOLLAR | IN_IDENT, ['.'] = C_DOT, [':'] = C_COLON,
	['('] = C_PUNCT, [')'] = C_PUNCT, ['['] = C_PUNCT, [']'] = C_PUNCT, [','] = C_PUNCT, [';'] = C_PUNCT,
	['+'] = C_SELF_OP | IN_OP, ['-'] = C_SELF_OP | IN_OP, ['*'] = C_SELF_OP | IN_OP, ['/'] = C_SELF_OP | IN_OP,
	['%'] = C_SELF_OP | IN_OP, ['^'] = C_SELF_OP | IN_OP, ['<'] = C_SELF_OP | IN_OP, ['>'] = C_SELF_OP | IN_OP,
	['='] = C_SELF_OP | IN_OP,
	['~'] = C_OP | IN_OP, ['!'] = C_OP | IN_OP, ['@'] = C_OP | IN_OP, ['#'] = C_OP | IN_OP, ['&'] = C_OP | IN_OP,
	['|'] = C_OP | IN_OP, ['`'] = C_OP | IN_OP, ['?'] = C_OP | IN_OP,
};

static inline bool
is_digit(uchar c)
{
	return (unsigned)c - '0' < 10;
}

static inline bool
two(const uchar *p, const uchar *end, char a, char b)
{
	return end - p >= 2 && p[0] == (uchar)a && p[1] == (uchar)b;
}

static inline const uchar *
ident_end(const uchar *p, const uchar *end)
{
	while (p < end && (bytes[*p] & IN_IDENT))
		p++;
	return p;
}

static inline const uchar *
digits_end(const uchar *p, const uchar *end)
{
	while (p < end && is_digit(*p))
		p++;
	return p;
}

static const uchar *
line_comment_end(const uchar *p, const uchar *end)
{
	while (p < end && *p != '\n' && *p != '\r')
		p++;
	return p;
}

/* Comments --------------------------------------------------------------------------------------------------- */

static void
note_hint(struct scan_iter *it, const uchar *body, size_t len)
{
	if (!memmem(body, len, "pgspan:", 7) && !memmem(body, len, "pgdog_", 6))
		return;
	if (it->n_hints++ == 0)
		it->hint = (struct scan_place){(uint32_t)((const char *)body - it->sql), (uint32_t)len};
}

/* Passes the comment, and the comments in it, that opens at p. */
static __attribute__((noinline)) const uchar *
block_comment_end(struct scan_iter *it, const uchar *p, const uchar *end)
{
	const uchar *body = p + 2;
	unsigned depth = 1;

	for (p = body; end - p >= 2;) {
		if (p[0] == '*' && p[1] == '/') {
			p += 2;
			if (--depth == 0) {
				note_hint(it, body, (size_t)(p - 2 - body));
				return p;
			}
		} else if (p[0] == '/' && p[1] == '*') {
			p += 2;
			depth++;
		} else {
			p++;
		}
	}
	it->found |= SCAN_UNTERMINATED;
	return end;
}

/* Quoted things: each function is given the first byte inside and returns the byte behind, NULL if unterminated. */

/* Segments are parted by white space and -- comments, with a newline among it; block comments do not count. */
const uchar *
scan_continuation(const uchar *p, const uchar *end)
{
	bool newline = false;

	for (; p < end; p++) {
		if (*p == '\n' || *p == '\r')
			newline = true;
		else if (bytes[*p] == C_SPACE)
			continue;
		else if (two(p, end, '-', '-'))
			p = line_comment_end(p, end) - 1;
		else
			return newline && *p == '\'' ? p + 1 : NULL;
	}
	return NULL;
}

/* The next quote that no backslash hides. */
static const uchar *
escaped_quote(const uchar *p, const uchar *end)
{
	for (; p < end; p++) {
		if (*p == '\'')
			return p;
		if (*p == '\\')
			p++;
	}
	return NULL;
}

static const uchar *
string_end(const uchar *p, const uchar *end, bool escapes, bool doubles)
{
	for (;;) {
		p = escapes ? escaped_quote(p, end) : memchr(p, '\'', (size_t)(end - p));
		if (!p)
			return NULL;
		p++;
		if (p == end || (bytes[*p] != C_QUOTE && bytes[*p] != C_SPACE && *p != '-'))
			return p;
		if (*p == '\'') {
			/* In bit strings two quotes are an end and a beginning. */
			if (!doubles)
				return p;
			p++;
			continue;
		}
		const uchar *next = scan_continuation(p, end);
		if (!next)
			return p;
		p = next;
	}
}

static const uchar *
quoted_ident_end(const uchar *p, const uchar *end)
{
	while ((p = memchr(p, '"', (size_t)(end - p)))) {
		p++;
		if (p == end || *p != '"')
			return p;
		p++;
	}
	return NULL;
}

/* Ends a token: at p, or at the end of the text when p says unterminated. */
static inline uint8_t
quoted(struct scan_iter *it, const uchar **pp, const uchar *p, const uchar *end, uint8_t kind)
{
	if (UNLIKELY(!p)) {
		it->found |= SCAN_UNTERMINATED;
		p = end;
	}
	*pp = p;
	return kind;
}

/* Tokens: each function is given the token's first byte in *pp, moves it behind the token, returns the kind. ------ */

/* B' E' N' U&' X' U&" or else an identifier. */
static inline uint8_t
lex_prefixed(struct scan_iter *it, const uchar **pp, const uchar *end)
{
	const uchar *p = *pp;

	if (end - p >= 2 && p[1] == '\'') {
		switch (*p | 0x20) {
		case 'b': return quoted(it, pp, string_end(p + 2, end, false, false), end, SCAN_LIT_BIT);
		case 'x': return quoted(it, pp, string_end(p + 2, end, false, false), end, SCAN_LIT_HEX);
		case 'e': return quoted(it, pp, string_end(p + 2, end, true, true), end, SCAN_LIT_ESTRING);
		case 'n': *pp = p + 1; return SCAN_NCHAR; /* PostgreSQL reads the type name NCHAR, then a string */
		default: break;
		}
	} else if (end - p >= 3 && (*p | 0x20) == 'u' && p[1] == '&') {
		if (p[2] == '\'')
			return quoted(it, pp, string_end(p + 3, end, false, true), end, SCAN_LIT_USTRING);
		if (p[2] == '"')
			return quoted(it, pp, quoted_ident_end(p + 3, end), end, SCAN_UIDENT);
	}
	*pp = ident_end(p + 1, end);
	return SCAN_IDENT;
}

/* PostgreSQL gives digits the first of int4, int8 and numeric that holds them. */
static uint8_t
integer_kind(const uchar *p, const uchar *end)
{
	uint64_t value = 0;

	while (p < end && *p == '0')
		p++;
	if (LIKELY(end - p < 10))
		return SCAN_LIT_INT;
	if (end - p > 19)
		return SCAN_LIT_FLOAT;
	for (; p < end; p++)
		value = value * 10 + (*p - '0');
	return value <= INT32_MAX ? SCAN_LIT_INT : value <= INT64_MAX ? SCAN_LIT_BIGINT : SCAN_LIT_FLOAT;
}

/* Letters right behind a number or parameter spoil it. */
static inline uint8_t
spoiled(struct scan_iter *it, const uchar **pp, const uchar *p, const uchar *end, uint8_t kind)
{
	if (UNLIKELY(p < end && (bytes[*p] & BEGINS_IDENT))) {
		it->found |= SCAN_INVALID;
		*pp = ident_end(p, end);
		return SCAN_JUNK;
	}
	*pp = p;
	return kind;
}

/* A digit, or a dot and a digit. "1..10" is 1 .. 10, but "1.5..2" 1.5 .. 2 and "1." a number. */
static inline uint8_t
lex_number(struct scan_iter *it, const uchar **pp, const uchar *end)
{
	const uchar *begin = *pp, *p = digits_end(begin, end);
	uint8_t kind = SCAN_LIT_INT;

	if (p < end && *p == '.' && (p == begin || !two(p, end, '.', '.'))) {
		kind = SCAN_LIT_FLOAT;
		p = digits_end(p + 1, end);
	}
	if (p < end && (*p | 0x20) == 'e') {
		const uchar *exp = p + 1;

		if (exp < end && (*exp == '+' || *exp == '-'))
			exp++;
		if (exp < end && is_digit(*exp)) {
			kind = SCAN_LIT_FLOAT;
			p = digits_end(exp, end);
		}
	}
	if (kind == SCAN_LIT_INT)
		kind = integer_kind(begin, p);
	return spoiled(it, pp, p, end, kind);
}

/* $1, $$…$$, $tag$…$tag$, or a stray dollar. */
static uint8_t
lex_dollar(struct scan_iter *it, const uchar **pp, const uchar *end)
{
	const uchar *begin = *pp, *p = begin + 1;

	if (p < end && is_digit(*p))
		return spoiled(it, pp, digits_end(p, end), end, SCAN_PARAM);
	/* A tag is an identifier without dollars. */
	if (p < end && (bytes[*p] & BEGINS_IDENT))
		while (p < end && (bytes[*p] & IN_IDENT) && *p != '$')
			p++;
	if (p == end || *p != '$') {
		it->found |= SCAN_INVALID;
		*pp = begin + 1;
		return SCAN_OTHER;
	}
	size_t delim = (size_t)(++p - begin);
	const uchar *close = memmem(p, (size_t)(end - p), begin, delim);

	return quoted(it, pp, close ? close + delim : NULL, end, SCAN_LIT_DOLLAR);
}

static uint8_t
operator_kind(const uchar *p, size_t len)
{
	if (len == 1)
		return (bytes[*p] & CLASS_MASK) == C_SELF_OP ? SCAN_SELF : SCAN_OP;
	if (len == 2) {
		if (p[1] == '=')
			return p[0] == '<'   ? SCAN_LESS_EQUALS
			       : p[0] == '>' ? SCAN_GREATER_EQUALS
			       : p[0] == '!' ? SCAN_NOT_EQUALS
			                     : SCAN_OP;
		if (p[1] == '>')
			return p[0] == '=' ? SCAN_EQUALS_GREATER : p[0] == '<' ? SCAN_NOT_EQUALS : SCAN_OP;
	}
	return SCAN_OP;
}

/* The longest run of operator bytes, cut before a comment; and, unless one of its bytes is foreign to SQL's own
 * operators, cut before trailing + and -, so that "a=-1" reads as a = -1. Documentation, section 4.1.3. */
static inline uint8_t
lex_operator(const uchar **pp, const uchar *end)
{
	const uchar *begin = *pp, *p = begin + 1;
	bool foreign = bytes[*begin] == (C_OP | IN_OP) || *begin == '%' || *begin == '^';

	for (; p < end && (bytes[*p] & IN_OP); p++) {
		if (two(p, end, '-', '-') || two(p, end, '/', '*'))
			break;
		foreign |= bytes[*p] == (C_OP | IN_OP) || *p == '%' || *p == '^';
	}
	if (p[-1] == '+' || p[-1] == '-') {
		/* The last byte is no foreign one itself, so looking at all of them is looking at those before it. */
		while (!foreign && p - begin > 1 && (p[-1] == '+' || p[-1] == '-'))
			p--;
	}
	*pp = p;
	return operator_kind(begin, (size_t)(p - begin));
}

static inline uint8_t
lex_dot(struct scan_iter *it, const uchar **pp, const uchar *end)
{
	const uchar *p = *pp;

	if (end - p >= 2 && is_digit(p[1]))
		return lex_number(it, pp, end);
	if (two(p, end, '.', '.')) {
		*pp = p + 2;
		return SCAN_DOT_DOT;
	}
	*pp = p + 1;
	return SCAN_SELF;
}

static inline uint8_t
lex_colon(const uchar **pp, const uchar *end)
{
	const uchar *p = *pp;

	*pp = p + 2;
	if (two(p, end, ':', ':'))
		return SCAN_TYPECAST;
	if (two(p, end, ':', '='))
		return SCAN_COLON_EQUALS;
	*pp = p + 1;
	return SCAN_SELF;
}

static inline uint8_t
lex_token(struct scan_iter *it, const uchar **pp, const uchar *end)
{
	const uchar *p = *pp;

	switch (bytes[*p] & CLASS_MASK) {
	case C_LETTER:
		*pp = ident_end(p + 1, end);
		return SCAN_IDENT;
	case C_PREFIX:
		return lex_prefixed(it, pp, end);
	case C_DIGIT:
		return lex_number(it, pp, end);
	case C_PUNCT:
		*pp = p + 1;
		return SCAN_SELF;
	case C_SELF_OP:
	case C_OP:
		return lex_operator(pp, end);
	case C_QUOTE:
		return quoted(it, pp, string_end(p + 1, end, it->flags & SCAN_SCS_OFF, true), end, SCAN_LIT_STRING);
	case C_DQUOTE:
		if (two(p, end, '"', '"') && (end - p == 2 || p[2] != '"'))
			it->found |= SCAN_INVALID;
		return quoted(it, pp, quoted_ident_end(p + 1, end), end, SCAN_QIDENT);
	case C_DOLLAR:
		return lex_dollar(it, pp, end);
	case C_DOT:
		return lex_dot(it, pp, end);
	case C_COLON:
		return lex_colon(pp, end);
	default:
		it->found |= SCAN_INVALID;
		*pp = p + 1;
		return SCAN_OTHER;
	}
}

static inline bool
lex(struct scan_iter *it, struct scan_token *tok)
{
	const uchar *text = (const uchar *)it->sql, *end = text + it->len, *p = text + it->pos;

	for (;; p++) {
		while (p < end && bytes[*p] == C_SPACE)
			p++;
		if (two(p, end, '-', '-'))
			p = line_comment_end(p, end) - 1;
		else if (two(p, end, '/', '*'))
			p = block_comment_end(it, p, end) - 1;
		else
			break;
	}
	tok->off = (uint32_t)(p - text);
	tok->kind = SCAN_END;
	if (p < end)
		tok->kind = lex_token(it, &p, end);
	it->pos = (size_t)(p - text);
	tok->len = (uint32_t)it->pos - tok->off;
	return tok->kind != SCAN_END;
}

void
scan_iter_init(struct scan_iter *it, const char *sql, size_t len, unsigned flags)
{
	assert(len <= UINT32_MAX);
	*it = (struct scan_iter){.sql = sql, .len = len, .flags = flags};
}

bool
scan_next(struct scan_iter *it, struct scan_token *tok)
{
	return lex(it, tok);
}

bool
scan_is_word(const char *sql, const struct scan_token *tok, const char *word)
{
	const char *p = sql + tok->off;
	uint32_t i;

	if (tok->kind != SCAN_IDENT)
		return false;
	for (i = 0; i < tok->len && word[i]; i++) {
		char c = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] + 32) : p[i];

		if (c != word[i])
			return false;
	}
	return i == tok->len && !word[i];
}

/* The shape ----------------------------------------------------------------------------------------------------- */

/* The byte stream on its way to the hash. */
struct stream {
	struct scan *s;
	uint32_t n;     /* bytes in s->buf */
	bool in_pieces; /* s->stream has what came before them */
};

static __attribute__((noinline)) void
stream_flush(struct stream *st)
{
	struct scan *s = st->s;

	if (!s->stream && !(s->stream = XXH3_createState()))
		log_fatal("out of memory (for a hash state)");
	if (!st->in_pieces)
		XXH3_128bits_reset(s->stream);
	st->in_pieces = true;
	XXH3_128bits_update(s->stream, s->buf, st->n);
	st->n = 0;
}

static void
stream_end(struct stream *st)
{
	XXH128_hash_t h;

	if (st->in_pieces) {
		stream_flush(st);
		h = XXH3_128bits_digest(st->s->stream);
	} else {
		h = XXH3_128bits(st->s->buf, st->n);
	}
	st->s->shape[0] = h.low64;
	st->s->shape[1] = h.high64;
}

/* ASCII letters of eight bytes to lower case: adding to the low seven bits of each byte carries into its eighth for
 * what is at or above A, and for what is above Z. */
static inline uint64_t
fold8(uint64_t w)
{
	const uint64_t ones = 0x0101010101010101;
	uint64_t low = w & (0x7f * ones);
	uint64_t from_a = low + (0x80 - 'A') * ones, behind_z = low + (0x7f - 'Z') * ones;

	return w | (((from_a ^ behind_z) & ~w & (0x80 * ones)) >> 2);
}

/* What stream_put() leaves free in buf: the space behind the bytes, and what copying in eights writes past them. */
enum { STREAM_MAX = SCAN_BUF_BYTES - 16 };

/* *avail* bytes may be read at p. */
static inline void
copy_text(char *out, const char *p, size_t len, size_t avail, bool fold)
{
	size_t i = 0;

	for (; i < len && i + 8 <= avail; i += 8) {
		uint64_t w;

		memcpy(&w, p + i, 8);
		w = fold ? fold8(w) : w;
		memcpy(out + i, &w, 8);
	}
	for (; i < len; i++)
		out[i] = fold && p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] + 32) : p[i];
}

/* Makes room for *len* bytes more; of a longer text puts all that does not fit into buf, returns how much. */
static __attribute__((noinline)) size_t
stream_make_room(struct stream *st, const char *p, size_t len, bool fold)
{
	size_t done = 0;

	for (stream_flush(st); len - done > STREAM_MAX; stream_flush(st)) {
		copy_text(st->s->buf, p + done, STREAM_MAX, STREAM_MAX, fold);
		st->n = STREAM_MAX;
		done += STREAM_MAX;
	}
	return done;
}

/* Puts a token's text and a space. */
static inline void
stream_text(struct stream *st, const struct scan_iter *it, const struct scan_token *tok, bool fold)
{
	const char *p = it->sql + tok->off;
	size_t len = tok->len;

	if (UNLIKELY(st->n + len > STREAM_MAX)) {
		size_t done = stream_make_room(st, p, len, fold);

		p += done;
		len -= done;
	}
	copy_text(st->s->buf + st->n, p, len, (size_t)(it->sql + it->len - p), fold);
	st->n += (uint32_t)len;
	st->s->buf[st->n++] = ' ';
}

static inline void
stream_byte(struct stream *st, char c)
{
	if (UNLIKELY(st->n >= STREAM_MAX))
		stream_flush(st);
	st->s->buf[st->n++] = c;
}

/* Where statements begin and end. A semicolon parts them unless it stands in parentheses (CREATE RULE … DO (a; b)) or
 * in the body of a function written BEGIN ATOMIC a; b; END, in which CASE … END nests. */
struct extent {
	int32_t parens;
	int32_t body;   /* open BEGIN ATOMIC and CASE */
	bool open;      /* in a statement that has been counted */
	bool is_create; /* its first word is CREATE */
	bool was_begin; /* the token before was BEGIN, and is_create */
};

static void
extent_create_word(struct extent *x, const struct scan_iter *it, const struct scan_token *tok)
{
	if (x->body > 0) {
		if (scan_is_word(it->sql, tok, "case"))
			x->body++;
		else if (scan_is_word(it->sql, tok, "end"))
			x->body--;
	} else if (x->was_begin && scan_is_word(it->sql, tok, "atomic")) {
		x->body = 1;
	}
	x->was_begin = scan_is_word(it->sql, tok, "begin");
}

static inline void
extent_token(struct extent *x, struct scan *s, const struct scan_iter *it, const struct scan_token *tok)
{
	char c = tok->kind == SCAN_SELF ? it->sql[tok->off] : '\0';

	if (c == ';' && x->parens == 0 && x->body == 0) {
		*x = (struct extent){0};
		return;
	}
	if (UNLIKELY(!x->open && c != ';')) {
		x->open = true;
		x->is_create = scan_is_word(it->sql, tok, "create");
		s->n_statements++;
	}
	if (c == '(')
		x->parens++;
	else if (c == ')' && x->parens > 0)
		x->parens--;
	if (UNLIKELY(x->is_create))
		extent_create_word(x, it, tok);
}

static __attribute__((noinline)) void
grow_literals(struct scan *s)
{
	uint32_t cap = s->cap_literals * 2;
	struct scan_literal *old = s->literals == s->inline_literals ? NULL : s->literals;
	struct scan_literal *new = xrealloc(old, cap * sizeof(*new));

	if (!old)
		memcpy(new, s->inline_literals, sizeof(s->inline_literals));
	s->literals = new;
	s->cap_literals = cap;
}

static inline void
note_literal(struct scan *s, const struct scan_token *tok)
{
	if (UNLIKELY(s->n_literals == s->cap_literals))
		grow_literals(s);
	s->literals[s->n_literals++] = (struct scan_literal){.off = tok->off, .len = tok->len, .kind = tok->kind};
}

/* UESCAPE 'x' behind U&'…' or U&"…": the token behind the word is no literal of the statement. */
enum uescape { UESCAPE_NONE, UESCAPE_AFTER_STRING, UESCAPE_AFTER_IDENT, UESCAPE_STRING_FOLLOWS };

/* *tok* comes behind U&'…', U&"…" or their UESCAPE. True if it has been put here. */
static __attribute__((noinline)) bool
uescape_token(enum uescape *state, struct stream *st, const struct scan_iter *it, const struct scan_token *tok)
{
	struct scan *s = st->s;

	if (*state != UESCAPE_STRING_FOLLOWS && scan_is_word(it->sql, tok, "uescape")) {
		if (*state == UESCAPE_AFTER_STRING)
			s->literals[s->n_literals - 1].flags |= SCAN_LIT_UESCAPE;
		*state = UESCAPE_STRING_FOLLOWS;
		return false;
	}
	if (*state == UESCAPE_STRING_FOLLOWS && scan_is_literal(tok->kind)) {
		stream_byte(st, (char)tok->kind);
		stream_text(st, it, tok, false);
		*state = UESCAPE_NONE;
		return true;
	}
	*state = UESCAPE_NONE;
	return false;
}

static inline void
put_token(struct stream *st, const struct scan_iter *it, const struct scan_token *tok)
{
	switch (tok->kind) {
	case SCAN_IDENT:
		if (UNLIKELY(st->s->first_word.len == 0))
			st->s->first_word = (struct scan_place){tok->off, tok->len};
		stream_text(st, it, tok, true);
		break;
	case SCAN_SELF: {
		char c = it->sql[tok->off];

		if ((bytes[(uchar)c] & CLASS_MASK) == C_PUNCT || c == '.')
			stream_byte(st, c);
		else
			stream_text(st, it, tok, false);
		break;
	}
	case SCAN_PARAM:
		note_literal(st->s, tok);
		stream_text(st, it, tok, false);
		break;
	case SCAN_LIT_STRING: case SCAN_LIT_ESTRING: case SCAN_LIT_USTRING: case SCAN_LIT_DOLLAR: case SCAN_LIT_BIT:
	case SCAN_LIT_HEX: case SCAN_LIT_INT: case SCAN_LIT_BIGINT: case SCAN_LIT_FLOAT:
		note_literal(st->s, tok);
		stream_byte(st, (char)tok->kind);
		break;
	case SCAN_NCHAR:
		stream_byte(st, (char)tok->kind);
		break;
	case SCAN_JUNK: case SCAN_OTHER:
		stream_byte(st, (char)tok->kind);
		stream_text(st, it, tok, false);
		break;
	default: /* "…", U&"…", operators */
		stream_text(st, it, tok, false);
		break;
	}
}

int
scan_sql(const char *sql, size_t len, unsigned flags, struct scan *out)
{
	struct scan_iter it = {.sql = sql, .len = len, .flags = flags};
	struct stream st = {.s = out};
	struct extent extent = {0};
	enum uescape uescape = UESCAPE_NONE;
	struct scan_token tok;

	out->shape[0] = out->shape[1] = 0;
	out->n_literals = out->n_statements = 0;
	out->found = 0;
	out->n_hints = 0;
	out->hint = out->first_word = (struct scan_place){0, 0};
	if (len > UINT32_MAX)
		return -1;

	while (lex(&it, &tok)) {
		extent_token(&extent, out, &it, &tok);
		if (UNLIKELY(uescape != UESCAPE_NONE) && uescape_token(&uescape, &st, &it, &tok))
			continue;
		put_token(&st, &it, &tok);
		if (UNLIKELY(tok.kind == SCAN_LIT_USTRING))
			uescape = UESCAPE_AFTER_STRING;
		else if (UNLIKELY(tok.kind == SCAN_UIDENT))
			uescape = UESCAPE_AFTER_IDENT;
	}
	stream_end(&st);
	out->found = it.found;
	out->n_hints = it.n_hints;
	out->hint = it.hint;
	return it.found & SCAN_UNTERMINATED ? -1 : 0;
}

void
scan_init(struct scan *s)
{
	*s = (struct scan){.literals = s->inline_literals, .cap_literals = SCAN_INLINE_LITERALS};
}

void
scan_fini(struct scan *s)
{
	if (s->literals != s->inline_literals)
		free(s->literals);
	XXH3_freeState(s->stream);
	scan_init(s);
}

uint32_t
scan_literal_at(const struct scan *s, uint32_t off)
{
	uint32_t lo = 0, hi = s->n_literals;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (s->literals[mid].off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}
