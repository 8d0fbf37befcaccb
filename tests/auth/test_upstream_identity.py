"""As whom a verified client goes upstream."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent

from imapgate.auth.upstream_identity import Authorisation, DovecotMaster, PasswordMap, UpstreamIdentity
from imapgate.errors import ConfigurationError
from imapgate.model.secret import Secret
from tests.auth.presenting import CANARY

PASSWORD = Secret(CANARY)


def test_authorisation() -> None:
    """The master logs in with its own password, and acts as the user."""
    credentials = Authorisation(b"gate", PASSWORD).upstream_credentials(b"alice")
    assert credentials == (b"gate", PASSWORD, b"alice")


@pytest.mark.parametrize(("separator", "name"), [(b"*", b"alice*gate"), (b"%", b"alice%gate")])
def test_dovecot(separator: bytes, name: bytes) -> None:
    """The name holds both, with the separator that Dovecot was told; nobody is acted as beside it."""
    credentials = DovecotMaster(b"gate", PASSWORD, separator).upstream_credentials(b"alice")
    assert credentials == (name, PASSWORD, b"")


def test_a33_separator_in_a_name() -> None:
    """A user whose name holds the separator would be cut at another place, and is refused (A33)."""
    assert DovecotMaster(b"gate", PASSWORD).upstream_credentials(b"alice*bob") is None
    assert DovecotMaster(b"gate", PASSWORD, b"%").upstream_credentials(b"alice%example.org") is None
    assert DovecotMaster(b"gate", PASSWORD).upstream_credentials(b"alice%example.org") is not None


def private(path: Path, octets: bytes) -> Path:
    """Write a file that only its owner can read."""
    path.touch(0o600)
    path.write_bytes(octets)
    return path


def test_map(tmp_path: Path) -> None:
    """Each user has a password, which may hold anything but a line's end; others have none."""
    path = private(tmp_path / "map", b"# upstream\n\nalice: a:b#c \r\nu@d:x\xff\n")
    passwords = PasswordMap(path)
    found = {user: passwords.upstream_credentials(user) for user in (b"alice", b"u@d", b"u%d", b"Alice", b"alice: a")}
    assert {user: credentials and credentials.password.reveal() for user, credentials in found.items()} == {
        b"alice": b" a:b#c ",
        b"u@d": b"x\xff",
        b"u%d": None,
        b"Alice": None,
        b"alice: a": None,
    }
    assert found[b"alice"] is not None
    assert found[b"alice"].user == b"alice"
    assert found[b"alice"].authorisation == b""


def test_map_changes(tmp_path: Path) -> None:
    """A new password is used from the next login on; a broken file changes nothing, and is told once (A34)."""
    path = private(tmp_path / "map", b"alice:old\n")
    passwords = PasswordMap(path)
    path.write_bytes(b"alice:new!\n")
    for _ in range(2):
        credentials = passwords.upstream_credentials(b"alice")
        assert credentials is not None
        assert credentials.password.reveal() == b"new!"
    path.write_bytes(b"alice:%b\nnonsense\n" % CANARY)
    with capturedLogs() as events:
        for _ in range(2):
            credentials = passwords.upstream_credentials(b"alice")
            assert credentials is not None
            assert credentials.password.reveal() == b"new!"
    assert [formatEvent(event) for event in events] == [
        f"a changed file is not used, what it held stays: password map {path}: line 2: expected USER:PASSWORD"
    ]


@pytest.mark.parametrize(
    ("octets", "sentence"),
    [
        (b"alice", "line 1: expected USER:PASSWORD"),
        (b"alice:", "line 1: expected USER:PASSWORD"),
        (b":%b" % CANARY, "line 1: expected USER:PASSWORD"),
        (b"alice:%b\0" % CANARY, "line 1: expected USER:PASSWORD"),
        (b"alice:%b\nalice:x" % CANARY, "line 2: this user has a line already"),
    ],
)
def test_map_lines(tmp_path: Path, octets: bytes, sentence: str) -> None:
    """A line that cannot be used is refused by its number; no password is repeated (A40)."""
    path = private(tmp_path / "map", octets)
    with pytest.raises(ConfigurationError) as raised:
        PasswordMap(path)
    assert raised.value.problems == [f"password map {path}: {sentence}"]


def test_map_that_others_can_read(tmp_path: Path) -> None:
    """Passwords that others can read are no secret, and are not used (A40)."""
    path = private(tmp_path / "map", b"alice:%b\n" % CANARY)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"others can read or change it \(mode 644\); make it 600"):
        PasswordMap(path)


def test_nothing_prints_a_secret(tmp_path: Path) -> None:
    """All three can be printed, and what they give (A40)."""
    passwords = PasswordMap(private(tmp_path / "map", b"alice:%b\n" % CANARY))
    ways: list[UpstreamIdentity] = [Authorisation(b"gate", PASSWORD), DovecotMaster(b"gate", PASSWORD), passwords]
    assert CANARY.decode() not in repr([(way, vars(passwords), way.upstream_credentials(b"alice")) for way in ways])
