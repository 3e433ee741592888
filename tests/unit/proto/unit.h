/* SPDX-License-Identifier: BSD-2-Clause */
/* unit - what the tests of proto share. */
#ifndef TESTS_UNIT_PROTO_UNIT_H
#define TESTS_UNIT_PROTO_UNIT_H

/* cmocka wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pgspan/wire.h"

/* Asserts that *w* holds exactly the bytes of a literal, and empties it. */
#define assert_wbuf(w, literal)                                                                            \
	do {                                                                                               \
		assert_int_equal((w)->n, sizeof(literal) - 1);                                             \
		assert_memory_equal((w)->p, literal, sizeof(literal) - 1);                                 \
		wbuf_clear(w);                                                                             \
	} while (0)

#define assert_span(s, literal) assert_true(span_eq_str((s), (literal)))

#endif
