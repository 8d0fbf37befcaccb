"""What the audit trail says of a session with a real server: which messages, by UID, as the server itself names them.

The gate asks for UIDs where the client gave numbers; the client is shown none that it did not ask for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from tests.integration.audited import Caller, Record, audit, invalid, of, recorded, records, trail_of, whole
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl
from tests.integration.gate import Gate, gate_for
from tests.integration.sasl import authenticate, encoded
from tests.integration.servers import Server
from tests.integration.wire import Wire, connect

NewUser = Callable[..., User]

MODES = ["session", "mailbox"]


def message(number: int) -> bytes:
    """A message with its number in its header and its text."""
    return (
        b"From: a@example.org\r\nSubject: number %d\r\nMessage-ID: <number-%d@example.org>\r\n"
        b"Date: Mon, 2 Nov 2026 08:15:30 +0000\r\n\r\nText %d\r\n* 1 FETCH (UID 999 BODY[] {3}\r\n"
    ) % (number, number, number)


class Box(NamedTuple):
    """A user with some messages in INBOX, whose numbers are not their UIDs, and a gate before the server."""

    user: User
    gate: Gate
    caller: Caller
    direct: Wire

    def uids(self, mailbox: bytes = b"INBOX") -> list[int]:
        """The UIDs in a mailbox, as the server says on a connection of its own, in the order of their numbers."""
        return _uids(self.direct, mailbox)

    def give(self, *commands: bytes) -> bytes:
        """Give commands, which must succeed; gives all that the client was shown."""
        responses = self.caller.give(*commands)
        shown = b"".join(responses)
        completions = re.findall(rb"(?m)^c1n[0-9]+ ([A-Z]+)", shown)
        assert completions == [b"OK"] * len(commands), shown
        return shown

    def told(self, event: str, count: int = 1, /, **fields: object) -> list[Record]:
        """Wait for the records of an event with these values, which must be so many."""
        found = of(self.trail(lambda trail: len(of(trail, event, **fields)) >= count), event, **fields)
        assert len(found) == count, found
        return found

    def last(self, event: str) -> Record:
        """The last record of an event, that of the last command."""
        tag = list(self.caller.asked)[-1].decode()
        (found,) = of(self.trail(lambda trail: of(trail, event, command_tag=tag)), event, command_tag=tag)
        return found

    def trail(self, condition: Callable[[list[Record]], object]) -> list[Record]:
        """Wait until the trail fulfils a condition, and give it."""
        return recorded(trail_of(self.gate), condition)


def _uids(wire: Wire, mailbox: bytes) -> list[int]:
    wire.ok(b"EXAMINE " + mailbox)
    return [int(uid) for uid in re.findall(rb"FETCH \(UID ([0-9]+)", b"".join(wire.ok(b"FETCH 1:* (UID)")))]


def named(sequence: object) -> list[int]:
    """The numbers of ``1:3,5``."""
    assert isinstance(sequence, str)
    pairs = [part.partition(":") for part in sequence.split(",")]
    return [number for low, _, high in pairs for number in range(int(low), int(high or low) + 1)]


@contextmanager
def box_of(server: Server, user: NewUser, mode: str = "session", *, count: int = 6, **tables: object) -> Iterator[Box]:
    """Give a box: of ``count`` messages that were stored, every third was expunged again."""
    someone = user(server)
    with someone.wire() as direct:
        for number in range(1, count + 1):
            direct.command_with_literals(b"APPEND INBOX", message(number))
        direct.ok(b"SELECT INBOX")
        direct.ok(b"STORE %b +FLAGS (\\Deleted)" % b",".join(b"%d" % n for n in range(1, count + 1, 3)))
        direct.ok(b"EXPUNGE")
        upstream = {"pool_mode": mode}
        given = {"auth": {"credential_cache": "60s"}, "admin": ADMIN, **audit("durable"), **tables}
        with gate_for(server, upstream=upstream, **given) as gate, connect(gate.host, gate.port) as wire:
            caller = Caller(wire, b"c1")
            wire.login(someone.name, someone.password)
            box = Box(someone, gate, caller, direct)
            yield box
            trail = records(trail_of(gate))
            assert not invalid(trail)
            assert gate.stop() == 0
            assert "Traceback" not in gate.log()
            whole(trail_of(gate))


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
def test_fetch(server: Server, user: NewUser, mode: str) -> None:
    """The record names UIDs and what was delivered; the client is shown what the server shows, and no UID."""
    with box_of(server, user, mode) as box:
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
def test_fetch_pipelined(server: Server, user: NewUser, mode: str) -> None:
    r"""Each of several commands in one write has its own messages; that \Seen is set shows no UID, either."""
    with box_of(server, user, mode) as box:
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


def test_bulk(dovecot: Server, user: NewUser) -> None:
    """A whole mailbox is bulk; Message-IDs are named where they were fetched, subjects only where that is wanted."""
    with box_of(dovecot, user, count=90, **audit("buffered", subjects=True)) as box:
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
    with box_of(dovecot, user) as box:
        box.give(b"SELECT INBOX", b"FETCH 1:3 (ENVELOPE BODY.PEEK[])")
        assert "message.subjects" not in box.last("message.access")


# -- changes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_flags(server: Server, user: NewUser, mode: str) -> None:
    """STORE names UIDs however it was given; what marks for deletion is an event of its own."""
    with box_of(server, user, mode) as box:
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
def test_copy_and_move(server: Server, user: NewUser, mode: str) -> None:
    """COPY and MOVE name both sides; a copy in a mailbox whose name is not ASCII has it decoded and raw."""
    with box_of(server, user, mode) as box:
        prefix = _prefix(box.direct)
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


def _prefix(wire: Wire) -> bytes:
    """What the server wants in front of the name of a mailbox of its user's: Courier has ``INBOX.``."""
    return b"INBOX." if b'"INBOX."' in b"".join(wire.command(b"NAMESPACE")) else b""


@pytest.mark.parametrize("mode", MODES)
def test_expunge(server: Server, user: NewUser, mode: str) -> None:
    """EXPUNGE, UID EXPUNGE and CLOSE name the messages that go; CLOSE of a mailbox that was examined takes none."""
    with box_of(server, user, mode, count=9) as box:
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
def test_append(server: Server, user: NewUser, mode: str) -> None:
    """APPEND: what was stored, how large it was, and its UID where the server tells."""
    with box_of(server, user, mode) as box:
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


# -- searches and mailboxes -------------------------------------------------------------------------------------------


def test_searches(server: Server, user: NewUser) -> None:
    """SEARCH, SORT and THREAD: how many were found, and of the criteria a digest."""
    with box_of(server, user) as box:
        capabilities = box.direct.capabilities()
        box.give(b"SELECT INBOX", b'SEARCH TEXT "number"')
        record = box.last("search")
        assert record["search.found"] == 4
        assert record["search.criteria_sha256"] == hashlib.sha256(b'TEXT "number"').hexdigest()
        assert "search.criteria" not in record
        box.give(b"UID SEARCH SEEN")
        assert box.last("search")["search.found"] == 0
        if b"SORT" in capabilities:
            box.give(b"SORT (DATE) UTF-8 ALL")
            assert box.last("search")["search.found"] == 4
        if any(name.startswith(b"THREAD=") for name in capabilities):
            box.give(b"UID THREAD REFERENCES UTF-8 ALL")
            assert box.last("search")["search.found"] == 4
    with box_of(server, user, **audit("buffered", search_criteria="text")) as box:
        box.give(b"SELECT INBOX", b"SEARCH SUBJECT secret")
        assert box.last("search")["search.criteria"] == "SUBJECT secret"


@pytest.mark.parametrize("mode", MODES)
def test_mailboxes(server: Server, user: NewUser, mode: str) -> None:
    """What is done to mailboxes, in one write; what was refused says so."""
    with box_of(server, user, mode) as box:
        prefix = _prefix(box.direct)
        old, new = prefix + b"Old", prefix + b"&ZeVnLIqe-"
        box.give(b"CREATE " + old, b"SUBSCRIBE " + old, b"RENAME %b %b" % (old, new))
        (record,) = box.told("mailbox.create")
        assert record["mailbox.name"] == old.decode()
        (record,) = box.told("mailbox.subscribe")
        assert record["mailbox.name"] == old.decode()
        (record,) = box.told("mailbox.rename")
        assert (record["mailbox.name"], record["destination.mailbox"]) == (old.decode(), f"{prefix.decode()}日本語")
        box.give(b"UNSUBSCRIBE " + old, b"DELETE " + new)
        (record,) = box.told("mailbox.unsubscribe")
        assert record["mailbox.name"] == old.decode()
        (record,) = box.told("mailbox.delete")
        assert (record["mailbox.name"], record["mailbox.raw"]) == (f"{prefix.decode()}日本語", new.decode())
        if b"ACL" in box.direct.capabilities():
            box.caller.give(b"SETACL INBOX anyone lr")
            record = box.last("mailbox.acl")
            assert (record["acl.identifier"], record["acl.rights"]) == ("anyone", "lr")
            box.caller.give(b"DELETEACL INBOX anyone")
            assert box.last("mailbox.acl")["acl.identifier"] == "anyone"
        box.caller.give(b"DELETE nowhere/at/all")
        assert box.last("mailbox.delete")["outcome"] == "no"
        box.caller.give(b"SELECT nowhere/at/all")
        assert box.last("mailbox.select")["outcome"] == "no"


def test_pipelined(server: Server, user: NewUser) -> None:
    """A whole session in one write: each record has its own command's messages."""
    with box_of(server, user, count=12) as box:
        uids = box.uids()
        shown = box.give(
            b"SELECT INBOX", b"FETCH 1 FLAGS", b"FETCH 2:3 BODY.PEEK[]", b"STORE 2 +FLAGS.SILENT (\\Deleted)",
            b"UID FETCH %d FLAGS" % uids[4], b"STORE 5:6 +FLAGS (\\Flagged)", b"SEARCH ALL", b"EXPUNGE",
        )  # fmt: skip
        # What numbers mean behind an EXPUNGE that is not answered yet, a server may decide (RFC 9051 section 5.5).
        shown += box.give(b"FETCH 1:* RFC822.SIZE", b"CLOSE", b"EXAMINE INBOX", b"FETCH 7 (UID)", b"NOOP")
        assert len(re.findall(rb"(?m)^\* SEARCH", shown)) == 1
        assert re.findall(rb"(?m)^\* ([0-9]+) FETCH [^\r\n]*UID ([0-9]+)", shown.replace(b"UID 999", b"")) == [
            (b"5", b"%d" % uids[4]),
            (b"7", b"%d" % uids[7]),
        ]
        after = uids[:1] + uids[2:]
        wanted = {
            1: ("message.access", uids[:1]),
            2: ("message.access", uids[1:3]),
            3: ("message.delete", uids[1:2]),
            4: ("message.access", uids[4:5]),
            5: ("message.flag", uids[4:6]),
            7: ("message.expunge", uids[1:2]),
            8: ("message.access", after),
            11: ("message.access", after[6:7]),
        }
        for number, (event, messages) in wanted.items():
            (record,) = box.told(event, command_tag=f"c1n{number}")
            assert named(record["message.uids"]) == messages, record
        ids = [record["command.id"] for record in box.trail(lambda trail: True) if "command.id" in record]
        assert ids == sorted(ids)


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_sessions(server: Server, user: NewUser) -> None:
    """Logins and why they fail, what a client says it is, how a session ends, and what an operator does."""
    with box_of(server, user) as box:
        gate, someone = box.gate, box.user
        (opened,) = box.told("session.open", client_port=box.caller.port)
        (login,) = box.told("auth.success", client_port=box.caller.port)
        assert login["session.id"] == opened["session.id"]
        assert (login["user.name"], login["user.effective"]) == (someone.name, someone.name)
        assert (login["client.address"], login["upstream"]) == ("127.0.0.1", server.name)
        box.give(b'ID ("name" "tester" "version" "1")', b"SELECT INBOX")
        assert box.last("mailbox.select")["client.asserted"] == {"name": "tester", "version": "1"}

        with connect(gate.host, gate.port) as wire:
            wire.command(b"LOGIN %b wrong" % someone.name.encode())
            authenticate(wire, "PLAIN", initial=encoded("", someone.name, "wronger"))
            wire.logout()
        failures = box.told("auth.failure", 2, user_name=someone.name)
        assert {(each["outcome"], each["reason"]) for each in failures} == {("no", "credentials")}
        assert [each["auth.mechanism"] for each in failures] == ["LOGIN", "PLAIN"]
        (closed,) = box.told("session.close", session_id=failures[0]["session.id"])
        assert closed["reason"] == "logout"
        assert closed["session.octets_in"] > 0

        ctl(gate, "kick", opened["session.id"])
        assert box.caller.wire.eof().startswith(b"* BYE")
        (closed,) = box.told("session.close", session_id=opened["session.id"])
        assert closed["reason"] == "stopped"
        (kicked,) = box.told("admin.action")
        assert (kicked["admin.command"], kicked["admin.arguments"]) == ("kick", [f"who={opened['session.id']}"])
        good = gate.configuration_file.read_text()
        gate.configure(good + "\nnonsense = [\n")
        gate.reload()
        (record,) = box.told("config.reload", outcome="error")
        assert str(gate.configuration_file) in record["reason"]
        gate.configure(good)
        gate.reload()
        box.told("config.reload", outcome="ok")
        box.told("audit.checkpoint", 2, reason="rotated")  # each SIGHUP has the file opened anew
