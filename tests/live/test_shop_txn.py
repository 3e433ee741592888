# SPDX-License-Identifier: BSD-2-Clause
"""Transactions over several shards: all or nothing, with one isolation level, savepoints and settings on every shard."""
import asyncio
import concurrent.futures
import subprocess

import asyncpg
import conftest
import pgwire
import psycopg
import psycopg2
import pytest
from test_shop_dml import ITEMS, made_pair, pair  # noqa: F401  (fixtures)
from test_shop_keys import param_reply, query_reply, shards_of_ints

WHERE = shards_of_ints(range(10000, 10400))
ON = [[k for k in WHERE if WHERE[k] == s] for s in range(conftest.SHARDS)]  # keys of each shard


def tags(conn, sql):
    return [m.text for m in conn.query(sql) if m.tag == "C"]


def decisions(pair):
    return set(pair.fleet.all_shards("SELECT gid FROM pgspan.decision"))


def there(pair):
    return sorted(k for k in pair.placed() if k >= 10000)


@pytest.mark.parametrize("how", ["simple", "extended"])
@pytest.mark.parametrize("end", ["COMMIT", "END", "ROLLBACK", "ABORT"])
def test_block_over_all_shards(pair, how, end):
    conn = pair.shop
    assert tags(conn, "BEGIN") == ["BEGIN"]
    keys = [ON[s][0] for s in (2, 0, 3, 1)]
    for k in keys:
        if how == "simple":
            assert query_reply(conn, f"INSERT INTO item (id) VALUES ({k})") == []
        else:
            assert param_reply(conn, "INSERT INTO item (id) VALUES ($1)", str(k), 20, 0) == []
        assert conn.status == "T"
    assert query_reply(conn, "SELECT count(*) FROM item") == [[str(ITEMS + 4)]]
    with pair.proxy.connect("shop") as other:
        assert other.execute("SELECT count(*) FROM item").fetchone() == (ITEMS,)
    assert tags(conn, end) == ["COMMIT" if end in ("COMMIT", "END") else "ROLLBACK"]
    assert conn.status == "I"
    assert there(pair) == (sorted(keys) if end in ("COMMIT", "END") else [])
    assert pair.fleet.prepared() == []
    pair.plain_direct.execute("INSERT INTO item (id) SELECT unnest(%s::int[])", [there(pair)])
    pair.assert_placed()


def test_reads_on_some_writes_on_one(pair):
    """One writer among readers needs no two-phase commit, and commits."""
    conn = pair.shop
    conn.query("BEGIN")
    assert query_reply(conn, "SELECT count(*) FROM item") == [[str(ITEMS)]]
    conn.query(f"INSERT INTO item (id) VALUES ({ON[2][0]})")
    assert query_reply(conn, f"SELECT id FROM item WHERE id = {ON[3][0]}") == []
    assert tags(conn, "COMMIT") == ["COMMIT"]
    assert there(pair) == [ON[2][0]]


@pytest.mark.parametrize("bad", range(4))
def test_error_on_one_shard__commit_is_rollback__nothing_stays(pair, bad):
    conn = pair.shop
    conn.query("BEGIN")
    for s in range(4):
        if s != bad:
            conn.query(f"INSERT INTO item (id) VALUES ({ON[s][0]})")
    assert query_reply(conn, f"INSERT INTO item (id, n) VALUES ({ON[bad][0]}, 5000)") == "23514"
    assert conn.status == "E"
    assert query_reply(conn, f"INSERT INTO item (id) VALUES ({ON[(bad + 1) % 4][1]})") == "25P02"
    assert tags(conn, "COMMIT") == ["ROLLBACK"]
    assert conn.status == "I" and there(pair) == [] and pair.fleet.prepared() == []
    assert query_reply(conn, "SELECT count(*) FROM item") == [[str(ITEMS)]]


def test_block_opened_together_with_a_statement__fails_whole(pair):
    """BEGIN and the first statement come in one Query; the next statement fails on one of several shards."""
    conn = pair.shop
    assert tags(conn, f"BEGIN; INSERT INTO item (id) VALUES ({ON[0][0]})") == ["BEGIN", "INSERT 0 1"]
    assert query_reply(conn, f"INSERT INTO item (id, n) VALUES ({ON[1][0]}, 1), ({ON[2][0]}, 5000), ({ON[3][0]}, 1)") == "23514"
    assert conn.status == "E"
    assert query_reply(conn, "SELECT 1") == "25P02"
    assert query_reply(conn, f"INSERT INTO item (id) VALUES ({ON[1][1]})") == "25P02"
    assert tags(conn, "COMMIT") == ["ROLLBACK"]
    assert there(pair) == []


def test_block_opened_together_with_a_statement__commits_whole(pair):
    conn = pair.shop
    conn.query(f"BEGIN; INSERT INTO item (id) VALUES ({ON[0][0]})")
    conn.query(f"INSERT INTO item (id) VALUES ({ON[1][0]})")
    conn.query(f"INSERT INTO item (id) VALUES ({ON[2][0]}), ({ON[3][0]})")
    assert conn.status == "T" and there(pair) == []
    assert tags(conn, "COMMIT") == ["COMMIT"]
    assert there(pair) == sorted(ON[s][0] for s in range(4))


def test_block_closed_together_with_a_statement(pair):
    conn = pair.shop
    conn.query("BEGIN")
    conn.query(f"INSERT INTO item (id) VALUES ({ON[0][0]})")
    conn.query(f"INSERT INTO item (id) VALUES ({ON[1][0]})")
    got = query_reply(conn, f"INSERT INTO item (id) VALUES ({ON[2][0]}); COMMIT")
    if got == "0A000":
        assert conn.status == "E" and tags(conn, "ROLLBACK") == ["ROLLBACK"] and there(pair) == []
    else:
        assert conn.status == "I" and there(pair) == sorted(ON[s][0] for s in range(3))




@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT"])
def test_after_a_failure_over_shards__blocks_are_blocks(pair, end):
    """Connections that have seen a statement fail on several shards are as good as before."""
    for _ in range(10):
        with pair.proxy.wire("shop") as conn:
            conn.query("BEGIN")
            assert query_reply(conn, "UPDATE item SET n = n + CASE id WHEN 17 THEN 5000 ELSE 0 END") == "23514"
            assert conn.status == "E"
            assert tags(conn, end) == ["ROLLBACK"]
            for s in (0, 1, 2, 3, 3, 2, 1, 0):
                conn.query("BEGIN")
                conn.query(f"INSERT INTO item (id) VALUES ({ON[s][0]})")
                assert conn.status == "T"
                assert there(pair) == []
                conn.query("ROLLBACK")
                assert there(pair) == []


def test_savepoints_over_shards(pair):
    conn = pair.shop
    conn.query("BEGIN")
    conn.query("SAVEPOINT before")  # before any shard is in it
    conn.query(f"INSERT INTO item (id) VALUES ({ON[0][0]})")
    conn.query("SAVEPOINT a")
    conn.query(f"INSERT INTO item (id) VALUES ({ON[1][0]})")  # joins after a
    conn.query("SAVEPOINT b")
    conn.query(f"INSERT INTO item (id) VALUES ({ON[2][0]}), ({ON[3][0]})")
    assert query_reply(conn, "SELECT count(*) FROM item WHERE id >= 10000") == [["4"]]
    assert tags(conn, "ROLLBACK TO b") == ["ROLLBACK"]
    assert query_reply(conn, "SELECT count(*) FROM item WHERE id >= 10000") == [["2"]]
    conn.query(f"INSERT INTO item (id) VALUES ({ON[2][1]})")
    assert tags(conn, "RELEASE b") == ["RELEASE"]
    assert query_reply(conn, f"INSERT INTO item (id, n) VALUES ({ON[3][1]}, 5000)") == "23514"
    assert conn.status == "E"
    assert tags(conn, "ROLLBACK TO SAVEPOINT a") == ["ROLLBACK"] and conn.status == "T"
    assert query_reply(conn, "SELECT id FROM item WHERE id >= 10000") == [[str(ON[0][0])]]
    conn.query(f"INSERT INTO item (id) VALUES ({ON[3][2]})")
    assert query_reply(conn, "ROLLBACK TO b") == "3B001"
    assert tags(conn, "ROLLBACK TO a") == ["ROLLBACK"]
    conn.query(f"INSERT INTO item (id) VALUES ({ON[1][3]}), ({ON[2][3]})")
    assert tags(conn, "COMMIT") == ["COMMIT"]
    assert there(pair) == sorted([ON[0][0], ON[1][3], ON[2][3]])


def test_savepoints__rolled_back_to_the_first(pair):
    conn = pair.shop
    conn.query("BEGIN")
    conn.query("SAVEPOINT s")
    conn.query(f"INSERT INTO item (id) VALUES ({ON[0][0]}), ({ON[1][0]}), ({ON[2][0]})")
    conn.query("SAVEPOINT s")  # the same name again: the inner one counts
    conn.query(f"INSERT INTO item (id) VALUES ({ON[3][0]})")
    conn.query("ROLLBACK TO s")
    conn.query("RELEASE s")
    assert query_reply(conn, "SELECT count(*) FROM item WHERE id >= 10000") == [["3"]]
    conn.query("ROLLBACK TO s")
    assert query_reply(conn, "SELECT count(*) FROM item WHERE id >= 10000") == [["0"]]
    conn.query(f"INSERT INTO item (id) VALUES ({ON[3][1]})")
    conn.query("COMMIT")
    assert there(pair) == [ON[3][1]]


@pytest.mark.parametrize("level", ["serializable", "repeatable read", "read committed"])
def test_isolation_level_on_every_shard(pair, level):
    conn = pair.shop
    for begin in (f"BEGIN ISOLATION LEVEL {level}", f"BEGIN; SET TRANSACTION ISOLATION LEVEL {level}", f"START TRANSACTION ISOLATION LEVEL {level}"):
        for part in begin.split("; "):
            conn.query(part)
        for s in range(4):
            got = query_reply(conn, f"SELECT current_setting('transaction_isolation') FROM item WHERE id = {next(k for k, v in pair.placed().items() if v == [s])}")
            assert got == [[level]], (begin, s)
        conn.query("ROLLBACK")
    assert query_reply(conn, "SHOW transaction_isolation") == [["read committed"]]
    assert query_reply(conn, f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}") == []
    conn.query("BEGIN")
    got = query_reply(conn, "SELECT DISTINCT id, current_setting('transaction_isolation') FROM item")
    assert got == "0A000" or {r[1] for r in got} == {level}
    conn.query("ROLLBACK")


def test_read_only_block__writes_fail_on_every_shard(pair):
    for s in range(4):
        pair.shop.query("BEGIN READ ONLY")
        assert query_reply(pair.shop, "SELECT count(*) FROM item") == [[str(ITEMS)]]
        assert query_reply(pair.shop, f"INSERT INTO item (id) VALUES ({ON[s][0]})") == "25006"
        assert tags(pair.shop, "COMMIT") == ["ROLLBACK"]
    assert there(pair) == []


def test_set_local_and_set__carried_to_shards_that_join(pair):
    conn = pair.shop
    on = [next(k for k, v in pair.placed().items() if v == [s]) for s in range(4)]

    def seen(s):
        return query_reply(conn, f"SELECT current_setting('statement_timeout'), current_setting('application_name') FROM item WHERE id = {on[s]}")
    conn.query("SET application_name TO 'carried'")
    conn.query("BEGIN")
    assert seen(0) == [["0", "carried"]]
    conn.query("SET LOCAL statement_timeout TO '7777ms'")
    assert [seen(s) for s in range(4)] == [[["7777ms", "carried"]]] * 4
    conn.query("SET application_name TO 'inner'")
    assert [seen(s) for s in range(4)] == [[["7777ms", "inner"]]] * 4
    conn.query("ROLLBACK")
    assert [seen(s) for s in range(4)] == [[["0", "carried"]]] * 4
    conn.query("BEGIN")
    conn.query("SET LOCAL statement_timeout TO '8888ms'")
    conn.query("COMMIT")
    assert [seen(s) for s in range(4)] == [[["0", "carried"]]] * 4


def test_work_after_commit_leaves_nothing_behind(pair, wait_until):
    conn = pair.shop
    before = decisions(pair)
    for i in range(20):
        conn.query("BEGIN")
        for s in range(4):
            conn.query(f"INSERT INTO item (id) VALUES ({ON[s][i]})")
        conn.query("COMMIT" if i % 3 else "ROLLBACK")
    assert there(pair) == sorted(ON[s][i] for s in range(4) for i in range(20) if i % 3)
    assert pair.fleet.prepared() == []
    wait_until(lambda: decisions(pair) <= before, 30, "the decisions being deleted")


@pytest.fixture
def deferred(pair):
    """item.n refers to limits(n), checked at commit."""
    for conn in [*pair.direct, pair.plain_direct]:
        conn.execute("CREATE TABLE limits (n int PRIMARY KEY); GRANT ALL ON limits TO app; INSERT INTO limits SELECT generate_series(0, 50);"
                     "ALTER TABLE item ADD CONSTRAINT item_n_fk FOREIGN KEY (n) REFERENCES limits DEFERRABLE INITIALLY DEFERRED")
    yield pair
    for conn in [*pair.direct, pair.plain_direct]:
        conn.execute("ALTER TABLE item DROP CONSTRAINT item_n_fk; DROP TABLE limits")


@pytest.mark.parametrize("bad", range(4))
def test_deferred_constraint_fails_at_commit__nothing_stays(deferred, bad):
    pair = deferred
    for writers in (range(4), [bad]):
        pair.shop.query("BEGIN")
        for s in writers:
            pair.shop.query(f"INSERT INTO item (id, n) VALUES ({ON[s][0]}, {777 if s == bad else 7})")
        assert query_reply(pair.shop, "COMMIT") == "23503"
        assert pair.shop.status == "I" and there(pair) == [] and pair.fleet.prepared() == []
    # outside a block, by one statement over several shards
    values = ", ".join(f"({ON[s][1]}, {777 if s == bad else 7})" for s in range(4))
    assert query_reply(pair.shop, f"INSERT INTO item (id, n) VALUES {values}") == "23503"
    assert query_reply(pair.shop, "UPDATE item SET n = 777") == "23503"
    assert pair.shop.status == "I" and there(pair) == [] and pair.fleet.prepared() == []
    assert query_reply(pair.shop, "SELECT count(*) FROM item WHERE n = 777") == [["0"]]
    assert query_reply(pair.shop, f"INSERT INTO item (id, n) VALUES ({ON[0][2]}, 7), ({ON[1][2]}, 8)") == []


def test_commit_and_chain(pair):
    conn = pair.shop
    conn.query("BEGIN ISOLATION LEVEL REPEATABLE READ")
    for s in range(4):
        conn.query(f"INSERT INTO item (id) VALUES ({ON[s][0]})")
    got = query_reply(conn, "COMMIT AND CHAIN")
    if got == "0A000":
        conn.query("ROLLBACK")
        assert there(pair) == []
        return
    assert conn.status == "T" and len(there(pair)) == 4
    assert query_reply(conn, "SHOW transaction_isolation") == [["repeatable read"]]
    conn.query(f"INSERT INTO item (id) VALUES ({ON[0][1]})")
    conn.query("ROLLBACK AND CHAIN")
    assert conn.status == "T" and len(there(pair)) == 4
    conn.query("ROLLBACK")


def test_client_leaves_in_the_middle__nothing_stays(pair, wait_until):
    with pair.proxy.wire("shop") as conn:
        conn.query("BEGIN")
        for s in range(4):
            conn.query(f"INSERT INTO item (id) VALUES ({ON[s][0]})")
        conn.abort()
    assert there(pair) == []
    query = "SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    wait_until(lambda: pair.fleet.all_shards(query) == [], 10, "the open transactions ending")


def test_user_two_phase_commands__refused_or_right(pair):
    """PREPARE TRANSACTION of the user's own, over several shards, is not half done."""
    conn = pair.shop
    conn.query("BEGIN")
    for s in range(4):
        conn.query(f"INSERT INTO item (id) VALUES ({ON[s][0]})")
    got = query_reply(conn, "PREPARE TRANSACTION 'mine'")
    assert got == "0A000" and conn.status in "EI"
    if conn.status == "E":
        conn.query("ROLLBACK")
    assert there(pair) == [] and pair.fleet.prepared() == []


def test_transfers_from_many_sessions__the_sum_holds(pair):
    """Transfers between shards, some rolled back, some failing: the total is what it was, and readers never block for good."""
    keys = [next(k for k, v in pair.placed().items() if v == [s]) for s in range(4)]
    pair.shop.query("UPDATE item SET n = 100")

    def worker(number):
        done = 0
        with pair.proxy.connect("shop") as conn:
            for i in range(25):
                a, b = sorted((keys[(number + i) % 4], keys[(number + i * 3 + 1) % 4]))
                if a == b:
                    continue
                try:
                    with conn.transaction():
                        conn.execute("UPDATE item SET n = n - 1 WHERE id = %s", [a])
                        conn.execute("UPDATE item SET n = n + 1 WHERE id = %s", [b])
                        if i % 5 == 0:
                            raise KeyError
                        if i % 7 == 0:
                            conn.execute("UPDATE item SET n = 5000 WHERE id = %s", [b])
                        done += 1
                except (KeyError, psycopg.errors.CheckViolation):
                    pass
        return done

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(worker, range(8))) > 50
    assert query_reply(pair.shop, "SELECT sum(n) FROM item") == [[str(100 * ITEMS)]]
    assert pair.fleet.prepared() == []


# -- drivers ------------------------------------------------------------------------------------------------------------


def test_psql(pair):
    script = (f"BEGIN;\nINSERT INTO item (id, n) VALUES ({ON[0][0]}, 1), ({ON[1][0]}, 2);\nSAVEPOINT s;\nUPDATE item SET n = n + 1 WHERE id >= 10000;\n"
              f"ROLLBACK TO s;\nCOMMIT;\nSELECT id, n FROM item WHERE id >= 10000 ORDER BY id;\n\\d item\n\\copy loose FROM STDIN\n1\ta\n2\tb\n3\tc\n4\td\n5\te\n\\.\nSELECT count(*) FROM loose;\n")
    done = subprocess.run(["psql", "-XAt", "-v", "ON_ERROR_STOP=1", pair.proxy.dsn("shop")], input=script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:6] == ["BEGIN", "INSERT 0 2", "SAVEPOINT", "UPDATE 2", "ROLLBACK", "COMMIT"]
    assert lines[6:8] == sorted([f"{ON[0][0]}|1", f"{ON[1][0]}|2"]) and lines[-2:] == ["COPY 5", "5"]


def test_psycopg3(pair):
    with pair.proxy.connect("shop", autocommit=False) as conn:
        with conn.transaction():
            for s in range(4):
                conn.execute("INSERT INTO item (id, n) VALUES (%s, %s)", [ON[s][0], s])
            with pytest.raises(psycopg.errors.CheckViolation), conn.transaction():
                conn.execute("INSERT INTO item (id, n) VALUES (%s, 5000)", [ON[0][1]])
        assert sorted(conn.execute("SELECT id FROM item WHERE id >= 10000").fetchall()) == sorted((ON[s][0],) for s in range(4))
        conn.execute("DELETE FROM item")
        conn.rollback()
        with pytest.raises(ZeroDivisionError), conn.transaction():
            conn.execute("DELETE FROM item")
            raise ZeroDivisionError
        for s in range(4):
            conn.execute("INSERT INTO item (id) VALUES (%s)", [ON[s][3]], prepare=True)
        conn.commit()
    assert there(pair) == sorted(ON[s][i] for s in range(4) for i in (0, 3))


@pytest.mark.parametrize("how", ["pipeline", "executemany"])
def test_psycopg3_pipeline_in_a_block(pair, how):
    with pair.proxy.connect("shop", autocommit=False) as conn:
        if how == "pipeline":
            with conn.pipeline():
                for s in range(4):
                    conn.execute("INSERT INTO item (id) VALUES (%s)", [ON[s][3]])
        else:
            conn.cursor().executemany("INSERT INTO item (id) VALUES (%s)", [(ON[s][3],) for s in range(4)])
        conn.commit()
    assert there(pair) == sorted(ON[s][3] for s in range(4))


def test_psycopg2(pair):
    conn = psycopg2.connect(pair.proxy.dsn("shop"))
    with conn, conn.cursor() as cur:
        for s in range(4):
            cur.execute("INSERT INTO item (id) VALUES (%s) RETURNING id", [ON[s][0]])
            assert cur.fetchone() == (ON[s][0],)
    conn.set_session(isolation_level="SERIALIZABLE")
    with pytest.raises(psycopg2.errors.CheckViolation), conn, conn.cursor() as cur:
        cur.execute("UPDATE item SET n = 1")
        cur.execute("INSERT INTO item (id, n) VALUES (%s, 5000)", [ON[0][1]])
    with conn, conn.cursor() as cur:
        cur.execute("SELECT count(*) FROM item WHERE n = 1 AND id >= 10000")
        assert cur.fetchone() == (0,)
        cur.execute("DELETE FROM item WHERE id >= 10000")
        assert cur.rowcount == 4
    conn.close()
    assert there(pair) == []


def test_asyncpg(pair):
    async def run():
        conn = await asyncpg.connect(host="127.0.0.1", port=pair.proxy.port, user="app", password=conftest.APP_PASSWORD, database="shop")
        async with conn.transaction(isolation="repeatable_read"):
            for s in range(4):
                await conn.execute("INSERT INTO item (id, n) VALUES ($1, $2)", ON[s][0], s)
            assert await conn.fetchval("SELECT count(*) FROM item WHERE id >= $1", 10000) == 4
            with pytest.raises(asyncpg.CheckViolationError):
                async with conn.transaction():
                    await conn.execute("INSERT INTO item (id, n) VALUES ($1, $2)", ON[0][1], 5000)
        assert [r["id"] for r in await conn.fetch("SELECT id FROM item WHERE id = ANY($1::bigint[]) ORDER BY id", [ON[s][0] for s in range(4)])] == sorted(ON[s][0] for s in range(4))
        await conn.executemany("INSERT INTO item (id) VALUES ($1)", [(ON[0][i],) for i in range(5, 15)])
        await conn.executemany("INSERT INTO item (id) VALUES ($1)", [(ON[s][i],) for i in range(20, 25) for s in range(4)])
        await conn.copy_records_to_table("item", records=[(ON[s][30], "c") for s in range(4)], columns=["id", "name"])
        await conn.close()
    asyncio.run(run())
    assert len(there(pair)) == 4 + 10 + 20 + 4
