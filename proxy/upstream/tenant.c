/* SPDX-License-Identifier: BSD-2-Clause */
/* tenant - see pgspan/tenant.h. */
#include "pgspan/tenant.h"

#include "pgspan/auth.h"
#include "pgspan/log.h"

#include <xxhash.h>

/* How long reads keep away from a server that could not be reached. */
#define DOWN_MS 2000

void
fleet_init(struct fleet *f)
{
	memset(f, 0, sizeof *f);
	pthread_mutex_init(&f->lock, NULL);
}

static void
free_limit(void *p)
{
	pool_limit_fini(p);
	free(p);
}

void
fleet_fini(struct fleet *f)
{
	names_clear(&f->limits, free_limit);
	names_clear(&f->healths, free);
	names_clear(&f->clients, free);
	pthread_mutex_destroy(&f->lock);
}

struct server_health *
fleet_health(struct fleet *f, const char *label)
{
	pthread_mutex_lock(&f->lock);
	struct server_health *h = names_get(&f->healths, span_str(label));
	if (!h) {
		h = xcalloc(1, sizeof *h);
		names_put(&f->healths, span_str(label), h);
	}
	pthread_mutex_unlock(&f->lock);
	return h;
}

static struct client_count *
count_for(struct fleet *f, char kind, const char *name)
{
	char key[256];
	int n = snprintf(key, sizeof key, "%c%.200s", kind, name);
	pthread_mutex_lock(&f->lock);
	struct client_count *c = names_get(&f->clients, span_of(key, (size_t)n));
	if (!c) {
		c = xcalloc(1, sizeof *c);
		names_put(&f->clients, span_of(key, (size_t)n), c);
	}
	pthread_mutex_unlock(&f->lock);
	return c;
}

static struct pool_limit *
limit_named(struct fleet *f, struct span name, int max)
{
	pthread_mutex_lock(&f->lock);
	struct pool_limit *l = names_get(&f->limits, name);
	if (!l) {
		l = xcalloc(1, sizeof *l);
		pool_limit_init(l, max);
		names_put(&f->limits, name, l);
	}
	atomic_store(&l->max, max);
	pthread_mutex_unlock(&f->lock);
	return l;
}

/* The limits of the pool of a server for a user of a database.
 *
 * Members of the first may hand servers to each other, so they must log in alike: the whole connection string and the password are
 * part of the key (as a hash, lest it stand in one more place). */
static void
find_limits(struct fleet *f, const struct config *cfg, const struct database_config *db, const struct server_config *s, const char *user,
    const char *password, struct pool_limit **out)
{
	char key[512];
	XXH64_hash_t h = XXH3_64bits(s->conninfo, strlen(s->conninfo));
	if (password)
		h = XXH3_64bits_withSeed(password, strlen(password), h);
	int n = snprintf(key, sizeof key, "o%016llx\n%.200s\n%.200s", (unsigned long long)h, db->name, s->user ? "" : user);
	out[POOL_OWN] = limit_named(f, span_of(key, (size_t)n), db->set.default_pool_size);
	n = snprintf(key, sizeof key, "d%.200s\n%.250s", db->name, s->label);
	out[POOL_DATABASE] = limit_named(f, span_of(key, (size_t)n), db->set.max_db_connections);
	n = snprintf(key, sizeof key, "u%.200s", s->user ? s->user : user);
	out[POOL_USER] = limit_named(f, span_of(key, (size_t)n), cfg->max_user_connections);
}

static struct pool_settings
pool_settings_of(const struct config *cfg, const struct database_config *db)
{
	const struct database_settings *set = &db->set;
	return (struct pool_settings){
	    .max = set->default_pool_size,
	    .reserve = set->reserve_pool_size,
	    .min = set->min_pool_size,
	    .connect_timeout_ms = set->server_connect_timeout_ms,
	    .idle_timeout_ms = set->server_idle_timeout_ms,
	    .lifetime_ms = set->server_lifetime_ms,
	    .reserve_timeout_ms = set->reserve_pool_timeout_ms,
	    .tcp = cfg->tcp,
	};
}

/* What a tenant's pools may do has been configured anew. */
static void
configure(struct tenants *all, struct tenant *t)
{
	struct pool_settings set = pool_settings_of(t->cfg, t->db);
	for (int i = 0; i < t->db->n_shards; i++) {
		for (int k = 0; k < t->db->shards[i].n_servers; k++) {
			const struct server_config *s = &t->db->shards[i].servers[k];
			struct pool_limit *limits[POOL_LIMITS];
			find_limits(all->fleet, t->cfg, t->db, s, t->user, s->has_password || s->user ? NULL : t->password, limits); /* sets them */
			pool_configure(tenant_pool(t, i, k), &set);
		}
	}
}

void
tenants_init(struct tenants *t, struct loop *l, struct fleet *f)
{
	memset(t, 0, sizeof *t);
	t->loop = l;
	t->fleet = f;
}

static void
close_tenant(void *p)
{
	struct tenant *t = p;
	for (int i = 0; i < t->n_pools; i++)
		pool_close(t->pools[i]);
}

static void
free_tenant(void *p)
{
	struct tenant *t = p;
	for (int i = 0; i < t->n_pools; i++)
		pool_free(t->pools[i]);
	for (int i = 0; i < SERVER_PARAMETERS; i++)
		free(t->parameters[i]);
	stmt_set_clear(&t->known);
	free(t->pools);
	free(t->healths);
	free(t->first);
	free(t->user);
	if (t->password)
		explicit_bzero(t->password, strlen(t->password));
	free(t->password);
	config_unref(t->cfg);
	free(t);
}

static void
each(struct tenants *t, void (*fn)(void *))
{
	for (uint32_t i = 0; i < t->by_name.cap; i++)
		if (t->by_name.slots[i].name)
			fn(t->by_name.slots[i].value);
}

void
tenants_close(struct tenants *t)
{
	each(t, close_tenant);
	for (int i = 0; i < t->n_retired; i++)
		close_tenant(t->retired[i]);
}

void
tenants_fini(struct tenants *t)
{
	names_clear(&t->by_name, free_tenant);
	for (int i = 0; i < t->n_retired; i++)
		free_tenant(t->retired[i]);
	free(t->retired);
}

/* --- reload --- */

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

/* Whether the same servers hold the same rows: then connections stay. */
static bool
same_servers(const struct database_config *a, const struct database_config *b)
{
	if (a->sharded != b->sharded || a->n_shards != b->n_shards || a->n_tables != b->n_tables)
		return false;
	for (int i = 0; i < a->n_shards; i++) {
		const struct shard_config *x = &a->shards[i], *y = &b->shards[i];
		if (x->n_servers != y->n_servers)
			return false;
		for (int k = 0; k < x->n_servers; k++)
			if (x->servers[k].role != y->servers[k].role || !same_text(x->servers[k].conninfo, y->servers[k].conninfo))
				return false;
	}
	for (int i = 0; i < a->n_tables; i++) {
		const struct table_config *x = &a->tables[i], *y = &b->tables[i];
		if (x->kind != y->kind || !same_text(x->schema, y->schema) || !same_text(x->name, y->name) || x->n_key != y->n_key)
			return false;
		for (int k = 0; k < x->n_key; k++)
			if (!same_text(x->key[k], y->key[k]))
				return false;
	}
	if (a->map) {
		if (shardmap_buckets(a->map) != shardmap_buckets(b->map) || shardmap_strategy(a->map) != shardmap_strategy(b->map))
			return false;
		for (uint32_t i = 0; i < shardmap_buckets(a->map); i++)
			if (shardmap_shard_of_bucket(a->map, i) != shardmap_shard_of_bucket(b->map, i))
				return false;
	}
	return true;
}

static bool
same_password(const struct tenant *t, const struct config *cfg)
{
	const struct auth_user *u = cfg->users ? userlist_find(cfg->users, span_str(t->user)) : NULL;
	return same_text(t->password, u && auth_user_kind(u) == AUTH_SECRET_PLAIN ? auth_user_secret(u) : NULL);
}

static _Atomic uint64_t serials;

/* No new sessions: those that it has live on. */
static void
retire(struct tenants *all, struct tenant *t)
{
	all->retired = xrealloc(all->retired, (size_t)(all->n_retired + 1) * sizeof(struct tenant *));
	all->retired[all->n_retired++] = t;
	for (int k = 0; k < t->n_pools; k++)
		pool_retire(t->pools[k]);
}

void
tenants_reload(struct tenants *all, struct config *cfg)
{
	struct names keep = {NULL, 0, 0};
	for (uint32_t i = 0; i < all->by_name.cap; i++) {
		struct name_slot *slot = &all->by_name.slots[i];
		struct tenant *t = slot->value;
		if (!slot->name)
			continue;
		const struct database_config *db = config_database(cfg, t->db->name);
		if (db && same_servers(t->db, db) && same_password(t, cfg)) {
			struct config *old = t->cfg;
			t->cfg = config_ref(cfg);
			t->db = db;
			t->db_serial = atomic_fetch_add(&serials, 1) + 1;
			configure(all, t);
			config_unref(old);
			names_put(&keep, span_of(slot->name, slot->len), t);
		} else {
			retire(all, t);
		}
	}
	names_clear(&all->by_name, NULL);
	all->by_name = keep;
}

static void
tidy_tenant(void *p)
{
	struct tenant *t = p;
	for (int i = 0; i < t->n_pools; i++)
		pool_tidy(t->pools[i], t->n_clients > 0);
	stmt_set_clear(&t->known);
}

void
tenants_tidy(struct tenants *t)
{
	each(t, tidy_tenant);
	for (int i = 0; i < t->n_retired; i++)
		tidy_tenant(t->retired[i]);
}

/* The verifier may be another than last time. */
static void
set_keys(struct tenant *t, const struct server_keys *keys)
{
	for (int i = 0; i < t->db->n_shards; i++)
		for (int k = 0; k < t->db->shards[i].n_servers; k++)
			if (!t->db->shards[i].servers[k].user && !t->db->shards[i].servers[k].has_password)
				pool_set_keys(t->pools[t->first[i] + k], keys);
}

struct tenant *
tenants_get(struct tenants *all, struct config *cfg, const struct database_config *db, const char *user, const char *password,
    const struct server_keys *keys)
{
	char key[1024];
	int n = snprintf(key, sizeof key, "%s\n%s", db->name, user);
	struct span name = span_of(key, (size_t)n < sizeof key ? (size_t)n : sizeof key - 1);
	struct tenant *t = names_get(&all->by_name, name);
	if (t && !password) {
		set_keys(t, keys);
		return t;
	}
	if (t && same_text(t->password, password))
		return t;
	if (t)
		retire(all, names_take(&all->by_name, name));
	t = xcalloc(1, sizeof *t);
	t->cfg = config_ref(cfg);
	t->db = db;
	t->db_serial = atomic_fetch_add(&serials, 1) + 1;
	t->user = xstrdup(user);
	t->password = password ? xstrdup(password) : NULL;
	t->first = xcalloc((size_t)db->n_shards, sizeof *t->first);
	for (int i = 0; i < db->n_shards; i++) {
		t->first[i] = t->n_pools;
		t->n_pools += db->shards[i].n_servers;
	}
	t->of_db = count_for(all->fleet, 'd', db->name);
	t->of_user = count_for(all->fleet, 'u', user);
	t->pools = xcalloc((size_t)t->n_pools, sizeof(struct pool *));
	t->healths = xcalloc((size_t)t->n_pools, sizeof(struct server_health *));
	for (int i = 0; i < db->n_shards; i++) {
		for (int k = 0; k < db->shards[i].n_servers; k++) {
			const struct server_config *s = &db->shards[i].servers[k];
			struct pool_config pc = {
			    .conninfo = s->conninfo,
			    .user = s->user ? NULL : user,
			    .password = s->has_password || s->user ? NULL : password,
			    .set = pool_settings_of(cfg, db),
			};
			struct pool_limit *limits[POOL_LIMITS];
			find_limits(all->fleet, cfg, db, s, user, pc.password, limits);
			t->pools[t->first[i] + k] = pool_new(all->loop, &pc, limits);
			t->healths[t->first[i] + k] = fleet_health(all->fleet, s->label);
		}
	}
	names_put(&all->by_name, name, t);
	set_keys(t, keys);
	return t;
}

/* Counts one more, if it is not too many. */
static bool
count_one(struct client_count *c, int max)
{
	if (atomic_fetch_add(&c->n, 1) < max || max == 0)
		return true;
	atomic_fetch_sub(&c->n, 1);
	return false;
}

bool
tenant_admit(struct tenant *t, struct diag *d)
{
	if (!count_one(t->of_db, t->db->set.max_db_client_connections)) {
		diag_set(d, "53300", "too many connections for database \"%.200s\"", t->db->name);
		diag_hint(d, "pgspan's max_db_client_connections is %d.", t->db->set.max_db_client_connections);
		return false;
	}
	if (!count_one(t->of_user, t->cfg->max_user_client_connections)) {
		atomic_fetch_sub(&t->of_db->n, 1);
		diag_set(d, "53300", "too many connections for role \"%.200s\"", t->user);
		diag_hint(d, "pgspan's max_user_client_connections is %d.", t->cfg->max_user_client_connections);
		return false;
	}
	t->n_clients++;
	return true;
}

void
tenant_leave(struct tenant *t)
{
	atomic_fetch_sub(&t->of_db->n, 1);
	atomic_fetch_sub(&t->of_user->n, 1);
	t->n_clients--;
}

int
tenant_pick_read(struct tenant *t, int shard, int64_t now_ms)
{
	int n = t->db->shards[shard].n_servers;
	if (t->db->set.read_consistency == READ_PRIMARY)
		return 0;
	for (int i = 1; i < n; i++) {
		int k = 1 + (int)(t->turn++ % (unsigned)(n - 1));
		struct server_health *h = t->healths[t->first[shard] + k];
		if (atomic_load_explicit(&h->down_until_ms, memory_order_relaxed) <= now_ms &&
		    !atomic_load_explicit(&h->lagging, memory_order_relaxed))
			return k;
	}
	return 0;
}

void
tenant_server_failed(struct tenant *t, int shard, int server, int64_t now_ms)
{
	atomic_store(&t->healths[t->first[shard] + server]->down_until_ms, now_ms + DOWN_MS);
}

void
tenant_server_ok(struct tenant *t, int shard, int server)
{
	struct server_health *h = t->healths[t->first[shard] + server];
	if (UNLIKELY(atomic_load_explicit(&h->down_until_ms, memory_order_relaxed) != 0))
		atomic_store(&h->down_until_ms, 0);
}

void
tenant_learn(struct tenant *t, struct server *s)
{
	for (int i = 0; i < SERVER_PARAMETERS; i++) {
		const char *v = s->parameters[i];
		free(t->parameters[i]);
		t->parameters[i] = v ? xstrdup(v) : NULL;
	}
}
