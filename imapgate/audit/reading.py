"""Reading an audit trail: the records of files, in the order of their time, and the ones that are wanted.

Knows files, rotated and compressed ones too.  Believes what a record says; whether it is true, verification knows.
"""

from __future__ import annotations

import gzip
import heapq
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from imapgate.audit.record import read
from imapgate.errors import ConfigurationError
from imapgate.wire.sequence import ranges

LINE_MOST = 4 << 20
"""Octets of a line; a longer one is no record."""


class Line(NamedTuple):
    """A record as it stands in a file.

    :ivar octets: the line, with its end
    """

    time: str
    record: Mapping[str, object]
    octets: bytes


Bad = Callable[[Path, int], None]
"""Told of each line that is no record: the file, and the line's number."""


# --- files ------------------------------------------------------------------------------------------------------------


def _opened(path: Path) -> BinaryIO:
    try:
        file = open(path, "rb")  # noqa: SIM115  # whoever reads it closes it
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror or error}"]) from None
    return cast(BinaryIO, gzip.open(file)) if path.suffix == ".gz" else file


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines, of one that is too long the beginning."""
    while line := file.readline(LINE_MOST):
        yield line
        rest = line
        while len(rest) == LINE_MOST and not rest.endswith(b"\n"):
            rest = file.readline(LINE_MOST)


def parsed(octets: bytes) -> Line | None:
    """Return a line's record; ``None``: it is none."""
    found = read(octets)
    if found is None:
        return None
    return Line(str(found.record.get("time", "")), found.record, octets)


def records(path: Path, bad: Bad) -> Iterator[Line]:
    """The records of one file.

    :raise ConfigurationError: it cannot be read.
    """
    with _opened(path) as file:
        try:
            for number, octets in enumerate(_lines(file), 1):
                line = parsed(octets)
                if line is None:
                    bad(path, number)
                else:
                    yield line
        except (OSError, EOFError, zlib.error) as error:  # a disk that fails, and what gzip calls no gzip
            raise ConfigurationError([f"{path}: {error}"]) from None


def _begins(path: Path) -> str:
    """The time of a file's first record."""
    for line in records(path, lambda path, number: None):
        return line.time
    return ""


def merged(paths: Sequence[Path], bad: Bad) -> Iterator[Line]:
    """The records of all files by their time, whatever the files' order; only those that overlap are open together."""
    waiting = deque(sorted((_begins(path), number, path) for number, path in enumerate(paths)))
    heap: list[tuple[str, int, Line, Iterator[Line]]] = []
    while heap or waiting:
        if waiting and (not heap or waiting[0][0] <= heap[0][0]):
            _, number, path = waiting.popleft()
            source = records(path, bad)
            if (line := next(source, None)) is not None:
                heapq.heappush(heap, (line.time, number, line, source))
            continue
        _, number, line, source = heap[0]
        yield line
        if (following := next(source, None)) is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following.time, number, following, source))


def followed(path: Path, pause: Callable[[], None]) -> Iterator[bytes]:
    """The whole lines of a file, from its first on, and then those that come, for ever.

    A file that is rotated is read to its end, then the new one of that name.

    :param pause: waits until it is worth looking again.
    """
    while True:
        with _opened(path) as file:
            replaced = False
            while True:
                position = file.tell()
                line = file.readline()
                if line.endswith(b"\n"):
                    yield line
                elif replaced:  # and nothing came before it was
                    break
                else:
                    file.seek(position)
                    replaced = _replaced(path, file, position)
                    if not replaced:
                        pause()


def _replaced(path: Path, file: BinaryIO, position: int) -> bool:
    """Whether another file with something in it has the name now, or this one was cut."""
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(file.fileno())
    if os.path.samestat(now, here):
        return here.st_size < position
    return now.st_size > 0


# --- what is wanted ---------------------------------------------------------------------------------------------------

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def stamp(moment: datetime) -> str:
    """A moment as records have it: RFC 3339 with microseconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str, now: datetime, *, zone: tzinfo = UTC, end: bool = False) -> str:
    """Read a time: a date, a date with a time, or ``30m``, ``2h``, ``7d`` ago.

    :param zone: where it is so late, unless the time says else.
    :param end: a date alone stands for its end.
    :raise ValueError: it is none of these.
    """
    if found := _AGO.fullmatch(text):
        return stamp(now - timedelta(seconds=int(found[1]) * _UNITS[found[2]]))
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        time = time.replace(tzinfo=zone)
    return stamp(time + timedelta(days=1) if end and _DATE.fullmatch(text) else time)


class Wanted(NamedTuple):
    """Which records are wanted; what is empty asks for nothing.  Names and events may have ``*`` and ``?`` in them.

    :ivar user: who logged in, or as whom
    :ivar mailbox: where it was, or where to
    :ivar uid: one of the messages, here or there
    :ivar since: from this time on, as `moment` gives it
    :ivar until: before this time
    """

    user: str = ""
    mailbox: str = ""
    uid: int = 0
    events: tuple[str, ...] = ()
    session: str = ""
    since: str = ""
    until: str = ""

    def __call__(self, record: Mapping[str, object]) -> bool:
        """Whether this one is wanted."""
        time = str(record.get("time", ""))
        if time < self.since or (self.until and time >= self.until):
            return False
        if self.events and not any(fnmatchcase(str(record.get("event", "")), event) for event in self.events):
            return False
        if self.session and record.get("session.id") != self.session:
            return False
        if self.user and not _named(record, self.user, "user.name", "user.effective"):
            return False
        if self.mailbox and not _named(record, self.mailbox, "mailbox.name", "destination.mailbox"):
            return False
        return not self.uid or any(_holds(record.get(name), self.uid) for name in ("message.uids", "destination.uids"))


def _named(record: Mapping[str, object], pattern: str, *names: str) -> bool:
    return any(name in record and fnmatchcase(str(record[name]), pattern) for name in names)


def _holds(uids: object, uid: int) -> bool:
    if not isinstance(uids, str):
        return False
    try:
        return any(low <= uid <= high for low, high in ranges(uids.encode("ascii", "replace")))
    except ValueError:
        return False
