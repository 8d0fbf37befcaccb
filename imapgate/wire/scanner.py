"""Cutting byte streams: a client's into lines and literal content, a server's into lines and data.

Knows lines, literals and which response lines can hold one; it must not know what any of them means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from imapgate.errors import ClientProtocolError, UpstreamProtocolError

# What nobody needs to look at costs one search in C per chunk: it runs over "* NUMBER …" lines and halts
# at every newline that ends a literal's announcement, that is bare, or that any other line follows.
_STOP = re.compile(rb"\n(?!(?<=[^}]\r\n)\* [0-9])")
_DATA = re.compile(rb"\* [0-9]")
_FETCH = re.compile(rb"\* [0-9]+ FETCH ", re.IGNORECASE)
_ANNOUNCEMENT = re.compile(rb"~?\{([0-9]{1,19})\}\r\n\Z")
_NO_LITERAL = re.compile(rb"\* (?:(?:OK|NO|BAD|BYE|PREAUTH|CAPABILITY|ENABLED)\b|[0-9]+ (?!FETCH))|[^*]", re.IGNORECASE)
_WHOLE = re.compile(rb"\* (?:(?:OK|NO|BAD|BYE|PREAUTH|CAPABILITY|ENABLED)\b|[0-9]+ (?!FETCH))|[^*]", re.IGNORECASE)
"""Lines that are only understood whole; any other may be passed on in parts when it is long."""

TEXT, LINE, LITERAL = range(3)
"""What a :class:`ResponseScanner` makes of a stream."""

_FLOW = 64 * 1024
_TAIL = 32  # room for an announcement with its CRLF


class CommandScanner:
    """A client's bytes, handed out as lines or as literal content, whichever is asked for."""

    __slots__ = ("_data", "_position", "_searched")

    def __init__(self) -> None:
        self._data = b""
        self._position = 0
        self._searched = 0

    def __len__(self) -> int:
        return len(self._data) - self._position

    def feed(self, data: bytes) -> None:
        """Add a chunk."""
        if self._position < len(self._data):
            data = self._data[self._position :] + data
            self._searched = max(0, self._searched - self._position)
        else:
            self._searched = 0
        self._data = data
        self._position = 0

    def line(self, most: int) -> bytes | None:
        """Take the next line, without its CRLF; ``None`` while it is incomplete.

        :raise ClientProtocolError: fatal: a bare CR, LF or NUL (THREATS A12), or more than ``most`` octets.
        """
        data, position = self._data, self._position
        if position == len(data):
            return None
        newline = data.find(b"\n", max(position, self._searched))
        if newline < 0:
            self._searched = len(data)
            if len(data) - position > most + 1:  # the last one may be its CR
                raise ClientProtocolError(f"Command line of more than {most} octets", fatal=True)
            if position:
                self._data, self._position, self._searched = data[position:], 0, len(data) - position
            return None
        end = newline - 1
        if end < position or data.find(b"\r", position, newline) != end or data.find(b"\0", position, end) >= 0:
            raise ClientProtocolError("Bare CR, LF or NUL outside a literal; lines end in CRLF", fatal=True)
        if end - position > most:
            raise ClientProtocolError(f"Command line of more than {most} octets", fatal=True)
        self._position = self._searched = newline + 1
        return data[position:end]

    def take(self, most: int) -> bytes:
        """Take up to ``most`` octets, whatever they are; the chunk itself where it is asked for whole."""
        data, position = self._data, self._position
        if position or most < len(data):
            data = data[position : position + most]
        self._position = self._searched = position + len(data)
        if self._position == len(self._data):
            self._data, self._position, self._searched = b"", 0, 0
        return data


class ResponseScanner:
    """The state of one server's stream between two chunks.

    :param line_most: the longest line, in octets, that may have to be held.
    :ivar fine: whether the content of literals comes apart from the text around it
    """

    __slots__ = ("_held", "_inside", "_line_most", "_literal", "_searched", "_tail", "fine")

    def __init__(self, line_most: int) -> None:
        self._line_most = line_most
        self.fine = False
        self._held = b""  # an incomplete line of which nothing was passed on
        self._searched = 0  # how much of it is known to hold no newline
        self._literal = 0  # octets of a literal still to come
        self._inside = False  # part of the current line was passed on, and it may announce a literal
        self._tail = b""  # the last octets of that part

    @property
    def at_line_start(self) -> bool:
        """Whether all that was passed on ends with a whole line."""
        return not self._literal and not self._inside

    @property
    def clean(self) -> bool:
        """Whether nothing at all of a next line has come."""
        return self.at_line_start and not self._held

    def passes(self, data: bytes) -> bool:
        """Take a chunk that is wholly inside a literal; ``False``, and nothing is taken: :meth:`feed` it."""
        if len(data) > self._literal:
            return False
        self._literal -= len(data)
        return True

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take a chunk and yield ``(kind, piece)`` pairs whose pieces, joined, are the stream.

        A LINE is one line, with its CRLF, that has to be read: anything but ``* NUMBER …``.  (A long
        untagged line comes as a head without CRLF, then as text.)  Whatever else comes is TEXT, as
        long as possible: the same object where the whole chunk is.  Where :attr:`fine` is set, octets
        of literals are no TEXT, but LITERAL, and TEXT ends where a literal is announced.

        :raise UpstreamProtocolError: a bare LF, a line too long, or a literal where none can be.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        start = position = 0
        end = len(data)
        while position < end:
            if self._literal:
                taken = min(self._literal, end - position)
                self._literal -= taken
                if self.fine:
                    start = position + taken
                    yield LITERAL, data[position:start]
                position += taken
                if data.startswith(b"\n", position):  # whatever the literal ended in
                    raise UpstreamProtocolError("a line ended in a bare LF")
                continue
            if self._inside or _DATA.match(data, position):
                found = _STOP.search(data, max(position, self._searched))
                self._searched = 0
                if found is None:
                    position = self._pause(data, position)
                    break
                stop = found.end()
                self._check_end(data, position, stop)
                position = stop
                if self.fine and self._inside:  # also where the literal is empty
                    yield TEXT, data[start:position]
                    start = position
                continue
            stop = data.find(b"\n", max(position, self._searched)) + 1
            self._searched = 0
            if position > start:
                yield TEXT, data[start:position]
                start = position
            if not stop:
                head = self._flow(data) if self._too_much(data, position) else self._hold(data, position)
                if head > position:
                    yield LINE, data[position:head]
                start = position = head
                break
            self._check_end(data, position, stop)
            if stop - position > self._line_most and _WHOLE.match(data, position):
                raise self._too_long()
            yield LINE, data[position:stop]
            start = position = stop
        if position > start:
            yield TEXT, data if position - start == end else data[start:position]

    def _check_end(self, data: bytes, position: int, stop: int) -> None:
        """Look at the end of a line for a literal, and set the state that follows."""
        begin = data.rfind(b"\n", position, stop - 1) + 1 or position
        whole = begin > position or not self._inside
        ending = data[max(begin, stop - _TAIL) : stop] if whole else (self._tail + data[position:stop])[-_TAIL:]
        self._inside, self._literal, self._tail = False, 0, b""
        if not ending.endswith(b"\r\n"):
            raise UpstreamProtocolError("a line ended in a bare LF")
        announced = _ANNOUNCEMENT.search(ending) if ending.endswith(b"}\r\n") else None
        if announced is None:
            return
        if whole and _NO_LITERAL.match(data, begin):
            if _DATA.match(data, begin):
                raise UpstreamProtocolError("a literal in a line that cannot hold one")
            return  # human text may end in anything, and the gate writes capabilities anew
        self._inside, self._literal = True, int(announced[1])

    def _pause(self, data: bytes, position: int) -> int:
        """Data came to the end of the chunk inside a line; return up to where it is passed on.

        A FETCH line, most of what a server sends, is not held back: no octet of it is copied.
        """
        begin = data.rfind(b"\n", position) + 1
        if begin:
            self._inside = False
        begin = begin or position
        if self._inside or _FETCH.match(data, begin):
            return self._flow(data)
        return self._flow(data) if self._too_much(data, begin) else self._hold(data, begin)

    def _flow(self, data: bytes) -> int:
        """Pass an incomplete line on."""
        self._tail = (self._tail + data[-_TAIL:])[-_TAIL:] if self._inside else data[-_TAIL:]
        self._inside = True
        return len(data)

    def _hold(self, data: bytes, begin: int) -> int:
        """Keep an incomplete line for the next chunk."""
        self._held = data[begin:]
        self._searched = len(self._held)
        return begin

    def _too_much(self, data: bytes, begin: int) -> bool:
        """Whether an incomplete line is too long to be held."""
        length = len(data) - begin
        if length > _FLOW and not _WHOLE.match(data, begin):
            return True
        if length > self._line_most:
            raise self._too_long()
        return False

    def _too_long(self) -> UpstreamProtocolError:
        return UpstreamProtocolError(f"a line of more than {self._line_most} octets")
