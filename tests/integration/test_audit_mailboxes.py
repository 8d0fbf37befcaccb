"""What the audit trail says of searches, mailboxes and sessions on a real server."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.integration.audited import Record, audit, of, recorded, trail_of
from tests.integration.boxes import MODES, GateOf, box_of, gates, named, prefix_of, recording
from tests.integration.conftest import User
from tests.integration.ctl import ctl
from tests.integration.gate import Gate
from tests.integration.sasl import authenticate, encoded
from tests.integration.servers import Server
from tests.integration.wire import connect

NewUser = Callable[..., User]


@pytest.fixture(scope="module")
def gate_of() -> Iterator[GateOf]:
    """The gates of this module."""
    with gates() as given:
        yield given


# -- searches and mailboxes -------------------------------------------------------------------------------------------


def test_searches(server: Server, user: NewUser, gate_of: GateOf) -> None:
    """SEARCH, SORT and THREAD: how many were found, and of the criteria a digest."""
    with box_of(gate_of(server, "session"), user(server)) as box:
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


def test_search_criteria(dovecot: Server, user: NewUser) -> None:
    """What was searched for, only where that is wanted."""
    given = audit("buffered", search_criteria="text")
    with recording(dovecot, **given) as gate, box_of(gate, user(dovecot)) as box:
        box.give(b"SELECT INBOX", b"SEARCH SUBJECT secret")
        assert box.last("search")["search.criteria"] == "SUBJECT secret"


@pytest.mark.parametrize("mode", MODES)
def test_mailboxes(server: Server, user: NewUser, gate_of: GateOf, mode: str) -> None:
    """What is done to mailboxes, in one write; what was refused says so."""
    with box_of(gate_of(server, mode), user(server)) as box:
        prefix = prefix_of(box.direct)
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


def test_pipelined(server: Server, user: NewUser, gate_of: GateOf) -> None:
    """A whole session in one write: each record has its own command's messages."""
    with box_of(gate_of(server, "session"), user(server), 12) as box:
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


def _told(gate: Gate, event: str, count: int = 1, /, **fields: object) -> list[Record]:
    """Wait for the records of an event with these values in anybody's session, which must be so many."""
    trail = recorded(trail_of(gate), lambda trail: len(of(trail, event, **fields)) >= count)
    found = of(trail, event, **fields)
    assert len(found) == count, found
    return found


def test_sessions(server: Server, user: NewUser) -> None:
    """Logins and why they fail, what a client says it is, how a session ends, and what an operator does."""
    with recording(server) as gate, box_of(gate, user(server)) as box:
        someone = box.user
        told = partial(_told, gate)
        (opened,) = told("session.open", client_port=box.caller.port)
        (login,) = told("auth.success", client_port=box.caller.port)
        assert login["session.id"] == opened["session.id"]
        assert (login["user.name"], login["user.effective"]) == (someone.name, someone.name)
        assert (login["client.address"], login["upstream"]) == ("127.0.0.1", server.name)
        box.give(b'ID ("name" "tester" "version" "1")', b"SELECT INBOX")
        assert box.last("mailbox.select")["client.asserted"] == {"name": "tester", "version": "1"}

        with connect(gate.host, gate.port) as wire:
            wire.command(b"LOGIN %b wrong" % someone.name.encode())
            authenticate(wire, "PLAIN", initial=encoded("", someone.name, "wronger"))
            wire.logout()
        failures = told("auth.failure", 2, user_name=someone.name)
        assert {(each["outcome"], each["reason"]) for each in failures} == {("no", "credentials")}
        assert [each["auth.mechanism"] for each in failures] == ["LOGIN", "PLAIN"]
        (closed,) = told("session.close", session_id=failures[0]["session.id"])
        assert closed["reason"] == "logout"
        assert closed["session.octets_in"] > 0

        ctl(gate, "kick", opened["session.id"])
        assert box.caller.wire.eof().startswith(b"* BYE")
        (closed,) = told("session.close", session_id=opened["session.id"])
        assert closed["reason"] == "stopped"
        (kicked,) = told("admin.action")
        assert (kicked["admin.command"], kicked["admin.arguments"]) == ("kick", [f"who={opened['session.id']}"])
        good = gate.configuration_file.read_text()
        gate.configure(good + "\nnonsense = [\n")
        gate.reload()
        (record,) = told("config.reload", outcome="error")
        assert str(gate.configuration_file) in record["reason"]
        gate.configure(good)
        gate.reload()
        told("config.reload", outcome="ok")
        told("audit.checkpoint", 2, reason="rotated")  # each SIGHUP has the file opened anew
