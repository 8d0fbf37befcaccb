"""The way into an upstream server: greeting, STARTTLS, capabilities, ID, login.

:class:`UpstreamLogin` is the client protocol receiver and sender up to the moment where the connection
is somebody's; then its :class:`Link` is handed on.  Nothing that upstream says before that reaches a
client (THREATS A5), except the challenges of a relayed mechanism.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from enum import Enum

from imapgate.errors import UpstreamProtocolError
from imapgate.limits import Limits
from imapgate.model import capability
from imapgate.model.failure import Failure
from imapgate.model.secret import Secret
from imapgate.session.effects import Challenge, Failed, Granted, Login, SendUpstream, Side, StartTLS
from imapgate.session.link import Link
from imapgate.session.responses import STATUS, capabilities
from imapgate.wire.writer import segments, string

Step = SendUpstream | StartTLS | Granted | Challenge | Failed
Originating = tuple[tuple[bytes, bytes], ...]
"""The ``x-originating-*`` fields, and other fields, of an ID command, in order."""

_TEMPORARY = frozenset((b"UNAVAILABLE", b"LIMIT", b"INUSE", b"SERVERBUG", b"CONTACTADMIN"))
_CONTINUATION = re.compile(rb"\+ ?([^\r\n]*)\r\n\Z")


class Stage(Enum):
    """Where an upstream login stands."""

    GREETING = "greeting"
    CAPABILITY = "capabilities asked"
    STARTTLS = "STARTTLS sent"
    TLS = "TLS handshake"
    ID = "ID sent"
    LOGIN = "login sent"
    CAPABILITY_AFTER = "capabilities asked after the login"
    OVER = "over"


class UpstreamLogin:
    """From a fresh connection to one that belongs to a client.

    :param login: whom to log in, and how; ``None``: nobody, stop at the capabilities (a probe).
    :param starttls: demand STARTTLS before anything else; without it nothing else is ever sent.
    :param originating: the fields of an ID command to send first, where upstream knows ID.
    """

    def __init__(
        self, limits: Limits, login: Login | None, *, starttls: bool = False, originating: Originating = ()
    ) -> None:
        self.link = Link(limits)
        self.stage = Stage.GREETING
        self.greeting = b""
        """The server's first line, without CRLF."""
        self.offered = b""
        """The capabilities before the login, on the connection as it then was."""
        self._login = login
        self._starttls = starttls
        self._originating = originating
        self._rounds = limits.sasl_rounds
        self._tag = b""
        self._said: bytes | None = None  # capabilities, since the last moment at which they could change
        self._answers: list[bytes] = []  # what to send at each "+" of the login, last one first
        self._relaying = login is not None and login.credentials is None
        self._bye = False
        self._steps: list[Step] = []

    # --- what happens ---------------------------------------------------------------------------------

    def connected(self) -> list[Step]:
        """TLS that this login had asked for is up, and the server verified."""
        self._said = None
        self._ask(Stage.CAPABILITY, b"CAPABILITY")
        return self._taken()

    def received(self, data: bytes) -> list[Step]:
        """Take what the server sent."""
        over = self.stage is Stage.OVER
        try:
            for careful, piece in self.link.scanner.feed(data):
                if self.stage is Stage.OVER:
                    self.link.unread.append((careful, piece))
                elif self.stage is Stage.TLS:
                    raise UpstreamProtocolError("octets behind the OK of STARTTLS")  # THREATS A2
                elif careful:
                    self._line(piece)
            if self.stage is Stage.TLS:
                if not self.link.scanner.clean:
                    raise UpstreamProtocolError("octets behind the OK of STARTTLS")
                self._steps.append(StartTLS(Side.UPSTREAM))
        except UpstreamProtocolError:
            self._steps.clear()
            self.stage = Stage.OVER
            if not over:  # also where a login was granted in this very chunk
                self._steps.append(Failed(Failure.PROTOCOL))
        return self._taken()

    def respond(self, data: Secret) -> list[Step]:
        """Pass on the client's answer to a challenge; ``*`` cancels, and ends the login at once."""
        if self.stage is Stage.LOGIN:
            self._send(data.reveal() + b"\r\n")
            if data.reveal() == b"*":
                self._fail(Failure.CANCELLED)
        return self._taken()

    def lost(self) -> list[Step]:
        """The connection ended."""
        self._fail(Failure.BYE if self._bye else Failure.LOST)
        return self._taken()

    def _taken(self) -> list[Step]:
        steps, self._steps = self._steps, []
        return steps

    # --- lines ----------------------------------------------------------------------------------------

    def _line(self, line: bytes) -> None:
        if line.startswith(b"* "):
            self._untagged(line)
        elif line.startswith(b"+"):
            self._continued(line)
        else:
            status = STATUS.match(line)
            if status is None or not self._tag or status[1] != self._tag or status[2].upper() in (b"BYE", b"PREAUTH"):
                raise UpstreamProtocolError("a completion for no command")
            self._tag = b""
            said = capabilities(line)
            if said is not None:
                self._said = said
            _COMPLETED[self.stage](self, status[2].upper() == b"OK", (status[3] or b"").upper())

    def _untagged(self, line: bytes) -> None:
        said = capabilities(line)
        if said is not None:
            self._said = said
        status = STATUS.match(line)
        word = status[2].upper() if status else b""
        if word == b"BYE":
            self._bye = True
        if self.stage is not Stage.GREETING:
            return
        self.greeting = line.rstrip(b"\r\n")
        if word == b"BYE":
            self._fail(Failure.BYE)
        elif word == b"PREAUTH":
            self._fail(Failure.TLS_MISSING if self._starttls else Failure.PROTOCOL)
        elif word != b"OK":
            raise UpstreamProtocolError("no greeting")
        elif self._starttls:
            self._ask(Stage.STARTTLS, b"STARTTLS")
        elif self._said is None:
            self._ask(Stage.CAPABILITY, b"CAPABILITY")
        else:
            self._capable()

    def _continued(self, line: bytes) -> None:
        found = _CONTINUATION.match(line)
        if self.stage is not Stage.LOGIN or found is None:
            raise UpstreamProtocolError("a continuation that nobody awaits")
        if self._answers:
            self._send(self._answers.pop())
            return
        self._rounds -= 1
        if not self._relaying or self._rounds < 0:
            raise UpstreamProtocolError("one challenge too many")
        self._steps.append(Challenge(found[1]))

    # --- completions ----------------------------------------------------------------------------------

    def _tls_completed(self, ok: bool, code: bytes) -> None:
        if ok:
            self.stage = Stage.TLS
        else:
            self._fail(Failure.TLS_MISSING)

    def _capability_completed(self, ok: bool, code: bytes) -> None:
        if self._said is None:
            raise UpstreamProtocolError("no answer to CAPABILITY")
        self._capable()

    def _id_completed(self, ok: bool, code: bytes) -> None:
        self._authenticate()

    def _login_completed(self, ok: bool, code: bytes) -> None:
        if not ok:
            self._fail(Failure.TEMPORARY if code in _TEMPORARY else Failure.CREDENTIALS)
        elif self._said is None:
            self._ask(Stage.CAPABILITY_AFTER, b"CAPABILITY")
        else:
            self._grant()

    def _after_completed(self, ok: bool, code: bytes) -> None:
        self._grant()

    # --- steps ----------------------------------------------------------------------------------------

    def _capable(self) -> None:
        """Capabilities are known: say who asks, where upstream wants to know, and log in."""
        self.offered = self._said or b""
        if self._login is None:
            self._grant()
        elif self._originating and b"ID" in capability.parse(self.offered):
            fields = [string(text) for pair in self._originating for text in pair]
            spaced = [part for field in fields for part in (b" ", field)][1:]
            pieces = segments((b"ID (", *spaced, b")"))
            if len(pieces) > 1:
                raise AssertionError("ID fields are quotable")
            self._ask(Stage.ID, pieces[0][:-2])
        else:
            self._authenticate()

    def _authenticate(self) -> None:
        """Log in by the best way that upstream offers."""
        login, offered = self._login, capability.parse(self.offered)
        assert login is not None
        self._said = None
        inline = b"SASL-IR" in offered
        if login.credentials is None:
            if b"AUTH=" + login.mechanism not in offered:
                return self._fail(Failure.NO_MECHANISM)
            return self._sasl(login.mechanism, [] if login.initial is None else [login.initial.reveal()], inline)
        user, password, authorisation = login.credentials[0], login.credentials[1].reveal(), login.credentials[2]
        if b"AUTH=PLAIN" in offered:
            response = b"%b\0%b\0%b" % (authorisation, user, password)
            return self._sasl(b"PLAIN", [base64.b64encode(response)], inline)
        if authorisation:  # nothing else can say it
            return self._fail(Failure.NO_MECHANISM)
        if b"AUTH=LOGIN" in offered:
            return self._sasl(b"LOGIN", [base64.b64encode(user), base64.b64encode(password)], False)
        if b"LOGINDISABLED" in offered:
            return self._fail(Failure.NO_MECHANISM)
        pieces = segments((b"LOGIN ", string(user), b" ", string(password)))
        self._answers = pieces[:0:-1]
        return self._ask(Stage.LOGIN, pieces[0][:-2])

    def _sasl(self, mechanism: bytes, answers: list[bytes], inline: bool) -> None:
        words = [b"AUTHENTICATE", mechanism]
        if answers and inline:
            words.append(answers.pop(0) or b"=")
        self._answers = [(b"" if answer == b"=" else answer) + b"\r\n" for answer in reversed(answers)]
        self._ask(Stage.LOGIN, b" ".join(words))

    def _ask(self, stage: Stage, command: bytes) -> None:
        self.stage = stage
        self._tag = self.link.next_tag()
        self._send(b"%b %b\r\n" % (self._tag, command))

    def _send(self, data: bytes) -> None:
        self._steps.append(SendUpstream(data))

    def _grant(self) -> None:
        self.link.capabilities = self._said or b""
        self.stage = Stage.OVER
        self._steps.append(Granted(self.link))

    def _fail(self, failure: Failure) -> None:
        if self.stage is not Stage.OVER:
            self.stage = Stage.OVER
            self._steps.append(Failed(failure))


_COMPLETED: dict[Stage, Callable[[UpstreamLogin, bool, bytes], None]] = {
    Stage.CAPABILITY: UpstreamLogin._capability_completed,
    Stage.STARTTLS: UpstreamLogin._tls_completed,
    Stage.ID: UpstreamLogin._id_completed,
    Stage.LOGIN: UpstreamLogin._login_completed,
    Stage.CAPABILITY_AFTER: UpstreamLogin._after_completed,
}


def originating(
    client: tuple[str, int], local: tuple[str, int], session: str, client_id: Iterable[tuple[bytes, bytes]], ttl: int
) -> Originating:
    """The ID fields that tell a server that trusts the gate who the client is (Dovecot's names for them).

    :param client: address and port of the client; ``local``: those that it connected to
    :param ttl: through how many more gates the login may go
    """
    fields = [
        (b"x-originating-ip", client[0].encode()),
        (b"x-originating-port", b"%d" % client[1]),
        (b"x-connected-ip", local[0].encode()),
        (b"x-connected-port", b"%d" % local[1]),
        (b"x-session-id", session.encode()),
        (b"x-proxy-ttl", b"%d" % ttl),
    ]
    return (*fields, *client_id)
