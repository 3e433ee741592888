/* SPDX-License-Identifier: BSD-2-Clause */
/* decimal - a PostgreSQL numeric, kept as far as an integer key needs it: whole part and what is behind the point. */
#ifndef SHARDMAP_DECIMAL_H
#define SHARDMAP_DECIMAL_H

#include "pgspan/span.h"

struct decimal {
	bool negative;
	bool overflow;    /* the whole part is 2^64 or more, or infinite, or the value is NaN: it is no integer of ours */
	bool fraction;    /* something other than zeros stands behind the point */
	bool half;        /* … and it is 0.5 or more */
	bool plain;       /* written as digits only: an integer constant to the SQL parser */
	uint64_t whole;   /* magnitude */
};

enum decimal_result {
	DECIMAL_OK,
	DECIMAL_BAD,     /* no server accepts it */
	DECIMAL_UNKNOWN, /* some may, or its size is beyond what is read here */
};

/* digits [. digits] [e [sign] digits]: what the SQL scanner takes for a number, without sign and blanks. */
enum decimal_result decimal_from_literal(struct span s, struct decimal *out) WARN_UNUSED;

/* What numeric_in() reads. */
enum decimal_result decimal_from_text(struct span s, struct decimal *out) WARN_UNUSED;

/* What numeric_send() writes. */
enum decimal_result decimal_from_binary(struct span s, struct decimal *out) WARN_UNUSED;

/* The integer that equals the value, or (round) the nearest, halves away from zero. False: there is none in an int8. */
bool decimal_to_int8(const struct decimal *d, bool round, int64_t *out) WARN_UNUSED;

#endif
