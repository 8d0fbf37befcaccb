r"""The listed differences between a direct transcript and one through the gate: `differences.toml`, read and applied.

There are two kinds of rule, both on normalised transcripts.  One says what a line looks like that differs by nature::

    [[difference]]
    case = "login-*"              # shell patterns of case names, separated by blanks; "!pattern" takes away
    server = "*"                  # the same for servers
    match = 'CAPABILITY .*'       # a regular expression that must match within a response line of either side
    replace = "CAPABILITY <list>" # what the match becomes
    reason = "one sentence"

The other says what may stand on each side, and is narrower: only where the one is found on the direct side and the
other, behind the same step of the dialogue, on the gate's, and both give the same replacement, both are replaced::

    direct = '(\S+) BAD .*'       # regular expressions for one or more whole response lines; further lines are
    gate = '(\S+) BAD Unknown .*' # written "\n    response" or, for a step, "\nC: a1 NOOP"
    replace = '\1 BAD <unknown>'

Rules are applied in the order of the file, and only where a case's transcripts differ.  A rule without which everything
would be equal as well is not needed; one needed nowhere is stale and fails the suite.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KEYS = {"case", "server", "match", "direct", "gate", "replace", "reason"}
_KINDS = ({"match"}, {"direct", "gate"})


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
    """One entry of the list; `patterns` is one for each line, or one for each side."""

    number: int
    case: str
    server: str
    patterns: tuple[re.Pattern[str], ...]
    replace: str
    reason: str

    def concerns(self, case: str, server: str) -> bool:
        """Whether the entry is about this case on this server."""
        return _globs(self.case, case) and _globs(self.server, server)

    def apply(self, direct: list[str], gate: list[str]) -> tuple[list[str], list[str]]:
        """Both transcripts with the rule applied."""
        if len(self.patterns) == 1:
            return self._each_line(direct), self._each_line(gate)
        return self._both(direct, gate)

    def _each_line(self, lines: list[str]) -> list[str]:
        """`lines` with what matches replaced; lines of the dialogue itself are left alone."""
        match = self.patterns[0]
        return ["    " + match.sub(self.replace, line[4:]) if line.startswith("    ") else line for line in lines]

    def _both(self, direct: list[str], gate: list[str]) -> tuple[list[str], list[str]]:
        texts = "\n".join(direct), "\n".join(gate)
        left, right = (self._found(pattern, text) for pattern, text in zip(self.patterns, texts, strict=True))
        pairs: list[tuple[re.Match[str], re.Match[str]]] = []
        for found in right:
            partner = next((other for other in left if self._as(other) == self._as(found)), None)
            if partner is not None:
                left.remove(partner)
                pairs.append((partner, found))
        if not pairs:
            return direct, gate
        sides = zip(texts, zip(*pairs, strict=True), strict=True)
        one, other = (self._replaced(text, sorted(found, key=re.Match.start)) for text, found in sides)
        return one.split("\n"), other.split("\n")

    @staticmethod
    def _found(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
        return list(pattern.finditer(text))

    def _as(self, found: re.Match[str]) -> tuple[int, str]:
        """What has to be the same for a pair: how many steps stand before it, and what it becomes."""
        steps = sum(not line.startswith("    ") for line in found.string[: found.start()].splitlines())
        return steps, found.expand(self.replace)

    def _replaced(self, text: str, found: Sequence[re.Match[str]]) -> str:
        for one in reversed(found):
            text = f"{text[: one.start()]}    {one.expand(self.replace)}{text[one.end() :]}"
        return text


def _patterns(entry: dict[str, Any]) -> tuple[re.Pattern[str], ...]:
    if "match" in entry:
        return (re.compile(entry["match"]),)
    return tuple(re.compile(f"^    (?:{entry[side]})$", re.MULTILINE) for side in ("direct", "gate"))


def read(path: Path) -> list[Difference]:
    """The entries of the file."""
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text("utf-8")).get("difference", [])
    differences: list[Difference] = []
    for number, entry in enumerate(entries, 1):
        if unknown := set(entry) - _KEYS:
            raise DifferenceError(f"entry {number}: unknown {sorted(unknown)}")
        if missing := {"replace", "reason"} - set(entry):
            raise DifferenceError(f"entry {number}: lacks {sorted(missing)}")
        if set(entry) & {"match", "direct", "gate"} not in _KINDS:
            raise DifferenceError(f"entry {number}: has to have either match, or direct and gate")
        if not str(entry["reason"]).strip():
            raise DifferenceError(f"entry {number}: gives no reason")
        differences.append(
            Difference(
                number,
                entry.get("case", "*"),
                entry.get("server", "*"),
                _patterns(entry),
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
        direct, gate = entry.apply(direct, gate)
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
