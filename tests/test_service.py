"""The gate as a Twisted service: bound, serving, probing, reloading, stopped."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred

from imapgate import service as module
from imapgate.config.types import CertificatePair, Listener, ServerEndpoint, Tls, Trace
from imapgate.limits import Limits
from imapgate.net.listen import ClientFactory
from imapgate.net.proxy_protocol import TrustedProxies
from imapgate.service import PROBE_SECONDS, STOP_SECONDS, GateService, clients_at_most, refuse_root
from imapgate.session.effects import Side, Traced
from tests.net.wires import drop, logged
from tests.serving import CONFIGURATION, LISTENER, Certificates, Reactor, Running, contained

OUTSIDE = Listener(ServerEndpoint("tcp", "tcp:143", "", 143))
PAIR = CertificatePair(Path("a.pem"), Path("a.key"))
CAPABLE = b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=CRAM-MD5] hi\r\n"


@pytest.fixture(autouse=True)
def nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor files are touched."""
    with contained(monkeypatch):
        yield


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
    reactor.taken.add(1143)
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
    assert any(line.startswith("critical: a periodic task ended") for line in running.lines)
    assert running.client()[1].read().startswith(b"* OK ")
    assert critical_events == []


def test_f15_sighup_reloads_certificates() -> None:
    """SIGHUP reads certificates again, in the reactor; where one is bad that is told, and the old ones all stay."""
    listener = attrs.evolve(LISTENER, tls=Tls.IMPLICIT, certificates=(PAIR,))
    running = Running(attrs.evolve(CONFIGURATION, listeners=(listener,)))
    Certificates.broken = True
    signal.raise_signal(signal.SIGHUP)
    with logged(module) as lines:
        running.reactor.advance(0)
    assert running.client()[1].creators == Certificates.made[:1]
    Certificates.broken = False
    signal.raise_signal(signal.SIGHUP)
    assert len(Certificates.made) == 1
    with logged(module) as more:
        running.reactor.advance(0)
    assert running.client()[1].creators == Certificates.made[1:]
    assert lines == ["error: nothing is reloaded, all stays as it was: a.pem is no certificate"]
    assert more == ["info: configuration and certificates reloaded"]


def test_trace_is_opened_again_at_a_reload_and_closed_at_the_end(tmp_path: Path) -> None:
    """The trace's file can be rotated away, as a log can; it ends when its time is up."""
    trace = Trace("alice", tmp_path / "trace", 600.0)
    running = Running(attrs.evolve(CONFIGURATION, trace=trace))
    traced = running.service.gate.journal.trace
    assert traced is not None
    assert traced.wants(b"alice")
    client, _ = running.client()
    event = Traced(Side.CLIENT, b"x")
    for end in (running.service.reload, running.service.stopService):
        traced.write(client.client, event)
        trace.file.rename(tmp_path / "rotated")
        end()
        running.reactor.pump([31, STOP_SECONDS, STOP_SECONDS, STOP_SECONDS])
        traced.write(client.client, event)
        assert len(trace.file.read_text().splitlines()) == 1
        trace.file.unlink()
        traced.close()
    running.reactor.advance(600)
    assert not traced.wants(b"alice")


# --- stopping ---------------------------------------------------------------------------------------


def test_f16_stop_tells_every_client_and_waits() -> None:
    """Clients hear BYE, and the service has stopped as soon as they have gone."""
    running = Running()
    running.answers_probe(CAPABLE)
    protocol, wire = running.client()
    wire.clear()
    done = running.stops()
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
    """A client that does not go is not waited for longer than for commands in flight and a little more."""
    running = Running(attrs.evolve(CONFIGURATION, limits=Limits(drain=5)))
    running.client()
    done = running.stops()
    running.reactor.pump([4.9])
    assert done == []
    running.reactor.pump([0.1, STOP_SECONDS - 0.1])
    assert done == []
    running.reactor.pump([0.1, STOP_SECONDS - 0.1])
    assert done == []
    running.reactor.pump([0.1, 0.1])
    assert done == [None]


def test_f16_ports_are_closed_first() -> None:
    """Nobody new comes in while clients are told: they are told when the ports are closed."""
    running = Running()
    closing = running.reactor.closing = Deferred()
    _, wire = running.client()
    wire.clear()
    running.stops()
    assert wire.read() == b""
    closing.callback(None)
    assert wire.read().startswith(b"* BYE ")


def test_stop_after_probing_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose probing has ended can be stopped like any other."""

    async def broken(*args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "probe", broken)
    running = Running()
    assert running.stops() == [None]
