"""One client at a gate without sockets, and the upstream server behind it."""

from __future__ import annotations

import base64
from typing import cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from imapgate.limits import DEFAULTS, Limits
from imapgate.model.pool_mode import PoolMode
from imapgate.net import journal
from imapgate.net.client import ClientProtocol
from imapgate.net.dial import address_port
from imapgate.net.gate import Door
from imapgate.net.journal import Trace
from imapgate.net.tls import ServerCertificates
from imapgate.pooling.connection import Terms
from tests.net.wires import CLIENT, TERMS, Bench, Wire, bench, connect, drop, logged

CERTIFICATES = cast("ServerCertificates", object())
PLAINTEXT = Door("public", None, False, True)
STARTTLS = Door("public", CERTIFICATES, False, False)
IMPLICIT = Door("public", CERTIFICATES, True, False)

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


def mailbox(terms: Terms = TERMS, limits: Limits = DEFAULTS) -> Bench:
    """A gate in mode mailbox."""
    return bench(limits, mode=PoolMode.MAILBOX, terms=terms)


def unbound(made: Bench) -> Session:
    """A session that has logged in, and whose connection is idle again."""
    session = Session(made=made).logged_in()
    assert session.upstream_wire.read() == b"g2 NOOP\r\n"
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert made.stages() == ["idle"]
    return session


def selects(session: Session, tag: bytes = b"g3") -> Session:
    """It selects a mailbox."""
    assert session.says(b"s SELECT x\r\n") == b""
    assert session.upstream_wire.read() == tag + b" SELECT x\r\n"
    session.upstream.dataReceived(tag + b" OK done\r\n")
    assert session.wire.read() == b"s OK done\r\n"
    return session


def assert_nobodys(session: Session) -> None:
    """Nothing of this session is left at its upstream connection, nor of that at its client's."""
    assert session.upstream_wire.producer is None
    assert session.upstream.valve.reasons == ()  # type: ignore[attr-defined]
    assert not session.upstream_wire.paused
    assert not session.wire.paused
    assert session.protocol._sink._feeding == () or session.protocol._sink._feeding == (session.protocol._valve,)
