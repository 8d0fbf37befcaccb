"""How much memory a running gate takes: the figures of ``benchmarks/memory.py``, held to their bounds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import memory  # type: ignore[import-not-found]


@pytest.mark.parametrize(
    ("figure", "count"),
    [("stalled_readers", 500), ("announcements", 1000), ("idle_connection", 1000)],
)
def test_a15_a42_memory(figure: str, count: int) -> None:
    """Stalled readers, announced literals and idle connections stay within their bounds (THREATS A15, A42)."""
    assert getattr(memory, figure)(count) <= memory.BOUNDS[figure]
