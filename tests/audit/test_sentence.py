"""Records in words."""

from __future__ import annotations

import pytest

from imapgate.audit.sentence import Record, octets, printable, sentence


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, ""),
        (
            {
                "message.access": "content",
                "mailbox.name": "INBOX",
                "message.uids": "1:5",
                "message.count": 5,
                "message.octets": 1_300_000,
                "client.address": "192.0.2.7",
                "client.via": "192.0.2.1",
            },
            "content INBOX uid 1:5 5 messages 1.2 MiB from 192.0.2.7 via 192.0.2.1",
        ),
        ({"mailbox.name": "Sent Mail", "message.sequence": "2:4"}, '"Sent Mail" number 2:4'),
        ({"mailbox.name": "A", "message.uids": "2", "message.sequence": "1", "message.count": 1}, "A uid 2 1 message"),
        (
            {
                "mailbox.name": "A",
                "message.uids": "2",
                "destination.mailbox": "Trash",
                "destination.uids": "9",
                "message.size": 100,
            },
            "A uid 2 100 B to Trash uid 9",
        ),
        (
            {
                "mailbox.name": "A",
                "flags.added": ["\\Seen", "\\Deleted"],
                "flags.removed": ["x"],
                "flags.set": [],
            },
            "A +(\\Seen \\Deleted) -(x) =()",
        ),
        ({"search.criteria": "FROM boss", "search.found": 3}, "for FROM boss 3 found"),
        ({"search.criteria_sha256": "ab12", "search.found": 0}, "for sha256:ab12 0 found"),
        (
            {"command.verb": "UID MOVE", "policy.plugin": "readonly", "policy.rule": "level"},
            "UID MOVE by readonly rule level",
        ),
        (
            {"command.verb": "EXAMINE", "command.asked": "SELECT", "mailbox.name": "INBOX"},
            "INBOX EXAMINE instead of SELECT",
        ),
        ({"mailbox.name": "A", "acl.identifier": "bob", "acl.rights": "+lr"}, "A for bob rights +lr"),
        ({"policy.plugin": "webhook", "error.kind": "timeout"}, "by webhook timeout"),
        ({"config.file": "imapgate.toml"}, "imapgate.toml"),
        ({"gap.reason": "disk full", "gap.lost": 12}, "(disk full) 12 lost"),
        ({"user.name": "alice", "user.effective": "alice"}, ""),
        ({"user.name": "alice", "user.effective": "bob"}, "as bob"),
        ({"event": "auth.success", "client.asserted": {"name": "mutt", "version": "2"}}, "client name=mutt version=2"),
        ({"event": "message.copy", "client.asserted": {"name": "mutt"}}, ""),
        ({"note.case": "17", "note.hold": True, "note.open": False}, "note.case=17 note.hold=yes note.open=no"),
    ],
)
def test_sentence(record: Record, words: str) -> None:
    """Each kind of record in its words; what is not there is not spoken of."""
    assert sentence(record) == words


def test_sentence_is_printable() -> None:
    """Nothing in a record can move a terminal's cursor, end the line, or turn text around."""
    record = {
        "mailbox.name": "a\x1b[2J\nb\u202ec",
        "note.\x07": "\x9b",
        "client.asserted": {"\r": "\x00"},
        "event": "auth.success",
    }
    told = sentence(record)
    assert told.isprintable()
    assert "a\\x1b[2J\\nb\\u202ec" in told
    assert printable("Entwürfe/日本語") == "Entwürfe/日本語"


def test_octets() -> None:
    """Sizes by their units, with three digits at most."""
    sizes = [0, 1023, 1024, 102_400, 1_300_000, 5 << 30, 3 << 40, 5000 << 40]
    assert [octets(size) for size in sizes] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "100 KiB",
        "1.2 MiB",
        "5.0 GiB",
        "3.0 TiB",
        "5000.0 TiB",
    ]
