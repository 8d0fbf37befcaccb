"""The operator's log: one line for each session, at its end, and one for each failed login; and the trace.

No secret and no octet of mail comes here.  What a client chose (its user name) is JSON-quoted, so that
it can forge neither a line nor a field (THREATS A39).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from twisted.internet.interfaces import IReactorTime

from imapgate.log import DEBUG, INFO, log
from imapgate.session.effects import Event, LoggedIn, LoginFailed, Side, Traced, Violation

if TYPE_CHECKING:
    from imapgate.net.dial import Client
    from imapgate.session.session import ClientSession


ENDED = (
    "session ended: user={user} address={address} reason={reason} seconds={seconds} in={read} out={written} "
    "commands={commands} session={session}"
)
"""The one line of every session, put together here in a fraction of the time that the logger would take."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def printable(text: bytes) -> str:
    """A line as it stands in a trace: ASCII, without control characters."""
    return _CONTROL.sub(_escaped, text.decode("ascii", "backslashreplace"))


def quoted(user: bytes) -> str:
    """A user name as it stands in the log: a JSON string, ``-`` where SASL hid it."""
    return json.dumps(user.decode("utf-8", "backslashreplace")) if user else "-"


class Trace:
    """A wire trace of one user: a file that only its owner can read, up to a time.

    :param until: seconds on the reactor's clock.
    """

    def __init__(self, user: str, file: Path, until: float, clock: IReactorTime) -> None:
        self.user = user.encode()
        self._file = file
        self._until = until
        self._clock = clock
        self._open: BinaryIO | None = None

    def wants(self, user: bytes) -> bool:
        """Whether this user's session is to be traced now."""
        return user == self.user and self._clock.seconds() < self._until

    def write(self, client: Client, event: Traced) -> None:
        """Write one line: the time, the session, who spoke, what."""
        if self._clock.seconds() >= self._until:
            self.close()
            return
        if self._open is None:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            os.fchmod(descriptor, 0o600)
            self._open = os.fdopen(descriptor, "ab", buffering=0)
        moment = datetime.now(UTC).isoformat(timespec="microseconds")
        speaker = "C" if event.side is Side.CLIENT else "S"
        self._open.write(f"{moment} {client.session} {speaker}: {printable(event.text)}\n".encode())

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None


class Tap(NamedTuple):
    """Somebody who watches one user's sessions: ``write`` takes a row for each line."""

    user: bytes
    write: Callable[[dict[str, str | int | float | None]], None]


class Journal:
    """Writes what happened to the log.

    :param taps: who watches users; the next journal has the same
    """

    def __init__(self, trace: Trace | None = None, taps: list[Tap] | None = None) -> None:
        self.trace = trace
        self.taps = [] if taps is None else taps

    def wants_trace(self, user: bytes) -> bool:
        """Whether this user's session is to be traced."""
        return (self.trace is not None and self.trace.wants(user)) or any(tap.user == user for tap in self.taps)

    def connected(self, client: Client, tls: str | None) -> None:
        """A client is there, and TLS is up where there is any."""
        if not DEBUG:
            return
        log.debug(
            "client connected: address={address} tls={tls} session={session}",
            address=client.address or "unix", tls=json.dumps(tls) if tls else "-", session=client.session,
        )  # fmt: skip

    def report(self, client: Client, event: Event, user: bytes = b"") -> None:
        """What the core has to tell."""
        address = client.address or "unix"
        if isinstance(event, Traced):
            self._traced(client, event, user)
        elif isinstance(event, LoggedIn):
            if DEBUG:
                log.debug(
                    "logged in: user={user} address={address} mechanism={mechanism} session={session}",
                    user=quoted(event.user), address=address, mechanism=event.mechanism.decode("ascii"),
                    session=client.session,
                )  # fmt: skip
        elif isinstance(event, LoginFailed):
            log.info(
                "login failed: user={user} address={address} mechanism={mechanism} reason={reason} session={session}",
                user=quoted(event.user), address=address, mechanism=event.mechanism.decode("ascii"),
                reason=event.failure.value, session=client.session,
            )  # fmt: skip
        elif isinstance(event, Violation):
            self._violation(client, address, event)

    def _traced(self, client: Client, event: Traced, user: bytes) -> None:
        for tap in self.taps:
            if tap.user == user:
                speaker = "client" if event.side is Side.CLIENT else "upstream"
                tap.write({"session": client.session, "side": speaker, "line": printable(event.text)})
        if self.trace is None or self.trace.user != user:
            return
        try:
            self.trace.write(client, event)
        except OSError as error:  # a full disk, or a file that is not ours to write: the session goes on
            log.error("the trace is given up: {error}", error=str(error))
            self.trace = None

    def _violation(self, client: Client, address: str, event: Violation) -> None:
        log.info(
            "protocol error of the {side}: {text} address={address} session={session}",
            side=event.side.value, text=event.text, address=address, session=client.session,
        )  # fmt: skip

    def ended(
        self, client: Client, user: bytes, session: ClientSession, seconds: float, octets: tuple[int, int]
    ) -> None:
        """A session of this user is over; ``octets`` came from the client and went to it."""
        if not INFO:
            return
        line = ENDED.format(
            user=quoted(user), address=client.address or "unix", reason=json.dumps(session.reason),
            seconds=f"{seconds:.1f}", read=octets[0], written=octets[1], commands=session.commands,
            session=client.session,
        )  # fmt: skip
        log.info("{line}", line=line)
