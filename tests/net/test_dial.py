"""Reaching an upstream server: doors in turn, the dialogue at the one that opens, and probes."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure as TwistedFailure

from imapgate.limits import Limits
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import IdleMode, PoolMode, SharingTerms
from imapgate.model.secret import Credentials, Secret
from imapgate.net import dial as module
from imapgate.net.dial import Client, Seen, Upstream, probe
from imapgate.net.proxy_protocol import encode_v2
from imapgate.net.upstream import Door
from imapgate.pooling.connection import Terms
from imapgate.session.effects import Challenge, Failed, Granted, Login
from tests.net.asking import ALICE, CLIENT, GREETING, LIMITS, OK, PLAIN, RELAYED, Dialling
from tests.net.wires import Bench, Endpoint, InOrder, Wire, bench, drop, logged


def test_granted() -> None:
    """A login that upstream grants says what upstream can do, and what may be relayed is known from then on."""
    made = bench(LIMITS)
    asking = Dialling(made)
    assert asking.dial.ends is None
    asking.start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    assert wire.read() == PLAIN
    assert asking.answers == []
    protocol.dataReceived(OK)
    (answer,) = asking.answers
    assert isinstance(answer, Granted)
    assert answer.link.capabilities == b"IMAP4rev1 IDLE"
    assert asking.dial.protocol is protocol
    assert asking.dial.ends == (("192.0.2.1", 143), ("192.0.2.7", 50000))
    assert wire.open
    assert not made.clock.getDelayedCalls()
    assert made.upstream.relayed == (b"XOAUTH2",)


def test_f10_failures_are_told_of_the_endpoint_that_failed() -> None:
    """A door that fails is counted, a server that greets is well, whatever it says of the credentials."""
    made = bench(LIMITS, doors=2)
    for _ in range(5):
        Dialling(made).start()
        made.endpoints[0].refuses()
        made.endpoints[1].opens(GREETING)[0].dataReceived(b"g1 NO no\r\n")
    rows = made.upstream.endpoints.rows(0.0)
    assert [(row["state"], row["failures"]) for row in rows] == [("ejected", 5), ("up", 0)]
    Dialling(made).start()
    assert [len(endpoint.calls) for endpoint in made.endpoints] == [5, 6]


@pytest.mark.parametrize(
    ("login", "name"),
    [
        (ALICE, "alice"),
        (Login(b"PLAIN", Credentials(b"gate", Secret(b"pw"), b"alice")), "alice"),
        (Login(b"PLAIN", Credentials(b"alice*gate", Secret(b"pw"))), "alice*gate"),
        (RELAYED, "0123456789ab"),
    ],
)
def test_each_user_has_an_order_of_endpoints(login: Login, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doors are tried in the order of whose mailbox it is, not of the master user; one that is hidden has any order."""
    made = bench(LIMITS, doors=2)
    asked: list[str] = []

    def order(user: str, now: float) -> list[int]:
        asked.append(user)
        return [1, 0]

    monkeypatch.setattr(made.upstream.endpoints, "order", order)
    Dialling(made, login).start()
    assert asked == [name]
    assert [len(endpoint.calls) for endpoint in made.endpoints] == [0, 1]


def test_a51_cancelled() -> None:
    """A login that nobody wants any more closes what it has, at once, and tries no other door."""
    made = bench(LIMITS, doors=2)
    asking = Dialling(made).start()
    _, wire = made.endpoints[0].opens(GREETING)
    asking.running.addErrback(lambda reason: None)
    asking.running.cancel()
    assert wire.disconnected
    assert asking.answers == []
    assert made.endpoints[1].calls == []
    assert not made.clock.getDelayedCalls()


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(), DNSLookupError("no such name"), OSError(101, "unreachable"), ValueError("odd")]
)
def test_f1_refused_tries_the_next_door(error: Exception) -> None:
    """However an endpoint says no, the next one is tried at once."""
    made = bench(LIMITS, doors=2)
    asking = Dialling(made).start()
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
    asking = Dialling(made).start()
    made.endpoints[0].refuses(ConnectTimeoutError())
    made.endpoints[1].refuses()
    assert asking.failure is Failure.REFUSED


def test_f1_silent_doors_take_a_bounded_time() -> None:
    """A door that does not open in time is given up, and all of them together have a limit of their own."""
    made = bench(Limits(connect_try=5, connect_total=12), doors=4)
    asking = Dialling(made).start()
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
        asking = Dialling(made).start()
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
    asking = Dialling(made).start()
    made.clock.advance(3)
    _, wire = made.endpoints[0].opens()
    made.clock.advance(2)
    assert not wire.open
    made.endpoints[1].refuses()
    assert asking.failure is Failure.REFUSED


def test_a_greeting_while_connecting() -> None:
    """A greeting that is there before the endpoint says so is not waited for again."""
    made = bench(LIMITS)
    asking = Dialling(made).start()
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
    asking = Dialling(made).start()
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
    asking = Dialling(made).start()
    made.endpoints[0].opens(GREETING)[0].dataReceived(b"g1 NO [UNAVAILABLE] later\r\n")
    assert asking.failure is Failure.TEMPORARY
    assert made.endpoints[1].calls == []


def test_f8_bye_as_a_greeting_tries_the_next_door() -> None:
    """A server that turns the connection away has not had the last word."""
    made = bench(LIMITS, doors=2)
    asking = Dialling(made).start()
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
    asking = Dialling(made).start()
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
    asking = Dialling(made).start()
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
    asking = Dialling(made).start()
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
    asking = Dialling(made).start()
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
    asking = Dialling(made).start()
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
    asking = Dialling(made, RELAYED)
    asking.dial.respond(Secret(b"too early"))
    asking.start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    assert wire.read() == b"g1 AUTHENTICATE XOAUTH2\r\n"
    protocol.dataReceived(b"+ Y2hhbGxlbmdl\r\n")
    assert asking.answers == [Challenge(b"Y2hhbGxlbmdl")]
    asking.dial.respond(Secret(b"YW5zd2Vy"))
    assert wire.read() == b"YW5zd2Vy\r\n"
    protocol.dataReceived(OK)
    assert isinstance(asking.answers[1], Granted)


@pytest.mark.parametrize(
    ("client", "fields"),
    [
        (
            CLIENT,
            b'"x-originating-ip" "192.0.2.7" "x-originating-port" "50000" "x-connected-ip" "192.0.2.1" '
            b'"x-connected-port" "143" "x-session-id" "0123456789ab" "x-proxy-ttl" "4"',
        ),
        (
            Client(None, None, "0123456789ab"),
            b'"x-originating-ip" "" "x-originating-port" "0" "x-connected-ip" "" "x-connected-port" "0" '
            b'"x-session-id" "0123456789ab" "x-proxy-ttl" "4"',
        ),
    ],
)
def test_a45_originating_fields(client: Client, fields: bytes) -> None:
    """A server that is marked for it hears who the client is, and what that said of itself."""
    made = bench(LIMITS, id_originating=True)
    Dialling(made, ALICE._replace(client_id=((b"name", b"mutt"),)), client).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    assert wire.read() == b'g1 ID (%b "name" "mutt")\r\n' % fields
    protocol.dataReceived(b"* ID NIL\r\ng1 OK\r\n")
    assert wire.read() == PLAIN.replace(b"g1", b"g2")


def test_a45_no_fields_to_others() -> None:
    """A server that is not marked hears nothing of the client."""
    made = bench(LIMITS)
    Dialling(made, ALICE._replace(client_id=((b"name", b"mutt"),))).start()
    assert made.endpoints[0].opens(GREETING)[1].read() == PLAIN


def test_proxy_header() -> None:
    """A server that wants a PROXY header gets it before anything else."""
    made = bench(LIMITS, proxy_protocol=True)
    Dialling(made).start()
    _, wire = made.endpoints[0].opens()
    assert wire.read() == encode_v2(CLIENT.peer, CLIENT.host)


@pytest.mark.parametrize("says_so", [True, False])
def test_f1_a_door_that_does_not_open_has_timed_out(says_so: bool) -> None:
    """Giving up a door is a time-out, whatever the endpoint calls it."""
    made = bench(Limits(connect_try=5))
    made.endpoints[0].says_so = says_so
    asking = Dialling(made).start()
    made.clock.advance(5)
    assert asking.failure is Failure.TIMED_OUT


def test_a51_an_answer_to_a_challenge_that_is_too_late() -> None:
    """A client that cancels when the time was up already has its answer, and gets no second one."""
    made = bench(LIMITS)
    asking = Dialling(made, RELAYED).start()
    protocol, _ = made.endpoints[0].opens(GREETING)
    protocol.dataReceived(b"+ x\r\n")
    made.clock.advance(60)
    asking.dial.respond(Secret(b"*"))
    assert asking.answers == [Challenge(b"x"), Failed(Failure.TIMED_OUT)]


# --- probing ----------------------------------------------------------------------------------------


def probing(made: Bench) -> list[list[Seen]]:
    """Probe; what was found stands in the list when it is over."""
    found: list[list[Seen]] = []
    Deferred.fromCoroutine(probe(made.upstream, made.gate.limits, made.clock)).addCallback(found.append)
    return found


def test_probe() -> None:
    """Every door is looked at, nobody is logged in, and what may be relayed is known afterwards."""
    made = bench(LIMITS, doors=3)
    found = probing(made)
    made.endpoints[0].refuses(OSError("no such name"))
    protocol, wire = made.endpoints[1].opens(b"* OK hi\r\n")
    assert wire.read() == b"g1 CAPABILITY\r\n"
    protocol.dataReceived(b"* CAPABILITY IMAP4rev1 auth=cram-md5 AUTH=PLAIN\r\ng1 OK\r\n")
    assert not wire.open
    made.endpoints[2].opens(b"* BYE no\r\n")
    made.clock.advance(5)
    assert wire.disconnected
    ((first, second, third),) = found
    assert [seen.door.name for seen in found[0]] == ["door0", "door1", "door2"]
    assert first.outcome == Failed(Failure.REFUSED)
    assert isinstance(second.outcome, Granted)
    assert second.core.offered == b"IMAP4rev1 auth=cram-md5 AUTH=PLAIN"
    assert third.outcome == Failed(Failure.BYE)
    assert made.upstream.relayed == (b"CRAM-MD5",)
    assert [row["failures"] for row in made.upstream.endpoints.rows(0.0)] == [1, 0, 1]


def test_probe_behind_a_proxy_protocol() -> None:
    """A probe of a server that wants a PROXY header speaks for the gate itself."""
    made = bench(LIMITS, proxy_protocol=True)
    probing(made)
    assert made.endpoints[0].opens()[1].read() == encode_v2(None, None)


def test_upstream_is_what_it_was_given() -> None:
    """Doors are kept in order; before the first probe nothing is relayed."""
    doors = [Door(name, Endpoint(), None, False) for name in "ab"]
    upstream = Upstream("mail", doors, InOrder(["a", "b"]))
    assert upstream.doors == tuple(doors)
    assert upstream.relayed == ()
    assert (upstream.mode, upstream.sharing) == (PoolMode.SESSION, SharingTerms())
    assert CLIENT.address == "192.0.2.7"
    assert Client(None, None, "x").address is None


@pytest.mark.parametrize(("idle", "keep"), [(IdleMode.RELAY, 3), (IdleMode.SHARE, 3), (IdleMode.POLL, 0)])
def test_terms_of_each_mode(idle: IdleMode, keep: int) -> None:
    """One pool's bounds for each mode; where mailboxes are shared, leased ones count; where polled, none is kept."""
    terms = Terms(keep=3)
    sharing = SharingTerms(idle=idle)
    for alone in (False, True):
        upstream = Upstream("mail", [], InOrder([]), terms=terms, alone=alone, sharing=sharing)
        assert upstream.sharing == sharing
        assert upstream.terms == {
            PoolMode.SESSION: Terms(keep=3 if alone else 0, alone=alone),
            PoolMode.MAILBOX: Terms(keep=3, alone=alone),
            PoolMode.SHARED: Terms(keep=keep, alone=alone, counted=True),
        }
