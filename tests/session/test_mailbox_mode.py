"""Mode ``mailbox``: the connection is asked for when a command needs one, and given back when nothing is left of it."""

from __future__ import annotations

import pytest

from tests.session.playbook import MAILBOX_CAPABILITIES, NOT_TRAILING, WAYS, Way, mailbox, play

LEASED = f"<- ask lease\n-> granted {MAILBOX_CAPABILITIES}\n"
SELECTED = f"C: s SELECT x\n{LEASED}U> g1 SELECT x\nU< g1 OK done\nC> s OK done\n== selected\n"


def test_the_connection_of_the_login_is_given_back() -> None:
    """After the login nothing is selected and nothing is in flight; in mode session it is kept all the same."""
    login = "C: l LOGIN u p\n<- ask LOGIN u p\n"
    granted = "C> l OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in\n"
    play(f"{login}-> granted mailbox IMAP4rev1\n{granted}<- release\nC: a CREATE x\n<- ask lease\n", ways=NOT_TRAILING)
    play(f"{login}-> granted IMAP4rev1\n{granted}C: a CREATE x\nU> g1 CREATE x\n", ways=NOT_TRAILING)


def test_commands_behind_the_login() -> None:
    """What is pipelined behind the login asks for a connection again; what came with the login is read before."""
    play(
        """
        C: l LOGIN u p
        C: a SELECT x
        <- ask LOGIN u p
        -> unread * OK [ALERT] hello
        -> granted mailbox IMAP4rev1
        C> l OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        C> * OK [ALERT] hello
        <- release
        <- ask lease
        """,
        ways=NOT_TRAILING,
    )


def test_a_command_asks_for_a_connection() -> None:
    """A command waits for its connection, is written, answered, and the connection given back."""
    mailbox(
        f"""
        C: a1 LIST "" *
        {LEASED}
        U> g1 LIST "" *
        U< * LIST () "/" x
        U< g1 OK done
        C> * LIST () "/" x
        C> a1 OK done
        <- release
        == authenticated
        C: a2 STATUS x (MESSAGES)
        {LEASED}
        U> g1 STATUS x (MESSAGES)
        U< g1 NO done
        C> a2 NO done
        <- release
        """
    )


def test_commands_wait_in_order() -> None:
    """One connection is asked for, however many commands wait; it is given back after the last completion."""
    mailbox(
        f"""
        C: a1 CREATE x
        C: a2 NOOP
        C: a3 CREATE {{1+}}
        C: <xE4>
        C: a4 DELETE x
        {LEASED}
        U> g1 CREATE x
        U> g2 NOOP
        U> g3 CREATE {{1}}
        U< g2 OK second
        U< g1 OK first
        C> a2 OK second
        C> a1 OK first
        U< + go
        U> <xE4>
        U> g4 DELETE x
        U< g3 OK third
        C> a3 OK third
        U< g4 OK fourth
        C> a4 OK fourth
        <- release
        """
    )


def test_what_the_gate_answers_needs_no_connection() -> None:
    """CAPABILITY, ID, NOOP, and what is refused; the capabilities are those that upstream last showed."""
    mailbox(
        """
        C: a1 NOOP
        C: a2 CAPABILITY
        C: a3 ID NIL
        C: a4 XFOO
        C: a5 ENABLE CONDSTORE
        C> a1 OK Nothing done
        C> * CAPABILITY IMAP4rev1 IDLE LITERAL+ SASL-IR ID
        C> a2 OK Capabilities listed
        C> * ID ("name" "imapgate")
        C> a3 OK Nice to meet you
        C> a4 BAD Unknown command XFOO
        C> * ENABLED
        C> a5 OK Nothing enabled
        """,
        ways=WAYS,
    )


def test_not_while_a_mailbox_is_selected() -> None:
    """With a mailbox selected the connection stays, until CLOSE, UNSELECT or a SELECT that fails."""
    for leaving in ("CLOSE", "UNSELECT"):
        mailbox(
            f"""
            {SELECTED}
            C: a NOOP
            U> g2 NOOP
            U< g2 OK done
            C> a OK done
            U< * 1 EXISTS
            C> * 1 EXISTS
            C: b {leaving}
            U> g3 {leaving}
            U< g3 OK done
            C> b OK done
            <- release
            == authenticated
            """
        )
    mailbox(f"{SELECTED}C: b SELECT y\nU> g2 SELECT y\nU< g2 NO none\nC> b NO none\n<- release\n== authenticated\n")
    mailbox(f"{SELECTED}C: b CLOSE\nU> g2 CLOSE\nU< g2 NO no\nC> b NO no\n== selected\n")


def test_not_while_anything_is_in_flight() -> None:
    """Completions out of order: only after the last one; a command that came meanwhile keeps it, too."""
    mailbox(
        f"""
        C: a CREATE x
        C: b DELETE x
        {LEASED}
        U> g1 CREATE x
        U> g2 DELETE x
        U< g2 OK done
        C> b OK done
        C: c NOOP
        U> g3 NOOP
        U< g1 OK done
        C> a OK done
        U< g3 OK done
        C> c OK done
        <- release
        """
    )


def test_not_while_idling() -> None:
    """IDLE holds the connection, selected or not, until its completion."""
    mailbox(
        f"""
        C: a IDLE
        {LEASED}
        U> g1 IDLE
        U< + idling
        C> + idling
        U< * OK Still here
        C> * OK Still here
        C: DONE
        U> DONE
        U< g1 OK done
        C> a OK done
        <- release
        """
    )
    mailbox(f"C: a IDLE\n{LEASED}U> g1 IDLE\nU< g1 NO no\nC> a NO no\n<- release\n")


def test_done_before_the_connection() -> None:
    """DONE may come before there is a connection: IDLE is still played to its end."""
    mailbox(
        f"""
        C: a IDLE
        C: DONE
        C: b NOOP
        <- ask lease
        <- hold continuation
        -> granted {MAILBOX_CAPABILITIES}
        U> g1 IDLE
        U< +
        C> +
        U> DONE
        <- free continuation
        U< g1 OK done
        C> a OK done
        U> g2 NOOP
        U< g2 OK done
        C> b OK done
        <- release
        """
    )


@pytest.mark.parametrize("plus", ["", "+"])
def test_not_while_a_message_flows(plus: str) -> None:
    """A message literal waits for the connection, flows, and holds it until the last octet and the completion."""
    mailbox(
        f"""
        C: a APPEND x {{3{plus}}}
        {LEASED}
        U> g1 APPEND x {{3}}
        U< + go
        {"" if plus else "C> + go"}
        U< * OK Still here
        C> * OK Still here
        C. ab
        U>. ab
        C. c<CRLF>
        U>. c<CRLF>
        U< g1 OK done
        C> a OK done
        <- release
        """
    )


def test_a_message_answered_while_it_flows() -> None:
    """Its rest still goes where it began; then the connection is given back, though upstream says nothing more."""
    mailbox(
        f"""
        C: a APPEND x {{3}}
        {LEASED}
        U> g1 APPEND x {{3}}
        U< + go
        C> + go
        C. a
        U>. a
        U< g1 NO full
        C> a NO full
        C. bc<CRLF>
        U>. bc<CRLF>
        <- release
        C: b CREATE x
        {LEASED}
        U> g1 CREATE x
        """
    )
    mailbox(
        f"""
        C: a APPEND x {{3}}
        {LEASED}
        U> g1 APPEND x {{3}}
        U< + go
        C> + go
        U< g1 NO full
        C> a NO full
        C. abc
        U>. abc
        C.  {{5+}}<CRLF>
        U>. <CRLF>
        <- release
        C: 12345
        """
    )


def test_not_with_half_a_line_from_upstream() -> None:
    """What belongs to the next line in the chunk must be read here: the connection stays until a line's start."""
    mailbox(
        f"""
        C: a CREATE x
        {LEASED}
        U> g1 CREATE x
        U<. g1 OK done<CRLF>* 3 EXI
        C> a OK done
        U<. STS<CRLF>
        C> * 3 EXISTS
        <- release
        """,
        ways=(Way.LINES, Way.CHUNKS),
    )
    mailbox(
        f"""
        C: a CREATE x
        {LEASED}
        U> g1 CREATE x
        U<. g1 OK done<CRLF>* 3 FETCH (BODY[] {{5}}<CRLF>ab
        C> a OK done
        C>. * 3 FETCH (BODY[] {{5}}<CRLF>ab
        C: b NOOP
        U> g2 NOOP
        U<. cde)<CRLF>
        C> cde)
        U< g2 OK done
        C> b OK done
        <- release
        """,
        ways=(Way.LINES, Way.CHUNKS),
    )


def test_not_with_a_deferred_line() -> None:
    """A line of the gate's own that waits for the end of a response is said before the connection is given back."""
    mailbox(
        f"""
        C: a CREATE x
        {LEASED}
        U> g1 CREATE x
        U<. g1 OK done<CRLF>* 1 FETCH (BODY[] {{3}}<CRLF>a
        C> a OK done
        C>. * 1 FETCH (BODY[] {{3}}<CRLF>a
        C: b XFOO
        U< bc)
        C> bc)
        C> b BAD Unknown command XFOO
        <- release
        """,
        ways=(Way.LINES, Way.CHUNKS),
    )
