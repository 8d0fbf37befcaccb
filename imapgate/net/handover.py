"""A restart without refusing a connection: the listening sockets handed on from one imapgate to the next (THREATS F17).

The running process listens on a Unix socket of its own.  The newcomer connects to it at its start, and is
sent a descriptor of every listening socket (SCM_RIGHTS), with the texts of their endpoints::

    running   {"sockets": ["tcp:993", "unix:/run/imapgate/imap"]}       or {"refused": "why"}
    newcomer  {"serving": ["tcp:993"]}

Between the two lines both hold the same sockets, and each client is accepted by one of them.  If the
newcomer ends before its line, the running process goes on as if nothing had happened; with the line, it
stops accepting, and drains.  Knows sockets and processes, nothing of what is served.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from imapgate.errors import ImapgateError
from imapgate.log import log
from imapgate.net.sockets import Sockets

_LONGEST_LINE = 65536
_MOST_AT_ONCE = 253
"""Descriptors in one message, as Linux has it (SCM_MAX_FD)."""


class HandoverFailed(ImapgateError):
    """There is a running process, and it hands nothing on; the message says why."""


class Peer(NamedTuple):
    """The process at the other end of a Unix socket, as it was when it connected."""

    pid: int
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    """Ask the kernel who is at the other end (unix(7), SO_PEERCRED)."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid)


# --- the running process ----------------------------------------------------------------------------


class HandoverFactory(Factory):
    """Hands the listening sockets of this process to the next one that asks, one at a time.

    :param taken_over: called with the newcomer's process id once it serves and nothing is accepted here any more.
    :ivar newcomer: who holds the sockets, too, or has taken them over
    """

    noisy = False

    def __init__(self, sockets: Sockets, taken_over: Callable[[int], None]) -> None:
        self.sockets = sockets
        self.taken_over = taken_over
        self.newcomer: HandoverProtocol | None = None

    def buildProtocol(self, addr: IAddress | None) -> HandoverProtocol:
        """Whoever it is, is looked at when the connection is there."""
        return HandoverProtocol(self)


class HandoverProtocol(LineOnlyReceiver):
    """The running process's end."""

    delimiter = b"\n"
    MAX_LENGTH = _LONGEST_LINE
    transport: Any  # IUNIXTransport, and ISystemHandle

    def __init__(self, factory: HandoverFactory) -> None:
        self._factory = factory
        self._sockets = factory.sockets

    def connectionMade(self) -> None:
        """Send the sockets, if this is one of us and the first one."""
        self._peer = peer_of(self.transport.getHandle())
        if self._peer.uid not in (0, os.geteuid()):
            self._refuse("only its own user and root may take over")
        elif self._factory.newcomer is not None:
            self._refuse(f"process {self._factory.newcomer._peer.pid} is taking over")
        else:
            log.info("process {pid} is handed the listening sockets", pid=self._peer.pid)
            self._factory.newcomer = self
            self._sockets.lent = True
            ports: dict[str, Any] = self._sockets.ports
            for port in ports.values():
                self.transport.sendFileDescriptor(port.fileno())
            self._send({"sockets": list(ports)})  # each descriptor travels with one octet of it

    def _refuse(self, why: str) -> None:
        log.warn("no handover to process {pid} of user {uid}: {why}", pid=self._peer.pid, uid=self._peer.uid, why=why)
        self._send({"refused": why})
        self.transport.loseConnection()

    def _send(self, message: dict[str, Any]) -> None:
        self.sendLine(json.dumps(message).encode())

    def lineReceived(self, line: bytes) -> None:
        """It serves: stop accepting, and say so to the service."""
        served = _served(line)
        if self._factory.newcomer is not self or not self._sockets.lent or served is None:
            self.transport.abortConnection()
            return
        self._sockets.lent = False
        Deferred.fromCoroutine(self._sockets.stop(served))
        self.transport.loseConnection()
        log.info("process {pid} has taken over", pid=self._peer.pid)
        self._factory.taken_over(self._peer.pid)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """If it had not come to serving, there is no newcomer any more."""
        if self._factory.newcomer is self and self._sockets.lent:
            self._factory.newcomer = None
            self._sockets.lent = False
            log.warn("process {pid} ended before it served; this one goes on", pid=self._peer.pid)


def _served(line: bytes) -> list[str] | None:
    with suppress(ValueError):
        match json.loads(line):
            case {"serving": list(served)} if all(isinstance(endpoint, str) for endpoint in served):
                return served
    return None


# --- the newcomer -----------------------------------------------------------------------------------


class Taken:
    """What a running process has handed on; without one, nothing.

    :ivar descriptors: listening sockets by the text of their endpoints, for `Sockets`
    """

    def __init__(self, connection: socket.socket | None, descriptors: dict[str, int]) -> None:
        self._connection = connection
        self.descriptors = descriptors

    def serving(self, sockets: Sockets) -> None:
        """Say that this process serves what it has adopted; the other one stops accepting."""
        served = sockets.settle()
        if self._connection is None:
            return
        with suppress(OSError), self._connection:  # if it has ended meanwhile, there is nobody to tell
            self._connection.sendall(json.dumps({"serving": served}).encode() + b"\n")
        self._connection = None


def take(path: str, seconds: float) -> Taken:
    """Ask the process that listens at `path` for its listening sockets; blocks, each step for `seconds` at most.

    Until `Taken.serving`, that process goes on if this one ends.

    :raise HandoverFailed: it refuses, does not answer, or cannot be understood.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(seconds)
    descriptors: list[int] = []
    try:
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):  # nobody: an ordinary start
            connection.close()
            return Taken(None, {})
        endpoints = _understood(_received(connection, descriptors))
        if len(endpoints) != len(descriptors):
            raise HandoverFailed(f"{len(descriptors)} sockets came for {len(endpoints)} endpoints")
        return Taken(connection, dict(zip(endpoints, descriptors, strict=True)))
    except (OSError, HandoverFailed) as error:
        connection.close()
        for descriptor in descriptors:
            os.close(descriptor)
        raise HandoverFailed(f"no handover by {path}: {error}") from error


def _received(connection: socket.socket, descriptors: list[int]) -> bytes:
    """Read the running process's line, and put the descriptors that come with it into `descriptors`."""
    line = b""
    while not line.endswith(b"\n"):
        data, received, _, _ = socket.recv_fds(connection, _LONGEST_LINE, _MOST_AT_ONCE, socket.MSG_CMSG_CLOEXEC)
        descriptors += received
        line += data
        if not data or len(line) > _LONGEST_LINE:
            raise HandoverFailed("the answer is cut off" if line else "there is no answer")
    return line


def _understood(line: bytes) -> list[str]:
    with suppress(ValueError):
        match json.loads(line):
            case {"sockets": list(endpoints)}:
                return endpoints
            case {"refused": str(why)}:
                raise HandoverFailed(why)
    raise HandoverFailed("the answer is not understood")
