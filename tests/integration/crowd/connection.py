"""One client's connection: octets out, octets in, all of it heard by a listener and written into a journal."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.integration.crowd.commands import Command
from tests.integration.crowd.listener import Listener
from tests.integration.crowd.violation import Violation, shown

HOST = "127.0.0.1"
PATIENCE = 20.0
"""Seconds after which a command has been forgotten."""


class Ended(Exception):
    """The other side has said why, and closed."""


class Journal:
    """What was said on all connections since the last checkpoint, in the order in which it was seen."""

    def __init__(self) -> None:
        self._said: list[tuple[str, str, bytes]] = []
        self.commands = 0

    def add(self, who: str, way: str, data: bytes) -> None:
        """Write down what somebody has sent (``C``) or was sent (``S``)."""
        self._said.append((who, way, data))

    def clear(self) -> None:
        """Forget all so far."""
        self._said.clear()

    def last(self, who: str, count: int) -> str:
        """The last that one of them has said and heard."""
        mine = [f"{way}: {shown(data)}" for name, way, data in self._said if name == who]
        return "\n".join(mine[-count:])

    def write(self, path: Path) -> None:
        """Write all of it to a file."""
        path.write_text("".join(f"{who} {way}: {repr(data)[2:-1]}\n" for who, way, data in self._said))


class Connection(asyncio.Protocol):
    """A connection; what its listener objects to is raised where the client waits."""

    def __init__(self, listener: Listener, journal: Journal) -> None:
        self.listener = listener
        self.closed = False
        self._journal = journal
        self._tags = (b"t%d" % number for number in itertools.count(1))
        self._failed: Violation | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def to(cls, port: int, listener: Listener, journal: Journal) -> Self:
        """Connect, and await the greeting."""
        _, protocol = await asyncio.get_running_loop().create_connection(lambda: cls(listener, journal), HOST, port)
        await protocol.until(lambda: listener.greeted)
        return protocol

    # -- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Octets have come."""
        self._journal.add(self.listener.who, "S", data)
        if self._failed is None:
            try:
                self.listener.received(data)
            except Violation as violation:
                self._failed = violation
        self._wake()

    def connection_lost(self, _: Exception | None) -> None:
        """No more will come."""
        self._journal.add(self.listener.who, "-", b"closed")
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- the client's side ---------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Wait until this holds.

        :raise Violation: what was heard meanwhile is one; or nobody has said why the connection ended.
        :raise Ended: the connection has ended.
        """
        loop = asyncio.get_running_loop()
        while True:
            if self._failed is not None:
                raise self._failed
            if condition():
                return
            if self.closed:
                if self.listener.ended or self.listener.may_end:
                    raise Ended
                raise Violation(f"{self.listener.who}: the connection ended, and nobody has said why")
            self._waiter = loop.create_future()
            try:
                async with asyncio.timeout(patience):
                    await self._waiter
            except TimeoutError:
                raise Violation(f"{self.listener.who}: forgotten for {patience} s") from None
            finally:
                self._waiter = None

    async def give(self, *commands: Command) -> None:
        """Send commands, all at once, and wait for their answers."""
        lines = []
        for command in commands:
            command.tag = next(self._tags)
            lines.append(b"%b %b\r\n" % (command.tag, command.line))
        if (literal := commands[0].literal) is not None:
            mark = b"+" if b"LITERAL+" in self.listener.capabilities else b""
            lines = [b"%b %b{%d%b}\r\n" % (commands[0].tag, commands[0].line, len(literal), mark)]
            if mark:
                lines += [literal, b"\r\n"]
        self._send(b"".join(lines), *commands)
        if literal is not None and len(lines) == 1:
            before = self.listener.continuations
            await self.until(lambda: self.listener.continuations > before or not self.listener.in_flight)
            if self.listener.in_flight:
                self._send(literal + b"\r\n")
        await self.until(lambda: not self.listener.in_flight)

    def _send(self, data: bytes, *commands: Command) -> None:
        assert self._transport is not None
        for command in commands:
            self.listener.sent(command)
        self._journal.commands += len(commands)
        self._journal.add(self.listener.who, "C", data)
        self._transport.write(data)

    async def begin_idle(self, command: Command) -> bool:
        """Give IDLE, and wait for its ``+``; whether it has come."""
        command.tag = next(self._tags)
        before = self.listener.continuations
        self._send(b"%b %b\r\n" % (command.tag, command.line), command)
        await self.until(lambda: self.listener.continuations > before or not self.listener.in_flight)
        return bool(self.listener.in_flight)

    async def done(self) -> None:
        """End IDLE."""
        self._send(b"DONE\r\n")
        await self.until(lambda: not self.listener.in_flight)

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
