"""What makes a connection unfit for any other session: it is never given back, and closed when its session ends."""

from __future__ import annotations

import pytest

from imapgate.limits import DEFAULTS
from imapgate.model.pool_mode import PoolMode
from imapgate.session.effects import Close, Effect, Release, Side
from imapgate.session.session import ClientSession
from tests.session.playbook import NOT_TRAILING, logged_in, mailbox, relay

CAPABILITIES = "IMAP4rev1 ENABLE CONDSTORE QRESYNC UTF8=ACCEPT CONTEXT=SEARCH ESEARCH UNSELECT"
CONDSTORE = [
    "SELECT x (CONDSTORE)",
    "EXAMINE x (condstore)",
    "SELECT x (QRESYNC (1 2))",
    "FETCH 1 (FLAGS MODSEQ)",
    "FETCH 1 FLAGS (CHANGEDSINCE 5)",
    "UID FETCH 1:* FLAGS (CHANGEDSINCE 5 VANISHED)",
    "STORE 1 (UNCHANGEDSINCE 5) FLAGS (x)",
    "UID STORE 1 (unchangedsince 5) FLAGS (x)",
    "STATUS x (MESSAGES HIGHESTMODSEQ)",
    "SEARCH MODSEQ 5",
    'LIST "" * RETURN (STATUS (HIGHESTMODSEQ))',
]
ENABLING = ["ENABLE CONDSTORE", "ENABLE UTF8=ACCEPT"]
CONTEXTS = [
    "SEARCH RETURN (UPDATE) ALL",
    "UID SEARCH RETURN (ALL update COUNT) UNSEEN",
    "SORT RETURN (CONTEXT UPDATE) (DATE) UTF-8 ALL",
    "ESEARCH IN (personal) RETURN (UPDATE) ALL",
]
HARMLESS = [
    "SELECT x",
    "FETCH 1 (FLAGS UID)",
    "STORE 1 FLAGS (x)",
    "STATUS x (MESSAGES UIDNEXT)",
    "SEARCH RETURN (COUNT) SUBJECT UPDATE",
    "SEARCH UNSEEN",
    "ESEARCH IN (personal) RETURN (ALL) TEXT update",
    "COPY 1 update",
]


def _after(command: str, answer: str = "OK done") -> list[Effect]:
    """What becomes of the connection of a session that ends after this command."""
    session = logged_in(capabilities=CAPABILITIES.encode())
    session.client_received(f"a {command}\r\n".encode())
    session.upstream_received(f"g1 {answer}\r\n".encode())
    return [effect for effect in session.client_lost() if isinstance(effect, Release | Close)]


CLOSED = [Close(Side.UPSTREAM), Close(Side.CLIENT)]


@pytest.mark.parametrize("command", CONDSTORE + ENABLING + CONTEXTS)
@pytest.mark.parametrize("answer", ["OK done", "NO not now"])
def test_pinned_by_a_command(command: str, answer: str) -> None:
    """RFC 7162 §3.1, RFC 5161, RFC 5267: what it began may go on while the connection lives, refused or not."""
    assert _after(command, answer) == CLOSED


@pytest.mark.parametrize("command", HARMLESS)
def test_not_pinned(command: str) -> None:
    """Other commands leave nothing behind but a mailbox that is selected."""
    assert _after(command) == [Release(command.startswith("SELECT")), Close(Side.CLIENT)]


def test_extra_verbs_pin() -> None:
    """What an operator's verb does nobody knows."""
    relay("C: a XFOO\nU> g1 XFOO\nU< g1 OK x\nC> a OK x\n-> client lost\n<- close upstream\n<- close client\n",
          extra_verbs=["xfoo"], ways=NOT_TRAILING)  # fmt: skip


@pytest.mark.parametrize("verb", ["SELECT y", "EXAMINE y", "CLOSE", "UNSELECT"])
def test_bad_to_what_selects(verb: str) -> None:
    """After BAD servers disagree on what is selected: the connection is this session's to the end."""
    assert _after(verb, "BAD what") == CLOSED
    assert _after(verb, "NO no") == [Release(selected=False), Close(Side.CLIENT)]
    assert _after("NOOP", "BAD what") == [Release(selected=False), Close(Side.CLIENT)]


def test_enable_that_goes_nowhere_does_not_pin() -> None:
    """ENABLE of what is not on offer is answered by the gate."""
    relay(
        "C: a ENABLE X\nC> * ENABLED\nC> a OK Nothing enabled\n-> client lost\n<- release\n<- close client\n",
        ways=NOT_TRAILING,
    )


def test_kept_in_mode_mailbox() -> None:
    """A pinned connection is not given back between commands, and none is asked for again."""
    mailbox(
        """
        C: a STATUS x (HIGHESTMODSEQ)
        <- ask lease
        -> granted IMAP4rev1 CONDSTORE
        U> g1 STATUS x (HIGHESTMODSEQ)
        U< g1 OK done
        C> a OK done
        C: b NOOP
        U> g2 NOOP
        U< g2 OK done
        C> b OK done
        C: c LOGOUT
        C> * BYE Logging out
        C> c OK Logged out
        U> g3 LOGOUT
        <- close upstream
        <- close client
        """
    )


@pytest.mark.parametrize("mode", list(PoolMode))
def test_pinned_by_the_grant(mode: PoolMode) -> None:
    """A relayed mechanism, for one, leaves nothing to open another connection with: it is kept, then closed."""
    relay(
        """
        C: a NOOP
        U> g1 NOOP
        U< g1 OK done
        C> a OK done
        -> stop Bye
        C> * BYE Bye
        <- close upstream
        <- close client
        """,
        mode=mode,
        pinned="SASL",
        ways=NOT_TRAILING,
    )


def test_the_reason_is_told() -> None:
    """The first reason stands, in words for the operator."""
    for command, reason in (
        ("ENABLE CONDSTORE", "ENABLE"),
        (CONDSTORE[0], "CONDSTORE"),
        (CONTEXTS[0], "search context"),
    ):
        session = logged_in(capabilities=CAPABILITIES.encode())
        assert session.pinned == ""
        session.client_received(f"a {command}\r\nb SELECT x (QRESYNC (1 2))\r\n".encode())
        assert session.pinned == reason
        session.upstream_received(b"g2 BAD what\r\n")
        assert session.pinned == reason
    session = logged_in()
    session.client_received(b"a SELECT x\r\n")
    session.upstream_received(b"g1 BAD what\r\n")
    assert session.pinned == "BAD to SELECT"
    session = logged_in(pinned="SASL")
    session.client_received(b"a SELECT x (CONDSTORE)\r\n")
    assert session.pinned == "SASL"


@pytest.mark.parametrize("name", ['"x (CONDSTORE)"', "{9+}\r\nCONDSTORE", "{11+}\r\n\xe4 condstore"])
def test_strings_pin_too(name: str) -> None:
    """A word may be a mere name, and pins all the same: some servers take a string for a word."""
    session = logged_in()
    session.client_received(f"a SELECT {name}\r\n".encode("latin-1"))
    assert session.pinned == "CONDSTORE"


def test_no_reason_without_a_connection() -> None:
    """Before the login, and after the end, there is nothing to be pinned."""
    assert ClientSession(DEFAULTS).pinned == ""
    session = logged_in(pinned="SASL")
    assert session.pinned == "SASL"
    session.client_lost()
    assert session.pinned == ""
