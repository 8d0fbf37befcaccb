"""Messages that are stored pass a scanner first; what it finds is refused.

Knows clamd's INSTREAM: every message on a connection of its own, each piece with its length in front, as it comes,
and one answer.  It keeps nothing of a message.  It must not know what the scanner looks for.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from imapgate.plugins.api import (
    Annotate,
    Command,
    Completion,
    Event,
    Interests,
    Message,
    Options,
    Plugin,
    Reject,
    Session,
    Verdict,
)
from imapgate.plugins.bundled._addresses import is_here

_STORING = frozenset(["APPEND", "REPLACE", "UID REPLACE"])
_ANSWER_MOST = 4096
_SIGNATURE_MOST = 100
_SERVICE = re.compile(
    r"unix:(?P<path>/.+)|tcp:(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
)
_FOUND = re.compile(rb"stream: (.*) FOUND", re.DOTALL)
_UNSEEMLY = re.compile(r"[^ -~]")


class ScanFailed(Exception):
    """The scanner has not said whether a message is clean."""


@implementer(IPushProducer)
class _Scan(Protocol):
    """One message at the scanner; one piece, or the end, at a time."""

    transport: Any

    def __init__(self) -> None:
        self._answer = b""
        self._lost = False
        self._full = False
        self._waiting: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Begin a stream; the transport says when it is full."""
        self.transport.registerProducer(self, True)
        self.transport.write(b"zINSTREAM\0")

    def send(self, data: bytes) -> Deferred[None] | None:
        """Send a piece; it has been taken when the Deferred fires."""
        if self._over:  # what it was will be seen at the end
            return None
        self.transport.write(len(data).to_bytes(4, "big") + data)
        return self._wait() if self._full else None

    async def end(self) -> bytes:
        """End the stream, and return the answer."""
        if not self._over:
            self.transport.write(bytes(4))
        while not self._over:  # the transport may have room again first
            await self._wait()
        self.abandon()
        answer, whole, _ = self._answer.partition(b"\0")
        if not whole:
            raise ScanFailed("the scanner has closed the connection, or says no end")
        return answer

    def abandon(self) -> None:
        """Close the connection, whatever it is in the middle of."""
        self.transport.abortConnection()

    @property
    def _over(self) -> bool:
        return self._lost or b"\0" in self._answer or len(self._answer) > _ANSWER_MOST

    def _wait(self) -> Deferred[None]:
        self._waiting = Deferred(lambda _: self.abandon())
        return self._waiting

    def _go_on(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            if not waiting.called:
                waiting.callback(None)

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self._full = False
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost, as will be told."""

    def dataReceived(self, data: bytes) -> None:
        """Take a part of the answer."""
        self._answer += data
        if self._over:
            self._go_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """There is nothing more to come."""
        self._lost = True
        self._go_on()


class AppendScan(Plugin):
    """The plugin ``append_scan``; options ``service``, ``limit``, ``oversize`` and ``allow_plaintext``.

    ``service`` is ``tcp:HOST:PORT`` or ``unix:/path``.  Of a message larger than ``limit`` nothing is scanned: it is
    refused, or passes where ``oversize`` is ``pass``.  Give the plugin's ``timeout`` the time that a scan may take.
    """

    def __init__(self, options: Options) -> None:
        self._service = _service(options)
        self._limit = options.size("limit", 25 << 20, least=1)
        self._oversize_passes = options.choice("oversize", ("refuse", "pass"), "refuse") == "pass"
        self.interests = Interests(
            verbs=_STORING, completions=_STORING, message=self._limit, events=frozenset([Event.CLOSED])
        )

    def start(self, clock: Any) -> None:
        """Learn what connects."""
        found = self._service
        if found["path"]:
            self._endpoint: IStreamClientEndpoint = UNIXClientEndpoint(clock, found["path"])
        else:
            self._endpoint = HostnameEndpoint(clock, found["v6"] or found["host"], int(found["port"]))

    def command(self, session: Session, command: Command) -> Verdict | None:
        """Refuse messages that are put together of others, since no scanner would see them whole."""
        words = command.tokens[1 + (command.name == "REPLACE") :]
        if any(word.value.upper() == b"CATENATE" for word in words):
            return Reject("CANNOT", "Only whole messages can be stored here", "catenate")
        return None

    async def message_begins(self, session: Session, command: Command, message: Message) -> Verdict | None:
        """Connect to the scanner."""
        self._abandon(session)
        if (refused := self.command(session, command)) is not None:
            return refused
        state = session.state(self)
        state["tag"] = command.command.tag
        if message.size > self._limit:
            if self._oversize_passes:
                state["scan"] = None
                return Annotate({"scan": "too large"})
            return Reject("TOOBIG", f"The message is larger than {self._limit} octets", "too large")
        scan = await connectProtocol(self._endpoint, _Scan())
        if "closed" in state:
            scan.abandon()
        else:
            state["scan"] = scan
        return None

    def message_chunk(self, session: Session, message: Message, data: bytes) -> Deferred[None] | None:
        """Send it on to the scanner, as fast as that takes it."""
        scan: _Scan | None = session.state(self).get("scan")
        return None if scan is None else scan.send(data)

    async def message_ends(self, session: Session, message: Message) -> Verdict | None:
        """Ask the scanner what it has found."""
        state = session.state(self)
        if "scan" not in state:
            raise ScanFailed("there was no scan")
        scan: _Scan | None = state.pop("scan")
        if scan is None:
            return None
        answer = await scan.end()
        if answer == b"stream: OK":
            return Annotate({"scan": "clean"})
        found = _FOUND.fullmatch(answer)
        if found is None:
            raise ScanFailed(f"the scanner says {_seemly(answer)}")
        return Reject("CANNOT", "The message was refused by a scan", _seemly(found[1]))

    def completed(self, session: Session, command: Command, completion: Completion) -> None:
        """Give up a scan whose message the server has not wanted."""
        if session.state(self).get("tag") == command.command.tag:
            self._abandon(session)

    def session_closed(self, session: Session, reason: str) -> None:
        """Give up a scan whose client is gone, and one that is about to begin."""
        session.state(self)["closed"] = True
        self._abandon(session)

    def _abandon(self, session: Session) -> None:
        scan: _Scan | None = session.state(self).pop("scan", None)
        if scan is not None:
            scan.abandon()


def _service(options: Options) -> re.Match[str]:
    """Where the scanner is; messages leave this machine unencrypted only where that is said."""
    found = _SERVICE.fullmatch(options.text("service"))
    plaintext = options.flag("allow_plaintext", False)
    if found is None or (found["port"] and not 0 < int(found["port"]) < 65536):
        raise options.fault("service", 'expected "tcp:HOST:PORT" or "unix:/path"')
    if not found["path"] and not plaintext and not is_here(found["v6"] or found["host"]):
        raise options.fault(
            "service", "messages would leave this machine unencrypted; if that is meant, set allow_plaintext = true"
        )
    return found


def _seemly(text: bytes) -> str:
    return _UNSEEMLY.sub("?", text.decode("latin-1"))[:_SIGNATURE_MOST]


PLUGIN = AppendScan
