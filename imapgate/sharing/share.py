"""A share: all sessions of one user on one upstream, and the channels that serve them.  The face of this floor.

It says what becomes of each command of a session: on the channel that has its mailbox, on any other, or on a
connection that is the session's own.  It knows no clock, no socket and no Twisted; every method takes what happened,
and returns what is to be done.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

from imapgate.errors import ClientProtocolError, UpstreamProtocolError
from imapgate.limits import Limits
from imapgate.model import capability
from imapgate.model.commands import Command, Table
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode, SharingTerms
from imapgate.model.reading import Reading
from imapgate.session import intake as takes
from imapgate.session.effects import Failed
from imapgate.session.link import Link
from imapgate.sharing.attaching import Attaching
from imapgate.sharing.channel import Channel
from imapgate.sharing.channels import Channels, Demand
from imapgate.sharing.effects import Broken, Effect, End, GiveBack
from imapgate.sharing.lending import Lending
from imapgate.sharing.out import Out
from imapgate.sharing.polling import Polling
from imapgate.sharing.seat import Seat
from imapgate.sharing.task import Completed, Farewell, Job, Task

STILL_HERE = 120.0
"""Seconds after which an idling client hears something: phones behind a NAT need it."""
_BESIDE = frozenset(
    b"""CREATE SUBSCRIBE UNSUBSCRIBE LIST LSUB XLIST STATUS NAMESPACE GETQUOTA GETQUOTAROOT GETACL LISTRIGHTS MYRIGHTS
    GETMETADATA GETANNOTATION""".split()
)
"""What may be asked where another mailbox is selected."""
_LISTS_STATUS = re.compile(rb"\bSTATUS\b", re.IGNORECASE)


class Share:
    """One user's sessions and channels on one upstream.

    :param wait: for how many seconds a session waits for a channel where all are used
    :param linger: for how many seconds a channel is kept that nobody needs
    :param alone: also where there is no session, because the next login can use it
    :param jitter: a number from 0 to 1, another one at each call
    :param counts: how often it did what
    :ivar seats: the sessions
    :ivar lending: connections that sessions have for themselves
    """

    def __init__(
        self,
        limits: Limits,
        table: Table,
        terms: SharingTerms,
        *,
        wait: float,
        linger: float,
        alone: bool,
        jitter: Callable[[], float],
        counts: Counter[str] | None = None,
        now: float = 0.0,
    ) -> None:
        self._limits = limits
        self._table = table
        self._alone = alone
        self._jitter = jitter
        self._out = Out(now)
        self._attaching = Attaching(terms.idle, self._end, Counter() if counts is None else counts)
        self._channels = Channels(
            self._out, terms.size, wait=wait, linger=linger, needed=self._needed, retire=self._attaching.retire
        )
        self._attaching.channels = self._channels
        self._turns: deque[Seat] = deque()  # whose next command may be taken
        self.terms = terms
        self.seats: dict[Seat, None] = {}
        self.lending = Lending(self._out, self._attaching, self._channels, limits, table, self.turn, self._end)
        self._polling = Polling(self._out, self._attaching, self._channels, self.seats, terms.idle, self._end)

    def _needed(self) -> bool:
        return bool(self.seats) or self._alone

    # --- what happens ---------------------------------------------------------------------------------

    def sit(self) -> Seat:
        """A session begins."""
        patience = STILL_HERE * (0.9 + 0.2 * self._jitter())
        seat = Seat(self, self._limits, self._table, patience)
        self.seats[seat] = None
        return seat

    def adopt(self, link: Link) -> tuple[Channel, list[Effect]]:
        """A session has brought the connection that it has logged in by; where there are enough, it is not kept."""
        full = self._channels.full
        channel = self._channels.new()
        if full:
            channel.opened(link)
            return channel, self._doing(self._channels.give_back, channel)
        return channel, self.opened(channel, link)

    def opened(self, channel: Channel, link: Link) -> list[Effect]:
        """A channel that was wanted is there."""
        channel.opened(link)
        channel.since = self.now
        unread, link.unread = link.unread, []
        return self._doing(self._received, channel, b"".join(piece for _, piece in unread))

    def refused(self, channel: Channel, failed: Failed) -> list[Effect]:
        """There is no connection for it."""
        return self._doing(self._refused, channel, failed)

    def said(self, seat: Seat, data: bytes) -> list[Effect]:
        """A session has written something."""
        return self._doing(seat.received, data) if not seat.gone else []

    def received(self, channel: Channel, data: bytes) -> list[Effect]:
        """A channel's server has said something."""
        return self._doing(self._received, channel, data) if not channel.closed else []

    def lost(self, channel: Channel, failure: Failure = Failure.LOST) -> list[Effect]:
        """A channel's connection is no more."""
        return self._doing(self._lose, channel, failure) if not channel.closed else []

    def retire(self, channel: Channel) -> list[Effect]:
        """This channel is to go, and whoever is there goes on elsewhere."""
        idle = channel.closed or channel.retired or channel.lent is not None
        return [] if idle else self._doing(self._retire, channel)

    def leave(self, seat: Seat) -> list[Effect]:
        """A session is over."""
        return self._doing(self._leave, seat) if not seat.gone else []

    def ticked(self, now: float) -> list[Effect]:
        """Time has passed."""
        self._out.now = now
        return self._doing(self._tick)

    def relieve(self) -> list[Effect]:
        """Others wait for connections: keep none that nobody needs."""
        return self._doing(self._channels.give_back_vacant)

    def poll(self) -> list[Effect]:
        """Look at the mailboxes of idling sessions that have no channel; ``Polled`` follows."""
        return self._doing(self._polling.begin)

    def close(self) -> list[Effect]:
        """Keep no channel that nobody needs, now and later."""
        self._alone, self._channels.linger = False, 0.0
        return self._doing(self._channels.tidy)

    @property
    def now(self) -> float:
        """The time as of the last tick."""
        return self._out.now

    @property
    def channels(self) -> list[Channel]:
        """All channels."""
        return list(self._channels)

    @property
    def link(self) -> Link | None:
        """A connection that can be used at once."""
        return next((channel.link for channel in self._channels if channel.ready and not channel.retired), None)

    @property
    def unwatched(self) -> bool:
        """Whether a session idles whose mailbox nobody looks at."""
        return any(seat.unwatched for seat in self.seats)

    @property
    def empty(self) -> bool:
        """Whether nothing is left of it."""
        return not self.seats and not len(self._channels)

    def _doing(self, do: Callable[..., None], *what: object) -> list[Effect]:
        """Do something, and what follows from it; return all that is to be done outside."""
        do(*what)
        turns = self._turns
        while turns:
            seat = turns.popleft()
            self.lending.reclaim(seat)
            try:
                seat.advance()
            except ClientProtocolError as error:  # no session of this gate writes such a thing
                self._end(seat, Failure.PROTOCOL, str(error))
        return self._out.take()

    # --- a session's commands -------------------------------------------------------------------------

    def say(self, seat: Seat, data: bytes) -> None:
        """Hand something to a session."""
        self._out.say(seat, data)

    def turn(self, seat: Seat) -> None:
        """A session's command is done; its next one may be taken."""
        self._turns.append(seat)

    def select(self, seat: Seat, tag: bytes) -> None:
        """Let a session select a mailbox."""
        self._attaching.select(seat, tag)

    def submit(self, seat: Seat, command: Command) -> None:
        """Let a session's command be done on its mailbox."""
        if seat.gone:
            return
        channel = seat.channel
        again = partial(self.submit, seat, command)
        if channel is not None and channel.retired:
            self._attaching.park(seat)
            channel = None
        if channel is None or self._attaching.moves(seat, channel):
            self._attaching.reattach(seat, again, lambda failed: seat.finish(command.tag + failed.rest))
        elif command.rule.verb == b"CLOSE":
            channel.run(Task(channel.close(seat, command), seat, again))
        else:
            channel.run(Task(channel.perform(Job(seat, command)), seat, again))

    def run_errand(self, seat: Seat, command: Command) -> None:
        """Let a session's command be done that concerns no selected mailbox."""
        self._forget(command)
        again, beside = partial(self.run_errand, seat, command), partial(_beside, command)

        def serve(channel: Channel) -> None:
            channel.run(Task(channel.errand(Job(seat, command), beside, again), seat, again))

        fit = [each for each in self._channels if each.ready and not each.retired and beside(each)]
        if fit:
            serve(min(fit, key=lambda channel: (channel.busy, len(channel.waiting), channel.mailbox is not None)))
        else:
            self._channels.demand(Demand(seat, serve, partial(seat.refused, takes.Complete(command))))

    def _forget(self, command: Command) -> None:
        if command.rule.verb in (b"DELETE", b"RENAME"):
            self._attaching.forget(Reading(command).mailboxes[0])

    def done(self, seat: Seat, command: Command, completed: Completed) -> None:
        """An errand is done; if it has put something into the session's own mailbox, that is told first."""
        if completed.ok:
            self._forget(command)  # whoever has come back meanwhile
        own, line = self.touched(seat, Reading(command).destination), command.tag + completed.rest
        if own is None:
            seat.finish(line)
        else:
            looked = partial(self._looked, seat, line)
            own.run(Task(own.look(looked), seat, looked, repeats=True))

    def _looked(self, seat: Seat, line: bytes) -> None:
        said = b""
        if seat.view is not None and seat.channel is not None and seat.view in seat.channel.views:
            said = seat.view.flush(seat.channel.truth, expunges=True)
        seat.finish(said + line)

    def touched(self, seat: Seat, name: str) -> Channel | None:
        """Messages were put into a mailbox: let those who idle there see them; return the channel of this session."""
        own = None
        for channel in self._channels:
            if channel.ready and channel.mailbox is not None and name and channel.mailbox.name == name:
                if seat.channel is channel:
                    own = channel
                elif channel.idlers:
                    channel.run(Task(channel.look()))
        return own

    @property
    def tells_closed(self) -> bool:
        """Whether the server says that a SELECT has closed the mailbox before it (RFC 7162 §3.2.11)."""
        link = next((channel.link for channel in self._channels if channel.link is not None), None)
        return link is not None and b"QRESYNC" in capability.parse(link.capabilities)

    def detach(self, seat: Seat) -> None:
        """A session has left its mailbox."""
        self._attaching.detach(seat)

    def idles(self, seat: Seat) -> None:
        """A session idles."""
        channel, view = seat.channel, seat.view
        if view is None:
            return
        if channel is None:
            self._attaching.revive(seat)
        elif self.terms.idle is IdleMode.POLL:
            said = view.flush(channel.truth, expunges=True)
            if said:
                seat.say(said)
            self._attaching.park(seat)
        else:
            channel.go()

    def idles_no_more(self, seat: Seat) -> None:
        """A session idles no more."""
        seat.idling = False
        channel = seat.channel
        if channel is not None and seat.view in channel.views:
            channel.go()

    # --- channels -------------------------------------------------------------------------------------

    def _received(self, channel: Channel, data: bytes) -> None:
        seat, task = channel.lent, channel.task
        try:
            if seat is None:
                channel.received(data)
            else:
                assert seat.errand is not None
                seat.errand.received(data)
                self.lending.write(seat)
                self.turn(seat)
        except UpstreamProtocolError as error:
            if not isinstance(error, Farewell):
                self._give_up(channel, Failure.PROTOCOL, str(error))
                return
            if task is not None and task.seat is not None and not task.repeats:
                self.say(task.seat, error.line)
            self._give_up(channel, Failure.LOST, "it said BYE")

    def _refused(self, channel: Channel, failed: Failed) -> None:
        if failed.failure is Failure.CREDENTIALS:  # all have the same: who needs a connection gets none any more
            for seat in [seat for seat in self.seats if seat.channel is None and seat.line is None]:
                self._end(seat, failed.failure, "the server does not accept the login any more")
        self._channels.refused(channel, failed)

    def _give_up(self, channel: Channel, failure: Failure, why: str) -> None:
        """Have nothing to do with a connection any more that is still there."""
        self._out.effect(Broken(channel, why))
        self._lose(channel, failure)
        self._out.effect(GiveBack(channel, clean=False, selected=False))

    def _lose(self, channel: Channel, failure: Failure) -> None:
        self._channels.remove(channel)
        if channel.lent is not None:
            self._end(channel.lent, failure, "the server went from its own connection")
        self._attaching.lost(channel, failure)
        self._channels.supply()

    def _retire(self, channel: Channel) -> None:
        channel.spent = True
        self._attaching.retire(channel)
        self._channels.settled(channel)

    # --- ends -----------------------------------------------------------------------------------------

    def _leave(self, seat: Seat) -> None:
        seat.gone = True
        self.seats.pop(seat, None)
        line = seat.line
        if line is not None and not line.closed:
            line.lent = None
            self._channels.give_back(line, clean=False)
        self._attaching.detach(seat)
        self._polling.left(seat)
        if not self.seats:
            self._channels.tidy()
        self._channels.supply()

    def _end(self, seat: Seat, failure: Failure, why: str) -> None:
        if not seat.gone:
            self._out.effect(End(seat, failure, why))
            self._leave(seat)

    # --- time -----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.now
        for channel in self._channels.ticked(self._limits.upstream_first_byte_slow):
            self._give_up(channel, Failure.TIMED_OUT, "it owes an answer, and says nothing")
        self._attaching.verify()
        self._channels.refuse_late()
        self._channels.supply()
        for seat in list(self.seats):
            if seat.idling:
                if now - seat.spoken >= seat.patience:
                    seat.say(b"* OK Still here\r\n")
                if seat.unwatched:
                    self._attaching.revive(seat)
            elif not seat.busy and seat.view is not None and now - seat.since >= self.terms.park_after:
                self._attaching.park(seat)


def _beside(command: Command, channel: Channel) -> bool:
    """Whether a command that concerns no selected mailbox may be done on this channel."""
    mailbox = channel.mailbox
    if mailbox is None:
        return True
    if command.rule.verb not in _BESIDE:
        return False
    if command.rule.verb == b"LIST":
        return not any(isinstance(part, bytes) and _LISTS_STATUS.search(part) for part in command.parts)
    return mailbox.name not in Reading(command).mailboxes
