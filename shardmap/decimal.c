/* SPDX-License-Identifier: BSD-2-Clause */
/* decimal - exact reading of numeric values, without their digits: an integer key wants to know whether the value is
 * whole, which integer it is, and to which one an INSERT rounds it. Digits are counted, never turned into a double.
 *
 * Very long numbers and exponents are left to the servers (DECIMAL_UNKNOWN): numeric has limits of its own, and
 * past them the answer would be PostgreSQL's error, not a value. */
#include "decimal.h"
#include "text.h"

#define LONGEST 1000 /* digits, and exponent: far inside numeric's own limits (131072 and 16383) */

static void
add_digit(struct decimal *d, unsigned digit)
{
	if (__builtin_mul_overflow(d->whole, (uint64_t)10, &d->whole) ||
	    __builtin_add_overflow(d->whole, (uint64_t)digit, &d->whole))
		d->overflow = true;
}

/* The digits of *mantissa*, in which the decimal point stands before digit number *point* (after the exponent moved it;
 * it may stand outside of the digits). A '.' among them is skipped. */
static void
read_digits(struct span mantissa, long point, struct decimal *d)
{
	long i = 0;
	for (size_t k = 0; k < mantissa.n; k++) {
		if (mantissa.p[k] == '.')
			continue;
		unsigned digit = (unsigned)(mantissa.p[k] - '0');
		if (i < point)
			add_digit(d, digit);
		else if (digit)
			d->fraction = true;
		if (i == point && digit >= 5)
			d->half = true;
		i++;
	}
	for (; i < point && d->whole && !d->overflow; i++)
		add_digit(d, 0);
}

/* Reads the exponent at s[*at], moving *at* behind it. */
static enum decimal_result
read_exponent(struct span s, size_t *at, long *out)
{
	size_t i = *at;
	bool minus = false;
	if (i < s.n && (s.p[i] == '+' || s.p[i] == '-'))
		minus = s.p[i++] == '-';
	size_t first = i;
	long exponent = 0;
	for (; i < s.n && text_is_digit(s.p[i]); i++)
		if (exponent <= LONGEST)
			exponent = exponent * 10 + (s.p[i] - '0');
	if (i == first || exponent > LONGEST)
		return DECIMAL_UNKNOWN; /* numeric_in() before 16 lets strtol() skip blanks here: "1e 5" */
	*out = minus ? -exponent : exponent;
	*at = i;
	return DECIMAL_OK;
}

enum decimal_result
decimal_from_literal(struct span s, struct decimal *out)
{
	*out = (struct decimal){.plain = true};
	size_t i = 0;
	long digits = 0, before_point = -1;
	for (; i < s.n && (text_is_digit(s.p[i]) || (s.p[i] == '.' && before_point < 0)); i++) {
		if (s.p[i] == '.')
			before_point = digits;
		else
			digits++;
	}
	if (digits == 0 || digits > LONGEST)
		return DECIMAL_UNKNOWN;
	if (before_point >= 0)
		out->plain = false;
	else
		before_point = digits;
	struct span mantissa = span_of(s.p, i);
	long exponent = 0;
	if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
		i++;
		out->plain = false;
		enum decimal_result r = read_exponent(s, &i, &exponent);
		if (r != DECIMAL_OK)
			return r;
	}
	if (i != s.n)
		return DECIMAL_UNKNOWN; /* 0x2A and 1_000 are numbers since PostgreSQL 16 only */
	read_digits(mantissa, before_point + exponent, out);
	return DECIMAL_OK;
}

enum decimal_result
decimal_from_text(struct span s, struct decimal *out)
{
	s = text_trim(s);
	bool negative = false, is_nan = text_eq_nocase(s, "nan"); /* which takes no sign */
	if (s.n && (s.p[0] == '+' || s.p[0] == '-')) {
		negative = s.p[0] == '-';
		s = span_of(s.p + 1, s.n - 1);
	}
	if (is_nan) {
		*out = (struct decimal){.overflow = true};
		return DECIMAL_OK;
	}
	if (text_eq_nocase(s, "inf") || text_eq_nocase(s, "infinity")) {
		*out = (struct decimal){.negative = negative, .overflow = true};
		return DECIMAL_UNKNOWN; /* a value since PostgreSQL 14, an error before */
	}
	if (s.n == 0 || (!text_is_digit(s.p[0]) && s.p[0] != '.'))
		return DECIMAL_BAD;
	enum decimal_result r = decimal_from_literal(s, out);
	out->negative = negative;
	out->plain = false;
	return r;
}

static unsigned
be16(const char *p)
{
	return (unsigned)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

/* Layout: int16 ndigits, int16 weight, uint16 sign, uint16 dscale, then ndigits base-10000 digits; the first has the
 * place value 10000^weight. numeric_recv() cuts what stands behind dscale decimals; nobody sends that, so it is refused. */
enum decimal_result
decimal_from_binary(struct span s, struct decimal *out)
{
	static const unsigned power[] = {1, 10, 100, 1000};
	*out = (struct decimal){.overflow = false};
	if (s.n < 8)
		return DECIMAL_BAD;
	unsigned n_groups = be16(s.p), sign = be16(s.p + 4), dscale = be16(s.p + 6);
	int weight = (int16_t)be16(s.p + 2);
	if (s.n != 8 + 2 * (size_t)n_groups)
		return DECIMAL_BAD;
	if (sign == 0xC000 || sign == 0xD000 || sign == 0xF000) {
		out->overflow = true; /* NaN, Infinity, -Infinity */
		return DECIMAL_OK;
	}
	if ((sign != 0 && sign != 0x4000) || dscale > LONGEST || n_groups > LONGEST || weight > LONGEST || weight < -LONGEST)
		return DECIMAL_UNKNOWN;
	out->negative = sign == 0x4000;
	int place = weight;
	for (unsigned i = 0; i < n_groups; i++, place--) {
		unsigned group = be16(s.p + 8 + 2 * i);
		if (group > 9999)
			return DECIMAL_BAD;
		if (place >= 0) {
			for (int k = 3; k >= 0; k--)
				add_digit(out, group / power[k] % 10);
			continue;
		}
		int kept = (int)dscale - 4 * (-1 - place); /* decimals of this group that dscale keeps */
		if (group && (kept <= 0 || (kept < 4 && group % power[4 - kept])))
			return DECIMAL_UNKNOWN;
		if (group)
			out->fraction = true;
		if (place == -1 && group >= 5000)
			out->half = true;
	}
	for (; place >= 0 && out->whole && !out->overflow; place--)
		for (int k = 0; k < 4; k++)
			add_digit(out, 0);
	return DECIMAL_OK;
}

bool
decimal_to_int8(const struct decimal *d, bool round, int64_t *out)
{
	if (d->overflow || (d->fraction && !round))
		return false;
	uint64_t magnitude = d->whole;
	if (d->half && ++magnitude == 0)
		return false;
	uint64_t limit = (uint64_t)INT64_MAX + d->negative;
	if (magnitude > limit)
		return false;
	*out = (int64_t)(d->negative ? 0 - magnitude : magnitude);
	return true;
}
