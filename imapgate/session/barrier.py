"""An upstream connection between two sessions: its barrier, its rest, its check before the next one.

Nothing that the server says here reaches anybody.  A connection is proved clean when the barrier is
answered as it must be and nothing is left unread: UNSELECT's OK; without UNSELECT, the NO to a SELECT of
a name that cannot be; with nothing selected, NOOP's OK.  Everything else is no proof.
"""

from __future__ import annotations

from enum import Enum

from imapgate.errors import UpstreamProtocolError
from imapgate.model import capability
from imapgate.session.link import Link
from imapgate.session.responses import STATUS, capabilities


class Finding(Enum):
    """What is known of a connection after it said something."""

    UNDECIDED = "undecided"
    CLEAN = "clean"
    BROKEN = "broken"


class Barrier:
    """One connection that is nobody's."""

    __slots__ = ("_awaited", "_link", "_tag")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._tag = b""  # of what was asked last; empty: nothing is owed
        self._awaited = b""

    @property
    def link(self) -> Link:
        """The connection."""
        return self._link

    def reset(self, *, selected: bool) -> bytes:
        """Return what to send so that nothing is selected, and all that was sent before is answered."""
        if not selected:
            return self._ask(b"NOOP", b"OK")
        if b"UNSELECT" in capability.parse(self._link.capabilities):
            return self._ask(b"UNSELECT", b"OK")
        return self._ask(b'SELECT ""', b"NO")

    def check(self) -> bytes:
        """Return what to send to see whether the server still answers."""
        return self._ask(b"NOOP", b"OK")

    def leave(self) -> bytes:
        """Return what to send for goodbye."""
        return self._ask(b"LOGOUT", b"OK")

    def received(self, data: bytes) -> Finding:
        """Take what the server said: at rest it may volunteer whole untagged lines, and nothing else."""
        found = Finding.UNDECIDED
        try:
            for careful, line in self._link.scanner.feed(data):
                if careful:
                    found = self._line(line, found)
                if found is Finding.BROKEN:
                    return found
        except UpstreamProtocolError:
            return Finding.BROKEN
        if (found is Finding.CLEAN or not self._tag) and not self._link.scanner.clean:
            return Finding.BROKEN  # a line that was begun would be the next session's
        return found

    def _ask(self, command: bytes, awaited: bytes) -> bytes:
        self._tag, self._awaited = self._link.next_tag(), awaited
        return b"%b %b\r\n" % (self._tag, command)

    def _line(self, line: bytes, found: Finding) -> Finding:
        status = STATUS.match(line)
        if line.startswith(b"* "):
            said = capabilities(line)
            if said is not None:
                self._link.capabilities = said
            bye = status is not None and status[2].upper() in (b"BYE", b"PREAUTH")
            return Finding.BROKEN if bye else found
        if not self._tag or status is None or status[1] != self._tag or status[2].upper() != self._awaited:
            return Finding.BROKEN
        self._tag = b""
        return Finding.CLEAN
