"""The client's connection: logins, and every way in which it ends; nothing outlives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imapgate.limits import DEFAULTS, Limits
from imapgate.net import journal
from imapgate.net.client import Over
from imapgate.net.journal import Trace
from imapgate.net.upstream import CLOSE_SECONDS
from imapgate.net.valve import Full
from tests.net.sessions import (
    IMPLICIT,
    LOGIN,
    OK,
    UPSTREAM_GREETING,
    Session,
)
from tests.net.wires import bench, drop, logged


def test_failed_login_and_another() -> None:
    """A login that failed is a line in the log; the next one has an attempt of its own."""
    session = Session(limits=Limits(failed_login_delays=())).connected()
    session.says(LOGIN)
    upstream, _ = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    with logged(journal) as lines:
        upstream.dataReceived(b"g1 NO no\r\n")
    assert session.wire.read() == b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n"
    assert lines == [
        'info: login failed: user="alice" address=192.0.2.7 mechanism=LOGIN reason=credentials session=0123456789ab'
    ]
    session.says(LOGIN)
    assert len(session.made.endpoints[0].calls) == 2


def test_relayed_login() -> None:
    """Challenges and answers of a relayed mechanism pass, and the session is nobody's by name."""
    session = Session()
    session.made.upstream.relayed = (b"XOAUTH2",)
    session.connected()
    session.says(b"a AUTHENTICATE XOAUTH2\r\n")
    upstream, wire = session.made.endpoints[0].opens(UPSTREAM_GREETING.replace(b"PLAIN", b"XOAUTH2"))
    wire.clear()
    upstream.dataReceived(b"+ Y2hhbGxlbmdl\r\n")
    assert session.wire.read() == b"+ Y2hhbGxlbmdl\r\n"
    session.says(b"YW5zd2Vy\r\n")
    assert wire.read() == b"YW5zd2Vy\r\n"
    upstream.dataReceived(OK)
    assert session.wire.read().startswith(b"a OK ")
    assert "user=- " in session.lost()[0]
    assert not session.made.gate.census._users


def test_users_are_counted() -> None:
    """A user that has logged in is counted until it goes; a second connection too many is refused."""
    limits = Limits(connections_per_user_address=1)
    first = Session(limits=limits).logged_in()
    second = Session(made=first.made).connected()
    second.says(LOGIN)
    first.made.endpoints[0].opens(UPSTREAM_GREETING)[0].dataReceived(OK)
    assert second.wire.read().startswith(b"a NO [LIMIT] ")
    second.lost()
    first.lost()
    Session(made=first.made).logged_in()


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_trace(tmp_path: Path, user: str) -> None:
    """The session of the user that is to be traced is, and no other."""
    made = bench()
    trace = Trace(user, tmp_path / "trace", 60.0, made.clock)
    session = Session(trace=trace).logged_in()
    session.says(b"b NOOP\r\n")
    trace.close()
    assert (tmp_path / "trace").exists() is (user == "alice")


# --- ends -------------------------------------------------------------------------------------------


def test_login_deadline() -> None:
    """A41: the time to log in is absolute: octets that trickle in do not extend it."""
    session = Session().connected()
    for _ in range(6):
        assert session.wire.open
        session.says(b"x")
        session.clock.advance(DEFAULTS.login_time / 6)
    assert not session.wire.open
    assert b"* BYE " in session.wire.read()
    session.clock.advance(CLOSE_SECONDS)
    assert session.wire.disconnected
    assert session.reason() == "login timed out"
    assert not session.clock.getDelayedCalls()


def test_f3_upstream_is_lost() -> None:
    """At a line's start a client hears that its upstream has gone, and is closed."""
    session = Session().logged_in()
    drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b"* BYE [UNAVAILABLE] The mail server closed the connection\r\n"
    assert not session.wire.open
    assert session.reason() == "upstream lost"
    assert not session.clock.getDelayedCalls()


def test_f3_upstream_is_lost_in_a_literal() -> None:
    """In the middle of a response the client is cut off at once: nothing is added."""
    session = Session().logged_in()
    session.says(b"b SELECT x\r\n")
    session.upstream.dataReceived(b"* 1 FETCH (BODY[] {10}\r\nabc")
    session.wire.clear()
    drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b""
    assert session.wire.disconnected


def test_client_is_lost() -> None:
    """When the client goes its upstream is closed, in bounded time, and nobody is told anything more."""
    session = Session().logged_in()
    session.wire.clear()
    session.lost()
    assert not session.upstream_wire.open
    session.upstream.dataReceived(b"* 1 EXISTS\r\n")
    session.clock.advance(CLOSE_SECONDS)
    assert session.upstream_wire.disconnected
    drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b""
    assert not session.clock.getDelayedCalls()
    assert session.gone == [session.protocol]


def test_f7_half_close() -> None:
    """A command that a half-close follows is answered; then the gate closes, too."""
    session = Session().logged_in()
    session.says(b"b NOOP\r\n")
    session.protocol.readConnectionLost()
    session.protocol.readConnectionLost()
    assert session.protocol._valve.reasons == (Over.HALF_CLOSED,)
    assert session.wire.open
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert session.wire.read() == b"b OK done\r\n"
    assert not session.wire.open
    assert session.reason() == "client closed"


def test_f7_half_close_takes_a_bounded_time() -> None:
    """An answer that does not come is not waited for longer than the limit says."""
    session = Session().logged_in()
    session.says(b"b NOOP\r\n")
    session.protocol.readConnectionLost()
    session.clock.advance(DEFAULTS.half_close)
    assert session.wire.disconnected


def test_f16_stop() -> None:
    """A session that is stopped says so, and closes both sides."""
    session = Session().logged_in()
    session.protocol.stop(b"[UNAVAILABLE] Going down")
    assert session.wire.read() == b"* BYE [UNAVAILABLE] Going down\r\n"
    assert not session.wire.open
    assert not session.upstream_wire.open
    assert session.wire.producer is None  # else Twisted would not close
    assert session.upstream_wire.producer is None
    session.protocol.stop(b"again")
    assert session.wire.read() == b""
    assert session.reason() == "stopped"


Step = Callable[[Session], None]


def _greets(session: Session) -> None:
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)


STEPS: list[Step] = [
    lambda session: None,
    lambda session: session.protocol.handshakeCompleted(),
    lambda session: session.protocol.dataReceived(LOGIN),
    _greets,
    lambda session: session.upstream.dataReceived(OK),
    lambda session: session.protocol.dataReceived(b"b NOOP\r\n"),
]


@pytest.mark.parametrize("steps", range(1, len(STEPS) + 1))
@pytest.mark.parametrize("stopped", [False, True])
def test_a51_lost_at_every_step(steps: int, stopped: bool) -> None:
    """Wherever a client goes, stopped before or not, what still comes later does nothing, and nothing is left."""
    session = Session(IMPLICIT, Limits(connections_per_user_address=1)).connected()
    for step in STEPS[:steps]:
        step(session)
    if stopped:
        session.protocol.stop(b"Going down")
    session.lost()
    assert session.gone == [session.protocol]
    session.wire.clear()
    session.protocol.upstream_received(b"* 1 EXISTS\r\n")
    session.protocol.dataReceived(b"c NOOP\r\n")
    session.protocol.stop(b"Going down")
    if hasattr(session, "upstream"):
        assert not session.upstream_wire.open
        session.upstream.dataReceived(b"g2 OK done\r\n")
        drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b""
    assert not session.clock.getDelayedCalls()
    assert session.made.gate.census.log_in("192.0.2.7", b"alice")
    assert Full.CLIENT not in session.protocol._valve.reasons
