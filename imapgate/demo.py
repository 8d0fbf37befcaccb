"""The demonstration: an embedded mailbox (pymap, a process of its own) behind a gate on this machine."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from imapgate.errors import ConfigurationError
from imapgate.net.log import log

LISTEN = "tcp:1143:interface=127.0.0.1"
START_SECONDS = 20.0
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


class _Pymap(ProcessProtocol):
    """The embedded server's process; its chatter goes to the log at debug level."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def errReceived(self, data: bytes) -> None:
        log.debug("pymap: {text}", text=data.decode("utf-8", "replace").rstrip())

    outReceived = errReceived

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


class DemoService(Service):
    """Runs the embedded mailbox.

    :ivar upstream: the endpoint at which the gate finds it
    """

    name = "imapgate demo"

    def __init__(self, reactor: Any) -> None:
        if importlib.util.find_spec("pymap") is None:
            raise ConfigurationError(["--demo needs pymap, the embedded mailbox: pip install 'imapgate[demo]'"])
        self._reactor = reactor
        self._port = _free_port()
        self._pymap = _Pymap()
        self.upstream = f"tcp:127.0.0.1:{self._port}"

    def startService(self) -> None:
        """Start the mailbox, and say how to connect when it is there."""
        super().startService()
        words = [sys.executable, "-c", _PYMAP, "--host", "127.0.0.1", "--port", str(self._port), "--no-tls"]
        words += ["dict", "--demo-data", "--demo-user", "demo", "--demo-password", "demo"]
        self._process = self._reactor.spawnProcess(self._pymap, sys.executable, words, env=os.environ)
        Deferred.fromCoroutine(self._welcome()).addErrback(lambda reason: log.failure("the demo does not run", reason))

    async def _welcome(self) -> None:
        reactor = self._reactor
        deadline = reactor.seconds() + START_SECONDS
        while self.running and not self._pymap.ended.called:
            try:
                found = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self._port), Protocol())
            except Exception:
                if reactor.seconds() > deadline:
                    log.error(
                        "the embedded mailbox does not start; twistd's log says more with --logger at debug level"
                    )
                    return
                await deferLater(reactor, 0.05)
            else:
                found.transport.loseConnection()
                print(WELCOME, flush=True)
                return

    def stopService(self) -> Deferred[None] | None:
        """End the mailbox."""
        super().stopService()
        if self._pymap.ended.called:
            return None
        self._process.signalProcess("TERM")
        return self._pymap.ended
