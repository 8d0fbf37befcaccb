"""Mode ``shared``: clients that idle, or say nothing, hold little or nothing, and are told what they should be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import pool
from tests.integration.servers import Server, wait_until
from tests.integration.shared import (
    bound,
    channels,
    clients,
    counts,
    established,
    heard,
    selected,
    settled,
    sharing,
    store,
)

NewUser = Callable[..., User]
MESSAGE = b"From: a@example.org\r\nSubject: one\r\n\r\nHello.\r\n"
CLIENTS = 10


def test_one_idles_for_all(server: Server, user: NewUser) -> None:
    """Ten clients that idle cost the server one connection, and each is told of mail that the gate did not bring."""
    someone = user(server)
    store(someone, MESSAGE)
    before = established(server.port)
    with sharing(server) as gate, ExitStack() as stack:
        wires = clients(stack, gate, someone, CLIENTS, b"SELECT INBOX")
        for wire in wires:
            wire.send(b"i IDLE\r\n")
            wire.expect_continuation()
        wait_until(lambda: selected(gate, someone)[0]["state"] == "idling", "an IDLE upstream")
        settled(gate, someone, 1)
        (row,) = channels(gate, someone)
        assert (row["sessions"], row["idling"], row["mailbox"], row["read_only"]) == (CLIENTS, CLIENTS, "INBOX", "no")
        wait_until(lambda: established(server.port) == before + 1, "one connection")
        assert pool(gate, someone.name)["total"] == 1
        assert bound(gate, someone) == ["yes"] * CLIENTS
        for number in (2, 3):
            store(someone, MESSAGE)
            for wire in wires:
                heard(wire, b"* %d EXISTS" % number)
        wires[0].send(b"DONE\r\n")
        assert b"i OK" in wires[0].until_tagged(b"i")[-1]
        wires[0].ok(b"STORE 1 +FLAGS (\\Flagged)")
        for wire in wires[1:]:
            assert b"\\Flagged" in heard(wire, b"* 1 FETCH ")[-1]
        assert counts(gate)["opened"] == 1


def test_nobody_idles(server: Server, user: NewUser) -> None:
    """With ``poll`` nobody holds a connection; a look now and then tells all of them, and is over."""
    someone = user(server)
    store(someone, MESSAGE)
    before = established(server.port)
    with sharing(server, idle="poll", idle_poll="1s") as gate, ExitStack() as stack:
        wires = clients(stack, gate, someone, CLIENTS, b"SELECT INBOX")
        for wire in wires:
            wire.send(b"i IDLE\r\n")
            wire.expect_continuation()
        wait_until(lambda: bound(gate, someone) == ["no"] * CLIENTS, "everybody to be without a channel")
        settled(gate, someone, 0)
        wait_until(lambda: established(server.port) == before, "no connection")
        store(someone, MESSAGE)
        for wire in wires:
            heard(wire, b"* 2 EXISTS")
        settled(gate, someone, 0)
        wait_until(lambda: counts(gate)["polled"] >= 2, "another look")
        for wire in wires:
            wire.send(b"DONE\r\n")
            assert b"i OK" in wire.until_tagged(b"i")[-1]
            assert b"* 2 FETCH (" in b"".join(wire.ok(b"FETCH 2 (UID)"))


def test_parked(server: Server, user: NewUser) -> None:
    """Who says nothing gives its channel up, and is told exactly what has changed when it says something again."""
    someone = user(server)
    store(someone, *[MESSAGE] * 4)
    with sharing(server, park_after="1s", pool_idle="1s") as gate, ExitStack() as stack:
        first, second = clients(stack, gate, someone, 2, b"SELECT INBOX", b"FETCH 1:* (UID FLAGS)")
        wait_until(lambda: bound(gate, someone) == ["no", "no"], "both to be without a channel")
        with someone.wire() as direct:
            direct.ok(b"SELECT INBOX")
            direct.ok(b"STORE 1,3 +FLAGS.SILENT (\\Deleted)")
            direct.ok(b"EXPUNGE")
            direct.ok(b"STORE 1 +FLAGS (\\Flagged)")
            direct.command_with_literals(b"APPEND INBOX", MESSAGE)
            direct.ok(b"NOOP")
            truth = direct.ok(b"FETCH 1:* (UID FLAGS)")[:-1]
        for wire in (first, second):
            told = wire.ok(b"NOOP")[:-1]
            numbers = [line.split()[1:3] for line in told if line.split()[2] in (b"EXPUNGE", b"EXISTS", b"FETCH")]
            assert numbers == [[b"2", b"FETCH"], [b"3", b"EXPUNGE"], [b"1", b"EXPUNGE"], [b"3", b"EXISTS"]]
            (flags,) = [line for line in told if b" FETCH " in line]
            assert b"\\Flagged" in flags
            shown = wire.ok(b"FETCH 1:* (UID FLAGS)")[:-1]
            assert list(map(plain, shown)) == list(map(plain, truth))
            assert wire.ok(b"NOOP")[:-1] == []
        assert counts(gate)["reattached"] == 2


def plain(line: bytes) -> list[bytes]:
    r"""A FETCH response of UID and FLAGS, whatever their order, without \Recent, which is one session's alone."""
    words = line.translate(None, b"()\r\n").split()
    return sorted(word for word in words if word != b"\\Recent")


@pytest.mark.parametrize("what", [b"FETCH 3 (UID)", b"STORE 1 +FLAGS (\\Seen)", b"COPY 2:4 INBOX", b"SEARCH 1:*"])
def test_parked_and_behind(server: Server, user: NewUser, what: bytes) -> None:
    """A command of a session that was parked means the messages that its client knows by those numbers."""
    someone = user(server)
    store(someone, *[b"Subject: number %d\r\n\r\n" % number for number in range(1, 5)])
    with sharing(server, park_after="1s") as gate, ExitStack() as stack:
        (wire,) = clients(stack, gate, someone, 1, b"SELECT INBOX")
        uids = [line.split(b"UID ")[1].split(b")")[0] for line in wire.ok(b"FETCH 1:* (UID)")[:-1]]
        wait_until(lambda: bound(gate, someone) == ["no"], "it to be without a channel")
        with someone.wire() as direct:
            direct.ok(b"SELECT INBOX")
            direct.ok(b"STORE 2 +FLAGS.SILENT (\\Deleted)")
            direct.ok(b"EXPUNGE")
        told = b"".join(wire.command(what))
        if what.startswith(b"FETCH"):
            assert b"* 3 FETCH (UID %b)\r\n" % uids[2] in told
            assert b"EXPUNGE" not in told.replace(b"EXPUNGEISSUED", b"")
        elif what.startswith(b"SEARCH"):
            assert b"* SEARCH 1 3 4\r\n" in told
        elif what.startswith(b"STORE"):
            assert b"* 1 FETCH " in told
        else:
            told += b"".join(wire.ok(b"NOOP"))
        assert (b"* 2 EXPUNGE\r\n" in told) is what.startswith(b"COPY")
        if not what.startswith(b"COPY"):
            assert wire.ok(b"NOOP")[0] == b"* 2 EXPUNGE\r\n"
        subjects = b"".join(wire.ok(b"FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]"))
        assert b"number 2" not in subjects
