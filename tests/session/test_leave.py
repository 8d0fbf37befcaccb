"""Leaving at the next command boundary: what is in flight is answered, what has begun is finished, no more is taken."""

from __future__ import annotations

import pytest

from imapgate.limits import DEFAULTS
from imapgate.session.effects import Close, Side
from imapgate.session.login import Terms
from imapgate.session.session import ClientSession
from tests.session.playbook import NOT_TRAILING, Way, mailbox, play, relay

BYE = "C> * BYE Going down\n"
CLOSED = f"{BYE}<- close upstream\n<- close client\n== logout\n"
RELEASED = f"{BYE}<- release\n<- close client\n== logout\n"


def test_at_once_with_nothing_in_flight() -> None:
    """A client that waits for nothing is told at once."""
    session = relay(f"-> leave Going down\n{RELEASED}", ways=NOT_TRAILING)
    assert session.reason == "stopped"
    relay(f"C. a NOO\n-> leave Going down\n{RELEASED}", ways=NOT_TRAILING)
    mailbox(f"-> leave Going down\n{CLOSED}")


@pytest.mark.parametrize(
    "before",
    [
        "",
        "C: a AUTHENTICATE PLAIN\nC> +<SP>\n",
        "C: a LOGIN u p\n<- ask LOGIN u p\n",
        "C: a LOGIN {1}\nC> + OK\n",
        "C: a X {5+}\n",
        "C: a STARTTLS\nC> a OK Begin TLS now\n<- starttls client\n",
    ],
)
def test_at_once_before_the_login(before: str) -> None:
    """Nothing is lost with a client that has not logged in."""
    play(f"{before}-> leave Going down\n{CLOSED}", terms=Terms(starttls=True, login=True), ways=NOT_TRAILING)


def test_at_once_before_tls() -> None:
    """A client whose handshake runs is no reason to wait either."""
    session = ClientSession(DEFAULTS)
    assert session.leave(b"Going down")[-2:] == [Close(Side.UPSTREAM), Close(Side.CLIENT)]
    assert session.leave(b"Going down") == []


def test_what_is_in_flight_is_answered() -> None:
    """The BYE comes behind the last completion; what the client sends meanwhile is not taken."""
    relay(
        f"""
        C: a CREATE x
        C: b FETCH 1 FLAGS
        U> g1 CREATE x
        U> g2 FETCH 1 FLAGS
        -> leave Going down
        <- hold logout
        C: c DELETE x
        U< g2 OK done
        C> b OK done
        U< * 1 EXISTS
        U< g1 OK done
        C> * 1 EXISTS
        C> a OK done
        {RELEASED}
        """,
        ways=NOT_TRAILING,
    )


def test_pipelined_commands_behind_are_not_taken() -> None:
    """Not those that wait for room in the pipeline, either: they never began."""
    relay(
        f"""
        C: a SELECT {{1+}}
        C: <xE4>
        U> g1 SELECT {{1}}
        -> leave Going down
        C: b DELETE x
        U< + go
        U> <xE4>
        U< g1 OK done
        C> a OK done
        {RELEASED.replace("release", "release selected")}
        """,
        ways=NOT_TRAILING,
    )


def test_what_waits_behind_the_head_is_taken_already() -> None:
    """A command that stands behind another one's literal is in flight for the client."""
    relay(
        f"""
        C: a SELECT {{1+}}
        C: <xE4>
        C: b DELETE x
        U> g1 SELECT {{1}}
        -> leave Going down
        U< + go
        U> <xE4>
        U> g2 DELETE x
        U< g1 NO no
        C> a NO no
        U< g2 OK done
        C> b OK done
        {RELEASED}
        """,
        ways=NOT_TRAILING,
    )


@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize("when", ["announced", "asked for", "flowing"])
def test_a_message_is_finished(plus: str, when: str) -> None:
    """A message that was announced is taken to its end, and answered; what follows it is not."""
    leave = {when: "-> leave Going down\n"}
    relay(
        f"""
        C: a APPEND x {{3{plus}}}
        U> g1 APPEND x {{3}}
        {leave.get("announced", "")}
        U< + go
        {"" if plus else "C> + go"}
        {leave.get("asked for", "")}
        C. a
        U>. a
        {leave.get("flowing", "")}
        C. bc<CRLF>b DELETE x<CRLF>
        U>. bc<CRLF>
        U< g1 OK done
        C> a OK done
        {RELEASED}
        """,
        ways=(Way.LINES, Way.CHUNKS),
    )


def test_several_messages_are_finished() -> None:
    """All messages of one command."""
    relay(
        f"""
        C: a APPEND x {{1}}
        U> g1 APPEND x {{1}}
        U< + go
        C> + go
        -> leave Going down
        C: 1 {{1}}
        U> 1 {{1}}
        U< + more
        C> + more
        C: 2
        U> 2
        C: b NOOP
        U< g1 OK done
        C> a OK done
        {RELEASED}
        """,
        ways=NOT_TRAILING,
    )


def test_a_message_answered_while_it_flows() -> None:
    """Its completion is the boundary; upstream is in the middle of it, and closed."""
    relay(
        f"""
        C: a APPEND x {{3}}
        U> g1 APPEND x {{3}}
        U< + go
        C> + go
        C. a
        U>. a
        -> leave Going down
        U< g1 NO full
        C> a NO full
        {CLOSED}
        """,
        ways=NOT_TRAILING,
    )


def test_idle_is_no_reason_to_wait() -> None:
    """A client that idles is told at once; one that has said DONE gets its completion first."""
    idle = "C: a IDLE\nU> g1 IDLE\nU< +\nC> +\n"
    relay(f"{idle}-> leave Going down\n{CLOSED}", ways=NOT_TRAILING)
    relay(f"C: a IDLE\nU> g1 IDLE\n-> leave Going down\n{CLOSED}", ways=NOT_TRAILING)
    relay(f"{idle}C: DONE\nU> DONE\n-> leave Going down\nU< g1 OK done\nC> a OK done\n{RELEASED}", ways=NOT_TRAILING)
    relay(
        f"""
        C: a CREATE x
        C: b IDLE
        U> g1 CREATE x
        U> g2 IDLE
        U< +
        C> +
        -> leave Going down
        U< g1 OK done
        C> a OK done
        {CLOSED}
        """,
        ways=NOT_TRAILING,
    )


def test_not_in_the_middle_of_a_response() -> None:
    """An unasked response that is half sent is finished, too."""
    relay(
        f"""
        U<. * 1 FETCH (BODY[] {{3}}<CRLF>a
        C>. * 1 FETCH (BODY[] {{3}}<CRLF>a
        -> leave Going down
        U<. bc)<CRLF>
        C>. bc)<CRLF>
        {RELEASED}
        """,
        ways=NOT_TRAILING,
    )


def test_while_waiting_for_a_connection() -> None:
    """In mode mailbox what waits is done, or refused; IDLE without a connection is told at once."""
    mailbox(
        f"""
        C: a CREATE x
        <- ask lease
        -> leave Going down
        C: b CREATE y
        -> granted IMAP4rev1
        U> g1 CREATE x
        U< g1 OK done
        C> a OK done
        <- release
        {CLOSED}
        """
    )
    busy = "NO [UNAVAILABLE] All connections to the mail server are in use; try again later"
    mailbox(f"C: a CREATE x\n<- ask lease\n-> leave Going down\n-> failed busy\nC> a {busy}\n{CLOSED}")
    mailbox(f"C: a IDLE\n<- ask lease\n-> leave Going down\n{CLOSED}")


def test_while_logging_out() -> None:
    """LOGOUT is answered as it was to be."""
    relay(
        """
        C: a CREATE x
        C: b LOGOUT
        U> g1 CREATE x
        -> leave Going down
        U< g1 OK done
        C> a OK done
        C> * BYE Logging out
        C> b OK Logged out
        <- release
        <- close client
        """,
        ways=NOT_TRAILING,
    )
