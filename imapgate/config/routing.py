"""``[routing]``: which upstream a client goes to, read and checked.

Knows how conditions, look-ups and results are written, and what a rule may name; how rules are applied is
``imapgate.routing``'s to know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imapgate.config.files import file_faults
from imapgate.config.table import Table, choice, of_text, path_in, text
from imapgate.config.types import (
    AuthMode,
    HttpLookup,
    Lookup,
    Routing,
    RoutingRule,
    SqlLookup,
    TableLookup,
    Upstream,
)
from imapgate.config.upstreams import POOL_MODE
from imapgate.config.values import Unfit, duration, network, url
from imapgate.model.pool_mode import PoolMode

LONGEST_REASON = 200
SQLITE = "sqlite3"
POSTGRESQL = "psycopg"
CONDITIONS = ("listener", "server_name", "user", "domain", "network")
LOOKUPS = ("table", "sql", "http")
RESULTS = ("upstream", *LOOKUPS, "rewrite", "pool_mode", "nologin", "delay_until")
BY_USER = ("user", "domain", *LOOKUPS, "rewrite")
"""What cannot be decided before the client has said who it is."""

_SERVER_NAME = re.compile(r"[A-Za-z0-9*_-]+(?:\.[A-Za-z0-9*_-]+)*", re.ASCII)
_DOMAIN = re.compile(r"[\w*-]+(?:\.[\w*-]+)*")
_FIELD = re.compile(r"\{(?:user|local|domain)\}")
_ASIDE = re.compile(r"'[^']*'|\"[^\"]*\"|--.*|/\*[\s\S]*?\*/|%%")
"""What a parameter cannot stand in."""
_PASSWORD = re.compile(r"password\s*=|://[^/@]*:[^/@]*@", re.IGNORECASE)


class Surroundings(NamedTuple):
    """What a rule may name, and must agree with; None where faults elsewhere leave that open."""

    upstreams: Mapping[str, Upstream] | None
    listeners: Collection[str] | None
    mode: AuthMode | None


def read_routing(table: Table, base: Path, around: Surroundings) -> Routing:
    """Read the default and the rules."""
    upstreams = around.upstreams
    only = next(iter(upstreams)) if upstreams and len(upstreams) == 1 else ""
    default = table.take("default", one_of(upstreams), only)
    if upstreams and "default" not in table and not only and not table.broken:
        names = ", ".join(upstreams)
        table.add("default", f"missing; expected one of {names}, as there is more than one upstream")
    rules: list[RoutingRule] = []
    always = ""
    for rule_table in table.tables("rule"):
        rule = _rule(rule_table, base, default, around)
        if always:
            rule_table.add("", f"is never reached, as {always} has no condition; expected that one to be the last")
        elif not any(key in rule_table for key in (*CONDITIONS, *LOOKUPS)) and not rule_table.broken:
            always = rule_table.path
        rules.append(rule)
    table.finish()
    return Routing(default, tuple(rules))


def one_of(names: Collection[str] | None) -> Callable[[object], str]:
    """Return a reader of one of `names`; of any, where they are not known."""
    return choice({name: name for name in names}) if names else text


def _rule(table: Table, base: Path, default: str, around: Surroundings) -> RoutingRule:
    rule = RoutingRule(
        listener=tuple(table.values("listener", one_of(around.listeners))),
        server_name=tuple(table.values("server_name", of_text(_server_name))),
        user=tuple(table.values("user", of_text(_user))),
        domain=tuple(table.values("domain", of_text(_domain))),
        network=tuple(table.values("network", of_text(network))),
        upstream=table.take("upstream", one_of(around.upstreams), None),
        lookup=_lookup(table, base),
        rewrite=table.take("rewrite", of_text(_rewrite), None),
        pool_mode=table.take("pool_mode", POOL_MODE, None),
        nologin=table.take("nologin", of_text(_reason), None),
        delay_until=table.take("delay_until", _instant, None),
    )
    table.finish()
    if not any(key in table for key in RESULTS) and not table.broken:
        table.add("", f"no result; expected one of {', '.join(RESULTS)}")
    if around.mode is AuthMode.RELAY:
        for key in BY_USER:
            if key in table:
                table.add(key, 'given with auth.mode = "relay", in which the gate does not learn who the user is')
    if rule.pool_mode not in (None, PoolMode.SESSION):
        _mode_faults(table, rule, default, around)
    return rule


def _mode_faults(table: Table, rule: RoutingRule, default: str, around: Surroundings) -> None:
    """Refuse a connection that goes from client to client where a session can have but its own."""
    mode = rule.pool_mode
    if around.mode is AuthMode.RELAY:
        table.add("pool_mode", f'"{mode}" with auth.mode = "relay"; expected "session"')
    upstream = (around.upstreams or {}).get(rule.upstream or default)
    if upstream is not None and upstream.proxy_protocol and rule.lookup is None:
        table.add("pool_mode", f'"{mode}" for {upstream.name}, which has proxy_protocol = true; expected "session"')


def _lookup(table: Table, base: Path) -> Lookup | None:
    found: list[Lookup | None] = []
    file = table.take("table", path_in(base), None)
    if file is not None:
        for fault in file_faults(file):
            table.add("table", fault)
        found.append(TableLookup(file))
    if (sql := table.table_if_any("sql")) is not None:
        found.append(_sql(sql, base))
    if (http := table.table_if_any("http")) is not None:
        found.append(_http(http))
    written = [key for key in LOOKUPS if key in table]
    for key in written[1:]:
        table.add(key, f"given with {written[0]}; expected one look-up in a rule, and the other in the next")
    return found[0] if found else None


def _sql(table: Table, base: Path) -> SqlLookup | None:
    driver = table.take("driver", one_of([SQLITE, POSTGRESQL]), SQLITE)
    database = table.required("database", _database, "a path, or a connection string with psycopg")
    query = table.required("query", partial(_query, driver=driver), "a query for one user")
    timeout = table.take("timeout", duration, 5.0)
    table.finish()
    if database is None or query is None:
        return None
    if driver == SQLITE:
        database = str(base / database)
        for fault in file_faults(Path(database)):
            table.add("database", fault)
    return SqlLookup(driver, database, query, timeout)


def _database(value: object) -> str:
    """Read a path or a connection string, which is no place for a password."""
    if not isinstance(value, str) or not value or not value.isprintable() or _PASSWORD.search(value):
        raise Unfit("a path or a connection string, without a password (PGPASSFILE names a file for it)", secret=True)
    return value


def _query(value: object, driver: str) -> str:
    placeholder = "?" if driver == SQLITE else "%s"
    if not isinstance(value, str) or "\0" in value or _ASIDE.sub("", value).count(placeholder) != 1:
        raise Unfit(f"a query with one {placeholder} in it, which stands for the user")
    return value


def _http(table: Table) -> HttpLookup | None:
    where = table.required("url", of_text(url), 'a URL such as "http://127.0.0.1:9000/route"')
    timeout = table.take("timeout", duration, 5.0)
    table.finish()
    return None if where is None else HttpLookup(where, timeout)


def _server_name(value: str) -> str:
    if not _SERVER_NAME.fullmatch(value):
        raise Unfit('a name such as "imap.example.org" or "*.example.org"')
    return value.lower()


def _user(value: str) -> str:
    if " " in value:
        raise Unfit('a pattern such as "a*", without spaces')
    return value


def _domain(value: str) -> str:
    if not _DOMAIN.fullmatch(value):
        raise Unfit('a domain such as "example.org"')
    return value.lower()


def _rewrite(value: str) -> str:
    if re.search(r"[{} ]", _FIELD.sub("", value)):
        raise Unfit('a name made of {user}, {local} and {domain}, such as "{local}"')
    return value


def _reason(value: str) -> str:
    if not value.isascii() or len(value) > LONGEST_REASON:
        raise Unfit(f"a sentence of at most {LONGEST_REASON} ASCII characters")
    return value


def _instant(value: object) -> float:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.timestamp()
    raise Unfit("a date and time with its offset, not quoted, such as 2026-12-01T00:00:00Z")
