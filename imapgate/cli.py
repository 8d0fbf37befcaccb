"""``imapgate``: the commands for operators."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from imapgate import __version__
from imapgate.config import from_options, load, weakened
from imapgate.config.types import Tls
from imapgate.errors import ConfigurationError
from imapgate.limits import DEFAULTS
from imapgate.model import capability
from imapgate.model.secret import Credentials, Secret
from imapgate.net.attempt import probe
from imapgate.service import upstream_of
from imapgate.session.effects import Granted, Login


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
    return parser


def _check_config(options: argparse.Namespace) -> int:
    configuration = load(options.file)
    for sentence in weakened(configuration):
        print(f"weakened: {sentence}")
    print(f"{options.file}: good")
    return 0


def _login(options: argparse.Namespace) -> Login | None:
    if options.user is None:
        return None
    password = os.environ.get("IMAPGATE_PASSWORD")
    if password is None:
        password = getpass.getpass(f"Password of {options.user}: ")
    return Login(b"PLAIN", Credentials(options.user.encode(), Secret(password.encode())))


def _printable(octets: bytes) -> str:
    """What a server said, with nothing in it that a terminal would obey."""
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else f"\\x{octet:02x}" for octet in octets)


def _probe(options: argparse.Namespace) -> int:
    configured = from_options(options.endpoint, "tcp:1143:interface=127.0.0.1").upstreams["main"]
    tls = Tls.STARTTLS if options.starttls else Tls.NONE if options.plain else configured.tls
    configured = attrs.evolve(
        configured, tls=tls, insecure=options.insecure, ca=options.ca, server_name=options.server_name
    )
    login = _login(options)
    status = [0]

    async def run(reactor: IReactorTime) -> None:
        for door, core, outcome, detail in await probe(
            upstream_of(reactor, configured, DEFAULTS), DEFAULTS, reactor, login
        ):
            print(f"endpoint      {door.name}, TLS {tls.value}")
            print(f"greeting      {_printable(core.greeting) or '(none)'}")
            if core.offered:
                print(f"before login  {_printable(core.offered)}")
            if isinstance(outcome, Granted) and login is not None:
                print(f"after login   {_printable(outcome.link.capabilities)}")
                print(f"clients see   {_printable(capability.after_login(outcome.link.capabilities))}")
            elif isinstance(outcome, Granted):
                relayed = capability.mechanisms(capability.parse(core.offered))
                shown = capability.before_login(starttls=False, login=True, relayed=relayed)
                print(f"clients see   {_printable(shown)} (before login, under TLS)")
            else:
                print(f"failed        {outcome.failure.value}" + (f": {detail}" if detail else ""))
                status[0] = 1

    try:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    except SystemExit as ended:
        return status[0] or int(ended.code or 0)
    return status[0]
