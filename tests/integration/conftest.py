"""Fixtures of the integration tests: each real server is started at most once in a run, and only when a test asks."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.servers import SERVERS, CertificateAuthority, Courier, Cyrus, Dovecot, Server
from tests.integration.wire import Wire, connect, tls_context

_numbers = itertools.count(1)


class User(NamedTuple):
    """An account with an empty INBOX on a running server."""

    server: Server
    name: str
    password: str

    def wire(self, port: int | None = None, *, tls: bool = False) -> Wire:
        """A logged-in connection: directly to the server, or to `port` (a gate's) of this machine."""
        where = port or (self.server.tls_port if tls else self.server.port)
        wire = connect(self.server.host, where, tls_context(self.server.certificate) if tls else None)
        wire.login(self.name, self.password)
        return wire


def new_user(server: Server, name: str | None = None, password: str = "correct horse") -> User:
    """Add a user that no other test has."""
    name = name or f"u{os.getpid()}x{next(_numbers)}"
    server.add_user(name, password)
    return User(server, name, password)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """One certificate authority for the whole run."""
    directory: Path = tmp_path_factory.mktemp("authority")
    return CertificateAuthority(directory)


@pytest.fixture(scope="session")
def start_server(authority: CertificateAuthority) -> Iterator[Callable[[str], Server]]:
    """Give a server by name, started at its first use and stopped at the end of the run."""
    running: dict[str, Server] = {}

    def started(name: str) -> Server:
        if name not in running:
            server = SERVERS[name](authority)
            server.start()
            running[name] = server
        return running[name]

    yield started
    for server in running.values():
        server.stop()
        server.remove()


@pytest.fixture(scope="session")
def dovecot(start_server: Callable[[str], Server]) -> Dovecot:
    """The run's Dovecot."""
    server = start_server("dovecot")
    assert isinstance(server, Dovecot)
    return server


@pytest.fixture(scope="session")
def other_dovecot(authority: CertificateAuthority) -> Iterator[Dovecot]:
    """A second Dovecot, with other users and other mail, and with a master user."""
    with Dovecot(authority, masters={"gate": "master's password"}) as server:
        yield server


@pytest.fixture(scope="session")
def cyrus(start_server: Callable[[str], Server]) -> Cyrus:
    """The run's Cyrus."""
    server = start_server("cyrus")
    assert isinstance(server, Cyrus)
    return server


@pytest.fixture(scope="session")
def courier(start_server: Callable[[str], Server]) -> Courier:
    """The run's Courier."""
    server = start_server("courier")
    assert isinstance(server, Courier)
    return server


@pytest.fixture(scope="session", params=sorted(SERVERS))
def server(request: pytest.FixtureRequest, start_server: Callable[[str], Server]) -> Server:
    """Each of the servers in turn."""
    return start_server(request.param)


@pytest.fixture
def user() -> Callable[..., User]:
    """Make users: `user(server)` gives a fresh one with an empty INBOX; `user(server, name=…, password=…)`."""
    return new_user
