"""Mode `relay`: every login is shown to its upstream; the connection is that one session's, and nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, ctl, pool, stats
from tests.integration.gate import Gate, gate_for
from tests.integration.sasl import FAILED, Scram, authenticate, cram_md5, encoded, given, relaying
from tests.integration.servers import Server, wait_until
from tests.integration.test_login_failures import _login
from tests.integration.wire import Wire, connect

NewUser = Callable[..., User]


class Site(NamedTuple):
    """A server, and the gate before it."""

    server: Server
    gate: Gate


@pytest.fixture(scope="module")
def site(server: Server) -> Iterator[Site]:
    """One gate before each server in turn."""
    with gate_for(server, auth={"mode": "relay"}, admin=ADMIN) as gate:
        yield Site(server, relaying(gate))


def _command(wire: Wire, someone: User) -> bytes:
    return _login(wire, someone.name, someone.password)


def _plain(wire: Wire, someone: User) -> bytes:
    return authenticate(wire, "PLAIN", initial=encoded("", someone.name, someone.password))


def _two_answers(wire: Wire, someone: User) -> bytes:
    return authenticate(wire, "LOGIN", given(encoded(someone.name)), given(encoded(someone.password)))


def _cram(wire: Wire, someone: User) -> bytes:
    return authenticate(wire, "CRAM-MD5", cram_md5(someone.name, someone.password))


LOGINS: dict[str, Callable[[Wire, User], bytes]] = {
    "the LOGIN command": _command,
    "PLAIN": _plain,
    "LOGIN": _two_answers,
    "CRAM-MD5": _cram,
}


@pytest.mark.parametrize("how", LOGINS)
def test_each_session_has_its_own(site: Site, user: NewUser, how: str) -> None:
    """Two sessions, one after the other: pinned, each with a login upstream; its connection goes with it (A31)."""
    someone = user(site.server)
    mechanism = how == "CRAM-MD5"
    for _ in range(2):
        dialled = stats(site.gate)["upstream_dialled"]
        with connect(site.gate.host, site.gate.port) as wire:
            assert LOGINS[how](wire, someone).startswith(b"OK ")
            wire.ok(b"SELECT INBOX")
            (pinned,) = ctl(site.gate, "pins")
            assert pinned["reason"] == ("relayed mechanism" if mechanism else "relayed login")
            wire.logout()
        wait_until(lambda: not ctl(site.gate, "pins"), "the pin to be gone")
        wait_until(lambda: pool(site.gate, "" if mechanism else someone.name)["total"] == 0, "an empty pool")
        after = stats(site.gate)
        assert after["upstream_dialled"] == dialled + 1
        assert not after.get("upstream_reused", 0)
    wait_until(lambda: site.server.login_count(someone.name) == 2, "two logins")


def test_refused(site: Site, user: NewUser) -> None:
    """What upstream says no to fails, and so does a foreign authorisation identity, which upstream never sees."""
    someone, victim = user(site.server), user(site.server)
    wrong = someone._replace(password="wrong")
    for how in LOGINS.values():
        with connect(site.gate.host, site.gate.port) as wire:
            assert how(wire, wrong) == FAILED
            said = encoded(victim.name, someone.name, someone.password)
            assert authenticate(wire, "PLAIN", initial=said) == FAILED
    with connect(site.gate.host, site.gate.port) as wire:
        wire.login(someone.name, someone.password)
        wire.logout()
    wait_until(lambda: site.server.login_count(someone.name) == 1, "the one that was right")
    assert site.server.login_count(victim.name) == 0


def test_upstream_proves_itself(site: Site, user: NewUser) -> None:
    """SCRAM goes through unread where upstream has it: the client is shown that the server knows the password."""
    if site.server.name == "courier":
        return
    someone = user(site.server)
    scram = Scram(someone.name, someone.password)
    with connect(site.gate.host, relaying(site.gate, b"SCRAM-SHA-256").port) as wire:
        answer = authenticate(wire, "SCRAM-SHA-256", scram.final, scram.verify, initial=scram.first())
        assert answer.startswith(b"OK ")
        assert scram.verified
