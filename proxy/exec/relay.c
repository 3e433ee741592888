/* SPDX-License-Identifier: BSD-2-Clause */
/* relay - see pgspan/relay.h.
 *
 *   rx:  [ run of messages to forward ........ ][ skipped ][ run ... ][ half a message ]
 *         ▲ run                              ▲ at
 *
 * A run is queued by reference when it ends (at a message that is not forwarded, or at the end of what is there), and all
 * runs of one event leave in one system call. */
#include "pgspan/relay.h"

#include "pgspan/log.h"
#include "pgspan/msg.h"

#define WHOLE_MAX (64u << 20) /* of a message that must be seen whole: errors, tags, parameters */

void
relay_init(struct relay *r, struct server *s, struct conn *client, const struct relay_ops *ops)
{
	*r = (struct relay){.server = s, .client = client, .ops = ops};
}

struct cursor {
	struct span rx;
	size_t run, at; /* forwarded from run to at */
	size_t expect;  /* bytes that the message at *at* takes; 0: what there is has been dealt with */
};

static void
end_run(struct relay *r, struct cursor *c)
{
	if (c->at > c->run) {
		conn_send_ref(r->client, span_of(c->rx.p + c->run, c->at - c->run));
		r->forwarded = true;
	}
	c->run = c->at;
}

/* The next *n* bytes are not for the client. */
static void
cut(struct relay *r, struct cursor *c, size_t n)
{
	end_run(r, c);
	c->at += n;
	c->run = c->at;
}

static void
put_fakes(struct relay *r, struct cursor *c)
{
	struct replies *q = &r->server->replies;
	const struct reply *e;
	struct wbuf out = {0};
	while ((e = replies_head(q)) && e->action == REPLY_FAKE && !q->skipping) {
		struct reply copy = *e;
		wbuf_clear(&out);
		r->ops->on_fake(r, &copy, &out);
		replies_pop(q);
		end_run(r, c);
		conn_send_copy(r->client, out.p, out.n);
		r->forwarded = true;
	}
	wbuf_fini(&out);
}

static void
note_ended(void *arg, const struct reply *e, enum reply_end end)
{
	struct relay *r = arg;
	r->ops->on_ended(r, e, end);
}

/* Messages that are seen whole, after the FIFO has judged them. Sets *forward. */
static void
look(struct relay *r, const struct wire_msg *m, const struct reply *e, bool *forward, struct wbuf *instead)
{
	bool mine = e && e->action == REPLY_SKIP;
	switch (m->type) {
	case 'E':
		*forward = r->ops->on_error(r, m, e, instead);
		break;
	case 'A':
		*forward = r->ops->on_notification(r, m, instead);
		break;
	case 'S':
		*forward = r->ops->on_parameter(r, m, mine);
		break;
	case 'C':
		if (!mine)
			r->ops->on_command(r, m->len > 0 ? span_of((const char *)m->body, m->len - 1) : SPAN_NONE);
		break;
	case 'G':
	case 'W':
		r->ops->on_copy_in(r);
		break;
	case 'Z':
		r->server->tx_status = m->len == 1 ? (char)m->body[0] : 'I';
		*forward = r->ops->on_ready(r, r->server->tx_status, mine);
		break;
	default:
		break;
	}
}

static bool
is_seen_whole(char type)
{
	return type == 'E' || type == 'S' || type == 'A' || type == 'C' || type == 'Z' || type == 'G' || type == 'W';
}

/* One message, or the beginning of one. RC_AGAIN: more bytes are needed. */
static enum rc
step(struct relay *r, struct cursor *c)
{
	struct replies *q = &r->server->replies;
	struct span rest = span_of(c->rx.p + c->at, c->rx.n - c->at);
	struct wire_head h;
	enum wire_result w = wire_peek(rest.p, rest.n, INT32_MAX, &h);
	if (w == WIRE_NEED_MORE)
		return RC_AGAIN;
	if (w != WIRE_OK)
		return RC_FAIL;
	/* Rows are most of what there is: they change nothing, so they only have to fit the head. */
	const struct reply *head = replies_head(q);
	if (h.type == 'D' && head && head->action == REPLY_FORWARD && (head->kind == REPLY_QUERY || head->kind == REPLY_EXECUTE) && !q->skipping) {
		while (h.type == 'D' && h.total <= c->rx.n - c->at) {
			c->at += (size_t)h.total;
			w = wire_peek(c->rx.p + c->at, c->rx.n - c->at, INT32_MAX, &h);
			if (w == WIRE_NEED_MORE)
				return RC_AGAIN;
			if (w != WIRE_OK)
				return RC_FAIL;
		}
		rest = span_of(c->rx.p + c->at, c->rx.n - c->at);
	}
	bool own_row = h.type == 'D' && head && head->action == REPLY_SKIP;
	bool description = (h.type == 'T' || h.type == 'n') && head && head->ref &&
	    (head->kind == REPLY_DESCRIBE_STATEMENT || head->kind == REPLY_DESCRIBE_PORTAL);
	bool whole = is_seen_whole(h.type) || own_row || description;
	if (whole && h.total > rest.n) {
		if (h.total > WHOLE_MAX)
			return RC_FAIL;
		c->expect = (size_t)h.total; /* not now: the buffer would move, and what is queued points into it */
		return RC_AGAIN;
	}
	struct wbuf instead = {0};
	struct reply before = head ? *head : (struct reply){0};
	const struct reply *e = head ? &before : NULL;
	/* The end of an answer is told after the message itself was looked at, so a tag comes before its entry's end. */
	bool forward = true;
	struct wire_msg m = {h.type, (uint32_t)(h.total - WIRE_HEAD_BYTES), (const unsigned char *)rest.p + WIRE_HEAD_BYTES};
	if (h.type == 'C' || h.type == 'G' || h.type == 'W')
		look(r, &m, e, &forward, &instead);
	if (own_row)
		r->ops->on_own_row(r, &m);
	if (description)
		r->ops->on_description(r, &m, e);
	enum reply_verdict v = replies_match(q, h.type, note_ended, r);
	if (v == VERDICT_BROKEN) {
		log_error("a server sent %s where none can come", msg_server_name(h.type));
		return RC_FAIL;
	}
	forward = v == VERDICT_FORWARD || v == VERDICT_ASYNC;
	if (h.type == 'E' || h.type == 'S' || h.type == 'A' || h.type == 'Z')
		look(r, &m, e, &forward, &instead);
	size_t here = h.total < rest.n ? (size_t)h.total : rest.n;
	r->left = h.total - here;
	r->left_forward = forward;
	if (forward)
		c->at += here;
	else
		cut(r, c, here);
	if (instead.n > 0) {
		conn_send_copy(r->client, instead.p, instead.n);
		r->forwarded = true;
		wbuf_fini(&instead);
	}
	return RC_OK;
}

enum rc
relay_run(struct relay *r)
{
	struct conn *from = &r->server->conn;
	enum rc rc = RC_OK;
	while (rc == RC_OK) {
		struct cursor c = {.rx = conn_rx(from)};
		if (r->left > 0) {
			size_t n = r->left < c.rx.n ? (size_t)r->left : c.rx.n;
			r->left -= n;
			c.at = n;
			if (!r->left_forward)
				c.run = n;
		}
		while (rc == RC_OK && r->left == 0) {
			put_fakes(r, &c);
			rc = step(r, &c);
		}
		end_run(r, &c);
		(void)conn_flush(r->client); /* a broken client is noticed by its own input */
		if (c.at > 0)
			conn_rx_consume(from, c.at);
		if (c.expect > 0)
			conn_rx_expect(from, c.expect);
		if (r->left > 0 || c.at == c.rx.n)
			break;
	}
	if (rc == RC_FAIL)
		return RC_FAIL;
	if (conn_tx_pending(r->client) > CONN_TX_HIGH) {
		r->client->was_high = true;
		return RC_AGAIN;
	}
	return RC_OK;
}
