# SPDX-License-Identifier: BSD-2-Clause
"""Pooling: who gets a server when, how many there are, and that nothing of one client's session is ever seen by another.

Guards issue 2: session, transaction and statement pooling, limits with their SQLSTATEs, settings kept by client, and
pins for what lives in a server's session.
"""
import threading
import time

import pytest

import pgwire
from pgwire import PgError, error, rows, tags

ONE = {"proxy": {"workers": 1}, "database:app": {"default_pool_size": 1}}


def backend(c):
    """The primary's process that serves *c* now."""
    return c.rows("SELECT pg_backend_pid() FROM (SELECT txid_current()) x")[0][0]


def sessions(fleet, user="app"):
    """How many connections *user* has to the primary."""
    return fleet.value("app-primary", "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [user])


def fails(c, sql):
    """The SQLSTATE that *sql* ends with."""
    with pytest.raises(PgError) as caught:
        c.query(sql)
    return caught.value.sqlstate


# -- transaction mode -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_ten_clients_share_two_servers(new_proxy, fleet, workers):
    proxy = new_proxy({"proxy": {"workers": workers}, "database:app": {"default_pool_size": 2}})
    others = sessions(fleet)  # the shared pgspan's
    clients = [proxy.wire() for _ in range(10)]
    seen, most, errors = set(), [0], []

    def work(c):
        try:
            for _ in range(10):
                c.query("BEGIN")
                pid = backend(c)
                c.query("SELECT pg_sleep(0.01)")
                assert backend(c) == pid  # a block never moves
                c.query("COMMIT")
                seen.add(pid)
        except Exception as e:  # the thread's failure is the test's
            errors.append(e)

    threads = [threading.Thread(target=work, args=(c,)) for c in clients]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        most[0] = max(most[0], sessions(fleet))
        time.sleep(0.05)
    assert errors == []
    assert len(seen) == 2 and most[0] - others <= 2
    for c in clients:
        c.close()


def test_idle_client_holds_no_server(new_proxy):
    proxy = new_proxy(ONE)
    with proxy.wire() as a, proxy.wire() as b:
        pid = backend(a)
        assert backend(b) == pid
        a.query("BEGIN")
        assert backend(a) == pid
        b.send(pgwire.query("SELECT txid_current() > 0"))
        assert b.is_silent(0.3)
        a.query("ROLLBACK")
        assert rows(b.until_ready()) == [["t"]]


def test_held_begin_takes_no_server(new_proxy):
    proxy = new_proxy(ONE)
    with proxy.wire() as a, proxy.wire() as b:
        assert tags(a.query("BEGIN")) == "CZ"
        assert a.status == "T"
        assert b.rows("SELECT txid_current() > 0") == [["t"]]
        assert a.query("COMMIT")[-2].text == "COMMIT"
        assert a.status == "I"


def test_implicit_transaction_keeps_its_server(new_proxy):
    """Between Flush and Sync a server belongs to its client."""
    proxy = new_proxy(ONE)
    with proxy.wire() as a, proxy.wire() as b:
        a.send(pgwire.run("SELECT txid_current() > 0"), pgwire.flush())
        assert tags(a.until("C")) == "12TDC"
        b.send(pgwire.query("SELECT txid_current() > 0"))
        assert b.is_silent(0.3)
        a.send(pgwire.sync())
        assert tags(a.until_ready()) == "Z"
        assert rows(b.until_ready()) == [["t"]]


def test_lost_client_rolls_back_and_frees_its_server(new_proxy, fleet, wait_until):
    fleet.sql("app-primary", "DROP TABLE IF EXISTS pool_lost; CREATE TABLE pool_lost (n int); GRANT ALL ON pool_lost TO app")
    proxy = new_proxy(ONE)
    with proxy.wire() as b:
        a = proxy.wire()
        a.query("BEGIN")
        a.query("INSERT INTO pool_lost VALUES (1)")
        a.abort()
        assert b.rows("SELECT count(*), txid_current() > 0 FROM pool_lost") == [["0", "t"]]
        a = proxy.wire()
        a.send(pgwire.query("INSERT INTO pool_lost SELECT 1 FROM pg_sleep(20)"))
        assert a.is_silent(0.2)
        a.abort()
        began = time.monotonic()
        assert b.rows("SELECT count(*), txid_current() > 0 FROM pool_lost") == [["0", "t"]]
        assert time.monotonic() - began < 5
    wait_until(lambda: fleet.value("app-primary", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO pool_lost%%' "
                                   "AND state = 'active'") == 0, what="the lost client's statement being cancelled")
    fleet.sql("app-primary", "DROP TABLE pool_lost")


# -- the other modes --------------------------------------------------------------------------------------------------


def test_session_mode_keeps_its_server(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 1}, "database:app": {"pool_mode": "session", "default_pool_size": 2}})
    with proxy.wire() as a, proxy.wire() as b:
        pids = backend(a), backend(b)
        assert pids[0] != pids[1]
        for _ in range(3):
            assert (backend(a), backend(b)) == pids
        a.query("SET work_mem = '9MB'")
        a.query("PREPARE p AS SELECT 5")
        assert a.rows("EXECUTE p") == [["5"]]
        assert a.rows("SHOW work_mem") == [["9MB"]]
        c = pgwire.Wire(port=proxy.port)
        c.send(pgwire.startup("app", "app"))
        c.authenticate("app", "app-secret")
        c.until_ready(check=True)
        c.send(pgwire.query("SELECT pg_backend_pid() FROM (SELECT txid_current()) x"))
        assert c.is_silent(0.3)
        a.close()
        assert rows(c.until_ready()) == [[pids[0]]]
        assert c.rows("SELECT current_setting('work_mem')") == [["4MB"]]
        assert fails(c, "EXECUTE p") == "26000"
        c.close()


def test_statement_mode_refuses_blocks(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 1}, "database:app": {"pool_mode": "statement"}})
    with proxy.wire() as c:
        for sql in ("BEGIN", "START TRANSACTION READ ONLY"):
            assert (sql, fails(c, sql)) == (sql, "0A000")
            assert c.status == "I"
        c.send(pgwire.run("BEGIN"), pgwire.sync())
        assert error(c.until_ready()) == "0A000"
        assert c.status == "I"
        assert tags(c.query("BEGIN; SELECT 1; COMMIT")) == "CTDCCZ"  # one round trip: the server is free at its end, as in PgBouncer
        assert c.rows("SELECT 1") == [["1"]]
        c.send(pgwire.run("SELECT $1::int", ["7"]), pgwire.sync())
        assert rows(c.until_ready()) == [["7"]]


# -- limits -----------------------------------------------------------------------------------------------------------


def test_max_client_conn(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 2, "max_client_conn": 5}})
    clients = [proxy.wire() for _ in range(5)]
    with pytest.raises(PgError) as caught:
        proxy.wire()
    assert (caught.value.fields["S"], caught.value.sqlstate, caught.value.message) == (
        "FATAL", "53300", "sorry, too many clients already")
    assert caught.value.hint
    for c in clients:
        assert c.rows("SELECT 1") == [["1"]]
    clients.pop().close()
    time.sleep(0.1)
    clients.append(proxy.wire())
    assert clients[-1].rows("SELECT 1") == [["1"]]
    for c in clients:
        c.close()


def test_query_wait_timeout(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 1, "query_wait_timeout": 1}, "database:app": {"default_pool_size": 1}})
    with proxy.wire() as a, proxy.wire() as b:
        a.query("BEGIN")
        backend(a)
        began = time.monotonic()
        with pytest.raises(PgError) as caught:
            b.query("SELECT txid_current()")
        assert 0.8 < time.monotonic() - began < 3
        assert (caught.value.fields["S"], caught.value.sqlstate) == ("ERROR", "53300")
        assert caught.value.hint
        b.send(pgwire.run("SELECT txid_current()"), pgwire.sync())
        assert error(b.until_ready()) == "53300"
        assert b.status == "I"
        b.query("BEGIN")
        assert fails(b, "SELECT txid_current()") == "53300"
        assert b.status == "E"
        assert fails(b, "SELECT 1") == "25P02"
        b.query("ROLLBACK")
        a.query("COMMIT")
        assert b.rows("SELECT txid_current() > 0") == [["t"]]


# -- settings ---------------------------------------------------------------------------------------------------------


def show(c, name="work_mem"):
    """The setting, on the primary's only server."""
    return c.rows(f"SELECT current_setting('{name}') FROM (SELECT txid_current()) x")[0][0]


@pytest.fixture
def pair(new_proxy):
    """Two clients that share the primary's one server."""
    proxy = new_proxy(ONE)
    with proxy.wire() as a, proxy.wire() as b:
        assert backend(a) == backend(b)
        yield a, b


def test_set_is_kept_and_never_leaks(pair):
    a, b = pair
    a.query("SET work_mem = '5MB'")
    b.query("SET work_mem TO '6MB' -- mine")
    for _ in range(3):
        assert (show(a), show(b)) == ("5MB", "6MB")
    a.send(pgwire.run("SET work_mem = '8MB'"), pgwire.sync())
    a.until_ready(check=True)
    assert (show(b), show(a)) == ("6MB", "8MB")
    a.query("RESET work_mem")
    assert (show(b), show(a)) == ("6MB", "4MB")
    b.query("SET TIME ZONE 'Asia/Kathmandu'")
    b.query("SET statement_timeout TO 77777; SET SESSION lock_timeout = 3")
    assert (show(a, "timezone") != "Asia/Kathmandu", show(a, "statement_timeout"), show(a, "lock_timeout")) == (True, "0", "0")
    assert (show(b, "timezone"), show(b, "statement_timeout"), show(b, "lock_timeout")) == ("Asia/Kathmandu", "77777ms", "3ms")
    b.query("RESET ALL")
    show(a)
    assert (show(b), show(b, "lock_timeout")) == ("4MB", "0")
    b.query("SET work_mem = '6MB'")
    b.query("DISCARD ALL")
    show(a)
    assert show(b) == "4MB"


def test_set_holds_for_reads_too(pair):
    """A read on a replica sees the client's settings."""
    a, b = pair
    a.query("SET work_mem = '5MB'")
    for _ in range(4):
        assert a.rows("SHOW work_mem") == [["5MB"]]
        assert b.rows("SHOW work_mem") == [["4MB"]]


def test_set_local_ends_with_its_block(pair):
    a, b = pair
    a.query("BEGIN")
    a.query("SET LOCAL work_mem = '5MB'")
    assert show(a) == "5MB"
    a.query("COMMIT")
    assert (show(a), show(b)) == ("4MB", "4MB")
    a.query("BEGIN; SET LOCAL work_mem = '5MB'; COMMIT")
    assert (show(a), show(b), show(a)) == ("4MB", "4MB", "4MB")


def test_set_follows_rollback(pair):
    a, b = pair
    a.query("SET work_mem = '5MB'")
    a.query("BEGIN")
    a.query("SET work_mem = '6MB'")
    assert show(a) == "6MB"
    a.query("ROLLBACK")
    assert (show(a), show(b), show(a)) == ("5MB", "4MB", "5MB")
    a.query("BEGIN")
    a.query("SET work_mem = '7MB'")
    a.query("SAVEPOINT s")
    a.query("SET work_mem = '8MB'")
    a.query("ROLLBACK TO s")
    assert show(a) == "7MB"
    a.query("COMMIT")
    assert (show(a), show(b), show(a)) == ("7MB", "4MB", "7MB")




@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "END"])
def test_set_in_a_failed_block_is_gone(pair, end):
    a, b = pair
    a.query("BEGIN")
    a.query("SET work_mem = '6MB'")
    assert fails(a, "SELECT 1/0 FROM (SELECT txid_current()) x") == "22012"
    assert a.status == "E"
    assert a.query(end)[-2].text == "ROLLBACK"
    assert (show(a), show(b), show(a)) == ("4MB", "4MB", "4MB")


def test_set_in_a_failed_string_is_gone(pair):
    a, b = pair
    assert fails(a, "SET work_mem = '6MB'; SELECT 1/0") == "22012"
    assert (show(a), show(b), show(a)) == ("4MB", "4MB", "4MB")
    a.send(pgwire.run("SET work_mem = '6MB'"), pgwire.run("SELECT 1/0"), pgwire.sync())
    assert error(a.until_ready()) == "22012"
    assert (show(a), show(b), show(a)) == ("4MB", "4MB", "4MB")


def test_failed_set_is_gone(pair):
    a, b = pair
    a.query("SET work_mem = '5MB'")
    assert fails(a, "SET work_mem = 'much'") == "22023"
    assert (show(a), show(b), show(a)) == ("5MB", "4MB", "5MB")


def test_set_through_savepoints_of_one_name(pair):
    a, b = pair
    a.query("BEGIN")
    a.query("SAVEPOINT s")
    a.query("SET work_mem = '6MB'")
    a.query("SAVEPOINT s")
    a.query("SET work_mem = '7MB'")
    a.query("RELEASE s")
    assert show(a) == "7MB"
    a.query("ROLLBACK TO s")
    assert show(a) == "4MB"
    a.query("SET work_mem = '8MB'")
    assert fails(a, "SELECT 1/0") == "22012"
    a.query("ROLLBACK TO SAVEPOINT s")
    a.query("COMMIT")
    assert (show(a), show(b), show(a)) == ("4MB", "4MB", "4MB")


def test_commit_and_chain(pair):
    a, b = pair
    a.query("BEGIN")
    a.query("SET work_mem = '6MB'")
    a.query("COMMIT AND CHAIN")
    assert a.status == "T"
    a.query("SET work_mem = '7MB'")
    a.query("ROLLBACK AND CHAIN")
    assert show(a) == "6MB"
    a.query("COMMIT")
    assert (show(b), show(a)) == ("4MB", "6MB")


def test_set_config_never_leaks(pair):
    a, b = pair
    assert a.rows("SELECT set_config('work_mem', '6MB', false)") == [["6MB"]]
    assert show(a) == "6MB"
    a.close()
    assert show(b) == "4MB"


def test_set_in_a_do_block_never_leaks(pair):
    a, b = pair
    a.query("DO $$ BEGIN PERFORM set_config('work_mem', '6MB', false); SET lock_timeout = 5; END $$")
    a.close()
    assert (show(b), show(b, "lock_timeout")) == ("4MB", "0")


def test_set_role_never_leaks(new_proxy):
    proxy = new_proxy(ONE)
    for sql in ("SET ROLE app", "SET SESSION AUTHORIZATION app"):
        with proxy.wire(user="postgres") as b:
            a = proxy.wire(user="postgres")
            a.query(sql)
            assert a.rows("SELECT current_user FROM (SELECT txid_current()) x") == [["app"]]
            a.close()
            assert b.rows("SELECT current_user, session_user FROM (SELECT txid_current()) x") == [["postgres", "postgres"]]


# -- pins -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make, use, answer, after", [
    ("CREATE TEMP TABLE pinned AS SELECT 7 AS n", "SELECT n FROM pinned", "7", "SELECT to_regclass('pinned') IS NULL"),
    ("SELECT 7 AS n INTO TEMP pinned", "SELECT n FROM pinned", "7", "SELECT to_regclass('pinned') IS NULL"),
    ("LISTEN pinned", "SELECT pg_listening_channels()", "pinned",
     "SELECT NOT EXISTS (SELECT FROM pg_listening_channels())"),
    ("SELECT pg_advisory_lock(77)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "1",
     "SELECT pg_try_advisory_xact_lock(77)"),
    ("PREPARE pinned AS SELECT 7", "EXECUTE pinned", "7",
     "SELECT NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'pinned')"),
    ("BEGIN; DECLARE pinned CURSOR WITH HOLD FOR SELECT 7 UNION ALL SELECT 8; COMMIT", "FETCH pinned", "7",
     "SELECT NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'pinned')"),
], ids=["temp", "into-temp", "listen", "advisory", "prepare", "hold"])
def test_what_lives_in_a_server_pins_it(new_proxy, make, use, answer, after):
    proxy = new_proxy({"proxy": {"workers": 1}, "database:app": {"default_pool_size": 2}})
    with proxy.wire() as b:
        a = proxy.wire()
        pid = backend(a)
        assert backend(b) == pid
        a.query(make)
        pid = backend(a)
        other = backend(b)
        assert other != pid
        assert a.rows(use) == [[answer]]
        assert backend(a) == pid and backend(b) == other
        a.close()
        with proxy.wire() as c, proxy.wire() as d:
            for each in (c, d):  # both servers, whichever a's was
                each.query("BEGIN")
                backend(each)
            assert c.rows(after) == [["t"]]
            c.query("COMMIT")
            assert d.rows(after) == [["t"]]
            d.query("COMMIT")


def test_discard_all_unpins(new_proxy):
    proxy = new_proxy(ONE)
    with proxy.wire() as a, proxy.wire() as b:
        a.query("CREATE TEMP TABLE pinned (n int)")
        b.send(pgwire.query("SELECT to_regclass('pinned'), txid_current() > 0"))
        assert b.is_silent(0.3)
        a.query("DISCARD ALL")
        assert rows(b.until_ready()) == [[None, "t"]]


def test_temp_table_that_rolled_back(pair):
    a, b = pair
    a.query("BEGIN")
    a.query("CREATE TEMP TABLE pinned (n int)")
    a.query("ROLLBACK")
    a.close()
    assert b.rows("SELECT to_regclass('pinned'), txid_current() > 0") == [[None, "t"]]


def test_own_notification_bears_the_clients_own_pid(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 2}})
    with proxy.wire() as a, proxy.wire() as b:
        a.query("LISTEN tidings")
        got = a.query("NOTIFY tidings, 'mine'")
        (mine,) = [m for m in got if m.tag == "A"]
        assert mine.body == a.pid.to_bytes(4, "big") + b"tidings\0mine\0"
        b.query("NOTIFY tidings, 'other'")
        other = a.read()
        assert other.tag == "A" and other.body[4:] == b"tidings\0other\0"
        assert other.body[:4] != a.pid.to_bytes(4, "big")


def test_notification_arrives(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 2}, "database:app": {"default_pool_size": 3}})
    with proxy.wire() as a, proxy.wire() as b:
        a.query("LISTEN tidings")
        b.query("NOTIFY tidings, 'hello'")
        msg = a.read()  # while it is idle
        assert (msg.tag, msg.body[4:]) == ("A", b"tidings\0hello\0")
        b.query("SELECT pg_notify('tidings', 'again')")
        assert a.read().body[4:] == b"tidings\0again\0"
        assert a.rows("SELECT 1") == [["1"]]


# -- servers that end --------------------------------------------------------------------------------------------------


def terminate(fleet, name, user="app"):
    """Ends all of *user*'s server processes on *name*."""
    fleet.sql(name, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [user])


def test_killed_idle_servers_cost_no_error(new_proxy, fleet):
    proxy = new_proxy({"proxy": {"workers": 2}})
    clients = [proxy.wire() for _ in range(6)]
    for _ in range(3):
        for c in clients:
            c.rows("SELECT 1")
            backend(c)
        for name in ("app-primary", *fleet.replicas):
            terminate(fleet, name)
        for c in clients:
            assert c.rows("SELECT 1") == [["1"]]
            assert c.rows("SELECT txid_current() > 0") == [["t"]]
    for c in clients:
        c.close()


@pytest.mark.parametrize("when", ["idle in block", "running"])
def test_killed_in_a_block_never_lies(new_proxy, fleet, when):
    """Whatever the client is told, it is not COMMIT, and nothing was written."""
    fleet.sql("app-primary", "DROP TABLE IF EXISTS pool_kill; CREATE TABLE pool_kill (n int); GRANT ALL ON pool_kill TO app")
    proxy = new_proxy(ONE)
    c = proxy.wire()
    c.query("BEGIN")
    c.query("INSERT INTO pool_kill VALUES (1)")
    got = []
    if when == "running":
        c.send(pgwire.query("SELECT pg_sleep(20)"))
        assert c.is_silent(0.2)
    terminate(fleet, "app-primary")
    if when == "idle in block":
        time.sleep(0.1)
    try:
        if when == "idle in block":
            c.send(pgwire.query("COMMIT"))
        while True:
            got.append(c.read())
    except (pgwire.Closed, BrokenPipeError, ConnectionResetError):
        pass
    assert [m for m in got if m.tag == "C"] == []
    assert [m.error["C"] for m in got if m.tag == "E"] in (["57P01"], ["08006"])
    with proxy.wire() as d:
        assert d.rows("SELECT count(*), txid_current() > 0 FROM pool_kill") == [["0", "t"]]
    fleet.sql("app-primary", "DROP TABLE pool_kill")
