# SPDX-License-Identifier: BSD-2-Clause
"""Unmodified pgbench on four shards: exact counts, each row on its shard, the four sums equal; also when pgspan is killed.

PGSPAN_FAULT="NAME:n" ends pgspan with SIGKILL where a two-phase commit passes NAME for the n-th time.
"""
import subprocess
import time

import conftest
import pytest
from test_shop_keys import shards_of_ints

TABLES = {"pgbench_accounts": "aid", "pgbench_tellers": "tid", "pgbench_branches": "bid", "pgbench_history": "aid"}
STEPS = ["twophase_begin", "twophase_prepared", "twophase_decided", "twophase_finished"]
SUMS = "SELECT (SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts), (SELECT coalesce(sum(tbalance), 0) FROM pgbench_tellers), " \
       "(SELECT coalesce(sum(bbalance), 0) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"


def drop(fleet):
    for shard in fleet.shards:
        fleet.sql(shard, "DROP TABLE IF EXISTS pgbench_accounts, pgbench_tellers, pgbench_branches, pgbench_history")


@pytest.fixture
def clean(fleet):
    drop(fleet)
    yield fleet
    drop(fleet)


def assert_placed(fleet, table, unique=True):
    """Each row on the shard of its key, no key twice; how many rows there are."""
    keys = {}
    total = 0
    for i, shard in enumerate(fleet.shards):
        rows = fleet.sql(shard, f"SELECT {TABLES[table]}, count(*) FROM {table} GROUP BY 1")
        for key, n in rows:
            assert key not in keys, f"{table}: {key} is on shards {keys[key]} and {i}"
            assert n == 1 or not unique, f"{table}: {key} is there {n} times"
            keys[key] = i
            total += n
    want = shards_of_ints(keys)
    wrong = [(k, s, want[k]) for k, s in keys.items() if want[k] != s]
    assert not wrong, f"{table}: {len(wrong)} rows on other shards than the map says: {wrong[:5]}"
    return total


def sums(fleet):
    each = [fleet.sql(shard, SUMS)[0] for shard in fleet.shards]
    return [int(sum(column)) for column in zip(*each)]


def assert_whole(fleet, scale):
    assert assert_placed(fleet, "pgbench_accounts") == 100000 * scale
    assert assert_placed(fleet, "pgbench_tellers") == 10 * scale
    assert assert_placed(fleet, "pgbench_branches") == scale
    assert_placed(fleet, "pgbench_history", unique=False)


def check_run(fleet, proxy, pgbench, scale, seconds, modes):
    for mode in modes:
        before = fleet.all_shards("SELECT count(*) FROM pgbench_history")
        done = pgbench(proxy.port, "shop", "-c", 16, "-j", 2, "-T", seconds, "-M", mode, "-n")
        assert done.ok and done.transactions > 0, done
        after = fleet.all_shards("SELECT count(*) FROM pgbench_history")
        assert sum(n for (n,) in after) - sum(n for (n,) in before) == done.transactions
        found = sums(fleet)
        assert len(set(found)) == 1, (mode, found)
        assert fleet.prepared() == []
        print(f"TPC-B {mode}: {done.tps:.0f} tps")
    assert_whole(fleet, scale)
    assert proxy.sql("SELECT count(*) FROM pgbench_accounts", "shop") == [(100000 * scale,)]
    assert [int(proxy.sql(f"SELECT sum({c}) FROM {t}", "shop")[0][0]) for t, c in
            (("pgbench_accounts", "abalance"), ("pgbench_tellers", "tbalance"), ("pgbench_branches", "bbalance"), ("pgbench_history", "delta"))] == sums(fleet)


def test_pgbench_small(clean, proxy, pgbench):
    done = pgbench(proxy.port, "shop", "-i", "-s", 1, "-q")
    assert done.status == 0, done
    assert sums(clean) == [0, 0, 0, 0]
    assert_whole(clean, 1)
    check_run(clean, proxy, pgbench, 1, 2, ["simple", "extended", "prepared"])


def test_pgbench_server_side_generation__exact_or_refused(clean, proxy, pgbench):
    done = pgbench(proxy.port, "shop", "-i", "-I", "dtGvp", "-s", 1)
    if done.status == 0:
        assert_whole(clean, 1)
        return
    assert "INSERT" in done.err and "ERROR" in done.err, done
    for shard in clean.shards:
        assert clean.value(shard, "SELECT count(*) FROM pgbench_accounts") == 0
    assert proxy.sql("SELECT count(*) FROM pgbench_accounts", "shop") == [(0,)]


def test_pgbench_other_initialisations(clean, proxy, pgbench):
    for args in (["-i", "-s", 1, "-q", "--unlogged-tables"], ["-i", "-s", 1, "-I", "dtgvp", "-q"], ["-i", "-I", "dt"], ["-i", "-I", "d"]):
        done = pgbench(proxy.port, "shop", *args)
        assert done.status == 0, (args, done)
    for shard in clean.shards:
        assert clean.value(shard, "SELECT to_regclass('pgbench_accounts')") is None


@pytest.mark.slow
def test_pgbench_scale_10(clean, proxy, pgbench):
    done = pgbench(proxy.port, "shop", "-i", "-s", 10, "-q")
    assert done.status == 0, done
    assert_whole(clean, 10)
    check_run(clean, proxy, pgbench, 10, 10, ["simple", "extended", "prepared"])


# -- kill -9 ------------------------------------------------------------------------------------------------------------


def start_load(proxy, fleet, seconds):
    """pgbench in the background; its clients may lose their connections."""
    env = {"PATH": "/usr/bin:/bin", "PGPASSWORD": conftest.APP_PASSWORD, "LC_ALL": "C.UTF-8"}
    return subprocess.Popen([f"{fleet.impl.bin}/pgbench", "-h", "127.0.0.1", "-p", str(proxy.port), "-U", "app", "-c", "8", "-j", "2", "-T", str(seconds),
                             "-n", "shop"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_at(fleet, proxy, step, n):
    """Starts pgspan with the fault, loads it until it dies, starts it again without; then all must be whole."""
    proxy.env["PGSPAN_FAULT"] = f"{step}:{n}" if step else ""
    if proxy.is_running:
        proxy.kill9()
    proxy.start()
    proxy.expect_exit = True
    load = start_load(proxy, fleet, 20)
    try:
        if step:
            proxy.process.wait(25)
        else:
            time.sleep(n / 100)
            proxy.kill9()
    finally:
        load.kill()
        load.wait()
    in_doubt = len(fleet.prepared())
    del proxy.env["PGSPAN_FAULT"]
    proxy.start()
    conftest.wait_until(lambda: fleet.prepared() == [], 30, f"the end of prepared transactions after {step}:{n}")
    found = sums(fleet)
    assert len(set(found)) == 1, (step, n, in_doubt, found)
    return in_doubt


def kills(fleet, new_proxy, pgbench, places):
    proxy = new_proxy()
    assert pgbench(proxy.port, "shop", "-i", "-s", 2, "-q").status == 0
    in_doubt = [kill_at(fleet, proxy, step, n) for step, n in places]
    assert sum(in_doubt) > 0, "no kill left anything to be finished: the test has lost its subject"
    assert_whole(fleet, 2)
    # and it serves on
    assert pgbench(proxy.port, "shop", "-c", 4, "-t", 20, "-n").ok
    assert len(set(sums(fleet))) == 1


def test_kill9_at_each_step(clean, new_proxy, pgbench):
    kills(clean, new_proxy, pgbench, [(step, 7) for step in STEPS])


@pytest.mark.slow
def test_kill9_fifty_times(clean, new_proxy, pgbench):
    places = [(step, n) for n in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144) for step in STEPS]
    places += [(None, n) for n in (50, 90, 130, 170, 210, 260)]
    assert len(places) == 50
    kills(clean, new_proxy, pgbench, places)
