"""The client's connection: what the core wants done is done, in order, and nothing outlives it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from imapgate.limits import DEFAULTS, Limits
from imapgate.model.secret import Secret
from imapgate.net import journal
from imapgate.net.client import ClientProtocol, Door, Over, address_port, trustworthy
from imapgate.net.journal import Trace
from imapgate.net.proxy_protocol import Header
from imapgate.net.tls import ServerCertificates
from imapgate.net.upstream import CLOSE_SECONDS
from imapgate.net.valve import Full
from imapgate.session.effects import Close, Effect, Respond, SendClient, SendUpstream, Side
from tests.net.wires import CLIENT, Bench, Wire, bench, connect, drop, logged

CERTIFICATES = cast("ServerCertificates", object())
PLAINTEXT = Door(None, False, True)
STARTTLS = Door(CERTIFICATES, False, False)
IMPLICIT = Door(CERTIFICATES, True, False)

UPSTREAM_GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hello\r\n"
AUTHENTICATE = b"g1 AUTHENTICATE PLAIN %b\r\n" % base64.b64encode(b"\0alice\0pw")
LOGIN = b"a LOGIN alice pw\r\n"
OK = b"g1 OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"


class Session:
    """One client at a gate, and what is behind it."""

    def __init__(
        self,
        door: Door = PLAINTEXT,
        limits: Limits = DEFAULTS,
        peer: IAddress = CLIENT,
        trace: Trace | None = None,
        made: Bench | None = None,
    ) -> None:
        self.made = made or bench(limits, trace=trace)
        self.clock: Clock = self.made.clock
        self.gone: list[ClientProtocol] = []
        address = address_port(peer)
        self.protocol = ClientProtocol(self.made.gate, door, address and address[0], "0123456789ab", self.gone.append)
        self.wire = Wire(peer)
        self.upstream: Protocol
        self.upstream_wire: Wire

    def connected(self) -> Session:
        """Connect the client."""
        connect(self.protocol, self.wire)
        return self

    def says(self, data: bytes) -> bytes:
        """The client says this; what is it told?"""
        self.protocol.dataReceived(data)
        return self.wire.read()

    def logged_in(self) -> Session:
        """Connect and log in."""
        self.connected()
        self.says(LOGIN)
        self.upstream, self.upstream_wire = self.made.endpoints[0].opens(UPSTREAM_GREETING)
        assert self.upstream_wire.read() == AUTHENTICATE
        self.upstream.dataReceived(OK)
        assert self.wire.read().startswith(b"a OK [CAPABILITY IMAP4rev1 IDLE LITERAL+ SASL-IR ID] ")
        return self

    def lost(self) -> list[str]:
        """The client goes; the lines that are logged."""
        with logged(journal) as lines:
            drop(self.protocol, self.wire)
        return lines

    def reason(self) -> str:
        """The client goes; the reason that is logged for the end of the session."""
        (line,) = (line for line in self.lost() if line.startswith("info: session ended: "))
        return line.split('reason="')[1].split('"')[0]


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
    session = Session(Door(None, False, False), peer=peer)
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
    """The core holds the client while it waits for an answer, and what comes meanwhile is not lost."""
    session = Session().connected()
    session.says(LOGIN)
    assert session.wire.paused
    session.says(b"b NOOP\r\n")
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    session.upstream_wire.clear()
    session.upstream.dataReceived(OK)
    assert not session.wire.paused
    assert session.upstream_wire.read() == b"g2 NOOP\r\n"


# --- logins -----------------------------------------------------------------------------------------


def test_failed_login_and_another() -> None:
    """A login that failed is a line in the log; the next one has an attempt of its own."""
    session = Session(limits=Limits(failed_login_delays=())).connected()
    session.says(LOGIN)
    upstream, _ = session.made.endpoints[0].opens(UPSTREAM_GREETING)
    with logged(journal) as lines:
        upstream.dataReceived(b"g1 NO no\r\n")
    assert session.wire.read() == b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n"
    assert lines == [
        'info: login failed: user="alice" address=192.0.2.7 mechanism=LOGIN reason=credentials session=0123456789ab'
    ]
    session.says(LOGIN)
    assert len(session.made.endpoints[0].calls) == 2


def test_relayed_login() -> None:
    """Challenges and answers of a relayed mechanism pass, and the session is nobody's by name."""
    session = Session()
    session.made.upstream.relayed = (b"XOAUTH2",)
    session.connected()
    session.says(b"a AUTHENTICATE XOAUTH2\r\n")
    upstream, wire = session.made.endpoints[0].opens(UPSTREAM_GREETING.replace(b"PLAIN", b"XOAUTH2"))
    wire.clear()
    upstream.dataReceived(b"+ Y2hhbGxlbmdl\r\n")
    assert session.wire.read() == b"+ Y2hhbGxlbmdl\r\n"
    session.says(b"YW5zd2Vy\r\n")
    assert wire.read() == b"YW5zd2Vy\r\n"
    upstream.dataReceived(OK)
    assert session.wire.read().startswith(b"a OK ")
    assert "user=- " in session.lost()[0]
    assert not session.made.gate.census._users


def test_users_are_counted() -> None:
    """A user that has logged in is counted until it goes; a second connection too many is refused."""
    limits = Limits(connections_per_user_address=1)
    first = Session(limits=limits).logged_in()
    second = Session(made=first.made).connected()
    second.says(LOGIN)
    first.made.endpoints[0].opens(UPSTREAM_GREETING)[0].dataReceived(OK)
    assert second.wire.read().startswith(b"a NO [LIMIT] ")
    second.lost()
    first.lost()
    Session(made=first.made).logged_in()


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_trace(tmp_path: Path, user: str) -> None:
    """The session of the user that is to be traced is, and no other."""
    made = bench()
    trace = Trace(user, tmp_path / "trace", 60.0, made.clock)
    session = Session(trace=trace).logged_in()
    session.says(b"b NOOP\r\n")
    trace.close()
    assert (tmp_path / "trace").exists() is (user == "alice")


# --- ends -------------------------------------------------------------------------------------------


def test_login_deadline() -> None:
    """A41: the time to log in is absolute: octets that trickle in do not extend it."""
    session = Session().connected()
    for _ in range(6):
        assert session.wire.open
        session.says(b"x")
        session.clock.advance(DEFAULTS.login_time / 6)
    assert not session.wire.open
    assert b"* BYE " in session.wire.read()
    session.clock.advance(CLOSE_SECONDS)
    assert session.wire.disconnected
    assert session.reason() == "login timed out"
    assert not session.clock.getDelayedCalls()


def test_f3_upstream_is_lost() -> None:
    """At a line's start a client hears that its upstream has gone, and is closed."""
    session = Session().logged_in()
    drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b"* BYE [UNAVAILABLE] The mail server closed the connection\r\n"
    assert not session.wire.open
    assert session.reason() == "upstream lost"
    assert not session.clock.getDelayedCalls()


def test_f3_upstream_is_lost_in_a_literal() -> None:
    """In the middle of a response the client is cut off at once: nothing is added."""
    session = Session().logged_in()
    session.says(b"b SELECT x\r\n")
    session.upstream.dataReceived(b"* 1 FETCH (BODY[] {10}\r\nabc")
    session.wire.clear()
    drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b""
    assert session.wire.disconnected


def test_client_is_lost() -> None:
    """When the client goes its upstream is closed, in bounded time, and nobody is told anything more."""
    session = Session().logged_in()
    session.wire.clear()
    session.lost()
    assert not session.upstream_wire.open
    session.upstream.dataReceived(b"* 1 EXISTS\r\n")
    session.clock.advance(CLOSE_SECONDS)
    assert session.upstream_wire.disconnected
    drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b""
    assert not session.clock.getDelayedCalls()
    assert session.gone == [session.protocol]


def test_f7_half_close() -> None:
    """A command that a half-close follows is answered; then the gate closes, too."""
    session = Session().logged_in()
    session.says(b"b NOOP\r\n")
    session.protocol.readConnectionLost()
    session.protocol.readConnectionLost()
    assert session.protocol._valve.reasons == (Over.HALF_CLOSED,)
    assert session.wire.open
    session.upstream.dataReceived(b"g2 OK done\r\n")
    assert session.wire.read() == b"b OK done\r\n"
    assert not session.wire.open
    assert session.reason() == "client closed"


def test_f7_half_close_takes_a_bounded_time() -> None:
    """An answer that does not come is not waited for longer than the limit says."""
    session = Session().logged_in()
    session.says(b"b NOOP\r\n")
    session.protocol.readConnectionLost()
    session.clock.advance(DEFAULTS.half_close)
    assert session.wire.disconnected


def test_f16_stop() -> None:
    """A session that is stopped says so, and closes both sides."""
    session = Session().logged_in()
    session.protocol.stop(b"[UNAVAILABLE] Going down")
    assert session.wire.read() == b"* BYE [UNAVAILABLE] Going down\r\n"
    assert not session.wire.open
    assert not session.upstream_wire.open
    assert session.wire.producer is None  # else Twisted would not close
    assert session.upstream_wire.producer is None
    session.protocol.stop(b"again")
    assert session.wire.read() == b""
    assert session.reason() == "stopped"


Step = Callable[[Session], None]


def _greets(session: Session) -> None:
    session.upstream, session.upstream_wire = session.made.endpoints[0].opens(UPSTREAM_GREETING)


STEPS: list[Step] = [
    lambda session: None,
    lambda session: session.protocol.handshakeCompleted(),
    lambda session: session.protocol.dataReceived(LOGIN),
    _greets,
    lambda session: session.upstream.dataReceived(OK),
    lambda session: session.protocol.dataReceived(b"b NOOP\r\n"),
]


@pytest.mark.parametrize("steps", range(1, len(STEPS) + 1))
@pytest.mark.parametrize("stopped", [False, True])
def test_a51_lost_at_every_step(steps: int, stopped: bool) -> None:
    """Wherever a client goes, stopped before or not, what still comes later does nothing, and nothing is left."""
    session = Session(IMPLICIT, Limits(connections_per_user_address=1)).connected()
    for step in STEPS[:steps]:
        step(session)
    if stopped:
        session.protocol.stop(b"Going down")
    session.lost()
    assert session.gone == [session.protocol]
    session.wire.clear()
    session.protocol.upstream_received(b"* 1 EXISTS\r\n")
    session.protocol.dataReceived(b"c NOOP\r\n")
    session.protocol.stop(b"Going down")
    if hasattr(session, "upstream"):
        assert not session.upstream_wire.open
        session.upstream.dataReceived(b"g2 OK done\r\n")
        drop(session.upstream, session.upstream_wire)
    assert session.wire.read() == b""
    assert not session.clock.getDelayedCalls()
    assert session.made.gate.census.log_in("192.0.2.7", b"alice")
    assert Full.CLIENT not in session.protocol._valve.reasons
