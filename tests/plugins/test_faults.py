"""F19: a plugin raises, hangs, answers junk; its policy holds, it is counted, and the others go on."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import LogEvent, globalLogPublisher

from imapgate.model.passing import Completion
from imapgate.plugins.api import (
    CONTINUE,
    Annotate,
    Credentials,
    Disconnect,
    Event,
    Interests,
    Reject,
    Replace,
    Secret,
)
from imapgate.plugins.place import HANGING_MOST
from tests.plugins.asking import Gate, command, loaded, plugin

REFUSED = {kind: Reject("", "Refused", kind) for kind in ("error", "timeout", "junk", "breaker")}


@pytest.fixture(autouse=True)
def _nothing_unhandled() -> Any:
    """No failure of a plugin is left for the garbage collector to complain of."""
    said: list[LogEvent] = []
    globalLogPublisher.addObserver(said.append)
    yield
    gc.collect()
    globalLogPublisher.removeObserver(said.append)
    assert said == []


def _raise(*arguments: object) -> Any:
    raise RuntimeError("out of order")


def _exit(*arguments: object) -> Any:
    raise SystemExit(3)


async def _raise_later(*arguments: object) -> Any:
    await succeed(None)
    raise RuntimeError("out of order")


FAILS: list[tuple[str, Callable[..., Any], str]] = [
    ("raises", _raise, "error"),
    ("exits", _exit, "error"),
    ("raises in a coroutine", _raise_later, "error"),
    ("fails", lambda *_: fail(RuntimeError("out of order")), "error"),
    ("is no method", lambda: None, "error"),
    ("junk", lambda *_: "NO", "junk"),
    ("junk in a Deferred", lambda *_: succeed(False), "junk"),
    ("CR and LF", lambda *_: Reject("", "x\r\na2 OK done"), "junk"),
    ("CR and LF in a code", lambda *_: succeed(Reject("X\r\n")), "junk"),
    ("no command", lambda *_: Replace(b"FROBNICATE"), "junk"),
    ("two commands", lambda *_: Replace(b"NOOP\r\na2 NOOP"), "junk"),
]


@pytest.mark.parametrize(("how", "method", "kind"), FAILS, ids=[row[0] for row in FAILS])
@pytest.mark.parametrize("policy", ["closed", "open"])
def test_f19_policies(how: str, method: Callable[..., Any], kind: str, policy: str) -> None:
    """What fails is refused, or passes, as the policy says; it is reported and counted."""
    asked: list[object] = []
    other = loaded(plugin(command=lambda session, command: asked.append(command)), "other")
    gate = Gate(loaded(plugin(command=method, on_error=policy, on_timeout="closed"), "faulty"), other)
    [judged] = gate.command()
    assert judged.verdict == (REFUSED[kind] if policy == "closed" else CONTINUE)
    assert judged.by == ("faulty" if policy == "closed" else "")
    assert len(asked) == (policy == "open")
    [fault] = gate.faults
    assert (fault.plugin, fault.session_id, fault.hook, fault.kind) == ("faulty", "s1", "command", kind)
    assert gate.row() == {"asked": 1, "errors": 1}


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_f19_hangs(policy: str) -> None:
    """Who takes too long is not waited for, and told to stop; the policy for that holds."""
    cancelled: list[object] = []
    hangs = plugin(command=lambda *_: Deferred(cancelled.append), on_error="closed", on_timeout=policy)
    gate = Gate(loaded(hangs, timeout=7.0))
    said = gate.command()
    gate.clock.advance(6.9)
    assert said == []
    gate.clock.advance(0.1)
    assert [judged.verdict for judged in said] == [REFUSED["timeout"] if policy == "closed" else CONTINUE]
    assert len(cancelled) == 1
    assert gate.row() == {"asked": 1, "timeouts": 1}
    assert gate.faults[0][2:] == ("command", "timeout", "no answer within 7 seconds")
    assert gate.clock.getDelayedCalls() == []


def test_f19_others_go_on() -> None:
    """While one session's plugin hangs, another session is answered."""
    gate = Gate(loaded(plugin(command=lambda session, _: Deferred() if session.user == "alice" else None)))
    hanging = gate.command()
    gate.session, gate.chain = gate.connect("bob")
    assert [judged.verdict for judged in gate.command()] == [CONTINUE]
    assert hanging == []


@pytest.mark.parametrize("late", [Reject(), RuntimeError("too late"), None], ids=repr)
def test_a51_late_answers(late: Any) -> None:
    """What comes after the time is over, or the session, changes nothing and is no unhandled error."""
    answers: list[Deferred[Any]] = []

    async def hang(*_: object) -> Any:
        answers.append(Deferred())
        try:
            await Deferred()
        except CancelledError:
            return await answers[-1]

    gate = Gate(loaded(plugin(command=hang)))
    said = gate.command()
    gate.clock.advance(5.0)
    given_up = gate.command()
    gate.chain.close()
    for deferred in answers:
        deferred.callback(late) if not isinstance(late, Exception) else deferred.errback(late)
    assert len(answers) == 2
    assert [judged.verdict for judged in said] == [REFUSED["timeout"]]
    assert given_up == []
    assert gate.kinds() == ["timeout"]
    assert gate.row() == {"asked": 2, "timeouts": 1}
    assert gate.clock.getDelayedCalls() == []


def test_a_canceller_that_raises() -> None:
    """A plugin whose work cannot be stopped without a noise is reported once more, and that is all."""
    gate = Gate(loaded(plugin(command=lambda *_: Deferred(_raise))))
    said = gate.command()
    gate.clock.advance(5.0)
    assert [judged.verdict for judged in said] == [REFUSED["timeout"]]
    assert gate.kinds() == ["timeout", "error"]


def test_one_deferred_for_many() -> None:
    """A Deferred that a plugin returns again and again says the same each time; a failure never becomes consent."""
    shared: dict[str, Deferred[Any]] = {"good": succeed(Reject()), "bad": fail(RuntimeError("no"))}
    which = "good"
    gate = Gate(loaded(plugin(command=lambda *_: shared[which])))
    assert [gate.command()[0].verdict for _ in range(3)] == [Reject()] * 3
    which = "bad"
    assert [gate.command()[0].verdict for _ in range(3)] == [REFUSED["error"], REFUSED["junk"], REFUSED["junk"]]


def test_f19_where_nothing_is_answered() -> None:
    """Where nothing can be refused any more, a plugin that fails closed ends the session."""
    interests = Interests(completions=frozenset(["NOOP"]), events=frozenset([Event.OPENED]))
    gate = Gate(loaded(plugin(interests, session_opened=_raise, completed=_raise)), user=None)
    assert gate.ask("session_opened")[0].verdict == Disconnect("Refused", "error")
    assert gate.ask("completed", command("NOOP"), Completion("OK", "", ""))[0].verdict == Disconnect("Refused", "error")


def test_f19_breaker() -> None:
    """After failures in a row a plugin is not asked for a while, then once; its policy for failures holds meanwhile."""
    works = False
    gate = Gate(loaded(plugin(command=lambda *_: None if works else _raise()), failures=3, pause=30.0))
    assert [gate.command()[0].verdict for _ in range(5)] == [REFUSED["error"]] * 3 + [REFUSED["breaker"]] * 2
    assert gate.kinds() == ["error", "error", "error", "breaker"]
    assert gate.faults[-1].text == "3 failures in a row; it is not asked for 30 seconds"
    assert gate.row() == {"asked": 3, "errors": 3, "skipped": 2, "breaker": "open"}
    gate.clock.advance(30.0)
    assert [gate.command()[0].verdict for _ in range(2)] == [REFUSED["error"], REFUSED["breaker"]]
    assert gate.kinds()[4:] == ["error"]
    gate.clock.advance(30.0)
    works = True
    assert [gate.command()[0].verdict for _ in range(2)] == [CONTINUE] * 2
    assert gate.row() == {"asked": 6, "errors": 4, "skipped": 3}


@pytest.mark.parametrize("answer", [None, CONTINUE, Annotate({}), succeed(None)], ids=repr)
def test_an_answer_ends_the_row(answer: Any) -> None:
    """Failures are in a row only as long as no answer comes between them."""
    answers = iter([_raise, lambda: answer] * 5)
    gate = Gate(loaded(plugin(command=lambda *_: next(answers)()), failures=2))
    for _ in range(10):
        gate.command()
    assert gate.row() == {"asked": 10, "errors": 5}


def test_junk_is_a_failure_in_a_row() -> None:
    """What cannot be acted on counts as a failure, though it came in time."""
    gate = Gate(loaded(plugin(command=lambda *_: Replace(b"FROBNICATE")), failures=2))
    assert [gate.command()[0].verdict for _ in range(3)] == [REFUSED["junk"], REFUSED["junk"], REFUSED["breaker"]]


def test_a_try_whose_session_ends() -> None:
    """Where the session of the one question after the pause ends, the next session's goes through."""
    answers = iter([fail(RuntimeError()), Deferred(), succeed(None)])
    gate = Gate(loaded(plugin(command=lambda *_: next(answers)), failures=1))
    gate.command()
    gate.clock.advance(30.0)
    assert gate.command() == []
    gate.chain.close()
    gate.session, gate.chain = gate.connect("bob")
    assert gate.command()[0].verdict is CONTINUE


# --- threads ----------------------------------------------------------------------------------------------------------


def test_threads() -> None:
    """A plugin that blocks is called in a thread; its answer is waited for, and an error is one."""
    answers: list[Callable[[], Any]] = [lambda: Reject("", "No"), _raise, lambda: None]
    gate = Gate(loaded(plugin(command=lambda *_: answers.pop(0)(), threaded=True)))
    said = [gate.command(), gate.command(), gate.command()]
    assert len(answers) == 3
    for _ in range(3):
        gate.run()
    assert [judged.verdict for [judged] in said] == [Reject("", "No"), REFUSED["error"], CONTINUE]
    assert gate.row() == {"asked": 3, "rejected": 1, "errors": 1}
    assert gate.clock.getDelayedCalls() == []


async def _coroutine(*_: object) -> None:
    """No method for a thread."""


@pytest.mark.parametrize("method", [_coroutine, lambda *_: succeed(None)])
def test_threads_do_not_wait(method: Callable[..., Any]) -> None:
    """What only the reactor could wait for is an error in a thread."""
    gate = Gate(loaded(plugin(command=method, threaded=True)))
    said = gate.command()
    gate.run()
    assert said[0].verdict == REFUSED["error"]
    assert "TypeError: a plugin that is threaded returns verdicts; got " in gate.faults[0].text


def test_f19_threads_hang() -> None:
    """A plugin whose threads hang is given no more of them until one is done; what never began does not begin."""
    begun: list[object] = []
    gate = Gate(loaded(plugin(command=lambda *_: begun.append(1), threaded=True), failures=1000))
    for _ in range(HANGING_MOST):
        gate.command()
        gate.clock.advance(5.0)
    assert len(gate.threads) == HANGING_MOST
    assert gate.command()[0].verdict == REFUSED["breaker"]
    assert gate.kinds() == ["timeout"] * HANGING_MOST + ["breaker"]
    assert gate.faults[-1].text == "8 of its threads hang; it is not asked until one of them is done"
    gate.run()
    assert begun == []
    said = gate.command()
    gate.run(-1)
    assert said[0].verdict is CONTINUE
    assert begun == [1]


def test_threads_of_sessions_that_end() -> None:
    """A thread of a session that has ended hangs like any other."""
    gate = Gate(loaded(plugin(command=_raise, threaded=True)))
    for _ in range(HANGING_MOST):
        gate.command()
        gate.chain.close()
        gate.session, gate.chain = gate.connect("bob")
    assert gate.kinds() == ["breaker"]
    for _ in range(HANGING_MOST):
        gate.run()
    assert gate.command() == []
    assert gate.kinds() == ["breaker"]


# --- what is told of it -----------------------------------------------------------------------------------------------


def test_faults_say_where() -> None:
    """An error is told with what it says, on one line, and the line of the plugin's module."""

    class Mine(type(plugin())):  # type: ignore[misc]
        interests = Interests(verbs=None)

        def command(self, session: object, command: object) -> None:
            raise RuntimeError("out\nof\x1b order" + "!" * 400)

    gate = Gate(loaded(Mine(None)))
    gate.command()
    text = gate.faults[0].text
    assert text.startswith("RuntimeError: out of  order!!!")
    assert text.endswith(f" ({__name__}, line {Mine.command.__code__.co_firstlineno + 1})")
    assert len(text) < 400


@pytest.mark.parametrize("hook", ["credentials", "authenticated", "message_chunk", "message_ends"])
def test_a40_faults_tell_no_secrets(hook: str) -> None:
    """Where a plugin is shown what no log may hold, only the type of an error is told."""

    def leak(*what: Any) -> Any:
        raise RuntimeError("canary")

    interests = Interests(message=100, events=frozenset([Event.CREDENTIALS, Event.AUTHENTICATED]))
    gate = Gate(loaded(plugin(interests, **{hook: leak})), user=None)
    arguments: tuple[Any, ...] = (None, b"canary")
    if hook == "credentials":
        arguments = (Credentials(b"alice", Secret(b"canary")),)
    elif hook != "message_chunk":
        arguments = (None,) if hook == "message_ends" else ()
    assert gate.ask(hook, *arguments)[0].verdict == REFUSED["error"]
    assert "canary" not in repr(gate.faults)
    assert gate.faults[0].text.startswith("RuntimeError")
