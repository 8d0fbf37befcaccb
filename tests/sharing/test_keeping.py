"""Connections that nobody needs: kept for a while, or given back."""

from __future__ import annotations

from imapgate.sharing.effects import GiveBack
from tests.sharing.bench import Bench, begins, both
from tests.sharing.conftest import Play


def test_refused_but_not_needed(play: Play) -> None:
    """A connection that cannot be had, and for which nobody waits any more, is nobody's loss."""
    play()(f"""
        {begins(0)}
        A> a1 DELETE x
        2: wanted
        A: leaves
        1: selected
        2: refused
        """)


def test_came_too_late(play: Play) -> None:
    """A connection that nobody waits for any more is given back; so is one that comes when all have left."""
    play()(f"""
        {begins(0)}
        A> a1 DELETE x
        2: wanted
        A: leaves
        1: selected
        2: opens
        2: clean
        """)


def test_served_meanwhile(play: Play) -> None:
    """A connection that is free before the one comes that was wanted is used; that one is kept as a spare one."""
    play()(f"""
        {begins(0)}
        B: sits
        B> b1 APPEND x {{5}}
        2> ~ APPEND x {{5}}
        A> a1 DELETE x
        3: wanted
        2< ~ NO No
        B< b1 NO No
        2> ~ DELETE x
        3: opens
        2< ~ OK Done
        A< a1 OK Done
        2: clean
        : 9
        : 10
        3: clean
        """)


def test_kept_for_a_while(play: Play) -> None:
    """The only connection of a user who has nothing selected is kept for a while, then given back."""
    play(linger=60.0)("""
        A: sits
        : 59
        : 60
        1: clean
        A> a1 LIST "" *
        2: wanted
        2: opens
        2> ~ LIST "" *
        2< ~ OK Done
        A< a1 OK Done
        : 119
        : 120
        2: clean
        """)


def test_kept_alone(play: Play) -> None:
    """It is kept for the next login where that can use it, until nothing is to be kept for later."""
    bench = play(alone=True)
    bench("""
        A: sits
        A: leaves
        B: sits
        2: clean
        B: leaves
        : close
        1: clean
        """)
    assert bench.share.empty


def test_not_kept(play: Play) -> None:
    """Nothing is kept that is not used where nothing is to be kept."""
    play(linger=0.0)("""
        A: sits
        1: clean
        A> a1 LIST "" *
        2: wanted
        2: opens
        2> ~ LIST "" *
        A: leaves
        2< ~ OK Done
        2: clean
        """)


def test_unclean(play: Play) -> None:
    """A connection on which something half said was left is given back as a broken one."""
    bench = Bench()
    bench("A: sits\n1< * OK half\\")
    bench("A: leaves\n1: broken")


def test_relieved(play: Play) -> None:
    """Where others need connections, those that nobody uses are given back at once."""
    bench = play()
    bench(both(0))
    link = bench.share.link
    assert link is bench.channels["1"].link
    assert bench.share.channels == [bench.channels["1"], bench.channels["2"]]
    (effect,) = bench.share.relieve()
    assert effect == GiveBack(bench.channels["2"], clean=True, selected=False)
