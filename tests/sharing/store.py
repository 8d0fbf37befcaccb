"""The truth of the reference server: mailboxes by name, each a plain list of messages.

Whatever is done here is done "from outside": the connections (:mod:`tests.sharing.server`) learn of it only by looking.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SYSTEM = (b"\\Answered", b"\\Flagged", b"\\Deleted", b"\\Seen", b"\\Draft")
_CANONICAL = {flag.lower(): flag for flag in SYSTEM}


def canonical(flags: Iterable[bytes]) -> set[bytes]:
    """Flags as they are kept: system flags in RFC 3501's spelling, \\Recent never."""
    return {_CANONICAL.get(flag.lower(), flag) for flag in flags} - {b"\\Recent"}


def changed(flags: set[bytes], how: bytes, given: set[bytes]) -> set[bytes]:
    """What a STORE makes of ``flags``; ``how`` is ``+``, ``-`` or nothing."""
    return flags | given if how == b"+" else flags - given if how == b"-" else set(given)


class Message:
    """One message; ``recent`` as long as no connection was told of it that may take its \\Recent."""

    def __init__(self, uid: int, body: bytes, flags: set[bytes], date: datetime, modseq: int) -> None:
        self.uid = uid
        self.body = body
        self.flags = flags
        self.date = date
        self.modseq = modseq
        self.recent = True

    def __repr__(self) -> str:
        return f"<{self.uid} {b' '.join(sorted(self.flags)).decode()}>"


class Mailbox:
    """Messages in the order of their UIDs.

    :ivar keywords: all that were ever used here, in the order of their coming
    :ivar vanished: the UID of each message that is gone, and the MODSEQ of its going
    """

    def __init__(self, uidvalidity: int) -> None:
        self.uidvalidity = uidvalidity
        self.uidnext = 1
        self.modseq = 1
        self.messages: list[Message] = []
        self.keywords: list[bytes] = []
        self.vanished: list[tuple[int, int]] = []

    def append(
        self, body: bytes = b"Subject: x\r\n\r\nx\r\n", flags: Iterable[bytes] = (), date: datetime | None = None
    ) -> Message:
        """Add a message; where no date is given, each is a minute younger than the one before."""
        flags = canonical(flags)
        self.uses(flags)
        date = date or EPOCH + timedelta(minutes=self.uidnext)
        message = Message(self.uidnext, body, flags, date, self._changed())
        self.uidnext += 1
        self.messages.append(message)
        return message

    def store(self, uid: int, how: bytes, flags: Iterable[bytes]) -> None:
        """Change a message's flags; ``how`` is ``+``, ``-`` or nothing."""
        flags = canonical(flags)
        self.uses(flags)
        message = self[uid]
        after = changed(message.flags, how, flags)
        if after != message.flags:
            message.flags, message.modseq = after, self._changed()

    def expunge(self, *uids: int) -> None:
        """Take messages out, whatever their flags."""
        for uid in uids:
            self.messages.remove(self[uid])
            self.vanished.append((uid, self._changed()))

    def __getitem__(self, uid: int) -> Message:
        return next(message for message in self.messages if message.uid == uid)

    @property
    def uids(self) -> list[int]:
        """All UIDs, ascending."""
        return [message.uid for message in self.messages]

    def _changed(self) -> int:
        self.modseq += 1
        return self.modseq

    def uses(self, flags: set[bytes]) -> None:
        """Take the keywords among these flags into the list."""
        self.keywords += sorted(flags - set(SYSTEM) - set(self.keywords))


class Store:
    """One user's mailboxes; it begins with an empty INBOX."""

    def __init__(self) -> None:
        self.mailboxes: dict[bytes, Mailbox] = {}
        self._uidvalidity = 1000
        self.create(b"INBOX")

    def create(self, name: bytes) -> Mailbox:
        """A new mailbox, whose UIDVALIDITY no other has had."""
        assert name not in self.mailboxes
        self._uidvalidity += 1
        self.mailboxes[name] = Mailbox(self._uidvalidity)
        return self.mailboxes[name]

    def delete(self, name: bytes) -> None:
        """Delete a mailbox, not those below it."""
        del self.mailboxes[name]

    def rename(self, name: bytes, new: bytes) -> None:
        """Rename a mailbox and those below it."""
        assert new not in self.mailboxes
        for old in [*self.mailboxes]:
            if old == name or old.startswith(name + b"/"):
                self.mailboxes[new + old[len(name) :]] = self.mailboxes.pop(old)

    def __getitem__(self, name: bytes) -> Mailbox:
        return self.mailboxes[name]


def proper(name: bytes) -> bytes:
    """A mailbox's name, INBOX in capitals."""
    return b"INBOX" if name.upper() == b"INBOX" else name
