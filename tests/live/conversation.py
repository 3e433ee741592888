#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""conversation - random, valid conversations in protocol 3, the same one on two connections, and what differs.

    conversation.py --direct 127.0.0.1:5531 --proxy 127.0.0.1:6432 --database single --count 200     compare many
    conversation.py --direct ... --proxy ... --seed 17 --shrink                                      the least of one that differs
    conversation.py --seed 17 --show                                                                 what it says

A conversation is a list of client messages, made from a seed alone: nothing of it depends on an answer, so that both
sides hear the same. An entry is a list: its letter in the protocol, then its fields (see encode()); ["wait"] means
that the client now reads all that it is owed before it goes on, so what stands between two of them is one pipeline.

A conversation has a schema of its own, c<seed>, made new before each run, so that many can run at once. What cannot be
equal is made so by Normaliser: process ids, OIDs of user-made things, the numbers in pg_temp_N, and the place in
PostgreSQL's source an error is from: see same(). Nothing else.
"""
import argparse
import concurrent.futures
import json
import random
import re
import struct
import sys
import time

import pgwire
from pgwire import Closed, Msg, PgError, Wire, message, z

FIRST_USER_OID = 16384
# Faults that are known and not mended yet: the generator keeps away from them. `--with-open NAME` lets it near one again.
OPEN = {
    "sql-names",  # open: PREPARE, EXECUTE and DEALLOCATE of Parse's names by the extended protocol, and inside strings
    "reset-in-string",  # open: RESET of what came in the startup packet in the middle of a string is refused
    "reset-report",  # open: RESET of what came in the startup packet is reported, though the value does not change
}
RESETS = "reset |default|discard all"
INT4, INT8, TEXT, NUMERIC, VARCHAR, UNKNOWN = 23, 20, 25, 1700, 1043, 705


# -- what is said -----------------------------------------------------------------------------------------------------


def encode(entry):
    """The bytes of an entry of a conversation."""
    kind, args = entry[0], entry[1:]
    if kind == "Q":
        return pgwire.query(args[0])
    if kind == "P":
        return pgwire.parse(*args)
    if kind == "B":
        portal, statement, params, formats, results = args
        raw = [bytes.fromhex(p[1:]) if p is not None and p.startswith("\\") else p for p in params]
        return pgwire.bind(portal, statement, raw, formats, results)
    if kind == "D":
        return pgwire.describe(*args)
    if kind == "E":
        return pgwire.execute(*args)
    if kind == "C":
        return pgwire.close(*args)
    if kind == "F":
        oid, params = args
        out = struct.pack("!IHH", oid, 0, len(params))
        for p in params:
            out += struct.pack("!i", -1) if p is None else struct.pack("!i", len(p)) + p.encode()
        return message("F", out + struct.pack("!h", 0))
    if kind == "d":
        return pgwire.copy_data(args[0].encode())
    if kind == "f":
        return message("f", z(args[0]))
    return message(kind)  # S, H, c


class Writer:
    """Makes a conversation. Its state is the dice alone, and what it lately said: errors are part of conversations."""

    # What a conversation likes to talk about; several likings make one.
    TOPICS = ("select", "write", "txn", "savepoint", "set", "ddl", "cursor", "copy", "error", "notify", "xlock",
              "sqlprep", "plan", "funcall")
    PINNING = ("temp", "lock", "listen", "hold", "discard", "setconfig")

    def __init__(self, seed, away=None):
        self.seed = seed
        self.away = OPEN if away is None else away
        self.dice = random.Random(seed)
        self.said = []
        self.names = 0
        d = self.dice
        self.pins = d.random() < 0.35
        topics = list(self.TOPICS) + (list(self.PINNING) if self.pins else [])
        self.topics = d.sample(topics, d.randint(3, 7))
        self.extended = d.choice((0.1, 0.5, 0.5, 0.9))  # how much of it is in the extended protocol
        self.key_type = d.choice(("int4", "int8", "text", "numeric"))
        self.other_type = d.choice(("text", "int4", "varchar(20)", "date"))

    # -- the world that a conversation is held in -------------------------------------------------------------------

    def schema(self):
        return f"c{self.seed}"

    def setup(self):
        """Statements that make its world anew."""
        other = "'2020-01-0' || i" if self.other_type == "date" else "i * 10"
        return f"""drop schema if exists {self.schema()} cascade; create schema {self.schema()};
            set search_path = {self.schema()};
            create table t1 (a {self.key_type} primary key, b {self.other_type} default null);
            insert into t1 select i::text::{self.key_type}, ({other})::text::{self.other_type} from generate_series(1, 5) i;
            create table t2 (k int primary key, v text, t1_a {self.key_type} references t1 deferrable initially deferred);
            create sequence s;
            create function noisy(int) returns int language plpgsql as
                $$ begin raise notice 'noisy %', $1; return $1 * 2; end $$"""

    def options(self):
        if "reset-report" in self.away:
            return random.Random(self.seed + 1).choice(({"search_path": self.schema()}, {"options": f"-c search_path={self.schema()}"}))
        return random.Random(self.seed + 1).choice((
            {"search_path": self.schema()},
            {"search_path": self.schema(), "application_name": f"app{self.seed}"},
            {"options": f"-c search_path={self.schema()}"},
            {"options": f"-c search_path={self.schema()} -c work_mem=5MB", "DateStyle": "SQL, DMY"},
            {"search_path": self.schema(), "extra_float_digits": "0", "TimeZone": "Asia/Tokyo"},
        ))

    # -- SQL --------------------------------------------------------------------------------------------------------

    def pick(self, *choices):
        return self.dice.choice(choices)

    def key(self):
        return str(self.dice.randint(1, 9))

    def value(self):
        n = self.dice.randint(1, 9)
        return {"date": f"2021-02-0{n}"}.get(self.other_type, str(n * 11))

    def sql(self, topic=None):
        return getattr(self, "sql_" + (topic or self.dice.choice(self.topics)))()

    def sql_select(self):
        k = self.key()
        return self.pick(
            "select 1", "select 1 as one, 'x' as two, null::int as three", "select * from t1 order by 1",
            "select a from t1 order by a", "select b, a from t1 order by a limit 2", "select count(*) from t1",
            f"select * from t1 where a = '{k}'", "values (1, 'a'), (2, 'b')", "select generate_series(1, 7)",
            "table t2", "select t1.a, t2.v from t1 join t2 on t1.a = t2.t1_a order by 1, 2", "select from t1", "select",
            f"select noisy({k})", "select b from t1 for update", "select 'é' as \"ü\"", "select now() - now()",
            "select repeat('x', 10000)", "select 1.5::float8 / 3, '1 day'::interval, '\\x01ff'::bytea, date '2020-02-03'",
            "select current_user, session_user, current_schema()", "/* only */ select 2 -- a comment", "-- nothing", "",
            "with x as (select 1 as n) select n from x", "select xmlcomment('x') is null", "select sum(k) from t2",
            "select timestamptz '2020-01-01 00:00:00+00'", "select '{1,2}'::int[]")

    def sql_write(self):
        k, v = self.key(), self.value()
        return self.pick(
            f"insert into t1 values ('{k}', '{v}')", f"insert into t1 values ('{k}', '{v}') returning *",
            f"insert into t1 values ('{k}', '{v}') on conflict do nothing", f"insert into t1 (a) values ('1{k}')",
            f"update t1 set b = '{v}' where a = '{k}'", f"update t1 set b = default where a = '{k}' returning a, b",
            f"delete from t1 where a = '{k}'", f"insert into t2 values ({k}, 'v', '{k}')",
            f"insert into t2 select 10 + g from generate_series(1, 3) g", "delete from t2", "truncate t2",
            f"with d as (delete from t2 where k = {k} returning *) select * from d",
            f"insert into t2 values ({k}, noisy({k})) on conflict (k) do update set v = excluded.v")

    def sql_txn(self):
        return self.pick(
            "begin", "begin", "begin", "start transaction", "commit", "commit", "end", "rollback", "rollback", "abort",
            "commit and chain", "rollback and chain", "begin isolation level serializable", "begin read only",
            "begin isolation level repeatable read, read only, deferrable", "start transaction read write",
            "set transaction isolation level repeatable read", "set transaction read only",
            "set session characteristics as transaction isolation level repeatable read",
            "set session characteristics as transaction read write", "show transaction_isolation",
            "show transaction_read_only", "set constraints all immediate", "begin work", "begin; select 1",
            "begin; select 1; commit", "select 1; commit", "begin isolation level nonsense", "commit prepared 'nosuch'",
            "select 1; begin", "rollback; begin", "begin; rollback; select 2", "commit; select 3", "begin; begin")

    def sql_savepoint(self):
        n = self.pick("a", "b", '"A"')
        return self.pick(f"savepoint {n}", f"savepoint {n}", f"rollback to {n}", f"rollback to savepoint {n}",
                         f"release {n}", f"release savepoint {n}", "begin", "commit", "select 1/0", "rollback",
                         f"savepoint {n}; select 1/0", f"rollback to {n}; select 5", f"begin; savepoint {n}",
                         f"rollback transaction to {n}")

    def sql_set(self):
        name, values = self.pick(("work_mem", ("'1MB'", "'2MB'", "300", "default", "'bad'")),
                                 ("application_name", ("'one'", "two", "'it''s'", "''")),
                                 ("datestyle", ("iso", "'sql, dmy'", "postgres, mdy", "german")),
                                 ("timezone", ("'UTC'", "'Europe/Paris'", "3", "local", "default", "'No/Where'")),
                                 ("intervalstyle", ("iso_8601", "postgres")),
                                 ("extra_float_digits", ("0", "3", "99")), ("bytea_output", ("escape", "hex")),
                                 ("standard_conforming_strings", ("on",)), ("client_min_messages", ("warning", "notice")),
                                 ("statement_timeout", ("'10min'", "0")), ("my.own", ("'1'", "'2'", "three")),
                                 ("search_path", (self.schema(), f"{self.schema()}, public", "public")),
                                 ("client_encoding", ("'utf8'", "latin1", "sql_ascii", "nonsense")),
                                 ("enable_seqscan", ("on", "off", "maybe")), ("nosuch_setting", ("1",)),
                                 ("default_transaction_read_only", ("off", "on")), ("lock_timeout", ("1000000",)),
                                 ("default_transaction_isolation", ("'repeatable read'", "'read committed'")),
                                 ("session_replication_role", ("replica",)), ("plan_cache_mode", ("force_generic_plan",)))
        value = self.pick(*values)
        if name == "my.own":
            # By design: a setting of one's own, once made in a server session, stays defined there, empty. Only that is seen.
            return self.pick(f"set {name} = {value}", f"set local {name} = {value}", f"set {name} to default",
                             f"select coalesce(nullif(current_setting('{name}', true), ''), 'none')")
        return self.pick(
            f"set {name} = {value}", f"set {name} to {value}", f"set session {name} = {value}", f"set local {name} = {value}",
            f"reset {name}", f"show {name}", f"show {name}", f"select current_setting('{name}', true)",
            f"set {name} = {value}; show {name}", f"select set_config('{name}', '1', true)", "reset all",
            "set time zone 'Asia/Tokyo'", "set time zone interval '2' hour to minute", "set names 'utf8'", "set role none",
            "set session authorization default", "set role nosuch_role", "set role app", "show all_nothing",
            "select timestamptz '2020-01-01 00:00+00', 1.1::float8, '\\x00'::bytea, interval '1 day'",
            f"begin; set {name} = {value}; commit", f"set {name} = {value}; select 1/0", "set xml option document",
            f"begin; set local {name} = {value}; show {name}; rollback", "set schema 'public'", "show search_path",
            f"set {name} from current", f"alter role current_user set {name} = {value}; alter role current_user reset all")

    def sql_ddl(self):
        return self.pick(
            "create table t3 (x int)", "drop table t3", "drop table if exists t3", "alter table t1 add column c int",
            "alter table t1 drop column c", "alter table t1 drop column if exists c", "create index on t1 (b)",
            "create view v1 as select a from t1", "drop view if exists v1", "select * from v1 order by 1",
            "select * from t3", "insert into t3 values (1)", "alter table t1 rename column b to bb", "comment on table t1 is 'x'",
            "alter table t1 rename column bb to b", "create or replace function f1() returns int language sql as 'select 1'",
            "create or replace function f1() returns text language sql as $$ select 'x' $$", "select f1()",
            "drop function if exists f1()", "create table if not exists t3 (x int)", "analyze t1", "vacuum t2",
            "create table t4 as select * from t1", "drop table if exists t4, t5", "create type mood as enum ('a', 'b')",
            "select 'a'::mood", "drop type if exists mood", "do $$ begin raise notice 'done'; end $$", "select * into t5 from t2",
            "create unique index concurrently if not exists i1 on t2 (v)", "grant select on t1 to public", "lock table t1",
            "alter table t1 alter column b type text", "refresh materialized view nosuch", "explain (costs off) select 1")

    def sql_cursor(self):
        c = self.pick("c1", "c2")
        return self.pick(
            f"declare {c} cursor for select * from t1 order by 1", f"declare {c} scroll cursor for select generate_series(1, 9)",
            f"begin; declare {c} cursor for select * from t1 order by 1", f"fetch 2 from {c}", f"fetch all from {c}",
            f"fetch {c}", f"move 1 in {c}", f"fetch backward 1 from {c}", f"close {c}", "close all", "begin", "commit",
            f"fetch forward 0 from {c}", f"declare {c} binary cursor for select 1", f"fetch absolute 2 from {c}",
            f"begin; declare {c} cursor for select 1; fetch {c}; commit", "rollback", f"update t1 set b = b where current of {c}")

    def sql_hold(self):
        c = self.pick("c1", "h1")
        return self.pick(f"declare {c} cursor with hold for select * from t1 order by 1", f"fetch 2 from {c}", f"close {c}",
                         f"fetch all from {c}", "close all", "commit", "begin", "rollback",
                         "select name, is_holdable from pg_cursors order by 1")

    def sql_error(self):
        return self.pick(
            "select 1/0", "selct 1", "select * from nosuch", "select 'x'::int", "select nosuch()", "select 1; select 1/0; select 2",
            "insert into t1 values ('1')", "insert into t1 values ('6', '77'), ('6', '77')", "select 1 +", "create table t1 ()",
            "do $$ begin raise exception 'mine' using errcode = 'AB123', hint = 'h', detail = 'd'; end $$", "select $1",
            "do $$ begin raise warning 'careful'; end $$", "drop table nosuch", "insert into t2 values (99, 'x', '99')", "';",
            "select 'unterminated", "begin; select 1/0; rollback", "select 1; selct", "select (1, 2", "/* never ended",
            "select E'\\xff'", "call noproc()", "commit; select 1/0", "do $$ begin commit; end $$", "select $$ab", "select \"")

    def sql_temp(self):
        return self.pick(
            "create temp table tmp (x int)", "create temp table tmp (x int) on commit drop", "insert into tmp values (1), (2)",
            "select * from tmp", "drop table tmp", "drop table if exists tmp", "create temp view tv as select 1 as x",
            "select * from tv", "create temp table tmp on commit delete rows as select 1 as x", "select 2 as x into temp tmp",
            "discard temp", "drop view if exists tv", "create temp sequence ts", "select nextval('ts')", "truncate tmp",
            "create table pg_temp.tmp (y text)", "begin", "commit", "rollback", "alter table tmp add column z int")

    def sql_lock(self):
        k = self.dice.randint(1, 2)
        n = f"{self.seed}, {k}"
        return self.pick(
            f"select pg_advisory_lock({n})", f"select pg_try_advisory_lock({n})", f"select pg_advisory_unlock({n})",
            f"select pg_advisory_lock_shared({n})", f"select pg_advisory_unlock_shared({n})", "select pg_advisory_unlock_all()",
            f"select count(*), sum(objid::int) from pg_locks where locktype = 'advisory' and classid = {self.seed}")

    def sql_xlock(self):
        k = self.dice.randint(1, 2)
        return self.pick(
            f"select pg_advisory_xact_lock({self.seed}, {k})", f"select pg_try_advisory_xact_lock_shared({self.seed}, {k})",
            f"select count(*) from pg_locks where locktype = 'advisory' and classid = {self.seed}", "begin", "commit", "rollback")

    def sql_listen(self):
        c = self.pick(f"ch{self.seed}", f'"Ch{self.seed}"')
        return self.pick(f"listen {c}", f"unlisten {c}", "unlisten *", f"notify {c}", f"notify {c}, 'payload'",
                         f"select pg_notify('ch{self.seed}', 'p')", "select pg_listening_channels() order by 1", "begin", "commit",
                         f"begin; notify {c}, 'a'; notify {c}, 'b'; commit", "rollback")

    def sql_notify(self):
        return self.pick(f"notify ch{self.seed}", f"notify ch{self.seed}, 'payload'", f"select pg_notify('ch{self.seed}', 'x')")

    def sql_sqlprep(self):
        q = self.pick("q1", "q2", "q1" if "sql-names" in self.away else "s1")
        return self.pick(
            f"prepare {q} as select * from t1 order by a", f"prepare {q} (int) as select $1 + 1", f"prepare {q} as select 1; execute {q}",
            f"prepare {q} as insert into t2 values ($1, 'p')", f"execute {q}", f"execute {q} (5)", f"execute {q} ('{self.key()}')",
            f"deallocate {q}", f"deallocate prepare {q}", "deallocate all", f"explain (costs off) execute {q}", f"prepare {q} as selct",
            f"create table t6 as execute {q}", f"prepare {q} (nosuch) as select 1", "begin", "rollback",
            "select name, statement, from_sql from pg_prepared_statements where from_sql order by 1" if self.pins
            else f"execute {q} (1, 2)")

    def sql_discard(self):
        return self.pick("discard all", "discard plans", "discard sequences", "discard temp")

    def sql_plan(self):
        """Statements that many conversations have in common, over tables that are not alike."""
        return self.pick("select * from t1 where a = $1", "select b from t1 where a = $1", "insert into t1 values ($1, $2)",
                         "update t1 set b = $2 where a = $1", "select $1", "select $1::int4 + 1", "select $1::text || 'x', $2::int8",
                         "select * from t1 order by a", "delete from t2 where k = $1", "select noisy($1)")

    def sql_setconfig(self):
        return self.pick("select set_config('work_mem', '4MB', false)", "show work_mem", "reset work_mem", "discard all",
                         "select set_config('my.own', 'x', false)", "select nullif(current_setting('my.own', true), '')",
                         "do $$ begin perform set_config('work_mem', '6MB', false); end $$",
                         "select setseed(0.25)", "select random() < 2",
                         "create or replace function fs() returns void language sql set work_mem = '7MB' as 'select 1'")

    sql_funcall = sql_select

    def sql_copy(self):
        return self.sql_select()

    # -- messages ---------------------------------------------------------------------------------------------------

    def say(self, *entry):
        self.said.append(list(entry))

    def wait(self):
        self.say("wait")

    def old_name(self):
        if "undo-chain" in self.away:
            return self.pick("", f"s{self.names}", f"s{self.names - 1}", "s0")
        return self.pick("", "", "s1", "s2")

    def new_name(self):
        name = self.pick("", "", "s1", "s2")
        if name and "undo-chain" in self.away:
            self.names += 1
            name = f"s{self.names}"
        return name

    def simple(self):
        """One Query message."""
        topic = self.dice.choice(self.topics)
        if topic == "copy":
            return self.copy_simple()
        if topic == "funcall":
            oid, params = self.pick((177, ["1", "2"]), (1258, ["ab", "cd"]), (177, ["1"]), (177, ["x", "2"]), (99999999, []),
                                    (1258, ["ab", None]))
            return self.say("F", oid, params)
        parts = [self.sql(topic)]
        while self.dice.random() < 0.2:
            parts.append(self.sql())
        resets = [x for x in parts if re.search(RESETS, x)]
        if "reset-in-string" in self.away and resets:
            parts = resets[:1]
        return self.say("Q", self.pick("; ", ";", " ;\n").join(parts) + self.pick("", "", ";"))

    def copy_in_sql(self):
        return self.pick("copy t1 from stdin", "copy t1 (a) from stdin", "copy t2 from stdin (format csv)", "copy nosuch from stdin",
                         "copy t1 from stdin; select 1", "copy t2 (k, v) from stdin", "copy t1 from stdin (format binary)",
                         "insert into t2 values (77, 'q'); copy t1 (a) from stdin", "copy t2 from stdin with (format csv, header)")

    def copy_lines(self):
        d = self.dice
        for _ in range(d.randint(0, 3)):
            yield self.pick(f"1{self.key()}\t{self.value()}\n", f"2{self.key()}\n", f"3{self.key()},x,\n", "bad data\n", f"{self.key()}\t",
                            f"4{self.key()}\t\\N\n", "", "\\.\n", f"5{self.key()}\tv\n6{self.key()}\tw\n", "PGCOPY\n")

    def copy_end(self):
        return ["f", "it failed"] if self.dice.random() < 0.25 else ["c"]

    def copy_simple(self):
        if self.dice.random() < 0.4:
            return self.say("Q", self.copy_out_sql())
        self.say("Q", self.copy_in_sql())
        if self.dice.random() < 0.6:
            self.wait()
        for line in self.copy_lines():
            self.say("d", line)
        return self.say(*self.copy_end())

    def copy_out_sql(self):
        return self.pick("copy t1 to stdout", "copy (select * from t1 order by 1) to stdout", "copy t1 (a) to stdout (format csv, header)",
                         "copy (select 1, 'x'::text) to stdout (format binary)", "copy nosuch to stdout", "copy (select 1/0) to stdout",
                         "copy (select 1 / (5 - g) from generate_series(1, 9) g) to stdout", "copy t2 to stdout; select 1",
                         "copy (select repeat('y', 20000) from generate_series(1, 3)) to stdout")

    def parameters(self, sql):
        """Parameters for *sql*, by its highest $n; and formats: text, or int4 in binary now and then."""
        n = max((int(x) for x in re.findall(r"\$(\d)", sql)), default=0)
        n += self.dice.random() < 0.03
        params, formats = [], []
        for i in range(n):
            binary = self.dice.random() < 0.15
            params.append("\\" + struct.pack("!i", self.dice.randint(1, 9)).hex() if binary
                          else self.pick(self.key(), self.key(), self.value() if i else self.key(), None, "x"))
            formats.append(int(binary))
        if not any(formats) and self.dice.random() < 0.7:
            formats = []
        return params, formats

    def extended_sql(self):
        sql = self.sql("plan") if self.dice.random() < 0.35 else self.sql()
        return "select 3" if "discard-error" in self.away and sql == "discard all" else sql

    def batch(self):
        """Messages of the extended protocol, and the Sync that ends them."""
        d = self.dice
        for _ in range(d.choice((1, 1, 1, 2, 2, 3, 5))):
            begun = len(self.said)
            self.extended_piece()
            if "reset-in-string" in self.away and any(e[0] == "P" and re.search(RESETS, e[2]) for e in self.said[begun:]):
                break
            if d.random() < 0.1:
                self.say("H")
                if d.random() < 0.7:
                    self.wait()
        self.say("S")

    def extended_piece(self):
        d = self.dice
        name, portal = self.old_name(), self.pick("", "", "", "p1", "p2")
        how = d.random()
        if how < 0.07:
            return self.say("C", *self.pick(["S", ""], ["S", "s1"], ["S", "s2"], ["P", ""], ["P", "p1"]))
        if how < 0.12:
            return self.say("D", "S", name)
        if how < 0.17:
            return self.say("E", portal, self.pick(0, 1, 2))
        if how < 0.30:  # what has been prepared before
            params, formats = self.parameters(self.pick("", "$1", "$2"))
            self.say("B", portal, name, params, formats, self.pick([], [], [0], [1]))
            if d.random() < 0.5:
                self.say("D", "P", portal)
            return self.say("E", portal, self.pick(0, 0, 1))
        if how < 0.34:
            return self.copy_extended()
        sql, name = self.extended_sql(), self.new_name()
        types = self.pick([], [], [], [INT4], [TEXT, INT8], [0, INT4], [UNKNOWN]) if "$" in sql else []
        self.say("P", name, sql, types)
        if d.random() < 0.25:
            self.say("D", "S", name)
        if d.random() < 0.08:
            return None
        for _ in range(d.choice((1, 1, 1, 1, 2))):
            params, formats = self.parameters(sql)
            self.say("B", portal, name, params, formats, self.pick([], [], [], [0], [1], [0, 1]))
            if d.random() < 0.6:
                self.say("D", "P", portal)
            limit = self.pick(0, 0, 0, 1, 2)
            self.say("E", portal, limit)
            while limit and d.random() < 0.6:
                self.say("E", portal, limit)
        if d.random() < 0.2:
            self.say("C", *self.pick(["S", name], ["P", portal]))
        return None

    def copy_extended(self):
        if self.dice.random() < 0.4:
            sql = self.copy_out_sql()
            self.say("P", "", sql, [])
            self.say("B", "", "", [], [], [])
            return self.say("E", "", 0)
        sql = self.copy_in_sql()
        self.say("P", "", sql, [])
        self.say("B", "", "", [], [], [])
        if self.dice.random() < 0.3:
            self.say("D", "P", "")
        self.say("E", "", 0)
        if self.dice.random() < 0.7:  # as libpq does it: a Sync at once, which is passed over while the COPY runs
            self.say("S")
            self.wait()
        for line in self.copy_lines():
            self.say("d", line)
        return self.say(*self.copy_end())

    def write(self):
        """The whole of it."""
        d = self.dice
        for _ in range(d.randint(4, 22)):
            if d.random() < self.extended:
                self.batch()
            else:
                self.simple()
            if d.random() < 0.7 or ("undo-chain" in self.away and self.said[-1] == ["S"]):
                self.wait()
        return self.said


# -- how it is held ---------------------------------------------------------------------------------------------------


class Talk:
    """One side of a conversation: sends its entries and reads what each is owed, by the protocol's own rules.

    `heard` has (number of the entry that was answered, message). Only what the server must have sent by now is waited
    for: the answers up to the last Query, FunctionCall, Sync or Flush.
    """

    def __init__(self, wire):
        self.wire, self.heard = wire, []
        self.owed = []  # (number, entry) not answered yet
        self.skipping = False  # an error in the extended protocol: nothing is answered until Sync
        self.copying = None  # the (number, entry) that began a COPY from us

    def hold(self, entries):
        unsent = []
        try:
            for number, entry in enumerate(entries):
                if entry[0] != "wait":
                    unsent.append(encode(entry))
                    self.owed.append((number, entry))
                    continue
                self.wire.send(*unsent)
                unsent = []
                self.answers()
            # Whatever state it is in: a COPY ends, then Sync, then a statement that must be answered at last.
            last = [] if not self.copying else [["f", "the end"]]
            last += [["S"], ["Q", "rollback"], ["Q", "select 'the end'"]]
            for i, entry in enumerate(last):
                unsent.append(encode(entry))
                self.owed.append((len(entries) + i, entry))
            self.wire.send(*unsent)
            self.answers()
            while self.copying:  # one that the last batch began
                self.wire.send(encode(["c"]), encode(["S"]))
                self.owed += [(len(entries) + 3, ["c"]), (len(entries) + 4, ["S"])]
                self.answers()
        except (Closed, OSError) as e:
            self.heard.append((self.owed[0][0] if self.owed else -1, Msg(type(e).__name__, b"")))
        return self.heard

    def read(self, number, until):
        while True:
            msg = self.wire.read()
            self.heard.append((number, msg))
            if msg.tag in until:
                return msg.tag

    def answers(self):
        while self.owed and (self.copying or any(e[0] in "QFSH" for _, e in self.owed)):
            if self.copying:
                if not self.copy_goes_on():
                    return
                continue
            number, entry = self.owed.pop(0)
            kind = entry[0]
            if self.skipping and kind != "S":
                continue
            if kind == "S":
                self.skipping = False
                self.read(number, "Z")
            elif kind in "QF":
                if self.read(number, "ZG") == "G":
                    self.copying = (number, entry)
            elif kind in "PBCDE":
                self.ended(number, entry, self.read(number, {"P": "1E", "B": "2E", "C": "3E", "D": "TnE", "E": "CIsEG"}[kind]))

    def ended(self, number, entry, tag):
        if tag == "E":
            self.skipping = True
        elif tag == "G":
            self.copying = (number, entry)

    def copy_goes_on(self):
        """Whether the COPY came to its end with what has been sent."""
        number, entry = self.copying
        at = next((i for i, (_, e) in enumerate(self.owed) if e[0] not in "dSH"), None)
        if at is None or (entry[0] == "E" and self.owed[at][1][0] == "c" and not any(e[0] in "QFSH" for _, e in self.owed[at + 1:])):
            # A wrong line may be told before its end; it will be read then.
            return False
        del self.owed[:at + 1]
        self.copying = None
        if entry[0] == "Q":
            if self.read(number, "ZG") == "G":
                self.copying = (number, entry)
        else:
            self.ended(number, entry, self.read(number, "CEG"))
        return True


# -- what was heard ---------------------------------------------------------------------------------------------------


class Normaliser:
    """Makes equal what cannot be."""

    def __init__(self):
        self.oids = {}

    def oid(self, n):
        return n if n < FIRST_USER_OID else FIRST_USER_OID + self.oids.setdefault(n, len(self.oids))

    def __call__(self, msg):
        tag, body = msg
        if tag == "T":
            (n,), at, out = struct.unpack_from("!H", body), 2, []
            for _ in range(n):
                end = body.index(b"\0", at)
                table, att, oid, size, mod, fmt = struct.unpack_from("!IhIhih", body, end + 1)
                out.append((body[at:end].decode("utf-8", "replace"), self.oid(table), att, self.oid(oid), size, mod, fmt))
                at = end + 19
            return (tag, out)
        if tag == "t":
            return (tag, [self.oid(o) for o in struct.unpack(f"!{(len(body) - 2) // 4}I", body[2:])])
        if tag == "A":
            return (tag, body[4:])
        if tag in "EN":
            fields = {k: re.sub(r"pg_(toast_)?temp_\d+", r"pg_\1temp_N", v) for k, v in msg.error.items()}
            if "stmt-name" in OPEN:
                fields["M"] = re.sub(r'prepared statement "[^"]*"', 'prepared statement "?"', fields["M"])
            return (tag, fields)
        if tag == "D":
            return (tag, msg.row)
        return (tag, body)


def same(a, b):
    if a == b:
        return True
    if a[0] not in "EN" or a[0] != b[0]:
        return False
    left, right = dict(a[1]), dict(b[1])
    # The same error from another line of PostgreSQL's source: pgspan has written it, or its own Parse of a statement that
    # this server had not got yet has met it.
    for code in "FLR":
        left.pop(code, None)
        right.pop(code, None)
    # That Parse also comes before Bind counts its parameters, in a failed block.
    if left["C"] == "08P01" and left["M"].startswith("bind message supplies") and right["C"] == "25P02":
        return True
    return left == right


def difference(direct, proxied):
    """None, or (number of the entry, what PostgreSQL said, what pgspan said) of the first difference."""
    left, right = Normaliser(), Normaliser()
    for i in range(max(len(direct), len(proxied))):
        a = left(direct[i][1]) if i < len(direct) else ("nothing", b"")
        b = right(proxied[i][1]) if i < len(proxied) else ("nothing", b"")
        if "copy-query" in OPEN and a[0] == "E" and re.match("unexpected message type|terminating connection", a[1]["M"]):
            return None
        if not same(a, b):
            return ((direct[i] if i < len(direct) else proxied[i])[0], a, b)
    return None


class Stage:
    """Where conversations are held: a server, and pgspan before it."""

    def __init__(self, direct, proxy, database="single", user="app", password="app-secret", timeout=20.0):
        self.direct, self.proxy, self.timeout = direct, proxy, timeout
        self.login = {"user": user, "password": password, "database": database}

    def one_side(self, address, writer, entries):
        with Wire.login(*self.direct, timeout=60, **self.login) as wire:
            wire.query("set client_min_messages = error; set lock_timeout = '30s'")
            wire.query(writer.setup())
        try:
            wire = Wire.login(*address, timeout=self.timeout, **self.login, **writer.options())
        except (PgError, Closed, OSError) as e:
            return [(-1, Msg("login", repr(e).encode()))]
        with wire:
            greeting = Msg("params", repr(sorted(wire.params.items())).encode())
            return [(-1, greeting)] + Talk(wire).hold(entries)

    def compare(self, seed, entries=None):
        writer = Writer(seed)
        entries = writer.write() if entries is None else entries
        return difference(self.one_side(self.direct, writer, entries), self.one_side(self.proxy, writer, entries))

    def compare_all(self, seeds, threads=16):
        """Yields (seed, difference or None), several conversations at once."""
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            yield from pool.map(lambda seed: (seed, self.compare(seed)), seeds)

    def forget(self, seeds):
        """Takes their schemas away."""
        with Wire.login(*self.direct, timeout=60, **self.login) as wire:
            wire.query("set client_min_messages = error")
            for seed in seeds:
                wire.query(f"drop schema if exists c{seed} cascade")

    def shrink(self, seed, tries=1, entries=None):
        """The shortest list found that still differs, as (entries, difference)."""
        entries = entries or Writer(seed).write()

        kind = []  # what the two sides said: another difference is another fault

        def differs(some):
            for _ in range(tries):
                found = self.compare(seed, some)
                if found and kind in ([], [found[1][0], found[2][0]]):
                    kind[:] = [found[1][0], found[2][0]]
                    return found
            return None

        found = differs(entries)
        if not found:
            return entries, None
        if 0 <= found[0] < len(entries):
            cut = entries[:found[0] + 8]
            again = differs(cut)
            entries, found = (cut, again) if again else (entries, found)
        size = max(len(entries) // 2, 1)
        while True:
            at, smaller = 0, False
            while at < len(entries):
                some = entries[:at] + entries[at + size:]
                again = differs(some)
                if again:
                    entries, found, smaller = some, again, True
                else:
                    at += size
            if size == 1 and not smaller:
                break
            size = max(size // 2, 1)
        return self.shorten_sql(entries, found, differs)

    @staticmethod
    def shorten_sql(entries, found, differs):
        """Drops statements of multi-statement strings."""
        for i, entry in enumerate(entries):
            while entry[0] == "Q" and ";" in entry[1] and "$$" not in entry[1]:
                parts = [p for p in re.split(r"\s*;\s*", entry[1]) if p]
                for skip in range(len(parts)):
                    some = list(entries)
                    some[i] = ["Q", "; ".join(parts[:skip] + parts[skip + 1:])]
                    again = differs(some)
                    if again:
                        entries, found, entry = some, again, some[i]
                        break
                else:
                    break
        return entries, found


def show(entries):
    return "\n".join(f"  {i:3} {json.dumps(e, ensure_ascii=False)}" for i, e in enumerate(entries))


def show_difference(seed, found):
    return f"seed {seed}, at entry {found[0]}:\n  direct: {str(found[1])[:600]}\n  pgspan: {str(found[2])[:600]}"


def address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def main():
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--direct", type=address)
    p.add_argument("--proxy", type=address)
    p.add_argument("--database", default="single")
    p.add_argument("--user", default="app")
    p.add_argument("--password", default="app-secret")
    p.add_argument("--seed", type=int)
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--from", dest="first", type=int, default=1)
    p.add_argument("--threads", type=int, default=16)
    p.add_argument("--tries", type=int, default=1, help="for differences that come by chance")
    p.add_argument("--timeout", type=float, default=20)
    p.add_argument("--shrink", action="store_true")
    p.add_argument("--show", action="store_true")
    p.add_argument("--with-open", action="append", default=[], help="go near a fault that OPEN keeps away from")
    p.add_argument("--entries", help="a file of JSON: one entry a line, instead of the seed's own")
    a = p.parse_args()
    OPEN.difference_update(a.with_open)
    entries = None
    if a.entries:
        with open(a.entries, encoding="utf-8") as f:
            entries = [json.loads(re.sub(r"^\s*\d+\s+", "", line)) for line in f if line.strip()]
    if a.show:
        print(Writer(a.seed).options(), Writer(a.seed).key_type, Writer(a.seed).other_type)
        print(show(entries or Writer(a.seed).write()))
        return 0
    stage = Stage(a.direct, a.proxy, a.database, a.user, a.password, a.timeout)
    if a.seed is not None:
        if a.shrink:
            entries, found = stage.shrink(a.seed, a.tries, entries)
            print(show(entries))
        else:
            found = stage.compare(a.seed, entries)
        print(show_difference(a.seed, found) if found else f"seed {a.seed}: equal")
        stage.forget([a.seed])
        return int(bool(found))
    begun, unequal = time.monotonic(), 0
    seeds = range(a.first, a.first + a.count)
    for seed, found in stage.compare_all(seeds, a.threads):
        if found:
            unequal += 1
            print(show_difference(seed, found), flush=True)
    stage.forget(seeds)
    print(f"{a.count - unequal} equal, {unequal} not, {time.monotonic() - begun:.1f} s")
    return int(bool(unequal))


if __name__ == "__main__":
    sys.exit(main())
