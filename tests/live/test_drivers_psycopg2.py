# SPDX-License-Identifier: BSD-2-Clause
"""psycopg2 in transaction mode: transactions by default, named cursors, COPY, NOTIFY, cancel.

Each test runs directly and through pgspan (tests/live/drivers.py).
"""
import datetime as dt
import decimal
import io
import select
import threading

import psycopg2
import psycopg2.errors as errors
import psycopg2.extras
import psycopg2.pool
import pytest

from drivers import _places, limit, place  # noqa: F401  (fixtures)

pytestmark = pytest.mark.slow  # its protocol is that of the other drivers: sanitizer runs do without


@pytest.fixture
def app(place):
    conn = psycopg2.connect(place.dsn(place.app))
    with conn, conn.cursor() as cur:
        cur.execute("CREATE TABLE IF NOT EXISTS drv2 (id int PRIMARY KEY, t text)")
        cur.execute("TRUNCATE drv2")
    yield conn
    conn.close()


def one(conn, sql, args=None):
    with conn.cursor() as cur:
        cur.execute(sql, args)
        return cur.fetchone()[0]


def test_types(app):
    for kind, value in [("int", 5), ("numeric", decimal.Decimal("1.50")), ("text", "ü'\\\"%"), ("date", dt.date(2024, 2, 29)),
                        ("timestamp", dt.datetime(2024, 1, 2, 3, 4, 5)), ("interval", dt.timedelta(days=2, seconds=3)),
                        ("bool", False), ("int[]", [1, 2]), ("text", None)]:
        assert one(app, f"SELECT %s::{kind}", [value]) == value
    assert bytes(one(app, "SELECT %s::bytea", [b"\x00\xff'\\"])) == b"\x00\xff'\\"
    assert one(app, "SELECT %s::jsonb", [psycopg2.extras.Json({"a": [1]})]) == {"a": [1]}


def test_transactions(app):
    with app, app.cursor() as cur:
        cur.execute("INSERT INTO drv2 VALUES (1, 'one')")
    with pytest.raises(errors.UniqueViolation):
        with app, app.cursor() as cur:
            cur.execute("INSERT INTO drv2 VALUES (2, 'two')")
            cur.execute("INSERT INTO drv2 VALUES (1, 'twice')")
    with app, app.cursor() as cur:
        cur.execute("SAVEPOINT a")
        with pytest.raises(errors.DivisionByZero):
            cur.execute("SELECT 1/0")
        with pytest.raises(errors.InFailedSqlTransaction):
            cur.execute("SELECT 1")
        cur.execute("ROLLBACK TO a")
        cur.execute("SELECT count(*) FROM drv2")
        assert cur.fetchone() == (1,)
    assert app.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE


def test_session_characteristics(app):
    app.set_session(isolation_level="SERIALIZABLE", readonly=True)
    assert one(app, "SHOW transaction_isolation") == "serializable"
    with pytest.raises(errors.ReadOnlySqlTransaction):
        one(app, "INSERT INTO drv2 VALUES (1) RETURNING id")
    app.rollback()
    app.set_session(isolation_level="READ COMMITTED", readonly=False, autocommit=True)
    assert one(app, "INSERT INTO drv2 VALUES (1) RETURNING id") == 1
    app.set_session(readonly=True)  # in autocommit: default_transaction_read_only of the session
    with pytest.raises(errors.ReadOnlySqlTransaction):
        one(app, "INSERT INTO drv2 VALUES (2) RETURNING id")


def test_batches(app):
    with app, app.cursor() as cur:
        cur.executemany("INSERT INTO drv2 VALUES (%s, %s)", [(i, "x") for i in range(50)])
        psycopg2.extras.execute_values(cur, "INSERT INTO drv2 VALUES %s", [(i, "v") for i in range(50, 500)])
        psycopg2.extras.execute_batch(cur, "UPDATE drv2 SET t = %s WHERE id = %s", [("b", i) for i in range(500)])
    assert one(app, "SELECT count(*) FROM drv2 WHERE t = 'b'") == 500


def test_named_cursors(app):
    with app, app.cursor() as cur:
        cur.execute("INSERT INTO drv2 SELECT g, 'r' FROM generate_series(1, 500) g")
    with app, app.cursor("mine") as cur:
        cur.itersize = 33
        cur.execute("SELECT id FROM drv2 ORDER BY id")
        assert [r[0] for r in cur] == list(range(1, 501))
    with app.cursor("held", withhold=True) as cur:
        cur.execute("SELECT id FROM drv2 ORDER BY id")
        app.commit()
        assert cur.fetchmany(3) == [(1,), (2,), (3,)]
        app.commit()
        assert cur.fetchmany(2) == [(4,), (5,)]
    app.commit()


def test_copy(app):
    with app, app.cursor() as cur:
        cur.copy_expert("COPY drv2 FROM STDIN", io.StringIO("".join(f"{i}\trow {i}\n" for i in range(5000))))
        out = io.StringIO()
        cur.copy_expert("COPY (SELECT * FROM drv2 ORDER BY id) TO STDOUT (FORMAT csv)", out)
    assert out.getvalue() == "".join(f"{i},row {i}\n" for i in range(5000))
    with pytest.raises(errors.InvalidTextRepresentation):
        with app, app.cursor() as cur:
            cur.copy_expert("COPY drv2 FROM STDIN", io.StringIO("x\ty\n"))
    assert one(app, "SELECT count(*) FROM drv2") == 5000


def test_listen(place, app):
    app.autocommit = True
    one(app, "SELECT 1")
    with app.cursor() as cur:
        cur.execute("LISTEN drv2")
    other = psycopg2.connect(place.dsn(place.app))
    other.autocommit = True
    for i in range(3):
        one(other, "SELECT pg_notify('drv2', %s)", [f"n{i}"])
    other.close()
    while len(app.notifies) < 3:
        assert select.select([app], [], [], 10)[0]
        app.poll()
    assert [n.payload for n in app.notifies] == ["n0", "n1", "n2"]


def test_errors(app):
    with pytest.raises(errors.UndefinedColumn) as caught:
        one(app, "SELECT nothing FROM drv2")
    assert (caught.value.pgcode, caught.value.diag.statement_position) == ("42703", "8")
    app.rollback()
    with app.cursor() as cur:
        cur.execute("DO $$ BEGIN RAISE NOTICE 'one'; END $$")
    assert app.notices[-1] == "NOTICE:  one\n"


def test_several_statements(app):
    with app, app.cursor() as cur:
        cur.execute("SELECT 1; INSERT INTO drv2 VALUES (1); SELECT 3")
        assert cur.fetchall() == [(3,)]


def test_cancel(app):
    for _ in range(3):
        threading.Timer(0.2, app.cancel).start()
        with pytest.raises(errors.QueryCanceled):
            one(app, "SELECT pg_sleep(20)")
        app.rollback()
        assert one(app, "SELECT 1") == 1


def test_pool_of_connections(place):
    pool = psycopg2.pool.ThreadedConnectionPool(1, 10, place.dsn(place.app))

    def client(n):
        for i in range(20):
            conn = pool.getconn(key=n)
            with conn:
                if one(conn, "SELECT %s + %s", [n, i]) != n + i:
                    wrong.append((n, i))
            pool.putconn(conn, key=n)
    wrong = []
    threads = [threading.Thread(target=client, args=(n,)) for n in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    pool.closeall()
    assert wrong == []


def test_terminated_and_connected_again(place, app):
    with pytest.raises((psycopg2.OperationalError, psycopg2.InterfaceError)):
        with app:
            one(app, "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)")
    conn = psycopg2.connect(place.dsn(place.app))
    assert one(conn, "SELECT 1") == 1
    conn.close()


def test_shop(place):
    conn = psycopg2.connect(place.dsn(place.shop))
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("DROP TABLE IF EXISTS drv_orders")
        cur.execute("CREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no))")
        for c in range(40):
            cur.execute("INSERT INTO drv_orders VALUES (%s, %s, %s)", [c, 0, f"o{c}"])
        psycopg2.extras.execute_values(cur, "INSERT INTO drv_orders VALUES %s", [(c, 1, "v") for c in range(40)])
        conn.autocommit = False
        for c in range(40):
            assert one(conn, "SELECT what FROM drv_orders WHERE customer = %s AND no = 0", [c]) == f"o{c}"
        cur.executemany("UPDATE drv_orders SET what = 'tx' WHERE customer = %s", [(c,) for c in range(10)])
        conn.commit()
        assert one(conn, "SELECT count(*) FROM drv_orders WHERE what = 'tx'") == 20
        conn.rollback()
        cur.copy_expert("COPY drv_orders FROM STDIN", io.StringIO("".join(f"{c}\t2\tcopied\n" for c in range(1000))))
        conn.commit()
        assert one(conn, "SELECT count(*) FROM drv_orders") == 1080
    conn.close()
