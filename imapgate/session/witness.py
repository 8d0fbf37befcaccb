"""Who watches one session's commands from the moment they are sent to their completion: for the audit trail, and
for the plugins.

It sees what was asked and what came, keeps the selected mailbox, and says what was done.  Where a record
could not name the messages by UID, it has the gate ask: FETCH by number gains UID, and a command that
says by number, or not at all, which messages it changes is preceded by a question of the gate's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from imapgate.model.commands import Changes, Command
from imapgate.model.passing import FetchItem
from imapgate.model.reading import Reading
from imapgate.session.deeds import Ended, Place, deeds, recorded, text
from imapgate.session.delivered import Delivered
from imapgate.session.effects import Auditing, Record
from imapgate.session.outbox import Outbox
from imapgate.session.responses import STATUS
from imapgate.wire.sequence import count as count_of
from imapgate.wire.writer import Literal

_FETCHING = frozenset((b"FETCH", b"UID FETCH", b"STORE", b"UID STORE"))
"""Commands that are answered by FETCH responses, which say of none whose they are: one at a time."""
_BY_NUMBER = frozenset((b"STORE", b"COPY", b"MOVE", b"REPLACE"))
_MARKED = {b"EXPUNGE": b"UID SEARCH DELETED", b"CLOSE": b"UID SEARCH DELETED"}
_OWN = re.compile(rb"\* [0-9]+ FETCH \(UID ([0-9]+)\)\r\n", re.IGNORECASE)
_CODE = re.compile(rb"\S+ [A-Z]+ \[([A-Z-]+)(?: ([^\]]*))?\]", re.IGNORECASE)
_COUNT = re.compile(rb"\bCOUNT ([0-9]+)", re.IGNORECASE)
_ALL = re.compile(rb"\bALL ([0-9:,]+)", re.IGNORECASE)
_FOUND = frozenset((b"SEARCH", b"SORT", b"THREAD", b"ESEARCH"))


class Begun:
    """A command that upstream has."""

    __slots__ = (
        "codes", "delivered", "expunged", "found", "known", "messages", "notes", "number", "place", "reading",
        "seconds", "size",
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
        self.messages = 1 if reading.message_size else 0
        self.notes: Mapping[str, object] = {}

    @property
    def selects(self) -> bool:
        """Whether it is there to select a mailbox."""
        return self.reading.command.rule.changes is Changes.SELECTS

    def ended(self, ok: bool) -> Ended:
        """It has ended."""
        delivery = None if self.delivered is None else self.delivered.delivery
        return Ended(
            self.reading, ok, self.place, delivery, self.codes, self.known, self.expunged, self.found, self.size,
            self.messages,
        )  # fmt: skip


class Witness:
    """Watches one session.

    :param auditing: ``None``: nothing is recorded
    :param told: called with each message of a FETCH response
    :ivar place: the selected mailbox
    :ivar notes: what the plugins want to be recorded of the command that is begun next
    """

    __slots__ = (
        "_auditing", "_begun", "_fetching", "_known", "_number", "_out", "_querying", "_told", "notes", "place",
    )  # fmt: skip

    def __init__(self, out: Outbox, auditing: Auditing | None, told: Callable[[FetchItem], None] | None = None) -> None:
        self._out = out
        self._auditing = auditing
        self._told = told
        self._number = 0
        self._begun: dict[bytes, Begun] = {}
        self._fetching: Begun | None = None
        self._querying = False
        self._known: list[int] = []
        self.place: Place | None = None
        self.notes: Mapping[str, object] = {}

    # --- commands ---------------------------------------------------------------------------------------

    def mixes(self, verb: bytes, flying: Iterable[bytes]) -> bool:
        """Whether the answers of this command could be taken for those of one that is in flight."""
        return verb in _FETCHING and not _FETCHING.isdisjoint(flying)

    def query(self, command: Command) -> bytes | None:
        """What the gate has to ask first, to know which messages this command concerns."""
        verb = command.rule.verb
        if self._auditing is None or self.place is None:
            return None
        if verb in _BY_NUMBER:
            return b"FETCH %b (UID)" % Reading(command).sequence
        if verb == b"UID EXPUNGE":
            return b"UID SEARCH UID %b DELETED" % Reading(command).sequence
        if verb == b"CLOSE" and self.place.read_only:
            return None
        return _MARKED.get(verb)

    def ask(self) -> None:
        """The question has been sent."""
        self._querying, self._known = True, []

    def begin(self, tag: bytes, command: Command, size: int = 0) -> Command:
        """A command goes upstream under this tag; return it as it is to go."""
        verb, auditing = command.rule.verb, self._auditing
        self._number += 1
        reading = Reading(command, message_size=size)
        begun = Begun(self._number, reading, 0.0 if auditing is None else auditing.seconds(), self.place)
        begun.notes, self.notes = self.notes, {}
        self._begun[tag] = begun
        if self._querying:
            begun.known, self._querying = tuple(self._known), False
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
            added = command is not asked
        subjects = auditing is not None and auditing.subjects
        begun.delivered = Delivered(items, added=added, subjects=subjects, told=self._told)
        return command

    def more(self, tag: bytes, size: int) -> None:
        """The command has another message."""
        begun = self._begun[tag]
        begun.size += size
        begun.messages += 1

    def refused(self, reading: Reading, outcome: str, fields: Mapping[str, object]) -> None:
        """A command was not sent at all."""
        self._number += 1
        fields = {**_command(self._number, reading), **self._mailbox(reading), **fields}
        self._out.record(Record("policy.deny", outcome, fields))

    def denied(self, tag: bytes, fields: Mapping[str, object]) -> None:
        """A command was given up while it was sent."""
        begun = self._begun.pop(tag)
        fields = {**_command(begun.number, begun.reading), **self._mailbox(begun.reading), **fields}
        if self._auditing is not None:
            self._out.record(Record("policy.deny", "denied", fields))

    def _mailbox(self, reading: Reading) -> dict[str, object]:
        names = reading.mailboxes or reading.patterns
        if names:
            return {"mailbox.name": names[0]}
        return {} if self.place is None else {"mailbox.name": self.place.name}

    # --- responses --------------------------------------------------------------------------------------

    def text(self, piece: bytes, whole: bool) -> bytes:
        """Text passes that is no line of its own; return it as the client is to see it."""
        if self._querying and piece.startswith(b"* ") and b" FETCH (UID " in piece:
            self._known += [int(uid) for uid in _OWN.findall(piece)]
            piece = _OWN.sub(b"", piece)
        for begun in self._begun.values():
            if begun.reading.name == "EXPUNGE":
                begun.expunged += piece.count(b" EXPUNGE\r\n")
        fetching = self._fetching
        if fetching is None or fetching.delivered is None:
            return piece
        return fetching.delivered.text(piece, whole)

    def literal(self, data: bytes) -> None:
        """Octets of a literal pass."""
        if self._fetching is not None and self._fetching.delivered is not None:
            self._fetching.delivered.literal(data)

    def line(self, word: bytes, line: bytes) -> bool:
        """An untagged line passes; tell whether it answers the gate's own question, and is not for the client."""
        if word in _FOUND:
            return self._searched(word, line)
        found = _CODE.match(line)
        if found is not None:
            code = found[1].upper()
            for begun in self._begun.values():
                begun.codes[code] = found[2] or b""
        return False

    def _searched(self, word: bytes, line: bytes) -> bool:
        if self._querying and word == b"SEARCH":
            self._known += [int(uid) for uid in line.split()[2:] if uid.isdigit()]
            return True
        for begun in self._begun.values():
            if begun.reading.name in ("SEARCH", "SORT", "THREAD", "ESEARCH"):
                begun.found += _found(word, line)
        return False

    def expects(self, word: bytes) -> bool:
        """Whether a line of this word answers the gate's own question, and must be read whole."""
        return self._querying and word == b"SEARCH"

    def completed(self, tag: bytes, outcome: bytes, line: bytes) -> Begun:
        """A command is completed."""
        begun = self._begun.pop(tag)
        status = STATUS.match(line)
        if status is not None and status[3] is not None:
            begun.codes[status[3].upper()] = status[4] or b""
        if begun is self._fetching:
            self._fetching = None
        self._record(begun, outcome.decode("ascii").lower())
        self._moved(begun, outcome == b"OK")
        return begun

    def _moved(self, begun: Begun, ok: bool) -> None:
        changes, reading = begun.reading.command.rule.changes, begun.reading
        if changes is Changes.SELECTS:
            self.place = None
            if ok:
                validity = begun.codes.get(b"UIDVALIDITY", b"")
                self.place = Place(
                    reading.mailboxes[0], text(reading.mailbox_raw), int(validity) if validity.isdigit() else 0,
                    reading.verb == "EXAMINE" or b"READ-ONLY" in begun.codes,
                )  # fmt: skip
        elif changes is Changes.DESELECTS and ok:
            self.place = None

    def lost(self) -> None:
        """What is in flight will never be answered here."""
        for begun in self._begun.values():
            self._record(begun, "unknown")
        self._begun.clear()
        self._fetching = None

    def _record(self, begun: Begun, outcome: str) -> None:
        auditing = self._auditing
        if auditing is None or not (recorded(begun.reading.name) or begun.notes):
            return
        common: dict[str, object] = _command(begun.number, begun.reading)
        common["duration"] = round(auditing.seconds() - begun.seconds, 6)
        common |= begun.notes
        for event, fields in deeds(begun.ended(outcome == "ok"), auditing):
            self._out.record(Record(event, outcome, {**common, **fields}))


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
_ITEMS = re.compile(rb" ([^ ]+) (?:\(|([^ \[(]+(?:\[[^\]]*\](?:<[0-9.]+>)?)?)(?= |\Z))")


def with_uid(command: Command) -> Command:
    """A FETCH that asks for UID, too, before all else; the same where its items cannot be told from the rest."""
    count = next((at for at, part in enumerate(command.parts) if isinstance(part, Literal)), len(command.parts))
    head = b"".join(command.parts[:count])  # type: ignore[arg-type]
    found = _ITEMS.match(head)
    if found is None:
        return command
    item = found[2]
    items = b"(UID " if item is None else b"(UID %b)" % _MACROS.get(item.upper(), item)
    return command._replace(parts=(b" %b %b%b" % (found[1], items, head[found.end() :]), *command.parts[count:]))
