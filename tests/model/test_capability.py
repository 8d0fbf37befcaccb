"""Capabilities: what is shown, what is hidden, what is the gate's own."""

from __future__ import annotations

import pytest

from imapgate.model import capability

SHOWN = (
    b"IMAP4rev1", b"imap4REV1", b"IDLE", b"UIDPLUS", b"CONDSTORE", b"QRESYNC", b"MOVE", b"XLIST", b"UTF8=ACCEPT",
    b"THREAD=REFS", b"SORT=DISPLAY", b"CONTEXT=SEARCH", b"ACL", b"ACL2=UNION", b"QUOTA=RES-STORAGE", b"STATUS=SIZE",
    b"APPENDLIMIT=35651584", b"BINARY", b"REPLACE", b"SNIPPET=FUZZY", b"RIGHTS=kxten", b"METADATA", b"I18NLEVEL=1",
)  # fmt: skip
HIDDEN = (
    b"STARTTLS", b"LOGINDISABLED", b"AUTH=PLAIN", b"AUTH=SCRAM-SHA-256-PLUS", b"SASL-IR", b"LITERAL+", b"LITERAL-",
    b"ID", b"COMPRESS=DEFLATE", b"LOGIN-REFERRALS", b"MAILBOX-REFERRALS", b"URLAUTH", b"URLAUTH=BINARY", b"NOTIFY",
    b"UNAUTHENTICATE", b"XCLIENT", b"MULTIPLEX", b"X-ANYTHING", b"XAPPLEPUSHSERVICE", b"IMAP4rev2", b"", b"LANGUAGE",
)  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_shown(name: bytes) -> None:
    """What the gate knows to hold across it is shown, as upstream spells it."""
    assert capability.known(name)
    assert name in capability.after_login(name).split()


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden(name: bytes) -> None:
    """PROTOCOL §3: what is replaced, cannot hold or is not known is not shown."""
    assert not capability.known(name)
    assert capability.after_login(name) == b" ".join(capability.OWN)


def test_after_login() -> None:
    """The order is upstream's, nothing stands twice, and the gate's own come last."""
    upstream = b"IMAP4rev1 IDLE STARTTLS LITERAL+ IDLE ID MOVE"
    assert capability.after_login(upstream) == b"IMAP4rev1 IDLE MOVE LITERAL+ SASL-IR ID"
    assert capability.after_login(b"") == b"LITERAL+ SASL-IR ID"


@pytest.mark.parametrize(
    ("starttls", "login", "mechanisms", "shown"),
    [
        (False, True, (b"PLAIN", b"LOGIN"), b"AUTH=PLAIN AUTH=LOGIN"),
        (True, False, (b"CRAM-MD5",), b"STARTTLS LOGINDISABLED"),
        (True, True, (b"PLAIN", b"XOAUTH2"), b"STARTTLS AUTH=PLAIN AUTH=XOAUTH2"),
        (False, False, (), b"LOGINDISABLED"),
    ],
)
def test_before_login(starttls: bool, login: bool, mechanisms: tuple[bytes, ...], shown: bytes) -> None:
    """A3: mechanisms are offered only where a login is allowed, and LOGINDISABLED where it is not."""
    said = capability.before_login(starttls=starttls, login=login, mechanisms=mechanisms)
    assert said == b"IMAP4rev1 LITERAL+ SASL-IR ID " + shown


def test_without_the_login_command() -> None:
    """Where a login takes a mechanism, the command is shown as disabled."""
    said = capability.before_login(starttls=False, login=True, mechanisms=(b"XOAUTH2",), command=False)
    assert said == b"IMAP4rev1 LITERAL+ SASL-IR ID AUTH=XOAUTH2 LOGINDISABLED"


def test_a10_mechanisms() -> None:
    """What binds to the channel is not relayed, nor what ends at the gate, nor what is no mechanism."""
    offered = capability.parse(
        b"IMAP4rev1 auth=plain AUTH=LOGIN AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-256-PLUS AUTH=xoauth2 AUTH= AUTH=A.B "
        b"AUTH=A23456789012345678901 XAUTH=GSSAPI"
    )
    assert capability.mechanisms(offered) == (b"SCRAM-SHA-256", b"XOAUTH2")


def test_parse() -> None:
    """Names are compared in upper case, whatever blanks stand between."""
    assert capability.parse(b" Imap4rev1  IDLE\r\n") == {b"IMAP4REV1", b"IDLE"}


def test_enableable_is_known() -> None:
    """What may be enabled is shown."""
    assert all(map(capability.known, capability.ENABLEABLE))


def test_a30_a_family_name_is_a_name() -> None:
    """What stands behind a known prefix cannot close a response code, or hold anything but a name."""
    assert capability.known(b"SORT=DISPLAY")
    for name in (b"SORT=x]y", b"SORT=" + b"x" * 64, b"THREAD=a(b", b"RIGHTS=\xff"):
        assert not capability.known(name)
