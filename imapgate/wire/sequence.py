"""Sequence sets (RFC 3501 §9): which numbers, written as ranges, and back.

Knows numbers only; it must not know whether they are UIDs, nor which of them exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NUMBER = rb"[1-9][0-9]{0,9}"
"""A number, as a pattern."""
UIDS = NUMBER + rb"(?::" + NUMBER + rb")?(?:," + NUMBER + rb"(?::" + NUMBER + rb")?)*+"
"""What a server says of UIDs: a set without ``*``, as a pattern."""
MOST = 2**32 - 1
"""The largest number, which ``*`` stands for."""

_NUMBER = rb"(?:[1-9][0-9]{0,9}|\*)"
_RANGE = _NUMBER + rb"(?::" + _NUMBER + rb")?"
_SET = re.compile(_RANGE + rb"(?:," + _RANGE + rb")*+")


def ranges(text: bytes) -> list[tuple[int, int]]:
    """The ranges of a sequence set, in its order, the lower end of each first.

    Nothing, and ``$`` (RFC 5182: what was found last), have no range that is known here.

    :raise ValueError: it is no sequence set
    """
    if text in (b"", b"$"):
        return []
    if _SET.fullmatch(text) is None:
        raise ValueError(f"expected a sequence set such as 1:5,9, found {text[:40]!r}")
    found = []
    for item in text.split(b","):
        first, _, last = item.partition(b":")
        low = _number(first)
        high = _number(last) if last else low
        found.append((low, high) if low <= high else (high, low))
    return found


def _number(text: bytes) -> int:
    return MOST if text == b"*" else int(text)


def count(text: bytes) -> int:
    """How many numbers a sequence set names, each counted once.

    :raise ValueError: it is no sequence set
    """
    total = counted = 0  # all numbers up to the latter are counted
    for low, high in sorted(ranges(text)):
        if high > counted:
            total += high - max(low - 1, counted)
            counted = high
    return total


def compact(numbers: Iterable[int]) -> str:
    """These numbers as a sequence set, in order and each once: ``1:5,9``."""
    found: list[str] = []
    first = last = 0
    for number in sorted(set(numbers)):
        if number != last + 1 or not first:
            if first:
                found.append(_range(first, last))
            first = number
        last = number
    if first:
        found.append(_range(first, last))
    return ",".join(found)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}:{last}"
