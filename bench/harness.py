# SPDX-License-Identifier: BSD-2-Clause
"""harness - what the benchmarks share: a fleet, proxies before one of its servers, and their cost read from /proc."""
import importlib.machinery
import importlib.util
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


def die(text):
    print(text, file=sys.stderr)
    sys.exit(1)


def _load_fleet_module():
    """tests/fleet is a program without .py; it is a module too."""
    loader = importlib.machinery.SourceFileLoader("fleet", str(ROOT / "tests" / "fleet"))
    spec = importlib.util.spec_from_loader("fleet", loader)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


_fleet = _load_fleet_module()
PGBENCH = os.path.join(_fleet.bin_dir(), "pgbench")


class Process:
    """A proxy that listens on `port`; what it has used so far is read from /proc."""

    def __init__(self, name, argv, port, log, user=None):
        self.name, self.port = name, port
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        with open(log, "wb") as f:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f, env=env, **who)
        deadline = time.monotonic() + 15
        while True:
            if self.popen.poll() is not None or time.monotonic() > deadline:
                self.stop()
                die(f"{name} did not start:\n{pathlib.Path(log).read_text(errors='replace')[-3000:]}")
            try:
                socket.create_connection((HOST, port), 1).close()
                return
            except OSError:
                time.sleep(0.05)

    def cpu_us(self):
        """User and system time of all its threads, ended ones too, in microseconds."""
        fields = pathlib.Path(f"/proc/{self.popen.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * TICK_US

    def rss_bytes(self):
        for line in pathlib.Path(f"/proc/{self.popen.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def stop(self):
        for _ in range(2):
            if self.popen.poll() is None:
                self.popen.send_signal(signal.SIGINT)
                time.sleep(0.1)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Bench:
    """A folder, a fleet of one plain server, and any proxies; all gone when the `with` block ends."""

    def __init__(self, base):
        self.base, self.processes = base, []
        # Not the folder of pgspan itself: another user, the one that PgBouncer runs as, has to read it.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pgspan-bench-"))
        os.chmod(self.dir, 0o755)
        self.fleet = None

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.fleet = _fleet.Fleet(str(self.dir / "fleet"), self.base, only=["single"])
            self.fleet.start()
        except _fleet.FleetError as e:
            self.__exit__()
            die(f"bench: {e}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.stop()
        if self.fleet:
            self.fleet.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def server_port(self):
        return self.fleet.servers["single"]["port"]

    def pgspan(self, binary, workers, pool, max_clients=20000, auth_type="trust", secret="app-secret"):
        ini = self.dir / "pgspan.ini"
        (self.dir / "users.txt").write_text(f'"app" "{secret}"\n"postgres" ""\n', encoding="utf-8")
        ini.write_text(f"[proxy]\nlisten_addr = {HOST}\nlisten_port = {self.base + 41}\nunix_socket_dir =\n"
                       f"workers = {workers}\nauth_type = {auth_type}\nauth_file = users.txt\npool_mode = transaction\n"
                       f"default_pool_size = {pool}\nmax_client_conn = {max_clients}\nmonitor_user = postgres\n"
                       f"[database:single]\nprimary = host={HOST} port={self.server_port} dbname=single\n", encoding="utf-8")
        if not os.access(binary, os.X_OK):
            die(f"bench: {binary} is missing: run make")
        return self._keep(Process("pgspan", [os.path.abspath(binary), str(ini)], self.base + 41, self.dir / "pgspan.log"))

    def pgbouncer(self, pool, mode="transaction", max_clients=20000):
        """Debian's PgBouncer, as it comes but for the pool. It refuses to run as root."""
        port = self.base + 42 + len(self.processes)
        ini, user = self.dir / f"pgbouncer-{port}.ini", pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        ini.write_text(f"[databases]\nsingle = host={HOST} port={self.server_port} dbname=single\n[pgbouncer]\n"
                       f"listen_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
                       f"auth_file = {self.dir}/users-pgbouncer.txt\npool_mode = {mode}\ndefault_pool_size = {pool}\n"
                       f"max_client_conn = {max_clients}\nlog_connections = 0\nlog_disconnections = 0\n", encoding="utf-8")
        (self.dir / "users-pgbouncer.txt").write_text('"app" "app-secret"\n', encoding="utf-8")
        if not os.access("/usr/sbin/pgbouncer", os.X_OK):
            die("bench: /usr/sbin/pgbouncer is missing: run `make deps`")
        return self._keep(Process("pgbouncer", ["/usr/sbin/pgbouncer", str(ini)], port, self.dir / f"pgbouncer-{port}.log",
                                  user))

    def _keep(self, process):
        self.processes.append(process)
        return process
