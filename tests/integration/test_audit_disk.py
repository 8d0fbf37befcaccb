"""The disk of the audit trail is full: what was promised is kept, nothing is silent, and it heals by itself (F14).

The disk is a small tmpfs, which only root may mount.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.audited import Caller, audit, invalid, of, records, unrecorded, whole
from tests.integration.bed import Bed, bed_of
from tests.integration.ctl import ADMIN, ctl
from tests.integration.servers import wait_until
from tests.integration.wire import Wire, WireClosed

CLIENTS = 4
CRITERIA = b'SEARCH TEXT "%b"' % (b"what nobody has written. " * 1200)
"""A record of this takes 30 KB."""
REFUSED = b"NO [UNAVAILABLE] The audit trail cannot be written, and nothing is done unrecorded\r\n"
LOST_SESSION = b"* BYE [UNAVAILABLE] The audit trail cannot be written\r\n"
NO_LOGIN = b"NO [UNAVAILABLE] No login at this time; try again later\r\n"
KEPT, REFUSES, LOST = "its records are kept in memory", "commands are refused", "records are lost"
STAGES = {"durable": [REFUSES], "buffered": [KEPT, REFUSES], "best-effort": [KEPT, LOST]}
"""What the log says of the trouble, a line each."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _grow(disk: Path) -> None:
    """Make space on it."""
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)


class Crowd:
    """Clients that search without a pause, and come again when they are sent away.

    :ivar callers: all that there were, with what they saw
    :ivar refused: answers to commands that were refused
    :ivar turned_away: answers to logins that were refused
    :ivar dismissed: the last words to those that were sent away
    """

    def __init__(self, bed: Bed) -> None:
        self.callers: list[Caller] = []
        self.refused: list[bytes] = []
        self.turned_away: list[bytes] = []
        self.dismissed: list[bytes] = []
        self.failures: list[BaseException] = []
        self._bed = bed
        self._numbers = itertools.count(1)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)
        assert not self.failures, self.failures

    def more(self, count: int) -> None:
        """Wait until so many more commands were answered OK."""
        wanted = self._oks + count
        self.until(lambda: self._oks >= wanted, f"{count} more answers")

    def until(self, condition: object, what: str) -> None:
        """Wait for something, as long as nothing unexpected happens."""
        assert callable(condition)
        wait_until(lambda: self.failures or condition(), what, 60)
        assert not self.failures, self.failures

    @property
    def _oks(self) -> int:
        return sum(caller.answered for caller in self.callers) - len(self.refused)

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._visit()
        except BaseException as failure:
            self.failures.append(failure)

    def _visit(self) -> None:
        with self._bed.connect() as wire:
            try:
                self._use(wire)
            except WireClosed:
                with suppress(OSError):
                    wire.eof()
                self.dismissed.append(bytes(wire.transcript).rpartition(b"\r\n* BYE")[2])

    def _use(self, wire: Wire) -> None:
        answer = wire.command(b"LOGIN u%d secret" % next(self._numbers))[-1]
        if not answer.startswith(b"w1 OK "):
            self.turned_away.append(answer[3:])
            self._stopped.wait(0.02)
            return
        caller = Caller(wire, b"d%d" % next(self._numbers))
        self.callers.append(caller)
        caller.give(b"SELECT INBOX")
        while not self._stopped.is_set():
            answer = caller.give(CRITERIA)[-1].partition(b" ")[2]
            if not answer.startswith(b"OK "):
                self.refused.append(answer)
                self._stopped.wait(0.02)


@contextmanager
def recording(disk: Path, durability: str) -> Iterator[tuple[Bed, Path]]:
    """A gate that records on this disk; afterwards the trail is whole, and the log has one line for each stage."""
    path = disk / "audit.jsonl"
    tables = audit(durability, file=path, search_criteria="text")
    with bed_of(admin=ADMIN, **tables) as bed:
        yield bed, path
        log = bed.gate.log()
        assert "Traceback" not in log
        assert re.findall(r"the audit trail cannot be written: (.*); (.*)", log) == [
            (f"{path}: No space left on device", stage) for stage in STAGES[durability]
        ]
        assert len(re.findall(r"the audit trail is written again", log)) == 1
        assert not bed.recorder.violations
        whole(path)
        assert not invalid(records(path))


def _state(bed: Bed) -> str:
    return str(ctl(bed.gate, "audit")[0]["state"])


@pytest.mark.parametrize("durability", ["durable", "buffered"])
def test_f14_nothing_unrecorded(disk: Path, durability: str) -> None:
    """Where records may not be lost: commands and logins are refused while it is full, and no OK is unrecorded."""
    with recording(disk, durability) as (bed, path):
        with Crowd(bed) as crowd:
            crowd.until(lambda: len(crowd.refused) + len(crowd.turned_away) > 20, "refusals")
            assert "No space left on device" in _state(bed)
            with bed.connect() as wire:  # who comes is greeted, and refused
                assert wire.command(b"LOGIN someone secret")[-1] == b"w1 " + NO_LOGIN
                wire.ok(b"NOOP")
            _grow(disk)
            crowd.until(lambda: _state(bed) == "running", "the trail to be written again")
            crowd.more(20)
        assert set(crowd.refused) <= {REFUSED}
        assert set(crowd.turned_away) <= {NO_LOGIN}
        assert {b"* BYE" + words for words in crowd.dismissed} <= {LOST_SESSION}
        assert bool(crowd.dismissed) is (durability == "durable")  # whose command was done, and could not be recorded
        assert crowd.refused or durability == "durable"
        assert bed.gate.stop() == 0
        trail = records(path)
        assert not unrecorded(crowd.callers, trail)
        assert not of(trail, "audit.gap")
        assert [record["seq"] for record in trail] == list(range(1, len(trail) + 1))


def test_f14_best_effort(disk: Path) -> None:
    """Where clients may not be refused: nobody notices, and the gap says how many records are lost, and since when."""
    with recording(disk, "best-effort") as (bed, path):
        with Crowd(bed) as crowd:
            crowd.until(lambda: ctl(bed.gate, "audit")[0]["dropped"] > 20, "records to be dropped")
            assert "No space left on device" in _state(bed)
            _grow(disk)
            crowd.until(lambda: _state(bed) == "running", "the trail to be written again")
            crowd.more(20)
        assert crowd.refused == crowd.turned_away == crowd.dismissed == []
        dropped = ctl(bed.gate, "audit")[0]["dropped"]
        assert bed.gate.stop() == 0
        trail = records(path)
        (gap,) = of(trail, "audit.gap")
        assert gap["gap.lost"] == dropped
        assert "No space left on device" in gap["gap.reason"]
        before, after = trail[gap["seq"] - 2], trail[gap["seq"]]
        assert before["time"] <= gap["gap.since"] <= gap["time"] <= after["time"]
        assert len(unrecorded(crowd.callers, trail)) == dropped
        assert [record["seq"] for record in trail] == list(range(1, len(trail) + 1))
        lines = re.findall(r"written again; (\d+) records are lost", bed.gate.log())
        assert lines == [str(dropped)]
