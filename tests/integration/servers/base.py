"""What all test servers share: their face, their processes, their ports, their log.

A server lives in a temporary folder of its own, listens on 127.0.0.1 only, and is signalled by the ids of the
processes that it started, never by name.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.integration.servers.authority import CertificateAuthority

HOST = "127.0.0.1"
START_SECONDS = 20.0
CLONE = Path(__file__).resolve().parents[3]
PEERS = CLONE / ".peers"

_given_ports: set[int] = set()


class ServerFailed(AssertionError):
    """A server did not start or did not do what it must; the text ends in its log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on.

    It lies below the range that the kernel takes outgoing ports from: no connection made meanwhile can occupy it.
    """
    for _ in range(1000):
        port = random.randrange(10240, 32000)
        if port in _given_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            _given_ports.add(port)
            return port
    raise ServerFailed("no free port found")


def wait_until(condition: Callable[[], object], what: str = "the condition", seconds: float = 10.0) -> None:
    """Look again and again until `condition()` is true; ServerFailed after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed(f"waited {seconds} s for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def folder_root() -> str | None:
    """Where servers keep their files: in memory where there is room (None: the usual temporary folder)."""
    memory = Path("/dev/shm")
    with contextlib.suppress(OSError):
        if os.access(memory, os.W_OK | os.X_OK) and shutil.disk_usage(memory).free >= 4 * 1024**3:
            return str(memory)
    return None


def accepts(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def processes() -> dict[int, tuple[int, int]]:
    """Every live process: its id -> (its parent's, its session's)."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    table[int(entry)] = (int(fields[1]), int(fields[3]))
    return table


def family(root: int) -> list[int]:
    """The process `root`, where it lives, and all its descendants; also those of the session it leads."""
    table = processes()
    found = {pid for pid, (_, session) in table.items() if pid == root or session == root}
    while more := {pid for pid, (parent, _) in table.items() if parent in found and pid not in found}:
        found |= more
    return sorted(found, key=lambda pid: (pid != root, pid))


class Server(ABC):
    """One IMAP server: plain and (where it can) STARTTLS on `port`, implicit TLS on `tls_port`."""

    name = "server"
    starttls = True
    host = HOST

    def __init__(self, authority: CertificateAuthority | None = None) -> None:
        """Take ports and a folder; nothing runs before `start()`."""
        self.directory = Path(tempfile.mkdtemp(prefix=f"ig-{self.name}-", dir=folder_root()))
        self.directory.chmod(0o755)
        self.port = free_port()
        self.tls_port = free_port()
        self.authority = authority or CertificateAuthority(self.directory)
        self.certificate = str(self.authority.certificate)
        self.cert_file, self.key_file = self.authority.issue()
        self.log_file = self.directory / "server.log"
        self.users: dict[str, str] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and remove the folder."""
        self.stop()
        self.remove()

    # What each server does in its own way

    @abstractmethod
    def _configure(self) -> None:
        """Write all files that the server reads at its start."""

    @abstractmethod
    def _commands(self) -> list[list[str]]:
        """The command lines to run, in order, each in the foreground."""

    @abstractmethod
    def _store_password(self, user: str, password: str) -> None:
        """Make the password known to the running server."""

    @abstractmethod
    def mailbox_reset(self, user: str) -> None:
        """Remove all of this user's mailboxes and messages; the next login finds an empty INBOX."""

    def login_count(self, user: str | None = None) -> int:
        """How many logins (of `user`, or in all) succeeded so far, by the server's log."""
        raise NotImplementedError(f"{self.name}'s log does not tell")

    def _environment(self) -> Mapping[str, str]:
        return {}

    def _ports(self) -> Sequence[int]:
        return (self.port, self.tls_port)

    # The common part

    def start(self) -> None:
        """Start and wait until every port accepts; a failure shows the server's log."""
        self._configure()
        self.spawn()

    def spawn(self) -> None:
        """Start with the files as they are: what `start()` does after writing them, and all that a restart needs."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **self._environment()}
        with self.log_file.open("ab") as log:
            for command in self._commands():
                self._processes.append(
                    subprocess.Popen(
                        command,
                        cwd=self.directory,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        try:
            wait_until(self._is_up, f"{self.name} to accept connections", START_SECONDS)
        except ServerFailed as failure:
            self.kill()
            raise ServerFailed(f"{failure}; its log:\n{self.log()[-5000:]}") from None

    def _is_up(self) -> bool:
        for process in self._processes:
            if process.poll() is not None:
                raise ServerFailed(f"{self.name} ended with status {process.returncode}")
        return all(accepts(port) for port in self._ports())

    def pids(self) -> list[int]:
        """The ids of all its live processes, the first started first."""
        return [pid for process in self._processes for pid in family(process.pid)]

    def signal(self, number: signal.Signals, pids: Sequence[int] | None = None) -> None:
        """Send a signal to all its processes (or to these), e.g. SIGSTOP and SIGCONT."""
        for pid in self.pids() if pids is None else pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Ask it to end (SIGTERM), insist after 5 s (SIGKILL)."""
        seen = self.pids()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        self.signal(signal.SIGTERM, [pid for pid in seen if pid in processes()])
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all its processes, at once; waits until none is left."""

        def none_left() -> bool:
            self.signal(signal.SIGKILL)
            for process in self._processes:
                process.poll()
            return not self.pids()

        wait_until(none_left, f"the end of {self.name}")
        for process in self._processes:
            process.wait(5)
        self._processes.clear()

    def restart(self) -> None:
        """Stop, then start on the same ports with the same users and mail."""
        self.stop()
        self.spawn()

    def remove(self) -> None:
        """Remove the server's folder."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """The server's log so far."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def add_user(self, user: str, password: str) -> None:
        """Let this user log in; the INBOX is there, and empty."""
        self.users[user] = password
        self._store_password(user, password)

    def set_password(self, user: str, password: str) -> None:
        """Change a password; it holds from the next login on."""
        self.add_user(user, password)
