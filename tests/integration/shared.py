"""A gate in mode ``shared`` before a real server, and what an operator sees of its channels.

::

    with sharing(dovecot, park_after="1s") as gate, ExitStack() as stack:
        one, other = clients(stack, gate, someone, 2)
        one.ok(b"SELECT INBOX")
        assert [row["sessions"] for row in channels(gate, someone)] == [1]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, Row, ctl, stats
from tests.integration.gate import Gate, gate_for
from tests.integration.servers import Server, wait_until
from tests.integration.wire import Wire

_TABLES = ("auth", "audit", "extra_verbs", "limits", "plugin", "environment")
LOST = b"* BYE [UNAVAILABLE] The mail server closed the connection\r\n"


@contextmanager
def sharing(server: Server, **more: Any) -> Iterator[Gate]:
    """A gate that shares; keywords that name no table are the upstream's. Nothing may have failed unexpectedly."""
    tables = {name: more.pop(name) for name in _TABLES if name in more}
    with gate_for(server, upstream={"pool_mode": "shared", **more}, admin=ADMIN, **tables) as gate:
        yield gate
        assert "Traceback" not in gate.log(), gate.log()[-5000:]


def clients(stack: ExitStack, gate: Gate, someone: User, number: int, *commands: bytes) -> list[Wire]:
    """So many clients of a user, each of which has given these commands."""
    wires = [stack.enter_context(someone.wire(gate.port)) for _ in range(number)]
    for wire in wires:
        for command in commands:
            wire.ok(command)
    return wires


def channels(gate: Gate, someone: User) -> list[Row]:
    """The user's channels."""
    return [row for row in ctl(gate, "channels") if row["user"] == someone.name]


def selected(gate: Gate, someone: User) -> list[Row]:
    """Those that have a mailbox selected."""
    return [row for row in channels(gate, someone) if row["mailbox"]]


def counts(gate: Gate) -> dict[str, Any]:
    """What was done how often."""
    return {name.removeprefix("shared_"): n for name, n in stats(gate).items() if name.startswith("shared_")}


def bound(gate: Gate, someone: User) -> list[str]:
    """Which of the user's sessions have a channel, the oldest session first."""
    return [row["bound"] for row in ctl(gate, "sessions") if row["user"] == someone.name]


def established(port: int) -> int:
    """How many connections a server of this machine has at this port, by the kernel."""
    rows = re.findall(rf"(?m)^ *\d+: 0100007F:{port:04X} ([0-9A-F:]+) 01 ", Path("/proc/net/tcp").read_text())
    return len(set(rows))


def store(someone: User, *bodies: bytes, mailbox: bytes = b"INBOX") -> None:
    """Put messages into a mailbox, directly."""
    with someone.wire() as direct:
        for body in bodies:
            assert b" OK " in direct.command_with_literals(b"APPEND " + mailbox, body)[-1]


def folder(server: Server, name: bytes) -> bytes:
    """A mailbox's name, as this server wants it."""
    return b"INBOX." + name if server.name == "courier" else name


def heard(wire: Wire, wanted: bytes) -> list[bytes]:
    """What a client is told, up to this response."""
    told = [wire.response()]
    while not told[-1].startswith(wanted):
        told.append(wire.response())
    return told


def settled(gate: Gate, someone: User, number: int) -> None:
    """Wait until so many channels are there."""
    wait_until(lambda: len(channels(gate, someone)) == number, f"{number} channels", 30)
