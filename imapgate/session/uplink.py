"""The way up: a client's commands on one upstream connection, one at its head at a time.

Knows which commands are in flight and which wait, what the server must ask for before the next octets go,
and whether the connection could be somebody else's.  It writes upstream only; what the client is to see of an
answer, it tells its caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from imapgate.errors import UpstreamProtocolError
from imapgate.limits import Limits
from imapgate.model.commands import Command, Rule, pins
from imapgate.session import intake as takes
from imapgate.session.contexts import Contexts
from imapgate.session.effects import (
    Ask,
    CancelTimer,
    Granted,
    Lease,
    Release,
    Report,
    SetTimer,
    Side,
    Timer,
    Traced,
)
from imapgate.session.intake import Intake
from imapgate.session.link import Link
from imapgate.session.outbox import Outbox
from imapgate.session.states import HEAD, Head, HeadEvent, Sending, SendingEvent
from imapgate.session.witness import Witness
from imapgate.wire.writer import Part, redacted, segments


class Flight(NamedTuple):
    """A command that upstream has, or is being sent: the client's tag, and its row of the table."""

    tag: bytes
    rule: Rule


OWN = b""
"""In the place of the client's tag: it is a command of the gate's own, of which the client sees nothing."""

Waiting = Command | takes.MessageBegins

IDLE_REFRESH = 27 * 60.0
"""Seconds after which IDLE is begun anew: a server may end a connection after 30 minutes (RFC 2177)."""


class Uplink:
    """Commands on one upstream connection, or waiting for one.

    :ivar link: the connection; while none is bound, a blank one that holds the capabilities
    :ivar head: what stands at its head
    :ivar head_tag: the upstream tag of that command
    :ivar flights: the commands that upstream has, by upstream tag
    :ivar queue: the commands that wait for the head, or for a connection
    :ivar contexts: searches that go on after their completion
    :ivar done: DONE came before it could be passed on
    :ivar pinned: why the connection can never be anybody else's; empty: it can
    :ivar traced: whether the operator wants to see every line
    :ivar witness: who watches what is sent, if anybody does
    """

    __slots__ = (
        "_asked", "_intake", "_limits", "_message", "_out", "_own", "_segments", "contexts", "done", "flights", "head",
        "head_tag", "link", "pinned", "queue", "traced", "witness",
    )  # fmt: skip

    def __init__(self, out: Outbox, intake: Intake, limits: Limits, granted: Granted) -> None:
        self._out = out
        self._intake = intake
        self._limits = limits
        self.head_tag = b""
        self._segments: list[bytes] = []  # of the head's command, to be sent at its next "+"
        self._message: takes.MessageBegins | None = None  # whose literal follows the segments
        self._own = b""  # tag of a question of the gate's own
        self._asked: Waiting | None = None  # for whose sake it was asked
        self.witness: Witness | None = None
        self.link = granted.link
        self.head = Head.FREE
        self.flights: dict[bytes, Flight] = {}
        self.queue: list[Waiting] = []
        self.contexts = Contexts()
        self.done = False
        self.pinned = granted.pinned
        self.traced = granted.traced

    @property
    def flowing(self) -> bool:
        """Whether a message of a command that is not answered yet is on its way."""
        return self.head is Head.FLOWING and self.head_tag in self.flights

    @property
    def vacant(self) -> bool:
        """Whether nothing at all is under way."""
        return not (self.flights or self.queue) and self.head in (Head.FREE, Head.UNBOUND)

    # --- the connection -------------------------------------------------------------------------------

    def give_back(self, *, selected: bool) -> bool:
        """Give the connection back, if it can be proved clean: nothing in flight, nothing half said on either side."""
        clean = self.head is Head.FREE and self.vacant and not self.pinned and self.link.scanner.clean
        if clean:
            capabilities = self.link.capabilities
            self.link.scanner.fine = False  # whoever has it next may not want to see literals apart
            self.link = Link(self._limits)
            self.link.capabilities = capabilities
            self._moved(HeadEvent.RELEASED)
            self._out.effect(Release(selected))
        return clean

    def bind(self, granted: Granted) -> None:
        """There is a connection again; :meth:`drain` sends what waited for it."""
        self.link, self.traced = granted.link, granted.traced
        self._moved(HeadEvent.LEASED)

    def refuse(self) -> list[Command]:
        """There is none; return what waited for it, and is not done."""
        self._moved(HeadEvent.LEASE_REFUSED)
        queue, self.queue = self.queue, []
        commands = []
        for waiting in queue:
            command = waiting if isinstance(waiting, Command) else waiting.command
            commands.append(command)
            if waiting is not command:
                self._intake.refused()
            elif command.rule.verb == b"IDLE":
                self._not_idling()
        return commands

    # --- writing --------------------------------------------------------------------------------------

    def _moved(self, event: HeadEvent) -> None:
        self.head = HEAD[self.head, event]

    def submit(self, waiting: Waiting) -> None:
        """Send a command as soon as the head is free, and there is a connection."""
        if self.head is Head.FREE and not self.queue and (self.witness is None or self._ready(waiting)):
            self._write(waiting)
            return
        self.queue.append(waiting)
        if self.head is Head.UNBOUND:
            self._moved(HeadEvent.LEASE_ASKED)
            self._out.effect(Ask(Lease()))

    def drain(self) -> None:
        """Send what waits, as far as the head is free."""
        while self.queue and self.head is Head.FREE and (self.witness is None or self._ready(self.queue[0])):
            self._write(self.queue.pop(0))

    def _ready(self, waiting: Waiting) -> bool:
        """Whether the witness can tell its answers from those in flight, and knows which messages it concerns."""
        witness = self.witness
        assert witness is not None
        command = waiting if isinstance(waiting, Command) else waiting.command
        if self.flights and witness.mixes(command.rule, [flight.rule for flight in self.flights.values()]):
            return False
        question = None if self._asked is waiting else witness.query(command)
        if question is None:
            self._asked = None
            return True
        if not self.flights:
            self._own, self._asked = self.link.next_tag(), waiting
            self.flights[self._own] = Flight(OWN, command.rule)
            witness.ask()
            self._out.upstream(b"%b %b\r\n" % (self._own, question))
        return False

    def _write(self, waiting: Waiting) -> None:
        command = waiting if isinstance(waiting, Command) else waiting.command
        tag = self.link.next_tag()
        if self.witness is not None and command.tag != OWN:
            command = self.witness.begin(tag, command, 0 if isinstance(waiting, Command) else waiting.size)
        rule, parts = command.rule, command.parts
        self.flights[tag] = Flight(command.tag, rule)
        if not self.pinned:
            self.pinned = pins(command)
        if self.traced:
            self.trace(Side.CLIENT, b" ".join((command.tag, rule.verb)) + redacted(parts))
        if isinstance(waiting, takes.MessageBegins):
            self.head_tag = tag
            self._ask_message(waiting, (b"%b %b" % (tag, rule.verb),))
            return
        if rule.more and rule.slow:
            self.contexts.note(tag, command)
        pieces = segments((b"%b %b" % (tag, rule.verb), *parts))
        self._out.upstream(pieces[0])
        if len(pieces) > 1:
            self.head_tag, self._segments = tag, pieces[1:]
            self._moved(HeadEvent.ASKED)
        elif rule.verb == b"IDLE":
            self.head_tag = tag
            self._moved(HeadEvent.IDLE_SENT)

    def message(self, event: takes.MessageBegins) -> None:
        """A message literal is announced: of a new command, or the next one of the command at the head."""
        if self.head is not Head.FLOWING:
            self.submit(event)
        elif self.head_tag in self.flights:
            if self.witness is not None:
                self.witness.more(self.head_tag, event.size)
            self._ask_message(event, ())
        else:  # it was answered while a message of it was on the way: end its line, ask for nothing more
            self._intake.refused()
            self._out.upstream(b"\r\n")
            self._moved(HeadEvent.WRITTEN)
            self.drain()

    def _ask_message(self, event: takes.MessageBegins, before: tuple[Part, ...]) -> None:
        announcement = b"%b{%d}" % (b"~" if event.binary else b"", event.size)
        pieces = segments((*before, *event.command.parts, announcement))
        self._message, self._segments = event, pieces[1:]
        self._out.upstream(pieces[0])
        self._moved(HeadEvent.ASKED)

    def tail(self, parts: tuple[Part, ...]) -> None:
        """The end of a command that had message literals."""
        pieces = segments(parts)
        if len(pieces) > 1 and self.head_tag in self.flights:  # a long string, which upstream must ask for, too
            self._segments = pieces[1:]
            self._out.upstream(pieces[0])
            self._moved(HeadEvent.ASKED)
            return
        self._out.upstream(pieces[0] if len(pieces) == 1 else b"\r\n")
        self._moved(HeadEvent.WRITTEN)
        self.drain()

    def abandon(self, denied: Mapping[str, object]) -> bytes:
        """Forget the command at the head, whose message must not be sent on; return the client's tag, if it waits."""
        flight = self.flights.pop(self.head_tag, None)
        if flight is None:
            return b""
        assert self.witness is not None
        self.witness.denied(self.head_tag, denied)
        return flight.tag

    # --- IDLE -----------------------------------------------------------------------------------------

    def end_idle(self) -> None:
        """The client has said DONE."""
        self._intake.moved(SendingEvent.DIALOGUE_ENDED)
        if self.head is Head.IDLING:
            self._send_done()
        else:
            self.done = True

    def refresh_idle(self) -> None:
        """End IDLE and begin it anew, before the server takes the silence for an absence (RFC 2177)."""
        if self.head is Head.IDLING:
            self._send_done(HeadEvent.REFRESHED)

    def _send_done(self, event: HeadEvent = HeadEvent.DONE_SENT) -> None:
        self._out.upstream(b"DONE\r\n")
        self._out.effect(CancelTimer(Timer.REFRESH))
        self._moved(event)

    def _not_idling(self) -> None:
        """IDLE is over; whoever has said DONE already is not idling any more."""
        self.done = False
        if self._intake.sending is Sending.IDLE:
            self._intake.moved(SendingEvent.DIALOGUE_ENDED)

    # --- what upstream answers ------------------------------------------------------------------------

    def continued(self) -> bool:
        """Take upstream's ``+``; tell whether the client is to see it.

        :raise UpstreamProtocolError: nobody awaits one (THREATS A22).
        """
        if self.head in (Head.IDLE_ASKED, Head.IDLE_RESUMED):
            shown = self.head is Head.IDLE_ASKED
            self._moved(HeadEvent.CONTINUED_IDLE)
            if self.done:
                self.done = False
                self._send_done()
            else:
                self._out.effect(SetTimer(Timer.REFRESH, IDLE_REFRESH))
            return shown
        if self.head is not Head.ASKED:
            raise UpstreamProtocolError("a continuation that nobody awaits")
        if self._segments:
            self._out.upstream(self._segments.pop(0))
            if self._segments or self._message is not None:
                self._moved(HeadEvent.CONTINUED_LITERAL)
            else:
                self._moved(HeadEvent.CONTINUED_SEGMENT)
                self.drain()
            return False
        message, self._message = self._message, None
        assert message is not None
        self._moved(HeadEvent.CONTINUED_MESSAGE)
        self._intake.accepted()
        return message.synchronising

    def completed(self, tag: bytes, *, ok: bool) -> Flight | None:
        """Take the completion of a command; return whose it is, ``None`` where the client is to see nothing of it.

        :raise UpstreamProtocolError: there is no such command (THREATS A22).
        """
        flight = self.flights.pop(tag, None)
        if flight is None:
            raise UpstreamProtocolError("a completion for no command")
        if flight.tag == OWN:
            if tag == self._own:
                self._own = b""
                assert self.witness is not None
                self.witness.answered(ok=ok)
            self.drain()
            return None
        if tag != self.head_tag or self.head is Head.FREE:
            return flight
        if self.head is Head.IDLE_REFRESHING and ok and not self.done:  # the client's own goes on
            self.head_tag = self.link.next_tag()
            self.flights[self.head_tag] = flight
            if self.witness is not None:
                self.witness.resumed(tag, self.head_tag)
            self._out.upstream(b"%b IDLE\r\n" % self.head_tag)
            self._moved(HeadEvent.RESUMED)
            return None
        if self.head is Head.ASKED and self._message is not None:
            self._message = None
            self._intake.refused()
        elif self.head in (Head.IDLE_ASKED, Head.IDLE_RESUMED, Head.IDLING, Head.IDLE_REFRESHING):
            self._not_idling()
        self._segments = []
        self._moved(HeadEvent.COMPLETED)
        return flight

    def trace(self, side: Side, text: bytes) -> None:
        """Report one line."""
        self._out.effect(Report(Traced(side, text)))

    def trace_upstream(self, line: bool, piece: bytes) -> None:
        """Report what upstream said: a line as it is, of data only how much it was."""
        self.trace(Side.UPSTREAM, piece.rstrip(b"\r\n") if line else b"... %d octets of data" % len(piece))
