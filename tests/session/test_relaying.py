"""After the login: tags, pipelining, what the gate answers itself, refusals, holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imapgate.limits import DEFAULTS
from imapgate.session.states import Connection
from tests.session.playbook import NOT_TRAILING, Way, play, relay


def test_tags_are_the_gates_upstream() -> None:
    """Every command gets a tag of the gate's own, and every completion the client's back."""
    session = relay(
        """
        C: a1 NOOP
        U> g1 NOOP
        U< * 3 EXISTS
        U< * 1 RECENT
        U< g1 OK [ALERT] g1 done
        C> * 3 EXISTS
        C> * 1 RECENT
        C> a1 OK [ALERT] g1 done
        C: x.2/$ uid fetch 1:* (FLAGS)
        U> g2 UID FETCH 1:* (FLAGS)
        U< g2 no whatever
        C> x.2/$ no whatever
        C: a1 Noop
        U> g3 NOOP
        U< g3 BAD what
        C> a1 BAD what
        """
    )
    assert session.commands == 4


def test_pipelined_commands_complete_in_any_order() -> None:
    """Completions are matched by tag, never first in, first out; each client tag is answered once."""
    relay(
        """
        C: a NOOP
        C: b CHECK
        C: c FETCH 1 FLAGS
        U> g1 NOOP
        U> g2 CHECK
        U> g3 FETCH 1 FLAGS
        U< g3 OK third
        U< * 1 EXISTS
        U< g1 OK first
        C> c OK third
        C> * 1 EXISTS
        C> a OK first
        U< g2 NO second
        C> b NO second
        U< g2 OK again
        C> * BYE [UNAVAILABLE] The mail server gave an answer that makes no sense
        <- close upstream
        <- close client
        """
    )


def test_equal_client_tags() -> None:
    """A client that uses a tag twice is its own affair: two commands, two answers."""
    relay("C: a NOOP\nC: a CHECK\nU> g1 NOOP\nU> g2 CHECK\nU< g2 OK x\nU< g1 NO y\nC> a OK x\nC> a NO y\n")


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ('select "INBOX"', 'SELECT "INBOX"'),
        ('LIST "" (INBOX.% *) RETURN (STATUS (MESSAGES))', 'LIST "" (INBOX.% *) RETURN (STATUS (MESSAGES))'),
        (
            "fetch 1,3:* (BODY.PEEK[HEADER.FIELDS (A B)]<0.9> UID)",
            "FETCH 1,3:* (BODY.PEEK[HEADER.FIELDS (A B)]<0.9> UID)",
        ),
        ("store 1 +FLAGS (\\Seen $x)", "STORE 1 +FLAGS (\\Seen $x)"),
        ('XEXTRA a (b) "c"', 'XEXTRA a (b) "c"'),
        ("xextra", "XEXTRA"),
    ],
)
def test_written_canonically(sent: str, written: str) -> None:
    """Verbs in upper case, arguments as they are; an operator's extra verbs pass."""
    relay(f"C: a1 {sent}\nU> g1 {written}\n", extra_verbs=["xextra", "noop"])


def test_a14_unknown_and_malformed_commands() -> None:
    """Nothing that the gate does not know goes upstream."""
    relay(
        """
        C: a1 XFOO bar
        C: a2 UID NOOP
        C: a3 FETCH 1:x FLAGS
        C: a4 STATUS INBOX
        C: a5 COMPRESS DEFLATE
        C: a6 LOGIN u p
        C: a7 NOOP (
        C> a1 BAD Unknown command XFOO
        C> a2 BAD Unknown command UID NOOP
        C> a3 BAD FETCH: expected a sequence set
        C> a4 BAD STATUS: expected a list in parentheses, found the end of the command
        C> a5 BAD Unknown command COMPRESS
        C> a6 BAD LOGIN: already logged in
        C> a7 BAD NOOP: a "(" is never closed
        """
    )


def test_bad_command_limit() -> None:
    """After the login twenty bad commands are too many."""
    bad = "".join(f"C: b{number} X\n" for number in range(20))
    answers = "".join(f"C> b{number} BAD Unknown command X\n" for number in range(20))
    session = relay(f"{bad}C: a1 NOOP\n{answers}C> * BYE Too many bad commands\n<- release\n<- close client\n")
    assert session.reason == "too many bad commands"


def test_another_protocol_is_only_a_bad_tag_after_the_login() -> None:
    """A logged-in client that sends an odd line gets its BAD."""
    relay("C: GET / HTTP/1.1\nC> GET BAD Expected a command after the tag\n")


def test_what_the_gate_answers() -> None:
    """CAPABILITY, ID and ENABLE of what is not on offer stay at the gate."""
    relay(
        """
        C: a1 CAPABILITY
        C: a2 ID NIL
        C: a3 ENABLE QRESYNC X
        C> * CAPABILITY IMAP4rev1 MOVE LITERAL+ SASL-IR ID
        C> a1 OK Capabilities listed
        C> * ID ("name" "imapgate")
        C> a2 OK Nice to meet you
        C> * ENABLED
        C> a3 OK Nothing enabled
        """,
        capabilities="IMAP4rev1 MOVE XHIDDEN AUTH=PLAIN STARTTLS",
    )


def test_enable_is_intersected() -> None:
    """Only what upstream has, and what may be enabled through the gate, is passed on."""
    relay(
        """
        C: a1 ENABLE condstore X-FOO QRESYNC IMAP4rev2 {11+}
        C: UTF8=ACCEPT
        U> g1 ENABLE condstore UTF8=ACCEPT
        U< * ENABLED CONDSTORE UTF8=ACCEPT
        U< g1 OK done
        C> * ENABLED CONDSTORE UTF8=ACCEPT
        C> a1 OK done
        """,
        capabilities="IMAP4rev1 ENABLE CONDSTORE UTF8=ACCEPT",
    )


def test_a19_utf8_only_when_enabled() -> None:
    """A19: eight-bit octets in quoted strings are accepted when upstream says that UTF8=ACCEPT is on."""
    relay(
        """
        C: a1 SELECT "<xC3><xA4>"
        C> a1 BAD SELECT: unexpected character at octet 1 of the arguments
        C: a2 ENABLE UTF8=ACCEPT
        U> g1 ENABLE UTF8=ACCEPT
        U< * ENABLED
        U< g1 OK done
        C> * ENABLED
        C> a2 OK done
        C: a3 SELECT "<xC3><xA4>"
        C> a3 BAD SELECT: unexpected character at octet 1 of the arguments
        U< * ENABLED UTF8=ACCEPT
        C> * ENABLED UTF8=ACCEPT
        C: a4 SELECT "<xC3><xA4>"
        U> g2 SELECT "<xC3><xA4>"
        """
    )


def test_selecting() -> None:
    """What SELECT, EXAMINE, CLOSE and UNSELECT do to the state (RFC 3501 §3)."""
    session = relay(
        """
        C: a1 SELECT INBOX
        U> g1 SELECT INBOX
        == authenticated
        U< g1 OK [READ-WRITE] done
        C> a1 OK [READ-WRITE] done
        == selected
        C: a2 EXAMINE INBOX
        U> g2 EXAMINE INBOX
        U< g2 OK [READ-ONLY] done
        C> a2 OK [READ-ONLY] done
        == selected
        C: a3 CLOSE
        U> g3 CLOSE
        U< g3 NO not now
        C> a3 NO not now
        == selected
        C: a4 UNSELECT
        U> g4 UNSELECT
        U< g4 OK done
        C> a4 OK done
        == authenticated
        C: a5 SELECT INBOX
        C: a6 SELECT nobox
        U> g5 SELECT INBOX
        U> g6 SELECT nobox
        U< g5 OK done
        U< g6 NO no such mailbox
        C> a5 OK done
        C> a6 NO no such mailbox
        == authenticated
        C: a7 SELECT nobox
        U> g7 SELECT nobox
        U< g7 BAD no
        C> a7 BAD no
        == authenticated
        """
    )
    assert session.state is Connection.AUTHENTICATED


def test_pipeline_limit() -> None:
    """At the limit the client is not read from; each completion makes room for one command."""
    relay(
        """
        C: a1 NOOP
        C: a2 NOOP
        C: a3 NOOP
        C: a4 NOOP
        U> g1 NOOP
        U> g2 NOOP
        <- hold pipeline
        U< g2 OK
        C> a2 OK
        U> g3 NOOP
        U< g1 OK
        C> a1 OK
        U> g4 NOOP
        U< g3 OK
        C> a3 OK
        <- free pipeline
        """,
        limits=replace(DEFAULTS, pipelined_commands=2),
    )


def test_the_smallest_pipeline() -> None:
    """With room for one command even a message, a literal and IDLE come to their ends."""
    relay(
        """
        C: a1 APPEND INBOX {3}
        U> g1 APPEND INBOX {3}
        U< + go
        C> + go
        C. abc
        C: <SP>{3}
        U>. abc
        U> <SP>{3}
        U< + go
        C> + go
        C. def
        C:
        U> def
        U< g1 OK done
        C> a1 OK done
        C: a2 IDLE
        U> g2 IDLE
        U< + idling
        C> + idling
        C: DONE
        U> DONE
        U< g2 OK done
        C> a2 OK done
        C: a3 LOGIN
        C: a4 STATUS {3}
        C> a3 BAD LOGIN: already logged in
        C> + OK
        C: a<xE4>b (MESSAGES)
        U> g3 STATUS {3}
        U< +
        U> a<xE4>b (MESSAGES)
        U< g3 OK done
        C> a4 OK done
        """,
        limits=replace(DEFAULTS, pipelined_commands=1),
    )


def test_own_answers_stand_between_responses() -> None:
    """What the gate says itself never stands inside a literal that is half sent."""
    relay(
        """
        C: a1 FETCH 1 BODY[]
        U> g1 FETCH 1 BODY[]
        U<. * 1 FETCH (BODY[] {10}<CRLF>abc
        C>. * 1 FETCH (BODY[] {10}<CRLF>abc
        C: a2 ID NIL
        C: a3 XFOO
        C: a4 STATUS {5}
        U<. defghij
        C>. defghij
        U< )
        U< g1 OK done
        C> )
        C> * ID ("name" "imapgate")
        C> a2 OK Nice to meet you
        C> a3 BAD Unknown command XFOO
        C> + OK
        C> a1 OK done
        """
    )


def test_logout_waits_for_what_is_in_flight() -> None:
    """LOGOUT behind pipelined commands is answered when they are; nothing behind it is read."""
    session = relay(
        """
        C: a1 NOOP
        C: a2 FETCH 1 FLAGS
        C: a3 LOGOUT
        C: a4 NOOP
        U> g1 NOOP
        U> g2 FETCH 1 FLAGS
        <- hold logout
        U< g2 OK done
        C> a2 OK done
        U< g1 OK done
        C> a1 OK done
        C> * BYE Logging out
        C> a3 OK Logged out
        <- release
        <- close client
        == logout
        """,
        ways=NOT_TRAILING,
    )
    assert session.reason == "logout"


def test_logout_waits_for_the_end_of_a_response() -> None:
    """Also where nothing is in flight, but an unasked response is half sent."""
    relay(
        """
        U<. * 1 FETCH (BODY[] {3}<CRLF>a
        C>. * 1 FETCH (BODY[] {3}<CRLF>a
        C: a1 LOGOUT
        <- hold logout
        U<. bc
        U< )
        C> bc)
        C> * BYE Logging out
        C> a1 OK Logged out
        <- release
        <- close client
        """,
        ways=NOT_TRAILING,
    )


def test_logout_with_half_a_line_from_upstream() -> None:
    """A connection on which a line was begun is no other session's: it is logged out and closed."""
    relay(
        """
        U<. * 3 EXI
        C: a1 LOGOUT
        C> * BYE Logging out
        C> a1 OK Logged out
        U> g1 LOGOUT
        <- close upstream
        <- close client
        """,
        ways=(Way.LINES, Way.CHUNKS),
    )


def test_login_and_all_in_one_chunk() -> None:
    """A whole session pipelined: every command is answered in its place."""
    session = play(
        """
        C: a1 LOGIN u p
        C: a2 SELECT INBOX
        C: a3 LOGOUT
        <- ask LOGIN u p
        -> granted IMAP4rev1
        C> a1 OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        U> g1 SELECT INBOX
        == authenticated
        U< g1 OK done
        C> a2 OK done
        C> * BYE Logging out
        C> a3 OK Logged out
        <- release selected
        <- close client
        == logout
        """,
        ways=NOT_TRAILING,
    )
    assert (session.commands, session.user) == (3, b"u")
