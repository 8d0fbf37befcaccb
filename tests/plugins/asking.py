"""Plugins in a gate that is none: a clock, threads that run when told, and questions as the core would put them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from imapgate.limits import Limits
from imapgate.model.commands import COMMANDS
from imapgate.plugins.api import Command, Interests, Options, Plugin, Session
from imapgate.plugins.loading import Loaded
from imapgate.plugins.runner import Judged, PluginFault, Plugins
from imapgate.session.intake import parsed

Method = Callable[..., Any]


def parse(line: bytes) -> Command:
    """Read a command, or what a plugin would put in its place, as the core does."""
    return Command(parsed(b"a1", line, Limits(), COMMANDS, False).command)


def command(text: str) -> Command:
    """Return a command such as ``UID FETCH 1 FLAGS``."""
    return parse(text.encode())


def plugin(interests: Interests | None = None, /, **methods: Any) -> Plugin:
    """Return a plugin with these methods, without ``self``, and attributes."""
    found = Plugin(Options({}))
    found.interests = Interests(verbs=None) if interests is None else interests
    for name, method in methods.items():
        setattr(found, name, method)
    return found


def loaded(one: Plugin, name: str = "test", **common: Any) -> Loaded:
    """Return a plugin as it comes out of the configuration."""
    policies = {"on_error": one.on_error, "on_timeout": one.on_timeout}
    return Loaded(name, one, one.interests, threaded=one.threaded, **{**policies, **common})


class Gate:
    """A gate with these plugins, and one session in it.

    :ivar threads: what waits for a thread
    :ivar faults: what was reported
    """

    def __init__(self, *plugins: Loaded, user: str | None = "alice") -> None:
        self.clock = Clock()
        self.faults: list[PluginFault] = []
        self.threads: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.plugins = Plugins(plugins, self.clock, defer_to_thread=self._defer_to_thread, report=self.faults.append)
        self.session, self.chain = self.connect(user)

    def connect(self, user: str | None) -> tuple[Session, Any]:
        """Open a session; ``None``: it is not logged in."""
        session = Session("s1", "192.0.2.7", "imaps")
        chain = self.plugins.open(session)
        if user is not None and chain is not None:
            session.user = user
            chain.authenticated()
        return session, chain

    def ask(self, hook: str, *arguments: Any) -> list[Judged]:
        """Ask the plugins; return what they have said, as soon as they have."""
        said: list[Judged] = []
        reads = parse if hook == "command" else None
        self.chain.judge(hook, *arguments, then=said.append, parse=reads)
        return said

    def command(self, text: str = "NOOP") -> list[Judged]:
        """Ask about a command."""
        return self.ask("command", command(text))

    def run(self, index: int = 0) -> None:
        """Run what waits for a thread, and tell its outcome."""
        deferred, call = self.threads.pop(index)
        try:
            outcome = call()
        except Exception:
            outcome = Failure()
        deferred.callback(outcome)

    def kinds(self) -> list[str]:
        """Return what kinds of faults were reported."""
        return [fault.kind for fault in self.faults]

    def row(self, index: int = 0) -> dict[str, Any]:
        """Return what an operator sees of a plugin, without what is as ever."""
        row = dict(self.plugins.rows()[index])
        return {name: value for name, value in row.items() if value not in (0, "closed") and name != "plugin"}

    def _defer_to_thread(self, function: Method, *arguments: Any) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred()
        self.threads.append((deferred, lambda: function(*arguments)))
        return deferred
