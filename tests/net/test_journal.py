"""The operator's log and the trace."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from imapgate.limits import DEFAULTS
from imapgate.model.failure import Failure
from imapgate.net import journal as module
from imapgate.net.dial import Client
from imapgate.net.journal import Journal, Tap, Trace, printable, quoted
from imapgate.session.effects import LoggedIn, LoginFailed, Side, Traced, Violation
from imapgate.session.session import ClientSession
from tests.net.wires import logged

CLIENT = Client(("192.0.2.7", 50_000), ("192.0.2.1", 143), "0123456789ab")
LOCAL = Client(None, None, "0123456789ab")


@pytest.mark.parametrize(
    ("client", "event", "line"),
    [
        (
            CLIENT,
            LoggedIn(b"alice", b"PLAIN"),
            'debug: logged in: user="alice" address=192.0.2.7 mechanism=PLAIN session=0123456789ab',
        ),
        (
            CLIENT,
            LoginFailed(b"alice", b"LOGIN", Failure.CREDENTIALS),
            'info: login failed: user="alice" address=192.0.2.7 mechanism=LOGIN reason=credentials '
            "session=0123456789ab",
        ),
        (
            LOCAL,
            LoginFailed(b"", b"SCRAM-SHA-256", Failure.TIMED_OUT),
            "info: login failed: user=- address=unix mechanism=SCRAM-SHA-256 reason=timed-out session=0123456789ab",
        ),
        (
            CLIENT,
            Violation(Side.UPSTREAM, "a line ended in a bare LF"),
            "info: protocol error of the upstream: a line ended in a bare LF address=192.0.2.7 session=0123456789ab",
        ),
    ],
)
def test_report(
    client: Client, event: LoggedIn | LoginFailed | Violation, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the core reports is one line in a stable form."""
    monkeypatch.setattr(module, "DEBUG", True)
    with logged(module) as lines:
        Journal().report(client, event)
    assert lines == [line]


@pytest.mark.parametrize(
    ("client", "tls", "line"),
    [
        (CLIENT, None, "debug: client connected: address=192.0.2.7 tls=- session=0123456789ab"),
        (LOCAL, "TLSv1.3 X", 'debug: client connected: address=unix tls="TLSv1.3 X" session=0123456789ab'),
    ],
)
def test_connected(client: Client, tls: str | None, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that comes is a line at debug level."""
    monkeypatch.setattr(module, "DEBUG", True)
    with logged(module) as lines:
        Journal().connected(client, tls)
    assert lines == [line]


def test_nobody_hears_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody hears is not put together; what is above that level is said."""
    monkeypatch.setattr(module, "DEBUG", False)
    with logged(module) as lines:
        Journal().connected(CLIENT, None)
        Journal().report(CLIENT, LoggedIn(b"alice", b"PLAIN"))
        Journal().report(CLIENT, Violation(Side.CLIENT, "odd"))
    assert [line.partition(":")[0] for line in lines] == ["info"]


@pytest.mark.parametrize(("client", "where"), [(CLIENT, "192.0.2.7"), (LOCAL, "unix")])
def test_ended(client: Client, where: str) -> None:
    """A session is one line at its end."""
    session = ClientSession(DEFAULTS)
    session.user, session.reason, session.commands = b"alice", "logout", 7
    with logged(module) as lines:
        Journal().ended(client, session.user, session, 12.345, (100, 2000))
    assert lines == [
        f'info: session ended: user="alice" address={where} reason="logout" seconds=12.3 in=100 out=2000 commands=7 '
        "session=0123456789ab"
    ]


ODD = [
    b'a" address=198.51.100.1 x="',
    b"a\r\nlogin failed: user=",
    b"\x1b[2Ja\0",
    b"\xff\xfe",
    "jürgen\u2028x".encode(),
    b"{user}",
    b"{0.__class__} %s",
]


@pytest.mark.parametrize("user", ODD)
def test_a39_user_names_forge_nothing(user: bytes) -> None:
    """Whatever a client calls itself is one JSON string of printable ASCII, and the line keeps its fields."""
    with logged(module) as lines:
        Journal().report(CLIENT, LoginFailed(user, b"PLAIN", Failure.CREDENTIALS))
    (line,) = lines
    assert line.isprintable()
    assert line.isascii()
    found = re.fullmatch(
        r'info: login failed: user=("(?:[^"\\]|\\.)*") address=192\.0\.2\.7 mechanism=PLAIN (.*)', line
    )
    assert found is not None
    assert json.loads(found[1]) == user.decode("utf-8", "backslashreplace")
    assert found[2] == "reason=credentials session=0123456789ab"
    assert quoted(user) == found[1]


@pytest.mark.parametrize("user", ODD)
def test_a39_user_names_forge_nothing_at_the_end(user: bytes) -> None:
    """The same holds for the one line of every session."""
    session = ClientSession(DEFAULTS)
    session.user, session.reason = user, "logout"
    with logged(module) as lines:
        Journal().ended(CLIENT, session.user, session, 1.0, (1, 2))
    assert lines == [
        f'info: session ended: user={quoted(user)} address=192.0.2.7 reason="logout" seconds=1.0 in=1 out=2 commands=0 '
        "session=0123456789ab"
    ]
    assert lines[0].isprintable()


class Tracing:
    """A trace into a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "alice.trace"
        self.clock = Clock()
        self.trace = Trace("alice", self.file, 3600.0, self.clock)
        self.journal = Journal(self.trace)

    def say(self, text: bytes, side: Side = Side.CLIENT) -> None:
        """Trace a line."""
        self.journal.report(CLIENT, Traced(side, text), b"alice")

    def lines(self) -> list[str]:
        """What stands in the file."""
        return self.file.read_text().splitlines()


@pytest.fixture
def tracing(tmp_path: Path) -> Tracing:
    """A trace of alice."""
    return Tracing(tmp_path)


def test_trace_lines(tracing: Tracing) -> None:
    """Each line says when, in which session, who, and what, with what is not ASCII escaped."""
    tracing.say(b"a FETCH 1 BODY[] {5}")
    tracing.say(b"* \xff\x1b\r\n", Side.UPSTREAM)
    first, second = tracing.lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00 0123456789ab C: a FETCH 1 BODY\[\] \{5\}", first)
    assert second.split(" ", 2)[1:] == ["0123456789ab", "S: * \\xff\\x1b\\x0d\\x0a"]


def test_trace_of_one_user_for_a_time(tracing: Tracing) -> None:
    """Only this user is traced, and only until the time is up."""
    assert tracing.journal.wants_trace(b"alice")
    assert not tracing.journal.wants_trace(b"Alice")
    assert not tracing.journal.wants_trace(b"")
    tracing.say(b"before")
    tracing.clock.advance(3600)
    assert not tracing.journal.wants_trace(b"alice")
    tracing.say(b"after")
    tracing.say(b"after")
    assert len(tracing.lines()) == 1


def test_no_trace() -> None:
    """Without a trace nobody is traced."""
    assert not Journal().wants_trace(b"alice")
    with logged(module) as lines:
        Journal().report(CLIENT, Traced(Side.CLIENT, b"x"))
    assert lines == []


def test_a40_only_the_owner_reads_a_trace(tracing: Tracing) -> None:
    """The file is 0600, even where it was there before and was not."""
    tracing.file.write_text("")
    tracing.file.chmod(0o644)
    tracing.say(b"x")
    assert tracing.file.stat().st_mode & 0o7777 == 0o600


def test_trace_is_opened_again(tracing: Tracing) -> None:
    """After a close (a log was rotated away) the next line opens the file again."""
    tracing.say(b"one")
    tracing.file.rename(tracing.file.with_suffix(".1"))
    tracing.trace.close()
    tracing.trace.close()
    tracing.say(b"two")
    assert len(tracing.lines()) == 1


@pytest.mark.parametrize("fault", ["link", "folder"])
def test_a_trace_that_cannot_be_written_harms_no_session(tracing: Tracing, fault: str) -> None:
    """A trace that cannot be written, such as through a symbolic link, is given up; the session is not."""
    if fault == "link":
        tracing.file.symlink_to(tracing.file.with_suffix(".elsewhere"))
    else:
        tracing.file.mkdir()
    with logged(module) as lines:
        tracing.say(b"x")
        tracing.say(b"y")
    (line,) = lines
    assert line.startswith("error: the trace is given up: ")
    assert not tracing.journal.wants_trace(b"alice")
    assert not tracing.file.with_suffix(".elsewhere").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"a FETCH 1 BODY[]", "a FETCH 1 BODY[]"),
        (b"\x00\t\r\n\x1b[2J\x7f", "\\x00\\x09\\x0d\\x0a\\x1b[2J\\x7f"),
        ("jürgen\u2028".encode(), "j\\xc3\\xbcrgen\\xe2\\x80\\xa8"),
        (b"{user} %s", "{user} %s"),
    ],
)
def test_a39_printable(text: bytes, shown: str) -> None:
    """A traced line is ASCII, and nothing in it moves a terminal's cursor or begins another line."""
    assert printable(text) == shown
    assert printable(text).isprintable()


class Watching:
    """Somebody who watches a user."""

    def __init__(self, user: bytes) -> None:
        self.rows: list[dict[str, str | int | float | None]] = []
        self.tap = Tap(user, self.rows.append)


def test_taps() -> None:
    """Each line of a user's sessions goes to all who watch that user, as a row, and to nobody else."""
    alice, again, bob = Watching(b"alice"), Watching(b"alice"), Watching(b"bob")
    journal = Journal(taps=[watching.tap for watching in (alice, again, bob)])
    assert [journal.wants_trace(user) for user in (b"alice", b"bob", b"carol", b"")] == [True, True, False, False]
    journal.report(CLIENT, Traced(Side.CLIENT, b"a NOOP"), b"alice")
    journal.report(CLIENT, Traced(Side.UPSTREAM, b"* \x1b OK"), b"alice")
    journal.report(CLIENT, LoggedIn(b"bob", b"PLAIN"), b"bob")
    assert alice.rows == [
        {"session": "0123456789ab", "side": "client", "line": "a NOOP"},
        {"session": "0123456789ab", "side": "upstream", "line": "* \\x1b OK"},
    ]
    assert again.rows == alice.rows
    assert bob.rows == []


def test_taps_and_a_trace(tracing: Tracing) -> None:
    """A tap of another user writes nothing to the trace, and a trace that is given up ends no tap."""
    bob = Watching(b"bob")
    tracing.journal.taps.append(bob.tap)
    tracing.journal.report(CLIENT, Traced(Side.CLIENT, b"x"), b"bob")
    assert not tracing.file.exists()
    tracing.file.mkdir()
    with logged(module):
        tracing.say(b"y")
    tracing.journal.report(CLIENT, Traced(Side.CLIENT, b"z"), b"bob")
    assert [row["line"] for row in bob.rows] == ["x", "z"]
    tracing.journal.taps.remove(bob.tap)
    assert not tracing.journal.wants_trace(b"bob")


def test_the_next_journal_has_the_same_taps() -> None:
    """Who watches goes on watching when a reload makes another journal."""
    taps: list[Tap] = []
    earlier, later = Journal(taps=taps), Journal(taps=taps)
    earlier.taps.append(Watching(b"alice").tap)
    assert later.wants_trace(b"alice")
