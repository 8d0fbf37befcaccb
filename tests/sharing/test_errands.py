"""Commands that concern no selected mailbox: on whichever connection they do no harm."""

from __future__ import annotations

import pytest

from tests.sharing.bench import COURIER, begins, both, opened, opens, selected
from tests.sharing.conftest import Play


@pytest.mark.parametrize(
    "sent",
    ["CREATE x", "SUBSCRIBE other", "LSUB \"\" *", "STATUS other (MESSAGES)", "NAMESPACE", "GETQUOTAROOT other",
     "GETACL other", "MYRIGHTS other", "GETMETADATA other /private/comment", "XLIST \"\" *"],
)  # fmt: skip
def test_beside(play: Play, sent: str) -> None:
    """They are done beside a mailbox, where no other connection is."""
    play()(f"""
        {begins()}
        A> a1 {sent}
        1> ~ {sent}
        1< * SOMETHING of it {{1}}
        1< x and more
        1< * OK [ALERT] and that
        1< ~ NO or not
        A< * SOMETHING of it {{1}}
        A< x and more
        A< * OK [ALERT] and that
        A< a1 NO or not
        """)


@pytest.mark.parametrize(
    "sent",
    ["STATUS INBOX (MESSAGES)", 'LIST "" * RETURN (STATUS (MESSAGES))', "DELETE other", "RENAME a b",
     "SETACL other x lr", "SETQUOTA x (STORAGE 5)", "GETACL INBOX"],
)  # fmt: skip
def test_not_beside(play: Play, sent: str) -> None:
    """Some, and those about the very mailbox, get a connection on which nothing is selected."""
    play()(f"""
        {begins()}
        A> a1 {sent}
        2: wanted
        2: opens
        2> ~ {sent}
        2< ~ OK Done
        A< a1 OK Done
        """)


def test_where_nobody_waits(play: Play) -> None:
    """Of several connections it is one on which nothing is done, then one on which nothing is selected."""
    play()(f"""
        {both()}
        A> a1 LIST "" %
        2> ~ LIST "" %
        B> b1 LIST "" *
        1> ~ LIST "" *
        1< * 4 EXISTS
        1< ~ OK Done
        B< b1 OK Done
        1> ~ FETCH 4:4 (UID FLAGS)
        2< ~ OK Done
        A< a1 OK Done
        1< * 4 FETCH (UID 14 FLAGS ())
        1< ~ OK Done
        """)


def test_behind_a_command(play: Play) -> None:
    """Where there is no other it waits, and is done in its turn."""
    play(size=1)(f"""
        {begins()}
        B: sits
        2: clean
        A> a1 NOOP
        1> ~ NOOP
        B> b1 LIST "" *
        1< ~ OK Done
        A< a1 OK Done
        1> ~ LIST "" *
        1< * LIST () "/" INBOX
        1< ~ OK Done
        B< * LIST () "/" INBOX
        B< b1 OK Done
        """)


def test_no_connection(play: Play) -> None:
    """Where none is to be had the session is told so, and goes on."""
    play()(f"""
        {begins()}
        A> a1 DELETE other
        A> a2 NOOP
        2: wanted
        2: refused
        A< a1 NO [UNAVAILABLE] The mail server cannot be reached; try again later
        1> ~ NOOP
        1< ~ OK Done
        A< a2 OK Done
        """)


def test_delete(play: Play) -> None:
    """Who idles in a mailbox that is deleted comes back at once, and goes again when it is deleted indeed."""
    play()(f"""
        {both(0)}
        B> b1 IDLE
        B< + idling
        1> ~ IDLE
        1< + idling
        A> a1 DELETE INBOX
        1> DONE
        2> ~ SELECT INBOX
        1< ~ OK Done
        1: selected
        {selected(0, "2")}
        2< ~ OK [READ-WRITE] Done
        2> ~ UNSELECT
        3: wanted
        2< ~ OK Done
        2> ~ DELETE INBOX
        3: opens
        3> ~ SELECT INBOX
        {selected(0, "3")}
        3< ~ OK [READ-WRITE] Done
        3> ~ IDLE
        3< + idling
        2< ~ OK Done
        A< a1 OK Done
        3> DONE
        3< ~ OK Done
        3> ~ SELECT INBOX
        3< ~ NO No such mailbox
        B: ends lost
        3: clean
        A> a2 NOOP
        2> ~ SELECT INBOX
        2< ~ NO No such mailbox
        A: ends lost
        2: clean
        """)


@pytest.mark.parametrize(
    ("verb", "name"), [("DELETE box", "box"), ("DELETE box", "box/a"), ("RENAME box x", "box.a.b")]
)
def test_retired(play: Play, verb: str, name: str) -> None:
    """DELETE and RENAME take the mailbox, and what is below it, from those who look at it; another one stays."""
    play()(f"""
        A: sits
        {opens(1, name=name)}
        B: sits
        {opens(1, "B", "2", name="box2")}
        B> b1 {verb}
        1: selected
        3: wanted
        3: opens
        3> ~ {verb}
        3< ~ OK Done
        B< b1 OK Done
        A> a1 NOOP
        3> ~ SELECT {name}
        3< ~ NO No such mailbox
        A: ends lost
        B> b2 NOOP
        2> ~ NOOP
        2< ~ OK Done
        B< b2 OK Done
        """)


def test_retired_in_vain(play: Play) -> None:
    """If nothing comes of a DELETE, who looked at the mailbox goes on, and notices nothing."""
    play()(f"""
        {begins(1)}
        A> a1 DELETE INBOX
        1: selected
        2: wanted
        2: opens
        2> ~ DELETE INBOX
        2< ~ NO Not that one
        A< a1 NO Not that one
        A> a2 NOOP
        {opened(1, "2")}
        2> ~ NOOP
        2< ~ OK Done
        A< a2 OK Done
        """)


def test_retired_while_it_is_read(play: Play) -> None:
    """A command that is under way is ended first; its session knows the numbers that it was told until then."""
    bench = play()
    bench(rf"""
        {both()}
        B> b1 FETCH 1 FLAGS
        1> ~ FETCH 1 FLAGS
        A> a1 DELETE INBOX
        2> ~ DELETE INBOX
        1< * 1 FETCH (FLAGS (\Seen))
        1< * 4 EXISTS
        1< ~ OK Done
        B< * 1 FETCH (FLAGS (\Seen))
        1> ~ FETCH 4:4 (UID FLAGS)
        1< * 4 FETCH (UID 14 FLAGS ())
        1< ~ OK Done
        B< * 4 EXISTS
        B< * 0 RECENT
        B< b1 OK Done
        1: selected
        2< ~ NO Not that one
        A< a1 NO Not that one
        """)
    assert bench.counts["parked"] == 2


def test_retired_before_a_command(play: Play) -> None:
    """What waits on a connection that is retired meanwhile is done elsewhere."""
    play()(f"""
        {both(0)}
        A> a1 NOOP
        1> ~ NOOP
        B> b1 CLOSE
        C: sits
        3: clean
        C> c1 RENAME INBOX x
        2> ~ RENAME INBOX x
        1< ~ OK Done
        A< a1 OK Done
        1> ~ SELECT INBOX
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        1> ~ EXPUNGE
        2< ~ NO No
        C< c1 NO No
        1< ~ OK Done
        1: selected
        B< b1 OK Close completed
        """)


def test_copied_into_a_mailbox(play: Play) -> None:
    """Those who idle in a mailbox into which something is copied see it at once."""
    play()(rf"""
        A: sits
        {opens(1, name="other")}
        B: sits
        {opens(0, "B", "2")}
        B> b1 IDLE
        B< + idling
        2> ~ IDLE
        2< + idling
        A> a1 COPY 1 INBOX
        1> ~ UID COPY 11 INBOX
        1< ~ OK [COPYUID 7 11 11] Done
        A< a1 OK [COPYUID 7 11 11] Done
        2> DONE
        2< ~ OK Done
        2> ~ NOOP
        2< * 1 EXISTS
        2< ~ OK Done
        2> ~ FETCH 1:1 (UID FLAGS)
        2< * 1 FETCH (UID 11 FLAGS (\Recent))
        2< ~ OK Done
        2> ~ IDLE
        B< * 1 EXISTS
        B< * 1 RECENT
        """)


def test_copied_to_nowhere(play: Play) -> None:
    """Nothing is looked at for what was not copied, nor where nobody idles."""
    play()(f"""
        {both(1)}
        A> a1 COPY 1 other
        1> ~ UID COPY 11 other
        1< ~ NO [TRYCREATE] No
        A< a1 NO [TRYCREATE] No
        A> a2 COPY 1 INBOX
        1> ~ UID COPY 11 INBOX
        1< ~ OK Done
        A< a2 OK Done
        """)


def test_nothing_selected_without_unselect(play: Play) -> None:
    """A server without UNSELECT is made to leave a mailbox by a SELECT that cannot succeed."""
    play(capabilities=COURIER)(f"""
        {begins()}
        A> a1 UNSELECT
        A< a1 OK Unselect completed
        A> a2 DELETE x
        1> ~ SELECT ""
        1< ~ NO No such mailbox
        1> ~ DELETE x
        1< ~ OK Done
        A< a2 OK Done
        """)
