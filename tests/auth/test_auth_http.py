"""The verifier that asks a web server: every dialogue of auth_http.toml, and what is around them."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from imapgate.auth.http import AuthHttp, escaped
from imapgate.auth.verify import Chain
from imapgate.errors import ConfigurationError
from imapgate.model.secret import Secret
from imapgate.web import persistent_agent
from tests.auth.presenting import CANARY, REACTOR, Outcome, presented

TIMEOUT = 5.0
DIALOGUES = tomllib.loads(Path(__file__).with_name("auth_http.toml").read_text("utf-8"))["dialogue"]


class Hasty(Clock):
    """A clock on which sleep is over at once, and only a time-out has to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def callLater(self, delay: float, *arguments: Any, **keywords: Any) -> IDelayedCall:
        """Call later, or rather soon."""
        if delay == TIMEOUT:
            return super().callLater(delay, *arguments, **keywords)
        self.slept.append(delay)
        soon: IDelayedCall = REACTOR.callLater(0, *arguments, **keywords)
        return soon


@implementer(IAgent)
class Heard:
    """An agent that says when headers have come."""

    def __init__(self, agent: IAgent, heard: Callable[[], None]) -> None:
        self._agent = agent
        self._heard = heard

    def request(self, *arguments: Any) -> Deferred[IResponse]:
        """Ask the agent."""
        return self._agent.request(*arguments).addCallback(self._tell)

    def _tell(self, response: IResponse) -> IResponse:
        REACTOR.callLater(0, self._heard)
        return response


class Question(NamedTuple):
    """What the script was asked."""

    line: tuple[bytes, bytes]
    headers: Headers
    body: bytes
    port: int


class Script(Resource):
    """Gives its answers in turn, and keeps the questions."""

    isLeaf = True

    def __init__(self, answers: list[dict[str, Any]], silence: Callable[[], None]) -> None:
        super().__init__()
        self.answers = answers
        self.questions: list[Question] = []
        self._silence = silence

    def render_GET(self, request: Any) -> bytes | int:
        """Give the next answer."""
        line, peer = (request.method, request.uri), request.getClientAddress()
        self.questions.append(Question(line, request.requestHeaders, request.content.read(), peer.port))
        answer = self.answers[len(self.questions) - 1]
        if answer.get("silent") is True:
            self._silence()
            return NOT_DONE_YET
        if "raw" in answer:
            request.channel.transport.write(answer["raw"].encode())
            request.channel.transport.loseConnection()
            return NOT_DONE_YET
        request.setResponseCode(answer.get("status", 200))
        for header in answer.get("headers", ()):
            name, _, value = header.partition(":")
            request.responseHeaders.addRawHeader(name, value)
        if octets := answer.get("header_octets"):
            request.responseHeaders.addRawHeader("X-Long", b"x" * octets)
        if answer.get("silent") == "body":
            request.write(b"begun")
            return NOT_DONE_YET
        body: bytes = answer.get("body", "x" * answer.get("body_octets", 0)).encode()
        return body


def shown(dialogue: dict[str, Any]) -> Any:
    """What the dialogue's client presents."""
    changes = dict(dialogue.get("presented", {}))
    for name in ("user", "password", "mechanism"):
        if name in changes:
            changes[name] = changes[name].encode()
    if changes.get("address") == "":
        changes["address"] = None
    return presented(**changes)


async def closed(port: Any, pool: Any) -> None:
    """Stop the server, and the connections to it."""
    await pool.closeCachedConnections()
    await port.stopListening()


async def play(answers: list[dict[str, Any]], options: dict[str, Any], shown: list[Any]) -> tuple[Script, Hasty, Any]:
    """Ask the script for each of what is shown; return the script, the clock and what came of it."""
    clock = Hasty()
    script = Script(answers, lambda: clock.advance(TIMEOUT))
    port = REACTOR.listenTCP(0, Site(script), interface="127.0.0.1")
    agent, pool = persistent_agent(REACTOR, _no_tls)
    options = options | {
        "headers": {name: Secret(value.encode()) for name, value in options.get("headers", {}).items()}
    }
    url = f"http://127.0.0.1:{port.getHost().port}/auth?of=imap"

    def heard() -> None:
        if answers[len(script.questions) - 1].get("silent") == "body":
            clock.advance(TIMEOUT)

    verifier = AuthHttp(Heard(agent, heard), clock, url, timeout=TIMEOUT, **options)
    outcomes = []
    try:
        for one in shown:
            outcome = Outcome(verifier.identify(one))
            outcomes.append(outcome)
            await outcome.deferred.addTimeout(30, REACTOR)
    finally:
        await closed(port, pool)
    return script, clock, outcomes


def _no_tls(host: str) -> Any:
    raise AssertionError(f"TLS to {host}")


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue["name"].replace(" ", "_"))
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_dialogue(dialogue: dict[str, Any]) -> None:
    """One dialogue: the question, the verdict, and for how long somebody waits."""
    slept = dialogue.get("slept", [])
    answers = dialogue["answers"]
    logins = len(answers) - len(slept) or 1
    script, clock, outcomes = await play(answers, dialogue.get("options", {}), [shown(dialogue)] * logins)
    assert clock.slept == slept
    assert not clock.getDelayedCalls()
    assert len(script.questions) == len(answers)
    for question in script.questions:
        assert question.line == (b"GET", b"/auth?of=imap")
        assert not question.body
        for name, value in dialogue.get("question", {}).items():
            assert question.headers.getRawHeaders(name.encode(), []) == ([value.encode()] if value else [])
    for outcome in outcomes:
        judged(dialogue, outcome)


def judged(dialogue: dict[str, Any], outcome: Outcome) -> None:
    """See that this is what the dialogue comes to."""
    if (expected := dialogue.get("identified")) is not None:
        user, credentials, redirect = outcome.identified
        assert user == expected["user"].encode()
        assert (redirect and redirect.host) == expected.get("server")
        assert (redirect and redirect.port) == expected.get("port")
        if "password" in expected:
            assert credentials is not None
            assert credentials.user == user
            assert credentials.password.reveal() == expected["password"].encode()
            assert credentials.authorisation == b""
        else:
            assert credentials is None
    else:
        assert outcome.refused if "refused" in dialogue else outcome.temporary
        assert dialogue.get("refused", dialogue.get("temporary", "")) in outcome.refusal.text
        assert len(outcome.refusal.text) < 220
        assert outcome.refusal.wait == dialogue.get("waits", 0)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_connection_is_kept() -> None:
    """One connection to the server serves one login after the other."""
    yes = {"headers": ["Auth-Status: OK"], "body": "hello"}
    script, _, outcomes = await play([yes] * 5, {}, [presented()] * 5)
    assert all(outcome.identified for outcome in outcomes)
    assert len({question.port for question in script.questions}) == 1


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_nobody_there() -> None:
    """A server that is not there is an outage, and said so once, with the reason."""
    port = REACTOR.listenTCP(0, Site(Resource()), interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/"
    await port.stopListening()
    agent, _ = persistent_agent(REACTOR, _no_tls)
    with capturedLogs() as events:
        outcome = Outcome(Chain([AuthHttp(agent, Clock(), url)], 256).identify(presented()))
        await outcome.deferred.addTimeout(30, REACTOR)
    assert outcome.temporary
    told = [formatEvent(event) for event in events if event["log_namespace"] == "imapgate"]
    assert told == [f"verifier http cannot tell: {outcome.refusal.text} session=0123456789ab"]
    assert "onnection was refused" in told[0]


def test_escapes() -> None:
    """Every octet: the control characters, the space and the percent sign are escaped, and nothing else."""
    for octet in range(256):
        value = bytes([octet])
        assert escaped(value) == (b"%%%02X" % octet if octet <= 0x20 or value == b"%" else value)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("X Auth", b"k3y", "this is no header's name"),
        ("", b"k3y", "this is no header's name"),
        ("auth-user", b"k3y", "this header is the protocol's own"),
        ("Client-IP", b"k3y", "this header is the protocol's own"),
        ("host", b"k3y", "this header is the protocol's own"),
        ("Transfer-Encoding", b"k3y", "this header is the protocol's own"),
        ("X-Key", b"k3y\r\nAuth-User: bob", "its value holds control characters"),
    ],
)
def test_headers(name: str, value: bytes, sentence: str) -> None:
    """A header that would change the question is refused at the start; its value is not repeated (A40)."""
    with pytest.raises(ConfigurationError) as raised:
        AuthHttp(persistent_agent(REACTOR, _no_tls)[0], Clock(), "http://h/", headers={name: Secret(value)})
    assert raised.value.problems == [f"header {name!r}: {sentence}"]


def test_canary_is_in_no_repr() -> None:
    """Neither the verifier nor what it keeps shows a secret (A40)."""
    verifier = AuthHttp(persistent_agent(REACTOR, _no_tls)[0], Clock(), "http://h/", headers={"X-Key": Secret(CANARY)})
    assert CANARY.decode() not in repr(vars(verifier))
