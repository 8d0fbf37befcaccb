"""The channels of a share, and who waits for one: what is used again, opened, freed for somebody, kept, given back.

It must not know what is done on a channel, nor who looks at a mailbox there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from imapgate.session.effects import Failed
from imapgate.session.uplink import IDLE_REFRESH
from imapgate.sharing.channel import Channel
from imapgate.sharing.effects import GiveBack, Want
from imapgate.sharing.out import Out
from imapgate.sharing.seat import Seat
from imapgate.sharing.task import Idle, Mailbox, Task

SPARE = 10.0
"""Seconds for which a channel beside others is kept that nobody needs, for the next message that is stored."""


class Demand(NamedTuple):
    """Somebody wants a channel that nobody needs.

    :ivar serve: uses it; ``refuse``: there is none
    :ivar selects: what is selected on it does not matter
    :ivar patient: nobody is to lose a channel for it
    """

    seat: Seat
    serve: Callable[[Channel], None]
    refuse: Callable[[Failed], None]
    selects: bool = False
    patient: bool = False


class Channels:
    """All channels of a share.

    :param size: most of them
    :param linger: for how many seconds one is kept that nobody needs
    :param needed: whether any session is there, or could come, that could use one
    :param retire: lets all that look at a channel go on elsewhere
    """

    def __init__(
        self, out: Out, size: int, linger: float, needed: Callable[[], bool], retire: Callable[[Channel], None]
    ) -> None:
        self._out = out
        self._size = size
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
        self._demands.append(demand)
        self.supply()

    def refused(self, channel: Channel) -> Demand | None:
        """One that was wanted cannot be had; return who is not served."""
        self.remove(channel)
        return self._demands.popleft() if self._demands else None

    def remove(self, channel: Channel) -> None:
        """One is no more."""
        channel.closed = True
        self._all.remove(channel)

    def supply(self) -> None:
        """Serve those who want a channel, in order; the patient ones hold nobody up."""
        for demand in list(self._demands):
            if demand not in self._demands:  # it was served meanwhile
                continue
            channel = self._free(demand)
            if demand.seat.gone:
                self._demands.remove(demand)
            elif channel is not None:
                self._demands.remove(demand)
                channel.retired = False
                demand.serve(channel)
            else:
                self._make_room(demand)
                if not demand.patient:
                    return

    def _free(self, demand: Demand) -> Channel | None:
        vacant = [channel for channel in self._all if channel.vacant]
        for channel in vacant:
            if channel.mailbox is None:
                return channel
        return vacant[0] if vacant and demand.selects else None

    def _make_room(self, demand: Demand) -> None:
        """Have a channel opened, or freed, for who is first."""
        coming = sum(channel.link is None or (not channel.views and channel.busy) for channel in self._all)
        if coming >= len(self._demands):
            return
        vacant = next((channel for channel in self._all if channel.vacant), None)
        if vacant is not None:
            vacant.run(Task(vacant.deselect()))
        elif not self.full:
            self._out.effect(Want(self.new(), demand.seat))
        elif not demand.patient:
            quiet = [channel for channel in self._all if channel.ready and not channel.busy]
            if quiet:
                self._steal(min(quiet, key=lambda channel: (channel.idlers, channel.since)))

    def _steal(self, channel: Channel) -> None:
        """Free a channel of those who look at it."""
        self._retire(channel)
        if channel.vacant and channel.mailbox is not None:
            channel.run(Task(channel.deselect()))

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

    def give_back(self, channel: Channel, *, clean: bool = True) -> None:
        """Keep one no longer."""
        link = channel.link
        self.remove(channel)
        if link is not None:
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
                channel.refresh()
            if channel.heard or not channel.owes or idling:
                channel.heard, channel.heard_at = False, now
            elif now - channel.heard_at >= patience:
                silent.append(channel)
            if channel.vacant and now - channel.since >= self._lingering:
                self.give_back(channel)
        return silent

    @property
    def _lingering(self) -> float:
        return self.linger if len(self._all) == 1 else min(self.linger, SPARE)
