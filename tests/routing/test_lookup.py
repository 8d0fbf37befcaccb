"""What a look-up may find, and how it is read."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from imapgate.model.pool_mode import PoolMode
from imapgate.routing.lookup import Found, LookupFailed, found

DECEMBER = 1796083200.0


def test_every_column() -> None:
    """All that a look-up may say of a user."""
    assert found(
        {
            "upstream": "legacy",
            "user": "alice",
            "pool_mode": "mailbox",
            "nologin": "Moving house",
            "delay_until": DECEMBER,
        }
    ) == Found("legacy", "alice", PoolMode.MAILBOX, "Moving house", DECEMBER)


@pytest.mark.parametrize("mode", PoolMode)
def test_every_mode(mode: PoolMode) -> None:
    """A look-up may choose any mode, by its name."""
    assert found({"pool_mode": mode.value}) == Found(pool_mode=mode)


def test_nothing_said() -> None:
    """A column without a value is the same as no column."""
    assert found({}) == found({"upstream": None, "user": "", "pool_mode": None, "delay_until": ""}) == Found()


@pytest.mark.parametrize(
    "value",
    [
        DECEMBER,
        int(DECEMBER),
        Decimal(int(DECEMBER)),
        "2026-12-01T00:00:00Z",
        "2026-12-01 00:00:00",
        "2026-12-01T01:00:00+01:00",
        datetime(2026, 12, 1),
        datetime(2026, 12, 1, tzinfo=UTC),
        datetime(2026, 12, 1, 2, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_times(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time is unix time, what a database driver makes of one, or text; without an offset it is UTC everywhere."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert found({"delay_until": value}).delay_until == DECEMBER
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("upstream", 7, "upstream: expected a text"),
        ("user", ["alice"], "user: expected a text"),
        ("pool_mode", "mailboxes", "pool_mode: expected one of session, mailbox, shared"),
        ("pool_mode", 1, "pool_mode: expected one of session, mailbox, shared"),
        ("nologin", True, "nologin: expected at most 200 characters of printable ASCII"),
        ("nologin", "Bye\r\n* BYE", "nologin: expected at most 200 characters of printable ASCII"),
        ("nologin", "ümzug", "nologin: expected at most 200 characters of printable ASCII"),
        ("nologin", "x" * 201, "nologin: expected at most 200 characters of printable ASCII"),
        ("delay_until", "soon", "delay_until: expected a time such as 2026-12-01T00:00:00Z"),
        ("delay_until", "20261201", "delay_until: expected a time such as 2026-12-01T00:00:00Z"),
        ("delay_until", "2026-13-01 00:00", "delay_until: expected a time such as 2026-12-01T00:00:00Z"),
        ("delay_until", True, "delay_until: expected a time such as 2026-12-01T00:00:00Z"),
        ("delay_until", 10**400, "delay_until: expected a time such as 2026-12-01T00:00:00Z"),
        ("delay_until", Decimal("sNaN"), "delay_until: expected a time such as 2026-12-01T00:00:00Z"),
        ("delay_until", float("nan"), "delay_until: expected a time such as 2026-12-01T00:00:00Z"),
        ("upstrm", "legacy", "'upstrm' is none of upstream, user, pool_mode, nologin, delay_until"),
        ("a\nb", "legacy", "'a\\nb' is none of upstream, user, pool_mode, nologin, delay_until"),
    ],
)
def test_what_does_not_fit(column: str, value: object, text: str) -> None:
    """What cannot be used is said, without the value and on one line."""
    with pytest.raises(LookupFailed) as caught:
        found({column: value})
    assert str(caught.value) == text
