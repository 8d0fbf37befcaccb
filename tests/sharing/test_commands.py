"""Commands on the mailbox that is selected: one at a time on the connection, in each session's own numbers."""

from __future__ import annotations

import pytest

from tests.sharing.bench import COURIER, Bench, begins, both, opened, selected
from tests.sharing.conftest import Play


@pytest.mark.parametrize(
    ("sent", "said", "told"),
    [
        ("NOOP", [], []),
        ("CHECK", [], []),
        ("EXPUNGE", ["1 EXPUNGE"], ["1 EXPUNGE"]),
        ("UID EXPUNGE 12", ["2 EXPUNGE"], ["2 EXPUNGE"]),
        ("FETCH 2 (UID FLAGS)", [r"2 FETCH (UID 12 FLAGS (\Seen))"], [r"2 FETCH (UID 12 FLAGS (\Seen))"]),
        ("UID FETCH 12 RFC822.SIZE", ["2 FETCH (UID 12 RFC822.SIZE 9)"], ["2 FETCH (UID 12 RFC822.SIZE 9)"]),
        ("FETCH 1 BODY[]", ['1 FETCH (BODY[] {3}', "\r\nx)"], ['1 FETCH (BODY[] {3}', "\r\nx)"]),
        (r"STORE 1 +FLAGS (\Draft)", [r"1 FETCH (FLAGS (\Seen \Draft))"], [r"1 FETCH (FLAGS (\Seen \Draft))"]),
        (r"UID STORE 11 FLAGS \Draft", [r"1 FETCH (UID 11 FLAGS (\Draft))"], [r"1 FETCH (UID 11 FLAGS (\Draft))"]),
        ("UID COPY 11 other", [], []),
        ("UID MOVE 11 other", ["OK [COPYUID 9 11 1] Moved", "1 EXPUNGE"], ["OK [COPYUID 9 11 1] Moved", "1 EXPUNGE"]),
        ("SEARCH UNSEEN", ["SEARCH 1 3"], ["SEARCH 1 3"]),
        ("UID SEARCH UNSEEN", ["SEARCH 11 13"], ["SEARCH 11 13"]),
        ("SORT (DATE) UTF-8 ALL", ["SORT 3 1 2"], ["SORT 3 1 2"]),
        ("UID SORT (DATE) UTF-8 ALL", ["SORT 13 11 12"], ["SORT 13 11 12"]),
        ("THREAD REFERENCES UTF-8 ALL", ["THREAD (3)(1 2)"], ["THREAD (3)(1 2)"]),
        ("UID THREAD REFERENCES UTF-8 ALL", ["THREAD (13)"], ["THREAD (13)"]),
        ("NOOP", ["OK [ALERT] Be careful", "NO Beware"], ["OK [ALERT] Be careful", "NO Beware"]),
        ("NOOP", ["CAPABILITY IMAP4rev1 X-NEW"], ["CAPABILITY IMAP4rev1 X-NEW"]),
    ],
)  # fmt: skip
def test_passed_on(play: Play, sent: str, said: list[str], told: list[str]) -> None:
    """What means the same here and there is sent as it is, and what is said of it is told."""
    bench = play()
    answer = "\n".join(f"1< * {line}" if not line.startswith("\r") else f"1< {line}" for line in said)
    hears = "\n".join(f"A< * {line}" if not line.startswith("\r") else f"A< {line}" for line in told)
    if "{3}" in answer:
        answer, hears = "1< * 1 FETCH (BODY[] {3}\n1<\n1< x)", "A< * 1 FETCH (BODY[] {3}\nA<\nA< x)"
    bench(f"""
        {begins()}
        A> a1 {sent}
        1> ~ {sent}
        {answer}
        1< ~ OK Done
        {hears}
        A< a1 OK Done
        """)


@pytest.mark.parametrize(
    ("sent", "passed"), [("COPY 1:2 other", "UID COPY 11:12 other"), ("MOVE 3 x", "UID MOVE 13 x")]
)
def test_by_uid(play: Play, sent: str, passed: str) -> None:
    """COPY and MOVE are always by UID."""
    play()(f"""
        {begins()}
        A> a1 {sent}
        1> ~ {passed}
        1< ~ NO [TRYCREATE] No such mailbox
        A< a1 NO [TRYCREATE] No such mailbox
        """)


@pytest.mark.parametrize(
    "sent",
    [
        "CHECK",
        "CLOSE",
        "UNSELECT",
        "EXPUNGE",
        "UID EXPUNGE 1",
        "FETCH 1 UID",
        "UID FETCH 1 FLAGS",
        "STORE 1 FLAGS (x)",
        "COPY 1 x",
        "MOVE 1 x",
        "SEARCH ALL",
        "SORT (DATE) UTF-8 ALL",
        "THREAD REFERENCES UTF-8 ALL",
    ],
)
def test_nothing_selected(play: Play, sent: str) -> None:
    """Without a mailbox they are BAD, and the server hears nothing of them."""
    verb = " ".join(sent.split()[: 1 + sent.startswith("UID ")])
    play()(f"""
        A: sits
        A> a1 {sent}
        A< a1 BAD {verb}: select a mailbox first
        """)


def test_flags_are_told(play: Play) -> None:
    """What one session does to flags the others hear at their next command; .SILENT is loud on the wire."""
    play()(rf"""
        {both()}
        A> a1 STORE 1 +FLAGS.SILENT (\Deleted)
        1> ~ UID STORE 11 +FLAGS (\Deleted)
        1< * 1 FETCH (UID 11 FLAGS (\Deleted \Seen))
        1< ~ OK Done
        A< a1 OK Done
        B> b1 NOOP
        1> ~ NOOP
        1< ~ OK Done
        B< * 1 FETCH (FLAGS (\Deleted \Seen))
        B< b1 OK Done
        """)


def test_expunge_is_held_back(play: Play) -> None:
    """A message that has gone keeps its number until the session may be told; its other commands go by UID."""
    play()(rf"""
        {both()}
        A> a1 EXPUNGE
        1> ~ EXPUNGE
        1< * 1 EXPUNGE
        1< ~ OK Done
        A< * 1 EXPUNGE
        A< a1 OK Done
        B> b1 FETCH 2:3 FLAGS
        1> ~ UID FETCH 12:13 FLAGS
        1< * 1 FETCH (UID 12 FLAGS (\Seen))
        1< * 2 FETCH (UID 13 FLAGS (\Seen))
        1< ~ OK Done
        B< * 2 FETCH (FLAGS (\Seen))
        B< * 3 FETCH (FLAGS (\Seen))
        B< b1 OK Done
        B> b2 FETCH 1 FLAGS
        B< b2 NO [EXPUNGEISSUED] Those messages are gone; say NOOP to hear of it
        B> b3 FETCH 4 FLAGS
        B< b3 BAD There is no message with this number
        B> b4 UID FETCH 12 UID
        1> ~ UID FETCH 12 UID
        1< * 1 FETCH (UID 12)
        1< ~ OK Done
        B< * 2 FETCH (UID 12)
        B< * 1 EXPUNGE
        B< b4 OK Done
        """)


def test_message_unknown_to_the_session(play: Play) -> None:
    """New messages are asked for before a number is looked at: it is not to mean another one."""
    play()(rf"""
        {both()}
        A> a1 NOOP
        1> ~ NOOP
        B> b1 FETCH 4 FLAGS
        1< * 4 EXISTS
        1< ~ OK Done
        1> ~ FETCH 4:4 (UID FLAGS)
        1< * 4 FETCH (UID 14 FLAGS ())
        1< ~ OK Done
        A< * 4 EXISTS
        A< * 0 RECENT
        A< a1 OK Done
        B< * 4 EXISTS
        B< * 0 RECENT
        B< b1 BAD There is no message with this number
        """)


def test_new_while_it_is_asked_for(play: Play) -> None:
    """A message that comes while what is new is asked for is asked for as well, before the command."""
    play()(rf"""
        {both()}
        B> b1 LIST "" *
        2> ~ LIST "" *
        2< ~ OK Done
        B< b1 OK Done
        A> a1 NOOP
        1> ~ NOOP
        B> b2 FETCH * UID
        1< * 4 EXISTS
        1< ~ OK Done
        1> ~ FETCH 4:4 (UID FLAGS)
        1< * 5 EXISTS
        1< * 4 FETCH (UID 14 FLAGS ())
        1< ~ OK Done
        1> ~ FETCH 5:5 (UID FLAGS)
        1< * 5 FETCH (UID 15 FLAGS ())
        1< ~ OK Done
        A< * 5 EXISTS
        A< * 0 RECENT
        A< a1 OK Done
        1> ~ UID FETCH 13 UID
        1< * 3 FETCH (UID 13)
        1< ~ OK Done
        B< * 3 FETCH (UID 13)
        B< * 5 EXISTS
        B< * 0 RECENT
        B< b2 OK Done
        """)


def test_search_by_uid(play: Play) -> None:
    """Results come back in the session's numbers, ESEARCH with its own tag."""
    play()(rf"""
        {both()}
        A> a1 EXPUNGE
        1> ~ EXPUNGE
        1< * 1 EXPUNGE
        1< ~ OK Done
        A< * 1 EXPUNGE
        A< a1 OK Done
        B> b1 SEARCH 1:2
        1> ~ UID SEARCH UID 12 UID 1:13
        1< * SEARCH 12
        1< ~ OK Done
        B< * SEARCH 2
        B< b1 OK Done
        B> b2 SEARCH RETURN (COUNT) SEEN
        1> ~ UID SEARCH RETURN (COUNT) SEEN UID 1:13
        1< * ESEARCH (TAG "~") UID COUNT 2
        1< ~ OK Done
        B< * ESEARCH (TAG "b2") COUNT 2
        B< b2 OK Done
        """)


def test_search_with_a_literal(play: Play) -> None:
    """A string that needs a literal is sent when the server asks, and not where it says no before."""
    play()(f"""
        {begins()}
        A> a1 SEARCH SUBJECT {{1}}
        A< + OK
        A> \xe4
        1> ~ SEARCH SUBJECT {{1}}
        1< + OK
        1> \xe4
        1< * SEARCH 2
        1< ~ OK Done
        A< * SEARCH 2
        A< a1 OK Done
        A> a2 SEARCH SUBJECT {{1}}
        A< + OK
        A> \xe4
        1> ~ SEARCH SUBJECT {{1}}
        1< ~ BAD Not here
        A< a2 BAD Not here
        """)


def test_long_result() -> None:
    """A result is mapped whole, in however many pieces it comes; one that never ends is not waited for."""
    much = "2 " * 50_000
    Bench()(rf"""
        {begins()}
        A> a1 SEARCH ALL
        1> ~ SEARCH ALL
        1< * SEARCH {much}\
        -- that was more than is held back of a line
        1< 3
        1< ~ OK Done
        A< * SEARCH {much}3
        A< a1 OK Done
        """)


def test_close_expunges(play: Play) -> None:
    """CLOSE is EXPUNGE for the server, of which its session does not hear, and the others do."""
    play()(f"""
        {both()}
        A> a1 CLOSE
        1> ~ EXPUNGE
        1< * 2 EXPUNGE
        1< ~ OK Done
        A< a1 OK Close completed
        A> a2 CHECK
        A< a2 BAD CHECK: select a mailbox first
        B> b1 NOOP
        1> ~ NOOP
        1< ~ OK Done
        B< * 2 EXPUNGE
        B< b1 OK Done
        """)


def test_close_in_vain(play: Play) -> None:
    """CLOSE leaves the mailbox, even if nothing may be expunged."""
    play()(f"""
        {begins()}
        A> a1 CLOSE
        1> ~ EXPUNGE
        1< ~ NO Not allowed
        A< a1 OK Close completed
        """)


def test_unselect(play: Play) -> None:
    """UNSELECT is nothing to the server; nor is CLOSE where nothing may be changed."""
    play()(f"""
        {begins()}
        A> a1 UNSELECT
        A< a1 OK Unselect completed
        B: sits
        2: clean
        B> b1 EXAMINE INBOX
        {opened(0, verb="EXAMINE")}
        {selected(0, "B")}
        B< b1 OK [READ-ONLY] Done
        B> b2 CLOSE
        B< b2 OK Close completed
        """)


def test_noop_without_a_mailbox(play: Play) -> None:
    """Nobody has anything to tell."""
    play()("""
        A: sits
        A> a1 NOOP
        A< a1 OK Nothing done
        """)


def test_literal_in_a_result(play: Play) -> None:
    """A result is whole when its line is, whatever stands in it."""
    play()(f"""
        {begins()}
        A> a1 SEARCH RETURN (COUNT) ALL
        1> ~ SEARCH RETURN (COUNT) ALL
        1< * ESEARCH (TAG {{1}}
        1< x) COUNT 3
        1< ~ OK Done
        A< * ESEARCH (TAG "a1") COUNT 3
        A< a1 OK Done
        """)


def test_keywords(play: Play) -> None:
    """New keywords are told at once to whoever runs a command, before what needs them, and later to the others."""
    bench = play()
    bench(
        rf"""
        {both()}
        A> a1 STORE 1 +FLAGS (new)
        1> ~ STORE 1 +FLAGS (new)
        1< * FLAGS (\Seen new)
        1< * 1 FETCH (FLAGS (\Seen new))
        1< ~ OK Done
        A< * FLAGS (\Seen new)
        A< * 1 FETCH (FLAGS (\Seen new))
        A< a1 OK Done
        B> b1 IDLE
        B< + idling
        B< * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft)] Limited
        B< * FLAGS (\Seen new)
        B< * 1 FETCH (FLAGS (\Seen new))
        1> ~ IDLE
        1< + idling
        1< * FLAGS (\Seen new more)
        1< * X of which nobody {{1}}
        1< knows what it is
        B< * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft)] Limited
        B< * FLAGS (\Seen new more)
        """
    )


@pytest.mark.parametrize(("outcome", "asked"), [("OK", "1> ~ UID FETCH 11:12 (FLAGS)\n1< ~ OK Done"), ("NO", "")])
def test_copy_on_courier(play: Play, outcome: str, asked: str) -> None:
    """Where a COPY makes the server forget what others did to the flags, they are asked for behind it."""
    play(capabilities=COURIER + b" ACL2=UNION")(f"""
        {begins()}
        A> a1 COPY 1:2 other
        1> ~ UID COPY 11:12 other
        1< ~ {outcome} Done
        {asked}
        A< a1 {outcome} Done
        """)
