"""A server whose process dies of a stale number is asked what has gone before a command that could kill it."""

from __future__ import annotations

import pytest

from tests.sharing.bench import CYRUS, begins, both, selected
from tests.sharing.conftest import Play


@pytest.mark.parametrize(
    "items", ["BODY[]", "RFC822", "RFC822.TEXT", "(UID BODY[TEXT]<0.10>)", "BINARY[1]", "body[header]"]
)
def test_noop_first(play: Play, items: str) -> None:
    """What sets \\Seen is asked for behind a NOOP; what that tells holds for the numbers of the command."""
    play(capabilities=CYRUS)(f"""
        {both()}
        A> a1 FETCH 2:3 {items}
        1> ~ NOOP
        1< * 2 EXPUNGE
        1< * 3 EXISTS
        1< ~ OK Done
        1> ~ FETCH 3:3 (UID FLAGS)
        1< * 3 FETCH (UID 14 FLAGS ())
        1< ~ OK Done
        1> ~ UID FETCH 13 {items}
        1< * 2 FETCH (UID 13 X y)
        1< ~ OK Done
        A< * 3 FETCH ({"UID 13 " if "UID" in items else ""}X y)
        A< * 4 EXISTS
        A< * 0 RECENT
        A< a1 OK Done
        """)


@pytest.mark.parametrize("sent", ["FETCH 1 BODY.PEEK[]", "FETCH 1 (RFC822.SIZE RFC822.HEADER)", "UID SEARCH ALL"])
def test_harmless(play: Play, sent: str) -> None:
    """The rest goes at once."""
    play(capabilities=CYRUS)(f"{begins()}\nA> a1 {sent}\n1> ~ {sent}")


def test_other_servers(play: Play) -> None:
    """And so does everything on other servers."""
    play()(f"{begins()}\nA> a1 FETCH 1 BODY[]\n1> ~ FETCH 1 BODY[]")


def test_all_gone(play: Play) -> None:
    """If they are all gone there is nothing to be asked for."""
    play(capabilities=CYRUS)(f"""
        {both()}
        A> a1 FETCH 2 BODY[]
        1> ~ NOOP
        1< * 2 EXPUNGE
        1< ~ OK Done
        A< a1 NO [EXPUNGEISSUED] Those messages are gone; say NOOP to hear of it
        """)


@pytest.mark.parametrize("event", ["1: expires", "C> c1 DELETE INBOX"])
def test_retired_meanwhile(play: Play, event: str) -> None:
    """A connection that is to go meanwhile does so behind the command, whose numbers are right until then."""
    play(capabilities=CYRUS)(f"""
        {both()}
        C: sits
        3: clean
        A> a1 FETCH 3 BODY[]
        1> ~ NOOP
        {event}
        {"" if event.startswith("1") else "2> ~ DELETE INBOX"}
        1< * 1 EXPUNGE
        1< ~ OK Done
        1> ~ UID FETCH 13 BODY[]
        1< * 2 FETCH (UID 13 BODY[] "x" FLAGS (\\Seen))
        1< ~ OK Done
        A< * 3 FETCH (BODY[] "x" FLAGS (\\Seen))
        A< a1 OK Done
        1: selected
        """)


def test_left_meanwhile(play: Play) -> None:
    """A session that leaves meanwhile asks for nothing any more."""
    play(capabilities=CYRUS)(f"""
        {both()}
        A> a1 FETCH 3 BODY[]
        1> ~ NOOP
        A: leaves
        1< ~ OK Done
        """)


def test_no_such_selected(play: Play) -> None:
    """A mailbox that the server cannot look at any more, though it says OK, is opened anew before anybody joins."""
    play(capabilities=CYRUS)(f"""
        {both(0)}
        C: sits
        3: clean
        C> c1 SELECT INBOX
        1> ~ NOOP
        1< * NO Mailbox does not exist
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        1< * STATUS INBOX (UIDVALIDITY 7 UIDNEXT 11)
        1< ~ OK Done
        1: selected
        2> ~ SELECT INBOX
        {selected(0, "2")}
        2< ~ OK [READ-WRITE] Done
        {selected(0, "C")}
        C< c1 OK [READ-WRITE] Done
        """)
