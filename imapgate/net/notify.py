"""What systemd is told of this process: sd_notify(3), without its library.

Knows the socket that NOTIFY_SOCKET names and the watchdog's period.  Knows nothing of the gate: the
service says when something is so.  Where systemd does not ask, nothing is said; nothing here raises.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

SEND_SECONDS = 1.0
"""How long a queue that is full is waited for; without the readiness systemd would take the start for a failure."""


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """The time after which systemd takes a silent process for a hung one; 0: never."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    with suppress(ValueError):
        return max(0, int(environ.get("WATCHDOG_USEC", "0"))) / 1e6
    return 0.0


class Notifier:
    """Tells systemd how the service fares.

    :param environ: where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are looked up, once.
    """

    def __init__(self, clock: IReactorTime, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._period = _watchdog_seconds(environ) / 2
        self._watchdog = LoopingCall(self._send, "WATCHDOG=1")
        self._watchdog.clock = clock

    def ready(self, status: str = "") -> None:
        """The service serves, at its start and after a reload; from now on the watchdog is fed."""
        self._send("READY=1", *_status(status))
        if self._address and self._period and not self._watchdog.running:
            self._watchdog.start(self._period)

    def reloading(self) -> None:
        """The configuration is being read again; `ready` ends that."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> None:
        """The service drains; the watchdog is fed until `close`."""
        self._send("STOPPING=1", *_status(status))

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._send(*_status(status))

    def main_pid(self, pid: int) -> None:
        """Another process is the service now."""
        self._send(f"MAINPID={pid}")

    def close(self) -> None:
        """Feed the watchdog no more."""
        if self._watchdog.running:
            self._watchdog.stop()

    def _send(self, *variables: str) -> None:
        if not self._address or not variables:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(SEND_SECONDS)
            sender.sendto("\n".join(variables).encode("utf-8", "replace"), self._address)


def _status(text: str) -> list[str]:
    """The variable, if there is one; in one line, for a second would be another variable."""
    return ["STATUS=" + " ".join(text.split())] if text else []
