"""Upstream connections dialled, lent, reset, checked and closed, as the book orders."""

from __future__ import annotations

import base64

import pytest
from twisted.logger import LogEvent

from imapgate.model.failure import Failure
from imapgate.model.secret import Secret
from imapgate.net.pools import PROVING_SECONDS, Account
from imapgate.net.upstream import CLOSE_SECONDS
from imapgate.pooling.connection import Terms
from imapgate.session.effects import Challenge, Failed
from tests.net.asking import GREETING, RELAYED
from tests.net.lending import UNSELECT, Borrower, Server, account_of, dialled, idle, lent, login_of, pooled
from tests.net.wires import bench

# --- from the wish to the return --------------------------------------------------------------------


def test_dialled_and_lent() -> None:
    """A connection is dialled for whoever asks first, and is theirs."""
    made = pooled()
    borrower = Borrower(made).asks()
    assert made.stages() == ["connecting"]
    assert borrower.answers == []
    server = Server(made)
    assert borrower.granted
    assert borrower.lease.protocol is server.protocol
    assert made.stages() == ["leased"]


@pytest.mark.parametrize(
    ("selected", "completion", "barrier", "answer"),
    [
        (False, UNSELECT, b"g2 NOOP\r\n", b"g2 OK done\r\n"),
        (True, UNSELECT, b"g2 UNSELECT\r\n", b"g2 OK done\r\n"),
        (True, UNSELECT.replace(b" UNSELECT", b""), b'g2 SELECT ""\r\n', b"g2 NO [CANNOT] no such name\r\n"),
    ],
)
def test_a31_lent_again_when_it_is_proved_clean(
    selected: bool, completion: bytes, barrier: bytes, answer: bytes
) -> None:
    """A connection that came back is nobody's before its barrier is answered, whatever else is said till then."""
    made = pooled()
    first, server = lent(made, completion=completion)
    first.lease.give_back(selected=selected)
    assert server.hears == barrier
    second = Borrower(made).asks()
    server.says(b"* 3 EXISTS\r\n")
    assert made.stages() == ["resetting"]
    assert second.answers == []
    server.says(answer)
    assert second.granted
    assert second.lease.protocol is server.protocol
    assert dialled(made) == 1
    assert first.lease.connection is None


@pytest.mark.parametrize(
    ("user", "password"), [(b"bob", b"pw"), (b"Alice", b"pw"), (b"alice", b"other"), (b"alice", b"pw\n")]
)
def test_a31_nobody_else_is_lent_it(user: bytes, password: bytes) -> None:
    """Another user, and the same one with a password that is not the proved one, get a connection of their own."""
    made = pooled()
    server = idle(made)
    other = Borrower(made, user, password).asks()
    assert other.answers == []
    assert dialled(made) == 2
    assert server.hears == b""


def test_a34_not_kept_where_no_login_can_have_it() -> None:
    """Where each login is verified upstream, what comes back is logged out at once, and its goodbye is nobody's."""
    made = bench()
    borrower, server = lent(made)
    borrower.lease.give_back(selected=True)
    assert server.hears == b"g2 LOGOUT\r\n"
    assert not server.wire.open
    assert made.stages() == ["closing"]
    server.says(b"* BYE\r\ng2 OK\r\n")
    server.drops()
    assert made.stages() == []
    assert not made.clock.getDelayedCalls()


def test_destroyed() -> None:
    """What may be nobody's is closed without a word, or cut off, and is never lent again."""
    for abort in (False, True):
        made = pooled()
        borrower, server = lent(made)
        borrower.lease.destroy(abort=abort)
        assert server.hears == b""
        assert not server.wire.open
        assert server.wire.disconnected is abort
        Borrower(made).asks()
        assert dialled(made) == 2


def test_given_back_once() -> None:
    """A lease that has come to its end does nothing any more, whatever is done to it."""
    made = pooled()
    borrower, server = lent(made)
    borrower.lease.give_back(selected=False)
    server.says(b"g2 OK\r\n")
    server.wire.clear()
    borrower.lease.give_back(selected=False)
    borrower.lease.destroy()
    borrower.lease.cancel()
    assert server.hears == b""
    assert made.stages() == ["idle"]


def test_waiters_are_served_in_order() -> None:
    """Who finds every connection in use waits, first come, first served, for a bounded time."""
    made = pooled(Terms(size=1, wait=10))
    first, server = lent(made)
    second, third, fourth = (Borrower(made).asks() for _ in range(3))
    assert dialled(made) == 1
    first.lease.give_back(selected=False)
    server.says(b"g2 OK\r\n")
    assert [each.granted for each in (second, third, fourth)] == [True, False, False]
    made.clock.advance(9)
    made.pools.ticked()
    second.lease.give_back(selected=False)
    server.says(b"g3 OK\r\n")
    assert [each.granted for each in (third, fourth)] == [True, False]
    made.clock.advance(1)
    made.pools.ticked()
    assert fourth.failure is Failure.BUSY
    third.lease.give_back(selected=False)
    server.says(b"g4 OK\r\n")
    assert made.stages() == ["idle"]


def test_relayed_login_is_never_pooled() -> None:
    """A relayed mechanism proves no credential: its connection is pinned, and ends with its session."""
    made = pooled()
    account = account_of(made, RELAYED)
    assert account.pinned
    assert account.digest is None
    borrower = Borrower(made, account=account).asks()
    server = Server(made, b"+ Y2hhbGxlbmdl\r\n")
    assert borrower.challenges == [Challenge(b"Y2hhbGxlbmdl")]
    borrower.lease.respond(Secret(b"YW5zd2Vy"))
    assert server.hears == b"YW5zd2Vy\r\n"
    server.says(b"g1 OK [CAPABILITY IMAP4rev1] in\r\n")
    assert borrower.granted
    borrower.lease.respond(Secret(b"late"))
    borrower.lease.give_back(selected=False)
    assert server.hears == b"g2 LOGOUT\r\n"
    assert made.stages() == ["closing"]


def test_a31_a_relayed_login_is_never_lent_another_ones_connection() -> None:
    """In mode relay a waiter of the same user has proved nothing: it gets a connection by its own login, or none."""
    made = pooled(Terms(size=1))
    accounts = [
        Account(made.upstream, b"alice", login_of(b"alice", password), pinned="relayed login")
        for password in (b"pw", b"other")
    ]
    first, second = (Borrower(made, account=account).asks() for account in accounts)
    server = Server(made)
    first.lease.give_back(selected=False)
    assert server.hears == b"g2 LOGOUT\r\n"
    assert second.answers == []
    server.drops()
    assert made.endpoints[0].opens(GREETING)[1].read() == b"g1 AUTHENTICATE PLAIN %b\r\n" % base64.b64encode(
        b"\0alice\0other"
    )


def test_a_challenge_for_nobody() -> None:
    """A challenge that nobody waits for is dropped."""
    made = pooled()
    borrower = Borrower(made, account=account_of(made, RELAYED))
    borrower.lease._challenged = None
    borrower.lease.challenge(Challenge(b"x"))
    assert borrower.challenges == []


@pytest.mark.parametrize("completion", [b"g1 NO no\r\n", b"g1 NO [UNAVAILABLE] later\r\n"])
def test_a_login_that_fails_leaves_nothing(completion: bytes) -> None:
    """A login that upstream refuses is told to whoever asked, and the room is another's."""
    made = pooled(Terms(size=1))
    borrower = Borrower(made).asks()
    other = Borrower(made).asks()
    server = Server(made, completion)
    assert borrower.failure in (Failure.CREDENTIALS, Failure.TEMPORARY)
    assert not server.wire.open
    assert dialled(made) == 2
    assert Server(made).wire.open
    assert other.granted


def test_unexpected_errors_are_contained(critical_events: list[LogEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a dial is logged, whoever asked gets an answer, and the room is free again."""
    made = pooled(Terms(size=1))

    def broken(*args: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(made.upstream.endpoints, "order", broken)
    borrower = Borrower(made).asks()
    assert borrower.failure is Failure.LOST
    assert made.stages() == []
    assert [event["log_failure"].getErrorMessage() for event in critical_events] == ["a bug"]
    critical_events.clear()
    monkeypatch.undo()
    Borrower(made).asks()
    assert dialled(made) == 1


# --- idle -------------------------------------------------------------------------------------------


def test_checked_before_use() -> None:
    """What was idle for longer than the check's time is asked whether it lives, and lent when it does."""
    made = pooled(Terms(check=30))
    server = idle(made)
    made.clock.advance(30)
    first = Borrower(made).asks()
    assert first.granted
    first.lease.give_back(selected=False)
    server.says(b"g3 OK\r\n")
    server.wire.clear()
    made.clock.advance(31)
    second = Borrower(made).asks()
    assert second.answers == []
    assert server.hears == b"g4 NOOP\r\n"
    assert made.stages() == ["checking"]
    server.says(b"* 9 EXISTS\r\ng4 OK\r\n")
    assert second.granted
    assert dialled(made) == 1


@pytest.mark.parametrize("fate", ["bye", "dropped", "silent"])
def test_f4_a_check_that_fails_costs_nobody_a_login(fate: str) -> None:
    """Whoever waits for a check gets a new connection, before all others, when the old one turns out to be dead."""
    made = pooled()
    server = idle(made)
    made.clock.advance(31)
    borrower = Borrower(made).asks()
    if fate == "bye":
        server.says(b"* BYE restarting\r\n")
    elif fate == "dropped":
        server.drops()
    else:
        made.clock.advance(PROVING_SECONDS - 0.1)
        made.pools.ticked()
        assert dialled(made) == 1
        made.clock.advance(0.1)
        made.pools.ticked()
    assert fate == "dropped" or server.wire.disconnected
    assert dialled(made) == 2
    Server(made)
    assert borrower.granted
    assert made.stages() == ["leased"]


@pytest.mark.parametrize(
    "answer",
    [
        b"g2 NO no\r\n",
        b"g2 BAD what\r\n",
        b"g3 OK another's\r\n",
        b"g1 OK an old one\r\n",
        b"+ go on\r\n",
        b"* BYE restarting\r\n",
        b"g2 OK done\r\n* 1 FETCH (BODY[] {5}\r\nab",
        b"g2 OK done\r\n* 1 EXI",
        b"g2 OK done\r\ng2 OK again\r\n",
        b"\x00\r\n",
    ],
)
def test_a31_a_barrier_that_is_broken(answer: bytes) -> None:
    """Anything but the barrier's own answer is no proof: the connection is cut off, and lent to nobody."""
    made = pooled()
    borrower, server = lent(made)
    borrower.lease.give_back(selected=False)
    other = Borrower(made).asks()
    server.says(answer)
    assert server.wire.disconnected
    assert other.answers == []
    assert dialled(made) == 2
    server.says(b"g2 OK done\r\n")
    server.drops()
    assert made.stages() == ["connecting"]


def test_a_barrier_that_is_not_answered() -> None:
    """A barrier is waited for no longer than its time; then the connection is cut off."""
    made = pooled()
    borrower, server = lent(made)
    borrower.lease.give_back(selected=True)
    made.clock.advance(PROVING_SECONDS - 0.1)
    made.pools.ticked()
    assert made.stages() == ["resetting"]
    made.clock.advance(0.1)
    made.pools.ticked()
    assert server.wire.disconnected
    assert made.stages() == []
    assert not made.pools._proving


def test_what_an_idle_connection_says_reaches_nobody() -> None:
    """Untagged lines on an idle connection are nobody's, not even the next one's who is lent it."""
    made = pooled()
    server = idle(made)
    server.says(b"* 3 EXISTS\r\n* OK [ALERT] hello alice\r\n* CAPABILITY IMAP4rev1 MOVE\r\n")
    assert made.stages() == ["idle"]
    borrower = Borrower(made).asks()
    (answer,) = borrower.answers
    assert not isinstance(answer, Failed)
    assert answer.link.unread == []
    assert answer.link.capabilities == b"IMAP4rev1 MOVE"
    assert server.hears == b""


@pytest.mark.parametrize("said", [b"g2 OK once more\r\n", b"* 1 EX", b"+ what\r\n", b"* BYE\r\n", b"* PREAUTH x\r\n"])
def test_a31_an_idle_connection_that_says_more_than_untagged_lines(said: bytes) -> None:
    """Anything that the next session could take for an answer of its own ends an idle connection."""
    made = pooled()
    server = idle(made)
    server.says(said)
    assert server.wire.disconnected
    assert made.stages() == []


@pytest.mark.parametrize(("terms", "seconds"), [(Terms(idle=300), 300), (Terms(lifetime=200, idle=300), 200)])
def test_idle_or_alive_for_too_long(terms: Terms, seconds: float) -> None:
    """What was idle for too long, or has lived for too long, is logged out."""
    made = pooled(terms)
    server = idle(made)
    made.clock.advance(seconds - 1)
    made.pools.ticked()
    assert made.stages() == ["idle"]
    made.clock.advance(1)
    made.pools.ticked()
    assert server.hears == b"g3 LOGOUT\r\n"
    assert made.stages() == ["closing"]
    made.clock.advance(CLOSE_SECONDS)
    assert server.wire.disconnected
    server.drops()
    assert made.stages() == []


def test_lived_for_too_long_while_it_was_lent() -> None:
    """What has lived for too long when it comes back is not reset, but logged out."""
    made = pooled(Terms(lifetime=200))
    borrower, server = lent(made)
    made.clock.advance(200)
    made.pools.ticked()
    assert made.stages() == ["leased"]
    borrower.lease.give_back(selected=True)
    assert server.hears == b"g2 LOGOUT\r\n"
