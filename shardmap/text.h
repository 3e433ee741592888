/* SPDX-License-Identifier: BSD-2-Clause */
/* text - the letters, digits and blanks of PostgreSQL's input functions: ASCII's, whatever the locale is. */
#ifndef SHARDMAP_TEXT_H
#define SHARDMAP_TEXT_H

#include "pgspan/span.h"

static inline bool
text_is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline bool
text_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The value of a hexadecimal digit, or 99, which is no digit of any base. */
unsigned text_digit_value(char c);

/* Without the white space at both ends. */
struct span text_trim(struct span s);

bool text_eq_nocase(struct span s, const char *lower);

/* Whether s, which is not empty, is the beginning of *lower*. */
bool text_begins_nocase(struct span s, const char *lower);

#endif
