"""One raw IMAP connection of asyncio's: octets out, octets in, each of them shown to a witness."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Literal, Self

from tests.integration.canary.witness import Command, Witness

HOST = "127.0.0.1"
CHUNK = 65536
NARROW = 8192
"""A small receive buffer. With the least that can be had Linux stalls for minutes, window closed, nothing to read."""


class Ended(Exception):
    """The other side has closed; the witness did not mind."""


class Client:
    """A connection, blocking nobody; a ``narrow`` one has a small receive buffer."""

    def __init__(self, sock: socket.socket, witness: Witness) -> None:
        self.socket = sock
        self.witness = witness
        self.kept: bytearray | None = None
        """All that was received, where somebody wants it."""
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, port: int, witness: Witness, *, narrow: bool = False) -> Self:
        """Connect to a port of this machine."""
        sock = socket.socket()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if narrow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
            await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
        except BaseException:
            sock.close()
            raise
        return cls(sock, witness)

    async def send(self, data: bytes, *commands: Command) -> None:
        """Send octets in which these commands begin.

        :raise Ended: the other side has closed; what it had said before is heard first.
        """
        self.witness.sent(data, *commands)
        try:
            await self._loop.sock_sendall(self.socket, data)
        except OSError:
            while True:
                await self.hear()

    async def hear(self, size: int = CHUNK) -> None:
        """Receive once.

        :raise Ended: the end has come.
        """
        try:
            data = await self._loop.sock_recv(self.socket, size)
        except OSError:
            data = b""
        if not data:
            self.witness.lost()
            raise Ended
        self.witness.received(data)
        if self.kept is not None:
            self.kept += data

    async def until(self, condition: Callable[[], bool]) -> None:
        """Receive until this holds."""
        while not condition():
            await self.hear()

    async def answered(self, *commands: Command) -> None:
        """Receive until all these commands are answered."""
        in_flight = self.witness.in_flight
        for command in commands:
            while command.tag in in_flight:
                await self.hear()

    async def prompted(self, command: Command) -> bool:
        """Receive until the next ``+``, or until the command is answered instead (then ``False``)."""
        witness = self.witness
        before = witness.continuations
        while command.tag in witness.in_flight and witness.continuations == before:
            await self.hear()
        return command.tag in witness.in_flight

    def half_close(self) -> None:
        """Close the sending side."""
        self.witness.may_end = True
        self.witness.noted(b"half-close")
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Ended from error

    def end(self, how: Literal["fin", "rst"] = "fin") -> None:
        """Close at once, whatever is under way."""
        if how == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()
