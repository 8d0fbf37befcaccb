"""What waits for a slow reader: first in, first out, in memory and beyond that in a file, and bounded."""

from __future__ import annotations

from pathlib import Path
from tempfile import SpooledTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.net import spool as module
from imapgate.net.spool import Spool


def taken(spool: Spool, most: int = 1000) -> bytes:
    """Everything that is in it."""
    pieces = []
    while spool:
        pieces.append(spool.take(most))
        assert 0 < len(pieces[-1]) <= most
    return b"".join(pieces)


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=30), st.integers(1, 40)), max_size=30), st.integers(0, 50))
def test_first_in_first_out(steps: list[bytes | int], memory: int) -> None:
    """Whatever is put and taken in turn, it comes out as it went in, whether a file is needed or not."""
    spool, there = Spool(memory, 2000), b""
    for step in steps:
        if isinstance(step, bytes):
            assert spool.put(step)
            there += step
        else:
            assert spool.take(step) == there[:step]
            there = there[step:]
        assert len(spool) == len(there)
        assert bool(spool) is bool(there)
    assert taken(spool) == there


def test_no_more_than_so_much() -> None:
    """What finds no room is not kept, and what was there is not touched."""
    spool = Spool(10, 20)
    assert spool.put(b"a" * 15)
    assert not spool.put(b"b" * 6)
    assert spool.put(b"c" * 5)
    assert not spool.put(b"d")
    assert taken(spool) == b"a" * 15 + b"c" * 5
    assert spool.put(b"e" * 20)  # it is empty again


def test_memory_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is made only when what waits is more than is to be kept in memory, and goes with it."""
    made: list[str] = []

    class Watched(SpooledTemporaryFile[bytes]):
        def rollover(self) -> None:
            made.append("file")
            super().rollover()

    monkeypatch.setattr(module, "SpooledTemporaryFile", lambda max_size: Watched(max_size=max_size, dir=str(tmp_path)))
    spool = Spool(10, 100)
    spool.put(b"a" * 10)
    assert made == []
    spool.put(b"b")
    assert made == ["file"]
    assert taken(spool) == b"a" * 10 + b"b"
    assert list(tmp_path.iterdir()) == []


def test_closed() -> None:
    """Nothing is left of what is closed, and nothing is there to be taken."""
    spool = Spool(10, 100)
    spool.close()
    spool.put(b"abc")
    spool.close()
    assert not spool
    assert spool.take(10) == b""
    assert spool.put(b"d" * 100)
