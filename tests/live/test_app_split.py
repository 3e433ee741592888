# SPDX-License-Identifier: BSD-2-Clause
"""Reads to the replicas, all else to the primary, by design.md section 6; and what happens when servers are down.

Guards issue 2: a write, a lock or an effect never reaches a replica, and a dead replica costs nobody an error.
"""
import time

import pytest

import pgwire
from pgwire import PgError, error, rows

WHERE = "current_setting('port')"


@pytest.fixture(scope="module", autouse=True)
def table(fleet):
    fleet.sql("app-primary", """
        DROP TABLE IF EXISTS split; CREATE TABLE split (n int); INSERT INTO split VALUES (1);
        CREATE OR REPLACE FUNCTION split_volatile() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT current_setting('port') $$;
        CREATE OR REPLACE FUNCTION split_stable() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('port') $$;
        CREATE OR REPLACE VIEW split_view AS SELECT current_setting('port') AS port FROM split;
        CREATE OR REPLACE VIEW split_volatile_view AS SELECT split_volatile() AS port;
        DROP SEQUENCE IF EXISTS split_seq; CREATE SEQUENCE split_seq;
        GRANT ALL ON split, split_view, split_volatile_view, split_seq TO app""")
    fleet.catch_up()
    yield
    fleet.sql("app-primary", "DROP VIEW split_view, split_volatile_view; DROP FUNCTION split_volatile(), split_stable(); "
              "DROP TABLE split; DROP SEQUENCE split_seq")


@pytest.fixture(scope="module")
def ready(_shared_proxy, wait_until, table):
    """The shared pgspan, once it knows the functions above and both replicas serve."""
    if not _shared_proxy.is_running:
        _shared_proxy.start()

    def knows():
        with _shared_proxy.wire() as c:
            return c.rows("SELECT split_stable()")[0][0] != str(_shared_proxy.fleet.port("app-primary"))
    wait_until(knows, 30, what="the catalog knowing the new functions")
    yield _shared_proxy
    _shared_proxy.check()


def place(fleet, c, sql):
    """The server that answered *sql*, whose first column of the last row is its port."""
    return fleet.name_of(c.rows(sql)[-1][0])


READS = [
    f"SELECT {WHERE}", f"SELECT {WHERE} FROM split", f"WITH x AS (SELECT {WHERE} AS p) SELECT p FROM x", f"VALUES ({WHERE})",
    "SELECT port FROM split_view", "TABLE split_view", "SHOW port", "SELECT split_stable()",
    f"SELECT {WHERE} FROM split WHERE n IN (SELECT max(n) FROM split) ORDER BY 1 LIMIT 1",
    f"SELECT {WHERE}, now(), upper('x'), 'FOR UPDATE' -- FOR UPDATE", f"/* INSERT */ (SELECT {WHERE})",
    f"SELECT {WHERE} UNION SELECT {WHERE}",
]
NOT_READS = [
    f"SELECT {WHERE} FROM split FOR UPDATE", f"SELECT {WHERE} FROM split FOR KEY SHARE", f"SELECT {WHERE} FROM (SELECT n FROM split FOR SHARE) x",
    f"INSERT INTO split VALUES (2) RETURNING {WHERE}", f"WITH d AS (DELETE FROM split WHERE n > 1 RETURNING n) SELECT {WHERE}",
    f"UPDATE split SET n = n RETURNING {WHERE}", "SELECT split_volatile()", "SELECT port FROM split_volatile_view",
    f"SELECT {WHERE}, nextval('split_seq')", f"SELECT {WHERE}, pg_advisory_xact_lock(1)", f"SELECT {WHERE}, txid_current()",
    f"SELECT {WHERE}, pg_notify('split', '')", f"SELECT {WHERE} WHERE split_volatile() <> ''", f"SELECT {WHERE}, setval('split_seq', 9)",
    f"SELECT {WHERE}, lo_creat(-1)", f"SELECT {WHERE}; INSERT INTO split VALUES (3) RETURNING {WHERE}",
]


@pytest.mark.parametrize("sql", READS)
@pytest.mark.parametrize("how", ["simple", "extended"])
def test_reads_go_to_replicas_in_turn(ready, fleet, sql, how):
    with ready.wire() as c:
        seen = set()
        for _ in range(4):
            if how == "simple":
                seen.add(place(fleet, c, sql))
            else:
                c.send(pgwire.run(sql), pgwire.sync())
                seen.add(fleet.name_of(rows(c.until_ready(check=True))[-1][0]))
        assert seen == set(fleet.replicas)


@pytest.mark.parametrize("sql", NOT_READS)
@pytest.mark.parametrize("how", ["simple", "extended"])
def test_all_else_goes_to_the_primary(ready, fleet, sql, how):
    if how == "extended" and ";" in sql:
        pytest.skip("several statements are for the simple protocol")
    with ready.wire(user="postgres") as c:
        for _ in range(3):
            if how == "simple":
                assert place(fleet, c, sql) == "app-primary"
            else:
                c.send(pgwire.run(sql), pgwire.sync())
                assert fleet.name_of(rows(c.until_ready(check=True))[-1][0]) == "app-primary"


def test_explain_and_copy(ready, fleet):
    """Neither says its port; a replica would refuse what only the primary may do."""
    with ready.wire() as c:
        for _ in range(3):
            assert c.rows("EXPLAIN SELECT * FROM split")
            assert error(c.query("EXPLAIN ANALYZE INSERT INTO split VALUES (4)")) is None
            c.send(pgwire.query(f"COPY (SELECT {WHERE}) TO STDOUT"))
            port = next(m.body for m in c.until_ready(check=True) if m.tag == "d")
            assert fleet.name_of(port.decode().strip()) in fleet.replicas
            c.send(pgwire.query(f"COPY (INSERT INTO split VALUES (5) RETURNING {WHERE}) TO STDOUT"))
            port = next(m.body for m in c.until_ready(check=True) if m.tag == "d")
            assert fleet.name_of(port.decode().strip()) == "app-primary"


@pytest.mark.parametrize("begin", ["BEGIN READ ONLY", "START TRANSACTION READ ONLY",
                                   "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"])
def test_read_only_block_stays_on_a_replica(ready, fleet, begin):
    with ready.wire() as c:
        seen = set()
        for _ in range(4):
            c.query(begin)
            where = place(fleet, c, f"SELECT {WHERE}")
            assert [place(fleet, c, f"SELECT {WHERE}") for _ in range(3)] == [where] * 3
            assert c.rows("SHOW transaction_read_only") == [["on"]]
            c.query("COMMIT")
            seen.add(where)
        assert seen == set(fleet.replicas)


def test_write_in_a_read_only_block(ready):
    with ready.wire() as c:
        c.query("BEGIN READ ONLY")
        c.query("SELECT 1")
        with pytest.raises(PgError) as caught:
            c.query("INSERT INTO split VALUES (9)")
        assert caught.value.sqlstate == "25006"
        c.query("ROLLBACK")


def test_other_blocks_stay_on_the_primary(ready, fleet):
    with ready.wire() as c:
        for begin in ("BEGIN", "BEGIN READ WRITE", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE"):
            c.query(begin)
            assert place(fleet, c, f"SELECT {WHERE}") == "app-primary"
            c.query("COMMIT")


def test_temp_table_is_read_where_it_is(ready, fleet):
    with ready.wire() as c:
        c.query("CREATE TEMP TABLE split_temp AS SELECT 5 AS n")
        for _ in range(4):
            assert c.rows(f"SELECT n, {WHERE} FROM split_temp") == [["5", str(fleet.port("app-primary"))]]
        c.query("CREATE TEMP TABLE split AS SELECT 'mine'::text AS n")  # hides the real one
        for _ in range(4):
            assert c.rows("SELECT n FROM split") == [["mine"]]


def test_consistency_primary(new_proxy, fleet):
    proxy = new_proxy({"proxy": {"workers": 1}, "database:app": {"read_consistency": "primary"}})
    with proxy.wire() as c:
        assert {place(fleet, c, f"SELECT {WHERE}") for _ in range(6)} == {"app-primary"}


def test_reads_are_counted_on_replicas(new_proxy, fleet, wait_until):
    """By PostgreSQL's own statistics: 200 reads in equal shares, and not one on the primary."""
    proxy = new_proxy({"proxy": {"workers": 1}})

    def counts():
        return {n: fleet.value(n, "SELECT xact_commit FROM pg_stat_database WHERE datname = 'app'")
                for n in ("app-primary", *fleet.replicas)}
    with proxy.wire() as c:
        c.query("SELECT 1")
        time.sleep(0.3)
        before = counts()
        for i in range(400):
            assert c.rows(f"SELECT {i}") == [[str(i)]]
    proxy.stop()  # a server process reports what it has counted when it ends
    wait_until(lambda: sum(counts()[n] - before[n] for n in fleet.replicas) >= 400, what="the statistics")
    after = counts()
    for name in fleet.replicas:
        assert 200 <= after[name] - before[name] < 230, (before, after)
    assert after["app-primary"] - before["app-primary"] < 100, (before, after)  # the monitor asks there, too


# -- servers that are down --------------------------------------------------------------------------------------------


def test_dead_replica_costs_no_error(new_proxy, whole_fleet, wait_until):
    fleet, proxy = whole_fleet, new_proxy({"proxy": {"workers": 2}})
    dead, alive = fleet.replicas
    with proxy.wire() as c, proxy.wire() as d:
        for _ in range(4):
            c.rows("SELECT 1"), d.rows("SELECT 1")
        fleet.kill(dead)
        for i in range(50):
            assert place(fleet, c, f"SELECT {WHERE}") == alive
            d.send(pgwire.run(f"SELECT {WHERE}, $1::int", [str(i)]), pgwire.sync())
            assert fleet.name_of(rows(d.until_ready(check=True))[0][0]) == alive
        with proxy.wire() as new:
            assert place(fleet, new, f"SELECT {WHERE}") == alive
        fleet.start(dead)
        wait_until(lambda: place(fleet, c, f"SELECT {WHERE}") == dead, 30, what="the replica being used again")


def test_all_replicas_dead(new_proxy, whole_fleet, wait_until):
    fleet, proxy = whole_fleet, new_proxy({"proxy": {"workers": 2}})
    with proxy.wire() as c:
        c.rows("SELECT 1")
        for name in fleet.replicas:
            fleet.kill(name)
        for _ in range(20):
            assert place(fleet, c, f"SELECT {WHERE}") == "app-primary"
        c.query("BEGIN READ ONLY")
        assert place(fleet, c, f"SELECT {WHERE}") == "app-primary"
        c.query("COMMIT")
        fleet.start_all()
        wait_until(lambda: place(fleet, c, f"SELECT {WHERE}") in fleet.replicas, 30, what="the replicas being used again")


def test_dead_primary(new_proxy, whole_fleet, wait_until):
    """Reads go on; a write fails with a class 08 error and a hint, and the session stays."""
    fleet, proxy = whole_fleet, new_proxy({"proxy": {"workers": 1}, "database:app": {"server_connect_timeout": 2}})
    with proxy.wire() as c:
        c.rows("SELECT txid_current()")
        fleet.kill("app-primary")
        assert place(fleet, c, f"SELECT {WHERE}") in fleet.replicas
        with pytest.raises(PgError) as caught:
            c.query("INSERT INTO split VALUES (1)")
        assert (caught.value.fields["S"], caught.value.sqlstate[:2]) == ("ERROR", "08")
        assert caught.value.hint
        assert c.status == "I"
        assert place(fleet, c, f"SELECT {WHERE}") in fleet.replicas
        fleet.start_all()

        def writes():
            try:
                return c.query("INSERT INTO split VALUES (1)")
            except PgError:
                return None
        wait_until(writes, 30, what="the primary being used again")
