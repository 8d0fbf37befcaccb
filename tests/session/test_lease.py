"""Mode ``mailbox``: what becomes of a session that waits for a connection, and of what comes with one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.failure import ANSWERS, LOST_SESSION, Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.session.effects import Ask, Granted, Lease, Release
from imapgate.session.link import Link
from tests.session.playbook import MAILBOX_CAPABILITIES, WAYS, Way, logged_in, mailbox

REFUSED = [failure for failure in Failure if ANSWERS[failure][1] and failure is not Failure.CREDENTIALS]
LEASED = f"<- ask lease\n-> granted {MAILBOX_CAPABILITIES}\n"
SELECTED = f"C: s SELECT x\n{LEASED}U> g1 SELECT x\nU< g1 OK done\nC> s OK done\n== selected\n"

# --- no connection --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", REFUSED)
def test_a_refused_lease_answers_what_waits(failure: Failure) -> None:
    """Each waiting command is told, in order, with the code of the failure; the session goes on, and asks again."""
    completion, code, text = (part.decode() for part in ANSWERS[failure])
    answer = f"{completion} [{code}] {text}"
    mailbox(
        f"""
        C: a CREATE x
        C: b NOOP
        <- ask lease
        -> failed {failure.value}
        C> a {answer}
        C> b {answer}
        == authenticated
        C: c NOOP
        C> c OK Nothing done
        C: d CREATE y
        {LEASED}
        U> g1 CREATE y
        """,
        ways=WAYS,
    )


BUSY = "NO [UNAVAILABLE] " + ANSWERS[Failure.BUSY][2].decode()


def test_a_refused_message() -> None:
    """A synchronising literal is not sent; one that comes unasked is swallowed, whatever it holds."""
    mailbox(f"C: a APPEND x {{3}}\n<- ask lease\n-> failed busy\nC> a {BUSY}\nC: b NOOP\nC> b OK Nothing done\n")
    mailbox(
        f"""
        C: a APPEND x {{11+}}
        C: a1 LOGOUT
        C:
        C: b NOOP
        <- ask lease
        <- hold continuation
        -> failed busy
        C> a {BUSY}
        C> b OK Nothing done
        <- free continuation
        """
    )
    mailbox(
        f"""
        C: z CREATE x
        C: a APPEND x {{11+}}
        <- ask lease
        -> failed busy
        C> z {BUSY}
        C> a {BUSY}
        C: a1 LOGOUT
        C:  {{3+}}
        C: b N
        C: c NOOP
        C> c OK Nothing done
        """
    )


def test_a_refused_idle() -> None:
    """IDLE is over with its refusal: with its DONE gone before, or still to come and then no command."""
    mailbox(f"C: a IDLE\n<- ask lease\n-> failed busy\nC> a {BUSY}\nC: b NOOP\nC> b OK Nothing done\n")
    mailbox(
        f"""
        C: a IDLE
        C: DONE
        C: b NOOP
        <- ask lease
        -> failed busy
        C> a {BUSY}
        C> b OK Nothing done
        """
    )
    mailbox(f"C: z CREATE x\nC: a IDLE\n<- ask lease\n-> failed busy\nC> z {BUSY}\nC> a {BUSY}\nC: b NOOP\n"
            "C> b OK Nothing done\n")  # fmt: skip


def test_refused_in_the_operators_words() -> None:
    """Where the answer brings a text of its own, the client is told that."""
    mailbox("C: a CREATE x\n<- ask lease\n-> failed no-login Moving house\nC> a NO [UNAVAILABLE] Moving house\n")


def test_credentials_refused_is_the_end() -> None:
    """There will never be a connection again: BYE, and nothing of what waits is answered."""
    session = mailbox(
        f"""
        C: a CREATE x
        C: b APPEND x {{3+}}
        C: abc
        <- ask lease
        -> failed credentials
        C> {LOST_SESSION[Failure.CREDENTIALS].decode().strip()}
        <- close upstream
        <- close client
        == logout
        """
    )
    assert session.reason == "upstream credentials"


def test_challenge_is_no_answer_to_a_lease() -> None:
    """Nothing is relayed for a lease: the session goes on waiting."""
    mailbox(f"C: a CREATE x\n<- ask lease\n-> challenge YQ==\n{LEASED.split(chr(10), 1)[1]}U> g1 CREATE x\n")


# --- the end --------------------------------------------------------------------------------------------------


LEFT = "C> * BYE Logging out\nC> z OK Logged out\n"


def test_logout_without_a_connection() -> None:
    """LOGOUT needs none, and nothing is written to the one that was given back."""
    session = mailbox(f"C: z LOGOUT\n{LEFT}<- close upstream\n<- close client\n== logout\n", ways=WAYS)
    assert session.reason == "logout"


def test_logout_while_waiting() -> None:
    """LOGOUT waits for what waits, and for its answer, or its refusal."""
    mailbox(
        f"""
        C: a CREATE x
        C: z LOGOUT
        C: b NOOP
        <- ask lease
        -> granted {MAILBOX_CAPABILITIES}
        U> g1 CREATE x
        U< g1 OK done
        C> a OK done
        {LEFT}
        <- release
        <- close client
        """
    )
    refused = f"<- ask lease\n-> failed busy\nC> a {BUSY}\n"
    mailbox(f"C: a CREATE x\nC: z LOGOUT\n{refused}{LEFT}<- close upstream\n<- close client\n")


def test_logout_with_a_mailbox_selected() -> None:
    """The pool is told that a mailbox is selected there."""
    mailbox(f"{SELECTED}C: z LOGOUT\n{LEFT}<- release selected\n<- close client\n")


def test_lost_while_waiting() -> None:
    """Who has gone waits no longer; a connection that comes all the same is nobody's."""
    for event, said in (("client lost", ""), ("stop Bye", "C> * BYE Bye\n")):
        mailbox(
            f"C: a CREATE x\n<- ask lease\n-> {event}\n{said}<- close upstream\n<- close client\n"
            "-> granted IMAP4rev1\n-> failed busy\n"
        )
        mailbox(f"-> {event}\n{said}<- close upstream\n<- close client\n")


def test_f7_half_close_while_waiting() -> None:
    """F7: what waits for a connection when the client closes its sending side is still done."""
    mailbox(
        """
        C: a CREATE x
        <- ask lease
        -> half-close
        <- set half-close 5
        -> granted IMAP4rev1
        U> g1 CREATE x
        U< g1 OK done
        C> a OK done
        <- release
        <- close upstream
        <- close client
        """
    )
    mailbox(
        f"C: a CREATE x\n<- ask lease\n-> half-close\n-> failed busy\nC> a {BUSY}\n<- close upstream\n<- close client\n"
    )


def test_lost_with_the_connection() -> None:
    """A connection that is lost while it is held ends the session, as in mode session."""
    mailbox(
        f"{SELECTED}-> upstream lost\nC> {LOST_SESSION[Failure.LOST].decode().strip()}\n"
        "<- close upstream\n<- close client\n"
    )


# --- what comes with the connection ---------------------------------------------------------------------------


def test_unread_data_with_the_grant() -> None:
    """What came in one chunk with the answer to the login is read before anything is asked there."""
    mailbox(
        """
        C: a CREATE x
        <- ask lease
        -> unread * OK [ALERT] hello
        -> granted IMAP4rev1
        C> * OK [ALERT] hello
        U> g1 CREATE x
        U< g1 OK done
        C> a OK done
        <- release
        """
    )


@pytest.mark.parametrize("line", ["g1 OK done", "g9 OK done", "+ go"])
def test_a22_an_answer_that_comes_with_the_grant(line: str) -> None:
    """A22: it was there before the command was sent, so it is no answer to it."""
    mailbox(
        f"""
        C: a CREATE x
        <- ask lease
        -> unread {line}
        -> granted IMAP4rev1
        C> {LOST_SESSION[Failure.PROTOCOL].decode().strip()}
        <- close upstream
        <- close client
        """
    )


def test_bye_with_the_grant() -> None:
    """BYE is passed on, and nothing is written to who said it."""
    mailbox(
        """
        C: a CREATE x
        <- ask lease
        -> unread * BYE no
        -> granted IMAP4rev1
        C> * BYE no
        <- close upstream
        <- close client
        """
    )


def test_capabilities_of_the_next_connection() -> None:
    """What the client is shown is what the last connection said."""
    mailbox(
        """
        C: a CREATE x
        <- ask lease
        -> granted IMAP4rev1 MOVE
        U> g1 CREATE x
        U< * CAPABILITY IMAP4rev1 QUOTA
        U< g1 OK done
        C> * CAPABILITY IMAP4rev1 QUOTA LITERAL+ SASL-IR ID
        C> a OK done
        <- release
        C: b CAPABILITY
        C: c IDLE
        C> * CAPABILITY IMAP4rev1 QUOTA LITERAL+ SASL-IR ID
        C> b OK Capabilities listed
        C> c BAD IDLE is not offered here
        """
    )


def test_full_while_waiting() -> None:
    """As many commands wait as may be in flight; then the client is held."""
    mailbox(
        f"""
        C: a CREATE x
        C: b CREATE y
        C: c CREATE z
        <- ask lease
        <- hold pipeline
        -> granted {MAILBOX_CAPABILITIES}
        U> g1 CREATE x
        U> g2 CREATE y
        U< g1 OK done
        C> a OK done
        U> g3 CREATE z
        """,
        limits=replace(DEFAULTS, pipelined_commands=2),
        ways=(Way.CHUNKS,),
    )


def test_traced_as_the_connection_is() -> None:
    """Whether the next commands are traced comes with the connection."""
    mailbox(
        """
        C: a CREATE x
        <- ask lease
        -> granted traced IMAP4rev1
        <- trace client a CREATE x
        U> g1 CREATE x
        """
    )


def test_tags_go_on() -> None:
    """The tags are the connection's, and go on where its last session left them."""
    session = logged_in(mode=PoolMode.MAILBOX)
    assert session.client_received(b"a CREATE x\r\n") == [Ask(Lease())]
    link = Link(DEFAULTS)
    link.next_tag()
    effects = session.answered(Granted(link))
    assert effects[0] == (b"g2 CREATE x\r\n",)
    assert session.upstream_received(b"g2 OK done\r\n")[-1] == Release(selected=False)
    assert link.scanner.clean
    assert link.next_tag() == b"g3"
