# SPDX-License-Identifier: BSD-2-Clause
"""COPY both ways on an unsharded database, and results and statements larger than any buffer.

Guards issue 2: COPY streams in both formats and fails cleanly, and what passes through does not stay in pgspan's memory.
"""
import pathlib
import re

import psycopg
import pytest

import conftest
import pgwire
from pgwire import PgError, copy_data, copy_done, copy_fail, error, parse, rows, run, sync, tags


@pytest.fixture(scope="module", autouse=True)
def table(fleet):
    fleet.sql("app-primary", "DROP TABLE IF EXISTS copied; CREATE TABLE copied (n int, t text); GRANT ALL ON copied TO app")
    yield
    fleet.sql("app-primary", "DROP TABLE copied")


@pytest.fixture(autouse=True)
def empty(fleet, table):
    fleet.sql("app-primary", "TRUNCATE copied")


def rss_kb(pid):
    """The most memory that the process ever had resident."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text).group(1))


def stored(fleet):
    return fleet.sql("app-primary", "SELECT count(*), coalesce(sum(n), 0) FROM copied")[0]


@pytest.mark.parametrize("form", ["text", "csv", "binary"])
def test_round_trip(proxy, fleet, form):
    data = [(1, "a\tb\\n\"q\"\n"), (2, None), (3, ""), (4, "é" * 3000)]
    with proxy.connect() as conn, conn.cursor() as cur:
        if form == "csv":
            with cur.copy("COPY copied FROM STDIN (FORMAT csv)") as copy:
                copy.write('1,"a\tb\\n""q""\n"\n2,\n3,""\n4,' + "é" * 3000 + "\n")
        else:
            with cur.copy(f"COPY copied FROM STDIN (FORMAT {form})") as copy:
                copy.set_types(["int4", "text"])
                for row in data:
                    copy.write_row(row)
        assert cur.rowcount == 4
        assert fleet.sql("app-primary", "SELECT n, t FROM copied ORDER BY n") == data
        fleet.catch_up()
        with cur.copy(f"COPY (SELECT * FROM copied ORDER BY n) TO STDOUT (FORMAT {form})") as copy:
            through = b"".join(copy)
    with fleet.connect("app-primary") as conn, conn.cursor() as cur:
        with cur.copy(f"COPY (SELECT * FROM copied ORDER BY n) TO STDOUT (FORMAT {form})") as copy:
            assert b"".join(copy) == through


def test_copy_in_message_by_message(proxy, fleet):
    with proxy.wire() as c:
        c.send(pgwire.query("COPY copied FROM STDIN"))
        assert tags(c.until("G")) == "G"
        c.send_in_pieces(copy_data(b"1\tx\n2\t") + copy_data(b"y\n") + copy_done())
        msgs = c.until_ready()
        assert tags(msgs) == "CZ" and msgs[0].text == "COPY 2"
        assert stored(fleet) == (2, 3)
        assert c.rows("SELECT 1") == [["1"]]


def test_copy_in_by_execute(proxy, fleet):
    with proxy.wire() as c:
        c.send(run("COPY copied FROM STDIN"), sync())
        assert tags(c.until("G")) == "12nG"
        c.send(copy_data(b"5\tx\n"), copy_done(), sync())
        msgs = c.until_ready()
        assert tags(msgs) == "CZ" and msgs[0].text == "COPY 1"
        assert rows(c.query("SELECT n FROM copied, (SELECT txid_current()) x")) == [["5"]]


def test_copy_both_ways_by_prepared_statement(proxy, fleet):
    with proxy.wire() as c:
        c.send(parse("in", "COPY copied FROM STDIN"), parse("out", "COPY copied TO STDOUT"), sync())
        assert tags(c.until_ready()) == "11Z"
        for n in range(3):
            c.send(pgwire.bind("", "in"), pgwire.execute(), sync())
            assert tags(c.until("G")) == "2G"
            c.send(copy_data(f"{n}\tx\n".encode()), copy_done(), sync())
            assert tags(c.until_ready()) == "CZ"
        fleet.catch_up()
        c.send(pgwire.bind("", "out"), pgwire.execute(), sync())
        msgs = c.until_ready()
        assert tags(msgs) == "2HdddcCZ"
        assert b"".join(m.body for m in msgs if m.tag == "d") == b"0\tx\n1\tx\n2\tx\n"


def test_client_gives_up(proxy, fleet):
    with proxy.wire() as c:
        c.send(pgwire.query("COPY copied FROM STDIN"))
        c.until("G")
        c.send(copy_data(b"1\tx\n"), copy_fail("no more"))
        msgs = c.until_ready()
        assert tags(msgs) == "EZ" and error(msgs) == "57014"
        assert msgs[0].error["M"] == "COPY from stdin failed: no more"
        assert c.status == "I" and c.rows("SELECT 1") == [["1"]]
    assert stored(fleet) == (0, 0)


@pytest.mark.parametrize("tail", [1, 2000])
def test_bad_row_in_the_middle(proxy, fleet, tail):
    """The server fails while the client still sends: the rest is swallowed, the session goes on."""
    with proxy.wire() as c:
        c.send(pgwire.query("COPY copied FROM STDIN"))
        c.until("G")
        c.send(copy_data(b"1\tx\n"), copy_data(b"one\tx\n"), *([copy_data(b"2\t" + b"y" * 1000 + b"\n")] * tail), copy_done())
        msgs = c.until_ready()
        assert tags(msgs) == "EZ" and error(msgs) == "22P02"
        assert c.rows("SELECT 1") == [["1"]]
        c.query("BEGIN")
        c.send(pgwire.query("COPY copied FROM STDIN"))
        c.until("G")
        c.send(copy_data(b"bad\n"), *([copy_data(b"2\t" + b"y" * 1000 + b"\n")] * tail), copy_done())
        assert error(c.until_ready()) == "22P02"
        assert c.status == "E"
        assert c.query("COMMIT")[0].text == "ROLLBACK"
    assert stored(fleet) == (0, 0)


def test_bad_row_by_execute(proxy, fleet):
    """After the error all is ignored up to the Sync, which the client sends behind its CopyDone."""
    with proxy.wire() as c:
        c.send(run("COPY copied FROM STDIN"), pgwire.flush())
        c.until("G")
        c.send(copy_data(b"one\tx\n"), copy_data(b"2\ty\n"), copy_done(), sync())
        msgs = c.until_ready()
        assert tags(msgs) == "EZ" and error(msgs) == "22P02"
        assert c.rows("SELECT 1") == [["1"]]
    assert stored(fleet) == (0, 0)


def test_copy_refused_at_once(proxy):
    with proxy.wire() as c:
        with pytest.raises(PgError) as caught:
            c.query("COPY no_such_table FROM STDIN")
        assert caught.value.sqlstate == "42P01"
        # psql and others send nothing then; a client that had sent data already has it ignored
        c.send(copy_data(b"1\n"), copy_done(), pgwire.query("SELECT 1"))
        assert rows(c.until_ready()) == [["1"]]


def test_client_leaves_in_the_middle(proxy, fleet, wait_until):
    c = proxy.wire()
    c.send(pgwire.query("COPY copied FROM STDIN"))
    c.until("G")
    c.send(copy_data(b"1\tx\n"))
    c.abort()
    wait_until(lambda: fleet.value("app-primary", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY copied%' "
                                   "AND state <> 'idle'") == 0, what="the COPY ending")
    assert stored(fleet) == (0, 0)


def test_several_statements_with_copy(proxy, fleet):
    with proxy.wire() as c:
        c.send(pgwire.query("COPY copied FROM STDIN; SELECT count(*) FROM copied; COPY copied FROM STDIN; COPY copied TO STDOUT"))
        c.until("G")
        c.send(copy_data(b"1\tx\n"), copy_done())
        msgs = c.until("G")
        assert tags(msgs) == "CTDCG" and rows(msgs) == [["1"]]
        c.send(copy_data(b"2\ty\n"), copy_done())
        assert tags(c.until_ready()) == "CHddcCZ"
    assert stored(fleet) == (2, 3)


def test_50_mb_with_little_memory(new_proxy, fleet):
    proxy = new_proxy({"proxy": {"workers": 1}})
    line = b"7\t" + b"x" * 1021 + b"\n"  # 1 KiB
    with proxy.connect() as conn, conn.cursor() as cur:
        cur.execute("SELECT 1")
        before = rss_kb(proxy.pid)
        with cur.copy("COPY copied FROM STDIN") as copy:
            for _ in range(50 * 16):
                copy.write(line * 64)
        assert cur.rowcount == 50 * 1024
        assert stored(fleet) == (50 * 1024, 7 * 50 * 1024)
        fleet.catch_up()
        got = 0
        with cur.copy("COPY copied TO STDOUT") as copy:
            for data in copy:
                got += len(data)
        assert got == 50 * 1024 * 1024
        cur.execute("SELECT n, t FROM copied")
        assert sum(len(t) for _n, t in cur) == 50 * 1024 * 1021
        grown = rss_kb(proxy.pid) - before
    if not re.search("build-(address|thread)", proxy.binary):  # sanitizers keep freed memory
        assert grown < 8 * 1024, f"{grown} kB more for 150 MB that passed through"


def test_big_row_and_big_statement(proxy, fleet):
    big = "z" * (20 << 20)
    with proxy.connect() as conn:
        assert conn.execute("SELECT length(%s::text)", [big]).fetchone() == (20 << 20,)
        assert conn.execute("SELECT repeat('y', 20 * 1024 * 1024)").fetchone() == ("y" * (20 << 20),)
        assert conn.execute(f"SELECT length('{big}')").fetchone() == (20 << 20,)
    with psycopg.connect(proxy.dsn()) as conn:
        conn.execute("INSERT INTO copied VALUES (1, %s)", [big])
    assert fleet.value("app-primary", "SELECT length(t) FROM copied") == 20 << 20


@pytest.mark.parametrize("message", [pgwire.query("SELECT 1"), pgwire.parse("", "SELECT 1"), pgwire.describe("P"), b"F\0\0\0\x0c\0\0\0\1\0\0\0\0"],
                         ids=["query", "parse", "describe", "function call"])
def test_other_messages_while_copying__as_postgres(proxy, fleet, message):
    """The error, the end of the connection, and no server that waits for data for ever."""
    fleet.sql("app-primary", "CREATE TABLE IF NOT EXISTS copy_odd (t text); GRANT ALL ON copy_odd TO app")

    def answers(c):
        out = []
        c.send(pgwire.query("COPY copy_odd FROM STDIN"))
        c.until("G")
        c.send(message)
        try:
            while True:
                out.append(c.read())
        except pgwire.Closed:
            return [(m.tag, m.error["V"], m.error["C"], m.error["M"]) for m in out]
    direct = pgwire.Wire.login(port=fleet.port("app-primary"), user="app", password="app-secret", database="app")
    got = answers(proxy.wire(timeout=5))
    assert got == answers(direct)
    assert [g[2] for g in got] == ["08P01", "08P01"]
    conftest.wait_until(lambda: fleet.value("app-primary", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY copy_odd%' AND state = 'active'") == 0, 5, "the end of the copy")
    fleet.sql("app-primary", "DROP TABLE copy_odd")
