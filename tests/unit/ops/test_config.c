/* link: proxy/ops/config.o proxy/ops/config_ini.o proxy/ops/config_key.o proxy/ops/config_mistake.o proxy/ops/config_print.o proxy/ops/config_value.o proxy/base/arena.o proxy/base/diag.o proxy/base/log.o proxy/base/mem.o proxy/proto/auth.o proxy/proto/ident.o proxy/proto/hba.o proxy/proto/hba_token.o proxy/net/tls_context.o proxy/proto/scram.o proxy/proto/wire.o proxy/proto/msg.o proxy/proto/msg_put.o shardmap/map.o shardmap/rowhash.o shardmap/key.o shardmap/key_input.o shardmap/key_type.o shardmap/decimal.o shardmap/text.o */
/* SPDX-License-Identifier: BSD-2-Clause */
/* test_config - proxy.ini: what each mistake says, word for word; what values become; printing and loading again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pgspan/auth.h"
#include "pgspan/config.h"

/* A line under test is line 3 in [proxy], line 5 in [database:a]. */
#define PROXY "[proxy]\nauth_type = trust\n"
#define P(lines) PROXY lines "\n[database:a]\nprimary = host=h\n"
#define DB PROXY "[database:a]\nprimary = host=h\n"
#define D(lines) DB lines "\n"
/* A server's line is line 4. */
#define S(line) PROXY "[database:a]\n" line "\n"
/* A sharded database's line is line 7. */
#define SH(lines) PROXY "[database:s]\n[shard:s:0]\nprimary = host=h\nbuckets = 0-16383\n[database:t]\n" lines "\n[shard:t:0]\nbuckets = 0-16383\nprimary = host=h\n"

#define CONNINFO "; expected a libpq connection string, such as host=10.0.0.1 port=5432 dbname=app\n"
#define TABLE_FORMS "; expected \"name key=column[,column]\" or \"name reference\"\n"
#define SECONDS "expected a whole number of seconds, or one with a unit: ms, s, min, h\n"

/* All reports: "E line\n" for a mistake, "W line\n" for a warning. */
struct reports {
	char text[16384];
	size_t n;
};

static void
on_report(void *arg, bool is_error, const char *line)
{
	struct reports *r = arg;
	assert_null(strchr(line, '\n'));
	r->n += (size_t)snprintf(r->text + r->n, sizeof r->text - r->n, "%c %s\n", is_error ? 'E' : 'W', line);
	assert_true(r->n < sizeof r->text);
}

static struct config *
load_bytes(const char *ini, size_t n, struct reports *r)
{
	char *copy = malloc(n + 1);
	memcpy(copy, ini, n);
	FILE *in = fmemopen(copy, n, "r");
	assert_non_null(in);
	*r = (struct reports){0};
	struct config *c = config_load_stream(in, "t.ini", on_report, r);
	fclose(in);
	free(copy);
	return c;
}

static struct config *
load(const char *ini, struct reports *r)
{
	return load_bytes(ini, strlen(ini), r);
}

/* Loads without a report of any kind. */
static struct config *
good(const char *ini)
{
	struct reports r;
	struct config *c = load(ini, &r);
	assert_string_equal(r.text, "");
	assert_non_null(c);
	return c;
}

/* What "key = line" makes of database a's primary. */
static const struct server_config *
server(const struct config *c)
{
	return &c->databases[0].shards[0].servers[0];
}

static char *
print(const struct config *c)
{
	char *text;
	size_t n;
	FILE *out = open_memstream(&text, &n);
	config_print(c, out);
	fclose(out);
	return text;
}

/* ---- mistakes: case, proxy.ini, reports ---- */

#define MISTAKES(X)                                                                                                            \
	X(file__empty__needs_auth_and_database, " ", "E t.ini: auth_file: not set, but auth_type needs it; expected a file, or auth_type = trust\n") \
	X(file__no_database__refused, PROXY, "E t.ini: no database; expected a [database:NAME] section\n")                      \
	X(line__before_sections__told_once, "a = 1\nb = 2\n" DB, "E t.ini:1: a line before the first section; expected [proxy] above it\n") \
	X(line__no_separator__not_quoted, P("secret"), "E t.ini:3: neither a section nor an entry; expected \"[section]\" or \"key = value\"\n") \
	X(line__no_key__refused, P(" = x"), "E t.ini:3: no key before \"=\"; expected \"key = value\"\n")                       \
	X(line__two_words__refused, D("replica host=h port=1"), "E t.ini:5: replica: more than one word before \"=\"; expected \"key = value\"\n") \
	X(line__control_character__refused, P("workers = 1\f"), "E t.ini:3: control character 0x0c; expected text\n")           \
	X(line__cr_inside__refused, P("workers = 1\rx"), "E t.ini:3: control character 0x0d; expected text\n")                  \
	X(section__no_bracket__entries_passed_over, DB "[database:b\nfoo = 1\n", "E t.ini:5: the section's name does not end; expected \"]\"\n") \
	X(section__text_behind__refused, DB "[database:b] x\n", "E t.ini:5: text after \"]\"; expected the end of the line or a comment\n") \
	X(section__unknown__names_known, DB "[foo]\n", "E t.ini:5: [foo]: unknown section; expected [proxy], [database:NAME] or [shard:NAME:N]\n") \
	X(section__misspelt__suggests, DB "[databse:b]\n", "E t.ini:5: [databse:b]: unknown section; expected [proxy], [database:NAME] or [shard:NAME:N], perhaps \"database\"\n") \
	X(section__proxy_twice__refused, DB "[proxy]\n", "E t.ini:5: [proxy]: the section stands twice, first in line 1; expected each section once\n") \
	X(section__database_twice__refused, DB "[database:a]\n", "E t.ini:5: [database:a]: the section stands twice, first in line 3; expected each section once\n") \
	X(section__no_name__refused, DB "[database:]\n", "E t.ini:5: [database:]: no name; expected [database:NAME]\n")         \
	X(section__console__reserved, DB "[database:pgspan]\n[database:pgbouncer]\n",                                          \
	  "E t.ini:5: [database:pgspan]: the name is the console's; expected another one\n"                                     \
	  "E t.ini:6: [database:pgbouncer]: the name is the console's; expected another one\n")                                 \
	X(section__64_bytes__not_cut, DB "[database:1234567890123456789012345678901234567890123456789012345678901234]\n",       \
	  "E t.ini:5: [database:1234567890123456789012345678901234567890123456789012345678901234]: the name is 64 bytes long; expected at most 63, as PostgreSQL keeps\n") \
	X(section__shard_incomplete__refused, DB "[shard:a]\n", "E t.ini:5: [shard:a]: the header is not complete; expected [shard:NAME:N]\n") \
	X(section__shard_of_nobody__suggests, PROXY "[database:sales]\nprimary = host=h\n[shard:sale:0]\n",                     \
	  "E t.ini:5: [shard:sale:0]: there is no database \"sale\"; expected the name of a [database:NAME] section, perhaps \"sales\"\n") \
	X(section__shard_number__refused, DB "[shard:a:256]\n[shard:a:01]\n[shard:a:x]\n",                                      \
	  "E t.ini:5: [shard:a:256]: \"256\" is not a shard's number; expected 0 to 255\n"                                      \
	  "E t.ini:6: [shard:a:01]: \"01\" is not a shard's number; expected 0 to 255\n"                                        \
	  "E t.ini:7: [shard:a:x]: \"x\" is not a shard's number; expected 0 to 255\n")                                         \
	X(key__unknown__suggests, P("listen_prt = 1"), "E t.ini:3: listen_prt: unknown key; expected a key of [proxy], perhaps \"listen_port\"\n") \
	X(key__unknown__nothing_near, P("frobnicate = 1"), "E t.ini:3: frobnicate: unknown key; expected a key of [proxy]\n")    \
	X(key__unknown_in_database__suggests, D("replcia = host=h"), "E t.ini:5: replcia: unknown key; expected a key of [database:NAME], perhaps \"replica\"\n") \
	X(key__misspelt_primary__not_told_as_missing, S("primry = host=h"), "E t.ini:4: primry: unknown key; expected a key of [database:NAME], perhaps \"primary\"\n") \
	X(key__bad_auth_type__auth_file_not_missed, "[proxy]\nauth_type = trsut\n[database:a]\nprimary = host=h\n", "E t.ini:2: auth_type: \"trsut\" is unknown; expected one of trust, password, md5, scram-sha-256, cert, hba\n") \
	X(key__misspelt_buckets__not_told_as_missing, PROXY "[database:s]\n[shard:s:0]\nprimary = host=h\nbukets = 0-16383\n", "E t.ini:6: bukets: unknown key; expected a key of [shard:NAME:N], perhaps \"buckets\"\n") \
	X(key__wrong_section__says_where, P("primary = host=h"), "E t.ini:3: primary: not a key of [proxy]; expected in [database:NAME] or [shard:NAME:N]\n") \
	X(key__proxy_key_in_database__says_where, D("listen_port = 1"), "E t.ini:5: listen_port: not a key of [database:NAME]; expected in [proxy]\n") \
	X(key__twice__names_both_lines, P("workers = 1\nworkers = 2"), "E t.ini:4: workers: given twice, first in line 3; expected one line\n") \
	X(key__unused__warned, P("unix_socket_mode = 0777"), "W t.ini:3: unix_socket_mode: not used by this version\n")         \
	X(number__not_one__refused, P("listen_port = abc"), "E t.ini:3: listen_port: \"abc\" is not a whole number; expected 1 to 65535\n") \
	X(number__empty__refused, P("listen_port ="), "E t.ini:3: listen_port: \"\" is not a whole number; expected 1 to 65535\n") \
	X(number__unit__refused, P("listen_port = 5s"), "E t.ini:3: listen_port: \"5s\" is not a whole number; expected 1 to 65535\n") \
	X(number__out_of_range__says_range, P("listen_port = 65536"), "E t.ini:3: listen_port: 65536 is out of range; expected 1 to 65535\n") \
	X(number__huge__says_range, P("max_client_conn = 99999999999999999999"), "E t.ini:3: max_client_conn: 99999999999999999999 is out of range; expected 1 to 1000000\n") \
	X(number__negative__says_range, P("workers = -1"), "E t.ini:3: workers: -1 is out of range; expected 0 to 256\n")       \
	X(time__not_one__refused, P("query_wait_timeout = 5x"), "E t.ini:3: query_wait_timeout: \"5x\" is not a time; " SECONDS) \
	X(time__fraction__refused, P("query_wait_timeout = 1.5"), "E t.ini:3: query_wait_timeout: \"1.5\" is not a time; " SECONDS) \
	X(time__zero__says_range, P("server_connect_timeout = 0"), "E t.ini:3: server_connect_timeout: 0 is out of range; expected 1ms to 31536000 seconds\n") \
	X(size__not_one__refused, P("max_packet_size = big"), "E t.ini:3: max_packet_size: \"big\" is not a size; expected a whole number of bytes, or one with a unit: kB, MB, GB\n") \
	X(size__too_small__says_range, P("max_packet_size = 63kB"), "E t.ini:3: max_packet_size: 63kB is out of range; expected 65536 to 1073741823 bytes\n") \
	X(size__too_large__says_range, P("max_packet_size = 1GB"), "E t.ini:3: max_packet_size: 1GB is out of range; expected 65536 to 1073741823 bytes\n") \
	X(enum__unknown__names_all, P("pool_mode = both"), "E t.ini:3: pool_mode: \"both\" is unknown; expected one of session, transaction, statement\n") \
	X(enum__session_reads__later, P("read_consistency = session"), "E t.ini:3: read_consistency: session comes with a later version; expected one of eventual, primary\n") \
	X(words__empty_name__refused, P("admin_users = a,,b"), "E t.ini:3: admin_users: an empty name in the list; expected names with commas between\n") \
	X(words__trailing_comma__refused, P("admin_users = a,"), "E t.ini:3: admin_users: an empty name in the list; expected names with commas between\n") \
	X(comment__no_blank_before__is_value, P("log_level=;x"), "E t.ini:3: log_level: \";x\" is unknown; expected one of debug, info, warning, error, fatal\n") \
	X(comment__blank_before__no_value, P("log_level= ;x"), "E t.ini:3: log_level: \"\" is unknown; expected one of debug, info, warning, error, fatal\n") \
	X(quote__open__refused, P("log_level = \"info ; x"), "E t.ini:3: log_level: a quote is not closed; expected the same quote at its end\n") \
	X(quote__text_behind__refused, P("log_level = \"info\" x"), "E t.ini:3: log_level: text after the closing quote; expected nothing there\n") \
	X(quote__backslash_at_end__refused, S("primary = password=a\\ "), "E t.ini:4: primary: a backslash ends the value; expected the character that it escapes\n") \
	X(listen_addr__host_and_port__refused, P("listen_addr = 10.0.0.1:6432"), "E t.ini:3: listen_addr: \"10.0.0.1:6432\" is not an address; expected addresses or host names with commas between, or *\n") \
	X(listen_addr__no_comma__refused, P("listen_addr = ::1 ::2"), "E t.ini:3: listen_addr: \"::2\" is not an address; expected addresses or host names with commas between, or *\n") \
	X(listen_addr__empty_one__refused, P("listen_addr = ::1,"), "E t.ini:3: listen_addr: an empty address; expected addresses with commas between\n") \
	X(listen_addr__nowhere__refused, P("listen_addr ="), "E t.ini:3: listen_addr: empty, and so is unix_socket_dir; expected one of them, or nobody can connect\n") \
	X(unix_socket_dir__too_long__refused, P("unix_socket_dir = /23456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"), \
	  "E t.ini:3: unix_socket_dir: the socket's path would be 113 bytes long; expected at most 107\n")                      \
	X(instance_name__letters__refused, P("instance_name = A-1"), "E t.ini:3: instance_name: \"A-1\" can't be used; expected 1 to 24 of a-z, 0-9, _\n") \
	X(instance_name__long__refused, P("instance_name = a23456789012345678901234x"), "E t.ini:3: instance_name: \"a23456789012345678901234x\" can't be used; expected 1 to 24 of a-z, 0-9, _\n") \
	X(auth_file__missing__refused, P("auth_file = /nowhere/users.txt"), "E t.ini:3: auth_file: /nowhere/users.txt: No such file or directory; expected a file that pgspan can read\n") \
	X(auth_file__not_set__refused, "[proxy]\nauth_type = md5\n[database:a]\nprimary = host=h\n", "E t.ini:2: auth_file: not set, but auth_type needs it; expected a file, or auth_type = trust\n") \
	X(server__none__refused, PROXY "[database:a]\n", "E t.ini:3: [database:a]: no servers; expected one \"primary = ...\" line, or [shard:a:N] sections\n") \
	X(server__no_primary__refused, S("replica = host=h"), "E t.ini:3: [database:a]: no primary; expected one \"primary = ...\" line\n") \
	X(server__two_primaries__names_both_lines, D("primary = host=i"), "E t.ini:5: primary: given twice, first in line 4; expected one primary, and replicas in replica lines\n") \
	X(server__empty__refused, S("primary ="), "E t.ini:4: primary: no value" CONNINFO)                                      \
	X(server__unknown_option__suggests, S("primary = hots=h"), "E t.ini:4: primary: invalid connection option \"hots\"; expected libpq's options, perhaps \"host\"\n") \
	X(server__unknown_option__libpqs_text, S("primary = frobnicate=h"), "E t.ini:4: primary: invalid connection option \"frobnicate\"" CONNINFO) \
	X(server__no_equals__libpqs_text, S("primary = host=h x port=1"), "E t.ini:4: primary: missing \"=\" after \"***\" in connection info string" CONNINFO) \
	X(server__blank_in_password__hidden, S("primary = password=my secret host=h"), "E t.ini:4: primary: missing \"=\" after \"***\" in connection info string" CONNINFO) \
	X(server__option_in_password__hidden, S("primary = password=my se=cret host=h"), "E t.ini:4: primary: invalid connection option \"***\"" CONNINFO) \
	X(server__bad_uri__hidden, S("primary = postgresql://u:p%zz@h/d"), "E t.ini:4: primary: invalid percent-encoded token: \"***\"" CONNINFO) \
	X(server__uri_without_scheme__hidden, S("primary = u:pw@h/d"), "E t.ini:4: primary: missing \"=\" after \"***\" in connection info string" CONNINFO) \
	X(server__uri_without_scheme_options__hidden, S("primary = u:pw@h/d?sslmode=require"), "E t.ini:4: primary: invalid connection option \"***\"" CONNINFO) \
	X(server__slash_in_uri_password__hidden, S("primary = postgresql://u:p/w@h/d"), "E t.ini:4: primary: \"***\" is not a port; expected 1 to 65535\n") \
	X(server__two_hosts__refused, S("primary = host=a,b"), "E t.ini:4: primary: several servers in one connection string; expected one, and a line for each server\n") \
	X(server__port__refused, S("primary = host=a port=0"), "E t.ini:4: primary: \"0\" is not a port; expected 1 to 65535\n") \
	X(server__control_character__refused, S("primary = postgresql://h/a%0Ab"), "E t.ini:4: primary: a control character in dbname; expected text\n") \
	X(server__quotes__text_behind, S("primary = \"host=h\" port=1"), "E t.ini:4: primary: text after the closing quote; expected nothing there\n") \
	X(table__unsharded__refused, D("table = t key=a"), "E t.ini:5: table: database \"a\" has no shards; expected [shard:a:0] and so on, or no buckets, hash and table lines\n") \
	X(buckets__unsharded__refused, D("buckets = 256"), "E t.ini:5: buckets: database \"a\" has no shards; expected [shard:a:0] and so on, or no buckets, hash and table lines\n") \
	X(table__no_name__refused, SH("table = 1a key=a"), "E t.ini:8: table: no table name at \"1a key=a\"" TABLE_FORMS)       \
	X(table__empty__refused, SH("table ="), "E t.ini:8: table: the table name is empty" TABLE_FORMS)                        \
	X(table__empty_quotes__refused, SH("table = \"\" key=a"), "E t.ini:8: table: the table name is empty" TABLE_FORMS)      \
	X(table__no_kind__refused, SH("table = t"), "E t.ini:8: table: nothing after the table's name" TABLE_FORMS)             \
	X(table__bare_equals__refused, SH("table = t = a"), "E t.ini:8: table: neither key= nor reference at \"= a\"" TABLE_FORMS) \
	X(table__three_parts__refused, SH("table = c.s.t key=a"), "E t.ini:8: table: neither key= nor reference at \".t key=a\"" TABLE_FORMS) \
	X(table__no_column__refused, SH("table = t key="), "E t.ini:8: table: the column name is empty" TABLE_FORMS)            \
	X(table__column_after_comma__refused, SH("table = t key=a,"), "E t.ini:8: table: the column name is empty" TABLE_FORMS) \
	X(table__column_twice__refused, SH("table = t key=a,A"), "E t.ini:8: table: column \"a\" stands twice in the key; expected each once\n") \
	X(table__left_over__refused, SH("table = t reference x"), "E t.ini:8: table: text left over at \"x\"" TABLE_FORMS)      \
	X(table__twice__names_both_lines, SH("table = t key=a\ntable = public.T reference"), "E t.ini:9: table: table public.t is named twice, first in line 8; expected one line for a table\n") \
	X(table__64_bytes__not_cut, SH("table = a234567890123456789012345678901234567890123456789012345678901234 key=a"),       \
	  "E t.ini:8: table: the table name is 64 bytes long; expected at most 63, as PostgreSQL keeps\n")                      \
	X(buckets__no_power__refused, P("buckets = 300"), "E t.ini:3: buckets: 300 is not a power of two; expected one, 256 to 65536\n") \
	X(buckets__too_few__refused, P("buckets = 128"), "E t.ini:3: buckets: 128 is out of range; expected 256 to 65536\n")    \
	X(shard__own_servers__refused, SH("primary = host=x"), "E t.ini:8: [database:t]: the database has shards and servers of its own; expected primary and replica lines in [shard:t:N] only\n") \
	X(shard__gap__refused, PROXY "[database:s]\n[shard:s:2]\nprimary = host=h\nbuckets = 0-16383\n[shard:s:0]\nprimary = host=h\nbuckets =\n", \
	  "E t.ini:3: [database:s]: there is a shard 2, but no shard 1; expected shards 0 to 2 without gaps\n")                 \
	X(shard__bad_number__no_gap_told, PROXY "[database:s]\n[shard:s:1]\nprimary = host=h\nbuckets = 0-1\n[shard:s:x]\n",    \
	  "E t.ini:7: [shard:s:x]: \"x\" is not a shard's number; expected 0 to 255\n")                                         \
	X(shard__bad_number__no_missing_buckets_told, PROXY "[database:s]\n[shard:s:0]\nprimary = host=h\nbuckets = 0-1\n[shard:s:x]\n", \
	  "E t.ini:7: [shard:s:x]: \"x\" is not a shard's number; expected 0 to 255\n")                                         \
	X(shard__twice__refused, PROXY "[database:s]\n[shard:s:0]\nprimary = host=h\nbuckets = 0-16383\n[shard:s:0]\n",         \
	  "E t.ini:7: [shard:s:0]: the section stands twice, first in line 4; expected each section once\n")                    \
	X(shard__empty__refused, PROXY "[database:s]\n[shard:s:0]\n",                                                          \
	  "E t.ini:4: [shard:s:0]: no primary; expected one \"primary = ...\" line\n"                                           \
	  "E t.ini:4: [shard:s:0]: no buckets; expected \"buckets = FIRST-LAST\"\n")                                            \
	X(shard__key_of_database__refused, PROXY "[database:s]\n[shard:s:0]\nprimary = host=h\nbuckets = 0-16383\npool_mode = session\n", \
	  "E t.ini:7: pool_mode: not a key of [shard:NAME:N]; expected in [proxy] or [database:NAME]\n")                        \
	X(shard__bucket_owned_twice__names_both, PROXY "[database:s]\nbuckets = 256\n[shard:s:0]\nprimary = host=h\nbuckets = 0-128\n[shard:s:1]\nprimary = host=i\nbuckets = 128-255\n", \
	  "E t.ini:10: buckets: bucket 128 cannot be given to shard 1: owned by shard 0; expected ranges of 0-255, each bucket in one shard\n") \
	X(shard__bucket_past_last__refused, PROXY "[database:s]\nbuckets = 256\n[shard:s:0]\nprimary = host=h\nbuckets = 0-256\n", \
	  "E t.ini:7: buckets: \"0-256\" is out of range: the buckets are 0-255; expected ranges of 0-255, each bucket in one shard\n") \
	X(shard__bucket_owned_by_nobody__named, PROXY "[database:s]\nbuckets = 256\n[shard:s:0]\nprimary = host=h\nbuckets = 0-99, 101-255\n", \
	  "E t.ini:3: [database:s]: bucket 100 is owned by no shard; expected every bucket of 0-255 in one shard\n")

#define MISTAKE_TEST(name, ini, expected)         \
	static void name(void **state)            \
	{                                         \
		(void)state;                      \
		struct reports r;                 \
		struct config *c = load(ini, &r); \
		assert_string_equal(r.text, expected); \
		assert_int_equal(c == NULL, r.text[0] == 'E'); \
		config_unref(c);                  \
	}
MISTAKES(MISTAKE_TEST)

/* Every mistake of a file is told, in the order of lines whatever finds it. */
static void
load__many_mistakes__all_in_order(void **state)
{
	(void)state;
	struct reports r;
	assert_null(load("[shard:a:x]\n[proxy]\nworkers = x\nauth_type = trust\n[database:a]\nfoo\nprimary = hots=1\npool_mode = x\n", &r));
	assert_string_equal(r.text,
	                    "E t.ini:1: [shard:a:x]: \"x\" is not a shard's number; expected 0 to 255\n"
	                    "E t.ini:3: workers: \"x\" is not a whole number; expected 0 to 256\n"
	                    "E t.ini:6: neither a section nor an entry; expected \"[section]\" or \"key = value\"\n"
	                    "E t.ini:7: primary: invalid connection option \"hots\"; expected libpq's options, perhaps \"host\"\n"
	                    "E t.ini:8: pool_mode: \"x\" is unknown; expected one of session, transaction, statement\n");
}

static void
load__nul_byte__refused(void **state)
{
	(void)state;
	static const char ini[] = PROXY "workers = 1\0 2\n[database:a]\nprimary = host=h\n";
	struct reports r;
	assert_null(load_bytes(ini, sizeof ini - 1, &r));
	assert_string_equal(r.text, "E t.ini:3: a NUL byte; expected text\n");
}

static void
load__no_file__refused(void **state)
{
	(void)state;
	struct reports r = {0};
	assert_null(config_load("/nowhere/p.ini", on_report, &r));
	assert_string_equal(r.text, "E /nowhere/p.ini: No such file or directory; expected a file that pgspan can read\n");
}

/* ---- values ---- */

static void
load__nothing_set__defaults(void **state)
{
	(void)state;
	struct config *c = good(DB);
	assert_string_equal(c->listen_addr, "127.0.0.1");
	assert_int_equal(c->listen_port, 6432);
	assert_string_equal(c->unix_socket_dir, "");
	assert_int_equal(c->workers, sysconf(_SC_NPROCESSORS_ONLN));
	assert_int_equal(c->auth_type, AUTH_TYPE_TRUST);
	assert_null(c->users);
	assert_int_equal(c->n_admin_users, 0);
	assert_int_equal(c->n_stats_users, 0);
	assert_int_equal(c->max_client_conn, 10000);
	assert_int_equal(c->client_login_timeout_ms, 60000);
	assert_int_equal(c->max_packet_size, 1073741823);
	assert_int_equal(c->log_level, LOG_LEVEL_INFO);
	assert_string_equal(c->monitor_user, "postgres");
	assert_in_range(strlen(c->instance_name), 6, 24);
	assert_string_equal(c->instance_name + strlen(c->instance_name) - 5, "_6432");
	const struct database_settings *set = &config_database(c, "a")->set;
	assert_int_equal(set->pool_mode, POOL_MODE_TRANSACTION);
	assert_int_equal(set->read_consistency, READ_EVENTUAL);
	assert_int_equal(set->default_pool_size, 20);
	assert_int_equal(set->query_wait_timeout_ms, 120000);
	assert_int_equal(set->server_connect_timeout_ms, 15000);
	assert_int_equal(set->server_idle_timeout_ms, 600000);
	assert_int_equal(set->server_lifetime_ms, 3600000);
	assert_int_equal(set->max_replica_lag_ms, 10000);
	assert_null(config_database(c, "b"));
	config_unref(c);
}

/* [proxy] may come last and still gives the defaults; a database's own value wins. */
static void
load__proxy_last__defaults_all_databases(void **state)
{
	(void)state;
	struct config *c = good("[database:a]\nprimary=host=h\n[database:b]\nprimary=host=h\npool_mode=statement\n"
	                        "[proxy]\nauth_type=trust\npool_mode=session\nmax_replica_lag=1500ms\n");
	assert_int_equal(config_database(c, "a")->set.pool_mode, POOL_MODE_SESSION);
	assert_int_equal(config_database(c, "b")->set.pool_mode, POOL_MODE_STATEMENT);
	assert_int_equal(config_database(c, "b")->set.max_replica_lag_ms, 1500);
	config_unref(c);
}

static void
load__units__converted(void **state)
{
	(void)state;
	struct config *c = good(P("query_wait_timeout = 250ms\nserver_lifetime = 2 h\nserver_idle_timeout = 3min\n"
	                          "client_login_timeout = 4s\nmax_packet_size = 16MB"));
	assert_int_equal(c->defaults.query_wait_timeout_ms, 250);
	assert_int_equal(c->defaults.server_lifetime_ms, 7200000);
	assert_int_equal(c->defaults.server_idle_timeout_ms, 180000);
	assert_int_equal(c->client_login_timeout_ms, 4000);
	assert_int_equal(c->max_packet_size, 16 << 20);
	config_unref(c);
}

static void
load__words__trimmed(void **state)
{
	(void)state;
	struct config *c = good(P("admin_users = root , \tjoe\nstats_users = mon"));
	assert_int_equal(c->n_admin_users, 2);
	assert_string_equal(c->admin_users[1], "joe");
	assert_string_equal(c->monitor_user, "root");
	assert_true(config_is_admin(c, "joe"));
	assert_false(config_is_admin(c, "mon"));
	assert_string_equal(c->stats_users[0], "mon");
	config_unref(c);
}

/* ---- lines ---- */

static void
load__bom_crlf_indent__taken(void **state)
{
	(void)state;
	struct config *c = good("\xef\xbb\xbf[proxy] ; c\r\n  auth_type = trust\r\n\tworkers: 3 # c\r\n[ database: a ]#c\r\n   primary = host=h\r\n"
	                        "   replica = host=i");
	assert_int_equal(c->workers, 3);
	assert_string_equal(c->databases[0].name, "a");
	assert_int_equal(c->databases[0].shards[0].n_servers, 2);
	config_unref(c);
}

/* *line* is the connection string, *password* what libpq must be given. */
static void
password_is(const char *line, const char *conninfo)
{
	char ini[256];
	snprintf(ini, sizeof ini, PROXY "[database:a]\nprimary = %s\n", line);
	struct config *c = good(ini);
	assert_string_equal(server(c)->conninfo, conninfo);
	config_unref(c);
}

static void
load__passwords__whole(void **state)
{
	(void)state;
	password_is("password='a;b #c' ; comment", "dbname=a password='a;b #c'");
	password_is("password=a;b#c # comment", "dbname=a password='a;b#c'");
	password_is("password=;x", "dbname=a password=';x'");
	password_is("password=it's ;comment", "dbname=a password='it\\'s'");
	password_is("password='it\\'s ;' #c", "dbname=a password='it\\'s ;'");
	password_is("password=a\\ ;b ;c", "dbname=a password='a ;b'");
	password_is("password='\\\\' ;c", "dbname=a password='\\\\'");
	password_is("password=\\'a ;c", "dbname=a password='\\'a'");
	password_is("\"password='x;\"\"'\" ;c", "dbname=a password='x;\"'");
	password_is("postgresql://u:p%3B%20%23@h:1/d ;c", "host=h port=1 dbname=d user=u password='p; #'");
}

static void
load__long_value__whole(void **state)
{
	(void)state;
	char *ini = malloc(70000);
	for (int n = 900; n <= 60000; n += 59100) {
		int at = snprintf(ini, 70000, PROXY "[database:a]\nprimary = host=h password=");
		memset(ini + at, 'x', (size_t)n);
		ini[at + n] = '\0';
		struct config *c = good(ini);
		assert_int_equal(strlen(server(c)->conninfo), strlen("host=h dbname=a password=") +  (size_t)n);
		config_unref(c);
	}
	free(ini);
}

static void
load__line_at_limit__taken_and_one_more_refused(void **state)
{
	(void)state;
	char *ini = malloc(70000);
	for (int extra = 0; extra <= 1; extra++) {
		int at = snprintf(ini, 70000, PROXY "[database:a]\n");
		int start = at;
		at += snprintf(ini + at, 70000 - (size_t)at, "primary = host=h password=");
		memset(ini + at, 'x', 70000 - (size_t)at);
		at = start + 65536 + extra;
		snprintf(ini + at, 70000 - (size_t)at, "\r\n");
		struct reports r;
		struct config *c = load(ini, &r);
		assert_string_equal(r.text, extra ? "E t.ini:4: the line is too long (65537 bytes); expected at most 65536\n" : "");
		assert_int_equal(c == NULL, extra);
		config_unref(c);
	}
	free(ini);
}

static void
load__section_name_of_63_bytes__whole(void **state)
{
	(void)state;
	const char *name = "123456789012345678901234567890123456789012345678901234567890123";
	char ini[512];
	snprintf(ini, sizeof ini, PROXY "[database:%s]\n[shard:%s:0]\nprimary = host=h\nbuckets = 0-16383\n", name, name);
	struct config *c = good(ini);
	const struct database_config *db = config_database(c, name);
	assert_non_null(db);
	assert_true(db->sharded);
	assert_string_equal(db->shards[0].servers[0].dbname, name);
	config_unref(c);
}

/* ---- servers, tables, shards ---- */

static void
load__servers__primary_first_with_labels(void **state)
{
	(void)state;
	struct config *c = good(S("replica = host=::1 port=1\nprimary = host=/run/pg user=joe\nreplica = hostaddr=10.0.0.1 dbname='x y'\nreplica = user=u"));
	const struct shard_config *sh = &c->databases[0].shards[0];
	assert_int_equal(sh->n_servers, 4);
	assert_int_equal(sh->servers[0].role, SERVER_PRIMARY);
	assert_string_equal(sh->servers[0].label, "/run/pg:5432/a");
	assert_string_equal(sh->servers[0].host, "/run/pg");
	assert_string_equal(sh->servers[0].user, "joe");
	assert_string_equal(sh->servers[0].conninfo, "host=/run/pg dbname=a user=joe");
	assert_int_equal(sh->servers[1].role, SERVER_REPLICA);
	assert_string_equal(sh->servers[1].label, "[::1]:1/a");
	assert_null(sh->servers[1].user);
	assert_string_equal(sh->servers[2].label, "10.0.0.1:5432/x y");
	assert_string_equal(sh->servers[2].host, "10.0.0.1");
	assert_string_equal(sh->servers[3].label, "local:5432/a");
	assert_null(sh->servers[3].host);
	config_unref(c);
}

static void
load__tables__names_as_postgres_stores_them(void **state)
{
	(void)state;
	struct config *c = good(SH("table = Accounts KEY = Aid , bID\ntable = \"Mixed\"\"Case ;x\" key=\"Id\"\n"
	                           "table = sales . \"in.voices\" key=\"a\",\"b,c\" ; comment\ntable = Public.countries Reference"));
	const struct database_config *db = config_database(c, "t");
	assert_int_equal(db->n_tables, 4);
	const struct table_config *t = db->tables;
	assert_string_equal(t[0].schema, "public");
	assert_string_equal(t[0].name, "accounts");
	assert_int_equal(t[0].n_key, 2);
	assert_string_equal(t[0].key[0], "aid");
	assert_string_equal(t[0].key[1], "bid");
	assert_string_equal(t[1].name, "Mixed\"Case ;x");
	assert_string_equal(t[1].key[0], "Id");
	assert_string_equal(t[2].schema, "sales");
	assert_string_equal(t[2].name, "in.voices");
	assert_string_equal(t[2].key[1], "b,c");
	assert_int_equal(t[3].kind, TABLE_REFERENCE);
	assert_int_equal(t[3].n_key, 0);
	config_unref(c);
}

static void
load__shards__map_and_order(void **state)
{
	(void)state;
	struct config *c = good("[proxy]\nauth_type=trust\nbuckets=256\n[shard:s:1]\nbuckets = 0-9, 20\nprimary = host=b\n"
	                        "[database:s]\nhash = postgres\n[shard:s:0]\nprimary = host=a\nbuckets = 10-19,21-255\n[shard:s:2]\nprimary=host=c\nbuckets=\n");
	const struct database_config *db = config_database(c, "s");
	assert_int_equal(db->n_shards, 3);
	assert_string_equal(db->shards[0].servers[0].host, "a");
	assert_string_equal(db->shards[1].servers[0].host, "b");
	assert_int_equal(shardmap_buckets(db->map), 256);
	assert_int_equal(shardmap_strategy(db->map), SHARDMAP_POSTGRES);
	assert_int_equal(shardmap_shard_of_bucket(db->map, 9), 1);
	assert_int_equal(shardmap_shard_of_bucket(db->map, 10), 0);
	assert_int_equal(shardmap_shard_of_bucket(db->map, 20), 1);
	config_unref(c);
}

/* ---- files ---- */

static void
put_file(const char *path, const char *text, mode_t mode)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

static void
load__auth_file__relative_to_the_ini_and_warned(void **state)
{
	(void)state;
	char dir[] = "/tmp/test_config_XXXXXX", ini[64], users[64], expected[512];
	assert_non_null(mkdtemp(dir));
	snprintf(ini, sizeof ini, "%s/p.ini", dir);
	snprintf(users, sizeof users, "%s/users.txt", dir);
	put_file(ini, "[proxy]\nauth_file = users.txt\n[database:a]\nprimary = password=x\n", 0644);
	put_file(users, "\"joe\" \"pw\"\n", 0640);
	struct reports r = {0};
	struct config *c = config_load(ini, on_report, &r);
	snprintf(expected, sizeof expected,
	         "W %s: holds passwords and can be read by others than its owner; expected mode 0600\n"
	         "W %s:2: auth_file: %s can be read by others than its owner; expected mode 0600\n", ini, ini, users);
	assert_string_equal(r.text, expected);
	assert_non_null(c);
	assert_string_equal(c->auth_file, users);
	assert_non_null(userlist_find(c->users, SPAN_LIT("joe")));
	config_unref(c);

	assert_int_equal(chmod(ini, 0600) | chmod(users, 0600), 0);
	r = (struct reports){0};
	c = config_load(ini, on_report, &r);
	assert_string_equal(r.text, "");
	config_unref(c);

	put_file(users, "joe\n", 0600);
	r = (struct reports){0};
	assert_null(config_load(ini, on_report, &r));
	snprintf(expected, sizeof expected,
	         "E %s:2: auth_file: %s: line 1: expected \"user\" \"password\"; expected lines of \"name\" \"password or verifier\"\n", ini,
	         users);
	assert_string_equal(r.text, expected);
	unlink(ini);
	unlink(users);
	rmdir(dir);
}

/* ---- printing ---- */

static void
config_print__loaded_again__same(void **state)
{
	(void)state;
	static const char ini[] =
		"[proxy]\nauth_type = trust\nlisten_addr = *\nunix_socket_dir = \"/tmp/a ;b\"\nadmin_users = \"a;, b\"\n"
		"instance_name = x\nmax_packet_size = 64kB\npool_mode = session\nquery_wait_timeout = 1500ms\nworkers = 2\n"
		"[database:odd ;name]\nprimary = host=h dbname='it\\'s ; a \"db\"'\nreplica = postgresql://u@h2/d?sslmode=require\n"
		"pool_mode = statement\n"
		"[database:s]\nbuckets = 256\ntable = \"A \"\"; b\".\"C\" key=d,\"e f\"\ntable = r reference\n"
		"[shard:s:0]\nbuckets = 0-99, 101-200\nprimary = host=h\n[shard:s:1]\nbuckets = 100, 201-255\nprimary = host=i\n";
	struct config *c = good(ini);
	char *first = print(c);
	config_unref(c);
	assert_string_equal(first,
		"[proxy]\nlisten_addr = *\nlisten_port = 6432\nunix_socket_dir = \"/tmp/a ;b\"\nworkers = 2\nauth_type = trust\nauth_hba_file =\nauth_file =\n"
		"auth_failure_delay = 5\nauth_ident_file =\nauth_cert_map =\nclient_tls_sslmode = disable\nclient_tls_key_file =\nclient_tls_cert_file =\nclient_tls_ca_file =\n"
		"client_tls_protocols = secure\nclient_tls_ciphers = default\nclient_tls13_ciphers = default\nclient_tls_ecdhcurve = auto\n"
		"admin_users = \"a;, b\"\nstats_users =\nmax_client_conn = 10000\nmax_user_client_connections = 0\n"
		"max_user_connections = 0\nclient_login_timeout = 60\ntcp_keepalive = 1\ntcp_keepidle = 0\ntcp_keepintvl = 0\ntcp_keepcnt = 0\n"
		"tcp_user_timeout = 0\nmax_packet_size = 65536\n"
		"log_level = info\ninstance_name = x\nmonitor_user = \"a;\"\npool_mode = session\ndefault_pool_size = 20\n"
		"min_pool_size = 0\nreserve_pool_size = 0\nreserve_pool_timeout = 5\nmax_db_connections = 0\nmax_db_client_connections = 0\n"
		"client_idle_timeout = 0\nidle_transaction_timeout = 0\nquery_timeout = 0\ntransaction_timeout = 0\n"
		"query_wait_timeout = 1500ms\nserver_connect_timeout = 15\nserver_idle_timeout = 600\nserver_lifetime = 3600\n"
		"max_replica_lag = 10\nauth_user =\nauth_query = SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END "
		"FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin\nauth_dbname =\nauth_query_cache = 60\nread_consistency = eventual\nbuckets = 16384\nhash = xxh64\n"
		"\n[database:odd ;name]\npool_mode = statement\nprimary = host=h dbname='it\\'s ; a \"db\"'\n"
		"replica = host=h2 dbname=d user=u sslmode=require\n"
		"\n[database:s]\nbuckets = 256\nhash = xxh64\ntable = \"A \"\"; b\".\"C\" key=d,\"e f\"\ntable = public.r reference\n"
		"\n[shard:s:0]\nbuckets = 0-99, 101-200\nprimary = host=h dbname=s\n"
		"\n[shard:s:1]\nbuckets = 100, 201-255\nprimary = host=i dbname=s\n");
	c = good(first);
	char *second = print(c);
	config_unref(c);
	assert_string_equal(first, second);
	free(first);
	free(second);
}

static void
config_print__passwords__hidden(void **state)
{
	(void)state;
	struct config *c = good(S("primary = host=h password='se cret' sslpassword=secret2\nreplica = postgresql://u:secret3@h/d\n"
	                          "replica = password=secret4"));
	char *text = print(c);
	assert_null(strstr(text, "cret"));
	assert_non_null(strstr(text, "primary = host=h dbname=a password=*** sslpassword=***\n"));
	assert_non_null(strstr(text, "replica = host=h dbname=d user=u password=***\n"));
	assert_non_null(strstr(text, "replica = dbname=a password=***\n"));
	assert_true(server(c)->has_password);
	assert_null(strstr(server(c)->label, "cret"));
	free(text);
	config_unref(c);
}

/* Runs in the repository's root, as make does. With WRITE_DOCS=1 in its environment it writes the file anew. */
static void
config_print_reference__committed_file__same(void **state)
{
	(void)state;
	char *now, *committed = calloc(1, 65536);
	size_t n;
	FILE *out = open_memstream(&now, &n);
	config_print_reference(out);
	fclose(out);
	FILE *in = fopen("docs/configuration.md", getenv("WRITE_DOCS") ? "w+" : "r");
	assert_non_null(in);
	if (getenv("WRITE_DOCS")) {
		fputs(now, in);
		rewind(in);
	}
	assert_true(fread(committed, 1, 65535, in) > 0);
	fclose(in);
	assert_string_equal(committed, now);
	free(now);
	free(committed);
}

/* ---- references, threads ---- */

static void
config_ref__two__last_unref_frees(void **state)
{
	(void)state;
	struct config *c = good(DB);
	assert_ptr_equal(config_ref(c), c);
	config_unref(c);
	assert_string_equal(c->databases[0].name, "a"); /* the sanitizer build tells if it were gone */
	config_unref(c);
	config_unref(NULL);
}

static void *
load_often(void *arg)
{
	(void)arg;
	for (int i = 0; i < 200; i++) {
		struct reports r;
		struct config *c = load(i % 2 ? DB : P("workers = x"), &r);
		if ((c != NULL) != (i % 2))
			return arg;
		config_unref(c);
	}
	return NULL;
}

static void
load__two_threads__apart(void **state)
{
	(void)state;
	pthread_t t;
	int mark;
	void *failed;
	assert_int_equal(pthread_create(&t, NULL, load_often, &mark), 0);
	assert_null(load_often(&mark));
	pthread_join(t, &failed);
	assert_null(failed);
}

#define MISTAKE_ENTRY(name, ini, expected) cmocka_unit_test(name),

int
main(void)
{
	const struct CMUnitTest tests[] = {
		MISTAKES(MISTAKE_ENTRY)
		cmocka_unit_test(load__many_mistakes__all_in_order),
		cmocka_unit_test(load__nul_byte__refused),
		cmocka_unit_test(load__no_file__refused),
		cmocka_unit_test(load__nothing_set__defaults),
		cmocka_unit_test(load__proxy_last__defaults_all_databases),
		cmocka_unit_test(load__units__converted),
		cmocka_unit_test(load__words__trimmed),
		cmocka_unit_test(load__bom_crlf_indent__taken),
		cmocka_unit_test(load__passwords__whole),
		cmocka_unit_test(load__long_value__whole),
		cmocka_unit_test(load__line_at_limit__taken_and_one_more_refused),
		cmocka_unit_test(load__section_name_of_63_bytes__whole),
		cmocka_unit_test(load__servers__primary_first_with_labels),
		cmocka_unit_test(load__tables__names_as_postgres_stores_them),
		cmocka_unit_test(load__shards__map_and_order),
		cmocka_unit_test(load__auth_file__relative_to_the_ini_and_warned),
		cmocka_unit_test(config_print__loaded_again__same),
		cmocka_unit_test(config_print__passwords__hidden),
		cmocka_unit_test(config_print_reference__committed_file__same),
		cmocka_unit_test(config_ref__two__last_unref_frees),
		cmocka_unit_test(load__two_threads__apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
