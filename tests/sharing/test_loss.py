"""Connections that are lost: whose command was in flight is told so, and nobody else notices (SHARED, rule 23)."""

from __future__ import annotations

from tests.sharing.bench import begins, both, looked, opened, opens, selected
from tests.sharing.conftest import Play


def test_one_of_many(play: Play) -> None:
    """One session ends, with what the server said last; others go on elsewhere, the idle ones at once (F3, F8)."""
    bench = play()
    bench(rf"""
        {both()}
        C: sits
        3: clean
        C> s1 SELECT INBOX
        {looked()}
        {selected(3, "C")}
        C< s1 OK [READ-WRITE] Done
        B> b1 IDLE
        B< + idling
        1> ~ IDLE
        1< + idling
        A> a1 FETCH 1 BODY[]
        1> DONE
        1< ~ OK Done
        1> ~ FETCH 1 BODY[]
        C> c1 NOOP
        1< * BYE Fatal error: assertion failed
        A< * BYE Fatal error: assertion failed
        A: ends lost
        1: broken
        2> ~ SELECT INBOX
        {selected(3, "2")}
        2< ~ OK [READ-WRITE] Done
        2> ~ FETCH 1:3 (UID FLAGS)
        2< * 1 FETCH (UID 11 FLAGS (\Seen))
        2< * 2 FETCH (UID 12 FLAGS (\Seen))
        2< * 3 FETCH (UID 13 FLAGS ())
        2< ~ OK Done
        {looked("2")}
        2> ~ NOOP
        2< ~ OK Done
        C< * 3 FETCH (FLAGS ())
        C< c1 OK Done
        2> ~ IDLE
        B< * 3 FETCH (FLAGS ())
        """)
    assert bench.counts == {"opened": 1, "joined": 2, "parked": 2, "reattached": 2}


def test_while_nothing_is_asked(play: Play) -> None:
    """Nobody is told of a loss while nothing was asked, whatever the server says of it."""
    play()(f"""
        {both()}
        1< * BYE Going down
        1: broken
        A> a1 NOOP
        {opened(3, "2")}
        2> ~ NOOP
        2< ~ OK Done
        A< a1 OK Done
        """)


def test_while_it_is_opened(play: Play) -> None:
    """Who has asked for it is told; who waited with it asks anew."""
    play()(f"""
        A: sits
        B: sits
        2: clean
        A> a1 SELECT INBOX
        1> ~ SELECT INBOX
        B> b1 SELECT INBOX
        1: lost
        A: ends lost
        3: wanted
        3: opens
        {opened(1, "3")}
        {selected(1, "B")}
        B< b1 OK [READ-WRITE] Done
        """)


def test_while_it_is_filled(play: Play) -> None:
    """What the gate asks behind a SELECT is nobody's fault: all ask anew, once; who has left asks for nothing."""
    play()(f"""
        A: sits
        B: sits
        2: clean
        A> a1 SELECT INBOX
        1> ~ SELECT INBOX
        B> b1 SELECT INBOX
        {selected(1, "1")}
        1< ~ OK [READ-WRITE] Done
        1> ~ FETCH 1:1 (UID FLAGS)
        B: leaves
        1: lost
        3: wanted
        3: opens
        3> ~ SELECT INBOX
        {selected(1, "3")}
        3< ~ OK [READ-WRITE] Done
        3> ~ FETCH 1:1 (UID FLAGS)
        3: lost
        A: ends lost
        """)


def test_while_it_is_looked_at(play: Play) -> None:
    """A look at a mailbox before a session joins can be repeated: nobody is ended."""
    play()(f"""
        {begins()}
        B: sits
        B> b1 SELECT INBOX
        1> ~ NOOP
        1< * BYE Going down
        1: broken
        2> ~ SELECT INBOX
        2< ~ NO Not now
        B< b1 NO Not now
        A> a1 NOOP
        {opened(3, "2")}
        2> ~ NOOP
        """)


def test_while_it_is_checked(play: Play) -> None:
    """The same while STATUS is asked; a session that has left is not joined."""
    play()(f"""
        {begins()}
        B: sits
        B> b1 SELECT INBOX
        1> ~ NOOP
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        B: leaves
        1: lost
        A> a1 NOOP
        {opened(3, "2")}
        2> ~ NOOP
        """)


def test_while_it_idles(play: Play) -> None:
    """All who idle are looked after elsewhere, by one connection."""
    play()(f"""
        {both()}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        B> b1 IDLE
        B< + idling
        1: lost
        {opened(3, "2")}
        {looked("2")}
        2> ~ IDLE
        """)


def test_while_others_wait(play: Play) -> None:
    """What waited is done elsewhere in its order, each once; what was in flight is not repeated (F4)."""
    play()(f"""
        {both()}
        C: sits
        3: clean
        C> s1 SELECT INBOX
        {looked()}
        {selected(3, "C")}
        C< s1 OK [READ-WRITE] Done
        A> a1 EXPUNGE
        1> ~ EXPUNGE
        B> b1 CLOSE
        C> c1 UID STORE 11 FLAGS ()
        1: lost
        A: ends lost
        {opened(3, "2")}
        2> ~ EXPUNGE
        2< ~ OK Done
        B< b1 OK Close completed
        {looked("2")}
        2> ~ UID STORE 11 FLAGS ()
        """)


def test_while_an_errand_waits(play: Play) -> None:
    """A command that concerns no mailbox, too, is lost with its session where it had begun, and else repeated."""
    play(size=2)(f"""
        {begins()}
        B: sits
        C: sits
        3: clean
        B> b1 CREATE x
        2> ~ CREATE x
        A> a1 FETCH 1 UID
        1> ~ FETCH 1 UID
        C> c1 LIST "" *
        2: lost
        B: ends lost
        1< * 1 FETCH (UID 11)
        1< ~ OK Done
        A< * 1 FETCH (UID 11)
        A< a1 OK Done
        1> ~ LIST "" *
        """)


def test_while_it_is_freed(play: Play) -> None:
    """Who waited for a connection that is lost gets another one."""
    play(size=1)(f"""
        {begins()}
        A> a1 DELETE x
        1> ~ UNSELECT
        1: lost
        2: wanted
        2: opens
        2> ~ DELETE x
        2< ~ OK Done
        A< a1 OK Done
        """)


def test_while_a_close_is_done(play: Play) -> None:
    """CLOSE is a command like others."""
    play()(f"""
        {begins()}
        A> a1 CLOSE
        1> ~ EXPUNGE
        1: lost
        A: ends lost
        """)


def test_no_loop(play: Play) -> None:
    """A server that dies of every SELECT costs one session each time, and is asked no more than there are sessions."""
    play()(f"""
        {both(0)}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        B> b1 IDLE
        B< + idling
        1: lost
        2> ~ SELECT INBOX
        2: lost
        A: ends lost
        3: wanted
        3: opens
        3> ~ SELECT INBOX
        3: lost
        B: ends lost
        """)


def test_told_in_vain(play: Play) -> None:
    """A session of which not all is known that it was told cannot go on elsewhere."""
    play()(rf"""
        {both()}
        A> a1 FETCH 1:* FLAGS
        1> ~ FETCH 1:* FLAGS
        1< * 4 FETCH (FLAGS (\Seen))
        A< * 4 EXISTS
        A< * 0 RECENT
        A< * 4 FETCH (FLAGS (\Seen))
        1< ~ OK Done
        1> ~ FETCH 4:4 (UID FLAGS)
        1: lost
        A: ends lost
        B> b1 NOOP
        {opened(4, "2")}
        2> ~ NOOP
        2< ~ OK Done
        B< * 4 EXISTS
        B< * 0 RECENT
        B< b1 OK Done
        """)


def test_retired_while_more_is_asked_for(play: Play) -> None:
    """A session of whose last answer not all is known keeps its connection until it is, even if that is to go."""
    play()(rf"""
        {both()}
        A> a1 FETCH 1:* FLAGS
        1> ~ FETCH 1:* FLAGS
        1< * 4 FETCH (FLAGS (\Seen))
        A< * 4 EXISTS
        A< * 0 RECENT
        A< * 4 FETCH (FLAGS (\Seen))
        1< ~ OK Done
        1> ~ FETCH 4:4 (UID FLAGS)
        1: expires
        1< * 4 FETCH (UID 14 FLAGS (\Seen))
        1< ~ OK Done
        A< * 4 FETCH (FLAGS (\Seen))
        A< a1 OK Done
        1: selected
        A> a2 NOOP
        {opened(4, "2")}
        2> ~ NOOP
        2< ~ OK Done
        A< a2 OK Done
        """)


def test_silence(play: Play) -> None:
    """A server that owes an answer and says nothing for long is given up; one that idles owes nothing."""
    play()(f"""
        {both()}
        B> b1 IDLE
        B< + idling
        1> ~ IDLE
        1< + idling
        : 200
        2: clean
        B< * OK Still here
        A> a1 NOOP
        1> DONE
        : 201
        1< ~ OK Done
        1> ~ NOOP
        : 202
        : 300
        1< * OK Please wait
        A< * OK Please wait
        : 320
        B< * OK Still here
        : 619
        B< * OK Still here
        : 620
        A: ends timed-out
        1: broken
        3: wanted
        """)


def test_silence_of_several(play: Play) -> None:
    """When the last session ends with a server that is silent, no other connection is kept."""
    play()(f"""
        {begins()}
        B: sits
        {opens(0, "B", "2", name="other")}
        A> a1 NOOP
        1> ~ NOOP
        B> b1 IDLE
        B< + idling
        2> ~ IDLE
        2< + idling
        B: leaves
        2> DONE
        : 1
        : 301
        A: ends timed-out
        1: broken
        2: broken
        """)


def test_unread(play: Play) -> None:
    """What came with the login is the first that is read."""
    bench = play()
    bench("A: sits")
    bench("1< * CAPABILITY IMAP4rev1")
    bench("A> a1 SELECT INBOX\n1> ~ SELECT INBOX")
    assert not bench.share.tells_closed


def test_after_its_end(play: Play) -> None:
    """Nothing comes of what is said by, to, or about somebody who is gone."""
    bench = play()
    bench(begins())
    share, seat, channel = bench.share, bench.seats["A"], bench.channels["1"]
    bench("A: leaves\n1: selected")
    assert share.empty
    assert share.said(seat, b"a1 NOOP\r\n") == share.leave(seat) == []
    assert share.received(channel, b"* BYE\r\n") == share.lost(channel) == share.retire(channel) == []


def test_left_while_it_is_opened(play: Play) -> None:
    """When the session has left that asked for a mailbox, no other one is told of the loss."""
    play()(f"""
        A: sits
        B: sits
        2: clean
        A> a1 SELECT INBOX
        1> ~ SELECT INBOX
        B> b1 SELECT INBOX
        A: leaves
        1: lost
        3: wanted
        3: opens
        {opened(0, "3")}
        {selected(0, "B")}
        B< b1 OK [READ-WRITE] Done
        """)


def test_left_before_it_joins(play: Play) -> None:
    """A session that leaves while the mailbox is looked at that it was to join joins nothing."""
    bench = play()
    bench(f"""
        {begins()}
        B: sits
        B> b1 SELECT INBOX
        1> ~ NOOP
        B: leaves
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        1< ~ OK Done
        """)
    assert list(bench.channels["1"].views.values()) == [bench.seats["A"]]


def test_told_of_what_is_not_known(play: Play) -> None:
    """A session that, for whatever reason, was told of more than is known cannot go on elsewhere."""
    bench = play()
    bench(begins())
    view = bench.seats["A"].view
    assert view is not None
    view.told = 4
    bench("1: expires\nA: ends lost\n1: selected")
    assert bench.why["A"] == "it was told of messages of which not all is known"


def test_silence_is_none_where_nothing_is_owed(play: Play) -> None:
    """The time in which nothing was asked is not counted."""
    play()(f"""
        {begins()}
        : 1
        : 290
        A> a1 NOOP
        1> ~ NOOP
        : 302
        1< ~ OK Done
        A< a1 OK Done
        """)
