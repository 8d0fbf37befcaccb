"""As whom a client that the gate has verified goes upstream: three ways, one method.

Knows names and passwords, and neither who is verified nor how a login is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from imapgate.auth.files import Watched
from imapgate.errors import ConfigurationError
from imapgate.model.secret import Credentials, Secret


class UpstreamIdentity(Protocol):
    """One upstream's way."""

    def upstream_credentials(self, user: bytes) -> Credentials | None:
        """Return what to log in with for this user; ``None``: this user cannot log in there."""


class Authorisation(NamedTuple):
    """A master user that acts as somebody: SASL PLAIN with an authorisation identity (RFC 4616)."""

    master: bytes
    password: Secret

    def upstream_credentials(self, user: bytes) -> Credentials | None:
        """Return the master's, acting as ``user``."""
        return Credentials(self.master, self.password, user)


class DovecotMaster(NamedTuple):
    """Dovecot's ``user*master``; ``separator`` is its ``auth_master_user_separator``."""

    master: bytes
    password: Secret
    separator: bytes = b"*"

    def upstream_credentials(self, user: bytes) -> Credentials | None:
        """Return the master's, for ``user``; nothing for a name that would be cut elsewhere (THREATS A33)."""
        if self.separator in user:
            return None
        return Credentials(user + self.separator + self.master, self.password)


def _parse(octets: bytes) -> dict[bytes, Secret]:
    """Read ``user:password`` lines; empty ones and those that begin with ``#`` are nothing, blanks are the password's.

    :raise ConfigurationError: a sentence for each line that cannot be used.
    """
    passwords: dict[bytes, Secret] = {}
    problems = []
    for number, line in enumerate(octets.split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if not line.strip() or line.startswith(b"#"):
            continue
        user, _, password = line.partition(b":")
        if not user or not password or b"\0" in line:
            problems.append(f"line {number}: expected USER:PASSWORD")
        elif user in passwords:
            problems.append(f"line {number}: this user has a line already")
        else:
            passwords[user] = Secret(password)
    if problems:
        raise ConfigurationError(problems)
    return passwords


class PasswordMap:
    """Each user's own password upstream, from a file that only its owner can read.

    :raise ConfigurationError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._passwords = Watched("password map", path, _parse, private=True)

    def upstream_credentials(self, user: bytes) -> Credentials | None:
        """Return the user's own, as the file has them now."""
        password = self._passwords.current().get(user)
        return None if password is None else Credentials(user, password)
