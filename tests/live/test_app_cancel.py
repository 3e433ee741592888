# SPDX-License-Identifier: BSD-2-Clause
"""CancelRequest: it ends the client's statement, running or waiting, and never anybody else's.

Guards issue 2: the request reaches the right server, and only while the client's statement runs there.
"""
import time

import psycopg
import pytest

import pgwire
from pgwire import error, query, rows, run, sync

ONE = {"proxy": {"workers": 2}, "database:app": {"default_pool_size": 1}}
SLEEP = "SELECT pg_sleep(20), txid_current()"


@pytest.mark.parametrize("sql", ["SELECT pg_sleep(20)", SLEEP], ids=["on a replica", "on the primary"])
@pytest.mark.parametrize("how", ["simple", "extended"])
def test_running(proxy, sql, how):
    with proxy.wire() as c:
        for _ in range(2):
            c.send(query(sql) if how == "simple" else run(sql) + sync())
            time.sleep(0.3)  # not silent: the ParseComplete of a statement that is known comes at once
            began = time.monotonic()
            c.cancel()
            msgs = c.until_ready()
            assert error(msgs) == "57014" and time.monotonic() - began < 5
            assert msgs[-2].error["M"] == "canceling statement due to user request"
            assert c.rows("SELECT 1") == [["1"]]


def test_running_in_a_block(proxy):
    with proxy.wire() as c:
        c.query("BEGIN")
        c.send(query(SLEEP))
        assert c.is_silent(0.3)
        c.cancel()
        assert error(c.until_ready()) == "57014"
        assert c.status == "E"
        assert c.query("COMMIT")[0].text == "ROLLBACK"


def test_waiting_for_a_server(new_proxy):
    proxy = new_proxy(ONE)
    with proxy.wire() as a, proxy.wire() as b:
        a.query("BEGIN")
        a.query("SELECT txid_current()")
        b.send(query("SELECT txid_current()"))
        assert b.is_silent(0.3)
        b.cancel()
        assert error(b.until_ready()) == "57014"
        assert b.status == "I"
        b.send(run("SELECT txid_current() > 0"), sync())
        assert b.is_silent(0.3)
        b.cancel()
        assert error(b.until_ready()) == "57014"
        assert a.rows("SELECT 1") == [["1"]]
        a.query("COMMIT")
        assert b.rows("SELECT txid_current() > 0") == [["t"]]


def test_late_cancel_harms_nobody(new_proxy):
    """a's server is b's by the time that a's request comes."""
    proxy = new_proxy(ONE)
    with proxy.wire() as a, proxy.wire() as b:
        a.query("SELECT txid_current()")
        b.send(query("SELECT pg_sleep(1), txid_current() > 0"))
        time.sleep(0.2)
        for _ in range(5):
            a.cancel()
        assert rows(b.until_ready(check=True)) == [["", "t"]]
        assert a.rows("SELECT txid_current() > 0") == [["t"]]


def test_cancel_races_harm_nobody(new_proxy):
    """Requests that come just as statements end: a's own may fail with 57014, b's never."""
    proxy = new_proxy(ONE)
    with proxy.wire() as a, proxy.wire() as b:
        for _ in range(40):
            a.send(query("SELECT txid_current() > 0"))
            b.send(query("SELECT txid_current() > 0, pg_sleep(0.005)"))
            a.cancel()
            assert error(a.until_ready()) in (None, "57014")
            assert rows(b.until_ready(check=True)) == [["t", ""]]


def test_wrong_key_is_ignored(proxy):
    with proxy.wire() as c:
        c.send(query("SELECT pg_sleep(0.8)"))
        for pid, key in ((c.pid, bytes(x ^ 1 for x in c.key)), (c.pid + 1, c.key), (0, c.key), (0xffffffff, c.key),
                         (c.pid, c.key + b"\0" * 4), (c.pid, b"")):
            other = pgwire.Wire(port=proxy.port)
            other.send(pgwire.cancel_request(pid, key))
            assert other.is_closed()
            other.abort()
        assert error(c.until_ready()) is None


def test_key_of_a_client_that_left(new_proxy):
    """The slot of its key is given again; the old key is worth nothing."""
    proxy = new_proxy({"proxy": {"workers": 1}})
    gone = proxy.wire()
    pid, key = gone.pid, gone.key
    gone.close()
    time.sleep(0.1)
    clients = [proxy.wire() for _ in range(3)]
    for c in clients:
        c.send(query("SELECT pg_sleep(0.5)"))
    other = pgwire.Wire(port=proxy.port)
    other.send(pgwire.cancel_request(pid, key))
    assert other.is_closed()
    for c in clients:
        assert error(c.until_ready()) is None
        c.close()


def test_keys_differ(proxy):
    clients = [proxy.wire() for _ in range(20)]
    assert len({(c.pid, c.key) for c in clients}) == 20 and len({c.key for c in clients}) == 20
    for c in clients:
        c.close()


def test_psycopg_cancel(proxy):
    with proxy.connect() as conn:
        pgconn = conn.pgconn
        pgconn.send_query(b"SELECT pg_sleep(20)")
        time.sleep(0.2)
        conn.cancel()
        assert pgconn.get_result().error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
        assert pgconn.get_result() is None


def test_cancel_of_a_copy(proxy):
    with proxy.wire() as c:
        c.query("CREATE TEMP TABLE cancel_copy (n int)")
        c.send(query("COPY cancel_copy FROM STDIN"))
        c.until("G")
        c.cancel()
        time.sleep(0.5)  # the request is passed on behind the client's back
        c.send(pgwire.copy_data(b"1\n"), pgwire.copy_done())
        assert error(c.until_ready()) == "57014"
        assert c.rows("SELECT count(*) FROM cancel_copy") == [["0"]]
