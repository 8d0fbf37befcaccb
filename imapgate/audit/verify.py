"""Whether files of the audit trail are whole: alone, and as parts of the chains that run through them.

Found are a changed, removed, added or moved record; a file that is missing between two; and an end that is not the
end of a process.  Not to be found in the files themselves is that the newest records were cut off exactly behind a
clean end: who fears that keeps the last hash elsewhere, or a copy (the sinks), and passes it as one that must be there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from imapgate.audit.segments import Examined, Segment, examine


class Verdict(NamedTuple):
    """What was found.

    :ivar lines: one sentence for each file, in the order they were given
    :ivar faults: what is wrong, a sentence each, with the file; none: the trail is whole
    :ivar notes: what cannot be told from these files, or should be known
    :ivar summary: the verdict in one sentence
    """

    files: tuple[Examined, ...]
    lines: tuple[str, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    summary: str

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


class _Placed(NamedTuple):
    """A segment, the file it is in, and whether it stands last there."""

    file: Examined
    segment: Segment
    at_end: bool


def verify(
    paths: Sequence[Path],
    keys: Sequence[Ed25519PublicKey] = (),
    *,
    open_end: bool = False,
    hashes: Collection[str] = frozenset(),
) -> Verdict:
    """Verify files, given in any order.

    :param keys: each checkpoint must be signed by one of them; none: signatures are not looked at
    :param hashes: records that must be there, known by their hashes

    :param open_end: the files were copied while a gate wrote them: an end without a clean end is none of a fault
    :raise OSError: one cannot be read.
    """
    files = tuple(examine(path, keys, hashes) for path in paths)
    faults = [f"{file.path}: line {file.fault.line}: {file.fault.text}" for file in files if file.fault is not None]
    notes: list[str] = []
    if not faults:  # else what follows would say the same again
        placed = [_Placed(file, segment, segment is file.segments[-1]) for file in files for segment in file.segments]
        faults += _bare(files, open_end=open_end)
        faults += _joints(placed, notes)
        faults += _ends(placed, files, notes, open_end=open_end)
        held = set().union(*(file.held for file in files))
        faults += [f"there is no record with the hash {each}" for each in sorted(hashes) if each not in held]
    return Verdict(files, tuple(map(_line, files)), tuple(faults), tuple(notes), _summary(files, faults, bool(keys)))


def _bare(files: Sequence[Examined], *, open_end: bool) -> Iterator[str]:
    """Whether each file holds whole records, and at least one."""
    for file in files:
        if file.torn or file.writing:
            continue
        if not file.segments:
            yield f"{file.path}: there is no record in it"
        elif file.rest and not open_end:
            yield f"{file.path}: {file.rest} octets stand behind its last whole line"


def _joints(placed: Sequence[_Placed], notes: list[str]) -> Iterator[str]:
    """Whether each chain's segments follow each other."""
    for chain, parts in groupby(
        sorted(placed, key=lambda each: (each.segment.chain, each.segment.first)), lambda each: each.segment.chain
    ):
        row = list(parts)
        if (first := row[0].segment.first) > 1:
            notes.append(f"chain {chain}: seq 1 to {first - 1} are not in these files")
        for (before, left, _), (after, right, _) in pairwise(row):
            expected = left.last.seq + 1
            if right.first > expected:
                lost = f"seq {expected} to {right.first - 1} of chain {chain}"
                yield f"{after.path}: line {right.line}: {lost} are missing"
            elif right.first < expected:
                yield f"{after.path}: line {right.line}: seq {right.first} of chain {chain} is in {before.path}, too"
            elif right.before != left.last.hash:
                yield (
                    f"{after.path}: line {right.line}: seq {right.first} of chain {chain} does not follow "
                    f"the record before it, in {before.path}"
                )


def _ends(placed: Sequence[_Placed], files: Sequence[Examined], notes: list[str], *, open_end: bool) -> Iterator[str]:
    """Whether each chain's last segment ends as it should."""
    gaps = set().union(*(file.gaps for file in files))
    last: dict[str, _Placed] = {}
    for each in placed:
        if each.segment.chain not in last or each.segment.first > last[each.segment.chain].segment.first:
            last[each.segment.chain] = each
    for file, segment, at_end in last.values():
        where = f"chain {segment.chain}: seq {segment.last.seq}"
        if segment.ended == "rotated":
            notes.append(f"{where} is its last in these files; it goes on in another one")
        elif segment.last.hash in gaps:
            notes.append(f"{where} is its last, without a clean end; the gap is recorded")
        elif at_end and (file.writing or open_end):
            notes.append(f"{where} is its last so far; {file.path} is still written")
        elif segment.ended != "stopped":
            yield (
                f"{file.path}: {where} is its last, and no clean end: the process was killed, or what followed was "
                f"removed (the last checkpoint is seq {segment.checked})"
            )
    for file in files:
        if file.lost:
            notes.append(f"{file.path}: {file.lost} records are lost, as the gaps in it say")


def _line(file: Examined) -> str:
    if file.torn:
        return f"{file.path}: a torn line that was moved aside"
    if file.fault is not None:
        return f"{file.path}: BROKEN at line {file.fault.line}: {file.fault.text}"
    parts = [f"{each.chain} seq {each.first}-{each.last.seq}" for each in file.segments]
    shown = ", ".join(parts if len(parts) <= 4 else [*parts[:2], f"{len(parts) - 3} more", parts[-1]])
    if not parts:
        return f"{file.path}: no record"
    checkpoints = sum(each.checkpoints for each in file.segments)
    last = file.segments[-1].last.hash
    return f"{file.path}: {file.records} records, {checkpoints} checkpoints; chain {shown}; last hash {last}"


def _summary(files: Sequence[Examined], faults: Sequence[str], signatures: bool) -> str:
    if faults:
        return f"BROKEN: {len(faults)} fault{'s' if len(faults) > 1 else ''}"
    records = sum(file.records for file in files)
    told = "every checkpoint is signed by the key" if signatures else "signatures were not checked (--key)"
    return f"whole: {records} records; {told}"
