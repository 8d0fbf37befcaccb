"""What an audit trail tells of a period: counted record by record, in memory that does not grow with the trail.

Knows records.  Knows no file and no page.  Where a table would grow too large, what comes later is added up in one row
of the rest, and the table says so.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple

from imapgate.audit.sentence import Record, number, printable, sentence, text
from imapgate.audit.tallies import (
    SEEN_MOST,
    Deeds,
    Hour,
    Largest,
    Listed,
    Login,
    Peak,
    Person,
    Refusal,
    Removed,
    Seen,
    Tally,
    Whose,
)
from imapgate.wire.sequence import count

PEOPLE_MOST = 5_000
KINDS_MOST = 20_000
"""Rows of a table that is counted."""

SESSIONS_MOST = 20_000
"""Sessions under way whose beginning is remembered."""

RECENT_MOST = 5
"""Days of an hour that are remembered by their date."""

LISTED_MOST = 500
"""Records that are listed one by one."""

NAME_MOST = 200
"""Characters of a name, and of what happened."""

WHOLE = 1 << 32
"""As how many messages a mailbox counts that is deleted, where deletions are put in order."""

DONE = frozenset(("ok", "unknown"))
"""Outcomes of what was done, or may have been."""


class _Session(NamedTuple):
    user: str
    acting: str
    address: str
    program: str


@lru_cache(4096)
def network(address: str) -> str:
    """The network that an address counts as: /24, or /48 of IPv6; what is no address stays as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address or "-"
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))


def shown(value: str) -> str:
    """A name as it is shown and counted: printable, and of bounded length."""
    name = printable(value[: NAME_MOST + 1])
    return name if len(name) <= NAME_MOST else name[: NAME_MOST - 1] + "…"


def _messages(record: Record) -> int:
    """How many messages a record is about; one where it does not say."""
    if "message.count" in record:
        return number(record, "message.count")
    numbers = text(record, "message.uids") or text(record, "message.sequence")
    try:
        return count(numbers.encode("ascii", "replace")) or 1
    except ValueError:
        return 1


class Findings:
    """What was found so far; records come in the order of their time.

    :param zone: in which hours and days are counted.
    :ivar senseless: records without a time that makes sense
    """

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._local = lru_cache(256)(self._converted)
        self._sessions: dict[str, _Session] = {}
        self.first = self.last = ""
        self.records = self.senseless = 0
        self.people: Tally[str, Person] = Tally(Person, PEOPLE_MOST)
        self.whose: Tally[Whose, Deeds] = Tally(Deeds, KINDS_MOST)
        self.removed: Tally[Whose, Removed] = Tally(Removed, KINDS_MOST)
        self.refusals: Tally[Refusal, Seen] = Tally(Seen, KINDS_MOST)
        self.logins: Tally[Login, Seen] = Tally(Seen, KINDS_MOST)
        self.faults: Tally[str, Seen] = Tally(Seen, SEEN_MOST)
        self.hours: Tally[str, Hour] = Tally(Hour, 100_000)
        self.week = [[0] * 24 for _ in range(7)]
        self.gaps: deque[Listed] = deque(maxlen=LISTED_MOST)
        self.administration: deque[Listed] = deque(maxlen=LISTED_MOST)
        self.removals = Largest(LISTED_MOST)
        self.lost = 0

    def take(self, record: Record) -> None:
        """Count one record."""
        self.records += 1
        time = str(record.get("time", ""))
        local = self._local(time[:16])
        if local is None or not time.endswith("Z"):
            self.senseless += 1
            return
        self.first = self.first or time
        self.last = time
        event = str(record.get("event", ""))
        _Count(self, record, event, time, *local).take()

    def _converted(self, minute: str) -> tuple[str, int, int] | None:
        """The day, the weekday and the hour there of a time without its seconds."""
        try:
            moment = datetime.fromisoformat(f"{minute}+00:00").astimezone(self._zone)
        except (ValueError, OverflowError):
            return None
        if not 2000 <= moment.year < 2200:
            return None
        return moment.strftime("%Y-%m-%d"), moment.weekday(), moment.hour

    def session(self, record: Record, event: str) -> _Session:
        """Who this is, and from where: what the record does not say, the session's earlier ones may have said."""
        key = text(record, "session.id")
        known = self._sessions.get(key) if key else None
        user, address = text(record, "user.name"), text(record, "client.address")
        acting, program = text(record, "user.effective"), _program(record)
        if known is not None:
            user, address = user or known.user, address or known.address
            acting, program = acting or known.acting, program or known.program
        found = _Session(shown(user), shown(acting or user), shown(address), shown(program))
        if event == "session.close":
            self._sessions.pop(key, None)
        elif key and found != known:
            if known is None and len(self._sessions) >= SESSIONS_MOST:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[key] = found
        return found


def _program(record: Record) -> str:
    """What a client says that it is; without its version, which changes by itself."""
    said = record.get("client.asserted")
    if isinstance(said, Mapping):
        return printable(said.get("name") or "")
    return text(record, "client.asserted")


class _Count:
    """One record on its way into the findings."""

    def __init__(
        self, findings: Findings, record: Record, event: str, time: str, day: str, weekday: int, hour: int
    ) -> None:
        self.findings = findings
        self.record = record
        self.event = event
        self.time = time
        self.day, self.weekday, self.hour = day, weekday, hour
        self.session = findings.session(record, event)

    def take(self) -> None:
        """Count it where its event and its outcome belong."""
        outcome = self.record.get("outcome")
        taking = _BY_EVENT.get(self.event)
        if taking is not None and (outcome in DONE or self.event in _WHATEVER):
            taking(self)
        elif outcome == "denied" or self.event == "policy.deny":
            self._denied()

    @property
    def _person(self) -> Person:
        return self.findings.people[self.session.user]

    @property
    def _in_time(self) -> Hour:
        return self.findings.hours[f"{self.day}T{self.hour:02}"]

    def _here(self) -> Whose:
        mailbox = shown(text(self.record, "mailbox.name"))
        return Whose(self.session.user, self.session.acting, mailbox)

    def _active(self, person: Person) -> None:
        """A person does something with mail."""
        session, time = self.session, self.time
        person.at(time)
        person.networks[network(session.address)].at(time)
        person.programs[session.program].at(time)
        self.findings.week[self.weekday][self.hour] += 1
        if person.day != self.day:
            person.day = self.day
            person.active += 1
        slot = person.hours[self.hour]
        slot.times += 1
        if slot.day != self.day:
            slot.day = self.day
            slot.days += 1
            slot.recent = (*slot.recent[-RECENT_MOST + 1 :], (time, session.address))

    def _success(self) -> None:
        person = self._person
        person.sessions += 1
        person.at(self.time)

    def _failure(self) -> None:
        self._in_time.failed += 1
        self._person.failed += 1
        self._person.at(self.time)
        self.findings.logins[Login(self.session.user, self.session.address)].at(self.time)

    def _denied(self) -> None:
        self._in_time.denied += 1
        self._person.denied += 1
        self._person.at(self.time)
        policy = "/".join(part for part in (text(self.record, f"policy.{name}") for name in ("plugin", "rule")) if part)
        verb = text(self.record, "command.verb") or self.event
        mailbox = text(self.record, "mailbox.name")
        self.findings.refusals[Refusal(self.session.user, *map(shown, (verb, mailbox, policy)))].at(self.time)

    def _access(self) -> None:
        person, messages = self._person, _messages(self.record)
        octets = number(self.record, "message.octets")
        kind = self.record.get("message.access")
        self._active(person)
        in_time = self._in_time
        for deeds in (person.deeds, self.findings.whose[self._here()]):
            deeds.at(self.time)
            deeds.octets += octets
            deeds.addresses[self.session.address].at(self.time)
            if kind == "content":
                deeds.content += messages
            elif kind == "bulk":
                deeds.bulk += messages
            else:
                deeds.headers += messages
        if kind == "content":
            in_time.content += messages
        elif kind == "bulk":
            in_time.bulk += messages
        else:
            in_time.headers += messages
            return
        now = person.now
        hour = f"{self.day}T{self.hour:02}"
        if now.hour != hour:
            now = person.now = Peak(hour)
        now.messages += messages
        now.octets += octets
        now.address = self.session.address
        if now.octets >= person.peak.octets:
            person.peak = now

    def _removal(self) -> None:
        removed, messages = self.findings.removed[self._here()], _messages(self.record)
        self._active(self._person)
        removed.at(self.time)
        if self.event == "message.move":
            removed.moved += messages
            return
        if self.event == "message.delete":
            removed.marked += messages
        elif self.event == "message.expunge":
            removed.expunged += messages
            self._person.removed += messages
            self._in_time.removed += messages
        else:
            removed.mailboxes += 1
            messages = WHOLE
        self.findings.removals.take(messages, self._told())

    def _change(self) -> None:
        self._active(self._person)

    def _gap(self) -> None:
        self.findings.lost += number(self.record, "gap.lost")
        self._list(self.findings.gaps)

    def _administration(self) -> None:
        self._list(self.findings.administration)

    def _fault(self) -> None:
        self.findings.faults[shown(text(self.record, "policy.plugin"))].at(self.time)

    def _list(self, where: deque[Listed]) -> None:
        where.append(self._told())

    def _told(self) -> Listed:
        return Listed(self.time, self.session.user, shown(self.event), shown(sentence(self.record)))


_CHANGES = ("append", "copy", "flag")
_REMOVALS = ("message.delete", "message.expunge", "message.move", "mailbox.delete")
_BY_EVENT: Mapping[str, Callable[[_Count], None]] = {
    "auth.success": _Count._success,
    "auth.failure": _Count._failure,
    "message.access": _Count._access,
    **dict.fromkeys(_REMOVALS, _Count._removal),
    **dict.fromkeys((f"message.{change}" for change in _CHANGES), _Count._change),
    "audit.gap": _Count._gap,
    "admin.action": _Count._administration,
    "config.reload": _Count._administration,
    "plugin.error": _Count._fault,
}
_WHATEVER = frozenset(("auth.failure", "audit.gap", "admin.action", "config.reload", "plugin.error"))
"""Counted whatever came of them."""
