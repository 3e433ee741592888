/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/auth.o proxy/proto/msg.o proxy/proto/msg_put.o proxy/proto/scram.o proxy/proto/startup.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o proxy/base/arena.o */
/* fuzz_wire - any bytes as a stream of messages and as a startup packet: nothing may overrun, and what decodes as a Bind
 * or Parse must come out of a rename under its own names as it went in. */
#include "pgspan/msg.h"
#include "pgspan/startup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Keeps the compiler from leaving out the reads. */
static volatile unsigned sink;

/* Reads every byte of a span, so that the sanitizer sees one that is too long. */
static unsigned
touch(struct span s)
{
	unsigned sum = 0;

	for (size_t i = 0; i < s.n; i++)
		sum += (unsigned char)s.p[i];
	return sum;
}

static unsigned
walk(struct msg_values it)
{
	struct msg_value v;
	unsigned sum = 0;

	while (msg_value_next(&it, &v))
		sum += touch(v.bytes);
	return sum;
}

static void
check_same(struct wbuf *w, struct span rest, const struct wire_msg *m)
{
	wbuf_span(w, rest);
	if (w->n != (size_t)m->len + WIRE_HEAD_BYTES || memcmp(w->p + WIRE_HEAD_BYTES, m->body, m->len) != 0 ||
	    wire_load_u32((unsigned char *)w->p + 1) != m->len + 4)
		abort();
	wbuf_fini(w);
}

static unsigned
decode_client(const struct wire_msg *m)
{
	struct span s;
	struct msg_parse parse;
	struct msg_bind bind;
	struct msg_target target;
	struct msg_execute execute;
	struct msg_sasl_initial sasl;
	struct wbuf w = {0};
	unsigned sum = 0;

	if (msg_get_query(m, &s) || msg_get_password(m, &s) || msg_get_copy_fail(m, &s))
		sum += touch(s);
	if (msg_get_target(m, &target))
		sum += touch(target.name);
	if (msg_get_execute(m, &execute))
		sum += touch(execute.portal);
	if (msg_get_sasl_initial(m, &sasl))
		sum += touch(sasl.mechanism) + touch(sasl.response);
	if (msg_get_parse(m, &parse)) {
		sum += touch(parse.name) + touch(parse.query);
		for (unsigned i = 0; i <= parse.n_types; i++)
			sum += msg_parse_type(&parse, i);
		msg_put_parse_head(&w, &parse, parse.name);
		check_same(&w, parse.rest, m);
	}
	if (msg_get_bind(m, &bind)) {
		sum += walk(msg_bind_params(&bind));
		for (unsigned i = 0; i <= bind.n_params; i++)
			sum += msg_format(bind.formats, bind.n_formats, i) + msg_format(bind.result_formats, bind.n_result_formats, i);
		msg_put_bind_head(&w, &bind, bind.portal, bind.statement);
		check_same(&w, bind.rest, m);
	}
	return sum;
}

static unsigned
decode_server(const struct wire_msg *m)
{
	struct span s, s2;
	struct msg_tag tag;
	struct msg_columns columns;
	struct msg_column column;
	struct msg_values values;
	struct msg_copy copy;
	struct msg_notification note;
	const unsigned char *types;
	uint16_t n;
	uint32_t pid;
	char status;
	unsigned sum = 0;

	if (msg_get_command_complete(m, &tag))
		sum += touch(tag.verb);
	if (msg_get_row_description(m, &columns))
		while (msg_column_next(&columns, &column))
			sum += touch(column.name);
	if (msg_get_data_row(m, &values))
		sum += walk(values);
	if (msg_get_parameter_description(m, &types, &n))
		sum += touch(span_of((const char *)types, 4 * (size_t)n));
	if (msg_error_field(m, 'C', &s))
		sum += touch(s);
	sum += msg_error_ok(m);
	if (msg_get_parameter_status(m, &s, &s2))
		sum += touch(s) + touch(s2);
	if (msg_get_ready_for_query(m, &status))
		sum++;
	if (msg_get_backend_key_data(m, &pid, &s))
		sum += touch(s);
	if (msg_get_copy_response(m, &copy))
		sum += touch(span_of((const char *)copy.formats, 2 * (size_t)copy.n_columns));
	if (msg_get_notification(m, &note))
		sum += touch(note.channel) + touch(note.payload);
	return sum;
}

static unsigned
decode_startup(const uint8_t *data, size_t n)
{
	struct arena a;
	struct startup s;
	struct diag d = {0};
	ssize_t total = startup_peek(data, n);
	unsigned sum = 0;

	arena_init(&a);
	if (total > 0 && startup_decode(data, (size_t)total, &a, &s, &d) == RC_OK) {
		for (size_t i = 0; i < s.n_settings; i++)
			sum += touch(span_str(s.settings[i].name)) + touch(span_str(s.settings[i].value));
		for (size_t i = 0; i < s.n_pq_options; i++)
			sum += touch(span_str(s.pq_options[i]));
		if (s.kind == STARTUP_MESSAGE && (!s.user[0] || !s.database[0]))
			abort();
		sum += touch(s.cancel_key);
	} else if (total > 0 && !diag_is_set(&d)) {
		abort();
	}
	arena_fini(&a);
	return sum;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	unsigned sum = decode_startup(data, n);
	struct wire_msg m;

	while (wire_take(data, n, 1 << 20, &m) == WIRE_OK) {
		sum += decode_client(&m) + decode_server(&m);
		data += m.len + WIRE_HEAD_BYTES;
		n -= m.len + WIRE_HEAD_BYTES;
	}
	sink = sum;
	return 0;
}
