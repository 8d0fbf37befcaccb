"""Whose login goes where, and as whom: the verifiers, the routes and the upstreams, put together.

Knows the order of the questions: who is it, where is it at home, as whom does it go there.  The answers
are auth's and routing's; they know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from imapgate.auth.identity import admissible
from imapgate.auth.proofs import Proofs
from imapgate.auth.upstream_identity import UpstreamIdentity
from imapgate.auth.verify import Chain, Identified, NotIdentified, Presented
from imapgate.limits import Limits
from imapgate.log import log
from imapgate.model.capability import TERMINATED
from imapgate.model.failure import Failure
from imapgate.model.pool_mode import PoolMode
from imapgate.model.secret import Credentials
from imapgate.net.dial import Client, Upstream
from imapgate.net.pools import Account
from imapgate.routing.lookup import Asked
from imapgate.routing.rules import Route, Router, Unroutable
from imapgate.session.effects import Failed, Login


class Refusal(NamedTuple):
    """No account; ``wait``: seconds for which the answer is to be held back."""

    failed: Failed
    wait: float = 0.0


class Moves:
    """Users that the operator moves to another upstream, or has moved, while they work."""

    def __init__(self) -> None:
        self._held: dict[str, list[Deferred[None]]] = {}
        self._moved: dict[str, str] = {}

    def begin(self, user: str) -> None:
        """Hold this user's logins from now on."""
        self._held.setdefault(user, [])

    def end(self, user: str, upstream: str | None) -> None:
        """Let them go on: to this upstream, or, ``None``, where they always went."""
        if upstream is not None:
            self._moved[user] = upstream
        for waiting in self._held.pop(user, []):
            waiting.callback(None)

    @property
    def under_way(self) -> bool:
        """Whether anybody is being moved now."""
        return bool(self._held)

    def upstream(self, user: str) -> str | None:
        """Where a user was moved to."""
        return self._moved.get(user)

    async def settled(self, user: str) -> None:
        """Wait while this user is being moved."""
        held = self._held.get(user)
        if held is not None:
            waiting: Deferred[None] = Deferred(held.remove)
            held.append(waiting)
            await waiting


class Directory:
    """Who is who, and where; one for each configuration that was ever read.

    :param chain: verifies clients, in mode ``master``; ``None``: upstream does
    :param identities: as whom to go there, by upstream, in mode ``master``
    :param relay: in mode ``relay``: a login is shown to its upstream and then forgotten
    :param elsewhere: makes an upstream at another host and port, like the one given
    :param wall: unix time
    """

    def __init__(
        self,
        limits: Limits,
        router: Router,
        upstreams: Mapping[str, Upstream],
        proofs: Proofs,
        moves: Moves,
        clock: IReactorTime,
        wall: Callable[[], float],
        *,
        chain: Chain | None = None,
        identities: Mapping[str, UpstreamIdentity] | None = None,
        relay: bool = False,
        elsewhere: Callable[[Upstream, str, int], Upstream] | None = None,
    ) -> None:
        self.upstreams = upstreams
        self.moves = moves
        self._limits = limits
        self._router = router
        self._proofs = proofs
        self._clock = clock
        self._wall = wall
        self._chain = chain
        self._identities = identities or {}
        self._relay = relay
        self._elsewhere = elsewhere

    def mechanisms(self, client: Client) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """The mechanisms that end at the gate, and those that are relayed, for this client before its login."""
        if self._chain is not None:
            return self._chain.mechanisms, ()
        try:
            route = self._router.only or self._router.route_unnamed(_asked(client, ""))
        except Unroutable:
            return TERMINATED, ()
        return TERMINATED, self.upstreams[route.upstream].relayed

    async def account(self, client: Client, login: Login, attempt: int) -> Account | Refusal:
        """Find out whose login this is, and where it goes."""
        credentials = login.credentials
        if credentials is None:
            return await self._relayed(client, login)
        identified = Identified(credentials.user)
        if self._chain is not None:
            try:
                identified = await self._chain.identify(_presented(client, login, credentials, attempt))
            except NotIdentified as said:
                log.debug("nobody is identified: {text} session={session}", text=said.text, session=client.session)
                return Refusal(Failed(said.failure), said.wait)
        elif not admissible(credentials, self._limits.user_name):
            return Refusal(Failed(Failure.CREDENTIALS))
        name = identified.user.decode()
        if self.moves.under_way:
            await self.moves.settled(name)
        try:
            route = self._router.only or await self._router.route(_asked(client, name))
        except Unroutable as said:
            log.warn("no route for a login: {text} session={session}", text=said.text, session=client.session)
            return Refusal(Failed(Failure.UNROUTABLE if said.temporary else Failure.CREDENTIALS))
        if (route.nologin or route.delay_until) and (refused := await self._not_now(route)) is not None:
            return refused
        return self._at_home(login, credentials, identified, route, self.moves.upstream(name))

    async def _relayed(self, client: Client, login: Login) -> Account | Refusal:
        try:
            route = self._router.route_unnamed(_asked(client, ""))
        except Unroutable:
            return Refusal(Failed(Failure.NO_MECHANISM))
        if (refused := await self._not_now(route)) is not None:
            return refused
        upstream = self.upstreams[route.upstream]
        return Account(upstream, b"", login, mode=PoolMode.SESSION, pinned="relayed mechanism")

    async def _not_now(self, route: Route) -> Refusal | None:
        """Wait until the time has come that a route names, unless that is too far away."""
        if route.nologin is not None:
            return Refusal(Failed(Failure.NO_LOGIN, route.nologin.encode("ascii", "replace")))
        if route.delay_until is not None:
            seconds = route.delay_until - self._wall()
            if seconds > self._limits.login_time / 2:
                return Refusal(Failed(Failure.NO_LOGIN))
            if seconds > 0:
                await deferLater(self._clock, seconds)
        return None

    def _at_home(
        self, login: Login, given: Credentials, identified: Identified, route: Route, moved: str | None
    ) -> Account | Refusal:
        moved = moved if moved in self.upstreams else None  # a reload may have taken it away
        home = upstream = self.upstreams[moved or route.upstream]
        redirect = identified.redirect or route.redirect
        if redirect is not None and self._elsewhere is not None and moved is None:
            upstream = self._elsewhere(home, *redirect)
        user = identified.user if route.user is None else route.user.encode()
        credentials: Credentials | None
        if self._chain is None:
            credentials = Credentials(user, given.password)
        elif identified.credentials is not None:  # of the very user whose pool it is (THREATS A31)
            credentials = identified.credentials._replace(user=user)
        else:
            identity = self._identities.get(home.name)
            credentials = None if identity is None else identity.upstream_credentials(user)
        if credentials is None:
            log.warn("upstream {name}: no way to log its users in there: it has no master table", name=upstream.name)
            return Refusal(Failed(Failure.NO_MECHANISM))
        mode = PoolMode.SESSION if upstream.proxy_protocol else route.pool_mode  # its header names one client
        place = upstream.name, user
        login = Login(login.mechanism, credentials, None, login.client_id, login.ttl)
        make = partial(Account, upstream, user, login, name=identified.user)
        if self._relay:
            return make(mode=PoolMode.SESSION, pinned="relayed login")
        if self._chain is not None:  # it is verified, whatever a pooled connection was opened with
            return make(digest=b"", generation=self._proofs.generation(place), mode=mode)
        digest = self._proofs.digest((upstream.name.encode(), user, credentials.password.reveal()))
        return make(digest=digest, generation=self._proofs.recent(place, digest, self._clock.seconds()), mode=mode)


def _asked(client: Client, user: str) -> Asked:
    return Asked(client.listener, client.server_name, user, client.address)


def _presented(client: Client, login: Login, credentials: Credentials, attempt: int) -> Presented:
    local = None if client.host is None else client.host[0]
    return Presented(
        login.mechanism,
        credentials,
        client.address,
        local,
        client.session,
        client.listener,
        client.server_name,
        attempt,
        client.secure,
    )
