"""Transports, endpoints and a gate without sockets, for the tests of the shell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import FilteringLogObserver, ILogObserver, LogEvent, Logger, formatEvent
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, provider

from imapgate.auth.penalties import Penalties
from imapgate.auth.proofs import Proofs
from imapgate.limits import DEFAULTS, Limits
from imapgate.model.commands import COMMANDS
from imapgate.model.pool_mode import PoolMode, SharingTerms
from imapgate.net.census import Census
from imapgate.net.dial import Upstream
from imapgate.net.directory import Directory, Moves
from imapgate.net.gate import Gate
from imapgate.net.journal import Journal, Trace
from imapgate.net.pools import Pools
from imapgate.net.shares import Shares
from imapgate.net.upstream import Door
from imapgate.pooling.book import Book
from imapgate.pooling.connection import Terms
from imapgate.routing.endpoints import Endpoints
from imapgate.routing.rules import Router

CLIENT = IPv4Address("TCP", "192.0.2.7", 50_000)
LOCAL = IPv4Address("TCP", "192.0.2.1", 143)
DONE = Failure(ConnectionDone())
TERMS = Terms()
SHARING = SharingTerms()


class Wire(StringTransport):
    """A transport that remembers what was done to it, and is lenient where Twisted's own are."""

    def __init__(self, peer: IAddress = CLIENT, host: IAddress = LOCAL) -> None:
        super().__init__(hostAddress=host, peerAddress=peer, lenient=True)
        self.creators: list[object] = []
        self.options: list[str] = []
        directlyProvides(self, ITCPTransport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Remember."""
        self.options.append(f"nodelay {enabled}")

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Remember."""
        self.options.append(f"keepalive {enabled}")

    def startTLS(self, creator: object) -> None:
        """Remember; the test says when the handshake is over."""
        self.creators.append(creator)

    def unregisterProducer(self) -> None:
        """Name no producer, whether there was one or not."""
        self.producer = None

    def fills(self) -> None:
        """The peer takes nothing any more, and there is too much to send."""
        assert self.producer is not None
        self.producer.pauseProducing()

    def drains(self) -> None:
        """The peer has taken everything."""
        assert self.producer is not None
        self.producer.resumeProducing()

    def read(self) -> bytes:
        """What was written since the last read."""
        data: bytes = self.value()
        self.clear()
        return data

    @property
    def paused(self) -> bool:
        """Whether it is not read from."""
        return bool(self.producerState == "paused")

    @property
    def open(self) -> bool:
        """Whether nobody on this side has closed it."""
        return not self.disconnecting


def connect(protocol: Protocol, wire: Wire) -> Wire:
    """Connect a protocol to a wire."""
    protocol.makeConnection(wire)
    return wire


def drop(protocol: Protocol, wire: Wire, reason: Failure = DONE) -> None:
    """The other side, or nature, ends the connection."""
    wire.connected = False
    protocol.connectionLost(reason)


@implementer(IStreamClientEndpoint)
class Endpoint:
    """An upstream server's address: each attempt to connect waits until the test opens or refuses it."""

    says_so = True
    """Whether it fails with an error of its own when it is cancelled, as Twisted's endpoints do."""

    def __init__(self) -> None:
        self.calls: list[tuple[IProtocolFactory, Deferred[IProtocol]]] = []
        self.cancelled = 0

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Wait."""
        deferred: Deferred[IProtocol] = Deferred(self._cancel)
        self.calls.append((factory, deferred))
        return deferred

    def _cancel(self, deferred: Deferred[IProtocol]) -> None:
        self.cancelled += 1
        if self.says_so:
            deferred.errback(Failure(ConnectingCancelledError(LOCAL)))

    def opens(self, greeting: bytes = b"", which: int = -1) -> tuple[Protocol, Wire]:
        """Accept the last call, or another one, and greet."""
        factory, deferred = self.calls[which]
        protocol = factory.buildProtocol(LOCAL)
        assert isinstance(protocol, Protocol)
        wire = connect(protocol, Wire())
        deferred.callback(protocol)
        if greeting:
            protocol.dataReceived(greeting)
        return protocol, wire

    def refuses(self, error: Exception | None = None) -> None:
        """Turn the last call away."""
        self.calls[-1][1].errback(Failure(error or ConnectionRefusedError()))


class InOrder(Endpoints):
    """Endpoints of which every user prefers the first."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names, lambda: 0.5)

    def _preferred(self, user: str) -> list[int]:
        return list(range(len(self._endpoints)))


class Bench(NamedTuple):
    """A gate with everything that a test wants to look at."""

    gate: Gate
    clock: Clock
    upstream: Upstream
    endpoints: list[Endpoint]

    @property
    def pools(self) -> Pools:
        """The upstream connections."""
        return self.gate.pools

    def stages(self) -> list[str]:
        """The stage of every upstream connection."""
        return [connection.stage.value for connection in self.gate.pools.book._connections]


def bench(
    limits: Limits = DEFAULTS,
    *,
    doors: int = 1,
    clients: int = 100,
    tls: object = None,
    starttls: bool = False,
    proxy_protocol: bool = False,
    id_originating: bool = False,
    trace: Trace | None = None,
    mode: PoolMode = PoolMode.SESSION,
    terms: Terms = TERMS,
    sharing: SharingTerms = SHARING,
    alone: bool = False,
    cache: float = 0.0,
) -> Bench:
    """A gate in front of an upstream that has so many doors; ``cache``: seconds for which a proof is good."""
    clock = Clock()
    endpoints = [Endpoint() for _ in range(doors)]
    entrances = [Door(f"door{number}", endpoint, tls, starttls) for number, endpoint in enumerate(endpoints)]  # type: ignore[arg-type]
    upstream = Upstream(
        "mail",
        entrances,
        InOrder([door.name for door in entrances]),
        proxy_protocol=proxy_protocol,
        id_originating=id_originating,
        mode=mode,
        terms=terms,
        alone=alone,
        sharing=sharing,
    )
    proofs = Proofs(b"key", cache)
    pools = Pools(Book(100, lambda: 0.5), proofs, limits, clock)
    router = Router([], "mail", frozenset(["mail"]), lambda name: True)
    gate = Gate(
        clock,
        limits,
        COMMANDS,
        Directory(limits, router, {"mail": upstream}, proofs, Moves(), clock, clock.seconds),
        pools,
        Shares(pools, limits, COMMANDS, clock, lambda: 0.5),
        Penalties(limits.failed_login_delays),
        Census(limits, clients),
        Journal(trace),
    )
    return Bench(gate, clock, upstream, endpoints)


@contextmanager
def logged(module: object) -> Iterator[list[str]]:
    """The lines that a module logs meanwhile, of every level."""
    lines: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    original = module.log  # type: ignore[attr-defined]
    assert isinstance(original.observer, FilteringLogObserver)
    module.log = Logger(namespace="test", observer=observe)  # type: ignore[attr-defined]
    try:
        yield lines
    finally:
        module.log = original  # type: ignore[attr-defined]
