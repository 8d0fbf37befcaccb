"""``imapgate``: the commands for operators.

What only one command needs is imported by that command: ``imapgate ctl`` starts without Twisted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from imapgate import __version__
from imapgate.admin import ctl
from imapgate.audit import commands as audit
from imapgate.errors import ConfigurationError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 well, 1 not, 2 not understood."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except ConfigurationError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imapgate", description="Commands for operators; the gate itself is 'twistd imapgate'."
    )
    parser.add_argument("--version", action="version", version=f"imapgate {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    check = commands.add_parser("check-config", help="read a configuration and say what is wrong, or weak, with it")
    check.add_argument("file", type=Path)
    check.set_defaults(run=_check_config)

    look = commands.add_parser(
        "probe", help="look at an upstream server as the gate would, and at what clients would see"
    )
    look.add_argument("endpoint", help="a client endpoint: tcp:HOST:PORT, tls:HOST:PORT or unix:PATH")
    look.add_argument("--starttls", action="store_true", help="begin TLS by STARTTLS (the default beyond this machine)")
    look.add_argument("--plain", action="store_true", help="use no TLS at all")
    look.add_argument("--insecure", action="store_true", help="do not verify the server's certificate")
    look.add_argument("--ca", type=Path, help="a PEM file with the roots to trust instead of the system's")
    look.add_argument("--server-name", help="the name that the certificate must bear")
    look.add_argument("--user", help="log in as this user; the password comes from IMAPGATE_PASSWORD or the terminal")
    look.set_defaults(run=_probe)

    audit.add_parser(commands)
    ctl.add_parser(commands)
    return parser


def _check_config(options: argparse.Namespace) -> int:
    from imapgate.config import load, load_plugins, weakened

    configuration = load(options.file)
    load_plugins(configuration.plugins, options.file)
    for sentence in weakened(configuration):
        print(f"weakened: {sentence}")
    print(f"{options.file}: good")
    return 0


def _probe(options: argparse.Namespace) -> int:
    from imapgate.probing import run

    return run(options)
