"""What is unusual in a period, by rules that fit into a sentence each; whether it is wrong, people decide.

Knows what was counted.  Knows no page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from imapgate.audit.findings import Findings
from imapgate.audit.tallies import Deeds, Person, Seen, Whose

SETTLED = timedelta(days=7)
"""For so long after somebody first appears, everything is new; in a short period, for a quarter of it."""

NIGHT = frozenset((22, 23, 0, 1, 2, 3, 4, 5))
"""The hours from 22:00 to 06:00."""

DAYS_LEAST = 5
"""Days with activity from which on somebody's habits are known."""

RARELY = 0.1
"""The part of somebody's days up to which an hour is a rare one."""

BULK_LEAST = 500
"""Messages fetched in one hour that stand out, for whoever reads fewer on others."""


class Newcomer(NamedTuple):
    """A network or a program that somebody had not used before.

    :ivar kind: ``network`` or ``program``
    """

    user: str
    kind: str
    what: str
    seen: Seen
    known: tuple[str, ...]


class OddHour(NamedTuple):
    """A rare hour of the night in which somebody was active."""

    user: str
    hour: int
    days: int
    of: int
    recent: tuple[tuple[str, str], ...]


def _moment(time: str) -> datetime:
    return datetime.fromisoformat(time)


def settling(findings: Findings) -> timedelta:
    """How long after somebody first appears nothing counts as new."""
    if not findings.first:
        return SETTLED
    return min(SETTLED, (_moment(findings.last) - _moment(findings.first)) / 4)


def newcomers(findings: Findings) -> list[Newcomer]:
    """What came up that somebody had not used, the newest first."""
    settled = settling(findings)
    found = []
    for user, person in findings.people.items():
        for kind, table in (("network", person.networks), ("program", person.programs)):
            found += [Newcomer(user, kind, what, seen, known) for what, seen, known in _new(person, table, settled)]
    return sorted(found, key=lambda new: new.seen.first, reverse=True)


def _new(person: Person, table: Mapping[str, Seen], settled: timedelta) -> Iterator[tuple[str, Seen, tuple[str, ...]]]:
    if not table:
        return
    first = min(seen.first for seen in table.values())
    limit = _moment(first) + settled
    for what, seen in table.items():
        if _moment(seen.first) > limit:
            known = tuple(other for other, earlier in table.items() if earlier.first < seen.first)
            yield what, seen, known


def odd_hours(findings: Findings) -> list[OddHour]:
    """Who was active at night in an hour that is rare for that person, the newest first."""
    found = []
    for user, person in findings.people.items():
        if person.active < DAYS_LEAST:
            continue
        for number, hour in enumerate(person.hours):
            if number in NIGHT and hour.days and hour.days <= max(1, RARELY * person.active):
                found.append(OddHour(user, number, hour.days, person.active, hour.recent))
    return sorted(found, key=lambda odd: odd.recent[-1][0], reverse=True)


def others(findings: Findings) -> list[tuple[Whose, Deeds]]:
    """Mail that was read in somebody else's name, most messages first."""
    found = [(whose, deeds) for whose, deeds in findings.whose.items() if whose.acting != whose.user]
    return sorted(found, key=lambda item: (-item[1].opened, -item[1].headers, item[0]))


def bulk(findings: Findings) -> list[tuple[str, Person]]:
    """Who fetched more in an hour than stands out, most octets first."""
    found = [(user, person) for user, person in findings.people.items() if person.peak.messages >= BULK_LEAST]
    return sorted(found, key=lambda item: -item[1].peak.octets)
