"""An HTTP look-up: a server that is asked by GET and answers with a JSON object.

Knows the question and the form of the answer.  Who connects, and whether the server is believed to be who it is, is the
business of the agent that is passed in.
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from imapgate.routing.lookup import Asked, Found, LookupFailed, found

LONGEST_BODY = 16 * 1024


class HttpLookup:
    """The look-up at a server.

    The question is ``GET url`` with ``user``, ``listener``, ``server_name`` and ``address`` in the query.  200 with a
    JSON object is an answer, 404 means that the user is not known there, and all else is a failure, redirects included.

    :param url: http or https; it may have a query already.
    :param timeout: seconds for all of it.
    """

    def __init__(self, url: str, agent: IAgent, timeout: float, clock: IReactorTime) -> None:
        self._url = url + ("&" if "?" in url else "?")
        self._agent = agent
        self._timeout = timeout
        self._clock = clock

    async def find(self, asked: Asked) -> Found | None:
        """Ask the server about a user."""
        answer: Deferred[Found | None] = Deferred()  # not the request itself, whose ends have too many names
        asking = Deferred.fromCoroutine(self._ask(asked))
        asking.chainDeferred(answer)
        try:
            return await answer.addTimeout(self._timeout, self._clock)
        except DeferredTimeoutError:
            asking.cancel()
            raise LookupFailed(f"the server has not answered within {self._timeout:g} s") from None
        except CancelledError:
            asking.cancel()
            raise

    async def _ask(self, asked: Asked) -> Found | None:
        question = {name: value or "" for name, value in asked._asdict().items()}
        headers = Headers({b"Accept": [b"application/json"]})
        try:
            response: IResponse = await self._agent.request(b"GET", (self._url + urlencode(question)).encode(), headers)
            body = await _body_of(response)
        except LookupFailed:
            raise
        except Exception as error:  # all the ways in which a request may end
            raise LookupFailed(f"the server cannot be asked: {type(error).__name__}") from error
        if response.code == 404:
            return None
        if response.code != 200:
            raise LookupFailed(f"the server answered with status {response.code}")
        try:
            columns = json.loads(body)
        except (ValueError, RecursionError):
            columns = None
        if not isinstance(columns, dict):
            raise LookupFailed("the server's answer is no JSON object")
        return found(columns)


class _Body(Protocol):
    """Gathers a body that is not too long."""

    transport: ITransport

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())
        self._octets = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        if len(self._octets) > LONGEST_BODY and not self.whole.called:
            self.whole.errback(LookupFailed(f"the server's answer is longer than {LONGEST_BODY} octets"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.whole.called:
            return
        if reason.check(ResponseDone):
            self.whole.callback(bytes(self._octets))
        else:
            self.whole.errback(reason)


def _body_of(response: IResponse) -> Deferred[bytes]:
    body = _Body()
    response.deliverBody(body)
    return body.whole
