# SPDX-License-Identifier: BSD-2-Clause
"""The live suite's harness: one fleet of real PostgreSQL servers for the whole run, and pgspan processes before it.

    PGSPAN=build-thread/pgspan /usr/bin/python3 -m pytest tests/live -m "not slow"

`proxy` is a pgspan with the default configuration, shared by all tests that leave it as they found it. A test that
needs another configuration, or wants to end it, calls `new_proxy(...)`. Either way a pgspan that crashed, or whose log
holds a sanitizer's report, fails the test that saw it end.
"""
import importlib.machinery
import importlib.util
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import psycopg
import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import pgwire  # noqa: E402  (our own module, found by the path above)

APP, APP_PASSWORD = "app", "app-secret"
BUCKETS = 16384
SHARDS = 4
SANITIZER = re.compile(r"^.*(ERROR: \w*Sanitizer|WARNING: \w*Sanitizer|runtime error:|SUMMARY: \w*Sanitizer).*$", re.M)
# Sanitizer builds are several times slower; waits are multiplied so that a test need not know.
SLOW_FACTOR = float(os.environ.get("PGSPAN_SLOW_FACTOR", "1"))


def _load_fleet_module():
    """tests/fleet is a program without .py; it is a module too."""
    loader = importlib.machinery.SourceFileLoader("fleet", str(ROOT / "tests" / "fleet"))
    spec = importlib.util.spec_from_loader("fleet", loader)
    module = importlib.util.module_from_spec(spec)
    dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = dont_write
    return module


_fleet = _load_fleet_module()


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a few seconds; left out of sanitizer runs")


def free_port():
    """A port that nobody listens on, below the kernel's range for outgoing connections."""
    start = 20000 + os.getpid() * 37 % 10000
    for port in range(start, start + 2000):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                if port not in free_port.given:
                    free_port.given.add(port)
                    return port
            except OSError:
                continue
    raise RuntimeError("no free port")


free_port.given = set()


def free_base():
    """A BASE whose ports are all free, in a range that neither clients' sockets nor the demo's fleet use."""
    for base in range(10000 + os.getpid() % 190 * 50, 32000, 50):
        try:
            for offset in (*range(1, 4), *range(11, 11 + SHARDS), 31):
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("127.0.0.1", base + offset))
            return base
        except OSError:
            continue
    raise RuntimeError("no free ports for a fleet")


def wait_until(condition, seconds=15.0, what="the condition"):
    """Polls until *condition* is true, and returns its value."""
    deadline = time.monotonic() + seconds * SLOW_FACTOR
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds * SLOW_FACTOR:.0f} s")
        time.sleep(0.05)


class Fleet:
    """The servers, and direct ways to each of them."""

    def __init__(self, folder):
        self.impl = _fleet.Fleet(str(folder), free_base(), SHARDS)
        self.impl.start()

    @property
    def names(self):
        return list(self.impl.servers)

    @property
    def shards(self):
        return [n for n in self.names if n.startswith("shop-")]

    @property
    def replicas(self):
        return [n for n in self.names if n.startswith("app-replica")]

    def port(self, name):
        return self.impl.servers[name]["port"]

    def name_of(self, port):
        """The server that listens on *port*: to make sense of `SHOW port`."""
        return next(n for n, s in self.impl.servers.items() if s["port"] == int(port))

    def dsn(self, name, user="postgres"):
        return self.impl.dsn(name, user) + (f" password={APP_PASSWORD}" if user == APP else "")

    def connect(self, name, user="postgres", **kwargs):
        """A psycopg connection straight to a server, in autocommit."""
        return psycopg.connect(self.dsn(name, user), autocommit=True, **kwargs)

    def sql(self, name, sql, params=None):
        """Runs a statement on a server as superuser; its rows, if it has any."""
        with self.connect(name) as conn:
            cur = conn.execute(sql, params)
            return cur.fetchall() if cur.description else None

    def value(self, name, sql, params=None):
        return self.sql(name, sql, params)[0][0]

    def all_shards(self, sql):
        """The rows of every shard, one after the other."""
        return [row for name in self.shards for row in (self.sql(name, sql) or [])]

    def kill(self, name):
        self.impl.kill_server(name)

    def stop(self, name):
        self.impl.stop_server(name)

    def start(self, name):
        self.impl.start_server(name)

    def start_all(self):
        self.impl.start()

    def catch_up(self):
        """Waits until both replicas have replayed all that the primary has written."""
        lsn = self.value("app-primary", "SELECT pg_current_wal_lsn()")
        for name in self.replicas:
            wait_until(lambda n=name: self.value(n, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [lsn]),
                       what=f"{name} catching up")

    def prepared(self):
        """(server, gid) of every prepared transaction that is left anywhere."""
        return [(n, r[0]) for n in self.names if n not in self.replicas
                for r in self.sql(n, "SELECT gid FROM pg_prepared_xacts")]

    def close(self):
        self.impl.stop()


def default_config(fleet):
    """proxy.ini's shape for *fleet*: {section: [(key, value), ...]}."""
    def server(name):
        return f"host=127.0.0.1 port={fleet.port(name)} dbname={fleet.impl.servers[name]['db']}"

    config = {
        "proxy": [("listen_addr", "127.0.0.1"), ("unix_socket_dir", ""), ("workers", "2"),
                  ("auth_type", "scram-sha-256"), ("auth_file", "users.txt"), ("admin_users", "postgres"),
                  ("pool_mode", "transaction"), ("default_pool_size", "10"), ("max_client_conn", "1000"),
                  ("query_wait_timeout", "30"), ("monitor_user", "postgres")],
        "database:app": [("primary", server("app-primary"))] + [("replica", server(r)) for r in fleet.replicas],
        "database:single": [("primary", server("single"))],
        "database:shop": [("buckets", str(BUCKETS)), ("hash", "xxh64"),
                          ("table", "pgbench_accounts key=aid"), ("table", "pgbench_tellers key=tid"),
                          ("table", "pgbench_branches key=bid"), ("table", "pgbench_history key=aid"),
                          ("table", "public.countries reference")],
    }
    each = BUCKETS // len(fleet.shards)
    for i, name in enumerate(fleet.shards):
        last = BUCKETS - 1 if i == len(fleet.shards) - 1 else (i + 1) * each - 1
        config[f"shard:shop:{i}"] = [("buckets", f"{i * each}-{last}"), ("primary", server(name))]
    return config


class Proxy:
    """A pgspan process.

    *overrides* maps a section to {key: value}: a value replaces the key's lines, a list gives one line each, None takes
    the key out; a section that is None goes away, one not there before is added.
    """

    def __init__(self, fleet, folder, overrides=None, users=None, env=None, start=True):
        self.fleet, self.dir = fleet, pathlib.Path(folder)
        self.binary = os.environ.get("PGSPAN", str(ROOT / "build" / "pgspan"))
        self.port = free_port()
        self.ini, self.log_path = self.dir / "proxy.ini", self.dir / "pgspan.log"
        self.env = {**os.environ, "PGSPAN_COREDUMP": "1",  # /proc/PID/fd and the leak check, for other users than root, too
                    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1:halt_on_error=1",
                    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
                    "TSAN_OPTIONS": f"halt_on_error=0:exitcode=66:suppressions={HERE.parent / 'tsan.supp'}", **(env or {})}
        # A client's settings must not become the servers' through libpq's environment.
        for name in [n for n in self.env if n.startswith("PG") and not n.startswith("PGSPAN")]:
            del self.env[name]
        self.process, self.expect_exit = None, False
        self.checked = 0  # how much of the log check() has seen: a report fails one test, not all after it
        self.write_users(users or {APP: APP_PASSWORD, "postgres": "postgres"})
        self.write_config(overrides)
        if start:
            self.start()

    # -- configuration ---------------------------------------------------------------------------------------------

    def write_users(self, users):
        def quoted(text):
            return '"' + text.replace('"', '""') + '"'
        (self.dir / "users.txt").write_text("".join(f"{quoted(u)} {quoted(p)}\n" for u, p in users.items()))

    def write_config(self, overrides=None):
        config = default_config(self.fleet)
        config["proxy"].append(("listen_port", str(self.port)))
        for section, keys in (overrides or {}).items():
            if keys is None:
                config.pop(section, None)
                continue
            lines = config.setdefault(section, [])
            for key, value in keys.items():
                lines[:] = [(k, v) for k, v in lines if k != key]
                if value is not None:
                    lines += [(key, str(v)) for v in (value if isinstance(value, (list, tuple)) else [value])]
        text = "".join(f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in lines) + "\n" for s, lines in config.items())
        self.ini.write_text(text)

    # -- the process -----------------------------------------------------------------------------------------------

    def start(self, wait=True):
        assert self.process is None or self.process.poll() is not None, "it runs already"
        self.expect_exit = False
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([self.binary, str(self.ini)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.env, cwd=self.dir)
        if wait:
            wait_until(self._accepts, 15, "pgspan accepting clients")

    def _accepts(self):
        if self.process.poll() is not None:
            raise AssertionError(f"pgspan ended with {self.process.returncode} at start:\n{self.log[-4000:]}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    @property
    def pid(self):
        return self.process.pid

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_log(self, pattern, seconds=10.0, since=0):
        """Waits for a line that matches; `since` is a length of .log taken earlier."""
        return wait_until(lambda: re.search(pattern, self.log[since:]), seconds, f"a log line like {pattern!r}")

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def signal(self, number):
        self.expect_exit = True
        self.process.send_signal(number)

    def wait(self, seconds=15.0):
        return self.process.wait(seconds * SLOW_FACTOR)

    def kill9(self):
        """What a power cut would do."""
        self.expect_exit = True
        if self.is_running:
            self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGINT twice: ends at once and frees all, so that the leak check can speak. Returns the exit status."""
        self.expect_exit = True
        for _ in range(2):
            if self.is_running:
                self.process.send_signal(signal.SIGINT)
                time.sleep(0.05)
        try:
            return self.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("pgspan did not end after SIGINT twice") from None

    def check(self):
        """Fails when it crashed or a sanitizer complained."""
        text = self.log[self.checked:]
        self.checked += len(text)
        found = SANITIZER.search(text)
        if found:
            report = text[max(0, found.start() - 200):found.start() + 6000]
            raise AssertionError(f"sanitizer report in {self.log_path}:\n{report}")
        if self.process is not None and self.process.poll() is not None and not self.expect_exit:
            raise AssertionError(f"pgspan ended by itself with {self.process.returncode}:\n{self.log[-6000:]}")

    def finish(self):
        """The end of a test: stops it if it runs, then check()."""
        crashed = self.process is not None and self.process.poll() is not None and not self.expect_exit
        status = self.stop() if self.is_running else None
        self.expect_exit = not crashed
        self.check()
        assert status in (0, None, -signal.SIGINT), f"pgspan ended with {status}:\n{self.log[-4000:]}"

    # -- clients ---------------------------------------------------------------------------------------------------

    def dsn(self, db="app", user=APP, password=None):
        if password is None:
            password = APP_PASSWORD if user == APP else "postgres"
        return f"host=127.0.0.1 port={self.port} dbname={db} user={user} password={password}"

    def connect(self, db="app", user=APP, password=None, autocommit=True, **kwargs):
        """A psycopg connection through pgspan."""
        return psycopg.connect(self.dsn(db, user, password), autocommit=autocommit, **kwargs)

    def wire(self, db="app", user=APP, password=None, **options):
        """A raw protocol connection through pgspan, logged in."""
        if password is None:
            password = APP_PASSWORD if user == APP else "postgres"
        return pgwire.Wire.login("127.0.0.1", self.port, user, password, db, **options)

    def sql(self, sql, db="app", params=None):
        """Runs one statement on a connection of its own; its rows, if it has any."""
        with self.connect(db) as conn:
            cur = conn.execute(sql, params)
            return cur.fetchall() if cur.description else None


class PgbenchResult:
    """What pgbench printed. `ok`: it ended with 0 and no client was aborted."""

    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr
        found = re.search(r"transactions actually processed: (\d+)", self.out)
        self.transactions = int(found.group(1)) if found else 0
        found = re.search(r"number of failed transactions: (\d+)", self.out)
        self.failed = int(found.group(1)) if found else 0
        found = re.search(r"tps = ([\d.]+)", self.out)
        self.tps = float(found.group(1)) if found else 0.0
        self.ok = self.status == 0 and self.failed == 0 and "aborted" not in self.err

    def __repr__(self):
        return f"pgbench ended with {self.status}:\n{self.out}\n{self.err[-4000:]}"


def pgbench(port, db, *args, user=APP, password=APP_PASSWORD, timeout=300):
    """Debian's unmodified pgbench; give its options as it takes them."""
    env = {"PATH": "/usr/bin:/bin", "PGPASSWORD": password, "LC_ALL": "C.UTF-8"}
    done = subprocess.run([os.path.join(_fleet.bin_dir(), "pgbench"), "-h", "127.0.0.1", "-p", str(port), "-U", user,
                           *map(str, args), db], env=env, capture_output=True, text=True, timeout=timeout * SLOW_FACTOR,
                          check=False)
    return PgbenchResult(done)


# -- fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    # Not under pytest's own folder: that is closed to other users, and the servers run as one when root runs this.
    folder = pathlib.Path("/tmp") / f"pgspan-live-{os.getpid()}"
    servers = Fleet(folder)
    yield servers
    servers.close()


@pytest.fixture
def whole_fleet(fleet):
    """For tests that stop servers: all of them run again afterwards, whatever the test did."""
    yield fleet
    fleet.start_all()


@pytest.fixture(scope="session")
def _shared_proxy(fleet, tmp_path_factory):
    shared = Proxy(fleet, tmp_path_factory.mktemp("proxy"))
    yield shared
    shared.finish()


@pytest.fixture
def proxy(_shared_proxy):
    """A pgspan with the default configuration, shared; started again if an earlier test lost it."""
    if not _shared_proxy.is_running:
        _shared_proxy.start()
    yield _shared_proxy
    _shared_proxy.check()


@pytest.fixture
def new_proxy(fleet, tmp_path):
    """A function that starts a pgspan of the test's own: new_proxy({"proxy": {"workers": 1}}, users={...})."""
    made = []

    def start(overrides=None, **kwargs):
        folder = tmp_path / f"proxy{len(made)}"
        folder.mkdir()
        made.append(Proxy(fleet, folder, overrides, **kwargs))
        return made[-1]

    yield start
    failures = []
    for one in made:
        try:
            one.finish()
        except AssertionError as e:
            failures.append(str(e))
    assert not failures, "\n".join(failures)


@pytest.fixture(name="pgbench", scope="session")
def pgbench_fixture():
    return pgbench


@pytest.fixture(name="wait_until", scope="session")
def wait_until_fixture():
    return wait_until
