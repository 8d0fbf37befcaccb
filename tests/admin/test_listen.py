"""The control sockets in the file system: modes, names that are taken, and what is left behind."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from imapgate.admin import listen as module
from imapgate.admin.ctl import ask
from imapgate.admin.listen import Control
from imapgate.admin.operator import COMMANDS, Refused, Row
from tests.admin.fakes import ROWS, FakeOperator, serving, soon


async def asked(path: Path, command: str = "sessions", **arguments: str) -> list[Row]:
    """What a gate answers at this path."""
    return await soon(deferToThread(lambda: list(ask(path, COMMANDS[command], arguments))))


def left(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a47_modes(tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """(A47) The full socket is its owner's, the other its group's, whatever the umask, before anybody can connect."""
    modes: list[int] = []
    listen = socket.socket.listen

    def listening(sock: socket.socket, backlog: int) -> None:
        modes.append(stat.S_IMODE(os.stat(sock.getsockname()).st_mode))
        listen(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", listening)
    full, reading = tmp_path / "control", tmp_path / "control-read"
    before = os.umask(umask)
    try:
        async with serving(FakeOperator(), full, reading):
            assert modes == [0o600, 0o660]
            assert [stat.S_IMODE(path.stat().st_mode) for path in (full, reading)] == modes
            assert await asked(full) == await asked(reading) == list(ROWS)
            assert await asked(full, "reload") == list(ROWS)
            with pytest.raises(Refused, match=f"does not take reload; {full} takes it"):
                await asked(reading, "reload")
    finally:
        os.umask(before)
    assert left(tmp_path) == []


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_only_what_was_asked_for(tmp_path: Path) -> None:
    """Without paths there are no sockets; the one for reading can be the only one."""
    async with serving(FakeOperator(), None):
        assert left(tmp_path) == []
    async with serving(FakeOperator(), None, tmp_path / "r"):
        assert left(tmp_path) == ["r"]
        with pytest.raises(Refused, match=r"does not take reload$"):
            await asked(tmp_path / "r", "reload")


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_dead_gates_socket_is_replaced(tmp_path: Path) -> None:
    """A socket file on which nobody listens any more is no obstacle."""
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fsencode(path))
    async with serving(FakeOperator(), path):
        assert await asked(path) == list(ROWS)
    assert left(tmp_path) == []


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_living_gates_socket_is_not(tmp_path: Path) -> None:
    """A second gate does not start on the same path, and the first is not disturbed, even with a full queue."""
    path = tmp_path / "control"
    async with serving(FakeOperator(), path):
        with pytest.raises(SystemExit, match="control: another process listens there"):
            async with serving(FakeOperator(), path):
                pass
        assert await asked(path) == list(ROWS)
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(os.fsencode(path))
        busy.listen(0)
        waiting.connect(os.fsencode(path))
        with pytest.raises(SystemExit, match="another process listens there"):
            Control(reactor, FakeOperator(), path, None).startService()
    assert left(tmp_path) == ["control"]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_name_that_is_handed_over(tmp_path: Path) -> None:
    """A successor takes the name of a living gate, which then leaves the file alone."""
    path, old, new = tmp_path / "control", FakeOperator(), FakeOperator()
    new.rows = [{"gate": "new"}]
    async with serving(old, path) as first:
        async with serving(new, path, successor=True):
            assert await asked(path) == [{"gate": "new"}]
            await first.stopService()
            assert await asked(path) == [{"gate": "new"}]
        assert left(tmp_path) == []


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_name_that_was_taken_away(tmp_path: Path) -> None:
    """Whatever has come to the path meanwhile, or not, stays when the gate stops."""
    path = tmp_path / "control"
    async with serving(FakeOperator(), path):
        path.unlink()
    assert left(tmp_path) == []
    async with serving(FakeOperator(), path):
        path.unlink()
        path.write_text("something else")
    assert path.read_text() == "something else"


def _no_folder(path: Path) -> str:
    path.parent.rmdir()
    return f"{path.parent}: No such file or directory"


def _a_file(path: Path) -> str:
    path.write_text("precious")
    return "no socket"


def _a_link(path: Path) -> str:
    path.symlink_to("elsewhere")
    return "no socket"


def _open_folder(path: Path) -> str:
    path.parent.chmod(0o777)
    return "everybody can write there"


@pytest.mark.parametrize("spoil", [_no_folder, _a_file, _a_link, _open_folder])
def test_a_path_that_cannot_be_used(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    """It is said what is wrong with the path, and nothing there is touched."""
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "control"
    why = spoil(path)
    before = left(folder) if folder.exists() else None
    with pytest.raises(SystemExit) as ended:
        Control(reactor, FakeOperator(), path, None).startService()
    assert str(ended.value).startswith("imapgate: cannot listen on a control socket: ")
    assert why in str(ended.value)
    assert (left(folder) if folder.exists() else None) == before


def test_too_long_a_path(tmp_path: Path) -> None:
    """A path that no socket can have is told."""
    with pytest.raises(SystemExit, match="path too long"):
        Control(reactor, FakeOperator(), tmp_path / ("x" * 120), None).startService()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_shared_folder_with_the_sticky_bit(tmp_path: Path) -> None:
    """In a folder such as /tmp nobody can take the file away, so it will do."""
    tmp_path.chmod(0o1777)
    async with serving(FakeOperator(), tmp_path / "control"):
        assert await asked(tmp_path / "control") == list(ROWS)


def test_two_that_start_at_one_time(tmp_path: Path) -> None:
    """While one looks for a free name in the folder, no other does."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with pytest.raises(SystemExit, match="lock"):
            Control(reactor, FakeOperator(), tmp_path / "control", None).startService()
    finally:
        os.close(descriptor)
    assert left(tmp_path) == []


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_whoever_does_not_go_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that stops waits only a little for whoever does not read the answer."""
    monkeypatch.setattr(module, "STOP_SECONDS", 0.0)
    path, operator = tmp_path / "control", FakeOperator()
    operator.rows = [{"long": "x" * 100_000}] * 1000
    with socket.socket(socket.AF_UNIX) as wire:
        async with serving(operator, path):
            await deferToThread(wire.connect, os.fsencode(path))
            wire.sendall(b'{"command": "sessions"}\n')
            wire.settimeout(20)
            assert await deferToThread(wire.recv, 8) == b'{"row":{'
        received = await deferToThread(_receive, wire)
    assert received < 50_000_000


def _receive(wire: socket.socket) -> int:
    """Take what comes until there is an end; return how much it was."""
    octets = 0
    try:
        while data := wire.recv(1 << 20):
            octets += len(data)
    except ConnectionResetError:
        pass
    return octets
