"""What a server has found, as a session is to see it: SEARCH, SORT, THREAD and ESEARCH in the session's numbers.

A message that the session does not know yet, it is told of before; it must not know how that is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View
from imapgate.wire.sequence import compact, ranges

_NUMBERS = re.compile(rb"[0-9]+")
_TAG = re.compile(rb'(\* ESEARCH \(TAG )(?:"[^"]*"|[^ )]+)\)( UID)?', re.IGNORECASE)
_RESULT = re.compile(rb"(MIN|MAX|COUNT|ALL|PARTIAL \([0-9:,*-]+) ([0-9:,]+|NIL)", re.IGNORECASE)


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
        found = list(map(int, _NUMBERS.findall(line)))
        said = self._grown(found)
        if not self._translates:
            return said + line
        if word == b"THREAD":
            return said + _pruned(_NUMBERS.sub(self._renumbered, line))
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
        return 0 if index is None or index >= view.told else view.number(truth, index)

    def _renumbered(self, said: re.Match[bytes]) -> bytes:
        number = self._number(int(said[0]))
        return b"%d" % number if number else b""

    def _extended(self, line: bytes, tag: bytes) -> bytes:
        head = _TAG.match(line)
        if head is None:
            return line
        rest = line[head.end() :]
        found = [int(number) for result in _RESULT.findall(rest) if result[0].upper() != b"COUNT" for number in
                 _NUMBERS.findall(result[1])]  # fmt: skip
        said = self._grown(found)
        uid = b"" if self._by_uid else head[2] or b""
        if self._translates:
            rest = self._results(rest)
        return said + b'%b"%b")%b%b' % (head[1], tag, uid, rest)

    def _results(self, rest: bytes) -> bytes:
        known: int | None = None  # how many of ALL the session knows
        shown = []
        for name, value in _RESULT.findall(rest):
            if name.upper() in (b"MIN", b"MAX"):
                number = self._number(int(value))
                value = b"%d" % number if number else b""
            elif name.upper() != b"COUNT" and value.upper() != b"NIL":
                mapped = self._mapped(uid for low, high in ranges(value) for uid in self._between(low, high))
                if name.upper() == b"ALL":
                    known = len(mapped)
                value = compact(mapped).encode()
            if value:
                shown.append([name, value])
        for result in shown:
            if result[0].upper() == b"COUNT" and known is not None:
                result[1] = b"%d" % known
        return b"".join(b" %b %b" % (name, value) for name, value in shown) + b"\r\n"

    def _between(self, low: int, high: int) -> Iterable[int]:
        if not self._by_uid:
            return range(low, high + 1)
        return [uid for uid in self._truth.uids[: self._view.told] if low <= uid <= high]


def _pruned(line: bytes) -> bytes:
    """A THREAD response without the places of messages that fell out of it."""
    before = b""
    while before != line:
        before = line
        line = re.sub(rb" +", b" ", line).replace(b"( ", b"(").replace(b" )", b")").replace(b"()", b"")
    return line
