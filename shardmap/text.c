/* SPDX-License-Identifier: BSD-2-Clause */
/* text - see text.h. */
#include "text.h"

unsigned
text_digit_value(char c)
{
	if (text_is_digit(c))
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a') + 10;
	if (c >= 'A' && c <= 'F')
		return (unsigned)(c - 'A') + 10;
	return 99;
}

struct span
text_trim(struct span s)
{
	while (s.n && text_is_space(s.p[0]))
		s = span_of(s.p + 1, s.n - 1);
	while (s.n && text_is_space(s.p[s.n - 1]))
		s.n--;
	return s;
}

bool
text_begins_nocase(struct span s, const char *lower)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		if (lower[i] == '\0' || c != lower[i])
			return false;
	}
	return s.n > 0;
}

bool
text_eq_nocase(struct span s, const char *lower)
{
	return s.n == strlen(lower) && text_begins_nocase(s, lower);
}
