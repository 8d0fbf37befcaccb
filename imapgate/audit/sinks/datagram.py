"""A sink with a Unix datagram socket: the system's syslog (``/dev/log``), or journald's own.

Knows sockets and the reactor's interest in them.  Twisted's own datagram port drops what a full receiver does not
take; this one waits until it takes some again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from errno import EAGAIN, EMSGSIZE, ENOBUFS
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from imapgate.audit.sinks.outlet import QUEUE_MOST, Format, Outlet

DEV_LOG = Path("/dev/log")
JOURNAL = Path("/run/systemd/journal/socket")

AT_ONCE = 64
"""Datagrams that are sent before anybody else has a turn."""


@implementer(IWriteDescriptor)
class _Writable:
    """What the reactor calls when the receiver takes something again."""

    def __init__(self, sink: DatagramSink, wire: socket.socket) -> None:
        self._sink = sink
        self._wire = wire

    def fileno(self) -> int:
        return self._wire.fileno()

    def logPrefix(self) -> str:
        return self._sink.name

    def doWrite(self) -> None:
        self._sink.writable()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or the socket is broken."""
        self._sink.lost(reason.getErrorMessage())


class DatagramSink(Outlet):
    """Sends to a socket in the file system.

    :param reactor: an IReactorFDSet and an IReactorTime.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        make: Format,
        reactor: Any,
        *,
        most: int = QUEUE_MOST,
        jitter: Callable[[], float] = lambda: 0.5,
    ) -> None:
        super().__init__(name, make, reactor, most=most, jitter=jitter)
        self._path = path
        self._reactor: IReactorFDSet = reactor
        self._wire: socket.socket | None = None
        self._writable: _Writable | None = None

    def _seek(self) -> None:
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            wire.setblocking(False)
            wire.connect(os.fsencode(self._path))
        except OSError as error:
            wire.close()
            self._failed(f"{self._path}: {error.strerror or error}")
            return
        self._wire = wire
        self._connected()
        self._send()

    def writable(self) -> None:
        """The receiver takes something again."""
        self._rest()
        self._send()

    def lost(self, why: str) -> None:
        """The receiver is gone."""
        self._shut()
        self._failed(f"{self._path}: {why}")

    def _open(self) -> bool:
        return self._wire is not None

    def _send(self) -> None:
        if self._writable is not None:
            return
        for _ in range(AT_ONCE):
            if self._wire is None or not self.backlog:
                break
            try:
                self._wire.send(self.backlog.first())
            except OSError as error:
                if error.errno in (EAGAIN, ENOBUFS):
                    break
                if error.errno != EMSGSIZE:
                    self.lost(error.strerror or str(error))
                    return
                self.backlog.taken(sent=False)
            else:
                self.backlog.taken()
        if self._wire is not None and self.backlog:
            self._writable = _Writable(self, self._wire)
            self._reactor.addWriter(self._writable)
        elif self._stopping is not None:
            self._close()

    def _rest(self) -> None:
        """Ask the reactor no more."""
        if self._writable is not None:
            self._reactor.removeWriter(self._writable)
            self._writable = None

    def _shut(self) -> None:
        self._rest()
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _close(self) -> None:
        self._shut()
        self._ended()

    def _give_up(self) -> None:
        self._close()
