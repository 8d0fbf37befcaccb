"""Mode `mailbox`: a client has an upstream connection while a mailbox is selected or a command is in flight.

Many clients that only look in share few connections; what each of them sees is what it would see with its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.integration.bed import bed_of
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl, pool, stats
from tests.integration.faults import FaultProxy
from tests.integration.gate import Gate, gate_for
from tests.integration.scripted import Command, Conversation
from tests.integration.servers import Server, wait_until
from tests.integration.wire import Wire, connect, quoted

NewUser = Callable[..., User]
MAILBOX: dict[str, Any] = {"upstream": {"pool_mode": "mailbox"}, "admin": ADMIN}
MESSAGE = b"From: a@example.org\r\nSubject: one\r\n\r\nHello.\r\n"
USERS, EACH, SELECTED, MOST = 40, 5, 20, 60
ROUNDS = 100


@pytest.fixture(scope="module")
def gate(server: Server) -> Iterator[Gate]:
    """One gate before each server in turn."""
    with gate_for(server, **MAILBOX) as running:
        yield running


def bound(gate: Gate, someone: User) -> list[str]:
    """Which of the user's sessions have a connection, the oldest session first."""
    return [row["bound"] for row in ctl(gate, "sessions") if row["user"] == someone.name]


def unbound(gate: Gate, someone: User) -> None:
    """Wait until no session of this user has a connection."""
    wait_until(lambda: set(bound(gate, someone)) == {"no"}, "every session to be without a connection")


def at_rest(gate: Gate, someone: User) -> None:
    """Wait until the one connection that is kept for this user is clean."""

    def look() -> bool:
        row = pool(gate, someone.name)
        return bool(row["idle"] == row["total"] == 1)

    wait_until(look, "one idle connection")


def folder(server: Server, name: bytes) -> bytes:
    """A mailbox name, as this server wants it."""
    return b"INBOX." + name if server.name == "courier" else name


# -- many clients, few connections ------------------------------------------------------------------------------------


def established(port: int) -> int:
    """How many connections a server of this machine has at this port, by the kernel."""
    # A set: the kernel may show one twice while others come and go.
    rows = re.findall(rf"(?m)^ *\d+: 0100007F:{port:04X} ([0-9A-F:]+) 01 ", Path("/proc/net/tcp").read_text())
    return len(set(rows))


class Crowd:
    """The clients of all users; a tenth of them have a mailbox selected, now these, now those."""

    def __init__(self, gate: Gate, server: Server, users: list[User]) -> None:
        self.gate = gate
        self.server = server
        self.most = self.most_at_server = self.samples = 0
        self.wires: list[Wire] = []
        self.chosen: list[Wire] = []
        self.random = Random(3)
        for someone in users * EACH:
            self.wires.append(someone.wire(gate.port))
            self.sample()

    def sample(self) -> None:
        """Count upstream connections at the gate and, since that is slow, now and then at the server."""
        self.most = max(self.most, stats(self.gate)["upstream_connections"])
        self.samples += 1
        if self.samples % 20 == 0:
            self.most_at_server = max(self.most_at_server, established(self.server.port))

    def select(self) -> None:
        """Somebody else selects a mailbox; when there are enough of them, somebody leaves one first."""
        if len(self.chosen) == SELECTED:
            leaving = self.chosen.pop(self.random.randrange(SELECTED))
            leaving.ok(b"CLOSE")
        coming = self.random.choice([wire for wire in self.wires if wire not in self.chosen])
        assert b"READ-WRITE" in coming.ok(b"SELECT INBOX")[-1]
        self.chosen.append(coming)

    def look(self) -> None:
        """Somebody, with a mailbox or without one, looks in."""
        wire = self.random.choice(self.wires)
        command, answer = self.random.choice(
            [(b'LIST "" INBOX', b"* LIST "), (b"STATUS INBOX (MESSAGES)", b"* STATUS "), (b"NOOP", b"")]
        )
        assert any(line.startswith(answer) for line in wire.ok(command))


def test_two_hundred_clients_of_forty_users(server: Server, user: NewUser) -> None:
    """Of 200 clients 20 have a mailbox selected at any time: the server never has more than 60 connections."""
    users = [user(server) for _ in range(USERS)]
    before = established(server.port)
    with gate_for(server, **MAILBOX) as gate:
        crowd = Crowd(gate, server, users)
        for _ in range(ROUNDS):
            crowd.select()
            crowd.sample()
            crowd.look()
            crowd.sample()
        assert len(crowd.chosen) == SELECTED
        assert [row["bound"] for row in ctl(gate, "sessions")].count("yes") == SELECTED
        assert len(ctl(gate, "sessions")) == USERS * EACH
        assert USERS < crowd.most <= MOST
        assert USERS < crowd.most_at_server - before <= MOST
        for wire in crowd.wires:
            wire.send(b"z LOGOUT\r\n")
        for wire in crowd.wires:
            assert wire.eof().endswith(b"z OK Logged out\r\n") or b"z OK" in wire.transcript
            wire.close()
        # As long as the user had a session one was kept; now none is.
        wait_until(lambda: not stats(gate)["upstream_connections"], "no connection")


# -- without a mailbox ------------------------------------------------------------------------------------------------


def test_commands_without_a_mailbox(gate: Gate, server: Server, user: NewUser) -> None:
    """LIST, STATUS, CREATE, APPEND with both kinds of literal, DELETE: each has a connection for as long as it runs."""
    someone, name = user(server), folder(server, b"one")
    with someone.wire(gate.port) as wire:
        for command in (b'LIST "" "*"', b"STATUS INBOX (MESSAGES)", b"CREATE " + name, b"SUBSCRIBE " + name):
            wire.ok(command)
            at_rest(gate, someone)
            assert bound(gate, someone) == ["no"]
        for begin in (b"APPEND %b (\\Seen)", b"APPEND %b"):
            assert b" OK " in wire.command_with_literals(begin % name, MESSAGE)[-1]
            unbound(gate, someone)
            wire.send(b"a " + begin % name + b" {%d+}\r\n%b\r\n" % (len(MESSAGE), MESSAGE))
            assert b"a OK" in wire.until_tagged(b"a")[-1]
            unbound(gate, someone)
        assert b"MESSAGES 4" in b"".join(wire.ok(b"STATUS " + name + b" (MESSAGES)"))
        assert wire.command_with_literals(b"APPEND " + folder(server, b"none"), MESSAGE)[-1].split()[1] == b"NO"
        unbound(gate, someone)
        # A literal in an argument, and a command that is refused by the gate itself.
        assert b"* LIST " in b"".join(wire.command_with_literals(b'LIST ""', name))
        assert wire.command(b"STATUS INBOX")[-1].split()[1] == b"BAD"
        wire.ok(b"DELETE " + name)
        wire.logout()
    assert server.login_count(someone.name) == 1


def test_a_message_that_is_half_sent_holds_its_connection(gate: Gate, server: Server, user: NewUser) -> None:
    """While one client sends a message slowly, the others of its user have another connection, and no octet of it."""
    someone = user(server)
    with someone.wire(gate.port) as slow, someone.wire(gate.port) as quick:
        slow.send(b"a APPEND INBOX {%d}\r\n" % len(MESSAGE))
        slow.expect_continuation()
        slow.send(MESSAGE[:20])
        assert b"MESSAGES 0" in b"".join(quick.ok(b"STATUS INBOX (MESSAGES)"))
        assert bound(gate, someone) == ["yes", "no"]
        slow.send(MESSAGE[20:] + b"\r\n")
        assert b"a OK" in slow.until_tagged(b"a")[-1]
        assert b"MESSAGES 1" in b"".join(quick.ok(b"STATUS INBOX (MESSAGES)"))
        unbound(gate, someone)
        slow.ok(b"SELECT INBOX")
        assert MESSAGE in b"".join(slow.ok(b"FETCH 1 BODY.PEEK[]"))


def test_half_closed_behind_a_command(gate: Gate, server: Server, user: NewUser) -> None:
    """A client that says its last and shuts its sending side is answered, though a connection has to come first."""
    someone = user(server)
    with someone.wire(gate.port) as wire:
        wire.send(b'a LIST "" INBOX\r\nb STATUS INBOX (MESSAGES)\r\n')
        wire.half_close()
        answer = wire.eof()
        assert b"a OK" in answer
        assert b"b OK" in answer
    wait_until(lambda: not pool(gate, someone.name)["total"], "no connection")


# -- with one ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [b"CLOSE", b"UNSELECT", b"SELECT no-such-mailbox"])
def test_select_and_leave(gate: Gate, server: Server, user: NewUser, leave: bytes) -> None:
    """From SELECT to CLOSE, UNSELECT or a SELECT that fails the connection is the client's; then it is anybody's."""
    someone = user(server)
    if leave == b"UNSELECT" and server.name == "courier":
        leave = b"CLOSE"
    with someone.wire() as wire:
        wire.command_with_literals(b"APPEND INBOX", MESSAGE)
    with someone.wire(gate.port) as first, someone.wire(gate.port) as second:
        for one, other in ((first, second), (second, first), (first, second)):
            at_rest(gate, someone)
            assert b"* 1 EXISTS\r\n" in one.ok(b"SELECT INBOX")
            assert bound(gate, someone) == (["yes", "no"] if one is first else ["no", "yes"])
            assert other.command(b"FETCH 1 FLAGS")[-1].split()[1] in (b"BAD", b"NO")
            assert b"* 1 FETCH " in b"".join(one.ok(b"FETCH 1 FLAGS"))
            one.command(leave)
            unbound(gate, someone)
            assert one.command(b"FETCH 1 FLAGS")[-1].split()[1] in (b"BAD", b"NO")
        for wire in (first, second):
            wire.logout()


def test_what_is_pipelined_stays_in_order(gate: Gate, server: Server, user: NewUser) -> None:
    """Commands of every kind in one write, across three selections: one answer each, in order, from the right place."""
    someone, name = user(server), folder(server, b"two")
    with someone.wire(gate.port) as wire:
        lines = [
            b"p01 CAPABILITY", b"p02 CREATE %b" % name, b"p03 STATUS %b (MESSAGES)" % name, b"p04 NOOP",
            b"p05 APPEND %b {%d+}\r\n%b" % (name, len(MESSAGE), MESSAGE), b"p06 SELECT %b" % name,
            b"p07 FETCH 1 BODY.PEEK[]", b"p08 STORE 1 +FLAGS (\\Flagged)", b"p09 CLOSE", b'p10 LIST "" %b' % name,
            b"p11 EXAMINE INBOX", b"p12 SEARCH ALL", b"p13 CLOSE", b"p14 STATUS %b (MESSAGES)" % name,
            b"p15 SELECT %b" % name, b"p16 FETCH 1 FLAGS", b"p17 CLOSE", b"p18 DELETE %b" % name, b"p19 NOOP",
        ]  # fmt: skip
        for _ in range(5):
            wire.send(b"\r\n".join(lines) + b"\r\n")
            answers = {}
            for line in lines:
                tag = line.split()[0]
                answers[tag] = b"".join(wire.until_tagged(tag))
                assert tag + b" OK" in answers[tag], answers[tag]
            assert MESSAGE in answers[b"p07"]
            assert b"MESSAGES 0" in answers[b"p03"]
            assert b"MESSAGES 1" in answers[b"p14"]
            assert b"* 0 EXISTS" in answers[b"p11"]
            assert b"\\Flagged" in answers[b"p16"]
            unbound(gate, someone)
        wire.logout()


@pytest.mark.parametrize("selected", [False, True])
def test_idle(gate: Gate, server: Server, user: NewUser, selected: bool) -> None:
    """IDLE has a connection until DONE; with a mailbox selected it is told what happens there."""
    someone = user(server)
    with someone.wire(gate.port) as idling, someone.wire(gate.port) as other:
        if selected:
            idling.ok(b"SELECT INBOX")
        idling.send(b"i IDLE\r\n")
        answer = idling.response()
        if not answer.startswith(b"+"):  # Courier idles only where something is selected
            assert (server.name, selected) == ("courier", False)
            assert answer.split()[:2] in ([b"i", b"BAD"], [b"i", b"NO"])
            unbound(gate, someone)
            return
        assert bound(gate, someone) == ["yes", "no"]
        assert b" OK " in other.command_with_literals(b"APPEND INBOX", MESSAGE)[-1]
        if selected:
            while idling.response() != b"* 1 EXISTS\r\n":
                pass
        idling.send(b"DONE\r\n")
        assert b"i OK" in idling.until_tagged(b"i")[-1]
        assert bound(gate, someone) == (["yes", "no"] if selected else ["no", "no"])
        # DONE in the same write, before there is a connection.
        if selected:
            idling.ok(b"CLOSE")
        unbound(gate, someone)
        idling.send(b"j IDLE\r\nDONE\r\n")
        if server.name != "courier":
            assert b"j OK" in idling.until_tagged(b"j")[-1]
            idling.ok(b"NOOP")


# -- what pins --------------------------------------------------------------------------------------------------------

PINNING = [
    ((b"ENABLE CONDSTORE",), "ENABLE"),
    ((b"SELECT INBOX (CONDSTORE)", b"CLOSE"), "CONDSTORE"),
    ((b"STATUS INBOX (HIGHESTMODSEQ)",), "CONDSTORE"),
    ((b"SELECT",), ""),
    ((b"CLOSE",), "BAD to CLOSE"),
]


@pytest.mark.parametrize(("commands", "reason"), PINNING)
def test_pins(gate: Gate, server: Server, user: NewUser, commands: tuple[bytes, ...], reason: str) -> None:
    """What would be left on the connection for another session keeps it for this one, and `ctl pins` says why."""
    someone = user(server)
    with someone.wire(gate.port) as wire:
        for command in commands:
            answer = wire.command(command)[-1]
        if server.name == "courier":
            reason = {b"ENABLE": "", b"CLOSE": "" if b" NO " in answer else reason}.get(commands[0].split()[0], reason)
        mine = [row for row in ctl(gate, "pins") if row["user"] == someone.name]
        assert [row["reason"] for row in mine] == [reason] * bool(reason)
        if not reason:
            unbound(gate, someone)
            return
        assert (mine[0]["upstream"], bound(gate, someone)) == (server.name, ["yes"])
        wire.ok(b'LIST "" INBOX')
        assert bound(gate, someone) == ["yes"]
        with someone.wire(gate.port) as other:
            other.ok(b'LIST "" INBOX')
            assert bound(gate, someone) == ["yes", "no"]
            other.logout()
        wire.logout()
    wait_until(lambda: not pool(gate, someone.name)["total"], "the end of the pinned connection")
    wait_until(lambda: server.login_count(someone.name) == 2, "two logins")


# -- when there is no connection to be had ----------------------------------------------------------------------------


def test_f1_the_server_is_down_between_two_mailboxes(server: Server, user: NewUser) -> None:
    """Commands that need a connection are told NO [UNAVAILABLE]; the client stays, and all works when it is back."""
    someone = user(server)
    with FaultProxy((server.host, server.port)) as proxy:
        table = {"endpoints": [f"tcp:127.0.0.1:{proxy.port}"], "pool_mode": "mailbox"}
        with gate_for(server, upstream=table, admin=ADMIN) as gate, someone.wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
            wire.ok(b"CLOSE")
            at_rest(gate, someone)
            proxy.refuse()
            for connection in proxy.connections:
                proxy.cut(connection)
            wait_until(lambda: not pool(gate, someone.name)["total"], "no connection")
            unavailable = b"NO [UNAVAILABLE] The mail server cannot be reached; try again later\r\n"
            assert wire.command(b'LIST "" INBOX', tag=b"a") == [b"a " + unavailable]
            assert wire.command(b"SELECT INBOX", tag=b"b") == [b"b " + unavailable]
            wire.ok(b"NOOP")
            wire.ok(b"CAPABILITY")
            wire.send(b"c APPEND INBOX {%d}\r\n" % len(MESSAGE))
            assert wire.response() == b"c " + unavailable  # no "+": nothing was taken
            wire.send(b"d APPEND INBOX {%d+}\r\n%b\r\n" % (len(MESSAGE), MESSAGE))
            assert wire.until_tagged(b"d") == [b"d " + unavailable]
            wire.send(b"e IDLE\r\n")
            assert wire.until_tagged(b"e") == [b"e " + unavailable]
            wire.send(b'f LIST "" INBOX\r\ng STATUS INBOX (MESSAGES)\r\nh NOOP\r\n')
            assert wire.response() == b"f " + unavailable
            assert wire.response() == b"g " + unavailable
            assert wire.response().startswith((b"h OK", b"h NO [UNAVAILABLE]"))
            proxy.listen()
            assert b"MESSAGES 0" in b"".join(wire.ok(b"STATUS INBOX (MESSAGES)"))
            assert b" OK " in wire.command_with_literals(b"APPEND INBOX", MESSAGE)[-1]
            wire.ok(b"SELECT INBOX")
            wire.logout()


def test_a_full_pool_costs_a_command_not_a_session(server: Server, user: NewUser) -> None:
    """A command for which no connection comes free in time is told NO [UNAVAILABLE]; the next one may have it."""
    someone = user(server)
    table = {"pool_mode": "mailbox", "pool_size": 2, "pool_wait": "1s"}
    with gate_for(server, upstream=table, admin=ADMIN) as gate, ExitStack() as stack:
        first, second, third = (stack.enter_context(someone.wire(gate.port)) for _ in range(3))
        first.ok(b"SELECT INBOX")
        second.ok(b"SELECT INBOX")
        busy = b"a NO [UNAVAILABLE] All connections to the mail server are in use; try again later\r\n"
        assert third.command(b'LIST "" INBOX', tag=b"a") == [busy]
        third.send(b'b LIST "" INBOX\r\n')
        wait_until(lambda: pool(gate, someone.name)["waiting"] == 1, "a command that waits")
        first.ok(b"CLOSE")
        assert b"b OK" in third.until_tagged(b"b")[-1]
        assert pool(gate, someone.name)["total"] == 2
        assert stats(gate)["upstream_refused"] == 1


@pytest.mark.parametrize("how", ["closes", "resets", "is kicked"])
def test_a31_a_command_whose_client_has_gone_gets_nothing(dovecot: Server, user: NewUser, how: str) -> None:
    """Of two commands that wait for a connection the client of the first goes away: the second has it, unread (A31)."""
    someone = user(dovecot)
    table = {"pool_mode": "mailbox", "pool_size": 1, "pool_wait": "60s"}
    with gate_for(dovecot, upstream=table, limits={"half_close": "500ms"}, admin=ADMIN) as gate, ExitStack() as stack:
        holder = stack.enter_context(someone.wire(gate.port))
        dead, alive = someone.wire(gate.port), stack.enter_context(someone.wire(gate.port))
        holder.ok(b"SELECT INBOX")
        for number, (wire, command) in enumerate([(dead, b"a CREATE dead"), (alive, b'a LIST "" "*"')], 1):
            wire.send(command + b"\r\n")
            wait_until(lambda number=number: pool(gate, someone.name)["waiting"] == number, "a waiter")
        if how == "is kicked":
            ctl(gate, "kick", ctl(gate, "sessions")[1]["session"])
        dead.reset() if how == "resets" else dead.close()
        wait_until(lambda: pool(gate, someone.name)["waiting"] == 1, "the end of the first")
        holder.ok(b"CLOSE")
        listed = b"".join(alive.until_tagged(b"a"))
        assert b"a OK" in listed
        assert b"dead" not in listed
        assert stats(gate)["upstream_connections"] == 1


def test_a31_what_is_told_after_the_release_reaches_nobody() -> None:
    """What the server volunteers between two leases is shown to neither of the two clients (A31)."""

    def answers_late(talk: Conversation, command: Command) -> None:
        talk.send(b'* 7 EXISTS\r\n* LIST () "/" late\r\n* OK [ALERT] for somebody\r\n')
        talk.ok(command)

    with bed_of(upstream={"pool_mode": "mailbox"}, admin=ADMIN) as bed:
        bed.answer(NOOP=answers_late)  # the barrier
        first, name = bed.login()
        second, _ = bed.login(name)
        first.ok(b"SELECT INBOX")
        first.send(b"c CLOSE\r\n")
        closed = first.until_tagged(b"c")
        wait_until(lambda: pool(bed.gate, name.decode())["idle"] >= 1, "a clean connection")
        listed = second.ok(b'LIST "" INBOX')
        assert b"late" in bed.recorder.of(name)[0].sent
        assert closed == [b"c OK done\r\n"]
        assert listed[:-1] == [b'* LIST () "/" INBOX\r\n']
        assert first.ok(b"NOOP")[:-1] == []
        assert not bed.recorder.violations


def test_login_is_quoted_as_ever(gate: Gate, server: Server, user: NewUser) -> None:
    """A password with blanks, quotes and backslashes opens later connections as well as the first."""
    someone = user(server, password='a "b" \\ c{5}')
    with connect(gate.host, gate.port) as wire:
        wire.ok(b"LOGIN " + quoted(someone.name) + b" " + quoted(someone.password))
        at_rest(gate, someone)
        ctl(gate, "forget", someone.name)  # the pooled one is given up
        wire.ok(b'LIST "" INBOX')
    wait_until(lambda: server.login_count(someone.name) == 2, "two logins")
