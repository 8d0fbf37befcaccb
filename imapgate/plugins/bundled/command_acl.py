"""Which commands who may use, from where, and when.

Knows a command's verb, its user, the client's address and the time of day; not what commands say, and not which of
them are dangerous.

Rules are looked at in order, and the first that fits decides.  A rule for ``MOVE`` is for ``UID MOVE``, too.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime, time, timedelta, tzinfo
from fnmatch import fnmatchcase
from typing import NamedTuple
from zoneinfo import ZoneInfo

from imapgate.plugins.api import Command, Interests, Options, Plugin, Reject, Session
from imapgate.plugins.bundled._addresses import parsed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]|24(?=:00)):([0-5][0-9])", re.ASCII)
_VERB = re.compile(r"(?:UID )?[A-Z0-9.=_*?-]+", re.ASCII)
_DAY = timedelta(days=1)


class _Rule(NamedTuple):
    name: str
    allowed: bool
    verbs: tuple[str, ...]
    users: tuple[str, ...]
    networks: tuple[Network, ...]
    """Empty: from anywhere."""
    hours: tuple[time, time]
    """From the first until before the second, the next day's where that is not later."""
    days: tuple[str, ...]
    """Of those hours' beginning."""

    def fits(self, session: Session, command: Command, now: datetime) -> bool:
        """Whether the rule is for this command at this time."""
        return (
            any(fnmatchcase(verb, pattern) for pattern in self.verbs for verb in (command.verb, command.name))
            and any(fnmatchcase(session.user.lower(), pattern) for pattern in self.users)
            and (not self.networks or self._inside(session.address))
            and self._now(now)
        )

    def _inside(self, address: str) -> bool:
        ip = parsed(address)
        return ip is not None and any(ip in network for network in self.networks)

    def _now(self, now: datetime) -> bool:
        begin, end = self.hours
        if begin < end:
            return begin <= now.time() < end and _DAYS[now.weekday()] in self.days
        if now.time() >= begin:
            return _DAYS[now.weekday()] in self.days
        return now.time() < end and _DAYS[(now - _DAY).weekday()] in self.days


class CommandAcl(Plugin):
    """The plugin ``command_acl``; options ``rules`` (tables), ``default`` (``allow`` or ``deny``) and ``timezone``.

    A rule has an ``action`` (``allow`` or ``deny``), and any of ``verbs``, ``users`` (patterns), ``networks``,
    ``hours`` (``"22:00-06:00"``), ``days`` (``["sat", "sun"]``) and ``name``, which is for the audit trail.
    """

    def __init__(self, options: Options) -> None:
        self._timezone = _timezone(options)
        self._allowed = options.choice("default", ("allow", "deny"), "allow") == "allow"
        self._rules = [_rule(number, table) for number, table in enumerate(options.tables("rules"), 1)]
        verbs = {verb for rule in self._rules for verb in rule.verbs}
        if self._allowed and not any("*" in verb or "?" in verb for verb in verbs):
            self.interests = Interests(verbs=frozenset(verbs | {f"UID {verb}" for verb in verbs}))
        else:
            self.interests = Interests(verbs=None)

    def command(self, session: Session, command: Command) -> Reject | None:
        """Do what the first rule that fits says."""
        now = self._now()
        for rule in self._rules:
            if rule.fits(session, command, now):
                return None if rule.allowed else _refused(command, rule.name)
        return None if self._allowed else _refused(command, "default")

    def _now(self) -> datetime:
        return datetime.now(self._timezone)


def _refused(command: Command, rule: str) -> Reject:
    return Reject("NOPERM", f"{command.verb} is not allowed here and now", rule)


# Options -------------------------------------------------------------------------------------------------------------


def _timezone(options: Options) -> tzinfo | None:
    """The time zone of the hours; ``None``: this machine's."""
    name = options.text("timezone", "")
    try:
        return ZoneInfo(name) if name else None
    except (OSError, ValueError, LookupError):  # LookupError: none of that name
        raise options.fault("timezone", 'expected a time zone such as "Europe/Vienna"; this one is not known') from None


def _rule(number: int, table: Options) -> _Rule:
    return _Rule(
        table.text("name", f"rule {number}"),
        table.choice("action", ("allow", "deny")) == "allow",
        _verbs(table),
        tuple(pattern.lower() for pattern in table.texts("users", ("*",))),
        table.networks("networks"),
        _hours(table),
        _days(table),
    )


def _verbs(table: Options) -> tuple[str, ...]:
    verbs = tuple(verb.upper() for verb in table.texts("verbs", ("*",)))
    if wrong := [verb for verb in verbs if not _VERB.fullmatch(verb)]:
        raise table.fault("verbs", f'expected verbs such as "MOVE", "UID FETCH" or "*ACL"; {wrong[0]!r} is none')
    return verbs


def _hours(table: Options) -> tuple[time, time]:
    span = _SPAN.fullmatch(table.text("hours", "00:00-24:00"))
    if span is None:
        raise table.fault("hours", 'expected hours such as "08:00-18:00" or "22:00-06:00"')
    begin, begin_minute, end, end_minute = (int(number) for number in span.groups())
    return time(begin, begin_minute), time(end % 24, end_minute)


def _days(table: Options) -> tuple[str, ...]:
    days = tuple(day.lower() for day in table.texts("days", _DAYS))
    if set(days) - set(_DAYS):
        raise table.fault("days", f"expected days of {', '.join(_DAYS)}")
    return days


PLUGIN = CommandAcl
