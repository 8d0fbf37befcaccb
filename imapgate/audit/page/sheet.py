"""What every part of the page is given, and how times, names and long tables are written in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import NamedTuple, TypeVar

from imapgate.audit.findings import Findings
from imapgate.audit.page.markup import Child, Markup, element, together, worded
from imapgate.audit.tallies import Seen
from imapgate.audit.verify import Verdict

T = TypeVar("T")


class Source(NamedTuple):
    """A file that was read: how long it was then, and the SHA-256 of so many octets."""

    path: Path
    octets: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that the page is made of.

    :ivar keys: the fingerprints of the keys that signatures were checked by
    :ivar period: from when to when records were asked for; empty: no limit
    :ivar unread: lines that are no records
    :ivar rows: how many rows a table shows
    """

    title: str
    findings: Findings
    verdict: Verdict
    sources: Sequence[Source]
    keys: Sequence[str]
    period: tuple[str, str]
    unread: int
    zone: tzinfo
    zone_name: str
    made: str
    made_by: str
    rows: int

    def when(self, time: str, *, seconds: bool = False) -> Markup:
        """A time of a record, as the page has it."""
        form = "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"
        return element("span", self._local(time).strftime(form) if time else "", class_="when")

    def date(self, time: str) -> Markup:
        """The date alone."""
        return element("span", self._local(time).strftime("%Y-%m-%d") if time else "", class_="when")

    def day(self, time: str, *, end: bool = False) -> str:
        """The day of a time; ``end``: of the moment before it."""
        if not time:
            return "nothing"
        moment = self._local(time) - timedelta(microseconds=end)
        return f"{moment.day} {moment:%B %Y}"

    def _local(self, time: str) -> datetime:
        return datetime.fromisoformat(time).astimezone(self.zone)

    def limited(self, rows: Sequence[T], make: Callable[[Sequence[T]], Markup], *, what: str, none: str) -> Markup:
        """A table of the first rows, and how many more there are."""
        if not rows:
            return element("p", none, class_="none")
        made = make(rows[: self.rows])
        if len(rows) <= self.rows:
            return made
        left = f"{len(rows) - self.rows:,} more {what} are not shown here; --rows shows more."
        return together((made, element("p", left, class_="note")))


def section(name: str, title: str, lead: Child, *content: Child) -> Markup:
    """A part of the page with a heading and what it is about."""
    return element("section", element("h2", title), element("p", lead, class_="lead"), *content, id=name)


def counted(count: int, one: str, many: str) -> str:
    """How many of what."""
    return f"{count:,} {one if count == 1 else many}"


def newest(records: Iterable[T]) -> list[T]:
    """The same, the last one first."""
    return list(records)[::-1]


def who(user: str) -> Markup:
    """A user."""
    return element("span", worded(user or "(nobody)"), class_="who")


def who_as(user: str, acting: str) -> Markup:
    """A user, and as whom, where that is somebody else."""
    if acting in (user, ""):
        return who(user)
    return together((who(user), element("div", "as ", worded(acting), " ", flag("other", "warn"))))


def less(text: Child) -> Markup:
    """Something of less weight."""
    return element("span", text, class_="less")


def flag(text: str, state: str) -> Markup:
    """A word that stands out."""
    return element("span", text, class_=f"flag {state}")


def joined(parts: Iterable[Child], between: str = ", ") -> Markup:
    """Pieces with something between them."""
    pieces: list[Child] = []
    for part in parts:
        pieces += [between, part] if pieces else [part]
    return together(pieces)


def most_used(table: Mapping[str, Seen], shown: int = 3) -> Markup:
    """The most frequent keys of a table, and how many more there are."""
    keys = sorted(table, key=lambda key: (-table[key].times, key))
    named = [worded(key or "unknown") for key in keys[:shown]]
    return joined([*named, *([less(f"{len(keys) - shown} more")] if len(keys) > shown else [])])
