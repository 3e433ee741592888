/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_fan - COPY FROM STDIN of a sharded table, each row to its shard, or of a reference table, every row to every shard.
 *
 *   COPY to all legs ──► all say CopyInResponse ──► the client is told ──► CopyData through copy_split ──► CopyDone to all ──►
 *   counts added ──► the block's end
 *
 * When one leg refuses a row, the others get CopyFail, and what the client still sends is dropped, as PostgreSQL does. */
#include "fan_int.h"

#include "pgspan/copy_split.h"
#include "pgspan/sqlstate.h"

static int
route_row(void *arg, const struct copy_key *keys, int n, struct diag *d)
{
	struct fan *f = arg;
	const struct copy_plan *c = &f->plan->plan->copy;
	struct span fields[32];
	int shard = 0;
	for (int i = 0; i < n && i < (int)ARRAY_LEN(fields); i++)
		fields[i] = keys[i].is_null || keys[i].is_missing ? SPAN_NONE : keys[i].value.p ? keys[i].value : SPAN_LIT("");
	if (route_copy_row(c, fields, meaning_is_utf8(f->s) && !c->encoding, f->s->tenant->db, &shard, d) != ROUTED)
		return -1;
	return shard;
}

static void
emit(void *arg, int shard, struct span bytes)
{
	struct fan *f = arg;
	unsigned char head[WIRE_HEAD_BYTES] = {'d'};
	wire_store_u32(head + 1, (uint32_t)bytes.n + 4);
	for (int i = 0; i < f->n; i++) {
		struct fan_leg *k = &f->legs[i];
		if (k->shard != shard || !k->copying || !k->leg->server)
			continue;
		conn_send_copy(&k->leg->server->conn, head, sizeof head);
		conn_send_copy(&k->leg->server->conn, bytes.p, bytes.n);
	}
}

enum rc
copy_fan_open(struct fan *f, struct diag *d)
{
	const struct plan *p = f->plan->plan;
	f->copy_same = p->route != ROUTE_COPY;
	struct copy_split_spec spec = {
	    .plan = &p->copy,
	    .n_key = f->copy_same ? 0 : p->copy.table->n_key,
	    .n_shards = f->s->tenant->db->n_shards,
	    .route = route_row,
	    .emit = emit,
	    .arg = f,
	};
	if (f->copy_same) {
		static const struct copy_plan any = {.delimiter = '\t', .null_string = "\\N"};
		spec.plan = &any; /* never asked for a key: rows are not looked at */
	}
	f->copy = copy_split_new(&spec, d);
	return f->copy ? RC_OK : RC_FAIL;
}

static void
copied(struct fan *f)
{
	if (f->implicit) {
		if (f->failed)
			fan_rollback(f);
		else
			fan_commit(f);
		return;
	}
	fan_answer(f);
}

void
copy_fan_begin(struct fan *f)
{
	struct session *s = f->s;
	f->n_waiting = 0;
	f->then = copied;
	struct merge_spec spec = {.kind = f->copy_same ? MULTI_SAME : MULTI_WRITE, .n_legs = f->n, .limit = -1};
	f->merge = merge_new(&spec);
	for (int i = 0; i < f->n; i++) {
		struct leg *l = f->legs[i].leg;
		if (f->implicit)
			leg_begin_implicit(l);
		else
			leg_begin(s, l);
		l->wrote = true;
	}
	for (int i = 0; i < f->n; i++)
		fan_send_query(f, i, f->legs[i].sql);
	fan_pump(f);
}

void
copy_fan_ready(struct fan *f)
{
	struct session *s = f->s;
	struct wbuf w = {0};
	bool binary = f->copy_binary;
	int n = f->copy_columns;
	f->copy_open = true;
	wbuf_bytes(&w, f->before.p, f->before.n);
	wbuf_clear(&f->before);
	wbuf_begin(&w, 'G');
	wbuf_u8(&w, binary);
	wbuf_u16(&w, (uint16_t)n);
	for (int i = 0; i < n; i++)
		wbuf_u16(&w, binary);
	wbuf_end(&w);
	session_put(s, &w);
	(void)conn_flush(&s->conn);
	session_process(s);
}

bool
fan_takes_copy(const struct session *s)
{
	const struct fan *f = s->fan;
	if (!f || !f->copy_open)
		return false;
	for (int i = 0; i < f->n; i++)
		if (f->legs[i].leg->server && conn_tx_pending(&f->legs[i].leg->server->conn) > CONN_TX_HIGH) {
			f->legs[i].leg->server->conn.was_high = true;
			return false;
		}
	return true;
}

static void
end_data(struct fan *f, struct span message)
{
	f->copy_open = false;
	for (int i = 0; i < f->n; i++) {
		struct fan_leg *k = &f->legs[i];
		if (!k->copying || !k->leg->server)
			continue;
		k->copying = false;
		conn_send_copy(&k->leg->server->conn, message.p, message.n);
		(void)conn_flush(&k->leg->server->conn);
	}
}

static void
fail_data(struct fan *f, const struct diag *d)
{
	struct wbuf w = {0};
	fan_fail(f, d);
	msg_put_copy_fail(&w, "pgspan has refused a row");
	end_data(f, span_of(w.p, w.n));
	wbuf_fini(&w);
}

void
fan_copy(struct session *s, char type, struct span body)
{
	struct fan *f = s->fan;
	struct diag d;
	diag_clear(&d);
	if (f->failed && type != 'd') {
		f->copy_open = false;
	} else if (f->failed) {
		return; /* what comes behind an error is dropped */
	} else if (type == 'd') {
		enum rc rc = RC_OK;
		if (f->copy_same)
			for (int i = 0; i < f->n; i++)
				emit(f, f->legs[i].shard, body);
		else
			rc = copy_split_feed(f->copy, body, &d);
		if (rc == RC_FAIL)
			fail_data(f, &d);
		else
			for (int i = 0; i < f->n; i++)
				if (f->legs[i].leg->server)
					(void)conn_flush(&f->legs[i].leg->server->conn);
	} else if (type == 'c') {
		if (!f->copy_same && copy_split_finish(f->copy, &d) != RC_OK)
			fail_data(f, &d);
		else
			end_data(f, MSG_COPY_DONE);
	} else {
		struct wbuf w = {0};
		wbuf_begin(&w, 'f');
		wbuf_bytes(&w, body.p, body.n);
		wbuf_end(&w);
		end_data(f, span_of(w.p, w.n));
		wbuf_fini(&w);
	}
	fan_pump(f);
}
