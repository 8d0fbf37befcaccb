"""The control sockets in the file system: who may connect, who owns the name, and the service that serves them.

Only the socket file's mode decides who may connect (THREATS A47).  It has its mode before anybody can connect; a
file that a dead gate left behind is replaced, the socket of a living one never, unless that gate hands it over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from imapgate.admin.control import ControlFactory
from imapgate.admin.operator import Operator
from imapgate.errors import ConfigurationError

FULL_MODE = 0o600
READ_MODE = 0o660
BACKLOG = 50
STOP_SECONDS = 1.0
"""How long those who still read an answer may take when the gate stops."""


class ControlPort(unix.Port):
    """A listening Unix socket that takes only a name that is free, and removes only a file of its own.

    :param successor: the gate that has the name now hands it over
    """

    def __init__(self, reactor: Any, path: Path, mode: int, factory: IProtocolFactory, *, successor: bool) -> None:
        super().__init__(os.fsencode(path), factory, BACKLOG, mode, reactor)  # Twisted sets the mode, then listens
        self._path = path
        self._successor = successor
        self._identity: tuple[int, int] | None = None

    def startListening(self) -> None:
        """Bind and listen.

        :raise ConfigurationError: it cannot be done.
        """
        try:
            with _locked(self._path.parent):
                _make_room(self._path, self._successor)
                super().startListening()
                self._identity = _identity(self._path)
        except CannotListenError as error:
            raise ConfigurationError([f"{self._path}: {error.socketError}"]) from None
        except OSError as error:
            raise ConfigurationError([f"{error.filename or self._path}: {error.strerror or error}"]) from None

    def connectionLost(self, reason: Failure) -> None:
        """Remove the file if it is still this one, and close."""
        if self._identity is not None and _identity(self._path) == self._identity:
            self._path.unlink()
        tcp.Port.connectionLost(self, reason)  # not Twisted's for Unix sockets, which removes whatever is there


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let no other gate look for a free name in this folder meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigurationError([f"{folder}: everybody can write there, and put another socket in its place"])
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError([f"{folder}: another process holds a lock on it; try again"]) from None
        yield
    finally:
        os.close(descriptor)


def _make_room(path: Path, successor: bool) -> None:
    """Remove a socket that nobody listens on, or that is handed over."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError([f"{path}: there is something that is no socket; it is not replaced"])
    if not successor and _alive(path):
        raise ConfigurationError([f"{path}: another process listens there; it is not replaced"])
    path.unlink()


def _alive(path: Path) -> bool:
    """Whether somebody listens; where that cannot be seen, too."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fsencode(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


class Control(Service):
    """Listens on the control sockets.

    It is to be started when privileges are dropped, so that the files belong to whoever serves, and to be
    stopped last, so that an operator can see the gate stop.

    :param full: the path of the socket that takes every command, if any
    :param reading: of the one that takes what changes nothing, if any
    :param successor: a gate that has the names now hands them over
    """

    def __init__(
        self, reactor: Any, operator: Operator, full: Path | None, reading: Path | None, *, successor: bool = False
    ) -> None:
        self._reactor = reactor
        self._factories: list[ControlFactory] = []
        self._ports: list[ControlPort] = []
        for path, mode, read_only in ((full, FULL_MODE, False), (reading, READ_MODE, True)):
            if path is not None:
                factory = ControlFactory(operator, reactor, read_only=read_only, full=full)
                self._factories.append(factory)
                self._ports.append(ControlPort(reactor, path, mode, factory, successor=successor))

    def startService(self) -> None:
        """Listen.

        :raise SystemExit: it cannot.
        """
        super().startService()
        try:
            for port in self._ports:
                port.startListening()
        except ConfigurationError as error:
            raise SystemExit(f"imapgate: cannot listen on a control socket: {error}") from None

    def stopService(self) -> Deferred[None]:
        """Stop listening, end what streams, and wait a little until every answer is taken."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        connections = [connection for factory in self._factories for connection in factory.connections]
        for connection in connections:
            connection.stop()
        deadline = self._reactor.seconds() + STOP_SECONDS
        while any(factory.connections for factory in self._factories) and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.02)
        for factory in self._factories:
            for connection in list(factory.connections):
                connection.transport.abortConnection()
