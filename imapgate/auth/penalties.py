"""Delays after failed logins, by address and by user (THREATS A37).  Pure: the time is passed in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

FORGOTTEN_AFTER = 120.0
"""Seconds after the end of the last delay."""

AT_ONCE = 10
"""Attempts of one user that may be undecided at the same time before the next ones are spaced."""


@lru_cache(4096)
def network(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /48 of an IPv6 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((ip, 48), strict=False))


class _Penalty(NamedTuple):
    failures: int
    until: float  # when the next attempt may go on


class Penalties:
    """Who has failed, how often, and until when the next attempt has to wait.

    An attempt of somebody who has failed before reserves its place, so that many connections at once
    get no more attempts than one (there is no way around by parallel connections).

    :param delays: seconds after the first, second … failure; the last one for all that follow.
    :param most: entries in the table; the one that failed longest ago makes room.
    """

    def __init__(self, delays: Sequence[float], most: int = 50_000) -> None:
        self._delays = tuple(delays)
        self._most = most
        self._table: OrderedDict[tuple[str, str], _Penalty] = OrderedDict()
        self._undecided: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._table)

    def configure(self, delays: Sequence[float]) -> None:
        """Use other delays from the next failure on."""
        self._delays = tuple(delays)
        if not delays:
            self._table.clear()

    def admit(self, now: float, address: str | None, user: str) -> float:
        """Return how many seconds an attempt has to wait before it may go on, and reserve its place."""
        if not self._table:
            return 0.0
        start = now
        penalties = [(key, self._get(now, key)) for key in self._keys(address, user)]
        for _, penalty in penalties:
            if penalty.failures:
                start = max(start, penalty.until)
        for key, penalty in penalties:
            if penalty.failures:
                self._set(key, penalty._replace(until=start + self._delay(penalty.failures)))
        return start - now

    def enter(self, user: str) -> float:
        """Count an attempt whose outcome is not known yet; return how many seconds it has to wait.

        Who has not failed so far waits for nothing, but a burst of guesses from everywhere at once is
        spaced: no failure has to be known first.  Every call is followed by one of :meth:`leave`.
        """
        undecided = self._undecided[user] = self._undecided.get(user, 0) + 1
        crowd = undecided - AT_ONCE
        return crowd * self._delays[0] if crowd > 0 and user and self._delays else 0.0

    def leave(self, user: str) -> None:
        """The outcome of an attempt is known, or it was given up."""
        self._undecided[user] -= 1
        if not self._undecided[user]:
            del self._undecided[user]

    def failed(self, now: float, address: str | None, user: str) -> float:
        """Count a failure; return how many seconds its answer is to be held back."""
        longest = 0.0
        if self._delays:
            for key in self._keys(address, user):
                penalty = self._get(now, key)
                failures = penalty.failures + 1
                delay = self._delay(failures)
                longest = max(longest, delay)
                self._set(key, _Penalty(failures, max(penalty.until, now + delay)))
        return longest

    def succeeded(self, address: str | None, user: str) -> None:
        """Forget what was held against this user and this address."""
        if self._table:
            for key in self._keys(address, user):
                self._table.pop(key, None)

    def _keys(self, address: str | None, user: str) -> list[tuple[str, str]]:
        keys = [("user", user)] if user else []
        if address is not None:
            keys.append(("address", network(address)))
        return keys

    def _delay(self, failures: int) -> float:
        return self._delays[min(failures, len(self._delays)) - 1]

    def _get(self, now: float, key: tuple[str, str]) -> _Penalty:
        penalty = self._table.get(key)
        if penalty is None or penalty.until + FORGOTTEN_AFTER < now:
            return _Penalty(0, now)
        return penalty

    def _set(self, key: tuple[str, str], penalty: _Penalty) -> None:
        self._table[key] = penalty
        self._table.move_to_end(key)
        if len(self._table) > self._most:
            self._table.popitem(last=False)
