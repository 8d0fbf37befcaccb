"""A browser without a screen: what it makes of a page, what it complains about, and how the page looks.

``python -m tests.integration.chromium PNG`` makes the picture of the audit's report that is in the documentation.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.audit.sample import write
from tests.audit.test_report import run as report

SECONDS = 120.0

PICTURE = (1200, 1500)
"""The documentation's picture, in pixels."""


class Rendered(NamedTuple):
    """A page as the browser has it once it is loaded, and what stands on its console."""

    dom: str
    console: list[str]


def _chromium(page: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={folder / 'browser'}",
        *arguments, page.absolute().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done


def rendered(page: Path, folder: Path) -> Rendered:
    """Load a page; what the browser keeps goes into the folder."""
    done = _chromium(page, folder, "--dump-dom")
    return Rendered(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


def picture(page: Path, folder: Path, png: Path, *, width: int, height: int, dark: bool = False) -> tuple[int, int]:
    """Make a picture of a page's top; return the size that it says it has."""
    colours = ["--blink-settings=preferredColorScheme=0"] if dark else []
    _chromium(page, folder, "--hide-scrollbars", f"--window-size={width},{height}", f"--screenshot={png}", *colours)
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        here = Path(made)
        trail, key = write(here)
        report(trail, "--key", key, "--html", here / "out.html")
        picture(here / "out.html", here, Path(sys.argv[1]).absolute(), width=PICTURE[0], height=PICTURE[1])
