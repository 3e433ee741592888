/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/proto/penalty.o */
#include "unit.h"

#include "pgspan/penalty.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static struct penalties table;

static int64_t
fail_from(const char *from, int64_t now)
{
	struct sockaddr_storage ss = {.ss_family = strchr(from, ':') ? AF_INET6 : AF_INET};
	void *at = ss.ss_family == AF_INET ? (void *)&((struct sockaddr_in *)&ss)->sin_addr : (void *)&((struct sockaddr_in6 *)&ss)->sin6_addr;
	assert_int_equal(inet_pton(ss.ss_family, from, at), 1);
	return penalties_add(&table, (struct sockaddr *)&ss, now, 5000);
}

static void
penalties_add__failures_in_a_row__doubles_up_to_the_limit(void **state)
{
	static const int64_t want[] = {0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000};
	(void)state;
	penalties_init(&table);
	for (size_t i = 0; i < ARRAY_LEN(want); i++)
		assert_int_equal(fail_from("10.0.0.1", 1000), want[i]);
	for (int i = 0; i < 100; i++)
		assert_int_equal(fail_from("10.0.0.1", 1000), 5000);
	assert_int_equal(fail_from("10.0.0.2", 1000), 0);
	assert_int_equal(fail_from("::ffff:10.0.0.1", 1000), 5000);
	penalties_fini(&table);
}

static void
penalties_add__peace__forgives(void **state)
{
	(void)state;
	penalties_init(&table);
	for (int i = 0; i < 6; i++)
		(void)fail_from("10.0.0.1", 1000);
	assert_int_equal(fail_from("10.0.0.1", 1000 + 2 * 2000), 200); /* 6 - 2 + 1 = 5 */
	assert_int_equal(fail_from("10.0.0.1", 1000000), 0);
	assert_int_equal(fail_from("10.0.0.1", 999000), 0); /* a clock that goes back */
	penalties_fini(&table);
}

static void
penalties_add__ipv6__counts_by_net(void **state)
{
	char text[64];
	int64_t last = 0;
	(void)state;
	penalties_init(&table);
	for (int i = 0; i < 5; i++) {
		snprintf(text, sizeof text, "2001:db8::%x", i);
		last = fail_from(text, 1000);
	}
	assert_int_equal(last, 200);
	assert_int_equal(fail_from("2001:db8:0:1::1", 1000), 0);
	penalties_fini(&table);
}

static void
penalties_add__many_addresses__the_newest_are_kept(void **state)
{
	char text[64];
	struct sockaddr un = {.sa_family = AF_UNIX};
	(void)state;
	penalties_init(&table);
	for (int i = 0; i < 100000; i++) {
		snprintf(text, sizeof text, "10.%d.%d.%d", i >> 16, i >> 8 & 255, i & 255);
		assert_int_equal(fail_from(text, 1000 + i), 0);
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(fail_from(text, 200000), i == 3 ? 100 : 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(penalties_add(&table, &un, 1000, 5000), 0);
	penalties_fini(&table);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(penalties_add__failures_in_a_row__doubles_up_to_the_limit),
		cmocka_unit_test(penalties_add__peace__forgives),
		cmocka_unit_test(penalties_add__ipv6__counts_by_net),
		cmocka_unit_test(penalties_add__many_addresses__the_newest_are_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
