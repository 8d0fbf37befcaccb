"""A share: all sessions of one user on one upstream, and the channels that serve them.  The face of this floor.

It says which channel serves whom: a session joins the channel that has its mailbox, or has one opened; what stands
idle is used again before anything is opened, and one channel is given up where only that lets somebody else go on.
It knows no clock, no socket and no Twisted; every method takes what happened, and returns what is to be done.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from imapgate.errors import ClientProtocolError, UpstreamProtocolError
from imapgate.limits import Limits
from imapgate.model import capability
from imapgate.model.commands import Command, Table
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode, SharingTerms
from imapgate.model.reading import Reading
from imapgate.session import intake as takes
from imapgate.session.effects import Failed, SendUpstream
from imapgate.session.link import Link
from imapgate.session.uplink import IDLE_REFRESH
from imapgate.sharing.channel import Channel, Completed, Farewell, Idle, Job, Mailbox, Task
from imapgate.sharing.effects import Effect, End, GiveBack, Pinned, Polled, Say, Send, Want
from imapgate.sharing.seat import Seat
from imapgate.sharing.view import View

STILL_HERE = 120.0
"""Seconds after which an idling client hears something: phones behind a NAT need it."""
SPARE = 10.0
"""Seconds for which a channel beside others is kept that nobody needs, for the next message that is stored."""
_QUEUE_MOST = 3
"""Commands that wait on one channel before another one is opened for its mailbox."""
_BESIDE = frozenset(
    b"""CREATE SUBSCRIBE UNSUBSCRIBE LIST LSUB XLIST STATUS NAMESPACE GETQUOTA GETQUOTAROOT GETACL LISTRIGHTS MYRIGHTS
    GETMETADATA GETANNOTATION""".split()
)
"""What may be asked where another mailbox is selected."""
_LISTS_STATUS = re.compile(rb"\bSTATUS\b", re.IGNORECASE)

Joined = Callable[[Channel, Completed, bool], None]


class _Demand(NamedTuple):
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


class Share:
    """One user's sessions and channels on one upstream.

    :param linger: for how many seconds a channel is kept that nobody needs
    :param alone: also where there is no session, because the next login can use it
    :param jitter: a number from 0 to 1, another one at each call
    :param counts: how often it did what
    """

    def __init__(
        self,
        limits: Limits,
        table: Table,
        terms: SharingTerms,
        *,
        linger: float,
        alone: bool,
        jitter: Callable[[], float],
        counts: Counter[str] | None = None,
    ) -> None:
        self._limits = limits
        self._table = table
        self._jitter = jitter
        self._linger = linger
        self._alone = alone
        self._counts = Counter() if counts is None else counts
        self.terms = terms
        self.now = 0.0
        """As of the last tick."""
        self.seats: dict[Seat, None] = {}
        self.channels: list[Channel] = []
        self._out: list[Effect] = []
        self._demands: deque[_Demand] = deque()
        self._opening: dict[Mailbox, list[tuple[Seat, Joined]]] = {}  # who waits for a mailbox to be opened
        self._turns: deque[Seat] = deque()  # whose next command may be taken
        self._polling: deque[Mailbox] | None = None  # what is still to be looked at for idling sessions

    # --- what happens ---------------------------------------------------------------------------------

    def sit(self) -> Seat:
        """A session begins."""
        patience = STILL_HERE * (0.9 + 0.2 * self._jitter())
        seat = Seat(self, self._limits, self._table, patience)
        self.seats[seat] = None
        return seat

    def adopt(self, link: Link) -> tuple[Channel, list[Effect]]:
        """A session has brought the connection that it has logged in by."""
        channel = self._channel()
        return channel, self.opened(channel, link)

    def opened(self, channel: Channel, link: Link) -> list[Effect]:
        """A channel that was wanted is there."""
        channel.opened(link)
        channel.since = self.now
        unread, link.unread = link.unread, []
        return self._doing(self._received, channel, b"".join(piece for _, piece in unread))

    def refused(self, channel: Channel, failed: Failed) -> list[Effect]:
        """There is no connection for it."""
        channel.closed = True
        self.channels.remove(channel)
        demand = self._demands.popleft() if self._demands else None
        return self._doing(demand.refuse, failed) if demand is not None else self._doing(self._supply)

    def said(self, seat: Seat, data: bytes) -> list[Effect]:
        """A session has written something."""
        return self._doing(seat.received, data) if not seat.gone else []

    def received(self, channel: Channel, data: bytes) -> list[Effect]:
        """A channel's server has said something."""
        return self._doing(self._received, channel, data) if not channel.closed else []

    def lost(self, channel: Channel, failure: Failure = Failure.LOST) -> list[Effect]:
        """A channel's connection is no more."""
        return self._doing(self._lose, channel, failure) if not channel.closed else []

    def leave(self, seat: Seat) -> list[Effect]:
        """A session is over."""
        return self._doing(self._leave, seat) if not seat.gone else []

    def ticked(self, now: float) -> list[Effect]:
        """Time has passed."""
        self.now = now
        return self._doing(self._tick)

    def retire(self, channel: Channel) -> list[Effect]:
        """Nobody is to join this channel any more, and whoever is there goes on elsewhere."""
        return self._doing(self._retire, channel) if not (channel.closed or channel.retired) else []

    def close(self) -> list[Effect]:
        """Keep no channel that nobody needs, now and later."""
        self._alone, self._linger = False, 0.0
        return self._doing(self._tidy_all)

    def poll(self) -> list[Effect]:
        """Look at the mailboxes of idling sessions that have no channel; ``Polled`` follows."""
        return self._doing(self._poll)

    @property
    def tells_closed(self) -> bool:
        """Whether the server says that a SELECT has closed the mailbox before it (RFC 7162 §3.2.11)."""
        link = next((channel.link for channel in self.channels if channel.link is not None), None)
        return link is not None and b"QRESYNC" in capability.parse(link.capabilities)

    @property
    def unwatched(self) -> bool:
        """Whether a session idles whose mailbox nobody looks at."""
        return any(seat.idling and seat.view is not None and seat.channel is None for seat in self.seats)

    @property
    def empty(self) -> bool:
        """Whether nothing is left of it."""
        return not self.seats and not self.channels

    def _doing(self, do: Callable[..., None], *what: object) -> list[Effect]:
        """Do something, and what follows from it; return all that is to be done outside."""
        do(*what)
        turns = self._turns
        while turns:
            seat = turns.popleft()
            self.reclaim(seat)
            try:
                seat.advance()
            except ClientProtocolError:
                self._end(seat, Failure.PROTOCOL)
        effects, self._out = self._out, []
        return _joined(effects)

    # --- for seats and channels -----------------------------------------------------------------------

    def say(self, seat: Seat, data: bytes) -> None:
        """Hand something to a session."""
        if not seat.gone:
            seat.spoken = self.now
            self._out.append(Say(seat, data))

    def turn(self, seat: Seat) -> None:
        """A session's command is done; its next one may be taken."""
        self._turns.append(seat)

    def select(self, seat: Seat, tag: bytes) -> None:
        """Let a session select a mailbox."""

        def joined(channel: Channel, completed: Completed, fresh: bool) -> None:
            if not completed.ok:
                seat.mailbox = None
                seat.finish(tag + completed.rest)
                return
            self._counts["opened" if fresh else "joined"] += 1
            view = seat.view = View(read_only=channel.opening.read_only)
            self._attach(seat, channel, view)
            seat.finish(channel.opening.said(view, channel.truth, fresh=fresh) + tag + channel.opening.text)

        self._join(seat, joined)

    def submit(self, seat: Seat, command: Command) -> None:
        """Let a session's command be done on its mailbox."""
        channel = seat.channel
        again = partial(self.submit, seat, command)
        if channel is None or (len(channel.waiting) >= _QUEUE_MOST and self._moves(seat, channel)):
            self._reattach(seat, again, lambda failed: seat.finish(command.tag + failed.rest))
            return
        if command.rule.verb == b"CLOSE":
            channel.run(Task(channel.close(seat, command), seat, again))
        else:
            channel.run(Task(channel.perform(Job(seat, command)), seat, again))

    def run_errand(self, seat: Seat, command: Command) -> None:
        """Let a session's command be done that concerns no selected mailbox."""
        if command.rule.verb in (b"DELETE", b"RENAME"):
            self._forget(Reading(command).mailboxes[0])
        again = partial(self.run_errand, seat, command)

        def serve(channel: Channel) -> None:
            channel.run(Task(channel.errand(Job(seat, command)), seat, again))

        fit = [channel for channel in self.channels if channel.ready and _beside(command, channel)]
        if fit:
            serve(min(fit, key=lambda channel: (channel.busy, len(channel.waiting), channel.mailbox is not None)))
        else:
            self._demand(_Demand(seat, serve, partial(seat.refused, takes.Complete(command))))

    def store(self, seat: Seat, event: takes.MessageBegins) -> None:
        """Let a session store a message, on a connection that has no mailbox selected."""
        self._demand(_Demand(seat, partial(self._lend, seat, event), partial(seat.refused, event)))

    def done(self, seat: Seat, command: Command, line: bytes) -> None:
        """A session's command is done; whoever looks at the mailbox that it went to, looks again."""
        own = self.touched(seat, Reading(command).destination)
        if own is None:
            seat.finish(line)
        else:
            view = seat.view

            def told() -> None:
                said = b""
                if view is not None and view in own.views:
                    said = view.flush(own.truth, expunges=True)
                seat.finish(said + line)

            own.run(Task(own.look(told), seat, told))

    def touched(self, seat: Seat, name: str) -> Channel | None:
        """Let the channels of a mailbox look at it; return the one of this session, which has to wait for it."""
        own = None
        for channel in self.channels:
            if channel.ready and channel.mailbox is not None and name and channel.mailbox.name == name:
                if seat.channel is channel:
                    own = channel
                elif channel.idlers:
                    channel.run(Task(channel.look()))
        return own

    def idles(self, seat: Seat) -> None:
        """A session idles."""
        channel = seat.channel
        if seat.view is None:
            return
        if channel is None:
            self._revive(seat)
        elif self.terms.idle is IdleMode.POLL:
            said = seat.view.flush(channel.truth, expunges=True)
            if said:
                seat.say(said)
            self._park(seat)
        else:
            channel.idlers += 1
            channel.go()

    def idles_no_more(self, seat: Seat) -> None:
        """A session idles no more."""
        seat.idling = False
        if seat.channel is not None and seat.view in seat.channel.views:
            seat.channel.idlers -= 1
            seat.channel.go()

    def detach(self, seat: Seat) -> None:
        """A session has left its mailbox."""
        channel, seat.channel = seat.channel, None
        if channel is not None and seat.view is not None and channel.views.pop(seat.view, None) is not None:
            channel.idlers -= seat.idling
            self._settled(channel)

    # --- joining --------------------------------------------------------------------------------------

    def _attach(self, seat: Seat, channel: Channel, view: View) -> None:
        channel.views[view] = seat
        seat.channel = channel
        channel.idlers += seat.idling

    def _join(self, seat: Seat, joined: Joined, *, patient: bool = False) -> None:
        """Find a channel that has a session's mailbox, or have one open it."""
        mailbox = seat.mailbox
        assert mailbox is not None
        there = [channel for channel in self.channels if _serves(channel, mailbox)]
        if there:
            channel = min(there, key=lambda channel: len(channel.waiting))
            again = partial(self._join, seat, joined)
            channel.run(Task(channel.check(partial(self._checked, channel, seat, joined)), seat, again, repeats=True))
        elif mailbox in self._opening:
            self._opening[mailbox].append((seat, joined))
        else:
            self._open(seat, mailbox, joined, patient=patient)

    def _open(self, seat: Seat, mailbox: Mailbox, joined: Joined, *, patient: bool = False) -> None:
        waiting = self._opening[mailbox] = [(seat, joined)]

        def serve(channel: Channel) -> None:
            again = partial(self._open_lost, mailbox, waiting)
            channel.run(Task(channel.select(mailbox, partial(opened, channel)), None, again, repeats=True))

        def opened(channel: Channel, completed: Completed) -> None:
            self._opening.pop(mailbox, None)
            for each, then in waiting:
                if not each.gone:
                    then(channel, completed, True)

        def refuse(failed: Failed) -> None:
            self._opening.pop(mailbox, None)
            code = b" NO [UNAVAILABLE] %b\r\n" % (failed.text or b"The mail server cannot be reached; try again later")
            for each, then in waiting:
                if not each.gone:
                    then(_NOWHERE, Completed(b"NO", code), False)

        self._demand(_Demand(seat, serve, refuse, selects=True, patient=patient))

    def _open_lost(self, mailbox: Mailbox, waiting: list[tuple[Seat, Joined]]) -> None:
        """The server has gone while it opened a mailbox: who asked is told, the others ask anew."""
        self._opening.pop(mailbox, None)
        (first, _), *others = waiting
        self._end(first, Failure.LOST)
        for seat, joined in others:
            if not seat.gone:
                self._join(seat, joined)

    def _checked(self, channel: Channel, seat: Seat, joined: Joined, completed: Completed) -> None:
        if seat.gone:
            return
        if completed.ok and not channel.retired:
            joined(channel, completed, False)
        else:
            self._retire(channel)
            self._join(seat, joined)

    def _reattach(
        self, seat: Seat, then: Callable[[], None], refused: Callable[[Completed], None], *, patient: bool = False
    ) -> None:
        """Get a session whose channel was given up another one; what has changed meanwhile it is owed."""
        view = seat.view
        assert view is not None

        def joined(channel: Channel, completed: Completed, fresh: bool) -> None:
            if seat.view is view and seat.channel is None:
                if channel is _NOWHERE:
                    refused(completed)
                    return
                if not completed.ok or not view.rebase(channel.truth):
                    self._end(seat, Failure.LOST)
                    return
                self._counts["reattached"] += 1
                self._attach(seat, channel, view)
            then()

        self._join(seat, joined, patient=patient)

    def _revive(self, seat: Seat) -> None:
        """Have the mailbox of a session that idles looked at again."""
        if self.terms.idle is IdleMode.SHARE and not seat.reviving:
            seat.reviving = True
            self._reattach(seat, partial(_revived, seat), partial(_revived, seat), patient=True)

    def _moves(self, seat: Seat, channel: Channel) -> bool:
        """Whether a session is to go on elsewhere, since too many wait where it is; it is parked then."""
        mailbox = channel.mailbox
        if mailbox is None or mailbox in self._opening:
            return False
        others = [other for other in self.channels if other is not channel and _serves(other, mailbox)]
        if any(not other.busy for other in others):
            self._park(seat)
            return True
        if others or len(self.channels) >= self.terms.size:
            return False
        self._park(seat)
        self._open_beside(seat, mailbox)
        return True

    def _open_beside(self, seat: Seat, mailbox: Mailbox) -> None:
        """Open another channel of a mailbox; whoever asks for it from now on waits for that one."""
        self._open(seat, mailbox, lambda channel, completed, fresh: None)

    # --- parking --------------------------------------------------------------------------------------

    def _park(self, seat: Seat) -> None:
        """Have a session go on without a channel."""
        channel, view = seat.channel, seat.view
        if channel is not None and view is not None and channel.views.pop(view, None) is not None:
            self._counts["parked"] += 1
            channel.idlers -= seat.idling
            seat.channel = None
            if not view.park(channel.truth):
                self._end(seat, Failure.LOST)
            self._settled(channel)

    def _retire(self, channel: Channel) -> None:
        """Nobody joins this channel any more, and whoever is there goes on elsewhere."""
        channel.retired = True
        job = channel.job  # its session goes when that is done
        seats = [seat for seat in channel.views.values() if job is None or job.seat is not seat]
        for seat in seats:
            self._park(seat)
        for seat in seats:
            if seat.idling and not seat.gone:
                self._revive(seat)

    def _forget(self, name: str) -> None:
        """A mailbox, and what is below it, is about to be deleted or renamed."""
        for channel in list(self.channels):
            mailbox = channel.mailbox
            if mailbox is not None and (mailbox.name == name or mailbox.name.startswith((name + "/", name + "."))):
                self._retire(channel)

    # --- channels -------------------------------------------------------------------------------------

    def _channel(self) -> Channel:
        channel = Channel(self._send, self.say, self._settled)
        self.channels.append(channel)
        return channel

    def _send(self, channel: Channel, data: bytes) -> None:
        self._out.append(Send(channel, data))

    def _demand(self, demand: _Demand) -> None:
        self._demands.append(demand)
        self._supply()

    def _supply(self) -> None:
        """Serve those who want a channel, in order."""
        for demand in list(self._demands):
            channel = self._free(demand)
            if demand.seat.gone:
                self._demands.remove(demand)
            elif demand not in self._demands:  # what was done for another has served it
                continue
            elif channel is not None:
                self._demands.remove(demand)
                channel.retired = False
                demand.serve(channel)
            else:
                self._make_room(demand)
                if not demand.patient:
                    return

    def _free(self, demand: _Demand) -> Channel | None:
        vacant = [channel for channel in self.channels if channel.vacant]
        for channel in vacant:
            if channel.mailbox is None:
                return channel
        return vacant[0] if vacant and demand.selects else None

    def _make_room(self, demand: _Demand) -> None:
        """Have a channel opened, or freed, for who is first."""
        coming = sum(channel.link is None or (not channel.views and channel.busy) for channel in self.channels)
        if coming >= len(self._demands):
            return
        vacant = next((channel for channel in self.channels if channel.vacant), None)
        if vacant is not None:
            vacant.run(Task(vacant.deselect()))
        elif len(self.channels) < self.terms.size:
            channel = self._channel()
            self._out.append(Want(channel, demand.seat))
        elif not demand.patient:
            quiet = [channel for channel in self.channels if channel.ready and not channel.busy]
            if quiet:
                self._steal(min(quiet, key=lambda channel: (channel.idlers, channel.since)))

    def _steal(self, channel: Channel) -> None:
        self._retire(channel)
        if channel.vacant and channel.mailbox is not None:
            channel.run(Task(channel.deselect()))

    def _settled(self, channel: Channel) -> None:
        """Nothing is left to do on a channel."""
        if channel.busy or not channel.ready:
            return
        if channel.views and channel.retired:
            self._retire(channel)
            return
        self._supply()
        if channel.vacant:
            self._tidy(channel)

    def _tidy(self, channel: Channel) -> None:
        """Keep a channel that nobody needs, or give it back: one is kept where it can serve."""
        others = any(other is not channel and other.vacant for other in self.channels)
        kept = (bool(self.seats) or self._alone) and not channel.retired
        if others or not kept or self._linger <= 0:
            self._give_back(channel)
        else:
            channel.since = self.now

    def _lingers(self) -> float:
        """For how long a channel that nobody needs is kept now."""
        return self._linger if len(self.channels) == 1 else min(self._linger, SPARE)

    def _tidy_all(self) -> None:
        for channel in list(self.channels):
            if channel.vacant:
                self._settled(channel)

    def _give_back(self, channel: Channel, *, clean: bool = True) -> None:
        link = channel.link
        channel.closed = True
        self.channels.remove(channel)
        if link is not None:
            link.scanner.fine = False
            clean = clean and link.scanner.clean and channel.idle is Idle.NONE
        self._out.append(GiveBack(channel, clean, channel.mailbox is not None))

    def _received(self, channel: Channel, data: bytes) -> None:
        seat, task = channel.lent, channel.task
        try:
            if seat is None:
                channel.received(data)
            elif seat.errand is not None:
                seat.errand.received(data)
                self.write(seat)
                self.turn(seat)
        except UpstreamProtocolError as error:
            if isinstance(error, Farewell) and task is not None and task.seat is not None and not task.repeats:
                self.say(task.seat, error.line)
            self._lose(channel, Failure.LOST if isinstance(error, Farewell) else Failure.PROTOCOL)
            self._out.append(GiveBack(channel, clean=False, selected=False))

    def _lose(self, channel: Channel, failure: Failure) -> None:
        """A channel is gone: whose command was in flight is told, all others go on elsewhere (SHARED, rule 23)."""
        channel.closed = True
        self.channels.remove(channel)
        task, waiting = channel.task, list(channel.waiting)
        seats = list(channel.views.values())
        if channel.lent is not None:
            self._end(channel.lent, failure)
        if task is not None and task.repeats:
            waiting.insert(0, task)
        elif task is not None and task.seat is not None:
            self._end(task.seat, failure)
        for seat in seats:
            if seat.channel is channel and seat.view is not None:
                seat.channel = None
                if not seat.view.park(channel.truth):
                    self._end(seat, failure)
        channel.views.clear()
        for each in waiting:
            if each.again is not None and (each.seat is None or not each.seat.gone):
                each.again()
        for seat in seats:
            if seat.idling and not seat.gone:
                self._revive(seat)
        self._supply()

    # --- a connection for one alone -------------------------------------------------------------------

    def _lend(self, seat: Seat, event: takes.Event, channel: Channel, *, for_good: bool = False) -> None:
        channel.lent = seat
        assert channel.link is not None
        channel.link.scanner.fine = False
        errand = seat.lend(channel, for_good=for_good, limits=self._limits, table=self._table)
        errand.take(event)
        self.write(seat)
        self.turn(seat)

    def reclaim(self, seat: Seat) -> None:
        """Have the connection back that a session had for itself, if it is done with it."""
        line, errand = seat.line, seat.errand
        if line is not None and errand is not None and not seat.pinned and errand.vacant:
            line.lent = seat.errand = seat.line = None
            assert line.link is not None
            line.link.scanner.fine = True
            line.go()

    def write(self, seat: Seat) -> None:
        """Do what the errand of a session wants to be written."""
        if seat.errand is not None and seat.line is not None:
            for effect in seat.errand.take_writes():
                if isinstance(effect, SendUpstream):
                    self._out.append(Send(seat.line, effect.data))
                else:
                    self.say(seat, effect.data)

    def lend_octets(self, seat: Seat, data: bytes) -> None:
        """Octets of a message go to the connection that a session has for itself."""
        if seat.line is not None:
            self._out.append(Send(seat.line, data))

    def pin(self, seat: Seat, reason: str, event: takes.Complete | takes.MessageBegins) -> None:
        """Give a session a connection of its own, for good, with what it has selected."""
        refuse = partial(seat.refused, event)
        if event.command.rule.verb in (b"SELECT", b"EXAMINE"):
            seat.leave_mailbox()
        if seat.view is None:
            self._demand(_Demand(seat, partial(self._pinned, seat, reason, event), refuse))
            return
        self._park(seat)
        mailbox, view = seat.mailbox, seat.view
        assert mailbox is not None

        def serve(channel: Channel) -> None:
            channel.retired = True
            channel.run(Task(channel.select(mailbox, partial(opened, channel)), seat))

        def opened(channel: Channel, completed: Completed) -> None:
            if seat.gone:
                return
            if not completed.ok or not view.rebase(channel.truth):
                self._end(seat, Failure.LOST)
                return
            held = view.ghosts and event.command.rule.verb in _NO_EXPUNGE
            said = view.flush(channel.truth, expunges=not held)
            if said:
                seat.say(said)
            if held:
                view.park(channel.truth)
                seat.finish(event.command.tag + b" NO [EXPUNGEISSUED] Messages are gone; say NOOP, then try again\r\n")
            else:
                seat.view = seat.mailbox = None
                self._pinned(seat, reason, event, channel)

        self._demand(_Demand(seat, serve, refuse, selects=True))

    def _pinned(self, seat: Seat, reason: str, event: takes.Event, channel: Channel) -> None:
        seat.pinned = reason
        self._out.append(Pinned(seat, reason))
        self._lend(seat, event, channel, for_good=True)

    # --- ends -----------------------------------------------------------------------------------------

    def _leave(self, seat: Seat) -> None:
        seat.gone = True
        self.seats.pop(seat, None)
        line = seat.line
        if line is not None and not line.closed:
            line.lent = None
            self._give_back(line, clean=False)
        self.detach(seat)
        if not self.seats:
            self._tidy_all()
        self._supply()

    def _end(self, seat: Seat, failure: Failure) -> None:
        if not seat.gone:
            self._out.append(End(seat, failure))
            self._leave(seat)

    # --- time -----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now, terms = self.now, self.terms
        for channel in list(self.channels):
            if channel.closed or channel.lent is not None:
                continue
            if channel.idle is Idle.IDLING:
                channel.idle_since = channel.idle_since or now
                if now - channel.idle_since >= IDLE_REFRESH:
                    channel.idle_since = 0.0
                    channel.refresh()
            else:
                channel.idle_since = 0.0
            if channel.heard or not channel.owes or channel.idle is Idle.IDLING:
                channel.heard, channel.heard_at = False, now
            elif now - channel.heard_at >= self._limits.upstream_first_byte_slow:
                self._lose(channel, Failure.TIMED_OUT)
                self._out.append(GiveBack(channel, clean=False, selected=False))
            if channel.vacant and now - channel.since >= self._lingers():
                self._give_back(channel)
        for seat in list(self.seats):
            if seat.idling:
                if now - seat.spoken >= seat.patience:
                    seat.say(b"* OK Still here\r\n")
                if seat.view is not None and seat.channel is None:
                    self._revive(seat)
            elif not seat.busy and seat.view is not None and now - seat.since >= terms.park_after:
                self._park(seat)

    def _poll(self) -> None:
        if self._polling is None:
            unwatched = [seat.mailbox for seat in self.seats if seat.idling and seat.view and seat.channel is None]
            self._polling = deque(dict.fromkeys(mailbox for mailbox in unwatched if mailbox is not None))
            self._poll_next()

    def _poll_next(self) -> None:
        """Look at one mailbox after the other."""
        polling = self._polling
        assert polling is not None
        while polling:
            mailbox = polling.popleft()
            seats = self._unwatched(mailbox)
            if seats:
                self._join(seats[0], partial(self._polled, mailbox))
                return
        self._polling = None
        if self.terms.idle is IdleMode.POLL:
            for channel in [channel for channel in self.channels if channel.vacant]:
                self._give_back(channel)
        self._out.append(Polled())

    def _unwatched(self, mailbox: Mailbox) -> list[Seat]:
        return [
            seat
            for seat in self.seats
            if seat.idling and seat.view is not None and seat.channel is None and seat.mailbox == mailbox
        ]

    def _polled(self, mailbox: Mailbox, channel: Channel, completed: Completed, fresh: bool) -> None:
        for seat in self._unwatched(mailbox):
            view = seat.view
            assert view is not None
            if channel is _NOWHERE:
                continue
            if not completed.ok or not view.rebase(channel.truth):
                self._end(seat, Failure.LOST)
                continue
            said = view.flush(channel.truth, expunges=True)
            if said:
                seat.say(said)
            view.park(channel.truth)
        self._poll_next()


def _revived(seat: Seat, failed: Completed | None = None) -> None:
    """A session that idles has a channel again, or there is none to be had."""
    seat.reviving = False


_NO_EXPUNGE = frozenset((b"FETCH", b"STORE", b"SEARCH", b"SORT", b"THREAD"))


def _serves(channel: Channel, mailbox: Mailbox) -> bool:
    return channel.ready and not channel.retired and channel.mailbox == mailbox


def _beside(command: Command, channel: Channel) -> bool:
    """Whether a command that concerns no selected mailbox may be done on this channel."""
    mailbox = channel.mailbox
    if mailbox is None:
        return True
    verb = command.rule.verb
    if verb not in _BESIDE or (
        verb == b"LIST" and any(isinstance(part, bytes) and _LISTS_STATUS.search(part) for part in command.parts)
    ):
        return False
    return mailbox.name not in Reading(command).mailboxes


def _joined(effects: list[Effect]) -> list[Effect]:
    """The same effects, what is said to one side joined where nothing stands between."""
    joined: list[Effect] = []
    for effect in effects:
        last = joined[-1] if joined else None
        if type(effect) is Say and type(last) is Say and last.seat is effect.seat:
            joined[-1] = Say(effect.seat, last.data + effect.data)
        else:
            joined.append(effect)
    return joined


_NOWHERE = Channel(lambda channel, data: None, lambda seat, data: None, lambda channel: None)
"""In the place of a channel: there is none."""
