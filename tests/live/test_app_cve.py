# SPDX-License-Identifier: BSD-2-Clause
"""PgBouncer's security fixes one by one, and what must never be seen of a secret.

Guards issue 3, "Who may come in": each test names the CVE (or the release note, where there was no number) whose mistake it would find.
"""
import os
import pathlib
import pwd
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import psycopg
import pytest

import pgwire
from pgwire import Closed, PgError, Wire, startup
from test_app_auth import refused, verifier
from test_app_lookup import LOOKUP, role  # noqa: F401  (a fixture)
from test_app_tls import SSL_REQUEST, Certificates


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certs"))


def still_serves(proxy):
    assert proxy.sql("SELECT 1") == [(1,)]


def test_cve_2012_4575_long_names(proxy):
    """CVE-2012-4575: a database name longer than its field ended the process."""
    for n in (63, 64, 128, 1000, 9000):
        for user, db in (("app", "d" * n), ("u" * n, "app"), ("u" * (n // 2), "d" * (n // 2))):
            assert refused(proxy, user, "app-secret", db)["C"] in ("3D000", "28P01")
    c = Wire(port=proxy.port)
    c.send(startup("u" * 6000, "d" * 6000))  # more than a startup packet may hold
    assert c.is_closed()
    still_serves(proxy)


def test_cve_2015_4054_password_before_startup(proxy):
    """CVE-2015-4054: a password message where a startup packet belongs ended the process."""
    for packet in (pgwire.message("p", b"secret\0"), pgwire.message("p"), b"p\0\0\0\4", b"p" + b"\0" * 20, pgwire.query("SELECT 1"), b"\0\0\0\0", b"\0\0\0\10p"):
        c = Wire(port=proxy.port)
        c.send(packet)
        c.sock.shutdown(socket.SHUT_WR)
        assert c.is_closed()
        c.abort()
    still_serves(proxy)


@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "password"])
def test_cve_2015_6817_an_unknown_user_is_not_auth_user(new_proxy, auth_type):
    """CVE-2015-6817: a user whom auth_query did not find was logged in as auth_user."""
    proxy = new_proxy({"proxy": {**LOOKUP, "auth_type": auth_type}}, users={"postgres": "postgres"})
    for password in ("", "x", "postgres"):
        assert refused(proxy, "who-is-this", password)["C"] == "28P01"
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(user="who-is-this", password="postgres")
    with proxy.connect(user="postgres", password="postgres") as conn:
        assert conn.execute("SELECT session_user::text").fetchone() == ("postgres",)


def test_cve_2021_3935_bytes_before_the_handshake(new_proxy, certs):
    """CVE-2021-3935: what a man in the middle put behind the SSLRequest in clear was taken as the client's, with cert authentication even
    as a statement of the user's."""
    proxy = new_proxy({"proxy": {"auth_type": "cert", "workers": 1, "client_tls_sslmode": "verify-full", "client_tls_key_file": certs["server.key"],
                                 "client_tls_cert_file": certs["server.crt"], "client_tls_ca_file": certs["ca.crt"]}})
    for behind in (startup("app", "app"), pgwire.query("SELECT 1"), b"\0"):
        c = Wire(port=proxy.port)
        c.send(SSL_REQUEST + behind)
        msg = c.read()
        assert (msg.tag, msg.error["C"]) == ("E", "08P01")
        assert "received unencrypted data after SSL request" in msg.error["M"]
        assert c.is_closed()
    with proxy.connect(password="-", sslmode="require", sslcert=certs["app.crt"], sslkey=certs["app.key"]):
        pass


def test_cve_2021_3935_the_servers_side(new_proxy, fleet):
    """CVE-2021-3935's other half, CVE-2021-23222: bytes in clear behind a server's S are not taken as its messages."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen = []

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.settimeout(5)
            try:
                seen.append(sock.recv(8))
                sock.sendall(b"S" + pgwire.message("R", b"\0\0\0\0") + pgwire.message("Z", b"I"))
                while sock.recv(4096):
                    pass
            except OSError:
                pass
            sock.close()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    secret = fleet.value("app-primary", "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    for users in ({"app": secret}, {"app": "app-secret"}):  # natively, and by libpq
        proxy = new_proxy({"proxy": {"workers": 1}, "database:odd": {"primary": f"host=127.0.0.1 port={listener.getsockname()[1]} sslmode=require"}},
                          users=users)
        with pytest.raises(psycopg.OperationalError):
            proxy.connect("odd")
    listener.close()
    assert SSL_REQUEST in seen


@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "password"])
def test_cve_2025_2291_expired_passwords(new_proxy, role, auth_type):  # noqa: F811
    """CVE-2025-2291: auth_query's default did not look at VALID UNTIL, and let in by an expired password."""
    role("expired", "s3cret", more="VALID UNTIL '2020-01-01'")
    role("soon", "s3cret", more=f"VALID UNTIL '{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(time.time() + 4))} UTC'")
    proxy = new_proxy({"proxy": {**LOOKUP, "auth_type": auth_type, "auth_query_cache": "1s"}}, users={"postgres": "postgres"})
    assert refused(proxy, "expired", "s3cret")["C"] == "28P01"
    with proxy.connect(user="soon", password="s3cret") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    time.sleep(5.5)
    assert refused(proxy, "soon", "s3cret")["C"] == "28P01"


def test_cve_2025_12819_search_path_of_an_unknown_client(new_proxy, fleet):
    """CVE-2025-12819: a search_path in the StartupMessage of whoever came along was made on the connection that asks auth_query, so that
    a table or operator of the client's own choice answered, with auth_user's rights."""
    with fleet.connect("app-primary") as conn:
        conn.execute("CREATE SCHEMA IF NOT EXISTS evil")
        conn.execute("DROP TABLE IF EXISTS evil.secrets, public.secrets")
        conn.execute("CREATE TABLE public.secrets (name text, secret text)")
        conn.execute("CREATE TABLE evil.secrets (name text, secret text)")
        conn.execute("INSERT INTO evil.secrets VALUES ('mallory', 'mine')")
    proxy = new_proxy({"proxy": {**LOOKUP, "auth_type": "password", "auth_query_cache": "0", "auth_query": "SELECT name, secret FROM secrets WHERE name = $1"}},
                      users={"postgres": "postgres"})

    def attempt(**options):
        c = Wire(port=proxy.port)
        c.send(startup("mallory", "app", **options))
        with pytest.raises(PgError) as caught:
            c.authenticate("mallory", "mine")
            c.until_ready(check=True)
        assert caught.value.fields["C"] == "28P01"
        c.abort()
    for options in ({"search_path": "evil"}, {"options": "-c search_path=evil"}, {"search_path": "evil; SET role postgres"}):
        attempt(**options)
    # Nor does what a session of auth_user itself has set stay for the next question.
    with proxy.connect(user="postgres", password="postgres") as conn:
        conn.execute("SET search_path = evil")
        attempt()
    attempt()
    fleet.sql("app-primary", "DROP SCHEMA evil CASCADE; DROP TABLE public.secrets")


def test_quotes_in_names_stay_data(new_proxy, fleet, role):  # noqa: F811
    """Odyssey 4b90eb89 and PgBouncer's auth_query: a name is a parameter, never text of the statement."""
    role("o'brien", "s3cret")
    proxy = new_proxy({"proxy": LOOKUP}, users={"postgres": "postgres"})
    with proxy.connect(user="o'brien", password="s3cret") as conn:
        assert conn.execute("SELECT current_user::text").fetchone() == ("o'brien",)
    fleet.sql("app-primary", "CREATE TABLE IF NOT EXISTS canary (n int)")
    for name in ("x' OR '1'='1", "x'; DROP TABLE canary; --", "$1", 'a"b', "a\\", "%s%n", "x' UNION SELECT 'x', 'y", "\u00e4" * 40):
        assert refused(proxy, name, "s3cret")["C"] == "28P01"
    assert fleet.value("app-primary", "SELECT count(*) FROM canary") == 0
    assert fleet.sql("app-primary", "SELECT query FROM pg_stat_activity WHERE query ~ 'brien' AND pid <> pg_backend_pid()") == []
    fleet.sql("app-primary", "DROP TABLE canary")


def test_malformed_scram(proxy):
    """PgBouncer 1.25's fixes: lengths in SASL messages that are not true, and nonces that are too long."""
    def begin():
        c = Wire(port=proxy.port)
        c.send(startup("app", "app"))
        c.read()
        return c
    name = pgwire.z("SCRAM-SHA-256")
    for body in (b"", name, name + b"\0\0", name + struct.pack("!i", -1), name + struct.pack("!i", 2**31 - 1) + b"n,,n=,r=a",
                 name + struct.pack("!i", -2) + b"n,,n=,r=a", name[:-1], b"\0", name + struct.pack("!i", 9) + b"n,,n=,r=a" + b"x" * 100,
                 name + struct.pack("!i", 5 + 2000) + b"n,,n=,r=" + b"a" * 1997, name + struct.pack("!i", 60000) + b"n,,n=,r=" + b"a" * 59992):
        c = begin()
        c.send(pgwire.message("p", body))
        msg = c.read()
        assert msg.tag == "E" and msg.error["C"] in ("08P01", "28P01", "28000"), (body[:40], msg)
        assert c.is_closed()
    for final in (b"", b"c=biws", b"c=biws,r=", b"c=biws,r=" + b"a" * 5000 + b",p=AAAA", b"\0" * 10, b"p=" + b"A" * 44):
        c = begin()
        c.send(pgwire.message("p", name + struct.pack("!i", 12) + b"n,,n=,r=abcd"))
        c.read()
        c.send(pgwire.message("p", final))
        assert c.read().tag == "E" and c.is_closed()
    still_serves(proxy)


@pytest.mark.parametrize("fields", [b"\0", b"SFATAL\0\0", b"", b"M", b"C28P01", b"Mtext\0C\0\0", b"C123456789\0Mx\0\0"])
def test_an_error_without_a_code_from_a_server(new_proxy, fleet, fields):
    """PgBouncer 1.25's fix: an ErrorResponse without SQLSTATE, from whatever answers in a server's place, ended the process."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
                sock.settimeout(3)
                sock.recv(4096)
                sock.sendall(pgwire.message("E", fields))
                sock.close()
            except OSError:
                return
    threading.Thread(target=serve, daemon=True).start()
    secret = fleet.value("app-primary", "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    proxy = new_proxy({"proxy": {"workers": 1}, "database:odd": {"primary": f"host=127.0.0.1 port={listener.getsockname()[1]} sslmode=disable"}},
                      users={"app": secret, "postgres": "postgres"})
    with pytest.raises((PgError, Closed)):
        proxy.wire("odd")
    still_serves(proxy)
    listener.close()


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_not_in_the_log(new_proxy, fleet, role):  # noqa: F811
    """At the loudest level, with every kind of login, right and wrong, a reload and mistakes in the files."""
    role("looked-up", "SECRET-lookup")
    hashed = verifier("SECRET-md5", "md5user", "md5")
    scram = fleet.value("app-primary", "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    looked_up = fleet.value("app-primary", "SELECT rolpassword FROM pg_authid WHERE rolname = 'looked-up'")
    users = {"postgres": "SECRET-plain", "md5user": hashed, "app": scram}
    for auth_type in ("scram-sha-256", "md5", "password"):
        proxy = new_proxy({"proxy": {**LOOKUP, "auth_type": auth_type, "log_level": "debug"},
                           "database:single": {"primary": f"host=127.0.0.1 port={fleet.port('single')} password=SECRET-conninfo"}}, users=users)
        for user, password in (("postgres", "SECRET-plain"), ("md5user", "SECRET-md5"), ("app", "app-secret"), ("looked-up", "SECRET-lookup"),
                               ("app", "SECRET-wrong"), ("nobody", "SECRET-wrong")):
            try:
                with proxy.connect(user=user, password=password) as conn:
                    conn.execute("SELECT 1")
            except psycopg.OperationalError as e:
                assert "SECRET" not in str(e)
        before = len(proxy.log)
        proxy.reload()
        proxy.wait_log("read again", since=before)
        (proxy.dir / "users.txt").write_text('"app" "SECRET-file" x"\n"b" "SECRET-broken\n"c" SECRET-bare\n"d" "SCRAM-SHA-256$SECRET"\n')
        before = len(proxy.log)
        proxy.reload()
        proxy.wait_log("stays in force", since=before)
        for secret in ("SECRET", "app-secret", hashed, scram.split("$")[2], looked_up.split("$")[2]):
            assert secret not in proxy.log, secret
        assert b"SECRET" not in pathlib.Path(f"/proc/{proxy.pid}/cmdline").read_bytes()


def test_secrets_are_not_in_check_output_and_open_files_are_told(new_proxy, fleet):
    proxy = new_proxy({"database:single": {"primary": f"host=127.0.0.1 port={fleet.port('single')} user=app password=SECRET"}},
                      users={"app": "SECRET", "postgres": "SECRET"}, start=False)
    for path in (proxy.ini, proxy.dir / "users.txt"):
        path.chmod(0o644)
    done = subprocess.run([proxy.binary, "--check", str(proxy.ini)], capture_output=True, text=True, env=proxy.env, check=False)
    assert done.returncode == 0, done.stderr
    assert "SECRET" not in done.stdout + done.stderr and "password=***" in done.stdout
    assert re.search(r"warning: .*users.txt can be read by others", done.stderr)
    assert re.search(r"warning: .*holds passwords and can be read by others", done.stderr)
    for path in (proxy.ini, proxy.dir / "users.txt"):
        path.chmod(0o600)
    done = subprocess.run([proxy.binary, "--check", str(proxy.ini)], capture_output=True, text=True, env=proxy.env, check=False)
    assert "can be read by others" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="starts pgspan as another user")
def test_no_core_dump_holds_secrets(fleet):
    """The process is not dumpable, which also keeps its memory from others of the same user; PGSPAN_COREDUMP=1 makes it so."""
    who = pwd.getpwnam("postgres")
    with tempfile.TemporaryDirectory(prefix="pgspan-") as folder:
        os.chmod(folder, 0o755)
        binary = pathlib.Path(folder, "pgspan")
        binary.write_bytes(pathlib.Path(os.environ.get("PGSPAN", "build/pgspan")).read_bytes())
        binary.chmod(0o755)
        port = socket.create_server(("127.0.0.1", 0))
        ini = pathlib.Path(folder, "proxy.ini")
        ini.write_text(f"[proxy]\nauth_type = trust\nlisten_port = {port.getsockname()[1]}\nworkers = 1\n"
                       f"[database:single]\nprimary = host=127.0.0.1 port={fleet.port('single')}\n")
        port.close()
        for env, dumpable in (({}, False), ({"PGSPAN_COREDUMP": "1"}, True)):
            with subprocess.Popen([binary, ini], env={**os.environ, **env}, user=who.pw_uid, group=who.pw_gid, extra_groups=[],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder) as process:
                owner, deadline = None, time.monotonic() + 10
                want = who.pw_uid if dumpable else 0
                while owner != want and time.monotonic() < deadline:
                    time.sleep(0.1)
                    owner = os.stat(f"/proc/{process.pid}/mem").st_uid
                process.send_signal(signal.SIGKILL)
                assert owner == want
