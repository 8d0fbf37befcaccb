"""The client's connection where upstream's is not its own for good: back-pressure, and ends at every step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imapgate.limits import DEFAULTS, Limits
from imapgate.model.pool_mode import PoolMode
from imapgate.net import journal
from tests.net.sessions import (
    LOGIN,
    OK,
    PLAINTEXT,
    UPSTREAM_GREETING,
    Session,
    assert_nobodys,
    mailbox,
    selects,
    unbound,
)
from tests.net.wires import bench, drop, logged

# --- back-pressure ----------------------------------------------------------------------------------


def test_a42_a_full_client_never_holds_the_next_sessions_upstream() -> None:
    """A connection is given back with no hold of its client's upon it, whatever that takes or does not take later."""
    made = bench(mode=PoolMode.MAILBOX, cache=60.0, alone=True)
    first = selects(unbound(made))
    first.says(b"c CLOSE\r\n")
    first.upstream_wire.clear()
    first.wire.fills()
    assert first.upstream_wire.paused
    first.upstream.dataReceived(b"g4 OK done\r\n")
    assert first.upstream_wire.read() == b"g5 NOOP\r\n"
    assert first.upstream_wire.producer is None
    assert not first.upstream_wire.paused
    first.upstream.dataReceived(b"g5 OK done\r\n")
    second = Session(made=made).connected()
    second.upstream, second.upstream_wire = first.upstream, first.upstream_wire
    second.wire.clear()
    second.says(LOGIN)
    assert second.upstream_wire.read() == b"g6 NOOP\r\n"
    second.upstream.dataReceived(b"g6 OK done\r\n")
    selects(second, b"g7")
    first.wire.drains()
    first.wire.fills()
    assert not second.upstream_wire.paused
    second.wire.fills()
    assert second.upstream_wire.paused
    first.wire.drains()
    assert second.upstream_wire.paused
    second.wire.drains()
    assert not second.upstream_wire.paused


def test_a42_a_full_client_that_asks_again() -> None:
    """A client that is still full when it is lent a connection again holds that one, too, until it takes."""
    session = unbound(mailbox())
    session.wire.fills()
    session.protocol.dataReceived(b"s SELECT x\r\n")
    assert session.wire.paused
    assert session.upstream_wire.paused
    session.wire.drains()
    assert not session.upstream_wire.paused
    assert not session.wire.paused


def test_a42_a_full_upstream_holds_its_client_only_while_it_is_the_clients() -> None:
    """When a connection that does not take is given back, its client is heard, and no stall is counted any more."""
    session = unbound(mailbox())
    session.says(b'b LIST "" *\r\n')
    session.upstream_wire.clear()
    session.upstream_wire.fills()
    assert session.wire.paused
    session.upstream.dataReceived(b"g3 OK done\r\n")
    assert_nobodys(session)
    assert session.upstream_wire.read() == b"g4 NOOP\r\n"
    session.upstream.dataReceived(b"g4 OK done\r\n")
    session.clock.advance(DEFAULTS.client_stall)
    assert session.wire.open
    assert session.upstream_wire.open


# --- everywhere -------------------------------------------------------------------------------------


def _opens(session: Session) -> None:
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)


STEPS: list[Callable[[Session], None]] = [
    lambda session: session.protocol.dataReceived(LOGIN),
    _opens,
    lambda session: session.upstream.dataReceived(OK),
    lambda session: session.upstream.dataReceived(b"g2 OK done\r\n"),
    lambda session: session.clock.advance(31),
    lambda session: session.protocol.dataReceived(b"b SELECT x\r\n"),
    lambda session: session.upstream.dataReceived(b"g3 OK done\r\n"),
    lambda session: session.upstream.dataReceived(b"g4 OK done\r\n"),
    lambda session: session.protocol.dataReceived(b"c CLOSE\r\n"),
    lambda session: session.upstream.dataReceived(b"g5 OK done\r\n"),
    lambda session: session.upstream.dataReceived(b"g6 OK done\r\n"),
]


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
@pytest.mark.parametrize("how", ["lost", "stopped", "left"])
def test_a51_ended_at_every_step(steps: int, how: str) -> None:
    """Wherever a session ends, what still comes does nothing, and neither a session nor a connection is left of it."""
    session = Session(PLAINTEXT, made=mailbox(limits=Limits(connections_per_user_address=1))).connected()
    for step in STEPS[:steps]:
        step(session)
    if how == "stopped":
        session.protocol.stop(b"Going down")
    elif how == "left":
        session.protocol.leave(b"Going down")
    with logged(journal):
        drop(session.protocol, session.wire)
    session.wire.clear()
    for step in STEPS[max(steps, 2) :]:
        if hasattr(session, "upstream") or step is _opens:
            step(session)
    session.protocol.stop(b"Going down")
    if hasattr(session, "upstream"):
        session.clock.advance(60)
        assert not session.upstream_wire.open
        drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b""
    assert session.made.pools.book.rows() == []
    assert not session.clock.getDelayedCalls()
    assert session.made.gate.census.log_in("192.0.2.7", b"alice")
