"""Who of the plugins is asked what: for those that concern one session, a step for each hook, verb and response.

It is made once for everybody whom the same plugins concern, so that a question costs a look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from imapgate.model.verdict import Event, Interests
from imapgate.plugins.place import Place

_EVENTS = {
    Event.OPENED: "session_opened",
    Event.TLS: "tls_started",
    Event.CREDENTIALS: "credentials",
    Event.ROUTED: "route_chosen",
    Event.AUTHENTICATED: "authenticated",
    Event.SELECTED: "mailbox_selected",
}
_MESSAGE = ("message_begins", "message_chunk", "message_ends")


class Step(NamedTuple):
    """One plugin, and its method for a hook."""

    place: Place
    method: Callable[..., Any]


Steps = tuple[Step, ...]


class Table:
    """The plugins that concern a session, in their order.

    :param closing: those that may be told of its end
    :ivar interests: what any of them wants
    """

    __slots__ = (
        "_by_hook",
        "_commands",
        "_completions",
        "_others",
        "_responses",
        "capabilities",
        "closing",
        "interests",
    )

    def __init__(self, places: Sequence[Place], *, capabilities: Sequence[Place], closing: Sequence[Place]) -> None:
        self.capabilities = tuple(place for place in capabilities if place.interests.capabilities)
        self.closing = _steps("session_closed", (one for one in closing if Event.CLOSED in one.interests.events))
        self.interests = union(place.interests for place in places)._replace(capabilities=bool(self.capabilities))
        everything = [place for place in places if place.interests.verbs is None]
        self._others = _steps("command", everything)
        self._commands = {
            verb: _steps("command", (one for one in places if one in everything or verb in (one.interests.verbs or ())))
            for verb in {verb for place in places for verb in place.interests.verbs or ()}
        }
        self._completions = {
            verb: _steps("completed", (one for one in places if verb in one.interests.completions))
            for verb in self.interests.completions
        }
        self._responses = {
            word: _steps("untagged", (one for one in places if word in one.interests.responses))
            for word in self.interests.responses
        }
        self._by_hook = {
            hook: _steps(hook, (one for one in places if event in one.interests.events))
            for event, hook in _EVENTS.items()
        }
        self._by_hook |= {hook: _steps(hook, (one for one in places if one.interests.message)) for hook in _MESSAGE}
        self._by_hook["fetch_item"] = _steps("fetch_item", (one for one in places if one.interests.fetch))

    def steps(self, hook: str, arguments: tuple[Any, ...]) -> Steps:
        """Return who is asked, with these arguments of the hook."""
        if hook == "command":
            return self._commands.get(arguments[0].verb, self._others)
        if hook == "untagged":
            return self._responses.get(arguments[0].keyword, ())
        if hook == "completed":
            return self._completions.get(arguments[0].verb, ())
        return self._by_hook[hook]


def union(all_of_them: Iterable[Interests]) -> Interests:
    """Return what is wanted by any."""
    wanted = Interests()
    for one in all_of_them:
        wanted = Interests(
            None if wanted.verbs is None or one.verbs is None else wanted.verbs | one.verbs,
            wanted.completions | one.completions,
            wanted.responses | one.responses,
            wanted.fetch or one.fetch,
            max(wanted.message, one.message),
            wanted.events | one.events,
            wanted.capabilities or one.capabilities,
        )
    return wanted


def _steps(hook: str, places: Iterable[Place]) -> Steps:
    return tuple(Step(place, getattr(place.plugin, hook)) for place in places)
