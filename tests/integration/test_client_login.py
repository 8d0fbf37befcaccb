"""Clients before their login: other protocols, hostile tags, endless lines, trickles, bad SASL (THREATS A9-A41)."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator

import pytest

from tests.integration.bed import HOST, TIMEOUT, Bed, bed_of
from tests.integration.scripted import Script
from tests.integration.wire import WireClosed, connect


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Give one gate with the usual limits in front of one recorder."""
    with bed_of(limits={"half_close": "1s"}) as bed:
        yield bed


@pytest.fixture(scope="module")
def hasty() -> Iterator[Bed]:
    """Give one gate with short times."""
    with bed_of(limits={"login_time": "1s", "tls_handshake": "700ms", "client_idle": "1500ms"}) as bed:
        yield bed


@pytest.fixture(autouse=True)
def _no_exceptions(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold that no exception ever leaves a session: the gate's log has no traceback."""
    yield
    for name in ("bed", "hasty"):
        if name in request.fixturenames:
            used: Bed = request.getfixturevalue(name)
            used.recorder.script = Script()
            assert "Traceback" not in used.gate.log()
            assert not used.recorder.violations


def verbs(bed: Bed, user: bytes) -> list[bytes]:
    """Give what upstream was asked after the login, without what the gate asks of itself."""
    return [c.verb for c in bed.after_login(user) if c.verb not in (b"LOGOUT", b"CAPABILITY", b"ID")]


# -- before login ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /canary HTTP/1.1\r\nHost: canary\r\n\r\n",
        b"POST /canary HTTP/1.1\r\nContent-Length: 20\r\n\r\na LOGIN canary x\r\n",
        b"HEAD / HTTP/1.0\r\n\r\ncanary",
        b"OPTIONS * HTTP/1.1\r\ncanary: x\r\n\r\n",
        b"PUT /canary HTTP/1.1\r\n\r\n",
        b"CONNECT canary:443 HTTP/1.1\r\n\r\n",
        b"DELETE /canary HTTP/1.1\r\n\r\n",
        b"CONNECT canary HTTP/1.1\r\n\r\n",
        b"GET canary HTTP/1.1\r\n\r\n",
        b"EHLO canary\r\n",
    ],
    ids=lambda line: line.split(b" HTTP")[0].decode(),
)
def test_a9_http(bed: Bed, request_line: bytes) -> None:
    """A verb of HTTP (or SMTP) as the first token: closed at once, nothing echoed."""
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        wire.send(request_line)
        answer = wire.eof()
    assert b"canary" not in answer
    assert b"HTTP" not in answer
    assert answer.count(b"\r\n") <= 2
    assert len(bed.recorder.conversations) == before


@pytest.mark.parametrize(
    "tag",
    [
        b"+", b"*", b"%s%n", b"%", b"a%n", b"a(b", b")", b"{", b"a{1}", b'"a"', b'a"', b"a\\b", b"a+b", b"\x01",
        b"a\x7f", b"\xc3\xa9", b"a\xff", b"canary" * 11, b"canary" * 1000, b"", b"\t", b"a\x1b[31m",
    ],
    ids=repr,
)  # fmt: skip
def test_a21_hostile_tags(bed: Bed, tag: bytes) -> None:
    """A tag outside RFC 3501's is refused and never echoed, before and after login."""
    with bed.connect() as wire:
        wire.send(tag + b" NOOP\r\n")
        answer = wire.response()
        assert answer.startswith(b"* BAD")
        assert len(tag) < 2 or tag not in answer
    wire, user = bed.login()
    with wire:
        wire.send(tag + b" CHECK\r\n")
        answer = wire.response()
        assert answer.startswith(b"* BAD")
        assert len(tag) < 2 or tag not in answer
    assert verbs(bed, user) == []


def test_a21_the_longest_tag(bed: Bed) -> None:
    """Every legal character, and 64 octets, are legal."""
    legal = bytes(c for c in range(0x21, 0x7F) if c not in b'(){%*"\\+')
    wire, _ = bed.login()
    with wire:
        for tag in (legal[:64], legal[64:], b"*"[:0] + b"a" * 64, b"]", b"g1"):
            if tag:
                assert wire.command(b"NOOP", tag=tag)[-1].startswith(tag + b" OK")


def test_bad_commands_before_login(bed: Bed) -> None:
    """Three bad commands before login end the connection (PROTOCOL.md §6)."""
    with bed.connect() as wire:
        for number in range(3):
            wire.send(b"a%d XBAD\r\n" % number)
        wire.send(b"b NOOP\r\n" * 50)
        answer = wire.eof()
    assert answer.count(b" BAD ") in (2, 3)
    assert b"* BYE" in answer
    assert b"b OK" not in answer


def test_bad_commands_after_login(bed: Bed) -> None:
    """Twenty bad commands after login end the connection, nineteen do not."""
    wire, user = bed.login()
    with wire:
        for number in range(19):
            assert wire.command(b"XBAD", tag=b"a%d" % number)[-1].startswith(b"a%d BAD" % number)
        wire.ok(b"NOOP")
    wire, user = bed.login()
    with wire:
        wire.send(b"".join(b"a%d XBAD\r\n" % number for number in range(20)) + b"z NOOP\r\n")
        answer = wire.eof()
    assert b"* BYE" in answer
    assert b"z OK" not in answer
    assert verbs(bed, user) == []


def test_a17_nesting_bomb(bed: Bed) -> None:
    """60,000 parentheses are BAD, and cost next to nothing."""
    wire, user = bed.login()
    with wire:
        before = bed.gate.cpu_seconds()
        for number in range(10):
            wire.send(b"a%d SEARCH " % number + b"(" * 60_000 + b"\r\n")
            assert wire.response().startswith(b"a%d BAD" % number)
        assert bed.gate.cpu_seconds() - before < 0.3
        nested = b"(" * 32 + b"ALL" + b")" * 32
        wire.ok(b"SEARCH " + nested)
        assert wire.command(b"SEARCH (" + nested + b")", tag=b"n")[-1].startswith(b"n BAD")
    assert verbs(bed, user) == [b"SEARCH"]


@pytest.mark.parametrize("text", [b"LOGIN (a b) c", b"ID ((a b))", b"LOGIN " + b"(" * 8000, b"ID " + b"(" * 8000])
def test_a17_nesting_before_login(bed: Bed, text: bytes) -> None:
    """Before login one list is the most (for ID), and a login holds none."""
    with bed.connect() as wire:
        assert wire.command(text, tag=b"a")[-1].startswith(b"a BAD")


@pytest.mark.parametrize(
    "octets", [b"a LOGIN " + b"x" * 8192 + b" p\r\n", b"x" * 9000, b"a " + b"(" * 9000], ids=["login", "tag", "list"]
)
def test_line_before_login(bed: Bed, octets: bytes) -> None:
    """A line over 8 KiB before login is refused and ends the connection or the command, with or without its end."""
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        wire.send(octets)
        wire.half_close()
        answer = wire.eof()
    assert b"BAD" in answer
    assert b"OK" not in answer
    assert len(answer) < 1000
    assert len(bed.recorder.conversations) == before


def test_line_after_login(bed: Bed) -> None:
    """A line of 64 KiB is the most; an endless one costs no memory."""
    wire, user = bed.login()
    with wire:
        wire.ok(b"SEARCH " + b" ".join([b"SEEN"] * 10_000))
    wire, user = bed.login()
    before = bed.memory()
    with wire:
        wire.send(b"a SEARCH SUBJECT ")
        with contextlib.suppress(OSError):
            for _ in range(2000):
                wire.send(b"x" * 65536)
        with contextlib.suppress(OSError):
            assert b"OK" not in wire.eof()
    assert bed.memory() - before < 8 * 2**20
    assert verbs(bed, user) == []


def test_a41_slow_login(hasty: Bed) -> None:
    """The time to log in is absolute: bytes that trickle in do not extend it."""
    with hasty.connect() as wire:
        sent = 0
        while wire.quiet(0.05):
            assert sent < 200, "ten seconds and still open"
            wire.send(b"a LOGIN u p"[sent % 11 : sent % 11 + 1])
            sent += 1
        assert b"* BYE" in wire.eof()
        assert sent >= 10


def test_a41_slow_login_between_commands(hasty: Bed) -> None:
    """Whole commands do not extend it either."""
    count = 0
    with hasty.connect() as wire, contextlib.suppress(WireClosed, OSError):
        while count < 200 and wire.quiet(0.05):
            wire.send(b"a%d NOOP\r\n" % count)
            assert wire.line().startswith((b"a%d OK" % count, b"* BYE"))
            count += 1
    assert 10 <= count < 200


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_a11_handshake_never_finished(hasty: Bed, octets: bytes) -> None:
    """Half a ClientHello, or none, is closed in time."""
    with connect(HOST, hasty.gate.tls_port, greeting=False, timeout=TIMEOUT) as wire:
        wire.send(octets)
        wire.eof()


def test_client_idle(hasty: Bed) -> None:
    """A silent client is closed with a BYE after its limit, and its upstream connection with it."""
    wire, user = hasty.login()
    with wire:
        assert b"* BYE" in wire.eof()
    hasty.ended(user)


# -- authentication -------------------------------------------------------------------------------------------------


def test_a27_aborted_authentication(bed: Bed) -> None:
    """Exchanges that are cancelled or left leak nothing, and open nothing upstream."""
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        wire.send(b"a AUTHENTICATE PLAIN\r\n")
        wire.expect_continuation()
        wire.send(b"*\r\n")
        assert wire.until_tagged(b"a")[-1].startswith(b"a BAD")
        user = bed.new_user()
        wire.ok(b"AUTHENTICATE PLAIN " + base64.b64encode(b"\0" + user + b"\0secret"))
    bed.ended(user)
    before = len(bed.recorder.conversations)
    start = bed.memory()
    for number in range(300):
        with bed.connect() as wire:
            wire.send(b"a AUTHENTICATE LOGIN\r\n")
            wire.expect_continuation()
            if number % 2:
                wire.send(base64.b64encode(b"somebody") + b"\r\n")
                wire.expect_continuation()
    assert bed.memory() - start < 4 * 2**20
    assert len(bed.recorder.conversations) == before


@pytest.mark.parametrize(
    "answer",
    [b"!!!!", b"AA=", b"A", b"AAAA AAAA", b"AAAA====", b"=", b"A" * 20_000, base64.b64encode(b"no nul"),
     base64.b64encode(b"root\0alice\0secret"), base64.b64encode(b"\0\0secret"), base64.b64encode(b"\0a\r\nb LOGIN\0p"),
     base64.b64encode(b"\0a\0b\0c"), base64.b64encode(b"\0" + b"a" * 300 + b"\0p")],
    ids=range(13),
)  # fmt: skip
def test_a27_a38_bad_sasl(bed: Bed, answer: bytes) -> None:
    """What is no base64, no PLAIN message, a foreign identity or no user name goes nowhere."""
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        wire.send(b"a AUTHENTICATE PLAIN\r\n")
        wire.expect_continuation()
        wire.send(answer + b"\r\n")
        got = wire.response()
        assert got.startswith((b"a BAD", b"a NO", b"* BAD", b"* BYE"))
        assert b"secret" not in got
    assert not [talk for talk in bed.recorder.conversations[before:] if talk.passwords]


@pytest.mark.parametrize("user", [b"", b"a\r\nb", b"a\nb", b"a\x01", b"\x7f", b"x" * 257, b"a\x1b[2J"], ids=repr)
def test_a38_user_names(bed: Bed, user: bytes) -> None:
    """A user name with control octets, an empty or an endless one is refused by the gate itself."""
    before = len(bed.recorder.conversations)
    with bed.connect() as wire:
        wire.send(b"a LOGIN {%d+}\r\n%b secret\r\n" % (len(user), user))
        assert wire.response().startswith((b"a NO", b"a BAD"))
    assert not [talk for talk in bed.recorder.conversations[before:] if talk.passwords]
