"""TCP transports that send at once: for the protocols above they are Twisted's own, only sooner.

Twisted's transports keep what is written until the reactor comes round to them; where nothing waits to be sent that
costs two calls of epoll_ctl and a turn of the reactor for each answer.  These try the socket first, and leave to
Twisted whatever it does not take.  Knows sockets' buffers, and nothing of what is sent.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp
from zope.interface import directlyProvides, providedBy


class _Eager(tcp.Connection):
    """Sends at once, in order: never past what waits already, and never while TLS is between."""

    def write(self, data: bytes) -> None:
        """Send, or keep what cannot be sent now."""
        waiting = self.dataBuffer or self._tempDataBuffer or self.disconnecting or self._writeDisconnected
        if self.connected and not waiting and not self.TLS:
            sent = self.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int):  # else it is an error, which Twisted finds for itself in its own time
                data = data[sent:]
        super().write(data)


class EagerServer(_Eager, tcp.Server):
    """The transport of a connection that was accepted."""


class EagerClient(_Eager, tcp.Client):
    """The transport of a connection that was made from here."""


class _Connector(tcp.Connector):
    def _makeTransport(self) -> tcp.Client:
        return EagerClient(self.host, self.port, self.bindAddress, self, self.reactor)


class EagerReactor:
    """The reactor, for endpoints whose connections are to be :class:`EagerClient`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> tcp.Connector:
        """Connect, as IReactorTCP says."""
        connector = _Connector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector
