"""What FETCH responses deliver: read while they pass, from the text between the literals.

A response is one line, with literals in it.  Where only metadata was asked for, one search in C finds the
UIDs of a whole chunk; where message data was, each response is read by itself.  A UID that the client did
not ask for is taken out again, where real servers put it; anywhere else it stays, which RFC 3501 §7.4.2
allows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from imapgate.model.passing import FetchItem

BULK = 50
"""Contents of so many messages in one command are a copy of a mailbox, not somebody reading mail."""
IDS_MOST = 100
"""Message-IDs and subjects that one record names; of more messages it names none."""
_LINE_MOST = 64 * 1024
_HEADER_MOST = 8 * 1024


class Access(IntEnum):
    """How much of a message was delivered; higher is more."""

    METADATA = 0
    HEADERS = 1
    CONTENT = 2


class Delivery(NamedTuple):
    """What was delivered for one command."""

    access: Access
    uids: Sequence[int]
    messages: int
    octets: int
    message_ids: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()


_FRONT = rb"FETCH \((?:FLAGS \([^()\r\n]*\) )?UID ([0-9]{1,10})"
_FIRST = re.compile(rb"\* [0-9]+ (?:%b)?" % _FRONT, re.IGNORECASE)
_UIDS = re.compile(rb"\n\* [0-9]+ (?:%b)?" % _FRONT, re.IGNORECASE)
"""Each further line, and its UID; none where it is another response, or has its UID elsewhere."""
_TAKEN = re.compile(
    rb"(\n\* [0-9]+ FETCH \((?:FLAGS \([^()\r\n]*\))?)(?: UID ([0-9]{1,10})(?=[ )])|UID ([0-9]{1,10}) )", re.IGNORECASE
)
_BEHIND = re.compile(rb" UID ([0-9]{1,10})(?=[ )])", re.IGNORECASE)
_LAST = re.compile(rb" UID ([0-9]{1,10})(?=\)\r\n\Z)", re.IGNORECASE)
_FETCH = re.compile(rb"\* ([0-9]{1,10}) FETCH \(", re.IGNORECASE)
_QUOTED = re.compile(rb'"(?:[^"\\\r\n]|\\.)*+"')
_FLAGS = re.compile(rb"FLAGS \([^()]*\)", re.IGNORECASE)
_UID = re.compile(rb"[( ]UID ([0-9]{1,10})(?=[ )])", re.IGNORECASE)
_ITEM = re.compile(
    rb"[( ]((?:BODY|BINARY)(?:\.SIZE)?\[[^\]]*\](?:<[0-9]+>)?|RFC822(?:\.[A-Z]+)?|(?!NIL\b)[A-Z][A-Z0-9.=-]+)"
    rb"(?= )(?! NIL\b)",
    re.IGNORECASE,
)
_SECTION = re.compile(rb"\[[^\]]*\]")
_ENVELOPE_ID = re.compile(rb'"(<[^"\r\n]{1,250}>)"\)(?=[ )])')
_SUBJECT = re.compile(rb'ENVELOPE \((?:"[^"]*"|NIL) "((?:[^"\\\r\n]|\\.){0,500})"', re.IGNORECASE)
_HEADER_ID = re.compile(rb"^message-id:[ \t\r\n]*(<[^>\r\n]{1,250}>)", re.IGNORECASE | re.MULTILINE)
_HEADER_SUBJECT = re.compile(rb"^subject:[ \t]*([^\r\n]{0,500})", re.IGNORECASE | re.MULTILINE)
_ANNOUNCES_HEADER = re.compile(
    rb"[( ](?:BODY\[(?:HEADER[^\]]*)?\]|RFC822(?:\.HEADER)?)(?:<0>)? ~?\{[0-9]+\}\r\n\Z", re.IGNORECASE
)
_HEADER_ITEM = re.compile(r"BODY\[(?:[0-9.]+\.)?(?:HEADER|MIME)|RFC822\.HEADER|ENVELOPE")
_CONTENT_ITEM = re.compile(r"BODY\[|BINARY\[|RFC822(?:\.TEXT)?\Z|PREVIEW|SNIPPET")


def access_of(items: Sequence[str]) -> Access:
    """How much these items, as a command or a response names them, are."""
    found = Access.METADATA
    for item in items:
        name = item.replace(".PEEK[", "[")
        if _HEADER_ITEM.match(name):
            found = max(found, Access.HEADERS)
        elif _CONTENT_ITEM.match(name):
            return Access.CONTENT
    return found


@lru_cache(256)
def _asked(items: tuple[str, ...]) -> tuple[Access, bool]:
    """How much is asked for, and whether each response has to be read by itself."""
    access = access_of(items)
    return access, access is Access.CONTENT or "[" in "".join(items)


class Delivered:
    """The FETCH responses to one command.

    :param items: what it asked for
    :param added: UID was put in by the gate, and is to be taken out
    :param subjects: they are wanted
    :param told: called with each message, where anybody wants to know
    """

    __slots__ = (
        "_access", "_added", "_before", "_careful", "_count", "_header", "_held", "_ids", "_inside", "_line", "_octets",
        "_subjects", "_taken", "_told", "_uids",
    )  # fmt: skip

    def __init__(
        self,
        items: tuple[str, ...],
        *,
        added: bool = False,
        subjects: bool = False,
        told: Callable[[FetchItem], None] | None = None,
    ) -> None:
        self._access, careful = _asked(items)
        self._careful = careful or told is not None
        self._added = added
        self._subjects: list[str] | None = [] if subjects else None
        self._told = told
        self._ids: list[str] = []
        self._uids: list[list[bytes]] = [[], [], []]  # by access
        self._count = [0, 0, 0]
        self._octets = self._before = 0
        self._held = b""  # of a line whose UID may have to be taken out
        self._inside = False  # a response, behind its first piece
        self._line = b""  # of a response so far, without its literals
        self._header = b""  # of a literal so far
        self._taken = False  # the UID of this response

    @property
    def delivery(self) -> Delivery:
        """What was delivered."""
        access, counted = self._access, Access.METADATA
        if self._careful:
            access = counted = max((level for level in Access if self._count[level]), default=access)
        count = self._count[counted]
        uids = [int(uid) for uid in self._uids[counted]]
        if count > IDS_MOST or not (self._ids or self._subjects):
            return Delivery(access, uids, count, self._octets)
        subjects = tuple(dict.fromkeys(self._subjects or ()))
        return Delivery(access, uids, count, self._octets, tuple(dict.fromkeys(self._ids)), subjects)

    def skimmed(self, octets: int) -> None:
        """So many octets of a literal have passed, behind its first ones."""
        self._octets += octets

    def literal(self, data: bytes) -> bool:
        """Octets of a literal pass; tell whether those behind them need only be counted."""
        self._octets += len(data)
        if len(self._header) < _HEADER_MOST:
            self._header += data[: _HEADER_MOST - len(self._header)]
        return len(self._header) == _HEADER_MOST

    def text(self, piece: bytes, whole: bool) -> bytes:
        """Take text between literals, and return it as the client is to see it.

        :param whole: the stream stands at a line's start behind it
        """
        if not (self._added or self._careful):
            self._skim(piece, whole)
            return piece
        if self._held:
            piece, self._held = self._held + piece, b""
        if self._added and not whole and not piece.endswith(b"\n") and len(piece) < _LINE_MOST:
            cut = piece.rfind(b"\n") + 1
            piece, self._held = piece[:cut], piece[cut:]
            whole = True
        if not piece:
            return b""
        shown = []
        if self._inside:
            cut = piece.find(b"\n") + 1 or len(piece)
            shown.append(self._piece(piece[:cut], whole or cut < len(piece)))
            piece = piece[cut:]
        if piece:
            shown.append(self._lines(piece, whole))
        return shown[0] if len(shown) == 1 else b"".join(shown)

    def _skim(self, piece: bytes, whole: bool) -> None:
        """Take text of which only the UIDs matter, and of which nothing is changed: it is not even cut."""
        begin, end = 0, len(piece) if whole else piece.rfind(b"\n", 0, -1) + 1
        if self._inside:
            begin = piece.find(b"\n") + 1
            if begin == 0 or begin > end:  # it is still the same line, or ends where a literal begins
                begin = len(piece)
            self._piece(piece[:begin], begin < len(piece) or whole)
            end = max(begin, end)
        if begin < end:
            self._skim_lines(piece, begin, end)
        if end < len(piece):
            self._piece(piece[end:], False)

    def _skim_lines(self, piece: bytes, begin: int, end: int) -> None:
        first = _FIRST.match(piece, begin, end)
        uids = [(first and first[1]) or b"", *_UIDS.findall(piece, begin, end)]
        if b"" in uids:
            for line in piece[begin:end].splitlines(keepends=True):
                self._piece(line, True)
            return
        self._octets += end - begin
        self._uids[0] += uids
        self._count[0] += len(uids)
        if len(self._ids) < IDS_MOST and self._access is Access.HEADERS:
            self._enveloped(piece[begin:end])

    # --- many lines -------------------------------------------------------------------------------------

    def _lines(self, block: bytes, whole: bool) -> bytes:
        """Take text that begins with a line."""
        end = len(block) if whole else block.rfind(b"\n", 0, -1) + 1
        lines, rest = (block, b"") if end == len(block) else (block[:end], block[end:])
        if not lines:
            return self._piece(rest, False)
        shown = lines
        if self._careful:
            shown = b"".join([self._piece(line, True) for line in lines.splitlines(keepends=True)])
        else:
            shown = self._many(lines)
        return shown + self._piece(rest, False) if rest else shown

    def _many(self, lines: bytes) -> bytes:
        """Take whole lines of which only the UIDs matter, and are taken out."""
        count = lines.count(b"\n")
        parts = _TAKEN.split(b"\n" + lines)
        uids = [one or other for one, other in zip(parts[2::4], parts[3::4], strict=True)]
        del parts[3::4], parts[2::3]
        shown = b"".join(parts)[1:]
        if len(uids) != count:  # one of them is another response, or has its UID elsewhere
            return b"".join([self._piece(line, True) for line in lines.splitlines(keepends=True)])
        self._octets += len(shown)
        self._uids[0] += uids
        self._count[0] += count
        if len(self._ids) < IDS_MOST and self._access is Access.HEADERS:
            self._enveloped(lines)
        return shown

    # --- one line ---------------------------------------------------------------------------------------

    def _piece(self, piece: bytes, ends: bool) -> bytes:
        """Take the next piece of one response; ``ends``: with it the response is whole."""
        shown = self._without_uid(piece, ends) if self._added and not self._taken else piece
        self._octets += len(shown)
        if self._header:
            self._headed()
        if len(self._line) < _LINE_MOST:
            self._line += piece[: _LINE_MOST - len(self._line)]
        self._inside = not ends
        if ends:
            self._response()
            self._line, self._taken = b"", False
        return shown

    def _without_uid(self, piece: bytes, ends: bool) -> bytes:
        if not self._inside:
            found = _TAKEN.match(b"\n" + piece)
            if found is not None:
                self._taken = True
                return found[1][1:] + piece[found.end() - 1 :]
        else:
            found = _BEHIND.match(piece) if self._line.endswith(b"}\r\n") else None
        if found is None and ends:
            found = _LAST.search(piece, max(0, len(piece) - 32))
        if found is None:
            return piece
        self._taken = True
        return piece[: found.start()] + piece[found.end() :]

    def _response(self) -> None:
        """One response has passed."""
        line = self._line
        if not self._careful:
            quick = _FIRST.match(line)
            if quick is not None and quick[1] is not None:
                self._uids[0].append(quick[1])
                self._count[0] += 1
                if self._access is Access.HEADERS and len(self._ids) < IDS_MOST:
                    self._enveloped(line)
                return
        found = _FETCH.match(line)
        if found is None:
            self._before = self._octets
            return
        bare = _FLAGS.sub(b"FLAGS ()", _QUOTED.sub(b'""', line) if b'"' in line else line)
        uid = _UID.search(_SECTION.sub(b"[]", bare))  # a client may ask for a header of any name
        items = tuple(dict.fromkeys([item.decode("ascii").upper() for item in _ITEM.findall(bare, found.end() - 1)]))
        access = access_of(items) if self._careful else Access.METADATA
        self._count[access] += 1
        if uid is not None:
            self._uids[access].append(uid[1])
        if b"ENVELOPE" in line and len(self._ids) < IDS_MOST:
            self._enveloped(line)
        if self._told is not None:
            self._told(FetchItem(int(found[1]), int(uid[1]) if uid else 0, items, self._octets - self._before))
            self._before = self._octets

    def _enveloped(self, lines: bytes) -> None:
        self._ids += [found.decode("ascii", "backslashreplace") for found in _ENVELOPE_ID.findall(lines)]
        if self._subjects is not None:
            self._subjects += [found.decode("utf-8", "backslashreplace") for found in _SUBJECT.findall(lines)]

    def _headed(self) -> None:
        """A literal has passed, which may have been a header."""
        header, self._header = self._header.partition(b"\r\n\r\n")[0], b""
        if _ANNOUNCES_HEADER.search(self._line) is None:
            return
        if len(self._ids) < IDS_MOST:
            found = _HEADER_ID.search(header)
            if found is not None:
                self._ids.append(found[1].decode("ascii", "backslashreplace"))
        if self._subjects is not None and len(self._subjects) < IDS_MOST:
            found = _HEADER_SUBJECT.search(header)
            if found is not None:
                self._subjects.append(found[1].decode("utf-8", "backslashreplace"))
