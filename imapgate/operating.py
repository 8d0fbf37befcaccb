"""What an operator can see of a running gate, and do to it: the commands of ``imapgate ctl``, carried out.

Knows the whole gate; holds nothing of its own.  What it shows holds no secret and no octet of mail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from imapgate import __version__
from imapgate.admin.operator import Refused, Row
from imapgate.errors import ConfigurationError
from imapgate.log import log
from imapgate.net.client import ClientProtocol
from imapgate.net.dial import Upstream
from imapgate.net.journal import Tap
from imapgate.net.shares import COUNTED as SHARED_COUNTED
from imapgate.pooling.book import COUNTED

if TYPE_CHECKING:
    from imapgate.service import GateService

_KICKED = b"[UNAVAILABLE] The operator has ended this session"
_MOVED = b"[UNAVAILABLE] The mailbox is being moved; log in again"
_OF_UPSTREAM = (
    "tls", "pool_mode", "pool_size", "pool_keep", "pool_idle", "pool_lifetime", "pool_wait", "idle", "idle_poll",
    "idle_connections", "park_after", "share_stall",
)  # fmt: skip


class GateOperator:
    """Implements :class:`imapgate.admin.operator.Operator`."""

    def __init__(self, service: GateService) -> None:
        self._service = service

    # --- looking ----------------------------------------------------------------------------------------

    def show(self, what: str) -> Sequence[Row]:
        """Answer a command that changes nothing."""
        return _SHOW[what](self)

    def _sessions(self) -> Sequence[Row]:
        now = self._service.gate.clock.seconds()
        return [_session(each, now) for each in self._sorted()]

    def _sorted(self) -> list[ClientProtocol]:
        return sorted(self._service.sessions, key=lambda each: each.began)

    def _pools(self) -> Sequence[Row]:
        book = self._service.gate.pools.book
        return [{**row._asdict(), "user": _name(row.user)} for row in book.rows()]

    def _upstreams(self) -> Sequence[Row]:
        book, now = self._service.gate.pools.book, self._service.gate.clock.seconds()
        rows: list[Row] = []
        for name, upstream in self._service.upstreams.items():
            state = "paused" if book.paused(name) else None
            for endpoint in upstream.endpoints.rows(now):
                rows.append(
                    {
                        "upstream": name,
                        "endpoint": endpoint["name"],
                        "state": state or endpoint["state"],
                        "failures": endpoint["failures"],
                        "ejected_seconds": endpoint["ejected_for"],
                        "pool_mode": upstream.mode.value,
                        "connections": book.of(name),
                    }
                )
        return rows

    def _users(self) -> Sequence[Row]:
        sessions = Counter(each.name for each in self._service.sessions if each.account is not None)
        connections: Counter[bytes] = Counter()
        for row in self._service.gate.pools.book.rows():
            connections[row.user] += row.total
        return [
            {
                "user": _name(user),
                "sessions": sessions[user],
                "connections": connections[user],
                "moved_to": self._service.moves.upstream(_name(user)),
            }
            for user in sorted(sessions.keys() | connections.keys())
        ]

    def _pins(self) -> Sequence[Row]:
        return [
            {
                "session": each.client.session,
                "user": _name(each.name),
                "upstream": each.account.upstream.name,
                "reason": each.pinned,
            }
            for each in self._sorted()
            if each.account is not None and each.pinned
        ]

    def _channels(self) -> Sequence[Row]:
        return [{**row._asdict(), "user": _name(row.user)} for row in self._service.gate.shares.rows()]

    def _stats(self) -> Sequence[Row]:
        service, gate = self._service, self._service.gate
        figures: dict[str, str | int | float] = {
            "version": __version__,
            "running_seconds": round(gate.clock.seconds() - service.began, 1),
            "clients": gate.census.clients,
            "upstream_connections": gate.pools.book.total,
            "waiting": gate.pools.book.waiting,
        }
        figures.update({f"upstream_{name}": gate.pools.book.counts[name] for name in COUNTED})
        figures.update({f"shared_{name}": gate.shares.counts[name] for name in SHARED_COUNTED})
        figures.update(
            {f"shared_pinned_{reason.replace(' ', '_')}": number for reason, number in sorted(gate.shares.pins.items())}
        )
        return [{"name": name, "value": value} for name, value in figures.items()]

    def _plugins(self) -> Sequence[Row]:
        plugins = self._service.gate.plugins
        return [] if plugins is None else plugins.rows()

    def _audit(self) -> Sequence[Row]:
        trail = self._service.gate.trail
        return [] if trail is None else trail.rows()

    def _config(self) -> Sequence[Row]:
        configuration = self._service.configuration
        rows: list[Row] = [{"key": "file", "value": str(configuration.path or "command line")}]
        for listener in configuration.listeners:
            rows.append({"key": f"listener.{listener.name}", "value": f"{listener.endpoint.text} tls={listener.tls}"})
        for name, upstream in configuration.upstreams.items():
            where = ", ".join(endpoint.text for endpoint in upstream.endpoints)
            rows.append({"key": f"upstream.{name}.endpoints", "value": where})
            for key in _OF_UPSTREAM:
                rows.append({"key": f"upstream.{name}.{key}", "value": str(getattr(upstream, key))})
        rows.append({"key": "routing.default", "value": configuration.routing.default})
        rows.append({"key": "auth.mode", "value": configuration.auth.mode.value})
        rows.append({"key": "auth.credential_cache", "value": str(configuration.auth.credential_cache)})
        for key in configuration.limits.__slots__:
            rows.append({"key": f"limits.{key}", "value": str(getattr(configuration.limits, key))})
        return rows

    # --- changing ---------------------------------------------------------------------------------------

    async def act(self, command: str, arguments: Mapping[str, str]) -> Sequence[Row]:
        """Carry out a command that changes something."""
        fields: dict[str, object] = {
            "admin.command": command,
            "admin.arguments": [f"{key}={value}" for key, value in arguments.items()],
        }
        try:
            rows = await _ACT[command](self, arguments)
        except Refused as refused:
            self._service.record("admin.action", "no", {**fields, "reason": str(refused)})
            raise
        except Exception as error:
            self._service.record("admin.action", "error", {**fields, "reason": type(error).__name__})
            raise
        self._service.record("admin.action", "ok", fields)
        return rows

    async def _kick(self, arguments: Mapping[str, str]) -> Sequence[Row]:
        who = arguments["who"]
        chosen = [each for each in self._sorted() if who in (_name(each.name), each.client.session)]
        for session in chosen:
            session.stop(_KICKED)
        if not chosen:
            raise Refused(f"no session and no user {who!r} is there; 'imapgate ctl sessions' lists who is")
        return [{"kicked": len(chosen)}]

    async def _pause(self, arguments: Mapping[str, str]) -> Sequence[Row]:
        return [self._paused(upstream) for upstream in self._chosen(arguments)]

    def _paused(self, upstream: Upstream) -> Row:
        self._service.gate.pools.pause(upstream.name)
        return {"upstream": upstream.name, "connections": self._service.gate.pools.book.of(upstream.name)}

    async def _resume(self, arguments: Mapping[str, str]) -> Sequence[Row]:
        chosen = self._chosen(arguments)
        for upstream in chosen:
            self._service.gate.pools.resume(upstream.name)
        return [{"upstream": upstream.name, "state": "resumed"} for upstream in chosen]

    async def _drain(self, arguments: Mapping[str, str]) -> Sequence[Row]:
        chosen = self._chosen(arguments)
        rows = [self._paused(upstream) for upstream in chosen]
        names = [upstream.name for upstream in chosen]  # of an earlier configuration's, too
        mine = [each for each in self._sorted() if each.upstream is not None and each.upstream.name in names]
        ended = Counter(each.upstream.name for each in mine if each.upstream is not None)
        await self._service.ended(mine, b"[UNAVAILABLE] The mail server is being taken out of service")
        return [{**row, "ended": ended[name]} for name, row in zip(names, rows, strict=True)]

    async def _move(self, arguments: Mapping[str, str]) -> Sequence[Row]:
        user, name = arguments["user"], arguments["upstream"]
        service = self._service
        if name not in service.upstreams:
            raise Refused(f"no upstream {name!r}; there is {', '.join(service.upstreams)}")
        mine = [each for each in self._sorted() if _name(each.user) == user]
        service.moves.begin(user)  # whoever comes from now on is held
        try:
            await service.ended(mine, _MOVED)
        finally:
            service.moves.end(user, name)
        log.info("user {user!r} is moved to {upstream}", user=user, upstream=name)
        return [{"user": user, "upstream": name, "ended": len(mine)}]

    async def _reload(self, arguments: Mapping[str, str]) -> Sequence[Row]:
        try:
            self._service.reload()
        except ConfigurationError as error:
            raise Refused("nothing is reloaded, all stays as it was:\n" + "\n".join(error.problems)) from None
        log.info("configuration and certificates reloaded")
        return [{"reloaded": str(self._service.configuration.path or "certificates")}]

    async def _forget(self, arguments: Mapping[str, str]) -> Sequence[Row]:
        user = arguments["user"].encode()
        pools = self._service.gate.pools
        places = {(row.upstream, user) for row in pools.book.rows() if row.user == user}
        for place in places | {(name, user) for name in self._service.upstreams}:
            pools.forget(place)
        return [{"user": arguments["user"], "forgotten": "yes"}]

    async def _shutdown(self, arguments: Mapping[str, str]) -> Sequence[Row]:
        self._service.shut_down(wait="wait" in arguments)
        return [{"sessions": len(self._service.sessions)}]

    def _chosen(self, arguments: Mapping[str, str]) -> list[Upstream]:
        name, upstreams = arguments.get("upstream"), self._service.upstreams
        if name is None:
            return list(upstreams.values())
        if name not in upstreams:
            raise Refused(f"no upstream {name!r}; there is {', '.join(upstreams)}")
        return [upstreams[name]]

    # --- watching ---------------------------------------------------------------------------------------

    def trace(self, user: str, seconds: int | None, write: Callable[[Row], None]) -> Callable[[], None]:
        """Pass each redacted line of this user's sessions on, of those that log in from now on."""
        self._service.record("admin.action", "ok", {"admin.command": "trace", "admin.arguments": [f"user={user}"]})
        journal = self._service.gate.journal
        tap = Tap(user.encode(), write)
        journal.taps.append(tap)
        for session in self._service.sessions:
            if session.name == tap.user:
                session.session.trace()
        return lambda: journal.taps.remove(tap)


def _name(user: bytes) -> str:
    return user.decode("utf-8", "backslashreplace")


def _session(each: ClientProtocol, now: float) -> Row:
    account, client = each.account, each.client
    return {
        "session": client.session,
        "user": _name(each.name),
        "address": client.address or "unix",
        "listener": client.listener,
        "upstream": None if account is None else account.upstream.name,
        "pool_mode": None if account is None else account.mode.value,
        "state": each.session.state.value,
        "bound": "yes" if each.lease is not None and each.lease.bound else "no",
        "commands": each.session.commands,
        "octets_in": each.octets_in,
        "octets_out": each.octets_out,
        "age_seconds": round(now - each.began, 1),
    }


_SHOW: dict[str, Callable[[GateOperator], Sequence[Row]]] = {
    "sessions": GateOperator._sessions,
    "pools": GateOperator._pools,
    "upstreams": GateOperator._upstreams,
    "users": GateOperator._users,
    "pins": GateOperator._pins,
    "channels": GateOperator._channels,
    "stats": GateOperator._stats,
    "config": GateOperator._config,
    "plugins": GateOperator._plugins,
    "audit": GateOperator._audit,
}
_ACT = {
    "kick": GateOperator._kick,
    "pause": GateOperator._pause,
    "resume": GateOperator._resume,
    "drain": GateOperator._drain,
    "move": GateOperator._move,
    "reload": GateOperator._reload,
    "forget": GateOperator._forget,
    "shutdown": GateOperator._shutdown,
}
