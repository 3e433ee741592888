# SPDX-License-Identifier: BSD-2-Clause
"""Bad input, bad timing, signals: none of it harms another client.

Guards issue 2's eighth proof, reload, and the two ways to stop. Each test that sends rubbish has a client at work
beside it, whose every answer is checked.
"""
import os
import pathlib
import random
import re
import signal
import socket
import struct
import threading
import time

import pytest

import pgwire
from pgwire import Closed, PgError, Wire, query, rows, run, startup, sync

ONE_WORKER = {"proxy": {"workers": 1}}


class Worker:
    """A client that asks on and on; every answer must be right and none may take longer than *slow* seconds."""

    def __init__(self, proxy, slow=2.0):
        self.conn, self.slow, self.stop, self.count, self.failure = proxy.wire(), slow, False, 0, None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.stop:
                began = time.monotonic()
                assert self.conn.rows(f"SELECT {self.count}") == [[str(self.count)]]
                self.conn.send(run("SELECT $1::int, txid_current() > 0", [str(self.count)]), sync())
                assert rows(self.conn.until_ready(check=True)) == [[str(self.count), "t"]]
                assert time.monotonic() - began < self.slow * float(os.environ.get("PGSPAN_SLOW_FACTOR", "1")), "too slow"
                self.count += 1
                time.sleep(0.002)
        except Exception as e:  # told by the thread that waits for it
            self.failure = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        self.thread.join()
        self.conn.close()
        if self.failure:
            raise self.failure
        assert self.count > 0


def raw(proxy, data):
    s = socket.create_connection(("127.0.0.1", proxy.port), 5)
    s.sendall(data)
    return s


SANITIZED = re.search("build-(address|thread)", os.environ.get("PGSPAN", "")) is not None


def rss_kb(pid):
    """Resident memory; nothing to compare under sanitizers, which keep what was freed."""
    return 0 if SANITIZED else int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1))


# -- bad input --------------------------------------------------------------------------------------------------------


def test_random_bytes(proxy):
    rng = random.Random(20)
    with Worker(proxy):
        for i in range(150):
            data = rng.randbytes(rng.choice([1, 4, 8, 50, 3000]))
            if i % 3 == 1:
                data = startup("app", "app") + data
            elif i % 3 == 2:  # a plausible length, then rubbish
                data = struct.pack("!II", 8 + len(data), pgwire.PROTOCOL_3_0) + data
            raw(proxy, data).close()


def test_broken_parse(new_proxy):
    proxy = new_proxy(ONE_WORKER)
    with proxy.wire() as other:
        c = proxy.wire()
        c.send(pgwire.message("P", b"x"), sync())
        try:
            got = c.until_ready()
        except Closed:
            got = []
        proxy.expect_exit = True  # the crash is this test's to tell
        assert proxy.is_running
        assert got == [] or got[0].error["C"] == "08P01"
        assert other.rows("SELECT 1") == [["1"]]
        c.abort()



def test_random_messages_after_login(proxy):
    rng = random.Random(21)
    with Worker(proxy):
        for _ in range(60):
            c = proxy.wire()
            try:
                for _ in range(rng.randrange(1, 5)):
                    tag = rng.choice("PBDECSHQFdcfpXZ\0\xff")
                    body = rng.randbytes(rng.choice([0, 1, 5, 40]))
                    c.send(tag.encode("latin-1") + struct.pack("!I", len(body) + 4) + body)
            except OSError:
                pass
            c.abort()


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_half_messages(proxy, cut):
    whole = run("SELECT $1::int", ["5"]) + sync()
    c, d = proxy.wire(), Wire(port=proxy.port)
    c.send(whole[:cut])
    d.send(startup("app", "app")[:cut])
    assert proxy.sql("SELECT 1") == [(1,)]
    c.abort()
    d.abort()


@pytest.mark.parametrize("tag", ["Q", "P", "B", "p", "F", "S", "?"])
@pytest.mark.parametrize("length", [0x7fffffff, 0x80000000, 0xffffffff, 0, 3])
def test_bad_length_word(proxy, tag, length):
    """Nobody reserves 2 GB for a promise."""
    c = proxy.wire()
    before = rss_kb(proxy.pid)
    c.send(tag.encode() + struct.pack("!I", length) + b"x" * 1000)
    closed = c.is_closed(0.3 if length == 0x7fffffff else 5)
    assert closed or length == 0x7fffffff
    assert proxy.sql("SELECT 1") == [(1,)]
    assert rss_kb(proxy.pid) - before < 64 * 1024
    c.abort()


def test_too_large_a_statement(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 1, "max_packet_size": "64kB"}})
    with proxy.wire() as other:
        c = proxy.wire()
        c.send(query("SELECT '" + "x" * 70000 + "'"))
        with pytest.raises(PgError) as caught:
            c.until_ready(check=True)
        assert caught.value.sqlstate == "54000"
        assert other.rows("SELECT 1") == [["1"]]
        c.abort()


def test_client_that_stops_reading(new_proxy):
    """A result of 400 MB and nobody takes it: memory stays, others work, and the server comes back when the client goes."""
    proxy = new_proxy({"proxy": {"workers": 1}, "database:app": {"default_pool_size": 4}})
    with Worker(proxy):
        before = rss_kb(proxy.pid)
        lazy = [proxy.wire() for _ in range(2)]
        for c in lazy:
            c.send(query("SELECT repeat('x', 1000000), txid_current() FROM generate_series(1, 400)"))
        time.sleep(1.5)
        assert rss_kb(proxy.pid) - before < 16 * 1024
        lazy[0].abort()
        assert len(rows(lazy[1].until_ready(check=True))) == 400  # it reads after all
        assert lazy[1].rows("SELECT 1") == [["1"]]
        lazy[1].close()


def test_client_that_sends_and_never_reads(new_proxy):
    """Statements without end, answers never taken."""
    proxy = new_proxy({"proxy": {"workers": 1}})
    with Worker(proxy):
        before = rss_kb(proxy.pid)
        c = proxy.wire()
        c.sock.settimeout(0.5)
        try:
            for _ in range(20000):
                c.send((run("SELECT repeat('x', 1000)") + sync()) * 20)
        except (TimeoutError, OSError):
            pass
        assert rss_kb(proxy.pid) - before < 32 * 1024
        c.abort()


def test_1000_connections_that_never_log_in(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 2, "client_login_timeout": 2, "max_client_conn": 2000}})
    with Worker(proxy):
        idle = [raw(proxy, b"" if i % 3 == 0 else startup("app", "app")[:9] if i % 3 == 1 else startup("app", "app"))
                for i in range(1000)]
        with proxy.wire() as c:
            assert c.rows("SELECT 1") == [["1"]]
        time.sleep(3)
        open_still = 0
        for s in idle:
            s.settimeout(0.5)
            try:
                while s.recv(4096):
                    pass
            except TimeoutError:
                open_still += 1
            except OSError:
                pass
            s.close()
        assert open_still == 0


def test_login_timeout_does_not_hit_who_logged_in(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 1, "client_login_timeout": 1}})
    with proxy.wire() as c:
        time.sleep(1.5)
        assert c.rows("SELECT 1") == [["1"]]


# -- reload -----------------------------------------------------------------------------------------------------------


def sleepers(proxy, n):
    """How many of n clients that each hold the primary for a moment run at once."""
    clients, began = [proxy.wire() for _ in range(n)], time.monotonic()
    for c in clients:
        c.send(query("SELECT pg_sleep(0.5), txid_current()"))
    for c in clients:
        c.until_ready(check=True)
        c.close()
    return round(n * 0.5 / (time.monotonic() - began))


def test_reload_changes_the_pool_and_disturbs_nobody(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 1}, "database:app": {"default_pool_size": 2}})
    with Worker(proxy, slow=10), proxy.wire() as c:
        c.query("BEGIN")
        c.query("SET LOCAL work_mem = '9MB'")
        assert 1 <= sleepers(proxy, 4) <= 2
        proxy.write_config({"proxy": {"workers": 1}, "database:app": {"default_pool_size": 10}})
        mark = len(proxy.log)
        proxy.reload()
        proxy.wait_log("the configuration was read again", since=mark)
        assert c.rows("SHOW work_mem") == [["9MB"]]
        c.query("COMMIT")
        assert sleepers(proxy, 6) >= 4


def test_reload_is_all_or_nothing(new_proxy):
    proxy = new_proxy(ONE_WORKER)
    with proxy.wire() as c:
        proxy.write_users({"app": "changed"})
        proxy.write_config({"proxy": {"workers": 1, "query_wait_timeout": "soon"}, "database:app": {"default_pool_size": -1}})
        mark = len(proxy.log)
        proxy.reload()
        proxy.wait_log("the configuration is not taken", since=mark)
        assert "query_wait_timeout" in proxy.log[mark:] and "default_pool_size" in proxy.log[mark:]  # every mistake
        assert c.rows("SELECT 1") == [["1"]]
        with proxy.wire() as d:  # the old user list too
            assert d.rows("SELECT 1") == [["1"]]


def test_reload_of_users_and_databases(new_proxy, wait_until):
    proxy = new_proxy(ONE_WORKER, users={"app": "app-secret"})
    with proxy.wire() as c:
        with pytest.raises(PgError) as caught:
            proxy.wire(user="postgres")
        assert caught.value.sqlstate == "28P01"
        proxy.write_users({"app": "app-secret", "postgres": "postgres"})
        proxy.write_config({**ONE_WORKER, "database:other": {"primary": f"host=127.0.0.1 port={proxy.fleet.port('single')} dbname=single"}})
        mark = len(proxy.log)
        proxy.reload()
        proxy.wait_log("the configuration was read again", since=mark)
        with proxy.wire(user="postgres", db="other") as d:
            assert d.rows("SELECT current_database()") == [["single"]]
        assert c.rows("SELECT 1") == [["1"]]


def test_many_reloads_under_load(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 2}})
    with Worker(proxy), Worker(proxy):
        for i in range(30):
            proxy.write_config({"proxy": {"workers": 2}, "database:app": {"default_pool_size": 2 + i % 5}})
            proxy.reload()
            with proxy.wire() as c:
                assert c.rows("SELECT 1") == [["1"]]


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_sigterm_drains(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 2}})
    idle, busy, running = proxy.wire(), proxy.wire(), proxy.wire()
    busy.query("BEGIN")
    busy.query("SELECT txid_current()")
    running.send(query("SELECT pg_sleep(1), txid_current() > 0"))
    time.sleep(0.2)
    proxy.signal(signal.SIGTERM)
    msg = idle.read()
    assert (msg.tag, msg.error["S"], msg.error["C"]) == ("E", "FATAL", "57P01")
    assert idle.is_closed()
    with pytest.raises((OSError, Closed, PgError)):
        proxy.wire()
    assert rows(running.until_ready(check=True)) == [["", "t"]]
    assert running.read().error["C"] == "57P01"
    assert busy.rows("SELECT txid_current() > 0") == [["t"]]
    assert proxy.is_running
    assert busy.query("COMMIT")[0].text == "COMMIT"
    assert busy.read().error["C"] == "57P01"
    assert proxy.wait(5) == 0




def test_sigint_twice_stops_at_once(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 2}})
    clients = [proxy.wire() for _ in range(4)]
    clients[0].query("BEGIN")
    clients[0].query("SELECT txid_current()")
    clients[1].send(query("SELECT pg_sleep(20)"))
    time.sleep(0.2)
    began = time.monotonic()
    proxy.signal(signal.SIGINT)
    time.sleep(0.1)
    proxy.signal(signal.SIGINT)
    assert proxy.wait(5) == 0
    assert time.monotonic() - began < 3 * float(os.environ.get("PGSPAN_SLOW_FACTOR", "1"))
    for c in clients:
        assert c.is_closed()


@pytest.mark.parametrize("state", ["session mode", "pinned"])
def test_stop_with_held_servers(new_proxy, state):
    proxy = new_proxy({"proxy": {"workers": 1}, "database:app": {"pool_mode": "session" if state == "session mode" else "transaction"}})
    c = proxy.wire()
    c.query("CREATE TEMP TABLE held (n int)")
    c.send(pgwire.terminate())  # the janitor has its server when the signal comes
    c.abort()
    assert proxy.stop() == 0
