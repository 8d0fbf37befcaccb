"""In what the servers differ, as far as a client must put up with it (each seen on a connection of its own)."""

from __future__ import annotations

from typing import NamedTuple


class Ways(NamedTuple):
    """What clients of one server, by one way of getting there, must expect.

    :ivar prefix: stands before the name of a mailbox
    :ivar grows_untold: a FETCH or an EXPUNGE may be of a number above the last EXISTS
    :ivar guards_examined: nothing is stored in the mailbox that one has EXAMINEd
    :ivar reads_backwards: it understands ``4:2``
    :ivar forgets: after a MOVE it may tell nothing of the last messages that others have stored meanwhile, not even at
        NOOP, until it is asked for them
    :ivar dies: of a command on messages that another connection has expunged meanwhile
    """

    prefix: bytes = b""
    grows_untold: bool = False
    forgets: bool = False
    dies: bool = False
    guards_examined: bool = False
    reads_backwards: bool = True


def ways_of(server: str, mode: str) -> Ways:
    """How it is at a server, through a gate of this mode (``direct``: through none)."""
    if server == "cyrus":
        return Ways(grows_untold=mode != "shared", forgets=True, dies=True)
    if server == "courier":
        return Ways(prefix=b"INBOX.", reads_backwards=False, guards_examined=True)
    return Ways()
