"""AUTHENTICATE: what ends at the gate, and what is relayed."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.secret import Secret
from imapgate.session import effects as wants
from imapgate.session.login import Terms, decoded
from imapgate.session.session import ClientSession
from tests.session.playbook import OPEN, Way, play

RELAYED = Terms(starttls=False, login=True, relayed=(b"CRAM-MD5", b"SCRAM-SHA-1"))
ONCE = (Way.LINES, Way.CHUNKS)


def _plain(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ("\0alice\0secret", "alice secret"),
        ("alice\0alice\0secret", "alice secret as alice"),
        ("bob\0alice\0secret", "alice secret as bob"),
        ("\0al ice\0se cret", "al ice se cret"),
    ],
)
def test_plain(fields: str, asked: str) -> None:
    """PLAIN with an initial response (RFC 4959), or in answer to the empty challenge."""
    play(f"C: a1 AUTHENTICATE PLAIN {_plain(fields)}\n<- ask PLAIN {asked}\n<- hold answer\n")
    play(f"C: a1 authenticate plain\nC> +<SP>\nC: {_plain(fields)}\n<- ask PLAIN {asked}\n")
    play(f"C: a1 AUTHENTICATE PLAIN\nC: {_plain(fields)}\nC> +<SP>\n<- ask PLAIN {asked}\n")


def test_login_mechanism() -> None:
    """LOGIN asks for user and password, or for the password alone behind an initial response."""
    play(
        """
        C: a1 AUTHENTICATE LOGIN
        C> + VXNlcm5hbWU6
        C: YWxpY2U=
        C> + UGFzc3dvcmQ6
        C: c2VjcmV0
        <- ask LOGIN alice secret
        <- hold answer
        -> granted IMAP4rev1
        C> a1 OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        <- free answer
        C: a2 NOOP
        U> g1 NOOP
        """
    )
    play(
        """
        C: a1 AUTHENTICATE LOGIN YWxpY2U=
        C> + UGFzc3dvcmQ6
        C: c2VjcmV0
        <- ask LOGIN alice secret
        """
    )


def test_empty_answers() -> None:
    """An equals sign alone is an empty answer (RFC 4959 §3), and so is an empty line."""
    assert decoded(b"=") == decoded(b"") == b""
    session = ClientSession(DEFAULTS)
    session.client_connected(OPEN)
    effects = session.client_received(b"a1 AUTHENTICATE LOGIN =\r\n\r\n")
    asked = next(effect.question for effect in effects if isinstance(effect, wants.Ask))
    assert asked.credentials is not None
    assert (asked.credentials.user, asked.credentials.password.reveal()) == (b"", b"")


@pytest.mark.parametrize("answer", ["AHUAcA=", "A", "AHUAcA==x", "AH UAcA==", "AHUAcA==AHUAcA==", "-", "**", "<xFF>"])
def test_a27_not_base64(answer: str) -> None:
    """A27: what is not strictly base64 ends the exchange; the next line is a command again."""
    play(
        f"""
        C: a1 AUTHENTICATE PLAIN
        C> +<SP>
        C: {answer}
        C: a2 NOOP
        C> a1 BAD Not base64; authentication ended
        C> a2 OK Nothing done
        """
    )


@pytest.mark.parametrize("initial", ["AHUAcA=", "A", "AHUAcA==x"])
def test_a27_initial_response_not_base64(initial: str) -> None:
    """A27: the initial response is held to the same; nothing was begun."""
    play(
        f"""
        C: a1 AUTHENTICATE PLAIN {initial}
        C: a2 NOOP
        C> a1 BAD The initial response is not base64
        C> a2 OK Nothing done
        """
    )


@pytest.mark.parametrize("fields", ["", "u\0p", "a\0u\0p\0x"])
def test_plain_has_three_fields(fields: str) -> None:
    """Two or four fields are no PLAIN response."""
    play(f"C: a1 AUTHENTICATE PLAIN {_plain(fields) or '='}\nC> a1 BAD A PLAIN response has three fields\n")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("AUTHENTICATE", "BAD AUTHENTICATE: expected a string, found the end of the command"),
        ("AUTHENTICATE PLAIN = x", "BAD AUTHENTICATE takes a mechanism, and at most one initial response"),
        ("AUTHENTICATE CRAM-MD5", "NO [CANNOT] The mechanism is not offered"),
        ("AUTHENTICATE SCRAM-SHA-1-PLUS =", "NO [CANNOT] The mechanism is not offered"),
        ("AUTHENTICATE {4+}\nC: a<CRLF>b", "BAD AUTHENTICATE takes a mechanism, and at most one initial response"),
        ('AUTHENTICATE PLAIN "AHUAcA=="', "BAD AUTHENTICATE takes a mechanism, and at most one initial response"),
        ("AUTHENTICATE PLAIN (AHUAcA==)", "BAD AUTHENTICATE takes a mechanism, and at most one initial response"),
    ],
)
def test_refused(line: str, answer: str) -> None:
    """What is malformed is BAD, what is not offered NO."""
    play(f"C: a1 {line}\nC> a1 {answer}\n")


def test_cancel() -> None:
    """A star cancels what ends at the gate, at either prompt."""
    play(
        """
        C: a1 AUTHENTICATE PLAIN
        C: *
        C: a2 AUTHENTICATE LOGIN
        C: YWxpY2U=
        C: *
        C: a3 NOOP
        C> +<SP>
        C> a1 BAD Authentication cancelled
        C> + VXNlcm5hbWU6
        C> + UGFzc3dvcmQ6
        C> a2 BAD Authentication cancelled
        C> a3 OK Nothing done
        """
    )


def test_relayed() -> None:
    """Other mechanisms are relayed, challenge by challenge; user and password stay unknown."""
    session = play(
        """
        C: a1 AUTHENTICATE CRAM-MD5
        <- ask CRAM-MD5
        <- hold answer
        -> challenge PDEuMkBob3N0Pg==
        C> + PDEuMkBob3N0Pg==
        <- free answer
        C: dSBkaWdlc3Q=
        <- respond dSBkaWdlc3Q=
        <- hold answer
        -> granted IMAP4rev1
        C> a1 OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        <- report logged in  CRAM-MD5
        <- free answer
        == authenticated
        """,
        terms=RELAYED,
    )
    assert session.user == b""


def test_relayed_with_initial_response() -> None:
    """The initial response goes on as it came; several rounds are possible."""
    play(
        """
        C: a1 AUTHENTICATE scram-sha-1 biwsbj11
        <- ask SCRAM-SHA-1 initial biwsbj11
        -> challenge cj0x
        C> + cj0x
        C: Yz0y
        <- respond Yz0y
        -> challenge dj0z
        C> + dj0z
        C: =
        <- respond =
        -> failed credentials
        C> a1 NO [AUTHENTICATIONFAILED] Authentication failed
        <- report login failed  SCRAM-SHA-1 credentials
        C: a2 NOOP
        C> a2 OK Nothing done
        """,
        terms=RELAYED,
    )


@pytest.mark.parametrize("line", ["*", "not base64"])
def test_relayed_cancel(line: str) -> None:
    """A star goes on as a star, and so does what is not base64 (A27); the client gets one BAD."""
    play(
        f"""
        C: a1 AUTHENTICATE CRAM-MD5
        <- ask CRAM-MD5
        -> challenge PDE+
        C> + PDE+
        C: {line}
        <- respond *
        -> failed cancelled
        C> a1 BAD Authentication cancelled
        """,
        terms=RELAYED,
    )


def test_rounds_limit() -> None:
    """Too many rounds end the connection."""
    play(
        """
        C: a1 AUTHENTICATE CRAM-MD5
        <- ask CRAM-MD5
        -> challenge YQ==
        C: YQ==
        -> challenge YQ==
        C> + YQ==
        C> + YQ==
        <- respond YQ==
        C: YQ==
        <- respond YQ==
        -> challenge YQ==
        C: YQ==
        C> + YQ==
        C> * BAD Too many rounds of authentication
        C> * BYE Closing
        <- close upstream
        <- close client
        """,
        terms=RELAYED,
        limits=replace(DEFAULTS, sasl_rounds=2),
    )


def test_sasl_line_limit() -> None:
    """A SASL line has a limit of its own, wider than that of a command before the login."""
    play("C: a1 AUTHENTICATE PLAIN\nC: <A*12288>\nC> +<SP>\nC> a1 BAD A PLAIN response has three fields\n", ways=ONCE)
    play(
        """
        C: a1 AUTHENTICATE PLAIN
        C. <A*12290>
        C> +<SP>
        C> * BAD Command line of more than 12288 octets
        C> * BYE Closing
        <- close upstream
        <- close client
        """,
        ways=ONCE,
    )


def test_secrets_stay_secret() -> None:
    """A40: neither effects nor the session show a password or a SASL answer."""
    session = ClientSession(DEFAULTS)
    session.client_connected(RELAYED)
    shown = repr(session.client_received(b"a1 AUTHENTICATE PLAIN " + base64.b64encode(b"\0u\0canary") + b"\r\n"))
    session.answered(wants.Challenge(b"YQ=="))
    shown += repr(session.client_received(base64.b64encode(b"canary") + b"\r\n"))
    assert "Secret(…)" in shown
    assert "canary" not in shown
    assert base64.b64encode(b"canary").decode() not in shown
    assert repr(Secret(b"canary")) == "Secret(…)"
