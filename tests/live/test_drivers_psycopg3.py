# SPDX-License-Identifier: BSD-2-Clause
"""psycopg 3 in transaction mode: its own prepared statements, pipelines, server-side cursors, COPY, LISTEN, cancel.

Each test runs directly and through pgspan (tests/live/drivers.py).
"""
import asyncio
import datetime as dt
import decimal
import ipaddress
import threading
import time
import uuid

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from drivers import _places, limit, place  # noqa: F401  (fixtures)



@pytest.fixture
def app(place):
    with psycopg.connect(place.dsn(place.app), autocommit=True, prepare_threshold=1) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS drv3 (id int PRIMARY KEY, t text, n numeric CHECK (n < 1000))")
        conn.execute("TRUNCATE drv3")
        yield conn


@pytest.fixture
def shop(place):
    with psycopg.connect(place.dsn(place.shop), autocommit=True, prepare_threshold=1) as conn:
        conn.execute("DROP TABLE IF EXISTS drv_orders")
        conn.execute("CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))")
        yield conn


VALUES = [
    ("bool", True), ("int2", 32767), ("int4", -2147483648), ("int8", 2**63 - 1), ("float8", 0.1), ("float4", 0.5),
    ("numeric", decimal.Decimal("12345678901234567890.123456789")), ("text", "Zoë's \\ \"quote\" \n\t ünïcode 漢字"),
    ("bytea", bytes(range(256))), ("date", dt.date(2024, 2, 29)), ("time", dt.time(23, 59, 59, 999999)),
    ("timestamp", dt.datetime(1999, 12, 31, 23, 59, 59, 1)),
    ("timestamptz", dt.datetime(2024, 6, 1, 12, 0, tzinfo=dt.timezone.utc)),
    ("interval", dt.timedelta(days=3, seconds=7, microseconds=11)),
    ("uuid", uuid.UUID("0123456789abcdef0123456789abcdef")), ("inet", ipaddress.ip_address("192.168.0.1")),
    ("int4[]", [1, 2, None, 4]), ("text[]", ["a", 'b"c', "", None]), ("text", None),
]


@pytest.mark.parametrize("binary", [False, True])
def test_types(app, binary):
    cur = app.cursor(binary=binary)
    for _ in range(3):  # prepared on the second use
        for name, value in VALUES:
            assert cur.execute(f"SELECT %s::{name}", [value]).fetchone()[0] == value, name
    assert cur.execute("SELECT %s::jsonb", [Jsonb({"a": [1, None, "x"]})]).fetchone()[0] == {"a": [1, None, "x"]}


def test_many_parameters_and_wide_values(app):
    numbers = list(range(20000))
    marks = ",".join(["(%s::int)"] * len(numbers))
    assert app.execute(f"SELECT sum(column1), count(*) FROM (VALUES {marks}) v", numbers).fetchone() == (sum(numbers), 20000)
    wide = "x" * 3_000_000
    assert app.execute("SELECT %s::text", [wide]).fetchone()[0] == wide


def test_transactions(app):
    with app.transaction():
        app.execute("INSERT INTO drv3 VALUES (1, 'kept')")
        with pytest.raises(errors.UniqueViolation):
            with app.transaction():
                app.execute("INSERT INTO drv3 VALUES (2, 'undone')")
                app.execute("INSERT INTO drv3 VALUES (1, 'twice')")
        with app.transaction(force_rollback=True):
            app.execute("INSERT INTO drv3 VALUES (3, 'undone')")
        assert app.execute("SELECT array_agg(id) FROM drv3").fetchone()[0] == [1]
    with pytest.raises(ZeroDivisionError):
        with app.transaction():
            app.execute("DELETE FROM drv3")
            raise ZeroDivisionError
    assert app.execute("SELECT id, t FROM drv3").fetchall() == [(1, "kept")]


def test_transaction_status_without_autocommit(place, app):
    with psycopg.connect(place.dsn(place.app)) as conn:
        status = []
        conn.execute("INSERT INTO drv3 VALUES (7, 'seven')")
        status.append(conn.info.transaction_status.name)
        with pytest.raises(errors.UndefinedTable):
            conn.execute("SELECT * FROM no_such_table")
        status.append(conn.info.transaction_status.name)
        with pytest.raises(errors.InFailedSqlTransaction):
            conn.execute("SELECT 1")
        conn.rollback()
        status.append(conn.info.transaction_status.name)
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        conn.read_only = True
        assert conn.execute("SHOW transaction_isolation").fetchone()[0] == "serializable"
        with pytest.raises(errors.ReadOnlySqlTransaction):
            conn.execute("INSERT INTO drv3 VALUES (8, 'no')")
        conn.rollback()
        assert status == ["INTRANS", "INERROR", "IDLE"]
    assert app.execute("SELECT count(*) FROM drv3").fetchone()[0] == 0


def test_executemany(app):
    cur = app.cursor()
    cur.executemany("INSERT INTO drv3 VALUES (%s, %s) RETURNING id", [(i, f"r{i}") for i in range(300)], returning=True)
    got = []
    while True:
        got.append(cur.fetchone()[0])
        if not cur.nextset():
            break
    assert got == list(range(300))
    with pytest.raises(errors.UniqueViolation):
        cur.executemany("INSERT INTO drv3 VALUES (%s, %s)", [(1000, "new"), (5, "old"), (1001, "never")])
    # In autocommit each row before the failing one is kept or not as PostgreSQL's implicit transaction says.
    assert app.execute("SELECT count(*) FROM drv3 WHERE id >= 1000").fetchone()[0] == 0
    app.cursor().executemany("UPDATE drv3 SET t = %s WHERE id = %s", [(f"u{i}", i) for i in range(300)])
    assert app.execute("SELECT count(*) FROM drv3 WHERE t = 'u' || id").fetchone()[0] == 300


def test_pipeline(app):
    with app.pipeline():
        cursors = [app.execute("SELECT %s::int * 2", [i]) for i in range(500)]
    assert [c.fetchone()[0] for c in cursors] == [i * 2 for i in range(500)]
    with app.pipeline() as p:
        for i in range(100):
            app.execute("INSERT INTO drv3 VALUES (%s, 'p')", [i])
        p.sync()
        inside = app.execute("SELECT count(*) FROM drv3").fetchone()[0]
    assert inside == 100


def test_pipeline_with_errors(app):
    with pytest.raises(errors.DivisionByZero):
        with app.pipeline():
            app.execute("INSERT INTO drv3 VALUES (1, 'spoilt')")
            app.execute("SELECT 1 / %s::int", [0])
            app.execute("INSERT INTO drv3 VALUES (2, 'skipped')")
    assert app.execute("SELECT count(*) FROM drv3").fetchone()[0] == 0
    with app.pipeline() as p:
        app.execute("INSERT INTO drv3 VALUES (1, 'good')")
        p.sync()
        with pytest.raises(errors.DivisionByZero):
            app.execute("SELECT 1 / %s::int", [0]).fetchone()
        with pytest.raises(psycopg.OperationalError):  # PipelineAborted
            app.execute("SELECT 1").fetchone()
        p.sync()
        assert app.execute("SELECT %s::int", [5]).fetchone()[0] == 5
    assert app.execute("SELECT id, t FROM drv3").fetchall() == [(1, "good")]


def test_pipeline_with_transactions(app):
    with app.pipeline():
        with app.transaction():
            app.execute("INSERT INTO drv3 VALUES (1, 'a')")
            with app.transaction(force_rollback=True):
                app.execute("INSERT INTO drv3 VALUES (2, 'b')")
            seen = app.execute("SELECT count(*) FROM drv3")
        after = app.execute("SELECT count(*) FROM drv3")
        assert (seen.fetchone()[0], after.fetchone()[0]) == (1, 1)


def test_server_side_cursor(app):
    app.execute("INSERT INTO drv3 SELECT g, 'r' || g FROM generate_series(1, 1000) g")
    with app.transaction(), app.cursor("named") as cur:
        cur.itersize = 37
        cur.execute("SELECT id FROM drv3 WHERE id > %s ORDER BY id", [10])
        assert [r[0] for r in cur] == list(range(11, 1001))
    with app.transaction(), app.cursor("scrolling", scrollable=True) as cur:
        cur.execute("SELECT id FROM drv3 ORDER BY id")
        cur.scroll(500, mode="absolute")
        first = cur.fetchone()
        cur.scroll(-10)
        assert (first, cur.fetchone()) == ((501,), (492,))


def test_cursor_with_hold(app):
    app.execute("INSERT INTO drv3 SELECT g, 'r' FROM generate_series(1, 100) g")
    with app.cursor("kept", withhold=True) as cur:
        cur.execute("SELECT id FROM drv3 ORDER BY id")
        assert cur.fetchmany(3) == [(1,), (2,), (3,)]
        assert app.execute("SELECT 1").fetchone() == (1,)
        assert cur.fetchmany(2) == [(4,), (5,)]
    with pytest.raises(errors.InvalidCursorName):
        app.execute("FETCH 1 FROM kept")


def test_stream_by_single_rows(app):
    assert sum(r[0] for r in app.cursor().stream("SELECT g FROM generate_series(1, %s) g", [20000])) == 200010000
    for row in app.cursor().stream("SELECT generate_series(1, 100000)"):  # left in the middle
        break
    assert app.execute("SELECT 7").fetchone() == (7,)


def test_copy(app):
    cur = app.cursor()
    with cur.copy("COPY drv3 (id, t) FROM STDIN") as copy:
        for i in range(20000):
            copy.write_row((i, f"row\t{i}\\ ü" if i % 2 else None))
    assert cur.rowcount == 20000
    with cur.copy("COPY (SELECT id, t FROM drv3 ORDER BY id) TO STDOUT") as copy:
        got = [r for r in copy.rows()]
    assert len(got) == 20000 and got[1] == ("1", "row\t1\\ ü") and got[2] == ("2", None)
    app.execute("TRUNCATE drv3")
    with cur.copy("COPY drv3 (id, t, n) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text", "numeric"])
        for i in range(1000):
            copy.write_row((i, "b", decimal.Decimal(i) / 8))
    with cur.copy("COPY (SELECT id, n FROM drv3 ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
        copy.set_types(["int4", "numeric"])
        assert [r for r in copy.rows()] == [(i, decimal.Decimal(i) / 8) for i in range(1000)]


def test_copy_that_fails(app):
    cur = app.cursor()
    with pytest.raises(errors.InvalidTextRepresentation) as caught:
        with cur.copy("COPY drv3 (id, t) FROM STDIN") as copy:
            for i in range(5000):
                copy.write(f"{i}\tx\n" if i != 3000 else "not a number\tx\n")
    assert caught.value.diag.context.startswith("COPY drv3, line 3001, column id")
    with pytest.raises((KeyError, errors.QueryCanceled)):
        with cur.copy("COPY drv3 (id, t) FROM STDIN") as copy:
            copy.write_row((1, "x"))
            raise KeyError("the client's own trouble")
    with pytest.raises(errors.UndefinedTable):
        with cur.copy("COPY no_such_table FROM STDIN") as copy:
            copy.write_row((1,))
    assert app.execute("SELECT count(*) FROM drv3").fetchone()[0] == 0


def test_errors_have_all_fields(app):
    with pytest.raises(errors.CheckViolation) as caught:
        app.execute("INSERT INTO drv3 (id, n) VALUES (%s, %s)", [1, 5000])
    diag = caught.value.diag
    assert (diag.sqlstate, diag.table_name, diag.constraint_name, diag.schema_name) == ("23514", "drv3", "drv3_n_check", "public")
    with pytest.raises(errors.SyntaxError) as caught:
        app.execute("SELECT %s::int, FROM nothing", [1])
    assert caught.value.diag.statement_position == "17"
    with pytest.raises(errors.InvalidTextRepresentation):
        app.execute("SELECT %s::int", ["x"])
    with pytest.raises(errors.RaiseException) as caught:
        app.execute("DO $$ BEGIN RAISE EXCEPTION 'mine' USING HINT = 'a hint', DETAIL = 'a detail'; END $$")
    assert (caught.value.diag.message_hint, caught.value.diag.message_detail) == ("a hint", "a detail")
    notices = []
    app.add_notice_handler(lambda d: notices.append(d.message_primary))
    app.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE NOTICE 'two'; END $$")
    assert notices == ["one", "two"]


def test_listen(place, app):
    got = []
    with psycopg.connect(place.dsn(place.app), autocommit=True) as listener:
        listener.execute("LISTEN drv3_news")
        listener.add_notify_handler(lambda n: got.append(n.payload))
        for i in range(5):
            app.execute("SELECT pg_notify('drv3_news', %s)", [f"n{i}"])
        app.execute("NOTIFY drv3_other, 'no'")
        deadline = time.monotonic() + 10
        while len(got) < 5 and time.monotonic() < deadline:
            listener.execute("SELECT 1")
            time.sleep(0.02)
        listener.execute("UNLISTEN *")
        app.execute("NOTIFY drv3_news, 'late'")
        listener.execute("SELECT 1")
    assert got == [f"n{i}" for i in range(5)]


def test_notification_of_an_idle_connection(place, app):
    with psycopg.connect(place.dsn(place.app), autocommit=True) as listener:
        listener.execute("LISTEN drv3_idle")
        threading.Timer(0.2, lambda: app.execute("NOTIFY drv3_idle, 'hello'")).start()
        note = next(iter_notifies(listener, 10))
        assert (note.channel, note.payload) == ("drv3_idle", "hello")


def iter_notifies(conn, seconds):
    """conn.notifies() with a limit, which psycopg 3.1 has not."""
    threading.Timer(seconds, conn.close).start()
    return conn.notifies()


def test_cancel(app):
    for _ in range(3):
        timer = threading.Timer(0.2, app.cancel)
        timer.start()
        with pytest.raises(errors.QueryCanceled):
            app.execute("SELECT pg_sleep(%s)", [20])
        timer.join()
        assert app.execute("SELECT %s::int", [1]).fetchone() == (1,)
    with app.transaction(force_rollback=True):
        app.execute("INSERT INTO drv3 VALUES (1, 'x')")
        threading.Timer(0.2, app.cancel).start()
        with pytest.raises(errors.QueryCanceled):
            with app.transaction():
                app.execute("SELECT pg_sleep(20)")
        assert app.execute("SELECT count(*) FROM drv3").fetchone()[0] == 1


def test_settings_stay_with_the_client(place):
    def client(n):
        with psycopg.connect(place.dsn(place.app), autocommit=True, prepare_threshold=0,
                             options=f"-c statement_timeout={n + 10}s", application_name=f"client {n}") as conn:
            conn.execute(f"SET work_mem = '{n + 1}MB'")
            conn.execute("SELECT set_config('timezone', %s, false)", [f"UTC+{n}"])
            conn.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for _ in range(20):
                got = conn.execute("SELECT current_setting('work_mem'), current_setting('timezone'), "
                                   "current_setting('statement_timeout'), current_setting('application_name'), "
                                   "current_setting('transaction_isolation')").fetchone()
                if got != (f"{n + 1}MB", f"UTC+{n}", f"{n + 10}s", f"client {n}", "repeatable read"):
                    wrong.append(got)
    wrong = []
    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_temporary_table(app):
    app.execute("CREATE TEMP TABLE mine3 (i int)")
    for i in range(10):
        app.execute("INSERT INTO mine3 VALUES (%s)", [i])
    assert app.execute("SELECT sum(i) FROM mine3").fetchone()[0] == 45
    app.execute("DROP TABLE mine3")


def test_prepared_statements_of_many_clients(place):
    def client(n):
        with psycopg.connect(place.dsn(place.app), autocommit=True, prepare_threshold=0) as conn:
            for i in range(60):
                kind = (n + i) % 5  # psycopg numbers its statements: the same name is another text elsewhere
                if conn.execute(f"SELECT %s::int * {kind} AS k{kind}", [i]).fetchone()[0] != i * kind:
                    wrong.append((n, i))
    wrong = []
    threads = [threading.Thread(target=client, args=(n,)) for n in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_prepared_statement_after_ddl(app):
    app.execute("DROP TABLE IF EXISTS drv3_ddl")
    app.execute("CREATE TABLE drv3_ddl (a int)")
    app.execute("INSERT INTO drv3_ddl VALUES (1)")
    for _ in range(3):
        assert app.execute("SELECT * FROM drv3_ddl", prepare=True).fetchall() == [(1,)]
    app.execute("ALTER TABLE drv3_ddl ADD b text DEFAULT 'new'")
    with app.transaction(force_rollback=True), pytest.raises(errors.FeatureNotSupported):
        app.execute("SELECT * FROM drv3_ddl", prepare=True)
    app.execute("DEALLOCATE ALL")
    app.execute("DROP TABLE drv3_ddl")


def test_deallocate_and_discard(app):
    for command in ("DEALLOCATE ALL", "DISCARD ALL"):
        app.execute("PREPARE by_sql(int) AS SELECT $1 + 1")
        assert app.execute("EXECUTE by_sql(4)").fetchone() == (5,)
        app.execute(command)
        with pytest.raises(errors.InvalidSqlStatementName):
            app.execute("EXECUTE by_sql(4)")


def test_terminated_and_connected_again(place):
    with psycopg.connect(place.dsn(place.app), autocommit=True) as conn:
        with pytest.raises((psycopg.OperationalError, errors.AdminShutdown)):
            with conn.transaction():
                conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
                conn.execute("SELECT 1")
    for _ in range(20):
        with psycopg.connect(place.dsn(place.app)) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)


def test_asyncio(place):
    async def client(n):
        async with await psycopg.AsyncConnection.connect(place.dsn(place.app), autocommit=True, prepare_threshold=0) as conn:
            total = 0
            for i in range(20):
                async with conn.transaction():
                    total += (await (await conn.execute("SELECT %s::int + %s::int", [n, i])).fetchone())[0]
            async with conn.pipeline():
                many = [await conn.execute("SELECT %s::int", [i]) for i in range(20)]
            total += sum([(await c.fetchone())[0] for c in many])
            return total

    async def all_of_them():
        return await asyncio.wait_for(asyncio.gather(*(client(n) for n in range(12))), 60)

    assert asyncio.run(all_of_them()) == [20 * n + 380 for n in range(12)]


# -- shop: rows over four shards, found by a key that is a parameter -----------------------------------------------------

def fill(shop, customers=50):
    rows = ",".join(f"({c}, {n}, '{c}/{n}')" for c in range(customers) for n in range(3))
    shop.execute(f"INSERT INTO drv_orders VALUES {rows}")


def test_shop_keyed(shop):
    for c in range(50):
        for n in range(3):
            shop.execute("INSERT INTO drv_orders VALUES (%s, %s, %s)", [c, n, f"{c}/{n}"])
    for binary in (False, True):
        cur = shop.cursor(binary=binary)
        for c in range(50):
            cur.execute("SELECT no, what FROM drv_orders WHERE customer = %s ORDER BY no", [c])
            assert cur.fetchall() == [(n, f"{c}/{n}") for n in range(3)]
    assert shop.execute("UPDATE drv_orders SET what = %s WHERE customer = %s", ["x", 7]).rowcount == 3
    assert shop.execute("DELETE FROM drv_orders WHERE customer = %s AND no = %s RETURNING what", [7, 1]).fetchall() == [("x",)]
    assert shop.execute("SELECT count(*) FROM drv_orders").fetchone() == (149,)
    assert shop.execute("SELECT customer, no FROM drv_orders ORDER BY 1 DESC, 2 LIMIT 4").fetchall() == \
        [(49, 0), (49, 1), (49, 2), (48, 0)]
    with pytest.raises(errors.UniqueViolation):
        shop.execute("INSERT INTO drv_orders VALUES (%s, %s, %s)", [8, 1, "twice"])


def test_shop_executemany(shop):
    shop.cursor().executemany("INSERT INTO drv_orders VALUES (%s, %s, %s)", [(c, n, "x") for c in range(50) for n in range(3)])
    assert shop.execute("SELECT count(*), sum(no), min(customer), max(customer) FROM drv_orders").fetchone() == (150, 150, 0, 49)


def test_shop_key_binary_parameters(shop):
    fill(shop)
    cur = shop.cursor()
    for c in range(50):
        assert cur.execute("SELECT count(*) FROM drv_orders WHERE customer = %b", [c]).fetchone() == (3,)
        assert cur.execute("SELECT count(*) FROM drv_orders WHERE customer = %t", [c]).fetchone() == (3,)


def test_shop_transactions(shop):
    fill(shop)
    with shop.transaction():
        for c in range(50):
            shop.execute("UPDATE drv_orders SET what = 'all' WHERE customer = %s AND no = 0", [c])
        with shop.transaction(force_rollback=True):
            shop.execute("DELETE FROM drv_orders WHERE customer = %s", [1])
            shop.execute("DELETE FROM drv_orders WHERE customer = %s", [2])
    assert shop.execute("SELECT count(*) FROM drv_orders WHERE what = 'all'").fetchone() == (50,)
    with pytest.raises(errors.UniqueViolation):
        with shop.transaction():
            shop.execute("DELETE FROM drv_orders WHERE customer = %s", [3])
            shop.execute("INSERT INTO drv_orders VALUES (%s, 1, 'twice')", [4])
    assert shop.execute("SELECT count(*) FROM drv_orders").fetchone() == (150,)


def test_shop_pipeline(shop):
    fill(shop)
    with shop.pipeline():
        many = [shop.execute("SELECT what FROM drv_orders WHERE customer = %s AND no = %s", [c, 2]) for c in range(50)]
        assert [c.fetchone()[0] for c in many] == [f"{c}/2" for c in range(50)]


def test_shop_pipeline_of_writes(shop):
    with shop.pipeline():
        for c in range(50):
            shop.execute("INSERT INTO drv_orders VALUES (%s, 0, 'p')", [c])
    assert shop.execute("SELECT count(*) FROM drv_orders").fetchone() == (50,)
    with pytest.raises(errors.UniqueViolation):
        with shop.pipeline():
            shop.execute("INSERT INTO drv_orders VALUES (%s, 0, 'undone')", [100])
            shop.execute("INSERT INTO drv_orders VALUES (%s, 0, 'twice')", [5])
    assert shop.execute("SELECT count(*) FROM drv_orders").fetchone() == (50,)


def test_shop_copy(shop):
    cur = shop.cursor()
    with cur.copy("COPY drv_orders FROM STDIN") as copy:
        for c in range(3000):
            copy.write_row((c, 0, f"c{c}"))
    assert cur.rowcount == 3000
    assert shop.execute("SELECT what FROM drv_orders WHERE customer = %s", [1234]).fetchone() == ("c1234",)
    assert shop.execute("SELECT count(*) FROM drv_orders WHERE customer < 10").fetchone() == (10,)


def test_shop_server_side_cursor(shop):
    fill(shop)
    with shop.transaction(), shop.cursor("one_customer") as cur:
        cur.execute("SELECT no FROM drv_orders WHERE customer = %s ORDER BY no", [9])
        assert cur.fetchall() == [(0,), (1,), (2,)]


def test_shop_stream(shop):
    fill(shop)
    assert sorted(r[0] for r in shop.cursor().stream("SELECT customer FROM drv_orders WHERE no = %s", [1])) == list(range(50))


def test_shop_cancel(shop):
    threading.Timer(0.3, shop.cancel).start()
    with pytest.raises(errors.QueryCanceled):
        shop.execute("SELECT pg_sleep(20), count(*) FROM drv_orders WHERE customer = %s", [1])
    assert shop.execute("SELECT 1").fetchone() == (1,)
