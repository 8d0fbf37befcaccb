"""Sockets other than a port of the gate's own: Unix sockets on both sides, and sockets that systemd hands on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import User
from tests.integration.gate import Gate, upstream_of
from tests.integration.servers import Dovecot, wait_until
from tests.integration.servers.base import CLONE
from tests.integration.wire import Wire, connect

NewUser = Callable[..., User]


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def unix_door(path: Path, port: int) -> Iterator[list[socket.socket]]:
    """A Unix socket that leads to a port of this machine; gives what was accepted there."""
    accepted: list[socket.socket] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                accepted.append(near)
                far = socket.create_connection(("127.0.0.1", port))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=pair, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield accepted
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def by_path(path: Path) -> Wire:
    """Connect to a Unix socket and read the greeting."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    wire = Wire(sock)
    wire.greeting = wire.response()
    return wire


def test_unix_sockets_on_both_sides(dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """A client comes in by a Unix socket and goes on by one; it may log in without TLS, and its address is `unix`."""
    someone = user(dovecot)
    front, back = tmp_path / "front", tmp_path / "back"
    with ExitStack() as stack:
        accepted = stack.enter_context(unix_door(back, dovecot.port))
        table = {"endpoints": [f"unix:{back}"], "tls": "none"}
        # A relative path is relative to the configuration file.
        listeners = [{"endpoint": f"unix:{front}:mode=600", "tls": "none"}, {"endpoint": "unix:near", "tls": "none"}]
        gate = stack.enter_context(Gate({"main": table}, listeners=listeners))
        near = gate.directory / "near"
        wait_until(lambda: front.exists() and near.exists(), "the sockets")
        assert front.stat().st_mode & 0o777 == 0o600
        for path in (front, near):
            with by_path(path) as wire:
                assert b"LOGINDISABLED" not in wire.greeting
                wire.login(someone.name, someone.password)
                wire.ok(b"SELECT INBOX")
                wire.logout()
        with by_path(front) as wire:
            wire.command(b"LOGIN nobody wrong")
        gate.wait_log(rf'session ended: user="{someone.name}" address=unix reason="logout"')
        gate.wait_log(r'login failed: user="nobody" address=unix mechanism=LOGIN reason=credentials session=\w+\n')
        assert len(accepted) >= 3
        assert gate.stop() == 0
        assert not front.exists()


def test_starttls_by_a_unix_socket(dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """Upstream may be reached by a Unix socket and be verified all the same, by `server_name`."""
    someone = user(dovecot)
    with unix_door(tmp_path / "back", dovecot.port):
        table = upstream_of(dovecot, "starttls", endpoints=[f"unix:{tmp_path / 'back'}"])
        with Gate({"main": table}) as gate, connect(gate.host, gate.port) as wire:
            wire.login(someone.name, someone.password)
            wire.logout()
    wait_until(lambda: dovecot.login_count(someone.name) == 1, "the login")
    assert f"Login: user=<{someone.name}>" in dovecot.log()


class Handed(Gate):
    """A gate that is handed listening sockets as systemd does: from descriptor 3 on, named by the environment."""

    def __init__(self, sockets: list[socket.socket], names: str, endpoints: list[str], dovecot: Dovecot) -> None:
        """`names` go into LISTEN_FDNAMES."""
        self.sockets, self.names = sockets, names
        listeners = [{"endpoint": endpoint, "tls": "none", "allow_plaintext": True} for endpoint in endpoints]
        # As far as the gate can know, these sockets are open to everyone.
        super().__init__({"main": upstream_of(dovecot)}, listeners=listeners, allow_root=True)

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it by way of a shell, which moves the descriptors and becomes the process that LISTEN_PID names."""
        descriptors = [handed.fileno() for handed in self.sockets]
        # First out of the way: one may be another's place.
        moves = [f"exec {50 + number}<&{was}" for number, was in enumerate(descriptors)]
        moves += [f"exec {3 + number}<&{50 + number} {50 + number}<&-" for number in range(len(descriptors))]
        script = "; ".join([*moves, 'LISTEN_PID=$$ exec "$@"'])
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", script, "bash", *self.command()],
                cwd=self.directory,
                env={
                    **os.environ,
                    "PYTHONPATH": str(CLONE),
                    "LISTEN_FDS": str(len(descriptors)),
                    "LISTEN_FDNAMES": self.names,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
                start_new_session=True,
            )
        return self.process


@pytest.mark.parametrize("by", ["index", "name"])
def test_systemd_sockets(dovecot: Dovecot, user: NewUser, tmp_path: Path, by: str) -> None:
    """Sockets that systemd has bound are served, by index or by name, internet and Unix; none is bound anew."""
    someone = user(dovecot)
    path = tmp_path / "handed"
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket(socket.AF_UNIX) as second:
        port = first.getsockname()[1]
        second.bind(str(path))
        second.listen()
        which = ["index=0", "index=1"] if by == "index" else ["name=imap", "name=imap-unix"]
        endpoints = [f"systemd:domain={kind}:{one}" for kind, one in zip(("INET", "UNIX"), which, strict=True)]
        gate = Handed([first, second], "imap:imap-unix", endpoints, dovecot)
        with gate:
            with connect("127.0.0.1", port) as wire:
                wire.login(someone.name, someone.password)
                wire.ok(b"SELECT INBOX")
                wire.logout()
            with by_path(path) as wire:
                wire.login(someone.name, someone.password)
                wire.logout()
            gate.wait_log("address=unix")
            gate.wait_log("address=127.0.0.1")
            assert gate.stop() == 0
            # Ours is still bound: whoever starts it again misses no client (F17).
            with socket.create_connection(("127.0.0.1", port)) as waiting:
                assert waiting.getpeername()[1] == port
