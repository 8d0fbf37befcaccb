"""The demonstration: an embedded mailbox (pymap, a process of its own) behind a gate on this machine."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time

from twisted.application.service import Service

from imapgate.errors import ConfigurationError

LISTEN = "tcp:1143:interface=127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 5.0
_PYMAP = "from pymap.main import main; main()"

WELCOME = """
    imapgate is ready: an IMAP server on 127.0.0.1, port 1143, no TLS.
    User demo, password demo. Ctrl-C ends it, and forgets the mail.

    Try   curl 'imap://demo:demo@127.0.0.1:1143/INBOX;MAILINDEX=1'
    or    python3 -c "import imaplib; m = imaplib.IMAP4('127.0.0.1', 1143); print(m.login('demo', 'demo'), m.list())"
"""


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


class DemoService(Service):
    """Runs the embedded mailbox: it is there as soon as this object is, before the reactor runs.

    :ivar upstream: the endpoint at which the gate finds it
    :raise ConfigurationError: it is not installed, or does not start.
    """

    name = "imapgate demo"

    def __init__(self) -> None:
        if importlib.util.find_spec("pymap") is None:
            raise ConfigurationError(["--demo needs pymap, the embedded mailbox: pip install 'imapgate[demo]'"])
        port = _free_port()
        words = [sys.executable, "-c", _PYMAP, "--host", "127.0.0.1", "--port", str(port), "--no-tls"]
        words += ["dict", "--demo-data", "--demo-user", "demo", "--demo-password", "demo"]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise ConfigurationError(["--demo: the embedded mailbox does not start; what it said stands above"])
            time.sleep(0.05)
        self.upstream = f"tcp:127.0.0.1:{port}"

    def startService(self) -> None:
        """Say how to connect."""
        super().startService()
        print(WELCOME, file=sys.__stdout__, flush=True)

    def stopService(self) -> None:
        """End the mailbox."""
        super().stopService()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
