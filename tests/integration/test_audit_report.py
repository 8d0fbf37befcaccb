"""The audit's report in a real browser, of a large trail, and of a hostile one."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from imapgate.audit.chain import Chain
from tests.audit.sample import write
from tests.audit.test_page import Outline
from tests.audit.test_report import run as report
from tests.integration.chromium import PICTURE, picture, rendered
from tests.integration.servers.base import CLONE

HOSTILE = "</title></style><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of four weeks of a small company."""
    folder = tmp_path_factory.mktemp("report")
    trail, key = write(folder)
    report(trail, "--key", key, "--html", folder / "out.html", "--title", "Mail access, October")
    return folder / "out.html"


def test_the_console_is_heard(tmp_path: Path) -> None:
    """What the other tests do not want to hear would be heard: an error of a script, and what a policy forbids."""
    bad = tmp_path / "bad.html"
    bad.write_text("<script>nothing()</script>")
    assert "nothing is not defined" in rendered(bad, tmp_path).console[0]
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    bad.write_text(f"<head>{policy}<style>p {{ color: red }}</style></head>")
    assert "Content Security Policy" in rendered(bad, tmp_path).console[0]


def test_in_a_browser(page: Path, tmp_path: Path) -> None:
    """The browser takes the page as it was meant, without a complaint, and the facts are in it."""
    dom, console = rendered(page, tmp_path)
    assert console == []
    made, seen = Outline(page.read_text()), Outline(dom)
    assert [tag for tag, _ in seen.elements] == [tag for tag, _ in made.elements]
    assert seen.text.split() == made.text.split()
    for fact in (
        "Mail access, October",
        "The audit trail is intact, and signed",
        "farid@example.org fetched 4,320 messages (381 MiB) from 203.0.113.77 in the hour from 2026-10-22 02:00.",
        "farid@example.org expunged 224 messages from INBOX.",
        "helpdesk@example.org read the mail of 3 other people.",
        "18 failed logins as bruno@example.org from 203.0.113.140.",
    ):
        assert fact in seen.text


@pytest.mark.parametrize("dark", [False, True])
def test_picture(page: Path, tmp_path: Path, dark: bool) -> None:
    """It can be looked at, light and dark: there is something to see, and the two are not the same."""
    png, other = tmp_path / "a.png", tmp_path / "b.png"
    assert picture(page, tmp_path, png, width=1200, height=900, dark=dark) == (1200, 900)
    picture(page, tmp_path, other, width=1200, height=900, dark=not dark)
    assert len(png.read_bytes()) > 30_000
    assert png.read_bytes() != other.read_bytes()


def test_picture_of_the_documentation() -> None:
    """The picture is there, of its size, and small enough to be loaded."""
    png = (CLONE / "docs" / "_static" / "audit-report.png").read_bytes()
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == PICTURE
    assert len(png) < 250 * 1024


def test_hostile_in_a_browser(tmp_path: Path) -> None:
    """A browser takes nothing for markup that a client has put into its names."""
    trail, chain = tmp_path / "audit.jsonl", Chain("a")
    fields = dict.fromkeys(("user.name", "user.effective", "mailbox.name", "client.address", "policy.rule"), HOSTILE)
    times = {"time": "2026-11-02T03:00:00.000000Z", "outcome": "ok", "message.access": "bulk", "message.count": 900}
    said = {"client.asserted": {"name": HOSTILE}}
    events = ("auth.success", "auth.failure", "message.access", "message.expunge", "policy.deny", "audit.gap")
    trail.write_bytes(b"".join(chain.seal({**fields, **times, **said, "event": event}) for event in events))
    report(trail, "--html", tmp_path / "out.html", "--title", HOSTILE)
    dom, console = rendered(tmp_path / "out.html", tmp_path)
    assert console == []
    assert not {"script", "img"} & {tag for tag, _ in Outline(dom).elements}
    assert f"{HOSTILE}: 2 November 2026" in Outline(dom).text


MOST = 96 << 20
"""Octets that the process may have for its data."""


def _small() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MOST, MOST))


def test_large_trail(tmp_path: Path) -> None:
    """200,000 records are read in less memory than they fill."""
    trail, _ = write(tmp_path, days=100, count=70, killed=0)
    assert trail.stat().st_size > MOST
    command = [sys.executable, "-m", "imapgate", "audit", "report", trail, "--html", tmp_path / "out.html"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CLONE, preexec_fn=_small, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 200_000
    assert "72people" in Outline((tmp_path / "out.html").read_text()).text
