# SPDX-License-Identifier: BSD-2-Clause
"""The temporary schema: whatever is made there pins the server, not tables alone, until it is gone.

Guards issue 3: temporary objects live in one server process, and are nobody else's.
"""
import pytest

MAKE = {
    "table": "CREATE TEMP TABLE passing (a int)",
    "qualified": "CREATE TABLE pg_temp.passing (a int)",
    "view": "CREATE TEMP VIEW passing AS SELECT 1",
    "sequence": "CREATE TEMP SEQUENCE passing",
    "statistics": "CREATE STATISTICS pg_temp.passing ON a, b FROM pinned_ab",
    "function": "CREATE FUNCTION pg_temp.passing() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "aggregate": "CREATE AGGREGATE pg_temp.passing (int) (sfunc = int4pl, stype = int4)",
    "type": "CREATE TYPE pg_temp.passing AS (a int)",
    "domain": "CREATE DOMAIN pg_temp.passing AS int",
    "operator": "CREATE OPERATOR pg_temp.!=! (leftarg = int, rightarg = int, function = int4ne)",
    "collation": 'CREATE COLLATION pg_temp.passing FROM "C"',
    "text-search": "CREATE TEXT SEARCH CONFIGURATION pg_temp.passing (copy = simple)",
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_what_is_temporary_pins(new_proxy, make):
    proxy = new_proxy({"proxy": {"workers": 1}, "database:single": {"default_pool_size": 3}}, env={"PGSPAN_FAULT": "pool-rotate"})
    with proxy.wire(db="single", user="postgres") as a, proxy.wire(db="single", user="postgres") as b:
        def servers():
            return {a.rows("SELECT pg_backend_pid()")[0][0] for _ in range(4)}

        for each in (a, b):
            each.query("BEGIN; SELECT 1")
        for each in (a, b):
            each.query("COMMIT")
        a.query("CREATE TABLE IF NOT EXISTS pinned_ab (a int, b int)")
        for sql in ("BEGIN", make, "COMMIT"):  # what a block makes may be gone with it, so pgspan asks
            a.query(sql)
        pinned = servers()
        assert len(pinned) == 1
        a.query("CREATE TABLE dropped (a int)")
        a.query("DROP TABLE dropped")  # it asks again
        assert servers() == pinned
        a.query("DISCARD TEMP")
        assert servers() != pinned
