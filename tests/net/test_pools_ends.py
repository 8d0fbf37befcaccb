"""Upstream connections that are lost, given up by whoever asked, forgotten or paused; and who they are kept for."""

from __future__ import annotations

import pytest

from imapgate.model.failure import Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.pooling.connection import Terms
from tests.net.lending import PLAINLY, Borrower, Server, dialled, idle, lent, pooled
from tests.net.wires import Bench, bench

# --- lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["leased", "resetting", "idle", "checking", "closing"])
def test_f3_lost_in_every_stage(stage: str) -> None:
    """Wherever a connection is when it is lost, the book is right afterwards, and its room is another's."""
    made = pooled(Terms(size=1))
    borrower, server = lent(made)
    if stage == "closing":
        borrower.lease.destroy()
    elif stage != "leased":
        borrower.lease.give_back(selected=False)
    if stage in ("idle", "checking"):
        server.says(b"g2 OK\r\n")
    if stage == "checking":
        made.clock.advance(31)
    waiting = Borrower(made).asks() if stage != "idle" else None
    assert made.stages() == [stage]
    assert dialled(made) == 1
    server.drops()
    assert made.pools.book.of("mail") == (waiting is not None)
    if waiting is not None:
        Server(made)
        assert waiting.granted
    borrower.lease.destroy()
    server.says(b"g2 OK late\r\n")
    assert made.stages() == ["leased"] * (waiting is not None)
    assert not made.clock.getDelayedCalls()
    assert not made.pools._proving


# --- cancelled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["waiting", "connecting", "greeted", "resetting", "checking", "leased", "refused"])
def test_a51_cancelled_in_every_stage(stage: str) -> None:
    """Whoever has gone is lent nothing, whatever it waited for, and nothing that comes later changes that."""
    made = pooled(Terms(size=1, wait=5))
    server: Server | None = None
    if stage in ("checking", "resetting", "waiting", "refused"):
        first, server = lent(made)
        if stage in ("checking", "resetting"):
            first.lease.give_back(selected=False)
        if stage == "checking":
            server.says(b"g2 OK\r\n")
            made.clock.advance(31)
    borrower = Borrower(made).asks()
    if stage == "greeted":
        server = Server(made, None)
    elif stage == "leased":
        server = Server(made)
    elif stage == "refused":
        made.clock.advance(5)
        made.pools.ticked()
    told = list(borrower.answers)
    borrower.lease.outcome.cancel()
    borrower.lease.cancel()
    if stage in ("connecting", "greeted", "leased"):
        assert made.pools.book.total == (stage == "leased")
        assert server is None or not server.wire.open
    if server is not None:
        tag = b"g3" if stage == "checking" else b"g2"
        server.says(tag + b" OK\r\n")
        if stage in ("greeted", "leased"):
            server.drops()
    assert borrower.answers == told
    assert borrower.lease.connection is None
    assert made.pools.book.waiting == 0
    left = {"waiting": ["leased"], "refused": ["leased"], "resetting": ["idle"], "checking": ["idle"]}
    assert made.stages() == left.get(stage, [])
    another = Borrower(made).asks()
    assert another.granted is (stage in ("resetting", "checking"))


def pair(made: Bench) -> tuple[Server, Server]:
    """Two connections that are idle."""
    (first, one), (second, two) = lent(made), lent(made)
    first.lease.give_back(selected=False)
    one.says(b"g2 OK\r\n")
    second.lease.give_back(selected=False)
    two.says(b"g2 OK\r\n")
    assert made.stages() == ["idle", "idle"]
    one.wire.clear()
    two.wire.clear()
    return one, two


def test_a51_cancelled_while_it_is_being_lent() -> None:
    """Who goes after the book has lent a connection, but before it is told, returns it as clean as it was."""
    made = bench(cache=3600, alone=True, terms=Terms(keep=2))
    one, two = pair(made)
    first, second = Borrower(made), Borrower(made)

    def hears(answer: object) -> object:
        second.asks()
        assert made.stages() == ["leased", "leased"]
        second.lease.cancel()
        return answer

    first.lease.outcome.addCallback(hears)
    first.asks()
    assert first.granted
    assert second.answers == []
    assert second.lease.connection is None
    assert (one.hears, two.hears) == (b"g3 NOOP\r\n", b"")
    assert sorted(made.stages()) == ["leased", "resetting"]
    one.says(b"g3 OK\r\n")
    assert sorted(made.stages()) == ["idle", "leased"]


def test_a51_cancelled_before_its_dial_began() -> None:
    """Who goes before its connection was dialled gets none: what was begun is given up at once."""
    made = pooled()
    idle(made)
    first, second = Borrower(made), Borrower(made, b"bob")

    def hears(answer: object) -> object:
        second.asks()
        second.lease.cancel()
        return answer

    first.lease.outcome.addCallback(hears)
    first.asks()
    assert made.endpoints[0].cancelled == 1
    assert made.stages() == ["leased"]
    assert second.answers == []


class Owning:
    """Whoever had a connection, and writes down what it hears of it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def upstream_secured(self) -> None:
        """It never is."""

    def upstream_received(self, data: bytes) -> None:
        """Write it down."""
        self.heard.append(data)

    def upstream_lost(self, reason: object) -> None:
        """It is gone."""
        self.heard.append(b"lost")


@pytest.mark.parametrize("clean", [True, False])
def test_a31_whoever_returned_a_connection_hears_nothing_more(clean: bool) -> None:
    """What comes after the return reaches nobody, though the order that is to follow still stands in the queue."""
    made = pooled(Terms(keep=2))
    used, server = lent(made)
    owner = server.protocol.owner = Owning()  # type: ignore[attr-defined]
    asking = Borrower(made, b"bob")

    def hears(answer: object) -> object:
        if clean:
            used.lease.give_back(selected=False)
        else:
            used.lease.destroy()
        server.says(b"* 3 EXISTS\r\n")
        assert server.wire.open
        return answer

    asking.lease.outcome.addCallback(hears)
    asking.asks()
    made.pools._performing = True  # as when one order causes another
    Server(made)
    made.pools._performing = False
    made.pools.ticked()
    assert server.hears == (b"g2 NOOP\r\n" if clean else b"")
    server.says(b"g2 OK done\r\n")
    server.drops()
    assert owner.heard == []


# --- generations ------------------------------------------------------------------------------------


def test_another_credential_raises_the_generation() -> None:
    """When another password is proved, whatever was opened with the old one is lent no more, and the old one fails."""
    made = pooled(Terms(keep=2))
    used, used_server = lent(made)
    server = idle(made)
    changed, _ = lent(made, password=b"new")
    assert server.hears == b"g3 LOGOUT\r\n"
    assert changed.account.generation != used.account.generation
    used.lease.give_back(selected=False)
    assert used_server.hears == b"g2 LOGOUT\r\n"
    calls = dialled(made)
    old = Borrower(made).asks()
    assert dialled(made) == calls + 1
    assert old.answers == []


def test_a34_a_failed_login_forgets_what_was_proved() -> None:
    """A login that fails gives up that user's idle connections, and the next one is verified upstream, as ever."""
    made = pooled()
    server, other = idle(made), idle(made, b"bob")
    wrong = Borrower(made, password=b"wrong").asks()
    Server(made, b"g1 NO no\r\n")
    assert wrong.failure is Failure.CREDENTIALS
    assert server.hears == b"g3 LOGOUT\r\n"
    assert other.hears == b""
    assert Borrower(made).account.generation is None
    assert Borrower(made, b"bob").account.generation is not None


def test_an_outage_forgets_nothing() -> None:
    """A login that upstream could not decide on says nothing of the credential that was proved before."""
    made = pooled()
    server = idle(made)
    Borrower(made, password=b"wrong").asks()
    Server(made, b"g1 NO [UNAVAILABLE] later\r\n")
    assert server.hears == b""
    assert Borrower(made).account.generation is not None


def test_forget() -> None:
    """The operator can have everything forgotten that was proved of a user."""
    made = pooled()
    server, other = idle(made), idle(made, b"bob")
    borrower = Borrower(made).asks()
    assert borrower.granted
    made.pools.forget(("mail", b"alice"))
    borrower.lease.give_back(selected=False)
    assert server.hears == b"g3 LOGOUT\r\n"
    assert other.hears == b""
    assert Borrower(made).account.generation is None
    made.pools.forget(("mail", b"nobody"))


def test_retire() -> None:
    """What is retired is lent no more: idle connections go now, others when they come back."""
    made = pooled()
    server, other = idle(made), idle(made, b"bob")
    made.pools.retire(lambda key: key.user == b"alice")
    assert (server.hears, other.hears) == (b"g3 LOGOUT\r\n", b"")


# --- pausing ----------------------------------------------------------------------------------------


def test_pause_and_resume() -> None:
    """A paused upstream is lent to nobody and dialled for nobody; who asks waits, and is served when it goes on."""
    made = pooled(Terms(wait=10))
    used, used_server = lent(made)
    server = idle(made, b"bob")
    made.pools.pause("mail")
    assert server.hears == b"g3 LOGOUT\r\n"
    used.lease.give_back(selected=False)
    assert used_server.hears == b"g2 LOGOUT\r\n"
    early = Borrower(made).asks()
    made.clock.advance(5)
    late = Borrower(made).asks()
    made.clock.advance(5)
    made.pools.ticked()
    assert early.failure is Failure.BUSY
    assert dialled(made) == 2
    made.pools.resume("mail")
    assert dialled(made) == 3
    Server(made)
    assert late.granted


def test_a_login_that_was_under_way_when_it_was_paused() -> None:
    """A pause ends no dialogue that has begun; its connection is not kept afterwards."""
    made = pooled()
    borrower = Borrower(made).asks()
    made.pools.pause("mail")
    server = Server(made)
    assert borrower.granted
    borrower.lease.give_back(selected=False)
    assert server.hears == b"g2 LOGOUT\r\n"


# --- sessions, loops, limits ------------------------------------------------------------------------


def test_kept_while_its_user_is_there() -> None:
    """In mode mailbox a connection is kept while its user has a session, and goes with the last one."""
    made = bench(mode=PoolMode.MAILBOX)
    borrower, server = lent(made)
    made.pools.enter(borrower.account)
    made.pools.enter(borrower.account)
    borrower.lease.give_back(selected=False)
    server.says(b"g2 OK\r\n")
    server.wire.clear()
    made.pools.leave(borrower.account)
    assert made.stages() == ["idle"]
    made.pools.leave(borrower.account)
    assert server.hears == b"g3 LOGOUT\r\n"


def test_a46_a_connection_that_comes_back() -> None:
    """A client that is the other end of a connection that is being opened is the gate itself, until it is open."""
    made = pooled()
    end, other = ("192.0.2.1", 143), ("192.0.2.7", 50000)
    assert not made.pools.is_own(end, other)
    Borrower(made).asks()
    assert not made.pools.is_own(end, other)
    server = Server(made, None)
    assert made.pools.is_own(end, other)
    assert not made.pools.is_own(("192.0.2.1", 144), other)
    assert not made.pools.is_own(end, ("192.0.2.7", 143)), "the same port, to somewhere else"
    assert not made.pools.is_own(None, None)
    server.says(PLAINLY)
    assert not made.pools.is_own(end, other)


def test_configure() -> None:
    """Another limit holds from now on."""
    made = pooled()
    lent(made)
    made.pools.configure(made.gate.limits, 1)
    assert Borrower(made, b"bob").asks().answers == []
    assert dialled(made) == 1
