"""Mode ``shared``: what cannot be shared has a connection of its own, and ``imapgate ctl`` says whose, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import ctl
from tests.integration.gate import Gate
from tests.integration.servers import Dovecot, Server, wait_until
from tests.integration.shared import channels, clients, counts, selected, sharing, store

NewUser = Callable[..., User]
MESSAGE = b"From: a@example.org\r\nSubject: one\r\n\r\nHello.\r\n"
PINNING = [
    ((b"ENABLE CONDSTORE",), "ENABLE"),
    ((b"SELECT INBOX", b"ENABLE CONDSTORE"), "ENABLE"),
    ((b"SELECT INBOX (CONDSTORE)",), "CONDSTORE"),
    ((b"STATUS INBOX (HIGHESTMODSEQ)",), "CONDSTORE"),
    ((b"SELECT INBOX", b"FETCH 1 (MODSEQ)"), "CONDSTORE"),
    ((b"SELECT INBOX", b"SEARCH RETURN (SAVE) ALL"), "SEARCHRES"),
    ((b"SELECT INBOX", b"SEARCH RETURN (UPDATE) ALL"), "search context"),
    ((b"EXAMINE INBOX", b"STORE 1 +FLAGS (\\Seen)"), "STORE in EXAMINE"),
    ((b"SELECT INBOX", b'STORE 1 ANNOTATION ("/comment" ("value.shared" "x"))'), "STORE of what is no flag"),
    ((b"XFOO bar",), "XFOO"),
]


@pytest.fixture(scope="module")
def gate(server: Server) -> Iterator[Gate]:
    """One gate before each server in turn."""
    with sharing(server, extra_verbs=["XFOO"]) as running:
        yield running


def pins(gate: Gate, someone: User) -> list[str]:
    """Why this user's sessions have connections of their own."""
    return [row["reason"] for row in ctl(gate, "pins") if row["user"] == someone.name]


@pytest.mark.parametrize(("commands", "reason"), PINNING)
def test_pins(gate: Gate, server: Server, user: NewUser, commands: tuple[bytes, ...], reason: str) -> None:
    """The session goes on alone, with what it had selected; the others go on together; at its end the pin is gone."""
    someone = user(server)
    store(someone, MESSAGE)
    with ExitStack() as stack:
        other, quiet = clients(stack, gate, someone, 2, b"SELECT INBOX")
        (wire,) = clients(stack, gate, someone, 1)
        before = counts(gate)
        if server.name == "courier" and b"ENABLE CONDSTORE" in commands:  # it has none
            reason = ""
        for command in commands:
            assert pins(gate, someone) == []
            wire.command(command)
        assert pins(gate, someone) == [reason] * bool(reason)
        if not reason:
            return
        name = "pinned_" + reason.replace(" ", "_")
        assert counts(gate)[name] == before.get(name, 0) + 1
        assert counts(gate)["pinned"] == before["pinned"] + 1
        rows = channels(gate, someone)
        assert [row["state"] for row in rows].count("pinned") == 1
        assert [row["sessions"] for row in rows if row["state"] != "pinned" and row["mailbox"]] == [2]
        if wire.command(b"FETCH 1 (UID)")[-1].split()[1] != b"OK":
            wire.ok(b"SELECT INBOX")
        assert b"UID 1" in b"".join(wire.ok(b"FETCH 1 (UID)"))
        other.ok(b"STORE 1 +FLAGS (\\Flagged)")
        wire.ok(b"NOOP")
        assert b"\\Flagged" in b"".join(wire.ok(b"FETCH 1 FLAGS"))
        assert b"\\Flagged" in b"".join(quiet.ok(b"NOOP"))
        for each in (other, quiet):
            assert b"MODSEQ" not in b"".join(each.ok(b"FETCH 1 FLAGS"))
        wire.logout()
        wait_until(lambda: pins(gate, someone) == [], "the end of the pin")
        assert "pinned" not in [row["state"] for row in channels(gate, someone)]


def test_idle_relayed(server: Server, user: NewUser) -> None:
    """With ``relay`` a session that idles has a connection of its own from then on, to which new mail is told."""
    someone = user(server)
    store(someone, MESSAGE)
    with sharing(server, idle="relay") as gate, ExitStack() as stack:
        wires = clients(stack, gate, someone, 3, b"SELECT INBOX")
        for wire in wires[:2]:
            wire.send(b"i IDLE\r\n")
            wire.expect_continuation()
        assert pins(gate, someone) == ["IDLE", "IDLE"]
        assert [row["sessions"] for row in selected(gate, someone) if row["state"] != "pinned"] == [1]
        store(someone, MESSAGE)
        for wire in wires[:2]:
            while wire.response() != b"* 2 EXISTS\r\n":
                pass
            wire.send(b"DONE\r\n")
            assert b"i OK" in wire.until_tagged(b"i")[-1]
        assert b"* 2 EXISTS\r\n" in wires[2].ok(b"NOOP")


def test_more_than_may_be(dovecot: Dovecot, user: NewUser) -> None:
    """Where all of a user's connections are pinned a command of another session is refused, until one is free again."""
    someone = user(dovecot)
    store(someone, MESSAGE)
    busy = b"NO [UNAVAILABLE] All connections to the mail server are in use; try again later\r\n"
    with sharing(dovecot, pool_size=3, pool_wait="1s") as gate, ExitStack() as stack:
        first, second, third, fourth = clients(stack, gate, someone, 4, b"SELECT INBOX")
        first.ok(b"ENABLE CONDSTORE")
        second.ok(b"ENABLE CONDSTORE")
        assert pins(gate, someone) == ["ENABLE", "ENABLE"]
        for _ in range(2):
            assert third.command(b"FETCH 1 (UID)", tag=b"a") == [b"a " + busy]
            assert fourth.command(b"ENABLE CONDSTORE", tag=b"b") == [b"b " + busy]
        for wire in (first, second):
            wire.ok(b"NOOP")
        third.send(b"c FETCH 1 (UID)\r\n")
        first.logout()
        assert b"c OK" in third.until_tagged(b"c")[-1]
        fourth.ok(b"FETCH 1 (UID)")
        assert len(selected(gate, someone)) == 2
