"""A client that has logged in, bound to an upstream connection: commands there, responses back.

Knows whose tag is whose, what stands at the head of the upstream connection, and which commands wait
behind it.  Commands may complete in any order (RFC 3501 §5.5); each client tag is answered once.

In mode ``mailbox`` the connection is bound only while a mailbox is selected or a command is in flight:
the first command that needs one asks for it, and it is given back when nothing is left of it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from imapgate.errors import ClientProtocolError, UpstreamProtocolError
from imapgate.limits import Limits
from imapgate.model import capability
from imapgate.model.commands import Changes, Command, Table, arguments
from imapgate.model.failure import ANSWERS
from imapgate.model.pool_mode import PoolMode
from imapgate.session import intake as takes
from imapgate.session.deeds import Place
from imapgate.session.effects import Close, Failed, Granted, Identified, Judgement, Reason, Report, Side
from imapgate.session.intake import Intake
from imapgate.session.login import LEAVE, PROMPT, SELF, identity
from imapgate.session.outbox import Outbox
from imapgate.session.responses import (
    STATUS,
    WORD,
    capabilities,
    enables_utf8,
    keyword,
    masked,
    needs_care,
    with_tag,
    without_referral,
)
from imapgate.session.states import CONNECTION, Connection, ConnectionEvent, Head, Sending, SendingEvent
from imapgate.session.uplink import Uplink
from imapgate.wire.scanner import LINE

_OUTCOMES = {
    (Changes.SELECTS, True): ConnectionEvent.SELECT_OK,
    (Changes.SELECTS, False): ConnectionEvent.SELECT_FAILED,
    (Changes.DESELECTS, True): ConnectionEvent.DESELECTED,
}


class Relay:
    """One client's commands on one upstream connection, or on one after another."""

    __slots__ = (
        "_bye", "_deferred", "_intake", "_leaving", "_limits", "_mask", "_mode", "_out", "_up", "bad", "connection",
        "finished", "heard",
    )  # fmt: skip

    def __init__(self, out: Outbox, intake: Intake, limits: Limits, table: Table, granted: Granted) -> None:
        self._out = out
        self._intake = intake
        self._limits = limits
        self._mode = granted.mode
        self._mask = granted.mask
        self._up = Uplink(out, intake, limits, granted)
        self._bye = False  # upstream has said it
        self._deferred: list[bytes] = []  # the gate's own lines, while a response is in the middle of a line
        self._leaving: bytes | None = None  # tag of LOGOUT
        self.connection = Connection.AUTHENTICATED
        self.bad = 0
        """How many commands were refused by the gate."""
        self.finished = False
        """Nothing more can come of this relay."""
        self.heard = False
        """Upstream has said something since this was last set to ``False``."""

    dismissed = b""
    """The last words to a client whose session is to end now; empty: it goes on."""
    place: Place | None = None
    """The selected mailbox, where anybody watches."""

    # --- how it stands ----------------------------------------------------------------------------------

    @property
    def pinned(self) -> str:
        """Why the connection can never be anybody else's; empty: it can."""
        return self._up.pinned

    @property
    def capabilities(self) -> bytes:
        """What the client is shown of them."""
        return self._mask(self._up.link.capabilities)

    @property
    def _owed(self) -> int:
        """How many commands and lines have still to be answered or said."""
        return len(self._up.flights) + len(self._up.queue) + len(self._deferred)

    @property
    def busy(self) -> bool:
        """Whether the client is owed an answer: not to IDLE while it idles, nor to a message that is on its way."""
        return self._owed > (self.idling or self._up.flowing)

    @property
    def quiet(self) -> bool:
        """Whether this is a command boundary: nothing is owed, nothing is on its way; IDLE is no reason to wait."""
        return self._owed == self.idling and not self.mid_response

    @property
    def receiving(self) -> bool:
        """Whether a command is under way whose rest the client has still to send."""
        return self._up.head is Head.FLOWING or self._intake.sending is Sending.MESSAGE_ASKED

    @property
    def leaving(self) -> bool:
        """Whether the client has said LOGOUT."""
        return self._leaving is not None

    @property
    def awaits_upstream(self) -> bool:
        """Whether it is upstream's turn to speak (while it idles, it is nobody's)."""
        up = self._up
        return bool(up.flights) and up.head is not Head.IDLING and up.head is not Head.FLOWING

    @property
    def awaits_lease(self) -> bool:
        """Whether a connection was asked for, and has not been granted or refused."""
        return self._up.head is Head.AWAITED

    @property
    def slow(self) -> bool:
        """Whether a command is in flight that may take long."""
        return any(flight.rule.slow for flight in self._up.flights.values())

    @property
    def mid_response(self) -> bool:
        """Whether the client has been sent part of a response whose rest is still to come."""
        return not self._up.link.scanner.at_line_start

    @property
    def idling(self) -> bool:
        """Whether the client is in IDLE."""
        return self._intake.sending is Sending.IDLE

    @property
    def waiting(self) -> Reason | None:
        """Why no more of the client's input can be taken; ``None``: it can."""
        if self._leaving is not None:
            return Reason.LOGOUT
        if self._intake.sending is Sending.MESSAGE_ASKED or self._up.done:
            return Reason.CONTINUATION
        if self._owed >= self._limits.pipelined_commands:
            # what belongs to the command at the head must go on, or that command would never end
            return None if self._up.head is Head.FLOWING or self.idling else Reason.PIPELINE
        return None

    # --- what the client sends --------------------------------------------------------------------------

    def take(self, event: takes.Event) -> None:
        """Take what the client sent."""
        _TAKES[type(event)](self, event)

    def _take_command(self, event: takes.Complete) -> None:
        own = _OWN.get(event.command.rule.verb)
        if own is None:
            self._up.submit(event.command)
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
        self._up.message(event)
        self._settle()

    def _take_data(self, event: takes.MessageData) -> None:
        self._out.upstream(event.data)

    def _take_tail(self, event: takes.MessageTail) -> None:
        self._up.tail(event.command.parts)
        self._settle()

    def _take_idle_line(self, event: takes.IdleLine) -> None:
        if event.data.upper() != b"DONE":  # THREATS A28
            raise ClientProtocolError("Expected DONE while idling", fatal=True)
        self._up.end_idle()

    # --- what the gate answers itself -------------------------------------------------------------------

    def _do_capability(self, command: Command) -> None:
        self._say(b"* CAPABILITY %b\r\n" % self.capabilities)
        self._say(b"%b OK Capabilities listed\r\n" % command.tag)

    def _do_id(self, command: Command) -> None:
        self._out.effect(Report(Identified(identity(command))))
        self._say(SELF)
        self._say(b"%b OK Nice to meet you\r\n" % command.tag)

    def _do_enable(self, command: Command) -> None:
        """Pass on what may be enabled through the gate, and only that (RFC 5161)."""
        offered = capability.parse(self._up.link.capabilities)
        names = [name for name in arguments(command.tokens) if name.upper() in capability.ENABLEABLE & offered]
        if names:
            self._up.submit(command._replace(parts=(b" " + b" ".join(names),)))
        else:
            self._say(b"* ENABLED\r\n%b OK Nothing enabled\r\n" % command.tag)

    def _do_idle(self, command: Command) -> None:
        if b"IDLE" not in capability.parse(self._up.link.capabilities):
            self._take_refused(takes.Refused(command.tag, b"BAD", "IDLE is not offered here"))
            return
        self._intake.moved(SendingEvent.IDLE_STARTED)
        self._up.submit(command)

    def _do_cancelupdate(self, command: Command) -> None:
        self._up.submit(self._up.contexts.cancelling(command))

    def _do_noop(self, command: Command) -> None:
        if self._up.head is Head.UNBOUND:  # nobody has anything to tell
            self._say(b"%b OK Nothing done\r\n" % command.tag)
        else:
            self._up.submit(command)

    def _do_logout(self, command: Command) -> None:
        self._leaving = command.tag
        self._settle()

    # --- the connection ---------------------------------------------------------------------------------

    def trace(self) -> None:
        """Report every line from now on."""
        self._up.traced = True

    def refresh_idle(self) -> None:
        """Keep the server from taking a long IDLE for an absence."""
        self._up.refresh_idle()

    def let_go(self, *, broken: bool) -> None:
        """The session is over: the connection goes back to its pool, or is closed."""
        up = self._up
        if broken or self._bye or self._deferred or not up.give_back(selected=self._selected):
            if self.finished and up.head is Head.FREE and not self._bye:
                self._out.upstream(b"%b LOGOUT\r\n" % up.link.next_tag())
            self._out.effect(Close(Side.UPSTREAM))

    @property
    def _selected(self) -> bool:
        return self.connection is Connection.SELECTED

    def _settle(self) -> None:
        """See whether nothing is under way any more: the client may leave then, or needs no connection for now."""
        if self._leaving is not None:
            if self._up.vacant and not self.mid_response:
                self._say(LEAVE % self._leaving)
                self.finished = True
        elif self._mode is PoolMode.MAILBOX and not self._selected and not self._deferred:
            self._up.give_back(selected=False)

    def leased(self, granted: Granted) -> None:
        """There is a connection again: what waited for it goes there.

        :raise UpstreamProtocolError: what came with the login is what no honest server sends.
        """
        self._up.bind(granted)
        self.begin()  # before anything is asked there: what came unasked answers nothing (THREATS A22)
        if not self.finished:
            self._up.drain()

    def begin(self) -> None:
        """Read what came in one chunk with the answer to the login.

        :raise UpstreamProtocolError: it is what no honest server sends.
        """
        link = self._up.link
        unread, link.unread = link.unread, []
        self.read(unread)

    def lease_refused(self, failed: Failed) -> None:
        """There is none: what waited for it was not done, and is told so."""
        completion, code, text = ANSWERS[failed.failure]
        for command in self._up.refuse():
            self._say(b"%b %b [%b] %b\r\n" % (command.tag, completion, code, failed.text or text))
        self._settle()

    # --- what upstream sends ----------------------------------------------------------------------------

    def passes(self, data: bytes) -> bool:
        """Whether this is wholly inside a literal for the client, and nobody else's; then it is taken."""
        if self._up.traced or not self._up.link.scanner.passes(data):
            return False
        self.heard = True
        return True

    def received(self, data: bytes) -> None:
        """Take what upstream sent.

        :raise UpstreamProtocolError: what no honest server sends.
        """
        self.heard = True
        self.read(self._up.link.scanner.feed(data))

    def read(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Take what a scanner made of what upstream sent."""
        say, up = self._out.client, self._up
        for kind, piece in pieces:
            if kind and self._deferred:
                self._say_deferred()
            if up.traced:
                up.trace_upstream(kind == LINE, piece)
            if not kind:
                say(piece)
            elif piece.startswith(b"* "):
                self._untagged(piece)
            elif piece.startswith(b"+"):
                if up.continued():
                    say(piece)
            else:
                self._completed(piece)
            if self.finished:
                return
        self._read_all()

    def _read_all(self) -> None:
        if self._deferred and not self.mid_response:
            self._say_deferred()
        self._settle()

    def judged(self, judgement: Judgement) -> None:
        """Nobody was asked."""

    def _say_deferred(self) -> None:
        self._out.client(b"".join(self._deferred))
        self._deferred = []

    def _answer(self, tag: bytes, outcome: bytes, line: bytes) -> None:
        """Complete a command that upstream knows by this tag."""
        self._out.client(line)

    def _untagged(self, line: bytes) -> None:
        word = keyword(line)
        if word in (b"OK", b"NO", b"BAD"):
            if needs_care(STATUS.match(line)):
                line = with_tag(without_referral(line), self._tags())
                self._capable(line)
                line = masked(line, self._mask)
        elif word == b"CAPABILITY":
            self._capable(line)
            line = masked(line, self._mask)
        elif word == b"ESEARCH":
            line = with_tag(line, self._tags())
        elif word == b"ENABLED" and enables_utf8(line):
            self._intake.utf8 = True
        elif word == b"BYE":
            self._out.client(without_referral(line))
            self.finished = self._bye = True
            return
        elif word == b"PREAUTH" or not WORD.match(word):
            raise UpstreamProtocolError("an untagged line that is none")
        self._out.client(line)

    def _tags(self) -> dict[bytes, bytes]:
        up = self._up
        return up.contexts.tags | {tag: flight.tag for tag, flight in up.flights.items()}

    def _capable(self, line: bytes) -> None:
        said = capabilities(line)
        if said is not None:
            self._up.link.capabilities = said

    def _completed(self, line: bytes) -> None:
        status = STATUS.match(line)
        if status is None or (outcome := status[2].upper()) in (b"BYE", b"PREAUTH"):
            raise UpstreamProtocolError("a completion for no command")  # THREATS A22
        tag, up = status[1], self._up
        flight = up.completed(tag, ok=outcome == b"OK")
        if flight is None:
            return
        if needs_care(status):
            self._capable(line)
            line = masked(without_referral(line), self._mask)
        self._answer(tag, outcome, flight.tag + line[len(tag) :])
        changes = flight.rule.changes
        if changes is not Changes.NOTHING:
            event = _OUTCOMES.get((changes, outcome == b"OK"))
            if event is not None:
                self.connection = CONNECTION[self.connection, event]
            if outcome == b"BAD":  # servers disagree on what is selected now
                up.pinned = up.pinned or "BAD to " + flight.rule.verb.decode("ascii")
        if up.queue:
            up.drain()


_OWN: dict[bytes, Callable[[Relay, Command], None]] = {
    b"CAPABILITY": Relay._do_capability,
    b"ID": Relay._do_id,
    b"ENABLE": Relay._do_enable,
    b"IDLE": Relay._do_idle,
    b"CANCELUPDATE": Relay._do_cancelupdate,
    b"NOOP": Relay._do_noop,
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
