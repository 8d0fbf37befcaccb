"""All plugins of a configuration: whom they concern, how they are started, and what is told of them."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from imapgate.errors import ConfigurationError
from imapgate.plugins.api import (
    CONTINUE,
    Credentials,
    Disconnect,
    Event,
    Interests,
    Plugin,
    Reject,
    Replace,
    Route,
    Secret,
    Session,
)
from imapgate.plugins.runner import Judged
from tests.plugins.asking import Gate, loaded, plugin

EVERY_EVENT = Interests(verbs=None, events=frozenset(Event), capabilities=True)


def test_no_plugins() -> None:
    """Without plugins there is no chain."""
    gate = Gate()
    assert gate.chain is None
    assert gate.plugins.interests == Interests()
    assert gate.plugins.rows() == []


def test_interests_are_united() -> None:
    """What any plugin wants, the gate wants to know."""
    wanted = [
        Interests(verbs=frozenset(["NOOP"]), completions=frozenset(["NOOP"]), message=5),
        Interests(verbs=frozenset(["CHECK"]), responses=frozenset(["EXISTS"]), message=3, fetch=True),
        Interests(events=frozenset([Event.TLS]), capabilities=True),
    ]
    together = Interests(
        frozenset(["NOOP", "CHECK"]),
        frozenset(["NOOP"]),
        frozenset(["EXISTS"]),
        True,
        5,
        frozenset([Event.TLS]),
        True,
    )
    gate = Gate(*(loaded(plugin(one)) for one in wanted))
    assert gate.plugins.interests == gate.chain.interests == together
    for more in ([Interests(verbs=None), *wanted], [*wanted, Interests(verbs=None)]):
        assert Gate(*(loaded(plugin(one)) for one in more)).plugins.interests == together._replace(verbs=None)


# --- users ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "user", "concerned"),
    [
        (["auditor@*"], "auditor@example.org", True),
        (["auditor@*"], "auditor", False),
        (["auditor@*"], "my-auditor@example.org", False),
        (["auditor@*"], "AUDITOR@example.org", True),
        (["Auditor@*"], "auditor@example.org", True),
        (["a", "b?"], "bx", True),
        (["[ab]"], "c", False),
        (["auditor@*"], "", True),
        (None, "anybody", True),
    ],
)
def test_users(users: list[str] | None, user: str, concerned: bool) -> None:
    """A plugin concerns the users whose whole name fits, in any case of letters, and whoever hides it."""
    one = loaded(plugin(command=lambda *_: Reject()), users=None if users is None else tuple(users))
    gate = Gate(one, loaded(plugin(Interests(verbs=frozenset(["CHECK"])))), user=user)
    assert (gate.command()[0].verdict == Reject()) is concerned
    assert (gate.chain.interests.verbs is None) is concerned
    assert gate.row().get("asked", 0) == concerned


def test_nobody_concerned() -> None:
    """A session that concerns no plugin has no interests, and is asked about nothing."""
    gate = Gate(loaded(plugin(EVERY_EVENT), users=("auditor@*",)))
    assert gate.chain.interests == Interests()
    assert gate.command() == [Judged(CONTINUE, "", {})]
    assert gate.chain.capabilities(["IMAP4rev1"]) == ["IMAP4rev1"]


def _credentials(user: bytes, authorisation: bytes = b"") -> tuple[Any, ...]:
    return (Credentials(user, Secret(b"x"), authorisation),)


@pytest.mark.parametrize(
    ("hook", "arguments", "concerned"),
    [
        ("session_opened", (), True),
        ("tls_started", (), True),
        ("credentials", _credentials(b"auditor@example.org"), True),
        ("credentials", _credentials(b"admin", b"auditor@example.org"), True),
        ("credentials", _credentials(b"auditor@example.org", b"admin"), True),
        ("credentials", _credentials(b"admin"), False),
        ("credentials", _credentials(b"\xff"), False),
        ("route_chosen", (Route("main", "auditor@example.org", "session"),), True),
        ("route_chosen", (Route("main", "admin", "session"),), False),
        ("route_chosen", (Route("main", "", "session"),), True),
    ],
)
def test_users_before_the_login(hook: str, arguments: tuple[Any, ...], concerned: bool) -> None:
    """Before a login a plugin is asked what has no user, and what has one that concerns it."""
    gate = Gate(loaded(plugin(EVERY_EVENT), users=("auditor@*",)), user=None)
    gate.ask(hook, *arguments)
    assert gate.row().get("asked", 0) == concerned
    gate = Gate(loaded(plugin(EVERY_EVENT)), user=None)
    gate.ask(hook, *arguments)
    assert gate.row()["asked"] == 1


def test_users_after_a_login_that_was_refused() -> None:
    """A later login is asked about by its own user, whoever it was before."""
    gate = Gate(loaded(plugin(EVERY_EVENT), users=("auditor@*",)), user="alice")
    gate.ask("credentials", *_credentials(b"auditor@example.org"))
    gate.ask("route_chosen", Route("main", "auditor@example.org", "session"))
    assert gate.row()["asked"] == 2
    gate.session.user = "auditor@example.org"
    gate.chain.authenticated()
    gate.ask("credentials", *_credentials(b"alice"))
    assert gate.row()["asked"] == 2


def test_a_route_of_a_known_user() -> None:
    """A route concerns whom its user's name, or the session's, concerns."""
    gate = Gate(loaded(plugin(EVERY_EVENT), users=("auditor@*",)), user=None)
    gate.session.user = "auditor@example.org"
    gate.ask("route_chosen", Route("main", "a17", "session"))
    assert gate.row()["asked"] == 1


def test_whoever_saw_the_beginning_sees_the_end() -> None:
    """The end of a session is told to those whom it concerns, and to those who were told of its beginning."""

    def gate(user: str | None) -> list[int]:
        asked = Gate(
            loaded(plugin(Interests(events=frozenset([Event.CLOSED]))), users=("auditor@*",)),
            loaded(plugin(Interests(events=frozenset([Event.OPENED, Event.CLOSED]))), users=("auditor@*",)),
            loaded(plugin(Interests(events=frozenset([Event.CLOSED])))),
            loaded(plugin(Interests(events=frozenset([Event.OPENED])))),
            user=user,
        )
        asked.chain.close()
        return [row["asked"] for row in asked.plugins.rows()]  # type: ignore[misc]

    assert gate("auditor@example.org") == [1, 1, 1, 0]
    assert gate("alice") == [0, 1, 1, 0]
    assert gate(None) == [1, 1, 1, 0]


def test_sessions_of_one_kind_share() -> None:
    """Sessions that concern the same plugins share what is known of that."""
    gate = Gate(loaded(plugin(), users=("a*",)), loaded(plugin()))
    assert gate.connect("alice")[1].interests is gate.connect("anna")[1].interests
    assert gate.connect("alice")[1].interests is not gate.connect("bob")[1].interests


# --- capabilities -----------------------------------------------------------------------------------------------------

SHOWN = ["IMAP4rev1", "AUTH=PLAIN", "MOVE"]


def _capability(method: Any, **common: Any) -> Any:
    return loaded(plugin(Interests(capabilities=True), capabilities=method), **common)


def test_capabilities() -> None:
    """One plugin after the other changes the list; those that do not want to are not asked."""
    gate = Gate(
        _capability(lambda session, names: [*names, "X-ONE"]),
        loaded(plugin(capabilities=lambda session, names: [])),
        _capability(lambda session, names: [name for name in names if name != "MOVE"]),
    )
    assert gate.chain.capabilities(SHOWN) == ("IMAP4rev1", "AUTH=PLAIN", "X-ONE")
    assert [row["asked"] for row in gate.plugins.rows()] == [1, 0, 1]


def test_capabilities_before_the_login() -> None:
    """Before a login nobody knows whom a plugin with users would concern."""
    gate = Gate(_capability(lambda session, names: [], users=("a*",)), user=None)
    assert gate.chain.capabilities(SHOWN) == SHOWN
    assert not gate.chain.interests.capabilities
    gate.session.user = "alice"
    gate.chain.authenticated()
    assert gate.chain.capabilities(SHOWN) == ()
    assert gate.chain.interests.capabilities


async def _coroutine(session: object, names: object) -> Any:
    """No list."""


def _raise(*_: object) -> Any:
    raise RuntimeError


@pytest.mark.parametrize("method", [_raise, _coroutine, lambda *_: Deferred(), lambda *_: "MOVE", lambda *_: ["A\r\n"]])
@pytest.mark.parametrize(("policy", "left"), [("open", SHOWN), ("closed", SHOWN[:2])])
def test_f19_capabilities(method: Any, policy: str, left: list[str]) -> None:
    """Where a plugin fails over the list, that is as it was, or has what a login needs alone; in the pause, too."""
    gate = Gate(_capability(method, on_error=policy, failures=2))
    assert [list(gate.chain.capabilities(SHOWN)) for _ in range(3)] == [left] * 3
    assert gate.row() == {"asked": 2, "errors": 2, "skipped": 1, "breaker": "open"}
    assert [fault.hook for fault in gate.faults] == ["capabilities"] * 3
    gate.clock.advance(30.0)
    gate.chain.capabilities(SHOWN)
    assert gate.row()["asked"] == 3


def test_a_list_ends_the_row() -> None:
    """Failures are in a row only as long as no list comes between them."""
    answers = iter([None, SHOWN] * 3)
    gate = Gate(_capability(lambda *_: next(answers), failures=2))
    for _ in range(6):
        gate.chain.capabilities(SHOWN)
    assert gate.row() == {"asked": 6, "errors": 3}


# --- start and stop ---------------------------------------------------------------------------------------------------


def _starting(name: str, said: list[str], start: Any = None) -> Any:
    def begin(clock: object) -> Any:
        said.append(f"{name} starts")
        return start and start()

    return loaded(plugin(start=begin, stop=lambda: said.append(f"{name} stops")), name)


def test_start_and_stop() -> None:
    """Plugins are started in their order, with the clock, and stopped the other way round."""
    said: list[str] = []
    clocks: list[object] = []
    gate = Gate(_starting("one", said), _starting("two", said), loaded(plugin(start=clocks.append)))
    gate.plugins.start()
    gate.plugins.stop()
    assert said == ["one starts", "two starts", "two stops", "one stops"]
    assert clocks == [gate.clock]


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (_raise, "RuntimeError"),
        (lambda: _coroutine(0, 0), "TypeError: start is a coroutine, and nobody would wait for it"),
    ],
)
def test_f19_start_fails(start: Any, why: str) -> None:
    """Where one does not start, those before it are stopped again, and it is said why."""
    said: list[str] = []
    gate = Gate(_starting("one", said), _starting("two", said), _starting("bad", said, start), _starting("four", said))
    with pytest.raises(ConfigurationError) as caught:
        gate.plugins.start()
    assert caught.value.problems[0].startswith(f"the plugin bad does not start: {why}")
    assert said == ["one starts", "two starts", "bad starts", "two stops", "one stops"]


def test_coroutines_nobody_waits_for() -> None:
    """A coroutine where none can be waited for is closed, so that Python does not complain of it."""
    made: list[Any] = []

    def method(*_: object) -> Any:
        made.append(_coroutine(0, 0))
        return made[-1]

    interests = Interests(verbs=None, capabilities=True)
    gate = Gate(loaded(plugin(interests, start=method, capabilities=method, command=method, threaded=True)))
    with pytest.raises(ConfigurationError):
        gate.plugins.start()
    gate.chain.capabilities(SHOWN)
    gate.command()
    gate.run()
    assert [coroutine.cr_frame for coroutine in made] == [None] * 3


def test_f19_stop_fails() -> None:
    """Where one does not stop, the others are stopped all the same."""
    said: list[str] = []
    gate = Gate(_starting("one", said), loaded(plugin(stop=_raise), "bad"), _starting("three", said))
    gate.plugins.stop()
    assert said == ["three stops", "one stops"]
    assert [fault[:4] for fault in gate.faults] == [("bad", "", "stop", "error")]


# --- what is told -----------------------------------------------------------------------------------------------------


def test_rows() -> None:
    """An operator sees what each plugin was asked, and how it did."""
    answers = [Reject(), Disconnect(), Replace(b"NOOP"), "junk", Deferred(), None]
    left = iter(answers)
    gate = Gate(loaded(plugin(command=lambda *_: next(left)), "one"), loaded(plugin(), "two"))
    for _ in answers:
        gate.command("CHECK")
        gate.clock.advance(5.0)
    assert gate.plugins.rows() == [
        {
            "plugin": "one",
            "asked": 6,
            "rejected": 2,
            "errors": 1,
            "timeouts": 1,
            "skipped": 0,
            "breaker": "closed",
        },
        {"plugin": "two", "asked": 2, "rejected": 0, "errors": 0, "timeouts": 0, "skipped": 0, "breaker": "closed"},
    ]


def test_states_of_a_session() -> None:
    """Each plugin keeps what it wants of a session, and sees nobody else's."""
    one, two = plugin(), plugin()
    session = Session("s1")
    session.state(one)["x"] = 1
    assert (session.state(one), session.state(two)) == ({"x": 1}, {})


def test_a_plugin_that_does_nothing() -> None:
    """What a plugin leaves out lets everything pass."""
    nothing = plugin(EVERY_EVENT._replace(fetch=True, message=1))
    nothing.start(None)
    nothing.stop()
    assert nothing.capabilities(Session("s1"), SHOWN) == SHOWN
    for hook in ("session_opened", "tls_started", "authenticated"):
        assert getattr(Plugin, hook)(nothing, Session("s1")) is None
    for hook in ("credentials", "route_chosen", "command", "message_ends", "mailbox_selected", "untagged"):
        assert getattr(Plugin, hook)(nothing, Session("s1"), None) is None
    for hook in ("message_begins", "message_chunk", "completed"):
        assert getattr(Plugin, hook)(nothing, Session("s1"), None, None) is None
    assert Plugin.fetch_item(nothing, Session("s1"), None) is None  # type: ignore[arg-type]
    assert Plugin.session_closed(nothing, Session("s1"), "") is None  # type: ignore[func-returns-value]
