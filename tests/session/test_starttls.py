"""STARTTLS on the client's side."""

from __future__ import annotations

import pytest

from imapgate.limits import DEFAULTS
from imapgate.session.effects import Close, SetTimer, Side, Timer
from imapgate.session.login import Terms
from imapgate.session.session import ClientSession
from imapgate.session.states import Connection
from tests.session.playbook import NOT_TRAILING, Way, play, relay

OFFERED = Terms(starttls=True, login=False)


def test_starttls() -> None:
    """OK, then TLS; nothing of what came before is remembered, and no second greeting is sent."""
    play(
        """
        C: a0 ID ("name" "x")
        C> * ID ("name" "imapgate")
        C> a0 OK Nice to meet you
        C: a1 STARTTLS
        C> a1 OK Begin TLS now
        <- starttls client
        -> tls
        == not authenticated
        C: a2 CAPABILITY
        C> * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN
        C> a2 OK Capabilities listed
        C: a3 LOGIN u p
        <- ask LOGIN u p
        """,
        terms=OFFERED,
        ways=NOT_TRAILING,
    )


def test_bad_commands_before_tls_are_forgotten() -> None:
    """Also the count of bad commands begins again."""
    bad = "C: b1 X\nC> b1 BAD Unknown command X\n"
    play(
        bad * 2 + "C: a1 STARTTLS\nC> a1 OK Begin TLS now\n<- starttls client\n-> tls\n" + bad * 2,
        terms=OFFERED,
        ways=NOT_TRAILING,
    )


def test_a1_octets_behind_starttls() -> None:
    """A1: octets that came in one chunk with STARTTLS: no handshake, the connection ends."""
    for behind in ("C: b NOOP", "C. b", "C. <LF>", "C. <x16><x03><x01>"):
        play(
            f"""
            C: a1 STARTTLS
            {behind}
            C> * BAD Octets behind STARTTLS
            C> * BYE Closing
            <- report violation client Octets behind STARTTLS
            <- close upstream
            <- close client
            == logout
            """,
            terms=OFFERED,
            ways=(Way.CHUNKS,),
        )


def test_a1_octets_that_come_later() -> None:
    """A1: octets that reach the session before the handshake is over are never looked at."""
    for cut in range(1, 9):
        session = ClientSession(DEFAULTS)
        session.client_connected(OFFERED)
        session.client_received(b"a1 STARTTLS\r\n")
        injected = b"b NOOP\r\n"
        assert session.client_received(injected[:cut]) == []
        assert session.client_received(injected[cut:]) == []
        session.client_connected(Terms(starttls=False, login=True))
        effects = session.client_received(b"c NOOP\r\n")
        assert effects == [(b"c OK Nothing done\r\n",)]


def test_a4_second_starttls() -> None:
    """A4: STARTTLS is BAD where it is not offered, under TLS, and after the login."""
    play("C: a1 STARTTLS\nC> a1 BAD STARTTLS is not to be had here\n")
    play(
        """
        C: a1 STARTTLS
        C> a1 OK Begin TLS now
        <- starttls client
        -> tls
        C: a2 STARTTLS
        C> a2 BAD STARTTLS is not to be had here
        """,
        terms=OFFERED,
        ways=NOT_TRAILING,
    )
    relay(
        "C: a1 STARTTLS\nC: a2 LOGIN u p\nC> a1 BAD STARTTLS: already logged in\nC> a2 BAD LOGIN: already logged in\n"
    )


def test_starttls_takes_no_arguments() -> None:
    """STARTTLS with an argument begins nothing."""
    play("C: a1 STARTTLS now\nC> a1 BAD STARTTLS: too many arguments\n", terms=OFFERED)


@pytest.mark.parametrize("greeted", [True, False])
@pytest.mark.parametrize(
    ("call", "args"),
    [("ticked", (Timer.LOGIN,)), ("stop", (b"Going down",)), ("client_lost", ())],
)
def test_a51_the_end_during_the_handshake(call: str, args: tuple[object, ...], greeted: bool) -> None:
    """A51: a session that ended while TLS was being negotiated stays ended when the handshake is over."""
    session = ClientSession(DEFAULTS)
    if greeted:
        session.client_connected(OFFERED)
        session.client_received(b"a1 STARTTLS\r\n")
    effects = getattr(session, call)(*args)
    assert effects[-2:] == [Close(Side.UPSTREAM), Close(Side.CLIENT)]
    assert session.client_connected(OFFERED) == []
    assert session.client_received(b"a2 NOOP\r\n") == []
    assert session.state is Connection.LOGOUT


def test_a_half_close_before_the_greeting() -> None:
    """A client that closes its sending side before the greeting is greeted, and let go when it has nothing to say."""
    session = ClientSession(DEFAULTS)
    assert session.client_half_closed() == [SetTimer(Timer.HALF_CLOSE, 5)]
    session.client_connected(OFFERED)
    assert session.client_half_closed()[-1] == Close(Side.CLIENT)
