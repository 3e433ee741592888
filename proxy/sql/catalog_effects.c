/* SPDX-License-Identifier: BSD-2-Clause */
/* catalog_effects - names of functions whose pg_proc row does not tell what they do.
 *
 * PostgreSQL's provolatile speaks of results, not of effects: pg_advisory_lock() is volatile as random()
 * is, and nothing forbids a STABLE function to signal another process. The lists are matched in any schema:
 * an extension's dblink() lives wherever it was installed, and a user's function that happens to have such
 * a name is only treated with more care than it needs. */
#include <fnmatch.h>

#include "catalog_int.h"

/* fnmatch() patterns. */
static const char *const effects[] = {
	/* sequences, settings, notifications */
	"nextval", "setval", "set_config", "pg_notify",
	/* locks and transaction ids */
	"pg_advisory_*", "pg_try_advisory_*", "txid_current", "pg_current_xact_id", "pg_export_snapshot",
	/* large objects: all but lo_get(), which only reads */
	"lo_[!g]*", "loread", "lowrite",
	/* the server and its other sessions */
	"pg_terminate_backend", "pg_cancel_backend", "pg_reload_conf", "pg_rotate_logfile*", "pg_log_*",
	"pg_switch_wal", "pg_create_*", "pg_drop_*", "pg_copy_*", "pg_backup_*", "pg_start_backup", "pg_stop_backup",
	"pg_promote", "pg_wal_replay_*", "pg_logical_*", "pg_replication_*", "pg_sync_replication_slots",
	"pg_stat_reset*", "pg_stat_statements_reset", "pg_stat_force_next_flush", "pg_stat_have_stats_reset",
	"pg_import_system_collations", "pg_extension_config_dump", "binary_upgrade_*", "pg_restore_*", "pg_clear_*",
	/* indexes and storage */
	"brin_summarize_*", "brin_desummarize_range", "gin_clean_pending_list", "pg_truncate_visibility_map",
	"pg_file_*", "heap_force_*", "pg_prewarm", "autoprewarm_*",
	/* other databases, queries out of a text */
	"dblink*", "query_to_xml*", "cursor_to_xml*",
};

static const char *const queries[] = {
	"dblink*", "query_to_xml*", "cursor_to_xml*", "table_to_xml*", "schema_to_xml*", "database_to_xml*",
	"ts_stat", "ts_rewrite", "crosstab*", "connectby", "xpath_table",
};

static bool
matches(const char *const *patterns, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (patterns[i][0] == name[0] && fnmatch(patterns[i], name, 0) == 0)
			return true;
	return false;
}

bool
function_name_has_effects(const char *name)
{
	return matches(effects, ARRAY_LEN(effects), name);
}

bool
function_name_runs_queries(const char *name)
{
	return matches(queries, ARRAY_LEN(queries), name);
}
