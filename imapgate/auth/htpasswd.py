"""Passwords in an htpasswd file, bcrypt only.

A verification takes a good part of a second, and so it runs in a thread, few at once.  An unknown user
costs what a known one does (THREATS A35).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
from twisted.internet.defer import Deferred, DeferredSemaphore

from imapgate.auth.files import Watched
from imapgate.auth.verify import PASSWORDS, Identified, NotIdentified, Presented
from imapgate.errors import ConfigurationError
from imapgate.model.failure import Failure

WAITING_MOST = 200
"""Logins that may wait for their turn; one more is told to try again later."""

_COST_MOST = 16
"""2 to the power of so many rounds takes seconds already."""

_COUNTED = 72
"""Octets of a password that bcrypt counts; whoever wrote the file left out the rest, too."""

_BCRYPT = re.compile(rb"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")

_STAND_IN = b"$2b$%b$" + b"." * 53
"""A hash that no password has, of a certain cost."""

InThread = Callable[..., Deferred[Any]]
"""``partial(deferToThreadPool, reactor, pool)``: calls a function with arguments in a thread."""


class _Table:
    """What the file holds."""

    def __init__(self, hashes: dict[bytes, bytes]) -> None:
        self._hashes = hashes
        self._costs = [hashed[4:6] for hashed in hashes.values()] or [b"12"]

    def get(self, user: bytes) -> tuple[bytes, bool]:
        """Return the hash to verify against, and whether it is this user's.

        A name that is not there always gets a hash of the same cost, and costs are as frequent among such names as
        they are among users: the time tells nothing even where a file has several costs.
        """
        hashed = self._hashes.get(user)
        if hashed is not None:
            return hashed, True
        return _STAND_IN % self._costs[hash(user) % len(self._costs)], False


def parse(octets: bytes) -> _Table:
    """Read ``user:hash`` lines; empty ones and those that begin with ``#`` are nothing.

    :raise ConfigurationError: a sentence for each line that cannot be used; none repeats a hash.
    """
    hashes: dict[bytes, bytes] = {}
    problems = []
    for number, line in enumerate(octets.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        user, colon, rest = line.partition(b":")
        hashed = rest.partition(b":")[0]
        if not user or not colon:
            problems.append(f"line {number}: expected USER:HASH")
        elif not (found := _BCRYPT.fullmatch(hashed)):
            problems.append(f"line {number}: the hash is not bcrypt; set the password again by htpasswd -B")
        elif int(found[1]) > _COST_MOST:
            problems.append(f"line {number}: the cost of {int(found[1])} is more than {_COST_MOST}")
        elif user in hashes:
            problems.append(f"line {number}: this user has a line already")
        else:
            hashes[user] = hashed
    if problems:
        raise ConfigurationError(problems)
    return _Table(hashes)


class Htpasswd:
    """The verifier ``htpasswd``.

    :param at_once: verifications at the same time.
    :raise ConfigurationError: the file cannot be used.
    """

    name = "htpasswd"
    mechanisms = PASSWORDS

    def __init__(self, path: Path, in_thread: InThread, at_once: int = 4) -> None:
        self._table = Watched("password file", path, parse)
        self._in_thread = in_thread
        self._turns = DeferredSemaphore(at_once)

    async def identify(self, presented: Presented) -> Identified:
        """Say who it is, or raise :exc:`NotIdentified`."""
        user, password, _ = presented.credentials
        hashed, known = self._table.current().get(user)
        if await self._matches(password.reveal()[:_COUNTED], hashed) and known:
            return Identified(user)
        raise NotIdentified(Failure.CREDENTIALS, "wrong password" if known else "unknown user")

    async def _matches(self, password: bytes, hashed: bytes) -> bool:
        if len(self._turns.waiting) >= WAITING_MOST:
            raise NotIdentified(Failure.TEMPORARY, "too many logins wait for a verification")
        await self._turns.acquire()
        answer: Deferred[bool] = Deferred()
        self._in_thread(bcrypt.checkpw, password, hashed).addBoth(self._verified, answer)
        return await answer

    def _verified(self, matches: Any, answer: Deferred[bool]) -> None:
        """The thread is free again, and not before: a client that has gone does not stop it."""
        self._turns.release()
        answer.callback(matches)
