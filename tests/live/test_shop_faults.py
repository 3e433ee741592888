# SPDX-License-Identifier: BSD-2-Clause
"""Shards that are down, servers killed in the middle of a transaction, cancels: an error, and nothing half done."""
import threading
import time

import conftest
import pgwire
import psycopg
import pytest
from test_shop_keys import query_reply, shards_of_ints

WHERE = shards_of_ints(range(1, 200))
ON = [[k for k in WHERE if WHERE[k] == s] for s in range(conftest.SHARDS)]


@pytest.fixture
def shop(whole_fleet, new_proxy):
    fleet = whole_fleet
    for s in fleet.shards:
        fleet.sql(s, "DROP TABLE IF EXISTS f_rows; CREATE TABLE f_rows (id int PRIMARY KEY, v int); GRANT ALL ON f_rows TO app")
    yield new_proxy({"database:shop": {"table": ["f_rows key=id"]}, "proxy": {"query_wait_timeout": "5"}})
    fleet.start_all()
    for s in fleet.shards:
        fleet.sql(s, "DROP TABLE f_rows")


def left(fleet):
    return sorted(k for (k,) in fleet.all_shards("SELECT id FROM f_rows"))


def is_connection_error(error):
    return isinstance(error, psycopg.Error) and ((error.sqlstate or "08000").startswith("08") or error.sqlstate in ("57P01", "57P02", "57P03"))


def test_a_shard_is_down__its_statements_fail__others_go_on(whole_fleet, shop):
    fleet = whole_fleet
    with shop.connect("shop") as conn:
        conn.execute("INSERT INTO f_rows VALUES " + ", ".join(f"({k}, 0)" for s in range(4) for k in ON[s][:5]))
        fleet.kill("shop-2")
        for attempt in range(3):
            for s in range(4):
                if s == 2:
                    began = time.monotonic()
                    with pytest.raises(psycopg.Error) as caught:
                        conn.execute("SELECT v FROM f_rows WHERE id = %s", [ON[s][0]])
                    assert is_connection_error(caught.value), caught.value
                    assert time.monotonic() - began < 8 * conftest.SLOW_FACTOR
                    if conn.closed:
                        conn = shop.connect("shop")
                else:
                    assert conn.execute("SELECT v FROM f_rows WHERE id = %s", [ON[s][0]]).fetchall() == [(0,)]
                    conn.execute("UPDATE f_rows SET v = v WHERE id = %s", [ON[s][1]])
        for sql in ("SELECT count(*) FROM f_rows", "UPDATE f_rows SET v = v + 1", f"INSERT INTO f_rows VALUES ({ON[0][50 % len(ON[0])]}, 1), ({ON[2][20]}, 1)"):
            with pytest.raises(psycopg.Error) as caught:
                conn.execute(sql)
            assert is_connection_error(caught.value), (sql, caught.value)
            if conn.closed:
                conn = shop.connect("shop")
        fleet.start("shop-2")
        conftest.wait_until(lambda: shop.sql("SELECT count(*) FROM f_rows", "shop") == [(20,)] if can_read(shop) else False, 20, "the shard being used again")
        assert sorted(fleet.all_shards("SELECT DISTINCT v FROM f_rows")) == [(0,)] * 4
        assert fleet.prepared() == []


def can_read(shop):
    try:
        return shop.sql("SELECT count(*) FROM f_rows", "shop")
    except psycopg.Error:
        return False


@pytest.mark.parametrize("victim", [0, 3])
def test_server_killed_in_a_transaction__nothing_stays(whole_fleet, shop, victim):
    fleet = whole_fleet
    conn = shop.connect("shop", autocommit=False)
    for s in range(4):
        conn.execute("INSERT INTO f_rows VALUES (%s, 1)", [ON[s][0]])
    fleet.kill(f"shop-{victim}")
    with pytest.raises(psycopg.Error) as caught:
        conn.commit()
    assert is_connection_error(caught.value), caught.value
    conn.close()
    fleet.start(f"shop-{victim}")
    conftest.wait_until(lambda: fleet.prepared() == [], 30, "the end of prepared transactions")
    assert left(fleet) == []


def test_backend_killed_in_a_transaction__the_session_learns_it(whole_fleet, shop):
    fleet = whole_fleet
    conn = shop.connect("shop", autocommit=False)
    for s in range(4):
        conn.execute("INSERT INTO f_rows VALUES (%s, 1)", [ON[s][0]])
    fleet.sql("shop-1", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'")
    time.sleep(0.2)
    with pytest.raises(psycopg.Error):
        conn.execute("INSERT INTO f_rows VALUES (%s, 1)", [ON[1][1]])
        conn.commit()
    conn.close()
    conftest.wait_until(lambda: fleet.prepared() == [], 30, "the end of prepared transactions")
    assert left(fleet) == []
    with shop.connect("shop") as again:
        again.execute("INSERT INTO f_rows VALUES " + ", ".join(f"({ON[s][0]}, 0)" for s in range(4)))
    assert left(fleet) == sorted(ON[s][0] for s in range(4))


def test_servers_killed_under_load__never_half(whole_fleet, shop):
    """Pairs of rows on two shards: both are there or none, whatever died when."""
    fleet = whole_fleet
    stop, sure = threading.Event(), []

    def writer(number):
        i = number
        while not stop.is_set():
            try:
                with psycopg.connect(shop.dsn("shop"), autocommit=True) as conn:
                    while not stop.is_set():
                        i += 4
                        a, b = i * 1000, i * 1000 + 1
                        with conn.transaction():
                            conn.execute("INSERT INTO f_rows VALUES (%s, %s)", [a, i])
                            conn.execute("INSERT INTO f_rows VALUES (%s, %s)", [b, i])
                        sure.append(i)
            except psycopg.Error:
                time.sleep(0.05)
    threads = [threading.Thread(target=writer, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for victim in (1, 0):
        time.sleep(0.7)
        fleet.kill(f"shop-{victim}")
        time.sleep(0.5)
        fleet.start(f"shop-{victim}")
    time.sleep(1)
    stop.set()
    for t in threads:
        t.join()
    conftest.wait_until(lambda: fleet.prepared() == [], 40, "the end of prepared transactions")
    pairs = {}
    for (i,) in fleet.all_shards("SELECT v FROM f_rows"):
        pairs[i] = pairs.get(i, 0) + 1
    assert {i: n for i, n in pairs.items() if n != 2} == {}
    assert [i for i in sure if i not in pairs] == []
    assert len(sure) > 20



def test_cancel_of_a_query_on_several_shards(whole_fleet, shop):
    fleet = whole_fleet
    for s in range(4):
        fleet.sql(fleet.shards[s], f"INSERT INTO f_rows VALUES ({ON[s][0]}, 0); CREATE OR REPLACE FUNCTION slow(int) RETURNS int IMMUTABLE PARALLEL SAFE COST 100000 "
                  "LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(20); RETURN $1; END'")
    shop.sql("CREATE TABLE IF NOT EXISTS f_any (x int)", "shop")  # DDL passes: the catalog is loaded again
    with shop.wire("shop") as conn:
        for begin in (None, "BEGIN"):
            if begin:
                conn.query(begin)
            conn.send(pgwire.query("SELECT id FROM f_rows WHERE slow(v) = 0"))
            assert conn.is_silent(0.5)
            running = [fleet.value(s, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT id FROM f_rows%' AND state = 'active'") for s in fleet.shards]
            assert running == [1] * 4
            began = time.monotonic()
            conn.cancel()
            assert pgwire.error(conn.until_ready()) == "57014"
            assert time.monotonic() - began < 3 * conftest.SLOW_FACTOR
            assert conn.status == ("E" if begin else "I")
            if begin:
                assert query_reply(conn, "SELECT 1") == "25P02"
                conn.query("ROLLBACK")
            assert query_reply(conn, "SELECT count(*) FROM f_rows") == [["4"]]
            conftest.wait_until(lambda: fleet.all_shards("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT id FROM f_rows%' AND state = 'active'") == [], 5)
        # a late cancel hits nobody
        for _ in range(20):
            conn.cancel()
            assert query_reply(conn, "SELECT count(*) FROM f_rows") in ([["4"]], "57014")
    for s in fleet.shards:
        fleet.sql(s, "DROP FUNCTION slow; DROP TABLE IF EXISTS f_any")


def test_cancel_of_a_write_on_several_shards__nothing_stays(whole_fleet, shop):
    fleet = whole_fleet
    shop.sql("INSERT INTO f_rows VALUES " + ", ".join(f"({k}, 0)" for s in range(4) for k in ON[s][:5]), "shop")
    with fleet.connect("shop-3") as blocker, shop.wire("shop") as conn:
        blocker.execute("BEGIN")
        blocker.execute("UPDATE f_rows SET v = 9")
        conn.send(pgwire.query("UPDATE f_rows SET v = v + 1"))
        assert conn.is_silent(0.5)
        conn.cancel()
        assert pgwire.error(conn.until_ready()) == "57014"
        blocker.execute("ROLLBACK")
        assert query_reply(conn, "SELECT sum(v), count(*) FROM f_rows") == [["0", "20"]]
    assert fleet.prepared() == []


def test_statement_timeout_on_one_shard__nothing_stays(whole_fleet, shop):
    fleet = whole_fleet
    shop.sql("INSERT INTO f_rows VALUES " + ", ".join(f"({k}, 0)" for s in range(4) for k in ON[s][:5]), "shop")
    with fleet.connect("shop-3") as blocker, shop.wire("shop") as conn:
        blocker.execute("BEGIN")
        blocker.execute("UPDATE f_rows SET v = 9")
        conn.query("SET statement_timeout TO 400")
        assert query_reply(conn, "UPDATE f_rows SET v = v + 1") == "57014"
        blocker.execute("ROLLBACK")
        assert query_reply(conn, "SELECT sum(v), count(*) FROM f_rows") == [["0", "20"]]
    assert fleet.prepared() == []
