# SPDX-License-Identifier: BSD-2-Clause
"""Unmodified pgbench on `app`: issue 2's second proof.

No error in any of its modes with more clients than servers, writes on the primary only, and the reads of -S shared by
the replicas, counted by PostgreSQL's own statistics.
"""
import pytest

pytestmark = pytest.mark.slow
POOL = {"proxy": {"workers": 2}, "database:app": {"default_pool_size": 10}}
MODES = ["simple", "extended", "prepared"]


@pytest.fixture(scope="module")
def scale_10(fleet, tmp_path_factory, pgbench):
    """pgbench -i through a pgspan."""
    import conftest
    proxy = conftest.Proxy(fleet, tmp_path_factory.mktemp("init"), POOL)
    done = pgbench(proxy.port, "app", "-i", "-q", "-s", 10)
    proxy.finish()
    assert done.status == 0, done
    assert fleet.value("app-primary", "SELECT count(*) FROM pgbench_accounts") == 1_000_000
    fleet.catch_up()
    yield
    fleet.sql("app-primary", "DROP TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history")


def committed(fleet):
    return {n: fleet.value(n, "SELECT xact_commit FROM pg_stat_database WHERE datname = 'app'")
            for n in ("app-primary", *fleet.replicas)}


@pytest.mark.parametrize("mode", MODES)
def test_tpc_b(new_proxy, fleet, pgbench, scale_10, mode):
    proxy = new_proxy(POOL)
    fleet.sql("app-primary", "TRUNCATE pgbench_history; UPDATE pgbench_accounts SET abalance = 0 WHERE abalance <> 0; "
              "UPDATE pgbench_tellers SET tbalance = 0; UPDATE pgbench_branches SET bbalance = 0")
    done = pgbench(proxy.port, "app", "-c", 32, "-j", 2, "-T", 5, "-n", "-M", mode)
    assert done.ok and done.transactions > 0, done
    sums = fleet.sql("app-primary", "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), "
                     "(SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history), "
                     "(SELECT count(*) FROM pgbench_history)")[0]
    assert sums[0] == sums[1] == sums[2] == sums[3]
    assert sums[4] == done.transactions


@pytest.mark.parametrize("mode", MODES)
def test_select_only(new_proxy, fleet, pgbench, wait_until, scale_10, mode):
    proxy = new_proxy(POOL)
    fleet.catch_up()
    before = committed(fleet)
    done = pgbench(proxy.port, "app", "-S", "-c", 32, "-j", 2, "-T", 5, "-n", "-M", mode)
    assert done.ok and done.transactions > 0, done
    proxy.stop()  # a server process reports what it has counted when it ends

    def counted():
        now = committed(fleet)
        return {n: now[n] - before[n] for n in now}
    wait_until(lambda: sum(counted()[n] for n in fleet.replicas) >= done.transactions, what="the statistics")
    share = counted()
    for name in fleet.replicas:
        assert share[name] >= 0.35 * done.transactions, (share, done)
    assert share["app-primary"] < 0.05 * done.transactions + 100, (share, done)
