"""A sink with a connection: order, back-pressure, what is dropped, what is told, and coming back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from imapgate.audit.sinks import Sink, StreamSink, json_line, outlet
from tests.net.wires import Endpoint, Wire, drop, logged


class Bench:
    """A sink, its receiver and its log."""

    def __init__(self, lines: list[str], *, secure: bool = False, most: int = 1000) -> None:
        self.lines = lines
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.sink = StreamSink("far", self.endpoint, json_line, self.clock, secure=secure, most=most)

    def write(self, *numbers: int, size: int = 10) -> None:
        """Write records; each is so many octets on the wire."""
        for number in numbers:
            self.sink.write({"seq": number}, b"%d" % number + b"." * (size - 1 - len(str(number))))

    @property
    def row(self) -> dict[str, str | int]:
        """How the sink fares."""
        (row,) = self.sink.rows()
        return row

    def told(self) -> list[str]:
        """What was logged since the last look."""
        lines = self.lines[:]
        self.lines.clear()
        return lines


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What sinks log."""
    with logged(outlet) as told:
        yield told


def numbers(data: bytes) -> list[int]:
    """Which records these are."""
    return [int(line.rstrip(b".")) for line in data.splitlines()]


def stopped(sink: Sink) -> list[bool]:
    """Stop a sink; there is something in the list when it is done."""
    done: list[bool] = []
    stopping = sink.stop()
    if stopping is None:
        return [True]
    assert isinstance(stopping, Deferred)
    stopping.addCallback(lambda _: done.append(True))
    return done


def test_sends_in_order(lines: list[str]) -> None:
    """What is written before there is a connection, and after, arrives in order, and is counted."""
    bench = Bench(lines)
    bench.write(1)
    assert bench.row == {"name": "far", "sent": 0, "dropped": 0, "queued": 10, "state": "stopped"}
    bench.sink.start()
    bench.write(2)
    assert bench.row["state"] == "connecting"
    _, wire = bench.endpoint.opens()
    bench.write(3)
    assert numbers(wire.read()) == [1, 2, 3]
    assert bench.row == {"name": "far", "sent": 3, "dropped": 0, "queued": 0, "state": "connected"}
    assert "keepalive True" in wire.options
    assert bench.told() == []


def test_back_pressure(lines: list[str]) -> None:
    """While the transport is full nothing is written to it; then all that waited."""
    bench = Bench(lines)
    bench.sink.start()
    _, wire = bench.endpoint.opens()
    wire.fills()
    bench.write(1, 2)
    assert wire.read() == b""
    assert bench.row["queued"] == 20
    wire.drains()
    assert numbers(wire.read()) == [1, 2]


def test_full_between_two(lines: list[str]) -> None:
    """A transport that is full after a piece gets no second one."""
    bench = Bench(lines, most=100_000)
    bench.write(1, 2, 3, size=12_000)
    bench.sink.start()
    factory, _ = bench.endpoint.calls[0]
    protocol = factory.buildProtocol(None)
    assert isinstance(protocol, Protocol)

    class Narrow(Wire):
        def write(self, data: bytes) -> None:
            super().write(data)
            self.fills()

    wire = Narrow()
    protocol.makeConnection(wire)
    assert numbers(wire.read()) == [1]
    wire.drains()
    assert numbers(wire.read()) == [2]


def test_drops_and_tells_once(lines: list[str]) -> None:
    """A full queue drops what comes, and counts it; the log tells the gap's beginning and its end, once each."""
    bench = Bench(lines, most=100)
    bench.sink.start()
    _, wire = bench.endpoint.opens()
    wire.fills()
    bench.write(*range(15))
    assert bench.row["queued"] == 100
    assert bench.row["dropped"] == 5
    assert bench.told() == ["warn: audit sink far: records are dropped, 100 octets wait for its receiver"]
    wire.drains()
    assert numbers(wire.read()) == list(range(10))
    assert bench.told() == ["warn: audit sink far: it takes records again; 5 were dropped"]
    bench.write(20)
    assert numbers(wire.read()) == [20]
    assert bench.told() == []


def test_comes_back(lines: list[str]) -> None:
    """A lost connection is sought again, less and less often; the log hears of its beginning and its end."""
    bench = Bench(lines)
    bench.sink.start()
    bench.write(1)
    delays = []
    for _ in range(9):
        bench.endpoint.refuses()
        (call,) = bench.clock.getDelayedCalls()
        delays.append(call.getTime() - bench.clock.seconds())
        assert str(bench.row["state"]).startswith("waiting: Connection was refused")
        bench.clock.advance(delays[-1])
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [line.split(";")[1] for line in bench.told()] == [" it is tried again until it works"]
    protocol, wire = bench.endpoint.opens()
    assert numbers(wire.read()) == [1]
    bench.clock.advance(9)
    assert bench.told() == []  # some accept and close at once
    bench.clock.advance(1)
    assert bench.told() == ["info: audit sink far: connected again"]
    drop(protocol, wire, Failure(ConnectionLost()))
    bench.write(2)
    assert len(bench.told()) == 1
    bench.clock.advance(1)
    _, wire = bench.endpoint.opens()
    assert numbers(wire.read()) == [2]


def test_a_receiver_that_hangs_up_at_once(lines: list[str]) -> None:
    """Who accepts and closes is sought less and less often too, and fills no log."""
    bench = Bench(lines)
    bench.sink.start()
    for delay in (1, 2, 4, 8, 16):
        drop(*bench.endpoint.opens())
        bench.clock.advance(delay - 0.01)
        attempts = len(bench.endpoint.calls)
        bench.clock.advance(0.01)
        assert len(bench.endpoint.calls) == attempts + 1
    assert len(bench.told()) == 1


def test_jitter(lines: list[str]) -> None:
    """Many gates do not come back in one moment."""
    delays = []
    for jitter in (0.0, 1.0):
        clock, endpoint = Clock(), Endpoint()
        StreamSink("far", endpoint, json_line, clock, jitter=lambda value=jitter: value).start()  # type: ignore[misc]
        endpoint.refuses()
        delays.append(clock.getDelayedCalls()[0].getTime())
    assert delays == [0.75, 1.25]


def test_secure_waits_for_proof(lines: list[str]) -> None:
    """With TLS nothing is written before the handshake; one that never ends is given up."""
    bench = Bench(lines, secure=True)
    bench.sink.start()
    bench.write(1)
    protocol, wire = bench.endpoint.opens()
    assert wire.read() == b""
    bench.clock.advance(30)
    assert wire.disconnecting
    drop(protocol, wire, Failure(ConnectionLost()))
    bench.clock.advance(1)
    protocol, wire = bench.endpoint.opens()
    protocol.handshakeCompleted()  # type: ignore[attr-defined]
    assert numbers(wire.read()) == [1]
    bench.clock.advance(60)
    assert wire.open


def test_stalled_receiver_is_given_up(lines: list[str]) -> None:
    """A receiver that takes nothing for a minute is sought anew."""
    bench = Bench(lines)
    bench.sink.start()
    protocol, wire = bench.endpoint.opens()
    wire.fills()
    bench.clock.advance(59)
    wire.drains()
    bench.clock.advance(100)
    assert wire.open
    wire.fills()
    bench.clock.advance(59)
    assert wire.open
    bench.clock.advance(1)
    assert wire.disconnecting
    drop(protocol, wire)
    assert str(bench.row["state"]).startswith("waiting")
    bench.write(1)
    bench.clock.advance(1)
    _, wire = bench.endpoint.opens()
    assert numbers(wire.read()) == [1]


def test_stop_sends_the_rest(lines: list[str]) -> None:
    """Stopping waits for what is queued, unregisters and closes; it is over with the connection."""
    bench = Bench(lines)
    bench.sink.start()
    protocol, wire = bench.endpoint.opens()
    wire.fills()
    bench.write(1)
    done = stopped(bench.sink)
    assert wire.open
    wire.drains()
    assert numbers(wire.read()) == [1]
    assert wire.disconnecting
    assert wire.producer is None
    assert not done
    drop(protocol, wire)
    assert done
    assert bench.row["state"] == "stopped"
    assert bench.clock.getDelayedCalls() == []
    assert bench.told() == []


def test_stop_has_a_limit(lines: list[str]) -> None:
    """A receiver that takes nothing does not hold up the gate's end; what is lost is told."""
    bench = Bench(lines)
    bench.sink.start()
    protocol, wire = bench.endpoint.opens()
    wire.fills()
    bench.write(1, 2)
    done = stopped(bench.sink)
    bench.clock.advance(5)
    assert wire.disconnecting
    drop(protocol, wire)
    assert done
    assert bench.row["dropped"] == 2
    assert bench.told() == ["warn: audit sink far: stopped; 2 records were not sent"]
    assert bench.clock.getDelayedCalls() == []


def test_stop_while_connecting(lines: list[str]) -> None:
    """With nothing to send an attempt is cancelled; with something it has a few seconds."""
    bench = Bench(lines)
    bench.sink.start()
    assert stopped(bench.sink)
    assert bench.endpoint.cancelled == 1

    bench = Bench(lines)
    bench.sink.start()
    bench.write(1)
    done = stopped(bench.sink)
    assert not done
    protocol, wire = bench.endpoint.opens()
    assert numbers(wire.read()) == [1]
    drop(protocol, wire)
    assert done
    assert bench.clock.getDelayedCalls() == []


def test_stop_in_a_handshake(lines: list[str]) -> None:
    """With nothing to send a handshake is not awaited."""
    bench = Bench(lines, secure=True)
    bench.sink.start()
    protocol, wire = bench.endpoint.opens()
    done = stopped(bench.sink)
    assert wire.disconnecting
    drop(protocol, wire)
    assert done
    assert bench.clock.getDelayedCalls() == []


def test_stop_without_a_connection(lines: list[str]) -> None:
    """A sink that waits for its next attempt ends at once, and makes none."""
    bench = Bench(lines)
    bench.sink.start()
    bench.endpoint.refuses()
    bench.write(1)
    bench.told()
    assert bench.sink.stop() is None
    assert bench.told() == ["warn: audit sink far: stopped; 1 records were not sent"]
    bench.clock.advance(100)
    assert len(bench.endpoint.calls) == 1
