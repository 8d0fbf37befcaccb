"""TLS at both ends: the gate's certificates, chosen by name and replaced while running; proof of the upstream's name.

It knows pyOpenSSL and Twisted's two connection-creator interfaces, no IMAP (but for its ALPN name), and sends nothing.
Whoever starts TLS owns the handshake's time limit, and writes nothing before ``handshakeCompleted``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import idna
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from imapgate.errors import ConfigurationError
from imapgate.log import log

ALPN_NAME = b"imap"
"""The application protocol of RFC 7301's registry that a listener answers to."""

SERVER_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!PSK"
"""TLS 1.2 suites in the server's order, all with forward secrecy; those of TLS 1.3 are OpenSSL's own."""

_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE

_CHAIN_FAULTS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed and not among the trusted ones",
    19: "its chain ends in a root that is not trusted",
    20: "its issuer is not trusted",
    21: "its issuer is not trusted",
}
"""What an operator needs to read, by OpenSSL's X509_V_ERR number."""


class CertificateRefused(VerifyError):
    """The upstream did not prove to be ``server_name``; this is the reason its protocol's ``connectionLost`` gets."""

    def __init__(self, server_name: str, reason: str) -> None:
        super().__init__(f"the certificate of {server_name} was refused: {reason}")
        self.server_name = server_name
        self.reason = reason


# Reading files -------------------------------------------------------------------------------------------------------


def _read(what: str, path: Path) -> bytes:
    """Return the file's bytes, or say which file could not be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError([f"{what} {path}: {error.strerror or error}"]) from None


def _certificates(path: Path) -> list[x509.Certificate]:
    """Return every certificate of a PEM file, at least one."""
    try:
        return x509.load_pem_x509_certificates(_read("certificate file", path))
    except ValueError:
        raise ConfigurationError([f"certificate file {path}: this is no file of PEM certificates"]) from None


def _names(certificate: x509.Certificate) -> list[bytes]:
    """Return the lower-case host names a certificate is for: its dNSNames, else (old certificates) its common name."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return [name.lower().rstrip(".").encode("ascii") for name in names if name.isascii()]


def _base_context(method: int) -> SSL.Context:
    """Return what both sides want: TLS 1.2 or newer, no compression, no renegotiation, buffers freed while idle."""
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


# The client side: the gate is the server -----------------------------------------------------------------------------


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    """Choose ``imap``, or end the handshake with no_application_protocol (RFC 7301 §3.2, THREATS A9).

    pyOpenSSL sends that alert when the callback raises. It has to be an SSL.Error of OpenSSL's shape: it comes out of
    do_handshake(), where Twisted catches only that, flushes the alert and closes.
    """
    if ALPN_NAME in offered:
        return ALPN_NAME
    raise SSL.Error([("SSL routines", "", "no application protocol")])


def _server_context(certificate_file: Path, key_file: Path) -> tuple[SSL.Context, list[bytes]]:
    """Return a ready context and the names it is for, or raise ConfigurationError naming the file at fault."""
    leaf, *chain = _certificates(certificate_file)
    try:
        key = load_pem_private_key(_read("private key file", key_file), None)
    except TypeError:
        raise ConfigurationError([f"private key file {key_file}: the key is encrypted; store it plain"]) from None
    except ValueError:
        raise ConfigurationError([f"private key file {key_file}: this is no PEM private key"]) from None
    if key.public_key() != leaf.public_key():
        raise ConfigurationError(
            [f"private key file {key_file}: it is not the key of the first certificate in {certificate_file}"]
        )
    context = _base_context(SSL.TLS_SERVER_METHOD)
    context.set_cipher_list(SERVER_CIPHERS)
    context.set_alpn_select_callback(_select_protocol)
    try:
        context.use_certificate(leaf)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key)  # type: ignore[arg-type]  # the kinds that cannot serve TLS are refused here
        names = _names(leaf)
    except (SSL.Error, TypeError, ValueError) as error:
        raise ConfigurationError([f"certificate file {certificate_file}: it cannot be used ({error})"]) from None
    if leaf.not_valid_after_utc < datetime.now(UTC):
        log.warn("certificate file {file}: expired at {time}", file=certificate_file, time=leaf.not_valid_after_utc)
    return context, names


class _Generation(NamedTuple):
    """What one reading of the files gave; a handshake keeps the generation it began with."""

    default: SSL.Context
    by_name: dict[bytes, SSL.Context]

    def choose(self, connection: SSL.Connection) -> None:
        """Give the connection the certificate its client asked for; an unknown name is not remembered (A8)."""
        name = (connection.get_servername() or b"").lower().rstrip(b".")
        context = self.by_name.get(name) or self.by_name.get(b"*." + name.partition(b".")[2])
        if context is not None and context is not self.default:
            connection.set_context(context)


def _load(pairs: Sequence[tuple[Path, Path]]) -> _Generation:
    """Read every file; raise one ConfigurationError with a sentence for each bad one."""
    contexts: list[SSL.Context] = []
    by_name: dict[bytes, SSL.Context] = {}
    problems: list[str] = []
    for certificate_file, key_file in pairs:
        try:
            context, names = _server_context(certificate_file, key_file)
        except ConfigurationError as error:
            problems.extend(error.problems)
            continue
        contexts.append(context)
        for name in names:
            by_name.setdefault(name, context)
    if problems:
        raise ConfigurationError(problems)
    generation = _Generation(contexts[0], by_name)
    # Only the default needs the callback: every connection begins with it.
    generation.default.set_tlsext_servername_callback(generation.choose)
    return generation


@implementer(IOpenSSLServerConnectionCreator)
class ServerCertificates:
    """A listener's certificates, for ``TLSMemoryBIOFactory(certificates, False, …)`` and ``startTLS(certificates)``.

    ``pairs`` are PEM files (certificate with its chain behind it, private key); the first pair serves clients that name
    no host or an unknown one. Raises ConfigurationError.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]]) -> None:
        if not pairs:
            raise ConfigurationError(["a TLS listener needs at least one certificate"])
        self._pairs = tuple(pairs)
        self._generation = _load(self._pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that chooses a certificate, sorted, wildcards as they stand in the certificate."""
        return tuple(sorted(name.decode("ascii") for name in self._generation.by_name))

    def reload(self) -> None:
        """Read all files again and use them from the next handshake on; raise ConfigurationError and change nothing."""
        self._generation = _load(self._pairs)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection of the newest generation (Twisted's interface)."""
        return SSL.Connection(self._generation.default)


# The upstream side: the gate is the client ---------------------------------------------------------------------------


@implementer(IOpenSSLClientConnectionCreator)
class _UpstreamIdentity:
    """Begins TLS towards one named upstream and checks chain and name.

    The check is not ``optionsForClientTLS``: Twisted 26.10's callback lets a certificate without any subjectAltName (or
    with a malformed one) pass for every host, because only VerificationError counts there as a failure.
    """

    def __init__(self, server_name: str, context: SSL.Context, verified: bool) -> None:
        self._server_name = server_name
        self._context = context
        self._verified = verified
        self._is_address = isIPAddress(server_name) or isIPv6Address(server_name)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection that will accept only this upstream (Twisted's interface)."""
        connection = SSL.Connection(self._context)
        if not self._is_address:  # RFC 6066 §3: an address is no server name
            connection.set_tlsext_host_name(self._server_name.encode("ascii"))
        if self._verified:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verifier(tlsProtocol))
        return connection

    def _verifier(self, tls: TLSMemoryBIOProtocol) -> Callable[[SSL.Connection, X509, int, int, int], bool]:
        """Return OpenSSL's verify callback: whatever is not proved is refused, and ``tls`` told why."""

        def verify(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
            reason = self._fault(certificate, error, depth, ok)
            if reason is None:
                return True
            tls.failVerification(Failure(CertificateRefused(self._server_name, reason)))
            return False

        return verify

    def _fault(self, certificate: X509, error: int, depth: int, ok: int) -> str | None:
        """Say what is wrong with one certificate of the chain, or None."""
        if not ok:
            return _CHAIN_FAULTS.get(error, f"its chain does not verify (OpenSSL's error {error} at depth {depth})")
        if depth:
            return None
        check = verify_certificate_ip_address if self._is_address else verify_certificate_hostname
        try:
            check(certificate.to_cryptography(), self._server_name)
        except VerificationError:
            return "it is for another name"
        except CertificateError:
            return "it has no usable subjectAltName"
        except Exception as fault:  # an exception would be lost inside OpenSSL; unproved is refused
            return f"it cannot be checked ({fault!r})"
        return None


def client_creator(server_name: str, ca: Path | None, insecure: bool) -> IOpenSSLClientConnectionCreator:
    """Return what starts TLS towards the upstream ``server_name`` (a host name or an IP address).

    Trusted are the certificates in the PEM file ``ca``, else the system's roots; the certificate must carry the name
    as a subjectAltName (RFC 6125; the common name does not count). ``insecure`` checks nothing at all. Raises
    ConfigurationError for a name or file that cannot be used. The protocol should provide ``IHandshakeListener``.
    """
    name = server_name.rstrip(".")
    if not name.isascii():
        try:
            name = idna.encode(name).decode("ascii")
        except idna.IDNAError as error:
            raise ConfigurationError([f"server name {server_name!r}: {error}"]) from None
    if not name or any(character.isspace() for character in name):
        raise ConfigurationError([f"server name {server_name!r}: this is no host name"])
    context = _base_context(SSL.TLS_CLIENT_METHOD)
    if ca is not None:
        _certificates(ca)  # for its clear sentence
        context.load_verify_locations(str(ca))
    elif not insecure:
        context.set_default_verify_paths()
    return _UpstreamIdentity(name, context, not insecure)


def _connection(transport: object) -> SSL.Connection | None:
    get_handle = getattr(transport, "getHandle", None)
    connection = get_handle() if get_handle is not None else None
    return connection if isinstance(connection, SSL.Connection) else None


def describe(transport: object) -> str | None:
    """Return protocol version and cipher for the log, such as ``TLSv1.3 TLS_AES_256_GCM_SHA384``; None without TLS."""
    connection = _connection(transport)
    cipher = None if connection is None else connection.get_cipher_name()
    return None if connection is None or cipher is None else f"{connection.get_protocol_version_name()} {cipher}"


_HOST_NAME = re.compile(rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,32}")


def server_name(transport: object) -> str | None:
    """Return what a client called this server in its handshake (SNI), if it is a host name at all."""
    connection = _connection(transport)
    name = None if connection is None else connection.get_servername()
    return name.decode("ascii").lower() if name is not None and _HOST_NAME.fullmatch(name) else None
