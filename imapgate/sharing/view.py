"""What one session has been told of its mailbox, and what it is owed.

A view is a prefix of the truth, and what is gone from it without the session's knowing.  It grows only at the end,
so its numbers are an index and a bisection away.  It must not know how the truth is learnt.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

from imapgate.sharing.truth import RECENT, UNKNOWN, Snapshot, Truth, same_flags
from imapgate.wire.sequence import MOST

_STEP = 2.0**-10
"""Less than any UID."""


class View:
    """One session's picture of the selected mailbox.

    :ivar told: so many messages of the truth, from its first, the session knows
    :ivar ghosts: UIDs of messages, ascending, that are gone, and that the session was not told to be; one that had
        none yet stands between its neighbours' UIDs
    :ivar changed: UIDs of messages whose flags it is owed
    :ivar recents: UIDs of the messages that are recent to this session, and to no other
    :ivar announced: the lines FLAGS and PERMANENTFLAGS that it was told last
    :ivar snapshot: while it has no channel: the truth that it is a view of
    """

    __slots__ = ("_recent", "announced", "changed", "ghosts", "read_only", "recents", "snapshot", "told")

    def __init__(self, *, read_only: bool) -> None:
        self.read_only = read_only
        self.told = 0
        self.ghosts: list[float] = []
        self.changed: dict[int, None] = {}
        self.recents: set[int] = set()
        self._recent = 0  # so many it was told
        self.announced: tuple[bytes, ...] = ()
        self.snapshot: Snapshot | None = None

    def __len__(self) -> int:
        return self.told + len(self.ghosts)

    def agrees(self, truth: Truth) -> bool:
        """Whether every number means the same here and there, and there are no others."""
        return not self.ghosts and self.told == len(truth)

    def number(self, truth: Truth, index: int) -> int:
        """The session's number of a message of the truth."""
        if not self.ghosts:
            return index + 1
        uid = truth.uids[index]
        return index + 1 + (bisect_left(self.ghosts, uid) if uid else len(self.ghosts))

    def gone(self, truth: Truth) -> list[int]:
        """The session's numbers of the messages that are gone without its knowing, in order."""
        end = self._named(truth)
        return [bisect_left(truth.uids, uid, 0, end) + rank for rank, uid in enumerate(self.ghosts, 1)]

    def _named(self, truth: Truth) -> int:
        """How many messages that the session knows have UIDs that are known, from the first on."""
        end = min(truth.filled, self.told)
        while end < self.told and truth.uids[end]:
            end += 1
        return end

    # --- what happens ---------------------------------------------------------------------------------

    def expunged(self, truth: Truth, index: int, uid: int) -> None:
        """A message is gone from the truth that stood here; ``uid`` is 0 where it was never said."""
        if index < self.told:
            self.told -= 1
            insort(self.ghosts, uid or self._between(truth, index))
            self.changed.pop(uid, None)

    def _between(self, truth: Truth, index: int) -> float:
        """What stands for the UID of a message behind all that were known before this place."""
        before = truth.uids[index - 1] if index else 0
        after = next((uid for uid in truth.uids[index:] if uid), MOST)
        behind = bisect_left(self.ghosts, after)
        return max(before, self.ghosts[behind - 1] if behind else 0) + _STEP

    def owe(self, truth: Truth, index: int) -> None:
        """The flags of a message have changed."""
        if index < self.told and truth.uids[index]:
            self.changed[truth.uids[index]] = None

    # --- telling --------------------------------------------------------------------------------------

    def flush(self, truth: Truth, *, expunges: bool) -> bytes:
        """Tell all that is owed, in the order in which no number changes its meaning on the way.

        New messages are told of when their UIDs and flags are known.

        :param expunges: a message may be told to be gone now (RFC 3501 §7.4.1)
        """
        grown = self.told < truth.filled or (truth.recent and not self.read_only)
        if not (grown or self.changed or self.ghosts) and self.announced is truth.announced:
            return b""
        said = [self.announce(truth)]
        self._claim(truth)
        for uid in list(self.changed):
            index = truth.index(uid)
            if index is not None:
                del self.changed[uid]
                said.append(b"* %d FETCH (FLAGS (%b))\r\n" % (self.number(truth, index), self.flags(truth, index)))
        if expunges and self.ghosts:
            said += [b"* %d EXPUNGE\r\n" % number for number in reversed(self.gone(truth))]
            self.recents.difference_update(self.ghosts)
            self.ghosts = []
        said.append(self._grown(truth, truth.filled) or self._other_recent(truth))
        return b"".join(said)

    def _other_recent(self, truth: Truth) -> bytes:
        before = self._recent
        return b"* %d RECENT\r\n" % self._recent if self.recent(truth) != before else b""

    def announce(self, truth: Truth) -> bytes:
        """Tell which flags there are, before one is shown that the session has not heard of."""
        before, self.announced = self.announced, truth.announced
        return b"" if before == truth.announced else b"".join(truth.announced)

    def grow(self, truth: Truth) -> bytes:
        """Tell of all new messages, also of those of which no more is known yet; that may be done at any time."""
        return self._grown(truth, len(truth))

    def _grown(self, truth: Truth, count: int) -> bytes:
        if self.told >= count:
            return b""
        self._take(truth, count)
        return b"* %d EXISTS\r\n* %d RECENT\r\n" % (len(self), self.recent(truth))

    def take(self, truth: Truth) -> None:
        """The session is being told of all messages; those that are recent are recent to it, and to nobody else."""
        self._take(truth, len(truth))

    def _take(self, truth: Truth, count: int) -> None:
        self.told = count
        self._claim(truth)

    def _claim(self, truth: Truth) -> None:
        """Messages that are found to be recent are this session's, also where it was told of them before."""
        if not self.read_only and truth.recent:
            self.recents |= truth.recent
            truth.recent.clear()

    def recent(self, truth: Truth) -> int:
        """How many messages are recent to this session, which is being told so."""
        self._recent = len(truth.recent) if self.read_only else len(self.recents)
        return self._recent

    def flags(self, truth: Truth, index: int) -> bytes:
        """The flags of a message, as this session sees them."""
        flags, uid = truth.flags[index], truth.uids[index]
        if uid in (truth.recent if self.read_only else self.recents):
            return b"%b %b" % (flags, RECENT) if flags else RECENT
        return flags

    # --- without a channel, and with another one ------------------------------------------------------

    def park(self, truth: Truth) -> bool:
        """Go on without a channel; ``False``: that cannot be, since of what it was told not all is known."""
        self.snapshot = truth.snapshot()
        return self.told <= truth.filled

    def rebase(self, truth: Truth) -> bool:
        """Go on with another channel: what has become different is owed; ``False``: it cannot be the same mailbox."""
        snapshot, self.snapshot = self.snapshot, None
        assert snapshot is not None
        if snapshot.validity != truth.validity:
            return False
        before = snapshot.messages()
        known = sorted([*list(before)[: self.told], *self.ghosts])
        last = known[-1] if known else 0
        here = truth.uids[: bisect_right(truth.uids, last)]
        self.told = len(here)
        present = set(here)
        self.ghosts = [uid for uid in known if uid not in present]
        self.changed = dict.fromkeys(self._different(truth, before, here))
        return self.told + len(self.ghosts) == len(known)

    def _different(self, truth: Truth, before: dict[int, bytes], here: Iterable[int]) -> Iterable[int]:
        changed = self.changed
        return (
            uid
            for uid, flags in zip(here, truth.flags, strict=False)
            if uid in changed or not same_flags(before.get(uid, UNKNOWN), flags)
        )
