"""A session's command as its channel's server is to get it: numbers that mean something else there become UIDs.

Knows where numbers stand in a command (RFC 3501 §6.4, RFC 4731, RFC 5256); it must not know what is answered.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from imapgate.model.commands import Command
from imapgate.model.reading import Reading, Store
from imapgate.sharing.truth import Truth
from imapgate.sharing.view import View
from imapgate.wire.sequence import MOST, compact, ranges
from imapgate.wire.tokens import ATOM, CLOSE, LITERAL, OPEN, QUOTED, Token
from imapgate.wire.writer import Literal, Part, string

_NUMBERED = frozenset((b"FETCH", b"STORE", b"COPY", b"MOVE"))
_SEARCHES = frozenset((b"SEARCH", b"SORT", b"THREAD"))
_ALWAYS_BY_UID = frozenset((b"COPY", b"MOVE"))
"""By number, Cyrus dies of them where a message has gone of which it has not told."""

_KEYS = {
    **dict.fromkeys(
        b"""ALL ANSWERED DELETED DRAFT FLAGGED NEW OLD RECENT SEEN UNANSWERED UNDELETED UNDRAFT UNFLAGGED UNSEEN
        NOT OR FUZZY SAVEDATESUPPORTED""".split(),
        0,
    ),
    **dict.fromkeys(
        b"""BCC BEFORE BODY CC FROM KEYWORD LARGER ON SENTBEFORE SENTON SENTSINCE SINCE SMALLER SUBJECT TEXT TO UID
        UNKEYWORD OLDER YOUNGER SAVEDBEFORE SAVEDON SAVEDSINCE EMAILID THREADID""".split(),
        1,
    ),
    b"HEADER": 2,
}
"""How many arguments a search key has that are no search keys themselves."""
_NOTHING: tuple[Part, ...] = (b"(NOT ALL)",)
_OF_RECENT = frozenset((b"RECENT", b"NEW", b"OLD"))


class Form(NamedTuple):
    """A command as it is to be sent.

    :ivar by_uid: the session asked by number, and it is sent by UID
    :ivar store: what STORE does, where the session does not want to be told of it
    :ivar named: the UIDs of the messages to which it does that, as ranges in order
    """

    verb: bytes
    parts: tuple[Part, ...]
    by_uid: bool = False
    store: Store | None = None
    named: tuple[tuple[int, int], ...] = ()


class Refusal(NamedTuple):
    """A command that is answered at once."""

    completion: bytes
    text: bytes


NOBODY = Refusal(b"NO", b"[EXPUNGEISSUED] Those messages are gone; say NOOP to hear of it")
_OUT_OF_RANGE = Refusal(b"BAD", b"There is no message with this number")


def form(reading: Reading, view: View, truth: Truth) -> Form | Refusal:
    """The form in which a command of a session goes to its channel's server."""
    command = reading.command
    verb = command.rule.verb
    name = verb.removeprefix(b"UID ")
    if name in _SEARCHES:
        return _search(reading, view, truth)
    if name == b"STORE":
        return _store(reading, view, truth)
    if verb not in _NUMBERED or (view.agrees(truth) and verb not in _ALWAYS_BY_UID):
        return Form(verb, command.parts)
    uids = chosen(reading.sequence, view, truth)
    if isinstance(uids, Refusal):
        return uids
    return Form(b"UID " + verb, _with_set(command, reading.sequence, uids), by_uid=True)


def _with_set(command: Command, sequence: bytes, uids: bytes) -> tuple[Part, ...]:
    first, second, *rest = command.parts
    assert isinstance(second, bytes)
    return (first, uids + second[len(sequence) :], *rest)


def _store(reading: Reading, view: View, truth: Truth) -> Form | Refusal:
    """STORE always runs loud, so that all others can be told; by UID, where what it says of itself is hidden."""
    store, command, sequence = reading.store, reading.command, reading.sequence
    assert store is not None
    verb, by_uid = command.rule.verb, False
    if verb == b"STORE" and (store.silent or not view.agrees(truth)):
        uids = chosen(sequence, view, truth)
        if isinstance(uids, Refusal):
            return uids
        sequence, verb, by_uid = uids, b"UID STORE", True
    if not store.silent:
        return Form(verb, _with_set(command, reading.sequence, sequence), by_uid)
    tokens = reading.tokens
    item = _closed(tokens, 1) if tokens[1].kind == OPEN else 1  # behind modifiers
    loud = b" %bFLAGS" % store.sign.encode()
    parts = (b" ", sequence, *_written(tokens[1:item]), loud, *_written(tokens[item + 1 :]))
    return Form(verb, parts, by_uid, store, _named(sequence, truth))


def _named(uids: bytes, truth: Truth) -> tuple[tuple[int, int], ...]:
    """The UIDs of a set as ranges, in order; behind the last message it names that one (RFC 3501 §6.4.8)."""
    last = truth.uids[-1] if len(truth) else 0
    return tuple(_joined((min(low, last) if high == MOST else low, high) for low, high in ranges(uids)))


def chosen(sequence: bytes, view: View, truth: Truth) -> bytes | Refusal:
    """The UIDs of the messages that the session names by these numbers."""
    found = numbers(sequence, len(view))
    if found is None:
        return _OUT_OF_RANGE
    uids = uid_ranges(found, view.gone(truth), truth)
    return b",".join(uids) if uids else NOBODY


def numbers(sequence: bytes, length: int, *, clip: bool = False) -> list[tuple[int, int]] | None:
    """The ranges of a set of numbers where there are so many messages; ``None``: it names one that is not there.

    :param clip: leave those out
    """
    found: list[tuple[int, int]] = []
    open_ended = b"*" in sequence
    for low, high in ranges(sequence) if length else ():
        if high == MOST and (open_ended or low < high):
            low, high = min(low, length), max(length, low if low != MOST else 0)
        if clip:
            high = min(high, length)
            if low > high:
                continue
        elif high > length:
            return None
        found.append((low, high))
    return found if found or clip else None


def uid_ranges(found: Iterable[tuple[int, int]], gone: list[int], truth: Truth) -> list[bytes]:
    """The UIDs of the messages with these numbers that are still there, as ranges.

    :param gone: the numbers of those that are not, in order
    """
    named = []
    for low, high in found:
        first, last = low - 1 - bisect_left(gone, low), high - 1 - bisect_right(gone, high)
        if first <= last:
            named.append(_uids(truth.uids[first], truth.uids[last]))
    return named


def _joined(found: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Ranges in order, what overlaps joined."""
    begin = end = 0
    for low, high in sorted(found):
        if low > end:
            if end:
                yield begin, end
            begin = low
        end = max(end, high)
    if end:
        yield begin, end


def _uids(first: int, last: int) -> bytes:
    return b"%d" % first if first == last else b"%d:%d" % (first, last)


# --- SEARCH, SORT, THREAD -----------------------------------------------------------------------------


def _search(reading: Reading, view: View, truth: Truth) -> Form | Refusal:
    command = reading.command
    verb, tokens = command.rule.verb, reading.tokens
    agrees = view.agrees(truth)
    own_recent = not view.read_only and any(
        token.kind == ATOM and token.value.upper() in _OF_RECENT for token in tokens
    )
    if agrees and not own_recent:
        return Form(verb, command.parts)
    begin = _keys_begin(verb, tokens)
    parts = _Keys(view, truth, agrees=agrees).parts(tokens[begin:])
    if parts is None and agrees:  # it has to do with a key that only the server knows
        return Form(verb, command.parts)
    if parts is None:
        return Refusal(b"NO", b"[EXPUNGEISSUED] The mailbox has changed; say NOOP, then search again")
    parts = (*_written(tokens[:begin]), *parts)
    if agrees or verb.startswith(b"UID "):
        return Form(verb, parts)
    known = b" UID 1:%d" % truth.uids[view.told - 1] if view.told else b" (NOT ALL)"
    return Form(b"UID " + verb, (*parts, known), by_uid=True)  # what comes meanwhile has no number


def _keys_begin(verb: bytes, tokens: Sequence[Token]) -> int:
    """Where the search keys begin: behind RETURN (…) and CHARSET, or behind what SORT and THREAD have before them."""
    begin = 0
    if tokens[0].kind == ATOM and tokens[0].value.upper() == b"RETURN" and tokens[1:2] and tokens[1].kind == OPEN:
        begin = _closed(tokens, 1)
    name = verb.removeprefix(b"UID ")
    if name == b"SEARCH":
        if begin < len(tokens) and tokens[begin].kind == ATOM and tokens[begin].value.upper() == b"CHARSET":
            begin += 2
        return begin
    return (_closed(tokens, begin) if name == b"SORT" else begin + 1) + 1


def _closed(tokens: Sequence[Token], opened: int) -> int:
    """The place behind the list that is opened here, or behind the one token; a command's lists are all closed."""
    depth, place = 0, opened
    while True:
        depth += (tokens[place].kind == OPEN) - (tokens[place].kind == CLOSE)
        place += 1
        if not depth:
            return place


class _Keys:
    """Search keys, as the server is to get them."""

    def __init__(self, view: View, truth: Truth, *, agrees: bool) -> None:
        self._view = view
        self._truth = truth
        self._agrees = agrees
        self._gone = view.gone(truth)

    def parts(self, tokens: Sequence[Token]) -> tuple[Part, ...] | None:
        """All of them; ``None``: there is one among them of which it is not known where its arguments end."""
        parts: list[Part] = []
        place, bare = 0, False
        while place < len(tokens):
            token = tokens[place]
            place += 1
            if token.kind == CLOSE:
                parts.append(b")")
                bare = False
                continue
            parts.append(b"" if bare else b" ")
            bare = token.kind == OPEN
            if bare:
                parts.append(b"(")
                continue
            key = token.value.upper()
            count = _KEYS.get(key)
            if count is None:
                try:
                    parts += self._set(token.value)
                except ValueError:
                    return None
            elif key in _OF_RECENT and not self._view.read_only:
                parts += self._recent(key)
            else:
                parts += [key, *_written(tokens[place : place + count])]
                place += count
        return tuple(parts)

    def _set(self, sequence: bytes) -> Sequence[Part]:
        found = numbers(sequence, len(self._view), clip=True)
        if self._agrees:
            return (sequence,)
        uids = uid_ranges(found or (), self._gone, self._truth)
        return (b"UID ", b",".join(uids)) if uids else _NOTHING

    def _recent(self, key: bytes) -> Sequence[Part]:
        uids = compact(self._view.recents).encode()
        if key == b"OLD":
            return (b"NOT UID ", uids) if uids else (b"ALL",)
        if not uids:
            return _NOTHING
        return (b"UID ", uids) if key == b"RECENT" else (b"(UID ", uids, b" UNSEEN)")


def _written(tokens: Sequence[Token]) -> list[Part]:
    """Tokens as they are written, a space in front of each argument."""
    parts: list[Part] = []
    bare = False
    for kind, value in tokens:
        if kind == CLOSE:
            parts.append(b")")
            continue
        parts.append(b"" if bare else b" ")
        bare = kind == OPEN
        if kind == LITERAL:
            parts.append(Literal(value))
        else:
            parts.append(string(value) if kind == QUOTED else value)
    return parts
