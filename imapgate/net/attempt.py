"""A login under way: delays, the doors of the upstream in turn, and the dialogue at the one that opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure as TwistedFailure

from imapgate.auth.identity import admissible
from imapgate.auth.penalties import Penalties
from imapgate.limits import Limits
from imapgate.model.capability import mechanisms
from imapgate.model.failure import Failure
from imapgate.model.secret import Secret
from imapgate.net.census import Census
from imapgate.net.log import log
from imapgate.net.proxy_protocol import encode_v2
from imapgate.net.upstream import Door, UpstreamProtocol
from imapgate.session.effects import Answer, Challenge, Failed, Granted, Login, SendUpstream, StartTLS
from imapgate.session.upstream import Originating, Stage, Step, UpstreamLogin, originating

AddressPort = tuple[str, int]


class Client(NamedTuple):
    """Who asks for a login: the ends of its connection (``None``: a Unix socket), and its session's id."""

    peer: AddressPort | None
    host: AddressPort | None
    session: str

    @property
    def address(self) -> str | None:
        """The client's address, for limits and logs."""
        return None if self.peer is None else self.peer[0]


class Upstream:
    """An upstream server, as the shell knows it.

    :ivar relayed: the mechanisms that it was last seen to offer and that may be relayed
    """

    def __init__(self, name: str, doors: Sequence[Door], *, proxy_protocol: bool, id_originating: bool) -> None:
        self.name = name
        self.doors = tuple(doors)
        self.proxy_protocol = proxy_protocol
        self.id_originating = id_originating
        self.relayed: tuple[bytes, ...] = ()


class _Once(Factory):
    """Gives an endpoint the one protocol that is to be connected."""

    noisy = False

    def __init__(self, protocol: UpstreamProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> UpstreamProtocol:
        return self._protocol


def _cancelled(reason: TwistedFailure) -> TwistedFailure:
    """What an endpoint that was cancelled says of it, said as everything else says it."""
    return TwistedFailure(CancelledError()) if reason.check(ConnectingCancelledError) else reason


class Dialogue:
    """An :class:`UpstreamLogin` on a connection of its own.

    :param challenged: called with each challenge of a relayed mechanism.
    :ivar detail: what the system or TLS said of a failure, for the operator
    """

    def __init__(
        self,
        door: Door,
        core: UpstreamLogin,
        clock: IReactorTime,
        first: bytes,
        challenged: Callable[[Challenge], None],
    ) -> None:
        self.core = core
        self.detail = ""
        self.protocol = UpstreamProtocol(door, self, clock, first)
        self._door = door
        self._clock = clock
        self._challenged = challenged
        self._secured = door.tls is None or door.starttls
        self._greeted: Deferred[None] | None = Deferred()
        self._outcome: Deferred[Granted | Failed] = Deferred()

    async def run(self, to_greet: float, to_answer: float) -> Granted | Failed:
        """Connect and log in; ``to_greet`` and ``to_answer`` are seconds, up to the greeting and from there on."""
        began = self._clock.seconds()
        try:
            connecting = self._door.endpoint.connect(_Once(self.protocol)).addErrback(_cancelled)
            await connecting.addTimeout(to_greet, self._clock)
            if self._greeted is not None:
                left = to_greet - (self._clock.seconds() - began)
                await self._greeted.addTimeout(max(left, 0.001), self._clock)
            outcome = await self._outcome.addTimeout(to_answer, self._clock)
        except (DeferredTimeoutError, ConnectTimeoutError):
            outcome = Failed(Failure.TIMED_OUT)
        except CancelledError:
            self.protocol.close(abort=True)
            raise
        except Exception as error:  # every way in which an endpoint says no: refused, unreachable, no such name
            self.detail = str(error)
            outcome = Failed(Failure.REFUSED)
        if isinstance(outcome, Failed):
            self.protocol.close()
        return outcome

    def respond(self, data: Secret) -> None:
        """Pass on the client's answer to a challenge."""
        self._perform(self.core.respond(data))

    def upstream_secured(self) -> None:
        """TLS is up."""
        if self._secured:
            self._perform(self.core.connected())
        self._secured = True

    def upstream_received(self, data: bytes) -> None:
        """The server sent something."""
        steps = self.core.received(data)
        if self.core.greeting:
            self._greet()
        self._perform(steps)

    def upstream_lost(self, reason: TwistedFailure) -> None:
        """The connection is gone; in a handshake that means that TLS failed."""
        handshake = not self._secured or self.core.stage is Stage.TLS
        if handshake:
            self.detail = reason.getErrorMessage()
            log.info("{door}: TLS failed: {reason}", door=self._door.name, reason=self.detail)
        steps = self.core.lost()
        self._perform([Failed(Failure.TLS)] if handshake and steps else steps)
        self._greet()

    def _greet(self) -> None:
        greeted, self._greeted = self._greeted, None
        if greeted is not None and not greeted.called:
            greeted.callback(None)

    def _perform(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, SendUpstream):
                self.protocol.transport.write(step.data)
            elif isinstance(step, StartTLS):
                self.protocol.start_tls()
            elif isinstance(step, Challenge):
                self._challenged(step)
            elif not self._outcome.called:
                self._outcome.callback(step)


class Attempt:
    """One client's login, from the question to the answer.

    :param answered: called with every answer: challenges, then one Granted or Failed; not after :meth:`cancel`.
    """

    def __init__(
        self,
        client: Client,
        login: Login,
        upstream: Upstream,
        limits: Limits,
        penalties: Penalties,
        census: Census,
        clock: IReactorTime,
        answered: Callable[[Answer], None],
    ) -> None:
        self._client = client
        self._login = login
        self._upstream = upstream
        self._limits = limits
        self._penalties = penalties
        self._census = census
        self._clock = clock
        self._answered = answered
        self._dialogue: Dialogue | None = None
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._broken)

    def cancel(self) -> None:
        """End it, whatever it waits for; no answer comes any more."""
        self._answered = _nobody
        if self._running is not None:
            self._running.cancel()

    def respond(self, data: Secret) -> None:
        """Pass on the client's answer to a challenge."""
        if self._dialogue is not None:
            self._dialogue.respond(data)

    @property
    def user(self) -> bytes:
        """The user name that was given, empty where SASL hides it."""
        return b"" if self._login.credentials is None else self._login.credentials.user

    @property
    def protocol(self) -> UpstreamProtocol:
        """The connection of a login that was granted."""
        assert self._dialogue is not None
        return self._dialogue.protocol

    def _broken(self, reason: TwistedFailure) -> None:
        if not reason.check(CancelledError):
            log.failure("login attempt failed unexpectedly", reason)
            self._answered(Failed(Failure.LOST))

    async def _run(self) -> None:
        clock, penalties, address = self._clock, self._penalties, self._client.address
        credentials = self._login.credentials
        name = "" if credentials is None else credentials.user[: self._limits.user_name].decode("utf-8", "replace")
        wait = max(penalties.admit(clock.seconds(), address, name), penalties.enter(name))
        try:
            if wait > 0:
                await deferLater(clock, wait)
            if credentials is not None and not admissible(credentials, self._limits.user_name):
                outcome: Granted | Failed = Failed(Failure.CREDENTIALS)
            else:
                outcome = await self._dial()
        finally:
            penalties.leave(name)
        if isinstance(outcome, Granted):
            penalties.succeeded(address, name)
            if credentials is not None and not self._census.log_in(address, credentials.user):
                self.protocol.close()
                outcome = Failed(Failure.LIMIT)
        elif outcome.failure is Failure.CREDENTIALS:
            delay = penalties.failed(clock.seconds(), address, name)
            if delay > 0:
                await deferLater(clock, delay)
        self._answered(outcome)

    async def _dial(self) -> Granted | Failed:
        """Try the doors in turn; a server that has greeted has the last word."""
        limits, upstream, seconds = self._limits, self._upstream, self._clock.seconds
        deadline = seconds() + limits.connect_total
        first = encode_v2(self._client.peer, self._client.host) if upstream.proxy_protocol else b""
        fields = self._fields() if upstream.id_originating else ()
        outcome: Granted | Failed = Failed(Failure.REFUSED)
        for door in upstream.doors:
            left = deadline - seconds()
            if left <= 0:
                return Failed(Failure.TIMED_OUT)
            core = UpstreamLogin(limits, self._login, starttls=door.starttls, originating=fields)
            dialogue = self._dialogue = Dialogue(door, core, self._clock, first, self._challenge)
            outcome = await dialogue.run(min(limits.connect_try, left), limits.upstream_first_byte)
            if core.offered:
                upstream.relayed = mechanisms(core.offered.upper().split())
            if isinstance(outcome, Granted) or (core.greeting and outcome.failure is not Failure.BYE):
                return outcome
            log.info(
                "upstream {name}: {door}: {reason}", name=upstream.name, door=door.name, reason=outcome.failure.value
            )
        return outcome

    def _fields(self) -> Originating:
        peer, host = self._client.peer or ("", 0), self._client.host or ("", 0)
        return originating(peer, host, self._client.session, self._login.client_id)

    def _challenge(self, challenge: Challenge) -> None:
        self._answered(challenge)


def _nobody(answer: Answer) -> None:
    """Takes answers to a question whose asker has gone (THREATS A51)."""


class Seen(NamedTuple):
    """What a probe found at one door; ``detail``: what the system or TLS said of a failure."""

    door: Door
    core: UpstreamLogin
    outcome: Granted | Failed
    detail: str


async def probe(upstream: Upstream, limits: Limits, clock: IReactorTime, login: Login | None = None) -> list[Seen]:
    """Look at every door of an upstream, logging in only where ``login`` says so, and close again."""
    found = []
    for door in upstream.doors:
        core = UpstreamLogin(limits, login, starttls=door.starttls)
        first = encode_v2(None, None) if upstream.proxy_protocol else b""
        dialogue = Dialogue(door, core, clock, first, _nobody)
        outcome = await dialogue.run(limits.connect_try, limits.upstream_first_byte)
        dialogue.protocol.close()
        if core.offered:
            upstream.relayed = mechanisms(core.offered.upper().split())
        found.append(Seen(door, core, outcome, dialogue.detail))
    return found
