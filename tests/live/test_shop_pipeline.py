# SPDX-License-Identifier: BSD-2-Clause
"""The extended protocol on a sharded database as drivers use it: statements parsed ahead, pipelines over many shards, COPY.

Each conversation is held with pgspan and with a plain server, and the two must say the same: the same messages in the same
order, rows, tags, SQLSTATEs, and the state of the transaction.
"""
import asyncio
import io
import random
import struct

import asyncpg
import conftest
import pgwire
import psycopg
import pytest
from pgwire import bind, close, copy_data, copy_done, describe, execute, flush, parse, query, sync
from test_shop_dml import ITEMS, made_pair, pair  # noqa: F401  (fixtures)
from test_shop_keys import query_reply, shards_of_ints

WHERE = shards_of_ints(range(30000, 30400))
ON = [[k for k in WHERE if WHERE[k] == s] for s in range(conftest.SHARDS)]  # keys of each shard
BIGINT, INT4, TEXT = 20, 23, 25

INSERT = "INSERT INTO item (id, grp, n) VALUES ($1, 1, $2)"
ROWS = "INSERT INTO item (id, grp) VALUES ($1, 1), ($2, 2), ($3, 3), ($4, 4)"
GET = "SELECT id, grp, n FROM item WHERE id = $1"
COUNT = "SELECT count(*), sum(id) FROM item WHERE grp = $1"
PAGE = "SELECT id, n FROM item WHERE id >= $1 ORDER BY id LIMIT 7"
EVERY = "UPDATE item SET n = n + 1 WHERE grp = $1"


def shape(msgs):
    """What a conversation said, without what may differ between servers (OIDs of tables, texts of errors)."""
    out = []
    for m in msgs:
        if m.tag in "NS":
            continue
        if m.tag == "E":
            out.append(("E", m.error["C"]))
        elif m.tag == "T":
            out.append(("T", m.columns))
        elif m.tag == "D":
            out.append(("D", m.row))
        elif m.tag in "CZ":
            out.append((m.tag, m.text))
        else:
            out.append((m.tag, m.body))
    return out


def said(conn, *steps):
    """Sends each step and reads what it asks for: bytes are sent, a string names the message types that end its answer."""
    got = []
    for step in steps:
        if isinstance(step, bytes):
            conn.send(step)
        else:
            got += conn.until(step)
    return shape(got)


def same(pair, *steps):
    """Holds the conversation with both; what was said."""
    shop, plain = said(pair.shop, *steps), said(pair.plain, *steps)
    assert shop == plain
    return shop


def finish(pair):
    """Nothing is left open or prepared, and the tables are the same."""
    assert pair.fleet.prepared() == []
    pair.assert_placed()
    assert same(pair, query("SELECT count(*) FROM item"), "Z")[-1] == ("Z", "I")


def one(sql, *params, types=(), portal="", name=""):
    return parse(name, sql, types) + bind(portal, name, [None if p is None else str(p) for p in params]) + describe("P", portal) + execute(portal)


def again(name, *params):
    return bind("", name, [str(p) for p in params]) + execute()


def codes(said_):
    return [c for t, c in said_ if t == "E"]


def tags(said_):
    return [c for t, c in said_ if t == "C"]


# -- parsed and described ahead ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [False, True])
def test_parse_describe_flush__bind_elsewhere(pair, block):
    """asyncpg's and postgres.js's flow: what was parsed on one shard is bound on whichever the key says."""
    begin, end = ([query("BEGIN"), "Z"], [query("COMMIT"), "Z"]) if block else ([], [])
    same(pair, *begin)
    for i, k in enumerate(ON[s][i] for i, s in enumerate((0, 1, 2, 3, 2, 1))):
        same(pair, parse(f"s{i}", INSERT) + describe("S", f"s{i}") + flush(), "Tn", again(f"s{i}", k, i) + sync(), "Z")
    for i, (sql, params) in enumerate([(GET, [ON[1][0]]), (GET, [ON[3][0]]), (COUNT, [1]), (PAGE, [30000]), (EVERY, [1]), (ROWS, [ON[s][9] for s in range(4)]),
                                       ("UPDATE item SET n = 5 WHERE id = $1 RETURNING id, n", [ON[2][0]])]):
        got = same(pair, parse(f"t{i}", sql) + describe("S", f"t{i}") + flush(), "Tn", again(f"t{i}", *params) + sync(), "Z")
        assert not codes(got)
        same(pair, again(f"t{i}", *params) + sync(), "Z") if sql is not ROWS else None
        same(pair, close("S", f"t{i}") + sync(), "Z")
    assert same(pair, *end, query("SELECT 1"), "Z")[-1] == ("Z", "I")
    finish(pair)


def test_parse_describe_in_one_group_with_bind(pair):
    for sql, params in ((COUNT, [1]), (PAGE, [1]), (ROWS, [ON[s][3] for s in range(4)]), (GET, [ON[2][3]])):
        got = same(pair, parse("", sql) + describe("S", "") + bind("", "", [str(p) for p in params]) + execute() + sync(), "Z")
        assert not codes(got)
    finish(pair)


def test_unnamed_parse_flush__bind_elsewhere(pair):
    for s in (3, 0, 1):
        same(pair, parse("", INSERT) + flush(), "1", again("", ON[s][1], 1) + sync(), "Z")
        same(pair, parse("", GET) + describe("S") + flush(), "T", bind("", "", [str(ON[s][1])]) + describe("P") + execute() + flush(), "C", sync(), "Z")
    finish(pair)


def test_ddl_parsed_ahead(pair):
    conn = pair.shop
    for sql in ("CREATE TABLE piped (id int, v text)", "ALTER TABLE piped ADD w int", "DROP TABLE piped"):
        got = said(conn, parse("d", sql) + describe("S", "d") + flush(), "Tn", again("d") + sync(), "Z", close("S", "d") + sync(), "Z")
        assert not codes(got), got
    assert pair.fleet.prepared() == []


def test_error_in_what_is_parsed_ahead(pair):
    got = same(pair, parse("bad", "SELECT nothing FROM item WHERE id = $1") + describe("S", "bad") + flush(), "E", again("bad", ON[1][0]) + sync(), "Z")
    assert codes(got) == ["42703"]
    got = same(pair, parse("bad", "SELECT nothing FROM item") + describe("S", "bad") + again("bad") + sync(), "Z")
    assert codes(got) == ["42703"]
    same(pair, one(GET, ON[1][0]) + sync(), "Z")
    finish(pair)


# -- pipelines --------------------------------------------------------------------------------------------------------


def batch(keys, name="i"):
    return parse(name, INSERT) + b"".join(again(name, k, i) for i, k in enumerate(keys))


MIXED = [ON[i % 4][10 + i] for i in range(12)]


@pytest.mark.parametrize("how", ["own block", "block in the group", "no block", "block with end in the group"])
def test_one_group_over_all_shards(pair, how):
    work = batch(MIXED) + b"".join(one(GET, k) for k in MIXED[3:6]) + one(COUNT, 1) + one(EVERY, 1) + one(PAGE, 30000) + one(GET, MIXED[0])
    if how == "own block":
        got = same(pair, query("BEGIN"), "Z", work + sync(), "Z", query("COMMIT"), "Z")
    elif how == "block in the group":
        got = same(pair, one("BEGIN") + work + sync(), "Z", one("COMMIT") + sync(), "Z")
    elif how == "no block":
        got = same(pair, work + sync(), "Z")
    else:
        got = same(pair, one("BEGIN") + work + one("COMMIT") + one(GET, MIXED[1]) + sync(), "Z")
    assert not codes(got)
    finish(pair)


@pytest.mark.parametrize("how", ["own block", "block in the group", "no block"])
@pytest.mark.parametrize("bad", range(6))
@pytest.mark.parametrize("fault", ["duplicate", "check", "syntax", "refused", "fan"])
def test_error_in_the_middle__the_rest_is_skipped__nothing_stays(pair, how, bad, fault):
    wrong = {"duplicate": lambda k: one(INSERT, 1 + k % 4, 1), "check": lambda k: one(INSERT, k, 5000), "syntax": lambda k: one("SELEC", types=()),
             "refused": lambda k: one("SELECT count(*) FROM item WHERE grp = $1 FOR UPDATE", 1), "fan": lambda k: one("UPDATE item SET n = 5000 WHERE grp = $1", 1)}[fault]
    before = pair.placed()
    work = b"".join(one(INSERT, k, 1) if i != bad else wrong(k) for i, k in enumerate(MIXED[:6])) + one(COUNT, 1)
    begin = [query("BEGIN"), "Z"] if how == "own block" else []
    start = one("BEGIN") if how == "block in the group" else b""
    end = [] if how == "no block" else [query("SELECT 1"), "Z", query("COMMIT"), "Z"]
    got = same(pair, *begin, start + work + sync(), "Z", *end)
    assert len(codes(got)) == (1 if how == "no block" else 2)
    assert pair.placed() == before
    same(pair, one(INSERT, MIXED[0], 1) + sync(), "Z")
    finish(pair)


def test_a_savepoint_saves_the_block(pair):
    same(pair, query("BEGIN"), "Z", batch(MIXED[:4]) + one("SAVEPOINT a") + one(INSERT, MIXED[4], 1) + one(INSERT, MIXED[5], 5000) + sync(), "Z")
    same(pair, one("ROLLBACK TO a") + batch(MIXED[6:8], "j") + sync(), "Z", one("RELEASE a") + one("COMMIT") + sync(), "Z")
    finish(pair)


def test_savepoint_without_a_block(pair):
    for conn in (pair.shop, pair.plain):
        got = said(conn, batch(MIXED[:3]) + one("SAVEPOINT a") + sync(), "Z")
        assert codes(got) == ["25P01"] and got[-1] == ("Z", "I")
    finish(pair)


def test_begin_behind_others(pair):
    """PostgreSQL takes what stands before a BEGIN into the block."""
    same(pair, batch(MIXED[:3]) + one("BEGIN") + one(INSERT, MIXED[3], 1) + sync(), "Z", query("ROLLBACK"), "Z")
    same(pair, batch(MIXED[:3], "k") + flush(), "C", one("BEGIN") + one(INSERT, MIXED[3], 1) + sync(), "Z", query("COMMIT"), "Z")
    finish(pair)


def test_two_blocks_in_one_group(pair):
    same(pair, one("BEGIN") + one(INSERT, MIXED[0], 1) + one("COMMIT") + one("BEGIN") + batch(MIXED[1:4]) + one("ROLLBACK") + one("BEGIN") + batch(MIXED[4:6], "j") +
         one("COMMIT") + sync(), "Z")
    same(pair, one("BEGIN") + one(INSERT, MIXED[6], 1) + one("COMMIT") + one(INSERT, MIXED[7], 1) + one(INSERT, MIXED[8], 5000) + sync(), "Z")
    finish(pair)


def test_bind_of_what_sql_has_prepared__refused(pair):
    said(pair.shop, query("PREPARE made AS SELECT * FROM item WHERE id = $1"), "Z")
    assert codes(said(pair.shop, bind("", "made", [str(ON[2][0])]) + execute() + sync(), "Z")) == ["0A000"]
    said(pair.shop, query("DEALLOCATE made"), "Z")
    finish(pair)


def test_portals_of_several_shards(pair):
    a, b = ON[0][0], ON[1][0]
    same(pair, batch([a, b]) + sync(), "Z")
    same(pair, query("BEGIN"), "Z",
         parse("g", GET) + bind("p", "g", [str(a)]) + bind("q", "g", [str(b)]) + bind("", "g", [str(ON[2][0])]) + execute("q") + execute("p") + execute("") + describe("P", "q") +
         close("P", "p") + bind("p", "g", [str(b)]) + execute("p") + close("P", "q") + sync(), "Z", query("COMMIT"), "Z")
    same(pair, parse("h", GET) + bind("p", "h", [str(a)]) + bind("q", "h", [str(b)]) + execute("q") + execute("p") + sync(), "Z")
    finish(pair)


def test_pieces_by_flush(pair):
    """Flush gives what is done so far; Sync ends it all."""
    for k in MIXED[:4]:
        assert not codes(same(pair, one(INSERT, k, 2) + flush(), "C"))
    same(pair, one(COUNT, 1) + flush(), "C", one(EVERY, 1) + flush(), "C", sync(), "Z")
    for k in MIXED[4:8]:
        same(pair, one(INSERT, k, 2) + flush(), "C")
    same(pair, one(INSERT, MIXED[4], 2) + flush(), "E", one(INSERT, MIXED[9], 2) + sync(), "Z")
    finish(pair)


def test_query_behind_pieces(pair):
    same(pair, one(INSERT, MIXED[0], 2) + one(INSERT, MIXED[1], 2) + flush(), "C", "C")
    same(pair, query("SELECT count(*) FROM item"), "Z", one(GET, MIXED[0]) + sync(), "Z")
    finish(pair)


def test_settings_in_pieces(pair):
    same(pair, batch(MIXED[:2]) + one("SET application_name = 'pieces'") + one(INSERT, MIXED[2], 1) + sync(), "Z", query("SHOW application_name"), "Z")
    same(pair, batch(MIXED[3:5], "j") + one("SET application_name = 'other'") + one(INSERT, MIXED[2], 1) + sync(), "Z", query("SHOW application_name"), "Z")
    finish(pair)


def test_client_leaves_between_pieces__nothing_stays(pair, wait_until):
    before = pair.placed()
    for _ in range(5):
        with pair.proxy.wire("shop") as conn:
            conn.send(batch(MIXED) + flush())
            for _ in range(5):
                conn.until("C")
            conn.abort()
    wait_until(lambda: pair.fleet.all_shards("SELECT 1 FROM pg_stat_activity WHERE datname = 'shop' AND state LIKE 'idle in%'") == [], 10, "the blocks ending")
    assert pair.placed() == before
    finish(pair)


def test_lost_server_between_pieces__nothing_stays(pair):
    before = pair.placed()
    conn = pair.shop
    conn.send(batch(MIXED[:4]) + flush())
    for _ in range(4):
        conn.until("C")
    for direct in pair.direct[:2]:
        direct.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database() AND state LIKE 'idle in%'")
    with pytest.raises((pgwire.Closed, pgwire.PgError, OSError, AssertionError)):
        conn.send(sync())
        got = conn.until("ZE")
        assert got[-1].tag == "E" and got[-1].error["V"] == "FATAL"
        raise pgwire.PgError(got[-1].error)
    assert pair.placed() == before and pair.fleet.prepared() == []


def words(rng, taken):
    """One random statement of a pipeline: its messages."""
    kind = rng.randrange(12)
    k = rng.choice(rng.choice(ON)[40:60])
    if kind < 5:
        return one(INSERT, k, rng.choice([1, 2, 3, 3, 3, 5000]) if rng.random() < 0.3 else 7)
    if kind < 7:
        return one(GET, k)
    if kind == 7:
        return one(rng.choice([COUNT, EVERY]), 1)
    if kind == 8:
        return one(PAGE, k)
    if kind == 9:
        return one("DELETE FROM item WHERE id = $1 RETURNING id", k)
    if kind == 10:
        return one("SELECT 1") + flush()
    return parse("", GET) + describe("S") + bind("", "", [str(k)]) + execute()


@pytest.mark.parametrize("seed", range(12))
def test_random_pipelines(pair, seed):
    rng = random.Random(seed)
    status = "I"
    for _ in range(25):
        work = b"".join(words(rng, None) for _ in range(rng.randrange(1, 7)))
        if status == "I" and rng.random() < 0.3:
            work = one("BEGIN") + work
        elif status != "I" and rng.random() < 0.5:
            work += one(rng.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
        got = same(pair, work + sync(), "Z")
        status = got[-1][1]
        if status == "E":
            status = same(pair, query("ROLLBACK"), "Z")[-1][1]
    same(pair, query("ROLLBACK"), "Z")
    finish(pair)


def test_many_pieces__more_than_is_looked_at_together(pair):
    keys = [k for i in range(60) for k in (ON[0][i], ON[1][i], ON[2][i], ON[3][i])]
    long = "x" * 5000
    work = parse("i", "INSERT INTO item (id, name) VALUES ($1, $2)") + b"".join(again("i", k, long) for k in keys)
    same(pair, work + sync(), "Z")
    finish(pair)
    same(pair, query("BEGIN"), "Z", parse("d", "DELETE FROM item WHERE id = $1 AND name = $2") + b"".join(again("d", k, long) for k in keys) + sync(), "Z", query("COMMIT"), "Z")
    finish(pair)


def test_large_value_in_a_statement_of_several_shards(pair):
    big = "y" * 400_000
    same(pair, one(INSERT, MIXED[0], 1) + one("UPDATE item SET name = $1 WHERE grp = 1", big) + one(INSERT, MIXED[1], 1) + sync(), "Z")
    finish(pair)


# -- row limits -------------------------------------------------------------------------------------------------------


def limited(sql, rows, *params, portal=""):
    return parse("", sql) + bind(portal, "", [str(p) for p in params]) + describe("P", portal) + execute(portal, rows)


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("sql,params,total", [
    (COUNT, [1], 1), ("SELECT id FROM item WHERE id >= $1 ORDER BY id", [30], 31), ("SELECT id FROM item WHERE id >= $1 ORDER BY id LIMIT 9 OFFSET 4", [3], 9),
    ("SELECT 1 FROM item WHERE id < $1", [9], 8), ("UPDATE item SET n = 1 WHERE grp = $1 RETURNING grp", [1], 12), ("DELETE FROM item WHERE id > $1 AND id > 40", [1], 0),
    ("SELECT id FROM item WHERE id < $1", [0], 0)])
def test_row_limit(pair, sql, params, total, block):
    for rows in (1, 2, total - 1, total, total + 1, 1000):
        if rows < 1:
            continue
        if block:
            same(pair, query("BEGIN"), "Z")
        got = same(pair, limited(sql, rows, *params) + sync(), "Z")
        assert len([1 for t, _ in got if t == "D"]) == min(rows, total)
        same(pair, limited(sql, rows, *params) + one(GET, 7) + limited(sql, rows, *params, portal="p") + close("P", "p") + one(GET, 8) + sync(), "Z")
        if block:
            same(pair, one("ROLLBACK") + sync(), "Z")
    finish(pair)


def test_row_limit__a_second_execute_is_refused(pair):
    """It would have to go on where several shards have stopped."""
    for portal in ("", "p"):
        pair.shop.query("BEGIN")
        got = said(pair.shop, limited("SELECT id FROM item ORDER BY id", 5, portal=portal) + sync(), "Z", execute(portal, 5) + sync(), "Z", query("ROLLBACK"), "Z")
        assert codes(got) == ["0A000"] and [t for t, _ in got].count("D") == 5
    pair.shop.query("BEGIN")
    got = said(pair.shop, limited("SELECT id FROM item ORDER BY id", 5) + execute("", 5) + sync(), "Z", query("ROLLBACK"), "Z")
    assert codes(got) == ["0A000"] and [t for t, _ in got].count("D") == 5
    finish(pair)


# -- COPY -------------------------------------------------------------------------------------------------------------


LINES = [f"{k}\t1\t2\n".encode() for k in MIXED * 1]
COPY = "COPY item (id, grp, n) FROM STDIN"


@pytest.mark.parametrize("how", ["sync, then data", "parsed ahead", "named, all at once", "block", "flush"])
def test_copy__extended(pair, how):
    data = b"".join(copy_data(x) for x in LINES) + copy_done()
    if how == "sync, then data":
        got = same(pair, parse("", COPY) + bind("", "") + describe("P") + execute() + sync(), "G", data + sync(), "Z")
    elif how == "parsed ahead":
        got = same(pair, parse("c", COPY) + describe("S", "c") + sync(), "Z", bind("", "c") + execute() + sync(), "G", data + sync(), "Z", close("S", "c") + sync(), "Z")
    elif how == "named, all at once":
        got = same(pair, parse("c", COPY) + bind("p", "c") + execute("p") + data + sync(), "Z")
    elif how == "block":
        got = same(pair, query("BEGIN"), "Z", one(INSERT, ON[3][90], 1) + parse("", COPY) + bind("", "") + execute() + sync(), "G", data + sync(), "Z", query("COMMIT"), "Z")
    else:
        got = same(pair, parse("", COPY) + bind("", "") + execute() + flush(), "G", data + flush(), "C", sync(), "Z")
    assert not codes(got) and f"COPY {len(LINES)}" in tags(got)
    finish(pair)


@pytest.mark.parametrize("bad", [b"1\t1\t1\n", b"30000\t1\t5000\n", b"x\t1\t1\n", b"30000\n"])
def test_copy__extended__bad_row__nothing_stays(pair, bad):
    before = pair.placed()
    for at in (0, 5, len(LINES)):
        data = b"".join(copy_data(x) for x in [*LINES[:at], bad, *LINES[at:]]) + copy_done()
        got = said(pair.shop, parse("", COPY) + bind("", "") + execute() + sync(), "G", data + sync(), "Z")
        assert len(codes(got)) == 1 and got[-1] == ("Z", "I")
        assert pair.placed() == before and pair.fleet.prepared() == []
        assert query_reply(pair.shop, "SELECT count(*) FROM item") == [[str(ITEMS)]]


def test_copy__extended__what_follows_is_of_the_same_transaction(pair):
    before = pair.placed()
    data = b"".join(copy_data(x) for x in LINES) + copy_done()
    got = same(pair, parse("", COPY) + bind("", "") + execute() + data + one(INSERT, 1, 1) + sync(), "Z")
    assert codes(got) == ["23505"] and pair.placed() == before
    same(pair, parse("", COPY) + bind("", "") + execute() + data + one(INSERT, ON[2][99], 1) + sync(), "Z")
    finish(pair)


def test_copy__extended__fails_before_the_data(pair):
    for sql in ("COPY item (nothing) FROM STDIN", "COPY absent FROM STDIN"):
        got = said(pair.shop, parse("", sql) + bind("", "") + execute() + sync(), "Z")
        assert len(codes(got)) == 1 and got[-1] == ("Z", "I"), got
        assert not codes(same(pair, one(GET, 5) + sync(), "Z"))
    got = same(pair, parse("", COPY) + bind("", "") + execute() + sync(), "G", copy_data(LINES[0]) + pgwire.copy_fail("no") + sync(), "Z")
    assert codes(got) == ["57014"]
    finish(pair)


def test_copy__extended__of_a_reference_table(pair):
    same(pair, parse("", "COPY kind FROM STDIN") + bind("", "") + execute() + sync(), "G", copy_data(b"9\tnine\n") + copy_done() + sync(), "Z")
    assert [c.execute("SELECT count(*) FROM kind").fetchone()[0] for c in pair.direct] == [6, 6, 6, 6]
    finish(pair)


# -- drivers ----------------------------------------------------------------------------------------------------------


def test_psycopg__executemany_and_pipeline(pair):
    for autocommit in (True, False):
        keys = [ON[i % 4][(20 if autocommit else 60) + i] for i in range(30)]
        for conn in (pair.proxy.connect("shop"), pair.fleet.connect("single", "app")):
            conn.autocommit = autocommit
            with conn:
                conn.cursor().executemany("INSERT INTO item (id, grp) VALUES (%s, 5)", [(k,) for k in keys[:10]])
                cur = conn.cursor()
                cur.executemany("INSERT INTO item (id, grp) VALUES (%s, 6) RETURNING id", [(k,) for k in keys[10:20]], returning=True)
                got = [cur.fetchone()[0]]
                while cur.nextset():
                    got.append(cur.fetchone()[0])
                assert got == keys[10:20]
                with conn.pipeline() as p:
                    for k in keys[20:]:
                        conn.execute("INSERT INTO item (id, grp) VALUES (%s, 7)", [k])
                    found = [conn.execute("SELECT grp FROM item WHERE id = %s", [k]) for k in keys]
                    count = conn.execute("SELECT count(*) FROM item WHERE grp = 7")
                    p.sync()
                    assert [c.fetchone()[0] for c in found] == [5] * 10 + [6] * 10 + [7] * 10
                    assert count.fetchone()[0] == (10 if autocommit else 20)
    finish(pair)


def test_psycopg__transaction_in_a_pipeline(pair):
    for conn in (pair.proxy.connect("shop"), pair.fleet.connect("single", "app")):
        with conn, conn.pipeline():
            with conn.transaction():
                for s in range(4):
                    conn.execute("INSERT INTO item (id, grp) VALUES (%s, 5)", [ON[s][70]])
            with pytest.raises(psycopg.errors.UniqueViolation), conn.transaction():
                for s in range(4):
                    conn.execute("INSERT INTO item (id, grp) VALUES (%s, 5)", [ON[s][71]])
                conn.execute("INSERT INTO item (id, grp) VALUES (%s, 5)", [ON[1][70]])
    finish(pair)


def asyncpg_work(dsn):
    async def work():
        conn = await asyncpg.connect(**dsn)
        try:
            keys = [ON[i % 4][20 + i] for i in range(40)]
            for k in keys[:8]:
                await conn.execute("INSERT INTO item (id, grp) VALUES ($1, $2)", k, 3)
            await conn.executemany("INSERT INTO item (id, grp) VALUES ($1, $2)", [(k, 4) for k in keys[8:]])
            with pytest.raises(asyncpg.UniqueViolationError):
                await conn.executemany("INSERT INTO item (id, grp) VALUES ($1, $2)", [(ON[0][90], 4), (ON[1][90], 4), (keys[0], 4), (ON[2][90], 4)])
            async with conn.transaction():
                await conn.executemany("UPDATE item SET n = $2 WHERE id = $1", [(k, i) for i, k in enumerate(keys)])
            out = [await conn.fetchval("SELECT n FROM item WHERE id = $1", k) for k in keys]
            out.append(await conn.fetch("SELECT id, n FROM item WHERE id >= $1 ORDER BY id LIMIT 20", 30000))
            out.append(await conn.fetchval("SELECT count(*) FROM item WHERE grp = $1", 4))
            out.append(await conn.execute("UPDATE item SET n = 1 WHERE grp = $1", 4))
            out.append(await conn.copy_records_to_table("item", records=[(ON[s][80], 8, None) for s in range(4)], columns=["id", "grp", "name"]))
            out.append(await conn.copy_to_table("item", source=io.BytesIO(b"".join(b"%d\t9\n" % ON[s][81] for s in range(4))), columns=["id", "grp"]))
            return out
        finally:
            await conn.close()

    return asyncio.run(work())


def test_asyncpg(pair):
    here = {"host": "127.0.0.1", "user": "app", "password": conftest.APP_PASSWORD}
    shop = asyncpg_work({**here, "port": pair.proxy.port, "database": "shop"})
    plain = asyncpg_work({**here, "port": pair.fleet.port("single"), "database": "single"})
    assert shop == plain
    finish(pair)


def test_copy_binary__as_pgx_and_asyncpg_send_it(pair):
    def row(k):
        return struct.pack("!hiqii", 2, 8, k, 4, 1)

    head = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for i, sql in enumerate(["copy \"item\" ( \"id\", \"grp\" ) from stdin binary;", 'COPY "public"."item"("id", "grp") FROM STDIN WITH (FORMAT binary)',
                             "COPY item (id, grp) FROM STDIN (FORMAT 'binary')", "COPY item (id, grp) FROM STDIN WITH BINARY"]):
        data = head + b"".join(row(ON[s][40 + i]) for s in range(4)) + b"\xff\xff"
        got = same(pair, query(sql), "GE", copy_data(data[:30]) + copy_data(data[30:]) + copy_done(), "Z")
        assert tags(got) == ["COPY 4"]
        data = head + b"".join(row(ON[s][50 + i]) for s in range(4)) + b"\xff\xff"
        got = same(pair, parse("", sql) + bind("", "") + execute() + sync(), "GE", copy_data(data) + copy_done() + sync(), "Z")
        assert tags(got) == ["COPY 4"]
    finish(pair)
