"""Whatever is done to the files afterwards, verification finds it (THREATS A48)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from imapgate.audit.checkpoint import Signer
from imapgate.audit.record import first_hash, seal
from imapgate.audit.verify import Verdict, verify
from tests.audit.trails import FIELDS, Bed

KEY = Ed25519PrivateKey.generate()


@cache
def history() -> dict[str, bytes]:
    """The files of a gate that was stopped, rotated, killed and stopped again, while a second one ran beside it."""
    with tempfile.TemporaryDirectory() as folder:
        bed = Bed(Path(folder))
        signer = Signer(KEY)
        bed.process(2, signer=signer)
        trail = bed.trail(signer=signer)
        trail.start()
        trail.record("search", "ok", {})
        bed.process(1, signer=signer)
        bed.path.rename(bed.folder / "audit.jsonl.1")
        trail.reopen()
        trail.record("message.access", "ok", FIELDS)
        bed.passes(1)
        bed.kill(trail)
        with bed.path.open("ab") as file:
            file.write(b'{"chain')
        bed.process(1, signer=signer)
        return {path.name: path.read_bytes() for path in bed.folder.iterdir()}


@contextmanager
def folder(files: dict[str, bytes]) -> Iterator[list[Path]]:
    """Files of that content."""
    with tempfile.TemporaryDirectory() as name:
        for file, content in files.items():
            (Path(name) / file).write_bytes(content)
        yield [Path(name) / file for file in files]


def judged(files: dict[str, bytes], **more: bool) -> Verdict:
    """What is found in files of that content."""
    with folder(files) as paths:
        return verify(paths, [KEY.public_key()], **more)


RECORDS = [name for name in history() if "torn" not in name]
PLACES = [(name, number) for name in RECORDS for number in range(history()[name].count(b"\n"))]


def changed(name: str, content: bytes) -> dict[str, bytes]:
    """The history with one file changed."""
    return {**history(), name: content}


def test_untouched() -> None:
    """As it was written it is whole; a gap and a torn line are known, and nothing is wrong."""
    verdict = judged(history())
    assert verdict.faults == ()
    assert sorted(name.partition("-")[0] for name in history()) == [
        "audit",
        "audit.jsonl",
        "audit.jsonl.1",
        "audit.jsonl.torn",
    ]
    assert len(verdict.notes) == 1
    assert "the gap is recorded" in verdict.notes[0]


@given(st.sampled_from(RECORDS), st.data())
def test_a_changed_byte(name: str, data: st.DataObject) -> None:
    """Any other byte in any place is found, and the number of its record is named."""
    content = history()[name]
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != content[at]))
    verdict = judged(changed(name, content[:at] + bytes([other]) + content[at + 1 :]))
    assert not verdict.intact
    fault = next((file.fault for file in verdict.files if file.fault is not None), None)
    line = content[:at].count(b"\n")
    if fault is None:  # the last newline
        assert at == len(content) - 1
    else:
        assert fault.line == line + 1
        earlier = content[: content.rfind(b"\n", 0, at) + 1].splitlines()
        same = json.loads(content.splitlines()[line])["seq"]
        assert fault.seq in {same, json.loads(earlier[-1])["seq"] + 1 if earlier else 0, same - 1}


def test_every_digit_of_a_hash() -> None:
    """A hash is compared to the last digit."""
    content = history()["audit.jsonl"]
    at = content.index(b'"hash":"') + len('"hash":"')
    for place in range(at, at + 64):
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        assert not judged(changed("audit.jsonl", bytes(spoilt))).intact


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_removed_line(place: tuple[str, int]) -> None:
    """Any removed line is found, and named where others of its chain stand around it."""
    name, number = place
    lines = history()[name].splitlines(keepends=True)
    around = [json.loads(line) for line in lines[max(number - 1, 0) : number + 2]]
    del lines[number]
    verdict = judged(changed(name, b"".join(lines)))
    assert not verdict.intact
    if len(around) == 3 and len({each["chain"] for each in around}) == 1:
        assert [file.fault.seq for file in verdict.files if file.fault] == [around[1]["seq"]]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_doubled_line(place: tuple[str, int]) -> None:
    """Any line that is there twice is found."""
    name, number = place
    lines = history()[name].splitlines(keepends=True)
    lines.insert(number, lines[number])
    assert not judged(changed(name, b"".join(lines))).intact


@given(st.data())
def test_moved_lines(data: st.DataObject) -> None:
    """Any two lines that have changed places are found, in one file or between two."""
    files = {name: history()[name].splitlines(keepends=True) for name in RECORDS}
    (name, number), (other, place) = data.draw(st.lists(st.sampled_from(PLACES), min_size=2, max_size=2, unique=True))
    files[name][number], files[other][place] = files[other][place], files[name][number]
    assert not judged({**history(), **{each: b"".join(lines) for each, lines in files.items()}}).intact


@given(st.sampled_from(RECORDS), st.data())
def test_a_cut_end(name: str, data: st.DataObject) -> None:
    """Any end that is cut off is found."""
    content = history()[name]
    assert not judged(changed(name, content[: data.draw(st.integers(0, len(content) - 1))])).intact


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_cut_beginning(place: tuple[str, int]) -> None:
    """Any beginning that is cut off is found."""
    name, number = place
    lines = history()[name].splitlines(keepends=True)
    if number:
        assert not judged(changed(name, b"".join(lines[number:]))).intact


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_an_inserted_line(place: tuple[str, int]) -> None:
    """A record that was added is found, even where it fits the one before it."""
    name, number = place
    lines = history()[name].splitlines(keepends=True)
    before = json.loads(lines[number])
    record = {**FIELDS, "event": "search", "outcome": "ok", "chain": before["chain"], "seq": before["seq"] + 1}
    lines.insert(number + 1, seal(record, before["hash"])[0])
    assert not judged(changed(name, b"".join(lines))).intact


@pytest.mark.parametrize("gone", ["audit.jsonl", "audit.jsonl.1"])
def test_a_missing_file(gone: str) -> None:
    """A file that is missing in the middle is found; that one is missing before or behind is noted."""
    verdict = judged({name: content for name, content in history().items() if name != gone})
    assert verdict.faults == ()
    assert any("are not in these files" in note or "goes on in another one" in note for note in verdict.notes)


def test_a_missing_file_in_the_middle(bed: Bed) -> None:
    """The numbers that are missing are named."""
    trail = bed.trail(chain="c1")
    trail.start()
    for number in (3, 2, 1):
        trail.record("search", "ok", {})
        bed.path.rename(bed.folder / f"audit.jsonl.{number}") if bed.path.exists() else None
        trail.reopen()
        bed.passes(1)
    trail.stop()
    bed.passes(1)
    paths = sorted(bed.folder.iterdir(), reverse=True)
    assert verify(paths).faults == ()
    assert verify(paths[::-1]).faults == ()
    left = [path for path in paths if path.name != "audit.jsonl.2"]
    assert verify(left).faults == (f"{bed.folder}/audit.jsonl.1: line 1: seq 4 to 6 of chain c1 are missing",)
    twice = [*paths, paths[0]]
    assert len(verify(twice).faults) == 1
    assert "is in" in verify(twice).faults[0]


def rehashed(content: bytes, change: dict[int, dict[str, object]], chain: str) -> bytes:
    """A chain whose records were changed (by their numbers) and whose hashes are right again: no key is needed."""
    lines, before = [], first_hash(chain)
    for line in content.splitlines():
        record = json.loads(line)
        del record["hash"]
        record.update(change.get(record["seq"], {}))
        line, before = seal(record, before)
        lines.append(line)
    return b"".join(lines)


def test_a_forged_chain(bed: Bed) -> None:
    """Hashes that were made anew do not help: the next signature no longer fits; without a key it cannot be told."""
    bed.process(4, chain="c1", signer=Signer(KEY))
    content = bed.path.read_bytes()
    for change in (
        {3: {"user.name": "mallory"}},
        {6: {"reason": "time"}},
        {1: {"time": "x"}},
        {6: {"event": "search"}},
    ):
        forged = rehashed(content, change, "c1")
        verdict = judged({"audit.jsonl": forged})
        assert not verdict.intact, change
    forged = rehashed(content, {3: {"user.name": "mallory"}}, "c1")
    verdict = judged({"audit.jsonl": forged})
    assert verdict.faults[0].endswith("line 6: the checkpoint seq 6 of chain c1 is not signed by the key")
    with folder({"audit.jsonl": forged}) as paths:
        assert verify(paths).intact
        assert "signatures were not checked" in verify(paths).summary


def test_a_forged_chain_without_checkpoints(bed: Bed) -> None:
    """A chain that was made anew from its first record on cannot do without a signed checkpoint there."""
    bed.process(4, chain="c1", signer=Signer(KEY))
    everything = {seq: {"event": "search"} for seq in range(1, 7)}
    verdict = judged({"audit.jsonl": rehashed(bed.path.read_bytes(), everything, "c1")}, open_end=True)
    assert verdict.faults[0].endswith("line 2: seq 2 of chain c1 should be a checkpoint: a chain begins with one")


def test_a_removed_chain(bed: Bed) -> None:
    """A whole process's records that are missing are found by what the next one names."""
    for _ in range(3):
        bed.process(1)
    lines = bed.lines()
    assert verify([bed.path]).intact
    bed.path.write_bytes(b"".join(lines[:3] + lines[6:]))
    (fault,) = verify([bed.path]).faults
    assert "line 4: what stood before seq 1 of chain " in fault


def test_a_chain_that_begins_in_the_middle(bed: Bed) -> None:
    """Behind another chain only a first record can stand, whatever it names."""
    bed.process(0)
    before = bed.records()[-1]["hash"]
    record = {"chain": "c2", "seq": 5, "event": "audit.checkpoint", "reason": "stopped", "previous": before}
    bed.path.write_bytes(bed.path.read_bytes() + seal(record, before)[0])
    (fault,) = verify([bed.path]).faults
    assert fault.endswith("line 3: what stood before seq 5 of chain c2 is not there")


def test_an_end_in_the_middle(bed: Bed) -> None:
    """Only the last chain of a file may still be open: one in the middle without its end needs its gap recorded."""
    bed.process(0, chain="c1", stop=False)
    last = bed.records()[-1]["hash"]
    record = {"chain": "c2", "seq": 1, "event": "audit.checkpoint", "reason": "started", "previous": last}
    bed.path.write_bytes(bed.path.read_bytes() + seal(record, first_hash("c2"))[0])
    (fault,) = verify([bed.path], open_end=True).faults
    assert "chain c1: seq 1 is its last, and no clean end" in fault


def test_a_joint_that_does_not_fit(bed: Bed) -> None:
    """A newer file whose first record names another hash than the older one ends with is found."""
    trail = bed.trail(chain="c1")
    trail.start()
    bed.passes(1)
    bed.path.rename(bed.folder / "audit.jsonl.1")
    trail.reopen()
    bed.passes(1)
    trail.stop()
    bed.passes(1)
    lines, before = [], "0" * 64
    for line in bed.lines():
        record = json.loads(line)
        del record["hash"]
        if "previous" in record:
            record["previous"] = before
        line, before = seal(record, before)
        lines.append(line)
    bed.path.write_bytes(b"".join(lines))
    assert verify([bed.path]).intact
    (fault,) = verify([bed.path, bed.folder / "audit.jsonl.1"]).faults
    assert "seq 3 of chain c1 does not follow the record before it" in fault
