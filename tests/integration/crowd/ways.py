"""In what the servers differ, as far as a client must put up with it (each seen on a connection of its own)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Dies(Enum):
    """Which commands a server may die of."""

    NEVER = 0
    OF_CHANGING = 1
    """FETCH that sets \\Seen, COPY, MOVE: an assertion of Cyrus's fails."""
    OF_READING = 2
    """Whatever opens a message: Courier's imapd just ends."""


class Ways(NamedTuple):
    """What clients of one server, by one way of getting there, must expect.

    :ivar prefix: stands before the name of a mailbox
    :ivar grows_untold: a FETCH or an EXPUNGE may be of a number above the last EXISTS
    :ivar guards_examined: nothing is stored in the mailbox that one has EXAMINEd
    :ivar hides: what another connection has changed of a message's flags is never told to one who silently stores, or
        copies, that message before hearing of it
    :ivar reads_backwards: it understands ``4:2``
    :ivar forgets: after a MOVE it may tell nothing of the last messages that others have stored meanwhile, not even at
        NOOP, until it is asked for them
    :ivar dies: of certain commands on messages that another connection has changed or expunged meanwhile
    :ivar misses: it may say that a message cannot be read which another connection is changing
    """

    prefix: bytes = b""
    grows_untold: bool = False
    forgets: bool = False
    dies: Dies = Dies.NEVER
    misses: bool = False
    hides: bool = False
    guards_examined: bool = False
    reads_backwards: bool = True


def ways_of(server: str, mode: str) -> Ways:
    """How it is at a server, through a gate of this mode (``direct``: through none)."""
    if server == "cyrus":
        return Ways(grows_untold=mode != "shared", forgets=True, dies=Dies.OF_CHANGING)
    if server == "courier":
        return Ways(
            prefix=b"INBOX.",
            reads_backwards=False,
            guards_examined=True,
            hides=mode != "shared",
            dies=Dies.OF_READING,
            misses=True,
        )
    return Ways()
