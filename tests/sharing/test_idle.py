"""IDLE in a share: one connection idles for all, none does, or one for each."""

from __future__ import annotations

import pytest

from tests.sharing.bench import COURIER, begins, both
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
