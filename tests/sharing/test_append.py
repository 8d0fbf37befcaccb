"""Messages that are stored: on a connection where nothing is selected, which is the session's own meanwhile."""

from __future__ import annotations

import pytest

from tests.sharing.bench import begins, both, opened
from tests.sharing.conftest import Play


def test_announced_before_the_ok(play: Play) -> None:
    """The session hears of a message that it has put into its own mailbox before the OK, and the others later."""
    play()(rf"""
        {both()}
        A> a1 APPEND INBOX (\Seen) {{5}}
        2> ~ APPEND INBOX (\Seen) {{5}}
        2< + go on
        A< + go on
        A> hel\
        2> hel\
        A> lo
        2> lo
        2< ~ OK [APPENDUID 7 14] Done
        1> ~ NOOP
        1< * 4 EXISTS
        1< * 1 RECENT
        1< ~ OK Done
        1> ~ FETCH 4:4 (UID FLAGS)
        1< * 4 FETCH (UID 14 FLAGS (\Seen \Recent))
        1< ~ OK Done
        A< * 4 EXISTS
        A< * 1 RECENT
        A< a1 OK [APPENDUID 7 14] Done
        B> b1 NOOP
        1> ~ NOOP
        1< ~ OK Done
        B< * 4 EXISTS
        B< * 0 RECENT
        B< b1 OK Done
        """)


def test_into_another_mailbox(play: Play) -> None:
    """Nothing is looked at; the connection is the share's again, and what was sent behind the message is done."""
    play()(f"""
        {begins()}
        A> a1 APPEND other {{1+}}
        A> x
        A> a2 LIST "" *
        2: wanted
        2: opens
        2> ~ APPEND other {{1}}
        2< + OK
        2> x
        2< ~ OK Done
        A< a1 OK Done
        2> ~ LIST "" *
        2< ~ OK Done
        A< a2 OK Done
        B: sits
        3: clean
        B> b1 LIST "" *
        2> ~ LIST "" *
        """)


@pytest.mark.parametrize("plus", ["", "+"])
def test_refused_at_once(play: Play, plus: str) -> None:
    """A message for which the server does not ask is not sent; one that came unasked goes nowhere."""
    content = "A> a9 LOGOUT" if plus else ""
    play()(f"""
        {begins()}
        A> a1 APPEND nowhere {{9{plus}}}
        {content}
        2: wanted
        2: opens
        2> ~ APPEND nowhere {{9}}
        2< ~ NO [TRYCREATE] No such mailbox
        A< a1 NO [TRYCREATE] No such mailbox
        A> a2 NOOP
        1> ~ NOOP
        """)


def test_no_connection(play: Play) -> None:
    """Where no connection is to be had, the message is not asked for."""
    play()(f"""
        {begins()}
        A> a1 APPEND other {{9}}
        2: wanted
        2: refused
        A< a1 NO [UNAVAILABLE] The mail server cannot be reached; try again later
        A> a2 NOOP
        1> ~ NOOP
        """)


def test_no_in_the_middle(play: Play) -> None:
    """A server that has enough in the middle of a message is sent the rest of it before anything else."""
    play()(f"""
        {begins()}
        B: sits
        A> a1 APPEND other {{6}}
        2> ~ APPEND other {{6}}
        2< + OK
        A< + OK
        A> abc\\
        2> abc\\
        2< ~ NO [OVERQUOTA] Too much
        A< a1 NO [OVERQUOTA] Too much
        B> b1 LIST "" *
        1> ~ LIST "" *
        A> def
        A> a2 NOOP
        2> def
        1< ~ OK Done
        B< b1 OK Done
        1> ~ NOOP
        B> b2 LIST "" *
        2> ~ LIST "" *
        """)


def test_lost_in_the_middle(play: Play) -> None:
    """The session is over whose message it was, and no other."""
    play()(f"""
        {both()}
        A> a1 APPEND other {{6}}
        2> ~ APPEND other {{6}}
        2< + OK
        A< + OK
        A> abc\\
        2> abc\\
        2: lost
        A: ends lost
        B> b1 NOOP
        1> ~ NOOP
        """)


def test_bye_in_the_middle(play: Play) -> None:
    """What the server says last the session hears."""
    play()(f"""
        {both()}
        A> a1 APPEND other {{6}}
        2> ~ APPEND other {{6}}
        2< * BYE Enough
        A< * BYE Enough
        2: lost
        A: ends lost
        """)


def test_nonsense_in_the_middle(play: Play) -> None:
    """A server that answers what nobody asked is left, and the session ended."""
    play()(f"""
        {both()}
        A> a1 APPEND other {{6}}
        2> ~ APPEND other {{6}}
        2< g99 OK Done
        A: ends protocol
        2: broken
        """)


def test_left_in_the_middle(play: Play) -> None:
    """A session that goes in the middle of its message leaves a connection that can be nobody else's."""
    play()(f"""
        {both()}
        A> a1 APPEND other {{6}}
        2> ~ APPEND other {{6}}
        2< + OK
        A< + OK
        A> abc\\
        2> abc\\
        A: leaves
        2: broken
        B> b1 NOOP
        1> ~ NOOP
        """)


def test_left_while_it_is_looked_at(play: Play) -> None:
    """A session that goes while its mailbox is looked at is not missed."""
    play()(f"""
        {both()}
        A> a1 APPEND INBOX {{1}}
        2> ~ APPEND INBOX {{1}}
        2< + OK
        A< + OK
        A> x
        2> x
        2< ~ OK Done
        1> ~ NOOP
        A: leaves
        B> b1 NOOP
        1< ~ OK Done
        1> ~ NOOP
        1< ~ OK Done
        B< b1 OK Done
        """)


@pytest.mark.parametrize("waits", [False, True])
def test_lost_while_it_is_looked_at(play: Play, waits: bool) -> None:
    """What has been stored is not called lost: the session is told OK, and of the message when it asks next."""
    before = "B> b1 CHECK\n1> ~ CHECK" if waits else ""
    after = "B: ends lost" if waits else ""
    play()(rf"""
        {both()}
        A> a1 APPEND INBOX {{1}}
        2> ~ APPEND INBOX {{1}}
        2< + OK
        A< + OK
        A> x
        2> x
        {before}
        2< ~ OK Done
        {"" if waits else "1> ~ NOOP"}
        1: lost
        {after}
        A< a1 OK Done
        A> a2 NOOP
        {opened(4, "2")}
        2> ~ NOOP
        2< ~ OK Done
        A< * 4 EXISTS
        A< * 0 RECENT
        A< a2 OK Done
        """)


def test_small_size(play: Play) -> None:
    """Where there is one connection only, the mailbox is left for the message; what is new is told afterwards."""
    play(size=1)(rf"""
        {begins()}
        A> a1 APPEND INBOX {{1}}
        1> ~ UNSELECT
        1< ~ OK Done
        1> ~ APPEND INBOX {{1}}
        1< + OK
        A< + OK
        A> x
        1> x
        1< ~ OK Done
        A< a1 OK Done
        A> a2 NOOP
        {opened(4)}
        1> ~ NOOP
        1< ~ OK Done
        A< * 4 EXISTS
        A< * 0 RECENT
        A< a2 OK Done
        """)


def test_replace_pins(play: Play) -> None:
    """REPLACE concerns the selected mailbox as well, and is never shared."""
    play()(f"""
        {begins(1)}
        A> a1 REPLACE 1 INBOX {{1}}
        {opened(1)}
        A: pinned REPLACE
        1> ~ REPLACE 1 INBOX {{1}}
        """)


def test_into_another_ones_mailbox(play: Play) -> None:
    """Who does not idle in the mailbox hears of the message when it asks."""
    play()(f"""
        {begins(0)}
        B: sits
        B> b1 APPEND INBOX {{1+}}
        B> x
        2> ~ APPEND INBOX {{1}}
        2< + OK
        2> x
        2< ~ OK Done
        B< b1 OK Done
        """)
