"""A gate whose upstream is a gate: logins that go in a circle end, and soon (A46)."""

from __future__ import annotations

import time
from typing import Any

from tests.integration.gate import Gate
from tests.integration.servers import free_port, wait_until
from tests.integration.test_login_failures import _login
from tests.integration.wire import connect

LOOPBACK = "127.0.0.1"
UNAVAILABLE = b"NO [UNAVAILABLE] "


def _before(port: int, upstream_port: int, **more: Any) -> Gate:
    listener = {"endpoint": f"tcp:{port}:interface={LOOPBACK}"}
    upstream = {"endpoints": [f"tcp:{LOOPBACK}:{upstream_port}"], "tls": "none", **more}
    return Gate({"next": upstream}, listeners=[listener], ports=[port])


def _hops(number: int, *gates: Gate) -> None:
    """Wait until so many logins have failed, and see that these were all, and that none was an accident."""

    def failed() -> int:
        return sum(gate.log().count("login failed: ") for gate in gates)

    wait_until(lambda: failed() >= number, f"{number} failed logins")
    assert failed() == number
    assert not any("Traceback" in gate.log() for gate in gates)


def test_a46_a_gate_before_itself() -> None:
    """An upstream that is the gate's own listener: the login fails at once, at the first hop, and is told (A46)."""
    port = free_port()
    with _before(port, port) as gate:
        for _ in range(3):
            with connect(LOOPBACK, port) as wire:
                began = time.monotonic()
                assert _login(wire, "alice", "secret").startswith(UNAVAILABLE)
                assert time.monotonic() - began < 5
        _hops(6, gate)
        assert gate.log().count("a login goes in a circle") == 3


def test_a46_two_gates_before_each_other() -> None:
    """Two gates that trust each other's ID: the login ends when its hops are used up (A46)."""
    here, there = free_port(), free_port()
    with _before(here, there, id_originating=True) as gate, _before(there, here, id_originating=True) as other:
        with connect(LOOPBACK, here) as wire:
            began = time.monotonic()
            assert _login(wire, "alice", "secret").startswith(UNAVAILABLE)
            assert time.monotonic() - began < 10
        _hops(5, gate, other)
        assert (gate.log() + other.log()).count("a login goes in a circle") == 1


def test_a46_two_gates_that_know_nothing_of_each_other() -> None:
    """Without the ID it is the pool's size that ends the circle (A46)."""
    here, there = free_port(), free_port()
    few = {"pool_size": 3, "pool_wait": "0s"}
    with _before(here, there, **few) as gate, _before(there, here, **few) as other, connect(LOOPBACK, here) as wire:
        assert _login(wire, "alice", "secret").startswith(UNAVAILABLE)
        _hops(7, gate, other)
