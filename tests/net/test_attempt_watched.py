"""A login that plugins are asked about: refused, dismissed or given up at any step, it leaves no connection behind."""

from __future__ import annotations

import pytest
from twisted.internet.protocol import Protocol

from imapgate.limits import Limits
from imapgate.model.failure import Failure
from imapgate.model.verdict import Disconnect, Reject
from imapgate.net.attempt import Attempt
from imapgate.net.watch import Watch
from imapgate.plugins.api import Plugin
from imapgate.session.effects import Failed, Granted, Login, Reason
from tests.net.asking import ALICE, CLIENT, GREETING, LIMITS, OK, RELAYED, Asking
from tests.net.watching import EVENTS, Disk, Oracle, watched
from tests.net.wires import Bench, Wire, bench, drop

HOOKS = ["credentials", "route_chosen", "authenticated"]
REFUSED = Reject("NOPERM", "Not today", "by day")
FAILED = Failed(Failure.POLICY, b"Not today", b"NOPERM")


class Asked(Asking):
    """One client that asks for a login at a gate with plugins."""

    def __init__(
        self, *plugins: Plugin, disk: Disk | None = None, login: Login = ALICE, made: Bench | None = None
    ) -> None:
        self.made = watched(made or bench(LIMITS), *plugins, disk=disk)
        self.watch = Watch(self.made.gate, CLIENT, "")
        self.answers = []
        self.attempt = Attempt(CLIENT, login, 1, self.made.gate, self.answers.append, self.watch)

    def dials(self) -> tuple[Protocol, Wire]:
        """The server answers and grants the login, if it is asked at all."""
        protocol, wire = self.made.endpoints[0].opens(GREETING)
        wire.clear()
        protocol.dataReceived(OK)
        return protocol, wire

    def goes(self) -> tuple[Protocol, Wire] | None:
        """Begin, and let the server grant it if it gets there."""
        self.start()
        return self.dials() if self.made.endpoints[0].calls else None

    @property
    def free(self) -> bool:
        """Whether the user may have one more connection, of one."""
        return self.made.gate.census.log_in("192.0.2.7", b"alice")


def test_plugins_are_asked_on_the_way() -> None:
    """Each is asked when that is known which it is asked about; the login goes on when it has answered."""
    oracle = Oracle(EVENTS, *HOOKS)
    asked = Asked(oracle)
    asked.start()
    assert (oracle.asked, asked.made.endpoints[0].calls) == (HOOKS[:1], [])
    assert asked.watch.view.upstream == ""
    oracle.says()
    assert (oracle.asked, asked.made.endpoints[0].calls) == (HOOKS[:2], [])
    assert (asked.watch.view.upstream, asked.watch.view.user) == ("mail", "")
    oracle.says()
    protocol, wire = asked.dials()
    assert oracle.asked == HOOKS
    assert asked.watch.view.user == "alice"
    assert asked.answers == []
    oracle.says()
    (answer,) = asked.answers
    assert isinstance(answer, Granted)
    assert asked.attempt.lease.protocol is protocol
    assert wire.open
    assert not asked.free


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
def test_refused(hook: str, late: bool) -> None:
    """The client is told what the plugin says, and what was dialled for it goes back; it costs no penalty."""
    oracle, disk = Oracle(EVENTS, *([hook] if late else [])), Disk()
    oracle.verdicts[hook] = REFUSED
    asked = Asked(oracle, disk=disk)
    reached = asked.goes()
    if late:
        assert asked.answers == []
        oracle.says(REFUSED)
    assert asked.answers == [FAILED]
    assert oracle.asked == HOOKS[: HOOKS.index(hook) + 1]
    assert disk.events == ["policy.deny denied"]
    fields = dict(disk.fields("policy.deny"))
    assert [fields[f"policy.{key}"] for key in ("plugin", "rule", "hook")] == ["plugin1", "by day", hook]
    assert (reached is None) == (hook != "authenticated")
    if reached is not None:
        protocol, wire = reached
        assert wire.read() == b"g2 LOGOUT\r\n"
        assert not wire.open
        drop(protocol, wire)
    assert asked.made.stages() == []
    assert len(asked.made.gate.penalties) == 0
    assert asked.free
    asked.made.clock.pump([60] * 4)
    assert not asked.made.clock.getDelayedCalls()


def test_refused_connections_are_kept_where_they_may_be() -> None:
    """A connection on which nobody was let in is as good as any other for the user's next login."""
    oracle = Oracle(EVENTS)
    oracle.verdicts["authenticated"] = REFUSED
    asked = Asked(oracle, made=bench(LIMITS, cache=3600.0, alone=True))
    reached = asked.goes()
    assert reached is not None
    assert reached[1].read() == b"g2 NOOP\r\n"
    reached[0].dataReceived(b"g2 OK done\r\n")
    assert asked.made.stages() == ["idle"]
    assert not reached[1].paused


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
def test_dismissed(hook: str, late: bool) -> None:
    """A plugin that ends the session at a login has its words told, and its connection is destroyed."""
    oracle, disk = Oracle(EVENTS, *([hook] if late else [])), Disk()
    oracle.verdicts[hook] = said = Disconnect("Go away", "by night")
    asked = Asked(oracle, disk=disk)
    reached = asked.goes()
    if late:
        oracle.says(said)
    assert asked.answers == [said]
    assert disk.events == ["policy.deny denied"]
    assert disk.fields("policy.deny")["policy.rule"] == "by night"
    if reached is not None:
        assert not reached[1].open
        drop(*reached)
    assert asked.made.stages() == []
    assert asked.free


@pytest.mark.parametrize("verdict", [None, REFUSED, Disconnect()])
@pytest.mark.parametrize("hook", HOOKS)
def test_a51_given_up_while_a_verdict_is_awaited(hook: str, verdict: Reject | None) -> None:
    """Whose client has gone gets no answer, dials nobody and keeps nothing, and a verdict that comes late is none."""
    oracle, disk = Oracle(EVENTS, hook), Disk()
    asked = Asked(oracle, disk=disk)
    reached = asked.goes()
    calls = len(asked.made.endpoints[0].calls)
    asked.attempt.cancel()
    if reached is not None:
        assert not reached[1].open
        reached[0].dataReceived(b"* 1 EXISTS\r\n")
        drop(*reached)
    oracle.says(verdict)
    asked.watch.closed("client closed", 0, (0, 0))
    assert asked.answers == []
    assert asked.made.stages() == []
    assert len(asked.made.endpoints[0].calls) == calls
    assert disk.events == []
    assert asked.free
    asked.made.clock.pump([60] * 4)
    assert not asked.made.clock.getDelayedCalls()


# --- what upstream says meanwhile -------------------------------------------------------------------


class Hearing:
    """Whoever the connection is granted to."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def upstream_received(self, data: bytes) -> None:
        """Remember."""
        self.heard.append(data)

    def upstream_lost(self, reason: object) -> None:
        """Remember."""
        self.heard.append(b"lost")

    def upstream_secured(self) -> None:
        """It never comes."""


def waiting(*, alone: bool = False) -> tuple[Oracle, Asked, Protocol, Wire]:
    """A login that upstream has granted, and a plugin has not."""
    oracle = Oracle(EVENTS, "authenticated")
    asked = Asked(oracle, made=bench(LIMITS, cache=3600.0 * alone, alone=alone))
    reached = asked.goes()
    assert reached is not None
    return oracle, asked, *reached


def test_what_upstream_says_meanwhile_is_kept() -> None:
    """Whoever gets the connection hears it then, in order; until then no more of it is read than what came."""
    oracle, asked, protocol, wire = waiting()
    hearing = Hearing()

    def granted(answer: object) -> None:
        asked.attempt.lease.protocol.owner = hearing

    asked.attempt._answered = granted
    protocol.dataReceived(b"* 1 EX")
    assert wire.paused
    assert protocol.valve.reasons == (Reason.VERDICT,)  # type: ignore[attr-defined]
    protocol.dataReceived(b"ISTS\r\n")
    oracle.says()
    assert hearing.heard == [b"* 1 EXISTS\r\n"]
    assert not wire.paused


def test_nothing_is_said_where_nothing_came() -> None:
    """A connection on which nothing was said meanwhile is handed over as it is."""
    oracle, asked, protocol, wire = waiting()
    hearing = Hearing()

    def granted(answer: object) -> None:
        asked.attempt.lease.protocol.owner = hearing

    asked.attempt._answered = granted
    oracle.says()
    assert (hearing.heard, wire.paused) == ([], False)
    protocol.dataReceived(b"* 1 EXISTS\r\n")
    assert hearing.heard == [b"* 1 EXISTS\r\n"]


def test_a_refused_connection_that_has_said_something_is_nobodys() -> None:
    """What was said was for this user's session: the connection is not kept for another one."""
    oracle, asked, protocol, wire = waiting(alone=True)
    protocol.dataReceived(b"* 1 EXISTS\r\n")
    oracle.says(REFUSED)
    assert asked.answers == [FAILED]
    assert not wire.open
    drop(protocol, wire)
    assert asked.made.stages() == []


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("verdict", [None, REFUSED, Disconnect("Go away")])
def test_upstream_dies_meanwhile(verdict: Reject | Disconnect | None, alone: bool) -> None:
    """Where the plugin has nothing against the user it is the server that let the client down."""
    oracle, asked, protocol, wire = waiting(alone=alone)
    protocol.dataReceived(b"* BYE\r\n")
    drop(protocol, wire)
    assert asked.answers == []
    oracle.says(verdict)
    expected = {None: Failed(Failure.LOST), REFUSED: FAILED}.get(verdict, verdict)  # type: ignore[arg-type]
    assert asked.answers == [expected]
    assert asked.made.stages() == []
    assert asked.free


def test_upstream_dies_and_then_the_client() -> None:
    """What is lost already is let go once."""
    _, asked, protocol, wire = waiting()
    drop(protocol, wire)
    asked.attempt.cancel()
    assert (asked.answers, asked.made.stages()) == ([], [])
    assert asked.free


# --- limits, and what cannot be recorded ------------------------------------------------------------


def test_the_limit_of_a_user_counts_those_who_were_let_in() -> None:
    """A login that the plugins allow may still be one too many; its connection goes back."""
    asked = Asked(Oracle(EVENTS))
    assert asked.free
    reached = asked.goes()
    assert reached is not None
    assert asked.failure is Failure.LIMIT
    assert not reached[1].open
    drop(*reached)
    assert asked.made.stages() == []


def test_f14_no_login_that_cannot_be_recorded() -> None:
    """While the trail cannot be written nobody is asked, and nobody dialled."""
    oracle, disk = Oracle(EVENTS), Disk()
    disk.failing = "the disk is full"
    asked = Asked(oracle, disk=disk)
    asked.start()
    assert asked.failure is Failure.UNRECORDED
    assert (oracle.asked, asked.made.endpoints[0].calls) == ([], [])


def test_a_relayed_mechanism_shows_no_credentials() -> None:
    """A plugin is not asked about what the gate cannot see; it is asked about the rest."""
    oracle = Oracle(EVENTS)
    asked = Asked(oracle, login=RELAYED)
    asked.goes()
    assert oracle.asked == HOOKS[1:]
    assert isinstance(asked.answers[0], Granted)
    assert asked.watch.view.user == ""


def test_only_a_trail() -> None:
    """Where there are no plugins nobody is waited for, and what upstream says is the client's at once."""
    asked = Asked(disk=Disk())
    reached = asked.goes()
    assert reached is not None
    assert isinstance(asked.answers[0], Granted)


def test_penalties_come_first() -> None:
    """A plugin is not asked before a login's delay is over, and a delay goes with a wrong password as ever."""
    oracle = Oracle(EVENTS)
    asked = Asked(oracle, made=bench(Limits()))
    asked.made.gate.penalties.failed(0.0, "192.0.2.7", "alice")
    asked.start()
    assert oracle.asked == []
    asked.made.clock.advance(2.0)
    assert oracle.asked == HOOKS[:2]
    protocol, wire = asked.made.endpoints[0].opens(GREETING)
    protocol.dataReceived(b"g1 NO no\r\n")
    drop(protocol, wire)
    asked.made.clock.advance(60.0)
    assert asked.failure is Failure.CREDENTIALS
