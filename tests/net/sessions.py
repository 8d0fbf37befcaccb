"""One client at a gate without sockets, and the upstream server behind it."""

from __future__ import annotations

import base64
from typing import cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from imapgate.limits import DEFAULTS, Limits
from imapgate.net import journal
from imapgate.net.client import ClientProtocol, Door, address_port
from imapgate.net.journal import Trace
from imapgate.net.tls import ServerCertificates
from tests.net.wires import CLIENT, Bench, Wire, bench, connect, drop, logged

CERTIFICATES = cast("ServerCertificates", object())
PLAINTEXT = Door(None, False, True)
STARTTLS = Door(CERTIFICATES, False, False)
IMPLICIT = Door(CERTIFICATES, True, False)

UPSTREAM_GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hello\r\n"
AUTHENTICATE = b"g1 AUTHENTICATE PLAIN %b\r\n" % base64.b64encode(b"\0alice\0pw")
LOGIN = b"a LOGIN alice pw\r\n"
OK = b"g1 OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"


class Session:
    """One client at a gate, and what is behind it."""

    def __init__(
        self,
        door: Door = PLAINTEXT,
        limits: Limits = DEFAULTS,
        peer: IAddress = CLIENT,
        trace: Trace | None = None,
        made: Bench | None = None,
    ) -> None:
        self.made = made or bench(limits, trace=trace)
        self.clock: Clock = self.made.clock
        self.gone: list[ClientProtocol] = []
        address = address_port(peer)
        self.protocol = ClientProtocol(self.made.gate, door, address and address[0], "0123456789ab", self.gone.append)
        self.wire = Wire(peer)
        self.upstream: Protocol
        self.upstream_wire: Wire

    def connected(self) -> Session:
        """Connect the client."""
        connect(self.protocol, self.wire)
        return self

    def says(self, data: bytes) -> bytes:
        """The client says this; what is it told?"""
        self.protocol.dataReceived(data)
        return self.wire.read()

    def logged_in(self) -> Session:
        """Connect and log in."""
        self.connected()
        self.says(LOGIN)
        self.upstream, self.upstream_wire = self.made.endpoints[0].opens(UPSTREAM_GREETING)
        assert self.upstream_wire.read() == AUTHENTICATE
        self.upstream.dataReceived(OK)
        assert self.wire.read().startswith(b"a OK [CAPABILITY IMAP4rev1 IDLE LITERAL+ SASL-IR ID] ")
        return self

    def lost(self) -> list[str]:
        """The client goes; the lines that are logged."""
        with logged(journal) as lines:
            drop(self.protocol, self.wire)
        return lines

    def reason(self) -> str:
        """The client goes; the reason that is logged for the end of the session."""
        (line,) = (line for line in self.lost() if line.startswith("info: session ended: "))
        return line.split('reason="')[1].split('"')[0]
