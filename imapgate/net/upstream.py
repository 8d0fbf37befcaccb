"""One connection to an upstream server: how it is reached, and the protocol that carries its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from imapgate.net.valve import Transport, Valve

CLOSE_SECONDS = 5.0
"""How long a peer may take to close after we did; then the connection is aborted."""


class Door(NamedTuple):
    """One way to an upstream server.

    :ivar name: for the log, as the configuration has it
    :ivar tls: what begins TLS there; ``None``: none
    :ivar starttls: TLS is begun by STARTTLS and not at once
    """

    name: str
    endpoint: IStreamClientEndpoint
    tls: IOpenSSLClientConnectionCreator | None
    starttls: bool


class Owner(Protocol):
    """Whoever hears what happens on an upstream connection."""

    def upstream_secured(self) -> None:
        """TLS is up, and the server is who it should be."""

    def upstream_received(self, data: bytes) -> None:
        """The server sent something."""

    def upstream_lost(self, reason: Failure) -> None:
        """The connection is gone."""


@implementer(IHandshakeListener)
class UpstreamProtocol(TwistedProtocol):
    """A connection to an upstream server; it belongs to one owner at a time.

    :param first: octets to send before anything else, TLS included (a PROXY header).
    """

    transport: Transport  # type: ignore[assignment]

    def __init__(self, door: Door, owner: Owner, clock: IReactorTime, first: bytes) -> None:
        self.owner: Owner | None = owner
        self.gone: Callable[[], None] | None = None
        """Called when the connection is no more, whoever owns it then."""
        self.valve: Valve
        self._door = door
        self._clock = clock
        self._first = first
        self._closing: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Set the socket up, and begin TLS where it is implicit."""
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        self.valve = Valve(transport)
        if self._first:
            transport.write(self._first)
        if self._door.tls is not None and not self._door.starttls:
            self.start_tls()

    def start_tls(self) -> None:
        """Begin TLS; the owner hears when it is up."""
        self.transport.startTLS(self._door.tls)

    def handshakeCompleted(self) -> None:
        """Tell the owner."""
        if self.owner is not None:
            self.owner.upstream_secured()

    def dataReceived(self, data: bytes) -> None:
        """Tell the owner."""
        if self.owner is not None:
            self.owner.upstream_received(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Tell the owner."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.upstream_lost(reason)
        if self.gone is not None:
            self.gone()

    def close(self, abort: bool = False) -> None:
        """Close, in bounded time; the owner hears nothing more."""
        self.owner = None
        transport = self.transport
        if transport is None or not transport.connected or self._closing is not None:
            return
        transport.unregisterProducer()
        if abort:
            transport.abortConnection()
            return
        self._closing = self._clock.callLater(CLOSE_SECONDS, self._abort)
        transport.loseConnection()

    def _abort(self) -> None:
        self._closing = None
        self.transport.abortConnection()
