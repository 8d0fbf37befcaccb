"""What systemd is told."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from imapgate.net import notify as module
from imapgate.net.notify import Notifier


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": address.replace("\0", "@")}

    def told(self) -> list[str]:
        """What it was told since the last look, a message each."""
        messages = []
        for _ in range(100):
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                break
        return messages


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    """A systemd, at a path or in the abstract namespace."""
    made = Systemd(str(tmp_path / "notify") if request.param == "path" else f"\0imapgate-test-{os.getpid()}")
    yield made
    made.socket.close()


def test_f16_states(systemd: Systemd) -> None:
    """F16: each state is one message, with its status where there is one."""
    notifier = Notifier(Clock(), systemd.environ)
    notifier.ready("serves tcp:993")
    notifier.status("3 clients")
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    after = time.monotonic_ns() // 1000
    notifier.ready()
    notifier.main_pid(4711)
    notifier.stopping("2 commands in flight")
    notifier.stopping()
    notifier.status("")
    *told, reloading = sorted(systemd.told(), key=lambda message: "RELOADING" in message)
    assert told == [
        "READY=1\nSTATUS=serves tcp:993",
        "STATUS=3 clients",
        "READY=1",
        "MAINPID=4711",
        "STOPPING=1\nSTATUS=2 commands in flight",
        "STOPPING=1",
    ]
    state, _, moment = reloading.partition("\nMONOTONIC_USEC=")
    assert state == "RELOADING=1"
    assert before <= int(moment) <= after


def test_a39_status_is_one_line(systemd: Systemd) -> None:
    """A39: a status cannot say anything else."""
    Notifier(Clock(), systemd.environ).status("one\nMAINPID=1\r\n\ttwo  \udcff")
    assert systemd.told() == ["STATUS=one MAINPID=1 two ?"]


@pytest.mark.parametrize("pid", [None, os.getpid()])
def test_watchdog(systemd: Systemd, pid: int | None) -> None:
    """From the readiness to the end, the watchdog is fed twice in its period."""
    clock = Clock()
    environ = systemd.environ | {"WATCHDOG_USEC": "30000000"} | ({} if pid is None else {"WATCHDOG_PID": str(pid)})
    notifier = Notifier(clock, environ)
    clock.advance(60)
    assert systemd.told() == []
    notifier.ready()
    assert systemd.told() == ["READY=1", "WATCHDOG=1"]
    clock.pump([14.9, 0.1, 14.9, 0.1])
    notifier.ready()
    notifier.stopping()
    assert systemd.told() == ["WATCHDOG=1", "WATCHDOG=1", "READY=1", "STOPPING=1"]
    clock.advance(15)
    assert systemd.told() == ["WATCHDOG=1"]
    notifier.close()
    notifier.close()
    clock.advance(60)
    assert systemd.told() == []
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog(systemd: Systemd, watchdog: dict[str, str]) -> None:
    """Nothing is fed that systemd has not asked for, of this process."""
    clock = Clock()
    notifier = Notifier(clock, systemd.environ | watchdog)
    notifier.ready()
    assert systemd.told() == ["READY=1"]
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "@imapgate-nobody", "relative", "/x" * 200])
def test_nobody_asks(address: str | None) -> None:
    """Without systemd, or with one that is not there, nothing happens."""
    clock = Clock()
    environ = {"WATCHDOG_USEC": "1000000"} | ({} if address is None else {"NOTIFY_SOCKET": address})
    notifier = Notifier(clock, environ)
    notifier.ready("serves")
    notifier.reloading()
    notifier.main_pid(1)
    clock.advance(10)
    notifier.stopping()
    notifier.close()
    assert clock.getDelayedCalls() == []


def test_systemd_that_does_not_read(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that stays full costs a little time, and no more than that."""
    monkeypatch.setattr(module, "SEND_SECONDS", 0.0001)
    notifier = Notifier(Clock(), systemd.environ)
    for number in range(1000):
        notifier.status(str(number))
    told = systemd.told()
    assert told == [f"STATUS={number}" for number in range(len(told))]
    assert 0 < len(told) < 1000
