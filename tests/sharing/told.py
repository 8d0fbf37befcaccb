"""What one connection of the reference server was told of its selected mailbox, and when it is told the rest.

:class:`Style` is the table of what real servers do; :class:`View` the list of messages that a client has in mind.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from tests.sharing.reading import Ranges, Wrong, compact, ranges, within
from tests.sharing.store import SYSTEM, Mailbox, Message, Store


class Step(Enum):
    """One kind of news."""

    KEYWORDS = "FLAGS and PERMANENTFLAGS"
    FETCH = "FETCH"
    EXPUNGE = "EXPUNGE"
    EXISTS = "EXISTS and RECENT"


class Fate(Enum):
    """What becomes of a connection whose mailbox was deleted or renamed by another."""

    BYE = "it says BYE"
    END = "deleted: it ends; renamed: all is expunged, and commands are answered NO"
    NOTHING = "it carries on"


class Ghosts(Enum):
    """What becomes of a command that needs a message which is gone, and was not told to be."""

    ISSUED = "NIL in FETCH, NO to COPY, with EXPUNGEISSUED"
    CRASH = "by number, but for PEEK, the connection dies; else the message is left out"
    FALSE = "a false body in FETCH; left out of COPY"


class Beyond(Enum):
    """What comes of numbers above the last message's; what lies below it of a range is done, but for BAD."""

    BAD = "BAD, even if the range has messages"
    NO = "NO, if there is no message at all"
    WARNED = "OK, with an untagged NO if there is any"


class Style(NamedTuple):
    """A server's habits; the defaults are Dovecot's."""

    name: str = "dovecot"
    capabilities: bytes = (
        b"IMAP4rev1 LITERAL+ IDLE CHILDREN UIDPLUS MOVE ESEARCH SORT THREAD=REFERENCES UNSELECT ENABLE CONDSTORE"
        b" QRESYNC"
    )
    fate: Fate = Fate.BYE
    ghosts: Ghosts = Ghosts.ISSUED
    beyond: Beyond = Beyond.BAD
    # When news is told:
    order: tuple[Step, ...] = (Step.KEYWORDS, Step.FETCH, Step.EXPUNGE, Step.EXISTS)
    news: bool = True
    """Whether commands with data of their own (FETCH, STORE, COPY, SEARCH …) tell any …"""
    news_first: bool = False
    """… and tell it before that data; else afterwards."""
    expunge_first: frozenset[bytes] = frozenset()
    """In which commands EXPUNGE comes before their own data …"""
    expunge_last: frozenset[bytes] = frozenset(
        b"UID FETCH,UID STORE,UID SEARCH,UID SORT,UID THREAD,COPY,UID COPY,MOVE,UID MOVE".split(b",")
    )
    """… and in which afterwards."""
    fresh_status: bool = False
    """Whether STATUS of the selected mailbox tells news, and then the truth; else it answers what was told."""
    # How it is told:
    descending: bool = True
    """Whether the last message is expunged first."""
    exists_after_expunge: bool = False
    """Whether EXISTS and RECENT follow EXPUNGE, though nothing has arrived."""
    recent_alone: bool = True
    """Whether RECENT comes where an EXPUNGE has lowered it."""
    with_uid: frozenset[bytes] = frozenset({b"UID STORE"})
    """In which commands flags that were not asked for come with the UID."""
    keeps_keywords: bool = True
    """Whether a keyword that no message has stays in FLAGS."""
    # What commands do:
    swaps: bool = True
    """Whether a range whose end comes first is turned round; else it is empty."""
    echoes_all: bool = False
    """Whether a loud STORE shows flags that it did not change."""
    seen_apart: bool = False
    """Whether the implicit \\Seen comes in a second FETCH."""
    stores_in_examine: bool = False
    moves_in_examine: bool = True
    # What SELECT says:
    counts_first: bool = False
    """Whether EXISTS and RECENT come before FLAGS."""
    says_closed: bool = True
    """Whether CLOSED is said of the mailbox that was selected before (with QRESYNC, everyone does)."""
    more_codes: bool = True
    """Whether UNSEEN and UIDNEXT are among the codes."""
    always_modseq: bool = False
    """Whether HIGHESTMODSEQ is, before CONDSTORE is enabled."""


DOVECOT = Style()
CYRUS = Style(
    name="cyrus",
    capabilities=DOVECOT.capabilities + b" ANNOTATE-EXPERIMENT-1",
    fate=Fate.END,
    ghosts=Ghosts.CRASH,
    beyond=Beyond.NO,
    order=(Step.EXPUNGE, Step.EXISTS, Step.KEYWORDS, Step.FETCH),
    news_first=True,
    expunge_first=frozenset({b"UID STORE", b"UID COPY", b"UID MOVE"}),
    expunge_last=frozenset({b"UID FETCH", b"MOVE", b"UID MOVE"}),
    fresh_status=True,
    descending=False,
    recent_alone=False,
    with_uid=frozenset({b"UID FETCH", b"UID STORE", b"UID COPY"}),
    moves_in_examine=False,
    counts_first=True,
    says_closed=False,
    always_modseq=True,
)
COURIER = Style(
    name="courier",
    capabilities=b"IMAP4rev1 CHILDREN UIDPLUS SORT THREAD=REFERENCES",
    fate=Fate.NOTHING,
    ghosts=Ghosts.FALSE,
    beyond=Beyond.WARNED,
    order=(Step.EXPUNGE, Step.KEYWORDS, Step.EXISTS, Step.FETCH),
    news=False,
    expunge_last=frozenset(),
    descending=False,
    exists_after_expunge=True,
    with_uid=frozenset(),
    keeps_keywords=False,
    swaps=False,
    echoes_all=True,
    seen_apart=True,
    stores_in_examine=True,
    says_closed=False,
    more_codes=False,
)
STYLES = {style.name: style for style in (DOVECOT, CYRUS, COURIER)}


class Told:
    """A message that the client knows of, with the flags that it could know."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.flags = set(message.flags)


class View:
    """The selected mailbox, as the client was told of it.

    :ivar told: the messages in the client's order: the index of each is its number less one
    :ivar recents: the UIDs whose \\Recent is shown here
    """

    def __init__(self, store: Store, name: bytes, read_only: bool, style: Style) -> None:
        self.name = name
        self.read_only = read_only
        self.mailbox = store[name]
        self.told: list[Told] = []
        self.recents: set[int] = set()
        self.uidnext = 0
        self._store = store
        self._style = style
        self.keywords = self._keywords()
        self._recent_told = 0
        self._arrived()

    # --- what there is ----------------------------------------------------------------------------------------

    @property
    def now(self) -> Mailbox | None:
        """The mailbox that has this one's name now: it may be none, or another."""
        return self._store.mailboxes.get(self.name)

    def ghost(self, told: Told) -> bool:
        """Whether the message is gone, where the connection looks for it."""
        return self.now is not self.mailbox or all(told.message is not message for message in self.mailbox.messages)

    @property
    def last_uid(self) -> int:
        """The last UID that was told."""
        return self.told[-1].message.uid if self.told else 0

    def flags(self, told: Told) -> set[bytes]:
        """A message's flags as they are shown, \\Recent among them."""
        return told.flags | ({b"\\Recent"} if told.message.uid in self.recents else set())

    def numbered(self, uid: bool, text: bytes) -> tuple[list[tuple[int, Told]], Ranges]:
        """The messages of a set, with their numbers, and those of its ranges that end beyond the last."""
        last = len(self.told)
        these = ranges(text, self.last_uid if uid else last, self._style.swaps)
        if not uid and any(low == 0 for low, _ in these) and last:
            raise Wrong("no message has the number 0")
        found = [
            (number, told)
            for number, told in enumerate(self.told, 1)
            if within(told.message.uid if uid else number, these)
        ]
        if uid or (not last and text == b"1:*"):
            return found, []
        return found, [(low, high) for low, high in these if high > last]

    # --- what is told -----------------------------------------------------------------------------------------

    def tell(self, steps: frozenset[Step], uid: bool, modseq: bool, qresync: bool) -> list[bytes]:
        """All news of these kinds, in the server's order; then the client knows.

        :param uid: flags come with the UID; ``modseq``: with the MODSEQ; ``qresync``: VANISHED is said for EXPUNGE
        """
        lines: list[bytes] = []
        before = len(self.told)
        for step in self._style.order:
            if step not in steps:
                continue
            if step is Step.KEYWORDS:
                lines += self.tell_keywords()
            elif step is Step.FETCH:
                lines += self._tell_flags(uid, modseq)
            elif step is Step.EXPUNGE:
                lines += self._tell_gone(qresync)
            else:
                lines += self._tell_arrived(shrunk=len(self.told) < before)
        return lines

    def tell_keywords(self, stale: bool = False) -> list[bytes]:
        """FLAGS and PERMANENTFLAGS, where the keywords are others; ``stale``: the flags as told count, too."""
        now = self._keywords(stale)
        if now == self.keywords:
            return []
        self.keywords = now
        return self.flags_lines()

    def flags_lines(self) -> list[bytes]:
        """FLAGS and PERMANENTFLAGS."""
        flags = b" ".join([*SYSTEM, *self.keywords])
        permanent = b"" if self.read_only else flags + b" \\*"
        return [b"* FLAGS (%b)" % flags, b"* OK [PERMANENTFLAGS (%b)] Limited" % permanent]

    def _tell_flags(self, uid: bool, modseq: bool) -> Iterator[bytes]:
        for number, told in enumerate(self.told, 1):
            if not self.ghost(told) and told.flags != told.message.flags:
                told.flags = set(told.message.flags)
                yield self.flags_line(number, told, uid, modseq)

    def flags_line(self, number: int, told: Told, uid: bool, modseq: bool) -> bytes:
        """A FETCH that tells a message's flags."""
        items = [b"UID %d" % told.message.uid] if uid else []
        items.append(b"FLAGS (%b)" % b" ".join(sorted(self.flags(told))))
        if modseq:
            items.append(b"MODSEQ (%d)" % told.message.modseq)
        return b"* %d FETCH (%b)" % (number, b" ".join(items))

    def _tell_gone(self, qresync: bool) -> list[bytes]:
        gone = [(number, told) for number, told in enumerate(self.told, 1) if self.ghost(told)]
        self.told = [told for told in self.told if not self.ghost(told)]
        if qresync:
            return [b"* VANISHED %b" % compact(told.message.uid for _, told in gone)] if gone else []
        if self._style.descending:
            return [b"* %d EXPUNGE" % number for number, _ in reversed(gone)]
        return [b"* %d EXPUNGE" % (number - before) for before, (number, _) in enumerate(gone)]

    def _tell_arrived(self, shrunk: bool) -> list[bytes]:
        before = self._recent_told
        if self._arrived() or (shrunk and self._style.exists_after_expunge):
            return [b"* %d EXISTS" % len(self.told), b"* %d RECENT" % self.recent]
        return [b"* %d RECENT" % self.recent] if self._style.recent_alone and self.recent != before else []

    def _arrived(self) -> bool:
        """Take in what is new; whether there was any."""
        known = {id(told.message) for told in self.told}
        new = [message for message in self.mailbox.messages if id(message) not in known]
        for message in new:
            self.told.append(Told(message))
            self.recents -= {message.uid}
            if message.recent:
                self.recents.add(message.uid)
                message.recent = self.read_only
        self.uidnext = self.mailbox.uidnext
        self._recent_told = self.recent
        return bool(new)

    @property
    def recent(self) -> int:
        """How many of those told are recent here."""
        return sum(told.message.uid in self.recents for told in self.told)

    def _keywords(self, stale: bool = False) -> list[bytes]:
        used = {flag for message in self.mailbox.messages for flag in message.flags}
        if stale:
            used = used.union(*(told.flags for told in self.told))
        return [word for word in self.mailbox.keywords if self._style.keeps_keywords or word in used]

    # --- what is done through it ------------------------------------------------------------------------------

    def change(self, told: Told, how: bytes, flags: set[bytes]) -> None:
        """Change the flags of a message, if it is there; new keywords are taken in in any case."""
        self.mailbox.uses(flags)
        if not self.ghost(told):
            self.mailbox.store(told.message.uid, how, flags)

    def expunge(self, uids: Ranges | None = None) -> None:
        """Take out the messages with \\Deleted that the client knows of (and whose UID is among these)."""
        for told in self.told:
            uid = told.message.uid
            if b"\\Deleted" in told.message.flags and not self.ghost(told) and (uids is None or within(uid, uids)):
                self.mailbox.expunge(uid)

    def turn(self) -> None:
        """Go over to another mailbox that has the name now; what the client was told stays as it is."""
        self.mailbox = self.now or self.mailbox

    def since(self, modseq: int) -> list[bytes]:
        """What has changed since then, as SELECT tells it (RFC 7162 §3.2.5)."""
        gone = compact(uid for uid, then in self.mailbox.vanished if then > modseq)
        flags = [
            self.flags_line(number, told, uid=True, modseq=True)
            for number, told in enumerate(self.told, 1)
            if told.message.modseq > modseq
        ]
        return [b"* VANISHED (EARLIER) " + gone, *flags] if gone else flags
