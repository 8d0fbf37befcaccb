"""The table from each failure to the client's answer."""

from __future__ import annotations

import pytest

from imapgate.model.failure import ANSWERS, LOST_SESSION, Failure


@pytest.mark.parametrize("failure", Failure)
def test_answers(failure: Failure) -> None:
    """Every failure has one defined answer, which no client can take for another line."""
    completion, code, text = ANSWERS[failure]
    assert completion in (b"NO", b"BAD")
    assert code.replace(b"-", b"").isalpha() or not code
    assert text.isascii()
    assert text
    assert not set(text) & set(b"\r\n{}[]")


def test_a36_only_a_verdict_says_authenticationfailed() -> None:
    """F2: AUTHENTICATIONFAILED is said of credentials alone, so that no client forgets a password for an outage."""
    assert [failure for failure in Failure if ANSWERS[failure][1] == b"AUTHENTICATIONFAILED"] == [Failure.CREDENTIALS]


def test_lost_session() -> None:
    """The last line of a session whose upstream fails is one BYE line; every way to fail has one."""
    assert set(LOST_SESSION) == {Failure.LOST, Failure.TIMED_OUT, Failure.PROTOCOL, Failure.CREDENTIALS}
    for line in LOST_SESSION.values():
        assert line.startswith(b"* BYE [UNAVAILABLE] ")
        assert line.index(b"\r\n") == len(line) - 2


def test_values_are_words() -> None:
    """The words for the log are distinct and need no quoting."""
    words = [failure.value for failure in Failure]
    assert len(set(words)) == len(words)
    assert all(word.replace("-", "").isalpha() for word in words)
