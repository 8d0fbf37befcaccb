"""The file of the audit trail: one that is locked, only grows, and ends in a whole line.

Knows octets, lines and the disk; blocks, and so runs in a thread.  Knows no clock and no policy.  Its errors are
``OSError``, and what cannot work at all is a ``ConfigurationError`` at the start.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from imapgate.audit.lock import lock
from imapgate.audit.record import Read, read
from imapgate.errors import ConfigurationError

SUFFIX = ".jsonl"

_PIECE = 65_536


class Tail(NamedTuple):
    """How a file ended when it was opened.

    :ivar last: its last record; ``None``: it has none, or its last line is none
    :ivar empty: there is nothing in it
    :ivar torn: where what stands behind its last whole line is moved to; empty: there is nothing
    """

    last: Read | None
    empty: bool
    torn: str = ""

    @property
    def clean(self) -> bool:
        """Whether it ends as a process leaves it that was stopped."""
        return self.empty or (self.last is not None and not self.torn and clean_end(self.last))


class Written(NamedTuple):
    """What became of some lines: so many are in the file; ``error`` is why not all, or why not for sure."""

    lines: int
    error: OSError | None = None


def clean_end(last: Read) -> bool:
    """Whether this is the record that a process writes when it is stopped."""
    return last.record.get("event") == "audit.checkpoint" and last.record.get("reason") == "stopped"


class AuditFile:
    """FILE, or, where another process holds it, a file beside it with the chain's id in its name.

    :ivar path: the one that is written
    """

    def __init__(self, path: Path, chain: str) -> None:
        self.path = path
        self._wanted = path
        self._chain = chain
        self._descriptor: int | None = None
        self._end = 0
        """Where the whole lines end, before each write."""
        self._ragged = False
        """Something may stand behind them."""
        self._torn: Path | None = None
        """Where to move it: another process has left it."""

    def begin(self) -> Tail:
        """Open it for the first time; nothing in it is changed yet.

        :raise ConfigurationError: it cannot be used.
        """
        if not self._wanted.name.endswith(SUFFIX):
            raise ConfigurationError([f"audit file {self._wanted}: its name must end in {SUFFIX}"])
        try:
            return self._open(first=True)
        except OSError as error:
            raise ConfigurationError([f"audit file {self._wanted}: {error.strerror or error}"]) from None

    def write(self, lines: Sequence[bytes], *, sync: bool) -> Written:
        """Append lines, and with ``sync`` wait until they are on the disk; the file never keeps a part of a line."""
        data = memoryview(b"".join(lines))
        done = 0
        try:
            if self._descriptor is None:
                self._open(first=False)
            descriptor = self._ready()
            while done < len(data):
                done += os.write(descriptor, data[done:])
            if sync:
                os.fsync(descriptor)
        except OSError as error:
            # After a failed fsync nobody knows what the disk has: all is taken back, to be written again.
            whole = bytes(data[:done]).rfind(b"\n") + 1 if done < len(data) else 0
            return self._cut_back(bytes(data[:whole]), error)
        return Written(len(lines))

    def close(self) -> None:
        """Close it, and so give the lock up; the next write opens anew."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    # --- the end ---

    def _ready(self) -> int:
        """Return the descriptor, with nothing behind the last whole line."""
        assert self._descriptor is not None
        if self._torn is not None:
            self._move_aside(self._descriptor, self._torn)
            self._torn = None
        if self._ragged:
            os.ftruncate(self._descriptor, self._end)
            self._ragged = False
        else:
            self._end = os.fstat(self._descriptor).st_size  # where somebody else has cut it, verification tells
        return self._descriptor

    def _cut_back(self, whole: bytes, error: OSError) -> Written:
        if self._descriptor is not None and self._torn is None:
            self._end += len(whole)
            self._ragged = True
            try:
                self._ready()
            except OSError:
                """It is cut back before anything else is written."""
        return Written(whole.count(b"\n"), error)

    def _move_aside(self, descriptor: int, torn: Path) -> None:
        rest = os.pread(descriptor, os.fstat(descriptor).st_size - self._end, self._end)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(torn, flags, 0o600), "wb", buffering=0) as aside:
            aside.write(rest)
            os.fsync(aside.fileno())

    # --- opening ---

    def _open(self, *, first: bool) -> Tail:
        own = self._wanted.with_name(f"{self._wanted.name.removesuffix(SUFFIX)}-{self._chain}{SUFFIX}")
        for path in (self._wanted, self._wanted, own):  # twice, for it may be renamed meanwhile
            tail = self._take(path, first=first)
            if tail is not None:
                self.path = path
                return tail
        raise BlockingIOError(0, f"locked by another process, and so is {own}")

    def _take(self, path: Path, *, first: bool) -> Tail | None:
        """Open and lock one; ``None``: another has it, it was renamed, or (but at first) it ends with another chain."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode):
                raise OSError(0, "this is no regular file")
            tail = None
            if lock(descriptor) and os.path.samestat(seen, os.stat(path)):
                os.fchmod(descriptor, 0o600)
                tail, end = self._look(descriptor, path)
                if not first and not self._ours(tail):
                    tail = None
            if tail is None:
                os.close(descriptor)
                return None
            _sync_folder(path)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._end = end
        self._ragged = bool(tail.torn)
        self._torn = path.with_name(tail.torn) if tail.torn else None
        return tail

    def _ours(self, tail: Tail) -> bool:
        return tail.empty or (not tail.torn and tail.last is not None and tail.last.chain == self._chain)

    def _look(self, descriptor: int, path: Path) -> tuple[Tail, int]:
        """Return how the file ends, and where its last whole line does."""
        size = at = os.fstat(descriptor).st_size
        rest = b""
        while at and rest.count(b"\n") < 2:
            length = min(_PIECE, at)
            at -= length
            rest = os.pread(descriptor, length, at) + rest
        whole = rest.rfind(b"\n") + 1
        end = size - len(rest) + whole
        last = rest[rest.rfind(b"\n", 0, max(whole - 1, 0)) + 1 : whole]
        torn = f"{path.name}.torn-{self._chain}-{end}" if end < size else ""
        return Tail(read(last), empty=not size, torn=torn), end


def _sync_folder(path: Path) -> None:
    """Wait until a new file's name is on the disk, too."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
