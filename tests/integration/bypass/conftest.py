"""Fixtures of the bypass suite: before each server a gate with the plugins, and one without any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.integration.bypass import mail
from tests.integration.bypass.attempts import Attempts
from tests.integration.gate import gate_for
from tests.integration.servers import Server

PLUGINS = [
    {"use": "readonly", "level": "none", "users": ["readonly.*"]},
    {"use": "readonly", "name": "organise", "level": "organise", "users": ["organise.*"]},
    {"use": "folder_acl", "users": ["folder_acl.*"], "rules": [{"folders": mail.PATTERNS, "access": "none"}]},
]
"""The users' names begin with what their dialogues try."""
EXTRA_VERBS = ["NOTIFY", "RLIST", "RLSUB", "XMOVE", "URLFETCH", "GENURLAUTH"]
"""What an operator might let pass, and one of the servers does."""

AttemptsOn = Callable[[str], Attempts]


@contextmanager
def _attempts(start_server: Callable[[str], Server], **tables: Any) -> Iterator[AttemptsOn]:
    running: dict[str, Attempts] = {}
    with ExitStack() as stack:

        def on(server_name: str) -> Attempts:
            if server_name not in running:
                server = start_server(server_name)
                gate = stack.enter_context(gate_for(server, extra_verbs=EXTRA_VERBS, **tables))
                running[server_name] = Attempts(server, gate)
                stack.callback(running[server_name].close)
            return running[server_name]

        yield on


@pytest.fixture(scope="session")
def guarded(start_server: Callable[[str], Server]) -> Iterator[AttemptsOn]:
    """Give the attempts on a server, by its name, through a gate with the plugins."""
    with _attempts(start_server, plugin=PLUGINS) as on:
        yield on


@pytest.fixture(scope="session")
def unguarded(start_server: Callable[[str], Server]) -> Iterator[AttemptsOn]:
    """Give the attempts on a server, by its name, through a gate without plugins."""
    with _attempts(start_server) as on:
        yield on
