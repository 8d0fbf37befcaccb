"""The operator's configuration, from TOML or from the command line, read strictly.

Knows every key, what may stand there, and which choices exclude each other.  An unknown key, a value of the wrong type,
an impossible combination, a file that cannot be used: all are collected and raised at once as a `ConfigurationError`,
each with the key's path, what was expected and the nearest known name.  A key whose feature is not built yet is refused
by name.  Must not know the reactor or `net/`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from imapgate.config.files import certificate_faults, folder_faults, pair_faults
from imapgate.config.table import NotBuilt, Problems, Table, choice, flag, nearest, of_text, text
from imapgate.config.types import (
    Auth,
    CertificatePair,
    ClientEndpoint,
    Configuration,
    Listener,
    Routing,
    Tls,
    Trace,
    Unfit,
    Upstream,
    client_endpoint,
    duration,
    host_name,
    network,
    server_endpoint,
    size,
    whole,
)
from imapgate.errors import ConfigurationError
from imapgate.limits import DEFAULTS, KIB, MIB, Limits

POOLS = "connection pools"
SHARED = "shared mailboxes"
MASTER = "master users"
ADMIN = "the control socket"
AUDIT = "the audit trail"
PLUGINS = "plugins"
RULES = "routing rules"

LATER_TABLES = {"admin": ADMIN, "audit": AUDIT, "plugin": PLUGINS}
LATER_UPSTREAM = {
    "pool_size": POOLS,
    "pool_keep": POOLS,
    "pool_idle": POOLS,
    "pool_lifetime": POOLS,
    "pool_wait": POOLS,
    "idle_poll": SHARED,
    "idle_connections": SHARED,
    "park_after": SHARED,
    "share_stall": SHARED,
}
LATER_ROUTING = dict.fromkeys(
    ["rule", "rules", "user", "users", "domain", "domains", "listener", "sni", "network", "networks"], RULES
)
LATER_POOL_MODES = {"mailbox": POOLS, "shared": SHARED}
LATER_IDLE = {"share": SHARED, "poll": SHARED}
LATER_AUTH_MODES = {"master": MASTER, "relay": "relayed authentication"}

MEANT = {"ssl": "implicit", "tls": "implicit", "imaps": "implicit", "off": "none", "plain": "none", "no": "none"}
"""What people write for `tls` in other programs' configurations."""

REFRAMING = frozenset({"STARTTLS", "AUTHENTICATE", "LOGIN", "LOGOUT", "IDLE", "COMPRESS", "UID"})
"""Verbs after which the bytes mean something else: passing them through unknown would open the gate."""

SIZES = {  # the least that a session can work with
    "line_before_login": 512,
    "line_after_login": KIB,
    "sasl_line": 512,
    "argument_literal": 1,
    "command": KIB,
    "message_literal": 1,
    "upstream_line": KIB,
    "tag": 1,
    "user_name": 1,
}
MOST_OCTETS = 1024 * MIB
MOST_LITERAL = 2**32 - 1
"""RFC 3501 §9, `number`."""
MOST_COUNT = 1_000_000
MOST_DELAYS = 32

NOT_ABOVE = [  # the first makes no sense above the second
    ("line_before_login", "line_after_login"),
    ("argument_literal", "command"),
    ("connect_try", "connect_total"),
    ("nesting_before_login", "nesting_after_login"),
]

_UPSTREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_VERB = re.compile(r"[A-Z][A-Z0-9._-]{0,31}", re.ASCII)


def load(path: Path | str) -> Configuration:
    """Read the configuration file `path` and the certificates it names, or raise every fault as one error."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number or a nesting beyond Python's limits
        raise ConfigurationError([f"{path}: not valid TOML: {error}"]) from None
    return parse(document, str(path), file.absolute().parent, path=file.absolute())


def from_options(
    upstream: str,
    listen: str,
    *,
    pool_mode: str = "session",
    audit_log: str | None = None,
    plugins: Iterable[str] = (),
    control: str | None = None,
) -> Configuration:
    """Build the configuration that the command line's options describe: one upstream, one plain local listener."""
    document: dict[str, object] = {
        "listener": [{"endpoint": listen}],
        "upstream": {"main": {"endpoints": [upstream], "pool_mode": pool_mode}},
    }
    if audit_log is not None:
        document["audit"] = {"file": audit_log}
    if control is not None:
        document["admin"] = {"control": control}
    if plugins := list(plugins):
        document["plugin"] = [{"use": name} for name in plugins]
    names = {
        "listener[0]": "--listen",
        "listener[0].endpoint": "--listen",
        "listener[0].tls": "--listen",
        "upstream.main": "--upstream",
        "upstream.main.tls": "--upstream",
        "upstream.main.endpoints": "--upstream",
        "upstream.main.endpoints[0]": "--upstream",
        "upstream.main.pool_mode": "--pool-mode",
        "audit": "--audit-log",
        "admin": "--control",
        "plugin": "--plugin",
    }
    return parse(document, "command line", Path.cwd(), names=names)


def parse(
    document: Mapping[str, object],
    source: str,
    base: Path,
    *,
    path: Path | None = None,
    names: Mapping[str, str] | None = None,
) -> Configuration:
    """Check a parsed TOML `document`; relative paths are relative to `base`, and faults are said of `source`."""
    problems = Problems(source, names or {})
    table = Table(problems, "", document)
    listeners = _listeners(table, base)
    upstreams = _upstreams(table, base)
    written = document.get("upstream")
    routing = _routing(
        table.table("routing"),
        list(upstreams),
        sound=isinstance(written, Mapping) and len(upstreams) == len(written) > 0,
    )
    configuration = Configuration(
        listeners=listeners,
        upstreams=upstreams,
        routing=routing,
        auth=_auth(table.table("auth")),
        limits=_limits(table.table("limits")),
        trace=_trace(table.table("trace"), base, wanted="trace" in document),
        allow_root=table.take("allow_root", flag, False),
        extra_verbs=tuple(table.values("extra_verbs", of_text(_verb))),
        path=path,
    )
    table.finish(LATER_TABLES)
    if problems.found:
        raise ConfigurationError(problems.found)
    return configuration


def _listeners(document: Table, base: Path) -> tuple[Listener, ...]:
    tables = document.tables("listener")
    if not tables and document.sound("listener"):
        document.add("", 'no [[listener]]; expected at least one, with an endpoint such as "tcp:993"')
    listeners: list[Listener] = []
    seen: dict[object, str] = {}
    for table in tables:
        listener = _listener(table, base)
        if listener is None:
            continue
        listeners.append(listener)
        endpoint = listener.endpoint
        if endpoint.kind == "tcp" and endpoint.port == 0:
            continue
        place = endpoint.path or (endpoint.host, endpoint.port) if endpoint.kind != "systemd" else endpoint.text
        if place in seen:
            table.add("endpoint", f"the same as {seen[place]}'s; expected each listener to have its own")
        seen.setdefault(place, table.path)
    return tuple(listeners)


def _listener(table: Table, base: Path) -> Listener | None:
    endpoint = table.required(
        "endpoint", of_text(partial(server_endpoint, base=base)), 'a server endpoint such as "tcp:993"'
    )
    tls = table.take("tls", choice({mode.value: mode for mode in Tls}, meant=MEANT), Tls.NONE)
    certificates = _certificates(table, base)
    allow_plaintext = table.take("allow_plaintext", flag, False)
    proxy_protocol = table.take("proxy_protocol", flag, False)
    trusted_proxies = tuple(table.values("trusted_proxies", of_text(network)))
    table.finish()
    if table.sound("tls", "certificates"):
        if tls is not Tls.NONE and not certificates:
            table.add("certificates", f'missing; expected at least one pair with tls = "{tls}"')
        if tls is Tls.NONE and certificates:
            table.add("certificates", 'given with tls = "none"; expected tls to be "implicit" or "starttls"')
    if table.sound("tls", "allow_plaintext"):
        # Where the endpoint is faulty it may well have been meant for loopback: say nothing.
        if tls is Tls.NONE and endpoint is not None and not endpoint.local and not allow_plaintext:
            table.add(
                "tls",
                f"plain connections are for loopback and Unix sockets, which {endpoint.text} is not; expected "
                'tls = "implicit" or "starttls" with certificates, or allow_plaintext = true',
            )
        if tls is not Tls.NONE and allow_plaintext:
            table.add("allow_plaintext", f'true with tls = "{tls}"; expected it only with tls = "none"')
    if table.sound("proxy_protocol", "trusted_proxies"):
        if proxy_protocol and not trusted_proxies and not (endpoint and endpoint.unix):
            table.add("trusted_proxies", "missing; expected the networks of the proxies with proxy_protocol = true")
        if trusted_proxies and not proxy_protocol:
            table.add("trusted_proxies", "given without proxy_protocol; expected proxy_protocol = true")
        if proxy_protocol and endpoint is not None and endpoint.unix:
            table.add("proxy_protocol", "true on a Unix socket, whose peers have no address to trust; expected false")
    if endpoint is None:
        return None
    return Listener(endpoint, tls, certificates, allow_plaintext, proxy_protocol, trusted_proxies)


def _certificates(listener: Table, base: Path) -> tuple[CertificatePair, ...]:
    pairs: list[CertificatePair] = []
    for index, table in enumerate(listener.tables("certificates")):
        certificate = table.required("certificate", _path(base), "the path of a PEM file")
        private_key = table.required("private_key", _path(base), "the path of a PEM file")
        table.finish()
        if certificate is None or private_key is None:
            listener.taint("certificates")
            continue
        pair = CertificatePair(certificate, private_key)
        for key, fault in pair_faults(pair, default=index == 0):
            table.add(key, fault)
        pairs.append(pair)
    return tuple(pairs)


def _upstreams(document: Table, base: Path) -> dict[str, Upstream]:
    table = document.table("upstream")
    if not table.names() and not table.broken:
        document.add("", "no [upstream.NAME]; expected at least one, with its endpoints")
    upstreams: dict[str, Upstream] = {}
    for name in table.names():
        upstream = _upstream(name, table.table(name), base)
        if not _UPSTREAM_NAME.fullmatch(name):
            table.add(name, "expected a name of letters, digits, dots, dashes and underscores, at most 64")
        elif upstream is not None:  # only names that are fit to be logged go any further
            upstreams[name] = upstream
    return upstreams


def _upstream(name: str, table: Table, base: Path) -> Upstream | None:
    endpoints = tuple(table.values("endpoints", of_text(partial(client_endpoint, base=base))))
    if not endpoints and table.sound("endpoints"):
        table.add("endpoints", 'missing; expected a list such as ["tcp:mail.example.org:143"]')
    tls = table.take("tls", choice({mode.value: mode for mode in Tls}, meant=MEANT), _usual_tls(endpoints))
    ca = table.take("ca", _path(base), None)
    server_name = table.take("server_name", of_text(host_name), None)
    insecure = table.take("insecure", flag, False)
    upstream = Upstream(
        name,
        endpoints,
        tls,
        ca,
        server_name,
        insecure,
        id_originating=table.take("id_originating", flag, False),
        proxy_protocol=table.take("proxy_protocol", flag, False),
        pool_mode=table.take("pool_mode", choice({"session": "session"}, LATER_POOL_MODES), "session"),
        idle=table.take("idle", choice({"relay": "relay"}, LATER_IDLE), "relay"),
    )
    table.finish(LATER_UPSTREAM)
    if ca is not None:
        for fault in certificate_faults(ca):
            table.add("ca", fault)
    if table.sound("tls", "endpoints"):
        _upstream_tls(table, upstream)
    if insecure and ca is not None:
        table.add("ca", "given with insecure = true, which verifies nothing; expected one of the two")
    return upstream if endpoints else None


def _usual_tls(endpoints: tuple[ClientEndpoint, ...]) -> Tls:
    """Return what `tls` is where it is not written: plain only where nothing can leave this machine."""
    if any(endpoint.kind == "tls" for endpoint in endpoints):
        return Tls.IMPLICIT
    return Tls.NONE if all(endpoint.local for endpoint in endpoints) else Tls.STARTTLS


def _upstream_tls(table: Table, upstream: Upstream) -> None:
    """Refuse what cannot go together with the way an upstream is encrypted."""
    tls = upstream.tls
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


def _routing(table: Table, upstreams: list[str], *, sound: bool) -> Routing:
    default = table.take("default", text, upstreams[0] if len(upstreams) == 1 else "")
    table.finish(LATER_ROUTING)
    # Upstreams that have faults of their own are not there to be named.
    if sound and table.sound("default"):
        if "default" not in table and len(upstreams) > 1:
            table.add("default", f"missing; expected one of {', '.join(upstreams)}, as there is more than one upstream")
        elif "default" in table and default not in upstreams:
            names = ", ".join(upstreams)
            table.add("default", f'no upstream "{default}"; expected one of {names}.{nearest(default, upstreams)}')
    return Routing(default)


def _auth(table: Table) -> Auth:
    def credential_cache(value: object) -> float:
        if (seconds := duration(value, zero=True)) > 0:
            raise NotBuilt(POOLS)
        return seconds

    auth = Auth(
        mode=table.take("mode", choice({"pass": "pass"}, LATER_AUTH_MODES), "pass"),
        credential_cache=table.take("credential_cache", credential_cache, 0.0),
    )
    table.finish()
    return auth


def _limits(table: Table) -> Limits:
    values: dict[str, Any] = {}
    for field in fields(Limits):
        default = getattr(DEFAULTS, field.name)
        if field.name == "failed_login_delays":
            if field.name in table:
                values[field.name] = tuple(table.values(field.name, partial(duration, zero=True)))
        else:
            values[field.name] = table.take(field.name, _limit(field.name, default), default)
    table.finish()
    limits = Limits(**values)
    if len(limits.failed_login_delays) > MOST_DELAYS:
        table.add("failed_login_delays", f"expected at most {MOST_DELAYS} durations")
    for low, high in NOT_ABOVE:
        if table.sound(low, high) and getattr(limits, low) > getattr(limits, high):
            key, other = (low, high) if low in table else (high, low)
            relation = "at most" if key == low else "at least"
            table.add(key, f"{_plain(limits, key)}; expected {relation} {other}, which is {_plain(limits, other)}")
    return limits


def _limit(name: str, default: object) -> Callable[[object], float]:
    """Return the reader of one limit, by what its default is."""
    if isinstance(default, float):
        return duration
    if name in SIZES:
        return partial(size, least=SIZES[name], most=MOST_LITERAL if name == "message_literal" else MOST_OCTETS)
    return partial(whole, least=0 if name == "clients" else 1, most=MOST_COUNT)


def _plain(limits: Limits, name: str) -> str:
    value = getattr(limits, name)
    return f"{value:g}s" if isinstance(value, float) else str(value)


def _trace(table: Table, base: Path, *, wanted: bool) -> Trace | None:
    if not wanted:
        return None
    user = table.required("user", text, "the name of one user")
    file = table.required("file", _path(base), "the path of the trace file")
    until = table.required("until", duration, 'a duration such as "1h", after which it ends')
    table.finish()
    if file is not None:
        for fault in folder_faults(file.parent):
            table.add("file", fault)
    return Trace(user, file, until) if user and file and until else None


def _path(base: Path) -> Callable[[object], Path]:
    return of_text(lambda value: base / value)


def _verb(value: str) -> str:
    verb = value.upper()
    if not _VERB.fullmatch(verb):
        raise Unfit('a verb such as "XLIST"')
    if verb in REFRAMING:
        raise Unfit("a verb that leaves the stream as it is", "The gate has its own way with this one.")
    return verb
