"""What the audit trail says of messages on a real server: which, by UID, as the server itself names them.

The gate asks for UIDs where the client gave numbers; the client is shown none that it did not ask for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.integration.audited import audit, of
from tests.integration.boxes import MODES, GateOf, box_of, gates, message, named, prefix_of, recording
from tests.integration.conftest import User
from tests.integration.servers import Server
from tests.integration.wire import Wire

NewUser = Callable[..., User]


@pytest.fixture(scope="module")
def gate_of() -> Iterator[GateOf]:
    """The gates of this module."""
    with gates() as given:
        yield given


# -- FETCH ------------------------------------------------------------------------------------------------------------


ITEMS = {
    b"FLAGS": "metadata",
    b"(FLAGS INTERNALDATE)": "metadata",
    b"ALL": "headers",
    b"FAST": "metadata",
    b"FULL": "headers",
    b"ENVELOPE": "headers",
    b"BODYSTRUCTURE": "metadata",
    b"RFC822.SIZE": "metadata",
    b"RFC822.HEADER": "headers",
    b"BODY.PEEK[HEADER.FIELDS (SUBJECT)]": "headers",
    b"(FLAGS BODY.PEEK[HEADER])": "headers",
    b"BODY.PEEK[]": "content",
    b"(BODY.PEEK[]<0.10> FLAGS)": "content",
    b"BODY.PEEK[1]": "content",
    b"RFC822.TEXT": "content",
    b"RFC822": "content",
    b"BODY[]": "content",
}
"""What is fetched, and how much of a message that is."""


@pytest.mark.parametrize("mode", MODES)
def test_fetch(server: Server, user: NewUser, gate_of: GateOf, mode: str) -> None:
    """The record names UIDs and what was delivered; the client is shown what the server shows, and no UID."""
    with box_of(gate_of(server, mode), user(server)) as box:
        uids = box.uids()
        box.give(b"EXAMINE INBOX")
        for items, access in ITEMS.items():
            shown = box.give(b"FETCH 2:4 " + items)
            direct = b"".join(box.direct.ok(b"FETCH 2:4 " + items)[:-1])
            assert _unordered(shown.partition(b"c1n")[0]) == _unordered(direct), items
            record = box.last("message.access")
            assert named(record["message.uids"]) == uids[1:4], items
            assert (record["message.count"], record["message.access"]) == (3, access), items
            assert len(direct) <= record["message.octets"] <= len(direct) + 3 * len(b" UID 99999"), items
            assert record["mailbox.name"] == record["mailbox.raw"] == "INBOX"
            box.give(b"UID FETCH %d,%d,4000 %b" % (uids[0], uids[3], items))
            record = box.last("message.access")
            assert named(record["message.uids"]) == [uids[0], uids[3]], items
            assert (record["message.count"], record["message.access"]) == (2, access), items


@pytest.mark.parametrize("mode", MODES)
def test_fetch_pipelined(server: Server, user: NewUser, gate_of: GateOf, mode: str) -> None:
    r"""Each of several commands in one write has its own messages; that \Seen is set shows no UID, either."""
    with box_of(gate_of(server, mode), user(server)) as box:
        uids = box.uids()
        shown = box.give(b"SELECT INBOX", b"FETCH 2 BODY[]", b"FETCH 1 ENVELOPE", b"FETCH 3 FLAGS")
        assert b" UID " not in shown.replace(b"(UID 999 BODY[] {3}", b"")
        for number, messages in enumerate((uids[1:2], uids[0:1], uids[2:3]), 1):
            (record,) = box.told("message.access", command_tag=f"c1n{number}")
            assert named(record["message.uids"]) == messages


def _unordered(responses: bytes) -> list[list[bytes]]:
    r"""Responses without the order of flags and items, and without \Recent, which depends on who came first."""
    text = re.sub(rb"\\Recent ?", b"", responses)
    return [sorted(re.findall(rb"[^ ()\r\n]+", line)) for line in text.splitlines()]


def test_bulk(dovecot: Server, user: NewUser, gate_of: GateOf) -> None:
    """A whole mailbox is bulk; Message-IDs are named where they were fetched, subjects only where that is wanted."""
    with recording(dovecot, **audit("buffered", subjects=True)) as gate, box_of(gate, user(dovecot), 90) as box:
        box.give(b"SELECT INBOX", b"UID FETCH 1:* (UID BODY.PEEK[])")
        uids = box.uids()
        assert len(uids) == 60
        record = box.last("message.access")
        assert named(record["message.uids"]) == uids
        assert (record["message.access"], record["message.count"]) == ("bulk", 60)
        assert len(record["message.ids"]) == 60
        box.give(b"FETCH 1:3 ENVELOPE")
        record = box.last("message.access")
        assert record["message.ids"] == [f"<number-{uid}@example.org>" for uid in (2, 3, 5)]
        assert record["message.subjects"] == [f"number {uid}" for uid in (2, 3, 5)]
    with box_of(gate_of(dovecot, "session"), user(dovecot)) as box:
        box.give(b"SELECT INBOX", b"FETCH 1:3 (ENVELOPE BODY.PEEK[])")
        assert "message.subjects" not in box.last("message.access")


# -- changes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_flags(server: Server, user: NewUser, gate_of: GateOf, mode: str) -> None:
    """STORE names UIDs however it was given; what marks for deletion is an event of its own."""
    with box_of(gate_of(server, mode), user(server)) as box:
        uids = box.uids()
        box.give(b"SELECT INBOX")
        shown = box.give(b"STORE 2:3 +FLAGS (\\Flagged)")
        assert b"UID" not in shown
        record = box.last("message.flag")
        assert named(record["message.uids"]) == uids[1:3]
        assert record["flags.added"] == ["\\Flagged"]
        shown = box.give(b"STORE 1,4 -FLAGS.SILENT (\\Flagged)")
        assert b"FETCH" not in shown
        record = box.last("message.flag")
        assert named(record["message.uids"]) == [uids[0], uids[3]]
        assert record["flags.removed"] == ["\\Flagged"]
        shown = box.give(b"UID STORE %d:* FLAGS (\\Answered)" % uids[2])
        assert b"SEARCH" not in shown
        record = box.last("message.flag")
        assert named(record["message.uids"]) == uids[2:]
        assert record["flags.set"] == ["\\Answered"]
        box.give(b"UID STORE 4000:4010 +FLAGS (\\Seen)")
        record = box.last("message.flag")
        assert (record["message.count"], "message.uids" in record) == (0, False)
        box.give(b"STORE 2 +FLAGS (\\Deleted \\Seen)")
        record = box.last("message.delete")
        assert named(record["message.uids"]) == [uids[1]]
        assert not of(box.trail(lambda trail: True), "message.flag", command_tag=record["command.tag"])


@pytest.mark.parametrize("mode", MODES)
def test_copy_and_move(server: Server, user: NewUser, gate_of: GateOf, mode: str) -> None:
    """COPY and MOVE name both sides; a copy in a mailbox whose name is not ASCII has it decoded and raw."""
    with box_of(gate_of(server, mode), user(server)) as box:
        prefix = prefix_of(box.direct)
        there = b"%bEntw&APw-rfe" % prefix
        box.give(b'CREATE "%b"' % there)
        created = box.last("mailbox.create")
        assert (created["mailbox.name"], created["mailbox.raw"]) == (f"{prefix.decode()}Entwürfe", there.decode())
        uids = box.uids()
        box.give(b"SELECT INBOX", b'COPY 2:3 "%b"' % there)
        record = box.last("message.copy")
        assert named(record["message.uids"]) == uids[1:3]
        assert record["destination.mailbox"] == f"{prefix.decode()}Entwürfe"
        if "destination.uids" in record:  # the server has UIDPLUS
            assert named(record["destination.uids"]) == box.uids(there)
        box.give(b"UID COPY %d:* %b" % (uids[3], there))
        record = box.last("message.copy")
        assert named(record["message.uids"]) == uids[3:]
        if b"MOVE" in box.direct.capabilities():
            shown = box.give(b"MOVE 1 %b" % there)
            assert b" SEARCH" not in shown
            record = box.last("message.move")
            assert named(record["message.uids"]) == uids[:1]
            assert named(record["destination.uids"]) == box.uids(there)[3:]
            assert box.uids() == uids[1:]
            box.give(b"UID MOVE %d:* %b" % (uids[3], there))
            assert named(box.last("message.move")["message.uids"]) == uids[3:]
        box.give(b'SELECT "%b"' % there)
        selected = box.last("mailbox.select")
        assert (selected["mailbox.name"], selected["mailbox.raw"]) == (f"{prefix.decode()}Entwürfe", there.decode())
        box.give(b"FETCH 1 FLAGS")
        access = box.last("message.access")
        assert access["mailbox.name"] == f"{prefix.decode()}Entwürfe"
        assert access["mailbox.uid_validity"] == selected["mailbox.uid_validity"] > 0


@pytest.mark.parametrize("mode", MODES)
def test_expunge(server: Server, user: NewUser, gate_of: GateOf, mode: str) -> None:
    """EXPUNGE, UID EXPUNGE and CLOSE name the messages that go; CLOSE of a mailbox that was examined takes none."""
    with box_of(gate_of(server, mode), user(server), 9) as box:
        uids = box.uids()
        box.give(b"SELECT INBOX", b"STORE 2:3 +FLAGS (\\Deleted)")
        shown = box.give(b"EXPUNGE")
        assert b"SEARCH" not in shown
        assert shown.count(b" EXPUNGE\r\n") == 2
        record = box.last("message.expunge")
        assert (named(record["message.uids"]), record["message.count"]) == (uids[1:3], 2)
        del uids[1:3]
        assert box.uids() == uids
        box.give(b"STORE 1:2 +FLAGS (\\Deleted)")
        if b"UIDPLUS" in box.direct.capabilities():
            shown = box.give(b"UID EXPUNGE %d:%d" % (uids[0], uids[0]))
            assert b"SEARCH" not in shown
            record = box.last("message.expunge")
            assert (named(record["message.uids"]), record["message.count"]) == (uids[:1], 1)
            del uids[0]
        left = [uid for uid in uids if uid not in _deleted(box.direct)]
        box.give(b"EXAMINE INBOX", b"CLOSE", b"NOOP")
        assert len(of(box.trail(lambda trail: True), "message.expunge")) == 1 + (len(uids) == 3)
        gone = [uid for uid in uids if uid not in left]
        box.give(b"SELECT INBOX")
        shown = box.give(b"CLOSE")
        assert b"SEARCH" not in shown
        record = box.last("message.expunge")
        assert (named(record["message.uids"]), record["message.count"]) == (gone, len(gone))
        assert box.uids() == left


def _deleted(wire: Wire) -> list[int]:
    wire.ok(b"EXAMINE INBOX")
    return [int(word) for word in wire.ok(b"UID SEARCH DELETED")[0].split()[2:]]


@pytest.mark.parametrize("mode", MODES)
def test_append(server: Server, user: NewUser, gate_of: GateOf, mode: str) -> None:
    """APPEND: what was stored, how large it was, and its UID where the server tells."""
    with box_of(gate_of(server, mode), user(server)) as box:
        before = box.uids()
        for plus in (False, True):
            box.caller.append(b"INBOX", message(70 + plus), plus=plus, arguments=b"(\\Seen) ")
            record = box.last("message.append")
            assert (record["message.size"], record["flags.set"]) == (len(message(70)), ["\\Seen"])
            after = box.uids()
            if b"UIDPLUS" in box.direct.capabilities():
                assert named(record["message.uids"]) == [uid for uid in after if uid not in before]
            before = after
        (refused,) = box.caller.append(b"no/such/mailbox", message(72))
        assert b" NO " in refused
        assert box.last("message.append")["outcome"] == "no"
