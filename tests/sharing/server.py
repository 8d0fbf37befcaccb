"""A reference IMAP server for tests: one connection of a user's who has logged in, no I/O, nothing left to chance.

It plays a real server's habits (:class:`~tests.sharing.told.Style`): what it tells of other connections' doings, when,
and in which order.  A connection has its own idea of its mailbox, and learns of changes in the :class:`Store` only by
looking; that it does when the real server would.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.sharing.reading import Tree, Wrong, atom, flat, tree
from tests.sharing.session import EITHER, FALSE, Answer, Command, Died, Refused, Session
from tests.sharing.store import Store, proper
from tests.sharing.told import COURIER, CYRUS, DOVECOT, STYLES, Fate, Step, Style, View

__all__ = ["COURIER", "CYRUS", "DOVECOT", "FALSE", "STYLES", "Server", "Store"]

_LITERAL = re.compile(rb"\{(\d+)(\+?)\}\Z")
_ALL = frozenset(Step)
_SYNCHRONISING = (b"NOOP", b"CHECK", b"EXPUNGE", b"UID EXPUNGE")
_NUMBERED = (b"FETCH", b"STORE", b"SEARCH", b"SORT", b"THREAD")  # while one is answered, there is no EXPUNGE
_OFFERED = (b"IDLE", b"MOVE", b"SORT", b"THREAD", b"UNSELECT", b"ENABLE")  # only with the capability
_BYE = b"* BYE Selected mailbox was deleted, have to disconnect."


class Server(Session):
    """One connection that has logged in.

    :param capabilities: what it offers, where that is not all that the style has
    :param hasty: it answers FETCH with messages that it announces afterwards, as Cyrus has been seen to do
    :ivar dead: whether it has closed the connection
    :ivar idling: whether it waits for DONE
    :ivar pipelined: how many commands came in one piece with the one before
    :ivar heard: the commands so far, without their tags
    """

    def __init__(self, store: Store, style: Style, capabilities: bytes | None = None, hasty: bool = False) -> None:
        super().__init__(store, style, capabilities)
        self.dead = False
        self.idling = False
        self.pipelined = 0
        self.heard: list[bytes] = []
        self._hasty = hasty
        self._data = b""
        self._whole = 0  # how much of it is known to be lines with their literals
        self._asked = -1  # where the line ends whose literal was asked for
        self._idle_tag = b""

    # --- octets -----------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> bytes:
        """Take what the client has sent, in whatever pieces; what is answered."""
        self._data += data
        out: list[bytes] = []
        commands = 0
        while not self.dead and (text := self._next(out)) is not None:
            self.pipelined += commands > 0
            commands += 1
            try:
                out += self._line(text)
            except Died as death:
                out += death.args
                self.dead = True
        return b"".join(line + b"\r\n" for line in out)

    def pending(self) -> bytes:
        """What it says of its own accord now: the news, where it idles."""
        out: list[bytes] = []
        if self.idling and not self.dead and self.view is not None:
            try:
                self._look(b"IDLE", self._idle_tag)
                out += self.tell(_ALL, b"IDLE")
            except Refused as refusal:
                out += refusal.args[1:]
            except Died as death:
                out += death.args
                self.dead = True
        return b"".join(line + b"\r\n" for line in out)

    def _next(self, out: list[bytes]) -> bytes | None:
        """The next command with its literals; one that it waits for is asked for."""
        while True:
            end = self._data.find(b"\r\n", self._whole)
            if end < 0:
                return None
            found = _LITERAL.search(self._data[self._whole : end])
            if found and found[2] and b"LITERAL+" not in self.capabilities:
                found = None  # an error for the command's reader, and what follows is the next line
            text = self._data[: self._whole + found.start()].rstrip(b" ") if found else self._data[:end]
            if found is None or (not found[2] and self._homeless(text)):
                self._data, self._whole, self._asked = self._data[end + 2 :], 0, -1
                return text
            if not found[2] and self._asked != end:
                out.append(b"+ OK")
                self._asked = end
            stop = end + 2 + int(found[1])
            if len(self._data) < stop:
                return None
            self._whole = stop

    def _homeless(self, text: bytes) -> bool:
        """Whether the message that is announced has no mailbox: it is refused before it is sent."""
        words = text.split(b" ", 2)
        with contextlib.suppress(Wrong):
            if len(words) == 3 and words[1].upper() == b"APPEND" and (arguments := tree(words[2])):
                return self.find(atom(arguments[0])) is None
        return False

    def _line(self, text: bytes) -> list[bytes]:
        if self.idling:
            self.idling = False
            return [self._idle_tag + (b" OK Idle completed" if text.upper() == b"DONE" else b" BAD Expected DONE")]
        tag, _, rest = text.partition(b" ")
        self.heard.append(rest)
        uid = rest[:4].upper() == b"UID "
        verb, _, arguments = rest[4 * uid :].partition(b" ")
        verb = verb.upper()
        lines: list[bytes] = []
        try:
            completion = self._answer(Command(tag, b"UID " * uid + verb, verb, uid, tree(arguments)), lines)
        except (Wrong, IndexError, ValueError) as error:
            completion = b"BAD " + repr(error).encode()
        except Refused as refusal:
            lines += refusal.args[1:]
            completion = b"NO " + refusal.args[0]
        except Died as death:
            raise Died(*lines, *death.args) from None
        return [*lines, tag + b" " + completion] if completion else lines

    def _answer(self, command: Command, lines: list[bytes]) -> bytes:
        """Do as the command says; the lines are filled, and the completion is answered."""
        verb, name = command.verb, command.name
        if verb in _OFFERED and all(verb != word.partition(b"=")[0] for word in self.capabilities.split()):
            raise Wrong("not offered")
        if name in _ANYWHERE or (self.view is None and name == b"NOOP"):
            own, completion = _ANYWHERE.get(name, Server._noop)(self, command)
            lines += own
            return completion
        if self.view is None or name not in _SELECTED:
            raise Wrong("no such command here")
        self._look(name, command.tag)
        lines += self.tell(self._before(name), name)
        late = self.tell(frozenset({Step.EXISTS}), name) if self._hasty and verb == b"FETCH" else []
        try:
            own, completion = _SELECTED[name](self, command)
            lines += own
        finally:
            lines += late
        lines += self.tell(self._after(name), name)
        return completion

    # --- news -------------------------------------------------------------------------------------------------

    def _look(self, name: bytes, tag: bytes) -> None:
        """See whether the selected mailbox is still there, under its name."""
        view = self.selected
        if view.now is view.mailbox:
            return
        if self.style.fate is Fate.BYE:
            noticed = view.now is None or name not in (b"NOOP", b"CHECK")
            raise Died(_BYE) if noticed else Died(tag + b" OK Done", _BYE)
        if self.style.fate is Fate.END:
            if view.mailbox not in self.store.mailboxes.values():
                raise Died
            gone = [] if name in _NUMBERED else self.tell(frozenset({Step.EXPUNGE}), name)
            raise Refused(b"Mailbox does not exist", *gone)
        if name in _SYNCHRONISING:
            view.turn()

    def _before(self, name: bytes) -> frozenset[Step]:
        """The news that is told before a command's own data."""
        if name in _SYNCHRONISING or not self.style.news_first:
            return frozenset()
        steps = _ALL if name in self.style.expunge_first else _ALL - {Step.EXPUNGE}
        if self._hasty and name.endswith(b"FETCH"):
            steps -= {Step.EXISTS}
        return steps - {Step.FETCH} if name.endswith(b"STORE") else steps

    def _after(self, name: bytes) -> frozenset[Step]:
        """The news that is told after them."""
        if name in _SYNCHRONISING or name in self.style.expunge_last:
            return _ALL
        if self.style.news_first:
            return frozenset({Step.KEYWORDS, Step.FETCH}) if name.endswith(b"STORE") else frozenset()
        return _ALL - {Step.EXPUNGE} if self.style.news else frozenset()

    # --- commands about mailboxes ------------------------------------------------------------------------------

    def _noop(self, command: Command) -> Answer:
        return [], b"OK Done"

    def _capability(self, command: Command) -> Answer:
        return [b"* CAPABILITY " + self.capabilities], b"OK Done"

    def _enable(self, command: Command) -> Answer:
        words = [atom(word).upper() for word in command.arguments]
        enabled = [word for word in words if word in (b"CONDSTORE", b"QRESYNC") and word in self.capabilities.split()]
        self.condstore |= bool(enabled)
        self.qresync |= b"QRESYNC" in enabled
        return [b" ".join([b"* ENABLED", *enabled])], b"OK Done"

    def _select(self, command: Command) -> Answer:
        lines = []
        if self.view and (self.style.says_closed or self.qresync):
            lines.append(b"* OK [CLOSED] Previous mailbox closed")
        self.view = None
        mailbox = self.find(command.atom(0))
        if mailbox is None:
            return lines, b"NO [NONEXISTENT] Mailbox does not exist"
        read_only = command.verb == b"EXAMINE"
        resync = self._parameters(command.arguments[1:])
        view = View(self.store, proper(command.atom(0)), read_only, self.style)
        self.view = view
        number = next((n for n, told in enumerate(view.told, 1) if b"\\Seen" not in told.flags), 0)
        flags = view.flags_lines()
        counts = [b"* %d EXISTS" % len(view.told), b"* %d RECENT" % view.recent]
        lines += counts + flags if self.style.counts_first else flags + counts
        if number and self.style.more_codes:
            lines.append(b"* OK [UNSEEN %d] Ok" % number)
        lines.append(b"* OK [UIDVALIDITY %d] Ok" % mailbox.uidvalidity)
        if self.style.more_codes:
            lines.append(b"* OK [UIDNEXT %d] Ok" % mailbox.uidnext)
        if self.condstore or self.style.always_modseq:
            lines.append(b"* OK [HIGHESTMODSEQ %d] Ok" % mailbox.modseq)
        if resync and resync[0] == mailbox.uidvalidity:
            lines += view.since(resync[1])
        return lines, b"OK [READ-ONLY] Done" if read_only else b"OK [READ-WRITE] Done"

    def _parameters(self, node: Tree) -> list[int]:
        """What stands behind SELECT's mailbox: QRESYNC's UIDVALIDITY and MODSEQ, if they are there."""
        if not node:
            return []
        words = node[0]
        if isinstance(words, bytes) or b"CONDSTORE" not in self.capabilities:
            raise Wrong("no such parameters")
        self.condstore = True
        if words[0] != b"QRESYNC":
            return []
        if not self.qresync:
            raise Wrong("QRESYNC is not enabled")
        return [int(number) for number in flat(words[1][:2])]

    def _close(self, command: Command) -> Answer:
        if self.view is None:
            raise Wrong("nothing is selected")
        if command.verb == b"CLOSE" and not self.view.read_only:
            self.view.expunge()
        self.view = None
        return [], b"OK Done"

    def _status(self, command: Command) -> Answer:
        mailbox = self.named(command.atom(0))
        view = self.view if self.view and self.view.mailbox is mailbox else None
        lines = []
        if view and self.style.fresh_status:
            lines = self.tell(_ALL, b"STATUS")
        messages = [(told.flags, told.message.uid in view.recents) for told in view.told] if view else []
        if view is None:
            messages = [(message.flags, message.recent) for message in mailbox.messages]
        values = {
            b"MESSAGES": len(messages),
            b"RECENT": sum(recent for _, recent in messages),
            b"UNSEEN": sum(b"\\Seen" not in flags for flags, _ in messages),
            b"UIDNEXT": view.uidnext if view else mailbox.uidnext,
            b"UIDVALIDITY": mailbox.uidvalidity,
        }
        asked = [item.upper() for item in flat(command.arguments[1])]
        if b"HIGHESTMODSEQ" in asked and b"CONDSTORE" in self.capabilities:
            values[b"HIGHESTMODSEQ"] = mailbox.modseq
            self.condstore = True
        if not values.keys() >= {*asked}:
            raise Wrong("no such status item")
        lines.append(
            b"* STATUS %b (%b)" % (_name(command.atom(0)), b" ".join(b"%b %d" % (i, values[i]) for i in asked))
        )
        bug = view is not None and self.style.name == "dovecot"
        return lines, b"OK [CLIENTBUG] Status on selected mailbox" if bug else b"OK Done"

    def _list(self, command: Command) -> Answer:
        pattern = (command.atom(0) + command.atom(1)).decode("latin-1").replace("%", "*")
        names = [name for name in sorted(self.store.mailboxes) if fnmatch.fnmatchcase(name.decode("latin-1"), pattern)]
        return [b'* LIST () "/" ' + _name(name) for name in names], b"OK Done"

    def _create(self, command: Command) -> Answer:
        if self.find(command.atom(0)) is not None:
            raise Refused(b"[ALREADYEXISTS] Mailbox exists")
        self.store.create(command.atom(0))
        return [], b"OK Done"

    def _delete(self, command: Command) -> Answer:
        self.named(command.atom(0))
        if proper(command.atom(0)) == b"INBOX":
            raise Refused(b"INBOX cannot be deleted")
        if self.view and self.view.name == command.atom(0):
            self.view = None
        self.store.delete(command.atom(0))
        return [], b"OK Done"

    def _rename(self, command: Command) -> Answer:
        self.named(command.atom(0))
        if proper(command.atom(0)) == b"INBOX" or self.find(command.atom(1)) is not None:
            raise Refused(b"[CANNOT] Not to be renamed so")
        self.store.rename(command.atom(0), command.atom(1))
        return [], b"OK Done"

    def _append(self, command: Command) -> Answer:
        mailbox = self.named(command.atom(0), b"[TRYCREATE]")
        *options, body = command.arguments[1:]
        flags = next((flat(option) for option in options if isinstance(option, list)), [])
        dates = [option.decode().strip() for option in options if isinstance(option, bytes)]
        date = datetime.strptime(dates[0], "%d-%b-%Y %H:%M:%S %z") if dates else None
        message = mailbox.append(atom(body), flags, date)
        lines = self.tell(_ALL, b"APPEND") if self.view and self.view.mailbox is mailbox else []
        return lines, b"OK [APPENDUID %d %d] Done" % (mailbox.uidvalidity, message.uid)

    def _idle(self, command: Command) -> Answer:
        self.idling, self._idle_tag = True, command.tag
        return [b"+ idling"], b""

    def _logout(self, command: Command) -> Answer:
        raise Died(b"* BYE Logging out", command.tag + b" OK Done")


def _name(name: bytes) -> bytes:
    return name if re.fullmatch(rb"[\w./-]+", name) else b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", name)


_ANYWHERE: dict[bytes, Callable[[Server, Command], Answer]] = {
    b"CAPABILITY": Server._capability,
    b"ENABLE": Server._enable,
    b"SELECT": Server._select,
    b"EXAMINE": Server._select,
    b"STATUS": Server._status,
    b"LIST": Server._list,
    b"CREATE": Server._create,
    b"DELETE": Server._delete,
    b"RENAME": Server._rename,
    b"APPEND": Server._append,
    b"IDLE": Server._idle,
    b"LOGOUT": Server._logout,
    b"CLOSE": Server._close,
    b"UNSELECT": Server._close,
}
_SELECTED: dict[bytes, Callable[[Any, Command], Answer]] = {
    b"NOOP": Server._noop,
    b"CHECK": Server._noop,
    **EITHER,
    **{b"UID " + verb: method for verb, method in EITHER.items()},
}
