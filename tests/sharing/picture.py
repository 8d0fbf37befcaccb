"""A client's picture of its mailbox, made from the octets that it received and nothing else.

It holds what a careful client would believe, and raises :class:`Violation` where the octets break the protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.sharing.reading import Tree, Wrong, flat, ranges, tree, within
from tests.sharing.store import Message, canonical, changed

_LITERAL = re.compile(rb"\{(\d+)\}\Z")
_STATUS = re.compile(rb"(OK|NO|BAD|BYE|PREAUTH)(?: \[([^\] ]+)(?: ([^\]]*))?\])?", re.IGNORECASE)
_NUMBERED = (b"FETCH", b"STORE", b"SEARCH", b"SORT", b"THREAD")
_SILENT = re.compile(rb"([+-]?)FLAGS\.SILENT", re.IGNORECASE)


class Violation(AssertionError):
    """What no client has to expect."""


@dataclass
class Entry:
    """One message, as far as it is known."""

    uid: int | None = None
    flags: set[bytes] | None = None
    """Without \\Recent."""


@dataclass
class Sent:
    """A command without its answer.

    ``lines`` are the untagged responses that came for it; ``silent`` are the messages that its .SILENT is about, each
    with the flags that it will have if nothing is said of it.
    """

    tag: bytes
    text: bytes
    name: bytes
    lines: list[bytes] = field(default_factory=list)
    silent: list[tuple[Entry, set[bytes] | None]] = field(default_factory=list)


class Picture:
    """The selected mailbox, as the client has it in mind.

    :param swaps: what the client knows of its server: a range whose end comes first is turned round
    :ivar messages: by sequence number, less one
    :ivar selected: the name, as it was sent, and none where nothing is selected
    :ivar codes: SELECT's codes, such as UIDNEXT, as they were said
    :ivar ended: the completion of each command, without its tag
    :ivar lines: the untagged responses that came for each
    :ivar over: the BYE
    """

    def __init__(self, swaps: bool = True) -> None:
        self.messages: list[Entry] = []
        self.recent = 0
        self.keywords: set[bytes] = set()
        self.selected: bytes | None = None
        self.read_only = False
        self.codes: dict[bytes, bytes] = {}
        self.idling = False
        self.over: bytes | None = None
        self.ended: dict[bytes, bytes] = {}
        self.lines: dict[bytes, list[bytes]] = {}
        self.condstore = False
        self.qresync = False
        self._swaps = swaps
        self._open = False  # something is selected, or being selected
        self._said: set[bytes] = set()  # what was said since SELECT
        self._pending: list[Sent] = []
        self._data = b""

    # --- what is sent -----------------------------------------------------------------------------------------

    def sends(self, tag: bytes, text: bytes) -> None:
        """The client sends a command; literals may stand in it as they are."""
        words = text.upper().split(b" ", 2)
        name = b" ".join(words[:2]) if words[0] == b"UID" else words[0]
        self._pending.append(Sent(tag, text, name))
        if len(self._pending) == 1:
            self._begin()

    def _begin(self) -> None:
        """The oldest command is what is being answered now."""
        sent = self._pending[0]
        if sent.name in (b"SELECT", b"EXAMINE"):
            self.messages, self.recent, self.keywords, self.codes = [], 0, set(), {}
            self.selected, self._open, self._said = None, True, set()
        elif sent.name in (b"STORE", b"UID STORE"):
            numbers, item, *flags = tree(sent.text)[sent.name.count(b" ") + 1 :]
            how = _SILENT.fullmatch(flat(item)[0])
            if how is not None:
                given = canonical(flat(flags[0]) if len(flags) == 1 else [flat(flag)[0] for flag in flags])
                for entry in self._named(sent, flat(numbers)[0]):
                    sure = (entry.flags is not None or not how[1]) and (sent.name == b"STORE" or entry.uid is not None)
                    sent.silent.append((entry, changed(entry.flags or set(), how[1], given) if sure else None))
        if b"MODSEQ" in sent.text.upper() or b"CONDSTORE" in sent.text.upper():
            self.condstore = True

    def _named(self, sent: Sent, text: bytes) -> list[Entry]:
        """The messages of a set; by UID also those whose UID is not known: anything may become of them."""
        if sent.name == b"STORE":
            these = ranges(text, len(self.messages), self._swaps)
            return [entry for number, entry in enumerate(self.messages, 1) if within(number, these)]
        last = self.messages[-1].uid if self.messages else 0
        if last is None and b"*" in text:
            raise Wrong("a test that asks for what its client cannot know: * where the last UID was not told")
        these = ranges(text, last or 0, self._swaps)
        return [entry for entry in self.messages if entry.uid is None or within(entry.uid, these)]

    # --- what is received -------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take what came, in whatever pieces.

        :raise Violation: it breaks the protocol
        """
        self._data += data
        while (response := self._next()) is not None:
            if self.over is not None and response.startswith(b"*"):
                raise Violation(f"said after BYE: {response!r}")
            try:
                self._response(response)
            except (Wrong, ValueError, IndexError) as error:
                raise Violation(f"not to be understood: {response!r}: {error}") from error

    @property
    def clean(self) -> bool:
        """Whether nothing is half received."""
        return not self._data

    @property
    def waiting(self) -> list[bytes]:
        """The tags of the commands that are not answered."""
        return [sent.tag for sent in self._pending]

    def _next(self) -> bytes | None:
        position = 0
        while True:
            end = self._data.find(b"\r\n", position)
            if end < 0:
                return None
            text = not self._data.startswith(b"* ") or _STATUS.match(self._data, 2)  # which may end in anything
            found = None if text else _LITERAL.search(self._data[position:end])
            if found is None:
                response, self._data = self._data[:end], self._data[end + 2 :]
                return response
            position = end + 2 + int(found[1])

    def _response(self, response: bytes) -> None:
        first, _, rest = response.partition(b" ")
        if first == b"+":
            if not self._pending:
                raise Violation("+ with no command in progress")
            self.idling |= self._pending[0].name == b"IDLE"
        elif first != b"*":
            self._completed(first, rest)
        else:
            if self._pending:
                self._pending[0].lines.append(rest)
            self._untagged(rest)

    def _completed(self, tag: bytes, text: bytes) -> None:
        if tag not in self.waiting:
            raise Violation(f"completion of no command: {tag!r} {text!r}")
        which = self.waiting.index(tag)
        sent = self._pending.pop(which)
        status = _STATUS.match(text)
        if status is None:
            raise Violation(f"no completion: {text!r}")
        done = status[1].upper() == b"OK"
        self.ended[tag], self.lines[tag] = text, sent.lines
        self._note(status)
        if sent.name == b"IDLE":
            self.idling = False
        elif sent.name in (b"SELECT", b"EXAMINE"):
            self._opened(sent, done, (status[2] or b"").upper())
        elif sent.name in (b"CLOSE", b"UNSELECT") and done:
            self.messages, self.selected, self._open = [], None, False
        elif sent.name == b"ENABLE":
            enabled = b" ".join(line for line in sent.lines if line.upper().startswith(b"ENABLED")).upper()
            self.qresync |= b"QRESYNC" in enabled
            self.condstore |= b"QRESYNC" in enabled or b"CONDSTORE" in enabled
        if done:
            for entry, flags in sent.silent:
                entry.flags = flags
        elif sent.silent:
            for entry, _ in sent.silent:
                entry.flags = None
        if which == 0 and self._pending:
            self._begin()

    def _opened(self, sent: Sent, done: bool, code: bytes) -> None:
        self._open = done
        if not done:
            self.messages = []
            return
        missing = {b"EXISTS", b"RECENT", b"FLAGS", b"UIDVALIDITY"} - self._said - self.codes.keys()
        if missing:
            raise Violation(f"{sent.text!r} did not tell {missing}")
        self.selected = flat(tree(sent.text)[1])[0]
        self.read_only = code == b"READ-ONLY"
        if sent.name == b"EXAMINE" and not self.read_only:
            raise Violation("EXAMINE without READ-ONLY")

    def _untagged(self, text: bytes) -> None:
        status = _STATUS.match(text)
        if status:
            self._note(status)
            if status[1].upper() == b"BYE":
                self.over = text
            return
        word, _, rest = text.partition(b" ")
        word = word.upper()
        if word.isdigit():
            self._numbered(int(word), *rest.partition(b" ")[::2])
        elif word == b"FLAGS":
            self._must_be_open(text)
            self._said.add(word)
            self.keywords = {flag for flag in flat(tree(rest)[0]) if not flag.startswith(b"\\")}
        elif word in (b"SEARCH", b"SORT", b"THREAD", b"ESEARCH"):
            self._results(word, text)
        elif word == b"VANISHED":
            self._vanished(rest)

    def _note(self, status: re.Match[bytes]) -> None:
        code = (status[2] or b"").upper()
        if code in (b"UIDVALIDITY", b"UIDNEXT", b"UNSEEN", b"HIGHESTMODSEQ", b"PERMANENTFLAGS", b"CLOSED"):
            opening = bool(self._pending) and self._pending[0].name in (b"SELECT", b"EXAMINE")
            if code == b"HIGHESTMODSEQ" and not opening and not self.qresync:
                raise Violation("HIGHESTMODSEQ, which nobody has enabled")
            if code == b"UIDVALIDITY" and not opening:
                raise Violation("UIDVALIDITY, though nothing is being selected")
            self.codes[code] = status[3] or b""

    def _must_be_open(self, text: bytes) -> None:
        if not self._open:
            raise Violation(f"{text!r}, though nothing is selected")

    def _numbered(self, number: int, word: bytes, rest: bytes) -> None:
        word = word.upper()
        self._must_be_open(word)
        self._said.add(word)
        if word == b"EXISTS":
            if number < len(self.messages):
                raise Violation(f"EXISTS {number}, where there were {len(self.messages)}")
            self.messages += [Entry() for _ in range(number - len(self.messages))]
        elif word == b"RECENT":
            self._in_range(number or 1, b"RECENT") if number else None
            self.recent = number
        elif word == b"EXPUNGE":
            self._may_expunge()
            self._in_range(number, b"EXPUNGE")
            del self.messages[number - 1]
        elif word == b"FETCH":
            self._in_range(number, b"FETCH")
            self._fetched(number, tree(rest)[0])
        else:
            raise Violation(f"unknown: {word!r}")

    def _in_range(self, number: int, what: bytes) -> None:
        if not 1 <= number <= len(self.messages):
            raise Violation(f"{what!r} of {number}, where there are {len(self.messages)}")

    def _may_expunge(self) -> None:
        if not self._pending:
            raise Violation("EXPUNGE with no command in progress")
        if self._pending[0].name in _NUMBERED:
            raise Violation(f"EXPUNGE during {self._pending[0].text!r}")

    def _vanished(self, rest: bytes) -> None:
        if not self.qresync:
            raise Violation("VANISHED, which nobody has enabled")
        earlier = rest.upper().startswith(b"(EARLIER) ")
        if earlier:
            return  # it is about what the client had in mind before
        self._may_expunge()
        gone = ranges(rest.rpartition(b" ")[2], 0)
        for uid in (uid for low, high in gone for uid in range(low, high + 1)):
            known = [n for n, entry in enumerate(self.messages) if entry.uid == uid]
            after = max((n for n, entry in enumerate(self.messages) if (entry.uid or uid) < uid), default=-1)
            before = next((n for n, entry in enumerate(self.messages) if (entry.uid or 0) > uid), len(self.messages))
            if not known and before == after + 1:
                raise Violation(f"VANISHED {uid}, which is not there")
            for entry in self.messages[after + 1 : before] if not known else []:
                entry.flags = None  # it may be any of those whose UID is not known
            del self.messages[known[0] if known else after + 1]

    def _fetched(self, number: int, node: bytes | Tree) -> None:
        if not isinstance(node, list):
            raise Violation(f"FETCH of no list: {node!r}")
        entry = self.messages[number - 1]
        for name, value in zip(node[::2], node[1::2], strict=True):
            if name == b"UID":
                self._uid(number, entry, int(flat(value)[0]))
            elif name == b"MODSEQ" and not self.condstore:
                raise Violation("MODSEQ, which nobody has enabled")
            elif name == b"FLAGS":
                entry.flags = canonical(flat(value))
                unknown = {flag for flag in entry.flags if not flag.startswith(b"\\")} - self.keywords
                if unknown:
                    raise Violation(f"keywords that FLAGS did not announce: {unknown}")
                for sent in self._pending[:1]:  # what is said is true; there is nothing to be concluded
                    sent.silent = [pair for pair in sent.silent if pair[0] is not entry]

    def _uid(self, number: int, entry: Entry, uid: int) -> None:
        head = self._pending[0] if self._pending else None
        if not self.qresync and (head is None or b"UID" not in head.text.upper()):
            raise Violation(f"UID {uid}, which nobody has asked for")
        if entry.uid not in (None, uid):
            raise Violation(f"message {number} had the UID {entry.uid}, and now has {uid}")
        below = [other.uid for other in self.messages[: number - 1] if other.uid is not None]
        above = [other.uid for other in self.messages[number:] if other.uid is not None]
        if (below and max(below) >= uid) or (above and min(above) <= uid):
            raise Violation(f"message {number} cannot have the UID {uid} among {below} and {above}")
        entry.uid = uid

    def _results(self, word: bytes, text: bytes) -> None:
        """Results name messages that the client knows of, each once."""
        head = self._pending[0] if self._pending else None
        verb = b"SEARCH" if word == b"ESEARCH" else word
        if head is None or head.name.removeprefix(b"UID ") != verb:
            raise Violation(f"{text!r}, which nobody has asked for")
        uid = head.name.startswith(b"UID ")
        if word == b"ESEARCH":
            if re.search(rb'TAG "%b"' % re.escape(head.tag), text) is None or (b" UID" in text) is not uid:
                raise Violation(f"{text!r} is for another command than {head.text!r}")
            sets = re.findall(rb" (?:MIN|MAX|ALL) ([\d:,]+)", text)
            numbers = [number for found in sets for ends in ranges(found, 0) for number in range(ends[0], ends[1] + 1)]
        else:
            numbers = [int(number) for number in re.findall(rb"\d+", text.partition(b"(MODSEQ")[0])]
            if len({*numbers}) != len(numbers):
                raise Violation(f"one message twice: {text!r}")
        known = {entry.uid for entry in self.messages}
        for number in numbers:
            if not uid:
                self._in_range(number, word)
            elif number not in known and None not in known:
                raise Violation(f"UID {number} is of no message: {text!r}")

    # --- what comes of it -------------------------------------------------------------------------------------

    def differences(self, messages: Iterable[Message]) -> list[str]:
        """In what the picture differs from the truth, as far as it knows anything; nothing is as it should be."""
        truth = list(messages)
        if len(truth) != len(self.messages):
            return [f"{len(self.messages)} messages, not {len(truth)}: {self.messages} {truth}"]
        found = []
        for number, (entry, message) in enumerate(zip(self.messages, truth, strict=True), 1):
            if entry.uid not in (None, message.uid):
                found.append(f"{number}: UID {entry.uid}, not {message.uid}")
            if entry.flags not in (None, message.flags):
                found.append(f"{number}: {entry.flags}, not {message.flags}")
        return found


class Client:
    """A client with a picture: it sends one command, and takes what is answered at once.

    :param peer: who is sent octets, and answers them
    """

    def __init__(self, peer: Callable[[bytes], bytes], swaps: bool = True) -> None:
        self.picture = Picture(swaps)
        self._peer = peer
        self._number = 0

    def says(self, text: bytes) -> list[bytes]:
        """Send a command (or DONE); the lines that came, the completion last, without tags and asterisks."""
        self._number += text != b"DONE"
        tag = b"c%d" % self._number
        if text != b"DONE":
            self.picture.sends(tag, text)
            text = tag + b" " + text
        data = self._peer(text + b"\r\n")
        self.picture.received(data)
        return _plain(data, tag)

    def hears(self, data: bytes) -> list[bytes]:
        """Take what comes unasked."""
        self.picture.received(data)
        return _plain(data, b"*")


def _plain(data: bytes, tag: bytes) -> list[bytes]:
    lines = re.split(rb"\r\n(?=[*+] |%b )" % re.escape(tag), data.removesuffix(b"\r\n")) if data else []
    return [line.removeprefix(tag + b" ").removeprefix(b"* ") for line in lines]
