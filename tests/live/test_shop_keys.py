# SPDX-License-Identifier: BSD-2-Clause
"""One key, one bucket: however a key is written, its row is on the shard that shardmap-tool says, and is found there.

Reads are looked at through decoys: every shard is given *all* keys directly, so that a statement which goes to one more
shard, or to a wrong one, gives one more row, or a wrong port. What a spelling means (some meet no row) is asked of a plain
server with the same table.
"""
import functools
import re
import struct
import subprocess

import conftest
import pgwire
import psycopg
import pytest

TOOL = conftest.ROOT / "build" / "shardmap-tool"
EACH = conftest.BUCKETS // conftest.SHARDS

GOLDEN = [("bigint", "0", 7099, 6576), ("bigint", "1", 2010, 4024), ("bigint", "42", 7135, 6754),
          ("bigint", "-1", 1737, 12197), ("bigint", "9223372036854775807", 6548, None),
          ("text", "customer-1", 12184, 13850), ("uuid", "018f4b8e-37f0-7cc4-b5f2-0f62d09ca662", 8345, 4131)]


@functools.lru_cache(maxsize=1000)
def bucket_of(kind, value, scheme):
    return buckets_of(kind, [value], scheme)[0]


def buckets_of(kind, values, scheme="xxh64"):
    done = subprocess.run([TOOL, "bucket", "--type", kind, "--hash", scheme, "--", *values], capture_output=True, text=True,
                          check=True)
    return [int(line.rsplit(" ", 1)[1]) for line in done.stdout.splitlines()]


def shard_of(kind, value, scheme="xxh64"):
    """The number of the shard where a key's row belongs; *value* as PostgreSQL prints it."""
    return bucket_of(kind, str(value), scheme) // EACH


def shards_of_ints(keys):
    """{key: shard} of many integer keys."""
    keys = list(keys)
    found = {}
    for at in range(0, len(keys), 20000):
        part = keys[at:at + 20000]
        found.update(zip(part, (b // EACH for b in buckets_of("bigint", map(str, part)))))
    return found


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def char_escapes(text):
    return "E'" + "".join(f"\\u{ord(c):04x}" for c in text) + "'"


def unicode_escapes(text):
    return "U&'" + "".join(f"\\{ord(c):04X}" for c in text) + "'"


def strings(text):
    """One string in all of PostgreSQL's ways to write it."""
    return [quoted(text), char_escapes(text), unicode_escapes(text), f"$${text}$$", f"$q${text}$q$"]


def integer(type_name, *values):
    oid, size = {"smallint": (21, 2), "int": (23, 4), "bigint": (20, 8)}[type_name]
    keys = {}
    for v in values:
        text = str(v)
        written = [text, f" {'+' if v >= 0 else ''}{v} ", f"{'-' if v < 0 else '+'}0{abs(v)}"]
        sql = [text, f"({text})", f"- ({-v})", f"{text}.0", f"({text})::int8", f"({text})::numeric", *strings(text),
               f"'{text}'::{type_name}", f"CAST('{text}' AS {type_name})", f"int8 '{text}'", f"'{text}'::text::int8"]
        sql += [quoted(w) for w in written]
        params = [(w, t, 0) for w in written for t in (0, oid, 20)]
        for o, code, bits in ((21, "!h", 15), (23, "!i", 31), (20, "!q", 63)):
            if -2 ** bits <= v < 2 ** bits:
                params.append((struct.pack(code, v), o, 1))
        params.append((v.to_bytes(size, "big", signed=True), 0, 1))
        keys[text] = (sql, params)
    return keys


def textual(oid, casts, *values):
    keys = {}
    for v in values:
        sql = strings(v) + [f"{quoted(v)}::{c}" for c in casts] + [f"CAST({quoted(v)} AS {casts[0]})"]
        keys[v] = (sql, [(v.encode(), t, f) for t in {0, oid, 25} for f in (0, 1)])
    return keys



UUID = "018f4b8e-37f0-7cc4-b5f2-0f62d09ca662"
UUID_FORMS = [UUID, UUID.upper(), "{" + UUID + "}", UUID.replace("-", ""), "{" + UUID.replace("-", "").upper() + "}",
              "018f-4b8e-37f0-7cc4-b5f2-0f62-d09c-a662"]

# table suffix: (column type, shardmap-tool's type, oid, {key as printed: ([SQL spellings], [(bytes or text, oid, format)])})
KINDS = {
    "bigint": ("bigint", "bigint", 20, integer("bigint", 0, 1, 42, -1, 9223372036854775807, -9223372036854775807, 40000, 3000000000)),
    "int": ("int", "integer", 23, integer("int", 0, 1, 42, -1, 2147483647, 40000)),
    "smallint": ("smallint", "smallint", 21, integer("smallint", 0, 1, 42, -1, 32767)),
    "text": ("text", "text", 25, textual(25, ["text", "varchar", "varchar(50)"], "customer-1", "", "it's", "ünïcode ☃", "a\\b", " x ")),
    "varchar": ("varchar(40)", "varchar", 1043, textual(1043, ["varchar", "text"], "customer-1", "", "ünïcode ☃", "x  ")),
    "char": ("char(12)", "char", 1042, {
        v: (strings(v) + [quoted(v + "  "), f"{quoted(v)}::char(12)", f"{quoted(v)}::bpchar", f"{quoted(v + ' ')}::char(12)"],
            [(v, 0, 0), (v + "   ", 0, 0), (v, 1042, 0), (v + " ", 1042, 0), (v.encode(), 1042, 1), (v.encode() + b"  ", 0, 1)])
        for v in ("customer-1", "a", " b")}),
    "uuid": ("uuid", "uuid", 2950, {
        UUID: ([f for u in UUID_FORMS for f in (quoted(u), f"{quoted(u)}::uuid", f"uuid {quoted(u)}")] + strings(UUID),
               [(u, t, 0) for u in UUID_FORMS for t in (0, 2950)] + [(bytes.fromhex(UUID.replace("-", "")), t, 1) for t in (0, 2950)]),
        "ffffffff-ffff-ffff-ffff-ffffffffffff": (["'FFFFFFFF-ffff-ffff-FFFF-ffffffffffff'"], [(b"\xff" * 16, 2950, 1)])}),
    "bytea": ("bytea", "bytea", 17, {
        "\\x00ff61": (["'\\x00ff61'", "'\\x00FF61'", "'\\x 00 ff 61'", "E'\\\\x00ff61'", "'\\000\\377a'", "E'\\\\000\\\\377a'",
                       "$$\\x00ff61$$", "'\\x00ff61'::bytea", "bytea '\\x00ff61'"],
                      [("\\x00ff61", 0, 0), ("\\000\\377a", 17, 0), (b"\x00\xffa", 17, 1), (b"\x00\xffa", 0, 1)]),
        "\\x": (["''", "'\\x'", "''::bytea"], [("", 17, 0), (b"", 17, 1)]),
        "\\x616263": (["'abc'", "'\\x616263'", "'\\141bc'"], [("abc", 17, 0), (b"abc", 17, 1)])}),
    "bool": ("boolean", "boolean", 16, {
        "t": (["true", "TRUE", "'t'", "'T'", "'true'", "'tr'", "'yes'", "'y'", "'on'", "'1'", "' true '", "'true'::bool", "bool 't'"],
              [("t", 0, 0), ("yes", 16, 0), (" ON ", 16, 0), (b"\1", 16, 1), (b"\1", 0, 1)]),
        "f": (["false", "'f'", "'no'", "'off'", "'of'", "'0'", "'FALSE'::boolean"], [("f", 0, 0), ("0", 16, 0), (b"\0", 16, 1)])}),
    "date": ("date", "date", 1082, {
        "2024-02-29": (["'2024-02-29'", "'2024-2-29'", "'20240229'", "'Feb 29 2024'", "'29 February 2024'", "'2024-060'", "'J2460370'",
                        "'02/29/2024'", "date '2024-02-29'", "'2024-02-29'::date", "CAST('2024-02-29' AS date)", "'2024/02/29'",
                        "'2024-02-29 00:00:00'", "E'2024-02-29'"],
                       [("2024-02-29", 0, 0), ("Feb 29 2024", 1082, 0), ("20240229", 1082, 0), (struct.pack("!i", 8825), 1082, 1),
                        (struct.pack("!i", 8825), 0, 1)]),
        "1999-12-31": (["'1999-12-31'", "'12-31-1999'"], [(struct.pack("!i", -1), 1082, 1)]),
        "2000-01-01": (["'2000-01-01'", "'jan 1, 2000'"], [(struct.pack("!i", 0), 1082, 1)])}),
}


def is_optional(kind, key, spelling):
    """Spellings which pgspan need not fold to a constant: a read of them may go to all shards, a write be refused."""
    text = spelling.decode() if isinstance(spelling, bytes) and kind != "date" else str(spelling)
    if kind == "date":
        return not isinstance(spelling, bytes) and "2024-02-29" != text.strip("'") and not re.fullmatch(r"'\d{4}-\d\d-\d\d'", text)
    return "numeric" in text or "varchar(50)" in text or "char(12)" in text or (kind == "varchar" and key.endswith(" "))


def reply(conn, *messages):
    """The rows, or the SQLSTATE, that a batch of messages brings."""
    conn.send(*messages)
    got = conn.until_ready()
    return pgwire.error(got) or pgwire.rows(got)


def query_reply(conn, sql):
    return reply(conn, pgwire.query(sql))


def param_reply(conn, sql, value, oid, form):
    return reply(conn, pgwire.run(sql, [value], [oid], [form]), pgwire.sync())


class Keys:
    """Tables w_KIND (for writing) and r_KIND (decoys) on the shards of one pgspan, and r_KIND on the plain server."""

    def __init__(self, fleet, proxy, scheme):
        self.fleet, self.proxy, self.scheme = fleet, proxy, scheme
        self.ports = [fleet.port(s) for s in fleet.shards]
        for kind, (column, _, _, keys) in KINDS.items():
            make = "".join(f"DROP TABLE IF EXISTS {t}_{kind}; CREATE TABLE {t}_{kind} (k {column}, n text); "
                           f"GRANT ALL ON {t}_{kind} TO app;" for t in "wr")
            for name in [*fleet.shards, "single"]:
                with fleet.connect(name) as conn:
                    conn.execute(make)
                    conn.cursor().executemany(f"INSERT INTO r_{kind} VALUES ((%s::text)::{column}, %s)", [(k, k) for k in keys])
        proxy.start()
        self.direct = [fleet.connect(s) for s in fleet.shards]
        self.wire = proxy.wire("shop")
        self.single = pgwire.Wire.login("127.0.0.1", fleet.port("single"), "app", conftest.APP_PASSWORD, "single")

    def port_of(self, kind, key):
        return self.ports[shard_of(KINDS[kind][1], key, self.scheme)]

    def places(self, kind):
        """Empties w_KIND: [(shard, key as printed)] of what was there."""
        found = []
        for i, conn in enumerate(self.direct):
            found += [(i, k) for (k,) in conn.execute(f"DELETE FROM w_{kind} RETURNING k::text").fetchall()]
        return found

    def expected(self, kind, key):
        return shard_of(KINDS[kind][1], key, self.scheme), {"t": "true", "f": "false"}.get(key, key)

    def close(self):
        self.wire.close()
        self.single.close()
        for conn in self.direct:
            conn.close()
        for name in [*self.fleet.shards, "single"]:
            for kind in KINDS:
                self.fleet.sql(name, f"DROP TABLE w_{kind}, r_{kind}")


@pytest.fixture(scope="module", params=["xxh64", "postgres"])
def keys(request, fleet, tmp_path_factory):
    tables = [f"{t}_{kind} key=k" for kind in KINDS for t in "wr"]
    proxy = conftest.Proxy(fleet, tmp_path_factory.mktemp("keys"),
                           {"database:shop": {"table": tables, "hash": request.param}}, start=False)
    made = Keys(fleet, proxy, request.param)
    yield made
    made.close()
    proxy.finish()


every_kind = pytest.mark.parametrize("kind", KINDS)


def key_text(kind, key):
    """The key as a psql user would see it: char(n) with its blanks."""
    return key.ljust(12) if kind == "char" else key


def test_the_tool_knows_the_golden_vectors():
    for kind, value, xxh64, postgres in GOLDEN:
        assert buckets_of(kind, [value]) == [xxh64]
        if postgres is not None:
            assert buckets_of(kind, [value], "postgres") == [postgres]


def test_postgres_buckets_are_those_of_a_real_server(fleet):
    for kind, value, _, postgres in GOLDEN:
        if postgres is None:
            continue
        name = {"bigint": "hashint8extended", "text": "hashtextextended", "uuid": "uuid_hash_extended"}[kind]
        got = fleet.value("single", f"SELECT (({name}('{value}'::{kind}, 8816678312871386365) & 16383) + 10467) & 16383")
        assert got == postgres


def write_all(keys, kind, key, written, run):
    """*run* stores one row of *key*: on its shard, or refused where that may be. What is not as it should be."""
    got, places = run(), keys.places(kind)
    if (got, places) == ([], [keys.expected(kind, key)]) or (is_optional(kind, key, written) and (got, places) == ("0A000", [])):
        return []
    return [(written, got, places, keys.expected(kind, key))]


@every_kind
def test_insert__every_spelling__lands_on_its_shard(keys, kind):
    wrong = []
    for key, (spellings, params) in KINDS[kind][3].items():
        for spelling in spellings:
            wrong += write_all(keys, kind, key, spelling,
                               lambda s=spelling: query_reply(keys.wire, f"INSERT INTO w_{kind} (n, k) VALUES ('n', {s})"))
        for value, oid, form in params:
            wrong += write_all(keys, kind, key, value, lambda p=(value, oid, form):
                               param_reply(keys.wire, f"INSERT INTO w_{kind} (n, k) VALUES ('n', $1)", *p))
    assert not wrong


def read_all(keys, kind, run):
    """*run*(connection, key, spelling) for every spelling, against the plain server: what is not as it should be."""
    wrong = []
    for key, spelling in ((k, s) for k, (sql, _) in KINDS[kind][3].items() for s in sql):
        plain = run(keys.single, "n", spelling)
        want = plain if isinstance(plain, str) else [[str(keys.port_of(kind, n))] for (n,) in plain]
        got = run(keys.wire, "inet_server_port()", spelling)
        if got != want and not (is_optional(kind, key, spelling) and (got == "0A000" or sorted(got) == everywhere(keys))):
            wrong.append((key, spelling, got, want))
    return wrong


def everywhere(keys):
    return sorted([str(p)] for p in keys.ports)


@every_kind
def test_select__every_spelling__meets_its_shard_only(keys, kind):
    def run(conn, what, spelling):
        return query_reply(conn, f"SELECT {what} FROM r_{kind} WHERE k = {spelling}")
    assert not read_all(keys, kind, run)


@every_kind
def test_select__every_parameter__meets_its_shard_only(keys, kind):
    wrong = []
    for key, (_, params) in KINDS[kind][3].items():
        for value, oid, form in params:
            plain = param_reply(keys.single, f"SELECT n FROM r_{kind} WHERE k = $1", value, oid, form)
            want = plain if isinstance(plain, str) else [[str(keys.port_of(kind, n))] for (n,) in plain]
            got = param_reply(keys.wire, f"SELECT inet_server_port() FROM r_{kind} WHERE $1 = k", value, oid, form)
            if got != want and not (is_optional(kind, key, value) and sorted(got) == everywhere(keys)):
                wrong.append((key, value, oid, form, got, want))
    assert not wrong


@every_kind
def test_execute__every_spelling__meets_its_shard_only(keys, kind):
    column = KINDS[kind][0].split("(")[0] if kind != "char" else "char(12)"
    for conn, what in ((keys.wire, "inet_server_port()"), (keys.single, "n")):
        assert query_reply(conn, f"PREPARE by_{kind} ({column}) AS SELECT {what} FROM r_{kind} WHERE k = $1") == []

    def run(conn, _, spelling):
        return query_reply(conn, f"EXECUTE by_{kind}({spelling})")
    try:
        assert not read_all(keys, kind, run)
    finally:
        for conn in (keys.wire, keys.single):
            query_reply(conn, f"DEALLOCATE by_{kind}")


@every_kind
def test_execute_insert__lands_on_its_shard(keys, kind):
    column = KINDS[kind][0].split("(")[0] if kind != "char" else "char(12)"
    assert query_reply(keys.wire, f"PREPARE put_{kind} ({column}, text) AS INSERT INTO w_{kind} VALUES ($1, $2)") == []
    wrong = []
    for key, (spellings, _) in KINDS[kind][3].items():
        for spelling in spellings:
            wrong += write_all(keys, kind, key, spelling, lambda s=spelling: query_reply(keys.wire, f"EXECUTE put_{kind}({s}, 'n')"))
    query_reply(keys.wire, f"DEALLOCATE put_{kind}")
    assert not wrong


def expected_ports(keys, kind, some):
    return sorted(str(keys.port_of(kind, k)) for k in some)


@every_kind
def test_in_and_any__each_key_once_on_its_shard(keys, kind):
    """With decoys on every shard an IN list gives a key once for each shard that the list meets and the key is on."""
    column, _, oid, all_keys = KINDS[kind]
    names = [n for n in all_keys if not is_optional(kind, n, n)]
    element = column.split("(")[0] if kind != "char" else "bpchar"
    array_oid = {20: 1016, 23: 1007, 21: 1005, 25: 1009, 1043: 1015, 1042: 1014, 2950: 2951, 17: 1001, 16: 1000, 1082: 1182}[oid]
    text_array = "{" + ",".join('"' + n.replace("\\", "\\\\").replace('"', '\\"') + '"' for n in names) + "}"
    wrong = []

    def judge(label, got, some):
        ports = {keys.port_of(kind, k) for k in some}
        want = sorted([k, str(p)] for k in some for p in ports)
        everywhere = sorted([k, str(p)] for k in some for p in keys.ports)
        got = got if isinstance(got, str) else sorted(got)
        # text[]::bpchar[] needs PostgreSQL's own conversion: all shards are right, too.
        if got != want and not (kind in ("char", "varchar") and "psycopg" in label and got == everywhere):
            wrong.append((label, got, want))

    pick = f"SELECT n, inet_server_port() FROM r_{kind} WHERE "
    for some in (names[:1], names[:2], names):
        listed = ", ".join(quoted(n) for n in some)
        for cond in (f"k IN ({listed})", f"k IN ({listed}, NULL)", f"k = ANY (ARRAY[{listed}]::{element}[])",
                     f"(k IN ({listed}) AND n IS NOT NULL)"):
            judge(cond, query_reply(keys.wire, pick + cond), some)
        if len(some) == 1:
            judge("OR itself", query_reply(keys.wire, pick + f"(k = {listed} OR k = {listed})"), some)
    judge("array literal", query_reply(keys.wire, pick + f"k = ANY ({quoted(text_array)})"), names)
    judge("text array", reply(keys.wire, pgwire.run(pick + "k = ANY ($1)", [text_array], [array_oid]), pgwire.sync()), names)
    judge("text array, no type", reply(keys.wire, pgwire.run(pick + "k = ANY ($1)", [text_array]), pgwire.sync()), names)
    two = (names * 2)[:2]
    judge("parameters", reply(keys.wire, pgwire.run(pick + "k IN ($1, $2)", two, [oid, oid]), pgwire.sync()), names[:2])
    with keys.proxy.connect("shop") as conn:
        values = [conn.execute(f"SELECT {quoted(n)}::{column}").fetchone()[0] for n in names]
        for mark in ("%b", "%t"):
            rows = conn.execute(pick + f"k = ANY ({mark}::{element}[])", [values]).fetchall()
            judge(f"psycopg {mark} array", [[n, str(p)] for n, p in rows], names)
    assert not wrong


def test_nulls_and_values_without_a_row(keys):
    w = keys.wire
    assert query_reply(w, "SELECT n FROM r_bigint WHERE k = NULL") == []
    assert query_reply(w, "SELECT n FROM r_bigint WHERE k IN (NULL)") == []
    assert query_reply(w, "SELECT count(*) FROM r_bigint WHERE k IS NULL") == [["0"]]
    assert query_reply(w, "SELECT n FROM r_bigint WHERE k = 42.5") == []
    assert param_reply(w, "SELECT n FROM r_bigint WHERE k = $1", None, 20, 0) == []
    assert param_reply(w, "SELECT n FROM r_bigint WHERE k = $1", "42.5", 1700, 0) == []
    assert query_reply(w, "SELECT n FROM r_bigint WHERE k = '42.5'") == "22P02"
    assert query_reply(w, "SELECT n FROM r_bigint WHERE k = 99999999999999999999") == []
    assert query_reply(w, "SELECT n FROM r_bigint WHERE k = '99999999999999999999'") == "22003"
    assert query_reply(w, "INSERT INTO w_bigint VALUES (99999999999999999999, 'x')") == "22003"
    assert query_reply(w, "INSERT INTO w_smallint VALUES (40000, 'x')") == "22003"
    assert query_reply(w, "INSERT INTO w_bigint VALUES ('x', 'x')") == "22P02"
    assert query_reply(w, "INSERT INTO w_bigint VALUES (NULL, 'x')") == "23502"
    assert query_reply(w, "INSERT INTO w_bigint (n) VALUES ('x')") == "23502"
    assert param_reply(w, "INSERT INTO w_bigint VALUES ($1, 'x')", None, 20, 0) == "23502"
    assert query_reply(w, "INSERT INTO w_uuid VALUES ('018f', 'x')") == "22P02"
    assert query_reply(w, "INSERT INTO w_bool VALUES ('maybe', 'x')") == "22P02"
    assert query_reply(w, "INSERT INTO w_date VALUES ('2023-02-29', 'x')") == "22008"
    assert query_reply(w, "INSERT INTO w_bytea VALUES ('\\xf', 'x')") == "22023"
    assert query_reply(w, "INSERT INTO w_varchar VALUES (repeat('x', 41), 'x')") in ("0A000", "22001")
    assert query_reply(w, f"INSERT INTO w_varchar VALUES ('{'x' * 41}', 'x')") == "22001"
    for kind in KINDS:
        assert keys.places(kind) == []
    assert w.status == "I"


def test_rounded_numbers_are_stored_where_the_stored_value_belongs(keys):
    """42.5 is stored as 43 (PostgreSQL rounds on assignment): that bucket, or a refusal."""
    for written, stored in (("42.5", "43"), ("41.5", "42"), ("-0.4", "0"), ("4.2e1", "42"), ("0.5", "1")):
        got = query_reply(keys.wire, f"INSERT INTO w_bigint VALUES ({written}, 'x')")
        places = keys.places("bigint")
        assert (got, places) in (([], [keys.expected("bigint", stored)]), ("0A000", [])), written


def test_char_and_varchar_that_are_cut_are_placed_by_what_is_stored(keys):
    """An explicit cast to varchar(2) cuts; trailing blanks over the column's length are cut on assignment."""
    for kind, written, stored in (("text", "'abc'::varchar(2)", "ab"), ("text", "'ab   '::char(5)", "ab"), ("varchar", f"'{'x' * 40}   '", "x" * 40),
                                  ("varchar", "'abc'::char(2)", "ab"), ("text", "'abc'::char", "a"), ("text", "'abc'::bpchar", "abc"),
                                  ("text", "'ab  '::bpchar", "ab"), ("text", "'abc'::name", "abc"), ("text", "42", "42"),
                                  ("text", "true", "true"), ("text", "1.50", "1.50"), ("varchar", "'x  '::text", "x  "),
                                  ("text", "date '2024-02-29'", "2024-02-29"), ("text", "'042'::int", "42")):
        got = query_reply(keys.wire, f"INSERT INTO w_{kind} VALUES ({written}, 'x')")
        places = keys.places(kind)
        assert (got, places) in (([], [keys.expected(kind, stored)]), ("0A000", [])), (written, got, places)


def test_other_types_as_parameters__right_or_refused(keys):
    """Parameters of types that are assigned with a conversion."""
    for kind, value, oid, form, stored in (("bigint", "42.5", 1700, 0, "43"), ("bigint", "42", 701, 0, "42"), ("bigint", "42.5", 701, 0, "42"),
                                           ("bigint", struct.pack("!d", 42.5), 701, 1, "42"), ("text", "42", 23, 0, "42"),
                                           ("text", struct.pack("!i", 42), 23, 1, "42"), ("text", b"ab  ", 1042, 0, "ab"),
                                           ("date", "2024-02-29 23:00", 1114, 0, "2024-02-29"), ("bool", "1", 23, 0, None)):
        got = param_reply(keys.wire, f"INSERT INTO w_{kind} VALUES ($1, 'x')", value, oid, form)
        places = keys.places(kind)
        fine = [("0A000", [])] + ([([], [keys.expected(kind, stored)])] if stored else [("42804", [])])
        assert (got, places) in fine, (kind, value, oid)


def test_dates_under_the_sessions_datestyle(keys):
    """A date that DateStyle gives a meaning is read by it, or refused; today is never guessed."""
    with keys.proxy.connect("shop") as conn:
        for style, written, stored in (("ISO, DMY", "03/02/2024", "2024-02-03"), ("ISO, MDY", "03/02/2024", "2024-03-02"),
                                       ("ISO, YMD", "24/02/03", "2024-02-03"), ("German, DMY", "03.02.2024", "2024-02-03")):
            conn.execute(f"SET DateStyle TO {quoted(style)}")
            for put in (f"INSERT INTO w_date VALUES ('{written}', 'x')", f"INSERT INTO w_date VALUES ('{written}'::date, 'x')"):
                try:
                    conn.execute(put)
                except psycopg.errors.FeatureNotSupported:
                    assert keys.places("date") == []
                    continue
                want = keys.expected("date", stored)
                assert keys.places("date") == [want], (style, put)
        conn.execute("RESET DateStyle")
        for word in ("today", "now", "tomorrow", "yesterday"):
            try:
                conn.execute(f"INSERT INTO w_date VALUES ('{word}', 'x')")
            except psycopg.errors.FeatureNotSupported:
                continue
            ((shard, day),) = keys.places("date")
            assert shard == keys.expected("date", day)[0]


COPIED = {kind: list(v[3]) for kind, v in KINDS.items()}


@every_kind
@pytest.mark.parametrize("form", ["text", "csv", "binary", "quoted csv"])
def test_copy__every_key__lands_on_its_shard(keys, kind, form):
    names = [n for n in COPIED[kind] if not is_optional(kind, n, n)]
    want = sorted(keys.expected(kind, k) for k in names)
    with keys.proxy.connect("shop") as conn, conn.cursor() as cur:
        options = {"text": "", "csv": " (FORMAT csv)", "quoted csv": " (FORMAT csv, HEADER)", "binary": " (FORMAT binary)"}[form]
        if form == "binary":
            with keys.fleet.connect("single") as plain:
                with plain.cursor().copy(f"COPY (SELECT k, n FROM r_{kind} WHERE n = ANY (%s)) TO STDOUT (FORMAT binary)", [names]) as out:
                    data = b"".join(out)
        elif form == "text":
            def text(v):
                return v.replace("\\", "\\\\").replace("\t", "\\t")
            data = "".join(f"{text(k)}\t{text(k)}\n" for k in names).encode()
        elif form == "csv":
            data = "".join(f'{k if k and k.strip() == k else chr(34) + k + chr(34)},n\n' for k in names).encode()
        else:
            data = ("k,n\n" + "".join('"' + k.replace('"', '""') + '","n,\nm"\r\n' for k in names).replace("\r\n", "\n")).encode()
        with cur.copy(f"COPY w_{kind} (k, n) FROM STDIN{options}") as put:
            put.write(data)
        assert cur.rowcount == len(names)
    assert sorted(keys.places(kind)) == want


@every_kind
def test_copy__every_text_spelling__lands_on_its_shard(keys, kind):
    """The text forms of the parameters, as COPY fields."""
    for key, (_, params) in KINDS[kind][3].items():
        for value, _, form in params:
            if form == 1 or is_optional(kind, key, value):
                continue
            field = value.decode() if isinstance(value, bytes) else value
            field = field.replace("\\", "\\\\")
            with keys.proxy.connect("shop") as conn, conn.cursor().copy(f"COPY w_{kind} FROM STDIN") as put:
                put.write(f"{field}\tn\n")
            assert keys.places(kind) == [keys.expected(kind, key)], value


@every_kind
def test_update__every_spelling__one_shard(keys, kind):
    """With decoys: an UPDATE by key changes one row of the four."""
    wrong = []
    for key, (spellings, params) in KINDS[kind][3].items():
        for spelling in spellings:
            def run(conn, s=spelling):
                return query_reply(conn, f"UPDATE r_{kind} SET n = n WHERE k = {s} RETURNING n")
            got, want = run(keys.wire), run(keys.single)
            if got != want and not (is_optional(kind, key, spelling) and got == 4 * want):
                wrong.append((spelling, got, want))
        for value, oid, form in params:
            def run_param(conn, v=value, o=oid, f=form):
                return param_reply(conn, f"UPDATE r_{kind} SET n = n WHERE k = $1 RETURNING n", v, o, f)
            got, want = run_param(keys.wire), run_param(keys.single)
            if got != want and not (is_optional(kind, key, value) and got == 4 * want):
                wrong.append((value, oid, form, got, want))
    assert not wrong


def test_other_client_encodings__converted_or_refused(keys):
    """The row is where its UTF-8 bytes say, whatever the client writes in."""
    for style, word in ((s, w) for s in ("simple", "parameter", "escape") for w in ("ün", "é", "çà", "ñandú", "æ")):
        with keys.proxy.wire("shop", client_encoding="LATIN1") as w:
            sql = f"INSERT INTO w_text VALUES ('{word}', 'x')".encode("latin-1")
            if style == "simple":
                got = reply(w, pgwire.query(sql))
            elif style == "escape":
                got = query_reply(w, f"INSERT INTO w_text VALUES ({char_escapes(word)}, 'x')")
            else:
                got = param_reply(w, "INSERT INTO w_text VALUES ($1, 'x')", word.encode("latin-1"), 25, 0)
            assert (got, keys.places("text")) in (("0A000", []), ([], [keys.expected("text", word)])), (style, word)
            assert reply(w, pgwire.query("INSERT INTO w_text VALUES ('customer-1', 'x')")) == []
            assert keys.places("text") == [keys.expected("text", "customer-1")]


def test_copy_in_other_encodings__converted_or_refused(keys):
    for word in ("ün", "é", "çà", "ñandú", "æ"):
        for options, client in (("", "LATIN1"), (" (ENCODING 'LATIN1')", "UTF8")):
            with keys.proxy.wire("shop", client_encoding=client) as w:
                w.send(pgwire.query(f"COPY w_text FROM STDIN{options}"))
                got = pgwire.error(w.until("GE"))
                if got is None:
                    w.send(pgwire.copy_data(f"{word}\tn\n".encode("latin-1")), pgwire.copy_done())
                got = got or pgwire.error(w.until("CE"))
                w.until_ready()
                assert (got, keys.places("text")) in (("0A000", []), (None, [keys.expected("text", word)])), (word, options, client)
