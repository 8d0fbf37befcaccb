"""How many connections there are, from where and of whom; every table empties as they go."""

from __future__ import annotations

from collections.abc import Hashable

from imapgate.limits import Limits


class Census:
    """Counts clients against the limits."""

    def __init__(self, limits: Limits, clients: int) -> None:
        self._limits = limits
        self._most = clients
        self.clients = 0
        self._addresses: dict[Hashable, int] = {}
        self._users: dict[Hashable, int] = {}

    def configure(self, limits: Limits, clients: int) -> None:
        """Count against other limits from now on."""
        self._limits = limits
        self._most = clients

    def enter(self, address: str | None) -> bool:
        """Count a client in, unless it is one too many; ``address`` is ``None`` for a Unix socket."""
        if self.clients >= self._most:
            return False
        if address is not None and not _up(self._addresses, address, self._limits.connections_per_address):
            return False
        self.clients += 1
        return True

    def leave(self, address: str | None) -> None:
        """Count a client out."""
        self.clients -= 1
        if address is not None:
            _down(self._addresses, address)

    def log_in(self, address: str | None, user: bytes) -> bool:
        """Count a login, unless this user has too many connections from this address."""
        if address is None or not user:
            return True
        return _up(self._users, (address, user), self._limits.connections_per_user_address)

    def log_out(self, address: str | None, user: bytes) -> None:
        """Count a login out."""
        if address is not None and user:
            _down(self._users, (address, user))


def _up(counts: dict[Hashable, int], key: Hashable, most: int) -> bool:
    count = counts.get(key, 0)
    if count >= most:
        return False
    counts[key] = count + 1
    return True


def _down(counts: dict[Hashable, int], key: Hashable) -> None:
    if counts[key] <= 1:
        del counts[key]
    else:
        counts[key] -= 1
