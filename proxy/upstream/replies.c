/* SPDX-License-Identifier: BSD-2-Clause */
/* replies - see pgspan/replies.h.
 *
 *   push:   P B E S          ring: PARSE BIND EXECUTE SYNC
 *   match:  1 2 D D C Z            ▲ head moves on at 1, 2, C, Z
 *
 * An ErrorResponse ends everything up to, not including, the next SYNC: a Query in between is ignored by the server
 * too. Entries pushed later, while the server still skips, end when they reach the head, before the next SYNC's ReadyForQuery. */
#include "pgspan/replies.h"

#define FIRST_CAP 16

void
replies_init(struct replies *r)
{
	memset(r, 0, sizeof *r);
}

void
replies_fini(struct replies *r)
{
	free(r->ring);
	replies_init(r);
}

static struct reply *
at(const struct replies *r, uint32_t i)
{
	return &r->ring[(r->head + i) & (r->cap - 1)];
}

void
replies_push(struct replies *r, enum reply_kind kind, enum reply_action action, void *ref)
{
	if (r->n == r->cap) {
		uint32_t cap = r->cap ? r->cap * 2 : FIRST_CAP;
		struct reply *ring = xmalloc(cap * sizeof *ring);
		for (uint32_t i = 0; i < r->n; i++)
			ring[i] = *at(r, i);
		free(r->ring);
		r->ring = ring;
		r->cap = cap;
		r->head = 0;
	}
	r->n++;
	*at(r, r->n - 1) = (struct reply){kind, action, ref};
}

const struct reply *
replies_head(const struct replies *r)
{
	return r->n ? at(r, 0) : NULL;
}

void
replies_pop(struct replies *r)
{
	assert(r->n > 0);
	r->head = (r->head + 1) & (r->cap - 1);
	r->n--;
}

static void
end_head(struct replies *r, enum reply_end end, reply_ended_fn ended, void *arg)
{
	struct reply e = *at(r, 0);
	replies_pop(r);
	ended(arg, &e, end);
}

/* The first *n* were ignored: told from the last to the first, so that what each has changed can be undone. */
static void
ignore(struct replies *r, uint32_t n, reply_ended_fn ended, void *arg)
{
	for (uint32_t i = n; i-- > 0;) {
		struct reply e = *at(r, i);
		ended(arg, &e, REPLY_IGNORED);
	}
	while (n-- > 0)
		replies_pop(r);
}

static uint32_t
before_sync(const struct replies *r)
{
	uint32_t n = 0;
	while (n < r->n && at(r, n)->kind != REPLY_SYNC)
		n++;
	return n;
}

void
replies_end_all(struct replies *r, reply_ended_fn ended, void *arg)
{
	ignore(r, r->n, ended, arg);
}

/* Whether *type* may come while *kind* is the head, and if so whether it ends it. */
enum { NOT_HERE, PART, LAST };

static int
place_of(enum reply_kind kind, char type)
{
	switch (kind) {
	case REPLY_PARSE:
		return type == '1' ? LAST : NOT_HERE;
	case REPLY_BIND:
		return type == '2' ? LAST : NOT_HERE;
	case REPLY_CLOSE:
		return type == '3' ? LAST : NOT_HERE;
	case REPLY_DESCRIBE_STATEMENT:
		if (type == 't')
			return PART;
		return type == 'T' || type == 'n' ? LAST : NOT_HERE;
	case REPLY_DESCRIBE_PORTAL:
		return type == 'T' || type == 'n' ? LAST : NOT_HERE;
	case REPLY_EXECUTE:
		if (type == 'C' || type == 'I' || type == 's')
			return LAST;
		return strchr("DGHWdc", type) ? PART : NOT_HERE;
	case REPLY_QUERY:
		if (type == 'Z')
			return LAST;
		return strchr("TDCIGHWdc", type) ? PART : NOT_HERE;
	case REPLY_FUNCTION:
		if (type == 'Z')
			return LAST;
		return type == 'V' ? PART : NOT_HERE;
	case REPLY_SYNC:
		return type == 'Z' ? LAST : NOT_HERE;
	}
	return NOT_HERE;
}

static enum reply_verdict
match_error(struct replies *r, reply_ended_fn ended, void *arg)
{
	const struct reply *h = replies_head(r);
	if (!h)
		return VERDICT_ASYNC; /* FATAL out of the blue: the server is going away */
	enum reply_verdict v = h->action == REPLY_SKIP ? VERDICT_SKIP : VERDICT_FORWARD;
	/* At Sync a deferred constraint or the commit itself may fail: ReadyForQuery follows. The same for Query and function. */
	if (h->kind == REPLY_SYNC || h->kind == REPLY_QUERY || h->kind == REPLY_FUNCTION)
		return v;
	struct reply failed = *h;
	replies_pop(r);
	ignore(r, before_sync(r), ended, arg);
	ended(arg, &failed, REPLY_FAILED);
	r->skipping = r->n == 0;
	return v;
}

enum reply_verdict
replies_match(struct replies *r, char type, reply_ended_fn ended, void *arg)
{
	if (r->skipping) {
		ignore(r, before_sync(r), ended, arg);
		if (r->n > 0)
			r->skipping = false;
	}
	const struct reply *h = replies_head(r);
	if (type == 'S' || type == 'A')
		return VERDICT_ASYNC;
	if (type == 'N')
		return h && h->action == REPLY_SKIP ? VERDICT_SKIP : VERDICT_ASYNC;
	if (type == 'E')
		return match_error(r, ended, arg);
	if (!h || h->action == REPLY_FAKE)
		return VERDICT_BROKEN;
	int place = place_of(h->kind, type);
	if (place == NOT_HERE)
		return VERDICT_BROKEN;
	enum reply_verdict v = h->action == REPLY_SKIP ? VERDICT_SKIP : VERDICT_FORWARD;
	if (place == LAST)
		end_head(r, REPLY_DONE, ended, arg);
	return v;
}

void
replies_copy_in(struct replies *r)
{
	if (r->n == 0 || at(r, 0)->kind != REPLY_EXECUTE)
		return;
	while (r->n > 1 && at(r, 1)->kind == REPLY_SYNC) {
		*at(r, 1) = *at(r, 0);
		replies_pop(r);
	}
}
