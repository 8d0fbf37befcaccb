"""Back-pressure: who is not read from, and for which reasons.

The first reason in pauses a transport, the last one out resumes it.  A side whose peer takes nothing
for too long is given up: a paused transport may never report that its peer has gone.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer


class Transport(Protocol):
    """ITransport, ITLSTransport, IPushProducer and IConsumer, as far as the gate uses them."""

    connected: bool

    def write(self, data: bytes) -> None:
        """Send."""

    def loseConnection(self) -> None:
        """Close when everything is sent."""

    def abortConnection(self) -> None:
        """Close at once."""

    def startTLS(self, creator: object) -> None:
        """Begin TLS."""

    def pauseProducing(self) -> None:
        """Stop reading."""

    def resumeProducing(self) -> None:
        """Go on reading."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Name what is to be held while there is too much to send."""

    def unregisterProducer(self) -> None:
        """Name nothing any more."""

    def getPeer(self) -> IAddress:
        """The other end."""

    def getHost(self) -> IAddress:
        """This end."""


class Full(Enum):
    """The shell's own reasons: the other side's transport has more to send than its peer takes."""

    CLIENT = "client full"
    UPSTREAM = "upstream full"


class Valve:
    """The reasons for not reading from one transport."""

    __slots__ = ("_reasons", "_source")

    def __init__(self, source: Transport) -> None:
        self._source = source
        self._reasons: tuple[Enum, ...] = ()

    @property
    def reasons(self) -> tuple[Enum, ...]:
        """Why it is not read from now; empty: it is."""
        return self._reasons

    def hold(self, reason: Enum) -> None:
        """Add a reason."""
        if not self._reasons:
            self._source.pauseProducing()
            self._reasons = (reason,)
        elif reason not in self._reasons:
            self._reasons += (reason,)

    def free(self, reason: Enum) -> None:
        """Take a reason away."""
        if self._reasons == (reason,):
            self._reasons = ()
            self._source.resumeProducing()
        elif reason in self._reasons:
            self._reasons = tuple(other for other in self._reasons if other is not reason)


@implementer(IPushProducer)
class Sink:
    """Registered as the producer of a transport: while that is full, what feeds it is held.

    A client feeds its own transport only by what it asks for, so its valve is closed when it sends while it
    does not take (:meth:`also`), and not at every short pause.

    :param stalled: called when the peer has taken nothing for ``limit`` seconds.
    """

    __slots__ = ("_call", "_clock", "_feeding", "_limit", "_moved", "_reason", "_stalled", "full")

    def __init__(self, reason: Full, clock: IReactorTime, limit: float, stalled: Callable[[], None]) -> None:
        self._reason = reason
        self._feeding: tuple[Valve, ...] = ()
        self._clock = clock
        self._limit = limit
        self._stalled = stalled
        self.full = False
        self._moved = False
        self._call: IDelayedCall | None = None

    def feed(self, valve: Valve) -> None:
        """Hold this valve, too, whenever the transport is full, and at once if it is."""
        self._feeding = (*self._feeding, valve)
        if self.full:
            valve.hold(self._reason)

    def forget(self, valve: Valve) -> None:
        """Hold this valve no more."""
        self._feeding = tuple(other for other in self._feeding if other is not valve)
        valve.free(self._reason)

    def also(self, valve: Valve) -> None:
        """Hold this valve, too, until the transport has sent everything."""
        valve.hold(self._reason)
        if valve not in self._feeding:
            self._feeding = (*self._feeding, valve)

    def pauseProducing(self) -> None:
        """The transport is full."""
        self.full = True
        for valve in self._feeding:
            valve.hold(self._reason)
        if self._call is None:  # one call outlasts many short pauses: a busy transport sets no timers
            self._call = self._clock.callLater(self._limit, self._look)

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        self.full, self._moved = False, True
        for valve in self._feeding:
            valve.free(self._reason)

    def stopProducing(self) -> None:
        """The transport is gone."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        if self.full:
            if self._moved:
                self._moved = False
                self._call = self._clock.callLater(self._limit, self._look)
            else:
                self._stalled()
