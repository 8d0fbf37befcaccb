"""A login under way: delays, doors in turn, the dialogue, and every way in which it ends."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure as TwistedFailure

from imapgate.auth.penalties import AT_ONCE
from imapgate.limits import Limits
from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials, Secret
from imapgate.net import attempt as module
from imapgate.net.attempt import Client
from imapgate.net.proxy_protocol import encode_v2
from imapgate.session.effects import Challenge, Granted, Login
from tests.net.asking import ALICE, CLIENT, GREETING, LIMITS, OK, PLAIN, RELAYED, Asking
from tests.net.wires import Wire, bench, drop, logged


def test_granted() -> None:
    """A login that upstream grants hands the connection over, and says what upstream can do."""
    made = bench(LIMITS)
    asking = Asking(made).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    assert wire.read() == PLAIN
    assert asking.answers == []
    protocol.dataReceived(OK)
    (answer,) = asking.answers
    assert isinstance(answer, Granted)
    assert answer.link.capabilities == b"IMAP4rev1 IDLE"
    assert asking.attempt.protocol is protocol
    assert asking.attempt.user == b"alice"
    assert wire.open
    assert not made.clock.getDelayedCalls()
    assert made.upstream.relayed == (b"XOAUTH2",)


def test_a37_a_burst_at_one_user() -> None:
    """Of many logins of one user at once only some go on; each that is given up makes room for the next."""
    made = bench(LIMITS)
    calls = made.endpoints[0].calls
    attempts = [Asking(made, client=CLIENT._replace(peer=(f"192.0.2.{n}", 1))).start() for n in range(AT_ONCE + 2)]
    assert len(calls) == AT_ONCE
    made.clock.advance(2.0)
    assert len(calls) == AT_ONCE + 1
    for attempt in attempts:
        attempt.attempt.cancel()
    Asking(made).start()
    assert len(calls) == AT_ONCE + 2


def test_a37_delays() -> None:
    """A failed login is answered late, and the next one of the same user begins late; success clears both."""
    made = bench(LIMITS)
    first = Asking(made).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    protocol.dataReceived(b"g1 NO no\r\n")
    assert not wire.open
    drop(protocol, wire)
    assert first.answers == []
    made.clock.advance(1.9)
    assert first.answers == []
    made.clock.advance(0.1)
    assert first.failure is Failure.CREDENTIALS
    second, third = Asking(made).start(), Asking(made).start()
    assert len(made.endpoints[0].calls) == 2
    made.clock.advance(2)
    assert len(made.endpoints[0].calls) == 3
    made.endpoints[0].opens(GREETING)[0].dataReceived(OK)
    assert [len(asking.answers) for asking in (second, third)] == [0, 1]
    assert len(made.gate.penalties) == 0


def test_no_delays() -> None:
    """Where no delays are configured a failed login is answered at once."""
    made = bench(Limits(failed_login_delays=()))
    asking = Asking(made).start()
    made.endpoints[0].opens(GREETING)[0].dataReceived(b"g1 NO no\r\n")
    assert asking.failure is Failure.CREDENTIALS


def test_a38_inadmissible_credentials_go_nowhere() -> None:
    """A user name that none can be is a failed login, and no server hears of it."""
    made = bench(LIMITS)
    asking = Asking(made, Login(b"PLAIN", Credentials(b"a\r\nb", Secret(b"pw")))).start()
    assert made.endpoints[0].calls == []
    made.clock.advance(2)
    assert asking.failure is Failure.CREDENTIALS


def test_limit_of_a_user() -> None:
    """One connection too many of a user is refused, and the one upstream is given up."""
    made = bench(LIMITS)
    Asking(made).start()
    made.endpoints[0].opens(GREETING)[0].dataReceived(OK)
    asking = Asking(made).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    protocol.dataReceived(OK)
    assert asking.failure is Failure.LIMIT
    assert not wire.open


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(), DNSLookupError("no such name"), OSError(101, "unreachable"), ValueError("odd")]
)
def test_f1_refused_tries_the_next_door(error: Exception) -> None:
    """However an endpoint says no, the next one is tried at once."""
    made = bench(LIMITS, doors=2)
    asking = Asking(made).start()
    with logged(module) as lines:
        made.endpoints[0].refuses(error)
    assert lines == ["info: upstream mail: door0: refused"]
    protocol, wire = made.endpoints[1].opens(GREETING)
    assert wire.read() == PLAIN
    protocol.dataReceived(OK)
    assert isinstance(asking.answers[0], Granted)


def test_f1_all_refused() -> None:
    """When every door has refused, the answer is the last one's."""
    made = bench(LIMITS, doors=2)
    asking = Asking(made).start()
    made.endpoints[0].refuses(ConnectTimeoutError())
    made.endpoints[1].refuses()
    assert asking.failure is Failure.REFUSED


def test_f1_silent_doors_take_a_bounded_time() -> None:
    """A door that does not open in time is given up, and all of them together have a limit of their own."""
    made = bench(Limits(connect_try=5, connect_total=12), doors=4)
    asking = Asking(made).start()
    opened = []
    for _ in range(12):
        opened.append([len(endpoint.calls) for endpoint in made.endpoints])
        assert asking.answers == []
        made.clock.advance(1)
    assert opened[4] == [1, 0, 0, 0]
    assert opened[5] == [1, 1, 0, 0]
    assert opened[10] == [1, 1, 1, 0]
    assert made.endpoints[3].calls == []
    assert [endpoint.cancelled for endpoint in made.endpoints] == [1, 1, 1, 0]
    assert asking.failure is Failure.TIMED_OUT
    assert not made.clock.getDelayedCalls()


def test_f8_bye_in_the_middle_of_a_login() -> None:
    """A server that greets and then turns the connection away leaves the other doors what is left of the time."""
    for waited, tried in ((14, 1), (16, 0)):
        made = bench(Limits(connect_total=15), doors=2)
        asking = Asking(made).start()
        protocol, wire = made.endpoints[0].opens(GREETING)
        made.clock.advance(waited)
        protocol.dataReceived(b"* BYE going down\r\n")
        drop(protocol, wire)
        assert len(made.endpoints[1].calls) == tried
        if tried:
            made.clock.advance(1)
        assert asking.failure is Failure.TIMED_OUT


def test_f1_a_server_that_does_not_greet() -> None:
    """The greeting is part of connecting: a server that accepts and says nothing is given up in the same time."""
    made = bench(Limits(connect_try=5), doors=2)
    asking = Asking(made).start()
    made.clock.advance(3)
    _, wire = made.endpoints[0].opens()
    made.clock.advance(2)
    assert not wire.open
    made.endpoints[1].refuses()
    assert asking.failure is Failure.REFUSED


def test_a_greeting_while_connecting() -> None:
    """A greeting that is there before the endpoint says so is not waited for again."""
    made = bench(LIMITS)
    asking = Asking(made).start()
    factory, deferred = made.endpoints[0].calls[0]
    protocol = factory.buildProtocol(None)  # type: ignore[arg-type]
    assert isinstance(protocol, Protocol)
    protocol.makeConnection(Wire())
    protocol.dataReceived(GREETING)
    deferred.callback(protocol)
    protocol.dataReceived(OK)
    assert isinstance(asking.answers[0], Granted)


def test_no_answer_to_the_login() -> None:
    """A server that has greeted has its own time for the login, and the last word."""
    made = bench(Limits(connect_try=5, upstream_first_byte=60), doors=2)
    asking = Asking(made).start()
    _, wire = made.endpoints[0].opens(GREETING)
    made.clock.advance(59)
    assert asking.answers == []
    made.clock.advance(1)
    assert asking.failure is Failure.TIMED_OUT
    assert not wire.open
    assert made.endpoints[1].calls == []


def test_f2_no_is_never_tried_elsewhere() -> None:
    """A server's NO is the answer, and no other server is asked."""
    made = bench(Limits(failed_login_delays=()), doors=2)
    asking = Asking(made).start()
    made.endpoints[0].opens(GREETING)[0].dataReceived(b"g1 NO [UNAVAILABLE] later\r\n")
    assert asking.failure is Failure.TEMPORARY
    assert made.endpoints[1].calls == []


def test_f8_bye_as_a_greeting_tries_the_next_door() -> None:
    """A server that turns the connection away has not had the last word."""
    made = bench(LIMITS, doors=2)
    asking = Asking(made).start()
    made.endpoints[0].opens(b"* BYE full\r\n")
    made.endpoints[1].opens(b"* BYE full\r\n")
    assert asking.failure is Failure.BYE


@pytest.mark.parametrize(
    ("greeting", "tried", "failure"),
    [(b"", [1, 1], Failure.REFUSED), (GREETING, [1, 0], Failure.LOST), (b"what?\r\n", [1, 1], Failure.REFUSED)],
)
def test_lost(greeting: bytes, tried: list[int], failure: Failure) -> None:
    """A connection that ends before a greeting counts as refused; after it, the login has failed."""
    made = bench(LIMITS, doors=2)
    asking = Asking(made).start()
    protocol, wire = made.endpoints[0].opens(greeting)
    drop(protocol, wire)
    assert [len(endpoint.calls) for endpoint in made.endpoints] == tried
    if not made.endpoints[1].calls:
        assert asking.failure is failure
        return
    made.endpoints[1].refuses()
    assert asking.failure is failure


# --- TLS ------------------------------------------------------------------------------------------


def test_implicit_tls() -> None:
    """With implicit TLS the handshake comes first."""
    made = bench(LIMITS, tls="creator")
    asking = Asking(made).start()
    protocol, wire = made.endpoints[0].opens()
    assert wire.creators == ["creator"]
    protocol.handshakeCompleted()  # type: ignore[attr-defined]
    assert wire.read() == b""
    protocol.dataReceived(GREETING)
    assert wire.read() == PLAIN
    protocol.dataReceived(OK)
    assert isinstance(asking.answers[0], Granted)


def test_a7_tls_failure_of_implicit_tls() -> None:
    """A handshake that fails is told to the operator with its reason, and no octet was sent."""
    made = bench(LIMITS, tls="creator")
    asking = Asking(made).start()
    protocol, wire = made.endpoints[0].opens()
    with logged(module) as lines:
        drop(protocol, wire, TwistedFailure(ConnectionLost("certificate verify failed")))
    assert asking.failure is Failure.TLS
    assert len(lines) == 2
    assert lines[0].startswith("info: door0: TLS failed: ")
    assert "certificate verify failed" in lines[0]
    assert lines[1] == "info: upstream mail: door0: tls"
    assert wire.read() == b""


def test_starttls() -> None:
    """With STARTTLS capabilities are asked again after the handshake, and only then comes the login."""
    made = bench(LIMITS, tls="creator", starttls=True)
    asking = Asking(made).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    assert wire.read() == b"g1 STARTTLS\r\n"
    protocol.dataReceived(b"g1 OK go\r\n")
    assert wire.creators == ["creator"]
    assert wire.read() == b""
    protocol.handshakeCompleted()  # type: ignore[attr-defined]
    assert wire.read() == b"g2 CAPABILITY\r\n"
    protocol.dataReceived(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\ng2 OK\r\n")
    assert wire.read() == PLAIN.replace(b"g1", b"g3")
    protocol.dataReceived(OK.replace(b"g1", b"g3"))
    assert isinstance(asking.answers[0], Granted)


def test_a7_tls_failure_after_starttls() -> None:
    """A handshake that fails after STARTTLS is the end of the attempt: nothing is tried in clear."""
    made = bench(LIMITS, doors=2, tls="creator", starttls=True)
    asking = Asking(made).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    protocol.dataReceived(b"g1 OK go\r\n")
    drop(protocol, wire)
    assert asking.failure is Failure.TLS
    assert wire.read() == b"g1 STARTTLS\r\n"
    assert made.endpoints[1].calls == []


# --- relaying, and what upstream is told ------------------------------------------------------------


def test_relayed_mechanism() -> None:
    """Challenges reach the client, its answers the server; the user is nobody that the gate knows of."""
    made = bench(LIMITS)
    asking = Asking(made, RELAYED)
    asking.attempt.respond(Secret(b"too early"))
    asking.start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    assert wire.read() == b"g1 AUTHENTICATE XOAUTH2\r\n"
    protocol.dataReceived(b"+ Y2hhbGxlbmdl\r\n")
    assert asking.answers == [Challenge(b"Y2hhbGxlbmdl")]
    asking.attempt.respond(Secret(b"YW5zd2Vy"))
    assert wire.read() == b"YW5zd2Vy\r\n"
    protocol.dataReceived(OK)
    assert isinstance(asking.answers[1], Granted)
    assert asking.attempt.user == b""


@pytest.mark.parametrize(
    ("client", "fields"),
    [
        (
            CLIENT,
            b'"x-originating-ip" "192.0.2.7" "x-originating-port" "50000" "x-connected-ip" "192.0.2.1" '
            b'"x-connected-port" "143" "x-session-id" "0123456789ab"',
        ),
        (
            Client(None, None, "0123456789ab"),
            b'"x-originating-ip" "" "x-originating-port" "0" "x-connected-ip" "" "x-connected-port" "0" '
            b'"x-session-id" "0123456789ab"',
        ),
    ],
)
def test_a45_originating_fields(client: Client, fields: bytes) -> None:
    """A server that is marked for it hears who the client is, and what that said of itself."""
    made = bench(LIMITS, id_originating=True)
    Asking(made, ALICE._replace(client_id=((b"name", b"mutt"),)), client).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    assert wire.read() == b'g1 ID (%b "name" "mutt")\r\n' % fields
    protocol.dataReceived(b"* ID NIL\r\ng1 OK\r\n")
    assert wire.read() == PLAIN.replace(b"g1", b"g2")


def test_a45_no_fields_to_others() -> None:
    """A server that is not marked hears nothing of the client."""
    made = bench(LIMITS)
    Asking(made, ALICE._replace(client_id=((b"name", b"mutt"),))).start()
    assert made.endpoints[0].opens(GREETING)[1].read() == PLAIN


def test_proxy_header() -> None:
    """A server that wants a PROXY header gets it before anything else."""
    made = bench(LIMITS, proxy_protocol=True)
    Asking(made).start()
    _, wire = made.endpoints[0].opens()
    assert wire.read() == encode_v2(CLIENT.peer, CLIENT.host)
