"""Reaching an upstream server: its doors in turn, and the dialogue at the one that opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure as TwistedFailure

from imapgate.limits import Limits
from imapgate.log import log
from imapgate.model.capability import mechanisms
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode, PoolMode, SharingTerms
from imapgate.model.secret import Secret
from imapgate.net.proxy_protocol import encode_v2
from imapgate.net.upstream import Door, UpstreamProtocol
from imapgate.pooling.connection import Terms
from imapgate.routing.endpoints import Endpoints
from imapgate.session.effects import Challenge, Failed, Granted, Login, SendUpstream, StartTLS
from imapgate.session.upstream import Originating, Stage, Step, UpstreamLogin, originating

AddressPort = tuple[str, int]


_OF_THE_DOOR = frozenset(
    (Failure.REFUSED, Failure.TIMED_OUT, Failure.TLS, Failure.TLS_MISSING, Failure.PROTOCOL, Failure.BYE, Failure.LOST)
)
"""Failures that speak against an endpoint; after any other it has done its part."""


def _well(outcome: Granted | Failed) -> bool:
    """Whether nothing of this speaks against the endpoint."""
    return isinstance(outcome, Granted) or outcome.failure not in _OF_THE_DOOR


def address_port(end: IAddress) -> AddressPort | None:
    """An end of a connection; ``None`` for a Unix socket."""
    return (end.host, end.port) if isinstance(end, IPv4Address | IPv6Address) else None


class Client(NamedTuple):
    """Who asks for a login.

    :ivar peer: its end of the connection; ``None``: a Unix socket
    :ivar host: the gate's end
    :ivar session: the id of its session
    :ivar listener: the name of the listener where it came in
    :ivar server_name: what it called the gate in its TLS handshake (SNI)
    :ivar secure: TLS protects the connection
    """

    peer: AddressPort | None
    host: AddressPort | None
    session: str
    listener: str = ""
    server_name: str | None = None
    secure: bool = False

    @property
    def address(self) -> str | None:
        """The client's address, for limits and logs."""
        return None if self.peer is None else self.peer[0]


TERMS = Terms()
SHARING = SharingTerms()


class Upstream:
    """An upstream server, as the shell knows it.

    :ivar profile: another number for each way in which this upstream was ever reached
    :ivar mode: for how long a connection is one client's, unless its route says otherwise
    :ivar terms: the bounds of its pools, by mode: a connection is kept only where it can serve; ``alone``: a later
        login can be given it
    :ivar sharing: the bounds of its shared mailboxes, where that is the mode
    :ivar relayed: the mechanisms that it was last seen to offer and that may be relayed
    """

    def __init__(
        self,
        name: str,
        doors: Sequence[Door],
        endpoints: Endpoints,
        *,
        proxy_protocol: bool = False,
        id_originating: bool = False,
        profile: int = 0,
        mode: PoolMode = PoolMode.SESSION,
        terms: Terms = TERMS,
        alone: bool = False,
        sharing: SharingTerms = SHARING,
    ) -> None:
        self.name = name
        self.doors = tuple(doors)
        self.endpoints = endpoints
        self.proxy_protocol = proxy_protocol
        self.id_originating = id_originating
        self.profile = profile
        self.mode = mode
        self.terms = {
            PoolMode.SESSION: terms._replace(alone=alone, keep=terms.keep if alone else 0),
            PoolMode.MAILBOX: terms._replace(alone=alone),
            PoolMode.SHARED: terms._replace(
                alone=alone, counted=True, keep=0 if sharing.idle is IdleMode.POLL else terms.keep
            ),
        }
        self.sharing = sharing
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


class Dial:
    """One upstream login: the doors in turn, each with a dialogue of its own.

    :param challenged: called with each challenge of a relayed mechanism.
    """

    def __init__(
        self,
        upstream: Upstream,
        login: Login,
        client: Client,
        limits: Limits,
        clock: IReactorTime,
        challenged: Callable[[Challenge], None],
    ) -> None:
        self._upstream = upstream
        self._login = login
        self._client = client
        self._limits = limits
        self._clock = clock
        self._challenged = challenged
        self._dialogue: Dialogue | None = None

    @property
    def protocol(self) -> UpstreamProtocol:
        """The connection of a login that was granted."""
        assert self._dialogue is not None
        return self._dialogue.protocol

    @property
    def ends(self) -> tuple[AddressPort | None, AddressPort | None] | None:
        """This end and the other one of the connection that is being tried; ``None``: there is none yet."""
        transport = None if self._dialogue is None else self._dialogue.protocol.transport
        return None if transport is None else (address_port(transport.getHost()), address_port(transport.getPeer()))

    def respond(self, data: Secret) -> None:
        """Pass on the client's answer to a challenge."""
        if self._dialogue is not None:
            self._dialogue.respond(data)

    async def run(self) -> Granted | Failed:
        """Try the doors in turn; a server that has greeted has the last word."""
        limits, upstream, seconds = self._limits, self._upstream, self._clock.seconds
        deadline = seconds() + limits.connect_total
        first = encode_v2(self._client.peer, self._client.host) if upstream.proxy_protocol else b""
        fields = self._fields() if upstream.id_originating else ()
        outcome: Granted | Failed = Failed(Failure.REFUSED)
        credentials = self._login.credentials
        user = b"" if credentials is None else credentials.authorisation or credentials.user
        name = user.decode("utf-8", "replace") or self._client.session
        for index in upstream.endpoints.order(name, seconds()):
            door = upstream.doors[index]
            left = deadline - seconds()
            if left <= 0:
                return Failed(Failure.TIMED_OUT)
            core = UpstreamLogin(limits, self._login, starttls=door.starttls, originating=fields)
            dialogue = self._dialogue = Dialogue(door, core, self._clock, first, self._challenged)
            outcome = await dialogue.run(min(limits.connect_try, left), limits.upstream_first_byte)
            if core.offered:
                upstream.relayed = mechanisms(core.offered.upper().split())
            well = _well(outcome)
            upstream.endpoints.seen(index, well, seconds())
            if isinstance(outcome, Granted) or well:
                return outcome
            if core.greeting and outcome.failure is not Failure.BYE:  # credentials are shown once (THREATS F2)
                return outcome
            log.info(
                "upstream {name}: {door}: {reason}", name=upstream.name, door=door.name, reason=outcome.failure.value
            )
        return outcome

    def _fields(self) -> Originating:
        peer, host = self._client.peer or ("", 0), self._client.host or ("", 0)
        return originating(peer, host, self._client.session, self._login.client_id, self._login.ttl - 1)


def _unchallenged(challenge: Challenge) -> None:
    """A probe relays no mechanism."""


class Seen(NamedTuple):
    """What a probe found at one door; ``detail``: what the system or TLS said of a failure."""

    door: Door
    core: UpstreamLogin
    outcome: Granted | Failed
    detail: str


async def probe(upstream: Upstream, limits: Limits, clock: IReactorTime, login: Login | None = None) -> list[Seen]:
    """Look at every door of an upstream, logging in only where ``login`` says so, and close again."""
    found = []
    for index, door in enumerate(upstream.doors):
        core = UpstreamLogin(limits, login, starttls=door.starttls)
        first = encode_v2(None, None) if upstream.proxy_protocol else b""
        dialogue = Dialogue(door, core, clock, first, _unchallenged)
        outcome = await dialogue.run(limits.connect_try, limits.upstream_first_byte)
        dialogue.protocol.close()
        upstream.endpoints.seen(index, _well(outcome), clock.seconds())
        if core.offered:
            upstream.relayed = mechanisms(core.offered.upper().split())
        found.append(Seen(door, core, outcome, dialogue.detail))
    return found
