"""A gate whose sessions are watched: a plugin that answers when told to, and a trail that is on disk when told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from imapgate.audit.trail import Trail, TrailFailed
from imapgate.model.verdict import Event, Interests, Verdict
from imapgate.net.gate import Door
from imapgate.plugins.api import Command, Completion, Credentials, Options, Plugin, Response, Route, Session
from imapgate.plugins.loading import Loaded
from imapgate.plugins.runner import PluginFault, Plugins
from imapgate.session.effects import Auditing
from tests.net import sessions
from tests.net.wires import Bench, bench

EVENTS = Interests(events=frozenset(Event))
COMMANDS = Interests(verbs=None)
EVERYTHING = Interests(
    verbs=None,
    completions=frozenset(["CREATE", "SELECT"]),
    responses=frozenset(["EXISTS"]),
    events=frozenset(Event),
    capabilities=True,
)


class Oracle(Plugin):
    """A plugin that says what the test says.

    :ivar asked: what it was asked so far
    :ivar verdicts: what it says at once, by hook
    :ivar waits: the hooks at which it takes its time
    :ivar waiting: what it has not answered yet
    :ivar shown: of the capabilities, only those that do not begin so are shown
    """

    def __init__(self, interests: Interests = EVERYTHING, *waits: str) -> None:
        super().__init__(Options({}))
        self.interests = interests
        self.asked: list[str] = []
        self.verdicts: dict[str, Verdict] = {}
        self.waits = set(waits)
        self.waiting: list[Deferred[Verdict | None]] = []
        self.hides = "X-"
        self.sessions: list[Session] = []
        self.closed: list[str] = []

    def says(self, verdict: Verdict | None = None) -> None:
        """Answer what it was asked first."""
        self.waiting.pop(0).callback(verdict)

    def _asked(self, session: Session, hook: str) -> Any:
        self.asked.append(hook)
        self.sessions.append(session)
        if hook not in self.waits:
            return self.verdicts.get(hook)
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def session_opened(self, session: Session) -> Any:
        """Say it, as at every hook."""
        return self._asked(session, "session_opened")

    def tls_started(self, session: Session) -> Any:
        """Say it."""
        return self._asked(session, "tls_started")

    def capabilities(self, session: Session, names: Sequence[str]) -> Sequence[str]:
        """Hide some."""
        return [name for name in names if not name.startswith(self.hides)]

    def credentials(self, session: Session, credentials: Credentials) -> Any:
        """Say it."""
        return self._asked(session, "credentials")

    def route_chosen(self, session: Session, route: Route) -> Any:
        """Say it."""
        return self._asked(session, "route_chosen")

    def authenticated(self, session: Session) -> Any:
        """Say it."""
        return self._asked(session, "authenticated")

    def command(self, session: Session, command: Command) -> Any:
        """Say it, with the verb."""
        return self._asked(session, f"command {command.verb}")

    def mailbox_selected(self, session: Session, mailbox: object) -> Any:
        """Say it."""
        return self._asked(session, "mailbox_selected")

    def untagged(self, session: Session, response: Response) -> Any:
        """Say it, with the word."""
        return self._asked(session, f"untagged {response.keyword}")

    def completed(self, session: Session, command: Command, completion: Completion) -> Any:
        """Say it, with the verb."""
        return self._asked(session, f"completed {command.verb}")

    def session_closed(self, session: Session, reason: str) -> None:
        """Remember why."""
        self.closed.append(reason)


class Disk:
    """A trail whose records are on disk when the test says so."""

    def __init__(self, *, durable: bool = True) -> None:
        self.durable = durable
        self.failing = ""
        self.taken: list[tuple[str, str, Mapping[str, object]]] = []
        self.waiting: list[Deferred[None]] = []
        self._written = 0

    def record(self, event: str, outcome: str, fields: Mapping[str, object]) -> None:
        """Take a record."""
        self.taken.append((event, outcome, dict(fields)))

    def committed(self) -> Deferred[None] | None:
        """Wait for the test, where there is anything to wait for."""
        if not self.durable or self._written == len(self.taken):
            return None
        self.waiting.append(Deferred())
        if self.failing:
            self.waiting[-1].errback(TrailFailed(self.failing))
            return self.waiting.pop()
        return self.waiting[-1]

    def writes(self) -> None:
        """All that was recorded is on disk now."""
        self._written = len(self.taken)
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)

    def fails(self, why: str = "the disk is full") -> None:
        """It cannot be written, and never can be from now on."""
        self.failing = why
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.errback(TrailFailed(why))

    @property
    def events(self) -> list[str]:
        """What was recorded."""
        return [f"{event} {outcome}" for event, outcome, _ in self.taken]

    def fields(self, event: str) -> Mapping[str, Any]:
        """What was recorded of the last event of this kind."""
        return [fields for name, _, fields in self.taken if name == event][-1]


def watched(
    made: Bench | None = None, *plugins: Plugin, disk: Disk | None = None, faults: list[PluginFault] | None = None
) -> Bench:
    """The same gate, with plugins and a trail."""
    made = made or bench()
    trail, auditing = None, None
    if disk is not None:
        trail = cast("Trail", disk)
        auditing = Auditing(disk.durable, made.clock.seconds, lambda: disk.failing, lambda criteria: {})
    report = ([] if faults is None else faults).append
    loaded = [Loaded(f"plugin{number}", one, one.interests, timeout=60.0) for number, one in enumerate(plugins, 1)]
    asked = Plugins(loaded, made.clock, defer_to_thread=_never, report=report) if plugins else None
    return made._replace(gate=made.gate._replace(plugins=asked, trail=trail, auditing=auditing))


def _never(*arguments: object) -> Deferred[Any]:
    raise AssertionError("none of them is threaded")


class Watched(sessions.Session):
    """One client at a gate that is watched."""

    def __init__(
        self,
        *plugins: Plugin,
        disk: Disk | None = None,
        made: Bench | None = None,
        door: Door = sessions.PLAINTEXT,
        **more: Any,
    ) -> None:
        self.faults: list[PluginFault] = []
        super().__init__(door, made=watched(made, *plugins, disk=disk, faults=self.faults), **more)

    def dials(self) -> None:
        """The upstream server answers, and grants the login."""
        self.upstream, self.upstream_wire = self.made.endpoints[0].opens(sessions.UPSTREAM_GREETING)
        assert self.upstream_wire.read() == sessions.AUTHENTICATE
        self.upstream.dataReceived(sessions.OK)

    def enters(self) -> Watched:
        """Connect and log in, where nobody takes any time."""
        self.connected()
        self.wire.clear()
        self.says(sessions.LOGIN)
        self.dials()
        assert self.wire.read().startswith(b"a OK ")
        self.upstream_wire.clear()
        return self

    @property
    def held(self) -> list[str]:
        """Why the client is not heard."""
        return [str(reason.value) for reason in self.protocol._valve.reasons]

    @property
    def upstream_held(self) -> list[str]:
        """Why the upstream is not heard."""
        return [str(reason.value) for reason in self.upstream.valve.reasons]  # type: ignore[attr-defined]

    def at_rest(self) -> None:
        """Nothing is left of a session whose client has gone, nor of its upstream."""
        assert self.protocol.lease is None
        assert self.protocol._attempt is None
        clock: Clock = self.clock
        clock.pump([30.0] * 4)
        assert not clock.getDelayedCalls()
