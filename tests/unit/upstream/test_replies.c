/* SPDX-License-Identifier: BSD-2-Clause */
/* link: proxy/upstream/replies.o proxy/base/mem.o proxy/base/log.o */
/* test_replies - each conversation is written as what was sent and what came back, and the verdicts are compared as text. */
#include "pgspan/replies.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* What happened: a letter a message (f forward, s skip, a async, B broken), and +kind or -kind for each entry that ended. */
struct story {
	char text[512];
	size_t n;
};

static const char kinds[] = "PBCsdESQF";

static void
tell(struct story *s, char c)
{
	assert_true(s->n + 1 < sizeof s->text);
	s->text[s->n++] = c;
	s->text[s->n] = '\0';
}

static void
note_end(void *arg, const struct reply *r, enum reply_end end)
{
	tell(arg, "+-!"[end]);
	tell(arg, kinds[r->kind]);
}

/* Sent: letters of *kinds*; behind one, '!' marks SKIP and '~' FAKE. */
static void
push_all(struct replies *r, const char *sent)
{
	for (; *sent; sent++) {
		enum reply_kind kind = (enum reply_kind)(strchr(kinds, *sent) - kinds);
		enum reply_action action = sent[1] == '!' ? REPLY_SKIP : sent[1] == '~' ? REPLY_FAKE : REPLY_FORWARD;
		if (action != REPLY_FORWARD)
			sent++;
		replies_push(r, kind, action, NULL);
	}
}

/* A FAKE head is answered ('m') as its turn comes. */
static void
match_all(struct replies *r, const char *came, struct story *s)
{
	for (; *came; came++) {
		while (replies_head(r) && replies_head(r)->action == REPLY_FAKE && !r->skipping) {
			tell(s, 'm');
			replies_pop(r);
		}
		tell(s, "fsaB"[replies_match(r, *came, note_end, s)]);
	}
}

static void
check(const char *sent, const char *came, const char *want, bool empty)
{
	struct replies r;
	struct story s = {.n = 0};
	replies_init(&r);
	push_all(&r, sent);
	match_all(&r, came, &s);
	assert_string_equal(s.text, want);
	assert_int_equal(replies_empty(&r), empty);
	replies_fini(&r);
}

static void
match__simple_query__ends_at_ready(void **state)
{
	(void)state;
	check("Q", "TDDCZ", "ffff+Qf", true);
	check("Q", "TDEZ", "fff+Qf", true);
	check("QQ", "CZIZ", "f+Qff+Qf", true);
	check("Q", "TDC", "fff", false);
}

static void
match__extended_batch__each_entry_ends_in_turn(void **state)
{
	(void)state;
	check("PBdES", "12TDCZ", "+Pf+Bf+dff+Ef+Sf", true);
	check("PsS", "1tnZ", "+Pff+sf+Sf", true);
	check("ES", "DsZ", "f+Ef+Sf", true);
	check("BES", "2GCZ", "+Bff+Ef+Sf", true);
}

static void
match__error_in_batch__skips_to_sync(void **state)
{
	(void)state;
	/* C01: two groups; the rest of the first is taken back, the second is untouched. */
	check("PBEPBESPBES", "12CEZ12CZ", "+Pf+Bf+Ef!E!B-Pf+Sf+Pf+Bf+Ef+Sf", true);
	/* C04: a Query between the failure and Sync is swallowed. */
	check("BEQS", "2EZ", "+Bf!Q-Ef+Sf", true);
	/* The commit at Sync fails. */
	check("BES", "2CEZ", "+Bf+Eff+Sf", true);
}

static void
match__error_before_sync_was_sent__later_entries_are_taken_back(void **state)
{
	(void)state;
	struct replies r;
	struct story s = {.n = 0};
	replies_init(&r);
	push_all(&r, "PB");
	match_all(&r, "E", &s);
	assert_string_equal(s.text, "!B-Pf");
	push_all(&r, "ECS");
	match_all(&r, "Z", &s);
	assert_string_equal(s.text, "!B-Pf!C!E+Sf");
	push_all(&r, "Q");
	match_all(&r, "CZ", &s);
	assert_string_equal(s.text, "!B-Pf!C!E+Sff+Qf");
	replies_fini(&r);
}

static void
match__own_messages__are_skipped_with_their_notices(void **state)
{
	(void)state;
	/* A held BEGIN goes ahead of the client's query: Parse, Bind, Execute without Sync. */
	check("P!B!E!Q", "12NCNTDCZ", "+Ps+Bss+Esafff+Qf", true);
	/* It fails: the query is swallowed with it; the caller sends a Sync of its own. */
	check("P!B!E!QS!", "12EZ", "+Ps+Bs!Q-Es+Ss", true);
}

static void
match__fake_replies__keep_their_place_and_die_with_an_error(void **state)
{
	(void)state;
	check("P~BES", "2CZ", "m+Bf+Ef+Sf", true);
	check("BP~BES", "2E2CZ", "+Bf" "m" "!E-Bf" "B" "B" "+Sf", true);
	check("BEP~S", "EZ", "!P!E-Bf+Sf", true);
}

static void
match__async_messages__belong_to_nobody(void **state)
{
	(void)state;
	check("", "SAN", "aaa", true);
	check("", "E", "a", true);
	check("Q", "SATDNACZ", "aaffaaf+Qf", true);
}

static void
match__message_out_of_place__is_broken(void **state)
{
	(void)state;
	check("", "Z", "B", true);
	check("PS", "2", "B", false);
	check("S", "D", "B", false);
	check("Q", "1", "B", false);
}

static void
push__beyond_the_ring__keeps_order(void **state)
{
	(void)state;
	struct replies r;
	struct story s = {.n = 0};
	replies_init(&r);
	push_all(&r, "PPPPP");
	match_all(&r, "111", &s);
	for (int i = 0; i < 100; i++)
		replies_push(&r, i % 2 ? REPLY_CLOSE : REPLY_BIND, REPLY_FORWARD, NULL);
	match_all(&r, "11", &s);
	for (int i = 0; i < 50; i++) {
		s.n = 0;
		match_all(&r, "23", &s);
		assert_string_equal(s.text, "+Bf+Cf");
	}
	assert_true(replies_empty(&r));
	replies_fini(&r);
}

static void
copy_in__early_sync__is_owed_nothing(void **state)
{
	(void)state;
	/* C88: P B E S, then data, CopyDone and a second Sync. */
	struct replies r;
	struct story s = {.n = 0};
	replies_init(&r);
	push_all(&r, "PBES");
	match_all(&r, "12G", &s);
	replies_copy_in(&r);
	push_all(&r, "S");
	match_all(&r, "CZ", &s);
	assert_string_equal(s.text, "+Pf+Bff+Ef+Sf");
	assert_true(replies_empty(&r));
	replies_fini(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(match__simple_query__ends_at_ready),
	    cmocka_unit_test(match__extended_batch__each_entry_ends_in_turn),
	    cmocka_unit_test(match__error_in_batch__skips_to_sync),
	    cmocka_unit_test(match__error_before_sync_was_sent__later_entries_are_taken_back),
	    cmocka_unit_test(match__own_messages__are_skipped_with_their_notices),
	    cmocka_unit_test(match__fake_replies__keep_their_place_and_die_with_an_error),
	    cmocka_unit_test(match__async_messages__belong_to_nobody),
	    cmocka_unit_test(match__message_out_of_place__is_broken),
	    cmocka_unit_test(copy_in__early_sync__is_owed_nothing),
	    cmocka_unit_test(push__beyond_the_ring__keeps_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
