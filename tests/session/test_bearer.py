"""Bearer tokens, where their mechanisms end at the gate: OAUTHBEARER (RFC 7628) and XOAUTH2."""

from __future__ import annotations

import base64

import pytest

from imapgate.session.bearer import REFUSED, oauthbearer, xoauth2
from imapgate.session.login import Terms
from tests.session.playbook import play

TERMS = Terms(starttls=False, login=True, terminated=(b"OAUTHBEARER", b"XOAUTH2"))
OAUTHBEARER = b"n,a=alice@example.org,\x01host=mail\x01auth=Bearer dG9r.ZW4=\x01\x01"
XOAUTH2 = b"user=alice@example.org\x01auth=Bearer dG9r.ZW4=\x01\x01"


def _encoded(response: bytes) -> str:
    return base64.b64encode(response).decode()


@pytest.mark.parametrize(
    ("response", "user"),
    [
        (OAUTHBEARER, b"alice@example.org"),
        (b"n,,\x01auth=Bearer dG9r.ZW4=\x01\x01", b""),
        (b"y,a=a=2Cb=3Dc,\x01auth=bearer   dG9r.ZW4=\x01\x01", b"a,b=c"),
        (b"n,a=,\x01auth=Bearer dG9r.ZW4=", b""),
    ],
)
def test_oauthbearer(response: bytes, user: bytes) -> None:
    """The user may be named or not; the token is a secret from here on."""
    found = oauthbearer(response)
    assert found is not None
    assert (found.user, found.password.reveal(), found.authorisation) == (user, b"dG9r.ZW4=", b"")
    assert "dG9r" not in repr(found)


def test_xoauth2() -> None:
    """The older form always names a user."""
    found = xoauth2(XOAUTH2)
    assert found is not None
    assert (found.user, found.password.reveal()) == (b"alice@example.org", b"dG9r.ZW4=")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"n,,\x01\x01",
        b"n,,auth=Bearer x\x01\x01",
        b"p=tls-unique,,\x01auth=Bearer x\x01\x01",
        b"n,a=x\x01y,\x01auth=Bearer x\x01\x01",
        b"n,,\x01auth=Bearer \x01\x01",
        b"n,,\x01auth=Bearer a b\x01\x01",
        b"n,,\x01auth=Basic x\x01\x01",
        b"n,,\x01notauth=Bearer x\x01\x01",
        b"auth=Bearer x\x01\x01",
    ],
)
def test_no_response(response: bytes) -> None:
    """What is not a response of the mechanism is none."""
    assert oauthbearer(response) is None
    assert xoauth2(response) is None


@pytest.mark.parametrize(("mechanism", "response"), [("OAUTHBEARER", OAUTHBEARER), ("XOAUTH2", XOAUTH2)])
def test_login(mechanism: str, response: bytes) -> None:
    """With an initial response or behind a prompt, the gate asks who it is."""
    asks = f"<- ask {mechanism} alice@example.org dG9r.ZW4=\n"
    play(f"C: a AUTHENTICATE {mechanism} {_encoded(response)}\n{asks}", terms=TERMS)
    play(f"C: a AUTHENTICATE {mechanism}\nC> +<SP>\nC: {_encoded(response)}\n{asks}", terms=TERMS)


def test_refused() -> None:
    """The refusal is told in a challenge first, which the client answers with anything (RFC 7628 §3.2.3)."""
    play(
        f"""
        C: a AUTHENTICATE XOAUTH2 {_encoded(XOAUTH2)}
        <- ask XOAUTH2 alice@example.org dG9r.ZW4=
        -> failed credentials
        C> + {REFUSED.decode()}
        C: AQ==
        C> a NO [AUTHENTICATIONFAILED] Authentication failed
        C: b NOOP
        C> b OK Nothing done
        """,
        terms=TERMS,
    )
    play(
        f"""
        C: a AUTHENTICATE XOAUTH2 {_encoded(XOAUTH2)}
        <- ask XOAUTH2 alice@example.org dG9r.ZW4=
        -> failed busy
        C> a NO [UNAVAILABLE] All connections to the mail server are in use; try again later
        """,
        terms=TERMS,
    )


def test_malformed() -> None:
    """What cannot be read is BAD, and nobody is asked."""
    play("C: a AUTHENTICATE XOAUTH2 YQ==\nC> a BAD Not a response of this mechanism\n", terms=TERMS)


def test_login_is_not_offered() -> None:
    """Where only tokens are taken, neither the LOGIN command nor PLAIN is."""
    play(
        """
        C: a LOGIN u p
        C: b AUTHENTICATE PLAIN
        C> a NO [CANNOT] The command is not offered
        C> b NO [CANNOT] The mechanism is not offered
        """,
        terms=TERMS,
    )
