"""Every way to end: BYE on either side, losses, half-closes, stops; and nothing after the end."""

from __future__ import annotations

import itertools

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.failure import LOST_SESSION, Failure
from imapgate.session.effects import Challenge, Close, Failed, Granted, Side, Timer
from imapgate.session.link import Link
from imapgate.session.login import Terms
from imapgate.session.session import ClientSession
from imapgate.session.states import Connection
from tests.session.playbook import NOT_TRAILING, OPEN, Way, logged_in, play, relay


def test_bye_from_upstream() -> None:
    """BYE is passed on once, and both sides closed; what follows it is not read."""
    session = relay(
        """
        C: a1 NOOP
        U> g1 NOOP
        U< * 1 EXISTS
        U< * BYE Shutting down
        U< g1 OK done
        C> * 1 EXISTS
        C> * BYE Shutting down
        <- close upstream
        <- close client
        == logout
        -> upstream lost
        -> client lost
        """
    )
    assert session.reason == "upstream BYE"


def test_bye_while_logging_out() -> None:
    """A BYE that comes while LOGOUT waits is the end, too."""
    session = relay(
        """
        C: a1 NOOP
        C: a2 LOGOUT
        U> g1 NOOP
        U< * BYE Shutting down
        C> * BYE Shutting down
        <- close upstream
        <- close client
        """
    )
    assert session.reason == "logout"


@pytest.mark.parametrize("failure", list(LOST_SESSION))
@pytest.mark.parametrize(
    "sent",
    [
        "",
        "C: a1 NOOP\nU> g1 NOOP\n",
        "C: a1 SELECT\nC> a1 BAD SELECT: expected a mailbox name, found the end of the command\n",
    ],
)
def test_f3_upstream_lost_at_a_lines_start(failure: Failure, sent: str) -> None:
    """F3: between two lines the client is told, in flight or not; no completion is invented."""
    session = relay(
        f"""
        {sent}
        U<. * SEARCH 1 2
        -> upstream lost {failure.value}
        C> {LOST_SESSION[failure].decode().strip()}
        <- close upstream
        <- close client
        == logout
        """,
        ways=NOT_TRAILING,
    )
    assert session.reason == f"upstream {failure.value}"


@pytest.mark.parametrize(
    "octets",
    [
        "* 1 FETCH (BODY[] {5}<CRLF>",
        "* 1 FETCH (BODY[] {5}<CRLF>abc",
        "* 1 FETCH (BODY[] {3}<CRLF>abc",
        "* LIST () {3}<CRLF>abc",
    ],
)
@pytest.mark.parametrize("event", ["upstream lost", "stop Going down", "tick idle"])
def test_f3_lost_in_the_middle_of_a_response(octets: str, event: str) -> None:
    """F3: in the middle of a response the connection is cut: a last line would look like the rest of it."""
    text = f"U<. {octets}\nC>. {octets}\n"
    if event == "tick idle":
        text += "-> tick idle\n" * 9
    else:
        text += f"-> {event}\n"
    relay(f"{text}<- close upstream\n<- abort client\n== logout\n", ways=NOT_TRAILING)


def test_client_violation_in_the_middle_of_a_response() -> None:
    """Also where it is the client that broke the protocol."""
    relay(
        """
        U<. * 1 FETCH (BODY[] {5}<CRLF>abc
        C>. * 1 FETCH (BODY[] {5}<CRLF>abc
        C. a1 NOOP<LF>
        <- report violation client Bare CR, LF or NUL outside a literal; lines end in CRLF
        <- close upstream
        <- abort client
        """,
        ways=(Way.LINES,),
    )


def test_long_lines_count_as_halves() -> None:
    """A line that is passed on in parts is a response whose rest is still to come."""
    session = logged_in()
    session.upstream_received(b"* LIST () NIL " + b"x" * 70000)
    assert session.upstream_lost(Failure.LOST)[-1] == Close(Side.CLIENT, abort=True)


def test_stop() -> None:
    """Stopped from outside: BYE, and the client closed, in whatever phase; upstream is given back where it is free."""
    ending = "C> * BYE Going down\n<- close upstream\n<- close client\n== logout\n"
    assert relay(f"-> stop Going down\n{ending.replace('close upstream', 'release')}").reason == "stopped"
    play(f"C: a1 LOGIN u p\n<- ask LOGIN u p\n-> stop Going down\n{ending}-> granted IMAP4rev1\n")
    play(f"C: a1 AUTHENTICATE PLAIN\nC> +<SP>\n-> stop Going down\n{ending}")
    relay(f"C: a1 NOOP\nU> g1 NOOP\n-> stop Going down\n{ending}U< g1 OK done\n")


def test_client_lost() -> None:
    """A client that is gone is told nothing; upstream is closed."""
    assert (
        relay("C: a1 NOOP\nU> g1 NOOP\n-> client lost\n<- close upstream\n<- close client\n").reason == "client closed"
    )
    session = play(
        "C: a1 LOGIN u p\n<- ask LOGIN u p\n-> client lost\n<- close upstream\n<- close client\n-> failed credentials\n"
    )
    assert session.reason == "client closed"


def test_f7_half_close_is_answered() -> None:
    """F7: a command followed by a half-close is still answered, as the servers themselves do."""
    relay(
        """
        C: a1 FETCH 1 FLAGS
        C: a2 NOOP
        U> g1 FETCH 1 FLAGS
        U> g2 NOOP
        -> half-close
        <- set half-close 5
        U< * 1 FETCH (FLAGS ())
        C> * 1 FETCH (FLAGS ())
        U< g1 OK done
        C> a1 OK done
        U< g2 OK done
        C> a2 OK done
        <- release
        <- close client
        """,
        ways=NOT_TRAILING,
    )


def test_f7_half_close_is_bounded() -> None:
    """F7: what is not answered in time after a half-close is not waited for."""
    relay(
        """
        C: a1 NOOP
        U> g1 NOOP
        -> half-close
        <- set half-close 5
        -> tick half-close
        <- close upstream
        <- abort client
        == logout
        """,
        ways=NOT_TRAILING,
    )


def test_f7_half_close_inside_a_message() -> None:
    """F7: a message of which no more can come holds nothing up; what came before it is answered first."""
    text = """
        C: a1 NOOP
        U> g1 NOOP
        C: a2 APPEND x {9}
        U> g2 APPEND x {9}
        U< + go
        C> + go
        C. abc
        U>. abc
        -> half-close
        U< g1 OK done
        C> a1 OK done
        <- close upstream
        <- close client
    """
    relay(text, ways=NOT_TRAILING)


def test_f7_half_close_with_nothing_owed() -> None:
    """F7: with nothing in flight it is the end; half a command is none."""
    for text in ("", "C. a1 NOO\n", "C. a1 SELECT {5}<CRLF>INB\nC> + OK\n", "C. a1 SELECT {5+}<CRLF>INB\n"):
        relay(f"{text}-> half-close\n<- release\n<- close client\n", ways=NOT_TRAILING)
        play("C. a1 NOO\n-> half-close\n<- close upstream\n<- close client\n")
    play("C: a1 AUTHENTICATE PLAIN\nC> +<SP>\n-> half-close\n<- close upstream\n<- close client\n")


def test_f7_half_close_during_the_login() -> None:
    """F7: a login that is under way, and what is pipelined behind it, is finished."""
    play(
        """
        C: a1 LOGIN u p
        C: a2 SELECT INBOX
        <- ask LOGIN u p
        -> half-close
        -> granted IMAP4rev1
        C> a1 OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        U> g1 SELECT INBOX
        U< g1 OK done
        C> a2 OK done
        <- release selected
        <- close client
        """,
        ways=NOT_TRAILING,
    )
    play(
        """
        C: a1 LOGIN u p
        <- ask LOGIN u p
        -> half-close
        -> failed credentials
        C> a1 NO [AUTHENTICATIONFAILED] Authentication failed
        <- close upstream
        <- close client
        """,
        ways=NOT_TRAILING,
    )


def test_f7_half_close_in_the_middle_of_a_message() -> None:
    """F7: an APPEND that can never be whole is not stored, and holds nothing up."""
    relay(
        """
        C: a1 APPEND INBOX {6}
        U> g1 APPEND INBOX {6}
        U< +
        C> +
        C. abc
        U>. abc
        -> half-close
        <- set half-close 5
        <- close upstream
        <- close client
        """,
        ways=NOT_TRAILING,
    )


def test_f7_half_close_with_an_own_answer_owed() -> None:
    """F7: an answer of the gate's own that waits for the end of a response is given, too."""
    relay(
        """
        U<. * 1 FETCH (BODY[] {3}<CRLF>a
        C>. * 1 FETCH (BODY[] {3}<CRLF>a
        C: a1 XFOO
        -> half-close
        U<. bc)<CRLF>
        C>. bc)<CRLF>
        C> a1 BAD Unknown command XFOO
        <- release
        <- close client
        """,
        ways=(Way.LINES, Way.CHUNKS),
    )


def _everything(session: ClientSession) -> list[object]:
    link = Link(DEFAULTS)
    link.unread = [(True, b"* OK hi\r\n")]
    calls = [
        session.client_connected(OPEN),
        session.client_received(b"b NOOP\r\n"),
        session.client_half_closed(),
        session.upstream_received(b"* 1 EXISTS\r\n"),
        session.upstream_lost(Failure.LOST),
        session.answered(Granted(link)),
        session.answered(Challenge(b"YQ==")),
        session.answered(Failed(Failure.CREDENTIALS)),
        *(session.ticked(timer) for timer in Timer),
        session.stop(b"x"),
        session.leave(b"x"),
        session.client_lost(),
    ]
    return list(itertools.chain.from_iterable(calls))


@pytest.mark.parametrize(
    "phase", ["connecting", "greeted", "asking", "sasl", "tls", "relaying", "literal", "idling", "leaving"]
)
@pytest.mark.parametrize("end", ["client_lost", "stop"])
def test_a51_nothing_after_the_end(phase: str, end: str) -> None:
    """A51: whatever is called late, in whatever phase the session ended, does nothing."""
    if phase in ("relaying", "literal", "idling", "leaving"):
        session = logged_in()
        session.client_received(b"a1 NOOP\r\n")
        sent = {"literal": b"a2 SELECT {5+}\r\nIN", "idling": b"a2 IDLE\r\n", "leaving": b"a2 LOGOUT\r\n"}
        session.client_received(sent.get(phase, b""))
    else:
        session = ClientSession(DEFAULTS)
        if phase != "connecting":
            session.client_connected(Terms(starttls=True, login=True))
        sent = {"asking": b"a LOGIN u p\r\n", "sasl": b"a AUTHENTICATE PLAIN\r\n", "tls": b"a STARTTLS\r\n"}
        session.client_received(sent[phase]) if phase in sent else None
    ended = session.stop(b"Going down") if end == "stop" else session.client_lost()
    assert ended[-2:] == [Close(Side.UPSTREAM), Close(Side.CLIENT)]
    reason = session.reason
    assert _everything(session) == []
    assert session.reason == reason
    assert session.state is Connection.LOGOUT


def test_before_anything() -> None:
    """Answers and upstream octets before they can be are no errors."""
    session = ClientSession(DEFAULTS)
    assert session.answered(Failed(Failure.CREDENTIALS)) == []
    session.client_connected(OPEN)
    assert session.upstream_received(b"* OK hi\r\n") == []
    session.client_received(b"a LOGIN u p\r\n")
    session.answered(Granted(Link(DEFAULTS)))
    assert session.answered(Failed(Failure.CREDENTIALS)) == []
    assert session.answered(Granted(Link(DEFAULTS))) == []
    assert session.state is Connection.AUTHENTICATED
