"""Look-ups in databases: real SQLite files, and what can be said of PostgreSQL without a server."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from imapgate.errors import ConfigurationError
from imapgate.model.pool_mode import PoolMode
from imapgate.routing import sql
from imapgate.routing.lookup import Asked, Found, LookupFailed
from imapgate.routing.sql import SqlLookup

QUERY = "SELECT upstream, login AS user, mode AS pool_mode, nologin, until AS delay_until FROM users WHERE name = ?"
ROWS = [
    ("alice", "legacy", "al", "mailbox", None, 1796083200),
    ("bob", "new", None, None, "Moving house", "2026-12-01T00:00:00Z"),
    ("twin", "legacy", None, None, None, None),
    ("twin", "new", None, None, None, None),
]
TIMEOUT = 5.0


def make(path: Path, rows: Sequence[tuple[object, ...]] = ROWS) -> Path:
    """Make a database of users."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE users (name, upstream, login, mode, nologin, until)")
        connection.executemany("INSERT INTO users VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    return path


class Bench:
    """Look-ups that are closed at the end."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.open: list[SqlLookup] = []

    def lookup(self, database: object, query: str = QUERY, driver: str = "sqlite3") -> SqlLookup:
        """A look-up in a database."""
        self.open.append(SqlLookup(driver, str(database), query, TIMEOUT, reactor, self.clock))
        return self.open[-1]


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench that leaves no thread behind."""
    made = Bench()
    yield made
    for lookup in made.open:
        lookup.close()
        assert not lookup._pool.running


def find(lookup: SqlLookup, user: str) -> Deferred[Found | None]:
    """Look a user up."""
    return Deferred.fromCoroutine(lookup.find(Asked("public", None, user, None)))


async def failure(looking: Deferred[Found | None]) -> str:
    """Why a look-up failed."""
    with pytest.raises(LookupFailed) as caught:
        await looking
    return str(caught.value)


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_rows(bench: Bench, tmp_path: Path) -> None:
    """A row is read by its columns' names, whatever their order; no row is nothing found."""
    lookup = bench.lookup(make(tmp_path / "a user?s.db"))
    assert await find(lookup, "alice") == Found("legacy", "al", PoolMode.MAILBOX, None, 1796083200.0)
    assert await find(lookup, "bob") == Found("new", nologin="Moving house", delay_until=1796083200.0)
    assert await find(lookup, "carol") is None


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a38_the_user_is_a_parameter(bench: Bench, tmp_path: Path) -> None:
    """A38: a user name is compared, never run."""
    lookup = bench.lookup(make(tmp_path / "users.db"))
    for user in ("x' OR '1'='1", "alice' --", "'; DROP TABLE users; --", "?", "%s"):
        assert await find(lookup, user) is None
    assert await find(lookup, "alice") is not None


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("SELECT upstream FROM nobody WHERE name = ?", "the database: no such table: nobody"),
        ("SELECT upstream FROM users WHERE name = ? OR", "the database: incomplete input"),
        ("SELECT * FROM users WHERE name = ?", "'name' is none of upstream, user, pool_mode, nologin, delay_until"),
        ("SELECT 7 AS upstream FROM users WHERE name = ?", "upstream: expected a text"),
        ("DELETE FROM users WHERE name = ?", "the database: attempt to write a readonly database"),
    ],
)
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_queries_that_do_not_do(bench: Bench, tmp_path: Path, query: str, fault: str) -> None:
    """A query that cannot be run, or whose columns mean nothing, is a failure."""
    assert await failure(find(bench.lookup(make(tmp_path / "users.db"), query), "alice")) == fault


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_two_rows(bench: Bench, tmp_path: Path) -> None:
    """Of two rows for one user none is taken."""
    lookup = bench.lookup(make(tmp_path / "users.db"))
    assert await failure(find(lookup, "twin")) == "the query gives more than one row"


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_database_that_comes_and_goes(bench: Bench, tmp_path: Path) -> None:
    """A file that is not there is a failure and is not made; one that was moved into place is the one that counts."""
    path = tmp_path / "users.db"
    lookup = bench.lookup(path)
    assert await failure(find(lookup, "alice")) == "the database: unable to open database file"
    assert not path.exists()
    make(path)
    assert await find(lookup, "alice") == Found("legacy", "al", PoolMode.MAILBOX, None, 1796083200.0)
    make(tmp_path / "other.db", [("alice", "new", None, None, None, None)]).rename(path)
    assert await find(lookup, "alice") == Found("new")
    path.write_bytes(b"this is no database, but a text that somebody put in its place\n" * 20)
    assert await failure(find(lookup, "alice")) == "the database: file is not a database"


class Locked:
    """A database that lets nobody read."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("BEGIN EXCLUSIVE")

    def release(self) -> None:
        """Let everybody read again."""
        self._connection.close()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_time_limit(bench: Bench, tmp_path: Path) -> None:
    """A database that does not answer in time has failed; what its thread still does is nobody's."""
    lookup = bench.lookup(make(tmp_path / "users.db"))
    locked = Locked(tmp_path / "users.db")
    looking = find(lookup, "alice")
    bench.clock.advance(TIMEOUT)
    assert await failure(looking) == "the database has not answered within 5 s"
    locked.release()
    assert await find(lookup, "alice") is not None
    assert bench.clock.getDelayedCalls() == []
    await idle(lookup)


async def idle(lookup: SqlLookup) -> None:
    """Wait until no thread works for a look-up any more."""
    for _ in range(1000):
        if not lookup._running:
            return
        await find(lookup, "nobody")
    pytest.fail("a thread is left")


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_bounded(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many look-ups may wait, also those that nobody waits for any more; the next one fails at once."""
    monkeypatch.setattr(sql, "MOST", 6)
    lookup = bench.lookup(make(tmp_path / "users.db"))
    locked = Locked(tmp_path / "users.db")
    expired = [find(lookup, "alice") for _ in range(3)]
    bench.clock.advance(TIMEOUT)
    for looking in expired:
        await failure(looking)
    waiting = [find(lookup, "bob") for _ in range(3)]
    assert await failure(find(lookup, "alice")) == "too many look-ups wait for the database"
    locked.release()
    for looking in waiting:
        assert await looking is not None
    for _ in range(20):
        assert await find(lookup, "alice") is not None
    await idle(lookup)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_cancelled(bench: Bench, tmp_path: Path) -> None:
    """A client that goes leaves nothing but a thread that finishes."""
    lookup = bench.lookup(make(tmp_path / "users.db"))
    locked = Locked(tmp_path / "users.db")
    looking = find(lookup, "alice")
    looking.cancel()
    with pytest.raises(CancelledError):
        await looking
    assert bench.clock.getDelayedCalls() == []
    locked.release()
    await find(lookup, "alice")
    await idle(lookup)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_closed_while_somebody_waits(bench: Bench, tmp_path: Path) -> None:
    """Closing waits for the look-ups that are under way, without blocking."""
    lookup = bench.lookup(make(tmp_path / "users.db"))
    locked = Locked(tmp_path / "users.db")
    looking = find(lookup, "alice")
    lookup.close()
    assert lookup._pool.running
    locked.release()
    assert await failure(find(lookup, "bob")) == "the database is not used any more"
    assert await looking is not None
    assert not lookup._pool.running


class Transaction:
    """A connection that was kept, and that the server may have closed."""

    def __init__(self, dead: int) -> None:
        self.description = [("UPSTREAM", None)]
        self.log: list[str] = []
        self._dead = dead

    def execute(self, query: str, parameters: tuple[str]) -> None:
        """Run a query, or fail."""
        self.log.append(f"execute {parameters[0]}")
        if self._dead:
            self._dead -= 1
            raise sqlite3.OperationalError("server closed the connection unexpectedly")

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.log.append(name)

    def fetchmany(self, most: int) -> list[tuple[str]]:
        """The row."""
        return [("legacy",)]


def test_a_connection_that_was_closed(bench: Bench, tmp_path: Path) -> None:
    """A connection that does not live any more is replaced once by a new one, unless nobody waits any more."""
    lookup = bench.lookup(tmp_path / "users.db")
    waits: Deferred[Any] = Deferred()
    once, twice, late = Transaction(1), Transaction(2), Transaction(1)
    assert lookup._ask(once, "alice", waits) == [{"upstream": "legacy"}]
    assert once.log == ["execute alice", "reconnect", "reopen", "execute alice"]
    with pytest.raises(sqlite3.OperationalError):
        lookup._ask(twice, "alice", waits)
    waits.callback(None)
    assert lookup._ask(late, "alice", waits) == []
    assert late.log == []


# --- both drivers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "query", "fits"),
    [
        ("sqlite3", "SELECT upstream FROM users WHERE name = ?", True),
        ("sqlite3", "SELECT '?' AS user, \"?\" FROM users /* ? */ WHERE name = ? -- ?", True),
        ("sqlite3", "SELECT upstream FROM users", False),
        ("sqlite3", "SELECT upstream FROM users WHERE name = '?'", False),
        ("sqlite3", "SELECT upstream FROM users WHERE name = ? OR mail = ?", False),
        ("sqlite3", "SELECT upstream FROM users WHERE name = ?1", False),
        ("sqlite3", "SELECT upstream FROM users WHERE name = :user", False),
        ("sqlite3", "SELECT upstream FROM users WHERE name = '%s'", False),
        ("psycopg", "SELECT upstream FROM users WHERE name = %s", True),
        ("psycopg", "SELECT upstream FROM users WHERE name = %s AND mail LIKE '%%@example.org'", True),
        ("psycopg", "SELECT upstream FROM users WHERE name = %s OR mail = %s", False),
        ("psycopg", "SELECT upstream FROM users WHERE name = %(user)s", False),
        ("psycopg", "SELECT upstream FROM users WHERE name = %s AND mail LIKE '%@example.org'", False),
        ("psycopg", "SELECT upstream FROM users WHERE name = %%s", False),
        ("psycopg", "SELECT upstream FROM users WHERE name = ?", False),
    ],
)
def test_a38_one_parameter(bench: Bench, tmp_path: Path, driver: str, query: str, fits: bool) -> None:
    """A38: a query has one parameter, or it is no query for this."""
    database = "host=127.0.0.1" if driver == "psycopg" else tmp_path / "users.db"
    if fits:
        bench.lookup(database, query, driver)
    else:
        with pytest.raises(ConfigurationError, match="the query has one parameter, written"):
            bench.lookup(database, query, driver)


def test_drivers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only these two drivers, and only where they are."""
    with pytest.raises(ConfigurationError, match="there is no driver 'os', but sqlite3 and psycopg"):
        bench.lookup("x", driver="os")
    monkeypatch.setattr(sql, "import_module", missing)
    with pytest.raises(ConfigurationError, match=r"psycopg is not installed; it comes with imapgate\[postgresql\]"):
        bench.lookup("x", POSTGRESQL, "psycopg")


def missing(name: str) -> object:
    """An import of what is not installed."""
    raise ModuleNotFoundError(name)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

POSTGRESQL = "SELECT upstream FROM users WHERE name = %s"


def test_a40_a_connection_string_that_cannot_be_read(bench: Bench) -> None:
    """A40: what is wrong with a connection string is not quoted, since a password may stand in it."""
    with pytest.raises(ConfigurationError) as caught:
        bench.lookup("host=127.0.0.1 password=two words", POSTGRESQL, "psycopg")
    assert caught.value.problems == ["the database is no connection string of PostgreSQL's"]


class Deaf(Protocol):
    """A server that closes as soon as it is spoken to."""

    def dataReceived(self, data: bytes) -> None:
        """Close."""
        self.factory.heard += 1
        self.transport.loseConnection()  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_server_that_is_down(bench: Bench) -> None:
    """A server that closes, or is not there at all, is a failure each time, told without the password."""
    factory: Any = Factory.forProtocol(Deaf)
    factory.heard = 0
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)  # type: ignore[no-untyped-call]
    number = port.getHost().port
    database = f"host=127.0.0.1 port={number} user=gate password=hunter2 sslmode=disable gssencmode=disable"
    lookup = bench.lookup(database, POSTGRESQL, "psycopg")
    for _ in range(2):
        text = await failure(find(lookup, "alice"))
        assert text.startswith("the database: connection failed: ")
        assert "hunter2" not in text
    assert factory.heard == 2
    await port.stopListening()
    assert "Connection refused" in await failure(find(lookup, "alice"))


def test_the_driver_is_the_one_that_is_meant() -> None:
    """What the look-up relies on in psycopg: threads may share the module, and its errors are the DB-API's."""
    assert psycopg.threadsafety >= 1
    assert issubclass(psycopg.OperationalError, psycopg.Error)
