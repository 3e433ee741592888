/* SPDX-License-Identifier: BSD-2-Clause */
/* msg_put - writing messages: what pgspan says for itself to a client or to a server.
 *
 * Messages that only pass through are never encoded again. A Parse or a Bind that must carry another statement name
 * gets a new head here and keeps its own tail, so that parameters, which may be megabytes, are not copied. */
#include "pgspan/msg.h"

/* ---- to the client ---- */

static void
put_field(struct wbuf *w, char code, const char *value)
{
	if (!value[0])
		return;
	wbuf_u8(w, (uint8_t)code);
	wbuf_cstr(w, value);
}

/* The order of fields is PostgreSQL's own (send_message_to_frontend). */
static void
put_report(struct wbuf *w, char type, const char *severity, const struct diag *d)
{
	wbuf_begin(w, type);
	put_field(w, 'S', severity);
	put_field(w, 'V', severity);
	put_field(w, 'C', d->sqlstate);
	put_field(w, 'M', d->message[0] ? d->message : "missing error text");
	put_field(w, 'D', d->detail);
	put_field(w, 'H', d->hint);
	put_field(w, 'R', "pgspan");
	wbuf_u8(w, 0);
	wbuf_end(w);
}

void
msg_put_error(struct wbuf *w, const char *severity, const struct diag *d)
{
	put_report(w, SMSG_ERROR_RESPONSE, severity, d);
}

void
msg_put_notice(struct wbuf *w, const char *severity, const struct diag *d)
{
	put_report(w, SMSG_NOTICE_RESPONSE, severity, d);
}

void
msg_put_ready_for_query(struct wbuf *w, char status)
{
	wbuf_begin(w, SMSG_READY_FOR_QUERY);
	wbuf_u8(w, (uint8_t)status);
	wbuf_end(w);
}

void
msg_put_command_complete(struct wbuf *w, const char *tag)
{
	wbuf_begin(w, SMSG_COMMAND_COMPLETE);
	wbuf_cstr(w, tag);
	wbuf_end(w);
}

void
msg_put_command_complete_rows(struct wbuf *w, struct span verb, uint64_t rows)
{
	char count[32];
	const char *oid = span_eq_str(verb, "INSERT") ? " 0" : "";

	snprintf(count, sizeof count, "%s %llu", oid, (unsigned long long)rows);
	wbuf_begin(w, SMSG_COMMAND_COMPLETE);
	wbuf_span(w, verb);
	wbuf_cstr(w, count);
	wbuf_end(w);
}

void
msg_put_parameter_status(struct wbuf *w, const char *name, const char *value)
{
	wbuf_begin(w, SMSG_PARAMETER_STATUS);
	wbuf_cstr(w, name);
	wbuf_cstr(w, value);
	wbuf_end(w);
}

void
msg_put_backend_key_data(struct wbuf *w, uint32_t pid, struct span secret)
{
	wbuf_begin(w, SMSG_BACKEND_KEY_DATA);
	wbuf_u32(w, pid);
	wbuf_span(w, secret);
	wbuf_end(w);
}

/* Codes of Authentication messages (docs 55.7). */
enum { AUTH_CODE_OK = 0, AUTH_CODE_CLEARTEXT = 3, AUTH_CODE_MD5 = 5, AUTH_CODE_SASL = 10, AUTH_CODE_SASL_CONTINUE = 11, AUTH_CODE_SASL_FINAL = 12 };

static void
put_auth(struct wbuf *w, uint32_t code, struct span data)
{
	wbuf_begin(w, SMSG_AUTHENTICATION);
	wbuf_u32(w, code);
	wbuf_span(w, data);
	wbuf_end(w);
}

void
msg_put_auth_ok(struct wbuf *w)
{
	put_auth(w, AUTH_CODE_OK, SPAN_NONE);
}

void
msg_put_auth_cleartext(struct wbuf *w)
{
	put_auth(w, AUTH_CODE_CLEARTEXT, SPAN_NONE);
}

void
msg_put_auth_md5(struct wbuf *w, const unsigned char salt[4])
{
	put_auth(w, AUTH_CODE_MD5, span_of((const char *)salt, 4));
}

void
msg_put_auth_sasl(struct wbuf *w, const char *better, const char *mechanism)
{
	wbuf_begin(w, SMSG_AUTHENTICATION);
	wbuf_u32(w, AUTH_CODE_SASL);
	if (better)
		wbuf_cstr(w, better);
	wbuf_cstr(w, mechanism);
	wbuf_u8(w, 0); /* ends the list */
	wbuf_end(w);
}

void
msg_put_auth_sasl_continue(struct wbuf *w, struct span data)
{
	put_auth(w, AUTH_CODE_SASL_CONTINUE, data);
}

void
msg_put_auth_sasl_final(struct wbuf *w, struct span data)
{
	put_auth(w, AUTH_CODE_SASL_FINAL, data);
}

void
msg_put_negotiate_protocol_version(struct wbuf *w, uint32_t newest, const char *const *options, size_t n_options)
{
	wbuf_begin(w, SMSG_NEGOTIATE_PROTOCOL_VERSION);
	wbuf_u32(w, newest);
	wbuf_u32(w, (uint32_t)n_options);
	for (size_t i = 0; i < n_options; i++)
		wbuf_cstr(w, options[i]);
	wbuf_end(w);
}

void
msg_row_description_begin(struct wbuf *w, uint16_t n)
{
	wbuf_begin(w, SMSG_ROW_DESCRIPTION);
	wbuf_u16(w, n);
}

void
msg_row_description_add(struct wbuf *w, const struct msg_column *c)
{
	wbuf_cspan(w, c->name);
	wbuf_u32(w, c->table_oid);
	wbuf_u16(w, (uint16_t)c->attnum);
	wbuf_u32(w, c->type_oid);
	wbuf_u16(w, (uint16_t)c->typlen);
	wbuf_u32(w, (uint32_t)c->typmod);
	wbuf_u16(w, c->format);
}

void
msg_row_description_add_text(struct wbuf *w, const char *name)
{
	struct msg_column c = {.name = span_str(name), .type_oid = 25, .typlen = -1, .typmod = -1};

	msg_row_description_add(w, &c);
}

void
msg_data_row_begin(struct wbuf *w, uint16_t n)
{
	wbuf_begin(w, SMSG_DATA_ROW);
	wbuf_u16(w, n);
}

static void
put_value(struct wbuf *w, struct span value)
{
	assert(value.n <= INT32_MAX);
	wbuf_u32(w, (uint32_t)value.n);
	wbuf_span(w, value);
}

void
msg_data_row_add(struct wbuf *w, struct span value)
{
	put_value(w, value);
}

void
msg_data_row_null(struct wbuf *w)
{
	wbuf_u32(w, UINT32_MAX);
}

/* ---- to the server ---- */

void
msg_put_query(struct wbuf *w, struct span sql)
{
	wbuf_begin(w, CMSG_QUERY);
	wbuf_cspan(w, sql);
	wbuf_end(w);
}

void
msg_put_parse(struct wbuf *w, struct span name, struct span query, const uint32_t *types, uint16_t n)
{
	wbuf_begin(w, CMSG_PARSE);
	wbuf_cspan(w, name);
	wbuf_cspan(w, query);
	wbuf_u16(w, n);
	for (unsigned i = 0; i < n; i++)
		wbuf_u32(w, types[i]);
	wbuf_end(w);
}

void
msg_put_parse_head(struct wbuf *w, const struct msg_parse *p, struct span name)
{
	wbuf_begin(w, CMSG_PARSE);
	wbuf_cspan(w, name);
	wbuf_end_before(w, p->rest.n);
}

void
msg_put_bind_text(struct wbuf *w, struct span portal, struct span statement, const struct msg_value *params, uint16_t n)
{
	wbuf_begin(w, CMSG_BIND);
	wbuf_cspan(w, portal);
	wbuf_cspan(w, statement);
	wbuf_u16(w, 0);
	wbuf_u16(w, n);
	for (unsigned i = 0; i < n; i++)
		if (params[i].is_null)
			wbuf_u32(w, UINT32_MAX);
		else
			put_value(w, params[i].bytes);
	wbuf_u16(w, 0);
	wbuf_end(w);
}

void
msg_put_bind_head(struct wbuf *w, const struct msg_bind *b, struct span portal, struct span statement)
{
	wbuf_begin(w, CMSG_BIND);
	wbuf_cspan(w, portal);
	wbuf_cspan(w, statement);
	wbuf_end_before(w, b->rest.n);
}

static void
put_target(struct wbuf *w, char type, char kind, struct span name)
{
	wbuf_begin(w, type);
	wbuf_u8(w, (uint8_t)kind);
	wbuf_cspan(w, name);
	wbuf_end(w);
}

void
msg_put_describe(struct wbuf *w, char kind, struct span name)
{
	put_target(w, CMSG_DESCRIBE, kind, name);
}

void
msg_put_close(struct wbuf *w, char kind, struct span name)
{
	put_target(w, CMSG_CLOSE, kind, name);
}

void
msg_put_execute(struct wbuf *w, struct span portal, int32_t max_rows)
{
	wbuf_begin(w, CMSG_EXECUTE);
	wbuf_cspan(w, portal);
	wbuf_u32(w, (uint32_t)max_rows);
	wbuf_end(w);
}

void
msg_put_copy_fail(struct wbuf *w, const char *reason)
{
	wbuf_begin(w, CMSG_COPY_FAIL);
	wbuf_cstr(w, reason);
	wbuf_end(w);
}
