"""Which upstream: rules in order, of which the first one that matches decides.

Knows conditions and what follows from them.  What a look-up is kept in it does not know, nor what an upstream is but a
name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from imapgate.errors import ConfigurationError, ImapgateError
from imapgate.model.pool_mode import PoolMode
from imapgate.routing.lookup import Asked, Found, Lookup, LookupFailed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FIELD = re.compile(r"\{(user|local|domain)\}")


class Route(NamedTuple):
    """Where a client goes.

    :ivar upstream: the upstream's name
    :ivar user: the name that the user has there; ``None``: the same
    :ivar pool_mode: instead of the upstream's own
    :ivar delay_until: unix time before which the login waits
    :ivar nologin: why nobody may log in, shown to the client
    :ivar redirect: another host and port than the upstream's own
    """

    upstream: str
    user: str | None = None
    pool_mode: PoolMode | None = None
    delay_until: float | None = None
    nologin: str | None = None
    redirect: tuple[str, int] | None = None


class Unroutable(ImapgateError):
    """There is no way for this client.

    :ivar temporary: this is no verdict on the client; it may come again later
    :ivar text: for the log
    """

    def __init__(self, text: str, *, temporary: bool) -> None:
        super().__init__(text)
        self.text = text
        self.temporary = temporary


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions, which must hold all, and what follows; an empty condition always holds.

    :ivar name: for the log, such as ``routing.rule[2]``
    :ivar listener: names of listeners
    :ivar server_name: patterns of SNI names, as by fnmatch; upper and lower case are the same
    :ivar user: patterns of whole user names; upper and lower case are not the same
    :ivar domain: patterns of what is behind a user name's last ``@``; upper and lower case are the same
    :ivar network: where the client's address is
    :ivar upstream: ``None``: the default
    :ivar lookup: asked when the conditions hold; what it finds goes before what the rule itself says, and when it
        finds nothing the next rule is asked
    :ivar rewrite: the user's name upstream, with ``{user}``, ``{local}`` and ``{domain}`` in it
    """

    name: str
    listener: tuple[str, ...] = ()
    server_name: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    domain: tuple[str, ...] = ()
    network: tuple[Network, ...] = ()
    upstream: str | None = None
    lookup: Lookup | None = None
    rewrite: str | None = None
    pool_mode: PoolMode | None = None
    nologin: str | None = None
    delay_until: float | None = None

    @property
    def needs_user(self) -> bool:
        """Whether nothing can be said before the user's name is known."""
        return bool(self.user or self.domain or self.lookup or self.rewrite)

    def matches_connection(self, asked: Asked) -> bool:
        """Whether the conditions hold that have nothing to do with the user."""
        return (
            (not self.listener or asked.listener in self.listener)
            and (not self.server_name or _host_matches(asked.server_name, self.server_name))
            and (not self.network or _inside(asked.address, self.network))
        )

    def matches_user(self, user: str) -> bool:
        """Whether the conditions hold that have to do with the user."""
        return (not self.user or any(fnmatchcase(user, pattern) for pattern in self.user)) and (
            not self.domain or _host_matches(_parts(user)[1], self.domain)
        )

    def rewritten(self, user: str) -> str | None:
        """Return the name that the rule gives a user, ``None`` where it gives none."""
        if self.rewrite is None:
            return None
        local, domain = _parts(user)
        values = {"user": user, "local": local, "domain": domain}
        return _FIELD.sub(lambda field: values[field[1]], self.rewrite)


class Router:
    """All rules, and the upstream of those whom none of them is about.

    :param rules: in order.
    :param upstreams: the names that there are; any other from a look-up makes the client unroutable.
    :param admissible_user: tells whether a name may be shown to an upstream (THREATS A38).
    :raise ConfigurationError: a rule names an upstream that there is not, or rewrites by what it does not know.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        default: str,
        upstreams: frozenset[str],
        admissible_user: Callable[[str], bool],
    ) -> None:
        self._rules = tuple(rules)
        self._default = default
        self._upstreams = upstreams
        self._admissible_user = admissible_user
        self.only = None if rules else Route(default)
        """The one way, where there are no rules."""
        if faults := list(self._faults()):
            raise ConfigurationError(faults)

    async def route(self, asked: Asked) -> Route:
        """Find a client's way; raise `Unroutable`.

        A look-up that fails is not one that finds nothing: no other rule is asked, or an outage would send users to
        the wrong upstream.
        """
        if not asked.user:
            return self.route_unnamed(asked)
        if not self._admissible_user(asked.user):
            raise Unroutable("no admissible user name", temporary=False)
        for rule in self._rules:
            if rule.matches_connection(asked) and rule.matches_user(asked.user):
                found = await self._look_up(rule, asked)
                if found is not None:
                    return self._route(rule, found, asked.user)
        return Route(self._default)

    def route_unnamed(self, asked: Asked) -> Route:
        """Find the way of a client whose user is not known; raise `Unroutable` where that depends on the user."""
        for rule in self._rules:
            if rule.matches_connection(asked):
                if rule.needs_user:
                    raise Unroutable(f"{rule.name} depends on the user", temporary=False)
                return self._route(rule, Found(), "")
        return Route(self._default)

    async def _look_up(self, rule: Rule, asked: Asked) -> Found | None:
        if rule.lookup is None:
            return Found()
        try:
            return await rule.lookup.find(asked)
        except LookupFailed as error:
            raise Unroutable(f"{rule.name}: {error}", temporary=True) from error

    def _route(self, rule: Rule, found: Found, user: str) -> Route:
        upstream = found.upstream or rule.upstream or self._default
        if upstream not in self._upstreams:
            raise Unroutable(f"{rule.name}: there is no upstream {upstream!r}", temporary=True)
        name = found.user or rule.rewritten(user)
        if name is not None and not self._admissible_user(name):
            # What a look-up gave is the operator's fault; what a user's own name was made into is the user's.
            raise Unroutable(f"{rule.name}: no admissible user name: {name!r}", temporary=found.user is not None)
        return Route(
            upstream,
            name,
            found.pool_mode or rule.pool_mode,
            rule.delay_until if found.delay_until is None else found.delay_until,
            found.nologin or rule.nologin,
        )

    def _faults(self) -> Iterator[str]:
        for where, upstream in [("the default", self._default), *((rule.name, rule.upstream) for rule in self._rules)]:
            if upstream is not None and upstream not in self._upstreams:
                yield f"{where}: there is no upstream {upstream!r}"
        for rule in self._rules:
            if rule.rewrite is not None and {"{", "}"} & set(_FIELD.sub("", rule.rewrite)):
                yield f"{rule.name}: rewrite knows only {{user}}, {{local}} and {{domain}}"


def _parts(user: str) -> tuple[str, str]:
    """What is before a name's last ``@``, and what is behind it; without one, all of it and nothing."""
    local, at, domain = user.rpartition("@")
    return (local, domain) if at else (user, "")


def _host_matches(name: str | None, patterns: Iterable[str]) -> bool:
    return name is not None and name != "" and any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def _inside(address: str | None, networks: Iterable[Network]) -> bool:
    if address is None:
        return False
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in networks)
