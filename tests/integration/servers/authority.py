"""A tiny certificate authority for tests: good certificates, and bad ones on request."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOCAL_NAMES = ("localhost", "127.0.0.1")
_DAY = datetime.timedelta(days=1)


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    path.chmod(0o644)
    return path


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class CertificateAuthority:
    """A root key of its own; `certificate` is the PEM file that a client has to trust."""

    def __init__(self, directory: Path, common_name: str = "Test authority") -> None:
        """Make the root at once and write its certificate into `directory`."""
        self.directory = directory
        self._numbers = itertools.count(1)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(common_name)
        self._root = (
            self._builder(self._name, self._name, self._key, expired=False, not_yet_valid=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False),
                critical=True,
            )
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = _write(
            directory / f"authority-{self._root.serial_number:x}.pem",
            self._root.public_bytes(serialization.Encoding.PEM),
        )

    @staticmethod
    def _builder(
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        expired: bool,
        not_yet_valid: bool,
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        start, end = now - 30 * _DAY, now + 30 * _DAY
        if expired:
            end = now - _DAY
        if not_yet_valid:
            start = now + _DAY
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def issue(
        self,
        *names: str,
        expired: bool = False,
        not_yet_valid: bool = False,
        common_name_only: bool = False,
        self_signed: bool = False,
    ) -> tuple[Path, Path]:
        """Issue a server certificate for `names` (host names and addresses; localhost and 127.0.0.1 by default).

        Returns the paths of the certificate and of its private key, both PEM. `common_name_only` leaves out
        subjectAltName; `self_signed` signs with the certificate's own key.
        """
        wanted: Sequence[str] = names or LOCAL_NAMES
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(wanted[0])
        builder = self._builder(
            subject, subject if self_signed else self._name, key, expired=expired, not_yet_valid=not_yet_valid
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        if not self_signed:
            issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(issuer_key, critical=False)
        if not common_name_only:
            alternatives = x509.SubjectAlternativeName([_alternative(name) for name in wanted])
            builder = builder.add_extension(alternatives, critical=False)
        signed = builder.sign(key if self_signed else self._key, hashes.SHA256())
        stem = f"{next(self._numbers)}-{wanted[0]}".replace("*", "_")
        return (
            _write(self.directory / f"{stem}.pem", signed.public_bytes(serialization.Encoding.PEM)),
            _write(self.directory / f"{stem}.key", _private_bytes(key)),
        )
