"""The audit trail: takes what happened, makes records of it, and sees to it that they last.

A record is sealed (numbered, tied to the one before) the moment it is taken, and handed to the sinks; the writer then
has its line.  What a disk that fails or is too slow means:

* Up to 8 MiB of lines are kept in memory and written as soon as that is possible; a little more has room beyond, for
  what is still under way.  What finds no room is not sealed, but counted, and as soon as lines are written again an
  ``audit.gap`` says how many records are lost, why, and since when.
* ``failing`` is why commands are to be refused.  ``durable``: as long as the disk fails.  ``buffered``: when 8 MiB
  wait, until half of them are written.  ``best-effort``: never.
* The log says once that there is trouble, and what that means; and once that it is over.

Knows no file and no thread: the writer does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from imapgate.audit.chain import Chain
from imapgate.audit.checkpoint import Signer
from imapgate.audit.file import AuditFile, Tail
from imapgate.audit.schema import VERSION
from imapgate.audit.sinks import Row, Sink
from imapgate.audit.writer import Durability, InThread, TrailFailed, Writer
from imapgate.log import log

__all__ = ["Durability", "Trail", "TrailFailed"]

KEPT = 8 << 20
"""Octets of lines that wait for the disk until there is trouble."""

SPARE = 1 << 20
"""How much more finds room then: commands that are under way end yet."""

CHECKPOINT_RECORDS, CHECKPOINT_SECONDS = 1000, 60.0
"""How often there is a checkpoint, where anything happens."""


class Trail:
    """One process's audit trail.

    :param chain: the chain's id, new for each process
    :param now: the time in UTC
    :param in_thread: calls a function with arguments in a thread; one of this trail's at a time
    :ivar failing: why commands are to be refused; empty: they are not
    """

    def __init__(
        self,
        path: Path,
        durability: Durability,
        *,
        chain: str,
        clock: IReactorTime,
        now: Callable[[], datetime],
        in_thread: InThread,
        signer: Signer | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self.failing = ""
        self._durability = durability
        self._chain = Chain(chain)
        self._clock = clock
        self._now = now
        self._signer = signer
        self._sinks = sinks
        self._file = AuditFile(path, chain)
        self._writer = Writer(self._file, durability, clock, in_thread, self._look)
        self._state = "stopped"
        self._trouble = self._stage = ""  # why it cannot be written; what that means
        self._brimming = False  # too much waits; not before half of that is written is it over
        self._lost = self._lost_in_all = 0
        self._gap: dict[str, object] = {}  # what the next audit.gap has to say
        self._marked = 0  # the number of the last checkpoint
        self._timer: IDelayedCall | None = None

    # --- its beginning and end ---

    def start(self) -> None:
        """Open the file and begin the chain.

        :raise ConfigurationError: the file cannot be used.
        """
        tail = self._file.begin()
        self._state = "running"
        for sink in self._sinks:
            sink.start()
        follows = {"previous": tail.last.hash} if tail.last is not None else {}
        if not tail.clean:
            reason = _unclean(tail)
            log.warn("audit file {file}: {reason}", file=str(self._file.path), reason=reason)
            self._seal("audit.gap", "unknown", {"gap.reason": reason, **follows})
            follows = {}
        self._checkpoint("started", follows)

    def stop(self) -> Deferred[None]:
        """End the chain, and write what is left; what the disk or a receiver does not take in seconds is given up."""
        self._mend()
        self._checkpoint("stopped")
        self._state = "stopped"
        ended = self._writer.stop()
        ended.addCallback(self._ended)
        sinks = [stopping for sink in self._sinks if (stopping := sink.stop()) is not None]
        return DeferredList([ended, *sinks], consumeErrors=True).addCallback(lambda _: None)

    def _ended(self, _: None) -> None:
        if lost := self._writer.abandoned:
            log.error("the audit trail ends without its last {lost} records, which could not be written", lost=lost)

    def reopen(self) -> None:
        """Go on in a new file, after the old one was renamed; the chain goes on, too."""
        if self._state != "running" or self._writer.reopening:
            return
        self._checkpoint("rotated")
        self._writer.reopen()
        self._checkpoint("opened", {"previous": self._chain.hash})

    # --- records ---

    def record(self, event: str, outcome: str, fields: dict[str, object]) -> None:
        """Take what happened, at this moment, and the fields with it: they are nobody else's from now on."""
        if (self._lost or self._writer.octets >= KEPT or self._state != "running") and not self._room(event):
            return
        self._seal(event, outcome, fields)
        self._mark()

    def committed(self) -> Deferred[None] | None:
        """Wait until all that was recorded is on the disk; ``None``: nothing is to be waited for.

        It fails with :class:`TrailFailed`.  Where durability was not asked for, nothing ever is to be waited for.
        """
        return self._writer.committed() if self._durability is Durability.DURABLE else None

    def rows(self) -> Sequence[Row]:
        """How the file fares, and then each sink."""
        row: Row = {
            "name": str(self._file.path),
            "sent": self._chain.seq,
            "dropped": self._lost_in_all + self._lost,
            "queued": self._writer.octets,
            "state": self._trouble or self._state,
        }
        return [row, *(row for sink in self._sinks for row in sink.rows())]

    def _seal(self, event: str, outcome: str, record: dict[str, object], signer: Signer | None = None) -> None:
        record["event"], record["outcome"], record["time"] = event, outcome, self._time()
        line = self._chain.seal(record, signer)
        self._writer.add(line)
        for sink in self._sinks:
            try:
                sink.write(record, line)
            except Exception:
                log.failure("an audit sink has raised")

    def _time(self) -> str:
        return self._now().isoformat(timespec="microseconds")[:-6] + "Z"

    # --- checkpoints ---

    def _mark(self) -> None:
        """See to it that a checkpoint stands behind a record in time."""
        if self._chain.seq - self._marked >= CHECKPOINT_RECORDS:
            self._checkpoint("records")
        elif self._timer is None:
            self._timer = self._clock.callLater(CHECKPOINT_SECONDS, self._minute)

    def _checkpoint(self, reason: str, more: Mapping[str, object] | None = None) -> None:
        self._seal(
            "audit.checkpoint", "ok", {"reason": reason, "schema.version": VERSION, **(more or {})}, self._signer
        )
        self._marked = self._chain.seq
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _minute(self) -> None:
        self._timer = None
        if not self._lost:
            self._checkpoint("time")

    # --- trouble ---

    def _room(self, event: str) -> bool:
        """Whether a record still finds room; if not, it is counted."""
        if self._state != "running":
            log.error("{event} comes when there is no audit trail", event=event)
            return False
        room = not self._lost and self._writer.octets < KEPT + SPARE
        if not room:
            if not self._lost:
                self._gap = {"gap.reason": self._writer.trouble or self._full, "gap.since": self._time()}
            self._lost += 1
        self._look()
        return room

    @property
    def _full(self) -> str:
        return f"{self._file.path}: {KEPT >> 20} MiB of records wait for the disk"

    def _look(self) -> None:
        """See how the writer fares; tell it, where that has changed."""
        full = self._brimming = self._writer.octets >= (KEPT // 2 if self._brimming else KEPT)
        lost = 0
        if self._lost and not self._writer.trouble and not full:
            lost = self._mend()
        trouble = self._writer.trouble or (self._full if full else "")
        refusing = trouble and (
            self._durability is Durability.DURABLE
            or (self._durability is Durability.BUFFERED and (full or self._lost > 0))
        )
        self.failing = trouble if refusing else ""
        self._tell(trouble, "records are lost" if self._lost else "commands are refused" if refusing else "", lost)

    def _mend(self) -> int:
        """Record the gap, where there is one; return how many records it has swallowed."""
        lost, self._lost = self._lost, 0
        if lost:
            self._lost_in_all += lost
            self._seal("audit.gap", "unknown", {**self._gap, "gap.lost": lost})
            self._mark()
        return lost

    def _tell(self, trouble: str, stage: str, lost: int) -> None:
        stage = stage or ("its records are kept in memory" if trouble else "")
        if stage != self._stage:
            if trouble:
                log.error("the audit trail cannot be written: {trouble}; {stage}", trouble=trouble, stage=stage)
            else:
                log.warn("the audit trail is written again; {lost} records are lost", lost=lost)
        self._stage = stage
        self._trouble = trouble


def _unclean(tail: Tail) -> str:
    if tail.torn:
        return f"the last line is torn; it is moved to {tail.torn}"
    if tail.last is None:
        return "the last line is no record"
    return f"chain {tail.last.chain} has no clean end: its process was killed, or the end is cut off"
