"""The upstream connections that the book of the pools speaks of: dialled, lent, reset, checked, closed.

Performs the book's orders, one after the other, and tells it what became of them.  Knows no IMAP: what is
to be sent to a connection that is nobody's, and what its answer proves, its barrier says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure as TwistedFailure

from imapgate.auth.proofs import Place, Proofs
from imapgate.limits import Limits
from imapgate.log import log
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.model.secret import Secret
from imapgate.net import dial
from imapgate.net.dial import AddressPort, Client, Upstream
from imapgate.net.upstream import UpstreamProtocol
from imapgate.pooling.book import Book
from imapgate.pooling.connection import Check, Connection, Dial, Discard, Key, Lend, Order, Refuse, Reset, Terms
from imapgate.session.barrier import Barrier, Finding
from imapgate.session.effects import Challenge, Failed, Granted, Login
from imapgate.session.link import Link

PROVING_SECONDS = 10.0
"""How long a barrier or a check may take."""


class Account:
    """Whose session it is: where its user is at home, as whom it goes there, and what was proved of that.

    :ivar user: the name upstream, empty where SASL hides it
    :ivar name: the one name by which the gate knows the user, whatever it is called upstream
    :ivar login: how it is logged in upstream
    :ivar digest: of the credential that is proved by that login; ``None``: there is nothing to prove
    :ivar key: what connections of it belong to, as of its generation
    :ivar pinned: why its connection can be nobody else's
    """

    __slots__ = ("_generation", "digest", "key", "login", "mode", "name", "pinned", "upstream", "user")

    def __init__(
        self,
        upstream: Upstream,
        user: bytes,
        login: Login,
        *,
        name: bytes | None = None,
        digest: bytes | None = None,
        generation: int | None = None,
        mode: PoolMode | None = None,
        pinned: str = "",
    ) -> None:
        self.upstream = upstream
        self.user = user
        self.name = user if name is None else name
        self.login = login
        self.digest = digest
        self.generation = generation
        self.mode = mode or upstream.mode
        self.pinned = pinned

    def forget_login(self) -> None:
        """Keep no credential: no further connection will be opened by it."""
        self.login = Login(b"", None)

    @property
    def place(self) -> Place:
        """Whose pool it is."""
        return self.upstream.name, self.user

    @property
    def verified(self) -> bool:
        """Whether the gate has verified the user itself, and logs it in by a credential of its own."""
        return self.digest == b""

    @property
    def terms(self) -> Terms:
        """The bounds of its pool."""
        return self.upstream.terms[self.mode]

    @property
    def generation(self) -> int | None:
        """As of when its own credential was last proved; ``None``: never."""
        return self._generation

    @generation.setter
    def generation(self, generation: int | None) -> None:
        self._generation = generation
        self.key = Key(self.upstream.name, self.upstream.profile, self.user, generation or 0)


class Lease:
    """One asker's connection, from the wish for it to its return.

    :param challenged: called with each challenge of a relayed mechanism.
    :ivar outcome: fires once with Granted or Failed, but not after :meth:`cancel`
    """

    __slots__ = ("_challenged", "_pools", "account", "client", "connection", "gone", "outcome")

    def __init__(
        self, pools: Pools, account: Account, client: Client, challenged: Callable[[Challenge], None] | None = None
    ) -> None:
        self._pools = pools
        self._challenged = challenged
        self.account = account
        self.client = client
        self.connection: Connection | None = None  # once it was lent
        self.gone = False
        self.outcome: Deferred[Granted | Failed] = Deferred(lambda _: self.cancel())

    @property
    def protocol(self) -> UpstreamProtocol:
        """The connection that was granted."""
        assert self.connection is not None
        protocol: UpstreamProtocol = self.connection.carrier.protocol
        return protocol

    @property
    def bound(self) -> bool:
        """Whether there is a connection."""
        return self.connection is not None

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._pools.cancelled(self)

    def give_back(self, *, selected: bool) -> None:
        """Return a connection on which nothing is owed, and nothing is left unread."""
        self._pools.released(self, clean=True, selected=selected)

    def destroy(self, *, abort: bool = False) -> None:
        """Return a connection that nobody may use any more."""
        self._pools.released(self, clean=False, abort=abort)

    def respond(self, data: Secret) -> None:
        """Pass on the client's answer to a challenge of a relayed mechanism."""
        self._pools.respond(self, data)

    def challenge(self, challenge: Challenge) -> None:
        """Pass on the server's challenge."""
        if self._challenged is not None:
            self._challenged(challenge)

    def settle(self, outcome: Granted | Failed) -> None:
        """Say what became of the wish."""
        if not self.outcome.called:
            self.outcome.callback(outcome)


class Carrier:
    """One upstream connection; its owner while it is nobody's."""

    __slots__ = ("_pools", "abort", "barrier", "clean", "connection", "dial", "protocol", "running", "selected")

    def __init__(self, pools: Pools, connection: Connection, dialling: dial.Dial) -> None:
        self._pools = pools
        self.connection = connection
        self.dial: dial.Dial | None = dialling  # both only until it is logged in: they hold a credential
        self.running: Deferred[None] | None = None
        self.protocol: UpstreamProtocol | None = None  # once it is logged in
        self.barrier: Barrier
        self.clean = False  # it may be spoken to: to reset it, or for goodbye
        self.selected = False
        self.abort = False

    def opened(self, protocol: UpstreamProtocol, link: Link) -> None:
        """It is connected and logged in."""
        self.dial = self.running = None
        self.protocol = protocol
        self.protocol.gone = self._gone
        self.barrier = Barrier(link)

    def send(self, data: bytes) -> None:
        """Send something of the gate's own."""
        if self.protocol is not None:
            self.protocol.owner = self
            self.protocol.transport.write(data)

    def close(self) -> bool:
        """Say goodbye, where that is possible, and close; ``False``: there is nothing to close any more."""
        if self.protocol is None:
            if self.running is not None:
                self.running.cancel()
            return False
        if not self.protocol.transport.connected:
            return False
        if self.clean:
            self.send(self.barrier.leave())
        self.protocol.close(self.abort)
        return True

    def break_off(self) -> None:
        """Close at once."""
        if self.protocol is not None:
            self.protocol.close(abort=True)
        self._gone()

    def _gone(self) -> None:
        self._pools.lost(self.connection)

    def upstream_secured(self) -> None:
        """TLS is never begun on a connection that is logged in."""

    def upstream_received(self, data: bytes) -> None:
        """The server said something: the answer to the barrier, or what concerns nobody."""
        finding = self.barrier.received(data)
        if finding is Finding.CLEAN:
            self._pools.proved(self.connection)
        elif finding is Finding.BROKEN:
            self.break_off()

    def upstream_lost(self, reason: TwistedFailure) -> None:
        """It is gone; ``gone`` tells the book."""


class Pools:
    """All upstream connections of a gate."""

    def __init__(self, book: Book, proofs: Proofs, limits: Limits, clock: IReactorTime) -> None:
        self.book = book
        self.proofs = proofs
        self._limits = limits
        self._clock = clock
        self._orders: deque[Order] = deque()
        self._performing = False
        self._proving: dict[Connection, float] = {}  # what a barrier or a check is awaited of, and until when

    def configure(self, limits: Limits, most: int) -> None:
        """Keep other limits from now on."""
        self._limits = limits
        self.book.most = most

    # --- what askers want -------------------------------------------------------------------------------

    def ask(self, lease: Lease) -> None:
        """Get this asker a connection."""
        account = lease.account
        fresh = account.generation is None
        now = self._clock.seconds()
        self._perform(self.book.ask(lease, account.key, account.terms, now, fresh=fresh))

    def cancelled(self, lease: Lease) -> None:
        """An asker has gone."""
        lease.gone = True
        if lease.connection is not None:
            self.released(lease, clean=False)
        else:
            self._perform(self.book.cancelled(lease, self._clock.seconds()))

    def released(self, lease: Lease, *, clean: bool, selected: bool = False, abort: bool = False) -> None:
        """An asker is done with its connection."""
        connection, lease.connection = lease.connection, None
        if connection is not None:
            carrier: Carrier = connection.carrier
            carrier.clean, carrier.selected, carrier.abort = clean, selected, abort
            carrier.protocol.owner = carrier if clean else None  # type: ignore[union-attr]  # it was lent
            self._perform(self.book.released(connection, self._clock.seconds(), clean=clean))

    def respond(self, lease: Lease, data: Secret) -> None:
        """Pass on an answer in the dialogue of a login."""
        connection = self.book.dialled(lease)
        if connection is not None and connection.carrier.dial is not None:
            connection.carrier.dial.respond(data)

    def forget(self, place: Place) -> None:
        """The operator, or a failed login, wants everything that was proved of this user forgotten."""
        self._perform(self.book.renew(place, self.proofs.failed(place)))

    def retire(self, chosen: Callable[[Key], bool]) -> None:
        """Lend none of these connections again."""
        self._perform(self.book.retire(chosen))

    def enter(self, account: Account) -> None:
        """A session of this account begins."""
        self.book.enter(account.key, account.terms)

    def leave(self, account: Account) -> None:
        """A session of this account is over."""
        self._perform(self.book.leave(account.key))

    def pause(self, upstream: str) -> None:
        """Lend nothing of this upstream."""
        self._perform(self.book.pause(upstream))

    def resume(self, upstream: str) -> None:
        """Go on after a pause."""
        self._perform(self.book.resume(upstream, self._clock.seconds()))

    def is_own(self, peer: AddressPort | None, host: AddressPort | None) -> bool:
        """Whether a client's connection is one of those that are being opened: a loop (THREATS A46).

        Both ends count: a client on this machine may have the same port as a connection to somewhere else.
        """
        return peer is not None and any(
            connection.carrier is not None
            and connection.carrier.dial is not None
            and connection.carrier.dial.ends == (peer, host)
            for connection in self.book.dialling
        )

    # --- what becomes of connections --------------------------------------------------------------------

    def proved(self, connection: Connection) -> None:
        """The barrier was answered as it must be."""
        self._proving.pop(connection, None)
        self._perform(self.book.proved(connection, self._clock.seconds()))

    def lost(self, connection: Connection) -> None:
        """It is no more."""
        self._proving.pop(connection, None)
        self._perform(self.book.lost(connection, self._clock.seconds()))

    def ticked(self) -> None:
        """Some time has passed."""
        now = self._clock.seconds()
        for connection in [connection for connection, until in self._proving.items() if until <= now]:
            connection.carrier.break_off()
        self._perform(self.book.ticked(now))

    # --- performing -------------------------------------------------------------------------------------

    def _perform(self, orders: Iterable[Order]) -> None:
        """Perform orders; what comes of one stands behind all that are there."""
        self._orders += orders
        if self._performing:
            return
        self._performing = True
        try:
            while self._orders:
                order = self._orders.popleft()
                _PERFORM[type(order)](self, order)
        finally:
            self._performing = False

    def _dial(self, order: Dial) -> None:
        lease = order.ticket
        assert isinstance(lease, Lease)
        account = lease.account
        dialling = dial.Dial(account.upstream, account.login, lease.client, self._limits, self._clock, lease.challenge)
        carrier = order.connection.carrier = Carrier(self, order.connection, dialling)
        carrier.running = Deferred.fromCoroutine(self._dialled(dialling, carrier, lease))
        carrier.running.addErrback(self._broken, carrier, lease)

    async def _dialled(self, dialling: dial.Dial, carrier: Carrier, lease: Lease) -> None:
        outcome = await dialling.run()
        account, connection = lease.account, carrier.connection
        if isinstance(outcome, Failed):
            if outcome.failure is Failure.CREDENTIALS and account.digest is not None:
                self.forget(account.place)
            self.lost(connection)
        else:
            now, before = self._clock.seconds(), self.proofs.generation(account.place)
            carrier.opened(dialling.protocol, outcome.link)
            lease.connection = connection
            if account.digest is None:
                self.book.connected(connection, 0, now)
            else:
                account.generation = self.proofs.proved(account.place, account.digest, now)
                self.book.connected(connection, account.generation, now)
                if account.generation != before:
                    self._perform(self.book.renew(account.place, account.generation))
        lease.settle(outcome)

    def _broken(self, reason: TwistedFailure, carrier: Carrier, lease: Lease) -> None:
        if not reason.check(CancelledError):
            log.failure("an upstream login failed unexpectedly", reason)
            self.lost(carrier.connection)
            lease.settle(Failed(Failure.LOST))

    def _lend(self, order: Lend) -> None:
        lease, carrier = order.ticket, order.connection.carrier
        assert isinstance(lease, Lease)
        lease.connection = order.connection
        if lease.gone:  # while the order stood in the queue
            self.released(lease, clean=True)
        else:
            lease.settle(Granted(carrier.barrier.link))

    def _reset(self, order: Reset) -> None:
        carrier: Carrier = order.connection.carrier
        self._prove(carrier, carrier.barrier.reset(selected=carrier.selected))

    def _check(self, order: Check) -> None:
        carrier: Carrier = order.connection.carrier
        self._prove(carrier, carrier.barrier.check())

    def _prove(self, carrier: Carrier, command: bytes) -> None:
        self._proving[carrier.connection] = self._clock.seconds() + PROVING_SECONDS
        carrier.send(command)

    def _discard(self, order: Discard) -> None:
        if not order.connection.carrier.close():
            self.lost(order.connection)

    def _refuse(self, order: Refuse) -> None:
        lease = order.ticket
        assert isinstance(lease, Lease)
        lease.settle(Failed(Failure.BUSY))


_PERFORM: dict[type, Callable[..., None]] = {
    Dial: Pools._dial,
    Lend: Pools._lend,
    Check: Pools._check,
    Reset: Pools._reset,
    Discard: Pools._discard,
    Refuse: Pools._refuse,
}
