"""What a command has done, as an event: one table from the verb, with the fields that are its own."""

from __future__ import annotations

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.commands import COMMANDS
from imapgate.model.reading import Reading
from imapgate.session.deeds import Ended, Place, deeds, number, recorded
from imapgate.session.delivered import BULK, Access, Delivery
from imapgate.session.effects import Auditing
from imapgate.session.intake import parsed
from tests.session.playbook import criteria_in_clear

AUDITING = Auditing(False, lambda: 0.0, str, criteria_in_clear)
INBOX = Place("INBOX", "inbox", 3)
HERE = {"mailbox.name": "INBOX", "mailbox.raw": "inbox", "mailbox.uid_validity": 3}


def told(
    line: bytes,
    *,
    ok: bool = True,
    place: Place | None = INBOX,
    delivery: Delivery | None = None,
    codes: dict[bytes, bytes] | None = None,
    known: tuple[int, ...] | None = None,
    expunged: int = 0,
    found: int = 0,
) -> list[tuple[str, dict[str, object]]]:
    """The events of this command; a message literal that it announces has 9 octets."""
    reading = Reading(parsed(b"a", line, DEFAULTS, COMMANDS, utf8=True).command)
    size = 9 * line.endswith(b"{9}")
    ended = Ended(reading, ok, place, delivery, codes or {}, known, expunged, found, size, size // 9)
    assert recorded(reading.command.rule.verb)
    return list(deeds(ended, AUDITING))


def named(name: str, raw: str = "") -> dict[str, object]:
    """The fields of a mailbox that a command names."""
    return {"mailbox.name": name, "mailbox.raw": raw or name}


@pytest.mark.parametrize(
    ("line", "event", "fields"),
    [
        (b"CREATE &AOk-/", "mailbox.create", named("é", "&AOk-/")),
        (b"CREATE {2}\r\n\xc3\xa4", "mailbox.create", named("ä", "\\xc3\\xa4")),
        (b'DELETE "a b"', "mailbox.delete", named("a b")),
        (b"RENAME a inbox/b", "mailbox.rename", {**named("a"), "destination.mailbox": "INBOX/b"}),
        (b"SUBSCRIBE a", "mailbox.subscribe", named("a")),
        (b"UNSUBSCRIBE a", "mailbox.unsubscribe", named("a")),
        (b"SETACL a eve lrs", "mailbox.acl", {**named("a"), "acl.identifier": "eve", "acl.rights": "lrs"}),
        (b"DELETEACL a eve", "mailbox.acl", {**named("a"), "acl.identifier": "eve"}),
        (b"STORE 1,2 +FLAGS (a \\seen)", "message.flag", {"message.sequence": "1,2", "flags.added": ["a", "\\Seen"]}),
        (b"UID STORE 5 -FLAGS \\Deleted", "message.flag", {"message.uids": "5", "flags.removed": ["\\Deleted"]}),
        (b"STORE 1 FLAGS.SILENT \\DELETED", "message.delete", {"message.sequence": "1", "flags.set": ["\\Deleted"]}),
        (b"UID STORE 5 +FLAGS (\\Deleted)", "message.delete", {"message.uids": "5", "flags.added": ["\\Deleted"]}),
        (b"STORE 1 ANNOTATION (/comment (value.priv x))", "message.flag", {"message.sequence": "1"}),
        (b"COPY 1 b", "message.copy", {"message.sequence": "1", "destination.mailbox": "b"}),
        (b"UID MOVE 5 b", "message.move", {"message.uids": "5", "destination.mailbox": "b"}),
        (b"EXPUNGE", "message.expunge", {"message.count": 0}),
        (b"CLOSE", "message.expunge", {"message.count": 0}),
        (b"UID SEARCH FROM eve", "search", {"search.criteria": "FROM eve", "search.found": 0}),
        (b"SORT (DATE) UTF-8 ALL", "search", {"search.criteria": "(DATE) UTF-8 ALL", "search.found": 0}),
        (b"THREAD REFERENCES UTF-8 ALL", "search", {"search.criteria": "REFERENCES UTF-8 ALL", "search.found": 0}),
        (b"ESEARCH ALL", "search", {"search.criteria": "ALL", "search.found": 0}),
    ],
)
def test_each_verb(line: bytes, event: str, fields: dict[str, object]) -> None:
    """Each has its event; what concerns messages is done in the selected mailbox."""
    here = {} if event.startswith("mailbox") else HERE
    assert told(line) == [(event, {**here, **fields})]


@pytest.mark.parametrize(
    ("line", "codes", "fields"),
    [
        (b"SELECT inbox", {}, {**named("INBOX", "inbox"), "mailbox.read_only": False}),
        (b"EXAMINE x", {}, {**named("x"), "mailbox.read_only": True}),
        (
            b"SELECT x",
            {b"READ-ONLY": b"", b"UIDVALIDITY": b"17"},
            {**named("x"), "mailbox.uid_validity": 17, "mailbox.read_only": True},
        ),
        (b"SELECT x", {b"UIDVALIDITY": b"x"}, {**named("x"), "mailbox.read_only": False}),
    ],
)
def test_selecting(line: bytes, codes: dict[bytes, bytes], fields: dict[str, object]) -> None:
    """As what it was selected, and which mailbox of that name it is."""
    assert told(line, codes=codes) == [("mailbox.select", fields)]


def test_nothing_is_known_of_a_mailbox_that_is_not_selected() -> None:
    """Then only what the command said is recorded; and a UIDVALIDITY that was not said is not."""
    assert told(b"UID STORE 5 FLAGS a", place=None) == [("message.flag", {"message.uids": "5", "flags.set": ["a"]})]
    ((_, fields),) = told(b"UID STORE 5 FLAGS a", place=Place("x", "x"))
    assert fields == {**named("x"), "message.uids": "5", "flags.set": ["a"]}


def test_what_the_gate_has_asked() -> None:
    """UIDs that it asked for stand in place of what the command said, numbers or UIDs."""
    for line in (b"COPY 1:* b", b"UID COPY 1:* b"):
        ((_, fields),) = told(line, known=(9, 7, 8))
        assert fields == {**HERE, "message.uids": "7:9", "message.count": 3, "destination.mailbox": "b"}
        ((_, fields),) = told(line, known=())
        assert fields == {**HERE, "message.count": 0, "destination.mailbox": "b"}


@pytest.mark.parametrize("line", [b"COPY 1:* b", b"UID MOVE 1:* b"])
def test_copyuid(line: bytes) -> None:
    """What the server says was copied is what was; what is no such thing is not looked at."""
    ((_, fields),) = told(line, codes={b"COPYUID": b"38 304,319:320 3956:3958"})
    destination = {"destination.mailbox": "b", "destination.uid_validity": 38, "destination.uids": "3956:3958"}
    assert fields == {**HERE, "message.uids": "304,319:320", **destination}
    for junk in (b"", b"38 1", b"38 1,,2 3", b"38 * 3", b"9" * 5000 + b" 1 2"):
        assert told(line, codes={b"COPYUID": junk}) == told(line)


def test_append() -> None:
    """Where, how much, with which flags, and as which messages: the server's word on how many counts."""
    line = b"APPEND x (\\seen a) {9}"
    fields = {**named("x"), "message.size": 9, "message.count": 1, "flags.set": ["\\Seen", "a"]}
    assert told(line) == [("message.append", fields)]
    fields |= {"mailbox.uid_validity": 38, "message.uids": "5:6", "message.count": 2}
    assert told(line, codes={b"APPENDUID": b"38 5:6"}) == [("message.append", fields)]
    for junk in (b"38", b"38 0", b"38 1,,2", b"38 " + b"9" * 5000):
        assert told(line, codes={b"APPENDUID": junk}) == told(line)
    assert told(b"APPEND x {9}") == [("message.append", {**named("x"), "message.size": 9, "message.count": 1})]


def test_replace() -> None:
    """REPLACE stores a message in one mailbox, and takes one away from the other."""
    stored: dict[str, object] = {"mailbox.name": "y", "message.size": 9, "message.count": 1}
    gone = {**HERE, "message.uids": "4"}
    assert told(b"UID REPLACE 4 y {9}") == [("message.append", stored), ("message.expunge", gone)]
    found = told(b"UID REPLACE 4 y (a) {9}", codes={b"APPENDUID": b"38 5"})
    stored |= {"flags.set": ["a"], "mailbox.uid_validity": 38, "message.uids": "5"}
    assert found == [("message.append", stored), ("message.expunge", gone)]


def test_expunge() -> None:
    """How many are gone is the server's word, but for CLOSE, which is silent; a read-only mailbox keeps them."""
    fields: dict[str, object] = {**HERE, "message.uids": "7:8"}
    assert told(b"EXPUNGE", known=(7, 8), expunged=1) == [("message.expunge", {**fields, "message.count": 1})]
    assert told(b"UID EXPUNGE 1:*", known=(7, 8), expunged=2) == [("message.expunge", {**fields, "message.count": 2})]
    assert told(b"CLOSE", known=(7, 8)) == [("message.expunge", {**fields, "message.count": 2})]
    assert told(b"CLOSE", place=INBOX._replace(read_only=True)) == []
    assert told(b"EXPUNGE", ok=False, place=INBOX._replace(read_only=True))[0][0] == "message.expunge"


def test_a_search_that_failed_found_nothing() -> None:
    """It is recorded without a number."""
    assert told(b"SEARCH ALL", ok=False, found=5) == [("search", {**HERE, "search.criteria": "ALL"})]


def test_access() -> None:
    """What was delivered: how much, of which messages; the contents of many are a copy of the mailbox."""
    delivery = Delivery(Access.CONTENT, [5, 6], 2, 1000, ("<1@x>",), ("Lunch",))
    fields = {**HERE, "message.access": "content", "message.uids": "5:6", "message.count": 2, "message.octets": 1000}
    ids = {"message.ids": ["<1@x>"], "message.subjects": ["Lunch"]}
    assert told(b"FETCH 1:2 BODY[]", delivery=delivery) == [("message.access", {**fields, **ids})]
    bulk = Delivery(Access.CONTENT, range(1, BULK + 1), BULK, 1000, (), ())
    ((_, found),) = told(b"UID FETCH 1:* BODY[]", delivery=bulk)
    assert found["message.access"] == "bulk"
    ((_, found),) = told(b"UID FETCH 1:* FLAGS", delivery=bulk._replace(access=Access.METADATA))
    assert found["message.access"] == "metadata"
    ((_, found),) = told(b"UID FETCH 1:* BODY[]", delivery=bulk._replace(uids=range(2, BULK), messages=BULK - 1))
    assert found["message.access"] == "content"


def test_access_without_uids() -> None:
    """Where the server did not say which messages they were, the record has what was asked for."""
    delivery = Delivery(Access.METADATA, [], 2, 10, (), ())
    ((_, found),) = told(b"FETCH 1:2 FLAGS", delivery=delivery)
    assert found["message.sequence"] == "1:2"
    assert "message.uids" not in found
    ((_, found),) = told(b"UID FETCH 1:2 FLAGS", delivery=delivery)
    assert found["message.uids"] == "1:2"
    ((_, found),) = told(b"UID FETCH 5:9 FLAGS", delivery=delivery._replace(uids=[5]))
    assert found["message.uids"] == "5"
    ((_, found),) = told(b"FETCH 1:2 FLAGS", delivery=delivery._replace(messages=0))
    assert "message.sequence" not in found


def test_what_is_not_recorded() -> None:
    """Commands that touch nobody's mail and no mailbox are no events."""
    touching = {verb.removeprefix(b"UID ").decode() for verb in COMMANDS if recorded(verb)}
    assert not touching & {"NOOP", "LIST", "STATUS", "IDLE", "ENABLE", "LOGOUT", "NAMESPACE", "GETACL", "UNSELECT"}
    reading = Reading(parsed(b"a", b"NOOP", DEFAULTS, COMMANDS, utf8=False).command)
    assert list(deeds(Ended(reading, True), AUDITING)) == []


def test_numbers() -> None:
    """A number is one that IMAP knows."""
    assert [number(text) for text in (b"17", b"0", b"", b"x", b"017", b"9" * 5000)] == [17, 0, 0, 0, 0, 0]
