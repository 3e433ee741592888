/* SPDX-License-Identifier: BSD-2-Clause */
/* config - proxy.ini as an immutable, reference-counted snapshot.
 *
 * A reload builds a new snapshot, checks it whole and swaps it in, or reports every mistake and keeps
 * the old one. Nothing in a snapshot changes after config_load() returned it.
 * Owner: whoever holds a reference.  Lives until: the last config_unref().  Thread: any may read. */
#ifndef PGSPAN_CONFIG_H
#define PGSPAN_CONFIG_H

#include "pgspan/arena.h"
#include "pgspan/log.h"
#include "pgspan/tcp.h"
#include "pgspan/tls.h"
#include "shardmap.h"

struct userlist;   /* pgspan/auth.h */
struct ident_maps; /* pgspan/ident.h */
struct hba;        /* pgspan/hba.h */

enum auth_type {
	AUTH_TYPE_TRUST,
	AUTH_TYPE_PASSWORD,
	AUTH_TYPE_MD5,
	AUTH_TYPE_SCRAM,
	AUTH_TYPE_CERT,
	AUTH_TYPE_HBA,
	AUTH_TYPE_PEER, /* only by a rule of auth_hba_file */
};
enum pool_mode { POOL_MODE_SESSION, POOL_MODE_TRANSACTION, POOL_MODE_STATEMENT };
enum read_consistency { READ_EVENTUAL, READ_PRIMARY };
enum server_role { SERVER_PRIMARY, SERVER_REPLICA };

/* One "primary =" or "replica =" line. */
struct server_config {
	enum server_role role;
	char *conninfo; /* a libpq keyword/value string, complete: dbname is in it; may hold a password */
	char *label;    /* "host:port/dbname" for logs and errors; never a password */
	char *host;     /* the conninfo's host or hostaddr; a path: Unix socket; NULL: libpq's default */
	char *dbname;   /* the conninfo's, or the database's name */
	char *user;     /* the conninfo's user: all clients share this server user; NULL: the client's own */
	bool has_password;
};

/* The servers that hold the same rows. An unsharded database has exactly one shard, number 0. */
struct shard_config {
	int number;
	struct server_config *servers; /* the primary first */
	int n_servers;
};

enum table_kind { TABLE_SHARDED, TABLE_REFERENCE };

/* A "table =" line. Names are as PostgreSQL stores them: folded unless they were quoted. */
struct table_config {
	enum table_kind kind;
	char *schema; /* "public" when the line named none */
	char *name;
	char **key; /* key column names, in order; n_key 0 for a reference table */
	int n_key;
};

/* What a [database:x] section may set and [proxy] may set for all. Times are in milliseconds. */
struct database_settings {
	enum pool_mode pool_mode;
	enum read_consistency read_consistency;
	int default_pool_size; /* server connections for each (database, user, server), over all workers */
	int min_pool_size, reserve_pool_size;
	int max_db_connections;        /* for each server; 0: no limit, as in the next */
	int max_db_client_connections;
	int64_t reserve_pool_timeout_ms;
	int64_t client_idle_timeout_ms, idle_transaction_timeout_ms, query_timeout_ms, transaction_timeout_ms; /* 0: never */
	int64_t query_wait_timeout_ms;     /* 0: for ever */
	int64_t server_connect_timeout_ms; /* for one attempt to log in */
	int64_t server_idle_timeout_ms;    /* 0: never */
	int64_t server_lifetime_ms;        /* 0: after one use */
	char *auth_user;    /* asks auth_query; empty: nobody does */
	char *auth_query;
	char *auth_dbname;  /* whose primary is asked; empty: the database's own */
	int64_t auth_query_cache_ms;
	int64_t max_replica_lag_ms; /* a replica further behind gets no reads; 0: no limit */
	int buckets;                /* of a sharded database: a power of two */
	enum shardmap_strategy hash;
};

struct database_config {
	char *name;
	struct database_settings set;
	bool sharded;            /* has [shard:NAME:n] sections */
	struct shard_config *shards;
	int n_shards;
	struct shardmap *map;    /* NULL unless sharded */
	struct table_config *tables;
	int n_tables;
};

struct config {
	_Atomic int refs;
	struct arena mem;      /* every string and array below */
	char *path;
	char *listen_addr;     /* comma list of addresses, "*": all; empty: no TCP */
	int listen_port;
	char *unix_socket_dir; /* empty: none */
	int workers;           /* already resolved: at least 1 */
	enum auth_type auth_type;
	char *auth_file;       /* an absolute path, or empty: none */
	struct userlist *users; /* NULL when auth_file is not set */
	char *auth_hba_file;   /* an absolute path, or empty: none */
	struct hba *hba;       /* NULL unless AUTH_TYPE_HBA */
	int64_t auth_failure_delay_ms; /* the most that a refusal is held back; 0: never */
	char *auth_ident_file; /* an absolute path, or empty: none */
	char *auth_cert_map;   /* which of its maps is AUTH_TYPE_CERT's; empty: the certificate's name is the user's */
	struct ident_maps *ident; /* NULL when auth_ident_file is not set */
	struct tls_settings client_tls;
	struct tls_context *tls; /* NULL with TLS_DISABLE */
	char **admin_users;
	int n_admin_users;
	char **stats_users;
	int n_stats_users;
	int max_client_conn;
	int max_user_client_connections, max_user_connections; /* 0: no limit */
	struct tcp_settings tcp;
	int64_t client_login_timeout_ms;
	uint32_t max_packet_size; /* largest message that is collected whole (statements, Bind), bytes */
	enum log_level log_level;
	char *instance_name;      /* names this pgspan's prepared transactions: [a-z0-9_]{1,24} */
	char *monitor_user;       /* role for health checks, catalog and two-phase recovery */
	struct database_settings defaults; /* what [proxy] gives to databases that set nothing else */
	struct database_config *databases;
	int n_databases;
};

/* Reads *path*. NULL when there was any mistake: each has then been given to *report* (file, line,
 * key, what was expected; one line of text without newline). Warnings go there too, with is_error
 * false. Thread: any; reads files. */
typedef void (*config_report_fn)(void *arg, bool is_error, const char *line);
struct config *config_load(const char *path, config_report_fn report, void *arg) WARN_UNUSED;
/* The same from an open stream, which stays open; *path* is its name in reports, and auth_file is relative to its folder. */
struct config *config_load_stream(FILE *in, const char *path, config_report_fn report, void *arg) WARN_UNUSED;

struct config *config_ref(struct config *c);
void config_unref(struct config *c);

/* NULL when there is none of that name. */
const struct database_config *config_database(const struct config *c, const char *name);
bool config_is_admin(const struct config *c, const char *user);

/* Prints the effective configuration in proxy.ini's own form, passwords replaced by ***. Without passwords, what is
 * printed loads as the same configuration. */
void config_print(const struct config *c, FILE *out);

/* Prints docs/configuration.md, from the table of keys that the reader itself works by. */
void config_print_reference(FILE *out);

#endif
