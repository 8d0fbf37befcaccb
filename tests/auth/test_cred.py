"""The verifier that asks a checker of twisted.cred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import ANONYMOUS, ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginDenied, LoginFailed, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from imapgate.auth.cred import Cred, checker
from imapgate.errors import ConfigurationError
from tests.auth.presenting import CANARY, Outcome, presented


@implementer(ICredentialsChecker)
class Saying:
    """A checker that says what it was told to."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, says: Any) -> None:
        self.says = says
        self.shown: Any = None

    def requestAvatarId(self, credentials: Any) -> Any:
        """Say it."""
        self.shown = credentials
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def ask(says: Any, clock: Clock | None = None) -> Outcome:
    """Ask a checker that says so."""
    return Outcome(Cred(Saying(says), clock or Clock()).identify(presented()))


@pytest.mark.parametrize("says", [b"alice.a", "alice.a", succeed(b"alice.a")])
def test_yes(says: Any) -> None:
    """The avatar is the canonical name, whichever way it comes (A33)."""
    assert ask(says).identified.user == b"alice.a"


def test_what_is_shown() -> None:
    """A checker is shown user and password, can compare by itself, and cannot print them (A35, A40)."""
    saying = Saying(b"alice")
    Outcome(Cred(saying, Clock()).identify(presented()))
    assert (saying.shown.username, saying.shown.password) == (b"alice", CANARY)
    assert saying.shown.checkPassword(CANARY)
    assert saying.shown.checkPassword(CANARY.decode())
    assert not saying.shown.checkPassword(CANARY + b"x")
    assert CANARY.decode() not in repr(saying.shown)
    assert IUsernamePassword.providedBy(saying.shown)


@pytest.mark.parametrize("says", [UnauthorizedLogin(), fail(UnauthorizedLogin("no"))])
def test_no(says: Any) -> None:
    """UnauthorizedLogin is a verdict."""
    assert ask(says).refused


@pytest.mark.parametrize(
    "says",
    [
        KeyError(CANARY.decode()),
        fail(OSError(5, CANARY.decode())),
        LoginFailed("no"),
        LoginDenied("no"),
        ANONYMOUS,
        None,
        b"",
        True,
    ],
)
def test_all_else_is_an_outage(says: Any) -> None:
    """Whatever else a checker says or raises is no verdict, and its text goes nowhere (A40)."""
    outcome = ask(says)
    expected = isinstance(says, UnauthorizedLogin)
    assert outcome.refused is expected
    assert outcome.temporary is not expected


def test_time() -> None:
    """A checker that does not answer is an outage."""
    clock = Clock()
    outcome = ask(Deferred(), clock)
    clock.advance(10)
    assert outcome.temporary
    assert outcome.refusal.text == "no verdict within 10 s"


def test_given_up() -> None:
    """A login that is given up is neither."""
    outcome = ask(Deferred())
    outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)


def test_file_checker(tmp_path: Path) -> None:
    """Twisted's own file checker, by its description."""
    path = tmp_path / "passwd"
    path.write_bytes(b"alice:%b\n" % CANARY)
    cred = Cred(checker(f"file:{path}"), Clock())
    assert Outcome(cred.identify(presented())).identified.user == b"alice"
    assert Outcome(cred.identify(presented(password=b"wrong"))).refused
    assert Outcome(cred.identify(presented(b"bob"))).refused


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ("nothing:c4n4ry-p4ssw0rd", "there is no checker 'nothing'; twistd has those that its plugins bring"),
        ("anonymous", "the checker 'anonymous' takes no user and password"),
        ("memory:c4n4ry-p4ssw0rd", "the checker 'memory' cannot be made (InvalidAuthArgumentString)"),
    ],
)
def test_descriptions(description: str, sentence: str) -> None:
    """A description that makes no checker stops the start; what may be secret in it is not repeated (A40)."""
    with pytest.raises(ConfigurationError) as raised:
        checker(description)
    assert raised.value.problems == [sentence]
