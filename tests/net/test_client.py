"""The client's connection: what the core wants done is done, in order, and nothing outlives it."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IHandshakeListener
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from imapgate.limits import DEFAULTS, Limits
from imapgate.model.secret import Secret
from imapgate.net import journal
from imapgate.net.gate import Door, trustworthy
from imapgate.net.proxy_protocol import Header
from imapgate.net.upstream import CLOSE_SECONDS
from imapgate.session.effects import Close, Effect, Respond, SendClient, SendUpstream, Side
from tests.net.sessions import (
    CERTIFICATES,
    IMPLICIT,
    LOGIN,
    OK,
    STARTTLS,
    UPSTREAM_GREETING,
    Session,
)
from tests.net.wires import drop, logged


def test_interfaces() -> None:
    """It hears of handshakes and of half-closes."""
    protocol = Session().protocol
    assert verifyObject(IHalfCloseableProtocol, protocol)
    assert verifyObject(IHandshakeListener, protocol)
    protocol.writeConnectionLost()
    protocol.upstream_secured()


@pytest.mark.parametrize(
    ("peer", "header", "trusted"),
    [
        (UNIXAddress(None), None, True),
        (IPv4Address("TCP", "127.0.0.1", 1), None, True),
        (IPv4Address("TCP", "127.3.2.1", 1), None, True),
        (IPv6Address("TCP", "::1", 1), None, True),
        (IPv6Address("TCP", "::1%lo", 1), None, True),
        (IPv4Address("TCP", "192.0.2.7", 1), None, False),
        (IPv6Address("TCP", "2001:db8::1", 1), None, False),
        (IPv4Address("TCP", "192.0.2.7", 1), Header(("192.0.2.7", 1), ("192.0.2.1", 2), b"", tls=True), True),
        (IPv4Address("TCP", "192.0.2.7", 1), Header(("192.0.2.7", 1), ("192.0.2.1", 2), b""), False),
        (IPv4Address("TCP", "127.0.0.1", 1), Header(("127.0.0.1", 1), ("127.0.0.1", 2), b""), True),
        (IPv4Address("TCP", "127.0.0.1", 1), Header(None, None, b""), False),
        (IPv4Address("TCP", "127.0.0.1", 1), Header(None, None, b"", tls=True), True),
    ],
)
def test_a44_trustworthy(peer: IAddress, header: Header | None, trusted: bool) -> None:
    """A login without TLS is allowed where nobody can listen, and a balancer's own connection says nothing of that."""
    session = Session(Door("public", None, False, False), peer=peer)
    if header is not None:
        session.wire.proxy_header = header  # type: ignore[attr-defined]
    assert trustworthy(session.wire) is trusted
    session.connected()
    assert (b"LOGINDISABLED" in session.wire.read()) is not trusted


def test_plain_session() -> None:
    """From the greeting to LOGOUT: octets go both ways, and the end is one line in the log."""
    session = Session().connected()
    greeting = session.wire.read()
    assert greeting == b"* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN] imapgate ready\r\n"
    assert session.wire.options == ["nodelay True", "keepalive True"]
    assert session.says(LOGIN) == b""
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    session.upstream.dataReceived(OK)
    told = session.wire.read()
    session.upstream_wire.clear()
    assert session.says(b"b NOOP\r\n") == b""
    assert session.upstream_wire.read() == b"g2 NOOP\r\n"
    session.upstream.dataReceived(b"* 3 EXISTS\r\ng2 OK done\r\n")
    told += session.wire.read()
    assert told.endswith(b"* 3 EXISTS\r\nb OK done\r\n")
    told += session.says(b"c LOGOUT\r\n")
    assert told.endswith(b"* BYE Logging out\r\nc OK Logged out\r\n")
    assert not session.wire.open
    session.clock.advance(2)
    octets = len(LOGIN + b"b NOOP\r\nc LOGOUT\r\n")
    assert session.lost() == [
        f'info: session ended: user="alice" address=192.0.2.7 reason="logout" seconds=2.0 in={octets} '
        f"out={len(greeting + told)} commands=3 session=0123456789ab"
    ]
    assert session.gone == [session.protocol]
    drop(session.upstream, session.upstream_wire)
    assert not session.clock.getDelayedCalls()


def test_not_a_tcp_socket() -> None:
    """A socket without TCP's options is left as it is."""
    session = Session(peer=UNIXAddress(None))
    directlyProvides(session.wire)
    session.connected()
    assert session.wire.options == []
    assert session.wire.read().startswith(b"* OK ")


# --- performing -------------------------------------------------------------------------------------


def test_effects_are_never_nested() -> None:
    """What an effect causes is performed behind what stood before it, however deep it is caused."""
    session = Session().connected()
    session.wire.clear()
    written: list[bytes] = []

    def write(data: bytes) -> None:
        written.append(data)
        if data == b"1":
            session.protocol.perform([SendClient(b"3")])
            session.protocol.perform([SendClient(b"4")])
        if data == b"3":
            session.protocol.perform([SendClient(b"5")])

    session.wire.write = write  # type: ignore[method-assign]
    session.protocol.perform([SendClient(b"1"), SendClient(b"2")])
    assert written == [b"1", b"2", b"3", b"4", b"5"]


def test_performing_goes_on_after_an_error() -> None:
    """An error of the transport's leaves the loop as it was."""
    session = Session().connected()

    def broken(data: bytes) -> None:
        raise RuntimeError("a bug")

    session.wire.write = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        session.protocol.perform([SendClient(b"x")])
    del session.wire.write
    session.wire.clear()
    session.protocol.perform([SendClient(b"y")])
    assert session.wire.read() == b"y"


@pytest.mark.parametrize("effect", [SendUpstream(b"x"), Respond(Secret(b"x")), Close(Side.UPSTREAM)])
def test_a51_effects_without_an_upstream(effect: Effect) -> None:
    """What is meant for an upstream that has gone is for nobody."""
    session = Session().connected()
    session.wire.clear()
    session.protocol.perform([effect])
    assert session.wire.read() == b""
    assert session.wire.open


# --- TLS --------------------------------------------------------------------------------------------


def test_implicit_tls() -> None:
    """With implicit TLS nothing is said before the handshake; a login is allowed after it."""
    session = Session(IMPLICIT).connected()
    assert session.wire.creators == [CERTIFICATES]
    assert session.wire.read() == b""
    session.protocol.handshakeCompleted()
    assert (
        session.wire.read()
        == b"* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN] imapgate ready\r\n"
    )
    session.clock.advance(DEFAULTS.tls_handshake)
    assert session.wire.open


@pytest.mark.parametrize("door", [IMPLICIT, STARTTLS])
def test_a11_handshake_never_finished(door: Door) -> None:
    """A handshake has a time of its own, and then the connection is cut."""
    session = Session(door).connected()
    if door is STARTTLS:
        assert b"a OK " in session.says(b"a STARTTLS\r\n")
    assert session.wire.creators == [CERTIFICATES]
    session.clock.advance(DEFAULTS.tls_handshake - 0.1)
    assert session.wire.open
    session.clock.advance(0.1)
    assert session.wire.disconnected
    assert session.reason() == "client closed"
    assert not session.clock.getDelayedCalls()


def test_starttls() -> None:
    """After STARTTLS the session is as new: a login is allowed, STARTTLS is not offered, nothing is greeted again."""
    session = Session(STARTTLS).connected()
    assert b" STARTTLS LOGINDISABLED]" in session.wire.read()
    assert b"NO" in session.says(LOGIN)
    session.says(b"b STARTTLS\r\n")
    assert session.wire.creators == [CERTIFICATES]
    session.protocol.handshakeCompleted()
    assert session.wire.read() == b""
    told = session.says(b"c CAPABILITY\r\n")
    assert b"AUTH=PLAIN" in told
    assert b"STARTTLS" not in told


def test_a1_octets_behind_starttls() -> None:
    """Octets behind STARTTLS end the session without a handshake."""
    session = Session(STARTTLS).connected()
    with logged(journal) as lines:
        session.says(b"a STARTTLS\r\nb NOOP\r\n")
    assert session.wire.creators == []
    assert not session.wire.open
    assert any(line.startswith("info: protocol error of the client: ") for line in lines)


@pytest.mark.parametrize("door", [IMPLICIT, STARTTLS])
def test_a51_stopped_in_a_handshake(door: Door) -> None:
    """A session that is ended while the handshake runs is not begun by its completion, and is closed in time."""
    session = Session(door).connected()
    if door is STARTTLS:
        session.says(b"a STARTTLS\r\n")
    session.protocol.stop(b"[UNAVAILABLE] Going down")
    session.wire.clear()
    session.protocol.handshakeCompleted()
    assert session.wire.read() == b""
    assert not session.wire.open
    assert not session.wire.disconnected
    session.clock.advance(CLOSE_SECONDS)
    assert session.wire.disconnected


# --- back-pressure ----------------------------------------------------------------------------------


def test_a42_a_client_that_is_full_holds_upstream() -> None:
    """While the client does not take, upstream is not read; the client is, until it asks for more."""
    session = Session().logged_in()
    session.wire.fills()
    assert session.upstream_wire.paused
    assert not session.wire.paused
    session.says(b"b NOOP\r\n")
    assert session.wire.paused
    session.wire.drains()
    assert not session.upstream_wire.paused
    assert not session.wire.paused


def test_a42_an_upstream_that_is_full_holds_the_client() -> None:
    """While upstream does not take, the client is not read."""
    session = Session().logged_in()
    session.upstream_wire.fills()
    assert session.wire.paused
    session.upstream_wire.drains()
    assert not session.wire.paused


def test_a42_stalled_client() -> None:
    """A client that takes nothing for too long is cut off, with its upstream, and the log says why."""
    session = Session().logged_in()
    session.wire.fills()
    session.clock.advance(DEFAULTS.client_stall)
    assert session.wire.disconnected
    assert not session.upstream_wire.open
    assert session.reason() == "client stalled"
    drop(session.upstream, session.upstream_wire)
    assert not session.clock.getDelayedCalls()


def test_a42_stalled_client_before_a_login() -> None:
    """A stalled client needs no upstream to be cut off."""
    session = Session(limits=Limits(login_time=3600)).connected()
    session.wire.fills()
    session.clock.advance(DEFAULTS.client_stall)
    assert session.wire.disconnected
    assert session.reason() == "client stalled"
    assert not session.clock.getDelayedCalls()


def test_f6_stalled_upstream() -> None:
    """An upstream that takes nothing for too long is given up, and the client is told."""
    session = Session(limits=Limits(upstream_first_byte=3600, upstream_first_byte_slow=3600)).logged_in()
    session.upstream_wire.fills()
    session.clock.advance(DEFAULTS.client_stall)
    assert session.wire.read() == b"* BYE [UNAVAILABLE] The mail server does not answer\r\n"
    assert not session.upstream_wire.open
    assert session.reason() == "upstream timed-out"


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_a42_lost_while_full(who: str) -> None:
    """Whoever goes while upstream does not take, no timer is left of it."""
    session = Session().logged_in()
    session.upstream_wire.fills()
    if who == "upstream":
        drop(session.upstream, session.upstream_wire)
        session.lost()
    else:
        session.lost()
        drop(session.upstream, session.upstream_wire)
    assert not session.clock.getDelayedCalls()


def test_a43_held_by_the_core() -> None:
    """While an answer is awaited the client is read from once more, and held; what comes meanwhile is not lost."""
    session = Session().connected()
    session.says(LOGIN)
    assert not session.wire.paused  # that it goes away would not be noticed
    session.says(b"b NOOP\r\n")
    assert session.wire.paused
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    session.upstream_wire.clear()
    session.upstream.dataReceived(OK)
    assert not session.wire.paused
    assert session.upstream_wire.read() == b"g2 NOOP\r\n"
