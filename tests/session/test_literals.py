"""Argument literals, both ways: gathered here, written canonically there; refused, swallowed, bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imapgate.limits import DEFAULTS
from tests.session.playbook import NOT_TRAILING, logged_in, relay


@pytest.mark.parametrize(
    "sent",
    [
        "C: a1 STATUS {5}\nC> + OK\nC: INBOX (MESSAGES)",
        "C: a1 STATUS {5+}\nC: INBOX (MESSAGES)",
    ],
)
def test_gathered_and_quoted(sent: str) -> None:
    """Either kind of literal is gathered; printable ASCII goes upstream quoted."""
    relay(f'{sent}\nU> g1 STATUS "INBOX" (MESSAGES)\n')


def test_several_in_one_command() -> None:
    """Several literals, of both kinds, with text between them."""
    relay(
        """
        C: a1 SEARCH CHARSET {5+}
        C: UTF-8 TEXT {3}
        C> + OK
        C: abc SUBJECT "x" (TO {0}
        C> + OK
        C: <SP>FROM {2+}
        C: a")
        U> g1 SEARCH CHARSET "UTF-8" TEXT "abc" SUBJECT "x" (TO "" FROM "a\\"")
        """
    )


def test_literals_upstream_are_synchronising() -> None:
    """What cannot be quoted waits for upstream's +, once for each; commands behind it wait."""
    relay(
        """
        C: a1 RENAME {2+}
        C: <xC3><xA4> {1025+}
        C: <x*1025>
        C: a2 NOOP
        C: a3 CHECK
        C: a4 LOGIN
        U> g1 RENAME {2}
        C> a4 BAD LOGIN: already logged in
        U< * 1 EXISTS
        C> * 1 EXISTS
        U< + go
        U> <xC3><xA4> {1025}
        U< +
        U> <x*1025>
        U> g2 NOOP
        U> g3 CHECK
        U< g2 OK second
        U< g1 OK first
        C> a2 OK second
        C> a1 OK first
        """
    )


def test_quoted_strings_that_are_long() -> None:
    """A quoted string of more than 1,024 octets goes as a literal."""
    relay('C: a1 SELECT "<a*1023>\\\\\\""\nU> g1 SELECT {1025}\nU< +\nU> <a*1023>\\"\n')
    relay('C: a1 SELECT "<a*1024>"\nU> g1 SELECT "<a*1024>"\n')


def test_refused_in_the_middle() -> None:
    """Upstream refuses a literal in the middle of a command: its answer passes, the rest is never sent."""
    relay(
        """
        C: a0 CHECK
        C: a1 RENAME {2+}
        C: <xC3><xA4> {2+}
        C: <xC3><xB6>
        C: a2 NOOP
        U> g1 CHECK
        U> g2 RENAME {2}
        U< +
        U> <xC3><xA4> {2}
        U< g1 OK checked
        U< * 4 EXISTS
        U< g2 NO no such mailbox
        C> a0 OK checked
        C> * 4 EXISTS
        C> a1 NO no such mailbox
        U> g3 NOOP
        U< + late
        C> * BYE [UNAVAILABLE] The mail server gave an answer that makes no sense
        <- close upstream
        <- close client
        """
    )


def test_literal8() -> None:
    """A binary literal stays one (RFC 3516), and may hold NUL; an ordinary one may not."""
    relay(
        """
        C: a1 SEARCH TEXT ~{3+}
        C: a<NUL>b
        C: a2 SEARCH TEXT {3+}
        C: a<NUL>b SUBJECT {3+}
        C: xyz
        C: a4 NOOP
        C> a2 BAD NUL in a literal
        U> g1 SEARCH TEXT ~{3}
        U< +
        U> a<NUL>b
        U> g2 NOOP
        """
    )


def test_no_content_is_ever_a_command() -> None:
    """A literal holding commands is an argument, whatever it looks like."""
    relay(
        """
        C: a1 SEARCH TEXT {12}
        C> + OK
        C. b1 LOGOUT<CRLF>x
        C: <SP>UNSEEN
        U> g1 SEARCH TEXT {12}
        U< +
        U>. b1 LOGOUT<CRLF>x
        U> <SP>UNSEEN
        """
    )


@pytest.mark.parametrize(
    "announced", ["{05}", "{ 5}", "{5_0}", "{5 }", "{-5}", "{}", "{x}", "{5}x", "x{5}", '"x{5}', "~{05}"]
)
def test_a13_what_is_no_literal(announced: str) -> None:
    """A13: only {n} and {n+} announce one; anything else is BAD, and the next line a command."""
    session = logged_in()
    effects = session.client_received(f"a1 SELECT {announced}\r\na2 NOOP\r\n".encode())
    assert effects[0] == (b"g1 NOOP\r\n",)
    assert effects[1].data.startswith(b"a1 BAD SELECT: ")  # type: ignore[union-attr]
    assert effects[1].data.count(b"\r\n") == len(effects) - 1 == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "announced", ["{+5}", "{05+}", "{ 5+}", "{5_0+}", "{5 +}", "{-5+}", "{+}", "x{5+}", '"x{5+}', "{5++}"]
)
def test_a13_what_may_be_a_literal_sent_unasked(announced: str) -> None:
    """A13: where it is unclear what the client's next octets are, the connection ends."""
    relay(
        f"""
        C: a1 SELECT {announced}
        C: a2 NOOP
        C> * BAD A literal is {{n}}, {{n+}} or ~{{n}} at the start of an argument
        C> * BYE Closing
        <- release
        <- close client
        """
    )


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        ("XBAD", "Unknown command XBAD"),
        ("NOOP", "NOOP takes no arguments"),
        ("UID", "Unknown command UID"),
        ("LOGIN", "LOGIN: already logged in"),
        ("STATUS (", "STATUS: expected no space at octet 2 of the arguments"),
        ("STATUS INBOX () x", "STATUS: too many arguments"),
        ("FETCH 1 ())", 'FETCH: unexpected ")" at octet 5 of the arguments'),
    ],
)
def test_a14_swallowed(verb: str, answer: str) -> None:
    """A14: the literal of a command that is refused is swallowed to its last octet; then comes the one answer."""
    relay(
        f"""
        C: a {verb} {{10+}}
        C. q NOOP a<CRLF>
        C:
        C: b NOOP
        C> a BAD {answer}
        U> g1 NOOP
        """
    )


def test_swallowed_again() -> None:
    """A refused command may go on with more literals: they are swallowed, too; a synchronising one never comes."""
    relay(
        """
        C: a XBAD {3+}
        C: abc {0+}
        C: more {12+}
        C. b LOGOUT<CRLF><CRLF>
        C: end
        C: c XBAD {3+}
        C: abc {3}
        C: d NOOP {5}
        C: e NOOP
        C> a BAD Unknown command XBAD
        C> c BAD Unknown command XBAD
        C> d BAD NOOP takes no arguments
        U> g1 NOOP
        """
    )


def test_a15_too_big() -> None:
    """A15: over the limit, a synchronising literal gets no +, an unasked one is swallowed, a huge one is the end."""
    relay(
        """
        C: a1 SELECT {65537}
        C: a2 SELECT {9999999999999999999}
        C: a3 SELECT {65537+}
        C. <x*65537>
        C:
        C: a4 NOOP
        C> a1 NO [TOOBIG] A literal of more than 65536 octets
        C> a2 NO [TOOBIG] A literal of more than 65536 octets
        C> a3 NO [TOOBIG] A literal of more than 65536 octets
        U> g1 NOOP
        """,
        ways=NOT_TRAILING[:2],
    )
    for size in ("67108865", "9999999999999999999", "99999999999999999999999"):
        relay(
            f"""
            C: a1 XBAD {{{size}+}}
            C: a2 NOOP
            C> * BAD [TOOBIG] A literal that is too large was sent unasked
            C> * BYE Closing
            <- release
            <- close client
            """
        )


def test_whole_command_limit() -> None:
    """Literals that are each small enough must not be too much together."""
    limits = replace(DEFAULTS, argument_literal=10, command=25)
    relay(
        """
        C: a1 SEARCH TEXT {10+}
        C: <a*10> TEXT {10+}
        C: <b*10>
        C: a2 NOOP
        C> a1 NO [TOOBIG] A literal of more than 10 octets
        U> g1 NOOP
        """,
        limits=limits,
    )
    relay("C: a1 SEARCH TEXT {8+}\nC: <a*8> <b*25>\nC> a1 NO [LIMIT] The command is too long\n", limits=limits)


def test_fault_behind_a_literal() -> None:
    """What is wrong behind a literal is found when it has passed."""
    relay(
        """
        C: a1 SELECT {5+}
        C: INBOXx
        C: a2 DELETE {5+}
        C: INBOX INBOX
        C: a3 STATUS {5+}
        C: INBOX) {1+}
        C: x
        C: a4 NOOP
        C> a1 BAD SELECT: expected a space at octet 1 of the arguments
        C> a2 BAD DELETE: too many arguments
        C> a3 BAD STATUS: unexpected ")" at octet 1 of the arguments
        U> g1 NOOP
        """
    )


def test_cancelupdate_never_smuggles() -> None:
    """The tags that CANCELUPDATE names are written as strings, whatever stands in them."""
    relay(
        """
        C: a1 CANCELUPDATE {11+}
        C. x<CRLF>b LOGOUT
        C:
        U> g1 CANCELUPDATE {11}
        U< +
        U> x
        U> b LOGOUT
        C: a2 CANCELUPDATE "q\\"\\\\" z
        U> g2 CANCELUPDATE "q\\"\\\\" "z"
        """
    )
