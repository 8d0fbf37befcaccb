"""Sessions that need a connection of their own: why, how they get it, and what they are told on the way."""

from __future__ import annotations

import pytest

from imapgate.model.pool_mode import IdleMode
from imapgate.session.states import Connection
from tests.sharing.bench import begins, both, filled, opened, opens, selected
from tests.sharing.conftest import Play


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("ENABLE QRESYNC", "ENABLE"),
        ("FETCH 1 (MODSEQ)", "CONDSTORE"),
        ("UID FETCH 1:* FLAGS (CHANGEDSINCE 5)", "CONDSTORE"),
        ("STORE 1 (UNCHANGEDSINCE 5) FLAGS ()", "CONDSTORE"),
        ("SEARCH MODSEQ 5", "CONDSTORE"),
        ("STATUS other (HIGHESTMODSEQ)", "CONDSTORE"),
        ("SEARCH RETURN (UPDATE) ALL", "search context"),
        ("UID SEARCH RETURN (SAVE) ALL", "SEARCHRES"),
        ("STORE 1 ANNOTATION (/comment (value.priv x))", "STORE of what is no flag"),
        ("ESEARCH IN (personal) ALL", "ESEARCH"),
        ("SCAN \"\" * x", "SCAN"),
        ("XFROB a b", "XFROB"),
    ],
)  # fmt: skip
def test_reasons(play: Play, sent: str, reason: str) -> None:
    """A session that says this has a connection of its own for good; all that it says goes there."""
    play(extra_verbs=["XFROB"])(f"""
        {both()}
        A> a1 {sent}
        2> ~ SELECT INBOX
        {selected(3, "2")}
        2< ~ OK [READ-WRITE] Done
        {filled([11, 12, 13], "2")}
        A: pinned {reason}
        2> ~ {sent}
        2< ~ OK Done
        A< a1 OK Done
        A> a2 FETCH 1 FLAGS
        2> ~ FETCH 1 FLAGS
        2< * 1 FETCH (FLAGS ())
        2< * 2 EXPUNGE
        2< ~ OK Done
        A< * 1 FETCH (FLAGS ())
        A< * 2 EXPUNGE
        A< a2 OK Done
        B> b1 NOOP
        1> ~ NOOP
        """)


def test_nothing_selected(play: Play) -> None:
    """Without a mailbox it gets any connection on which nothing is selected, and keeps it until it leaves."""
    play()(f"""
        A: sits
        A> a1 ENABLE QRESYNC
        A: pinned ENABLE
        1> ~ ENABLE QRESYNC
        A> a2 SELECT INBOX
        1> ~ SELECT INBOX
        B: sits
        A: leaves
        1: broken
        {opens(0, "B", "2")}
        """)


def test_select_with_condstore(play: Play) -> None:
    """A SELECT that pins leaves the mailbox before it, and says so."""
    play()(f"""
        {begins()}
        A> a1 SELECT other (CONDSTORE)
        A< * OK [CLOSED] Previous mailbox closed.
        1> ~ UNSELECT
        1< ~ OK Done
        A: pinned CONDSTORE
        1> ~ SELECT other (CONDSTORE)
        1< * OK [HIGHESTMODSEQ 3] Ok
        1< ~ NO No such mailbox
        A< * OK [HIGHESTMODSEQ 3] Ok
        A< a1 NO No such mailbox
        A> a2 CHECK
        1> ~ CHECK
        """)


def test_relayed_idle(play: Play) -> None:
    """Where IDLE is relayed, who idles has a connection of its own."""
    play(idle=IdleMode.RELAY)(f"""
        {both(1)}
        A> a1 IDLE
        {opened(1, "2")}
        A: pinned IDLE
        2> ~ IDLE
        2< + idling
        A< + idling
        2< * 2 EXISTS
        A< * 2 EXISTS
        : 500
        A> DONE
        2> DONE
        2< ~ OK Done
        A< a1 OK Done
        """)


def test_nonsense_while_it_idles(play: Play) -> None:
    """What no session of this gate writes there ends it."""
    play(idle=IdleMode.RELAY)("""
        A: sits
        A> a1 IDLE
        A: pinned IDLE
        1> ~ IDLE
        1< + idling
        A< + idling
        A> NONSENSE
        A: ends protocol
        1: broken
        """)


def test_store_in_examine(play: Play) -> None:
    """STORE in EXAMINE is for the server to judge, and for nobody else to hear of."""
    play()(f"""
        A: sits
        {opens(1, verb="EXAMINE")}
        A> a1 STORE 1 FLAGS ()
        {opened(1, verb="EXAMINE")}
        A: pinned STORE in EXAMINE
        1> ~ STORE 1 FLAGS ()
        """)


def test_differences(play: Play) -> None:
    """What the other connection knows better is told before the command: no more and no less."""
    play()(rf"""
        {both()}
        A> a1 SCAN "" * x
        2> ~ SELECT INBOX
        {selected(3, "2", recent=1)}
        2< ~ OK [READ-WRITE] Done
        2> ~ FETCH 1:3 (UID FLAGS)
        2< * 1 FETCH (UID 12 FLAGS (\Seen \Draft))
        2< * 2 FETCH (UID 13 FLAGS (\Seen))
        2< * 3 FETCH (UID 20 FLAGS (\Recent))
        2< ~ OK Done
        A< * 2 FETCH (FLAGS (\Seen \Draft))
        A< * 1 EXPUNGE
        A< * 3 EXISTS
        A< * 1 RECENT
        A: pinned SCAN
        2> ~ SCAN "" * x
        """)


def test_held_back(play: Play) -> None:
    """Where a number might mean another message by then, the command is not done; a second try is."""
    play()(rf"""
        {both()}
        A> a1 FETCH 2 MODSEQ
        2> ~ SELECT INBOX
        {selected(2, "2")}
        2< ~ OK [READ-WRITE] Done
        {filled([12, 13], "2")}
        2: selected
        A< a1 NO [EXPUNGEISSUED] The mailbox has changed; try again after NOOP
        A> a2 NOOP
        1> ~ NOOP
        1< * 1 EXPUNGE
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        1< ~ OK Done
        1> ~ NOOP
        1< ~ OK Done
        A< * 1 EXPUNGE
        A< a2 OK Done
        """)


def test_another_mailbox(play: Play) -> None:
    """A mailbox that has become another one ends the session."""
    play()(f"""
        {both()}
        A> a1 SCAN "" * x
        2> ~ SELECT INBOX
        {selected(3, "2").replace("UIDVALIDITY 7", "UIDVALIDITY 8")}
        2< ~ OK [READ-WRITE] Done
        {filled([11, 12, 13], "2")}
        A: ends lost
        2: selected
        """)


def test_no_mailbox(play: Play) -> None:
    """So does one that is no more."""
    play()(f"""
        {begins()}
        A> a1 SCAN "" * x
        1> ~ SELECT INBOX
        1< ~ NO No such mailbox
        A: ends lost
        1: clean
        """)


def test_no_connection(play: Play) -> None:
    """Where there is no connection it is told so, and goes on where it was."""
    play()(f"""
        {both()}
        : 10
        2: clean
        A> a1 SCAN "" * x
        3: wanted
        3: refused
        A< a1 NO [UNAVAILABLE] The mail server cannot be reached; try again later
        A> a2 NOOP
        1> ~ NOOP
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        1< ~ OK Done
        1> ~ NOOP
        1< ~ OK Done
        A< a2 OK Done
        """)


@pytest.mark.parametrize("event", ["A: leaves", "2: lost"])
def test_interrupted(play: Play, event: str) -> None:
    """A session that leaves, or loses its connection, while that is prepared is over; the other one goes on."""
    over = "A: ends lost" if event == "2: lost" else "2< ~ OK [READ-WRITE] Done\n2: selected"
    play()(f"""
        {both()}
        A> a1 SCAN "" * x
        2> ~ SELECT INBOX
        {event}
        {over}
        B> b1 NOOP
        1> ~ NOOP
        """)


def test_lost_before_it_began(play: Play) -> None:
    """A connection that is lost before anything was asked there is replaced, and nobody notices."""
    play()(f"""
        {begins()}
        A> a1 IDLE
        A< + idling
        1> ~ IDLE
        1< + idling
        A> DONE
        A> a2 SCAN "" * x
        A< a1 OK Idle completed
        1> DONE
        1: lost
        2: wanted
        2: opens
        {opened(3, "2")}
        A: pinned SCAN
        2> ~ SCAN "" * x
        """)


def test_lost(play: Play) -> None:
    """A session whose own connection is lost is over."""
    play()("""
        A: sits
        A> a1 SCAN "" * x
        A: pinned SCAN
        1> ~ SCAN "" * x
        1: lost
        A: ends lost
        """)


def test_nobody_waits_there(play: Play) -> None:
    """Nothing is asked on a connection that is being made somebody's own."""
    play(size=2)(f"""
        {both()}
        B> b1 NOOP
        1> ~ NOOP
        A> a1 SCAN "" * x
        2> ~ SELECT INBOX
        C: sits
        3: clean
        C> c1 LIST "" *
        1< ~ OK Done
        B< b1 OK Done
        1> ~ LIST "" *
        """)


def test_state(play: Play) -> None:
    """Its own connection is known to have a mailbox selected, until that is closed there."""
    bench = play()
    bench(f"""
        {begins(1)}
        A> a1 SCAN "" * x
        {opened(1)}
        A: pinned SCAN
        1> ~ SCAN "" * x
        1< ~ OK Done
        A< a1 OK Done
        """)
    errand = bench.seats["A"].errand
    assert errand is not None
    assert errand.connection is Connection.SELECTED
    bench("""
        A> a2 CLOSE
        1> ~ CLOSE
        1< ~ OK Done
        A< a2 OK Done
        """)
    assert bench.seats["A"].errand is errand
    assert bench.share.seats
