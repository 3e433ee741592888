/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/msg.o proxy/proto/msg_put.o proxy/proto/wire.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
#include "unit.h"

#include "pgspan/msg.h"

static struct wire_msg
msg_of(const char *bytes, size_t n)
{
	struct wire_msg m;

	assert_int_equal(wire_take(bytes, n, 1 << 20, &m), WIRE_OK);
	assert_int_equal(m.len + 5, n);
	return m;
}
#define MSG_LIT(s) msg_of((s), sizeof(s) - 1)

/* Runs every decoder that the body could be meant for; whether one of them says yes. */
static bool
decode(const struct wire_msg *m)
{
	struct span s, s2;
	struct msg_parse parse;
	struct msg_bind bind;
	struct msg_target target;
	struct msg_execute execute;
	struct msg_tag tag;
	struct msg_columns columns;
	struct msg_column column;
	struct msg_values values;
	struct msg_value value;
	struct msg_copy copy;
	struct msg_notification note;
	uint32_t pid;
	char status;

	switch (m->type) {
	case 'Q': return msg_get_query(m, &s);
	case 'P': return msg_get_parse(m, &parse);
	case 'B': return msg_get_bind(m, &bind);
	case 'X': return msg_get_target(m, &target); /* here: Describe, whose letter is DataRow's */
	case 'x': return msg_get_execute(m, &execute); /* here: Execute, whose letter is ErrorResponse's */
	case 'C': return msg_get_command_complete(m, &tag);
	case 'E': return msg_error_ok(m);
	case 'S': return msg_get_parameter_status(m, &s, &s2);
	case 'Z': return msg_get_ready_for_query(m, &status);
	case 'K': return msg_get_backend_key_data(m, &pid, &s);
	case 'G': return msg_get_copy_response(m, &copy);
	case 'A': return msg_get_notification(m, &note);
	case 'T':
		if (!msg_get_row_description(m, &columns))
			return false;
		while (msg_column_next(&columns, &column))
			;
		return rd_done(&columns.r);
	case 'D':
		if (!msg_get_data_row(m, &values))
			return false;
		while (msg_value_next(&values, &value))
			;
		return rd_done(&values.r);
	}
	fail();
	return false;
}

/* Every body that ends early or late must be refused; each is put in memory of its exact size, for ASan. */
static void
msg_get__truncated_or_extended__refused(void **state)
{
	static const struct span good[] = {
		SPAN_LIT("Q\0\0\0\x0dselect 1\0"),
		SPAN_LIT("P\0\0\0\x17s1\0select $1\0\0\1\0\0\0\x17"),
		SPAN_LIT("B\0\0\0\x1ap\0s\0\0\1\0\1\0\2\xff\xff\xff\xff\0\0\0\2hi\0\0"),
		SPAN_LIT("X\0\0\0\7Ss\0"),
		SPAN_LIT("x\0\0\0\x0ap\0\0\0\0\5"),
		SPAN_LIT("C\0\0\0\x0fINSERT 0 5\0"),
		SPAN_LIT("E\0\0\0\x14SERROR\0C42601\0\0"),
		SPAN_LIT("S\0\0\0\x08" "a\0b\0"),
		SPAN_LIT("Z\0\0\0\5I"),
		SPAN_LIT("A\0\0\0\x0c\0\0\0\1c\0p\0"),
		SPAN_LIT("G\0\0\0\x0b\0\0\2\0\0\0\0"),
		SPAN_LIT("T\0\0\0\x1a\0\1abc\0\0\0\0\0\0\0\0\0\0\x17\0\4\xff\xff\xff\xff\0\0"),
		SPAN_LIT("D\0\0\0\x10\0\2\xff\xff\xff\xff\0\0\0\2hi"),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		size_t len = good[i].n - 5;

		for (size_t n = 0; n <= len + 1; n++) {
			unsigned char *body = malloc(n ? n : 1);
			struct wire_msg m = {good[i].p[0], (uint32_t)n, body};

			memcpy(body, good[i].p + 5, n < len ? n : len);
			if (n > len)
				body[len] = 0;
			if (decode(&m) != (n == len))
				fail_msg("'%c' cut to %zu of %zu bytes", m.type, n, len);
			free(body);
		}
	}
}

static void
msg_get_parse__types__fields(void **state)
{
	struct wire_msg m = MSG_LIT("P\0\0\0\x17s1\0select $1\0\0\1\0\0\0\x17");
	struct msg_parse p;

	(void)state;
	assert_true(msg_get_parse(&m, &p));
	assert_span(p.name, "s1");
	assert_span(p.query, "select $1");
	assert_int_equal(p.n_types, 1);
	assert_int_equal(msg_parse_type(&p, 0), 23);
	assert_int_equal(msg_parse_type(&p, 1), 0);
	assert_int_equal(p.rest.n, 16);
}

static void
msg_get_bind__null_and_value__iterated(void **state)
{
	struct wire_msg m = MSG_LIT("B\0\0\0\x1ap\0s\0\0\1\0\1\0\2\xff\xff\xff\xff\0\0\0\2hi\0\0");
	struct msg_bind b;
	struct msg_values it;
	struct msg_value v;

	(void)state;
	assert_true(msg_get_bind(&m, &b));
	assert_span(b.portal, "p");
	assert_span(b.statement, "s");
	assert_int_equal(b.n_params, 2);
	assert_int_equal(msg_format(b.formats, b.n_formats, 1), 1);
	assert_int_equal(msg_format(b.result_formats, b.n_result_formats, 0), 0);
	it = msg_bind_params(&b);
	assert_true(msg_value_next(&it, &v));
	assert_true(v.is_null);
	assert_true(msg_value_next(&it, &v));
	assert_false(v.is_null);
	assert_span(v.bytes, "hi");
	assert_false(msg_value_next(&it, &v));
	assert_true(rd_done(&it.r));
}

static void
msg_get_bind__negative_length__refused(void **state)
{
	struct wire_msg m = MSG_LIT("B\0\0\0\x10\0\0\0\0\0\1\xff\xff\xff\xfe\0\0");
	struct msg_bind b;

	(void)state;
	assert_false(msg_get_bind(&m, &b));
}

static void
msg_put_bind_head__new_names__head_and_rest_decode(void **state)
{
	static const char bytes[] = "B\0\0\0\x1ap\0s\0\0\1\0\1\0\2\xff\xff\xff\xff\0\0\0\2hi\0\0";
	struct wire_msg m = msg_of(bytes, sizeof bytes - 1);
	struct wbuf w = {0};
	struct msg_bind b;

	(void)state;
	assert_true(msg_get_bind(&m, &b));
	msg_put_bind_head(&w, &b, SPAN_LIT("p"), SPAN_LIT("pgspan_17"));
	assert_int_equal(w.n, 17);
	assert_memory_equal(w.p, "B\0\0\0\x22p\0pgspan_17\0", 17);
	wbuf_span(&w, b.rest);
	m = msg_of(w.p, w.n);
	assert_true(msg_get_bind(&m, &b));
	assert_span(b.statement, "pgspan_17");
	assert_int_equal(b.n_params, 2);
	wbuf_clear(&w);
	/* Under its own names it comes out as it was. */
	m = msg_of(bytes, sizeof bytes - 1);
	assert_true(msg_get_bind(&m, &b));
	msg_put_bind_head(&w, &b, b.portal, b.statement);
	wbuf_span(&w, b.rest);
	assert_wbuf(&w, "B\0\0\0\x1ap\0s\0\0\1\0\1\0\2\xff\xff\xff\xff\0\0\0\2hi\0\0");
	wbuf_fini(&w);
}

static void
msg_put_parse__decoded_and_renamed__same_tail(void **state)
{
	const uint32_t types[] = {23, 0};
	struct wbuf w = {0}, w2 = {0};
	struct wire_msg m;
	struct msg_parse p;

	(void)state;
	msg_put_parse(&w, SPAN_LIT("a"), SPAN_LIT("select $1"), types, 2);
	m = msg_of(w.p, w.n);
	assert_true(msg_get_parse(&m, &p));
	assert_int_equal(msg_parse_type(&p, 0), 23);
	msg_put_parse_head(&w2, &p, SPAN_LIT("bc"));
	wbuf_span(&w2, p.rest);
	assert_wbuf(&w2, "P\0\0\0\x1b" "bc\0select $1\0\0\2\0\0\0\x17\0\0\0\0");
	wbuf_fini(&w);
	wbuf_fini(&w2);
}

static void
msg_tag_parse__tags__verb_and_rows(void **state)
{
	static const struct {
		const char *tag, *verb;
		bool has_rows;
		uint64_t rows;
	} cases[] = {
		{"INSERT 0 5", "INSERT", true, 5},
		{"SELECT 0", "SELECT", true, 0},
		{"COPY 18446744073709551615", "COPY", true, UINT64_MAX},
		{"COPY 18446744073709551616", "COPY 18446744073709551616", false, 0},
		{"COPY 99999999999999999999", "COPY 99999999999999999999", false, 0},
		{"CREATE TABLE", "CREATE TABLE", false, 0},
		{"BEGIN", "BEGIN", false, 0},
		{"UPDATE 12x", "UPDATE 12x", false, 0},
		{"FETCH 0 5", "FETCH 0", true, 5},
		{"", "", false, 0},
		{" 5", " 5", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct msg_tag t = msg_tag_parse(span_str(cases[i].tag));

		assert_span(t.verb, cases[i].verb);
		assert_int_equal(t.has_rows, cases[i].has_rows);
		if (t.has_rows)
			assert_true(t.rows == cases[i].rows);
	}
}

static void
msg_put_command_complete_rows__verbs__tags(void **state)
{
	struct wbuf w = {0};

	(void)state;
	msg_put_command_complete_rows(&w, SPAN_LIT("INSERT"), 12);
	assert_wbuf(&w, "C\0\0\0\x10INSERT 0 12\0");
	msg_put_command_complete_rows(&w, SPAN_LIT("SELECT"), 0);
	assert_wbuf(&w, "C\0\0\0\x0dSELECT 0\0");
	wbuf_fini(&w);
}

static void
msg_put_error__diag__fields_in_order(void **state)
{
	struct wbuf w = {0};
	struct diag d = {0};
	struct wire_msg m;
	struct span s;

	(void)state;
	diag_set(&d, "53300", "too many");
	diag_hint(&d, "wait");
	msg_put_error(&w, "FATAL", &d);
	m = msg_of(w.p, w.n);
	assert_true(msg_error_ok(&m));
	assert_true(msg_error_field(&m, 'H', &s));
	assert_span(s, "wait");
	assert_false(msg_error_field(&m, 'D', &s));
	assert_wbuf(&w, "E\0\0\0\x32SFATAL\0VFATAL\0C53300\0Mtoo many\0Hwait\0Rpgspan\0\0");
	wbuf_fini(&w);
}

static void
msg_put__short_messages__exact_bytes(void **state)
{
	static const char *const options[] = {"_pq_.x"};
	struct wbuf w = {0};

	(void)state;
	msg_put_ready_for_query(&w, 'T');
	assert_wbuf(&w, "Z\0\0\0\5T");
	msg_put_parameter_status(&w, "a", "b");
	assert_wbuf(&w, "S\0\0\0\x08" "a\0b\0");
	msg_put_backend_key_data(&w, 258, SPAN_LIT("\1\2\3\4"));
	assert_wbuf(&w, "K\0\0\0\x0c\0\0\1\2\1\2\3\4");
	msg_put_auth_ok(&w);
	assert_wbuf(&w, "R\0\0\0\x08\0\0\0\0");
	msg_put_auth_cleartext(&w);
	assert_wbuf(&w, "R\0\0\0\x08\0\0\0\3");
	msg_put_auth_md5(&w, (const unsigned char *)"abcd");
	assert_wbuf(&w, "R\0\0\0\x0c\0\0\0\5" "abcd");
	msg_put_auth_sasl(&w, NULL, "SCRAM-SHA-256");
	assert_wbuf(&w, "R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
	msg_put_auth_sasl(&w, "A", "B");
	assert_wbuf(&w, "R\0\0\0\x0d\0\0\0\x0a" "A\0B\0\0");
	msg_put_auth_sasl_continue(&w, SPAN_LIT("r=x"));
	assert_wbuf(&w, "R\0\0\0\x0b\0\0\0\x0br=x");
	msg_put_auth_sasl_final(&w, SPAN_LIT("v=x"));
	assert_wbuf(&w, "R\0\0\0\x0b\0\0\0\x0cv=x");
	msg_put_negotiate_protocol_version(&w, 0x30000, options, 1);
	assert_wbuf(&w, "v\0\0\0\x13\0\3\0\0\0\0\0\1_pq_.x\0");
	msg_put_query(&w, SPAN_LIT("x"));
	assert_wbuf(&w, "Q\0\0\0\6x\0");
	msg_put_describe(&w, 'S', SPAN_LIT("x"));
	assert_wbuf(&w, "D\0\0\0\7Sx\0");
	msg_put_close(&w, 'P', SPAN_NONE);
	assert_wbuf(&w, "C\0\0\0\6P\0");
	msg_put_execute(&w, SPAN_NONE, 5);
	assert_wbuf(&w, "E\0\0\0\x09\0\0\0\0\5");
	wbuf_fini(&w);
	assert_int_equal(MSG_SYNC.n, 5);
	assert_memory_equal(MSG_NO_DATA.p, "n\0\0\0\4", 5);
}

static void
msg_row_description__text_columns__round_trip(void **state)
{
	struct wbuf w = {0};
	struct wire_msg m;
	struct msg_columns it;
	struct msg_column c;

	(void)state;
	msg_row_description_begin(&w, 1);
	msg_row_description_add_text(&w, "db");
	wbuf_end(&w);
	m = msg_of(w.p, w.n);
	assert_true(msg_get_row_description(&m, &it));
	assert_int_equal(it.n, 1);
	assert_true(msg_column_next(&it, &c));
	assert_span(c.name, "db");
	assert_int_equal(c.type_oid, 25);
	assert_int_equal(c.typlen, -1);
	assert_int_equal(c.typmod, -1);
	assert_false(msg_column_next(&it, &c));
	assert_true(rd_done(&it.r));
	wbuf_clear(&w);
	msg_data_row_begin(&w, 3);
	msg_data_row_add(&w, SPAN_LIT("ab"));
	msg_data_row_null(&w);
	msg_data_row_add(&w, SPAN_NONE);
	wbuf_end(&w);
	assert_wbuf(&w, "D\0\0\0\x14\0\3\0\0\0\2ab\xff\xff\xff\xff\0\0\0\0");
	wbuf_fini(&w);
}

static void
msg_get_sasl_initial__with_and_without_response__told_apart(void **state)
{
	struct wire_msg m = MSG_LIT("p\0\0\0\x0dX\0\0\0\0\3n,,");
	struct msg_sasl_initial i;

	(void)state;
	assert_true(msg_get_sasl_initial(&m, &i));
	assert_span(i.mechanism, "X");
	assert_span(i.response, "n,,");
	m = MSG_LIT("p\0\0\0\x0aX\0\xff\xff\xff\xff");
	assert_true(msg_get_sasl_initial(&m, &i));
	assert_false(i.has_response);
	m = MSG_LIT("p\0\0\0\x0aX\0\xff\xff\xff\xfe");
	assert_false(msg_get_sasl_initial(&m, &i));
}

static void
msg_name__letters__by_direction(void **state)
{
	(void)state;
	assert_string_equal(msg_client_name('D'), "Describe");
	assert_string_equal(msg_server_name('D'), "DataRow");
	assert_string_equal(msg_server_name((char)0xff), "unknown");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(msg_get__truncated_or_extended__refused),
		cmocka_unit_test(msg_get_parse__types__fields),
		cmocka_unit_test(msg_get_bind__null_and_value__iterated),
		cmocka_unit_test(msg_get_bind__negative_length__refused),
		cmocka_unit_test(msg_put_bind_head__new_names__head_and_rest_decode),
		cmocka_unit_test(msg_put_parse__decoded_and_renamed__same_tail),
		cmocka_unit_test(msg_tag_parse__tags__verb_and_rows),
		cmocka_unit_test(msg_put_command_complete_rows__verbs__tags),
		cmocka_unit_test(msg_put_error__diag__fields_in_order),
		cmocka_unit_test(msg_put__short_messages__exact_bytes),
		cmocka_unit_test(msg_row_description__text_columns__round_trip),
		cmocka_unit_test(msg_get_sasl_initial__with_and_without_response__told_apart),
		cmocka_unit_test(msg_name__letters__by_direction),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
