"""An operator without a gate, and control sockets for it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from imapgate.admin.control import ControlFactory, ControlProtocol
from imapgate.admin.listen import Control
from imapgate.admin.operator import Row
from tests.net.wires import Wire, connect

T = TypeVar("T")
SECONDS = 20.0
"""For whatever should happen at once."""
ROWS: Sequence[Row] = (
    {"session": "91f13aea8801", "user": "alice", "idle_seconds": 3.25, "commands": 5, "mailbox": None},
    {"session": "7296a56aeed9", "user": "bob@example.org", "idle_seconds": 4000, "commands": 1200, "mailbox": "INBOX"},
)


class FakeOperator:
    """Answers what the test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.rows: Sequence[Row] = ROWS
        self.fault: Exception | None = None
        self.held: Deferred[None] | None = None
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.acted: Deferred[str] = Deferred()  # when act is called
        self.traced: Deferred[tuple[str, int | None]] = Deferred()  # when a trace begins
        self.stopped: Deferred[None] = Deferred()  # when it is stopped
        self.write: Callable[[Row], None]

    def show(self, what: str) -> Sequence[Row]:
        """Answer."""
        self.asked.append((what, {}))
        if self.fault is not None:
            raise self.fault
        return self.rows

    async def act(self, command: str, arguments: Mapping[str, str]) -> Sequence[Row]:
        """Answer, perhaps later."""
        self.asked.append((command, arguments))
        if not self.acted.called:
            self.acted.callback(command)
        if self.held is not None:
            await self.held
        if self.fault is not None:
            raise self.fault
        return self.rows

    def trace(self, user: str, seconds: int | None, write: Callable[[Row], None]) -> Callable[[], None]:
        """Begin, and wait for the test to write."""
        if self.fault is not None:
            raise self.fault
        self.write = write
        self.traced.callback((user, seconds))
        return lambda: self.stopped.callback(None)


class LocalWire(Wire):
    """A Unix socket's transport, as far as a control connection uses it, with this process at the other end."""

    def __init__(self) -> None:
        super().__init__()
        self._pair = socket.socketpair()
        self.aborted = False

    def getHandle(self) -> socket.socket:
        """The socket, for the kernel's word on who is there."""
        return self._pair[0]

    def abortConnection(self) -> None:
        """Remember."""
        self.aborted = self.disconnecting = True

    def close(self) -> None:
        """Take the sockets away."""
        for end in self._pair:
            end.close()


class Desk:
    """A control socket's connections without a socket."""

    def __init__(self, *, read_only: bool = False, full: Path | None = None) -> None:
        self.clock = Clock()
        self.operator = FakeOperator()
        self.factory = ControlFactory(self.operator, self.clock, read_only=read_only, full=full)
        self.wires: list[LocalWire] = []

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *error: object) -> None:
        for wire in self.wires:
            wire.close()

    def connect(self) -> tuple[ControlProtocol, LocalWire]:
        """Somebody comes."""
        protocol, wire = self.factory.buildProtocol(None), LocalWire()
        self.wires.append(wire)
        connect(protocol, wire)
        return protocol, wire


@asynccontextmanager
async def serving(
    operator: FakeOperator, full: Path | None, reading: Path | None = None, *, successor: bool = False
) -> AsyncIterator[Control]:
    """Real control sockets, for as long as it takes."""
    control = Control(reactor, operator, full, reading, successor=successor)
    control.startService()
    try:
        yield control
    finally:
        await control.stopService()


async def soon(deferred: Deferred[T]) -> T:
    """Wait for what should happen at once."""
    return await deferred.addTimeout(SECONDS, reactor)
