"""Supply and demand: connections are used again, opened up to so many, taken from those who do not need them, kept."""

from __future__ import annotations

from collections.abc import Callable

from imapgate.limits import Limits
from imapgate.model.failure import Failure
from imapgate.session.effects import Failed
from imapgate.session.link import Link
from imapgate.sharing.channel import Channel
from imapgate.sharing.channels import Channels, Demand
from imapgate.sharing.out import Out
from tests.sharing.bench import Bench, begins, both, looked, opened, opens, selected
from tests.sharing.conftest import Play

TAKEN = f"""
    {begins(1)}
    B: sits
    2: clean"""
"""A has the only connection."""


def test_taken_and_back(play: Play) -> None:
    """With one connection, who asks has it; who had it gets it back with the next command."""
    bench = play(size=1)
    bench(f"""
        {TAKEN}
        {opens(0, "B", "1", name="other")}
        A> a1 NOOP
        {opened(1)}
        1> ~ NOOP
        1< ~ OK Done
        A< a1 OK Done
        B> b1 NOOP
        {opened(0, name="other")}
        1> ~ NOOP
        1< ~ OK Done
        B< b1 OK Done
        """)
    assert bench.counts == {"opened": 2, "parked": 3, "reattached": 2}


def test_not_while_it_works(play: Play) -> None:
    """A connection is not taken from who has a command on it; that is waited for."""
    play(size=1)(f"""
        {TAKEN}
        A> a1 NOOP
        1> ~ NOOP
        B> b1 DELETE x
        1< ~ OK Done
        1> ~ UNSELECT
        A< a1 OK Done
        1< ~ OK Done
        1> ~ DELETE x
        """)


def test_those_who_idle_are_patient(play: Play) -> None:
    """Who idles waits until a connection is free, and takes nobody's."""
    play(size=1)(f"""
        {TAKEN}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        B> s1 SELECT other
        1> DONE
        1< ~ OK Done
        1> ~ SELECT other
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        {selected(0, "B")}
        B< s1 OK [READ-WRITE] Done
        : 1
        B> b1 UNSELECT
        B< b1 OK Unselect completed
        {opened(1)}
        1> ~ IDLE
        """)


def test_done_of_a_patient_one(play: Play) -> None:
    """Who idles no more, and says something, is patient no more: not even behind its own patient wish."""
    play(size=1)(f"""
        {TAKEN}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        B> s1 SELECT other
        1> DONE
        1< ~ OK Done
        1> ~ SELECT other
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        {selected(0, "B")}
        B< s1 OK [READ-WRITE] Done
        A> DONE
        A< a1 OK Idle completed
        A> a2 NOOP
        {opened(1)}
        1> ~ NOOP
        1< ~ OK Done
        A< a2 OK Done
        """)


def test_the_patient_hold_nobody_up(play: Play) -> None:
    """Somebody who cannot wait gets what is free before those who can, whoever came first."""
    play(size=1)(f"""
        {TAKEN}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        B> s1 SELECT other
        1> DONE
        1< ~ OK Done
        1> ~ SELECT other
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        {selected(0, "B")}
        B< s1 OK [READ-WRITE] Done
        C: sits
        3: clean
        C> s1 SELECT third
        1> ~ SELECT third
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        {selected(0, "C")}
        C< s1 OK [READ-WRITE] Done
        C: leaves
        {opened(1)}
        1> ~ IDLE
        """)


def test_who_leaves_while_others_wait(play: Play) -> None:
    """Several wait for a mailbox to be opened; when the first of them goes, it is opened for the others."""
    play(size=2)(f"""
        {begins(0)}
        B: sits
        C: sits
        3: clean
        D: sits
        4: clean
        A> a1 NOOP
        1> ~ NOOP
        B> b1 NOOP
        B< b1 OK Nothing done
        B> b2 APPEND x {{5}}
        2> ~ APPEND x {{5}}
        C> c1 SELECT other
        D> d1 SELECT other
        C: leaves
        2< ~ NO No
        B< b2 NO No
        2> ~ SELECT other
        {selected(0, "2")}
        2< ~ OK [READ-WRITE] Done
        {selected(0, "D")}
        D< d1 OK [READ-WRITE] Done
        """)


def test_all_leave_who_wait(play: Play) -> None:
    """When all are gone who waited, it is opened for whoever comes next, and asked for anew."""
    play(size=2)(f"""
        {begins(0)}
        B: sits
        B> b2 APPEND x {{5}}
        2> ~ APPEND x {{5}}
        C: sits
        3: clean
        A> a1 NOOP
        1> ~ NOOP
        C> c1 SELECT other
        C: leaves
        D: sits
        4: clean
        D> d1 SELECT other
        2< ~ NO No
        B< b2 NO No
        2> ~ SELECT other
        {selected(0, "2")}
        2< ~ OK [READ-WRITE] Done
        {selected(0, "D")}
        D< d1 OK [READ-WRITE] Done
        """)


def test_left_with_a_command_waiting(play: Play) -> None:
    """A session that goes with a command waiting asks for nothing any more, also where its connection has gone."""
    play()(f"""
        {both(0)}
        A> a1 NOOP
        1> ~ NOOP
        B> b1 NOOP
        1: expires
        B: leaves
        1< ~ OK Done
        1: selected
        A< a1 OK Done
        C: sits
        3: clean
        {opens(0, "C", "2")}
        """)


def test_too_late(play: Play) -> None:
    """Who waits for too long is told that all are used; who idles waits on."""
    play(size=1)(f"""
        {TAKEN}
        A> a1 SCAN "" * x
        {opened(1)}
        A: pinned SCAN
        1> ~ SCAN "" * x
        1< ~ OK Done
        A< a1 OK Done
        : 5
        B> b1 SELECT other
        C: sits
        3: clean
        C> c1 APPEND other {{5+}}
        C> hello
        : 34
        : 35
        B< b1 NO [UNAVAILABLE] All connections to the mail server are in use; try again later
        C< c1 NO [UNAVAILABLE] All connections to the mail server are in use; try again later
        A: leaves
        1: broken
        C> c2 SELECT other
        4: wanted
        """)


def test_refused(play: Play) -> None:
    """Where one connection cannot be had, who is first is told; one is asked for, for whoever waits behind."""
    play(size=2)("""
        A: sits
        B: sits
        2: clean
        C: sits
        3: clean
        A> a1 SCAN "" * x
        A: pinned SCAN
        1> ~ SCAN "" * x
        B> b1 DELETE x
        4: wanted
        C> c1 DELETE y
        4: refused
        B< b1 NO [UNAVAILABLE] The mail server cannot be reached; try again later
        5: wanted
        5: refused
        C< c1 NO [UNAVAILABLE] The mail server cannot be reached; try again later
        """)


def test_one_for_several(play: Play) -> None:
    """Where one is coming, nobody asks for a second one for the same wish; two wishes are two."""
    play()(f"""
        {begins(0)}
        B: sits
        C: sits
        3: clean
        A> a1 DELETE x
        2> ~ DELETE x
        B> b1 APPEND y {{5}}
        C> c1 APPEND z {{5}}
        4: wanted
        2< ~ OK Done
        A< a1 OK Done
        2> ~ APPEND y {{5}}
        4: opens
        4> ~ APPEND z {{5}}
        """)


def test_checked_behind_others(play: Play) -> None:
    """A mailbox that several connections have is joined where fewest wait."""
    play()(f"""
        {both(0)}
        A> a1 NOOP
        1> ~ NOOP
        C: sits
        3: clean
        C> s1 SELECT INBOX
        1< ~ OK Done
        A< a1 OK Done
        {looked(following=11)}
        {selected(0, "C")}
        C< s1 OK [READ-WRITE] Done
        """)


def test_not_let_in_any_more(play: Play) -> None:
    """When the server does not accept the login any more, who needs a connection is ended; who has one goes on."""
    bench = play()
    bench(f"""
        {begins(0)}
        B: sits
        B> b1 APPEND x {{5}}
        2> ~ APPEND x {{5}}
        C: sits
        : 10
        3: clean
        C> c1 DELETE x
        4: wanted
        """)
    assert bench.share.refused(bench.channels["4"], Failed(Failure.CREDENTIALS))[0][1:] == (
        Failure.CREDENTIALS,
        "the server does not accept the login any more",
    )
    assert list(bench.share.seats) == [bench.seats["A"], bench.seats["B"]]


def test_crowd_without_another_connection(play: Play) -> None:
    """Where many wait, and no other connection is to be had, the one that is there has to do."""
    bench = play(size=3)
    bench(both(0))
    for who, number in zip("CDE", "345", strict=True):
        bench(f"{who}: sits\n" + (f"{number}: clean" if number != "x" else ""))
        bench(f"""
            {who}> s1 SELECT INBOX
            {looked(following=11)}
            {selected(0, who)}
            {who}< s1 OK [READ-WRITE] Done
            """)
    bench(f"""
        : 10
        2: clean
        A> a1 NOOP
        1> ~ NOOP
        B> b1 NOOP
        C> c1 NOOP
        D> d1 NOOP
        E> e1 NOOP
        6: wanted
        6: refused
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
        {looked(following=11)}
        1> ~ NOOP
        1< ~ OK Done
        E< e1 OK Done
        """)


def test_crowd_and_no_more(play: Play) -> None:
    """Where many wait, and there may be no more connections, it is waited."""
    bench = play(size=1)
    bench(f"{begins(0)}")
    for who, number in zip("BCDE", "2345", strict=True):
        bench(f"{who}: sits\n{number}: clean")
        bench(f"""
            {who}> s1 SELECT INBOX
            {looked(following=11)}
            {selected(0, who)}
            {who}< s1 OK [READ-WRITE] Done
            """)
    bench("""
        A> a1 NOOP
        1> ~ NOOP
        B> b1 NOOP
        C> c1 NOOP
        D> d1 NOOP
        E> e1 NOOP
        """)
    assert len(bench.channels["1"].waiting) == 4


def test_served_in_the_middle() -> None:
    """Whoever is served in the middle of another supply is not served twice."""
    bench = Bench()
    served: list[str] = []
    channels = Channels(Out(0.0), 9, wait=1.0, linger=1.0, needed=lambda: True, retire=lambda channel: None)
    seat = bench.share.sit()

    def serve(name: str) -> Callable[[Channel], None]:
        def serves(channel: Channel) -> None:
            channel.lent = seat
            served.append(name)
            channels.supply()

        return serves

    for name in ("one", "two"):
        channels.demand(Demand(seat, serve(name), lambda failed: None))
    for channel in channels:
        channel.link = Link(Limits())
    channels.supply()
    assert served == ["one", "two"]


def test_who_leaves_makes_room(play: Play) -> None:
    """When a session leaves that had a connection of its own, who waits has another one opened."""
    play(size=1)("""
        A: sits
        A> a1 SCAN "" * x
        A: pinned SCAN
        1> ~ SCAN "" * x
        B: sits
        2: clean
        B> b1 DELETE x
        A: leaves
        1: broken
        3: wanted
        """)
