# SPDX-License-Identifier: BSD-2-Clause
"""The C unit tests that need a PostgreSQL server, run on one of the fleet's."""
import os
import subprocess

import pytest

BUILD = os.path.dirname(os.path.abspath(os.environ.get("PGSPAN", "build/pgspan")))


@pytest.mark.parametrize("name", ["sql/test_catalog", "upstream/test_server"])
def test_c_unit_on_a_real_server(fleet, name):
    binary = os.path.join(BUILD, "unit", name)
    assert os.path.exists(binary), "make unit builds it"
    env = dict(os.environ, PGSPAN_TEST_CONNINFO=fleet.dsn("single"))
    p = subprocess.run([binary], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert p.returncode == 0, p.stdout[-4000:]
    assert "SKIPPED" not in p.stdout, p.stdout[-4000:]
