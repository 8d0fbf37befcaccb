"""A service for the tests of a handover: greets with its process id, echoes one line, hands its sockets on, drains.

    python -m tests.net.greeter HANDOVER WHEN ENDPOINT...

WHEN is when it comes to serving: `now`, or `told`, by SIGUSR1; until then it holds the sockets and accepts nothing.
Its standard output has a line for each of: listening, serving, taken over by, drained.
"""

from __future__ import annotations

import os
import signal
import sys

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from imapgate.net.handover import HandoverFactory, take
from imapgate.net.sockets import Sockets

sessions: set[Greeter] = set()
draining = False


class Greeter(LineOnlyReceiver):
    """One session."""

    delimiter = b"\n"

    def connectionMade(self) -> None:
        """Greet."""
        sessions.add(self)
        self.sendLine(f"* {os.getpid()}".encode())

    def lineReceived(self, line: bytes) -> None:
        """Echo and close."""
        self.sendLine(line)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The last one out ends the process, if it is no longer the one that serves."""
        sessions.discard(self)
        end_if_drained()


def say(text: str) -> None:
    """Tell the test."""
    os.write(1, text.encode() + b"\n")


def end_if_drained() -> None:
    """End, if nobody is served any more nor will be."""
    if draining and not sessions:
        say("drained")
        reactor.stop()


def taken_over(pid: int) -> None:
    """Another process serves."""
    global draining
    draining = True
    say(f"taken over by {pid}")
    reactor.callLater(0, end_if_drained)


def main(path: str, when: str, *endpoints: str) -> None:
    """Serve."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    taken = take(path, 10.0)
    sockets = Sockets(reactor, taken.descriptors)
    for endpoint in endpoints:
        sockets.listen(endpoint, Factory.forProtocol(Greeter))
    sockets.listen(f"unix:{path}:mode=600", HandoverFactory(sockets, taken_over))
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(sockets.stop()))
    say("listening")
    if when == "told":
        signal.sigwait({signal.SIGUSR1})

    def serving() -> None:
        taken.serving(sockets)
        say("serving")

    reactor.callWhenRunning(serving)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
