"""One plugin where it stands in the configuration: whatever it does, a question to it gets one answer in time.

Knows how a method may answer (plainly, by a coroutine or a Deferred, in a thread), how long it may take, and what holds
when it fails (THREATS F19).  It knows no other plugin, and not what comes of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import CoroutineType
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from imapgate.model.verdict import CONTINUE, Disconnect, Reject, Verdict
from imapgate.plugins.api import Session
from imapgate.plugins.breaker import Breaker
from imapgate.plugins.checking import Junk, checked, checked_capabilities, least_capabilities, refusal
from imapgate.plugins.loading import Loaded
from imapgate.plugins.raised import described

HANGING_MOST = 8
"""Threads in which a plugin may hang before it is given no more."""

_PRIVATE = frozenset(["credentials", "route_chosen", "authenticated", "message_chunk", "message_ends"])
"""Hooks that are shown what no log may hold, and all of a login; of an exception there only its type is told."""

DeferToThread = Callable[..., Deferred[Any]]
"""Calls its first argument with all others, in a thread."""
Parse = Callable[[bytes], object]


class PluginFault(NamedTuple):
    """A plugin has failed.

    :ivar kind: ``error``, ``timeout``, ``junk`` (what it answered cannot be acted on), or ``breaker``: it has failed
        so often that it is not asked for a while
    :ivar text: for the operator; it holds no secret
    """

    plugin: str
    session_id: str
    hook: str
    kind: str
    text: str


class Call:
    """A question that a plugin has not answered yet.

    :ivar over: it is answered, or nobody waits for that any more: what comes later changes nothing (THREATS A51)
    :ivar answer: what it was, or the Failure instead of one
    """

    __slots__ = ("_deferred", "_place", "_timer", "answer", "hook", "over", "parse", "session", "then")

    def __init__(
        self, place: Place, session: Session, hook: str, parse: Parse | None, then: Callable[[Verdict], None]
    ) -> None:
        self.session = session
        self.hook = hook
        self.parse = parse
        self.then = then
        self.over = False
        self.answer: object = None
        self._place = place
        self._timer: IDelayedCall | None = None
        self._deferred: Deferred[Any] | None = None

    def wait(self, deferred: Deferred[Any], clock: IReactorTime, seconds: float) -> None:
        """Wait so long, unless the answer is there already."""
        deferred.addBoth(self._answered)
        if not self.over:
            self._deferred = deferred
            self._timer = clock.callLater(seconds, self._timed_out)

    def give_up(self) -> None:
        """Nobody wants the answer any more."""
        assert self._timer is not None
        self._timer.cancel()
        self.over = True
        self._place.given_up()
        self._leave()

    def _answered(self, answer: object) -> object:
        if self.over:
            self._place.late()
        else:
            self.over = True
            self.answer = answer
            if self._timer is not None:
                self._timer.cancel()
                self.then(self._place.heard(self))
        # A plugin may return one Deferred many times: a failure must not become None, which would let all pass.
        return answer.value if isinstance(answer, Failure) else answer

    def _timed_out(self) -> None:
        self.over = True
        verdict = self._place.timed_out(self)
        self._leave()
        self.then(verdict)

    def _leave(self) -> None:
        """Tell whatever is still at it to stop."""
        assert self._deferred is not None
        self._place.leave(self, self._deferred)


class Place:
    """One plugin, asked, timed and counted.

    :param number: where it stands, from 0
    :param report: told of every failure
    """

    def __init__(
        self,
        number: int,
        loaded: Loaded,
        clock: IReactorTime,
        defer_to_thread: DeferToThread,
        report: Callable[[PluginFault], None],
    ) -> None:
        self.number = number
        self.name = loaded.name
        self.plugin = loaded.plugin
        self.interests = loaded.interests
        self.for_everyone = loaded.users is None
        self._users = [pattern.casefold() for pattern in loaded.users or ()]
        self._loaded = loaded
        self._threaded = loaded.threaded
        self._clock = clock
        self._defer_to_thread = defer_to_thread
        self._report = report
        self._breaker = Breaker(loaded.failures, loaded.pause)
        self._hanging = 0
        self._asked = self._rejected = self._errors = self._timeouts = self._skipped = 0

    def concerns(self, users: Iterable[str]) -> bool:
        """Whether it is to be asked about somebody who has one of these names.

        Upper and lower case are the same, as they are to many servers; and who has no name that is known here might
        be anybody (a relayed mechanism hides it).
        """
        return self.for_everyone or any(
            not user or any(fnmatchcase(user.casefold(), pattern) for pattern in self._users) for user in users
        )

    def ask(
        self,
        session: Session,
        hook: str,
        method: Callable[..., Any],
        arguments: tuple[object, ...],
        parse: Parse | None,
        then: Callable[[Verdict], None],
    ) -> Verdict | Call:
        """Ask it; return what it says, or the call that is under way: its verdict will be told to ``then``."""
        if (self._breaker.open or self._hanging >= HANGING_MOST) and not self._admits():
            return self._policy(hook, self._loaded.on_error, "breaker")
        self._asked += 1
        if self._threaded:
            call = Call(self, session, hook, parse, then)
            answer: Any = self._defer_to_thread(_in_thread, call, method, session, arguments)
        else:
            try:
                answer = method(session, *arguments)
            except BaseException as error:  # also SystemExit: it ends nothing here
                return self._failed(session, hook, "error", self._described(hook, error))
            if answer is None:
                if self._breaker.row:
                    self._breaker.succeeded()
                return CONTINUE
            call = Call(self, session, hook, parse, then)
            if isinstance(answer, CoroutineType):
                answer = Deferred.fromCoroutine(answer)
        if isinstance(answer, Deferred):
            call.wait(answer, self._clock, self._loaded.timeout)
            return self.heard(call) if call.over else call
        call.answer = answer
        return self.heard(call)

    def capabilities(self, session: Session, names: Sequence[str]) -> Sequence[str]:
        """Return the capabilities as it would have them."""
        if self._breaker.open and not self._admits():
            return self._capabilities_without(names)
        self._asked += 1
        try:
            answer = self.plugin.capabilities(session, tuple(names))
            if isinstance(answer, CoroutineType):
                answer.close()
            names = checked_capabilities(answer)
        except Junk as junk:
            self._failed(session, "capabilities", "junk", str(junk))
        except BaseException as error:
            self._failed(session, "capabilities", "error", self._described("capabilities", error))
        else:
            self._breaker.succeeded()
            return names
        return self._capabilities_without(names)

    def heard(self, call: Call) -> Verdict:
        """Return the verdict in an answer."""
        answer = call.answer
        if isinstance(answer, Failure):
            assert answer.value is not None
            return self._failed(call.session, call.hook, "error", self._described(call.hook, answer.value))
        try:
            verdict = checked(call.hook, answer, call.parse)
        except Junk as junk:
            return self._failed(call.session, call.hook, "junk", str(junk))
        self._breaker.succeeded()
        if isinstance(verdict, Reject | Disconnect):
            self._rejected += 1
        return verdict

    def timed_out(self, call: Call) -> Verdict:
        """Return the verdict of a plugin that takes too long."""
        text = f"no answer within {self._loaded.timeout:g} seconds"
        return self._failed(call.session, call.hook, "timeout", text)

    def given_up(self) -> None:
        """Nobody waits for an answer of it any more."""
        self._breaker.given_up()

    def leave(self, call: Call, deferred: Deferred[Any]) -> None:
        """Stop what works on an answer that nobody waits for; a thread cannot be stopped, and is counted."""
        if self._threaded:
            self._hanging += 1
            if self._hanging == HANGING_MOST:
                text = f"{HANGING_MOST} of its threads hang; it is not asked until one of them is done"
                self._tell(call.session, call.hook, "breaker", text)
            return
        try:
            deferred.cancel()
        except Exception as error:
            self._errors += 1
            self._tell(call.session, call.hook, "error", self._described(call.hook, error))

    def late(self) -> None:
        """An answer has come that nobody waits for."""
        if self._threaded:
            self._hanging -= 1

    def row(self) -> Mapping[str, str | int]:
        """Return what an operator wants to know of it."""
        return {
            "plugin": self.name,
            "asked": self._asked,
            "rejected": self._rejected,
            "errors": self._errors,
            "timeouts": self._timeouts,
            "skipped": self._skipped,
            "breaker": self._breaker.state,
        }

    def start(self) -> None:
        """Start it; whatever it raises is for the caller."""
        answer = self.plugin.start(self._clock)
        if isinstance(answer, CoroutineType):
            answer.close()
            raise TypeError("start is a coroutine, and nobody would wait for it")

    def stop(self) -> None:
        """Stop it, whatever it says to that."""
        try:
            self.plugin.stop()
        except Exception as error:
            self._errors += 1
            self._report(PluginFault(self.name, "", "stop", "error", self._described("stop", error)))

    def _admits(self) -> bool:
        if self._hanging < HANGING_MOST and self._breaker.admits(self._clock.seconds()):
            return True
        self._skipped += 1
        return False

    def _failed(self, session: Session, hook: str, kind: str, text: str) -> Verdict:
        on = self._loaded.on_error
        if kind == "timeout":
            self._timeouts += 1
            on = self._loaded.on_timeout
        else:
            self._errors += 1
        self._tell(session, hook, kind, text)
        if self._breaker.failed(self._clock.seconds()):
            text = f"{self._breaker.row} failures in a row; it is not asked for {self._loaded.pause:g} seconds"
            self._tell(session, hook, "breaker", text)
        return self._policy(hook, on, kind)

    def _policy(self, hook: str, on: str, rule: str) -> Verdict:
        return CONTINUE if on == "open" else refusal(hook, rule)

    def _capabilities_without(self, names: Sequence[str]) -> Sequence[str]:
        return names if self._loaded.on_error == "open" else least_capabilities(names)

    def _tell(self, session: Session, hook: str, kind: str, text: str) -> None:
        self._report(PluginFault(self.name, session.id, hook, kind, text))

    def _described(self, hook: str, error: BaseException) -> str:
        return described(error, type(self.plugin).__module__, private=hook in _PRIVATE)


def _in_thread(call: Call, method: Callable[..., Any], session: Session, arguments: tuple[object, ...]) -> object:
    """Call a method that may block; what has waited too long for a thread is not begun."""
    if call.over:
        return None
    answer = method(session, *arguments)
    if isinstance(answer, CoroutineType):
        answer.close()
    if isinstance(answer, CoroutineType | Deferred):
        raise TypeError(f"a plugin that is threaded returns verdicts; got {type(answer).__name__}")
    return answer
