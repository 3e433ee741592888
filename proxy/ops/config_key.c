/* SPDX-License-Identifier: BSD-2-Clause */
/* config_key - the table of proxy.ini's keys, and their values from text and back.
 *
 * A key is one row: where it may stand, its type, default, limits, and the sentence that documents it. Reading
 * (config.c), printing and docs/configuration.md (config_print.c) all go by the rows, so that the three cannot differ, and a
 * new key is a row and a field of struct config or struct database_settings. A default is written as it would be in
 * proxy.ini and takes the same way as a user's value. Names are PgBouncer's where the meaning is. */
#include "config_int.h"

#include <ctype.h>
#include <inttypes.h>

#define SECOND INT64_C(1000)
#define YEAR (365 * 24 * 3600 * SECOND)
#define MEGABYTE (INT64_C(1) << 20)

static const char *const auth_types[] = {"trust", "password", "md5", "scram-sha-256", "cert", "hba", NULL};
static const char *const tls_modes[] = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full", NULL};
static const char *const pool_modes[] = {"session", "transaction", "statement", NULL};
static const char *const consistencies[] = {"eventual", "primary", NULL};
static const char *const log_levels[] = {"debug", "info", "warning", "error", "fatal", NULL};
static const char *const strategies[] = {"xxh64", "postgres", NULL};

_Static_assert(sizeof(enum auth_type) == sizeof(int) && sizeof(enum log_level) == sizeof(int) &&
               sizeof(enum tls_mode) == sizeof(int), "enums are set through int *");
_Static_assert(AUTH_TYPE_HBA == 5 && TLS_VERIFY_FULL == 5 && POOL_MODE_STATEMENT == 2 && READ_PRIMARY == 1 && LOG_LEVEL_FATAL == 4 &&
               SHARDMAP_POSTGRES == 1, "the words above are in the enums' order");

/* PgBouncer's. An expired password is none, and who may not log in has none. */
#define DEFAULT_AUTH_QUERY \
	"SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END " \
	"FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"

#define PROXY(field) .places = IN_PROXY, .at = offsetof(struct config, field)
#define FOR_DATABASE(field) .for_database = true, .at = offsetof(struct database_settings, field)
#define DATABASE(field) .places = IN_PROXY | IN_DATABASE, FOR_DATABASE(field)

const struct config_key config_keys[] = {
	{"listen_addr", PROXY(listen_addr), .type = VAL_TEXT, .def = "127.0.0.1",
	 .doc = "Addresses to listen on, with commas between; `*` is all, empty is no TCP."},
	{"listen_port", PROXY(listen_port), .type = VAL_INT, .def = "6432", .min = 1, .max = 65535,
	 .doc = "The port of every address, and of the Unix socket's name."},
	{"unix_socket_dir", PROXY(unix_socket_dir), .type = VAL_TEXT, .def = "",
	 .doc = "The folder of the Unix socket `.s.PGSQL.<listen_port>`; empty is none."},
	{"unix_socket_mode", .places = IN_PROXY, .type = VAL_UNUSED,
	 .doc = "Taken for PgBouncer's sake and not used yet, with a warning."},
	{"workers", PROXY(workers), .type = VAL_INT, .def = "0", .min = 0, .max = 256,
	 .doc = "Threads that serve clients; 0 is one for each core."},
	{"auth_type", PROXY(auth_type), .type = VAL_ENUM, .def = "scram-sha-256", .words = auth_types,
	 .doc = "How clients prove who they are. `cert`: by the name (CN) in their TLS certificate; it needs `client_tls_sslmode` "
	        "verify-ca or verify-full. `hba`: as auth_hba_file says, by where they come from."},
	{"auth_hba_file", PROXY(auth_hba_file), .type = VAL_TEXT, .def = "",
	 .doc = "The rules of `auth_type` hba in pg_hba.conf's format, relative to proxy.ini's folder: types local, host, hostssl, hostnossl; "
	        "methods trust, reject, password, md5, scram-sha-256, cert, peer. No groups, host names or regular expressions."},
	{"auth_file", PROXY(auth_file), .type = VAL_TEXT, .def = "",
	 .doc = "Who may log in: a file of lines `\"name\" \"password, or SCRAM or md5 verifier\"`, relative to proxy.ini's folder. "
	        "May be left out with `auth_type` trust, cert or hba, or when auth_user is set."},
	{"auth_failure_delay", PROXY(auth_failure_delay_ms), .type = VAL_TIME, .def = "5", .min = 0, .max = 60 * SECOND,
	 .doc = "The most that the answer to a wrong password is held back: from an address's fourth failure in a row on it is 0.1 s, and twice as "
	        "long each time. 0 is never. Unix sockets are exempt."},
	{"auth_ident_file", PROXY(auth_ident_file), .type = VAL_TEXT, .def = "",
	 .doc = "User-name maps in pg_ident.conf's format: lines of `map certificate-name user`, relative to proxy.ini's folder. A name "
	        "that begins with `/` is a regular expression, `\\1` in the user what its parentheses matched; `all` is any user."},
	{"auth_cert_map", PROXY(auth_cert_map), .type = VAL_TEXT, .def = "",
	 .doc = "Which map of auth_ident_file says what users a certificate's name may log in as; empty: only the user of that very name."},
	{"client_tls_sslmode", PROXY(client_tls.mode), .type = VAL_ENUM, .def = "disable", .words = tls_modes,
	 .doc = "TLS for clients over TCP. `allow`, `prefer`: as the client likes. `require`: a client without is refused. `verify-ca`, "
	        "`verify-full`: so is one without a certificate that client_tls_ca_file vouches for."},
	{"client_tls_key_file", PROXY(client_tls.key_file), .type = VAL_TEXT, .def = "",
	 .doc = "The private key, PEM, without a pass phrase. Like the files below it is relative to proxy.ini's folder, and read again "
	        "on SIGHUP, for new connections."},
	{"client_tls_cert_file", PROXY(client_tls.cert_file), .type = VAL_TEXT, .def = "",
	 .doc = "The certificate of that key, PEM, with the intermediate ones behind it."},
	{"client_tls_ca_file", PROXY(client_tls.ca_file), .type = VAL_TEXT, .def = "",
	 .doc = "Who may sign clients' certificates. When set, a certificate that a client shows must be valid, also where none is required."},
	{"client_tls_protocols", PROXY(client_tls.protocols), .type = VAL_TEXT, .def = "secure",
	 .doc = "`tlsv1.2`, `tlsv1.3`, or both: `secure`. Older ones are not offered."},
	{"client_tls_ciphers", PROXY(client_tls.ciphers), .type = VAL_TEXT, .def = "default",
	 .doc = "OpenSSL's cipher list for TLS 1.2; `default` or `secure` is `HIGH:!aNULL:!eNULL`."},
	{"client_tls13_ciphers", PROXY(client_tls.ciphersuites), .type = VAL_TEXT, .def = "default",
	 .doc = "OpenSSL's cipher suites for TLS 1.3; `default` is OpenSSL's own."},
	{"client_tls_ecdhcurve", PROXY(client_tls.curves), .type = VAL_TEXT, .def = "auto",
	 .doc = "The groups for key exchange, with colons between; `auto` is OpenSSL's own choice."},
	{"client_tls_dheparams", .places = IN_PROXY, .type = VAL_UNUSED,
	 .doc = "Taken for PgBouncer's sake and not used, with a warning: parameters are chosen by the key's size."},
	{"admin_users", PROXY(admin_users), .count = offsetof(struct config, n_admin_users), .type = VAL_WORDS, .def = "",
	 .doc = "Users who may do everything on the console (database `pgspan`), with commas between."},
	{"stats_users", PROXY(stats_users), .count = offsetof(struct config, n_stats_users), .type = VAL_WORDS, .def = "",
	 .doc = "Users who may only look there (SHOW)."},
	{"max_client_conn", PROXY(max_client_conn), .type = VAL_INT, .def = "10000", .min = 1, .max = 1000000,
	 .doc = "Clients at once; one more is told 53300."},
	{"max_user_client_connections", PROXY(max_user_client_connections), .type = VAL_INT, .def = "0", .min = 0, .max = 1000000,
	 .doc = "Clients of one user at once, over all databases; one more is told 53300. 0 is no limit."},
	{"max_user_connections", PROXY(max_user_connections), .type = VAL_INT, .def = "0", .min = 0, .max = 1000000,
	 .doc = "Server connections of one user, over all databases, servers and workers: an unused one is closed when another of the "
	        "user's pools needs its place. 0 is no limit."},
	{"client_login_timeout", PROXY(client_login_timeout_ms), .type = VAL_TIME, .def = "60", .min = 0, .max = YEAR,
	 .doc = "A client that has not logged in by then is disconnected; 0 is never."},
	{"tcp_keepalive", PROXY(tcp.keepalive), .type = VAL_INT, .def = "1", .min = 0, .max = 1,
	 .doc = "Whether dead peers are looked for, on new connections of clients and servers. With 0 this and the next three are left to "
	        "the system and to the servers' connection strings."},
	{"tcp_keepidle", PROXY(tcp.keepidle_s), .type = VAL_INT, .def = "0", .min = 0, .max = 32767,
	 .doc = "Seconds of silence before the first probe; 0 is the system's."},
	{"tcp_keepintvl", PROXY(tcp.keepintvl_s), .type = VAL_INT, .def = "0", .min = 0, .max = 32767,
	 .doc = "Seconds between probes; 0 is the system's."},
	{"tcp_keepcnt", PROXY(tcp.keepcnt), .type = VAL_INT, .def = "0", .min = 0, .max = 127,
	 .doc = "Unanswered probes before a connection is dead; 0 is the system's."},
	{"tcp_user_timeout", PROXY(tcp.user_timeout_ms), .type = VAL_INT, .def = "0", .min = 0, .max = 2147483647,
	 .doc = "Milliseconds that sent bytes may stay unacknowledged before a connection is dead; 0 is the system's."},
	{"max_packet_size", PROXY(max_packet_size), .type = VAL_SIZE, .def = "1073741823", .min = 64 * 1024,
	 .max = 1024 * MEGABYTE - 1,
	 .doc = "The largest message that is collected whole: a statement, or a Bind that is routed by its values. Results and "
	        "COPY data stream and have no such limit."},
	{"log_level", PROXY(log_level), .type = VAL_ENUM, .def = "info", .words = log_levels,
	 .doc = "The least weighty event that is logged."},
	{"instance_name", PROXY(instance_name), .type = VAL_TEXT,
	 .doc = "Names this pgspan's prepared transactions, so that it can finish them after a crash: up to 24 of `a-z`, `0-9`, "
	        "`_`. Must be unique among the pgspans before one database, and stay the same. Default: the host's name and "
	        "listen_port."},
	{"monitor_user", PROXY(monitor_user), .type = VAL_TEXT,
	 .doc = "The role for health checks, for reading the catalog, and for finishing prepared transactions. Default: the first "
	        "of admin_users, or else `postgres`."},

	{"pool_mode", DATABASE(pool_mode), .type = VAL_ENUM, .def = "transaction", .words = pool_modes,
	 .doc = "When a server connection goes back to the pool: when the client leaves, after each transaction, or after each "
	        "statement (which refuses transaction blocks)."},
	{"default_pool_size", DATABASE(default_pool_size), .type = VAL_INT, .def = "20", .min = 1, .max = 100000,
	 .doc = "Server connections for each (database, user, server), over all workers."},
	{"min_pool_size", DATABASE(min_pool_size), .type = VAL_INT, .def = "0", .min = 0, .max = 100000,
	 .doc = "As many of them are kept open while the user has clients, and are not closed for server_idle_timeout."},
	{"reserve_pool_size", DATABASE(reserve_pool_size), .type = VAL_INT, .def = "0", .min = 0, .max = 100000,
	 .doc = "As many more may be opened for clients that have waited for reserve_pool_timeout; they are closed when they are unused."},
	{"reserve_pool_timeout", DATABASE(reserve_pool_timeout_ms), .type = VAL_TIME, .def = "5", .min = 0, .max = YEAR,
	 .doc = "See reserve_pool_size; looked at once a second."},
	{"max_db_connections", DATABASE(max_db_connections), .type = VAL_INT, .def = "0", .min = 0, .max = 1000000,
	 .doc = "Server connections of the database to each of its servers, over all users and workers: an unused one is closed when "
	        "another user needs its place. 0 is no limit."},
	{"max_db_client_connections", DATABASE(max_db_client_connections), .type = VAL_INT, .def = "0", .min = 0, .max = 1000000,
	 .doc = "Clients of the database at once; one more is told 53300. 0 is no limit."},
	{"client_idle_timeout", DATABASE(client_idle_timeout_ms), .type = VAL_TIME, .def = "0", .min = 0, .max = YEAR,
	 .doc = "A client that has sent nothing for so long is disconnected (57P05), unless it holds a server: a transaction, a pin, session "
	        "pooling. 0 is never. This and the next three are looked at once a second, and a reload applies them to all clients."},
	{"idle_transaction_timeout", DATABASE(idle_transaction_timeout_ms), .type = VAL_TIME, .def = "0", .min = 0, .max = YEAR,
	 .doc = "A client that has sent nothing for so long in a transaction is disconnected (25P03); 0 is never."},
	{"query_timeout", DATABASE(query_timeout_ms), .type = VAL_TIME, .def = "0", .min = 0, .max = YEAR,
	 .doc = "A statement that has run for so long is cancelled, and its client and its server connection are closed (57014), as it is for "
	        "networks that fail; 0 is never. The server's statement_timeout, a little shorter, keeps both."},
	{"transaction_timeout", DATABASE(transaction_timeout_ms), .type = VAL_TIME, .def = "0", .min = 0, .max = YEAR,
	 .doc = "A client whose transaction has gone on for so long, a single statement included, is disconnected (25P04); 0 is never."},
	{"query_wait_timeout", DATABASE(query_wait_timeout_ms), .type = VAL_TIME, .def = "120", .min = 0, .max = YEAR,
	 .doc = "How long a client may wait for a server connection before its statement fails; 0 is for ever."},
	{"server_connect_timeout", DATABASE(server_connect_timeout_ms), .type = VAL_TIME, .def = "15", .min = 1, .max = YEAR,
	 .doc = "How long one attempt to log in to a server may take."},
	{"server_idle_timeout", DATABASE(server_idle_timeout_ms), .type = VAL_TIME, .def = "600", .min = 0, .max = YEAR,
	 .doc = "An unused server connection is closed after this time; 0 is never."},
	{"server_lifetime", DATABASE(server_lifetime_ms), .type = VAL_TIME, .def = "3600", .min = 0, .max = YEAR,
	 .doc = "A server connection older than this is closed when it is next unused, not all at once; 0 is after one use."},
	{"max_replica_lag", DATABASE(max_replica_lag_ms), .type = VAL_TIME, .def = "10", .min = 0, .max = YEAR,
	 .doc = "A replica further behind its primary gets no reads; 0 is no limit."},
	{"auth_user", DATABASE(auth_user), .type = VAL_TEXT, .def = "",
	 .doc = "The role that asks auth_query for users whom auth_file does not name; its own password is in auth_file or in the connection "
	        "string. Empty: nobody is asked."},
	{"auth_query", DATABASE(auth_query), .type = VAL_TEXT, .def = DEFAULT_AUTH_QUERY,
	 .doc = "The statement that tells a user's secret; `$1` is the name, sent as a parameter. One row of two columns: that name, and the "
	        "password or verifier; NULL: nobody may log in by it."},
	{"auth_dbname", DATABASE(auth_dbname), .type = VAL_TEXT, .def = "",
	 .doc = "The database ([database:NAME]) whose primary is asked; empty: the client's own. Of several shards the first is asked."},
	{"auth_query_cache", DATABASE(auth_query_cache_ms), .type = VAL_TIME, .def = "60", .min = 0, .max = YEAR,
	 .doc = "How long an answer of auth_query is used; 0: it is asked at every login. A login that fails by an older answer makes it be asked again."},
	{"read_consistency", DATABASE(read_consistency), .type = VAL_ENUM, .def = "eventual", .words = consistencies,
	 .doc = "`eventual`: reads go to any healthy replica within max_replica_lag. `primary`: all reads go to the primary."},
	{"buckets", .places = IN_PROXY | IN_DATABASE | IN_SHARD, FOR_DATABASE(buckets), .type = VAL_BUCKETS, .def = "16384",
	 .min = SHARDMAP_MIN_BUCKETS, .max = SHARDMAP_MAX_BUCKETS,
	 .doc = "In a sharded database's section: how many buckets its rows hash to. Never change it once there are rows. In a "
	        "shard's section: the buckets that it owns, such as `0-4095, 5000`; every bucket has one owner."},
	{"hash", DATABASE(hash), .type = VAL_ENUM, .def = "xxh64", .words = strategies,
	 .doc = "How a key's bucket is found; `postgres` is the function of PARTITION BY HASH. Never change it once there are rows."},

	{"primary", .places = IN_DATABASE | IN_SHARD, .type = VAL_SERVER,
	 .doc = "The server that takes writes: a libpq connection string (keyword=value or URI) to one host. dbname is the "
	        "section's database when it names none. Without user, a client's own name and password are used."},
	{"replica", .places = IN_DATABASE | IN_SHARD, .type = VAL_SERVER,
	 .doc = "A streaming replica of that primary, which takes reads. May be repeated."},
	{"table", .places = IN_DATABASE, .type = VAL_TABLE,
	 .doc = "`[schema.]name key=column[,column…]`: a table whose rows are spread over the shards by that key; or `[schema.]name "
	        "reference`: a table that every shard has whole. Names as in SQL. May be repeated. A table that no line names "
	        "lives whole on the first shard."},
};
const int n_config_keys = ARRAY_LEN(config_keys);

const struct config_key *
config_key_find(const char *name)
{
	for (int i = 0; i < n_config_keys; i++)
		if (strcmp(config_keys[i].name, name) == 0)
			return &config_keys[i];
	return NULL;
}

/* ---- what was probably meant ---- */

enum { NEAR_MAX_BYTES = 40 };

/* Levenshtein's distance, with letter case left aside. Both are at most NEAR_MAX_BYTES long. */
static int
distance(const char *a, const char *b)
{
	int row[NEAR_MAX_BYTES + 1];
	int n = (int)strlen(b);
	for (int j = 0; j <= n; j++)
		row[j] = j;
	for (int i = 1; a[i - 1]; i++) {
		int diagonal = row[0];
		row[0] = i;
		for (int j = 1; j <= n; j++) {
			int change = diagonal + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
			int least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
			diagonal = row[j];
			row[j] = change < least ? change : least;
		}
	}
	return row[n];
}

/* Keeps in *best the nearer of it and *word*. Nothing is near that differs in more than a third of its letters,
 * or in more than half of *name*'s. */
static void
keep_nearer(const char *name, const char *word, const char **best, int *best_distance)
{
	if (strlen(name) > NEAR_MAX_BYTES || strlen(word) > NEAR_MAX_BYTES)
		return;
	int d = distance(name, word);
	if (d * 2 <= (int)strlen(name) && d <= (int)(strlen(word) + 2) / 3 && (!*best || d < *best_distance)) {
		*best = word;
		*best_distance = d;
	}
}

const char *
config_word_nearest(const char *name, const char *const *words)
{
	const char *best = NULL;
	int best_distance = 0;
	for (; *words; words++)
		keep_nearer(name, *words, &best, &best_distance);
	return best;
}

const char *
config_key_nearest(const char *name, unsigned place)
{
	const char *best = NULL;
	int best_distance = 0;
	for (int i = 0; i < n_config_keys; i++)
		if (config_keys[i].places & place)
			keep_nearer(name, config_keys[i].name, &best, &best_distance);
	return best;
}

/* ---- numbers with units ---- */

struct unit {
	const char *name; /* "" is what a plain number means */
	int64_t factor;
};

static const struct unit plain_units[] = {{"", 1}, {NULL, 0}};
static const struct unit time_units[] = {{"", SECOND}, {"ms", 1}, {"s", SECOND}, {"min", 60 * SECOND}, {"h", 3600 * SECOND}, {NULL, 0}};
static const struct unit size_units[] = {{"", 1}, {"B", 1}, {"kB", 1024}, {"MB", MEGABYTE}, {"GB", MEGABYTE << 10}, {NULL, 0}};

static const struct unit *
units_of(const struct config_key *key)
{
	return key->type == VAL_TIME ? time_units : key->type == VAL_SIZE ? size_units : plain_units;
}

/* Digits and a unit, blanks between allowed. False: it is neither. Too large a number stays at INT64_MAX. */
static bool
number_parse(const struct config_key *key, const char *s, int64_t *out)
{
	bool minus = *s == '-', huge = false;
	const char *p = s + minus;
	int64_t n = 0;
	if (!isdigit((unsigned char)*p))
		return false;
	for (; isdigit((unsigned char)*p); p++)
		huge |= __builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *p - '0', &n);
	p += strspn(p, " \t");
	const struct unit *u = units_of(key);
	while (u->name && strcmp(u->name, p) != 0)
		u++;
	if (!u->name)
		return false;
	huge |= __builtin_mul_overflow(n, u->factor, &n);
	*out = huge ? INT64_MAX : n;
	if (minus)
		*out = -*out;
	return true;
}

/* Times in seconds where that is exact, sizes in bytes. */
static const char *
number_text(const struct config_key *key, int64_t n, struct arena *mem)
{
	if (key->type == VAL_TIME && n % SECOND != 0)
		return arena_printf(mem, "%" PRId64 "ms", n);
	return arena_printf(mem, "%" PRId64, key->type == VAL_TIME ? n / SECOND : n);
}

static const char *
range_text(const struct config_key *key, struct arena *mem)
{
	static const char *const units[] = {[VAL_TIME] = " seconds", [VAL_SIZE] = " bytes", [VAL_BUCKETS] = ""};
	const char *unit = key->type < ARRAY_LEN(units) && units[key->type] ? units[key->type] : "";
	return arena_printf(mem, "%s to %s%s", number_text(key, key->min, mem), number_text(key, key->max, mem), unit);
}

static bool
number_set(const struct config_key *key, const char *value, int64_t *out, struct arena *mem, struct mistakes *m, int line)
{
	if (!number_parse(key, value, out)) {
		if (key->type == VAL_TIME)
			mistake_add(m, line, key->name,
			            "\"%s\" is not a time; expected a whole number of seconds, or one with a unit: ms, s, min, h", value);
		else if (key->type == VAL_SIZE)
			mistake_add(m, line, key->name,
			            "\"%s\" is not a size; expected a whole number of bytes, or one with a unit: kB, MB, GB", value);
		else
			mistake_add(m, line, key->name, "\"%s\" is not a whole number; expected %s", value, range_text(key, mem));
		return false;
	}
	if (*out < key->min || *out > key->max) {
		mistake_add(m, line, key->name, "%s is out of range; expected %s", value, range_text(key, mem));
		return false;
	}
	return true;
}

/* ---- values ---- */

/* A comma list. It is taken apart without regard to quotes: names with commas can't be written. */
static void
words_set(const struct config_key *key, void *base, const char *value, struct arena *mem, struct mistakes *m, int line)
{
	size_t most = 1;
	for (const char *p = value; *p; p++)
		most += *p == ',';
	char **words = arena_alloc(mem, most * sizeof *words);
	int n = 0;
	for (const char *p = value; *value;) {
		const char *next = p + strcspn(p, ",");
		const char *end = next;
		p += strspn(p, " \t");
		while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
			end--;
		if (end <= p) {
			mistake_add(m, line, key->name, "an empty name in the list; expected names with commas between");
			return;
		}
		words[n++] = arena_strndup(mem, p, (size_t)(end - p));
		if (*next == '\0')
			break;
		p = next + 1;
	}
	*(char ***)(void *)((char *)base + key->at) = words;
	*(int *)(void *)((char *)base + key->count) = n;
}

static void
enum_set(const struct config_key *key, int *out, const char *value, struct arena *mem, struct mistakes *m, int line)
{
	struct text all;
	text_init(&all, mem);
	for (int i = 0; key->words[i]; i++) {
		if (strcmp(key->words[i], value) == 0) {
			*out = i;
			return;
		}
		text_puts(&all, i ? ", " : "");
		text_puts(&all, key->words[i]);
	}
	if (strcmp(key->name, "read_consistency") == 0 && strcmp(value, "session") == 0)
		mistake_add(m, line, key->name, "session comes with a later version; expected one of %s", all.p);
	else
		mistake_add(m, line, key->name, "\"%s\" is unknown; expected one of %s", value, all.p);
}

void
config_key_set(const struct config_key *key, void *base, const char *value, struct arena *mem, struct mistakes *m, int line)
{
	void *at = (char *)base + key->at;
	int64_t n;
	value = config_unquote(value, mem);
	if (!value) {
		mistake_add(m, line, key->name, "text after the closing quote; expected nothing there");
		return;
	}
	switch (key->type) {
	case VAL_TEXT:
		*(char **)at = arena_strdup(mem, value);
		break;
	case VAL_WORDS:
		words_set(key, base, value, mem, m, line);
		break;
	case VAL_INT:
		if (number_set(key, value, &n, mem, m, line))
			*(int *)at = (int)n;
		break;
	case VAL_BUCKETS:
		if (!number_set(key, value, &n, mem, m, line))
			break;
		if (n & (n - 1))
			mistake_add(m, line, key->name, "%s is not a power of two; expected one, %s", value, range_text(key, mem));
		else
			*(int *)at = (int)n;
		break;
	case VAL_TIME:
		if (number_set(key, value, &n, mem, m, line))
			*(int64_t *)at = n;
		break;
	case VAL_SIZE:
		if (number_set(key, value, &n, mem, m, line))
			*(uint32_t *)at = (uint32_t)n;
		break;
	case VAL_ENUM:
		enum_set(key, at, value, mem, m, line);
		break;
	case VAL_UNUSED:
		mistake_warn(m, line, key->name, "not used by this version");
		break;
	case VAL_SERVER:
	case VAL_TABLE:
		assert(!"has a parser of its own");
	}
}

const char *
config_key_text(const struct config_key *key, const void *base, struct arena *mem)
{
	const void *at = (const char *)base + key->at;
	switch (key->type) {
	case VAL_TEXT:
		return config_quote(*(char *const *)at, mem);
	case VAL_WORDS: {
		struct text t;
		text_init(&t, mem);
		char *const *words = *(char **const *)at;
		int n = *(const int *)(const void *)((const char *)base + key->count);
		for (int i = 0; i < n; i++) {
			text_puts(&t, i ? ", " : "");
			text_puts(&t, words[i]);
		}
		return config_quote(t.p, mem);
	}
	case VAL_INT:
	case VAL_BUCKETS:
		return number_text(key, *(const int *)at, mem);
	case VAL_TIME:
		return number_text(key, *(const int64_t *)at, mem);
	case VAL_SIZE:
		return number_text(key, *(const uint32_t *)at, mem);
	case VAL_ENUM:
		return key->words[*(const int *)at];
	case VAL_UNUSED:
	case VAL_SERVER:
	case VAL_TABLE:
		break;
	}
	return "";
}
