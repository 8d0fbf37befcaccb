"""The channels of a share, and who waits for one: what is used again, opened, freed for somebody, kept, given back.

It must not know what is done on a channel, nor who looks at a mailbox there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from imapgate.model.failure import Failure
from imapgate.session.effects import Failed
from imapgate.session.uplink import IDLE_REFRESH
from imapgate.sharing.channel import Channel
from imapgate.sharing.effects import GiveBack, Want
from imapgate.sharing.out import Out
from imapgate.sharing.seat import Seat
from imapgate.sharing.task import Idle, Mailbox, Task

SPARE = 10.0
"""Seconds for which a channel beside others is kept that nobody needs, for the next message that is stored."""


class Demand:
    """Somebody wants a channel that nobody needs.

    :ivar serve: uses it; ``refuse``: there is none
    :ivar selects: what is selected on it does not matter
    :ivar patient: nobody is to lose a channel for it, and it may wait for ever
    :ivar since: when it was made
    """

    __slots__ = ("_seats", "patient", "refuse", "selects", "serve", "since")

    def __init__(
        self,
        seat: Seat,
        serve: Callable[[Channel], None],
        refuse: Callable[[Failed], None],
        *,
        selects: bool = False,
        patient: bool = False,
    ) -> None:
        self._seats = [seat]
        self.serve = serve
        self.refuse = refuse
        self.selects = selects
        self.patient = patient
        self.since = 0.0

    def join(self, seat: Seat, *, patient: bool) -> None:
        """It is another session's, too."""
        self._seats.append(seat)
        self.patient = self.patient and patient

    @property
    def seat(self) -> Seat | None:
        """Whose it is; ``None``: nobody waits any more."""
        return next((seat for seat in self._seats if not seat.gone), None)


class Channels:
    """All channels of a share.

    :param size: most of them
    :param wait: for how many seconds somebody waits for one
    :param linger: for how many seconds one is kept that nobody needs
    :param needed: whether any session is there, or could come, that could use one
    :param retire: lets all that look at a channel go on elsewhere
    """

    def __init__(
        self,
        out: Out,
        size: int,
        *,
        wait: float,
        linger: float,
        needed: Callable[[], bool],
        retire: Callable[[Channel], None],
    ) -> None:
        self._out = out
        self._size = size
        self._wait = wait
        self._needed = needed
        self._retire = retire
        self._all: list[Channel] = []
        self._demands: deque[Demand] = deque()
        self.linger = linger

    def __iter__(self) -> Iterator[Channel]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)

    @property
    def now(self) -> float:
        """The time as of the last tick."""
        return self._out.now

    @property
    def full(self) -> bool:
        """Whether there may be no more of them."""
        return len(self._all) >= self._size

    def serving(self, mailbox: Mailbox) -> list[Channel]:
        """Those that a session may join to look at this mailbox."""
        return [each for each in self._all if each.ready and not each.retired and each.mailbox == mailbox]

    # --- supply and demand ----------------------------------------------------------------------------

    def new(self) -> Channel:
        """One more."""
        channel = Channel(self._out.send, self._out.say, self.settled)
        channel.since = self._out.now
        self._all.append(channel)
        return channel

    def demand(self, demand: Demand) -> None:
        """Somebody wants a channel."""
        demand.since = self._out.now
        self._demands.append(demand)
        self.supply()

    def refused(self, channel: Channel, failed: Failed) -> None:
        """One that was wanted cannot be had: who is first is told."""
        self.remove(channel)
        demand = next(iter(self._in_order), None)
        if demand is not None:
            self._demands.remove(demand)
            demand.refuse(failed)
        self.supply()

    def remove(self, channel: Channel) -> None:
        """One is no more."""
        channel.closed = True
        self._all.remove(channel)

    @property
    def _in_order(self) -> list[Demand]:
        return sorted(self._demands, key=lambda demand: demand.patient)

    def supply(self) -> None:
        """Serve those who want a channel, in order; the patient ones hold nobody up."""
        for demand in self._in_order:
            if demand not in self._demands:  # it was served meanwhile
                continue
            seat, channel = demand.seat, self._free(demand)
            if seat is None:
                self._demands.remove(demand)
                demand.refuse(Failed(Failure.CANCELLED))
            elif channel is not None:
                self._demands.remove(demand)
                channel.retired = False
                demand.serve(channel)
            else:
                self._make_room(demand, seat)
                if not demand.patient:
                    return

    def refuse_late(self) -> None:
        """Refuse those who have waited for too long: all that there may be are used by others."""
        for demand in list(self._demands):
            if not demand.patient and self._out.now - demand.since >= self._wait and demand in self._demands:
                self._demands.remove(demand)
                demand.refuse(Failed(Failure.BUSY))

    def _free(self, demand: Demand) -> Channel | None:
        vacant = [channel for channel in self._all if channel.vacant and not channel.spent]
        for channel in vacant:
            if channel.mailbox is None:
                return channel
        return vacant[0] if vacant and demand.selects else None

    def _make_room(self, demand: Demand, seat: Seat) -> None:
        """Have a channel opened, or freed, for who is first."""
        coming = sum(channel.link is None or (not channel.views and channel.busy) for channel in self._all)
        if coming >= len(self._demands):
            return
        vacant = next((channel for channel in self._all if channel.vacant and not channel.spent), None)
        if vacant is not None:
            vacant.run(Task(vacant.deselect()))
        elif not self.full:
            self._out.effect(Want(self.new(), seat))
        elif not demand.patient:
            quiet = [channel for channel in self._all if channel.ready and not channel.busy]
            if quiet:
                self._retire(min(quiet, key=lambda channel: (channel.idlers, channel.since)))

    # --- keeping and giving back ----------------------------------------------------------------------

    def settled(self, channel: Channel) -> None:
        """Nothing is left to do on a channel."""
        if channel.busy or not channel.ready:
            return
        if channel.views and channel.retired:
            self._retire(channel)
            return
        self.supply()
        if channel.vacant:
            self._tidy(channel)

    def _tidy(self, channel: Channel) -> None:
        """Keep a channel that nobody needs, or give it back: one is kept where it can serve."""
        if channel.idle is not Idle.NONE:  # it comes here again when that is over
            return
        others = any(other is not channel and other.vacant for other in self._all)
        if others or channel.retired or self.linger <= 0 or not self._needed():
            self.give_back(channel)
        else:
            channel.since = self._out.now

    def tidy(self) -> None:
        """See which of them are still needed."""
        for channel in self:
            if channel.vacant:
                self.settled(channel)

    def give_back_vacant(self) -> None:
        """Keep none that nobody needs."""
        for channel in self:
            if channel.vacant:
                self.give_back(channel)

    def give_back(self, channel: Channel, *, clean: bool = True) -> None:
        """Keep one no longer."""
        link = channel.link
        assert link is not None
        self.remove(channel)
        link.scanner.fine = False
        clean = clean and link.scanner.clean and channel.idle is Idle.NONE
        self._out.effect(GiveBack(channel, clean, channel.mailbox is not None))

    def ticked(self, patience: float) -> list[Channel]:
        """Time has passed; return those whose server has owed an answer for so many seconds, and said nothing."""
        now, silent = self._out.now, []
        for channel in self:
            if not channel.ready:
                continue
            idling = channel.idle is Idle.IDLING
            if not idling:
                channel.idle_since = now
            elif now - channel.idle_since >= IDLE_REFRESH:
                channel.idle_since = now
                channel.refresh()
            if channel.heard or not channel.owes or idling:
                channel.heard, channel.heard_at = False, now
            elif now - channel.heard_at >= patience:
                silent.append(channel)
            if channel.vacant and channel.idle is Idle.NONE and now - channel.since >= self._lingering:
                self.give_back(channel)
        return silent

    @property
    def _lingering(self) -> float:
        return self.linger if len(self._all) == 1 else min(self.linger, SPARE)
