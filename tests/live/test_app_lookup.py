# SPDX-License-Identifier: BSD-2-Clause
"""Who may come in: rules by origin, users looked up in the database, logins to servers in the client's own name.

Guards issue 3, "Who may come in", second bullet: auth_type = hba, auth_query with its cache, SCRAM pass-through (and md5's),
an unknown user like a wrong password by message and by time, and failures that are slowed.
"""
import concurrent.futures
import contextlib
import getpass
import os
import pathlib
import socket
import statistics
import struct
import tempfile
import time

import psycopg
import pytest

import pgwire
from pgwire import Closed, PgError, Wire, startup
from test_app_auth import refused, verifier
from test_app_tls import Certificates


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certs"))


def with_hba(new_proxy, rules, proxy_keys=None, **kwargs):
    """A pgspan with these lines as auth_hba_file."""
    proxy = new_proxy({"proxy": {"auth_type": "hba", "auth_hba_file": "hba.conf", "workers": 1, "auth_failure_delay": 0, **(proxy_keys or {})}},
                      start=False, **kwargs)
    (proxy.dir / "hba.conf").write_text(rules)
    proxy.start()
    return proxy


# -- rules ------------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_fits_decides(new_proxy):
    proxy = new_proxy({"proxy": {"auth_type": "hba", "auth_hba_file": "hba.conf", "workers": 1, "auth_failure_delay": 0}}, start=False)
    (proxy.dir / "apps").write_text('"app", nobody\n')
    (proxy.dir / "hba.conf").write_text("# who may\n"
                                        "host single app 127.0.0.1/32 reject\n"
                                        "host app,single postgres 127.0.0.0 255.255.255.0 trust\n"
                                        "host app @apps samehost scram-sha-256\n"
                                        "host shop app all md5\n"
                                        "host sameuser all all \\\n   password\n")
    proxy.start()
    fields = refused(proxy, "app", "app-secret", db="single")
    assert (fields["S"], fields["C"]) == ("FATAL", "28000")
    assert fields["M"] == 'pg_hba.conf rejects connection for host "127.0.0.1", user "app", database "single", no encryption'
    with proxy.wire(user="postgres", password="") as c:
        assert c.rows("SELECT 1") == [["1"]]
    assert proxy.sql("SELECT 1") == [(1,)]
    with proxy.connect("shop") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    fields = refused(proxy, "postgres", "postgres", db="shop")
    assert (fields["C"], fields["M"]) == \
        ("28000", 'no pg_hba.conf entry for host "127.0.0.1", user "postgres", database "shop", no encryption')
    assert refused(proxy, "nobody", "x")["C"] == "28P01"  # a rule is for it, so it is asked
    c = Wire(port=proxy.port)
    c.send(startup("app", "app", replication="true"))
    assert c.read().error["M"] == \
        'no pg_hba.conf entry for replication connection from host "127.0.0.1", user "app", no encryption'


def test_each_rule_asks_in_its_own_way(new_proxy):
    proxy = with_hba(new_proxy, "host app app all scram-sha-256\nhost shop app all md5\nhost single app all password\n")
    asked = {}
    for db in ("app", "shop", "single"):
        c = Wire(port=proxy.port)
        c.send(startup("app", db))
        asked[db] = struct.unpack("!I", c.read().body[:4])[0]
        c.abort()
        with proxy.wire(db=db):
            pass
    assert asked == {"app": 10, "shop": 5, "single": 3}


def test_tls_rules_and_certificates(new_proxy, certs):
    pathlib.Path(certs["ident"]).write_text('staff "Jane Doe" postgres\n')
    proxy = with_hba(new_proxy, "hostssl app postgres all cert map=staff\n"
                                "hostssl app app all scram-sha-256 clientcert=verify-ca\n"
                                "hostssl shop app all trust clientcert=verify-full\n"
                                "hostnossl single app all trust\n",
                     {"client_tls_sslmode": "prefer", "client_tls_key_file": certs["server.key"],
                      "client_tls_cert_file": certs["server.crt"], "client_tls_ca_file": certs["ca.crt"],
                      "auth_ident_file": certs["ident"]})
    jane = {"sslcert": certs["jane.crt"], "sslkey": certs["jane.key"], "sslmode": "require"}
    app = {"sslcert": certs["app.crt"], "sslkey": certs["app.key"], "sslmode": "require"}
    none = {"sslcert": "/nowhere", "sslmode": "require"}
    with proxy.connect(user="postgres", password="-", **jane) as conn:
        assert conn.execute("SELECT current_user::text").fetchone() == ("postgres",)
    with pytest.raises(psycopg.OperationalError, match='certificate authentication failed for user "postgres"'):
        proxy.connect(user="postgres", password="-", **app)
    with proxy.connect(**jane):
        pass
    with pytest.raises(psycopg.OperationalError, match="connection requires a valid client certificate"):
        proxy.connect(**none)
    with pytest.raises(psycopg.OperationalError, match='no pg_hba.conf entry for host "127.0.0.1", user "app", database "app", no encryption'):
        proxy.connect(sslmode="disable")
    with proxy.connect("shop", password="-", **app):
        pass
    with pytest.raises(psycopg.OperationalError, match='certificate authentication failed for user "app"'):
        proxy.connect("shop", password="-", **jane)
    with proxy.connect("single", sslmode="disable", password="app-secret"):
        pass
    with pytest.raises(psycopg.OperationalError, match='database "single", SSL encryption'):
        proxy.connect("single", **app)


def test_peer_on_a_unix_socket(new_proxy):
    with tempfile.TemporaryDirectory(prefix="pgspan-") as folder:
        pathlib.Path(folder, "ident").write_text(f"unix {getpass.getuser()} app\n")
        proxy = with_hba(new_proxy, "local app app peer map=unix\nlocal app postgres peer\nlocal single app trust\n",
                         {"unix_socket_dir": folder, "auth_ident_file": folder + "/ident"})

        def connect(user, db="app"):
            return psycopg.connect(f"host={folder} port={proxy.port} dbname={db} user={user}", autocommit=True)
        with connect("app") as conn:
            assert conn.execute("SELECT current_user::text").fetchone() == ("app",)
        if getpass.getuser() != "postgres":
            with pytest.raises(psycopg.OperationalError, match='Peer authentication failed for user "postgres"'):
                connect("postgres")
        with pytest.raises(psycopg.OperationalError, match=r'no pg_hba.conf entry for host "\[local\]", user "postgres", database "single", no encryption'):
            connect("postgres", "single")


def test_mistakes_are_told_with_their_line_and_change_nothing(new_proxy):
    proxy = with_hba(new_proxy, "host all all all scram-sha-256\n")
    (proxy.dir / "hba.conf").write_text("host all all all trust\nhost all +staff all trust\nhost all all all gss\nhost all all all cert\n")
    before = len(proxy.log)
    proxy.reload()
    proxy.wait_log(r"hba.conf:2: \+staff: pgspan knows no groups' members", since=before)
    proxy.wait_log('hba.conf:3: "gss" is not supported by pgspan', since=before)
    proxy.wait_log("hba.conf:4: cert goes with hostssl only", since=before)
    proxy.wait_log("the one before stays in force", since=before)
    assert refused(proxy, "app", "wrong")["C"] == "28P01"
    (proxy.dir / "hba.conf").write_text("host all postgres all reject\nhost all all all trust\n")
    before = len(proxy.log)
    proxy.reload()
    proxy.wait_log("the configuration was read again", since=before)
    time.sleep(0.2)
    with proxy.wire(password="wrong") as c:  # trust
        assert c.rows("SELECT 1") == [["1"]]
    assert refused(proxy, "postgres", "postgres")["C"] == "28000"


# -- auth_query -------------------------------------------------------------------------------------------------------

LOOKUP = {"auth_type": "scram-sha-256", "auth_user": "postgres", "workers": 1, "auth_failure_delay": 0}


@pytest.fixture
def role(fleet):
    """A role of the app servers, with a password of one's choice; gone afterwards."""
    made = set()

    def make(name, password, how="scram-sha-256", more=""):
        with fleet.connect("app-primary") as conn:
            conn.execute(f"SET password_encryption = '{how}'")
            conn.execute(f'DROP ROLE IF EXISTS "{name}"')
            conn.execute(f"CREATE ROLE \"{name}\" {'' if 'NOLOGIN' in more else 'LOGIN'} PASSWORD " + ("NULL" if password is None else f"'{password}'") + " " + more)
        made.add(name)
        fleet.catch_up()
    yield make
    for name in made:
        fleet.sql("app-primary", f'DROP ROLE "{name}"')


@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "password"])
def test_a_user_is_looked_up_and_logs_in_to_servers_in_its_own_name(new_proxy, role, auth_type):
    role("looked-up", "s3cret")
    proxy = new_proxy({"proxy": {**LOOKUP, "auth_type": auth_type}}, users={"postgres": "postgres"})
    for _ in range(3):
        with proxy.connect(user="looked-up", password="s3cret") as conn:
            assert conn.execute("SELECT current_user::text, session_user::text").fetchone() == ("looked-up", "looked-up")
            with conn.transaction():
                conn.execute("CREATE TEMP TABLE t (n int)")
                conn.execute("INSERT INTO t VALUES (1)")
    wrong, unknown = refused(proxy, "looked-up", "wrong"), refused(proxy, "not-there", "wrong")
    assert wrong["M"] == 'password authentication failed for user "looked-up"'
    assert unknown["M"] == 'password authentication failed for user "not-there"'
    assert wrong["C"] == unknown["C"] == "28P01" and set(wrong) == set(unknown)


def test_md5_roles_pass_through_too(new_proxy, role, fleet):
    role("hashed", "s3cret", "md5")
    hba = pathlib.Path(fleet.impl.data("app-primary"), "pg_hba.conf")
    before = hba.read_text()
    hba.write_text("host all hashed all md5\n" + before)
    fleet.sql("app-primary", "SELECT pg_reload_conf()")
    try:
        check_md5(new_proxy)
    finally:
        hba.write_text(before)
        fleet.sql("app-primary", "SELECT pg_reload_conf()")


def check_md5(new_proxy):
    proxy = new_proxy({"proxy": {**LOOKUP, "auth_type": "md5"}, "database:app": {"replica": None}}, users={"postgres": "postgres"})
    with proxy.connect(user="hashed", password="s3cret") as conn:
        assert conn.execute("SELECT current_user::text").fetchone() == ("hashed",)
    assert refused(proxy, "hashed", "wrong")["C"] == "28P01"


def test_without_a_valid_password_nobody_logs_in(new_proxy, role, fleet):
    """A NULL password, one that has expired, and a role that may not log in."""
    role("nopass", None)
    role("expired", "s3cret", more="VALID UNTIL '2020-01-01'")
    role("future", "s3cret", more="VALID UNTIL '2099-01-01'")
    role("forever", "s3cret", more="VALID UNTIL 'infinity'")
    role("nologin", "s3cret", more="NOLOGIN")
    proxy = new_proxy({"proxy": LOOKUP}, users={"postgres": "postgres"})
    for user in ("future", "forever"):
        with proxy.connect(user=user, password="s3cret") as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
    for user, password in (("nopass", ""), ("nopass", "x"), ("expired", "s3cret"), ("nologin", "s3cret")):
        assert refused(proxy, user, password)["C"] == "28P01", user


def test_a_changed_password_counts_after_one_failure(new_proxy, role):
    role("changing", "one")
    proxy = new_proxy({"proxy": {**LOOKUP, "auth_query_cache": "1h"}}, users={"postgres": "postgres"})
    with proxy.connect(user="changing", password="one"):
        pass
    role("changing", "two")
    with proxy.connect(user="changing", password="one"):  # the answer is kept, and so are the servers
        pass
    time.sleep(1.2)
    assert refused(proxy, "changing", "two")["C"] == "28P01"
    with proxy.connect(user="changing", password="two") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert refused(proxy, "changing", "one")["C"] == "28P01"


def test_a_changed_password_in_clear_is_asked_for_at_once(new_proxy, role):
    role("changing", "one")
    proxy = new_proxy({"proxy": {**LOOKUP, "auth_type": "password", "auth_query_cache": "1h"}}, users={"postgres": "postgres"})
    with proxy.connect(user="changing", password="one"):
        pass
    role("changing", "two")
    time.sleep(1.2)
    with proxy.connect(user="changing", password="two") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_answers_are_kept_and_shared(new_proxy, role, fleet):
    """Twenty logins at once and twenty more are one question; none of it is asked in a client's session."""
    fleet.sql("app-primary", "CREATE TABLE IF NOT EXISTS asked (who text); TRUNCATE asked")
    fleet.sql("app-primary", "CREATE OR REPLACE FUNCTION ask(who text, OUT name text, OUT secret text) SECURITY DEFINER LANGUAGE plpgsql AS "
                             "$$ BEGIN INSERT INTO public.asked VALUES (who); SELECT rolname, rolpassword INTO name, secret "
                             "FROM pg_catalog.pg_authid WHERE rolname = who; END $$")
    role("kept", "s3cret")
    proxy = new_proxy({"proxy": {**LOOKUP, "auth_dbname": "app", "auth_query": "SELECT name, secret FROM public.ask($1)"}},
                      users={"postgres": "postgres"})

    def login(_):
        with proxy.connect(user="kept", password="s3cret") as conn:
            return conn.execute("SELECT 1").fetchone()
    for _ in range(2):
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            assert set(pool.map(login, range(20))) == {(1,)}
    assert fleet.sql("app-primary", "SELECT who, count(*) FROM asked GROUP BY who") == [("kept", 1)]
    for _ in range(3):
        refused(proxy, "not there", "x")
    assert fleet.value("app-primary", "SELECT count(*) FROM asked WHERE who = 'not there'") == 1
    fleet.sql("app-primary", "DROP TABLE asked; DROP FUNCTION ask")


@pytest.mark.parametrize("query, why", [("SELECT $1::text", "fewer than two columns"), ("SELECT $1::text, 'y' FROM generate_series(1, 2)", "more than one row"),
                                        ("SELECT 'other', 'y' WHERE $1 <> ''", "another user's"), ("SELEC", "syntax error"),
                                        ("SELECT $1::text, 'SCRAM-SHA-256$broken'", "no known form")])
def test_a_bad_query_is_told_in_the_log_and_lets_nobody_in(new_proxy, query, why):
    proxy = new_proxy({"proxy": {**LOOKUP, "auth_query": query}}, users={"postgres": "postgres"})
    for _ in range(2):
        c = Wire(port=proxy.port)
        c.send(startup("app", "app"))
        fields = c.read().error
        assert (fields["C"], fields["M"]) == ("08006", "the user could not be looked up")
    proxy.wait_log(f'auth_query: "app" could not be looked up: .*({why})')
    with proxy.wire(user="postgres", password="postgres"):
        pass


def test_a_server_that_is_down_delays_nobody_else(new_proxy, fleet):
    proxy = new_proxy({"proxy": LOOKUP, "database:dead": {"primary": "host=127.0.0.1 port=9 dbname=app"}}, users={"postgres": "postgres", "app": "app-secret"})
    c = Wire(port=proxy.port)
    c.send(startup("somebody", "dead"))
    assert c.read().error["C"] == "08006"
    assert proxy.sql("SELECT 1") == [(1,)]


# -- pass-through -----------------------------------------------------------------------------------------------------


def test_only_the_verifier_is_known(new_proxy, fleet):
    """The client's proof is all that pgspan has; the servers ask for SCRAM, and get it."""
    secret = fleet.value("app-primary", "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    proxy = new_proxy({"proxy": {"workers": 2}}, users={"app": secret, "postgres": "postgres"})
    for _ in range(6):
        with proxy.connect() as conn:
            assert conn.execute("SELECT current_user::text").fetchone() == ("app",)
            assert conn.info.parameter_status("server_version") == fleet.value("app-primary", "SHOW server_version")
    assert refused(proxy, "app", "wrong")["C"] == "28P01"
    # Another verifier of the same password (another server's) is no key.
    proxy = new_proxy({"proxy": {"workers": 1}}, users={"app": verifier("app-secret"), "postgres": "postgres"})
    with pytest.raises(PgError) as caught:
        proxy.wire()
    assert "the server's SCRAM verifier for the user is another than pgspan's" in caught.value.fields["M"]


def test_a_native_connection_does_all_that_others_do(new_proxy, fleet):
    """Cancel, COPY, errors, a lost server: what libpq's connections are used for."""
    secret = fleet.value("app-primary", "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    proxy = new_proxy({"proxy": {"workers": 2}}, users={"app": secret, "postgres": "postgres"})
    with proxy.connect() as conn:
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            sleeping = pool.submit(conn.execute, "SELECT pg_sleep(20)")
            time.sleep(0.5)
            conn.cancel()
            with pytest.raises(psycopg.errors.QueryCanceled):
                sleeping.result()
        assert time.monotonic() - start < 10
        with conn.transaction():
            conn.execute("CREATE TEMP TABLE t (n int, x text) ON COMMIT DROP")
            with conn.cursor() as cur, cur.copy("COPY t FROM STDIN") as copy:
                for i in range(1000):
                    copy.write_row((i, "x" * 100))
            assert conn.execute("SELECT count(*) FROM t").fetchone() == (1000,)
        pid = conn.execute("SELECT pg_backend_pid()").fetchone()[0]
        fleet.sql("app-primary", f"SELECT pg_terminate_backend({pid})")
        time.sleep(0.3)
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_native_connection_over_tls(new_proxy, fleet, certs):
    """sslmode of the connection string counts where pgspan logs in by itself, too."""
    name = "single"
    secret = fleet.value(name, "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    data = pathlib.Path(fleet.impl.data(name))
    for ours, theirs in (("server.crt", "server.crt"), ("server.key", "server.key")):
        (data / theirs).write_bytes(pathlib.Path(certs[ours]).read_bytes())
        (data / theirs).chmod(0o600)
        os.chown(data / theirs, data.stat().st_uid, data.stat().st_gid)
    fleet.sql(name, "ALTER SYSTEM SET ssl = on")
    fleet.sql(name, "SELECT pg_reload_conf()")
    try:
        for mode, works in (("require", True), ("verify-full", True), ("disable", True), ("prefer", True), ("bad-ca", False)):
            extra = {"require": "sslmode=require", "disable": "sslmode=disable", "prefer": "sslmode=prefer",
                     "verify-full": f"sslmode=verify-full sslrootcert={certs['ca.crt']} host=localhost hostaddr=127.0.0.1",
                     "bad-ca": f"sslmode=verify-ca sslrootcert={certs['other-ca.crt']}"}[mode]
            host = "" if "host=" in extra else "host=127.0.0.1 "
            proxy = new_proxy({"proxy": {"workers": 1}, "database:single": {"primary": f"{host}port={fleet.port(name)} dbname=single {extra}"}},
                              users={"app": secret, "postgres": "postgres"})
            if works:
                with proxy.connect("single") as conn:
                    row = conn.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
                    assert row == (mode != "disable",), mode
                    assert conn.execute("SELECT repeat('x', 1000000)").fetchone() == ("x" * 1000000,)
            else:
                with pytest.raises(psycopg.OperationalError, match="SSL error: "):
                    proxy.connect("single")
    finally:
        fleet.sql(name, "ALTER SYSTEM RESET ssl")
        fleet.sql(name, "SELECT pg_reload_conf()")


# -- no difference, and no hurry --------------------------------------------------------------------------------------


def verdict_time(proxy, user):
    """Seconds from the last message of a wrong login to its verdict."""
    c = Wire(port=proxy.port)
    c.send(startup(user, "app"))
    real, at = c.sock.sendall, [0.0]

    class Timed:
        def __getattr__(self, name):
            return getattr(sock, name)

        def sendall(self, data):
            at[0] = time.perf_counter()
            return real(data)
    sock, c.sock = c.sock, Timed()
    with contextlib.suppress(PgError):
        c.authenticate(user, "wrong")
        c.until_ready(check=True)
    took = time.perf_counter() - at[0]
    c.sock = sock
    c.abort()
    return took


@pytest.mark.slow
@pytest.mark.parametrize("auth_type, users", [("scram-sha-256", "plain"), ("scram-sha-256", "scram"), ("md5", "plain"), ("password", "scram"),
                                              ("password", "plain")])
def test_the_time_of_a_refusal_tells_nothing(new_proxy, auth_type, users):
    """200 tries each, taken in turns: the medians of a known and an unknown user are within each other's spread."""
    proxy = new_proxy({"proxy": {"auth_type": auth_type, "workers": 1, "auth_failure_delay": 0}},
                      users={"app": "app-secret" if users == "plain" else verifier("app-secret"), "postgres": "postgres"})
    times = {"app": [], "nobody": []}
    for _ in range(200):
        for user in times:
            times[user].append(verdict_time(proxy, user))
    known, unknown = (sorted(times[u]) for u in ("app", "nobody"))
    a, b = statistics.median(known), statistics.median(unknown)
    spread = known[150] - known[50]
    assert abs(a - b) < max(spread, 0.3 * max(a, b)), (a, b, spread)


def test_failures_in_a_row_are_slowed(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 2, "auth_failure_delay": "700ms"}})
    took = []
    for _ in range(7):
        start = time.monotonic()
        refused(proxy, "app", "wrong")
        took.append(time.monotonic() - start)
    assert took[6] >= 0.7 and took[5] >= 0.4 and took[4] >= 0.2
    # Right logins are not, and what waits is one connection, which the client may give up.
    start = time.monotonic()
    assert proxy.sql("SELECT 1") == [(1,)]
    assert time.monotonic() - start < took[6]
    c = Wire(port=proxy.port)
    c.send(startup("app", "app"))
    with contextlib.suppress(PgError, Closed, TimeoutError, socket.timeout):
        c.sock.settimeout(0.2)
        c.authenticate("app", "wrong")
        c.read()
    c.abort()
    assert proxy.sql("SELECT 1") == [(1,)]


def test_clients_that_do_not_log_in_count_and_are_sent_away(new_proxy):
    proxy = new_proxy({"proxy": {"workers": 1, "max_client_conn": 10, "client_login_timeout": 2}})
    silent = [Wire(port=proxy.port) for _ in range(5)]
    for c in silent[:2]:
        c.send(startup("app", "app"))
    many = [Wire(port=proxy.port) for _ in range(5)]
    with pytest.raises(PgError) as caught:
        proxy.wire()
    assert caught.value.fields["C"] == "53300"
    # Beyond twice the limit a connection is closed before it has said anything.
    more = [Wire(port=proxy.port) for _ in range(15)]
    assert more[-1].is_closed(2)
    time.sleep(2.5)
    assert all(c.is_closed() for c in silent + many)
    for c in silent + many + more:
        c.abort()
    assert proxy.sql("SELECT 1") == [(1,)]
