"""The gate as a Twisted service: it listens and serves, takes another configuration, drains, and stops."""

from __future__ import annotations

import gc
import os
import random
import secrets
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import LoopingCall, deferLater

from imapgate.admin.listen import Control, ControlPort
from imapgate.assembly import Assembly, room
from imapgate.auth.penalties import Penalties
from imapgate.auth.proofs import Proofs
from imapgate.config import load
from imapgate.config.types import Configuration, Listener, Tls
from imapgate.errors import ConfigurationError
from imapgate.limits import Limits
from imapgate.log import log
from imapgate.model.commands import table
from imapgate.net.census import Census
from imapgate.net.client import ClientProtocol
from imapgate.net.dial import Upstream, probe
from imapgate.net.directory import Moves
from imapgate.net.gate import Door, Gate
from imapgate.net.handover import HandoverFactory, HandoverFailed, Taken, take
from imapgate.net.journal import Journal, Trace
from imapgate.net.listen import ClientFactory
from imapgate.net.notify import Notifier
from imapgate.net.pools import Pools
from imapgate.net.proxy_protocol import TrustedProxies
from imapgate.net.shares import Shares
from imapgate.net.sockets import Sockets
from imapgate.net.tls import ServerCertificates
from imapgate.operating import GateOperator
from imapgate.plugins.runner import PluginFault
from imapgate.pooling.book import Book
from imapgate.recording import Recording
from imapgate.session.effects import Failed
from imapgate.session.session import SHUTTING_DOWN

PROXY_SECONDS = 10.0
STOP_SECONDS = 2.0
BACKLOG = 4096
"""Connections that wait to be accepted; a short queue loses handshakes when many clients come at once."""
_QUEUE = f":backlog={BACKLOG}"
PROBE_SECONDS = 60.0
TICK_SECONDS = 1.0
HANDOVER_SECONDS = 10.0


def clients_at_most(limits: Limits) -> int:
    """How many clients there is room for (THREATS F18)."""
    return min(limits.clients, room()) if limits.clients else room()


def upstream_connections_at_most(limits: Limits) -> int:
    """How many upstream connections there is room for."""
    return min(limits.upstream_connections, room()) if limits.upstream_connections else room()


class GateService(Service):
    """Listens, serves, and stops again.

    Ports are bound and keys are read before privileges are dropped (``twistd --uid``).

    :param takeover: take the listening sockets over from a gate that runs with the same control socket
    :ivar sessions: all clients that are there
    """

    name = "imapgate"

    def __init__(self, reactor: Any, configuration: Configuration, *, takeover: bool = False) -> None:
        limits = configuration.limits
        self._reactor = reactor
        self._takeover = takeover
        self._taken = Taken(None, {})
        self._sockets = Sockets(reactor)
        self._handover: ControlPort | None = None
        self._control: Control | None = None
        self._notifier = Notifier(reactor)
        self._signals: dict[int, Any] = {}
        self._hurry: Deferred[None] = Deferred()
        self.began = reactor.seconds()
        self.sessions: set[ClientProtocol] = set()
        self.moves = Moves()
        self.closed = False  # to new clients, for good
        self.draining = False
        self._replaced: list[Assembly] = []  # by a reload, but some sessions are of it
        self._unusable: dict[str, str] = {}  # what the last probe could not use, and why
        self._looping = [LoopingCall(self._probe), LoopingCall(self._tick)]
        for looping in self._looping:
            looping.clock = reactor

        proofs = Proofs(secrets.token_bytes(32), configuration.auth.credential_cache)
        book = Book(upstream_connections_at_most(limits), random.random)
        self.assembly = Assembly(reactor, configuration, proofs, self.moves, report=self._plugin_failed)
        audit = configuration.audit
        self.recording = None if audit is None else Recording(reactor, audit)
        commands, pools = table(configuration.extra_verbs), Pools(book, proofs, limits, reactor)
        self.gate = Gate(
            reactor,
            limits,
            commands,
            self.assembly.directory,
            pools,
            Shares(pools, limits, commands, reactor, random.random),
            Penalties(limits.failed_login_delays),
            Census(limits, clients_at_most(limits)),
            Journal(self._trace_of(configuration)),
            self.assembly.plugins,
            None if self.recording is None else self.recording.trail,
            None if self.recording is None else self.recording.auditing,
        )
        self._factories = self._entrances(configuration, self.gate)

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self.assembly.configuration

    @property
    def upstreams(self) -> dict[str, Upstream]:
        """The upstreams, by name."""
        return self.assembly.upstreams

    @property
    def handover_path(self) -> Path | None:
        """Where another process may ask for the listening sockets."""
        control = self.configuration.admin.control
        return None if control is None else control.with_name(control.name + ".handover")

    # --- listeners --------------------------------------------------------------------------------------

    def _entrances(self, configuration: Configuration, gate: Gate) -> dict[str, IProtocolFactory]:
        """The factory of each listener, by its endpoint."""
        return {_where(each): self._entrance(each, gate) for each in configuration.listeners}

    def _entrance(self, listener: Listener, gate: Gate) -> IProtocolFactory:
        certificates = None
        if listener.certificates:
            certificates = ServerCertificates([(pair.certificate, pair.private_key) for pair in listener.certificates])
        door = Door(listener.name, certificates, listener.tls is Tls.IMPLICIT, listener.allow_plaintext)
        factory = ClientFactory(gate, door, self.sessions)
        if listener.proxy_protocol:
            return TrustedProxies(factory, listener.trusted_proxies, PROXY_SECONDS, gate.clock)
        return factory

    def _listen(self, where: str) -> None:
        """Bind one listener.

        :raise ConfigurationError: it cannot be bound.
        """
        try:
            self._sockets.listen(where, self._factories[where])
        except (CannotListenError, LookupError, ValueError) as error:  # also a socket that systemd has not handed on
            reason = str(error) if isinstance(error, CannotListenError) else repr(error)
            raise ConfigurationError([f"cannot listen on {where.removesuffix(_QUEUE)}: {reason}"]) from None

    def _trace_of(self, configuration: Configuration) -> Trace | None:
        trace, reactor = configuration.trace, self._reactor
        return None if trace is None else Trace(trace.user, trace.file, reactor.seconds() + trace.until, reactor)

    # --- Service ----------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """Bind every port, as whoever started the process; or take them over."""
        if self._takeover and self.handover_path is not None:
            try:
                self._taken = take(str(self.handover_path), HANDOVER_SECONDS)
            except HandoverFailed as error:
                raise SystemExit(f"imapgate: {error}") from None
            self._sockets = Sockets(self._reactor, self._taken.descriptors)
        for where in self._factories:
            try:
                self._listen(where)
            except ConfigurationError as error:
                raise SystemExit(f"imapgate: {error}") from None

    def startService(self) -> None:
        """Serve."""
        super().startService()
        try:
            if self.recording is not None:
                self.recording.start()
            self.assembly.start()
        except ConfigurationError as error:
            raise SystemExit(f"imapgate: {error}") from None
        gc.freeze()  # what the modules made lives for ever, and need not be looked at again and again
        self._reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        """The reactor runs: take signals, tell whoever waits for it, and let an earlier gate go."""
        for number, received in (
            (signal.SIGHUP, self._on_hangup),
            (signal.SIGTERM, self._on_terminate),
            (signal.SIGINT, self._on_terminate),
        ):
            self._signals[number] = signal.signal(number, received)
        for looping, seconds in zip(self._looping, (PROBE_SECONDS, TICK_SECONDS), strict=True):
            looping.start(seconds).addErrback(lambda reason: log.failure("a periodic task ended", reason))
        try:
            self._be_operated()
        except (ConfigurationError, SystemExit) as error:  # while an earlier gate still goes on
            log.error("imapgate ends: {error}", error=str(error))
            self.terminate()
            return
        self._taken.serving(self._sockets)
        self._notifier.ready()
        where = ", ".join(listener.endpoint.text for listener in self.configuration.listeners)
        log.info("imapgate serves {where}, upstream {name}", where=where, name=", ".join(self.upstreams))

    def _be_operated(self) -> None:
        """Listen on the control sockets, and for the next gate."""
        if self.handover_path is not None:
            factory = HandoverFactory(self._sockets, self._taken_over)
            self._handover = ControlPort(self._reactor, self.handover_path, 0o600, factory, successor=True)
            self._handover.startListening()
        admin = self.configuration.admin
        self._control = Control(
            self._reactor, GateOperator(self), admin.control, admin.control_read, successor=self._takeover
        )
        self._control.startService()

    def stopService(self) -> Deferred[None]:
        """Stop listening, let commands in flight finish, tell every client, and wait a little until they are gone."""
        super().stopService()
        for looping in self._looping[:1]:
            if looping.running:
                looping.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        clock = self.gate.clock
        self._notifier.stopping()
        self.closed = self.draining = True
        await self._sockets.stop()
        await self.ended(self.sessions, SHUTTING_DOWN)
        for session in list(self.sessions):
            session.stop(SHUTTING_DOWN)
        await self._until(lambda: not self.sessions, clock.seconds() + STOP_SECONDS)
        for session in list(self.sessions):
            session.abort()  # while its end can still be recorded
        self.gate.shares.close()
        self.gate.pools.retire(lambda key: True)
        await self._until(lambda: not (self.sessions or self.gate.pools.book.total), clock.seconds() + STOP_SECONDS)
        if self._handover is not None:
            await maybeDeferred(self._handover.stopListening)
        if self._control is not None:
            await self._control.stopService()
        if self._looping[1].running:
            self._looping[1].stop()
        for number, before in self._signals.items():
            signal.signal(number, before)
        for assembly in (*self._replaced, self.assembly):
            assembly.close()
        if self.recording is not None:
            await self.recording.stop()
        self._notifier.close()
        if self.gate.journal.trace is not None:
            self.gate.journal.trace.close()

    async def ended(self, sessions: Iterable[ClientProtocol], text: bytes) -> None:
        """End these sessions at their next command boundary; those that take too long, or that must hurry, at once."""
        leaving = list(sessions)
        for session in leaving:
            session.leave(text)
        deadline = self.gate.clock.seconds() + self.gate.limits.drain
        await self._until(lambda: self._hurry.called or self.sessions.isdisjoint(leaving), deadline)
        for session in leaving:
            if session in self.sessions:
                session.stop(text)

    async def _until(self, condition: Callable[[], bool], deadline: float) -> None:
        clock = self.gate.clock
        while not condition() and clock.seconds() < deadline:
            await deferLater(clock, 0.02)

    # --- going on ---------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.gate.pools.ticked()
        self.gate.shares.ticked()
        if self._replaced:
            used = {id(session.gate.directory) for session in self.sessions}
            for assembly in [each for each in self._replaced if id(each.directory) not in used]:
                self._replaced.remove(assembly)
                assembly.close()

    async def _probe(self) -> None:
        """See, without logging in, which endpoints can be used, and which mechanisms they offer."""
        unusable = {}
        for name, upstream in list(self.upstreams.items()):
            for seen in await probe(upstream, self.gate.limits, self.gate.clock):
                if isinstance(seen.outcome, Failed):
                    unusable[f"{name}: {seen.door.name}"] = seen.outcome.failure.value
        for door, reason in unusable.items():
            if self._unusable.get(door) != reason:
                log.warn("upstream {door} cannot be used: {reason}", door=door, reason=reason)
        for door in self._unusable.keys() - unusable.keys():
            log.info("upstream {door} can be used again", door=door)
        self._unusable = unusable

    def reload(self) -> None:
        """Read the configuration again, with certificates, keys and tables, and put it into force as a whole.

        Sessions that are there keep what they began with.

        :raise ConfigurationError: it cannot be used, and nothing has changed.
        """
        if self.closed:
            raise ConfigurationError(["the gate is stopping"])
        earlier = self.assembly
        path = earlier.configuration.path
        configuration = earlier.configuration if path is None else load(path)
        proofs = self.gate.pools.proofs
        assembly = Assembly(self._reactor, configuration, proofs, self.moves, earlier, report=self._plugin_failed)
        limits = configuration.limits
        trace = self.gate.journal.trace
        if configuration.trace != earlier.configuration.trace:
            trace = self._trace_of(configuration)
        gate = self.gate._replace(
            limits=limits,
            table=table(configuration.extra_verbs),
            directory=assembly.directory,
            journal=Journal(trace, self.gate.journal.taps),
            plugins=assembly.plugins,
        )
        try:
            factories = self._entrances(configuration, gate)
            assembly.start()
            self._relisten(factories)
        except ConfigurationError:
            assembly.close()
            raise
        if configuration.admin != earlier.configuration.admin:
            log.warn("the control sockets stay where they are: their paths change with a restart only")
        if configuration.audit != earlier.configuration.audit:
            log.warn("the audit trail goes on as it was: its settings change with a restart only")
        self._factories, self.gate, self.assembly = factories, gate, assembly
        gate.penalties.configure(limits.failed_login_delays)
        gate.census.configure(limits, clients_at_most(limits))
        proofs.seconds = configuration.auth.credential_cache
        gate.pools.configure(limits, upstream_connections_at_most(limits))
        gate.shares.configure(limits, gate.table)
        gate.pools.retire(self._is_outdated)
        self._replaced.append(earlier)
        if trace is not None:
            trace.close()  # it may have been rotated
        self.record("config.reload", "ok", {"config.file": str(path or "")})

    def record(self, event: str, outcome: str, fields: dict[str, object]) -> None:
        """Put what happened to the gate itself into the audit trail."""
        if self.recording is not None:
            self.recording.trail.record(event, outcome, fields)

    def _plugin_failed(self, fault: PluginFault) -> None:
        log.error(
            "plugin {plugin} failed: {kind} in {hook}: {text} session={session}",
            plugin=fault.plugin, kind=fault.kind, hook=fault.hook, text=fault.text, session=fault.session_id or "-",
        )  # fmt: skip
        fields = {"policy.plugin": fault.plugin, "policy.hook": fault.hook, "error.kind": fault.kind}
        self.record("plugin.error", "error", {**fields, "reason": fault.text, "session.id": fault.session_id})

    def _relisten(self, factories: dict[str, IProtocolFactory]) -> None:
        """Listen where the new factories say; one that cannot be bound leaves everything as it was."""
        before, ports = self._factories, self._sockets.ports
        fresh = [where for where in factories if where not in ports]
        self._factories = factories
        bound = []
        try:
            for where in fresh:
                self._listen(where)
                bound.append(where)
        except ConfigurationError:
            self._factories = before
            for where in bound:
                self._sockets.close(where)
            raise
        for where, port in list(ports.items()):
            if where in factories:
                port.factory = factories[where]  # type: ignore[attr-defined]  # every port of Twisted's has one
            else:
                self._sockets.close(where)

    def _is_outdated(self, key: Any) -> bool:
        upstream = self.upstreams.get(key.upstream.partition("@")[0])
        return upstream is None or upstream.profile != key.profile

    def reloaded(self) -> None:
        """Reload, and say in the log what came of it."""
        self._notifier.reloading()
        if self.recording is not None:
            self.recording.trail.reopen()  # whatever is wrong with the configuration: the file was renamed
        try:
            self.reload()
        except ConfigurationError as error:
            self.record("config.reload", "error", {"reason": str(error)})
            log.error("nothing is reloaded, all stays as it was: {problems}", problems=str(error))
        else:
            log.info("configuration and certificates reloaded")
        self._notifier.ready()

    # --- signals, and the next process ------------------------------------------------------------------

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reloaded)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.terminate)

    def terminate(self) -> None:
        """Begin to stop; the second time, do it at once."""
        if not self.draining:
            self.closed = self.draining = True
            self._reactor.stop()
        elif not self._hurry.called:
            self._hurry.callback(None)

    def shut_down(self, *, wait: bool) -> None:
        """Stop as by a signal; ``wait``: not before every client has gone by itself."""
        if not wait:
            self.terminate()
            return
        self.closed = True
        self._reactor.callLater(0, Deferred.fromCoroutine, self._empty_then_stop())

    async def _empty_then_stop(self) -> None:
        await self._sockets.stop()
        await self._until(lambda: not self.sessions or self.draining, float("inf"))
        if not self.draining:  # a signal may have come meanwhile, and a second one would hurry
            self.terminate()

    def _taken_over(self, pid: int) -> None:
        self._notifier.main_pid(pid)
        self.terminate()


def _where(listener: Listener) -> str:
    """The endpoint, with a queue that is long enough."""
    text = listener.endpoint.text
    return text if listener.endpoint.kind != "tcp" or ":backlog=" in text else text + _QUEUE


def refuse_root(configuration: Configuration, uid: object, effective: Callable[[], int] = os.geteuid) -> str | None:
    """Say why this may not be served as root, if so; ``uid`` is what twistd will become (``None``: nobody else)."""
    if effective() != 0 or uid not in (None, 0) or configuration.allow_root or not configuration.beyond_loopback:
        return None
    return (
        "imapgate would serve the network as root. Give twistd --uid and --gid, "
        "or start it as a user of its own; allow_root = true allows it all the same."
    )
