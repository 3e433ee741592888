# SPDX-License-Identifier: BSD-2-Clause
"""Start-up: packets before the first statement, authentication, and parameters that the client brings.

Guards issue 2: SSLRequest and GSSENCRequest are answered, every authentication type says yes and no rightly, an unknown
user learns no more than one with a wrong password, and a start-up parameter means what it means to PostgreSQL.
"""
import hashlib
import struct

import psycopg
import pytest

import pgwire
from pgwire import PgError, Wire, startup


def verifier(password, user="postgres", kind="scram"):
    """A users.txt secret."""
    if kind == "md5":
        return "md5" + hashlib.md5((password + user).encode()).hexdigest()
    return psycopg.pq.PGconn.connect_start(b"host=/nowhere").encrypt_password(
        password.encode(), user.encode(), b"scram-sha-256").decode()


def refused(proxy, user, password, db="app"):
    """The fields of the FATAL that a login ends with; the connection is then closed."""
    c = Wire(port=proxy.port)
    c.send(startup(user, db))
    with pytest.raises(PgError) as caught:
        c.authenticate(user, password)
        c.until_ready(check=True)
    assert c.is_closed()
    c.abort()
    return caught.value.fields


# -- authentication ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth_type", ["trust", "password", "md5", "scram-sha-256"])
def test_right_password(new_proxy, auth_type):
    proxy = new_proxy({"proxy": {"auth_type": auth_type, "workers": 1}})
    with proxy.wire() as c:
        assert c.rows("SELECT current_user, current_database()") == [["app", "app"]]
    with proxy.connect() as conn:  # libpq's own idea of the same dialogue
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert proxy.sql("SELECT current_user::text") == [("app",)]


@pytest.mark.parametrize("auth_type", ["password", "md5", "scram-sha-256"])
def test_wrong_password_and_unknown_user_get_one_answer(new_proxy, auth_type):
    proxy = new_proxy({"proxy": {"auth_type": auth_type, "workers": 1}})
    wrong, unknown = refused(proxy, "app", "wrong"), refused(proxy, "nobody", "wrong")
    assert (wrong["S"], wrong["C"], wrong["M"]) == ("FATAL", "28P01", 'password authentication failed for user "app"')
    assert (unknown["S"], unknown["C"], unknown["M"]) == ("FATAL", "28P01", 'password authentication failed for user "nobody"')
    assert set(wrong) == set(unknown)
    assert refused(proxy, "app", "")["C"] == "28P01"
    assert proxy.sql("SELECT 1") == [(1,)]


def test_unknown_user_is_asked_for_the_same_scram(proxy):
    """The dialogue up to the verdict is the same: a salt and iterations that stay the same from one try to the next."""
    def first(user):
        c = Wire(port=proxy.port)
        c.send(startup(user, "app"))
        c.read()
        c.send(pgwire.message("p", pgwire.z("SCRAM-SHA-256") + struct.pack("!I", 12) + b"n,,n=,r=abcd"))
        parts = dict(p.split("=", 1) for p in c.read().body[4:].decode().split(","))
        c.abort()
        return len(parts["r"]), len(parts["s"]), parts["i"], parts["s"]

    known, unknown = first("app"), first("nobody")
    assert known[:3] == unknown[:3]
    assert first("nobody")[3] == unknown[3]
    assert first("app")[3] == known[3]


@pytest.mark.parametrize("auth_type, kind", [("password", "scram"), ("password", "md5"), ("md5", "md5"), ("md5", "scram"),
                                             ("scram-sha-256", "scram")])
def test_verifier_in_the_user_list(new_proxy, auth_type, kind):
    """A verifier is enough for the client's side; the servers trust this user."""
    proxy = new_proxy({"proxy": {"auth_type": auth_type, "workers": 1}},
                      users={"postgres": verifier("p\"w' d", kind=kind), "app": "x"})
    with proxy.wire(user="postgres", password="p\"w' d") as c:
        assert c.rows("SELECT 1") == [["1"]]
    assert refused(proxy, "postgres", "p\"w' e")["C"] == "28P01"


def test_unknown_database_is_told_after_authentication(proxy):
    right = refused(proxy, "app", "app-secret", db="nothing")
    assert (right["S"], right["C"], right["M"]) == ("FATAL", "3D000", 'database "nothing" does not exist')
    assert refused(proxy, "app", "wrong", db="nothing")["C"] == "28P01"


def test_password_where_a_statement_comes_first(proxy):
    c = Wire(port=proxy.port)
    c.send(startup("app", "app"), pgwire.query("SELECT 1"))
    assert c.read().tag == "R"
    msg = c.read()
    assert (msg.tag, msg.error["C"]) == ("E", "08P01")
    assert c.is_closed()


# -- packets before the login -----------------------------------------------------------------------------------------


def test_ssl_and_gss_requests_are_answered_n(proxy):
    c = Wire(port=proxy.port)
    for code in (pgwire.SSL_REQUEST, pgwire.GSSENC_REQUEST):
        c.send(struct.pack("!II", 8, code))
        assert c.read_exactly(1) == b"N"
    c.send(startup("app", "app"))
    c.authenticate("app", "app-secret")
    c.until_ready(check=True)
    assert c.rows("SELECT 1") == [["1"]]
    c.close()
    with proxy.connect(sslmode="prefer", gssencmode="prefer") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
        proxy.connect(sslmode="require")


def test_bytes_behind_an_ssl_request_are_not_obeyed(proxy):
    """What was sent before the answer may be somebody else's: PostgreSQL's CVE-2021-23214."""
    c = Wire(port=proxy.port)
    c.send(struct.pack("!II", 8, pgwire.SSL_REQUEST) + startup("app", "app"))
    assert c.is_closed()


def test_byte_by_byte(proxy):
    c = Wire(port=proxy.port)
    c.send_in_pieces(struct.pack("!II", 8, pgwire.SSL_REQUEST))
    assert c.read_exactly(1) == b"N"
    c.send_in_pieces(startup("app", "app", application_name="slow"))
    real = c.sock.sendall
    c.sock = type("Slow", (), {"__getattr__": lambda s, n, sock=c.sock: getattr(sock, n),
                               "sendall": lambda s, data: [real(data[i:i + 1]) for i in range(len(data))]})()
    c.authenticate("app", "app-secret")
    c.until_ready(check=True)
    assert c.rows("SHOW application_name") == [["slow"]]
    c.send(pgwire.parse("s", "SELECT $1::int + 1", [23]), pgwire.bind("", "s", ["41"]), pgwire.execute(), pgwire.sync())
    assert pgwire.rows(c.until_ready()) == [["42"]]
    c.close()


def test_protocol_3_2_is_negotiated_down(proxy):
    c = Wire(port=proxy.port)
    c.send(startup("app", "app", protocol=0x00030002, **{"_pq_.future": "1"}))
    msg = c.read()
    assert msg.tag == "v"
    newest, n = struct.unpack_from("!II", msg.body)
    assert (newest, n, msg.body[8:]) == (0x00030000, 1, b"_pq_.future\0")
    c.authenticate("app", "app-secret")
    c.until_ready(check=True)
    assert c.rows("SELECT 1") == [["1"]]
    assert len(c.key) == 4
    c.close()


@pytest.mark.parametrize("protocol", [0x00020000, 0x00040000])
def test_other_major_protocol_is_refused(proxy, protocol):
    c = Wire(port=proxy.port)
    c.send(startup("app", "app", protocol=protocol))
    msg = c.read()
    assert (msg.tag, msg.error["S"], msg.error["C"]) == ("E", "FATAL", "0A000")
    assert msg.error["M"].startswith(f"unsupported frontend protocol {protocol >> 16}.0: server supports 3.0 to 3.")
    assert c.is_closed()


def test_startup_without_user(proxy):
    c = Wire(port=proxy.port)
    body = struct.pack("!I", pgwire.PROTOCOL_3_0) + b"database\0app\0\0"
    c.send(struct.pack("!I", len(body) + 4) + body)
    msg = c.read()
    assert (msg.error["S"], msg.error["C"], msg.error["M"]) == (
        "FATAL", "28000", "no PostgreSQL user name specified in startup packet")
    assert c.is_closed()


def test_database_defaults_to_the_user(proxy):
    c = Wire(port=proxy.port)
    c.send(startup("app"))
    c.authenticate("app", "app-secret")
    c.until_ready(check=True)
    assert c.rows("SELECT current_database()") == [["app"]]
    c.close()


@pytest.mark.parametrize("length", [0, 3, 7, 8, 10005, 0x7fffffff, 0xffffffff])
def test_bad_startup_length_is_closed(proxy, length):
    c = Wire(port=proxy.port)
    c.send(struct.pack("!II", length, 99) + b"\0" * 20)
    assert c.is_closed()
    assert proxy.sql("SELECT 1") == [(1,)]


# -- parameters -------------------------------------------------------------------------------------------------------


def test_parameter_status_as_from_postgres(proxy, fleet):
    with proxy.wire(application_name="me") as through, Wire.login(
            port=fleet.port("app-primary"), user="app", password="app-secret", database="app", application_name="me") as direct:
        assert through.params == direct.params


def test_startup_parameters_are_replayed(proxy):
    ask = ("SELECT current_setting('work_mem'), current_setting('search_path'), current_setting('enable_seqscan'),"
           " current_setting('datestyle'), current_setting('application_name'), current_setting('timezone')")
    options = dict(options='-c work_mem=7MB -c search_path="a\\ b",public --enable-seqscan=off', DateStyle="German, DMY",
                   client_encoding="LATIN1", application_name="it's me", TimeZone="Asia/Kathmandu")
    with proxy.wire() as other:
        plain = other.rows(ask)
        with proxy.wire(**options) as c:
            for _ in range(3):
                c.query("BEGIN")
                assert c.rows(ask) == [["7MB", '"a b",public', "off", "German, DMY", "it's me", "Asia/Kathmandu"]]
                c.query("COMMIT")
                other.query("BEGIN")
                assert other.rows(ask) == plain
                other.query("COMMIT")
            assert c.params["DateStyle"] == "German, DMY"
            assert c.params["client_encoding"] == "LATIN1"
            assert c.params["TimeZone"] == "Asia/Kathmandu"
            assert c.params["application_name"] == "it's me"


@pytest.mark.parametrize("options, state, words", [
    ({"options": "-c work_mem=lots"}, "22023", 'invalid value for parameter "work_mem": "lots"'),
    ({"no_such_parameter": "1"}, "42704", 'unrecognized configuration parameter "no_such_parameter"'),
    ({"options": "-c shared_buffers=1GB"}, "55P02", 'parameter "shared_buffers" cannot be changed without restarting the server'),
    ({"options": "-c fsync=off"}, "55P02", 'parameter "fsync" cannot be changed now'),
])
def test_bad_startup_parameter_is_refused_by_postgres(proxy, options, state, words):
    for _ in range(2):
        with pytest.raises(PgError) as caught:
            proxy.wire(**options)
        assert (caught.value.fields["S"], caught.value.sqlstate, caught.value.message) == ("FATAL", state, words)
    assert proxy.sql("SELECT 1") == [(1,)]


def test_reset_goes_back_to_the_startup_value(proxy):
    """In PostgreSQL a start-up parameter is what RESET, RESET ALL and DISCARD ALL go back to."""
    with proxy.wire(options="-c work_mem=7MB") as c:
        for reset in ("RESET work_mem", "RESET ALL", "DISCARD ALL", "SET work_mem TO DEFAULT"):
            c.query("SET work_mem = '9MB'")
            assert c.rows("SHOW work_mem") == [["9MB"]]
            c.query(reset)
            assert (reset, c.rows("SHOW work_mem")) == (reset, [["7MB"]])


def test_startup_role_never_leaks(new_proxy):
    """RESET ALL does not undo a role: the next client of the same server must not be somebody else."""
    proxy = new_proxy({"proxy": {"workers": 1}, "database:app": {"default_pool_size": 1}})
    with proxy.wire(user="postgres", options="-c role=app") as c:
        assert c.rows("SELECT current_user, session_user") == [["app", "postgres"]]
    with proxy.wire(user="postgres") as other:
        other.query("BEGIN")  # the primary, where that server is the only one
        assert other.rows("SELECT current_user") == [["postgres"]]
        other.query("COMMIT")
