"""What a server has told of one mailbox: its messages in sequence order, their UIDs and their flags.

The truth is kept from the stream of responses alone, strictly in the order in which they come.  It must not know
who has been told of it; what contradicts it ends the channel.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from imapgate.errors import UpstreamProtocolError

RECENT = b"\\Recent"
UNKNOWN = b"\0"
"""In the place of flags that are not known yet."""
_MOST = 1 << 24
"""No mailbox has more messages: each takes 16 octets here, whatever a server says."""


class Snapshot(NamedTuple):
    """A truth as it was at one moment, in runs: UIDs that follow each other, and have the same flags."""

    runs: tuple[tuple[int, int, bytes], ...]
    validity: bytes

    def messages(self) -> dict[int, bytes]:
        """The flags by UID, in sequence order."""
        return {uid: flags for first, last, flags in self.runs for uid in range(first, last + 1)}


@lru_cache(4096)
def plain_flags(raw: bytes) -> tuple[bytes, bool]:
    """What stands between the parentheses of FLAGS, without ``\\Recent``; and whether that was there."""
    words = raw.split()
    others = [word for word in words if word.lower() != b"\\recent"]
    return b" ".join(others), len(others) < len(words)


@lru_cache(4096)
def same_flags(one: bytes, other: bytes) -> bool:
    """Whether these are the same flags, in whatever order and case."""
    return set(one.lower().split()) == set(other.lower().split())


class Truth:
    """The messages of a mailbox.

    :ivar uids: in sequence order; 0: not known yet
    :ivar filled: so many from the first one on are known, flags included
    :ivar flags: of each message, without ``\\Recent``
    :ivar recent: UIDs that the server calls recent, and of which no session has been told
    :ivar validity: UIDVALIDITY, as it came
    :ivar uid_next: the UID that the next message will have, as far as that is known; 0: the server never says
    :ivar announced: the lines FLAGS and PERMANENTFLAGS that were said last
    """

    __slots__ = ("_snapshot", "announced", "filled", "flags", "recent", "uid_next", "uids", "validity")

    def __init__(self) -> None:
        self.uids = array("L")
        self.filled = 0
        self.flags: list[bytes] = []
        self.recent: set[int] = set()
        self.validity = b""
        self.uid_next = 0
        self.announced: tuple[bytes, ...] = ()
        self._snapshot: Snapshot | None = None

    def __len__(self) -> int:
        return len(self.uids)

    def exists(self, count: int) -> None:
        """The server says how many there are: more than are known are new, fewer cannot be."""
        missing = count - len(self.uids)
        if missing < 0:
            raise UpstreamProtocolError("fewer messages than there were, without EXPUNGE")
        if count > _MOST:
            raise UpstreamProtocolError(f"more than {_MOST} messages")
        if missing:
            self.uids.extend([0] * missing)
            self.flags += [UNKNOWN] * missing
            self._snapshot = None

    def expunge(self, number: int) -> int:
        """A message is gone; return its UID, 0 where that was never known."""
        if not 0 < number <= len(self.uids):
            raise UpstreamProtocolError("EXPUNGE of a message that was not there")
        uid = self.uids.pop(number - 1)
        del self.flags[number - 1]
        if number <= self.filled:
            self.filled -= 1
        self.recent.discard(uid)
        self._snapshot = None
        return uid

    def learn(self, index: int, uid: int, flags: bytes | None) -> bool:
        """A message has this UID (0: not said) and these flags (``None``: not said); whether its flags have changed.

        :raise UpstreamProtocolError: it contradicts what was known
        """
        known = self.uids[index]
        if uid and uid != known:
            self._name(index, known, uid)
        before = self.flags[index]
        changed = False
        if flags is not None and flags != before:
            changed = before is not UNKNOWN and not same_flags(flags, before)
            self.flags[index] = flags
            self._snapshot = None
        if index == self.filled:
            self._fill()
        return changed

    def learn_all(self, first: int, last: int, uids: list[int], flags: list[bytes]) -> bool:
        """Learn of messages of which nothing is known, behind those that are; ``False``: they are others.

        :param first: the number of the first of them; ``last``: that of the last
        """
        begin = self.filled
        ascending = all(map(int.__lt__, uids, uids[1:])) and uids[0] > (self.uids[begin - 1] if begin else 0)
        if first != begin + 1 or last != begin + len(uids) or last > len(self.uids) or not ascending:
            return False
        if any(self.uids[begin:last]):
            return False
        self.uids[begin:last] = array("L", uids)
        self.flags[begin:last] = flags
        self.filled = last
        if self.uid_next and uids[-1] >= self.uid_next:
            self.uid_next = uids[-1] + 1
        self._snapshot = None
        return True

    def _name(self, index: int, known: int, uid: int) -> None:
        before = (self.uids[index - 1] or (self.uids[self.filled - 1] if self.filled else 0)) if index else 0
        after = self.uids[index + 1] if index + 1 < len(self.uids) else 0
        if known or uid <= before or (after and uid >= after):
            raise UpstreamProtocolError("a UID that contradicts what was known")
        self.uids[index] = uid
        if self.uid_next and uid >= self.uid_next:
            self.uid_next = uid + 1
        self._snapshot = None

    def _fill(self) -> None:
        while self.filled < len(self.uids) and self.uids[self.filled] and self.flags[self.filled] is not UNKNOWN:
            if self.filled and self.uids[self.filled] <= self.uids[self.filled - 1]:
                raise UpstreamProtocolError("UIDs that do not ascend")
            self.filled += 1

    def index(self, uid: int) -> int | None:
        """Where a message stands, from 0; ``None``: it is not there, as far as is known."""
        found = bisect_left(self.uids, uid, 0, self.filled)
        return found if found < self.filled and self.uids[found] == uid else None

    def first_unseen(self) -> int:
        """The number of the first message without ``\\Seen``; 0: there is none."""
        for number, flags in enumerate(self.flags, 1):
            if not _seen(flags):
                return number
        return 0

    def snapshot(self) -> Snapshot:
        """What is known now; whoever asks at the same moment shares one."""
        if self._snapshot is None:
            runs: list[tuple[int, int, bytes]] = []
            first = last = 0
            current = UNKNOWN
            for uid, flags in zip(self.uids, self.flags, strict=True):
                if uid == last + 1 and flags == current:
                    last = uid
                    continue
                if first:
                    runs.append((first, last, current))
                first, last, current = uid, uid, flags
            if first:
                runs.append((first, last, current))
            self._snapshot = Snapshot(tuple(runs), self.validity)
        return self._snapshot


@lru_cache(4096)
def _seen(flags: bytes) -> bool:
    return b"\\seen" in flags.lower().split()
