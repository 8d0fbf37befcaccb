"""The two peers of a session, simulated for properties: they know IMAP's framing from the RFC, not from the gate.

:class:`Server` is honest, strict about what it is sent, and free in the order in which it answers.
:class:`Receiver` takes a client's side of the stream apart, literals counted.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ANNOUNCED = re.compile(rb"(?:\A|[ (])~?\{([0-9]+)\}\Z")
_RECEIVED = re.compile(rb"\{([0-9]+)\}\Z")
_TEXT = re.compile(rb"(?:[^ ]+ )?(?:OK|NO|BAD|BYE|PREAUTH|\+)(?: |\Z)|\+", re.IGNORECASE)


class Seen(NamedTuple):
    """A command as the server understood it: its tag, and verb and arguments with literals in their places."""

    tag: bytes
    text: bytes


class Server:
    """An IMAP server for one connection.

    :ivar seen: the commands that it has got whole
    :ivar pending: those that it has not answered
    :ivar out: what it has said that was not yet delivered
    :ivar said: the untagged responses among that, in order
    :ivar selected: whether a mailbox is selected
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.pending: list[Seen] = []
        self.out = b""
        self.said: list[bytes] = []
        self.selected = False
        self.asked: bytes | None = None
        """The tag of a command whose literal is announced, and neither asked for nor refused."""
        self.idle_asked: Seen | None = None
        """An IDLE that has neither its + nor an answer."""
        self.idling: Seen | None = None
        self._size = 0
        self._left = 0  # octets of a literal to come
        self._tag = b""  # of the command that has it
        self._skip = False  # the rest of the line belongs to a command that is over
        self._data = b""
        self._parts: list[bytes] = []

    def take(self, data: bytes) -> None:
        """Take what the gate wrote."""
        self._data += data
        while self._step():
            pass

    def _step(self) -> bool:
        if self._left:
            content, self._data = self._data[: self._left], self._data[self._left :]
            self._left -= len(content)
            self._parts.append(content)
            return bool(content)
        line, newline, rest = self._data.partition(b"\n")
        if not newline:
            return False
        assert self.asked is None, "written before the literal was asked for"
        assert self.idle_asked is None, "written before the + of IDLE"
        assert line.endswith(b"\r"), "a bare LF"
        line = line[:-1]
        assert b"\r" not in line
        assert b"\0" not in line
        self._data = rest
        self._line(line)
        return True

    def _line(self, line: bytes) -> None:
        self._parts.append(line)
        first = self._parts[0]
        if self.idling is not None:
            assert line == b"DONE", "written while idling"
            self._parts = []
            self.pending.append(self.idling)
            self.idling = None
            return
        found = _ANNOUNCED.search(line)
        if self._skip:
            self._skip, self._parts = False, []  # also a literal announced there is nobody's
            return
        tag, _, _ = first.partition(b" ")
        if found:
            self.asked, self._size = tag, int(found[1])
            return
        command = Seen(tag, b"".join(self._parts).partition(b" ")[2])
        self._parts = []
        self.seen.append(command)
        if command.text == b"IDLE":
            self.idle_asked = command
        else:
            self.pending.append(command)

    def ask(self) -> None:
        """Ask for the literal that is announced."""
        assert self.asked is not None
        self._tag, self.asked, self._left = self.asked, None, self._size
        self.out += b"+ go\r\n"

    def refuse(self, completion: bytes) -> None:
        """Refuse the command whose literal is announced."""
        assert self.asked is not None
        self._answered(self._parts[0].partition(b" ")[2], completion)
        tag, self.asked, self._parts = self.asked, None, []
        self.out += b"%b %b\r\n" % (tag, completion)

    @property
    def owes(self) -> bool:
        """Whether a command has not come whole, or has not been answered."""
        unanswered = self.pending or self.asked or self.idle_asked or self.idling
        return bool(unanswered or self._parts or self._left or self._skip or self._data)

    def _answered(self, text: bytes, completion: bytes) -> None:
        if text.startswith((b"SELECT", b"EXAMINE")):
            self.selected = completion.startswith(b"OK")
        elif text == b"CLOSE" and completion.startswith(b"OK"):
            self.selected = False

    @property
    def reading(self) -> bool:
        """Whether it is in the middle of a literal of a command that it has not answered."""
        return bool(self._left) and not self._skip

    def abandon(self, completion: bytes) -> None:
        """Answer the command whose literal is still coming; the rest of its line means nothing."""
        assert self.reading
        self._answered(self._parts[0].partition(b" ")[2], completion)
        self._skip = True
        self.out += b"%b %b\r\n" % (self._tag, completion)

    def answer_idle(self, completion: bytes) -> None:
        """Begin to idle, or refuse to (anything but a ``+``)."""
        assert self.idle_asked is not None
        command, self.idle_asked = self.idle_asked, None
        if completion.startswith(b"+"):
            self.idling = command
            self.out += completion + b"\r\n"
        else:
            self.out += b"%b %b\r\n" % (command.tag, completion)

    def complete(self, which: int, completion: bytes) -> None:
        """Answer one of the pending commands, whichever."""
        command = self.pending.pop(which % len(self.pending))
        self._answered(command.text, completion)
        self.out += b"%b %b\r\n" % (command.tag, completion)

    def say(self, response: bytes) -> None:
        """Say something untagged, with its CRLF."""
        self.said.append(response)
        self.out += response

    def deliver(self, most: int) -> bytes:
        """The next octets on the wire."""
        data, self.out = self.out[:most], self.out[most:]
        return data


class Receiver:
    """What a client makes of what it gets.

    :ivar responses: whole responses, literals included
    """

    def __init__(self) -> None:
        self.responses: list[bytes] = []
        self._data = b""
        self._current = b""
        self._left = 0

    def take(self, data: bytes) -> None:
        """Take a chunk."""
        self._data += data
        while True:
            if self._left:
                content, self._data = self._data[: self._left], self._data[self._left :]
                self._current += content
                self._left -= len(content)
                if not content:
                    return
                continue
            line, newline, rest = self._data.partition(b"\n")
            if not newline:
                return
            assert line.endswith(b"\r"), "a bare LF"
            self._data = rest
            begins = not self._current
            self._current += line + newline
            found = _RECEIVED.search(line[:-1])
            status = begins and _TEXT.match(line.removeprefix(b"* "))
            if found and not status:
                self._left = int(found[1])
            else:
                self.responses.append(self._current)
                self._current = b""

    @property
    def between(self) -> bool:
        """Whether a whole response was the last thing that came."""
        return not self._current and not self._data
