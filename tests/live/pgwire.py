# SPDX-License-Identifier: BSD-2-Clause
"""pgwire - PostgreSQL's protocol 3 by hand, for tests that must choose and see every single message.

    c = Wire.login(host, port, user="app", password="app-secret", database="app")
    c.send(parse("s1", "select $1::int8", [20]), bind("", "s1", ["42"]), describe("P", ""), execute(), sync())
    msgs = c.until_ready()
    assert tags(msgs) == "12TDCZ"

Builders return bytes, so that a batch leaves in one segment or in pieces of the test's choosing. Nothing is retried,
reordered or hidden; a socket that ends raises Closed, one that stays silent raises TimeoutError.
"""
import base64
import hashlib
import hmac
import os
import socket
import struct
from typing import NamedTuple

PROTOCOL_3_0 = 196608
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102


class Closed(Exception):
    """The other side ended the connection."""


class PgError(Exception):
    """An ErrorResponse; `fields` maps its one-letter codes to text."""

    def __init__(self, fields):
        super().__init__(f"{fields.get('V')} {fields.get('C')}: {fields.get('M')}")
        self.fields = fields
        self.sqlstate = fields.get("C")
        self.message = fields.get("M", "")
        self.hint = fields.get("H")


class Msg(NamedTuple):
    """One message from the server."""

    tag: str
    body: bytes

    @property
    def error(self):
        """The fields of an ErrorResponse or NoticeResponse."""
        assert self.tag in "EN", self.tag
        return {f[:1].decode(): f[1:].decode("utf-8", "replace") for f in self.body.split(b"\0") if f}

    @property
    def row(self):
        """The columns of a DataRow: bytes, or None for NULL."""
        assert self.tag == "D", self.tag
        (n,), at, out = struct.unpack_from("!H", self.body), 2, []
        for _ in range(n):
            (size,) = struct.unpack_from("!i", self.body, at)
            at += 4
            out.append(None if size < 0 else self.body[at:at + size])
            at += max(size, 0)
        assert at == len(self.body), "a DataRow has bytes left over"
        return out

    @property
    def columns(self):
        """(name, type oid, format) of each column of a RowDescription."""
        assert self.tag == "T", self.tag
        (n,), at, out = struct.unpack_from("!H", self.body), 2, []
        for _ in range(n):
            end = self.body.index(b"\0", at)
            _table, _att, oid, _size, _mod, fmt = struct.unpack_from("!IhIhih", self.body, end + 1)
            out.append((self.body[at:end].decode(), oid, fmt))
            at = end + 19
        assert at == len(self.body), "a RowDescription has bytes left over"
        return out

    @property
    def text(self):
        """CommandComplete's tag, or the one letter of ReadyForQuery."""
        return self.body.rstrip(b"\0").decode()


def tags(msgs):
    """The message types as one string, notices and parameter changes left out: easy to compare."""
    return "".join(m.tag for m in msgs if m.tag not in "NS")


def rows(msgs):
    """All rows of *msgs*, columns as text."""
    return [[None if c is None else c.decode() for c in m.row] for m in msgs if m.tag == "D"]


def error(msgs):
    """The SQLSTATE of the first ErrorResponse, or None."""
    return next((m.error["C"] for m in msgs if m.tag == "E"), None)


# -- messages to send -------------------------------------------------------------------------------------------------


def z(text):
    """A zero-terminated string."""
    return (text.encode() if isinstance(text, str) else text) + b"\0"


def message(tag, body=b""):
    """A message with its type and length word."""
    return tag.encode() + struct.pack("!I", len(body) + 4) + body


def startup(user, database=None, protocol=PROTOCOL_3_0, **options):
    """A StartupMessage, which has no type byte."""
    pairs = {"user": user, **({"database": database} if database is not None else {}), **options}
    body = struct.pack("!I", protocol) + b"".join(z(k) + z(str(v)) for k, v in pairs.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def cancel_request(pid, key):
    """A CancelRequest; *key* is the bytes of BackendKeyData after the pid."""
    return struct.pack("!III", 12 + len(key), CANCEL_REQUEST, pid) + key


def query(sql):
    return message("Q", z(sql))


def parse(name, sql, types=()):
    return message("P", z(name) + z(sql) + struct.pack("!H", len(types)) + b"".join(struct.pack("!I", t) for t in types))


def bind(portal, statement, params=(), formats=(), result_formats=()):
    """A Bind. Parameters: None, text, or bytes (sent as they are; say in *formats* what they are)."""
    out = z(portal) + z(statement) + struct.pack(f"!H{len(formats)}h", len(formats), *formats)
    out += struct.pack("!H", len(params))
    for p in params:
        raw = p.encode() if isinstance(p, str) else p
        out += struct.pack("!i", -1) if raw is None else struct.pack("!i", len(raw)) + raw
    return message("B", out + struct.pack(f"!H{len(result_formats)}h", len(result_formats), *result_formats))


def describe(kind, name=""):
    """*kind*: S for a statement, P for a portal."""
    return message("D", kind.encode() + z(name))


def execute(portal="", max_rows=0):
    return message("E", z(portal) + struct.pack("!i", max_rows))


def close(kind, name=""):
    return message("C", kind.encode() + z(name))


def sync():
    return message("S")


def flush():
    return message("H")


def terminate():
    return message("X")


def copy_data(data):
    return message("d", data)


def copy_done():
    return message("c")


def copy_fail(why):
    return message("f", z(why))


def run(sql, params=(), types=(), formats=(), result_formats=()):
    """Parse, Bind, Describe, Execute of the unnamed statement, without a Sync."""
    return (parse("", sql, types) + bind("", "", params, formats, result_formats) + describe("P") + execute())


# -- the connection -----------------------------------------------------------------------------------------------------


class Wire:
    """A socket that speaks the protocol. Use Wire.login(), or Wire() to do the start-up by hand."""

    def __init__(self, host="127.0.0.1", port=6432, timeout=20.0):
        if host.startswith("/"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(f"{host}/.s.PGSQL.{port}")
        else:
            self.sock = socket.create_connection((host, port), timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = (host, port)
        self.pending = bytearray()
        self.params = {}  # ParameterStatus, the latest of each
        self.pid, self.key = None, None
        self.status = None  # of the last ReadyForQuery: I, T, E

    @classmethod
    def login(cls, host="127.0.0.1", port=6432, user="app", password=None, database=None, timeout=20.0, **options):
        """A connection that is ready for its first statement."""
        conn = cls(host, port, timeout)
        try:
            conn.send(startup(user, database, **options))
            conn.authenticate(user, password)
            conn.until_ready(check=True)
        except BaseException:
            conn.abort()
            raise
        return conn

    def send(self, *parts):
        self.sock.sendall(b"".join(parts))

    def send_in_pieces(self, data, size=1):
        """The same bytes, *size* at a time, each in a segment of its own."""
        for at in range(0, len(data), size):
            self.sock.sendall(data[at:at + size])

    def read_exactly(self, n):
        while len(self.pending) < n:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed(f"closed with {len(self.pending)} bytes of a message read")
            self.pending += data
        out = bytes(self.pending[:n])
        del self.pending[:n]
        return out

    def read(self):
        """The next message."""
        head = self.read_exactly(5)
        (size,) = struct.unpack("!I", head[1:])
        msg = Msg(chr(head[0]), self.read_exactly(size - 4))
        if msg.tag == "S":
            name, value = msg.body.split(b"\0")[:2]
            self.params[name.decode()] = value.decode()
        elif msg.tag == "K":
            self.pid, self.key = struct.unpack_from("!I", msg.body)[0], msg.body[4:]
        elif msg.tag == "Z":
            self.status = msg.text
        return msg

    def until(self, wanted):
        """Messages up to and with the first whose type is in *wanted*."""
        out = []
        while not out or out[-1].tag not in wanted:
            out.append(self.read())
        return out

    def until_ready(self, check=False):
        """Messages up to ReadyForQuery. With *check*, an ErrorResponse is raised, at once when the peer then closes."""
        out, failed = [], None
        while not out or out[-1].tag != "Z":
            try:
                out.append(self.read())
            except Closed:
                if failed and check:
                    raise PgError(failed) from None
                raise
            if out[-1].tag == "E":
                failed = failed or out[-1].error
        if failed and check:
            raise PgError(failed)
        return out

    def query(self, sql):
        """A simple query: all its messages. PgError when it failed; the connection is ready again either way."""
        self.send(query(sql))
        return self.until_ready(check=True)

    def rows(self, sql):
        return rows(self.query(sql))

    def is_silent(self, seconds=0.2):
        """Whether nothing comes for so long."""
        if self.pending:
            return False
        old = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            self.pending += self.sock.recv(65536)
            return False
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(old)

    def is_closed(self, seconds=5.0):
        """Whether the peer closes within so long; what it still sends is thrown away."""
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(65536):
                pass
            return True
        except TimeoutError:
            return False
        except OSError:
            return True

    def cancel(self):
        """Sends a CancelRequest for this connection on one of its own, and waits until that one is closed."""
        other = Wire(*self.address)
        other.send(cancel_request(self.pid, self.key))
        other.is_closed()
        other.abort()

    def close(self):
        """Says goodbye."""
        try:
            self.send(terminate())
        except OSError:
            pass
        self.abort()

    def abort(self):
        """Ends the socket without a word."""
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- authentication ------------------------------------------------------------------------------------------------

    def authenticate(self, user, password):
        """Answers the server's requests until AuthenticationOk. PgError when it refuses."""
        while True:
            msg = self.read()
            if msg.tag == "E":
                raise PgError(msg.error)
            if msg.tag == "v":  # NegotiateProtocolVersion: we speak 3.0
                continue
            assert msg.tag == "R", msg
            (kind,) = struct.unpack_from("!I", msg.body)
            if kind == 0:
                return
            if kind == 3:
                self.send(message("p", z(password)))
            elif kind == 5:
                self.send(message("p", z(md5_answer(user, password, msg.body[4:8]))))
            elif kind == 10:
                self._scram(password, msg.body[4:])
            else:
                raise AssertionError(f"authentication request {kind} is not known")

    def _scram(self, password, mechanisms):
        assert b"SCRAM-SHA-256" in mechanisms.split(b"\0"), mechanisms
        nonce = base64.b64encode(os.urandom(18)).decode()
        bare = f"n=,r={nonce}"
        first = ("n,," + bare).encode()
        self.send(message("p", z("SCRAM-SHA-256") + struct.pack("!I", len(first)) + first))
        server_first = self._auth_data(11)
        parts = dict(p.split("=", 1) for p in server_first.split(","))
        assert parts["r"].startswith(nonce) and len(parts["r"]) > len(nonce), "the server's nonce is not ours"
        without_proof = f"c=biws,r={parts['r']}"
        signed = f"{bare},{server_first},{without_proof}".encode()
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
        self.send(message("p", f"{without_proof},p={proof}".encode()))
        verdict = dict(p.split("=", 1) for p in self._auth_data(12).split(","))
        expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        assert base64.b64decode(verdict["v"]) == expected, "the server does not know the password"

    def _auth_data(self, kind):
        msg = self.read()
        if msg.tag == "E":
            raise PgError(msg.error)
        assert msg.tag == "R" and struct.unpack_from("!I", msg.body)[0] == kind, msg
        return msg.body[4:].decode()


def md5_answer(user, password, salt):
    """What AuthenticationMD5Password asks for."""
    inner = hashlib.md5((password + user).encode()).hexdigest()
    return "md5" + hashlib.md5(inner.encode() + salt).hexdigest()
