"""Which session looks at its mailbox on which channel: joining, parking, going on elsewhere.

A session joins a channel that has its mailbox, after a look at whether it is still the same; else one is opened.  Its
view survives without a channel, and what has changed meanwhile it is owed when it has one again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from imapgate.model.failure import ANSWERS, Failure
from imapgate.model.pool_mode import IdleMode
from imapgate.session.effects import Failed
from imapgate.sharing.channel import Channel
from imapgate.sharing.channels import Channels, Demand
from imapgate.sharing.seat import Seat
from imapgate.sharing.task import Completed, Mailbox, Task
from imapgate.sharing.view import View

Joined = Callable[[Channel | None, Completed, bool], None]
"""Called with the channel (``None``: none is to be had), how the SELECT ended, and whether it was done just now."""

VERIFY = 60.0
"""Seconds after which a server is asked anew whether a mailbox is still the same."""
REVIVE_FIRST, REVIVE_MOST = 2.0, 60.0
"""Seconds after which a channel is wanted again for a session that idles, where there was none: at first, at most."""
GONE = "the mailbox is gone, or another one of its name is there"
_QUEUE_MOST = 3
"""Commands that wait on one channel before another one is opened for its mailbox."""


class Joiner(NamedTuple):
    """Who wants to look at a mailbox.

    :ivar patient: nobody is to lose a channel for it
    :ivar again: the server has gone before while it told the gate what is there
    """

    seat: Seat
    mailbox: Mailbox
    joined: Joined
    patient: bool
    again: bool = False


class Opened(NamedTuple):
    """A mailbox for which a channel is wanted, or that is being selected, and who waits for that."""

    demand: Demand
    waiting: list[Joiner]


def crowded(channel: Channel) -> bool:
    """Whether so many commands wait on a channel that another one is worth its while."""
    return len(channel.waiting) >= _QUEUE_MOST


class Attaching:
    """Who looks where.

    :param idle: what becomes of sessions that idle
    :param end: ends a session that cannot go on
    :param counts: how often what was done
    """

    def __init__(self, idle: IdleMode, end: Callable[[Seat, Failure, str], None], counts: Counter[str]) -> None:
        self._idle = idle
        self._end = end
        self._counts = counts
        self._opening: dict[Mailbox, Opened] = {}
        self.channels: Channels
        """Set by the share, whose channels in turn need to know who looks at them."""

    # --- joining --------------------------------------------------------------------------------------

    def join(self, seat: Seat, joined: Joined, *, patient: bool = False) -> None:
        """Find a channel that has a session's mailbox, or have one open it."""
        assert seat.mailbox is not None
        self._join(Joiner(seat, seat.mailbox, joined, patient))

    def _join(self, joiner: Joiner) -> None:
        mailbox = joiner.mailbox
        opening = self._opening.get(mailbox)
        there = self.channels.serving(mailbox)
        if opening is not None:
            opening.waiting.append(joiner)
            opening.demand.join(joiner.seat, patient=joiner.patient)
            self.channels.supply()
        elif not there or (not self.channels.full and all(map(crowded, there))):
            self._open(joiner)
        else:
            self._check(joiner, there)

    def _check(self, joiner: Joiner, there: list[Channel]) -> None:
        channel = min(there, key=lambda channel: len(channel.waiting))
        checked, again = partial(self._checked, channel, joiner), partial(self._join, joiner)
        channel.run(Task(channel.check(joiner.mailbox, checked, again), joiner.seat, again, repeats=True))

    def _checked(self, channel: Channel, joiner: Joiner, completed: Completed) -> None:
        if joiner.seat.gone:
            return
        if completed.ok and not channel.retired:
            joiner.joined(channel, completed, False)
        else:
            self.retire(channel)
            self._join(joiner)

    def _open(self, joiner: Joiner) -> None:
        mailbox, waiting = joiner.mailbox, [joiner]
        asked = 0  # so many had come when the server was asked; what it said is old to the others

        def serve(channel: Channel) -> None:
            nonlocal asked
            asked = len(waiting)
            lost = partial(self._open_lost, channel, mailbox, waiting)
            channel.run(Task(channel.select(mailbox, partial(opened, channel)), None, lost, repeats=True))

        def opened(channel: Channel | None, completed: Completed) -> None:
            self._opening.pop(mailbox, None)
            for place, each in enumerate(waiting):
                if each.seat.gone:
                    continue
                if channel is None or place < asked:
                    each.joined(channel, completed, True)
                else:
                    self._join(each)

        def refuse(failed: Failed) -> None:
            there = self.channels.serving(mailbox)
            if not there:
                completion, code, text = ANSWERS[failed.failure]
                opened(None, Completed(completion, b" %b [%b] %b\r\n" % (completion, code, failed.text or text)))
                return
            del self._opening[mailbox]
            for each in waiting:
                self._check(each, there)

        demand = Demand(joiner.seat, serve, refuse, selects=True, patient=joiner.patient)
        self._opening[mailbox] = Opened(demand, waiting)
        self.channels.demand(demand)

    def _open_lost(self, channel: Channel, mailbox: Mailbox, waiting: list[Joiner]) -> None:
        """The server has gone while it opened a mailbox.

        Who asked for that is told, and the others ask anew.  What the gate asks behind it is nobody's fault: once, all
        ask anew.
        """
        self._opening.pop(mailbox, None)
        first = waiting[0]
        if channel.mailbox is None or first.again:
            self._end(first.seat, Failure.LOST, "the server went while it selected the mailbox")
        for each in waiting:
            if not each.seat.gone:
                self._join(each._replace(again=True))

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
        channel.asked = self.channels.now
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
                    self._end(seat, Failure.LOST, GONE)
                    return
                self._counts["reattached"] += 1
                self._attach(seat, channel, view)
            then()

        self.join(seat, joined, patient=patient)

    def revive(self, seat: Seat) -> None:
        """Have the mailbox of a session that idles looked at again."""
        if self._idle is IdleMode.SHARE and not seat.reviving and self.channels.now >= seat.revives:
            seat.reviving = True
            self.reattach(seat, partial(self._revived, seat), partial(self._revived, seat), patient=True)

    def _revived(self, seat: Seat, failed: Completed | None = None) -> None:
        """A session that idles has a channel again, or there is none to be had: it waits longer each time."""
        seat.reviving = False
        seat.delay = 0.0 if failed is None else min(REVIVE_MOST, 2 * seat.delay or REVIVE_FIRST)
        seat.revives = self.channels.now + seat.delay

    def moves(self, seat: Seat, channel: Channel) -> bool:
        """Whether a session is to go on elsewhere, since too many wait where it is; it is parked then."""
        mailbox = channel.mailbox
        if mailbox is None or mailbox in self._opening or not crowded(channel):
            return False
        others = [other for other in self.channels.serving(mailbox) if other is not channel]
        if all(other.busy for other in others) and (others or self.channels.full):
            return False
        self.park(seat)
        return True

    def verify(self) -> None:
        """Ask the servers that do not tell by themselves whether mailboxes are still the same (SHARED, rule 21)."""
        now = self.channels.now
        for channel in self.channels:
            mailbox = channel.mailbox
            if mailbox is not None and channel.trusting and not channel.retired and now - channel.asked >= VERIFY:
                channel.asked = now
                channel.run(Task(channel.check(mailbox, partial(self._verified, channel), _nothing)))

    def _verified(self, channel: Channel, completed: Completed) -> None:
        if not completed.ok:
            self.retire(channel)

    # --- leaving --------------------------------------------------------------------------------------

    def detach(self, seat: Seat) -> None:
        """A session has left its mailbox."""
        channel, seat.channel = seat.channel, None
        if channel is not None and seat.view is not None and channel.views.pop(seat.view, None) is not None:
            channel.go()

    def park(self, seat: Seat) -> None:
        """Have a session go on without a channel."""
        channel, view = seat.channel, seat.view
        if channel is not None and view is not None and channel.views.pop(view, None) is not None:
            self._counts["parked"] += 1
            seat.channel = None
            if not view.park(channel.truth):
                self._end(seat, Failure.LOST, "it was told of messages of which not all is known")
            channel.go()

    def retire(self, channel: Channel) -> None:
        """Nobody joins this channel any more, and whoever is there goes on elsewhere."""
        channel.retired = True
        task = channel.task  # its session goes when that is done
        self._move_on([seat for seat in channel.views.values() if task is None or task.seat is not seat])

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
            self._end(task.seat, failure, "the server went while it did a command")
        self._move_on(seats)
        for each in waiting:
            if each.again is not None and (each.seat is None or not each.seat.gone):
                each.again()


def _nothing() -> None:
    """Another mailbox was selected meanwhile, and nobody waits for an answer."""
