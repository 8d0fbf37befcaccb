"""An account as a client sees it (through the gate) and as the server has it (through the server's own port).

Knows how to describe both, and how to run a client program in a folder of its own; knows no client.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.integration.conftest import User
from tests.integration.gate import Gate
from tests.integration.servers import Server, wait_until
from tests.integration.wire import Wire, connect, quoted, tls_context

SECONDS = 30.0
"""The most that a client program may take."""

AWKWARD = (
    b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: awkward\r\n"
    b"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <awkward@example.org>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"Gr\xc3\xbc\xc3\x9fe {12}\r\na1 LOGOUT\r\ng5 OK done\r\n* 9 EXPUNGE\r\n+ go\r\n)\r\n"
)
"""A message whose text looks like protocol (THREATS A23)."""


def message(subject: str, body: bytes = b"Hello.\r\n") -> bytes:
    """A small message with its own Message-ID."""
    return (
        f"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: {subject}\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{subject.replace(' ', '-')}@example.org>\r\n\r\n"
    ).encode() + body


class Stored(NamedTuple):
    """A message as the server has it."""

    uid: int
    flags: frozenset[str]
    octets: bytes

    @property
    def subject(self) -> str:
        """The text of its Subject field."""
        found = re.search(rb"^Subject: ([^\r\n]*)", self.octets, re.MULTILINE)
        return found[1].decode() if found else ""


class Account:
    """A user with an empty INBOX, on a server behind a gate."""

    def __init__(self, user: User, gate: Gate, tls: str) -> None:
        """`tls` is how a client comes in: "none", "starttls" or "implicit"."""
        self.user = user.name
        self.password = user.password
        self.server: Server = user.server
        self.gate = gate
        self.tls = tls
        self.host = "localhost"
        self.port = {"none": gate.port, "starttls": gate.starttls_port, "implicit": gate.tls_port}[tls]
        self.ca = gate.certificate
        self._logged = len(gate.log())
        self._user = user

    @property
    def prefix(self) -> str:
        """What stands before the names of mailboxes other than INBOX."""
        return "INBOX." if self.server.name == "courier" else ""

    def directly(self) -> Wire:
        """A logged-in connection to the server itself."""
        return self._user.wire()

    def through(self) -> Wire:
        """A logged-in connection through the gate, the way that this account's client comes in."""
        context = tls_context(self.ca)
        wire = connect(self.gate.host, self.port, context if self.tls == "implicit" else None)
        if self.tls == "starttls":
            wire.start_tls(context)
        wire.login(self.user, self.password)
        return wire

    def deliver(self, *messages: bytes, mailbox: str = "INBOX", flags: str = "") -> None:
        """Store messages on the server itself."""
        with self.directly() as wire:
            for octets in messages:
                head = b"APPEND " + quoted(mailbox) + f" ({flags}) ".encode()
                done = wire.command_with_literals(head, octets)
                assert b" OK" in done[-1], done

    def create(self, mailbox: str) -> str:
        """Make a mailbox on the server itself; gives its name there."""
        with self.directly() as wire:
            wire.ok(b"CREATE " + quoted(self.prefix + mailbox))
            wire.ok(b"SUBSCRIBE " + quoted(self.prefix + mailbox))
        return self.prefix + mailbox

    def stored(self, mailbox: str = "INBOX") -> list[Stored]:
        """All messages that the server has there, in order, \\Recent left out."""
        with self.directly() as wire:
            wire.ok(b"EXAMINE " + quoted(mailbox))
            return [
                found for response in wire.ok(b"UID FETCH 1:* (UID FLAGS BODY.PEEK[])") if (found := _stored(response))
            ]

    def subjects(self, mailbox: str = "INBOX") -> list[str]:
        """The subjects of all messages there."""
        return [stored.subject for stored in self.stored(mailbox)]

    def mailboxes(self) -> set[str]:
        """The names of all mailboxes on the server, without the namespace's prefix."""
        with self.directly() as wire:
            listed = wire.ok(b'LIST "" "*"')
        names = (found[1].decode() for one in listed if (found := re.search(rb'"?([^" ]+)"?\r\n\Z', one)))
        return {name.removeprefix(self.prefix) for name in names if name != "completed"} - {"completed."}

    def seen(self) -> list[str]:
        """See that the client came through the gate: sessions ended there, well, and gave commands; gives their users.

        A user is "-" where the login was relayed and hides the name.
        """
        pattern = re.compile(r"session ended: user=(\S+) .*? reason=(\S.*) seconds=.* commands=([0-9]+) ")

        def ended() -> list[tuple[str, str, str]]:
            return [one for one in pattern.findall(self.gate.log()[self._logged :]) if int(one[2]) > 1]

        wait_until(ended, "a session to end at the gate")
        found = ended()
        for user, reason, _ in found:
            assert user in ("-", f'"{self.user}"'), found
            assert reason in ('"logout"', '"client closed"'), found
        return [user for user, _, _ in found]


def _stored(response: bytes) -> Stored | None:
    literal = re.search(rb"\{([0-9]+)\}\r\n", response)
    if literal is None or b" FETCH " not in response[:30]:
        return None
    octets = response[literal.end() : literal.end() + int(literal[1])]
    rest = response[: literal.start()] + response[literal.end() + len(octets) :]
    uid, flags = re.search(rb"UID ([0-9]+)", rest), re.search(rb"FLAGS \(([^)]*)\)", rest)
    assert uid is not None, rest
    assert flags is not None, rest
    return Stored(int(uid[1]), frozenset(flags[1].decode().split()) - {"\\Recent"}, octets)


def run(
    words: Sequence[str | Path],
    folder: Path,
    *,
    data: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a client program to its end, with `folder` as its home; it must succeed; gives what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **(environment or {})},
        input=data or b"",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )
    out = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, f"{words[0]} ended with {done.returncode}:\n{out}"
    return out


def unmarked(octets: bytes) -> bytes:
    """A message without the one header that mbsync or OfflineIMAP adds to recognise it by."""
    return re.sub(rb"^X-(?:TUID|OfflineIMAP):.*\r\n", b"", octets, count=1, flags=re.MULTILINE)


def maildir(folder: Path) -> dict[bytes, set[str]]:
    """The messages of a local maildir, unmarked, with CRLF line ends, and the letters of their flags."""
    found = {}
    for part in ("new", "cur"):
        for path in sorted((folder / part).iterdir()):
            octets = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            found[unmarked(octets)] = set(path.name.partition(":2,")[2])
    return found


def wait_for_subjects(account: Account, expected: list[str], mailbox: str = "INBOX") -> None:
    """Wait until the server has these messages there."""
    wait_until(lambda: account.subjects(mailbox) == expected, f"{mailbox} to hold {expected}")
