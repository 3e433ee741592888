/* SPDX-License-Identifier: BSD-2-Clause */
/* scan_literal.c - a literal's value, as PostgreSQL 15's scan.l and parser.c (U&) would make it.
 *
 * It answers only where every PostgreSQL gives that answer. The rest, wrong or merely doubtful, is -1: the caller then
 * does without the value, and the server has the last word. Bytes made by \x and octal escapes are in the server's
 * encoding, taken to be UTF-8; a value that they keep from being UTF-8 is refused. */
#include "pgspan/scan.h"

typedef unsigned char uchar;

/* A value being made, and the text it is made of. The text ends with the literal's closing quote. */
struct decoder {
	const uchar *p, *end; /* what is left between the quotes */
	uchar *out;
	size_t n, cap;
	uint32_t high_surrogate; /* waits for its second half; 0: none does */
	bool raw_bytes;          /* a byte >= 0x80 came from an escape */
};

static bool
put(struct decoder *d, uint32_t byte)
{
	if (d->n == d->cap || byte == 0)
		return false;
	d->out[d->n++] = (uchar)byte;
	return true;
}

static bool
put_code_point(struct decoder *d, uint32_t c)
{
	if (c < 0x80)
		return put(d, c);
	if (c < 0x800)
		return put(d, 0xc0 | c >> 6) && put(d, 0x80 | (c & 0x3f));
	if (c < 0x10000)
		return put(d, 0xe0 | c >> 12) && put(d, 0x80 | (c >> 6 & 0x3f)) && put(d, 0x80 | (c & 0x3f));
	return c <= 0x10ffff && put(d, 0xf0 | c >> 18) && put(d, 0x80 | (c >> 12 & 0x3f)) &&
	       put(d, 0x80 | (c >> 6 & 0x3f)) && put(d, 0x80 | (c & 0x3f));
}

/* A code point as escapes spell it: halves of a pair must follow each other directly. */
static bool
put_utf16(struct decoder *d, uint32_t c)
{
	uint32_t high = d->high_surrogate;

	d->high_surrogate = 0;
	if (c >= 0xdc00 && c <= 0xdfff)
		return high && put_code_point(d, 0x10000 + ((high & 0x3ff) << 10) + (c & 0x3ff));
	if (high)
		return false;
	if (c >= 0xd800 && c <= 0xdbff) {
		d->high_surrogate = c;
		return true;
	}
	return put_code_point(d, c);
}

static int
hex_value(uchar c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Exactly *digits* hex digits at d->p, which moves behind them; false if there are fewer. */
static bool
take_hex(struct decoder *d, int digits, uint32_t *value)
{
	*value = 0;
	if (d->end - d->p < digits)
		return false;
	for (; digits > 0; digits--, d->p++) {
		if (hex_value(*d->p) < 0)
			return false;
		*value = *value << 4 | (uint32_t)hex_value(*d->p);
	}
	return true;
}

static bool
put_raw(struct decoder *d, uint32_t byte)
{
	d->raw_bytes |= byte >= 0x80;
	return put(d, byte);
}

static bool
octal_escape(struct decoder *d, uint32_t value)
{
	for (int i = 0; i < 2 && d->p < d->end && *d->p >= '0' && *d->p <= '7'; i++)
		value = value << 3 | (uint32_t)(*d->p++ - '0');
	return put_raw(d, value & 0xff);
}

static bool
hex_escape(struct decoder *d)
{
	uint32_t value = 0;
	int i;

	for (i = 0; i < 2 && d->p < d->end && hex_value(*d->p) >= 0; i++)
		value = value << 4 | (uint32_t)hex_value(*d->p++);
	return i == 0 ? put(d, 'x') : put_raw(d, value);
}

/* What a backslash makes of what follows it (d->p) in an E string. Documentation, table 4.1. */
static bool
backslash_escape(struct decoder *d)
{
	uint32_t value;
	uchar c;

	if (d->p == d->end)
		return false;
	c = *d->p++;
	if (c == 'u' || c == 'U')
		return take_hex(d, c == 'u' ? 4 : 8, &value) && put_utf16(d, value);
	if (d->high_surrogate)
		return false;
	switch (c) {
	case 'b': return put(d, '\b');
	case 'f': return put(d, '\f');
	case 'n': return put(d, '\n');
	case 'r': return put(d, '\r');
	case 't': return put(d, '\t');
	case 'v': return false; /* the letter v, or a vertical tab: versions differ */
	case 'x': return hex_escape(d);
	case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7':
		return octal_escape(d, (uint32_t)(c - '0'));
	default: return put_raw(d, c); /* of a longer character too, whose other bytes follow as they are */
	}
}

/* The same in a U& string. */
static bool
unicode_escape(struct decoder *d)
{
	uint32_t value;

	if (d->p < d->end && *d->p == '\\') {
		d->p++;
		return !d->high_surrogate && put(d, '\\');
	}
	if (d->p < d->end && *d->p == '+') {
		d->p++;
		return take_hex(d, 6, &value) && put_utf16(d, value);
	}
	return take_hex(d, 4, &value) && put_utf16(d, value);
}

/* All segments. *escape* is what a backslash does, NULL for nothing. A pair of surrogates may be split by a seam between
 * segments in U&'…', where escapes are read after joining, and not in E'…', where they are read before. */
static bool
decode_quoted(struct decoder *d, bool (*escape)(struct decoder *))
{
	while (d->p < d->end) {
		uchar c = *d->p++;

		if (c == '\\' && escape) {
			if (!escape(d))
				return false;
			continue;
		}
		if (c == '\'' && !(d->p < d->end && *d->p == '\'')) {
			d->p = scan_continuation(d->p, d->end + 1);
			if (!d->p || (d->high_surrogate && escape == backslash_escape))
				return false;
			continue;
		}
		if (c == '\'')
			d->p++;
		if (d->high_surrogate || !put(d, c))
			return false;
	}
	return !d->high_surrogate;
}

/* Well-formed UTF-8 as PostgreSQL's pg_utf8_islegal() has it: no overlong forms, surrogates, nothing past U+10FFFF. */
static bool
is_utf8(const uchar *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		uchar c = p[i++], low = 0x80, high = 0xbf;
		int more;

		if (c < 0x80)
			continue;
		if (c < 0xc2 || c > 0xf4)
			return false;
		more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
		if (c == 0xe0)
			low = 0xa0;
		else if (c == 0xed)
			high = 0x9f;
		else if (c == 0xf0)
			low = 0x90;
		else if (c == 0xf4)
			high = 0x8f;
		for (; more > 0; more--, low = 0x80, high = 0xbf)
			if (i == n || p[i] < low || p[i] > high)
				return false;
			else
				i++;
	}
	return true;
}

static ssize_t
copy_out(const char *p, size_t n, char *out, size_t cap)
{
	if (n > cap)
		return -1;
	memcpy(out, p, n);
	return (ssize_t)n;
}

static ssize_t
dollar_text(const char *p, size_t len, char *out, size_t cap)
{
	const char *tag_end = memchr(p + 1, '$', len - 1);
	size_t delim;

	if (!tag_end)
		return -1;
	delim = (size_t)(tag_end + 1 - p);
	if (len < 2 * delim)
		return -1;
	return copy_out(p + delim, len - 2 * delim, out, cap);
}

ssize_t
scan_literal_text(const char *sql, const struct scan_literal *lit, unsigned flags, char *out, size_t cap)
{
	const char *p = sql + lit->off;
	bool scs_off = flags & SCAN_SCS_OFF;
	bool (*escape)(struct decoder *) = NULL;
	size_t prefix = 1;

	switch (lit->kind) {
	case SCAN_LIT_INT: case SCAN_LIT_BIGINT: case SCAN_LIT_FLOAT:
		return copy_out(p, lit->len, out, cap);
	case SCAN_LIT_DOLLAR:
		return dollar_text(p, lit->len, out, cap);
	case SCAN_LIT_STRING:
		escape = scs_off ? backslash_escape : NULL;
		break;
	case SCAN_LIT_ESTRING:
		prefix = 2;
		escape = backslash_escape;
		break;
	case SCAN_LIT_USTRING:
		if (scs_off || (lit->flags & SCAN_LIT_UESCAPE))
			return -1;
		prefix = 3;
		escape = unicode_escape;
		break;
	default:
		return -1;
	}
	if (lit->len < prefix + 1 || p[lit->len - 1] != '\'')
		return -1; /* unterminated */

	struct decoder d = {
		.p = (const uchar *)p + prefix, .end = (const uchar *)p + lit->len - 1, .out = (uchar *)out, .cap = cap};

	if (!decode_quoted(&d, escape) || (d.raw_bytes && !is_utf8(d.out, d.n)))
		return -1;
	return (ssize_t)d.n;
}
