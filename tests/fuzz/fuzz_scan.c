/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/sql/scan.o proxy/sql/scan_literal.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o proxy/base/arena.o */
/* fuzz_scan - the scanner held against PostgreSQL's own, which libpg_query carries.
 *
 * The input's first byte chooses the flags, the rest is SQL. Checked on every input: no byte outside is read (the text
 * is copied to a heap block of its very size), tokens are in order, not empty and apart, scan_sql() agrees with
 * scan_next(), and putting each token on a line of its own leaves the shape as it was. When pg_query_scan() takes the
 * text, all of its tokens but comments must be ours, in place and kind. When pg_query_parse gives a string
 * literal a value, scan_literal_text() must give the same or none, and the other way round.
 *
 * Known differences, all of libpg_query's making, and passed over here:
 * - it makes tokens of comments, and so ends a string at a comment between its segments ('a' -- x, newline, 'b'), where
 *   PostgreSQL goes on; its parser then calls such a text a syntax error, which is safe;
 * - the end it gives for U&'…' and U&"…" is that of their first byte or two; where the next token starts is compared;
 * - it stops at a NUL byte (its input is a C string); such texts are only scanned by us;
 * - it knows standard_conforming_strings = on only, so the off form is checked for safety alone. */
#include <pg_query.h>
#include <pg_query/pg_query.pb-c.h>

#include "pgspan/scan.h"

#define CHECK(x)                                                                  \
	do {                                                                      \
		if (!(x)) {                                                       \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);   \
			abort();                                                  \
		}                                                                 \
	} while (0)

enum { MAX_TOKENS = 1 << 16 };

static struct scan_token tokens[MAX_TOKENS];
static size_t n_tokens;
static struct scan scan, other;

/* May PostgreSQL's token be ours? */
static bool
same_kind(int theirs, PgQuery__KeywordKind keyword, const struct scan_token *tok, const char *sql)
{
	switch (tok->kind) {
	case SCAN_LIT_STRING: case SCAN_LIT_ESTRING: case SCAN_LIT_DOLLAR: return theirs == PG_QUERY__TOKEN__SCONST;
	case SCAN_LIT_USTRING: return theirs == PG_QUERY__TOKEN__USCONST;
	case SCAN_LIT_BIT: return theirs == PG_QUERY__TOKEN__BCONST;
	case SCAN_LIT_HEX: return theirs == PG_QUERY__TOKEN__XCONST;
	case SCAN_LIT_INT: return theirs == PG_QUERY__TOKEN__ICONST;
	case SCAN_LIT_BIGINT: case SCAN_LIT_FLOAT: return theirs == PG_QUERY__TOKEN__FCONST;
	case SCAN_PARAM: return theirs == PG_QUERY__TOKEN__PARAM;
	case SCAN_IDENT: return theirs == PG_QUERY__TOKEN__IDENT || keyword != PG_QUERY__KEYWORD_KIND__NO_KEYWORD;
	case SCAN_QIDENT: return theirs == PG_QUERY__TOKEN__IDENT;
	case SCAN_UIDENT: return theirs == PG_QUERY__TOKEN__UIDENT;
	case SCAN_NCHAR: return theirs == PG_QUERY__TOKEN__NCHAR;
	case SCAN_OP: return theirs == PG_QUERY__TOKEN__Op;
	case SCAN_TYPECAST: return theirs == PG_QUERY__TOKEN__TYPECAST;
	case SCAN_DOT_DOT: return theirs == PG_QUERY__TOKEN__DOT_DOT;
	case SCAN_COLON_EQUALS: return theirs == PG_QUERY__TOKEN__COLON_EQUALS;
	case SCAN_EQUALS_GREATER: return theirs == PG_QUERY__TOKEN__EQUALS_GREATER;
	case SCAN_LESS_EQUALS: return theirs == PG_QUERY__TOKEN__LESS_EQUALS;
	case SCAN_GREATER_EQUALS: return theirs == PG_QUERY__TOKEN__GREATER_EQUALS;
	case SCAN_NOT_EQUALS: return theirs == PG_QUERY__TOKEN__NOT_EQUALS;
	case SCAN_SELF: case SCAN_OTHER: return tok->len == 1 && theirs == (unsigned char)sql[tok->off];
	default: return false;
	}
}

/* Does libpg_query end the string *tok* at *end*, where PostgreSQL goes on behind a comment? */
static bool
ends_at_comment(const struct scan_token *tok, const char *sql, size_t end)
{
	size_t ours = tok->off + tok->len;

	while (end < ours && strchr(" \t\n\r\f", sql[end]))
		end++;
	return scan_is_literal(tok->kind) && end + 2 < ours && sql[end] == '-' && sql[end + 1] == '-';
}

static void
compare_tokens(const char *sql)
{
	PgQueryScanResult r = pg_query_scan(sql);
	size_t ours = 0;

	if (!r.error) {
		PgQuery__ScanResult *res = pg_query__scan_result__unpack(NULL, r.pbuf.len, (void *)r.pbuf.data);

		CHECK(res);
		for (size_t i = 0; i < res->n_tokens; i++) {
			const PgQuery__ScanToken *t = res->tokens[i];
			const struct scan_token *tok = &tokens[ours];

			if (t->token == PG_QUERY__TOKEN__SQL_COMMENT || t->token == PG_QUERY__TOKEN__C_COMMENT)
				continue;
			if (ours < n_tokens && tok->off == (uint32_t)t->start && ends_at_comment(tok, sql, (size_t)t->end))
				goto done;
			if (ours > 0 && tok[-1].kind == SCAN_LIT_USTRING && (uint32_t)t->start < tok[-1].off + tok[-1].len &&
			    memmem(sql + tok[-1].off, tok[-1].len, "--", 2))
				goto done;
			if ((t->token == PG_QUERY__TOKEN__USCONST || t->token == PG_QUERY__TOKEN__UIDENT) && ours < n_tokens &&
			    tok->off == (uint32_t)t->start && same_kind((int)t->token, t->keyword_kind, tok, sql)) {
				ours++;
				continue;
			}
			/* libpg_query gives a string that is continued over lines the length of its last segment: what comes
			 * behind it shows whether its end is right. */
			bool seam = tok->kind >= SCAN_LIT_STRING && tok->kind <= SCAN_LIT_HEX &&
				(memchr(sql + tok->off, '\n', tok->len) || memchr(sql + tok->off, '\r', tok->len));
			if (ours >= n_tokens || tok->off != (uint32_t)t->start ||
			    (!seam && tok->off + tok->len != (uint32_t)t->end) ||
			    !same_kind((int)t->token, t->keyword_kind, tok, sql)) {
				fprintf(stderr, "token %zu of %zu: theirs %d-%d kind %d, ours %u-%u kind %d\n%s\n", ours, n_tokens,
				        t->start, t->end, (int)t->token, tok->off, tok->off + tok->len, tok->kind, sql);
				abort();
			}
			ours++;
		}
		CHECK(ours == n_tokens);
		CHECK(!(scan.found & SCAN_UNTERMINATED));
	done:
		pg_query__scan_result__free_unpacked(res, NULL);
	}
	pg_query_free_scan_result(r);
}

/* The value PostgreSQL gives to a string literal, malloc'ed; NULL if it refuses. */
static char *
their_value(const char *literal, size_t len)
{
	char *sql = malloc(len + 8), *value = NULL;

	memcpy(sql, "SELECT ", 7);
	memcpy(sql + 7, literal, len);
	sql[7 + len] = '\0';
	PgQueryProtobufParseResult r = pg_query_parse_protobuf(sql);

	if (!r.error) {
		PgQuery__ParseResult *tree =
			pg_query__parse_result__unpack(NULL, r.parse_tree.len, (void *)r.parse_tree.data);
		PgQuery__Node *node = tree->stmts[0]->stmt->select_stmt->target_list[0]->res_target->val;

		CHECK(node->node_case == PG_QUERY__NODE__NODE_A_CONST);
		CHECK(node->a_const->val_case == PG_QUERY__A__CONST__VAL_SVAL);
		value = strdup(node->a_const->sval->sval);
		pg_query__parse_result__free_unpacked(tree, NULL);
	}
	pg_query_free_protobuf_parse_result(r);
	free(sql);
	return value;
}

static void
compare_values(const char *sql)
{
	for (uint32_t i = 0; i < scan.n_literals && i < 8; i++) {
		const struct scan_literal *lit = &scan.literals[i];

		if (lit->kind > SCAN_LIT_DOLLAR || (lit->flags & SCAN_LIT_UESCAPE))
			continue;
		if (memmem(sql + lit->off, lit->len, "--", 2))
			continue; /* a comment between segments, perhaps */
		char *out = malloc(lit->len), *theirs = their_value(sql + lit->off, lit->len);
		ssize_t n = scan_literal_text(sql, lit, 0, out, lit->len);

		if (n >= 0 && (!theirs || strlen(theirs) != (size_t)n || memcmp(theirs, out, (size_t)n) != 0)) {
			fprintf(stderr, "value of %.*s: theirs %s, ours %.*s\n", (int)lit->len, sql + lit->off,
			        theirs ? theirs : "(none)", (int)n, out);
			abort();
		}
		/* Ours may be none for \v, and for an escape of U&'…' that a seam between segments cuts. */
		if (n < 0 && theirs && !memmem(sql + lit->off, lit->len, "\\v", 2) && lit->kind != SCAN_LIT_USTRING) {
			fprintf(stderr, "value of %.*s: theirs %s, ours none\n", (int)lit->len, sql + lit->off, theirs);
			abort();
		}
		free(out);
		free(theirs);
	}
}

/* Our own promises. */
static void
check_tokens(const char *sql, size_t len, unsigned flags)
{
	struct scan_iter it;
	struct scan_token tok;
	size_t end = 0, literal = 0;

	n_tokens = 0;
	scan_iter_init(&it, sql, len, flags);
	while (scan_next(&it, &tok)) {
		CHECK(tok.len > 0 && tok.off >= end && tok.off + tok.len <= len);
		end = tok.off + tok.len;
		CHECK(n_tokens < MAX_TOKENS);
		tokens[n_tokens++] = tok;
		if (literal < scan.n_literals && scan.literals[literal].off == tok.off) {
			CHECK(scan.literals[literal].len == tok.len && scan.literals[literal].kind == tok.kind);
			literal++;
		}
	}
	CHECK(literal == scan.n_literals);
	CHECK(it.found == scan.found && it.n_hints == scan.n_hints);
	CHECK(tok.kind == SCAN_END && !scan_next(&it, &tok));
}

/* A comment between all tokens changes nothing; neither does a piece of the stream's buffer ending elsewhere. */
static void
check_shape(const char *sql, size_t len, unsigned flags)
{
	size_t n = 0;
	char *spread = malloc(len + n_tokens * 6 + 1);

	for (size_t i = 0; i < n_tokens; i++) {
		memcpy(spread + n, sql + tokens[i].off, tokens[i].len);
		n += tokens[i].len;
		if (tokens[i].kind != SCAN_NCHAR) {
			memcpy(spread + n, " /**/ ", 6); /* no newline, which would join strings */
			n += 6;
		}
	}
	CHECK(scan_sql(spread, n, flags, &other) == 0);
	CHECK(other.shape[0] == scan.shape[0] && other.shape[1] == scan.shape[1]);
	CHECK(other.n_literals == scan.n_literals && other.n_statements == scan.n_statements);
	free(spread);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > MAX_TOKENS)
		return 0;
	if (!scan.literals) {
		scan_init(&scan);
		scan_init(&other);
	}
	unsigned flags = data[0] & SCAN_SCS_OFF;
	size_t len = size - 1;
	char *sql = malloc(len ? len : 1);

	memcpy(sql, data + 1, len);
	int rc = scan_sql(sql, len, flags, &scan);

	check_tokens(sql, len, flags);
	if (rc == 0)
		check_shape(sql, len, flags);
	for (uint32_t i = 0; i < scan.n_literals; i++) {
		char *out = malloc(scan.literals[i].len);

		CHECK(scan_literal_text(sql, &scan.literals[i], flags, out, scan.literals[i].len) <=
		      (ssize_t)scan.literals[i].len);
		free(out);
	}
	if (!(flags & SCAN_SCS_OFF) && !memchr(sql, '\0', len)) {
		char *c_text = strndup(sql, len);

		compare_tokens(c_text);
		if (rc == 0)
			compare_values(c_text);
		free(c_text);
	}
	free(sql);
	return 0;
}
