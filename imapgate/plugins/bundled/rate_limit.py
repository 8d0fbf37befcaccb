"""So many commands, octets and messages in so much time, for each user and for each address.

Knows what passes, as numbers, and the time since some moment; not what any command says.

Each limit has a bucket for everybody whom it counts.  It holds ``burst``, is filled with ``most`` in the time
``within``, and what passes is taken out of it.  What a FETCH delivers is known only when it has passed, so a bucket
may be in debt: then nobody takes anything more before that is paid.  Octets and messages hold up the commands that
move messages, and no others.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from imapgate.plugins.api import Command, FetchItem, Interests, Message, Options, Plugin, Reject, Session
from imapgate.plugins.bundled._addresses import parsed

_MOVING = frozenset(["FETCH", "UID FETCH", "APPEND", "REPLACE", "UID REPLACE"])
_STORING = _MOVING - {"FETCH", "UID FETCH"}
_METADATA = frozenset(["FLAGS", "UID", "MODSEQ"])
"""A FETCH response of nothing else delivers no message."""
_TRIFLE = 1e-6


class _Limit(NamedTuple):
    name: str
    per: str
    """``user`` or ``address``."""
    of: str
    """``commands``, ``bytes`` or ``messages``."""
    rate: float
    """What flows in, a second."""
    burst: float


class _Cost(NamedTuple):
    commands: int = 0
    bytes: int = 0
    messages: int = 0


class _Bucket(NamedTuple):
    level: float
    at: float


class RateLimit(Plugin):
    """The plugin ``rate_limit``; options ``limits`` (tables), ``action``, ``longest_delay`` and ``entries``.

    A limit has ``per`` (``user`` or ``address``), ``of`` (``commands``, ``bytes`` or ``messages``), ``most``,
    ``within``, and perhaps ``burst`` and ``name``.  ``action`` is ``refuse``, or ``delay``: then a command waits, but
    for no longer than ``longest_delay``, which has to be less than the plugin's ``timeout``.
    """

    def __init__(self, options: Options) -> None:
        self._delays = options.choice("action", ("refuse", "delay"), "refuse") == "delay"
        self._longest = options.duration("longest_delay", 3.0)
        self._entries = options.number("entries", 50_000, least=1)
        self._limits = [_limit(table) for table in options.tables("limits")]
        if not self._limits:
            raise options.fault("limits", "there is nothing to do; expected at least one limit")
        self._buckets: OrderedDict[tuple[int, str], _Bucket] = OrderedDict()
        moved = any(limit.of != "commands" for limit in self._limits)
        counted = any(limit.of == "commands" for limit in self._limits)
        self.interests = Interests(verbs=None if counted else _MOVING, fetch=moved, message=int(moved))

    def start(self, clock: IReactorTime) -> None:
        """Begin to count time."""
        self._clock = clock

    def command(self, session: Session, command: Command) -> Any:
        """Take a command, and the first message that it stores, or refuse it, or wait."""
        stored = command.verb in _STORING
        return self._take(session, _Cost(1, command.message_size, int(stored)), command.verb in _MOVING)

    def message_begins(self, session: Session, command: Command, message: Message) -> Any:
        """Take a command's further messages."""
        return self._take(session, _Cost(0, message.size, 1), True) if message.number > 1 else None

    def fetch_item(self, session: Session, item: FetchItem) -> None:
        """Take what was delivered, even where that is more than there is."""
        delivered = not _METADATA.issuperset(item.items)
        cost = _Cost(0, item.octets, int(delivered))
        for key, limit, bucket in self._of(session, moving=True):
            if limit.of != "commands":
                self._fill(key, bucket._replace(level=bucket.level - getattr(cost, limit.of)))

    def _take(self, session: Session, cost: _Cost, moving: bool) -> Any:
        """Take what is needed from every bucket, or nothing from any: then it is refused."""
        wait, why, touched = 0.0, "", []
        for key, limit, bucket in self._of(session, moving):
            needed: int = getattr(cost, limit.of)
            missing = min(needed, limit.burst) - bucket.level
            if missing > _TRIFLE and missing / limit.rate > wait:
                wait, why = missing / limit.rate, limit.name
            touched.append((key, bucket, needed))
        refused = wait > (self._longest if self._delays else 0)
        for key, bucket, needed in touched:  # who is refused is still there, and not to be forgotten
            self._fill(key, bucket if refused else bucket._replace(level=bucket.level - needed))
        if refused:
            return Reject("LIMIT", "Too much in too short a time", why)
        return deferLater(self._clock, wait) if wait else None

    def _of(self, session: Session, moving: bool) -> Iterator[tuple[tuple[int, str], _Limit, _Bucket]]:
        """The buckets of a session, as they are now; a Unix socket has no address that could be counted."""
        now = self._clock.seconds()
        for index, limit in enumerate(self._limits):
            whose = session.user if limit.per == "user" else _source(session.address)
            if not whose or (limit.of != "commands" and not moving):
                continue
            key = (index, whose)
            level, at = self._buckets.get(key, _Bucket(limit.burst, now))
            yield key, limit, _Bucket(min(limit.burst, level + (now - at) * limit.rate), now)

    def _fill(self, key: tuple[int, str], bucket: _Bucket) -> None:
        """Keep a bucket; that which was used longest ago makes room."""
        self._buckets[key] = bucket
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._entries:
            self._buckets.popitem(last=False)


def _limit(table: Options) -> _Limit:
    per = table.choice("per", ("user", "address"))
    of = table.choice("of", ("commands", "bytes", "messages"))
    amount = table.size if of == "bytes" else table.number
    most = amount("most", least=1)
    within = table.duration("within")
    burst = amount("burst", most, least=1)
    return _Limit(table.text("name", f"{of} per {per}"), per, of, most / within, burst)


def _source(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /48 of an IPv6 one; empty: a Unix socket."""
    ip = parsed(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((ip, 48), strict=False))
    return "" if ip is None else str(ip)


PLUGIN = RateLimit
