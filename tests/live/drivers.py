# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of client drivers share: a place to run in, twice.

Each such test runs against PostgreSQL directly, which proves the test, and then through pgspan in transaction mode with
2 workers and 3 servers for each pool, while other clients (tests/drivers/noise) keep taking those servers and leave
other settings behind. `place.app` and `place.shop` are the two databases; directly, `shop` is one server with all rows.

Replicas apply each commit before it is told to the client, so that reads which go to them see it as a direct
connection would.
"""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OVERRIDES = {
    "proxy": {"pool_mode": "transaction", "default_pool_size": "3", "workers": "2", "query_wait_timeout": "20"},
    "database:shop": {"table": ["drv_orders key=customer", "drv_lines key=customer", "drv_colours reference"]},
}
LIMIT_S = int(30 * float(os.environ.get("PGSPAN_SLOW_FACTOR", "1")))
PLACES = ("direct", "pgspan")


class Place:
    """Where a driver connects. `name` is one of PLACES; `app` and `shop` are libpq's keywords for the two databases."""

    def __init__(self, name, app_port, shop_port):
        self.name = name
        self.app = {"host": "127.0.0.1", "port": app_port, "user": "app", "password": "app-secret", "dbname": "app"}
        self.shop = {**self.app, "port": shop_port, "dbname": "shop"}

    @staticmethod
    def dsn(keywords):
        return " ".join(f"{k}={v}" for k, v in keywords.items())

    @staticmethod
    def url(keywords, scheme="postgresql"):
        return "{0}://{user}:{password}@{host}:{port}/{dbname}".format(scheme, **keywords)


@contextlib.contextmanager
def synchronous(fleet):
    """While it lasts, a commit on app's primary returns after both replicas have applied it."""
    def set_to(names, level):
        with fleet.connect("app-primary") as conn:
            conn.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            conn.execute(f"ALTER SYSTEM SET synchronous_commit = {level}")
            conn.execute("SELECT pg_reload_conf()")
    set_to("FIRST 2 (*)", "remote_apply")
    try:
        yield
    finally:
        set_to("", "DEFAULT")


def make_shop(fleet):
    """The database `shop` on the server `single`, for direct runs."""
    if not fleet.value("single", "SELECT count(*) FROM pg_database WHERE datname = 'shop'"):
        fleet.sql("single", "CREATE DATABASE shop OWNER app")
        import psycopg
        with psycopg.connect(fleet.dsn("single").replace("dbname=single", "dbname=shop"), autocommit=True) as conn:
            conn.execute("GRANT ALL ON SCHEMA public TO app, PUBLIC")


@contextlib.contextmanager
def noise(place):
    """Other clients of the same pools, for as long as it lasts; they must have seen no error at its end."""
    other = subprocess.Popen([sys.executable, str(ROOT / "tests" / "drivers" / "noise"), place.dsn(place.app), place.dsn(place.shop)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield
    finally:
        try:
            said, _ = other.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            other.kill()
            said = "does not end"
    assert other.returncode == 0, f"the other clients: {said}"


def places(fleet, folder):
    """Yields each Place in turn, ready for use."""
    from conftest import Proxy
    make_shop(fleet)
    with synchronous(fleet):
        yield Place("direct", fleet.port("app-primary"), fleet.port("single"))
        proxy = Proxy(fleet, folder, OVERRIDES)
        try:
            place = Place("pgspan", proxy.port, proxy.port)
            place.proxy = proxy
            with noise(place):
                yield place
        finally:
            proxy.finish()


@pytest.fixture(scope="module")
def _places(fleet, tmp_path_factory):
    made = places(fleet, tmp_path_factory.mktemp("drivers"))
    ready = {}

    def get(name):
        while name not in ready:
            found = next(made)
            ready[found.name] = found
        return ready[name]

    yield get
    for _ in made:
        pass


@pytest.fixture(scope="module", params=PLACES)
def place(request, _places):
    return _places(request.param)


def faulty(reason):
    """Marks a test that fails through pgspan so far; the direct run must pass all the same."""
    def mark(test):
        test.faulty = reason
        return test
    return mark


class Hangs(BaseException):
    """Not an Exception: a workload's own handlers must not take it."""


def _hang_up(ports):
    """Shuts this process's connections to *ports*, so that a driver which waits in C code wakes up."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            with socket.socket(fileno=os.dup(fd)) as s:
                if s.family == socket.AF_INET and s.getpeername()[1] in ports:
                    s.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


@pytest.fixture(autouse=True)
def limit(request, place):
    """A test may take LIMIT_S seconds: an answer that never comes fails it, and not the run. Heeds faulty(), too."""
    reason = getattr(request.function, "faulty", None)
    if reason and place.name == "pgspan":
        request.node.add_marker(pytest.mark.xfail(strict=False, reason=reason))

    def on_alarm(_signal, _frame):
        _hang_up({place.app["port"], place.shop["port"]})
        raise Hangs(f"no answer within {LIMIT_S} s")
    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
