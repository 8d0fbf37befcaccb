"""``imapgate audit``: verify a trail, read it, report on it, make a key for its checkpoints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from imapgate.audit.report import add_report
from imapgate.audit.show import add_show


def add_parser(commands: Any) -> None:
    """Add ``audit`` to the commands of an argument parser."""
    audit = commands.add_parser("audit", help="verify the audit trail, read it, report on it")
    choices = audit.add_subparsers(metavar="COMMAND", required=True)

    check = choices.add_parser(
        "verify",
        help="say whether a trail is whole",
        description="Says whether a trail is whole: whether records were changed, removed, added or moved, and "
        "whether an end is missing. Exit status: 0 whole, 1 not, 2 it could not be verified.",
    )
    check.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="audit files in any order, rotated (.gz) too"
    )
    check.add_argument(
        "--key", action="append", default=[], type=Path, metavar="FILE",
        help="check that every checkpoint is signed by this key (public or private, PEM); repeatable: by one of these",
    )  # fmt: skip
    check.add_argument(
        "--holds", action="append", default=[], type=str.lower, metavar="HASH",
        help="check that the record with this hash is there, as noted elsewhere before; repeatable",
    )  # fmt: skip
    check.add_argument("--open", action="store_true", help="the files were copied while a gate wrote them")
    check.set_defaults(run=_verify)

    key = choices.add_parser("key", help="make a key to sign checkpoints with, and print its public half")
    key.add_argument("file", type=Path, metavar="FILE", help="a new file for the private key")
    key.set_defaults(run=_key)

    add_show(choices)
    add_report(choices)


def _verify(options: argparse.Namespace) -> int:
    from imapgate.audit.checkpoint import load_public
    from imapgate.audit.verify import verify
    from imapgate.errors import ConfigurationError

    try:
        keys = [load_public(path) for path in options.key]
        verdict = verify(options.files, keys, open_end=options.open, hashes=frozenset(options.holds))
    except (ConfigurationError, OSError) as error:
        print(f"imapgate audit: {error}", file=sys.stderr)
        return 2
    for line in verdict.lines:
        print(line)
    for note in verdict.notes:
        print(f"note: {note}")
    for fault in verdict.faults:
        print(f"fault: {fault}")
    print(verdict.summary)
    return 0 if verdict.intact else 1


def _key(options: argparse.Namespace) -> int:
    from imapgate.audit.checkpoint import fingerprint, make_key, public_pem

    public = make_key(options.file)
    print(public_pem(public), end="")
    print(f"{options.file}: made; records name it {fingerprint(public)}; keep the public half above elsewhere")
    return 0
