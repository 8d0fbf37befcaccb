"""Who holds which upstream connection, who waits for one, and which are to be given up: the pools' book.

Every method takes what happened, and the time, and returns what is to be done about it as a list of orders.
The book knows no socket and no clock, and nothing of IMAP; that a connection is proved clean, it is told.

The state of a connection is its stage, changed in one function.  A connection belongs for life to one
:class:`Key`; who asks under another key is never given it (THREATS A31).  Giving one up is the default:
only one that was released as clean, and whose barrier was answered, is lent again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from imapgate.pooling.connection import (
    Check,
    Connection,
    Dial,
    Discard,
    Key,
    Lend,
    Order,
    Refuse,
    Reset,
    Stage,
    Terms,
)


class _Waiter(NamedTuple):
    ticket: object
    key: Key
    fresh: bool
    deadline: float


class _Pool:
    """All connections to one upstream of one user."""

    __slots__ = ("connections", "idle", "sessions", "terms", "waiters")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.connections: dict[Connection, None] = {}
        self.idle: list[Connection] = []  # the one that was idle for the shortest time is lent first
        self.waiters: deque[_Waiter] = deque()
        self.sessions = 0

    def count(self, *stages: Stage, besides: Connection | None = None) -> int:
        return sum(each.stage in stages for each in self.connections if each is not besides)

    @property
    def empty(self) -> bool:
        return not (self.sessions or self.waiters or self.connections)


Place = tuple[str, bytes]
"""An upstream and a user: whose pool it is."""


COUNTED = ("dialled", "lent", "reused", "waited", "refused", "discarded", "closed", "lost")
"""What the book counts."""


class Row(NamedTuple):
    """One pool, for the operator."""

    upstream: str
    user: bytes
    sessions: int
    leased: int
    idle: int
    connecting: int
    closing: int
    total: int
    waiting: int


class Book:
    """The pools of one gate.

    :param most: most upstream connections in all
    :param jitter: a number from 0 to 1, another one at each call; lifetimes differ by ± 10 %
    """

    def __init__(self, most: int, jitter: Callable[[], float]) -> None:
        self.most = most
        self.counts: Counter[str] = Counter()
        """How often what of :data:`COUNTED` was done."""
        self._jitter = jitter
        self._pools: dict[Place, _Pool] = {}
        self._connections: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}  # longest idle first
        self._upstreams: Counter[str] = Counter()
        self._closing: Counter[str] = Counter()  # by upstream
        self._asked: dict[object, Connection] = {}  # what is being dialled or checked, by ticket
        self._waiting: dict[object, _Waiter] = {}  # by ticket, in order of arrival
        self._paused: set[str] = set()

    # --- what happens ---------------------------------------------------------------------------------

    def enter(self, key: Key, terms: Terms) -> None:
        """A session of this user begins; every call is followed by one of :meth:`leave`."""
        self._pool(key, terms).sessions += 1

    def leave(self, key: Key) -> list[Order]:
        """A session of this user is over."""
        pool = self._pools[key.upstream, key.user]
        pool.sessions -= 1
        orders: list[Order] = []
        while pool.idle and len(pool.idle) > self._keep(pool):
            self._discard(pool.idle[0], orders)
        self._tidy(key)
        return orders

    def ask(self, ticket: object, key: Key, terms: Terms, now: float, *, fresh: bool) -> list[Order]:
        """Somebody wants a connection: one under this very key, or, where it must be ``fresh``, a new one."""
        pool, orders = self._pool(key, terms), list[Order]()
        waiter = _Waiter(ticket, key, fresh, now + terms.wait)
        if pool.waiters or not self._serve(pool, waiter, now, orders):
            pool.waiters.append(waiter)
            self._waiting[ticket] = waiter
            self.counts["waited"] += 1
        return orders

    def cancelled(self, ticket: object, now: float) -> list[Order]:
        """Whoever asked has gone, and had not been lent anything yet."""
        orders: list[Order] = []
        waiter = self._waiting.get(ticket)
        if waiter is not None:
            self._drop(waiter)
            self._wake(now, orders)  # whoever stood behind may want what is there
            return orders
        connection = self._asked.pop(ticket, None)
        if connection is not None:
            connection.ticket = None
            if connection.stage is Stage.CONNECTING:  # a check goes on, for whoever comes next
                self._discard(connection, orders)
        return orders

    def connected(self, connection: Connection, generation: int, now: float) -> None:
        """It is open, and logged in for whoever asked; the credential belongs to this generation."""
        connection.key = connection.key._replace(generation=generation)
        terms = self._pools[connection.key.upstream, connection.key.user].terms
        connection.expires = now + terms.lifetime * (0.9 + 0.2 * self._jitter())
        self.counts["lent"] += 1
        self._move(connection, Stage.LEASED)

    def released(self, connection: Connection, now: float, *, clean: bool) -> list[Order]:
        """Whoever held it needs it no more; ``clean``: nothing is in flight, and a barrier may prove it."""
        orders: list[Order] = []
        connection.ticket = None
        if clean and self._wanted(connection, now):
            self._move(connection, Stage.RESETTING)
            orders.append(Reset(connection))
        else:
            self._discard(connection, orders)
        return orders

    def proved(self, connection: Connection, now: float) -> list[Order]:
        """The barrier, or the check, was answered: it is clean, and it lives."""
        orders: list[Order] = []
        ticket = connection.ticket
        pool = self._pools[connection.key.upstream, connection.key.user]
        if ticket is not None and self._lendable(connection, now):
            self._lend(connection, ticket, orders)
        elif ticket is not None:  # no more, since it is checked: whoever waits for it is served otherwise
            self._discard(connection, orders)
            self._again(pool, connection.key, ticket, now, orders)
        elif not self._wanted(connection, now):
            self._discard(connection, orders)
        else:
            connection.since = now
            self._move(connection, Stage.IDLE)
        self._wake(now, orders)
        return orders

    def lost(self, connection: Connection, now: float) -> list[Order]:
        """It is gone, in whatever stage it was; of a failed dial the asker is told by the shell."""
        orders: list[Order] = []
        if connection not in self._connections:
            return orders
        checked = connection.stage is Stage.CHECKING
        self.counts["closed" if connection.stage is Stage.CLOSING else "lost"] += 1
        self._move(connection, None)
        pool = self._pools[connection.key.upstream, connection.key.user]
        if checked and connection.ticket is not None:
            self._again(pool, connection.key, connection.ticket, now, orders)
        self._wake(now, orders)
        self._tidy(connection.key)
        return orders

    def ticked(self, now: float) -> list[Order]:
        """Time has passed: idle ones that are too old, or too many, go, and so does who waited for too long."""
        orders: list[Order] = []
        for connection in list(self._idle):
            pool = self._pools[connection.key.upstream, connection.key.user]
            late = now >= min(connection.since + pool.terms.idle, connection.expires)
            if late or len(pool.idle) > self._keep(pool):
                self._discard(connection, orders)
        refused = [waiter for waiter in self._waiting.values() if waiter.deadline <= now]
        for waiter in refused:
            self._drop(waiter)
            orders.append(Refuse(waiter.ticket))
            self.counts["refused"] += 1
        if refused:
            self._wake(now, orders)
        return orders

    def retire(self, chosen: Callable[[Key], bool]) -> list[Order]:
        """Lend none of these connections again: idle ones go now, others when they come back."""
        return self._spoil([connection for connection in self._connections if chosen(connection.key)])

    def renew(self, place: Place, generation: int) -> list[Order]:
        """The same for all connections of one user but those of this generation."""
        pool = self._pools.get(place)
        mine = () if pool is None else pool.connections
        return self._spoil([connection for connection in mine if connection.key.generation != generation])

    def pause(self, upstream: str) -> list[Order]:
        """Lend nothing of this upstream and dial nothing there until :meth:`resume`; idle ones are given up."""
        self._paused.add(upstream)
        orders: list[Order] = []
        for connection in [each for each in self._idle if each.key.upstream == upstream]:
            self._discard(connection, orders)
        return orders

    def resume(self, upstream: str, now: float) -> list[Order]:
        """Go on after a pause."""
        self._paused.discard(upstream)
        orders: list[Order] = []
        self._wake(now, orders)
        return orders

    def dialled(self, ticket: object) -> Connection | None:
        """What is being opened, or checked, for this asker."""
        return self._asked.get(ticket)

    @property
    def dialling(self) -> Collection[Connection]:
        """All that are being opened, or checked."""
        return self._asked.values()

    # --- what the operator sees -----------------------------------------------------------------------

    @property
    def total(self) -> int:
        """All upstream connections."""
        return len(self._connections)

    @property
    def waiting(self) -> int:
        """Everybody who waits."""
        return len(self._waiting)

    def paused(self, upstream: str) -> bool:
        """Whether this upstream is paused."""
        return upstream in self._paused

    def of(self, upstream: str) -> int:
        """All connections to this upstream."""
        return self._upstreams[upstream]

    def rows(self) -> list[Row]:
        """One row for each pool; resetting counts as leased, checking as idle: it is not to be had, or still is."""
        return [
            Row(
                upstream,
                user,
                pool.sessions,
                pool.count(Stage.LEASED, Stage.RESETTING),
                pool.count(Stage.IDLE, Stage.CHECKING),
                pool.count(Stage.CONNECTING),
                pool.count(Stage.CLOSING),
                len(pool.connections),
                len(pool.waiters),
            )
            for (upstream, user), pool in self._pools.items()
        ]

    # --- serving --------------------------------------------------------------------------------------

    def _serve(self, pool: _Pool, waiter: _Waiter, now: float, orders: list[Order]) -> bool:
        """Give this asker what it wants, or begin to; ``False``: it has to wait."""
        ticket, key = waiter.ticket, waiter.key
        if key.upstream in self._paused:
            return False
        if not waiter.fresh:
            for connection in reversed(pool.idle):
                if connection.key == key and self._lendable(connection, now):
                    if now - connection.since <= pool.terms.check:
                        self._lend(connection, ticket, orders)
                    else:
                        connection.ticket = ticket
                        self._move(connection, Stage.CHECKING)
                        orders.append(Check(connection))
                    return True
            if any(each.key == key and each.stage is Stage.RESETTING for each in pool.connections):
                return False  # it is sooner ready than a new one
        if self._room(pool, key, orders):
            connection = Connection(key, ticket)
            self._move(connection, Stage.CONNECTING)
            self.counts["dialled"] += 1
            orders.append(Dial(connection, ticket))
            return True
        return False

    def _room(self, pool: _Pool, key: Key, orders: list[Order]) -> bool:
        """Whether one more may be opened; where only idle ones are in the way, one of them is given up for it."""
        most = pool.terms.most
        if key.user and len(pool.connections) >= pool.terms.size:
            in_the_way: Iterable[Connection] = pool.idle
            closing = pool.count(Stage.CLOSING)
        elif most and self._upstreams[key.upstream] >= most:
            in_the_way = (each for each in self._idle if each.key.upstream == key.upstream)
            closing = self._closing[key.upstream]
        elif len(self._connections) >= self.most:
            in_the_way, closing = self._idle, self._closing.total()
        else:
            return True
        longest = next(iter(in_the_way), None)
        if longest is not None and not closing:  # one at a time: when it is gone, whoever waits is served
            self._discard(longest, orders)
        return False

    def _lend(self, connection: Connection, ticket: object, orders: list[Order]) -> None:
        connection.ticket = ticket
        self.counts["lent"] += 1
        self.counts["reused"] += 1
        self._move(connection, Stage.LEASED)
        orders.append(Lend(connection, ticket))

    def _again(self, pool: _Pool, key: Key, ticket: object, now: float, orders: list[Order]) -> None:
        """Serve somebody whose connection died under the check: before all others."""
        waiter = _Waiter(ticket, key, False, now + pool.terms.wait)
        if not self._serve(pool, waiter, now, orders):
            pool.waiters.appendleft(waiter)
            self._waiting = {ticket: waiter, **self._waiting}

    def _drop(self, waiter: _Waiter) -> None:
        """Somebody waits no more."""
        del self._waiting[waiter.ticket]
        self._pools[waiter.key.upstream, waiter.key.user].waiters.remove(waiter)
        self._tidy(waiter.key)

    def _wake(self, now: float, orders: list[Order]) -> None:
        """Something has become free: serve who waits, in order of arrival, as far as it goes."""
        blocked: set[Place] = set()
        for waiter in list(self._waiting.values()):
            place = waiter.key.upstream, waiter.key.user
            if place in blocked:
                continue
            pool = self._pools[place]
            if self._serve(pool, waiter, now, orders):
                pool.waiters.popleft()
                del self._waiting[waiter.ticket]
            else:
                blocked.add(place)

    # --- keeping --------------------------------------------------------------------------------------

    def _keep(self, pool: _Pool, besides: Connection | None = None) -> int:
        """How many may be idle; below 0 where more are leased than may be kept, this one not counted."""
        terms = pool.terms
        if not (terms.alone or pool.sessions):
            return 0
        return terms.keep - (pool.count(Stage.LEASED, besides=besides) if terms.counted else 0)

    def _wanted(self, connection: Connection, now: float) -> bool:
        """Whether it is worth having when it is clean."""
        key = connection.key
        pool = self._pools[key.upstream, key.user]
        if not key.user or not self._lendable(connection, now):
            return False
        if pool.waiters and pool.waiters[0].key == key and not pool.waiters[0].fresh:
            return True
        if self._waiting and self._crowded(pool, key):
            return False
        return len(pool.idle) + pool.count(Stage.RESETTING, besides=connection) < self._keep(pool, connection)

    def _lendable(self, connection: Connection, now: float) -> bool:
        return not connection.stale and now < connection.expires and connection.key.upstream not in self._paused

    def _crowded(self, pool: _Pool, key: Key) -> bool:
        """Whether somebody waits for room that this connection takes."""
        most = pool.terms.most
        return (
            bool(pool.waiters)
            or len(self._connections) >= self.most
            or (most > 0 and self._upstreams[key.upstream] >= most)
        )

    def _spoil(self, connections: Iterable[Connection]) -> list[Order]:
        orders: list[Order] = []
        for connection in connections:
            connection.stale = True
            if connection.stage is Stage.IDLE:
                self._discard(connection, orders)
        return orders

    def _discard(self, connection: Connection, orders: list[Order]) -> None:
        self.counts["discarded"] += 1
        self._move(connection, Stage.CLOSING)
        orders.append(Discard(connection))

    def _move(self, connection: Connection, stage: Stage | None) -> None:
        """Change the stage of a connection; ``None``: it is no more.  Nothing else changes one."""
        upstream, before = connection.key.upstream, connection.stage
        pool = self._pools[upstream, connection.key.user]
        if connection in self._connections:
            if before is Stage.IDLE:
                pool.idle.remove(connection)
                del self._idle[connection]
            elif before is Stage.CLOSING:
                self._closing[upstream] -= 1
        else:
            self._connections[connection] = pool.connections[connection] = None
            self._upstreams[upstream] += 1
        self._asked.pop(connection.ticket, None)
        if stage is None:
            del self._connections[connection], pool.connections[connection]
            self._upstreams[upstream] -= 1
            return
        connection.stage = stage
        if stage is Stage.IDLE:
            pool.idle.append(connection)
            self._idle[connection] = None
        elif stage is Stage.CLOSING:
            connection.ticket = None
            self._closing[upstream] += 1
        elif stage is not Stage.LEASED and connection.ticket is not None:
            self._asked[connection.ticket] = connection

    def _pool(self, key: Key, terms: Terms) -> _Pool:
        pool = self._pools.get((key.upstream, key.user))
        if pool is None:
            pool = self._pools[key.upstream, key.user] = _Pool(terms)
        else:
            pool.terms = terms
        return pool

    def _tidy(self, key: Key) -> None:
        place = key.upstream, key.user
        pool = self._pools.get(place)
        if pool is not None and pool.empty:
            del self._pools[place]
            if not self._upstreams[key.upstream]:
                del self._upstreams[key.upstream], self._closing[key.upstream]
