"""What verification says of files that nobody has touched, and of what is none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from imapgate.audit import segments
from imapgate.audit.verify import verify
from tests.audit.trails import Bed


def test_a_stopped_gate(bed: Bed) -> None:
    """One line tells what is in a file."""
    bed.process(3, chain="c1")
    verdict = verify([bed.path])
    last = bed.records()[-1]["hash"]
    assert verdict.intact
    assert verdict.lines == (f"{bed.path}: 5 records, 2 checkpoints; chain c1 seq 1-5; last hash {last}",)
    assert (verdict.notes, verdict.summary) == ((), "whole: 5 records; signatures were not checked (--key)")


def test_many_chains(bed: Bed) -> None:
    """A line does not grow with them."""
    for number in range(6):
        bed.process(0, chain=f"c{number}")
    (line,) = verify([bed.path]).lines
    assert "; chain c0 seq 1-2, c1 seq 1-2, 3 more, c5 seq 1-2; " in line


def test_a_killed_gate(bed: Bed) -> None:
    """No clean end is a fault, until the next process has recorded the gap; a copy of a running gate's may end so."""
    bed.process(3, chain="c1", stop=False)
    (fault,) = verify([bed.path]).faults
    assert fault == (
        f"{bed.path}: chain c1: seq 4 is its last, and no clean end: the process was killed, or what followed was "
        "removed (the last checkpoint is seq 1)"
    )
    copied = verify([bed.path], open_end=True)
    assert copied.intact
    assert copied.notes == (f"chain c1: seq 4 is its last so far; {bed.path} is still written",)
    bed.process(0, chain="c2")
    verdict = verify([bed.path])
    assert verdict.intact
    assert verdict.notes == ("chain c1: seq 4 is its last, without a clean end; the gap is recorded",)


def test_a_running_gate(bed: Bed) -> None:
    """A file that is written just now may end anywhere, even within a line."""
    trail = bed.trail(chain="c1")
    trail.start()
    assert verify([bed.path]).intact
    assert verify([bed.path]).lines == (f"{bed.path}: no record",)
    bed.passes(1)
    with bed.path.open("ab") as file:
        file.write(b'{"ch')
    assert verify([bed.path]).intact
    trail._file.close()
    assert len(verify([bed.path]).faults) == 2
    assert verify([bed.path], open_end=True).intact


def test_no_record(bed: Bed, tmp_path: Path) -> None:
    """An empty file, and one that is none of ours."""
    bed.path.touch()
    assert verify([bed.path]).faults == (f"{bed.path}: there is no record in it",)
    bed.path.write_bytes(b"torn")
    assert verify([bed.path], open_end=True).faults == (f"{bed.path}: there is no record in it",)
    bed.path.write_bytes(b"Subject: hello\n\n")
    verdict = verify([bed.path])
    assert verdict.faults == (f"{bed.path}: line 1: this is no record",)
    assert verdict.lines == (f"{bed.path}: BROKEN at line 1: this is no record",)
    assert verdict.summary == "BROKEN: 1 fault"
    with pytest.raises(IsADirectoryError):
        verify([tmp_path])


def test_a_line_without_end(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than any record is not read into memory, and is a fault."""
    monkeypatch.setattr(segments, "LINE_MOST", 1000)
    bed.process(1, chain="c1")
    with bed.path.open("ab") as file:
        file.write(b"x" * 5000)
    assert verify([bed.path]).faults == (f"{bed.path}: line 4: this is no record, seq 4 of chain c1 is expected",)


def test_compressed(bed: Bed) -> None:
    """Rotated files are read as logrotate leaves them."""
    bed.process(1)
    packed = bed.folder / "audit.jsonl.2.gz"
    packed.write_bytes(gzip.compress(bed.path.read_bytes()))
    verdict = verify([packed])
    assert (verdict.intact, verdict.files[0].records) == (True, 3)


def test_hashes_that_must_be_there(bed: Bed) -> None:
    """What was noted elsewhere shows whether the end was cut off behind a clean end."""
    bed.process(1)
    before = bed.path.read_bytes()
    bed.process(1)
    noted = {bed.records()[-1]["hash"], bed.records()[1]["hash"]}
    assert verify([bed.path], hashes=noted).intact
    bed.path.write_bytes(before)
    assert verify([bed.path]).intact
    (fault,) = verify([bed.path], hashes=noted).faults
    assert fault.startswith("there is no record with the hash ")
