"""Signatures in the chain: Ed25519, over a checkpoint and, by the hash before it, over all that stands in front of it.

What is signed is the hash of the record before, followed by the checkpoint's canonical JSON without ``hash`` and
``checkpoint.signature``: so the chain, the number, the time and the reason, too.
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from imapgate.audit.record import canonical
from imapgate.errors import ConfigurationError

KEY = "checkpoint.key"
SIGNATURE = "checkpoint.signature"

_KEY_MOST = 65_536


class Signer:
    """Signs checkpoints.

    :ivar fingerprint: the SHA-256 of the public key (DER, SubjectPublicKeyInfo), in hexadecimal
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.fingerprint = fingerprint(key.public_key())

    def sign(self, record: dict[str, object], previous: str) -> None:
        """Add the key's fingerprint and the signature to a record."""
        record[KEY] = self.fingerprint
        record[SIGNATURE] = b64encode(self._key.sign(previous.encode("ascii") + canonical(record))).decode("ascii")


def signed_by(record: Mapping[str, object], previous: str, key: Ed25519PublicKey) -> bool:
    """Whether this key has signed this checkpoint behind this hash."""
    unsigned = {name: value for name, value in record.items() if name not in (SIGNATURE, "hash")}
    try:
        signature = b64decode(str(record.get(SIGNATURE, "")), validate=True)
        key.verify(signature, previous.encode("ascii") + canonical(unsigned))
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return what a key is called in the records that it signed."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def public_pem(key: Ed25519PublicKey) -> str:
    """Return the public key as text."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def make_key(path: Path) -> Ed25519PublicKey:
    """Make a new key in a new file that only its owner can read (PEM, PKCS #8).

    :raise ConfigurationError: the file is there already, or cannot be made.
    """
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError([f"{path}: this file is there already; a key is never written over"]) from None
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror or error}"]) from None
    return key.public_key()


def load_signer(path: Path) -> Signer:
    """Read the private key that the gate signs with.

    :raise ConfigurationError: it cannot be used, or others than its owner can read it.
    """
    text, mode = _read(path)
    if mode & 0o077:
        raise ConfigurationError([f"{path}: others can read or change this key (mode {mode:03o}); make it 600"])
    key = _private(text)
    if key is None:
        raise ConfigurationError(
            [f"{path}: this is no Ed25519 private key in PEM without a passphrase; make one by 'imapgate audit key'"]
        )
    return Signer(key)


def load_public(path: Path) -> Ed25519PublicKey:
    """Read the key to verify by: a public one, or a private one.

    :raise ConfigurationError: it cannot be used.
    """
    text, _ = _read(path)
    private = _private(text)
    if private is not None:
        return private.public_key()
    try:
        key = load_pem_public_key(text)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError([f"{path}: this is no Ed25519 key in PEM"])
    return key


def _private(text: bytes) -> Ed25519PrivateKey | None:
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError):  # not such a file; it has a passphrase
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None


def _read(path: Path) -> tuple[bytes, int]:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # a FIFO would wait
            return file.read(_KEY_MOST), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror or error}"]) from None
