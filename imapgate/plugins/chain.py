"""One session's questions to the plugins: strictly one after the other, whatever they await (THREATS A26).

Knows what the plugins' verdicts mean together.  It knows no IMAP: what is put in a command's place is read by who
asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from imapgate.model.secret import Credentials
from imapgate.model.verdict import CONTINUE, Annotate, Interests, Replace, Verdict
from imapgate.plugins.api import Route, Session
from imapgate.plugins.checking import NO_NOTES
from imapgate.plugins.place import Call, Parse, Place
from imapgate.plugins.table import Step, Table


class Judged(NamedTuple):
    """What the plugins say together.

    :ivar verdict: Continue, Reject, Replace, Answer or Disconnect
    :ivar by: the plugin that had the last word; empty: it passes as it is
    :ivar notes: what all that were asked want to be recorded
    """

    verdict: Verdict
    by: str = ""
    notes: Mapping[str, str | int | bool] = NO_NOTES


_PASSES = Judged(CONTINUE)


class _Question(NamedTuple):
    hook: str
    arguments: tuple[Any, ...]
    then: Callable[[Judged], None]
    parse: Parse | None


class Chain:
    """What one session asks the plugins.

    :param before: whom to ask before the login
    :param after: returns whom to ask about a user who is logged in
    """

    def __init__(self, session: Session, before: Table, after: Callable[[str], Table]) -> None:
        self._session = session
        self._before = self._table = before
        self._after = after
        self._closed = False
        self._queue: deque[_Question] = deque()
        self._seen = 0  # octets of the message that is coming
        # The question that is being asked, and how far it is.
        self._question: _Question | None = None
        self._steps: Iterator[Step] = iter(())
        self._place: Place
        self._arguments: tuple[Any, ...] = ()
        self._replaced: object = None
        self._call: Call | None = None
        self._verdict: Verdict = CONTINUE
        self._by = ""
        self._notes: dict[str, str | int | bool] = {}

    @property
    def interests(self) -> Interests:
        """What the plugins that concern this session want to be asked about."""
        return self._table.interests

    def authenticated(self) -> None:
        """The session has its user; from now on only those plugins are asked whom that one concerns."""
        self._table = self._after(self._session.user)

    def refused(self) -> None:
        """The session has no user after all."""
        self._table = self._before

    def judge(self, hook: str, *arguments: object, then: Callable[[Judged], None], parse: Parse | None = None) -> None:
        """Ask the plugins, once all that was asked before is answered.

        :param hook: a method of IPlugin
        :param arguments: those of the method, behind the session
        :param then: is told, at once where nobody has to be waited for; never after :meth:`close`
        :param parse: reads what a plugin would put in the place of the first argument, and returns it as the next one
            is to see it; raises a ProtocolError or a ValueError where it is none.  ``None``: nothing can be put there
        """
        if self._closed:
            return
        question = _Question(hook, arguments, then, parse)
        if self._question is not None:
            self._queue.append(question)
        else:
            self._begin(question)
            self._go_on()

    def capabilities(self, names: Sequence[str]) -> Sequence[str]:
        """Return the capabilities that the client is to be shown, of these."""
        for place in self._table.capabilities:
            names = place.capabilities(self._session, names)
        return names

    def close(self, reason: str = "") -> None:
        """Forget what is still being asked, and tell those who want to know that the session is over."""
        if self._closed:
            return
        self._closed = True
        self._queue.clear()
        if self._call is not None:
            self._call.give_up()
            self._call = None
        for place, method in self._table.closing:
            place.ask(self._session, "session_closed", method, (reason,), None, _ignore)

    def _begin(self, question: _Question) -> None:
        hook = question.hook
        self._question = question
        self._arguments = question.arguments
        steps = self._table.steps(hook, question.arguments)
        if hook in _WHO:  # it may be another user than the one whose login went before, and was refused
            users = _WHO[hook](self._session, *question.arguments)
            steps = tuple(step for step in self._before.steps(hook, question.arguments) if step.place.concerns(users))
        elif hook == "message_begins":
            self._seen = 0
        elif hook == "message_chunk":
            steps = tuple(step for step in steps if step.place.interests.message > self._seen)
        self._steps = iter(steps)
        self._verdict = CONTINUE
        self._by = ""
        if self._notes:
            self._notes = {}

    def _go_on(self) -> None:
        """Ask who is still to be asked, then the next question, and so on, until somebody has to be waited for."""
        while (question := self._question) is not None and self._is_answered(question):
            if question.hook == "message_chunk":
                self._seen += len(question.arguments[1])
            passes = not self._by and not self._notes
            question.then(_PASSES if passes else Judged(self._verdict, self._by, self._notes))
            # What was asked meanwhile is in the queue: nothing is asked inside of anything else.
            if self._queue:
                self._begin(self._queue.popleft())
            else:
                self._question = None

    def _is_answered(self, question: _Question) -> bool:
        """Ask one plugin after the other; return whether all is said."""
        hook = question.hook
        parse = None if question.parse is None else self._parse
        while (step := next(self._steps, None)) is not None:
            place = self._place = step.place
            arguments = self._arguments
            if hook == "message_chunk":
                message, data = arguments
                arguments = (message, data[: place.interests.message - self._seen])
            answer = place.ask(self._session, hook, step.method, arguments, parse, self._answered)
            if self._closed:
                if isinstance(answer, Call):
                    answer.give_up()
                return False
            if answer is CONTINUE:
                continue
            if isinstance(answer, Call):
                self._call = answer
                return False
            if self._has_last_word(answer):
                break
        return True

    def _answered(self, verdict: Verdict) -> None:
        """The plugin that was waited for has answered."""
        self._call = None
        if self._has_last_word(verdict):
            self._steps = iter(())
        self._go_on()

    def _has_last_word(self, verdict: Verdict) -> bool:
        """Take in what a plugin says."""
        if verdict is CONTINUE:
            return False
        if isinstance(verdict, Annotate):
            self._notes.update(verdict.fields)
            return False
        self._verdict = verdict
        self._by = self._place.name
        if not isinstance(verdict, Replace):
            return True
        assert self._question is not None
        self._arguments = (self._replaced, *self._arguments[1:])
        steps = self._table.steps(self._question.hook, self._arguments)
        self._steps = iter([step for step in steps if step.place.number > self._place.number])
        return False

    def _parse(self, line: bytes) -> object:
        assert self._question is not None
        assert self._question.parse is not None
        self._replaced = self._question.parse(line)
        return self._replaced


def _of_credentials(session: Session, credentials: Credentials) -> tuple[str, ...]:
    names = (credentials.user, credentials.authorisation or credentials.user)
    return tuple(name.decode("utf-8", "backslashreplace") for name in names)


def _of_route(session: Session, route: Route) -> tuple[str, ...]:
    return (route.user, session.user or route.user)


_WHO: Mapping[str, Callable[..., tuple[str, ...]]] = {"credentials": _of_credentials, "route_chosen": _of_route}
"""Whom a question is about that comes before the session has its user."""


def _ignore(verdict: Verdict) -> None:
    """It is over, whatever a plugin says to that."""
