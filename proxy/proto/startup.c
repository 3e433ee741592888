/* SPDX-License-Identifier: BSD-2-Clause */
/* startup - decoding of the first packets.
 *
 * A packet of at most 10,004 bytes is whole before this code sees it. Two passes over the parameters: the first counts
 * and checks the layout, so that arrays are allocated once; the second fills them. A repeated parameter counts each
 * time and the last one wins, as in PostgreSQL. Settings are not judged here: only a server knows what is valid. */
#include "pgspan/startup.h"
#include "pgspan/sqlstate.h"
#include "pgspan/wire.h"

#include <strings.h>

#define CODE_CANCEL (1234u << 16 | 5678u)
#define CODE_SSL (1234u << 16 | 5679u)
#define CODE_GSSENC (1234u << 16 | 5680u)

ssize_t
startup_peek(const void *buf, size_t n)
{
	uint32_t len;

	if (n < 4)
		return 0;
	len = wire_load_u32(buf);
	if (len < 8 || len > 4 + STARTUP_MAX_BODY)
		return STARTUP_BAD_LENGTH;
	return n < len ? 0 : (ssize_t)len;
}

static enum rc
fail_layout(struct diag *d)
{
	diag_set(d, SQLSTATE_PROTOCOL_VIOLATION, "invalid startup packet layout: expected terminator as last byte");
	return RC_FAIL;
}

/* The words for booleans that PostgreSQL's parse_bool takes: any unambiguous beginning, in any case. */
static bool
parse_bool(const char *s, bool *value)
{
	static const struct {
		const char *word;
		size_t shortest;
		bool value;
	} words[] = {{"true", 1, true}, {"false", 1, false}, {"yes", 1, true}, {"no", 1, false},
		     {"on", 2, true},   {"off", 2, false},   {"1", 1, true},   {"0", 1, false}};
	size_t n = strlen(s);

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (n >= words[i].shortest && n <= strlen(words[i].word) && strncasecmp(s, words[i].word, n) == 0) {
			*value = words[i].value;
			return true;
		}
	return false;
}

static enum rc
set_replication(struct startup *s, const char *value, struct diag *d)
{
	bool on;

	if (strcmp(value, "database") == 0) {
		s->replication = REPLICATION_DATABASE;
		return RC_OK;
	}
	if (!parse_bool(value, &on)) {
		diag_set(d, SQLSTATE_INVALID_PARAMETER_VALUE, "invalid value for parameter \"replication\": \"%s\"", value);
		diag_hint(d, "Valid values are: \"false\", 0, \"true\", 1, \"database\".");
		return RC_FAIL;
	}
	s->replication = on ? REPLICATION_PHYSICAL : REPLICATION_NONE;
	return RC_OK;
}

/* ---- the "options" parameter ---- */

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Takes the next word of a command line: words end at white space, a backslash makes the next character plain
 * (PostgreSQL's pg_split_opts). NULL when there is none. */
static char *
next_word(const char **at, struct arena *a)
{
	const char *s = *at;
	char *word, *to;

	while (is_space(*s))
		s++;
	if (!*s)
		return NULL;
	word = to = arena_alloc(a, strlen(s) + 1);
	for (; *s && !is_space(*s); s++) {
		if (*s == '\\' && !*++s)
			break;
		*to++ = *s;
	}
	*to = '\0';
	*at = s;
	return word;
}

/* Adds "name=value" of -c or --. Dashes in the name stand for underscores, as in PostgreSQL's ParseLongOption. */
static enum rc
add_long_option(struct startup *s, const char *flag, char *text, struct diag *d)
{
	char *eq = strchr(text, '=');

	if (!eq) {
		diag_set(d, SQLSTATE_SYNTAX_ERROR, "%s%s requires a value", flag, text);
		return RC_FAIL;
	}
	*eq = '\0';
	for (char *c = text; *c; c++)
		if (*c == '-')
			*c = '_';
	s->settings[s->n_settings++] = (struct startup_setting){text, eq + 1};
	return RC_OK;
}

static enum rc
fail_option(const char *word, struct diag *d)
{
	diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "command-line option \"%s\" in \"options\" is not supported", word);
	diag_hint(d, "Write settings as \"-c name=value\" or \"--name=value\".");
	return RC_FAIL;
}

static enum rc
add_options(struct startup *s, const char *options, struct arena *a, struct diag *d)
{
	char *word;

	while ((word = next_word(&options, a)) != NULL) {
		const char *flag = "-c ";
		char *text = word + 2;

		if (word[0] != '-' || (word[1] != 'c' && word[1] != '-'))
			return fail_option(word, d);
		if (word[1] == '-') {
			flag = "--";
		} else if (!*text) {
			text = next_word(&options, a);
			if (!text) {
				diag_set(d, SQLSTATE_SYNTAX_ERROR, "-c requires a value");
				return RC_FAIL;
			}
		}
		if (add_long_option(s, flag, text, d) != RC_OK)
			return RC_FAIL;
	}
	return RC_OK;
}

/* ---- StartupMessage ---- */

/* Whether *n* bytes are pairs of strings and one NUL, no more; counts the pairs. */
static bool
check_layout(struct rd r, size_t *n_pairs)
{
	*n_pairs = 0;
	while (rd_left(&r) > 1) {
		struct span name = rd_cstr(&r);

		rd_cstr(&r);
		if (r.bad || name.n == 0)
			return false;
		++*n_pairs;
	}
	return rd_u8(&r) == 0 && rd_done(&r);
}

static enum rc
take_parameter(struct startup *s, const char *name, const char *value, const char **options, struct diag *d)
{
	if (strcmp(name, "user") == 0)
		s->user = value;
	else if (strcmp(name, "database") == 0)
		s->database = value;
	else if (strcmp(name, "options") == 0)
		*options = value;
	else if (strcmp(name, "replication") == 0)
		return set_replication(s, value, d);
	else if (strncmp(name, "_pq_.", 5) == 0)
		s->pq_options[s->n_pq_options++] = name;
	else
		s->settings[s->n_settings++] = (struct startup_setting){name, value};
	return RC_OK;
}

/* The settings of *options* go before those already there: parameters of their own override them. */
static enum rc
prepend_options(struct startup *s, const char *options, struct arena *a, struct diag *d)
{
	struct startup_setting *later = s->settings;
	size_t n_later = s->n_settings;

	/* The shortest setting is "--=" and a space: there are no more than that many. */
	s->settings = arena_alloc(a, (n_later + strlen(options) / 3 + 1) * sizeof *later);
	s->n_settings = 0;
	if (add_options(s, options, a, d) != RC_OK)
		return RC_FAIL;
	if (n_later)
		memcpy(s->settings + s->n_settings, later, n_later * sizeof *later);
	s->n_settings += n_later;
	return RC_OK;
}

static enum rc
decode_message(struct rd r, struct arena *a, struct startup *s, struct diag *d)
{
	const char *options = NULL;
	size_t n_pairs;

	if (!check_layout(r, &n_pairs))
		return fail_layout(d);
	s->settings = arena_alloc(a, (n_pairs + 1) * sizeof *s->settings);
	s->pq_options = arena_alloc(a, (n_pairs + 1) * sizeof *s->pq_options);
	for (size_t i = 0; i < n_pairs; i++) {
		struct span name = rd_cstr(&r), value = rd_cstr(&r);

		if (take_parameter(s, arena_strndup(a, name.p, name.n), arena_strndup(a, value.p, value.n), &options, d) != RC_OK)
			return RC_FAIL;
	}
	if (!s->user || !s->user[0]) {
		diag_set(d, SQLSTATE_INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet");
		return RC_FAIL;
	}
	if (!s->database || !s->database[0])
		s->database = s->user;
	return options ? prepend_options(s, options, a, d) : RC_OK;
}

static enum rc
decode_cancel(struct rd r, struct startup *s, struct diag *d)
{
	s->kind = STARTUP_CANCEL_REQUEST;
	s->cancel_pid = rd_u32(&r);
	s->cancel_key = rd_rest(&r);
	if (r.bad || s->cancel_key.n < 4 || s->cancel_key.n > 256) {
		diag_set(d, SQLSTATE_PROTOCOL_VIOLATION, "invalid length of cancel request packet");
		return RC_FAIL;
	}
	return RC_OK;
}

static enum rc
decode_request(struct rd r, enum startup_kind kind, struct startup *s, struct diag *d)
{
	s->kind = kind;
	if (!rd_done(&r)) {
		diag_set(d, SQLSTATE_PROTOCOL_VIOLATION, "invalid length of encryption request packet");
		return RC_FAIL;
	}
	return RC_OK;
}

enum rc
startup_decode(const void *packet, size_t n, struct arena *a, struct startup *out, struct diag *d)
{
	struct rd r = rd_of(packet, n);
	uint32_t len = rd_u32(&r), code = rd_u32(&r);

	*out = (struct startup){0};
	if (r.bad || len != n || n > 4 + STARTUP_MAX_BODY) {
		diag_set(d, SQLSTATE_PROTOCOL_VIOLATION, "invalid length of startup packet");
		return RC_FAIL;
	}
	switch (code) {
	case CODE_CANCEL:
		return decode_cancel(r, out, d);
	case CODE_SSL:
		return decode_request(r, STARTUP_SSL_REQUEST, out, d);
	case CODE_GSSENC:
		return decode_request(r, STARTUP_GSSENC_REQUEST, out, d);
	}
	out->kind = STARTUP_MESSAGE;
	out->protocol = code;
	if (code >> 16 != 3) {
		diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "unsupported frontend protocol %u.%u: server supports 3.0 to 3.0",
			 code >> 16, code & 0xffff);
		return RC_FAIL;
	}
	return decode_message(r, a, out, d);
}

bool
startup_needs_negotiation(const struct startup *s)
{
	return (s->protocol & 0xffff) > 0 || s->n_pq_options > 0;
}
