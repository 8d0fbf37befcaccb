"""The gate is ended and started anew while clients come: none is refused, nothing acknowledged is lost (F16, F17)."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import ADMIN
from tests.integration.gate import Gate, toml, upstream_of
from tests.integration.servers import Dovecot, wait_until
from tests.integration.test_sockets import Handed
from tests.integration.wire import Wire, WireClosed, connect

NewUser = Callable[..., User]

SAMPLE, SOAK = 3, 20
RATE = 50.0
"""Connections a second."""
CALLERS = 25
"""Threads that make them."""
SHUTTING_DOWN = b"* BYE [UNAVAILABLE] The mail gateway is shutting down\r\n"


# -- clients at a steady rate -----------------------------------------------------------------------------------------


class Visits:
    """What clients met with, so far.

    :ivar done: the seconds of each visit that was made: greeted, logged in, a message fetched, logged out
    :ivar sent_away: what those saw that had to come again: the process that had greeted them was about to end
    :ivar failures: connections refused, reset, or ended without a word; commands that were not answered OK
    """

    def __init__(self) -> None:
        self.done: list[float] = []
        self.sent_away: list[bytes] = []
        self.failures: list[BaseException] = []

    def until_more(self, count: int) -> None:
        """Wait for so many more visits."""
        wanted = len(self.done) + count
        wait_until(lambda: len(self.done) >= wanted or self.failures, "visitors", 30)


@contextmanager
def visitors(port: int, user: User, rate: float = RATE) -> Iterator[Visits]:
    """Let clients come at a steady rate, each of which logs in and fetches; raises what went wrong with any."""
    visits = Visits()
    ended = threading.Event()

    def caller(number: int) -> None:
        due = time.monotonic() + number / rate
        while not (ended.wait(max(0.0, due - time.monotonic())) or visits.failures):
            due += CALLERS / rate
            began = time.monotonic()
            try:
                while not _visit(port, user, visits):
                    pass
            except BaseException as failure:
                visits.failures.append(failure)
            visits.done.append(time.monotonic() - began)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield visits
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    assert not visits.failures, visits.failures


def _visit(port: int, user: User, visits: Visits) -> bool:
    """Come once; False: sent away with a BYE in so many words, between two answers."""
    with connect("127.0.0.1", port, greeting=False) as wire:
        try:
            wire.greeting = wire.response()
            if wire.greeting.startswith(b"* OK "):
                wire.login(user.name, user.password)
                wire.ok(b"EXAMINE INBOX")
                assert user.name.encode() in wire.ok(b"FETCH 1 BODY[]")[0]
                wire.logout()
                return True
        except (WireClosed, OSError):
            wire.eof()  # what was said before the end may not be read yet
        seen = bytes(wire.transcript)
        assert seen.endswith(SHUTTING_DOWN), f"refused, or cut off: {seen[-200:]!r}"
        assert seen.count(b"* BYE") == 1
        visits.sent_away.append(seen)
        return False


@pytest.fixture
def reader(dovecot: Dovecot, user: NewUser) -> User:
    """A user with a message that says whose it is."""
    someone = user(dovecot)
    with someone.wire() as wire:
        wire.command_with_literals(b"APPEND INBOX", b"Subject: of " + someone.name.encode() + b"\r\n\r\nx\r\n")
    return someone


# -- --takeover -------------------------------------------------------------------------------------------------------


class Dynasty:
    """A gate whose process is followed by another one, again and again."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.gate.options = ["--takeover"]
        self._ended: list[subprocess.Popen[bytes]] = []

    def follow(self) -> subprocess.Popen[bytes]:
        """Start the next process, and wait until it serves; gives the one before, which may still drain."""
        before = self.gate.process
        assert before is not None
        self._ended.append(before)
        after = self.gate.spawn()
        self.gate.wait_log(rf"process {after.pid} has taken over\n", 30)
        return before

    def end(self) -> None:
        """End what is left of earlier processes."""
        for process in self._ended:
            if process.poll() is None:
                process.kill()
            process.wait(10)


@contextmanager
def dynasty(dovecot: Dovecot, **limits: str) -> Iterator[Dynasty]:
    """A running gate that can be followed."""
    tables: dict[str, Any] = {"auth": {"credential_cache": "60s"}, "admin": ADMIN}
    with Gate({"main": upstream_of(dovecot)}, authority=dovecot.authority, limits=limits, **tables) as gate:
        line = Dynasty(gate)
        try:
            yield line
        finally:
            line.end()


def _half_an_append(wire: Wire, body: bytes) -> None:
    """Begin an APPEND, and send half of its message."""
    wire.send(b"a APPEND INBOX {%d}\r\n" % len(body))
    wire.expect_continuation()
    wire.send(body[: len(body) // 2])


def _restarts(dovecot: Dovecot, user: NewUser, reader: User, count: int) -> None:
    residents = [user(dovecot) for _ in range(2)]
    with dynasty(dovecot) as line, visitors(line.gate.port, reader) as visits:
        port = line.gate.port
        for number in range(count):
            visits.until_more(10)
            with residents[0].wire(port) as idle, residents[1].wire(port) as busy:
                idle.ok(b"SELECT INBOX")
                idle.send(b"i IDLE\r\n")
                idle.expect_continuation()
                body = b"Subject: restart %d\r\n\r\n" % number + b"x" * 5000
                _half_an_append(busy, body)
                before = line.follow()
                # Whoever idles is told; a command in flight goes on, as long as it takes.
                assert idle.eof().endswith(SHUTTING_DOWN)  # behind an "OK Still here", perhaps
                assert busy.quiet(0.1)
                assert before.poll() is None
                busy.send(body[len(body) // 2 :] + b"\r\n")
                assert busy.until_tagged(b"a")[-1].startswith(b"a OK ")
                assert busy.eof() == SHUTTING_DOWN
            assert before.wait(30) == 0
        log = line.gate.log()
    assert "Traceback" not in log
    assert log.count("has taken over") == count
    with residents[1].wire() as wire:
        wire.ok(b"SELECT INBOX")
        found = b"".join(wire.ok(b"FETCH 1:* BODY[HEADER.FIELDS (SUBJECT)]"))
    assert sorted(map(int, re.findall(rb"restart ([0-9]+)", found))) == list(range(count))
    seconds = sorted(visits.done)
    print(
        f"\n{count} restarts: {len(seconds)} visits, 0 refused, {len(visits.sent_away)} sent on by the old process; "
        f"median {1000 * seconds[len(seconds) // 2]:.0f} ms, longest {1000 * seconds[-1]:.0f} ms"
    )


def test_f17_restarts_by_takeover(dovecot: Dovecot, user: NewUser, reader: User) -> None:
    """3 restarts at 50 connections a second: 0 refused; every client fetches; what is in flight is finished."""
    _restarts(dovecot, user, reader, SAMPLE)


@pytest.mark.soak
def test_f17_twenty_restarts_by_takeover(dovecot: Dovecot, user: NewUser, reader: User) -> None:
    """20 of them."""
    _restarts(dovecot, user, reader, SOAK)


@pytest.mark.parametrize("how", ["syntax", "a port that somebody has"])
def test_f17_a_newcomer_that_cannot_serve(dovecot: Dovecot, reader: User, how: str) -> None:
    """A newcomer with a bad configuration, or that cannot bind: the old one serves on, and can be followed later."""
    with dynasty(dovecot) as line, visitors(line.gate.port, reader) as visits:
        gate = line.gate
        good = gate.configuration_file.read_text()
        with reader.wire(gate.port) as resident:
            resident.ok(b"SELECT INBOX")
            old = gate.process
            bad = {"endpoint": f"tcp:{dovecot.port}:interface=127.0.0.1", "tls": "none"}
            gate.configure(good + ("\n[limits\n" if how == "syntax" else toml({"listener": [bad]})))
            newcomer = gate.spawn()
            assert newcomer.wait(30) == 1
            gate.process = old
            if how != "syntax":
                gate.wait_log(rf"cannot listen on tcp:{dovecot.port}")
                gate.wait_log(f"process {newcomer.pid} ended before it served; this one goes on")
            visits.until_more(30)
            assert not visits.sent_away
            resident.ok(b"NOOP")
            gate.configure(good)
            assert line.follow() is old
            assert resident.eof() == SHUTTING_DOWN
        assert old is not None
        assert old.wait(30) == 0
        visits.until_more(10)
        assert "Traceback" not in gate.log()


# -- sockets that systemd keeps ---------------------------------------------------------------------------------------


def _activations(dovecot: Dovecot, reader: User, count: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening, ExitStack() as stack:
        port = listening.getsockname()[1]
        gate = Handed([listening], "imap", ["systemd:domain=INET:index=0"], dovecot)
        stack.enter_context(gate)
        visits = stack.enter_context(visitors(port, reader, RATE / 2))
        for _ in range(count):
            visits.until_more(2 * CALLERS)  # all who have waited, and some more
            assert gate.stop() == 0
            gate.start()
        visits.until_more(10)
        assert "Traceback" not in gate.log()
    print(
        f"\n{count} activations: {len(visits.done)} visits, 0 refused, {len(visits.sent_away)} sent on; "
        f"the longest took {max(visits.done):.2f} s"
    )


def test_f17_restarts_by_systemd(dovecot: Dovecot, reader: User) -> None:
    """Ended and started 3 times with a socket that systemd keeps: 0 refused; who comes meanwhile waits."""
    _activations(dovecot, reader, SAMPLE)


@pytest.mark.soak
def test_f17_twenty_restarts_by_systemd(dovecot: Dovecot, reader: User) -> None:
    """20 of them."""
    _activations(dovecot, reader, SOAK)


# -- acknowledgements (F16) -------------------------------------------------------------------------------------------

APPENDERS = 20
MOST_MESSAGES = 500
"""Of each."""


class Appender:
    """A client that appends one message after the other until it is told to go.

    :ivar acknowledged: the numbers of those whose APPEND it saw OK for; `asked`: of all that it began
    """

    def __init__(self, wire: Wire, number: int, numbers: Iterator[int]) -> None:
        self.acknowledged: list[int] = []
        self.asked: list[int] = []
        self.last = b""
        self._wire = wire
        self._plus = b"+" if number % 2 else b""
        self._numbers = numbers

    def run(self) -> None:
        """Append until the end of the connection."""
        with suppress(WireClosed, OSError):
            for _ in range(MOST_MESSAGES):
                self._append(next(self._numbers))
        self._wire.eof()  # what was said before the end may not be read yet
        self.last = bytes(self._wire.transcript).rstrip(b"\r\n").rpartition(b"\r\n")[2]

    def _append(self, number: int) -> None:
        body = b"Subject: message-%d.\r\n\r\n" % number + b"x" * 3000
        self.asked.append(number)
        self._wire.send(b"a%d APPEND INBOX {%d%b}\r\n" % (number, len(body), self._plus))
        if not self._plus and not self._wire.response().startswith(b"+"):
            raise WireClosed("no +")
        self._wire.send(body + b"\r\n")
        if not self._wire.response().startswith(b"a%d OK " % number):
            raise WireClosed("no OK")
        self.acknowledged.append(number)


@pytest.mark.parametrize("how", ["sigterm", "takeover", "kill"])
@pytest.mark.parametrize("mode", ["session", "mailbox"])
def test_f16_no_acknowledgement_is_lost(dovecot: Dovecot, user: NewUser, mode: str, how: str) -> None:
    """20 clients append when the gate is ended: every OK is stored, once; whoever hears no OK hears BYE.

    (Not when the gate is killed: then each OK that was seen is stored all the same.)
    """
    users = [user(dovecot) for _ in range(4)]
    tables: dict[str, Any] = {"auth": {"credential_cache": "60s"}, "admin": ADMIN}
    table = upstream_of(dovecot, pool_mode=mode, pool_size=10)
    numbers = itertools.count(1)
    with ExitStack() as stack:
        gate = stack.enter_context(Gate({"main": table}, authority=dovecot.authority, **tables))
        line = Dynasty(gate)
        stack.callback(line.end)
        wires = [stack.enter_context(users[n % len(users)].wire(gate.port)) for n in range(APPENDERS)]
        appenders = [Appender(wire, n, numbers) for n, wire in enumerate(wires)]
        threads = [threading.Thread(target=each.run) for each in appenders]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(len(each.acknowledged) >= 3 for each in appenders), "three messages of each", 60)
        process = gate.process
        assert process is not None
        began = time.monotonic()
        if how == "takeover":
            assert line.follow() is process
        else:
            gate.signal(signal.SIGTERM if how == "sigterm" else signal.SIGKILL)
        for thread in threads:
            thread.join(60)
        assert process.wait(40) == (-signal.SIGKILL if how == "kill" else 0)
        seconds = time.monotonic() - began
        assert "Traceback" not in gate.log()
    wait_until(lambda: not any(dovecot.session_pids(each.name) for each in users), "the end of all sessions")
    stored: Counter[int] = Counter()
    for someone in users:
        with someone.wire() as wire:
            wire.ok(b"SELECT INBOX")
            for response in wire.ok(b"FETCH 1:* (RFC822.SIZE BODY[HEADER.FIELDS (SUBJECT)])"):
                if found := re.search(rb"message-([0-9]+)\.", response):
                    stored[int(found[1])] += 1
    acknowledged = [number for each in appenders for number in each.acknowledged]
    assert len(acknowledged) >= 3 * APPENDERS
    assert not [number for number in acknowledged if stored[number] != 1]
    assert not [number for number, count in stored.items() if count > 1]
    assert stored.keys() <= {number for each in appenders for number in each.asked}
    unknown = len(stored) - len(acknowledged)
    if how != "kill":
        assert {each.last for each in appenders} == {SHUTTING_DOWN.rstrip()}
        assert unknown == 0, "what was stored was also acknowledged"
    print(
        f"\n{mode}, {how}: {len(acknowledged)} acknowledged, all stored; "
        f"{unknown} stored without; over after {seconds:.2f} s"
    )
