"""What is done on a channel, as values: a mailbox, a session's command, a script and for whom it runs, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from imapgate.errors import UpstreamProtocolError
from imapgate.model.commands import Command
from imapgate.model.reading import Reading
from imapgate.wire.writer import Part

if TYPE_CHECKING:
    from imapgate.sharing.seat import Seat


class Farewell(UpstreamProtocolError):
    """The server has said BYE.

    :ivar line: as it came
    """

    def __init__(self, line: bytes) -> None:
        super().__init__("BYE")
        self.line = line


class Completed(NamedTuple):
    """How a command ended: OK, NO or BAD, and the line behind the tag."""

    outcome: bytes
    rest: bytes

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.outcome == b"OK"


class Mailbox(NamedTuple):
    """What a channel, or a view, has selected.

    :ivar name: the canonical name; ``argument``: how it is written in a command
    """

    name: str
    read_only: bool
    argument: tuple[Part, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mailbox) and self[:2] == other[:2]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:2])


Script = Generator[tuple[Part, ...], Completed, None]


class Task(NamedTuple):
    """A script, and for whom it runs.

    :ivar again: what to do in its place if the channel is lost before it has begun
    :ivar repeats: or while it runs
    """

    script: Script
    seat: Seat | None = None
    again: Callable[[], None] | None = None
    repeats: bool = False


class Idle(Enum):
    """Where IDLE stands on a channel."""

    NONE = "none"
    ASKED = "asked"
    IDLING = "idling"
    ENDING = "DONE sent"


class Job:
    """One command of a session, on a channel."""

    __slots__ = ("command", "reading", "seat")

    def __init__(self, seat: Seat, command: Command) -> None:
        self.seat = seat
        self.command = command
        self.reading = Reading(command)
