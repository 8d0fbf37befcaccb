"""What a client says, read: tokens, sets of numbers, search keys.  Written from the RFC, with nothing of the gate's."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple, TypeAlias

from tests.sharing.store import SYSTEM, Message

Tree: TypeAlias = "list[bytes | Tree]"
Ranges: TypeAlias = list[tuple[int, int]]

_TOKEN = re.compile(
    rb" *(?:(?P<open>\()|(?P<close>\))|\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|\{(?P<size>\d+)\+?\}\r\n"
    rb"|(?P<atom>[^\s()\"{\[]+(?:\[[^\]]*\](?:<[\d.]+>)?)?))"
)
_SET = re.compile(rb"(?:\d+|\*)(?::(?:\d+|\*))?(?:,(?:\d+|\*)(?::(?:\d+|\*))?)*")


class Wrong(Exception):
    """A command that is answered BAD."""


def tree(text: bytes) -> Tree:
    """The arguments of a command, literals included: strings as they are, and lists of them."""
    stack: list[Tree] = [[]]
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise Wrong(f"no token at octet {position} of {text!r}")
        position = found.end()
        if found["open"]:
            stack.append([])
        elif found["close"]:
            if len(stack) < 2:
                raise Wrong("a list is closed that was not opened")
            inner = stack.pop()
            stack[-1].append(inner)
        elif found["size"] is not None:
            stack[-1].append(text[position : position + int(found["size"])])
            position += int(found["size"])
        elif found["atom"]:
            stack[-1].append(found["atom"])
        else:
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", found["quoted"]))
    if len(stack) > 1:
        raise Wrong("a list is not closed")
    return stack[0]


def atom(node: bytes | Tree) -> bytes:
    """A token that is no list."""
    if isinstance(node, list):
        raise Wrong("a list where none can be")
    return node


def flat(node: bytes | Tree) -> list[bytes]:
    """A list of atoms, or one atom without its parentheses."""
    return [atom(item) for item in node] if isinstance(node, list) else [node]


def ranges(text: bytes, last: int, swaps: bool = True) -> Ranges:
    """A set's ranges, ``*`` being ``last``; one whose end comes first is turned round, or (not ``swaps``) empty."""
    if not _SET.fullmatch(text):
        raise Wrong(f"no set: {text!r}")
    found = []
    for item in text.split(b","):
        first, _, second = item.partition(b":")
        low, high = (last if number == b"*" else int(number) for number in (first, second or first))
        found.append((min(low, high), max(low, high)) if swaps else (low, high))
    return found


def within(number: int, these: Ranges) -> bool:
    """Whether one of the ranges has the number."""
    return any(low <= number <= high for low, high in these)


def compact(numbers: Iterable[int]) -> bytes:
    """Numbers as a set."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return b",".join(b"%d" % low if low == high else b"%d:%d" % (low, high) for low, high in found)


class Found(NamedTuple):
    """A message as SEARCH sees it: with the number and the flags that the connection has told.

    ``shown`` is its number, or its UID where those were asked for; ``body`` is none where the message is gone.
    """

    shown: int
    number: int
    message: Message
    flags: set[bytes]
    body: bytes | None


Key: TypeAlias = Callable[[Found], bool]


class Keys:
    """Search keys (RFC 3501 §6.4.4), read one after another.

    :param last_number: what ``*`` is among the numbers, and ``last_uid`` among UIDs
    """

    def __init__(self, tokens: Tree, last_number: int, last_uid: int, swaps: bool) -> None:
        self._tokens = [*tokens]
        self._last = last_number, last_uid
        self._swaps = swaps

    def all(self) -> Key:
        """All that are left, each of which has to hold."""
        keys = []
        while self._tokens:
            keys.append(self._key())
        if not keys:
            raise Wrong("no search key")
        return lambda found: all(key(found) for key in keys)

    def _next(self) -> bytes:
        if not self._tokens:
            raise Wrong("a search key without its argument")
        return atom(self._tokens.pop(0))

    def _key(self) -> Key:
        if self._tokens and isinstance(self._tokens[0], list):
            return Keys(self._tokens.pop(0), *self._last, self._swaps).all()  # type: ignore[arg-type]
        name = self._next().upper()
        if _SET.fullmatch(name):
            numbers = ranges(name, self._last[0], self._swaps)
            return lambda found: within(found.number, numbers)
        if name == b"NOT":
            key = self._key()
            return lambda found: not key(found)
        if name == b"OR":
            one, other = self._key(), self._key()
            return lambda found: one(found) or other(found)
        if name == b"UID":
            uids = ranges(self._next(), self._last[1], self._swaps)
            return lambda found: within(found.message.uid, uids)
        if name in (b"KEYWORD", b"UNKEYWORD"):
            keyword = self._next()
            return lambda found: (keyword in found.flags) is (name == b"KEYWORD")
        if name in _PLAIN:
            return _PLAIN[name]
        if name in _SIZES:
            size, by_size = int(self._next()), _SIZES[name]
            return lambda found: by_size(len(found.message.body), size)
        if name in _DAYS:
            day, by_day = datetime.strptime(self._next().decode(), "%d-%b-%Y").date(), _DAYS[name]
            return lambda found: by_day(found.message.date.date(), day)
        if name in (b"TEXT", b"BODY", b"SUBJECT", b"FROM", b"TO", b"CC", b"BCC", b"HEADER"):
            header = self._next() if name == b"HEADER" else name
            wanted = self._next().lower()
            return lambda found: found.body is not None and wanted in _part(found.body, header.lower())
        raise Wrong(f"unknown search key {name!r}")


def _part(body: bytes, name: bytes) -> bytes:
    """Where a key looks, in lower case: the message, its text, or the values of a header field."""
    if name == b"text":
        return body.lower()
    head, _, text = body.lower().partition(b"\r\n\r\n")
    if name == b"body":
        return text
    return b"\n".join(line.partition(b":")[2].strip() for line in head.split(b"\r\n") if line.startswith(name + b":"))


def _flag(flag: bytes, there: bool) -> Key:
    return lambda found: (flag in found.flags) is there


_SIZES = {b"LARGER": operator.gt, b"SMALLER": operator.lt}
_DAYS = {b"BEFORE": operator.lt, b"ON": operator.eq, b"SINCE": operator.ge}
_PLAIN: dict[bytes, Key] = {
    b"ALL": lambda found: True,
    b"RECENT": _flag(b"\\Recent", True),
    b"OLD": _flag(b"\\Recent", False),
    b"NEW": lambda found: b"\\Recent" in found.flags and b"\\Seen" not in found.flags,
    **{flag[1:].upper(): _flag(flag, True) for flag in SYSTEM},
    **{b"UN" + flag[1:].upper(): _flag(flag, False) for flag in SYSTEM},
}
