"""The same dialogue, directly and through the gate, gives the same transcript.

One test for each case and server; a failing one shows both transcripts as a unified diff.  A case about something that
a server lacks is recorded as not applicable (`Outcome.applies`) and counted in `test_every_case_applies_somewhere`.
"""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.parity.conftest import Gates
from tests.integration.parity.suite import CASES, DIFFERENCES, Suite
from tests.integration.servers import Dovecot, Server

SERVER_NAMES = ("dovecot", "cyrus", "courier")
FEWEST_CASES = 120
FEWEST_PAIRS = 800

Suites = Callable[[str], Suite]


def _selected(session: pytest.Session, server_name: str) -> list[str]:
    """The cases that this run is going to ask this server for, so that they are played several at a time."""
    parameters = [
        item.callspec.params
        for item in session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_parity"
    ]
    return [str(chosen["name"]) for chosen in parameters if chosen.get("server_name") == server_name]


@pytest.fixture(scope="session")
def suites(request: pytest.FixtureRequest, start_server: Callable[[str], Server], gates: Gates) -> Iterator[Suites]:
    """Give the suite of a server by its name, with one gate before that server."""
    running: dict[str, Suite] = {}
    with ExitStack() as stack:

        def suite(server_name: str) -> Suite:
            if server_name not in running:
                gate = gates(server_name)
                running[server_name] = Suite(start_server(server_name), gate.host, gate.port)
                stack.callback(running[server_name].close)
                running[server_name].begin(_selected(request.session, server_name))
            return running[server_name]

        yield suite


@pytest.mark.parametrize("server_name", SERVER_NAMES)
@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_parity(suites: Suites, server_name: str, name: str) -> None:
    """Both transcripts are equal, save for what differences.toml lists."""
    outcome = suites(server_name).outcome(name)
    if outcome.applies:
        assert not outcome.timed_out, "the direct dialogue did not go to its end:\n" + "\n".join(outcome.direct)
        if not outcome.equal:
            pytest.fail(f"{name} on {server_name}:\n{outcome.unlisted}", pytrace=False)


def test_there_are_enough_cases() -> None:
    """The suite has at least as many cases as the project asks for."""
    assert len(CASES) >= FEWEST_CASES


def test_every_case_applies_somewhere(suites: Suites) -> None:
    """No case is dead, and the pairs of case and server that are compared stay many."""
    applying = {
        case.name: sum(case.applies(name, suites(name).facts.capabilities) for name in SERVER_NAMES) for case in CASES
    }
    assert [name for name, count in applying.items() if not count] == []
    assert sum(applying.values()) >= FEWEST_PAIRS


def test_no_listed_difference_is_stale(suites: Suites) -> None:
    """Each entry of differences.toml is needed by at least one case on one server."""
    for server_name in SERVER_NAMES:
        suites(server_name).begin([case.name for case in CASES])
    needed: set[int] = set()
    for server_name in SERVER_NAMES:
        for case in CASES:
            needed |= suites(server_name).outcome(case.name).needed
    stale = [entry for entry in DIFFERENCES if entry.number not in needed]
    assert [f"{entry.number}: {entry.reason}" for entry in stale] == []


def test_the_gates_log_holds_no_traceback(suites: Suites, gates: Gates) -> None:
    """No case, on any server, brings about an exception in the gate."""
    for server_name in SERVER_NAMES:
        suites(server_name).begin([case.name for case in CASES])
    for server_name in SERVER_NAMES:
        for case in CASES:
            suites(server_name).outcome(case.name)
        log = gates(server_name).log()
        assert "imapgate" in log
        found = [
            line for line in log.splitlines() if any(word in line for word in ("Traceback", "Unhandled", "critical"))
        ]
        assert found == [], log[-20_000:]


class Relay(socketserver.ThreadingTCPServer):
    """Passes octets on, what the server says changed by `spoil`."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, server: Server, spoil: Callable[[bytes], bytes]) -> None:
        """Listen on a free port of loopback."""
        relay_to = (server.host, server.port)

        class Session(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(relay_to) as upstream:
                    while ready := select.select([self.request, upstream], [], [])[0]:
                        for side in ready:
                            data = side.recv(65536)
                            if not data:
                                return
                            if side is upstream:
                                self.request.sendall(spoil(data))
                            else:
                                upstream.sendall(data)

        super().__init__(("127.0.0.1", 0), Session)


@pytest.mark.parametrize(
    ("spoil", "equal"),
    [
        pytest.param(lambda data: data, True, id="nothing"),
        pytest.param(lambda data: data.replace(b"* 3 EXISTS", b"* 4 EXISTS"), False, id="a-number"),
        pytest.param(lambda data: data.replace(b"* 3 EXISTS\r\n", b""), False, id="a-line-lost"),
        pytest.param(lambda data: data.replace(b"\\Seen", b"\\seen"), False, id="a-flag"),
        pytest.param(lambda data: data.replace(b"Hello Joe", b"Hello Joy"), False, id="a-letter-of-a-message"),
        pytest.param(lambda data: data.replace(b"\r\n* 3 F", b"\r\n* 3 F"[::-1]), False, id="a-line-end"),
        pytest.param(lambda data: data.replace(b"p10 OK", b"p10 NO"), False, id="a-completion"),
        pytest.param(lambda data: data.replace(b"p30 OK", b"p30 OK x\r\np30 OK"), False, id="twice-completed"),
        pytest.param(lambda data: data.replace(b"zz OK", b"* 3 EXISTS\r\nzz OK"), False, id="something-left-behind"),
    ],
)
def test_a_relay_that_errs_is_caught(dovecot: Dovecot, spoil: Callable[[bytes], bytes], equal: bool) -> None:
    """The comparison goes red for one wrong octet, line or completion, and stays green for a faithful relay."""
    with Relay(dovecot, spoil) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        suite = Suite(dovecot, "127.0.0.1", relay.server_address[1])
        try:
            assert suite.outcome("pipelined-thirty").equal is equal
        finally:
            suite.close()
            relay.shutdown()


@pytest.mark.soak
@pytest.mark.parametrize("server_name", SERVER_NAMES)
def test_servers_agree_with_themselves(start_server: Callable[[str], Server], server_name: str) -> None:
    """Played directly twice, each case gives one transcript: only what differs by nature is left out."""
    server = start_server(server_name)
    suite = Suite(server, server.host, server.port)
    try:
        suite.begin([case.name for case in CASES])
        outcomes = {case.name: suite.outcome(case.name) for case in CASES}
    finally:
        suite.close()
    different = [f"{name}:\n{outcome.unlisted}" for name, outcome in outcomes.items() if not outcome.equal]
    assert "\n\n".join(different) == ""
