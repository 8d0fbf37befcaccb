"""The client's side before a login: greeting, capabilities, STARTTLS, ID, LOGIN and AUTHENTICATE.

The gate is the server here, and answers everything itself.  PLAIN, LOGIN and the LOGIN command end at
the gate; other mechanisms are relayed, challenge by challenge.  Who may log in is not for the core to
say: it asks, and is told.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from imapgate.errors import ClientProtocolError
from imapgate.limits import Limits
from imapgate.model import capability
from imapgate.model.commands import Command, arguments
from imapgate.model.failure import ANSWERS, Failure
from imapgate.model.secret import Credentials, Secret
from imapgate.session import bearer
from imapgate.session import intake as takes
from imapgate.session.effects import (
    Ask,
    Challenge,
    Failed,
    Identified,
    LoggedIn,
    Login,
    LoginFailed,
    Reason,
    Report,
    Respond,
    Side,
    StartTLS,
)
from imapgate.session.intake import Intake
from imapgate.session.outbox import Outbox
from imapgate.session.states import Sending, SendingEvent
from imapgate.wire.tokens import ATOM
from imapgate.wire.writer import quotable

PROMPT = b"+ OK\r\n"
LEAVE = b"* BYE Logging out\r\n%b OK Logged out\r\n"
SELF = b'* ID ("name" "imapgate")\r\n'

_ID_FIELDS = 30  # RFC 2971 §3.3


class Terms(NamedTuple):
    """What a client may do before it has logged in.

    :ivar starttls: STARTTLS is offered
    :ivar login: a login is allowed on the connection as it is
    :ivar relayed: the mechanisms that upstream is known to offer, and that the gate relays
    :ivar terminated: those that end at the gate
    :ivar mask: what a list of capabilities becomes before the client sees it
    """

    starttls: bool
    login: bool
    relayed: tuple[bytes, ...] = ()
    terminated: tuple[bytes, ...] = capability.TERMINATED
    mask: Callable[[bytes], bytes] | None = None


def identity(command: Command) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of an ID command that may be repeated to others: printable, and not the gate's own (``x-``)."""
    values = [token.value for token in command.tokens[1:-1]]
    pairs = zip(values[::2], values[1::2], strict=False)
    return tuple(
        (name, value)
        for name, value in pairs
        if quotable(name) and quotable(value) and not name.lower().startswith(b"x-") and value.upper() != b"NIL"
    )[:_ID_FIELDS]


def ttl(command: Command) -> int:
    """Through how many more gates the login behind an ID command may go; whoever it was that said so, at most 5."""
    values = [token.value for token in command.tokens[1:-1]]
    said = [value for name, value in zip(values[::2], values[1::2], strict=False) if name.lower() == b"x-proxy-ttl"]
    return min([5, *(int(value) for value in said if _TTL.match(value))])


_TTL = re.compile(rb"[0-9]{1,4}\Z")


def decoded(data: bytes) -> bytes:
    """Strict base64 (RFC 4648 §4), ``=`` alone being nothing (RFC 4959 §3).

    :raise ValueError: it is not base64 (THREATS A27).
    """
    return b"" if data == b"=" else binascii.a2b_base64(data, strict_mode=True)


class ClientLogin:
    """A client that has not logged in yet."""

    def __init__(self, out: Outbox, intake: Intake, limits: Limits, terms: Terms) -> None:
        self._out = out
        self._intake = intake
        self._limits = limits
        self._terms = terms
        self._tag = b""  # of the login that is under way
        self._login = Login(b"", None)
        self._taker: Callable[[bytes], None] | None = None  # of the next SASL answer; None: it is relayed
        self._rounds = 0
        self._client_id: tuple[tuple[bytes, bytes], ...] = ()
        self._ttl = Login(b"", None).ttl
        self._asked_capability = False
        self.waiting: Reason | None = None
        """Why no more of the client's input can be taken; ``None``: it can."""
        self.bad = 0
        """How many commands were refused."""
        self.finished = False
        """The client has said LOGOUT."""

    busy = False
    """Whether the client is owed an answer that input already taken will bring."""
    quiet = True
    """Whether a session may end here without anything being lost."""
    receiving = False
    """Whether a command is under way whose rest the client has still to send."""
    dismissed = b""
    """The last words to a client whose session is to end now; empty: it goes on."""

    @property
    def leaving(self) -> bool:
        """Whether the client has said LOGOUT."""
        return self.finished

    def greet(self) -> None:
        """Say the first line."""
        self._out.client(b"* OK [CAPABILITY %b] imapgate ready\r\n" % self._capability())

    def take(self, event: takes.Event) -> None:
        """Take what the client sent."""
        if isinstance(event, takes.Complete):
            _COMMANDS[event.command.rule.verb](self, event.command)
        elif isinstance(event, takes.SaslLine):
            self._sasl(event.data)
        elif isinstance(event, takes.Prompt):
            self._out.client(PROMPT)
        else:
            assert isinstance(event, takes.Refused)
            self.bad += 1
            self._out.client(b"%b %b %b\r\n" % (event.tag, event.completion, event.text.encode()))

    # --- commands -------------------------------------------------------------------------------------

    def _ok(self, tag: bytes, text: bytes) -> None:
        self._out.client(b"%b OK %b\r\n" % (tag, text))

    def _bad(self, tag: bytes, text: bytes) -> None:
        self.bad += 1
        self._out.client(b"%b BAD %b\r\n" % (tag, text))

    def _capability(self) -> bytes:
        terms = self._terms
        names = capability.before_login(
            starttls=terms.starttls,
            login=terms.login,
            mechanisms=(*terms.terminated, *terms.relayed),
            command=b"LOGIN" in terms.terminated,
        )
        return names if terms.mask is None else terms.mask(names)

    def _do_capability(self, command: Command) -> None:
        self._asked_capability = True
        self._out.client(b"* CAPABILITY %b\r\n" % self._capability())
        self._ok(command.tag, b"Capabilities listed")

    def _do_noop(self, command: Command) -> None:
        self._ok(command.tag, b"Nothing done")

    def _do_logout(self, command: Command) -> None:
        self._out.client(LEAVE % command.tag)
        self.finished = True

    def _do_id(self, command: Command) -> None:
        self._client_id, self._ttl = identity(command), ttl(command)
        self._out.effect(Report(Identified(self._client_id)))
        self._out.client(SELF)
        self._ok(command.tag, b"Nice to meet you")

    def _do_starttls(self, command: Command) -> None:
        if not self._terms.starttls:
            return self._bad(command.tag, b"STARTTLS is not to be had here")
        if len(self._intake):  # THREATS A1: whoever put it there could not know of TLS
            raise ClientProtocolError("Octets behind STARTTLS", fatal=True)
        self._ok(command.tag, b"Begin TLS now")
        self._intake.moved(SendingEvent.STOPPED)
        self._out.effect(StartTLS(Side.CLIENT))

    def _do_login(self, command: Command) -> None:
        if not self._allowed(command.tag):
            return
        if b"LOGIN" not in self._terms.terminated:
            return self._out.client(b"%b NO [CANNOT] The command is not offered\r\n" % command.tag)
        user, password = arguments(command.tokens)
        self._begin(command.tag, b"LOGIN")
        self._terminated(user, password)

    def _do_authenticate(self, command: Command) -> None:
        tag, words = command.tag, arguments(command.tokens)
        mechanism = words[0].upper()
        if len(words) > 2 or any(token.kind != ATOM for token in command.tokens):
            return self._bad(tag, b"AUTHENTICATE takes a mechanism, and at most one initial response")
        if not self._allowed(tag):
            return
        try:
            initial = None if len(words) == 1 else decoded(words[1])
        except ValueError:
            return self._bad(tag, b"The initial response is not base64")
        if mechanism in self._terms.terminated:
            prompt, taker = _FIRST[mechanism]
            self._begin(tag, mechanism)
            if initial is None:
                self._prompt(prompt, partial(taker, self))
            else:
                taker(self, initial)
        elif mechanism in self._terms.relayed:
            self._begin(tag, mechanism)
            self._ask(Login(mechanism, None, None if initial is None else Secret(words[1])))
        else:
            self._out.client(b"%b NO [CANNOT] The mechanism is not offered\r\n" % tag)

    def _allowed(self, tag: bytes) -> bool:
        if not self._terms.login:
            self._out.client(b"%b NO [PRIVACYREQUIRED] Begin TLS first\r\n" % tag)
        return self._terms.login

    # --- SASL -----------------------------------------------------------------------------------------

    def _begin(self, tag: bytes, mechanism: bytes) -> None:
        self._tag, self._rounds, self._taker = tag, 0, None
        self._login = Login(mechanism, None)

    def _prompt(self, line: bytes, taker: Callable[[bytes], None] | None) -> None:
        self._out.client(line)
        self._taker = taker
        if self._intake.sending is not Sending.SASL:
            self._intake.moved(SendingEvent.SASL_STARTED)

    def _sasl(self, answer: Secret) -> None:
        text, taker = answer.reveal(), self._taker
        self._rounds += 1
        if self._rounds > self._limits.sasl_rounds:
            raise ClientProtocolError("Too many rounds of authentication", fatal=True)
        try:
            data = None if text == b"*" else decoded(text)
        except ValueError:
            data = None
        if taker is None:
            self.waiting = Reason.ANSWER
            self._out.effect(Respond(Secret(b"*") if data is None else answer))
        elif data is not None:
            taker(data)
        elif text == b"*":
            self._end(*ANSWERS[Failure.CANCELLED])
        else:
            self._end(b"BAD", b"", b"Not base64; authentication ended")

    def _plain(self, data: bytes) -> None:
        """Take ``authorisation NUL user NUL password`` (RFC 4616)."""
        fields = data.split(b"\0")
        if len(fields) == 3:
            self._terminated(fields[1], fields[2], fields[0])
        else:
            self._end(b"BAD", b"", b"A PLAIN response has three fields")

    def _bearer(self, parse: Callable[[bytes], Credentials | None], data: bytes) -> None:
        credentials = parse(data)
        if credentials is None:
            self._end(b"BAD", b"", b"Not a response of this mechanism")
        else:
            self._ask(Login(self._login.mechanism, credentials))

    def _oauthbearer(self, data: bytes) -> None:
        self._bearer(bearer.oauthbearer, data)

    def _xoauth2(self, data: bytes) -> None:
        self._bearer(bearer.xoauth2, data)

    def _user(self, user: bytes) -> None:
        self._prompt(_ASK_PASSWORD, partial(self._terminated, user))

    def _terminated(self, user: bytes, password: bytes, authorisation: bytes = b"") -> None:
        credentials = Credentials(user, Secret(password), authorisation)
        self._ask(Login(self._login.mechanism, credentials))

    def _ask(self, login: Login) -> None:
        login = self._login = Login(login.mechanism, login.credentials, login.initial, self._client_id, self._ttl)
        self.waiting = Reason.ANSWER
        self._out.effect(Ask(login))

    def _end(self, completion: bytes, code: bytes, text: bytes) -> None:
        if self._intake.sending is Sending.SASL:
            self._intake.moved(SendingEvent.DIALOGUE_ENDED)
        words = [self._tag, completion] + ([b"[%b]" % code] if code else []) + [text]
        self._out.client(b" ".join(words) + b"\r\n")

    # --- what becomes of the login --------------------------------------------------------------------

    def answered(self, answer: Challenge | Failed) -> None:
        """Take the answer to the question; a login that is granted goes to :meth:`granted`."""
        self.waiting = None
        if isinstance(answer, Challenge):
            return self._prompt(b"+ %b\r\n" % answer.data, None)
        credentials = self._login.credentials
        user = b"" if credentials is None else credentials.user
        completion, code, text = ANSWERS[answer.failure]
        end = partial(self._end, completion, answer.code or code, answer.text or text)
        if answer.failure is not Failure.CANCELLED:
            self._out.effect(Report(LoginFailed(user, self._login.mechanism, answer.failure)))
        if credentials is not None and self._login.mechanism in _TOKENS and answer.failure is Failure.CREDENTIALS:
            self._prompt(b"+ %b\r\n" % bearer.REFUSED, lambda data: end())
        else:
            end()

    def granted(self, capabilities: bytes) -> bytes:
        """Tell the client that it is logged in; return the user name that it gave (none, where relayed)."""
        self.waiting = None
        credentials = self._login.credentials
        user = b"" if credentials is None else credentials.user
        self._out.effect(Report(LoggedIn(user, self._login.mechanism)))
        if self._asked_capability:  # as Dovecot's own proxy does: the list that it holds is out of date
            self._out.client(b"* CAPABILITY %b\r\n" % capabilities)
        self._end(b"OK", b"CAPABILITY " + capabilities, b"Logged in")
        return user


_ASK_USER, _ASK_PASSWORD = b"+ VXNlcm5hbWU6\r\n", b"+ UGFzc3dvcmQ6\r\n"
_FIRST: dict[bytes, tuple[bytes, Callable[[ClientLogin, bytes], None]]] = {
    b"PLAIN": (b"+ \r\n", ClientLogin._plain),
    b"LOGIN": (_ASK_USER, ClientLogin._user),
    b"OAUTHBEARER": (b"+ \r\n", ClientLogin._oauthbearer),
    b"XOAUTH2": (b"+ \r\n", ClientLogin._xoauth2),
}
_TOKENS = frozenset((b"OAUTHBEARER", b"XOAUTH2"))
_COMMANDS: dict[bytes, Callable[[ClientLogin, Command], None]] = {
    b"CAPABILITY": ClientLogin._do_capability,
    b"NOOP": ClientLogin._do_noop,
    b"LOGOUT": ClientLogin._do_logout,
    b"ID": ClientLogin._do_id,
    b"STARTTLS": ClientLogin._do_starttls,
    b"LOGIN": ClientLogin._do_login,
    b"AUTHENTICATE": ClientLogin._do_authenticate,
}
