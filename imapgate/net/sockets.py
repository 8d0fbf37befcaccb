"""The listening sockets of this process: bound here, or bound by another process and adopted.

Knows descriptors and Twisted's ports.  Knows neither what is served at them, nor how a descriptor came
here or goes elsewhere (systemd; handover.py).

A listening socket that two processes hold is one socket with one queue.  Whoever is done with it only
closes its descriptor: a ``shutdown``, or the path of a Unix socket removed, would end it for the other.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Container, Mapping
from typing import Any, Self

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure
from twisted.python.lockfile import FilesystemLock

from imapgate.log import log
from imapgate.net.eager import EagerServer


class AdoptedUnixPort(unix.Port):
    """A Unix socket that another process has bound.

    Twisted's own would open it to the world (mode 666) and remove its path at the end.  Here the mode stays as it is,
    and the path, too, unless it was made this process's by `own`.
    """

    _owned = False

    @classmethod
    def adopt(cls, reactor: Any, descriptor: int, factory: IProtocolFactory) -> Self:
        """Listen on the socket behind `descriptor`, which is closed."""
        os.set_blocking(descriptor, False)  # systemd's block
        port: Self = cls._fromListeningDescriptor(reactor, descriptor, factory)
        port.startListening()
        os.close(descriptor)
        return port

    def startListening(self) -> None:
        """Listen, and change nothing of the socket."""
        tcp.Port.startListening(self)

    def own(self) -> None:
        """Whoever bound it is done with it: path and lock file are this process's from now on."""
        self._owned = True
        lock = os.fsdecode(self.getHost().name) + ".lock"
        if os.path.islink(lock):
            new = f"{lock}.{os.getpid()}"
            os.symlink(str(os.getpid()), new)  # as FilesystemLock makes it; but there is no moment without a lock
            os.replace(new, lock)
            self.lockFile = FilesystemLock(lock)

    def connectionLost(self, reason: Failure) -> None:
        """Close, and remove path and lock if they are this process's."""
        (unix.Port if self._owned else tcp.Port).connectionLost(self, reason)


class Sockets:
    """The listening sockets of this process, by the text of their endpoints.

    :param inherited: descriptors of listening sockets that another process has bound; they are this object's to close.
    :ivar ports: what is listened on now
    :ivar lent: whether another process holds the same sockets, and may be serving them already
    """

    def __init__(self, reactor: Any, inherited: Mapping[str, int] | None = None) -> None:
        self._reactor = reactor
        self._inherited = dict(inherited or {})
        self._adopted: list[str] = []
        self.ports: dict[str, IListeningPort] = {}
        self.lent = False

    def listen(self, endpoint: str, factory: IProtocolFactory) -> IListeningPort:
        """Listen: on the socket that was inherited under this text, else on one of our own.

        :raise CannotListenError: the address is taken or not ours.
        :raise LookupError, ValueError: a socket that systemd has not handed on; no endpoint, or one that is there.
        """
        if endpoint in self.ports:
            raise ValueError("it is listened on already")
        if endpoint in self._inherited:
            descriptor = self._inherited.pop(endpoint)
            self._adopted.append(endpoint)
            where: Any = AdoptedStreamServerEndpoint(self._reactor, descriptor, _family(descriptor))
        else:
            where = serverFromString(self._reactor, endpoint)
        if isinstance(where, AdoptedStreamServerEndpoint) and where.addressFamily == socket.AF_UNIX:
            port: IListeningPort = AdoptedUnixPort.adopt(self._reactor, where.fileno, factory)
        else:
            port = _now(where.listen(factory))
        if isinstance(port, tcp.Port) and not isinstance(port, unix.Port):
            port.transport = EagerServer
        self.ports[endpoint] = port
        return port

    def settle(self) -> list[str]:
        """Own what was adopted, close what was inherited and not wanted; returns what was adopted."""
        adopted = [endpoint for endpoint in self._adopted if endpoint in self.ports]
        for endpoint in adopted:
            port = self.ports[endpoint]
            if isinstance(port, AdoptedUnixPort) and not endpoint.startswith("systemd:"):
                port.own()
        for descriptor in self._inherited.values():
            os.close(descriptor)
        self._inherited.clear()
        return adopted

    def close(self, endpoint: str, served: bool = False) -> Deferred[None]:
        """Stop accepting at one endpoint.

        What is `served` by another process now, or is lent and may be, is only closed; the rest is shut down.
        """
        port: Any = self.ports.pop(endpoint)
        if served or self.lent:
            self._reactor.removeReader(port)
            port.socket.close()
            return succeed(None)
        stopping: Deferred[None] = maybeDeferred(port.stopListening)
        return stopping.addErrback(lambda reason: log.failure("a listening socket is not closed", reason))

    async def stop(self, served: Container[str] = ()) -> None:
        """Stop accepting; `served` are the endpoints that another process serves now."""
        await DeferredList([self.close(endpoint, endpoint in served) for endpoint in list(self.ports)])


def _family(descriptor: int) -> int:
    asked = socket.socket(fileno=descriptor)
    asked.detach()
    return asked.family


def _now(listening: Any) -> IListeningPort:
    """The port of an endpoint that listens at once, as tcp:, unix: and systemd: do; raises what it failed with."""
    results: list[Any] = []
    listening.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    port: IListeningPort = result
    return port
