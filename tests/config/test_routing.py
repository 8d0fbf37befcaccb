"""Which upstream a client goes to: every rule arrives, and what does not fit is refused."""

from __future__ import annotations

import ipaddress
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imapgate.config import parse
from imapgate.config.types import HttpLookup, Routing, RoutingRule, SqlLookup, TableLookup
from imapgate.model.pool_mode import PoolMode
from tests.config.configurations import make_folder, problems_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with tables, and files that are none."""
    return make_folder(tmp_path_factory.mktemp("configuration"))


TWO = """
[[listener]]
endpoint = "tcp:1143:interface=127.0.0.1"
name = "public"
[[listener]]
endpoint = "tcp:2143:interface=127.0.0.1"
[upstream.legacy]
endpoints = ["tcp:127.0.0.1:143"]
[upstream.new]
endpoints = ["tcp:127.0.0.1:144"]
proxy_protocol = true
[routing]
default = "legacy"
"""


def routing(text: str, folder: Path) -> Routing:
    """Return what is read of the rules in `text`."""
    return parse(tomllib.loads(TWO + text), "x", folder).routing


def test_conditions(tmp_path: Path) -> None:
    """Every condition arrives, names of hosts in lower case."""
    text = """
    [[routing.rule]]
    listener = ["public", "tcp:2143:interface=127.0.0.1"]
    server_name = ["*.Example.org", "imap.example.net"]
    user = ["a*", "Bob@example.org"]
    domain = ["Example.org", "m\u00fcnchen.example", "*.example.net"]
    network = ["10.0.0.0/8", "2001:db8::/32"]
    upstream = "new"
    """
    assert routing(text, tmp_path).rules == (
        RoutingRule(
            listener=("public", "tcp:2143:interface=127.0.0.1"),
            server_name=("*.example.org", "imap.example.net"),
            user=("a*", "Bob@example.org"),
            domain=("example.org", "m\u00fcnchen.example", "*.example.net"),
            network=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")),
            upstream="new",
        ),
    )


def test_results(tmp_path: Path) -> None:
    """Every result arrives, with the time in seconds as clocks have it."""
    text = """
    [[routing.rule]]
    user = ["a*"]
    rewrite = "{local}+{domain}-{user}"
    pool_mode = "mailbox"
    [[routing.rule]]
    user = ["b*"]
    delay_until = 2026-12-01T01:00:00+01:00
    [[routing.rule]]
    domain = ["example.org"]
    pool_mode = "shared"
    [[routing.rule]]
    nologin = "Closed until Monday"
    """
    assert routing(text, tmp_path).rules == (
        RoutingRule(user=("a*",), rewrite="{local}+{domain}-{user}", pool_mode=PoolMode.MAILBOX),
        RoutingRule(user=("b*",), delay_until=datetime(2026, 12, 1, tzinfo=UTC).timestamp()),
        RoutingRule(domain=("example.org",), pool_mode=PoolMode.SHARED),
        RoutingRule(nologin="Closed until Monday"),
    )


def test_lookups(folder: Path) -> None:
    """Every look-up arrives, its paths relative to the file; one without a condition may find nothing."""
    text = """
    [[routing.rule]]
    table = "users.table"
    [[routing.rule]]
    sql = { database = "users.db", query = \"\"\"
        SELECT upstream FROM users -- which of them?
        WHERE name = ? AND kind <> '?'\"\"\" }
    [[routing.rule]]
    sql = { driver = "psycopg", database = "host=db dbname=mail", query = "SELECT 1 WHERE 'a' LIKE '%%' AND b = %s" }
    [[routing.rule]]
    http = { url = "https://route.example.org/?key=1", timeout = "1s" }
    upstream = "new"
    """
    table, sqlite, postgresql, http = (rule.lookup for rule in routing(text, folder).rules)
    assert table == TableLookup(folder / "users.table")
    assert isinstance(sqlite, SqlLookup)
    assert (sqlite.driver, sqlite.database, sqlite.timeout) == ("sqlite3", str(folder / "users.db"), 5.0)
    assert sqlite.query.endswith("WHERE name = ? AND kind <> '?'")
    assert isinstance(postgresql, SqlLookup)
    assert (postgresql.driver, postgresql.database) == ("psycopg", "host=db dbname=mail")
    assert http == HttpLookup("https://route.example.org/?key=1", 1.0)


SQL = "[[routing.rule]]\nsql = { database = 'users.db', query = 'SELECT ?' }"

REFUSED = [
    ("[[routing.rule]]", "routing.rule[0]: no result; expected one of upstream, table, sql, http, rewrite, pool_mode,"),
    ("[[routing.rule]]\nuser = ['a']", "routing.rule[0]: no result; expected one of upstream, table, sql, http,"),
    (
        "[routing.rule]\nupstream = 'new'",
        "routing.rule: expected a list of tables; got a table. Write [[routing.rule]]",
    ),
    ("rules = []", 'routing.rules: unknown key; expected one of default, rule. Did you mean "rule"?'),
    (
        "[[routing.rule]]\nupstream = 'old'",
        'routing.rule[0].upstream: expected one of "legacy", "new"; got "old"',
    ),
    (
        "[[routing.rule]]\nlistener = ['publik']\nupstream = 'new'",
        'routing.rule[0].listener[0]: expected one of "public", "tcp:2143:interface=127.0.0.1"; got "publik". Did you',
    ),
    (
        "[[routing.rule]]\nupstream = 'new'\n[[routing.rule]]\nupstream = 'legacy'",
        "routing.rule[1]: is never reached, as routing.rule[0] has no condition; expected that one to be the last",
    ),
    (
        f"{SQL}\ntable = 'users.table'",
        "routing.rule[0].sql: given with table; expected one look-up in a rule, and the other in the next",
    ),
    (
        f"{SQL}\nhttp = {{ url = 'http://127.0.0.1/' }}",
        "routing.rule[0].http: given with sql; expected one look-up in a rule, and the other in the next",
    ),
    ("[[routing.rule]]\nusers = ['a']\nupstream = 'new'", 'users: unknown key. Did you mean "user"?'),
    ("[[routing.rule]]\nuser = 'a'\nupstream = 'new'", 'routing.rule[0].user: expected a list; got "a"'),
    ("[[routing.rule]]\nuser = ['a b']\nupstream = 'new'", 'user[0]: expected a pattern such as "a*", without spaces'),
    (
        "[[routing.rule]]\ndomain = ['@a.b']\nupstream = 'new'",
        'domain[0]: expected a domain such as "example.org"; got "@',
    ),
    ("[[routing.rule]]\nserver_name = ['a/b']\nupstream = 'new'", 'server_name[0]: expected a name such as "imap.exam'),
    (
        "[[routing.rule]]\nnetwork = ['10.0.0.1/8']\nupstream = 'new'",
        'network[0]: expected a network without host bits; got "10.0.0.1/8". Did you mean "10.0.0.0/8"?',
    ),
    *[
        (
            f"[[routing.rule]]\nrewrite = '{rewrite}'",
            "rewrite: expected a name made of {user}, {local} and {domain}, such as",
        )
        for rewrite in (
            "{name}",
            "{user",
            "user}",
            "{}",
            "{0}",
            "{user!r}",
            "{user:>9}",
            "{user.__class__}",
            "{{a}}",
            "a b",
        )
    ],
    *[
        (
            f"[[routing.rule]]\nupstream = 'new'\npool_mode = '{mode}'",
            f'routing.rule[0].pool_mode: "{mode}" for new, which has proxy_protocol = true; expected "session"',
        )
        for mode in ("mailbox", "shared")
    ],
    ("[[routing.rule]]\nnologin = ''", "nologin: expected a string that is not empty"),
    ("[[routing.rule]]\nnologin = 'gr\u00fcn'", "nologin: expected a sentence of at most 200 ASCII characters"),
    (f"[[routing.rule]]\nnologin = '{'x' * 201}'", "nologin: expected a sentence of at most 200 ASCII characters"),
    (
        "[[routing.rule]]\ndelay_until = 2026-12-01T00:00:00",
        "delay_until: expected a date and time with its offset, not",
    ),
    ("[[routing.rule]]\ndelay_until = 2026-12-01", "delay_until: expected a date and time with its offset, not quoted"),
    ("[[routing.rule]]\ndelay_until = '2026-12-01T00:00:00Z'", "delay_until: expected a date and time with its offset"),
    ("[[routing.rule]]\ntable = 'gone'", "routing.rule[0].table: gone: cannot be read: No such file or directory"),
    ("[[routing.rule]]\nhttp = {}", 'http.url: missing; expected a URL such as "http://127.0.0.1:9000/route"'),
    ("[[routing.rule]]\nhttp = 'http://127.0.0.1/'", "routing.rule[0].http: expected a table; got"),
    (
        "[[routing.rule]]\nhttp = { url = 'http://192.0.2.1/' }",
        'http.url: expected https://, or an address of this machine; got "http://192.0.2.1/"',
    ),
    (
        "[[routing.rule]]\nsql = { query = 'SELECT ?' }",
        "sql.database: missing; expected a path, or a connection string",
    ),
    ("[[routing.rule]]\nsql = { database = 'users.db' }", "sql.query: missing; expected a query for one user"),
    (
        "[[routing.rule]]\nsql = { database = 'gone.db', query = 'SELECT ?' }",
        "routing.rule[0].sql.database: gone.db: cannot be read: No such file or directory",
    ),
    (SQL.replace("query", "driver = 'mysql', query"), 'sql.driver: expected one of "sqlite3", "psycopg"; got "mysql"'),
    *[
        (SQL.replace("SELECT ?", query), "sql.query: expected a query with one ? in it, which stands for the user; got")
        for query in ("SELECT 1", "SELECT ? + ?", "SELECT %s", "SELECT 1 -- ?", "SELECT 1 /* ? */", 'SELECT "?"')
    ],
    (
        SQL.replace("query", "driver = 'psycopg', query"),
        "sql.query: expected a query with one %s in it, which stands for the user; got",
    ),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_refused(text: str, expected: str, folder: Path) -> None:
    """Each fault is found, is the only one found, and is worded with its path and what was expected."""
    (problem,) = problems_in(TWO + text, folder)
    assert expected in problem
    assert problem.startswith("routing.rule")


@pytest.mark.parametrize("database", ["host=db password=canary", "postgresql://mail:canary@db/mail", "canary\\n", ""])
def test_a40_password_for_a_database_is_not_shown(database: str, folder: Path) -> None:
    """A connection string that may hold a password is refused without being repeated (A40)."""
    text = f"""[[routing.rule]]\nsql = {{ driver = "psycopg", database = "{database}", query = "SELECT %s" }}"""
    (problem,) = problems_in(TWO + text, folder)
    assert "sql.database: expected a path or a connection string, without a password" in problem
    assert "canary" not in problem


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ("user = ['a*']\nupstream = 'new'", "user"),
        ("domain = ['example.org']\nupstream = 'new'", "domain"),
        ("table = 'users.table'", "table"),
        ("sql = { database = 'users.db', query = 'SELECT ?' }", "sql"),
        ("http = { url = 'http://127.0.0.1/' }", "http"),
        ("rewrite = '{local}'", "rewrite"),
        ("pool_mode = 'mailbox'", "pool_mode"),
        ("pool_mode = 'shared'", "pool_mode"),
    ],
)
def test_rules_that_relaying_makes_impossible(rule: str, key: str, folder: Path) -> None:
    """Where every mechanism is relayed no rule can depend on the user, whom only the upstream learns."""
    (problem,) = problems_in(f"{TWO}[[routing.rule]]\n{rule}\n[auth]\nmode = 'relay'", folder)
    assert problem.startswith(f"routing.rule[0].{key}: ")
    assert 'auth.mode = "relay"' in problem


def test_faults_elsewhere_are_said_once(folder: Path) -> None:
    """A rule that names a faulty listener or upstream is not refused for that, too."""
    text = TWO.replace("tcp:127.0.0.1:144", "tcp:127.0.0.1").replace("tcp:2143:interface", "tcp:2143:face")
    problems = problems_in(f"{text}[[routing.rule]]\nlistener = ['x']\nupstream = 'new'\nlisten = 3", folder)
    assert [problem.partition(":")[0] for problem in problems] == [
        "listener[1].endpoint",
        "upstream.new.endpoints[0]",
        "routing.rule[0].listen",
    ]
