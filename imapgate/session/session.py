"""One client's session, from its first octet to its last: the core's face.

Every method takes what happened and returns what is to be done about it, as a list of effects in
order.  The session knows no clock, no socket and no Twisted; that a time has passed, it is told.

A session is in one of two phases, each a part of its own: :class:`~imapgate.session.login.ClientLogin`
before the login, :class:`~imapgate.session.relay.Relay` after it.  What is common to both stands here:
when input is taken, time limits, half-closes, and every way to end.
"""

from __future__ import annotations

from collections.abc import Callable

from imapgate.errors import ClientProtocolError, UpstreamProtocolError
from imapgate.limits import Limits
from imapgate.model.commands import COMMANDS, Table
from imapgate.model.failure import LOST_SESSION, Failure
from imapgate.session.deeds import Place
from imapgate.session.effects import (
    Answer,
    CancelTimer,
    Close,
    Effect,
    Failed,
    Free,
    Granted,
    Hold,
    Judgement,
    Reason,
    Report,
    SendClient,
    SendUpstream,
    SetTimer,
    Side,
    Timer,
    Violation,
)
from imapgate.session.intake import Complete, Intake
from imapgate.session.login import ClientLogin, Terms
from imapgate.session.outbox import Outbox
from imapgate.session.relay import Relay
from imapgate.session.states import CONNECTION, Connection, ConnectionEvent, SendingEvent
from imapgate.session.watched import WatchedRelay

LOOKS = 8
"""A time limit is looked at this many times while it runs, so that traffic need not reset a timer."""

_BYE = b"* BYE %b\r\n"


TOO_MANY = _BYE % b"[LIMIT] Too many connections"
"""The only line for a client that is not let in at all."""

UNRECORDED = b"[UNAVAILABLE] The audit trail cannot be written"
"""What a client is told where nothing may be done unrecorded."""

SHUTTING_DOWN = b"[UNAVAILABLE] The mail gateway is shutting down"
"""What :meth:`ClientSession.stop` says when the gate goes down."""


class ClientSession:
    """The conversation with one client.

    :ivar user: the name it has logged in with, as it was given; empty before, and where SASL hid it
    :ivar reason: why the session ended, a few words for the log
    :ivar commands: how many commands it gave
    """

    __slots__ = (
        "_ended", "_farewell", "_half_closed", "_held", "_intake", "_limits", "_login", "_out", "_relay", "_silence",
        "_spoke", "_state", "_table", "_waited", "commands", "reason", "user",
    )  # fmt: skip

    def __init__(self, limits: Limits, table: Table = COMMANDS) -> None:
        self._limits = limits
        self._table = table
        self._out = Outbox()
        self._intake = Intake(limits, table)
        self._login: ClientLogin | None = None
        self._relay: Relay | None = None
        self._state = Connection.CONNECTING
        self._held: Reason | None = None
        self._half_closed = False
        self._ended = False
        self._farewell = b""  # why the session is to end at the next command boundary
        self._spoke = False  # the client, since the last look
        self._silence = 0  # looks at which the client had not spoken
        self._waited = 0  # looks at which upstream owed something and had not spoken
        self.user = b""
        self.reason = ""
        self.commands = 0

    @property
    def state(self) -> Connection:
        """The state of the connection."""
        return self._relay.connection if self._relay is not None and not self._ended else self._state

    # --- what happens -----------------------------------------------------------------------------------

    def client_connected(self, terms: Terms) -> list[Effect]:
        """The client is connected, and TLS is up where it was to be: at first, and after STARTTLS.

        After STARTTLS nothing is left of what was known before it (RFC 3501 §6.2.1).
        """
        if self._ended:  # while the handshake ran
            return self._out.take()
        fresh = self._state is Connection.CONNECTING
        self._state = CONNECTION[self._state, ConnectionEvent.CONNECTED]
        if not fresh:
            self._intake = Intake(self._limits, self._table)
        self._login = ClientLogin(self._out, self._intake, self._limits, terms)
        if fresh:
            self._login.greet()
            self._out.effect(SetTimer(Timer.LOGIN, self._limits.login_time))
        return self._out.take()

    def client_received(self, data: bytes) -> list[Effect]:
        """The client sent something; held back or not, it is never lost."""
        self._spoke = True
        if not self._ended:
            if self._intake.passes(data):
                return [SendUpstream(data)]
            self._intake.feed(data)
            self._advance()
        return self._out.take()

    def client_half_closed(self) -> list[Effect]:
        """The client will send no more, but what it sent last is still answered, in bounded time."""
        if not self._ended:
            self._half_closed = True
            self._out.effect(SetTimer(Timer.HALF_CLOSE, self._limits.half_close))
            self._advance()
        return self._out.take()

    def client_lost(self, reason: str = "client closed") -> list[Effect]:
        """The connection to the client is gone, or is given up for this reason."""
        if not self._ended:
            self._end(reason)
        return self._out.take()

    def upstream_received(self, data: bytes) -> list[Effect]:
        """The upstream connection that was granted has something to say."""
        relay = self._relay
        if not self._ended and relay is not None:
            if relay.passes(data):
                return [SendClient(data)]
            self._reading(relay.received, data)
            if self._held is not None or self._half_closed:
                self._advance()
        return self._out.take()

    def upstream_lost(self, failure: Failure) -> list[Effect]:
        """The upstream connection that was granted is gone: LOST, TIMED_OUT or PROTOCOL.

        At a line's start the client is told; in the middle of a response it is cut off, since anything
        more would look like the rest of it (PROTOCOL §5).
        """
        if not self._ended:
            self._lose_upstream(failure)
        return self._out.take()

    def answered(self, answer: Answer) -> list[Effect]:
        """The question that was asked last has an answer."""
        login = self._login
        if self._ended:
            return self._out.take()
        if isinstance(answer, Judgement):
            if self._relay is not None:
                self._reading(self._relay.judged, answer)
        elif login is None:
            self._lease_answered(answer)
        elif isinstance(answer, Granted):
            self._logged_in(login, answer)
        else:
            login.answered(answer)
        self._advance()
        return self._out.take()

    def ticked(self, timer: Timer) -> list[Effect]:
        """The time that was set has passed."""
        if not self._ended:
            _TICKED[timer](self)
        return self._out.take()

    def trace(self) -> None:
        """Report every line from now on."""
        if self._relay is not None:
            self._relay.trace()

    @property
    def place(self) -> Place | None:
        """The selected mailbox, where anybody watches; ``None``: there is none."""
        return None if self._relay is None else self._relay.place

    def recording_failed(self, whole: bool = True) -> list[Effect]:
        """What was to be on disk cannot be: the client must not see what was to follow (THREATS F14).

        :param whole: what it has been sent ends a response; else anything more would look like the rest of that
        """
        if not self._ended:
            said = _BYE % UNRECORDED if whole else b""
            self._end("audit trail cannot be written", said=said, abort=not whole, broken=True)
        return self._out.take()

    @property
    def pinned(self) -> str:
        """Why its upstream connection can be nobody else's; empty: it can, or there is none."""
        return "" if self._relay is None or self._ended else self._relay.pinned

    def stop(self, text: bytes) -> list[Effect]:
        """The gate is going down, or the operator ends this session."""
        if not self._ended:
            self._end("stopped", said=_BYE % text)
        return self._out.take()

    def leave(self, text: bytes) -> list[Effect]:
        """The same at the next command boundary: what is in flight is answered, and no more is taken."""
        if self._relay is None:
            return self.stop(text)
        if not self._ended:
            self._farewell = text
            self._advance()
            self._after()
        return self._out.take()

    # --- going on ---------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Take the client's input as far as it goes."""
        reason: Reason | None = None
        try:
            while not self._ended:
                part = self._relay or self._login
                if part is None or (reason := part.waiting) is not None:
                    break
                if self._farewell and not part.receiving:
                    reason = Reason.LOGOUT
                    break
                event = self._intake.next()
                if event is None:
                    if self._half_closed and not part.busy:  # nothing more will come, nothing is owed
                        self._end("client closed")
                    break
                if type(event) is Complete:
                    self.commands += 1
                part.take(event)
                self._after()
                if self._intake.drained and not self._half_closed:
                    reason = part.waiting
                    break
        except ClientProtocolError as error:
            self._client_broke(error)
        if reason is not self._held and not self._ended:
            self._hold(reason)

    def _after(self) -> None:
        """See whether something ended the session, or the client has earned its end."""
        part, limits = self._relay or self._login, self._limits
        if self._ended or part is None:
            return
        if part.dismissed:
            self._end("dismissed", said=_BYE % part.dismissed)
        elif part.finished:
            self._end("logout" if part.leaving else "upstream BYE")
        elif part.bad >= (limits.bad_commands_after_login if self._relay else limits.bad_commands_before_login):
            self._end("too many bad commands", said=_BYE % b"Too many bad commands")
        elif self._farewell and part.quiet:
            self._end("stopped", said=_BYE % self._farewell)

    def _hold(self, reason: Reason | None) -> None:
        """Stop hearing the client for this reason, or hear it again."""
        if self._held is not None:
            self._out.effect(Free(Side.CLIENT, self._held))
        if reason is not None:
            self._out.effect(Hold(Side.CLIENT, reason))
        self._held = reason

    def _logged_in(self, login: ClientLogin, granted: Granted) -> None:
        watched = granted.interests is not None or granted.auditing is not None
        relay = (WatchedRelay if watched else Relay)(self._out, self._intake, self._limits, self._table, granted)
        self.user = login.granted(relay.capabilities)
        self._state = CONNECTION[self._state, ConnectionEvent.LOGGED_IN]
        self._intake.authenticated = True
        self._login = None
        self._out.effect(CancelTimer(Timer.LOGIN))
        self._out.effect(SetTimer(Timer.IDLE, self._limits.client_idle / LOOKS))
        self._out.effect(SetTimer(Timer.UPSTREAM, self._limits.upstream_first_byte / LOOKS))
        self._relay = relay
        self._reading(relay.begin)

    def _lease_answered(self, answer: Answer) -> None:
        relay = self._relay
        if relay is None or not relay.awaits_lease:
            return
        if isinstance(answer, Granted):
            self._reading(relay.leased, answer)
        elif isinstance(answer, Failed):
            if answer.failure is Failure.CREDENTIALS:  # there will never be one again
                self._lose_upstream(answer.failure)
            else:
                relay.lease_refused(answer)
                self._after()

    def _reading(self, read: Callable[..., None], *what: object) -> None:
        """Let the relay read what upstream sent, and see what becomes of it."""
        try:
            read(*what)
        except UpstreamProtocolError as error:
            self._upstream_broke(error)
        self._after()

    # --- timers -----------------------------------------------------------------------------------------

    def _login_late(self) -> None:
        self._end("login timed out", said=_BYE % b"Too long without a login")

    def _half_close_late(self) -> None:
        self._end("client closed", abort=True)

    def _refresh_idle(self) -> None:
        assert self._relay is not None
        self._relay.refresh_idle()

    def _look_at_client(self) -> None:
        self._silence = 0 if self._spoke or (self._relay and self._relay.awaits_upstream) else self._silence + 1
        self._spoke = False
        if self._silence >= LOOKS:
            self._end("idle", said=_BYE % b"Too long without a command")
        else:
            self._out.effect(SetTimer(Timer.IDLE, self._limits.client_idle / LOOKS))

    def _look_at_upstream(self) -> None:
        relay, limits = self._relay, self._limits
        assert relay is not None
        self._waited = self._waited + 1 if relay.awaits_upstream and not relay.heard else 0
        relay.heard = False
        most = limits.upstream_first_byte_slow if relay.slow else limits.upstream_first_byte
        if (self._waited - 1) * limits.upstream_first_byte / LOOKS >= most:  # the first look came at any moment
            self._lose_upstream(Failure.TIMED_OUT)
        else:
            self._out.effect(SetTimer(Timer.UPSTREAM, limits.upstream_first_byte / LOOKS))

    # --- ending -----------------------------------------------------------------------------------------

    def _client_broke(self, error: ClientProtocolError) -> None:
        text = error.text.encode()
        self._out.effect(Report(Violation(Side.CLIENT, error.text or "another protocol")))
        self._end("client protocol error", said=b"* BAD %b\r\n* BYE Closing\r\n" % text if text else b"")

    def _upstream_broke(self, error: UpstreamProtocolError) -> None:
        self._out.effect(Report(Violation(Side.UPSTREAM, str(error))))
        self._lose_upstream(Failure.PROTOCOL)

    def _lose_upstream(self, failure: Failure) -> None:
        self._end(f"upstream {failure.value}", said=LOST_SESSION[failure], broken=True)

    @property
    def _mid_response(self) -> bool:
        return self._relay is not None and self._relay.mid_response

    def _end(self, reason: str, *, said: bytes = b"", abort: bool = False, broken: bool = False) -> None:
        """End the session: the last line, or a cut where the client would take it for part of a response.

        :param broken: the upstream connection cannot be used any more.
        """
        self._state = CONNECTION[self.state, ConnectionEvent.ENDED]
        self._ended = True
        self.reason = reason
        self._intake.moved(SendingEvent.STOPPED)
        if said and self._mid_response:
            abort = True
        elif said:
            self._out.client(said)
        if self._relay is not None:
            self._relay.let_go(broken=broken)
        else:
            self._out.effect(Close(Side.UPSTREAM))
        self._out.effect(Close(Side.CLIENT, abort))


_TICKED = {
    Timer.LOGIN: ClientSession._login_late,
    Timer.HALF_CLOSE: ClientSession._half_close_late,
    Timer.IDLE: ClientSession._look_at_client,
    Timer.UPSTREAM: ClientSession._look_at_upstream,
    Timer.REFRESH: ClientSession._refresh_idle,
}
