"""The gate drains, stops, and hands over: at command boundaries, in bounded time."""

from __future__ import annotations

import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from imapgate import service as module
from imapgate.config.types import Admin, Auth
from imapgate.limits import Limits
from imapgate.net.handover import HandoverFailed, Taken
from imapgate.service import STOP_SECONDS, GateService
from tests.net.wires import drop, logged
from tests.serving import CONFIGURATION, UPSTREAM, Patron, Reactor, Running, contained

BYE = b"* BYE [UNAVAILABLE] The mail gateway is shutting down\r\n"
KEPT = attrs.evolve(CONFIGURATION, auth=Auth(credential_cache=60.0))


@pytest.fixture(autouse=True)
def nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither signals nor the process's limits nor sockets are touched."""
    with contained(monkeypatch):
        yield


def busy(running: Running) -> Patron:
    """A client with a command in flight."""
    patron = running.logged_in()
    assert patron.says(b"b NOOP\r\n") == b""
    return patron


# --- draining ---------------------------------------------------------------------------------------


def test_f16_what_is_in_flight_is_answered() -> None:
    """A command in flight gets its answer before the BYE, one that comes later gets none; nobody new comes in."""
    running = Running()
    patron, quiet = busy(running), running.logged_in(b"bob")
    done = running.stops()
    assert running.reactor.listening == {}
    assert quiet.wire.read() == BYE
    assert patron.says(b"c NOOP\r\n") == b""
    running.reactor.advance(5)
    assert patron.wire.read() == b""
    patron.upstream_wire.clear()
    patron.upstream.dataReceived(b"* 3 EXISTS\r\ng2 OK done\r\n")
    assert patron.wire.read() == b"* 3 EXISTS\r\nb OK done\r\n" + BYE
    assert not patron.wire.open
    patron.leaves()
    quiet.leaves()
    running.reactor.pump([0.1, 0.1])
    assert done == [None]


def test_f16_a_command_that_takes_too_long() -> None:
    """What is not answered in the time for draining is given up, and its client is told all the same."""
    running = Running(attrs.evolve(CONFIGURATION, limits=Limits(drain=7)))
    patron = busy(running)
    done = running.stops()
    running.reactor.pump([6.9])
    assert patron.wire.open
    running.reactor.pump([0.2])
    assert patron.wire.read() == BYE
    assert not patron.upstream_wire.open
    assert done == []
    running.reactor.pump([STOP_SECONDS, STOP_SECONDS, 0.1])
    assert done == [None]


def test_f16_a_second_signal_hurries() -> None:
    """The first SIGTERM stops the reactor, once; the second ends what is in flight."""
    running = Running()
    patron = busy(running)
    signal.raise_signal(signal.SIGTERM)
    assert running.reactor.stopped == 0
    running.reactor.advance(0)
    assert running.reactor.stopped == 1
    done = running.stops()
    running.reactor.advance(1)
    assert patron.wire.open
    signal.raise_signal(signal.SIGINT)
    running.reactor.pump([0, 0.1])
    assert patron.wire.read() == BYE
    patron.leaves()
    signal.raise_signal(signal.SIGTERM)
    running.reactor.pump([0, 0.1, 0.1])
    assert done == [None]
    assert running.reactor.stopped == 1


def test_what_is_idle_is_logged_out_at_the_end() -> None:
    """Connections that nobody has are logged out when the gate stops, and waited for a little."""
    running = Running(KEPT)
    patron = running.logged_in()
    patron.says(b"b LOGOUT\r\n")
    drop(patron.protocol, patron.wire)
    patron.upstream.dataReceived(b"g2 OK\r\n")
    patron.upstream_wire.clear()
    done = running.stops()
    assert patron.upstream_wire.read() == b"g3 LOGOUT\r\n"
    running.reactor.advance(0.1)
    assert done == []
    drop(patron.upstream, patron.upstream_wire)
    running.reactor.advance(0.1)
    assert done == [None]


def test_signals_are_what_they_were() -> None:
    """After the stop nothing of the gate's hears a signal, and nothing runs on."""
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    running = Running()
    assert [signal.getsignal(number) for number in numbers] != before
    running.answers_probe()
    assert running.stops() == [None]
    assert [signal.getsignal(number) for number in numbers] == before
    assert not running.reactor.getDelayedCalls()


# --- shutdown ---------------------------------------------------------------------------------------


def test_shut_down() -> None:
    """A shutdown is a signal by another way."""
    running = Running()
    running.service.shut_down(wait=False)
    assert running.reactor.stopped == 1
    assert 1143 in running.reactor.listening
    running.service.shut_down(wait=False)
    assert running.reactor.stopped == 1
    assert running.service._hurry.called


def test_shut_down_waits() -> None:
    """A shutdown that waits lets nobody in, tells nobody, and stops when the last client has gone by itself."""
    running = Running()
    first, second = running.logged_in(), Patron(running)
    running.service.shut_down(wait=True)
    running.reactor.advance(0)
    assert running.reactor.listening == {}
    running.reactor.pump([3600, 0.1])
    assert first.says(b"b NOOP\r\n") == b""
    assert first.upstream_wire.read() == b"g2 NOOP\r\n"
    drop(second.protocol, second.wire)
    running.reactor.advance(0.1)
    assert running.reactor.stopped == 0
    first.leaves()
    running.reactor.advance(0.1)
    assert running.reactor.stopped == 1
    assert not running.service._hurry.called


def test_a_signal_while_a_shutdown_waits() -> None:
    """A signal ends the waiting, but does not hurry what is in flight: it is the first one."""
    running = Running()
    patron = busy(running)
    running.service.shut_down(wait=True)
    running.reactor.advance(0)
    running.service.terminate()
    assert running.reactor.stopped == 1
    done = running.stops()
    running.reactor.pump([0.1] * 10)
    assert patron.wire.open
    assert not running.service._hurry.called
    patron.upstream.dataReceived(b"g2 OK done\r\n")
    assert patron.wire.read() == b"b OK done\r\n" + BYE
    patron.leaves()
    running.reactor.pump([0.1] * 3)
    assert done == [None]


# --- the next process -------------------------------------------------------------------------------


def test_f17_taken_over() -> None:
    """When another process serves, this one ends as by a signal."""
    running = Running()
    running.service._taken_over(4711)
    assert running.reactor.stopped == 1


def test_f17_takeover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that takes over asks the one with the same control socket, and lets it go when it serves itself."""
    asked: list[str] = []
    served: list[object] = []

    def take(path: str, seconds: float) -> Taken:
        asked.append(path)
        return Taken(None, {})

    def serving(taken: Taken, sockets: object) -> None:
        assert (tmp_path / "control").is_socket()
        served.append(sockets)

    monkeypatch.setattr(module, "take", take)
    monkeypatch.setattr(Taken, "serving", serving)
    configuration = attrs.evolve(CONFIGURATION, admin=Admin(tmp_path / "control"))
    reactor = Reactor()
    gate = GateService(reactor, configuration, takeover=True)
    gate.privilegedStartService()
    assert asked == [str(tmp_path / "control.handover")]
    assert served == []
    with logged(module):
        gate.startService()
    assert served == [gate._sockets]
    gate.stopService()
    reactor.pump([0.1] * 5)


def test_no_takeover_where_nobody_wants_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the option, and without a control socket, nobody is asked for sockets."""
    monkeypatch.setattr(module, "take", None)
    configuration = attrs.evolve(CONFIGURATION, admin=Admin(tmp_path / "control"))
    GateService(Reactor(), configuration).privilegedStartService()
    GateService(Reactor(), CONFIGURATION, takeover=True).privilegedStartService()


def test_f17_takeover_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gate that runs does not hand on, the start ends, and says why."""

    def take(path: str, seconds: float) -> Taken:
        raise HandoverFailed("process 4711 is taking over")

    monkeypatch.setattr(module, "take", take)
    gate = GateService(Reactor(), attrs.evolve(CONFIGURATION, admin=Admin(tmp_path / "control")), takeover=True)
    with pytest.raises(SystemExit, match="process 4711 is taking over"):
        gate.privilegedStartService()


@pytest.mark.parametrize("admin", [("control", None), (None, "control-read")])
def test_f17_a_gate_that_cannot_be_operated_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, admin: tuple[str | None, str | None]
) -> None:
    """Where a control socket cannot be had the gate says so and ends, and an earlier gate goes on serving."""
    served: list[object] = []
    monkeypatch.setattr(Taken, "serving", lambda self, sockets: served.append(sockets))
    tmp_path.chmod(0o777)
    paths = [None if name is None else tmp_path / name for name in admin]
    running = Running(attrs.evolve(CONFIGURATION, admin=Admin(*paths)))
    (line,) = running.lines
    assert line.startswith("error: imapgate ends: ")
    assert str(tmp_path) in line
    assert running.reactor.stopped == 1
    assert served == []
    running.answers_probe()
    done = running.stops()
    running.reactor.pump([0.1] * 5)
    assert done == [None]


def test_a47_control_sockets(tmp_path: Path) -> None:
    """The control sockets are there while the gate serves, each for those who may, and no longer."""
    admin = Admin(tmp_path / "control", tmp_path / "control-read")
    running = Running(attrs.evolve(CONFIGURATION, admin=admin))
    running.answers_probe()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir() if path.is_socket()}
    assert modes == {"control": 0o600, "control.handover": 0o600, "control-read": 0o660}
    done = running.stops()
    running.reactor.pump([0.1] * 5)
    assert done == [None]
    assert not [path for path in tmp_path.iterdir() if path.is_socket()]


# --- moving -----------------------------------------------------------------------------------------

TWO = attrs.evolve(CONFIGURATION, upstreams={"store": UPSTREAM, "other": attrs.evolve(UPSTREAM, name="other")})


def test_ended() -> None:
    """Some sessions can be ended at a command boundary, and all others go on."""
    running = Running(attrs.evolve(TWO, limits=Limits(drain=7)))
    mine, other = busy(running), running.logged_in(b"bob")
    done: list[object] = []
    module.Deferred.fromCoroutine(running.service.ended([mine.protocol], b"[UNAVAILABLE] Moved")).addCallback(
        done.append
    )
    running.reactor.advance(1)
    assert done == []
    mine.upstream.dataReceived(b"g2 OK done\r\n")
    assert mine.wire.read() == b"b OK done\r\n* BYE [UNAVAILABLE] Moved\r\n"
    mine.leaves()
    running.reactor.advance(0.1)
    assert done == [None]
    assert other.wire.read() == b""
    assert other.wire.open
