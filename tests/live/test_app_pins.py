# SPDX-License-Identifier: BSD-2-Clause
"""What ties a session to its server, and what lets it go again."""
import pytest

import pgwire
from pgwire import error, rows

ONE = {"proxy": {"workers": 1, "default_pool_size": 1, "query_wait_timeout": 1}, "database:app": {"replica": None}}


@pytest.fixture
def pair(new_proxy):
    proxy = new_proxy(ONE)
    with proxy.wire(user="postgres") as a, proxy.wire(user="postgres") as b:
        yield a, b


def is_free(other):
    """Whether another client gets the only server."""
    other.send(pgwire.query("SELECT 7"))
    got = other.until_ready()
    assert rows(got) == [["7"]] or error(got) == "53300"
    return error(got) is None


RELEASES = {
    "temp dropped": (["CREATE TEMP TABLE pin_t (n int)"], ["DROP TABLE pin_t"]),
    "temp sequence dropped": (["CREATE TEMP SEQUENCE pin_s"], ["DROP SEQUENCE pin_s"]),
    "temp discarded": (["CREATE TEMP TABLE pin_t (n int)"], ["DISCARD TEMP"]),
    "temp on commit drop": (["BEGIN", "CREATE TEMP TABLE pin_t ON COMMIT DROP AS SELECT 1"], ["COMMIT"]),
    "temp rolled back": (["BEGIN", "CREATE TEMP TABLE pin_t (n int)"], ["ROLLBACK"]),
    "unlisten": (["LISTEN pin_c"], ["UNLISTEN pin_c"]),
    "unlisten all": (["LISTEN pin_c", "LISTEN pin_d"], ["UNLISTEN *"]),
    "listen rolled back": (["BEGIN", "LISTEN pin_c"], ["ROLLBACK"]),
    "unlocked": (["SELECT pg_advisory_lock(77)"], ["SELECT pg_advisory_unlock(77)"]),
    "unlocked twice": (["SELECT pg_advisory_lock(77)", "SELECT pg_advisory_lock(77)"],
                       ["SELECT pg_advisory_unlock(77)", "SELECT pg_advisory_unlock(77)"]),
    "all unlocked": (["SELECT pg_advisory_lock(77)"], ["SELECT pg_advisory_unlock_all()"]),
    "held cursor closed": (["DECLARE pin_h CURSOR WITH HOLD FOR SELECT 1"], ["CLOSE pin_h"]),
    "deallocated": (["PREPARE pin_p AS SELECT 1"], ["DEALLOCATE pin_p"]),
    "all deallocated": (["PREPARE pin_p AS SELECT 1"], ["DEALLOCATE ALL"]),
    "discard all": (["CREATE TEMP TABLE pin_t (n int)", "LISTEN pin_c", "SELECT pg_advisory_lock(77)"], ["DISCARD ALL"]),
}


@pytest.mark.parametrize("name", RELEASES)
def test_server_is_free_again(pair, name):
    a, b = pair
    takes, gives = RELEASES[name]
    for sql in takes:
        assert error(a.query(sql)) is None
    assert not is_free(b)
    for sql in gives:
        assert error(a.query(sql)) is None
    assert is_free(b)
    assert a.rows("SELECT 8") == [["8"]]
    assert b.rows("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [["0"]]


def test_server_is_kept_while_something_is_left(pair):
    a, b = pair
    for sql in ("CREATE TEMP TABLE pin_1 (n int)", "CREATE TEMP TABLE pin_2 (n int)", "LISTEN pin_c", "DROP TABLE pin_1", "UNLISTEN pin_c"):
        a.query(sql, )
        assert not is_free(b)
    assert a.rows("SELECT count(*) FROM pin_2") == [["0"]]
    a.query("DROP TABLE pin_2")
    assert is_free(b)


def test_unlocking_one_of_two_keeps_the_server(pair):
    a, b = pair
    a.query("SELECT pg_advisory_lock(77), pg_advisory_lock(78)")
    a.query("SELECT pg_advisory_unlock(77)")
    assert not is_free(b)
    assert a.rows("SELECT objid FROM pg_locks WHERE locktype = 'advisory'") == [["78"]]
    a.query("SELECT pg_advisory_unlock(78)")
    assert is_free(b)


def test_audit_does_not_follow_the_clients_search_path(pair):
    a, b = pair
    a.query("DROP SCHEMA IF EXISTS pin_evil CASCADE")
    a.query("CREATE SCHEMA pin_evil CREATE TABLE pg_class (relnamespace oid)")
    a.query("SET search_path = pin_evil, pg_catalog")
    a.query("CREATE TEMP TABLE pin_t (n int)")
    a.query("CREATE TEMP TABLE pin_u (n int)")
    a.query("DROP TABLE pin_u")
    assert not is_free(b)
    a.query("DROP TABLE pin_t")
    assert is_free(b)
    a.query("DROP SCHEMA pin_evil CASCADE")


def refused(c, sql):
    with pytest.raises(pgwire.PgError) as caught:
        c.query(sql)
    return caught.value.sqlstate == "0A000"


def test_currval__never_tells_another_clients_number(pair):
    a, b = pair
    a.query("DROP SEQUENCE IF EXISTS pin_q")
    a.query("CREATE SEQUENCE pin_q")
    a.query("SELECT nextval('pin_q')")
    b.query("SELECT nextval('pin_q')")
    for sql in ("SELECT currval('pin_q')", "SELECT lastval()", "INSERT INTO nowhere VALUES (lastval())", "BEGIN; SELECT lastval()"):
        assert refused(a, sql)
    a.query("ROLLBACK")
    a.send(pgwire.run("SELECT currval('pin_q')"), pgwire.sync())
    assert error(a.until_ready()) == "0A000"
    a.send(pgwire.run("SELECT nextval('pin_q')"), pgwire.run("SELECT currval('pin_q')"), pgwire.sync())
    assert rows(a.until_ready(check=True)) == [["3"], ["3"]]
    a.query("DROP SEQUENCE pin_q")


def test_currval__in_the_transaction_that_advanced(pair):
    a, b = pair
    a.query("DROP SEQUENCE IF EXISTS pin_q; CREATE SEQUENCE pin_q; DROP TABLE IF EXISTS pin_teller; CREATE TABLE pin_teller (n serial)")
    assert a.rows("SELECT nextval('pin_q'), currval('pin_q')") == [["1", "1"]]
    a.query("BEGIN")
    assert refused(a, "SELECT lastval()")
    a.query("ROLLBACK")
    a.query("BEGIN")
    a.query("INSERT INTO pin_teller DEFAULT VALUES")
    assert a.rows("SELECT lastval()") == [["1"]]
    a.query("COMMIT")
    assert refused(a, "SELECT lastval()")
    a.query("INSERT INTO pin_teller DEFAULT VALUES; SELECT lastval()")
    assert refused(a, "SELECT lastval(); INSERT INTO pin_teller DEFAULT VALUES")
    a.query("CREATE TEMP TABLE pin_keeps (n serial)")
    a.query("INSERT INTO pin_keeps DEFAULT VALUES")
    assert a.rows("SELECT lastval()") == [["1"]]
    a.query("DROP TABLE pin_teller")
