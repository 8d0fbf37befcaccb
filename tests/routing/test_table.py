"""Table files: their lines, and how they are read again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from imapgate.errors import ConfigurationError
from imapgate.model.pool_mode import PoolMode
from imapgate.routing.lookup import Asked, Found
from imapgate.routing.table import Table


class Bench:
    """A table file and its look-up."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "users.table"
        self.clock = Clock()
        self.reports: list[str] = []
        self._times: Iterator[int] = iter(range(1_700_000_000, 1_700_001_000))

    def write(self, text: str | bytes) -> None:
        """Write the file in place, as at another time than before."""
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        time = next(self._times)
        os.utime(self.path, (time, time))

    def open(self, text: str | bytes) -> Bench:
        """Begin with a file."""
        self.write(text)
        self.table = Table(self.path, self.clock, self.reports.append)
        return self

    def fault(self, text: str | bytes) -> str:
        """What is wrong with a file."""
        with pytest.raises(ConfigurationError) as caught:
            self.open(text)
        (problem,) = caught.value.problems
        return problem

    def find(self, user: str) -> Found | None:
        """Look a user up."""
        found: list[Found | None] = []
        asked = Asked("public", None, user, None)
        Deferred.fromCoroutine(self.table.find(asked)).addCallback(found.append)
        return found[0]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A folder for a table."""
    return Bench(tmp_path)


def test_lines(bench: Bench) -> None:
    """Each kind of line, and each key."""
    bench.open(
        "# who goes where\n"
        "\n"
        "alice@example.org upstream=legacy user=alice pool_mode=mailbox\n"
        '  bob\tnologin="Moving house"   delay_until=2026-12-01T00:00:00Z \r\n'
        'o\'neil nologin="A \\"quoted\\" \\\\ text"\n'
        "carol\n"
        "DOM\\dave upstream="
    )
    assert bench.find("alice@example.org") == Found("legacy", "alice", PoolMode.MAILBOX)
    assert bench.find("bob") == Found(nologin="Moving house", delay_until=1796083200.0)
    assert bench.find("o'neil") == Found(nologin='A "quoted" \\ text')
    assert bench.find("carol") == Found()
    assert bench.find("DOM\\dave") == Found()
    assert bench.find("erin") is None
    assert bench.find("#") is None


def test_the_most_special_line_counts(bench: Bench) -> None:
    """A user's own line goes before the domain's, and that before the one for all."""
    bench.open("* upstream=all\n@Example.org upstream=domain\nalice@example.org upstream=alice\n")
    assert bench.find("alice@example.org") == Found("alice")
    assert bench.find("Alice@EXAMPLE.org") == Found("domain")
    assert bench.find("a@b@example.org") == Found("domain")
    assert bench.find("bob@example.net") == Found("all")
    assert bench.find("example.org") == Found("all")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("alice\nbob upstream\n", ":2: expected key=value, each key once, at character 5"),
        ("alice upstream=a upstream=b", ":1: expected key=value, each key once, at character 18"),
        ('alice nologin="Moving house', ":1: expected key=value, each key once, at character 7"),
        ('alice nologin="Moving"house', ":1: expected key=value, each key once, at character 7"),
        ("alice nologin=Moving house", ":1: expected key=value, each key once, at character 22"),
        ("upstream=legacy", ":1: expected a user, @domain or *, and then key=value …"),
        ("alice\n\n# two\nalice user=b", ":4: 'alice' has a line already"),
        ("alice\nalice", ":2: 'alice' has a line already"),
        ("@a.org\n@A.ORG", ":2: '@a.org' has a line already"),
        ("alice upstrm=a", ":1: 'upstrm' is none of upstream, user, pool_mode, nologin, delay_until"),
        ("alice pool_mode=sharing", ":1: pool_mode: expected one of session, mailbox, shared"),
        (b"alice\nj\xfcrgen", ":2: is not UTF-8"),
    ],
)
def test_faults(bench: Bench, text: str | bytes, fault: str) -> None:
    """A file that cannot be used stops the start, with its name and the line."""
    assert bench.fault(text) == f"{bench.path}{fault}"


def test_files_that_are_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there, is no regular file or far too large is not read."""
    with pytest.raises(ConfigurationError, match=r"users\.table: cannot be read: No such file"):
        Table(bench.path, bench.clock, bench.reports.append)
    os.mkfifo(bench.path)
    with pytest.raises(ConfigurationError, match=r"users\.table: is not a regular file"):
        Table(bench.path, bench.clock, bench.reports.append)
    bench.path.unlink()
    monkeypatch.setattr("imapgate.routing.table.LARGEST", 10)
    assert bench.fault("alice\ncarol") == f"{bench.path}: is larger than 10 octets"


def test_read_again(bench: Bench) -> None:
    """A file that was written again is read again, looked at once a second at most."""
    bench.open("alice upstream=legacy")
    bench.write("alice upstream=new\n")
    bench.clock.advance(0.9)
    assert bench.find("alice") == Found("legacy")
    bench.clock.advance(0.1)
    assert bench.find("alice") == Found("new")
    bench.write("alice upstream=third\n")
    bench.clock.advance(0.5)
    assert bench.find("alice") == Found("new")
    bench.clock.advance(0.5)
    assert bench.find("alice") == Found("third")


def test_another_file_in_its_place(bench: Bench) -> None:
    """A file that was moved into place is read, though it be as old and as long as the one before."""
    bench.open("alice upstream=a")
    status = bench.path.stat()
    other = bench.path.with_suffix(".new")
    other.write_text("alice upstream=b")
    os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))
    other.rename(bench.path)
    bench.clock.advance(1.0)
    assert bench.find("alice") == Found("b")


def test_not_read_without_need(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has not changed is not read again."""
    bench.open("alice upstream=legacy")
    monkeypatch.setattr(bench.table, "_read", lambda: pytest.fail("it was read"))
    bench.clock.advance(5.0)
    assert bench.find("alice") == Found("legacy")


def test_broken_when_read_again(bench: Bench) -> None:
    """A file that is broken or gone leaves the rows as they were, and is told in one line, once."""
    bench.open("alice upstream=legacy")
    bench.write("alice upstream=new\nbob upstream\n")
    for _ in range(5):
        bench.clock.advance(1.0)
        assert bench.find("alice") == Found("legacy")
    assert bench.reports == [
        f"{bench.path}:2: expected key=value, each key once, at character 5; the table stays as it was"
    ]
    bench.path.unlink()
    for _ in range(5):
        bench.clock.advance(1.0)
        assert bench.find("alice") == Found("legacy")
    assert bench.reports[1:] == [f"{bench.path}: cannot be read: No such file or directory; the table stays as it was"]
    bench.write("alice upstream=new\n")
    bench.clock.advance(1.0)
    assert bench.find("alice") == Found("new")
    assert len(bench.reports) == 2
