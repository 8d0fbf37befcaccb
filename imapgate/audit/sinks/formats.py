"""How a record looks to whom it is sent: syslog (RFC 5424, RFC 6587), journald's fields, JSON lines.

Knows octets and nothing of sockets.  A record that is too long for its receiver is sent with its long values cut, and
says so: the whole of it stands in the file.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from functools import lru_cache

from imapgate.audit.record import canonical
from imapgate.audit.sentence import Record, sentence, text

AUTHPRIV = 10
"""The facility for what not everybody may read (RFC 5424 §6.2.1)."""

SYSLOG_MOST = 8192
"""Octets of a message: what rsyslog takes unless told otherwise (RFC 5424 §6.1 asks for 2,048)."""

JOURNAL_MOST = 65_536
"""Octets of a datagram to journald; Linux takes about 200,000 before a descriptor would have to be passed."""

VALUE_MOST = 256
"""Characters that are left of a value that was cut."""

ERROR, WARNING, INFO = 3, 4, 6
_ERRORS = frozenset(("audit.gap", "plugin.error"))
_WARNINGS = frozenset(("policy.deny", "auth.failure"))
_KEYS = ("time", "seq", "chain", "event", "outcome", "user.name", "session.id")
"""What is left where even the cut values are too many."""


def severity(record: Record) -> int:
    """How urgent it is, as syslog counts (RFC 5424 §6.2.1)."""
    event = record.get("event")
    if event in _ERRORS:
        return ERROR
    return WARNING if event in _WARNINGS or record.get("outcome") == "denied" else INFO


def _cut(value: object) -> object:
    """A value, or its beginning with a marker."""
    if isinstance(value, str):
        whole = value
    elif isinstance(value, int | float | bool | None):
        return value
    else:
        whole = json.dumps(value, default=str)
    return whole if len(whole) <= VALUE_MOST else f"{whole[:VALUE_MOST]}… [cut, {len(whole)} characters]"


def shortened(record: Record) -> dict[str, object]:
    """The record with every long value cut, marked as such."""
    return {name: _cut(value) for name, value in record.items()} | {"cut": True}


def _fitting(record: Record, line: bytes, most: int) -> bytes:
    """The record's JSON in at most so many octets: as it is, or cut."""
    line = line.rstrip(b"\n")
    if len(line) <= most:
        return line
    short = shortened(record)
    line = canonical(short)
    return line if len(line) <= most else canonical({name: short[name] for name in (*_KEYS, "cut") if name in short})


def json_line(record: Record, line: bytes) -> bytes:
    """The line of the file, whole."""
    return line.rstrip(b"\n") + b"\n"


_NOT_PRINTED = re.compile(r"[^\x21-\x7e]")


def _header(value: str, most: int) -> str:
    """A field of a syslog header: PRINTUSASCII, ``-`` where there is none (RFC 5424 §6)."""
    return _NOT_PRINTED.sub("_", value)[:most] or "-"


class Syslog:
    """One message as RFC 5424 has it, the record's JSON behind the header.

    :param hostname: this machine; absent: what the system calls it.
    :param most: octets of a message.
    """

    def __init__(self, hostname: str = "", facility: int = AUTHPRIV, most: int = SYSLOG_MOST) -> None:
        self._hostname = _header(hostname or socket.gethostname(), 255)
        self._facility = facility
        self._most = most

    def __call__(self, record: Record, line: bytes) -> bytes:
        """Return the message, without any frame."""
        priority = self._facility * 8 + severity(record)
        time, event = _header(text(record, "time"), 32), _header(text(record, "event"), 32)
        # The process is asked each time: it becomes another one when twistd goes to the background.
        header = f"<{priority}>1 {time} {self._hostname} imapgate {os.getpid()} {event} - ".encode("ascii")
        return header + _fitting(record, line, self._most - len(header))


class OctetCounted(Syslog):
    """The same, its length before it (RFC 6587 §3.4.1, RFC 5425 §4.3): for TCP and TLS."""

    def __call__(self, record: Record, line: bytes) -> bytes:
        """Return the message in its frame."""
        message = super().__call__(record, line)
        return b"%d %b" % (len(message), message)


_NOT_IN_A_NAME = re.compile(r"[^A-Z0-9]")


@lru_cache(1024)
def _field_name(name: str) -> bytes:
    """What one of a record's fields is called there."""
    return b"IMAPGATE_" + _NOT_IN_A_NAME.sub("_", name.upper())[:55].encode("ascii")


def _field(name: bytes, value: str) -> bytes:
    """One field of journald's native protocol; what has more than one line has its length before it."""
    octets = value.encode("utf-8", "backslashreplace")
    if b"\n" not in octets:
        return b"%b=%b\n" % (name, octets)
    return b"%b\n%b%b\n" % (name, len(octets).to_bytes(8, "little"), octets)


class Journal:
    """A datagram to journald (systemd's "Native Journal Protocol"): a sentence, and every field as ``IMAPGATE_…``."""

    def __init__(self, facility: int = AUTHPRIV, most: int = JOURNAL_MOST) -> None:
        self._facility = facility
        self._most = most

    def __call__(self, record: Record, line: bytes) -> bytes:
        """Return the datagram."""
        datagram = self._datagram(record)
        if len(datagram) <= self._most:
            return datagram
        short = shortened(record)
        datagram = self._datagram(short)
        if len(datagram) <= self._most:
            return datagram
        return self._datagram({name: short[name] for name in (*_KEYS, "cut") if name in short})

    def _datagram(self, record: Record) -> bytes:
        parts = (text(record, "user.name") or "-", text(record, "event"), text(record, "outcome"), sentence(record))
        fields = [
            _field(b"MESSAGE", " ".join(part for part in parts if part)),
            _field(b"PRIORITY", str(severity(record))),
            _field(b"SYSLOG_IDENTIFIER", "imapgate"),
            _field(b"SYSLOG_FACILITY", str(self._facility)),
        ]
        for name, value in record.items():
            told = value if isinstance(value, str) else _plain(value)
            fields.append(_field(_field_name(name), told))
        return b"".join(fields)


def _plain(value: object) -> str:
    """A value that is no text, as JSON has it; a list of words as words."""
    if type(value) is int:
        return str(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, default=str)
