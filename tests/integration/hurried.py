"""A gate whose times are not the usual ones, for tests that wait for one to pass, and a clock that jumps.

``python -m tests.integration.hurried MODULE.NAME=SECONDS … -- …`` does what ``twistd …`` does, with these constants
of its own process replaced.  Nothing in the product knows of this.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping
from typing import Any

from twisted.python.reflect import namedAny
from twisted.scripts.twistd import run

from tests.integration.gate import Gate

JUMPS = "jumps"
"""In place of a constant's name: by how many seconds the wall clock is ahead, and behind, at every other look."""


class HurriedGate(Gate):
    """A gate with other times: `seconds` by the dotted path of the constant."""

    def __init__(self, seconds: Mapping[str, float], *arguments: Any, **tables: Any) -> None:
        """As `Gate`, with the times before."""
        super().__init__(*arguments, **tables)
        self.seconds = dict(seconds)

    def command(self) -> list[str]:
        """The command line: this module instead of twistd."""
        times = [f"{path}={seconds}" for path, seconds in self.seconds.items()]
        return [sys.executable, "-m", "tests.integration.hurried", *times, "--", *super().command()[1:]]


def hurry(path: str, seconds: float) -> None:
    """Give a constant another value; it must be there."""
    module, _, name = path.rpartition(".")
    holder = namedAny(module)  # type: ignore[no-untyped-call]
    assert isinstance(getattr(holder, name), float)
    setattr(holder, name, seconds)


def jump(seconds: float) -> None:
    """Let the wall clock jump to and fro."""
    true, offsets = time.time, itertools.cycle((seconds, -seconds))
    time.time = lambda: true() + next(offsets)


if __name__ == "__main__":
    end = sys.argv.index("--")
    for pair in sys.argv[1:end]:
        what, _, value = pair.partition("=")
        if what == JUMPS:
            jump(float(value))
        else:
            hurry(what, float(value))
    del sys.argv[1 : end + 1]
    run()  # type: ignore[no-untyped-call]
