"""A look-up: what it is asked, what it may find, and how what it finds is read.

Knows the columns that every look-up has, wherever they are kept.  It knows no file, no database and no server, and
neither which upstreams there are nor which user names are fit: that is judged by the router.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from imapgate.errors import ImapgateError
from imapgate.model.pool_mode import PoolMode


class Asked(NamedTuple):
    """Who wants in.

    :ivar listener: the listener's name
    :ivar server_name: what the client asked for by SNI
    :ivar user: empty before a relayed mechanism, which hides it
    :ivar address: the client's; ``None``: it came by a Unix socket
    """

    listener: str
    server_name: str | None
    user: str
    address: str | None


class Found(NamedTuple):
    """What a look-up found for a user; ``None``: it says nothing on this.

    :ivar user: the name that the user has upstream
    :ivar nologin: why nobody may log in, shown to the client
    :ivar delay_until: unix time before which the login waits
    """

    upstream: str | None = None
    user: str | None = None
    pool_mode: PoolMode | None = None
    nologin: str | None = None
    delay_until: float | None = None


class LookupFailed(ImapgateError):
    """A look-up has no answer, or one that cannot be used; the text is for the log, and for nobody else."""


class Lookup(Protocol):
    """Something that knows where users are."""

    async def find(self, asked: Asked) -> Found | None:
        """Return what it knows about a user, ``None`` where that is nothing; raise `LookupFailed`."""


def _text(value: object) -> str:
    """Read a name."""
    if isinstance(value, str):
        return value
    raise ValueError("a text")


_REASON = re.compile(r"[ -~]{1,200}")


def _reason(value: object) -> str:
    """Read a text that is shown to clients."""
    if isinstance(value, str) and _REASON.fullmatch(value):
        return value
    raise ValueError("at most 200 characters of printable ASCII")


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]")


def _moment(value: object) -> float:
    """Read a time: unix time, a `datetime`, or text as in ISO 8601; without an offset it is UTC."""
    try:
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if isinstance(value, str) and _DATE.match(value):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        pass
    raise ValueError("a time such as 2026-12-01T00:00:00Z")


def _pool_mode(value: object) -> PoolMode:
    """Read a pool mode."""
    try:
        return PoolMode(str(value))
    except ValueError:
        raise ValueError(f"one of {', '.join(PoolMode)}") from None


_COLUMNS: dict[str, Callable[[object], object]] = {
    "upstream": _text,
    "user": _text,
    "pool_mode": _pool_mode,
    "nologin": _reason,
    "delay_until": _moment,
}
"""What each column of a look-up is read by."""


def found(columns: Mapping[str, object]) -> Found:
    """Read what a look-up found; empty and ``None`` are the same as not there.

    :raise LookupFailed: there is a column that means nothing, or a value that does not fit; it is not in the text.
    """
    read = {}
    for name, value in columns.items():
        if name not in _COLUMNS:
            raise LookupFailed(f"{name[:40]!r} is none of {', '.join(_COLUMNS)}")
        if value is not None and value != "":
            try:
                read[name] = _COLUMNS[name](value)
            except ValueError as expected:
                raise LookupFailed(f"{name}: expected {expected}") from None
    return Found(**read)  # type: ignore[arg-type]
