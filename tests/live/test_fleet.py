# SPDX-License-Identifier: BSD-2-Clause
"""The harness itself, without pgspan: what the other tests take for granted."""
import psycopg
import pytest

import pgwire


def test_replicas_stream(fleet):
    fleet.sql("app-primary", "CREATE TABLE fleet_streams AS SELECT 42 AS n")
    fleet.catch_up()
    for replica in fleet.replicas:
        assert fleet.value(replica, "SELECT n FROM fleet_streams") == 42
        assert fleet.value(replica, "SELECT pg_is_in_recovery()") is True
    fleet.sql("app-primary", "DROP TABLE fleet_streams")


def test_replica_refuses_writes(fleet):
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        fleet.sql(fleet.replicas[0], "CREATE TABLE no (n int)")


def test_shards_are_separate(fleet):
    for i, shard in enumerate(fleet.shards):
        fleet.sql(shard, "CREATE TABLE fleet_shard (n int)")
        fleet.sql(shard, "INSERT INTO fleet_shard VALUES (%s)", [i])
    assert [r[0] for r in fleet.all_shards("SELECT n FROM fleet_shard")] == list(range(len(fleet.shards)))
    for shard in fleet.shards:
        fleet.sql(shard, "DROP TABLE fleet_shard")


def test_every_server_allows_prepared_transactions(fleet):
    assert {n: fleet.value(n, "SHOW max_prepared_transactions") for n in fleet.names} == dict.fromkeys(fleet.names, "200")


def test_server_comes_back_after_kill(whole_fleet):
    name = whole_fleet.replicas[0]
    whole_fleet.kill(name)
    with pytest.raises(psycopg.OperationalError):
        whole_fleet.connect(name)
    whole_fleet.start(name)
    assert whole_fleet.value(name, "SELECT 1") == 1


def test_app_role_needs_its_password(fleet):
    port = fleet.port("single")
    with pgwire.Wire.login(port=port, user="app", password="app-secret", database="single") as c:
        assert c.rows("SELECT current_user, 1") == [["app", "1"]]
        assert c.status == "I" and c.pid
    with pytest.raises(pgwire.PgError) as caught:
        pgwire.Wire.login(port=port, user="app", password="wrong", database="single")
    assert caught.value.sqlstate == "28P01"


def test_wire_extended_batch(fleet):
    with pgwire.Wire.login(port=fleet.port("single"), user="postgres", database="single") as c:
        c.send(pgwire.parse("s1", "SELECT $1::int8 + 1 AS n", [20]), pgwire.bind("", "s1", ["41"]),
               pgwire.describe("P"), pgwire.execute(), pgwire.sync())
        msgs = c.until_ready()
        assert pgwire.tags(msgs) == "12TDCZ"
        assert pgwire.rows(msgs) == [["42"]]
        assert msgs[2].columns == [("n", 20, 0)]
        c.send(pgwire.run("SELECT 1/$1::int", ["0"]), pgwire.sync())
        assert pgwire.error(c.until_ready()) == "22012"


def test_wire_cancel(fleet):
    with pgwire.Wire.login(port=fleet.port("single"), user="postgres", database="single") as c:
        c.send(pgwire.query("SELECT pg_sleep(30)"))
        assert c.is_silent(0.3)
        c.cancel()
        assert pgwire.error(c.until_ready()) == "57014"


def test_pgbench_runs(fleet, pgbench):
    assert pgbench(fleet.port("single"), "single", "-i", "-q", "-s", 1).status == 0
    done = pgbench(fleet.port("single"), "single", "-S", "-c", 4, "-t", 50, "-M", "prepared")
    assert done.ok and done.transactions == 200, done
