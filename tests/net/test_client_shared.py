"""The client's connection where mailboxes are shared: a chair in the upstream's place, for all that the shell does."""

from __future__ import annotations

import pytest

from imapgate.model.pool_mode import PoolMode
from imapgate.model.verdict import Interests, Reject
from imapgate.net import attempt
from imapgate.net.journal import Tap
from tests.net.sessions import Session
from tests.net.sharing import Member, Site
from tests.net.watching import EVENTS, Disk, Oracle, watched
from tests.net.wires import logged

RESPONSES = Interests(responses=frozenset(["EXISTS"]), completions=frozenset(["SELECT"]))


def watching(made: Site, *plugins: Oracle, disk: Disk | None = None) -> Site:
    """The same, with plugins and a trail."""
    made.made = watched(made.made, *plugins, disk=disk)
    return made


# --- from login to logout ---------------------------------------------------------------------------


def test_a_chair_is_its_upstream() -> None:
    """A session holds its chair until it logs out, whatever it does in between, and its mailbox when it has one."""
    made = Site()
    member = made.login()
    chair = member.chair
    assert not chair.bound
    assert member.tells(b"n NOOP") == b"n OK Nothing done\r\n"
    assert member.tells(b'b LIST "" *').endswith(b"b OK Done\r\n")
    assert member.chair is chair
    member.tells(b"s SELECT INBOX")
    assert chair.bound
    assert member.tells(b"c CLOSE") == b"c OK Close completed\r\n"
    assert not chair.bound
    assert member.tells(b"z LOGOUT").startswith(b"* BYE Logging out\r\nz OK")
    assert member.protocol.lease is None
    assert not member.wire.open
    member.leaves()
    assert made.shares._each() == []
    assert made.made.pools.book.rows() == []


@pytest.mark.parametrize("how", ["stop", "leave", "closes", "aborted"])
def test_ended_in_the_middle(how: str) -> None:
    """Whoever ends a session in a command: it goes alone, and what was under way for it reaches nobody."""
    made = Site()
    member, other = made.selected(), made.selected()
    made.upstreams[0].held = True
    member.gives(b"f FETCH 1 BODY.PEEK[]")
    other.gives(b"f FETCH 2 (UID)")
    if how == "stop":
        member.protocol.stop(b"[UNAVAILABLE] Over")
    elif how == "leave":
        member.protocol.leave(b"[UNAVAILABLE] Over")
    elif how == "aborted":
        member.protocol.abort()
        member.wire.connected = False
    made.upstreams[0].held = False
    if how == "leave":
        told = member.hears()
        assert told.index(b"f OK Done\r\n") < told.index(b"* BYE [UNAVAILABLE] Over\r\n")
    else:
        assert member.wire.read() == (b"* BYE [UNAVAILABLE] Over\r\n" if how == "stop" else b"")
    member.leaves()
    assert member.wire.read() == b""
    assert other.hears() == b"* 2 FETCH (UID 2)\r\nf OK Done\r\n"
    assert made.made.gate.pools.book.rows()[0].sessions == 1


def test_traced() -> None:
    """An operator who listens hears both sides of a shared session, and of no other."""
    made = Site()
    rows: list[dict[str, str | int | float | None]] = []
    made.made.gate.journal.taps.append(Tap(b"alice", rows.append))
    member = made.login()
    member.tells(b'b LIST "" INBOX')
    assert [str(row["line"]).split(" ", 1)[1] for row in rows if row["side"] == "client"] == ['LIST "" INBOX']
    assert 'LIST () "/" INBOX' in [str(row["line"]).split(" ", 1)[1] for row in rows if row["side"] == "upstream"]


# --- why it is pinned -------------------------------------------------------------------------------


def test_why_it_is_pinned() -> None:
    """In mode shared the chair says so, in the others the session; where there is neither, nothing does."""
    made = Site()
    assert Session(made=made.made).protocol.pinned == ""
    member = made.selected()
    assert member.tells(b"x SEARCH RETURN (SAVE) ALL").endswith(b"\r\n")
    assert member.protocol.pinned == member.chair.pinned == "SEARCHRES"
    member.leaves()
    assert member.protocol.pinned == ""
    session = Session().logged_in()
    session.says(b"b SELECT x\r\n")
    session.upstream.dataReceived(b"g2 BAD no\r\n")
    assert session.protocol.pinned == session.protocol.session.pinned == "BAD to SELECT"


def test_what_pins_elsewhere_need_not_pin_here() -> None:
    """What the session thinks of a connection of its own says nothing of a chair."""
    made = Site()
    member = made.login()
    member.tells(b"s SELECT nothing-there")
    assert member.protocol.account is not None
    assert member.protocol.account.mode is PoolMode.SHARED
    assert member.protocol.pinned == ""


# --- watched ----------------------------------------------------------------------------------------


def test_what_was_said_during_the_login() -> None:
    """What the server says while the plugins think is the channel's to read; if it was given back, it is nobody's."""
    for others in (0, 1):
        oracle = Oracle(EVENTS, "authenticated")
        made = watching(Site(), oracle)
        for _ in range(others):
            first = Member(made, b"pw")
            made.settle()
            oracle.says()
            assert b"l OK " in first.hears()
        member = Member(made, b"pw")
        member.hears()
        made.upstreams[-1].protocol.dataReceived(b"* OK Hello\r\n")
        with logged(attempt) as lines:
            oracle.says()
        assert b"l OK " in member.hears()
        assert lines == []
        assert member.tells(b"s SELECT INBOX").endswith(b"s OK [READ-WRITE] Done\r\n")
        assert len(made.alive) == 1


def test_a_login_without_a_connection_is_asked_about() -> None:
    """Plugins have their say in a login that needs no connection, too; refused, it leaves nothing behind."""
    oracle = Oracle(EVENTS)
    made = watching(Site(cache=60.0, alone=True), oracle)
    first = made.selected()
    oracle.verdicts["authenticated"] = Reject()
    refused = Member(made, b"pw")
    assert b"l NO " in refused.hears()
    refused.leaves()
    oracle.waits.add("authenticated")
    given_up = Member(made, b"pw")
    given_up.hears()
    given_up.leaves()
    del oracle.verdicts["authenticated"]
    oracle.waits.clear()
    second = made.login()
    assert made.counts["seated"] == 3
    assert len(made.upstreams) == 1
    for each in (first, second):
        each.leaves()
    assert [row.sessions for row in made.made.pools.book.rows()] == [0]


def test_gone_while_a_login_is_asked_about() -> None:
    """A login that needed no connection when it was asked about has one later, if there is none by then."""
    oracle = Oracle(EVENTS)
    made = watching(Site(cache=60.0, alone=True), oracle)
    made.selected().leaves()
    oracle.waits.add("authenticated")
    member = Member(made, b"pw")
    member.hears()
    made.upstreams[0].drops()
    assert made.shares._each() == []
    oracle.says()
    assert b"l OK " in member.hears()
    assert member.tells(b"s SELECT INBOX").endswith(b"s OK [READ-WRITE] Done\r\n")
    assert len(made.upstreams) == 2


def test_judged_one_by_one() -> None:
    """While plugins think about a response, what comes behind it waits, and the server is not read from."""
    oracle = Oracle(RESPONSES)
    made = watching(Site(), oracle)
    member = made.selected()
    oracle.waits.add("untagged EXISTS")
    made.inbox.append(b"x" * 200_000)
    assert member.tells(b"n NOOP", b"f FETCH 4 BODY.PEEK[]") == b""
    assert len(oracle.waiting) == 1
    oracle.says()
    member.clock.advance(0)
    told = member.hears()
    while member.chair._draining is not None:
        member.clock.advance(0)
        told += member.hears()
    assert told.startswith(b"* 4 EXISTS\r\n")
    assert told.index(b"n OK ") < told.index(b"* 4 FETCH (BODY[] {200000}")
    assert told.endswith(b")\r\nf OK Done\r\n")


def test_told_when_it_is_on_disk() -> None:
    """Where the trail is durable, nothing that was done for a shared session is told before it is recorded."""
    disk = Disk()
    made = watching(Site(), disk=disk)
    member = Member(made, b"pw")
    disk.writes()
    made.settle()
    disk.writes()
    assert b"l OK " in member.hears()
    member.tells(b"s SELECT INBOX")
    disk.writes()
    member.clock.advance(0)
    disk.writes()
    assert b"s OK " in member.hears()
    assert member.tells(b"f STORE 1 +FLAGS (\\Flagged)") == b""
    assert "message.flag ok" in disk.events
    disk.writes()
    member.clock.advance(0)
    assert member.hears() == b"* 1 FETCH (FLAGS (\\Flagged \\Recent))\r\nf OK Done\r\n"


def test_a_route_may_say_so() -> None:
    """A session is shared as its own route says, whatever its upstream's usual mode is."""
    made = Site()
    made.made.upstream.mode = PoolMode.SESSION
    session = Member(made, b"pw")
    assert b"l OK " in session.hears()
    assert not made.shares._each()
    assert session.protocol.lease is not None
    assert session.protocol.lease.bound
