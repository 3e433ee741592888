/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/hba.o proxy/proto/hba_token.o proxy/proto/wire.o proxy/base/arena.o proxy/base/mem.o proxy/base/log.o proxy/base/diag.o */
#include "unit.h"

#include "pgspan/hba.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* Files behind @: "names" and, in turn, "more". */
static char *
read_file(void *arg, const char *from, const char *name, char **path, size_t *n, char *why, size_t why_size)
{
	static const char *const files[][2] = {
		{"names", "ann, bob # two\n\"carl\"\n@more\n"}, {"more", "dora"}, {"self", "x @self"}, {"empty", "# nobody\n"}, {"open", "a\n\"b\n"},
	};
	(void)arg;
	(void)from;
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		if (strcmp(files[i][0], name) == 0) {
			*path = xstrdup(name);
			*n = strlen(files[i][1]);
			return xstrdup(files[i][1]);
		}
	snprintf(why, why_size, "no file %s", name);
	return NULL;
}

static const struct hba_reader reader = {read_file, NULL};
static char told[1024];

static void
keep(void *arg, unsigned line, const char *text)
{
	size_t at = strlen(told);
	(void)arg;
	snprintf(told + at, sizeof told - at, "%u: %s\n", line, text);
}

static struct hba *
parse(const char *text)
{
	told[0] = '\0';
	return hba_parse(span_str(text), &reader, keep, NULL);
}

/* The line of the rule that fits; 0: none. An address without dots and colons is a Unix socket; "!" in front is TLS. */
static unsigned
line_for(const struct hba *h, const char *from, const char *db, const char *user)
{
	struct sockaddr_storage ss = {.ss_family = AF_UNIX};
	struct hba_client c = {.addr = (struct sockaddr *)&ss, .database = db, .user = user};
	if (*from == '!') {
		c.tls = true;
		from++;
	}
	if (strcmp(db, "*") == 0)
		c.physical_replication = true;
	if (strchr(from, ':')) {
		ss.ss_family = AF_INET6;
		assert_int_equal(inet_pton(AF_INET6, from, &((struct sockaddr_in6 *)&ss)->sin6_addr), 1);
	} else if (strchr(from, '.')) {
		ss.ss_family = AF_INET;
		assert_int_equal(inet_pton(AF_INET, from, &((struct sockaddr_in *)&ss)->sin_addr), 1);
	}
	const struct hba_rule *r = hba_match(h, &c);
	return r ? r->line : 0;
}

static void
hba_match__types_and_addresses__first_that_fits(void **state)
{
	(void)state;
	struct hba *h = parse("# who may\n"
	                      "local all all peer map=unix\n"                                     /* 2 */
	                      "hostssl all all 10.1.0.0/16 scram-sha-256\n"                       /* 3 */
	                      "hostnossl all all 10.2.0.0 255.255.0.0 md5\n"                      /* 4 */
	                      "host all all 192.168.1.77/24 reject\n"                             /* 5 */
	                      "host all all fe80::/10 trust\n"                                    /* 6 */
	                      "host all all 2001:db8:: ffff:ffff:: trust\n"                       /* 7 */
	                      "host all all samehost trust\n"                                     /* 8 */
	                      "host all all 0.0.0.0/0 password\n");                               /* 9 */
	static const struct {
		const char *from;
		unsigned line;
	} cases[] = {
		{"unix", 2}, {"!10.1.2.3", 3}, {"10.1.2.3", 9}, {"10.2.3.4", 4}, {"!10.2.3.4", 9}, {"192.168.1.3", 5}, {"192.168.2.3", 9},
		{"fe90::1", 6}, {"2001:db8:1::", 7}, {"2001:db9::", 0}, {"127.0.0.1", 8}, {"::ffff:192.168.1.9", 5}, {"::ffff:8.8.8.8", 9},
	};
	assert_non_null(h);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (line_for(h, cases[i].from, "db", "u") != cases[i].line)
			fail_msg("%s: line %u", cases[i].from, line_for(h, cases[i].from, "db", "u"));
	assert_int_equal(hba_rule_at(h, 0)->method, HBA_PEER);
	assert_string_equal(hba_rule_at(h, 0)->map, "unix");
	assert_int_equal(hba_rule_at(h, 3)->method, HBA_REJECT);
	assert_null(hba_rule_at(h, 8));
	hba_free(h);
}

static void
hba_match__databases_and_users__as_listed(void **state)
{
	(void)state;
	struct hba *h = parse("host sameuser all all trust\n"                  /* 1 */
	                      "host db1, \"all\",db3 ann all trust\n"          /* 2 */
	                      "host replication rep all trust\n"               /* 3 */
	                      "host names @names all trust\n"                  /* 4 */
	                      "host nobody @empty all trust\n"                 /* 5 */
	                      "host \"a \"\"b\"\" #c\" \"+g\" all \\\n trust # \\\n and the comment goes on\n" /* 6 to 8 */
	                      "host all z all trust");                         /* 9 */
	static const struct {
		const char *db, *user;
		unsigned line;
	} cases[] = {
		{"u", "u", 1},      {"db1", "ann", 2},    {"all", "ann", 2},   {"db3", "ann", 2},   {"db2", "ann", 0},
		{"*", "rep", 3},    {"*", "ann", 0},      {"replication", "rep", 0}, {"names", "ann", 4}, {"names", "bob", 4},
		{"names", "carl", 4}, {"names", "dora", 4}, {"names", "eve", 0}, {"nobody", "ann", 0}, {"a \"b\" #c", "+g", 6},
		{"*", "z", 0},      {"any", "z", 9},
	};
	if (!h)
		fail_msg("%s", told);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (line_for(h, "1.2.3.4", cases[i].db, cases[i].user) != cases[i].line)
			fail_msg("%s %s: line %u", cases[i].db, cases[i].user, line_for(h, "1.2.3.4", cases[i].db, cases[i].user));
	hba_free(h);
}

static void
hba_parse__what_cannot_be_done__is_told_by_line(void **state)
{
	(void)state;
	static const struct {
		const char *text, *told;
	} cases[] = {
		{"x all all trust", "1: \"x\" is no connection type; expected local, host, hostssl or hostnossl\n"},
		{"\nhost all\n", "2: the line ends before its users\n"},
		{"local all all", "1: the line ends before its method\n"},
		{"host all all example.com trust", "1: \"example.com\" is not an address; expected address/bits, an address and a mask, all, samehost or samenet (host names are not supported)\n"},
		{"host all all 1.2.3.4/33 trust", "1: \"1.2.3.4/33\" has no right number of bits; expected 0 to 32 behind the slash\n"},
		{"host all all 1.2.3.4 trust", "1: \"trust\" is not a mask of 1.2.3.4; expected one behind an address without /bits\n"},
		{"host all all all ldap", "1: \"ldap\" is not supported by pgspan; expected trust, reject, password, md5, scram-sha-256, cert or peer\n"},
		{"host all all all magic", "1: \"magic\" is no method; expected trust, reject, password, md5, scram-sha-256, cert or peer\n"},
		{"host all +g all trust", "1: +g: pgspan knows no groups' members; expected user names or all\n"},
		{"host samerole u all trust", "1: samerole: pgspan knows no roles' members; expected database names, all, sameuser or replication\n"},
		{"host all all all peer", "1: peer goes with local only: only a Unix socket knows its peer\n"},
		{"host all all all cert", "1: cert goes with hostssl only: only TLS has certificates\n"},
		{"host all all all md5 map=x", "1: map goes with cert and peer only\n"},
		{"hostssl all all all md5 color=red", "1: unknown option \"color\"; expected map or clientcert\n"},
		{"host all \"u all trust", "1: a quote that does not close\n"},
		{"host all @gone all trust", "1: no file gone\n"},
		{"host all all all trust\nhost all @open all trust\nhost all all all nope", "2: a quote that does not close in line 2 of @open\n"
		 "3: \"nope\" is no method; expected trust, reject, password, md5, scram-sha-256, cert or peer\n"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_null(parse(cases[i].text));
		assert_string_equal(told, cases[i].told);
	}
	assert_null(parse("host all @self all trust"));
	assert_non_null(strstr(told, "more than 64 files behind @"));
}

static void
hba_parse__nothing__lets_nobody_in(void **state)
{
	(void)state;
	struct hba *h = parse("# nothing\n\n   \\\n\n");
	assert_non_null(h);
	assert_int_equal(line_for(h, "unix", "db", "u"), 0);
	hba_free(h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hba_match__types_and_addresses__first_that_fits),
		cmocka_unit_test(hba_match__databases_and_users__as_listed),
		cmocka_unit_test(hba_parse__what_cannot_be_done__is_told_by_line),
		cmocka_unit_test(hba_parse__nothing__lets_nobody_in),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
