"""How many connections there are, from where and of whom."""

from __future__ import annotations

import pytest

from imapgate.limits import Limits
from imapgate.net.census import Census

LIMITS = Limits(connections_per_address=2, connections_per_user_address=2)


def test_f18_clients_in_all() -> None:
    """One more client than there is room for does not come in, from wherever it is."""
    census = Census(LIMITS, 2)
    assert census.enter("192.0.2.1")
    assert census.enter(None)
    assert not census.enter("192.0.2.2")
    assert not census.enter(None)
    assert census.clients == 2
    census.leave(None)
    assert census.enter("192.0.2.2")


def test_clients_of_an_address() -> None:
    """An address has so many connections and no more; a Unix socket has no address."""
    census = Census(LIMITS, 100)
    assert [census.enter("192.0.2.1") for _ in range(4)] == [True, True, False, False]
    assert census.enter("192.0.2.2")
    assert [census.enter(None) for _ in range(5)] == [True] * 5
    assert census.clients == 8
    census.leave("192.0.2.1")
    assert [census.enter("192.0.2.1") for _ in range(2)] == [True, False]


def test_connections_of_a_user() -> None:
    """A user has so many connections from one address, each user and each address apart."""
    census = Census(LIMITS, 100)
    assert [census.log_in("192.0.2.1", b"alice") for _ in range(3)] == [True, True, False]
    assert census.log_in("192.0.2.2", b"alice")
    assert census.log_in("192.0.2.1", b"Alice")
    census.log_out("192.0.2.1", b"alice")
    assert [census.log_in("192.0.2.1", b"alice") for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("address", "user"), [(None, b"alice"), ("192.0.2.1", b"")])
def test_who_is_not_counted(address: str | None, user: bytes) -> None:
    """Who comes by a Unix socket, or whose name SASL hides, is counted only as a client."""
    census = Census(LIMITS, 100)
    assert [census.log_in(address, user) for _ in range(5)] == [True] * 5
    census.log_out(address, user)
    assert not census._users


def test_every_table_empties() -> None:
    """When everybody has gone nothing is kept of anybody."""
    census = Census(LIMITS, 100)
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", None):
        assert census.enter(address)
        assert census.log_in(address, b"alice")
    census.enter("192.0.2.1")
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", None):
        census.log_out(address, b"alice")
        census.leave(address)
    assert census.clients == 0
    assert not census._addresses
    assert not census._users


def test_configure() -> None:
    """A reload changes how many may come in from now on; those who are there stay, and are counted."""
    census = Census(LIMITS, 100)
    for _ in range(2):
        census.enter("192.0.2.1")
        census.log_in("192.0.2.1", b"alice")
    census.configure(Limits(connections_per_address=3, connections_per_user_address=3), 4)
    assert [census.enter("192.0.2.1") for _ in range(2)] == [True, False]
    assert [census.log_in("192.0.2.1", b"alice") for _ in range(2)] == [True, False]
    assert [census.enter(None) for _ in range(2)] == [True, False]
    census.configure(LIMITS, 1)
    assert census.clients == 4
    assert not census.enter(None)
