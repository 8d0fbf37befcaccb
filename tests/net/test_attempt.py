"""A login under way: its delays and its limits, and every way in which it ends early."""

from __future__ import annotations

import pytest
from twisted.internet.protocol import Protocol
from twisted.logger import LogEvent

from imapgate.auth.penalties import AT_ONCE
from imapgate.limits import Limits
from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials, Secret
from imapgate.net import attempt as module
from imapgate.net.dial import Client
from imapgate.net.directory import Refusal
from imapgate.net.pools import Account
from imapgate.pooling.connection import Terms
from imapgate.session.effects import Challenge, Failed, Granted, Login
from tests.net.asking import ALICE, CLIENT, GREETING, LIMITS, OK, PLAIN, RELAYED, Asking
from tests.net.wires import Bench, Wire, bench, drop, logged


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
    assert asking.attempt.lease.protocol is protocol
    assert asking.attempt.user == b"alice"
    assert wire.open
    assert not made.clock.getDelayedCalls()
    assert made.upstream.relayed == (b"XOAUTH2",)


def test_a37_a_burst_at_one_user() -> None:
    """Of many logins of one user at once only some go on; each that is given up makes room for the next."""
    made = bench(LIMITS, terms=Terms(size=AT_ONCE + 2))
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


@pytest.mark.parametrize("says_so", [True, False])
@pytest.mark.parametrize("step", ["delayed", "connecting", "greeting", "login", "answer held back"])
def test_a51_cancelled(step: str, says_so: bool) -> None:
    """A client that has gone hears nothing more, wherever its login stood: no other door is tried, nothing is left."""
    made = bench(LIMITS, doors=2)
    made.endpoints[0].says_so = says_so
    if step == "delayed":
        made.gate.penalties.failed(0.0, None, "alice")
    asking = Asking(made).start()
    wires: list[tuple[Protocol, Wire]] = []
    if step in ("greeting", "login", "answer held back"):
        wires.append(made.endpoints[0].opens())
    if step in ("login", "answer held back"):
        wires[0][0].dataReceived(GREETING)
    if step == "answer held back":
        wires[0][0].dataReceived(b"g1 NO no\r\n")
        drop(*wires[0])
    asking.attempt.cancel()
    asking.attempt.cancel()
    for protocol, wire in wires:
        assert not wire.open
        assert wire.disconnected or not wire.connected
        protocol.dataReceived(OK)
        drop(protocol, wire)
    made.clock.pump([60] * 10)
    assert asking.answers == []
    assert made.endpoints[0].cancelled == (step == "connecting")
    assert made.endpoints[1].calls == []
    assert made.gate.census.log_in("192.0.2.7", b"alice")
    assert not made.clock.getDelayedCalls()


def test_a51_cancelled_before_it_began() -> None:
    """Cancelling what was not started does nothing."""
    asking = Asking(bench(LIMITS))
    asking.attempt.cancel()
    assert asking.answers == []


def test_a51_lost_after_the_answer() -> None:
    """What a server still says, and its end, after its NO are nobody's concern."""
    made = bench(Limits(failed_login_delays=()))
    asking = Asking(made).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    protocol.dataReceived(b"g1 NO no\r\n* BYE\r\n")
    protocol.dataReceived(OK)
    drop(protocol, wire)
    assert asking.failure is Failure.CREDENTIALS


def test_unexpected_errors_are_contained(critical_events: list[LogEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in an attempt is logged with its traceback, and the client gets an answer all the same."""
    made = bench(LIMITS)

    def broken(*args: object) -> float:
        raise RuntimeError("a bug")

    monkeypatch.setattr(made.gate.penalties, "admit", broken)
    asking = Asking(made).start()
    assert asking.failure is Failure.LOST
    assert [event["log_failure"].getErrorMessage() for event in critical_events] == ["a bug"]
    critical_events.clear()


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


def test_a51_an_answer_to_a_challenge_that_is_too_late() -> None:
    """A client that cancels when the time was up already has its answer, and gets no second one."""
    made = bench(LIMITS)
    asking = Asking(made, RELAYED).start()
    protocol, _ = made.endpoints[0].opens(GREETING)
    protocol.dataReceived(b"+ x\r\n")
    made.clock.advance(60)
    asking.attempt.respond(Secret(b"*"))
    assert asking.answers == [Challenge(b"x"), Failed(Failure.TIMED_OUT)]


# --- who it is, and where it goes -------------------------------------------------------------------


class Answering:
    """A directory that has one answer."""

    def __init__(self, answer: Account | Refusal) -> None:
        self.answer = answer
        self.asked: list[tuple[Client, Login, int]] = []

    async def account(self, client: Client, login: Login, attempt: int) -> Account | Refusal:
        """Give it."""
        self.asked.append((client, login, attempt))
        return self.answer


def answering(answer: Account | Refusal, limits: Limits = LIMITS) -> tuple[Bench, Answering]:
    """A gate whose directory has one answer."""
    made, directory = bench(limits), Answering(answer)
    return made._replace(gate=made.gate._replace(directory=directory)), directory  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("failure", "wait", "held"),
    [
        (Failure.CREDENTIALS, 7.0, 7.0),
        (Failure.CREDENTIALS, 1.0, 2.0),
        (Failure.TEMPORARY, 7.0, 7.0),
        (Failure.UNROUTABLE, 0.0, 0.0),
    ],
)
def test_refused_by_the_directory(failure: Failure, wait: float, held: float) -> None:
    """An answer is held back for as long as the verifier wants, and a wrong credential no less than it costs here."""
    made, directory = answering(Refusal(Failed(failure, b"why"), wait))
    asking = Asking(made).start()
    assert directory.asked == [(CLIENT, ALICE, 1)]
    if held:
        made.clock.advance(held - 0.1)
        assert asking.answers == []
        made.clock.advance(0.1)
    assert asking.answers == [Failed(failure, b"why")]
    assert len(made.gate.penalties) == 2 * (failure is Failure.CREDENTIALS)
    assert made.endpoints[0].calls == []


def test_a46_a_login_that_came_back() -> None:
    """A client that is one of the gate's own connections is told that there is no way, and nothing is dialled."""
    made = bench(LIMITS)
    Asking(made, client=CLIENT).start()
    made.endpoints[0].opens()
    with logged(module) as lines:
        looping = Asking(made, client=CLIENT._replace(peer=CLIENT.host, host=CLIENT.peer)).start()
    assert looping.failure is Failure.UNROUTABLE
    (line,) = lines
    assert line.startswith("error: a login goes in a circle: ")
    assert line.endswith("session=0123456789ab")
    assert len(made.endpoints[0].calls) == 1


@pytest.mark.parametrize(("ttl", "dialled"), [(2, 1), (1, 0), (0, 0)])
def test_a46_a_login_that_went_through_too_many_gates(ttl: int, dialled: int) -> None:
    """A login that may go through no more gates goes nowhere."""
    made = bench(LIMITS)
    with logged(module):
        asking = Asking(made, ALICE._replace(ttl=ttl)).start()
    assert len(made.endpoints[0].calls) == dialled
    assert dialled or asking.failure is Failure.UNROUTABLE


def test_the_gates_own_login_is_refused() -> None:
    """Where the gate has verified the user, upstream's NO is about the gate: the log says so, and nobody is held up."""
    account = Account(bench().upstream, b"alice", ALICE, digest=b"", generation=1)
    made, directory = answering(account)
    account.upstream = made.upstream
    asking = Asking(made).start()
    with logged(module) as lines:
        made.endpoints[0].opens(GREETING)[0].dataReceived(b"g1 NO no\r\n")
    assert asking.failure is Failure.TEMPORARY
    (line,) = lines
    assert line.startswith("error: upstream mail refuses the gate's own login for a user that it has verified: ")
    assert len(made.gate.penalties) == 0
    assert directory.answer is account


def test_no_connection_came_free() -> None:
    """A login that waits for too long for one of its user's connections is told that all are in use."""
    made = bench(Limits(), terms=Terms(size=1, wait=10))
    Asking(made).start()
    made.endpoints[0].opens(GREETING)[0].dataReceived(OK)
    asking = Asking(made).start()
    made.clock.advance(10)
    made.pools.ticked()
    assert asking.failure is Failure.BUSY
    assert len(made.gate.penalties) == 0


def test_a51_cancelled_while_it_waits_for_its_users_connection() -> None:
    """A login that is given up while it waits is lent nothing when a connection comes free."""
    made = bench(Limits(), terms=Terms(size=1))
    first = Asking(made).start()
    protocol, wire = made.endpoints[0].opens(GREETING)
    protocol.dataReceived(OK)
    second = Asking(made).start()
    second.attempt.cancel()
    first.attempt.lease.destroy()
    drop(protocol, wire)
    assert second.answers == []
    assert made.stages() == []
    assert made.pools.book.waiting == 0
