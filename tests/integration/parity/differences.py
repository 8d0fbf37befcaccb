"""The listed differences between a direct transcript and one through the gate: `differences.toml`, read and applied.

A difference is a rule on normalised transcript lines::

    [[difference]]
    case = "login-*"              # shell patterns of case names, separated by blanks; "!pattern" takes away
    server = "*"                  # the same for servers
    side = "both"                 # whose lines: "direct", "gate" or "both"
    match = 'NO .*'               # a regular expression that must match within a line
    replace = "NO <text>"         # what the match becomes; "" for the whole line drops the line
    reason = "one sentence"

Rules are applied in the order of the file, and only where a case's transcripts differ.  A rule without which everything
would be equal as well is not needed; one needed nowhere is stale and fails the suite.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KEYS = {"case", "server", "side", "match", "replace", "reason"}


class DifferenceError(ValueError):
    """An entry that cannot be read."""


def _globs(patterns: str, name: str) -> bool:
    hit = False
    for pattern in patterns.split():
        if pattern.startswith("!"):
            hit = hit and not fnmatch.fnmatchcase(name, pattern[1:])
        else:
            hit = hit or fnmatch.fnmatchcase(name, pattern)
    return hit


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry of the list."""

    number: int
    case: str
    server: str
    side: str
    match: re.Pattern[str]
    replace: str
    reason: str

    def concerns(self, case: str, server: str) -> bool:
        """Whether the entry is about this case on this server."""
        return _globs(self.case, case) and _globs(self.server, server)

    def apply(self, lines: list[str], side: str) -> list[str]:
        """`lines` of that side with the rule applied; lines of the dialogue itself are left alone."""
        if self.side not in (side, "both"):
            return lines
        result: list[str] = []
        for line in lines:
            if not line.startswith("    "):
                result.append(line)
                continue
            changed = self.match.sub(self.replace, line[4:])
            if changed or not line[4:]:
                result.append("    " + changed)
        return result


def read(path: Path) -> list[Difference]:
    """The entries of the file."""
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text("utf-8")).get("difference", [])
    differences: list[Difference] = []
    for number, entry in enumerate(entries, 1):
        if unknown := set(entry) - _KEYS:
            raise DifferenceError(f"entry {number}: unknown {sorted(unknown)}")
        if missing := {"match", "replace", "reason"} - set(entry):
            raise DifferenceError(f"entry {number}: lacks {sorted(missing)}")
        if not str(entry["reason"]).strip():
            raise DifferenceError(f"entry {number}: gives no reason")
        differences.append(
            Difference(
                number,
                entry.get("case", "*"),
                entry.get("server", "*"),
                entry.get("side", "both"),
                re.compile(entry["match"]),
                entry["replace"],
                entry["reason"],
            )
        )
    return differences


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two transcripts after the listed differences, and the numbers of those that were needed."""

    direct: list[str]
    gate: list[str]
    needed: frozenset[int]

    @property
    def equal(self) -> bool:
        """Whether nothing unlisted differs."""
        return self.direct == self.gate


def _applied(entries: list[Difference], direct: list[str], gate: list[str]) -> tuple[list[str], list[str]]:
    for entry in entries:
        direct, gate = entry.apply(direct, "direct"), entry.apply(gate, "gate")
    return direct, gate


def compare(direct: list[str], gate: list[str], entries: list[Difference]) -> Comparison:
    """Compare two transcripts; `entries` are those that concern the case and the server."""
    if direct == gate:
        return Comparison(direct, gate, frozenset())
    new_direct, new_gate = _applied(entries, direct, gate)
    if new_direct != new_gate:
        return Comparison(new_direct, new_gate, frozenset(entry.number for entry in entries))
    kept = list(entries)
    for entry in entries:
        without = [other for other in kept if other is not entry]
        left, right = _applied(without, direct, gate)
        if left == right:
            kept = without
    return Comparison(new_direct, new_gate, frozenset(entry.number for entry in kept))
