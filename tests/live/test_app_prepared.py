# SPDX-License-Identifier: BSD-2-Clause
"""The extended protocol over shared servers: statements, portals, pipelines, and drivers that live by them.

Guards issue 2: a named statement works on whichever server runs it, errors are PostgreSQL's own, and a pipeline stays one.
The expected answers are PostgreSQL's: `through_and_direct` asks both.
"""
import asyncio

import asyncpg
import psycopg
import psycopg2
import pytest

import pgwire
from pgwire import Wire, bind, close, describe, error, execute, flush, parse, rows, run, sync, tags

TWO = {"proxy": {"workers": 1}, "database:app": {"default_pool_size": 2}}


def ask(c, *messages):
    c.send(*messages, sync())
    return c.until_ready()


def seen(msgs):
    """What a client sees of *msgs*: types, rows, tags, and errors without the places in PostgreSQL's source."""
    out = []
    for m in msgs:
        if m.tag == "E":
            out.append(("E", *(m.error.get(f) for f in "SCMDHP")))
        elif m.tag == "D":
            out.append(("D", m.row))
        elif m.tag in "CZ":
            out.append((m.tag, m.text))
        elif m.tag not in "NS":
            out.append((m.tag, m.body))
    return out


def test_named_statement_is_shared(new_proxy, fleet):
    proxy = new_proxy(TWO)
    sql = "SELECT $1::int * 10 + $2::int AS shared_by_name FROM (SELECT txid_current()) x"
    with proxy.wire() as a, proxy.wire() as b, proxy.wire() as c:
        clients = (a, b, c)
        for i, each in enumerate(clients):
            assert tags(ask(each, parse(f"mine{i}", sql))) == "1Z"
        for n in range(4):
            for i, each in enumerate(clients):
                msgs = ask(each, bind("", f"mine{i}", [str(n), str(i)]), describe("P"), execute())
                assert tags(msgs) == "2TDCZ"
                assert rows(msgs) == [[str(n * 10 + i)]]
                assert msgs[1].columns == [("shared_by_name", 23, 0)]
        a.query("BEGIN")
        held = a.rows("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%shared_by_name%' "
                      "AND statement NOT LIKE '%pg_prep%'")
        a.query("COMMIT")
        assert held in ([["0"]], [["1"]])


def test_one_name_two_clients(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 1}, "database:app": {"default_pool_size": 1}})
    with proxy.wire() as a, proxy.wire() as b:
        ask(a, parse("s", "SELECT 'a', $1::text FROM (SELECT txid_current()) x"))
        ask(b, parse("s", "SELECT 'b', $1::int FROM (SELECT txid_current()) x"))
        for _ in range(3):
            assert rows(ask(a, bind("", "s", ["x"]), execute())) == [["a", "x"]]
            assert rows(ask(b, bind("", "s", ["5"]), execute())) == [["b", "5"]]
        assert [m.body[2:6] for m in ask(a, describe("S", "s")) if m.tag == "t"] == [(25).to_bytes(4, "big")]
        assert [m.body[2:6] for m in ask(b, describe("S", "s")) if m.tag == "t"] == [(23).to_bytes(4, "big")]


def test_types_make_a_statement_another(new_proxy):
    proxy = new_proxy(TWO)
    with proxy.wire() as a, proxy.wire() as b:
        ask(a, parse("s", "SELECT pg_typeof($1)::text", [23]))
        ask(b, parse("s", "SELECT pg_typeof($1)::text", [1700]))
        for _ in range(2):
            assert rows(ask(a, bind("", "s", ["1"]), execute())) == [["integer"]]
            assert rows(ask(b, bind("", "s", ["1"]), execute())) == [["numeric"]]


CASES = {
    "duplicate name": [parse("s", "SELECT 1"), sync(), parse("s", "SELECT 2"), sync(), bind("", "s"), execute(), sync()],
    "unknown name": [bind("", "nope"), execute(), sync(), describe("S", "nope"), sync()],
    "unknown portal": [describe("P", "nope"), sync(), execute("nope"), sync()],
    "parse fails": [parse("s", "SELEC 1"), bind("", "s"), execute(), sync(), bind("", "s"), sync(),
                    parse("s", "SELECT 3"), bind("", "s"), execute(), sync()],
    "parse fails on a name": [parse("s", "SELECT * FROM no_such_table"), sync(), parse("s", "SELECT 3"), bind("", "s"),
                              execute(), sync()],
    "close unknown": [close("S", "nope"), close("P", "nope"), sync()],
    "close and again": [parse("s", "SELECT 1"), sync(), close("S", "s"), sync(), bind("", "s"), sync(),
                        parse("s", "SELECT 2"), bind("", "s"), execute(), sync()],
    "parse close parse in one": [parse("s", "SELECT 1"), close("S", "s"), parse("s", "SELECT 2"), bind("", "s"), execute(), sync()],
    "error in the middle": [run("SELECT 1"), run("SELECT 1/0"), run("SELECT 2"), sync(), run("SELECT 3"), sync()],
    "error then flush": [run("SELECT 1/0"), flush(), run("SELECT 2"), flush(), sync(), run("SELECT 3"), sync()],
    "parse after an error is not made": [run("SELECT 1/0"), parse("late", "SELECT 1"), sync(), bind("", "late"), execute(), sync()],
    "close after an error is not done": [parse("s", "SELECT 1"), sync(), run("SELECT 1/0"), close("S", "s"), sync(),
                                         bind("", "s"), execute(), sync()],
    "unnamed lives on": [parse("", "SELECT $1::int", [23]), sync(), bind("", "", ["4"]), execute(), sync(),
                         bind("", "", ["5"]), describe("P"), execute(), sync()],
    "unnamed dies with a query": [parse("", "SELECT 4"), sync(), pgwire.query("SELECT 1"), bind("", ""), execute(), sync()],
    "named outlives a query": [parse("s", "SELECT 4"), sync(), pgwire.query("SELECT 1"), bind("", "s"), execute(), sync()],
    "portal in parts": [pgwire.query("BEGIN"), parse("", "SELECT generate_series(1, 5)"), bind("p", ""), execute("p", 2), sync(),
                        execute("p", 2), sync(), execute("p", 2), close("P", "p"), sync(), execute("p", 2), sync(),
                        pgwire.query("COMMIT")],
    "portal ends with sync": [parse("", "SELECT 1"), bind("p", ""), sync(), execute("p"), sync()],
    "deallocate by sql": [parse("s", "SELECT 1"), sync(), pgwire.query("DEALLOCATE s"), bind("", "s"), execute(), sync(),
                          pgwire.query("DEALLOCATE s")],
    "deallocate by parse": [parse("s", "SELECT 1"), sync(), run("DEALLOCATE s"), sync(), bind("", "s"), execute(), sync()],
    "deallocate all": [parse("s", "SELECT 1"), parse("t", "SELECT 2"), sync(), pgwire.query("DEALLOCATE ALL"),
                       bind("", "s"), sync(), bind("", "t"), sync(), parse("s", "SELECT 3"), bind("", "s"), execute(), sync()],
    "deallocate unknown": [pgwire.query("DEALLOCATE nope"), pgwire.query("SELECT 1")],
    "prepare by sql, bind": [pgwire.query("PREPARE s AS SELECT 6"), bind("", "s"), execute(), sync(), pgwire.query("DEALLOCATE s")],
    "parse, execute by sql": [parse("s", "SELECT 1"), sync(), pgwire.query("EXECUTE s")],
    "wrong number of parameters": [parse("s", "SELECT $1::int", [23]), bind("", "s", []), execute(), sync(),
                                   parse("", "SELECT 1"), bind("", ""), execute(), sync()],
    "bad parameter": [run("SELECT $1::int", ["x"]), sync(), run("SELECT 1"), sync()],
    "empty": [run(""), sync(), run("  -- nothing"), sync(), pgwire.query(""), pgwire.query(";;")],
    "two statements in a parse": [run("SELECT 1; SELECT 2"), sync(), run("SELECT 1"), sync()],
    "begin in a pipeline": [run("BEGIN"), run("SELECT 1"), sync(), run("SELECT 1/0"), sync(), run("SELECT 1"), sync(),
                            run("COMMIT"), sync(), run("SELECT 2"), sync()],
    "commit twice": [run("BEGIN"), run("COMMIT"), run("SELECT 1"), sync()],
    "binary": [run("SELECT $1::int, 'é'", [b"\0\0\0\7"], [23], [1], [1]), sync()],
    "sync only": [sync(), sync()],
    "flush only": [flush(), sync()],
    "multi with error": [pgwire.query("SELECT 1; SELECT 1/0; SELECT 2"), pgwire.query("SELECT 3")],
    "in a failed block": [pgwire.query("BEGIN"), pgwire.query("SELECT 1/0"), run("SELECT 1"), sync(), parse("z", "ROLLBACK"),
                          bind("", "z"), execute(), sync(), bind("", "z"), sync(), pgwire.query("SELECT 9")],
}


AT_ONCE, BOTH = ("at once",), ("at once", "one by one")
# What is known to differ, and where; strict, so that a repair has to take its line out.
DIFFER = {}


def cases():
    for pace in BOTH:
        for name, messages in CASES.items():
            where, why = DIFFER.get(name, ((), ""))
            marks = [pytest.mark.xfail(strict=True, reason=why)] if pace in where else []
            yield pytest.param(messages, pace, id=f"{name}, {pace}".replace(",", "").replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("messages, pace", cases())
def test_as_postgres_answers(proxy, fleet, messages, pace):
    """The same bytes to PostgreSQL and to pgspan: the same messages back."""
    def answers(c):
        with c:
            wanted = sum(m[:1] in (b"S", b"Q") for m in messages)
            got = []
            if pace == "at once":
                c.send(*messages)
                for _ in range(wanted):
                    got += c.until_ready()
            else:
                for m in messages:
                    c.send(m)
                    if m[:1] in (b"S", b"Q"):
                        got += c.until_ready()
            return seen(got)

    direct = Wire.login(port=fleet.port("app-primary"), user="app", password="app-secret", database="app")
    assert answers(proxy.wire(timeout=10)) == answers(direct)




def test_many_statements_in_one_pipeline(proxy):
    with proxy.wire(timeout=5) as c:
        c.send(*(run("SELECT $1::int + 1", [str(i)]) for i in range(2000)), sync())
        msgs = c.until_ready()
        assert rows(msgs) == [[str(i + 1)] for i in range(2000)]
        assert tags(msgs) == "12TDC" * 2000 + "Z"


def test_many_syncs_in_one_pipeline(proxy):
    with proxy.wire(timeout=5) as c:
        c.send(*(run("SELECT $1::int + 1", [str(i)]) + sync() for i in range(2000)))
        got = []
        for _ in range(2000):
            got += rows(c.until_ready())
        assert got == [[str(i + 1)] for i in range(2000)]


def test_pipeline_is_one_transaction(new_proxy, fleet):
    """A read first, then a write, then an error: all on the primary, and nothing stays."""
    fleet.sql("app-primary", "DROP TABLE IF EXISTS prep_pipe; CREATE TABLE prep_pipe (n int); GRANT ALL ON prep_pipe TO app")
    proxy = new_proxy(TWO)
    with proxy.wire() as c:
        msgs = ask(c, run("SELECT 1"), run("INSERT INTO prep_pipe VALUES (1)"), run("SELECT 1/0"))
        assert error(msgs) == "22012"
        msgs = ask(c, run("SELECT pg_is_in_recovery()"), run("INSERT INTO prep_pipe VALUES (2)"), run("SELECT n FROM prep_pipe"))
        assert rows(msgs) == [["f"], ["2"]]
    assert fleet.sql("app-primary", "SELECT n FROM prep_pipe") == [(2,)]
    fleet.sql("app-primary", "DROP TABLE prep_pipe")


def test_changed_table_is_noticed(new_proxy, fleet):
    """A cached plan whose result changed is made anew instead of failing for ever (DDL through pgspan)."""
    proxy = new_proxy(TWO)
    with proxy.wire(user="postgres") as a, proxy.wire(user="postgres") as b:
        a.query("DROP TABLE IF EXISTS prep_ddl")
        a.query("CREATE TABLE prep_ddl (n int)")
        a.query("INSERT INTO prep_ddl VALUES (1)")
        ask(b, parse("s", "SELECT * FROM prep_ddl, (SELECT txid_current()) x(y)"))
        assert len(rows(ask(b, bind("", "s"), execute()))[0]) == 2
        a.query("ALTER TABLE prep_ddl ADD m int")
        msgs = ask(b, parse("t", "SELECT *, 1 FROM prep_ddl"), bind("", "t"), execute())
        assert error(msgs) is None
        ask(b, close("S", "s"))
        msgs = ask(b, parse("s", "SELECT * FROM prep_ddl, (SELECT txid_current()) x(y)"), bind("", "s"), execute())
        assert error(msgs) is None and len(rows(msgs)[0]) == 3
        a.query("DROP TABLE prep_ddl")


# -- drivers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(fleet):
    fleet.sql("app-primary", "DROP TABLE IF EXISTS prep_driver; CREATE TABLE prep_driver (id int PRIMARY KEY, t text); "
              "GRANT ALL ON prep_driver TO app")
    yield "prep_driver"
    fleet.sql("app-primary", "DROP TABLE prep_driver")


def test_psycopg_pipeline(proxy, fleet, table):
    fleet.sql("app-primary", f"TRUNCATE {table}")
    with proxy.connect(prepare_threshold=0) as conn:
        with conn.pipeline():
            for i in range(100):
                conn.execute(f"INSERT INTO {table} VALUES (%s, %s)", [i, f"t{i}"])
            assert conn.execute(f"SELECT count(*), sum(id), txid_current() > 0 FROM {table}").fetchone() == (100, 4950, True)
        with pytest.raises(psycopg.errors.UniqueViolation):
            with conn.pipeline() as p:
                conn.execute(f"INSERT INTO {table} VALUES (200, 'x')")
                p.sync()
                conn.execute(f"INSERT INTO {table} VALUES (200, 'y')")
                conn.execute(f"INSERT INTO {table} VALUES (201, 'z')")
                p.sync()
    assert fleet.value("app-primary", f"SELECT string_agg(id::text, ',') FROM {table} WHERE id >= 100") == "200"


def test_psycopg_prepares(proxy, fleet, table):
    fleet.sql("app-primary", f"TRUNCATE {table}")
    with proxy.connect(autocommit=False, prepare_threshold=1) as conn, conn.cursor() as cur:
        for i in range(20):
            cur.execute(f"INSERT INTO {table} VALUES (%s, %s) RETURNING id", [i, "x"])
            assert cur.fetchone() == (i,)
            conn.commit()
        cur.executemany(f"UPDATE {table} SET t = %s WHERE id = %s", [(str(i), i) for i in range(20)])
        conn.commit()
        cur.execute(f"SELECT id, t FROM {table} WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [[3, 4]])
        assert cur.fetchall() == [(3, "3"), (4, "4")]
        with pytest.raises(psycopg.errors.UniqueViolation):
            cur.execute(f"INSERT INTO {table} VALUES (3, 'again')")
        conn.rollback()
        with conn.transaction():
            cur.execute(f"DELETE FROM {table} WHERE id < 10")
            assert cur.rowcount == 10
        with conn.cursor("named") as named:
            named.itersize = 3
            named.execute(f"SELECT id FROM {table} ORDER BY id")
            assert [r[0] for r in named] == list(range(10, 20))


def test_psycopg2(proxy, fleet, table):
    fleet.sql("app-primary", f"TRUNCATE {table}")
    conn = psycopg2.connect(proxy.dsn())
    with conn, conn.cursor() as cur:
        cur.execute(f"INSERT INTO {table} SELECT g, 'r' || g FROM generate_series(1, 50) g")
        assert cur.rowcount == 50
    with conn, conn.cursor("server_side") as cur:
        cur.execute(f"SELECT id FROM {table} ORDER BY id")
        assert [r[0] for r in cur] == list(range(1, 51))
    with pytest.raises(psycopg2.errors.UniqueViolation):
        with conn, conn.cursor() as cur:
            cur.execute(f"INSERT INTO {table} VALUES (1, 'x')")
    with conn, conn.cursor() as cur:
        cur.execute(f"DELETE FROM {table} RETURNING id")
        assert len(cur.fetchall()) == 50
    conn.close()



def test_asyncpg(proxy, fleet, table):
    fleet.sql("app-primary", f"TRUNCATE {table}")

    async def work(n):
        conn = await asyncpg.connect(host="127.0.0.1", port=proxy.port, user="app", password="app-secret", database="app",
                                     timeout=10, command_timeout=10)
        try:
            for i in range(10):
                await conn.execute(f"INSERT INTO {table} VALUES ($1, $2)", n * 100 + i, f"a{i}")
            async with conn.transaction():
                found = await conn.fetch(f"SELECT id, t FROM {table} WHERE id / 100 = $1 ORDER BY id", n)
                assert [tuple(r) for r in found] == [(n * 100 + i, f"a{i}") for i in range(10)]
                async with conn.transaction():
                    assert await conn.fetchval(f"SELECT count(*) FROM {table} WHERE id / 100 = $1", n) == 10
            with pytest.raises(asyncpg.UniqueViolationError):
                await conn.execute(f"INSERT INTO {table} VALUES ($1, 'x')", n * 100)
            statement = await conn.prepare("SELECT $1::int * 2")
            assert [await statement.fetchval(i) for i in range(5)] == [0, 2, 4, 6, 8]
            assert await conn.copy_records_to_table(table, records=[(n * 100 + 50, "c")], columns=["id", "t"]) == "COPY 1"
        finally:
            conn.terminate()  # close() would wait for ever for an answer that does not come

    async def both():
        await asyncio.wait_for(asyncio.gather(*(work(n) for n in range(1, 21))), 60)

    asyncio.run(both())
    assert fleet.value("app-primary", f"SELECT count(*) FROM {table}") == 220
