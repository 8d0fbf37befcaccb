"""The PROXY protocol, versions 1 and 2: who the client is, told by a trusted balancer in front of the listener.

The order on the wire is TCP, then the PROXY header in clear, then TLS (if any), then the protocol inside, which is not
even built before the whole header came. Parser and encoder are plain functions of bytes; the rest is Twisted. Source:
https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet import interfaces
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, directlyProvides, providedBy

from imapgate.errors import ImapgateError
from imapgate.log import log

AddressPort = tuple[str, int]

V1_PREFIX = b"PROXY "
V1_LONGEST = 107
V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2_LONGEST = 4096  # the specification's own senders stay below 536

_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_V1_FAMILIES = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}
_V2_FAMILIES = {
    0x00: (socket.AF_UNSPEC, struct.Struct("")),
    0x11: (socket.AF_INET, struct.Struct("!4s4sHH")),
    0x21: (socket.AF_INET6, struct.Struct("!16s16sHH")),
    0x31: (socket.AF_UNIX, struct.Struct("!108s108s")),
}
"""Stream families only, with the shape of their addresses: a datagram has no place on a TCP connection."""
_TLV_SSL = 0x20
_CLIENT_SSL = 0x01


class ProxyProtocolError(ImapgateError):
    """The bytes are no PROXY header that this listener takes; the message is safe to log."""


class Header(NamedTuple):
    """What the balancer told, and the bytes that came behind it (``rest``).

    Addresses are (address, port), of a Unix socket (path, 0), and None (family AF_UNSPEC) for LOCAL and UNKNOWN.
    ``tls`` is PP2_TYPE_SSL's word that the client speaks TLS with the balancer.
    """

    source: AddressPort | None
    destination: AddressPort | None
    rest: bytes
    tls: bool = False
    family: socket.AddressFamily = socket.AF_UNSPEC


# Parsing -------------------------------------------------------------------------------------------------------------


class HeaderParser:
    """Gathers one header, in pieces of any size; holds at most the longest one and the piece that ends it."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Header | None:
        """Return the header once it is whole, None while it is not; raise ProxyProtocolError for anything else."""
        self._buffer += data
        buffer = self._buffer
        if buffer.startswith(V2_SIGNATURE):
            return _parse_v2(buffer)
        if buffer.startswith(V1_PREFIX):
            return _parse_v1(buffer)
        if V2_SIGNATURE.startswith(buffer) or V1_PREFIX.startswith(buffer):
            return None
        raise ProxyProtocolError("the first bytes are no PROXY header")


def _parse_v1(buffer: bytes) -> Header | None:
    """Read ``PROXY TCP4 192.0.2.1 192.0.2.2 50000 993`` CRLF."""
    end = buffer.find(b"\n", 0, V1_LONGEST)
    if end < 0:
        if len(buffer) >= V1_LONGEST:
            raise ProxyProtocolError(f"version 1: no line end within {V1_LONGEST} octets")
        return None
    if buffer[end - 1] != 0x0D:
        raise ProxyProtocolError("version 1: the line does not end in CR LF")
    words = buffer[: end - 1].split(b" ")
    rest = buffer[end + 1 :]
    if words[1] == b"UNKNOWN":  # whatever else the line says is to be ignored
        return Header(None, None, rest)
    family = _V1_FAMILIES.get(words[1])
    if family is None or len(words) != 6:
        raise ProxyProtocolError("version 1: not a family, two addresses and two ports")
    source, destination = (_v1_address(family, words[at], words[at + 2]) for at in (2, 3))
    return Header(source, destination, rest, False, family)


def _v1_address(family: socket.AddressFamily, address: bytes, port: bytes) -> AddressPort:
    """Return the address in its canonical form, with its port."""
    try:
        packed = socket.inet_pton(family, address.decode("ascii"))
    except (OSError, ValueError):
        raise ProxyProtocolError("version 1: not an address of its family") from None
    if _PORT.fullmatch(port) is None or int(port) > 65535:
        raise ProxyProtocolError("version 1: not a port")
    return socket.inet_ntop(family, packed), int(port)


def _parse_v2(buffer: bytes) -> Header | None:
    """Read the signature, version and command, family, length, and as many octets as that says."""
    if len(buffer) < 16:
        return None
    version_command, family_byte, length = struct.unpack_from("!BBH", buffer, 12)
    if version_command not in (0x20, 0x21):
        raise ProxyProtocolError("version 2: not this version, or an unknown command")
    end = 16 + length
    if end > V2_LONGEST:
        raise ProxyProtocolError(f"version 2: longer than {V2_LONGEST} octets")
    if version_command == 0x20:  # LOCAL: the family does not count
        family_byte = 0x00
    if family_byte not in _V2_FAMILIES:
        raise ProxyProtocolError("version 2: an address family that no stream has")
    family, shape = _V2_FAMILIES[family_byte]
    if shape.size > length:
        raise ProxyProtocolError("version 2: too short for its addresses")
    if len(buffer) < end:
        return None
    rest = buffer[end:]
    if family == socket.AF_UNSPEC:  # the block is to be discarded
        return Header(None, None, rest)
    fields = shape.unpack_from(buffer, 16)
    tls = _says_tls(buffer[16 + shape.size : end])
    if family == socket.AF_UNIX:
        return Header((_unix_path(fields[0]), 0), (_unix_path(fields[1]), 0), rest, tls, family)
    source, destination = (socket.inet_ntop(family, packed) for packed in fields[:2])
    return Header((source, fields[2]), (destination, fields[3]), rest, tls, family)


def _unix_path(field: bytes) -> str:
    """Return a path from its zero-padded field; an abstract name keeps its leading zero."""
    first, path = field[:1], field[1:].partition(b"\x00")[0]
    return (first + path if path else first.rstrip(b"\x00")).decode("utf-8", "backslashreplace")


def _says_tls(block: bytes) -> bool:
    """Walk the type-length-values; all but PP2_TYPE_SSL are passed over (the checksum too: TCP has one)."""
    at, tls = 0, False
    while at < len(block):
        if len(block) - at < 3:
            raise ProxyProtocolError("version 2: a cut TLV")
        kind, length = struct.unpack_from("!BH", block, at)
        value = block[at + 3 : at + 3 + length]
        if len(value) < length or (kind == _TLV_SSL and length < 5):
            raise ProxyProtocolError("version 2: a cut TLV")
        if kind == _TLV_SSL:
            tls = bool(value[0] & _CLIENT_SSL)
        at += 3 + length
    return tls


def encode_v2(source: AddressPort | None, destination: AddressPort | None) -> bytes:
    """Return the header that tells an upstream who the client is; LOCAL if either end is unknown."""
    if source is None or destination is None:
        return V2_SIGNATURE + b"\x20\x00\x00\x00"
    packed = [ipaddress.ip_address(address.partition("%")[0]).packed for address, _ in (source, destination)]
    family_byte = 0x11
    if any(len(address) == 16 for address in packed):  # a header has one family, so IPv4 goes as ::ffff:a.b.c.d
        family_byte = 0x21
        packed = [address if len(address) == 16 else bytes(10) + b"\xff\xff" + address for address in packed]
    block = _V2_FAMILIES[family_byte][1].pack(*packed, source[1], destination[1])
    return V2_SIGNATURE + struct.pack("!BBH", 0x21, family_byte, len(block)) + block


# Twisted -------------------------------------------------------------------------------------------------------------


def _twisted_address(family: socket.AddressFamily, end: AddressPort | None) -> interfaces.IAddress | None:
    """Return what getPeer() and getHost() are to say, or None for the connection's own address."""
    if end is None:
        return None
    if family == socket.AF_UNIX:
        return UNIXAddress(end[0].encode())
    return (IPv4Address if family == socket.AF_INET else IPv6Address)("TCP", *end)


class ProxiedConnection(ProtocolWrapper):
    """Between the transport and the protocol inside: first reads the header, then only passes on, both ways.

    ``proxy_header`` (without ``rest``) is an attribute of the inside's transport, also through a TLS layer between.
    """

    factory: TrustedProxies
    wrappedProtocol: interfaces.IProtocol | None  # type: ignore[assignment]  # None until the header came
    transport: interfaces.ITransport

    proxy_header: Header | None = None

    @property
    def proxy_peer(self) -> str:
        """The balancer's address; empty: a Unix socket."""
        return getattr(self.transport.getPeer(), "host", "")

    _peer: interfaces.IAddress | None = None
    _host: interfaces.IAddress | None = None
    _parser: HeaderParser | None = None
    _timer: interfaces.IDelayedCall | None = None

    def makeConnection(self, transport: interfaces.ITransport) -> None:
        """Begin to wait for the header; the protocol inside does not exist yet."""
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        self._parser = HeaderParser()
        late = f"no PROXY header within {self.factory.timeout:g} s"
        self._timer = self.factory.clock.callLater(self.factory.timeout, self._refuse, late)

    def dataReceived(self, data: bytes) -> None:
        """Pass a chunk on, or gather the header."""
        inside = self.wrappedProtocol
        if inside is not None:
            inside.dataReceived(data)
        elif self._parser is not None:
            try:
                header = self._parser.feed(data)
            except ProxyProtocolError as error:
                self._refuse(f"bad PROXY header: {error}")
            else:
                if header is not None:
                    self._begin(header)

    def _stop_waiting(self) -> None:
        self._parser = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _refuse(self, reason: str) -> None:
        self._stop_waiting()
        log.warn("{peer}: {reason}: closed", peer=getattr(self.transport.getPeer(), "host", "unix"), reason=reason)
        self.abortConnection()

    def _begin(self, header: Header) -> None:
        """Build the protocol inside for the told client, connect it, and hand it what came behind the header."""
        self._stop_waiting()
        self.proxy_header = header._replace(rest=b"")
        self._peer = _twisted_address(header.family, header.source)
        self._host = _twisted_address(header.family, header.destination)
        inside = self.factory.wrappedFactory.buildProtocol(self.getPeer())
        if inside is None:  # it has its own reasons, and tells them itself
            return self.abortConnection()
        self.wrappedProtocol = inside
        self._declare()
        inside.makeConnection(self)
        if header.rest and not self.disconnecting:
            # Where TLS has begun below meanwhile, the rest is for TLS; inside, it would pass for what TLS protected.
            below = getattr(self.transport, "protocol", self)
            (inside if below is self else below).dataReceived(header.rest)

    def _declare(self) -> None:
        """Provide what the transport provides, and of the protocols' extras those that the protocol inside has."""
        directlyProvides(self, providedBy(self.transport))
        for extra in (interfaces.IHalfCloseableProtocol, interfaces.IHandshakeListener):
            if extra.providedBy(self.wrappedProtocol):
                alsoProvides(self, extra)

    # What the protocol inside asks of its transport, beyond ProtocolWrapper's own; all else goes by __getattr__.

    def getPeer(self) -> interfaces.IAddress:
        """Return the client's address as the header has it."""
        return self._peer or self.transport.getPeer()

    def getHost(self) -> interfaces.IAddress:
        """Return the address that the client connected to as the header has it."""
        return self._host or self.transport.getHost()

    def abortConnection(self) -> None:
        """Close at once."""
        self.disconnecting = 1
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def startTLS(self, creator: object, normal: bool = True) -> None:
        """Start TLS below this connection; a later handshakeCompleted() is passed on."""
        self.transport.startTLS(creator, normal)  # type: ignore[attr-defined]
        self._declare()  # the transport has become an ISSLTransport

    # What the transport tells the protocol inside.

    def handshakeCompleted(self) -> None:
        """Pass on that TLS below stands (IHandshakeListener)."""
        self.wrappedProtocol.handshakeCompleted()  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:
        """Pass on the client's half close (IHalfCloseableProtocol)."""
        self.wrappedProtocol.readConnectionLost()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        """Pass on the end of our own half (IHalfCloseableProtocol)."""
        self.wrappedProtocol.writeConnectionLost()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Pass on the end, if there is anyone to hear it."""
        self._stop_waiting()
        self.factory.unregisterProtocol(self)
        inside, self.wrappedProtocol = self.wrappedProtocol, None
        if inside is not None:
            inside.connectionLost(reason)


class TrustedProxies(WrappingFactory[ProxiedConnection]):
    """Wraps a listener's factory so that every connection must begin with a PROXY header from one of ``networks``.

    ``timeout`` is in seconds. A Unix peer is in no network: ``trust_unix`` is for sockets that only a balancer opens.
    """

    noisy = False

    def __init__(
        self,
        factory: interfaces.IProtocolFactory,
        networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network],
        timeout: float,
        clock: interfaces.IReactorTime,
        *,
        trust_unix: bool = False,
    ) -> None:
        super().__init__(factory)
        self.networks = tuple(networks)
        self.timeout = timeout
        self.clock = clock
        self.trust_unix = trust_unix

    def buildProtocol(self, addr: interfaces.IAddress | None) -> ProxiedConnection | None:  # type: ignore[override]
        """Return the connection for a trusted peer; for any other None, at which Twisted closes it."""
        if self._trusts(addr):
            return ProxiedConnection(self, None)  # type: ignore[arg-type]
        log.warn("{peer}: not a trusted proxy: closed", peer=getattr(addr, "host", "unix"))
        return None

    def _trusts(self, peer: interfaces.IAddress | None) -> bool:
        if isinstance(peer, UNIXAddress):
            return self.trust_unix
        if not isinstance(peer, IPv4Address | IPv6Address):
            return False
        address = ipaddress.ip_address(peer.host)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # a listener on [::] sees IPv4 peers so
        return any(address in network for network in self.networks)
