"""What all sinks have in common: a bounded queue, a connection that is sought again, and what the operator is told.

Knows a clock and the log.  Knows no socket.  A sink never holds anybody up: what does not fit into its queue is
dropped and counted, and the receiver sees that numbers are missing (``seq``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from imapgate.log import log

Format = Callable[[Mapping[str, object], bytes], bytes]
"""Makes what is sent of a record and of its line in the file."""

Row = dict[str, str | int]

QUEUE_MOST = 4 << 20
"""Octets that wait for a receiver."""

FIRST_DELAY, DELAY_MOST = 1.0, 60.0
"""Seconds until a connection is sought again: doubled each time, up to the second."""

SETTLED_SECONDS = 10.0
"""How long a connection must stand until its troubles are over: some accept, and close at once."""

STOP_SECONDS = 5.0
"""How long a sink may go on sending when the gate stops."""


class Sink(Protocol):
    """Somewhere that every record goes."""

    def start(self) -> None:
        """Seek the receiver; what was written before is sent then."""

    def write(self, record: Mapping[str, object], line: bytes) -> None:
        """Take a record and its line in the file; at once, and whatever the receiver does."""

    def stop(self) -> Deferred[None] | None:
        """Send what is waiting, for a few seconds at most, and close; ``None``: that is done."""

    def rows(self) -> Sequence[Row]:
        """How it fares: name, sent, dropped, queued (octets), state."""


class Backlog:
    """Octets that wait, in order, up to so many; a gap is told when it opens and when it is over."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self.octets = 0
        self.sent = 0
        self.dropped = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, item: bytes) -> None:
        """Take it, or drop and count it where there is no room."""
        if self.octets + len(item) > self._most:
            self.drop(f"{self.octets} octets wait for its receiver")
            return
        self._waiting.append(item)
        self.octets += len(item)

    def first(self) -> bytes:
        """The one that is to be sent next."""
        return self._waiting[0]

    def some(self, most: int) -> bytes:
        """Take as many as there are in so many octets, one at least, as one piece."""
        piece = [self.first()]
        self.taken()
        size = len(piece[0])
        while self._waiting and size + len(self._waiting[0]) <= most:
            piece.append(self._waiting[0])
            size += len(piece[-1])
            self.taken()
        return b"".join(piece)

    def taken(self, *, sent: bool = True) -> None:
        """The first one is gone; not ``sent``: it can never be."""
        self.octets -= len(self._waiting.popleft())
        if not sent:
            self.drop("its receiver does not take one so long")
            return
        self.sent += 1
        if self._lost and self.octets <= self._most // 2:
            log.warn("audit sink {name}: it takes records again; {lost} were dropped", name=self._name, lost=self._lost)
            self._lost = 0

    def abandon(self) -> int:
        """Drop everything; return how many."""
        left = len(self._waiting)
        self._waiting.clear()
        self.octets = 0
        self.dropped += left
        return left

    def drop(self, why: str) -> None:
        """Count one that is lost; the first of a gap is told."""
        self.dropped += 1
        self._lost += 1
        if self._lost == 1:
            log.warn("audit sink {name}: records are dropped, {why}", name=self._name, why=why)


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()


class Outlet(ABC):
    """A sink with a connection; what kind it is, is its subclass's matter.

    :param jitter: gives a number from 0 to 1, so that not all gates come back in the same moment.
    """

    def __init__(
        self,
        name: str,
        make: Format,
        clock: IReactorTime,
        *,
        most: int = QUEUE_MOST,
        jitter: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self.name = name
        self.backlog = Backlog(name, most)
        self._make = make
        self._clock = clock
        self._jitter = jitter
        self._running = False
        self._state = "stopped"
        self._delay = FIRST_DELAY
        self._again: IDelayedCall | None = None
        self._settling: IDelayedCall | None = None
        self._troubled = False
        self._stopping: Deferred[None] | None = None
        self._limit: IDelayedCall | None = None

    def start(self) -> None:
        """Seek the receiver."""
        self._running = True
        self._seek()

    def write(self, record: Mapping[str, object], line: bytes) -> None:
        """Queue it, and send what can be sent."""
        self.backlog.put(self._make(record, line))
        self._send()

    def rows(self) -> Sequence[Row]:
        """One row."""
        waiting = self.backlog
        row: Row = {"name": self.name, "sent": waiting.sent, "dropped": waiting.dropped, "queued": waiting.octets}
        return [row | {"state": self._state}]

    def stop(self) -> Deferred[None] | None:
        """Send what waits, where there is a connection; then close."""
        self._running = False
        _cancel(self._again)
        if not self._open():
            self._ended()
            return None
        stopping: Deferred[None] = Deferred()
        self._stopping = stopping
        self._limit = self._clock.callLater(STOP_SECONDS, self._give_up)
        if not self.backlog:
            self._close()
        return stopping

    # --- what a subclass has ---

    @abstractmethod
    def _seek(self) -> None:
        """Connect; then call `_connected` or `_failed`."""

    @abstractmethod
    def _open(self) -> bool:
        """Whether there is a connection, or one is being made."""

    @abstractmethod
    def _send(self) -> None:
        """Send what the connection takes; where there is none, nothing."""

    @abstractmethod
    def _close(self) -> None:
        """Everything is sent: close; then call `_ended`."""

    @abstractmethod
    def _give_up(self) -> None:
        """It has taken too long: close at once; then call `_ended`."""

    # --- what it calls ---

    def _connected(self) -> None:
        """The receiver is there."""
        self._state = "connected"
        self._settling = self._clock.callLater(SETTLED_SECONDS, self._settled)

    def _settled(self) -> None:
        self._delay = FIRST_DELAY
        if self._troubled:
            log.info("audit sink {name}: connected again", name=self.name)
        self._troubled = False

    def _failed(self, why: str) -> None:
        """There is no connection (any more): seek one later, or be done."""
        if not self._running:
            self._ended()
            return
        _cancel(self._settling)
        self._state = f"waiting: {why}"
        if not self._troubled:
            log.warn("audit sink {name}: {why}; it is tried again until it works", name=self.name, why=why)
        self._troubled = True
        self._again = self._clock.callLater(self._delay * (0.75 + self._jitter() / 2), self._seek)
        self._delay = min(self._delay * 2, DELAY_MOST)

    def _ended(self) -> None:
        """It is over; what still waits is lost."""
        self._state = "stopped"
        if left := self.backlog.abandon():
            log.warn("audit sink {name}: stopped; {left} records were not sent", name=self.name, left=left)
        _cancel(self._limit)
        _cancel(self._settling)
        stopping, self._stopping = self._stopping, None
        if stopping is not None:
            stopping.callback(None)
