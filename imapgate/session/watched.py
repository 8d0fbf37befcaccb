"""A relay whose passage is watched: plugins are asked about it, and what was done is recorded.

A question stops its own side, and only that: while a command is judged the client is not heard, while a
response is judged the upstream's stream stands still, at a line's end.  So the order of everything stays
what it was, however long an answer takes (THREATS A26).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from imapgate.errors import ClientProtocolError, UpstreamProtocolError
from imapgate.limits import MIB, Limits
from imapgate.model.commands import Table
from imapgate.model.passing import Completion, FetchItem, Mailbox, Message, Response
from imapgate.model.reading import Reading
from imapgate.model.verdict import CONTINUE, Answer, Disconnect, Event, Interests, Reject, Replace, Verdict
from imapgate.session import intake as takes
from imapgate.session.deeds import Place
from imapgate.session.effects import Ask, Close, Granted, Judge, Judgement, Reason, Side
from imapgate.session.intake import Intake
from imapgate.session.outbox import Outbox
from imapgate.session.relay import Relay
from imapgate.session.responses import STATUS, keyword, mailbox_of
from imapgate.session.states import Head
from imapgate.session.witness import Witness
from imapgate.wire.scanner import LINE, LITERAL, TEXT

UNRECORDED = "[UNAVAILABLE] The audit trail cannot be written, and nothing is done unrecorded"
_RESPONSE_MOST = 4 * MIB
_NUMBERED = frozenset(("EXISTS", "RECENT", "EXPUNGE"))
_HARMLESS = frozenset((b"LOGOUT", b"CAPABILITY", b"NOOP", b"ID", b"IDLE", b"UNSELECT"))
"""What may be done though nothing can be recorded."""

Then = Callable[[Verdict], None]


class WatchedRelay(Relay):
    """One client's commands, where plugins or the audit trail want to know of them."""

    __slots__ = (
        "_auditing", "_by", "_considered", "_cut", "_gathered", "_interests", "_items", "_message", "_messages", "_notes",
        "_seen", "_table", "_then", "_to", "_unread", "_whole", "_witness", "dismissed",
    )  # fmt: skip

    def __init__(self, out: Outbox, intake: Intake, limits: Limits, table: Table, granted: Granted) -> None:
        super().__init__(out, intake, limits, table, granted)
        self._table = table
        self._interests = granted.interests or Interests()
        self._auditing = granted.auditing
        self._items: deque[FetchItem] = deque()  # that nobody was asked about yet
        self._witness = Witness(out, granted.auditing, self._items.append if self._interests.fetch else None)
        self._up.witness = self._witness
        out.durable = granted.auditing is not None and granted.auditing.durable
        self._then: dict[Side, Then] = {}  # what follows from the verdict that is awaited
        self._by = ""  # whose verdict it is
        self._considered: Reading | None = None  # the command that is judged
        self._notes: dict[str, object] = {}  # what is to be recorded of it
        self._unread: deque[tuple[int, bytes, bool]] = deque()  # pieces, and whether a line's start is behind them
        self._whole = True  # and whether one is behind what the client was sent
        self._gathered = b""  # of a response that is read whole
        self._message: Message | None = None  # that flows, and that somebody looks at
        self._messages = 0  # of the command under way
        self._seen = 0  # octets of the message that they saw
        self._to = ""  # where the messages of the command under way go
        self._cut: bytes | None = None  # how the command is answered whose message was refused in its middle
        self.dismissed = b""
        granted.link.scanner.fine = True

    @property
    def place(self) -> Place | None:  # type: ignore[override]
        """The selected mailbox."""
        return self._witness.place

    @property
    def _owed(self) -> int:
        return super()._owed + len(self._then) + len(self._unread)

    @property
    def mid_response(self) -> bool:
        """Whether the client has been sent part of a response: more may have been read than it was sent."""
        return not self._whole

    @property
    def awaits_upstream(self) -> bool:
        """Whether it is upstream's turn to speak."""
        return not self._unread and Side.UPSTREAM not in self._then and super().awaits_upstream

    @property
    def waiting(self) -> Reason | None:
        """Why no more of the client's input can be taken."""
        return Reason.VERDICT if Side.CLIENT in self._then else super().waiting

    def leased(self, granted: Granted) -> None:
        """There is a connection again."""
        granted.link.scanner.fine = True
        super().leased(granted)

    def let_go(self, *, broken: bool) -> None:
        """The session is over; what was in flight ended nobody knows how."""
        self._witness.lost()
        super().let_go(broken=broken or self._cut is not None or bool(self._unread))

    def _settle(self) -> None:
        if not self._then and not self._unread:
            super()._settle()

    # --- asking -----------------------------------------------------------------------------------------

    def _ask(
        self,
        side: Side,
        hook: str,
        arguments: tuple[object, ...],
        then: Then,
        parse: Callable[[bytes], Reading] | None = None,
    ) -> None:
        self._then[side] = then
        self._out.effect(Ask(Judge(side, hook, arguments, parse)))

    def judged(self, judgement: Judgement) -> None:
        """The plugins have said what becomes of it."""
        then = self._then.pop(judgement.side, None)
        if then is None:
            return
        if judgement.notes:
            self._note(judgement.side, {f"note.{key}": value for key, value in judgement.notes.items()})
        verdict, self._by = judgement.verdict, judgement.by
        if isinstance(verdict, Disconnect):
            self._denied(self._considered if judgement.side is Side.CLIENT else None, verdict.rule)
            self.dismissed = verdict.text.encode()
            return
        then(verdict)
        if judgement.side is Side.UPSTREAM:
            self._go_on()
        elif not self.finished:
            self._settle()

    def _note(self, side: Side, fields: Mapping[str, object]) -> None:
        """Have this recorded of the command that it belongs to."""
        if side is Side.CLIENT and self._up.head is not Head.FLOWING:
            self._notes.update(fields)
        else:
            self._witness.note(self._up.head_tag if side is Side.CLIENT else b"", fields)

    # --- what the client sends --------------------------------------------------------------------------

    def take(self, event: takes.Event) -> None:
        """Take what the client sent: first see whether it may be done at all, then ask."""
        if isinstance(event, takes.Complete):
            if self._allows(event):
                self._consider(event, Reading(event.command, utf8=self._intake.utf8))
        elif isinstance(event, takes.MessageBegins):
            self._begins(event)
        elif isinstance(event, takes.MessageData):
            self._chunk(event)
        elif isinstance(event, takes.MessageTail) and self._cut is not None:
            self._dismiss(self._cut)
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

    def _consider(self, event: takes.Complete | takes.MessageBegins, reading: Reading) -> None:
        """Have a new command judged, if anybody wants to."""
        self._message, self._intake.watched = None, False  # one that upstream did not want may still stand there
        self._considered, self._notes = reading, {}
        verbs = self._interests.verbs
        if reading.verb == "LOGOUT" or (verbs is not None and reading.verb not in verbs):
            self._approved(event, reading)
            return
        parse = partial(self._parse, event)
        self._ask(Side.CLIENT, "command", (reading,), partial(self._command_judged, event, reading), parse)

    def _parse(self, event: takes.Complete | takes.MessageBegins, line: bytes) -> Reading:
        """Read what a plugin would put in a command's place.

        :raise ClientProtocolError: it is no command.
        """
        command = self._parsed(event, line).command
        return Reading(command, message_size=_size(event), utf8=self._intake.utf8)

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
            self._approved(event, Reading(event.command, message_size=_size(event), utf8=self._intake.utf8))
        else:
            self._approved(event, reading)

    def _denied(self, reading: Reading | None, rule: str) -> None:
        if self._auditing is not None:
            notes = {} if reading is None else self._notes
            self._witness.refused(reading, {**notes, "policy.plugin": self._by, "policy.rule": rule})

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
        reading = Reading(event.command, message_size=event.size, utf8=self._intake.utf8)
        if self._cut is not None:  # a later message of a command that is refused
            self._dismiss(self._cut)
        elif self._up.head is Head.FLOWING:
            self._consider_message(event, reading)
        elif self._allows(event):
            self._consider(event, reading)

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

    # --- what upstream sends ----------------------------------------------------------------------------

    def passes(self, data: bytes) -> bool:
        """Whether this is wholly inside a literal for the client, and nobody else's; then it is taken."""
        if self._then or self._unread or self._gathered or not super().passes(data):
            return False
        self._witness.literal(data)
        return True

    def read(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Take what a scanner made of what upstream sent, as far as nobody has to be asked first."""
        unread, scanner = self._unread, self._up.link.scanner
        try:
            for kind, piece in pieces:
                if self._up.traced:
                    self._up.trace_upstream(kind == LINE, piece)
                unread.append((kind, piece, scanner.at_line_start))
        finally:
            self._go_on()

    def _go_on(self) -> None:
        unread = self._unread
        while unread and Side.UPSTREAM not in self._then:
            self._piece(*unread.popleft())
            if self._items and Side.UPSTREAM not in self._then:
                self._ask_items()
            if self.finished:
                return
        if not unread:
            self._read_all()

    def _piece(self, kind: int, piece: bytes, whole: bool) -> None:
        if kind == LINE and self._deferred:
            self._say_deferred()
        begins, self._whole = self._whole, whole
        if self._gathered:
            self._gather(kind, piece, whole)
        elif kind == LITERAL:
            self._witness.literal(piece)
            self._out.client(piece)
        elif kind == TEXT:
            self._text(piece, whole, begins)
        elif piece.startswith(b"* "):
            self._line(piece, whole)
        elif piece.startswith(b"+"):
            if self._up.continued():
                self._out.client(piece)
        else:
            self._completed(piece)

    def _text(self, piece: bytes, whole: bool, begins: bool) -> None:
        numbered = self._interests.responses & _NUMBERED
        word = b""
        if numbered:
            piece, whole = self._first_line(piece, whole)
            words = piece.split(None, 3) if begins else ()
            word = words[2].upper() if len(words) == 3 else b""
        shown = self._witness.text(piece, whole)
        if word.decode("ascii", "replace") in numbered:
            self._response(word, shown)
        elif shown:
            self._out.client(shown)

    def _first_line(self, piece: bytes, whole: bool) -> tuple[bytes, bool]:
        """The first line of a text, the others to be read next; a text ends where a literal is announced."""
        end = piece.find(b"\n") + 1 or len(piece)
        if end < len(piece):
            self._unread.appendleft((TEXT, piece[end:], whole))
            self._whole = whole = True
        return piece[:end], whole

    def _line(self, line: bytes, whole: bool) -> None:
        word = keyword(line)
        judged = word.decode("ascii", "replace") in self._interests.responses
        if not whole and (judged or self._witness.expects(word)):
            self._gathered = line
        elif self._witness.line(word, line):
            return
        elif judged:
            self._response(word, line)
        else:
            self._untagged(line)

    def _gather(self, kind: int, piece: bytes, whole: bool) -> None:
        """Take more of a response that is read whole."""
        if kind == TEXT:
            piece, whole = self._first_line(piece, whole)
        self._gathered += piece
        if len(self._gathered) > _RESPONSE_MOST:
            raise UpstreamProtocolError(f"a response of more than {_RESPONSE_MOST} octets")
        if whole:
            line, self._gathered = self._gathered, b""
            self._line(line, True)

    def _response(self, word: bytes, line: bytes) -> None:
        response = Response(word.decode("ascii"), line[2:-2], mailbox_of(word, line))
        self._ask(Side.UPSTREAM, "untagged", (response,), partial(self._response_judged, line))

    def _response_judged(self, line: bytes, verdict: Verdict) -> None:
        if isinstance(verdict, Replace):
            line = b"* %b\r\n" % verdict.line
        if not isinstance(verdict, Reject):
            self._untagged(line)

    def _ask_items(self) -> None:
        item = self._items.popleft()
        self._ask(Side.UPSTREAM, "fetch_item", (item,), self._item_judged)

    def _item_judged(self, verdict: Verdict) -> None:
        if self._items:
            self._ask_items()

    def _answer(self, tag: bytes, outcome: bytes, line: bytes) -> None:
        """Complete a command: the plugins are asked before the client hears of it."""
        begun = self._witness.completed(tag, outcome, line)
        interests, place = self._interests, self._witness.place
        hooks: list[tuple[str, tuple[object, ...]]] = []
        if begun.selects and outcome == b"OK" and Event.SELECTED in interests.events and place is not None:
            hooks.append(("mailbox_selected", (Mailbox(place.name, place.read_only, place.uid_validity),)))
        if begun.reading.verb in interests.completions:
            hooks.append(("completed", (begun.reading, _completion(line))))
        self._ask_hooks(hooks, line)

    def _ask_hooks(self, hooks: Sequence[tuple[str, tuple[object, ...]]], line: bytes) -> None:
        if hooks:
            (hook, arguments), *rest = hooks
            self._ask(Side.UPSTREAM, hook, arguments, lambda verdict: self._ask_hooks(rest, line))
        else:
            self._witness.tell()
            self._out.client(line)


def _size(event: takes.Complete | takes.MessageBegins) -> int:
    return event.size if isinstance(event, takes.MessageBegins) else 0


def _coded(code: str, text: str) -> bytes:
    """What stands behind the completion: the code, if there is one, and the text."""
    return (f"[{code}] {text}" if code else text).encode()


def _completion(line: bytes) -> Completion:
    found = STATUS.match(line)
    assert found is not None
    code = b"" if found[3] is None else found[3] + (b" " + found[4] if found[4] else b"")
    return Completion(
        *(each.decode("ascii", "replace") for each in (found[2].upper(), code, line[found.end() :].strip()))
    )
