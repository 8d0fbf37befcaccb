"""Fixtures of the parity suite: one gate before each server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.gate import Gate, gate_for
from tests.integration.servers import Server

Gates = Callable[[str], Gate]


@pytest.fixture(scope="session")
def gates(start_server: Callable[[str], Server]) -> Iterator[Gates]:
    """Give the gate before a server, by the server's name; started at its first use."""
    running: dict[str, Gate] = {}
    with ExitStack() as stack:

        def gate(server_name: str) -> Gate:
            if server_name not in running:
                running[server_name] = stack.enter_context(gate_for(start_server(server_name)))
            return running[server_name]

        yield gate
