"""Which upstream a user is sent to, by everything that a rule may look at; and what becomes of a login without one."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.conftest import User
from tests.integration.ctl import ADMIN, pool
from tests.integration.gate import Gate, upstream_of
from tests.integration.sasl import authenticate, cram_md5, encoded
from tests.integration.scripted import BEFORE, Recorder, Script
from tests.integration.servers import CertificateAuthority, Dovecot, free_port, wait_until
from tests.integration.test_login_failures import _login
from tests.integration.web import Reply, Web
from tests.integration.wire import Wire, connect, tls_context

NewUser = Callable[..., User]
UNAVAILABLE = b"NO [UNAVAILABLE] "
UNKNOWN = UNAVAILABLE + b"The mail server of this user cannot be found out; try again later\r\n"
LOOPBACK = "127.0.0.1"


class Crossroads(NamedTuple):
    """A gate with every kind of rule, before three upstreams of which only the first is the default."""

    gate: Gate
    upstreams: dict[str, Recorder]
    web: Web
    folder: Path
    ports: dict[str, int]

    def login(self, user: str, wire: Wire | None = None) -> bytes:
        """Log in from a client of the plain listener, unless another is given; give the completion."""
        with wire or connect(LOOPBACK, self.ports["public"]) as client:
            return authenticate(client, "PLAIN", initial=encoded("", user, "secret"))

    def went(self, user: str) -> list[str]:
        """The upstreams that have seen a login of this name, one for each."""
        return [name for name, recorder in self.upstreams.items() for _ in recorder.of(user.encode())]

    def goes(self, user: str, wire: Wire | None = None, *, as_user: str | None = None) -> str:
        """Log in; give the one upstream that saw it."""
        name = as_user or user
        before = self.went(name)
        assert self.login(user, wire).startswith(b"OK ")
        after = self.went(name)
        for known in before:
            after.remove(known)
        (upstream,) = after
        return upstream

    def write_table(self, *lines: str) -> None:
        """Put another table in the place of the one that is there."""
        new = self.folder / "new.table"
        new.write_text("".join(f"{line}\n" for line in lines))
        new.rename(self.folder / "users.table")

    def database(self, statement: str, *values: str) -> None:
        """Change the database."""
        with closing(sqlite3.connect(self.folder / "users.db", timeout=10)) as database, database:
            database.execute(statement, values)


def _rules(folder: Path, web: Web) -> list[dict[str, Any]]:
    query = "SELECT upstream, login AS user, mode AS pool_mode FROM users WHERE name = ?"
    missing = {"database": folder / "broken.db", "query": "SELECT upstream FROM users WHERE name = ?"}
    return [
        {"listener": ["special"], "upstream": "three"},
        {"server_name": ["*.three.example", "three.example"], "upstream": "three"},
        {"network": ["198.51.100.0/24", "2001:db8::/32"], "upstream": "two"},
        {"user": ["b*", "c?"], "upstream": "two"},
        {"domain": ["two.example"], "rewrite": "{local}", "upstream": "two"},
        {"domain": ["moved.example"], "rewrite": "{local}@three.example", "upstream": "three"},
        {"user": ["mailbox-*"], "pool_mode": "mailbox"},
        {"user": ["out-*"], "nologin": "Back on Monday, 9:00"},
        {"domain": ["table.example"], "table": folder / "users.table"},
        {"domain": ["sql.example"], "sql": {"database": folder / "users.db", "query": query}},
        {"domain": ["http.example"], "http": {"url": web.url("/route"), "timeout": "1s"}},
        {"domain": ["down.example"], "http": {"url": f"http://{LOOPBACK}:{free_port()}/"}},
        {"domain": ["broken.example"], "sql": missing},
    ]


@pytest.fixture(scope="module")
def roads(tmp_path_factory: Any, authority: CertificateAuthority) -> Iterator[Crossroads]:
    """One gate, whose look-ups are changed while it runs."""
    folder: Path = tmp_path_factory.mktemp("roads")
    ports = {name: free_port() for name in ("public", "special", "secure", "balanced")}
    certificate, key = authority.issue()
    places: dict[str, dict[str, Any]] = {
        name: {"name": name, "endpoint": f"tcp:{port}:interface={LOOPBACK}"} for name, port in ports.items()
    }
    places["secure"] |= {"tls": "implicit", "certificates": [{"certificate": certificate, "private_key": key}]}
    places["balanced"] |= {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"], "allow_plaintext": True}
    (folder / "users.table").write_text("")
    (folder / "broken.db").write_bytes(b"this is no database" * 100)
    with closing(sqlite3.connect(folder / "users.db")) as database, database:
        database.execute("CREATE TABLE users (name TEXT PRIMARY KEY, upstream TEXT, login TEXT, mode TEXT)")
    with ExitStack() as stack:
        web = stack.enter_context(Web(lambda question: Reply(404)))
        script = Script(before=BEFORE + b" AUTH=CRAM-MD5")
        upstreams = {name: stack.enter_context(Recorder(script)) for name in ("one", "two", "three")}
        tables = {
            name: {"endpoints": [f"tcp:{LOOPBACK}:{recorder.port}"], "tls": "none"}
            for name, recorder in upstreams.items()
        }
        gate = Gate(
            tables,
            authority=authority,
            listeners=list(places.values()),
            ports=list(ports.values()),
            routing={"default": "one", "rule": _rules(folder, web)},
            admin=ADMIN,
        )
        stack.enter_context(gate)
        yield Crossroads(gate, upstreams, web, folder, ports)


# -- rules ------------------------------------------------------------------------------------------------------------


def test_nobody_in_particular(roads: Crossroads) -> None:
    """Whom no rule is about goes to the default."""
    assert roads.goes("alice") == "one"
    assert roads.goes("alice@example.org") == "one"


def test_by_listener(roads: Crossroads) -> None:
    """By where a client comes in."""
    assert roads.goes("alice", connect(LOOPBACK, roads.ports["special"])) == "three"


@pytest.mark.parametrize(
    ("server_name", "upstream"),
    [
        ("mail.three.example", "three"),
        ("MAIL.Three.Example", "three"),
        ("three.example", "three"),
        ("three.example.org", "one"),
        ("localhost", "one"),
        ("127.0.0.1", "one"),
    ],
)
def test_by_server_name(roads: Crossroads, server_name: str, upstream: str) -> None:
    """By what a TLS client calls the gate (SNI); an address is no name."""
    wire = connect(LOOPBACK, roads.ports["secure"], tls_context(), server_name=server_name)
    assert roads.goes("alice", wire) == upstream


@pytest.mark.parametrize(
    ("address", "upstream"),
    [("198.51.100.7", "two"), ("198.51.101.7", "one"), ("2001:db8::7", "two"), ("::ffff:198.51.100.7", "two")],
)
def test_by_network(roads: Crossroads, address: str, upstream: str) -> None:
    """By where a client is, as a trusted proxy has told."""
    family, here = ("TCP6", "2001:db8::99") if ":" in address else ("TCP4", "192.0.2.99")
    header = f"PROXY {family} {address} {here} 40001 143\r\n".encode()
    assert roads.goes("alice", connect(LOOPBACK, roads.ports["balanced"], preamble=header)) == upstream


@pytest.mark.parametrize(
    ("user", "upstream"),
    [("bob", "two"), ("b", "two"), ("Bob", "one"), ("cc", "two"), ("ccc", "one"), ("bob@two.example", "two")],
)
def test_by_user(roads: Crossroads, user: str, upstream: str) -> None:
    """By patterns of whole names, of which the first rule that fits decides: nothing is rewritten by a later one."""
    assert roads.goes(user) == upstream


def test_by_domain(roads: Crossroads) -> None:
    """By what is behind the last @, in any case; the name upstream is another one."""
    assert roads.goes("alice@two.example", as_user="alice") == "two"
    assert roads.goes("alice@TWO.example", as_user="alice") == "two"
    assert roads.goes("al@ice@moved.example", as_user="al@ice@three.example") == "three"
    assert roads.goes("alice@moved.example.org") == "one"
    assert roads.login("@two.example").startswith(b"NO [AUTHENTICATIONFAILED] ")  # rewritten to nothing


def _leased(gate: Gate, user: str, number: int) -> None:
    wait_until(lambda: pool(gate, user)["leased"] == number, f"{number} connections to be in use")


def test_pool_mode_of_a_user(roads: Crossroads) -> None:
    """One user's connection is only lent while a mailbox is selected, the other's from login to logout."""
    for user, leased in (("mailbox-alice", 0), ("session-alice", 1)):
        with connect(LOOPBACK, roads.ports["public"]) as wire:
            wire.login(user, "secret")
            _leased(roads.gate, user, leased)
            assert pool(roads.gate, user)["sessions"] == 1
            wire.ok(b"SELECT INBOX")
            assert pool(roads.gate, user)["leased"] == 1
            wire.logout()


def test_relayed_mechanisms(roads: Crossroads) -> None:
    """One that hides the user is offered, and taken, only where no rule has to know who that is."""

    def offered(listener: str) -> bool:
        with connect(LOOPBACK, roads.ports[listener]) as wire:
            return b"AUTH=CRAM-MD5" in wire.capabilities()

    wait_until(lambda: offered("special"), "the mechanism to be offered")
    assert not offered("public")
    with connect(LOOPBACK, roads.ports["special"]) as wire:
        authenticate(wire, "CRAM-MD5", cram_md5("alice", "secret"))
    with connect(LOOPBACK, roads.ports["public"]) as wire:
        assert authenticate(wire, "CRAM-MD5", cram_md5("alice", "secret")).startswith(b"NO [CANNOT] ")
    asked = [
        name
        for name, recorder in roads.upstreams.items()
        for talk in recorder.conversations
        for command in talk.commands
        if b"CRAM-MD5" in command.raw
    ]
    assert asked == ["three"]


def test_nologin(roads: Crossroads) -> None:
    """Who may not log in is told why, and no upstream is asked."""
    assert roads.login("out-alice") == UNAVAILABLE + b"Back on Monday, 9:00\r\n"
    assert roads.went("out-alice") == []


# -- look-ups ---------------------------------------------------------------------------------------------------------


def test_table(roads: Crossroads) -> None:
    """A table that is replaced holds within a second or two; one that is broken changes nothing, and is told."""
    alice, carol = "alice@table.example", "xcarol@table.example"
    roads.write_table(f"{alice} upstream=two", "@table.example upstream=three user=everybody")
    wait_until(lambda: roads.goes(alice) == "two", "the first table")
    assert roads.goes(carol, as_user="everybody") == "three"

    roads.write_table(f"{alice} upstream=three", f"{carol} upstrem=two")

    def told() -> bool:
        assert roads.goes(alice) == "two"
        return "users.table:2: 'upstrem' is none of upstream, user, pool_mode, nologin, delay_until" in roads.gate.log()

    wait_until(told, "the broken table to be looked at")
    roads.write_table(f"{alice} upstream=three")
    wait_until(lambda: roads.goes(alice) == "three", "the last table")
    assert roads.goes(carol) == "one"  # not found: a matter for the rules behind


def test_times(roads: Crossroads) -> None:
    """A login waits for a time that is near; one that is far away is refused, and so is one with a reason."""
    near, far, out = "near@table.example", "far@table.example", "out@table.example"
    moment = time.time() + 2.5
    written = datetime.fromtimestamp(moment, UTC).isoformat()
    roads.write_table(
        f"{near} delay_until={written} upstream=two",
        f"{far} delay_until=2099-01-01T00:00:00Z upstream=two",
        f'{out} nologin="Your \\"mailbox\\" is being moved" upstream=two',
    )
    told = UNAVAILABLE + b'Your "mailbox" is being moved\r\n'
    wait_until(lambda: roads.login(out) == told, "the table")
    with connect(LOOPBACK, roads.ports["public"]) as wire:
        wire.login(near, "secret")
        assert time.time() >= moment
    assert roads.login(far) == UNAVAILABLE + b"No login at this time; try again later\r\n"
    assert roads.login(out) == told
    assert (roads.went(near), roads.went(far)) == (["two"], [])


def test_database(roads: Crossroads) -> None:
    """A row that is there holds, one that is changed holds at once, one that makes no sense lets nobody in."""
    alice = "alice@sql.example"
    assert roads.goes(alice) == "one"
    roads.database("INSERT INTO users VALUES (?, 'two', NULL, NULL)", alice)
    assert roads.goes(alice) == "two"
    roads.database("UPDATE users SET upstream = 'three', login = 'al', mode = 'mailbox' WHERE name = ?", alice)
    assert roads.goes(alice, as_user="al") == "three"
    before = {name: len(recorder.conversations) for name, recorder in roads.upstreams.items()}
    for column, value in (("upstream", "four"), ("mode", "x"), ("login", "a b")):
        roads.database(f"UPDATE users SET {column} = ? WHERE name = ?", value, alice)
        assert roads.login(alice) == UNKNOWN
        roads.database("UPDATE users SET upstream = 'three', login = 'al', mode = NULL WHERE name = ?", alice)
    assert {name: len(recorder.conversations) for name, recorder in roads.upstreams.items()} == before
    roads.gate.wait_log(r"no route for a login: routing\.rule\[9\]: there is no upstream 'four'")


def test_a38_names_are_bound_to_the_query(roads: Crossroads) -> None:
    """A name that would be SQL is the name of nobody (A38)."""
    roads.database("INSERT INTO users VALUES (?, 'two', NULL, NULL)", "victim@sql.example")
    for name in ("x'||'@sql.example", "'OR/**/1=1--@sql.example", "victim'--@sql.example", "%@sql.example"):
        assert roads.goes(name) == "one"
    assert roads.goes("victim@sql.example") == "two"


def test_a_database_that_is_replaced(roads: Crossroads) -> None:
    """The file may be another one from one login to the next; one that is broken or gone lets nobody in."""
    user, file = "replaced@sql.example", roads.folder / "users.db"
    kept = file.read_bytes()
    roads.database("INSERT INTO users VALUES (?, 'two', NULL, NULL)", user)
    assert roads.goes(user) == "two"
    new = roads.folder / "new.db"
    new.write_bytes(kept)
    new.rename(file)
    assert roads.goes(user) == "one"
    file.unlink()
    assert roads.login(user) == UNKNOWN
    assert not file.exists()
    new.write_bytes(kept)
    new.rename(file)
    assert roads.goes(user) == "one"


def test_web_server(roads: Crossroads) -> None:
    """It is asked by GET, with all that is known, escaped; 404 is a matter for the rules behind."""
    user = "a+b&c=d/é@http.example"
    assert roads.goes(user) == "one"
    roads.web.answer = lambda question: Reply(body=json.dumps({"upstream": "two", "user": "ü", "nologin": ""}).encode())
    wire = connect(LOOPBACK, roads.ports["secure"], tls_context(), server_name="imap.example.org")
    assert roads.goes(user, wire, as_user="ü") == "two"
    question = roads.web.questions[-1]
    assert question.path == "/route"
    assert question.query == {
        "user": user,
        "listener": "secure",
        "server_name": "imap.example.org",
        "address": "127.0.0.1",
    }


OUTAGES: dict[str, Reply | bytes | None] = {
    "an error": Reply(500),
    "a redirect": Reply(302, ["Location: /elsewhere"]),
    "no JSON": Reply(body=b"two"),
    "no object": Reply(body=b'["two"]'),
    "an upstream that there is not": Reply(body=b'{"upstream": "four"}'),
    "a column that means nothing": Reply(body=b'{"upstream": "two", "host": "x"}'),
    "a name that nobody has": Reply(body=b'{"upstream": "two", "user": "a b"}'),
    "closed": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
    "too long": Reply(body=b'{"upstream": "two"}' + b" " * 20_000),
    "silence": None,
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_sends_nobody_elsewhere(roads: Crossroads, outage: str) -> None:
    """A look-up that fails is no look-up that finds nothing: come again later, and no upstream is asked."""
    roads.web.answer = lambda question: OUTAGES[outage]
    before = {name: len(recorder.conversations) for name, recorder in roads.upstreams.items()}
    assert roads.login("alice@http.example") == UNKNOWN
    assert {name: len(recorder.conversations) for name, recorder in roads.upstreams.items()} == before


@pytest.mark.parametrize("domain", ["down.example", "broken.example"])
def test_nobody_to_be_asked(roads: Crossroads, domain: str) -> None:
    """A server that is not there, and a file that is no database, are outages, too; the rule is in the log."""
    before = {name: len(recorder.conversations) for name, recorder in roads.upstreams.items()}
    assert roads.login(f"alice@{domain}") == UNKNOWN
    assert {name: len(recorder.conversations) for name, recorder in roads.upstreams.items()} == before
    roads.gate.wait_log(r"no route for a login: routing\.rule\[1[12]\]: the (server|database)")


def test_nothing_went_wrong(roads: Crossroads) -> None:
    """After all that: no traceback, and every upstream was spoken to properly."""
    assert "Traceback" not in roads.gate.log()
    assert [recorder.violations for recorder in roads.upstreams.values()] == [[], [], []]


# -- real servers -----------------------------------------------------------------------------------------------------


def test_a_user_who_moves(dovecot: Dovecot, other_dovecot: Dovecot, user: NewUser, tmp_path: Path) -> None:
    """Two Dovecots: a user works on one, is kept out for the time of the move, and then works on the other."""
    someone = user(dovecot)
    there = user(other_dovecot, name=someone.name + ".moved", password=someone.password)
    for account in (someone, there):
        with account.wire() as wire:
            wire.command_with_literals(b"APPEND INBOX", b"Subject: of %b\r\n\r\n." % account.name.encode())
            wire.logout()
    table = tmp_path / "users.table"
    table.write_text("")

    def write(line: str) -> None:
        (tmp_path / "new").write_text(f"{someone.name} {line}\n")
        (tmp_path / "new").rename(table)

    upstreams = {"old": upstream_of(dovecot), "new": upstream_of(other_dovecot, "starttls")}
    routing = {"default": "old", "rule": [{"table": table}]}
    with Gate(upstreams, authority=dovecot.authority, routing=routing) as gate:

        def subjects() -> bytes:
            with someone.wire(gate.port) as wire:
                wire.ok(b"SELECT INBOX")
                return b"".join(wire.ok(b"FETCH 1:* BODY.PEEK[HEADER]"))

        def attempt() -> bytes:
            with connect(gate.host, gate.port) as wire:
                return _login(wire, someone.name, someone.password)

        assert b"of " + someone.name.encode() + b"\r\n" in subjects()
        write('nologin="Your mailbox is being moved"')
        wait_until(lambda: attempt() == UNAVAILABLE + b"Your mailbox is being moved\r\n", "the move")
        write(f"upstream=new user={there.name}")
        wait_until(lambda: attempt().startswith(b"OK "), "the end of the move")
        assert b"of " + there.name.encode() + b"\r\n" in subjects()
