/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/sql/parse_plan.o proxy/sql/parse_names.o proxy/sql/parse_facts.o proxy/sql/parse_keys.o proxy/sql/parse_query.o proxy/sql/parse_merge.o proxy/sql/parse_write.o proxy/sql/parse_utility.o proxy/sql/parse_ddl.o proxy/sql/scan.o proxy/sql/scan_literal.o proxy/base/arena.o proxy/base/diag.o proxy/base/log.o proxy/base/mem.o shardmap/key_type.o shardmap/text.o */
/* fuzz_plan - plan_make() on any text, with the fake catalog of the unit tests.
 *
 * The input's first byte chooses sharded or not, temporary tables, standard_conforming_strings, no catalog; the rest is SQL.
 * Nothing may crash: an error that libpg_query's tree walk raises for an unknown node would end the process. Beyond
 * that: a plan with a write in it is never read-only, a refusal has words, sources point at literals that exist. */
#include "../unit/sql/test_plan_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_sources(const struct key_source *s, int n, const struct scan *scan)
{
	for (int i = 0; i < n; i++)
		if ((s[i].kind == KEY_SRC_LITERAL || s[i].kind == KEY_SRC_ARRAY_LITERAL) && s[i].index >= scan->n_literals)
			abort();
}

static void
check_plan(const struct plan *p, const struct scan *scan)
{
	if ((p->flags & PLAN_READ_ONLY) && (p->flags & (PLAN_WRITES | PLAN_LOCKING | PLAN_DDL)))
		abort();
	if (p->route == ROUTE_REFUSE && p->refusal.message[0] == '\0')
		abort();
	if (p->route == ROUTE_KEYED && (p->n_groups == 0 || (p->multi == MULTI_REFUSE && p->refusal.message[0] == '\0') || (p->multi != MULTI_REFUSE && p->n_groups != 1)))
		abort();
	for (int g = 0; g < p->n_groups; g++)
		for (int c = 0; c < p->groups[g].n_conditions; c++)
			check_sources(p->groups[g].conditions[c].sources, p->groups[g].conditions[c].n_sources, scan);
	if (p->route == ROUTE_INSERT)
		check_sources(p->insert.sources, p->insert.n_rows * p->insert.table->n_key, scan);
	check_sources(p->exec_args, p->n_exec_args, scan);
	for (int i = 0; i < p->n_parts; i++)
		check_plan(p->parts[i], scan);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct plan_env env = {&fake_db, &fake_catalog, fake_path, 1, true, false};
	struct scan scan;

	if (size == 0 || size > 4096)
		return 0;
	fake_db.sharded = data[0] & 1;
	env.has_temp_tables = data[0] & 2;
	env.standard_conforming_strings = !(data[0] & 4);
	env.catalog = (data[0] & 24) == 24 ? NULL : &fake_catalog;
	scan_init(&scan);
	if (scan_sql((const char *)data + 1, size - 1, data[0] & 4 ? SCAN_SCS_OFF : 0, &scan) == 0) {
		struct plan *p = plan_make(span_of((const char *)data + 1, size - 1), &scan, &env);

		check_plan(p, &scan);
		plan_free(p);
	}
	scan_fini(&scan);
	return 0;
}
