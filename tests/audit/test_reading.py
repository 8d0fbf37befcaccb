"""Reading a trail: several files by time, files that are rotated while they are read, and which records are wanted."""

from __future__ import annotations

import gzip
import os
import resource
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imapgate.audit.chain import Chain
from imapgate.audit.reading import LINE_MOST, Wanted, followed, merged, moment, parsed, records
from imapgate.errors import ConfigurationError

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


class Trail:
    """Writes records, each at the minute of its number."""

    def __init__(self) -> None:
        self.chain = Chain("a")

    def line(self, minute: int, **fields: object) -> bytes:
        """One record's line."""
        return self.chain.seal({"time": f"2026-11-02T10:{minute:02}:00.000000Z", "event": "search", **fields})

    def lines(self, *minutes: int) -> bytes:
        """Several."""
        return b"".join(map(self.line, minutes))


def minutes(paths: list[Path], bad: list[tuple[str, int]] | None = None) -> list[int]:
    """The minutes of what files hold, in the order in which it is read."""

    def told(path: Path, number: int) -> None:
        assert bad is not None
        bad.append((path.name, number))

    return [int(line.time[14:16]) for line in merged(paths, told)]


def test_merged(tmp_path: Path) -> None:
    """Rotated files in any order, compressed ones and those of two processes are one trail, by time."""
    trail, other = Trail(), Trail()
    old, new, second, empty = (tmp_path / name for name in ("a.1.gz", "a", "b", "c"))
    old.write_bytes(gzip.compress(trail.lines(1, 2, 3)))
    new.write_bytes(trail.lines(4, 6, 8))
    second.write_bytes(other.lines(2, 5, 7))
    empty.touch()
    assert minutes([new, empty, second, old]) == [1, 2, 2, 3, 4, 5, 6, 7, 8]


def test_order_in_a_file_is_kept(tmp_path: Path) -> None:
    """Where a clock was put back, the records of a file still come as they were written."""
    (tmp_path / "a").write_bytes(Trail().lines(5, 3, 9))
    (tmp_path / "b").write_bytes(Trail().lines(4, 6))
    assert minutes([tmp_path / "a", tmp_path / "b"]) == [4, 5, 3, 6, 9]


def test_many_files(tmp_path: Path) -> None:
    """Years of rotated files are not all open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    paths = [tmp_path / str(number) for number in range(60)]
    for number, path in enumerate(paths):
        path.write_bytes(Trail().lines(number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        assert minutes(paths) == list(range(60))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_no_record(tmp_path: Path) -> None:
    """Lines that are none are told by their number, and do not hide the others; one that never ends costs no memory."""
    path, trail = tmp_path / "a", Trail()
    long = b'{"text":"' + b"x" * (2 * LINE_MOST) + b'"}\n'
    path.write_bytes(trail.line(1) + b"\n" + b'{"time":"x"}\n' + long + trail.line(2) + trail.line(3)[:-9])
    bad: list[tuple[str, int]] = []
    assert minutes([path], bad) == [1, 2]
    assert bad == [("a", 2), ("a", 3), ("a", 4), ("a", 6)]


@pytest.mark.parametrize("name", ["missing", "short.gz", "wrong.gz", "none.gz", "."])
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    """A file that is not there, is a folder, or no whole gzip: a sentence with its name."""
    packed = gzip.compress(Trail().lines(1, 2))
    (tmp_path / "short.gz").write_bytes(packed[:-9])
    (tmp_path / "wrong.gz").write_bytes(packed[:20] + b"\xff" * 20 + packed[40:])
    (tmp_path / "none.gz").write_bytes(b"none")
    with pytest.raises(ConfigurationError) as raised:
        list(records(tmp_path / name, lambda path, number: None))
    assert str(tmp_path / name) in raised.value.problems[0]


def test_parsed() -> None:
    """A line's time, its record, and the line itself."""
    octets = Trail().line(7)
    line = parsed(octets)
    assert line is not None
    assert (line.time, line.record["event"], line.octets) == ("2026-11-02T10:07:00.000000Z", "search", octets)
    assert parsed(b"{}\n") is None


class Following:
    """A file that is followed; what is to happen at each look is said before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.looks = 0
        self.found: Iterator[bytes] = followed(path, self._pause)
        self.happens: list[object] = []

    def _pause(self) -> None:
        self.looks += 1
        happens = self.happens.pop(0)
        assert callable(happens)
        happens()

    def take(self, count: int) -> list[int]:
        """The minutes of the next records."""
        lines = [parsed(next(self.found)) for _ in range(count)]
        assert all(line is not None for line in lines)
        return [int(line.time[14:16]) for line in lines if line is not None]

    def append(self, octets: bytes, path: Path | None = None) -> None:
        """More at the end of a file."""
        with (path or self.path).open("ab") as file:
            file.write(octets)


@pytest.fixture
def following(tmp_path: Path) -> Following:
    """A file with two records, followed."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(Trail().lines(1, 2))
    return Following(path)


def test_followed_grows(following: Following) -> None:
    """What is there comes at once, then what is added; a line only when it is whole."""
    line = Trail().line(3)
    assert following.take(2) == [1, 2]
    assert following.looks == 0
    following.happens = [
        lambda: None,
        lambda: following.append(line[:20]),
        lambda: following.append(line[20:-1]),
        lambda: following.append(line[-1:]),
    ]
    assert following.take(1) == [3]
    assert following.looks == 4


def test_followed_is_rotated(following: Following) -> None:
    """A renamed file is read to its end, which may come later; then the new one, as soon as something is in it."""
    old = following.path.with_suffix(".1")
    assert following.take(2) == [1, 2]
    following.happens = [
        lambda: following.path.rename(old),
        lambda: following.append(Trail().line(3), old),  # the gate does not know yet
        lambda: following.path.touch(),
        lambda: (following.append(Trail().line(4), old), following.append(Trail().lines(5, 6))),
    ]
    assert following.take(4) == [3, 4, 5, 6]


def test_followed_is_rotated_behind_a_torn_line(following: Following) -> None:
    """A half line at the end of a file that was renamed holds nothing up."""
    assert following.take(2) == [1, 2]

    def rotate() -> None:
        following.append(b'{"half')
        following.path.rename(following.path.with_suffix(".1"))
        following.append(Trail().line(3))

    following.happens = [rotate]
    assert following.take(1) == [3]


def test_followed_is_cut(following: Following) -> None:
    """A file that was cut, as by copytruncate, is read from its new beginning."""
    assert following.take(2) == [1, 2]
    following.happens = [lambda: following.path.write_bytes(Trail().line(3))]
    assert following.take(1) == [3]


def test_followed_is_missing(tmp_path: Path) -> None:
    """There is nothing to follow."""
    with pytest.raises(ConfigurationError, match="No such file"):
        next(followed(tmp_path / "missing", lambda: None))


@pytest.mark.parametrize(
    ("text", "end", "time"),
    [
        ("2026-11-02", False, "2026-11-02T00:00:00.000000Z"),
        ("2026-11-02", True, "2026-11-03T00:00:00.000000Z"),
        ("2026-11-02T08:15", True, "2026-11-02T08:15:00.000000Z"),
        ("2026-11-02 08:15:30.5", False, "2026-11-02T08:15:30.500000Z"),
        ("2026-11-02T08:15:30Z", False, "2026-11-02T08:15:30.000000Z"),
        ("2026-11-02T08:15+02:00", False, "2026-11-02T06:15:00.000000Z"),
        ("90s", False, "2026-11-28T11:58:30.000000Z"),
        ("30m", False, "2026-11-28T11:30:00.000000Z"),
        ("2h", True, "2026-11-28T10:00:00.000000Z"),
        ("7d", False, "2026-11-21T12:00:00.000000Z"),
        ("1w", False, "2026-11-21T12:00:00.000000Z"),
    ],
)
def test_moment(text: str, end: bool, time: str) -> None:
    """Dates, times with and without a zone, and so long ago; a date at an end counts whole."""
    assert moment(text, NOW, end=end) == time


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2h30m", "-2h", "1y"])
def test_no_moment(text: str) -> None:
    """All else is none."""
    with pytest.raises(ValueError, match=r".*"):
        moment(text, NOW)


RECORD = {
    "time": "2026-11-02T10:00:00.000000Z",
    "event": "message.move",
    "user.name": "helpdesk@example.org",
    "user.effective": "alice@example.org",
    "session.id": "5f",
    "mailbox.name": "INBOX",
    "message.uids": "1:5,9",
    "destination.mailbox": "Archive/2026",
    "destination.uids": "70:75",
}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), True),
        (Wanted(user="alice@example.org"), True),
        (Wanted(user="helpdesk@*"), True),
        (Wanted(user="alice"), False),
        (Wanted(mailbox="INBOX"), True),
        (Wanted(mailbox="Archive/*"), True),
        (Wanted(mailbox="inbox"), False),
        (Wanted(uid=4), True),
        (Wanted(uid=9), True),
        (Wanted(uid=72), True),
        (Wanted(uid=6), False),
        (Wanted(events=("message.*",)), True),
        (Wanted(events=("search", "message.move")), True),
        (Wanted(events=("message",)), False),
        (Wanted(session="5f"), True),
        (Wanted(session="5"), False),
        (Wanted(since="2026-11-02T10:00:00.000000Z"), True),
        (Wanted(since="2026-11-02T10:00:00.000001Z"), False),
        (Wanted(until="2026-11-02T10:00:00.000000Z"), False),
        (Wanted(until="2026-11-02T10:00:00.000001Z"), True),
        (Wanted(user="alice@*", mailbox="INBOX", uid=9, events=("message.*",), session="5f"), True),
        (Wanted(user="alice@*", mailbox="INBOX", uid=9, events=("message.*",), session="60"), False),
    ],
)
def test_wanted(wanted: Wanted, expected: bool) -> None:
    """Each filter by itself, and all together."""
    assert wanted(RECORD) is expected


@pytest.mark.parametrize("uids", [None, 5, "", "x", "1:5é"])
def test_wanted_uid_where_there_is_none(uids: object) -> None:
    """A record without UIDs, or with something else in their place, is about no message."""
    assert not Wanted(uid=5)({"message.uids": uids})
