"""A sample of an audit trail: weeks of a small company's mail, with a few things in it that somebody should look at.

The same seed gives the same records.  ``python -m tests.audit.sample FOLDER`` writes the trail and its public key.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imapgate.audit.chain import Chain
from imapgate.audit.checkpoint import Signer
from imapgate.audit.reading import stamp

FIRST = datetime(2026, 10, 5, tzinfo=UTC)
"""A Monday."""

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

Fields = dict[str, object]
Happening = tuple[datetime, str, str, Fields]


class Person(NamedTuple):
    """Somebody with habits."""

    name: str
    networks: tuple[str, ...]
    clients: tuple[tuple[str, str], ...]
    hours: tuple[int, int]
    reads: int
    """Messages on an ordinary day."""


_FIRST_NAMES = (
    "amara", "bruno", "chiara", "daniel", "elif", "farid", "greta", "hana", "ivo", "jana", "kofi", "lena", "mikael",
    "nadia", "oskar", "paula",
)  # fmt: skip
_CLIENTS = (
    ("Thunderbird", "140.4"),
    ("Outlook-iOS", "2.0"),
    ("Mutt", "2.2.9"),
    ("Apple Mail", "16.0"),
    ("K-9 Mail", "9.0"),
)
_MAILBOXES = ("INBOX", "INBOX", "INBOX", "Sent", "Archive/2026", "Projects/Atlas", "Entwürfe")


def people(count: int, chance: random.Random) -> list[Person]:
    """So many people."""
    found = []
    for number in range(count):
        first = _FIRST_NAMES[number % len(_FIRST_NAMES)]
        name = f"{first}{number // len(_FIRST_NAMES) or ''}@example.org"
        office, home = f"192.0.2.{10 + number % 200}", f"198.51.100.{number % 250}"
        clients = (_CLIENTS[number % 5], _CLIENTS[(number // 2 + 1) % 5])
        start = chance.choice((7, 7, 8, 8, 9, 10))
        found.append(Person(name, (office, home), clients, (start, start + 9), chance.randint(15, 90)))
    return found


class _Session:
    """One session's records, in order."""

    def __init__(
        self, at: datetime, user: str, address: str, client: tuple[str, str], number: int, acting: str = ""
    ) -> None:
        self.at = at
        self.number = number
        self.common: Fields = {
            "session.id": f"{number:012x}",
            "session.listener": "imaps",
            "client.address": address,
            "client.port": 40_000 + number % 20_000,
            "client.asserted": {"name": client[0], "version": client[1]},
            "tls.protocol": "TLSv1.3",
            "tls.cipher": "TLS_AES_256_GCM_SHA384",
        }
        self.user: Fields = {"user.name": user, "user.effective": acting or user, "upstream": "mail"}
        self.command = 0
        self.happenings: list[Happening] = []

    def opened(self) -> None:
        """The beginning of a session that logs in."""
        self.tell("session.open", "ok", {}, anonymous=True)
        self.tell("auth.success", "ok", {"command.verb": "AUTHENTICATE"})

    def tell(self, event: str, outcome: str, fields: Fields, *, anonymous: bool = False, seconds: float = 0.4) -> None:
        """Something happens, some time later."""
        self.at += timedelta(seconds=seconds)
        self.command += 1
        who = {} if anonymous else self.user
        self.happenings.append((self.at, event, outcome, {**self.common, **who, "command.id": self.command, **fields}))

    def read(self, mailbox: str, first: int, count: int, kind: str, octets: int, seconds: float = 3.0) -> None:
        """Messages are delivered."""
        self.tell(
            "message.access",
            "ok",
            {
                "mailbox.name": mailbox,
                "mailbox.uid_validity": 1_700_000_000,
                "message.uids": f"{first}:{first + count - 1}" if count > 1 else str(first),
                "message.count": count,
                "message.access": kind,
                "message.octets": octets,
                "command.verb": "UID FETCH",
            },
            seconds=seconds,
        )

    def closed(self) -> None:
        """Its end."""
        self.tell("session.close", "ok", {"duration": 30.5, "reason": "LOGOUT"}, seconds=20)


def _ordinary(day: datetime, someone: Person, number: int, chance: random.Random) -> list[Happening]:
    """One session of an ordinary day."""
    hour = chance.triangular(someone.hours[0], someone.hours[1])
    at = day + timedelta(hours=hour, seconds=chance.randint(0, 59), microseconds=chance.randint(0, 999_999))
    where = 0 if chance.random() < 0.8 else 1
    session = _Session(at, someone.name, someone.networks[where], someone.clients[where], number)
    session.opened()
    mailbox = chance.choice(_MAILBOXES)
    session.tell("mailbox.select", "ok", {"mailbox.name": mailbox, "command.verb": "SELECT"})
    start = 1 + (day - FIRST).days * 40
    session.read(mailbox, start, 20, "metadata", 9_000)
    session.read(mailbox, start, chance.randint(3, 15), "headers", 14_000)
    for _ in range(chance.randint(1, 5)):
        session.read(mailbox, start + chance.randint(0, 30), 1, "content", int(chance.lognormvariate(10, 1.2)), 40)
    if chance.random() < 0.5:
        uid = str(start + chance.randint(0, 30))
        about: Fields = {"mailbox.name": mailbox, "message.uids": uid, "message.count": 1}
        session.tell("message.flag", "ok", {**about, "flags.added": ["\\Seen"], "command.verb": "UID STORE"})
        if chance.random() < 0.4:
            session.tell("message.move", "ok", {**about, "destination.mailbox": "Trash", "destination.uids": uid})
        if chance.random() < 0.15:
            session.tell("message.delete", "ok", {**about, "flags.added": ["\\Deleted"]})
            session.tell("message.expunge", "ok", about)
    if chance.random() < 0.3:
        session.tell(
            "search", "ok", {"mailbox.name": mailbox, "search.criteria_sha256": f"{number:064x}", "search.found": 3}
        )
    session.closed()
    return session.happenings


def _helpdesk(day: datetime, number: int, owner: str) -> list[Happening]:
    """Somebody of the help desk looks into another person's mailbox."""
    session = _Session(
        day + timedelta(hours=14, minutes=12),
        "helpdesk@example.org",
        "192.0.2.5",
        ("Thunderbird", "140.4"),
        number,
        owner,
    )
    session.opened()
    session.tell("mailbox.select", "ok", {"mailbox.name": "INBOX"})
    session.read("INBOX", 500, 40, "headers", 52_000)
    session.read("INBOX", 512, 1, "content", 48_211, 25)
    session.closed()
    return session.happenings


def _auditor(day: datetime, number: int) -> list[Happening]:
    """A read-only account tries what it may not."""
    session = _Session(day + timedelta(hours=11), "auditor@example.org", "192.0.2.6", ("Thunderbird", "140.4"), number)
    session.opened()
    session.read("INBOX", 10, 12, "headers", 12_000)
    policy: Fields = {"policy.plugin": "readonly", "policy.rule": "level", "mailbox.name": "INBOX"}
    for verb in ("UID STORE", "UID MOVE", "EXPUNGE"):
        session.tell("policy.deny", "denied", {**policy, "command.verb": verb, "message.uids": "10:12"}, seconds=9)
    session.closed()
    return session.happenings


def _export(day: datetime, someone: Person, number: int) -> list[Happening]:
    """A whole mailbox is fetched at night, from where that person has never been; and then deleted."""
    session = _Session(
        day + timedelta(hours=2, minutes=41), someone.name, "203.0.113.77", ("imap-backup", "9.3"), number
    )
    session.opened()
    session.tell("mailbox.select", "ok", {"mailbox.name": "INBOX"})
    for part in range(12):
        session.read("INBOX", 1 + part * 360, 360, "bulk", 31_000_000 + part * 411_000, 55)
    about: Fields = {"mailbox.name": "INBOX", "message.uids": "4100:4320", "message.count": 221}
    session.tell("message.delete", "ok", {**about, "flags.added": ["\\Deleted"], "command.verb": "UID STORE"})
    session.tell("message.expunge", "ok", about, seconds=1)
    session.closed()
    return session.happenings


def _guesses(day: datetime, victim: str, number: int) -> list[Happening]:
    """Somebody guesses a password."""
    found: list[Happening] = []
    for attempt in range(18):
        at = day + timedelta(hours=4, minutes=2, seconds=11 * attempt)
        session = _Session(at, victim, "203.0.113.140", ("", ""), number + attempt)
        session.tell("auth.failure", "no", {"user.name": victim, "reason": "refused"}, anonymous=True)
        found += session.happenings
    return found


def happenings(days: int, count: int, seed: int = 4) -> Iterator[Happening]:
    """What happens in so many days to so many people, in the order of time."""
    chance = random.Random(seed)
    everybody = people(count, chance)
    number = 1
    for index in range(days):
        day = FIRST + timedelta(days=index)
        today: list[Happening] = []
        weekend = day.weekday() >= 5
        for someone in everybody:
            sessions = someone.reads // 12 if not weekend else int(chance.random() < 0.2)
            for _ in range(sessions):
                today += _ordinary(day, someone, number, chance)
                number += 1
        if index % 9 == 3:
            today += _helpdesk(day, number, everybody[index % count].name)
        if index % 7 == 2:
            today += _auditor(day, number + 1)
        if index == min(days - 1, 17):
            today += _export(day, everybody[5 % count], number + 2)
        if index == min(days - 1, 10):
            today += _guesses(day, everybody[1 % count].name, number + 3)
        if index % 8 == 4:
            moment = day + timedelta(hours=9, minutes=30)
            today.append((moment, "config.reload", "ok", {}))
            today.append((moment, "admin.action", "ok", {"admin.command": "drain", "admin.arguments": "mail1"}))
        number += 30
        yield from sorted(today, key=lambda happening: happening[0])


def lines(
    happenings: Iterator[Happening], chain: str = "20261005T000000-5f3a9c", *, killed: int = 0
) -> Iterator[bytes]:
    """The lines of a trail with these happenings: chained, with signed checkpoints.

    :param killed: after so many records the process is killed, and another one begins its chain.
    """
    current, signer = Chain(chain), Signer(KEY)

    def checkpoint(at: datetime, reason: str, **more: str) -> bytes:
        fields = {
            "event": "audit.checkpoint",
            "outcome": "ok",
            "reason": reason,
            "time": stamp(at),
            "schema.version": 1,
        }
        return current.seal(fields | more, signer)

    at = FIRST
    yield checkpoint(at, "started")
    for index, (at, event, outcome, fields) in enumerate(happenings, 1):
        yield current.seal({**fields, "event": event, "outcome": outcome, "time": stamp(at)})
        if index % 1000 == 0:
            yield checkpoint(at, "records")
        if index == killed:
            before, current = current, Chain(f"{chain}-2")
            reason = f"chain {chain} has no clean end: its process was killed, or the end is cut off"
            gap = {"event": "audit.gap", "outcome": "unknown", "gap.reason": reason, "previous": before.hash}
            yield current.seal(gap | {"time": stamp(at)})
            yield checkpoint(at, "started")
    yield checkpoint(at, "stopped")


def write(folder: Path, *, days: int = 28, count: int = 14, killed: int = 4100) -> Sequence[Path]:
    """Write a sample's trail and its public key; return both paths."""
    trail, key = folder / "audit.jsonl", folder / "audit.pub"
    with trail.open("wb") as file:
        file.writelines(lines(happenings(days, count), killed=killed))
    key.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return trail, key


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])))
