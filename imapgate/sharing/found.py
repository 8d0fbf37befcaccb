"""What a server has found, as a session is to see it: SEARCH, SORT, THREAD and ESEARCH in the session's numbers.

A message that the session does not know yet, it is told of before; it must not know how that is said.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from imapgate.errors import UpstreamProtocolError
from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View
from imapgate.wire.sequence import UIDS

_NUMBERS = re.compile(rb"[0-9]+")
_PLACES = re.compile(rb"[0-9]+|[()]")
_HEAD = re.compile(rb'\* ESEARCH(?: \(TAG (?:"[^"]*"|[^ )]+)\))?( UID)?', re.IGNORECASE)
_RESULT = re.compile(
    rb" ((?:MIN|MAX|COUNT)(?= [0-9]{1,10}[ \r])|ALL|PARTIAL \([0-9:*-]+) (" + UIDS + rb"|0|NIL)(?=[ )\r])",
    re.IGNORECASE,
)


class _Thread(NamedTuple):
    """A list of a THREAD response: messages that answer each other, and the lists of what answers the last of them."""

    members: deque[bytes]
    nested: list[_Thread]


class Found:
    """The results of one search.

    :param by_uid: the session asked for numbers, and the server answers with UIDs
    :param uids: the session asked for UIDs
    """

    def __init__(self, view: View, truth: Truth, *, by_uid: bool, uids: bool) -> None:
        self._view = view
        self._truth = truth
        self._by_uid = by_uid
        self._uids = uids

    def line(self, word: bytes, line: bytes, tag: bytes) -> bytes:
        """One response, with what has to be said before it."""
        if word == b"ESEARCH":
            return self._extended(line, tag)
        try:
            found = list(map(int, _NUMBERS.findall(line)))
        except ValueError:
            raise UpstreamProtocolError("a number without end") from None
        said = self._grown(found)
        if not self._translates:
            return said + line
        if word == b"THREAD":
            renumbered = _NUMBERS.sub(self._renumbered, line)
            return said + (renumbered if len(self._mapped(found)) == len(found) else _pruned(renumbered))
        return said + b"* %b%b\r\n" % (word, b"".join(b" %d" % number for number in self._mapped(found)))

    @property
    def _translates(self) -> bool:
        return self._by_uid or not (self._uids or self._view.agrees(self._truth))

    def _grown(self, found: list[int]) -> bytes:
        """Tell of messages that are among these and that the session does not know."""
        view, truth = self._view, self._truth
        highest = max(found, default=0)
        if not (self._uids or self._by_uid):
            if highest > len(truth):
                truth.exists(highest)
            return view.grow(truth) if highest > view.told else b""
        if self._by_uid or view.told == len(truth):
            return b""
        last = truth.uids[view.told - 1] if view.told else 0
        return view.grow(truth) if highest > last else b""

    def _mapped(self, found: Iterable[int]) -> list[int]:
        return [number for number in map(self._number, found) if number]

    def _number(self, said: int) -> int:
        """The session's number of what the server calls so; 0: the session does not know it."""
        view, truth = self._view, self._truth
        index = truth.index(said) if self._by_uid else said - 1
        return view.number(truth, index) if index is not None and 0 <= index < view.told else 0

    def _renumbered(self, said: re.Match[bytes]) -> bytes:
        number = self._number(int(said[0]))
        return b"%d" % number if number else b""

    def _extended(self, line: bytes, tag: bytes) -> bytes:
        head = _HEAD.match(line)
        assert head is not None
        rest = line[head.end() :]
        results = [(name.upper(), value) for name, value in _RESULT.findall(rest)]
        said = self._grown(
            [int(each) for name, value in results if name != b"COUNT" for each in _NUMBERS.findall(value)]
        )
        uid = b"" if self._by_uid else head[1] or b""
        if self._translates:
            rest = self._results(results)
        return said + b'* ESEARCH (TAG "%b")%b%b' % (tag, uid, rest)

    def _results(self, results: list[tuple[bytes, bytes]]) -> bytes:
        known: int | None = None  # how many of ALL the session knows
        shown: list[tuple[bytes, bytes]] = []
        for name, value in results:
            if name in (b"MIN", b"MAX"):
                number = self._number(int(value))
                value = b"%d" % number if number else b""
            elif name != b"COUNT":
                mapped = self._named(value)
                value = _set(mapped)
                if name == b"ALL":
                    known = len(mapped)
                else:  # PARTIAL
                    value = (value or b"NIL") + b")"
            if value:
                shown.append((name, value))
        counted = b"%d" % known if known is not None else b""
        return (
            b"".join(b" %b %b" % (name, counted if name == b"COUNT" and counted else value) for name, value in shown)
            + b"\r\n"
        )

    def _named(self, value: bytes) -> list[int]:
        """The session's numbers of what a set names, in its order, which is that of SORT."""
        view, truth = self._view, self._truth
        mapped: list[int] = []
        for item in value.split(b",") if value[:1].isdigit() else ():
            first, last = (int(end) for end in (item.split(b":") * 2)[:2])
            places = self._places(min(first, last), max(first, last))
            mapped += [view.number(truth, place) for place in (places if first <= last else reversed(places))]
            if len(mapped) > view.told:
                raise UpstreamProtocolError("more results than there are messages")
        return mapped

    def _places(self, low: int, high: int) -> range:
        """Where the messages from one number, or UID, to another stand, from 0, as far as the session knows them."""
        view, truth = self._view, self._truth
        if not self._by_uid:
            return range(low - 1, min(high, view.told))
        known = min(view.told, truth.filled)
        return range(bisect_left(truth.uids, low, 0, known), bisect_right(truth.uids, high, 0, known))


def _set(numbers: Iterable[int]) -> bytes:
    """Numbers as a set that keeps their order."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return b",".join(b"%d" % first if first == last else b"%d:%d" % (first, last) for first, last in runs)


def _pruned(line: bytes) -> bytes:
    """A THREAD response without the places of messages that fell out of it.

    A list that is left alone in another needs none (RFC 5256 §4: two at least are nested).
    """
    stack: list[_Thread] = [_Thread(deque(), [])]
    for token in _PLACES.findall(line):
        if token == b"(":
            stack.append(_Thread(deque(), []))
        elif token != b")":
            stack[-1].members.append(token)
        elif len(stack) > 1:
            thread = stack.pop()
            if len(thread.nested) == 1:
                (only,) = thread.nested
                only.members.extendleft(reversed(thread.members))
                thread = only
            if thread.members or thread.nested:
                stack[-1].nested.append(thread)
    said = [b"* THREAD "]
    rest: list[_Thread | bytes] = [*reversed(stack[0].nested)]
    while rest:
        each = rest.pop()
        if isinstance(each, bytes):
            said.append(each)
        else:
            said += [b"(", b" ".join(each.members), b" " if each.members and each.nested else b""]
            rest += [b")", *reversed(each.nested)]
    return b"".join(said).rstrip(b" ") + b"\r\n"
