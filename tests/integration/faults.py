"""A fault proxy for loopback TCP: what a bad network does to a byte stream, at a chosen byte.

It knows bytes, directions and connections and nothing of IMAP or TLS.  ``up`` is the direction from the peer that
connected towards the target, ``down`` the way back.
Offsets count the bytes of one direction of one connection, from 0.

::

    with FaultProxy(target=("127.0.0.1", 143)) as proxy:
        proxy.plan(down=Fault(cut_at=100, cut="rst"))    # the next connection only
        ... connect to proxy.port ...
        proxy.wait(lambda: proxy.connections[0].closed)
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one direction of one connection; the default is a faithful wire."""

    latency: float = 0.0
    """Seconds that each received chunk waits before it is passed on."""
    bandwidth: int = 0
    """Most bytes a second; 0: as many as come."""
    slice: int = 0
    """Most bytes in one write, with a turn of the loop between two; 0: as they come."""
    cut_at: int | None = None
    """After exactly this many bytes both ends of the connection are closed."""
    cut: Literal["fin", "rst"] = "fin"
    half_close_at: int | None = None
    """After this many bytes the receiver is told end of file; the other direction goes on."""
    black_hole_at: int | None = None
    """What follows this many bytes is read and never arrives; the connection stays open."""
    stall_at: int | None = None
    """After this many bytes nothing is read any more, until ``resume``."""

    def next_mark(self, done: int) -> int | None:
        """Give the nearest offset at or after ``done`` where something happens."""
        marks = [m for m in (self.cut_at, self.half_close_at, self.black_hole_at, self.stall_at) if m is not None]
        return min((m for m in marks if m >= done), default=None)


WIRE = Fault()


@dataclass(slots=True)
class Direction:
    """One direction of one connection: its fault and what has passed."""

    fault: Fault
    read: int = 0
    passed: int = 0
    data: bytearray = field(default_factory=bytearray)
    """The bytes passed on, kept when the proxy was made with ``keep=True``."""
    ended: bool = False
    half_closed: bool = False
    stalled: bool = False
    stall_done: bool = False
    """The ``stall_at`` mark was met; it does not come again."""
    flow: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Connection:
    """One connection through the proxy."""

    number: int
    up: Direction
    down: Direction
    near: socket.socket
    near_port: int
    """The port of the peer that connected."""
    far_port: int = 0
    """The port the proxy connected to the target from."""
    far: socket.socket | None = None
    closed: bool = False
    cut: bool = False
    """A fault closed it, not one of its two ends."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class FaultProxy:
    """A TCP proxy on a free loopback port, in a thread of its own."""

    def __init__(self, target: tuple[str, int] | str, *, keep: bool = False) -> None:
        self.target = target
        """(host, port), or the path of a Unix socket; may be changed between connections."""
        self.keep = keep
        self.connections: list[Connection] = []
        self.up = WIRE
        self.down = WIRE
        self._plans: deque[tuple[Fault, Fault]] = deque()
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)

    # -- the test's side ------------------------------------------------------------------------------------------

    def __enter__(self) -> FaultProxy:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, and serve in a thread."""
        self._thread.start()
        self.listen()

    def stop(self) -> None:
        """Reset every connection and end the thread."""
        if self._thread.is_alive():
            self._call(self._shut())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def plan(self, *, up: Fault = WIRE, down: Fault = WIRE) -> None:
        """Queue faults for one connection to come; with none queued the defaults ``self.up`` and ``self.down`` hold."""
        self._plans.append((up, down))

    def refuse(self) -> None:
        """Stop listening: the port refuses connections; those that exist go on."""
        self._call(self._refuse())

    def listen(self) -> None:
        """Listen (again) on the proxy's port."""
        self._call(self._listen())

    def stall(self, connection: Connection, direction: Literal["up", "down"]) -> None:
        """Read no more from this direction until ``resume``: its sender meets a full pipe."""
        self._call(self._set_stall(getattr(connection, direction), True))

    def resume(self, connection: Connection, direction: Literal["up", "down"]) -> None:
        """Undo ``stall`` or a ``stall_at``."""
        self._call(self._set_stall(getattr(connection, direction), False))

    def cut(self, connection: Connection, how: Literal["fin", "rst"] = "rst") -> None:
        """Close both ends of a connection now."""
        self._call(self._cut(connection, how))

    def forget(self) -> None:
        """Drop the records of connections that are closed; the numbers of later ones go on."""
        self._call(self._forget())

    def wait(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until ``condition`` holds; it is looked at after every change."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition():
                if not self._changed.wait(min(0.1, max(0.0, deadline - time.monotonic()))) and (
                    time.monotonic() > deadline
                ):
                    state = [(c.number, c.up.passed, c.down.passed, c.closed) for c in self.connections[-5:]]
                    raise AssertionError(
                        f"condition not met in {timeout} s; connections (n, up, down, closed): {state}"
                    )

    # -- the loop's side ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(512)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = self._loop.create_task(self._accept(listener))

    async def _refuse(self) -> None:
        if self._listener is not None and self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._listener.close()
            self._listener = None

    async def _shut(self) -> None:
        await self._refuse()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for connection in self.connections:
            await self._cut(connection, "rst")

    async def _forget(self) -> None:
        self.connections[:] = [connection for connection in self.connections if not connection.closed]

    async def _set_stall(self, direction: Direction, stalled: bool) -> None:
        direction.stalled = stalled
        if stalled:
            direction.flow.clear()
        else:
            direction.flow.set()
        self._notify()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            near, peer = await self._loop.sock_accept(listener)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            up, down = self._plans.popleft() if self._plans else (self.up, self.down)
            connection = Connection(next(self._numbers), Direction(up), Direction(down), near, peer[1])
            connection.up.flow.set()
            connection.down.flow.set()
            self.connections.append(connection)
            self._notify()
            self._spawn(self._serve(connection))

    async def _serve(self, connection: Connection) -> None:
        family = socket.AF_UNIX if isinstance(self.target, str) else socket.AF_INET
        far = socket.socket(family)
        far.setblocking(False)
        connection.far = far
        try:
            await self._loop.sock_connect(far, self.target)
        except OSError:
            await self._cut(connection, "rst")
            return
        if family == socket.AF_INET:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.far_port = far.getsockname()[1]
        connection.tasks = [
            self._loop.create_task(self._pump(connection, connection.up, connection.near, far)),
            self._loop.create_task(self._pump(connection, connection.down, far, connection.near)),
        ]
        await asyncio.wait(connection.tasks)
        if not connection.closed:
            await self._cut(connection, "fin")
            connection.cut = False

    async def _pump(self, connection: Connection, way: Direction, source: socket.socket, sink: socket.socket) -> None:
        fault = way.fault
        try:
            while True:
                await self._marks(connection, way, sink)
                data = await self._loop.sock_recv(source, CHUNK)
                if not data:
                    break
                way.read += len(data)
                if fault.latency:
                    await asyncio.sleep(fault.latency)
                await self._pass(connection, way, data, sink)
            way.ended = True
            if not way.half_closed and (fault.black_hole_at is None or way.passed < fault.black_hole_at):
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            way.ended = True
            if not connection.closed:
                self._spawn(self._cut(connection, "rst"))
        finally:
            self._notify()

    async def _pass(self, connection: Connection, way: Direction, data: bytes, sink: socket.socket) -> None:
        """Write ``data`` in pieces that end at every mark of the fault."""
        fault, view = way.fault, memoryview(data)
        while view:
            await self._marks(connection, way, sink)
            if way.half_closed or (fault.black_hole_at is not None and way.passed >= fault.black_hole_at):
                return
            size = len(view)
            mark = fault.next_mark(way.passed + 1)
            if mark is not None:
                size = min(size, mark - way.passed)
            if fault.slice:
                size = min(size, fault.slice)
            await self._loop.sock_sendall(sink, view[:size])
            way.passed += size
            if self.keep:
                way.data += view[:size]
            view = view[size:]
            self._notify()
            if fault.bandwidth:
                await asyncio.sleep(size / fault.bandwidth)
            elif fault.slice:
                await asyncio.sleep(0)
        await self._marks(connection, way, sink)

    async def _marks(self, connection: Connection, way: Direction, sink: socket.socket) -> None:
        """Do what is due at the present offset; a cut ends the calling task."""
        fault = way.fault
        if fault.cut_at is not None and way.passed >= fault.cut_at:
            self._spawn(self._cut(connection, fault.cut))
            await asyncio.Event().wait()
        if fault.half_close_at is not None and way.passed >= fault.half_close_at and not way.half_closed:
            way.half_closed = True
            sink.shutdown(socket.SHUT_WR)
            self._notify()
        if fault.stall_at is not None and way.passed >= fault.stall_at and not way.stall_done:
            way.stall_done = True
            await self._set_stall(way, True)
        await way.flow.wait()

    async def _cut(self, connection: Connection, how: Literal["fin", "rst"]) -> None:
        if connection.closed:
            return
        connection.closed = connection.cut = True
        for task in connection.tasks:
            task.cancel()
        await asyncio.gather(*connection.tasks, return_exceptions=True)
        for end in (connection.near, connection.far):
            if end is None:
                continue
            with contextlib.suppress(OSError):
                if how == "rst":
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:  # unread bytes would turn the FIN of close() into a reset
                    while end.recv(CHUNK):
                        pass
            end.close()
        self._notify()
