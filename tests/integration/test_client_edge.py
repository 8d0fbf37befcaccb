"""Clients that are hostile, broken, slow or too many: THREATS A9-A43 and PROTOCOL.md §6, from the client's side."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.integration.bed import HOST, TIMEOUT, Bed, bed_of, unread
from tests.integration.scripted import Command, Conversation, Script
from tests.integration.servers.base import wait_until
from tests.integration.wire import Wire, WireClosed, connect, tls_context


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


# -- after login ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", [b"x NOOP\r\n", b"DONE x\r\n", b"\r\n", b"DON\r\n", b"DONE {5+}\r\nabcde\r\n", b"*\r\n"]
)
def test_a28_idle_then_something_else(bed: Bed, line: bytes) -> None:
    """IDLE followed by anything but DONE: BAD, close, nothing of it upstream."""
    wire, user = bed.login()
    with wire:
        wire.send(b"i IDLE\r\n")
        wire.expect_continuation()
        wire.send(line + b"z CHECK\r\n")
        answer = wire.eof()
    assert b"BAD" in answer
    assert b"z OK" not in answer
    assert b"i OK" not in answer
    assert verbs(bed, user) == [b"IDLE"]


@pytest.mark.parametrize("done", [b"DONE\r\n", b"done\r\n", b"DoNe\r\n"])
def test_a28_done_with_idle(bed: Bed, done: bytes) -> None:
    """DONE in any case, in the same write as IDLE, goes upstream after its `+` and ends it."""
    wire, user = bed.login()
    with wire:
        wire.send(b"i IDLE\r\n" + done + b"z CHECK\r\n")
        assert wire.until_tagged(b"i")[-1].startswith(b"i OK")
        assert wire.until_tagged(b"z")[-1].startswith(b"z OK")
    assert verbs(bed, user) == [b"IDLE", b"CHECK"]


def test_a43_pipelining_flood(bed: Bed) -> None:
    """100,000 NOOPs into a stalled upstream: 50 in flight at most, memory flat, and all are answered in the end."""
    count = 100_000
    held: list[Command] = []
    lock = threading.Lock()
    going: list[bool] = []

    def hold(talk: Conversation, command: Command) -> None:
        with lock:
            if not going:
                held.append(command)
                return
        talk.ok(command)

    bed.recorder.script = Script(answers={b"NOOP": hold})
    wire, user = bed.login()
    before = bed.memory()
    with wire:
        sender = threading.Thread(target=_flood, args=(wire, count), daemon=True)
        sender.start()
        (talk,) = bed.recorder.of(user)
        bed.recorder.wait(lambda: len(held) == 50)
        # The gate has stopped reading: nearly all of it stays in the kernel, and with a longer flood at the sender.
        port = wire.sock.getsockname()[1]
        wait_until(lambda: unread(bed.port, port) > 30_000, "the kernel to hold the flood")
        assert len(held) == 50
        assert bed.memory() - before < 8 * 2**20
        with lock:
            going.append(True)
            for command in held:
                talk.ok(command)
        for _ in range(count):
            assert wire.line() == b"n OK done\r\n"
        assert bed.memory() - before < 16 * 2**20
        sender.join(10)
        assert not sender.is_alive()


def _flood(wire: Wire, count: int) -> None:
    block = b"n NOOP\r\n" * 1000
    for _ in range(count // 1000):
        wire.sock.sendall(block)


@pytest.mark.parametrize(
    ("stream", "answer"),
    [
        (b"a NOOP\r\n", b"a OK"),
        (b"a NOOP\r\nb CHECK\r\nc STATUS INBOX (MESSAGES)\r\n", b"c OK"),
        (b"a APPEND INBOX {5+}\r\nhello\r\n", b"a OK"),
        (b"a SELECT INBOX\r\nb FETCH 1 BODY[]\r\n", b"b OK"),
        (b"a LOGOUT\r\n", b"a OK"),
    ],
)
def test_f7_half_close(bed: Bed, stream: bytes, answer: bytes) -> None:
    """Commands followed by a half-close are answered, and then the connection ends."""
    wire, user = bed.login()
    with wire:
        wire.send(stream)
        wire.half_close()
        assert answer in wire.eof()
    bed.ended(user)


def test_f7_half_close_with_login(bed: Bed) -> None:
    """A whole session in one write, followed by a half-close, is answered."""
    user = bed.new_user()
    with bed.connect() as wire:
        wire.send(b"a LOGIN " + user + b" secret\r\nb NOOP\r\nc CHECK\r\n")
        wire.half_close()
        answer = wire.eof()
    assert b"a OK" in answer
    assert b"b OK" in answer
    assert b"c OK" in answer


@pytest.mark.parametrize(
    "stream",
    [b"", b"a NO", b"i IDLE\r\n", b"a APPEND INBOX {500}\r\nx", b"a APPEND INBOX {500+}\r\nx", b"a STATUS {9}\r\nx"],
)
def test_f7_half_close_inside_a_command(bed: Bed, stream: bytes) -> None:
    """A half-close inside a command, or in IDLE, ends the session: nothing is completed, nothing is stored."""
    wire, user = bed.login()
    with wire:
        wire.send(stream)
        wire.half_close()
        answer = wire.eof()
    assert b"a OK" not in answer
    bed.ended(user)
    assert bed.recorder.of(user)[0].stored == []


def test_a15_announcements_cost_nothing(bed: Bed) -> None:
    """A thousand times `{999999999}`: each refused without a `+`, and no memory is taken for any."""
    before = bed.memory()
    sessions = [bed.login()[0] for _ in range(53)]
    for number in range(19):
        for wire in sessions:
            wire.send(b"a%d APPEND INBOX {999999999}\r\n" % number)
        for wire in sessions:
            assert wire.response().startswith(b"a%d NO [TOOBIG]" % number)
    for wire in sessions:
        wire.ok(b"NOOP")
        wire.close()
    assert bed.memory() - before < 64 * 2**20


@pytest.mark.parametrize("verb", [b"STATUS", b"LIST", b"SEARCH SUBJECT", b"CREATE"])
def test_a15_argument_literals(bed: Bed, verb: bytes) -> None:
    """A synchronising argument literal over 64 KiB: NO [TOOBIG], no `+`, and the next line is a command."""
    wire, user = bed.login()
    with wire:
        wire.send(b"a " + verb + b" {65537}\r\nb CHECK\r\n")
        assert wire.response().startswith(b"a NO [TOOBIG]")
        assert wire.response().startswith(b"b OK")
    assert verbs(bed, user) == [b"CHECK"]


@pytest.mark.parametrize("size", [65537, 70_000, 67_108_865, 999_999_999, 4_294_967_295, 2**63, 10**40])
@pytest.mark.parametrize("command", [b"STATUS", b"APPEND INBOX", b"APPEND"])
def test_a15_direct_literals_over_the_limit(bed: Bed, command: bytes, size: int) -> None:
    """A non-synchronising literal over the limit is swallowed to its last octet, or the connection is closed."""
    if command == b"APPEND INBOX" and size <= 67_108_864:
        size += 67_108_864
    wire, user = bed.login()
    with wire:
        wire.send(b"a " + command + b" {%d+}\r\n" % size + b"q CHECK\r\n" * 1000)
        wire.half_close()
        answer = wire.eof()
    assert b"q OK" not in answer
    assert b"q BAD" not in answer
    assert b"+ " not in answer
    # Where the client ends before the literal does, there is nobody left to be told.
    assert b"a NO [TOOBIG]" in answer or b"a BAD" in answer or b"* BYE" in answer or not answer
    assert b"CHECK" not in verbs(bed, user)
    assert bed.recorder.of(user)[0].stored == []


def test_a15_direct_literal_swallowed_whole(bed: Bed) -> None:
    """Where such a literal is swallowed, exactly its octets are: what stands behind the command is the next command."""
    wire, user = bed.login()
    with wire:
        wire.send(b"a XBAD {2000+}\r\n" + b"q CHECK\r\n" * 222 + b"xx" + b" tail\r\nz CHECK\r\n")
        assert wire.response().startswith(b"a BAD")
        assert wire.response().startswith(b"z OK")
    assert verbs(bed, user) == [b"CHECK"]


def test_whole_command_limit(bed: Bed) -> None:
    """A command may have many literals, but not more than 256 KiB in all."""
    wire, user = bed.login()
    with wire:
        part = b" SUBJECT {60000+}\r\n" + b"s" * 60_000
        wire.send(b"a SEARCH" + part * 5 + b"\r\nz CHECK\r\n")
        answer = wire.response()
        assert answer.startswith((b"a NO [TOOBIG]", b"a BAD", b"* BYE", b"* BAD"))
        if answer.startswith(b"a "):
            assert wire.response().startswith((b"z OK", b"* BYE"))
    assert b"SEARCH" not in verbs(bed, user)


# -- how many -------------------------------------------------------------------------------------------------------


def test_connections_per_address() -> None:
    """Beyond the limit of one address a connection is told BYE and closed; it comes back when another leaves."""
    with bed_of(limits={"connections_per_address": 4}) as bed:
        # What waited for the gate to come up has been forgotten once a greeting shows it.
        held = [bed.connect() for _ in range(4)]
        assert all(wire.greeting.startswith(b"* OK") for wire in held)
        with bed.connect() as wire:
            assert wire.greeting.startswith(b"* BYE")
            assert wire.eof() == b""
        held.pop().logout()
        _until_greeted(bed)
        for wire in held:
            wire.close()


def _until_greeted(bed: Bed) -> None:
    """Connect until the greeting is an OK, a bounded number of times."""
    for _ in range(200):
        with bed.connect() as wire:
            if wire.greeting.startswith(b"* OK"):
                return
    raise AssertionError("a place that was given up is never given again")


def test_connections_per_user_and_address() -> None:
    """Beyond the limit of one user from one address a login is refused; another user is not."""
    with bed_of(limits={"connections_per_user_address": 3}) as bed:
        user = bed.new_user()
        held = [bed.login(user)[0] for _ in range(3)]
        logins = len(bed.recorder.of(user))
        with bed.connect() as wire:
            answer = wire.command(b'LOGIN "%b" secret' % user, tag=b"a")[-1]
            assert answer.startswith((b"a NO", b"* BYE"))
        assert len([talk for talk in bed.recorder.of(user) if not talk.ended]) <= logins
        other, _ = bed.login()
        other.close()
        for wire in held:
            wire.ok(b"NOOP")
            wire.close()


def test_a37_delays_after_failures() -> None:
    """After a failed login the next answer waits; other users are not held up meanwhile."""
    with bed_of(script=Script(password=b"secret"), limits={"failed_login_delays": ["1s"]}) as bed:
        slow = bed.connect()
        slow.send(b"a LOGIN victim wrong\r\n")
        slow_ended: list[bytes] = []
        reader = threading.Thread(target=lambda: slow_ended.append(slow.response()), daemon=True)
        reader.start()
        bed.recorder.wait(lambda: bed.recorder.of(b"victim"))
        with bed.connect() as wire:
            wire.ok(b"NOOP")
            assert not slow_ended, "the failure was told at once"
        reader.join(10)
        assert slow_ended
        assert slow_ended[0].startswith(b"a NO [AUTHENTICATIONFAILED]")
        slow.close()


def test_reset_everywhere(bed: Bed) -> None:
    """A reset at each step of a login and after it leaves no upstream connection behind (A51)."""
    steps = [b"a LOGIN ", b"u", b" sec", b"ret\r\n", b"b SELECT INBOX\r\n", b"c APPEND INBOX {10+}\r\n", b"12345"]
    for count in range(len(steps) + 1):
        wire = bed.connect()
        for step in steps[:count]:
            wire.send(step)
        wire.reset()
    bed.recorder.wait(lambda: all(talk.ended for talk in bed.recorder.conversations))
    wire, _ = bed.login()
    with wire:
        wire.ok(b"NOOP")


def test_tls_listener_gets_clear_text(bed: Bed) -> None:
    """Clear text on the TLS port is closed, and TLS on the plain port is no command."""
    with connect(HOST, bed.gate.tls_port, greeting=False, timeout=TIMEOUT) as wire:
        wire.send(b"a NOOP\r\n")
        assert b"OK" not in wire.eof()
    plain = socket.create_connection((HOST, bed.port), TIMEOUT)
    with plain, pytest.raises(OSError, match=r"."):
        tls_context().wrap_socket(plain)
