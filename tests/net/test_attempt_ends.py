"""A login that ends early, and probes."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import LogEvent

from imapgate.limits import Limits
from imapgate.model.failure import Failure
from imapgate.model.secret import Secret
from imapgate.net.attempt import Client, Seen, Upstream, probe
from imapgate.net.proxy_protocol import encode_v2
from imapgate.net.upstream import Door
from imapgate.session.effects import Challenge, Failed, Granted
from tests.net.asking import CLIENT, GREETING, LIMITS, OK, RELAYED, Asking
from tests.net.wires import Bench, Endpoint, Wire, bench, drop


@pytest.mark.parametrize("says_so", [True, False])
@pytest.mark.parametrize("step", ["delayed", "connecting", "greeting", "login", "answer held back"])
def test_a51_cancelled(step: str, says_so: bool) -> None:
    """A client that has gone hears nothing more, wherever its login stood: no other door is tried, nothing is left."""
    made = bench(LIMITS, doors=2)
    made.endpoints[0].says_so = says_so
    if step == "delayed":
        made.gate.penalties.failed(0.0, None, "alice")
    asking = Asking(made).start()
    wires: list[tuple[Protocol, Wire]] = []
    if step in ("greeting", "login", "answer held back"):
        wires.append(made.endpoints[0].opens())
    if step in ("login", "answer held back"):
        wires[0][0].dataReceived(GREETING)
    if step == "answer held back":
        wires[0][0].dataReceived(b"g1 NO no\r\n")
        drop(*wires[0])
    asking.attempt.cancel()
    asking.attempt.cancel()
    for protocol, wire in wires:
        assert not wire.open
        assert wire.disconnected or not wire.connected
        protocol.dataReceived(OK)
        drop(protocol, wire)
    made.clock.pump([60] * 10)
    assert asking.answers == []
    assert made.endpoints[0].cancelled == (step == "connecting")
    assert made.endpoints[1].calls == []
    assert made.gate.census.log_in("192.0.2.7", b"alice")
    assert not made.clock.getDelayedCalls()


@pytest.mark.parametrize("says_so", [True, False])
def test_f1_a_door_that_does_not_open_has_timed_out(says_so: bool) -> None:
    """Giving up a door is a time-out, whatever the endpoint calls it."""
    made = bench(Limits(connect_try=5))
    made.endpoints[0].says_so = says_so
    asking = Asking(made).start()
    made.clock.advance(5)
    assert asking.failure is Failure.TIMED_OUT


def test_a51_cancelled_before_it_began() -> None:
    """Cancelling what was not started does nothing."""
    asking = Asking(bench(LIMITS))
    asking.attempt.cancel()
    assert asking.answers == []


def test_a51_lost_after_the_answer() -> None:
    """What a server still says, and its end, after its NO are nobody's concern."""
    made = bench(Limits(failed_login_delays=()))
    asking = Asking(made).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    protocol.dataReceived(b"g1 NO no\r\n* BYE\r\n")
    protocol.dataReceived(OK)
    drop(protocol, wire)
    assert asking.failure is Failure.CREDENTIALS


def test_a51_an_answer_to_a_challenge_that_is_too_late() -> None:
    """A client that cancels when the time was up already has its answer, and gets no second one."""
    made = bench(LIMITS)
    asking = Asking(made, RELAYED).start()
    protocol, _ = made.endpoints[0].opens(GREETING)
    protocol.dataReceived(b"+ x\r\n")
    made.clock.advance(60)
    asking.attempt.respond(Secret(b"*"))
    assert asking.answers == [Challenge(b"x"), Failed(Failure.TIMED_OUT)]


def test_unexpected_errors_are_contained(critical_events: list[LogEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in an attempt is logged with its traceback, and the client gets an answer all the same."""
    made = bench(LIMITS)

    def broken(*args: object) -> float:
        raise RuntimeError("a bug")

    monkeypatch.setattr(made.gate.penalties, "admit", broken)
    asking = Asking(made).start()
    assert asking.failure is Failure.LOST
    assert [event["log_failure"].getErrorMessage() for event in critical_events] == ["a bug"]
    critical_events.clear()


# --- probing ----------------------------------------------------------------------------------------


def probing(made: Bench) -> list[list[Seen]]:
    """Probe; what was found stands in the list when it is over."""
    found: list[list[Seen]] = []
    Deferred.fromCoroutine(probe(made.upstream, made.gate.limits, made.clock)).addCallback(found.append)
    return found


def test_probe() -> None:
    """Every door is looked at, nobody is logged in, and what may be relayed is known afterwards."""
    made = bench(LIMITS, doors=3)
    found = probing(made)
    made.endpoints[0].refuses(OSError("no such name"))
    protocol, wire = made.endpoints[1].opens(b"* OK hi\r\n")
    assert wire.read() == b"g1 CAPABILITY\r\n"
    protocol.dataReceived(b"* CAPABILITY IMAP4rev1 auth=cram-md5 AUTH=PLAIN\r\ng1 OK\r\n")
    assert not wire.open
    made.endpoints[2].opens(b"* BYE no\r\n")
    made.clock.advance(5)
    assert wire.disconnected
    ((first, second, third),) = found
    assert [seen.door.name for seen in found[0]] == ["door0", "door1", "door2"]
    assert first.outcome == Failed(Failure.REFUSED)
    assert isinstance(second.outcome, Granted)
    assert second.core.offered == b"IMAP4rev1 auth=cram-md5 AUTH=PLAIN"
    assert third.outcome == Failed(Failure.BYE)
    assert made.upstream.relayed == (b"CRAM-MD5",)


def test_probe_behind_a_proxy_protocol() -> None:
    """A probe of a server that wants a PROXY header speaks for the gate itself."""
    made = bench(LIMITS, proxy_protocol=True)
    probing(made)
    assert made.endpoints[0].opens()[1].read() == encode_v2(None, None)


def test_upstream_is_what_it_was_given() -> None:
    """Doors are kept in order; before the first probe nothing is relayed."""
    doors = [Door(name, Endpoint(), None, False) for name in "ab"]
    upstream = Upstream("mail", doors, proxy_protocol=False, id_originating=False)
    assert upstream.doors == tuple(doors)
    assert upstream.relayed == ()
    assert CLIENT.address == "192.0.2.7"
    assert Client(None, None, "x").address is None
