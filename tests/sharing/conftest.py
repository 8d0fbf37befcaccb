"""What the tests of shares play their transcripts with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.sharing.bench import Bench

Play = Callable[..., Bench]


@pytest.fixture(params=[False, True], ids=["whole", "octets"])
def play(request: pytest.FixtureRequest) -> Play:
    """Make a share whose parties' lines come in one chunk, or octet by octet: the result is the same."""
    return partial(Bench, octets=request.param)
