"""How a record looks to syslog, to journald and to readers of lines."""

from __future__ import annotations

import json
import os
import re

import pytest

from imapgate.audit.sinks import Journal, OctetCounted, Syslog, json_line
from imapgate.audit.sinks.formats import VALUE_MOST, severity

RECORD: dict[str, object] = {
    "time": "2026-11-02T08:15:30.123456Z",
    "seq": 7,
    "event": "message.access",
    "outcome": "ok",
    "user.name": "alice",
    "mailbox.name": "INBOX",
    "message.uids": "1:5",
    "message.access": "content",
    "message.count": 5,
    "message.ids": ["<1@example.org>", "<2@example.org>"],
}
LINE = json.dumps(RECORD).encode()
HEADER = re.compile(rb"<(\d+)>1 (\S+) (\S+) (\S+) (\d+) (\S+) (\S+) ")


def fields(datagram: bytes) -> dict[str, str]:
    """What journald reads in a datagram of its native protocol."""
    found: dict[str, str] = {}
    while datagram:
        head, _, datagram = datagram.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(datagram[:8], "little")
            value, end, datagram = datagram[8 : 8 + size], datagram[8 + size : 9 + size], datagram[9 + size :]
            assert end == b"\n"
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        found[name.decode()] = value.decode()
    return found


def test_syslog() -> None:
    """RFC 5424 §6: priority, version, time, host, application, process, kind of message; the line is its text."""
    message = Syslog("mail.example.org")(RECORD, LINE + b"\n")
    found = HEADER.match(message)
    assert found is not None
    assert found.groups() == (
        b"86",
        b"2026-11-02T08:15:30.123456Z",
        b"mail.example.org",
        b"imapgate",
        str(os.getpid()).encode(),
        b"message.access",
        b"-",
    )
    assert message[found.end() :] == LINE


@pytest.mark.parametrize(
    ("record", "level"),
    [
        ({"event": "audit.gap", "outcome": "ok"}, 3),
        ({"event": "plugin.error"}, 3),
        ({"event": "policy.deny"}, 4),
        ({"event": "auth.failure", "outcome": "no"}, 4),
        ({"event": "message.copy", "outcome": "denied"}, 4),
        ({"event": "message.copy", "outcome": "no"}, 6),
        ({}, 6),
    ],
)
def test_severity(record: dict[str, object], level: int) -> None:
    """A gap is an error, what was denied a warning; in syslog's priority and in journald's."""
    assert severity(record) == level
    assert Syslog(facility=13)(record, b"{}").startswith(b"<%d>1 " % (13 * 8 + level))
    assert fields(Journal(13)(record, b"{}"))["PRIORITY"] == str(level)


def test_header_is_printable() -> None:
    """Nothing that a record or a machine is called can end a header's field early; what is not there is ``-``."""
    message = Syslog("my host\n")({"time": "", "event": "söme event\n"}, b"{}")
    found = HEADER.match(message)
    assert found is not None
    assert found.groups()[1:3] == (b"-", b"my_host_")
    assert found[6] == b"s_me_event\\n"


def test_octet_counted() -> None:
    """RFC 6587 §3.4.1: the length in octets, a space, the message."""
    framed = OctetCounted("host")(RECORD, LINE)
    length, _, message = framed.partition(b" ")
    assert int(length) == len(message)
    assert message == Syslog("host")(RECORD, LINE)


def test_json_line() -> None:
    """The line as it stands in the file, with one end of line, however it came, and however long."""
    assert json_line(RECORD, LINE) == json_line(RECORD, LINE + b"\n") == LINE + b"\n"
    assert json_line({}, b"x" * 100_000) == b"x" * 100_000 + b"\n"


def test_syslog_cuts_long_values() -> None:
    """What is too long for a receiver is still JSON: its long values are cut and marked."""
    record = RECORD | {"message.uids": ",".join(map(str, range(1, 9999, 2))), "message.ids": ["<a@b>"] * 1000}
    message = Syslog("host")(record, json.dumps(record).encode())
    assert len(message) <= 8192
    sent = json.loads(message[HEADER.match(message).end() :])  # type: ignore[union-attr]
    assert sent["cut"] is True
    assert sent["message.uids"].startswith("1,3,5,")
    assert sent["message.uids"].endswith(f"… [cut, {len(str(record['message.uids']))} characters]")
    assert sent["message.ids"].startswith('["<a@b>", ')
    assert {name: sent[name] for name in ("seq", "user.name", "message.count")} == {
        "seq": 7,
        "user.name": "alice",
        "message.count": 5,
    }


def test_syslog_keeps_what_matters_most() -> None:
    """Where there are too many values even so, who, what and which record are left."""
    record = RECORD | {f"note.{number}": "x" * VALUE_MOST for number in range(100)}
    message = Syslog("host")(record, json.dumps(record).encode())
    sent = json.loads(message[HEADER.match(message).end() :])  # type: ignore[union-attr]
    assert sorted(sent) == ["cut", "event", "outcome", "seq", "time", "user.name"]


def test_journal() -> None:
    """journald gets a sentence to read, and each field under a name of its own."""
    found = fields(Journal()(RECORD | {"client.asserted": {"name": "mutt"}, "note.a b": True}, LINE))
    assert found == {
        "MESSAGE": "alice message.access ok content INBOX uid 1:5 5 messages note.a b=yes",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "imapgate",
        "SYSLOG_FACILITY": "10",
        "IMAPGATE_TIME": "2026-11-02T08:15:30.123456Z",
        "IMAPGATE_SEQ": "7",
        "IMAPGATE_EVENT": "message.access",
        "IMAPGATE_OUTCOME": "ok",
        "IMAPGATE_USER_NAME": "alice",
        "IMAPGATE_MAILBOX_NAME": "INBOX",
        "IMAPGATE_MESSAGE_UIDS": "1:5",
        "IMAPGATE_MESSAGE_ACCESS": "content",
        "IMAPGATE_MESSAGE_COUNT": "5",
        "IMAPGATE_MESSAGE_IDS": "<1@example.org> <2@example.org>",
        "IMAPGATE_CLIENT_ASSERTED": '{"name": "mutt"}',
        "IMAPGATE_NOTE_A_B": "true",
    }


def test_journal_keeps_lines_in_their_field() -> None:
    """A value with line ends stays one value, and forges no field; what is no character is escaped."""
    hostile = "INBOX\nPRIORITY=0\nMESSAGE=all is well"
    found = fields(Journal()(RECORD | {"mailbox.name": hostile, "mailbox.raw": "\ud800"}, LINE))
    assert found["IMAPGATE_MAILBOX_NAME"] == hostile
    assert found["IMAPGATE_MAILBOX_RAW"] == "\\ud800"
    assert found["PRIORITY"] == "6"
    assert "\n" not in found["MESSAGE"]


def test_journal_cuts() -> None:
    """A datagram is never larger than it may be: long values are cut, and at last only the most important are left."""
    long = Journal()(RECORD | {"message.uids": "1," * 50_000}, LINE)
    assert len(long) <= 65_536
    assert fields(long)["IMAPGATE_MESSAGE_UIDS"].endswith("… [cut, 100000 characters]")
    assert fields(long)["IMAPGATE_CUT"] == "true"
    many = Journal()(RECORD | {f"note.{number}": "x" * 200 for number in range(1000)}, LINE)
    assert len(many) <= 65_536
    assert fields(many)["IMAPGATE_SEQ"] == "7"
    assert "IMAPGATE_MAILBOX_NAME" not in fields(many)
