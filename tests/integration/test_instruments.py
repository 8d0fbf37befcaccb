"""The instruments themselves, tried against plain sockets: what they claim to do they must do to the byte."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator

import pytest

from tests.integration.faults import Fault, FaultProxy
from tests.integration.reference import allowed
from tests.integration.scripted import MESSAGE, Command, Conversation, Recorder, Script, always
from tests.integration.wire import Wire, WireClosed, connect

TEXT = b"0123456789" * 20


@pytest.fixture
def echo() -> Iterator[Recorder]:
    """Give a server that sends `TEXT` as its greeting and keeps what it receives."""
    with Recorder(Script(greeting=TEXT + b"\r\n")) as recorder:
        yield recorder


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Give a plain scripted upstream."""
    with Recorder() as recorder:
        yield recorder


def through(proxy: FaultProxy) -> Wire:
    """Connect to a proxy without reading anything."""
    return connect("127.0.0.1", proxy.port, greeting=False, timeout=10)


def everything(proxy: FaultProxy) -> bytes:
    """Connect and read to the end; a reset may come so early that connecting fails."""
    try:
        with through(proxy) as wire:
            return wire.eof()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("cut", ["fin", "rst"])
@pytest.mark.parametrize("offset", [0, 1, 57, 200])
def test_cut_down(echo: Recorder, offset: int, cut: str) -> None:
    """A cut on the way down lets exactly N bytes pass, then closes both ends."""
    with FaultProxy(("127.0.0.1", echo.port), keep=True) as proxy:
        proxy.plan(down=Fault(cut_at=offset, cut="fin" if cut == "fin" else "rst"))
        assert everything(proxy) == TEXT[:offset]
        proxy.wait(lambda: proxy.connections[0].closed)
        assert proxy.connections[0].cut
        assert bytes(proxy.connections[0].down.data) == TEXT[:offset]
        echo.wait(lambda: not echo.conversations or echo.conversations[0].ended)


def test_cut_up(echo: Recorder) -> None:
    """A cut on the way up lets exactly N bytes reach the target."""
    with FaultProxy(("127.0.0.1", echo.port)) as proxy:
        proxy.plan(up=Fault(cut_at=7))
        with through(proxy) as wire:
            wire.send(b"a NOOP and more\r\n")
            wire.eof()
        echo.wait(lambda: echo.conversations[0].ended)
        assert bytes(echo.conversations[0].received) == b"a NOOP "


def test_slices_and_counts(echo: Recorder) -> None:
    """Slicing changes how the bytes are written and not the bytes."""
    with FaultProxy(("127.0.0.1", echo.port), keep=True) as proxy:
        proxy.plan(up=Fault(slice=1), down=Fault(slice=3))
        with through(proxy) as wire:
            assert wire.line() == TEXT + b"\r\n"
            wire.send(b"a NOOP\r\n")
            assert wire.line() == b"a OK done\r\n"
        proxy.wait(lambda: proxy.connections[0].closed)
        assert proxy.connections[0].up.passed == len(b"a NOOP\r\n")
        assert proxy.connections[0].down.passed == len(TEXT) + 2 + len(b"a OK done\r\n")


def test_half_close(echo: Recorder) -> None:
    """A half close at byte N ends one direction and leaves the other."""
    with FaultProxy(("127.0.0.1", echo.port)) as proxy:
        proxy.plan(up=Fault(half_close_at=8))
        with through(proxy) as wire:
            wire.line()
            wire.send(b"a NOOP\r\nb NOOP\r\n")
            assert wire.line() == b"a OK done\r\n"
            assert wire.eof() == b""
        assert [command.tag for command in echo.conversations[0].commands] == [b"a"]


def test_black_hole(echo: Recorder) -> None:
    """What follows byte N is read and never arrives, and nothing is closed."""
    with FaultProxy(("127.0.0.1", echo.port)) as proxy:
        proxy.plan(up=Fault(black_hole_at=4))
        with through(proxy) as wire:
            wire.line()
            wire.send(b"a NOOP\r\n")
            proxy.wait(lambda: (proxy.connections[0].up.read, proxy.connections[0].up.passed) == (8, 4))
            assert not proxy.connections[0].closed


def test_stall_and_resume(echo: Recorder) -> None:
    """A stalled direction passes nothing until it is resumed, and then everything."""
    with FaultProxy(("127.0.0.1", echo.port)) as proxy:
        proxy.plan(down=Fault(stall_at=10))
        with through(proxy) as wire:
            assert wire.exactly(10) == TEXT[:10]
            proxy.wait(lambda: proxy.connections[0].down.stalled and proxy.connections[0].down.passed == 10)
            proxy.resume(proxy.connections[0], "down")
            assert wire.line() == TEXT[10:] + b"\r\n"


def test_slow_wire(echo: Recorder) -> None:
    """Latency and bandwidth delay bytes and lose none."""
    with FaultProxy(("127.0.0.1", echo.port)) as proxy:
        proxy.plan(down=Fault(latency=0.02, bandwidth=4000))
        with through(proxy) as wire:
            assert wire.line() == TEXT + b"\r\n"


def test_refuse_and_listen(echo: Recorder) -> None:
    """A refusing proxy refuses, and listens on the same port again."""
    with FaultProxy(("127.0.0.1", echo.port)) as proxy:
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            through(proxy)
        proxy.listen()
        assert proxy.port == port
        with through(proxy) as wire:
            assert wire.line() == TEXT + b"\r\n"


def test_dead_target(echo: Recorder) -> None:
    """A target that refuses closes the connection that came."""
    with socket.create_server(("127.0.0.1", 0)) as vacant:
        target = vacant.getsockname()
    with FaultProxy(target) as proxy:
        assert everything(proxy) == b""


def test_recorder_keeps_commands_whole(recorder: Recorder) -> None:
    """A command with literals is recorded with its pieces, and its octets come back as they were sent."""
    with connect("127.0.0.1", recorder.port) as wire:
        wire.login("alice", 'x" \\y')
        wire.command_with_literals(b"APPEND INBOX (\\Seen)", b"a LOGOUT\r\n{3}\r\n")
        wire.command_with_literals(b"SEARCH SUBJECT", b"one", b" FROM", b"")
        wire.logout()
    (talk,) = recorder.of(b"alice")
    assert talk.passwords == [b'x" \\y']
    assert [command.verb for command in talk.commands] == [b"LOGIN", b"APPEND", b"SEARCH", b"LOGOUT"]
    assert talk.commands[1].literals == (b"a LOGOUT\r\n{3}\r\n",)
    assert talk.stored == [b"a LOGOUT\r\n{3}\r\n"]
    assert talk.commands[2].words() == [b"SUBJECT", b"one", b"FROM", b""]
    assert b"".join(command.raw for command in talk.commands) == bytes(talk.received)
    assert talk.completed == talk.commands
    assert not recorder.violations


@pytest.mark.parametrize("initial", [True, False])
def test_recorder_sasl(recorder: Recorder, initial: bool) -> None:
    """PLAIN with and without an initial response, and LOGIN, give the credentials."""
    with connect("127.0.0.1", recorder.port) as wire:
        answer = base64.b64encode(b"\0bob\0secret")
        if initial:
            wire.ok(b"AUTHENTICATE PLAIN " + answer)
        else:
            wire.send(b"a AUTHENTICATE PLAIN\r\n")
            wire.expect_continuation()
            wire.send(answer + b"\r\n")
            assert wire.until_tagged(b"a")[-1].startswith(b"a OK [CAPABILITY ")
    with connect("127.0.0.1", recorder.port) as wire:
        wire.send(b"a AUTHENTICATE LOGIN\r\n")
        for word in (b"carol", b"secret"):
            wire.expect_continuation()
            wire.send(base64.b64encode(word) + b"\r\n")
        assert wire.until_tagged(b"a")[-1].startswith(b"a OK [CAPABILITY ")
    assert recorder.of(b"bob")[0].passwords == recorder.of(b"carol")[0].passwords == [b"secret"]


@pytest.mark.parametrize(
    ("sent", "breach"),
    [
        (b"a NOOP\nb NOOP\r\n", "bare"),
        (b"a NOOP\x00\r\n", "bare"),
        (b"a APPEND INBOX {3+}\r\nabc\r\n", "not a synchronising literal"),
        (b"a APPEND INBOX {03}\r\nabc\r\n", "not a synchronising literal"),
        (b"a APPEND INBOX x{3}\r\n", "not a synchronising literal"),
        (b"a APPEND INBOX {3}\r\nabc\r\n", "before the +"),
        (b"a LOGIN u p\r\nb NOOP\r\n", "behind the login"),
        (b"a IDLE\r\nDONE\r\n", "DONE before"),
        (b"a IDLE\r\n", ""),
        (b'a SEARCH SUBJECT "x {3}"\r\n', ""),
    ],
)
def test_recorder_sees_breaches(recorder: Recorder, sent: bytes, breach: str) -> None:
    """Each thing that a gate may not do upstream is noted, and what it may is not."""
    with connect("127.0.0.1", recorder.port) as wire:
        wire.send(sent)
        recorder.wait(lambda: len(recorder.conversations[0].received) == len(sent))
        wire.half_close()
        wire.eof()
    recorder.wait(lambda: recorder.conversations[0].ended)
    assert any(breach in text for text in recorder.violations) if breach else not recorder.violations


def test_recorder_message_and_idle(recorder: Recorder) -> None:
    """FETCH gives the script's message, IDLE ends at DONE."""
    with connect("127.0.0.1", recorder.port) as wire:
        assert MESSAGE in b"".join(wire.command(b"FETCH 1 BODY[]"))
        wire.send(b"i IDLE\r\n")
        wire.expect_continuation()
        assert wire.line() == b"* 1 EXISTS\r\n"
        wire.send(b"DONE\r\n")
        assert wire.line() == b"i OK done\r\n"


def test_scripts_misbehave(recorder: Recorder) -> None:
    """Answers, literal refusals, closes and holds do what the script says."""
    go: list[bool] = []

    def hold(talk: Conversation, command: Command) -> None:
        talk.until(lambda: bool(go))
        talk.ok(command)

    def refuse(talk: Conversation, command: Command, size: int) -> bool:
        talk.send(command.tag + b" NO %d is too much\r\n" % size)
        return False

    recorder.script = Script(
        answers={
            b"NOOP": always(b"x9 OK forged\r\n+ what\r\n"),
            b"CHECK": hold,
            b"STATUS": lambda talk, _: talk.reset(),
        },
        literal=refuse,
    )
    with connect("127.0.0.1", recorder.port) as wire:
        wire.send(b"a NOOP\r\n")
        assert wire.exactly(22) == b"x9 OK forged\r\n+ what\r\n"
        wire.send(b"b APPEND INBOX {5}\r\n")
        assert wire.line() == b"b NO 5 is too much\r\n"
        wire.send(b"c CHECK\r\n")
        recorder.wait(lambda: recorder.conversations[0].commands[-1].verb == b"CHECK")
        go.append(True)
        assert wire.line() == b"c OK done\r\n"
        wire.send(b"d STATUS INBOX (MESSAGES)\r\n")
        with pytest.raises(WireClosed):
            wire.line()
    assert [command.tag for command in recorder.conversations[0].completed] == [b"c"]


STREAM = (
    b"p STATUS {5+}\r\nINBOX (MESSAGES)\r\nq XBAD {8+}\r\nr CLOSE \r\ns APPEND INBOX {9}\r\nt EXPUNGE\r\nz NOOP\r\n"
)


@pytest.mark.parametrize(
    ("recorded", "legal"),
    [
        ([], True),
        ([b'g1 STATUS "INBOX" (MESSAGES)\r\n', b"g2 NOOP\r\n"], True),
        ([b"g1 STATUS inbox (messages)\r\n"], True),
        ([b"g2 NOOP\r\n"], True),
        ([b"g1 CLOSE\r\n"], False),
        ([b"g1 EXPUNGE\r\n"], True),  # the literal before it may be refused
        ([b"g1 APPEND INBOX {9}\r\nt EXPUNGE\r\n", b"g2 EXPUNGE\r\n"], False),
        ([b"g1 NOOP\r\n", b"g2 NOOP\r\n"], False),
        ([b"g1 NOOP\r\n", b"g2 STATUS INBOX (MESSAGES)\r\n"], False),
        ([b"g1 STATUS INBOX (MESSAGES UIDNEXT)\r\n"], False),
        ([b"g1 STATUS INBOXX (MESSAGES)\r\n"], False),
        ([b"g1 XBAD abc\r\n"], False),
        ([b"g1 NOOP \r\n"], False),
    ],
)
def test_reference_reading(recorded: list[bytes], legal: bool) -> None:
    """The strict reader finds the commands a stream holds, and no other ones."""
    assert (allowed(STREAM, recorded) == "") is legal


@pytest.mark.parametrize(
    ("stream", "recorded", "legal"),
    [
        (b"a NOOP\nb CHECK\r\nc CLOSE\r\n", b"g1 CHECK\r\n", False),
        (b"a NOOP\nb CHECK\r\nc CLOSE\r\n", b"g1 CLOSE\r\n", False),
        (b"a STATUS x{7+}\r\nb CHECK\r\n", b"g1 CHECK\r\n", True),
        (b'a STATUS "x{9+}\r\nb CHECK\r\n', b"g1 CHECK\r\n", True),
        (b"a STATUS {07+}\r\nb CHECK\r\n", b"g1 CHECK\r\n", True),
        (b"+ CHECK\r\n", b"g1 CHECK\r\n", False),
        (b"a(b CHECK\r\n", b"g1 CHECK\r\n", False),
        (b"a CHECK x\r\n", b"g1 CHECK\r\n", False),
        (b"a IDLE\r\nb CHECK\r\n", b"g1 CHECK\r\n", False),
        (b"a IDLE\r\nDONE\r\nb CHECK\r\n", b"g1 CHECK\r\n", True),
        (b"a SEARCH SUBJECT {3}\r\na\xffc\r\n", b"g1 SEARCH SUBJECT {3}\r\na\xffc\r\n", True),
        (b"a SEARCH  SEEN\r\n", b"g1 SEARCH SEEN\r\n", False),
        (b"a SEARCH (SEEN\r\n", b"g1 SEARCH (SEEN)\r\n", False),
        (b'a SEARCH SUBJECT "a\\"b"\r\n', b'g1 SEARCH SUBJECT {3}\r\na"b\r\n', True),
        (b"a SEARCH SUBJECT {70000+}\r\n" + b"b CHECK\r\n" * 7000 + b"b CHECK\r\n" * 1000, b"g1 CHECK\r\n", True),
        (b"a LOGOUT\r\nb CHECK\r\n", b"g1 CHECK\r\n", False),
        (b"a FETCH 1 BODY[HEADER.FIELDS (A B)]<0.9>\r\n", b"g1 FETCH 1 BODY[HEADER.FIELDS (A B)]<0.9>\r\n", True),
    ],
)
def test_reference_edges(stream: bytes, recorded: bytes, legal: bool) -> None:
    """Line ends, tags, IDLE, spaces, lists and strings are read strictly."""
    assert (allowed(stream, [recorded]) == "") is legal
