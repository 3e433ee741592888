/* SPDX-License-Identifier: BSD-2-Clause */
/* bench/scan - what a scan costs, hash included: ns a statement and a byte.
 *
 * gcc -std=gnu11 -D_GNU_SOURCE -O2 -Iinclude -o /tmp/bench_scan bench/scan.c proxy/sql/scan.c proxy/base/{mem,log}.c -lxxhash -pthread && /tmp/bench_scan
 *
 * The statements are pgbench's and some larger ones. Each is scanned with its literals changing from turn to turn, taken
 * from 64 copies, lest the branch predictor learn one text by heart. The best of 7 rounds counts. */
#include <time.h>

#include "pgspan/scan.h"

enum { COPIES = 64, ROUNDS = 7, ROUND_BYTES = 20000000 };

static const struct {
	const char *name, *format;
} statements[] = {
	{"pgbench select", "SELECT abalance FROM pgbench_accounts WHERE aid = %d;"},
	{"pgbench select, extended", "SELECT abalance FROM pgbench_accounts WHERE aid = $1;"},
	{"pgbench update", "UPDATE pgbench_accounts SET abalance = abalance + -%d WHERE aid = %d;"},
	{"pgbench insert", "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (%d, 7, %d, -42, CURRENT_TIMESTAMP);"},
	{"begin", "BEGIN;"},
	{"orm select",
	 "SELECT \"orders\".\"id\", \"orders\".\"customer_id\", \"orders\".\"state\", \"orders\".\"created_at\" FROM \"orders\" "
	 "INNER JOIN \"customers\" ON \"customers\".\"id\" = \"orders\".\"customer_id\" WHERE \"customers\".\"email\" = "
	 "'user%d@example.com' AND \"orders\".\"state\" IN ('open', 'paid', 'it''s') ORDER BY \"orders\".\"id\" DESC LIMIT %d"},
	{"join",
	 "select o.id, sum(l.qty * l.price)::numeric(12,2) as total -- per order\n  from orders o join lines l on l.order_id = o.id\n"
	 " where o.customer_id = %d and o.created_at >= '2024-01-01' and l.qty > %d /* no gifts */\n group by o.id having count(*) > 1"},
};

static double
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ns for one scan of one of the texts. */
static double
best_ns(struct scan *s, char *const *texts, const size_t *lens, int n)
{
	double best = 1e18;
	long turns = ROUND_BYTES / (long)lens[0] / n + 1;

	for (int round = 0; round < ROUNDS; round++) {
		double start = now_ns(), ns;

		for (long t = 0; t < turns; t++)
			for (int i = 0; i < n; i++)
				if (scan_sql(texts[i], lens[i], 0, s) != 0)
					abort();
		ns = (now_ns() - start) / (double)turns / n;
		if (ns < best)
			best = ns;
	}
	return best;
}

/* INSERT of 10 MB with 500,000 literals. */
static void
bench_big(struct scan *s)
{
	size_t cap = 16 << 20, n;
	char *sql = xmalloc(cap);

	n = (size_t)snprintf(sql, cap, "INSERT INTO t (a, b) VALUES ");
	for (int i = 0; i < 250000; i++)
		n += (size_t)snprintf(sql + n, cap - n, "(%d, 'some text of row, it is %d'),", i, i);
	sql[--n] = '\0';
	double ns = best_ns(s, &sql, &n, 1);

	printf("%-26s %10.1f us %6.2f ns/byte  (%zu bytes, %u literals)\n", "insert of 250,000 rows", ns / 1e3, ns / (double)n, n,
	       s->n_literals);
	free(sql);
}

int
main(void)
{
	struct scan s;

	scan_init(&s);
	for (size_t k = 0; k < ARRAY_LEN(statements); k++) {
		char *texts[COPIES];
		size_t lens[COPIES], total = 0;

		for (int i = 0; i < COPIES; i++) {
			/* Exactly as long as the text, so that the scanner has no slack to read into. */
			char text[1024];
			unsigned r = (unsigned)i * 2654435761u;

			lens[i] = (size_t)snprintf(text, sizeof(text), statements[k].format, (int)(r % 1000000), (int)(r >> 8) % 5000);
			texts[i] = xmalloc(lens[i]);
			memcpy(texts[i], text, lens[i]);
			total += lens[i];
		}
		double ns = best_ns(&s, texts, lens, COPIES);

		printf("%-26s %7.1f ns    %6.2f ns/byte  (%zu bytes)\n", statements[k].name, ns, ns * COPIES / (double)total,
		       total / COPIES);
		for (int i = 0; i < COPIES; i++)
			free(texts[i]);
	}
	bench_big(&s);
	scan_fini(&s);
	return 0;
}
