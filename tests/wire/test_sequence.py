"""Sequence sets: ranges, counts, and numbers written as ranges."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imapgate.wire.sequence import MOST, compact, count, ranges

SETS: dict[bytes, tuple[list[tuple[int, int]], int]] = {
    b"": ([], 0),
    b"$": ([], 0),
    b"5": ([(5, 5)], 1),
    b"1:5,9,12:*": ([(1, 5), (9, 9), (12, MOST)], 6 + MOST - 11),
    b"*": ([(MOST, MOST)], 1),
    b"*:4,1": ([(4, MOST), (1, 1)], MOST - 2),
    b"5:1": ([(1, 5)], 5),
    b"3:3": ([(3, 3)], 1),
    b"1:5,3:8,2": ([(1, 5), (3, 8), (2, 2)], 8),
    b"7,7,7": ([(7, 7), (7, 7), (7, 7)], 1),
    b"1:10,2:3,11": ([(1, 10), (2, 3), (11, 11)], 11),
    b"1:*": ([(1, MOST)], MOST),
    b"4294967295": ([(MOST, MOST)], 1),
}


@pytest.mark.parametrize("text", SETS)
def test_ranges(text: bytes) -> None:
    """A set has its ranges in its own order, the lower end first; a number is counted once."""
    expected, counted = SETS[text]
    assert ranges(text) == expected
    assert count(text) == counted


NO_SETS = (
    *(b"0", b"01", b"1:", b":1", b"1,", b",1", b"1,,2", b"1:2:3", b"+1", b"1_0", b" 1", b"1 ", b"1\n", b"$,1", b"x"),
    *(b"12345678901", "²".encode()),
)


@pytest.mark.parametrize("text", NO_SETS)
def test_no_set(text: bytes) -> None:
    """What is no sequence set is refused, and the error shows it."""
    with pytest.raises(ValueError, match="expected a sequence set such as 1:5,9, found b'") as caught:
        ranges(text)
    assert repr(text) in str(caught.value)
    with pytest.raises(ValueError, match="expected a sequence set"):
        count(text)


def test_a_long_set_that_is_none_is_not_repeated() -> None:
    """The error is short, whatever came."""
    with pytest.raises(ValueError, match="found") as caught:
        ranges(b"1," * 10_000)
    assert len(str(caught.value)) < 120


COMPACT = {
    (): "",
    (7,): "7",
    (1, 2, 3, 4, 5, 9): "1:5,9",
    (9, 3, 1, 2, 3): "1:3,9",
    (1, 3, 5): "1,3,5",
    (4, 5): "4:5",
    (MOST, MOST - 1): f"{MOST - 1}:{MOST}",
}


@pytest.mark.parametrize("numbers", COMPACT)
def test_compact(numbers: tuple[int, ...]) -> None:
    """Numbers are written in order, without doubles, neighbours as a range."""
    assert compact(numbers) == COMPACT[numbers]
    assert compact(iter(numbers)) == COMPACT[numbers]


@given(st.lists(st.one_of(st.integers(1, 40), st.integers(1, MOST))))
def test_what_is_compact_is_read_again(numbers: list[int]) -> None:
    """The ranges have these numbers and no others, lie apart, and in order."""
    text = compact(numbers).encode("ascii")
    found = ranges(text)
    assert [number for low, high in found for number in range(low, high + 1)] == sorted(set(numbers))
    assert all(high + 1 < low for (_, high), (low, _) in pairwise(found))
    assert count(text) == len(set(numbers))


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1))
def test_count_of_any_set(pairs: list[tuple[int, int]]) -> None:
    """However ranges lie, a number is counted once."""
    text = ",".join(f"{first}:{last}" for first, last in pairs).encode("ascii")
    named = {number for pair in pairs for number in range(min(pair), max(pair) + 1)}
    assert count(text) == len(named)
    assert ranges(text) == [(min(pair), max(pair)) for pair in pairs]
