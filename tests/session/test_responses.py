"""What upstream says, on its way to the client: capabilities masked, referrals dropped, tags mapped."""

from __future__ import annotations

import pytest

from imapgate.limits import DEFAULTS
from imapgate.session.effects import Granted
from imapgate.session.link import Link
from imapgate.session.responses import (
    capabilities,
    enables_utf8,
    keyword,
    mailbox_of,
    masked,
    with_tag,
    without_referral,
)
from imapgate.session.session import ClientSession
from tests.session.playbook import NOT_TRAILING, OPEN, Way, relay

SHOWN = "LITERAL+ SASL-IR ID"


@pytest.mark.parametrize(
    ("line", "word"),
    [(b"* OK hi\r\n", b"OK"), (b"* bye\r\n", b"BYE"), (b"* CAPABILITY A\r\n", b"CAPABILITY"), (b"* \r\n", b"")],
)
def test_keyword(line: bytes, word: bytes) -> None:
    """The first word of an untagged line."""
    assert keyword(line) == word


@pytest.mark.parametrize(
    ("line", "mailbox"),
    [
        (b'* LIST (\\HasNoChildren) "/" &AOk-\r\n', "é"),
        (b"* LIST () NIL inbox\r\n", "INBOX"),
        (b'* lsub () "\\"" "a \\"b\\\\"\r\n', 'a "b\\'),
        (b'* LIST () "/" "INBOX/x" ("CHILDINFO" ("SUBSCRIBED"))\r\n', "INBOX/x"),
        (b'* LIST () "/" {5}\r\na" (b\r\n', 'a" (b'),
        (b'* XLIST (\\Inbox) "/" "x/"\r\n', "x"),
        (b"* STATUS x (MESSAGES 5)\r\n", "x"),
        (b"* STATUS {3}\r\na b (MESSAGES 5)\r\n", "a b"),
        (b'* ACL "a b" eve lrs\r\n', "a b"),
        (b"* QUOTAROOT x root\r\n", "x"),
        (b'* METADATA "" (/shared/comment "x")\r\n', ""),
        (b'* ESEARCH (TAG "a" MAILBOX "x y" UIDVALIDITY 5) UID ALL 1\r\n', "x y"),
        (b'* ESEARCH (TAG "a") UID ALL 1\r\n', ""),
        (b"* LIST nonsense\r\n", ""),
        (b"* FLAGS (x)\r\n", ""),
    ],
)
def test_a49_mailbox_of(line: bytes, mailbox: str) -> None:
    """A49: the mailbox of a response is one name however it was written."""
    assert mailbox_of(keyword(line), line) == mailbox


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"* CAPABILITY IMAP4rev1 X\r\n", b"IMAP4rev1 X"),
        (b"* capability a\r\n", b"a"),
        (b"* OK [CAPABILITY A B] hi\r\n", b"A B"),
        (b"g1 ok [capability A] hi\r\n", b"A"),
        (b"g1 OK [ALERT] CAPABILITY A\r\n", None),
        (b"g1 OK [CAPABILITY] hi\r\n", None),
        (b"g1 OK hi\r\n", None),
        (b'* LIST () "/" CAPABILITY\r\n', None),
    ],
)
def test_capabilities(line: bytes, said: bytes | None) -> None:
    """Capabilities appear untagged, and in the codes of status lines."""
    assert capabilities(line) == said
    if said is None:
        assert masked(line) == line


def test_masked() -> None:
    """The allow-list holds wherever they appear."""
    line = b"* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN XFOO IDLE COMPRESS=DEFLATE URLAUTH] hi [CAPABILITY X]\r\n"
    assert masked(line) == b"* OK [CAPABILITY IMAP4rev1 IDLE LITERAL+ SASL-IR ID] hi [CAPABILITY X]\r\n"


def test_a6_without_referral() -> None:
    """A6: the code goes, the text stays; other codes are left alone."""
    assert without_referral(b"g1 NO [REFERRAL imap://a@b/c] Go\r\n") == b"g1 NO Go\r\n"
    assert without_referral(b"* bye [referral imap://b/] Go\r\n") == b"* bye Go\r\n"
    assert without_referral(b"g1 NO [ALERT] [REFERRAL imap://b/]\r\n") == b"g1 NO [ALERT] [REFERRAL imap://b/]\r\n"
    assert without_referral(b"g1 NO no\r\n") == b"g1 NO no\r\n"
    assert without_referral(b"* LIST () NIL x\r\n") == b"* LIST () NIL x\r\n"


def test_enables_utf8() -> None:
    """UTF8=ACCEPT among what was enabled."""
    assert enables_utf8(b"* ENABLED CONDSTORE utf8=accept\r\n")
    assert not enables_utf8(b"* ENABLED\r\n")
    assert not enables_utf8(b"* ENABLED XUTF8=ACCEPT\r\n")


@pytest.mark.parametrize(
    ("line", "mapped"),
    [
        (b'* ESEARCH (TAG "g1") UID ALL 1\r\n', b'* ESEARCH (TAG "a.1") UID ALL 1\r\n'),
        (b"* esearch (tag g1) ALL 1\r\n", b"* esearch (tag a.1) ALL 1\r\n"),
        (b'* OK [INPROGRESS ("g1" 4 9)] still\r\n', b'* OK [INPROGRESS ("a.1" 4 9)] still\r\n'),
        (b'* ESEARCH (TAG "g2") ALL 1\r\n', b'* ESEARCH (TAG "g2") ALL 1\r\n'),
        (b"* ESEARCH ALL 1\r\n", b"* ESEARCH ALL 1\r\n"),
        (b'* OK [INPROGRESS (NIL 4 9)] g1 "g1"\r\n', b'* OK [INPROGRESS (NIL 4 9)] g1 "g1"\r\n'),
    ],
)
def test_with_tag(line: bytes, mapped: bytes) -> None:
    """Tags inside responses are the client's own; one that is not known is left alone."""
    assert with_tag(line, {b"g1": b"a.1"}) == mapped


def test_capabilities_after_the_login() -> None:
    """Upstream may say its capabilities at any time; the client sees what the gate shows, and CAPABILITY follows."""
    relay(
        f"""
        U< * CAPABILITY IMAP4rev1 IDLE STARTTLS LOGINDISABLED XSECRET
        C> * CAPABILITY IMAP4rev1 IDLE {SHOWN}
        C: a1 SELECT INBOX
        U> g1 SELECT INBOX
        U< * OK [CAPABILITY IMAP4rev1 ENABLE AUTH=PLAIN] changed
        U< g1 OK [CAPABILITY IMAP4rev1 MOVE XSECRET] done
        C> * OK [CAPABILITY IMAP4rev1 ENABLE {SHOWN}] changed
        C> a1 OK [CAPABILITY IMAP4rev1 MOVE {SHOWN}] done
        C: a2 CAPABILITY
        C> * CAPABILITY IMAP4rev1 MOVE {SHOWN}
        C> a2 OK Capabilities listed
        C: a3 IDLE
        C> a3 BAD IDLE is not offered here
        """
    )


def test_a6_referrals() -> None:
    """A6: no status line leads the client past the gate."""
    relay(
        """
        C: a1 SELECT elsewhere
        U> g1 SELECT elsewhere
        U< * NO [REFERRAL imap://evil/] there
        U< g1 NO [REFERRAL imap://evil/elsewhere] there
        C> * NO there
        C> a1 NO there
        U< * BYE [REFERRAL imap://evil/] there
        C> * BYE there
        <- close upstream
        <- close client
        """
    )


def test_tags_inside_responses() -> None:
    """ESEARCH and INPROGRESS name the client's tag, while the command runs."""
    relay(
        """
        C: s1 UID SEARCH RETURN (ALL) UNSEEN
        U> g1 UID SEARCH RETURN (ALL) UNSEEN
        U< * OK [INPROGRESS ("g1" 10 100)] working
        U< * ESEARCH (TAG "g1") UID ALL 1:3
        U< g1 OK done
        U< * ESEARCH (TAG "g1") UID ALL 4
        C> * OK [INPROGRESS ("s1" 10 100)] working
        C> * ESEARCH (TAG "s1") UID ALL 1:3
        C> s1 OK done
        C> * ESEARCH (TAG "g1") UID ALL 4
        """
    )


def test_context_updates() -> None:
    """A search that is kept up to date keeps its tag, also for CANCELUPDATE (RFC 5267)."""
    relay(
        """
        C: s1 SEARCH RETURN (UPDATE ALL) UNSEEN
        C: s2 SEARCH RETURN (ALL) UNSEEN
        C: s3 LIST (SUBSCRIBED) "" "*" RETURN (UPDATE)
        U> g1 SEARCH RETURN (UPDATE ALL) UNSEEN
        U> g2 SEARCH RETURN (ALL) UNSEEN
        U> g3 LIST (SUBSCRIBED) "" "*" RETURN (UPDATE)
        U< g1 OK done
        U< g2 OK done
        C> s1 OK done
        C> s2 OK done
        U< * ESEARCH (TAG "g1") ADDTO (0 9)
        U< * ESEARCH (TAG "g2") ADDTO (0 9)
        C> * ESEARCH (TAG "s1") ADDTO (0 9)
        C> * ESEARCH (TAG "g2") ADDTO (0 9)
        C: s4 CANCELUPDATE "s1" "unknown"
        U> g4 CANCELUPDATE "g1" "unknown"
        """
    )


def test_contexts_are_bounded() -> None:
    """Sixteen such searches are remembered; the oldest is forgotten for a new one."""
    opened = "".join(
        f"C: s{number} SEARCH RETURN (UPDATE) ALL\nU> g{number} SEARCH RETURN (UPDATE) ALL\n"
        f"U< g{number} OK\nC> s{number} OK\n"
        for number in range(1, 18)
    )
    relay(
        opened
        + """
        C: c1 CANCELUPDATE "s1" "s2" "s17"
        U> g18 CANCELUPDATE "s1" "g2" "g17"
        """
    )


def test_a23_completions_inside_data() -> None:
    """A23: a literal's content is counted, never read."""
    relay(
        """
        C: a1 FETCH 1 BODY[]
        U> g1 FETCH 1 BODY[]
        U< * 1 FETCH (BODY[] {29}
        U<. <CRLF>g1 OK done<CRLF>* BYE<CRLF>+ x<CRLF><LF>
        U< <SP>FLAGS ())
        U< g1 OK done
        C> * 1 FETCH (BODY[] {29}
        C>. <CRLF>g1 OK done<CRLF>* BYE<CRLF>+ x<CRLF><LF>
        C> <SP>FLAGS ())
        C> a1 OK done
        """
    )


def test_human_text_holds_no_literal() -> None:
    """Status and continuation lines never announce one, whatever they end in (PROTOCOL §2, rule 7)."""
    relay(
        """
        C: a1 STATUS "nobox {30}" (MESSAGES)
        U> g1 STATUS "nobox {30}" (MESSAGES)
        U< * NO nobox {30}
        U< g1 NO nobox {30}
        C> * NO nobox {30}
        C> a1 NO nobox {30}
        C: a2 NOOP
        U> g2 NOOP
        """
    )


BROKE = """
        C> * BYE [UNAVAILABLE] The mail server gave an answer that makes no sense
        <- close upstream
        <- close client
        == logout
"""


@pytest.mark.parametrize(
    "line",
    [
        "g2 OK forged",
        "g9 NO forged",
        "a1 OK forged",
        "g1 BYE",
        "g1 PREAUTH x",
        "g1",
        "g1 DONE",
        "",
        "+ unawaited",
        "+",
        "*",
        "* PREAUTH hello",
        "HTTP/1.1 400",
        "g1<NUL>OK x",
    ],
)
def test_a22_forged(line: str) -> None:
    """A22: what no honest server says kills that connection; the client is told so, and gets nothing of it."""
    session = relay(f"C: a1 NOOP\nU> g1 NOOP\nU< * 1 EXISTS\nC> * 1 EXISTS\nU< {line}\nU< g1 OK done\n{BROKE}")
    assert session.reason == "upstream protocol"


def test_a22_unawaited_continuation_while_idling() -> None:
    """A22: a second + of IDLE is nobody's, and so is one in the middle of a message."""
    relay(f"C: a1 IDLE\nU> g1 IDLE\nU< +\nC> +\nU< +\n{BROKE}")
    relay(f"C: a1 APPEND INBOX {{3}}\nU> g1 APPEND INBOX {{3}}\nU< +\nC> +\nU< +\n{BROKE}", ways=NOT_TRAILING)


def test_a30_bare_lf() -> None:
    """A30: a bare LF from upstream ends it."""
    relay(f"U<. * SEARCH 1<LF>{BROKE}", ways=NOT_TRAILING)
    relay(f"U<. * 5 EXISTS<LF>{BROKE}", ways=(Way.LINES, Way.CHUNKS))


def test_upstream_violation_with_the_grant() -> None:
    """What came in one chunk with the login's OK is read when the session has it, good or bad."""
    for line, reason in (
        (b"+ what\r\n", "upstream protocol"),
        (b"* BYE later\r\n", "upstream BYE"),
        (b"* OK x\r\n", ""),
    ):
        session = ClientSession(DEFAULTS)
        session.client_connected(OPEN)
        session.client_received(b"a1 LOGIN u p\r\na2 NOOP\r\n")
        link = Link(DEFAULTS)
        link.unread = list(link.scanner.feed(line))
        session.answered(Granted(link))
        assert session.reason == reason
        assert link.unread == []
