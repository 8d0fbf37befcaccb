"""IDLE where no connection idles: mailboxes are looked at in turn."""

from __future__ import annotations

import pytest

from imapgate.model.pool_mode import IdleMode
from tests.sharing.bench import begins, both, opened, opens, selected
from tests.sharing.conftest import Play

# --- poll -------------------------------------------------------------------------------------------------


def test_poll(play: Play) -> None:
    """Nobody idles at the server: the mailboxes of those who do are looked at in turn, on one connection."""
    play(idle=IdleMode.POLL)(rf"""
        {both()}
        A> a1 IDLE
        A< + idling
        B> b1 NOOP
        1> ~ NOOP
        1< * 3 FETCH (FLAGS ())
        1< ~ OK Done
        B< * 3 FETCH (FLAGS ())
        B< b1 OK Done
        B> b2 IDLE
        B< + idling
        1: selected
        C: sits
        3: clean
        {opens(0, "C", "2", name="other")}
        C> c1 IDLE
        C< + idling
        : 60
        2: selected
        : poll
        4: wanted
        : poll
        4: opens
        4> ~ SELECT INBOX
        {selected(3, "4")}
        4< ~ OK [READ-WRITE] Done
        4> ~ FETCH 1:3 (UID FLAGS)
        4< * 1 FETCH (UID 12 FLAGS (\Seen))
        4< * 2 FETCH (UID 13 FLAGS ())
        4< * 3 FETCH (UID 14 FLAGS (\Recent))
        4< ~ OK Done
        A< * 3 FETCH (FLAGS ())
        A< * 1 EXPUNGE
        A< * 3 EXISTS
        A< * 1 RECENT
        B< * 1 EXPUNGE
        B< * 3 EXISTS
        B< * 0 RECENT
        4> ~ SELECT other
        {selected(0, "4")}
        4< ~ OK [READ-WRITE] Done
        4: selected
        : polled
        : 120
        C< * OK Still here
        """)


def test_polled_by_name(play: Play) -> None:
    """What a poll finds is another mailbox, or none: who idles there is ended, and the next one is looked at."""
    play(idle=IdleMode.POLL)(f"""
        {both()}
        A> a1 IDLE
        A< + idling
        B> b1 IDLE
        B< + idling
        1: selected
        C: sits
        3: clean
        {opens(0, "C", "2", name="other")}
        C> c1 IDLE
        C< + idling
        : poll
        2> ~ SELECT INBOX
        2< ~ NO Not any more
        A: ends lost
        B: ends lost
        2> ~ SELECT other
        {selected(0, "2").replace("UIDVALIDITY 7", "UIDVALIDITY 8")}
        2< ~ OK [READ-WRITE] Done
        C: ends lost
        2: selected
        : polled
        """)


def test_poll_without_a_connection(play: Play) -> None:
    """Where the server cannot be reached nobody is ended; the next time will do."""
    play(idle=IdleMode.POLL)(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        : 60
        1: selected
        : poll
        2: wanted
        2: refused
        : polled
        : poll
        3: wanted
        """)


def test_poll_of_nobody(play: Play) -> None:
    """A look is over at once where nobody idles, and gives back what is not needed."""
    play(idle=IdleMode.POLL)("""
        A: sits
        : poll
        1: clean
        : polled
        """)


@pytest.mark.parametrize(
    "event", ["A: leaves", "A> DONE\nA< a1 OK Idle completed\nA> a2 UNSELECT\nA< a2 OK Unselect completed"]
)
def test_poll_of_one_that_goes(play: Play, event: str) -> None:
    """A session that leaves while its mailbox is looked at keeps nobody else from being looked after."""
    bench = play(idle=IdleMode.POLL)
    bench(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        B: sits
        2: clean
        {opens(0, "B", "1", name="other")}
        B> b1 IDLE
        B< + idling
        : poll
        1> ~ SELECT INBOX
        {event}
        """)
    assert bench.share.unwatched
    bench(f"""
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        1> ~ SELECT other
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        1: selected
        : polled
        """)


def test_poll_that_finds_a_connection(play: Play) -> None:
    """A mailbox that somebody has selected is looked at there; what has been lost meanwhile is looked at again."""
    play(idle=IdleMode.POLL)(f"""
        {both()}
        A> a1 IDLE
        A< + idling
        : poll
        1> ~ NOOP
        1: lost
        {opened(3, "2")}
        2: selected
        : polled
        """)


def test_poll_that_is_refused(play: Play) -> None:
    """A poll of a mailbox that has become another one where somebody else has it opens it anew, by its own name."""
    play(idle=IdleMode.POLL)(f"""
        {both()}
        A> a1 IDLE
        A< + idling
        : poll
        1> ~ NOOP
        A> DONE
        A< a1 OK Idle completed
        A> a2 UNSELECT
        A< a2 OK Unselect completed
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        1< ~ NO No such mailbox
        2> ~ SELECT INBOX
        1: selected
        2< ~ NO No such mailbox
        2: clean
        : polled
        """)


def test_owed_before_poll(play: Play) -> None:
    """What a session is owed when it begins to idle is told before its connection is given up."""
    play(idle=IdleMode.POLL)(f"""
        {both()}
        A> a1 EXPUNGE
        1> ~ EXPUNGE
        1< * 3 EXPUNGE
        1< ~ OK Done
        A< * 3 EXPUNGE
        A< a1 OK Done
        B> b1 IDLE
        B< + idling
        B< * 3 EXPUNGE
        """)


def test_poll_of_a_mailbox_that_was_left(play: Play) -> None:
    """A mailbox in which nobody idles any more when its turn comes is not looked at."""
    play(idle=IdleMode.POLL)(f"""
        {both(0)}
        A> a1 IDLE
        A< + idling
        B> b1 UNSELECT
        B< b1 OK Unselect completed
        1: selected
        {opens(0, "B", "2", name="other")}
        B> b2 IDLE
        B< + idling
        : poll
        2> ~ SELECT INBOX
        B: leaves
        {selected(0, "2")}
        2< ~ OK [READ-WRITE] Done
        2: selected
        : polled
        """)


def test_poll_beside_a_shared_idle(play: Play) -> None:
    """Where connections idle, one is looked for those who wait for theirs, and kept."""
    play(size=1)(f"""
        {begins(0)}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        : poll
        : polled
        """)
