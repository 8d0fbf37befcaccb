"""``imapgate audit report``: one page about a period, for people who have to answer for it.

Reads the files three times: for their digests, to count, and to verify them.  Needs no reactor.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imapgate import __version__
from imapgate.audit.reading import Wanted, merged
from imapgate.audit.show import add_period, period
from imapgate.errors import ConfigurationError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from imapgate.audit.page.sheet import Sheet, Source

ROWS = 50
"""Rows of a table that are shown."""

_TORN = ".torn-"
"""In the name of what was moved aside behind the last whole line of a file."""


def add_report(commands: Any) -> None:
    """Add ``report`` to the commands of an argument parser."""
    parser = commands.add_parser(
        "report", help="make a page for people: who read whose mail, and what is unusual", description="Makes one page."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="audit files, rotated ones (.gz) too")
    parser.add_argument("--html", type=Path, required=True, metavar="PATH", help="the page; it is written over")
    parser.add_argument(
        "--key",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="the public key of the checkpoints; repeatable",
    )
    parser.add_argument("--open", action="store_true", help="the files were copied while a gate wrote them")
    add_period(parser)
    parser.add_argument(
        "--zone", type=_zone, metavar="ZONE", help="for days and hours, such as Europe/Berlin; else UTC"
    )
    parser.add_argument("--title", default="Mail access report", metavar="TEXT", help="the page's title")
    parser.add_argument(
        "--rows", type=_rows, default=ROWS, metavar="N", help=f"rows of a table that are shown ({ROWS})"
    )
    parser.set_defaults(run=run)


def _rows(given: str) -> int:
    if given.isascii() and given.isdigit() and int(given) > 0:
        return int(given)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1 on; found {given!r}")


def _zone(given: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(given)
    except (ValueError, OSError, LookupError):
        raise argparse.ArgumentTypeError(f"expected a time zone such as Europe/Berlin; found {given!r}") from None


def run(options: argparse.Namespace) -> int:
    """Make the page; return the exit status: 1 where the trail is not whole."""
    from imapgate.audit.page.document import page

    sheet = _sheet(options)
    _write(options.html, page(sheet))
    if sheet.verdict.intact:
        print(f"{options.html}: {sheet.findings.records} records; {sheet.verdict.summary}")
        return 0
    print(f"{options.html}: {sheet.findings.records} records; the trail is not whole:", file=sys.stderr)
    print("\n".join(sheet.verdict.faults), file=sys.stderr)
    return 1


def _sheet(options: argparse.Namespace) -> Sheet:
    """Read everything."""
    from imapgate.audit.checkpoint import fingerprint, load_public
    from imapgate.audit.findings import Findings
    from imapgate.audit.page.sheet import Sheet
    from imapgate.audit.verify import verify

    keys = [load_public(path) for path in options.key]
    paths: Sequence[Path] = options.files
    sources = [_digest(path) for path in paths]
    zone = options.zone or UTC
    since, until = period(options, zone)
    findings, wanted = Findings(zone), Wanted(since=since, until=until)
    unread = 0

    def bad(path: Path, number: int) -> None:
        nonlocal unread
        unread += 1

    for line in merged([path for path in paths if _TORN not in path.name], bad):
        if wanted(line.record):
            findings.take(line.record)
    verdict = verify(paths, keys, open_end=options.open)
    return Sheet(
        title=options.title,
        findings=findings,
        verdict=verdict,
        sources=sources,
        keys=[fingerprint(key) for key in keys],
        period=(since, until),
        unread=unread,
        zone=zone,
        zone_name=options.zone.key if options.zone else "UTC",
        made=datetime.now(zone).strftime("%Y-%m-%d %H:%M:%S %Z"),
        made_by=f"imapgate {__version__}",
        rows=options.rows,
    )


def _digest(path: Path) -> Source:
    """How long the file is now, and the SHA-256 of that; a gate may go on writing it."""
    from imapgate.audit.page.sheet import Source

    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            size = left = os.fstat(file.fileno()).st_size
            while left and (piece := file.read(min(left, 1 << 20))):
                digest.update(piece)
                left -= len(piece)
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror or error}"]) from None
    return Source(path, size, digest.hexdigest())


def _write(path: Path, page: str) -> None:
    """Write the page, for its owner alone to read."""
    try:
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(page)
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror or error}"]) from None
