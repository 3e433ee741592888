/* SPDX-License-Identifier: BSD-2-Clause */
/* key_input - PostgreSQL's input functions of the key types, each to canonical bytes.
 *
 * Each accepts exactly what the server accepts, of every supported version: '0x2A' is 42 since 16 and an error before, so
 * it is read as 42 here, and an old server that meets it raises its error. Where only the server can know (a date in words,
 * or by its DateStyle) the answer is KEY_UNKNOWN. No result of KEY_SERVER_DECIDES is a guess: the server does raise an error. */
#include "key_int.h"
#include "text.h"

bool
key_int_fits(enum key_type type, int64_t v)
{
	switch (type) {
	case KEY_INT2:
		return v >= INT16_MIN && v <= INT16_MAX;
	case KEY_INT4:
		return v >= INT32_MIN && v <= INT32_MAX;
	default:
		return true;
	}
}

/* int2in, int4in, int8in: [blanks] [sign] digits [blanks]; since 16 also 0x, 0o, 0b and single underscores inside. */
enum key_result
key_input_int(enum key_type type, struct span text, int64_t *out)
{
	text = text_trim(text);
	size_t i = 0;
	bool negative = false, underscore_may = false, any = false, overflow = false;
	unsigned base = 10;
	if (i < text.n && (text.p[i] == '-' || text.p[i] == '+'))
		negative = text.p[i++] == '-';
	if (i + 1 < text.n && text.p[i] == '0') {
		char c = text.p[i + 1];
		base = c == 'x' || c == 'X' ? 16 : c == 'o' || c == 'O' ? 8 : c == 'b' || c == 'B' ? 2 : 10;
		if (base != 10) {
			i += 2;
			underscore_may = true;
		}
	}
	uint64_t magnitude = 0;
	for (; i < text.n; i++) {
		if (text.p[i] == '_' && underscore_may && i + 1 < text.n) {
			underscore_may = false; /* a digit must come next */
			continue;
		}
		unsigned digit = text_digit_value(text.p[i]);
		if (digit >= base)
			return KEY_SERVER_DECIDES;
		if (__builtin_mul_overflow(magnitude, (uint64_t)base, &magnitude) ||
		    __builtin_add_overflow(magnitude, (uint64_t)digit, &magnitude))
			overflow = true;
		any = underscore_may = true;
	}
	if (!any || overflow || magnitude > (uint64_t)INT64_MAX + negative)
		return KEY_SERVER_DECIDES;
	int64_t v = (int64_t)(negative ? 0 - magnitude : magnitude);
	if (!key_int_fits(type, v))
		return KEY_SERVER_DECIDES;
	*out = v;
	return KEY_OK;
}

/* boolin: any beginning of a word that tells it apart, of any case, between blanks. */
enum key_result
key_input_bool(struct span text, struct key_scratch *s, struct span *out)
{
	text = text_trim(text);
	bool is_true = text_begins_nocase(text, "true") || text_begins_nocase(text, "yes") || text_eq_nocase(text, "on") ||
	               text_eq_nocase(text, "1");
	bool is_false = text_begins_nocase(text, "false") || text_begins_nocase(text, "no") ||
	                (text.n >= 2 && text_begins_nocase(text, "off")) || text_eq_nocase(text, "0");
	if (!is_true && !is_false)
		return KEY_SERVER_DECIDES;
	unsigned char *p = key_scratch_room(s, 1);
	p[0] = is_true;
	*out = span_of((const char *)p, 1);
	return KEY_OK;
}

/* uuid_in: 32 hexadecimal digits, perhaps in braces, perhaps a hyphen after any four; no blanks. */
enum key_result
key_input_uuid(struct span text, struct key_scratch *s, struct span *out)
{
	unsigned char *p = key_scratch_room(s, 16);
	size_t i = 0;
	bool braces = text.n && text.p[0] == '{';
	i += braces;
	for (int k = 0; k < 16; k++) {
		if (text.n - i < 2)
			return KEY_SERVER_DECIDES;
		unsigned high = text_digit_value(text.p[i]), low = text_digit_value(text.p[i + 1]);
		if (high > 15 || low > 15)
			return KEY_SERVER_DECIDES;
		p[k] = (unsigned char)(high << 4 | low);
		i += 2;
		if (k % 2 == 1 && k < 15 && i < text.n && text.p[i] == '-')
			i++;
	}
	if (braces) {
		if (i == text.n || text.p[i] != '}')
			return KEY_SERVER_DECIDES;
		i++;
	}
	if (i != text.n)
		return KEY_SERVER_DECIDES;
	*out = span_of((const char *)p, 16);
	return KEY_OK;
}

static bool
is_hex_blank(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* byteain, hex form: \x, then pairs of digits, blanks between pairs. */
static enum key_result
input_bytea_hex(struct span hex, struct key_scratch *s, struct span *out)
{
	unsigned char *p = key_scratch_room(s, hex.n / 2);
	size_t n = 0;
	for (size_t i = 0; i < hex.n;) {
		if (is_hex_blank(hex.p[i])) {
			i++;
			continue;
		}
		unsigned high = text_digit_value(hex.p[i]);
		unsigned low = i + 1 < hex.n ? text_digit_value(hex.p[i + 1]) : 99;
		if (high > 15 || low > 15)
			return KEY_SERVER_DECIDES;
		p[n++] = (unsigned char)(high << 4 | low);
		i += 2;
	}
	*out = span_of((const char *)p, n);
	return KEY_OK;
}

static bool
is_octal(char c, char most)
{
	return c >= '0' && c <= most;
}

/* byteain: the hex form, or the escape form: bytes as they stand, \\ and \ooo. */
enum key_result
key_input_bytea(struct span text, struct key_scratch *s, struct span *out)
{
	if (text.n >= 2 && text.p[0] == '\\' && text.p[1] == 'x')
		return input_bytea_hex(span_of(text.p + 2, text.n - 2), s, out);
	if (text.n == 0 || !memchr(text.p, '\\', text.n)) {
		*out = text;
		return KEY_OK;
	}
	unsigned char *p = key_scratch_room(s, text.n);
	size_t n = 0;
	for (size_t i = 0; i < text.n;) {
		const char *c = text.p + i;
		size_t left = text.n - i;
		if (c[0] != '\\') {
			p[n++] = (unsigned char)c[0];
			i++;
		} else if (left >= 4 && is_octal(c[1], '3') && is_octal(c[2], '7') && is_octal(c[3], '7')) {
			p[n++] = (unsigned char)((c[1] - '0') << 6 | (c[2] - '0') << 3 | (c[3] - '0'));
			i += 4;
		} else if (left >= 2 && c[1] == '\\') {
			p[n++] = '\\';
			i += 2;
		} else {
			return KEY_SERVER_DECIDES;
		}
	}
	*out = span_of((const char *)p, n);
	return KEY_OK;
}

/* Days from 2000-01-01 in the proleptic Gregorian calendar; the year begins in March, so that a leap day is its last. */
static int32_t
days_since_2000(int year, int month, int day)
{
	int y = month > 2 ? year : year - 1;
	int m = month > 2 ? month - 3 : month + 9;
	int day_of_year = (153 * m + 2) / 5 + day - 1;
	return y * 365 + y / 4 - y / 100 + y / 400 + day_of_year - 730425;
}

/* date_in, of which only YYYY-MM-DD is read: it means the same under every DateStyle. */
enum key_result
key_input_date(struct span text, struct key_scratch *s, struct span *out)
{
	static const signed char days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	if (text.n != 10 || text.p[4] != '-' || text.p[7] != '-')
		return KEY_UNKNOWN;
	for (int i = 0; i < 10; i++)
		if (i != 4 && i != 7 && !text_is_digit(text.p[i]))
			return KEY_UNKNOWN;
	const char *c = text.p;
	int year = (c[0] - '0') * 1000 + (c[1] - '0') * 100 + (c[2] - '0') * 10 + (c[3] - '0');
	int month = (c[5] - '0') * 10 + (c[6] - '0');
	int day = (c[8] - '0') * 10 + (c[9] - '0');
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	if (year < 1 || month < 1 || month > 12 || day < 1 || day > days[month - 1] || (month == 2 && day == 29 && !leap))
		return KEY_SERVER_DECIDES;
	uint32_t v = (uint32_t)days_since_2000(year, month, day);
	unsigned char *p = key_scratch_room(s, 4);
	for (int i = 0; i < 4; i++)
		p[i] = (unsigned char)(v >> (24 - 8 * i));
	*out = span_of((const char *)p, 4);
	return KEY_OK;
}
