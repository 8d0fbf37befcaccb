"""What lies behind a configuration: certificates, keys, and other files."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from imapgate.config.files import LARGEST, file_faults, pair_faults, private_faults
from tests.config.configurations import make_folder, make_pair


def test_key_of_an_unknown_kind(tmp_path: Path) -> None:
    """A certificate whose public key is of a kind that nothing here knows has no private key that fits."""
    pair = make_pair(tmp_path, "c")
    der = ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())
    elliptic = bytes.fromhex("06072a8648ce3d0201")
    assert der.count(elliptic) == 1
    pair.certificate.write_text(ssl.DER_cert_to_PEM_cert(der.replace(elliptic, bytes.fromhex("06072a8648ce3d027f"))))
    sentence = f"{pair.private_key}: is not the key of {pair.certificate}"
    assert pair_faults(pair, default=True) == [("private_key", sentence)]


def test_file_that_can_be_read(tmp_path: Path) -> None:
    """A file is looked at, not read: it may be as large as a database."""
    file = tmp_path / "users.db"
    file.touch()
    os.truncate(file, LARGEST + 1)
    assert file_faults(file) == []


@pytest.mark.parametrize(
    ("name", "fault"),
    [("gone", "cannot be read: No such file or directory"), ("fifo.pem", "is not a regular file"), (".", "is not a")],
)
def test_file_that_cannot_be_read(name: str, fault: str, tmp_path: Path) -> None:
    """What is not there, or is no file, is refused without waiting for it."""
    make_folder(tmp_path)
    (said,) = file_faults(tmp_path / name)
    assert said.startswith(f"{tmp_path / name}: {fault}")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, 0o620])
def test_file_that_others_can_read(mode: int, tmp_path: Path) -> None:
    """A file that the group or others can read or write is not its owner's alone."""
    file = tmp_path / "secret"
    file.touch()
    file.chmod(mode)
    fault = f"{file}: others can read or change it (mode {mode:03o}); make it 600"
    assert private_faults(file) == ([fault] if mode & 0o077 else [])
    file.unlink()
    assert private_faults(file) == [f"{file}: cannot be read: No such file or directory"]
