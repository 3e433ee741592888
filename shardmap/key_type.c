/* SPDX-License-Identifier: BSD-2-Clause */
/* key_type - which types may be a shard key, by OID and by name, and why the others may not. The OIDs of
 * built-in types are fixed in PostgreSQL's pg_type.dat. */
#include "key_int.h"
#include "text.h"

static const struct {
	uint32_t oid;
	enum key_type type;
	const char *name; /* as format_type() writes it */
} types[] = {
	{OID_INT2, KEY_INT2, "smallint"},
	{OID_INT4, KEY_INT4, "integer"},
	{OID_INT8, KEY_INT8, "bigint"},
	{OID_TEXT, KEY_TEXT, "text"},
	{OID_VARCHAR, KEY_VARCHAR, "character varying"},
	{OID_BPCHAR, KEY_BPCHAR, "character"},
	{OID_UUID, KEY_UUID, "uuid"},
	{OID_BYTEA, KEY_BYTEA, "bytea"},
	{OID_BOOL, KEY_BOOL, "boolean"},
	{OID_DATE, KEY_DATE, "date"},
};

static const struct {
	const char *name;
	enum key_type type;
} aliases[] = {
	{"int2", KEY_INT2},       {"smallserial", KEY_INT2}, {"int", KEY_INT4},       {"int4", KEY_INT4},
	{"serial", KEY_INT4},     {"int8", KEY_INT8},        {"bigserial", KEY_INT8}, {"varchar", KEY_VARCHAR},
	{"char", KEY_BPCHAR},     {"bpchar", KEY_BPCHAR},    {"bool", KEY_BOOL},
};

static const struct {
	uint32_t oid;
	const char *reason;
} refusals[] = {
	{OID_NUMERIC, "equal numeric values have many forms (1, 1.0, 1e0); use an integer or text column"},
	{OID_FLOAT4, "floating-point values are inexact; use an integer or text column"},
	{OID_FLOAT8, "floating-point values are inexact; use an integer or text column"},
	{790, "money values depend on lc_monetary; use an integer column"},
	{1083, "a time of day is no identity of a row; use an integer, uuid or text column"},
	{1266, "a time of day is no identity of a row; use an integer, uuid or text column"},
	{1114, "the text form of a timestamp depends on DateStyle; use a date, integer or text column"},
	{1184, "the text form of a timestamp depends on DateStyle and TimeZone; use a date, integer or text column"},
	{1186, "equal intervals have many forms (1 day, 24 hours); use an integer column"},
	{114, "json has no equality"},
	{3802, "equal jsonb values have many text forms; use a column of the value's own type"},
	{142, "xml has no equality"},
	{18, "\"char\" is an internal type; use text"},
	{OID_NAME, "name is an internal type that is cut at 63 bytes; use text"},
	{26, "oid is an internal type; use bigint"},
	{650, "network addresses have many text forms; use text"},
	{869, "network addresses have many text forms; use text"},
	{829, "MAC addresses have many text forms; use text"},
	{774, "MAC addresses have many text forms; use text"},
	{1560, "bit strings are not supported as keys; use bytea or bigint"},
	{1562, "bit strings are not supported as keys; use bytea or bigint"},
	{3220, "pg_lsn is not supported as a key; use bigint"},
	{3614, "tsvector is no identity of a row"},
	{3615, "tsquery is no identity of a row"},
	/* arrays of the types above that people use */
	{1000, "arrays are not supported as keys"},
	{1001, "arrays are not supported as keys"},
	{1005, "arrays are not supported as keys"},
	{1007, "arrays are not supported as keys"},
	{1009, "arrays are not supported as keys"},
	{1014, "arrays are not supported as keys"},
	{1015, "arrays are not supported as keys"},
	{1016, "arrays are not supported as keys"},
	{1021, "arrays are not supported as keys"},
	{1022, "arrays are not supported as keys"},
	{1115, "arrays are not supported as keys"},
	{1182, "arrays are not supported as keys"},
	{1185, "arrays are not supported as keys"},
	{1231, "arrays are not supported as keys"},
	{2951, "arrays are not supported as keys"},
	{199, "arrays are not supported as keys"},
	{3807, "arrays are not supported as keys"},
};

bool
key_type_from_oid(uint32_t oid, enum key_type *out)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (types[i].oid == oid) {
			*out = types[i].type;
			return true;
		}
	return false;
}

const char *
key_type_refusal(uint32_t oid)
{
	enum key_type ignored;
	if (key_type_from_oid(oid, &ignored))
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(refusals); i++)
		if (refusals[i].oid == oid)
			return refusals[i].reason;
	return "only smallint, integer, bigint, text, varchar, char(n), uuid, bytea, boolean and date columns can be keys";
}

bool
key_type_from_name(const char *name, enum key_type *out)
{
	struct span s = text_trim(span_str(name));
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (text_eq_nocase(s, types[i].name)) {
			*out = types[i].type;
			return true;
		}
	for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
		if (text_eq_nocase(s, aliases[i].name)) {
			*out = aliases[i].type;
			return true;
		}
	return false;
}

const char *
key_type_name(enum key_type type)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (types[i].type == type)
			return types[i].name;
	return "?";
}

bool
key_types_colocated(enum key_type a, enum key_type b)
{
	if (key_is_integer(a))
		return key_is_integer(b);
	if (a == b)
		return true;
	/* varchar = char(n) compares as char(n): 'x ' of the varchar equals 'x', and has another bucket. With text, char(n)
	 * compares as text, its blanks cut, as its canonical bytes are. */
	return (a == KEY_TEXT && (b == KEY_VARCHAR || b == KEY_BPCHAR)) ||
	       (b == KEY_TEXT && (a == KEY_VARCHAR || a == KEY_BPCHAR));
}
