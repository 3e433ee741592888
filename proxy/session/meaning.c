/* SPDX-License-Identifier: BSD-2-Clause */
/* meaning - what a text means in this session: where unqualified names are looked up, how a backslash in a string reads,
 * whether a name may be a temporary table's. Plans are made and kept under it.
 *
 * Nearly all sessions run under the defaults, "$user", public and standard_conforming_strings = on: for them nothing is kept. */
#include "session_int.h"

#include "pgspan/catalog.h"
#include "pgspan/sqlstate.h"

#include <xxhash.h>

#define PATH_MAX_SCHEMAS 64

struct meaning {
	struct arena mem;
	const char **path; /* NULL: the default */
	int n_path;
	bool path_unknown; /* a search_path that was made in a way that is not understood */
	bool scs_off;
	bool utf8;
};

static bool
matters(const char *name)
{
	return strcmp(name, "search_path") == 0 || strcmp(name, "standard_conforming_strings") == 0 || strcmp(name, "client_encoding") == 0;
}

/* One schema of a list: an identifier or a string; "$user" is the user's name. */
static void
add_schema(struct session *s, struct meaning *m, struct span text, bool fold)
{
	if (m->n_path == PATH_MAX_SCHEMAS) {
		m->path_unknown = true;
		return;
	}
	char *name = arena_strndup(&m->mem, text.p, text.n);
	for (char *c = name; fold && *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c + 32);
	m->path[m->n_path++] = strcmp(name, "$user") == 0 ? s->user : name;
}

/* The value of a search_path as text: names with commas between, quoted or not (what set_config() and a start-up packet give). */
static void
path_of_list(struct session *s, struct meaning *m, const char *p, size_t n)
{
	const char *end = p + n;
	for (;;) {
		while (p < end && (*p == ' ' || *p == '\t' || *p == '\n'))
			p++;
		if (p == end)
			return;
		if (*p == '"') {
			const char *q = memchr(p + 1, '"', (size_t)(end - p - 1));
			if (!q || (q + 1 < end && q[1] == '"')) {
				m->path_unknown = true;
				return;
			}
			add_schema(s, m, span_of(p + 1, (size_t)(q - p - 1)), false);
			p = q + 1;
		} else {
			const char *q = p;
			while (q < end && *q != ',' && *q != ' ')
				q++;
			if (q > p)
				add_schema(s, m, span_of(p, (size_t)(q - p)), true);
			p = q;
		}
		while (p < end && *p == ' ')
			p++;
		if (p < end && *p++ != ',') {
			m->path_unknown = true;
			return;
		}
	}
}

/* The text that made a setting, SET … or SELECT set_config(…), read for its value. */
static void
read_path(struct session *s, struct meaning *m, const char *sql)
{
	struct scan_iter it;
	struct scan_token t;
	bool values = false, is_set = false;
	int literals = 0;
	m->path = arena_alloc(&m->mem, PATH_MAX_SCHEMAS * sizeof *m->path);
	m->n_path = 0;
	m->path_unknown = false;
	scan_iter_init(&it, sql, strlen(sql), 0);
	while (scan_next(&it, &t)) {
		struct span text = span_of(sql + t.off, t.len);
		if (!is_set && scan_is_word(sql, &t, "set")) {
			is_set = true;
		} else if (!is_set) {
			if (t.kind == SCAN_LIT_STRING && ++literals == 2)
				path_of_list(s, m, text.p + 1, text.n - 2);
		} else if (!values) {
			values = scan_is_word(sql, &t, "to") || span_eq_str(text, "=");
		} else if (scan_is_word(sql, &t, "default")) {
			m->path = NULL;
			return;
		} else if (t.kind == SCAN_IDENT) {
			add_schema(s, m, text, true);
		} else if (t.kind == SCAN_QIDENT || t.kind == SCAN_LIT_STRING) {
			if (t.len > 2 && memchr(text.p + 1, text.p[0], t.len - 2))
				m->path_unknown = true;
			else if (t.len > 2)
				add_schema(s, m, span_of(text.p + 1, t.len - 2), false);
		} else if (!span_eq_str(text, ",") && !span_eq_str(text, ";")) {
			m->path_unknown = true;
		}
	}
}

/* Without a setting of its own a session has the server's encoding. */
static bool
server_is_utf8(const struct session *s)
{
	for (int i = 0; i < SERVER_PARAMETERS; i++)
		if (strcmp(server_parameter_names[i], "client_encoding") == 0)
			return !s->tenant->parameters[i] || strcmp(s->tenant->parameters[i], "UTF8") == 0;
	return true;
}

/* What made the value that holds after *g*; NULL: it is the server's default. */
static const char *
made_by(const struct session *s, const struct setting *g, const char *name)
{
	return g->name[0] == '\0' || g->sql[0] == '\0' ? settings_initial(s, name) : g->sql;
}

static void
read_settings(struct session *s, struct meaning *m, const struct dlist *list)
{
	for (struct dlist *i = list->next; i != list; i = i->next) {
		const struct setting *g = container_of(i, struct setting, link);
		bool reset_all = g->name[0] == '\0';
		const char *sql;
		if (reset_all || strcmp(g->name, "search_path") == 0) {
			sql = made_by(s, g, "search_path");
			m->path = NULL;
			m->path_unknown = false;
			if (sql)
				read_path(s, m, sql);
		}
		if (reset_all || strcmp(g->name, "standard_conforming_strings") == 0) {
			sql = made_by(s, g, "standard_conforming_strings");
			m->scs_off = sql != NULL; /* whatever its value: with a backslash in it a text is left to PostgreSQL, or refused */
		}
		if (reset_all || strcmp(g->name, "client_encoding") == 0) {
			sql = made_by(s, g, "client_encoding");
			m->utf8 = sql ? strcasestr(sql, "utf8") || strcasestr(sql, "utf-8") || strcasestr(sql, "unicode") : server_is_utf8(s);
		}
	}
}

static bool
is_relevant(const struct dlist *list)
{
	for (struct dlist *i = list->next; i != list; i = i->next) {
		const char *name = container_of(i, struct setting, link)->name;
		if (matters(name))
			return true;
	}
	return false;
}

void
meaning_free(struct session *s)
{
	if (!s->meaning)
		return;
	arena_fini(&s->meaning->mem);
	free(s->meaning);
	s->meaning = NULL;
}

/* Settings under which a text is analysed to the same tree. What is not named here may fold a literal to another value or find
 * another table, so that clients that differ in it do not share statements. */
static bool
is_harmless(const char *name)
{
	static const char *const harmless[] = {
	    "application_name", "bytea_output", "client_min_messages", "commit_delay", "commit_siblings", "cursor_tuple_fraction",
	    "debug_print_parse", "debug_print_plan", "debug_print_rewritten", "debug_pretty_print", "effective_cache_size",
	    "effective_io_concurrency", "extra_float_digits", "from_collapse_limit", "geqo", "gin_fuzzy_search_limit",
	    "idle_in_transaction_session_timeout", "idle_session_timeout", "jit", "jit_above_cost", "join_collapse_limit", "lock_timeout",
	    "log_duration", "log_min_duration_statement", "log_min_messages", "log_statement", "maintenance_work_mem", "plan_cache_mode",
	    "random_page_cost", "seq_page_cost", "statement_timeout", "synchronous_commit", "temp_buffers", "track_activities",
	    "transaction_isolation", "work_mem", "default_transaction_isolation", "default_transaction_read_only", "tcp_keepalives_idle",
	    "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout", "client_connection_check_interval"};
	for (size_t i = 0; i < ARRAY_LEN(harmless); i++)
		if (strcmp(name, harmless[i]) == 0)
			return true;
	return strncmp(name, "enable_", 7) == 0 || strncmp(name, "geqo_", 5) == 0 || strncmp(name, "parallel_", 9) == 0;
}

static uint64_t
salt_of(const struct dlist *list, uint64_t salt)
{
	for (struct dlist *i = list->next; i != list; i = i->next) {
		const struct setting *g = container_of(i, struct setting, link);
		if (is_harmless(g->name))
			continue;
		salt = XXH3_64bits_withSeed(g->name, strlen(g->name), salt + 1);
		salt = XXH3_64bits_withSeed(g->sql, strlen(g->sql), salt);
	}
	return salt;
}

static bool
may_be_serializable(const struct dlist *list)
{
	for (struct dlist *i = list->next; i != list; i = i->next) {
		const struct setting *g = container_of(i, struct setting, link);
		if ((strcmp(g->name, "default_transaction_isolation") == 0 || strcmp(g->name, "session characteristics") == 0) &&
		    strcasestr(g->sql, "serializable"))
			return true;
	}
	return false;
}

static const struct meaning *
current(struct session *s)
{
	if (LIKELY(!s->meaning_stale))
		return s->meaning;
	s->meaning_stale = false;
	s->serializable = may_be_serializable(&s->settings) || may_be_serializable(&s->pending);
	s->meaning_salt = salt_of(&s->pending, salt_of(&s->settings, 0));
	meaning_free(s);
	if (!is_relevant(&s->settings) && !is_relevant(&s->pending))
		return NULL;
	s->meaning = xcalloc(1, sizeof *s->meaning);
	arena_init(&s->meaning->mem);
	s->meaning->utf8 = server_is_utf8(s);
	read_settings(s, s->meaning, &s->settings);
	read_settings(s, s->meaning, &s->pending);
	return s->meaning;
}

static void
fill(struct session *s, struct plan_env *e, const char *path[2])
{
	const struct meaning *m = current(s);
	memset(e, 0, sizeof *e);
	e->db = s->tenant->db;
	e->catalog = s->env->catalog ? s->env->catalog(s->env, e->db) : NULL;
	path[0] = s->user;
	path[1] = "public";
	e->search_path = m && m->path ? m->path : path;
	e->n_search_path = m && m->path ? m->n_path : 2;
	e->standard_conforming_strings = !(m && m->scs_off);
	e->has_temp_tables = (s->pins & PIN_TEMP) != 0 || (m && m->path_unknown);
}

unsigned
meaning_scan_flags(struct session *s)
{
	const struct meaning *m = current(s);
	return m && m->scs_off ? SCAN_SCS_OFF : 0;
}

bool
meaning_is_utf8(struct session *s)
{
	const struct meaning *m = current(s);
	return m ? m->utf8 : server_is_utf8(s);
}

bool
meaning_is_serializable(struct session *s)
{
	(void)current(s);
	return s->serializable;
}

uint64_t
meaning_salt(struct session *s)
{
	(void)current(s);
	return s->meaning_salt;
}

bool
meaning_is_unknown(struct session *s, struct diag *d)
{
	const struct meaning *m = current(s);
	if (!m || !m->path_unknown)
		return false;
	diag_set(d, SQLSTATE_FEATURE_NOT_SUPPORTED, "pgspan cannot follow this search_path on a sharded database");
	diag_hint(d, "Set it by SET search_path TO, with a list of schema names.");
	return true;
}

/* --- plans --- */

struct plan_entry *
session_plan(struct session *s, struct span sql)
{
	struct plan_env env;
	const char *path[2];
	fill(s, &env, path);
	struct scan *scan = &s->env->scan;
	unsigned flags = env.standard_conforming_strings ? 0 : SCAN_SCS_OFF;
	bool bad = scan_sql(sql.p, sql.n, flags, scan) != 0 || (scan->found & SCAN_INVALID);
	struct plan_key key = {{scan->shape[0], scan->shape[1]}, plan_env_hash(&env, s->tenant->db_serial)};
	uint64_t version = env.catalog ? catalog_version(env.catalog) : 0;
	struct plan_entry *e = bad ? NULL : plan_cache_find(s->env->plans, &key, version);
	if (e)
		return e;
	struct plan *p = plan_make(sql, scan, &env);
	if (bad)
		p->flags &= ~(unsigned)PLAN_CACHEABLE;
	return plan_cache_put(s->env->plans, &key, p);
}

/* A number that changes with all that a plan depends on; 0: it must be made anew each time. */
static uint64_t
plan_epoch(struct session *s)
{
	struct plan_env env;
	const char *path[2];
	const struct meaning *m = current(s);
	if ((m && (m->path || m->path_unknown || m->scs_off)) || s->tenant->db->sharded)
		return 0; /* on shards literals are read from the scan, so the text is scanned again */
	fill(s, &env, path);
	uint64_t version = env.catalog ? catalog_version(env.catalog) : 0;
	return ((version * 0x9e3779b97f4a7c15u ^ s->tenant->db_serial) << 2 | (uint64_t)env.has_temp_tables << 1) + 1;
}

const struct plan *
stmt_plan(struct session *s, struct stmt *st)
{
	uint64_t epoch = plan_epoch(s);
	if (st->plan && epoch != 0 && st->plan_env == epoch && (st->plan->plan->flags & PLAN_CACHEABLE))
		return st->plan->plan;
	struct plan_entry *e = session_plan(s, st->text);
	if (st->plan)
		plan_entry_unref(st->plan);
	st->plan = e;
	st->plan_env = epoch;
	return e->plan;
}
