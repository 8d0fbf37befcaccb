"""The gate as a Twisted service: the configuration made into listeners, an upstream, and shared parts."""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    serverFromString,
)
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from imapgate.auth.penalties import Penalties
from imapgate.config.types import ClientEndpoint, Configuration, Listener, Tls
from imapgate.config.types import Upstream as UpstreamTable
from imapgate.errors import ConfigurationError
from imapgate.limits import Limits
from imapgate.model.commands import table
from imapgate.net.attempt import Upstream, probe
from imapgate.net.census import Census
from imapgate.net.client import Door as ClientDoor
from imapgate.net.client import Gate
from imapgate.net.journal import Journal, Trace
from imapgate.net.listen import ClientFactory
from imapgate.net.log import log
from imapgate.net.proxy_protocol import TrustedProxies
from imapgate.net.tls import ServerCertificates, client_creator
from imapgate.net.upstream import Door
from imapgate.session.effects import Failed
from imapgate.session.session import SHUTTING_DOWN

PROXY_SECONDS = 10.0
STOP_SECONDS = 2.0
BETWEEN_ADDRESSES = 0.025
"""Seconds between two addresses of one name; a dead endpoint may cost a login less than 50 ms (THREATS F1)."""
BACKLOG = 4096
"""Connections that wait to be accepted; a short queue loses handshakes when many clients come at once."""
PROBE_SECONDS = 60.0
_OTHER_FILES = 64
"""Descriptors that are not clients' or upstreams'."""


def clients_at_most(limits: Limits) -> int:
    """How many clients there is room for; raises the soft limit of open files to the hard one first (THREATS F18)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = max(1, (hard - _OTHER_FILES) // 2) if hard != resource.RLIM_INFINITY else 1 << 20
    return min(limits.clients, room) if limits.clients else room


def client_endpoint(reactor: Any, endpoint: ClientEndpoint, seconds: float) -> IStreamClientEndpoint:
    """The Twisted endpoint that reaches an upstream server, TLS not included."""
    if endpoint.kind == "unix":
        return UNIXClientEndpoint(reactor, endpoint.path, timeout=seconds)
    bind = (endpoint.bind_address, 0) if endpoint.bind_address else None
    host, port = endpoint.host, endpoint.port
    if isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, timeout=seconds, bindAddress=bind)
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout=seconds, bindAddress=bind)
    return HostnameEndpoint(
        reactor, host.encode(), port, timeout=seconds, bindAddress=bind, attemptDelay=BETWEEN_ADDRESSES
    )


def upstream_of(reactor: Any, configured: UpstreamTable, limits: Limits) -> Upstream:
    """An upstream server, ready to be dialled.

    :raise ConfigurationError: its CA file or its name cannot be used.
    """
    doors = []
    for endpoint in configured.endpoints:
        creator = None
        if configured.tls is not Tls.NONE:
            creator = client_creator(configured.verified_name(endpoint), configured.ca, configured.insecure)
        reached = client_endpoint(reactor, endpoint, limits.connect_try)
        doors.append(Door(endpoint.text, reached, creator, configured.tls is Tls.STARTTLS))
    return Upstream(
        configured.name,
        doors,
        proxy_protocol=configured.proxy_protocol,
        id_originating=configured.id_originating,
    )


class GateService(Service):
    """Listens, serves, and stops again.

    Ports are bound and keys are read before privileges are dropped (``twistd --uid``).
    """

    name = "imapgate"

    def __init__(self, reactor: Any, configuration: Configuration) -> None:
        limits = configuration.limits
        self._reactor = reactor
        self._limits = limits
        self._certificates: list[ServerCertificates] = []
        self._factories: list[ClientFactory] = []
        self._ports: list[IListeningPort] = []
        self._upstream = upstream_of(reactor, configuration.upstreams[configuration.routing.default], limits)
        trace = configuration.trace
        self._trace = None
        if trace is not None:
            self._trace = Trace(trace.user, trace.file, reactor.seconds() + trace.until, reactor)
        self._gate = Gate(
            reactor,
            limits,
            table(configuration.extra_verbs),
            self._upstream,
            Penalties(limits.failed_login_delays),
            Census(limits, clients_at_most(limits)),
            Journal(self._trace),
        )
        self._listeners = [(listener, self._factory(listener)) for listener in configuration.listeners]
        self._unusable: dict[str, str] = {}  # what the last probe could not use, and why
        self._probing = LoopingCall(self._probe)
        self._probing.clock = reactor

    def _factory(self, listener: Listener) -> IProtocolFactory:
        certificates = None
        if listener.certificates:
            certificates = ServerCertificates([(pair.certificate, pair.private_key) for pair in listener.certificates])
            self._certificates.append(certificates)
        door = ClientDoor(certificates, listener.tls is Tls.IMPLICIT, listener.allow_plaintext)
        factory = ClientFactory(self._gate, door)
        self._factories.append(factory)
        if listener.proxy_protocol:
            return TrustedProxies(factory, listener.trusted_proxies, PROXY_SECONDS, self._gate.clock)
        return factory

    # --- Service ----------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """Bind every port, as whoever started the process."""
        for listener, factory in self._listeners:
            where = listener.endpoint.text
            queue = f":backlog={BACKLOG}" if listener.endpoint.kind == "tcp" and ":backlog=" not in where else ""
            failures: list[Failure] = []
            try:
                listening: Deferred[IListeningPort] = serverFromString(self._reactor, where + queue).listen(factory)
            except (LookupError, ValueError) as error:  # a socket that systemd has not handed on
                raise SystemExit(f"imapgate: cannot listen on {where}: {error!r}") from None
            listening.addCallbacks(self._ports.append, failures.append)
            if failures:  # raised here: in an errback it would end nothing
                raise SystemExit(f"imapgate: cannot listen on {where}: {failures[0].getErrorMessage()}")

    def startService(self) -> None:
        """Serve."""
        super().startService()
        gc.freeze()  # what the modules made lives for ever, and need not be looked at again and again
        signal.signal(signal.SIGHUP, self._on_hangup)
        self._probing.start(PROBE_SECONDS).addErrback(lambda reason: log.failure("probing ended", reason))
        where = ", ".join(listener.endpoint.text for listener, _ in self._listeners)
        log.info("imapgate serves {where}, upstream {name}", where=where, name=self._upstream.name)

    async def _stop(self) -> None:
        await DeferredList([Deferred.fromCoroutine(_stopped(port)) for port in self._ports])
        sessions = [session for factory in self._factories for session in factory.sessions]
        for session in sessions:
            session.stop(SHUTTING_DOWN)
        clock = self._gate.clock
        deadline = clock.seconds() + STOP_SECONDS
        while any(factory.sessions for factory in self._factories) and clock.seconds() < deadline:
            await deferLater(clock, 0.02)
        if self._trace is not None:
            self._trace.close()

    def stopService(self) -> Deferred[None]:
        """Stop listening, tell every client, and wait a little until they are gone."""
        super().stopService()
        if self._probing.running:
            self._probing.stop()
        return Deferred.fromCoroutine(self._stop())

    # --- going on ---------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """See which mechanisms upstream offers, without logging in; those may be relayed."""
        unusable = {
            seen.door.name: seen.outcome.failure.value
            for seen in await probe(self._upstream, self._limits, self._gate.clock)
            if isinstance(seen.outcome, Failed)
        }
        for door, reason in unusable.items():
            if self._unusable.get(door) != reason:
                log.warn(
                    "upstream {name}: {door} cannot be used: {reason}",
                    name=self._upstream.name,
                    door=door,
                    reason=reason,
                )
        for door in self._unusable.keys() - unusable.keys():
            log.info("upstream {name}: {door} can be used again", name=self._upstream.name, door=door)
        self._unusable = unusable

    def reload(self) -> None:
        """Read certificates and keys again; a bad file changes nothing (SIGHUP)."""
        for certificates in self._certificates:
            try:
                certificates.reload()
            except ConfigurationError as error:
                log.error("certificates are not reloaded, the old ones stay: {problems}", problems=str(error))
            else:
                log.info("certificates reloaded: {names}", names=", ".join(certificates.names))
        if self._trace is not None:
            self._trace.close()

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload)


async def _stopped(port: IListeningPort) -> None:
    stopped = port.stopListening()
    if stopped is not None:
        await stopped


def refuse_root(configuration: Configuration, uid: object, effective: Callable[[], int] = os.geteuid) -> str | None:
    """Say why this may not be served as root, if so; ``uid`` is what twistd will become (``None``: nobody else)."""
    if effective() != 0 or uid not in (None, 0) or configuration.allow_root or not configuration.beyond_loopback:
        return None
    return (
        "imapgate would serve the network as root. Give twistd --uid and --gid, "
        "or start it as a user of its own; allow_root = true allows it all the same."
    )
