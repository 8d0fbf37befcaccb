"""Fixtures of the bypass suite: before each server a gate with the plugins, and one without any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.integration.bypass import mail
from tests.integration.bypass.attempts import Attempts
from tests.integration.bypass.table import SERVERS, Dialogue
from tests.integration.gate import gate_for
from tests.integration.servers import Server

PLUGINS = [
    {"use": "readonly", "level": "none", "users": ["readonly*"]},
    {"use": "readonly", "name": "organise", "level": "organise", "users": ["organise*"]},
    {"use": "folder_acl", "users": ["folder_acl*"], "rules": [{"folders": mail.PATTERNS, "access": "none"}]},
]
"""The users' names begin with what their dialogues try."""
EXTRA_VERBS = ["NOTIFY", "RLIST", "RLSUB", "XMOVE", "URLFETCH", "GENURLAUTH"]
"""What an operator might let pass, and one of the servers does."""

AttemptsOn = Callable[[str], Attempts]


@contextmanager
def _attempts(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server], fixture: str, **tables: Any
) -> Iterator[AttemptsOn]:
    """Attempts on each server through a gate of its own; what this run asks of them is begun at once."""
    chosen: dict[str, list[Dialogue]] = {name: [] for name in SERVERS}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and fixture in item.fixturenames:
            match item.callspec.params:
                case {"server_name": str(server_name), "dialogue": Dialogue() as dialogue}:
                    chosen[server_name].append(dialogue)
    running: dict[str, Attempts] = {}
    with ExitStack() as stack:

        def on(server_name: str) -> Attempts:
            if server_name not in running:
                server = start_server(server_name)
                gate = stack.enter_context(gate_for(server, extra_verbs=EXTRA_VERBS, **tables))
                running[server_name] = Attempts(server, gate)
                stack.callback(running[server_name].close)
                running[server_name].begin(chosen[server_name])
            return running[server_name]

        yield on


@pytest.fixture(scope="session")
def guarded(request: pytest.FixtureRequest, start_server: Callable[[str], Server]) -> Iterator[AttemptsOn]:
    """Give the attempts on a server, by its name, through a gate with the plugins."""
    with _attempts(request, start_server, "guarded", plugin=PLUGINS) as on:
        yield on


@pytest.fixture(scope="session")
def unguarded(request: pytest.FixtureRequest, start_server: Callable[[str], Server]) -> Iterator[AttemptsOn]:
    """Give the attempts on a server, by its name, through a gate without plugins."""
    with _attempts(request, start_server, "unguarded") as on:
        yield on
