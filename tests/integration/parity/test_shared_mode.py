"""The dialogues once more, in mode `shared`: what a session is told out of a channel is what its own connection would have told it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integration.gate import gate_for
from tests.integration.parity.differences import Difference, read
from tests.integration.parity.suite import CASES, HERE, Suite
from tests.integration.servers import Server

SERVERS = [
    "dovecot",
    pytest.param("cyrus", marks=pytest.mark.soak),
    pytest.param("courier", marks=pytest.mark.soak),
]

DIFFERENCES = read(HERE / "shared_mode.toml")


class SharedSuite(Suite):
    """As the suite, with a few more differences."""

    def differences(self, name: str) -> list[Difference]:
        """Those of this mode are behind those of every mode."""
        own = [entry for entry in DIFFERENCES if entry.concerns(name, self.server.name)]
        return [*super().differences(name), *own]


@pytest.fixture(scope="module")
def suite(request: pytest.FixtureRequest, start_server: Callable[[str], Server]) -> Iterator[Suite]:
    """The cases that this run asks for, begun, before one gate."""
    server = start_server(request.param)
    parameters = [
        item.callspec.params
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec")
    ]
    with gate_for(server, upstream={"pool_mode": "shared"}) as gate:
        playing = SharedSuite(server, gate.host, gate.port)
        try:
            playing.begin([str(chosen["name"]) for chosen in parameters if chosen["suite"] == request.param])
            yield playing
        finally:
            playing.close()
        assert "Traceback" not in gate.log()


@pytest.mark.parametrize("name", [case.name for case in CASES])
@pytest.mark.parametrize("suite", SERVERS, indirect=True)
def test_parity(suite: Suite, name: str) -> None:
    """Both transcripts are equal, save for what differences.toml lists."""
    outcome = suite.outcome(name)
    if outcome.applies and not outcome.equal:
        pytest.fail(f"{name}:\n{outcome.unlisted}", pytrace=False)
