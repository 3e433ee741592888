/* SPDX-License-Identifier: BSD-2-Clause */
/* wire - framing of protocol 3 messages: where a message ends, a reader for its body that cannot
 * overrun, and a buffer to write messages into (PostgreSQL docs 55.1, 55.6).
 *
 *   +------+----------------+--------------------+
 *   | type | length (u32)   | body               |     length counts itself and the body, not the type
 *   +------+----------------+--------------------+
 *
 * Pure: no I/O, no state but the caller's.  Thread: any, each object one at a time. */
#ifndef PGSPAN_WIRE_H
#define PGSPAN_WIRE_H

#include "pgspan/span.h"

#define WIRE_HEAD_BYTES 5 /* type and length */

enum wire_result {
	WIRE_OK = 1,
	WIRE_NEED_MORE = 0,
	WIRE_BAD_LENGTH = -1, /* below 4, or a body over the limit: framing is lost, the connection must close */
};

/* What the first five bytes of a message tell. */
struct wire_head {
	char type;
	uint64_t total; /* bytes of the whole message, type byte included: what to skip to reach the next */
};

/* A whole message, borrowed from whoever holds its bytes. */
struct wire_msg {
	char type;
	uint32_t len; /* bytes of the body */
	const unsigned char *body;
};

static inline uint16_t
wire_load_u16(const unsigned char *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t
wire_load_u32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void
wire_store_u32(void *to, uint32_t v)
{
	unsigned char *p = to;

	p[0] = (unsigned char)(v >> 24);
	p[1] = (unsigned char)(v >> 16);
	p[2] = (unsigned char)(v >> 8);
	p[3] = (unsigned char)v;
}

/* Reads a header from the *n* bytes at *buf*; *h* is set on WIRE_OK only. The body need not be there. */
static inline enum wire_result
wire_peek(const void *buf, size_t n, uint32_t max_body, struct wire_head *h)
{
	const unsigned char *p = buf;
	uint32_t len;

	if (n < WIRE_HEAD_BYTES)
		return WIRE_NEED_MORE;
	len = wire_load_u32(p + 1);
	if (UNLIKELY(len < 4 || len - 4 > max_body))
		return WIRE_BAD_LENGTH;
	h->type = (char)p[0];
	h->total = (uint64_t)len + 1;
	return WIRE_OK;
}

/* wire_peek for a message that is wanted whole: WIRE_OK once all *n* >= total bytes are there. *m* then
 * borrows from *buf*, and m->len + WIRE_HEAD_BYTES are used up. */
enum wire_result wire_take(const void *buf, size_t n, uint32_t max_body, struct wire_msg *m) WARN_UNUSED;

/* A reader over a body. A read past the end yields zero or SPAN_NONE and sets *bad*, which stays set: read
 * everything, then ask rd_done() once. */
struct rd {
	const unsigned char *p, *end;
	bool bad;
};

static inline struct rd
rd_of(const void *p, size_t n)
{
	return (struct rd){p, n ? (const unsigned char *)p + n : p, false};
}

static inline struct rd
rd_msg(const struct wire_msg *m)
{
	return rd_of(m->body, m->len);
}

static inline size_t
rd_left(const struct rd *r)
{
	return (size_t)(r->end - r->p);
}

/* Whether all was well-formed and nothing is left over. */
static inline bool
rd_done(const struct rd *r)
{
	return !r->bad && r->p == r->end;
}

/* The next *n* bytes, or NULL with *bad* set; after a failure no later read succeeds. */
static inline const unsigned char *
rd_take(struct rd *r, size_t n)
{
	const unsigned char *p = r->p;

	if (UNLIKELY(r->bad || rd_left(r) < n)) {
		r->bad = true;
		return NULL;
	}
	if (n)
		r->p += n;
	return p;
}

static inline uint8_t
rd_u8(struct rd *r)
{
	const unsigned char *p = rd_take(r, 1);

	return p ? *p : 0;
}

static inline uint16_t
rd_u16(struct rd *r)
{
	const unsigned char *p = rd_take(r, 2);

	return p ? wire_load_u16(p) : 0;
}

static inline uint32_t
rd_u32(struct rd *r)
{
	const unsigned char *p = rd_take(r, 4);

	return p ? wire_load_u32(p) : 0;
}

static inline int32_t
rd_i32(struct rd *r)
{
	return (int32_t)rd_u32(r);
}

/* A NUL-terminated string; the span excludes its NUL, which is there to be relied on (span.p[span.n] == 0). */
static inline struct span
rd_cstr(struct rd *r)
{
	const unsigned char *nul = !r->bad && r->p != r->end ? memchr(r->p, 0, rd_left(r)) : NULL;
	struct span s;

	if (UNLIKELY(!nul)) {
		r->bad = true;
		return SPAN_NONE;
	}
	s = span_of((const char *)r->p, (size_t)(nul - r->p));
	r->p = nul + 1;
	return s;
}

static inline struct span
rd_bytes(struct rd *r, size_t n)
{
	const unsigned char *p = rd_take(r, n);

	return p ? span_of((const char *)p, n) : SPAN_NONE;
}

/* Everything that is left. */
static inline struct span
rd_rest(struct rd *r)
{
	return rd_bytes(r, rd_left(r));
}

/* A buffer that grows, messages written one behind another. {0} is an empty one; memory comes with the first
 * byte and is kept by wbuf_clear().  Owner: whoever declared it, who calls wbuf_fini(). */
struct wbuf {
	char *p;
	size_t n, cap;
	size_t msg; /* where the length word of the message being written stands */
};

/* Opens a message of *type*, 0 for those without a type byte (StartupMessage and its kin). One at a time. */
void wbuf_begin(struct wbuf *w, char type);
/* Closes it: patches its length. A message of 2 GiB or more is a bug of the caller: bound what you write. */
void wbuf_end(struct wbuf *w);
/* wbuf_end for a message whose last *more* bytes do not pass through this buffer. */
void wbuf_end_before(struct wbuf *w, size_t more);

void wbuf_u8(struct wbuf *w, uint8_t v);
void wbuf_u16(struct wbuf *w, uint16_t v);
void wbuf_u32(struct wbuf *w, uint32_t v);
void wbuf_bytes(struct wbuf *w, const void *p, size_t n);
void wbuf_span(struct wbuf *w, struct span s);
/* The bytes and a NUL. A NUL inside would end the string early for the reader: *s* must have none. */
void wbuf_cstr(struct wbuf *w, const char *s);
void wbuf_cspan(struct wbuf *w, struct span s);

/* *n* bytes of room behind the contents; the caller fills them and adds to w->n what it used. */
void *wbuf_room(struct wbuf *w, size_t n) __attribute__((returns_nonnull));
void wbuf_clear(struct wbuf *w);
void wbuf_fini(struct wbuf *w);

#endif
