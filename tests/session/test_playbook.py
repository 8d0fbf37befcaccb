"""The playbook itself: it must say no."""

from __future__ import annotations

import pytest

from tests.session.playbook import Step, Way, parse, play, relay


def test_a_wrong_line_is_shown_as_a_difference() -> None:
    """What was expected and what came stand side by side, with the round and the way of playing."""
    with pytest.raises(AssertionError) as caught:
        relay(
            """
            C: a1 NOOP
            U> g1 CHECK
            """
        )
    shown = str(caught.value)
    assert "round 1, line by line" in shown
    assert "C: a1 NOOP" in shown
    assert "- U> b'g1 CHECK" in shown
    assert "+ U> b'g1 NOOP" in shown


@pytest.mark.parametrize(
    "missing",
    [
        "C> a1 OK Nothing done",
        "<- ask LOGIN u p",
        "<- hold answer\n<- ask LOGIN u p\nC> a1 OK Nothing done",
        "== selected",
    ],
)
def test_what_is_missing_is_a_failure(missing: str) -> None:
    """A transcript that leaves something out, or adds something, fails."""
    with pytest.raises(AssertionError, match="expected"):
        play(f"C: a1 NOOP\nC: a2 LOGIN u p\n{missing}\n")


def test_octets_that_are_hard_to_write() -> None:
    """Names in angle brackets stand for octets."""
    assert Step("C.", "<CR><LF><CRLF><NUL><SP><xFF><a*3><0.9>").data == b"\r\n\r\n\0 \xffaaa<0.9>"
    assert Step("C:", "x").data == b"x\r\n"


def test_rounds() -> None:
    """A new round begins where something happens after something was expected."""
    rounds = parse("C: a\nC: b\n-- a remark\nC> c\n== selected\nU< d\nU> e\n")
    assert [(len(found.happens), len(found.expected)) for found in rounds] == [(2, 2), (1, 1)]
    with pytest.raises(AssertionError, match="no line of a transcript"):
        parse("a1 NOOP")


def test_one_way_only() -> None:
    """A transcript may be played in some of the ways: whole chunks show what octets do not."""
    text = "C: a1 STARTTLS\nC: a2 NOOP\nC> a1 BAD STARTTLS is not to be had here\nC> a2 OK Nothing done\n"
    play(text, ways=(Way.CHUNKS,))
