"""A session that takes nothing where mailboxes are shared: who waits for it, how long, what it is told then (A42)."""

from __future__ import annotations

import pytest

from imapgate.limits import DEFAULTS, Limits
from imapgate.net import chair as module
from imapgate.net.chair import Line, Slow
from imapgate.net.dial import Client
from imapgate.net.pools import Lease
from tests.net.sharing import CHUNK, Member, Site
from tests.net.wires import Wire, logged

BIG = b"Subject: big\r\n\r\n" + b"0123456789" * 50_000
FETCHED = b"* 4 FETCH (BODY[] {%d}\r\n%b)\r\n" % (len(BIG), BIG)
STALL = 2.0


def site(limits: Limits = DEFAULTS) -> Site:
    """A mailbox with a message that is read in many pieces."""
    made = Site(limits=limits)
    made.inbox.append(BIG)
    return made


def slow(made: Site) -> Member:
    """Somebody who asks for that message, and takes nothing."""
    member = made.selected()
    member.wire.fills()
    assert member.tells(b"f FETCH 4 BODY.PEEK[]") == b""
    return member


def drained(member: Member) -> bytes:
    """What it is told when it takes everything again."""
    member.wire.drains()
    member.clock.advance(0)
    said = member.hears()
    while member.clock.getDelayedCalls() and member.chair._draining is not None:
        member.clock.advance(0)
        said += member.hears()
    return said


# --- nobody else ------------------------------------------------------------------------------------


def test_held_for_a_slow_reader() -> None:
    """Where nobody else waits, the server is not read from for as long as its reader takes nothing."""
    made = site()
    reader = slow(made)
    (upstream,) = made.upstreams
    assert upstream.wire.paused
    assert len(reader.chair._spool) == CHUNK
    for _ in range(5):
        made.ticks(STALL)
        assert upstream.wire.paused
    assert len(reader.chair._spool) == CHUNK
    assert drained(reader) == FETCHED + b"f OK Done\r\n"
    assert not upstream.wire.paused
    assert reader.tells(b"n NOOP") == b"n OK Done\r\n"
    assert made.counts["stalled"] == made.counts["overflowed"] == 0


def test_it_is_not_the_server_that_is_silent() -> None:
    """A server that is not read from for minutes is not taken for dead."""
    made = site(Limits(client_stall=10_000.0))
    reader = slow(made)
    reader.protocol._timers.cancel_all()  # the session's own patience is another matter
    for _ in range(10):
        made.ticks(made.made.gate.limits.upstream_first_byte_slow / 4)
    assert drained(reader) == FETCHED + b"f OK Done\r\n"
    upstream = made.upstreams[0]
    upstream.held = True
    reader.tells(b"n NOOP")
    for _ in range(5):
        made.ticks(made.made.gate.limits.upstream_first_byte_slow / 4)
    assert not upstream.wire.connected or not upstream.wire.open


def test_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is full again before it has everything is given the rest later, and nothing twice."""
    made = site()
    reader = slow(made)
    told = b""
    for _ in range(100):
        reader.wire.drains()
        with monkeypatch.context() as patch:
            patch.setattr(reader.protocol, "transport", _Full(reader.wire))
            reader.clock.advance(0)
            made.settle()
        told += reader.wire.read()
        if told.endswith(b"f OK Done\r\n"):
            break
    assert told == FETCHED + b"f OK Done\r\n"


class _Full:
    """A transport that has too much to send after each piece."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def write(self, data: bytes) -> None:
        """Send, and be full."""
        self._wire.write(data)  # type: ignore[no-untyped-call]
        self._wire.fills()


def test_told_later_than_it_takes_again() -> None:
    """What waits is not handed over within the call that says so, but soon; what comes meanwhile stands behind it."""
    made = site()
    reader = slow(made)
    reader.wire.drains()
    assert reader.wire.read() == b""
    reader.wire.fills()
    reader.wire.drains()
    made.upstreams[0].protocol.dataReceived(b"")
    reader.wire.fills()
    reader.clock.advance(0)  # it takes nothing again, before it was given anything
    assert reader.wire.read() == b""
    assert drained(reader) == FETCHED + b"f OK Done\r\n"


# --- others wait ------------------------------------------------------------------------------------


def test_others_wait_no_longer_than_that() -> None:
    """When others have waited for long enough, they go on; the slow reader has everything in order later."""
    made = site()
    reader, other = slow(made), made.login()
    other.gives(b"s SELECT INBOX", b"n NOOP")
    made.settle()
    assert other.wire.read() == b""
    made.ticks(STALL / 2)
    assert other.wire.read() == b""
    made.ticks(STALL / 2)
    assert other.hears().endswith(b"n OK Done\r\n")
    assert made.counts["stalled"] == 1
    assert len(reader.chair._spool) > len(FETCHED)
    reader.gives(b"g FETCH 4 BODY.PEEK[]")  # and is not waited for once more before it has taken what there is
    assert not made.upstreams[0].wire.paused
    assert drained(reader) == FETCHED + b"f OK Done\r\n" + FETCHED + b"g OK Done\r\n"
    reader.wire.fills()
    reader.tells(b"h FETCH 4 BODY.PEEK[]")
    assert made.upstreams[0].wire.paused
    assert made.counts["stalled"] == 1
    assert made.counts["overflowed"] == 0


def test_who_idles_waits_too() -> None:
    """A session that idles there is not to be without news for longer than that."""
    made = site()
    idler = made.selected()
    assert idler.tells(b"i IDLE") == b"+ idling\r\n"
    slow(made)
    made.inbox.append()
    made.upstreams[0].tells()
    assert idler.hears() == b""
    made.ticks(STALL)
    for upstream in made.alive:
        upstream.tells()
    assert idler.hears() == b"* 5 EXISTS\r\n* 5 RECENT\r\n"
    assert made.counts["stalled"] == 1


def test_beyond_the_bound() -> None:
    """Who does not take what was spooled is ended, alone, and that is counted, and logged."""
    made = site(Limits(share_spool_memory=100_000, share_spool=300_000))
    reader, other = slow(made), made.login()
    other.gives(b"s SELECT INBOX", b"n NOOP")
    made.settle()
    with logged(module) as lines:
        made.ticks(STALL)
    assert lines == ["warn: a session takes nothing, and is ended: session=0123456789ab"]
    assert made.counts["overflowed"] == 1
    assert reader.wire.disconnected
    assert reader.wire.read() == b""
    assert reader.reason() == "client stalled"
    assert other.hears().endswith(b"n OK Done\r\n")
    assert other.tells(b"f FETCH 4 BODY.PEEK[]").startswith(FETCHED[:-3])
    other.leaves()
    assert made.rows() == []
    assert not made.made.clock.getDelayedCalls()


def test_gone_while_it_is_waited_for() -> None:
    """With a session goes its hold on the server, and what was kept for it."""
    made = site()
    reader, other = slow(made), made.login()
    other.gives(b"s SELECT INBOX")
    made.settle()
    assert made.upstreams[0].wire.paused
    reader.leaves()
    assert other.hears().endswith(b"s OK [READ-WRITE] Done\r\n")
    other.leaves()
    assert not made.made.clock.getDelayedCalls()


def test_gone_while_it_is_given_what_was_kept() -> None:
    """A session that ends between two pieces is given no other."""
    made = site()
    reader = slow(made)
    reader.wire.drains()
    reader.protocol.stop(b"[UNAVAILABLE] Over")
    reader.clock.advance(0)
    assert reader.wire.read() == b"* BYE [UNAVAILABLE] Over\r\n"
    reader.leaves()
    assert not made.made.clock.getDelayedCalls()


def test_a_server_that_is_lost_while_it_is_held() -> None:
    """Whose answer was under way is told; the other goes on elsewhere, and nothing is left of the old connection."""
    made = site()
    reader, other = slow(made), made.login()
    other.gives(b"s SELECT INBOX")
    made.settle()
    made.upstreams[0].drops()
    assert reader.wire.read() == b"* BYE [UNAVAILABLE] The mail server closed the connection\r\n"
    assert other.hears().endswith(b"s OK [READ-WRITE] Done\r\n")
    reader.leaves()
    other.leaves()
    assert not made.made.clock.getDelayedCalls()


def test_what_comes_whole_holds_nobody() -> None:
    """An answer that came to its end is kept, and the server is read from: others may be answered."""
    made = Site()
    reader, other = made.selected(), made.selected()
    reader.wire.fills()
    assert reader.tells(b"f FETCH 1 BODY.PEEK[]") == b""
    assert not made.upstreams[0].wire.paused
    assert other.tells(b"n NOOP") == b"n OK Done\r\n"
    assert drained(reader).endswith(b"f OK Done\r\n")


def test_what_is_no_answer_holds_nobody() -> None:
    """News for a session that idles and takes nothing are kept, and the server is read from."""
    made = site()
    idler = made.selected()
    idler.tells(b"i IDLE")
    idler.wire.fills()
    made.inbox.append()
    made.upstreams[0].tells()
    assert idler.hears() == b""
    assert not made.upstreams[0].wire.paused
    assert len(idler.chair._spool) > 0
    idler.wire.drains()
    made.inbox.append()
    made.upstreams[0].tells()
    assert idler.hears() == b""  # what comes now stands behind what waits
    idler.clock.advance(0)
    assert idler.hears() == b"* 5 EXISTS\r\n* 5 RECENT\r\n* 6 EXISTS\r\n* 6 RECENT\r\n"


# --- the other way ----------------------------------------------------------------------------------


def test_a_long_message_to_a_slow_server() -> None:
    """A client that stores a message waits while its connection has too much to send; nobody else does."""
    made = Site()
    sender, other = made.selected(), made.selected()
    sender.gives(b"a APPEND INBOX {100000}")
    assert sender.hears().startswith(b"+ ")
    (line,) = [upstream for upstream in made.alive if b"APPEND" in upstream.heard]
    line.wire.fills()
    assert sender.wire.paused
    assert not other.wire.paused
    sender.protocol.dataReceived(b"x" * 100_000)  # what was read before it was held
    assert other.tells(b"n NOOP") == b"n OK Done\r\n"
    line.wire.drains()
    assert not sender.wire.paused
    sender.gives(b"")
    assert b"a OK [APPENDUID " in sender.hears()
    line.wire.fills()  # it is nobody's now
    assert not sender.wire.paused
    line.wire.drains()


def test_a_server_that_takes_nothing_of_a_message() -> None:
    """It is given up after a while, and the session is told."""
    made = Site()
    sender = made.selected()
    sender.tells(b"a APPEND INBOX {100000}")
    (line,) = [upstream for upstream in made.alive if b"APPEND" in upstream.heard]
    line.wire.fills()
    made.made.clock.advance(made.made.gate.limits.client_stall)
    assert not sender.wire.open
    assert not line.wire.open


def test_a_sender_that_leaves() -> None:
    """Nobody is held by the connection of a session that has gone."""
    made = Site()
    sender = made.selected()
    sender.tells(b"a APPEND INBOX {100000}")
    (line,) = [upstream for upstream in made.alive if b"APPEND" in upstream.heard]
    producer = line.wire.producer
    sender.lost()
    assert isinstance(producer, Line)
    producer.pauseProducing()
    producer.resumeProducing()
    producer.stopProducing()
    assert not line.wire.open


# --- lines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_a_line_that_never_came(clean: bool) -> None:
    """A wish that is not needed any more is taken back."""
    made = Site()
    member = made.selected()
    chair = member.chair
    lease = Lease(made.made.pools, chair.account, Client(None, None, ""))
    told: list[object] = []
    lease.outcome.addErrback(told.append)
    line = Line(chair._sharing, member.chair.seat.channel, lease)  # type: ignore[arg-type]
    made.made.pools.ask(lease)
    line.hold()
    line.free()
    line.upstream_secured()
    assert not line.held
    line.close(clean=clean, selected=False)
    assert len(told) == 1
    assert made.made.endpoints[0].cancelled == 1


def test_a_line_that_is_closed_is_read_from() -> None:
    """A connection that is closed while its reader is slow is read from, so that its end is noticed."""
    made = site()
    line = slow(made).chair._line
    assert line is not None
    line.close(clean=False, selected=False)
    assert made.upstreams[0].protocol.valve.reasons == ()  # type: ignore[attr-defined]
    assert not made.upstreams[0].wire.open


def test_a_line_is_let_go_with_nothing_held() -> None:
    """What comes back to the pool is read from."""
    made = site()
    reader = slow(made)
    valve = made.upstreams[0].protocol.valve  # type: ignore[attr-defined]
    assert valve.reasons == (Slow.READER,)
    reader.lost()
    assert valve.reasons == ()
