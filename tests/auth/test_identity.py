"""As whom a client goes upstream, in mode ``pass``."""

from __future__ import annotations

import pytest

from imapgate.auth.identity import admissible
from imapgate.model.secret import Credentials, Secret

LONGEST = 256


def allowed(user: bytes, password: bytes = b"pw", authorisation: bytes = b"") -> bool:
    """Whether such credentials may go upstream."""
    return admissible(Credentials(user, Secret(password), authorisation), LONGEST)


@pytest.mark.parametrize(
    "user",
    [
        "a",
        "alice",
        "alice@example.org",
        "alice%example.org",
        "alice*master",
        "DOM\\alice",
        "o'neil",
        "jürgen",
        "名前",
        "a_b-c.d",
    ],
)
def test_a38_users(user: str) -> None:
    """User names of every script, with the signs that they are made of."""
    assert allowed(user.encode())


def test_a38_longest_user() -> None:
    """The longest user name that is allowed, and one octet more."""
    assert allowed(b"x" * LONGEST)
    assert not allowed(b"x" * (LONGEST + 1))
    assert not allowed("ü".encode() * LONGEST)


@pytest.mark.parametrize(
    "user",
    [
        "",
        "a b",
        "a\0b",
        "a\r\nb",
        "a\n",
        "a\tb",
        'a"b',
        "a(b",
        "a)b",
        "a{1}",
        "a;b",
        "a`b",
        "a\x7fb",
        "a\u2028b",
        "a\u202eb",
    ],
)
def test_a38_no_users(user: str) -> None:
    """What no user name has in it is shown to no server."""
    assert not allowed(user.encode())


def test_a38_no_utf8() -> None:
    """A user name is UTF-8."""
    assert not allowed(b"j\xfcrgen")


def test_foreign_authorisation_identity() -> None:
    """A client acts as itself: another authorisation identity is refused, since some servers accept any."""
    assert allowed(b"alice", authorisation=b"alice")
    assert not allowed(b"alice", authorisation=b"bob")
    assert not allowed(b"alice", authorisation=b"Alice")


def test_passwords() -> None:
    """A password may be any octets but NUL; not none at all (an anonymous bind), and not endlessly many."""
    assert allowed(b"alice", b" ")
    assert not allowed(b"alice", b"")
    assert allowed(b"alice", bytes(range(1, 256)))
    assert allowed(b"alice", b"x" * 4096)
    assert not allowed(b"alice", b"x" * 4097)
    assert not allowed(b"alice", b"a\0bob")
