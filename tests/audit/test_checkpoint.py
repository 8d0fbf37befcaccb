"""Keys and signatures."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from imapgate.audit.chain import Chain
from imapgate.audit.checkpoint import (
    KEY,
    SIGNATURE,
    Signer,
    fingerprint,
    load_public,
    load_signer,
    make_key,
    public_pem,
    signed_by,
)
from imapgate.errors import ConfigurationError


def test_a_new_key(tmp_path: Path) -> None:
    """It is a file that only its owner can read, and what is printed of it is enough to verify by."""
    path = tmp_path / "audit.key"
    public = make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert load_signer(path).fingerprint == fingerprint(public)
    (tmp_path / "public.pem").write_text(public_pem(public))
    for file in ("audit.key", "public.pem"):
        assert fingerprint(load_public(tmp_path / file)) == fingerprint(public)


def test_the_fingerprint(tmp_path: Path) -> None:
    """It is what openssl and sha256sum say."""
    make_key(tmp_path / "audit.key")
    der = subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "audit.key", "-pubout", "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    assert load_signer(tmp_path / "audit.key").fingerprint == sha256(der).hexdigest()


def test_no_key_is_written_over(tmp_path: Path) -> None:
    """A key that is there stays, and a link is not followed."""
    path = tmp_path / "audit.key"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match=r"audit\.key: this file is there already"):
        make_key(path)
    assert path.read_text() == "precious"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="there already"):
        make_key(tmp_path / "link")
    with pytest.raises(ConfigurationError, match=r"away/audit\.key: No such file or directory"):
        make_key(tmp_path / "away" / "audit.key")


def test_keys_that_cannot_be_used(tmp_path: Path) -> None:
    """What is wrong with a key is said, with its file."""
    path = tmp_path / "audit.key"
    with pytest.raises(ConfigurationError, match=r"audit\.key: No such file"):
        load_signer(path)
    make_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"others can read or change this key \(mode 640\); make it 600"):
        load_signer(path)
    path.chmod(0o600)
    pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
    key = Ed25519PrivateKey.generate()
    other = generate_private_key(SECP256R1())
    for text in (
        b"nothing", other.private_bytes(pem, pkcs8, NoEncryption()), public_pem(key.public_key()).encode(),
        key.private_bytes(pem, pkcs8, BestAvailableEncryption(b"phrase")),
    ):  # fmt: skip
        path.write_bytes(text)
        with pytest.raises(ConfigurationError, match="this is no Ed25519 private key in PEM without a passphrase"):
            load_signer(path)
    for text in (b"nothing", other.public_key().public_bytes(pem, PublicFormat.SubjectPublicKeyInfo)):
        path.write_bytes(text)
        with pytest.raises(ConfigurationError, match="this is no Ed25519 key in PEM"):
            load_public(path)


def test_signatures() -> None:
    """A signature holds for its record behind its predecessor, by its key, and for nothing else."""
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    chain = Chain("c1")
    before = chain.hash
    record: dict[str, object] = {"event": "audit.checkpoint", "reason": "time", "time": "then"}
    chain.seal(record, Signer(key))
    public = key.public_key()
    assert record[KEY] == fingerprint(public)
    assert signed_by(record, before, public)
    assert signed_by({**record, "hash": "whatever"}, before, public)
    assert not signed_by(record, before, other.public_key())
    assert not signed_by(record, chain.hash, public)
    for name in ("event", "reason", "time", "chain", "seq", KEY):
        assert not signed_by({**record, name: "x"}, before, public)
    for signature in ("", "!", "AAAA", None, "é", f"{record[SIGNATURE]}\n"):
        assert not signed_by({**record, SIGNATURE: signature}, before, public)
    del record[SIGNATURE]
    assert not signed_by(record, before, public)
