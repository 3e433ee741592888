/* SPDX-License-Identifier: BSD-2-Clause */
/* merge_value - the values that merge computes with: integers and exact decimals, in both wire formats.
 *
 * A decimal is PostgreSQL's numeric as its binary format has it (numeric.c, numeric_send): digits of base 10000, the
 * first of which counts 10000^weight, a sign, and the number of decimal places that are shown.
 * Every function that reads takes bytes from a server and answers false for what is no such value.
 * Thread: any, each object one at a time. */
#ifndef PGSPAN_MERGE_VALUE_H
#define PGSPAN_MERGE_VALUE_H

#include "pgspan/span.h"
#include "pgspan/wire.h"

enum wire_format { FORMAT_TEXT = 0, FORMAT_BINARY = 1 };

/* An int2, int4, int8, or (*is_unsigned*) oid. */
bool int_read(struct span bytes, enum wire_format format, bool is_unsigned, int64_t *out) WARN_UNUSED;
/* Appends the value without a length; *n_bytes* is 2, 4 or 8, for the binary format. */
void int_write(struct wbuf *w, int64_t v, enum wire_format format, int n_bytes);

/* memcmp, the shorter of two that agree being less: the order of a text under collation C. */
int bytes_compare(struct span a, struct span b);

enum decimal_kind { DECIMAL_FINITE, DECIMAL_NAN, DECIMAL_PLUS_INFINITY, DECIMAL_MINUS_INFINITY };

/* {0} is zero with scale 0. The first and the last digit are not 0; zero has no digits and is not negative. */
struct decimal {
	enum decimal_kind kind;
	bool negative;
	int weight;       /* power of 10000 of the first digit */
	int scale;        /* decimal places shown */
	int n, cap;
	uint16_t *digits; /* 0 … 9999 each */
};

void decimal_fini(struct decimal *d);
/* *d* may hold a value, whose memory is used again. After false its value is unspecified. */
bool decimal_read(struct decimal *d, struct span bytes, enum wire_format format) WARN_UNUSED;
void decimal_write(struct wbuf *w, const struct decimal *d, enum wire_format format);
/* a += b, exactly; the scale becomes the larger of the two, NaN and the infinities go as in numeric_add().
 * False when the result is beyond what numeric can hold (22003). */
bool decimal_add(struct decimal *a, const struct decimal *b) WARN_UNUSED;
/* Negative, 0, positive. NaN equals itself and is above all else; scales do not matter. */
int decimal_compare(const struct decimal *a, const struct decimal *b);

#endif
