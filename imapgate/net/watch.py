"""Who watches one session from outside the core: its plugins are asked here, and its records get their context.

Knows the session as plugins see it, and the fields that all its records have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure as TwistedFailure

from imapgate.audit.trail import TrailFailed
from imapgate.log import log
from imapgate.model import capability
from imapgate.model.failure import Failure
from imapgate.model.secret import Credentials
from imapgate.model.verdict import Disconnect, Event, Interests, Reject
from imapgate.net.dial import Client
from imapgate.net.loop import Loop
from imapgate.net.pools import Account
from imapgate.net.valve import Valve
from imapgate.plugins.api import Route, Session
from imapgate.plugins.runner import Judged
from imapgate.session.deeds import Place
from imapgate.session.effects import (
    Failed,
    Granted,
    Identified,
    Judge,
    Judgement,
    LoggedIn,
    LoginFailed,
    SendClient,
    SendUpstream,
)

if TYPE_CHECKING:
    from imapgate.net.gate import Gate


_SENDING = (SendClient, SendUpstream)


class Awaited(Enum):
    """The watch's own reason for not hearing anybody."""

    RECORD = "audit record awaited"


class Dismissed(Exception):
    """A plugin ends the session."""

    def __init__(self, said: Disconnect) -> None:
        super().__init__(said.text)
        self.said = said


class Watch:
    """One session's watch.

    :param client: who it is, as far as that is known
    :param via: the balancer that the client came by; empty: none
    """

    def __init__(self, gate: Gate, client: Client, via: str) -> None:
        self._trail = gate.trail
        self._auditing = gate.auditing
        self._seconds = gate.clock.seconds
        self._began = self._seconds()
        self._opened = False
        self._given = b""  # the user name of the login that is under way, or was granted
        self._held: Sequence[Valve] = ()  # before what was recorded is on disk
        self._over = False  # nothing is waited for any more
        self.view = Session(client.session, client.address or "", client.listener)
        self._chain = None if gate.plugins is None else gate.plugins.open(self.view)
        self._context: dict[str, object] = {"session.id": client.session, "listener": client.listener}
        if client.peer is not None:
            self._context |= {"client.address": client.peer[0], "client.port": client.peer[1]}
        if via:
            self._context["client.via"] = via

    # --- recording --------------------------------------------------------------------------------------

    def record(self, event: str, outcome: str, fields: Mapping[str, object]) -> None:
        """Put an event of this session into the trail."""
        if self._trail is not None:
            self._trail.record(event, outcome, {**self._context, **fields})

    def commit(self, loop: Loop, valves: Sequence[Valve], failed: Callable[[], None]) -> None:
        """Let the loop stand still, and nobody be heard, before all that was recorded is on disk.

        :param failed: called where that cannot be: nobody may be told what was to follow (THREATS F14).
        """
        waiting = None if self._trail is None or self._over else self._trail.committed()
        if waiting is None:
            return
        loop.suspend()
        self._held = valves
        for valve in valves:
            valve.hold(Awaited.RECORD)

        def unrecorded(reason: TwistedFailure) -> None:
            if not reason.check(TrailFailed):
                log.failure("the audit trail failed unexpectedly", reason)
            self._over = True
            self._go_on(loop, _SENDING)
            failed()

        waiting.addCallbacks(lambda _: self._go_on(loop), unrecorded)

    def _go_on(self, loop: Loop, without: tuple[type, ...] = ()) -> None:
        held, self._held = self._held, ()
        for valve in held:
            valve.free(Awaited.RECORD)
        loop.resume(without)

    def gone(self, loop: Loop) -> None:
        """The client has gone: the loop stands still for nobody any more, and nothing that waits is sent."""
        self._over = True
        self._go_on(loop, _SENDING)

    @property
    def unrecordable(self) -> str:
        """Why nothing can be recorded, and so nothing may be done; empty: it can."""
        return "" if self._trail is None else self._trail.failing

    def reported(self, event: LoggedIn | LoginFailed | Identified, account: Account | None) -> None:
        """The core has told of a login, or of what the client says it is."""
        if isinstance(event, Identified):
            self._identified(event)
        elif isinstance(event, LoginFailed):
            self._login_failed(event)
        elif account is not None:
            self._logged_in(account, event.mechanism)

    def _identified(self, event: Identified) -> None:
        said = {name.decode("ascii").lower(): value.decode("ascii") for name, value in event.fields}
        self.view.client_id = said
        if said:
            self._context["client.asserted"] = said

    def _login_failed(self, event: LoginFailed) -> None:
        self.view.user = self.view.upstream = ""
        if self._chain is not None:
            self._chain.refused()
        fields = {"user.name": name_of(event.user), "auth.mechanism": event.mechanism.decode("ascii")}
        denied = event.failure is Failure.POLICY
        outcome = "denied" if denied else "no" if event.failure is Failure.CREDENTIALS else "error"
        self.record("auth.failure", outcome, {**fields, "reason": event.failure.value})

    def _logged_in(self, account: Account, mechanism: bytes) -> None:
        self._context["user.name"] = name_of(self._given)
        self._context["user.effective"] = name_of(account.name)
        self._context["upstream"] = account.upstream.name
        if account.user != account.name:
            self._context["user.upstream"] = name_of(account.user)
        self.record("auth.success", "ok", {"auth.mechanism": mechanism.decode("ascii")})

    def closed(self, reason: str, commands: int, octets: tuple[int, int]) -> None:
        """The session is over; one that never began, such as a handshake that failed, is none."""
        if self._chain is not None:
            self._chain.close(reason)
        if not self._opened:
            return
        fields = {"reason": reason, "session.commands": commands, "session.octets_in": octets[0]}
        seconds = round(self._seconds() - self._began, 6)
        self.record("session.close", "ok", {**fields, "session.octets_out": octets[1], "duration": seconds})

    # --- asking -----------------------------------------------------------------------------------------

    def connected(self, client: Client, tls: str | None, then: Callable[[bytes], None]) -> None:
        """The client is there, or TLS has come up; ``then`` is told, with the last words where it is to go."""
        view, hooks = self.view, []
        if tls:
            view.tls, view.server_name = tls, client.server_name or ""
            protocol, _, cipher = tls.partition(" ")
            self._context |= {"tls.protocol": protocol, "tls.cipher": cipher}
            hooks.append("tls_started")
        if not self._opened:
            self._opened = True
            self.record("session.open", "ok", {})
            hooks.insert(0, "session_opened")
        self._open(hooks, then)

    def _open(self, hooks: list[str], then: Callable[[bytes], None]) -> None:
        if self._chain is None or not hooks:
            then(b"")
            return

        def answered(judged: Judged) -> None:
            if isinstance(judged.verdict, Disconnect):
                self.record("policy.deny", "denied", {**_policy(judged), "policy.hook": hooks[0]})
                then(judged.verdict.text.encode())
            else:
                self._open(hooks[1:], then)

        self._chain.judge(hooks[0], then=answered)

    async def refuses(self, hook: str, *arguments: object) -> Failed | None:
        """Ask the plugins about a login; ``None``: it may go on.

        :raise Dismissed: it ends the session.
        """
        if self._chain is None:
            return None
        answer: Deferred[Judged] = Deferred()
        self._chain.judge(hook, *arguments, then=answer.callback)
        judged = await answer
        verdict = judged.verdict
        if isinstance(verdict, Reject | Disconnect):
            self.record("policy.deny", "denied", {**_policy(judged), "policy.hook": hook})
        if isinstance(verdict, Disconnect):
            raise Dismissed(verdict)
        if isinstance(verdict, Reject):
            return Failed(Failure.POLICY, verdict.text.encode(), verdict.code.encode())
        return None

    async def refuses_login(self, credentials: Credentials | None) -> Failed | None:
        """The same of a login that nobody has seen yet; one whose mechanism is relayed shows nothing."""
        self._given = b"" if credentials is None else credentials.user
        if self.unrecordable:
            return Failed(Failure.UNRECORDED)
        return None if credentials is None else await self.refuses("credentials", credentials)

    async def refuses_route(self, account: Account) -> Failed | None:
        """The same, when it is known where it goes."""
        self.view.upstream = account.upstream.name
        return await self.refuses(
            "route_chosen", Route(account.upstream.name, name_of(account.user), account.mode.value)
        )

    async def refuses_user(self, account: Account) -> Failed | None:
        """The same, when the user is known."""
        self.view.user = name_of(account.name)
        if self._chain is not None:
            self._chain.authenticated()
        return await self.refuses("authenticated")

    def granted(self, granted: Granted) -> Granted:
        """Tell the core what is watched."""
        granted = granted._replace(auditing=self._auditing)
        if self._chain is None:
            return granted
        interests = self._chain.interests
        if interests.capabilities:
            granted = granted._replace(mask=lambda upstream: self.mask(capability.after_login(upstream)))
        wanted = interests._replace(events=interests.events & {Event.SELECTED}, capabilities=False)
        return granted if wanted == Interests() else granted._replace(interests=wanted)

    def mask(self, capabilities: bytes) -> bytes:
        """A list of capabilities as the plugins want it to be shown."""
        if self._chain is None:
            return capabilities
        return " ".join(self._chain.capabilities(capabilities.decode("ascii", "replace").split())).encode()

    def judge(self, question: Judge, place: Place | None, then: Callable[[Judgement], None]) -> None:
        """Put a question of the core's to the plugins."""
        view, chain = self.view, self._chain
        assert chain is not None
        view.mailbox, view.read_only = ("", False) if place is None else (place.name, place.read_only)

        def answered(judged: Judged) -> None:
            then(Judgement(question.side, *judged))

        chain.judge(question.hook, *question.arguments, then=answered, parse=question.parse)


def name_of(user: bytes) -> str:
    """A user's name as text."""
    return user.decode("utf-8", "backslashreplace")


def _policy(judged: Judged) -> dict[str, object]:
    rule = judged.verdict.rule if isinstance(judged.verdict, Reject | Disconnect) else ""
    return {"policy.plugin": judged.by, "policy.rule": rule}
