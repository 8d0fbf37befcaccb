"""IDLE for longer than a server allows: it is begun anew upstream, and the client does not notice (F12)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest

from tests.integration.conftest import User
from tests.integration.faults import FaultProxy
from tests.integration.gate import upstream_of
from tests.integration.hurried import HurriedGate
from tests.integration.servers import Server
from tests.integration.wire import Wire

NewUser = Callable[..., User]

PLUS, OK = re.compile(rb"(?m)^\+ "), re.compile(rb"(?m)^[^ *]+ OK ")
REFRESH = "imapgate.session.uplink.IDLE_REFRESH"


@pytest.fixture(params=["dovecot", "cyrus"])
def idling_server(request: pytest.FixtureRequest, start_server: Callable[[str], Server]) -> Server:
    """Each server that has IDLE."""
    return start_server(request.param)


@contextmanager
def refreshing(server: Server, seconds: float, mode: str) -> Iterator[tuple[HurriedGate, FaultProxy]]:
    """A gate that refreshes IDLE after so many seconds, and the way to its server, which keeps what passes."""
    with FaultProxy((server.host, server.port), keep=True) as proxy:
        table = upstream_of(server, endpoints=[f"tcp:127.0.0.1:{proxy.port}"], pool_mode=mode)
        with HurriedGate({REFRESH: seconds}, {"main": table}, authority=server.authority) as gate:
            yield gate, proxy


def _said(proxy: FaultProxy, what: bytes) -> int:
    return sum(connection.up.data.count(what) for connection in proxy.connections)


def _append(wire: Wire, number: int) -> None:
    answer = wire.command_with_literals(b"APPEND INBOX", b"Subject: %d\r\n\r\nx\r\n" % number)[-1]
    assert b" OK" in answer, answer


@pytest.mark.parametrize("mode", ["session", "mailbox"])
def test_f12_idle_is_refreshed(idling_server: Server, user: NewUser, mode: str) -> None:
    """Five times IDLE is begun anew: each of five new messages is told once, and nothing else; one DONE, one OK."""
    someone = user(idling_server)
    with refreshing(idling_server, 0.2, mode) as (gate, proxy), someone.wire() as direct:
        with someone.wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
            before = len(wire.transcript)
            wire.send(b"i IDLE\r\n")
            wire.expect_continuation()
            for number in range(1, 6):
                proxy.wait(lambda number=number: _said(proxy, b" IDLE\r\n") > number)  # type: ignore[misc]
                _append(direct, number)
                while b"* %d EXISTS" % number not in wire.response():
                    pass
            wire.send(b"DONE\r\n")
            seen = wire.until_tagged(b"i")
            assert seen[-1].startswith(b"i OK")
            told = bytes(wire.transcript[before:])
            assert [told.count(b"* %d EXISTS\r\n" % number) for number in range(1, 6)] == [1] * 5
            assert len(PLUS.findall(told)) == 1
            assert len(OK.findall(told)) == 1
            wire.ok(b"NOOP")
            wire.logout()
        assert _said(proxy, b" IDLE\r\n") == _said(proxy, b"DONE\r\n") >= 6
        assert "Traceback" not in gate.log()


def test_f12_done_at_any_moment(idling_server: Server, user: NewUser) -> None:
    """IDLE is begun anew all the time, and DONE comes whenever it does: 60 of 60 are answered by one + and one OK."""
    someone = user(idling_server)
    random = Random(12)
    with refreshing(idling_server, 0.01, "session") as (gate, proxy), someone.wire(gate.port) as wire:
        wire.ok(b"SELECT INBOX")
        for number in range(60):
            before = len(wire.transcript)
            wire.send(b"i%d IDLE\r\n" % number)
            wire.expect_continuation()
            time.sleep(random.random() * 0.05)  # anywhere in a refresh, or between two
            wire.send(b"DONE\r\n" + (b"n%d NOOP\r\n" % number if number % 2 else b""))
            assert wire.until_tagged(b"i%d" % number)[-1].startswith(b"i%d OK" % number)
            if number % 2:
                assert wire.until_tagged(b"n%d" % number)[-1].startswith(b"n%d OK" % number)
            assert len(PLUS.findall(wire.transcript[before:])) == 1
        assert _said(proxy, b" IDLE\r\n") == _said(proxy, b"DONE\r\n") > 100
        assert "Traceback" not in gate.log()
