"""``imapgate audit show``: records as lines that people can read, those that were asked for, and the ones to come.

Needs no reactor: it starts at once, and a reader's terminal cannot be told anything by what stands in a record.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from imapgate.audit.reading import Line, Wanted, followed, merged, moment, parsed
from imapgate.audit.sentence import Record, sentence, text

LOOK_SECONDS = 0.25
"""How often ``--follow`` looks for more."""


def add_show(commands: Any) -> None:
    """Add ``show`` to the commands of an argument parser."""
    parser = commands.add_parser("show", help="print records as lines to read", description="Prints records by time.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="audit files, rotated ones (.gz) too")
    parser.add_argument("--user", default="", metavar="NAME", help="of this user, or as this user; may have * in it")
    parser.add_argument("--mailbox", default="", metavar="NAME", help="in this mailbox, or into it; may have * in it")
    parser.add_argument("--uid", type=_uid, default=0, metavar="N", help="about the message with this UID")
    parser.add_argument("--event", action="append", default=[], metavar="EVENT", help="such as 'message.*'; repeatable")
    parser.add_argument("--session", default="", metavar="ID", help="of this session")
    add_period(parser)
    parser.add_argument("--follow", action="store_true", help="wait for more in the last FILE, also when it is rotated")
    parser.add_argument("--json", action="store_true", help="print the records as they stand in the file")
    parser.set_defaults(run=run)


def add_period(parser: argparse.ArgumentParser) -> None:
    """Add ``--since`` and ``--until``."""
    form = "a date, a date with a time, or 30m, 2h, 7d ago"
    parser.add_argument("--since", type=_time, metavar="TIME", help=form)
    parser.add_argument("--until", type=_time, metavar="TIME", help="the same; a date counts whole")


def period(options: argparse.Namespace, zone: tzinfo = UTC) -> tuple[str, str]:
    """Return what ``--since`` and ``--until`` say, as records have it; empty: nothing."""
    now = datetime.now(UTC)
    since = moment(options.since, now, zone=zone) if options.since else ""
    return since, moment(options.until, now, zone=zone, end=True) if options.until else ""


def _time(given: str) -> str:
    """A time that makes sense, as it was given: what it means depends on the zone."""
    try:
        moment(given, datetime.now(UTC), end=True)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"expected a date (2026-11-02), a date and a time (2026-11-02T08:15), or 30m, 2h, 7d ago; found {given!r}"
        ) from None
    return given


def _uid(given: str) -> int:
    if given.isascii() and given.isdigit() and 0 < int(given) < 2**32:
        return int(given)
    raise argparse.ArgumentTypeError(f"expected a UID, a whole number from 1 on; found {given!r}")


def run(options: argparse.Namespace) -> int:
    """Print what is asked for; return the exit status: 1 where there were lines that are no records."""
    wanted = Wanted(
        options.user,
        options.mailbox,
        options.uid,
        tuple(options.event),
        options.session,
        *period(options),
    )
    bad = _Bad()
    try:
        _print(_lines(options.files, options.follow, bad), wanted, as_json=options.json, flush=options.follow)
        sys.stdout.flush()
    except KeyboardInterrupt:  # the usual end of --follow
        return 0 if options.follow else 1
    except BrokenPipeError:  # whoever reads what is printed has enough, as head(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if bad.any else 0


class _Bad:
    """Tells of lines that are no records."""

    def __init__(self) -> None:
        self.any = False

    def __call__(self, path: Path, number: int) -> None:
        self.any = True
        print(
            f"imapgate audit: {path}:{number}: this is no whole record; 'imapgate audit verify' tells more",
            file=sys.stderr,
        )


def _lines(paths: list[Path], follow: bool, bad: _Bad) -> Iterator[Line]:
    if not follow:
        yield from merged(paths, bad)
        return
    yield from merged(paths[:-1], bad)
    for number, octets in enumerate(followed(paths[-1], _pause), 1):
        line = parsed(octets)
        if line is None:
            bad(paths[-1], number)
        else:
            yield line


def _pause() -> None:
    time.sleep(LOOK_SECONDS)


def _print(lines: Iterator[Line], wanted: Wanted, *, as_json: bool, flush: bool) -> None:
    for line in lines:
        if not wanted(line.record):
            continue
        print(
            line.octets.decode("ascii", "backslashreplace").rstrip("\n") if as_json else readable(line.record),
            flush=flush,
        )


def readable(record: Record) -> str:
    """One record as a line in columns: time (UTC), who, event, outcome, and what happened."""
    moment = text(record, "time").replace("T", " ").removesuffix("Z")[:23]
    who = text(record, "user.name") or "-"
    line = f"{moment:23}  {who:20} {text(record, 'event'):16} {text(record, 'outcome'):7} {sentence(record)}"
    return line.rstrip()
