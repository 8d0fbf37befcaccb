"""The gate as a Twisted service: bound, serving, probing, reloading, stopped."""

from __future__ import annotations

import gc
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from imapgate import service as module
from imapgate.config.types import (
    CertificatePair,
    ClientEndpoint,
    Configuration,
    Listener,
    Routing,
    ServerEndpoint,
    Tls,
    Trace,
    Upstream,
)
from imapgate.errors import ConfigurationError
from imapgate.limits import Limits
from imapgate.net.client import ClientProtocol
from imapgate.net.listen import ClientFactory
from imapgate.net.proxy_protocol import TrustedProxies
from imapgate.service import (
    PROBE_SECONDS,
    STOP_SECONDS,
    GateService,
    client_endpoint,
    clients_at_most,
    refuse_root,
    upstream_of,
)
from imapgate.session.effects import Side, Traced
from tests.net.wires import Wire, connect, drop, logged

STORE = ClientEndpoint("unix", "unix:/run/store", path="/run/store")
UPSTREAM = Upstream("store", (STORE,), Tls.NONE)
LISTENER = Listener(ServerEndpoint("tcp", "tcp:1143:interface=127.0.0.1", "127.0.0.1", 1143))
OUTSIDE = Listener(ServerEndpoint("tcp", "tcp:143", "", 143))
PAIR = CertificatePair(Path("a.pem"), Path("a.key"))
CONFIGURATION = Configuration((LISTENER,), {"store": UPSTREAM}, Routing("store"))
CAPABLE = b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=CRAM-MD5] hi\r\n"


class Reactor(MemoryReactorClock):
    """A reactor without sockets whose threads are this one; its ports can refuse to be bound, or take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = False
        self.closing: Deferred[None] | None = None

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> Any:
        """Listen, if nobody else does."""
        if self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        listening = super().listenTCP(port, factory, backlog, interface)
        listening.stopListening = lambda: self.closing
        return listening

    def callFromThread(self, call: Callable[[], object]) -> None:
        """Call it."""
        self.callLater(0, call)


class Certificates:
    """Certificates that remember how often they were read again."""

    names = ("mail.example.org",)
    made: list[Certificates] = []

    def __init__(self, pairs: list[tuple[Path, Path]]) -> None:
        self.pairs = pairs
        self.reloads = 0
        self.broken = False
        self.made.append(self)

    def reload(self) -> None:
        """Read them again."""
        self.reloads += 1
        if self.broken:
            raise ConfigurationError(["a.pem is no certificate"])


@pytest.fixture(autouse=True)
def contained(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor files are touched."""
    monkeypatch.setattr(module, "ServerCertificates", Certificates)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: None)
    Certificates.made.clear()
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


class Running:
    """A service that has been started."""

    def __init__(self, configuration: Configuration = CONFIGURATION) -> None:
        self.reactor = Reactor()
        self.service = GateService(self.reactor, configuration)
        self.service.privilegedStartService()
        with logged(module) as self.lines:
            self.service.startService()

    def client(self, server: int = 0) -> tuple[ClientProtocol, Wire]:
        """A client that connects."""
        protocol = self.reactor.tcpServers[server][1].buildProtocol(IPv4Address("TCP", "127.0.0.1", 5))
        assert isinstance(protocol, ClientProtocol)
        return protocol, connect(protocol, Wire(IPv4Address("TCP", "127.0.0.1", 5)))

    def answers_probe(self, greeting: bytes | None) -> list[str]:
        """The probe under way finds this, or nobody; what is logged."""
        factory = self.reactor.unixClients[-1][1]
        connector = self.reactor.connectors[-1]
        with logged(module) as lines:
            if greeting is None:
                factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
            else:
                protocol = factory.buildProtocol(None)
                wire = connect(protocol, Wire())
                protocol.dataReceived(greeting)
                drop(protocol, wire)
        return lines


# --- parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "clients"),
    [
        (1024, 4096, 0, 2016),
        (4096, 4096, 0, 2016),
        (4096, 4096, 100, 100),
        (4096, 4096, 9999, 2016),
        (32, 32, 0, 1),
        (1024, resource.RLIM_INFINITY, 0, 1 << 20),
    ],
)
def test_f18_clients_at_most(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, clients: int) -> None:
    """There is room for as many clients as there are descriptors for, two for each; the soft limit is raised."""
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: raised.append(limits))
    assert clients_at_most(Limits(clients=wanted)) == clients
    assert raised == ([] if soft == hard else [(hard, hard)])


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        (STORE, UNIXClientEndpoint),
        (ClientEndpoint("tcp", "tcp:192.0.2.1:143", "192.0.2.1", 143), TCP4ClientEndpoint),
        (ClientEndpoint("tcp", "tcp:[2001]:143", "2001:db8::1", 143, bind_address="2001:db8::2"), TCP6ClientEndpoint),
        (ClientEndpoint("tls", "tls:mail.example.org:993", "mail.example.org", 993), HostnameEndpoint),
    ],
)
def test_client_endpoint(endpoint: ClientEndpoint, kind: type) -> None:
    """An address is dialled as it is, a name is looked up, a path is a Unix socket."""
    assert type(client_endpoint(Reactor(), endpoint, 5.0)) is kind


def test_bind_address() -> None:
    """An endpoint is reached from the local address that is configured."""
    reactor = Reactor()
    endpoint = ClientEndpoint("tcp", "tcp:192.0.2.1:143", "192.0.2.1", 143, bind_address="192.0.2.9")
    client_endpoint(reactor, endpoint, 5.0).connect(Factory())
    ((host, port, _, seconds, bind),) = reactor.tcpClients
    assert [host, port, seconds, bind] == ["192.0.2.1", 143, 5.0, ("192.0.2.9", 0)]


@pytest.mark.parametrize("tls", Tls)
def test_upstream_of(tls: Tls) -> None:
    """Every endpoint is a door, in order, with the TLS that is configured."""
    endpoints = tuple(ClientEndpoint("tcp", f"tcp:{name}:143", name, 143) for name in ("a.example", "b.example"))
    configured = Upstream("store", endpoints, tls, id_originating=True, proxy_protocol=True)
    made = upstream_of(Reactor(), configured, Limits())
    assert [door.name for door in made.doors] == ["tcp:a.example:143", "tcp:b.example:143"]
    assert [door.starttls for door in made.doors] == [tls is Tls.STARTTLS] * 2
    assert [door.tls is None for door in made.doors] == [tls is Tls.NONE] * 2
    assert made.doors[0].tls is not made.doors[1].tls or tls is Tls.NONE
    assert (made.name, made.id_originating, made.proxy_protocol) == ("store", True, True)


@pytest.mark.parametrize(
    ("effective", "uid", "allowed", "listener", "refused"),
    [
        (0, None, False, OUTSIDE, True),
        (0, 0, False, OUTSIDE, True),
        (0, 1000, False, OUTSIDE, False),
        (1000, None, False, OUTSIDE, False),
        (0, None, True, OUTSIDE, False),
        (0, None, False, LISTENER, False),
    ],
)
def test_refuse_root(effective: int, uid: int | None, allowed: bool, listener: Listener, refused: bool) -> None:
    """Root may not serve the network, unless it will be somebody else, or is told to."""
    configuration = attrs.evolve(CONFIGURATION, listeners=(listener,), allow_root=allowed)
    text = refuse_root(configuration, uid, lambda: effective)
    assert (text is not None) is refused
    assert text is None or "allow_root" in text


# --- starting ---------------------------------------------------------------------------------------


def test_ports_are_bound_before_anything_is_served() -> None:
    """Ports are bound while the process is still privileged; then it is said what is served."""
    reactor = Reactor()
    gate = GateService(reactor, attrs.evolve(CONFIGURATION, listeners=(LISTENER, OUTSIDE)))
    assert reactor.tcpServers == []
    gate.privilegedStartService()
    assert [(port, interface) for port, _, _, interface in reactor.tcpServers] == [(1143, "127.0.0.1"), (143, "")]
    assert [backlog for _, _, backlog, _ in reactor.tcpServers] == [module.BACKLOG, module.BACKLOG]
    assert reactor.unixClients == []
    with logged(module) as lines:
        gate.startService()
    assert lines == ["info: imapgate serves tcp:1143:interface=127.0.0.1, tcp:143, upstream store"]
    assert len(reactor.unixClients) == 1


def test_port_in_use() -> None:
    """A port that cannot be bound ends the start, and says which one it was."""
    reactor = Reactor()
    reactor.taken = True
    gate = GateService(reactor, CONFIGURATION)
    with pytest.raises(SystemExit, match=r"cannot listen on tcp:1143:interface=127\.0\.0\.1: .*already in use"):
        gate.privilegedStartService()


def test_socket_that_systemd_has_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is to be inherited, and was not, ends the start, too."""
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    inherited = Listener(ServerEndpoint("systemd", "systemd:domain=INET:index=0", domain="INET"))
    gate = GateService(Reactor(), attrs.evolve(CONFIGURATION, listeners=(inherited,)))
    with pytest.raises(SystemExit, match="cannot listen on systemd:domain=INET:index=0: "):
        gate.privilegedStartService()


@pytest.mark.parametrize(("tls", "shown"), [(Tls.NONE, False), (Tls.STARTTLS, True), (Tls.IMPLICIT, False)])
def test_listeners(tls: Tls, shown: bool) -> None:
    """A listener's clients get its TLS, with its certificates."""
    listener = attrs.evolve(LISTENER, tls=tls, certificates=() if tls is Tls.NONE else (PAIR,))
    running = Running(attrs.evolve(CONFIGURATION, listeners=(listener,)))
    _, wire = running.client()
    assert [made.pairs for made in Certificates.made] == ([] if tls is Tls.NONE else [[(Path("a.pem"), Path("a.key"))]])
    assert wire.creators == (Certificates.made if tls is Tls.IMPLICIT else [])
    assert (b" STARTTLS " in wire.read()) is shown


def test_proxy_protocol_listener() -> None:
    """A listener behind a balancer takes PROXY headers, from whom it trusts."""
    running = Running(attrs.evolve(CONFIGURATION, listeners=(attrs.evolve(LISTENER, proxy_protocol=True),)))
    assert isinstance(running.reactor.tcpServers[0][1], TrustedProxies)
    assert isinstance(Running().reactor.tcpServers[0][1], ClientFactory)


def test_extra_verbs() -> None:
    """An operator's verbs are known to the sessions."""
    running = Running(attrs.evolve(CONFIGURATION, extra_verbs=("XFOO",)))
    for (protocol, wire), known in ((running.client(), True), (Running().client(), False)):
        wire.clear()
        protocol.dataReceived(b"a XFOO\r\n")
        assert (b"Unknown command" in wire.read()) is not known


# --- going on ---------------------------------------------------------------------------------------


def test_probe() -> None:
    """Upstream is looked at again and again: what may be relayed is shown, and a change is told once."""
    running = Running()
    assert running.answers_probe(CAPABLE) == []
    protocol, wire = running.client()
    assert b"AUTH=CRAM-MD5" in wire.read()
    told = []
    for greeting in (None, None, b"* BYE full\r\n", b"* BYE full\r\n", CAPABLE, CAPABLE):
        running.reactor.advance(PROBE_SECONDS)
        told.append(running.answers_probe(greeting))
    assert [len(lines) for lines in told] == [1, 0, 1, 0, 1, 0]
    assert told[0] == ["warn: upstream store: unix:/run/store cannot be used: refused"]
    assert told[2] == ["warn: upstream store: unix:/run/store cannot be used: bye"]
    assert told[4] == ["info: upstream store: unix:/run/store can be used again"]
    drop(protocol, wire)


def test_probing_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch, critical_events: list[Any]) -> None:
    """A bug in a probe is logged, and the gate serves on."""

    async def broken(*args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "probe", broken)
    running = Running()
    assert any(line.startswith("critical: probing ended") for line in running.lines)
    assert running.client()[1].read().startswith(b"* OK ")
    assert critical_events == []


def test_f15_sighup_reloads_certificates() -> None:
    """SIGHUP reads certificates again, in the reactor; one that is bad is told of, and the others are read."""
    listener = attrs.evolve(LISTENER, tls=Tls.STARTTLS, certificates=(PAIR,))
    running = Running(attrs.evolve(CONFIGURATION, listeners=(listener, listener)))
    Certificates.made[0].broken = True
    signal.raise_signal(signal.SIGHUP)
    assert [made.reloads for made in Certificates.made] == [0, 0]
    with logged(module) as lines:
        running.reactor.advance(0)
    assert [made.reloads for made in Certificates.made] == [1, 1]
    assert lines == [
        "error: certificates are not reloaded, the old ones stay: a.pem is no certificate",
        "info: certificates reloaded: mail.example.org",
    ]


def test_trace_is_opened_again_at_a_reload_and_closed_at_the_end(tmp_path: Path) -> None:
    """The trace's file can be rotated away, as a log can; it ends when its time is up."""
    trace = Trace("alice", tmp_path / "trace", 60.0)
    running = Running(attrs.evolve(CONFIGURATION, trace=trace))
    traced = running.service._gate.journal.trace
    assert traced is not None
    assert traced.wants(b"alice")
    client, _ = running.client()
    event = Traced(Side.CLIENT, b"x")
    for end in (running.service.reload, running.service.stopService):
        traced.write(client.client, event)
        trace.file.rename(tmp_path / "rotated")
        end()
        running.reactor.pump([STOP_SECONDS] * 2)
        traced.write(client.client, event)
        assert len(trace.file.read_text().splitlines()) == 1
        trace.file.unlink()
        traced.close()
    running.reactor.advance(60)
    assert not traced.wants(b"alice")


# --- stopping ---------------------------------------------------------------------------------------


def stopped(running: Running) -> list[object]:
    """Stop; the list is no longer empty when that is over."""
    done: list[object] = []
    running.service.stopService().addCallback(done.append)
    return done


def test_f16_stop_tells_every_client_and_waits() -> None:
    """Clients hear BYE, and the service has stopped as soon as they have gone."""
    running = Running()
    running.answers_probe(CAPABLE)
    protocol, wire = running.client()
    wire.clear()
    done = stopped(running)
    assert wire.read() == b"* BYE [UNAVAILABLE] The mail gateway is shutting down\r\n"
    assert not wire.open
    running.reactor.advance(0.05)
    assert done == []
    drop(protocol, wire)
    running.reactor.advance(0.05)
    assert done == [None]
    running.reactor.advance(10 * PROBE_SECONDS)
    assert len(running.reactor.unixClients) == 1


def test_f16_stop_takes_a_bounded_time() -> None:
    """A client that does not go is not waited for."""
    running = Running()
    running.client()
    done = stopped(running)
    running.reactor.advance(STOP_SECONDS - 0.1)
    assert done == []
    running.reactor.pump([0.1, 0.1])
    assert done == [None]


def test_f16_ports_are_closed_first() -> None:
    """Nobody new comes in while clients are told: they are told when the ports are closed."""
    running = Running()
    closing = running.reactor.closing = Deferred()
    _, wire = running.client()
    wire.clear()
    stopped(running)
    assert wire.read() == b""
    closing.callback(None)
    assert wire.read().startswith(b"* BYE ")


def test_stop_after_probing_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose probing has ended can be stopped like any other."""

    async def broken(*args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "probe", broken)
    running = Running()
    assert stopped(running) == [None]
