"""``[upstream.NAME]``: the servers behind the gate, read and checked.

Knows which keys of an upstream exclude each other, and what it must have for the way in which logins are verified.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from imapgate.config.endpoints import client_endpoint, tls_mode
from imapgate.config.files import certificate_faults
from imapgate.config.master import read_master
from imapgate.config.table import Table, choice, flag, of_text, path_in
from imapgate.config.types import Auth, AuthMode, ClientEndpoint, HttpVerifier, Tls, Upstream
from imapgate.config.values import MOST_COUNT, duration, host_name, whole
from imapgate.model.pool_mode import IdleMode, PoolMode

POOL_MODE = choice({mode.value: mode for mode in PoolMode})
IDLE_MODE = choice({mode.value: mode for mode in IdleMode})
OF_POLLING = ("idle_poll", "idle_connections")
OF_SHARING = (*OF_POLLING, "park_after", "share_stall")

_UPSTREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def read_upstreams(document: Table, base: Path, auth: Auth | None) -> dict[str, Upstream]:
    """Read the upstreams, without the faulty ones; `auth` is None where it cannot be told who verifies logins."""
    table = document.table("upstream")
    if not table.names() and not table.broken:
        document.add("", "no [upstream.NAME]; expected at least one, with its endpoints")
    upstreams: dict[str, Upstream] = {}
    for name in table.names():
        upstream = _upstream(name, table.table(name), base, auth)
        if not _UPSTREAM_NAME.fullmatch(name):
            table.add(name, "expected a name of letters, digits, dots, dashes and underscores, at most 64")
        elif upstream is not None:  # only names that are fit to be logged go any further
            upstreams[name] = upstream
    return upstreams


def _upstream(name: str, table: Table, base: Path, auth: Auth | None) -> Upstream | None:
    endpoints = tuple(table.values("endpoints", of_text(partial(client_endpoint, base=base))))
    if not endpoints and table.sound("endpoints"):
        table.add("endpoints", 'missing; expected a list such as ["tcp:mail.example.org:143"]')
    usual = Upstream(name, endpoints, _usual_tls(endpoints))
    upstream = Upstream(
        name,
        endpoints,
        tls=table.take("tls", tls_mode, usual.tls),
        ca=table.take("ca", path_in(base), None),
        server_name=table.take("server_name", of_text(host_name), None),
        insecure=table.take("insecure", flag, False),
        id_originating=table.take("id_originating", flag, False),
        proxy_protocol=table.take("proxy_protocol", flag, False),
        pool_mode=table.take("pool_mode", POOL_MODE, usual.pool_mode),
        pool_size=table.take("pool_size", partial(whole, least=1, most=MOST_COUNT), usual.pool_size),
        pool_keep=table.take("pool_keep", partial(whole, least=0, most=MOST_COUNT), usual.pool_keep),
        pool_idle=table.take("pool_idle", duration, usual.pool_idle),
        pool_lifetime=table.take("pool_lifetime", duration, usual.pool_lifetime),
        pool_wait=table.take("pool_wait", partial(duration, zero=True), usual.pool_wait),
        max_connections=table.take("max_connections", partial(whole, least=0, most=MOST_COUNT), usual.max_connections),
        idle=table.take("idle", IDLE_MODE, usual.idle),
        idle_poll=table.take("idle_poll", duration, usual.idle_poll),
        idle_connections=table.take(
            "idle_connections", partial(whole, least=1, most=MOST_COUNT), usual.idle_connections
        ),
        park_after=table.take("park_after", duration, usual.park_after),
        share_stall=table.take("share_stall", duration, usual.share_stall),
        master=read_master(table.table_if_any("master"), base),
    )
    table.finish()
    _tls_faults(table, upstream)
    _pool_faults(table, upstream)
    _sharing_faults(table, upstream)
    if auth is not None:
        _auth_faults(table, upstream, auth)
    return upstream if endpoints else None


def _usual_tls(endpoints: tuple[ClientEndpoint, ...]) -> Tls:
    """Return what `tls` is where it is not written: plain only where nothing can leave this machine."""
    if any(endpoint.kind == "tls" for endpoint in endpoints):
        return Tls.IMPLICIT
    return Tls.NONE if all(endpoint.local for endpoint in endpoints) else Tls.STARTTLS


def _tls_faults(table: Table, upstream: Upstream) -> None:
    """Refuse what cannot go together with the way an upstream is encrypted."""
    tls, ca = upstream.tls, upstream.ca
    if ca is not None:
        for fault in certificate_faults(ca):
            table.add("ca", fault)
        if upstream.insecure:
            table.add("ca", "given with insecure = true, which verifies nothing; expected one of the two")
    if not table.sound("tls", "endpoints"):
        return
    kinds = {endpoint.kind for endpoint in upstream.endpoints}
    if "tls" in kinds and tls is not Tls.IMPLICIT:
        table.add(
            "tls", f'"{tls}" with a tls: endpoint, which is TLS from the first byte; expected "implicit", or tcp:'
        )
    elif "tls" in kinds and len(kinds) > 1 and "tls" not in table:
        table.add("endpoints", 'tls: beside another kind; expected tls = "implicit" for all of them, or two upstreams')
    if tls is Tls.NONE:
        for key in ("ca", "server_name", "insecure"):
            if getattr(upstream, key):
                table.add(key, 'given with tls = "none", which verifies nothing; expected it only with TLS')
    elif "unix" in kinds and not upstream.server_name and not upstream.insecure and table.sound("server_name"):
        table.add("server_name", f'missing; expected the name to verify with a unix: endpoint and tls = "{tls}"')


def _pool_faults(table: Table, upstream: Upstream) -> None:
    """Refuse a pool that cannot be."""
    if upstream.pool_mode is PoolMode.SHARED and table.sound("pool_size", "pool_mode") and upstream.pool_size < 2:
        table.add(
            "pool_size",
            f'{upstream.pool_size} with pool_mode = "shared", where the sessions of a user have one and the next login '
            "another; expected at least 2",
        )
    if table.sound("pool_size", "pool_keep") and upstream.pool_keep > upstream.pool_size:
        table.add("pool_keep", f"{upstream.pool_keep}; expected at most pool_size, which is {upstream.pool_size}")
    if upstream.proxy_protocol and upstream.pool_mode is not PoolMode.SESSION:
        table.add(
            "proxy_protocol",
            f'true with pool_mode = "{upstream.pool_mode}", where a connection goes from one client to the next; '
            'expected it only with "session"',
        )


def _sharing_faults(table: Table, upstream: Upstream) -> None:
    """Refuse what is said of shared mailboxes where there are none, and of polling where nothing is polled."""
    if not table.sound("pool_mode", "idle"):
        return
    mode, idle = upstream.pool_mode, upstream.idle
    if mode is not PoolMode.SHARED:
        if "idle" in table and idle is not IdleMode.RELAY:
            table.add(
                "idle",
                f'"{idle}" with pool_mode = "{mode}", where each client idles on a connection of its own; '
                'expected "relay", or pool_mode = "shared"',
            )
        for key in OF_SHARING:
            if key in table:
                table.add(key, f'given with pool_mode = "{mode}"; expected it only with "shared"')
    elif idle is not IdleMode.POLL:
        for key in OF_POLLING:
            if key in table:
                table.add(key, f'given with idle = "{idle}"; expected it only with "poll"')


def _auth_faults(table: Table, upstream: Upstream, auth: Auth) -> None:
    """Refuse an upstream that does not fit the way in which logins are verified."""
    if "master" in table and auth.mode is not AuthMode.MASTER:
        table.add("master", f'given with auth.mode = "{auth.mode}"; expected it only with auth.mode = "master"')
    replaced = any(isinstance(verifier, HttpVerifier) for verifier in auth.verifiers)
    if "master" not in table and auth.mode is AuthMode.MASTER and not replaced and not table.broken:
        table.add(
            "master",
            'missing; expected with what to log in for a user with auth.mode = "master", as there is no '
            'verifier with use = "http" to say it',
        )
    if upstream.pool_mode is not PoolMode.SESSION and auth.mode is AuthMode.RELAY:
        table.add(
            "pool_mode",
            f'"{upstream.pool_mode}" with auth.mode = "relay", where each session keeps the one connection it has '
            'logged in by; expected "session"',
        )
