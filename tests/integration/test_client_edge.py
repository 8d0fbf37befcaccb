"""Logged-in clients that are hostile, broken or too many: THREATS A15-A43 and PROTOCOL.md §6, from their side."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.integration.bed import HOST, TIMEOUT, Bed, bed_of, unread
from tests.integration.scripted import Command, Conversation, Script
from tests.integration.servers.base import wait_until
from tests.integration.wire import Wire, connect, tls_context


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Give one gate with the usual limits in front of one recorder."""
    with bed_of(limits={"half_close": "1s"}) as bed:
        yield bed


@pytest.fixture(autouse=True)
def _no_exceptions(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold that no exception ever leaves a session: the gate's log has no traceback."""
    yield
    if "bed" in request.fixturenames:
        used: Bed = request.getfixturevalue("bed")
        used.recorder.script = Script()
        assert "Traceback" not in used.gate.log()
        assert not used.recorder.violations


def verbs(bed: Bed, user: bytes) -> list[bytes]:
    """Give what upstream was asked after the login, without what the gate asks of itself."""
    return [c.verb for c in bed.after_login(user) if c.verb not in (b"LOGOUT", b"CAPABILITY", b"ID")]


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


def test_idle_again_and_again(bed: Bed) -> None:
    """IDLE and DONE, five times in one write: each DONE waits for the `+` of its own IDLE."""
    wire, user = bed.login()
    with wire:
        wire.send(b"".join(b"i%d IDLE\r\nDONE\r\n" % number for number in range(5)) + b"z CHECK\r\n")
        answer = wire.until_tagged(b"z")
    assert [line for line in answer if line[:1] not in b"*+"] == [
        *(b"i%d OK done\r\n" % number for number in range(5)),
        b"z OK done\r\n",
    ]
    assert verbs(bed, user) == [b"IDLE"] * 5 + [b"CHECK"]


def test_done_while_another_literal_is_refused(bed: Bed) -> None:
    """IDLE and DONE behind a command whose literal upstream refuses: the DONE is not lost with it."""

    def refuse(talk: Conversation, command: Command, size: int) -> bool:
        talk.send(command.tag + b" NO not that\r\n")
        return False

    bed.recorder.script = Script(literal=refuse)
    wire, user = bed.login()
    with wire:
        wire.send(b"a SEARCH SUBJECT {3+}\r\n\xc3\xa9x\r\ni IDLE\r\nDONE\r\nz CHECK\r\n")
        answer = wire.until_tagged(b"z")
    assert [line for line in answer if line[:1] not in b"*+"] == [
        b"a NO not that\r\n",
        b"i OK done\r\n",
        b"z OK done\r\n",
    ]
    assert verbs(bed, user) == [b"SEARCH", b"IDLE", b"CHECK"]


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
        held = [_greeted(bed) for _ in range(4)]
        with bed.connect() as wire:
            assert wire.greeting.startswith(b"* BYE")
            assert wire.eof() == b""
        held.pop().logout()
        held.append(_greeted(bed))
        for wire in held:
            wire.close()


def _greeted(bed: Bed) -> Wire:
    """Connect until the greeting is an OK, a bounded number of times: the gate may not know yet who has gone."""
    for _ in range(200):
        wire = bed.connect()
        if wire.greeting.startswith(b"* OK"):
            return wire
        wire.close()
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
        bed.recorder.wait(lambda: len([talk for talk in bed.recorder.of(user) if not talk.ended]) <= logins)
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
