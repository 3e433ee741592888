/* SPDX-License-Identifier: BSD-2-Clause */
/* wire - the parts of framing that are not worth inlining: taking whole messages, and the write buffer.
 *
 * The hot path (headers and body reads) lives in pgspan/wire.h. The buffer doubles, starting at a size that
 * holds any of pgspan's own short answers, so that a session's replies settle after one allocation. */
#include "pgspan/wire.h"

#define WBUF_FIRST_BYTES 256

enum wire_result
wire_take(const void *buf, size_t n, uint32_t max_body, struct wire_msg *m)
{
	struct wire_head h;
	enum wire_result r = wire_peek(buf, n, max_body, &h);

	if (r != WIRE_OK)
		return r;
	if (n < h.total)
		return WIRE_NEED_MORE;
	m->type = h.type;
	m->len = (uint32_t)(h.total - WIRE_HEAD_BYTES);
	m->body = (const unsigned char *)buf + WIRE_HEAD_BYTES;
	return WIRE_OK;
}

void *
wbuf_room(struct wbuf *w, size_t n)
{
	size_t cap = w->cap ? w->cap : WBUF_FIRST_BYTES;

	assert(n <= SIZE_MAX / 4 && w->n <= SIZE_MAX / 4);
	while (cap < w->n + n)
		cap *= 2;
	if (cap != w->cap) {
		w->p = xrealloc(w->p, cap);
		w->cap = cap;
	}
	return w->p + w->n;
}

void
wbuf_bytes(struct wbuf *w, const void *p, size_t n)
{
	if (n == 0)
		return;
	memcpy(wbuf_room(w, n), p, n);
	w->n += n;
}

void
wbuf_u8(struct wbuf *w, uint8_t v)
{
	wbuf_bytes(w, &v, 1);
}

void
wbuf_u16(struct wbuf *w, uint16_t v)
{
	unsigned char b[2] = {(unsigned char)(v >> 8), (unsigned char)v};

	wbuf_bytes(w, b, sizeof b);
}

void
wbuf_u32(struct wbuf *w, uint32_t v)
{
	wire_store_u32(wbuf_room(w, 4), v);
	w->n += 4;
}

void
wbuf_span(struct wbuf *w, struct span s)
{
	wbuf_bytes(w, s.p, s.n);
}

void
wbuf_cspan(struct wbuf *w, struct span s)
{
	wbuf_span(w, s);
	wbuf_u8(w, 0);
}

void
wbuf_cstr(struct wbuf *w, const char *s)
{
	wbuf_cspan(w, span_str(s));
}

void
wbuf_begin(struct wbuf *w, char type)
{
	if (type)
		wbuf_u8(w, (uint8_t)type);
	w->msg = w->n;
	wbuf_u32(w, 0);
}

void
wbuf_end_before(struct wbuf *w, size_t more)
{
	size_t here = w->n - w->msg;

	assert(here >= 4 && here <= INT32_MAX && more <= INT32_MAX - here);
	wire_store_u32(w->p + w->msg, (uint32_t)(here + more));
}

void
wbuf_end(struct wbuf *w)
{
	wbuf_end_before(w, 0);
}

void
wbuf_clear(struct wbuf *w)
{
	w->n = 0;
}

void
wbuf_fini(struct wbuf *w)
{
	free(w->p);
	*w = (struct wbuf){0};
}
