"""The pools' book, method by method: what happens, and what is ordered."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from imapgate.pooling.book import Book, Row
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

ALICE, BOB, CAROL = (Key("legacy", 0, user, 0) for user in (b"alice", b"bob", b"carol"))
ELSEWHERE = ALICE._replace(upstream="other")
NOBODY = ALICE._replace(user=b"")
TERMS = Terms(size=2, keep=1, alone=True)


def told(orders: Sequence[Order]) -> list[tuple[object, ...]]:
    """Orders in a form in which those of two kinds are never equal, as tuples with the same content are."""
    return [(type(order), *order) for order in orders]


class Desk:
    """A book, and the short way to what the tests need of it."""

    def __init__(self, most: int = 10, terms: Terms = TERMS) -> None:
        self.terms = terms
        self.book = Book(most, lambda: 0.5)

    def ask(self, ticket: str, key: Key = ALICE, now: float = 0.0, fresh: bool = False) -> list[Order]:
        """Somebody asks."""
        return self.book.ask(ticket, key, self.terms, now, fresh=fresh)

    def lease(self, ticket: str, key: Key = ALICE, now: float = 0.0) -> Connection:
        """Somebody asks, and a new connection is opened for him."""
        (order,) = self.ask(ticket, key, now, fresh=True)
        assert isinstance(order, Dial)
        self.book.connected(order.connection, key.generation, now)
        return order.connection

    def idle(self, key: Key = ALICE, now: float = 0.0) -> Connection:
        """A connection that has come back, and was proved clean."""
        connection = self.lease("once", key, now)
        assert told(self.book.released(connection, now, clean=True)) == told([Reset(connection)])
        assert self.book.proved(connection, now) == []
        return connection

    def row(self, key: Key = ALICE) -> Row:
        """The pool of this key."""
        return next(row for row in self.book.rows() if (row.upstream, row.user) == (key.upstream, key.user))

    @property
    def empty(self) -> bool:
        """Whether nothing is left in any table."""
        book = self.book
        tables = book._pools, book._connections, book._idle, book._upstreams, book._closing, book._asked, book._waiting
        return not any(tables)


# --- asking ---------------------------------------------------------------------------------------------------


def test_a_new_connection() -> None:
    """Where none is idle one is dialled, for whoever asked; then it is his."""
    desk = Desk()
    (order,) = desk.ask("one")
    assert isinstance(order, Dial)
    assert order.ticket == "one"
    connection = order.connection
    assert (connection.key, connection.stage, connection.ticket) == (ALICE, Stage.CONNECTING, "one")
    assert desk.book.dialled("one") is connection
    assert list(desk.book.dialling) == [connection]
    desk.book.connected(connection, 3, 100.0)
    assert (connection.key, connection.stage) == (ALICE._replace(generation=3), Stage.LEASED)
    assert connection.expires == 100.0 + TERMS.lifetime
    assert desk.book.dialled("one") is None
    assert desk.row() == Row("legacy", b"alice", 0, 1, 0, 0, 0, 1, 0)


@pytest.mark.parametrize(("jitter", "lifetime"), [(0.0, 3240.0), (0.5, 3600.0), (1.0, 3960.0)])
def test_lifetimes_differ(jitter: float, lifetime: float) -> None:
    """Lifetimes differ by 10 %, so that what began together does not end together."""
    book = Book(1, lambda: jitter)
    (order,) = book.ask("one", ALICE, TERMS, 0.0, fresh=True)
    assert isinstance(order, Dial)
    book.connected(order.connection, 0, 0.0)
    assert order.connection.expires == pytest.approx(lifetime)


def test_an_idle_one_is_lent() -> None:
    """One that was idle for a short time is lent as it is; the shortest first."""
    desk = Desk(terms=TERMS._replace(keep=2))
    one, two = desk.lease("a"), desk.lease("b")
    for connection in (one, two):
        desk.book.released(connection, 0.0, clean=True)
    for now, connection in enumerate((one, two)):
        assert desk.book.proved(connection, float(now)) == []
    assert told(desk.ask("c", now=30.0)) == told([Lend(two, "c")])
    assert told(desk.ask("d", now=30.0)) == told([Lend(one, "d")])
    assert desk.book.counts == {"dialled": 2, "lent": 4, "reused": 2}


def test_one_that_was_idle_for_long_is_checked() -> None:
    """It is asked whether it lives; when it has answered it is lent."""
    desk = Desk()
    connection = desk.idle()
    assert told(desk.ask("one", now=30.5)) == told([Check(connection)])
    assert desk.book.dialled("one") is connection
    assert desk.row() == Row("legacy", b"alice", 0, 0, 1, 0, 0, 1, 0)
    assert told(desk.book.proved(connection, 31.0)) == told([Lend(connection, "one")])


def test_one_that_dies_under_the_check() -> None:
    """Whoever waited for it gets a new one, before all others."""
    desk = Desk(terms=TERMS._replace(size=1))
    connection = desk.idle()
    assert told(desk.ask("one", now=40.0)) == told([Check(connection)])
    assert desk.ask("two", now=40.0) == []
    (order,) = desk.book.lost(connection, 41.0)
    assert isinstance(order, Dial)
    assert order.ticket == "one"
    assert desk.row().waiting == 1


def test_one_that_becomes_stale_under_the_check() -> None:
    """It is given up, and whoever waited for it waits again, before all others, until it is gone."""
    desk = Desk(terms=TERMS._replace(size=1))
    connection = desk.idle()
    assert told(desk.ask("one", now=40.0)) == told([Check(connection)])
    assert desk.ask("two", now=40.0) == []
    assert desk.book.retire(lambda key: key == ALICE) == []
    assert told(desk.book.proved(connection, 41.0)) == told([Discard(connection)])
    (order,) = desk.book.lost(connection, 42.0)
    assert isinstance(order, Dial)
    assert order.ticket == "one"


def test_a_pause_under_the_check() -> None:
    """Paused means lent no more, also for what is being checked."""
    desk = Desk()
    connection = desk.idle()
    assert told(desk.ask("one", now=40.0)) == told([Check(connection)])
    assert desk.book.pause("legacy") == []
    assert told(desk.book.proved(connection, 41.0)) == told([Discard(connection)])
    assert desk.row().waiting == 1


def test_a_cancelled_check() -> None:
    """It goes on, for whoever comes next."""
    desk = Desk()
    connection = desk.idle()
    assert told(desk.ask("one", now=40.0)) == told([Check(connection)])
    assert desk.book.cancelled("one", 40.0) == []
    assert desk.book.dialled("one") is None
    assert desk.book.proved(connection, 41.0) == []
    assert connection.stage is Stage.IDLE
    assert told(desk.ask("two", now=41.0)) == told([Lend(connection, "two")])


def test_fresh() -> None:
    """Who must show his credential is given a new one, whatever is idle."""
    desk = Desk()
    desk.idle()
    (order,) = desk.ask("one", fresh=True)
    assert isinstance(order, Dial)


@pytest.mark.parametrize(
    "other",
    [BOB, ELSEWHERE, ALICE._replace(generation=1), ALICE._replace(profile=1), ALICE._replace(user=b"alice\0b"),
     ALICE._replace(user=b"Alice"), NOBODY],
)  # fmt: skip
def test_a31_another_key_gets_nothing(other: Key) -> None:
    """A31, A33: an idle connection is lent under its very key and no other; keys are compared part by part."""
    desk = Desk()
    connection = desk.idle()
    (order,) = desk.ask("one", other)
    assert isinstance(order, Dial)
    assert order.connection is not connection
    assert order.connection.key == other


# --- waiting --------------------------------------------------------------------------------------------------


def test_first_come_first_served() -> None:
    """With all of a user's connections in use he waits; whoever came first is served first."""
    desk = Desk()
    one, two = desk.lease("a"), desk.lease("b")
    assert desk.ask("c") == []
    assert desk.ask("d", fresh=True) == []
    assert desk.ask("e") == []
    assert desk.book.waiting == desk.row().waiting == 3
    assert told(desk.book.released(one, 0.0, clean=True)) == told([Reset(one)])
    assert told(desk.book.proved(one, 0.0)) == told([Lend(one, "c")])
    assert told(desk.book.released(two, 0.0, clean=True)) == told([Discard(two)])  # the next one wants a fresh one
    (order,) = desk.book.lost(two, 0.0)
    assert isinstance(order, Dial)
    assert order.ticket == "d"


def test_who_is_cancelled_gets_nothing() -> None:
    """The next in the row is served in his place."""
    desk = Desk(terms=TERMS._replace(size=1))
    one = desk.lease("a")
    desk.ask("b")
    desk.ask("c")
    assert desk.book.cancelled("b", 0.0) == []
    assert told(desk.book.released(one, 0.0, clean=True)) == told([Reset(one)])
    assert told(desk.book.proved(one, 0.0)) == told([Lend(one, "c")])
    assert desk.book.cancelled("c", 0.0) == []  # it is his already
    assert one.stage is Stage.LEASED
    assert desk.book.cancelled("nobody", 0.0) == []


def test_who_stood_behind_is_served() -> None:
    """When the first in the row goes, what he could not use may be just right for the next."""
    for goes in ("cancelled", "refused"):
        desk = Desk(most=2, terms=TERMS._replace(wait=5.0))
        other = desk.idle(BOB)
        mine = desk.idle(ALICE, now=1.0)
        assert told(desk.ask("fresh", now=1.0, fresh=True)) == told([Discard(other)])
        assert desk.ask("any", now=2.0) == []
        if goes == "cancelled":
            assert told(desk.book.cancelled("fresh", 3.0)) == told([Lend(mine, "any")])
        else:
            assert told(desk.book.ticked(6.0)) == told([Refuse("fresh"), Lend(mine, "any")])


def test_a_cancelled_dial_is_given_up() -> None:
    """Its room is taken until it is gone."""
    desk = Desk(terms=TERMS._replace(size=1))
    (order,) = desk.ask("a")
    assert isinstance(order, Dial)
    desk.ask("b")
    assert told(desk.book.cancelled("a", 0.0)) == told([Discard(order.connection)])
    assert desk.row() == Row("legacy", b"alice", 0, 0, 0, 0, 1, 1, 1)
    (again,) = desk.book.lost(order.connection, 0.0)
    assert isinstance(again, Dial)
    assert again.ticket == "b"


def test_refused_after_its_time() -> None:
    """Who has waited for ``pool_wait`` is refused, and no earlier."""
    desk = Desk(terms=TERMS._replace(size=1, wait=10.0))
    desk.lease("a")
    desk.ask("b", now=1.0)
    desk.ask("c", now=2.0)
    assert desk.book.ticked(10.9) == []
    assert told(desk.book.ticked(11.0)) == told([Refuse("b")])
    assert desk.row().waiting == 1
    assert desk.book.counts["refused"] == 1


def test_one_that_is_being_reset_is_waited_for() -> None:
    """It is sooner ready than a new one; who must have a new one does not wait for it."""
    desk = Desk()
    one = desk.lease("a")
    desk.book.released(one, 0.0, clean=True)
    assert desk.ask("b") == []
    assert told(desk.book.proved(one, 0.0)) == told([Lend(one, "b")])
    desk.book.released(one, 0.0, clean=True)
    (order,) = desk.ask("c", fresh=True)
    assert isinstance(order, Dial)


# --- room -----------------------------------------------------------------------------------------------------


def test_room_of_a_user() -> None:
    """An idle one of another generation makes room; others' are left alone."""
    desk = Desk(terms=TERMS._replace(size=1))
    bobs, old = desk.idle(BOB), desk.idle()
    assert told(desk.ask("one", ALICE._replace(generation=1))) == told([Discard(old)])
    assert desk.ask("two", ALICE._replace(generation=1)) == []
    (order,) = desk.book.lost(old, 0.0)
    assert isinstance(order, Dial)
    assert bobs.stage is Stage.IDLE


def test_room_at_an_upstream() -> None:
    """At ``max_connections`` the one that was idle there for longest makes room, whoever it belongs to."""
    desk = Desk(terms=TERMS._replace(most=2))
    elsewhere, bobs, carols = desk.idle(ELSEWHERE), desk.idle(BOB, 1.0), desk.idle(CAROL, 2.0)
    assert told(desk.ask("one", now=3.0)) == told([Discard(bobs)])
    assert desk.ask("two", now=3.0) == []  # one at a time
    order, other = desk.book.lost(bobs, 4.0)
    assert isinstance(order, Dial)
    assert order.ticket == "one"
    assert told([other]) == told([Discard(carols)])
    assert elsewhere.stage is Stage.IDLE
    assert desk.book.of("legacy") == 2
    assert desk.book.of("other") == 1


def test_room_in_all() -> None:
    """The bound of the whole gate: whoever came first, of whatever pool, gets what becomes free."""
    desk = Desk(most=2)
    one, two = desk.lease("a", ELSEWHERE), desk.lease("b", BOB)
    assert desk.ask("c", CAROL) == []
    assert desk.ask("d", ALICE) == []
    assert told(desk.book.released(two, 0.0, clean=True)) == told([Discard(two)])  # somebody waits for its room
    (order,) = desk.book.lost(two, 0.0)
    assert isinstance(order, Dial)
    assert order.ticket == "c"
    (order,) = desk.book.lost(one, 0.0)
    assert isinstance(order, Dial)
    assert order.ticket == "d"
    assert desk.book.total == 2


def test_no_name_no_bound() -> None:
    """Relayed mechanisms hide the name: such connections have no bound of a user, and are never kept."""
    desk = Desk(terms=TERMS._replace(size=1))
    one, two = desk.lease("a", NOBODY), desk.lease("b", NOBODY)
    assert told(desk.book.released(one, 0.0, clean=True)) == told([Discard(one)])
    assert desk.book.lost(one, 0.0) == []
    assert desk.book.lost(two, 0.0) == []
    assert desk.empty


# --- clean or destroyed, kept or not --------------------------------------------------------------------------


def test_unclean_is_destroyed() -> None:
    """What is not said to be clean is given up, though somebody waits for it."""
    desk = Desk(terms=TERMS._replace(size=1))
    one = desk.lease("a")
    desk.ask("b")
    assert told(desk.book.released(one, 0.0, clean=False)) == told([Discard(one)])


def test_lost_in_the_barrier() -> None:
    """A connection whose barrier fails is gone; nobody was lent it."""
    desk = Desk()
    one = desk.lease("a")
    desk.book.released(one, 0.0, clean=True)
    assert desk.row() == Row("legacy", b"alice", 0, 1, 0, 0, 0, 1, 0)
    assert desk.book.lost(one, 0.0) == []
    assert desk.empty
    assert desk.book.lost(one, 0.0) == []
    assert desk.book.counts["lost"] == 1


def test_no_more_than_may_be_kept() -> None:
    """``pool_keep`` idle ones of one user, those that are being reset counted."""
    desk = Desk()
    one, two = desk.lease("a"), desk.lease("b")
    assert told(desk.book.released(one, 0.0, clean=True)) == told([Reset(one)])
    assert told(desk.book.released(two, 0.0, clean=True)) == told([Discard(two)])


# --- kept where leased ones count: shared mailboxes ---------------------------------------------------------

COUNTED = TERMS._replace(size=3, counted=True)


def test_leased_ones_count() -> None:
    """Where one is leased nothing is kept beside it; the last one that comes back is."""
    desk = Desk(terms=COUNTED)
    one, two, three = desk.lease("a"), desk.lease("b"), desk.lease("c")
    assert told(desk.book.released(one, 0.0, clean=True)) == told([Discard(one)])
    assert told(desk.book.released(two, 0.0, clean=True)) == told([Discard(two)])
    assert told(desk.book.released(three, 0.0, clean=True)) == told([Reset(three)])
    assert desk.book.proved(three, 0.0) == []
    assert told(desk.ask("d")) == told([Lend(three, "d")])


def test_leased_ones_count_towards_what_is_kept() -> None:
    """What is leased and what is idle are together no more than may be kept; another user's are not counted."""
    desk = Desk(terms=COUNTED._replace(keep=2))
    one, two, three = desk.lease("a"), desk.lease("b"), desk.lease("c")
    desk.lease("d", BOB)
    assert told(desk.book.released(one, 0.0, clean=True)) == told([Discard(one)])
    assert told(desk.book.released(two, 0.0, clean=True)) == told([Reset(two)])
    assert desk.book.proved(two, 0.0) == []
    assert (two.stage, three.stage) == (Stage.IDLE, Stage.LEASED)


def test_one_is_leased_when_another_is_proved() -> None:
    """Whether it is kept is asked again when the barrier is answered."""
    desk = Desk(terms=COUNTED)
    one = desk.lease("a")
    assert told(desk.book.released(one, 0.0, clean=True)) == told([Reset(one)])
    desk.lease("b")
    assert told(desk.book.proved(one, 0.0)) == told([Discard(one)])


def test_one_that_somebody_waits_for_is_kept() -> None:
    """Whoever waits for this very one is given it, whatever else is leased."""
    desk = Desk(terms=COUNTED._replace(size=2))
    one = desk.lease("a")
    desk.lease("b")
    assert desk.ask("c") == []
    assert told(desk.book.released(one, 0.0, clean=True)) == told([Reset(one)])
    assert told(desk.book.proved(one, 0.0)) == told([Lend(one, "c")])


@pytest.mark.parametrize("by", ["time", "leaving"])
def test_an_idle_one_beside_one_that_was_leased_since(by: str) -> None:
    """A login of its own may lease another beside one that is idle; then that one goes soon, and no other's does."""
    desk = Desk(terms=COUNTED)
    desk.book.enter(ALICE, desk.terms)
    idle, bobs = desk.idle(), desk.idle(BOB)
    desk.lease("a")
    orders = desk.book.ticked(1.0) if by == "time" else desk.book.leave(ALICE)
    assert told(orders) == told([Discard(idle)])
    assert bobs.stage is Stage.IDLE
    assert desk.book.ticked(2.0) == []


def test_kept_only_while_somebody_could_be_given_it() -> None:
    """Where a later login cannot be given it, it is kept while the user has a session, and no longer."""
    desk = Desk(terms=TERMS._replace(alone=False))
    desk.book.enter(ALICE, desk.terms)
    one = desk.idle()
    assert told(desk.book.leave(ALICE)) == told([Discard(one)])
    assert desk.book.lost(one, 0.0) == []
    two = desk.lease("a")
    assert told(desk.book.released(two, 0.0, clean=True)) == told([Discard(two)])
    desk.book.lost(two, 0.0)
    assert desk.empty


def test_nobody_left_when_it_is_proved() -> None:
    """The last session may end while the barrier is up: then it is not kept either."""
    desk = Desk(terms=TERMS._replace(alone=False))
    desk.book.enter(ALICE, desk.terms)
    one = desk.lease("a")
    assert told(desk.book.released(one, 0.0, clean=True)) == told([Reset(one)])
    assert desk.book.leave(ALICE) == []
    assert told(desk.book.proved(one, 0.0)) == told([Discard(one)])


def test_idle_for_too_long() -> None:
    """``pool_idle`` after it became idle it goes."""
    desk = Desk()
    one = desk.idle(now=10.0)
    assert desk.book.ticked(309.9) == []
    assert told(desk.book.ticked(310.0)) == told([Discard(one)])


def test_alive_for_too_long() -> None:
    """``pool_lifetime`` after it was opened it is neither lent nor kept; its holder has it as long as he likes."""
    desk = Desk(terms=TERMS._replace(idle=9999.0))
    one = desk.idle()
    assert desk.book.ticked(3599.0) == []
    (order,) = desk.ask("b", now=3600.0)
    assert isinstance(order, Dial)
    assert told(desk.book.ticked(3600.0)) == told([Discard(one)])
    two = desk.lease("c", BOB)
    assert desk.book.ticked(9999.0) == []
    assert told(desk.book.released(two, 9999.0, clean=True)) == told([Discard(two)])


def test_retire() -> None:
    """Idle ones go at once, others when they come back; none is lent again."""
    desk = Desk()
    idle, leased, bobs = desk.idle(), desk.lease("a"), desk.idle(BOB)
    assert told(desk.book.retire(lambda key: key.user == b"alice")) == told([Discard(idle)])
    assert told(desk.book.released(leased, 0.0, clean=True)) == told([Discard(leased)])
    assert told(desk.ask("b", BOB)) == told([Lend(bobs, "b")])


def test_renew() -> None:
    """All of a user's but those of the new generation; a user without any is no error."""
    desk = Desk()
    old, new, bobs = desk.idle(), desk.lease("a", ALICE._replace(generation=1)), desk.idle(BOB)
    assert told(desk.book.renew(("legacy", b"alice"), 1)) == told([Discard(old)])
    assert told(desk.book.released(new, 0.0, clean=True)) == told([Reset(new)])
    assert bobs.stage is Stage.IDLE
    assert desk.book.renew(("legacy", b"carol"), 1) == []


def test_pause() -> None:
    """While an upstream is paused nothing of it is lent, dialled or kept; others are not disturbed."""
    desk = Desk()
    idle, leased, other = desk.idle(), desk.lease("a"), desk.idle(ELSEWHERE)
    assert told(desk.book.pause("legacy")) == told([Discard(idle)])
    assert desk.book.paused("legacy")
    assert not desk.book.paused("other")
    assert desk.ask("b") == []
    assert told(desk.ask("c", ELSEWHERE)) == told([Lend(other, "c")])
    assert told(desk.book.released(leased, 0.0, clean=True)) == told([Discard(leased)])
    assert [desk.book.lost(each, 0.0) for each in (idle, leased)] == [[], []]
    (order,) = desk.book.resume("legacy", 1.0)
    assert isinstance(order, Dial)
    assert order.ticket == "b"


# --- rows -----------------------------------------------------------------------------------------------------


def test_rows() -> None:
    """One row for each pool that has anything; the sum of the stages is the total."""
    desk = Desk(terms=TERMS._replace(size=9, keep=9))
    assert desk.book.rows() == []
    desk.book.enter(ALICE, desk.terms)
    desk.book.enter(ALICE, desk.terms)
    assert desk.row() == Row("legacy", b"alice", 2, 0, 0, 0, 0, 0, 0)
    idle, leased, resetting, closing = (desk.lease(str(number)) for number in range(4))
    desk.book.released(closing, 0.0, clean=False)
    desk.book.released(idle, 0.0, clean=True)
    desk.book.proved(idle, 0.0)
    desk.book.released(resetting, 0.0, clean=True)
    desk.ask("new", fresh=True)
    desk.ask("other", BOB)
    row = desk.row()
    assert row == Row("legacy", b"alice", 2, 2, 1, 1, 1, 5, 0)
    assert row.leased + row.idle + row.connecting + row.closing == row.total
    assert leased.stage is Stage.LEASED
    assert desk.book.total == 6
    assert len(desk.book.rows()) == 2


def test_nothing_is_left() -> None:
    """A user who was here, and whose connections are gone, leaves no trace."""
    desk = Desk()
    desk.book.enter(ALICE, desk.terms)
    one = desk.idle()
    desk.ask("a", BOB)
    (opened,) = desk.book.dialling
    assert desk.book.lost(opened, 0.0) == []
    assert desk.book.leave(ALICE) == []
    assert told(desk.book.ticked(300.0)) == told([Discard(one)])
    assert desk.book.lost(one, 300.0) == []
    assert desk.empty
    assert desk.book.rows() == []
