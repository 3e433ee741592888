# SPDX-License-Identifier: BSD-2-Clause
"""Settings that are more than a name and a value: roles, and those that one SET changes in part.

Guards issue 3: a client keeps what it has set, over whichever servers its statements run on.
"""
import pytest

ONE = {"proxy": {"workers": 1}, "database:app": {"default_pool_size": 1}}


@pytest.fixture
def pair(new_proxy):
    """Two clients that share the one server: what each has set is made anew at each turn."""
    proxy = new_proxy(ONE)
    with proxy.wire() as a, proxy.wire() as b:
        yield a, b


@pytest.fixture
def pair_of_postgres(new_proxy):
    proxy = new_proxy(ONE)
    with proxy.wire(user="postgres") as a, proxy.wire(user="postgres") as b:
        yield a, b


def test_a_role_of_before_may_be_dropped(pair_of_postgres, fleet):
    """What has been undone is not made again on the next server: the role is gone by then."""
    fleet.sql("app-primary", "CREATE ROLE passing IN ROLE app")
    who = "SELECT current_user, session_user FROM (SELECT txid_current()) x"
    a, b = pair_of_postgres
    a.query("SET SESSION AUTHORIZATION app")
    a.query("SET SESSION AUTHORIZATION passing")
    a.query("SET ROLE app")
    assert a.rows(who) == [["app", "passing"]]
    a.query("SET work_mem = '5MB'")  # as passing
    a.query("RESET work_mem")
    a.query("RESET SESSION AUTHORIZATION")
    a.query("SET ROLE passing")
    a.query("RESET ROLE")
    a.query("DROP ROLE passing")
    a.query("SET work_mem = '6MB'")
    assert b.rows(who) == [["postgres", "postgres"]]
    assert a.rows(who) == [["postgres", "postgres"]]
    assert a.rows("SELECT current_setting('work_mem') FROM (SELECT txid_current()) x") == [["6MB"]]


def test_authorization_takes_the_role_with_it(pair_of_postgres):
    a, b = pair_of_postgres
    who = "SELECT current_user, session_user FROM (SELECT txid_current()) x"
    a.query("SET ROLE app")
    a.query("RESET SESSION AUTHORIZATION")
    assert (b.rows(who), a.rows(who)) == ([["postgres", "postgres"]], [["postgres", "postgres"]])


def test_datestyle_is_set_by_halves(pair):
    a, b = pair
    day = "SELECT '2001-12-27'::date FROM (SELECT txid_current()) x"
    a.query("SET datestyle TO sql")
    a.query("SET datestyle TO dmy")
    assert (b.rows(day), a.rows(day)) == ([["2001-12-27"]], [["27/12/2001"]])
    a.query("SET datestyle TO mdy")
    assert (b.rows(day), a.rows(day)) == ([["2001-12-27"]], [["12/27/2001"]])
    a.query("RESET datestyle")
    assert (b.rows(day), a.rows(day)) == ([["2001-12-27"]], [["2001-12-27"]])


def test_a_role_made_again_is_another(new_proxy):
    """The server that still has the role of before must take on the new one of that name."""
    proxy = new_proxy({"proxy": {"workers": 1}, "database:single": {"default_pool_size": 3}}, env={"PGSPAN_FAULT": "pool-rotate"})
    with proxy.wire(db="single", user="postgres") as a, proxy.wire(db="single", user="postgres") as b, \
            proxy.wire(db="single", user="postgres") as c:
        for each in (a, b, c):
            each.query("BEGIN; SELECT 1")
        for each in (a, b, c):
            each.query("COMMIT")
        b.query("CREATE ROLE twin; CREATE TABLE only_twins AS SELECT 7 AS n")
        a.query("SET ROLE twin")  # the three servers take turns: this one is a's next, too
        b.query("DROP ROLE twin")
        b.query("CREATE ROLE twin; GRANT SELECT ON only_twins TO twin")
        assert a.rows("SELECT n, current_user FROM only_twins") == [["7", "twin"]]
        a.query("RESET ROLE")
        a.query("DROP TABLE only_twins; DROP ROLE twin")
