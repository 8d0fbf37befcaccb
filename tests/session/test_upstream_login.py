"""The way into each kind of upstream server."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.secret import Credentials, Secret
from imapgate.session.effects import Login
from imapgate.session.login import Terms
from imapgate.session.upstream import Stage, originating
from tests.session.playbook import NOT_TRAILING, Way, login_of, play, upstream

ALICE = login_of("alice", "secret")
PLAIN = base64.b64encode(b"\0alice\0secret").decode()


@pytest.mark.parametrize(
    "greeted",
    [
        "U< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Dovecot ready\n",
        "U< * OK ready\nU> g1 CAPABILITY\nU< * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\nU< g1 OK done\n",
        "U< * ok ready\nU> g1 CAPABILITY\nU< * capability imap4rev1 sasl-ir auth=plain\nU< * OK hm\nU< g1 OK done\n",
        "U< * OK ready\nU> g1 CAPABILITY\nU< g1 OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] done\n",
        "U< * OK ready\nU< * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\nU> g1 CAPABILITY\nU< g1 OK done\n",
    ],
)
def test_greeting_and_capabilities(greeted: str) -> None:
    """Capabilities are taken from the greeting, or asked for, in whatever form they come."""
    tag = "g2" if "g1" in greeted else "g1"
    core = upstream(
        f"""
        {greeted}
        U> {tag} AUTHENTICATE PLAIN {PLAIN}
        U< {tag} OK [CAPABILITY IMAP4rev1 IDLE] Logged in
        <- granted IMAP4rev1 IDLE
        """,
        ALICE,
    )
    assert core.greeting.lower().startswith(b"* ok")
    assert b"AUTH=PLAIN" in core.offered.upper()
    assert core.stage is Stage.OVER


def test_plain_without_initial_response() -> None:
    """Without SASL-IR the response waits for the server's ``+``."""
    upstream(
        f"""
        U< * OK [CAPABILITY IMAP4rev1 AUTH=LOGIN AUTH=PLAIN] ready
        U> g1 AUTHENTICATE PLAIN
        U< +<SP>
        U> {PLAIN}
        U< * CAPABILITY IMAP4rev1 IDLE
        U< g1 OK Logged in
        <- granted IMAP4rev1 IDLE
        """,
        ALICE,
    )


def test_login_mechanism() -> None:
    """Where PLAIN is not offered, LOGIN is; never with an initial response."""
    upstream(
        """
        U< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=LOGIN] ready
        U> g1 AUTHENTICATE LOGIN
        U< + VXNlcm5hbWU6
        U> YWxpY2U=
        U< + UGFzc3dvcmQ6
        U> c2VjcmV0
        U< g1 OK [CAPABILITY IMAP4rev1] Logged in
        <- granted IMAP4rev1
        """,
        ALICE,
    )


def test_login_command() -> None:
    """Where neither is offered, the LOGIN command; then capabilities are asked, as Courier tells none."""
    upstream(
        """
        U< * OK [CAPABILITY IMAP4rev1] Courier-IMAP ready
        U> g1 LOGIN "alice" "secret"
        U< g1 OK LOGIN Ok.
        U> g2 CAPABILITY
        U< * CAPABILITY IMAP4rev1 UIDPLUS
        U< g2 OK CAPABILITY completed
        <- granted IMAP4rev1 UIDPLUS
        """,
        ALICE,
    )


def test_login_command_with_literals() -> None:
    """What cannot be quoted goes as a synchronising literal, each part behind its own ``+``."""
    upstream(
        """
        U< * OK [CAPABILITY IMAP4rev1 LITERAL+] ready
        U> g1 LOGIN {4}
        U< + go
        U> <xC3><xA4>li {3}
        U< + go
        U> <xE2><x82><xAC>
        U< g1 OK [CAPABILITY IMAP4rev1] hello
        <- granted IMAP4rev1
        """,
        login_of("äli", "€"),
    )
    upstream(
        """
        U< * OK [CAPABILITY IMAP4rev1 LITERAL+] ready
        U> g1 LOGIN "a\\"b" {1025}
        U< g1 NO too long
        <- failed credentials
        """,
        login_of('a"b', "x" * 1025),
    )


def test_no_capabilities_after_the_login() -> None:
    """A server that will not tell its capabilities after the login has none."""
    upstream(
        """
        U< * OK [CAPABILITY IMAP4rev1] ready
        U> g1 LOGIN "alice" "secret"
        U< g1 OK hello
        U> g2 CAPABILITY
        U< g2 BAD what
        <- granted
        """,
        ALICE,
    )


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ("NO no", "credentials"),
        ("NO [AUTHENTICATIONFAILED] no", "credentials"),
        ("BAD no", "credentials"),
        ("NO [UNAVAILABLE] later", "temporary"),
        ("no [limit] later", "temporary"),
        ("NO [INUSE] x", "temporary"),
        ("NO [SERVERBUG] x", "temporary"),
        ("NO [CONTACTADMIN] x", "temporary"),
        ("NO [REFERRAL imap://elsewhere/] Go there", "credentials"),
    ],
)
def test_refused(answer: str, failure: str) -> None:
    """A verdict on the credentials is told from a server that could not decide; referrals lead nowhere (A6)."""
    upstream(
        f"""
        U< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
        U> g1 AUTHENTICATE PLAIN {PLAIN}
        U< g1 {answer}
        <- failed {failure}
        """,
        ALICE,
    )


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("U< * BYE Too many", "bye"),
        ("U< * PREAUTH Hello", "protocol"),
        ("U< * NO hm", "protocol"),
        ("U< * 5 EXISTS\nU< * CAPABILITY IMAP4rev1", "protocol"),
        ("U< hello", "protocol"),
        ("U< g1 OK hello", "protocol"),
        ("U< + hello", "protocol"),
        ("U< HTTP/1.1 400 Bad Request", "protocol"),
        ("U<. * OK bare<LF>", "protocol"),
        ("U< * OK hi\nU> g1 CAPABILITY\nU< g1 BAD what", "protocol"),
        ("U< * OK hi\nU> g1 CAPABILITY\nU< g2 OK done", "protocol"),
        ("U< * OK hi\nU> g1 CAPABILITY\nU< * CAPABILITY A\nU< g1", "protocol"),
        ("U< * OK hi\nU> g1 CAPABILITY\nU< + go", "protocol"),
        ("U< * OK hi\nU> g1 CAPABILITY\nU< * BYE later\n-> upstream lost", "bye"),
        ("U< * OK hi\nU> g1 CAPABILITY\n-> upstream lost", "lost"),
        ("-> upstream lost", "lost"),
        ("U< * OK [CAPABILITY IMAP4rev1 LOGINDISABLED] hi", "no-mechanism"),
        ("U< * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\nU> g1 AUTHENTICATE PLAIN\nU< g1 BYE x", "protocol"),
    ],
)
def test_servers_that_will_not_do(text: str, failure: str) -> None:
    """Each way in which a server is of no use ends in its failure; nothing that follows changes it (A51)."""
    upstream(f"{text}\n<- failed {failure}\n-> upstream lost\n-> respond YQ==\n", ALICE, ways=NOT_TRAILING)


def test_challenges_without_end() -> None:
    """A server that asks for more than there is to say is broken (A30)."""
    upstream(
        f"""
        U< * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
        U> g1 AUTHENTICATE PLAIN
        U< +
        U> {PLAIN}
        U< + YQ==
        <- failed protocol
        """,
        ALICE,
    )


def test_the_grant_and_an_error_in_one_chunk() -> None:
    """A30: a login that is granted in the chunk that also breaks the protocol is none."""
    text = f"""
        U< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
        U> g1 AUTHENTICATE PLAIN {PLAIN}
        U< g1 OK [CAPABILITY IMAP4rev1] hello
        U<. * OK bare<LF>
        """
    upstream(text + "<- failed protocol", ALICE, ways=(Way.CHUNKS,))
    upstream(text + "<- granted IMAP4rev1", ALICE, ways=(Way.LINES, Way.OCTETS))


def test_what_comes_with_the_grant_is_the_sessions() -> None:
    """What follows the login's OK is kept for the session, unread."""
    core = upstream(
        f"""
        U< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
        U> g1 AUTHENTICATE PLAIN {PLAIN}
        U< g1 OK [CAPABILITY IMAP4rev1] hello
        U< * 5 EXISTS
        U< * OK [ALERT] hi
        <- granted IMAP4rev1
        """,
        ALICE,
    )
    assert core.link.unread == [(False, b"* 5 EXISTS\r\n"), (True, b"* OK [ALERT] hi\r\n")]
    assert core.link.next_tag() == b"g2"


# --- relayed mechanisms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "initial", "first"),
    [
        ("SASL-IR AUTH=SCRAM-SHA-1", "biws", "U> g1 AUTHENTICATE SCRAM-SHA-1 biws"),
        ("SASL-IR AUTH=SCRAM-SHA-1", "=", "U> g1 AUTHENTICATE SCRAM-SHA-1 ="),
        ("SASL-IR AUTH=SCRAM-SHA-1", "", "U> g1 AUTHENTICATE SCRAM-SHA-1 ="),
        ("AUTH=SCRAM-SHA-1", "biws", "U> g1 AUTHENTICATE SCRAM-SHA-1\nU< +<SP>\nU> biws"),
        ("AUTH=SCRAM-SHA-1", "=", "U> g1 AUTHENTICATE SCRAM-SHA-1\nU< +<SP>\nU>"),
        ("AUTH=SCRAM-SHA-1", None, "U> g1 AUTHENTICATE SCRAM-SHA-1"),
        ("SASL-IR AUTH=SCRAM-SHA-1", None, "U> g1 AUTHENTICATE SCRAM-SHA-1"),
    ],
)
def test_relayed(offered: str, initial: str | None, first: str) -> None:
    """Challenges and answers pass; the initial response waits where there is no SASL-IR."""
    upstream(
        f"""
        U< * OK [CAPABILITY IMAP4rev1 {offered}] ready
        {first}
        U< + cj0x
        <- challenge cj0x
        -> respond Yz0y
        U> Yz0y
        U< +
        <- challenge
        -> respond
        U>
        U< g1 OK [CAPABILITY IMAP4rev1] done
        <- granted IMAP4rev1
        """,
        Login(b"SCRAM-SHA-1", None, None if initial is None else Secret(initial.encode())),
    )


def test_relayed_cancel_and_limits() -> None:
    """A star is passed on and ends the login at once; challenges are counted; the mechanism must be offered."""
    login = Login(b"CRAM-MD5", None)
    upstream(
        """
        U< * OK [CAPABILITY IMAP4rev1 AUTH=CRAM-MD5] ready
        U> g1 AUTHENTICATE CRAM-MD5
        U< + PDE+
        <- challenge PDE+
        -> respond *
        U> *
        <- failed cancelled
        U< g1 BAD cancelled
        """,
        login,
    )
    upstream(
        """
        U< * OK [CAPABILITY IMAP4rev1 AUTH=CRAM-MD5] ready
        U> g1 AUTHENTICATE CRAM-MD5
        U< + YQ==
        <- challenge YQ==
        U< + YQ==
        <- failed protocol
        """,
        login,
        limits=replace(DEFAULTS, sasl_rounds=1),
    )
    upstream("U< * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\n<- failed no-mechanism\n", login)


def test_relayed_from_end_to_end() -> None:
    """A whole relayed login, behind STARTTLS upstream, client and server on one stage; then one that is cancelled."""
    to_server = """
        -> dial starttls
        U< * OK ready
        U> g1 STARTTLS
        U< g1 OK go
        <- starttls upstream
        -> tls
        U> g2 CAPABILITY
        U< * CAPABILITY IMAP4rev1 AUTH=CRAM-MD5
        U< g2 OK done
        U> g3 AUTHENTICATE CRAM-MD5
        U< + PDE+
        C> + PDE+
        """
    play(
        f"""
        C: a1 AUTHENTICATE CRAM-MD5
        <- ask CRAM-MD5
        {to_server}
        C: *
        <- respond *
        U> *
        C> a1 BAD Authentication cancelled
        C: a2 AUTHENTICATE CRAM-MD5
        <- ask CRAM-MD5
        {to_server}
        C: YWxpY2U=
        <- respond YWxpY2U=
        U> YWxpY2U=
        U< g3 OK [CAPABILITY IMAP4rev1] hello
        C> a2 OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        """,
        terms=Terms(starttls=False, login=True, relayed=(b"CRAM-MD5",)),
        ways=NOT_TRAILING,
    )


def test_terminated_from_end_to_end() -> None:
    """A whole login that ends at the gate; nothing that upstream says before it reaches the client (A5)."""
    play(
        """
        C: a1 AUTHENTICATE XOAUTH2 eA==
        C> a1 NO [CANNOT] The mechanism is not offered
        C: a2 LOGIN alice secret
        <- ask LOGIN alice secret
        -> dial
        U< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
        U> g1 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==
        U< * 3 EXISTS
        U< * OK [ALERT] before the login nothing of this reaches a client
        U< g1 OK [CAPABILITY IMAP4rev1 IDLE STARTTLS AUTH=PLAIN] hello
        U< * OK [ALERT] after it, it does
        C> a2 OK [CAPABILITY IMAP4rev1 IDLE LITERAL+ SASL-IR ID] Logged in
        C> * OK [ALERT] after it, it does
        C: a3 NOOP
        U> g2 NOOP
        U< g2 OK done
        C> a3 OK done
        """
    )


# --- ID, and probes ---------------------------------------------------------------------------------------------------

FIELDS = originating(("192.0.2.1", 1025), ("192.0.2.2", 993), "s1", [(b"name", b'the "mutt"')], ttl=4)


def test_a45_originating_id() -> None:
    """A45: a server that is marked for it, and knows ID, is told who the client is; its answer is not heeded."""
    upstream(
        """
        U< * OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] ready
        U> g1 ID ("x-originating-ip" "192.0.2.1" "x-originating-port" "1025" "x-connected-ip" "192.0.2.2" """
        """"x-connected-port" "993" "x-session-id" "s1" "x-proxy-ttl" "4" "name" "the \\"mutt\\"")
        U< * ID NIL
        U< g1 NO what
        U> g2 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==
        """,
        ALICE,
        originating=FIELDS,
    )
    upstream(
        "U< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] x\nU> g1 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==\n",
        ALICE,
        originating=FIELDS,
    )


def test_originating_fields_are_short_and_printable() -> None:
    """The shell gives no field that would need a literal; one that does is a bug, and none is sent."""
    with pytest.raises(AssertionError, match="quotable"):
        upstream("U< * OK [CAPABILITY ID] x", ALICE, originating=((b"x", b"\r\n"),))


def test_probe() -> None:
    """A probe logs nobody in: it stops at the capabilities."""
    core = upstream(
        """
        U< * OK ready
        U> g1 CAPABILITY
        U< * CAPABILITY IMAP4rev1 IDLE
        U< g1 OK done
        <- granted IMAP4rev1 IDLE
        """,
        None,
    )
    assert core.offered == b"IMAP4rev1 IDLE"


def test_authorisation() -> None:
    """As whom a master user acts is said by PLAIN, and by nothing else: without it there is no login."""
    login = Login(b"PLAIN", Credentials(b"gate", Secret(b"secret"), b"alice"))
    response = base64.b64encode(b"alice\0gate\0secret").decode()
    upstream(
        f"U< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=LOGIN AUTH=PLAIN] x\nU> g1 AUTHENTICATE PLAIN {response}\n", login
    )
    upstream("U< * OK [CAPABILITY IMAP4rev1 AUTH=LOGIN] x\n<- failed no-mechanism\n", login)
