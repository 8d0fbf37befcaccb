"""An SQL look-up: the operator's own query, with the user as its one parameter.

Knows two database drivers, how their connections are opened and how a parameter is written.  THREATS A38: a user name
is only ever bound to that parameter; no text is put into a query.
"""

from __future__ import annotations

import math
import re
from importlib import import_module
from typing import Any
from urllib.parse import quote

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime

from imapgate.errors import ConfigurationError
from imapgate.routing.lookup import Asked, Found, LookupFailed, found

THREADS = 4
"""Look-ups that one database works on at a time."""
MOST = 100
"""Look-ups under way and waiting; more fail at once."""

_NO_PARAMETER = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_PARAMETER = {"sqlite3": re.compile(r"\?[0-9]*|[:@$]\w+"), "psycopg": re.compile(r"%[^%]?")}
_PLACEHOLDER = {"sqlite3": "?", "psycopg": "%s"}


class SqlLookup:
    """The look-up in a database.

    :param driver: ``sqlite3`` or ``psycopg`` (the extra ``postgresql``).
    :param database: a path, or a connection string of PostgreSQL's.
    :param query: gives a user's row or none; its columns are told by their names.
    :param timeout: seconds for all of it.
    :param reactor: whose threads the driver may block.
    :raise ConfigurationError: there is no such driver, or the query has not exactly one parameter.
    """

    def __init__(
        self, driver: str, database: str, query: str, timeout: float, reactor: Any, clock: IReactorTime
    ) -> None:
        _check(driver, query)
        self._query = query
        self._timeout = timeout
        self._clock = clock
        self._running = 0
        self._closing = False
        self._pool = _pool(driver, database, timeout, reactor)

    async def find(self, asked: Asked) -> Found | None:
        """Ask the database about a user."""
        if self._closing:
            raise LookupFailed("the database is not used any more")
        if self._running >= MOST:
            raise LookupFailed("too many look-ups wait for the database")
        answer: Deferred[list[dict[str, object]]] = Deferred()  # a thread cannot be stopped, but be left to itself
        asking = self._pool.runInteraction(self._ask, asked.user, answer)
        self._running += 1
        asking.addBoth(self._done)
        asking.chainDeferred(answer)
        try:
            rows = await answer.addTimeout(self._timeout, self._clock)
        except DeferredTimeoutError:
            raise LookupFailed(f"the database has not answered within {self._timeout:g} s") from None
        except self._pool.dbapi.Error as error:
            raise LookupFailed(f"the database: {' '.join(str(error).split())[:200]}") from error
        if len(rows) > 1:
            raise LookupFailed("the query gives more than one row")
        return found(rows[0]) if rows else None

    def close(self) -> None:
        """Let go of the database, once the look-ups that are under way are over."""
        if not self._closing:
            self._closing = True
            self._close_when_idle()

    def _ask(self, transaction: Any, user: str, answer: Deferred[Any]) -> list[dict[str, object]]:
        """Run the query, in a thread."""
        if answer.called:  # its time is over
            return []
        try:
            transaction.execute(self._query, (user,))
        except self._pool.dbapi.OperationalError:
            if answer.called:
                raise
            transaction.reconnect()  # a connection that was kept may have been closed by the server since
            transaction.reopen()
            transaction.execute(self._query, (user,))
        names = [column[0].lower() for column in transaction.description or ()]
        return [dict(zip(names, row, strict=True)) for row in transaction.fetchmany(2)]

    def _done(self, result: object) -> object:
        self._running -= 1
        if self._closing:
            self._close_when_idle()
        return result

    def _close_when_idle(self) -> None:
        if not self._running:
            self._pool.close()


def _check(driver: str, query: str) -> None:
    if driver not in _PARAMETER:
        raise ConfigurationError([f"there is no driver {driver!r}, but {' and '.join(_PARAMETER)}"])
    # psycopg looks for its placeholders everywhere, sqlite3 only where they mean something.
    text = _NO_PARAMETER.sub(" ", query) if driver == "sqlite3" else query.replace("%%", "")
    placeholder = _PLACEHOLDER[driver]
    if _PARAMETER[driver].findall(text) != [placeholder]:
        raise ConfigurationError([f"the query has one parameter, written {placeholder}, for the user's name"])


class _Kept(adbapi.Connection):
    """A connection for many look-ups; it is given up when anything fails on it."""

    def rollback(self) -> None:
        if self._connection in self._pool.connections.values():
            self._pool.disconnect(self._connection)


class _Brief(_Kept):
    """A connection for one look-up: a database file may be replaced by another at any time."""

    def commit(self) -> None:
        self.rollback()


def _pool(driver: str, database: str, timeout: float, reactor: Any) -> adbapi.ConnectionPool:
    bounds = {"cp_min": 0, "cp_max": THREADS, "cp_reactor": reactor}
    if driver == "sqlite3":
        uri = f"file:{quote(database)}?mode=ro"  # no file is made where there is none
        pool = adbapi.ConnectionPool(driver, uri, uri=True, timeout=timeout, check_same_thread=False, **bounds)
        pool.connectionFactory = _Brief
        return pool
    milliseconds = math.ceil(timeout * 1000)

    def opened(connection: Any) -> None:
        connection.execute(f"SET statement_timeout = {milliseconds}")

    _check_connection_string(database)
    pool = adbapi.ConnectionPool(
        driver,
        database,
        autocommit=True,
        connect_timeout=math.ceil(timeout),
        tcp_user_timeout=milliseconds,
        cp_openfun=opened,
        **bounds,
    )
    pool.connectionFactory = _Kept
    return pool


def _check_connection_string(database: str) -> None:
    """Refuse one that cannot be read now, without its text: what the driver says of it later might show a password."""
    try:
        psycopg = import_module("psycopg")
    except ImportError:
        raise ConfigurationError(["psycopg is not installed; it comes with imapgate[postgresql]"]) from None
    try:
        psycopg.conninfo.conninfo_to_dict(database)
    except psycopg.Error:
        raise ConfigurationError(["the database is no connection string of PostgreSQL's"]) from None
