/* SPDX-License-Identifier: BSD-2-Clause */
/* msg - the messages of protocol 3, decoded as far as a proxy looks into them and encoded as far as it speaks for
 * itself (PostgreSQL docs 55.7).
 *
 * msg_get_x() answers whether a body is a well-formed x and fills *out* with spans that borrow from the message; on
 * false *out* is unspecified. They look at layout only: a kind byte, a format code or a status letter that means
 * nothing is the caller's to judge, because PostgreSQL answers those with an ERROR and goes on, where a body that is
 * cut short ends the connection. Their caller has looked at m->type.
 *
 * msg_put_x() appends one whole message to a wbuf. Strings given to them must hold no NUL.
 * Thread: any. */
#ifndef PGSPAN_MSG_H
#define PGSPAN_MSG_H

#include "pgspan/diag.h"
#include "pgspan/wire.h"

/* From the client. */
enum client_msg {
	CMSG_BIND = 'B',
	CMSG_CLOSE = 'C',
	CMSG_COPY_DATA = 'd',
	CMSG_COPY_DONE = 'c',
	CMSG_COPY_FAIL = 'f',
	CMSG_DESCRIBE = 'D',
	CMSG_EXECUTE = 'E',
	CMSG_FLUSH = 'H',
	CMSG_FUNCTION_CALL = 'F',
	CMSG_PARSE = 'P',
	CMSG_PASSWORD = 'p', /* PasswordMessage, SASLInitialResponse, SASLResponse: the state tells which */
	CMSG_QUERY = 'Q',
	CMSG_SYNC = 'S',
	CMSG_TERMINATE = 'X',
};

/* From the server. */
enum server_msg {
	SMSG_AUTHENTICATION = 'R',
	SMSG_BACKEND_KEY_DATA = 'K',
	SMSG_BIND_COMPLETE = '2',
	SMSG_CLOSE_COMPLETE = '3',
	SMSG_COMMAND_COMPLETE = 'C',
	SMSG_COPY_BOTH_RESPONSE = 'W',
	SMSG_COPY_DATA = 'd',
	SMSG_COPY_DONE = 'c',
	SMSG_COPY_IN_RESPONSE = 'G',
	SMSG_COPY_OUT_RESPONSE = 'H',
	SMSG_DATA_ROW = 'D',
	SMSG_EMPTY_QUERY_RESPONSE = 'I',
	SMSG_ERROR_RESPONSE = 'E',
	SMSG_FUNCTION_CALL_RESPONSE = 'V',
	SMSG_NEGOTIATE_PROTOCOL_VERSION = 'v',
	SMSG_NOTICE_RESPONSE = 'N',
	SMSG_NOTIFICATION_RESPONSE = 'A',
	SMSG_NO_DATA = 'n',
	SMSG_PARAMETER_DESCRIPTION = 't',
	SMSG_PARAMETER_STATUS = 'S',
	SMSG_PARSE_COMPLETE = '1',
	SMSG_PORTAL_SUSPENDED = 's',
	SMSG_READY_FOR_QUERY = 'Z',
	SMSG_ROW_DESCRIPTION = 'T',
};

/* "Parse", "DataRow", … for logs; "unknown" for what is no message. */
const char *msg_client_name(char type);
const char *msg_server_name(char type);

/* Whole messages without a body, as spans that live for ever. */
#define MSG_SYNC SPAN_LIT("S\0\0\0\4")
#define MSG_FLUSH SPAN_LIT("H\0\0\0\4")
#define MSG_TERMINATE SPAN_LIT("X\0\0\0\4")
#define MSG_COPY_DONE SPAN_LIT("c\0\0\0\4")
#define MSG_PARSE_COMPLETE SPAN_LIT("1\0\0\0\4")
#define MSG_BIND_COMPLETE SPAN_LIT("2\0\0\0\4")
#define MSG_CLOSE_COMPLETE SPAN_LIT("3\0\0\0\4")
#define MSG_NO_DATA SPAN_LIT("n\0\0\0\4")
#define MSG_EMPTY_QUERY_RESPONSE SPAN_LIT("I\0\0\0\4")
#define MSG_PORTAL_SUSPENDED SPAN_LIT("s\0\0\0\4")

/* ---- decoding: client to server ---- */

bool msg_get_query(const struct wire_msg *m, struct span *sql) WARN_UNUSED;
bool msg_get_copy_fail(const struct wire_msg *m, struct span *reason) WARN_UNUSED;

struct msg_parse {
	struct span name, query;
	uint16_t n_types;
	const unsigned char *types; /* n_types OIDs, big-endian, unaligned: msg_parse_type() */
	struct span rest;           /* everything behind the name, for msg_put_parse_head() */
};
bool msg_get_parse(const struct wire_msg *m, struct msg_parse *out) WARN_UNUSED;

/* The OID of parameter *i* (from 0), 0 when the client left it open. */
static inline uint32_t
msg_parse_type(const struct msg_parse *p, unsigned i)
{
	return i < p->n_types ? wire_load_u32(p->types + 4 * (size_t)i) : 0;
}

struct msg_bind {
	struct span portal, statement;
	uint16_t n_formats, n_params, n_result_formats;
	const unsigned char *formats, *result_formats; /* 16-bit each, unaligned: msg_format() */
	struct span params;                            /* the parameters' lengths and values, one behind another */
	struct span rest;                              /* everything behind the names, for msg_put_bind_head() */
};
/* True only if every parameter lies within the message. n_formats other than 0, 1 and n_params is let through:
 * PostgreSQL answers it with an ERROR (08P01). */
bool msg_get_bind(const struct wire_msg *m, struct msg_bind *out) WARN_UNUSED;

/* The format of column or parameter *i* by the rule of Bind: no codes mean text for all, one code means that one for
 * all. 0 is text, 1 binary. */
static inline uint16_t
msg_format(const unsigned char *codes, unsigned n, unsigned i)
{
	if (n == 1)
		i = 0;
	return i < n ? wire_load_u16(codes + 2 * (size_t)i) : 0;
}

/* A parameter of Bind or a field of DataRow. */
struct msg_value {
	bool is_null;
	struct span bytes; /* SPAN_NONE for NULL */
};

/* Walks values that lie one behind another. */
struct msg_values {
	struct rd r;
	uint16_t n; /* how many there are */
	uint16_t i; /* how many were taken */
};
struct msg_values msg_bind_params(const struct msg_bind *b);
/* False at the end, or at a malformed value: then it->r.bad is set. */
bool msg_value_next(struct msg_values *it, struct msg_value *out);

struct msg_target { /* Describe and Close */
	char kind;  /* 'S' statement, 'P' portal */
	struct span name;
};
bool msg_get_target(const struct wire_msg *m, struct msg_target *out) WARN_UNUSED;

struct msg_execute {
	struct span portal;
	int32_t max_rows; /* 0 or less: all */
};
bool msg_get_execute(const struct wire_msg *m, struct msg_execute *out) WARN_UNUSED;

/* PasswordMessage: md5 response or clear text. */
bool msg_get_password(const struct wire_msg *m, struct span *password) WARN_UNUSED;
struct msg_sasl_initial {
	struct span mechanism;
	bool has_response;
	struct span response;
};
bool msg_get_sasl_initial(const struct wire_msg *m, struct msg_sasl_initial *out) WARN_UNUSED;

/* ---- decoding: server to client ---- */

struct msg_tag {
	struct span verb; /* "INSERT", "SELECT", "CREATE TABLE", … without any numbers */
	bool has_rows;
	uint64_t rows;
};
bool msg_get_command_complete(const struct wire_msg *m, struct msg_tag *out) WARN_UNUSED;
/* The tag by itself, without its NUL. */
struct msg_tag msg_tag_parse(struct span tag);

struct msg_column {
	struct span name;
	uint32_t table_oid; /* 0: no column of a table */
	int16_t attnum;
	uint32_t type_oid;
	int16_t typlen; /* negative: variable */
	int32_t typmod;
	uint16_t format;
};
struct msg_columns {
	struct rd r;
	uint16_t n, i;
};
/* Walks a RowDescription. The first two read the count; msg_column_next is false at the end or when malformed. */
bool msg_get_row_description(const struct wire_msg *m, struct msg_columns *it) WARN_UNUSED;
bool msg_column_next(struct msg_columns *it, struct msg_column *out);

bool msg_get_data_row(const struct wire_msg *m, struct msg_values *it) WARN_UNUSED;

/* ParameterDescription: *types* holds *n* OIDs, big-endian and unaligned (wire_load_u32). */
bool msg_get_parameter_description(const struct wire_msg *m, const unsigned char **types, uint16_t *n) WARN_UNUSED;

/* Finds field *code* ('C' SQLSTATE, 'M' message, 'V' severity, … docs 55.8) of an ErrorResponse or NoticeResponse.
 * False if it has none or is malformed before it. */
bool msg_error_field(const struct wire_msg *m, char code, struct span *out) WARN_UNUSED;
/* Whether all its fields are well-formed. */
bool msg_error_ok(const struct wire_msg *m) WARN_UNUSED;

bool msg_get_parameter_status(const struct wire_msg *m, struct span *name, struct span *value) WARN_UNUSED;
/* 'I' idle, 'T' in a transaction, 'E' in a failed one. */
bool msg_get_ready_for_query(const struct wire_msg *m, char *status) WARN_UNUSED;
/* The secret has 4 bytes in protocol 3.0 and up to 256 in 3.2. */
bool msg_get_backend_key_data(const struct wire_msg *m, uint32_t *pid, struct span *secret) WARN_UNUSED;

struct msg_copy { /* CopyInResponse, CopyOutResponse, CopyBothResponse */
	uint8_t format; /* 0 text, 1 binary */
	uint16_t n_columns;
	const unsigned char *formats; /* n_columns codes of 16 bits, for msg_format() */
};
bool msg_get_copy_response(const struct wire_msg *m, struct msg_copy *out) WARN_UNUSED;

struct msg_notification {
	uint32_t pid;
	struct span channel, payload;
};
bool msg_get_notification(const struct wire_msg *m, struct msg_notification *out) WARN_UNUSED;

/* ---- encoding: server to client ---- */

/* *severity*: "ERROR", "FATAL", "PANIC" for ErrorResponse; "WARNING", "NOTICE", "INFO", … for NoticeResponse. It goes out
 * as S and V; the routine field (R) is "pgspan", by which clients and tests tell pgspan's errors from a server's. */
void msg_put_error(struct wbuf *w, const char *severity, const struct diag *d);
void msg_put_notice(struct wbuf *w, const char *severity, const struct diag *d);

void msg_put_ready_for_query(struct wbuf *w, char status);
void msg_put_command_complete(struct wbuf *w, const char *tag);
/* "SELECT 5", "INSERT 0 5": the count as PostgreSQL writes it for *verb*. */
void msg_put_command_complete_rows(struct wbuf *w, struct span verb, uint64_t rows);
void msg_put_parameter_status(struct wbuf *w, const char *name, const char *value);
void msg_put_backend_key_data(struct wbuf *w, uint32_t pid, struct span secret);

void msg_put_auth_ok(struct wbuf *w);
void msg_put_auth_cleartext(struct wbuf *w);
void msg_put_auth_md5(struct wbuf *w, const unsigned char salt[4]);
/* Offers *mechanism*, and before it *better* unless that is NULL. */
void msg_put_auth_sasl(struct wbuf *w, const char *better, const char *mechanism);
void msg_put_auth_sasl_continue(struct wbuf *w, struct span data);
void msg_put_auth_sasl_final(struct wbuf *w, struct span data);

/* *newest*: the newest version that pgspan speaks, as in a StartupMessage (0x00030000). The documentation says "minor
 * version", but PostgreSQL sends, and libpq reads, the whole number. */
void msg_put_negotiate_protocol_version(struct wbuf *w, uint32_t newest, const char *const *options, size_t n_options);

/* A RowDescription in steps: begin, n times add, end. */
void msg_row_description_begin(struct wbuf *w, uint16_t n);
void msg_row_description_add(struct wbuf *w, const struct msg_column *c);
/* A column of text that belongs to no table (the console's results): type text (25), text format. */
void msg_row_description_add_text(struct wbuf *w, const char *name);
/* A DataRow in steps: begin, n times add, end. value NULL with n 0 is an empty string; msg_data_row_null() is NULL. */
void msg_data_row_begin(struct wbuf *w, uint16_t n);
void msg_data_row_add(struct wbuf *w, struct span value);
void msg_data_row_null(struct wbuf *w);
/* Both end by wbuf_end(). */

/* ---- encoding: client to server ---- */

void msg_put_query(struct wbuf *w, struct span sql);
/* *types*: n OIDs in host order. */
void msg_put_parse(struct wbuf *w, struct span name, struct span query, const uint32_t *types, uint16_t n);
/* The same Parse under another name, but for its last p->rest.n bytes: send the wbuf, then p->rest. */
void msg_put_parse_head(struct wbuf *w, const struct msg_parse *p, struct span name);

/* A Bind of *n* parameters in text format (is_null obeyed), results in text. */
void msg_put_bind_text(struct wbuf *w, struct span portal, struct span statement, const struct msg_value *params, uint16_t n);
/* The same Bind under other names, but for its last b->rest.n bytes: send the wbuf, then b->rest (one writev). The body
 * must have been bounded so that it stays below 2 GiB with the new names. */
void msg_put_bind_head(struct wbuf *w, const struct msg_bind *b, struct span portal, struct span statement);

/* *kind*: 'S' statement or 'P' portal. */
void msg_put_describe(struct wbuf *w, char kind, struct span name);
void msg_put_close(struct wbuf *w, char kind, struct span name);
void msg_put_execute(struct wbuf *w, struct span portal, int32_t max_rows);
void msg_put_copy_fail(struct wbuf *w, const char *reason);

#endif
