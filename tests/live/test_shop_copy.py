# SPDX-License-Identifier: BSD-2-Clause
"""COPY FROM STDIN of a sharded table puts each row on its shard, all or nothing; of a reference table, every row everywhere."""
import io
import time

import pgwire
import psycopg
import pytest
from test_shop_dml import ITEMS, made_pair, pair  # noqa: F401  (fixtures)
from test_shop_keys import query_reply, shards_of_ints

KEYS = list(range(20000, 20300))


def binary_header():
    return b"PGCOPY\n\xff\r\n\0" + bytes(8)


def binary_row(*fields):
    out = len(fields).to_bytes(2, "big")
    for f in fields:
        out += (-1).to_bytes(4, "big", signed=True) if f is None else len(f).to_bytes(4, "big") + f
    return out


def copy(conn, sql, *pieces, end=None):
    """Runs a COPY with its data in *pieces*: (tag or None, SQLSTATE or None)."""
    conn.send(pgwire.query(sql))
    started = conn.until("GEZ")
    if started[-1].tag == "E":
        conn.until_ready()
        return None, pgwire.error(started)
    for piece in pieces:
        conn.send(pgwire.copy_data(piece))
    conn.send(end or pgwire.copy_done())
    got = conn.until_ready()
    return next((m.text for m in got if m.tag == "C"), None), pgwire.error(got)


def feeds(keys):
    """{name: (COPY's tail, data)} of rows (key, "name of key", NULL) for item (id, name, n)."""
    text = "".join(f"{k}\tname\\t{k}\t\\N\n" for k in keys).encode()
    csv = "".join(f'{k},"na""me,\n{k}",\n' for k in keys).encode()
    return {
        "text": ("(id, name, n) FROM STDIN", text),
        "text, other order": ("(name, n, id) FROM STDIN WITH (DELIMITER '|', NULL 'nil')", "".join(f"a\\|b|nil|{k}\n" for k in keys).encode()),
        "text, header": ("(id, name, n) FROM STDIN WITH (HEADER)", b"id\tname\tn\n" + text),
        "text, crlf": ("(id, name, n) FROM STDIN", text.replace(b"\n", b"\r\n")),
        "text, end mark": ("(id, name, n) FROM STDIN", text + b"\\.\n"),
        "text, no last newline": ("(id, name, n) FROM STDIN", text[:-1]),
        "csv": ("(id, name, n) FROM STDIN (FORMAT csv)", csv),
        "csv, header": ("(id, name, n) FROM STDIN (FORMAT csv, HEADER true)", b'"id\n",name,n\n' + csv),
        "csv, header match": ("(id, name, n) FROM STDIN (FORMAT csv, HEADER match)", b"id,name,n\n" + csv),
        "csv, old words": ("(id, name, n) FROM STDIN CSV", csv),
        "csv, delimiter and quote": ("(name, id) FROM STDIN (FORMAT csv, DELIMITER ';', QUOTE '~', ESCAPE '!')", "".join(f"~a!~;b\n~;~{k}~\n" for k in keys).encode()),
        "binary": ("(id, name, n) FROM STDIN (FORMAT binary)",
                   binary_header() + b"".join(binary_row(k.to_bytes(8, "big"), b"x\ny", None) for k in keys) + b"\xff\xff"),
        "binary, no trailer": ("(n, id) FROM STDIN BINARY", binary_header() + b"".join(binary_row(None, k.to_bytes(8, "big")) for k in keys)),
    }


FEEDS = list(feeds([1]))


# One CopyData message of more than the first buffer's 4 KiB ends pgspan: what comes in one is small until that is mended.


@pytest.mark.parametrize("size", [1 << 20, 1000, 7])
@pytest.mark.parametrize("feed", FEEDS)
def test_copy__rows_on_their_shards__as_one_server_has_them(pair, feed, size):
    pair.proxy.expect_exit = size > 4096
    keys = KEYS if size > 7 else KEYS[:40]
    tail, data = feeds(keys)[feed]
    pieces = [data[i:i + size] for i in range(0, len(data), size)]
    for conn in (pair.shop, pair.plain):
        assert copy(conn, f"COPY item {tail}", *pieces) == (f"COPY {len(keys)}", None)
        assert conn.status == "I"
    pair.assert_placed()


@pytest.mark.parametrize("form", ["text", "csv", "binary"])
def test_copy__without_a_column_list(pair, form):
    some = KEYS[:120]
    with pair.proxy.connect("shop") as conn, pair.fleet.connect("single", "app") as plain:
        for one in (conn, plain):
            cur = one.cursor()
            options = {"text": "", "csv": "(FORMAT csv)", "binary": "(FORMAT binary)"}[form]
            with cur.copy(f"COPY loose FROM STDIN {options}") as put:
                if form == "csv":
                    put.write("".join(f"{k},v{k}\n" for k in some))
                else:
                    if form == "binary":
                        put.set_types(["int4", "text"])
                    for k in some:
                        put.write_row((k, f"v{k}"))
            assert cur.rowcount == len(some)
    pair.assert_placed("loose")


BAD = {
    "check": (b"20150\tx\t5000\n", "23514"), "duplicate": (b"1\tx\t1\n", "23505"), "not a number": (b"twenty\tx\t1\n", "22P02"),
    "null key": (b"\\N\tx\t1\n", "23502"), "too few": (b"20150\n", "22P04"), "too many": (b"20150\tx\t1\t1\n", "22P04"),
    "bad other column": (b"20150\tx\tone\n", "22P02"), "key too big": (b"99999999999999999999\tx\t1\n", "22003"), "empty key": (b"\tx\t1\n", "22P02"),
    "bad utf-8": (b"20150\t\xff\xfe\t1\n", "22021"), "empty line": (b"\n", "22P04"),
}


@pytest.mark.parametrize("bad", BAD)
def test_copy__bad_row_in_the_middle__nothing_stays(pair, bad):
    before = pair.placed()
    good = [f"{k}\tname\t1\n".encode() for k in KEYS]
    line, state = BAD[bad]
    for pieces in ([*good[:150], line, *good[151:]], [*good[:150], line], [line, *good[151:]]):
        shop, plain = copy(pair.shop, "COPY item (id, name, n) FROM STDIN", *pieces), copy(pair.plain, "COPY item (id, name, n) FROM STDIN", *pieces)
        assert plain == (None, state) or bad in ("null key", "empty line", "empty key", "too few")
        # The shard that failed may have been sent more by then: only that the COPY fails is certain for "check" (25P02 is seen).
        assert shop == plain or (bad in ("check", "duplicate") and shop[1] == "25P02"), bad
        assert pair.shop.status == "I" and pair.placed() == before and pair.fleet.prepared() == []
    assert query_reply(pair.shop, "SELECT count(*) FROM item") == [[str(ITEMS)]]


def test_copy_fail__nothing_stays(pair):
    before = pair.placed()
    good = [f"{k}\tname\t1\n".encode() for k in KEYS]
    for pieces in (good, [], good[:1]):
        assert copy(pair.shop, "COPY item (id, name, n) FROM STDIN", *pieces, end=pgwire.copy_fail("no more")) == (None, "57014")
        assert pair.shop.status == "I" and pair.placed() == before
    with pytest.raises((ZeroDivisionError, psycopg.errors.QueryCanceled)), pair.proxy.connect("shop") as conn, conn.cursor().copy("COPY item (id) FROM STDIN") as put:
        for k in KEYS:
            put.write_row([k])
        raise ZeroDivisionError
    assert pair.placed() == before and pair.fleet.prepared() == []


def test_copy__client_leaves_in_the_middle__nothing_stays(pair, wait_until):
    pair.proxy.expect_exit = True
    before = pair.placed()
    with pair.proxy.wire("shop") as conn:
        conn.send(pgwire.query("COPY item (id) FROM STDIN"))
        conn.until("G")
        conn.send(*(pgwire.copy_data(f"{k}\n".encode()) for k in KEYS))
        conn.abort()
    active = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state <> 'idle'"
    wait_until(lambda: pair.fleet.all_shards(active) == [], 10, "the COPY ending")
    assert pair.placed() == before
    time.sleep(0.3)
    assert pair.proxy.is_running


def test_copy_of_nothing(pair):
    before = pair.placed()
    for tail, data in (("FROM STDIN", []), ("FROM STDIN (FORMAT csv, HEADER)", [b"id,grp,name,amount,n,at\n"]), ("FROM STDIN (FORMAT binary)", [binary_header() + b"\xff\xff"]),
                       ("FROM STDIN", [b"\\.\n"])):
        assert copy(pair.shop, f"COPY item {tail}", *data) == ("COPY 0", None)
    assert pair.placed() == before


def test_copy_inside_a_block(pair):
    conn = pair.shop
    data = [f"{k}\t{k}\n".encode() for k in KEYS]
    for end, stay in (("ROLLBACK", False), ("COMMIT", True)):
        conn.query("BEGIN")
        conn.query("INSERT INTO loose VALUES (1, 'before')")
        assert copy(conn, "COPY loose FROM STDIN", *data) == (f"COPY {len(KEYS)}", None)
        assert conn.status == "T"
        assert query_reply(conn, "SELECT count(*) FROM loose") == [[str(len(KEYS) + 1)]]
        conn.query("SAVEPOINT s")
        assert copy(conn, "COPY loose FROM STDIN", *data) == (f"COPY {len(KEYS)}", None)
        conn.query("ROLLBACK TO s")
        assert copy(conn, "COPY loose FROM STDIN", data[0], b"x\ty\n") == (None, "22P02")
        assert conn.status == "E" and query_reply(conn, "SELECT 1") == "25P02"
        conn.query("ROLLBACK TO s")
        conn.query(end)
        assert query_reply(pair.shop, "SELECT count(*) FROM loose") == [[str((len(KEYS) + 1) * stay)]]
    copy(pair.plain, "COPY loose FROM STDIN", *data)
    pair.plain.query("INSERT INTO loose VALUES (1, 'before')")
    pair.assert_placed("loose")


def test_copy_with_a_where_or_from_a_file(pair):
    """WHERE is PostgreSQL's to judge on each shard; files are of the servers."""
    data = [f"{k}\t{k}\n".encode() for k in KEYS]
    got = copy(pair.shop, "COPY loose FROM STDIN WHERE id % 2 = 0", *data)
    assert got in ((f"COPY {len(KEYS) // 2}", None), (None, "0A000"))
    pair.plain_direct.execute("INSERT INTO loose SELECT id, id::text FROM generate_series(20000, 20299) id WHERE id %% 2 = 0 AND %s", [got[1] is None])
    pair.assert_placed("loose")
    assert query_reply(pair.shop, "COPY loose FROM '/etc/passwd'") in ("0A000", "42501")
    assert pair.shop.status == "I"


def test_copy_of_the_extended_protocol(pair):
    conn = pair.shop
    conn.send(pgwire.run("COPY loose FROM STDIN"), pgwire.sync())
    started = conn.until("GEZ")
    if started[-1].tag == "E":
        assert pgwire.error(started) == "0A000"
        assert conn.until("Z") and query_reply(conn, "SELECT count(*) FROM loose") == [["0"]]
        return
    conn.send(*(pgwire.copy_data(f"{k}\t{k}\n".encode()) for k in KEYS), pgwire.copy_done(), pgwire.sync())
    conn.until_ready(check=True)
    pair.plain_direct.execute("INSERT INTO loose SELECT id, id::text FROM generate_series(20000, 20299) id")
    pair.assert_placed("loose")


def test_copy_to(pair):
    """COPY TO gives every row once, or is refused."""
    for sql in ("COPY item TO STDOUT", "COPY item (id, name) TO STDOUT (FORMAT csv)", "COPY (SELECT id FROM item) TO STDOUT", "COPY (SELECT id FROM item WHERE id = 5) TO STDOUT",
                "COPY item TO STDOUT (FORMAT csv, HEADER)", "COPY item TO STDOUT (FORMAT binary)", "COPY kind TO STDOUT", "COPY (SELECT count(*) FROM item) TO STDOUT"):
        answers = []
        for conn in (pair.shop, pair.plain):
            conn.send(pgwire.query(sql))
            got = conn.until_ready()
            answers.append((pgwire.error(got), sorted(m.body for m in got if m.tag == "d"), [m.text for m in got if m.tag == "C"]))
        assert answers[0] == answers[1] or answers[0][0] == "0A000", sql
    assert query_reply(pair.shop, "SELECT count(*) FROM item") == [[str(ITEMS)]]


def test_big_fields_and_many_pieces(pair):
    pair.proxy.expect_exit = True
    big = "x" * 3_000_000
    data = "".join(f"{k}\t{big if k % 100 == 0 else k}\n" for k in KEYS).encode()
    assert copy(pair.shop, "COPY loose FROM STDIN", *(data[i:i + 99991] for i in range(0, len(data), 99991))) == (f"COPY {len(KEYS)}", None)
    assert query_reply(pair.shop, f"SELECT id FROM loose WHERE length(v) = {len(big)} ORDER BY id") == [["20000"], ["20100"], ["20200"]]


@pytest.mark.slow
def test_copy_a_million_rows(pair, capsys):
    pair.proxy.expect_exit = True
    data = "".join(f"{i}\tname {i}\n" for i in range(1_000_000)).encode()
    times = {}
    for name, dsn in (("pgspan, 4 shards", pair.proxy.dsn("shop")), ("one server", pair.fleet.dsn("single", "app"))):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("TRUNCATE loose")
            began = time.monotonic()
            cur = conn.cursor()
            with cur.copy("COPY loose FROM STDIN") as put:
                source = io.BytesIO(data)
                while piece := source.read(1 << 16):
                    put.write(piece)
            times[name] = time.monotonic() - began
            assert cur.rowcount == 1_000_000
    with capsys.disabled():
        print("\nCOPY of 1,000,000 rows: " + ", ".join(f"{n} {t:.2f} s ({1 / t:.2f} Mrow/s)" for n, t in times.items()))
    assert query_reply(pair.shop, "SELECT count(*), sum(id), min(id), max(id) FROM loose") == [["1000000", "499999500000", "0", "999999"]]
    found = pair.placed("loose")
    want = shards_of_ints(found)
    assert len(found) == 1_000_000 and all(v == [want[k]] for k, v in found.items())
    pair.shop.query("TRUNCATE loose")


# -- reference tables ---------------------------------------------------------------------------------------------------


def copies(pair):
    """The reference table's rows, which every shard has alike."""
    each = [sorted(c.execute("SELECT grp, title FROM kind").fetchall()) for c in pair.direct]
    assert each[1:] == each[:-1]
    return each[0]


def test_reference_table__written_on_every_shard__counted_once(pair):
    for sql in ("INSERT INTO kind VALUES (10, 'ten'), (11, 'eleven'), (12, NULL)", "UPDATE kind SET title = title || '!' WHERE grp > 2 RETURNING grp, title",
                "DELETE FROM kind WHERE grp IN (0, 12)", "INSERT INTO kind VALUES (1, 'x'), (77, 'y') ON CONFLICT (grp) DO UPDATE SET title = EXCLUDED.title RETURNING grp",
                "SELECT count(*), sum(grp) FROM kind", "SELECT * FROM kind ORDER BY grp", "UPDATE kind SET title = 'all'", "DELETE FROM kind WHERE grp = 999"):
        pair.same(sql)
        assert copies(pair) == sorted(pair.plain_direct.execute("SELECT grp, title FROM kind").fetchall())
    pair.same("INSERT INTO kind VALUES ($1, $2) RETURNING grp", ["200", "p"])
    pair.same("SELECT title FROM kind WHERE grp = $1", ["200"])
    assert copies(pair) == sorted(pair.plain_direct.execute("SELECT grp, title FROM kind").fetchall())


def test_reference_table__error__nothing_stays_anywhere(pair):
    before = copies(pair)
    assert pair.same("INSERT INTO kind VALUES (20, 'a'), (1, 'b')") == "23505"
    pair.direct[2].execute("INSERT INTO kind VALUES (30, 'only here')")  # a copy that has gone astray refuses
    assert query_reply(pair.shop, "INSERT INTO kind VALUES (30, 'x')") == "23505"
    pair.direct[2].execute("DELETE FROM kind WHERE grp = 30")
    assert copies(pair) == before and pair.fleet.prepared() == []


def test_reference_table__what_may_differ_is_refused(pair):
    before = copies(pair)
    for sql in ("INSERT INTO kind VALUES (20, random()::text)", "INSERT INTO kind VALUES (20, clock_timestamp()::text)", "DELETE FROM kind WHERE ctid = '(0,1)'", "INSERT INTO kind SELECT id, v FROM unnamed"):
        assert query_reply(pair.shop, sql) == "0A000", sql
        assert copies(pair) == before


@pytest.mark.parametrize("what", ["inet_server_port()", "pg_backend_pid()", "current_setting('port')", "pg_postmaster_start_time()", "'kind'::regclass::oid::int"])
def test_reference_table__values_of_the_servers_own__are_refused(pair, what):
    assert query_reply(pair.shop, f"UPDATE kind SET title = ({what})::text") == "0A000"
    copies(pair)


def test_reference_table__in_a_block_with_sharded_rows(pair):
    for end in ("ROLLBACK", "COMMIT"):
        pair.shop.query("BEGIN")
        pair.shop.query("INSERT INTO kind VALUES (50, 'fifty')")
        pair.shop.query("INSERT INTO item (id, grp) VALUES (30001, 50)")
        assert query_reply(pair.shop, "SELECT i.id, k.title FROM item i JOIN kind k USING (grp) WHERE k.grp = 50") == [["30001", "fifty"]]
        pair.shop.query(end)
        assert ((50, "fifty") in copies(pair)) == (end == "COMMIT")


@pytest.mark.parametrize("form", ["text", "csv", "binary"])
def test_reference_table__copy(pair, form):
    before = copies(pair)
    rows = [(g, f"{g}") for g in range(100, 200)]
    with pair.proxy.connect("shop") as conn, conn.cursor() as cur:
        with cur.copy("COPY kind FROM STDIN" + {"text": "", "csv": " (FORMAT csv)", "binary": " (FORMAT binary)"}[form]) as put:
            if form == "csv":
                put.write("".join(f"{g},{t}\n" for g, t in rows))
            else:
                if form == "binary":
                    put.set_types(["int4", "text"])
                for row in rows:
                    put.write_row(row)
        assert cur.rowcount == 100
    assert copies(pair) == before + rows
    assert copy(pair.shop, "COPY kind FROM STDIN", b"500\tx\n", b"1\tdouble\n")[1] == "23505"
    assert copy(pair.shop, "COPY kind FROM STDIN", b"500\tx\n", end=pgwire.copy_fail("no"))[1] == "57014"
    assert copies(pair) == before + rows
    pair.shop.send(pgwire.query("COPY kind TO STDOUT"))
    assert len([m for m in pair.shop.until_ready(check=True) if m.tag == "d"]) == 105


def test_reference_table__many_writers_at_once__copies_stay_equal(pair):
    """Writers of the same rows in opposite order may lose to a deadlock or wait, never leave copies that differ."""
    import concurrent.futures

    def worker(number):
        lost = 0
        with pair.proxy.connect("shop", options="-c lock_timeout=2000") as conn:
            for i in range(10):
                try:
                    conn.execute("UPDATE kind SET title = %s WHERE grp = %s", [f"{number}-{i}", i % 3])
                except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.QueryCanceled):
                    lost += 1
        return lost
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(worker, range(4)))
    copies(pair)
    assert pair.fleet.prepared() == []
