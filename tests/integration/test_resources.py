"""Descriptors that run out (F18), and a wall clock that cannot be trusted (F20)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.integration.conftest import User
from tests.integration.gate import Gate, upstream_of
from tests.integration.hurried import JUMPS, HurriedGate
from tests.integration.servers import Dovecot, wait_until
from tests.integration.wire import connect, tls_context

NewUser = Callable[..., User]

DESCRIPTORS = 128
ROOM = (DESCRIPTORS - 64) // 2
"""For clients that have an upstream connection each."""


class Confined(Gate):
    """A gate that may have few descriptors."""

    def command(self) -> list[str]:
        """The command line: by way of a shell, which sets the limit."""
        return ["bash", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "bash", *super().command()]


def test_f18_out_of_descriptors(dovecot: Dovecot, user: NewUser) -> None:
    """Room for 32: 32 of 32 log in and work; 200 more are told BYE [LIMIT] and closed; who leaves makes room."""
    someone = user(dovecot)
    with Confined({"main": upstream_of(dovecot, pool_size=ROOM)}, authority=dovecot.authority) as gate:
        with ExitStack() as stack:
            wires = [stack.enter_context(someone.wire(gate.port)) for _ in range(ROOM)]
            for _ in range(200):
                with connect(gate.host, gate.port, greeting=False) as wire:
                    assert wire.eof().startswith(b"* BYE [LIMIT] ")
            with connect(gate.host, gate.tls_port, greeting=False) as wire:  # where TLS stands between
                assert wire.eof() == b""
            for wire in wires:
                wire.ok(b"SELECT INBOX")
            used = gate.cpu_seconds()
            assert wires[0].quiet(0.5)
            assert gate.cpu_seconds() - used < 0.3, "it spins"
            for _ in range(5):  # who leaves makes room for one, and for one only
                wires.pop().logout()
                gate_has_room(gate)
                wires.append(stack.enter_context(someone.wire(gate.port)))
                with connect(gate.host, gate.port, greeting=False) as wire:
                    assert wire.eof().startswith(b"* BYE [LIMIT] ")
            for wire in wires:
                wire.ok(b"NOOP")
        log = gate.log()
    assert "Too many open files" not in log
    assert "Traceback" not in log


def gate_has_room(gate: Gate) -> None:
    """Wait until a connection is greeted: whoever left has been counted out."""

    def greeted() -> bool:
        with connect(gate.host, gate.port) as wire:
            return wire.greeting.startswith(b"* OK") and bool(wire.logout())

    wait_until(greeted, "room for one more")


def test_f20_the_wall_clock_jumps(dovecot: Dovecot, user: NewUser) -> None:
    """A wall clock that is a day ahead or behind at every look: no time that matters is any longer, or shorter."""
    users = [user(dovecot) for _ in range(5)]
    limits = {"login_time": "1s", "failed_login_delays": ["300ms"]}
    tables = {"main": upstream_of(dovecot)}
    auth = {"credential_cache": "60s"}
    with HurriedGate({JUMPS: 86400.0}, tables, authority=dovecot.authority, limits=limits, auth=auth) as gate:
        before = [dovecot.login_count(someone.name) for someone in users]
        began = time.monotonic()
        silent = connect(gate.host, gate.port)
        for turn in range(20):
            wire = users[turn % 5].wire(gate.port)
            wire.ok(b"SELECT INBOX")
            wire.ok(b"UNSELECT")
            wire.logout()
        with users[0].wire(gate.port) as wire:
            wire.ok(b"SELECT INBOX")
            assert silent.eof().startswith(b"* BYE ")
            assert time.monotonic() - began >= 0.9  # its time to log in
            silent.close()
            wire.ok(b"NOOP")
        with connect(gate.host, gate.tls_port, tls_context(gate.certificate)) as wire:
            began = time.monotonic()
            assert b" NO " in wire.command(b"LOGIN nobody wrong")[-1]
            assert time.monotonic() - began >= 0.3  # the delay after a failure
        # Cached credentials and pooled connections have lived on: one login upstream for each user.
        wait_until(lambda: [dovecot.login_count(each.name) for each in users] != before, "the log")
        assert [dovecot.login_count(someone.name) for someone in users] == [count + 1 for count in before]
        assert "Traceback" not in gate.log()
