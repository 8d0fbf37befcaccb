"""``imapgate audit show``."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from imapgate.audit import show
from imapgate.audit.chain import Chain
from imapgate.audit.show import add_show, readable


def run(*arguments: str) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser()
    add_show(parser.add_subparsers())
    options = parser.parse_args(["show", *arguments])
    status: int = options.run(options)
    return status


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """Three records of two people."""
    path, chain = tmp_path / "audit.jsonl", Chain("a")
    common = {"outcome": "ok", "client.address": "192.0.2.7", "session.id": "5f"}
    records = (
        {"time": "2026-11-02T10:00:00.123456Z", "event": "auth.success", "user.name": "alice@example.org"},
        {
            "time": "2026-11-02T10:00:01.000000Z",
            "event": "message.access",
            "user.name": "alice@example.org",
            "mailbox.name": "INBOX",
            "message.uids": "7",
            "message.access": "content",
            "message.octets": 2048,
        },
        {"time": "2026-11-03T00:00:00.000000Z", "event": "auth.failure", "user.name": "bob\x1b[2J", "outcome": "no"},
    )
    path.write_bytes(b"".join(chain.seal(common | record) for record in records))
    return path


def test_show(trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each record, in columns; nothing in it is obeyed by a terminal."""
    assert run(str(trail)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-11-02 10:00:00.123  alice@example.org    auth.success     ok      from 192.0.2.7",
        "2026-11-02 10:00:01.000  alice@example.org    message.access   ok      content INBOX uid 7 2.0 KiB "
        "from 192.0.2.7",
        "2026-11-03 00:00:00.000  bob\\x1b[2J           auth.failure     no      from 192.0.2.7",
    ]


@pytest.mark.parametrize(
    ("arguments", "events"),
    [
        (["--user", "alice@*"], ["auth.success", "message.access"]),
        (["--mailbox", "INBOX"], ["message.access"]),
        (["--uid", "7"], ["message.access"]),
        (["--event", "auth.*"], ["auth.success", "auth.failure"]),
        (["--event", "auth.success", "--event", "message.*"], ["auth.success", "message.access"]),
        (["--session", "60"], []),
        (["--since", "2026-11-03"], ["auth.failure"]),
        (["--until", "2026-11-02"], ["auth.success", "message.access"]),
    ],
)
def test_filters(trail: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], events: list[str]) -> None:
    """Each option asks for its field."""
    assert run(str(trail), *arguments) == 0
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()] == events


def test_json(trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines as they stand in the file, so that they can still be verified."""
    assert run(str(trail), "--json", "--user", "alice@*") == 0
    assert capsys.readouterr().out.encode() == b"".join(trail.read_bytes().splitlines(keepends=True)[:2])


def test_bad_lines(trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no record is told apart, with its place, and the status says so."""
    with trail.open("ab") as file:
        file.write(b"what?\n")
    assert run(str(trail)) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert captured.err.startswith(f"imapgate audit: {trail}:4: this is no whole record")


def test_follow(trail: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Other files first, then the last one as it grows, until somebody has enough."""
    last = trail.with_name("new.jsonl")
    last.write_bytes(Chain("b").seal({"time": "2026-11-04T00:00:00.000000Z", "event": "search"}))
    more = [b"what?\n", Chain("b").seal({"time": "2026-11-05T00:00:00.000000Z", "event": "search"})]

    def pause() -> None:
        if not more:
            raise KeyboardInterrupt
        with last.open("ab") as file:
            file.write(more.pop(0))

    monkeypatch.setattr(show, "_pause", pause)
    assert run(str(trail), str(last), "--follow") == 0
    captured = capsys.readouterr()
    assert [line.split()[0][-2:] for line in captured.out.splitlines()] == ["02", "02", "03", "04", "05"]
    assert f"{last}:2: this is no whole record" in captured.err


def test_interrupted(trail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C where nothing is followed: it was not done."""

    def interrupt(record: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(show, "readable", interrupt)
    assert run(str(trail)) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--uid", "0"], "expected a UID, a whole number from 1 on; found '0'"),
        (["--since", "yesterday"], "found 'yesterday'"),
        (["--until", "2026-02-30"], "expected a date (2026-11-02)"),
        (["--until", "9999-12-31"], "found '9999-12-31'"),
    ],
)
def test_not_understood(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    """What makes no sense is told, with what does."""
    with pytest.raises(SystemExit) as exited:
        run("file", *arguments)
    assert exited.value.code == 2
    assert expected in capsys.readouterr().err


def test_readable_without_fields() -> None:
    """A record in which nothing stands is a line, too."""
    assert readable({}).split() == ["-"]
