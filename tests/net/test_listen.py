"""Who comes in, and who is turned away."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from imapgate.limits import Limits
from imapgate.net import listen as module
from imapgate.net.client import ClientProtocol
from imapgate.net.gate import Door
from imapgate.net.listen import ClientFactory, TurnedAway
from imapgate.net.upstream import CLOSE_SECONDS
from tests.net.wires import Bench, Wire, bench, connect, drop, logged

DOOR = Door("public", None, False, False)


def factory(*, clients: int = 100, implicit: bool = False) -> tuple[Bench, ClientFactory, set[ClientProtocol]]:
    """A listener's factory."""
    made = bench(Limits(connections_per_address=1), clients=clients)
    sessions: set[ClientProtocol] = set()
    return made, ClientFactory(made.gate, DOOR._replace(implicit=implicit), sessions), sessions


@pytest.mark.parametrize(
    ("end", "address"),
    [
        (IPv4Address("TCP", "192.0.2.7", 1), "192.0.2.7"),
        (IPv6Address("TCP", "2001:db8::7", 1), "2001:db8::7"),
        (UNIXAddress(None), None),
        (None, None),
    ],
)
def test_clients_are_counted_in_and_out(end: IAddress | None, address: str | None) -> None:
    """Each client has a protocol and a session's name of its own, is counted from its address, and goes again."""
    made, clients, sessions = factory()
    protocol = clients.buildProtocol(end)
    assert isinstance(protocol, ClientProtocol)
    assert sessions == {protocol}
    assert protocol.address == address
    assert len(protocol.client.session) == 12
    assert made.gate.census.clients == 1
    other = clients.buildProtocol(UNIXAddress(None))
    assert isinstance(other, ClientProtocol)
    assert other.client.session != protocol.client.session
    drop(protocol, connect(protocol, Wire()))
    assert sessions == {other}
    assert made.gate.census.clients == 1
    assert isinstance(clients.buildProtocol(end), ClientProtocol)


@pytest.mark.parametrize(("implicit", "said"), [(False, b"* BYE [LIMIT] Too many connections\r\n"), (True, b"")])
def test_f18_one_too_many(implicit: bool, said: bytes) -> None:
    """A client that is one too many is told so where it can read it, and closed in bounded time."""
    made, clients, sessions = factory(clients=0, implicit=implicit)
    with logged(module) as lines:
        protocol = clients.buildProtocol(IPv4Address("TCP", "192.0.2.7", 1))
        local = clients.buildProtocol(UNIXAddress(None))
    assert lines == [
        "info: client turned away: address=192.0.2.7 reason=limit",
        "info: client turned away: address=unix reason=limit",
    ]
    assert isinstance(protocol, TurnedAway)
    assert isinstance(local, TurnedAway)
    wire, other = connect(protocol, Wire()), connect(local, Wire())
    assert wire.read() == said
    assert not wire.open
    drop(local, other)
    made.clock.advance(CLOSE_SECONDS)
    assert wire.disconnected
    assert not other.disconnected
    drop(protocol, wire)
    assert not made.clock.getDelayedCalls()
    assert made.gate.census.clients == 0
    assert not sessions


def test_one_address_too_often() -> None:
    """An address that has its connections is turned away, and another is not."""
    _, clients, _ = factory()
    first, again, other = (clients.buildProtocol(IPv4Address("TCP", f"192.0.2.{end}", 1)) for end in (7, 7, 8))
    assert isinstance(first, ClientProtocol)
    assert isinstance(again, TurnedAway)
    assert isinstance(other, ClientProtocol)
