"""An upstream that stands still (SIGSTOP): whoever waits for it is told in time, and nobody else notices (F6)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.bed import last_line
from tests.integration.conftest import User
from tests.integration.gate import Gate, upstream_of
from tests.integration.servers import CertificateAuthority, Dovecot, wait_until
from tests.integration.wire import connect, quoted

NewUser = Callable[..., User]

LIMITS = {"upstream_first_byte": "1s", "upstream_first_byte_slow": "1s", "connect_try": "500ms", "connect_total": "1s"}
OTHERS = 5
"""Clients that go on, each of another user."""
TURNS = 40
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "session": {"auth": {"credential_cache": "60s"}},
    "mailbox": {"auth": {"credential_cache": "60s"}},
}


class Work:
    """What the others do: each one logs in, and again and again selects, fetches, stores and asks.

    :ivar completed: the seconds of each command that was answered OK, in the order of their ends
    """

    COMMANDS = (b"SELECT INBOX", b"FETCH 1 (FLAGS BODY.PEEK[])", b"STORE 1 +FLAGS (\\Seen)", b"NOOP", b"UNSELECT")

    def __init__(self, port: int, users: Sequence[User]) -> None:
        self.completed: list[float] = []
        self.failures: list[BaseException] = []
        self._port = port
        self._started = threading.Barrier(len(users) + 1)
        self._threads = [threading.Thread(target=self._run, args=(user,)) for user in users]

    def start(self) -> None:
        """Begin; returns when all have logged in."""
        for thread in self._threads:
            thread.start()
        self._started.wait(30)

    def join(self) -> None:
        """Wait until all have finished; raises what went wrong with any."""
        for thread in self._threads:
            thread.join(60)
        if self.failures:
            raise self.failures[0]

    def _run(self, user: User) -> None:
        try:
            with user.wire(self._port) as wire:
                self._started.wait(30)
                for _ in range(TURNS):
                    for command in self.COMMANDS:
                        began = time.monotonic()
                        wire.ok(command)
                        self.completed.append(time.monotonic() - began)
                wire.logout()
        except BaseException as failure:
            self.failures.append(failure)
            self._started.abort()


def work(port: int, users: Sequence[User]) -> Work:
    """Let these users work."""
    begun = Work(port, users)
    begun.start()
    return begun


def p99(seconds: Sequence[float]) -> float:
    """The 99th percentile, in milliseconds."""
    return 1000 * sorted(seconds)[int(len(seconds) * 0.99)]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """How long an upstream connection is one client's."""
    return str(request.param)


@pytest.fixture
def others(dovecot: Dovecot, user: NewUser) -> list[User]:
    """Users with a message each."""
    users = [user(dovecot) for _ in range(OTHERS)]
    for someone in users:
        with someone.wire() as wire:
            assert b" OK " in wire.command_with_literals(b"APPEND INBOX", b"Subject: x\r\n\r\n" + b"x" * 2000)[-1]
    return users


@contextmanager
def stopped(server: Dovecot, pids: Sequence[int]) -> Iterator[None]:
    """Let these processes stand still."""
    server.signal(signal.SIGSTOP, pids)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT, pids)


def _pool_mode(mode: str) -> str:
    return "session" if mode == "plain" else mode


def test_f6_one_session_stands_still(dovecot: Dovecot, user: NewUser, others: list[User], mode: str) -> None:
    """One user's server process is stopped: BYE when the limit is over; the others complete 1,000 of 1,000 commands."""
    someone = user(dovecot)
    table = upstream_of(dovecot, pool_mode=_pool_mode(mode))
    with Gate({"main": table}, authority=dovecot.authority, limits=LIMITS, **MODES[mode]) as gate:
        before = work(gate.port, others)
        before.join()
        with someone.wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
            wait_until(lambda: dovecot.session_pids(someone.name), "the process")
            with stopped(dovecot, dovecot.session_pids(someone.name)):
                wire.send(b"c CHECK\r\n")
                during = work(gate.port, others)
                began = time.monotonic()
                answer = wire.eof()
                seconds = time.monotonic() - began
                during.join()
        assert last_line(answer).startswith(b"* BYE [UNAVAILABLE]")
        assert answer.count(b"\r\n") == 1
        assert len(before.completed) == len(during.completed) == OTHERS * TURNS * len(Work.COMMANDS)
        assert "Traceback" not in gate.log()
        with someone.wire(gate.port) as wire:  # on a connection that works
            wire.ok(b"SELECT INBOX")
    print(
        f"\n{mode}: told after {seconds:.2f} s of 1; "
        f"the others' p99: {p99(before.completed):.1f} ms before, {p99(during.completed):.1f} ms meanwhile"
    )


def test_f6_a_whole_server_stands_still(
    dovecot: Dovecot, user: NewUser, others: list[User], authority: CertificateAuthority, mode: str
) -> None:
    """One of two upstreams is stopped: its users are told, in a session and before; the others complete 1,000 of 1,000.

    When it goes on its users log in, on the connection on which they were told to wait.
    """
    with Dovecot(authority) as another:
        there = [User(another, f"stopped{number}", "correct horse") for number in range(3)]
        for someone in there:
            another.add_user(someone.name, someone.password)
        tables = {
            "main": upstream_of(dovecot, pool_mode=_pool_mode(mode)),
            "other": upstream_of(another, pool_mode=_pool_mode(mode)),
        }
        routing = {"default": "main"}
        rules: dict[str, Any] = {"routing": routing | {"rule": [{"user": ["stopped*"], "upstream": "other"}]}}
        with Gate(tables, authority=authority, limits=LIMITS, **rules, **MODES[mode]) as gate:
            selected, fresh = (connect(gate.host, gate.port) for _ in range(2))
            selected.login(there[0].name, there[0].password)
            selected.ok(b"SELECT INBOX")
            with stopped(another, another.pids()):
                login = b"LOGIN " + quoted(there[1].name) + b" " + quoted(there[1].password)
                fresh.send(b"l " + login + b"\r\n")
                selected.send(b"c CHECK\r\n")
                during = work(gate.port, others)
                assert last_line(selected.eof()).startswith(b"* BYE [UNAVAILABLE]")
                assert fresh.until_tagged(b"l")[-1].startswith(b"l NO [UNAVAILABLE]")
                during.join()
            assert len(during.completed) == OTHERS * TURNS * len(Work.COMMANDS)
            fresh.ok(login)
            fresh.ok(b"SELECT INBOX")
            for someone in there:
                with someone.wire(gate.port) as wire:
                    wire.ok(b"SELECT INBOX")
            fresh.close()
            selected.close()
            assert "Traceback" not in gate.log()
