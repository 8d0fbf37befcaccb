"""What upstream sends, where it is watched: plugins are asked about it, and a witness sees it.

A question stops its own side, and only that.  While a response is judged the upstream's stream stands still, at a
line's end; what has been read behind it waits here, and the client has not been sent it.  It must not know what
the client's next octets mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from imapgate.errors import UpstreamProtocolError
from imapgate.limits import MIB, Limits
from imapgate.model.commands import Table
from imapgate.model.passing import Completion, FetchItem, Mailbox, Response
from imapgate.model.reading import Reading
from imapgate.model.verdict import Disconnect, Event, Interests, Reject, Replace, Verdict
from imapgate.session.deeds import Place
from imapgate.session.effects import Ask, Granted, Judge, Judgement, Side
from imapgate.session.intake import Intake
from imapgate.session.outbox import Outbox
from imapgate.session.relay import Relay
from imapgate.session.responses import STATUS, WORD, keyword, mailbox_of
from imapgate.session.states import Head
from imapgate.session.witness import Witness
from imapgate.wire.scanner import LINE, LITERAL, TEXT

_RESPONSE_MOST = 4 * MIB
_NUMBERED = frozenset(("EXISTS", "RECENT", "EXPUNGE"))

Then = Callable[[Verdict], None]


class WatchedAnswers(Relay):
    """A relay of which somebody sees what upstream sends."""

    __slots__ = (
        "_auditing", "_by", "_concludes", "_considered", "_gathered", "_interests", "_items", "_looks", "_notes",
        "_numbered", "_skimmed", "_skims", "_then", "_unread", "_witness", "dismissed",
    )  # fmt: skip

    def __init__(self, out: Outbox, intake: Intake, limits: Limits, table: Table, granted: Granted) -> None:
        super().__init__(out, intake, limits, table, granted)
        self._interests = granted.interests or Interests()
        self._auditing = granted.auditing
        self._numbered = self._interests.responses & _NUMBERED
        self._concludes = bool(self._interests.completions or self._interests.events)  # somebody judges completions
        self._items: deque[FetchItem] = deque()  # that nobody was asked about yet
        wanted = self._interests._replace(verbs=None, capabilities=False, message=0)
        self._looks = granted.auditing is not None or wanted != Interests(verbs=None)
        told = self._items.append if self._interests.fetch else None
        self._witness = Witness(out, granted.auditing, told, looks=self._looks)
        self._up.witness = self._witness
        out.durable = granted.auditing is not None and granted.auditing.durable
        self._then: dict[Side, Then] = {}  # what follows from the verdict that is awaited
        self._by = ""  # whose verdict it is
        self._considered: Reading | None = None  # the client's command that is judged
        self._notes: dict[str, object] = {}  # what is to be recorded of it
        self._unread: deque[tuple[int, bytes, bool]] = deque()  # pieces, and whether a line's start is behind them
        self._gathered = b""  # of a response that is read whole
        self._skims = False  # a literal flows of which nobody wants to know more than how long it is
        self._skimmed = 0  # octets of it that nobody was told of yet
        self.dismissed = b""
        granted.link.scanner.fine = self._looks

    @property
    def place(self) -> Place | None:  # type: ignore[override]
        """The selected mailbox."""
        return self._witness.place

    @property
    def _owed(self) -> int:
        up = self._up
        owed = len(up.flights) + len(up.queue) + len(self._deferred)
        return owed + len(self._then) + len(self._unread) if self._then or self._unread else owed

    @property
    def mid_response(self) -> bool:
        """Whether the client has been sent part of a response: more may have been read than it was sent."""
        return not self._out.whole if self._looks else super().mid_response

    @property
    def awaits_upstream(self) -> bool:
        """Whether it is upstream's turn to speak."""
        return not self._unread and Side.UPSTREAM not in self._then and super().awaits_upstream

    def leased(self, granted: Granted) -> None:
        """There is a connection again."""
        granted.link.scanner.fine = self._looks
        super().leased(granted)

    def let_go(self, *, broken: bool) -> None:
        """The session is over; what was in flight ended nobody knows how."""
        self._witness.skimmed(self._skimmed)
        self._witness.lost()
        super().let_go(broken=broken or bool(self._unread))

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
        parse: Callable[[bytes], Reading | Response] | None = None,
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

    def _denied(self, reading: Reading | None, rule: str) -> None:
        if self._auditing is not None:
            notes = {} if reading is None else self._notes
            self._witness.refused(reading, {**notes, "policy.plugin": self._by, "policy.rule": rule})

    # --- what upstream sends ----------------------------------------------------------------------------

    def passes(self, data: bytes) -> bool:
        """Whether this is wholly inside a literal for the client, and nobody else's; then it is taken."""
        if not self._looks:
            return super().passes(data)
        if not self._skims or not super().passes(data):
            return False
        self._skimmed += len(data)
        return True

    def read(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Take what a scanner made of what upstream sent, as far as nobody has to be asked first."""
        if not self._looks:
            super().read(pieces)
            return
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
        begins, self._out.whole = self._out.whole, whole
        if self._skimmed:
            self._witness.skimmed(self._skimmed)
            self._skimmed = 0
        self._skims = False
        if self._gathered:
            self._gather(kind, piece, whole)
        elif kind == LITERAL:
            self._skims = self._witness.literal(piece)
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
        numbered = self._numbered
        word = b""
        if numbered:
            piece, whole = self._first_line(piece, whole)
            words = piece.split(None, 3) if begins else ()
            word = words[2].upper() if len(words) == 3 else b""
        shown = self._witness.text(piece, whole)
        if numbered and word.decode("ascii", "replace") in numbered:
            self._response(word, shown)
        elif shown:
            self._out.client(shown)

    def _first_line(self, piece: bytes, whole: bool) -> tuple[bytes, bool]:
        """The first line of a text, the others to be read next; a text ends where a literal is announced."""
        end = piece.find(b"\n") + 1 or len(piece)
        if end < len(piece):
            self._unread.appendleft((TEXT, piece[end:], whole))
            self._out.whole = whole = True
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
        self._ask(Side.UPSTREAM, "untagged", (response,), partial(self._response_judged, line), _replacement)

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
        if begun is None or not self._concludes:
            self._witness.tell()
            self._out.client(line)
            return
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


def _replacement(line: bytes) -> Response:
    """Read what a plugin would put in a response's place.

    :raise ValueError: it is none.
    """
    whole = b"* %b\r\n" % line
    number, *words = line.split(None, 2) or (b"",)
    word = words[0].upper() if words and number.isdigit() else keyword(whole)
    if word == b"PREAUTH" or word.isdigit() or not WORD.match(word):
        raise ValueError("no untagged response, such as 3 EXISTS")
    return Response(word.decode("ascii"), line, mailbox_of(word, whole))


def _completion(line: bytes) -> Completion:
    found = STATUS.match(line)
    assert found is not None
    code = b"" if found[3] is None else found[3] + (b" " + found[4] if found[4] else b"")
    return Completion(
        *(each.decode("ascii", "replace") for each in (found[2].upper(), code, line[found.end() :].strip()))
    )
