"""STARTTLS on the way into an upstream server: nothing is sent, and nothing believed, without it."""

from __future__ import annotations

import pytest

from tests.session.playbook import NOT_TRAILING, Way, login_of, upstream

ALICE = login_of("alice", "secret")


def test_starttls() -> None:
    """STARTTLS comes first, whatever is offered; capabilities are asked again under TLS, whatever was said (A2)."""
    core = upstream(
        """
        U< * OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=EVIL] ready
        U> g1 STARTTLS
        U< g1 OK [CAPABILITY IMAP4rev1 AUTH=EVIL] begin
        <- starttls upstream
        -> tls
        U> g2 CAPABILITY
        U< * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN
        U< g2 OK done
        U> g3 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==
        U< g3 OK [CAPABILITY IMAP4rev1] hello
        <- granted IMAP4rev1
        """,
        ALICE,
        starttls=True,
    )
    assert b"EVIL" not in core.offered


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("U< * PREAUTH ready", "tls-missing"),
        ("U< * OK ready\nU> g1 STARTTLS\nU< g1 NO not now", "tls-missing"),
        ("U< * OK ready\nU> g1 STARTTLS\nU< g1 BAD what", "tls-missing"),
        ("U< * OK ready\nU> g1 STARTTLS\nU< * BYE\n-> upstream lost", "bye"),
        ("U< * OK ready\nU> g1 STARTTLS\nU< g1 OK go\n<- starttls upstream\n-> upstream lost", "lost"),
    ],
)
def test_a3_no_tls_no_login(text: str, failure: str) -> None:
    """A3: without TLS nothing is sent but STARTTLS itself, and no credential ever."""
    upstream(f"{text}\n<- failed {failure}\n", ALICE, starttls=True, ways=NOT_TRAILING)


@pytest.mark.parametrize("behind", ["U< * CAPABILITY AUTH=X", "U<. *", "U<. <x16>", "U<. <LF>", "U< * 5 EXISTS"])
def test_a2_octets_behind_the_ok(behind: str) -> None:
    """A2: whatever stands behind the OK of STARTTLS, in its chunk or before TLS is up, ends that upstream."""
    begun = "U< * OK ready\nU> g1 STARTTLS\nU< g1 OK begin TLS\n"
    upstream(f"{begun}{behind}\n<- failed protocol\n", ALICE, starttls=True, ways=(Way.CHUNKS,))
    upstream(f"{begun}<- starttls upstream\n{behind}\n<- failed protocol\n", ALICE, starttls=True, ways=NOT_TRAILING)
