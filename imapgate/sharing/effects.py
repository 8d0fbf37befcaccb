"""What a share asks the shell to do, in order: a closed set."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from imapgate.model.failure import Failure

if TYPE_CHECKING:
    from imapgate.sharing.channel import Channel
    from imapgate.sharing.seat import Seat


class Say(NamedTuple):
    """Hand this to a session, as if its upstream had said it."""

    seat: Seat
    data: bytes


class Send(NamedTuple):
    """Write to the upstream connection of a channel."""

    channel: Channel
    data: bytes


class Want(NamedTuple):
    """Get this channel an upstream connection, by the login of this seat's session."""

    channel: Channel
    seat: Seat


class GiveBack(NamedTuple):
    """The share needs a channel's connection no more; ``clean``: it may be another's when its barrier is answered."""

    channel: Channel
    clean: bool
    selected: bool


class End(NamedTuple):
    """A session has lost its upstream, for this reason: it is over."""

    seat: Seat
    failure: Failure
    why: str


class Broken(NamedTuple):
    """A channel's server has said what it must not, or nothing for too long: the connection is given up."""

    channel: Channel
    why: str


class Pinned(NamedTuple):
    """A session has a connection of its own from now on, for this reason."""

    seat: Seat
    reason: str


class Polled(NamedTuple):
    """The look at the mailboxes of idling sessions, begun by ``poll``, is over."""


Effect = Say | Send | Want | GiveBack | End | Broken | Pinned | Polled
