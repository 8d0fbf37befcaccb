"""Tables that do not grow without bound, and what is kept in them of each person, mailbox and hour.

Knows numbers, names and times.  Knows neither records nor a page.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

SEEN_MOST = 100
"""Networks of a person, and programs."""

ADDRESSES_MOST = 12
"""Addresses of a row."""

K = TypeVar("K")
V = TypeVar("V")


class Tally(dict[K, V], Generic[K, V]):
    """A table whose rows are made when they are asked for, up to so many; then all others share one.

    :ivar rest: the shared row; ``None``: nobody needed it
    """

    def __init__(self, make: Callable[[], V], most: int) -> None:
        super().__init__()
        self._make = make
        self._most = most
        self.rest: V | None = None

    def __missing__(self, key: K) -> V:
        if len(self) < self._most:
            row = self[key] = self._make()
            return row
        if self.rest is None:
            self.rest = self._make()
        return self.rest


@dataclass(slots=True)
class Seen:
    """Something that came up: when first, when last, how often."""

    first: str = ""
    last: str = ""
    times: int = 0

    def at(self, time: str) -> None:
        """It comes up again."""
        self.first = self.first or time
        self.last = time
        self.times += 1


def _seen() -> Tally[str, Seen]:
    return Tally(Seen, SEEN_MOST)


def _addresses() -> Tally[str, Seen]:
    return Tally(Seen, ADDRESSES_MOST)


@dataclass(slots=True)
class Deeds(Seen):
    """What was done to messages: how many were opened one by one, in bulk, or seen by their headers only."""

    content: int = 0
    bulk: int = 0
    headers: int = 0
    octets: int = 0
    addresses: Tally[str, Seen] = field(default_factory=_addresses)

    @property
    def opened(self) -> int:
        """Messages whose content was delivered."""
        return self.content + self.bulk


@dataclass(slots=True)
class Removed(Seen):
    """What was taken out of a mailbox."""

    marked: int = 0
    expunged: int = 0
    moved: int = 0
    mailboxes: int = 0


@dataclass(slots=True)
class HourOfDay:
    """One of a person's 24: on how many days something was done in it, and lately when."""

    days: int = 0
    day: str = ""
    times: int = 0
    recent: tuple[tuple[str, str], ...] = ()
    """The first moment of each of the last days, and from where."""


@dataclass(slots=True)
class Peak:
    """The hour in which a person fetched most."""

    hour: str = ""
    messages: int = 0
    octets: int = 0
    address: str = ""


@dataclass(slots=True)
class Person(Seen):
    """Somebody who logged in, or tried to."""

    sessions: int = 0
    denied: int = 0
    failed: int = 0
    removed: int = 0
    active: int = 0
    """Days with any activity."""
    day: str = ""
    deeds: Deeds = field(default_factory=Deeds)
    networks: Tally[str, Seen] = field(default_factory=_seen)
    programs: Tally[str, Seen] = field(default_factory=_seen)
    hours: list[HourOfDay] = field(default_factory=lambda: [HourOfDay() for _ in range(24)])
    peak: Peak = field(default_factory=Peak)
    now: Peak = field(default_factory=Peak)


@dataclass(slots=True)
class Hour:
    """One hour of the period: messages, but for refusals and failed logins."""

    content: int = 0
    bulk: int = 0
    headers: int = 0
    removed: int = 0
    denied: int = 0
    failed: int = 0


class Whose(NamedTuple):
    """Who did it, as whom, where."""

    user: str
    acting: str
    mailbox: str


class Refusal(NamedTuple):
    """Who was refused what, by which rule."""

    user: str
    verb: str
    mailbox: str
    policy: str


class Login(NamedTuple):
    """Who failed to log in, from where."""

    user: str
    address: str


class Listed(NamedTuple):
    """One record in a list, in words."""

    time: str
    user: str
    event: str
    words: str


class Largest:
    """The records that are about most messages, up to so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[int, int, Listed]] = []
        self._taken = 0

    def take(self, messages: int, record: Listed) -> None:
        """Keep it, if it is one of them."""
        self._taken += 1
        heapq.heappush(self._heap, (messages, self._taken, record))
        if len(self._heap) > self._most:
            heapq.heappop(self._heap)

    def found(self) -> list[Listed]:
        """Those that are kept, the largest first."""
        return [record for _, _, record in sorted(self._heap, reverse=True)]
