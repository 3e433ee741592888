# SPDX-License-Identifier: BSD-2-Clause
"""pgspan --check: the effective configuration, and what is wrong with the shards."""
import os
import subprocess

PGSPAN = os.environ.get("PGSPAN", "build/pgspan")


def check(path):
    p = subprocess.run([PGSPAN, "--check", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    return p.returncode, p.stdout, p.stderr


def config(tmp_path, port, extra=""):
    users = tmp_path / "users.txt"
    users.write_text('"app" "secret-of-app"\n')
    users.chmod(0o600)
    ini = tmp_path / "proxy.ini"
    ini.write_text(f"[proxy]\nauth_file = users.txt\nmonitor_user = postgres\n{extra}"
                   f"[database:shop]\ntable = t key=id\n[shard:shop:0]\nbuckets = 0-16383\n"
                   f"primary = host=127.0.0.1 port={port} dbname=shop password='top;secret'\n")
    return ini


def test_a_shard_that_can_take_part_gives_no_warning(fleet, tmp_path):
    status, out, err = check(config(tmp_path, fleet.port("shop-0")))
    assert status == 0
    assert "max_prepared_transactions" not in err
    assert "password=***" in out and "top;secret" not in out + err and "secret-of-app" not in out + err


def test_a_shard_with_max_prepared_transactions_0_is_reported(fleet, tmp_path):
    fleet.sql("single", "ALTER SYSTEM SET max_prepared_transactions = 0")
    fleet.stop("single")
    fleet.start("single")
    try:
        ini = config(tmp_path, fleet.port("single"))
        ini.write_text(ini.read_text().replace("dbname=shop", "dbname=single"))
        status, _, err = check(ini)
        assert status == 0
        assert "[shard:shop:0]: max_prepared_transactions is 0" in err
    finally:
        fleet.sql("single", "ALTER SYSTEM RESET max_prepared_transactions")
        fleet.stop("single")
        fleet.start("single")


def test_a_shard_that_does_not_answer_is_named(tmp_path):
    status, _, err = check(config(tmp_path, 1))
    assert status == 0
    assert "127.0.0.1:1/shop does not answer" in err


def test_every_mistake_is_told_with_its_line(tmp_path):
    ini = config(tmp_path, 1, extra="listen_prot = 1\nworkers = many\n")
    status, out, err = check(ini)
    assert status == 1 and out == ""
    assert f"{ini}:4: listen_prot" in err and "listen_port" in err
    assert f"{ini}:5: workers" in err
