"""The trail as the gate sees it: what is recorded, when it is safe, and what a disk that fails means."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.python.failure import Failure

from imapgate.audit import trail as trails
from imapgate.audit.checkpoint import Signer, signed_by
from imapgate.audit.trail import Durability, TrailFailed
from imapgate.audit.verify import verify
from imapgate.errors import ConfigurationError
from tests.audit.trails import FIELDS, Bed, Copies, Disk


def told(events: list[LogEvent]) -> list[str]:
    """What was logged, with its level."""
    return [f"{event['log_level'].name}: {formatEvent(event)}" for event in events]


Seen = list[str]
"""What has come of waiting: ``-`` there was nothing to wait for, ``...`` nothing yet, ``ok``, or why it failed."""


def watched(waiting: Deferred[None] | None) -> Seen:
    """See what comes of it."""
    seen = ["-" if waiting is None else "..."]
    if waiting is not None:
        waiting.addCallbacks(lambda _: seen.__setitem__(0, "ok"), lambda failure: _failed(failure, seen))
    return seen


def _failed(failure: Failure, seen: Seen) -> None:
    failure.trap(TrailFailed)
    seen[0] = failure.getErrorMessage()


def results(*waiting: Seen | Deferred[None] | None) -> list[str]:
    """What has come of each."""
    return [(each if isinstance(each, list) else watched(each))[0] for each in waiting]


def full(bed: Bed) -> str:
    """What is said of a full disk."""
    return f"{bed.path}: No space left on device"


# --- records ---


def test_a_life(bed: Bed) -> None:
    """A chain begins with a checkpoint and ends with one; each record has its number, its time and its fields."""
    trail = bed.trail(chain="c1")
    trail.start()
    bed.passes(1.5)
    trail.record("message.access", "ok", FIELDS)
    ended = watched(trail.stop())
    bed.passes()
    assert results(ended) == ["ok"]
    assert bed.events() == ["checkpoint started", "message.access", "checkpoint stopped"]
    record = bed.records()[1]
    assert len(record.pop("hash")) == 64
    assert record == {
        **FIELDS, "time": "2026-11-02T08:15:01.500000Z", "seq": 2, "chain": "c1", "event": "message.access",
        "outcome": "ok",
    }  # fmt: skip
    assert bed.clock.getDelayedCalls() == []


def test_the_second_chain(bed: Bed) -> None:
    """A new process begins a new chain, behind the last record of the one before."""
    bed.process()
    bed.process()
    records = bed.records()
    (begins,) = (each for each in records[1:] if each["seq"] == 1)
    assert begins["previous"] == records[records.index(begins) - 1]["hash"]
    assert "previous" not in records[0]
    assert bed.events().count("audit.gap") == 0
    assert verify([bed.path]).intact


@pytest.mark.parametrize("end", ["killed", "torn", "only torn"])
def test_no_clean_end(bed: Bed, end: str) -> None:
    """What a killed process left is told by a gap, which stands first; a torn line stands in a file beside."""
    bed.process(stop=False)
    whole = b"" if end == "only torn" else bed.path.read_bytes()
    bed.path.write_bytes(whole + (b"" if end == "killed" else b'{"chain'))
    with capturedLogs() as events:
        bed.process(chain="next")
    gap, began = [each for each in bed.records() if each["chain"] == "next"][:2]
    assert (gap["event"], gap["seq"], began["event"]) == ("audit.gap", 1, "audit.checkpoint")
    assert "previous" not in began
    if end == "killed":
        reason = "chain chain[0-9]+ has no clean end: its process was killed, or the end is cut off"
        assert [path.name for path in bed.folder.iterdir()] == ["audit.jsonl"]
    else:
        aside = f"audit.jsonl.torn-next-{len(whole)}"
        reason = f"the last line is torn; it is moved to {aside}"
        assert (bed.folder / aside).read_bytes() == b'{"chain'
    assert re.fullmatch(reason, gap["gap.reason"])
    assert re.fullmatch(rf"warn: audit file {bed.path}: {reason}", told(events)[0])
    assert gap.get("previous") == (bed.records()[whole.count(b"\n") - 1]["hash"] if whole else None)
    assert verify(sorted(bed.folder.iterdir())).faults == ()


def test_behind_what_is_no_record(bed: Bed) -> None:
    """A last line that is no record is told by a gap, too; nothing else can be said of it."""
    bed.path.write_bytes(b"?\n")
    bed.process()
    assert b'"gap.reason":"the last line is no record"' in bed.lines()[1]
    assert b"previous" not in bed.lines()[1]


def test_cannot_start(bed: Bed) -> None:
    """A file that cannot be used stops the gate's start."""
    bed.path.mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        bed.trail().start()


def test_before_and_after(bed: Bed) -> None:
    """What happens where there is no trail is told loudly, and does no harm."""
    trail = bed.trail()
    with capturedLogs() as events:
        trail.record("session.open", "ok", {})
        trail.start()
        trail.stop()
        bed.passes()
        trail.record("session.close", "ok", {})
        trail.reopen()
        bed.passes(1)
    assert told(events) == [
        "error: session.open comes when there is no audit trail",
        "error: session.close comes when there is no audit trail",
    ]
    assert bed.events() == ["checkpoint started", "checkpoint stopped"]


# --- checkpoints ---


def test_checkpoints_by_number(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one after so many records."""
    monkeypatch.setattr(trails, "CHECKPOINT_RECORDS", 3)
    bed.process(7)
    three = ["message.access"] * 3
    assert bed.events() == [
        "checkpoint started", *three, "checkpoint records", *three, "checkpoint records", "message.access",
        "checkpoint stopped",
    ]  # fmt: skip


def test_checkpoints_by_time(bed: Bed) -> None:
    """There is one a minute after the first record behind another; where nothing happens, there is none."""
    trail = bed.trail()
    trail.start()
    bed.passes(1000)
    assert bed.events() == ["checkpoint started"]
    trail.record("search", "ok", {})
    bed.passes(30)
    trail.record("search", "ok", {})
    bed.passes(29.9)
    bed.passes()
    assert len(bed.events()) == 3
    bed.passes(0.1)
    bed.passes(0.1)
    bed.passes(1000)
    assert bed.events()[3:] == ["checkpoint time"]


def test_signed_checkpoints(bed: Bed) -> None:
    """With a key each checkpoint is signed, and nothing else."""
    key = Ed25519PrivateKey.generate()
    bed.process(signer=Signer(key))
    records = bed.records()
    for before, record in pairwise(records):
        assert signed_by(record, before["hash"], key.public_key()) == (record["event"] == "audit.checkpoint")
    assert records[0]["checkpoint.key"] == Signer(key).fingerprint


# --- durable ---


def test_durable(bed: Bed, disk: Disk) -> None:
    """It is told when what was recorded is on the disk, not before; what comes meanwhile is written together."""
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    bed.passes()
    assert trail.committed() is None
    bed.threads.held = True
    bed.passes(1)
    disk.calls.clear()
    trail.record("search", "ok", {"search.found": 1})
    first = watched(trail.committed())
    bed.passes()
    for found in (2, 3):
        trail.record("search", "ok", {"search.found": found})
    second, third = watched(trail.committed()), watched(trail.committed())
    bed.passes(0.1)
    assert (len(bed.threads.waiting), results(first, second, third)) == (1, ["...", "...", "..."])
    (job,) = bed.threads.waiting
    bed.threads.waiting.clear()
    job()
    assert results(first, second, third) == ["ok", "...", "..."]
    assert [each.get("search.found") for each in bed.records()] == [None, 1]
    assert disk.calls == ["write", "fsync"]
    bed.threads.release()
    bed.passes(0.005)
    assert results(first, second, third, trail.committed()) == ["ok", "ok", "ok", "-"]
    assert [each.get("search.found") for each in bed.records()] == [None, 1, 2, 3]
    assert disk.calls == ["write", "fsync"] * 2


def test_durable_soon(bed: Bed, disk: Disk) -> None:
    """An idle disk begins at once; a busy one at the latest 5 ms after the first record that waits for it."""
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    bed.passes(1)
    disk.calls.clear()
    waiting = []
    for _ in range(20):
        trail.record("search", "ok", {})
        waiting.append(watched(trail.committed()))
        bed.passes()
        bed.passes(0.001)
        assert results(*waiting[-5:-4]) in ([], ["ok"])
    bed.passes(0.005)
    assert results(waiting[0], waiting[-1]) == ["ok", "ok"]
    assert 5 <= disk.calls.count("fsync") <= 11


def test_durable_on_a_full_disk(bed: Bed, disk: Disk) -> None:
    """Whoever waits is told that it failed; commands are refused; it is tried again, and heals; nothing is lost."""
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    bed.passes(1)
    disk.room = 500
    with capturedLogs() as events:
        for number in range(4):
            trail.record("search", "ok", {"search.found": number})
        waiting = watched(trail.committed())
        bed.passes()
        assert results(waiting, trail.committed()) == [full(bed)] * 2
        assert trail.failing == full(bed)
        assert trail.rows()[0]["state"] == full(bed)
        assert all(line.endswith(b"}\n") for line in bed.lines())
        trail.record("policy.deny", "denied", {})
        for _ in range(5):
            bed.passes(1)
        assert results(trail.committed()) == [full(bed)]
        disk.room = None
        bed.passes(1)
        bed.passes(0.1)
        assert (trail.failing, trail.committed()) == ("", None)
    assert told(events) == [
        f"error: the audit trail cannot be written: {full(bed)}; commands are refused",
        "warn: the audit trail is written again; 0 records are lost",
    ]
    assert [each.get("search.found") for each in bed.records()] == [None, 0, 1, 2, 3, None]
    trail.stop()
    bed.passes()
    assert verify([bed.path]).intact


def test_retried_every_second(bed: Bed, disk: Disk) -> None:
    """A disk that fails is asked once a second, however much is recorded."""
    trail = bed.trail(Durability.DURABLE)
    disk.broken = {"write"}
    trail.start()
    bed.passes()
    disk.calls.clear()
    for _ in range(52):
        trail.record("search", "ok", {})
        bed.passes(0.1)
    assert disk.calls.count("write") == 5


def test_durable_when_the_disk_does_not_confirm(bed: Bed, disk: Disk) -> None:
    """A write whose fsync failed counts for nothing: it is done again."""
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    bed.passes(1)
    disk.broken = {"fsync"}
    trail.record("search", "ok", {})
    waiting = watched(trail.committed())
    bed.passes()
    assert results(waiting) == [f"{bed.path}: Input/output error"]
    assert bed.events() == ["checkpoint started"]
    disk.broken = set()
    bed.passes(1)
    assert bed.events() == ["checkpoint started", "search"]


def test_stuck_disk(bed: Bed) -> None:
    """A disk that does not answer counts as failing after a while, and heals when it does."""
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    bed.passes()
    bed.threads.held = True
    bed.passes(1)
    trail.record("search", "ok", {})
    bed.passes()
    first = watched(trail.committed())
    bed.passes(5)
    trail.record("search", "ok", {})
    second = watched(trail.committed())
    with capturedLogs() as events:
        bed.passes(4.9)
        assert results(first, second) == ["...", "..."]
        bed.passes(0.1)
        trouble = f"{bed.path}: the disk has not answered for 10 seconds"
        assert results(first, second, trail.committed()) == [trouble] * 3
        assert trail.failing == trouble
        bed.passes(100)
        assert len(bed.threads.waiting) == 1
        bed.threads.release()
        assert trail.failing == ""
        bed.passes()
    assert len(told(events)) == 2
    assert bed.events()[:3] == ["checkpoint started", "search", "search"]


def test_recorded_by_who_waited(bed: Bed) -> None:
    """Whoever is told may record more at once."""
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    bed.passes(1)
    trail.record("search", "ok", {})
    waiting = trail.committed()
    assert waiting is not None
    waiting.addCallback(lambda _: trail.record("search", "no", {}))
    bed.passes()
    bed.passes(0.005)
    assert [each["outcome"] for each in bed.records()] == ["ok", "ok", "no"]


def test_bug_below(bed: Bed, monkeypatch: pytest.MonkeyPatch, critical_events: list[LogEvent]) -> None:
    """An error that nobody has thought of is treated as a disk that fails: nothing is lost."""
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    bed.passes(1)
    with monkeypatch.context() as patch:
        patch.setattr(trail._file, "_ready", lambda: 1 // 0)
        trail.record("search", "ok", {})
        waiting = watched(trail.committed())
        bed.passes()
        assert results(waiting) == [f"{bed.path}: integer division or modulo by zero"]
    assert len(critical_events) == 1
    critical_events.clear()
    bed.passes(1)
    assert (bed.events(), trail.failing) == (["checkpoint started", "search"], "")


# --- buffered, best effort ---


@pytest.mark.parametrize("durability", [Durability.BUFFERED, Durability.BEST_EFFORT])
def test_buffered(bed: Bed, disk: Disk, durability: Durability) -> None:
    """Nobody waits; records are written within 0.1 s, and the disk is waited for once a second, if there was any."""
    trail = bed.trail(durability)
    trail.start()
    bed.passes(0.1)
    bed.passes(10)
    disk.calls.clear()
    for number in range(30):
        trail.record("search", "ok", {"search.found": number})
        assert trail.committed() is None
        bed.passes(0.1)
        assert len(bed.records()) == number + 2
    assert disk.calls.count("write") == 30
    assert disk.calls.count("fsync") == 3
    bed.passes(1)
    assert disk.calls.count("fsync") == 4
    disk.calls.clear()
    bed.passes(50)
    assert disk.calls == []


def test_synced_under_load(bed: Bed, disk: Disk) -> None:
    """The disk is waited for once a second, too, where records come all the time."""
    trail = bed.trail()
    trail.start()
    bed.passes(10)
    disk.calls.clear()
    for _ in range(510):
        trail.record("search", "ok", {})
        bed.passes(0.01)
    assert disk.calls.count("write") == 51
    assert disk.calls.count("fsync") in (5, 6)


@pytest.mark.parametrize("at", [0.0, 0.1, 0.3, 1 / 3, 0.7, 12345.6789, 1e6 + 0.1])
def test_syncing_comes_to_rest(bed: Bed, at: float) -> None:
    """When the time to wait for the disk has come it is done once, however that time is rounded."""
    trail = bed.trail()
    bed.passes(at)
    trail.start()
    bed.passes(at)
    bed.threads.jobs = 0
    for _ in range(20):
        trail.record("search", "ok", {})
        bed.passes(0.3)
    bed.passes(2)
    assert bed.threads.jobs <= 40


def test_buffered_through_a_full_disk(bed: Bed, disk: Disk) -> None:
    """What fits into memory waits there, and commands go on; it is told once that it fails, and once that it heals."""
    trail = bed.trail()
    trail.start()
    bed.passes(1)
    disk.room = 0
    with capturedLogs() as events:
        for number in range(30):
            trail.record("search", "ok", {"search.found": number})
            bed.passes(1)
        assert (trail.failing, trail.rows()[0]["state"]) == ("", full(bed))
        disk.room = None
        bed.passes(1)
        bed.passes(1)
    assert told(events) == [
        f"error: the audit trail cannot be written: {full(bed)}; its records are kept in memory",
        "warn: the audit trail is written again; 0 records are lost",
    ]
    assert [each["search.found"] for each in bed.records() if "search.found" in each] == list(range(30))
    assert trail.rows()[0]["queued"] == 0


@pytest.mark.parametrize("durability", list(Durability))
def test_more_than_memory_holds(bed: Bed, disk: Disk, durability: Durability, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffered refuses commands before it loses anything; what finds no room is counted, and a gap tells of it."""
    monkeypatch.setattr(trails, "KEPT", 2000)
    monkeypatch.setattr(trails, "SPARE", 1000)
    trail = bed.trail(durability)
    trail.start()
    bed.passes(1)
    disk.room = 0
    copies = Copies()
    trail._sinks = [copies]
    refused = lost = 0
    with capturedLogs() as events:
        for number in range(40):
            trail.record("search", "ok", {"search.found": number})
            if number == 0:
                bed.passes(0.5)
            if not refused and trail.failing:
                refused = number
            if not lost and trail.rows()[0]["dropped"]:
                lost = number
                since = trail._time()
                bed.passes(0.5)
        bed.passes(1)
        dropped = trail.rows()[0]["dropped"]
        assert dropped == 40 - lost
        if durability is Durability.BEST_EFFORT:
            assert (refused, trail.failing) == (0, "")
        else:
            assert 0 <= refused < lost
            assert trail.failing
        disk.room = None
        bed.passes(1)
        bed.passes(0.1)
    assert trail.failing == ""
    assert told(events)[0].startswith(f"error: the audit trail cannot be written: {full(bed)}; ")
    assert told(events)[-1] == f"warn: the audit trail is written again; {dropped} records are lost"
    expected = {
        Durability.DURABLE: ["commands are refused", "records are lost"],
        Durability.BUFFERED: ["its records are kept in memory", "commands are refused", "records are lost"],
        Durability.BEST_EFFORT: ["its records are kept in memory", "records are lost"],
    }[durability]
    assert [line.rpartition("; ")[2] for line in told(events)[:-1]] == expected
    trail.record("search", "ok", {"search.found": 99})
    assert trail.rows()[0]["dropped"] == dropped
    trail.stop()
    bed.passes()
    assert [each["search.found"] for each in bed.records() if "search.found" in each] == [*range(lost), 99]
    assert bed.events()[-3:] == ["audit.gap", "search", "checkpoint stopped"]
    gap = bed.records()[-3]
    assert {name: value for name, value in gap.items() if name.startswith("gap.")} == {
        "gap.lost": dropped, "gap.reason": full(bed), "gap.since": since,
    }  # fmt: skip
    assert b"".join(copies.lines) == b"".join(bed.lines()[1:])
    verdict = verify([bed.path])
    assert verdict.intact
    assert verdict.notes == (f"{bed.path}: {dropped} records are lost, as the gaps in it say",)


@pytest.mark.parametrize("durability", list(Durability))
def test_a_disk_that_takes_a_little(
    bed: Bed, disk: Disk, durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once records are lost, later ones are too, and commands refused, until all that waits is written: one gap."""
    monkeypatch.setattr(trails, "KEPT", 2000)
    monkeypatch.setattr(trails, "SPARE", 1000)
    trail = bed.trail(durability)
    trail.start()
    bed.passes(1)
    disk.room = 0
    for _ in range(30):
        trail.record("search", "ok", {})
    bed.passes(1)
    lost = trail.rows()[0]["dropped"]
    disk.room = 2000
    bed.passes(1)
    assert 0 < int(trail.rows()[0]["queued"]) < 1500
    assert bool(trail.failing) == (durability is not Durability.BEST_EFFORT)
    trail.record("search", "no", {})
    assert trail.rows()[0]["dropped"] == int(lost) + 1
    disk.room = None
    bed.passes(2)
    assert bed.events().count("audit.gap") == 1
    assert bed.records()[-1]["gap.lost"] == int(lost) + 1
    assert trail.failing == ""


def test_slow_disk(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not keep up counts as failing when memory is full, though no call has failed."""
    monkeypatch.setattr(trails, "KEPT", 1000)
    monkeypatch.setattr(trails, "SPARE", 500)
    trail = bed.trail()
    trail.start()
    bed.passes(1)
    bed.threads.held = True
    with capturedLogs() as events:
        trail.record("search", "ok", {})
        bed.passes(1)
        for _ in range(20):
            trail.record("search", "ok", {})
        assert trail.failing == f"{bed.path}: 0 MiB of records wait for the disk"
        bed.threads.release()
        assert trail.failing
        bed.passes(0.1)
        assert trail.failing == ""
        bed.passes(0.1)
    assert told(events)[-1].startswith("warn: the audit trail is written again; ")
    gap = bed.records()[-1]
    assert (gap["event"], gap["gap.reason"]) == ("audit.gap", f"{bed.path}: 0 MiB of records wait for the disk")
    assert gap["gap.lost"] + len([each for each in bed.events() if each == "search"]) == 21


def test_full_until_half_is_written(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too much has waited, commands are refused, and the log is silent, until half of that is written."""
    monkeypatch.setattr(trails, "KEPT", 4000)
    trail = bed.trail()
    trail.start()
    bed.passes(1)
    bed.threads.held = True
    with capturedLogs() as events:
        for _ in range(4):
            trail.record("search", "ok", {})
        bed.passes(1)
        while not trail.failing:
            trail.record("search", "ok", {})
        bed.threads.release()
        assert 2000 < trail.rows()[0]["queued"] < 4000  # type: ignore[operator]
        assert trail.failing
        bed.passes(0.1)
        assert trail.failing == ""
    assert len(told(events)) == 2


def test_no_checkpoint_while_records_are_lost(bed: Bed, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap comes first."""
    monkeypatch.setattr(trails, "KEPT", 300)
    monkeypatch.setattr(trails, "SPARE", 0)
    trail = bed.trail(Durability.BEST_EFFORT)
    trail.start()
    bed.passes(1)
    disk.room = 0
    for _ in range(5):
        trail.record("search", "ok", {})
    for _ in range(70):
        bed.passes(1)
    disk.room = None
    bed.passes(1)
    bed.passes(1)
    assert [each for each in bed.events() if each != "search"] == ["checkpoint started", "audit.gap"]
    bed.passes(60)
    bed.passes(1)
    assert bed.events()[-1] == "checkpoint time"


# --- rotation ---


@pytest.mark.parametrize("durability", [Durability.DURABLE, Durability.BUFFERED])
def test_rotation(bed: Bed, durability: Durability) -> None:
    """After the file was renamed and the gate told, the chain goes on in a new one; both verify, alone and together."""
    trail = bed.trail(durability, chain="c1")
    trail.start()
    trail.record("search", "ok", {})
    bed.passes(1)
    bed.path.rename(bed.folder / "audit.jsonl.1")
    trail.record("search", "ok", {})
    bed.passes(1)
    trail.record("search", "ok", {})
    trail.reopen()
    trail.reopen()
    trail.record("search", "no", {})
    waiting = watched(trail.committed())
    bed.passes(0.1)
    bed.passes(0.1)
    assert results(waiting) == ["ok" if durability is Durability.DURABLE else "-"]
    trail.stop()
    bed.passes(0.1)
    assert bed.events("audit.jsonl.1") == ["checkpoint started", "search", "search", "search", "checkpoint rotated"]
    assert bed.events() == ["checkpoint opened", "search", "checkpoint stopped"]
    assert bed.records()[0]["previous"] == bed.records("audit.jsonl.1")[-1]["hash"]
    files = [bed.path, bed.folder / "audit.jsonl.1"]
    for some in ([files[0]], [files[1]], files, files[::-1]):
        assert verify(some).faults == ()
    assert verify(files).notes == ()


def test_rotation_waits_for_the_disk(bed: Bed, disk: Disk) -> None:
    """Before a file is left, what is in it is on the disk; and so at the end."""
    trail = bed.trail()
    trail.start()
    bed.passes(10)
    for leave in (trail.reopen, trail.stop):
        trail.record("search", "ok", {})
        bed.passes(0.2)
        disk.calls.clear()
        leave()
        bed.passes()
        assert disk.calls[:2] == ["write", "fsync"]
        bed.passes(0.2)


def test_rotation_of_a_file_that_was_not_renamed(bed: Bed) -> None:
    """The chain goes on behind itself."""
    trail = bed.trail()
    trail.start()
    trail.reopen()
    bed.passes(0.1)
    bed.passes(0.1)
    trail.stop()
    bed.passes(0.1)
    assert bed.events() == ["checkpoint started", "checkpoint rotated", "checkpoint opened", "checkpoint stopped"]
    assert verify([bed.path]).intact


def test_rotation_while_the_disk_is_full(bed: Bed, disk: Disk) -> None:
    """The old file gets all that belongs to it before the new one is begun."""
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    bed.passes(1)
    disk.room = 100
    trail.record("search", "ok", {})
    bed.passes()
    bed.path.rename(bed.folder / "audit.jsonl.1")
    trail.reopen()
    trail.record("search", "no", {})
    bed.passes(1)
    assert not bed.path.exists()
    disk.room = None
    bed.passes(1)
    bed.passes(0.005)
    bed.passes(0.005)
    assert bed.events("audit.jsonl.1") == ["checkpoint started", "search", "checkpoint rotated"]
    assert bed.events() == ["checkpoint opened", "search"]
    disk.room = 100
    bed.path.rename(bed.folder / "audit.jsonl.0")
    trail.record("search", "no", {})
    trail.reopen()
    bed.passes(2)
    assert not bed.path.exists()
    disk.room = None
    bed.passes(2)
    assert bed.events("audit.jsonl.0")[2:] == ["search", "checkpoint rotated"]
    assert bed.events() == ["checkpoint opened"]


def test_rotation_into_a_folder_that_is_gone(bed: Bed) -> None:
    """A new file that cannot be opened is trouble like any other, and heals."""
    trail = bed.trail(Durability.DURABLE)
    trail.start()
    bed.passes(1)
    aside = Path(f"{bed.folder}-away")
    bed.folder.rename(aside)
    trail.reopen()
    bed.passes()
    bed.passes(0.005)
    assert trail.failing == f"{bed.path}: No such file or directory"
    aside.rename(bed.folder)
    bed.passes(1)
    assert trail.failing == ""
    assert bed.events()[-1] == "checkpoint opened"


# --- the end ---


def test_stopping_while_a_job_runs(bed: Bed) -> None:
    """The end waits for the disk, and for what came meanwhile."""
    trail = bed.trail()
    trail.start()
    bed.passes(1)
    bed.threads.held = True
    trail.record("search", "ok", {})
    bed.passes(1)
    trail.record("search", "ok", {})
    ended = watched(trail.stop())
    bed.passes(1)
    assert results(ended) == ["..."]
    bed.threads.release()
    bed.passes()
    assert results(ended) == ["ok"]
    assert bed.events() == ["checkpoint started", "search", "search", "checkpoint stopped"]
    assert bed.clock.getDelayedCalls() == []


def test_stopping_on_a_full_disk(bed: Bed, disk: Disk) -> None:
    """It is tried once more; what cannot be written is told."""
    trail = bed.trail()
    trail.start()
    bed.passes(1)
    disk.room = 0
    for _ in range(3):
        trail.record("search", "ok", {})
    bed.passes(0.1)
    with capturedLogs() as events:
        ended = watched(trail.stop())
        bed.passes()
    assert results(ended) == ["ok"]
    assert told(events) == [
        "error: the audit trail ends without its last 4 records, which could not be written",
    ]
    assert bed.clock.getDelayedCalls() == []
    disk.room = None
    bed.process()
    assert [path.name for path in bed.folder.iterdir()] == ["audit.jsonl"]  # the lock was given up


def test_stopping_on_a_stuck_disk(bed: Bed) -> None:
    """The end does not wait for ever."""
    trail = bed.trail()
    trail.start()
    bed.passes(1)
    bed.threads.held = True
    trail.record("search", "ok", {})
    bed.passes(20)
    ended = watched(trail.stop())
    with capturedLogs() as events:
        bed.passes(9.9)
        assert results(ended) == ["..."]
        bed.passes(0.1)
    assert results(ended) == ["ok"]
    assert told(events)[-1] == "error: the audit trail ends without its last 2 records, which could not be written"


def test_stopping_after_a_loss(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap that is still to be told is told at the end."""
    monkeypatch.setattr(trails, "KEPT", 300)
    monkeypatch.setattr(trails, "SPARE", 0)
    trail = bed.trail()
    trail.start()
    bed.threads.held = True
    for _ in range(6):
        trail.record("search", "ok", {})
    trail.stop()
    bed.threads.release()
    bed.passes()
    assert bed.events()[-2:] == ["audit.gap", "checkpoint stopped"]
    assert verify([bed.path]).intact


# --- sinks ---


def test_sinks(bed: Bed, critical_events: list[LogEvent]) -> None:
    """Each gets every line as it stands in the file, begins and ends with the trail, and cannot hurt it."""

    class Bad(Copies):
        def write(self, record: object, line: bytes) -> None:
            raise ValueError("it is bad")

    good, bad = Copies(), Bad()
    good.stopping = Deferred()
    trail = bed.trail(sinks=[bad, good])
    trail.start()
    assert good.states == ["started"]
    assert len(critical_events) == 1
    trail.record("search", "ok", {})
    bed.passes(0.1)
    assert trail.rows() == [
        {"name": str(bed.path), "sent": 2, "dropped": 0, "queued": 0, "state": "running"},
        {"name": "copies", "sent": 0},
        {"name": "copies", "sent": 2},
    ]
    ended = watched(trail.stop())
    bed.passes(0.1)
    assert results(ended) == ["..."]
    good.stopping.callback(None)
    assert results(ended) == ["ok"]
    assert good.lines == bed.lines()
    assert [each["seq"] for each in good.records] == [1, 2, 3]
    assert good.states == ["started", "stopped"]
    assert len(critical_events) == 3
    critical_events.clear()
