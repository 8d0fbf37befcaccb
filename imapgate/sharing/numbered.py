"""``* NUMBER …``: what a server says of the messages of the selected mailbox, for the truth and for whoever asked.

Everything that comes is learnt.  What a session asked for it gets in its own numbers, with its own ``\\Recent``; what
concerns the others as well, they are owed.  It must not know which command runs, but what its session wants of FETCH.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from imapgate.errors import UpstreamProtocolError
from imapgate.limits import MIB
from imapgate.model.reading import Store
from imapgate.sharing.truth import RECENT, UNKNOWN, Truth, plain_flags, same_flags
from imapgate.sharing.view import View
from imapgate.wire.sequence import MOST

_LINE_MOST = MIB
_BLOCK = 1024
"""Text of more octets than this may be worth looking at as a whole."""
_NUMBERED = re.compile(rb"\* ([0-9]{1,10}) (EXISTS|EXPUNGE|RECENT|FETCH \()", re.IGNORECASE)
_FLAT = re.compile(
    rb"\* ([0-9]{1,10}) FETCH \((?:UID ([0-9]{1,10}) )?FLAGS \(([^()\r\n]*)\)(?: UID ([0-9]{1,10}))?\)\r\n\Z",
    re.IGNORECASE,
)
"""Nearly every response that speaks of flags alone."""
_FLATS = re.compile(_FLAT.pattern.removesuffix(rb"\Z"), re.IGNORECASE)
_FRONT = re.compile(
    rb"\* [0-9]{1,10} FETCH \((?:(?:UID ([0-9]{1,10})(?=[ )])|FLAGS \(([^()\r\n]*)\)) ?)*+", re.IGNORECASE
)
"""UID and FLAGS where most servers put them: before all else."""
_QUOTED = rb'"(?:[^"\\\r\n]|\\.)*+"'
_ITEM = re.compile(
    _QUOTED + rb"|\[(?:" + _QUOTED + rb'|[^]"\r\n])*+\]'
    rb"|(?<=[( ])(?:FLAGS \(([^()\r\n]*)\)|UID ([0-9]{1,10})(?=[ )]))",
    re.IGNORECASE,
)
"""FLAGS and UID where they are items; what stands in quotes or in a section is skipped."""
_LONELY = re.compile(rb"\* ([0-9]+) FETCH \(\)\r\n\Z", re.IGNORECASE)


class Wish(NamedTuple):
    """What a session that has asked for FETCH responses wants of them.

    :ivar fetching: it has asked for some at all
    :ivar flags: flags are among what it asked for
    :ivar uid: UIDs are, too
    :ivar store: what it did to flags, and does not want to hear of
    :ivar named: the UIDs of the messages to which it did that, as ranges in order
    """

    view: View
    fetching: bool = False
    flags: bool = False
    uid: bool = False
    store: Store | None = None
    named: tuple[tuple[int, int], ...] = ()

    def silenced(self, uid: int) -> bool:
        """Whether it does not want to hear of a message what it did itself."""
        place = bisect_right(self.named, (uid, MOST))
        return self.store is not None and place > 0 and self.named[place - 1][1] >= uid


class Numbered:
    """The numbered responses on one channel."""

    __slots__ = ("_index", "_inside", "_part", "_shown", "_truth", "_views", "wish")

    def __init__(self, truth: Truth, views: Iterable[View]) -> None:
        self._truth = truth
        self._views = views
        self._part = b""  # of a line whose end has not come
        self._inside = False  # a FETCH response, behind a literal
        self._index = 0  # of its message
        self._shown = False  # it is passed on
        self.wish: Wish | None = None
        """Of the session whose command runs."""

    @property
    def shown(self) -> bool:
        """Whether the literal that comes now is for the session whose command runs."""
        return self._shown

    def text(self, piece: bytes, whole: bool) -> bytes:
        """Take text; return what the session whose command runs is to see.

        :param whole: a line's start is behind it, and not a literal
        """
        if self._part:
            piece, self._part = self._part + piece, b""
        if not whole and not piece.endswith(b"\n"):
            cut = piece.rfind(b"\n") + 1
            piece, self._part = piece[:cut], piece[cut:]
            if len(self._part) > _LINE_MOST:
                raise UpstreamProtocolError(f"a line of more than {_LINE_MOST} octets")
            whole = True
        if not self._inside and len(piece) > _BLOCK and (block := self._block(piece)) is not None:
            return block
        said = []
        begin, size = 0, len(piece)
        while begin < size:
            end = piece.find(b"\n", begin) + 1
            said.append(self._segment(piece[begin:end], whole or end < size))
            begin = end
        return b"".join(said)

    def _block(self, piece: bytes) -> bytes | None:
        """Take many lines at once that speak of flags alone, and of nothing new to anybody; ``None``: there are others.

        What fills the truth is learnt at once, too.
        """
        truth, wish = self._truth, self.wish
        lines = _FLATS.findall(piece)
        if len(lines) != piece.count(b"\n"):
            return None
        if wish is None:
            uids = [int(one or other or 0) for _, one, _, other in lines]
            flags = [plain_flags(raw) for _, _, raw, _ in lines]
            if not truth.learn_all(int(lines[0][0]), int(lines[-1][0]), uids, [each for each, _ in flags]):
                return None
            truth.recent.update(uid for uid, (_, recent) in zip(uids, flags, strict=True) if recent)
            for view in self._views:
                for index in range(int(lines[0][0]) - 1, view.told):
                    view.owe(truth, index)
            return b""
        view, known = wish.view, truth.flags
        if not (wish.flags and wish.uid and wish.store is None) or view.recents or view.changed or view.read_only:
            return None
        if not view.agrees(truth) or truth.filled < len(truth):
            return None
        for number, one, raw, other in lines:
            index = int(number) - 1
            if not 0 <= index < len(known) or known[index] != raw or int(one or other or 0) != truth.uids[index]:
                return None
        return piece

    def _segment(self, segment: bytes, ends: bool) -> bytes:
        """Take a line, or what of it stands between two literals; ``ends``: its response is whole."""
        if self._inside:
            self._inside = not ends
            return self._items(segment)[1] if self._shown else self._unseen(segment)
        flat = _FLAT.match(segment)
        if flat is not None:
            return self._flat(segment, flat)
        found = _NUMBERED.match(segment)
        if found is None:
            return segment if self.wish is not None and ends else b""
        number, word = int(found[1]), found[2].upper()
        if word == b"EXISTS":
            self._truth.exists(number)
        elif word == b"EXPUNGE":
            self._expunge(number)
        elif word != b"RECENT":
            return self._fetch(segment, number, ends)
        return b""

    def _expunge(self, number: int) -> None:
        truth, index = self._truth, number - 1
        if number > len(truth):  # Cyrus has been seen to expunge what it had not announced
            truth.exists(number)
        unsure = 0 in truth.uids[truth.filled : index]
        uid = truth.expunge(number)
        if not uid and unsure and any(index < view.told for view in self._views):
            raise UpstreamProtocolError("EXPUNGE of a message of which nothing more was known")
        for view in self._views:
            view.expunged(truth, index, uid)

    # --- FETCH ----------------------------------------------------------------------------------------

    def _at(self, number: int) -> int:
        """The place of a message; one that was not announced is announced by this (SHARED, rule 4)."""
        if not number:
            raise UpstreamProtocolError("FETCH of message 0")
        if number > len(self._truth):
            self._truth.exists(number)
        return number - 1

    def _learn(self, index: int, uid: int, raw: bytes | None) -> bool:
        """Learn of a message; whether its flags have changed, and all but the one who asked are owed them."""
        truth, flags = self._truth, None
        if raw is not None:
            flags, recent = plain_flags(raw)
            if recent and index >= truth.filled:
                if uid or truth.uids[index]:
                    truth.recent.add(uid or truth.uids[index])
                else:  # whose it is cannot be kept; it will be asked for again, with its UID
                    flags = None
        named = bool(uid) and not truth.uids[index]  # who was told of it before may know other flags by now
        changed = truth.learn(index, uid, flags)
        if changed or named:
            for view in self._views:
                view.owe(truth, index)
        return changed

    def _flat(self, segment: bytes, found: re.Match[bytes]) -> bytes:
        self._index = index = self._at(int(found[1]))
        truth, wish = self._truth, self.wish
        before, said = truth.flags[index], found[2] or found[4]
        owed = wish is not None and truth.uids[index] in wish.view.changed
        changed = self._learn(index, int(said) if said else 0, found[3])
        if wish is None or not wish.fetching:
            return b""
        view, uid = wish.view, truth.uids[index]
        if wish.store is not None and wish.silenced(uid):
            if not owed and same_flags(truth.flags[index], applied(before, wish.store)):  # what it thinks anyway
                view.changed.pop(uid, None)
                return b""
        elif not (changed or owed or (wish.flags and wish.store is None)):
            return b""
        grown = view.grow(truth) if index >= view.told else b""
        view.changed.pop(uid, None)
        return grown + self._renumbered(self._edited(segment, wish), view, index)

    def _renumbered(self, segment: bytes, view: View, index: int) -> bytes:
        number = view.number(self._truth, index)
        return segment if number == index + 1 else b"* %d%b" % (number, segment[segment.index(b" ", 2) :])

    def _fetch(self, segment: bytes, number: int, ends: bool) -> bytes:
        """Take the first segment of a FETCH response, or all of it."""
        self._index, self._inside = self._at(number), not ends
        wish = self.wish
        self._shown = wish is not None and wish.fetching
        if not self._shown:
            return self._unseen(segment)
        assert wish is not None
        grown, said = self._items(segment)
        if ends and _LONELY.match(said):  # of what it said nothing was asked
            return grown
        return grown + self._renumbered(said, wish.view, self._index)

    def _unseen(self, segment: bytes) -> bytes:
        for found in _ITEM.finditer(segment):
            if found[1] is not None:
                self._learn(self._index, 0, found[1])
            elif found[2] is not None:
                self._learn(self._index, int(found[2]), None)
        return b""

    def _items(self, segment: bytes) -> tuple[bytes, bytes]:
        """Learn what a segment says; return what has to be said before, and what its session is to see of it."""
        wish, index = self.wish, self._index
        assert wish is not None
        view = wish.view
        front = _FRONT.match(segment)
        end = 0 if front is None else front.end()
        if front is not None and segment.find(b"FLAGS (", end) < 0 and segment.find(b"UID ", end) < 0:
            uid, raw = front.groups()
            self._learn(index, int(uid or 0), raw)
            if raw is not None:
                view.changed.pop(self._truth.uids[index], None)
            grown = view.grow(self._truth) if index >= view.told else b""
            if (wish.uid or uid is None) and (raw is None or self._flags(view, index, raw) is raw):
                return grown, segment
        else:
            for found in _ITEM.finditer(segment):
                if found[1] is not None:
                    self._learn(index, 0, found[1])
                    view.changed.pop(self._truth.uids[index], None)
                elif found[2] is not None:
                    self._learn(index, int(found[2]), None)
            grown = view.grow(self._truth) if index >= view.told else b""
        return grown, self._edited(segment, wish)

    def _edited(self, segment: bytes, wish: Wish) -> bytes:
        """A segment with the session's own recent, and without a UID that it did not ask for."""
        done, said = 0, []
        for found in _ITEM.finditer(segment):
            raw = found[1]
            if raw is not None:
                flags = self._flags(wish.view, self._index, raw)
                if flags is not raw:
                    said += [segment[done : found.start(1)], flags]
                    done = found.end(1)
            elif found[2] is not None and not wish.uid:
                begin, end = found.span()
                opened = segment[begin - 1 : begin] == b"("
                said.append(segment[done : begin if opened else begin - 1])
                done = end + (opened and segment[end : end + 1] == b" ")
        if not done:
            return segment
        said.append(segment[done:])
        return b"".join(said)

    def _flags(self, view: View, index: int, raw: bytes) -> bytes:
        """Flags as a session sees them: recent is what is recent to it."""
        if view.read_only:
            return raw
        plain, said = plain_flags(raw)
        recent = self._truth.uids[index] in view.recents
        if recent == said:
            return raw
        return b" ".join([*plain.split(), RECENT]) if recent else plain


def applied(flags: bytes, store: Store) -> bytes:
    """What STORE makes of flags, if the server has nothing to add."""
    named = {flag.encode().lower(): flag.encode() for flag in store.flags}
    before = {flag.lower(): flag for flag in flags.split()} if flags is not UNKNOWN else {}
    if store.sign == "-":
        after = {key: flag for key, flag in before.items() if key not in named}
    else:
        after = {**named, **before} if store.sign else {**named}
    return b" ".join(after.values())
