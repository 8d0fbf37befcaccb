"""The PROXY protocol: parsing, encoding, and nothing happening before a trusted header (THREATS A44)."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim
from zope.interface import directlyProvides, implementer

from imapgate.net.proxy_protocol import (
    V2_LONGEST,
    V2_SIGNATURE,
    Header,
    HeaderParser,
    ProxyProtocolError,
    TrustedProxies,
    encode_v2,
)
from imapgate.net.tls import ServerCertificates, client_creator, describe

from .test_tls import Issued, Peer

reactor: Any = _reactor
PROXY = IPv4Address("TCP", "10.1.2.3", 40000)
LISTENER = IPv4Address("TCP", "10.1.2.4", 993)
NETWORKS = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.9 51000 993\r\n"


def v2(command: int, family: int, block: bytes, length: int | None = None) -> bytes:
    """Return a version 2 header."""
    return V2_SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def tlv(kind: int, value: bytes) -> bytes:
    """Return one type-length-value."""
    return struct.pack("!BH", kind, len(value)) + value


INET = bytes([192, 0, 2, 7, 198, 51, 100, 9]) + struct.pack("!HH", 51000, 993)
INET_ENDS = (("192.0.2.7", 51000), ("198.51.100.9", 993))
INET6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(15) + b"\x01" + struct.pack("!HH", 65535, 0)
INET6_ENDS = (("2001:db8::7", 65535), ("::1", 0))
UNIX = b"/run/client".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")
NOBODY = (None, None)

GOOD = {
    "v1 TCP4": (V1, INET_ENDS, False, socket.AF_INET),
    "v1 TCP4 longest": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        (("255.255.255.255", 65535), ("255.255.255.255", 65535)),
        False,
        socket.AF_INET,
    ),
    "v1 TCP6": (b"PROXY TCP6 2001:DB8:0::7 ::1 65535 0\r\n", INET6_ENDS, False, socket.AF_INET6),
    "v1 TCP6 longest": (
        b"PROXY TCP6 "
        + b" ".join([b"ffff:f...f:ffff".replace(b"f...f", b":".join([b"ffff"] * 6))] * 2)
        + b" 65535 65535\r\n",
        ((":".join(["ffff"] * 8), 65535), (":".join(["ffff"] * 8), 65535)),
        False,
        socket.AF_INET6,
    ),
    "v1 mapped": (
        b"PROXY TCP6 ::ffff:192.0.2.7 ::1 65535 0\r\n",
        (("::ffff:192.0.2.7", 65535), ("::1", 0)),
        False,
        socket.AF_INET6,
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", NOBODY, False, socket.AF_UNSPEC),
    "v1 UNKNOWN longest": (
        b"PROXY UNKNOWN " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
        NOBODY,
        False,
        socket.AF_UNSPEC,
    ),
    "v2 inet": (v2(0x21, 0x11, INET), INET_ENDS, False, socket.AF_INET),
    "v2 inet6": (v2(0x21, 0x21, INET6), INET6_ENDS, False, socket.AF_INET6),
    "v2 unix": (v2(0x21, 0x31, UNIX), (("/run/client", 0), ("\0abstract", 0)), False, socket.AF_UNIX),
    "v2 unix nameless": (
        v2(0x21, 0x31, bytes(108) + b"x" * 108),
        (("", 0), ("x" * 108, 0)),
        False,
        socket.AF_UNIX,
    ),
    "v2 local": (v2(0x20, 0x00, b""), NOBODY, False, socket.AF_UNSPEC),
    "v2 local with a block": (v2(0x20, 0xFF, b"\xff" * 40), NOBODY, False, socket.AF_UNSPEC),
    "v2 unspec": (v2(0x21, 0x00, b"junk"), NOBODY, False, socket.AF_UNSPEC),
    "v2 TLVs": (
        v2(0x21, 0x11, INET + tlv(0x04, b"") + tlv(0x03, b"\0\0\0\0") + tlv(0x02, b"mail.example.org")),
        INET_ENDS,
        False,
        socket.AF_INET,
    ),
    "v2 TLS": (
        v2(0x21, 0x11, INET + tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3")) + tlv(0x04, b"x")),
        INET_ENDS,
        True,
        socket.AF_INET,
    ),
    "v2 no TLS": (v2(0x21, 0x21, INET6 + tlv(0x20, b"\x06\0\0\0\1")), INET6_ENDS, False, socket.AF_INET6),
    "v2 longest": (
        v2(0x21, 0x11, INET + tlv(0xE0, bytes(V2_LONGEST - 16 - 12 - 3))),
        INET_ENDS,
        False,
        socket.AF_INET,
    ),
}

BAD = {
    "TLS": b"\x16\x03\x01\x02\x00",
    "IMAP": b"a1 LOGIN x y\r\n",
    "HTTP": b"GET / HTTP/1.1\r\n",
    "lower case": b"proxy TCP4 192.0.2.7 198.51.100.9 51000 993\r\n",
    "no space": b"PROXYTCP4 192.0.2.7 198.51.100.9 51000 993\r\n",
    "v1 empty": b"PROXY \r\n",
    "v1 bare LF": V1.replace(b"\r\n", b"\n"),
    "v1 LF in UNKNOWN": b"PROXY UNKNOWN x\ny\r\n",
    "v1 first space only": b"PROXY \n",
    "v1 other family": V1.replace(b"TCP4", b"UDP4"),
    "v1 family in lower case": V1.replace(b"TCP4", b"tcp4"),
    "v1 UNKNOWN without space": b"PROXY UNKNOWNX\r\n",
    "v1 families mixed": V1.replace(b"TCP4", b"TCP6"),
    "v1 two spaces": V1.replace(b"TCP4 ", b"TCP4  "),
    "v1 tab": V1.replace(b"TCP4 ", b"TCP4\t"),
    "v1 CR inside": V1.replace(b" 993", b"\r 993"),
    "v1 trailing space": V1.replace(b"\r\n", b" \r\n"),
    "v1 no port": b"PROXY TCP4 192.0.2.7 198.51.100.9 51000\r\n",
    "v1 one word more": V1.replace(b"\r\n", b" x\r\n"),
    "v1 port too big": V1.replace(b"51000", b"65536"),
    "v1 long port": V1.replace(b"51000", b"0051000"),
    "v1 port with a zero": V1.replace(b"993", b"0993"),
    "v1 signed port": V1.replace(b"993", b"+993"),
    "v1 odd digits": V1.replace(b"993", "\N{ARABIC-INDIC DIGIT ONE}".encode()),
    "v1 leading zero": V1.replace(b"192.0.2.7", b"192.0.02.7"),
    "v1 short form": V1.replace(b"192.0.2.7", b"192.519"),
    "v1 too big": V1.replace(b"192.0.2.7", b"256.0.2.7"),
    "v1 scope": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "v1 NUL": V1.replace(b"192.0.2.7", b"192.0.2.7\0"),
    "v1 8-bit": V1.replace(b"192.0.2.7", b"192.0.2.\xb7"),
    "v1 108 octets": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v1 endless": b"PROXY UNKNOWN " + b"x" * 100_000,
    "v2 signature changed": b"\r\n\r\n\0\r\nQUIT\r" + b"\x21\x11\0\0",
    "v2 version 1": v2(0x11, 0x11, INET),
    "v2 version 3": v2(0x31, 0x11, INET),
    "v2 command 2": v2(0x22, 0x11, INET),
    "v2 datagram": v2(0x21, 0x12, INET),
    "v2 datagram 6": v2(0x21, 0x22, INET6),
    "v2 datagram unix": v2(0x21, 0x32, UNIX),
    "v2 family 4": v2(0x21, 0x41, INET),
    "v2 no transport": v2(0x21, 0x10, INET),
    "v2 short inet": v2(0x21, 0x11, INET[:-1]),
    "v2 short inet6": v2(0x21, 0x21, INET6[:-1]),
    "v2 short unix": v2(0x21, 0x31, UNIX[:-1]),
    "v2 too long": v2(0x21, 0x11, INET, V2_LONGEST - 15),
    "v2 longest length": v2(0x21, 0x11, b"", 65535),
    "v2 local too long": v2(0x20, 0x00, b"", 65535),
    "v2 cut TLV": v2(0x21, 0x11, INET + b"\x04\0"),
    "v2 TLV beyond": v2(0x21, 0x11, INET + b"\x04\0\x02x") + b"xxxx",
    "v2 short SSL": v2(0x21, 0x11, INET + tlv(0x20, b"\x01\0\0\0")),
}


# The parser


def fed(pieces: list[bytes]) -> Header | None:
    """Feed a fresh parser until its header is whole; what was not fed then is left in ``rest``."""
    parser = HeaderParser()
    for number, piece in enumerate(pieces):
        header = parser.feed(piece)
        if header is not None:
            return header._replace(rest=header.rest + b"".join(pieces[number + 1 :]))
    return None


@pytest.mark.parametrize("name", GOOD)
def test_good_headers(name: str) -> None:
    """Every form of the specification is read, alone, with what follows, and byte by byte."""
    octets, ends, tls, family = GOOD[name]
    expected = Header(*ends, b"", tls, family)
    assert fed([octets]) == expected
    for behind in (b"a1 NOOP\r\n", b"\n", V2_SIGNATURE, b"\x16\x03\x01" + bytes(70_000)):
        assert fed([octets + behind]) == expected._replace(rest=behind)
        assert fed([bytes([octet]) for octet in octets] + [behind]) == expected._replace(rest=behind)


@pytest.mark.parametrize("name", [name for name in GOOD if name != "v2 longest"])
def test_a44_split_at_every_byte(name: str) -> None:
    """A header in two pieces is the same header wherever it is cut, and is never whole too early."""
    octets, ends, tls, family = GOOD[name]
    for at in range(len(octets)):
        parser = HeaderParser()
        assert parser.feed(octets[:at]) is None
        assert parser.feed(octets[at:] + b"rest") == Header(*ends, b"rest", tls, family)


@pytest.mark.parametrize("name", BAD)
def test_a44_bad_headers(name: str) -> None:
    """Everything else is refused, whole and byte by byte, before more than the longest header was gathered."""
    with pytest.raises(ProxyProtocolError):
        fed([BAD[name]])
    parser = HeaderParser()
    taken = 0
    for octet in BAD[name]:
        taken += 1
        try:
            assert parser.feed(bytes([octet])) is None
        except ProxyProtocolError:
            break
    else:
        pytest.fail("accepted")
    assert taken <= (V2_LONGEST if BAD[name].startswith(V2_SIGNATURE) else 107)


def test_a44_length_is_judged_before_it_is_awaited() -> None:
    """A length, command or family that will be refused is refused at the sixteenth octet."""
    for octets in (
        v2(0x21, 0x11, b"", 65535),
        v2(0x2F, 0x11, b"", 12),
        v2(0x21, 0x55, b"", 12),
        v2(0x21, 0x21, b"", 12),
    ):
        parser = HeaderParser()
        assert parser.feed(octets[:15]) is None
        with pytest.raises(ProxyProtocolError):
            parser.feed(octets[15:])


_openings = st.sampled_from(
    [b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ::1", V2_SIGNATURE, V2_SIGNATURE + b"\x21\x11\0\x20"]
)


@given(_openings, st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20))
def test_a44_fuzz(opening: bytes, junk: bytes, sizes: list[int]) -> None:
    """Any bytes give a header, a wish for more, or ProxyProtocolError, and the same one however they are cut."""

    def outcome(pieces: list[bytes]) -> object:
        try:
            return fed(pieces)
        except ProxyProtocolError:
            return ProxyProtocolError

    def pieces() -> Iterator[bytes]:
        left = octets
        for size in sizes:
            yield left[:size]
            left = left[size:]
        yield left

    octets = opening + junk
    assert outcome(list(pieces())) == outcome([octets])


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 300), st.integers(0, 255))
def test_a44_fuzz_one_octet_changed(name: str, at: int, octet: int) -> None:
    """A good header with one octet changed is still a header, wants more, or is refused."""
    octets = bytearray(GOOD[name][0])
    octets[at % len(octets)] = octet
    try:
        header = fed([bytes(octets)])
    except ProxyProtocolError:
        return
    assert header is None or header.rest in (b"", bytes(octets)[-len(header.rest) :])


# The encoder


_ports = st.integers(0, 65535)
_v4 = st.tuples(st.ip_addresses(v=4).map(str), _ports)
_v6 = st.tuples(st.ip_addresses(v=6).map(lambda a: socket.inet_ntop(socket.AF_INET6, a.packed)), _ports)


@given(st.one_of(st.tuples(_v4, _v4), st.tuples(_v6, _v6)))
def test_encode_what_is_parsed(ends: tuple[tuple[str, int], tuple[str, int]]) -> None:
    """What is encoded is parsed as the same addresses."""
    header = fed([encode_v2(*ends) + b"rest"])
    assert header is not None
    assert (header.source, header.destination, header.rest) == (*ends, b"rest")


def test_encode() -> None:
    """The octets are those of the specification; one unknown end means LOCAL; mixed families meet in IPv6."""
    assert encode_v2(*INET_ENDS) == GOOD["v2 inet"][0]
    assert encode_v2(*INET6_ENDS) == GOOD["v2 inet6"][0]
    assert encode_v2(None, INET_ENDS[1]) == encode_v2(INET_ENDS[0], None) == GOOD["v2 local"][0]
    mixed = fed([encode_v2(INET_ENDS[0], INET6_ENDS[1])])
    assert mixed == Header(("::ffff:192.0.2.7", 51000), ("::1", 0), b"", False, socket.AF_INET6)
    scoped = fed([encode_v2(("fe80::1%eth0", 1), ("fe80::2", 2))])
    assert scoped == Header(("fe80::1", 1), ("fe80::2", 2), b"", False, socket.AF_INET6)


# The wrapper


class Inside(Peer):
    """The protocol inside: greets when it is connected, and writes down what it is told."""

    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.greeted_as: tuple[IAddress, IAddress] | None = None
        self.on_connection: Callable[[Inside], None] | None = None

    def connectionMade(self) -> None:
        """Greet."""
        self.greeted_as = self.transport.getPeer(), self.transport.getHost()
        self.transport.write(b"* OK\r\n")
        if self.on_connection is not None:
            self.on_connection(self)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Inside):
    """One that takes half closes apart."""

    halves = ""

    def readConnectionLost(self) -> None:
        """Note the client's."""
        self.halves += "r"

    def writeConnectionLost(self) -> None:
        """Note our own."""
        self.halves += "w"


class Transport(StringTransport):
    """A transport that tells whether it was aborted, provides TLS's interface, and logs the calls it gets."""

    def __init__(self) -> None:
        super().__init__(hostAddress=LISTENER, peerAddress=PROXY)  # type: ignore[no-untyped-call]
        self.calls: list[object] = []

    def startTLS(self, creator: object, normal: bool = True) -> None:
        """Note the call, and become what a transport with TLS is."""
        self.calls.append(("startTLS", creator, normal))
        directlyProvides(self, ISSLTransport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Note the call."""
        self.calls.append(("setTcpNoDelay", enabled))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Note the call."""
        self.calls.append(("setTcpKeepAlive", enabled))

    def loseWriteConnection(self) -> None:
        """Note the call."""
        self.calls.append("loseWriteConnection")


class Wrapped:
    """One connection from the trusted proxy, up to its header."""

    def __init__(self, inside: Protocol | None = None) -> None:
        self.clock = Clock()
        self.built_for: list[object] = []
        self.inside: Any = Inside() if inside is None else inside
        self.factory = TrustedProxies(Factory.forProtocol(self._build), NETWORKS, 10, self.clock)
        self.factory.doStart()  # type: ignore[no-untyped-call]
        connection = self.factory.buildProtocol(PROXY)
        assert connection is not None
        self.connection: Any = connection
        self.transport: Any = Transport()
        self.connection.makeConnection(self.transport)

    def _build(self) -> Protocol:
        self.built_for.append(None)
        return self.inside  # type: ignore[no-any-return]

    def lose(self) -> None:
        """End the connection as a reactor would."""
        self.connection.connectionLost(Failure(ConnectionDone()))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("name", ["v1 TCP4", "v2 inet"])
def test_a44_nothing_before_the_header(name: str) -> None:
    """The protocol inside is not built, and nothing is written, until the last octet of the header."""
    octets = GOOD[name][0]
    wrapped = Wrapped()
    for octet in octets[:-1]:
        wrapped.connection.dataReceived(bytes([octet]))
        assert (wrapped.built_for, wrapped.transport.value()) == ([], b"")
    wrapped.connection.dataReceived(octets[-1:] + b"a1 NOOP\r\n")
    assert len(wrapped.built_for) == 1
    assert wrapped.transport.value() == b"* OK\r\n"
    assert wrapped.inside.received == b"a1 NOOP\r\n"
    wrapped.connection.dataReceived(b"PROXY ")
    assert wrapped.inside.received == b"a1 NOOP\r\nPROXY "
    assert wrapped.clock.getDelayedCalls() == []
    wrapped.lose()
    assert isinstance(wrapped.inside.reason, ConnectionDone)
    assert wrapped.factory.protocols == {}


@pytest.mark.parametrize(
    ("name", "peer", "host"),
    [
        ("v1 TCP4", IPv4Address("TCP", "192.0.2.7", 51000), IPv4Address("TCP", "198.51.100.9", 993)),
        ("v2 inet6", IPv6Address("TCP", "2001:db8::7", 65535), IPv6Address("TCP", "::1", 0)),
        ("v2 unix", UNIXAddress("/run/client"), UNIXAddress("\0abstract")),
        ("v1 UNKNOWN", PROXY, LISTENER),
        ("v2 local", PROXY, LISTENER),
    ],
)
def test_addresses(name: str, peer: IAddress, host: IAddress) -> None:
    """The factory and the protocol inside are told the header's addresses; without any, the connection's own."""
    wrapped = Wrapped()
    asked: list[object] = []
    build = wrapped.factory.wrappedFactory.buildProtocol

    def asking(address: object) -> object:
        asked.append(address)
        return build(address)

    wrapped.factory.wrappedFactory.buildProtocol = asking
    wrapped.connection.dataReceived(GOOD[name][0])
    assert asked == [peer]
    assert wrapped.inside.greeted_as == (peer, host)
    header = wrapped.inside.transport.proxy_header
    assert header == fed([GOOD[name][0]])


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        (PROXY, True),
        (IPv4Address("TCP", "11.0.0.1", 1), False),
        (IPv6Address("TCP", "fd00::1", 1), True),
        (IPv6Address("TCP", "2001:db8::1", 1), False),
        (IPv6Address("TCP", "::ffff:10.0.0.1", 1), True),
        (IPv6Address("TCP", "::ffff:11.0.0.1", 1), False),
        (UNIXAddress("/run/x"), False),
        (None, False),
    ],
)
def test_a44_untrusted_peer(peer: IAddress | None, trusted: bool) -> None:
    """A peer outside the networks gets no connection object (so is closed at once), and one line says so."""
    built: list[object] = []
    factory = TrustedProxies(Factory.forProtocol(lambda: built.append(None)), NETWORKS, 10, Clock())  # type: ignore[type-var]
    with capturedLogs() as events:
        connection = factory.buildProtocol(peer)
    assert (connection is not None, built) == (trusted, [])
    assert [event["peer"] for event in events] == ([] if trusted else [getattr(peer, "host", "unix")])


def test_unix_peer_may_be_trusted() -> None:
    """A Unix socket's peer is trusted where the operator says so, and then sends a header like any other."""
    factory = TrustedProxies(Factory.forProtocol(Inside), [], 10, Clock(), trust_unix=True)
    assert factory.buildProtocol(UNIXAddress("/run/x")) is not None
    assert factory.buildProtocol(PROXY) is None


@pytest.mark.parametrize("name", ["TLS", "v1 port too big", "v2 longest length"])
def test_a44_bad_header_aborts(name: str) -> None:
    """A bad header ends the connection with one log line, nothing built and nothing written; the rest is not read."""
    wrapped = Wrapped()
    with capturedLogs() as events:
        wrapped.connection.dataReceived(BAD[name])
        wrapped.connection.dataReceived(V1)
    assert wrapped.transport.disconnected or wrapped.transport.disconnecting
    assert (wrapped.built_for, wrapped.transport.value()) == ([], b"")
    assert [(event["peer"], event["reason"].partition(":")[0]) for event in events] == [
        ("10.1.2.3", "bad PROXY header")
    ]
    assert wrapped.clock.getDelayedCalls() == []
    wrapped.lose()


def test_a44_late_header_aborts() -> None:
    """The header's time is absolute: octets do not lengthen it."""
    wrapped = Wrapped()
    with capturedLogs() as events:
        for octet in V1[:9]:
            wrapped.clock.advance(1)
            wrapped.connection.dataReceived(bytes([octet]))
        assert not wrapped.transport.disconnecting
        wrapped.clock.advance(1)
    assert wrapped.transport.disconnecting
    assert [event["reason"] for event in events] == ["no PROXY header within 10 s"]
    wrapped.connection.dataReceived(V1[9:])
    assert (wrapped.built_for, wrapped.transport.value()) == ([], b"")
    wrapped.lose()


def test_lost_before_the_header() -> None:
    """A connection that ends while its header is awaited leaves no timer and tells nobody."""
    wrapped = Wrapped()
    with capturedLogs() as events:
        wrapped.lose()
    assert (wrapped.clock.getDelayedCalls(), wrapped.built_for, events, wrapped.factory.protocols) == ([], [], [], {})


def test_inside_may_refuse() -> None:
    """A factory inside that builds nothing for this client ends the connection."""
    wrapped = Wrapped()
    wrapped.factory.wrappedFactory.buildProtocol = lambda address: None
    wrapped.connection.dataReceived(V1)
    assert wrapped.transport.disconnecting
    wrapped.lose()


@pytest.mark.parametrize("way", ["loseConnection", "abortConnection"])
def test_inside_may_close_at_once(way: str) -> None:
    """Nothing is delivered to a protocol that closed in its connectionMade."""
    inside = Inside()
    inside.on_connection = lambda it: getattr(it.transport, way)()
    wrapped = Wrapped(inside)
    wrapped.connection.dataReceived(V1 + b"a1 NOOP\r\n")
    assert wrapped.transport.disconnecting
    assert inside.received == b""


def test_transport_calls_pass() -> None:
    """What the protocol inside asks of its transport reaches the real one, through a TLS layer between as well."""
    for layered in (False, True):
        wrapped = Wrapped(_TLSLayer() if layered else None)
        wrapped.connection.dataReceived(V1)
        transport = wrapped.inside if layered else wrapped.inside.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(1)
        transport.loseWriteConnection()
        transport.pauseProducing()
        assert wrapped.transport.producerState == "paused"
        transport.resumeProducing()
        assert wrapped.transport.producerState == "producing"
        assert transport.proxy_header.source == INET_ENDS[0]
        assert wrapped.transport.calls == [("setTcpNoDelay", True), ("setTcpKeepAlive", 1), "loseWriteConnection"]
        with pytest.raises(AttributeError):
            transport.noSuchThing()


class _TLSLayer(Protocol):
    """Stands for TLSMemoryBIOProtocol in that it hands unknown attributes down."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


def test_producers_pass() -> None:
    """Producers are registered at the real transport and writes arrive there."""
    wrapped = Wrapped()
    wrapped.connection.dataReceived(V1)
    producer = object()
    inner = wrapped.inside.transport
    inner.registerProducer(producer, True)
    assert wrapped.transport.producer is producer
    inner.unregisterProducer()
    assert wrapped.transport.producer is None
    wrapped.transport.clear()
    inner.writeSequence([b"a", b"b"])
    assert wrapped.transport.value() == b"ab"


def test_start_tls_passes() -> None:
    """startTLS starts TLS at the real transport; its interfaces and the completed handshake come through."""
    wrapped = Wrapped()
    wrapped.connection.dataReceived(V1)
    inner = wrapped.inside.transport
    creator = object()
    assert not ISSLTransport.providedBy(inner)
    inner.startTLS(creator)
    assert wrapped.transport.calls == [("startTLS", creator, True)]
    assert ISSLTransport.providedBy(inner)
    assert IHandshakeListener.providedBy(wrapped.connection)
    wrapped.connection.handshakeCompleted()
    assert wrapped.inside.handshakes == 1


def test_half_closes_pass() -> None:
    """Half closes reach a protocol that takes them, and only such a one has the interface put in front of it."""
    plain = Wrapped()
    plain.connection.dataReceived(V1)
    assert not IHalfCloseableProtocol.providedBy(plain.connection)
    wrapped = Wrapped(HalfCloseable())
    assert not IHalfCloseableProtocol.providedBy(wrapped.connection)
    wrapped.connection.dataReceived(V1)
    assert IHalfCloseableProtocol.providedBy(wrapped.connection)
    wrapped.connection.readConnectionLost()
    wrapped.connection.writeConnectionLost()
    assert wrapped.inside.halves == "rw"


def test_cost_per_chunk() -> None:
    """After the header a chunk costs one Python call more than without the wrapper, each way."""
    wrapped = Wrapped(Protocol())
    wrapped.connection.dataReceived(V1)

    def calls(*steps: Callable[[bytes], object]) -> list[str]:
        names: list[str] = []

        def count(frame: Any, event: str, argument: object) -> None:
            if event == "call":
                names.append(frame.f_code.co_qualname)

        sys.setprofile(count)
        for step in steps:
            step(b"x")
        sys.setprofile(None)
        return names

    direct = calls(wrapped.inside.dataReceived, wrapped.transport.write)
    through = calls(wrapped.connection.dataReceived, wrapped.inside.transport.write)
    assert sorted(through) == sorted([*direct, "ProxiedConnection.dataReceived", "ProtocolWrapper.write"])


# With TLS


@pytest.fixture
def certificates(tmp_path: Path) -> ServerCertificates:
    """Return a listener's certificates for mail.example.org."""
    return ServerCertificates([Issued("mail", names=("mail.example.org",)).store(tmp_path, "mail")])


def _ca(certificates: ServerCertificates) -> Path:
    return certificates._pairs[0][0]


@pytest.mark.parametrize("name", ["v1 TCP4", "v2 inet"])
def test_a44_tls_behind_the_header(certificates: ServerCertificates, name: str) -> None:
    """TCP, PROXY, TLS, protocol: a real handshake behind the header, with the client's address at the top."""
    clock = Clock()
    inside = Inside()
    tls = TLSMemoryBIOFactory(certificates, False, Factory.forProtocol(lambda: inside), clock)
    server = TrustedProxies(tls, NETWORKS, 10, clock).buildProtocol(PROXY)
    client = Peer(b"a1 NOOP\r\n")
    creator = client_creator("mail.example.org", _ca(certificates), insecure=False)
    client_side = TLSMemoryBIOFactory(creator, True, Factory.forProtocol(lambda: client), clock).buildProtocol(None)

    def server_transport(protocol: object) -> iosim.FakeTransport:
        return iosim.FakeTransport(protocol, True, LISTENER, PROXY)  # type: ignore[no-untyped-call]

    def client_transport(protocol: object) -> iosim.FakeTransport:
        transport = iosim.FakeTransport(protocol, False)  # type: ignore[no-untyped-call]
        transport.write(GOOD[name][0])  # type: ignore[no-untyped-call]
        return transport

    _, _, pump = iosim.connectedServerAndClient(
        lambda: server,
        lambda: client_side,
        client_transport,
        server_transport,
        clock=clock,
    )
    pump.flush()  # type: ignore[no-untyped-call]
    assert (inside.received, client.received) == (b"a1 NOOP\r\n", b"* OK\r\n")
    assert inside.greeted_as == (IPv4Address("TCP", *INET_ENDS[0]), IPv4Address("TCP", *INET_ENDS[1]))
    assert describe(inside.transport) == "TLSv1.3 TLS_AES_256_GCM_SHA384"
    inside.transport.setTcpNoDelay(True)
    inside.transport.setTcpKeepAlive(True)
    assert inside.transport.proxy_header.source == INET_ENDS[0]
    inside.transport.loseConnection()
    pump.flush()  # type: ignore[no-untyped-call]
    assert inside.reason is not None
    assert client.reason is not None


@implementer(IHalfCloseableProtocol)
class StartsTLS(HalfCloseable):
    """Starts TLS at the word of its client, then echoes."""

    def __init__(self, certificates: ServerCertificates) -> None:
        super().__init__()
        self.certificates = certificates
        self.provided: list[bool] = []

    def dataReceived(self, data: bytes) -> None:
        """Start TLS below, or echo."""
        if data == b"STARTTLS\r\n":
            self.provided = [ITLSTransport.providedBy(self.transport), ITCPTransport.providedBy(self.transport)]
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
            self.transport.write(b"OK\r\n")
            self.transport.startTLS(self.certificates)
        else:
            self.transport.write(data)

    def readConnectionLost(self) -> None:
        """Answer a half close, and close."""
        super().readConnectionLost()
        self.transport.write(b"bye")
        self.transport.loseConnection()


class Client(Peer):
    """Collects, and fires ``waiting`` when what it waits for has come."""

    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.wanted = b""
        self.waiting: Deferred[None] | None = None

    def until(self, wanted: bytes) -> Deferred[None]:
        """Return what fires once ``wanted`` is the end of what was received, within ten seconds."""
        self.wanted, self.waiting = wanted, Deferred()
        self.waiting.addTimeout(10, reactor)
        result = self.waiting
        self._look()
        return result

    def _look(self) -> None:
        if self.waiting is not None and self.received.endswith(self.wanted):
            waiting, self.waiting = self.waiting, None
            waiting.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Collect."""
        super().dataReceived(data)
        self._look()


async def _connected(inside: Protocol) -> tuple[Client, Any]:
    factory = TrustedProxies(
        Factory.forProtocol(lambda: inside),
        [ipaddress.ip_network("127.0.0.0/8")],
        10,
        reactor,
    )
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)  # type: ignore[no-untyped-call]
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, timeout=10)
    return await connectProtocol(endpoint, Client()), port  # type: ignore[no-untyped-call]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_starttls_over_sockets(certificates: ServerCertificates) -> None:
    """On a real socket: header, greeting, STARTTLS below the wrapper, verified, both directions, and closed."""
    inside = StartsTLS(certificates)
    client, port = await _connected(inside)
    try:
        transport: Any = client.transport
        transport.write(V1[:20])
        transport.write(V1[20:])
        await client.until(b"* OK\r\n")
        transport.write(b"STARTTLS\r\n")
        await client.until(b"* OK\r\nOK\r\n")
        transport.startTLS(client_creator("mail.example.org", _ca(certificates), insecure=False))
        transport.write(b"echo")
        await client.until(b"echo")
        assert inside.provided == [True, True]
        assert (client.handshakes, inside.handshakes) == (1, 1)
        assert ISSLTransport.providedBy(inside.transport)
        assert describe(inside.transport) == describe(transport) == "TLSv1.3 TLS_AES_256_GCM_SHA384"
        assert inside.transport.getPeer() == IPv4Address("TCP", *INET_ENDS[0])
    finally:
        client.transport.abortConnection()
        await port.stopListening()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_half_close_over_sockets(certificates: ServerCertificates) -> None:
    """On a real socket the client's half close is answered by the protocol inside."""
    inside = StartsTLS(certificates)
    client, port = await _connected(inside)
    try:
        client.transport.write(V1)
        client.transport.loseWriteConnection()
        await client.until(b"* OK\r\nbye")
        assert inside.halves == "r"
    finally:
        client.transport.abortConnection()
        await port.stopListening()
