# SPDX-License-Identifier: BSD-2-Clause
"""asyncpg in transaction mode, with its cache of prepared statements on: everything it does is a named statement.

Each test runs directly and through pgspan (tests/live/drivers.py).
"""
import asyncio
import datetime as dt
import decimal
import uuid

import asyncpg
import pytest

from drivers import _places, limit, place  # noqa: F401  (fixtures)



async def connect(place, keywords=None, **options):
    k = keywords or place.app
    return await asyncpg.connect(host=k["host"], port=k["port"], user=k["user"], password=k["password"], database=k["dbname"],
                                 timeout=10, command_timeout=20, **options)


@pytest.fixture
def run(place):
    """Runs an async function with a connection that has an empty table drva."""
    def in_loop(work, **options):
        async def whole():
            conn = await connect(place, **options)
            try:
                await conn.execute("CREATE TABLE IF NOT EXISTS drva (id int PRIMARY KEY, t text)")
                await conn.execute("TRUNCATE drva")
                return await work(conn)
            finally:
                conn.terminate()
        return asyncio.run(asyncio.wait_for(whole(), 25))
    return in_loop


def test_types(run):
    async def work(conn):
        for _ in range(3):
            for kind, value in [("int", 5), ("int8", 2**62), ("float8", 0.1), ("numeric", decimal.Decimal("1.50")), ("text", "ü'\\"),
                                ("bytea", b"\x00\xff"), ("date", dt.date(2024, 2, 29)), ("timestamp", dt.datetime(1999, 1, 2, 3, 4, 5, 6)),
                                ("interval", dt.timedelta(days=1, seconds=2)), ("uuid", uuid.UUID(int=5)), ("bool", True),
                                ("int[]", [1, None, 3]), ("jsonb", '{"a": 1}'), ("text", None)]:
                assert await conn.fetchval(f"SELECT $1::{kind}", value) == value
        row = await conn.fetchrow("SELECT (1, 'x')::record, ARRAY[ROW(1, 2)], '(3,4)'::point, '[1,5)'::int4range")
        assert (tuple(row[0]), row[2], row[3]) == ((1, "x"), asyncpg.Point(3, 4), asyncpg.Range(1, 5))
    run(work)


def test_types_looked_up_in_the_catalog(run):
    """An enum's and a composite's codecs come from asyncpg's own introspection, in a statement with a big recursive query."""
    async def work(conn):
        await conn.execute("DROP TYPE IF EXISTS drva_mood, drva_pair")
        await conn.execute("CREATE TYPE drva_mood AS ENUM ('sad', 'glad'); CREATE TYPE drva_pair AS (a int, b drva_mood)")
        assert await conn.fetchval("SELECT $1::drva_mood", "glad") == "glad"
        assert tuple(await conn.fetchval("SELECT $1::drva_pair", (1, "sad"))) == (1, "sad")
        assert await conn.fetchval("SELECT $1::drva_mood[]", ["sad"]) == ["sad"]
        await conn.execute("DROP TYPE drva_pair; DROP TYPE drva_mood")
    run(work)


def test_transactions(run):
    async def work(conn):
        async with conn.transaction():
            await conn.execute("INSERT INTO drva VALUES ($1, $2)", 1, "one")
            with pytest.raises(asyncpg.UniqueViolationError):
                async with conn.transaction():
                    await conn.execute("INSERT INTO drva VALUES ($1, $2)", 1, "twice")
            assert await conn.fetchval("SELECT count(*) FROM drva") == 1
        with pytest.raises(ZeroDivisionError):
            async with conn.transaction(isolation="serializable"):
                assert await conn.fetchval("SHOW transaction_isolation") == "serializable"
                await conn.execute("DELETE FROM drva")
                raise ZeroDivisionError
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with conn.transaction(readonly=True):
                await conn.execute("DELETE FROM drva")
        assert await conn.fetchval("SELECT count(*) FROM drva") == 1
        assert not conn.is_in_transaction()
    run(work)


@pytest.mark.parametrize("rows", [10, 500, 5000])
def test_executemany(run, rows):
    async def work(conn):
        await conn.executemany("INSERT INTO drva VALUES ($1, $2)", [(i, f"r{i}") for i in range(rows)])
        assert await conn.fetchval("SELECT count(*) FROM drva") == rows
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.executemany("INSERT INTO drva VALUES ($1, 'again')", [(i,) for i in range(rows + 5, 0, -1)])
        assert await conn.fetchval("SELECT count(*) FROM drva") == rows
    run(work)


def test_cursors(run):
    async def work(conn):
        async with conn.transaction():
            seen = [r[0] async for r in conn.cursor("SELECT generate_series(1, $1::int)", 250, prefetch=40)]
            cur = await conn.cursor("SELECT generate_series(1, 100)")
            first = await cur.fetch(3)
            await cur.forward(10)
            return seen == list(range(1, 251)), [r[0] for r in first], await cur.fetchrow()
    assert run(work) == (True, [1, 2, 3], (14,))


def test_prepared_statements(run):
    async def work(conn):
        statement = await conn.prepare("SELECT $1::int * 2 AS a, $2::text AS b")
        assert [p.name for p in statement.get_parameters()] == ["int4", "text"]
        assert [a.name for a in statement.get_attributes()] == ["a", "b"]
        assert [await statement.fetchval(i, "x") for i in range(50)] == [2 * i for i in range(50)]
        with pytest.raises(asyncpg.UndefinedTableError):
            await conn.prepare("SELECT * FROM nowhere")
        assert await conn.fetchval("SELECT 1") == 1
    run(work)


def test_statement_cache_that_overflows(run):
    async def work(conn):
        return [await conn.fetchval(f"SELECT $1::int + {i % 9}", i) for i in range(90)] == [i + i % 9 for i in range(90)]
    assert run(work, statement_cache_size=4)


def test_statement_after_ddl(run):
    async def work(conn):
        await conn.execute("DROP TABLE IF EXISTS drva_ddl")
        await conn.execute("CREATE TABLE drva_ddl (a int)")
        await conn.execute("INSERT INTO drva_ddl VALUES (1)")
        before = [tuple(await conn.fetchrow("SELECT * FROM drva_ddl")) for _ in range(2)]
        await conn.execute("ALTER TABLE drva_ddl ADD b int DEFAULT 2")
        after = [tuple(await conn.fetchrow("SELECT * FROM drva_ddl")) for _ in range(2)]
        await conn.execute("DROP TABLE drva_ddl")
        return before, after
    assert run(work) == ([(1,), (1,)], [(1, 2), (1, 2)])  # asyncpg prepares anew when it is told 0A000


def test_copy(run, tmp_path):
    async def work(conn):
        assert await conn.copy_records_to_table("drva", records=[(i, f"row\t{i}") for i in range(5000)]) == "COPY 5000"
        out = tmp_path / "out"
        assert await conn.copy_from_query("SELECT * FROM drva WHERE id < $1 ORDER BY id", 3, output=str(out)) == "COPY 3"
        assert out.read_text() == "0\trow\\t0\n1\trow\\t1\n2\trow\\t2\n"
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.copy_records_to_table("drva", records=[(1, "x")])

        async def broken():
            yield b"9000\tx\n"
            raise KeyError("source broke")
        with pytest.raises(KeyError):
            await conn.copy_to_table("drva", source=broken())
        assert await conn.fetchval("SELECT count(*) FROM drva") == 5000
    run(work)


def test_listen(place, run):
    async def work(conn):
        seen = asyncio.Queue()
        await conn.add_listener("drva", lambda *a: seen.put_nowait(a[3]))
        other = await connect(place)
        for i in range(3):
            await other.execute("SELECT pg_notify('drva', $1)", f"n{i}")
        other.terminate()
        got = [await asyncio.wait_for(seen.get(), 10) for _ in range(3)]
        await conn.remove_listener("drva", conn.is_closed)
        return got
    assert run(work) == ["n0", "n1", "n2"]


def test_errors_and_notices(run):
    async def work(conn):
        notices = []
        conn.add_log_listener(lambda _c, m: notices.append(m.message))
        await conn.execute("DO $$ BEGIN RAISE NOTICE 'one'; END $$")
        with pytest.raises(asyncpg.NotNullViolationError) as caught:
            await conn.execute("INSERT INTO drva VALUES ($1)", None)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await conn.fetch("SELECT 1 / $1::int", 0)
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await conn.execute("SELEKT 1; SELECT 2")
        await asyncio.sleep(0)
        return caught.value.column_name, notices, await conn.fetchval("SELECT 1")
    assert run(work) == ("id", ["one"], 1)


def test_cancelled_by_its_timeout(run):
    async def work(conn):
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await conn.fetch("SELECT pg_sleep(20)", timeout=0.2)
            assert await conn.fetchval("SELECT 1") == 1
        task = asyncio.ensure_future(conn.execute("SELECT pg_sleep(20)"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await conn.fetchval("SELECT 2")
    assert run(work) == 2


def test_settings(run):
    async def work(conn):
        await conn.execute("SET work_mem = '7MB'")
        sql = "SELECT current_setting('application_name') || current_setting('statement_timeout') || current_setting('work_mem')"
        return {await conn.fetchval(sql) for _ in range(30)}
    assert run(work, server_settings={"application_name": "mine", "statement_timeout": "12345"}) == {"mine12345ms7MB"}


def test_pool_of_connections(place):
    """acquire() and release() with the driver's own reset query (advisory unlock, CLOSE ALL, UNLISTEN, RESET ALL)."""
    async def whole():
        k = place.app
        async with asyncpg.create_pool(host=k["host"], port=k["port"], user=k["user"], password=k["password"], database=k["dbname"],
                                       min_size=2, max_size=10, command_timeout=20) as pool:
            async def client(n):
                wrong = 0
                for i in range(15):
                    async with pool.acquire() as conn:
                        async with conn.transaction():
                            wrong += await conn.fetchval(f"SELECT $1::int * {n % 7}", i) != i * (n % 7)
                return wrong
            return sum(await asyncio.gather(*(client(n) for n in range(20))))
    assert asyncio.run(asyncio.wait_for(whole(), 25)) == 0


def test_many_clients_copy_at_once(place):
    async def client(n):
        conn = await connect(place)
        try:
            for i in range(5):
                await conn.copy_records_to_table("drva", records=[(n * 100 + i, "c")])
                await conn.execute("UPDATE drva SET t = $2 WHERE id = $1", n * 100 + i, "u")
            return await conn.fetchval("SELECT count(*) FROM drva WHERE id / 100 = $1 AND t = 'u'", n)
        finally:
            conn.terminate()

    async def whole():
        conn = await connect(place)
        await conn.execute("CREATE TABLE IF NOT EXISTS drva (id int PRIMARY KEY, t text)")
        await conn.execute("TRUNCATE drva")
        conn.terminate()
        return await asyncio.gather(*(client(n) for n in range(12)))
    assert asyncio.run(asyncio.wait_for(whole(), 25)) == [5] * 12


def test_terminated_and_connected_again(place, run):
    async def work(conn):
        with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError)):
            async with conn.transaction():
                await conn.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)")
        again = await connect(place)
        got = await again.fetchval("SELECT 1")
        again.terminate()
        return got
    assert run(work) == 1


@pytest.fixture
def run_shop(place):
    def in_loop(work):
        async def whole():
            conn = await connect(place, place.shop)
            try:
                await conn.execute("DROP TABLE IF EXISTS drv_orders")
                await conn.execute("CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))")
                await conn.execute("INSERT INTO drv_orders VALUES " + ",".join(f"({c}, 0, 'o{c}')" for c in range(40)))
                return await work(conn)
            finally:
                conn.terminate()
        return asyncio.run(asyncio.wait_for(whole(), 25))
    return in_loop


def test_shop_insert(run_shop):
    async def work(conn):
        return [await conn.execute("INSERT INTO drv_orders VALUES ($1, $2, $3)", c, 1, f"o{c}") for c in range(40)]
    assert run_shop(work) == ["INSERT 0 1"] * 40


def test_shop_keyed(run_shop):
    async def work(conn):
        assert [await conn.fetchval("SELECT what FROM drv_orders WHERE customer = $1", c) for c in range(40)] == [f"o{c}" for c in range(40)]
        async with conn.transaction():
            for c in range(20):
                assert await conn.execute("UPDATE drv_orders SET what = 'tx' WHERE customer = $1", c) == "UPDATE 1"
        with pytest.raises(asyncpg.UniqueViolationError):
            await conn.execute("INSERT INTO drv_orders VALUES ($1, 0, '')", 7)
        return await conn.fetchval("SELECT count(*) FROM drv_orders WHERE what = $1", "tx"), \
            [r[0] for r in await conn.fetch("SELECT customer FROM drv_orders ORDER BY customer DESC LIMIT $1", 3)]
    assert run_shop(work) == (20, [39, 38, 37])


def test_shop_copy(run_shop):
    async def work(conn):
        await conn.copy_to_table("drv_orders", source=_source(b"".join(b"%d\t0\tc\n" % i for i in range(1000, 3000))))
        return await conn.fetchval("SELECT count(*) FROM drv_orders")
    assert run_shop(work) == 2040


def test_shop_binary_copy(run_shop):
    async def work(conn):
        await conn.copy_records_to_table("drv_orders", records=[(i, 5, "b") for i in range(500)])
        return await conn.fetchval("SELECT count(*) FROM drv_orders")
    assert run_shop(work) == 540


async def _source(data):
    yield data


def test_shop_executemany(run_shop):
    async def work(conn):
        await conn.executemany("INSERT INTO drv_orders VALUES ($1, $2, $3)", [(c, 1, "m") for c in range(40)])
        return await conn.fetchval("SELECT count(*) FROM drv_orders")
    assert run_shop(work) == 80
