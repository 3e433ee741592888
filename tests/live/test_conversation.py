# SPDX-License-Identifier: BSD-2-Clause
"""Random sessions: what a client hears through pgspan is what it hears without, and what it leaves behind nobody finds.

When one differs, conversation.py makes the least of it:
    /usr/bin/python3 tests/live/conversation.py --seed N --shrink --direct host:port --proxy host:port
"""
import random

import psycopg
import pytest

import conversation
from conftest import SLOW_FACTOR
from conversation import Stage, Writer, encode, show_difference
from pgwire import Closed, Wire, bind, error, parse, rows, sync

FEW = range(1, 151)
MANY = [*range(1001, 2001), *range(3001, 4001)]
WAIT_S = 5 * SLOW_FACTOR
APP = {"user": "app", "password": "app-secret", "database": "conversation"}


@pytest.fixture(scope="module")
def database(fleet):
    """A database whose schema public nobody can write to: there, conversations would meet."""
    fleet.sql("single", "drop database if exists conversation")
    fleet.sql("single", "create database conversation")
    with psycopg.connect(fleet.dsn("single").replace("dbname=single", "dbname=conversation"), autocommit=True) as conn:
        conn.execute("revoke create on schema public from public; grant create on database conversation to app")
    yield "conversation"
    fleet.sql("single", "drop database conversation with (force)")


@pytest.fixture
def start(new_proxy, fleet, database):
    def pgspan(**settings):
        proxy = new_proxy({"proxy": {"query_wait_timeout": "60", **settings},
                           f"database:{database}": {"primary": f"host=127.0.0.1 port={fleet.port('single')} dbname={database}"}})
        return "127.0.0.1", proxy.port
    return pgspan


@pytest.fixture
def stage(start, fleet):
    return Stage(("127.0.0.1", fleet.port("single")), start(workers="4", default_pool_size="2"), **APP, timeout=30 * SLOW_FACTOR)


def compare(stage, seeds, may_differ=0):
    found = [show_difference(seed, d) for seed, d in stage.compare_all(seeds, threads=8) if d]
    stage.forget(seeds)
    assert len(found) <= may_differ, f"{len(found)} of {len(seeds)} conversations differ:\n" + "\n".join(found[:10])


def test_conversations(stage):
    compare(stage, FEW)


@pytest.mark.slow
def test_many_conversations(stage):
    # Open: in a block that has failed, and behind an error, which of two errors is told may depend on what the server has been
    # sent already (a statement that pgspan must make there first); and DISCARD ALL twice in one batch. 1 to 3 in a thousand.
    compare(stage, MANY, may_differ=12)


# -- what is left behind ----------------------------------------------------------------------------------------------

# Each is asked of a server that another client has had before, and of a new one.
TRACES = {
    # By design: a setting with a dot in its name stays defined in a server session once it, or its library, was there, but empty
    # or with its default.
    "settings": "select name, setting, case when name !~ '^transaction_' then source end from pg_settings"
                " where not (name ~ '[.]' and (setting = '' or source = 'default'))",
    "locks": "select classid, objid, mode from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    "statements": "select name, statement from pg_prepared_statements where name !~ '^pgspan_'",
    "channels": "select pg_listening_channels()",
    "cursors": "select name from pg_cursors where name <> ''",
    "who": "select current_user, session_user, current_schemas(false), current_setting('is_superuser')",
    # The schema itself stays once it was made; it must be empty.
    "temporary": "select relname from pg_class where relnamespace = pg_my_temp_schema()"
                 " union all select proname from pg_proc where pronamespace = pg_my_temp_schema()"
                 " union all select typname from pg_type where typnamespace = pg_my_temp_schema()",
    "transaction": "select pg_current_xact_id_if_assigned() is null, pg_is_in_recovery()",
}  # lastval() and currval() are not here: pgspan refuses them to a session that has not its server any more.


class Mess(Writer):
    """Changes everything about a session that can be changed."""

    def __init__(self, seed):
        super().__init__(seed, away=set())
        self.topics = self.dice.sample(["set", "setconfig", "temp", "lock", "listen", "hold", "sqlprep", "discard", "txn", "savepoint",
                                        "ddl", "cursor", "error", "role", "sequence", "call"], 6)
        self.extended = 0.4

    def sql_role(self):
        return self.pick("set role app", "set role none", "set local role app", "set session authorization app", "reset role",
                         "set session authorization default", "set session characteristics as transaction read only",
                         "set session characteristics as transaction isolation level serializable deferrable")

    def sql_sequence(self):
        return self.pick("create temp sequence ts", "select nextval('ts')", "select setval('ts', 9)", "discard sequences")

    def sql_call(self):
        name, value = self.pick(("work_mem", "9MB"), ("search_path", "pg_catalog"), ("datestyle", "german"), ("role", "app"),
                                ("statement_timeout", "99s"), ("enable_hashjoin", "off"))
        return self.pick(f"select set_config('{name}', '{value}', false)", f"select set_config('{name}', '{value}', true)",
                         f"do $$ begin perform set_config('{name}', '{value}', false); end $$",
                         f"do $$ begin execute 'set {name} = ''{value}'''; end $$",
                         f"with x as (select set_config('{name}', '{value}', false)) select * from x",
                         f"select set_config(n, '{value}', false) from (values ('{name}')) v (n)",
                         "do $$ begin perform pg_advisory_lock(1); end $$", "do $$ begin execute 'listen hidden'; end $$",
                         "do $$ begin execute 'create temp table hidden (x int)'; end $$",
                         "do $$ begin execute 'prepare hidden as select 1'; end $$")


def traces(wire):
    found = {}
    for name, sql in TRACES.items():
        wire.send(conversation.pgwire.query(sql))
        msgs = wire.until_ready()
        found[name] = error(msgs) or rows(msgs)
    # Nor is there an unnamed statement that another has made.
    wire.send(bind("", ""), sync())
    found["unnamed"] = error(wire.until_ready())
    return found


def make_mess(wire, seed):
    """Says a conversation's entries without caring for the answers."""
    entries = Mess(seed).write()
    conversation.Talk(wire).hold(entries if random.Random(seed).random() < 0.7 else entries[:len(entries) // 2])


def leftovers(proxy_address, seed, expected):
    """What client B finds that a new connection does not have, after client A."""
    dice = random.Random(seed)
    a = Wire.login(*proxy_address, timeout=WAIT_S, **APP)
    make_mess(a, seed)
    how = dice.choice(["says goodbye", "vanishes", "vanishes in a transaction", "vanishes in a batch", "stays"])
    if how == "vanishes in a transaction":
        a.send(conversation.pgwire.query("begin; set local work_mem = '3MB'; set statement_timeout = '98s'"))
        a.until_ready()
    elif how == "vanishes in a batch":
        a.send(parse("", "set work_mem = '3MB'"), bind("", ""), encode(["E", "", 0]), encode(["H"]))
        a.until("CE")
    if how == "says goodbye":
        a.close()
    elif how != "stays":
        a.abort()
    with Wire.login(*proxy_address, timeout=WAIT_S, **APP) as b:
        if how == "stays":  # it may keep the only server, with a reason
            b.send(conversation.pgwire.query("select 1"))
            if b.is_silent(0.3):
                a.close()
            b.until_ready()
        found = traces(b)
    a.abort()
    return {f"{k}, as A {how}": [x for x in v if x not in expected[k]] + ["missing:"] + [x for x in expected[k] if x not in v]
            if isinstance(v, list) and isinstance(expected[k], list) else v for k, v in found.items() if v != expected[k]}


def look_for_leftovers(proxy, fleet, seeds):
    with Wire.login("127.0.0.1", fleet.port("single"), **APP) as new:
        expected = traces(new)
    bad = {}
    for seed in seeds:
        try:
            found = leftovers(proxy, seed, expected)
        except (TimeoutError, Closed) as e:
            found = repr(e)
        if found:
            bad[seed] = found
    assert not bad, f"{len(bad)} of {len(seeds)} clients leave something behind:\n" + "\n".join(
        f"{k}: {v}" for k, v in list(bad.items())[:20])


def test_nothing_is_left_behind(start, fleet):
    look_for_leftovers(start(workers="1", default_pool_size="1"), fleet, range(1, 61))


@pytest.mark.slow
def test_nothing_is_left_behind_by_many(start, fleet):
    look_for_leftovers(start(workers="1", default_pool_size="1"), fleet, range(61, 361))
