"""A table file: a look-up in lines of text, read again when the file changes.

::

    # who            what
    alice@example.org upstream=legacy user=alice pool_mode=mailbox
    bob              nologin="Moving house" delay_until=2026-12-01T00:00:00Z
    @example.net     upstream=new
    *                upstream=legacy

A user's own line goes before that of the domain, and that before ``*``.  In double quotes, ``\\"`` and ``\\\\`` stand
for themselves.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from imapgate.errors import ConfigurationError
from imapgate.routing.lookup import Asked, Found, LookupFailed, found

LOOKED_AT_EVERY = 1.0
"""Seconds between two looks at whether the file has changed."""
LARGEST = 16 * 1024 * 1024

_KEY = re.compile(r"([^\s=\"]+)(?:\s+|\Z)")
_ESCAPED = re.compile(r"\\(.)")
_COLUMN = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\["\\])*+"|[^\s"]*+)(?:\s+|\Z)')


class _Stamp(NamedTuple):
    """By what a file that has changed is told from one that has not."""

    inode: int
    changed: int
    size: int


class Table:
    """The look-up in a table file.

    :param report: called with one sentence for the log when a changed file cannot be used; the old rows then stay.
    :raise ConfigurationError: the file cannot be used now.
    """

    def __init__(self, path: Path, clock: IReactorTime, report: Callable[[str], None]) -> None:
        self._path = path
        self._clock = clock
        self._report = report
        self._looked = clock.seconds()
        self._stamp = self._look()
        try:
            self._rows = self._read()
        except LookupFailed as error:
            raise ConfigurationError([str(error)]) from None

    async def find(self, asked: Asked) -> Found | None:
        """Return what the table says about a user."""
        self._refresh()
        _, at, domain = asked.user.rpartition("@")
        for key in (asked.user, at + domain.lower() if at else "*", "*"):
            if key in self._rows:
                return self._rows[key]
        return None

    def _refresh(self) -> None:
        now = self._clock.seconds()
        if now - self._looked < LOOKED_AT_EVERY:
            return
        self._looked = now
        stamp = self._look()  # before it is read: what changes meanwhile is read again
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._rows = self._read()
            except LookupFailed as error:
                self._report(f"{error}; the table stays as it was")

    def _look(self) -> _Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return _Stamp(status.st_ino, status.st_mtime_ns, status.st_size)

    def _read(self) -> dict[str, Found]:
        try:
            status = self._path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a FIFO could wait for ever
                raise LookupFailed(f"{self._path}: is not a regular file")
            if status.st_size > LARGEST:
                raise LookupFailed(f"{self._path}: is larger than {LARGEST} octets")
            octets = self._path.read_bytes()
        except OSError as error:
            raise LookupFailed(f"{self._path}: cannot be read: {error.strerror}") from None
        rows: dict[str, Found] = {}
        for number, line in enumerate(octets.split(b"\n"), 1):
            try:
                row = _row(line)
            except LookupFailed as error:
                raise LookupFailed(f"{self._path}:{number}: {error}") from None
            if row is not None and rows.setdefault(*row) is not row[1]:
                raise LookupFailed(f"{self._path}:{number}: {row[0]!r} has a line already")
        return rows


def _row(line: bytes) -> tuple[str, Found] | None:
    """Read a line: whom it is about, and what it says; ``None`` where it is about nobody."""
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        raise LookupFailed("is not UTF-8") from None
    if not text or text.startswith("#"):
        return None
    key = _KEY.match(text)
    if key is None:
        raise LookupFailed("expected a user, @domain or *, and then key=value …")
    columns: dict[str, object] = {}
    at = key.end()
    while at < len(text):
        column = _COLUMN.match(text, at)
        if column is None or column[1] in columns:
            raise LookupFailed(f"expected key=value, each key once, at character {at + 1}")
        value = column[2]
        columns[column[1]] = _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
        at = column.end()
    who = key[1]
    return who.lower() if who.startswith("@") else who, found(columns)
