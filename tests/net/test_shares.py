"""Shares outside the core: connections wanted, had, lost, kept and given back; who shares with whom; looks in turn."""

from __future__ import annotations

import pytest

from imapgate.limits import Limits
from imapgate.model.commands import COMMANDS
from imapgate.model.pool_mode import IdleMode, SharingTerms
from imapgate.net.shares import COUNTED
from imapgate.pooling.connection import Terms
from imapgate.sharing.effects import Want
from tests.net.lending import account_of, login_of
from tests.net.sharing import Member, Site
from tests.net.wires import drop

POLL = SharingTerms(idle=IdleMode.POLL, idle_poll=60.0, idle_connections=2)
UNAVAILABLE = b"NO [UNAVAILABLE] The mail server cannot be reached; try again later\r\n"
LOST = b"* BYE [UNAVAILABLE] The mail server closed the connection\r\n"

# --- one connection for many ------------------------------------------------------------------------


def test_one_for_all() -> None:
    """Whoever logs in is verified by a connection of its own, which is given back: one serves all of them."""
    made = Site()
    members = [made.selected() for _ in range(5)]
    assert len(made.upstreams) == 5
    made.ticks(10)
    assert made.made.stages() == ["leased"]
    for upstream in made.upstreams[1:]:
        assert upstream.heard.endswith(b" LOGOUT\r\n")
    for member in members:
        assert member.tells(b"f FETCH 1 (UID)") == b"* 1 FETCH (UID 1)\r\nf OK Done\r\n"
        assert member.chair.bound
    (row,) = made.rows()
    assert row._asdict() == {
        "upstream": "mail", "user": b"alice", "mailbox": "INBOX", "read_only": "no", "state": "ready", "sessions": 5,
        "idling": 0, "waiting": 0,
    }  # fmt: skip
    assert (made.counts["opened"], made.counts["joined"]) == (1, 4)
    assert set(made.counts) <= set(COUNTED)


def test_forgotten_when_it_is_empty() -> None:
    """With its last session goes the share, and what it had."""
    made = Site()
    first, second = made.selected(), made.login()
    first.leaves()
    assert len(made.shares._each()) == 1
    second.leaves()
    assert made.shares._each() == []
    assert made.shares._shares == {}
    assert made.alive == []
    assert not made.made.clock.getDelayedCalls()


def test_each_user_and_each_credential_has_its_own() -> None:
    """Sessions share only with those that were let in by the very same credential (THREATS A31)."""
    made = Site()
    first, second, third = made.login(b"one"), made.login(b"two"), made.login(b"one")
    for member in (first, second, third):
        member.tells(b"s SELECT INBOX")
    assert made.counts["opened"] == 3
    assert len({id(member.chair._sharing) for member in (first, second, third)}) == 3
    for _ in range(5):
        made.ticks()
    assert len(made.alive) == 3
    assert len(made.upstreams) == 3  # and none of them makes the others log in anew
    for member in (first, second, third):
        assert member.tells(b"n NOOP") == b"n OK Done\r\n"
        member.leaves()
    assert made.alive == []


def test_a_credential_that_is_proved_once_more() -> None:
    """After a failed login a share's credential is of another generation when it is used again; logins find it."""
    made = Site(cache=60.0, alone=True)
    member = made.selected()
    made.made.pools.forget(("mail", b"alice"))
    made.upstreams[0].drops()
    assert member.tells(b"n NOOP") == b"n OK Done\r\n"
    assert len(made.upstreams) == 2
    assert len(made.shares._shares) == 2
    other = made.login()
    assert other.chair._sharing is member.chair._sharing
    assert len(made.upstreams) == 2
    for each in (member, other):
        each.leaves()
    made.ticks(1000)
    assert made.shares._shares == {}


# --- logins that need no connection -----------------------------------------------------------------


def test_a_login_where_channels_are_there() -> None:
    """A credential that was proved not long ago needs no connection: its SELECT is answered from what lingers."""
    made = Site(cache=60.0, alone=True)
    first = made.selected()
    first.leaves()
    assert made.made.stages() == ["leased"]
    second = made.selected()
    assert (made.counts["seated"], made.counts["opened"], made.counts["joined"]) == (1, 1, 1)
    assert len(made.upstreams) == 1
    assert second.tells(b"f FETCH 1 (UID)") == b"* 1 FETCH (UID 1)\r\nf OK Done\r\n"


def test_a_login_where_they_are_not() -> None:
    """Without a proof, without a channel that is free, and while the upstream is paused, a login has its connection."""
    made = Site(cache=60.0, alone=True)
    first = made.selected()
    made.login(b"other").leaves()
    assert len(made.upstreams) == 2
    made.login()  # the other password was proved meanwhile
    assert len(made.upstreams) == 3
    assert made.counts["seated"] == 0
    first.leaves()

    made = Site(cache=60.0, alone=True)
    first = made.selected()
    first.tells(b"e ENABLE CONDSTORE")
    assert [row.state for row in made.rows()] == ["pinned"]
    second = made.login()
    assert len(made.upstreams) == 2
    made.made.pools.pause("mail")
    third = Member(made, b"pw")
    assert b"\r\nl " not in third.hears()
    made.made.pools.resume("mail")
    made.settle()
    assert b"l OK" in third.hears()
    assert made.counts["seated"] == 0
    for each in (first, second, third):
        each.leaves()


def test_a_login_that_is_not_proved() -> None:
    """Whatever share is there, a credential that was never proved is granted nothing."""
    made = Site(cache=60.0, alone=True)
    member = made.selected()
    account = account_of(made.made, login_of())
    assert made.shares.seats(account) is not None
    account.generation = None
    made.shares.proved(member.chair._sharing, account.key)
    assert made.shares.seats(account) is None


def test_kept_for_a_while() -> None:
    """What lingers for the next login goes when none has come."""
    made = Site(cache=60.0, alone=True, terms=Terms(idle=30))
    made.selected().leaves()
    made.ticks(29)
    assert len(made.shares._each()) == 1
    made.ticks(2)
    assert made.shares._each() == []
    made.ticks(31)  # in the pool, for as long
    assert made.alive == []
    assert made.shares._each() == []


def test_stopping_keeps_nothing() -> None:
    """When the gate stops, what lingers is given back."""
    made = Site(cache=60.0, alone=True)
    made.selected().leaves()
    made.selected().leaves()
    assert len(made.alive) == 1
    made.shares.close()
    made.made.pools.retire(lambda key: True)
    made.settle()
    assert made.alive == []
    assert made.upstreams[0].heard.endswith(b" UNSELECT\r\n") or made.upstreams[0].heard.endswith(b" LOGOUT\r\n")
    assert made.shares._each() == []


# --- wanted, and not had ----------------------------------------------------------------------------


def test_a_connection_that_cannot_be_had() -> None:
    """A command that needs one more is refused, and the session, and the others, go on."""
    made = Site()
    member = made.selected()
    made.silent = True
    member.gives(b"a APPEND INBOX {5}")
    assert [row.state for row in made.rows()] == ["ready", "connecting"]
    made.made.endpoints[0].refuses()
    assert member.wire.read() == b"a " + UNAVAILABLE
    assert member.tells(b"n NOOP") == b"n OK Done\r\n"
    assert [row.state for row in made.rows()] == ["ready"]


def test_who_wanted_it_has_gone() -> None:
    """What was being opened for a session that has gone serves the others, or is given back."""
    made = Site()
    first, second = made.selected(), made.selected()
    made.ticks(11)  # nothing is left beside what all look at
    made.silent = True
    second.gives(b"s SELECT other")
    assert [row.state for row in made.rows()] == ["ready", "connecting"]
    second.leaves()
    made.dials()
    made.settle()
    made.ticks(11)
    assert [row.state for row in made.rows()] == ["ready"]
    assert first.tells(b"n NOOP") == b"n OK Done\r\n"


def test_everybody_has_gone() -> None:
    """What comes when nobody is left is given back."""
    made = Site()
    member = made.selected()
    made.silent = True
    member.gives(b"a APPEND INBOX {5}")
    member.leaves()
    assert [row.state for row in made.rows()] == ["connecting"]
    made.dials()
    made.settle()
    assert made.rows() == []
    assert made.alive == []


def test_wanted_for_nobody() -> None:
    """A wish whose session has gone before it could be uttered is uttered by another one's login, or by nobody's."""
    made = Site()
    first, second = made.selected(), made.login()
    sharing, seat = first.chair._sharing, second.chair.seat
    second.leaves()
    made.silent = True
    channel = sharing.share._channels.new()
    sharing.perform([Want(channel, seat)])
    assert len(made.made.endpoints[0].calls) == 3
    first.leaves()
    channel = sharing.share._channels.new()
    sharing.perform([Want(channel, seat)])
    assert channel.closed
    assert len(made.made.endpoints[0].calls) == 3


# --- lost, too old, outdated ------------------------------------------------------------------------


def test_lost() -> None:
    """The session whose command was in flight is told; the others are attached again, and notice nothing."""
    made = Site()
    first, second, third = (made.selected() for _ in range(3))
    assert third.tells(b"i IDLE") == b"+ idling\r\n"
    (upstream,) = [each for each in made.alive if b"IDLE" in each.heard]
    upstream.held = True
    first.gives(b"f FETCH 1 (UID)")
    upstream.held = False
    upstream.pump()  # it has said that it idles no more
    upstream.held = True
    second.gives(b"g FETCH 2 (UID)")
    upstream.drops()
    assert first.wire.read() == LOST
    assert second.hears() == b"* 2 FETCH (UID 2)\r\ng OK Done\r\n"
    made.inbox.append()
    for each in made.alive:
        each.tells()
    assert third.hears() == b"* 4 EXISTS\r\n* 1 RECENT\r\n"
    assert first.reason() == "upstream lost"
    assert made.counts["reattached"] == 2


def test_too_old() -> None:
    """A connection beyond its lifetime is left, session by session, and nobody notices."""
    made = Site(terms=Terms(lifetime=100))
    busy, idler = made.selected(), made.selected()
    idler.tells(b"i IDLE")
    first = made.upstreams[0]
    made.ticks(90)
    assert first.wire.connected
    made.ticks(11)
    assert not first.wire.connected
    made.inbox.append()
    for each in made.alive:
        each.tells()
    assert idler.hears().startswith(b"* 4 EXISTS\r\n")
    assert busy.tells(b"n NOOP") == b"* 4 EXISTS\r\n* 3 RECENT\r\nn OK Done\r\n"
    assert len(made.alive) == 1


def test_outdated() -> None:
    """A connection of a credential, or a configuration, of before goes when nobody looks at anything there any more."""
    made = Site(cache=60.0, alone=True)
    member = made.selected()
    made.made.pools.retire(lambda key: True)
    made.ticks()
    assert len(made.alive) == 1
    assert member.tells(b"n NOOP") == b"n OK Done\r\n"
    member.leaves()
    assert len(made.alive) == 1
    made.ticks()
    assert made.alive == []
    assert made.shares._each() == []


def why(member: Member) -> str:
    """Why it has a connection of its own."""
    return member.protocol.pinned


def test_a_pinned_one_is_its_sessions() -> None:
    """Too old or outdated, the connection that a session has for itself stays until the session goes; it is counted."""
    made = Site(terms=Terms(lifetime=100))
    member = made.selected()
    assert why(member) == ""
    assert member.tells(b"e ENABLE CONDSTORE").endswith(b"e OK Done\r\n")
    assert why(member) == "ENABLE"
    assert member.chair.bound
    assert made.shares.pins == {"ENABLE": 1}
    assert made.counts["pinned"] == 1
    made.made.pools.retire(lambda key: True)
    made.ticks(200)
    assert member.tells(b"n NOOP") == b"n OK Done\r\n"
    (row,) = [row for row in made.rows() if row.state == "pinned"]
    assert (row.mailbox, row.sessions) == ("INBOX", 0)
    member.leaves()
    assert made.alive == []
    assert why(member) == ""


# --- looking in turn --------------------------------------------------------------------------------


def idlers(made: Site, number: int) -> list[Member]:
    """Clients that idle, each of a share of its own: by another password each."""
    members = [made.login(b"%d" % each) for each in range(number)]
    for member in members:
        member.tells(b"s SELECT INBOX")
        assert member.tells(b"i IDLE") == b"+ idling\r\n"
    made.ticks(2)  # what nobody looks at is not kept
    assert made.alive == []
    return members


def test_looked_at_in_turn() -> None:
    """Nobody holds a connection; so many at once look, and after a while again."""
    made = Site(POLL)
    members = idlers(made, 5)
    made.silent = True
    made.inbox.append()
    made.ticks(10)
    assert made.counts["polled"] == 0  # the first look is somewhere within the time, not at once
    made.ticks(25)
    for looked, connecting in ((2, 2), (3, 2), (4, 2), (5, 2), (5, 1)):
        assert made.counts["polled"] == looked
        assert made.made.stages() == ["connecting"] * connecting
        made.dials()
        made.settle()
        assert made.alive == []
        made.ticks()
    told = [member.hears() for member in members]
    assert [each.split(b"\r\n")[0] for each in told] == [b"* 4 EXISTS"] * 5
    made.silent = False
    made.ticks(30)
    assert made.counts["polled"] == 5
    for _ in range(40):
        made.ticks()
        assert made.alive == []
    assert made.counts["polled"] == 10


def test_spread() -> None:
    """Those that come together are not looked at together."""
    made = Site(POLL._replace(idle_connections=20))
    members = idlers(made, 3)
    for sharing in made.shares._each():
        sharing.next_poll = None
    numbers = iter([0.1, 0.5, 0.9] + [0.5] * 3)
    made.shares.jitter = lambda: next(numbers)
    polled = []
    for _ in range(60):
        made.ticks()
        polled.append(made.counts["polled"])
    assert [polled.index(number) for number in (1, 2, 3)] == [6, 30, 54]
    for member in members:
        assert member.tells(b"DONE").endswith(b"i OK Idle completed\r\n")
    made.ticks(100)
    assert made.counts["polled"] == 3  # nobody idles


@pytest.mark.parametrize("when", ["connecting", "looking"])
def test_gone_while_it_is_looked_for_it(when: str) -> None:
    """A look whose session has gone ends, and another may begin."""
    made = Site(POLL._replace(idle_connections=1))
    first, second = idlers(made, 2)
    made.silent = True
    made.ticks(40)
    assert made.counts["polled"] == 1
    if when == "looking":
        made.dials()
    looking = next(each for each in (first, second) if each.chair._sharing.polling)
    other = second if looking is first else first
    looking.leaves()
    made.silent = False
    made.settle()
    made.ticks()
    assert made.counts["polled"] == 2
    made.inbox.append()
    made.ticks(70)
    assert b"* 4 EXISTS\r\n" in other.hears()


# --- limits -----------------------------------------------------------------------------------------


def test_other_limits_for_whoever_comes() -> None:
    """After a reload new shares have the new limits, those that are there their own."""
    made = Site()
    member = made.selected()
    limits = Limits(share_spool=1)
    made.shares.configure(limits, COMMANDS)
    assert member.chair._sharing.limits is not limits
    member.leaves()
    assert made.selected().chair._sharing.limits is limits


def test_a_connection_that_ends_with_nobody_there() -> None:
    """A lingering connection that the server closes is forgotten, with its share."""
    made = Site(cache=60.0, alone=True)
    made.selected().leaves()
    (upstream,) = made.alive
    drop(upstream.protocol, upstream.wire)
    assert made.shares._each() == []
    assert made.made.stages() == []


def test_a_server_that_is_at_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody joins a channel whose server cannot say what has become of the mailbox: it is opened anew elsewhere."""
    made = Site()
    first = made.selected()
    server = made.upstreams[0].server
    received = server.received

    def at_a_loss(data: bytes) -> bytes:
        return (b"* NO Internal error\r\n" if b" NOOP\r\n" in data else b"") + received(data)

    monkeypatch.setattr(server, "received", at_a_loss)
    second = made.selected()
    assert (made.counts["opened"], made.counts["joined"]) == (2, 0)
    assert first.chair.seat.channel is None
    assert first.tells(b"n NOOP") == second.tells(b"n NOOP") == b"n OK Done\r\n"
    assert first.chair.seat.channel is second.chair.seat.channel
