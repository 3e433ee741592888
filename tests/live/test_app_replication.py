# SPDX-License-Identifier: BSD-2-Clause
"""Replication connections: PostgreSQL's own tools through pgspan, to the primary."""
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

import pgwire
from conftest import SLOW_FACTOR, wait_until

BIN = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]


@pytest.fixture
def pgspan(new_proxy, fleet):
    """pg_basebackup and pg_receivewal say "replication" for the database's name."""
    primary = f"host=127.0.0.1 port={fleet.port('app-primary')} dbname=app"
    return new_proxy({"proxy": {"workers": 2, "default_pool_size": 2}, "database:replication": {"primary": primary}})


def tool(pgspan, name, *args, **more):
    dsn = pgspan.dsn("app", user="postgres")
    return subprocess.Popen([str(BIN / name), "-d", dsn, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def done(process, seconds=60):
    out, _ = process.communicate(timeout=seconds * SLOW_FACTOR)
    assert process.returncode == 0, out
    return out


@pytest.fixture
def slot(fleet):
    name = "pgspan_test"
    fleet.sql("app-primary", f"SELECT pg_drop_replication_slot('{name}') FROM pg_replication_slots WHERE slot_name = '{name}'")
    yield name
    wait_until(lambda: fleet.value("app-primary", f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}' AND active") == 0, 10, "the slot")
    fleet.sql("app-primary", f"SELECT pg_drop_replication_slot('{name}') FROM pg_replication_slots WHERE slot_name = '{name}'")


def test_basebackup(pgspan, tmp_path):
    """Two connections at once: the files, and the WAL that is written meanwhile."""
    done(tool(pgspan, "pg_basebackup", "-D", str(tmp_path / "copy"), "-X", "stream", "-c", "fast"))
    assert (tmp_path / "copy" / "PG_VERSION").read_text().strip() == "15"
    out = subprocess.run([str(BIN / "pg_verifybackup"), str(tmp_path / "copy")], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    shutil.rmtree(tmp_path / "copy")


def test_receivewal(pgspan, fleet, tmp_path, slot):
    done(tool(pgspan, "pg_receivewal", "--create-slot", "--slot", slot))
    (tmp_path / "wal").mkdir()
    p = tool(pgspan, "pg_receivewal", "-D", str(tmp_path / "wal"), "--slot", slot, "--synchronous")
    wait_until(lambda: fleet.value("app-primary", f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active") == 1, 10, "the stream")
    name = fleet.value("app-primary", "SELECT pg_walfile_name(pg_logical_emit_message(false, 'x', 'tidings'))")
    fleet.sql("app-primary", "SELECT pg_switch_wal()")
    wait_until(lambda: (tmp_path / "wal" / name).exists() or p.poll() is not None, 20, "a whole WAL file")
    p.send_signal(signal.SIGINT)
    done(p)
    assert (tmp_path / "wal" / name).stat().st_size == 16 << 20
    assert b"tidings" in (tmp_path / "wal" / name).read_bytes()


def test_recvlogical(pgspan, fleet, tmp_path, slot):
    fleet.sql("app-primary", "DROP TABLE IF EXISTS told; CREATE TABLE told (n int PRIMARY KEY)")
    done(tool(pgspan, "pg_recvlogical", "--create-slot", "--slot", slot, "-P", "test_decoding"))
    fleet.sql("app-primary", "INSERT INTO told VALUES (7), (8)")
    end = fleet.value("app-primary", "SELECT pg_current_wal_lsn()")
    done(tool(pgspan, "pg_recvlogical", "--start", "--slot", slot, "-f", str(tmp_path / "changes"), "--endpos", end, "-o", "include-xids=0"))
    assert (tmp_path / "changes").read_text().splitlines() == [
        "BEGIN", "table public.told: INSERT: n[integer]:7", "table public.told: INSERT: n[integer]:8", "COMMIT"]
    done(tool(pgspan, "pg_recvlogical", "--drop-slot", "--slot", slot))
    fleet.sql("app-primary", "DROP TABLE told")


@pytest.mark.parametrize("mode", ["database", "true"])
def test_commands(pgspan, fleet, mode):
    with pgspan.wire(user="postgres", replication=mode, application_name="walk er", options="-c work_mem=7MB") as c:
        row = pgwire.rows(c.query("IDENTIFY_SYSTEM"))[0]
        assert row[3] == ("app" if mode == "database" else None)
        assert pgwire.rows(c.query("SHOW work_mem")) == [["7MB"]]
        assert c.params["application_name"] == "walk er"
        c.send(pgwire.query("SELECT 1"))
        assert pgwire.error(c.until_ready()) == (None if mode == "database" else "0A000")
        c.send(pgwire.run("SELECT 1"), pgwire.sync())
        assert pgwire.error(c.until_ready()) == "08P01"
        c.send(pgwire.query("NONSENSE"))
        assert pgwire.error(c.until_ready()) == ("42601" if mode == "database" else "0A000")  # as PostgreSQL says
        assert fleet.value("app-primary", "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name = 'walk er'") == 1
    wait_until(lambda: fleet.value("app-primary", "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name = 'walk er'") == 0, 5, "the end of the server")


def test_more_than_a_pool_of_them_do_not_starve_others(pgspan):
    some = [pgspan.wire(user="postgres", replication="database") for _ in range(4)]
    with pgspan.wire(user="postgres") as c:
        assert c.rows("SELECT 7") == [["7"]]
    for c in some:
        c.close()


def test_on_shards__refused(pgspan):
    with pytest.raises(pgwire.PgError) as caught:
        pgspan.wire(user="postgres", db="shop", replication="database")
    assert caught.value.sqlstate == "0A000"


def test_drain__does_not_wait_for_them(pgspan):
    c = pgspan.wire(user="postgres", replication="true")
    c.send(pgwire.query("START_REPLICATION 0/1000000"))
    began = time.monotonic()
    pgspan.signal(signal.SIGTERM)
    pgspan.wait(5)
    assert time.monotonic() - began < 4 * SLOW_FACTOR
    c.abort()


def test_user_who_may_not__told_so_and_nobody_else_minds(pgspan):
    with pytest.raises(pgwire.PgError) as caught:
        pgspan.wire(user="app", replication="database")
    assert "must be superuser or replication role" in caught.value.message
    with pgspan.wire() as c:
        assert c.rows("SELECT 7") == [["7"]]
