"""One upstream connection as the book of the pools has it, what it belongs to, and what is ordered of it."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple


class Key(NamedTuple):
    """What a connection belongs to for life.

    :ivar upstream: the upstream server's name
    :ivar profile: a number for how it was reached (endpoints, TLS), another one after each reload that changed it
    :ivar user: the user authenticated as, octet for octet; empty where a relayed mechanism hid it
    :ivar generation: raised whenever the user's credential was found to be another one
    """

    upstream: str
    profile: int
    user: bytes
    generation: int


class Terms(NamedTuple):
    """The bounds of one upstream's pools; times in seconds.

    :ivar size: most connections of one user, in whatever stage
    :ivar keep: idle ones kept for one user
    :ivar alone: they are kept although the user has no session, because a later login can be given them
    :ivar counted: leased ones count as kept, because they serve all of the user's sessions
    :ivar most: most connections to the upstream in all; 0: no bound of its own
    :ivar check: one that was idle for longer is checked before it is lent
    """

    size: int = 10
    keep: int = 1
    alone: bool = False
    counted: bool = False
    idle: float = 300.0
    lifetime: float = 3600.0
    wait: float = 10.0
    most: int = 0
    check: float = 30.0


class Stage(Enum):
    """Where a connection stands."""

    __hash__ = object.__hash__

    CONNECTING = "connecting"
    """It is being opened, for one asker."""
    LEASED = "leased"
    RESETTING = "resetting"
    """It came back, and its barrier is not answered yet."""
    IDLE = "idle"
    CHECKING = "checking"
    """It was idle for long, and is asked whether it lives before it is lent."""
    CLOSING = "closing"


class Connection:
    """One upstream connection, as the book has it.

    :ivar carrier: the shell's own, whatever carries the octets; the book never looks at it
    :ivar stale: it may not be lent again, whoever asks
    """

    __slots__ = ("carrier", "expires", "key", "since", "stage", "stale", "ticket")

    def __init__(self, key: Key, ticket: object) -> None:
        self.key = key
        self.stage = Stage.CONNECTING
        self.ticket: object | None = ticket
        self.since = 0.0  # when it became idle
        self.expires = 0.0
        self.stale = False
        self.carrier: Any = None


# --- orders ---------------------------------------------------------------------------------------


class Dial(NamedTuple):
    """Open this connection, by the asker's own login."""

    connection: Connection
    ticket: object


class Lend(NamedTuple):
    """It is this asker's now."""

    connection: Connection
    ticket: object


class Check(NamedTuple):
    """Ask whether it lives."""

    connection: Connection


class Reset(NamedTuple):
    """Put the barrier up."""

    connection: Connection


class Discard(NamedTuple):
    """Log out and close; ``lost`` is awaited."""

    connection: Connection


class Refuse(NamedTuple):
    """This asker has waited for too long."""

    ticket: object


Order = Dial | Lend | Check | Reset | Discard | Refuse
