"""Whether a gate's pools add up, by what it tells its operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imapgate.admin.ctl import ask
from imapgate.admin.operator import COMMANDS

Rows = Sequence[Mapping[str, Any]]
ReadPools = Callable[[], Rows]

STAGES = ("leased", "idle", "connecting", "closing")


def by_control(control: Path) -> ReadPools:
    """Read them as ``imapgate ctl pools`` does, over the control socket."""
    return lambda: list(ask(control, COMMANDS["pools"], {}))


def add_up(rows: Rows) -> None:
    """Every connection is in exactly one stage: Σ(leased + idle + connecting + closing) = total."""
    for row in rows:
        assert sum(row[stage] for stage in STAGES) == row["total"], f"a pool that does not add up: {row}"
        assert min(row[stage] for stage in STAGES) >= 0, f"less than none: {row}"


def at_rest(rows: Rows) -> bool:
    """Whether nobody holds anything any more, and nobody waits."""
    add_up(rows)
    return not any(row["leased"] or row["connecting"] or row["closing"] or row["waiting"] for row in rows)
