"""``imapgate probe``: an upstream server as the gate would meet it, and what clients would see of it."""

from __future__ import annotations

import argparse
import getpass
import os

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from imapgate.assembly import upstream_of
from imapgate.config import from_options
from imapgate.config.types import Tls
from imapgate.limits import DEFAULTS
from imapgate.model import capability
from imapgate.model.secret import Credentials, Secret
from imapgate.net.dial import probe
from imapgate.session.effects import Granted, Login


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


def run(options: argparse.Namespace) -> int:
    """Look, and say what is there; return the exit status."""
    configured = from_options(options.endpoint, "tcp:1143:interface=127.0.0.1").upstreams["main"]
    tls = Tls.STARTTLS if options.starttls else Tls.NONE if options.plain else configured.tls
    configured = attrs.evolve(
        configured, tls=tls, insecure=options.insecure, ca=options.ca, server_name=options.server_name
    )
    login = _login(options)
    status = [0]

    async def look(reactor: IReactorTime) -> None:
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
                shown = capability.before_login(
                    starttls=False, login=True, mechanisms=(*capability.TERMINATED, *relayed)
                )
                print(f"clients see   {_printable(shown)} (before login, under TLS)")
            else:
                print(f"failed        {outcome.failure.value}" + (f": {detail}" if detail else ""))
                status[0] = 1

    try:
        react(lambda reactor: Deferred.fromCoroutine(look(reactor)))
    except SystemExit as ended:
        return status[0] or int(ended.code or 0)
    return status[0]
