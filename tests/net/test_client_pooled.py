"""The client's connection where upstream's is not its own for good: given back, asked for again, never mixed up."""

from __future__ import annotations

import base64

import pytest

from imapgate.limits import DEFAULTS
from imapgate.net.journal import Tap
from imapgate.pooling.connection import Terms
from tests.net.sessions import (
    LOGIN,
    OK,
    UPSTREAM_GREETING,
    Session,
    assert_nobodys,
    mailbox,
    selects,
    unbound,
)
from tests.net.wires import Bench, bench, drop

ONE = Terms(size=1)

# --- given back, and asked for again ------------------------------------------------------------------


def test_released_and_leased_again() -> None:
    """Between its mailboxes a client has no connection, and is lent one for what it says."""
    session = unbound(mailbox())
    assert_nobodys(session)
    assert session.says(b"b NOOP\r\n") == b"b OK Nothing done\r\n"
    assert session.protocol.lease is None
    assert session.says(b"c STATUS x (MESSAGES)\r\n") == b""
    assert session.protocol.lease is not None
    assert session.upstream_wire.read() == b"g3 STATUS x (MESSAGES)\r\n"
    session.upstream.dataReceived(b"* STATUS x (MESSAGES 1)\r\ng3 OK done\r\n")
    assert session.wire.read() == b"* STATUS x (MESSAGES 1)\r\nc OK done\r\n"
    assert session.upstream_wire.read() == b"g4 NOOP\r\n"
    session.upstream.dataReceived(b"* 7 EXISTS\r\ng4 OK done\r\n")
    selects(session, b"g5")
    assert session.made.stages() == ["leased"]
    session.says(b"d CLOSE\r\n")
    session.upstream_wire.clear()
    session.upstream.dataReceived(b"g6 OK done\r\n")
    assert session.wire.read() == b"d OK done\r\n"
    assert session.upstream_wire.read() == b"g7 NOOP\r\n"
    assert_nobodys(session)
    assert len(session.made.endpoints[0].calls) == 1


def test_a31_what_a_released_connection_says_reaches_nobody() -> None:
    """What comes on a connection between two leases reaches neither client."""
    session = unbound(mailbox())
    other = Session(made=session.made).connected()
    other.wire.clear()
    session.upstream.dataReceived(b"* 3 EXISTS\r\n* OK [ALERT] for nobody\r\n")
    selects(session)
    assert other.wire.read() == b""


def test_the_end_of_a_session_with_nothing_bound() -> None:
    """With the last session of its user an idle connection goes, by LOGOUT."""
    session = unbound(mailbox())
    assert session.says(b"b LOGOUT\r\n") == b"* BYE Logging out\r\nb OK Logged out\r\n"
    session.lost()
    assert session.upstream_wire.read() == b"g3 LOGOUT\r\n"
    assert not session.upstream_wire.open
    drop(session.upstream, session.upstream_wire)
    assert session.made.stages() == []
    assert not session.clock.getDelayedCalls()
    assert session.made.pools.book.rows() == []


def test_pinned() -> None:
    """A session that changed its connection's nature keeps it, and takes it along when it goes."""
    session = Session(made=mailbox()).connected()
    session.says(LOGIN)
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    session.upstream.dataReceived(OK.replace(b"IDLE", b"ENABLE CONDSTORE"))
    session.upstream.dataReceived(b"g2 OK done\r\n")
    session.says(b"b ENABLE CONDSTORE\r\n")
    session.upstream_wire.clear()
    session.upstream.dataReceived(b"* ENABLED CONDSTORE\r\ng3 OK done\r\n")
    assert session.protocol.session.pinned
    assert session.made.stages() == ["leased"]
    session.lost()
    assert session.upstream_wire.read() == b""
    assert not session.upstream_wire.open
    assert session.made.stages() == ["closing"]
    assert not session.protocol.session.pinned


def test_a_session_that_is_traced_is_traced_on_its_next_connection() -> None:
    """A tap that came while nothing was bound hears what is said on the next connection."""
    session = unbound(mailbox())
    rows: list[dict[str, str | int | float | None]] = []
    session.made.gate.journal.taps.append(Tap(b"alice", rows.append))
    session.says(b'b LIST "" *\r\n')
    session.upstream.dataReceived(b"g3 OK done\r\n")
    assert [(row["side"], row["line"]) for row in rows] == [
        ("client", 'b LIST "" *'),
        ("upstream", "g3 OK done"),
    ]


# --- waiting ----------------------------------------------------------------------------------------


def busy(terms: Terms = ONE) -> tuple[Session, Session]:
    """Two sessions of one user: the first has the one connection, the second waits for it."""
    second = unbound(mailbox(terms))
    first = Session(made=second.made).connected()
    first.wire.clear()
    first.says(LOGIN)  # it is verified upstream, by a connection of its own: the idle one makes room
    drop(second.upstream, second.upstream_wire)
    first.upstream, first.upstream_wire = first.made.endpoints[0].opens(UPSTREAM_GREETING)
    first.upstream_wire.clear()
    first.upstream.dataReceived(OK)
    assert first.upstream_wire.read() == b"g2 NOOP\r\n"
    first.upstream.dataReceived(b"g2 OK done\r\n")
    first.wire.clear()
    selects(first)
    assert first.made.stages() == ["leased"]
    assert second.says(b'w LIST "" *\r\n') == b""
    assert first.made.pools.book.waiting == 1
    return first, second


def test_waiting_for_a_connection() -> None:
    """A command waits until a connection of its user comes back and is proved clean."""
    first, second = busy()
    first.says(b"c CLOSE\r\n")
    first.upstream.dataReceived(b"g4 OK done\r\n")
    first.upstream_wire.clear()
    first.upstream.dataReceived(b"g5 OK done\r\n")
    assert first.upstream_wire.read() == b'g6 LIST "" *\r\n'
    first.upstream.dataReceived(b"g6 OK done\r\n")
    assert second.wire.read() == b"w OK done\r\n"
    assert first.wire.read() == b"c OK done\r\n"


def test_waited_for_too_long() -> None:
    """A command that waits for too long is refused, and the session goes on."""
    first, second = busy(ONE._replace(wait=10))
    first.clock.advance(10)
    first.made.pools.ticked()
    assert second.wire.read() == (
        b"w NO [UNAVAILABLE] All connections to the mail server are in use; try again later\r\n"
    )
    assert second.says(b"x NOOP\r\n") == b"x OK Nothing done\r\n"
    assert second.protocol.lease is None


@pytest.mark.parametrize("how", ["gone", "stopped", "kicked off by a stall"])
def test_a51_gone_while_a_connection_is_awaited(how: str) -> None:
    """A client that has gone is lent nothing: whoever comes next is."""
    first, second = busy()
    if how == "stopped":
        second.protocol.stop(b"Going down")
        assert first.made.pools.book.waiting == 0
    elif how != "gone":
        second.wire.fills()
        second.clock.advance(DEFAULTS.client_stall)
        assert first.made.pools.book.waiting == 0
    second.lost()
    assert first.made.pools.book.waiting == 0
    first.says(b"c CLOSE\r\n")
    first.upstream.dataReceived(b"g4 OK done\r\n")
    first.upstream_wire.clear()
    first.upstream.dataReceived(b"g5 OK done\r\n")
    assert first.upstream_wire.read() == b""
    second.wire.clear()
    first.upstream.dataReceived(b"* 1 EXISTS\r\n")
    assert second.wire.read() == b""
    assert first.made.stages() == ["idle"]


@pytest.mark.parametrize("failure", ["refused", "credentials"])
def test_no_connection_again(failure: str) -> None:
    """When upstream cannot be reached the command fails; when it takes the login no more, the session is over."""
    session = unbound(mailbox())
    drop(session.upstream, session.upstream_wire)
    assert session.wire.open
    session.says(b'b LIST "" *\r\n')
    if failure == "refused":
        session.made.endpoints[0].refuses()
        assert session.wire.read() == b"b NO [UNAVAILABLE] The mail server cannot be reached; try again later\r\n"
        assert session.wire.open
        assert session.protocol.lease is None
    else:
        session.made.endpoints[0].opens(UPSTREAM_GREETING)[0].dataReceived(b"g1 NO no\r\n")
        assert session.wire.read() == b"* BYE [UNAVAILABLE] The mail server does not accept the login any more\r\n"
        assert not session.wire.open
        assert session.reason() == "upstream credentials"
        assert session.made.stages() == []


def test_a34_somebody_elses_wrong_guess() -> None:
    """A failed login as the same user costs a session its idle connection, and no more: it logs in again by itself."""
    session = unbound(mailbox())
    guess = Session(made=session.made).connected()
    guess.says(b"a LOGIN alice wrong\r\n")
    session.made.endpoints[0].opens(UPSTREAM_GREETING)[0].dataReceived(b"g1 NO no\r\n")
    assert session.upstream_wire.read() == b"g3 LOGOUT\r\n"
    drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b""
    session.says(b'b LIST "" *\r\n')
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    assert session.upstream_wire.read() == b"g1 AUTHENTICATE PLAIN %b\r\n" % base64.b64encode(b"\0alice\0pw")
    session.upstream.dataReceived(OK)
    assert session.upstream_wire.read() == b'g2 LIST "" *\r\n'
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert session.wire.read() == b"b OK done\r\n"
    assert session.upstream_wire.read() == b"g3 NOOP\r\n"
    session.upstream.dataReceived(b"g3 OK done\r\n")
    assert "idle" in session.made.stages()


def test_a34_another_password_was_proved() -> None:
    """When another password is proved, a session with the old one has no connection any more, and cannot get one."""
    session = unbound(mailbox())
    changed = Session(made=session.made).connected()
    changed.says(b"a LOGIN alice new\r\n")
    changed.upstream, changed.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    changed.upstream.dataReceived(OK)
    assert session.upstream_wire.read() == b"g3 LOGOUT\r\n"
    changed.upstream_wire.clear()
    changed.upstream.dataReceived(b"g2 OK done\r\n")
    session.says(b'b LIST "" *\r\n')
    assert changed.upstream_wire.read() == b""
    session.made.endpoints[0].opens(UPSTREAM_GREETING)[0].dataReceived(b"g1 NO no\r\n")
    assert not session.wire.open
    assert changed.wire.open


# --- lost -------------------------------------------------------------------------------------------


def test_f3_lost_while_nothing_is_bound() -> None:
    """An idle connection that is lost is nobody's loss: the next command has a new one."""
    session = unbound(mailbox())
    drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b""
    session.says(b'b LIST "" *\r\n')
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    session.upstream_wire.clear()
    session.upstream.dataReceived(OK)
    assert session.upstream_wire.read() == b'g2 LIST "" *\r\n'
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert session.wire.read() == b"b OK done\r\n"


def test_f3_lost_while_bound() -> None:
    """A connection that is lost with a mailbox selected, or with a command in flight, ends its session."""
    session = selects(unbound(mailbox()))
    drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b"* BYE [UNAVAILABLE] The mail server closed the connection\r\n"
    assert not session.wire.open
    assert session.made.stages() == []
    assert session.reason() == "upstream lost"
    assert not session.clock.getDelayedCalls()


def test_a31_gone_with_a_command_in_flight() -> None:
    """A client that goes while its command is in flight takes the connection along: nobody is lent it."""
    session = selects(unbound(mailbox()))
    session.says(b"b FETCH 1 BODY[]\r\n")
    session.lost()
    assert not session.upstream_wire.open
    session.upstream.dataReceived(b"* 1 FETCH (BODY[] {3}\r\nabc)\r\ng4 OK done\r\n")
    assert session.made.stages() == ["closing"]
    drop(session.upstream, session.upstream_wire)
    assert session.made.stages() == []
    assert not session.clock.getDelayedCalls()


# --- mode session -----------------------------------------------------------------------------------


def cached() -> Bench:
    """A gate in mode session where a login can be given an earlier one's connection."""
    return bench(alone=True, cache=60.0)


def test_a_returning_client_is_given_its_connection() -> None:
    """After LOGOUT a connection is reset and kept; the same user with the same password needs no login upstream."""
    first = Session(made=cached()).logged_in()
    selects(first, b"g2")
    assert first.says(b"b LOGOUT\r\n").endswith(b"b OK Logged out\r\n")
    assert first.upstream_wire.read() == b'g3 SELECT ""\r\n'
    first.lost()
    assert_nobodys(first)
    first.upstream.dataReceived(b"g3 NO no\r\n")
    second = Session(made=first.made).connected()
    second.wire.clear()
    assert second.says(LOGIN).startswith(b"a OK [CAPABILITY IMAP4rev1 IDLE ")
    second.says(b"b NOOP\r\n")
    assert first.upstream_wire.read() == b"g4 NOOP\r\n"
    first.upstream.dataReceived(b"g4 OK done\r\n")
    assert second.wire.read() == b"b OK done\r\n"
    assert first.wire.read() == b""
    assert len(first.made.endpoints[0].calls) == 1


def test_a34_another_password_is_asked_upstream() -> None:
    """A password that is not the one that was proved is shown upstream, whatever connections there are."""
    first = Session(made=cached()).logged_in()
    first.says(b"b LOGOUT\r\n")
    first.lost()
    first.upstream.dataReceived(b"g2 OK\r\n")
    second = Session(made=first.made).connected()
    second.wire.clear()
    assert second.says(b"a LOGIN alice other\r\n") == b""
    _, wire = first.made.endpoints[0].opens(UPSTREAM_GREETING)
    assert wire.read() == b"g1 AUTHENTICATE PLAIN %b\r\n" % base64.b64encode(b"\0alice\0other")
    assert first.made.stages() == ["idle", "connecting"]


def test_a34_a_proof_has_its_time() -> None:
    """When the cache's time is over a login is verified upstream again."""
    first = Session(made=cached()).logged_in()
    first.says(b"b LOGOUT\r\n")
    first.lost()
    first.upstream.dataReceived(b"g2 OK\r\n")
    first.clock.advance(61)
    second = Session(made=first.made).connected()
    second.wire.clear()
    assert second.says(LOGIN) == b""
    assert len(first.made.endpoints[0].calls) == 2


def test_a_client_that_leaves_in_time_is_waited_for() -> None:
    """A session that is to leave goes at its next command boundary, and its connection is kept."""
    session = Session(made=cached()).logged_in()
    session.says(b"b NOOP\r\n")
    session.protocol.leave(b"[UNAVAILABLE] Going down")
    assert session.wire.open
    session.upstream_wire.clear()
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert session.wire.read() == b"b OK done\r\n* BYE [UNAVAILABLE] Going down\r\n"
    assert session.upstream_wire.read() == b"g3 NOOP\r\n"
    assert session.made.stages() == ["resetting"]
    assert session.reason() == "stopped"
