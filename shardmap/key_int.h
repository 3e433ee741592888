/* SPDX-License-Identifier: BSD-2-Clause */
/* key_int - what the key's source files share. */
#ifndef SHARDMAP_KEY_INT_H
#define SHARDMAP_KEY_INT_H

#include "shardmap.h"

enum {
	OID_BOOL = 16,
	OID_BYTEA = 17,
	OID_NAME = 19,
	OID_INT8 = 20,
	OID_INT2 = 21,
	OID_INT4 = 23,
	OID_TEXT = 25,
	OID_FLOAT4 = 700,
	OID_FLOAT8 = 701,
	OID_UNKNOWN = 705,
	OID_BPCHAR = 1042,
	OID_VARCHAR = 1043,
	OID_DATE = 1082,
	OID_NUMERIC = 1700,
	OID_UUID = 2950,
};

static inline bool
key_is_integer(enum key_type t)
{
	return t == KEY_INT2 || t == KEY_INT4 || t == KEY_INT8;
}

static inline bool
key_is_string(enum key_type t)
{
	return t == KEY_TEXT || t == KEY_VARCHAR || t == KEY_BPCHAR;
}

/* n bytes that belong to the scratch; what it held before is gone. */
unsigned char *key_scratch_room(struct key_scratch *s, size_t n);

/* A value's text by the input function of its own type (key_input.c). */
enum key_result key_input_int(enum key_type type, struct span text, int64_t *out);
enum key_result key_input_bool(struct span text, struct key_scratch *s, struct span *out);
enum key_result key_input_uuid(struct span text, struct key_scratch *s, struct span *out);
enum key_result key_input_bytea(struct span text, struct key_scratch *s, struct span *out);
enum key_result key_input_date(struct span text, struct key_scratch *s, struct span *out);

bool key_int_fits(enum key_type type, int64_t v);

#endif
