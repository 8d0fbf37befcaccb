"""Mode `session` with a credential cache: what a later login of the same user is given, and what it is never given.

Each test on all three servers has users of its own; how often they logged in is counted by the server's log, what
went upstream by the octets that a proxy between gate and server has seen.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.integration.bed import Bed, bed_of
from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl, pool, stats
from tests.integration.faults import FaultProxy
from tests.integration.gate import Gate, gate_for
from tests.integration.scripted import Command, Conversation
from tests.integration.servers import Dovecot, Server, wait_until
from tests.integration.wire import Wire, connect, quoted

NewUser = Callable[..., User]
MESSAGE = b"From: a@example.org\r\nSubject: one\r\n\r\nHello.\r\n"
NOTHING_SELECTED = {
    "courier": b" NO Error in IMAP command received by server.",
    "cyrus": b" BAD Please select a mailbox first",
    "dovecot": b" BAD No mailbox selected",
}
"""What the servers say of a FETCH then; with a mailbox selected they say something else."""
CACHE: dict[str, Any] = {"auth": {"credential_cache": "60s"}, "admin": ADMIN}


class Site(NamedTuple):
    """A server, a proxy that keeps what passes, and a gate that pools."""

    server: Server
    proxy: FaultProxy
    gate: Gate

    def login(self, someone: User) -> Wire:
        """A client that has logged in."""
        return someone.wire(self.gate.port)

    def assert_nothing_is_selected(self, wire: Wire) -> None:
        """By what the server itself says."""
        assert NOTHING_SELECTED[self.server.name] in wire.command(b"FETCH 1 FLAGS")[-1]

    def pool(self, someone: User) -> dict[str, Any]:
        """The user's pool, as the operator sees it."""
        return pool(self.gate, someone.name)

    def settled(self, someone: User, *, idle: int, leased: int = 0) -> None:
        """Wait until the user has so many connections upstream, and no others."""

        def look() -> bool:
            row = self.pool(someone)
            return (row["idle"], row["leased"], row["total"]) == (idle, leased, idle + leased)

        wait_until(look, f"{idle} idle and {leased} leased connections, not {self.pool(someone)}")

    def logins(self, someone: User, number: int) -> None:
        """The user was logged in at the server so many times; what is being looked at has happened, or never will."""
        wait_until(lambda: self.server.login_count(someone.name) >= number, f"login {number}")
        assert self.server.login_count(someone.name) == number


@pytest.fixture(scope="module")
def site(server: Server) -> Iterator[Site]:
    """One gate before each server in turn, which keeps one connection of each user."""
    with FaultProxy((server.host, server.port), keep=True) as proxy:
        upstream = {"endpoints": [f"tcp:127.0.0.1:{proxy.port}"], "pool_wait": "1s"}
        with gate_for(server, upstream=upstream, limits={"half_close": "500ms"}, **CACHE) as gate:
            yield Site(server, proxy, gate)


def left(site: Site, someone: User, *commands: bytes) -> None:
    """A session that has come, done this, and left; its connection is in the pool."""
    with site.login(someone) as wire:
        for command in commands:
            wire.ok(command)
        wire.logout()
    site.settled(someone, idle=1)


# -- what a login is given --------------------------------------------------------------------------------------------


def test_a31_the_second_login_is_given_the_connection_of_the_first(site: Site, user: NewUser) -> None:
    """One login at the server for two at the gate; nothing is selected at the start of the second (A31)."""
    someone = user(site.server)
    before = stats(site.gate)
    left(site, someone, b"SELECT INBOX")
    with site.login(someone) as wire:
        site.assert_nothing_is_selected(wire)
        wire.ok(b"SELECT INBOX")
        wire.ok(b"SEARCH ALL")
        wire.logout()
    site.logins(someone, 1)
    after = stats(site.gate)
    assert after["upstream_dialled"] == before["upstream_dialled"] + 1
    assert after["upstream_reused"] == before["upstream_reused"] + 1


def test_a31_nobody_else_is_given_it(site: Site, user: NewUser) -> None:
    """Another user, the same user under another spelling, a wrong password: none has the first one's connection."""
    someone, other = user(site.server), user(site.server)
    left(site, someone)
    left(site, other)
    with connect(site.gate.host, site.gate.port) as wire:
        refused = wire.command(b"LOGIN " + quoted(someone.name) + b" " + quoted(other.password + "x"))[-1]
        assert b" NO [AUTHENTICATIONFAILED]" in refused
    site.logins(someone, 1)
    site.logins(other, 1)
    site.settled(someone, idle=0)  # a failed login makes whatever was proved of the user void
    site.settled(other, idle=1)


@pytest.mark.parametrize("select", [b"SELECT", b"EXAMINE"])
def test_a31_nothing_of_a_mailbox_is_inherited(site: Site, user: NewUser, select: bytes) -> None:
    """How the first session had selected, and what it was told, means nothing to the second."""
    someone = user(site.server)
    with someone.wire() as wire:
        wire.command_with_literals(b"APPEND INBOX (\\Seen)", MESSAGE)
        wire.logout()
    left(site, someone, select + b" INBOX", b"FETCH 1 (UID FLAGS)")
    with site.login(someone) as wire:
        assert b"READ-WRITE" in wire.ok(b"SELECT INBOX")[-1]
        stored = b"".join(wire.ok(b"STORE 1 +FLAGS (\\Flagged)"))
        assert b"\\Flagged" in stored
        assert b"MODSEQ" not in stored
        fetched = b"".join(wire.ok(b"FETCH 1 (UID FLAGS)"))
        assert fetched.count(b"* 1 FETCH") == 1
        wire.logout()
    site.logins(someone, 2)  # this one's, and the one above without a gate


def test_barrier(site: Site, user: NewUser) -> None:
    """Between two sessions goes the barrier that the server has: UNSELECT, a SELECT that fails, NOOP (A31)."""
    someone = user(site.server)
    first = len(site.proxy.connections)
    left(site, someone, b"SELECT INBOX")
    left(site, someone)
    (carried,) = site.proxy.connections[first:]
    capable = carried.down.data.upper()
    barrier = b"UNSELECT" if b" UNSELECT" in capable else b'SELECT ""'
    assert (barrier == b"UNSELECT") == (site.server.name != "courier")
    sent = re.findall(rb"(?m)^(g[0-9]+) (.*)\r$", bytes(carried.up.data))[-3:]
    assert [text for _, text in sent] == [b"SELECT INBOX", barrier, b"NOOP"]
    answers = dict(re.findall(rb"(?m)^(g[0-9]+) ([A-Z]+) ", bytes(carried.down.data)))
    assert [answers[tag] for tag, _ in sent] == [b"OK", b"OK" if barrier == b"UNSELECT" else b"NO", b"OK"]


# -- what is destroyed ------------------------------------------------------------------------------------------------


def _literal_half_sent(wire: Wire) -> None:
    wire.send(b"a APPEND INBOX {%d}\r\n" % len(MESSAGE))
    wire.expect_continuation()
    wire.send(MESSAGE[:10])


def _idling(wire: Wire) -> None:
    wire.ok(b"SELECT INBOX")
    wire.send(b"i IDLE\r\n")
    wire.expect_continuation()


def _literal_half_closed(wire: Wire) -> None:
    _literal_half_sent(wire)
    wire.half_close()
    wire.eof()


def _idling_half_closed(wire: Wire) -> None:
    _idling(wire)
    wire.half_close()
    wire.eof()


def _condstore(wire: Wire) -> None:
    wire.command(b"SELECT INBOX (CONDSTORE)")
    wire.logout()


def _modseq(wire: Wire) -> None:
    wire.command(b"SELECT INBOX")
    wire.command(b"FETCH 1:* (FLAGS MODSEQ)")
    wire.logout()


def _highestmodseq(wire: Wire) -> None:
    wire.command(b"STATUS INBOX (MESSAGES HIGHESTMODSEQ)")
    wire.logout()


BROKEN_OFF = {
    "literal half sent": _literal_half_sent,
    "idling": _idling,
    "half-closed in a literal": _literal_half_closed,
    "half-closed in IDLE": _idling_half_closed,
    "SELECT (CONDSTORE)": _condstore,
    "FETCH MODSEQ": _modseq,
    "STATUS (HIGHESTMODSEQ)": _highestmodseq,
}


@pytest.mark.parametrize("how", BROKEN_OFF)
def test_a31_what_is_not_clean_is_destroyed(site: Site, user: NewUser, how: str) -> None:
    """Whatever was begun, or may last as long as the connection does: the next login is given a new one (A31)."""
    someone = user(site.server)
    with site.login(someone) as wire:
        BROKEN_OFF[how](wire)
    site.settled(someone, idle=0)
    with site.login(someone) as wire:
        site.assert_nothing_is_selected(wire)
        assert b"MODSEQ" not in b"".join(wire.ok(b"SELECT INBOX")[1:-1]).replace(b"[HIGHESTMODSEQ", b"")
        wire.logout()
    site.logins(someone, 2)
    site.settled(someone, idle=1)


def test_a31_enabled_is_destroyed(site: Site, user: NewUser) -> None:
    """What was enabled (RFC 5161) lasts as long as the connection: no other session has it (A31)."""
    someone = user(site.server)
    with site.login(someone) as wire:
        enabled = b"* ENABLED CONDSTORE\r\n" in [line.upper() for line in wire.ok(b"ENABLE CONDSTORE")]
        assert enabled == (site.server.name != "courier")
        pinned = [row["reason"] for row in ctl(site.gate, "pins") if row["user"] == someone.name]
        assert pinned == ["ENABLE"] * enabled
        wire.logout()
    site.settled(someone, idle=not enabled)
    with site.login(someone) as wire:
        assert b"MODSEQ" not in b"".join(wire.ok(b"SELECT INBOX")).replace(b"[HIGHESTMODSEQ", b"")
        wire.logout()
    site.logins(someone, 1 + enabled)


def test_a31_pipelined_and_unanswered_is_destroyed(site: Site, user: NewUser) -> None:
    """A client that leaves with commands in flight takes their answers with it: nobody else gets them (A31)."""
    someone = user(site.server)
    first = len(site.proxy.connections)
    with site.login(someone) as wire:
        wire.ok(b"SELECT INBOX")
        (carried,) = site.proxy.connections[first:]
        site.proxy.stall(carried, "down")
        wire.send(b"".join(b"p%d STATUS INBOX (MESSAGES)\r\n" % number for number in range(20)))
        site.proxy.wait(lambda: carried.up.data.count(b"STATUS") == 20)
    wait_until(lambda: not site.pool(someone)["leased"], "the end of the session")
    with site.login(someone) as wire:
        assert [line.split()[1] for line in wire.command(b"NOOP")] == [b"OK"]
        wire.logout()
    site.proxy.resume(carried, "down")
    site.logins(someone, 2)
    site.settled(someone, idle=1)


def test_half_closed_with_nothing_owed_is_kept(site: Site, user: NewUser) -> None:
    """A client that only shuts its sending side, and was answered everything, leaves a clean connection."""
    someone = user(site.server)
    with site.login(someone) as wire:
        wire.ok(b"SELECT INBOX")
        wire.half_close()
        assert wire.eof() == b""
    site.settled(someone, idle=1)
    with site.login(someone) as wire:
        site.assert_nothing_is_selected(wire)
        wire.logout()
    site.logins(someone, 1)


# -- how many, and for how long ---------------------------------------------------------------------------------------


def test_pool_keep(site: Site, user: NewUser) -> None:
    """Of three that come back one is kept, the others are logged out."""
    someone = user(site.server)
    first = len(site.proxy.connections)
    wires = [site.login(someone) for _ in range(3)]
    site.settled(someone, idle=0, leased=3)
    for wire in wires:
        wire.logout()
    site.settled(someone, idle=1)
    site.proxy.wait(lambda: sum(each.closed for each in site.proxy.connections[first:]) == 2)
    ended = [each.up.data.endswith(b" LOGOUT\r\n") for each in site.proxy.connections[first:]]
    assert sorted(ended) == [False, True, True]
    site.logins(someone, 3)


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
