"""Who watches one session's commands from the moment they are sent to their completion: for the audit trail, and
for the plugins.

It sees what was asked and what came, keeps the selected mailbox, and says what was done.  Where a record
could not name the messages by UID, it has the gate ask: FETCH by number gains UID, and a command that
says by number, or not at all, which messages it changes is preceded by a question of the gate's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from imapgate.model.commands import Changes, Command, Rule
from imapgate.model.passing import FetchItem
from imapgate.model.reading import Reading
from imapgate.session.deeds import Ended, Place, deeds, number, recorded, text
from imapgate.session.delivered import Delivered
from imapgate.session.effects import Auditing, Record
from imapgate.session.outbox import Outbox
from imapgate.session.responses import STATUS
from imapgate.wire.sequence import NUMBER, UIDS
from imapgate.wire.sequence import count as count_of
from imapgate.wire.writer import Literal, quotable, quoted

_FETCHING = frozenset((b"FETCH", b"UID FETCH", b"STORE", b"UID STORE"))
"""Commands that are answered by FETCH responses, which say of none whose they are: one at a time."""
_EXPUNGING = frozenset((b"EXPUNGE", b"UID EXPUNGE"))
_BY_NUMBER = frozenset((b"STORE", b"COPY", b"MOVE", b"REPLACE"))
_BY_UID = frozenset((b"UID STORE", b"UID COPY", b"UID MOVE"))
_VAGUE = re.compile(rb"[:*$]")
"""A set of UIDs with this in it may name messages that are not there."""
_PRECEDED = _EXPUNGING | _BY_NUMBER | _BY_UID | {b"CLOSE"}
"""Commands that may need a question of the gate's own before them."""
_OWN = re.compile(rb"^\* [0-9]+ FETCH \(UID (%b)\)\r\n" % NUMBER, re.IGNORECASE | re.MULTILINE)
_CODE = re.compile(rb"\S+ [A-Z]+ \[([A-Z-]+)(?: ([^\]]*))?\]", re.IGNORECASE)
_COUNT = re.compile(rb"\bCOUNT (%b)" % NUMBER, re.IGNORECASE)
_ALL = re.compile(rb"\bALL (%b)" % UIDS, re.IGNORECASE)
_FOUND = frozenset((b"SEARCH", b"SORT", b"THREAD", b"ESEARCH"))
_SEARCHING = frozenset(word.decode("ascii") for word in _FOUND)
_OUTCOMES = {b"OK": "ok", b"NO": "no", b"BAD": "bad"}
_SAID = frozenset((b"OK", b"NO", b"BAD"))
_ESEARCH_TAG = re.compile(rb'\* ESEARCH \(TAG "?([^ ")]+)', re.IGNORECASE)
_GONE = re.compile(rb"\* VANISHED (%b)\r\n" % UIDS, re.IGNORECASE)
_HELD_MOST = 64 * 1024


class Begun:
    """A command that upstream has."""

    __slots__ = (
        "codes", "delivered", "expunged", "found", "known", "messages", "notes", "number", "outcome", "place",
        "reading", "seconds", "size",
    )  # fmt: skip

    def __init__(self, number: int, reading: Reading, seconds: float, place: Place | None) -> None:
        self.number = number
        self.reading = reading
        self.seconds = seconds
        self.place = place
        self.delivered: Delivered | None = None
        self.codes: dict[bytes, bytes] = {}
        self.known: tuple[int, ...] | None = None
        self.expunged = self.found = 0
        self.size = reading.message_size
        self.messages = 0 if reading.command.rule.message_after is None else 1
        self.outcome = "unknown"
        self.notes: Mapping[str, object] = {}

    @property
    def selects(self) -> bool:
        """Whether it is there to select a mailbox."""
        return self.reading.command.rule.changes is Changes.SELECTS

    def ended(self) -> Ended:
        """What is known of it at its end."""
        delivery = None if self.delivered is None else self.delivered.delivery
        return Ended(
            self.reading, self.outcome == "ok", self.place, delivery, self.codes, self.known, self.expunged,
            self.found, self.size, self.messages,
        )  # fmt: skip


class Witness:
    """Watches one session.

    :param auditing: ``None``: nothing is recorded
    :param told: called with each message of a FETCH response
    :param looks: somebody wants to know of every command, not only of what is selected
    :ivar place: the selected mailbox
    :ivar notes: what the plugins want to be recorded of commands that wait, by the client's tag
    """

    __slots__ = (
        "_auditing",
        "_begun",
        "_ended",
        "_expunging",
        "_fetching",
        "_held",
        "_known",
        "_looks",
        "_number",
        "_out",
        "_querying",
        "_shows_uids",
        "_told",
        "notes",
        "place",
    )  # fmt: skip

    def __init__(
        self,
        out: Outbox,
        auditing: Auditing | None,
        told: Callable[[FetchItem], None] | None = None,
        *,
        looks: bool = True,
    ) -> None:
        self._out = out
        self._auditing = auditing
        self._told = told
        self._looks = looks
        self._number = 0
        self._begun: dict[bytes, Begun] = {}
        self._fetching: Begun | None = None
        self._expunging: Begun | None = None
        self._ended: Begun | None = None  # that is completed, and not recorded yet
        self._querying = False
        self._known: list[int] = []
        self._held = b""  # of a line that may answer the gate's own question
        self._shows_uids = False  # the client gets UIDs unasked, and counts on them
        self.place: Place | None = None
        self.notes: dict[bytes, Mapping[str, object]] = {}

    # --- commands ---------------------------------------------------------------------------------------

    def mixes(self, rule: Rule, flying: Iterable[Rule]) -> bool:
        """Whether a command has to wait for those in flight.

        Its answers could be taken for theirs, or it is not known yet in which mailbox it will be done.
        """
        if self._auditing is None and self._told is None:
            return False
        fetching = rule.verb in _FETCHING
        return any(other.changes is not Changes.NOTHING or (fetching and other.verb in _FETCHING) for other in flying)

    def query(self, command: Command) -> bytes | None:
        """What the gate has to ask first, to know which messages this command concerns."""
        verb = command.rule.verb
        if verb not in _PRECEDED or self._auditing is None or self.place is None:
            return None
        if verb in _BY_NUMBER:
            return b"FETCH %b (UID)" % Reading(command).sequence
        if verb in _BY_UID:
            uids = Reading(command).sequence
            return b"UID SEARCH UID %b" % uids if _VAGUE.search(uids) else None
        if verb == b"UID EXPUNGE":
            return b"UID SEARCH UID %b DELETED" % Reading(command).sequence
        return None if verb == b"CLOSE" and self.place.read_only else b"UID SEARCH DELETED"

    def ask(self) -> None:
        """The question has been sent."""
        self._querying, self._known = True, []

    def answered(self, *, ok: bool) -> None:
        """It has been answered; if not well, nobody knows which messages they are."""
        self._querying = ok

    def begin(self, tag: bytes, command: Command, size: int = 0) -> Command:
        """A command goes upstream under this tag; return it as it is to go."""
        verb, auditing = command.rule.verb, self._auditing
        if not self._looks and command.rule.changes is Changes.NOTHING:
            return command
        self._number += 1
        reading = Reading(command, message_size=size)
        begun = Begun(self._number, reading, 0.0 if auditing is None else auditing.seconds(), self.place)
        begun.notes = self.notes.pop(command.tag, begun.notes)
        self._begun[tag] = begun
        if self._querying:
            begun.known, self._querying = tuple(self._known), False
        if verb in _EXPUNGING:
            self._expunging = begun
        if verb in _FETCHING and (auditing is not None or self._told is not None):
            self._fetching = begun
            return self._fetch(begun, command)
        return command

    def _fetch(self, begun: Begun, command: Command) -> Command:
        reading, auditing = begun.reading, self._auditing
        items = reading.items
        added = False
        if auditing is not None and command.rule.verb == b"FETCH" and "UID" not in items:
            asked, command = command, with_uid(command)
            added = command is not asked and not self._shows_uids
        subjects = auditing is not None and auditing.subjects
        begun.delivered = Delivered(items, added=added, subjects=subjects, told=self._told)
        return command

    def more(self, tag: bytes, size: int) -> None:
        """The command has another message."""
        begun = self._begun.get(tag)
        if begun is not None:
            begun.size += size
            begun.messages += 1

    def resumed(self, tag: bytes, anew: bytes) -> None:
        """IDLE was begun anew, under another tag."""
        if tag in self._begun:
            self._begun[anew] = self._begun.pop(tag)

    def note(self, tag: bytes, fields: Mapping[str, object]) -> None:
        """Have this recorded of the command with this upstream tag; empty: of the one whose answers pass."""
        if tag:
            begun = self._begun.get(tag)
        else:
            begun = self._ended or self._fetching or next(iter(self._begun.values()), None)
        if begun is not None:
            begun.notes = {**begun.notes, **fields}

    def refused(self, reading: Reading | None, fields: Mapping[str, object]) -> None:
        """A command was not sent at all, or (``None``) the session is ended for what upstream has sent."""
        if reading is not None:
            self._number += 1
            fields = {**_command(self._number, reading), **self._mailbox(reading), **fields}
        self._out.record(Record("policy.deny", "denied", fields))

    def denied(self, tag: bytes, fields: Mapping[str, object]) -> None:
        """A command was given up while it was sent."""
        begun = self._begun.pop(tag, None)
        if self._auditing is not None and begun is not None:
            fields = {**_command(begun.number, begun.reading), **self._mailbox(begun.reading), **fields}
            self._out.record(Record("policy.deny", "denied", fields))

    def _mailbox(self, reading: Reading) -> dict[str, object]:
        names = reading.mailboxes or reading.patterns
        if names:
            return {"mailbox.name": names[0]}
        return {} if self.place is None else {"mailbox.name": self.place.name}

    # --- responses --------------------------------------------------------------------------------------

    def text(self, piece: bytes, whole: bool) -> bytes:
        """Text passes that is no line of its own; return it as the client is to see it."""
        if self._querying:
            piece = self._without_own(piece, whole)
        if self._expunging is not None:
            self._expunging.expunged += piece.count(b" EXPUNGE\r\n")
        fetching = self._fetching
        if fetching is None or fetching.delivered is None:
            return piece
        return fetching.delivered.text(piece, whole)

    def _without_own(self, piece: bytes, whole: bool) -> bytes:
        """Take the answers to the gate's own question out, which may come in parts."""
        piece, self._held = self._held + piece, b""
        if not whole and not piece.endswith(b"\n") and len(piece) < _HELD_MOST:
            end = piece.rfind(b"\n") + 1
            piece, self._held = piece[:end], piece[end:]
        self._known += [int(uid) for uid in _OWN.findall(piece)]
        return _OWN.sub(b"", piece)

    def skimmed(self, octets: int) -> None:
        """So many octets of a literal have passed, behind its first ones."""
        if self._fetching is not None and self._fetching.delivered is not None:
            self._fetching.delivered.skimmed(octets)

    def literal(self, data: bytes) -> bool:
        """Octets of a literal pass; tell whether those behind them need only be counted."""
        if self._fetching is not None and self._fetching.delivered is not None:
            return self._fetching.delivered.literal(data)
        return True

    def line(self, word: bytes, line: bytes) -> bool:
        """An untagged line passes; tell whether it answers the gate's own question, and is not for the client."""
        if word in _FOUND:
            return self._searched(word, line)
        if word == b"VANISHED":
            self._vanished(line)
        elif word == b"ENABLED":
            self._shows_uids |= b"QRESYNC" in line.upper()
        elif word in _SAID:
            found = _CODE.match(line)
            if found is not None:
                code = found[1].upper()
                for begun in self._begun.values():
                    begun.codes[code] = found[2] or b""
        return False

    def _vanished(self, line: bytes) -> None:
        """What EXPUNGE is answered with where QRESYNC is on (RFC 7162 §3.2.10)."""
        found = _GONE.match(line)
        if self._expunging is not None and found is not None:
            self._expunging.expunged += count_of(found[1])

    def _searched(self, word: bytes, line: bytes) -> bool:
        if self._querying and word == b"SEARCH":
            self._known += [uid for uid in map(number, line.split()[2:]) if uid]
            return True
        searching = (begun for begun in self._begun.values() if begun.reading.name in _SEARCHING)
        tag = _ESEARCH_TAG.match(line)
        begun = next(searching, None) if tag is None else self._begun.get(tag[1])  # one without a tag is the oldest's
        if begun is not None:
            begun.found += _found(word, line)
        return False

    def expects(self, word: bytes) -> bool:
        """Whether a line of this word answers the gate's own question, and must be read whole."""
        return self._querying and word == b"SEARCH"

    def completed(self, tag: bytes, outcome: bytes, line: bytes) -> Begun | None:
        """A command is completed; :meth:`tell` records it."""
        begun = self._begun.pop(tag, None)
        if begun is None:  # one of those that nobody wants to know of
            return None
        status = STATUS.match(line) if b"[" in line else None
        if status is not None and status[3] is not None:
            begun.codes[status[3].upper()] = status[4] or b""
        if begun is self._fetching:
            self._fetching = None
        elif begun is self._expunging:
            self._expunging = None
        self._ended, begun.outcome = begun, _OUTCOMES[outcome]
        if begun.reading.command.rule.changes is not Changes.NOTHING:
            self._moved(begun, outcome == b"OK")
        return begun

    def tell(self) -> None:
        """Record what was completed."""
        if self._ended is not None:
            self._record(self._ended)
            self._ended = None

    def _moved(self, begun: Begun, ok: bool) -> None:
        changes, reading = begun.reading.command.rule.changes, begun.reading
        if changes is Changes.SELECTS:
            self.place = None
            if ok:
                validity = number(begun.codes.get(b"UIDVALIDITY", b""))
                self.place = Place(
                    reading.mailboxes[0], text(reading.mailbox_raw), validity,
                    reading.verb == "EXAMINE" or b"READ-ONLY" in begun.codes,
                )  # fmt: skip
        elif changes is Changes.DESELECTS and ok:
            self.place = None

    def lost(self) -> None:
        """What is in flight will never be answered here."""
        self.tell()
        for begun in self._begun.values():
            self._record(begun)
        self._begun.clear()
        self._fetching = self._expunging = None

    def _record(self, begun: Begun) -> None:
        auditing = self._auditing
        if auditing is None or not recorded(begun.reading.command.rule.verb):
            return
        common: dict[str, object] = _command(begun.number, begun.reading)
        common["duration"] = round(auditing.seconds() - begun.seconds, 6)
        common |= begun.notes
        for event, fields in deeds(begun.ended(), auditing):
            self._out.record(Record(event, begun.outcome, {**common, **fields}))


def _command(number: int, reading: Reading) -> dict[str, object]:
    return {"command.id": number, "command.tag": text(reading.command.tag), "command.verb": reading.verb}


def _found(word: bytes, line: bytes) -> int:
    """How many messages a line of results has."""
    if word == b"ESEARCH":
        count = _COUNT.search(line)
        if count is not None:
            return int(count[1])
        every = _ALL.search(line)
        return 0 if every is None else count_of(every[1])
    if word == b"THREAD":
        return len(re.findall(rb"[0-9]+", line))
    return sum(item.isdigit() for item in line.partition(b"(")[0].split()[2:])


_MACROS = {
    b"ALL": b"FLAGS INTERNALDATE RFC822.SIZE ENVELOPE",
    b"FAST": b"FLAGS INTERNALDATE RFC822.SIZE",
    b"FULL": b"FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY",
}
_ITEMS = re.compile(rb' ([^ ]+) (?:\(|([^ \[(]+(?:\[(?:[^\]"]|"(?:[^"\\]|\\.)*+")*+\](?:<[0-9.]+>)?)?)(?= |\Z))')


def with_uid(command: Command) -> Command:
    """A FETCH that asks for UID, too, before all else; the same where its items cannot be told from the rest."""
    count, head = 0, b""
    for part in command.parts:
        if isinstance(part, Literal):
            if part.binary or not quotable(part.content):
                break
            part = quoted(part.content)
        count, head = count + 1, head + part
    found = _ITEMS.match(head)
    if found is None:
        return command
    item = found[2]
    items = b"(UID " if item is None else b"(UID %b)" % _MACROS.get(item.upper(), item)
    return command._replace(parts=(b" %b %b%b" % (found[1], items, head[found.end() :]), *command.parts[count:]))
