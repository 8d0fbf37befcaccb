"""Gets lines onto the disk: one job at a time in a thread, and again until it succeeds.

Knows when to write and what to do when that fails.  Knows nothing of records: a line is octets.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from imapgate.audit.file import AuditFile, Written
from imapgate.errors import ImapgateError
from imapgate.log import log

RETRY_SECONDS = 1.0
"""Until what could not be written is tried again."""

STUCK_SECONDS = 10.0
"""How long the disk may take for one job until it counts as failing."""

SYNC_SECONDS = 1.0
"""How often it is waited for the disk where nobody waits for a record."""

InThread = Callable[..., Deferred[Any]]
"""``partial(deferToThreadPool, reactor, pool)``: calls a function with arguments in a thread."""


class TrailFailed(ImapgateError):
    """What was recorded is not known to be on the disk; the message says why."""


class Durability(Enum):
    """What is promised of a record."""

    DURABLE = "durable"
    """It is on the disk before the client learns what came of its command."""
    BUFFERED = "buffered"
    """It is written within 0.1 s and on the disk within about a second; commands are refused before one is lost."""
    BEST_EFFORT = "best-effort"
    """As buffered; but where the disk fails, records are dropped and counted, and commands go on."""


class _Pace(NamedTuple):
    """Seconds from the beginning of one job to that of the next; whether each waits for the disk."""

    apart: float
    sync: bool


_PACES = {
    Durability.DURABLE: _Pace(0.002, True),
    Durability.BUFFERED: _Pace(0.1, False),
    Durability.BEST_EFFORT: _Pace(0.1, False),
}


class _Group:
    """Lines that are written together, who waits for them, and whether the file is closed behind them."""

    __slots__ = ("closes", "lines", "waiting")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.waiting: list[Deferred[None]] = []
        self.closes = False


class Writer:
    """Writes groups of lines in their order; the first may be in a thread just now, the last is still growing.

    :param told: called after each job, and when one takes too long
    :ivar octets: how much is not in the file yet
    :ivar trouble: why the disk fails; empty: it does not
    :ivar abandoned: lines that were given up at the end
    """

    def __init__(
        self,
        file: AuditFile,
        durability: Durability,
        clock: IReactorTime,
        in_thread: InThread,
        told: Callable[[], None],
    ) -> None:
        self.octets = 0
        self.trouble = ""
        self.abandoned = 0
        self._file = file
        self._pace = _PACES[durability]
        self._clock = clock
        self._in_thread = in_thread
        self._told = told
        self._groups = [_Group()]
        self._running = False
        self._call: IDelayedCall | None = None
        self._begun = self._synced = clock.seconds() - STUCK_SECONDS
        self._unsynced = False
        self._ending: Deferred[None] | None = None
        self._limit: IDelayedCall | None = None

    def add(self, line: bytes) -> None:
        """Take a line."""
        lines = self._groups[-1].lines
        lines.append(line)
        self.octets += len(line)
        if len(lines) == 1:
            self._plan()

    def committed(self) -> Deferred[None] | None:
        """Wait until all that was added is on the disk; ``None``: it is."""
        if self.trouble:
            return fail(TrailFailed(self.trouble))
        for group in reversed(self._groups):
            if group.lines:
                answer: Deferred[None] = Deferred()
                group.waiting.append(answer)
                return answer
        return None

    def reopen(self) -> None:
        """Close the file behind what was added so far, and open it anew for what follows."""
        self._groups[-1].closes = True
        self._groups.append(_Group())
        self._plan()

    @property
    def reopening(self) -> bool:
        """Whether the file is still to be opened anew."""
        return any(group.closes for group in self._groups)

    def stop(self) -> Deferred[None]:
        """Write what is left and close the file; what the disk does not take now is abandoned."""
        ended: Deferred[None] = Deferred()
        self._ending = ended
        self._limit = self._clock.callLater(STUCK_SECONDS, self._end)
        self.reopen()
        return ended

    # --- jobs ---

    def _plan(self) -> None:
        """See to it that the next job begins when it should."""
        if self._running:
            return  # it is planned when that one is over
        now = self._clock.seconds()
        if self._groups[0].lines or self._groups[0].closes:
            at = self._begun + (RETRY_SECONDS if self.trouble else self._pace.apart)
            if self._ending is not None:
                at = now
        elif self._unsynced:
            at = self._synced + SYNC_SECONDS
        else:
            return
        if self._call is not None:
            if self._call.getTime() <= at:
                return
            self._call.cancel()
        self._call = self._clock.callLater(max(at - now, 0.0), self._begin)

    def _begin(self) -> None:
        self._call = None
        self._running = True
        self._begun = self._clock.seconds()
        group = self._groups[0]
        if group is self._groups[-1]:
            self._groups.append(_Group())
        sync = self._pace.sync or group.closes or self._begun >= self._synced + SYNC_SECONDS
        stuck = self._clock.callLater(STUCK_SECONDS, self._stuck)
        job = self._in_thread(partial(_write, self._file, group.lines, sync=sync, closes=group.closes))
        job.addErrback(_as_written)
        job.addCallback(self._done, group, sync, stuck)

    def _done(self, written: Written, group: _Group, sync: bool, stuck: IDelayedCall) -> None:
        self._running = False
        if stuck.active():
            stuck.cancel()
        self.octets -= sum(map(len, group.lines[: written.lines]))
        del group.lines[: written.lines]
        if written.error is not None:
            self._fail(f"{self._file.path}: {written.error.strerror or written.error}")
        else:
            self._succeed(group, sync)
        if self._ending is not None and (written.error is not None or not self._left):
            self._end()
        else:
            self._plan()

    def _succeed(self, group: _Group, sync: bool) -> None:
        self.trouble = ""
        self._unsynced = not sync
        if sync:
            self._synced = self._begun
        del self._groups[0]
        self._told()
        for waiting in group.waiting:
            waiting.callback(None)

    def _stuck(self) -> None:
        self._fail(f"{self._file.path}: the disk has not answered for {STUCK_SECONDS:.0f} seconds")

    def _fail(self, trouble: str) -> None:
        self.trouble = trouble
        self._told()
        for group in self._groups:
            waiting, group.waiting = group.waiting, []
            for each in waiting:
                each.errback(TrailFailed(trouble))

    @property
    def _left(self) -> bool:
        return any(group.lines or group.closes for group in self._groups)

    def _end(self) -> None:
        ended, self._ending = self._ending, None
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        if not self._running:
            self._file.close()
        self.abandoned = sum(len(group.lines) for group in self._groups)
        assert ended is not None
        ended.callback(None)


def _write(file: AuditFile, lines: list[bytes], *, sync: bool, closes: bool) -> Written:
    written = file.write(lines, sync=sync)
    if closes and written.error is None:
        file.close()
    return written


def _as_written(failure: Failure) -> Written:
    """Take what should not have happened for a job that failed: whatever it was, the lines are kept."""
    log.failure("writing the audit trail has raised", failure)
    return Written(0, OSError(0, failure.getErrorMessage()))
