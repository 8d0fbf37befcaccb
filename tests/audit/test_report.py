"""``imapgate audit report``: the command, and what its page says of a sample."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import stat
from pathlib import Path

import pytest

from imapgate.audit import findings
from imapgate.audit.chain import Chain
from imapgate.audit.report import add_report
from imapgate.errors import ConfigurationError
from tests.audit.sample import write
from tests.audit.test_page import Outline


def run(*arguments: str | Path) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser()
    add_report(parser.add_subparsers())
    options = parser.parse_args(["report", *map(str, arguments)])
    status: int = options.run(options)
    return status


def page(folder: Path) -> Outline:
    """The page that was made."""
    return Outline((folder / "out.html").read_text())


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of five people."""
    trail, _ = write(tmp_path_factory.mktemp("short"), days=2, count=5, killed=0)
    return trail


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Four weeks of a small company, and the public key."""
    trail, key = write(tmp_path_factory.mktemp("sample"))
    return trail, key


def test_report(sample: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page says who, when, from where and how much, what stands out, and that the trail is whole."""
    trail, key = sample
    assert run(trail, "--key", key, "--html", tmp_path / "out.html") == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out.html'}: 10539 records; whole: 10539 records")
    text = page(tmp_path).text
    for fact in (
        "5 October 2026 to 1 November 2026, UTC",
        "The audit trail is intact, and signed",
        "farid@example.org fetched 4,320 messages (381 MiB) from 203.0.113.77 in the hour from 2026-10-22 02:00.",
        "farid@example.org expunged 224 messages from INBOX.",
        "18 failed logins as bruno@example.org from 203.0.113.140.",
        "helpdesk@example.org read the mail of 3 other people.",
        "farid@example.org used what is new for that person: the network 203.0.113.0/24 and the program imap-backup.",
        "farid@example.org was active from 02:00 on, which is rare for that person.",
        "12 actions of 1 person were denied by a rule.",
        "1 gap in the trail.",
        "100 records behind the last of them are not covered by it.",
        "as daniel@example.org",
        hashlib.sha256(trail.read_bytes()).hexdigest(),
    ):
        assert fact in text
    assert stat.S_IMODE((tmp_path / "out.html").stat().st_mode) == 0o600


def test_nothing_is_fetched(short: Path, tmp_path: Path) -> None:
    """The page is one file: no script, and nothing that a browser would get from anywhere; links stay inside."""
    run(short, "--html", tmp_path / "out.html")
    elements = page(tmp_path).elements
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & {tag for tag, _ in elements}
    links = [str(attributes["href"]) for tag, attributes in elements if tag == "a"]
    places = {f"#{attributes['id']}" for _, attributes in elements if "id" in attributes}
    assert links
    assert set(links) <= places
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on") or name == "style"]
    source = (tmp_path / "out.html").read_text()
    assert "url(" not in source
    assert "@import" not in source
    (policy,) = [each["content"] for _, each in elements if each.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'")


HOSTILE = '</style></title><script>alert(1)</script><img src=x onerror="alert(2)">" onmouseover="x\u202e'


def test_hostile_records(tmp_path: Path) -> None:
    """Whatever a client puts into its names, and whoever writes the file, the page's elements stay the page's own."""
    chain = Chain(HOSTILE)
    events = (
        "auth.success", "auth.failure", "message.access", "message.delete", "message.expunge", "mailbox.delete",
        "policy.deny", "audit.gap", "admin.action", "plugin.error", HOSTILE,
    )  # fmt: skip
    names = (
        "user.name", "user.effective", "mailbox.name", "client.address", "client.via", "policy.plugin", "policy.rule",
        "command.verb", "admin.command", "reason", "gap.reason", "message.uids", "session.id", "note.x",
    )  # fmt: skip
    lines = []
    for index, event in enumerate(events * 12):
        fields: dict[str, object] = dict.fromkeys(names, HOSTILE)
        fields |= {
            "client.asserted": {HOSTILE: HOSTILE, "name": HOSTILE},
            "message.access": "bulk",
            "message.count": 900,
        }
        fields["time"] = f"2026-11-{1 + index % 28:02}T03:00:00.000000Z"
        lines.append(chain.seal(fields | {"event": event, "outcome": "ok"}))
    trail = tmp_path / "<script>alert(3)<script>.jsonl"
    trail.write_bytes(b"".join(lines))
    assert run(trail, "--html", tmp_path / "out.html", "--title", HOSTILE) == 1
    harmless = tmp_path / "harmless.jsonl"
    harmless.write_bytes(Chain("a").seal({"time": "2026-11-02T03:00:00.000000Z", "event": "x", "outcome": "ok"}))
    run(harmless, "--html", tmp_path / "harmless.html")
    hostile, usual = page(tmp_path), Outline((tmp_path / "harmless.html").read_text())
    assert "alert(1)" in hostile.text
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in usual.elements} | {
        "rect", "g", "title", "svg", "wbr", "ul", "li", "span", "td", "tr", "tbody", "th", "thead", "table", "code",
    }  # fmt: skip
    assert not [name for _, attributes in hostile.elements for name in attributes if name.startswith("on")]
    assert "\u202e" not in (tmp_path / "out.html").read_text()


def test_no_key(short: Path, tmp_path: Path) -> None:
    """Without the key the page says what is not known."""
    assert run(short, "--html", tmp_path / "out.html") == 0
    assert "The audit trail is intact; its signatures were not checked" in page(tmp_path).text


def test_broken_trail(sample: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that was removed is the first thing on the page, and in the status."""
    trail = tmp_path / "audit.jsonl"
    lines = sample[0].read_bytes().splitlines(keepends=True)
    trail.write_bytes(b"".join(lines[:700] + lines[701:]))
    assert run(trail, "--key", sample[1], "--html", tmp_path / "out.html") == 1
    captured = capsys.readouterr()
    assert "the trail is not whole:\n" in captured.err
    assert "seq 701 of chain" in captured.err
    text = page(tmp_path).text
    assert "The audit trail is not intact" in text
    assert "1 fault was found" in text
    assert "seq 701 of chain" in text


def test_lines_that_are_no_records(tmp_path: Path) -> None:
    """What is not counted is said."""
    trail = tmp_path / "audit.jsonl"
    trail.write_bytes(Chain("a").seal({"time": "soon", "event": "search"}) + b"what?\n")
    run(trail, "--html", tmp_path / "out.html")
    text = page(tmp_path).text
    assert "1 line is no record, and counts nowhere" in text
    assert "1 record counts nowhere on this page" in text


def test_period_and_zone(sample: tuple[Path, Path], tmp_path: Path) -> None:
    """Only what was asked for is counted, in the zone's days; the integrity is the whole file's."""
    period = ("--since", "2026-10-22", "--until", "2026-10-22", "--zone", "Europe/Berlin")
    run(sample[0], "--html", tmp_path / "out.html", *period, "--title", "October")
    text = page(tmp_path).text
    assert "(381 MiB) from 203.0.113.77 in the hour from 2026-10-22 04:00" in text
    assert "bruno@example.org from 203.0.113.140" not in text
    assert "All 10,539 records are in place" in text
    assert text.startswith("\nOctober: 22 October 2026 to 22 October 2026\n")


def test_rotated_files(short: Path, tmp_path: Path) -> None:
    """Rotated and compressed files are read together; a torn line that was moved aside is named, not counted."""
    lines = short.read_bytes().splitlines(keepends=True)
    old, new, torn = tmp_path / "a.jsonl.1.gz", tmp_path / "a.jsonl", tmp_path / "a.jsonl.torn-x-5"
    old.write_bytes(gzip.compress(b"".join(lines[:200])))
    new.write_bytes(b"".join(lines[200:]))
    torn.write_bytes(b'{"half')
    run(new, torn, old, "--html", tmp_path / "out.html")
    text = page(tmp_path).text
    assert f"Records in the period{len(lines)}" in text
    assert "nowhere on this page" not in text
    assert str(torn) in text


def test_rows(short: Path, tmp_path: Path) -> None:
    """Long tables are cut, and say how much is left out."""
    run(short, "--html", tmp_path / "out.html", "--rows", "3")
    assert "2 more people are not shown here; --rows shows more." in page(tmp_path).text
    bodies = (tmp_path / "out.html").read_text().split("<tbody>")[1:]
    assert max(body.split("</tbody>")[0].count("<tr>") for body in bodies) == 3


def test_empty_trail(tmp_path: Path) -> None:
    """A trail in which nothing happened makes a page that says so."""
    trail = tmp_path / "audit.jsonl"
    trail.write_bytes(b"")
    run(trail, "--html", tmp_path / "out.html")
    text = page(tmp_path).text
    for nothing in ("Nobody logged in.", "Nothing was denied.", "No gap is recorded.", "No message was read."):
        assert nothing in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--zone", "Nowhere/Land"], "expected a time zone such as Europe/Berlin; found 'Nowhere/Land'"),
        (["--zone", "../../etc/passwd"], "expected a time zone"),
        (["--rows", "0"], "expected a whole number from 1 on; found '0'"),
        (["--since", "soon"], "found 'soon'"),
    ],
)
def test_not_understood(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    """What makes no sense is told, with what does."""
    with pytest.raises(SystemExit) as exited:
        run("file", "--html", "out", *arguments)
    assert exited.value.code == 2
    assert expected in capsys.readouterr().err


def test_what_cannot_be_used(short: Path, tmp_path: Path) -> None:
    """A file or key that cannot be read, and a page that cannot be written: a sentence with its name."""
    missing = tmp_path / "missing"
    with pytest.raises(ConfigurationError, match="missing: No such file"):
        run(missing, "--html", tmp_path / "out.html")
    with pytest.raises(ConfigurationError, match="missing: No such file"):
        run(short, "--key", missing, "--html", tmp_path / "out.html")
    with pytest.raises(ConfigurationError, match="no/out: No such file"):
        run(short, "--html", tmp_path / "no" / "out")
    (tmp_path / "a.gz").write_bytes(gzip.compress(short.read_bytes())[:-9])
    with pytest.raises(ConfigurationError, match=r"a\.gz: .*end-of-stream"):
        run(tmp_path / "a.gz", "--html", tmp_path / "out.html")


def made_of(folder: Path, *records: dict[str, object]) -> str:
    """The text of the page about these records, each a second after the one before."""
    chain, trail = Chain("a"), folder / "audit.jsonl"
    with trail.open("wb") as file:
        begin: dict[str, object] = {"event": "audit.checkpoint", "reason": "started"}
        for second, record in enumerate((begin, *records)):
            time = f"2026-11-02T10:{second // 60:02}:{second % 60:02}.000000Z"
            file.write(chain.seal({"time": time, "outcome": "ok", "user.name": "alice"} | record))
    run(trail, "--html", folder / "out.html", "--open")
    return page(folder).text


def test_nothing_stands_out(tmp_path: Path) -> None:
    """A quiet day is said to be one; a trail that is still written has no fault in its end."""
    text = made_of(tmp_path, {"event": "auth.success"}, {"event": "search"})
    assert "nothing stands out" in text
    assert "The audit trail is intact" in text
    assert "1person1login" in text


def test_what_is_lacking(tmp_path: Path) -> None:
    """Lost records, failing plugins, one denied action: each is said."""
    text = made_of(
        tmp_path,
        {"event": "audit.gap", "gap.reason": "disk full", "gap.lost": 12},
        {"event": "plugin.error", "policy.plugin": "webhook"},
        {"event": "plugin.error"},
        {"event": "plugin.error"},
        {"event": "policy.deny", "outcome": "denied", "command.verb": "EXPUNGE"},
    )
    for fact in (
        "1 gap in the trail; 12 records are lost.",
        "The gaps say that 12 records are lost.",
        "The plugin webhook failed once.",
        "The plugin without a name failed 2 times.",
        "1 action of 1 person was denied by a rule.",
    ):
        assert fact in text


def test_more_than_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tables are full, what is beyond is added up in a row of its own."""
    for name in ("PEOPLE_MOST", "KINDS_MOST"):
        monkeypatch.setattr(findings, name, 2)
    events: tuple[dict[str, object], ...] = (
        {"event": "auth.success"},
        {"event": "auth.failure", "outcome": "no"},
        {"event": "policy.deny", "outcome": "denied"},
        {"event": "message.access", "message.access": "content", "message.count": 10, "mailbox.name": "INBOX"},
        {"event": "message.expunge", "message.count": 10, "mailbox.name": "INBOX"},
    )
    text = made_of(tmp_path, *({"user.name": f"u{number}"} | event for number in range(5) for event in events))
    assert "all beyond the first 5,000330" in text  # three logins, 30 messages opened
    assert "all beyond the first 20,000none named30" in text
    assert text.count("all othersnonenonenone3") == 1
    assert "all othersnone3" in text
    assert "all others" + "030" in text.replace("all othersnone", "")


def test_a_program_that_says_nothing(tmp_path: Path) -> None:
    """Somebody whose client begins to keep silent is told of, as one with another program is."""
    said = {"event": "message.access", "message.access": "content", "client.asserted": {"name": "mutt"}}
    text = made_of(tmp_path, *[said] * 20, {"event": "message.access", "message.access": "content"})
    assert "alice used what is new for that person: the program that does not say what it is." in text
