"""A gate that records before a real server, and a user with some messages there, for tests of what is recorded.

::

    with recording(dovecot) as gate, box_of(gate, user(dovecot)) as box:
        box.give(b"SELECT INBOX", b"FETCH 2 FLAGS")
        assert named(box.last("message.access")["message.uids"]) == box.uids()[1:2]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from tests.integration.audited import Caller, Record, audit, invalid, of, recorded, records, trail_of, whole
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN
from tests.integration.gate import Gate, gate_for
from tests.integration.servers import Server
from tests.integration.wire import Wire, connect

MODES = ["session", "mailbox", "shared"]


def message(number: int) -> bytes:
    """A message with its number in its header and its text."""
    return (
        b"From: a@example.org\r\nSubject: number %d\r\nMessage-ID: <number-%d@example.org>\r\n"
        b"Date: Mon, 2 Nov 2026 08:15:30 +0000\r\n\r\nText %d\r\n* 1 FETCH (UID 999 BODY[] {3}\r\n"
    ) % (number, number, number)


class Box(NamedTuple):
    """A user with some messages in INBOX, whose numbers are not their UIDs, and a gate before the server."""

    user: User
    gate: Gate
    caller: Caller
    direct: Wire

    def uids(self, mailbox: bytes = b"INBOX") -> list[int]:
        """The UIDs in a mailbox, as the server says on a connection of its own, in the order of their numbers."""
        return _uids(self.direct, mailbox)

    def give(self, *commands: bytes) -> bytes:
        """Give commands, which must succeed; gives all that the client was shown."""
        responses = self.caller.give(*commands)
        shown = b"".join(responses)
        completions = re.findall(rb"(?m)^c1n[0-9]+ ([A-Z]+)", shown)
        assert completions == [b"OK"] * len(commands), shown
        return shown

    def told(self, event: str, count: int = 1, /, **fields: object) -> list[Record]:
        """Wait for the records of an event with these values, which must be so many."""
        found = of(self.trail(lambda trail: len(of(trail, event, **fields)) >= count), event, **fields)
        assert len(found) == count, found
        return found

    def last(self, event: str) -> Record:
        """The last record of an event, that of the last command."""
        tag = list(self.caller.asked)[-1].decode()
        (found,) = of(self.trail(lambda trail: of(trail, event, command_tag=tag)), event, command_tag=tag)
        return found

    def trail(self, condition: Callable[[list[Record]], object]) -> list[Record]:
        """Wait until the trail of this user's logged-in sessions fulfils a condition, and give it."""
        return self._own(recorded(trail_of(self.gate), lambda trail: condition(self._own(trail))))

    def _own(self, trail: list[Record]) -> list[Record]:
        return [record for record in trail if record.get("user.name") == self.user.name]


def _uids(wire: Wire, mailbox: bytes) -> list[int]:
    wire.ok(b"EXAMINE " + mailbox)
    return [int(uid) for uid in re.findall(rb"FETCH \(UID ([0-9]+)", b"".join(wire.ok(b"FETCH 1:* (UID)")))]


def named(sequence: object) -> list[int]:
    """The numbers of ``1:3,5``."""
    assert isinstance(sequence, str)
    pairs = [part.partition(":") for part in sequence.split(",")]
    return [number for low, _, high in pairs for number in range(int(low), int(high or low) + 1)]


@contextmanager
def recording(server: Server, mode: str = "session", **tables: object) -> Iterator[Gate]:
    """A gate that records; afterwards its trail is as it should be, and whole."""
    given = {"auth": {"credential_cache": "60s"}, "admin": ADMIN, **audit("durable"), **tables}
    with gate_for(server, upstream={"pool_mode": mode}, **given) as gate:
        yield gate
        assert gate.stop() == 0
        assert "Traceback" not in gate.log()
        assert not invalid(records(trail_of(gate)))
        whole(trail_of(gate))


GateOf = Callable[[Server, str], Gate]


@contextmanager
def gates() -> Iterator[GateOf]:
    """Give the gate before a server in a pool mode, started at its first use."""
    gates: dict[tuple[str, str], Gate] = {}
    with ExitStack() as stack:

        def given(server: Server, mode: str) -> Gate:
            key = server.name, mode
            if key not in gates:
                gates[key] = stack.enter_context(recording(server, mode))
            return gates[key]

        yield given


@contextmanager
def box_of(gate: Gate, user: User, count: int = 6) -> Iterator[Box]:
    """Give a box: of ``count`` messages that were stored, every third was expunged again."""
    with user.wire() as direct, connect(gate.host, gate.port) as wire:
        for number in range(1, count + 1):
            direct.command_with_literals(b"APPEND INBOX", message(number))
        direct.ok(b"SELECT INBOX")
        direct.ok(b"STORE %b +FLAGS (\\Deleted)" % b",".join(b"%d" % n for n in range(1, count + 1, 3)))
        direct.ok(b"EXPUNGE")
        wire.login(user.name, user.password)
        yield Box(user, gate, Caller(wire, b"c1"), direct)


def prefix_of(wire: Wire) -> bytes:
    """What the server wants in front of the name of a mailbox of its user's: Courier has ``INBOX.``."""
    return b"INBOX." if b'"INBOX."' in b"".join(wire.command(b"NAMESPACE")) else b""
