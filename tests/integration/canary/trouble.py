"""What happens to upstream connections under the load: they are cut, held up, and their processes ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from random import Random

from tests.integration.faults import Connection, FaultProxy
from tests.integration.servers import Dovecot

OLD_ENOUGH = 0.4
"""Seconds after which a process of Dovecot's has started up."""

LOGGED_IN = 1200
"""Octets after which a login is over and something was done with it."""


class Trouble:
    """Strikes one upstream connection at a time: through the proxy that all of them pass, or at the server.

    The server's processes are ended by SIGTERM, with a BYE, and not while they start: after a SIGKILL, or a start that
    failed, Dovecot starts no others for seconds. What a killed one looks like to the gate is the proxy's reset.

    :ivar strikes: how many there were
    """

    def __init__(self, proxy: FaultProxy, server: Dovecot, random: Random) -> None:
        self.strikes = 0
        self._proxy = proxy
        self._server = server
        self._random = random
        self._held: list[Connection] = []

    def strike(self) -> None:
        """Do it; the call takes some milliseconds."""
        self.strikes += 1
        while len(self._held) > self._random.randint(0, 3):
            self._proxy.resume(self._held.pop(0), "down")
        self._proxy.forget()
        used = self._random.choice((0, LOGGED_IN))
        living = [
            connection
            for connection in list(self._proxy.connections)
            if connection.far_port and not connection.closed and connection.down.passed >= used
        ]
        if not living:
            return
        connection = self._random.choice(living)
        kind = self._random.choice(("fin", "rst", "hold", "end"))
        if kind == "end":
            self._end_a_process()
        elif kind == "hold":
            self._proxy.stall(connection, "down")
            self._held.append(connection)
        else:
            self._proxy.cut(connection, "fin" if kind == "fin" else "rst")

    def end(self) -> None:
        """Let everything flow that is held up."""
        while self._held:
            self._proxy.resume(self._held.pop(), "down")

    def _end_a_process(self) -> None:
        """End one of the processes that serve a session."""
        serving = [pid for pid in self._server.pids() if _serves(pid)]
        if serving:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(serving), signal.SIGTERM)


def _serves(pid: int) -> bool:
    """Whether this is a process of a session, and has been for a while."""
    with contextlib.suppress(OSError):
        name, _, fields = Path("/proc", str(pid), "stat").read_text().partition("(")[2].rpartition(")")
        started = int(fields.split()[19]) / os.sysconf("SC_CLK_TCK")
        return name == "imap" and time.clock_gettime(time.CLOCK_BOOTTIME) - started > OLD_ENOUGH
    return False
