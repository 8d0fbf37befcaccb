"""One connection of the reference server: what it has selected, and the commands that are about messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from tests.sharing import fetching
from tests.sharing.reading import Found, Keys, Tree, Wrong, atom, compact, flat, ranges
from tests.sharing.store import Mailbox, Store, canonical, changed, proper
from tests.sharing.told import Beyond, Fate, Ghosts, Step, Style, Told, View

FALSE = b"Subject: false\r\n\r\nThis is no message.\r\n"
"""What Courier shows for a message that is gone."""


_CRASH = b"* BYE Fatal error: Internal error: assertion failed: imap/mailbox.c: !record->expunged"

Answer: TypeAlias = tuple[list[bytes], bytes]
"""Untagged lines, and the completion without its tag."""


class Refused(Exception):
    """A command is answered NO: the text, and the lines before it."""


class Died(Exception):
    """The connection is over: the last lines, and there may be none."""


class Command(NamedTuple):
    """One command; ``uid``: it came behind ``UID``, and ``name`` has both words."""

    tag: bytes
    name: bytes
    verb: bytes
    uid: bool
    arguments: Tree

    def atom(self, which: int) -> bytes:
        """An argument that is no list."""
        return atom(self.arguments[which])


class Session:
    """One connection; what it says, and when, is for the :class:`~tests.sharing.server.Server` to know.

    :ivar capabilities: what it offers
    :ivar view: the selected mailbox as the client was told of it, if any
    :ivar condstore: whether flags come with their MODSEQ
    :ivar qresync: whether VANISHED is said for EXPUNGE, and flags come with their UID
    """

    def __init__(self, store: Store, style: Style, capabilities: bytes | None = None) -> None:
        self.store = store
        self.style = style
        self.capabilities = style.capabilities if capabilities is None else capabilities
        self.view: View | None = None
        self.condstore = False
        self.qresync = False

    @property
    def selected(self) -> View:
        """The selected mailbox."""
        assert self.view is not None
        return self.view

    def tell(self, steps: frozenset[Step], name: bytes) -> list[bytes]:
        """The news of these kinds, in the command of this name."""
        view = self.selected
        if self.style.fate is Fate.NOTHING and view.now is not view.mailbox:
            return []
        uid = name in self.style.with_uid or self.qresync
        return view.tell(steps, uid, self.condstore, self.qresync)

    def find(self, name: bytes) -> Mailbox | None:
        """The mailbox of a name."""
        return self.store.mailboxes.get(proper(name))

    def named(self, name: bytes, code: bytes = b"[NONEXISTENT]") -> Mailbox:
        """The mailbox of a name, which must be there."""
        mailbox = self.find(name)
        if mailbox is None:
            raise Refused(code + b" Mailbox does not exist")
        return mailbox

    def _numbered(self, command: Command) -> tuple[list[tuple[int, Told]], list[bytes]]:
        """The messages that a command names, and a line about those that it names wrongly."""
        found, beyond = self.selected.numbered(command.uid, command.atom(0))
        if beyond and self.style.beyond is Beyond.BAD:
            raise Wrong("invalid message numbers")
        if not found and not command.uid and self.style.beyond is Beyond.NO:
            raise Refused(b"No matching messages")
        clamped = found and beyond and self.style.beyond is Beyond.WARNED
        return found, [b"* NO Invalid message number"] if clamped else []

    def _crashes(self, command: Command, found: list[tuple[int, Told]]) -> None:
        fatal = self.style.ghosts is Ghosts.CRASH and not command.uid
        if fatal and any(self.selected.ghost(told) for _, told in found):
            raise Died(_CRASH)

    def _fetch(self, command: Command) -> Answer:
        view, style = self.selected, self.style
        found, lines = self._numbered(command)
        asked = fetching.items(command.arguments[1])
        self.condstore |= b"MODSEQ" in asked
        reading = any(map(fetching.reads, asked))
        seeing = any(map(fetching.sets_seen, asked))
        if seeing:
            self._crashes(command, found)
        if command.uid and b"UID" not in asked:
            asked = [b"UID", *asked]
        issued = False
        for number, told in found:
            gone = view.ghost(told)
            if gone and reading and style.ghosts is Ghosts.CRASH:
                continue
            issued |= gone and reading and style.ghosts is Ghosts.ISSUED
            body = told.message.body if not gone else FALSE if style.ghosts is Ghosts.FALSE else None
            flags, items = view.flags(told), asked
            if seeing and not gone and not view.read_only and b"\\Seen" not in told.flags:
                view.change(told, b"+", {b"\\Seen"})
                told.flags.add(b"\\Seen")
                if not style.seen_apart:
                    flags, items = view.flags(told), asked if b"FLAGS" in asked else [*asked, b"FLAGS"]
            values = b" ".join(fetching.answered(item, told.message, flags, body) for item in items)
            lines.append(b"* %d FETCH (%b)" % (number, values))
            if flags != view.flags(told):
                lines.append(view.flags_line(number, told, command.uid, self.condstore))
        if reading:
            lines += self._stray()
        return lines, b"OK [EXPUNGEISSUED] Some messages were already expunged" if issued else b"OK Done"

    def _store(self, command: Command) -> Answer:
        view, style = self.selected, self.style
        if view.read_only and not style.stores_in_examine:
            raise Refused(b"[READ-ONLY] Mailbox is read-only")
        found, wrong = self._numbered(command)
        item = re.fullmatch(rb"([+-]?)FLAGS(\.SILENT)?", command.atom(1).upper())
        if item is None:
            raise Wrong("nothing to be stored")
        given = canonical(
            flat(command.arguments[2]) if len(command.arguments) == 3 else map(atom, command.arguments[2:])
        )
        expected = [changed(told.flags, item[1], given) for _, told in found]
        for _, told in found:
            view.change(told, item[1], given)
        if style.news_first:  # its own changes are told with all others
            return wrong, b"OK Done"
        shown = []
        for (number, told), flags in zip(found, expected, strict=True):
            gone = view.ghost(told)
            if not item[2] and (not gone if style.echoes_all else gone or flags != told.flags):
                shown.append((number, told))
            if not gone or style.ghosts is Ghosts.ISSUED:
                told.flags = flags
        lines = wrong + view.tell_keywords(stale=True)
        lines += [view.flags_line(*one, command.uid or self.qresync, self.condstore) for one in shown]
        return lines, b"OK Done"

    def _copy(self, command: Command) -> Answer:
        view, style = self.selected, self.style
        moving = command.verb == b"MOVE"
        found, lines = self._numbered(command)
        target = self.named(command.atom(1), b"[TRYCREATE]")
        if moving and view.read_only and not style.moves_in_examine:
            raise Refused(b"[READ-ONLY] Mailbox is read-only")
        self._crashes(command, found)
        there = [told.message for _, told in found if not view.ghost(told)]
        if len(there) < len(found) and style.ghosts is Ghosts.ISSUED:
            return lines, b"NO [EXPUNGEISSUED] Some of the requested messages no longer exist"
        if not there:
            return lines, b"OK No messages"
        copies = [target.append(message.body, message.flags, message.date) for message in there]
        sets = compact(message.uid for message in there), compact(message.uid for message in copies)
        code = b"OK [COPYUID %d %b %b] Done" % (target.uidvalidity, *sets)
        if not moving:
            return lines, code
        view.mailbox.expunge(*(message.uid for message in there))
        return [*lines, b"* " + code], self._expunged()

    def _expunge(self, command: Command) -> Answer:
        if self.selected.read_only:
            raise Refused(b"[READ-ONLY] Mailbox is read-only")
        self.selected.expunge(ranges(command.atom(0), self.selected.last_uid) if command.uid else None)
        return [], self._expunged()

    def _expunged(self) -> bytes:
        return b"OK [HIGHESTMODSEQ %d] Done" % self.selected.mailbox.modseq if self.qresync else b"OK Done"

    # --- searching --------------------------------------------------------------------------------------------

    def _found(self, command: Command, keys: Tree) -> list[Found]:
        view = self.selected
        last = (2**32, 2**32) if not self.style.swaps else (len(view.told), view.last_uid)
        key = Keys(keys, *last, self.style.swaps).all()
        false = FALSE if self.style.ghosts is Ghosts.FALSE else None
        bodies = [false if view.ghost(told) else told.message.body for told in view.told]
        all_of_them = [
            Found(told.message.uid if command.uid else number, number, told.message, view.flags(told), body)
            for number, (told, body) in enumerate(zip(view.told, bodies, strict=True), 1)
        ]
        return [found for found in all_of_them if key(found)]

    def _search(self, command: Command) -> Answer:
        keys, wanted = command.arguments, None
        if keys[:1] == [b"RETURN"] and b"ESEARCH" in self.capabilities:
            wanted, keys = [word.upper() for word in flat(keys[1])] or [b"ALL"], keys[2:]
        if keys[:1] == [b"CHARSET"]:
            keys = keys[2:]
        shown = [found.shown for found in self._found(command, keys)]
        if wanted is None:
            return [b"* SEARCH" + b"".join(b" %d" % number for number in shown)], b"OK Done"
        values = {b"COUNT": b"%d" % len(shown)}
        if shown:
            values |= {b"MIN": b"%d" % min(shown), b"MAX": b"%d" % max(shown), b"ALL": compact(shown)}
        answer = b'* ESEARCH (TAG "%b")' % command.tag + b" UID" * command.uid
        return [answer + b"".join(b" %b %b" % (item, values[item]) for item in wanted if item in values)], b"OK Done"

    def _sort(self, command: Command) -> Answer:
        criteria = [word.upper() for word in flat(command.arguments[0])]
        found = self._found(command, command.arguments[2:])
        for position in reversed(range(len(criteria))):
            if criteria[position] != b"REVERSE":
                found.sort(key=_ORDERS[criteria[position]], reverse=criteria[position - 1 : position] == [b"REVERSE"])
        return [b"* SORT" + b"".join(b" %d" % one.shown for one in found), *self._stray()], b"OK Done"

    def _thread(self, command: Command) -> Answer:
        shown = [b"%d" % one.shown for one in self._found(command, command.arguments[2:])]
        threads = [shown[first : first + 3] for first in range(0, len(shown), 3)]
        text = b"".join(b"(%b (%b)(%b))" % (*t,) if len(t) == 3 else b"(%b)" % b" ".join(t) for t in threads)
        return [b"* THREAD" + b" " * bool(text) + text, *self._stray()], b"OK Done"

    def _stray(self) -> list[bytes]:
        """The FLAGS that Courier says again and again."""
        return [] if self.style.news else self.selected.flags_lines()[:1]


_ORDERS: dict[bytes, Callable[[Found], Any]] = {
    b"ARRIVAL": lambda found: found.message.date,
    b"DATE": lambda found: found.message.date,
    b"SIZE": lambda found: len(found.message.body),
    b"SUBJECT": lambda found: fetching.answered(b"ENVELOPE", found.message, set(), None),
}
EITHER: dict[bytes, Callable[[Session, Command], Answer]] = {
    b"FETCH": Session._fetch,
    b"STORE": Session._store,
    b"COPY": Session._copy,
    b"MOVE": Session._copy,
    b"EXPUNGE": Session._expunge,
    b"SEARCH": Session._search,
    b"SORT": Session._sort,
    b"THREAD": Session._thread,
}
"""The commands about messages; each may stand behind UID."""
