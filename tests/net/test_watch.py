"""Who watches a session: what is recorded of it, what the plugins are asked, and what the core is told of both."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from imapgate.limits import DEFAULTS
from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials, Secret
from imapgate.model.verdict import Annotate, Disconnect, Event, Interests, Reject
from imapgate.net.loop import Loop
from imapgate.net.pools import Account
from imapgate.net.valve import Valve
from imapgate.net.watch import Dismissed, Watch
from imapgate.plugins.api import Plugin
from imapgate.session.deeds import Place
from imapgate.session.effects import (
    Granted,
    Identified,
    Judge,
    Judgement,
    LoggedIn,
    LoginFailed,
    Record,
    SendClient,
    SendUpstream,
    Side,
)
from imapgate.session.link import Link
from tests.net.asking import CLIENT
from tests.net.lending import login_of
from tests.net.watching import EVENTS, EVERYTHING, Disk, Oracle, watched
from tests.net.wires import Wire, bench

TLS = "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384"


class Seen:
    """A watch, and what it says."""

    def __init__(self, *plugins: Plugin, disk: Disk | None = None, via: str = "") -> None:
        self.made = watched(bench(), *plugins, disk=disk)
        self.watch = Watch(self.made.gate, CLIENT, via)
        self.words: list[bytes] = []

    def connects(self, tls: str | None = None) -> list[bytes]:
        """The client is there; the words that were said then."""
        self.watch.connected(CLIENT._replace(server_name="imap.example.org"), tls, self.words.append)
        return self.words

    def account(self, name: bytes = b"alice", user: bytes = b"alice") -> Account:
        """Whose session it is."""
        return Account(self.made.upstream, user, login_of(), name=name)

    def asks(self, coroutine: Any) -> list[Any]:
        """What comes of a question about a login: its answer, or the exception."""
        said: list[Any] = []
        Deferred.fromCoroutine(coroutine).addCallbacks(said.append, lambda reason: said.append(reason.value))
        return said

    def grants(self) -> Granted:
        """What the core is told of a login that is granted."""
        return self.watch.granted(Granted(Link(DEFAULTS)))


# --- nobody --------------------------------------------------------------------------------------------


def test_neither_plugins_nor_a_trail() -> None:
    """A watch with nobody behind it says yes to everything, and changes nothing."""
    seen = Seen()
    assert not seen.made.gate.watches
    assert seen.connects(TLS) == [b""]
    account = seen.account()
    for question in (
        seen.watch.refuses_login(Credentials(b"alice", Secret(b"pw"))),
        seen.watch.refuses_route(account),
        seen.watch.refuses_user(account),
    ):
        assert seen.asks(question) == [None]
    granted = seen.grants()
    assert (granted.interests, granted.auditing) == (None, None)
    assert seen.watch.mask(b"IMAP4rev1 IDLE") == b"IMAP4rev1 IDLE"
    assert seen.watch.unrecordable == ""
    seen.watch.reported(LoginFailed(b"alice", b"PLAIN", Failure.LOST), None)
    seen.watch.commit(Loop({}, None), [], pytest.fail)
    seen.watch.closed("client closed", 0, (0, 0))


def test_who_watches() -> None:
    """A gate watches its sessions where there are plugins, or a trail."""
    assert Seen(Oracle()).made.gate.watches
    assert Seen(disk=Disk()).made.gate.watches


# --- the beginning and the end --------------------------------------------------------------------------


def test_opened_once() -> None:
    """The session is opened once, whether TLS comes with it or later; TLS is asked about whenever it is up."""
    oracle, disk = Oracle(EVENTS), Disk()
    seen = Seen(oracle, disk=disk, via="198.51.100.9")
    assert seen.connects() == [b""]
    assert (oracle.asked, seen.watch.view.tls) == (["session_opened"], "")
    assert seen.connects(TLS) == [b"", b""]
    assert oracle.asked == ["session_opened", "tls_started"]
    assert (seen.watch.view.tls, seen.watch.view.server_name) == (TLS, "imap.example.org")
    assert disk.events == ["session.open ok"]
    assert disk.fields("session.open")["client.via"] == "198.51.100.9"
    seen.watch.record("search", "ok", {"search.found": 3, "listener": "its own"})
    fields = disk.fields("search")
    assert (fields["tls.protocol"], fields["tls.cipher"], fields["search.found"], fields["listener"]) == (
        "TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", 3, "its own",
    )  # fmt: skip


@pytest.mark.parametrize("hook", ["session_opened", "tls_started"])
def test_the_first_that_says_no_has_the_last_word(hook: str) -> None:
    """What would be asked behind it is asked no more."""
    oracle, disk = Oracle(EVENTS), Disk()
    oracle.verdicts = {hook: Disconnect("Out", "rule"), "tls_started": Disconnect("Out", "rule")}
    seen = Seen(oracle, disk=disk)
    assert seen.connects(TLS) == [b"Out"]
    assert oracle.asked == (["session_opened"] if hook == "session_opened" else ["session_opened", "tls_started"])
    assert disk.events == ["session.open ok", "policy.deny denied"]
    assert {**disk.fields("policy.deny")}.items() >= {
        "policy.plugin": "plugin1", "policy.rule": "rule", "policy.hook": oracle.asked[-1],
    }.items()  # fmt: skip


def test_annotations_let_it_pass() -> None:
    """A plugin that only has something to say of it lets the client in."""
    oracle = Oracle(EVENTS)
    oracle.verdicts["session_opened"] = Annotate({"country": "XX"})
    assert Seen(oracle).connects() == [b""]


def test_the_end() -> None:
    """The plugins are told why, and the record says how long it was and how much went each way."""
    oracle, disk = Oracle(EVENTS), Disk()
    seen = Seen(oracle, disk=disk)
    seen.connects()
    seen.made.clock.advance(1.23456789)
    seen.watch.closed("logout", 7, (100, 2000))
    assert oracle.closed == ["logout"]
    fields = disk.fields("session.close")
    assert {key: fields[key] for key in fields if key not in disk.fields("session.open")} == {
        "reason": "logout", "session.commands": 7, "session.octets_in": 100, "session.octets_out": 2000,
        "duration": 1.234568,
    }  # fmt: skip


def test_a51_a_verdict_after_the_end() -> None:
    """What a plugin says of a client that has gone is for nobody, and in no record."""
    oracle, disk = Oracle(EVENTS, "session_opened", "credentials"), Disk()
    seen = Seen(oracle, disk=disk)
    assert seen.connects() == []
    said = seen.asks(seen.watch.refuses_login(Credentials(b"alice", Secret(b"pw"))))
    seen.watch.closed("client closed", 0, (0, 0))
    oracle.says(Disconnect())
    assert (seen.words, said, oracle.asked) == ([], [], ["session_opened"])
    assert disk.events == ["session.open ok", "session.close ok"]


# --- logins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [Reject("LIMIT", "Later", "rule"), Disconnect("Out", "rule")])
def test_a_login_that_is_refused(verdict: Reject | Disconnect) -> None:
    """It is recorded at which hook, by whom and by which rule; the core is told, or the session is over."""
    oracle, disk = Oracle(EVENTS), Disk()
    oracle.verdicts["route_chosen"] = verdict
    seen = Seen(oracle, disk=disk)
    (said,) = seen.asks(seen.watch.refuses_route(seen.account()))
    if isinstance(verdict, Reject):
        assert (said.failure, said.text, said.code) == (Failure.POLICY, b"Later", b"LIMIT")
    else:
        assert isinstance(said, Dismissed)
        assert said.said == verdict
        assert str(said) == "Out"
    assert seen.watch.view.upstream == "mail"
    assert disk.events == ["policy.deny denied"]
    assert {**disk.fields("policy.deny")}.items() >= {
        "policy.plugin": "plugin1", "policy.rule": "rule", "policy.hook": "route_chosen",
    }.items()  # fmt: skip


def test_what_a_plugin_sees_of_the_user() -> None:
    """The gate's one name for it, as text whatever it is; it is nobody again where the login fails."""
    seen = Seen(Oracle(EVENTS))
    assert seen.asks(seen.watch.refuses_user(seen.account(name=b"al\xffice"))) == [None]
    assert seen.watch.view.user == "al\\xffice"
    seen.watch.reported(LoginFailed(b"alice", b"PLAIN", Failure.LIMIT), None)
    assert (seen.watch.view.user, seen.watch.view.upstream) == ("", "")


def test_plugins_of_some_users() -> None:
    """Whom a plugin does not concern it is not asked about, until the login of somebody else."""
    seen = Seen(Oracle())
    chain = seen.watch._chain
    assert chain is not None
    called: list[str] = []
    chain.authenticated = lambda: called.append("authenticated")  # type: ignore[method-assign]
    chain.refused = lambda: called.append("refused")  # type: ignore[method-assign]
    seen.asks(seen.watch.refuses_user(seen.account()))
    seen.watch.reported(LoginFailed(b"alice", b"PLAIN", Failure.POLICY), None)
    assert called == ["authenticated", "refused"]


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Failure.POLICY, "denied"),
        (Failure.CREDENTIALS, "no"),
        (Failure.LIMIT, "error"),
        (Failure.LOST, "error"),
        (Failure.UNRECORDED, "error"),
    ],
)
def test_failed_logins(failure: Failure, outcome: str) -> None:
    """A wrong password is a no, a plugin's refusal is denied, and all else is an error."""
    disk = Disk()
    Seen(disk=disk).watch.reported(LoginFailed(b"\xe9ve", b"XOAUTH2", failure), None)
    assert disk.events == [f"auth.failure {outcome}"]
    assert {**disk.fields("auth.failure")}.items() >= {
        "user.name": "\\xe9ve", "auth.mechanism": "XOAUTH2", "reason": failure.value,
    }.items()  # fmt: skip


@pytest.mark.parametrize(
    ("given", "user", "expected"),
    [
        (Credentials(b"alice", Secret(b"pw")), b"alice", {"user.name": "alice", "user.effective": "alice"}),
        (
            Credentials(b"root", Secret(b"pw"), b"alice"),
            b"alice@there",
            {"user.name": "root", "user.effective": "alice", "user.upstream": "alice@there"},
        ),
        (None, b"alice", {"user.name": "", "user.effective": "alice"}),
    ],
)
def test_who_it_is_and_who_acts(given: Credentials | None, user: bytes, expected: dict[str, str]) -> None:
    """The name that was given, the user acted as, and the name upstream where that is another; in all records."""
    disk = Disk()
    seen = Seen(disk=disk)
    seen.asks(seen.watch.refuses_login(given))
    seen.watch.reported(LoggedIn(b"alice", b"PLAIN"), seen.account(user=user))
    seen.watch.record("search", "ok", {})
    for event in ("auth.success", "search"):
        fields = disk.fields(event)
        assert {key: fields[key] for key in fields if key.startswith("user.")} == expected
        assert fields["upstream"] == "mail"
    assert disk.fields("auth.success")["auth.mechanism"] == "PLAIN"
    assert "pw" not in repr(disk.taken)


def test_a_login_of_nobody_is_not_recorded() -> None:
    """Where there is no account there was no login."""
    disk = Disk()
    Seen(disk=disk).watch.reported(LoggedIn(b"alice", b"PLAIN"), None)
    assert disk.events == []


def test_what_it_says_it_is() -> None:
    """What a client asserts of itself stays what it said first, unless it says something else; names are lower-case."""
    disk = Disk()
    seen = Seen(disk=disk)
    seen.watch.reported(Identified(((b"Name", b"Mail"), (b"VERSION", b"1"))), None)
    seen.watch.record("search", "ok", {})
    assert disk.fields("search")["client.asserted"] == {"name": "Mail", "version": "1"}
    assert seen.watch.view.client_id == {"name": "Mail", "version": "1"}
    seen.watch.reported(Identified(()), None)
    seen.watch.record("search", "ok", {})
    assert disk.fields("search")["client.asserted"] == {"name": "Mail", "version": "1"}
    assert seen.watch.view.client_id == {}
    assert disk.events == ["search ok", "search ok"]


# --- what the core is told -------------------------------------------------------------------------------


def test_what_is_watched() -> None:
    """The core hears of what concerns what passes; what the shell asks, and capabilities, are not its business."""
    granted = Seen(Oracle(EVERYTHING)).grants()
    assert granted.interests == EVERYTHING._replace(events=frozenset([Event.SELECTED]), capabilities=False)
    assert granted.auditing is None
    assert granted.mask(b"IMAP4rev1 IDLE X-SECRET") == b"IMAP4rev1 IDLE LITERAL+ SASL-IR ID"


@pytest.mark.parametrize(
    "interests",
    [
        Interests(capabilities=True),
        Interests(events=frozenset([Event.OPENED, Event.CLOSED])),
        Interests(capabilities=True, events=frozenset(Event) - {Event.SELECTED}),
    ],
)
def test_nothing_that_passes_is_of_interest(interests: Interests) -> None:
    """A session of which only the shell asks is relayed as if there were no plugin."""
    granted = Seen(Oracle(interests)).grants()
    assert granted.interests is None


def test_how_it_is_recorded() -> None:
    """The core hears how, where there is a trail."""
    seen = Seen(disk=Disk())
    assert seen.grants().auditing is seen.made.gate.auditing
    assert seen.grants().interests is None


@pytest.mark.parametrize("place", [None, Place("Sent", "Sent", read_only=True)])
def test_a_question_of_the_cores(place: Place | None) -> None:
    """A plugin sees where the session stands; its verdict comes back with whose it is, and what it notes."""
    oracle = Oracle(EVENTS)
    oracle.verdicts["mailbox_selected"] = Annotate({"colour": "red"})
    seen = Seen(oracle)
    said: list[Judgement] = []
    seen.watch.view.mailbox, seen.watch.view.read_only = "old", True
    seen.watch.judge(Judge(Side.UPSTREAM, "mailbox_selected", (None,)), place, said.append)
    (judgement,) = said
    assert judgement.side is Side.UPSTREAM
    assert dict(judgement.notes) == {"colour": "red"}
    assert (seen.watch.view.mailbox, seen.watch.view.read_only) == (("", False) if place is None else ("Sent", True))


# --- waiting for the disk -------------------------------------------------------------------------------


class Waiting:
    """A loop that waits for records to be on disk, and the valves that are held meanwhile."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.watch = Seen(disk=disk).watch
        self.wires = [Wire(), Wire()]
        self.valves = [Valve(wire) for wire in self.wires]
        self.done: list[Any] = []
        self.failed = 0
        self.loop = Loop(dict.fromkeys((SendClient, SendUpstream), Waiting._does) | {Record: Waiting._records}, self)

    def _does(self, effect: SendClient | SendUpstream) -> None:
        self.done.append(effect.data)

    def _records(self, effect: Record) -> None:
        self.watch.record(*effect)
        self.watch.commit(self.loop, self.valves, self._fails)

    def _fails(self) -> None:
        self.failed += 1
        self.loop.perform([SendClient(b"BYE")])

    def performs(self) -> None:
        """Record something, and tell of it."""
        self.loop.perform([Record("search", "ok", {}), SendUpstream(b"up"), SendClient(b"OK")])

    @property
    def paused(self) -> list[bool]:
        """Who is not read from."""
        return [wire.paused for wire in self.wires]


def test_it_waits_and_goes_on() -> None:
    """Neither side is read from while it waits, and both are when it goes on; other reasons stay what they are."""
    waiting = Waiting(Disk())
    waiting.performs()
    assert (waiting.done, waiting.paused) == ([], [True, True])
    waiting.disk.writes()
    assert (waiting.done, waiting.paused) == ([b"up", b"OK"], [False, False])
    waiting.performs()
    waiting.disk.writes()
    assert waiting.done == [b"up", b"OK"] * 2
    assert waiting.failed == 0


def test_it_does_not_wait_where_nothing_is_promised() -> None:
    """Where durability was not asked for the loop does not stand still."""
    waiting = Waiting(Disk(durable=False))
    waiting.performs()
    assert (waiting.done, waiting.paused) == ([b"up", b"OK"], [False, False])


@pytest.mark.parametrize("at_once", [False, True])
def test_f14_it_cannot_be_written(at_once: bool) -> None:
    """Nothing of what waited is sent to anybody, also where that is known at once; then it is said, once."""
    waiting = Waiting(Disk())
    if at_once:
        waiting.disk.failing = "full"
        waiting.performs()
    else:
        waiting.performs()
        waiting.disk.fails()
    assert (waiting.done, waiting.paused, waiting.failed) == ([b"BYE"], [False, False], 1)


def test_the_client_goes_meanwhile() -> None:
    """The valves are open at once, nothing that waited is sent, and nothing is waited for any more."""
    waiting = Waiting(Disk())
    waiting.performs()
    waiting.watch.gone(waiting.loop)
    assert (waiting.done, waiting.paused) == ([], [False, False])
    waiting.performs()
    assert waiting.done == [b"up", b"OK"]
    waiting.disk.writes()
    assert (waiting.done, waiting.failed) == ([b"up", b"OK"], 0)


def test_the_client_has_gone_and_the_disk_fails() -> None:
    """A trail that fails already is not asked, so that no failure is left unheard."""
    waiting = Waiting(Disk())
    waiting.watch.gone(waiting.loop)
    waiting.disk.failing = "full"
    waiting.performs()
    assert (waiting.done, waiting.failed) == ([b"up", b"OK"], 0)


def test_a_bug_of_the_trails(critical_events: list[LogEvent]) -> None:
    """It is logged as one; and since nobody knows what is on disk, nothing is told."""
    waiting = Waiting(Disk())
    waiting.performs()
    waiting.disk.waiting.pop().errback(RuntimeError("a bug"))
    assert (waiting.done, waiting.failed, waiting.paused) == ([b"BYE"], 1, [False, False])
    assert [event["log_failure"].getErrorMessage() for event in critical_events] == ["a bug"]
    critical_events.clear()


def test_unrecordable() -> None:
    """Why nothing can be recorded is the trail's to say."""
    disk = Disk()
    seen = Seen(disk=disk)
    assert seen.watch.unrecordable == ""
    disk.failing = "full"
    assert seen.watch.unrecordable == "full"
    (said,) = seen.asks(seen.watch.refuses_login(None))
    assert said.failure is Failure.UNRECORDED
