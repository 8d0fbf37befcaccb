"""Which session looks at its mailbox on which channel: joining, parking, going on elsewhere.

A session joins a channel that has its mailbox, after a look at whether it is still the same; else one is opened.  Its
view survives without a channel, and what has changed meanwhile it is owed when it has one again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode
from imapgate.session.effects import Failed
from imapgate.sharing.channel import Channel
from imapgate.sharing.channels import Channels, Demand
from imapgate.sharing.seat import Seat
from imapgate.sharing.task import Completed, Mailbox, Task
from imapgate.sharing.view import View

Joined = Callable[[Channel | None, Completed, bool], None]
"""Called with the channel (``None``: none is to be had), how the SELECT ended, and whether it was done just now."""

_UNREACHABLE = b"The mail server cannot be reached; try again later"


class Attaching:
    """Who looks where.

    :param idle: what becomes of sessions that idle
    :param end: ends a session that cannot go on
    :param counts: how often what was done
    """

    def __init__(self, idle: IdleMode, end: Callable[[Seat, Failure], None], counts: Counter[str]) -> None:
        self._idle = idle
        self._end = end
        self._counts = counts
        self._opening: dict[Mailbox, list[tuple[Seat, Joined]]] = {}  # who waits for a mailbox to be opened
        self.channels: Channels
        """Set by the share, whose channels in turn need to know who looks at them."""

    # --- joining --------------------------------------------------------------------------------------

    def join(self, seat: Seat, joined: Joined, *, patient: bool = False) -> None:
        """Find a channel that has a session's mailbox, or have one open it."""
        mailbox = seat.mailbox
        assert mailbox is not None
        there = self.channels.serving(mailbox)
        if there:
            channel = min(there, key=lambda channel: len(channel.waiting))
            again = partial(self.join, seat, joined)
            channel.run(Task(channel.check(partial(self._checked, channel, seat, joined)), seat, again, repeats=True))
        elif mailbox in self._opening:
            self._opening[mailbox].append((seat, joined))
        else:
            self._open(seat, mailbox, joined, patient=patient)

    def _checked(self, channel: Channel, seat: Seat, joined: Joined, completed: Completed) -> None:
        if seat.gone:
            return
        if completed.ok and not channel.retired:
            joined(channel, completed, False)
        else:
            self.retire(channel)
            self.join(seat, joined)

    def _open(self, seat: Seat, mailbox: Mailbox, joined: Joined, *, patient: bool = False) -> None:
        waiting = self._opening[mailbox] = [(seat, joined)]

        def serve(channel: Channel) -> None:
            lost = partial(self._open_lost, mailbox, waiting)
            channel.run(Task(channel.select(mailbox, partial(opened, channel)), None, lost, repeats=True))

        def opened(channel: Channel | None, completed: Completed) -> None:
            self._opening.pop(mailbox, None)
            for each, then in waiting:
                if not each.gone:
                    then(channel, completed, True)

        def refuse(failed: Failed) -> None:
            opened(None, Completed(b"NO", b" NO [UNAVAILABLE] %b\r\n" % (failed.text or _UNREACHABLE)))

        self.channels.demand(Demand(seat, serve, refuse, selects=True, patient=patient))

    def _open_lost(self, mailbox: Mailbox, waiting: list[tuple[Seat, Joined]]) -> None:
        """The server has gone while it opened a mailbox: who asked is told, the others ask anew."""
        self._opening.pop(mailbox, None)
        (first, _), *others = waiting
        self._end(first, Failure.LOST)
        for seat, joined in others:
            if not seat.gone:
                self.join(seat, joined)

    def select(self, seat: Seat, tag: bytes) -> None:
        """Let a session select a mailbox."""

        def joined(channel: Channel | None, completed: Completed, fresh: bool) -> None:
            if channel is None or not completed.ok:
                seat.mailbox = None
                seat.finish(tag + completed.rest)
                return
            self._counts["opened" if fresh else "joined"] += 1
            view = seat.view = View(read_only=channel.opening.read_only)
            self._attach(seat, channel, view)
            seat.finish(channel.opening.said(view, channel.truth, fresh=fresh) + tag + channel.opening.text)

        self.join(seat, joined)

    def _attach(self, seat: Seat, channel: Channel, view: View) -> None:
        channel.views[view] = seat
        channel.idlers += seat.idling
        seat.channel = channel

    def reattach(
        self, seat: Seat, then: Callable[[], None], refused: Callable[[Completed], None], *, patient: bool = False
    ) -> None:
        """Get a session whose channel was given up another one."""
        view = seat.view
        assert view is not None

        def joined(channel: Channel | None, completed: Completed, fresh: bool) -> None:
            if seat.view is view and seat.channel is None:
                if channel is None:
                    refused(completed)
                    return
                if not completed.ok or not view.rebase(channel.truth):
                    self._end(seat, Failure.LOST)
                    return
                self._counts["reattached"] += 1
                self._attach(seat, channel, view)
            then()

        self.join(seat, joined, patient=patient)

    def revive(self, seat: Seat) -> None:
        """Have the mailbox of a session that idles looked at again."""
        if self._idle is IdleMode.SHARE and not seat.reviving:
            seat.reviving = True
            self.reattach(seat, partial(_revived, seat), partial(_revived, seat), patient=True)

    def moves(self, seat: Seat, channel: Channel) -> bool:
        """Whether a session is to go on elsewhere, since too many wait where it is; it is parked then."""
        mailbox = channel.mailbox
        if mailbox is None or mailbox in self._opening:
            return False
        others = [other for other in self.channels.serving(mailbox) if other is not channel]
        if all(other.busy for other in others):
            if others or self.channels.full:
                return False
            self._open(seat, mailbox, _nothing)
        self.park(seat)
        return True

    # --- leaving --------------------------------------------------------------------------------------

    def detach(self, seat: Seat) -> None:
        """A session has left its mailbox."""
        channel, seat.channel = seat.channel, None
        if channel is not None and seat.view is not None and channel.views.pop(seat.view, None) is not None:
            channel.idlers -= seat.idling
            self.channels.settled(channel)

    def park(self, seat: Seat) -> None:
        """Have a session go on without a channel."""
        channel, view = seat.channel, seat.view
        if channel is not None and view is not None and channel.views.pop(view, None) is not None:
            self._counts["parked"] += 1
            channel.idlers -= seat.idling
            seat.channel = None
            if not view.park(channel.truth):
                self._end(seat, Failure.LOST)
            self.channels.settled(channel)

    def retire(self, channel: Channel) -> None:
        """Nobody joins this channel any more, and whoever is there goes on elsewhere."""
        channel.retired = True
        job = channel.job  # its session goes when that is done
        self._move_on([seat for seat in channel.views.values() if job is None or job.seat is not seat])

    def _move_on(self, seats: list[Seat]) -> None:
        for seat in seats:
            self.park(seat)
        for seat in seats:
            if seat.idling and not seat.gone:
                self.revive(seat)

    def forget(self, name: str) -> None:
        """A mailbox, and what is below it, is about to be deleted or renamed."""
        for channel in self.channels:
            mailbox = channel.mailbox
            if mailbox is not None and (mailbox.name == name or mailbox.name.startswith((name + "/", name + "."))):
                self.retire(channel)

    def lost(self, channel: Channel, failure: Failure) -> None:
        """A channel is gone: whose command was in flight is told, all others go on (SHARED, rule 23)."""
        task, waiting = channel.task, list(channel.waiting)
        seats = list(channel.views.values())
        if task is not None and task.repeats:
            waiting.insert(0, task)
        elif task is not None and task.seat is not None:
            self._end(task.seat, failure)
        self._move_on(seats)
        for each in waiting:
            if each.again is not None and (each.seat is None or not each.seat.gone):
                each.again()


def _revived(seat: Seat, failed: Completed | None = None) -> None:
    """A session that idles has a channel again, or there is none to be had."""
    seat.reviving = False


def _nothing(channel: Channel | None, completed: Completed, fresh: bool) -> None:
    """Whoever opens a channel for others wants nothing of it."""
