"""Listening sockets handed on between real processes, under clients that never stop coming."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport

from imapgate.net import handover as module
from imapgate.net.handover import HandoverFactory, HandoverFailed, Peer, Taken, peer_of, take
from imapgate.net.sockets import Sockets
from tests.integration.servers.base import CLONE, free_port
from tests.net.wires import DONE, logged

HANDOVERS = 20
SECONDS = 30.0
"""The most that anything here is waited for."""

Address = tuple[str, int] | str


# --- two processes ----------------------------------------------------------------------------------


class Process:
    """A greeter."""

    def __init__(self, handover: Path, when: str, *endpoints: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.net.greeter", str(handover), when, *endpoints],
            cwd=CLONE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.pid = self.process.pid

    def says(self, wanted: str) -> None:
        """Its next line is this one."""
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], SECONDS)[0], f"no {wanted!r}, only {line!r}"
            octet = self.process.stdout.read(1)
            assert octet, f"it ended before {wanted!r}"
            line += octet
        assert line.decode().strip() == wanted

    def end(self, number: signal.Signals | None = None) -> int:
        """Wait for its end, after this signal; how it ended."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)


class Processes:
    """Starts greeters, and ends those that are left."""

    def __init__(self, folder: Path) -> None:
        self.handover = folder / "control.handover"
        self.path = folder / "imap"
        self.port = free_port()
        self.addresses: list[Address] = [("127.0.0.1", self.port), str(self.path)]
        self.endpoints = [f"tcp:{self.port}:interface=127.0.0.1:backlog=1024", f"unix:{self.path}:backlog=1024"]
        self.started: list[Process] = []

    def start(self, when: str = "now", endpoints: list[str] | None = None) -> Process:
        """Start one; it takes over from the one that runs, if any."""
        process = Process(self.handover, when, *(self.endpoints if endpoints is None else endpoints))
        self.started.append(process)
        process.says("listening")
        if when == "now":
            process.says("serving")
        return process


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Greeters on one port and one Unix socket."""
    made = Processes(tmp_path)
    yield made
    for process in made.started:
        if process.process.poll() is None:
            process.process.kill()
        process.process.wait(SECONDS)
        assert process.process.stdout is not None
        process.process.stdout.close()


def call(address: Address) -> socket.socket:
    """Connect."""
    connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    connection.settimeout(SECONDS)
    connection.connect(address)
    return connection


def greeting(connection: socket.socket) -> int:
    """Read a greeting: the process id of whoever gave it."""
    line = b""
    while not line.endswith(b"\n"):
        data = connection.recv(1)
        assert data, "closed without a greeting"
        line += data
    assert line.startswith(b"* ")
    return int(line[2:])


def finish(connection: socket.socket) -> None:
    """Send a line, and read it again, and nothing else, up to the end."""
    with connection:
        connection.sendall(b"hello\n")
        rest = b""
        while data := connection.recv(100):
            rest += data
        assert rest == b"hello\n"


class Visitors:
    """Clients that come one after the other, at each address, until they are told to stop."""

    def __init__(self, addresses: list[Address]) -> None:
        self.served: dict[int, int] = {}
        self.failures: list[str] = []
        self._over = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._come, args=(address,)) for address in addresses]

    def __enter__(self) -> Visitors:
        """Let them come."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The last ones are served."""
        self._over = True
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def _come(self, address: Address) -> None:
        while not self._over:
            try:
                connection = call(address)
                pid = greeting(connection)
                finish(connection)
            except (OSError, AssertionError) as error:
                with self._changed:
                    self.failures.append(f"{address}: {error!r}")
                    self._changed.notify()
                return
            with self._changed:
                self.served[pid] = self.served.get(pid, 0) + 1
                self._changed.notify()

    def until(self, pid: int, count: int) -> None:
        """Wait until this process has served so many, or something has failed."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.failures or self.served.get(pid, 0) >= count, SECONDS)


def test_f17_twenty_restarts(processes: Processes) -> None:
    """F17: of all clients that come during 20 handovers none is refused, reset or left alone; old sessions go on."""
    running = processes.start()
    with Visitors(processes.addresses) as visitors:
        for _ in range(HANDOVERS):
            visitors.until(running.pid, 25)
            session = call(processes.addresses[0])
            served_by = greeting(session)
            newcomer = processes.start()
            running.says(f"taken over by {newcomer.pid}")
            assert served_by == running.pid
            finish(session)
            running.says("drained")
            assert running.end() == 0
            running = newcomer
        visitors.until(running.pid, 25)
    assert visitors.failures == []
    assert len(visitors.served) == HANDOVERS + 1
    assert running.end(signal.SIGTERM) == 0
    assert not list(processes.path.parent.iterdir())  # neither sockets nor lock files


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_f17_newcomer_that_dies(processes: Processes, number: signal.Signals) -> None:
    """F17: a newcomer that ends before it serves, killed or asked to, changes nothing; the next one takes over."""
    running = processes.start()
    with Visitors(processes.addresses) as visitors:
        for _ in range(3):
            newcomer = processes.start("told")
            visitors.until(running.pid, visitors.served.get(running.pid, 0) + 25)
            newcomer.end(number)
            visitors.until(running.pid, visitors.served.get(running.pid, 0) + 25)
        assert set(visitors.served) == {running.pid}
        newcomer = processes.start()
        running.says(f"taken over by {newcomer.pid}")
        visitors.until(newcomer.pid, 25)
    assert visitors.failures == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_f17_old_process_ends_meanwhile(processes: Processes, number: signal.Signals) -> None:
    """F17: the old process may end before the newcomer serves, killed or asked to: who came meanwhile is served."""
    running = processes.start()
    newcomer = processes.start("told")
    running.end(number)
    waiting = [call(address) for address in processes.addresses]
    newcomer.process.send_signal(signal.SIGUSR1)
    newcomer.says("serving")
    for connection in waiting:
        assert greeting(connection) == newcomer.pid
        finish(connection)
    assert newcomer.end(signal.SIGTERM) == 0
    assert not list(processes.path.parent.iterdir())


def test_what_the_newcomer_does_not_want(processes: Processes) -> None:
    """A port or a Unix socket that the newcomer's configuration has no more is closed by both, and its path removed."""
    running = processes.start()
    for kept, gone in ((0, 1), (1, 0)):
        newcomer = processes.start(endpoints=[processes.endpoints[kept]])
        running.says(f"taken over by {newcomer.pid}")
        running.says("drained")
        connection = call(processes.addresses[kept])
        assert greeting(connection) == newcomer.pid
        finish(connection)
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            call(processes.addresses[gone])
        running = newcomer


# --- what the two say to each other -----------------------------------------------------------------


class Running:
    """A process that can be taken over: this one, on a reactor that runs only while something is waited for."""

    endpoint = "tcp:0:interface=127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self.reactor = EPollReactor()
        self.path = str(folder / "control.handover")
        self.sockets = Sockets(self.reactor)
        self.newcomers: list[int] = []
        self.lines: list[str] = []
        self.factory = HandoverFactory(self.sockets, self.newcomers.append)
        self.port = self.sockets.listen(self.endpoint, Factory.forProtocol(Protocol)).getHost().port
        self.sockets.listen(f"unix:{self.path}", self.factory)

    def until(self, condition: Callable[[], object]) -> None:
        """Run until this is so."""
        for _ in range(2000):
            if condition():
                return
            self.reactor.iterate(0.01)
        raise AssertionError("it did not come")

    def take(self) -> Taken:
        """Ask it, as another process would."""
        with ThreadPoolExecutor(1) as other:
            asking = other.submit(take, self.path, SECONDS)
            self.until(asking.done)
            return asking.result()

    def accepts(self) -> bool:
        """Whether a client would be let in."""
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A process that can be taken over."""
    made = Running(tmp_path)
    with logged(module) as made.lines:
        yield made
        stopped = Deferred.fromCoroutine(made.sockets.stop())
        made.until(lambda: stopped.called)
        for reader in made.reactor.removeAll():
            reader.connectionLost(DONE)
        made.until(lambda: made.factory.newcomer is None or not made.sockets.lent)


def die(newcomer: Taken) -> None:
    """Close everything, as the kernel does for a process that is killed."""
    assert newcomer._connection is not None
    newcomer._connection.close()
    for descriptor in newcomer.descriptors.values():
        os.close(descriptor)


def insist(running: Running) -> None:
    """Say that we serve, though we are refused; no descriptor comes of that."""
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(running.path)
        stranger.sendall(b'{"serving": []}\n')
        running.until(lambda: select.select([stranger], [], [], 0)[0])
        answer, descriptors, _, _ = socket.recv_fds(stranger, 1000, 10)
        assert answer.startswith(b'{"refused": ')
        assert descriptors == []
        running.until(lambda: select.select([stranger], [], [], 0)[0])
        with suppress(ConnectionResetError):
            assert stranger.recv(1000) == b""


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def test_taken_over(running: Running) -> None:
    """Both hold the sockets until the newcomer serves them; then it alone does, and the service is told who it is."""
    taken = running.take()
    assert list(taken.descriptors) == [running.endpoint, f"unix:{running.path}"]
    assert running.sockets.lent
    newcomer = Sockets(running.reactor, taken.descriptors)
    newcomer.listen(running.endpoint, Factory.forProtocol(Protocol))
    assert running.newcomers == []
    taken.serving(newcomer)
    running.until(lambda: running.newcomers)
    assert running.newcomers == [os.getpid()]
    assert running.sockets.ports == {}
    assert not running.sockets.lent
    assert running.lines == [
        f"info: process {os.getpid()} is handed the listening sockets",
        f"info: process {os.getpid()} has taken over",
    ]
    assert running.accepts()
    running.until(lambda: not os.path.exists(running.path))  # it was not wanted
    taken.serving(newcomer)  # once is enough
    stopped = Deferred.fromCoroutine(newcomer.stop())
    running.until(lambda: stopped.called)
    assert not running.accepts()


def test_f17_a_stranger_is_refused(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """F17: a process of another user gets no socket, whatever it sends; root does."""
    monkeypatch.setattr(module, "peer_of", lambda connection: Peer(4711, os.geteuid() + 1))
    with pytest.raises(HandoverFailed, match="only its own user and root may take over"):
        running.take()
    insist(running)
    assert running.lines[0] == (
        f"warn: no handover to process 4711 of user {os.geteuid() + 1}: only its own user and root may take over"
    )
    assert running.newcomers == []
    assert not running.sockets.lent
    assert running.accepts()
    monkeypatch.setattr(module, "peer_of", lambda connection: Peer(4711, 0))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    die(running.take())


def test_peer_of() -> None:
    """The kernel says who is at the other end."""
    for connection in (pair := socket.socketpair()):
        assert peer_of(connection) == (os.getpid(), os.geteuid())
    for connection in pair:
        connection.close()


def test_one_at_a_time(running: Running) -> None:
    """A second newcomer is refused while there is one, and no more when that one has ended."""
    first = running.take()
    with pytest.raises(HandoverFailed, match=f"process {os.getpid()} is taking over"):
        running.take()
    second = running.factory.buildProtocol(None)
    second.transport = StringTransport()
    second.lineReceived(b'{"serving": []}')  # which Twisted would not read any more
    assert second.transport.disconnected
    assert running.newcomers == []
    assert running.sockets.lent
    die(first)
    running.until(lambda: not running.sockets.lent)
    die(running.take())
    assert running.lines[-2] == f"warn: process {os.getpid()} ended before it served; this one goes on"
    assert running.newcomers == []
    assert running.accepts()


@pytest.mark.parametrize(
    "line", [b"", b"serving", b"[]", b"{}", b'{"serving": 1}', b'{"serving": [1]}', b"\xff", b"x" * 70000]
)
def test_newcomer_that_cannot_be_understood(running: Running, line: bytes) -> None:
    """What is not the newcomer's line takes nothing over."""
    taken = running.take()
    assert taken._connection is not None
    taken._connection.sendall(line + b"\n")
    running.until(lambda: running.factory.newcomer is None)
    die(taken)
    assert running.newcomers == []
    assert running.accepts()


@contextmanager
def answering(path: str, answer: bytes, sent: list[int]) -> Iterator[None]:
    """A process that gives this answer, with these descriptors."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answers() -> None:
            connection, _ = listener.accept()
            with connection:
                if answer:
                    socket.send_fds(connection, [answer], sent)

        thread = threading.Thread(target=answers)
        thread.start()
        try:
            yield
        finally:
            thread.join(SECONDS)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "there is no answer"),
        (b'{"sockets": ["tcp:1"', "the answer is cut off"),
        (b"* OK hello\n", "the answer is not understood"),
        (b"\xff\n", "the answer is not understood"),
        (b"[]\n", "the answer is not understood"),
        (b'{"sockets": ["tcp:1", "tcp:2"]}\n', "1 sockets came for 2 endpoints"),
        (b'{"sockets": []}\n', "1 sockets came for 0 endpoints"),
        (b'{"refused": "why"}\n', "no handover by .*: why"),
        (b"x" * 70000, "cut off"),
    ],
)
def test_running_process_that_cannot_be_understood(tmp_path: Path, answer: bytes, error: str) -> None:
    """Whatever comes instead of the sockets is an error that says so, and no descriptor is left open."""
    path = str(tmp_path / "handover")
    with socket.socket() as listener:
        before = descriptors()
        with answering(path, answer, [listener.fileno()]), pytest.raises(HandoverFailed, match=error):
            take(path, SECONDS)
        assert descriptors() == before


def test_running_process_that_does_not_answer(tmp_path: Path) -> None:
    """Who does not answer is not waited for without end."""
    path = str(tmp_path / "handover")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(HandoverFailed, match="timed out"):
            take(path, 0.01)


@pytest.mark.parametrize("left", [False, True])
def test_nobody_to_take_over_from(tmp_path: Path, left: bool) -> None:
    """Where no process runs, with or without the socket that a killed one has left, this is an ordinary start."""
    path = str(tmp_path / "handover")
    if left:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
    taken = take(path, SECONDS)
    assert taken.descriptors == {}
    taken.serving(Sockets(None))


def test_socket_of_somebody_else(tmp_path: Path) -> None:
    """A socket that cannot be connected to is an error."""
    with pytest.raises(HandoverFailed, match="Not a directory"):
        take("/dev/null/handover", SECONDS)
