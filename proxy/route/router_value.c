/* SPDX-License-Identifier: BSD-2-Clause */
/* router_value - from where a key value stands (key_source) to its canonical bytes.
 *
 *   key_source ──operand_of()──► operand: bytes, how they are written, and the types they pass through
 *   operand ──fold_operand()──► shardmap's key_from_*()
 *
 * An operand's chain is the list of types between its text and the comparison, innermost first:
 *   '42'::text::int         [text, int4]        a string literal and its casts
 *   $1::int8, declared int4 [int4, int8]        what Parse declared comes first
 *   EXECUTE p('42')         [int4]              PREPARE p(int4): the argument is coerced to it
 * shardmap takes one type. Steps that cannot change the value are dropped (reduce_chain()), and a chain that is still
 * longer is FOLD_UNKNOWN. Errors in dropped steps (42::int8::int2 out of range) are PostgreSQL's to raise: it
 * evaluates the expression whichever shard it gets to. */
#include "pgspan/scan.h"
#include "router_int.h"

enum {
	OID_BOOL = 16, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_TEXT = 25, OID_VARCHAR = 1043, OID_UNKNOWN = 705,
	MAX_CHAIN = 6,
	MAX_ARRAY_DIMS = 6, /* utils/array.h: MAXDIM */
};

enum operand_kind { OPERAND_NULL, OPERAND_NUMBER, OPERAND_TEXT, OPERAND_BINARY, OPERAND_BOOL, OPERAND_UNKNOWN };

struct operand {
	enum operand_kind kind;
	struct span bytes;
	bool negate;  /* NUMBER */
	bool coerced; /* an argument of EXECUTE whose parameter is of the column's own type: assigned, then compared */
	bool utf8;
	int n_chain;
	uint32_t chain[MAX_CHAIN];
};

void
folder_init(struct folder *f, const struct route_values *v)
{
	f->values = v;
	f->heap = NULL;
	f->heap_cap = 0;
	f->saw_typed = false;
	key_scratch_init(&f->scratch);
}

void
folder_fini(struct folder *f)
{
	key_scratch_fini(&f->scratch);
	free(f->heap);
}

static char *
folder_room(struct folder *f, size_t n)
{
	if (n <= sizeof(f->fixed))
		return f->fixed;
	if (n > f->heap_cap) {
		f->heap = xrealloc(f->heap, n);
		f->heap_cap = n;
	}
	return f->heap;
}

/* --- key_source → operand --- */

static void
chain_add(struct operand *o, uint32_t oid)
{
	if (oid == 0 || oid == OID_UNKNOWN || (o->n_chain > 0 && o->chain[o->n_chain - 1] == oid))
		return;
	if (o->n_chain == MAX_CHAIN)
		o->kind = OPERAND_UNKNOWN;
	else
		o->chain[o->n_chain++] = oid;
}

static void
literal_operand(struct folder *f, const struct route_values *v, const struct key_source *s, struct operand *o)
{
	if (v->scan == NULL || s->index >= v->scan->n_literals)
		return;
	const struct scan_literal *lit = &v->scan->literals[s->index];
	bool number = lit->kind == SCAN_LIT_INT || lit->kind == SCAN_LIT_BIGINT || lit->kind == SCAN_LIT_FLOAT;

	if (number) {
		o->kind = OPERAND_NUMBER;
		o->negate = s->negate;
		o->bytes = span_of(v->sql + lit->off, lit->len);
		return;
	}
	char *room = folder_room(f, lit->len);
	ssize_t n = s->negate ? -1 : scan_literal_text(v->sql, lit, v->scan_flags, room, lit->len);

	if (n < 0)
		return;
	o->kind = OPERAND_TEXT;
	o->bytes = span_of(room, (size_t)n);
}

static void operand_of(struct folder *f, const struct route_values *v, const struct key_source *s, struct operand *o);

/* An argument of EXECUTE is an operand of the outer statement that is coerced to the parameter's type. */
static void
exec_operand(struct folder *f, const struct route_values *v, const struct key_source *s, struct operand *o)
{
	uint32_t declared = s->index <= (uint32_t)v->n_exec_types ? v->exec_types[s->index - 1] : 0;

	if (s->index > (uint32_t)v->n_exec_args || v->outer == NULL || v->outer == v || v->outer->exec_args != NULL)
		return;
	operand_of(f, v->outer, &v->exec_args[s->index - 1], o);
	chain_add(o, declared);
	/* Without a declared type the server takes the column's, or the cast's: to round 42.5 by a cast's guessed type is
	 * too bold (numeric rounds half up, float8 half to even). */
	if (declared != 0)
		return;
	if (s->cast_oid == 0)
		o->coerced = true;
	else if (o->kind == OPERAND_NUMBER)
		o->kind = OPERAND_UNKNOWN;
}

static void
param_operand(struct folder *f, const struct route_values *v, const struct key_source *s, struct operand *o)
{
	if (s->index == 0 || s->negate)
		return;
	if (v->exec_args != NULL || v->outer != NULL) {
		exec_operand(f, v, s, o);
		return;
	}
	if (s->index > (uint32_t)v->n_params)
		return;
	const struct route_param *p = &v->params[s->index - 1];

	chain_add(o, p->type_oid);
	if (p->len < 0) {
		o->kind = OPERAND_NULL;
		return;
	}
	if (p->format != 0 && p->format != 1)
		return;
	o->kind = p->format == 1 ? OPERAND_BINARY : OPERAND_TEXT;
	o->bytes = span_of(p->data, (size_t)p->len);
}

static void
operand_of(struct folder *f, const struct route_values *v, const struct key_source *s, struct operand *o)
{
	o->kind = OPERAND_UNKNOWN;
	o->negate = o->coerced = false;
	o->utf8 = v->utf8;
	o->n_chain = 0;
	switch (s->kind) {
	case KEY_SRC_NULL:
		o->kind = OPERAND_NULL;
		break;
	case KEY_SRC_TRUE:
	case KEY_SRC_FALSE:
		o->kind = OPERAND_BOOL;
		o->bytes = s->kind == KEY_SRC_TRUE ? SPAN_LIT("t") : SPAN_LIT("f");
		chain_add(o, OID_BOOL);
		break;
	case KEY_SRC_LITERAL:
	case KEY_SRC_ARRAY_LITERAL:
		literal_operand(f, v, s, o);
		break;
	case KEY_SRC_PARAM:
	case KEY_SRC_ARRAY_PARAM:
		param_operand(f, v, s, o);
		break;
	case KEY_SRC_UNKNOWN:
	case KEY_SRC_DEFAULT:
		break;
	}
	chain_add(o, s->inner_oid);
	chain_add(o, s->cast_oid);
}

/* --- operand → canonical bytes --- */

static bool
is_int(uint32_t oid)
{
	return oid == OID_INT2 || oid == OID_INT4 || oid == OID_INT8;
}

/* The one type that the chain comes down to (0: the column's own); false: more than one. */
static bool
reduce_chain(const struct operand *o, uint32_t *oid)
{
	const uint32_t *c = o->chain;
	int n = o->n_chain;

	/* A text's first step, to text itself, is no step: 'x'::text::T reads 'x' by T's input function, as 'x'::T does. */
	while (n > 1 && o->kind == OPERAND_TEXT && (c[0] == OID_TEXT || c[0] == OID_VARCHAR)) {
		c++;
		n--;
	}
	for (int i = 1; i < n; i++)
		if (!is_int(c[0]) || !is_int(c[i])) /* integers keep their value through each other */
			return false;
	*oid = n > 0 ? c[0] : 0;
	return true;
}

static bool
is_ascii(struct span s)
{
	unsigned char all = 0;

	for (size_t i = 0; i < s.n; i++)
		all |= (unsigned char)s.p[i];
	return all < 0x80;
}

static bool
is_text_key(enum key_type type)
{
	return type == KEY_TEXT || type == KEY_VARCHAR || type == KEY_BPCHAR;
}

static enum fold_result
fold_of_key(enum key_result r)
{
	switch (r) {
	case KEY_OK:
		return FOLD_OK;
	case KEY_NO_ROW:
		return FOLD_NO_ROW;
	case KEY_SERVER_DECIDES:
		return FOLD_SERVER_DECIDES;
	case KEY_UNKNOWN:
		break;
	}
	return FOLD_UNKNOWN;
}

/* *oid*: the value's type, 0: the column's own. */
static enum fold_result
fold_bytes(struct folder *f, const struct operand *o, uint32_t oid, enum key_type type, enum key_mode mode, struct span *out)
{
	if (is_text_key(type) && !o->utf8 && !is_ascii(o->bytes))
		return FOLD_REFUSED;
	switch (o->kind) {
	case OPERAND_NUMBER:
		return fold_of_key(key_from_numeric_literal(type, mode, o->bytes, o->negate, oid, &f->scratch, out));
	case OPERAND_BINARY:
		return fold_of_key(key_from_binary(type, mode, oid, o->bytes, &f->scratch, out));
	case OPERAND_TEXT:
		if (oid == 0)
			return fold_of_key(key_from_text(type, mode, o->bytes, &f->scratch, out));
		return fold_of_key(key_from_text_as(type, mode, oid, o->bytes, &f->scratch, out));
	case OPERAND_BOOL:
		return fold_of_key(key_from_text_as(type, mode, oid, o->bytes, &f->scratch, out));
	case OPERAND_NULL:
		return FOLD_NULL;
	case OPERAND_UNKNOWN:
		break;
	}
	return FOLD_UNKNOWN;
}

enum fold_result
fold_source(struct folder *f, const struct key_source *s, enum key_type type, enum key_mode mode, struct span *out)
{
	struct operand o;
	uint32_t oid;

	operand_of(f, f->values, s, &o);
	f->saw_typed |= o.n_chain > 0 || (o.kind != OPERAND_NULL && o.kind != OPERAND_TEXT);
	if (o.kind == OPERAND_NULL)
		return FOLD_NULL;
	if (o.kind == OPERAND_UNKNOWN || !reduce_chain(&o, &oid))
		return FOLD_UNKNOWN;
	/* An argument without a type of its own is coerced to the column's; one that has (a cast) is rounded the same way. */
	if (o.coerced)
		mode = KEY_ASSIGN;
	return fold_bytes(f, &o, oid, type, mode, out);
}

enum fold_result
fold_field(struct folder *f, struct span field, bool binary, bool utf8, enum key_type type, struct span *out)
{
	struct operand o = {.kind = binary ? OPERAND_BINARY : OPERAND_TEXT, .bytes = field, .utf8 = utf8};

	if (field.p == NULL)
		return FOLD_NULL;
	return fold_bytes(f, &o, 0, type, KEY_ASSIGN, out);
}

/* --- arrays --- */

/* An array type → its elements' type; 0: not an array that a key is compared with. */
static uint32_t
element_type(uint32_t array_oid)
{
	static const uint32_t pairs[][2] = {
	    {1000, OID_BOOL}, {1001, 17}, {1005, OID_INT2}, {1007, OID_INT4}, {1009, OID_TEXT}, {1014, 1042},
	    {1015, OID_VARCHAR}, {1016, OID_INT8}, {1182, 1082}, {1231, 1700}, {2951, 2950},
	};

	for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
		if (pairs[i][0] == array_oid)
			return pairs[i][1];
	return 0;
}

struct array_text {
	const char *p, *end;
	char *room; /* as long as the whole text */
};

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static void
skip_space(struct array_text *t)
{
	while (t->p < t->end && is_space(*t->p))
		t->p++;
}

/* "…" with backslashes; t->p stands behind the opening quote. */
static bool
quoted_element(struct array_text *t, struct span *out)
{
	size_t n = 0;

	for (; t->p < t->end && *t->p != '"'; t->p++) {
		if (*t->p == '\\' && ++t->p == t->end)
			return false;
		t->room[n++] = *t->p;
	}
	if (t->p == t->end)
		return false;
	t->p++;
	*out = span_of(t->room, n);
	return true;
}

/* Up to a comma or brace, without the blanks at its end; an escaped blank is none of these. p NULL: the word NULL. */
static bool
bare_element(struct array_text *t, struct span *out)
{
	size_t n = 0, keep = 0;
	bool escaped = false;

	for (; t->p < t->end && *t->p != ',' && *t->p != '}'; t->p++) {
		bool esc = *t->p == '\\';

		if (*t->p == '"' || *t->p == '{' || (esc && ++t->p == t->end))
			return false;
		escaped |= esc;
		t->room[n++] = *t->p;
		if (esc || !is_space(*t->p))
			keep = n;
	}
	if (keep == 0)
		return false;
	*out = span_of(t->room, keep);
	if (keep == 4 && !escaped && strncasecmp(t->room, "null", 4) == 0)
		*out = SPAN_NONE;
	return true;
}

/* {1,"two",NULL}, documentation section 8.15.6. One dimension without bounds; all else is left to the servers. */
static bool
walk_array_text(struct array_text *t, void (*each)(void *, struct span), void *arg)
{
	skip_space(t);
	if (t->p == t->end || *t->p++ != '{')
		return false;
	skip_space(t);
	for (bool first = true;; first = false) {
		struct span element;

		if (t->p == t->end)
			return false;
		if (first && *t->p == '}')
			break;
		if (!(*t->p == '"' ? (t->p++, quoted_element(t, &element)) : bare_element(t, &element)))
			return false;
		each(arg, element);
		skip_space(t);
		if (t->p == t->end || (*t->p != ',' && *t->p != '}'))
			return false;
		if (*t->p == '}')
			break;
		t->p++;
		skip_space(t);
	}
	t->p++;
	skip_space(t);
	return t->p == t->end;
}

static uint32_t
get_u32(const char *p)
{
	const unsigned char *u = (const unsigned char *)p;

	return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

/*  ndim int32 │ has nulls int32 │ element type int32 │ ndim × (length, lower bound) │ elements: length (-1: NULL), bytes  */
static bool
walk_array_binary(struct span b, uint32_t *element_oid, void (*each)(void *, struct span), void *arg)
{
	if (b.n < 12)
		return false;
	uint32_t ndim = get_u32(b.p);
	uint64_t n = ndim == 0 ? 0 : 1;
	size_t at = 12 + (size_t)ndim * 8;

	*element_oid = get_u32(b.p + 8);
	if (ndim > MAX_ARRAY_DIMS || at > b.n)
		return false;
	for (uint32_t i = 0; i < ndim; i++) {
		n *= get_u32(b.p + 12 + i * 8);
		if (n > b.n) /* each element takes four bytes or more */
			return false;
	}
	for (; n > 0; n--) {
		if (b.n - at < 4)
			return false;
		uint32_t len = get_u32(b.p + at);

		at += 4;
		if (len == UINT32_MAX) {
			each(arg, SPAN_NONE);
			continue;
		}
		if (b.n - at < len)
			return false;
		each(arg, span_of(b.p + at, len));
		at += len;
	}
	return at == b.n;
}

struct element_walk {
	struct folder *f;
	struct operand o;
	uint32_t oid;
	enum key_type type;
	enum key_mode mode;
	fold_each_fn each;
	void *arg;
};

static void
on_element(void *arg, struct span element)
{
	struct element_walk *w = arg;
	struct span out = SPAN_NONE;

	if (element.p == NULL) {
		w->each(w->arg, FOLD_NULL, out);
		return;
	}
	w->o.bytes = element;
	enum fold_result r = fold_bytes(w->f, &w->o, w->oid, w->type, w->mode, &out);

	w->each(w->arg, r, out);
}

enum fold_result
fold_array(struct folder *f, const struct key_source *s, enum key_type type, fold_each_fn each, void *arg)
{
	struct element_walk w = {.f = f, .type = type, .mode = KEY_COMPARE, .each = each, .arg = arg};
	struct operand *o = &w.o;

	operand_of(f, f->values, s, o);
	f->saw_typed |= o->n_chain > 0;
	if (o->kind == OPERAND_NULL)
		return FOLD_NULL;
	if (o->n_chain > 1 || (o->kind != OPERAND_TEXT && o->kind != OPERAND_BINARY))
		return FOLD_UNKNOWN;
	if (o->n_chain == 1 && (w.oid = element_type(o->chain[0])) == 0)
		return FOLD_UNKNOWN;
	if (o->kind == OPERAND_BINARY) {
		struct span whole = o->bytes;
		uint32_t stated = whole.n >= 12 ? get_u32(whole.p + 8) : 0;

		/* array_recv() raises an error when the elements are not of the declared type. */
		if (w.oid != 0 && stated != w.oid)
			return FOLD_UNKNOWN;
		w.oid = stated;
		return walk_array_binary(whole, &stated, on_element, &w) ? FOLD_OK : FOLD_UNKNOWN;
	}
	/* The literal's own text may lie in the folder's room already; elements are unescaped elsewhere. */
	char *room = xmalloc(o->bytes.n + 1);
	struct array_text t = {o->bytes.p, o->bytes.p + o->bytes.n, room};
	bool ok = walk_array_text(&t, on_element, &w);

	free(room);
	return ok ? FOLD_OK : FOLD_UNKNOWN;
}
