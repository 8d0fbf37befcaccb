"""The configuration made into parts: upstreams, verifiers, routes.  Whatever cannot be used is said at once.

Knows every table of the configuration and what is built of it; it starts nothing.
"""

from __future__ import annotations

import random
import resource
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool

from imapgate.auth.cred import Cred
from imapgate.auth.cred import checker as cred_checker
from imapgate.auth.htpasswd import Htpasswd
from imapgate.auth.http import AuthHttp
from imapgate.auth.identity import is_user
from imapgate.auth.jwks import FileKeys, UrlKeys
from imapgate.auth.oauth import Bearer
from imapgate.auth.proofs import Proofs
from imapgate.auth.upstream_identity import Authorisation, DovecotMaster, PasswordMap, UpstreamIdentity
from imapgate.auth.verify import Chain, Verifier
from imapgate.config import load_plugins, types
from imapgate.config.types import AuthMode, ClientEndpoint, Configuration, Tls
from imapgate.limits import Limits
from imapgate.log import log
from imapgate.model.pool_mode import SharingTerms
from imapgate.model.secret import Secret
from imapgate.net.dial import Upstream
from imapgate.net.directory import Directory, Moves
from imapgate.net.eager import EagerReactor
from imapgate.net.tls import client_creator
from imapgate.net.upstream import Door
from imapgate.plugins.runner import PluginFault, Plugins
from imapgate.pooling.connection import Terms
from imapgate.routing.endpoints import Endpoints
from imapgate.routing.http import HttpLookup
from imapgate.routing.lookup import Lookup
from imapgate.routing.rules import Router, Rule
from imapgate.routing.sql import SqlLookup
from imapgate.routing.table import Table
from imapgate.threads import Threads
from imapgate.web import persistent_agent

BETWEEN_ADDRESSES = 0.025
"""Seconds between two addresses of one name; a dead endpoint may cost a login less than 50 ms (THREATS F1)."""
PLUGIN_THREADS = 20
_OTHER_FILES = 64
"""Descriptors that are not clients' or upstreams'."""
_ELSEWHERE = 256
"""Upstreams that a verifier named, and that are remembered."""


def room() -> int:
    """How many clients, each with an upstream, there are descriptors for; raises the soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, (hard - _OTHER_FILES) // 2) if hard != resource.RLIM_INFINITY else 1 << 20


def client_endpoint(reactor: Any, endpoint: ClientEndpoint, seconds: float) -> IStreamClientEndpoint:
    """The Twisted endpoint that reaches an upstream server, TLS not included."""
    if endpoint.kind == "unix":
        return UNIXClientEndpoint(reactor, endpoint.path, timeout=seconds)
    bind = (endpoint.bind_address, 0) if endpoint.bind_address else None
    reactor = EagerReactor(reactor)
    host, port = endpoint.host, endpoint.port
    if isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, timeout=seconds, bindAddress=bind)
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout=seconds, bindAddress=bind)
    return HostnameEndpoint(
        reactor, host.encode(), port, timeout=seconds, bindAddress=bind, attemptDelay=BETWEEN_ADDRESSES
    )


def upstream_of(
    reactor: Any, configured: types.Upstream, limits: Limits, *, profile: int = 0, alone: bool = False
) -> Upstream:
    """An upstream server, ready to be dialled; ``alone``: a later login may be given a connection of an earlier one.

    :raise ConfigurationError: its CA file or its name cannot be used.
    """
    doors = []
    for endpoint in configured.endpoints:
        creator = None
        if configured.tls is not Tls.NONE:
            creator = client_creator(configured.verified_name(endpoint), configured.ca, configured.insecure)
        reached = client_endpoint(reactor, endpoint, limits.connect_try)
        doors.append(Door(endpoint.text, reached, creator, configured.tls is Tls.STARTTLS))
    terms = Terms(
        size=configured.pool_size,
        keep=configured.pool_keep,
        idle=configured.pool_idle,
        lifetime=configured.pool_lifetime,
        wait=configured.pool_wait,
        most=configured.max_connections,
        check=limits.pool_check,
    )
    sharing = SharingTerms(
        size=max(1, configured.pool_size - 1),  # the next login needs one that nobody uses
        idle=configured.idle,
        idle_poll=configured.idle_poll,
        idle_connections=configured.idle_connections,
        park_after=configured.park_after,
        share_stall=configured.share_stall,
    )
    return Upstream(
        configured.name,
        doors,
        Endpoints([door.name for door in doors], random.random),
        proxy_protocol=configured.proxy_protocol,
        id_originating=configured.id_originating,
        profile=profile,
        mode=configured.pool_mode,
        terms=terms,
        alone=alone,
        sharing=sharing,
    )


class Assembly:
    """Everything that one configuration is made into, and that is not shared with the next one.

    :param report: told whenever a plugin fails
    :param earlier: the assembly that is replaced; an upstream that has not changed goes over to the new one
    :raise ConfigurationError: something cannot be used, and nothing was changed.
    """

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        proofs: Proofs,
        moves: Moves,
        earlier: Assembly | None = None,
        *,
        report: Callable[[PluginFault], None],
    ) -> None:
        self.configuration = configuration
        self._reactor = reactor
        self._closers: list[Callable[[], object]] = []
        auth = configuration.auth
        alone = auth.credential_cache > 0 or auth.mode is AuthMode.MASTER
        self._signatures = {name: _signature(each, configuration) for name, each in configuration.upstreams.items()}
        self._profiles: dict[str, int] = {}  # the last one of every name that there ever was
        if earlier is not None:
            self._profiles.update(earlier._profiles)
        self.upstreams: dict[str, Upstream] = {}
        for name, configured in configuration.upstreams.items():
            before = None if earlier is None else earlier.upstreams.get(name)
            if before is not None and earlier is not None and earlier._signatures[name] == self._signatures[name]:
                self.upstreams[name] = before
            else:
                profile = self._profiles[name] = self._profiles.get(name, -1) + 1
                self.upstreams[name] = upstream_of(
                    reactor, configured, configuration.limits, profile=profile, alone=alone
                )
        self._threads = Threads(0, PLUGIN_THREADS, "plugins")  # of their own: what hangs there must not starve others
        self.plugins = self._plugins(report)
        self._elsewhere: OrderedDict[tuple[str, str, int], Upstream] = OrderedDict()
        identities = {
            name: _identity(each.master)
            for name, each in configuration.upstreams.items()
            if each.master is not None and auth.mode is AuthMode.MASTER
        }
        self.directory = Directory(
            configuration.limits,
            self._router(),
            self.upstreams,
            proofs,
            moves,
            reactor,
            time.time,
            chain=self._chain() if auth.mode is AuthMode.MASTER else None,
            identities=identities,
            relay=auth.mode is AuthMode.RELAY,
            elsewhere=self._at,
        )

    def start(self) -> None:
        """Start the plugins.

        :raise ConfigurationError: one of them does not start, and none is started.
        """
        if self.plugins is None:
            return
        self._threads.start()
        self._closers.append(self._threads.stop)
        self.plugins.start()
        self._closers.append(self.plugins.stop)

    def close(self) -> None:
        """Let go of what only this configuration had."""
        for close in reversed(self._closers):
            close()
        self._closers.clear()

    def _agent(self, ca: Any = None) -> Any:
        agent, pool = persistent_agent(self._reactor, lambda host: client_creator(host, ca, False))
        self._closers.append(pool.closeCachedConnections)
        return agent

    # --- plugins ----------------------------------------------------------------------------------------

    def _plugins(self, report: Callable[[PluginFault], None]) -> Plugins | None:
        configuration, reactor = self.configuration, self._reactor
        if not configuration.plugins:
            return None
        loaded = load_plugins(configuration.plugins, configuration.path)
        return Plugins(
            loaded, reactor, defer_to_thread=partial(deferToThreadPool, reactor, self._threads), report=report
        )

    # --- auth -------------------------------------------------------------------------------------------

    def _chain(self) -> Chain:
        configuration = self.configuration
        return Chain([self._verifier(each) for each in configuration.auth.verifiers], configuration.limits.user_name)

    def _verifier(self, configured: types.Verifier) -> Verifier:
        reactor = self._reactor
        if isinstance(configured, types.HtpasswdVerifier):
            return Htpasswd(configured.file, partial(deferToThreadPool, reactor, reactor.getThreadPool()))
        if isinstance(configured, types.HttpVerifier):
            return AuthHttp(
                self._agent(configured.ca),
                reactor,
                configured.url,
                timeout=configured.timeout,
                headers=configured.headers,
                own_password=not any(each.master for each in self.configuration.upstreams.values()),
            )
        if isinstance(configured, types.OAuthVerifier):
            keys = (
                UrlKeys(self._agent(), reactor, configured.jwks)
                if isinstance(configured.jwks, str)
                else FileKeys(configured.jwks)
            )
            return Bearer(
                keys,
                issuer=configured.issuer,
                audience=configured.audience,
                user_claim=configured.user_claim,
                scope=configured.scope,
            )
        return Cred(cred_checker(configured.checker), reactor)

    # --- routing ----------------------------------------------------------------------------------------

    def _router(self) -> Router:
        configuration = self.configuration
        rules = [
            Rule(
                f"routing.rule[{number}]",
                listener=rule.listener,
                server_name=rule.server_name,
                user=rule.user,
                domain=rule.domain,
                network=rule.network,
                upstream=rule.upstream,
                lookup=None if rule.lookup is None else self._lookup(rule.lookup),
                rewrite=rule.rewrite,
                pool_mode=rule.pool_mode,
                nologin=rule.nologin,
                delay_until=rule.delay_until,
            )
            for number, rule in enumerate(configuration.routing.rules)
        ]
        longest = configuration.limits.user_name
        return Router(
            rules,
            configuration.routing.default,
            frozenset(self.upstreams),
            lambda name: is_user(name.encode("utf-8", "surrogateescape"), longest),
        )

    def _lookup(self, configured: types.Lookup) -> Lookup:
        reactor = self._reactor
        if isinstance(configured, types.TableLookup):
            return Table(configured.file, reactor, lambda text: log.error("{text}", text=text))
        if isinstance(configured, types.SqlLookup):
            sql = SqlLookup(
                configured.driver, configured.database, configured.query, configured.timeout, reactor, reactor
            )
            self._closers.append(sql.close)
            return sql
        return HttpLookup(configured.url, self._agent(), configured.timeout, reactor)

    def _at(self, like: Upstream, host: str, port: int) -> Upstream:
        """The upstream at a host and port that a verifier named; in all else it is as ``like``."""
        key = like.name, host, port
        found = self._elsewhere.get(key)
        if found is None:
            endpoint = ClientEndpoint("tcp", f"tcp:{host}:{port}", host=host, port=port)
            configured = self.configuration.upstreams[like.name]
            limits = self.configuration.limits
            alone = like.terms[like.mode].alone
            found = upstream_of(self._reactor, _moved(configured, endpoint), limits, profile=like.profile, alone=alone)
            self._elsewhere[key] = found
            if len(self._elsewhere) > _ELSEWHERE:
                self._elsewhere.popitem(last=False)
        return found


def _moved(configured: types.Upstream, endpoint: ClientEndpoint) -> types.Upstream:
    """An upstream as configured, but elsewhere, and of a name that says so."""
    name = f"{configured.name}@{endpoint.host}:{endpoint.port}"
    return attrs.evolve(configured, name=name, endpoints=(endpoint,))


def _identity(master: types.Master) -> UpstreamIdentity:
    if master.map is not None:
        return PasswordMap(master.map)
    user, password = master.user.encode(), master.password or Secret(b"")
    if master.method is types.MasterMethod.DOVECOT:
        return DovecotMaster(user, password, master.separator.encode())
    return Authorisation(user, password)


def _signature(configured: types.Upstream, configuration: Configuration) -> tuple[object, ...]:
    """Whatever makes an upstream another one when it changes: connections of the one are no good to the other."""
    master = configured.master
    if master is not None:  # whose secret is equal to nothing but itself
        configured = attrs.evolve(configured, master=attrs.evolve(master, password=None))
    secret = None if master is None or master.password is None else master.password.reveal()
    stamp: Mapping[str, object] | tuple[int, int] | None = None
    if configured.ca is not None:
        status = configured.ca.stat()
        stamp = status.st_mtime_ns, status.st_size
    auth, limits = configuration.auth, configuration.limits
    return configured, secret, stamp, auth.mode, auth.credential_cache > 0, limits.connect_try, limits.pool_check
