"""The dialogues once more, in mode `shared`: a session is told what a connection of its own would have told it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.integration.gate import gate_for
from tests.integration.parity.dialogue import Case
from tests.integration.parity.differences import Comparison, compare, read
from tests.integration.parity.normal import lines
from tests.integration.parity.pictures import pictured
from tests.integration.parity.suite import CASES, HERE, Played, Suite
from tests.integration.servers import Server

SERVERS = [
    "dovecot",
    pytest.param("cyrus", marks=pytest.mark.soak),
    pytest.param("courier", marks=pytest.mark.soak),
]

DIFFERENCES = read(HERE / "shared_mode.toml")
TELL_AT_NOOP = {"courier"}
"""Who tells of what others did at NOOP and CHECK alone; the gate does so with the first command that may carry it."""
ECHO_SILENT_STORES = {"cyrus"}
"""Who tells what a silent STORE has done; the gate says nothing, as was asked for."""


class SharedSuite(Suite):
    """As the suite; where the octets differ, what a client knows by them is compared."""

    def compared(self, case: Case, direct: Played, gate: Played) -> Comparison:
        """The transcripts as they are, or else as pictures; what is needed are entries of this mode."""
        found = super().compared(case, direct, gate)
        if found.equal or case.anytime:
            return replace(found, needed=frozenset())
        in_order = replace(case, unordered=False)
        sides = compare(lines(*direct, in_order), lines(*gate, in_order), super().differences(case.name))
        late, echoes = self.server.name in TELL_AT_NOOP, self.server.name in ECHO_SILENT_STORES
        own = [entry for entry in DIFFERENCES if entry.concerns(case.name, self.server.name)]
        told, other = (pictured(side, late=late, echoes=echoes) for side in (sides.direct, sides.gate))
        return compare(told, other, own)


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
            names = [
                str(chosen["name"]) for chosen in parameters if chosen["suite"] == request.param and "name" in chosen
            ]
            playing.begin(names)
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


@pytest.mark.parametrize("suite", SERVERS, indirect=True)
def test_no_listed_difference_is_stale(suite: Suite) -> None:
    """Each entry of shared_mode.toml is needed on each server that it is about."""
    applying = [case.name for case in CASES if case.applies(suite.server.name, suite.facts.capabilities)]
    here = [entry for entry in DIFFERENCES if any(entry.concerns(name, suite.server.name) for name in applying)]
    suite.begin(applying)
    needed = {number for name in applying for number in suite.outcome(name).needed}
    assert [f"{entry.number}: {entry.reason}" for entry in here if entry.number not in needed] == []
