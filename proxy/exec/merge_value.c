/* SPDX-License-Identifier: BSD-2-Clause */
/* merge_value - see merge_value.h.
 *
 * The decimals are a small copy of what numeric.c does for sum(), min() and max(), because the answer has to be the same to the
 * last digit, scale included: sum(1.0, 2.00) is 3.00. Sizes are bounded by the type: at most 32768 base-10000 digits before
 * the point and 16383 decimal places behind it, so a hostile server cannot make a value large. */
#include "merge_value.h"

#include <inttypes.h>

#define BASE 10000
#define BASE_DIGITS 4 /* decimal digits in one base-10000 digit */
#define MAX_SCALE 16383
#define MAX_WEIGHT INT16_MAX
#define MAX_TEXT_BYTES ((size_t)(MAX_WEIGHT + 1) * BASE_DIGITS + MAX_SCALE + 2)

/* The sign word of the binary format. */
#define SIGN_POSITIVE 0x0000
#define SIGN_NEGATIVE 0x4000
#define SIGN_NAN 0xC000
#define SIGN_PLUS_INFINITY 0xD000
#define SIGN_MINUS_INFINITY 0xF000
#define INFINITY_SCALE 32 /* what numeric_send() happens to give for both infinities */

/* ---- integers ---- */

static bool
int_read_text(struct span s, int64_t *out)
{
	bool negative = s.n > 0 && s.p[0] == '-';
	uint64_t v = 0, limit = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;

	if (s.n == negative)
		return false;
	for (size_t i = negative; i < s.n; i++) {
		unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';

		if (digit > 9 || v > (limit - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*out = negative ? (int64_t)(0 - v) : (int64_t)v;
	return true;
}

bool
int_read(struct span s, enum wire_format format, bool is_unsigned, int64_t *out)
{
	const unsigned char *p = (const unsigned char *)s.p;

	if (format == FORMAT_TEXT)
		return int_read_text(s, out);
	switch (s.n) {
	case 2:
		*out = (int16_t)wire_load_u16(p);
		return true;
	case 4:
		*out = is_unsigned ? (int64_t)wire_load_u32(p) : (int32_t)wire_load_u32(p);
		return true;
	case 8:
		*out = (int64_t)((uint64_t)wire_load_u32(p) << 32 | wire_load_u32(p + 4));
		return true;
	default:
		return false;
	}
}

void
int_write(struct wbuf *w, int64_t v, enum wire_format format, int n_bytes)
{
	if (format == FORMAT_TEXT) {
		char text[24];
		int n = snprintf(text, sizeof text, "%" PRId64, v);

		wbuf_bytes(w, text, (size_t)n);
		return;
	}
	if (n_bytes == 8)
		wbuf_u32(w, (uint32_t)((uint64_t)v >> 32));
	if (n_bytes == 2)
		wbuf_u16(w, (uint16_t)v);
	else
		wbuf_u32(w, (uint32_t)v);
}

/* ---- bytes ---- */

int
bytes_compare(struct span a, struct span b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int order = n ? memcmp(a.p, b.p, n) : 0;

	return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* ---- decimals: storage ---- */

void
decimal_fini(struct decimal *d)
{
	free(d->digits);
	*d = (struct decimal){0};
}

static void
set_special(struct decimal *d, enum decimal_kind kind)
{
	d->kind = kind;
	d->negative = false;
	d->weight = d->scale = d->n = 0;
}

/* *n* digits, all 0. */
static void
set_size(struct decimal *d, int n)
{
	if (n > d->cap) {
		d->digits = xrealloc(d->digits, (size_t)n * sizeof *d->digits);
		d->cap = n;
	}
	if (n)
		memset(d->digits, 0, (size_t)n * sizeof *d->digits);
	d->n = n;
}

/* Brings the digits to the form that struct decimal promises. */
static void
strip(struct decimal *d)
{
	int lead = 0;

	while (lead < d->n && d->digits[lead] == 0)
		lead++;
	while (d->n > lead && d->digits[d->n - 1] == 0)
		d->n--;
	if (lead) {
		memmove(d->digits, d->digits + lead, (size_t)(d->n - lead) * sizeof *d->digits);
		d->n -= lead;
		d->weight -= lead;
	}
	if (d->n == 0) {
		d->negative = false;
		d->weight = 0;
	}
}

/* ---- decimals: reading ---- */

static bool
read_special_text(struct decimal *d, struct span s)
{
	if (span_eq_str(s, "NaN"))
		set_special(d, DECIMAL_NAN);
	else if (span_eq_str(s, "Infinity"))
		set_special(d, DECIMAL_PLUS_INFINITY);
	else if (span_eq_str(s, "-Infinity"))
		set_special(d, DECIMAL_MINUS_INFINITY);
	else
		return false;
	return true;
}

/* Digits, perhaps a point with digits behind it: numeric_out() never writes an exponent. */
static bool
decimal_read_text(struct decimal *d, struct span s)
{
	const char *p = s.p, *end = s.p + s.n, *point;
	int before, place;

	if (s.n == 0 || s.n > MAX_TEXT_BYTES)
		return false;
	if (*p == '-')
		p++;
	if (p == end || *p < '0' || *p > '9')
		return read_special_text(d, s);
	point = memchr(p, '.', (size_t)(end - p));
	before = (int)((point ? point : end) - p);
	d->kind = DECIMAL_FINITE;
	d->negative = *s.p == '-';
	d->scale = point ? (int)(end - point - 1) : 0;
	if (d->scale > MAX_SCALE || (point && d->scale == 0) || before > (MAX_WEIGHT + 1) * BASE_DIGITS)
		return false;
	d->weight = (before + BASE_DIGITS - 1) / BASE_DIGITS - 1;
	set_size(d, d->weight + 1 + (d->scale + BASE_DIGITS - 1) / BASE_DIGITS);
	/* *place* counts decimal places from the first one of the first base-10000 digit. */
	place = (d->weight + 1) * BASE_DIGITS - before;
	for (; p < end; p++) {
		static const uint16_t power[BASE_DIGITS] = {1000, 100, 10, 1};

		if (p == point)
			continue;
		if (*p < '0' || *p > '9')
			return false;
		d->digits[place / BASE_DIGITS] =
			(uint16_t)(d->digits[place / BASE_DIGITS] + (*p - '0') * power[place % BASE_DIGITS]);
		place++;
	}
	strip(d);
	return true;
}

static bool
decimal_read_binary(struct decimal *d, struct span s)
{
	struct rd r = rd_of(s.p, s.n);
	int n = rd_u16(&r), weight = (int16_t)rd_u16(&r);
	uint16_t sign = rd_u16(&r), scale = rd_u16(&r);

	if (r.bad || rd_left(&r) != (size_t)n * 2 || scale > MAX_SCALE)
		return false;
	switch (sign) {
	case SIGN_NAN:
		set_special(d, DECIMAL_NAN);
		return true;
	case SIGN_PLUS_INFINITY:
		set_special(d, DECIMAL_PLUS_INFINITY);
		return true;
	case SIGN_MINUS_INFINITY:
		set_special(d, DECIMAL_MINUS_INFINITY);
		return true;
	case SIGN_POSITIVE:
	case SIGN_NEGATIVE:
		break;
	default:
		return false;
	}
	/* Digits that lie wholly behind the scale would be cut by numeric_recv(); a server never sends them. */
	if (n > 0 && (int64_t)n - 1 - weight > (scale + BASE_DIGITS - 1) / BASE_DIGITS)
		return false;
	d->kind = DECIMAL_FINITE;
	d->negative = sign == SIGN_NEGATIVE;
	d->weight = weight;
	d->scale = scale;
	set_size(d, n);
	for (int i = 0; i < n; i++) {
		d->digits[i] = rd_u16(&r);
		if (d->digits[i] >= BASE)
			return false;
	}
	strip(d);
	return true;
}

bool
decimal_read(struct decimal *d, struct span s, enum wire_format format)
{
	return format == FORMAT_TEXT ? decimal_read_text(d, s) : decimal_read_binary(d, s);
}

/* ---- decimals: writing ---- */

/* The digit that counts 10000^power; 0 outside what is stored. */
static unsigned
digit_at(const struct decimal *d, int power)
{
	int i = d->weight - power;

	return i >= 0 && i < d->n ? d->digits[i] : 0;
}

static void
write_text(struct wbuf *w, const struct decimal *d)
{
	int high = d->n && d->weight > 0 ? d->weight : 0;
	char group[8];
	int left = d->scale;

	if (d->negative)
		wbuf_u8(w, '-');
	wbuf_bytes(w, group, (size_t)snprintf(group, sizeof group, "%u", digit_at(d, high)));
	for (int power = high - 1; power >= 0; power--)
		wbuf_bytes(w, group, (size_t)snprintf(group, sizeof group, "%04u", digit_at(d, power)));
	if (left > 0)
		wbuf_u8(w, '.');
	for (int power = -1; left > 0; power--, left -= BASE_DIGITS) {
		snprintf(group, sizeof group, "%04u", digit_at(d, power));
		wbuf_bytes(w, group, left < BASE_DIGITS ? (size_t)left : BASE_DIGITS);
	}
}

static void
write_head(struct wbuf *w, int n, int weight, uint16_t sign, int scale)
{
	wbuf_u16(w, (uint16_t)n);
	wbuf_u16(w, (uint16_t)weight);
	wbuf_u16(w, sign);
	wbuf_u16(w, (uint16_t)scale);
}

void
decimal_write(struct wbuf *w, const struct decimal *d, enum wire_format format)
{
	static const char *const text[] = {NULL, "NaN", "Infinity", "-Infinity"};
	static const uint16_t sign[] = {0, SIGN_NAN, SIGN_PLUS_INFINITY, SIGN_MINUS_INFINITY};

	if (d->kind != DECIMAL_FINITE) {
		if (format == FORMAT_TEXT)
			wbuf_span(w, span_str(text[d->kind]));
		else
			write_head(w, 0, 0, sign[d->kind], d->kind == DECIMAL_NAN ? 0 : INFINITY_SCALE);
		return;
	}
	if (format == FORMAT_TEXT) {
		write_text(w, d);
		return;
	}
	write_head(w, d->n, d->weight, d->negative ? SIGN_NEGATIVE : SIGN_POSITIVE, d->scale);
	for (int i = 0; i < d->n; i++)
		wbuf_u16(w, d->digits[i]);
}

/* ---- decimals: arithmetic ---- */

static int
compare_magnitude(const struct decimal *a, const struct decimal *b)
{
	int n = a->n > b->n ? a->n : b->n;

	if (a->n == 0 || b->n == 0)
		return (a->n > 0) - (b->n > 0);
	if (a->weight != b->weight)
		return a->weight < b->weight ? -1 : 1;
	for (int i = 0; i < n; i++) {
		int x = i < a->n ? a->digits[i] : 0, y = i < b->n ? b->digits[i] : 0;

		if (x != y)
			return x < y ? -1 : 1;
	}
	return 0;
}

/* -inf < finite < +inf < NaN, as PostgreSQL sorts them. */
static int
rank(const struct decimal *d)
{
	static const int ranks[] = {1, 3, 2, 0};

	return ranks[d->kind];
}

int
decimal_compare(const struct decimal *a, const struct decimal *b)
{
	if (rank(a) != rank(b) || a->kind != DECIMAL_FINITE)
		return (rank(a) > rank(b)) - (rank(a) < rank(b));
	if (a->negative != b->negative)
		return a->negative ? -1 : 1;
	return a->negative ? compare_magnitude(b, a) : compare_magnitude(a, b);
}

static void
add_special(struct decimal *a, const struct decimal *b)
{
	if (a->kind == DECIMAL_FINITE)
		set_special(a, b->kind);
	else if (b->kind != DECIMAL_FINITE && b->kind != a->kind)
		set_special(a, DECIMAL_NAN); /* a NaN on either side, or infinities of both signs */
}

bool
decimal_add(struct decimal *a, const struct decimal *b)
{
	struct decimal sum = {0};
	const struct decimal *big = a, *small = b;
	int low, carry = 0, sign;

	if (a->kind != DECIMAL_FINITE || b->kind != DECIMAL_FINITE) {
		add_special(a, b);
		return true;
	}
	if (a->scale < b->scale)
		a->scale = b->scale;
	if (b->n == 0)
		return true;
	if (compare_magnitude(a, b) < 0) {
		big = b;
		small = a;
	}
	sign = a->negative == b->negative ? 1 : -1;
	low = big->weight - big->n + 1; /* the power of the last digit */
	if (small->n && small->weight - small->n + 1 < low)
		low = small->weight - small->n + 1;
	sum.weight = big->weight + 1;
	sum.scale = a->scale;
	sum.negative = big->negative;
	set_size(&sum, sum.weight - low + 1);
	for (int power = low; power <= sum.weight; power++) {
		int v = (int)digit_at(big, power) + sign * (int)digit_at(small, power) + carry;

		carry = v < 0 ? -1 : v >= BASE;
		sum.digits[sum.weight - power] = (uint16_t)(v - carry * BASE);
	}
	strip(&sum);
	free(a->digits);
	*a = sum;
	return a->weight <= MAX_WEIGHT;
}
