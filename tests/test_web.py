"""Small questions to web servers: what ends them, and to whom they are put."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import Request
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from imapgate.net.tls import ServerCertificates, client_creator
from imapgate.web import Answer, Unanswered, get, persistent_agent
from tests.auth.presenting import CANARY, REACTOR, Outcome
from tests.net.test_tls import Issued


class Half:
    """A response of which the headers are there, and of the body what :meth:`send` brings."""

    code = 200
    headers = Headers()

    def __init__(self) -> None:
        self.protocol: Any = None
        self.closed = 0

    def deliverBody(self, protocol: Any) -> None:
        """Begin."""
        self.protocol = protocol
        protocol.makeConnection(self)

    def loseConnection(self) -> None:
        """Count it."""
        self.closed += 1


@implementer(IAgent)
class Fake:
    """An agent that answers with one thing."""

    def __init__(self, answer: Deferred[Any]) -> None:
        self._answer = answer

    def request(self, *arguments: object) -> Deferred[IResponse]:
        """Answer."""
        return self._answer


def ask(answer: Deferred[Any], clock: Clock | None = None) -> Outcome:
    """Ask an agent that answers so."""
    return Outcome(get(Fake(answer), clock or Clock(), b"http://h/", Headers(), seconds=5, most=10))


def test_body() -> None:
    """The answer is there when its body is, whichever pieces it comes in."""
    half = Half()
    outcome = ask(succeed(half))
    for piece in (b"hello ", b"you."):
        half.protocol.dataReceived(piece)
    assert outcome.pending
    half.protocol.connectionLost(Failure(ResponseDone()))
    assert outcome.values == [Answer(200, half.headers, b"hello you.")]
    assert not half.closed


def test_oversized_body() -> None:
    """One octet too many ends it at once, and what still comes is dropped."""
    half = Half()
    outcome = ask(succeed(half))
    half.protocol.dataReceived(b"12345678901")
    half.protocol.dataReceived(b"more")
    assert str(outcome.errors[0]) == "its answer is longer than 10 octets"
    assert half.closed == 1
    half.protocol.connectionLost(Failure(ResponseDone()))
    assert len(outcome.errors) == 1


def test_time() -> None:
    """The time is for the whole answer, not for each octet of it; no timer is left behind."""
    clock = Clock()
    half = Half()
    outcome = ask(succeed(half), clock)
    for _ in range(4):
        clock.advance(1)
        half.protocol.dataReceived(b"x")
    assert outcome.pending
    clock.advance(1)
    assert str(outcome.errors[0]) == "no answer within 5 s"
    assert half.closed == 1
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    "raised",
    [CancelledError(), ConnectingCancelledError(None), ResponseNeverReceived([Failure(CancelledError())])],
)
def test_time_before_headers(raised: Exception) -> None:
    """However the agent puts it, a question that took too long took too long."""
    clock = Clock()
    asked: Deferred[Any] = Deferred(lambda deferred: deferred.errback(raised))
    outcome = ask(asked, clock)
    clock.advance(5)
    assert str(outcome.errors[0]) == "no answer within 5 s"


@pytest.mark.parametrize(
    "raised",
    [CancelledError(), ConnectingCancelledError(None), ResponseNeverReceived([Failure(CancelledError())])],
)
def test_given_up(raised: Exception) -> None:
    """A question that is given up is not an outage; the connection is."""
    outcome = ask(Deferred(lambda deferred: deferred.errback(raised)))
    outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)
    half = Half()
    outcome = ask(succeed(half))
    outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)
    assert half.closed == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError("111"), "Connection was refused by other side: 111."),
        (ValueError(CANARY.decode()), "no usable answer (ValueError)"),
        (ResponseFailed([Failure(ValueError(CANARY.decode()))]), "no usable answer (ValueError)"),
    ],
)
def test_errors(error: Exception, text: str) -> None:
    """What went wrong is said, but no text that may repeat a secret (A40)."""
    outcome = ask(fail(error))
    assert isinstance(outcome.errors[0], Unanswered)
    assert str(outcome.errors[0]) == text


def test_giving_up_while_connecting() -> None:
    """A question that is given up takes its connection with it."""
    memory: Any = MemoryReactorClock()
    agent, _ = persistent_agent(memory, _no_tls)
    outcome = Outcome(get(agent, memory, b"http://127.0.0.1:80/", Headers(), seconds=5))
    outcome.deferred.cancel()
    assert isinstance(outcome.errors[0], CancelledError)
    assert memory.connectors[0].stoppedConnecting


def _no_tls(host: str) -> Any:
    raise AssertionError(f"TLS to {host}")


class Counting(Resource):
    """Answers, and counts."""

    isLeaf = True
    questions = 0

    def render_GET(self, request: Request) -> bytes:
        """Count a question."""
        self.questions += 1
        return b"hello"


@pytest.mark.parametrize(
    ("host", "trusted", "text"),
    [
        ("localhost", True, ""),
        ("127.0.0.1", True, ""),
        ("127.0.0.2", True, "the certificate of 127.0.0.2 was refused: it is for another name"),
        ("localhost", False, "the certificate of localhost was refused: its issuer is not trusted"),
    ],
)
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a7_tls(tmp_path: Path, host: str, trusted: bool, text: str) -> None:
    """Over https the server must prove its name before it is asked anything (A7)."""
    root, other = Issued("root", authority=True), Issued("other", authority=True)
    pair = Issued("server", root, names=("localhost",), addresses=("127.0.0.1",)).store(tmp_path, "server")
    ca, _ = (root if trusted else other).store(tmp_path, "ca")
    page = Counting()
    factory = TLSMemoryBIOFactory(ServerCertificates([pair]), False, Site(page))
    port = REACTOR.listenTCP(0, factory, interface=host.replace("localhost", "127.0.0.1"))
    creators: list[str] = []

    def creator(name: str) -> Any:
        creators.append(name)
        return client_creator(name, ca, insecure=False)

    agent, pool = persistent_agent(REACTOR, creator)
    url = f"https://{host}:{port.getHost().port}/".encode()
    try:
        for _ in range(2):
            outcome = Outcome(get(agent, REACTOR, url, Headers(), seconds=20))
            await outcome.deferred
            if text:
                assert str(outcome.errors[0]) == text
            else:
                assert outcome.values[0].body == b"hello"
    finally:
        await pool.closeCachedConnections()
        await port.stopListening()
    assert page.questions == (0 if text else 2)
    assert creators == [host]  # which reads files, and so is not made for every question
