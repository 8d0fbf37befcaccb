"""What the tests of the trail have in common: a trail on a clock, threads that run when told, and a disk that fails."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from imapgate.audit.checkpoint import Signer
from imapgate.audit.sinks import Row, Sink
from imapgate.audit.trail import Durability, Trail

BEGAN = datetime(2026, 11, 2, 8, 15, tzinfo=UTC)

FIELDS: Mapping[str, object] = {
    "user.name": "alice", "client.address": "192.0.2.7", "session.id": "s1", "command.id": 3,
    "command.verb": "UID FETCH", "mailbox.name": "INBOX", "message.uids": "1:5", "message.access": "content",
    "duration": 0.25,
}  # fmt: skip


class Disk:
    """The module ``os`` as the file sees it, with a disk that can be full or broken.

    :ivar room: octets that still find room; ``None``: as many as come
    :ivar broken: the names of the calls that fail
    :ivar calls: the calls that change the disk, in order
    """

    def __init__(self) -> None:
        self.room: int | None = None
        self.broken: set[str] = set()
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write as much as there is room for."""
        self._called("write")
        if self.room is None:
            return os.write(descriptor, data)
        if not self.room and len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = os.write(descriptor, data[: self.room])
        self.room -= done
        return done

    def fsync(self, descriptor: int) -> None:
        """Wait for the disk."""
        self._called("fsync")

    def ftruncate(self, descriptor: int, length: int) -> None:
        """Cut a file."""
        self._called("ftruncate")
        os.ftruncate(descriptor, length)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        """Open a file."""
        self._called("open")
        return os.open(path, flags, mode)


class Threads:
    """Runs what belongs into a thread: at once, or, while it is ``held``, when told.

    :ivar jobs: how many there were
    """

    def __init__(self) -> None:
        self.jobs = 0
        self.held = False
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, function: Callable[[], Any]) -> Deferred[Any]:
        """Call a function."""
        self.jobs += 1
        assert self.jobs < 10_000, "it never comes to rest"
        if not self.held:
            return execute(function)
        answer: Deferred[Any] = Deferred()
        self.waiting.append(lambda: execute(function).chainDeferred(answer))
        return answer

    def release(self) -> None:
        """Run what waits, and what comes."""
        self.held = False
        waiting, self.waiting = self.waiting, []
        for job in waiting:
            job()


class Copies(Sink):
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.records: list[Mapping[str, object]] = []
        self.states: list[str] = []
        self.stopping: Deferred[None] | None = None

    def start(self) -> None:
        """Note it."""
        self.states.append("started")

    def write(self, record: Mapping[str, object], line: bytes) -> None:
        """Keep it."""
        self.lines.append(line)
        self.records.append(record)

    def stop(self) -> Deferred[None] | None:
        """Note it."""
        self.states.append("stopped")
        return self.stopping

    def rows(self) -> Sequence[Row]:
        """One row."""
        return [{"name": "copies", "sent": len(self.lines)}]


_chains = itertools.count(1)


class Bed:
    """A folder with an audit file, and trails that write it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "audit.jsonl"
        self.clock = Clock()
        self.threads = Threads()

    def trail(
        self,
        durability: Durability = Durability.BUFFERED,
        *,
        chain: str = "",
        signer: Signer | None = None,
        sinks: Sequence[Sink] = (),
    ) -> Trail:
        """A trail that has not begun, as of a new process."""
        return Trail(
            self.path, durability, chain=chain or f"chain{next(_chains)}", clock=self.clock, now=self.now,
            in_thread=self.threads, signer=signer, sinks=sinks,
        )  # fmt: skip

    def passes(self, seconds: float = 0.0) -> None:
        """Let time pass, with everything that is due happening at its own time."""
        end = self.clock.seconds() + seconds
        while due := [call.getTime() for call in self.clock.getDelayedCalls() if call.getTime() <= end]:
            self.clock.advance(max(min(due) - self.clock.seconds(), 0.0))
        self.clock.advance(max(end - self.clock.seconds(), 0.0))

    def now(self) -> datetime:
        """The time of day."""
        return BEGAN + timedelta(seconds=self.clock.seconds())

    def process(self, records: int = 3, *, stop: bool = True, **more: Any) -> Trail:
        """A process that has recorded some things, and was stopped, or (what is not on the disk is lost) killed."""
        trail = self.trail(**more)
        trail.start()
        for _ in range(records):
            trail.record("message.access", "ok", FIELDS)
        self.passes(0.1)
        if stop:
            trail.stop()
            self.passes(0.1)
        else:
            self.kill(trail)
        return trail

    def kill(self, trail: Trail) -> None:
        """End a trail as the end of its process does: its lock is gone, and nothing else happens."""
        for call in self.clock.getDelayedCalls():
            call.cancel()
        trail._file.close()

    def lines(self, name: str = "audit.jsonl") -> list[bytes]:
        """The lines of a file."""
        return (self.folder / name).read_bytes().splitlines(keepends=True)

    def records(self, name: str = "audit.jsonl") -> list[dict[str, Any]]:
        """The records of a file."""
        return [json.loads(line) for line in self.lines(name)]

    def events(self, name: str = "audit.jsonl") -> list[str]:
        """What the records of a file are, checkpoints with their reasons."""
        return [
            f"checkpoint {each['reason']}" if each["event"] == "audit.checkpoint" else each["event"]
            for each in self.records(name)
        ]
