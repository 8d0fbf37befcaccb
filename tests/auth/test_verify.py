"""Verifiers in order."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs, formatEvent

from imapgate.auth.verify import PASSWORDS, TOKENS, Chain, Identified, NotIdentified, Presented, Verifier
from imapgate.model.failure import ANSWERS, Failure
from imapgate.model.secret import Credentials, Secret
from tests.auth.presenting import CANARY, Outcome, presented

NO = NotIdentified(Failure.CREDENTIALS, "no")
OUTAGE = NotIdentified(Failure.TEMPORARY, "out of order", 3.0)
ALICE = Identified(b"alice")


class Told:
    """A verifier that says what it was told to say."""

    name = "told"

    def __init__(self, says: Identified | Exception, mechanisms: tuple[bytes, ...] = PASSWORDS) -> None:
        self.says = says
        self.mechanisms = mechanisms
        self.asked: list[Presented] = []

    async def identify(self, presented: Presented) -> Identified:
        """Say it."""
        self.asked.append(presented)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def ask(*verifiers: Verifier, of: Presented | None = None) -> Outcome:
    """Ask a chain of these verifiers."""
    return Outcome(Chain(verifiers, 256).identify(of or presented()))


def test_first_yes_wins() -> None:
    """The first verifier that says yes decides; those after it are not asked."""
    last = Told(NO)
    assert ask(Told(NO), Told(ALICE), last).identified == ALICE
    assert not last.asked


def test_all_refuse() -> None:
    """Nobody says yes: the credentials are wrong, and the longest wait of them all is held."""
    outcome = ask(Told(NO), Told(NotIdentified(Failure.CREDENTIALS, "never", 4.0)), Told(NO))
    assert outcome.refused
    assert outcome.refusal.wait == 4.0
    assert outcome.refusal.text == "no; never; no"


def test_outage_stops_the_search() -> None:
    """No user falls through an outage to a verifier that happens to say yes; one line of the log says it."""
    after = Told(ALICE)
    with capturedLogs() as events:
        outcome = ask(Told(NO), Told(OUTAGE), after)
    assert outcome.refusal is OUTAGE
    assert not after.asked
    assert [formatEvent(event) for event in events] == ["verifier told cannot tell: out of order session=0123456789ab"]


def test_unexpected_errors_are_outages() -> None:
    """Whatever a verifier raises is no verdict; its text, which may hold a secret, goes nowhere (A40)."""
    with capturedLogs() as events:
        outcome = ask(Told(KeyError(CANARY.decode())), Told(ALICE))
    assert outcome.temporary
    assert CANARY.decode() not in repr([event | {"text": formatEvent(event)} for event in events])
    assert outcome.refusal.__cause__ is None
    assert outcome.refusal.__suppress_context__


def test_cancellation_is_no_outage() -> None:
    """A login that is given up is not reported as anything."""

    class Slow(Told):
        async def identify(self, presented: Presented) -> Identified:
            await Deferred[None]()
            return ALICE

    with capturedLogs() as events:
        outcome = ask(Slow(ALICE))
        outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)
    assert not events


def test_a36_refusals_look_alike() -> None:
    """Whatever is wrong with a login, what is told of it is the same; the reason is for the log alone (A36)."""
    shown = [presented(), presented(authorisation=b"bob"), presented(b"a b"), presented(mechanism=b"XOAUTH2")]
    answers = {ANSWERS[ask(Told(NO), of=one).refusal.failure] for one in shown}
    assert answers == {(b"NO", b"AUTHENTICATIONFAILED", b"Authentication failed")}


def test_mechanisms() -> None:
    """A verifier is asked about its own mechanisms only; the chain has all of them, each once."""
    password, token = Told(ALICE), Told(ALICE, TOKENS)
    assert Chain([token, password, password], 256).mechanisms == PASSWORDS + TOKENS
    assert Chain([token], 256).mechanisms == TOKENS
    assert ask(password, token, of=presented(mechanism=b"XOAUTH2")).identified
    assert not password.asked
    assert ask(password, of=presented(mechanism=b"XOAUTH2")).refused


def test_foreign_authorisation_identity() -> None:
    """Nobody acts as somebody else, whatever a verifier would say; one's own name is no other (A38)."""
    verifier = Told(ALICE, PASSWORDS + TOKENS)
    outcome = ask(verifier, of=presented(authorisation=b"bob"))
    assert outcome.refused
    assert outcome.refusal.text == "a foreign authorisation identity"
    assert ask(verifier, of=presented(b"", b"token", b"bob", mechanism=b"OAUTHBEARER")).refused
    assert not verifier.asked
    assert ask(verifier, of=presented(authorisation=b"alice")).identified


@pytest.mark.parametrize(
    "shown",
    [
        presented(b"a b"),
        presented(b"a\r\nb"),
        presented(b"x" * 257),
        presented(b""),
        presented(b"\xff"),
        presented(password=b""),
        presented(password=b"a\0b"),
        presented(b"a b", mechanism=b"XOAUTH2"),
        presented(b"", b"", mechanism=b"XOAUTH2"),
    ],
)
def test_a38_unpresentable(shown: Presented) -> None:
    """Names that no user has, and empty passwords, are shown to no verifier (A38)."""
    verifier = Told(ALICE, PASSWORDS + TOKENS)
    assert ask(verifier, of=shown).refused
    assert not verifier.asked


def test_tokens_may_be_long_and_nameless() -> None:
    """A token is longer than any password, and may come without a name."""
    verifier = Told(ALICE, TOKENS)
    assert ask(verifier, of=presented(b"", b"x" * 6000, mechanism=b"OAUTHBEARER")).identified


@pytest.mark.parametrize(
    "said",
    [
        Identified(b""),
        Identified(b"a b"),
        Identified(b"x" * 257),
        Identified(b"alice", Credentials(b"alice", Secret(b""))),
        Identified(b"alice", Credentials(b"a\nb", Secret(b"pw"))),
        Identified(b"alice", Credentials(b"alice", Secret(b"pw"), b"bob")),
    ],
)
def test_a38_verifiers_name_users(said: Identified) -> None:
    """A verifier that names what is no user is out of order: nothing of it goes upstream (A38)."""
    assert ask(Told(said)).temporary


def test_secrets_are_redacted() -> None:
    """What was presented, and what replaces it, can be printed (A40)."""
    shown = presented()
    assert CANARY.decode() not in repr((shown, Identified(b"alice", shown.credentials)))
