"""The file: locked, private, and never with a torn line in it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from imapgate.audit.chain import Chain
from imapgate.audit.file import AuditFile
from imapgate.audit.lock import lock, locked
from imapgate.errors import ConfigurationError
from tests.audit.trails import Disk


def opened(folder: Path, chain: str = "c1") -> AuditFile:
    """A file of one chain, open."""
    file = AuditFile(folder / "audit.jsonl", chain)
    file.begin()
    return file


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_made_private(tmp_path: Path) -> None:
    """Only its owner can read it, also where it was there before with another mode."""
    opened(tmp_path).close()
    path = tmp_path / "audit.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    opened(tmp_path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_appends(tmp_path: Path) -> None:
    """What is written stands behind what was there."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"old\n")
    file = opened(tmp_path)
    assert file.write([b"a\n", b"b\n"], sync=False) == (2, None)
    assert file.write([b"c\n"], sync=True) == (1, None)
    assert file.write([], sync=True) == (0, None)
    assert path.read_bytes() == b"old\na\nb\nc\n"


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "no folder", "name"])
def test_what_cannot_be_it(tmp_path: Path, kind: str) -> None:
    """A link is not followed, a FIFO not waited for; what is wrong is said, with the file."""
    path = tmp_path / "audit.jsonl"
    if kind == "link":
        path.symlink_to(tmp_path / "other.jsonl")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "no folder":
        path = tmp_path / "away" / "audit.jsonl"
    else:
        path = tmp_path / "audit.log"
    expected = {
        "link": "Too many levels of symbolic links",
        "folder": "Is a directory",
        "fifo": "this is no regular file",
        "no folder": "No such file or directory",
        "name": r"its name must end in \.jsonl",
    }[kind]
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigurationError, match=rf"^audit file {path}: {expected}$"):
        AuditFile(path, "c1").begin()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not (tmp_path / "other.jsonl").exists()


def test_second_process(tmp_path: Path) -> None:
    """Whoever comes while a file is locked writes one beside it, by its chain's name, and so does a third."""
    before = len(os.listdir("/proc/self/fd"))
    first, second, third = (opened(tmp_path, chain) for chain in ("c1", "c2", "c3"))
    assert len(os.listdir("/proc/self/fd")) == before + 3
    assert (first.path.name, second.path.name, third.path.name) == ("audit.jsonl", "audit-c2.jsonl", "audit-c3.jsonl")
    with pytest.raises(ConfigurationError, match=r"locked by another process, and so is .*/audit-c2\.jsonl"):
        opened(tmp_path, "c2")
    first.close()
    assert opened(tmp_path, "c4").path.name == "audit.jsonl"
    assert names(tmp_path) == ["audit-c2.jsonl", "audit-c3.jsonl", "audit.jsonl"]


def test_the_lock(tmp_path: Path) -> None:
    """It is seen without being taken, and gone with the descriptor."""
    file = opened(tmp_path)
    looker = os.open(file.path, os.O_RDONLY)
    other = os.open(file.path, os.O_RDWR)
    assert locked(looker)
    assert not lock(other)
    file.close()
    assert not locked(looker)
    assert lock(other)
    assert locked(looker)
    os.close(other)
    os.close(looker)


def test_the_tail(tmp_path: Path) -> None:
    """It is told how a file ends: with which record, whether cleanly, and whether a line is torn."""
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, "c9")
    tail = file.begin()
    assert (tail.empty, tail.last, tail.torn, tail.clean) == (True, None, "", True)
    file.close()
    chain = Chain("c1")
    one, end = (
        chain.seal({"event": "search", "x": "y" * 70_000}),
        chain.seal({"event": "audit.checkpoint", "reason": "stopped"}),
    )
    for text, seq, torn, clean in (
        (one, 1, 0, False),
        (one + end, 2, 0, True),
        (one + end + b"{", 2, len(one + end), False),
        (one + one[:-1], 1, len(one), False),
        (b"{", 0, 0, False),
        (b"nonsense\n", 0, 0, False),
        (b"\n", 0, 0, False),
    ):
        path.write_bytes(text)
        file = AuditFile(path, "c9")
        tail = file.begin()
        assert (tail.last.seq if tail.last else 0) == seq
        assert tail.torn == (f"audit.jsonl.torn-c9-{torn}" if not text.endswith(b"\n") else "")
        assert (tail.empty, tail.clean) == (False, clean)
        assert path.read_bytes() == text
        file.close()


def test_a_torn_line_is_moved_aside(tmp_path: Path) -> None:
    """What a killed process left of a line stands in a file of its own before anything is written."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"whole\nto")
    file = opened(tmp_path)
    assert file.write([b"a\n"], sync=True) == (1, None)
    assert path.read_bytes() == b"whole\na\n"
    aside = tmp_path / "audit.jsonl.torn-c1-6"
    assert aside.read_bytes() == b"to"
    assert aside.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["audit.jsonl", "audit.jsonl.torn-c1-6"]


def test_a_torn_line_that_cannot_be_moved(tmp_path: Path, disk: Disk) -> None:
    """As long as it is not safe, it stays, and nothing is written."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"whole\nto")
    file = opened(tmp_path)
    disk.broken = {"fsync"}
    for _ in range(2):
        written = file.write([b"a\n"], sync=False)
        assert (written.lines, written.error and written.error.errno) == (0, errno.EIO)
        assert path.read_bytes() == b"whole\nto"
    disk.broken = {"ftruncate"}
    assert file.write([b"a\n"], sync=False).lines == 0
    assert path.read_bytes() == b"whole\nto"
    disk.broken = set()
    assert file.write([b"a\n"], sync=False) == (1, None)
    assert path.read_bytes() == b"whole\na\n"
    assert (tmp_path / "audit.jsonl.torn-c1-6").read_bytes() == b"to"


@pytest.mark.parametrize("room", range(10))
def test_full_disk(tmp_path: Path, disk: Disk, room: int) -> None:
    """Whole lines that found room stay; a part of one is taken back; what is left can be written later."""
    lines = [b"aa\n", b"bb\n", b"cc\n"]
    file = opened(tmp_path)
    file.write([b"old\n"], sync=False)
    disk.room = room
    written = file.write(lines, sync=False)
    assert written.lines == room // 3
    assert (written.error is None) == (room >= 9)
    assert file.path.read_bytes() == b"old\n" + b"".join(lines[: written.lines])
    disk.room = None
    assert file.write(lines[written.lines :], sync=True) == (3 - written.lines, None)
    assert file.path.read_bytes() == b"old\naa\nbb\ncc\n"


def test_a_part_that_cannot_be_taken_back(tmp_path: Path, disk: Disk) -> None:
    """It is taken back before anything else is written."""
    file = opened(tmp_path)
    disk.room, disk.broken = 4, {"ftruncate"}
    assert file.write([b"aa\n", b"bb\n"], sync=False).lines == 1
    assert file.path.read_bytes() == b"aa\nb"
    disk.room = None
    assert file.write([b"bb\n"], sync=False).lines == 0
    assert file.path.read_bytes() == b"aa\nb"
    disk.broken = set()
    assert file.write([b"bb\n"], sync=False) == (1, None)
    assert file.path.read_bytes() == b"aa\nbb\n"


def test_failed_sync(tmp_path: Path, disk: Disk) -> None:
    """When the disk does not confirm, nobody knows what it has: all is taken back, and written anew."""
    file = opened(tmp_path)
    file.write([b"a\n"], sync=True)
    disk.broken = {"fsync"}
    written = file.write([b"b\n", b"c\n"], sync=True)
    assert (written.lines, written.error and written.error.errno) == (0, errno.EIO)
    assert file.path.read_bytes() == b"a\n"
    disk.broken = set()
    disk.calls.clear()
    assert file.write([b"b\n", b"c\n"], sync=True) == (2, None)
    assert disk.calls == ["write", "fsync"]
    assert file.path.read_bytes() == b"a\nb\nc\n"


def test_cut_by_somebody_else(tmp_path: Path, disk: Disk) -> None:
    """A file that somebody has emptied is not filled with zeros when a write fails."""
    file = opened(tmp_path)
    file.write([b"aaaa\n"], sync=False)
    os.truncate(file.path, 0)
    disk.room = 1
    assert file.write([b"bb\n"], sync=False).lines == 0
    assert file.path.read_bytes() == b""
    disk.room = None
    file.write([b"cc\n"], sync=False)
    assert file.path.read_bytes() == b"cc\n"


def test_opened_anew(tmp_path: Path) -> None:
    """After closing, the next write opens the file of that name, whatever it is now; a new one is synced by name."""
    file = opened(tmp_path)
    file.write([b"a\n"], sync=False)
    file.close()
    file.close()
    os.rename(tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1")
    assert file.write([b"b\n"], sync=False) == (1, None)
    assert (tmp_path / "audit.jsonl").read_bytes() == b"b\n"
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "audit.jsonl.1").read_bytes() == b"a\n"


def test_not_opened_anew_behind_another_chain(tmp_path: Path) -> None:
    """A chain goes on in an empty file, or behind itself; else beside."""
    path = tmp_path / "audit.jsonl"
    chain = Chain("c1")
    file = opened(tmp_path)
    file.write([chain.seal({"event": "search"})], sync=False)
    file.close()
    file.write([chain.seal({"event": "search"})], sync=False)
    assert file.path == path
    file.close()
    for text in (Chain("c2").seal({"event": "search"}), path.read_bytes() + b"{", b"?\n"):
        path.write_bytes(text)
        assert file.write([b"a\n"], sync=False) == (1, None)
        assert file.path.name == "audit-c1.jsonl"
        assert path.read_bytes() == text
        file.close()
        file.path.unlink()


def test_opening_anew_fails(tmp_path: Path, disk: Disk) -> None:
    """Nothing is written then, nothing leaks, and the next write tries again."""
    file = opened(tmp_path)
    file.close()
    before = len(os.listdir("/proc/self/fd"))
    for broken in ("open", "fsync"):
        disk.broken = {broken}
        written = file.write([b"a\n"], sync=False)
        assert (written.lines, written.error and written.error.errno) == (0, errno.EIO)
        assert len(os.listdir("/proc/self/fd")) == before
    disk.broken = set()
    assert file.write([b"a\n"], sync=False) == (1, None)


def test_renamed_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    """A file that is renamed between opening and locking is not the one; the new one of that name is taken."""
    path = tmp_path / "audit.jsonl"
    original = Disk.open

    def renames(self: Disk, name: object, flags: int, mode: int = 0o777) -> int:
        descriptor = original(self, name, flags, mode)
        if name == path and not (tmp_path / "audit.jsonl.1").exists():
            os.rename(path, tmp_path / "audit.jsonl.1")
            path.touch()
        return descriptor

    monkeypatch.setattr(Disk, "open", renames)
    file = opened(tmp_path)
    file.write([b"a\n"], sync=False)
    assert (file.path, path.read_bytes(), (tmp_path / "audit.jsonl.1").read_bytes()) == (path, b"a\n", b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
