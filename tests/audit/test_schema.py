"""The schema of the records: what is written keeps to it, and it is strict."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jsonschema import Draft202012Validator

from imapgate.audit import trail as trails
from imapgate.audit.checkpoint import Signer
from imapgate.audit.schema import VERSION, schema
from imapgate.audit.trail import Durability
from tests.audit.trails import BEGAN, Bed, Disk

VALIDATOR = Draft202012Validator(schema())

HASH = "0123456789abcdef" * 4

SESSION: dict[str, object] = {
    "user.name": "alice", "user.effective": "shared", "user.upstream": "shared*gate",
    "client.address": "2001:db8::7", "client.port": 50123,
    "client.via": "192.0.2.1", "client.asserted": {"name": "Thunderbird", "version": None}, "tls.protocol": "TLSv1.3",
    "tls.cipher": "TLS_AES_256_GCM_SHA384", "listener": "tcp:993", "upstream": "legacy", "session.id": "a1b2",
    "session.listener": "tcp:993",
}  # fmt: skip
COMMAND: dict[str, object] = {
    **SESSION, "command.id": 7, "command.verb": "UID FETCH", "command.tag": "a7", "duration": 0.0021,
    "note.case": "4711", "note.marks": ["a", "b"], "note.risk": 0.5, "note.seen": True,
}  # fmt: skip
MAILBOX: dict[str, object] = {
    **COMMAND, "mailbox.name": "Entwürfe", "mailbox.raw": "Entw&APw-rfe", "mailbox.uid_validity": 1700000000,
}  # fmt: skip
MESSAGES: dict[str, object] = {**MAILBOX, "message.uids": "1:5,9", "message.count": 6}
THERE: dict[str, object] = {
    "destination.mailbox": "Trash", "destination.uids": "7:12", "destination.uid_validity": 3,
}  # fmt: skip

EXAMPLES: dict[str, dict[str, object]] = {
    "session.open": {**SESSION},
    "session.close": {
        **SESSION, "reason": "logout", "duration": 12.5, "session.commands": 3, "session.octets_in": 99,
        "session.octets_out": 0,
    },
    "auth.success": {**SESSION, "auth.mechanism": "PLAIN"},
    "auth.failure": {"client.address": "192.0.2.7", "reason": "credentials"},
    "mailbox.select": {**MAILBOX, "mailbox.read_only": True, "command.asked": "SELECT"},
    "mailbox.create": MAILBOX,
    "mailbox.delete": MAILBOX,
    "mailbox.rename": {**MAILBOX, "destination.mailbox": "Neu"},
    "mailbox.subscribe": MAILBOX,
    "mailbox.unsubscribe": MAILBOX,
    "mailbox.acl": {**MAILBOX, "acl.identifier": "bob", "acl.rights": "+lr"},
    "message.access": {
        **MESSAGES, "message.access": "content", "message.octets": 4096, "message.ids": ["<1@example.org>"],
        "message.subjects": ["Hello"],
    },
    "message.append": {**MESSAGES, "message.size": 2048, "flags.set": ["\\Seen"]},
    "message.copy": {**MESSAGES, **THERE},
    "message.move": {**MESSAGES, **THERE},
    "message.flag": {**MESSAGES, "flags.added": ["\\Flagged"], "flags.removed": []},
    "message.delete": MESSAGES,
    "message.expunge": {**MAILBOX, "message.sequence": "3,1", "message.count": 2},
    "search": {**MAILBOX, "search.criteria_sha256": HASH, "search.criteria": "TEXT secret", "search.found": 0},
    "policy.deny": {**COMMAND, "policy.plugin": "readonly", "policy.rule": "none"},
    "plugin.error": {
        **SESSION, "policy.plugin": "webhook", "policy.rule": "timeout", "policy.hook": "command",
        "error.kind": "timeout", "reason": "5 s",
    },
    "admin.action": {"admin.command": "kick", "admin.arguments": ["alice"]},
    "config.reload": {"reason": "SIGHUP", "config.file": "/etc/imapgate.toml"},
    "audit.gap": {"gap.reason": "a disk", "gap.lost": 3, "gap.since": "2026-11-02T08:15:00.000000Z", "previous": HASH},
    "audit.checkpoint": {"reason": "time", "schema.version": VERSION},
}  # fmt: skip


def problems(record: dict[str, Any]) -> list[str]:
    """What the schema has against a record."""
    return [error.message for error in VALIDATOR.iter_errors(record)]


def whole(event: str, fields: dict[str, object]) -> dict[str, object]:
    """A record with what all records have."""
    time = BEGAN.isoformat(timespec="microseconds")[:-6] + "Z"
    return {"time": time, "seq": 1, "chain": "c1", "event": event, "outcome": "ok", "hash": HASH, **fields}


def test_the_schema_is_one() -> None:
    """It is a JSON Schema of the draft that it names, and names its version."""
    Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema()["$id"].endswith(f":{VERSION}")
    assert schema()["properties"]["schema.version"]["const"] == VERSION
    assert all("description" in each for each in schema()["properties"].values())


def test_every_event_and_field_has_an_example() -> None:
    """The examples are complete."""
    assert set(EXAMPLES) == set(schema()["properties"]["event"]["enum"])
    used = {name for fields in EXAMPLES.values() for name in whole("", fields)}
    assert set(schema()["properties"]) - used == {"checkpoint.key", "checkpoint.signature"}


@pytest.mark.parametrize("event", list(EXAMPLES))
def test_examples(event: str) -> None:
    """What each event has to say is in the schema; what every record has must be there."""
    record = whole(event, EXAMPLES[event])
    assert problems(record) == []
    for name in ("time", "seq", "chain", "event", "outcome", "hash"):
        assert problems({key: value for key, value in record.items() if key != name})


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ("audit.checkpoint", "reason"), ("audit.checkpoint", "schema.version"), ("audit.gap", "gap.reason"),
        ("mailbox.select", "mailbox.name"), ("mailbox.acl", "mailbox.name"), ("message.append", "mailbox.name"),
        ("mailbox.rename", "destination.mailbox"), ("message.access", "message.access"),
        ("message.copy", "destination.mailbox"), ("message.move", "destination.mailbox"),
        ("policy.deny", "policy.plugin"), ("plugin.error", "policy.plugin"), ("admin.action", "admin.command"),
    ],
)  # fmt: skip
def test_what_an_event_must_say(event: str, name: str) -> None:
    """A record without what its event is about is wrong."""
    fields = {key: value for key, value in EXAMPLES[event].items() if key != name}
    assert problems(whole(event, fields))


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "x"}, {"note": "x"}, {"note.x": {"a": 1}}, {"event": "session.opened"}, {"outcome": "fine"},
        {"time": "2026-11-02T08:15:00Z"}, {"time": "2026-11-02T08:15:00.000000+00:00"}, {"seq": 0}, {"seq": "1"},
        {"hash": HASH.upper()}, {"message.uids": "1:*"}, {"message.uids": ""}, {"message.count": -1},
        {"message.access": "all"}, {"duration": -0.1}, {"client.port": 65536}, {"flags.added": "\\Seen"},
        {"client.asserted": "x"}, {"checkpoint.key": HASH}, {"checkpoint.signature": "A" * 86 + "=="},
        {"chain": "\x1b"}, {"schema.version": VERSION + 1}, {"destination.uids": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_strict(wrong: dict[str, object]) -> None:
    """Names that nobody knows and values of another kind are refused."""
    assert problems({**whole("session.open", dict(SESSION)), **wrong})


@pytest.mark.parametrize("durability", list(Durability))
def test_what_the_trail_itself_writes(
    bed: Bed, disk: Disk, durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints of every reason and gaps of every kind keep to the schema."""
    monkeypatch.setattr(trails, "CHECKPOINT_RECORDS", 3)
    monkeypatch.setattr(trails, "KEPT", 3600)
    monkeypatch.setattr(trails, "SPARE", 0)
    bed.process(stop=False)
    bed.path.write_bytes(bed.path.read_bytes() + b"{")
    trail = bed.trail(durability, signer=Signer(Ed25519PrivateKey.generate()))
    trail.start()
    bed.passes(1)
    disk.room = 0
    for event, fields in EXAMPLES.items():
        trail.record(event, "ok", fields)
    disk.room = None
    bed.passes(200)  # the last record is a gap now: a checkpoint follows it, too
    trail.reopen()
    bed.passes(100)
    trail.stop()
    bed.passes(1)
    records = bed.records()
    reasons = {each["reason"] for each in records if each["event"] == "audit.checkpoint"}
    assert reasons == {"started", "records", "time", "rotated", "opened", "stopped"}
    assert len([each for each in records if each["event"] == "audit.gap"]) == 2
    for record in records:
        assert problems(record) == [], record
