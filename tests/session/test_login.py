"""Before the login: greeting, capabilities, the LOGIN command, ID, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.failure import ANSWERS, Failure
from imapgate.session.login import SELF, Terms
from imapgate.session.session import TOO_MANY, ClientSession
from tests.session.playbook import GREETING, OPEN, play, words

ME = SELF.decode().rstrip()


@pytest.mark.parametrize(
    ("terms", "shown"),
    [
        (OPEN, "IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN"),
        (Terms(starttls=True, login=False), "IMAP4rev1 LITERAL+ SASL-IR ID STARTTLS LOGINDISABLED"),
        (Terms(starttls=True, login=True), "IMAP4rev1 LITERAL+ SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN"),
        (
            Terms(starttls=False, login=True, relayed=(b"CRAM-MD5",)),
            "IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN AUTH=CRAM-MD5",
        ),
        (Terms(starttls=False, login=False, relayed=(b"CRAM-MD5",)), "IMAP4rev1 LITERAL+ SASL-IR ID LOGINDISABLED"),
    ],
)
def test_greeting(terms: Terms, shown: str) -> None:
    """The first line, its capabilities, and the clock that then runs; CAPABILITY says the same."""
    effects = ClientSession(DEFAULTS).client_connected(terms)
    greeting = f"* OK [CAPABILITY {shown}] imapgate ready\r\n".encode()
    assert effects[0] == (greeting,)
    assert [words(effect) for effect in effects[1:]] == ["set login 60"]
    play(f"C: a1 capability\nC> * CAPABILITY {shown}\nC> a1 OK Capabilities listed\n", terms=terms)
    assert terms is not OPEN or greeting.decode().strip() == GREETING


def test_turned_away() -> None:
    """A client that is not let in gets one line."""
    assert TOO_MANY == b"* BYE [LIMIT] Too many connections\r\n"


def test_login_command() -> None:
    """Atoms: asked, held, answered, freed; the clock of the login stops, two others run."""
    session = play(
        """
        C: a1 LOGIN alice secret
        <- ask LOGIN alice secret
        <- hold answer
        -> granted IMAP4rev1 IDLE XSECRET
        C> a1 OK [CAPABILITY IMAP4rev1 IDLE LITERAL+ SASL-IR ID] Logged in
        <- report logged in alice LOGIN
        <- cancel login
        <- set idle 240
        <- set upstream 7.5
        <- free answer
        == authenticated
        """
    )
    assert session.user == b"alice"
    assert session.commands == 1
    assert session.reason == ""


@pytest.mark.parametrize(
    "sent",
    [
        'C: a1 LOGIN "al ice" "a \\\\ \\" b"',
        'C: a1 login {6}\nC> + OK\nC: al ice "a \\\\ \\" b"',
        'C: a1 LOGIN {6+}\nC: al ice "a \\\\ \\" b"',
        'C: a1 Login {6}\nC> + OK\nC: al ice {7}\nC> + OK\nC: a \\ " b',
        'C: a1 LOGIN {6+}\nC: al ice {7+}\nC: a \\ " b',
    ],
)
def test_login_forms(sent: str) -> None:
    """Quoted strings and literals of either kind mean the same."""
    play(f'{sent}\n<- ask LOGIN al ice a \\ " b\n')


def test_login_literal_holds_what_looks_like_a_command() -> None:
    """A literal that holds commands is a password."""
    session = ClientSession(DEFAULTS)
    session.client_connected(OPEN)
    effects = session.client_received(b"a1 LOGIN alice {16+}\r\n\r\nb1 LOGOUT\r\nb2 \r\n")
    assert [type(effect).__name__ for effect in effects] == ["Ask", "Hold"]
    assert effects[0].question.credentials.password.reveal() == b"\r\nb1 LOGOUT\r\nb2 "  # type: ignore[union-attr]


def test_pipelined_behind_the_login() -> None:
    """What comes while the answer is awaited stays where it is, and is taken afterwards."""
    play(
        """
        C: a1 LOGIN alice secret
        C: a2 NOOP
        C: a3 SELECT INBOX
        <- ask LOGIN alice secret
        -> granted IMAP4rev1
        C> a1 OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        U> g1 NOOP
        U> g2 SELECT INBOX
        """
    )


def test_capabilities_are_sent_again_to_whom_had_asked() -> None:
    """A client that had asked CAPABILITY before gets the untagged line, as with Dovecot's own proxy."""
    play(
        """
        C: a1 CAPABILITY
        C> * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN
        C> a1 OK Capabilities listed
        C: a2 LOGIN u p
        <- ask LOGIN u p
        -> granted IMAP4rev1 MOVE
        C> * CAPABILITY IMAP4rev1 MOVE LITERAL+ SASL-IR ID
        C> a2 OK [CAPABILITY IMAP4rev1 MOVE LITERAL+ SASL-IR ID] Logged in
        """
    )


@pytest.mark.parametrize("failure", list(ANSWERS))
def test_every_failure(failure: Failure) -> None:
    """Each failure has its one answer (THREATS A36); the client may try again; a cancelled login is no failure."""
    completion, code, text = (part.decode() for part in ANSWERS[failure])
    answer = f"a1 {completion} [{code}] {text}" if code else f"a1 {completion} {text}"
    report = "" if failure is Failure.CANCELLED else f"<- report login failed alice LOGIN {failure.value}"
    play(
        f"""
        C: a1 LOGIN alice wrong
        <- ask LOGIN alice wrong
        <- hold answer
        -> failed {failure.value}
        C> {answer}
        {report}
        <- free answer
        == not authenticated
        C: a2 LOGIN alice right
        <- ask LOGIN alice right
        <- hold answer
        -> granted IMAP4rev1
        C> a2 OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID] Logged in
        <- report logged in alice LOGIN
        <- free answer
        """
    )


def test_no_login_without_tls() -> None:
    """LOGINDISABLED is a real refusal, before and whatever the credentials are."""
    play(
        """
        C: a1 LOGIN alice secret
        C> a1 NO [PRIVACYREQUIRED] Begin TLS first
        C: a2 AUTHENTICATE PLAIN
        C> a2 NO [PRIVACYREQUIRED] Begin TLS first
        C: a3 AUTHENTICATE PLAIN AHUAcA==
        C> a3 NO [PRIVACYREQUIRED] Begin TLS first
        """,
        terms=Terms(starttls=True, login=False),
    )


def test_a45_id_fields() -> None:
    """A45: what the client says of itself goes on, without x- fields, NIL, and what is not printable."""
    play(
        f"""
        C: a1 ID ("name" "mutt" "X-originating-ip" "10.0.0.1" "version" NIL "os" {{1+}}
        C: <x07> x-session-id y "vendor" {{3+}}
        C: abc)
        C> {ME}
        C> a1 OK Nice to meet you
        C: a2 LOGIN u p
        <- ask LOGIN u p name=mutt vendor=abc
        """
    )
    play(f"C: a1 ID NIL\nC> {ME}\nC> a1 OK Nice to meet you\nC: a2 LOGIN u p\n<- ask LOGIN u p\n")


def test_id_fields_are_bounded() -> None:
    """RFC 2971 allows thirty fields; the rest goes nowhere."""
    fields = " ".join(f'"f{number}" "v"' for number in range(40))
    known = " ".join(f"f{number}=v" for number in range(30))
    play(
        f"C: a1 ID ({fields})\nC> {ME}\nC> a1 OK Nice to meet you\nC: a2 LOGIN u p\n<- ask LOGIN u p {known}\n",
    )


def test_noop_and_logout() -> None:
    """The gate answers both before a login, and nothing after LOGOUT."""
    session = play(
        """
        C: a1 NOOP
        C> a1 OK Nothing done
        C: a2 LOGOUT
        C: a3 NOOP
        C> * BYE Logging out
        C> a2 OK Logged out
        <- close upstream
        <- close client
        == logout
        """
    )
    assert session.reason == "logout"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("a1 SELECT INBOX", "a1 BAD SELECT: log in first"),
        ("a1 uid fetch 1 FLAGS", "a1 BAD UID FETCH: log in first"),
        ("a1 XFOO", "a1 BAD Unknown command XFOO"),
        ("a1 UID", "a1 BAD Unknown command UID"),
        ("a1", "a1 BAD Expected a command after the tag"),
        ("a1 ", "a1 BAD Expected a command after the tag"),
        ("a1 NOOP ", "a1 BAD Expected a command after the tag"),
        ("", "* BAD Expected a tag, a space and a command"),
        ("+ NOOP", "* BAD Expected a tag, a space and a command"),
        ("* NOOP", "* BAD Expected a tag, a space and a command"),
        ("%s%n NOOP", "* BAD Expected a tag, a space and a command"),
        ("a<xE4> NOOP", "* BAD Expected a tag, a space and a command"),
        ("<a*65> NOOP", "* BAD Expected a tag, a space and a command"),
        ("a1 NOOP x", "a1 BAD NOOP: too many arguments"),
        ("a1 LOGIN u", "a1 BAD LOGIN: expected a string, found the end of the command"),
        ("a1 LOGIN u p q", "a1 BAD LOGIN: too many arguments"),
        ("a1 LOGIN (u) p", "a1 BAD LOGIN: expected a string"),
        ("a1 LOGIN u  p", "a1 BAD LOGIN: unexpected character at octet 2 of the arguments"),
        ("a1 ID ((a b))", "a1 BAD ID: lists nested more than 1 deep"),
        ("a1 LOGIN u {8193}", "a1 NO [TOOBIG] A literal of more than 8192 octets"),
        ("a1 LOGIN u {x}", "a1 BAD LOGIN: unexpected character at octet 2 of the arguments"),
    ],
)
def test_bad_commands(line: str, answer: str) -> None:
    """Each bad line gets one BAD, with the client's tag only where that is one (THREATS A21)."""
    marked = line if not line.endswith(" ") else line[:-1] + "<SP>"
    play(f"C: {marked}\nC: b1 NOOP\nC> {answer}\nC> b1 OK Nothing done\n")


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1",
        "POST /x HTTP/1.0",
        "EHLO example.org",
        "USER bob",
        "SSH-2.0-OpenSSH_9",
        "HEAD",
        "OPTIONS * RTSP/1.0",
    ],
)
def test_a9_other_protocols(line: str) -> None:
    """A9: a line of another protocol ends the conversation, and nothing of it is echoed."""
    session = play(
        f"""
        C: {line}
        C: a1 NOOP
        <- report violation client another protocol
        <- close upstream
        <- close client
        """
    )
    assert session.reason == "client protocol error"


def test_bad_command_limit() -> None:
    """The third bad command before the login is the last."""
    session = play(
        """
        C: a1 X
        C: a2 X
        C> a1 BAD Unknown command X
        C> a2 BAD Unknown command X
        C: a3 STARTTLS
        C: a4 NOOP
        C> a3 BAD STARTTLS is not to be had here
        C> * BYE Too many bad commands
        <- close upstream
        <- close client
        """
    )
    assert session.reason == "too many bad commands"


@pytest.mark.parametrize(
    "sent", ["a1 NOOP<LF>", "a1 NO<CR>OP<CRLF>", "a1 NO<NUL>OP<CRLF>", "a1 NOOP<CR><CR><LF>", "<LF>"]
)
def test_a12_line_endings(sent: str) -> None:
    """A12: a bare CR, LF or NUL is BAD, BYE and the end."""
    play(
        f"""
        C. {sent}
        C: b1 NOOP
        C> * BAD Bare CR, LF or NUL outside a literal; lines end in CRLF
        C> * BYE Closing
        <- report violation client Bare CR, LF or NUL outside a literal; lines end in CRLF
        <- close upstream
        <- close client
        == logout
        """
    )


def test_long_lines() -> None:
    """A line of just the limit is one; another octet is the end, before the line is whole."""
    limits = replace(DEFAULTS, line_before_login=100)
    play("C: a1 LOGIN u <p*89>\n<- ask LOGIN u " + "p" * 89 + "\n", limits=limits)
    play(
        """
        C. a1 LOGIN u <p*92>
        C> * BAD Command line of more than 100 octets
        C> * BYE Closing
        <- close upstream
        <- close client
        """,
        limits=limits,
    )
