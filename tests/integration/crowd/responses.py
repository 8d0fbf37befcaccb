"""Cuts what a server sends into whole responses, and reads those that have a structure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.integration.crowd.violation import Violation, shown

Value = bytes | list["Value"] | None

_LITERAL = re.compile(rb"~?\{([0-9]+)\}\r\n\Z")
# Neither these nor continuations and completions ever hold a literal, whatever their text ends in.
_STATUS = re.compile(rb"\* (?:OK|NO|BAD|BYE|PREAUTH)\b|[^*]", re.IGNORECASE)
_TOKEN = re.compile(
    rb' *(?:([()])|"((?:[^"\\\r\n]|\\.)*)"|~?\{([0-9]+)\}\r\n|([^][\s()"{]+(?:\[[^]]*\])?(?:<[0-9]+>)?))'
)
_SET = re.compile(rb"[0-9]+(?::[0-9]+)?(?:,[0-9]+(?::[0-9]+)?)*\Z")


class Cutter:
    """One server's stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._missing = 0  # octets, until what is in the buffer can be a whole response

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take a chunk, and give each response that is whole now, its literals and its CRLF included."""
        self._buffer += data
        while len(self._buffer) >= self._missing and (response := self._next()):
            yield response

    def _next(self) -> bytes:
        at = 0
        while (end := self._buffer.find(b"\r\n", at) + 2) > 1:
            literal = None
            if at or not _STATUS.match(self._buffer):
                literal = _LITERAL.search(self._buffer, max(at, end - 24), end)
            if literal is None:
                response = bytes(self._buffer[:end])
                del self._buffer[:end]
                self._missing = 0
                return response
            at = end + int(literal[1])
            if len(self._buffer) < at + 2:
                self._missing = at + 2
                return b""
        return b""


def values(data: bytes, start: int = 0) -> list[Value]:
    """Read the values from ``start`` to the end of a response; lists are lists, NIL is ``None``."""
    out: list[Value] = []
    stack: list[list[Value]] = []
    at, end = start, len(data.rstrip())
    while at < end:
        found = _TOKEN.match(data, at, end)
        if found is None:
            raise Violation(f"not to be read, at {shown(data[at : at + 40])}: {shown(data)}")
        at = found.end()
        bracket, quoted, length, atom = found.groups()
        if bracket == b"(":
            stack.append(out)
            out = []
        elif bracket:
            if not stack:
                raise Violation(f"a parenthesis too many: {shown(data)}")
            stack[-1].append(out)
            out = stack.pop()
        elif quoted is not None:
            out.append(re.sub(rb"\\(.)", rb"\1", quoted) if b"\\" in quoted else quoted)
        elif length is not None:
            at += int(length)
            out.append(data[found.end() : at])
        else:
            out.append(None if atom.upper() == b"NIL" else atom)
    if stack:
        raise Violation(f"a parenthesis is missing: {shown(data)}")
    return out


def pairs(items: list[Value]) -> dict[bytes, Value]:
    """Read name and value in turn."""
    if len(items) % 2:
        raise Violation(f"a name without a value: {items!r}")
    out: dict[bytes, Value] = {}
    for name, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(name, bytes) or name.upper() in out:
            raise Violation(f"no name, or one that comes twice: {name!r}")
        out[name.upper().replace(b'"', b"")] = value  # Courier quotes the names of fields
    return out


def atoms(value: Value) -> frozenset[bytes]:
    """The atoms of a flat list."""
    if not isinstance(value, list):
        raise Violation(f"no list: {value!r}")
    return frozenset(item for item in value if isinstance(item, bytes))


def numbers(value: Value) -> list[int]:
    """The numbers of a set like ``1:3,7``, in order."""
    if not isinstance(value, bytes) or not _SET.match(value):
        raise Violation(f"no set of numbers: {value!r}")
    out: list[int] = []
    for part in value.split(b","):
        low, _, high = part.partition(b":")
        out += range(int(low), int(high or low) + 1) if int(high or low) >= int(low) else range(int(high), int(low) + 1)
    return out


def number(value: Value) -> int:
    """One number."""
    if not isinstance(value, bytes) or not value.isdigit():
        raise Violation(f"no number: {value!r}")
    return int(value)


def leaves(items: list[Value]) -> list[int]:
    """All numbers in nested lists (the answer to THREAD)."""
    out: list[int] = []
    rest = list(items)
    while rest:
        item = rest.pop()
        if isinstance(item, list):
            rest += item
        else:
            out.append(number(item))
    return out
