"""Mailboxes that nobody looks at, and for which sessions idle: looked at in turn, by one connection.

It must not know when: that is for whoever has a clock, and knows how many do so at the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode
from imapgate.sharing.attaching import GONE, Attaching
from imapgate.sharing.channel import Channel
from imapgate.sharing.channels import Channels
from imapgate.sharing.effects import Polled
from imapgate.sharing.out import Out
from imapgate.sharing.seat import Seat
from imapgate.sharing.task import Completed, Mailbox


class Polling:
    """One look at all mailboxes of sessions that idle and have no channel.

    :param seats: all sessions
    :param end: ends one that cannot go on
    """

    def __init__(
        self,
        out: Out,
        attaching: Attaching,
        channels: Channels,
        seats: Iterable[Seat],
        idle: IdleMode,
        end: Callable[[Seat, Failure, str], None],
    ) -> None:
        self._out = out
        self._attaching = attaching
        self._channels = channels
        self._seats = seats
        self._idle = idle
        self._end = end
        self._mailboxes: deque[Mailbox] | None = None  # that are still to be looked at
        self._looker: Seat | None = None  # for whom that is done at present

    def left(self, seat: Seat) -> None:
        """A session is over."""
        if self._looker is seat:
            self._next()

    def begin(self) -> None:
        """Look at all of them, one after the other."""
        if self._mailboxes is None:
            mailboxes = [seat.mailbox for seat in self._seats if seat.unwatched]
            self._mailboxes = deque(dict.fromkeys(mailbox for mailbox in mailboxes if mailbox is not None))
            self._next()

    def _next(self) -> None:
        """Look at the next one."""
        while self._mailboxes:
            mailbox = self._mailboxes.popleft()
            seat = next((seat for seat in self._seats if seat.unwatched and seat.mailbox == mailbox), None)
            if seat is not None:
                self._looker = seat
                self._attaching.join(seat, partial(self._polled, mailbox))
                return
        self._mailboxes = self._looker = None
        if self._idle is IdleMode.POLL:
            self._channels.give_back_vacant()
        self._out.effect(Polled())

    def _polled(self, mailbox: Mailbox, channel: Channel | None, completed: Completed, fresh: bool) -> None:
        self._looker = None
        for seat in [seat for seat in self._seats if seat.unwatched and seat.mailbox == mailbox]:
            view = seat.view
            if view is None or channel is None:
                continue
            if not completed.ok or not view.rebase(channel.truth):
                self._end(seat, Failure.LOST, GONE)
                continue
            said = view.flush(channel.truth, expunges=True)
            if said:
                seat.say(said)
            view.park(channel.truth)
        if channel is not None and self._idle is IdleMode.POLL and not channel.views:
            channel.retired = True  # it goes as soon as this is done
        self._next()
