"""Mode ``shared``: the server's process dies under one session's command; it is told, the others go on (F3, F4)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import ctl
from tests.integration.faults import FaultProxy
from tests.integration.servers import Cyrus, Dovecot, Server, wait_until
from tests.integration.shared import LOST, clients, counts, selected, sharing, store
from tests.integration.wire import Wire

NewUser = Callable[..., User]
MESSAGES = [b"Subject: number %d\r\n\r\nText %d\r\n" % (number, number) for number in range(1, 7)]


def goes_on(wire: Wire) -> None:
    """A client that notices nothing."""
    assert b"* 2 FETCH (UID 2)\r\n" in wire.ok(b"FETCH 2 (UID)")


def test_a_process_is_killed(dovecot: Dovecot, user: NewUser) -> None:
    """The process behind a channel is killed in the middle of one command: one BYE, and nothing else is seen."""
    someone = user(dovecot)
    store(someone, *MESSAGES)
    with sharing(dovecot) as gate, ExitStack() as stack:
        one, *others, idler = clients(stack, gate, someone, 5, b"SELECT INBOX")
        wait_until(lambda: len(dovecot.session_pids(someone.name)) == 1, "the one process")
        (process,) = dovecot.session_pids(someone.name)
        os.kill(process, signal.SIGSTOP)
        one.send(b"f FETCH 1:* BODY.PEEK[]\r\n")
        wait_until(lambda: [row["state"] for row in selected(gate, someone)] == ["busy"], "its command")
        idler.send(b"i IDLE\r\n")
        idler.expect_continuation()
        for wire in others:
            wire.send(b"n FETCH 2 (UID)\r\n")
        wait_until(lambda: [row["waiting"] for row in selected(gate, someone)] == [len(others)], "the others")
        os.kill(process, signal.SIGKILL)
        assert one.eof() == LOST
        for wire in others:
            assert wire.until_tagged(b"n")[0] == b"* 2 FETCH (UID 2)\r\n"
        store(someone, MESSAGES[0])
        while idler.response() != b"* 7 EXISTS\r\n":
            pass
        assert counts(gate)["reattached"] == len(others) + 1
        assert len(ctl(gate, "sessions")) == len(others) + 1


def test_a_connection_is_cut(server: Server, user: NewUser) -> None:
    """With nothing in flight a lost connection ends nobody."""
    someone = user(server)
    store(someone, *MESSAGES)
    with FaultProxy((server.host, server.port)) as proxy:
        where = [f"tcp:127.0.0.1:{proxy.port}"]
        with sharing(server, endpoints=where) as gate, ExitStack() as stack:
            wires = clients(stack, gate, someone, 4, b"SELECT INBOX")
            for _ in range(3):
                for connection in proxy.connections:
                    proxy.cut(connection)
                wait_until(lambda: not selected(gate, someone), "the end of the channel")
                for wire in wires:
                    goes_on(wire)
            assert counts(gate)["reattached"] == 3 * len(wires)


def test_the_server_is_away(server: Server, user: NewUser) -> None:
    """While no connection can be had a command is told NO, the session stays, and goes on when the server is back."""
    someone = user(server)
    store(someone, *MESSAGES)
    with FaultProxy((server.host, server.port)) as proxy:
        where = [f"tcp:127.0.0.1:{proxy.port}"]
        with sharing(server, endpoints=where) as gate, ExitStack() as stack:
            first, second = clients(stack, gate, someone, 2, b"SELECT INBOX")
            proxy.refuse()
            for connection in proxy.connections:
                proxy.cut(connection)
            wait_until(lambda: not selected(gate, someone), "the end of the channel")
            for wire in (first, second):
                for command in (b"NOOP", b"FETCH 2 (UID)", b'LIST "" INBOX'):
                    assert wire.command(command)[-1].split(b" ", 1)[1].startswith(b"NO [UNAVAILABLE] ")
            with someone.wire() as direct:
                direct.ok(b"SELECT INBOX")
                direct.ok(b"STORE 1 +FLAGS.SILENT (\\Deleted)")
                direct.ok(b"EXPUNGE")
            proxy.listen()
            for wire in (first, second):
                goes_on(wire)
                assert wire.ok(b"NOOP")[0] == b"* 1 EXPUNGE\r\n"


@pytest.mark.parametrize(
    "command", [b"COPY 1:3 INBOX", b"MOVE 1:3 INBOX", b"FETCH 2 BODY[TEXT]", b"FETCH 1:3 BODY[]", b"FETCH 2 (RFC822)"]
)
def test_what_cyrus_dies_of(cyrus: Cyrus, user: NewUser, command: bytes) -> None:
    """A command that names a message that is gone, of which the channel has not heard, kills no process."""
    before = len(cyrus.log())  # others have made it die
    someone = user(cyrus)
    store(someone, *MESSAGES)
    with sharing(cyrus) as gate, ExitStack() as stack:
        one, *others = clients(stack, gate, someone, 4, b"SELECT INBOX")
        with someone.wire() as direct:
            direct.ok(b"SELECT INBOX")
            direct.ok(b"STORE 2 +FLAGS.SILENT (\\Deleted)")
            direct.ok(b"EXPUNGE")
        answer = one.command(command, tag=b"x")
        assert answer[-1].startswith((b"x OK", b"x NO [EXPUNGEISSUED]")), answer
        assert b"Text 2\r\n" not in b"".join(answer)
        assert not [line for line in answer[:-1] if b" EXPUNGE\r\n" in line and command.startswith(b"FETCH")]
        assert "assertion" not in cyrus.log()[before:]
        for wire in (one, *others):
            told = b"".join(wire.ok(b"NOOP"))
            assert b"* 2 EXPUNGE\r\n" in told or (wire is one and not command.startswith(b"FETCH"))
        uids = {bytes(b"".join(wire.ok(b"FETCH 1:* (UID)")[:-1])) for wire in (one, *others)}
        assert len(uids) == 1
        assert counts(gate)["reattached"] == 0


def test_it_dies_of_the_same_again(cyrus: Cyrus, user: NewUser) -> None:
    """A process that dies of one session's command is not given that command again by the gate: no second one dies."""
    someone = user(cyrus)
    store(someone, *MESSAGES)
    with FaultProxy((cyrus.host, cyrus.port)) as proxy:
        where = [f"tcp:127.0.0.1:{proxy.port}"]
        with sharing(cyrus, endpoints=where) as gate, ExitStack() as stack:
            one, *others = clients(stack, gate, someone, 4, b"SELECT INBOX")
            wait_until(lambda: len(selected(gate, someone)) == 1, "the one channel")
            for connection in proxy.connections:
                proxy.stall(connection, "up")
            one.send(b"c COPY 1:3 INBOX\r\n")
            wait_until(lambda: [row["state"] for row in selected(gate, someone)] == ["busy"], "its command")
            for connection in proxy.connections:
                proxy.cut(connection)
            assert one.eof() == LOST
            for wire in others:
                goes_on(wire)
            assert len(ctl(gate, "sessions")) == len(others)
            with someone.wire() as direct:
                assert b"MESSAGES 6" in b"".join(direct.ok(b"STATUS INBOX (MESSAGES)"))
