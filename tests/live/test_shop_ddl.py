# SPDX-License-Identifier: BSD-2-Clause
"""DDL runs on every shard or on none; utility statements too; tables not named in proxy.ini live on the first shard only."""
import conftest
import psycopg
import pytest
from test_shop_keys import shards_of_ints

TABLES = ["t_ddl key=id", "t_ddl2 key=id", "t_ref reference", "\"T Mixed\" key=\"Id\"", "sales.invoices key=customer_id"]


@pytest.fixture(scope="module")
def made_ddl(fleet, tmp_path_factory):
    proxy = conftest.Proxy(fleet, tmp_path_factory.mktemp("ddl"), {"database:shop": {"table": TABLES}})
    yield proxy
    proxy.finish()


@pytest.fixture
def shop(fleet, made_ddl):
    """A pgspan over shards without any of our tables."""
    def clean():
        for shard in fleet.shards:
            fleet.sql(shard, 'DROP TABLE IF EXISTS t_ddl, t_ddl2, t_ref, "T Mixed", t_first, t_first2 CASCADE; DROP SCHEMA IF EXISTS sales CASCADE;'
                             "DROP VIEW IF EXISTS v_ddl; DROP TYPE IF EXISTS mood; DROP FUNCTION IF EXISTS f_ddl; DROP SEQUENCE IF EXISTS s_ddl")
            fleet.sql(shard, "GRANT CREATE ON DATABASE shop TO app")
    clean()
    yield made_ddl
    made_ddl.check()
    clean()


def everywhere(fleet, sql):
    """The value of a query on each shard."""
    return [fleet.value(s, sql) for s in fleet.shards]


def exists(fleet, name):
    return everywhere(fleet, f"SELECT to_regclass('{name}') IS NOT NULL")


ALL, NONE, FIRST = [True] * 4, [False] * 4, [True, False, False, False]


def test_create_alter_drop__on_every_shard(fleet, shop):
    with shop.connect("shop") as conn:
        conn.execute("CREATE TABLE t_ddl (id int PRIMARY KEY, v text)")
        assert exists(fleet, "t_ddl") == ALL
        conn.execute("ALTER TABLE t_ddl ADD COLUMN w int DEFAULT 7")
        conn.execute("CREATE INDEX t_ddl_v ON t_ddl (v)")
        assert exists(fleet, "t_ddl_v") == ALL
        conn.execute("CREATE INDEX CONCURRENTLY t_ddl_w ON t_ddl (w)")
        assert everywhere(fleet, "SELECT indisvalid FROM pg_index WHERE indexrelid = 't_ddl_w'::regclass") == ALL
        conn.execute("INSERT INTO t_ddl (id) VALUES (1), (2), (3), (4), (5), (6)")
        assert conn.execute("SELECT id, w FROM t_ddl ORDER BY id").fetchall() == [(i, 7) for i in range(1, 7)]
        conn.execute("ALTER TABLE t_ddl DROP COLUMN w")
        assert len(conn.execute("SELECT * FROM t_ddl").fetchall()[0]) == 2
        conn.execute("DROP INDEX CONCURRENTLY IF EXISTS t_ddl_v")
        assert exists(fleet, "t_ddl_v") == NONE
        conn.execute("COMMENT ON TABLE t_ddl IS 'four'")
        assert everywhere(fleet, "SELECT obj_description('t_ddl'::regclass)") == ["four"] * 4
        conn.execute("GRANT SELECT ON t_ddl TO PUBLIC")
        conn.execute("DROP TABLE t_ddl")
        assert exists(fleet, "t_ddl") == NONE
    assert fleet.prepared() == []


def test_names_as_in_sql(fleet, shop):
    with shop.connect("shop") as conn:
        conn.execute("CREATE SCHEMA sales")
        assert everywhere(fleet, "SELECT count(*) FROM pg_namespace WHERE nspname = 'sales'") == [1] * 4
        conn.execute("CREATE TABLE sales.invoices (customer_id bigint, n int)")
        conn.execute('CREATE TABLE "T Mixed" ("Id" int, "ID" int, id int)')
        assert exists(fleet, "sales.invoices") == exists(fleet, '"T Mixed"') == ALL
        conn.execute("INSERT INTO sales.invoices VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)")
        conn.execute('INSERT INTO "T Mixed" (id, "ID", "Id") VALUES (9, 9, 1), (9, 9, 2), (9, 9, 3), (9, 9, 4), (9, 9, 5)')
        conn.execute("SET search_path TO sales, public")
        assert conn.execute("SELECT n FROM invoices WHERE customer_id = 3").fetchall() == [(3,)]
        assert conn.execute("SELECT count(*) FROM invoices").fetchone() == (5,)
    want = shards_of_ints(range(1, 6))
    for i, s in enumerate(fleet.shards):
        assert sorted(k for (k,) in fleet.sql(s, "SELECT customer_id FROM sales.invoices")) == [k for k in want if want[k] == i]
        assert sorted(k for (k,) in fleet.sql(s, 'SELECT "Id" FROM "T Mixed"')) == [k for k in want if want[k] == i]


@pytest.mark.parametrize("bad", range(4))
def test_ddl_that_fails_on_one_shard__is_on_none(fleet, shop, bad):
    fleet.sql(fleet.shards[bad], "CREATE TABLE t_ddl (id int); GRANT ALL ON t_ddl TO app; CREATE TABLE t_ref (x int)")
    with shop.connect("shop") as conn:
        with pytest.raises(psycopg.errors.DuplicateTable):
            conn.execute("CREATE TABLE t_ddl (id int PRIMARY KEY)")
        assert exists(fleet, "t_ddl") == [i == bad for i in range(4)]
        with pytest.raises(psycopg.errors.DuplicateTable):
            conn.execute("CREATE TABLE t_ref (x int)")
        assert exists(fleet, "t_ref") == [i == bad for i in range(4)]
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert fleet.prepared() == []


def test_ddl_in_a_block(fleet, shop):
    with shop.connect("shop", autocommit=False) as conn:
        conn.execute("CREATE TABLE t_ddl2 (id int PRIMARY KEY, v text)")
        conn.rollback()
        assert exists(fleet, "t_ddl2") == NONE
        conn.execute("CREATE TABLE t_ddl2 (id int PRIMARY KEY, v text)")
        try:
            conn.execute("INSERT INTO t_ddl2 VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')")
            rows = 5
        except psycopg.errors.FeatureNotSupported:
            conn.rollback()
            conn.execute("CREATE TABLE t_ddl2 (id int PRIMARY KEY, v text)")
            rows = 0
        conn.commit()
        assert exists(fleet, "t_ddl2") == ALL
        assert conn.execute("SELECT count(*) FROM t_ddl2").fetchone() == (rows,)
    for i, s in enumerate(fleet.shards):
        assert fleet.value(s, "SELECT count(*) FROM t_ddl2") == sum(v == i for v in shards_of_ints(range(1, rows + 1)).values()) if rows else True
    assert fleet.prepared() == []


def test_a_new_table_is_known_at_once__everywhere(fleet, shop):
    """CREATE TABLE in one session, rows of it in others at once, over and over with another key type each time."""
    with shop.connect("shop") as one, shop.connect("shop") as two, shop.wire("shop") as three:
        for i in range(10):
            kind, value = (("int", "7"), ("text", "'x'"), ("bigint", "7"), ("uuid", "'018f4b8e-37f0-7cc4-b5f2-0f62d09ca662'"))[i % 4]
            one.execute(f"CREATE TABLE t_ddl (id {kind} PRIMARY KEY, v text)")
            (one if i % 2 else two).execute(f"INSERT INTO t_ddl VALUES ({value}, 'first')")
            assert two.execute(f"SELECT v FROM t_ddl WHERE id = {value}").fetchall() == [("first",)]
            assert three.rows("SELECT count(*) FROM t_ddl") == [["1"]]
            two.execute("ALTER TABLE t_ddl RENAME COLUMN v TO w")
            assert one.execute("SELECT w FROM t_ddl").fetchall() == [("first",)]
            two.execute("DROP TABLE t_ddl")
            with pytest.raises(psycopg.errors.UndefinedTable):
                one.execute("SELECT * FROM t_ddl")


def test_truncate_vacuum_analyze(fleet, shop):
    with shop.connect("shop") as conn:
        conn.execute("CREATE TABLE t_ddl (id int PRIMARY KEY, v text)")
        conn.execute("CREATE TABLE t_ref (x int)")
        rows = ", ".join(f"({i}, 'v')" for i in range(400))
        conn.execute(f"INSERT INTO t_ddl VALUES {rows}")
        conn.execute("INSERT INTO t_ref VALUES (1), (2)")
        for sql in ("VACUUM t_ddl", "VACUUM (FULL, ANALYZE) t_ddl", "ANALYZE t_ddl", "ANALYZE", "VACUUM"):
            conn.execute(sql)
        each = everywhere(fleet, "SELECT reltuples::int FROM pg_class WHERE relname = 't_ddl'")
        assert sum(each) == 400 and min(each) > 50
        with pytest.raises(psycopg.errors.ActiveSqlTransaction), conn.transaction():
            conn.execute("SELECT count(*) FROM t_ddl")
            conn.execute("VACUUM t_ddl")
        with pytest.raises(ZeroDivisionError), conn.transaction():
            conn.execute("TRUNCATE t_ddl, t_ref")
            assert conn.execute("SELECT count(*) FROM t_ddl").fetchone() == (0,)
            raise ZeroDivisionError
        assert conn.execute("SELECT count(*) FROM t_ddl").fetchone() == (400,)
        conn.execute("TRUNCATE t_ddl, t_ref")
        assert everywhere(fleet, "SELECT (SELECT count(*) FROM t_ddl) + (SELECT count(*) FROM t_ref)") == [0] * 4


def test_drop_if_exists_of_several(fleet, shop):
    with shop.connect("shop") as conn:
        conn.execute("DROP TABLE IF EXISTS t_ddl, t_ddl2, t_ref")
        conn.execute("CREATE TABLE t_ddl (id int)")
        conn.execute("CREATE TABLE t_ref (id int)")
        conn.execute("DROP TABLE IF EXISTS t_ddl, t_ddl2, t_ref")
        assert exists(fleet, "t_ddl") == exists(fleet, "t_ref") == NONE
        conn.execute("CREATE TABLE t_ddl (id int)")
        with pytest.raises(psycopg.errors.UndefinedTable):
            conn.execute("DROP TABLE t_ddl, t_ddl2")
        assert exists(fleet, "t_ddl") == ALL
        # A name of each kind in one statement: both are gone, or it is refused and both are there.
        conn.execute("CREATE TABLE t_first (id int)")
        try:
            conn.execute("DROP TABLE IF EXISTS t_ddl, t_first")
            assert exists(fleet, "t_ddl") == exists(fleet, "t_first") == NONE
        except psycopg.errors.FeatureNotSupported:
            assert exists(fleet, "t_ddl") == ALL and exists(fleet, "t_first") == FIRST


def test_unnamed_tables_live_on_the_first_shard(fleet, shop):
    with shop.connect("shop") as conn:
        conn.execute("CREATE TABLE t_first (id serial PRIMARY KEY, v text)")
        assert exists(fleet, "t_first") == FIRST
        conn.execute("INSERT INTO t_first (v) SELECT 'x' FROM generate_series(1, 100)")
        assert conn.execute("SELECT count(*), max(id), avg(id) FROM t_first").fetchone()[:2] == (100, 100)
        conn.execute("CREATE TABLE t_first2 AS SELECT * FROM t_first")
        assert exists(fleet, "t_first2") == FIRST
        with conn.cursor().copy("COPY t_first2 FROM STDIN") as put:
            put.write("1000\ty\n")
        assert fleet.value("shop-0", "SELECT count(*) FROM t_first2") == 101
        conn.execute("ALTER TABLE t_first ADD w int")
        conn.execute("CREATE INDEX ON t_first (w)")
        conn.execute("TRUNCATE t_first")
        conn.execute("DROP TABLE t_first, t_first2")
        assert exists(fleet, "t_first") == NONE


def test_types_and_functions__on_every_shard_or_refused(fleet, shop):
    with shop.connect("shop") as conn:
        for make, look in (("CREATE TYPE mood AS ENUM ('sad', 'ok')", "SELECT count(*) FROM pg_type WHERE typname = 'mood'"),
                           ("CREATE FUNCTION f_ddl() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'", "SELECT count(*) FROM pg_proc WHERE proname = 'f_ddl'")):
            try:
                conn.execute(make)
                assert everywhere(fleet, look) == [1] * 4, make
            except psycopg.errors.FeatureNotSupported:
                assert everywhere(fleet, look) == [0] * 4, make


def test_views_and_sequences(fleet, shop):
    """Each is made where it can work, or refused; nothing is doubled."""
    with shop.connect("shop") as conn:
        conn.execute("CREATE TABLE t_ddl (id int PRIMARY KEY)")
        conn.execute("INSERT INTO t_ddl VALUES (1), (2), (3), (4), (5), (6), (7)")
        try:
            conn.execute("CREATE VIEW v_ddl AS SELECT id FROM t_ddl")
            assert conn.execute("SELECT count(*) FROM v_ddl").fetchone() == (7,)
            assert sorted(conn.execute("SELECT id FROM v_ddl").fetchall()) == [(i,) for i in range(1, 8)]
        except psycopg.errors.FeatureNotSupported:
            pass
        conn.execute("CREATE SEQUENCE s_ddl")
        assert [conn.execute("SELECT nextval('s_ddl')").fetchone()[0] for _ in range(5)] == [1, 2, 3, 4, 5]
