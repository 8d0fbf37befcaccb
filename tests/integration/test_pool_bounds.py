"""Pooled connections: how many there are, for how long, and what becomes of them while they are idle."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.bed import Bed, bed_of
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl, pool, stats
from tests.integration.gate import Gate, gate_for
from tests.integration.scripted import Command, Conversation
from tests.integration.servers import Dovecot, Server, wait_until
from tests.integration.wire import connect, quoted

NewUser = Callable[..., User]
CACHE: dict[str, Any] = {"auth": {"credential_cache": "60s"}, "admin": ADMIN}

# -- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server_name", ["dovecot", "cyrus", "courier"])
def test_pool_size(start_server: Callable[[str], Server], user: NewUser, server_name: str) -> None:
    """At the most the client waits, then it is told NO [UNAVAILABLE], and may try again on the same connection."""
    server = start_server(server_name)
    someone, other = user(server), user(server)
    with gate_for(server, upstream={"pool_size": 2, "pool_wait": "1s"}, **CACHE) as gate:
        first, second = someone.wire(gate.port), someone.wire(gate.port)
        third = connect(gate.host, gate.port)
        login = b"LOGIN " + quoted(someone.name) + b" " + quoted(someone.password)
        third.send(b"a " + login + b"\r\n")
        wait_until(lambda: pool(gate, someone.name)["waiting"] == 1, "a waiter")
        other.wire(gate.port).logout()  # nobody else waits
        (answer,) = third.until_tagged(b"a")
        assert answer == b"a NO [UNAVAILABLE] All connections to the mail server are in use; try again later\r\n"
        assert pool(gate, someone.name)["total"] == 2
        first.logout()
        third.ok(login)
        third.ok(b"SELECT INBOX")
        assert stats(gate)["upstream_refused"] == 1
        for wire in (second, third):
            wire.logout()
    wait_until(lambda: server.login_count(someone.name) == 2, "two logins")


@pytest.mark.parametrize("server_name", ["dovecot", "cyrus", "courier"])
def test_a31_a_dead_waiter_gets_nothing(start_server: Callable[[str], Server], user: NewUser, server_name: str) -> None:
    """Of three that wait the first and the third have gone when a connection comes free: the second has it (A31)."""
    server = start_server(server_name)
    someone = user(server)
    with gate_for(
        server, upstream={"pool_size": 1, "pool_wait": "60s"}, limits={"half_close": "500ms"}, **CACHE
    ) as gate:
        holder = someone.wire(gate.port)
        waiters = []
        for number in range(1, 4):
            wire = connect(gate.host, gate.port)
            wire.send(b"a LOGIN " + quoted(someone.name) + b" " + quoted(someone.password) + b"\r\n")
            wait_until(lambda number=number: pool(gate, someone.name)["waiting"] == number, "a waiter")
            waiters.append(wire)
        waiters[0].close()
        waiters[2].reset()
        wait_until(lambda: pool(gate, someone.name)["waiting"] == 1, "the end of two of them")
        holder.logout()
        assert b"a OK" in waiters[1].until_tagged(b"a")[-1]
        waiters[1].ok(b"SELECT INBOX")
        figures = stats(gate)
        assert (figures["upstream_dialled"], figures["upstream_lent"], figures["upstream_reused"]) == (1, 2, 1)
        waiters[1].logout()
    assert server.login_count(someone.name) == 1


@pytest.mark.parametrize("where", ["max_connections", "upstream_connections"])
def test_bounds_for_all_users(where: str) -> None:
    """At the most of an upstream, or of the gate, idle connections of others make room, and no lent one does."""
    upstream = {"pool_wait": "1s"} | ({"max_connections": 2} if where == "max_connections" else {})
    limits = {"upstream_connections": 2} if where == "upstream_connections" else {}
    with bed_of(upstream=upstream, limits=limits, **CACHE) as bed:
        names = [bed.new_user() for _ in range(4)]
        first, second = _kept(bed, names[0]), _kept(bed, names[1])
        working, _ = bed.login(names[2])
        assert (first.ended, second.ended) == (True, False)  # the one that was idle for longer
        other, _ = bed.login(names[3])
        assert second.ended
        late = bed.connect()
        (answer,) = late.command(b"LOGIN %b secret" % names[0], tag=b"a")
        assert answer.startswith(b"a NO [UNAVAILABLE] All connections to the mail server are in use")
        late.send(b"b LOGIN %b secret\r\n" % names[0])
        wait_until(lambda: stats(bed.gate)["waiting"] == 1, "a waiter")
        working.logout()  # its connection would be kept, if nobody waited
        assert b"b OK" in late.until_tagged(b"b")[-1]
        other.ok(b"SELECT INBOX")
        assert stats(bed.gate)["upstream_connections"] == 2


@pytest.mark.parametrize("bound", ["pool_idle", "pool_lifetime"])
def test_kept_for_a_time(dovecot: Dovecot, user: NewUser, bound: str) -> None:
    """A connection that was idle, or alive, for long enough is logged out, and the next login has a new one."""
    someone = user(dovecot)
    with gate_for(dovecot, upstream={bound: "1s"}, **CACHE) as gate:
        for number in (1, 2):
            someone.wire(gate.port).logout()
            wait_until(lambda: not pool(gate, someone.name)["total"], "the end of the connection")
            wait_until(lambda number=number: dovecot.login_count(someone.name) == number, "a login")
        wait_until(lambda: not dovecot.session_pids(someone.name), "no session at the server")
        assert stats(gate)["upstream_closed"] == 2


def test_lived_for_too_long_while_it_was_lent(dovecot: Dovecot, user: NewUser) -> None:
    """A session longer than `pool_lifetime` is not disturbed, but its connection is not kept."""
    someone = user(dovecot)
    with gate_for(dovecot, upstream={"pool_lifetime": "1s"}, **CACHE) as gate:
        with someone.wire(gate.port) as wire:
            wait_until(lambda: ctl(gate, "sessions")[0]["age_seconds"] > 1.2, "an old session")
            wire.ok(b"SELECT INBOX")
            wire.logout()
        wait_until(lambda: not pool(gate, someone.name)["total"], "the end of the connection")
        assert stats(gate)["upstream_discarded"] == 1


# -- what became of it while it was idle ------------------------------------------------------------------------------


def _aged(gate: Gate) -> None:
    """Wait until some of the gate's own time has passed."""
    began = stats(gate)["running_seconds"]
    wait_until(lambda: stats(gate)["running_seconds"] >= began + 0.2, "the gate's clock")


def _verbs(bed: Bed, user: bytes) -> list[list[bytes]]:
    """What each upstream connection of a user was sent after its login."""
    return [[each.verb for each in talk.commands[1:]] for talk in bed.recorder.of(user)]


def _kept(bed: Bed, user: bytes) -> Conversation:
    """A session of this user that is over, and its upstream connection, which is idle."""
    bed.login(user)[0].logout()
    wait_until(lambda: pool(bed.gate, user.decode())["idle"] == 1, "an idle connection")
    return bed.recorder.of(user)[-1]


def test_checked_only_after_a_while() -> None:
    """A connection that has just come back is lent as it is; one that was idle for longer is asked by NOOP first."""
    with bed_of(**CACHE) as bed:
        user = bed.new_user()
        _kept(bed, user)
        _kept(bed, user)
        assert _verbs(bed, user) == [[b"NOOP", b"NOOP"]]  # the barriers
    with bed_of(limits={"pool_check": "1ms"}, **CACHE) as bed:
        user = bed.new_user()
        _kept(bed, user)
        _aged(bed.gate)
        _kept(bed, user)
        assert _verbs(bed, user) == [[b"NOOP", b"NOOP", b"NOOP"]]
        assert not bed.recorder.violations


def _says_nothing(talk: Conversation, command: Command) -> None:
    talk.close()


def _resets(talk: Conversation, command: Command) -> None:
    talk.reset()


def _says_bye(talk: Conversation, command: Command) -> None:
    talk.send(b"* BYE idle for too long\r\n")
    talk.close()


def _refuses(talk: Conversation, command: Command) -> None:
    talk.send(command.tag + b" BAD not now\r\n")


@pytest.mark.parametrize("fate", [_says_nothing, _resets, _says_bye, _refuses])
def test_f8_dead_at_the_check(fate: Callable[[Conversation, Command], None]) -> None:
    """A connection that does not survive its check costs the login nothing: it has a new one (F8)."""
    with bed_of(limits={"pool_check": "1ms"}, **CACHE) as bed:
        user = bed.new_user()
        talk = _kept(bed, user)
        talk.script.answers[b"NOOP"] = fate
        _aged(bed.gate)
        bed.recorder.script = type(bed.recorder.script)()
        wire, _ = bed.login(user)
        wire.ok(b"SELECT INBOX")
        assert [verbs[:2] for verbs in _verbs(bed, user)] == [[b"NOOP", b"NOOP"], [b"SELECT"]]
        assert b"BYE" not in wire.transcript
        wire.logout()


@pytest.mark.parametrize("last", [b"", b"* BYE idle for too long\r\n", b"g9 OK nobody asked\r\n", b"* OK half a li"])
def test_f8_closed_while_idle(last: bytes) -> None:
    """What the server says while a connection is idle, and its end, concern nobody (F8, A22)."""
    with bed_of(**CACHE) as bed:
        user = bed.new_user()
        talk = _kept(bed, user)
        talk.send(last)
        if not last:
            talk.sock.shutdown(2)
        wait_until(lambda: not pool(bed.gate, user.decode())["total"], "the end of the connection")
        wire, _ = bed.login(user)
        wire.ok(b"SELECT INBOX")
        assert len(bed.recorder.of(user)) == 2
        assert last not in wire.transcript or not last
        wire.logout()


def test_f8_killed_while_idle(dovecot: Dovecot, user: NewUser) -> None:
    """The server's process of an idle connection is killed: the next login is not disturbed (F8)."""
    someone = user(dovecot)
    with gate_for(dovecot, **CACHE) as gate:
        someone.wire(gate.port).logout()
        wait_until(lambda: pool(gate, someone.name)["idle"] == 1, "an idle connection")
        wait_until(lambda: len(dovecot.session_pids(someone.name)) == 1, "its process")
        dovecot.signal(signal.SIGKILL, dovecot.session_pids(someone.name))
        wait_until(lambda: not pool(gate, someone.name)["total"], "the end of the connection")
        with someone.wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
            assert b"BYE" not in wire.transcript
            wire.logout()
    wait_until(lambda: dovecot.login_count(someone.name) == 2, "two logins")


# -- the default ------------------------------------------------------------------------------------------------------


def test_a34_by_default_every_login_is_verified_and_nothing_is_kept(server: Server, user: NewUser) -> None:
    """Without a cache there is no connection that a login could be given: none outlives its session (A34)."""
    someone = user(server)
    with gate_for(server, admin=ADMIN) as gate:
        for number in (1, 2, 3):
            with someone.wire(gate.port) as wire:
                wire.ok(b"SELECT INBOX")
                wire.logout()
            wait_until(lambda: not stats(gate)["upstream_connections"], "no connection")
            wait_until(lambda number=number: server.login_count(someone.name) == number, "a login")
        assert ctl(gate, "pools") == []
        assert stats(gate)["upstream_reused"] == 0
