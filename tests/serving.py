"""A gate's service on a reactor without sockets, for the tests of what is above the shell."""

from __future__ import annotations

import gc
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from imapgate import assembly
from imapgate import service as module
from imapgate.config import load
from imapgate.config.types import ClientEndpoint, Configuration, Listener, Routing, ServerEndpoint, Tls, Upstream
from imapgate.errors import ConfigurationError
from imapgate.net.client import ClientProtocol
from imapgate.service import GateService
from tests.net.wires import Wire, connect, drop, logged

STORE = ClientEndpoint("unix", "unix:/run/store", path="/run/store")
UPSTREAM = Upstream("store", (STORE,), Tls.NONE)
LISTENER = Listener(ServerEndpoint("tcp", "tcp:1143:interface=127.0.0.1", "127.0.0.1", 1143))
CONFIGURATION = Configuration((LISTENER,), {"store": UPSTREAM}, Routing("store"))
HERE = IPv4Address("TCP", "127.0.0.1", 5)
GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\n"
GRANTED = b"g1 OK [CAPABILITY IMAP4rev1 UNSELECT] in\r\n"


class Reactor(MemoryReactorClock):
    """A reactor without sockets whose threads are this one; its ports can refuse to be bound, or take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.running = True
        self.taken: set[int] = set()
        """Ports that somebody else listens on."""
        self.listening: dict[int, Any] = {}
        """What is listened on now, by port number."""
        self.closing: Deferred[None] | None = None
        self.stopped = 0
        """How often it was told to stop."""

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> Any:
        """Listen, if nobody else does."""
        if port in self.taken or port in self.listening:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        listening = self.listening[port] = super().listenTCP(port, factory, backlog, interface)
        listening.factory = factory

        def stop() -> Deferred[None] | None:
            del self.listening[port]
            return self.closing

        listening.stopListening = stop
        return listening

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        """Call it."""
        self.callLater(0, call, *arguments)

    def getThreadPool(self) -> object:
        """Nobody uses it."""
        return object()

    def stop(self) -> None:
        """Remember."""
        self.stopped += 1


class Certificates:
    """Certificates that are as good as whoever made them says."""

    made: list[Certificates] = []
    broken = False

    def __init__(self, pairs: list[tuple[Path, Path]]) -> None:
        if self.broken:
            raise ConfigurationError(["a.pem is no certificate"])
        self.pairs = pairs
        self.made.append(self)


@contextmanager
def contained(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor files nor sockets are touched meanwhile."""
    monkeypatch.setattr(assembly, "EagerReactor", lambda reactor: reactor)  # its connections are real
    monkeypatch.setattr(module, "ServerCertificates", Certificates)
    monkeypatch.setattr(Certificates, "broken", False)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: None)
    Certificates.made.clear()
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, received in before.items():
            signal.signal(number, received)


class Running:
    """A service that has been started."""

    def __init__(self, configuration: Configuration = CONFIGURATION) -> None:
        self.reactor = Reactor()
        self.service = GateService(self.reactor, configuration)
        self.service.privilegedStartService()
        with logged(module) as self.lines:
            self.service.startService()

    def client(self, port: int = 1143, end: IPv4Address = HERE) -> tuple[ClientProtocol, Wire]:
        """A client that connects."""
        protocol = self.reactor.listening[port].factory.buildProtocol(end)
        assert isinstance(protocol, ClientProtocol)
        return protocol, connect(protocol, Wire(end))

    def opens(self, greeting: bytes = GREETING) -> tuple[Protocol, Wire]:
        """The upstream that was called last answers, and greets."""
        clients: list[Any] = self.reactor.unixClients or self.reactor.tcpClients
        factory = clients[-1][1 if self.reactor.unixClients else 2]
        protocol: Protocol = factory.buildProtocol(None)
        wire = connect(protocol, Wire())
        protocol.dataReceived(greeting)
        return protocol, wire

    def answers_probe(self, greeting: bytes | None = GREETING) -> list[str]:
        """The probe under way finds this, or nobody; what is logged."""
        with logged(module) as lines:
            if greeting is None:
                clients: list[Any] = self.reactor.unixClients or self.reactor.tcpClients
                factory = clients[-1][1 if self.reactor.unixClients else 2]
                factory.clientConnectionFailed(self.reactor.connectors[-1], Failure(ConnectionRefusedError()))
            else:
                drop(*self.opens(greeting))
        return lines

    @property
    def called(self) -> int:
        """How often an upstream was called."""
        return len(self.reactor.unixClients) + len(self.reactor.tcpClients)

    def logged_in(self, user: bytes = b"alice", port: int = 1143) -> Patron:
        """A client that has logged in."""
        patron = Patron(self, port)
        patron.says(b"a LOGIN %b pw\r\n" % user)
        patron.upstream, patron.upstream_wire = self.opens()
        patron.upstream.dataReceived(GRANTED)
        patron.upstream_wire.clear()
        assert patron.wire.read().startswith(b"a OK ")
        return patron

    def stops(self) -> list[object]:
        """Stop; the list is no longer empty when that is over."""
        done: list[object] = []
        self.service.stopService().addCallback(done.append)
        return done


class Patron:
    """One client of a running service, and its upstream."""

    upstream: Protocol
    upstream_wire: Wire

    def __init__(self, running: Running, port: int = 1143) -> None:
        self.protocol, self.wire = running.client(port)
        self.wire.clear()

    def says(self, data: bytes) -> bytes:
        """It says this; what is it told?"""
        self.protocol.dataReceived(data)
        return self.wire.read()

    def leaves(self) -> None:
        """It goes, and so does its connection."""
        drop(self.protocol, self.wire)
        if hasattr(self, "upstream") and self.upstream_wire.connected:
            drop(self.upstream, self.upstream_wire)


TOML = """
[[listener]]
endpoint = "tcp:1143:interface=127.0.0.1"

[upstream.store]
endpoints = ["tcp:127.0.0.1:10143"]
"""


class Written(Running):
    """A service whose configuration stands in a file."""

    def __init__(self, folder: Path, text: str = TOML) -> None:
        self.file = folder / "imapgate.toml"
        self.file.write_text(text)
        super().__init__(load(self.file))

    def reloads(self, text: str) -> None:
        """It is another file now, and is read again."""
        self.file.write_text(text)
        self.service.reload()
