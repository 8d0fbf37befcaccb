"""A server that does not tell that a mailbox is gone is asked now and then while sessions look at it (rule 21)."""

from __future__ import annotations

from tests.sharing.bench import COURIER, begins, looked
from tests.sharing.conftest import Play

TRUSTING = COURIER + b" ACL2=UNION"


def test_still_the_same(play: Play) -> None:
    """Nothing comes of it where the mailbox is the same; and nobody is asked too often, or of nothing."""
    play(capabilities=TRUSTING)(rf"""
        {begins()}
        : 59
        : 60
        {looked()}
        : 119
        : 120
        {looked()}
        A> a1 CLOSE
        1> ~ EXPUNGE
        1< ~ OK Done
        A< a1 OK Close completed
        : 240
        1: selected
        """)


def test_another_one(play: Play) -> None:
    """Where one of that name was made anew, the session goes on elsewhere, and is ended when it comes to that."""
    play(capabilities=TRUSTING)(rf"""
        {begins()}
        : 60
        {looked(validity=8)}
        1: selected
        A> a1 NOOP
        2: wanted
        2: opens
        2> ~ SELECT INBOX
        2< * 0 EXISTS
        2< * OK [UIDVALIDITY 8] Ok
        2< ~ OK [READ-WRITE] Done
        A: ends lost
        2: selected
        """)


def test_selected_away(play: Play) -> None:
    """A channel that has another mailbox by then has nothing to say."""
    play(capabilities=TRUSTING)(rf"""
        {begins()}
        A> a1 EXPUNGE
        1> ~ EXPUNGE
        : 60
        1< ~ OK Done
        A< a1 OK Done
        {looked()}
        """)
