"""Connections that sessions have for themselves: for one message that is stored, or for good, which is to be pinned.

A session that is pinned goes on as in every other mode, with what it has selected, and has been told exactly what was
different there.  It must not know which commands pin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from imapgate.limits import Limits
from imapgate.model.commands import Table
from imapgate.model.failure import Failure
from imapgate.session import intake as takes
from imapgate.sharing.attaching import GONE, Attaching
from imapgate.sharing.channel import HOLDS_EXPUNGES, Channel
from imapgate.sharing.channels import Channels, Demand
from imapgate.sharing.effects import Pinned
from imapgate.sharing.out import Out
from imapgate.sharing.seat import Seat
from imapgate.sharing.task import Completed, Task


class Lending:
    """Who has a connection for itself.

    :param turn: lets a session go on
    :param end: ends one that cannot
    """

    def __init__(
        self,
        out: Out,
        attaching: Attaching,
        channels: Channels,
        limits: Limits,
        table: Table,
        turn: Callable[[Seat], None],
        end: Callable[[Seat, Failure, str], None],
    ) -> None:
        self._out = out
        self._attaching = attaching
        self._channels = channels
        self._limits = limits
        self._table = table
        self._turn = turn
        self._end = end

    def store(self, seat: Seat, event: takes.MessageBegins) -> None:
        """Let a session store a message, on a connection that has no mailbox selected."""
        self._channels.demand(Demand(seat, partial(self._lend, seat, event), partial(seat.refused, event)))

    def _lend(self, seat: Seat, event: takes.Event, channel: Channel, *, for_good: bool = False) -> None:
        assert channel.link is not None
        channel.lent = seat
        channel.link.scanner.fine = False
        errand = seat.lend(channel, for_good=for_good, limits=self._limits, table=self._table)
        errand.take(event)
        self.write(seat)
        self._turn(seat)
        self._channels.supply()  # whoever waited for this one has to have another

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
        assert seat.errand is not None
        assert seat.line is not None
        self._out.writes(seat, seat.line, seat.errand.take_writes())

    def octets(self, seat: Seat, data: bytes) -> None:
        """Octets of a message go to the connection that a session has for itself."""
        assert seat.line is not None
        self._out.send(seat.line, data)

    def pin(self, seat: Seat, reason: str, event: takes.Complete | takes.MessageBegins) -> None:
        """Give a session a connection of its own, for good, with what it has selected."""
        refuse = partial(seat.refused, event)
        mailbox, view = seat.mailbox, seat.view
        if mailbox is None or view is None:
            self._channels.demand(Demand(seat, partial(self._pinned, seat, reason, event), refuse))
            return
        self._attaching.park(seat)

        def serve(channel: Channel) -> None:
            channel.retired = True
            again = partial(self.pin, seat, reason, event)
            channel.run(Task(channel.select(mailbox, partial(opened, channel)), seat, again))

        def opened(channel: Channel, completed: Completed) -> None:
            if seat.gone:
                return
            if not completed.ok or not view.rebase(channel.truth):
                self._end(seat, Failure.LOST, GONE)
                return
            verb = event.command.rule.verb
            held = (view.ghosts and verb in HOLDS_EXPUNGES) or (view.changed and verb.endswith(b"STORE"))
            said = view.flush(channel.truth, expunges=not held)
            if said:
                seat.say(said)
            if held:  # numbers, or flags, would not mean what the session thinks
                view.park(channel.truth)
                seat.finish(
                    event.command.tag + b" NO [EXPUNGEISSUED] The mailbox has changed; try again after NOOP\r\n"
                )
            else:
                seat.view = seat.mailbox = None
                self._pinned(seat, reason, event, channel)

        self._channels.demand(Demand(seat, serve, refuse, selects=True))

    def _pinned(self, seat: Seat, reason: str, event: takes.Event, channel: Channel) -> None:
        seat.pinned = reason
        self._out.effect(Pinned(seat, reason))
        self._lend(seat, event, channel, for_good=True)
