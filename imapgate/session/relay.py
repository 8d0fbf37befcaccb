"""A client that has logged in, bound to an upstream connection: commands there, responses back.

Knows whose tag is whose, what stands at the head of the upstream connection, and which commands wait
behind it.  Commands may complete in any order (RFC 3501 §5.5); each client tag is answered once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from imapgate.errors import ClientProtocolError, UpstreamProtocolError
from imapgate.limits import Limits
from imapgate.model import capability
from imapgate.model.commands import Changes, Command, Rule, arguments
from imapgate.session import intake as takes
from imapgate.session.effects import Reason, Report, Side, Traced
from imapgate.session.intake import Intake
from imapgate.session.link import Link
from imapgate.session.login import LEAVE, PROMPT, SELF
from imapgate.session.outbox import Outbox
from imapgate.session.responses import (
    STATUS,
    WORD,
    capabilities,
    enables_utf8,
    keyword,
    masked,
    with_tag,
    without_referral,
)
from imapgate.session.states import (
    CONNECTION,
    HEAD,
    Connection,
    ConnectionEvent,
    Head,
    HeadEvent,
    Sending,
    SendingEvent,
)
from imapgate.wire.writer import Part, redacted, segments, string


class Flight(NamedTuple):
    """A command that upstream has, or is being sent: the client's tag, and its row of the table."""

    tag: bytes
    rule: Rule


Waiting = Command | takes.MessageBegins

_OUTCOMES = {
    (Changes.SELECTS, True): ConnectionEvent.SELECT_OK,
    (Changes.SELECTS, False): ConnectionEvent.SELECT_FAILED,
    (Changes.DESELECTS, True): ConnectionEvent.DESELECTED,
}
_CONTEXTS = 16  # searches of one session that are kept up to date (RFC 5267), at most


class Relay:
    """One client's commands on one upstream connection."""

    __slots__ = (
        "_contexts", "_deferred", "_done", "_flights", "_head", "_head_tag", "_intake", "_leaving", "_limits", "_link",
        "_message", "_out", "_queue", "_segments", "_traced", "bad", "connection", "finished", "heard",
    )  # fmt: skip

    def __init__(self, out: Outbox, intake: Intake, limits: Limits, link: Link, traced: bool = False) -> None:
        self._out = out
        self._intake = intake
        self._limits = limits
        self._link = link
        self._traced = traced
        self._flights: dict[bytes, Flight] = {}  # by upstream tag
        self._contexts: dict[bytes, bytes] = {}  # client tags of searches that go on, by upstream tag
        self._queue: list[Waiting] = []
        self._head = Head.FREE
        self._head_tag = b""
        self._segments: list[bytes] = []  # of the head's command, to be sent at its next "+"
        self._message: takes.MessageBegins | None = None  # whose literal follows the segments
        self._done = False  # DONE came before the "+" of IDLE
        self._deferred: list[bytes] = []  # the gate's own lines, while a response is in the middle of a line
        self._leaving: bytes | None = None  # tag of LOGOUT
        self.connection = Connection.AUTHENTICATED
        self.bad = 0
        """How many commands were refused by the gate."""
        self.finished = False
        """Nothing more can come of this relay."""
        self.heard = False
        """Upstream has said something since this was last set to ``False``."""

    # --- the client's side ----------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether the client is owed an answer: not to IDLE while it idles, nor to a message that is on its way."""
        unfinished = self.idling or (self._head is Head.FLOWING and self._head_tag in self._flights)
        return len(self._flights) + len(self._queue) + len(self._deferred) > unfinished

    @property
    def leaving(self) -> bool:
        """Whether the client has said LOGOUT."""
        return self._leaving is not None

    @property
    def awaits_upstream(self) -> bool:
        """Whether it is upstream's turn to speak (while it idles, it is nobody's)."""
        return bool(self._flights) and self._head is not Head.IDLING and self._head is not Head.FLOWING

    @property
    def slow(self) -> bool:
        """Whether a command is in flight that may take long."""
        return any(flight.rule.slow for flight in self._flights.values())

    @property
    def mid_response(self) -> bool:
        """Whether the client has been sent part of a response whose rest is still to come."""
        return not self._link.scanner.at_line_start

    @property
    def idling(self) -> bool:
        """Whether the client is in IDLE."""
        return self._intake.sending is Sending.IDLE

    @property
    def waiting(self) -> Reason | None:
        """Why no more of the client's input can be taken; ``None``: it can."""
        if self._leaving is not None:
            return Reason.LOGOUT
        if self._intake.sending is Sending.MESSAGE_ASKED or self._done:
            return Reason.CONTINUATION
        if len(self._flights) + len(self._queue) + len(self._deferred) >= self._limits.pipelined_commands:
            # what belongs to the command at the head must go on, or that command would never end
            return None if self._head is Head.FLOWING or self.idling else Reason.PIPELINE
        return None

    def take(self, event: takes.Event) -> None:
        """Take what the client sent."""
        _TAKES[type(event)](self, event)

    def _take_command(self, event: takes.Complete) -> None:
        own = _OWN.get(event.command.rule.verb)
        if own is None:
            self._submit(event.command)
        else:
            own(self, event.command)

    def _say(self, data: bytes) -> None:
        """Write lines of the gate's own: between two lines of upstream's, never inside one or its literal."""
        if self._deferred or self.mid_response:
            self._deferred.append(data)
        else:
            self._out.client(data)

    def _take_prompt(self, event: takes.Prompt) -> None:
        self._say(PROMPT)

    def _take_refused(self, event: takes.Refused) -> None:
        self.bad += 1
        self._say(b"%b %b %b\r\n" % (event.tag, event.completion, event.text.encode()))

    def _take_message(self, event: takes.MessageBegins) -> None:
        if self._head is not Head.FLOWING:
            self._submit(event)
        elif self._head_tag in self._flights:  # the next message of one command
            self._ask_message(event, ())
        else:  # it was answered while a message of it was on the way: end its line, ask for nothing more
            self._intake.refused()
            self._out.upstream(b"\r\n")
            self._moved(HeadEvent.WRITTEN)
            self._drain()

    def _take_data(self, event: takes.MessageData) -> None:
        self._out.upstream(event.data)

    def _take_tail(self, event: takes.MessageTail) -> None:
        pieces = segments(event.command.parts)
        if len(pieces) > 1 and self._head_tag in self._flights:  # a long string, which upstream must ask for, too
            self._segments = pieces[1:]
            self._out.upstream(pieces[0])
            self._moved(HeadEvent.ASKED)
            return
        self._out.upstream(pieces[0] if len(pieces) == 1 else b"\r\n")
        self._moved(HeadEvent.WRITTEN)
        self._drain()

    def _take_idle_line(self, event: takes.IdleLine) -> None:
        if event.data.upper() != b"DONE":  # THREATS A28
            raise ClientProtocolError("Expected DONE while idling", fatal=True)
        self._intake.moved(SendingEvent.DIALOGUE_ENDED)
        if self._head is Head.IDLING:
            self._send_done()
        else:
            self._done = True

    # --- what the gate answers itself -------------------------------------------------------------------

    def _do_capability(self, command: Command) -> None:
        self._say(b"* CAPABILITY %b\r\n" % capability.after_login(self._link.capabilities))
        self._say(b"%b OK Capabilities listed\r\n" % command.tag)

    def _do_id(self, command: Command) -> None:
        self._say(SELF)
        self._say(b"%b OK Nice to meet you\r\n" % command.tag)

    def _do_enable(self, command: Command) -> None:
        """Pass on what may be enabled through the gate, and only that (RFC 5161)."""
        offered = capability.parse(self._link.capabilities)
        names = [name for name in arguments(command.tokens) if name.upper() in capability.ENABLEABLE & offered]
        if names:
            self._submit(command._replace(parts=(b" " + b" ".join(names),)))
        else:
            self._say(b"* ENABLED\r\n%b OK Nothing enabled\r\n" % command.tag)

    def _do_idle(self, command: Command) -> None:
        if b"IDLE" not in capability.parse(self._link.capabilities):
            self._take_refused(takes.Refused(command.tag, b"BAD", "IDLE is not offered here"))
            return
        self._intake.moved(SendingEvent.IDLE_STARTED)
        self._submit(command)

    def _do_cancelupdate(self, command: Command) -> None:
        """Name the searches to be cancelled by the tags that upstream knows (RFC 5267 §4.3)."""
        tags = {tag: upstream for upstream, tag in self._contexts.items()}
        parts = [part for tag in arguments(command.tokens) for part in (b" ", string(tags.get(tag, tag)))]
        self._submit(command._replace(parts=tuple(parts)))

    def _do_logout(self, command: Command) -> None:
        self._leaving = command.tag
        self._leave_if_quiet()

    def _leave_if_quiet(self) -> None:
        quiet = not (self._flights or self._queue or self.mid_response) and self._head is Head.FREE
        if self._leaving is not None and quiet:
            self._say(LEAVE % self._leaving)
            self._out.upstream(b"%b LOGOUT\r\n" % self._link.next_tag())
            self.finished = True

    # --- upstream's side: writing -----------------------------------------------------------------------

    def _moved(self, event: HeadEvent) -> None:
        self._head = HEAD[self._head, event]

    def _submit(self, waiting: Waiting) -> None:
        if self._head is Head.FREE and not self._queue:
            self._write(waiting)
        else:
            self._queue.append(waiting)

    def _drain(self) -> None:
        while self._queue and self._head is Head.FREE:
            self._write(self._queue.pop(0))
        self._leave_if_quiet()

    def _write(self, waiting: Waiting) -> None:
        command = waiting if isinstance(waiting, Command) else waiting.command
        tag = self._link.next_tag()
        rule, parts = command.rule, command.parts
        self._flights[tag] = Flight(command.tag, rule)
        if self._traced:
            self._trace(Side.CLIENT, b" ".join((command.tag, rule.verb)) + redacted(parts))
        if isinstance(waiting, takes.MessageBegins):
            self._head_tag = tag
            self._ask_message(waiting, (b"%b %b" % (tag, rule.verb),))
            return
        if rule.more and rule.slow:
            self._note_context(tag, command)
        pieces = segments((b"%b %b" % (tag, rule.verb), *parts))
        self._out.upstream(pieces[0])
        if len(pieces) > 1:
            self._head_tag, self._segments = tag, pieces[1:]
            self._moved(HeadEvent.ASKED)
        elif rule.verb == b"IDLE":
            self._head_tag = tag
            self._moved(HeadEvent.IDLE_SENT)

    def _ask_message(self, event: takes.MessageBegins, before: tuple[Part, ...]) -> None:
        announcement = b"%b{%d}" % (b"~" if event.binary else b"", event.size)
        pieces = segments((*before, *event.command.parts, announcement))
        self._message, self._segments = event, pieces[1:]
        self._out.upstream(pieces[0])
        self._moved(HeadEvent.ASKED)

    def _send_done(self) -> None:
        self._out.upstream(b"DONE\r\n")
        self._moved(HeadEvent.DONE_SENT)

    def _note_context(self, tag: bytes, command: Command) -> None:
        """Remember the tag of a search whose results go on coming after its completion."""
        tokens = command.tokens
        if not tokens or tokens[0].value.upper() != b"RETURN":
            return
        if b"UPDATE" in [token.value.upper() for token in tokens[:16]]:
            if len(self._contexts) == _CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[tag] = command.tag

    # --- upstream's side: reading -----------------------------------------------------------------------

    def passes(self, data: bytes) -> bool:
        """Whether this is wholly inside a literal for the client, and nobody else's; then it is taken."""
        if self._traced or not self._link.scanner.passes(data):
            return False
        self.heard = True
        return True

    def received(self, data: bytes) -> None:
        """Take what upstream sent.

        :raise UpstreamProtocolError: what no honest server sends.
        """
        self.heard = True
        self.read(self._link.scanner.feed(data))

    def read(self, pieces: Iterable[tuple[bool, bytes]]) -> None:
        """Take what a scanner made of what upstream sent."""
        say = self._out.client
        for careful, piece in pieces:
            if careful and self._deferred:
                self._say_deferred()
            if self._traced:
                self._trace(Side.UPSTREAM, piece.rstrip(b"\r\n") if careful else b"... %d octets of data" % len(piece))
            if not careful:
                say(piece)
            elif piece.startswith(b"* "):
                self._untagged(piece)
            elif piece.startswith(b"+"):
                self._continued(piece)
            else:
                self._completed(piece)
            if self.finished:
                return
        if self._deferred and not self.mid_response:
            self._say_deferred()
        if self._leaving is not None:
            self._leave_if_quiet()

    def _say_deferred(self) -> None:
        self._out.client(b"".join(self._deferred))
        self._deferred = []

    def _untagged(self, line: bytes) -> None:
        word = keyword(line)
        if word in (b"OK", b"NO", b"BAD"):
            line = with_tag(without_referral(line), self._tags())
            self._capable(line)
            line = masked(line)
        elif word == b"CAPABILITY":
            self._capable(line)
            line = masked(line)
        elif word == b"ESEARCH":
            line = with_tag(line, self._tags())
        elif word == b"ENABLED" and enables_utf8(line):
            self._intake.utf8 = True
        elif word == b"BYE":
            self._out.client(without_referral(line))
            self.finished = True
            return
        elif word == b"PREAUTH" or not WORD.match(word):
            raise UpstreamProtocolError("an untagged line that is none")
        self._out.client(line)

    def _tags(self) -> dict[bytes, bytes]:
        return self._contexts | {tag: flight.tag for tag, flight in self._flights.items()}

    def _capable(self, line: bytes) -> None:
        said = capabilities(line)
        if said is not None:
            self._link.capabilities = said

    def _continued(self, line: bytes) -> None:
        if self._head is Head.IDLE_ASKED:
            self._moved(HeadEvent.CONTINUED_IDLE)
            self._out.client(line)
            if self._done:
                self._done = False
                self._send_done()
        elif self._head is not Head.ASKED:
            raise UpstreamProtocolError("a continuation that nobody awaits")  # THREATS A22
        elif self._segments:
            self._out.upstream(self._segments.pop(0))
            if self._segments or self._message is not None:
                self._moved(HeadEvent.CONTINUED_LITERAL)
            else:
                self._moved(HeadEvent.CONTINUED_SEGMENT)
                self._drain()
        else:
            message, self._message = self._message, None
            assert message is not None
            self._moved(HeadEvent.CONTINUED_MESSAGE)
            self._intake.accepted()
            if message.synchronising:
                self._out.client(line)

    def _completed(self, line: bytes) -> None:
        status = STATUS.match(line)
        flight = self._flights.pop(status[1], None) if status else None
        if status is None or flight is None or status[2].upper() in (b"BYE", b"PREAUTH"):
            raise UpstreamProtocolError("a completion for no command")  # THREATS A22
        tag = status[1]
        if status[3] is not None:
            self._capable(line)
            line = masked(without_referral(line))
        self._out.client(flight.tag + line[len(tag) :])
        changes = flight.rule.changes
        if changes is not Changes.NOTHING:
            event = _OUTCOMES.get((changes, status[2].upper() == b"OK"))
            if event is not None:
                self.connection = CONNECTION[self.connection, event]
        if tag == self._head_tag and self._head is not Head.FREE:
            self._head_completed()
        if self._queue or self._leaving is not None:
            self._drain()

    def _head_completed(self) -> None:
        """The command at the head is over before it was wholly sent, or IDLE is."""
        if self._head is Head.ASKED and self._message is not None:
            self._message = None
            self._intake.refused()
        elif self._head is Head.IDLE_ASKED and self._done:  # refused, and the client has said DONE already
            self._done = False
        elif self._head in (Head.IDLE_ASKED, Head.IDLING):
            self._intake.moved(SendingEvent.DIALOGUE_ENDED)
        self._segments = []
        self._moved(HeadEvent.COMPLETED)

    # --- trace ------------------------------------------------------------------------------------------

    def _trace(self, side: Side, text: bytes) -> None:
        self._out.effect(Report(Traced(side, text)))


_OWN: dict[bytes, Callable[[Relay, Command], None]] = {
    b"CAPABILITY": Relay._do_capability,
    b"ID": Relay._do_id,
    b"ENABLE": Relay._do_enable,
    b"IDLE": Relay._do_idle,
    b"CANCELUPDATE": Relay._do_cancelupdate,
    b"LOGOUT": Relay._do_logout,
}
_TAKES: dict[type, Callable[..., None]] = {
    takes.Complete: Relay._take_command,
    takes.Prompt: Relay._take_prompt,
    takes.Refused: Relay._take_refused,
    takes.MessageBegins: Relay._take_message,
    takes.MessageData: Relay._take_data,
    takes.MessageTail: Relay._take_tail,
    takes.IdleLine: Relay._take_idle_line,
}
