"""A sink with a connection: TCP, TLS or a Unix stream socket, whatever the endpoint is.

Knows Twisted's endpoints.  Knows neither what is sent nor how TLS is verified: the endpoint has both ends of that.
What the transport has taken counts as sent; if the connection is lost then, the receiver may lack the last of it, and
sees that by ``seq``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from imapgate.audit.sinks.outlet import QUEUE_MOST, Format, Outlet

AT_ONCE = 16_384
"""Octets that are written in one piece: one TLS record."""

HANDSHAKE_SECONDS = 30.0
STALL_SECONDS = 60.0
"""How long a receiver may take nothing; a transport that waits for it may never tell that it has gone."""


@implementer(IHandshakeListener, IPushProducer)
class _Connection(Protocol):
    """One connection to the receiver, which has nothing to say."""

    transport: Any

    def __init__(self, sink: StreamSink, secure: bool) -> None:
        self._sink = sink
        self._secure = secure

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        if not self._secure:
            self._sink.ready()

    def handshakeCompleted(self) -> None:
        self._sink.ready()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._sink.lost(reason)

    def pauseProducing(self) -> None:
        self._sink.full(True)

    def resumeProducing(self) -> None:
        self._sink.full(False)

    def stopProducing(self) -> None:
        """The connection is lost, which `connectionLost` says as well."""


class _Once(Factory):
    """Gives the endpoint the one protocol that is to be connected."""

    noisy = False

    def __init__(self, protocol: _Connection) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> _Connection:
        return self._protocol


class StreamSink(Outlet):
    """Sends to an endpoint.

    :param secure: the endpoint starts TLS; nothing is sent before the other side has proved its name.
    """

    def __init__(
        self,
        name: str,
        endpoint: IStreamClientEndpoint,
        make: Format,
        clock: IReactorTime,
        *,
        secure: bool = False,
        most: int = QUEUE_MOST,
        jitter: Callable[[], float] = lambda: 0.5,
    ) -> None:
        super().__init__(name, make, clock, most=most, jitter=jitter)
        self._endpoint = endpoint
        self._secure = secure
        self._connecting: Deferred[IProtocol] | None = None
        self._connection: _Connection | None = None
        self._ready = False
        self._full = False
        self._patience: IDelayedCall | None = None

    def _seek(self) -> None:
        self._state = "connecting"
        self._connection = connection = _Connection(self, self._secure)
        self._connecting = self._endpoint.connect(_Once(connection))
        self._connecting.addCallbacks(self._reached, self._unreached)

    def _reached(self, protocol: IProtocol) -> None:
        self._connecting = None
        if not self._ready and self._connection is not None:
            self._wait(HANDSHAKE_SECONDS)

    def _unreached(self, reason: Failure) -> None:
        self._connecting = self._connection = None
        self._failed(reason.getErrorMessage())

    def ready(self) -> None:
        """The receiver is there, and proved where that is asked."""
        self._ready = True
        self._wait(None)
        self._connected()
        self._send()

    def lost(self, reason: Failure) -> None:
        """The connection is gone."""
        self._connection = None
        self._ready = self._full = False
        self._wait(None)
        self._failed(reason.getErrorMessage())

    def full(self, full: bool) -> None:
        """The transport takes no more for now, or takes some again."""
        self._full = full
        self._wait(STALL_SECONDS if full else None)
        self._send()

    def _wait(self, seconds: float | None) -> None:
        """Have the connection cut off in so many seconds; ``None``: no more."""
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._patience = None if seconds is None else self._clock.callLater(seconds, self._give_up)

    def _open(self) -> bool:
        return self._connection is not None

    def _send(self) -> None:
        while self._ready and not self._full and self.backlog and self._connection is not None:
            self._connection.transport.write(self.backlog.some(AT_ONCE))
        if self._stopping is not None and self._ready and not self.backlog:
            self._close()

    def _close(self) -> None:
        if not self._ready:
            self._give_up()
        elif self._connection is not None:
            self._ready = False
            # A transport with a streaming producer waits for that one to be done.
            self._connection.transport.unregisterProducer()
            self._connection.transport.loseConnection()

    def _give_up(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        elif self._connection is not None:
            self._connection.transport.abortConnection()
