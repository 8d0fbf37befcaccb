"""Listening sockets that are bound here, or adopted, and may have another holder."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.internet import endpoints
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.python.systemd import ListenFDs

from imapgate.net.sockets import Sockets
from tests.net.wires import DONE

TCP = "tcp:0:interface=127.0.0.1"
TCP6 = r"tcp:0:interface=\:\:1"
Listener = Callable[[str], socket.socket]


class Gates:
    """Processes, as far as these tests are concerned: they share a reactor that runs while something is waited for."""

    def __init__(self) -> None:
        self.reactor = EPollReactor()
        self.accepted: list[str] = []
        self.all: list[Sockets] = []

    def gate(self, **inherited: int) -> Sockets:
        """Another one."""
        self.all.append(Sockets(self.reactor, inherited))
        return self.all[-1]

    def serves(self, name: str) -> Factory:
        """What remembers by whom a client was accepted."""
        gates = self

        class Accepted(Protocol):
            def connectionMade(self) -> None:
                gates.accepted.append(name)
                self.transport.loseConnection()

        return Factory.forProtocol(Accepted)

    def until(self, condition: Callable[[], object]) -> None:
        """Run until this is so."""
        for _ in range(2000):
            if condition():
                return
            self.reactor.iterate(0.01)
        raise AssertionError("it did not come")

    def stop(self, gate: Sockets, *served: str) -> None:
        """Stop one."""
        stopped = Deferred.fromCoroutine(gate.stop(served))
        self.until(lambda: stopped.called)

    def accepts(self, listener: socket.socket) -> str | None:
        """Who accepts a client at this socket; None: it is refused, `nobody`: it waits in the queue."""
        self.accepted.clear()
        with socket.socket(listener.family) as client:
            try:
                client.connect(listener.getsockname())
            except OSError:
                return None
            for _ in range(5):
                self.reactor.iterate(0)
        return self.accepted[0] if self.accepted else "nobody"


@pytest.fixture
def gates() -> Iterator[Gates]:
    """Processes."""
    made = Gates()
    yield made
    for gate in made.all:
        made.stop(gate)
        gate.settle()
    for reader in made.reactor.removeAll():
        reader.connectionLost(DONE)


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Callable[[str], socket.socket]]:
    """A listening socket by its kind, as another process has bound it; a Unix socket is its owner's alone."""
    with ExitStack() as stack:

        def bind(kind: str) -> socket.socket:
            family = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}[kind]
            listener = stack.enter_context(socket.socket(family))
            listener.bind({"tcp": ("127.0.0.1", 0), "tcp6": ("::1", 0), "unix": str(tmp_path / "imap")}[kind])
            if kind == "unix":
                (tmp_path / "imap").chmod(0o600)
            listener.listen()
            listener.setblocking(False)
            return listener

        yield bind


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix"])
def test_adopted(gates: Gates, bound: Listener, kind: str, tmp_path: Path) -> None:
    """A socket that was inherited is served as it is, and stopping leaves it to the others who hold it."""
    listener = bound(kind)
    for name in ("first", "second"):
        gate = gates.gate(it=os.dup(listener.fileno()))
        port = gate.listen("it", gates.serves(name))
        assert gate.ports == {"it": port}
        assert gates.accepts(listener) == name
        assert (tmp_path / "imap").exists() is (kind == "unix")
        assert kind != "unix" or (tmp_path / "imap").stat().st_mode & 0o777 == 0o600
        gates.stop(gate)
        assert gate.ports == {}
        assert gates.accepts(listener) == "nobody"


@pytest.mark.parametrize("endpoint", [TCP, TCP6, "unix"])
@pytest.mark.parametrize("how", ["lent", "served", "alone"])
def test_f17_socket_that_another_holds(gates: Gates, tmp_path: Path, endpoint: str, how: str) -> None:
    """F17: what is lent, or served by another, is only closed; what is ours alone is shut down, its path removed."""
    if endpoint == "unix":
        endpoint = f"unix:{tmp_path / 'imap'}"
    gate = gates.gate()
    descriptor = gate.listen(endpoint, gates.serves("old")).fileno()
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        assert gates.accepts(listener) == "old"
        gate.lent = how == "lent"
        gates.stop(gate, *([endpoint] if how == "served" else ["tcp:1"]))
        assert gates.accepts(listener) == (None if how == "alone" else "nobody")
        newcomer = gates.gate(it=os.dup(listener.fileno()))
        if how != "alone":
            newcomer.listen("it", gates.serves("new"))
            assert gates.accepts(listener) == "new"


@pytest.mark.parametrize("lock", [0, 1])
def test_path_of_a_unix_socket(gates: Gates, tmp_path: Path, lock: int) -> None:
    """Path and lock file are the old process's until the newcomer settles, and the newcomer's from then on."""
    path = tmp_path / "imap"
    endpoint = f"unix:{path}:lockfile={lock}"
    old = gates.gate()
    descriptor = old.listen(endpoint, gates.serves("old")).fileno()
    newcomer = gates.gate(**{endpoint: os.dup(descriptor)})
    newcomer.listen(endpoint, gates.serves("new"))
    gates.stop(newcomer)
    assert path.exists()
    locked = tmp_path / "imap.lock"
    if lock:
        locked.unlink()
        locked.symlink_to("1")  # another process's
    newcomer = gates.gate(**{endpoint: os.dup(descriptor)})
    newcomer.listen(endpoint, gates.serves("new"))
    assert newcomer.settle() == [endpoint]
    if lock:
        assert os.readlink(locked) == str(os.getpid())
    gates.stop(old, endpoint)
    assert path.exists()
    gates.stop(newcomer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "domain"), [("tcp", "INET"), ("tcp6", "INET6"), ("unix", "UNIX")])
def test_f17_socket_of_systemd(
    gates: Gates, bound: Listener, monkeypatch: pytest.MonkeyPatch, kind: str, domain: str, tmp_path: Path
) -> None:
    """F17: what systemd has bound is served, by one process after the other; clients wait meanwhile."""
    listener = bound(kind)
    endpoint = f"systemd:domain={domain}:name=imap"
    for name in ("first", "second"):
        os.set_blocking(listener.fileno(), True)  # as systemd hands it on
        handed = ListenFDs([os.dup(listener.fileno())], ["imap"])
        monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", handed)
        gate = gates.gate()
        gate.listen(endpoint, gates.serves(name))
        assert gate.settle() == []
        assert not os.get_blocking(listener.fileno())
        assert gates.accepts(listener) == name
        assert kind != "unix" or (tmp_path / "imap").stat().st_mode & 0o777 == 0o600
        gates.stop(gate)
        assert gates.accepts(listener) == "nobody"
    gate = gates.gate(**{endpoint: os.dup(listener.fileno())})  # handed over by the last of them
    gate.listen(endpoint, gates.serves("third"))
    assert gate.settle() == [endpoint]
    gates.stop(gate)
    assert gates.accepts(listener) == "nobody"


def test_socket_that_nobody_wants(gates: Gates, bound: Listener) -> None:
    """What was inherited and is not listened on is closed."""
    descriptor = os.dup(bound("tcp").fileno())
    gate = gates.gate(it=descriptor)
    assert gate.settle() == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_cannot_be_listened_on(gates: Gates, bound: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken, an endpoint that is there already and a socket that nobody handed on are errors."""
    gate = gates.gate()
    host, port = bound("tcp").getsockname()
    with pytest.raises(CannotListenError, match="in use"):
        gate.listen(f"tcp:{port}:interface={host}", gates.serves("it"))
    monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", ListenFDs([], []))
    with pytest.raises(LookupError):
        gate.listen("systemd:domain=INET:name=imap", gates.serves("it"))
    gate.listen(TCP, gates.serves("it"))
    with pytest.raises(ValueError, match="already"):
        gate.listen(TCP, gates.serves("it"))
