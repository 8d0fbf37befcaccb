"""A sink with a Unix datagram socket: a receiver of our own in a folder, and a reactor that only remembers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IWriteDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from imapgate.audit.sinks import DatagramSink, outlet
from tests.net.wires import logged


class Reactor(Clock):
    """A clock that remembers who wants to write."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[IWriteDescriptor] = []

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """Remember."""
        self.writers.append(writer)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """Forget."""
        self.writers.remove(writer)


def as_it_is(record: object, line: bytes) -> bytes:
    """The format of these tests."""
    return line


class Bench:
    """A sink, its receiver and its log."""

    def __init__(self, folder: Path, lines: list[str], most: int = 1 << 20) -> None:
        self.lines = lines
        self.reactor = Reactor()
        self.path = folder / "log"
        self.receiver: socket.socket | None = None
        self.sink = DatagramSink("near", self.path, as_it_is, self.reactor, most=most)

    def listen(self) -> None:
        """The receiver comes up."""
        self.receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.receiver.setblocking(False)
        self.receiver.bind(str(self.path))

    def leave(self) -> None:
        """The receiver goes away."""
        assert self.receiver is not None
        self.receiver.close()
        self.path.unlink()

    def write(self, *numbers: int) -> None:
        """Write records."""
        for number in numbers:
            self.sink.write({}, b"%d" % number)

    def got(self) -> list[int]:
        """What the receiver has got."""
        assert self.receiver is not None
        found = []
        try:
            while True:
                found.append(int(self.receiver.recv(1 << 16)))
        except BlockingIOError:
            return found

    @property
    def row(self) -> dict[str, str | int]:
        """How the sink fares."""
        (row,) = self.sink.rows()
        return row

    def fill(self) -> int:
        """Write until the receiver's queue is full; return how many that were."""
        number = 0
        while not self.reactor.writers:
            self.write(number)
            number += 1
        return number


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What sinks log."""
    with logged(outlet) as told:
        yield told


@pytest.fixture
def bench(tmp_path: Path, lines: list[str]) -> Iterator[Bench]:
    """A bench whose receiver is taken away at the end."""
    bench = Bench(tmp_path, lines)
    yield bench
    bench.sink.stop()
    if bench.receiver is not None:
        bench.receiver.close()


def test_sends(bench: Bench) -> None:
    """One datagram for each record, those from before the start first."""
    bench.listen()
    bench.write(1)
    bench.sink.start()
    bench.write(2, 3)
    assert bench.got() == [1, 2, 3]
    assert bench.row == {"name": "near", "sent": 3, "dropped": 0, "queued": 0, "state": "connected"}
    assert bench.lines == []


def test_waits_for_a_full_receiver(bench: Bench) -> None:
    """What a full receiver does not take is not lost: the sink waits until it is writable, and keeps the order."""
    bench.listen()
    bench.sink.start()
    last = bench.fill()
    bench.write(last)
    assert len(bench.reactor.writers) == 1
    (writer,) = bench.reactor.writers
    assert writer.logPrefix() == "near"
    assert writer.fileno() > 2
    found = bench.got()
    writer.doWrite()
    assert found + bench.got() == list(range(last + 1))
    assert bench.reactor.writers == []
    assert bench.row["dropped"] == 0


def test_gives_others_a_turn(bench: Bench) -> None:
    """A long queue is sent in parts, however fast the receiver."""
    bench.write(*range(200))
    bench.listen()
    assert bench.receiver is not None

    class Fast:
        """A socket that takes everything."""

        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def send(self, data: bytes) -> None:
            self.sent.append(data)

        def close(self) -> None:
            pass

        def fileno(self) -> int:
            return 9

    fast = Fast()
    bench.sink._wire = fast  # type: ignore[assignment]
    bench.sink._send()
    assert len(fast.sent) == 64
    for expected in (128, 192, 200):
        (writer,) = bench.reactor.writers
        writer.doWrite()
        assert len(fast.sent) == expected
    assert bench.reactor.writers == []


def test_drops_when_the_queue_is_full(bench: Bench, tmp_path: Path, lines: list[str]) -> None:
    """A receiver that takes nothing costs a bounded queue, and one line in the log."""
    bench.listen()
    small = DatagramSink("near", bench.path, as_it_is, bench.reactor, most=1000)
    small.start()
    for _ in range(3000):
        small.write({}, b"x" * 10)
    (row,) = small.rows()
    assert row["queued"] == 1000
    assert row["dropped"] == 3000 - 100 - int(row["sent"])
    assert len(lines) == 1
    small.stop()
    bench.reactor.advance(5)


def test_comes_back(bench: Bench) -> None:
    """A receiver that is not there, or goes and comes back, is found again; nothing that waited is lost."""
    bench.sink.start()
    bench.write(1)
    assert str(bench.row["state"]).startswith(f"waiting: {bench.path}: No such file")
    bench.listen()
    bench.reactor.advance(1)
    assert bench.got() == [1]
    bench.reactor.advance(10)
    bench.leave()
    bench.write(2)
    assert str(bench.row["state"]).endswith("Connection refused")
    bench.listen()
    bench.reactor.advance(1)
    assert bench.got() == [2]
    assert [line.split(":")[0] for line in bench.lines] == ["warn", "info", "warn"]


def test_the_reactor_loses_it(bench: Bench) -> None:
    """A socket that the reactor gives up is opened again."""
    bench.listen()
    bench.sink.start()
    bench.fill()
    (writer,) = bench.reactor.writers
    writer.connectionLost(Failure(ConnectionLost()))
    assert bench.reactor.writers == []
    assert str(bench.row["state"]).startswith("waiting")
    bench.got()
    bench.reactor.advance(1)
    assert bench.row["state"] == "connected"


def test_too_long(bench: Bench) -> None:
    """What can never be sent holds nothing up: it is dropped, counted and told."""
    bench.listen()
    bench.sink.start()
    bench.sink.write({}, b"9" * 900_000)
    bench.write(1)
    assert bench.got() == [1]
    assert bench.row["dropped"] == 1
    assert bench.row["sent"] == 1
    assert bench.lines == [
        "warn: audit sink near: records are dropped, its receiver does not take one so long",
        "warn: audit sink near: it takes records again; 1 were dropped",
    ]


def test_stop(bench: Bench) -> None:
    """Stopping sends what waits as soon as the receiver takes it; then there is no socket any more."""
    bench.listen()
    bench.sink.start()
    last = bench.fill()
    stopping = bench.sink.stop()
    assert stopping is not None
    found = bench.got()
    bench.reactor.writers[0].doWrite()
    assert stopping.called
    assert found + bench.got() == list(range(last))
    assert bench.row["state"] == "stopped"
    assert bench.reactor.getDelayedCalls() == []


def test_stop_has_a_limit(bench: Bench) -> None:
    """A receiver that takes nothing does not hold up the gate's end."""
    bench.listen()
    bench.sink.start()
    bench.fill()
    stopping = bench.sink.stop()
    assert stopping is not None
    bench.reactor.advance(5)
    assert stopping.called
    assert bench.lines == ["warn: audit sink near: stopped; 1 records were not sent"]
    assert bench.reactor.getDelayedCalls() == []
    assert bench.reactor.writers == []


def test_lost_while_stopping(bench: Bench) -> None:
    """A receiver that goes while the sink stops is not sought again."""
    bench.listen()
    bench.sink.start()
    bench.fill()
    stopping = bench.sink.stop()
    assert stopping is not None
    bench.leave()
    bench.reactor.writers[0].doWrite()
    assert stopping.called
    assert bench.reactor.getDelayedCalls() == []
