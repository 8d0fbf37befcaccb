"""Who comes in: each connection is counted, given its protocol, or turned away."""

from __future__ import annotations

import secrets

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol

from imapgate.log import log
from imapgate.net.client import ClientProtocol
from imapgate.net.gate import Door, Gate
from imapgate.net.upstream import CLOSE_SECONDS
from imapgate.net.valve import Transport
from imapgate.session.session import TOO_MANY


class TurnedAway(Protocol):
    """A client that is one too many: it is told so, where no TLS stands between, and closed."""

    transport: Transport  # type: ignore[assignment]

    def __init__(self, clock: IReactorTime, line: bytes) -> None:
        self._clock = clock
        self._line = line

    def connectionMade(self) -> None:
        """Say the one line and close."""
        if self._line:
            self.transport.write(self._line)
        self._late = self._clock.callLater(CLOSE_SECONDS, self.transport.abortConnection)
        self.transport.loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        """It is gone."""
        if self._late.active():
            self._late.cancel()


class ClientFactory(Factory):
    """Makes the protocols of one listener's clients.

    :param sessions: the protocols of all clients that are there, whatever listener they came by
    """

    noisy = False

    def __init__(self, gate: Gate, door: Door, sessions: set[ClientProtocol]) -> None:
        self._gate = gate
        self._door = door
        self._sessions = sessions

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Return the protocol of a client from ``addr``, which a trusted proxy may have told."""
        address = addr.host if isinstance(addr, IPv4Address | IPv6Address) else None
        if not self._gate.census.enter(address):
            log.info("client turned away: address={address} reason=limit", address=address or "unix")
            return TurnedAway(self._gate.clock, b"" if self._door.implicit else TOO_MANY)
        protocol = ClientProtocol(self._gate, self._door, address, secrets.token_hex(6), self._left)
        self._sessions.add(protocol)
        return protocol

    def _left(self, protocol: ClientProtocol) -> None:
        self._sessions.discard(protocol)
        self._gate.census.leave(protocol.address)
