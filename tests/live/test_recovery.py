# SPDX-License-Identifier: BSD-2-Clause
"""What a dead pgspan has left prepared is finished by the next one: committed if it was decided, else rolled back.

Each test plays the dead one by hand, on the servers directly, under names of an earlier run.
"""
import os
import pathlib
import re
import subprocess

import psycopg
import pytest

INSTANCE = "rec_1"  # with an underscore and digits: names are parsed from the right
OLD_RUN = "5f0000000000"
DECIDE = ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; SET LOCAL synchronous_commit TO on; "
          "INSERT INTO pgspan.decision (gid, commit) VALUES ('{}', true)")


def gid(sequence, coordinator=0, instance=INSTANCE, run=OLD_RUN):
    return f"pgspan_{instance}_{run}_0_{sequence}_{coordinator}"


@pytest.fixture
def table(whole_fleet):
    """Table `left` (who, n) on every shard; nothing is prepared afterwards."""
    fleet = whole_fleet
    for shard in fleet.shards:
        fleet.sql(shard, "DROP TABLE IF EXISTS leftover")
        fleet.sql(shard, "CREATE TABLE leftover (who text, n int)")
        fleet.sql(shard, "GRANT ALL ON leftover TO PUBLIC")
        fleet.sql(shard, "DROP SCHEMA IF EXISTS pgspan CASCADE")
    yield fleet
    fleet.start_all()
    for name, left in fleet.prepared():
        fleet.sql(name, f"ROLLBACK PREPARED '{left}'")
    for shard in fleet.shards:
        fleet.sql(shard, "DROP TABLE leftover")
        fleet.sql(shard, "DROP SCHEMA IF EXISTS pgspan CASCADE")


@pytest.fixture
def start(new_proxy):
    """A pgspan of our instance's name, up."""
    def begin(users=None, **proxy):
        return new_proxy({"proxy": {"instance_name": INSTANCE, **proxy}}, users=users)
    return begin


def prepare(fleet, shard, name, user="postgres", who="x"):
    with psycopg.connect(fleet.dsn(shard, user)) as conn:
        conn.execute("INSERT INTO leftover VALUES (%s, 1)", [who])
        conn.execute(f"PREPARE TRANSACTION '{name}'")


def rows(fleet, who="x"):
    return [fleet.value(s, "SELECT count(*) FROM leftover WHERE who = %s", [who]) for s in fleet.shards]


def decisions(fleet, shard="shop-0"):
    return dict(fleet.sql(shard, "SELECT gid, commit FROM pgspan.decision"))


def make_tables(start):
    """The decision's tables, by a pgspan that ends again."""
    proxy = start()
    proxy.stop()


def test_the_decision_tables_are_made_and_open_to_all(table, start):
    proxy = start()
    for shard in table.shards:
        with table.connect(shard, "app") as conn:
            conn.execute(DECIDE.format(gid(1)))
        assert decisions(table, shard) == {gid(1): True}
        with table.connect(shard, "app") as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DELETE FROM pgspan.decision")
    assert proxy.log.count("made table pgspan.decision") == len(table.shards)


def test_the_decision_ignores_what_the_user_has_set(table, start):
    make_tables(start)
    with table.connect("shop-0", "app") as conn:
        conn.execute("SET default_transaction_read_only = on")
        conn.execute("SET default_transaction_isolation = serializable")
        notices = []
        conn.add_notice_handler(lambda n: notices.append(n.message_primary))
        conn.execute(DECIDE.format(gid(1)))
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute(DECIDE.format(gid(1)))
        assert notices == []
        assert conn.execute("SHOW default_transaction_read_only").fetchone() == ("on",)
    assert decisions(table) == {gid(1): True}


def test_decided_is_committed_and_undecided_rolled_back(table, start, wait_until):
    make_tables(start)
    for shard in table.shards[:3]:
        prepare(table, shard, gid(1), "app", "decided")
    for shard in table.shards[1:]:
        prepare(table, shard, gid(2, 1), "app", "undecided")
    table.sql("shop-0", DECIDE.format(gid(1)))
    proxy = start()
    # Before the first client is let in.
    assert table.prepared() == []
    assert rows(table, "decided") == [1, 1, 1, 0]
    assert rows(table, "undecided") == [0, 0, 0, 0]
    assert proxy.log.count(f"committed {gid(1)} on shard") == 3
    assert proxy.log.count(f"rolled back {gid(2, 1)} on shard") == 3
    # The tombstone stays; the decision goes when all is seen to be done.
    assert decisions(table, "shop-1") == {gid(2, 1): False}
    wait_until(lambda: decisions(table) == {}, 15, "the decision's deletion")


def test_half_committed_is_completed(table, start):
    make_tables(start)
    for shard in table.shards:
        prepare(table, shard, gid(1))
    table.sql("shop-0", DECIDE.format(gid(1)))
    table.sql("shop-0", f"COMMIT PREPARED '{gid(1)}'")
    table.sql("shop-2", f"COMMIT PREPARED '{gid(1)}'")
    start()
    assert table.prepared() == []
    assert rows(table) == [1, 1, 1, 1]


def test_others_are_left_alone(table, start):
    make_tables(start)
    foreign = [gid(1, instance="rec"), gid(1, instance="rec_1_2"), gid(1, instance="rec_2"), "somebody_elses",
               f"pgspan_{INSTANCE}_{OLD_RUN}_0_1", f"pgspan_{INSTANCE}_{OLD_RUN}_00_1_0"]
    for name in foreign:
        prepare(table, "shop-1", name)
    theirs = [gid(9, instance=i) for i in ("rec", "rec_1_2", "rec_2")]
    for name in theirs:
        table.sql("shop-0", DECIDE.format(name))
    prepare(table, "shop-1", gid(7))
    proxy = start()
    prepare(table, "shop-2", gid(8))
    proxy.wait_log(f"rolled back {gid(8)}")  # another round, in which decisions could be deleted
    assert sorted(table.prepared()) == sorted(("shop-1", name) for name in foreign)
    assert decisions(table) == {**dict.fromkeys(theirs, True), gid(7): False, gid(8): False}


def test_coordinator_down_then_back(table, start, wait_until):
    make_tables(start)
    for shard in table.shards[1:3]:
        prepare(table, shard, gid(1, 3), who="decided")
        prepare(table, shard, gid(2, 3), who="undecided")
    table.sql("shop-3", DECIDE.format(gid(1, 3)))
    table.stop("shop-3")
    proxy = start()
    assert len([p for s in ("shop-1", "shop-2") for p in table.sql(s, "SELECT gid FROM pg_prepared_xacts")]) == 4
    proxy.wait_log("4 prepared transactions can't be finished yet: .*coordinator does not answer")
    table.start("shop-3")
    wait_until(lambda: table.prepared() == [], 20, "recovery after the coordinator's return")
    assert rows(table, "decided") == [0, 1, 1, 0]
    assert rows(table, "undecided") == [0, 0, 0, 0]
    wait_until(lambda: decisions(table, "shop-3") == {gid(2, 3): False}, 15, "the decision's deletion")


def test_participant_down_then_back(table, start, wait_until):
    make_tables(start)
    for shard in table.shards:
        prepare(table, shard, gid(1), who="decided")
        prepare(table, shard, gid(2), who="undecided")
    table.sql("shop-0", DECIDE.format(gid(1)))
    table.kill("shop-2")
    proxy = start()
    assert [table.sql(s, "SELECT gid FROM pg_prepared_xacts") for s in ("shop-0", "shop-1", "shop-3")] == [[], [], []]
    # The one that is down still needs it: another run in between must not lose it either.
    assert decisions(table) == {gid(1): True, gid(2): False}
    proxy.kill9()
    proxy.start()
    assert decisions(table) == {gid(1): True, gid(2): False}
    table.start("shop-2")
    wait_until(lambda: table.prepared() == [], 20, "recovery after the participant's return")
    assert rows(table, "decided") == [1, 1, 1, 1]
    assert rows(table, "undecided") == [0, 0, 0, 0]
    wait_until(lambda: decisions(table) == {gid(2): False}, 15, "the decision's deletion")


def test_a_late_decision_comes_too_late(table, start):
    """A backend of the dead pgspan gets to its INSERT after recovery has looked: it must not succeed."""
    make_tables(start)
    prepare(table, "shop-1", gid(1))
    start()
    assert table.prepared() == []
    with pytest.raises(psycopg.errors.UniqueViolation):
        table.sql("shop-0", DECIDE.format(gid(1)))
    assert rows(table) == [0, 0, 0, 0]


@pytest.mark.parametrize("commits", [True, False])
def test_a_decision_in_flight_is_waited_for(table, start, wait_until, commits):
    """The dead one's INSERT has run and its end has not: neither outcome may be guessed."""
    make_tables(start)
    for shard in table.shards:
        prepare(table, shard, gid(1))
    with psycopg.connect(table.dsn("shop-0", "app")) as late:
        late.execute("INSERT INTO pgspan.decision (gid, commit) VALUES (%s, true)", [gid(1)])
        proxy = start()
        proxy.wait_log("4 prepared transactions can't be finished yet")
        assert sorted(table.prepared()) == [(s, gid(1)) for s in table.shards]
        if commits:
            late.commit()
        else:
            late.rollback()
    wait_until(lambda: table.prepared() == [], 20, "recovery after the decision")
    assert rows(table) == ([1] * 4 if commits else [0] * 4)


def test_a_late_prepare_is_found(table, start, wait_until):
    make_tables(start)
    prepare(table, "shop-1", gid(1))
    start()
    assert table.prepared() == []
    prepare(table, "shop-2", gid(1))
    wait_until(lambda: table.prepared() == [], 15, "the late one rolled back")
    assert rows(table) == [0, 0, 0, 0]


def test_a_decision_counts_on_whichever_shard_it_stands(table, start):
    """Shards were renumbered between the runs."""
    make_tables(start)
    prepare(table, "shop-1", gid(1, 2))
    table.sql("shop-3", DECIDE.format(gid(1, 2)))
    start()
    assert rows(table) == [0, 1, 0, 0]


def test_a_coordinator_that_is_not_configured_is_waited_for(table, start):
    make_tables(start)
    prepare(table, "shop-1", gid(1, 9))
    proxy = start()
    proxy.wait_log("coordinator is a shard that is not configured")
    assert table.prepared() == [("shop-1", gid(1, 9))]


def test_old_tombstones_go(table, start):
    make_tables(start)
    table.sql("shop-0", f"INSERT INTO pgspan.decision VALUES ('{gid(1)}', false, now() - interval '25 hours'), "
                        f"('{gid(2)}', false, now() - interval '23 hours')")
    start()
    assert decisions(table) == {gid(2): False}


def test_many_at_once(table, start, wait_until):
    make_tables(start)
    for i in range(30):
        for shard in table.shards[:2]:
            prepare(table, shard, gid(i), who="decided" if i % 3 else "undecided")
        if i % 3:
            table.sql("shop-0", DECIDE.format(gid(i)))
    # Finished ones whose rows the dead pgspan had no time to delete.
    table.sql("shop-0", "INSERT INTO pgspan.decision SELECT format(%s, g), true FROM generate_series(100, 1699) g",
              [f"pgspan_{INSTANCE}_{OLD_RUN}_0_%s_0"])
    start()
    assert table.prepared() == []
    assert rows(table, "decided") == [20, 20, 0, 0]
    assert rows(table, "undecided") == [0, 0, 0, 0]
    wait_until(lambda: set(decisions(table).values()) == {False}, 15, "the decisions' deletion")
    assert len(decisions(table)) == 10


def test_two_recover_at_once(table, new_proxy, wait_until):
    """Same instance name twice, by mistake or while the old one drains: no harm done."""
    for i in range(20):
        for shard in table.shards:
            prepare(table, shard, gid(i))
    both = [new_proxy({"proxy": {"instance_name": INSTANCE}}, start=False) for _ in range(2)]
    for proxy in both:
        proxy.start(wait=False)
    for proxy in both:
        proxy.wait_log("pgspan serves")
    wait_until(lambda: table.prepared() == [], 15, "nothing left")
    assert rows(table) == [0, 0, 0, 0]


def test_a_shard_that_cannot_prepare_is_named(table, start):
    table.sql("shop-2", "ALTER SYSTEM SET max_prepared_transactions = 0")
    try:
        table.stop("shop-2")
        table.start("shop-2")
        proxy = start()
        assert re.search(r"WARNING database shop: shard 2 \(127.0.0.1:\d+/shop\) has max_prepared_transactions = 0", proxy.log)
        assert proxy.log.count("max_prepared_transactions = 0") == 1
    finally:
        table.sql("shop-2", "ALTER SYSTEM RESET max_prepared_transactions")
        table.stop("shop-2")
        table.start("shop-2")


def test_a_monitor_that_is_no_superuser(table, start):
    """It must be a member of the users' roles then, and may make the schema."""
    for shard in table.shards:
        table.sql(shard, "CREATE ROLE watcher LOGIN PASSWORD 'w' IN ROLE app")  # app owns the database
        table.sql(shard, "ALTER ROLE watcher SET default_transaction_read_only = on")
    try:
        users = {"app": "app-secret", "postgres": "postgres", "watcher": "w"}
        proxy = start(users, monitor_user="watcher")
        proxy.stop()
        for shard in table.shards:
            prepare(table, shard, gid(1), "app")
            prepare(table, shard, gid(2), "app", "undecided")
        table.sql("shop-0", DECIDE.format(gid(1)))
        proxy.start()
        assert table.prepared() == []
        assert rows(table) == [1, 1, 1, 1]
        assert rows(table, "undecided") == [0, 0, 0, 0]
        proxy.stop()
    finally:
        for shard in table.shards:
            table.sql(shard, "DROP OWNED BY watcher; DROP ROLE watcher")


@pytest.mark.slow
def test_what_workers_hand_over(table):
    """The queue of a running process, by a C program that plays worker and monitor."""
    binary = pathlib.Path(os.environ.get("PGSPAN", "build/pgspan")).resolve().parent / "unit/upstream/test_twophase_recover"
    assert binary.exists(), "make unit builds it"
    env = {**os.environ, "PGSPAN_TEST_SHARDS": "|".join(table.dsn(s) for s in table.shards[:2])}
    done = subprocess.run([binary], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SKIPPED" not in done.stdout + done.stderr
    assert table.prepared() == []
