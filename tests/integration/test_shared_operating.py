"""Mode ``shared`` under an operator: logins that need no connection, reload, drain, kick, forget, stopping."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from tests.integration.conftest import User
from tests.integration.ctl import Asked, ctl, pool
from tests.integration.servers import Dovecot, Server, wait_until
from tests.integration.shared import channels, clients, counts, selected, sharing, store

NewUser = Callable[..., User]
MESSAGE = b"From: a@example.org\r\nSubject: one\r\n\r\nHello.\r\n"
CACHED = {"auth": {"credential_cache": "60s"}}


def test_webmail(server: Server, user: NewUser) -> None:
    """With ``credential_cache`` a login, and its SELECT, are answered from the channel that the last one has left."""
    someone = user(server)
    store(someone, MESSAGE)
    wait_until(lambda: server.login_count(someone.name) == 1, "the login that stored it")
    with sharing(server, **CACHED) as gate:
        for number in range(10):
            with someone.wire(gate.port) as wire:
                assert b"* 1 EXISTS\r\n" in wire.ok(b"SELECT INBOX")
                assert b"* 1 FETCH " in b"".join(wire.ok(b"FETCH 1 (UID FLAGS)"))
                wire.logout()
            assert [row["mailbox"] for row in channels(gate, someone)] == ["INBOX"], number
        seen = counts(gate)
        assert (seen["seated"], seen["opened"], seen["joined"]) == (9, 1, 9)
        store(someone, MESSAGE)
        with someone.wire(gate.port) as wire:
            assert b"* 2 EXISTS\r\n" in wire.ok(b"SELECT INBOX")
        assert pool(gate, someone.name)["total"] == 1
        wait_until(lambda: server.login_count(someone.name) == 3, "the log")
        # Another password is another matter.
        server.set_password(someone.name, "battery staple")
        other = someone._replace(password="battery staple")
        with other.wire(gate.port) as wire:
            assert b"* 2 EXISTS\r\n" in wire.ok(b"SELECT INBOX")
        assert counts(gate)["seated"] == 10
        wait_until(lambda: len(channels(gate, someone)) == 1, "the end of the old one")
        with other.wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
        assert counts(gate)["seated"] == 11


def test_two_passwords(dovecot: Dovecot, user: NewUser) -> None:
    """A user's programs with passwords of their own do not make each other log in again and again."""
    someone = user(dovecot)
    store(someone, MESSAGE)
    with sharing(dovecot) as gate, ExitStack() as stack:
        (first,) = clients(stack, gate, someone, 1, b"SELECT INBOX")
        dovecot.set_password(someone.name, "battery staple")
        (second,) = clients(stack, gate, someone._replace(password="battery staple"), 1, b"SELECT INBOX")
        for wire in (first, second):
            wire.send(b"i IDLE\r\n")
            wire.expect_continuation()
        wait_until(lambda: [row["state"] for row in channels(gate, someone)] == ["idling"] * 2, "both to idle")
        before = dovecot.login_count(someone.name)
        for number in range(2, 5):
            store(someone._replace(password="battery staple"), MESSAGE)
            for wire in (first, second):
                while wire.response() != b"* %d EXISTS\r\n" % number:
                    pass
        assert dovecot.login_count(someone.name) == before + 3
        assert pool(gate, someone.name)["total"] == 2


def test_reload(dovecot: Dovecot, user: NewUser) -> None:
    """Sessions, and their channels, outlive a reload, even of how the server is reached; whoever comes has the new."""
    someone = user(dovecot)
    store(someone, MESSAGE)
    with sharing(dovecot, **CACHED) as gate, ExitStack() as stack:
        wires = clients(stack, gate, someone, 3, b"SELECT INBOX")
        ctl(gate, "reload")
        (joined,) = clients(stack, gate, someone, 1, b"SELECT INBOX")
        assert [row["sessions"] for row in selected(gate, someone)] == [4]
        text = gate.configuration_file.read_text()
        gate.configure(text.replace('pool_mode = "shared"', 'pool_mode = "shared"\nid_originating = true'))
        ctl(gate, "reload")
        (other,) = clients(stack, gate, someone, 1, b"SELECT INBOX")
        assert sorted(row["sessions"] for row in selected(gate, someone)) == [1, 4]
        other.ok(b"STORE 1 +FLAGS (\\Flagged)")
        for wire in (*wires, joined):
            assert b"\\Flagged" in b"".join(wire.ok(b"NOOP"))
        for wire in (*wires, joined):
            wire.logout()
        wait_until(lambda: [row["sessions"] for row in channels(gate, someone)] == [1], "the end of the old channel")
        gate.configure(text.replace('pool_mode = "shared"', 'pool_mode = "session"'))
        ctl(gate, "reload")
        (own,) = clients(stack, gate, someone, 1, b"SELECT INBOX")
        assert [row["pool_mode"] for row in ctl(gate, "sessions")] == ["shared", "session"]
        own.ok(b"NOOP")
        other.ok(b"NOOP")


def test_drain(server: Server, user: NewUser) -> None:
    """Drained, every session ends at a command's end, those that idle at once, and nothing is left upstream."""
    someone = user(server)
    store(someone, MESSAGE)
    with sharing(server, **CACHED) as gate, ExitStack() as stack:
        idler, busy, quiet = clients(stack, gate, someone, 3, b"SELECT INBOX")
        idler.send(b"i IDLE\r\n")
        idler.expect_continuation()
        busy.send(b"f FETCH 1 BODY.PEEK[]\r\n")
        with Asked(gate, "drain", server.name) as drain:
            for wire in (idler, busy, quiet):
                told = wire.eof()
                assert told.endswith(b"* BYE [UNAVAILABLE] The mail server is being taken out of service\r\n")
                if wire is busy:
                    assert b"f OK" in told
                    assert MESSAGE in told
            assert drain.rows()[0]["ended"] == 3
        ctl(gate, "resume", server.name)
        with someone.wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")


def test_kick(dovecot: Dovecot, user: NewUser) -> None:
    """One session is ended, and the others of its mailbox go on."""
    someone = user(dovecot)
    store(someone, MESSAGE)
    with sharing(dovecot) as gate, ExitStack() as stack:
        first, *others = clients(stack, gate, someone, 3, b"SELECT INBOX")
        ctl(gate, "kick", ctl(gate, "sessions")[0]["session"])
        assert first.eof() == b"* BYE [UNAVAILABLE] The operator has ended this session\r\n"
        for wire in others:
            wire.ok(b"FETCH 1 FLAGS")
        assert [row["sessions"] for row in selected(gate, someone)] == [2]


def test_forgotten(dovecot: Dovecot, user: NewUser) -> None:
    """What lingers of a user goes when the operator says so, and the next login is verified anew."""
    someone = user(dovecot)
    store(someone, MESSAGE)
    with sharing(dovecot, **CACHED) as gate:
        with someone.wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
            wire.logout()
        assert len(channels(gate, someone)) == 1
        ctl(gate, "forget", someone.name)
        wait_until(lambda: not channels(gate, someone), "the end of what lingered")
        with someone.wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
        assert counts(gate)["seated"] == 0


def test_stopped(server: Server, user: NewUser) -> None:
    """Stopped with sessions of every kind, and with what lingers, the gate ends, and says goodbye to everybody."""
    someone, gone = user(server), user(server)
    for each in (someone, gone):
        store(each, MESSAGE)
    with sharing(server, **CACHED) as gate, ExitStack() as stack:
        idler, quiet, pinned = clients(stack, gate, someone, 3, b"SELECT INBOX")
        idler.send(b"i IDLE\r\n")
        idler.expect_continuation()
        pinned.command(b"SEARCH RETURN (SAVE) ALL")
        with gone.wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
            wire.logout()
        assert len(channels(gate, gone)) == 1
        assert gate.stop() == 0
        for wire in (idler, quiet, pinned):
            assert wire.eof().endswith(b"* BYE [UNAVAILABLE] The mail gateway is shutting down\r\n")
