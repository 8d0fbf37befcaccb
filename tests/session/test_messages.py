"""Message literals: APPEND and its like are relayed, never held; refusals cost nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imapgate.limits import DEFAULTS
from imapgate.session.effects import SendUpstream
from tests.session.playbook import NOT_TRAILING, logged_in, relay


def test_synchronising() -> None:
    """Upstream is asked first, and its own + passed on; the message flows; then the answer."""
    relay(
        """
        C: a1 append INBOX (\\Seen) "01-Jan-2026 00:00:00 +0000" {9}
        U> g1 APPEND INBOX (\\Seen) "01-Jan-2026 00:00:00 +0000" {9}
        <- hold continuation
        U< + go ahead
        C> + go ahead
        <- free continuation
        C. abc<CRLF>defg
        U>. abc<CRLF>defg
        C:
        U>
        U< * 4 EXISTS
        U< g1 OK [APPENDUID 1 2] done
        C> * 4 EXISTS
        C> a1 OK [APPENDUID 1 2] done
        """
    )


def test_non_synchronising() -> None:
    """What the client sends unasked is the gate's own affair: upstream's + is not passed on."""
    relay(
        """
        C: a1 APPEND {5+}
        C: INBOX {8+}
        C. abc<NUL><CR><LF>de
        C:
        C: a2 NOOP
        U> g1 APPEND "INBOX" {8}
        <- hold continuation
        U< + go
        U> abc<NUL><CR><LF>de
        U> g2 NOOP
        <- free continuation
        U< g1 OK done
        C> a1 OK done
        """
    )


def test_binary() -> None:
    """A literal8 goes on as one (RFC 3516)."""
    relay("C: a1 APPEND INBOX ~{3+}\nC: a<NUL>b\nU> g1 APPEND INBOX ~{3}\nU< +\nU> a<NUL>b\n")


def test_zero_length() -> None:
    """An empty message is upstream's to judge."""
    relay("C: a1 APPEND INBOX {0}\nU> g1 APPEND INBOX {0}\nU< +\nC> +\nC:\nU>\nU< g1 NO empty\nC> a1 NO empty\n")
    relay("C: a1 APPEND INBOX {0+}\nC:\nU> g1 APPEND INBOX {0}\nU< +\nU>\nU< g1 NO empty\nC> a1 NO empty\n")
    relay("C: a1 APPEND INBOX {0}\nU> g1 APPEND INBOX {0}\nU< g1 NO empty\nC> a1 NO empty\nC: a2 NOOP\nU> g2 NOOP\n")


def test_the_same_bytes() -> None:
    """Message data passes as the object that came."""
    session = logged_in()
    session.client_received(b"a1 APPEND INBOX {100000}\r\n")
    session.upstream_received(b"+ go\r\n")
    chunk = b"x" * 65536
    effects = session.client_received(chunk)
    assert effects == [SendUpstream(chunk)]
    assert effects[0].data is chunk  # type: ignore[union-attr]


def test_no_content_is_ever_a_command() -> None:
    """A message that holds commands and completions is a message (A23)."""
    relay(
        """
        C: a1 APPEND INBOX {24+}
        C. a1 LOGOUT<CRLF>g1 OK done<CRLF>x
        C:
        U> g1 APPEND INBOX {24}
        U< +
        U>. a1 LOGOUT<CRLF>g1 OK done<CRLF>x
        U>
        """
    )


def test_untagged_data_and_completions_before_the_continuation() -> None:
    """While a + is awaited, untagged data and other completions come first; the wait goes on."""
    relay(
        """
        C: a1 NOOP
        C: a2 APPEND INBOX {3}
        U> g1 NOOP
        U> g2 APPEND INBOX {3}
        U< * 1 EXPUNGE
        U< g1 OK done
        C> * 1 EXPUNGE
        C> a1 OK done
        U< + go
        C> + go
        C: abc
        U> abc
        """
    )


@pytest.mark.parametrize("completion", ["NO [TRYCREATE] no", "BAD no", "NO [OVERQUOTA] full"])
def test_refused(completion: str) -> None:
    """A refusal is passed on: no message octet is taken for a command, none goes upstream."""
    relay(
        f"""
        C: a1 APPEND nobox {{30}}
        U> g1 APPEND nobox {{30}}
        <- hold continuation
        U< g1 {completion}
        C> a1 {completion}
        <- free continuation
        C: a2 NOOP
        U> g2 NOOP
        """
    )
    relay(
        f"""
        C: a1 APPEND nobox {{12+}}
        C. b LOGOUT<CRLF>x
        C: <SP>{{4+}}
        C: more
        C: a2 NOOP
        U> g1 APPEND nobox {{12}}
        <- hold continuation
        U< g1 {completion}
        C> a1 {completion}
        U> g2 NOOP
        <- free continuation
        """
    )


def test_refused_in_a_mailbox_literal() -> None:
    """The mailbox name needs a literal upstream, and is refused before the message is even asked for."""
    relay(
        """
        C: a1 APPEND {2+}
        C: <xC3><xA4> {4+}
        C: data
        C: a2 APPEND {2+}
        C: <xC3><xA4> {4}
        U> g1 APPEND {2}
        U< g1 NO no
        C> a1 NO no
        U> g2 APPEND {2}
        U< +
        U> <xC3><xA4> {4}
        U< +
        C> +
        C: data
        U> data
        """
    )


def test_multiappend() -> None:
    """Several messages in one command, of both kinds, each behind its own + (RFC 3502)."""
    relay(
        """
        C: a1 APPEND INBOX {3}
        U> g1 APPEND INBOX {3}
        U< + one
        C> + one
        C. abc
        U>. abc
        C: <SP>(\\Seen) {2+}
        C: de {0}
        U> <SP>(\\Seen) {2}
        U< + two
        U>. de
        U> <SP>{0}
        U< + three
        C> + three
        C:
        C: a2 NOOP
        U>
        U> g2 NOOP
        U< g1 OK done
        C> a1 OK done
        """
    )


def test_multiappend_refused_at_the_second() -> None:
    """The second message is refused: the first has gone, the rest is never sent or is swallowed."""
    for kind in ("{2}", "{2+}\nC: de"):
        relay(
            f"""
            C: a1 APPEND INBOX {{3+}}
            C: abc {kind}
            U> g1 APPEND INBOX {{3}}
            U< +
            U> abc {{2}}
            U< g1 NO full
            C> a1 NO full
            C: a2 NOOP
            U> g2 NOOP
            """
        )


def test_answered_while_a_message_flows() -> None:
    """Upstream refuses when part of the message is on the way: the rest follows, since upstream counts it."""
    relay(
        """
        C: a1 APPEND INBOX {6}
        U> g1 APPEND INBOX {6}
        U< +
        C> +
        C. abc
        U>. abc
        U< g1 NO full
        C> a1 NO full
        C. def
        U>. def
        C:
        C: a2 NOOP
        U>
        U> g2 NOOP
        """,
        ways=NOT_TRAILING,
    )


def test_answered_while_a_message_flows_and_another_follows() -> None:
    """A next message of a command that has its answer is not asked for: its line is ended, it is swallowed."""
    for kind, rest in (("{2+}", "C: de\n"), ("{2}", "")):
        relay(
            f"""
            C: a1 APPEND INBOX {{6}}
            U> g1 APPEND INBOX {{6}}
            U< +
            C> +
            C. abc
            U>. abc
            U< g1 NO full
            C> a1 NO full
            C. def
            C: <SP>{kind}
            {rest}
            C: a2 NOOP
            U> def
            U> g2 NOOP
            """,
        )


def test_too_big() -> None:
    """Over the limit a message is refused by the gate, without +, or swallowed as far as that is allowed."""
    limits = replace(DEFAULTS, message_literal=100)
    relay(
        """
        C: a1 APPEND INBOX {101}
        C: a2 NOOP
        C> a1 NO [TOOBIG] The message is too large
        U> g1 NOOP
        C: a3 APPEND INBOX {101+}
        C. <x*50>
        C> * BAD [TOOBIG] A literal that is too large was sent unasked
        C> * BYE Closing
        <- close upstream
        <- close client
        """,
        limits=limits,
    )


def test_malformed_before_the_message() -> None:
    """What is wrong before the literal is found before upstream is asked."""
    relay(
        """
        C: a1 APPEND {3}
        C> + OK
        C: box {3}
        U> g1 APPEND "box" {3}
        U< g1 NO
        C> a1 NO
        C: a2 REPLACE x INBOX {3+}
        C: abc
        C: a3 NOOP
        C> a2 BAD REPLACE: expected a sequence set
        U> g2 NOOP
        C: a4 APPEND INBOX
        C> a4 BAD APPEND: expected an argument, found the end of the command
        C: a5 UID REPLACE 5 INBOX (\\Seen) {3+}
        C: abc
        U> g3 UID REPLACE 5 INBOX (\\Seen) {3}
        U< +
        U> abc
        """
    )


def test_catenate() -> None:
    """A message literal may stand in a list (RFC 4469)."""
    relay(
        """
        C: a1 APPEND INBOX CATENATE (TEXT {3+}
        C: abc URL "/INBOX/;UID=1" TEXT {2}
        U> g1 APPEND INBOX CATENATE (TEXT {3}
        U< +
        U> abc URL "/INBOX/;UID=1" TEXT {2}
        U< +
        C> +
        C: de)
        U> de)
        """
    )


@pytest.mark.parametrize("tail", [")", " )", " x y {x}", " {3+}{", " (", ' "'])
def test_malformed_behind_the_message(tail: str) -> None:
    """Upstream stands in the middle of the command and cannot be told: the connection ends."""
    session = logged_in()
    session.client_received(b"a1 APPEND INBOX {3}\r\n")
    session.upstream_received(b"+ go\r\n")
    session.client_received(b"abc" + tail.encode())
    shown = session.client_received(b"\r\n")
    assert session.reason == "client protocol error"
    assert not [effect for effect in shown if isinstance(effect, SendUpstream)]


def test_lost_in_the_middle() -> None:
    """A client that goes away in the middle of a message: upstream is closed there, so nothing is stored."""
    session = relay(
        """
        C: a1 APPEND INBOX {6}
        U> g1 APPEND INBOX {6}
        U< +
        C> +
        C. abc
        U>. abc
        -> client lost
        <- close upstream
        <- close client
        """,
        ways=NOT_TRAILING,
    )
    assert session.reason == "client closed"


def test_long_string_behind_a_message() -> None:
    """A long string behind a message goes as a literal that upstream asks for; refused, it is never sent."""
    begun = """
        C: a1 APPEND INBOX CATENATE (TEXT {3+}
        C: abc URL "b LOGOUT <x*1100>")
        C: a2 NOOP
        U> g1 APPEND INBOX CATENATE (TEXT {3}
        U< +
        U> abc URL {1109}
        """
    relay(f"{begun}U< + go\nU> b LOGOUT <x*1100>)\nU> g2 NOOP\n")
    relay(f"{begun}U< g1 NO no\nC> a1 NO no\nU> g2 NOOP\n")
    relay(
        """
        C: a1 APPEND INBOX CATENATE (TEXT {3}
        U> g1 APPEND INBOX CATENATE (TEXT {3}
        U< +
        C> +
        C. a
        U>. a
        U< g1 NO no
        C> a1 NO no
        C: bc URL "b LOGOUT <x*1100>")
        C: a2 NOOP
        U> bc
        U> g2 NOOP
        """,
        ways=NOT_TRAILING,
    )
