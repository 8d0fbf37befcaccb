"""F20: the clock by which the gate measures."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import time
from twisted.internet import reactor
from imapgate.tap import Options, makeService

options = Options()
options.parseOptions(["--upstream", "tcp:127.0.0.1:1", "--listen", "tcp:0:interface=127.0.0.1"])
makeService(options)
late = []
reactor.callLater(0.01, lambda: (late.append(True), reactor.stop()))
wall, time.time = time.time, lambda: wall() - 86_400  # the administrator sets the clock back by a day
reactor.run()
print(reactor.seconds is time.monotonic, late)
"""


def test_f20_the_reactor_measures_by_the_monotonic_clock() -> None:
    """F20: once the service is made, the reactor's clock is the monotonic one, and its calls come by it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "True [True]\n"
