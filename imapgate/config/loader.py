"""The operator's configuration, from TOML or from the command line, read strictly.

Knows every key, what may stand there, and which choices exclude each other.  An unknown key, a value of the wrong type,
an impossible combination, a file that cannot be used: all are collected and raised at once as a `ConfigurationError`,
each with the key's path, what was expected and the nearest known name.  Must not know the reactor or `net/`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from imapgate.config.audit import read_audit
from imapgate.config.auth import read_auth
from imapgate.config.bounds import read_limits
from imapgate.config.files import folder_faults
from imapgate.config.listeners import read_listeners
from imapgate.config.plugins import read_plugins
from imapgate.config.routing import Surroundings, read_routing
from imapgate.config.table import Problems, Table, flag, of_text, path_in, text
from imapgate.config.types import Admin, Auth, Configuration, Listener, Trace
from imapgate.config.upstreams import read_upstreams
from imapgate.config.values import Unfit, duration, unix_path
from imapgate.errors import ConfigurationError

REFRAMING = frozenset({"STARTTLS", "AUTHENTICATE", "LOGIN", "LOGOUT", "IDLE", "COMPRESS", "UID"})
"""Verbs after which the bytes mean something else: passing them through unknown would open the gate."""

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
    document["plugin"] = entries = [{"use": name} for name in plugins]
    names = {
        "listener[0]": "--listen",
        "listener[0].endpoint": "--listen",
        "listener[0].tls": "--listen",
        "upstream.main": "--upstream",
        "upstream.main.tls": "--upstream",
        "upstream.main.endpoints": "--upstream",
        "upstream.main.endpoints[0]": "--upstream",
        "upstream.main.pool_mode": "--pool-mode",
        "audit.file": "--audit-log",
        "admin.control": "--control",
    }
    for index in range(len(entries)):
        names |= {f"plugin[{index}].use": "--plugin", f"plugin[{index}].name": "--plugin"}
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
    auth = read_auth(table.table("auth"), base, path)
    listeners = read_listeners(table, base)
    upstreams = read_upstreams(table, base, auth)
    around = Surroundings(
        upstreams if _whole(document.get("upstream"), upstreams) else None,
        [listener.name for listener in listeners] if _whole(document.get("listener"), listeners) else None,
        auth.mode if auth else None,
    )
    admin = _admin(table.table("admin"), base, listeners)
    trace = _trace(table.table_if_any("trace"), base)
    configuration = Configuration(
        listeners=listeners,
        upstreams=upstreams,
        routing=read_routing(table.table("routing"), base, around),
        auth=auth or Auth(),
        limits=read_limits(table.table("limits")),
        admin=admin,
        trace=trace,
        audit=read_audit(table.table_if_any("audit"), base, _taken(listeners, admin, trace)),
        plugins=read_plugins(table, base),
        allow_root=table.take("allow_root", flag, False),
        extra_verbs=tuple(table.values("extra_verbs", of_text(_verb))),
        path=path,
    )
    table.finish()
    if problems.found:
        raise ConfigurationError(problems.found)
    return configuration


def _whole(written: object, read: Collection[object]) -> bool:
    """Tell whether everything that is `written` could be `read`."""
    return isinstance(written, Mapping | list) and len(written) == len(read)


def _admin(table: Table, base: Path, listeners: tuple[Listener, ...]) -> Admin:
    read = of_text(lambda value: Path(unix_path(value, base, "the path of a Unix socket")))
    admin = Admin(table.take("control", read, None), table.take("control_read", read, None))
    table.finish()
    taken = {listener.endpoint.path: "a listener" for listener in listeners if listener.endpoint.path}
    for key, path in (("control", admin.control), ("control_read", admin.control_read)):
        if path is None:
            continue
        if str(path) in taken:
            table.add(key, f"the same as {taken[str(path)]}'s; expected a path of its own")
        taken[str(path)] = key
        for fault in folder_faults(path.parent):
            table.add(key, fault)
    return admin


def _trace(table: Table | None, base: Path) -> Trace | None:
    if table is None:
        return None
    user = table.required("user", text, "the name of one user")
    file = table.required("file", path_in(base), "the path of the trace file")
    until = table.required("until", duration, 'a duration such as "1h", after which it ends')
    table.finish()
    if file is not None:
        for fault in folder_faults(file.parent):
            table.add("file", fault)
    return Trace(user, file, until) if user and file and until else None


def _taken(listeners: tuple[Listener, ...], admin: Admin, trace: Trace | None) -> dict[str, str]:
    """Return the paths at which the gate has something of its own, with the words for it."""
    taken = {os.path.realpath(listener.endpoint.path): "a listener" for listener in listeners if listener.endpoint.path}
    for path, key in ((admin.control, "admin.control"), (admin.control_read, "admin.control_read")):
        if path is not None:
            taken[os.path.realpath(path)] = key
    if trace is not None:
        taken[os.path.realpath(trace.file)] = "trace.file"
    return taken


def _verb(value: str) -> str:
    verb = value.upper()
    if not _VERB.fullmatch(verb):
        raise Unfit('a verb such as "XLIST"')
    if verb in REFRAMING:
        raise Unfit("a verb that leaves the stream as it is", "The gate has its own way with this one.")
    return verb
