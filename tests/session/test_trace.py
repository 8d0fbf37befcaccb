"""The redacted wire trace, and what no repr shows."""

from __future__ import annotations

from imapgate.limits import DEFAULTS
from imapgate.session.effects import Report, SendClient, Side, Traced
from imapgate.session.session import ClientSession
from imapgate.wire.writer import Literal, redacted
from tests.session.playbook import Way, logged_in, relay, words

ROUGHLY = (Way.LINES,)


def test_trace() -> None:
    """Commands with the client's tags, responses as they are; literals and data as their size only."""
    relay(
        """
        C: a1 SELECT INBOX
        U> g1 SELECT INBOX
        <- trace client a1 SELECT INBOX
        U< * 3 EXISTS
        U< * OK [UIDVALIDITY 1] hi
        U< g1 OK done
        C> * 3 EXISTS
        C> * OK [UIDVALIDITY 1] hi
        C> a1 OK done
        <- trace upstream ... 12 octets of data
        <- trace upstream * OK [UIDVALIDITY 1] hi
        <- trace upstream g1 OK done
        C: a2 SEARCH TEXT {6+}
        C: canary TO "x"
        U> g2 SEARCH TEXT "canary" TO "x"
        <- trace client a2 SEARCH TEXT {6} TO "x"
        U<. * 1 FETCH (BODY[] {6}<CRLF>canary)<CRLF>
        C>. * 1 FETCH (BODY[] {6}<CRLF>canary)<CRLF>
        <- trace upstream ... 32 octets of data
        C: a3 APPEND INBOX {6+}
        C: canary
        U> g3 APPEND INBOX {6}
        <- trace client a3 APPEND INBOX
        U< + go
        U> canary
        <- trace upstream + go
        """,
        traced=True,
        ways=ROUGHLY,
    )


def test_no_trace_unless_wanted() -> None:
    """Nothing is traced where the operator has not asked for it."""
    session = logged_in()
    effects = session.client_received(b"a1 NOOP\r\n") + session.upstream_received(b"g1 OK done\r\n")
    assert not [effect for effect in effects if not hasattr(effect, "data")]


def test_redacted() -> None:
    """A literal is its size."""
    assert redacted((b" TEXT ", Literal(b"secret"), b" x")) == b" TEXT {6} x"


def test_trace_has_no_login() -> None:
    """A40: the login itself is never traced, since the trace begins with it."""
    session = logged_in(traced=True)
    shown = [
        words(effect) for effect in session.client_received(b"l2 LOGIN user canary\r\n") if not hasattr(effect, "data")
    ]
    assert shown == []


def test_from_now_on() -> None:
    """A session may be traced from some moment on; before the login there is nothing to be traced."""
    session = ClientSession(DEFAULTS)
    session.trace()
    session = logged_in()
    session.client_received(b"a NOOP\r\n")
    session.trace()
    assert session.upstream_received(b"g1 OK done\r\n") == [
        Report(Traced(Side.UPSTREAM, b"g1 OK done")),
        SendClient(b"a OK done\r\n"),
    ]
