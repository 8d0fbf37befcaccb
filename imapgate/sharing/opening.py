"""What a server said when a mailbox was selected, kept so that it can be said again as things stand then."""

from __future__ import annotations

import re

from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View

_CODE = re.compile(rb"\* OK \[([A-Z-]+)(?: ([^\]]*))?\]", re.IGNORECASE)
_ANNOUNCED = re.compile(rb"\* (?:FLAGS \(|OK \[PERMANENTFLAGS )", re.IGNORECASE)
_MOMENTARY = b"HIGHESTMODSEQ"
"""A code that is true only of the moment in which it is said."""


class Opening:
    """The untagged lines of one SELECT or EXAMINE, in their order, and its completion.

    :ivar text: the completion, behind its tag
    :ivar read_only: the mailbox is
    """

    __slots__ = ("_lines", "read_only", "text")

    def __init__(self) -> None:
        self._lines: list[tuple[bytes, bytes]] = []  # what each is, and the line
        self.text = b""
        self.read_only = False

    def line(self, line: bytes, truth: Truth) -> None:
        """Take a line."""
        if _ANNOUNCED.match(line):
            announce(truth, line)
            self._lines.append((b"ANNOUNCED", line))
            return
        found = _CODE.match(line)
        code = found[1].upper() if found is not None else b""
        if found is not None and code == b"UIDVALIDITY":
            truth.validity = found[2] or b""
        elif found is not None and code == b"UIDNEXT" and (found[2] or b"").isdigit():
            truth.uid_next = int(found[2])
        if code != b"CLOSED":  # of what was selected here before
            self._lines.append((code, line))

    def numbered(self, word: bytes) -> None:
        """EXISTS or RECENT was said."""
        self._lines.append((word, b""))

    def said(self, view: View, truth: Truth, *, fresh: bool) -> bytes:
        """All of it, as things stand now, to a session whose view this is to be; it knows all messages then.

        :param fresh: it has just been said to the gate
        """
        view.take(truth)
        view.announced = truth.announced
        unseen = truth.first_unseen()
        said = []
        announced = list(truth.announced)
        for kind, line in self._lines:
            if kind == b"ANNOUNCED":
                said += announced
                announced = []
            elif kind == b"EXISTS":
                said.append(b"* %d EXISTS\r\n" % len(truth))
            elif kind == b"RECENT":
                said.append(b"* %d RECENT\r\n" % view.recent(truth))
            elif kind == b"UNSEEN":
                said.append(_with(line, unseen))
            elif kind == b"UIDNEXT":
                said.append(_with(line, truth.uid_next))
            elif fresh or kind != _MOMENTARY:
                said.append(line)
        if unseen and not any(kind == b"UNSEEN" for kind, _ in self._lines) and self._tells_unseen:
            said.append(b"* OK [UNSEEN %d] First unseen\r\n" % unseen)
        return b"".join(said)

    @property
    def _tells_unseen(self) -> bool:
        """Whether this server says UNSEEN where there is any; those that know UIDNEXT do."""
        return any(kind == b"UIDNEXT" for kind, _ in self._lines)


def _with(line: bytes, number: int) -> bytes:
    return re.sub(rb"(?<= )[0-9]+(?=\])", b"%d" % number, line, count=1) if number else b""


def announce(truth: Truth, line: bytes) -> None:
    """FLAGS or PERMANENTFLAGS is said, in the place of what was said of it before."""
    kind = line[:6]
    truth.announced = (*(each for each in truth.announced if each[:6] != kind), line)


def announces(line: bytes) -> bool:
    """Whether this is FLAGS or PERMANENTFLAGS."""
    return _ANNOUNCED.match(line) is not None
