"""Mode `session` with a credential cache: what a later login of the same user is given, and what it is never given.

Each test on all three servers has users of its own; how often they logged in is counted by the server's log, what
went upstream by the octets that a proxy between gate and server has seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl, pool, stats
from tests.integration.faults import FaultProxy
from tests.integration.gate import Gate, gate_for
from tests.integration.servers import Server, wait_until
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


# -- how many are kept -----------------------------------------------------------------------------------------------


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
