"""Reads files of the audit trail record by record, and checks each against the one before in its file.

Knows one file at a time: whether files fit together is for :mod:`imapgate.audit.verify`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from imapgate.audit.checkpoint import signed_by
from imapgate.audit.file import clean_end
from imapgate.audit.lock import locked
from imapgate.audit.record import Read, first_hash, hashed, read

LINE_MOST = 16 << 20
"""Octets; what is longer is no record."""

_TORN = re.compile(r"\.jsonl\.torn-")


class Fault(NamedTuple):
    """The first thing that is wrong with a file.

    :ivar seq: the number of the first record that is broken; 0: it cannot be told
    :ivar line: where it should stand, from 1
    """

    seq: int
    line: int
    text: str


@dataclass(slots=True)
class Segment:
    """Records of one chain that follow each other in one file.

    :ivar before: the hash before its first record
    :ivar line: where it begins in its file
    :ivar checked: the number of the last checkpoint; 0: there is none
    """

    chain: str
    first: int
    before: str
    line: int
    last: Read
    checked: int = 0
    checkpoints: int = 0

    @property
    def ended(self) -> str:
        """How it ends on purpose: ``stopped``, ``rotated``; or empty."""
        if clean_end(self.last):
            return "stopped"
        rotated = self.last.record.get("event") == "audit.checkpoint" and self.last.record.get("reason") == "rotated"
        return "rotated" if rotated else ""


@dataclass(slots=True)
class Examined:
    """What was found in one file.

    :ivar gaps: the hashes of records behind which a gap is recorded
    :ivar lost: how many records the gaps say are lost
    :ivar torn: this is a torn line that was moved aside, and was not examined
    :ivar writing: a gate writes it just now
    :ivar rest: octets behind the last whole line
    :ivar held: those of the wanted hashes that are in it
    """

    path: Path
    records: int = 0
    segments: list[Segment] = field(default_factory=list)
    gaps: set[str] = field(default_factory=set)
    lost: int = 0
    torn: bool = False
    writing: bool = False
    rest: int = 0
    held: set[str] = field(default_factory=set)
    fault: Fault | None = None


def examine(path: Path, keys: Sequence[Ed25519PublicKey] = (), wanted: Collection[str] = frozenset()) -> Examined:
    """Read a file, up to the first fault.

    :param keys: each checkpoint must be signed by one of them; none: signatures are not looked at
    :param wanted: hashes to look out for
    :raise OSError: it cannot be read.
    """
    found = Examined(path)
    if _TORN.search(path.name):
        found.torn = True
        return found
    with open(path, "rb") as file:
        found.writing = locked(file.fileno())
        for number, line in enumerate(_lines(path, file), 1):
            if not line.endswith(b"\n") and len(line) <= LINE_MOST:
                found.rest = len(line)
                break
            found.fault = _next(found, number, line, keys)
            if found.fault is not None:
                break
            if (last := found.segments[-1].last.hash) in wanted:
                found.held.add(last)
    return found


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    source = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
    try:
        while line := source.readline(LINE_MOST + 1):
            yield line
    except (EOFError, zlib.error) as error:
        raise OSError(f"{path}: {error}") from None


def _next(found: Examined, number: int, line: bytes, keys: Sequence[Ed25519PublicKey]) -> Fault | None:
    """Take one more line; return what is wrong with it."""
    segment = found.segments[-1] if found.segments else None
    this = read(line)
    if this is None:
        if segment is None:
            return Fault(0, number, "this is no record")
        seq = segment.last.seq + 1
        return Fault(seq, number, f"this is no record, seq {seq} of chain {segment.chain} is expected")
    if segment is not None and this.chain == segment.chain:
        seq, before = segment.last.seq + 1, segment.last.hash
        if this.seq != seq:
            return Fault(seq, number, f"seq {seq} of chain {this.chain} is expected, this is seq {this.seq}")
    else:
        if not _may_begin(this, segment):
            seq = this.seq - 1 if segment is None else segment.last.seq + 1
            return Fault(seq, number, f"what stood before seq {this.seq} of chain {this.chain} is not there")
        before = first_hash(this.chain) if this.seq == 1 else this.previous
        segment = Segment(this.chain, this.seq, before, number, this)
        found.segments.append(segment)
    if hashed(before, this.body) != this.hash:
        return Fault(this.seq, number, f"seq {this.seq} of chain {this.chain} is not what was recorded there")
    segment.last = this
    found.records += 1
    return _marks(found, segment, number, before, keys)


def _may_begin(this: Read, segment: Segment | None) -> bool:
    """Whether a chain may begin here (behind another one, or in front), or go on in a new file."""
    if segment is None:
        return bool(this.previous) == (this.seq != 1)
    return this.seq == 1 and this.previous == segment.last.hash


def _marks(
    found: Examined, segment: Segment, number: int, before: str, keys: Sequence[Ed25519PublicKey]
) -> Fault | None:
    """Take a checkpoint or a gap for what it says."""
    record, seq = segment.last.record, segment.last.seq
    if record.get("event") == "audit.checkpoint":
        if keys and not any(signed_by(record, before, key) for key in keys):
            return Fault(seq, number, f"the checkpoint seq {seq} of chain {segment.chain} is not signed by the key")
        segment.checked = seq
        segment.checkpoints += 1
    elif seq > segment.first and not segment.checked:  # only a gap may stand before the first one
        return Fault(seq, number, f"seq {seq} of chain {segment.chain} should be a checkpoint: a chain begins with one")
    elif record.get("event") == "audit.gap":
        found.gaps.add(segment.last.previous)
        lost = record.get("gap.lost")
        found.lost += lost if isinstance(lost, int) else 0
    return None
