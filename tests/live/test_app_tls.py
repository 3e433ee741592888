# SPDX-License-Identifier: BSD-2-Clause
"""TLS on both sides: negotiation, certificates, channel binding, what goes wrong in a handshake, and that bytes are bytes.

Guards issue 3, "Who may come in", first bullet: PgBouncer's client_tls_sslmode and files, certificate authentication with
maps, SCRAM-SHA-256-PLUS, direct TLS with ALPN, early plaintext (CVE-2021-23214), reload; and libpq's sslmode for servers.
"""
import asyncio
import base64
import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time

import asyncpg
import psycopg
import pytest

import pgwire
from pgwire import PgError, Wire, startup

SSL_REQUEST = struct.pack("!II", 8, pgwire.SSL_REQUEST)


# -- certificates -----------------------------------------------------------------------------------------------------


class Certificates:
    """A CA and what it signs, made by the openssl command, in a folder."""

    def __init__(self, folder):
        self.dir = pathlib.Path(folder)
        self.ca("ca")
        self.ca("other-ca")
        self.make("server", "/CN=localhost")
        self.make("rsa", "/CN=localhost", key=["-newkey", "rsa:2048"])
        self.make("app", "/CN=app")
        self.make("jane", "/CN=Jane Doe")
        self.make("host", "/CN=app.example.com")
        self.make("foreign", "/CN=app", ca="other-ca")
        self.make("expired", "/CN=app", days=["-not_before", "20200101000000Z", "-not_after", "20200201000000Z"])

    def __getitem__(self, name):
        return str(self.dir / name)

    def run(self, *argv):
        subprocess.run(["openssl", *map(str, argv)], cwd=self.dir, check=True, capture_output=True)

    def ca(self, name):
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                 "-out", f"{name}.crt", "-subj", f"/CN={name}", "-days", "30")

    def make(self, name, subject, ca="ca", key=("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"), days=None):
        self.run("req", *key, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        if days:
            # `openssl ca` alone can say when a certificate begins and ends.
            (self.dir / "index.txt").write_text("")
            (self.dir / "serial").write_text("1000\n")
            (self.dir / "ca.cnf").write_text(
                "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
                "[p]\ncommonName=supplied\n")
            self.run("ca", "-batch", "-config", "ca.cnf", "-cert", f"{ca}.crt", "-keyfile", f"{ca}.key", "-in", f"{name}.csr",
                     "-out", f"{name}.crt", "-startdate", days[1], "-enddate", days[3])
        else:
            (self.dir / "san.cnf").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            self.run("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial", "-out",
                     f"{name}.crt", "-days", "10", "-extfile", "san.cnf")
        (self.dir / f"{name}.key").chmod(0o600)


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="module")
def tls_servers(fleet, certs):
    """app's and shop's servers with TLS, for the whole module."""
    def setting(name, value):
        fleet.sql(name, f"ALTER SYSTEM SET ssl = {value}")
        fleet.sql(name, "SELECT pg_reload_conf()")

    names = ["app-primary", *fleet.replicas, *fleet.shards]
    for name in names:
        for file in ("server.crt", "server.key"):
            to = os.path.join(fleet.impl.data(name), file)
            shutil.copy(certs[file], to)
            os.chmod(to, 0o600)
            if fleet.impl.owner:
                os.chown(to, fleet.impl.owner.pw_uid, fleet.impl.owner.pw_gid)
    for name in names:
        setting(name, "on")
    yield fleet
    for name in names:
        setting(name, "off")


def tls_config(certs, mode="allow", **more):
    return {"client_tls_sslmode": mode, "client_tls_key_file": certs["server.key"], "client_tls_cert_file": certs["server.crt"],
            **more}


def verify_config(certs, mode="verify-full", **more):
    return tls_config(certs, mode, client_tls_ca_file=certs["ca.crt"], **more)


def connect(proxy, certs, sslmode="verify-full", db="app", **kwargs):
    return psycopg.connect(f"host=localhost hostaddr=127.0.0.1 port={proxy.port} dbname={db} user=app password=app-secret",
                           autocommit=True, sslmode=sslmode, sslrootcert=certs["ca.crt"], connect_timeout=10, **kwargs)


def client_cert(certs, name):
    return {"sslcert": certs[f"{name}.crt"], "sslkey": certs[f"{name}.key"]}


def context(certs, alpn=None, **versions):
    ctx = ssl.create_default_context(cafile=certs["ca.crt"])
    ctx.check_hostname = False
    if alpn:
        ctx.set_alpn_protocols(alpn)
    for name, value in versions.items():
        setattr(ctx, name, value)
    return ctx


def tls_wire(proxy, certs, ask=True, ctx=None, timeout=20.0):
    """A wire connection with TLS, nothing sent over it yet."""
    c = Wire(port=proxy.port, timeout=timeout)
    if ask:
        c.send(SSL_REQUEST)
        assert c.read_exactly(1) == b"S"
    c.sock = (ctx or context(certs)).wrap_socket(c.sock, server_hostname="localhost")
    return c


def log_in(c, user="app", password="app-secret", db="app"):
    c.send(startup(user, db))
    c.authenticate(user, password)
    c.until_ready(check=True)
    return c


# -- what the modes mean ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, plain, encrypted", [
    ("disable", True, False), ("allow", True, True), ("prefer", True, True), ("require", False, True),
])
def test_sslmode(new_proxy, certs, mode, plain, encrypted):
    proxy = new_proxy({"proxy": tls_config(certs, mode)})
    if plain:
        with connect(proxy, certs, "disable") as conn:
            assert not conn.pgconn.ssl_in_use
            assert conn.execute("SELECT 1").fetchone() == (1,)
    else:
        with pytest.raises(psycopg.OperationalError, match="SSL connection is required"):
            connect(proxy, certs, "disable")
    if encrypted:
        for sslmode in ("require", "verify-ca", "verify-full"):
            with connect(proxy, certs, sslmode) as conn:
                assert conn.pgconn.ssl_in_use
                assert conn.execute("SELECT 1").fetchone() == (1,)
    else:
        with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
            connect(proxy, certs, "require")
    with connect(proxy, certs, "prefer") as conn:
        assert conn.pgconn.ssl_in_use == encrypted


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_client_certificate_required(new_proxy, certs, mode):
    proxy = new_proxy({"proxy": verify_config(certs, mode)})
    with connect(proxy, certs, **client_cert(certs, "jane")) as conn:  # the password says who it is
        assert conn.execute("SELECT current_user::text").fetchone() == ("app",)
    for bad in ({"sslcert": "/nonexistent"}, client_cert(certs, "foreign"), client_cert(certs, "expired")):
        with pytest.raises(psycopg.OperationalError):
            connect(proxy, certs, **bad)
    with pytest.raises(psycopg.OperationalError, match="SSL connection is required"):
        connect(proxy, certs, "disable")
    proxy.wait_log("TLS handshake failed: .*certificate")
    proxy.wait_log("certificate has expired")
    assert connect(proxy, certs, **client_cert(certs, "app")).execute("SELECT 1").fetchone() == (1,)


def test_client_certificate_optional(new_proxy, certs):
    """With a CA and without verify-…: none need be shown, one that is must be good."""
    proxy = new_proxy({"proxy": verify_config(certs, "require")})
    connect(proxy, certs, sslcert="/nonexistent").close()
    connect(proxy, certs, **client_cert(certs, "app")).close()
    with pytest.raises(psycopg.OperationalError):
        connect(proxy, certs, **client_cert(certs, "foreign"))


def test_server_certificate_is_checked_by_the_client(new_proxy, certs):
    proxy = new_proxy({"proxy": tls_config(certs)})
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(f"host=localhost hostaddr=127.0.0.1 port={proxy.port} dbname=app user=app password=app-secret",
                        sslmode="verify-full", sslrootcert=certs["other-ca.crt"])
    proxy.wait_log("TLS handshake failed: .*unknown ca")


def test_protocol_versions(new_proxy, certs):
    proxy = new_proxy({"proxy": tls_config(certs)})
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        c = log_in(tls_wire(proxy, certs, ctx=context(certs, minimum_version=version, maximum_version=version)))
        assert c.rows("SELECT 1") == [["1"]]
        c.close()
    proxy = new_proxy({"proxy": tls_config(certs, client_tls_protocols="tlsv1.3")})
    log_in(tls_wire(proxy, certs)).close()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_wire(proxy, certs, ctx=context(certs, maximum_version=ssl.TLSVersion.TLSv1_2))
    proxy = new_proxy({"proxy": tls_config(certs, client_tls_protocols="tlsv1.2", client_tls_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256",
                                           client_tls_ecdhcurve="prime256v1")})
    c = log_in(tls_wire(proxy, certs))
    assert c.sock.version() == "TLSv1.2"
    assert c.sock.cipher()[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    c.close()


def test_unix_socket_has_no_tls(new_proxy, certs, tmp_path):
    """As with PostgreSQL: an SSLRequest there is answered N, and `require` does not mean it."""
    proxy = new_proxy({"proxy": {**tls_config(certs, "require"), "unix_socket_dir": str(tmp_path)}})
    c = Wire(str(tmp_path), proxy.port)
    c.send(SSL_REQUEST)
    assert c.read_exactly(1) == b"N"
    assert log_in(c).rows("SELECT 1") == [["1"]]
    c.close()


# -- authentication ---------------------------------------------------------------------------------------------------


def test_cert_authentication(new_proxy, certs, fleet):
    ini = {"proxy": {**verify_config(certs), "auth_type": "cert", "auth_file": None},
           "database:app": {"primary": f"{fleet.dsn('app-primary', 'app')}", "replica": None}}
    proxy = new_proxy(ini)
    with connect(proxy, certs, **client_cert(certs, "app")) as conn:
        assert conn.execute("SELECT current_user::text").fetchone() == ("app",)
    with pytest.raises(psycopg.OperationalError, match='certificate authentication failed for user "app"'):
        connect(proxy, certs, **client_cert(certs, "jane"))
    proxy.wait_log('refused: the certificate\'s name is "Jane Doe"')


def test_cert_authentication_with_a_map(new_proxy, certs, fleet, tmp_path):
    (tmp_path / "ident.conf").write_text('# who may be whom\nother "Jane Doe" postgres\nstaff "Jane Doe" app\n'
                                         "staff /^(.*)\\.example\\.com$ \\1\n")
    proxy = new_proxy({"proxy": {**verify_config(certs), "auth_type": "cert", "auth_file": None, "auth_cert_map": "staff",
                                 "auth_ident_file": str(tmp_path / "ident.conf")},
                       "database:app": {"primary": f"{fleet.dsn('app-primary', 'app')}", "replica": None}})
    for name in ("jane", "host"):
        with connect(proxy, certs, **client_cert(certs, name)) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
        connect(proxy, certs, **client_cert(certs, "app"))  # no line of the map says so
    with pytest.raises(psycopg.OperationalError, match="certificate authentication failed"):
        psycopg.connect(f"host=localhost hostaddr=127.0.0.1 port={proxy.port} dbname=app user=postgres", sslmode="require",
                        **client_cert(certs, "jane"))


@pytest.mark.parametrize("name", ["server", "rsa"])
def test_channel_binding(new_proxy, certs, name):
    proxy = new_proxy({"proxy": tls_config(certs, client_tls_key_file=certs[f"{name}.key"], client_tls_cert_file=certs[f"{name}.crt"])})
    with connect(proxy, certs, channel_binding="require") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    connect(proxy, certs, channel_binding="disable").close()
    with pytest.raises(psycopg.OperationalError, match="channel binding"):
        connect(proxy, certs, "disable", channel_binding="require")
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "app"'):
        psycopg.connect(f"host=localhost hostaddr=127.0.0.1 port={proxy.port} dbname=app user=app password=wrong", sslmode="require",
                        channel_binding="require")


def scram_first(c, mechanism, first, user="app"):
    c.send(startup(user, "app"))
    offered = c.read()
    c.send(pgwire.message("p", pgwire.z(mechanism) + struct.pack("!I", len(first)) + first))
    return offered.body[4:].rstrip(b"\0").split(b"\0"), c.read()


def test_channel_binding_is_offered_on_tls_only(new_proxy, certs):
    proxy = new_proxy({"proxy": tls_config(certs)})
    for user in ("app", "nobody"):  # who exists can't be told from it
        offered, reply = scram_first(tls_wire(proxy, certs), "SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abcd", user)
        assert offered == [b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"]
        assert reply.tag == "R"
    offered, reply = scram_first(Wire(port=proxy.port), "SCRAM-SHA-256", b"y,,n=,r=abcd")
    assert offered == [b"SCRAM-SHA-256"]
    assert reply.tag == "R"


@pytest.mark.parametrize("mechanism, first, code", [
    ("SCRAM-SHA-256", b"n,,n=,r=abcd", None),
    ("SCRAM-SHA-256", b"y,,n=,r=abcd", "28000"),  # it was offered: somebody has cut it out
    ("SCRAM-SHA-256", b"p=tls-server-end-point,,n=,r=abcd", "08P01"),
    ("SCRAM-SHA-256-PLUS", b"n,,n=,r=abcd", "08P01"),
    ("SCRAM-SHA-256-PLUS", b"y,,n=,r=abcd", "08P01"),
    ("SCRAM-SHA-256-PLUS", b"p=tls-unique,,n=,r=abcd", "08P01"),
    ("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point", "08P01"),
    ("SCRAM-SHA-1", b"n,,n=,r=abcd", "08P01"),
])
def test_channel_binding_downgrade(new_proxy, certs, mechanism, first, code):
    proxy = new_proxy({"proxy": tls_config(certs)})
    _, reply = scram_first(tls_wire(proxy, certs), mechanism, first)
    assert (reply.error["C"] if reply.tag == "E" else None) == code


def test_channel_binding_to_another_certificate(new_proxy, certs):
    """What a man in the middle with a certificate of his own would relay."""
    proxy = new_proxy({"proxy": tls_config(certs)})
    other = ssl.PEM_cert_to_DER_cert(pathlib.Path(certs["rsa.crt"]).read_text())
    c = tls_wire(proxy, certs)
    _, reply = scram_first(c, "SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abcd")
    nonce = dict(p.split("=", 1) for p in reply.body[4:].decode().split(","))["r"]
    binding = base64.b64encode(b"p=tls-server-end-point,," + hashlib.sha256(other).digest()).decode()
    proof = base64.b64encode(bytes(32)).decode()
    c.send(pgwire.message("p", f"c={binding},r={nonce},p={proof}".encode()))
    error = c.read().error
    assert (error["C"], error["M"]) == ("28000", "SCRAM channel binding check failed")


# -- negotiation and its abuse ----------------------------------------------------------------------------------------


def test_gss_then_ssl(new_proxy, certs):
    proxy = new_proxy({"proxy": tls_config(certs)})
    c = Wire(port=proxy.port)
    c.send(struct.pack("!II", 8, pgwire.GSSENC_REQUEST))
    assert c.read_exactly(1) == b"N"
    c.send(SSL_REQUEST)
    assert c.read_exactly(1) == b"S"
    c.sock = context(certs).wrap_socket(c.sock, server_hostname="localhost")
    log_in(c).close()


def test_early_plaintext_is_refused(new_proxy, certs):
    """Bytes behind an SSLRequest, before the handshake: CVE-2021-23214."""
    proxy = new_proxy({"proxy": tls_config(certs)})
    for more in (startup("app", "app"), b"\x16", b"\0"):
        c = Wire(port=proxy.port)
        c.send(SSL_REQUEST + more)
        error = c.read().error
        assert (error["C"], error["M"]) == ("08P01", "received unencrypted data after SSL request")
        assert c.is_closed()
    # Sent after the S, it is no TLS record.
    c = Wire(port=proxy.port)
    c.send(SSL_REQUEST)
    assert c.read_exactly(1) == b"S"
    c.send(startup("app", "app"))
    assert c.is_closed()
    proxy.wait_log("TLS handshake failed")


def test_ssl_request_inside_tls(new_proxy, certs):
    proxy = new_proxy({"proxy": tls_config(certs)})
    c = tls_wire(proxy, certs)
    c.send(SSL_REQUEST)
    assert c.read().error["M"].startswith("unsupported frontend protocol 1234.5679")


@pytest.mark.parametrize("mode", ["allow", "require"])
def test_direct_tls(new_proxy, certs, mode):
    proxy = new_proxy({"proxy": tls_config(certs, mode)})
    c = tls_wire(proxy, certs, ask=False, ctx=context(certs, ["postgresql"]))
    assert c.sock.selected_alpn_protocol() == "postgresql"
    assert log_in(c).rows("SELECT 1") == [["1"]]
    c.close()
    c = tls_wire(proxy, certs, ask=False)  # without ALPN
    c.send(startup("app", "app"))
    assert c.read().error["M"] == "received direct SSL connection request without ALPN protocol negotiation extension"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_wire(proxy, certs, ask=False, ctx=context(certs, ["http/1.1"])).read()


def test_direct_tls_where_there_is_none(proxy, certs):
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        tls_wire(proxy, certs, ask=False, ctx=context(certs, ["postgresql"]))


def memory_client(certs):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return context(certs, ["postgresql"]).wrap_bio(incoming, outgoing, server_hostname="localhost"), incoming, outgoing


def test_handshake_in_pieces(new_proxy, certs):
    """Byte by byte, with and without an SSLRequest; StartupMessage in one segment with the end of the handshake."""
    proxy = new_proxy({"proxy": tls_config(certs)})
    for ask in (True, False):
        c = Wire(port=proxy.port)
        if ask:
            c.send(SSL_REQUEST)
            assert c.read_exactly(1) == b"S"
        tls, incoming, outgoing = memory_client(certs)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                c.send_in_pieces(outgoing.read())
                incoming.write(c.sock.recv(65536))
        tls.write(startup("app", "app"))
        c.send(outgoing.read())
        incoming.write(c.sock.recv(65536))
        assert tls.read(1) == b"R"
        c.abort()


def test_slow_handshake_times_out(new_proxy, certs):
    proxy = new_proxy({"proxy": {**tls_config(certs), "client_login_timeout": "1"}})
    tls, _, outgoing = memory_client(certs)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    quiet, slow = Wire(port=proxy.port), Wire(port=proxy.port)
    quiet.send(SSL_REQUEST)
    assert quiet.read_exactly(1) == b"S"
    slow.send(SSL_REQUEST)
    assert slow.read_exactly(1) == b"S"
    start = time.monotonic()
    with contextlib.suppress(OSError):
        for byte in hello[:60]:
            slow.send(bytes([byte]))
            time.sleep(0.05)
    assert slow.is_closed() and quiet.is_closed()
    assert time.monotonic() - start < 10
    connect(proxy, certs).close()


def test_rubbish_instead_of_a_handshake(new_proxy, certs):
    proxy = new_proxy({"proxy": {**tls_config(certs), "client_login_timeout": "2"}})
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + b"x" * 70000,
                    b"\x17\x03\x03\x00\x01x", b"\x80\x2e\x01\x00\x02", b"\x16"):
        for ask in (True, False):
            c = Wire(port=proxy.port)
            if ask:
                c.send(SSL_REQUEST)
                assert c.read_exactly(1) == b"S"
            with contextlib.suppress(OSError):
                c.send(rubbish)
            assert c.is_closed(15)
            c.abort()
    connect(proxy, certs).close()


def test_clients_that_leave_in_the_handshake(new_proxy, certs):
    """Whoever goes while a thread computes for him leaves nothing behind (the sanitizers look)."""
    proxy = new_proxy({"proxy": tls_config(certs, client_tls_key_file=certs["rsa.key"], client_tls_cert_file=certs["rsa.crt"])})
    tls, _, outgoing = memory_client(certs)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    for i in range(100):
        c = Wire(port=proxy.port)
        c.send(hello)
        if i % 2:
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.abort()
    waiting = [Wire(port=proxy.port) for _ in range(20)]
    for c in waiting:
        c.send(hello)
    connect(proxy, certs).close()


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["plain-tls", "tls-plain", "tls-tls"])
def sides(request, new_proxy, certs, tls_servers):
    """(proxy, sslmode of clients): TLS to the client, to the servers, to both."""
    client, server = request.param.split("-")
    more = f" sslmode=verify-full sslrootcert={certs['ca.crt']}" if server == "tls" else " sslmode=disable"
    dsn = "host=localhost hostaddr=127.0.0.1 port={} dbname=app" + more
    ini = {"proxy": tls_config(certs, workers="2"),
           "database:app": {"primary": dsn.format(tls_servers.port("app-primary")),
                            "replica": [dsn.format(tls_servers.port(r)) for r in tls_servers.replicas]}}
    proxy = new_proxy(ini)
    with connect(proxy, certs, "verify-full" if client == "tls" else "disable") as conn:
        used = conn.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
        assert used == (server == "tls",)
    return proxy, "verify-full" if client == "tls" else "disable"


def test_large_results_and_parameters(sides, certs):
    proxy, sslmode = sides
    with connect(proxy, certs, sslmode) as conn:
        for size in (1, 4090, 16383, 16384, 16385, 65536, 1 << 20, 20 << 20):
            text = ("0123456789abcdef" * (size // 16 + 1))[:size]
            assert conn.execute("SELECT %s::text", [text]).fetchone() == (text,)
        rows = conn.execute("SELECT i, repeat(i::text, 50) FROM generate_series(1, 50000) i").fetchall()
        assert len(rows) == 50000 and all(r[1] == str(r[0]) * 50 for r in rows)
        with conn.pipeline():
            cursors = [conn.execute("SELECT %s::int, repeat('x', 10000)", [i]) for i in range(500)]
        assert [c.fetchone()[0] for c in cursors] == list(range(500))


def test_copy(sides, certs):
    proxy, sslmode = sides
    with connect(proxy, certs, sslmode) as conn:
        conn.execute("DROP TABLE IF EXISTS tls_copy; CREATE TABLE tls_copy (i int, t text)")
        lines = b"".join(b"%d\t%s\n" % (i, b"x" * (i % 300)) for i in range(100000))
        with conn.cursor().copy("COPY tls_copy FROM STDIN") as copy:
            copy.write(lines)
        with conn.transaction():  # on the primary: a replica may not have it yet
            with conn.cursor().copy("COPY (SELECT * FROM tls_copy ORDER BY i) TO STDOUT") as copy:
                assert b"".join(bytes(part) for part in copy) == lines
        conn.execute("DROP TABLE tls_copy")


def test_slow_reader_holds_the_server_back(sides, certs):
    """Back-pressure: a client that does not read makes no heap grow, and gets all in the end."""
    proxy, sslmode = sides
    c = Wire(port=proxy.port) if sslmode == "disable" else tls_wire(proxy, certs)
    log_in(c)

    def resident():
        return int(pathlib.Path(f"/proc/{proxy.pid}/statm").read_text().split()[1]) * 4096

    before = resident()
    c.send(pgwire.query("SELECT repeat('x', 100000) FROM generate_series(1, 1000)"))
    time.sleep(1)
    assert resident() - before < 30 << 20
    assert sum(m.tag == "D" and len(m.body) == 100006 for m in c.until_ready()) == 1000
    c.close()


def test_both_ways_at_once(sides, certs):
    """A pipeline whose sender reads nothing until all is sent, as long as the sockets take it."""
    proxy, sslmode = sides
    c = Wire(port=proxy.port) if sslmode == "disable" else tls_wire(proxy, certs)
    log_in(c)
    c.sock.settimeout(60)
    for i in range(300):
        c.send(pgwire.run(f"SELECT {i}, repeat('y', 1000)") + pgwire.sync())
    got = [m.row[0] for _ in range(300) for m in c.until_ready() if m.tag == "D"]
    assert got == [str(i).encode() for i in range(300)]
    c.close()


def test_small_statements_by_drivers(sides, certs):
    proxy, sslmode = sides
    with connect(proxy, certs, sslmode) as conn:
        for i in range(300):
            assert conn.execute("SELECT %s::int + 1", [i]).fetchone() == (i + 1,)
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("SELECT 1 / 0")
        with conn.transaction():
            assert conn.execute("SELECT 1").fetchone() == (1,)

    async def main():
        ctx = ssl.create_default_context(cafile=certs["ca.crt"]) if sslmode != "disable" else False
        conn = await asyncpg.connect(host="localhost", port=proxy.port, user="app", password="app-secret", database="app", ssl=ctx)
        assert await conn.fetchval("SELECT length($1::text)", "x" * 100000) == 100000
        assert [r["i"] async for r in iterate(conn)] == list(range(1000))
        await conn.close()

    async def iterate(conn):
        async with conn.transaction():
            async for row in conn.cursor("SELECT i FROM generate_series(0, 999) i"):
                yield row

    asyncio.run(main())


def test_cancel(sides, certs):
    proxy, sslmode = sides
    with connect(proxy, certs, sslmode) as conn:
        start = time.monotonic()
        timer = threading.Timer(0.5, conn.cancel)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("SELECT pg_sleep(20)")
        timer.join()
        assert time.monotonic() - start < 10
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_cancel_request_over_tls(new_proxy, certs):
    """As libpq 17 sends it."""
    proxy = new_proxy({"proxy": tls_config(certs, "require")})
    c = log_in(tls_wire(proxy, certs))
    c.send(pgwire.query("SELECT pg_sleep(20)"))
    time.sleep(0.3)
    other = tls_wire(proxy, certs)
    other.send(pgwire.cancel_request(c.pid, c.key))
    assert other.is_closed()
    assert pgwire.error(c.until_ready()) == "57014"
    c.close()


def test_few_servers_change_hands_between_workers(new_proxy, certs, tls_servers):
    """A server with its TLS goes from one worker to the other, where the next client waits."""
    dsn = f"host=localhost hostaddr=127.0.0.1 port={tls_servers.port('app-primary')} dbname=app sslmode=require"
    proxy = new_proxy({"proxy": tls_config(certs, workers="4", default_pool_size="2"),
                       "database:app": {"primary": dsn, "replica": None}})
    tls_servers.sql("app-primary", "CREATE TABLE IF NOT EXISTS tls_counter AS SELECT 0 AS n; UPDATE tls_counter SET n = 0; "
                    "GRANT ALL ON tls_counter TO PUBLIC")

    def work(_):
        with connect(proxy, certs) as conn:
            for i in range(50):
                with conn.transaction():
                    conn.execute("UPDATE tls_counter SET n = n + 1")
                    assert conn.execute("SELECT length(repeat('x', %s))", [i * 700]).fetchone() == (i * 700,)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    assert tls_servers.value("app-primary", "SELECT n FROM tls_counter") == 600
    tls_servers.sql("app-primary", "DROP TABLE tls_counter")


def test_several_shards(new_proxy, certs, tls_servers):
    """Fan-out, two-phase commit and COPY by row, TLS on both sides."""
    def dsn(name):
        return f"host=localhost hostaddr=127.0.0.1 port={tls_servers.port(name)} dbname=shop sslmode=verify-full sslrootcert={certs['ca.crt']}"

    proxy = new_proxy({"proxy": tls_config(certs), "database:shop": {"table": ["tls_rows key=id"]},
                       **{f"shard:shop:{i}": {"primary": dsn(name)} for i, name in enumerate(tls_servers.shards)}})
    with connect(proxy, certs, db="shop") as conn:
        conn.execute("CREATE TABLE tls_rows (id bigint PRIMARY KEY, t text)")
        try:
            with conn.cursor().copy("COPY tls_rows FROM STDIN") as copy:
                for i in range(20000):
                    copy.write(b"%d\t%s\n" % (i, b"x" * (i % 100)))
            assert conn.execute("SELECT count(*) FROM tls_rows").fetchone() == (20000,)
            rows = conn.execute("SELECT id, t FROM tls_rows ORDER BY id").fetchall()
            assert rows == [(i, "x" * (i % 100)) for i in range(20000)]
            with conn.transaction():
                for i in range(20):
                    conn.execute("UPDATE tls_rows SET t = 'changed' WHERE id = %s", [i])
            assert conn.execute("SELECT count(*) FROM tls_rows WHERE t = 'changed'").fetchone() == (20,)
            assert all(r[0] > 0 for r in tls_servers.all_shards("SELECT count(*) FROM pg_stat_ssl WHERE ssl"))
        finally:
            conn.execute("DROP TABLE tls_rows")


def test_server_that_is_not_trusted(new_proxy, certs, tls_servers):
    dsn = f"host=localhost hostaddr=127.0.0.1 port={tls_servers.port('app-primary')} dbname=app sslmode=verify-full"
    proxy = new_proxy({"database:app": {"primary": f"{dsn} sslrootcert={certs['other-ca.crt']}", "replica": None}})
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        proxy.connect(connect_timeout=20)


def test_many_idle_and_many_in_turn(new_proxy, certs):
    proxy = new_proxy({"proxy": tls_config(certs)})
    conns = [connect(proxy, certs, "require") for _ in range(50)]
    for _ in range(3):
        for i, conn in enumerate(conns):
            assert conn.execute("SELECT %s::int", [i]).fetchone() == (i,)
    for conn in conns:
        conn.close()


def test_ends(new_proxy, certs):
    """Terminate, close_notify, FIN without it, and reset: each frees the client's place."""
    proxy = new_proxy({"proxy": {**tls_config(certs), "max_client_conn": "5"}})
    for _ in range(4):
        log_in(tls_wire(proxy, certs)).close()
        c = log_in(tls_wire(proxy, certs))
        c.sock.settimeout(5)
        with contextlib.suppress(OSError):
            c.sock.unwrap()
        c.abort()
        log_in(tls_wire(proxy, certs)).abort()
        c = log_in(tls_wire(proxy, certs))
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.abort()
    deadline = time.monotonic() + 10
    while True:
        try:
            connect(proxy, certs).close()
            break
        except psycopg.OperationalError:
            assert time.monotonic() < deadline


def test_goodbye_of_the_proxy(new_proxy, certs):
    """The last error arrives whole, with TLS's own end behind it."""
    proxy = new_proxy({"proxy": tls_config(certs)})
    c = log_in(tls_wire(proxy, certs))
    c.send(b"!\0\0\0\4")
    assert c.read().error["C"] == "08P01"
    c.sock.settimeout(5)
    assert c.sock.recv(10) == b""  # Python raises where close_notify is missing


# -- configuration ----------------------------------------------------------------------------------------------------


def served(proxy, certs):
    """The certificate that a new client gets."""
    c = tls_wire(proxy, certs)
    der = c.sock.getpeercert(binary_form=True)
    c.abort()
    return der


def der(certs, name):
    return ssl.PEM_cert_to_DER_cert(pathlib.Path(certs[name]).read_text())


def test_reload(new_proxy, certs, tmp_path):
    """New files for new connections, those there go on; a broken pair changes nothing, and is told."""
    key, crt = tmp_path / "key", tmp_path / "crt"

    def put(key_from, crt_from):
        shutil.copy(certs[crt_from], crt)
        shutil.copy(certs[key_from], key)
        since = len(proxy.log) if proxy else 0
        if proxy:
            proxy.reload()
        return since

    proxy = None
    put("server.key", "server.crt")
    proxy = new_proxy({"proxy": tls_config(certs, client_tls_key_file=key, client_tls_cert_file=crt)})
    old = connect(proxy, certs)
    assert served(proxy, certs) == der(certs, "server.crt")

    since = put("rsa.key", "rsa.crt")
    proxy.wait_log("the configuration was read again", since=since)
    time.sleep(0.2)
    assert served(proxy, certs) == der(certs, "rsa.crt")
    assert old.execute("SELECT 1").fetchone() == (1,)
    connect(proxy, certs, channel_binding="require").close()

    since = put("server.key", "rsa.crt")
    proxy.wait_log("client_tls_key_file: .*expected the private key of client_tls_cert_file", since=since)
    proxy.wait_log("not taken: the one before stays in force", since=since)
    assert served(proxy, certs) == der(certs, "rsa.crt")
    crt.write_text("rubbish")
    since = len(proxy.log)
    proxy.reload()
    proxy.wait_log("client_tls_cert_file: ", since=since)
    key.unlink()
    shutil.copy(certs["server.crt"], crt)
    since = len(proxy.log)
    proxy.reload()
    proxy.wait_log("client_tls_key_file: .*No such file", since=since)
    assert served(proxy, certs) == der(certs, "rsa.crt")

    since = put("server.key", "server.crt")
    proxy.wait_log("the configuration was read again", since=since)
    time.sleep(0.2)
    assert served(proxy, certs) == der(certs, "server.crt")
    old.close()


@pytest.mark.parametrize("settings, message", [
    ({"client_tls_key_file": None}, "client_tls_key_file: not set"),
    ({"client_tls_cert_file": "/nonexistent"}, "client_tls_cert_file: /nonexistent: No such file"),
    ({"client_tls_key_file": "{rsa.key}"}, "client_tls_key_file: .*expected the private key of client_tls_cert_file"),
    ({"client_tls_key_file": "{ca.crt}"}, "client_tls_key_file: .*expected the private key"),
    ({"client_tls_sslmode": "verify-full"}, "client_tls_ca_file: not set"),
    ({"client_tls_ca_file": "{server.key}"}, "client_tls_ca_file: .*expected certificates"),
    ({"client_tls_protocols": "tlsv1.1"}, 'client_tls_protocols: "tlsv1.1" is not offered'),
    ({"client_tls_ciphers": "nonsense"}, "client_tls_ciphers: nonsense: "),
    ({"client_tls_ecdhcurve": "nonsense"}, "client_tls_ecdhcurve: nonsense: "),
    ({"auth_type": "cert"}, "auth_type: cert needs clients' certificates"),
    ({"auth_cert_map": "m"}, 'auth_cert_map: there is no map "m"'),
])
def test_check(new_proxy, certs, settings, message):
    values = {k: re.sub(r"\{(.*)\}", lambda m: certs[m.group(1)], v) if v else v for k, v in settings.items()}
    proxy = new_proxy({"proxy": {**tls_config(certs), **values}}, start=False)
    done = subprocess.run([proxy.binary, "--check", str(proxy.ini)], capture_output=True, text=True, check=False, env=proxy.env)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr


def test_check_encrypted_key(new_proxy, certs):
    """It does not ask on the terminal."""
    certs.run("ec", "-in", "server.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key")
    os.chmod(certs["locked.key"], 0o600)
    proxy = new_proxy({"proxy": tls_config(certs, client_tls_key_file=certs["locked.key"])}, start=False)
    done = subprocess.run([proxy.binary, "--check", str(proxy.ini)], capture_output=True, text=True, check=False, timeout=20,
                          env=proxy.env, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "client_tls_key_file" in done.stderr
