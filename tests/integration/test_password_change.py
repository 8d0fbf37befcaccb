"""A password is changed at the server while its owner is at work through the gate (THREATS A34).

Without a credential cache the old one is worth nothing from that moment on; with one, at the latest after the cache's
time, and at once after anything that says otherwise.  Nobody else notices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl, pool
from tests.integration.gate import Gate, gate_for
from tests.integration.servers import Server, wait_until
from tests.integration.wire import Wire, connect, quoted

NewUser = Callable[..., User]
NEW = "another horse"
REFUSED = b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n"
CACHE: dict[str, Any] = {"auth": {"credential_cache": "60s"}, "admin": ADMIN}
MAILBOX: dict[str, Any] = {"upstream": {"pool_mode": "mailbox"}, "admin": ADMIN}
NOT_ACCEPTED = b"* BYE [UNAVAILABLE] The mail server does not accept the login any more\r\n"


def tries(gate: Gate, someone: User, password: str) -> bool:
    """Whether this password lets the user in; where it does not, the client is told the usual line."""
    with connect(gate.host, gate.port) as wire:
        wire.send(b"a LOGIN " + quoted(someone.name) + b" " + quoted(password) + b"\r\n")
        answer = wire.until_tagged(b"a")
        if b"a OK" in answer[-1]:
            wire.ok(b'LIST "" INBOX')
            wire.logout()
            return True
        assert answer == [REFUSED]
        return False


def changed(someone: User) -> User:
    """The user with a new password."""
    someone.server.set_password(someone.name, NEW)
    return someone._replace(password=NEW)


def undisturbed(other: User, working: Wire) -> None:
    """Another user's session goes on, on the connection of its one login."""
    working.ok(b"SELECT INBOX")
    working.ok(b"UNSELECT" if other.server.name != "courier" else b"CLOSE")
    working.ok(b'LIST "" INBOX')
    assert other.server.login_count(other.name) == 1


def idle(gate: Gate, *users: User) -> None:
    """Wait until each of these has one connection in the pool, and no other."""
    for each in users:
        wait_until(
            lambda each=each: (lambda row: row["idle"] == row["total"] == 1)(pool(gate, each.name)), "a pooled one"
        )


def test_a34_by_default_the_old_password_fails_at_once(server: Server, user: NewUser) -> None:
    """Every login is asked upstream: the old password fails, the new one works, sessions that are there go on (A34)."""
    someone, other = user(server), user(server)
    with gate_for(server, admin=ADMIN) as gate:
        assert tries(gate, someone, someone.password)
        mine, others = someone.wire(gate.port), other.wire(gate.port)
        mine.ok(b"SELECT INBOX")
        renewed = changed(someone)
        for _ in range(3):
            assert not tries(gate, someone, someone.password)
            assert tries(gate, someone, renewed.password)
        mine.ok(b"NOOP")
        undisturbed(other, others)
        for wire in (mine, others):
            wire.logout()


@pytest.mark.parametrize(
    ("cache", "learned"),
    [
        ("0s", "the old one failed"),
        ("0s", "the new one was let in"),
        ("0s", "it was told to forget"),
        ("60s", "the new one was let in"),
    ],
)
def test_a34_a_session_of_the_old_password_ends_at_its_next_connection(
    server: Server, user: NewUser, cache: str, learned: str
) -> None:
    """In mode `mailbox` it is logged in anew, with what it was let in by; who has the new password works on (A34)."""
    someone, other = user(server), user(server)
    with gate_for(server, auth={"credential_cache": cache}, **MAILBOX) as gate:
        unbound, bound, others = someone.wire(gate.port), someone.wire(gate.port), other.wire(gate.port)
        bound.ok(b"SELECT INBOX")
        others.ok(b'LIST "" INBOX')
        unbound.ok(b'LIST "" INBOX')
        renewed = changed(someone)
        fresh: Wire | None = None
        if learned == "the old one failed":
            assert not tries(gate, someone, someone.password)
        elif learned == "the new one was let in":
            fresh = renewed.wire(gate.port)
        else:
            assert ctl(gate, "forget", someone.name) == [{"user": someone.name, "forgotten": "yes"}]
        unbound.send(b'l LIST "" INBOX\r\n')
        assert unbound.eof() == NOT_ACCEPTED
        bound.ok(b"NOOP")  # it has its mailbox, as in mode `session`
        bound.ok(b"CLOSE")
        bound.send(b's STATUS INBOX (MESSAGES)\r\nt LIST "" INBOX\r\n')
        assert bound.eof() == NOT_ACCEPTED
        for wire in (fresh, renewed.wire(gate.port)):
            if wire is not None:
                wire.ok(b"SELECT INBOX")
                wire.ok(b"CLOSE")
                wire.ok(b'LIST "" INBOX')
                wire.logout()
        undisturbed(other, others)
        others.logout()


def test_a34_the_old_password_outlives_the_change_by_the_caches_time_at_most(server: Server, user: NewUser) -> None:
    """It may be let in by the cache, which does not make it last longer; then it fails, and goes on failing (A34)."""
    someone, other = user(server), user(server)
    with gate_for(server, auth={"credential_cache": "1s"}, admin=ADMIN) as gate:
        others = other.wire(gate.port)
        assert tries(gate, someone, someone.password)
        renewed = changed(someone)
        wait_until(lambda: not tries(gate, someone, someone.password), "the old password to fail")
        for _ in range(3):
            assert not tries(gate, someone, someone.password)
        assert tries(gate, someone, renewed.password)
        undisturbed(other, others)
        others.logout()


@pytest.mark.parametrize("learned", ["a login failed", "the new one was let in", "it was told to forget"])
def test_a34_the_cache_forgets_at_once(server: Server, user: NewUser, learned: str) -> None:
    """Whatever casts doubt on the cached password ends it: it has to be verified, and no connection of it is lent."""
    someone, other = user(server), user(server)
    with gate_for(server, **CACHE) as gate:
        assert tries(gate, someone, someone.password)
        assert tries(gate, other, other.password)
        idle(gate, someone, other)
        renewed = changed(someone)
        assert tries(gate, someone, someone.password)  # what the cache costs
        assert server.login_count(someone.name) == 1
        idle(gate, someone)
        if learned == "a login failed":
            assert not tries(gate, someone, "neither of the two")
        elif learned == "the new one was let in":
            assert tries(gate, renewed, renewed.password)
        else:
            ctl(gate, "forget", someone.name)
        for _ in range(2):
            assert not tries(gate, someone, someone.password)
        wait_until(lambda: not pool(gate, someone.name)["total"], "no connection of the old password")
        assert tries(gate, renewed, renewed.password)
        idle(gate, someone, other)
        assert tries(gate, other, other.password)
        assert server.login_count(other.name) == 1
