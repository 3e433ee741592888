/* SPDX-License-Identifier: BSD-2-Clause */
/* msg - reading messages (writing them is msg_put.c).
 *
 * Every decoder has one shape: a reader over the body, fields in the order of the documentation, and rd_done() at the
 * end. rd's sticky flag makes checks in between needless, except before a pointer into the body is kept, where
 * rd_take() gives NULL for what is not there. Bytes left over are a malformed message, as PostgreSQL's pq_getmsgend
 * has it. Nothing is copied. */
#include "pgspan/msg.h"

static const char *const client_names[256] = {
	[CMSG_BIND] = "Bind",
	[CMSG_CLOSE] = "Close",
	[CMSG_COPY_DATA] = "CopyData",
	[CMSG_COPY_DONE] = "CopyDone",
	[CMSG_COPY_FAIL] = "CopyFail",
	[CMSG_DESCRIBE] = "Describe",
	[CMSG_EXECUTE] = "Execute",
	[CMSG_FLUSH] = "Flush",
	[CMSG_FUNCTION_CALL] = "FunctionCall",
	[CMSG_PARSE] = "Parse",
	[CMSG_PASSWORD] = "Password",
	[CMSG_QUERY] = "Query",
	[CMSG_SYNC] = "Sync",
	[CMSG_TERMINATE] = "Terminate",
};

static const char *const server_names[256] = {
	[SMSG_AUTHENTICATION] = "Authentication",
	[SMSG_BACKEND_KEY_DATA] = "BackendKeyData",
	[SMSG_BIND_COMPLETE] = "BindComplete",
	[SMSG_CLOSE_COMPLETE] = "CloseComplete",
	[SMSG_COMMAND_COMPLETE] = "CommandComplete",
	[SMSG_COPY_BOTH_RESPONSE] = "CopyBothResponse",
	[SMSG_COPY_DATA] = "CopyData",
	[SMSG_COPY_DONE] = "CopyDone",
	[SMSG_COPY_IN_RESPONSE] = "CopyInResponse",
	[SMSG_COPY_OUT_RESPONSE] = "CopyOutResponse",
	[SMSG_DATA_ROW] = "DataRow",
	[SMSG_EMPTY_QUERY_RESPONSE] = "EmptyQueryResponse",
	[SMSG_ERROR_RESPONSE] = "ErrorResponse",
	[SMSG_FUNCTION_CALL_RESPONSE] = "FunctionCallResponse",
	[SMSG_NEGOTIATE_PROTOCOL_VERSION] = "NegotiateProtocolVersion",
	[SMSG_NOTICE_RESPONSE] = "NoticeResponse",
	[SMSG_NOTIFICATION_RESPONSE] = "NotificationResponse",
	[SMSG_NO_DATA] = "NoData",
	[SMSG_PARAMETER_DESCRIPTION] = "ParameterDescription",
	[SMSG_PARAMETER_STATUS] = "ParameterStatus",
	[SMSG_PARSE_COMPLETE] = "ParseComplete",
	[SMSG_PORTAL_SUSPENDED] = "PortalSuspended",
	[SMSG_READY_FOR_QUERY] = "ReadyForQuery",
	[SMSG_ROW_DESCRIPTION] = "RowDescription",
};

const char *
msg_client_name(char type)
{
	const char *name = client_names[(unsigned char)type];

	return name ? name : "unknown";
}

const char *
msg_server_name(char type)
{
	const char *name = server_names[(unsigned char)type];

	return name ? name : "unknown";
}

/* A body that is one string. */
static bool
get_string(const struct wire_msg *m, struct span *s)
{
	struct rd r = rd_msg(m);

	*s = rd_cstr(&r);
	return rd_done(&r);
}

bool
msg_get_query(const struct wire_msg *m, struct span *sql)
{
	return get_string(m, sql);
}

bool
msg_get_copy_fail(const struct wire_msg *m, struct span *reason)
{
	return get_string(m, reason);
}

bool
msg_get_password(const struct wire_msg *m, struct span *password)
{
	return get_string(m, password);
}

bool
msg_get_parse(const struct wire_msg *m, struct msg_parse *out)
{
	struct rd r = rd_msg(m);

	out->name = rd_cstr(&r);
	out->rest = span_of((const char *)r.p, rd_left(&r));
	out->query = rd_cstr(&r);
	out->n_types = rd_u16(&r);
	out->types = rd_take(&r, 4 * (size_t)out->n_types);
	return rd_done(&r);
}

bool
msg_get_bind(const struct wire_msg *m, struct msg_bind *out)
{
	struct rd r = rd_msg(m);
	struct msg_values it;
	struct msg_value v;

	out->portal = rd_cstr(&r);
	out->statement = rd_cstr(&r);
	out->rest = span_of((const char *)r.p, rd_left(&r));
	out->n_formats = rd_u16(&r);
	out->formats = rd_take(&r, 2 * (size_t)out->n_formats);
	out->n_params = rd_u16(&r);
	it = (struct msg_values){r, out->n_params, 0};
	while (msg_value_next(&it, &v))
		;
	out->params = span_of((const char *)r.p, (size_t)(it.r.p - r.p));
	r = it.r;
	out->n_result_formats = rd_u16(&r);
	out->result_formats = rd_take(&r, 2 * (size_t)out->n_result_formats);
	return rd_done(&r);
}

struct msg_values
msg_bind_params(const struct msg_bind *b)
{
	return (struct msg_values){rd_of(b->params.p, b->params.n), b->n_params, 0};
}

bool
msg_value_next(struct msg_values *it, struct msg_value *out)
{
	int32_t len;

	if (it->i == it->n || it->r.bad)
		return false;
	it->i++;
	len = rd_i32(&it->r);
	out->is_null = len == -1;
	out->bytes = SPAN_NONE;
	if (len < -1)
		it->r.bad = true;
	else if (len >= 0)
		out->bytes = rd_bytes(&it->r, (size_t)len);
	return !it->r.bad;
}

bool
msg_get_target(const struct wire_msg *m, struct msg_target *out)
{
	struct rd r = rd_msg(m);

	out->kind = (char)rd_u8(&r);
	out->name = rd_cstr(&r);
	return rd_done(&r);
}

bool
msg_get_execute(const struct wire_msg *m, struct msg_execute *out)
{
	struct rd r = rd_msg(m);

	out->portal = rd_cstr(&r);
	out->max_rows = rd_i32(&r);
	return rd_done(&r);
}

bool
msg_get_sasl_initial(const struct wire_msg *m, struct msg_sasl_initial *out)
{
	struct rd r = rd_msg(m);
	int32_t len;

	out->mechanism = rd_cstr(&r);
	len = rd_i32(&r);
	out->has_response = len != -1;
	out->response = SPAN_NONE;
	if (len < -1)
		return false;
	if (len >= 0)
		out->response = rd_bytes(&r, (size_t)len);
	return rd_done(&r);
}

/* Cuts the last word off *s* if it is a number: digits only, behind a space. */
static bool
cut_number(struct span *s, uint64_t *value)
{
	size_t at = s->n;
	uint64_t v = 0;

	while (at > 0 && s->p[at - 1] >= '0' && s->p[at - 1] <= '9')
		at--;
	if (at == s->n || at < 2 || s->p[at - 1] != ' ')
		return false;
	for (size_t i = at; i < s->n; i++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(s->p[i] - '0'), &v))
			return false;
	*value = v;
	s->n = at - 1;
	return true;
}

struct msg_tag
msg_tag_parse(struct span tag)
{
	struct msg_tag t = {.verb = tag};
	struct span verb;
	uint64_t oid;

	t.has_rows = cut_number(&t.verb, &t.rows);
	/* INSERT has the OID of its row between: always 0 since PostgreSQL 12. */
	verb = t.verb;
	if (t.has_rows && cut_number(&verb, &oid) && span_eq_str(verb, "INSERT"))
		t.verb = verb;
	return t;
}

bool
msg_get_command_complete(const struct wire_msg *m, struct msg_tag *out)
{
	struct span tag;

	if (!get_string(m, &tag))
		return false;
	*out = msg_tag_parse(tag);
	return true;
}

bool
msg_get_row_description(const struct wire_msg *m, struct msg_columns *it)
{
	it->r = rd_msg(m);
	it->n = rd_u16(&it->r);
	it->i = 0;
	return !it->r.bad;
}

bool
msg_column_next(struct msg_columns *it, struct msg_column *out)
{
	struct rd *r = &it->r;

	if (it->i == it->n || r->bad)
		return false;
	it->i++;
	out->name = rd_cstr(r);
	out->table_oid = rd_u32(r);
	out->attnum = (int16_t)rd_u16(r);
	out->type_oid = rd_u32(r);
	out->typlen = (int16_t)rd_u16(r);
	out->typmod = rd_i32(r);
	out->format = rd_u16(r);
	return !r->bad;
}

bool
msg_get_data_row(const struct wire_msg *m, struct msg_values *it)
{
	it->r = rd_msg(m);
	it->n = rd_u16(&it->r);
	it->i = 0;
	return !it->r.bad;
}

bool
msg_get_parameter_description(const struct wire_msg *m, const unsigned char **types, uint16_t *n)
{
	struct rd r = rd_msg(m);

	*n = rd_u16(&r);
	*types = rd_take(&r, 4 * (size_t)*n);
	return rd_done(&r);
}

/* The next field of an error: its code, or 0 at the terminator or when malformed (r->bad). */
static char
next_field(struct rd *r, struct span *value)
{
	char code = (char)rd_u8(r);

	if (code)
		*value = rd_cstr(r);
	return r->bad ? 0 : code;
}

bool
msg_error_field(const struct wire_msg *m, char code, struct span *out)
{
	struct rd r = rd_msg(m);
	struct span value;
	char c;

	while ((c = next_field(&r, &value)) != 0)
		if (c == code) {
			*out = value;
			return true;
		}
	return false;
}

bool
msg_error_ok(const struct wire_msg *m)
{
	struct rd r = rd_msg(m);
	struct span value;

	while (next_field(&r, &value))
		;
	return rd_done(&r);
}

bool
msg_get_parameter_status(const struct wire_msg *m, struct span *name, struct span *value)
{
	struct rd r = rd_msg(m);

	*name = rd_cstr(&r);
	*value = rd_cstr(&r);
	return rd_done(&r);
}

bool
msg_get_ready_for_query(const struct wire_msg *m, char *status)
{
	struct rd r = rd_msg(m);

	*status = (char)rd_u8(&r);
	return rd_done(&r) && (*status == 'I' || *status == 'T' || *status == 'E');
}

bool
msg_get_backend_key_data(const struct wire_msg *m, uint32_t *pid, struct span *secret)
{
	struct rd r = rd_msg(m);

	*pid = rd_u32(&r);
	*secret = rd_rest(&r);
	return rd_done(&r) && secret->n >= 4 && secret->n <= 256;
}

bool
msg_get_copy_response(const struct wire_msg *m, struct msg_copy *out)
{
	struct rd r = rd_msg(m);

	out->format = rd_u8(&r);
	out->n_columns = rd_u16(&r);
	out->formats = rd_take(&r, 2 * (size_t)out->n_columns);
	return rd_done(&r);
}

bool
msg_get_notification(const struct wire_msg *m, struct msg_notification *out)
{
	struct rd r = rd_msg(m);

	out->pid = rd_u32(&r);
	out->channel = rd_cstr(&r);
	out->payload = rd_cstr(&r);
	return rd_done(&r);
}
