"""For how long an upstream connection is one client's: the modes of a pool, and the terms of the one that shares."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class PoolMode(StrEnum):
    """What a client holds its upstream connection for."""

    SESSION = "session"
    """From login to logout."""
    MAILBOX = "mailbox"
    """While it has a mailbox selected or a command in flight."""
    SHARED = "shared"
    """While a command of its own runs: a mailbox is selected once for all clients of a user that look at it."""


class IdleMode(StrEnum):
    """What becomes of a client's IDLE in mode shared; in the others it is always relayed."""

    RELAY = "relay"
    """It is the IDLE of a connection that is the client's own from then on."""
    SHARE = "share"
    """One connection idles for all of a user's clients that idle in a mailbox."""
    POLL = "poll"
    """No connection idles: a mailbox is looked at now and then."""


class SharingTerms(NamedTuple):
    """The bounds of one user's sharing at one upstream; times in seconds.

    :ivar size: most connections of the user that are shared
    :ivar idle_poll: from one look at a mailbox to the next, with :attr:`IdleMode.POLL`
    :ivar idle_connections: most connections that look at the same time, of all users of the upstream
    :ivar park_after: a client that says nothing for so long no longer keeps its mailbox selected
    :ivar share_stall: for how long a client that takes nothing may hold up the others of its mailbox
    """

    size: int = 10
    idle: IdleMode = IdleMode.SHARE
    idle_poll: float = 60.0
    idle_connections: int = 20
    park_after: float = 300.0
    share_stall: float = 2.0
