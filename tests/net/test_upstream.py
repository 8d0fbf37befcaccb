"""One connection to an upstream server."""

from __future__ import annotations

import pytest
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from imapgate.net.upstream import CLOSE_SECONDS, Door, UpstreamProtocol
from imapgate.net.valve import Full
from tests.net.wires import DONE, Endpoint, Wire, connect, drop


class Listening:
    """An owner that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def upstream_secured(self) -> None:
        """TLS is up."""
        self.heard.append("secured")

    def upstream_received(self, data: bytes) -> None:
        """Octets."""
        self.heard.append(data)

    def upstream_lost(self, reason: Failure) -> None:
        """The end."""
        self.heard.append(reason)


class Bed:
    """A connection and its owner."""

    def __init__(
        self, *, tls: object = None, starttls: bool = False, first: bytes = b"", wire: Wire | None = None
    ) -> None:
        self.clock = Clock()
        self.owner = Listening()
        door = Door("door", Endpoint(), tls, starttls)  # type: ignore[arg-type]
        self.protocol = UpstreamProtocol(door, self.owner, self.clock, first)
        self.wire = wire or Wire()

    def connected(self) -> Bed:
        """Connect it."""
        connect(self.protocol, self.wire)
        return self


def test_interface() -> None:
    """It hears when the handshake is over."""
    assert verifyObject(IHandshakeListener, Bed().connected().protocol)


def test_socket() -> None:
    """A TCP socket sends at once and finds dead peers; another has no such options."""
    assert Bed().connected().wire.options == ["nodelay True", "keepalive True"]
    wire = Wire()
    directlyProvides(wire)
    assert Bed(wire=wire).connected().wire.options == []


@pytest.mark.parametrize(
    ("tls", "starttls", "at_once"), [(None, False, 0), ("creator", False, 1), ("creator", True, 0), (None, True, 0)]
)
def test_tls(tls: object, starttls: bool, at_once: int) -> None:
    """Implicit TLS begins at once, STARTTLS when the owner says so; the creator is the door's."""
    bed = Bed(tls=tls, starttls=starttls, first=b"PROXY").connected()
    assert bed.wire.read() == b"PROXY"
    assert bed.wire.creators == [tls] * at_once
    if starttls and tls:
        bed.protocol.start_tls()
        assert bed.wire.creators == [tls]


def test_owner_hears() -> None:
    """The owner hears of TLS, of octets and of the end, once, in order."""
    bed = Bed().connected()
    bed.protocol.handshakeCompleted()
    bed.protocol.dataReceived(b"* OK\r\n")
    drop(bed.protocol, bed.wire)
    bed.protocol.connectionLost(DONE)
    assert bed.owner.heard == ["secured", b"* OK\r\n", DONE]


@pytest.mark.parametrize("abort", [False, True])
def test_a51_nobody_hears_after_a_close(abort: bool) -> None:
    """After a close the owner hears nothing more, whatever still comes."""
    bed = Bed().connected()
    bed.wire.registerProducer(object(), True)
    bed.protocol.close(abort)
    assert bed.wire.producer is None
    bed.protocol.handshakeCompleted()
    bed.protocol.dataReceived(b"* OK\r\n")
    drop(bed.protocol, bed.wire)
    assert bed.owner.heard == []
    assert not bed.clock.getDelayedCalls()


def test_close_takes_a_bounded_time() -> None:
    """A server that does not close in turn is cut off."""
    bed = Bed().connected()
    bed.protocol.close()
    bed.protocol.close()
    assert len(bed.clock.getDelayedCalls()) == 1
    bed.clock.advance(CLOSE_SECONDS - 0.1)
    assert bed.wire.disconnecting
    assert not bed.wire.disconnected
    bed.clock.advance(0.1)
    assert bed.wire.disconnected
    drop(bed.protocol, bed.wire)


def test_abort_is_at_once() -> None:
    """An abort waits for nothing."""
    bed = Bed().connected()
    bed.protocol.close(abort=True)
    assert bed.wire.disconnected
    assert not bed.clock.getDelayedCalls()


def test_close_of_what_is_not_connected() -> None:
    """Closing what never was connected, or is no more, does nothing."""
    bed = Bed()
    bed.protocol.close()
    bed = Bed().connected()
    drop(bed.protocol, bed.wire)
    bed.protocol.close()
    assert bed.wire.open
    assert not bed.clock.getDelayedCalls()


def test_valve() -> None:
    """It is not read from while somebody holds it."""
    bed = Bed().connected()
    bed.protocol.valve.hold(Full.CLIENT)
    assert bed.wire.paused
    bed.protocol.valve.free(Full.CLIENT)
    assert not bed.wire.paused
