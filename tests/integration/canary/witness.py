"""Hears every octet that one client is sent, and objects to what can only belong to somebody else.

It is told what the client sends, and knows of each command what may and what must come of it.  It knows no socket and
no clock.  Foreign is: a mark of another owner, wherever it stands; a tag that is not in flight; data that nothing on
this connection has asked for; an answer without the data that belongs to it; a success where there can be none.
Marks of other *connections* of the same user are foreign, too: what one session asked for is no business of the next.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from tests.integration.canary.accounts import MARK, MARK_LENGTH

_LITERAL = re.compile(rb"\{([0-9]+)\}\r\n\Z")
_STATUS = re.compile(rb"\* (?:OK|NO|BAD|BYE|PREAUTH)\b", re.IGNORECASE)
"""Never holds a literal, whatever its text ends in."""
_TAGGED = re.compile(rb"([^ ]+) (OK|NO|BAD)\b ?(?:\[([^ \]]+))?", re.IGNORECASE)
_UNTAGGED = re.compile(rb"\* (?:[0-9]+ )?([A-Za-z]+)(?: \[([^ \]]+))?")

_SELECTED = frozenset({b"EXISTS", b"RECENT", b"EXPUNGE", b"FETCH", b"FLAGS"})
"""What a server may say unasked, but only of a mailbox that is selected."""
_ASKED = {
    b"LIST": {b"LIST"},
    b"STATUS": {b"STATUS"},
    b"SEARCH": {b"SEARCH"},
    b"ESEARCH": {b"SEARCH"},
    b"CAPABILITY": {b"CAPABILITY", b"LOGIN", b"AUTHENTICATE"},
}
"""What a server says only when asked, and by which commands."""
_SELECTING = frozenset({b"SELECT", b"EXAMINE"})
_LEAVING = frozenset({b"CLOSE", b"UNSELECT"})
_LOGINS = frozenset({b"LOGIN", b"AUTHENTICATE"})
_AWAY = frozenset({b"UNAVAILABLE", b"LIMIT", b"SERVERBUG", b"INUSE"})
"""The codes of a NO that says nothing about the command."""


class Violation(AssertionError):
    """A client was sent what is not its own."""


class May(Enum):
    """Which completions a command may get; a refusal for want of an upstream is another matter (`lenient`)."""

    SUCCEED = frozenset({b"OK"})
    FAIL = frozenset({b"NO", b"BAD"})
    EITHER = frozenset({b"OK", b"NO", b"BAD"})


class Need(NamedTuple):
    """Untagged data that must have come before a command's OK: its first word, and octets that stand in it."""

    word: bytes
    holds: bytes = b""


@dataclass(slots=True)
class Command:
    """A command as the client sends it.

    :ivar line: all of it after the tag, up to where a continuation is awaited
    :ivar awaits: how many continuations may come
    :ivar mark: whose mail the client may see once it has succeeded
    """

    tag: bytes
    verb: bytes
    line: bytes
    may: May = May.SUCCEED
    needs: set[Need] = field(default_factory=set)
    awaits: int = 0
    mark: bytes = b""


class Witness:
    """What one client is sent.

    :param own: the connection's mark
    :param lenient: upstream connections are being killed: any command may fail, any session may end
    """

    def __init__(self, own: bytes, *, lenient: bool = False) -> None:
        self.marks = {own}
        self.lenient = lenient
        self.selected = False
        self.user = b""
        """The mark of who is logged in."""
        self.in_flight: dict[bytes, Command] = {}
        self.answers: dict[bytes, bytes] = {}
        """Which completion each tag got."""
        self.continuations = 0
        """How many ``+`` have come."""
        self.may_end = lenient
        """The connection may be closed."""
        self._transcript: deque[tuple[str, bytes]] = deque(maxlen=120)
        self._tail = b""
        self._buffer = bytearray()
        self._missing = 0  # octets, until what is in the buffer can be a whole response

    def sent(self, data: bytes, *commands: Command) -> None:
        """The client sends this, and these commands begin in it."""
        self._note("C", data)
        for command in commands:
            self.in_flight[command.tag] = command

    def received(self, data: bytes) -> None:
        """The client was sent this.

        :raise Violation: it is not its own.
        """
        self._note("S", data)
        fresh = self._tail + data
        self._look_for_marks(fresh)
        self._tail = fresh[1 - MARK_LENGTH :]
        self._buffer += data
        while len(self._buffer) >= self._missing and (response := self._response()):
            self._hear(response)

    def lost(self) -> None:
        """The connection ended."""
        self._note("-", b"ended")
        if not self.may_end:
            raise self.violation("the connection ended, and nobody had said why")

    def violation(self, what: str) -> Violation:
        """An objection, with what was said before it."""
        lines = [f"{who}: {_shown(data)}" for who, data in self._transcript]
        allowed = b", ".join(sorted(self.marks)).decode()
        return Violation(f"{what}\nallowed here: {allowed}\n" + "\n".join(lines))

    def noted(self, what: bytes) -> None:
        """The client does something that is no octet."""
        self._note("-", what)

    def _note(self, who: str, data: bytes) -> None:
        if who == "S" and self._transcript and self._transcript[-1][0] == "S":
            who, before = self._transcript.pop()
            data = before[:4096] + data
        self._transcript.append((who, data))

    # --- framing ----------------------------------------------------------------------------------------

    def _response(self) -> bytes:
        """The next whole response, its literals included; empty: there is none yet."""
        at = 0
        while (end := self._buffer.find(b"\r\n", at) + 2) > 1:
            literal = None
            if at or (self._buffer.startswith(b"* ") and not _STATUS.match(self._buffer)):
                literal = _LITERAL.search(self._buffer, max(at, end - 24), end)
            if literal is None:
                response = bytes(self._buffer[:end])
                del self._buffer[:end]
                self._missing = 0
                return response
            at = end + int(literal[1])
            if len(self._buffer) < at + 2:
                self._missing = at + 2
                return b""
        return b""

    # --- judging ----------------------------------------------------------------------------------------

    def _look_for_marks(self, data: bytes) -> None:
        for mark in set(MARK.findall(data)):
            if mark.lower() not in self.marks:
                raise self.violation(f"a foreign mark: {mark.decode()}")

    def _hear(self, response: bytes) -> None:
        if response.startswith(b"+"):
            asked = next((command for command in self.in_flight.values() if command.awaits), None)
            if asked is None:
                raise self.violation("a continuation that was not awaited")
            asked.awaits -= 1
            self.continuations += 1
        elif response.startswith(b"* "):
            self._untagged(response)
        else:
            self._tagged(response)

    def _untagged(self, response: bytes) -> None:
        found = _UNTAGGED.match(response)
        if found is None:
            raise self.violation(f"not a response: {_shown(response)}")
        word = found[1].upper()
        if word in _SELECTED:
            self._of_a_mailbox(word, response)
        elif word in _ASKED:
            if not self._any_in_flight(_ASKED[word]):
                raise self.violation(f"{word.decode()} data that nobody here has asked for")
        elif word == b"BYE":
            if not (self.may_end or self._any_in_flight({b"LOGOUT"})):
                raise self.violation("the session was ended, and nobody had asked for it")
            self.may_end = True
        elif word not in (b"OK", b"NO", b"BAD"):
            raise self.violation(f"nothing that the load asks for: {_shown(response)}")
        elif (found[2] or b"").upper() == b"CLOSED" and not (self.selected and self._any_in_flight(_SELECTING)):
            raise self.violation("a mailbox was closed, and none was selected here")
        for command in self.in_flight.values():
            if command.needs:
                command.needs = {n for n in command.needs if n.word != word or n.holds not in response.lower()}

    def _of_a_mailbox(self, word: bytes, response: bytes) -> None:
        if not (self.selected or self._any_in_flight(_SELECTING)):
            raise self.violation("data of a mailbox, and none is selected here")
        if word == b"FETCH" and b"BODY" in response[:200].upper() and not self._any_in_flight({b"FETCH"}):
            raise self.violation("message data that nobody here has asked for")

    def _any_in_flight(self, verbs: set[bytes] | frozenset[bytes]) -> bool:
        return any(command.verb in verbs for command in self.in_flight.values())

    def _tagged(self, response: bytes) -> None:
        found = _TAGGED.match(response)
        command = self.in_flight.pop(found[1], None) if found else None
        if found is None or command is None:
            raise self.violation(f"an answer to no command of this connection: {_shown(response)}")
        status, code = found[2].upper(), (found[3] or b"").upper()
        self.answers[command.tag] = status
        away = self.lenient and status == b"NO" and code in _AWAY
        if status not in command.may.value and not away:
            raise self.violation(f"{command.verb.decode()} cannot have been answered so: {_shown(response)}")
        if status == b"OK":
            if command.needs:
                missing = b", ".join(b"%b(%b)" % need for need in command.needs).decode()
                raise self.violation(f"{command.verb.decode()} succeeded without its data: {missing}")
            if command.verb in _LOGINS:
                self.user = command.mark
                self.marks.add(command.mark)
        if command.verb in _SELECTING:
            self.selected = status == b"OK"
        elif command.verb in _LEAVING and status == b"OK":
            self.selected = False


def _shown(data: bytes) -> str:
    text = repr(data)[2:-1]
    return text if len(text) <= 600 else f"{text[:300]} … {text[-300:]}"
