"""Responses that are judged before the client sees them: the upstream's stream stands still, and the order stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.failure import Failure
from imapgate.model.passing import Response
from imapgate.model.pool_mode import PoolMode
from imapgate.model.verdict import CONTINUE, Event, Interests
from imapgate.session import effects as wants
from imapgate.session.link import Link
from imapgate.session.session import LOOKS
from tests.session.playbook import NOT_TRAILING, Watching, Way, logged_in, passing, watched

LIST = Interests(responses=frozenset(["LIST", "STATUS", "OK", "SEARCH"]))
NUMBERS = Interests(responses=frozenset(["EXISTS", "EXPUNGE"]))
FETCH = Interests(fetch=True)
COMPLETED = Interests(completions=frozenset(["DELETE", "SELECT"]), events=frozenset([Event.SELECTED]))
LINES = (Way.LINES,)
CHUNKS = (Way.CHUNKS,)


def test_a_response_is_judged() -> None:
    """A26: what is behind it waits; it passes, is left out, or is another; the mailbox is what it is called."""
    watched(
        """
        C: a1 LIST "" *
        U> g1 LIST "" *
        U< * LIST () "/" &AOk-
        U< * LIST () "/" "b"
        U< * LIST (\\A) NIL {3}
        U< c/d
        U< * LSUB () "/" e
        U< g1 OK done
        <- judge upstream untagged LIST () "/" &AOk- of é
        -> judged upstream continue
        C> * LIST () "/" &AOk-
        <- judge upstream untagged LIST () "/" "b" of b
        -> judged upstream reject
        <- judge upstream untagged LIST (\\A) NIL {3}<CR><LF>c/d of c/d
        -> judged upstream replace LIST () "/" other
        C> * LIST () "/" other
        C> * LSUB () "/" e
        C> a1 OK done
        """,
        LIST,
        ways=NOT_TRAILING[:2],
    )


def test_a24_what_is_no_response_cannot_be_put_in_the_place_of_one() -> None:
    """A24: the plugin is told before the client sees any of it; the others see what it would be."""
    session = logged_in(watching=Watching(LIST))
    (ask,) = session.upstream_received(b"* LIST () NIL x\r\n")
    assert isinstance(ask, wants.Ask)
    assert isinstance(ask.question, wants.Judge)
    parse = ask.question.parse
    assert parse is not None
    assert parse(b"3 exists") == Response("EXISTS", b"3 exists")
    assert parse(b'LIST () "/" inbox') == Response("LIST", b'LIST () "/" inbox', "INBOX")
    assert parse(b"SEARCH") == Response("SEARCH", b"SEARCH")
    for line in (b"", b"PREAUTH hi", b"!! x", b"3"):
        with pytest.raises(ValueError, match="no untagged response"):
            parse(line)


def test_octet_by_octet() -> None:
    """The same where everything comes in parts."""
    watched(
        """
        C: a1 LIST "" *
        U> g1 LIST "" *
        U< * LIST () NIL {3}
        U<. x{1<CRLF>
        U< * 5 EXISTS
        U< g1 OK done
        C> * LIST () NIL {3}
        C> x{1
        C> * 5 EXISTS
        C> a1 OK done
        """,
        LIST,
        judge=passing,
    )


def test_status_lines_and_what_has_no_mailbox() -> None:
    """A plugin may see any untagged line but the gate's own business goes on: tags are mapped, codes are masked."""
    watched(
        """
        C: a1 NOOP
        U> g1 NOOP
        U< * OK [CAPABILITY IMAP4rev1 XSECRET] hi
        <- judge upstream untagged OK [CAPABILITY IMAP4rev1 XSECRET] hi
        -> judged upstream continue
        C> * OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] hi
        """,
        LIST,
    )


def test_numbered_responses() -> None:
    """EXISTS and its like are judged one by one, wherever they stand, and nowhere else."""
    watched(
        """
        C: a1 NOOP
        U> g1 NOOP
        U< * 1 FETCH (BODY[] {12}
        U< * 9 EXISTS<CR><LF>)
        U< * 3 EXPUNGE
        U< * 2 RECENT
        U< * 4 exists
        U< * 2 FETCH (FLAGS ())
        U< g1 OK done
        C> * 1 FETCH (BODY[] {12}
        C> * 9 EXISTS
        C> )
        <- judge upstream untagged 3 EXPUNGE
        -> judged upstream continue
        C> * 3 EXPUNGE
        C> * 2 RECENT
        <- judge upstream untagged 4 exists
        -> judged upstream replace 5 EXISTS
        C> * 5 EXISTS
        C> * 2 FETCH (FLAGS ())
        C> a1 OK done
        """,
        NUMBERS,
        ways=NOT_TRAILING[:2],
    )


def test_what_only_looks_like_a_number() -> None:
    """The rest of a line is not taken for a response, whatever it says."""
    session = logged_in(watching=Watching(NUMBERS))
    session.client_received(b"a1 NOOP\r\n")
    assert sent(session.upstream_received(b"* 1 FETCH (X ")) == b"* 1 FETCH (X "
    assert sent(session.upstream_received(b"* 3 EXISTS\r\n* 4 RECENT\r\n")) == b"* 3 EXISTS\r\n* 4 RECENT\r\n"


def sent(effects: list[wants.Effect]) -> bytes:
    """What the client is sent."""
    return b"".join(effect.data for effect in effects if isinstance(effect, wants.SendClient))


def test_fetch_items() -> None:
    """Plugins are told of each message behind its response, one by one; the client has it already."""
    watched(
        """
        C: a1 FETCH 1:3 (UID BODY[])
        U> g1 FETCH 1:3 (UID BODY[])
        U< * 1 FETCH (UID 7 FLAGS ())
        U< * 2 FETCH (UID 8 BODY[] {5}
        U< hello)
        U< g1 OK done
        C> * 1 FETCH (UID 7 FLAGS ())
        C> * 2 FETCH (UID 8 BODY[] {5}
        <- judge upstream fetch_item 1 7 UID,FLAGS 28
        -> judged upstream continue
        C> hello)
        <- judge upstream fetch_item 2 8 UID,BODY[] 37
        -> judged upstream continue
        C> a1 OK done
        """,
        FETCH,
        ways=CHUNKS,
    )
    watched(
        """
        C: a1 FETCH 1:2 FLAGS
        U> g1 FETCH 1:2 FLAGS
        U< * 1 FETCH (FLAGS ())
        U< * 2 FETCH (FLAGS ())
        U< g1 OK done
        C> * 1 FETCH (FLAGS ())
        C> * 2 FETCH (FLAGS ())
        <- judge upstream fetch_item 1 0 FLAGS 22
        -> judged upstream continue
        <- judge upstream fetch_item 2 0 FLAGS 22
        -> judged upstream continue
        C> a1 OK done
        """,
        FETCH,
        ways=CHUNKS,
    )


def test_in_the_middle_of_a_response() -> None:
    """F3: while a message is judged the client may stand inside the next: the gate says nothing of its own there."""
    watched(
        """
        C: a1 UID FETCH 1:* (BODY[])
        U> g1 UID FETCH 1:* (BODY[])
        U< * 1 FETCH (UID 7 FLAGS ())
        U< * 2 FETCH (UID 8 BODY[] {5}
        U< hello)
        U< g1 OK done
        C> * 1 FETCH (UID 7 FLAGS ())
        C> * 2 FETCH (UID 8 BODY[] {5}
        C: a2 CAPABILITY
        -> judged upstream continue
        C> hello)
        -> judged upstream continue
        C> * CAPABILITY IMAP4rev1 IDLE ENABLE CONDSTORE QRESYNC UTF8=ACCEPT LITERAL+ SASL-IR ID
        C> a2 OK Capabilities listed
        C> a1 OK done
        """,
        FETCH,
        ways=CHUNKS,
    )
    session = logged_in(watching=Watching(FETCH))
    session.client_received(b"a1 UID FETCH 1:* (BODY[])\r\n")
    session.upstream_received(b"* 1 FETCH (UID 7)\r\n* 2 FETCH (UID 8 BODY[] {2}\r\nab)\r\ng1 OK done\r\n")
    assert session.upstream_lost(Failure.LOST)[-2:] == [
        wants.Close(wants.Side.UPSTREAM),
        wants.Close(wants.Side.CLIENT, abort=True),
    ]


def test_lines_of_the_gates_own_between_two_lines() -> None:
    """At a line's end they are said at once, though more has been read."""
    watched(
        """
        C: a1 LIST "" *
        U> g1 LIST "" *
        U< * LIST () NIL x
        U< * 1 FETCH (BODY[] {5}
        U<. hel
        <- judge upstream untagged LIST () NIL x of x
        C: a2 XX
        C> a2 BAD Unknown command XX
        -> judged upstream continue
        C> * LIST () NIL x
        C> * 1 FETCH (BODY[] {5}
        C>. hel
        """,
        LIST,
        ways=NOT_TRAILING[:2],
    )


def test_completions() -> None:
    """A command has ended, and a mailbox is selected, before the client hears of it."""
    watched(
        """
        C: a1 DELETE x
        C: a2 NOOP
        U> g1 DELETE x
        U> g2 NOOP
        U< g1 NO [NONEXISTENT] no such
        U< g2 OK done
        <- judge upstream completed DELETE x NO [NONEXISTENT] no such
        -> judged upstream continue
        C> a1 NO [NONEXISTENT] no such
        C> a2 OK done
        C: a3 SELECT x
        U> g3 SELECT x
        U< * OK [UIDVALIDITY 5] v
        U< g3 OK [READ-WRITE] done
        C> * OK [UIDVALIDITY 5] v
        <- judge upstream mailbox_selected x read-write 5
        -> judged upstream continue
        <- judge upstream completed SELECT x OK [READ-WRITE] done
        -> judged upstream continue
        C> a3 OK [READ-WRITE] done
        C: a4 SELECT y
        U> g4 SELECT y
        U< g4 NO [BADCHARSET (A B)] none
        <- judge upstream completed SELECT y NO [BADCHARSET (A B)] none
        -> judged upstream disconnect Bye
        C> * BYE Bye
        <- release
        <- close client
        """,
        COMPLETED,
        ways=NOT_TRAILING[:2],
    )


def test_what_plugins_note_of_an_answer() -> None:
    """It is recorded of the command that is answered, also where it was asked behind the completion."""
    watched(
        """
        C: a1 DELETE x
        C: a2 DELETE y
        U> g1 DELETE x
        U> g2 DELETE y
        U< g1 OK done
        -> judged upstream annotate key=value
        <- record mailbox.delete ok note.key=value mailbox.name=x
        C> a1 OK done
        U< g2 OK done
        -> judged upstream continue
        <- record mailbox.delete ok mailbox.name=y
        C> a2 OK done
        """,
        COMPLETED,
        audit=True,
    )
    watched(
        """
        C: a1 SELECT x
        U> g1 SELECT x
        U< * OK hi
        -> judged upstream annotate key=value
        C> * OK hi
        U< g1 OK done
        <- record mailbox.select ok note.key=value mailbox.name=x mailbox.read_only=False
        C> a1 OK done
        U< * OK hi
        -> judged upstream annotate key=value
        C> * OK hi
        """,
        LIST,
        audit=True,
    )
    watched(
        """
        C: a1 FETCH 1 FLAGS
        U> g1 FETCH 1 (UID FLAGS)
        C: a2 CREATE y
        U> g2 CREATE y
        U< * 1 FETCH (UID 7 FLAGS ())
        C> * 1 FETCH (FLAGS ())
        -> judged upstream annotate key=value
        U< g1 OK done
        <- record message.access ok note.key=value message.access=metadata message.uids=7 message.count=1 message.octets=22
        C> a1 OK done
        """,  # noqa: E501
        FETCH,
        audit=True,
        ways=LINES,
    )


def test_a_completion_that_was_judged_is_recorded_as_it_was() -> None:
    """F3: where the session ends before the client was told, the record has what upstream said."""
    watched(
        """
        C: a1 DELETE x
        U> g1 DELETE x
        U< g1 OK done
        <- judge upstream completed DELETE x OK [] done
        -> client lost
        <- record mailbox.delete ok mailbox.name=x
        <- release
        <- close client
        -> judged upstream continue
        """,
        COMPLETED,
        audit=True,
    )


def test_a_plugin_ends_the_session_for_a_response() -> None:
    """What was read behind it is lost, so the connection is nobody's any more; the denial is recorded."""
    watched(
        """
        C: a1 LIST "" *
        U> g1 LIST "" *
        U< * LIST () NIL x
        U< g1 OK done
        -> judged upstream disconnect Enough
        <- record policy.deny denied policy.plugin=plugin policy.rule=rule
        C> * BYE Enough
        <- close upstream
        <- close client
        """,
        LIST,
        audit=True,
        ways=NOT_TRAILING[:2],
    )


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ("-> upstream lost", "C> * BYE [UNAVAILABLE] The mail server closed the connection\n<- close upstream"),
        ("-> stop Down", "C> * BYE Down\n<- close upstream"),
        ("-> client lost", "<- close upstream"),
    ],
)
def test_ends_while_a_response_is_judged(event: str, end: str) -> None:
    """The session ends as ever; what was read and not shown is shown to nobody."""
    watched(
        f"""
        C: a1 LIST "" *
        U> g1 LIST "" *
        U< * LIST () NIL x
        U< g1 OK done
        <- judge upstream untagged LIST () NIL x of x
        {event}
        {end}
        <- close client
        -> judged upstream continue
        """,
        LIST,
        ways=NOT_TRAILING[:2],
    )


def test_what_was_read_and_not_seen_is_nobodys() -> None:
    """A31: a connection is not given back with something unread that came on it, such as a BYE."""
    watched(
        """
        U< * LIST () NIL x
        U< * BYE Going
        <- judge upstream untagged LIST () NIL x of x
        -> client lost
        <- close upstream
        <- close client
        """,
        LIST,
        ways=NOT_TRAILING[:2],
    )


def test_bye_behind_a_judged_response() -> None:
    """F8: BYE waits for its turn, and ends the session then."""
    watched(
        """
        U< * LIST () NIL x
        U< * BYE Going
        U< * LIST () NIL y
        <- judge upstream untagged LIST () NIL x of x
        -> judged upstream continue
        C> * LIST () NIL x
        C> * BYE Going
        <- close upstream
        <- close client
        """,
        LIST,
        ways=NOT_TRAILING[:2],
    )


def test_logout_and_half_close_behind_a_judged_response() -> None:
    """F7: what has been read is passed on before the session ends."""
    for says, end in (
        ("C: a2 LOGOUT", "C> * BYE Logging out\nC> a2 OK Logged out"),
        ("-> half-close", ""),
        ("-> leave Down", "C> * BYE Down"),
    ):
        watched(
            f"""
            C: a1 LIST "" *
            U> g1 LIST "" *
            U< * LIST () NIL x
            U< g1 OK done
            <- judge upstream untagged LIST () NIL x of x
            {says}
            -> judged upstream continue
            C> * LIST () NIL x
            C> a1 OK done
            {end}
            <- release
            <- close client
            """,
            LIST,
            ways=NOT_TRAILING[:2],
        )


def test_mailbox_mode() -> None:
    """A connection is not given back while something that came on it is judged, nor is the wish for one hindered."""
    watched(
        """
        C: a1 LIST "" *
        <- ask lease
        -> granted mailbox IMAP4rev1
        U> g1 LIST "" *
        U< * LIST () NIL x
        U< g1 OK done
        <- judge upstream untagged LIST () NIL x of x
        -> judged upstream continue
        C> * LIST () NIL x
        C> a1 OK done
        <- release
        C: a2 LIST "" *
        <- ask lease
        -> unread * OK hi
        -> granted mailbox IMAP4rev1
        <- judge upstream untagged OK hi
        U> g1 LIST "" *
        U< g1 OK done
        -> judged upstream continue
        C> * OK hi
        C> a2 OK done
        <- release
        """,
        LIST,
        mode=PoolMode.MAILBOX,
        ways=NOT_TRAILING[:2],
    )


def test_a31_a_connection_that_is_given_back_is_read_as_any_other() -> None:
    """Whoever has it next may not look at literals apart: their content would be lines to them (A23, A31)."""
    link = Link(DEFAULTS)
    session = logged_in(link=link, watching=Watching(LIST))
    assert link.scanner.fine
    assert session.client_lost() == [wants.Release(False), wants.Close(wants.Side.CLIENT)]
    assert not link.scanner.fine
    other = logged_in(link=link)
    assert sent(other.upstream_received(b"* 1 FETCH (X {7}\r\n* BYE\r\n)\r\n")).endswith(b"* BYE\r\n)\r\n")
    assert other.reason == ""


def test_a_response_that_is_too_long_to_be_judged() -> None:
    """A15: a response that must be read whole has its bound; one that nobody judges passes in parts."""
    session = logged_in(watching=Watching(LIST))
    chunk = b" " + b"x" * 65_535
    effects = session.upstream_received(b"* LIST () NIL {8000000}\r\n")
    for _ in range(64):
        effects += session.upstream_received(chunk)
    assert session.reason == "upstream protocol"
    assert sent(effects) == b""
    session = logged_in(watching=Watching(LIST))
    assert sent(session.upstream_received(b"* LSUB " + chunk)) == b"* LSUB " + chunk
    session = logged_in(watching=Watching(LIST))
    assert not session.upstream_received(b"* LIST () NIL {100000}\r\n" + chunk)
    rest = b"x" * (100_000 - len(chunk)) + b"\r\n"
    (ask,) = session.upstream_received(rest)
    assert isinstance(ask, wants.Ask)
    (send,) = session.answered(passing(ask.question))  # type: ignore[arg-type]
    assert send == wants.SendClient(b"* LIST () NIL {100000}\r\n" + chunk + rest)


def test_upstream_breaks_the_protocol_while_a_response_is_judged() -> None:
    """A30: it is cut off where that is noticed."""
    session = logged_in(watching=Watching(LIST))
    session.upstream_received(b"* LIST () NIL x\r\n* 5 EXISTS\n")
    assert session.reason == "upstream protocol"
    assert session.answered(wants.Judgement(wants.Side.UPSTREAM, CONTINUE)) == []


def test_a_trace() -> None:
    """Each line and each piece of data is traced once, when it has come."""
    watched(
        """
        C: a1 NOOP
        U> g1 NOOP
        <- trace client a1 NOOP
        U< * 3 EXISTS
        U< * 4 RECENT
        U< g1 OK done
        <- trace upstream ... 24 octets of data
        <- trace upstream g1 OK done
        <- judge upstream untagged 3 EXISTS
        -> judged upstream continue
        C> * 3 EXISTS
        C> * 4 RECENT
        C> a1 OK done
        """,
        NUMBERS,
        traced=True,
        ways=CHUNKS,
    )


def test_literals_pass_at_once() -> None:
    """A chunk inside of a literal is handed on as it is, and counted."""
    session = logged_in(watching=Watching(auditing=True))
    session.client_received(b"a1 UID FETCH 1 BODY[]\r\n")
    session.upstream_received(b"* 1 FETCH (UID 7 BODY[] {6}\r\n")
    data = b"abc"
    (effect,) = session.upstream_received(data)
    assert isinstance(effect, wants.SendClient)
    assert effect.data is data
    (record, _) = session.upstream_received(b"def)\r\ng1 OK done\r\n")
    assert isinstance(record, wants.Record)
    assert record.fields["message.octets"] == 38


def test_a_server_that_waits_for_a_verdict_is_not_slow() -> None:
    """F6: while what it has said is judged, nothing is awaited from upstream."""
    session = logged_in(watching=Watching(LIST))
    session.client_received(b'a1 LIST "" *\r\n')
    session.upstream_received(b"* LIST () NIL x\r\n")
    for _ in range(4 * LOOKS):
        session.ticked(wants.Timer.UPSTREAM)
    assert session.reason == ""
    session.answered(wants.Judgement(wants.Side.UPSTREAM, CONTINUE))
    for _ in range(4 * LOOKS):
        session.ticked(wants.Timer.UPSTREAM)
    assert session.reason == "upstream timed-out"


def test_what_waits_is_bounded() -> None:
    """A43: while the upstream's stream stands still, its pieces count as owed, and the client is not heard for long."""
    session = logged_in(replace(DEFAULTS, pipelined_commands=3), watching=Watching(LIST))
    session.client_received(b'a1 LIST "" *\r\n')
    session.upstream_received(b"* LIST () NIL x\r\n* LIST () NIL y\r\n* LSUB () NIL z\r\n")
    effects = session.client_received(b"a2 NOOP\r\n")
    assert effects == [wants.Hold(wants.Side.CLIENT, wants.Reason.PIPELINE)]
