"""Look-ups by HTTP, at a real server on this machine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.web.client import Agent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from imapgate.model.pool_mode import PoolMode
from imapgate.routing.http import LONGEST_BODY, HttpLookup
from imapgate.routing.lookup import Asked, Found, LookupFailed

ALICE = Asked("public", "imap.example.org", "alice@example.org", "192.0.2.7")
TIMEOUT = 5.0


class Users(Resource):
    """A server that answers as it is told to, and writes down what it is asked.

    :ivar silent: fires when a request has come that is not answered
    :ivar gone: fires when its connection has been closed
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.status = 200
        self.body: bytes | None = b"{}"
        self.headers: dict[bytes, bytes] = {}
        self.questions: list[dict[str, str]] = []
        self.silent: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.answer: Callable[[Any], None] | None = None

    def render_GET(self, request: Any) -> object:
        """Answer."""
        self.questions.append({name.decode(): values[0].decode() for name, values in request.args.items()})
        request.setResponseCode(self.status)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        if self.body is not None:
            return self.body
        request.notifyFinish().addBoth(lambda _: self.gone.callback(None))
        if self.answer is not None:
            self.answer(request)
        self.silent.callback(None)
        return NOT_DONE_YET


class Watched(Agent):
    """An agent.

    :ivar begun: fires when the first answer's body is being read
    """

    def __init__(self) -> None:
        super().__init__(reactor)  # type: ignore[no-untyped-call]
        self.begun: Deferred[None] = Deferred()

    def request(self, *arguments: Any) -> Any:
        """Ask."""
        return super().request(*arguments).addCallback(self._answered)

    def _answered(self, response: object) -> object:
        if not self.begun.called:
            reactor.callLater(0, self.begun.callback, None)
        return response


class Bench:
    """A server, and a look-up at it."""

    def __init__(self) -> None:
        self.users = Users()
        self.clock = Clock()
        self.agent = Watched()
        site: Any = Site(self.users)  # type: ignore[no-untyped-call]
        self.port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.lookup = self.at("/users")

    def at(self, path: str) -> HttpLookup:
        """A look-up at a path of the server."""
        url = f"http://127.0.0.1:{self.port.getHost().port}{path}"
        return HttpLookup(url, self.agent, TIMEOUT, self.clock)

    async def stop(self) -> None:
        """Stop the server, if it has not been stopped."""
        await maybeDeferred(self.port.stopListening)

    def find(self, asked: Asked = ALICE) -> Deferred[Found | None]:
        """Look a user up."""
        return Deferred.fromCoroutine(self.lookup.find(asked))

    async def failure(self, looking: Deferred[Found | None] | None = None) -> str:
        """Why a look-up fails."""
        with pytest.raises(LookupFailed) as caught:
            await (looking or self.find())
        return str(caught.value)


def soon(event: Deferred[None]) -> Deferred[None]:
    """What comes at once or never."""
    return event.addTimeout(10, reactor)


@pytest_twisted.async_yield_fixture  # type: ignore[untyped-decorator]
async def bench() -> AsyncIterator[Bench]:
    """A server for one test."""
    made = Bench()
    yield made
    await made.stop()
    assert made.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_the_question(bench: Bench) -> None:
    """A38: the server is told who asks, each value as a parameter of its own, whatever is in it."""
    user = "a&address=10.0.0.1#?%/ü+"
    await bench.find(ALICE)
    await bench.find(Asked("tcp:143", None, user, None))
    bench.lookup = bench.at("/users?key=1")
    await bench.find(ALICE)
    question = {
        "listener": "public",
        "server_name": "imap.example.org",
        "user": "alice@example.org",
        "address": "192.0.2.7",
    }
    bare = {"listener": "tcp:143", "server_name": "", "user": user, "address": ""}
    assert bench.users.questions == [question, bare, question | {"key": "1"}]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_answers(bench: Bench) -> None:
    """A JSON object is what was found, 404 that nothing was."""
    bench.users.body = json.dumps(
        {
            "upstream": "legacy",
            "user": "al",
            "pool_mode": "mailbox",
            "nologin": None,
            "delay_until": "2026-12-01T00:00:00Z",
        }
    ).encode()
    assert await bench.find() == Found("legacy", "al", PoolMode.MAILBOX, None, 1796083200.0)
    bench.users.status = 404
    assert await bench.find() is None


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, b"", "the server's answer is no JSON object"),
        (200, b"[]", "the server's answer is no JSON object"),
        (200, b'"legacy"', "the server's answer is no JSON object"),
        (200, b'{"upstream": "a"', "the server's answer is no JSON object"),
        (200, b'{"upstream": "\xfc"}', "the server's answer is no JSON object"),
        (200, b"[" * LONGEST_BODY, "the server's answer is no JSON object"),
        (200, b'{"upstream": 1}', "upstream: expected a text"),
        (200, b'{"upstrm": "a"}', "'upstrm' is none of upstream, user, pool_mode, nologin, delay_until"),
        (200, b" " * (LONGEST_BODY + 1), "the server gives no answer: its answer is longer than 16384 octets"),
        (404, b" " * (LONGEST_BODY + 1), "the server gives no answer: its answer is longer than 16384 octets"),
        (204, b"", "the server answered with status 204"),
        (401, b"{}", "the server answered with status 401"),
        (500, b"{}", "the server answered with status 500"),
    ],
)
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_answers_that_are_none(bench: Bench, status: int, body: bytes, fault: str) -> None:
    """All else is a failure, not the same as a user who is not known."""
    bench.users.status, bench.users.body = status, body
    assert await bench.failure() == fault


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_no_redirects(bench: Bench) -> None:
    """A redirect is not followed."""
    bench.users.status = 302
    bench.users.headers = {b"Location": b"/elsewhere"}
    assert await bench.failure() == "the server answered with status 302"
    assert len(bench.users.questions) == 1


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_body_without_end(bench: Bench) -> None:
    """A body that is too long is not read on: the connection is closed."""
    bench.users.body = None
    bench.users.answer = lambda request: request.write(b" " * (LONGEST_BODY + 1))
    assert await bench.failure() == "the server gives no answer: its answer is longer than 16384 octets"
    await soon(bench.users.gone)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_body_cut_short(bench: Bench) -> None:
    """An answer that ends before its end is none."""

    def answer(request: Any) -> None:
        request.setHeader(b"Content-Length", b"10")
        request.write(b"{}")
        request.loseConnection()

    bench.users.body, bench.users.answer = None, answer
    assert await bench.failure() == "the server gives no answer: no usable answer (ConnectionDone)"


@pytest.mark.parametrize("begun", [False, True])
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_time_limit(bench: Bench, begun: bool) -> None:
    """A server that does not answer, or not to the end, has failed in time, and the connection is closed."""
    bench.users.body = None
    if begun:
        bench.users.answer = lambda request: request.write(b"{")
    looking = bench.find()
    await soon(bench.agent.begun if begun else bench.users.silent)
    bench.clock.advance(TIMEOUT)
    assert await bench.failure(looking) == "the server gives no answer: no answer within 5 s"
    await soon(bench.users.gone)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_cancelled(bench: Bench) -> None:
    """A client that goes takes its question along."""
    bench.users.body = None
    looking = bench.find()
    await soon(bench.users.silent)
    looking.cancel()
    with pytest.raises(CancelledError):
        await looking
    await soon(bench.users.gone)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_nobody_there(bench: Bench) -> None:
    """A server that is down is a failure."""
    await bench.stop()
    assert (await bench.failure()).startswith("the server gives no answer: Connection was refused")
