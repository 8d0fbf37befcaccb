"""A plugin that fails again and again is left alone (F19)."""

from __future__ import annotations

from imapgate.plugins.breaker import Breaker


def test_f19_opens_after_failures_in_a_row() -> None:
    """So many failures open it, which only the last one says; with a success between them they are not in a row."""
    breaker = Breaker(3, 30.0)
    assert [breaker.failed(0.0), breaker.failed(0.0)] == [False, False]
    breaker.succeeded()
    assert [breaker.failed(0.0), breaker.failed(0.0)] == [False, False]
    assert (breaker.open, breaker.state) == (False, "closed")
    assert breaker.failed(0.0)
    assert (breaker.open, breaker.state) == (True, "open")
    assert not breaker.failed(0.0)


def test_f19_one_question_goes_through_after_the_pause() -> None:
    """After the pause one question is let through, and no other before it is answered."""
    breaker = Breaker(1, 30.0)
    breaker.failed(5.0)
    assert not breaker.admits(34.9)
    assert breaker.admits(35.0)
    assert breaker.state == "trying"
    assert not breaker.admits(35.0)
    breaker.succeeded()
    assert (breaker.open, breaker.row, breaker.state) == (False, 0, "closed")


def test_f19_a_try_that_fails_is_another_pause() -> None:
    """Where the one question fails, the pause begins anew."""
    breaker = Breaker(1, 30.0)
    breaker.failed(0.0)
    assert breaker.admits(30.0)
    assert not breaker.failed(31.0)
    assert not breaker.admits(60.9)
    assert breaker.admits(61.0)


def test_a_try_that_is_given_up_says_nothing() -> None:
    """Where nobody waits for the answer to the one question, the next one is let through."""
    breaker = Breaker(1, 30.0)
    breaker.failed(0.0)
    assert breaker.admits(30.0)
    breaker.given_up()
    assert breaker.state == "open"
    assert breaker.admits(30.0)
