"""A relay whose passage is watched: plugins are asked about what the client sends, and may refuse or change it.

While a command is judged the client is not heard, so the order of everything stays what it was, however long an
answer takes (THREATS A26).  What upstream sends is in :mod:`imapgate.session.answers`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from imapgate.errors import ClientProtocolError
from imapgate.limits import Limits
from imapgate.model import capability
from imapgate.model.commands import COMMANDS, Changes, Command, Table
from imapgate.model.passing import Message
from imapgate.model.reading import Reading
from imapgate.model.verdict import CONTINUE, Answer, Reject, Replace, Verdict
from imapgate.session import intake as takes
from imapgate.session.answers import WatchedAnswers
from imapgate.session.effects import Close, Granted, Reason, Side
from imapgate.session.intake import Intake
from imapgate.session.outbox import Outbox
from imapgate.session.states import CONNECTION, ConnectionEvent, Head
from imapgate.session.uplink import OWN
from imapgate.wire.writer import Literal, Part

UNRECORDED = "[UNAVAILABLE] The audit trail cannot be written, and nothing is done unrecorded"
_HARMLESS = frozenset((b"LOGOUT", b"CAPABILITY", b"NOOP", b"ID", b"IDLE", b"UNSELECT"))
"""What may be done though nothing can be recorded."""


class WatchedRelay(WatchedAnswers):
    """One client's commands, where plugins or the audit trail want to know of them."""

    __slots__ = ("_cut", "_message", "_messages", "_seen", "_table", "_to", "_verbs")

    def __init__(self, out: Outbox, intake: Intake, limits: Limits, table: Table, granted: Granted) -> None:
        super().__init__(out, intake, limits, table, granted)
        self._table = table
        verbs = self._interests.verbs
        self._verbs = None if verbs is None else frozenset(verb.encode() for verb in verbs)
        self._message: Message | None = None  # that flows, and that somebody looks at
        self._messages = 0  # of the command under way
        self._seen = 0  # octets of the message that they saw
        self._to = ""  # where the messages of the command under way go
        self._cut: bytes | None = None  # how the command is answered whose message was refused in its middle

    @property
    def waiting(self) -> Reason | None:
        """Why no more of the client's input can be taken."""
        return Reason.VERDICT if Side.CLIENT in self._then else super().waiting

    # --- what the client sends --------------------------------------------------------------------------

    def take(self, event: takes.Event) -> None:
        """Take what the client sent: first see whether it may be done at all, then ask."""
        if isinstance(event, takes.Complete):
            if self._allows(event):
                self._consider(event)
        elif isinstance(event, takes.MessageBegins):
            self._begins(event)
        elif isinstance(event, takes.MessageData):
            self._chunk(event)
        elif isinstance(event, takes.MessageTail):
            self._tail(event)
        else:
            super().take(event)

    def _allows(self, event: takes.Complete | takes.MessageBegins) -> bool:
        """Whether anything may be done, which it may not where it could not be recorded (THREATS F14)."""
        auditing = self._auditing
        if auditing is None or event.command.rule.verb in _HARMLESS or not auditing.failing():
            return True
        self._refuse(event, b"NO", UNRECORDED.encode())
        return False

    def _refuse(self, event: takes.Complete | takes.MessageBegins, completion: bytes, text: bytes) -> None:
        self._say(b"%b %b %b\r\n" % (event.command.tag, completion, text))
        if isinstance(event, takes.MessageBegins):
            self._intake.refused()
        elif event.command.rule.changes is Changes.SELECTS and self._selected:  # as after any SELECT that fails
            self._deselect()

    def _deselect(self) -> None:
        """Have the mailbox that was selected selected no more, upstream as here (RFC 3501 §6.3.1)."""
        self.connection = CONNECTION[self.connection, ConnectionEvent.SELECT_FAILED]
        unselect = b"UNSELECT" in capability.parse(self._up.link.capabilities)
        parts: tuple[Part, ...] = () if unselect else (b' ""',)
        self._up.submit(Command(OWN, COMMANDS[b"UNSELECT" if unselect else b"SELECT"], parts, ()))

    def _consider(self, event: takes.Complete | takes.MessageBegins) -> None:
        """Have a new command judged, if anybody wants to."""
        self._message, self._intake.watched = None, False  # one that upstream did not want may still stand there
        self._notes = {}
        judged = self._judges(event.command.rule.verb)
        if not judged and isinstance(event, takes.Complete):
            self._pass_on(event)
            return
        self._considered = reading = self._reading(event)
        if judged:
            then, parse = partial(self._command_judged, event, reading), partial(self._parse, event)
            self._ask(Side.CLIENT, "command", (reading,), then, parse)
        else:
            self._approved(event, reading)

    def _judges(self, verb: bytes) -> bool:
        """Whether anybody wants to be asked about this command."""
        return verb != b"LOGOUT" and (self._verbs is None or verb in self._verbs)

    def _reading(self, event: takes.Complete | takes.MessageBegins | takes.MessageTail) -> Reading:
        size = event.size if isinstance(event, takes.MessageBegins) else 0
        return Reading(event.command, message_size=size, utf8=self._intake.utf8)

    def _parse(self, event: takes.Complete | takes.MessageBegins, line: bytes) -> Reading:
        """Read what a plugin would put in a command's place.

        :raise ClientProtocolError: it is no command.
        """
        return self._reading(self._parsed(event, line))

    def _parsed(self, event: takes.Complete | takes.MessageBegins, line: bytes) -> takes.Complete | takes.MessageBegins:
        """The same event with another command; the size of a message is what is really to come."""
        if isinstance(event, takes.MessageBegins):
            line += b" %b{%d}" % (b"~" if event.binary else b"", event.size)
        found = takes.parsed(event.command.tag, line, self._limits, self._table, self._intake.utf8)
        if type(found) is not type(event):
            raise ClientProtocolError("a message where there was none, or none where there was one")
        return event._replace(command=found.command)

    def _command_judged(self, event: takes.Complete | takes.MessageBegins, reading: Reading, verdict: Verdict) -> None:
        if isinstance(verdict, Reject):
            self._denied(reading, verdict.rule)
            self._refuse(event, b"NO", _coded(verdict.code, verdict.text))
        elif isinstance(verdict, Answer):
            for line in verdict.untagged:
                self._say(b"* %b\r\n" % line)
            self._denied(reading, "answered")
            self._refuse(event, verdict.completion.encode(), _coded(verdict.code, verdict.text))
        elif isinstance(verdict, Replace):
            self._notes.update({"command.asked": reading.verb, "policy.plugin": self._by, "policy.rule": verdict.rule})
            event = self._parsed(event, verdict.line)
            self._approved(event, self._reading(event))
        else:
            self._approved(event, reading)

    def _approved(self, event: takes.Complete | takes.MessageBegins, reading: Reading) -> None:
        if isinstance(event, takes.MessageBegins):
            self._messages, self._to = 0, reading.destination
            self._consider_message(event, reading)
        else:
            self._pass_on(event)

    def _pass_on(self, event: takes.Complete | takes.MessageBegins) -> None:
        """Let a command go on, with what is to be recorded of it."""
        waiting = self._witness.notes
        if self._notes:
            waiting[event.command.tag], self._notes = self._notes, {}
        super().take(event)
        if waiting and not self._up.queue:  # the gate answered it itself
            waiting.clear()

    # --- messages ---------------------------------------------------------------------------------------

    def _begins(self, event: takes.MessageBegins) -> None:
        if self._cut is not None:  # a later message of a command that is refused
            self._dismiss(self._cut)
        elif self._up.head is Head.FLOWING:
            reading = self._reading(event)
            self._consider_rest(event, reading, lambda: self._consider_message(event, reading))
        elif self._allows(event):
            self._consider(event)

    def _tail(self, event: takes.MessageTail) -> None:
        pass_on = partial(super().take, event)
        if self._cut is not None:
            self._dismiss(self._cut)
        elif any(isinstance(part, Literal) or part.strip(b" )") for part in event.command.parts):
            self._consider_rest(event, self._reading(event), pass_on)
        else:
            pass_on()

    def _consider_rest(
        self, event: takes.MessageBegins | takes.MessageTail, reading: Reading, approved: Callable[[], None]
    ) -> None:
        """Have a command judged again of which more has come, behind a message that has gone on (THREATS A49)."""
        if not self._judges(event.command.rule.verb):
            approved()
            return

        def judged(verdict: Verdict) -> None:
            if isinstance(verdict, Reject):
                self._dismiss(self._end_message(verdict))
            elif isinstance(verdict, Answer):
                self._dismiss(self._end_message(Reject(verdict.code, verdict.text, "answered")))
            else:
                approved()

        self._ask(Side.CLIENT, "command", (reading,), judged)

    def _consider_message(self, event: takes.MessageBegins, reading: Reading) -> None:
        if not self._interests.message:
            self._pass_on(event)
            return
        self._messages += 1
        message = Message(self._to, event.size, self._messages)
        then = partial(self._message_judged, event, reading, message)
        self._ask(Side.CLIENT, "message_begins", (reading, message), then)

    def _message_judged(self, event: takes.MessageBegins, reading: Reading, message: Message, verdict: Verdict) -> None:
        if not isinstance(verdict, Reject):
            self._message, self._seen = message, 0
            self._intake.watched = True
            if event.size:
                self._pass_on(event)
            else:
                self._ask(Side.CLIENT, "message_ends", (message,), partial(self._empty_judged, event, reading, message))
        elif message.number == 1:
            self._denied(reading, verdict.rule)
            self._refuse(event, b"NO", _coded(verdict.code, verdict.text))
        else:
            self._dismiss(self._end_message(verdict))

    def _empty_judged(self, event: takes.MessageBegins, reading: Reading, message: Message, verdict: Verdict) -> None:
        self._message, self._intake.watched = None, False
        if isinstance(verdict, Reject):
            self._message_judged(event, reading, message, verdict)
        else:
            self._pass_on(event)

    def _chunk(self, event: takes.MessageData) -> None:
        if self._cut is not None:
            return
        message = self._message
        if message is None:
            super().take(event)
            return
        shown = event.data[: self._interests.message - self._seen]
        self._seen += len(shown)
        if shown:
            self._ask(Side.CLIENT, "message_chunk", (message, shown), partial(self._chunk_judged, event, message))
        else:
            self._chunk_judged(event, message, CONTINUE)

    def _chunk_judged(self, event: takes.MessageData, message: Message, verdict: Verdict) -> None:
        if isinstance(verdict, Reject):
            self._end_message(verdict)
        elif self._intake.remaining:
            super().take(event)
        else:  # the last octets wait for the last word
            self._ask(Side.CLIENT, "message_ends", (message,), partial(self._ended_judged, event))

    def _ended_judged(self, event: takes.MessageData, verdict: Verdict) -> None:
        if isinstance(verdict, Reject):
            self._end_message(verdict)
            return
        self._message, self._intake.watched = None, False
        super().take(event)

    def _end_message(self, verdict: Reject) -> bytes:
        """Refuse a message of which upstream has a part: it must never have the rest, so the connection is cut.

        No server stores what was cut off in the middle (PROTOCOL §2).  The client sends the rest, which is still
        watched, to nobody; return what it is answered then.
        """
        self._message = None
        tag = self._up.abandon({"policy.plugin": self._by, "policy.rule": verdict.rule})
        self._cut = b"%b NO %b\r\n" % (tag, _coded(verdict.code, verdict.text)) if tag else b""
        self._out.effect(Close(Side.UPSTREAM, abort=True))
        return self._cut

    def _dismiss(self, answer: bytes) -> None:
        """The client awaits the answer to a message that was cut off; there is no connection any more."""
        if answer:
            self._say(answer)
        self.dismissed = b"[UNAVAILABLE] The message was refused; connect again"


def _coded(code: str, text: str) -> bytes:
    """What stands behind the completion: the code, if there is one, and the text."""
    return (f"[{code}] {text}" if code else text).encode()
