"""What lies behind a configuration: the files that it names.

Knows certificates and keys.  The functions called ``…_faults`` say what makes a file unusable; they do not raise.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from imapgate.config.types import CertificatePair
from imapgate.limits import MIB

LARGEST = 16 * MIB
"""Octets; no certificate or secret is larger, and what is larger is not read."""

NEW_KEY = "make one by: imapgate audit key FILE"


class Unusable(Exception):
    """A file that cannot be used, and why."""


def certificate_faults(path: Path) -> list[str]:
    """Say why `path` cannot be read as one or more PEM certificates; usually nothing."""
    try:
        read_certificates(path)
    except Unusable as error:
        return [str(error)]
    return []


def pair_faults(pair: CertificatePair, *, default: bool) -> list[tuple[str, str]]:
    """Say what is wrong with `pair` as (key of the table, sentence); only the `default` one may lack a DNS name."""
    faults: list[tuple[str, str]] = []
    leaf: x509.Certificate | None = None
    try:
        leaf = read_certificates(pair.certificate)[0]
    except Unusable as error:
        faults.append(("certificate", str(error)))
    try:
        public = _public_key(pair.private_key)
    except Unusable as error:
        faults.append(("private_key", str(error)))
    else:
        if leaf is not None and public != _public_octets(leaf):
            faults.append(("private_key", f"{pair.private_key}: is not the key of {pair.certificate}"))
    if leaf is not None and not default and not _dns_names(leaf):
        faults.append(("certificate", f"{pair.certificate}: has no DNS name, so that no client can ever ask for it"))
    return faults


def file_faults(path: Path) -> list[str]:
    """Say why the file `path` cannot be read; usually nothing."""
    try:
        _size(path)
        path.open("rb").close()
    except OSError as error:
        return [f"{path}: cannot be read: {error.strerror}"]
    except Unusable as error:
        return [str(error)]
    return []


def private_faults(path: Path) -> list[str]:
    """Say why the file `path` is not its owner's alone; usually nothing."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return [f"{path}: cannot be read: {error.strerror}"]
    if mode & 0o077:
        return [f"{path}: others can read or change it (mode {stat.S_IMODE(mode):03o}); make it 600"]
    return []


def folder_faults(path: Path) -> list[str]:
    """Say why no file can be made in the folder `path`; usually nothing."""
    try:
        return [] if stat.S_ISDIR(path.stat().st_mode) else [f"{path}: is not a folder"]
    except OSError as error:
        return [f"{path}: cannot be used: {error.strerror}"]


def append_faults(path: Path) -> list[str]:
    """Say why the file `path` cannot be added to or, where it is not there, made; a link is none.  Usually nothing."""
    if faults := folder_faults(path.parent):
        return faults
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return [f"{path.parent}: no file can be made there by the user that this runs as"]
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path}: cannot be used: {error.strerror}"]
    if not stat.S_ISREG(mode):
        return [f"{path}: is not a regular file"]
    if not os.access(path, os.R_OK | os.W_OK):
        return [f"{path}: cannot be read and written by the user that this runs as"]
    return []


def signing_key_faults(path: Path) -> list[str]:
    """Say why the file `path` is no Ed25519 key of its owner's alone; usually nothing."""
    try:
        key = _private_key(path)
    except Unusable as error:
        return [f"{error}; {NEW_KEY}"]
    return private_faults(path) if isinstance(key, Ed25519PrivateKey) else [f"{path}: is no Ed25519 key; {NEW_KEY}"]


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, of which there is at least one, or raise `Unusable`."""
    try:
        return x509.load_pem_x509_certificates(read_file(path))
    except ValueError:
        raise Unusable(f"{path}: holds no PEM certificate that can be read") from None


def read_file(path: Path) -> bytes:
    """Return what stands in a file that cannot be large, or raise `Unusable`."""
    try:
        if _size(path) > LARGEST:
            raise Unusable(f"{path}: is too large")
        return path.read_bytes()
    except OSError as error:
        raise Unusable(f"{path}: cannot be read: {error.strerror}") from None


def _size(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO or a device could wait for ever
        raise Unusable(f"{path}: is not a regular file")
    return status.st_size


def _private_key(path: Path) -> PrivateKeyTypes:
    octets = read_file(path)
    try:
        return serialization.load_pem_private_key(octets, None)
    except TypeError:
        raise Unusable(f"{path}: is encrypted; the gate cannot ask for a passphrase") from None
    except Exception:  # cryptography raises several kinds, all meaning the same to the operator
        raise Unusable(f"{path}: holds no PEM private key that can be read") from None


def _public_key(path: Path) -> bytes:
    """Return the public half of a private key, as DER."""
    key = _private_key(path)
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public_octets(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except Exception:  # a key of a kind that cryptography does not know matches no private key it can read
        return b""


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.DNSName)
