"""The canaries: users whose names, mail, mailboxes and keywords bear a mark that nobody else may ever be sent.

A mark is a random word.  A user has one, each connection has one (it stands in the tags and in whatever a server
repeats of a command), and each password is one: that is allowed to be seen by nobody.
"""

from __future__ import annotations

import re
from random import Random
from typing import NamedTuple

MARK = re.compile(rb"canary-[0-9a-f]{12}", re.IGNORECASE)
MARK_LENGTH = 19

SMALL, LARGE = 12, 1500
"""Lines of a usual message, and of the last of those that every mailbox begins with."""
AT_FIRST = 6
"""How many messages every mailbox begins with; they are never removed: their UIDs are 1 to 6."""


def new_mark(random: Random) -> bytes:
    """A word that marks whatever belongs to one owner."""
    return b"canary-%012x" % random.getrandbits(48)


class Account(NamedTuple):
    """One user: the password is a mark, too."""

    name: bytes
    password: bytes
    mark: bytes

    @property
    def mailboxes(self) -> tuple[bytes, bytes]:
        """The two mailboxes that the load works on."""
        return b"one-" + self.mark, b"two-" + self.mark

    def message(self, number: bytes, lines: int = SMALL) -> bytes:
        """A message of which every line bears the mark; ``number`` tells it from all others."""
        mark = self.mark
        head = (
            b"From: %b@example.org\r\nSubject: %b says %b\r\nMessage-ID: <%b@example.org>\r\nX-Owner: %b\r\n\r\n"
        ) % (mark, mark, number, number, mark)
        return head + b"".join(b"%06d %b belongs to %b, and to nobody else\r\n" % (n, mark, mark) for n in range(lines))


def new_accounts(random: Random, count: int, prefix: str) -> list[Account]:
    """That many users with names of this prefix."""
    return [Account(b"%b%d" % (prefix.encode(), number), new_mark(random), new_mark(random)) for number in range(count)]
