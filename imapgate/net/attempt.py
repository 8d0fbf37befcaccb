"""A login under way: delays, who it is and where it goes, and a connection there."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure as TwistedFailure

from imapgate.log import log
from imapgate.model.failure import Failure
from imapgate.model.secret import Secret
from imapgate.model.verdict import Disconnect
from imapgate.net.dial import Client, Upstream
from imapgate.net.directory import Refusal
from imapgate.net.gate import Gate
from imapgate.net.pools import Account, Lease
from imapgate.net.watch import Dismissed, Watch
from imapgate.session.effects import Answer, Challenge, Failed, Granted, Login, Reason


class Meanwhile:
    """Keeps what an upstream connection says while it is not settled whose it is.

    :ivar data: what it said
    :ivar lost: it is gone
    """

    def __init__(self, lease: Lease) -> None:
        self.data: list[bytes] = []
        self.lost = False
        self._lease = lease
        lease.protocol.owner = self

    def upstream_secured(self) -> None:
        """It is logged in, and never begins TLS any more."""

    def upstream_received(self, data: bytes) -> None:
        """It says something; enough for now."""
        self.data.append(data)
        self._lease.protocol.valve.hold(Reason.VERDICT)

    def upstream_lost(self, reason: TwistedFailure) -> None:
        """It is gone: so it is returned now, while the book still knows it."""
        self.lost = True
        self._lease.destroy()


class Attempt:
    """One client's login, from the question to the answer.

    :param number: 1 for the first login on this connection
    :param answered: called with every answer: challenges, then one Granted or Failed, or Disconnect where a
        plugin ends the session; not after :meth:`cancel`.
    :param watch: who watches the session, if anybody does
    """

    def __init__(
        self,
        client: Client,
        login: Login,
        number: int,
        gate: Gate,
        answered: Callable[[Answer | Disconnect], None],
        watch: Watch | None = None,
    ) -> None:
        self._client = client
        self._login = login
        self._number = number
        self._gate = gate
        self._answered = answered
        self._watch = watch
        self._lease: Lease | None = None
        self._meanwhile: Meanwhile | None = None
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
        if self._lease is not None:
            self._lease.respond(data)

    @property
    def user(self) -> bytes:
        """The user name that was given, empty where SASL hides it."""
        return b"" if self._login.credentials is None else self._login.credentials.user

    @property
    def upstream(self) -> Upstream | None:
        """Where it is being logged in; ``None``: it has not come that far."""
        lease = self._lease
        return None if lease is None or self._gate.pools.book.dialled(lease) is None else lease.account.upstream

    @property
    def lease(self) -> Lease:
        """The connection of a login that was granted, and whose it is."""
        assert self._lease is not None
        return self._lease

    def _broken(self, reason: TwistedFailure) -> None:
        if isinstance(reason.value, Dismissed):
            self._answered(reason.value.said)
        elif not reason.check(CancelledError):
            log.failure("login attempt failed unexpectedly", reason)
            self._answered(Failed(Failure.LOST))

    async def _run(self) -> None:
        gate, address = self._gate, self._client.address
        clock, penalties = gate.clock, gate.penalties
        name = self.user[: gate.limits.user_name].decode("utf-8", "replace")
        wait = max(penalties.admit(clock.seconds(), address, name), penalties.enter(name))
        hold = 0.0
        try:
            if wait > 0:
                await deferLater(clock, wait)
            outcome, hold = await self._decided()
        finally:
            penalties.leave(name)
        if isinstance(outcome, Granted):
            penalties.succeeded(address, name)
            outcome = await self._admitted(outcome)
        elif outcome.failure is Failure.CREDENTIALS:
            hold = max(hold, penalties.failed(clock.seconds(), address, name))
        if hold > 0:
            await deferLater(clock, hold)
        self._answered(outcome)
        if self._meanwhile is not None and self._meanwhile.data and isinstance(outcome, Granted) and self.lease.bound:
            self.lease.protocol.valve.free(Reason.VERDICT)
            self.lease.protocol.dataReceived(b"".join(self._meanwhile.data))

    async def _admitted(self, granted: Granted) -> Granted | Failed:
        """What becomes of a login that the upstream has granted."""
        gate, address, user = self._gate, self._client.address, self.lease.account.name
        refused = None if self._watch is None else await self._refused(self._watch)
        if refused is None and user and not gate.census.log_in(address, user):
            refused = Failed(Failure.LIMIT)
        if refused is not None:
            self._return(granted)
        return refused or granted

    async def _refused(self, watch: Watch) -> Failed | None:
        """Why the plugins do not let the user in; meanwhile nobody listens to the upstream but :class:`Meanwhile`."""
        lease = self.lease
        meanwhile = self._meanwhile = Meanwhile(lease) if lease.bound else None
        try:
            refused = await watch.refuses_user(lease.account)
        except (CancelledError, Dismissed):
            lease.destroy()
            raise
        return Failed(Failure.LOST) if meanwhile is not None and meanwhile.lost and refused is None else refused

    def _return(self, granted: Granted) -> None:
        """Return the connection of a login that is refused after all."""
        meanwhile = self._meanwhile
        if meanwhile is None or not meanwhile.data:
            self.lease.give_back(selected=False)
        else:
            self.lease.destroy()

    async def _decided(self) -> tuple[Granted | Failed, float]:
        """Return what becomes of the login, and for how many seconds the answer is to be held back."""
        if self._login.ttl <= 1 or self._gate.pools.is_own(self._client.peer, self._client.host):
            log.error(
                "a login goes in a circle: an upstream's endpoint leads back to this gate: session={session}",
                session=self._client.session,
            )
            return Failed(Failure.UNROUTABLE), 0.0
        watch = self._watch
        if watch is not None and (refused := await watch.refuses_login(self._login.credentials)) is not None:
            return refused, 0.0
        account = await self._gate.directory.account(self._client, self._login, self._number)
        if isinstance(account, Refusal):
            return account
        if watch is not None and (refused := await watch.refuses_route(account)) is not None:
            return refused, 0.0
        return await self._connected(account), 0.0

    async def _connected(self, account: Account) -> Granted | Failed:
        lease = self._lease = Lease(self._gate.pools, account, self._client, self._challenge)
        seated = self._gate.shares.seats(account)
        if seated is not None:
            return seated
        self._gate.pools.ask(lease)
        outcome = await lease.outcome
        if isinstance(outcome, Failed) and outcome.failure is Failure.CREDENTIALS and account.verified:
            log.error(
                "upstream {name} refuses the gate's own login for a user that it has verified: session={session}",
                name=account.upstream.name, session=self._client.session,
            )  # fmt: skip
            return Failed(Failure.TEMPORARY)
        return outcome

    def _challenge(self, challenge: Challenge) -> None:
        self._answered(challenge)


def _nobody(answer: Answer | Disconnect) -> None:
    """Takes answers to a question whose asker has gone (THREATS A51)."""
