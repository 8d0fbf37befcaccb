"""What every message is, and where it lies.

Each message has a token, which stands in its subject and in every line of its text.  The ledger knows the text of every
token, and which token each UID of a mailbox is, as far as anybody was told.  It knows no connection.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from random import Random
from typing import NamedTuple

from tests.integration.crowd.violation import Violation

TOKEN = re.compile(rb"token-[0-9]{7}")


class Suspicion(NamedTuple):
    """Something happened that can only be where at least one of these UIDs is expunged."""

    uids: frozenset[int]
    who: str
    why: str


class Ledger:
    """All messages of one run.

    :ivar text: by token, the whole message
    :ivar highest: by mailbox, the highest UID that anybody was told of
    :ivar validity: by mailbox, its UIDVALIDITY
    """

    def __init__(self) -> None:
        self.text: dict[bytes, bytes] = {}
        self.highest: defaultdict[bytes, int] = defaultdict(int)
        self.validity: dict[bytes, int] = {}
        self._tokens: dict[tuple[bytes, int], bytes] = {}
        self._suspicions: defaultdict[bytes, list[Suspicion]] = defaultdict(list)

    def write(self, random: Random) -> tuple[bytes, bytes]:
        """Write a new message: its token and its text."""
        number = len(self.text) + 1
        token = b"token-%07d" % number
        head = b"From: a%d@example.org\r\nTo: crowd@example.org\r\nSubject: %b\r\n" % (random.randrange(5), token)
        head += b"Message-ID: <m%d@example.org>\r\n" % number
        if number > 1 and random.random() < 0.5:
            head += b"References: <m%d@example.org>\r\n" % random.randrange(max(1, number - 30), number)
        head += b"Date: Mon, %d Nov 2026 08:15:30 +0000\r\n\r\n" % random.randrange(1, 29)
        lines = (b"%b, line %d\r\n" % (token, line) for line in range(random.choice((1, 3, 10, 60))))
        self.text[token] = text = head + b"".join(lines)
        return token, text

    def told_uid(self, mailbox: bytes, uid: int) -> None:
        """Somebody was told of this UID."""
        if uid > self.highest[mailbox]:
            self.highest[mailbox] = uid

    def told_validity(self, mailbox: bytes, validity: int) -> None:
        """Somebody was told this UIDVALIDITY, which is the same for everybody."""
        known = self.validity.setdefault(mailbox, validity)
        if known != validity:
            raise Violation(f"UIDVALIDITY {validity} where {known} was told before")

    def token_of(self, mailbox: bytes, uid: int) -> bytes | None:
        """Which token a UID is, where that is known."""
        return self._tokens.get((mailbox, uid))

    def told_token(self, mailbox: bytes, uid: int, token: bytes) -> None:
        """Somebody was told that this UID is this token."""
        self.told_uid(mailbox, uid)
        known = self._tokens.setdefault((mailbox, uid), token)
        if known != token:
            raise Violation(f"UID {uid} of {mailbox!r} is {known!r}, and was shown as {token!r}")

    def suspect(self, mailbox: bytes, suspicion: Suspicion) -> None:
        """Keep a suspicion until the truth is known."""
        self._suspicions[mailbox].append(suspicion)

    def settle(self, mailbox: bytes, present: Collection[int]) -> None:
        """Hold all suspicions against the UIDs that a mailbox has."""
        for uids, who, why in self._suspicions.pop(mailbox, ()):
            if uids.issubset(present):
                raise Violation(f"{who}: {why}, and nothing of {sorted(uids)} in {mailbox!r} is expunged")
