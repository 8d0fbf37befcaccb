"""SELECT and EXAMINE in a share: the first one is the server's, the others are answered from what is known."""

from __future__ import annotations

from tests.sharing.bench import COURIER, begins, both, looked, opened, selected
from tests.sharing.conftest import Play


def test_first(play: Play) -> None:
    """The server selects, what is not known of the messages is asked for, and the session gets what it said."""
    bench = play()
    bench(r"""
        A: sits
        A> a1 SELECT "my box"
        1> ~ SELECT "my box"
        1< * OK [CLOSED] Previous mailbox closed.
        1< * FLAGS (\Seen one)
        1< * OK [PERMANENTFLAGS (\Seen one \*)] Flags permitted.
        1< * 2 EXISTS
        1< * 1 RECENT
        1< * OK [UNSEEN 2] First unseen.
        1< * OK [UIDVALIDITY 7] UIDs valid
        1< * OK [UIDNEXT 13] Predicted next UID
        1< * OK [HIGHESTMODSEQ 9] Highest
        1< ~ OK [READ-WRITE] Select completed.
        1> ~ FETCH 1:2 (UID FLAGS)
        1< * 1 FETCH (UID 11 FLAGS (\Seen))
        1< * 2 FETCH (UID 12 FLAGS (\Recent one))
        1< ~ OK Fetch completed.
        A< * FLAGS (\Seen one)
        A< * OK [PERMANENTFLAGS (\Seen one \*)] Flags permitted.
        A< * 2 EXISTS
        A< * 1 RECENT
        A< * OK [UNSEEN 2] First unseen.
        A< * OK [UIDVALIDITY 7] UIDs valid
        A< * OK [UIDNEXT 13] Predicted next UID
        A< * OK [HIGHESTMODSEQ 9] Highest
        A< a1 OK [READ-WRITE] Select completed.
        """)
    assert bench.counts == {"opened": 1}


def test_joined(play: Play) -> None:
    """Another session gets the same lines as things stand then: nothing is recent, nothing is of the moment."""
    bench = play()
    bench(rf"""
        A: sits
        A> a1 SELECT INBOX
        1> ~ SELECT INBOX
        {selected(2, "1", recent=1)}
        1< * OK [UNSEEN 2] First unseen.
        1< * OK [HIGHESTMODSEQ 9] Highest
        1< ~ OK [READ-WRITE] Done
        1> ~ FETCH 1:2 (UID FLAGS)
        1< * 1 FETCH (UID 11 FLAGS (\Seen))
        1< * 2 FETCH (UID 12 FLAGS (\Recent))
        1< ~ OK Done
        {selected(2, "A", recent=1)}
        A< * OK [UNSEEN 2] First unseen.
        A< * OK [HIGHESTMODSEQ 9] Highest
        A< a1 OK [READ-WRITE] Done
        B: sits
        B> b1 SELECT inbox
        1> ~ NOOP
        1< * 2 FETCH (FLAGS (\Seen \Recent))
        1< * 3 EXISTS
        1< * 1 RECENT
        1< ~ OK Done
        1> ~ FETCH 3:3 (UID FLAGS)
        1< * 3 FETCH (UID 13 FLAGS (\Recent))
        1< ~ OK Done
        1> ~ STATUS inbox (UIDVALIDITY UIDNEXT)
        1< * STATUS INBOX (UIDVALIDITY 7 UIDNEXT 14)
        1< ~ OK [CLIENTBUG] Done
        B< * FLAGS (\Answered \Flagged \Deleted \Seen \Draft)
        B< * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft)] Limited
        B< * 3 EXISTS
        B< * 1 RECENT
        B< * OK [UIDVALIDITY 7] Ok
        B< * OK [UIDNEXT 14] Ok
        B< * OK [UNSEEN 3] First unseen.
        B< b1 OK [READ-WRITE] Done
        A> a2 NOOP
        1> ~ NOOP
        1< ~ OK Done
        A< * 2 FETCH (FLAGS (\Seen \Recent))
        A< * 3 EXISTS
        A< * 1 RECENT
        A< a2 OK Done
        """)
    assert bench.counts == {"opened": 1, "joined": 1}


def test_while_it_is_opened(play: Play) -> None:
    """Who selects a mailbox that is being opened waits for it; it is looked at again, since what was said is old."""
    play()(f"""
        A: sits
        B: sits
        2: clean
        A> a1 SELECT INBOX
        1> ~ SELECT INBOX
        B> b1 SELECT INBOX
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        {selected(0, "A")}
        A< a1 OK [READ-WRITE] Done
        {looked(following=11)}
        {selected(0, "B")}
        B< b1 OK [READ-WRITE] Done
        """)


def test_refused_while_it_is_opened(play: Play) -> None:
    """Who waits for one that cannot be opened asks again, since it may be there by now."""
    play()("""
        A: sits
        B: sits
        2: clean
        A> a1 SELECT nowhere
        1> ~ SELECT nowhere
        B> b1 SELECT nowhere
        1< ~ NO [NONEXISTENT] No such mailbox
        A< a1 NO [NONEXISTENT] No such mailbox
        1> ~ SELECT nowhere
        1< ~ NO [NONEXISTENT] No such mailbox
        B< b1 NO [NONEXISTENT] No such mailbox
        A> a2 CHECK
        A< a2 BAD CHECK: select a mailbox first
        """)


def test_joined_too_late(play: Play) -> None:
    """A session that was to join a connection which is being freed has its mailbox opened elsewhere."""
    play()(f"""
        {begins()}
        B: sits
        : 10
        2: clean
        A> a1 UNSELECT
        A< a1 OK Unselect completed
        B> b1 APPEND INBOX {{1}}
        1> ~ UNSELECT
        A> a2 SELECT INBOX
        1< ~ OK Done
        1> ~ APPEND INBOX {{1}}
        3: wanted
        3: opens
        {opened(3, "3")}
        {selected(3, "A")}
        A< a2 OK [READ-WRITE] Done
        """)


def test_examine(play: Play) -> None:
    """EXAMINE has a connection of its own, and takes nobody's \\Recent."""
    play()(f"""
        {begins()}
        B: sits
        B> b1 EXAMINE INBOX
        2> ~ EXAMINE INBOX
        {selected(1, "2", recent=1)}
        2< ~ OK [READ-ONLY] Done
        2> ~ FETCH 1:1 (UID FLAGS)
        2< * 1 FETCH (UID 11 FLAGS (\\Recent))
        2< ~ OK Done
        {selected(1, "B", recent=1)}
        B< * OK [UNSEEN 1] First unseen
        B< b1 OK [READ-ONLY] Done
        B> b2 FETCH 1 FLAGS
        2> ~ FETCH 1 FLAGS
        2< * 1 FETCH (FLAGS (\\Recent))
        2< ~ OK Done
        B< * 1 FETCH (FLAGS (\\Recent))
        B< b2 OK Done
        """)


def test_read_only_select(play: Play) -> None:
    """A SELECT that the server makes READ-ONLY is: CLOSE expunges nothing."""
    play()(f"""
        A: sits
        A> a1 SELECT INBOX
        1> ~ SELECT INBOX
        {selected(0, "1")}
        1< ~ OK [read-only] Done
        {selected(0, "A")}
        A< a1 OK [read-only] Done
        A> a2 CLOSE
        A< a2 OK Close completed
        """)


def test_another_mailbox(play: Play) -> None:
    """SELECT leaves the mailbox before it, says CLOSED where the server has QRESYNC, and uses the connection again."""
    play()(f"""
        {begins()}
        A> a1 SELECT other
        A< * OK [CLOSED] Previous mailbox closed.
        1> ~ SELECT other
        1< * OK [CLOSED] Previous mailbox closed.
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        {selected(0, "A")}
        A< a1 OK [READ-WRITE] Done
        """)


def test_another_mailbox_without_closed(play: Play) -> None:
    """CLOSED is not said where the server would not; what the server lacks is left out, UNSEEN as well."""
    play(capabilities=COURIER)(r"""
        A: sits
        A> a1 SELECT INBOX
        1> ~ SELECT INBOX
        1< * FLAGS (\Seen)
        1< * OK [PERMANENTFLAGS (\Seen)] Limited
        1< * 1 EXISTS
        1< * 0 RECENT
        1< * OK [UIDVALIDITY 7] Ok
        1< ~ OK [READ-WRITE] Ok
        1> ~ FETCH 1:1 (UID FLAGS)
        1< * 1 FETCH (UID 11 FLAGS ())
        1< ~ OK Done
        A< * FLAGS (\Seen)
        A< * OK [PERMANENTFLAGS (\Seen)] Limited
        A< * 1 EXISTS
        A< * 0 RECENT
        A< * OK [UIDVALIDITY 7] Ok
        A< a1 OK [READ-WRITE] Ok
        A> a2 SELECT nowhere
        1> ~ SELECT nowhere
        1< ~ NO No such mailbox
        A< a2 NO No such mailbox
        """)


def test_selected_again(play: Play) -> None:
    """The same mailbox selected again is looked at, like one that another has: its view is a new one."""
    play()(rf"""
        {begins()}
        A> a1 SELECT INBOX
        A< * OK [CLOSED] Previous mailbox closed.
        1> ~ NOOP
        1< * 1 EXPUNGE
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        1< * STATUS INBOX (UIDVALIDITY 7 UIDNEXT 14)
        1< ~ OK Done
        {selected(2, "A").replace("UIDNEXT 13", "UIDNEXT 14")}
        A< a1 OK [READ-WRITE] Done
        """)


def test_uidvalidity_changed(play: Play) -> None:
    """A mailbox that has become another one is opened anew for the newcomer; whoever was there is ended."""
    play()(rf"""
        {both()}
        C: sits
        3: clean
        C> c1 SELECT INBOX
        {looked(validity=8)}
        1: selected
        2> ~ SELECT INBOX
        {selected(0, "2").replace("UIDVALIDITY 7", "UIDVALIDITY 8")}
        2< ~ OK [READ-WRITE] Done
        {selected(0, "C").replace("UIDVALIDITY 7", "UIDVALIDITY 8")}
        C< c1 OK [READ-WRITE] Done
        A> a1 NOOP
        2> ~ NOOP
        2< ~ OK Done
        2> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        2< * STATUS INBOX (UIDVALIDITY 8 UIDNEXT 11)
        2< ~ OK Done
        A: ends lost
        """)


def test_literal_name(play: Play) -> None:
    """A name that needs a literal is sent as one, when the server asks for it."""
    play()(f"""
        A: sits
        A> a1 SELECT {{1}}
        A< + OK
        A> ä
        1> ~ SELECT {{1}}
        1< + go on
        1> ä
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        {selected(0, "A")}
        A< a1 OK [READ-WRITE] Done
        """)


def test_other_lines(play: Play) -> None:
    """What the server says besides, when it selects, is no part of it."""
    play()(f"""
        A: sits
        A> a1 SELECT INBOX
        1> ~ SELECT INBOX
        1< * NO Beware
        {selected(0, "1")}
        1< ~ OK [READ-WRITE] Done
        {selected(0, "A")}
        A< a1 OK [READ-WRITE] Done
        """)


def test_literal_in_status(play: Play) -> None:
    """A name that comes back as a literal hides nothing: another UIDVALIDITY is seen."""
    play()(f"""
        {begins(0)}
        B: sits
        B> b1 SELECT INBOX
        1> ~ NOOP
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        1< * STATUS {{5}}
        1< INBOX (UIDVALIDITY 8 UIDNEXT 11)
        1< ~ OK Done
        1: selected
        2> ~ SELECT INBOX
        """)


def test_following_uid(play: Play) -> None:
    """UIDNEXT is the one that STATUS has told, where that is higher: messages may have come and gone."""
    play()(f"""
        {begins(0)}
        B: sits
        B> b1 SELECT INBOX
        {looked(following=20)}
        {selected(0, "B").replace("UIDNEXT 11", "UIDNEXT 20")}
        B< b1 OK [READ-WRITE] Done
        """)


def test_retired_while_it_is_looked_at(play: Play) -> None:
    """A connection that is to go while it is looked at is joined by nobody."""
    play()(f"""
        {begins(0)}
        B: sits
        B> b1 SELECT INBOX
        1> ~ NOOP
        1: expires
        1< ~ OK Done
        1> ~ STATUS INBOX (UIDVALIDITY UIDNEXT)
        1< ~ OK Done
        1: selected
        {opened(0, "2")}
        {selected(0, "B")}
        B< b1 OK [READ-WRITE] Done
        """)
