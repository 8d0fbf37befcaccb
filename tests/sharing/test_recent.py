"""\\Recent that is found out after a message was told of."""

from __future__ import annotations

from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View


def _grown(read_only: bool) -> tuple[Truth, View]:
    """A view that was told of a message of which nothing else was known; then it is found to be recent."""
    truth = Truth()
    view = View(read_only=read_only)
    truth.exists(1)
    assert view.grow(truth) == b"* 1 EXISTS\r\n* 0 RECENT\r\n"
    truth.learn(0, 7, b"")
    truth.recent.add(7)
    return truth, view


def test_it_is_told_and_is_nobody_elses() -> None:
    """Who may write has it, and every other session has not."""
    truth, view = _grown(read_only=False)
    assert view.flush(truth, expunges=False) == b"* 1 RECENT\r\n"
    assert view.flags(truth, 0) == b"\\Recent"
    other = View(read_only=False)
    assert other.flush(truth, expunges=False) == b"* 1 EXISTS\r\n* 0 RECENT\r\n"


def test_who_only_looks_takes_nothing() -> None:
    """It stays there for the first who may write."""
    truth, view = _grown(read_only=True)
    assert view.flush(truth, expunges=False) == b""
    assert truth.recent == {7}
