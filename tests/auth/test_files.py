"""Files that are read again when they have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent

from imapgate.auth import files
from imapgate.auth.files import Watched
from imapgate.errors import ConfigurationError


def parse(octets: bytes) -> bytes:
    """Take anything but what is bad."""
    if octets.startswith(b"bad"):
        raise ConfigurationError([f"line {number}: it is bad" for number in range(int(octets[3:]))])
    return octets


def watched(path: Path, private: bool = False) -> Watched[bytes]:
    """A file of that kind."""
    return Watched("test file", path, parse, private=private)


def test_read_again(tmp_path: Path) -> None:
    """A change is seen at the next look, whether the file is written over or replaced."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    file = watched(path)
    assert file.current() == b"one"
    path.write_bytes(b"two!")
    assert file.current() == b"two!"
    (tmp_path / "new").write_bytes(b"six!")
    os.utime(tmp_path / "new", ns=(1, path.stat().st_mtime_ns))
    os.replace(tmp_path / "new", path)
    assert file.current() == b"six!"


def test_not_read_without_a_change(tmp_path: Path) -> None:
    """A file that stays as it is is read once."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    seen: list[bytes] = []
    file = Watched("test file", path, seen.append)
    for _ in range(3):
        file.current()
    assert seen == [b"one"]


@pytest.mark.parametrize("spoil", ["bad", "gone", "folder"])
def test_broken_change_keeps_the_old(tmp_path: Path, spoil: str) -> None:
    """A file that becomes unusable leaves what it held; that is said once; its repair is seen."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    file = watched(path)
    if spoil == "bad":
        path.write_bytes(b"bad1")
    else:
        path.unlink()
    if spoil == "folder":
        path.mkdir()
    with capturedLogs() as events:
        assert [file.current() for _ in range(3)] == [b"one"] * 3
    (told,) = (formatEvent(event) for event in events)
    assert told.startswith(f"a changed file is not used, what it held stays: test file {path}: ")
    if spoil == "folder":
        path.rmdir()
    path.write_bytes(b"two")
    assert file.current() == b"two"


def test_unusable_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be used at the start stops it, with a sentence for each fault, but not thousands."""
    path = tmp_path / "file"
    with pytest.raises(ConfigurationError, match=r"test file .*/file: No such file"):
        watched(path)
    path.write_bytes(b"bad1000")
    with pytest.raises(ConfigurationError) as raised:
        watched(path)
    assert raised.value.problems[0] == f"test file {path}: line 0: it is bad"
    assert raised.value.problems[10:] == [f"test file {path}: and 990 more like these"]
    monkeypatch.setattr(files, "LARGEST", 4)
    with pytest.raises(ConfigurationError, match="it is too large"):
        watched(path)


def test_fifo(tmp_path: Path) -> None:
    """A FIFO is refused, and not waited for."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigurationError, match="this is no regular file"):
        watched(tmp_path / "fifo")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_private(tmp_path: Path, mode: int) -> None:
    """A file with secrets that others can read or change is refused, also when it becomes so (A40)."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=rf"others can read or change it \(mode {mode:03o}\); make it 600"):
        watched(path, private=True)
    path.chmod(0o600)
    file = watched(path, private=True)
    path.write_bytes(b"two")
    path.chmod(mode)
    assert file.current() == b"one"
    path.chmod(0o600)
    assert file.current() == b"two"
