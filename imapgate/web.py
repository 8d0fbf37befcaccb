"""Small questions to web servers: one GET, within a time and a size, or a sentence why not.

Knows HTTP by Twisted's Agent, and nothing of what is asked.  How TLS is begun and verified is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError, VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IResponse
from zope.interface import implementer

from imapgate.errors import ConfigurationError

KEPT = 8
"""Connections to one server that are kept for the next question."""

KEPT_SECONDS = 30

_TELLING = (ConnectError, DNSLookupError, VerifyError, ConfigurationError)
"""Errors whose text repeats nothing that a peer has said."""

Creator = Callable[[str], IOpenSSLClientConnectionCreator]
"""What begins TLS towards a host and has it prove its name; not Twisted's ``optionsForClientTLS`` (see ``net.tls``)."""


class Unanswered(Exception):
    """There is no answer; the text says why, and holds nothing of what was sent or received."""


class Answer(NamedTuple):
    """What the server said; header names are looked up in any case."""

    status: int
    headers: Headers
    body: bytes


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, reactor: Any, creator: Creator) -> None:
        self._reactor = reactor
        self._creator = cache(creator)  # it reads files, and is wanted for every question; hosts are few

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint = HostnameEndpoint(self._reactor, uri.host, uri.port)
        if uri.scheme != b"https":
            return endpoint
        tls: IStreamClientEndpoint = wrapClientTLS(self._creator(uri.host.decode("ascii")), endpoint)
        return tls


def persistent_agent(reactor: Any, creator: Creator) -> tuple[IAgent, HTTPConnectionPool]:
    """Return an agent that keeps its connections, and the pool, whose ``closeCachedConnections`` ends them."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = KEPT
    pool.cachedConnectionTimeout = KEPT_SECONDS
    return Agent.usingEndpointFactory(reactor, _Endpoints(reactor, creator), pool), pool


class _Body(Protocol):
    """Collects a body of at most ``most`` octets."""

    def __init__(self, most: int) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self._give_up())
        self._most = most
        self._octets = bytearray()

    def _give_up(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.whole.called:
            return
        self._octets += data
        if len(self._octets) > self._most:
            self.whole.errback(Unanswered(f"its answer is longer than {self._most} octets"))
            self._give_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # the latter: ended by closing, as HTTP/1.0 does
            self.whole.callback(bytes(self._octets))
        else:
            self.whole.errback(reason)


async def _ask(agent: IAgent, url: bytes, headers: Headers, most: int) -> Answer:
    try:
        response: IResponse = await agent.request(b"GET", url, headers, None)
        body = _Body(most)
        response.deliverBody(body)
        return Answer(response.code, response.headers, await body.whole)
    except Unanswered:
        raise
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, (CancelledError, ConnectingCancelledError)):
            raise CancelledError from None
        raise Unanswered(_told(cause)) from None


def _late(result: object, seconds: float) -> Any:
    raise Unanswered(f"no answer within {seconds:g} s")


async def get(
    agent: IAgent, clock: IReactorTime, url: bytes, headers: Headers, *, seconds: float, most: int = 64 << 10
) -> Answer:
    """Ask once, following nothing; the whole answer within ``seconds``, its body of at most ``most`` octets.

    :raise Unanswered: with a sentence for the log.
    """
    return await Deferred.fromCoroutine(_ask(agent, url, headers, most)).addTimeout(seconds, clock, _late)


def _cause(error: BaseException) -> BaseException:
    """Return what lies behind an error of the Agent's."""
    reasons = getattr(error, "reasons", None)
    return _cause(reasons[0].value) if reasons else error


def _told(error: BaseException) -> str:
    """Say what went wrong; of errors that may repeat what was sent or received, the kind alone (THREATS A40)."""
    return str(error) if isinstance(error, _TELLING) else f"no usable answer ({type(error).__name__})"
