# SPDX-License-Identifier: BSD-2-Clause
"""psql in transaction mode: its meta-commands, scripts, \\copy, \\gdesc, \\watch, FETCH_COUNT and --single-transaction.

Each script runs directly and through pgspan (tests/live/drivers.py), and must print the same.
"""
import os
import re
import signal
import subprocess
import time

import pytest

from drivers import _places, limit, place  # noqa: F401  (fixtures)

SCRIPTS = {
    "types": "SELECT 1, 'ü', now() - now(), ARRAY[1,NULL], '\\x00ff'::bytea, NULL;\n\\x\nSELECT 1 AS a, 2 AS b;\n",
    "errors": "SELECT nothing;\nSELEKT 1;\nSELECT 1/0;\n\\errverbose\nSELECT 2;\n\\echo :SQLSTATE :ROW_COUNT\n",
    "transactions": "DROP TABLE IF EXISTS drvq;\nCREATE TABLE drvq (id int PRIMARY KEY, t text);\nBEGIN;\nINSERT INTO drvq VALUES (1,'a');\n"
                    "SAVEPOINT s;\nINSERT INTO drvq VALUES (1,'b');\nROLLBACK TO s;\nCOMMIT;\nSELECT * FROM drvq;\n"
                    "\\set AUTOCOMMIT off\nINSERT INTO drvq VALUES (2,'c');\nROLLBACK;\nSELECT * FROM drvq;\nCOMMIT;\n"
                    "\\set AUTOCOMMIT on\n\\set ON_ERROR_ROLLBACK on\nBEGIN;\nSELECT 1/0;\nINSERT INTO drvq VALUES (3,'d');\nCOMMIT;\nTABLE drvq;\n",
    "several statements": "SELECT 1\\; SELECT 2\\; SELECT 1/0\\; SELECT 3;\nSELECT 4\\; SET work_mem = '3MB'\\; SHOW work_mem;\nSHOW work_mem;\n",
    "copy": "DROP TABLE IF EXISTS drvq2;\nCREATE TABLE drvq2 (id int PRIMARY KEY, t text);\nCOPY drvq2 FROM STDIN;\n1\tone\n2\t\\N\n\\.\n"
            "\\copy drvq2 TO STDOUT CSV\nCOPY drvq2 FROM STDIN;\n1\ttwice\n\\.\n\\copy (SELECT count(*) FROM drvq2) TO STDOUT\n"
            "COPY drvq2 FROM STDIN;\nx\n\\.\nSELECT count(*) FROM drvq2;\n",
    "fetch count": "\\set FETCH_COUNT 30\nSELECT generate_series(1, 100);\nSELECT 1/(50 - g) FROM generate_series(1, 100) g;\nSELECT 5;\n",
    "describe": "DROP TABLE IF EXISTS drvq3;\nCREATE TABLE drvq3 (id serial PRIMARY KEY, t text NOT NULL DEFAULT 'x', CHECK (id > 0));\n\\d drvq3\n\\dt drvq3\n"
                "\\d+ drvq3_id_seq\n\\du app\n\\dn\n\\l app\nSELECT 1 AS a, 'x'::text AS b \\gdesc\n",
    "gset gexec": "SELECT 5 AS five \\gset\nSELECT :five + 1;\nSELECT 'SELECT ' || g FROM generate_series(1,3) g \\gexec\nSELECT 1, 2 \\gx\n\\echo :five\n",
    "prepared": "PREPARE p (int) AS SELECT $1 * 2;\nEXECUTE p(4);\nEXECUTE p(5);\nDEALLOCATE p;\nEXECUTE p(6);\n",
    "session": "SET datestyle = 'SQL, DMY';\nSELECT date '2024-02-29';\nCREATE TEMP TABLE t (i int);\nINSERT INTO t VALUES (1);\nTABLE t;\nDISCARD ALL;\nTABLE t;\n"
               "SELECT date '2024-02-29';\nSET application_name = 'a b';\nSHOW application_name;\nRESET application_name;\n"
               "SELECT pg_advisory_lock(7);\nSELECT pg_advisory_unlock(7), pg_advisory_unlock(7);\n",
    "cursors": "BEGIN;\nDECLARE c CURSOR FOR SELECT generate_series(1,10);\nFETCH 3 FROM c;\nMOVE 2 IN c;\nFETCH c;\nCOMMIT;\nFETCH c;\n"
               "DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1,10);\nFETCH 2 FROM h;\nFETCH 2 FROM h;\nCLOSE h;\nFETCH h;\n",
    "notices": "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING HINT = 'h'; END $$;\nLISTEN q;\nNOTIFY q, 'mine';\nSELECT 1;\nUNLISTEN q;\n",
    "do and functions": "CREATE OR REPLACE FUNCTION drvq_f(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';\n\\df drvq_f\nSELECT drvq_f(2);\n"
                        "CREATE OR REPLACE PROCEDURE drvq_p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; RAISE NOTICE 'in'; ROLLBACK; END $$;\nCALL drvq_p();\nDROP FUNCTION drvq_f;\nDROP PROCEDURE drvq_p;\n",
    "conninfo": "\\encoding\n\\encoding LATIN1\nSHOW client_encoding;\nSELECT 'a' || chr(228) = 'aä';\n\\encoding UTF8\n\\c -\nSELECT current_user, current_database();\n",
    "bind": "\\set a 5\nSELECT :'a'::int + 1;\nSELECT :{?a}, :{?b};\n\\if :a\nSELECT 'yes';\n\\else\nSELECT 'no';\n\\endif\n",
}
SHOP = ("DROP TABLE IF EXISTS drv_orders;\nCREATE TABLE drv_orders (customer bigint, no int, what text, PRIMARY KEY (customer, no));\n"
        "COPY drv_orders FROM STDIN;\n" +
        "".join(f"{c}\t0\to{c}\n" for c in range(100)) + "\\.\nSELECT * FROM drv_orders WHERE customer = 42;\nSELECT count(*) FROM drv_orders;\n"
        "BEGIN;\nUPDATE drv_orders SET what = 'u' WHERE customer = 1;\nUPDATE drv_orders SET what = 'u' WHERE customer = 2;\nCOMMIT;\n"
        "SELECT * FROM drv_orders ORDER BY customer LIMIT 4;\nINSERT INTO drv_orders VALUES (5, 0, 'twice');\nPREPARE g (bigint) AS SELECT what FROM drv_orders WHERE customer = $1;\n"
        "EXECUTE g(7);\nEXECUTE g(8);\nDEALLOCATE g;\n\\copy (SELECT * FROM drv_orders WHERE customer = 3) TO STDOUT\nDELETE FROM drv_orders WHERE customer < 50;\n")


def psql(keywords, script, *options):
    env = {"PATH": os.environ["PATH"], "PGPASSWORD": keywords["password"], "LC_ALL": "C.UTF-8", "PGTZ": "UTC"}
    done = subprocess.run(["psql", "-X", "-q", "-h", keywords["host"], "-p", str(keywords["port"]), "-U", keywords["user"], *options,
                           keywords["dbname"]], input=script, env=env, capture_output=True, text=True, timeout=20, check=False)
    text = done.stdout + "--\n" + done.stderr
    text = text.replace(f'port "{keywords["port"]}"', "port").replace(f"port {keywords['port']}", "port")
    return re.sub(r'PID \d+|NOTICE:  table "\w+" does not exist, skipping\n', "", text)  # the first run finds no table


@pytest.fixture(scope="module")
def said():
    """What each script printed directly."""
    return {}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(place, said, name):
    got = psql(place.app, SCRIPTS[name], "-e")
    assert said.setdefault(name, got) == got


def test_single_transaction(place, said):
    got = psql(place.app, "DROP TABLE IF EXISTS drvq4;\nCREATE TABLE drvq4 (a int);\nINSERT INTO drvq4 VALUES (1);\nSELECT * FROM drvq4;\n", "-1", "-e")
    got += psql(place.app, "INSERT INTO drvq4 VALUES (2);\nSELECT 1/0;\n", "-1", "-v", "ON_ERROR_STOP=1")
    got += psql(place.app, "SELECT * FROM drvq4;\n")
    assert said.setdefault("-1", got) == got


def test_shop(place, said):
    got = psql(place.shop, SHOP, "-e")
    assert said.setdefault("shop", got) == got


def test_interrupt(place):
    """Ctrl-C cancels the statement; a script ends there, with status 3 or by the signal."""
    k = place.app
    env = {"PATH": os.environ["PATH"], "PGPASSWORD": k["password"], "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(["psql", "-X", "-h", k["host"], "-p", str(k["port"]), "-U", k["user"], k["dbname"]], env=env, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        running.stdin.write("SELECT pg_sleep(20);\n")
        running.stdin.flush()
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=15)
    assert "canceling statement due to user request" in out
    assert running.returncode in (0, 3, 130)
