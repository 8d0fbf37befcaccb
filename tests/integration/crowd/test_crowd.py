"""Twenty sessions of one user, and others that pass the gate by: each picture is the truth (issue 5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import User
from tests.integration.crowd.crowd import Crowd
from tests.integration.gate import gate_for
from tests.integration.servers import Server

NewUser = Callable[..., User]
SAMPLE, SOAK = 3_000, 50_000
MODES = ["direct", "session"]


def _run(server: Server, user: User, mode: str, commands: int, seed: int, directory: Path) -> Crowd:
    transcript = directory / "transcript"
    if mode == "direct":
        crowd = Crowd(user, server.port, mode=mode, seed=seed)
        crowd.run(commands, transcript)
    else:
        table = {"pool_mode": mode} | ({"pool_size": 40} if mode != "shared" else {})
        with gate_for(server, upstream=table, auth={"credential_cache": "60s"}) as gate:
            crowd = Crowd(user, gate.port, mode=mode, seed=seed)
            crowd.run(commands, transcript)
            assert "Traceback" not in gate.log()
    return crowd


@pytest.mark.parametrize("mode", MODES)
def test_a_crowd(server: Server, user: NewUser, mode: str, tmp_path: Path) -> None:
    """Some thousand commands."""
    crowd = _run(server, user(server), mode, SAMPLE, 1, tmp_path)
    print(server.name, mode, crowd.journal.commands, crowd.checkpoints, crowd.deaths, crowd.done)
