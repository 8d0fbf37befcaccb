"""Sessions that have given up their connection, and come back: what they are told is what has changed."""

from __future__ import annotations

import pytest

from tests.sharing.bench import begins, both, filled, looked, opened, opens, selected
from tests.sharing.conftest import Play


def test_parked_and_back(play: Play) -> None:
    """Who says nothing for long keeps no mailbox selected; its next command has the exact differences before it."""
    bench = play(linger=10.0)
    bench(rf"""
        {begins()}
        : 299
        : 300
        : 310
        1: selected
        A> a1 SEARCH 2:3
        2: wanted
        2: opens
        2> ~ SELECT INBOX
        2< * FLAGS (\Seen one)
        2< * 3 EXISTS
        2< * 1 RECENT
        2< * OK [UIDVALIDITY 7] Ok
        2< ~ OK [READ-WRITE] Done
        2> ~ FETCH 1:3 (UID FLAGS)
        2< * 1 FETCH (UID 11 FLAGS (\Seen))
        2< * 2 FETCH (UID 13 FLAGS (one))
        2< * 3 FETCH (UID 14 FLAGS (\Recent))
        2< ~ OK Done
        A< * FLAGS (\Seen one)
        2> ~ UID SEARCH UID 13 UID 1:13
        2< * SEARCH 13
        2< ~ OK Done
        A< * SEARCH 3
        A< * 3 FETCH (FLAGS (one))
        A< * 4 EXISTS
        A< * 1 RECENT
        A< a1 OK Done
        A> a2 NOOP
        2> ~ NOOP
        2< ~ OK Done
        A< * 2 EXPUNGE
        A< a2 OK Done
        """)
    assert bench.counts == {"opened": 1, "parked": 1, "reattached": 1}


def test_nothing_has_changed(play: Play) -> None:
    """Where nothing has, nothing is told; a connection that another session has will do."""
    play()(f"""
        {both()}
        : 299
        2: clean
        B> b1 NOOP
        1> ~ NOOP
        1< ~ OK Done
        B< b1 OK Done
        : 300
        A> a1 NOOP
        {looked()}
        1> ~ NOOP
        1< ~ OK Done
        A< a1 OK Done
        """)


def test_who_waits_is_not_parked(play: Play) -> None:
    """A session whose command takes long, or that idles, is left where it is."""
    bench = play()
    bench(f"""
        {both()}
        B> b1 IDLE
        B< + idling
        1> ~ IDLE
        1< + idling
        A> a1 FETCH 1 UID
        1> DONE
        1< ~ OK Done
        1> ~ FETCH 1 UID
        : 200
        B< * OK Still here
        2: clean
        1< * 1 FETCH (UID 11)
        A< * 1 FETCH (UID 11)
        : 320
        B< * OK Still here
        1< ~ OK Done
        1> ~ IDLE
        A< a1 OK Done
        """)
    assert not bench.counts["parked"]


@pytest.mark.parametrize("answer", ["~ NO No such mailbox", "another"])
def test_gone_or_another(play: Play, answer: str) -> None:
    """A mailbox that is gone, or is another one, ends the session: what it knows is of no use."""
    if answer == "another":
        answer = "* OK [UIDVALIDITY 8] Ok\n1< ~ OK [READ-WRITE] Done"
    play()(f"""
        {begins(0)}
        1: expires
        1: selected
        A> a2 NOOP
        2: wanted
        2: opens
        2> ~ SELECT INBOX
        2< {answer.replace("1<", "2<")}
        A: ends lost
        2: {"clean" if "NO" in answer else "selected"}
        """)


def test_no_connection(play: Play) -> None:
    """Where there is none its command is not done; it can try again."""
    play()(f"""
        {begins()}
        1: expires
        1: selected
        A> a1 NOOP
        2: wanted
        2: refused
        A< a1 NO [UNAVAILABLE] The mail server cannot be reached; try again later
        A> a2 NOOP
        3: wanted
        3: opens
        {opened(3, "3")}
        3> ~ NOOP
        3< ~ OK Done
        A< a2 OK Done
        """)


def test_expired_while_it_works(play: Play) -> None:
    """A connection that has got too old goes when the command that it has is done; what waits goes elsewhere."""
    play()(f"""
        {both()}
        A> a1 NOOP
        1> ~ NOOP
        B> b1 NOOP
        1: expires
        1< ~ OK Done
        1: selected
        A< a1 OK Done
        {opened(3, "2")}
        2> ~ NOOP
        2< ~ OK Done
        B< b1 OK Done
        A> a2 NOOP
        {looked("2")}
        2> ~ NOOP
        2< ~ OK Done
        A< a2 OK Done
        """)


def test_expired_while_it_idles(play: Play) -> None:
    """Who idles is looked after on another connection, and is told what has changed."""
    play()(rf"""
        {both()}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        1: expires
        1> DONE
        2> ~ SELECT INBOX
        1< ~ OK Done
        1: selected
        {selected(4, "2", recent=1)}
        2< ~ OK [READ-WRITE] Done
        2> ~ FETCH 1:4 (UID FLAGS)
        2< * 1 FETCH (UID 11 FLAGS (\Seen))
        2< * 2 FETCH (UID 12 FLAGS (\Seen))
        2< * 3 FETCH (UID 13 FLAGS (\Seen))
        2< * 4 FETCH (UID 14 FLAGS (\Recent))
        2< ~ OK Done
        2> ~ IDLE
        A< * 4 EXISTS
        A< * 1 RECENT
        """)


@pytest.mark.parametrize("reply", ["opens", "refused"])
def test_done_while_it_is_looked_for(play: Play, reply: str) -> None:
    """DONE, and a command, while the mailbox of one that idles is opened anew: both wait for the same connection."""
    answer = rf"""
        2: opens
        {opened(3, "2")}
        2> ~ NOOP
        2< ~ OK Done
        A< a2 OK Done""" if reply == "opens" else """
        2: refused
        A< a2 NO [UNAVAILABLE] The mail server cannot be reached; try again later"""  # fmt: skip
    play()(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        1: lost
        2: wanted
        A> DONE
        A< a1 OK Idle completed
        A> a2 NOOP
        {answer}
        """)


def test_left_while_it_is_looked_for(play: Play) -> None:
    """DONE, and another mailbox, while that of one that idled is opened anew: nobody looks at that one any more."""
    play()(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        1: lost
        2: wanted
        A> DONE
        A< a1 OK Idle completed
        A> a2 UNSELECT
        A< a2 OK Unselect completed
        2: opens
        {opened(3, "2")}
        {opens(0, "A", "2", name="other")}
        A> a3 IDLE
        A< + idling
        2> ~ IDLE
        """)


def test_idle_again_while_it_is_looked_for(play: Play) -> None:
    """DONE and IDLE again, while a connection is looked for: it is looked for once."""
    play()(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        1: lost
        2: wanted
        A> DONE
        A> a2 IDLE
        A< a1 OK Idle completed
        A< + idling
        : 1
        2: opens
        {opened(3, "2")}
        2> ~ IDLE
        : 2
        """)


def test_looked_for_again(play: Play) -> None:
    """Where there was no connection for one that idles, it is looked for again a little later."""
    play()(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1: lost
        2: wanted
        2: refused
        : 1
        : 2
        3: wanted
        3: refused
        : 5
        : 6
        4: wanted
        4: opens
        {opened(3, "4")}
        4> ~ IDLE
        4: lost
        5: wanted
        5: refused
        : 7
        : 8
        6: wanted
        """)


def test_idle_of_one_that_was_parked(play: Play) -> None:
    """IDLE of a session that has no connection gets it one."""
    play()(f"""
        {both()}
        : 299
        2: clean
        B> b1 NOOP
        1> ~ NOOP
        1< ~ OK Done
        B< b1 OK Done
        : 300
        A> a1 IDLE
        A< + idling
        {looked()}
        1> ~ IDLE
        """)


def test_left_while_parked(play: Play) -> None:
    """A session that leaves, or leaves its mailbox, while it has no connection leaves nothing behind."""
    play()(f"""
        {both()}
        : 300
        2: clean
        A> a1 CLOSE
        {looked()}
        1> ~ EXPUNGE
        1< ~ OK Done
        A< a1 OK Close completed
        B: leaves
        A: leaves
        1: selected
        """)


def test_ghosts_stay(play: Play) -> None:
    """What it had not been told to be gone before is not told twice, and not forgotten."""
    play()(rf"""
        {both()}
        A> a1 EXPUNGE
        1> ~ EXPUNGE
        1< * 3 EXPUNGE
        1< ~ OK Done
        A< * 3 EXPUNGE
        A< a1 OK Done
        : 300
        2: clean
        B> b1 FETCH 1 UID
        1> ~ NOOP
        1< * 1 EXPUNGE
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        1< ~ OK Done
        B< b1 NO [EXPUNGEISSUED] Those messages are gone; say NOOP to hear of it
        B> b2 NOOP
        1> ~ NOOP
        1< ~ OK Done
        B< * 3 EXPUNGE
        B< * 1 EXPUNGE
        B< b2 OK Done
        """)


def test_filled_again(play: Play) -> None:
    """Recent messages are recent to the first session that is told of them, also of those that come back."""
    play()(rf"""
        {begins(1)}
        1: expires
        1: selected
        A> a1 NOOP
        2: wanted
        2: opens
        2> ~ SELECT INBOX
        {selected(1, "2", recent=1)}
        2< ~ OK [READ-WRITE] Done
        {filled([11], "2", flags=chr(92) + "Seen " + chr(92) + "Recent")}
        2> ~ NOOP
        2< ~ OK Done
        A< * 1 RECENT
        A< a1 OK Done
        """)
