"""An upstream connection as the core holds it, whoever it belongs to."""

from __future__ import annotations

from imapgate.limits import Limits
from imapgate.wire.scanner import ResponseScanner


class Link:
    """One connection to an upstream server, as the core sees it: its stream, its tags, its capabilities."""

    __slots__ = ("_number", "capabilities", "scanner", "unread")

    def __init__(self, limits: Limits) -> None:
        self.scanner = ResponseScanner(limits.upstream_line)
        self.capabilities = b""
        """What the server last said of its capabilities, as it came."""
        self.unread: list[tuple[int, bytes]] = []
        """What came in one chunk with the last answer to the login, and is the session's to read."""
        self._number = 0

    def next_tag(self) -> bytes:
        """A tag that was never used on this connection."""
        self._number += 1
        return b"g%d" % self._number
