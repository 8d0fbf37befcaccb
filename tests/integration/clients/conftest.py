"""Fixtures of the client tests: one gate before each server, and accounts behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.clients.account import Account
from tests.integration.conftest import new_user
from tests.integration.gate import Gate, gate_for
from tests.integration.servers import Server, wait_until
from tests.integration.wire import connect

UPSTREAM = {"dovecot": "starttls", "cyrus": "implicit", "courier": "none"}
"""How the gate goes to each server."""


@pytest.fixture(scope="package")
def front(start_server: Callable[[str], Server]) -> Iterator[Callable[[str], Gate]]:
    """Give the gate before a server, by the server's name; one for all client tests."""
    with ExitStack() as stack:
        running: dict[str, Gate] = {}

        def started(name: str) -> Gate:
            if name not in running:
                gate = stack.enter_context(gate_for(start_server(name), UPSTREAM[name]))
                wait_until(lambda: shows_relayed(gate), "the gate to know upstream's mechanisms")
                running[name] = gate
            return running[name]

        yield started


def shows_relayed(gate: Gate) -> bool:
    """Whether the gate has seen what its upstream offers."""
    with connect(gate.host, gate.port) as wire:
        return b"AUTH=CRAM-MD5" in wire.capabilities()


def _account(name: str, front: Callable[[str], Gate], start_server: Callable[[str], Server]) -> Account:
    server, _, tls = name.partition("-")
    return Account(new_user(start_server(server)), front(server), tls)


PLACES = ("dovecot-none", "dovecot-starttls", "dovecot-implicit")


@pytest.fixture(params=(*PLACES, "cyrus-implicit", "courier-none"))
def account(
    request: pytest.FixtureRequest, front: Callable[[str], Gate], start_server: Callable[[str], Server]
) -> Account:
    """A fresh account in front of Dovecot (plain, by STARTTLS, by TLS), and in front of Cyrus and Courier."""
    return _account(request.param, front, start_server)


@pytest.fixture(params=("dovecot-none", "dovecot-implicit", "cyrus-implicit", "courier-none"))
def simple_account(
    request: pytest.FixtureRequest, front: Callable[[str], Gate], start_server: Callable[[str], Server]
) -> Account:
    """The same for a client that does STARTTLS not at all, or just as the others do."""
    return _account(request.param, front, start_server)


@pytest.fixture(params=PLACES)
def dovecot_account(
    request: pytest.FixtureRequest, front: Callable[[str], Gate], start_server: Callable[[str], Server]
) -> Account:
    """A fresh account in front of Dovecot only."""
    return _account(request.param, front, start_server)
