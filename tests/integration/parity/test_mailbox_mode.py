"""The dialogues once more, in mode `mailbox`: no client sees that the connection is given up between mailboxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integration.ctl import ADMIN, stats
from tests.integration.gate import gate_for
from tests.integration.parity.differences import Difference, read
from tests.integration.parity.suite import CASES, HERE, Suite
from tests.integration.servers import Server

SERVERS = [
    "dovecot",
    pytest.param("cyrus", marks=pytest.mark.soak),
    pytest.param("courier", marks=pytest.mark.soak),
]

DIFFERENCES = read(HERE / "mailbox_mode.toml")


class MailboxSuite(Suite):
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
    with gate_for(server, upstream={"pool_mode": "mailbox"}, admin=ADMIN) as gate:
        playing = MailboxSuite(server, gate.host, gate.port)
        try:
            playing.begin([str(chosen["name"]) for chosen in parameters if chosen["suite"] == request.param])
            yield playing
        finally:
            playing.close()
        assert "Traceback" not in gate.log()
        figures = stats(gate)
        # Each command without a mailbox, and each first SELECT, has had its own turn.
        assert figures["upstream_reused"] > figures["clients"]


@pytest.mark.parametrize("name", [case.name for case in CASES])
@pytest.mark.parametrize("suite", SERVERS, indirect=True)
def test_parity(suite: Suite, name: str) -> None:
    """Both transcripts are equal, save for what differences.toml lists."""
    outcome = suite.outcome(name)
    if outcome.applies and not outcome.equal:
        pytest.fail(f"{name}:\n{outcome.unlisted}", pytrace=False)
