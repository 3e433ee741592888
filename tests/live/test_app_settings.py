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
