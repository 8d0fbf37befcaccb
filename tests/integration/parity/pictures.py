"""What a client knows of its mailbox, read off a transcript: two that differ in order alone may tell it the same.

Works on the lines of `normal.py`, and knows nothing of servers or the gate.  What is news of the mailbox (EXISTS,
RECENT, EXPUNGE, FLAGS, PERMANENTFLAGS, flags that were not asked for) is taken out of the transcript, and behind each
step stands what the client knows then: which messages, their UIDs and flags as far as it was told.  All else stays as
it came: results, what FETCH was asked for, completions, and news that cannot be or must not come then (RFC 3501,
section 7.4.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_STEP = re.compile(r"([2-9]?)(C|S): (.*)", re.DOTALL)
_COMMAND = re.compile(r"(\S+) ((?:UID )?[A-Z]+)(?: (.*))?", re.IGNORECASE)
_KEYWORDS = re.compile(r"\* (?:OK \[)?(FLAGS|PERMANENTFLAGS) \(([^()]*)\)")
_NUMBERED = re.compile(r"\* (\d+) (EXISTS|RECENT|EXPUNGE|FETCH)\b(.*)")
_PLAIN = re.compile(r" \((?:(?:UID \d+|FLAGS \([^()]*\)|MODSEQ \(<m>\)) ?)+\)")
_FLAGS_ALONE = re.compile(r"\* \d+ FETCH" + _PLAIN.pattern + r"\Z")
_STORE = re.compile(r"(\S+) ([+-]?)FLAGS\.SILENT \(?([^()]*)\)?", re.IGNORECASE)
_VANISHED = re.compile(r"\* VANISHED ([\d:,]+)")
_COMPLETED = re.compile(r"([^*+ ]\S*) (OK|NO|BAD)\b")
_NO_EXPUNGES = frozenset({"FETCH", "STORE", "SEARCH", "SORT", "THREAD"})
_ASKS_FOR_NEWS = frozenset({"NOOP", "CHECK", "IDLE"})


class Store(NamedTuple):
    """What a STORE does whose result is not to be told."""

    sign: str
    flags: frozenset[str]

    def of(self, flags: frozenset[str]) -> frozenset[str]:
        """The flags of a message that had these."""
        return flags | self.flags if self.sign == "+" else flags - self.flags if self.sign else self.flags


@dataclass(slots=True, eq=False)
class Message:
    """What is known of one.

    ``place``: the how manyth it is of all that the client was told of; ``present`` and ``absent``: flags, where the
    client knows no more than what it has done.
    """

    place: int
    uid: str = ""
    flags: frozenset[str] | None = None
    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def told(self, flags: frozenset[str]) -> None:
        """Its flags are these."""
        self.flags, self.present, self.absent = flags, frozenset(), frozenset()

    def stored(self, store: Store) -> None:
        """The client has changed them, and nothing was said of it."""
        if self.flags is not None or not store.sign:
            self.told(store.of(self.flags or frozenset()))
        elif store.sign == "+":
            self.present, self.absent = self.present | store.flags, self.absent - store.flags
        else:
            self.present, self.absent = self.present - store.flags, self.absent | store.flags

    def expects(self, store: Store, flags: frozenset[str]) -> bool:
        """Whether these are the flags that `store` gives it, as far as the client can tell."""
        after = Message(self.place, self.uid, self.flags, self.present, self.absent)
        after.stored(store)
        return flags == after.flags if after.flags is not None else after.present <= flags <= flags - after.absent

    def __str__(self) -> str:
        known = [f"#{self.place}"] + ([f"UID {self.uid}"] if self.uid else [])
        if self.flags is not None:
            known.append(_listed(self.flags))
        known += [f"+{flag}" for flag in sorted(self.present)] + [f"-{flag}" for flag in sorted(self.absent)]
        return " ".join(known)


class Command(NamedTuple):
    """A command without its answer; `targets`: the messages of a silent STORE."""

    verb: str
    arguments: str
    store: Store | None = None
    targets: tuple[Message, ...] = ()

    @property
    def asks_for_flags(self) -> bool:
        """Whether FLAGS are among what is fetched."""
        return self.verb.endswith("FETCH") and re.search(r"\b(?:FLAGS|FAST|ALL|FULL)\b", self.arguments) is not None


@dataclass(slots=True)
class Picture:
    """One connection's; ``echoes``: what a silent STORE has done is told all the same."""

    echoes: bool = False
    selected: bool = False
    messages: list[Message] = field(default_factory=list)
    told_of: int = 0
    recent: str = "0"
    keywords: dict[str, str] = field(default_factory=dict)
    pending: dict[str, Command] = field(default_factory=dict)

    def sent(self, line: str) -> None:
        """The client has sent this."""
        found = _COMMAND.match(line)
        if found:
            self.pending[found[1]] = Command(found[2].upper(), (found[3] or "").upper())
            if len(self.pending) == 1:
                self._begins(found[1])

    def _begins(self, tag: str) -> None:
        command = self.pending[tag]
        if command.verb in ("SELECT", "EXAMINE"):
            self.selected, self.messages, self.told_of, self.recent, self.keywords = False, [], 0, "0", {}
        elif command.verb.endswith("STORE") and (store := _STORE.fullmatch(command.arguments)):
            targets = tuple(self._named(store[1], by_uid=command.verb.startswith("UID")))
            self.pending[tag] = command._replace(store=Store(store[2], _flags(store[3])), targets=targets)

    def _named(self, sequence: str, *, by_uid: bool) -> Iterator[Message]:
        if sequence == "$":  # whatever was found before
            return
        last = self.messages[-1].uid if by_uid and self.messages else str(len(self.messages))
        for part in sequence.replace("*", last or "0").split(","):
            low, _, high = part.partition(":")
            ends = sorted((int(low), int(high or low)))
            for number, message in enumerate(self.messages, 1):
                if ends[0] <= (int(message.uid or 0) if by_uid else number) <= ends[1]:
                    yield message

    @property
    def _current(self) -> Command:
        return next(iter(self.pending.values()), Command("", ""))

    # --- what is said ---------------------------------------------------------------------------------

    def news(self, line: str) -> str | None:
        """Learn from a response; what of it stays in the transcript."""
        if found := _KEYWORDS.match(line):
            self.keywords[found[1]] = _listed(_flags(found[2]))
            return None
        self.selected &= line != "<closed>"
        if found := _NUMBERED.match(line):
            return self._numbered(line, int(found[1]), found[2], found[3])
        if found := _VANISHED.match(line):
            for part in found[1].split(","):
                low, _, high = part.partition(":")
                for uid in range(int(low), int(high or low) + 1):
                    gone = next((message for message in self.messages if message.uid in (str(uid), "")), None)
                    if gone is not None:
                        self.messages.remove(gone)
        return line

    def _numbered(self, line: str, number: int, word: str, rest: str) -> str | None:
        command, known = self._current, len(self.messages)
        if word == "RECENT":
            self.recent = str(number)
            return None
        if word == "EXISTS":
            if number < known:
                return line
            new = range(self.told_of + 1, self.told_of + 1 + number - known)
            self.messages += map(Message, new)
            self.told_of += len(new)
            return None
        if not 0 < number <= known:
            return line
        if word == "EXPUNGE":
            del self.messages[number - 1]
            return line if command.verb in _NO_EXPUNGES else None
        return self._fetched(line, number, rest)

    def _fetched(self, line: str, number: int, rest: str) -> str | None:
        command, message = self._current, self.messages[number - 1]
        head = rest.partition("{")[0]
        expected = False
        uid, said = re.search(r"[( ]UID (\d+)", head), re.search(r"[( ]FLAGS \(([^()]*)\)", head)
        if uid:
            message.uid = uid[1]
        if said:
            flags = _flags(said[1]) - {"\\RECENT"}
            if command.store is not None and message in command.targets:
                expected = message.expects(command.store, flags)
            if not expected:
                message.told(flags)
        if not _PLAIN.fullmatch(rest) or not said:
            return line
        if expected:
            return None if self.echoes else line
        if not any(each.asks_for_flags for each in self.pending.values()):
            return None
        words = " ".join(sorted(said[1].split()))
        return f"* {number} FETCH{rest[: said.start(1)]}{words}{rest[said.end(1) :]}"

    def completed(self, tag: str, outcome: str) -> str:
        """A command is done; which."""
        command = self.pending.pop(tag, None)
        if command is None:
            return ""
        if command.verb in ("SELECT", "EXAMINE"):
            self.selected = outcome == "OK"
        elif command.verb in ("CLOSE", "UNSELECT") and outcome == "OK":
            self.selected = False
        elif command.store is not None and outcome == "OK":
            for message in command.targets:
                message.stored(command.store)
        if self.pending:
            self._begins(next(iter(self.pending)))
        return command.verb

    def shown(self) -> list[str]:
        """As lines; nothing where no mailbox is selected."""
        if not self.selected:
            return []
        words = " ".join(f"{name} {listed}" for name, listed in sorted(self.keywords.items()))
        known = [f"= {number}: {message}" for number, message in enumerate(self.messages, 1)]
        return [f"= {len(self.messages)} messages, {words}", f"= {self.recent} recent", *known]


def _flags(text: str) -> frozenset[str]:
    return frozenset(text.upper().split())


def _listed(flags: frozenset[str]) -> str:
    return f"({' '.join(sorted(flags))})"


def pictured(lines: list[str], *, late: bool = False, echoes: bool = False) -> list[str]:
    """A transcript with what each client knows behind each step.

    Where one step ends several commands, their answers may have come in any order (RFC 3501, section 5.5).

    Of equal FETCH responses with flags alone one is kept: a server may say them once more, or once for two commands.

    :param late: the picture is shown only behind commands that ask for news
    :param echoes: where STORE is asked to be silent, it does not matter whether the flags that it gives are told
    """
    result: list[str] = []
    pictures: dict[str, Picture] = {}
    picture, kept, verbs = Picture(echoes), list[str](), list[str]()

    def end_step() -> None:
        body = sorted(kept) if len(verbs) > 1 else list(kept)
        waited = bool(result) and result[-1].lstrip("23456789").startswith("S:")
        if waited and not (late and _ASKS_FOR_NEWS.isdisjoint(verbs)):
            body += picture.shown()
        result.extend(f"    {line}" for line in body)
        kept.clear()
        verbs.clear()

    for line in lines:
        step = None if line.startswith("    ") else _STEP.match(line)
        if step:
            end_step()
            picture = pictures.setdefault(step[1], Picture(echoes))
            for sent in step[3].split("<CR><LF>") if step[2] == "C" else ():
                picture.sent(sent)
            result.append(line)
        elif done := _COMPLETED.match(line := line[4:]):
            verbs.append(picture.completed(done[1], done[2]))
            kept.append(line)
        elif (stays := picture.news(line)) is not None and (stays not in kept or not _FLAGS_ALONE.match(stays)):
            kept.append(stays)
    end_step()
    return result
