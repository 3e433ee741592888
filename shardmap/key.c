/* SPDX-License-Identifier: BSD-2-Clause */
/* key - a key's value, in any of the spellings SQL and the protocol have for it, to canonical bytes.
 *
 * Two questions meet here. What value do the bytes denote? That is for the type they have: an untyped literal has the
 * column's, a cast or a declared parameter its own. And which row does the value meet? That is for the operator
 * (KEY_COMPARE) or the assignment cast (KEY_ASSIGN) that PostgreSQL chooses between the two types; what it chooses
 * was read from pg_operator and EXPLAIN of PostgreSQL 15, and the reasons stand at the places below.
 *
 * All three int types compare as numbers without an error: integer_key = 99999999999 is false, not out of range. The same
 * value as text, '99999999999', takes the column's type and is an error.
 *
 * A type pair that has no operator or cast (bigint = text) is KEY_UNKNOWN rather than KEY_SERVER_DECIDES: a user may
 * have created one. */
#include "key_int.h"

#include "decimal.h"

void
key_scratch_init(struct key_scratch *s)
{
	s->heap = NULL;
	s->heap_cap = 0;
}

void
key_scratch_fini(struct key_scratch *s)
{
	free(s->heap);
	key_scratch_init(s);
}

unsigned char *
key_scratch_room(struct key_scratch *s, size_t n)
{
	if (n <= sizeof s->fixed)
		return s->fixed;
	if (n > s->heap_cap) {
		free(s->heap);
		s->heap = malloc(n);
		if (!s->heap) {
			fprintf(stderr, "shardmap: no memory for a key of %zu bytes\n", n);
			abort();
		}
		s->heap_cap = n;
	}
	return s->heap;
}

/* ---- integers ---- */

static void
store_int8(int64_t v, struct key_scratch *s, struct span *out)
{
	uint64_t u = (uint64_t)v;
	unsigned char *p = key_scratch_room(s, 8);
	for (int i = 0; i < 8; i++)
		p[i] = (unsigned char)(u >> (56 - 8 * i));
	*out = span_of((const char *)p, 8);
}

/* An integer value of any int type meets the key. */
static enum key_result
meet_int(enum key_type type, enum key_mode mode, int64_t v, struct key_scratch *s, struct span *out)
{
	if (key_is_integer(type)) {
		if (!key_int_fits(type, v))
			return mode == KEY_COMPARE ? KEY_NO_ROW : KEY_SERVER_DECIDES;
		store_int8(v, s, out);
		return KEY_OK;
	}
	if (key_is_string(type) && mode == KEY_ASSIGN) {
		/* Every type is assigned to a string by its output function; text = integer is an error. */
		char *p = (char *)key_scratch_room(s, sizeof s->fixed);
		int n = snprintf(p, sizeof s->fixed, "%lld", (long long)v);
		*out = span_of(p, (size_t)n);
		return KEY_OK;
	}
	return KEY_UNKNOWN;
}

/* A numeric value meets the key: compared as numeric, assigned by numeric's cast, which rounds. */
static enum key_result
meet_decimal(enum key_type type, enum key_mode mode, const struct decimal *d, struct key_scratch *s, struct span *out)
{
	if (!key_is_integer(type))
		return KEY_UNKNOWN;
	int64_t v;
	if (!decimal_to_int8(d, mode == KEY_ASSIGN, &v))
		return mode == KEY_COMPARE ? KEY_NO_ROW : KEY_SERVER_DECIDES;
	return meet_int(type, mode, v, s, out);
}

static enum key_result
decimal_failure(enum decimal_result r)
{
	return r == DECIMAL_BAD ? KEY_SERVER_DECIDES : KEY_UNKNOWN;
}

/* ---- strings ---- */

static struct span
cut_blanks(struct span s)
{
	while (s.n && s.p[s.n - 1] == ' ')
		s.n--;
	return s;
}

/* A value of string type *oid* meets a string key.
 *
 *                  key text             key varchar                            key char(n)
 *   text, varchar  as it stands         as it stands                           = text compares as text, = varchar and IN as char
 *   char(n)        cast to text: cut    = compares as char: many spellings     cut
 *   name           as it stands         as it stands                           compares as text
 *
 * Assignment to varchar(n) cuts blanks past the n characters, which only the table knows. */
static enum key_result
meet_string(enum key_type type, enum key_mode mode, uint32_t oid, struct span text, struct span *out)
{
	if (text.n && memchr(text.p, '\0', text.n))
		return KEY_SERVER_DECIDES; /* 22021 in every encoding */
	if (oid == OID_NAME && text.n > 63)
		return KEY_UNKNOWN; /* cut by characters, or an error */
	struct span cut = cut_blanks(text);
	bool had_blanks = cut.n != text.n;
	switch (type) {
	case KEY_TEXT:
		*out = oid == OID_BPCHAR ? cut : text;
		return KEY_OK;
	case KEY_VARCHAR:
		if (mode == KEY_COMPARE ? oid == OID_BPCHAR : had_blanks && oid != OID_BPCHAR)
			return KEY_UNKNOWN;
		*out = oid == OID_BPCHAR ? cut : text;
		return KEY_OK;
	case KEY_BPCHAR:
		if (mode == KEY_COMPARE && oid != OID_BPCHAR && had_blanks)
			return KEY_UNKNOWN;
		*out = cut;
		return KEY_OK;
	default:
		return KEY_UNKNOWN;
	}
}

static bool
is_string_oid(uint32_t oid)
{
	return oid == OID_TEXT || oid == OID_VARCHAR || oid == OID_BPCHAR || oid == OID_NAME;
}

static bool
is_integer_oid(uint32_t oid)
{
	return oid == OID_INT2 || oid == OID_INT4 || oid == OID_INT8;
}

static uint32_t
oid_of(enum key_type type)
{
	static const uint32_t oids[] = {
		[KEY_INT2] = OID_INT2,       [KEY_INT4] = OID_INT4,     [KEY_INT8] = OID_INT8, [KEY_TEXT] = OID_TEXT,
		[KEY_VARCHAR] = OID_VARCHAR, [KEY_BPCHAR] = OID_BPCHAR, [KEY_UUID] = OID_UUID, [KEY_BYTEA] = OID_BYTEA,
		[KEY_BOOL] = OID_BOOL,       [KEY_DATE] = OID_DATE,
	};
	return oids[type];
}

static enum key_type
int_type_of(uint32_t oid)
{
	return oid == OID_INT2 ? KEY_INT2 : oid == OID_INT4 ? KEY_INT4 : KEY_INT8;
}

/* ---- the faces ---- */

enum key_result
key_from_numeric_literal(enum key_type type, enum key_mode mode, struct span number, bool negate, uint32_t cast_oid,
                         struct key_scratch *s, struct span *out)
{
	*out = SPAN_NONE;
	struct decimal d;
	if (decimal_from_literal(number, &d) != DECIMAL_OK)
		return KEY_UNKNOWN;
	d.negative = negate;
	int64_t v;
	if (cast_oid == 0) {
		/* Digits alone are an integer constant while they fit, numeric past that; to an integer key both are numbers. */
		if (d.plain && decimal_to_int8(&d, false, &v))
			return meet_int(type, mode, v, s, out);
		return meet_decimal(type, mode, &d, s, out);
	}
	if (cast_oid == OID_NUMERIC)
		return meet_decimal(type, mode, &d, s, out);
	if (is_integer_oid(cast_oid)) {
		if (!decimal_to_int8(&d, true, &v) || !key_int_fits(int_type_of(cast_oid), v))
			return KEY_SERVER_DECIDES;
		return meet_int(type, mode, v, s, out);
	}
	if (is_string_oid(cast_oid) && key_is_string(type) && d.plain && decimal_to_int8(&d, false, &v)) {
		struct span digits;
		enum key_result r = meet_int(KEY_TEXT, KEY_ASSIGN, v, s, &digits);
		return r == KEY_OK ? meet_string(type, mode, cast_oid, digits, out) : r;
	}
	return KEY_UNKNOWN;
}

enum key_result
key_from_text_as(enum key_type type, enum key_mode mode, uint32_t oid, struct span text, struct key_scratch *s, struct span *out)
{
	*out = SPAN_NONE;
	if (oid == 0 || oid == OID_UNKNOWN)
		oid = oid_of(type);
	if (is_integer_oid(oid)) {
		int64_t v;
		enum key_result r = key_input_int(int_type_of(oid), text, &v);
		return r == KEY_OK ? meet_int(type, mode, v, s, out) : r;
	}
	if (is_string_oid(oid))
		return key_is_string(type) ? meet_string(type, mode, oid, text, out) : KEY_UNKNOWN;
	if (oid == OID_NUMERIC) {
		struct decimal d;
		enum decimal_result r = decimal_from_text(text, &d);
		return r == DECIMAL_OK ? meet_decimal(type, mode, &d, s, out) : decimal_failure(r);
	}
	if (oid != oid_of(type))
		return KEY_UNKNOWN;
	if (text.n && memchr(text.p, '\0', text.n))
		return KEY_SERVER_DECIDES;
	switch (type) {
	case KEY_UUID:
		return key_input_uuid(text, s, out);
	case KEY_BYTEA:
		return key_input_bytea(text, s, out);
	case KEY_BOOL:
		return key_input_bool(text, s, out);
	case KEY_DATE:
		return key_input_date(text, s, out);
	default:
		return KEY_UNKNOWN;
	}
}

enum key_result
key_from_text(enum key_type type, enum key_mode mode, struct span text, struct key_scratch *s, struct span *out)
{
	return key_from_text_as(type, mode, 0, text, s, out);
}

/* int2recv, int4recv, int8recv. */
static bool
read_be_int(struct span b, size_t width, int64_t *out)
{
	if (b.n != width)
		return false;
	uint64_t v = (unsigned char)b.p[0] & 0x80 ? UINT64_MAX : 0;
	for (size_t i = 0; i < width; i++)
		v = v << 8 | (unsigned char)b.p[i];
	*out = (int64_t)v;
	return true;
}

/* Types whose binary form is the canonical bytes, of a fixed length. */
static enum key_result
take_fixed(struct span bytes, size_t length, struct span *out)
{
	if (bytes.n != length)
		return KEY_SERVER_DECIDES; /* 08P01 or 22P03 */
	*out = bytes;
	return KEY_OK;
}

enum key_result
key_from_binary(enum key_type type, enum key_mode mode, uint32_t oid, struct span bytes, struct key_scratch *s, struct span *out)
{
	*out = SPAN_NONE;
	if (oid == 0 || oid == OID_UNKNOWN)
		oid = oid_of(type);
	if (is_integer_oid(oid)) {
		int64_t v;
		if (!read_be_int(bytes, oid == OID_INT2 ? 2 : oid == OID_INT4 ? 4 : 8, &v))
			return KEY_SERVER_DECIDES;
		return meet_int(type, mode, v, s, out);
	}
	if (is_string_oid(oid))
		return key_is_string(type) ? meet_string(type, mode, oid, bytes, out) : KEY_UNKNOWN;
	if (oid == OID_NUMERIC) {
		struct decimal d;
		enum decimal_result r = decimal_from_binary(bytes, &d);
		return r == DECIMAL_OK ? meet_decimal(type, mode, &d, s, out) : decimal_failure(r);
	}
	if (oid != oid_of(type))
		return KEY_UNKNOWN;
	switch (type) {
	case KEY_UUID:
		return take_fixed(bytes, 16, out);
	case KEY_DATE:
		return take_fixed(bytes, 4, out);
	case KEY_BYTEA:
		*out = bytes;
		return KEY_OK;
	case KEY_BOOL: { /* boolrecv: any byte but 0 is true */
		if (bytes.n != 1)
			return KEY_SERVER_DECIDES;
		unsigned char *p = key_scratch_room(s, 1);
		p[0] = bytes.p[0] != 0;
		*out = span_of((const char *)p, 1);
		return KEY_OK;
	}
	default:
		return KEY_UNKNOWN;
	}
}

size_t
key_join(const struct span *columns, int n_columns, unsigned char *out, size_t cap)
{
	size_t length = 0;
	for (int i = 0; i < n_columns; i++)
		length += 4 + columns[i].n;
	if (length > cap)
		return length;
	for (int i = 0; i < n_columns; i++) {
		uint32_t n = (uint32_t)columns[i].n;
		for (int k = 0; k < 4; k++)
			*out++ = (unsigned char)(n >> (24 - 8 * k));
		if (n)
			memcpy(out, columns[i].p, n);
		out += n;
	}
	return length;
}
