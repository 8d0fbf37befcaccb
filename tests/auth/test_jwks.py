"""The keys of an issuer."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from imapgate.auth.jwks import AGAIN, BETWEEN, FRESH, KEPT, FileKeys, UrlKeys, parse
from imapgate.errors import ConfigurationError
from tests.auth.presenting import Outcome
from tests.auth.tokens import EC, OCT, OKP, RSA, key_set


class Page:
    """A response."""

    headers = Headers()

    def __init__(self, body: bytes, code: int = 200) -> None:
        self.code = code
        self._body = body

    def deliverBody(self, protocol: Any) -> None:
        """Deliver it whole."""
        protocol.dataReceived(self._body)
        protocol.connectionLost(Failure(ResponseDone()))


@implementer(IAgent)
class Issuer:
    """A web server that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._waiting: list[Deferred[Any]] = []

    def request(self, *arguments: Any) -> Deferred[IResponse]:
        """Take a question."""
        self.asked.append(arguments)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def answer(self, body: bytes, code: int = 200) -> None:
        """Answer the last one."""
        self._waiting[-1].callback(Page(body, code))


class Bench:
    """Keys at a URL, a clock, and who serves them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.issuer = Issuer()
        self.keys = UrlKeys(self.issuer, self.clock, "https://id.example.org/keys")

    def ask(self, kid: str | None = "rsa") -> Outcome:
        """Ask for a key."""
        return Outcome(self.keys.holding(kid))

    @property
    def fetches(self) -> int:
        """How often the set was fetched."""
        return len(self.issuer.asked)


@pytest.fixture
def bench() -> Bench:
    """Return a bench."""
    return Bench()


@pytest.fixture
def filled(bench: Bench) -> Bench:
    """Return a bench whose keys have been fetched once."""
    outcome = bench.ask()
    bench.issuer.answer(key_set(RSA))
    assert kids(outcome) == ["rsa"]
    return bench


def kids(outcome: Outcome) -> list[str | None]:
    """The names of the keys that came of it."""
    (keys,) = outcome.values
    return [key.kid for key in keys]


def test_set() -> None:
    """Keys to verify signatures with; all else is left out, as RFC 7517 §5 has it."""
    listed = json.loads(key_set(RSA, EC, OKP))["keys"]
    listed += json.loads(key_set(OCT, private=True))["keys"]  # a shared secret
    listed += [RSA.as_dict(private=False) | {"use": "enc", "kid": "enc"}]
    listed += [{"kty": "LWE", "kid": "new"}, {"kty": "RSA", "kid": "half"}, {"kid": "none"}, "nonsense", None, 7]
    assert [key.kid for key in parse(json.dumps({"keys": listed}).encode())] == ["rsa", "ec", "okp"]


@pytest.mark.parametrize(
    ("octets", "sentence"),
    [
        (b"", "this is no JSON Web Key Set"),
        (b"[]", "this is no JSON Web Key Set"),
        (b"{}", "this is no JSON Web Key Set"),
        (b'{"keys": 7}', "this is no JSON Web Key Set"),
        (b"\xff", "this is no JSON Web Key Set"),
        (b"[" * 50_000, "this is no JSON Web Key Set"),
        (b'{"keys": []}', "no key in it can verify a token"),
        (key_set(OCT, private=True), "no key in it can verify a token"),
    ],
)
def test_no_set(octets: bytes, sentence: str) -> None:
    """What is no set, or one without a usable key, is refused."""
    with pytest.raises(ConfigurationError) as raised:
        parse(octets)
    assert raised.value.problems == [sentence]


def test_file(tmp_path: Path) -> None:
    """Keys in a file are read again when it changes; a broken one changes nothing."""
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(RSA))
    keys = FileKeys(path)
    path.write_bytes(key_set(EC, OKP))
    assert kids(Outcome(keys.holding("rsa"))) == ["ec", "okp"]
    path.write_bytes(b"{}")
    with capturedLogs() as events:
        assert kids(Outcome(keys.holding("rsa"))) == ["ec", "okp"]
    assert len(events) == 1


def test_fetched_once(bench: Bench) -> None:
    """Many tokens at once need one fetch; it asks for nothing but the page."""
    outcomes = [bench.ask() for _ in range(5)]
    assert all(outcome.pending for outcome in outcomes)
    bench.issuer.answer(key_set(RSA, EC))
    assert [kids(outcome) for outcome in outcomes] == [["rsa", "ec"]] * 5
    assert bench.issuer.asked == [(b"GET", b"https://id.example.org/keys", Headers(), None)]
    assert not bench.clock.getDelayedCalls()


def test_cached(filled: Bench) -> None:
    """Known keys ask for nothing, until the set is an hour old."""
    filled.clock.advance(FRESH - 1)
    assert kids(filled.ask()) == ["rsa"]
    assert kids(filled.ask(None)) == ["rsa"]
    assert filled.fetches == 1
    filled.clock.advance(1)
    outcome = filled.ask()
    assert outcome.pending
    filled.issuer.answer(key_set(EC))
    assert kids(outcome) == ["ec"]


def test_unknown_key_is_looked_for(filled: Bench) -> None:
    """A key that is not there may be new: the set is fetched again, and serves."""
    filled.clock.advance(BETWEEN)
    outcome = filled.ask("ec")
    assert outcome.pending
    assert kids(filled.ask("rsa")) == ["rsa"]  # nobody waits for another's key
    filled.issuer.answer(key_set(RSA, EC))
    assert kids(outcome) == ["rsa", "ec"]


def test_unknown_keys_are_looked_for_seldom(filled: Bench) -> None:
    """However many keys are made up, the issuer is asked once a minute."""
    for second in range(600):
        outcome = filled.ask(f"made-up-{second}")
        if outcome.pending:
            filled.issuer.answer(key_set(RSA))
        assert kids(outcome) == ["rsa"]
        filled.clock.advance(1)
    assert filled.fetches == 1 + 600 // BETWEEN - 1


def test_who_goes_away_ends_no_fetch(bench: Bench) -> None:
    """A client that goes away neither ends the fetch that others wait for nor gains another one."""
    gone, other = bench.ask(), bench.ask()
    gone.deferred.cancel()
    assert other.pending
    for _ in range(10):
        bench.ask("made-up").deferred.cancel()
    assert bench.fetches == 1
    bench.issuer.answer(key_set(RSA))
    assert kids(other) == ["rsa"]


@pytest.mark.parametrize(("body", "code"), [(b"nonsense", 200), (key_set(EC), 500), (b"x" * (1 << 20 | 1), 200)])
def test_failing_fetch(bench: Bench, body: bytes, code: int) -> None:
    """Without keys there is no verdict; the issuer is asked again soon, not for every login; the log says why."""
    with capturedLogs() as events:
        outcome = bench.ask()
        bench.issuer.answer(body, code)
    assert outcome.temporary
    (told,) = (formatEvent(event) for event in events)
    assert told.startswith("key set https://id.example.org/keys: ")
    assert bench.ask().temporary
    assert bench.fetches == 1
    bench.clock.advance(AGAIN)
    outcome = bench.ask()
    bench.issuer.answer(key_set(RSA))
    assert kids(outcome) == ["rsa"]


def test_silent_issuer(bench: Bench) -> None:
    """A fetch has a time limit of its own."""
    outcome = bench.ask()
    bench.clock.advance(5)
    assert outcome.temporary


def test_old_set_serves_for_a_day(filled: Bench) -> None:
    """While the issuer is down the old keys are believed, but not for ever."""
    filled.clock.advance(FRESH)
    outcome = filled.ask()
    filled.issuer.answer(b"down", 503)
    assert kids(outcome) == ["rsa"]
    filled.clock.advance(KEPT - FRESH)
    outcome = filled.ask()
    filled.issuer.answer(b"down", 503)
    assert outcome.temporary
