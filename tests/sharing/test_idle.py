"""IDLE in a share: one connection idles for all, none does, or one for each."""

from __future__ import annotations

import pytest

from imapgate.model.pool_mode import IdleMode
from tests.sharing.bench import COURIER, begins, both, opened, opens, selected
from tests.sharing.conftest import Play

IDLE = """
    1> ~ IDLE
    1< + idling"""


def test_one_for_all(play: Play) -> None:
    """Of many sessions that idle the server sees one; what it says all are told."""
    play()(rf"""
        {both()}
        A> a1 IDLE
        A< + idling
        {IDLE}
        B> b1 IDLE
        B< + idling
        1< * 2 FETCH (FLAGS ())
        1< * 1 EXPUNGE
        A< * 2 FETCH (FLAGS ())
        A< * 1 EXPUNGE
        B< * 2 FETCH (FLAGS ())
        B< * 1 EXPUNGE
        A> DONE
        A< a1 OK Idle completed
        1< * 1 FETCH (FLAGS (\Seen))
        B< * 1 FETCH (FLAGS (\Seen))
        B> DONE
        B< b1 OK Idle completed
        1> DONE
        1< ~ OK Done
        A> a2 NOOP
        1> ~ NOOP
        1< ~ OK Done
        A< * 1 FETCH (FLAGS (\Seen))
        A< a2 OK Done
        """)


def test_new_messages(play: Play) -> None:
    """Of a new message what is not known is asked for first, then all are told, and the connection idles again."""
    play()(rf"""
        {both()}
        A> a1 IDLE
        A< + idling
        {IDLE}
        1< * 4 EXISTS
        1> DONE
        1< * 1 RECENT
        1< ~ OK Done
        1> ~ FETCH 4:4 (UID FLAGS)
        1< * 4 FETCH (UID 14 FLAGS (\Recent))
        1< ~ OK Done
        1> ~ IDLE
        A< * 4 EXISTS
        A< * 1 RECENT
        1< + idling
        """)


def test_a_command_meanwhile(play: Play) -> None:
    """For a command of another session IDLE is ended, and begun again; DONE waits for IDLE's beginning."""
    play()(rf"""
        {both()}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        B> b1 STORE 1 -FLAGS (\Seen)
        1< + idling
        1> DONE
        1< ~ OK Done
        1> ~ STORE 1 -FLAGS (\Seen)
        1< * 1 FETCH (FLAGS ())
        1< ~ OK Done
        1> ~ IDLE
        A< * 1 FETCH (FLAGS ())
        B< * 1 FETCH (FLAGS ())
        B< b1 OK Done
        """)


def test_done_while_it_is_asked_for(play: Play) -> None:
    """Who no longer idles when a message is known hears of it at its next command."""
    play()(rf"""
        {begins()}
        A> a1 IDLE
        A< + idling
        {IDLE}
        1< * 4 EXISTS
        1> DONE
        A> DONE
        A< a1 OK Idle completed
        1< ~ OK Done
        1> ~ FETCH 4:4 (UID FLAGS)
        A> a2 IDLE
        A< + idling
        1< * 4 FETCH (UID 14 FLAGS ())
        1< ~ OK Done
        1> ~ IDLE
        A< * 4 EXISTS
        A< * 0 RECENT
        """)


def test_what_is_owed_is_told_at_once(play: Play) -> None:
    """What a session is owed it hears when it begins to idle, and what it is owed when it ends before OK."""
    play()(rf"""
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
        {IDLE}
        A> a2 EXPUNGE
        1> DONE
        1< ~ OK Done
        1> ~ EXPUNGE
        1< * 2 EXPUNGE
        B> DONE
        B< * 2 EXPUNGE
        B< b1 OK Idle completed
        1< ~ OK Done
        A< * 2 EXPUNGE
        A< a2 OK Done
        """)


def test_without_a_mailbox(play: Play) -> None:
    """There is nothing to hear of; what is sent before DONE is no command."""
    play()("""
        A: sits
        A> a1 IDLE
        A< + idling
        : 119
        1: clean
        : 120
        A< * OK Still here
        : 239
        : 240
        A< * OK Still here
        A> DONE
        A> a2 NOOP
        A< a1 OK Idle completed
        A< a2 OK Nothing done
        """)


def test_begun_anew(play: Play) -> None:
    """Before the server takes it for an absence IDLE is begun anew; its sessions hear that somebody is there (F12)."""
    play()(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        {IDLE}
        : 100
        : 1619
        A< * OK Still here
        1< * OK Still here
        : 1620
        1> DONE
        1< ~ OK Done
        {IDLE}
        : 1621
        """)


def test_left(play: Play) -> None:
    """When the last one that idles leaves, IDLE is ended, and then the connection is used for somebody else."""
    play()(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        {IDLE}
        B: sits
        A: leaves
        1> DONE
        1< ~ OK Done
        1: selected
        """)


def test_last_one_left(play: Play) -> None:
    """The connection of a user who goes while idling is given back as good as new, when IDLE is over."""
    play()(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        {IDLE}
        A: leaves
        1> DONE
        : 100
        1< ~ OK Done
        1: selected
        """)


@pytest.mark.parametrize("outcome", ["NO Not now", "BAD Never", "OK Done"])
def test_refused_by_the_server(play: Play, outcome: str) -> None:
    """A server that does not idle is asked again when something else was done, and not before."""
    play()(f"""
        {both()}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< ~ {outcome}
        B> b1 NOOP
        1> ~ NOOP
        1< * 1 EXPUNGE
        1< ~ OK Done
        1> ~ IDLE
        A< * 1 EXPUNGE
        B< * 1 EXPUNGE
        B< b1 OK Done
        """)


def test_ended_by_the_server(play: Play) -> None:
    """A server that ends IDLE of its own accord is asked to idle again."""
    play()(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        {IDLE}
        1< ~ OK That took too long
        {IDLE}
        A> DONE
        A< a1 OK Idle completed
        1> DONE
        """)


def test_server_without_idle(play: Play) -> None:
    """Where the server has no IDLE, who idles is told what others' commands bring."""
    play(capabilities=COURIER)(rf"""
        {both()}
        A> a1 IDLE
        A< + idling
        B> b1 NOOP
        1> ~ NOOP
        1< * 1 FETCH (FLAGS ())
        1< ~ OK Done
        A< * 1 FETCH (FLAGS ())
        B< * 1 FETCH (FLAGS ())
        B< b1 OK Done
        """)


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
