"""The book against a naive model of it: whatever happens, in whatever order, the pools' rules hold (THREATS A31).

The model keeps a list of connections and a list of who waits, follows the book's orders, and asks of each order
whether it may be given: to whom, of whose connection, in whose turn, within which bounds.  After each step it asks
whether somebody waits who could be served, and whether the book's sums are the model's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from imapgate.pooling.book import Book
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

MOST = 4
TERMS = {
    "a": Terms(size=2, keep=1, alone=False, idle=10.0, lifetime=60.0, wait=5.0, most=3, check=3.0),
    "b": Terms(size=3, keep=2, alone=True, idle=30.0, lifetime=20.0, wait=8.0, most=0, check=3.0),
    "c": Terms(size=3, keep=2, alone=False, counted=True, idle=30.0, lifetime=60.0, wait=8.0, most=0, check=3.0),
    "d": Terms(size=3, keep=1, alone=True, counted=True, idle=30.0, lifetime=60.0, wait=8.0, most=0, check=3.0),
}
PLACES = [("a", b"u"), ("a", b"v"), ("b", b"u"), ("c", b"u"), ("d", b"u"), ("a", b"")]
GENERATION = st.sampled_from([0, 0, 0, 1])
PLACE = st.sampled_from(PLACES)
WHICH = st.integers(0, 9)


class Asker(NamedTuple):
    """Somebody who has asked for a connection."""

    ticket: int
    key: Key
    fresh: bool
    deadline: float

    @property
    def place(self) -> tuple[str, bytes]:
        """Whose pool is asked."""
        return self.key.upstream, self.key.user


@dataclass(eq=False)
class Held:
    """A connection, as the model has it."""

    key: Key
    stage: Stage = Stage.CONNECTING
    asker: Asker | None = None
    since: float = 0.0
    expires: float = 0.0
    stale: bool = False
    place: tuple[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.place = self.key.upstream, self.key.user


class Pools(RuleBasedStateMachine):
    """A book, what happens to it, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.jitter = 0.5
        self.book = Book(MOST, lambda: self.jitter)
        self.held: dict[Connection, Held] = {}
        self.waiting: list[Asker] = []
        self.sessions: Counter[tuple[str, bytes]] = Counter()
        self.paused: set[str] = set()
        self.number = 0

    # --- the model's questions --------------------------------------------------------------------------

    def having(self, *stages: Stage) -> list[Connection]:
        """All connections in one of these stages."""
        return [connection for connection, held in self.held.items() if held.stage in stages]

    def of(self, place: tuple[str, bytes], *stages: Stage) -> list[Held]:
        """All connections of one pool, in one of these stages or in any."""
        return [held for held in self.held.values() if held.place == place and (not stages or held.stage in stages)]

    def lendable(self, held: Held) -> bool:
        """Whether anybody may be given it."""
        return not held.stale and self.now < held.expires and held.key.upstream not in self.paused

    def scopes(self, asker: Asker) -> list[list[Held]]:
        """The connections that are counted against each bound that is reached for this asker."""
        upstream, user = asker.place
        mine = self.of(asker.place)
        there = [held for held in self.held.values() if held.key.upstream == upstream]
        everywhere = list(self.held.values())
        most = TERMS[upstream].most
        bounds = [(mine, TERMS[upstream].size if user else 0), (there, most), (everywhere, MOST)]
        return [counted for counted, bound in bounds if bound and len(counted) >= bound]

    def matching(self, asker: Asker) -> list[Held]:
        """The idle connections that this asker may be given."""
        idle = self.of(asker.place, Stage.IDLE)
        return [held for held in idle if not asker.fresh and held.key == asker.key and self.lendable(held)]

    def soon(self, asker: Asker) -> bool:
        """Whether one is being reset that this asker may be given, which is quicker than a new one."""
        return not asker.fresh and asker.key in [held.key for held in self.of(asker.place, Stage.RESETTING)]

    def dialable(self, asker: Asker) -> bool:
        """Whether a new connection may be opened for this asker, who is the first of his pool."""
        return not self.soon(asker) and not self.scopes(asker) and asker.key.upstream not in self.paused

    def kept(self, place: tuple[str, bytes], besides: Held | None = None) -> int:
        """How many idle ones this user may have; where leased ones count, they and this one do not."""
        terms = TERMS[place[0]]
        if not place[1] or not (terms.alone or self.sessions[place]):
            return 0
        leased = [held for held in self.of(place, Stage.LEASED) if held is not besides]
        return max(terms.keep - len(leased), 0) if terms.counted else terms.keep

    def useful(self, held: Held) -> bool:
        """Whether it is to be kept where nobody waits."""
        others = [other for other in self.of(held.place, Stage.RESETTING, Stage.IDLE) if other is not held]
        return self.lendable(held) and len(others) < self.kept(held.place, held)

    def awaited(self, held: Held) -> bool:
        """Whether the first who waits in its pool would take it."""
        first = next((asker for asker in self.waiting if asker.place == held.place), None)
        return first is not None and first.key == held.key and not first.fresh

    # --- following orders -------------------------------------------------------------------------------

    def follow(self, orders: Sequence[Order]) -> None:
        """Do what the book orders, if it may be ordered."""
        for order in orders:
            _ORDERS[type(order)](self, order)

    def served(self, ticket: object) -> Asker:
        """Take somebody from those who wait: nobody of his pool stands before him."""
        asker = next((asker for asker in self.waiting if asker.ticket == ticket), None)
        assert asker is not None, "who does not wait gets nothing"
        before = self.waiting[: self.waiting.index(asker)]
        assert asker.place not in [other.place for other in before], "out of turn"
        assert asker.key.upstream not in self.paused, "served while paused"
        self.waiting.remove(asker)
        return asker

    def dial(self, order: Dial) -> None:
        """A new connection, within all bounds, and nobody else has waited for that room for longer."""
        before = []
        for asker in self.waiting:
            if asker.ticket == order.ticket:
                break
            before.append(asker)
        asker = self.served(order.ticket)
        assert order.connection.key == asker.key
        assert order.connection not in self.held
        heads = {other.place: other for other in reversed(before)}.values()
        assert not [other for other in heads if self.dialable(other)], "room that another one has waited for"
        assert not self.scopes(asker), "no room"
        assert not self.matching(asker), "one was idle"
        self.held[order.connection] = Held(asker.key, asker=asker)

    def lend(self, order: Lend) -> None:
        """An idle one, or one that was checked, under this very key."""
        held, asker = self.held[order.connection], self.served(order.ticket)
        assert held.key == asker.key == order.connection.key
        assert not asker.fresh
        assert self.lendable(held)
        if held.stage is Stage.IDLE:
            assert self.now - held.since <= TERMS[held.key.upstream].check, "not checked"
        else:
            assert held.stage is Stage.CHECKING
            assert held.asker == asker
        held.stage, held.asker = Stage.LEASED, asker

    def check(self, order: Check) -> None:
        """One that was idle for long is checked for whoever asked."""
        held, asker = self.held[order.connection], self.served(order.connection.ticket)
        assert held in self.matching(asker)
        assert self.now - held.since > TERMS[held.key.upstream].check
        held.stage, held.asker = Stage.CHECKING, asker

    def reset(self, order: Reset) -> None:
        """Only one that came back is reset."""
        held = self.held[order.connection]
        assert held.stage is Stage.LEASED
        assert held.place[1]
        assert self.lendable(held)
        held.stage = Stage.RESETTING
        kept = self.of(held.place, Stage.RESETTING, Stage.IDLE)
        assert len(kept) <= self.kept(held.place) or self.awaited(held), "one too many"

    def discard(self, order: Discard) -> None:
        """Each is closed once."""
        held = self.held[order.connection]
        assert held.stage is not Stage.CLOSING
        held.stage, held.asker = Stage.CLOSING, None

    def refuse(self, order: Refuse) -> None:
        """Who has waited for too long, and no earlier."""
        asker = next(asker for asker in self.waiting if asker.ticket == order.ticket)
        assert asker.deadline <= self.now
        self.waiting.remove(asker)

    def again(self, asker: Asker) -> None:
        """He waits again, before all others."""
        self.waiting.insert(0, asker._replace(deadline=self.now + TERMS[asker.key.upstream].wait))

    # --- what happens -----------------------------------------------------------------------------------

    @initialize(jitter=st.sampled_from([0.0, 0.5, 1.0]), visits=st.lists(st.tuples(PLACE, GENERATION), max_size=4))
    def begin(self, jitter: float, visits: list[tuple[tuple[str, bytes], int]]) -> None:
        """Lifetimes that are shorter, just so, or longer; some sessions were here before."""
        self.jitter = jitter
        for place, generation in visits:
            self.enter(place)
            self.ask(place, generation, 0, True)
        for _ in range(3):
            self.go_on([0] * len(visits), 0)

    @rule(place=PLACE)
    def enter(self, place: tuple[str, bytes]) -> None:
        """A session begins."""
        self.sessions[place] += 1
        self.book.enter(Key(place[0], 0, place[1], 0), TERMS[place[0]])

    @precondition(lambda self: self.sessions.total())
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        """A session ends."""
        places = sorted(self.sessions.elements())
        place = places[which % len(places)]
        self.sessions[place] -= 1
        self.follow(self.book.leave(Key(place[0], 0, place[1], 0)))

    @precondition(lambda self: len(self.waiting) < 5)
    @rule(place=PLACE, generation=GENERATION, profile=GENERATION, fresh=st.sampled_from([False, False, True]))
    def ask(self, place: tuple[str, bytes], generation: int, profile: int, fresh: bool) -> None:
        """Somebody asks for a connection."""
        upstream, user = place
        self.number += 1
        key = Key(upstream, profile, user, generation)
        asker = Asker(self.number, key, fresh, self.now + TERMS[upstream].wait)
        self.waiting.append(asker)
        self.follow(self.book.ask(asker.ticket, key, TERMS[upstream], self.now, fresh=fresh))

    @precondition(lambda self: len(self.waiting) < 5 and self.having(Stage.IDLE))
    @rule(which=WHICH, generation=GENERATION)
    def log_in(self, which: int, generation: int) -> None:
        """Whose connection is idle has a session more, which logs in by one of its own, if there is room."""
        place = self.held[self.pick(which, Stage.IDLE)].place
        self.enter(place)
        self.ask(place, generation, 0, True)
        connections = self.having(Stage.CONNECTING)
        if connections and connections[-1].ticket == self.number:
            self.connected(len(connections) - 1, generation)

    @precondition(lambda self: self.held)
    @rule(generation=GENERATION)
    def all_go_on(self, generation: int) -> None:
        """All connections that there are go one stage further."""
        self.go_on(list(range(len(self.held))), generation)

    @precondition(lambda self: len(self.held) > len(self.having(Stage.IDLE)))
    @rule(which=st.lists(WHICH, min_size=1, max_size=6), generation=GENERATION)
    def go_on(self, which: list[int], generation: int) -> None:
        """One connection after the other goes the way that all should go, one stage further."""
        for number in which:
            moving = self.having(*set(Stage) - {Stage.IDLE})
            if moving:
                connection = moving[number % len(moving)]
                stage = self.held[connection].stage
                place = self.having(stage).index(connection)
                if stage is Stage.CONNECTING:
                    self.connected(place, generation)
                elif stage is Stage.LEASED:
                    self.released(place, True)
                elif stage is Stage.CLOSING:
                    self.lost(list(self.held).index(connection))
                else:
                    self.proved(self.having(Stage.RESETTING, Stage.CHECKING).index(connection))

    @precondition(lambda self: len(self.waiting) < 5)
    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0]), which=st.lists(WHICH, min_size=1, max_size=3))
    def ask_for_one(self, seconds: float, which: list[int]) -> None:
        """Somebody asks for what is there, in whatever stage, soon or later."""
        self.now += seconds
        for number in which:
            keys = [held.key for held in self.held.values()] or [Key("a", 0, b"u", 0)]
            key = keys[number % len(keys)]
            self.ask((key.upstream, key.user), key.generation, key.profile, number > 7)

    @precondition(lambda self: self.number)
    @rule(which=st.integers(0, 60))
    def cancel(self, which: int) -> None:
        """Somebody goes, whether he waits, is being served, or has what he wanted."""
        ticket = self.number - which % self.number
        self.waiting = [asker for asker in self.waiting if asker.ticket != ticket]
        opened = [each for each in self.having(Stage.CONNECTING) if self.held[each].asker.ticket == ticket]  # type: ignore[union-attr]
        for each in self.having(Stage.CHECKING):
            held = self.held[each]
            if held.asker is not None and held.asker.ticket == ticket:
                held.asker = None
        self.follow(self.book.cancelled(ticket, self.now))
        assert [self.held[each].stage for each in opened] in ([], [Stage.CLOSING])

    @precondition(lambda self: self.having(Stage.CONNECTING))
    @rule(which=WHICH, generation=GENERATION)
    def connected(self, which: int, generation: int) -> None:
        """A connection is open, and its credential turns out to be of this generation."""
        connection = self.pick(which, Stage.CONNECTING)
        held = self.held[connection]
        held.key = held.key._replace(generation=generation)
        held.stage = Stage.LEASED
        held.expires = self.now + TERMS[held.key.upstream].lifetime * (0.9 + 0.2 * self.jitter)
        self.book.connected(connection, generation, self.now)

    @precondition(lambda self: self.having(Stage.LEASED))
    @rule(which=WHICH, clean=st.sampled_from([True, True, True, False]))
    def released(self, which: int, clean: bool) -> None:
        """Whoever held it gives it back."""
        connection = self.pick(which, Stage.LEASED)
        self.held[connection].asker = None
        useful = self.useful(self.held[connection])
        self.follow(self.book.released(connection, self.now, clean=clean))
        assert self.held[connection].stage in ((Stage.RESETTING, Stage.CLOSING) if clean else (Stage.CLOSING,))
        if clean and not self.waiting:
            assert (self.held[connection].stage is Stage.RESETTING) == useful

    @precondition(lambda self: self.having(Stage.RESETTING, Stage.CHECKING))
    @rule(which=WHICH)
    def proved(self, which: int) -> None:
        """The barrier, or the check, is answered."""
        connection = self.pick(which, Stage.RESETTING, Stage.CHECKING)
        held = self.held[connection]
        wanted, useful = self.awaited(held), self.useful(held)
        if held.asker is not None:
            self.again(held.asker)
            held.asker = self.waiting[0]
            held_for = held.asker
        alone = not self.waiting
        orders = self.book.proved(connection, self.now)
        assert not alone or (connection.stage is Stage.IDLE) == useful
        if connection.stage is Stage.IDLE or (held.asker is None and not isinstance(orders[0], Discard)):
            held.stage, held.since = Stage.IDLE, self.now  # then, perhaps, lent at once
            kept = self.of(held.place, Stage.RESETTING, Stage.IDLE)
            assert len(kept) <= self.kept(held.place) or wanted, "one too many"
        elif held.asker is not None and isinstance(orders[0], Discard):
            assert not self.lendable(held), "whoever waited for the check was to have it"
            assert held_for in self.waiting
        self.follow(orders)

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def lost(self, which: int) -> None:
        """A connection is gone, in whatever stage."""
        connection = self.pick(which, *Stage)
        held = self.held.pop(connection)
        if held.stage is Stage.CHECKING and held.asker is not None:
            self.again(held.asker)
        self.follow(self.book.lost(connection, self.now))
        assert self.book.lost(connection, self.now) == []

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 4.0, 12.0]), ticked=st.booleans())
    def time(self, seconds: float, ticked: bool) -> None:
        """Time passes, and the book is told so or not."""
        self.now += seconds
        if ticked:
            self.follow(self.book.ticked(self.now))
            assert not [asker for asker in self.waiting if asker.deadline <= self.now]
            for connection in self.having(Stage.IDLE):
                held = self.held[connection]
                assert self.now < min(held.since + TERMS[held.key.upstream].idle, held.expires)
            for place in PLACES:
                assert len(self.of(place, Stage.IDLE)) <= self.kept(place)

    @rule(place=PLACE, profile=st.integers(0, 1))
    def retire(self, place: tuple[str, bytes], profile: int) -> None:
        """Some are not to be lent again."""

        def chosen(key: Key) -> bool:
            return (key.upstream, key.user) == place and key.profile == profile

        self._spoil(lambda held: chosen(held.key), self.book.retire(chosen))

    @rule(place=PLACE, generation=st.integers(0, 1))
    def renew(self, place: tuple[str, bytes], generation: int) -> None:
        """All of one user's but those of the newest generation are not to be lent again."""
        self._spoil(
            lambda held: held.place == place and held.key.generation != generation, self.book.renew(place, generation)
        )

    def _spoil(self, chosen: Callable[[Held], bool], orders: Sequence[Order]) -> None:
        for held in self.held.values():
            held.stale = held.stale or chosen(held)
        self.follow(orders)
        assert not [each for each in self.having(Stage.IDLE) if self.held[each].stale]

    @precondition(lambda self: not self.paused)
    @rule(upstream=st.sampled_from(sorted(TERMS)))
    def pause(self, upstream: str) -> None:
        """Nothing of an upstream is lent, or kept."""
        self.paused.add(upstream)
        self.follow(self.book.pause(upstream))
        assert self.book.paused(upstream)
        assert not [each for each in self.having(Stage.IDLE) if self.held[each].key.upstream == upstream]

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        """It is lent again."""
        upstream = self.paused.pop()
        self.follow(self.book.resume(upstream, self.now))
        assert not self.book.paused(upstream)

    def pick(self, which: int, *stages: Stage) -> Connection:
        """One of the connections in these stages."""
        connections = self.having(*stages)
        return connections[which % len(connections)]

    def teardown(self) -> None:
        """When all is over, nothing is left in any table."""
        while self.paused:
            self.resume()
        for _ in range(1000):
            if self.having(Stage.CLOSING, Stage.CONNECTING):
                self.lost(0)
            elif self.waiting:
                self.waiting, ticket = self.waiting[1:], self.waiting[0].ticket
                self.follow(self.book.cancelled(ticket, self.now))
            elif self.having(Stage.LEASED):
                self.released(0, True)
            elif self.having(Stage.RESETTING, Stage.CHECKING):
                self.proved(0)
            elif self.sessions.total():
                self.leave(0)
            elif self.held:
                self.time(1000.0, True)
            else:
                break
            self.sums()
            self.nobody_waits_in_vain()
        book = self.book
        assert book.rows() == []
        tables = (
            book._pools,
            book._connections,
            book._idle,
            book._upstreams,
            book._closing,
            book._asked,
            book._waiting,
        )
        assert not any(tables), tables

    # --- what always holds ------------------------------------------------------------------------------

    @invariant()
    def sums(self) -> None:
        """leased + idle + connecting + closing = total, by the book's rows and by the model's counting."""
        rows = {(row.upstream, row.user): row for row in self.book.rows()}
        busy = {held.place for held in self.held.values()} | {asker.place for asker in self.waiting}
        assert set(rows) == busy | set(+self.sessions)
        for place, row in rows.items():
            assert row.leased + row.idle + row.connecting + row.closing == row.total == len(self.of(place))
            assert row.leased == len(self.of(place, Stage.LEASED, Stage.RESETTING))
            assert row.idle == len(self.of(place, Stage.IDLE, Stage.CHECKING))
            assert row.connecting == len(self.of(place, Stage.CONNECTING))
            assert row.closing == len(self.of(place, Stage.CLOSING))
            assert row.waiting == len([asker for asker in self.waiting if asker.place == place])
            assert row.sessions == self.sessions[place]
        assert self.book.total == sum(row.total for row in rows.values()) == len(self.held)
        assert self.book.waiting == len(self.waiting)
        for upstream in TERMS:
            assert self.book.of(upstream) == sum(row.total for row in rows.values() if row.upstream == upstream)
        assert all(connection.stage is held.stage for connection, held in self.held.items())
        opened = [each for each in self.having(Stage.CONNECTING, Stage.CHECKING) if self.held[each].asker]
        assert list(self.book.dialling) == [self.book.dialled(each.ticket) for each in self.book.dialling]
        assert set(self.book.dialling) == set(opened)

    @invariant()
    def bounds(self) -> None:
        """No bound is exceeded: of a user, of an upstream, in all; nor are more kept than may be."""
        assert len(self.held) <= MOST
        for upstream, terms in TERMS.items():
            assert not terms.most or self.book.of(upstream) <= terms.most
        for place in PLACES:
            terms = TERMS[place[0]]
            assert not place[1] or len(self.of(place)) <= terms.size
            kept = terms.keep if place[1] and (terms.alone or self.sessions[place]) else 0
            assert len(self.of(place, Stage.IDLE)) <= kept

    @invariant()
    def keys_never_mix(self) -> None:
        """A connection is for life its upstream's and its user's; whoever holds it asked for just that."""
        for connection, held in self.held.items():
            assert connection.key == held.key
            assert held.place == (held.key.upstream, held.key.user)
            if held.asker is not None:
                assert held.asker.place == held.place

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Whoever is first in his pool could not be served now; where only idle ones are in the way, one is closing."""
        heads = {asker.place: asker for asker in reversed(self.waiting)}
        for asker in heads.values():
            if asker.key.upstream in self.paused:
                continue
            assert not self.dialable(asker), "there is room"
            assert not self.matching(asker), "there is one"
            for counted in self.scopes(asker)[:1]:
                stages = {held.stage for held in counted}
                making_room = Stage.CLOSING in stages or self.soon(asker)
                assert Stage.IDLE not in stages or making_room, "an idle one is in the way"


_ORDERS: dict[type, Callable[..., None]] = {
    Dial: Pools.dial,
    Lend: Pools.lend,
    Check: Pools.check,
    Reset: Pools.reset,
    Discard: Pools.discard,
    Refuse: Pools.refuse,
}

TestPools = Pools.TestCase
TestPools.settings = settings(settings(), stateful_step_count=60, max_examples=4 * settings().max_examples)
