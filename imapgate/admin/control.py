"""The control socket's connections: one request each, then rows, then the end.

It knows the commands only by their table.  However slow, greedy or broken whoever asks may be, the gate's own
work is not held up: rows are written as fast as they are taken, and what a stream has too much of is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPullProducer,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from zope.interface import implementer

from imapgate.admin.operator import Command, Operator, Refused, Row, understood
from imapgate.limits import KIB
from imapgate.log import log
from imapgate.net.handover import peer_of
from imapgate.net.valve import Transport

CONNECTIONS = 16
"""At most so many at one time on each socket."""
REQUEST_LENGTH = 8 * KIB
REQUEST_SECONDS = 10.0
"""From connecting to the request's last octet."""
STALL_SECONDS = 60.0
"""How long whoever asked may take nothing of the answer."""
BATCH = 64
"""Rows that are written at one time."""

FAILED = "the gate failed at this; its log says why"
STOPS = "the gate stops"


def encoded(message: Mapping[str, object]) -> bytes:
    """A message as a line; only plain values have a form, so that no object is ever shown by its repr."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class ControlFactory(Factory):
    """Makes the protocols of one control socket.

    :param read_only: commands that change something are refused
    :param full: where they are taken instead, if anywhere
    :ivar connections: all that are there
    """

    noisy = False

    def __init__(self, operator: Operator, clock: IReactorTime, *, read_only: bool, full: Path | None) -> None:
        self.operator = operator
        self.clock = clock
        self._read_only = read_only
        self._full = full
        self.connections: set[ControlProtocol] = set()

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:
        """Return the protocol of somebody who has come."""
        return ControlProtocol(self)

    def permit(self, command: Command) -> None:
        """See that the command may be given here (THREATS A47).

        :raise Refused: it may not.
        """
        if command.changes and self._read_only:
            where = f"; {self._full} takes it" if self._full is not None else ""
            raise Refused(f"this socket is for reading and does not take {command.name}{where}")


@implementer(IHalfCloseableProtocol)
class ControlProtocol(LineOnlyReceiver, TimeoutMixin):
    """Somebody who asks something: one request, its answer, the end."""

    transport: Transport  # type: ignore[assignment]
    delimiter = b"\n"
    MAX_LENGTH = REQUEST_LENGTH

    def __init__(self, factory: ControlFactory) -> None:
        self._desk = factory
        self._asked = False
        self._answering = False
        self._ended = False
        self._stream: _Stream | None = None

    # --- what Twisted says ------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Wait for the request, unless there are too many who ask already."""
        others = len(self._desk.connections)
        self._desk.connections.add(self)
        if others < CONNECTIONS:
            self.setTimeout(REQUEST_SECONDS)
        else:
            self._asked = True
            self._end(error=f"{others} others are here already")

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        """For the time-out: the gate's own clock."""
        return self._desk.clock.callLater(period, func)

    def dataReceived(self, data: bytes) -> None:
        """Take the request; what follows it goes nowhere."""
        if not self._asked:
            super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Do as asked."""
        if self._asked:
            return
        self._asked = True
        self.setTimeout(None)
        try:
            command, arguments = understood(line)
            self._desk.permit(command)
        except Refused as refused:
            self._end(error=str(refused))
            return
        if command.changes:
            log.info(
                "ctl: uid={uid} command={command} arguments={arguments}",
                uid=_uid(self.transport), command=command.name, arguments=json.dumps(arguments),
            )  # fmt: skip
        Deferred.fromCoroutine(self._carry_out(command, arguments))

    def lineLengthExceeded(self, line: bytes) -> None:
        """A request is shorter than that."""
        self._asked = True
        self._end(error=f"a request has at most {REQUEST_LENGTH} octets")

    def timeoutConnection(self) -> None:
        """Give up: there is no request, or the answer is not taken."""
        if self._asked:
            self.transport.abortConnection()
        else:
            self._asked = True
            self._end(error=f"no request within {REQUEST_SECONDS:.0f} seconds")

    def readConnectionLost(self) -> None:
        """Whoever asked says no more, and is not waited for; but rows that are on their way still go out."""
        if not (self._answering or self._ended):
            self.transport.abortConnection()

    def writeConnectionLost(self) -> None:
        """It never happens alone."""

    def connectionLost(self, reason: object = None) -> None:
        """Whoever asked has gone: stop what only they wanted."""
        self._ended = True
        self.setTimeout(None)
        self._desk.connections.discard(self)
        if self._stream is not None:
            self._stream.stop()

    # --- the answer -------------------------------------------------------------------------------------

    async def _carry_out(self, command: Command, arguments: Mapping[str, str]) -> None:
        operator = self._desk.operator
        try:
            if command.streams:
                self._stream = _Stream(self, self._desk.clock)
                self._stream.start(operator, arguments)
            elif command.changes:
                self._answer(await operator.act(command.name, arguments))
            else:
                self._answer(operator.show(command.name))
        except Refused as refused:
            self._end(error=str(refused))
        except Exception:
            self.failed()

    def _answer(self, rows: Sequence[Row]) -> None:
        if not self._ended:
            self._answering = True
            self.setTimeout(STALL_SECONDS)
            self.transport.registerProducer(_Rows(self, rows), False)

    def send(self, messages: Sequence[Mapping[str, object]]) -> None:
        """Write these; the other end takes what it is sent."""
        self.resetTimeout()
        self.transport.write(b"".join(map(encoded, messages)))

    def done(self, number: int) -> None:
        """So many rows: that is all."""
        self._end(done=number)

    def failed(self) -> None:
        """Tell the log about the exception that is being handled, and whoever asked that there was one."""
        log.failure("ctl: a command failed")
        self._end(error=FAILED)

    def stop(self) -> None:
        """The gate stops."""
        if self._stream is not None:
            self._stream.over()
        elif not self._answering:
            self._asked = True
            self._end(error=STOPS)

    def _end(self, **last: object) -> None:
        if self._ended:
            return
        self._ended = True
        self.setTimeout(STALL_SECONDS)
        if self._answering or self._stream is not None:
            self.transport.unregisterProducer()
        self.transport.write(encoded(last))
        self.transport.loseConnection()


@implementer(IPullProducer)
class _Rows:
    """Rows that are there, written as they are taken."""

    def __init__(self, protocol: ControlProtocol, rows: Sequence[Row]) -> None:
        self._protocol = protocol
        self._number = len(rows)
        self._rows: Iterator[Row] = iter(rows)

    def resumeProducing(self) -> None:
        """Write some."""
        try:
            batch = [{"row": row} for row in islice(self._rows, BATCH)]
            if batch:
                self._protocol.send(batch)
            else:
                self._protocol.done(self._number)
        except Exception:
            self._protocol.failed()

    def stopProducing(self) -> None:
        """There is nobody any more."""


@implementer(IPushProducer)
class _Stream:
    """Rows that come as they come; those that come while the last are not taken yet are dropped, and counted."""

    def __init__(self, protocol: ControlProtocol, clock: IReactorTime) -> None:
        self._protocol = protocol
        self._clock = clock
        self._stop: Callable[[], None] | None = None
        self._late: IDelayedCall | None = None
        self._full = False
        self._sent = 0
        self._dropped = 0

    def start(self, operator: Operator, arguments: Mapping[str, str]) -> None:
        """Let the rows come."""
        seconds = int(arguments["seconds"]) if "seconds" in arguments else None
        self._protocol.transport.registerProducer(self, True)
        self._stop = operator.trace(arguments["user"], seconds, self._write)
        if seconds is not None:
            self._late = self._clock.callLater(seconds, self.over)

    def _write(self, row: Row) -> None:
        if self._full:
            self._dropped += 1
        else:
            self._sent += 1
            self._protocol.send([{"row": row}])

    def over(self) -> None:
        """That is all."""
        self.stop()
        self._tell_dropped()
        self._protocol.done(self._sent)

    def stop(self) -> None:
        """Let no more rows come."""
        stop, self._stop = self._stop, None
        if self._late is not None and self._late.active():
            self._late.cancel()
        if stop is not None:
            stop()

    def pauseProducing(self) -> None:
        """What was written is not taken."""
        self._full = True
        self._protocol.setTimeout(STALL_SECONDS)

    def resumeProducing(self) -> None:
        """It is taken."""
        self._full = False
        self._protocol.setTimeout(None)
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._protocol.send([{"dropped": dropped}])

    def stopProducing(self) -> None:
        """There is nobody any more."""


def _uid(transport: Any) -> int:
    """Who is at the other end, as the kernel knows it."""
    return peer_of(transport.getHandle()).uid
