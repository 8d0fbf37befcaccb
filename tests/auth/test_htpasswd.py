"""The verifier that reads an htpasswd file."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import capturedLogs
from twisted.python.threadpool import ThreadPool

from imapgate.auth import htpasswd
from imapgate.auth.htpasswd import Htpasswd, parse
from imapgate.errors import ConfigurationError
from tests.auth.presenting import CANARY, REACTOR, Outcome, presented

HASH = bcrypt.hashpw(CANARY, bcrypt.gensalt(4))


class Threads:
    """Threads that begin when they are told to, and what they were given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Take a call."""
        done: Deferred[Any] = Deferred()
        self.calls.append((done, function, arguments))
        return done

    def finish(self) -> None:
        """Let the one that began first finish."""
        done, function, arguments = self.calls.pop(0)
        maybeDeferred(function, *arguments).chainDeferred(done)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one user."""
    path = tmp_path / "users.htpasswd"
    path.write_bytes(b"# users\n\nalice:%b\n" % HASH)
    return path


def verifier(path: Path) -> Htpasswd:
    """A verifier whose threads are quick."""
    return Htpasswd(path, maybeDeferred)


def test_password(path: Path) -> None:
    """The right password is right, and no other; names count to the letter (A33)."""
    file = verifier(path)
    assert Outcome(file.identify(presented())).identified.user == b"alice"
    assert Outcome(file.identify(presented(password=CANARY + b"."))).refused
    assert Outcome(file.identify(presented(b"bob"))).refused
    assert Outcome(file.identify(presented(b"Alice"))).refused


@pytest.mark.parametrize("scheme", [b"2a", b"2b", b"2y"])
def test_schemes(path: Path, scheme: bytes) -> None:
    """The three names of bcrypt are one; a field behind the hash is nothing."""
    path.write_bytes(b"alice:$%b%b:a comment\r\n" % (scheme, HASH[3:]))
    assert Outcome(verifier(path).identify(presented())).identified


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"alice:$apr1$x$0123456789abcdefghijkl", "the hash is not bcrypt; set the password again by htpasswd -B"),
        (b"alice:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=", "the hash is not bcrypt"),
        (b"alice:rqXexS6ZhobKA", "the hash is not bcrypt"),
        (b"alice:$6$salt$hash", "the hash is not bcrypt"),
        (b"alice:$2x" + HASH[3:], "the hash is not bcrypt"),
        (b"alice:" + HASH[:-1], "the hash is not bcrypt"),
        (b"alice:$2b$32$" + HASH[7:], "the hash is not bcrypt"),
        (b"alice:$2b$17$" + HASH[7:], "the cost of 17 is more than 16"),
        (b"alice", "expected USER:HASH"),
        (b":" + HASH, "expected USER:HASH"),
        (b"alice:%b\nalice:%b" % (HASH, HASH), "line 3: this user has a line already"),
    ],
)
def test_refused_lines(line: bytes, sentence: str) -> None:
    """What cannot be verified is refused when it is read, by line; no hash is repeated (A40)."""
    with pytest.raises(ConfigurationError) as raised:
        parse(b"# comment\n" + line)
    (problem,) = raised.value.problems
    assert problem.startswith("line ")
    assert sentence in problem
    assert line.partition(b":")[2].decode() not in problem or b":" not in line


def test_changed_password(path: Path) -> None:
    """After a change the old password fails at once (A34)."""
    file = verifier(path)
    assert Outcome(file.identify(presented())).identified
    path.write_bytes(b"alice:%b\n" % bcrypt.hashpw(b"new", bcrypt.gensalt(4)))
    assert Outcome(file.identify(presented())).refused
    assert Outcome(file.identify(presented(password=b"new"))).identified


def test_broken_change(path: Path) -> None:
    """A file that is broken while serving leaves everybody as they were."""
    file = verifier(path)
    path.write_bytes(b"alice:plain\n")
    with capturedLogs() as events:
        assert Outcome(file.identify(presented())).identified
    assert len(events) == 1


def test_a35_unknown_users_cost_the_same(path: Path) -> None:
    """A name that is not there is verified all the same, at the cost of those that are (A35)."""
    path.write_bytes(b"".join(b"user%d:$2b$05$%b\n" % (number, HASH[7:]) for number in range(20)))
    threads = Threads()
    file = Htpasswd(path, threads)
    outcome = Outcome(file.identify(presented(b"nobody")))
    _, function, (password, hashed) = threads.calls[0]
    assert function is bcrypt.checkpw
    assert password == CANARY
    assert hashed.startswith(b"$2b$05$")
    threads.finish()
    assert outcome.refused


def test_a35_costs_are_shared_out(path: Path) -> None:
    """Where a file has several costs, unknown names have them as often as users do, each name always the same (A35)."""
    lines = [b"user%d:$2b$%02d$%b\n" % (number, 4 if number % 4 else 6, HASH[7:]) for number in range(100)]
    path.write_bytes(b"".join(lines))
    table = parse(path.read_bytes())
    unknown = [b"unknown%d" % number for number in range(2000)]
    costs = [table.get(name)[0][4:6] for name in unknown]
    assert costs == [table.get(name)[0][4:6] for name in unknown]
    assert set(costs) == {b"04", b"06"}
    assert 300 < costs.count(b"06") < 700


def test_a35_stand_in_is_nobodys(path: Path) -> None:
    """Even a password that fitted the stand-in would let no unknown user in (A35)."""
    path.write_bytes(b"")
    file = Htpasswd(path, lambda function, *arguments: maybeDeferred(lambda: True))
    assert Outcome(file.identify(presented())).refused
    assert bcrypt.checkpw(CANARY, parse(b"alice:" + HASH).get(b"bob")[0]) is False


def test_long_passwords(path: Path) -> None:
    """Bcrypt counts 72 octets; more are no error."""
    path.write_bytes(b"alice:%b\n" % bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)))
    file = verifier(path)
    assert Outcome(file.identify(presented(password=b"x" * 100))).identified
    assert Outcome(file.identify(presented(password=b"x" * 71))).refused


def test_few_at_once(path: Path) -> None:
    """Only so many verifications run at a time; the others wait for their turn."""
    threads = Threads()
    file = Htpasswd(path, threads, at_once=2)
    outcomes = [Outcome(file.identify(presented())) for _ in range(5)]
    assert len(threads.calls) == 2
    for _ in range(5):
        threads.finish()
    assert all(outcome.identified for outcome in outcomes)


def test_queue_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of logins is told to come again, and keeps no memory."""
    monkeypatch.setattr(htpasswd, "WAITING_MOST", 3)
    threads = Threads()
    file = Htpasswd(path, threads, at_once=1)
    outcomes = [Outcome(file.identify(presented())) for _ in range(6)]
    assert [outcome.pending for outcome in outcomes] == [True] * 4 + [False] * 2
    assert outcomes[-1].temporary


def test_clients_that_go_free_no_thread(path: Path) -> None:
    """A login that is given up counts until its thread is done: going away gains nobody more threads."""
    threads = Threads()
    file = Htpasswd(path, threads, at_once=1)
    gone, waiting, patient = (Outcome(file.identify(presented())) for _ in range(3))
    gone.deferred.cancel()
    waiting.deferred.cancel()
    assert len(threads.calls) == 1
    assert patient.pending
    threads.finish()
    threads.finish()
    assert patient.identified


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_real_threads(path: Path) -> None:
    """In threads of a pool, as it is used."""
    pool = ThreadPool(0, 2)
    pool.start()
    try:
        file = Htpasswd(path, partial(deferToThreadPool, REACTOR, pool), at_once=2)
        passwords = [CANARY, b"wrong", CANARY, b"wrong"]
        outcomes = [Outcome(file.identify(presented(password=password))) for password in passwords]
        for outcome in outcomes:
            await outcome.deferred.addTimeout(30, REACTOR)
    finally:
        pool.stop()
    assert [bool(outcome.values) for outcome in outcomes] == [True, False, True, False]


def test_failing_thread(path: Path) -> None:
    """An error in the thread is told to the one who asked, and frees the place."""
    calls: list[Callable[..., Any]] = []

    def fail(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        calls.append(function)
        return maybeDeferred(bcrypt.checkpw, b"x", b"no hash")

    file = Htpasswd(path, fail, at_once=1)
    for _ in range(3):
        assert isinstance(Outcome(file.identify(presented())).errors[0], ValueError)
    assert len(calls) == 3
