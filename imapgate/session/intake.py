"""What the client sends: octets become commands, message data, SASL answers and DONE.

Knows which octets belong to which command, and refuses what is not one.  A refused command is read to
its true end: a literal that the client sends without being asked is swallowed to its last octet, and
its content is never taken for commands (PROTOCOL §2, rule 4).  It must not know what a command does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from imapgate.errors import ClientProtocolError
from imapgate.limits import Limits
from imapgate.model.commands import Command, Rule, Table, When, fault
from imapgate.model.secret import Secret
from imapgate.session.states import SENDING, Sending, SendingEvent
from imapgate.wire.scanner import CommandScanner
from imapgate.wire.tokens import Announcement, TokenError, Tokens
from imapgate.wire.writer import Literal, Part, parts_of


class Complete(NamedTuple):
    """A whole command."""

    command: Command


class Prompt(NamedTuple):
    """A small literal is awaited; the client wants to be asked for it by ``+``."""


class MessageBegins(NamedTuple):
    """A message literal is announced; the command has the parts that came since the last one."""

    command: Command
    size: int
    synchronising: bool
    binary: bool


class MessageData(NamedTuple):
    """Octets of a message literal, just as they came."""

    data: bytes


class MessageTail(NamedTuple):
    """The end of a command that had message literals."""

    command: Command


class Refused(NamedTuple):
    """A command that goes nowhere; ``tag`` is ``*`` where the client's own cannot be repeated."""

    tag: bytes
    completion: bytes
    text: str


class SaslLine(NamedTuple):
    """The client's answer to a SASL challenge."""

    data: Secret


class IdleLine(NamedTuple):
    """A line that came while idling; ``DONE`` is the only good one."""

    data: bytes


Event = Complete | Prompt | MessageBegins | MessageData | MessageTail | Refused | SaslLine | IdleLine

# RFC 3501 §9: a tag is any ASTRING-CHAR but "+".
_COMMAND = re.compile(
    rb"([!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+) ((?:UID )?[A-Z][A-Z0-9.=_-]*)(?: (?!\Z)|\Z)", re.IGNORECASE
)
_TAG = re.compile(rb"([!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+)(?: |\Z)")
_ANNOUNCED = re.compile(rb"(?:\A|[ (])~?\{(0|[1-9][0-9]*)(\+?)\}\Z")
_LOOKS_ANNOUNCED = re.compile(rb"\{[^{}]*\+[^{}]*\}\Z")
_FOREIGN = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|EHLO|HELO|USER|SSH-2\.0-\S*)(?: |\Z)")


class Intake:
    """One client's input.  Pull events with :meth:`next` until it returns ``None``."""

    __slots__ = (
        "_arguments", "_commands", "_limits", "_literal", "_parts", "_reading", "_refusal", "_refusing", "_remaining",
        "_scanner", "_size", "_streaming", "authenticated", "sending", "utf8", "watched",
    )  # fmt: skip

    def __init__(self, limits: Limits, commands: Table) -> None:
        self._limits = limits
        self._commands = commands
        self._scanner = CommandScanner()
        self.sending = Sending.LINE
        self.authenticated = False
        self.utf8 = False
        """Whether UTF8=ACCEPT was enabled, and quoted strings may be UTF-8 (RFC 6855)."""
        self.watched = False
        """Whether somebody looks at the message that flows."""
        self._reading: tuple[bytes, Rule] | None = None  # tag and row of the command that is being read
        self._arguments = _NO_ARGUMENTS
        self._parts: list[Part] = []
        self._size = 0  # octets of the command so far, message literals excepted
        self._streaming = False  # a message literal of it has been handed on
        self._refusing = False  # it was refused, and only its end is looked for
        self._refusal: Refused | None = None  # what to answer then
        self._literal = Announcement(0, True, False)
        self._remaining = 0  # octets of the literal still to come

    def __len__(self) -> int:
        """How many octets have come that were not yet looked at."""
        return len(self._scanner)

    @property
    def drained(self) -> bool:
        """Whether there is certainly nothing to give before more is fed."""
        return self.sending is Sending.LINE and not self._scanner

    @property
    def remaining(self) -> int:
        """Octets of the literal that are still to come."""
        return self._remaining

    def passes(self, data: bytes) -> bool:
        """Whether this is wholly inside a message literal that flows; then it is taken, else :meth:`feed` it."""
        if self.sending is not Sending.MESSAGE or len(data) > self._remaining or self._scanner or self.watched:
            return False
        self._remaining -= len(data)
        return True

    def feed(self, data: bytes) -> None:
        """Add what the client sent."""
        self._scanner.feed(data)

    def moved(self, event: SendingEvent) -> None:
        """Change what the next octets mean."""
        self.sending = SENDING[self.sending, event]

    def accepted(self) -> None:
        """Upstream asked for the message literal: let it flow."""
        self.moved(SendingEvent.ACCEPTED)
        self._streaming = True
        self._remaining = self._literal.size

    def refused(self) -> None:
        """Upstream refused the message literal, and said so: what still comes of the command is swallowed."""
        self._streaming = False
        if self._literal.synchronising:
            self.moved(SendingEvent.REFUSED_SYNCHRONISING)
            self._ended()
        else:
            self._swallow(SendingEvent.REFUSED_NON_SYNCHRONISING, self._literal.size, None)

    def next(self) -> Event | None:
        """Return what comes next, or ``None`` where that takes more octets.

        :raise ClientProtocolError: fatal: it is unclear what the client's next octets are, or there are
            too many of them.
        """
        event: Event | None = None
        more = True
        while more and event is None:
            event, more = _NEXT[self.sending](self)
        return event

    # --- one step in each state: an event, and whether there may be more to find ---------------------

    def _next_line(self) -> tuple[Event | None, bool]:
        limits = self._limits
        line = self._scanner.line(limits.line_after_login if self.authenticated else limits.line_before_login)
        if line is None:
            return None, False
        if self._reading is not None:
            return self._text(*self._reading, line), True
        if self._refusing:
            return self._refuse(line, self._refusal), True
        return self._first_line(line), True

    def _next_argument(self) -> tuple[Event | None, bool]:
        if len(self._scanner) < self._remaining:
            return None, False
        content = self._scanner.take(self._remaining)
        self._parts.append(Literal(content, self._literal.binary))
        self._arguments.literal(content)
        self.moved(SendingEvent.LITERAL_ENDED)
        if b"\0" in content and not self._literal.binary and self._reading is not None:  # servers disagree on it
            self._refusing, self._refusal = True, Refused(self._reading[0], b"BAD", "NUL in a literal")
            self._reading = None
        return None, True

    def _next_message(self) -> tuple[Event | None, bool]:
        if not self._remaining:
            self.moved(SendingEvent.LITERAL_ENDED)
            return None, True
        data = self._scanner.take(self._remaining)
        self._remaining -= len(data)
        return (MessageData(data) if data else None), bool(data)

    def _next_swallowed(self) -> tuple[Event | None, bool]:
        self._remaining -= len(self._scanner.take(self._remaining))
        if not self._remaining:
            self.moved(SendingEvent.LITERAL_ENDED)
        return None, not self._remaining

    def _next_sasl(self) -> tuple[Event | None, bool]:
        line = self._scanner.line(self._limits.sasl_line)
        return (None if line is None else SaslLine(Secret(line))), False

    def _next_idle(self) -> tuple[Event | None, bool]:
        line = self._scanner.line(self._limits.line_after_login)
        return (None if line is None else IdleLine(line)), False

    def _next_nothing(self) -> tuple[Event | None, bool]:
        return None, False

    # --- lines ----------------------------------------------------------------------------------------

    def _first_line(self, line: bytes) -> Event | None:
        found = _COMMAND.match(line)
        if found is None or len(found[1]) > self._limits.tag:
            return self._no_command(line)
        tag, verb, limits = found[1], found[2].upper(), self._limits
        rule = self._commands.get(verb)
        if rule is None:
            self._refuse_foreign(line)
            return self._refuse(line, Refused(tag, b"BAD", "Unknown command " + verb[:32].decode("ascii")))
        if self.authenticated:
            nesting = limits.nesting_after_login
            if rule.when is When.NOT_AUTHENTICATED:
                return self._refuse(line, Refused(tag, b"BAD", f"{verb.decode()}: already logged in"))
        else:
            nesting = limits.nesting_before_login
            if rule.when is When.AUTHENTICATED or rule.when is When.SELECTED:
                return self._refuse(line, Refused(tag, b"BAD", f"{verb.decode()}: log in first"))
        text = line[found.end() :]
        if rule.plain is not None and rule.plain.fullmatch(text) and self.authenticated and len(text) <= limits.command:
            return Complete(Command(tag, rule, (b" ", text) if text else (), ()))
        self._arguments = Tokens(nesting, self.utf8)
        self._parts = [b" "] if text else []
        self._size = 0
        return self._text(tag, rule, text)

    def _refuse_foreign(self, line: bytes) -> None:
        """End a conversation that began in another protocol (THREATS A9), echoing nothing."""
        if not self.authenticated and _FOREIGN.match(line):
            raise ClientProtocolError("", fatal=True)

    def _no_command(self, line: bytes) -> Event | None:
        """Refuse a line without a verb, and with a tag only where that is one (THREATS A21)."""
        self._refuse_foreign(line)
        found = _TAG.match(line)
        if found is None or len(found[1]) > self._limits.tag:
            return self._refuse(line, Refused(b"*", b"BAD", "Expected a tag, a space and a command"))
        return self._refuse(line, Refused(found[1], b"BAD", "Expected a command after the tag"))

    def _text(self, tag: bytes, rule: Rule, text: bytes) -> Event | None:
        """Take a line, or the rest of one behind a literal, of a command that is good so far."""
        self._size += len(text)
        try:
            announced = self._arguments.feed(text)
        except TokenError as error:
            return self._refuse(text, Refused(tag, b"BAD", f"{rule.verb.decode()}: {error}"))
        if announced is not None:
            return self._announced(tag, rule, text, announced)
        self._parts += parts_of(text)
        wrong = fault(rule, self._arguments.items)
        if wrong is not None:
            return self._refuse(b"", Refused(tag, b"BAD", wrong))
        if self._size > self._limits.command:
            return self._refuse(b"", Refused(tag, b"NO", "[LIMIT] The command is too long"))
        command = Command(tag, rule, tuple(self._parts), tuple(self._arguments.items))
        streaming = self._streaming
        self._ended()
        return MessageTail(command) if streaming else Complete(command)

    def _announced(self, tag: bytes, rule: Rule, text: bytes, literal: Announcement) -> Event | None:
        limits, items = self._limits, self._arguments.items
        self._parts += parts_of(text[: text.rindex(b"{") - literal.binary])
        if not rule.shape and not rule.more:
            return self._refuse(text, Refused(tag, b"BAD", f"{rule.verb.decode()} takes no arguments"))
        self._reading, self._literal = (tag, rule), literal
        if rule.message_after is not None and len(items) >= rule.message_after:
            if literal.size > limits.message_literal:
                return self._refuse(text, Refused(tag, b"NO", "[TOOBIG] The message is too large"))
            self._arguments.literal(b"")
            wrong = fault(rule, items)
            if wrong is not None:
                return self._refuse(text, Refused(tag, b"BAD", wrong))
            command = Command(tag, rule, tuple(self._parts), tuple(items))
            self._parts = []
            self.moved(SendingEvent.MESSAGE_ANNOUNCED)
            return MessageBegins(command, literal.size, literal.synchronising, literal.binary)
        most = limits.argument_literal if self.authenticated else limits.line_before_login
        self._size += literal.size
        if literal.size > most or self._size > limits.command:
            return self._refuse(text, Refused(tag, b"NO", f"[TOOBIG] A literal of more than {most} octets"))
        self._remaining = literal.size
        self.moved(SendingEvent.ARGUMENT_ANNOUNCED)
        return Prompt() if literal.synchronising else None

    # --- refusing -------------------------------------------------------------------------------------

    def _refuse(self, text: bytes, refusal: Refused | None) -> Event | None:
        """Refuse the command whose last line is ``text``, now, or when the literals behind it have passed."""
        if self._streaming:  # upstream stands in the middle of this command, and cannot be told
            raise ClientProtocolError(refusal.text if refusal else "Refused", fatal=True)
        found = _ANNOUNCED.search(text)
        if found is not None and found[2]:
            self._swallow(SendingEvent.REFUSED_ANNOUNCED, int(found[1][:19]), refusal)
            return None
        if found is None and _LOOKS_ANNOUNCED.search(text):
            raise ClientProtocolError("A literal is {n}, {n+} or ~{n} at the start of an argument", fatal=True)
        self._ended()
        return refusal

    def _swallow(self, event: SendingEvent, size: int, refusal: Refused | None) -> None:
        limits = self._limits
        if size > (limits.message_literal if self.authenticated else limits.line_before_login):
            raise ClientProtocolError("[TOOBIG] A literal that is too large was sent unasked", fatal=True)
        self._reading, self._refusing, self._refusal = None, True, refusal
        self._remaining = size
        self.moved(event)

    def _ended(self) -> None:
        self._reading, self._refusing, self._refusal = None, False, None
        self._arguments, self._parts, self._streaming = _NO_ARGUMENTS, [], False


_NO_ARGUMENTS = Tokens(0)

_NEXT: dict[Sending, Callable[[Intake], tuple[Event | None, bool]]] = {
    Sending.LINE: Intake._next_line,
    Sending.ARGUMENT: Intake._next_argument,
    Sending.MESSAGE_ASKED: Intake._next_nothing,
    Sending.MESSAGE: Intake._next_message,
    Sending.SWALLOWED: Intake._next_swallowed,
    Sending.SASL: Intake._next_sasl,
    Sending.IDLE: Intake._next_idle,
    Sending.NOTHING: Intake._next_nothing,
}


def parsed(tag: bytes, line: bytes, limits: Limits, commands: Table, utf8: bool) -> Complete | MessageBegins:
    """Read a command that a plugin wrote, as if the client had said it.

    :param line: without tag and CRLF; of a command with a message, up to its announcement
    :raise ClientProtocolError: it is none
    """
    intake = Intake(limits, commands)
    intake.authenticated, intake.utf8 = True, utf8
    intake.feed(b"%b %b\r\n" % (tag, line))
    event = intake.next()
    while type(event) is Prompt:
        event = intake.next()
    if isinstance(event, Complete | MessageBegins) and not len(intake):
        return event
    raise ClientProtocolError(event.text if isinstance(event, Refused) else "not one whole command")
