"""Whose turn it is on a connection, and what a session that leaves, or says nonsense, does to the others."""

from __future__ import annotations

import pytest

from imapgate.limits import MIB
from tests.sharing.bench import Bench, begins, both, looked, opened, selected
from tests.sharing.conftest import Play


def test_in_order(play: Play) -> None:
    """Commands sent in one piece are done one after the other, and those of several sessions in turn."""
    play()(rf"""
        {both()}
        A> a1 FETCH 1 UID
        A> a2 NOOP
        1> ~ FETCH 1 UID
        B> b1 CHECK
        1< * 1 FETCH (UID 11)
        1< ~ OK Done
        A< * 1 FETCH (UID 11)
        A< a1 OK Done
        1> ~ CHECK
        1< ~ OK Done
        B< b1 OK Done
        1> ~ NOOP
        1< ~ OK Done
        A< a2 OK Done
        """)


def test_nothing_is_said_of_a_message(play: Play) -> None:
    """A server that says nothing of a message that is there, though asked again and again, is not believed any more."""
    asked = "\n".join(["1> ~ FETCH 4:4 (UID FLAGS)\n1< ~ OK Done\n1> ~ NOOP\n1< ~ OK Done"] * 5)
    play()(rf"""
        {both()}
        A> a1 NOOP
        1> ~ NOOP
        1< * 4 EXISTS
        1< ~ OK Done
        {asked}
        1> ~ FETCH 4:4 (UID FLAGS)
        1< ~ OK Done
        A: ends protocol
        1: broken
        """)


def test_endless_result() -> None:
    """A result that never ends is not gathered for ever."""
    bench = Bench()
    bench(f"{begins()}\nA> a1 SEARCH ALL\n1> ~ SEARCH ALL")
    bench("1< * SEARCH " + "2 " * MIB + "\\")
    bench("1< " + "2 " * MIB + "\\\nA: ends protocol\n1: broken")


def test_refused_by_the_gate(play: Play) -> None:
    """What is no command is refused here; LOGOUT is for the session above."""
    play()("""
        A: sits
        A> a1 FROB
        A< a1 BAD Unknown command FROB
        A> a2 LOGOUT
        """)


def test_no_command_of_a_session(play: Play) -> None:
    """Octets that no session of this gate writes end it."""
    play()("""
        A: sits
        A> a1 NOOP\0
        A: ends protocol
        1: clean
        """)


@pytest.mark.parametrize(
    "said", ["+ go on", "~ BYE Done", "g99 OK Done", "nonsense", "* 2 EXISTS", "* 0 EXPUNGE", "* 0 FETCH (UID 1)"]
)
def test_no_honest_server(play: Play, said: str) -> None:
    """What contradicts all that is known ends the connection, and whose command was in flight; the other goes on."""
    play()(f"""
        {both()}
        A> a1 NOOP
        1> ~ NOOP
        1< {said}
        A: ends protocol
        1: broken
        B> b1 NOOP
        {opened(3, "2")}
        2> ~ NOOP
        2< ~ OK Done
        B< b1 OK Done
        """)


def test_completion_of_nothing(play: Play) -> None:
    """A completion while nothing is asked ends the connection."""
    play()(f"""
        {begins()}
        1< g1 OK Done
        1: broken
        A> a1 NOOP
        2: wanted
        2: opens
        {opened(3, "2")}
        2> ~ NOOP
        2< ~ OK Done
        A< a1 OK Done
        """)


def test_many_wait(play: Play) -> None:
    """Where many commands wait for one connection, the next session has another one opened for the mailbox."""
    bench = play()
    bench(both(0))
    for who in "CDE":
        bench(f"{who}: sits\n{'34567'['CDE'.index(who)]}: clean")
        bench(f"""
            {who}> s1 SELECT INBOX
            {looked(following=11)}
            {selected(0, who)}
            {who}< s1 OK [READ-WRITE] Done
            """)
    bench(f"""
        A> a1 NOOP
        1> ~ NOOP
        B> b1 NOOP
        C> c1 NOOP
        D> d1 NOOP
        E> e1 NOOP
        {opened(0, "2")}
        2> ~ NOOP
        2< ~ OK Done
        E< e1 OK Done
        1< ~ OK Done
        A< a1 OK Done
        1> ~ NOOP
        1< ~ OK Done
        B< b1 OK Done
        1> ~ NOOP
        1< ~ OK Done
        C< c1 OK Done
        1> ~ NOOP
        1< ~ OK Done
        D< d1 OK Done
        """)
    assert bench.counts == {"opened": 1, "joined": 4, "parked": 1, "reattached": 1}


def test_left_in_the_middle(play: Play) -> None:
    """What is said to a session that has left in the middle of its command nobody hears; the others hear the rest."""
    play()(rf"""
        {both()}
        A> a1 FETCH 1 BODY[]
        1> ~ FETCH 1 BODY[]
        1< * 1 FETCH (BODY[] {{3}}
        A< * 1 FETCH (BODY[] {{3}}
        A: leaves
        1< x
        1<  FLAGS (\Draft))
        1< ~ OK Done
        B> b1 NOOP
        1> ~ NOOP
        1< ~ OK Done
        B< * 1 FETCH (FLAGS (\Draft))
        B< b1 OK Done
        """)


def test_behind_what_is_to_go(play: Play) -> None:
    """A connection that is to go goes when all is done that waits there; who has used it until then goes elsewhere."""
    bench = play(size=1)
    bench(f"""
        {begins(0)}
        B: sits
        2: clean
        A> a1 NOOP
        1> ~ NOOP
        B> b1 LIST "" *
        A> a2 NOOP
        1: expires
        1< ~ OK Done
        A< a1 OK Done
        1> ~ LIST "" *
        """)
    job = bench.channels["1"].job
    assert job is not None
    assert job.seat is bench.seats["B"]
    bench("""
        1< ~ OK Done
        B< b1 OK Done
        1: selected
        """)


def test_left_before_its_turn(play: Play) -> None:
    """Nothing is asked for a session that has left before its turn."""
    play()(f"""
        {both()}
        A> a1 NOOP
        1> ~ NOOP
        B> b1 NOOP
        B: leaves
        1< ~ OK Done
        A< a1 OK Done
        """)
