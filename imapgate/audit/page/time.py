"""Hours of a period put together to as many columns as a chart has room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from imapgate.audit.tallies import Hour

_COLUMNS_MOST = 125

_FIELDS = ("content", "bulk", "headers", "removed", "denied", "failed")


def _monday(moment: datetime) -> datetime:
    return moment.replace(hour=0) - timedelta(days=moment.weekday())


def _month(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0)


def _after(moment: datetime) -> datetime:
    return (moment.replace(day=1) + timedelta(days=32)).replace(day=1)


_DAY = timedelta(days=1)
_UNITS: tuple[tuple[str, timedelta, Callable[[datetime], datetime], Callable[[datetime], datetime], str, str], ...] = (
    ("hour", timedelta(hours=1), lambda at: at, lambda at: at + timedelta(hours=1), "%-d %b %Hh", "%Y-%m-%d %H:00"),
    ("day", _DAY, lambda at: at.replace(hour=0), lambda at: at + _DAY, "%-d %b", "%a %Y-%m-%d"),
    ("week", 7 * _DAY, _monday, lambda at: at + 7 * _DAY, "%-d %b", "week of %Y-%m-%d"),
    ("month", 30 * _DAY, _month, _after, "%b %Y", "%B %Y"),
)  # fmt: skip
"""Each unit: its name, how long it is, where the one around a moment begins, the next one, short and whole labels."""


def buckets(hours: Mapping[str, Hour]) -> tuple[str, list[tuple[tuple[str, str], Hour]]]:
    """Return the unit of the columns, and each with its labels; those without anything are there, too."""
    if not hours:
        return "day", []
    first, last = (datetime.fromisoformat(edge(hours) + ":00") for edge in (min, max))
    for name, length, begins, following, short, whole in _UNITS:  # noqa: B007  # the last one serves where none is long enough
        if (last - first) / length <= _COLUMNS_MOST:
            break
    found: dict[datetime, Hour] = {}
    at = begins(first)
    while at <= last:
        found[at] = Hour()
        at = following(at)
    for key, hour in hours.items():
        column = found[begins(datetime.fromisoformat(key + ":00"))]
        for field in _FIELDS:
            setattr(column, field, getattr(column, field) + getattr(hour, field))
    return name, [((at.strftime(short), at.strftime(whole)), hour) for at, hour in found.items()]
