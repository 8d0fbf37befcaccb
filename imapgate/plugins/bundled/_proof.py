"""Proof that a web service is who it should be; unproved is refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer


def certificates(pem: bytes) -> list[Certificate]:
    """Return the certificates in a PEM file's octets, at least one; raise `ValueError` for what is none."""
    return [Certificate(X509.from_cryptography(found)) for found in load_pem_x509_certificates(pem)]


@implementer(IPolicyForHTTPS)
class Proof:
    """Has a service prove its name by a certificate that these, or else the system's, vouch for."""

    def __init__(self, trusted: Sequence[Certificate]) -> None:
        self._trusted = trustRootFromCertificates(trusted) if trusted else platformTrust()

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Return what begins TLS towards a host (Twisted's interface)."""
        return _Proving(hostname.decode("ascii"), self._trusted)


@implementer(IOpenSSLClientConnectionCreator)
class _Proving:
    """Begins TLS towards one host.

    The check is its own: that of Twisted 26.10 lets a certificate without any subjectAltName pass for every host.
    """

    def __init__(self, host: str, trusted: Any) -> None:
        self._host = host
        self._options = optionsForClientTLS(host, trusted)
        address = isIPAddress(host) or isIPv6Address(host)
        self._check = verify_certificate_ip_address if address else verify_certificate_hostname

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection (Twisted's interface)."""
        connection: SSL.Connection = self._options.clientConnectionForTLS(tlsProtocol)
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, partial(self._proved, tlsProtocol))
        return connection

    def _proved(
        self, tls: TLSMemoryBIOProtocol, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
    ) -> bool:
        reason = self._fault(certificate, depth) if ok else f"its chain does not verify (OpenSSL's error {error})"
        if reason:
            tls.failVerification(Failure(VerifyError(f"the certificate of {self._host} was refused: {reason}")))
        return not reason

    def _fault(self, certificate: X509, depth: int) -> str:
        if depth:
            return ""
        try:
            self._check(certificate.to_cryptography(), self._host)
        except Exception as fault:  # an exception would be lost inside OpenSSL
            return f"it does not prove this name ({type(fault).__name__})"
        return ""
